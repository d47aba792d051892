//! `poll`, `ppoll`, `select`, `pselect6`.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::entry;
use crate::errno::Errno;
use crate::ipc::signalfd::polling_for;
use crate::syscalls::{Entry, Outcome, SysResult, UserPtr};
use crate::task::Task;
use crate::time::{Deadline, Timespec, Timeval};
use crate::vfs::File;
use crate::vfs::control::{ProcessControl, RLIMIT_NOFILE};
use crate::wait::{Cause, PollMask, Wait};

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(7, "poll", Full, "", poll(UserPtr<PollFd>, u32, i32)),
    entry!(271, "ppoll", Full, "", ppoll(UserPtr<PollFd>, u32, UserPtr<Timespec>, UserPtr<u64>, usize)),
    entry!(23, "select", Full, "", select(i32, UserPtr<u64>, UserPtr<u64>, UserPtr<u64>, UserPtr<Timeval>)),
    entry!(
        270,
        "pselect6",
        Full,
        "",
        pselect6(i32, UserPtr<u64>, UserPtr<u64>, UserPtr<u64>, UserPtr<Timespec>, UserPtr<[u64; 2]>)
    ),
];

/// `struct pollfd`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct PollFd {
    fd: i32,
    events: i16,
    revents: i16,
}

/// A descriptor being waited for.
struct Watched {
    file: Option<Arc<File>>,
    events: PollMask,
    /// Events that end the wait though nobody asked for them.
    always: PollMask,
}

impl Watched {
    fn now(&self) -> PollMask {
        match &self.file {
            None => PollMask::NVAL,
            Some(f) => f.poll() & (self.events | self.always),
        }
    }
}

fn watch(task: &Arc<Task>, fd: i32, events: PollMask) -> Watched {
    let always = PollMask::ERR | PollMask::HUP | PollMask::NVAL;
    Watched { file: task.files().get_any(fd).ok(), events, always }
}

/// Puts a remaining time back for the caller.
type Remaining = Box<dyn Fn(&Arc<Task>, i64) + Send>;

/// How a wait ends: with a deadline, a signal mask for its time, and a place for the time left.
struct How {
    deadline: Option<Deadline>,
    remaining: Option<Remaining>,
    mask: Option<u64>,
}

/// Waits until `report` counts something. `report` writes results for the container and gives their number.
fn wait_for(
    task: &Arc<Task>,
    watched: Vec<Watched>,
    how: How,
    mut report: impl FnMut(&Arc<Task>, &[PollMask]) -> Result<i64, Errno> + Send + 'static,
) -> SysResult {
    let swapped = how.mask.map(|m| task.swap_signal_mask(m));
    let deadline = how.deadline;
    let remaining = how.remaining;
    let queues: Vec<_> = watched
        .iter()
        .filter_map(|w| {
            let q = w.file.as_ref()?.ops().queue()?.clone();
            Some((q, w.events | PollMask::ERR | PollMask::HUP))
        })
        .collect();
    let mut step = move |task: &Arc<Task>, cause: Cause| -> Option<Result<i64, Errno>> {
        let now: Vec<PollMask> = polling_for(task, || watched.iter().map(Watched::now).collect());
        let any = now.iter().any(|m| !m.is_empty());
        let timed_out = cause == Cause::TimedOut || deadline.is_some_and(Deadline::passed);
        let result = if any || timed_out {
            report(task, &now)
        } else if cause == Cause::Interrupted {
            Err(Errno::ERESTARTNOHAND)
        } else {
            return None;
        };
        if let (Some(d), Some(put)) = (deadline, &remaining) {
            put(task, d.remaining());
        }
        if let Some(old) = swapped {
            task.restore_signal_mask(old, result == Err(Errno::ERESTARTNOHAND));
        }
        Some(result)
    };
    if let Some(r) = step(task, Cause::Woken) {
        return r.map(Outcome::Value);
    }
    let mut wait = Wait::new(step).until(deadline);
    wait.queues = queues;
    Ok(Outcome::Block(wait))
}

fn do_poll(task: &Arc<Task>, fds: UserPtr<PollFd>, count: u32, how: How) -> SysResult {
    if u64::from(count) > task.limit(RLIMIT_NOFILE) {
        return Err(Errno::EINVAL);
    }
    let list = fds.read_array(task, count as usize, 1 << 20)?;
    let watched = list
        .iter()
        .map(|p| {
            let events = PollMask::from_bits_truncate(u32::from(p.events.cast_unsigned()));
            if p.fd < 0 { None } else { Some(watch(task, p.fd, events)) }
        })
        .collect::<Vec<_>>();
    // Negative descriptors are ignored, with no events.
    let places: Vec<usize> = watched.iter().enumerate().filter_map(|(n, w)| w.as_ref().map(|_| n)).collect();
    wait_for(task, watched.into_iter().flatten().collect(), how, move |task, now| {
        let mut out = list.clone();
        for p in &mut out {
            p.revents = 0;
        }
        let mut ready = 0;
        for (place, m) in places.iter().zip(now) {
            if let Some(p) = out.get_mut(*place) {
                p.revents = m.bits() as i16;
                ready += i64::from(!m.is_empty());
            }
        }
        fds.write_array(task, &out)?;
        Ok(ready)
    })
}

fn poll(task: &Arc<Task>, fds: UserPtr<PollFd>, count: u32, timeout: i32) -> SysResult {
    let deadline = (timeout >= 0).then(|| Deadline::after(i64::from(timeout) * 1_000_000));
    do_poll(task, fds, count, How { deadline, remaining: None, mask: None })
}

fn timespec(task: &Arc<Task>, pointer: UserPtr<Timespec>) -> Result<(Option<Deadline>, Option<Remaining>), Errno> {
    if pointer.is_null() {
        return Ok((None, None));
    }
    let ns = pointer.read(task)?.to_ns()?;
    let put: Remaining = Box::new(move |task, left| {
        pointer.write(task, &Timespec::from_ns(left)).ok();
    });
    Ok((Some(Deadline::after(ns)), Some(put)))
}

fn mask(task: &Arc<Task>, pointer: UserPtr<u64>, size: usize) -> Result<Option<u64>, Errno> {
    if pointer.is_null() {
        return Ok(None);
    }
    if size != 8 {
        return Err(Errno::EINVAL);
    }
    pointer.read(task).map(Some)
}

fn ppoll(
    task: &Arc<Task>,
    fds: UserPtr<PollFd>,
    count: u32,
    timeout: UserPtr<Timespec>,
    sigmask: UserPtr<u64>,
    size: usize,
) -> SysResult {
    let (deadline, remaining) = timespec(task, timeout)?;
    let mask = mask(task, sigmask, size)?;
    do_poll(task, fds, count, How { deadline, remaining, mask })
}

const SELECT_IN: PollMask = PollMask::IN.union(PollMask::RDNORM).union(PollMask::HUP).union(PollMask::ERR);
const SELECT_OUT: PollMask = PollMask::OUT.union(PollMask::WRNORM).union(PollMask::ERR);
const SELECT_EX: PollMask = PollMask::PRI;

fn do_select(task: &Arc<Task>, count: i32, sets: [UserPtr<u64>; 3], how: How) -> SysResult {
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
    // Descriptors above the table are not looked at, as on Linux.
    let count = count.min(task.files().size().next_multiple_of(64));
    let words = count.div_ceil(64);
    let mut wanted = Vec::new();
    for s in sets {
        wanted.push(if s.is_null() { vec![0; words] } else { s.read_array(task, words, 1 << 20)? });
    }
    let has =
        |set: usize, fd: usize| wanted.get(set).and_then(|w| w.get(fd / 64)).is_some_and(|w| w & (1 << (fd % 64)) != 0);
    let mut watched = Vec::new();
    let mut marks: Vec<(usize, [bool; 3])> = Vec::new();
    for fd in 0..count {
        let asked = [has(0, fd), has(1, fd), has(2, fd)];
        let mut events = PollMask::empty();
        for (on, m) in asked.iter().zip([SELECT_IN, SELECT_OUT, SELECT_EX]) {
            if *on {
                events |= m;
            }
        }
        if events.is_empty() {
            continue;
        }
        let number = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
        let w = Watched { always: PollMask::empty(), ..watch(task, number, events) };
        if w.file.as_ref().is_none_or(|f| f.is_path_only()) {
            return Err(Errno::EBADF);
        }
        watched.push(w);
        marks.push((fd, asked));
    }
    // What was not asked for does not end the wait.
    wait_for(task, watched, how, move |task, now| {
        let mut out = vec![vec![0u64; words]; 3];
        let mut ready = 0;
        for ((fd, asked), m) in marks.iter().zip(now) {
            let answers = [SELECT_IN, SELECT_OUT, SELECT_EX];
            for ((set, on), events) in out.iter_mut().zip(asked).zip(answers) {
                if *on
                    && m.intersects(events)
                    && let Some(word) = set.get_mut(fd / 64)
                {
                    *word |= 1 << (fd % 64);
                    ready += 1;
                }
            }
        }
        for (s, o) in sets.iter().zip(&out) {
            if !s.is_null() {
                s.write_array(task, o)?;
            }
        }
        Ok(ready)
    })
}

fn select(
    task: &Arc<Task>,
    count: i32,
    read: UserPtr<u64>,
    write: UserPtr<u64>,
    except: UserPtr<u64>,
    timeout: UserPtr<Timeval>,
) -> SysResult {
    let mut how = How { deadline: None, remaining: None, mask: None };
    if !timeout.is_null() {
        let t = timeout.read(task)?;
        if t.sec < 0 || t.usec < 0 {
            return Err(Errno::EINVAL);
        }
        let ns = t.sec.saturating_mul(crate::time::NS).saturating_add(t.usec.saturating_mul(1000));
        how.deadline = Some(Deadline::after(ns));
        how.remaining = Some(Box::new(move |task, left| {
            timeout.write(task, &Timeval::from_ns(left)).ok();
        }));
    }
    do_select(task, count, [read, write, except], how)
}

fn pselect6(
    task: &Arc<Task>,
    count: i32,
    read: UserPtr<u64>,
    write: UserPtr<u64>,
    except: UserPtr<u64>,
    timeout: UserPtr<Timespec>,
    sigmask: UserPtr<[u64; 2]>,
) -> SysResult {
    let (deadline, remaining) = timespec(task, timeout)?;
    let mask = if sigmask.is_null() {
        None
    } else {
        let [pointer, size] = sigmask.read(task)?;
        self::mask(task, UserPtr::new(pointer), usize::try_from(size).map_err(|_| Errno::EINVAL)?)?
    };
    do_select(task, count, [read, write, except], How { deadline, remaining, mask })
}
