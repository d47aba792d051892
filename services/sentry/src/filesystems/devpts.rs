//! `/dev/pts`: pseudo terminals by number, and `ptmx`. All instances show the same terminals.

use std::sync::Arc;

use crate::errno::Errno;
use crate::filesystems::anon::AnonInode;
use crate::filesystems::pseudo::{Body, PseudoFs, PseudoNode};
use crate::ipc::tty::{self, PTS_MAJOR, Tty};
use crate::ipc::tty_file::TtyFile;
use crate::vfs::caller::Caller;
use crate::vfs::dentry::Dentry;
use crate::vfs::file::FileOps;
use crate::vfs::inode::{DirEntry, FileSystem, FileType, InodeRef, OpenHow, makedev, mode};

/// `DEVPTS_SUPER_MAGIC`.
const DEVPTS_MAGIC: u64 = 0x1cd1;

/// The node of a terminal in `/dev/pts`, owned by who opened it.
pub fn make_node(tty: &Arc<Tty>, uid: u32, gid: u32) -> InodeRef {
    let of = Arc::downgrade(tty);
    let reopen = Box::new(move |_: &Caller<'_>, _: OpenHow| -> Result<Box<dyn FileOps>, Errno> {
        TtyFile::open(of.upgrade().ok_or(Errno::EIO)?, false)
    });
    let rdev = makedev(PTS_MAJOR, tty.number);
    let make = || AnonInode::device(DEVPTS_MAGIC, mode::CHAR | 0o620, (uid, gid), rdev, Some(reopen));
    tty.node.get_or_init(make).clone()
}

/// Opens `/dev/ptmx`: a new pair, locked.
pub fn open_master(caller: &Caller<'_>) -> Result<Box<dyn FileOps>, Errno> {
    let task = caller.task.ok_or(Errno::ENXIO)?;
    let tty = Tty::new(task.kernel(), None)?;
    make_node(&tty, caller.creds.fsuid, caller.creds.fsgid);
    TtyFile::open(tty, true)
}

/// A new devpts.
pub fn mount() -> (Arc<dyn FileSystem>, Arc<Dentry>) {
    let fs = PseudoFs::new("devpts", DEVPTS_MAGIC);
    let reopen = Box::new(|caller: &Caller<'_>, _: OpenHow| open_master(caller));
    let ptmx = AnonInode::device(fs.dev(), mode::CHAR | 0o666, (0, 0), makedev(5, 2), Some(reopen));
    let list = |_: &Caller<'_>| {
        let entry = |t: Arc<Tty>| DirEntry {
            name: t.number.to_string().into_bytes(),
            ino: u64::from(t.number) + 3,
            kind: FileType::Char,
        };
        Ok(tty::all().into_iter().map(entry).collect())
    };
    let find = |_: &Caller<'_>, name: &[u8]| {
        let number = std::str::from_utf8(name).ok().and_then(|n| n.parse().ok());
        Ok(number.and_then(tty::by_number).and_then(|t| t.node.get().cloned()))
    };
    let body = Body::Dynamic(vec![(b"ptmx".to_vec(), ptmx)], Box::new(list), Box::new(find));
    let root: InodeRef = PseudoNode::new(&fs, 0o755, body);
    (fs, Dentry::root(root))
}
