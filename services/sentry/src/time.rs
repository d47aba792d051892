//! Time: clocks, deadlines, and the thread that wakes what has waited long enough.
//!
//! The container's clocks are the host's, so that the vDSO's clock reads and the Sentry's agree.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, PoisonError, Weak};
use std::time::Duration;

use crate::errno::Errno;
use crate::wait::{PollMask, Wake};

/// Nanoseconds a second.
pub const NS: i64 = 1_000_000_000;

/// `struct timespec` (also `__kernel_timespec`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
pub struct Timespec {
    /// Seconds.
    pub sec: i64,
    /// Nanoseconds, 0 to 999,999,999.
    pub nsec: i64,
}

impl Timespec {
    /// From nanoseconds.
    pub fn from_ns(ns: i64) -> Self {
        Self { sec: ns.div_euclid(NS), nsec: ns.rem_euclid(NS) }
    }

    /// As nanoseconds; EINVAL if not normal or negative, saturating where it does not fit.
    pub fn to_ns(self) -> Result<i64, Errno> {
        if self.sec < 0 || self.nsec < 0 || self.nsec >= NS {
            return Err(Errno::EINVAL);
        }
        Ok(self.sec.saturating_mul(NS).saturating_add(self.nsec))
    }
}

/// `struct timeval`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
pub struct Timeval {
    /// Seconds.
    pub sec: i64,
    /// Microseconds, 0 to 999,999.
    pub usec: i64,
}

impl Timeval {
    /// From nanoseconds.
    pub fn from_ns(ns: i64) -> Self {
        Self { sec: ns.div_euclid(NS), usec: ns.rem_euclid(NS) / 1000 }
    }

    /// As nanoseconds; EINVAL if not normal or negative.
    pub fn to_ns(self) -> Result<i64, Errno> {
        if self.sec < 0 || self.usec < 0 || self.usec >= 1_000_000 {
            return Err(Errno::EINVAL);
        }
        Ok(self.sec.saturating_mul(NS).saturating_add(self.usec * 1000))
    }
}

/// Numbers of clocks, `clock_gettime(2)`.
#[allow(missing_docs)]
pub mod clock {
    pub const REALTIME: i32 = 0;
    pub const MONOTONIC: i32 = 1;
    pub const PROCESS_CPUTIME: i32 = 2;
    pub const THREAD_CPUTIME: i32 = 3;
    pub const MONOTONIC_RAW: i32 = 4;
    pub const REALTIME_COARSE: i32 = 5;
    pub const MONOTONIC_COARSE: i32 = 6;
    pub const BOOTTIME: i32 = 7;
    pub const REALTIME_ALARM: i32 = 8;
    pub const BOOTTIME_ALARM: i32 = 9;
    pub const TAI: i32 = 11;
}

/// A clock of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// `CLOCK_REALTIME`.
    Realtime,
    /// `CLOCK_MONOTONIC`.
    Monotonic,
    /// `CLOCK_BOOTTIME`.
    Boottime,
}

/// Now, in nanoseconds.
pub fn now(clock: Clock) -> i64 {
    let id = match clock {
        Clock::Realtime => rustix::time::ClockId::Realtime,
        Clock::Monotonic => rustix::time::ClockId::Monotonic,
        Clock::Boottime => rustix::time::ClockId::Boottime,
    };
    let t = rustix::time::clock_gettime(id);
    t.tv_sec.saturating_mul(NS).saturating_add(t.tv_nsec)
}

/// A moment on a clock, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The clock.
    pub clock: Clock,
    /// The moment.
    pub at: i64,
}

impl Deadline {
    /// `ns` from now, monotonic.
    pub fn after(ns: i64) -> Self {
        Self { clock: Clock::Monotonic, at: now(Clock::Monotonic).saturating_add(ns.max(0)) }
    }

    /// Whether it has passed.
    pub fn passed(self) -> bool {
        now(self.clock) >= self.at
    }

    /// Nanoseconds until then, 0 if passed.
    pub fn remaining(self) -> i64 {
        self.at.saturating_sub(now(self.clock)).max(0)
    }
}

struct Alarm {
    /// Monotonic nanoseconds; realtime deadlines are looked at again at least each second, for when the clock is set.
    at: i64,
    id: u64,
    deadline: Deadline,
    target: Weak<dyn Wake>,
}

impl PartialEq for Alarm {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.id) == (other.at, other.id)
    }
}
impl Eq for Alarm {}
impl PartialOrd for Alarm {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Alarm {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.id).cmp(&(other.at, other.id))
    }
}

/// The timers of the kernel. One thread sleeps until the next is due, wakes its target and runs what that woke.
pub struct Timers {
    heap: std::sync::Mutex<BinaryHeap<Reverse<Alarm>>>,
    changed: Condvar,
    next: AtomicU64,
}

impl Timers {
    /// No timers yet. [`run`](Self::run) must be called on a thread of its own.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            heap: std::sync::Mutex::new(BinaryHeap::new()),
            changed: Condvar::new(),
            next: AtomicU64::new(1),
        })
    }

    /// Wakes `target` once `deadline` has passed, unless the target is gone by then.
    pub fn add(&self, deadline: Deadline, target: &Arc<dyn Wake>) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let at = Self::look(deadline);
        let mut heap = self.heap.lock().unwrap_or_else(PoisonError::into_inner);
        let first = heap.peek().is_none_or(|Reverse(a)| at < a.at);
        // Targets that are gone stay until due; sweep them when they pile up (a poll loop with long timeouts).
        if heap.len() > 4096 && id.is_multiple_of(4096) {
            heap.retain(|Reverse(a)| a.target.strong_count() > 0);
        }
        heap.push(Reverse(Alarm { at, id, deadline, target: Arc::downgrade(target) }));
        if first {
            self.changed.notify_one();
        }
    }

    fn look(deadline: Deadline) -> i64 {
        let left = deadline.remaining();
        let left = if deadline.clock == Clock::Realtime { left.min(NS) } else { left };
        now(Clock::Monotonic).saturating_add(left)
    }

    /// Serves the timers for ever.
    pub fn run(&self) -> ! {
        let mut heap = self.heap.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = now(Clock::Monotonic);
            match heap.peek() {
                None => heap = self.changed.wait(heap).unwrap_or_else(PoisonError::into_inner),
                Some(Reverse(a)) if a.at > now => {
                    let left = Duration::from_nanos(u64::try_from(a.at - now).unwrap_or(0));
                    heap = self.changed.wait_timeout(heap, left).unwrap_or_else(PoisonError::into_inner).0;
                }
                Some(_) => {
                    let Some(Reverse(mut alarm)) = heap.pop() else { continue };
                    if !alarm.deadline.passed() {
                        alarm.at = Self::look(alarm.deadline);
                        heap.push(Reverse(alarm));
                        continue;
                    }
                    drop(heap);
                    if let Some(target) = alarm.target.upgrade() {
                        target.wake(PollMask::empty());
                        crate::wait::run_woken();
                    }
                    heap = self.heap.lock().unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}
