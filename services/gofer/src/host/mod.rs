//! The host's files as a 9P backend.
//!
//! Owns: exports, inodes (`O_PATH` handles, one for each file that a client holds, however many fids it has), opening.
//!
//! How a file is opened. The Gofer's root is empty: there is no `/proc/self/fd` to reopen an `O_PATH` handle through.
//! So every inode remembers the place it was last seen at (the handle of the directory and the name), opening goes by
//! that place with `openat2`, never through a link, and the file that came is taken only if it is the inode's (device
//! and inode number; the handle keeps the number from being used again). Renames that the client makes update the
//! place; for one that somebody else makes the answer is ESTALE and the client walks again. A special file is never
//! opened: the kind is known from the handle, and a client that renames a device into the place between check and open
//! finds [`Names`] in its way. Directories are opened through their handle (`.`), with no name involved.
//!
//! What the host mounts below an export that follows it ([`ExportKind::Mounted`]) is kept busy by nobody who only knows
//! of it: an inode there has no handle and is found by its place, from the nearest directory that has one, each time
//! (`Inode::handle`). So an unmount on the host finds it busy only where a container has a file open, as it would
//! natively.
//!
//! Mount points below an export are crossed, but not those of file systems that are a door to the host's kernel (proc,
//! sysfs and their like): such a directory appears empty.

mod attr;
mod files;
mod inode;
mod io;
mod names;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use cofferdam_ninep::Errno;
use cofferdam_shm::Window;

pub use inode::Inode;
use inode::Key;

/// What an export is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportKind {
    /// A directory tree: the descriptor is an `O_PATH` handle of its root.
    Directory,
    /// One file (a file bind): the descriptor is the file, opened `O_RDWR`, or `O_RDONLY` where the export is read-only.
    File,
    /// A directory tree that is mounted under this name of a directory, of which the descriptor is a handle: what the
    /// host mounts on it or below it appears.
    Mounted(Vec<u8>),
}

/// A tree that is served.
#[derive(Debug)]
pub struct Export {
    /// Its name: clients attach to `export/NAME`.
    pub name: String,
    /// Whether every change is refused.
    pub read_only: bool,
    /// What the descriptor is.
    pub kind: ExportKind,
    /// The root.
    pub root: OwnedFd,
    /// An export before it, both for writing, that names may be moved and linked from and to.
    pub beside: Option<String>,
}

/// The memfd shared with the client. Mapped, too, but for nothing than the host to copy into: no byte of it is looked at here.
#[derive(Debug)]
pub struct CacheWindow(Window);

impl CacheWindow {
    /// Takes the memfd; its size is fixed by its seals.
    pub fn new(fd: OwnedFd) -> Result<Self, Errno> {
        let size = rustix::fs::fstat(&fd).map_err(Errno::from)?.st_size;
        let size = u64::try_from(size).map_err(|_| Errno::INVAL)?;
        Window::from_peer(fd, size).map(Self).map_err(|_| Errno::INVAL)
    }

    fn check(&self, offset: u64, count: u32) -> Result<(), Errno> {
        match offset.checked_add(u64::from(count)) {
            Some(end) if end <= self.0.size() => Ok(()),
            _ => Err(Errno::INVAL),
        }
    }
}

/// What all nodes of a tree have in common.
#[derive(Debug)]
pub(crate) struct Tree {
    read_only: bool,
    root: Arc<Inode>,
    /// An open file, for file exports.
    file: Option<Arc<OwnedFd>>,
    /// The same for trees that names may be moved between.
    bond: Arc<()>,
}

impl Tree {
    /// Whether names may be moved and linked between the two. A link from what is only read would make it writable.
    fn is_one_with(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || Arc::ptr_eq(&self.bond, &other.bond) && !self.read_only && !other.read_only
    }
}

/// What a fid stands for.
#[derive(Debug)]
pub struct Node {
    tree: Arc<Tree>,
    inode: Arc<Inode>,
    /// Owner of what is created through this fid (the user that attached).
    uid: u32,
    open: OnceLock<Open>,
}

/// An open file.
#[derive(Debug)]
pub(crate) struct Open {
    fd: Arc<OwnedFd>,
    read: bool,
    write: bool,
    /// Directories: one reader moves the position at a time.
    reading: Mutex<()>,
    _permit: Permit,
}

/// Counts descriptors against the quota.
#[derive(Debug)]
pub(crate) struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Inodes in use, by device and number.
pub(crate) type Table = Mutex<HashMap<Key, std::sync::Weak<Inode>>>;

/// The backend: all exports of one sandbox.
#[derive(Debug)]
pub struct Host {
    trees: HashMap<Vec<u8>, Arc<Tree>>,
    table: Arc<Table>,
    window: Option<CacheWindow>,
    /// Descriptors that may still be opened for clients.
    permits: Arc<AtomicUsize>,
    /// Counts the client's renames and links: see [`Host::settled`].
    names: RwLock<u64>,
    /// Device numbers seen, in order: they make qids of several devices differ.
    devices: Mutex<Vec<u64>>,
}

impl Host {
    /// Serves `exports`; clients may hold `descriptors` files open or in mind at one time.
    pub fn new(exports: Vec<Export>, window: Option<CacheWindow>, descriptors: usize) -> Result<Self, Errno> {
        let mut host = Self {
            trees: HashMap::new(),
            table: Arc::default(),
            window,
            permits: Arc::new(AtomicUsize::new(descriptors)),
            names: RwLock::new(0),
            devices: Mutex::new(Vec::new()),
        };
        for export in exports {
            let (root, file) = match export.kind {
                ExportKind::Directory => (host.adopt(export.root, None)?.0, None),
                ExportKind::Mounted(name) => (host.mounted(export.root, name)?, None),
                ExportKind::File => {
                    let file = export.root.try_clone().map_err(|_| Errno::MFILE)?;
                    (host.adopt(export.root, None)?.0, Some(Arc::new(file)))
                }
            };
            let beside = export.beside.map(|name| host.trees.get(name.as_bytes()).ok_or(Errno::NOENT)).transpose()?;
            let bond = beside.map_or_else(Arc::default, |tree| tree.bond.clone());
            let tree = Tree { read_only: export.read_only, root, file, bond };
            host.trees.insert(export.name.into_bytes(), Arc::new(tree));
        }
        Ok(host)
    }

    fn permit(&self) -> Result<Permit, Errno> {
        self.permits
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .map(|_| Permit(self.permits.clone()))
            .map_err(|_| Errno::NFILE)
    }
}

impl Node {
    fn writable(&self) -> Result<(), Errno> {
        if self.tree.read_only { Err(Errno::ROFS) } else { Ok(()) }
    }

    fn opened(&self) -> Result<&Open, Errno> {
        self.open.get().ok_or(Errno::BADF)
    }
}
