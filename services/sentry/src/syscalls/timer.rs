//! POSIX timers: `timer_create` and its kin.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Entry, SysResult, UserPtr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::interval::Base;
use crate::signal::{sig, valid};
use crate::task::timers::{self, Notify};
use crate::task::{Group, Task};
use crate::time::{Timespec, clock};

/// The POSIX timer calls.
pub const TABLE: &[Entry] = &[
    entry!(222, "timer_create", Full, "", timer_create(i32, UserPtr<SigEvent>, UserPtr<i32>)),
    entry!(223, "timer_settime", Full, "", timer_settime(i32, i32, UserPtr<ITimerSpec>, UserPtr<ITimerSpec>)),
    entry!(224, "timer_gettime", Full, "", timer_gettime(i32, UserPtr<ITimerSpec>)),
    entry!(225, "timer_getoverrun", Full, "", timer_getoverrun(i32)),
    entry!(226, "timer_delete", Full, "", timer_delete(i32)),
];

/// `struct itimerspec`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
pub struct ITimerSpec {
    interval: Timespec,
    value: Timespec,
}

impl ITimerSpec {
    /// What is left and the interval, from nanoseconds.
    pub fn from_ns((left, interval): (i64, i64)) -> Self {
        Self { interval: Timespec::from_ns(interval), value: Timespec::from_ns(left) }
    }

    /// Value and interval in nanoseconds; EINVAL as [`Timespec::to_ns`]. A moment of 0 with an `absolute` time is off too.
    pub fn to_ns(self) -> Result<(i64, i64), Errno> {
        Ok((self.value.to_ns()?, self.interval.to_ns()?))
    }
}

/// `TIMER_ABSTIME`, `TFD_TIMER_ABSTIME`.
pub const ABSTIME: i32 = 1;

/// `struct sigevent`, without its padding.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
pub(super) struct SigEvent {
    pub(super) value: u64,
    pub(super) signo: i32,
    pub(super) notify: i32,
    tid: i32,
    pad: i32,
}

pub(super) const SIGEV_SIGNAL: i32 = 0;
pub(super) const SIGEV_NONE: i32 = 1;
pub(super) const SIGEV_THREAD: i32 = 2;
const SIGEV_THREAD_ID: i32 = 4;

/// What a timer on this clock counts. EINVAL for no clock, EOPNOTSUPP for one without timers.
pub fn base_of(task: &Arc<Task>, id: i32) -> Result<Base, Errno> {
    match id {
        clock::MONOTONIC_RAW | clock::REALTIME_COARSE | clock::MONOTONIC_COARSE => Err(Errno::EOPNOTSUPP),
        id => super::time::base_of(task, id),
    }
}

fn notify_of(task: &Task, event: &SigEvent) -> Result<Notify, Errno> {
    match event.notify {
        SIGEV_NONE => Ok(Notify::Nothing),
        _ if !valid(event.signo) => Err(Errno::EINVAL),
        SIGEV_SIGNAL | SIGEV_THREAD => Ok(Notify::Process(event.signo)),
        SIGEV_THREAD_ID if task.group().tasks().iter().any(|t| t.tid() == task.id_of(event.tid)) => {
            Ok(Notify::Thread(event.signo, task.id_of(event.tid)))
        }
        _ => Err(Errno::EINVAL),
    }
}

fn timer_create(task: &Arc<Task>, id: i32, event: UserPtr<SigEvent>, to: UserPtr<i32>) -> SysResult {
    let event = if event.is_null() { None } else { Some(event.read(task)?) };
    let base = base_of(task, id)?;
    let notify = match &event {
        Some(event) => notify_of(task, event)?,
        None => Notify::Process(sig::ALRM),
    };
    let group: &Arc<Group> = task.group();
    let timer = timers::create(task.kernel(), group, (id, base), notify, event.map(|e| e.value))?;
    to.write(task, &timer).inspect_err(|_| {
        timers::delete(group, timer).ok();
    })?;
    done()
}

fn timer_settime(
    task: &Arc<Task>,
    timer: i32,
    how: i32,
    new: UserPtr<ITimerSpec>,
    old: UserPtr<ITimerSpec>,
) -> SysResult {
    if new.is_null() {
        return Err(Errno::EINVAL);
    }
    let (wanted, interval) = new.read(task)?.to_ns()?;
    let before = timers::set(task.group(), timer, wanted, interval, how & ABSTIME != 0)?;
    old.write_if(task, &ITimerSpec::from_ns(before))?;
    done()
}

fn timer_gettime(task: &Arc<Task>, timer: i32, to: UserPtr<ITimerSpec>) -> SysResult {
    to.write(task, &ITimerSpec::from_ns(timers::get(task.group(), timer)?))?;
    done()
}

fn timer_getoverrun(task: &Arc<Task>, timer: i32) -> SysResult {
    value(timers::overrun(task.group(), timer)?)
}

fn timer_delete(task: &Arc<Task>, timer: i32) -> SysResult {
    timers::delete(task.group(), timer)?;
    done()
}
