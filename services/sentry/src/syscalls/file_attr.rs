//! File attributes as `chattr(1)` has them: `file_getattr`, `file_setattr`, and the requests of `ioctl` for the same.
//!
//! Files of trees in memory have them, all of them off, and none can be turned on. Exports have none: 9P does not tell of them.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::entry;
use crate::errno::Errno;
use crate::syscalls::{Entry, Fd, SysResult, UserPtr, UserStr, done};
use crate::task::Task;
use crate::vfs::mount::PathRef;
use crate::vfs::task_files::{AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW};
use crate::vfs::{File, access};

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(468, "file_getattr", Full, "", file_getattr(Fd, UserStr, UserPtr<FileAttr>, usize, i32)),
    entry!(
        469,
        "file_setattr",
        Partial,
        "no attribute can be set",
        file_setattr(Fd, UserStr, UserPtr<FileAttr>, usize, i32)
    ),
];

/// `struct file_attr`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
struct FileAttr {
    xflags: u64,
    extsize: u32,
    nextents: u32,
    project: u32,
    cow_extsize: u32,
}

/// `struct fsxattr`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
struct FsXattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    project: u32,
    cow_extsize: u32,
    rest: [u8; 8],
}

/// `FS_XFLAG_*` that there are.
const XFLAGS: u64 = 0x8003_fffb;

const GET_FLAGS: u32 = 0x8008_6601;
const SET_FLAGS: u32 = 0x4008_6602;
const GET_XATTR: u32 = 0x801c_581f;
const SET_XATTR: u32 = 0x401c_5820;

/// A request of `ioctl` for them; `None` if it is another.
pub fn request(task: &Arc<Task>, file: &File, request: u32, argument: u64) -> Option<SysResult> {
    let has = || if file.inode().has_flags() { Ok(()) } else { Err(Errno::ENOTTY) };
    let at = file.path_ref();
    Some(match request {
        GET_FLAGS => has().and_then(|()| UserPtr::new(argument).write(task, &0i32)).and_then(|()| done()),
        GET_XATTR => has().and_then(|()| UserPtr::new(argument).write(task, &FsXattr::default())).and_then(|()| done()),
        SET_FLAGS => UserPtr::<i32>::new(argument).read(task).and_then(|flags| {
            at.mount.check_writable()?;
            has()?;
            set(task, at, flags != 0)
        }),
        SET_XATTR => UserPtr::<FsXattr>::new(argument).read(task).and_then(|x| {
            if u64::from(x.xflags) & !XFLAGS != 0 {
                return Err(Errno::EOPNOTSUPP);
            }
            at.mount.check_writable()?;
            has()?;
            set(task, at, x.xflags != 0 || x.extsize != 0 || x.project != 0 || x.cow_extsize != 0)
        }),
        _ => return None,
    })
}

/// Sets attributes of a file that has them: only none at all can be.
fn set(task: &Arc<Task>, at: &PathRef, any: bool) -> SysResult {
    if !access::is_owner(&task.creds(), &at.dentry.inode().attr()?) {
        return Err(Errno::EPERM);
    }
    if any { Err(Errno::EOPNOTSUPP) } else { done() }
}

fn check(at_flags: i32, size: usize) -> Result<(), Errno> {
    if at_flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    if size < size_of::<FileAttr>() { Err(Errno::EINVAL) } else { Ok(()) }
}

fn file_getattr(
    task: &Arc<Task>,
    dirfd: Fd,
    path: UserStr,
    to: UserPtr<FileAttr>,
    size: usize,
    at_flags: i32,
) -> SysResult {
    check(at_flags, size)?;
    let at = task.at_or_open(dirfd, path, at_flags)?;
    if !at.dentry.inode().has_flags() {
        return Err(Errno::EOPNOTSUPP);
    }
    // What the caller knows beyond is nothing, too.
    to.cast::<u8>().write_array(task, &vec![0; size])?;
    done()
}

fn file_setattr(
    task: &Arc<Task>,
    dirfd: Fd,
    path: UserStr,
    from: UserPtr<FileAttr>,
    size: usize,
    at_flags: i32,
) -> SysResult {
    check(at_flags, size)?;
    let a = from.read_sized(task, size)?;
    if a.xflags & !XFLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let at = task.at_or_open(dirfd, path, at_flags)?;
    at.mount.check_writable()?;
    if !at.dentry.inode().has_flags() {
        return Err(Errno::EOPNOTSUPP);
    }
    set(task, &at, a.xflags != 0 || a.extsize != 0 || a.project != 0 || a.cow_extsize != 0)
}
