//! Futexes: `futex(2)`.
//!
//! Waiters queue by key: address space and address for private ones, object and offset for shared memory. The word is
//! read under the lock of the table, so that a wake between the look and the sleep is not lost. Words are changed by the
//! Sentry only where Linux changes them (robust lists); a compare-and-exchange on the container's memory is not atomic
//! with its threads there, so calls that need one (PI, WAKE_OP) are refused: see the table's note.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::pi_futex::{self, Locks, Taken};
use crate::errno::Errno;
use crate::sync::Mutex;
use crate::task::Task;

/// Where a futex word lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// In memory of one address space: that, the address, and whether the caller said so (FUTEX_PRIVATE_FLAG): as on Linux, who
    /// says it and who does not do not meet.
    Private(usize, u64, bool),
    /// In shared memory: object, offset.
    Shared(u64, u64, u64),
}

/// A task that waits.
pub struct Waiter {
    task: Arc<Task>,
    bits: u32,
    woken: AtomicBool,
    key: Mutex<Key>,
    /// It waits to be moved to a lock with priority inheritance (`FUTEX_WAIT_REQUEUE_PI`): that, as it names it.
    lock: Option<(Key, u64)>,
    /// Its place there once it was moved.
    moved: Mutex<Option<Arc<pi_futex::Place>>>,
}

impl Waiter {
    /// Where it waits for the lock it was moved to.
    pub fn moved(&self) -> Option<Arc<pi_futex::Place>> {
        self.moved.lock().clone()
    }

    /// Whether it has been woken.
    pub fn woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }
}

/// A waiter's place in the table: left when this is dropped, be it that the call ended or its task did.
pub struct Place(Arc<Waiter>);

impl Place {
    /// Gives up; false if it had been woken.
    pub fn leave(&self) -> bool {
        self.0.task.kernel().futexes.leave(&self.0)
    }
}

impl std::ops::Deref for Place {
    type Target = Waiter;
    fn deref(&self) -> &Waiter {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// All futexes with waiters.
#[derive(Default)]
pub struct Futexes(Mutex<HashMap<Key, Vec<Arc<Waiter>>>>);

/// The key of an address. `private`: FUTEX_PRIVATE_FLAG.
pub fn key(task: &Task, address: u64, private: bool) -> Result<Key, Errno> {
    if !address.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    let mm = task.mm();
    if !private && let Some(((dev, ino), offset)) = mm.shared_at(address) {
        return Ok(Key::Shared(dev, ino, offset));
    }
    Ok(Key::Private(Arc::as_ptr(&mm) as usize, address, private))
}

/// The word at an address.
pub fn word(task: &Task, address: u64) -> Result<u32, Errno> {
    let mut b = [0; 4];
    task.read_exact(address, &mut b)?;
    Ok(u32::from_le_bytes(b))
}

impl Futexes {
    /// Queues the task if the word still has the expected value; EAGAIN if not.
    pub fn enqueue(&self, task: &Arc<Task>, address: u64, key: Key, expected: u32, bits: u32) -> Result<Place, Errno> {
        self.enqueue_for(task, address, key, expected, bits, None)
    }

    /// As [`enqueue`](Self::enqueue), to be moved to a lock later.
    pub fn enqueue_for(
        &self,
        task: &Arc<Task>,
        address: u64,
        key: Key,
        expected: u32,
        bits: u32,
        lock: Option<(Key, u64)>,
    ) -> Result<Place, Errno> {
        // A first look without the lock fills in pages; the one that counts is under it.
        word(task, address)?;
        let mut table = self.0.lock();
        if word(task, address)? != expected {
            return Err(Errno::EAGAIN);
        }
        let waiter = Arc::new(Waiter {
            task: task.clone(),
            bits,
            woken: AtomicBool::new(false),
            key: Mutex::new(key),
            lock,
            moved: Mutex::default(),
        });
        table.entry(key).or_default().push(waiter.clone());
        Ok(Place(waiter))
    }

    fn leave(&self, waiter: &Arc<Waiter>) -> bool {
        let mut table = self.0.lock();
        if waiter.woken() || waiter.moved.lock().is_some() {
            return false;
        }
        let key = *waiter.key.lock();
        if let Some(list) = table.get_mut(&key) {
            list.retain(|w| !Arc::ptr_eq(w, waiter));
            if list.is_empty() {
                table.remove(&key);
            }
        }
        true
    }

    /// Wakes up to `count` waiters whose bits match; how many.
    pub fn wake(&self, key: Key, count: usize, bits: u32) -> usize {
        let woken = {
            let mut table = self.0.lock();
            Self::take(&mut table, key, count, bits)
        };
        for w in &woken {
            w.task.wake_up();
        }
        woken.len()
    }

    fn take(table: &mut HashMap<Key, Vec<Arc<Waiter>>>, key: Key, count: usize, bits: u32) -> Vec<Arc<Waiter>> {
        let Some(list) = table.get_mut(&key) else { return Vec::new() };
        let mut woken = Vec::new();
        list.retain(|w| {
            let take = woken.len() < count && w.bits & bits != 0;
            if take {
                w.woken.store(true, Ordering::Release);
                woken.push(w.clone());
            }
            !take
        });
        if list.is_empty() {
            table.remove(&key);
        }
        woken
    }

    /// EINVAL if somebody there can only be moved to a lock.
    pub fn check_plain(&self, key: Key) -> Result<(), Errno> {
        let table = self.0.lock();
        let plain = table.get(&key).is_none_or(|list| list.iter().all(|w| w.lock.is_none()));
        if plain { Ok(()) } else { Err(Errno::EINVAL) }
    }

    /// Whether anybody waits there.
    pub fn any(&self, key: Key) -> bool {
        self.0.lock().contains_key(&key)
    }

    /// Gives the lock at `to` to the first that waits at `from`, if it is free, and moves up to `limit` others into its queue, or one
    /// more if it is not. `None`: the lock's word has lost its waiters' bit. How many were woken and moved.
    pub fn requeue_pi(
        &self,
        task: &Arc<Task>,
        (address, from, expected): (u64, Key, u32),
        (address2, to): (u64, Key),
        limit: usize,
    ) -> Result<Option<usize>, Errno> {
        let mut count = 0;
        let mut woken = None;
        let mut failure = None;
        {
            let mut table = self.0.lock();
            if word(task, address)? != expected {
                return Err(Errno::EAGAIN);
            }
            while count <= limit {
                let Some(first) = table.get(&from).and_then(|list| list.first()).cloned() else { break };
                let Some((key, own)) = first.lock.filter(|(key, _)| *key == to) else {
                    failure = Some(Errno::EINVAL);
                    break;
                };
                let last = limit == 0;
                match Locks::take_for(task, &first.task, (address2, own), key, last) {
                    Ok(Taken::Again) if count == 0 => return Ok(None),
                    // Nobody else may change it by now.
                    Ok(Taken::Again) => break,
                    Ok(Taken::Yes) => {
                        first.woken.store(true, Ordering::Release);
                        woken = Some(first.clone());
                    }
                    Ok(Taken::Waits(place)) => *first.moved.lock() = Some(Arc::new(place)),
                    Err(e) => {
                        failure = Some(e);
                        break;
                    }
                }
                count += 1;
                if let Some(list) = table.get_mut(&from) {
                    list.remove(0);
                    if list.is_empty() {
                        table.remove(&from);
                    }
                }
            }
        }
        if let Some(w) = woken {
            w.task.wake_up();
        }
        match failure {
            Some(e) => Err(e),
            None => Ok(Some(count)),
        }
    }

    /// Wakes `count` waiters of `from` and moves up to `limit` others to `to`. `check`: the value the word at `address`
    /// must still have. How many were woken and moved.
    #[allow(clippy::too_many_arguments)]
    pub fn requeue(
        &self,
        task: &Task,
        address: u64,
        from: Key,
        to: Key,
        count: usize,
        limit: usize,
        check: Option<u32>,
    ) -> Result<(usize, usize), Errno> {
        let (woken, moved) = {
            let mut table = self.0.lock();
            if let Some(expected) = check
                && word(task, address)? != expected
            {
                return Err(Errno::EAGAIN);
            }
            let woken = Self::take(&mut table, from, count, u32::MAX);
            let mut moving = Vec::new();
            if from != to
                && let Some(list) = table.get_mut(&from)
            {
                let n = list.len().min(limit);
                moving = list.drain(..n).collect();
                if list.is_empty() {
                    table.remove(&from);
                }
            }
            for w in &moving {
                *w.key.lock() = to;
            }
            let moved = moving.len();
            if moved > 0 {
                table.entry(to).or_default().extend(moving);
            }
            (woken, moved)
        };
        for w in &woken {
            w.task.wake_up();
        }
        Ok((woken.len(), moved))
    }
}

/// Wakes waiters on an address of a task's memory, private and shared ones.
pub fn wake_address(task: &Arc<Task>, address: u64, count: usize) {
    let futexes = &task.kernel().futexes;
    for private in [true, false] {
        if let Ok(k) = key(task, address, private) {
            futexes.wake(k, count, u32::MAX);
        }
    }
}

/// Somebody waits for the lock.
pub const WAITERS: u32 = 0x8000_0000;
/// The lock's owner ended without giving it back.
pub const OWNER_DIED: u32 = 0x4000_0000;
/// Who has the lock.
pub const TID_MASK: u32 = 0x3fff_ffff;
/// Most locks of a robust list that are looked at (`ROBUST_LIST_LIMIT`).
const ROBUST_LIMIT: usize = 2048;

/// Marks the locks that an ending thread holds as ownerless and wakes who waits for them (`get_robust_list(2)`).
pub fn exit_robust_list(task: &Arc<Task>, head: u64) {
    let read = |at: u64| -> Option<u64> {
        let mut b = [0; 8];
        task.read_exact(at, &mut b).ok()?;
        Some(u64::from_le_bytes(b))
    };
    let walk = || -> Option<()> {
        let offset = read(head.checked_add(8)?)?;
        let pending = read(head.checked_add(16)?)? & !1;
        let mut entry = read(head)? & !1;
        for _ in 0..ROBUST_LIMIT {
            if entry == head {
                break;
            }
            if entry != pending {
                release(task, entry.wrapping_add(offset));
            }
            entry = read(entry)? & !1;
        }
        if pending != 0 {
            release(task, pending.wrapping_add(offset));
        }
        Some(())
    };
    walk();
}

fn release(task: &Arc<Task>, address: u64) {
    let Ok(value) = word(task, address) else { return };
    if value & TID_MASK != task.shown(task.tid()) as u32 {
        return;
    }
    // The owner is ending and nobody else may change the word but to set the waiters bit.
    let new = (value & WAITERS) | OWNER_DIED;
    if task.write_exact(address, &new.to_le_bytes()).is_ok() && value & WAITERS != 0 {
        wake_address(task, address, 1);
    }
}
