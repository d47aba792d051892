//! Interval timers of a process: `setitimer(2)` and `alarm(2)`.

use std::sync::Arc;

use super::group::Group;
use crate::interval::{Base, IntervalTimer};
use crate::kernel::Kernel;
use crate::signal::{SigInfo, code, send, sig};
use crate::time::Clock;

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
    let cpu = || Base::Cpu(Arc::downgrade(group));
    [timer(Base::Clock(Clock::Monotonic), sig::ALRM), timer(cpu(), sig::VTALRM), timer(cpu(), sig::PROF)]
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

/// A process ends: its timers stop.
pub fn stop(group: &Group) {
    for timer in group.itimers.get().into_iter().flatten() {
        timer.set(0, 0, false);
    }
}
