//! Writing back: `fsync`, `fdatasync`, `sync`, `syncfs`, `sync_file_range`; and `memfd_create`.

use std::sync::Arc;

use crate::entry;
use crate::errno::Errno;
use crate::filesystems::anon::Family;
use crate::filesystems::seals;
use crate::filesystems::tree::Tree;
use crate::syscalls::{Entry, Fd, SysResult, UserStr, done, value};
use crate::task::Task;
use crate::vfs::Caller;
use crate::vfs::file::{File, access_mode, flags};
use crate::vfs::inode::{FileType, Inode, NewNode, mode};

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(74, "fsync", Full, "", fsync(Fd)),
    entry!(75, "fdatasync", Full, "", fdatasync(Fd)),
    entry!(162, "sync", Full, "", sync()),
    entry!(306, "syncfs", Full, "", syncfs(Fd)),
    entry!(277, "sync_file_range", Full, "", sync_file_range(Fd, i64, i64, u32)),
    entry!(319, "memfd_create", Partial, "no huge pages (ENOMEM, as with none reserved)", memfd_create(UserStr, u32)),
];

fn fsync(task: &Arc<Task>, fd: Fd) -> SysResult {
    let file = task.file(fd)?;
    file.ops().sync(&file, false)?;
    done()
}

fn fdatasync(task: &Arc<Task>, fd: Fd) -> SysResult {
    let file = task.file(fd)?;
    file.ops().sync(&file, true)?;
    done()
}

fn sync(task: &Arc<Task>) -> SysResult {
    for m in task.fs().namespace().mounts() {
        // sync(2) tells of no errors.
        m.fs.sync().ok();
    }
    done()
}

fn syncfs(task: &Arc<Task>, fd: Fd) -> SysResult {
    task.file(fd)?.mount().fs.sync()?;
    done()
}

fn sync_file_range(task: &Arc<Task>, fd: Fd, at: i64, len: i64, how: u32) -> SysResult {
    if at < 0 || len < 0 || at.checked_add(len).is_none() || how & !7 != 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.file(fd)?;
    match file.inode().kind() {
        FileType::Regular => file.ops().sync(&file, true)?,
        FileType::Fifo | FileType::Socket | FileType::Char => return Err(Errno::ESPIPE),
        _ => {}
    }
    done()
}

const MFD_CLOEXEC: u32 = 1;
const MFD_ALLOW_SEALING: u32 = 2;
const MFD_HUGETLB: u32 = 4;
const MFD_NOEXEC_SEAL: u32 = 8;
const MFD_EXEC: u32 = 16;

fn memfd_create(task: &Arc<Task>, name: UserStr, how: u32) -> SysResult {
    if how & MFD_HUGETLB != 0 {
        // As a kernel with no huge pages reserved.
        return Err(Errno::ENOMEM);
    }
    if how & !(MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL | MFD_EXEC) != 0
        || how & (MFD_EXEC | MFD_NOEXEC_SEAL) == MFD_EXEC | MFD_NOEXEC_SEAL
    {
        return Err(Errno::EINVAL);
    }
    let name = name.read(task, 250, Errno::EINVAL)?;
    let creds = task.creds();
    let (bits, sealed) = match how & (MFD_NOEXEC_SEAL | MFD_ALLOW_SEALING) {
        0 => (0o777, seals::SEAL),
        MFD_ALLOW_SEALING => (0o777, 0),
        _ => (0o666, seals::EXEC),
    };
    let new = NewNode { mode: mode::REGULAR | bits, uid: creds.fsuid, gid: creds.fsgid, rdev: 0 };
    let node = Tree::unnamed_file(task.kernel().memory.clone(), &new, sealed);
    let ops = node.clone().open(&Caller::of(task), access_mode(flags::RDWR))?;
    let mut shown = b"/memfd:".to_vec();
    shown.extend_from_slice(&name);
    // Not counted as a writer, as on Linux: it may be executed while it is open.
    let file = File::new(Family::Memory.place(node, &shown), ops, flags::RDWR | flags::LARGEFILE);
    value(task.add_file(file, how & MFD_CLOEXEC != 0)?)
}
