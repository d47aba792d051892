//! Time calls: clocks, sleeping, interval timers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::timer::ABSTIME;
use super::{Entry, Outcome, SysResult, UserPtr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::interval::{Base, IntervalTimer};
use crate::task::{Group, Task, itimer};
use crate::time::{Clock, Deadline, NS, Timespec, Timeval, clock, now};
use crate::wait::{Cause, PollMask, Wait, WaitQueue};

/// The host clock behind a clock id that time can be waited on.
pub fn clock_of(id: i32) -> Result<Clock, Errno> {
    match id {
        clock::REALTIME | clock::REALTIME_COARSE | clock::REALTIME_ALARM | clock::TAI => Ok(Clock::Realtime),
        clock::MONOTONIC | clock::MONOTONIC_RAW | clock::MONOTONIC_COARSE => Ok(Clock::Monotonic),
        clock::BOOTTIME | clock::BOOTTIME_ALARM => Ok(Clock::Boottime),
        _ => Err(Errno::EINVAL),
    }
}

/// The process that a negative clock id is the CPU clock of (`clock_getcpuclockid(3)`), and whether only a thread's time
/// is asked for. EINVAL for others' threads and for what is no such clock.
pub fn cpu_clock(task: &Arc<Task>, id: i32) -> Result<(Arc<Group>, bool), Errno> {
    // ~id << 3, 4 for a thread, and which time: 0 to 2.
    let (number, thread) = (!(id >> 3), id & 4 != 0);
    if id & 3 == 3 {
        return Err(Errno::EINVAL);
    }
    if number == 0 {
        return Ok((task.group().clone(), thread));
    }
    let tree = task.kernel().tree.lock();
    let group = if thread {
        tree.task(number).map(|t| t.group().clone()).filter(|g| Arc::ptr_eq(g, task.group()))
    } else {
        tree.group(number)
    };
    Ok((group.ok_or(Errno::EINVAL)?, thread))
}

fn read_clock(task: &Arc<Task>, id: i32) -> Result<i64, Errno> {
    match id {
        clock::PROCESS_CPUTIME | clock::THREAD_CPUTIME => Ok(task.group().cpu_time()),
        i if i < 0 => Ok(cpu_clock(task, i)?.0.cpu_time()),
        i => Ok(now(clock_of(i)?)),
    }
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
    let cpu = match id {
        clock::PROCESS_CPUTIME => Some(task.group().clone()),
        clock::THREAD_CPUTIME | clock::MONOTONIC_RAW | clock::REALTIME_COARSE | clock::MONOTONIC_COARSE => {
            return Err(Errno::EOPNOTSUPP);
        }
        id if id < 0 => match cpu_clock(task, id)? {
            (group, false) => Some(group),
            (_, true) => return Err(Errno::EOPNOTSUPP),
        },
        _ => None,
    };
    if let Some(group) = cpu {
        let ns = request.read(task)?.to_ns()?;
        return Ok(Outcome::Block(cpu_sleep(task, &group, ns, flags & ABSTIME != 0, left)));
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

/// Sleeps until a process has used so much CPU time.
fn cpu_sleep(task: &Arc<Task>, group: &Arc<Group>, ns: i64, absolute: bool, left: UserPtr<Timespec>) -> Wait {
    let (queue, over) = (WaitQueue::new(), Arc::new(AtomicBool::new(false)));
    let (wakes, ends) = (queue.clone(), over.clone());
    let timer = IntervalTimer::new(&task.kernel().timers, Base::Cpu(Arc::downgrade(group)), move |_| {
        ends.store(true, Ordering::Release);
        wakes.wake(PollMask::empty());
    });
    // A moment that has passed, or no time at all, is over at the first look.
    timer.set(if absolute { ns.max(1) } else { group.cpu_time().saturating_add(ns).max(1) }, 0, true);
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
    let own = task.group().cpu_time();
    let children = task.group().children_usage.lock().cpu;
    to.write_if(task, &[ticks(own), 0, ticks(children), 0])?;
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
    entry!(36, "getitimer", Partial, "as setitimer", getitimer(i32, UserPtr<ITimer>)),
    entry!(37, "alarm", Full, "", alarm(u32)),
    entry!(
        38,
        "setitimer",
        Partial,
        "VIRTUAL counts system time too",
        setitimer(i32, UserPtr<ITimer>, UserPtr<ITimer>)
    ),
    entry!(96, "gettimeofday", Full, "", gettimeofday(UserPtr<Timeval>, UserPtr<u64>)),
    entry!(100, "times", Partial, "user and system time together", times(UserPtr<[i64; 4]>)),
    entry!(159, "adjtimex", Refused, "the clocks are the host's", adjtimex(UserPtr<u8>)),
    entry!(201, "time", Full, "", time(UserPtr<i64>)),
    entry!(227, "clock_settime", Refused, "the clocks are the host's (EPERM)", clock_settime(i32, UserPtr<Timespec>)),
    entry!(
        228,
        "clock_gettime",
        Partial,
        "thread CPU clocks show the process's time",
        clock_gettime(i32, UserPtr<Timespec>)
    ),
    entry!(229, "clock_getres", Full, "", clock_getres(i32, UserPtr<Timespec>)),
    entry!(
        230,
        "clock_nanosleep",
        Partial,
        "no threads' CPU time (EOPNOTSUPP)",
        clock_nanosleep(i32, i32, UserPtr<Timespec>, UserPtr<Timespec>)
    ),
];
