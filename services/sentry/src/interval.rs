//! Interval timers: what `setitimer(2)`, `timer_create(2)` and `timerfd_create(2)` have in common.
//!
//! Owned here: when a timer next expires, and how often it did. Never here: what an expiry means; that is the closure's.

use std::sync::{Arc, Weak};

use crate::sync::Mutex;
use crate::task::{Group, Task};
use crate::time::{Clock, Deadline, Timers, now};
use crate::wait::{PollMask, Wake};

/// Shortest time between two looks at a CPU clock, nanoseconds.
const CPU_LOOK: i64 = 1_000_000;

/// Which CPU time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What the host used for it counts, too.
    All,
    /// Of its own code only.
    User,
}

impl Part {
    fn of(self, (user, system): (i64, i64)) -> i64 {
        match self {
            Self::All => user.saturating_add(system),
            Self::User => user,
        }
    }
}

/// What a timer counts.
pub enum Base {
    /// The time of a clock.
    Clock(Clock),
    /// The CPU time of a process.
    Cpu(Weak<Group>, Part),
    /// The CPU time of a thread.
    Thread(Weak<Task>, Part),
}

impl Base {
    /// The time on it, nanoseconds; 0 of what is gone.
    pub fn now(&self) -> i64 {
        match self {
            Self::Clock(clock) => now(*clock),
            Self::Cpu(group, part) => group.upgrade().map_or(0, |g| part.of(g.cpu_times())),
            Self::Thread(task, part) => task.upgrade().map_or(0, |t| part.of(t.cpu_times())),
        }
    }

    /// When to look at a timer that expires at `at`.
    fn deadline(&self, at: i64) -> Deadline {
        match self {
            Self::Clock(clock) => Deadline { clock: *clock, at },
            // A process cannot use up its time faster than all its threads together.
            Self::Cpu(group, _) => self.look_at(at, group.upgrade().map_or(1, |g| g.tasks().len().max(1))),
            Self::Thread(..) => self.look_at(at, 1),
        }
    }

    /// When so many threads may have used up what is left until `at`.
    fn look_at(&self, at: i64, threads: usize) -> Deadline {
        let left = at.saturating_sub(self.now()) / i64::try_from(threads).unwrap_or(1);
        Deadline::after(left.max(CPU_LOOK))
    }
}

#[derive(Default)]
struct State {
    /// When it next expires, on its base; 0 when off.
    next: i64,
    interval: i64,
    /// Holds the place in the kernel's timers: dropped, that one is forgotten.
    armed: Option<Arc<dyn Wake>>,
}

/// A timer that expires once or again and again.
pub struct IntervalTimer {
    base: Base,
    timers: Arc<Timers>,
    state: Mutex<State>,
    me: Weak<Self>,
    /// Called with how often it expired since it was last called; with no lock held.
    expired: Box<dyn Fn(u64) + Send + Sync>,
}

struct Arm(Weak<IntervalTimer>);

impl Wake for Arm {
    fn wake(&self, _: PollMask) {
        if let Some(timer) = self.0.upgrade() {
            timer.look();
        }
    }
}

impl IntervalTimer {
    /// A timer that is off.
    pub fn new(timers: &Arc<Timers>, base: Base, expired: impl Fn(u64) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            base,
            timers: timers.clone(),
            state: Mutex::default(),
            me: me.clone(),
            expired: Box::new(expired),
        })
    }

    fn arm(&self, state: &mut State) {
        let target: Arc<dyn Wake> = Arc::new(Arm(self.me.clone()));
        self.timers.add(self.base.deadline(state.next), &target);
        state.armed = Some(target);
    }

    /// Sets it to expire at `value` (from now, or on its clock if `absolute`; 0: off) and then every `interval`, all in
    /// nanoseconds; what was left of the old setting, and its interval.
    pub fn set(&self, value: i64, interval: i64, absolute: bool) -> (i64, i64) {
        let mut state = self.state.lock();
        let old = self.left(&state);
        state.interval = interval;
        state.armed = None;
        state.next = match value {
            0 => 0,
            at if absolute => at,
            after => self.base.now().saturating_add(after),
        };
        if state.next != 0 {
            self.arm(&mut state);
        }
        old
    }

    /// What is left until it expires (0: off), and its interval.
    pub fn get(&self) -> (i64, i64) {
        self.look();
        self.left(&self.state.lock())
    }

    fn left(&self, state: &State) -> (i64, i64) {
        let left = if state.next == 0 { 0 } else { state.next.saturating_sub(self.base.now()).max(1) };
        (left, state.interval)
    }

    /// Looks whether it has expired.
    pub fn look(&self) {
        let times = {
            let mut state = self.state.lock();
            if state.next == 0 {
                return;
            }
            let late = self.base.now().saturating_sub(state.next);
            let times = match (late, state.interval) {
                // Too early: only a CPU clock is looked at before its time.
                (i64::MIN..0, _) => 0,
                (_, 0) => 1,
                (late, interval) => late / interval + 1,
            };
            if times > 0 && state.interval == 0 {
                state.next = 0;
                state.armed = None;
            } else {
                state.next = state.next.saturating_add(state.interval.saturating_mul(times));
                self.arm(&mut state);
            }
            u64::try_from(times).unwrap_or(0)
        };
        if times > 0 {
            (self.expired)(times);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn expiries_are_counted_and_what_is_left_is_told() {
        let count = Arc::new(AtomicU64::new(0));
        let seen = count.clone();
        let timers = Timers::new();
        let timer = IntervalTimer::new(&timers, Base::Clock(Clock::Monotonic), move |n| {
            seen.fetch_add(n, Ordering::Relaxed);
        });
        assert_eq!(timer.get(), (0, 0));
        let start = now(Clock::Monotonic);
        timer.set(start - 35, 10_000_000_000, true);
        timer.look();
        assert_eq!(count.load(Ordering::Relaxed), 1);
        let (left, interval) = timer.set(0, 0, false);
        assert!(left > 0 && interval == 10_000_000_000, "{left} {interval}");
        timer.set(start - 1_000_000_000, 1_000_000, true);
        timer.look();
        assert!(count.load(Ordering::Relaxed) >= 1001);
    }
}
