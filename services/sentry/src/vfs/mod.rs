//! The virtual file system: names, mounts, path walk, open files, descriptor tables.
//!
//! File systems plug in below (`inode`), system calls use it from above (`ops`, `task_files`). Nothing here knows what a
//! file's bytes are.

use std::sync::Arc;

pub mod access;
pub mod caller;
pub mod context;
pub mod control;
pub mod dentry;
pub mod dnotify;
pub mod fasync;
pub mod fd;
pub mod file;
pub mod inode;
pub mod landlock;
pub mod lock;
pub mod meeting;
pub mod moment;
pub mod mount;
pub mod ops;
pub mod task_files;
pub mod walk;
pub mod watch;

#[cfg(test)]
pub(crate) mod tests;

pub use caller::Caller;
pub use context::FsContext;
pub use fd::FdTable;
pub use file::File;

use crate::errno::Errno;
use crate::syscalls::Fd;
use crate::syscalls::args::AT_FDCWD;
use crate::task::Task;

/// Opens a program for `execve(2)` and `execveat(2)`: a regular file that the caller may execute, on a mount that allows
/// it. EACCES, ENOENT, ENOTDIR, ELOOP, ETXTBSY as Linux gives them. The caller keeps the file open while it loads.
pub fn open_exec(task: &Arc<Task>, dirfd: Fd, path: &[u8], at_flags: i32) -> Result<Arc<File>, Errno> {
    let caller = Caller::of(task);
    let place = task_files::resolve(task, &caller, dirfd, path, at_flags)?;
    ops::open_program(&caller, place)
}

/// Opens what a program names as its interpreter, as [`open_exec`] does. An empty name is the working directory: EACCES.
pub fn open_interpreter(task: &Arc<Task>, path: &[u8]) -> Result<Arc<File>, Errno> {
    open_exec(task, AT_FDCWD, path, if path.is_empty() { task_files::AT_EMPTY_PATH } else { 0 })
}

/// Makes a directory the working directory of a task (the first program's `cwd`).
pub fn chdir(task: &Arc<Task>, path: &[u8]) -> Result<(), Errno> {
    chdir_as(&Caller::of(task), path)
}

/// The same with the caller's credentials, whoever's they are.
pub fn chdir_as(caller: &Caller<'_>, path: &[u8]) -> Result<(), Errno> {
    let at = walk::walk(caller, caller.fs.cwd(), path, true)?;
    let inode = at.dentry.inode();
    if inode.kind() != inode::FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    access::check_search(&caller.creds, &**inode)?;
    caller.fs.set_cwd(at);
    Ok(())
}
