//! Locks with priority inheritance: `FUTEX_LOCK_PI` and its kin (`futex(2)`).
//!
//! The word of such a lock holds its owner. As long as it says that nobody waits, threads of the container take and give it back
//! by themselves, so the Sentry first has the host set the waiters' bit in the caller's own process, which is atomic
//! ([`Order::SetWaiters`](cofferdam_platform::Order)); from then on only the Sentry changes the word, one lock at a time. Nobody's
//! priority is raised: the sandbox has one (`sched(7)`), so the first that waits is the next. Owned here: who waits.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::futex::{Key, OWNER_DIED, TID_MASK, WAITERS, word};
use crate::errno::Errno;
use crate::sync::Mutex;
use crate::task::Task;

/// Who waits for a lock.
struct Waiter {
    task: Arc<Task>,
    address: u64,
    granted: AtomicBool,
}

struct Lock {
    /// Thread id of who has it.
    owner: i32,
    waiters: VecDeque<Arc<Waiter>>,
}

/// The locks that somebody waits for. Their lock comes after the task tree's, and before address spaces'.
#[derive(Default)]
pub struct Locks(Mutex<HashMap<Key, Lock>>);

/// A place in a lock's queue, left when this is dropped.
pub struct Place {
    key: Key,
    waiter: Arc<Waiter>,
}

impl Place {
    /// Whether the lock is its task's now.
    pub fn granted(&self) -> bool {
        self.waiter.granted.load(Ordering::Acquire)
    }

    /// Gives up; false if the lock has been granted.
    pub fn leave(&self) -> bool {
        let mut locks = self.waiter.task.kernel().pi_locks.0.lock();
        if self.granted() {
            return false;
        }
        if let Some(lock) = locks.get_mut(&self.key) {
            lock.waiters.retain(|w| !Arc::ptr_eq(w, &self.waiter));
            if lock.waiters.is_empty() {
                locks.remove(&self.key);
            }
        }
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What came of an attempt to take a lock.
pub enum Taken {
    /// It is the caller's.
    Yes,
    /// The bit is gone: somebody gave the lock back meanwhile. Set it again.
    Again,
    /// Somebody else has it; the caller is in its queue, unless it only tried.
    Waits(Place),
}

/// The id of who has the lock, by what its word says to a task; 0 for nobody.
fn owner_of(task: &Task, value: u32) -> i32 {
    task.id_of((value & TID_MASK) as i32)
}

/// What the word of a task's lock says.
fn mark_of(task: &Task) -> u32 {
    task.shown(task.tid()).cast_unsigned()
}

impl Locks {
    /// Checks that a task may take the lock: EDEADLK if it has it, ESRCH if nobody is who has it.
    pub fn check(task: &Arc<Task>, address: u64) -> Result<(), Errno> {
        let value = word(task, address)?;
        if owner_of(task, value) == task.tid() { Err(Errno::EDEADLK) } else { Self::check_owner(task, value) }
    }

    /// Whether there is a task that has the lock, by what its word says; ESRCH.
    pub fn check_owner(task: &Arc<Task>, value: u32) -> Result<(), Errno> {
        match owner_of(task, value) {
            0 => Ok(()),
            tid => task.kernel().tree.lock().task(tid).map(|_| ()).ok_or(Errno::ESRCH),
        }
    }

    /// Takes the lock or a place in its queue, once the word has its waiters' bit. `only_try`: EAGAIN instead of the latter.
    pub fn take(task: &Arc<Task>, address: u64, key: Key, only_try: bool) -> Result<Taken, Errno> {
        Self::check(task, address)?;
        let refused = |_| if only_try { Err(Errno::EAGAIN) } else { Ok(()) };
        Self::enter(task, address, key, (task, address), false, refused)
    }

    /// Takes the lock, or a place in its queue, for another task, which waits to be moved there. The addresses: of the word as each of
    /// the two names it. `last`: nobody else is to be moved.
    pub fn take_for(
        task: &Arc<Task>,
        other: &Arc<Task>,
        (address, own): (u64, u64),
        key: Key,
        last: bool,
    ) -> Result<Taken, Errno> {
        let refused = |owner| if owner == other.tid() { Err(Errno::EDEADLK) } else { Ok(()) };
        Self::enter(task, address, key, (other, own), !last, refused)
    }

    /// What `task` sees at `address` is taken for who comes next and names it as is said. `more`: others will wait, too. `refused`: why
    /// it does not wait for this owner.
    fn enter(
        task: &Arc<Task>,
        address: u64,
        key: Key,
        (next, own): (&Arc<Task>, u64),
        more: bool,
        refused: impl FnOnce(i32) -> Result<(), Errno>,
    ) -> Result<Taken, Errno> {
        let mut locks = task.kernel().pi_locks.0.lock();
        let value = word(task, address)?;
        if value & WAITERS == 0 {
            return Ok(Taken::Again);
        }
        let owner = owner_of(task, value);
        if owner == 0 {
            let others = if more || locks.contains_key(&key) { WAITERS } else { 0 };
            let new = mark_of(next) | (value & OWNER_DIED) | others;
            task.write_exact(address, &new.to_le_bytes())?;
            if let Some(lock) = locks.get_mut(&key) {
                lock.owner = next.tid();
            }
            return Ok(Taken::Yes);
        }
        refused(owner)?;
        let waiter = Arc::new(Waiter { task: next.clone(), address: own, granted: AtomicBool::new(false) });
        let lock = locks.entry(key).or_insert_with(|| Lock { owner, waiters: VecDeque::new() });
        lock.waiters.push_back(waiter.clone());
        Ok(Taken::Waits(Place { key, waiter }))
    }

    /// Gives the lock to the next that waits, or back. EPERM unless it is the caller's.
    pub fn give_back(task: &Arc<Task>, address: u64, key: Key) -> Result<(), Errno> {
        word(task, address)?;
        let next = {
            let mut locks = task.kernel().pi_locks.0.lock();
            if owner_of(task, word(task, address)?) != task.tid() {
                return Err(Errno::EPERM);
            }
            let next = Self::next(&mut locks, key);
            let new = next.as_ref().map_or(0, |w| mark_of(&w.task) | WAITERS);
            task.write_exact(address, &new.to_le_bytes())?;
            if let Some(w) = &next {
                w.granted.store(true, Ordering::Release);
            }
            next
        };
        if let Some(w) = next {
            w.task.wake_up();
        }
        Ok(())
    }

    fn next(locks: &mut HashMap<Key, Lock>, key: Key) -> Option<Arc<Waiter>> {
        let lock = locks.get_mut(&key)?;
        let next = lock.waiters.pop_front();
        match &next {
            Some(w) => lock.owner = w.task.tid(),
            None => lock.owner = 0,
        }
        if lock.waiters.is_empty() {
            locks.remove(&key);
        }
        next
    }

    /// A task ended: what it had is the next one's, who is told that the owner died.
    pub fn owner_died(&self, tid: i32) {
        let mut woken = Vec::new();
        {
            let mut locks = self.0.lock();
            let had: Vec<Key> = locks.iter().filter(|(_, l)| l.owner == tid).map(|(k, _)| *k).collect();
            for key in had {
                if let Some(w) = Self::next(&mut locks, key) {
                    let new = mark_of(&w.task) | WAITERS | OWNER_DIED;
                    if w.task.write_exact(w.address, &new.to_le_bytes()).is_ok() {
                        w.granted.store(true, Ordering::Release);
                    }
                    woken.push(w);
                }
            }
        }
        for w in woken {
            w.task.wake_up();
        }
    }
}
