//! Attributes for reading: `stat` and its forms, `statx`, `statfs`, `access`, `readlink`.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::entry;
use crate::errno::Errno;
use crate::syscalls::args::AT_FDCWD;
use crate::syscalls::{Entry, Fd, SysResult, UserPtr, UserStr, done, value};
use crate::task::{Creds, Task};
use crate::time::Timespec;
use crate::vfs::inode::{Attr, FileType, split_dev};
use crate::vfs::mount::{MountFlags, PathRef};
use crate::vfs::task_files::{AT_EMPTY_PATH, AT_NO_AUTOMOUNT, AT_REMOVEDIR, AT_SYMLINK_NOFOLLOW};
use crate::vfs::{Caller, access as permission, task_files};

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(4, "stat", Full, "", stat(UserStr, UserPtr<Stat>)),
    entry!(5, "fstat", Full, "", fstat(Fd, UserPtr<Stat>)),
    entry!(6, "lstat", Full, "", lstat(UserStr, UserPtr<Stat>)),
    entry!(262, "newfstatat", Full, "", fstatat(Fd, UserStr, UserPtr<Stat>, i32)),
    entry!(332, "statx", Full, "", statx(Fd, UserStr, i32, u32, UserPtr<Statx>)),
    entry!(137, "statfs", Full, "", statfs(UserStr, UserPtr<StatFsRaw>)),
    entry!(138, "fstatfs", Full, "", fstatfs(Fd, UserPtr<StatFsRaw>)),
    entry!(21, "access", Full, "", access(UserStr, u32)),
    entry!(269, "faccessat", Full, "", faccessat(Fd, UserStr, u32)),
    entry!(439, "faccessat2", Full, "", faccessat2(Fd, UserStr, u32, i32)),
    entry!(89, "readlink", Full, "", readlink(UserStr, u64, i32)),
    entry!(267, "readlinkat", Full, "", readlinkat(Fd, UserStr, u64, i32)),
];

/// `struct stat` of x86-64.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct Stat {
    dev: u64,
    ino: u64,
    nlink: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    pad: u32,
    rdev: u64,
    size: u64,
    block_size: u64,
    blocks: u64,
    atime: Timespec,
    mtime: Timespec,
    ctime: Timespec,
    unused: [u64; 3],
}

impl Stat {
    /// As someone with these credentials sees it.
    fn of(a: &Attr, creds: &Creds) -> Self {
        Self {
            dev: a.dev,
            ino: a.ino,
            nlink: u64::from(a.nlink),
            mode: a.mode,
            uid: creds.shown_uid(a.uid),
            gid: creds.shown_gid(a.gid),
            pad: 0,
            rdev: a.rdev,
            size: a.size,
            block_size: u64::from(a.block_size),
            blocks: a.blocks,
            atime: Timespec::from_ns(a.atime),
            mtime: Timespec::from_ns(a.mtime),
            ctime: Timespec::from_ns(a.ctime),
            unused: [0; 3],
        }
    }
}

fn put(task: &Arc<Task>, at: &PathRef, to: UserPtr<Stat>) -> SysResult {
    to.write(task, &Stat::of(&at.dentry.inode().attr()?, &task.creds()))?;
    done()
}

fn stat(task: &Arc<Task>, path: UserStr, to: UserPtr<Stat>) -> SysResult {
    put(task, &task.at(AT_FDCWD, path, 0)?, to)
}

fn lstat(task: &Arc<Task>, path: UserStr, to: UserPtr<Stat>) -> SysResult {
    put(task, &task.at(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW)?, to)
}

fn fstat(task: &Arc<Task>, fd: Fd, to: UserPtr<Stat>) -> SysResult {
    put(task, task.files().get_any(fd.0)?.path_ref(), to)
}

fn fstatat(task: &Arc<Task>, dirfd: Fd, path: UserStr, to: UserPtr<Stat>, at_flags: i32) -> SysResult {
    if at_flags & !(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    put(task, &task.at(dirfd, path, at_flags)?, to)
}

/// `struct statx_timestamp`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct StatxTime {
    sec: i64,
    nsec: u32,
    pad: i32,
}

/// `struct statx`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct Statx {
    mask: u32,
    block_size: u32,
    attributes: u64,
    nlink: u32,
    uid: u32,
    gid: u32,
    mode: u16,
    pad: u16,
    ino: u64,
    size: u64,
    blocks: u64,
    attributes_mask: u64,
    atime: StatxTime,
    btime: StatxTime,
    ctime: StatxTime,
    mtime: StatxTime,
    rdev: [u32; 2],
    dev: [u32; 2],
    mount: u64,
    rest: [u64; 13],
}

const STATX_BASIC: u32 = 0x7ff;
const STATX_BTIME: u32 = 0x800;
const STATX_MNT_ID: u32 = 0x1000;
const STATX_MNT_ID_UNIQUE: u32 = 0x4000;
const STATX_RESERVED: u32 = 0x8000_0000;
const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;
const AT_STATX_SYNC_TYPE: i32 = 0x6000;

fn statx(task: &Arc<Task>, dirfd: Fd, path: UserStr, at_flags: i32, mask: u32, to: UserPtr<Statx>) -> SysResult {
    const KNOWN: i32 = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE;
    if at_flags & !KNOWN != 0 || mask & STATX_RESERVED != 0 || at_flags & AT_STATX_SYNC_TYPE == AT_STATX_SYNC_TYPE {
        return Err(Errno::EINVAL);
    }
    let at = task.at(dirfd, path, at_flags)?;
    let a = at.dentry.inode().attr()?;
    let time = |ns: i64| {
        let t = Timespec::from_ns(ns);
        StatxTime { sec: t.sec, nsec: t.nsec as u32, pad: 0 }
    };
    let creds = task.creds();
    let pair = |d: u64| {
        let (major, minor) = split_dev(d);
        [major, minor]
    };
    let unique = mask & STATX_MNT_ID_UNIQUE != 0;
    let s = Statx {
        mask: STATX_BASIC
            | if unique { STATX_MNT_ID_UNIQUE } else { STATX_MNT_ID }
            | if a.btime != 0 { STATX_BTIME } else { 0 },
        block_size: a.block_size,
        attributes: if Arc::ptr_eq(&at.dentry, &at.mount.root) { STATX_ATTR_MOUNT_ROOT } else { 0 },
        nlink: a.nlink,
        uid: creds.shown_uid(a.uid),
        gid: creds.shown_gid(a.gid),
        mode: a.mode as u16,
        pad: 0,
        ino: a.ino,
        size: a.size,
        blocks: a.blocks,
        attributes_mask: STATX_ATTR_MOUNT_ROOT,
        atime: time(a.atime),
        btime: time(a.btime),
        ctime: time(a.ctime),
        mtime: time(a.mtime),
        rdev: pair(a.rdev),
        dev: pair(a.dev),
        mount: if unique { at.mount.unique() } else { at.mount.id },
        rest: [0; 13],
    };
    to.write(task, &s)?;
    done()
}

/// `struct statfs`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct StatFsRaw {
    kind: u64,
    block_size: u64,
    blocks: u64,
    free: u64,
    available: u64,
    files: u64,
    files_free: u64,
    id: [i32; 2],
    name_len: u64,
    fragment: u64,
    flags: u64,
    spare: [u64; 4],
}

/// How times of access are kept: ST_NOATIME, ST_NODIRATIME, ST_RELATIME.
fn times(at: &PathRef) -> u64 {
    let f = at.mount.flags();
    [(MountFlags::NO_ATIME, 0x400), (MountFlags::NO_DIRATIME, 0x800), (MountFlags::RELATIME, 0x1000)]
        .iter()
        .filter(|(flag, _)| f.contains(*flag))
        .map(|(_, bit)| bit)
        .sum()
}

fn put_statfs(task: &Arc<Task>, at: &PathRef, to: UserPtr<StatFsRaw>) -> SysResult {
    let s = at.mount.fs.statfs()?;
    let dev = at.mount.fs.dev();
    let raw = StatFsRaw {
        kind: s.kind,
        block_size: s.block_size,
        blocks: s.blocks,
        free: s.free,
        available: s.free,
        files: s.files,
        files_free: s.files_free,
        id: [dev as i32, (dev >> 32) as i32],
        name_len: 255,
        fragment: s.block_size,
        // ST_VALID, and the mount flags, whose low bits are the same.
        flags: 0x20 | u64::from((at.mount.flags().bits() & 0xf) | u32::from(at.mount.all_read_only())) | times(at),
        spare: [0; 4],
    };
    to.write(task, &raw)?;
    done()
}

fn statfs(task: &Arc<Task>, path: UserStr, to: UserPtr<StatFsRaw>) -> SysResult {
    put_statfs(task, &task.at(AT_FDCWD, path, 0)?, to)
}

fn fstatfs(task: &Arc<Task>, fd: Fd, to: UserPtr<StatFsRaw>) -> SysResult {
    put_statfs(task, task.files().get_any(fd.0)?.path_ref(), to)
}

const AT_EACCESS: i32 = AT_REMOVEDIR;

fn faccessat2(task: &Arc<Task>, dirfd: Fd, path: UserStr, want: u32, at_flags: i32) -> SysResult {
    if want & !7 != 0 || at_flags & !(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let mut caller = Caller::of(task);
    if at_flags & AT_EACCESS == 0 {
        // As the real user: with all capabilities for root, with none for others (access(2)).
        let mut creds = (*caller.creds).clone();
        (creds.fsuid, creds.fsgid) = (creds.ruid, creds.rgid);
        creds.effective = if creds.is_root(creds.ruid) { creds.permitted } else { 0 };
        caller.creds = Arc::new(creds);
    }
    let path = path.read_path(task)?;
    let at = task_files::resolve(task, &caller, dirfd, &path, at_flags)?;
    let inode = at.dentry.inode();
    let no_exec = at.mount.flags().contains(MountFlags::NO_EXEC);
    if want & permission::EXEC != 0 && inode.kind() == FileType::Regular && no_exec {
        return Err(Errno::EACCES);
    }
    permission::check(&caller.creds, &**inode, want)?;
    let special = matches!(inode.kind(), FileType::Char | FileType::Block | FileType::Fifo | FileType::Socket);
    if want & permission::WRITE != 0 && !special {
        at.mount.check_writable()?;
    }
    done()
}

fn faccessat(task: &Arc<Task>, dirfd: Fd, path: UserStr, want: u32) -> SysResult {
    faccessat2(task, dirfd, path, want, 0)
}

fn access(task: &Arc<Task>, path: UserStr, want: u32) -> SysResult {
    faccessat2(task, AT_FDCWD, path, want, 0)
}

fn readlinkat(task: &Arc<Task>, dirfd: Fd, path: UserStr, to: u64, size: i32) -> SysResult {
    let size = usize::try_from(size).ok().filter(|s| *s > 0).ok_or(Errno::EINVAL)?;
    let at = task.at(dirfd, path, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    let inode = at.dentry.inode();
    if inode.kind() != FileType::Link {
        // An empty path means the link that the descriptor holds; without one there is nothing of that name.
        return Err(if path.read_path(task)?.is_empty() { Errno::ENOENT } else { Errno::EINVAL });
    }
    let mut target = inode.readlink(&Caller::of(task))?;
    target.truncate(size);
    task.write_exact(to, &target)?;
    value(target.len())
}

fn readlink(task: &Arc<Task>, path: UserStr, to: u64, size: i32) -> SysResult {
    readlinkat(task, AT_FDCWD, path, to, size)
}
