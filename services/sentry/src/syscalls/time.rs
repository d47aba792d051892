//! Time calls: clocks, sleeping, interval timers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::timer::ABSTIME;
use super::{Entry, Outcome, SysResult, UserPtr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::interval::{Base, IntervalTimer, Part};
use crate::task::{Group, Task, itimer};
use crate::time::{Clock, Deadline, NS, Timespec, Timeval, clock, now};
use crate::wait::{Cause, PollMask, Wait, WaitQueue};

/// A moment in the container's memory; NULL for none. EINVAL as [`Timespec::to_ns`].
pub(super) fn moment(task: &Arc<Task>, at: UserPtr<Timespec>, clock: Clock) -> Result<Option<Deadline>, Errno> {
    if at.is_null() {
        return Ok(None);
    }
    Ok(Some(Deadline { clock, at: at.read(task)?.to_ns()? }))
}

/// The host clock behind a clock id that time can be waited on.
pub fn clock_of(id: i32) -> Result<Clock, Errno> {
    match id {
        clock::REALTIME | clock::REALTIME_COARSE | clock::REALTIME_ALARM | clock::TAI => Ok(Clock::Realtime),
        clock::MONOTONIC | clock::MONOTONIC_RAW | clock::MONOTONIC_COARSE => Ok(Clock::Monotonic),
        clock::BOOTTIME | clock::BOOTTIME_ALARM => Ok(Clock::Boottime),
        _ => Err(Errno::EINVAL),
    }
}

/// The CPU clock that a negative id means (`clock_getcpuclockid(3)`). EINVAL for others' threads and for what is no such clock.
fn cpu_clock(task: &Arc<Task>, id: i32) -> Result<Base, Errno> {
    // ~id << 3, 4 for a thread, and which time: all in ticks, of its own code, all exactly.
    let (number, thread) = (!(id >> 3), id & 4 != 0);
    let part = match id & 3 {
        0 | 2 => Part::All,
        1 => Part::User,
        _ => return Err(Errno::EINVAL),
    };
    let of_thread = |t: &Arc<Task>| Base::Thread(Arc::downgrade(t), part);
    let of_group = |g: &Arc<Group>| Base::Cpu(Arc::downgrade(g), part);
    if number == 0 {
        return Ok(if thread { of_thread(task) } else { of_group(task.group()) });
    }
    let number = task.id_of(number);
    let tree = task.kernel().tree.lock();
    let base = if thread {
        tree.task(number).filter(|t| Arc::ptr_eq(t.group(), task.group())).as_ref().map(of_thread)
    } else {
        tree.group(number).as_ref().map(of_group)
    };
    base.ok_or(Errno::EINVAL)
}

/// What a clock counts. EINVAL for no clock.
pub fn base_of(task: &Arc<Task>, id: i32) -> Result<Base, Errno> {
    match id {
        clock::PROCESS_CPUTIME => Ok(Base::Cpu(Arc::downgrade(task.group()), Part::All)),
        clock::THREAD_CPUTIME => Ok(Base::Thread(Arc::downgrade(task), Part::All)),
        id if id < 0 => cpu_clock(task, id),
        id => Ok(Base::Clock(clock_of(id)?)),
    }
}

fn read_clock(task: &Arc<Task>, id: i32) -> Result<i64, Errno> {
    Ok(base_of(task, id)?.now())
}

fn clock_gettime(task: &Arc<Task>, id: i32, to: UserPtr<Timespec>) -> SysResult {
    let t = read_clock(task, id)?;
    to.write(task, &Timespec::from_ns(t))?;
    done()
}

fn clock_getres(task: &Arc<Task>, id: i32, to: UserPtr<Timespec>) -> SysResult {
    read_clock(task, id)?;
    let ns = if matches!(id, clock::REALTIME_COARSE | clock::MONOTONIC_COARSE) { 4_000_000 } else { 1 };
    to.write_if(task, &Timespec::from_ns(ns))?;
    done()
}

fn clock_settime(task: &Arc<Task>, id: i32, from: UserPtr<Timespec>) -> SysResult {
    if id != clock::REALTIME {
        return Err(Errno::EINVAL);
    }
    from.read(task)?.to_ns()?;
    // The container's clocks are the host's.
    Err(Errno::EPERM)
}

fn gettimeofday(task: &Arc<Task>, to: UserPtr<Timeval>, zone: UserPtr<u64>) -> SysResult {
    to.write_if(task, &Timeval::from_ns(now(Clock::Realtime)))?;
    zone.write_if(task, &0)?;
    done()
}

fn time(task: &Arc<Task>, to: UserPtr<i64>) -> SysResult {
    let t = now(Clock::Realtime).div_euclid(NS);
    to.write_if(task, &t)?;
    value(t)
}

/// Sleeps until `deadline`; for relative sleeps `left` is where the remaining time goes when a handler interrupts.
fn sleep(deadline: Deadline, left: Option<UserPtr<Timespec>>) -> Wait {
    Wait::new(move |task, cause| match cause {
        Cause::TimedOut => Some(Ok(0)),
        Cause::Woken => None,
        Cause::Interrupted => match left {
            None => Some(Err(Errno::ERESTARTNOHAND)),
            Some(left) => {
                if let Err(e) = left.write_if(task, &Timespec::from_ns(deadline.remaining())) {
                    return Some(Err(e));
                }
                task.state.lock().restart = Some(Box::new(move || sleep(deadline, Some(left))));
                Some(Err(Errno::ERESTART_RESTARTBLOCK))
            }
        },
    })
    .until(Some(deadline))
}

fn nanosleep(task: &Arc<Task>, request: UserPtr<Timespec>, left: UserPtr<Timespec>) -> SysResult {
    let ns = request.read(task)?.to_ns()?;
    Ok(Outcome::Block(sleep(Deadline::after(ns), Some(left))))
}

fn clock_nanosleep(
    task: &Arc<Task>,
    id: i32,
    flags: i32,
    request: UserPtr<Timespec>,
    left: UserPtr<Timespec>,
) -> SysResult {
    // A thread that waits uses no time of its own.
    let own = [0, task.shown(task.tid())].contains(&!(id >> 3));
    let base = match id {
        clock::THREAD_CPUTIME | clock::MONOTONIC_RAW | clock::REALTIME_COARSE | clock::MONOTONIC_COARSE => {
            return Err(Errno::EOPNOTSUPP);
        }
        id if id < 0 && id & 4 != 0 && own => return Err(Errno::EINVAL),
        id => base_of(task, id)?,
    };
    if !matches!(base, Base::Clock(_)) {
        let ns = request.read(task)?.to_ns()?;
        return Ok(Outcome::Block(cpu_sleep(task, base, ns, flags & ABSTIME != 0, left)));
    }
    let clock = clock_of(id)?;
    let ns = request.read(task)?.to_ns()?;
    if flags & ABSTIME != 0 {
        return Ok(Outcome::Block(sleep(Deadline { clock, at: ns }, None)));
    }
    let deadline = Deadline { clock: if clock == Clock::Realtime { Clock::Monotonic } else { clock }, at: 0 };
    let deadline = Deadline { at: now(deadline.clock).saturating_add(ns), ..deadline };
    Ok(Outcome::Block(sleep(deadline, Some(left))))
}

/// Sleeps until so much CPU time was used.
fn cpu_sleep(task: &Arc<Task>, base: Base, ns: i64, absolute: bool, left: UserPtr<Timespec>) -> Wait {
    let (queue, over) = (WaitQueue::new(), Arc::new(AtomicBool::new(false)));
    let (wakes, ends) = (queue.clone(), over.clone());
    // A moment that has passed, or no time at all, is over at the first look.
    let at = if absolute { ns } else { base.now().saturating_add(ns) };
    let timer = IntervalTimer::new(&task.kernel().timers, base, move |_| {
        ends.store(true, Ordering::Release);
        wakes.wake(PollMask::empty());
    });
    timer.set(at.max(1), 0, true);
    let wait = Wait::new(move |task, cause| {
        if cause == Cause::Woken {
            timer.look();
        }
        if over.load(Ordering::Acquire) {
            return Some(Ok(0));
        }
        if cause != Cause::Interrupted {
            return None;
        }
        let rest = Timespec::from_ns(timer.get().0);
        let told = if absolute { Ok(()) } else { left.write_if(task, &rest) };
        Some(told.and(Err(Errno::ERESTARTNOHAND)))
    });
    wait.on(&queue, PollMask::empty())
}

/// `struct itimerval`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
struct ITimer {
    interval: Timeval,
    value: Timeval,
}

fn itimer_of((left, interval): (i64, i64)) -> ITimer {
    // Less than a microsecond left is still running.
    let left = if left > 0 { left.max(1000) } else { 0 };
    ITimer { interval: Timeval::from_ns(interval), value: Timeval::from_ns(left) }
}

fn setitimer(task: &Arc<Task>, which: i32, new: UserPtr<ITimer>, old: UserPtr<ITimer>) -> SysResult {
    if !(0..=2).contains(&which) {
        return Err(Errno::EINVAL);
    }
    let t = if new.is_null() { ITimer::default() } else { new.read(task)? };
    let (value, interval) = (t.value.to_ns()?, t.interval.to_ns()?);
    let which = usize::try_from(which).map_err(|_| Errno::EINVAL)?;
    let before = itimer::set(task.kernel(), task.group(), which, value, interval);
    old.write_if(task, &itimer_of(before))?;
    done()
}

fn getitimer(task: &Arc<Task>, which: i32, to: UserPtr<ITimer>) -> SysResult {
    if !(0..=2).contains(&which) {
        return Err(Errno::EINVAL);
    }
    let current = itimer::get(task.group(), usize::try_from(which).map_err(|_| Errno::EINVAL)?);
    to.write(task, &itimer_of(current))?;
    done()
}

fn alarm(task: &Arc<Task>, seconds: u32) -> SysResult {
    let (left, _) = itimer::set(task.kernel(), task.group(), 0, i64::from(seconds) * NS, 0);
    // Rounded to the nearest second, never to 0 while it runs.
    let whole = (left + NS / 2) / NS;
    value(if left > 0 { whole.max(1) } else { 0 })
}

fn times(task: &Arc<Task>, to: UserPtr<[i64; 4]>) -> SysResult {
    let ticks = |ns: i64| ns / (NS / 100);
    let own = task.group().usage(0);
    let children = *task.group().children_usage.lock();
    to.write_if(task, &[ticks(own.user), ticks(own.system), ticks(children.user), ticks(children.system)])?;
    value(ticks(now(Clock::Boottime)))
}

fn adjtimex(task: &Arc<Task>, buffer: UserPtr<u8>) -> SysResult {
    let mut modes = [0u8; 4];
    task.read_exact(buffer.address(), &mut modes)?;
    // Setting is not allowed; reading would tell of the host's clock discipline.
    Err(if modes == [0; 4] { Errno::EINVAL } else { Errno::EPERM })
}

/// The time calls.
pub const TABLE: &[Entry] = &[
    entry!(35, "nanosleep", Full, "", nanosleep(UserPtr<Timespec>, UserPtr<Timespec>)),
    entry!(36, "getitimer", Full, "", getitimer(i32, UserPtr<ITimer>)),
    entry!(37, "alarm", Full, "", alarm(u32)),
    entry!(38, "setitimer", Full, "", setitimer(i32, UserPtr<ITimer>, UserPtr<ITimer>)),
    entry!(96, "gettimeofday", Full, "", gettimeofday(UserPtr<Timeval>, UserPtr<u64>)),
    entry!(100, "times", Full, "", times(UserPtr<[i64; 4]>)),
    entry!(159, "adjtimex", Refused, "the clocks are the host's", adjtimex(UserPtr<u8>)),
    entry!(201, "time", Full, "", time(UserPtr<i64>)),
    entry!(227, "clock_settime", Refused, "the clocks are the host's (EPERM)", clock_settime(i32, UserPtr<Timespec>)),
    entry!(
        228,
        "clock_gettime",
        Partial,
        "a thread's CPU time is its part of its process's, by the time it was ready to run",
        clock_gettime(i32, UserPtr<Timespec>)
    ),
    entry!(229, "clock_getres", Full, "", clock_getres(i32, UserPtr<Timespec>)),
    entry!(230, "clock_nanosleep", Full, "", clock_nanosleep(i32, i32, UserPtr<Timespec>, UserPtr<Timespec>)),
];
