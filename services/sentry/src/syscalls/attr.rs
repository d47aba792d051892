//! Attributes for changing: `chmod`, `chown`, `utime*`, `truncate`, `fallocate`, `umask` and their forms.

use std::sync::Arc;

use crate::entry;
use crate::errno::Errno;
use crate::syscalls::args::AT_FDCWD;
use crate::syscalls::{Entry, Fd, SysResult, UserPtr, UserStr, done, value};
use crate::task::{Task, shrink};
use crate::time::{NS, Timespec, Timeval};
use crate::vfs::control::check_file_size;
use crate::vfs::inode::FileType;
use crate::vfs::landlock::right;
use crate::vfs::mount::PathRef;
use crate::vfs::ops::{self, NewTime, UTIME_NOW, UTIME_OMIT};
use crate::vfs::task_files::{AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW};
use crate::vfs::watch::{self, event};
use crate::vfs::{Caller, File};

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(90, "chmod", Full, "", chmod(UserStr, u32)),
    entry!(91, "fchmod", Full, "", fchmod(Fd, u32)),
    entry!(268, "fchmodat", Full, "", fchmodat(Fd, UserStr, u32)),
    entry!(452, "fchmodat2", Full, "", fchmodat2(Fd, UserStr, u32, i32)),
    entry!(92, "chown", Full, "", chown(UserStr, u32, u32)),
    entry!(93, "fchown", Full, "", fchown(Fd, u32, u32)),
    entry!(94, "lchown", Full, "", lchown(UserStr, u32, u32)),
    entry!(260, "fchownat", Full, "", fchownat(Fd, UserStr, u32, u32, i32)),
    entry!(132, "utime", Full, "", utime(UserStr, UserPtr<[i64; 2]>)),
    entry!(235, "utimes", Full, "", utimes(UserStr, UserPtr<[Timeval; 2]>)),
    entry!(261, "futimesat", Full, "", futimesat(Fd, UserStr, UserPtr<[Timeval; 2]>)),
    entry!(280, "utimensat", Full, "", utimensat(Fd, UserStr, UserPtr<[Timespec; 2]>, i32)),
    entry!(76, "truncate", Full, "", truncate(UserStr, i64)),
    entry!(77, "ftruncate", Full, "", ftruncate(Fd, i64)),
    entry!(
        285,
        "fallocate",
        Partial,
        "exports without the overlay: no collapse and insert of ranges",
        fallocate(Fd, i32, i64, i64)
    ),
    entry!(95, "umask", Full, "", umask(u32)),
];

fn fchmodat2(task: &Arc<Task>, dirfd: Fd, path: UserStr, mode: u32, at_flags: i32) -> SysResult {
    if at_flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    ops::chmod(&Caller::of(task), &task.at(dirfd, path, at_flags)?, mode)?;
    done()
}

fn fchmodat(task: &Arc<Task>, dirfd: Fd, path: UserStr, mode: u32) -> SysResult {
    fchmodat2(task, dirfd, path, mode, 0)
}

fn chmod(task: &Arc<Task>, path: UserStr, mode: u32) -> SysResult {
    fchmodat2(task, AT_FDCWD, path, mode, 0)
}

fn fchmod(task: &Arc<Task>, fd: Fd, mode: u32) -> SysResult {
    ops::chmod(&Caller::of(task), task.file(fd)?.path_ref(), mode)?;
    done()
}

fn do_chown(task: &Arc<Task>, at: &PathRef, uid: u32, gid: u32) -> SysResult {
    let caller = Caller::of(task);
    let id = |n: u32, kernel: Option<u32>| match n {
        u32::MAX => Ok(None),
        _ => kernel.map(Some).ok_or(Errno::EINVAL),
    };
    let ns = &caller.creds.user_ns;
    let (uid, gid) = (id(uid, ns.kernel_uid(uid))?, id(gid, ns.kernel_gid(gid))?);
    ops::chown(&caller, at, uid, gid)?;
    done()
}

fn fchownat(task: &Arc<Task>, dirfd: Fd, path: UserStr, uid: u32, gid: u32, at_flags: i32) -> SysResult {
    if at_flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    do_chown(task, &task.at(dirfd, path, at_flags)?, uid, gid)
}

fn chown(task: &Arc<Task>, path: UserStr, uid: u32, gid: u32) -> SysResult {
    fchownat(task, AT_FDCWD, path, uid, gid, 0)
}

fn lchown(task: &Arc<Task>, path: UserStr, uid: u32, gid: u32) -> SysResult {
    fchownat(task, AT_FDCWD, path, uid, gid, AT_SYMLINK_NOFOLLOW)
}

fn fchown(task: &Arc<Task>, fd: Fd, uid: u32, gid: u32) -> SysResult {
    do_chown(task, task.file(fd)?.path_ref(), uid, gid)
}

const NOW: (NewTime, NewTime) = (Some(None), Some(None));

fn spec(t: Timespec) -> Result<NewTime, Errno> {
    match t.nsec {
        UTIME_NOW => Ok(Some(None)),
        UTIME_OMIT => Ok(None),
        n if (0..NS).contains(&n) => Ok(Some(Some(t.sec.saturating_mul(NS).saturating_add(n)))),
        _ => Err(Errno::EINVAL),
    }
}

fn utimensat(task: &Arc<Task>, dirfd: Fd, path: UserStr, times: UserPtr<[Timespec; 2]>, at_flags: i32) -> SysResult {
    let (a, m) = if times.is_null() {
        NOW
    } else {
        let [a, m] = times.read(task)?;
        (spec(a)?, spec(m)?)
    };
    if a.is_none() && m.is_none() {
        return done();
    }
    if at_flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let at = if path.is_null() {
        if dirfd == AT_FDCWD {
            return Err(Errno::EFAULT);
        }
        task.file(dirfd)?.path_ref().clone()
    } else {
        task.at(dirfd, path, at_flags)?
    };
    ops::set_times(&Caller::of(task), &at, a, m)?;
    done()
}

fn futimesat(task: &Arc<Task>, dirfd: Fd, path: UserStr, times: UserPtr<[Timeval; 2]>) -> SysResult {
    let (a, m) = if times.is_null() {
        NOW
    } else {
        let time = |t: Timeval| {
            if !(0..1_000_000).contains(&t.usec) {
                return Err(Errno::EINVAL);
            }
            Ok(Some(Some(t.sec.saturating_mul(NS).saturating_add(t.usec * 1000))))
        };
        let [a, m] = times.read(task)?;
        (time(a)?, time(m)?)
    };
    let at = if path.is_null() { task.file(dirfd)?.path_ref().clone() } else { task.at(dirfd, path, 0)? };
    ops::set_times(&Caller::of(task), &at, a, m)?;
    done()
}

fn utimes(task: &Arc<Task>, path: UserStr, times: UserPtr<[Timeval; 2]>) -> SysResult {
    futimesat(task, AT_FDCWD, path, times)
}

fn utime(task: &Arc<Task>, path: UserStr, times: UserPtr<[i64; 2]>) -> SysResult {
    let (a, m) = if times.is_null() {
        NOW
    } else {
        let [a, m] = times.read(task)?;
        (Some(Some(a.saturating_mul(NS))), Some(Some(m.saturating_mul(NS))))
    };
    ops::set_times(&Caller::of(task), &task.at(AT_FDCWD, path, 0)?, a, m)?;
    done()
}

fn size(n: i64) -> Result<u64, Errno> {
    u64::try_from(n).map_err(|_| Errno::EINVAL)
}

fn truncate(task: &Arc<Task>, path: UserStr, to: i64) -> SysResult {
    let to = size(to)?;
    let at = task.at(AT_FDCWD, path, 0)?;
    check_file_size(task, to.saturating_sub(1))?;
    ops::truncate(&Caller::of(task), &at, to)?;
    shrink::truncated(task, at.dentry.inode())?;
    done()
}

fn writable(task: &Arc<Task>, fd: Fd, refused: Errno) -> Result<Arc<File>, Errno> {
    let file = task.file(fd)?;
    if file.writable() { Ok(file) } else { Err(refused) }
}

fn ftruncate(task: &Arc<Task>, fd: Fd, to: i64) -> SysResult {
    let to = size(to)?;
    let file = writable(task, fd, Errno::EINVAL)?;
    if file.inode().kind() != FileType::Regular {
        return Err(Errno::EINVAL);
    }
    file.check_denied(right::TRUNCATE)?;
    check_file_size(task, to.saturating_sub(1))?;
    file.ops().truncate(&file, to)?;
    watch::file(&file.path_ref().dentry, event::MODIFY);
    ops::strip_privileges(&Caller::of(task), file.inode())?;
    shrink::truncated(task, file.inode())?;
    done()
}

fn fallocate(task: &Arc<Task>, fd: Fd, mode: i32, offset: i64, len: i64) -> SysResult {
    if offset < 0 || len <= 0 {
        return Err(Errno::EINVAL);
    }
    let end = offset.checked_add(len).ok_or(Errno::EFBIG)?;
    let file = writable(task, fd, Errno::EBADF)?;
    match file.inode().kind() {
        FileType::Regular => {}
        FileType::Fifo => return Err(Errno::ESPIPE),
        FileType::Directory => return Err(Errno::EISDIR),
        _ => return Err(Errno::ENODEV),
    }
    check_file_size(task, size(end)? - 1)?;
    file.ops().allocate(&file, mode, size(offset)?, size(len)?)?;
    if mode & libc::FALLOC_FL_COLLAPSE_RANGE != 0 {
        shrink::truncated(task, file.inode())?;
    }
    watch::file(&file.path_ref().dentry, event::MODIFY);
    done()
}

fn umask(task: &Arc<Task>, mask: u32) -> SysResult {
    value(task.fs().set_umask(mask))
}
