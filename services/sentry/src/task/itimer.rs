//! Interval timers of a process: `setitimer(2)` and `alarm(2)`, and the watch over its CPU time (`RLIMIT_CPU`).

use std::sync::Arc;

use super::group::{Group, INFINITY, Limit, rlimit};
use crate::interval::{Base, IntervalTimer, Part};
use crate::kernel::Kernel;
use crate::signal::{SigInfo, code, send, sig};
use crate::time::{Clock, NS};

/// The three timers, by `ITIMER_*`; made when one is first set.
pub type ITimers = std::sync::OnceLock<[Arc<IntervalTimer>; 3]>;

fn make(kernel: &Arc<Kernel>, group: &Arc<Group>) -> [Arc<IntervalTimer>; 3] {
    let timer = |base: Base, signo: i32| {
        let (kernel_, group) = (Arc::downgrade(kernel), Arc::downgrade(group));
        IntervalTimer::new(&kernel.timers, base, move |_| {
            if let (Some(kernel), Some(group)) = (kernel_.upgrade(), group.upgrade()) {
                send::to_group(&kernel, &group, SigInfo::new(signo, code::KERNEL));
            }
        })
    };
    let cpu = |part| Base::Cpu(Arc::downgrade(group), part);
    [
        timer(Base::Clock(Clock::Monotonic), sig::ALRM),
        timer(cpu(Part::User), sig::VTALRM),
        timer(cpu(Part::All), sig::PROF),
    ]
}

/// Sets a timer to expire in `value` nanoseconds (0: off) and then every `interval`; what was left of the old one, and
/// its interval.
pub fn set(kernel: &Arc<Kernel>, group: &Arc<Group>, which: usize, value: i64, interval: i64) -> (i64, i64) {
    let timers = group.itimers.get_or_init(|| make(kernel, group));
    timers.get(which).map_or((0, 0), |t| t.set(value, interval, false))
}

/// What is left of a timer, and its interval.
pub fn get(group: &Group, which: usize) -> (i64, i64) {
    group.itimers.get().and_then(|t| t.get(which)).map_or((0, 0), |t| t.get())
}

/// Watches the limit on a process's CPU time (`RLIMIT_CPU`) as it stands now; where there is none, nothing.
pub fn watch_limit(kernel: &Arc<Kernel>, group: &Arc<Group>) {
    let Limit { soft, hard } = group.limit(rlimit::CPU);
    let mut slot = group.cpu_limit.lock();
    let next = soft.min(hard);
    if next == INFINITY {
        *slot = None;
        return;
    }
    let timer = slot.get_or_insert_with(|| {
        let (kernel_, group) = (Arc::downgrade(kernel), Arc::downgrade(group));
        let base = Base::Cpu(group.clone(), Part::All);
        IntervalTimer::new(&kernel.timers, base, move |_| {
            if let (Some(kernel), Some(group)) = (kernel_.upgrade(), group.upgrade()) {
                used_up(&kernel, &group);
            }
        })
    });
    timer.set(ns(next).max(1), 0, true);
}

fn ns(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(NS)
}

/// As much CPU time as a limit was used: SIGXCPU each second beyond the soft one, which moves on with it, SIGKILL at the hard one.
fn used_up(kernel: &Arc<Kernel>, group: &Arc<Group>) {
    let (user, system) = group.cpu_times();
    let used = user.saturating_add(system);
    let signo = {
        let mut limits = group.limits.write();
        let Some(limit) = limits.get_mut(rlimit::CPU) else { return };
        if limit.hard != INFINITY && used >= ns(limit.hard) {
            Some(sig::KILL)
        } else if limit.soft != INFINITY && used >= ns(limit.soft) {
            limit.soft = limit.soft.saturating_add(1);
            Some(sig::XCPU)
        } else {
            None
        }
    };
    if let Some(signo) = signo {
        send::to_group(kernel, group, SigInfo::new(signo, code::KERNEL));
    }
    if signo != Some(sig::KILL) {
        watch_limit(kernel, group);
    }
}

/// A process ends: its timers stop.
pub fn stop(group: &Group) {
    let watched = group.cpu_limit.lock().take();
    drop(watched);
    for timer in group.itimers.get().into_iter().flatten() {
        timer.set(0, 0, false);
    }
}
