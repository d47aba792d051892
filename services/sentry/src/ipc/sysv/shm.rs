//! System V shared memory, `shmget(2)`, `shmat(2)`, `shmctl(2)`.
//!
//! A segment is memory of the Sentry's window that is mapped like any shared memory. Its identifier holds it until it is removed; from
//! then on only its mappings do, and the identifier goes with the last of them. With `shm_rmid_forced` mappings alone hold a segment as
//! soon as it has one, or its creator has ended.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::{Get, Ids, Perm, Raw, Slot, Which, seconds};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::object::{Extent, MemoryObject};
use crate::memory::shared::SharedMemory;
use crate::memory::store::{PAGE, page_up};
use crate::namespaces::{IpcNamespace, PidNamespace};
use crate::task::Creds;
use crate::task::creds::cap;

/// Most segments (`shmmni`).
pub const MOST: usize = 4096;
/// Most bytes of one, and most pages of all (`shmmax`, `shmall`): as good as no limit, as on Linux.
pub const MAX: u64 = u64::MAX - (1 << 24);
/// Device of the segments, as their mappings show it.
const DEVICE: u64 = 1;
/// `SHM_DEST`: to be removed with the last mapping.
const DEST: u32 = 0o1000;
/// `SHM_LOCKED`.
const LOCKED: u32 = 0o2000;

/// The memory of a segment.
pub struct Segment {
    memory: Arc<SharedMemory>,
    serial: u32,
    id: i32,
    key: i32,
    size: u64,
}

impl MemoryObject for Segment {
    fn populate(&self, offset: u64, len: u64, write: bool) -> Result<Vec<Extent>, Errno> {
        self.memory.populate(offset, len, write)
    }

    fn size(&self) -> u64 {
        self.memory.size()
    }

    fn identity(&self) -> (u64, u64) {
        (DEVICE, u64::from(self.serial) << 32 | u64::from(self.id.cast_unsigned()))
    }

    fn path(&self) -> Vec<u8> {
        format!("/SYSV{:08x} (deleted)", self.key).into_bytes()
    }
}

/// Whether a mapped object of this identity is a segment.
pub fn is_segment(identity: (u64, u64)) -> bool {
    identity.0 == DEVICE
}

/// The identifier in this namespace of the segment that a mapped object is of.
pub fn segment_of(ns: &IpcNamespace, identity: (u64, u64)) -> Option<i32> {
    let own = identity.0 == DEVICE && identity.1 >> 32 == u64::from(ns.sysv.serial);
    own.then(|| i32::try_from(identity.1 & u64::from(u32::MAX)).ok()).flatten()
}

#[derive(Debug)]
enum Hold {
    Kept(Arc<Segment>),
    /// `shm_rmid_forced`: found as ever, as long as it is mapped.
    Mapped(Weak<Segment>),
    Removed(Weak<Segment>),
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment").field("id", &self.id).field("size", &self.size).finish_non_exhaustive()
    }
}

/// What the table has of a segment.
#[derive(Debug)]
pub struct Shared {
    hold: Hold,
    size: u64,
    attached: i64,
    detached: i64,
    changed: i64,
    creator: i32,
    /// Whether the creator has ended (another process may have its number by now).
    orphan: bool,
    last: i32,
}

impl Shared {
    /// From now on its mappings alone hold it.
    fn loosen(&mut self) {
        if let Hold::Kept(segment) = &self.hold {
            self.hold = Hold::Mapped(Arc::downgrade(segment));
        }
    }

    fn segment(&self) -> Option<Arc<Segment>> {
        match &self.hold {
            Hold::Kept(segment) => Some(segment.clone()),
            Hold::Mapped(segment) | Hold::Removed(segment) => segment.upgrade(),
        }
    }
}

/// Forgets removed segments that nobody has mapped any more.
fn prune(ids: &mut Ids<Shared>) {
    let gone: Vec<i32> = ids.all().filter(|(_, s)| s.item.segment().is_none()).map(|(id, _)| id).collect();
    for id in gone {
        ids.remove(id);
    }
}

/// `shmget(2)`.
pub fn get(kernel: &Kernel, pid: i32, get: Get<'_>, size: u64) -> Result<i32, Errno> {
    let ns = get.namespace;
    let mut ids = ns.sysv.shm.lock();
    prune(&mut ids);
    let limits = &ns.sysv.limits;
    let used: u64 = ids.all().map(|(_, s)| s.item.size.div_ceil(PAGE)).sum();
    let full = used.saturating_add(size.div_ceil(PAGE)) > limits.pages.load(Ordering::Relaxed) as u64;
    let most = limits.segment.load(Ordering::Relaxed) as u64;
    let fits = |s: &Shared| if s.size < size { Err(Errno::EINVAL) } else { Ok(()) };
    ids.find_or_make(get, fits, |id| {
        if size == 0 || size > most.min(MAX) {
            return Err(Errno::EINVAL);
        }
        if full {
            return Err(Errno::ENOSPC);
        }
        let memory = SharedMemory::new(&kernel.memory, size)?;
        let segment = Arc::new(Segment { memory, serial: ns.sysv.serial, id, key: get.key, size });
        Ok(Shared {
            hold: Hold::Kept(segment),
            size,
            attached: 0,
            detached: 0,
            changed: seconds(),
            creator: pid,
            orphan: false,
            last: 0,
        })
    })
}

/// The segment to attach, with permission to `want` (EACCES); EINVAL if there is none.
pub fn attach(ns: &IpcNamespace, creds: &Creds, id: i32, want: i32) -> Result<Arc<Segment>, Errno> {
    let mut ids = ns.sysv.shm.lock();
    let slot = ids.get(id)?;
    let segment = slot.item.segment().ok_or(Errno::EIDRM)?;
    slot.perm.check(&ns.base.owner, creds, want)?;
    if ns.sysv.limits.forced.load(Ordering::Relaxed) != 0 {
        slot.item.loosen();
    }
    Ok(segment)
}

/// A process ended, or left this namespace: it is nobody's creator any more.
pub fn exit(ns: &IpcNamespace, pid: i32) {
    let mut ids = ns.sysv.shm.lock();
    let forced = ns.sysv.limits.forced.load(Ordering::Relaxed) != 0;
    for slot in ids.all_mut().filter(|s| s.item.creator == pid) {
        slot.item.orphan = true;
        if forced {
            slot.item.loosen();
        }
    }
    prune(&mut ids);
}

/// `shm_rmid_forced` was set: what nobody has mapped and whose creator has ended goes, what is mapped goes with its last mapping. Or no
/// longer: what is still there stays.
pub fn force(ns: &IpcNamespace, forced: bool) {
    let mut ids = ns.sysv.shm.lock();
    ns.sysv.limits.forced.store(usize::from(forced), Ordering::Relaxed);
    for Slot { item, .. } in ids.all_mut() {
        match &item.hold {
            Hold::Kept(segment) if forced && (item.orphan || Arc::strong_count(segment) > 1) => item.loosen(),
            Hold::Mapped(segment) if !forced => {
                if let Some(segment) = segment.upgrade() {
                    item.hold = Hold::Kept(segment);
                }
            }
            _ => {}
        }
    }
    prune(&mut ids);
}

/// Notes that a process attached or detached a segment.
pub fn note(ns: &IpcNamespace, id: i32, pid: i32, attached: bool) {
    if let Ok(Slot { item, .. }) = ns.sysv.shm.lock().get(id) {
        item.last = pid;
        *(if attached { &mut item.attached } else { &mut item.detached }) = seconds();
    }
}

/// In how many places each segment is mapped.
fn mapped(kernel: &Kernel, ns: &IpcNamespace) -> std::collections::HashMap<i32, u64> {
    let mut spaces: Vec<_> = kernel.tree.lock().tasks().iter().map(|t| t.mm()).collect();
    spaces.sort_by_key(Arc::as_ptr);
    spaces.dedup_by_key(|s| Arc::as_ptr(s));
    let mut counts = std::collections::HashMap::new();
    for id in spaces.iter().flat_map(|s| s.identities()).filter_map(|i| segment_of(ns, i)) {
        *counts.entry(id).or_insert(0) += 1;
    }
    counts
}

fn shown(perm: &Perm, s: &Shared) -> Perm {
    let removed = matches!(s.hold, Hold::Removed(_));
    Perm { mode: perm.mode | if removed { DEST } else { 0 }, ..*perm }
}

/// `struct shmid64_ds` of an identifier, or of a place in the table (`by_place`); the identifier. `any`: whoever asks.
pub fn stat(
    kernel: &Kernel,
    (ns, pids): (&IpcNamespace, &PidNamespace),
    creds: &Creds,
    which: Which,
) -> Result<(i32, Raw), Errno> {
    let counts = mapped(kernel, ns);
    let mut ids = ns.sysv.shm.lock();
    prune(&mut ids);
    let (id, slot) = ids.shown(which, ns, creds)?;
    let s = &slot.item;
    let raw = Raw::of(&shown(&slot.perm, s), creds).word(s.size).time(s.attached).time(s.detached).time(s.changed);
    let raw = raw.word32(pids.shown(s.creator).cast_unsigned()).word32(pids.shown(s.last).cast_unsigned());
    let attached = counts.get(&id).copied().unwrap_or(0);
    if attached == 0 && !matches!(s.hold, Hold::Kept(_)) {
        // Its last process has ended; only the memory is held until the host has nothing left of that.
        return Err(Errno::EINVAL);
    }
    Ok((id, raw.word(attached).word(0).word(0)))
}

/// `IPC_SET`.
pub fn set(ns: &IpcNamespace, creds: &Creds, id: i32, raw: &Raw) -> Result<(), Errno> {
    let mut ids = ns.sysv.shm.lock();
    let slot = ids.owned(id, ns, creds)?;
    slot.perm.set(creds, raw)?;
    slot.item.changed = seconds();
    Ok(())
}

/// `IPC_RMID`: the memory goes with its last mapping.
pub fn remove(ns: &IpcNamespace, creds: &Creds, id: i32) -> Result<(), Errno> {
    let mut ids = ns.sysv.shm.lock();
    let slot = ids.owned(id, ns, creds)?;
    // No longer found by its key.
    slot.perm.key = super::PRIVATE;
    if let Some(segment) = slot.item.segment() {
        slot.item.hold = Hold::Removed(Arc::downgrade(&segment));
    }
    prune(&mut ids);
    Ok(())
}

/// `SHM_LOCK` and `SHM_UNLOCK`: nothing is ever swapped out, so that only who may is of interest.
pub fn lock(ns: &IpcNamespace, creds: &Creds, id: i32, locked: bool) -> Result<(), Errno> {
    let mut ids = ns.sysv.shm.lock();
    let slot = ids.get(id)?;
    let owner = creds.euid == slot.perm.uid || creds.euid == slot.perm.cuid;
    if !owner && !creds.capable_in(&ns.base.owner, cap::IPC_LOCK) {
        return Err(Errno::EPERM);
    }
    slot.perm.mode = (slot.perm.mode & !LOCKED) | if locked { LOCKED } else { 0 };
    Ok(())
}

/// How many there are, their pages, and the highest place in use.
pub fn totals(ns: &IpcNamespace) -> (usize, u64, i64) {
    let mut ids = ns.sysv.shm.lock();
    prune(&mut ids);
    let pages = ids.all().filter_map(|(_, s)| page_up(s.item.size)).map(|bytes| bytes / PAGE).sum();
    (ids.len(), pages, ids.highest())
}

/// `/proc/sysvipc/shm`.
pub fn table(kernel: &Kernel, (ns, pids): (&IpcNamespace, &PidNamespace), creds: &Creds) -> String {
    use std::fmt::Write;
    let counts = mapped(kernel, ns);
    let mut ids = ns.sysv.shm.lock();
    prune(&mut ids);
    let mut out = String::from(
        "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      \
         dtime      ctime                   rss                  swap\n",
    );
    for (id, slot) in ids.all() {
        let (p, s) = (shown(&slot.perm, &slot.item), &slot.item);
        let count = counts.get(&id).copied().unwrap_or(0);
        let [uid, gid, cuid, cgid] = p.shown(creds);
        writeln!(
            out,
            "{:>10} {id:>10}  {:>4o} {:>21} {:>5} {:>5}  {count:>5} {:>5} {:>5} {:>5} {:>5} {:>10} {:>10} {:>10} {:>21} {:>21}",
            p.key, p.mode, s.size, pids.shown(s.creator), pids.shown(s.last), uid, gid, cuid, cgid, s.attached, s.detached, s.changed, 0, 0
        )
        .ok();
    }
    out
}
