//! POSIX timers of a process, `timer_create(2)`: each expiry sends a signal, one at a time; expiries that come while it
//! is still pending are counted as overruns.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use super::group::{Group, rlimit};
use crate::errno::Errno;
use crate::interval::{Base, IntervalTimer};
use crate::kernel::Kernel;
use crate::signal::{SigInfo, code, send};
use crate::sync::Mutex;

/// How an expiry is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// Not at all.
    Nothing,
    /// By a signal to the process.
    Process(i32),
    /// By a signal to a thread of it: the signal and the thread.
    Thread(i32, i32),
}

/// Expiries that no signal told of: since the last signal was sent, and before the last that was delivered.
#[derive(Default)]
struct Overrun {
    now: u64,
    last: i32,
}

struct PosixTimer {
    /// As it was asked for: the clock, how it tells, and what the signal carries.
    asked: (i32, Notify, u64),
    timer: Arc<IntervalTimer>,
    overrun: Arc<Mutex<Overrun>>,
}

/// The timers of a process, by id.
#[derive(Default)]
pub struct PosixTimers {
    list: BTreeMap<i32, PosixTimer>,
    next: i32,
}

/// Makes a timer that is off; its id. `value`: what the signal carries, `None` for the id itself. EAGAIN if there are as
/// many as signals may be queued (`RLIMIT_SIGPENDING`).
pub fn create(
    kernel: &Arc<Kernel>,
    group: &Arc<Group>,
    (clock, base): (i32, Base),
    notify: Notify,
    value: Option<u64>,
) -> Result<i32, Errno> {
    let mut timers = group.timers.lock();
    if timers.list.len() as u64 >= group.limit(rlimit::SIGPENDING).soft.min(65_536) {
        return Err(Errno::EAGAIN);
    }
    let mut id = timers.next;
    while timers.list.contains_key(&id) {
        id = id.checked_add(1).unwrap_or(0);
    }
    timers.next = id.checked_add(1).unwrap_or(0);
    let overrun: Arc<Mutex<Overrun>> = Arc::default();
    let value = value.unwrap_or(u64::try_from(id).unwrap_or(0));
    let (counts, to, of) = (overrun.clone(), Arc::downgrade(group), Arc::downgrade(kernel));
    let timer = IntervalTimer::new(&kernel.timers, base, move |times| {
        if let (Some(group), Some(kernel)) = (to.upgrade(), of.upgrade()) {
            tell(&kernel, &group, id, notify, value, &counts, times);
        }
    });
    timers.list.insert(id, PosixTimer { asked: (clock, notify, value), timer, overrun });
    Ok(id)
}

/// A timer expired `times` times.
fn tell(
    kernel: &Arc<Kernel>,
    group: &Arc<Group>,
    id: i32,
    notify: Notify,
    value: u64,
    counts: &Mutex<Overrun>,
    times: u64,
) {
    let (signo, thread) = match notify {
        Notify::Nothing => return,
        Notify::Process(signo) => (signo, None),
        Notify::Thread(signo, tid) => match group.tasks().into_iter().find(|t| t.tid() == tid) {
            Some(thread) => (signo, Some(thread)),
            None => return,
        },
    };
    let waits = match &thread {
        Some(t) => t.pending.lock().has_timer(id),
        None => group.pending.lock().has_timer(id),
    };
    {
        let mut counts = counts.lock();
        if waits {
            counts.now = counts.now.saturating_add(times);
            return;
        }
        counts.now = times - 1;
    }
    let info = SigInfo::timer(signo, id, value);
    match thread {
        Some(t) => send::to_task(&t, info),
        None => send::to_group(kernel, group, info),
    }
}

/// Sets a timer as [`IntervalTimer::set`] does; EINVAL if there is none.
pub fn set(group: &Group, id: i32, value: i64, interval: i64, absolute: bool) -> Result<(i64, i64), Errno> {
    let timer = find(group, id)?;
    Ok(timer.set(value, interval, absolute))
}

/// What is left of a timer, and its interval; EINVAL if there is none.
pub fn get(group: &Group, id: i32) -> Result<(i64, i64), Errno> {
    Ok(find(group, id)?.get())
}

fn find(group: &Group, id: i32) -> Result<Arc<IntervalTimer>, Errno> {
    group.timers.lock().list.get(&id).map(|t| t.timer.clone()).ok_or(Errno::EINVAL)
}

/// Overruns of the expiry that was last delivered; EINVAL if there is no such timer.
pub fn overrun(group: &Group, id: i32) -> Result<i32, Errno> {
    let timers = group.timers.lock();
    let timer = timers.list.get(&id).ok_or(Errno::EINVAL)?;
    let last = timer.overrun.lock().last;
    Ok(last)
}

/// Removes a timer; EINVAL if there is none.
pub fn delete(group: &Group, id: i32) -> Result<(), Errno> {
    let gone = group.timers.lock().list.remove(&id);
    gone.map(|_| ()).ok_or(Errno::EINVAL)
}

/// The timers as `/proc/PID/timers` lists them, the newest first.
pub fn table(group: &Group) -> String {
    let mut out = String::new();
    for (id, timer) in group.timers.lock().list.iter().rev() {
        let (clock, notify, value) = timer.asked;
        let (signo, way, whom) = match notify {
            Notify::Nothing => (0, "none", format!("pid.{}", group.pid)),
            Notify::Process(signo) => (signo, "signal", format!("pid.{}", group.pid)),
            Notify::Thread(signo, tid) => (signo, "signal", format!("tid.{tid}")),
        };
        writeln!(out, "ID: {id}\nsignal: {signo}/{value:016x}\nnotify: {way}/{whom}\nClockID: {clock}").ok();
    }
    out
}

/// Removes all (exec, exit).
pub fn clear(group: &Group) {
    let gone = std::mem::take(&mut *group.timers.lock());
    drop(gone);
}

/// A signal is about to be delivered: one of a timer learns how many expiries it stands for.
pub fn delivered(group: &Group, info: &mut SigInfo) {
    if info.code != code::TIMER {
        return;
    }
    let Some(id) = info.timer_id() else { return };
    let timer = match group.timers.lock().list.get(&id) {
        Some(t) => (t.timer.clone(), t.overrun.clone()),
        None => return,
    };
    // What expired and was not told of yet counts as well.
    let mut counts = timer.1.lock();
    let now = i32::try_from(std::mem::take(&mut counts.now)).unwrap_or(i32::MAX);
    counts.last = now;
    info.set_overrun(now);
}
