//! `epoll_create`, `epoll_ctl`, `epoll_wait` and their forms; `eventfd`.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::entry;
use crate::errno::Errno;
use crate::ipc::epoll::{self, EDGE, EXCLUSIVE, Epoll, EpollFile, WAKEUP};
use crate::ipc::eventfd;
use crate::ipc::signalfd::polling_for;
use crate::syscalls::{Entry, Fd, Outcome, SysResult, UserPtr, done, value};
use crate::task::Task;
use crate::time::{Deadline, Timespec};
use crate::vfs::control::ProcessControl;
use crate::vfs::file::flags;
use crate::wait::{Cause, PollMask, Wait};

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(213, "epoll_create", Full, "", epoll_create(i32)),
    entry!(291, "epoll_create1", Full, "", epoll_create1(i32)),
    entry!(233, "epoll_ctl", Full, "", epoll_ctl(Fd, i32, Fd, UserPtr<Event>)),
    entry!(232, "epoll_wait", Full, "", epoll_wait(Fd, UserPtr<Event>, i32, i32)),
    entry!(281, "epoll_pwait", Full, "", epoll_pwait(Fd, UserPtr<Event>, i32, i32, UserPtr<u64>, usize)),
    entry!(
        441,
        "epoll_pwait2",
        Full,
        "",
        epoll_pwait2(Fd, UserPtr<Event>, i32, UserPtr<Timespec>, UserPtr<u64>, usize)
    ),
    entry!(284, "eventfd", Full, "", eventfd1(u32)),
    entry!(290, "eventfd2", Full, "", eventfd2(u32, i32)),
];

/// `struct epoll_event`, packed on x86-64.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct Event {
    events: [u8; 4],
    data: [u8; 8],
}

fn epoll_create1(task: &Arc<Task>, options: i32) -> SysResult {
    if options & !flags::CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    value(task.add_file(epoll::create(), options & flags::CLOEXEC != 0)?)
}

fn epoll_create(task: &Arc<Task>, size: i32) -> SysResult {
    if size <= 0 {
        return Err(Errno::EINVAL);
    }
    epoll_create1(task, 0)
}

fn instance(task: &Arc<Task>, fd: Fd) -> Result<Arc<Epoll>, Errno> {
    Ok(task.file(fd)?.ops_as::<EpollFile>().ok_or(Errno::EINVAL)?.0.clone())
}

fn epoll_ctl(task: &Arc<Task>, epfd: Fd, operation: i32, fd: Fd, event: UserPtr<Event>) -> SysResult {
    let event = if operation == 2 { None } else { Some(event.read(task)?) };
    let (epfile, file) = (task.file(epfd)?, task.file(fd)?);
    if file.ops().queue().is_none() {
        return Err(Errno::EPERM);
    }
    if Arc::ptr_eq(&epfile, &file) {
        return Err(Errno::EINVAL);
    }
    let epoll = instance(task, epfd)?;
    let (events, data) = event.map_or((0, 0), |e| (u32::from_le_bytes(e.events), u64::from_le_bytes(e.data)));
    let exclusive_ok = EXCLUSIVE | EDGE | WAKEUP | 0x1 | 0x4 | 0x8 | 0x10;
    if events & EXCLUSIVE != 0 && (events & !exclusive_ok != 0 || operation == 3) {
        return Err(Errno::EINVAL);
    }
    polling_for(task, || match operation {
        1 => epoll.add(fd.0, &file, events, data),
        2 => epoll.delete(fd.0, &file),
        3 => epoll.modify(fd.0, &file, events, data),
        _ => Err(Errno::EINVAL),
    })?;
    done()
}

fn wait(
    task: &Arc<Task>,
    epfd: Fd,
    to: UserPtr<Event>,
    max: i32,
    deadline: Option<Deadline>,
    mask: Option<u64>,
) -> SysResult {
    let max = usize::try_from(max).ok().filter(|m| (1..=i32::MAX as usize / 12).contains(m)).ok_or(Errno::EINVAL)?;
    let epoll = instance(task, epfd)?;
    let swapped = mask.map(|m| task.swap_signal_mask(m));
    let queue = epoll.queue().clone();
    let step = move |task: &Arc<Task>, cause: Cause| -> Option<Result<i64, Errno>> {
        let got = polling_for(task, || epoll.take(max));
        let result = if !got.is_empty() {
            let out: Vec<Event> =
                got.iter().map(|(e, d)| Event { events: e.to_le_bytes(), data: d.to_le_bytes() }).collect();
            to.write_array(task, &out).map(|()| out.len() as i64)
        } else if cause == Cause::TimedOut || deadline.is_some_and(Deadline::passed) {
            Ok(0)
        } else if cause == Cause::Interrupted {
            Err(Errno::EINTR)
        } else {
            return None;
        };
        if let Some(old) = swapped {
            task.restore_signal_mask(old, result == Err(Errno::EINTR));
        }
        Some(result)
    };
    match step(task, Cause::Woken) {
        Some(r) => r.map(Outcome::Value),
        None => Ok(Outcome::Block(Wait::new(step).on(&queue, PollMask::IN).until(deadline))),
    }
}

fn after(milliseconds: i32) -> Option<Deadline> {
    (milliseconds >= 0).then(|| Deadline::after(i64::from(milliseconds) * 1_000_000))
}

fn epoll_wait(task: &Arc<Task>, epfd: Fd, to: UserPtr<Event>, max: i32, timeout: i32) -> SysResult {
    wait(task, epfd, to, max, after(timeout), None)
}

pub(super) fn signals(task: &Arc<Task>, mask: UserPtr<u64>, size: usize) -> Result<Option<u64>, Errno> {
    if mask.is_null() {
        return Ok(None);
    }
    if size == 8 { mask.read(task).map(Some) } else { Err(Errno::EINVAL) }
}

fn epoll_pwait(
    task: &Arc<Task>,
    epfd: Fd,
    to: UserPtr<Event>,
    max: i32,
    timeout: i32,
    mask: UserPtr<u64>,
    size: usize,
) -> SysResult {
    wait(task, epfd, to, max, after(timeout), signals(task, mask, size)?)
}

fn epoll_pwait2(
    task: &Arc<Task>,
    epfd: Fd,
    to: UserPtr<Event>,
    max: i32,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<u64>,
    size: usize,
) -> SysResult {
    let deadline = if timeout.is_null() { None } else { Some(Deadline::after(timeout.read(task)?.to_ns()?)) };
    wait(task, epfd, to, max, deadline, signals(task, mask, size)?)
}

fn eventfd2(task: &Arc<Task>, initial: u32, options: i32) -> SysResult {
    if options & !(eventfd::SEMAPHORE | flags::CLOEXEC | flags::NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    value(task.add_file(eventfd::eventfd(initial, options), options & flags::CLOEXEC != 0)?)
}

fn eventfd1(task: &Arc<Task>, initial: u32) -> SysResult {
    eventfd2(task, initial, 0)
}
