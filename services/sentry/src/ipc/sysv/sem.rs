//! System V semaphores, `semget(2)`, `semop(2)`, `semctl(2)`.
//!
//! A set's operations are all done or none. A task whose operations cannot be done yet waits on the set's queue and tries again
//! whenever the set changed. `SEM_UNDO` adjustments are kept with the set, by process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Get, Perm, Raw, Which, seconds};
use crate::errno::Errno;
use crate::namespaces::IpcNamespace;
use crate::sync::Mutex;
use crate::task::Creds;
use crate::wait::{PollMask, WaitQueue};

/// Most sets (`SEMMNI`).
pub const MOST: usize = 32000;
/// Most semaphores of a set (`SEMMSL`).
pub const SET_MOST: usize = 32000;
/// Most semaphores of all sets (`SEMMNS`). Linux takes a thousand times as many; what they cost here, the Sentry pays.
pub const ALL_MOST: usize = 1_024_000;
/// Most operations of a call (`SEMOPM`).
pub const OPS_MOST: usize = 500;
/// Highest value (`SEMVMX`).
pub const VALUE_MAX: i32 = 32767;
/// `SEM_UNDO`.
const UNDO: i16 = 0x1000;

/// `struct sembuf`.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// Which semaphore of the set.
    pub number: u16,
    /// What to add; 0: wait for zero.
    pub change: i16,
    /// `IPC_NOWAIT`, `SEM_UNDO`.
    pub flags: i16,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sem {
    value: i32,
    pid: i32,
}

/// A task that waits: what for.
#[derive(Debug)]
struct Waiter {
    id: u64,
    number: u16,
    zero: bool,
}

#[derive(Debug, Default)]
struct Inner {
    sems: Vec<Sem>,
    waiters: Vec<Waiter>,
    removed: bool,
    /// Adjustments by process and semaphore.
    undo: BTreeMap<(i32, u16), i32>,
    operated: i64,
    changed: i64,
}

/// A set.
#[derive(Default)]
pub struct Set {
    inner: Mutex<Inner>,
    /// Woken when it changed.
    pub queue: WaitQueue,
}

impl std::fmt::Debug for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Set").finish_non_exhaustive()
    }
}

/// What became of operations.
pub enum Tried {
    /// All done.
    Done,
    /// Not now.
    Wait,
}

static WAITERS: AtomicU64 = AtomicU64::new(1);

/// A number for a task's wait, unique.
pub fn new_waiter() -> u64 {
    WAITERS.fetch_add(1, Ordering::Relaxed)
}

impl Inner {
    /// What the operations come to, as changes to be made; the operation that cannot be done now.
    fn plan(&self, ops: &[Op], pid: i32) -> Result<Result<Plan, Op>, Errno> {
        let mut plan = Plan::default();
        for op in ops {
            let sem = self.sems.get(usize::from(op.number)).ok_or(Errno::EFBIG)?;
            let value = plan.values.get(&op.number).copied().unwrap_or(sem.value);
            let change = i32::from(op.change);
            if (change == 0 && value != 0) || value + change < 0 {
                return if i32::from(op.flags) & super::NOWAIT != 0 { Err(Errno::EAGAIN) } else { Ok(Err(*op)) };
            }
            if value + change > VALUE_MAX {
                return Err(Errno::ERANGE);
            }
            if op.flags & UNDO != 0 {
                let kept = self.undo.get(&(pid, op.number)).copied().unwrap_or(0);
                let undo = plan.undo.entry(op.number).or_insert(kept);
                *undo -= change;
                if !(-VALUE_MAX - 1..=VALUE_MAX).contains(undo) {
                    return Err(Errno::ERANGE);
                }
            }
            plan.values.insert(op.number, value + change);
        }
        Ok(Ok(plan))
    }
}

#[derive(Default)]
struct Plan {
    values: BTreeMap<u16, i32>,
    undo: BTreeMap<u16, i32>,
}

impl Set {
    fn new(count: usize) -> Self {
        let inner = Inner { sems: vec![Sem::default(); count], changed: seconds(), ..Inner::default() };
        Self { inner: Mutex::new(inner), queue: WaitQueue::new() }
    }

    /// How many semaphores it has.
    pub fn len(&self) -> usize {
        self.inner.lock().sems.len()
    }

    /// Tries a process's operations. A `waiter` that must wait is noted with what it waits for; EIDRM once the set is removed.
    pub fn operate(&self, ops: &[Op], pid: i32, waiter: u64) -> Result<Tried, Errno> {
        let changed = {
            let mut inner = self.inner.lock();
            inner.waiters.retain(|w| w.id != waiter);
            if inner.removed {
                return Err(Errno::EIDRM);
            }
            let plan = match inner.plan(ops, pid)? {
                Ok(plan) => plan,
                Err(op) => {
                    inner.waiters.push(Waiter { id: waiter, number: op.number, zero: op.change == 0 });
                    return Ok(Tried::Wait);
                }
            };
            let mut changed = false;
            for (number, value) in plan.values {
                if let Some(sem) = inner.sems.get_mut(usize::from(number)) {
                    changed |= sem.value != value;
                    (sem.value, sem.pid) = (value, pid);
                }
            }
            for (number, undo) in plan.undo {
                inner.undo.insert((pid, number), undo);
            }
            inner.operated = seconds();
            changed
        };
        if changed {
            self.queue.wake(PollMask::empty());
        }
        Ok(Tried::Done)
    }

    /// A waiter gave up.
    pub fn leave(&self, waiter: u64) {
        self.inner.lock().waiters.retain(|w| w.id != waiter);
    }

    /// A process ended: its adjustments are made.
    pub fn undo(&self, pid: i32) {
        {
            let mut inner = self.inner.lock();
            let mut rest = inner.undo.split_off(&(pid, 0));
            let mut later = rest.split_off(&(pid.saturating_add(1), 0));
            inner.undo.append(&mut later);
            if rest.is_empty() {
                return;
            }
            for ((_, number), change) in rest {
                if let Some(sem) = inner.sems.get_mut(usize::from(number)).filter(|_| change != 0) {
                    sem.value = (sem.value + change).clamp(0, VALUE_MAX);
                    sem.pid = pid;
                }
            }
            inner.operated = seconds();
        }
        self.queue.wake(PollMask::empty());
    }

    /// One semaphore: value, last process, tasks that wait for it to rise, and for zero. EINVAL.
    pub fn one(&self, number: i32) -> Result<(i32, i32, usize, usize), Errno> {
        let inner = self.inner.lock();
        let sem = usize::try_from(number).ok().and_then(|n| inner.sems.get(n)).ok_or(Errno::EINVAL)?;
        let waiting =
            |zero: bool| inner.waiters.iter().filter(|w| i32::from(w.number) == number && w.zero == zero).count();
        Ok((sem.value, sem.pid, waiting(false), waiting(true)))
    }

    /// All values.
    pub fn values(&self) -> Vec<u16> {
        self.inner.lock().sems.iter().map(|s| s.value as u16).collect()
    }

    /// Sets values from the first semaphore `from` on, by a process; nobody's adjustments of these hold any longer. ERANGE, EINVAL.
    pub fn set_values(&self, from: i32, values: &[i32], pid: i32) -> Result<(), Errno> {
        if values.iter().any(|v| !(0..=VALUE_MAX).contains(v)) {
            return Err(Errno::ERANGE);
        }
        {
            let mut inner = self.inner.lock();
            if inner.removed {
                return Err(Errno::EIDRM);
            }
            let from = usize::try_from(from).map_err(|_| Errno::EINVAL)?;
            let to = from.checked_add(values.len()).ok_or(Errno::EINVAL)?;
            let sems = inner.sems.get_mut(from..to).ok_or(Errno::EINVAL)?;
            for (sem, value) in sems.iter_mut().zip(values) {
                *sem = Sem { value: *value, pid };
            }
            inner.undo.retain(|(_, number), _| !(from..to).contains(&usize::from(*number)));
            inner.changed = seconds();
        }
        self.queue.wake(PollMask::empty());
        Ok(())
    }
}

/// `semget(2)`.
pub fn get(get: Get<'_>, count: usize) -> Result<i32, Errno> {
    let ns = get.namespace;
    let mut ids = ns.sysv.sem.lock();
    let used: usize = ids.all().map(|(_, s)| s.item.len()).sum();
    let most = ns.sysv.limits.semaphore(1);
    let fits = |set: &std::sync::Arc<Set>| if set.len() < count { Err(Errno::EINVAL) } else { Ok(()) };
    ids.find_or_make(get, fits, |_| match count {
        0 => Err(Errno::EINVAL),
        count if used + count > most => Err(Errno::ENOSPC),
        count => Ok(std::sync::Arc::new(Set::new(count))),
    })
}

/// The set of an identifier, with permission to `want`.
pub fn set(ns: &IpcNamespace, creds: &Creds, id: i32, want: i32) -> Result<std::sync::Arc<Set>, Errno> {
    Ok(ns.sysv.sem.lock().permitted(id, ns, creds, want)?.item.clone())
}

/// `struct semid64_ds`: see [`super::shm::stat`].
pub fn stat(ns: &IpcNamespace, creds: &Creds, which: Which) -> Result<(i32, Raw), Errno> {
    let mut ids = ns.sysv.sem.lock();
    let (id, slot) = ids.shown(which, ns, creds)?;
    let s = slot.item.inner.lock();
    let raw = Raw::of(&slot.perm, creds).time(s.operated).word(0).time(s.changed).word(0);
    Ok((id, raw.word(s.sems.len() as u64).word(0).word(0)))
}

/// `IPC_SET`.
pub fn change(ns: &IpcNamespace, creds: &Creds, id: i32, raw: &Raw) -> Result<(), Errno> {
    let mut ids = ns.sysv.sem.lock();
    let slot = ids.owned(id, ns, creds)?;
    slot.perm.set(creds, raw)?;
    slot.item.inner.lock().changed = seconds();
    Ok(())
}

/// `IPC_RMID`: whoever waits gets EIDRM.
pub fn remove(ns: &IpcNamespace, creds: &Creds, id: i32) -> Result<(), Errno> {
    let slot = {
        let mut ids = ns.sysv.sem.lock();
        ids.owned(id, ns, creds)?;
        ids.remove(id).ok_or(Errno::EINVAL)?
    };
    slot.item.inner.lock().removed = true;
    slot.item.queue.wake_all();
    Ok(())
}

/// How many sets and semaphores there are, and the highest place in use.
pub fn totals(ns: &IpcNamespace) -> (usize, usize, i64) {
    let ids = ns.sysv.sem.lock();
    (ids.len(), ids.all().map(|(_, s)| s.item.len()).sum(), ids.highest())
}

/// `/proc/sysvipc/sem`.
pub fn table(ns: &IpcNamespace, creds: &Creds) -> String {
    use std::fmt::Write;
    let mut out =
        String::from("       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n");
    for (id, slot) in ns.sysv.sem.lock().all() {
        let (p, s): (&Perm, _) = (&slot.perm, slot.item.inner.lock());
        let [uid, gid, cuid, cgid] = p.shown(creds);
        writeln!(
            out,
            "{:>10} {id:>10}  {:>4o} {:>10} {:>5} {:>5} {:>5} {:>5} {:>10} {:>10}",
            p.key,
            p.mode,
            s.sems.len(),
            uid,
            gid,
            cuid,
            cgid,
            s.operated,
            s.changed
        )
        .ok();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(number: u16, change: i16, flags: i16) -> Op {
        Op { number, change, flags }
    }

    #[test]
    fn operations_are_done_all_or_none_and_undone_at_the_end() {
        let set = Set::new(3);
        assert!(matches!(set.operate(&[op(0, 2, 0), op(1, 5, UNDO)], 10, 1), Ok(Tried::Done)));
        // The second cannot be done: neither is.
        assert!(matches!(set.operate(&[op(0, -1, 0), op(2, -1, 0)], 11, 2), Ok(Tried::Wait)));
        assert_eq!((set.values(), set.one(2).unwrap().2), (vec![2, 5, 0], 1));
        set.leave(2);
        assert_eq!(set.one(2).unwrap(), (0, 0, 0, 0));
        assert!(matches!(set.operate(&[op(2, 0, 0), op(2, 1, 0), op(2, -1, 0)], 11, 3), Ok(Tried::Done)));
        assert_eq!(set.operate(&[op(0, VALUE_MAX as i16, 0)], 11, 4).err(), Some(Errno::ERANGE));
        assert_eq!(set.operate(&[op(3, 1, 0)], 11, 4).err(), Some(Errno::EFBIG));
        assert_eq!(set.operate(&[op(2, -1, super::super::NOWAIT as i16)], 11, 4).err(), Some(Errno::EAGAIN));
        set.undo(11);
        assert_eq!(set.values(), [2, 5, 0]);
        set.undo(10);
        assert_eq!(set.values(), [2, 0, 0]);
        // Set values forget adjustments.
        set.operate(&[op(0, 1, UNDO)], 12, 5).ok();
        set.set_values(0, &[7], 13).unwrap();
        set.undo(12);
        assert_eq!(set.one(0).unwrap(), (7, 13, 0, 0));
    }
}
