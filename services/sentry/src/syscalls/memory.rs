//! Memory calls: `mmap(2)` and its kin.

use std::sync::Arc;

use super::{Entry, Fd, Outcome, SysResult, UserPtr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::memory::shared::SharedMemory;
use crate::memory::space::{MapRequest, valid_prot};
use crate::memory::store::{PAGE, page_up};
use crate::memory::vma::{EXEC, READ, WRITE};
use crate::task::group::rlimit;
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
        name: "",
    };
    let limit = task.group().limit(rlimit::AS).soft;
    let mm = task.mm();
    let (at, orders) = mm.map(task.tid(), request, limit)?;
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

fn mprotect(task: &Arc<Task>, address: UserPtr<u8>, len: u64, prot: i32) -> SysResult {
    if !valid_prot(prot) {
        return Err(Errno::EINVAL);
    }
    let plain = prot & (READ | WRITE | EXEC);
    match task.mm().protect(task.tid(), address.address(), len, plain)? {
        None if plain == prot => Ok(Outcome::Special(Special::PassThrough)),
        None => Err(Errno::EINVAL),
        Some(orders) if orders.is_empty() => done(),
        Some(orders) => Ok(Outcome::Special(Special::Orders { orders, result: 0, undo: None })),
    }
}

fn brk(task: &Arc<Task>, wanted: u64) -> SysResult {
    let limit = task.group().limit(rlimit::DATA).soft;
    let mm = task.mm();
    let before = mm.current_break();
    let (at, orders) = mm.brk(task.tid(), wanted, limit);
    if orders.is_empty() {
        return value(at);
    }
    let undo = move || {
        mm.brk(0, before, u64::MAX);
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
    let (at, orders) = task.mm().remap(task.tid(), address.address(), old_len, new_len, moves, fixed, keep)?;
    Ok(Outcome::Special(Special::Orders { orders, result: at as i64, undo: None }))
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

fn msync(task: &Arc<Task>, address: UserPtr<u8>, len: u64, flags: i32) -> SysResult {
    if flags & !(MS_ASYNC | MS_INVALIDATE | MS_SYNC) != 0 || flags & (MS_ASYNC | MS_SYNC) == MS_ASYNC | MS_SYNC {
        return Err(Errno::EINVAL);
    }
    let mm = task.mm();
    mm.covered(address.address(), len)?;
    for (object, offset, len) in mm.shared_objects(address.address(), len) {
        object.sync(offset, len)?;
    }
    done()
}

fn mlock(task: &Arc<Task>, address: UserPtr<u8>, len: u64) -> SysResult {
    let start = address.address() & !(PAGE - 1);
    let len = len.checked_add(address.address() - start).ok_or(Errno::EINVAL)?;
    task.mm().covered(start, len)?;
    done()
}

fn mlock2(task: &Arc<Task>, address: UserPtr<u8>, len: u64, flags: i32) -> SysResult {
    if flags & !1 != 0 {
        return Err(Errno::EINVAL);
    }
    mlock(task, address, len)
}

fn mlockall(_: &Arc<Task>, flags: i32) -> SysResult {
    if flags == 0 || flags & !7 != 0 || flags == 4 {
        return Err(Errno::EINVAL);
    }
    done()
}

fn munlockall(_: &Arc<Task>) -> SysResult {
    done()
}

fn mincore(task: &Arc<Task>, address: UserPtr<u8>, len: u64, to: UserPtr<u8>) -> SysResult {
    if !address.address().is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    task.mm().covered(address.address(), len)?;
    let pages = page_up(len).ok_or(Errno::ENOMEM)? / PAGE;
    let chunk = [1u8; 4096];
    let mut at = to;
    let mut left = pages;
    while left > 0 {
        let n = usize::try_from(left.min(4096)).unwrap_or(0);
        task.write_exact(at.address(), chunk.get(..n).unwrap_or_default())?;
        at = at.offset(n as u64)?;
        left -= n as u64;
    }
    done()
}

const MEMBARRIER_QUERY: i32 = 0;

fn membarrier(_: &Arc<Task>, command: i32, flags: u32, _cpu: i32) -> SysResult {
    // None of the expedited commands is offered; software falls back on its own barriers.
    if command == MEMBARRIER_QUERY && flags == 0 { done() } else { Err(Errno::EINVAL) }
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
    entry!(
        25,
        "mremap",
        Partial,
        "duplicating a shared mapping (old length 0) is refused",
        mremap(UserPtr<u8>, u64, u64, u64, UserPtr<u8>)
    ),
    entry!(26, "msync", Full, "", msync(UserPtr<u8>, u64, i32)),
    entry!(27, "mincore", Partial, "mapped pages all count as resident", mincore(UserPtr<u8>, u64, UserPtr<u8>)),
    entry!(
        28,
        "madvise",
        Partial,
        "advice without a visible effect is accepted and not carried out",
        madvise(UserPtr<u8>, u64, i32)
    ),
    entry!(149, "mlock", Partial, "checked; the sandbox does not swap by itself", mlock(UserPtr<u8>, u64)),
    entry!(150, "munlock", Partial, "as mlock", mlock(UserPtr<u8>, u64)),
    entry!(151, "mlockall", Partial, "as mlock", mlockall(i32)),
    entry!(152, "munlockall", Partial, "as mlock", munlockall()),
    entry!(324, "membarrier", Partial, "QUERY says that no command is there", membarrier(i32, u32, i32)),
    entry!(325, "mlock2", Partial, "as mlock", mlock2(UserPtr<u8>, u64, i32)),
];
