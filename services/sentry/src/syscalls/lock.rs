//! Advisory locks: `flock` and the lock commands of `fcntl`.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::entry;
use crate::errno::Errno;
use crate::syscalls::blocking::until_ready;
use crate::syscalls::{Entry, Fd, Outcome, SysResult, UserPtr, done};
use crate::task::Task;
use crate::vfs::File;
use crate::vfs::control::ProcessControl;
use crate::vfs::file::Whence;
use crate::vfs::lock::{LockOwner, LockWait, Record};
use crate::wait::PollMask;

/// This family's part of the table.
pub const TABLE: &[Entry] = &[entry!(73, "flock", Full, "", flock(Fd, i32))];

/// `struct flock`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[allow(missing_docs)]
pub struct RawLock {
    pub kind: i16,
    pub whence: i16,
    pad: i32,
    pub start: i64,
    pub len: i64,
    pub pid: i32,
    pad2: i32,
}

const F_RDLCK: i16 = 0;
const F_WRLCK: i16 = 1;
const F_UNLCK: i16 = 2;

fn record(task: &Arc<Task>, file: &Arc<File>, raw: &RawLock, ofd: bool) -> Result<Record, Errno> {
    let base = match raw.whence {
        0 => 0,
        1 => file.position(),
        2 => file.ops().seek(file, 0, Whence::End)?,
        _ => return Err(Errno::EINVAL),
    };
    let start = i64::try_from(base).map_err(|_| Errno::EOVERFLOW)?.checked_add(raw.start).ok_or(Errno::EOVERFLOW)?;
    let (start, end) = match raw.len {
        0 => (start, i64::MAX),
        n if n > 0 => (start, start.checked_add(n).ok_or(Errno::EOVERFLOW)?),
        n => (start.checked_add(n).ok_or(Errno::EINVAL)?, start),
    };
    let start = u64::try_from(start).map_err(|_| Errno::EINVAL)?;
    let end = if end == i64::MAX { u64::MAX } else { u64::try_from(end).map_err(|_| Errno::EINVAL)? };
    if ofd && raw.pid != 0 {
        return Err(Errno::EINVAL);
    }
    let owner = if ofd { LockOwner::File(file.id) } else { LockOwner::Process(task.files().id) };
    Ok(Record {
        owner,
        start,
        end,
        write: raw.kind == F_WRLCK,
        pid: if ofd { -1 } else { task.process() },
        file: file.id,
    })
}

/// `F_GETLK` and `F_OFD_GETLK`.
pub fn get(task: &Arc<Task>, file: &Arc<File>, pointer: UserPtr<RawLock>, ofd: bool) -> SysResult {
    let mut raw = pointer.read(task)?;
    if !matches!(raw.kind, F_RDLCK | F_WRLCK) {
        return Err(Errno::EINVAL);
    }
    let want = record(task, file, &raw, ofd)?;
    match file.inode().meeting().locks.conflict(&want) {
        None => raw.kind = F_UNLCK,
        Some(r) => {
            raw.kind = if r.write { F_WRLCK } else { F_RDLCK };
            (raw.whence, raw.pid) = (0, if r.pid < 0 { r.pid } else { task.shown(r.pid) });
            raw.start = r.start as i64;
            raw.len = if r.end == u64::MAX { 0 } else { (r.end - r.start) as i64 };
        }
    }
    pointer.write(task, &raw)?;
    done()
}

/// `F_SETLK`, `F_SETLKW` and their open-file-description forms.
pub fn set(task: &Arc<Task>, file: &Arc<File>, pointer: UserPtr<RawLock>, ofd: bool, wait: bool) -> SysResult {
    let raw = pointer.read(task)?;
    let want = record(task, file, &raw, ofd)?;
    match raw.kind {
        F_UNLCK => {
            if let Some(met) = file.inode().met() {
                met.locks.unlock(want.owner, want.start, want.end);
            }
            return done();
        }
        F_RDLCK if !file.readable() => return Err(Errno::EBADF),
        F_WRLCK if !file.writable() => return Err(Errno::EBADF),
        F_RDLCK | F_WRLCK => {}
        _ => return Err(Errno::EINVAL),
    }
    let locks = &file.inode().meeting().locks;
    if !wait {
        return locks.lock(want).map(|()| Outcome::Value(0));
    }
    let (queue, file) = (locks.queue.clone(), file.clone());
    let waits = LockWait::new();
    until_ready(task, &queue, PollMask::empty(), None, move |_| {
        let locks = &file.inode().meeting().locks;
        let done = locks.lock(want).map(|()| 0);
        if done == Err(Errno::EAGAIN)
            && let Some(other) = locks.conflict(&want)
        {
            waits.on(want.owner, other.owner)?;
        }
        done
    })
}

const LOCK_SH: i32 = 1;
const LOCK_EX: i32 = 2;
const LOCK_NB: i32 = 4;
const LOCK_UN: i32 = 8;

fn flock(task: &Arc<Task>, fd: Fd, operation: i32) -> SysResult {
    let file = task.file(fd)?;
    let locks = &file.inode().meeting().locks;
    let pid = task.pid();
    let exclusive = match operation & !LOCK_NB {
        LOCK_UN => {
            locks.funlock(file.id);
            return done();
        }
        LOCK_SH => false,
        LOCK_EX => true,
        _ => return Err(Errno::EINVAL),
    };
    if operation & LOCK_NB != 0 {
        return locks.flock(file.id, exclusive, pid).map(|()| Outcome::Value(0));
    }
    let (queue, file) = (locks.queue.clone(), file.clone());
    until_ready(task, &queue, PollMask::empty(), None, move |_| {
        file.inode().meeting().locks.flock(file.id, exclusive, pid).map(|()| 0)
    })
}
