//! Inodes without a place in the tree: pipes, sockets, eventfds, epoll instances; and the empty directory.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use crate::errno::Errno;
use crate::vfs::caller::Caller;
use crate::vfs::dentry::Dentry;
use crate::vfs::file::{File, FileOps};
use crate::vfs::inode::{
    Attr, Common, DirEntry, FileSystem, FileType, Inode, InodeRef, NewNode, OpenHow, SetAttr, StatFs, anonymous_dev,
    mode, next_ino,
};
use crate::vfs::mount::{Mount, MountFlags, PathRef};

/// Opens an anonymous object again, through `/proc/PID/fd/N`.
pub type Reopen = Box<dyn Fn(&Caller<'_>, OpenHow) -> Result<Box<dyn FileOps>, Errno> + Send + Sync>;

/// The file system that anonymous inodes belong to.
pub struct Anonymous {
    dev: u64,
    name: &'static str,
    magic: u64,
}

impl FileSystem for Anonymous {
    fn name(&self) -> &'static str {
        self.name
    }
    fn dev(&self) -> u64 {
        self.dev
    }
    fn statfs(&self) -> Result<StatFs, Errno> {
        Ok(StatFs { kind: self.magic, block_size: 4096, ..StatFs::default() })
    }
}

impl Anonymous {
    /// For an empty root.
    pub fn empty() -> Arc<Self> {
        Arc::new(Self { dev: anonymous_dev(), name: "none", magic: 0x0102_1994 })
    }

    /// Its only directory.
    pub fn root(&self) -> Arc<Dentry> {
        Dentry::root(AnonInode::make(self.dev, mode::DIRECTORY | 0o555, 0, 0, None))
    }
}

/// An inode without a place.
pub struct AnonInode {
    common: Common,
    attr: crate::sync::Mutex<Attr>,
    kind: FileType,
    reopen: Option<Reopen>,
}

impl AnonInode {
    /// An inode of type and permissions `mode`.
    pub fn make(dev: u64, mode: u32, uid: u32, gid: u32, reopen: Option<Reopen>) -> InodeRef {
        Self::device((dev, next_ino()), mode, (uid, gid), 0, reopen)
    }

    /// As [`make`](Self::make), for a device file of that inode number that shows the number `rdev` and opens itself.
    pub fn device(
        (dev, ino): (u64, u64),
        mode: u32,
        (uid, gid): (u32, u32),
        rdev: u64,
        reopen: Option<Reopen>,
    ) -> Arc<Self> {
        // A link each, directories too: nothing is in them.
        let attr = Attr { nlink: 1, ino, ..Attr::fresh(dev, &NewNode { mode, uid, gid, rdev }) };
        Arc::new(Self { common: Common::default(), kind: FileType::of(mode), attr: attr.into(), reopen })
    }

    /// Its only name is gone.
    pub fn unlinked(&self) {
        self.attr.lock().nlink = 0;
    }
}

/// An open file of an inode of its own, without a place and only for its owner, called `name` (`anon_inode:...`).
pub fn file(name: &[u8], ops: Box<dyn FileOps>, open_flags: i32) -> Arc<File> {
    let inode = AnonInode::make(Family::Inode.dev(), 0o600, 0, 0, None);
    File::new(Family::Inode.place(inode, name), ops, open_flags)
}

impl<T> From<T> for crate::sync::Mutex<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl Inode for AnonInode {
    crate::vfs::inode::fields!();
    fn attr(&self) -> Result<Attr, Errno> {
        Ok(*self.attr.lock())
    }
    fn set_attr(&self, set: &SetAttr) -> Result<(), Errno> {
        set.apply(&mut self.attr.lock());
        Ok(())
    }
    fn valid(&self) -> bool {
        self.attr.lock().nlink > 0
    }
    fn lookup(&self, _caller: &Caller<'_>, _name: &[u8]) -> Result<Option<InodeRef>, Errno> {
        if self.kind == FileType::Directory { Ok(None) } else { Err(Errno::ENOTDIR) }
    }
    fn entries(&self, _caller: &Caller<'_>) -> Result<Vec<DirEntry>, Errno> {
        if self.kind == FileType::Directory { Ok(Vec::new()) } else { Err(Errno::ENOTDIR) }
    }
    fn open(self: Arc<Self>, caller: &Caller<'_>, how: OpenHow) -> Result<Box<dyn FileOps>, Errno> {
        match &self.reopen {
            Some(f) => f(caller, how),
            None if self.kind == FileType::Directory => Ok(Box::new(DirectoryFile)),
            None => Err(Errno::ENXIO),
        }
    }
}

/// An open directory of any file system whose inode lists its names.
pub struct DirectoryFile;

impl FileOps for DirectoryFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn entries(&self, caller: &Caller<'_>, file: &File) -> Result<Vec<DirEntry>, Errno> {
        file.inode().entries(caller)
    }
    fn seek(&self, _file: &File, _offset: u64, whence: crate::vfs::file::Whence) -> Result<u64, Errno> {
        if whence == crate::vfs::file::Whence::End { Ok(i64::MAX as u64) } else { Err(Errno::EINVAL) }
    }
    fn sync(&self, _file: &File, _data_only: bool) -> Result<(), Errno> {
        Ok(())
    }
}

/// The kinds of anonymous files, each a file system of its own in `st_dev`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Pipes.
    Pipe,
    /// Sockets.
    Socket,
    /// eventfd, epoll and their like.
    Inode,
    /// memfds.
    Memory,
}

impl Family {
    fn mount(self) -> &'static Arc<Mount> {
        static MOUNTS: [OnceLock<Arc<Mount>>; 4] = [const { OnceLock::new() }; 4];
        let no_exec = MountFlags::NO_EXEC;
        let (index, name, magic, flags) = match self {
            Self::Pipe => (0, "pipefs", 0x5049_5045, no_exec),
            Self::Socket => (1, "sockfs", 0x534f_434b, no_exec),
            Self::Inode => (2, "anon_inodefs", 0x0904_1934, no_exec),
            // A memfd may be a program.
            Self::Memory => (3, "tmpfs", 0x0102_1994, MountFlags::empty()),
        };
        let cell: &OnceLock<Arc<Mount>> = MOUNTS.get(index).unwrap_or(&MOUNTS[0]);
        cell.get_or_init(|| {
            let fs = Arc::new(Anonymous { dev: anonymous_dev(), name, magic });
            let root = fs.root();
            Mount::new(fs, root, name.as_bytes(), flags)
        })
    }

    /// Its device number.
    pub fn dev(self) -> u64 {
        self.mount().fs.dev()
    }

    /// A place for an inode of this family that is shown as `name`.
    pub fn place(self, inode: InodeRef, name: &[u8]) -> PathRef {
        let make = if self == Self::Memory { Dentry::alone_deleted } else { Dentry::alone };
        PathRef { mount: self.mount().clone(), dentry: make(inode, name) }
    }
}
