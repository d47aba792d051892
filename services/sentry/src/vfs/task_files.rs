//! Files of a task: descriptors and paths as system calls name them.

use std::sync::Arc;

use crate::errno::Errno;
use crate::syscalls::args::AT_FDCWD;
use crate::syscalls::{Fd, UserPtr, UserStr};
use crate::task::Task;
use crate::vfs::caller::Caller;
use crate::vfs::control::{ProcessControl, RLIMIT_NOFILE};
use crate::vfs::file::File;
use crate::vfs::inode::FileType;
use crate::vfs::mount::PathRef;
use crate::vfs::walk;

/// `AT_SYMLINK_NOFOLLOW`.
pub const AT_SYMLINK_NOFOLLOW: i32 = 0x100;
/// `AT_REMOVEDIR` and `AT_EACCESS`.
pub const AT_REMOVEDIR: i32 = 0x200;
/// `AT_SYMLINK_FOLLOW`.
pub const AT_SYMLINK_FOLLOW: i32 = 0x400;
/// `AT_NO_AUTOMOUNT`.
pub const AT_NO_AUTOMOUNT: i32 = 0x800;
/// `AT_EMPTY_PATH`.
pub const AT_EMPTY_PATH: i32 = 0x1000;

/// Where a relative path begins: the working directory, or the directory that is open as `dirfd`.
pub fn base(task: &Arc<Task>, caller: &Caller<'_>, dirfd: Fd, path: &[u8]) -> Result<PathRef, Errno> {
    if dirfd == AT_FDCWD || path.first() == Some(&b'/') {
        return Ok(caller.fs.cwd());
    }
    let file = task.files().get_any(dirfd.0)?;
    let at = file.path_ref().clone();
    if !path.is_empty() && at.dentry.inode().kind() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    Ok(at)
}

/// The object that `dirfd`, `path` and `AT_*` flags name. Links are followed unless `AT_SYMLINK_NOFOLLOW`.
pub fn resolve(task: &Arc<Task>, caller: &Caller<'_>, dirfd: Fd, path: &[u8], at_flags: i32) -> Result<PathRef, Errno> {
    let from = base(task, caller, dirfd, path)?;
    if path.is_empty() && at_flags & AT_EMPTY_PATH != 0 {
        return Ok(from);
    }
    walk::walk(caller, from, path, at_flags & AT_SYMLINK_NOFOLLOW == 0)
}

impl Task {
    /// The open file of a number; EBADF (also for `O_PATH`).
    pub fn file(&self, fd: Fd) -> Result<Arc<File>, Errno> {
        self.files().get(fd.0)
    }

    /// Enters a file at the lowest free number.
    pub fn add_file(&self, file: Arc<File>, cloexec: bool) -> Result<i32, Errno> {
        self.files().add(file, cloexec, self.limit(RLIMIT_NOFILE))
    }

    /// EMFILE unless there is a number for one more.
    pub fn check_file_room(&self) -> Result<(), Errno> {
        self.files().check_room(self.limit(RLIMIT_NOFILE))
    }

    /// Two descriptors, written to `to` in the container's memory; neither stays if that fails.
    pub fn add_pair(
        self: &Arc<Self>,
        [first, second]: [Arc<File>; 2],
        cloexec: bool,
        to: UserPtr<[i32; 2]>,
    ) -> Result<(), Errno> {
        let a = self.add_file(first, cloexec)?;
        let b = self.add_file(second, cloexec).inspect_err(|_| {
            self.files().close(a).ok();
        })?;
        to.write(self, &[a, b]).inspect_err(|_| {
            self.files().close(a).ok();
            self.files().close(b).ok();
        })
    }

    /// The object at a path in the container's memory.
    pub fn at(self: &Arc<Self>, dirfd: Fd, path: UserStr, at_flags: i32) -> Result<PathRef, Errno> {
        let path = path.read_path(self)?;
        resolve(self, &Caller::of(self), dirfd, &path, at_flags)
    }

    /// As [`at`](Self::at) for the newer calls: with `AT_EMPTY_PATH` and no path at all it is the open file itself, which `O_PATH` is
    /// none.
    pub fn at_or_open(self: &Arc<Self>, dirfd: Fd, path: UserStr, at_flags: i32) -> Result<PathRef, Errno> {
        let may_be_none = at_flags & AT_EMPTY_PATH != 0;
        let path = if may_be_none && path.is_null() { Vec::new() } else { path.read_path(self)? };
        if may_be_none && path.is_empty() && dirfd != AT_FDCWD {
            return Ok(self.file(dirfd)?.path_ref().clone());
        }
        resolve(self, &Caller::of(self), dirfd, &path, at_flags)
    }
}
