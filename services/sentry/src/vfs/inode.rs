//! Inodes: what file systems give the rest of the kernel.
//!
//! A file system implements [`Inode`] for its objects and [`FileSystem`] for itself. Owned here: those traits, attributes
//! and the little state that every inode carries whatever its file system ([`Common`]). Never here: permission checks
//! and path walk (`access`, `walk`), which file systems rely on having happened. Called by `vfs` with no lock of the VFS
//! held except a directory's modification lock.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::errno::Errno;
use crate::task::Creds;
use crate::time::{Clock, now};
use crate::vfs::caller::Caller;
use crate::vfs::file::FileOps;
use crate::vfs::meeting::{HostFile, Meeting};
use crate::vfs::mount::PathRef;

/// A shared inode.
pub type InodeRef = Arc<dyn Inode>;

/// Longest name of a directory entry, bytes.
pub const NAME_MAX: usize = 255;

/// File type bits of a mode (`inode(7)`).
#[allow(missing_docs)]
pub mod mode {
    pub const TYPE: u32 = 0o170000;
    pub const SOCKET: u32 = 0o140000;
    pub const LINK: u32 = 0o120000;
    pub const REGULAR: u32 = 0o100000;
    pub const BLOCK: u32 = 0o060000;
    pub const DIRECTORY: u32 = 0o040000;
    pub const CHAR: u32 = 0o020000;
    pub const FIFO: u32 = 0o010000;
    pub const SETUID: u32 = 0o4000;
    pub const SETGID: u32 = 0o2000;
    pub const STICKY: u32 = 0o1000;
    pub const PERMISSIONS: u32 = 0o7777;
}

/// What kind of object an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum FileType {
    Regular,
    Directory,
    Link,
    Char,
    Block,
    Fifo,
    Socket,
}

impl FileType {
    /// The type in a mode; anything unknown counts as regular.
    pub fn of(mode_bits: u32) -> Self {
        match mode_bits & mode::TYPE {
            mode::DIRECTORY => Self::Directory,
            mode::LINK => Self::Link,
            mode::CHAR => Self::Char,
            mode::BLOCK => Self::Block,
            mode::FIFO => Self::Fifo,
            mode::SOCKET => Self::Socket,
            _ => Self::Regular,
        }
    }

    /// Its bits in a mode.
    pub fn bits(self) -> u32 {
        match self {
            Self::Regular => mode::REGULAR,
            Self::Directory => mode::DIRECTORY,
            Self::Link => mode::LINK,
            Self::Char => mode::CHAR,
            Self::Block => mode::BLOCK,
            Self::Fifo => mode::FIFO,
            Self::Socket => mode::SOCKET,
        }
    }

    /// `d_type` in a directory entry.
    pub fn dirent(self) -> u8 {
        (self.bits() >> 12) as u8
    }
}

/// Attributes of an inode, `inode(7)`. Times are nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Attr {
    pub dev: u64,
    pub ino: u64,
    /// Type and permissions.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    /// In units of 512 bytes.
    pub blocks: u64,
    pub block_size: u32,
    pub atime: i64,
    pub mtime: i64,
    pub ctime: i64,
    pub btime: i64,
}

impl Attr {
    /// Of an inode that is made now: its own number, times and links of one name (a directory: and of itself).
    pub fn fresh(dev: u64, new: &NewNode) -> Self {
        let t = file_time();
        Self {
            dev,
            ino: next_ino(),
            mode: new.mode,
            nlink: if FileType::of(new.mode) == FileType::Directory { 2 } else { 1 },
            uid: new.uid,
            gid: new.gid,
            rdev: new.rdev,
            block_size: 4096,
            atime: t,
            mtime: t,
            ctime: t,
            btime: t,
            ..Self::default()
        }
    }

    /// The file type.
    pub fn kind(&self) -> FileType {
        FileType::of(self.mode)
    }
}

/// What to change about an inode; `None` is left as it is. `ctime` follows by itself.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct SetAttr {
    /// Permission bits only.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<i64>,
    pub mtime: Option<i64>,
}

impl SetAttr {
    /// Permissions, owner and times, put into `attr`, and that they changed now.
    pub fn apply(&self, attr: &mut Attr) {
        self.apply_owner_and_mode(attr);
        attr.atime = self.atime.unwrap_or(attr.atime);
        attr.mtime = self.mtime.unwrap_or(attr.mtime);
        attr.ctime = file_time();
    }

    /// Permissions and owner, put into `attr`.
    pub fn apply_owner_and_mode(&self, attr: &mut Attr) {
        attr.mode = self.mode.map_or(attr.mode, |m| (attr.mode & mode::TYPE) | (m & mode::PERMISSIONS));
        attr.uid = self.uid.unwrap_or(attr.uid);
        attr.gid = self.gid.unwrap_or(attr.gid);
    }
}

/// What a new inode starts as.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct NewNode {
    /// Type and permissions (umask applied).
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct DirEntry {
    pub name: Vec<u8>,
    pub ino: u64,
    pub kind: FileType,
}

/// Where a symbolic link leads.
pub enum Link {
    /// To a path.
    Text(Vec<u8>),
    /// Straight to an object (`/proc/PID/fd/N`, `exe`, `cwd`, `root`).
    Jump(PathRef),
}

/// How a file is opened.
#[derive(Clone, Copy, Debug)]
pub struct OpenHow {
    /// `O_*` flags of `open(2)`.
    pub flags: i32,
    /// Reading was asked for.
    pub read: bool,
    /// Writing was asked for.
    pub write: bool,
}

/// `RENAME_NOREPLACE`.
pub const RENAME_NOREPLACE: u32 = 1;
/// `RENAME_EXCHANGE`.
pub const RENAME_EXCHANGE: u32 = 2;
/// `RENAME_WHITEOUT`.
pub const RENAME_WHITEOUT: u32 = 4;

/// The state that every inode has in the kernel, whatever its file system.
#[derive(Default)]
pub struct Common {
    /// Where processes meet that have to do with it: see [`Inode::meeting`].
    pub meeting: OnceLock<Arc<Meeting>>,
    /// Who writes it: see [`Inode::writers`].
    pub writers: Writers,
    /// Was mapped at least once.
    pub mapped: AtomicBool,
    /// Has no name yet and may be given its first (`O_TMPFILE` without `O_EXCL`).
    pub linkable: AtomicBool,
}

/// Above 0: open for writing so many times. Below 0: so many running programs forbid writing.
#[derive(Default)]
pub struct Writers(AtomicI32);

impl Writers {
    /// Counts a writer in; ETXTBSY while a program runs from the file.
    pub fn begin_write(&self) -> Result<(), Errno> {
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| if n < 0 { None } else { n.checked_add(1) })
            .map(|_| ())
            .map_err(|_| Errno::ETXTBSY)
    }

    /// Counts a writer out.
    pub fn end_write(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    /// Forbids writing while a program runs from the file; ETXTBSY if it is open for writing.
    pub fn deny_write(&self) -> Result<(), Errno> {
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| if n > 0 { None } else { n.checked_sub(1) })
            .map(|_| ())
            .map_err(|_| Errno::ETXTBSY)
    }

    /// Ends one [`deny_write`](Self::deny_write).
    pub fn allow_write(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// The getters of an [`Inode`] that keeps its common state and its type in fields of these names.
macro_rules! fields {
    () => {
        fn as_any(&self) -> &dyn std::any::Any {
            self
        }

        fn common(&self) -> &$crate::vfs::inode::Common {
            &self.common
        }

        fn kind(&self) -> $crate::vfs::inode::FileType {
            self.kind
        }
    };
}
pub(crate) use fields;

/// An object of a file system.
///
/// Names arrive checked: not empty, no slash, not `.` or `..`, at most [`NAME_MAX`] bytes. Permissions were checked.
/// The defaults are what a file system without the operation answers.
#[allow(unused_variables)]
pub trait Inode: Send + Sync + 'static {
    /// For file systems to find their own type again.
    fn as_any(&self) -> &dyn Any;

    /// The common state.
    fn common(&self) -> &Common;

    /// The type; never changes.
    fn kind(&self) -> FileType;

    /// Attributes, as `stat(2)` shows them.
    fn attr(&self) -> Result<Attr, Errno>;

    /// Changes attributes.
    fn set_attr(&self, set: &SetAttr) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    /// Whether a caller may do what [`access`](crate::vfs::access) says it wants, where permissions are not those of other files.
    fn permits(&self, creds: &Creds, want: u32) -> Option<bool> {
        None
    }

    /// Whether a cached dentry for this inode may still be used.
    fn valid(&self) -> bool {
        true
    }

    /// Whether names that are not in this directory may be remembered as missing, and names found be cached.
    fn cacheable(&self) -> bool {
        true
    }

    /// Since when what was said of names in this directory holds: a number of the file system's own, which grows.
    /// `None` where names come and go without this kernel: each use of one looks it up again.
    fn names_since(&self) -> Option<u64> {
        Some(0)
    }

    /// Which file of the host it is, where others may be the same.
    fn host_file(&self) -> Option<HostFile> {
        None
    }

    /// Where processes meet that have to do with it, made on first use.
    fn meeting(&self) -> &Arc<Meeting> {
        self.common().meeting.get_or_init(|| Meeting::of(self.host_file()))
    }

    /// The same, if anybody has come there, by this inode or by another of the same file.
    fn met(&self) -> Option<&Arc<Meeting>> {
        let own = &self.common().meeting;
        if own.get().is_none()
            && let Some(others) = self.host_file().and_then(Meeting::known)
        {
            own.set(others).ok();
        }
        own.get()
    }

    /// Who writes it, and who forbids that.
    fn writers(&self) -> &Writers {
        if self.host_file().is_some() { &self.meeting().writers } else { &self.common().writers }
    }

    /// What its memory objects are told from others by ([`MemoryObject::identity`]), if it may be mapped.
    ///
    /// [`MemoryObject::identity`]: crate::memory::object::MemoryObject::identity
    fn mapped_as(&self) -> Option<(u64, u64)> {
        if self.common().mapped.load(Ordering::Acquire) { self.number().ok() } else { None }
    }

    /// Device and inode number, without asking anybody.
    fn number(&self) -> Result<(u64, u64), Errno> {
        self.attr().map(|a| (a.dev, a.ino))
    }

    /// The inode of a name in this directory, `None` if there is none.
    fn lookup(&self, caller: &Caller<'_>, name: &[u8]) -> Result<Option<InodeRef>, Errno> {
        Err(Errno::ENOTDIR)
    }

    /// Looks up names of which each is in the directory before it, where that costs less than one by one: each found or not, as far
    /// as it went. Nothing by default.
    fn lookup_path(&self, names: &[&[u8]]) -> Vec<Option<InodeRef>> {
        Vec::new()
    }

    /// All names in this directory, without `.` and `..`.
    fn entries(&self, caller: &Caller<'_>) -> Result<Vec<DirEntry>, Errno> {
        Err(Errno::ENOTDIR)
    }

    /// Makes a file, directory, device, FIFO or socket; EEXIST if the name is taken.
    fn create(&self, name: &[u8], new: &NewNode) -> Result<InodeRef, Errno> {
        Err(Errno::EPERM)
    }

    /// Makes a regular file without a name (`O_TMPFILE`); [`link`](Self::link) may give it one.
    fn create_unnamed(&self, new: &NewNode) -> Result<InodeRef, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Makes a symbolic link.
    fn symlink(&self, name: &[u8], target: &[u8], new: &NewNode) -> Result<InodeRef, Errno> {
        Err(Errno::EPERM)
    }

    /// Gives `target`, of the same file system, another name.
    fn link(&self, name: &[u8], target: &InodeRef) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    /// Removes a name: of an empty directory if `directory`, of anything else if not.
    fn unlink(&self, name: &[u8], directory: bool) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    /// Moves a name to another directory of the same file system. The caller has excluded loops.
    fn rename(&self, name: &[u8], to: &InodeRef, new_name: &[u8], flags: u32) -> Result<(), Errno> {
        Err(Errno::EPERM)
    }

    /// Where a symbolic link leads; for the walk.
    fn follow(&self, caller: &Caller<'_>) -> Result<Link, Errno> {
        self.readlink(caller).map(Link::Text)
    }

    /// What `readlink(2)` shows.
    fn readlink(&self, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
        Err(Errno::EINVAL)
    }

    /// Opens it. Devices, FIFOs and sockets of any file system never get here: see `filesystems::special`.
    fn open(self: Arc<Self>, caller: &Caller<'_>, how: OpenHow) -> Result<Box<dyn FileOps>, Errno>;

    /// Value of an extended attribute; ENODATA if there is none.
    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Sets an extended attribute; `flags` as in `setxattr(2)`.
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: i32) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Names of the extended attributes.
    fn xattrs(&self) -> Result<Vec<Vec<u8>>, Errno> {
        Ok(Vec::new())
    }

    /// Removes an extended attribute; ENODATA if there is none.
    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Whether there are file attributes (`chattr(1)`). None of them is ever set.
    fn has_flags(&self) -> bool {
        false
    }

    /// Takes the capabilities of a program away whose file is changed. Nothing to do where the host does it.
    fn drop_capabilities(&self) {}

    /// Notes a read (for `atime`, as `relatime` has it).
    fn touch(&self) {}

    /// The inode of another file system whose bytes it shows.
    fn backing(&self) -> Option<InodeRef> {
        None
    }
}

/// What `statfs(2)` says.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct StatFs {
    /// Magic number of the file system type.
    pub kind: u64,
    pub block_size: u64,
    pub blocks: u64,
    pub free: u64,
    pub files: u64,
    pub files_free: u64,
}

/// A mounted file system as a whole.
pub trait FileSystem: Send + Sync {
    /// Type name as in `/proc/mounts`.
    fn name(&self) -> &'static str;
    /// Device number of its inodes.
    fn dev(&self) -> u64;
    /// Space and inodes.
    fn statfs(&self) -> Result<StatFs, Errno>;
    /// Options of its own for `/proc/mounts`, comma separated, without leading comma.
    fn options(&self) -> String {
        String::new()
    }
    /// Writes everything back.
    fn sync(&self) -> Result<(), Errno> {
        Ok(())
    }
    /// It is to hold so many bytes and inodes, where that is said; 0 for no limit. What is wrong with that.
    #[allow(unused_variables)]
    fn resize(&self, size: Option<u64>, nodes: Option<u64>) -> Result<(), &'static str> {
        Err("It has no size")
    }
    /// It is mounted nowhere any more, and nothing of it is open by a name.
    fn unmounted(&self) {}
    /// How many file systems it lies over (overlays).
    fn stack_depth(&self) -> u32 {
        0
    }
    /// It is to be read-only, or not. EROFS if it can be nothing else.
    #[allow(unused_variables)]
    fn reconfigure(&self, read_only: bool) -> Result<(), Errno> {
        Ok(())
    }
}

/// Device numbers as the kernel encodes them for user space (`makedev(3)`).
pub const fn makedev(major: u32, minor: u32) -> u64 {
    let (major, minor) = (major as u64, minor as u64);
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12) | ((major & !0xfff) << 32)
}

/// Major and minor number of a device.
pub const fn split_dev(dev: u64) -> (u32, u32) {
    let major = ((dev >> 8) & 0xfff) | ((dev >> 32) & !0xfff);
    let minor = (dev & 0xff) | ((dev >> 12) & !0xff);
    (major as u32, minor as u32)
}

static NEXT_DEV: AtomicU32 = AtomicU32::new(20);
static NEXT_INO: AtomicU64 = AtomicU64::new(2);

/// A device number for a file system that has no device.
pub fn anonymous_dev() -> u64 {
    makedev(0, NEXT_DEV.fetch_add(1, Ordering::Relaxed))
}

/// An inode number that no other inode of the kernel's own file systems has.
pub fn next_ino() -> u64 {
    NEXT_INO.fetch_add(1, Ordering::Relaxed)
}

/// Now as file times have it.
pub fn file_time() -> i64 {
    now(Clock::Realtime)
}
