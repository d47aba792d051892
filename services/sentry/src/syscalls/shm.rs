//! System V shared memory calls: `shmget(2)`, `shmat(2)`, `shmdt(2)`, `shmctl(2)`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cofferdam_platform::Order;

use super::{Entry, Outcome, SysResult, UserPtr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::ipc::sysv::shm;
use crate::ipc::sysv::{Get, Raw, Which};
use crate::memory::space::MapRequest;
use crate::memory::store::{PAGE, page_down};
use crate::memory::vma::{EXEC, READ, WRITE};
use crate::task::{Special, Task};

/// The calls.
pub const TABLE: &[Entry] = &[
    entry!(29, "shmget", Partial, "no SHM_HUGETLB (ENOMEM, as with none reserved)", shmget(i32, u64, i32)),
    entry!(30, "shmat", Full, "", shmat(i32, UserPtr<u8>, i32)),
    entry!(31, "shmctl", Partial, "only shmdt sets shm_dtime and shm_lpid", shmctl(i32, i32, UserPtr<u8>)),
    entry!(67, "shmdt", Full, "", shmdt(UserPtr<u8>)),
];

const SHM_HUGETLB: i32 = 0o4000;
const SHM_RDONLY: i32 = 0o10000;
const SHM_RND: i32 = 0o20000;
const SHM_REMAP: i32 = 0o40000;
const SHM_EXEC: i32 = 0o100_000;

/// Commands of `shmctl`, `semctl` and `msgctl` alike.
pub(super) const IPC_RMID: i32 = 0;
pub(super) const IPC_SET: i32 = 1;
pub(super) const IPC_STAT: i32 = 2;
pub(super) const IPC_INFO: i32 = 3;
const SHM_LOCK: i32 = 11;
const SHM_UNLOCK: i32 = 12;
const SHM_STAT: i32 = 13;
const SHM_INFO: i32 = 14;
const SHM_STAT_ANY: i32 = 15;

/// Copies a structure of `len` bytes in.
pub(super) fn raw_in(task: &Arc<Task>, from: UserPtr<u8>, len: usize) -> Result<Raw, Errno> {
    Ok(Raw(from.read_array(task, len, len)?))
}

fn shmget(task: &Arc<Task>, key: i32, size: u64, flags: i32) -> SysResult {
    if flags & SHM_HUGETLB != 0 {
        return Err(Errno::ENOMEM);
    }
    let ipc = task.ipc();
    let most = ipc.sysv.limits.segments.load(Ordering::Relaxed);
    let get = Get { key, flags, creds: &task.creds(), namespace: &ipc, most };
    value(shm::get(task.kernel(), task.pid(), get, size)?)
}

fn shmat(task: &Arc<Task>, id: i32, wanted: UserPtr<u8>, flags: i32) -> SysResult {
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    let mut address = wanted.address();
    if !address.is_multiple_of(PAGE) {
        if flags & SHM_RND == 0 {
            return Err(Errno::EINVAL);
        }
        address = page_down(address);
        if address == 0 && flags & SHM_REMAP != 0 {
            return Err(Errno::EINVAL);
        }
    }
    if wanted.is_null() && flags & SHM_REMAP != 0 {
        return Err(Errno::EINVAL);
    }
    let (mut prot, mut want) = if flags & SHM_RDONLY != 0 { (READ, 0o444) } else { (READ | WRITE, 0o666) };
    if flags & SHM_EXEC != 0 {
        prot |= EXEC;
        want |= 0o111;
    }
    let segment = shm::attach(&task.ipc(), &task.creds(), id, want)?;
    let fixed = address != 0;
    let remap = flags & SHM_REMAP != 0;
    let len = crate::memory::object::MemoryObject::size(&*segment);
    let request = MapRequest {
        address,
        len,
        prot,
        max_prot: if flags & SHM_RDONLY != 0 { READ | EXEC } else { READ | WRITE | EXEC },
        shared: true,
        fixed: fixed && remap,
        no_replace: fixed && !remap,
        object: Some((segment, 0)),
        ..MapRequest::default()
    };
    let mm = task.mm();
    let (at, orders) =
        mm.map(task.tid(), request, &task.bounds()).map_err(|e| if e == Errno::EEXIST { Errno::EINVAL } else { e })?;
    shm::note(&task.ipc(), id, task.pid(), true);
    let undo = move || mm.forget(at, len);
    Ok(Outcome::Special(Special::Orders { orders, result: at as i64, undo: Some(Box::new(undo)) }))
}

fn shmdt(task: &Arc<Task>, address: UserPtr<u8>) -> SysResult {
    let mm = task.mm();
    let at = address.address();
    let found = mm.mapped_at(at, shm::is_segment);
    let Some((identity, parts)) = found.filter(|_| at.is_multiple_of(PAGE)) else { return Err(Errno::EINVAL) };
    for (start, len) in &parts {
        mm.unmap(task.tid(), *start, *len)?;
    }
    if let Some(id) = shm::segment_of(&task.ipc(), identity) {
        shm::note(&task.ipc(), id, task.pid(), false);
    }
    let orders = parts.iter().map(|(address, len)| Order::Unmap { address: *address, len: *len }).collect();
    Ok(Outcome::Special(Special::Orders { orders, result: 0, undo: None }))
}

fn shmctl(task: &Arc<Task>, id: i32, command: i32, at: UserPtr<u8>) -> SysResult {
    if id < 0 || command < 0 {
        return Err(Errno::EINVAL);
    }
    let (ipc, creds) = (task.ipc(), task.creds());
    let ns = &*ipc;
    match command {
        IPC_INFO => {
            let limits = &ns.sysv.limits;
            let number = |of: &AtomicUsize| of.load(Ordering::Relaxed) as u64;
            let (most, segments) = (number(&limits.segment), number(&limits.segments));
            let info = Raw::default().word(most).word(1).word(segments).word(segments).word(number(&limits.pages));
            at.write_array(task, &info.word(0).word(0).word(0).word(0).0)?;
            value(shm::totals(ns).2)
        }
        SHM_INFO => {
            let (used, pages, highest) = shm::totals(ns);
            // Present and swapped: all of them, and none.
            let info = Raw::default().word(used as u64).word(pages).word(pages).word(0).word(0).word(0);
            at.write_array(task, &info.0)?;
            value(highest)
        }
        IPC_STAT | SHM_STAT | SHM_STAT_ANY => {
            let which = Which { number: id, by_place: command != IPC_STAT, any: command == SHM_STAT_ANY };
            let (id, raw) = shm::stat(task.kernel(), (ns, &task.group().pid_ns), &creds, which)?;
            at.write_array(task, &raw.0)?;
            value(if command == IPC_STAT { 0 } else { id })
        }
        IPC_SET => {
            let raw = raw_in(task, at, 112)?;
            shm::set(ns, &creds, id, &raw)?;
            done()
        }
        IPC_RMID => {
            shm::remove(ns, &creds, id)?;
            done()
        }
        SHM_LOCK | SHM_UNLOCK => {
            shm::lock(ns, &creds, id, command == SHM_LOCK)?;
            done()
        }
        _ => Err(Errno::EINVAL),
    }
}
