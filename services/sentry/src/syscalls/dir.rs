//! Directories and names: `getdents64`, `mkdir`, `unlink`, `rename`, `link`, `symlink`, `mknod`, `chdir`, `chroot`,
//! `getcwd` and their forms.

use std::sync::Arc;

use crate::entry;
use crate::errno::Errno;
use crate::syscalls::args::AT_FDCWD;
use crate::syscalls::{Entry, Fd, SysResult, UserStr, done, value};
use crate::task::Task;
use crate::task::creds::cap;
use crate::vfs::inode::{DirEntry, FileType};
use crate::vfs::mount::PathRef;
use crate::vfs::task_files::{self, AT_EMPTY_PATH, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW};
use crate::vfs::{Caller, access, ops};

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(217, "getdents64", Full, "", getdents64(Fd, u64, u32)),
    entry!(78, "getdents", Full, "", getdents(Fd, u64, u32)),
    entry!(83, "mkdir", Full, "", mkdir(UserStr, u32)),
    entry!(258, "mkdirat", Full, "", mkdirat(Fd, UserStr, u32)),
    entry!(84, "rmdir", Full, "", rmdir(UserStr)),
    entry!(87, "unlink", Full, "", unlink(UserStr)),
    entry!(263, "unlinkat", Full, "", unlinkat(Fd, UserStr, i32)),
    entry!(82, "rename", Full, "", rename(UserStr, UserStr)),
    entry!(264, "renameat", Full, "", renameat(Fd, UserStr, Fd, UserStr)),
    entry!(316, "renameat2", Full, "", renameat2(Fd, UserStr, Fd, UserStr, u32)),
    entry!(86, "link", Full, "", link(UserStr, UserStr)),
    entry!(265, "linkat", Full, "", linkat(Fd, UserStr, Fd, UserStr, i32)),
    entry!(88, "symlink", Full, "", symlink(UserStr, UserStr)),
    entry!(266, "symlinkat", Full, "", symlinkat(UserStr, Fd, UserStr)),
    entry!(133, "mknod", Full, "", mknod(UserStr, u32, u32)),
    entry!(259, "mknodat", Full, "", mknodat(Fd, UserStr, u32, u32)),
    entry!(80, "chdir", Full, "", chdir(UserStr)),
    entry!(81, "fchdir", Full, "", fchdir(Fd)),
    entry!(161, "chroot", Full, "", chroot(UserStr)),
    entry!(79, "getcwd", Full, "", getcwd(u64, usize)),
];

fn list(task: &Arc<Task>, fd: Fd, to: u64, size: u32, encode: impl Fn(&mut Vec<u8>, &DirEntry, u64)) -> SysResult {
    let file = task.file(fd)?;
    let size = size as usize;
    let mut out: Vec<u8> = Vec::with_capacity(size.min(65_536));
    let caller = Caller::of(task);
    file.list(&caller, &mut |e, next| {
        let before = out.len();
        encode(&mut out, e, next);
        if out.len() <= size {
            return Ok(true);
        }
        out.truncate(before);
        // Not even one fits.
        if before == 0 { Err(Errno::EINVAL) } else { Ok(false) }
    })?;
    task.write_exact(to, &out)?;
    value(out.len())
}

fn pad8(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(8), 0);
}

fn getdents64(task: &Arc<Task>, fd: Fd, to: u64, size: u32) -> SysResult {
    list(task, fd, to, size, |out, e, next| {
        let len = (19 + e.name.len() + 1).next_multiple_of(8);
        out.extend_from_slice(&e.ino.to_le_bytes());
        out.extend_from_slice(&next.to_le_bytes());
        out.extend_from_slice(&(len as u16).to_le_bytes());
        out.push(e.kind.dirent());
        out.extend_from_slice(&e.name);
        out.push(0);
        pad8(out);
    })
}

fn getdents(task: &Arc<Task>, fd: Fd, to: u64, size: u32) -> SysResult {
    list(task, fd, to, size, |out, e, next| {
        let len = (18 + e.name.len() + 2).next_multiple_of(8);
        let start = out.len();
        out.extend_from_slice(&e.ino.to_le_bytes());
        out.extend_from_slice(&next.to_le_bytes());
        out.extend_from_slice(&(len as u16).to_le_bytes());
        out.extend_from_slice(&e.name);
        out.resize(start + len - 1, 0);
        out.push(e.kind.dirent());
    })
}

fn mkdirat(task: &Arc<Task>, dirfd: Fd, path: UserStr, mode: u32) -> SysResult {
    let path = path.read_path(task)?;
    let caller = Caller::of(task);
    ops::mkdir(&caller, task_files::base(task, &caller, dirfd, &path)?, &path, mode)?;
    done()
}

fn mkdir(task: &Arc<Task>, path: UserStr, mode: u32) -> SysResult {
    mkdirat(task, AT_FDCWD, path, mode)
}

fn unlinkat(task: &Arc<Task>, dirfd: Fd, path: UserStr, at_flags: i32) -> SysResult {
    if at_flags & !AT_REMOVEDIR != 0 {
        return Err(Errno::EINVAL);
    }
    let path = path.read_path(task)?;
    let caller = Caller::of(task);
    ops::unlink(&caller, task_files::base(task, &caller, dirfd, &path)?, &path, at_flags != 0)?;
    done()
}

fn unlink(task: &Arc<Task>, path: UserStr) -> SysResult {
    unlinkat(task, AT_FDCWD, path, 0)
}

fn rmdir(task: &Arc<Task>, path: UserStr) -> SysResult {
    unlinkat(task, AT_FDCWD, path, AT_REMOVEDIR)
}

fn renameat2(task: &Arc<Task>, old_fd: Fd, old: UserStr, new_fd: Fd, new: UserStr, how: u32) -> SysResult {
    let (old, new) = (old.read_path(task)?, new.read_path(task)?);
    let caller = Caller::of(task);
    let from = task_files::base(task, &caller, old_fd, &old)?;
    let to = task_files::base(task, &caller, new_fd, &new)?;
    ops::rename(&caller, (from, &old), (to, &new), how)?;
    done()
}

fn renameat(task: &Arc<Task>, old_fd: Fd, old: UserStr, new_fd: Fd, new: UserStr) -> SysResult {
    renameat2(task, old_fd, old, new_fd, new, 0)
}

fn rename(task: &Arc<Task>, old: UserStr, new: UserStr) -> SysResult {
    renameat2(task, AT_FDCWD, old, AT_FDCWD, new, 0)
}

fn linkat(task: &Arc<Task>, old_fd: Fd, old: UserStr, new_fd: Fd, new: UserStr, at_flags: i32) -> SysResult {
    if at_flags & !(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let (old, new) = (old.read_path(task)?, new.read_path(task)?);
    let caller = Caller::of(task);
    if at_flags & AT_EMPTY_PATH != 0 && old.is_empty() && !caller.creds.capable(cap::DAC_READ_SEARCH) {
        return Err(Errno::ENOENT);
    }
    let mut resolve = at_flags & AT_EMPTY_PATH;
    if at_flags & AT_SYMLINK_FOLLOW == 0 {
        resolve |= AT_SYMLINK_NOFOLLOW;
    }
    let target = task_files::resolve(task, &caller, old_fd, &old, resolve)?;
    ops::link(&caller, &target, task_files::base(task, &caller, new_fd, &new)?, &new)?;
    done()
}

fn link(task: &Arc<Task>, old: UserStr, new: UserStr) -> SysResult {
    linkat(task, AT_FDCWD, old, AT_FDCWD, new, 0)
}

fn symlinkat(task: &Arc<Task>, target: UserStr, dirfd: Fd, path: UserStr) -> SysResult {
    let (target, path) = (target.read_path(task)?, path.read_path(task)?);
    let caller = Caller::of(task);
    ops::symlink(&caller, &target, task_files::base(task, &caller, dirfd, &path)?, &path)?;
    done()
}

fn symlink(task: &Arc<Task>, target: UserStr, path: UserStr) -> SysResult {
    symlinkat(task, target, AT_FDCWD, path)
}

fn mknodat(task: &Arc<Task>, dirfd: Fd, path: UserStr, mode: u32, dev: u32) -> SysResult {
    let path = path.read_path(task)?;
    let caller = Caller::of(task);
    let base = task_files::base(task, &caller, dirfd, &path)?;
    ops::mknod(&caller, base, &path, mode, u64::from(dev))?;
    done()
}

fn mknod(task: &Arc<Task>, path: UserStr, mode: u32, dev: u32) -> SysResult {
    mknodat(task, AT_FDCWD, path, mode, dev)
}

fn check_directory(caller: &Caller<'_>, at: &PathRef) -> Result<(), Errno> {
    let inode = at.dentry.inode();
    if inode.kind() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    access::check_search(&caller.creds, &**inode)
}

fn chdir(task: &Arc<Task>, path: UserStr) -> SysResult {
    let at = task.at(AT_FDCWD, path, 0)?;
    check_directory(&Caller::of(task), &at)?;
    task.fs().set_cwd(at);
    done()
}

fn fchdir(task: &Arc<Task>, fd: Fd) -> SysResult {
    let at = task.files().get_any(fd.0)?.path_ref().clone();
    check_directory(&Caller::of(task), &at)?;
    task.fs().set_cwd(at);
    done()
}

fn chroot(task: &Arc<Task>, path: UserStr) -> SysResult {
    let at = task.at(AT_FDCWD, path, 0)?;
    let caller = Caller::of(task);
    check_directory(&caller, &at)?;
    if !caller.creds.has(cap::SYS_CHROOT) {
        return Err(Errno::EPERM);
    }
    task.fs().set_root(at);
    done()
}

fn getcwd(task: &Arc<Task>, to: u64, size: usize) -> SysResult {
    let fs = task.fs();
    let cwd = fs.cwd();
    if cwd.dentry.is_deleted() {
        return Err(Errno::ENOENT);
    }
    let (mut path, reached) = cwd.path_from(&fs.root());
    if !reached {
        path.splice(..0, *b"(unreachable)");
    }
    path.push(0);
    if path.len() > size {
        return Err(Errno::ERANGE);
    }
    task.write_exact(to, &path)?;
    value(path.len())
}
