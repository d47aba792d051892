//! Timers and signals as descriptors: `timerfd_create` and its kin, `signalfd`.

use std::sync::Arc;

use super::timer::{ABSTIME, ITimerSpec};
use super::{Entry, Fd, SysResult, UserPtr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::ipc::signalfd::{SignalFd, signalfd};
use crate::ipc::timerfd::{TimerFd, timerfd};
use crate::signal::SigSet;
use crate::task::Task;
use crate::task::creds::cap;
use crate::time::{Clock, clock};
use crate::vfs::file::flags;

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(282, "signalfd", Full, "", signalfd3(Fd, UserPtr<u64>, usize)),
    entry!(289, "signalfd4", Full, "", signalfd4(Fd, UserPtr<u64>, usize, i32)),
    entry!(283, "timerfd_create", Full, "", timerfd_create(i32, i32)),
    entry!(
        286,
        "timerfd_settime",
        Partial,
        "TFD_TIMER_CANCEL_ON_SET is accepted: the clock is not set from inside",
        timerfd_settime(Fd, i32, UserPtr<ITimerSpec>, UserPtr<ITimerSpec>)
    ),
    entry!(287, "timerfd_gettime", Full, "", timerfd_gettime(Fd, UserPtr<ITimerSpec>)),
];

fn timerfd_create(task: &Arc<Task>, id: i32, options: i32) -> SysResult {
    let clock = match id {
        clock::REALTIME | clock::REALTIME_ALARM => Clock::Realtime,
        clock::MONOTONIC => Clock::Monotonic,
        clock::BOOTTIME | clock::BOOTTIME_ALARM => Clock::Boottime,
        _ => return Err(Errno::EINVAL),
    };
    if options & !(flags::CLOEXEC | flags::NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    if matches!(id, clock::REALTIME_ALARM | clock::BOOTTIME_ALARM) && !task.creds().capable(cap::WAKE_ALARM) {
        return Err(Errno::EPERM);
    }
    let file = timerfd(task.kernel(), clock, id, options & flags::NONBLOCK != 0);
    value(task.add_file(file, options & flags::CLOEXEC != 0)?)
}

const CANCEL_ON_SET: i32 = 2;

fn timerfd_settime(
    task: &Arc<Task>,
    fd: Fd,
    how: i32,
    new: UserPtr<ITimerSpec>,
    old: UserPtr<ITimerSpec>,
) -> SysResult {
    let new = new.read(task)?;
    if how & !(ABSTIME | CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL);
    }
    let (wanted, interval) = new.to_ns()?;
    let file = task.file(fd)?;
    let timer = file.ops_as::<TimerFd>().ok_or(Errno::EINVAL)?;
    let before = timer.set(wanted, interval, how & ABSTIME != 0, how);
    old.write_if(task, &ITimerSpec::from_ns(before))?;
    done()
}

fn timerfd_gettime(task: &Arc<Task>, fd: Fd, to: UserPtr<ITimerSpec>) -> SysResult {
    let file = task.file(fd)?;
    let left = file.ops_as::<TimerFd>().ok_or(Errno::EINVAL)?.get();
    to.write(task, &ITimerSpec::from_ns(left))?;
    done()
}

fn signalfd4(task: &Arc<Task>, fd: Fd, mask: UserPtr<u64>, size: usize, options: i32) -> SysResult {
    if size != 8 {
        return Err(Errno::EINVAL);
    }
    let mask = SigSet(mask.read(task)? & !SigSet::UNBLOCKABLE.0);
    if options & !(flags::CLOEXEC | flags::NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    if fd.0 == -1 {
        let file = signalfd(task.kernel(), mask, options & flags::NONBLOCK != 0);
        return value(task.add_file(file, options & flags::CLOEXEC != 0)?);
    }
    task.file(fd)?.ops_as::<SignalFd>().ok_or(Errno::EINVAL)?.set_mask(mask);
    value(fd.0)
}

fn signalfd3(task: &Arc<Task>, fd: Fd, mask: UserPtr<u64>, size: usize) -> SysResult {
    signalfd4(task, fd, mask, size, 0)
}
