//! System V semaphore calls: `semget(2)`, `semop(2)`, `semtimedop(2)`, `semctl(2)`.

use std::sync::Arc;

use super::shm::{IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, raw_in};
use super::{Entry, Outcome, SysResult, UserPtr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::ipc::sysv::sem::{self, Op, Tried};
use crate::ipc::sysv::{self, Get, Raw, Which};
use crate::task::Task;
use crate::time::{Deadline, Timespec};
use crate::wait::{Cause, PollMask, Wait};

/// The calls.
pub const TABLE: &[Entry] = &[
    entry!(64, "semget", Full, "", semget(i32, i32, i32)),
    entry!(65, "semop", Full, "", semop(i32, UserPtr<u8>, usize)),
    entry!(66, "semctl", Full, "", semctl(i32, i32, i32, UserPtr<u8>)),
    entry!(220, "semtimedop", Full, "", semtimedop(i32, UserPtr<u8>, usize, UserPtr<Timespec>)),
];

const GETPID: i32 = 11;
const GETVAL: i32 = 12;
const GETALL: i32 = 13;
const GETNCNT: i32 = 14;
const GETZCNT: i32 = 15;
const SETVAL: i32 = 16;
const SETALL: i32 = 17;
const SEM_STAT: i32 = 18;
const SEM_INFO: i32 = 19;
const SEM_STAT_ANY: i32 = 20;

fn semget(task: &Arc<Task>, key: i32, count: i32, flags: i32) -> SysResult {
    let ipc = task.ipc();
    let limits = &ipc.sysv.limits;
    let count = usize::try_from(count).ok().filter(|c| *c <= limits.semaphore(0)).ok_or(Errno::EINVAL)?;
    let get = Get { key, flags, creds: &task.creds(), namespace: &ipc, most: limits.semaphore(3) };
    value(sem::get(get, count)?)
}

fn semop(task: &Arc<Task>, id: i32, ops: UserPtr<u8>, count: usize) -> SysResult {
    semtimedop(task, id, ops, count, UserPtr::new(0))
}

fn semtimedop(task: &Arc<Task>, id: i32, ops: UserPtr<u8>, count: usize, timeout: UserPtr<Timespec>) -> SysResult {
    let limit = if timeout.is_null() { None } else { Some(timeout.read(task)?.to_ns()?) };
    if count < 1 || id < 0 {
        return Err(Errno::EINVAL);
    }
    let most = task.ipc().sysv.limits.semaphore(2);
    if count > most {
        return Err(Errno::E2BIG);
    }
    let bytes = ops.read_array(task, count * 6, most * 6)?;
    let half = |b: &[u8], at: usize| b.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| i16::from_le_bytes(*b));
    let ops: Vec<Op> = bytes
        .chunks_exact(6)
        .map(|b| Op { number: half(b, 0).cast_unsigned(), change: half(b, 2), flags: half(b, 4) })
        .collect();
    let alters = ops.iter().any(|op| op.change != 0);
    // The permission that is asked for first is of the set; then whether the semaphores are there.
    let set = sem::set(&task.ipc(), &task.creds(), id, 0)?;
    if ops.iter().any(|op| usize::from(op.number) >= set.len()) {
        return Err(Errno::EFBIG);
    }
    sem::set(&task.ipc(), &task.creds(), id, if alters { sysv::WRITE } else { sysv::READ })?;
    let waiter = sem::new_waiter();
    let pid = task.pid();
    if let Tried::Done = set.operate(&ops, pid, waiter)? {
        return done();
    }
    let queue = set.queue.clone();
    let wait = Wait::new(move |_, cause| {
        match set.operate(&ops, pid, waiter) {
            Ok(Tried::Done) => return Some(Ok(0)),
            Err(e) => return Some(Err(e)),
            Ok(Tried::Wait) => {}
        }
        let end = match cause {
            Cause::Woken => return None,
            Cause::TimedOut => Errno::EAGAIN,
            Cause::Interrupted => Errno::EINTR,
        };
        set.leave(waiter);
        Some(Err(end))
    });
    Ok(Outcome::Block(wait.on(&queue, PollMask::empty()).until(limit.map(Deadline::after))))
}

fn semctl(task: &Arc<Task>, id: i32, number: i32, command: i32, argument: UserPtr<u8>) -> SysResult {
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    let (ipc, creds) = (task.ipc(), task.creds());
    let ns = &*ipc;
    let set = |want| sem::set(ns, &creds, id, want);
    match command {
        IPC_INFO | SEM_INFO => {
            let (sets, sems, highest) = sem::totals(ns);
            let (used, all) = if command == SEM_INFO { (sets, sems) } else { (20, sem::VALUE_MAX as usize) };
            let most = |which| ns.sysv.limits.semaphore(which);
            let fields =
                [most(1), most(3), most(1), most(1), most(0), most(2), most(2), used, sem::VALUE_MAX as usize, all];
            let info = fields.iter().fold(Raw::default(), |raw, f| raw.word32(*f as u32));
            argument.write_array(task, &info.0)?;
            value(highest)
        }
        IPC_STAT | SEM_STAT | SEM_STAT_ANY => {
            let which = Which { number: id, by_place: command != IPC_STAT, any: command == SEM_STAT_ANY };
            let (id, raw) = sem::stat(ns, &creds, which)?;
            argument.write_array(task, &raw.0)?;
            value(if command == IPC_STAT { 0 } else { id })
        }
        GETALL => {
            let bytes: Vec<u8> = set(sysv::READ)?.values().iter().flat_map(|v| v.to_le_bytes()).collect();
            argument.write_array(task, &bytes)?;
            done()
        }
        SETALL => {
            let set = set(sysv::WRITE)?;
            let bytes = argument.read_array(task, set.len() * 2, set.len() * 2)?;
            let values: Vec<i32> = bytes.as_chunks::<2>().0.iter().map(|b| i32::from(u16::from_le_bytes(*b))).collect();
            set.set_values(0, &values, task.pid())?;
            done()
        }
        GETVAL | GETPID | GETNCNT | GETZCNT => {
            let (now, pid, rises, zeros) = set(sysv::READ)?.one(number)?;
            match command {
                GETVAL => value(now),
                GETPID => value(task.shown(pid)),
                GETNCNT => value(rises),
                _ => value(zeros),
            }
        }
        SETVAL => {
            // The argument is the value itself.
            let new = argument.address() as i32;
            if !(0..=sem::VALUE_MAX).contains(&new) {
                return Err(Errno::ERANGE);
            }
            let there = set(0)?;
            there.one(number)?;
            set(sysv::WRITE)?.set_values(number, &[new], task.pid())?;
            done()
        }
        IPC_SET => {
            let raw = raw_in(task, argument, 104)?;
            sem::change(ns, &creds, id, &raw)?;
            done()
        }
        IPC_RMID => {
            sem::remove(ns, &creds, id)?;
            done()
        }
        _ => Err(Errno::EINVAL),
    }
}
