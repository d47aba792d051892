//! Time calls: clocks, sleeping, interval timers.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Entry, Outcome, SysResult, UserPtr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::task::{Task, itimer};
use crate::time::{Clock, Deadline, NS, Timespec, Timeval, now, process_cpu};
use crate::wait::{Cause, Wait};

const CLOCK_REALTIME: i32 = 0;
const CLOCK_MONOTONIC: i32 = 1;
const CLOCK_PROCESS_CPUTIME_ID: i32 = 2;
const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
const CLOCK_MONOTONIC_RAW: i32 = 4;
const CLOCK_REALTIME_COARSE: i32 = 5;
const CLOCK_MONOTONIC_COARSE: i32 = 6;
const CLOCK_BOOTTIME: i32 = 7;
const CLOCK_REALTIME_ALARM: i32 = 8;
const CLOCK_BOOTTIME_ALARM: i32 = 9;
const CLOCK_TAI: i32 = 11;

/// The host clock behind a clock id that time can be waited on.
pub fn clock_of(id: i32) -> Result<Clock, Errno> {
    match id {
        CLOCK_REALTIME | CLOCK_REALTIME_COARSE | CLOCK_REALTIME_ALARM | CLOCK_TAI => Ok(Clock::Realtime),
        CLOCK_MONOTONIC | CLOCK_MONOTONIC_RAW | CLOCK_MONOTONIC_COARSE => Ok(Clock::Monotonic),
        CLOCK_BOOTTIME | CLOCK_BOOTTIME_ALARM => Ok(Clock::Boottime),
        _ => Err(Errno::EINVAL),
    }
}

fn read_clock(task: &Arc<Task>, id: i32) -> Result<i64, Errno> {
    match id {
        CLOCK_PROCESS_CPUTIME_ID | CLOCK_THREAD_CPUTIME_ID => Ok(task.host().map_or(0, |h| process_cpu(h.tid()))),
        i if i < 0 => {
            // A process's CPU clock: ~pid << 3 | 2 (clock_getcpuclockid).
            let pid = !(i >> 3);
            let t = if pid == 0 { Some(task.clone()) } else { task.kernel().tree.lock().task(pid) };
            let t = t.ok_or(Errno::EINVAL)?;
            Ok(t.host().map_or(0, |h| process_cpu(h.tid())))
        }
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
    let ns = if matches!(id, CLOCK_REALTIME_COARSE | CLOCK_MONOTONIC_COARSE) { 4_000_000 } else { 1 };
    to.write_if(task, &Timespec::from_ns(ns))?;
    done()
}

fn clock_settime(_: &Arc<Task>, id: i32, _from: UserPtr<Timespec>) -> SysResult {
    clock_of(id)?;
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
    if id == CLOCK_THREAD_CPUTIME_ID {
        return Err(Errno::EINVAL);
    }
    let clock = match id {
        CLOCK_PROCESS_CPUTIME_ID => return Err(Errno::EOPNOTSUPP),
        _ => clock_of(id)?,
    };
    let ns = request.read(task)?.to_ns()?;
    const TIMER_ABSTIME: i32 = 1;
    if flags & TIMER_ABSTIME != 0 {
        return Ok(Outcome::Block(sleep(Deadline { clock, at: ns }, None)));
    }
    let deadline = Deadline { clock: if clock == Clock::Realtime { Clock::Monotonic } else { clock }, at: 0 };
    let deadline = Deadline { at: now(deadline.clock).saturating_add(ns), ..deadline };
    Ok(Outcome::Block(sleep(deadline, Some(left))))
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
    if which != 0 {
        // CPU-time timers would need the stubs' clocks to be watched.
        return Err(Errno::EINVAL);
    }
    let before = itimer::set(task.kernel(), task.group(), value, interval);
    old.write_if(task, &itimer_of(before))?;
    done()
}

fn getitimer(task: &Arc<Task>, which: i32, to: UserPtr<ITimer>) -> SysResult {
    if !(0..=2).contains(&which) {
        return Err(Errno::EINVAL);
    }
    let current = if which == 0 { itimer::get(task.group()) } else { (0, 0) };
    to.write(task, &itimer_of(current))?;
    done()
}

fn alarm(task: &Arc<Task>, seconds: u32) -> SysResult {
    let (left, _) = itimer::set(task.kernel(), task.group(), i64::from(seconds) * NS, 0);
    // Rounded to the nearest second, never to 0 while it runs.
    let whole = (left + NS / 2) / NS;
    value(if left > 0 { whole.max(1) } else { 0 })
}

fn times(task: &Arc<Task>, to: UserPtr<[i64; 4]>) -> SysResult {
    let ticks = |ns: i64| ns / (NS / 100);
    let own = task.host().map_or(0, |h| process_cpu(h.tid()));
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
    entry!(36, "getitimer", Partial, "ITIMER_REAL", getitimer(i32, UserPtr<ITimer>)),
    entry!(37, "alarm", Full, "", alarm(u32)),
    entry!(38, "setitimer", Partial, "ITIMER_REAL", setitimer(i32, UserPtr<ITimer>, UserPtr<ITimer>)),
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
        "no CPU-time clocks",
        clock_nanosleep(i32, i32, UserPtr<Timespec>, UserPtr<Timespec>)
    ),
];
