//! Device files, FIFOs: what opens when their inode, of whatever file system, is opened.

use crate::errno::Errno;
use crate::vfs::caller::Caller;
use crate::vfs::file::FileOps;
use crate::vfs::inode::{FileType, InodeRef, OpenHow, split_dev};

/// Opens a character or block device by its number; ENXIO if there is no such device.
pub fn open_device(caller: &Caller<'_>, inode: &InodeRef, how: OpenHow) -> Result<Box<dyn FileOps>, Errno> {
    // A host device behind stdio knows how to open itself again.
    if inode.as_any().is::<crate::filesystems::anon::AnonInode>() {
        return inode.clone().open(caller, how);
    }
    let (major, minor) = split_dev(inode.attr()?.rdev);
    match inode.kind() {
        FileType::Char => crate::filesystems::dev::open_char(caller, inode, major, minor, how),
        _ => Err(Errno::ENXIO),
    }
}

/// Opens one side of a FIFO, `fifo(7)`. The system call waits for the other side.
pub fn open_fifo(inode: &InodeRef, how: OpenHow) -> Result<Box<dyn FileOps>, Errno> {
    crate::ipc::pipe::open_fifo(inode, how)
}
