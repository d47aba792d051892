//! System V IPC, `sysvipc(7)`: identifiers, keys and permissions; what lies behind them is in `shm`, `sem` and `msg`.
//!
//! Owns the three tables of an IPC namespace. An identifier is a place in a table and a sequence number, so that one that was removed is
//! not taken for what came after it. Never here: tasks that wait (each object has its own queue). Called by the calls of those
//! names and by `/proc/sysvipc`.

pub mod msg;
pub mod sem;
pub mod shm;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::errno::Errno;
use crate::namespaces::{IpcNamespace, UserNamespace};
use crate::sync::Mutex;
use crate::task::Creds;
use crate::task::creds::cap;
use crate::time::{Clock, NS, now};

/// `IPC_CREAT`.
const CREAT: i32 = 0o1000;
/// `IPC_EXCL`.
const EXCL: i32 = 0o2000;
/// `IPC_NOWAIT`.
pub const NOWAIT: i32 = 0o4000;
/// `IPC_PRIVATE`.
const PRIVATE: i32 = 0;
/// Places of a table's identifiers (`IPCMNI_SHIFT`).
const PLACE_BITS: u32 = 15;
/// Fewer places than that are never used again at once.
const CYCLE: usize = 64;

/// Permission to read.
pub const READ: i32 = 0o444;
/// Permission to write (semaphores: to alter).
pub const WRITE: i32 = 0o222;

/// Seconds since 1970.
pub fn seconds() -> i64 {
    now(Clock::Realtime) / NS
}

/// `struct ipc_perm`: whose an object is.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Perm {
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    pub mode: u32,
    pub seq: u16,
}

impl Perm {
    /// Whether the caller may do what the permission bits `want` say. EACCES.
    pub fn check(&self, owner: &UserNamespace, creds: &Creds, want: i32) -> Result<(), Errno> {
        let want = (want >> 6 | want >> 3 | want) as u32 & 7;
        let granted = if creds.euid == self.cuid || creds.euid == self.uid {
            self.mode >> 6
        } else if creds.in_group(self.cgid) || creds.in_group(self.gid) {
            self.mode >> 3
        } else {
            self.mode
        };
        if want & !granted & 7 == 0 || creds.capable_in(owner, cap::IPC_OWNER) { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// Whether the caller may change or remove the object. EPERM.
    pub fn check_owner(&self, owner: &UserNamespace, creds: &Creds) -> Result<(), Errno> {
        let owns = creds.euid == self.cuid || creds.euid == self.uid;
        if owns || creds.capable_in(owner, cap::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// `IPC_SET`: owner and permission bits of a `struct ipc64_perm`, with ids as `creds` have them.
    pub fn set(&mut self, creds: &Creds, raw: &Raw) -> Result<(), Errno> {
        let uid = creds.user_ns.kernel_uid(raw.u32(4)).ok_or(Errno::EINVAL)?;
        let gid = creds.user_ns.kernel_gid(raw.u32(8)).ok_or(Errno::EINVAL)?;
        (self.uid, self.gid) = (uid, gid);
        self.mode = (self.mode & !0o777) | (raw.u32(20) & 0o777);
        Ok(())
    }

    /// User and group, of now and of the beginning, as `creds` see them.
    pub fn shown(&self, creds: &Creds) -> [u32; 4] {
        [creds.shown_uid(self.uid), creds.shown_gid(self.gid), creds.shown_uid(self.cuid), creds.shown_gid(self.cgid)]
    }
}

/// A structure of the ABI, as bytes: little-endian fields, one after the other or at their offsets.
#[derive(Clone, Debug, Default)]
pub struct Raw(pub Vec<u8>);

impl Raw {
    /// Begins with a `struct ipc64_perm`, as `creds` see it.
    pub fn of(perm: &Perm, creds: &Creds) -> Self {
        let mut raw = Self::default();
        let [uid, gid, cuid, cgid] = perm.shown(creds);
        for field in [perm.key.cast_unsigned(), uid, gid, cuid, cgid, perm.mode] {
            raw = raw.word32(field);
        }
        raw.word32(u32::from(perm.seq)).word32(0).word(0).word(0)
    }

    /// Adds a long.
    #[must_use]
    pub fn word(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Adds a time.
    #[must_use]
    pub fn time(self, value: i64) -> Self {
        self.word(value.cast_unsigned())
    }

    /// Adds an int.
    #[must_use]
    pub fn word32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// The int at an offset, 0 beyond the end.
    pub fn u32(&self, at: usize) -> u32 {
        self.0.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u32::from_le_bytes(*b))
    }

    /// The long at an offset, 0 beyond the end.
    pub fn u64(&self, at: usize) -> u64 {
        self.0.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u64::from_le_bytes(*b))
    }
}

/// An object of a table.
#[derive(Debug)]
pub struct Slot<T> {
    /// Whose it is.
    pub perm: Perm,
    /// What it is.
    pub item: T,
}

/// The identifiers of one kind.
#[derive(Debug)]
pub struct Ids<T> {
    slots: BTreeMap<usize, Slot<T>>,
    /// The place given last.
    last: Option<usize>,
    seq: u16,
}

impl<T> Default for Ids<T> {
    fn default() -> Self {
        Self { slots: BTreeMap::new(), last: None, seq: 0 }
    }
}

fn id(place: usize, seq: u16) -> i32 {
    i32::from(seq) << PLACE_BITS | place as i32
}

/// What to get: the arguments that `shmget`, `semget` and `msgget` have in common.
#[derive(Clone, Copy)]
pub struct Get<'a> {
    /// The key.
    pub key: i32,
    /// `IPC_CREAT`, `IPC_EXCL` and permission bits.
    pub flags: i32,
    /// Who asks.
    pub creds: &'a Creds,
    /// Where.
    pub namespace: &'a IpcNamespace,
    /// Most objects of the kind (ENOSPC).
    pub most: usize,
}

/// Which object a `*_STAT` call means.
#[derive(Clone, Copy)]
pub struct Which {
    /// Its identifier.
    pub number: i32,
    /// The number is its place in the table instead.
    pub by_place: bool,
    /// Whoever asks.
    pub any: bool,
}

impl<T> Ids<T> {
    fn place(id: i32) -> Option<usize> {
        usize::try_from(id).ok().map(|id| id & ((1 << PLACE_BITS) - 1))
    }

    /// The object of an identifier; EINVAL if there is none.
    pub fn get(&mut self, id: i32) -> Result<&mut Slot<T>, Errno> {
        let place = Self::place(id).ok_or(Errno::EINVAL)?;
        let slot = self.slots.get_mut(&place).ok_or(Errno::EINVAL)?;
        if i32::from(slot.perm.seq) == id >> PLACE_BITS { Ok(slot) } else { Err(Errno::EINVAL) }
    }

    /// The object at a place (`SHM_STAT` and its kin) and its identifier.
    pub fn at(&mut self, place: i32) -> Result<(i32, &mut Slot<T>), Errno> {
        let place = usize::try_from(place).map_err(|_| Errno::EINVAL)?;
        let slot = self.slots.get_mut(&place).ok_or(Errno::EINVAL)?;
        Ok((id(place, slot.perm.seq), slot))
    }

    /// The object of an identifier, with permission to `want` (EACCES).
    pub fn permitted(&mut self, id: i32, ns: &IpcNamespace, creds: &Creds, want: i32) -> Result<&mut Slot<T>, Errno> {
        let slot = self.get(id)?;
        slot.perm.check(&ns.base.owner, creds, want)?;
        Ok(slot)
    }

    /// The object of an identifier, which the caller may change or remove (EPERM).
    pub fn owned(&mut self, id: i32, ns: &IpcNamespace, creds: &Creds) -> Result<&mut Slot<T>, Errno> {
        let slot = self.get(id)?;
        slot.perm.check_owner(&ns.base.owner, creds)?;
        Ok(slot)
    }

    /// The object that a `*_STAT` call shows, and its identifier.
    pub fn shown(&mut self, which: Which, ns: &IpcNamespace, creds: &Creds) -> Result<(i32, &mut Slot<T>), Errno> {
        let (id, slot) = if which.by_place { self.at(which.number)? } else { (which.number, self.get(which.number)?) };
        if !which.any {
            slot.perm.check(&ns.base.owner, creds, READ)?;
        }
        Ok((id, slot))
    }

    /// Takes an object out.
    pub fn remove(&mut self, id: i32) -> Option<Slot<T>> {
        self.get(id).ok()?;
        self.slots.remove(&Self::place(id)?)
    }

    /// The highest place in use, 0 for none (`IPC_INFO`).
    pub fn highest(&self) -> i64 {
        self.slots.last_key_value().map_or(0, |(place, _)| *place as i64)
    }

    /// All objects, with their identifiers.
    pub fn all(&self) -> impl Iterator<Item = (i32, &Slot<T>)> {
        self.slots.iter().map(|(place, slot)| (id(*place, slot.perm.seq), slot))
    }

    /// Every object, to be changed.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Slot<T>> {
        self.slots.values_mut()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Finds the object of a key, for which `fits` must hold, or makes one; its identifier. `make` gets the identifier.
    pub fn find_or_make(
        &mut self,
        get: Get<'_>,
        fits: impl FnOnce(&T) -> Result<(), Errno>,
        make: impl FnOnce(i32) -> Result<T, Errno>,
    ) -> Result<i32, Errno> {
        let found = self.slots.iter().find(|(_, s)| s.perm.key == get.key).filter(|_| get.key != PRIVATE);
        if let Some((place, slot)) = found {
            if get.flags & CREAT != 0 && get.flags & EXCL != 0 {
                return Err(Errno::EEXIST);
            }
            fits(&slot.item)?;
            slot.perm.check(&get.namespace.base.owner, get.creds, get.flags)?;
            return Ok(id(*place, slot.perm.seq));
        }
        if get.key != PRIVATE && get.flags & CREAT == 0 {
            return Err(Errno::ENOENT);
        }
        if self.slots.len() >= get.most {
            return Err(Errno::ENOSPC);
        }
        let cycle = (self.slots.len() * 3 / 2).max(CYCLE).min(get.most);
        let free = |from: usize, to: usize| (from..to).find(|p| !self.slots.contains_key(p));
        let from = self.last.map_or(0, |last| last + 1).min(cycle);
        let place = free(from, cycle).or_else(|| free(0, get.most)).ok_or(Errno::ENOSPC)?;
        if self.last.is_some_and(|last| place <= last) {
            self.seq = self.seq.wrapping_add(1);
        }
        let c = get.creds;
        let mode = get.flags.cast_unsigned() & 0o777;
        let perm = Perm { key: get.key, uid: c.euid, gid: c.egid, cuid: c.euid, cgid: c.egid, mode, seq: self.seq };
        let new = id(place, self.seq);
        let item = make(new)?;
        self.last = Some(place);
        self.slots.insert(place, Slot { perm, item });
        Ok(new)
    }
}

/// What may be made in an IPC namespace; root may change it.
#[derive(Debug)]
pub struct Limits {
    /// Bytes of a segment (`shmmax`).
    pub segment: Arc<AtomicUsize>,
    /// Pages of all segments (`shmall`).
    pub pages: Arc<AtomicUsize>,
    /// Segments (`shmmni`).
    pub segments: Arc<AtomicUsize>,
    /// Whether only mappings hold segments (`shm_rmid_forced`); [`shm::force`] sets it.
    pub forced: AtomicUsize,
    /// Bytes of a message (`msgmax`).
    pub message: Arc<AtomicUsize>,
    /// Bytes of a queue that was made just now (`msgmnb`).
    pub queue: Arc<AtomicUsize>,
    /// Queues (`msgmni`).
    pub queues: Arc<AtomicUsize>,
    /// `sem`: semaphores of a set, of all sets, operations of a call, sets.
    pub semaphores: Arc<[AtomicUsize; 4]>,
}

impl Default for Limits {
    fn default() -> Self {
        let number = |n: usize| Arc::new(AtomicUsize::new(n));
        let most = usize::try_from(shm::MAX).unwrap_or(usize::MAX);
        let semaphores = [sem::SET_MOST, sem::ALL_MOST, sem::OPS_MOST, sem::MOST].map(AtomicUsize::new);
        Self {
            segment: number(most),
            pages: number(most),
            segments: number(shm::MOST),
            forced: AtomicUsize::new(0),
            message: number(msg::MESSAGE_MAX),
            queue: number(usize::try_from(msg::QUEUE_BYTES).unwrap_or(usize::MAX)),
            queues: number(msg::MOST),
            semaphores: Arc::new(semaphores),
        }
    }
}

impl Limits {
    /// One of `sem`.
    pub fn semaphore(&self, which: usize) -> usize {
        self.semaphores.get(which).map_or(0, |n| n.load(Ordering::Relaxed))
    }
}

/// The most that the limits may be set to: what they are for lies in the Sentry's memory.
pub mod hard {
    /// Objects of a kind (`IPCMNI`).
    pub const OBJECTS: usize = 32768;
    /// Bytes of a message.
    pub const MESSAGE: usize = 1 << 24;
    /// `sem`, as there.
    pub const SEMAPHORES: [usize; 4] = [65536, 4_096_000, 65536, OBJECTS];
}

/// The three tables. None of their locks is held while a task is woken or memory of the container is copied.
#[derive(Debug, Default)]
pub struct SysV {
    /// Shared memory.
    pub shm: Mutex<Ids<shm::Shared>>,
    /// Semaphore sets.
    pub sem: Mutex<Ids<Arc<sem::Set>>>,
    /// Message queues.
    pub msg: Mutex<Ids<Arc<msg::Queue>>>,
    /// What messages hold, of all namespaces together.
    messages: Arc<msg::Held>,
    /// The limits of `/proc/sys/kernel`.
    pub limits: Limits,
    /// Tells the segments of one namespace from another's; 0 for the first.
    serial: u32,
}

impl SysV {
    /// The empty tables of another namespace.
    pub fn another(&self) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        Self { messages: self.messages.clone(), serial: NEXT.fetch_add(1, Ordering::Relaxed), ..Self::default() }
    }

    /// A process ended: its `SEM_UNDO` adjustments are made.
    pub fn exit(&self, pid: i32) {
        let sets: Vec<_> = self.sem.lock().all().map(|(_, slot)| slot.item.clone()).collect();
        for set in sets {
            set.undo(pid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get<'a>(key: i32, flags: i32, creds: &'a Creds, namespace: &'a IpcNamespace) -> Get<'a> {
        Get { key, flags, creds, namespace, most: 100 }
    }

    #[test]
    fn an_identifier_is_not_given_again_soon() {
        let (mut ids, root) = (Ids::default(), Creds::root(0));
        let all = crate::namespaces::Namespaces::first();
        let new =
            |ids: &mut Ids<()>| ids.find_or_make(get(0, 0o600, &root, &all.ipc), |()| Ok(()), |_| Ok(())).unwrap();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let id = new(&mut ids);
            assert!(seen.insert(id), "{id} again");
            ids.remove(id).unwrap();
            assert!(ids.get(id).is_err());
        }
        for _ in 0..100 {
            new(&mut ids);
        }
        assert_eq!(ids.find_or_make(get(0, 0, &root, &all.ipc), |()| Ok(()), |_| Ok(())).err(), Some(Errno::ENOSPC));
    }

    #[test]
    fn keys_and_permissions() {
        let (mut ids, root, user) = (Ids::default(), Creds::root(0), Creds::user(5, 5, vec![], 0));
        let all = crate::namespaces::Namespaces::first();
        let mut ask = |key, flags, creds| ids.find_or_make(get(key, flags, creds, &all.ipc), |()| Ok(()), |_| Ok(()));
        assert_eq!(ask(7, 0o600, &root), Err(Errno::ENOENT));
        let id = ask(7, CREAT | 0o604, &root).unwrap();
        assert_eq!(ask(7, CREAT | EXCL, &root), Err(Errno::EEXIST));
        assert_eq!(ask(7, 0o600, &root), Ok(id));
        assert_eq!(ask(7, 0o444, &user), Ok(id));
        assert_eq!(ask(7, 0o666, &user), Err(Errno::EACCES));
        assert_eq!(ids.get(id).unwrap().perm.check_owner(&all.ipc.base.owner, &user), Err(Errno::EPERM));
    }
}
