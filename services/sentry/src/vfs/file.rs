//! Open files (open file descriptions), `open(2)`.
//!
//! [`File`] holds what all of them have: flags, position, path, owner. What an open file does is its [`FileOps`].
//! Operations never block: one that would answers EAGAIN, and the system call waits on the file's queue. While an
//! operation moves data from or to the container no lock may be held that a page fault needs.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use crate::errno::Errno;
use crate::filesystems::content::FILE_MAX;
use crate::memory::object::Object;
use crate::sync::Mutex;
use crate::syscalls::SysResult;
use crate::task::Task;
use crate::uio::{Sink, Source};
use crate::vfs::caller::Caller;
use crate::vfs::dnotify::Notifier;
use crate::vfs::fasync;
use crate::vfs::inode::{DirEntry, FileType, InodeRef, OpenHow};
use crate::vfs::mount::{Mount, MountFlags, MountNamespace, PathRef};
use crate::vfs::watch::{self, event};
use crate::wait::{PollMask, WaitQueue};

/// Flags of `open(2)` on x86-64.
#[allow(missing_docs)]
pub mod flags {
    pub const RDONLY: i32 = 0;
    pub const WRONLY: i32 = 1;
    pub const RDWR: i32 = 2;
    pub const ACCMODE: i32 = 3;
    pub const CREAT: i32 = 0o100;
    pub const EXCL: i32 = 0o200;
    pub const NOCTTY: i32 = 0o400;
    pub const TRUNC: i32 = 0o1000;
    pub const APPEND: i32 = 0o2000;
    pub const NONBLOCK: i32 = 0o4000;
    pub const ASYNC: i32 = 0o20000;
    pub const DIRECT: i32 = 0o40000;
    pub const LARGEFILE: i32 = 0o100000;
    pub const DIRECTORY: i32 = 0o200000;
    pub const NOFOLLOW: i32 = 0o400000;
    pub const NOATIME: i32 = 0o1000000;
    pub const CLOEXEC: i32 = 0o2000000;
    pub const DSYNC: i32 = 0o10000;
    /// With [`DSYNC`] in it.
    pub const SYNC: i32 = 0o4010000;
    pub const PATH: i32 = 0o10000000;
    pub const TMPFILE: i32 = 0o20200000;
    /// What `F_SETFL` may change.
    pub const SETTABLE: i32 = APPEND | NONBLOCK | DIRECT | NOATIME;
}

/// What an operation on an open file works with.
pub struct Io<'a> {
    /// The open file.
    pub file: &'a File,
    /// The calling task; `None` when the kernel reads for itself.
    pub task: Option<&'a Arc<Task>>,
}

/// Pages of a file that are in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cached {
    /// All of them.
    pub pages: u64,
    /// Those that are nowhere else.
    pub dirty: u64,
}

/// `lseek(2)` origins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Whence {
    Set,
    Current,
    End,
    Data,
    Hole,
}

/// What an open file does. The defaults are what Linux answers for a file without the operation.
#[allow(unused_variables)]
pub trait FileOps: Send + Sync + 'static {
    /// For callers that look for a certain kind of file (sockets, epoll).
    fn as_any(&self) -> &dyn Any;

    /// Whether it has positions; a stream has none.
    fn seekable(&self) -> bool {
        !self.ignores_seeks()
    }

    /// Whether a stream answers `lseek(2)` with 0 instead of ESPIPE (eventfd and its like).
    fn ignores_seeks(&self) -> bool {
        false
    }

    /// Reads at a position (ignored by streams). 0 at the end; EAGAIN if there is nothing yet.
    fn read(&self, io: &Io<'_>, at: u64, to: &mut Sink<'_>) -> Result<usize, Errno> {
        Err(Errno::EINVAL)
    }

    /// Writes at a position (ignored by streams), or at the end if `append`; the position after it. EAGAIN if nothing
    /// fits now.
    fn write(&self, io: &Io<'_>, at: u64, append: bool, from: &mut Source<'_>) -> Result<(usize, u64), Errno> {
        Err(Errno::EINVAL)
    }

    /// Which events there are now, of those that `poll(2)` knows.
    fn poll(&self, file: &File) -> PollMask {
        PollMask::IN | PollMask::OUT | PollMask::RDNORM | PollMask::WRNORM
    }

    /// The queue that is woken when events come; `None` if they are always there.
    fn queue(&self) -> Option<&WaitQueue> {
        None
    }

    /// How long a read waits before it gives up, nanoseconds (terminals with `VTIME`, sockets with `SO_RCVTIMEO`).
    fn read_timeout(&self) -> Option<i64> {
        None
    }

    /// What a read that gave up answers: 0 by default, as terminals do.
    fn read_timed_out(&self) -> Result<i64, Errno> {
        Ok(0)
    }

    /// How long a write waits before it gives up with EAGAIN, nanoseconds (sockets with `SO_SNDTIMEO`).
    fn write_timeout(&self) -> Option<i64> {
        None
    }

    /// Whether EPIPE of a write comes with SIGPIPE.
    fn breaks_with_signal(&self) -> bool {
        true
    }

    /// Names in a directory; ENOTDIR for others.
    fn entries(&self, caller: &Caller<'_>, file: &File) -> Result<Vec<DirEntry>, Errno> {
        Err(Errno::ENOTDIR)
    }

    /// The highest position of a regular file.
    fn most(&self) -> u64 {
        FILE_MAX
    }

    /// The end for `SEEK_END`, and the next data or hole.
    fn seek(&self, file: &File, offset: u64, whence: Whence) -> Result<u64, Errno> {
        let size = file.inode().attr()?.size;
        match whence {
            Whence::End => Ok(size),
            Whence::Data if offset < size => Ok(offset),
            Whence::Hole if offset < size => Ok(size),
            _ => Err(Errno::ENXIO),
        }
    }

    /// Device-specific requests.
    fn ioctl(&self, task: &Arc<Task>, file: &Arc<File>, request: u32, argument: u64) -> SysResult {
        Err(Errno::ENOTTY)
    }

    /// What a mapping of it shows. `shared` and `write` as asked for.
    fn memory_object(&self, file: &File, shared: bool, write: bool) -> Result<Object, Errno> {
        Err(Errno::ENODEV)
    }

    /// Changes the size.
    fn truncate(&self, file: &File, size: u64) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    /// `fallocate(2)`.
    fn allocate(&self, file: &File, mode: i32, offset: u64, len: u64) -> Result<(), Errno> {
        Err(Errno::ENODEV)
    }

    /// Writes changes back.
    fn sync(&self, file: &File, data_only: bool) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }

    /// What of the pages `[first, end)` is in memory (`cachestat(2)`).
    fn cached(&self, first: u64, end: u64) -> Cached {
        Cached::default()
    }

    /// A descriptor for it in a table was closed (`close(2)` may report what went wrong with writes).
    fn flush(&self, file: &File, table: u64) -> Result<(), Errno> {
        Ok(())
    }

    /// Lines for `/proc/PID/fdinfo/N` after the common ones.
    fn fdinfo(&self) -> String {
        String::new()
    }

    /// Of which events it tells its owner by signals, with `O_ASYNC`: of none by default.
    fn fasync(&self) -> PollMask {
        PollMask::empty()
    }
}

/// `F_SETOWN`, `F_SETSIG`.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Owner {
    /// Process (positive) or process group (negative); 0 for none.
    pub pid: i32,
    pub signal: i32,
    /// Who said so: signals are sent with its rights.
    pub uid: u32,
    pub euid: u32,
}

static NEXT_FILE: AtomicU64 = AtomicU64::new(1);
static OPEN: AtomicU64 = AtomicU64::new(0);

/// How many files are open (`fs.file-nr`).
pub fn open_files() -> u64 {
    OPEN.load(Ordering::Relaxed)
}

/// An open file.
pub struct File {
    /// Unique in the kernel; identifies the file for locks and epoll.
    pub id: u64,
    path: PathRef,
    ops: Box<dyn FileOps>,
    read: bool,
    write: bool,
    path_only: bool,
    claim: Claim,
    flags: AtomicI32,
    position: Mutex<u64>,
    listing: Mutex<Option<Arc<Vec<DirEntry>>>>,
    /// Who gets SIGIO.
    pub owner: Mutex<Owner>,
    /// What tells the owner (`O_ASYNC`).
    pub told: Mutex<Option<fasync::Told>>,
    /// What tells it of a directory (`F_NOTIFY`).
    pub notifier: Mutex<Option<Arc<Notifier>>>,
    /// Rights ([`crate::vfs::landlock::right`]) that who opened it had forbidden itself, of those that are asked for later.
    pub denied: AtomicU64,
}

/// What an open file means to others who open the same file.
enum Claim {
    None,
    /// It is counted as a writer.
    Writer,
    /// It forbids writers.
    Program,
}

/// Of an `O_PATH` file: nothing, or the detached tree of mounts that ends with it.
struct PathOnly {
    _tree: Option<Arc<MountNamespace>>,
}

impl FileOps for PathOnly {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn poll(&self, _file: &File) -> PollMask {
        PollMask::NVAL
    }
}

impl Drop for File {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
        if !self.path_only {
            let what = if self.write { event::CLOSE_WRITE } else { event::CLOSE_NOWRITE };
            watch::file(&self.path.dentry, what);
        }
        match self.claim {
            Claim::None => {}
            Claim::Writer => {
                self.inode().writers().end_write();
                self.mount().end_write();
            }
            Claim::Program => self.inode().writers().allow_write(),
        }
        if let Some(met) = self.inode().met() {
            met.locks.release_file(self.id);
        }
    }
}

impl File {
    /// An open file. `open_flags` are those of `open(2)`; creation flags are dropped.
    pub fn new(path: PathRef, ops: Box<dyn FileOps>, open_flags: i32) -> Arc<Self> {
        Self::make(path, ops, open_flags, Claim::None)
    }

    /// As [`new`](Self::new), for a regular file whose writers are counted (`Writers::begin_write` was called).
    pub fn counted(path: PathRef, ops: Box<dyn FileOps>, open_flags: i32) -> Arc<Self> {
        path.mount.begin_write();
        Self::make(path, ops, open_flags, Claim::Writer)
    }

    /// A program being loaded: nobody may write it (`Writers::deny_write` was called) while this is open.
    pub fn program(path: PathRef, ops: Box<dyn FileOps>) -> Arc<Self> {
        Self::make(path, ops, flags::RDONLY, Claim::Program)
    }

    fn make(path: PathRef, ops: Box<dyn FileOps>, open_flags: i32, claim: Claim) -> Arc<Self> {
        OPEN.fetch_add(1, Ordering::Relaxed);
        let how = access_mode(open_flags);
        let kept = open_flags & !(flags::CREAT | flags::EXCL | flags::NOCTTY | flags::TRUNC | flags::CLOEXEC);
        Arc::new(Self {
            id: NEXT_FILE.fetch_add(1, Ordering::Relaxed),
            path,
            ops,
            read: how.read,
            write: how.write,
            path_only: open_flags & flags::PATH != 0,
            claim,
            flags: AtomicI32::new(kept),
            position: Mutex::new(0),
            listing: Mutex::new(None),
            owner: Mutex::new(Owner::default()),
            told: Mutex::default(),
            notifier: Mutex::default(),
            denied: AtomicU64::new(0),
        })
    }

    /// EACCES if who opened it had forbidden itself this.
    pub fn check_denied(&self, rights: u64) -> Result<(), Errno> {
        if self.denied.load(Ordering::Relaxed) & rights == 0 { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// An `O_PATH` file: a place in the tree and nothing else.
    pub fn path_only(path: PathRef, open_flags: i32) -> Arc<Self> {
        let kept = open_flags & (flags::PATH | flags::DIRECTORY | flags::NOFOLLOW);
        Self::make(path, Box::new(PathOnly { _tree: None }), kept, Claim::None)
    }

    /// The root of a detached tree of mounts, as with `O_PATH`; where nothing else has become of it, the tree ends with the file.
    pub fn of_tree(tree: Arc<MountNamespace>) -> Arc<Self> {
        Self::make(tree.top(), Box::new(PathOnly { _tree: Some(tree) }), flags::PATH, Claim::None)
    }

    /// Where it was opened.
    pub fn path_ref(&self) -> &PathRef {
        &self.path
    }

    /// The inode.
    pub fn inode(&self) -> &InodeRef {
        self.path.dentry.inode()
    }

    /// The mount it was opened through.
    pub fn mount(&self) -> &Arc<Mount> {
        &self.path.mount
    }

    /// Its operations.
    pub fn ops(&self) -> &dyn FileOps {
        &*self.ops
    }

    /// Its operations as a certain type.
    pub fn ops_as<T: 'static>(&self) -> Option<&T> {
        self.ops.as_any().downcast_ref()
    }

    /// Whether it was opened with `O_PATH`.
    pub fn is_path_only(&self) -> bool {
        self.path_only
    }

    /// Whether it may be read.
    pub fn readable(&self) -> bool {
        self.read
    }

    /// Whether it may be written.
    pub fn writable(&self) -> bool {
        self.write
    }

    /// Status flags with the access mode, as `F_GETFL` shows them.
    pub fn flags(&self) -> i32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// `F_SETFL`.
    pub fn set_flags(&self, new: i32) {
        let kept = self.flags() & !flags::SETTABLE;
        self.flags.store(kept | (new & flags::SETTABLE), Ordering::Relaxed);
    }

    /// `O_ASYNC`.
    pub fn set_async(&self, on: bool) {
        if on {
            self.flags.fetch_or(flags::ASYNC, Ordering::Relaxed);
        } else {
            self.flags.fetch_and(!flags::ASYNC, Ordering::Relaxed);
        }
    }

    /// Flags that the file shows and nobody may change (`PIDFD_THREAD`).
    pub fn mark(&self, more: i32) {
        self.flags.fetch_or(more, Ordering::Relaxed);
    }

    /// Whether operations answer EAGAIN instead of waiting.
    pub fn nonblocking(&self) -> bool {
        self.flags() & flags::NONBLOCK != 0
    }

    fn io<'a>(&'a self, task: Option<&'a Arc<Task>>) -> Io<'a> {
        Io { file: self, task }
    }

    /// Tells watches of what was read or written, if anything.
    fn used(&self, done: Result<usize, Errno>, what: u32) -> Result<usize, Errno> {
        if done.is_ok_and(|n| n > 0) {
            watch::file(&self.path.dentry, what);
        }
        done
    }

    fn check_read(&self) -> Result<(), Errno> {
        if !self.read {
            return Err(Errno::EBADF);
        }
        if self.inode().kind() == FileType::Directory {
            return Err(Errno::EISDIR);
        }
        Ok(())
    }

    /// Reads at the file's position and moves it.
    pub fn read(&self, task: Option<&Arc<Task>>, to: &mut Sink<'_>) -> Result<usize, Errno> {
        self.check_read()?;
        if !self.ops.seekable() {
            return self.used(self.ops.read(&self.io(task), 0, to), event::ACCESS);
        }
        let mut position = self.position.lock();
        let n = self.used(self.ops.read(&self.io(task), *position, to), event::ACCESS)?;
        *position = position.saturating_add(n as u64);
        Ok(n)
    }

    /// Reads at a position; ESPIPE for streams.
    pub fn read_at(&self, at: u64, to: &mut Sink<'_>) -> Result<usize, Errno> {
        self.pread(None, at, to)
    }

    /// As [`read_at`](Self::read_at) for a task.
    pub fn pread(&self, task: Option<&Arc<Task>>, at: u64, to: &mut Sink<'_>) -> Result<usize, Errno> {
        if !self.ops.seekable() {
            return Err(if self.path_only { Errno::EBADF } else { Errno::ESPIPE });
        }
        self.check_read()?;
        self.used(self.ops.read(&self.io(task), at, to), event::ACCESS)
    }

    /// Writes at the file's position (or its end) and moves it.
    pub fn write(&self, task: Option<&Arc<Task>>, from: &mut Source<'_>) -> Result<usize, Errno> {
        self.write_with(task, from, self.appends())
    }

    /// Whether what is written goes to the end.
    pub fn appends(&self) -> bool {
        self.flags() & flags::APPEND != 0
    }

    /// As [`write`](Self::write); `append`: at the end or not, whatever the file's flags say (`RWF_APPEND`, `RWF_NOAPPEND`).
    pub fn write_with(&self, task: Option<&Arc<Task>>, from: &mut Source<'_>, append: bool) -> Result<usize, Errno> {
        if !self.write {
            return Err(Errno::EBADF);
        }
        if !self.ops.seekable() {
            return self.used(self.ops.write(&self.io(task), 0, append, from).map(|(n, _)| n), event::MODIFY);
        }
        let mut position = self.position.lock();
        let (n, after) = self.ops.write(&self.io(task), *position, append, from)?;
        *position = after;
        self.used(Ok(n), event::MODIFY)
    }

    /// Writes at a position; ESPIPE for streams. As on Linux, `O_APPEND` wins over the position.
    pub fn pwrite(&self, task: Option<&Arc<Task>>, at: u64, from: &mut Source<'_>) -> Result<usize, Errno> {
        self.pwrite_with(task, at, from, self.appends())
    }

    /// As [`pwrite`](Self::pwrite); `append` as for [`write_with`](Self::write_with).
    pub fn pwrite_with(
        &self,
        task: Option<&Arc<Task>>,
        at: u64,
        from: &mut Source<'_>,
        append: bool,
    ) -> Result<usize, Errno> {
        if !self.ops.seekable() {
            return Err(if self.path_only { Errno::EBADF } else { Errno::ESPIPE });
        }
        if !self.write {
            return Err(Errno::EBADF);
        }
        self.used(self.ops.write(&self.io(task), at, append, from).map(|(n, _)| n), event::MODIFY)
    }

    /// `lseek(2)`.
    pub fn seek(&self, offset: i64, whence: Whence) -> Result<u64, Errno> {
        if self.path_only {
            return Err(Errno::EBADF);
        }
        if self.ops.ignores_seeks() {
            return Ok(0);
        }
        if !self.ops.seekable() {
            return Err(Errno::ESPIPE);
        }
        let mut position = self.position.lock();
        let to = match whence {
            Whence::Set => u64::try_from(offset).map_err(|_| Errno::EINVAL)?,
            Whence::Current => add_signed(*position, offset)?,
            Whence::End => add_signed(self.ops.seek(self, 0, whence)?, offset)?,
            Whence::Data | Whence::Hole => {
                self.ops.seek(self, u64::try_from(offset).map_err(|_| Errno::ENXIO)?, whence)?
            }
        };
        let most = if self.inode().kind() == FileType::Regular { self.ops.most() } else { i64::MAX as u64 };
        if to > most {
            return Err(Errno::EINVAL);
        }
        *position = to;
        Ok(to)
    }

    /// The position.
    pub fn position(&self) -> u64 {
        *self.position.lock()
    }

    /// Gives `visit` each directory entry from the position on, with the position after it, until it answers false.
    pub fn list(
        &self,
        caller: &Caller<'_>,
        visit: &mut dyn FnMut(&DirEntry, u64) -> Result<bool, Errno>,
    ) -> Result<(), Errno> {
        if self.inode().kind() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        let mut position = self.position.lock();
        let old = self.listing.lock().clone();
        let all = match old {
            Some(all) if *position != 0 => all,
            _ => {
                if self.path.dentry.is_deleted() {
                    return Err(Errno::ENOENT);
                }
                let mut all = Vec::new();
                let own = self.inode().attr()?.ino;
                let up = match self.path.up() {
                    Some(p) => p.dentry.inode().attr()?.ino,
                    None => own,
                };
                all.push(DirEntry { name: b".".to_vec(), ino: own, kind: FileType::Directory });
                all.push(DirEntry { name: b"..".to_vec(), ino: up, kind: FileType::Directory });
                all.append(&mut self.ops.entries(caller, self)?);
                let all = Arc::new(all);
                *self.listing.lock() = Some(all.clone());
                all
            }
        };
        let from = usize::try_from(*position).unwrap_or(usize::MAX);
        for e in all.iter().skip(from) {
            if !visit(e, *position + 1)? {
                break;
            }
            *position += 1;
        }
        watch::file(&self.path.dentry, event::ACCESS);
        Ok(())
    }

    /// What a mapping of it shows; errors as `mmap(2)` gives them.
    pub fn memory_object(&self, write: bool, shared: bool) -> Result<Object, Errno> {
        if self.path_only {
            return Err(Errno::EBADF);
        }
        if !self.read || (shared && write && !self.write) {
            return Err(Errno::EACCES);
        }
        self.inode().common().mapped.store(true, Ordering::Release);
        self.ops.memory_object(self, shared, write)
    }

    /// Whether code may not be run or mapped from it (`noexec`).
    pub fn no_exec(&self) -> bool {
        self.path.mount.flags().contains(MountFlags::NO_EXEC)
    }

    /// Events now.
    pub fn poll(&self) -> PollMask {
        self.ops.poll(self)
    }
}

fn add_signed(base: u64, offset: i64) -> Result<u64, Errno> {
    base.checked_add_signed(offset).ok_or(if offset < 0 { Errno::EINVAL } else { Errno::EOVERFLOW })
}

/// What an access mode allows. Mode 3 asks for both permissions and allows neither.
pub fn access_mode(open_flags: i32) -> OpenHow {
    let (read, write) = if open_flags & flags::PATH != 0 {
        (false, false)
    } else {
        match open_flags & flags::ACCMODE {
            flags::RDONLY => (true, false),
            flags::WRONLY => (false, true),
            flags::RDWR => (true, true),
            _ => (false, false),
        }
    };
    OpenHow { flags: open_flags, read, write }
}
