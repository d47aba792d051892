//! System V message queue calls: `msgget(2)`, `msgsnd(2)`, `msgrcv(2)`, `msgctl(2)`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::shm::{IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, raw_in};
use super::{Entry, Outcome, SysResult, UserPtr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::ipc::sysv::msg::{self, Message, Wanted};
use crate::ipc::sysv::{self, Get, NOWAIT, Raw, Which};
use crate::task::Task;
use crate::wait::{Cause, PollMask, Wait};

/// The calls.
pub const TABLE: &[Entry] = &[
    entry!(68, "msgget", Full, "", msgget(i32, i32)),
    entry!(69, "msgsnd", Full, "", msgsnd(i32, UserPtr<i64>, u64, i32)),
    entry!(70, "msgrcv", Full, "", msgrcv(i32, UserPtr<i64>, u64, i64, i32)),
    entry!(71, "msgctl", Full, "", msgctl(i32, i32, UserPtr<u8>)),
];

const MSG_NOERROR: i32 = 0o10000;
const MSG_EXCEPT: i32 = 0o20000;
const MSG_COPY: i32 = 0o40000;
const MSG_STAT: i32 = 11;
const MSG_INFO: i32 = 12;
const MSG_STAT_ANY: i32 = 13;

fn msgget(task: &Arc<Task>, key: i32, flags: i32) -> SysResult {
    let ipc = task.ipc();
    let most = ipc.sysv.limits.queues.load(Ordering::Relaxed);
    value(msg::get(Get { key, flags, creds: &task.creds(), namespace: &ipc, most })?)
}

fn msgsnd(task: &Arc<Task>, id: i32, from: UserPtr<i64>, size: u64, flags: i32) -> SysResult {
    let kind = from.read(task)?;
    let most = task.ipc().sysv.limits.message.load(Ordering::Relaxed);
    let size = usize::try_from(size).ok().filter(|s| *s <= most && id >= 0 && kind >= 1);
    let size = size.ok_or(Errno::EINVAL)?;
    let text = from.cast::<u8>().offset(8)?.read_array(task, size, most)?;
    let message = Message { kind, text };
    let queue = msg::queue(&task.ipc(), &task.creds(), id, sysv::WRITE)?;
    let pid = task.pid();
    if queue.send(&message, pid)? {
        return done();
    }
    if flags & NOWAIT != 0 {
        return Err(Errno::EAGAIN);
    }
    let woken = queue.queue.clone();
    let wait = Wait::new(move |task: &Arc<Task>, cause| {
        let sent = msg::queue(&task.ipc(), &task.creds(), id, sysv::WRITE)
            .map_err(|e| if e == Errno::EINVAL { Errno::EIDRM } else { e })
            .and_then(|_| queue.send(&message, pid));
        match (sent, cause) {
            (Ok(true), _) => Some(Ok(0)),
            (Err(e), _) => Some(Err(e)),
            (Ok(false), Cause::Interrupted) => Some(Err(Errno::ERESTARTNOHAND)),
            (Ok(false), _) => None,
        }
    });
    Ok(Outcome::Block(wait.on(&woken, PollMask::OUT)))
}

/// Copies a message that was taken to the container; how many bytes of text.
fn give(task: &Arc<Task>, to: UserPtr<i64>, message: &Message) -> Result<i64, Errno> {
    to.write(task, &message.kind)?;
    to.cast::<u8>().offset(8)?.write_array(task, &message.text)?;
    Ok(message.text.len() as i64)
}

fn msgrcv(task: &Arc<Task>, id: i32, to: UserPtr<i64>, size: u64, kind: i64, flags: i32) -> SysResult {
    let most = usize::try_from(size).ok().filter(|_| id >= 0 && size.cast_signed() >= 0).ok_or(Errno::EINVAL)?;
    let wanted = if flags & MSG_COPY != 0 {
        if flags & MSG_EXCEPT != 0 || flags & NOWAIT == 0 {
            return Err(Errno::EINVAL);
        }
        usize::try_from(kind).map_or(Wanted::Copy(usize::MAX), Wanted::Copy)
    } else {
        match kind {
            0 => Wanted::Any,
            kind if kind < 0 => Wanted::UpTo(kind.checked_neg().unwrap_or(i64::MAX)),
            kind if flags & MSG_EXCEPT != 0 => Wanted::Except(kind),
            kind => Wanted::Of(kind),
        }
    };
    let cut = flags & MSG_NOERROR != 0;
    let queue = msg::queue(&task.ipc(), &task.creds(), id, sysv::READ)?;
    let pid = task.pid();
    if let Some(message) = queue.receive(wanted, most, cut, pid)? {
        return value(give(task, to, &message)?);
    }
    if flags & NOWAIT != 0 {
        return Err(Errno::ENOMSG);
    }
    let woken = queue.queue.clone();
    let wait = Wait::new(move |task: &Arc<Task>, cause| {
        let got = msg::queue(&task.ipc(), &task.creds(), id, sysv::READ)
            .map_err(|e| if e == Errno::EINVAL { Errno::EIDRM } else { e })
            .and_then(|_| queue.receive(wanted, most, cut, pid));
        match (got, cause) {
            (Ok(Some(message)), _) => Some(give(task, to, &message)),
            (Err(e), _) => Some(Err(e)),
            (Ok(None), Cause::Interrupted) => Some(Err(Errno::ERESTARTNOHAND)),
            (Ok(None), _) => None,
        }
    });
    Ok(Outcome::Block(wait.on(&woken, PollMask::IN)))
}

fn msgctl(task: &Arc<Task>, id: i32, command: i32, at: UserPtr<u8>) -> SysResult {
    if id < 0 || command < 0 {
        return Err(Errno::EINVAL);
    }
    let (ipc, creds) = (task.ipc(), task.creds());
    let ns = &*ipc;
    match command {
        IPC_INFO | MSG_INFO => {
            let (queues, messages, bytes, highest) = msg::totals(ns);
            let limits = &ns.sysv.limits;
            let number = |of: &AtomicUsize| u32::try_from(of.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
            let (most, limit, queues_most) = (number(&limits.message), number(&limits.queue), number(&limits.queues));
            let (pool, map, all) = if command == MSG_INFO {
                (queues as u32, messages as u32, bytes as u32)
            } else {
                (queues_most.saturating_mul(limit) / 1024, limit, limit)
            };
            let info = [pool, map, most, limit, queues_most, 16, all, 0xffff];
            at.write_array(task, &info.iter().fold(Raw::default(), |raw, f| raw.word32(*f)).0)?;
            value(highest)
        }
        IPC_STAT | MSG_STAT | MSG_STAT_ANY => {
            let which = Which { number: id, by_place: command != IPC_STAT, any: command == MSG_STAT_ANY };
            let (id, raw) = msg::stat((ns, &task.group().pid_ns), &creds, which)?;
            at.write_array(task, &raw.0)?;
            value(if command == IPC_STAT { 0 } else { id })
        }
        IPC_SET => {
            let raw = raw_in(task, at, 120)?;
            msg::change(ns, &creds, id, &raw)?;
            done()
        }
        IPC_RMID => {
            msg::remove(ns, &creds, id)?;
            done()
        }
        _ => Err(Errno::EINVAL),
    }
}
