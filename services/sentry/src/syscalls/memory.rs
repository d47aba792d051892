//! Memory calls: `mmap(2)` and its kin.

use std::sync::Arc;

use cofferdam_platform::{Order, Page};

use super::read_write::RawVec;
use super::{Entry, Fd, Outcome, SysResult, UserPtr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::memory::shared::SharedMemory;
use crate::memory::space::{Bounds, MapRequest, valid_prot};
use crate::memory::store::{PAGE, page_down, page_up};
use crate::memory::vma::{Backing, EXEC, READ, WRITE};
use crate::task::creds::cap;
use crate::task::{Special, Task};

const MAP_SHARED: i32 = 1;
const MAP_PRIVATE: i32 = 2;
const MAP_SHARED_VALIDATE: i32 = 3;
const MAP_DROPPABLE: i32 = 8;
const MAP_TYPE: i32 = 0xf;
const MAP_FIXED: i32 = 0x10;
const MAP_ANONYMOUS: i32 = 0x20;
const MAP_32BIT: i32 = 0x40;
const MAP_GROWSDOWN: i32 = 0x100;
const MAP_LOCKED: i32 = 0x2000;
const MAP_POPULATE: i32 = 0x8000;
const MAP_NONBLOCK: i32 = 0x1_0000;
const MAP_HUGETLB: i32 = 0x4_0000;
const MAP_SYNC: i32 = 0x8_0000;
const MAP_FIXED_NOREPLACE: i32 = 0x10_0000;

fn mmap(task: &Arc<Task>, address: UserPtr<u8>, len: u64, prot: i32, flags: i32, fd: Fd, offset: u64) -> SysResult {
    if len == 0 || !offset.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    let prot = prot & (READ | WRITE | EXEC);
    if flags & MAP_HUGETLB != 0 {
        // As a kernel with no huge pages reserved.
        return Err(Errno::ENOMEM);
    }
    let shared = match flags & MAP_TYPE {
        MAP_PRIVATE => false,
        MAP_SHARED | MAP_SHARED_VALIDATE => true,
        MAP_DROPPABLE if flags & MAP_ANONYMOUS != 0 => false,
        _ => return Err(Errno::EINVAL),
    };
    if flags & MAP_TYPE == MAP_SHARED_VALIDATE && flags & MAP_SYNC != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let fixed = flags & MAP_FIXED != 0;
    let no_replace = flags & MAP_FIXED_NOREPLACE != 0;
    if !fixed && !no_replace && page_up(len).is_none() {
        return Err(Errno::ENOMEM);
    }
    let mut max_prot = READ | WRITE | EXEC;
    let object = if flags & MAP_ANONYMOUS == 0 {
        let file = task.file(fd)?;
        if !file.readable() {
            return Err(Errno::EACCES);
        }
        if shared && !file.writable() {
            if prot & WRITE != 0 {
                return Err(Errno::EACCES);
            }
            max_prot &= !WRITE;
        }
        if shared && prot & WRITE == 0 && crate::filesystems::tree::seals(file.inode()).is_some_and(|s| s.no_writing())
        {
            max_prot &= !WRITE;
        }
        if file.no_exec() {
            if prot & EXEC != 0 {
                return Err(Errno::EPERM);
            }
            max_prot &= !EXEC;
        }
        Some((file.memory_object(shared && prot & WRITE != 0, shared)?, offset))
    } else if shared {
        Some((SharedMemory::new(&task.kernel().memory, len)? as crate::memory::object::Object, 0))
    } else {
        None
    };
    let request = MapRequest {
        address: address.address(),
        len,
        prot,
        max_prot,
        shared,
        fixed: fixed && !no_replace,
        no_replace,
        grows_down: flags & MAP_GROWSDOWN != 0 && object.is_none(),
        populate: flags & (MAP_POPULATE | MAP_LOCKED) != 0 && flags & MAP_NONBLOCK == 0,
        low: flags & MAP_32BIT != 0 && !fixed,
        object,
        locked: flags & MAP_LOCKED != 0,
        name: "",
    };
    let bounds = task.bounds();
    if flags & MAP_LOCKED != 0 && bounds.locked == 0 {
        return Err(Errno::EPERM);
    }
    let mm = task.mm();
    let (at, orders) = mm.map(task.tid(), request, &bounds)?;
    let undo = move || mm.forget(at, len);
    Ok(Outcome::Special(Special::Orders { orders, result: at as i64, undo: Some(Box::new(undo)) }))
}

fn munmap(task: &Arc<Task>, address: UserPtr<u8>, len: u64) -> SysResult {
    let mm = task.mm();
    for (object, offset, len) in mm.shared_objects(address.address(), len) {
        object.sync(offset, len)?;
    }
    mm.unmap(task.tid(), address.address(), len)?;
    Ok(Outcome::Special(Special::PassThrough))
}

pub(super) fn mprotect(task: &Arc<Task>, address: UserPtr<u8>, len: u64, prot: i32) -> SysResult {
    if !valid_prot(prot) {
        return Err(Errno::EINVAL);
    }
    let plain = prot & (READ | WRITE | EXEC);
    match task.mm().protect(task.tid(), address.address(), len, plain, &task.bounds())? {
        None if plain == prot => Ok(Outcome::Special(Special::PassThrough)),
        None => Err(Errno::EINVAL),
        Some(orders) if orders.is_empty() => done(),
        Some(orders) => ordered(orders),
    }
}

fn brk(task: &Arc<Task>, wanted: u64) -> SysResult {
    let mm = task.mm();
    let before = mm.current_break();
    let (at, orders) = mm.brk(task.tid(), wanted, &task.bounds());
    if orders.is_empty() {
        return value(at);
    }
    let undo = move || {
        mm.brk(0, before, &Bounds::NONE);
    };
    Ok(Outcome::Special(Special::Orders { orders, result: at as i64, undo: Some(Box::new(undo)) }))
}

const MREMAP_MAYMOVE: u64 = 1;
const MREMAP_FIXED: u64 = 2;
const MREMAP_DONTUNMAP: u64 = 4;

fn mremap(
    task: &Arc<Task>,
    address: UserPtr<u8>,
    old_len: u64,
    new_len: u64,
    flags: u64,
    new_address: UserPtr<u8>,
) -> SysResult {
    let moves = flags & MREMAP_MAYMOVE != 0;
    if flags & !(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP) != 0
        || (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP) != 0 && !moves)
    {
        return Err(Errno::EINVAL);
    }
    let fixed = (flags & MREMAP_FIXED != 0).then_some(new_address.address());
    let keep = flags & MREMAP_DONTUNMAP != 0;
    let bounds = task.bounds();
    let mm = task.mm();
    let mut done = mm.remap(task.tid(), address.address(), old_len, new_len, moves, fixed, keep, &bounds)?;
    let (at, orders) = (done.address, std::mem::take(&mut done.orders));
    let undo = move || mm.unmoved(done);
    Ok(Outcome::Special(Special::Orders { orders, result: at as i64, undo: Some(Box::new(undo)) }))
}

/// Shows another part of a shared mapping's object there: as Linux does it today, by mapping it anew.
fn remap_file_pages(task: &Arc<Task>, start: u64, size: u64, prot: i32, page: u64, flags: i32) -> SysResult {
    let (start, len) = (page_down(start), page_down(size));
    let end = start.checked_add(len).filter(|end| *end > start).ok_or(Errno::EINVAL)?;
    let offset = page.checked_mul(PAGE).filter(|o| o.checked_add(len).is_some()).ok_or(Errno::EINVAL)?;
    if prot != 0 {
        return Err(Errno::EINVAL);
    }
    let mm = task.mm();
    let areas = mm.areas();
    let area = areas.iter().find(|v| v.start <= start && end <= v.end && v.shared).ok_or(Errno::EINVAL)?;
    let Backing::Object { object, .. } = &area.backing else { return Err(Errno::EINVAL) };
    let request = MapRequest {
        address: start,
        len,
        prot: area.prot,
        max_prot: area.max_prot,
        shared: true,
        fixed: true,
        populate: flags & MAP_NONBLOCK == 0,
        object: Some((object.clone(), offset)),
        ..MapRequest::default()
    };
    let (_, orders) = mm.map(task.tid(), request, &Bounds::NONE)?;
    ordered(orders)
}

fn madvise(task: &Arc<Task>, address: UserPtr<u8>, len: u64, advice: i32) -> SysResult {
    if task.mm().advise(task.tid(), address.address(), len, advice)? {
        Ok(Outcome::Special(Special::PassThrough))
    } else {
        done()
    }
}

const MS_ASYNC: i32 = 1;
const MS_INVALIDATE: i32 = 2;
const MS_SYNC: i32 = 4;

fn mseal(task: &Arc<Task>, address: UserPtr<u8>, len: u64, flags: u64) -> SysResult {
    if flags != 0 || !address.address().is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return done();
    }
    task.mm().seal(address.address(), len)?;
    done()
}

fn msync(task: &Arc<Task>, address: UserPtr<u8>, len: u64, flags: i32) -> SysResult {
    if flags & !(MS_ASYNC | MS_INVALIDATE | MS_SYNC) != 0 || flags & (MS_ASYNC | MS_SYNC) == MS_ASYNC | MS_SYNC {
        return Err(Errno::EINVAL);
    }
    let mm = task.mm();
    mm.covered(address.address(), len)?;
    if flags & MS_INVALIDATE != 0 && mm.any_locked(address.address(), len) {
        return Err(Errno::EBUSY);
    }
    for (object, offset, len) in mm.shared_objects(address.address(), len) {
        object.sync(offset, len)?;
    }
    done()
}

const MLOCK_ONFAULT: i32 = 1;
const MCL_CURRENT: i32 = 1;
const MCL_FUTURE: i32 = 2;
const MCL_ONFAULT: i32 = 4;

/// Orders as a call's outcome.
fn ordered(orders: Vec<Order>) -> SysResult {
    Ok(Outcome::Special(Special::Orders { orders, result: 0, undo: None }))
}

/// What may be locked; EPERM for who may lock nothing.
fn lock_bounds(task: &Arc<Task>) -> Result<Bounds, Errno> {
    let bounds = task.bounds();
    if bounds.locked == 0 { Err(Errno::EPERM) } else { Ok(bounds) }
}

fn mlock(task: &Arc<Task>, address: UserPtr<u8>, len: u64) -> SysResult {
    mlock2(task, address, len, 0)
}

fn mlock2(task: &Arc<Task>, address: UserPtr<u8>, len: u64, flags: i32) -> SysResult {
    if flags & !MLOCK_ONFAULT != 0 {
        return Err(Errno::EINVAL);
    }
    let bounds = lock_bounds(task)?;
    ordered(task.mm().lock(task.tid(), address.address(), len, flags & MLOCK_ONFAULT != 0, &bounds)?)
}

fn munlock(task: &Arc<Task>, address: UserPtr<u8>, len: u64) -> SysResult {
    task.mm().unlock(task.tid(), address.address(), len)?;
    done()
}

fn mlockall(task: &Arc<Task>, flags: i32) -> SysResult {
    if flags == 0 || flags & !(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0 || flags == MCL_ONFAULT {
        return Err(Errno::EINVAL);
    }
    let bounds = lock_bounds(task)?;
    let now = (flags & MCL_CURRENT != 0).then_some(true);
    ordered(task.mm().lock_all(now, flags & MCL_FUTURE != 0, flags & MCL_ONFAULT != 0, &bounds)?)
}

fn munlockall(task: &Arc<Task>) -> SysResult {
    task.mm().lock_all(Some(false), false, false, &Bounds::NONE)?;
    done()
}

fn mincore(task: &Arc<Task>, address: UserPtr<u8>, len: u64, to: UserPtr<u8>) -> SysResult {
    if !address.address().is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    task.mm().covered(address.address(), len)?;
    let pages = page_up(len).ok_or(Errno::ENOMEM)? / PAGE;
    let host = task.host().ok_or(Errno::ENOMEM)?;
    let mut at = 0;
    while at < pages {
        let n = (pages - at).min(4096);
        let mut there = Vec::with_capacity(n as usize);
        let ask = (at..at + n).map(|p| address.address() + p * PAGE);
        let told = cofferdam_platform::resident(host.tid(), ask, |page| there.push(u8::from(page != Page::Absent)));
        // A host that does not say leaves what is mapped as what is there.
        there.resize(n as usize, u8::from(!told));
        for (p, byte) in (at..).zip(&mut there) {
            // Pages of files and of shared memory are in memory without being mapped.
            *byte |= u8::from(task.mm().object_at(address.address() + p * PAGE, false).is_some());
        }
        task.write_exact(to.offset(at)?.address(), &there)?;
        at += n;
    }
    done()
}

/// Commands of `membarrier(2)` that concern the caller's own process, or order all of the host's processors: GLOBAL,
/// PRIVATE_EXPEDITED and its registration, the same with SYNC_CORE.
const MEMBARRIER_COMMANDS: i32 = 1 | 8 | 16 | 32 | 64;

fn membarrier(_: &Arc<Task>, command: i32, flags: u32, _cpu: i32) -> SysResult {
    match command {
        _ if flags != 0 => Err(Errno::EINVAL),
        0 => value(MEMBARRIER_COMMANDS),
        // The host interrupts the processors on which the caller's threads run; what it notes of a process is inherited and
        // forgotten as the container's kernel would.
        _ if command.count_ones() == 1 && command & MEMBARRIER_COMMANDS != 0 => {
            ordered(vec![Order::Barrier { command }])
        }
        _ => Err(Errno::EINVAL),
    }
}

fn process_madvise(
    task: &Arc<Task>,
    fd: Fd,
    ranges: UserPtr<RawVec>,
    count: usize,
    advice: i32,
    flags: u32,
) -> SysResult {
    const WILLNEED: i32 = 3;
    const COLD: i32 = 20;
    const PAGEOUT: i32 = 21;
    const COLLAPSE: i32 = 25;
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let ranges = ranges.read_array(task, count, 1024)?;
    let group = super::pidfd::process(task, fd)?.0.ok_or(Errno::ESRCH)?;
    if !matches!(advice, WILLNEED | COLD | PAGEOUT | COLLAPSE) {
        return Err(Errno::EINVAL);
    }
    let other = group.pid != task.pid();
    if other && !task.creds().capable(cap::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let mm = group.leader().ok_or(Errno::ESRCH)?.mm();
    let mut advised = 0u64;
    for r in ranges {
        if let Err(e) = mm.advise(task.tid(), r.base, r.len, WILLNEED) {
            return if advised > 0 { value(advised) } else { Err(e) };
        }
        advised = advised.saturating_add(r.len);
    }
    value(advised)
}

/// The memory calls.
pub const TABLE: &[Entry] = &[
    entry!(
        9,
        "mmap",
        Partial,
        "no MAP_HUGETLB (ENOMEM, as with none reserved)",
        mmap(UserPtr<u8>, u64, i32, i32, Fd, u64)
    ),
    entry!(10, "mprotect", Full, "", mprotect(UserPtr<u8>, u64, i32)),
    entry!(11, "munmap", Full, "", munmap(UserPtr<u8>, u64)),
    entry!(12, "brk", Full, "", brk(u64)),
    entry!(25, "mremap", Full, "", mremap(UserPtr<u8>, u64, u64, u64, UserPtr<u8>)),
    entry!(216, "remap_file_pages", Full, "", remap_file_pages(u64, u64, i32, u64, i32)),
    entry!(462, "mseal", Full, "", mseal(UserPtr<u8>, u64, u64)),
    entry!(26, "msync", Full, "", msync(UserPtr<u8>, u64, i32)),
    entry!(
        27,
        "mincore",
        Partial,
        "pages of files and shared memory all count as resident",
        mincore(UserPtr<u8>, u64, UserPtr<u8>)
    ),
    entry!(
        28,
        "madvise",
        Partial,
        "advice without a visible effect is accepted and not carried out",
        madvise(UserPtr<u8>, u64, i32)
    ),
    entry!(149, "mlock", Partial, "counted and limited; that pages stay is the host's affair", mlock(UserPtr<u8>, u64)),
    entry!(150, "munlock", Full, "", munlock(UserPtr<u8>, u64)),
    entry!(151, "mlockall", Partial, "as mlock", mlockall(i32)),
    entry!(152, "munlockall", Full, "", munlockall()),
    entry!(324, "membarrier", Partial, "no GLOBAL_EXPEDITED, no RSEQ (EINVAL)", membarrier(i32, u32, i32)),
    entry!(
        440,
        "process_madvise",
        Partial,
        "checked; the advice it takes has no visible effect",
        process_madvise(Fd, UserPtr<RawVec>, usize, i32, u32)
    ),
    entry!(325, "mlock2", Partial, "as mlock", mlock2(UserPtr<u8>, u64, i32)),
];
