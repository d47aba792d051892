//! File change events: `inotify_init1(2)`, `inotify_add_watch(2)`, `inotify_rm_watch(2)`.

use std::sync::Arc;

use super::args::AT_FDCWD;
use super::{Entry, Fd, SysResult, UserStr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::ipc::inotify::{self, MASK_ADD, MASK_CREATE, ONESHOT};
use crate::task::Task;
use crate::vfs::Caller;
use crate::vfs::access::{self, READ};
use crate::vfs::file::flags;
use crate::vfs::inode::FileType;
use crate::vfs::task_files::AT_SYMLINK_NOFOLLOW;
use crate::vfs::watch::event;

/// The calls.
pub const TABLE: &[Entry] = &[
    entry!(253, "inotify_init", Full, "", inotify_init()),
    entry!(254, "inotify_add_watch", Full, "", inotify_add_watch(Fd, UserStr, u32)),
    entry!(255, "inotify_rm_watch", Full, "", inotify_rm_watch(Fd, i32)),
    entry!(294, "inotify_init1", Full, "", inotify_init1(i32)),
];

const ONLYDIR: u32 = 0x100_0000;
const DONT_FOLLOW: u32 = 0x200_0000;
/// What a watch may be asked for: events, IN_UNMOUNT, IN_Q_OVERFLOW, IN_IGNORED, and flags.
const KNOWN: u32 =
    event::ALL | 0xe000 | ONLYDIR | DONT_FOLLOW | event::EXCL_UNLINK | MASK_CREATE | MASK_ADD | event::ISDIR | ONESHOT;

fn inotify_init(task: &Arc<Task>) -> SysResult {
    inotify_init1(task, 0)
}

fn inotify_init1(task: &Arc<Task>, options: i32) -> SysResult {
    if options & !(flags::CLOEXEC | flags::NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    value(task.add_file(inotify::inotify(options)?, options & flags::CLOEXEC != 0)?)
}

fn inotify_add_watch(task: &Arc<Task>, fd: Fd, path: UserStr, mask: u32) -> SysResult {
    if mask & KNOWN == 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.files().get(fd.0)?;
    if mask & MASK_ADD != 0 && mask & MASK_CREATE != 0 {
        return Err(Errno::EINVAL);
    }
    let instance = inotify::of(&file)?;
    let follow = if mask & DONT_FOLLOW != 0 { AT_SYMLINK_NOFOLLOW } else { 0 };
    let at = task.at(AT_FDCWD, path, follow)?;
    let inode = at.dentry.inode();
    if mask & ONLYDIR != 0 && inode.kind() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    access::check(&Caller::of(task).creds, &**inode, READ)?;
    value(instance.add(inode, mask)?)
}

fn inotify_rm_watch(task: &Arc<Task>, fd: Fd, wd: i32) -> SysResult {
    let file = task.files().get(fd.0)?;
    inotify::of(&file)?.remove(wd)?;
    done()
}
