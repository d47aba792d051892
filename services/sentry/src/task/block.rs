//! Blocked calls: where a task keeps the [`Wait`] of the call it is in, and how it is tried again.
//!
//! Whoever wakes the task tries the call again, on its own thread; only one thread does so at a time.

use std::sync::Arc;

use cofferdam_platform::Answer;

use super::Task;
use crate::errno::Errno;
use crate::sync::Mutex;
use crate::wait::{Cause, PollMask, Registration, Wait, Wake};

/// What `restart_syscall(2)` carries on with after a stop.
pub type Restart = Box<dyn FnOnce() -> Wait + Send>;

#[derive(Default)]
enum Phase {
    /// Not in a blocked call.
    #[default]
    None,
    /// Being tried by a thread; whether it was woken meanwhile.
    Polling { again: bool },
    /// Waiting.
    Parked(Box<Blocked>),
}

struct Blocked {
    wait: Wait,
    number: u32,
    // Dropped with the call: leaves the queues, disarms the timer.
    _registrations: Vec<Registration>,
    _waker: Arc<dyn Wake>,
}

/// A task's place for a blocked call.
#[derive(Default)]
pub(crate) struct Slot(Mutex<Phase>);

struct Waker(std::sync::Weak<Task>);

impl Wake for Waker {
    fn wake(&self, _: PollMask) {
        if let Some(task) = self.0.upgrade() {
            task.wake_up();
        }
    }
}

impl Task {
    /// Blocks in a call. The result if it was done at once; `None`: it will be answered later.
    pub(crate) fn block_in(self: &Arc<Self>, wait: Wait, number: u32) -> Option<Result<i64, Errno>> {
        let waker: Arc<dyn Wake> = Arc::new(Waker(Arc::downgrade(self)));
        *self.block.0.lock() = Phase::Polling { again: false };
        let registrations = wait.queues.iter().map(|(q, mask)| q.register(waker.clone(), *mask)).collect();
        if let Some(deadline) = wait.deadline {
            self.kernel().timers.add(deadline, &waker);
        }
        self.poll_blocked(Box::new(Blocked { wait, number, _registrations: registrations, _waker: waker }))
            .map(|(_, r)| r)
    }

    /// Tries until done or nothing woke it meanwhile; then parks. The phase must be Polling.
    fn poll_blocked(self: &Arc<Self>, mut blocked: Box<Blocked>) -> Option<(u32, Result<i64, Errno>)> {
        loop {
            if self.exited.load(std::sync::atomic::Ordering::SeqCst) {
                *self.block.0.lock() = Phase::None;
                return None;
            }
            let mut result = (blocked.wait.retry)(self, Cause::Woken);
            if result.is_none() && blocked.wait.deadline.is_some_and(|d| d.passed()) {
                result = (blocked.wait.retry)(self, Cause::TimedOut);
            }
            if result.is_none() && !blocked.wait.uninterruptible && self.attention() {
                result = (blocked.wait.retry)(self, Cause::Interrupted);
            }
            let mut phase = self.block.0.lock();
            if let Some(result) = result {
                *phase = Phase::None;
                drop(phase);
                self.counters.ready();
                return Some((blocked.number, result));
            }
            if matches!(*phase, Phase::Polling { again: true }) {
                *phase = Phase::Polling { again: false };
                continue;
            }
            *phase = Phase::Parked(blocked);
            self.counters.wait();
            drop(phase);
            self.kernel().load.tick(self.kernel());
            return None;
        }
    }

    /// Tries the blocked call again after a wake-up. Called by `wait::run_woken`.
    pub fn retry_blocked(self: &Arc<Self>) {
        self.unqueue();
        let blocked = {
            let mut phase = self.block.0.lock();
            match &mut *phase {
                Phase::None => {
                    drop(phase);
                    return self.answer_go();
                }
                Phase::Polling { again } => {
                    *again = true;
                    return;
                }
                Phase::Parked(_) => match std::mem::replace(&mut *phase, Phase::Polling { again: false }) {
                    Phase::Parked(blocked) => blocked,
                    other => {
                        *phase = other;
                        return;
                    }
                },
            }
        };
        if let Some((number, result)) = self.poll_blocked(blocked) {
            self.answer_parked(number, result);
        }
    }

    /// Ends a call whose host thread was parked.
    pub(crate) fn answer_parked(self: &Arc<Self>, number: u32, result: Result<i64, Errno>) {
        let answer = self.leave_call(number, result);
        if let Some(host) = self.host()
            && !matches!(answer, Answer::Park)
        {
            host.answer(answer);
        }
    }

    /// Whether it waits in a call (for `/proc/PID/stat`, and to know how to get its attention).
    pub fn is_blocked(&self) -> bool {
        matches!(*self.block.0.lock(), Phase::Parked(_))
    }

    /// Whether it is in a call that blocks.
    pub(crate) fn in_call(&self) -> bool {
        !matches!(*self.block.0.lock(), Phase::None)
    }

    /// Makes the task look at its signals soon, whatever it does.
    pub(crate) fn get_attention(self: &Arc<Self>) {
        if !self.in_call() {
            if let Some(host) = self.host() {
                host.interrupt();
            }
        } else {
            self.wake_up();
        }
    }

    /// Drops the blocked call of a task that is gone.
    pub(crate) fn drop_blocked(&self) {
        let old = {
            let mut phase = self.block.0.lock();
            if matches!(*phase, Phase::Parked(_)) { std::mem::take(&mut *phase) } else { Phase::None }
        };
        drop(old);
    }
}
