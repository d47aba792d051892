//! System V shared memory, `shmget(2)`, `shmat(2)`, `shmctl(2)`.
//!
//! A segment is memory of the Sentry's window that is mapped like any shared memory. Its identifier holds it until it is removed; from
//! then on only its mappings do, and the identifier goes with the last of them.

use std::sync::{Arc, Weak};

use super::{Get, Ids, Perm, Raw, Slot, seconds};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::object::{Extent, MemoryObject};
use crate::memory::shared::SharedMemory;
use crate::memory::store::{PAGE, page_up};

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
        (DEVICE, u64::from(self.id.cast_unsigned()))
    }

    fn path(&self) -> Vec<u8> {
        format!("/SYSV{:08x} (deleted)", self.key).into_bytes()
    }
}

/// The segment that a mapped object is of, by its identity.
pub fn segment_of(identity: (u64, u64)) -> Option<i32> {
    if identity.0 == DEVICE { i32::try_from(identity.1).ok() } else { None }
}

#[derive(Debug)]
enum Hold {
    Kept(Arc<Segment>),
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
    last: i32,
}

impl Shared {
    fn segment(&self) -> Option<Arc<Segment>> {
        match &self.hold {
            Hold::Kept(segment) => Some(segment.clone()),
            Hold::Removed(segment) => segment.upgrade(),
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
    let mut ids = kernel.sysv.shm.lock();
    prune(&mut ids);
    let fits = |s: &Shared| if s.size < size { Err(Errno::EINVAL) } else { Ok(()) };
    ids.find_or_make(get, fits, |id| {
        if size == 0 || size > MAX {
            return Err(Errno::EINVAL);
        }
        let memory = SharedMemory::new(&kernel.memory, size)?;
        let segment = Arc::new(Segment { memory, id, key: get.key, size });
        Ok(Shared {
            hold: Hold::Kept(segment),
            size,
            attached: 0,
            detached: 0,
            changed: seconds(),
            creator: pid,
            last: 0,
        })
    })
}

/// The segment to attach, with permission to `want` (EACCES); EINVAL if there is none.
pub fn attach(kernel: &Kernel, creds: &crate::task::Creds, id: i32, want: i32) -> Result<Arc<Segment>, Errno> {
    let mut ids = kernel.sysv.shm.lock();
    let slot = ids.get(id)?;
    let segment = slot.item.segment().ok_or(Errno::EIDRM)?;
    slot.perm.check(creds, want)?;
    Ok(segment)
}

/// Notes that a process attached or detached a segment.
pub fn note(kernel: &Kernel, id: i32, pid: i32, attached: bool) {
    if let Ok(Slot { item, .. }) = kernel.sysv.shm.lock().get(id) {
        item.last = pid;
        *(if attached { &mut item.attached } else { &mut item.detached }) = seconds();
    }
}

/// In how many places each segment is mapped.
fn mapped(kernel: &Kernel) -> std::collections::HashMap<i32, u64> {
    let mut spaces: Vec<_> = kernel.tree.lock().tasks().iter().map(|t| t.mm()).collect();
    spaces.sort_by_key(Arc::as_ptr);
    spaces.dedup_by_key(|s| Arc::as_ptr(s));
    let mut counts = std::collections::HashMap::new();
    for id in spaces.iter().flat_map(|s| s.identities()).filter_map(segment_of) {
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
    creds: &crate::task::Creds,
    which: i32,
    by_place: bool,
    any: bool,
) -> Result<(i32, Raw), Errno> {
    let counts = mapped(kernel);
    let mut ids = kernel.sysv.shm.lock();
    prune(&mut ids);
    let (id, slot) = if by_place { ids.at(which)? } else { (which, ids.get(which)?) };
    if !any {
        slot.perm.check(creds, super::READ)?;
    }
    let s = &slot.item;
    let raw = Raw::of(&shown(&slot.perm, s)).word(s.size).time(s.attached).time(s.detached).time(s.changed);
    let raw = raw.word32(s.creator.cast_unsigned()).word32(s.last.cast_unsigned());
    let attached = counts.get(&id).copied().unwrap_or(0);
    if attached == 0 && matches!(s.hold, Hold::Removed(_)) {
        // Its last process has ended; only the memory is held until the host has nothing left of that.
        return Err(Errno::EINVAL);
    }
    Ok((id, raw.word(attached).word(0).word(0)))
}

/// `IPC_SET`.
pub fn set(kernel: &Kernel, creds: &crate::task::Creds, id: i32, raw: &Raw) -> Result<(), Errno> {
    let mut ids = kernel.sysv.shm.lock();
    let slot = ids.get(id)?;
    slot.perm.check_owner(creds)?;
    slot.perm.set(raw);
    slot.item.changed = seconds();
    Ok(())
}

/// `IPC_RMID`: the memory goes with its last mapping.
pub fn remove(kernel: &Kernel, creds: &crate::task::Creds, id: i32) -> Result<(), Errno> {
    let mut ids = kernel.sysv.shm.lock();
    let slot = ids.get(id)?;
    slot.perm.check_owner(creds)?;
    // No longer found by its key.
    slot.perm.key = super::PRIVATE;
    if let Some(segment) = slot.item.segment() {
        slot.item.hold = Hold::Removed(Arc::downgrade(&segment));
    }
    prune(&mut ids);
    Ok(())
}

/// `SHM_LOCK` and `SHM_UNLOCK`: nothing is ever swapped out, so that only who may is of interest.
pub fn lock(kernel: &Kernel, creds: &crate::task::Creds, id: i32, locked: bool) -> Result<(), Errno> {
    let mut ids = kernel.sysv.shm.lock();
    let slot = ids.get(id)?;
    let owner = creds.euid == slot.perm.uid || creds.euid == slot.perm.cuid;
    if !owner && !creds.capable(crate::task::creds::cap::IPC_LOCK) {
        return Err(Errno::EPERM);
    }
    slot.perm.mode = (slot.perm.mode & !LOCKED) | if locked { LOCKED } else { 0 };
    Ok(())
}

/// How many there are, their pages, and the highest place in use.
pub fn totals(kernel: &Kernel) -> (usize, u64, i64) {
    let mut ids = kernel.sysv.shm.lock();
    prune(&mut ids);
    let pages = ids.all().filter_map(|(_, s)| page_up(s.item.size)).map(|bytes| bytes / PAGE).sum();
    (ids.len(), pages, ids.highest())
}

/// `/proc/sysvipc/shm`.
pub fn table(kernel: &Kernel) -> String {
    use std::fmt::Write;
    let counts = mapped(kernel);
    let mut ids = kernel.sysv.shm.lock();
    prune(&mut ids);
    let mut out = String::from(
        "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      \
         dtime      ctime                   rss                  swap\n",
    );
    for (id, slot) in ids.all() {
        let (p, s) = (shown(&slot.perm, &slot.item), &slot.item);
        let count = counts.get(&id).copied().unwrap_or(0);
        writeln!(
            out,
            "{:>10} {id:>10}  {:>4o} {:>21} {:>5} {:>5}  {count:>5} {:>5} {:>5} {:>5} {:>5} {:>10} {:>10} {:>10} {:>21} {:>21}",
            p.key, p.mode, s.size, s.creator, s.last, p.uid, p.gid, p.cuid, p.cgid, s.attached, s.detached, s.changed, 0, 0
        )
        .ok();
    }
    out
}
