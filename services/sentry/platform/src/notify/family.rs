//! Families: a stub process, and what it was let make and that is not heard of yet.
//!
//! A clone that was let through is in the stub's hands: its child may never report, and the stub may say that there is none.
//! Such a silent child has the memory of its parent, windows' pages included, that the kernel would give to others once the
//! parent's books are closed. What makes it certain that there is none, or that it is found:
//! - Every stub process leads a host process group of its own. A child is born in its parent's and leaves it by an order of
//!   its own, before its first report; no other call reaches a group. So what is in a group, beside its leader, is a child
//!   that is not heard of; a signal to the group finds it.
//! - A child is known by its word, and must come from the group of the parent that was told the word, with the memory that
//!   it should have ([`Shared::belongs`]). One clone at a time is under way in a process: children cannot be swapped.
//! - A process that says that a clone failed leaves its group for a moment, which is then swept: if anything was in it, the
//!   process lied and is ended.
//! - When a process has ended its group is swept too, and only when the host finds nothing in it any more is given back what the
//!   kernel had kept for it ([`crate::HostThread::keep`]).
//!
//! Owns groups and graves; knows nothing of what is kept. Called by `notify`. Lock: a family's is innermost, but for `processes`.

use std::any::Any;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Process, Shared, State, Thread, lock};
use crate::slots::address;
use crate::{Answer, Order, host};

/// How long the child of a process that has ended may take to report.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often graves with such children are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// `setpgid(2)`.
pub(super) const SETPGID: u64 = 109;

/// A clone under way.
enum Making {
    /// One that makes a thread, or one whose child is not there yet.
    Ordered,
    /// A process: its first thread, and whether the clone was let through.
    Child(Arc<Thread>, bool),
}

#[derive(Default)]
struct Inner {
    making: Option<Making>,
    /// Threads that are to make a clone once this one is done.
    waiting: Vec<(Arc<Thread>, Vec<Order>)>,
    /// What may not be given back before the host has nothing left of the family.
    kept: Vec<Arc<dyn Any + Send + Sync>>,
    /// The process has left its group.
    out: bool,
    /// The process has ended: no clone is made any more.
    ended: bool,
    /// The host has nothing left of it.
    over: bool,
}

/// What belongs to a stub process beside its threads.
#[derive(Default)]
pub(super) struct Family {
    inner: Mutex<Inner>,
}

/// Where a child comes from.
pub(super) struct Parent {
    pub(super) process: Arc<Process>,
    /// The slot of the thread that was given the order.
    pub(super) slot: u64,
}

/// A process that has ended, and whose group may not be empty.
pub(super) struct Grave {
    process: Arc<Process>,
    pid: i32,
    until: Instant,
}

impl Family {
    /// The orders, for a thread whose turn it is to make a clone; `None` if it waits for its turn, or will not have one.
    pub(super) fn turn(&self, thread: &Arc<Thread>, orders: Vec<Order>) -> Option<Vec<Order>> {
        let mut inner = lock(&self.inner);
        if inner.ended {
            drop(inner);
            never(orders);
            return None;
        }
        if inner.making.is_some() {
            inner.waiting.push((thread.clone(), orders));
            return None;
        }
        inner.making = Some(Making::Ordered);
        Some(orders)
    }

    /// The clone under way is to make a process. Whether its parent must come back into its group first; `None` if it has ended.
    pub(super) fn ordered(&self, child: &Arc<Thread>) -> Option<bool> {
        let mut inner = lock(&self.inner);
        if inner.ended {
            return None;
        }
        inner.making = Some(Making::Child(child.clone(), false));
        Some(std::mem::take(&mut inner.out))
    }

    /// Whether the clone under way was let through.
    pub(super) fn let_through(&self, yes: bool) {
        if let Some(Making::Child(_, made)) = &mut lock(&self.inner).making {
            *made = yes;
        }
    }

    /// The clone under way has come to its end: others have their turn.
    pub(super) fn done(&self) {
        let waiting = {
            let mut inner = lock(&self.inner);
            inner.making = None;
            std::mem::take(&mut inner.waiting)
        };
        for (thread, orders) in waiting {
            thread.finish(Answer::Orders(orders));
        }
    }

    /// See [`crate::HostThread::keep`].
    pub(super) fn keep(&self, what: Arc<dyn Any + Send + Sync>) {
        let mut inner = lock(&self.inner);
        if !inner.over {
            inner.kept.push(what);
        }
    }
}

/// Orders that nobody will carry out any more: a child that they would have made will not come.
pub(super) fn never(mut orders: Vec<Order>) {
    if let Some(Order::Clone { guest, .. }) = orders.pop() {
        guest.lost(libc::SIGKILL);
    }
}

impl Shared {
    /// Whether the thread `tid` can be the one that was ordered: it comes from the group, and has the memory, that it should.
    pub(super) fn belongs(&self, thread: &Thread, tid: i32) -> bool {
        match &*lock(&thread.parent) {
            // A thread: in the same memory, which alone has its slot mapped.
            None => host::maps(tid, address(thread.slot)) == Some(true),
            Some(parent) => {
                host::group_of(tid) == Some(parent.process.id())
                    && if thread.maps {
                        // A copy: with none of its parent's slots.
                        host::maps(tid, address(parent.slot)) == Some(false)
                    } else {
                        host::maps(tid, address(thread.slot)) == Some(true)
                    }
            }
        }
    }

    /// A process has ended. What it made and nobody has heard of is looked for.
    pub(super) fn bury(&self, process: Arc<Process>, pid: i32) {
        let threads = {
            let mut expected = lock(&self.expected);
            let of = expected.iter().filter(|(_, t)| Arc::ptr_eq(&t.process, &process)).map(|(s, _)| *s);
            let of: Vec<u64> = of.collect();
            of.into_iter().filter_map(|slot| expected.remove(&slot)).collect::<Vec<_>>()
        };
        for thread in threads {
            // It would have been a thread of that process.
            self.crew.stops();
            let _none = lock(&thread.guest).take();
        }
        let (waiting, unmade) = {
            let mut inner = lock(&process.family.inner);
            inner.ended = true;
            let unmade = match inner.making.take() {
                Some(Making::Child(child, false)) => Some(child),
                making => {
                    inner.making = making.filter(|m| matches!(m, Making::Child(..)));
                    None
                }
            };
            (std::mem::take(&mut inner.waiting), unmade)
        };
        waiting.into_iter().for_each(|(_, orders)| never(orders));
        if let Some(child) = unmade {
            self.abandon(&child);
        }
        lock(&self.graves).push(Grave { process, pid, until: Instant::now() + PATIENCE });
    }

    /// Sweeps the groups of processes that have ended, as far as it can be done; when that is to be tried again at the latest.
    pub(super) fn sweep_graves(&self) -> Option<Duration> {
        let mut empty = Vec::new();
        let mut again = None;
        {
            let mut graves = lock(&self.graves);
            let now = Instant::now();
            graves.retain(|grave| {
                // A child that is still expected reports soon and leaves the group by itself.
                let expects = lock(&grave.process.family.inner).making.is_some() && now < grave.until;
                let processes = lock(&self.processes);
                // If the number is another's by now, the group was empty before.
                let gone = processes.contains_key(&grave.pid) || !host::signal_group(grave.pid, !expects);
                drop(processes);
                if gone {
                    empty.push(grave.process.clone());
                } else if expects {
                    again = Some(LOOK);
                }
                !gone
            });
        }
        for process in empty {
            let (kept, making) = {
                let mut inner = lock(&process.family.inner);
                inner.over = true;
                (std::mem::take(&mut inner.kept), inner.making.take())
            };
            if let Some(Making::Child(child, _)) = making {
                self.abandon(&child);
            }
            drop(kept);
        }
        again
    }

    /// A child that was ordered will not come.
    pub(super) fn abandon(&self, child: &Arc<Thread>) {
        if !self.forget(child) {
            return;
        }
        let guest = lock(&child.guest).take();
        if let Some(guest) = guest {
            guest.lost(libc::SIGKILL);
        }
    }

    /// A child that is not heard of is no longer waited for. False if it has been heard of.
    fn forget(&self, child: &Arc<Thread>) -> bool {
        {
            let mut expected = lock(&self.expected);
            if !expected.get(&child.slot).is_some_and(|t| Arc::ptr_eq(t, child)) {
                return false;
            }
            expected.remove(&child.slot);
        }
        self.crew.stops();
        true
    }
}

impl Thread {
    /// Its first report: it counts from now on. False if it is not in a group of its own, though it should be.
    pub(super) fn arrived(&self) -> bool {
        let parent = lock(&self.parent).take();
        let Some(parent) = parent else { return true };
        let fine = host::group_of(self.process.id()) == Some(self.process.id());
        if !parent.process.template {
            parent.process.family.done();
        }
        fine
    }

    /// Orders were carried out, with this result; what follows. With `state` locked.
    pub(super) fn orders_done(&self, shared: &Shared, state: &mut State, result: i64) -> Done {
        if let Some((child, claimed)) = state.claimed.take() {
            // It has left its group: whatever is in there is a child that there is none of, it said.
            if result != 0 || host::signal_group(self.process.id(), true) || !shared.disown(&child) {
                return Done::Lied;
            }
            lock(&self.process.family.inner).out = true;
            if Arc::ptr_eq(&child.process.mm, &self.process.mm) {
                self.process.mm.give(child.slot);
            }
            return Done::Turn(claimed);
        }
        let Some((child, group)) = state.child.take() else { return Done::Result(result) };
        let thread = Arc::ptr_eq(&child.process, &self.process);
        match (result < 0, thread) {
            (false, true) => Done::Turn(result),
            // Its turn is over when the child is heard of.
            (false, false) => Done::Result(result),
            (true, true) => {
                // The word of a hostile stub is all that says so: a thread that there is dies with its process. A group that
                // may be mapped is not used again.
                if !shared.disown(&child) {
                    return Done::Lied;
                }
                match group {
                    Some(group) => self.process.mm.retire_group(group),
                    None => self.process.mm.give(child.slot),
                }
                Done::Turn(result)
            }
            (true, false) => {
                let leave = [SETPGID, 0, shared.template as u64, 0, 0, 0, 0];
                if self.process.template || !self.order_one(shared, state, leave) {
                    return if shared.disown(&child) { Done::Turn(result) } else { Done::Lied };
                }
                state.claimed = Some((child, result));
                state.stop = super::Stop::Running;
                Done::Asked
            }
        }
    }
}

impl Shared {
    /// A clone failed, so its parent says: its child is no longer waited for. False if it has been heard of.
    fn disown(&self, child: &Arc<Thread>) -> bool {
        let unheard = self.forget(child);
        if unheard {
            *lock(&child.guest) = None;
        }
        unheard
    }
}

/// What follows when a thread says that its orders are done.
pub(super) enum Done {
    /// The kernel is told.
    Result(i64),
    /// The same, and the process may make its next clone.
    Turn(i64),
    /// It is asked something first, by an order.
    Asked,
    /// It lied.
    Lied,
}
