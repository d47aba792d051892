//! Interval timers (`setitimer(2)`) and `alarm(2)`: ITIMER_REAL.

use std::sync::{Arc, Weak};

use super::group::Group;
use crate::kernel::Kernel;
use crate::signal::{SigInfo, code, sig};
use crate::time::{Clock, Deadline, now};
use crate::wait::{PollMask, Wake};

/// A process's real-time timer.
#[derive(Default)]
pub struct RealTimer {
    /// When it next expires, CLOCK_MONOTONIC nanoseconds; 0 when off.
    pub next: i64,
    /// Interval, nanoseconds; 0 for once.
    pub interval: i64,
    armed: Option<Arc<dyn Wake>>,
}

struct Expiry {
    kernel: Weak<Kernel>,
    group: Weak<Group>,
}

impl Wake for Expiry {
    fn wake(&self, _: PollMask) {
        let (Some(kernel), Some(group)) = (self.kernel.upgrade(), self.group.upgrade()) else { return };
        {
            let mut timer = group.real_timer.lock();
            let now = now(Clock::Monotonic);
            if timer.next == 0 || timer.next > now {
                return;
            }
            if timer.interval > 0 {
                let missed = (now - timer.next) / timer.interval + 1;
                timer.next = timer.next.saturating_add(timer.interval.saturating_mul(missed));
                if let Some(target) = &timer.armed {
                    kernel.timers.add(Deadline { clock: Clock::Monotonic, at: timer.next }, target);
                }
            } else {
                timer.next = 0;
            }
        }
        crate::signal::send::to_group(&kernel, &group, SigInfo::new(sig::ALRM, code::KERNEL));
    }
}

/// Sets the timer to expire in `value` nanoseconds (0: off) and then every `interval`; what was left of the old one,
/// and its interval.
pub fn set(kernel: &Arc<Kernel>, group: &Arc<Group>, value: i64, interval: i64) -> (i64, i64) {
    let mut timer = group.real_timer.lock();
    let old = left(&timer);
    timer.interval = interval;
    if value == 0 {
        timer.next = 0;
        timer.armed = None;
    } else {
        timer.next = now(Clock::Monotonic).saturating_add(value);
        let expiry: Arc<dyn Wake> = Arc::new(Expiry { kernel: Arc::downgrade(kernel), group: Arc::downgrade(group) });
        kernel.timers.add(Deadline { clock: Clock::Monotonic, at: timer.next }, &expiry);
        timer.armed = Some(expiry);
    }
    old
}

/// What is left of the timer, and its interval.
pub fn get(group: &Group) -> (i64, i64) {
    left(&group.real_timer.lock())
}

fn left(timer: &RealTimer) -> (i64, i64) {
    if timer.next == 0 { (0, timer.interval) } else { ((timer.next - now(Clock::Monotonic)).max(1), timer.interval) }
}
