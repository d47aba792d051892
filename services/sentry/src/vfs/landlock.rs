//! Landlock, `landlock(7)`: what a task has forbidden itself, and all that it starts, to do with files.
//!
//! A [`Domain`] is part of a task's credentials: layers, one for each `landlock_restrict_self`, all of which must allow what is done. A
//! layer names rights that it handles, and files and directories beneath which it grants some of them. Asked by `ops` before
//! permissions, where Linux asks its security modules, and for TCP ports by the calls of sockets. Owned here: rights, rules, and whether
//! a path or a port has a right. Never here: what happens to files and ports.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::errno::Errno;
use crate::filesystems::anon::Family;
use crate::vfs::inode::{FileType, InodeRef};
use crate::vfs::mount::PathRef;

/// `LANDLOCK_ACCESS_FS_*`.
#[allow(missing_docs)]
pub mod right {
    pub const EXECUTE: u64 = 1;
    pub const WRITE_FILE: u64 = 1 << 1;
    pub const READ_FILE: u64 = 1 << 2;
    pub const READ_DIR: u64 = 1 << 3;
    pub const REMOVE_DIR: u64 = 1 << 4;
    pub const REMOVE_FILE: u64 = 1 << 5;
    pub const MAKE_CHAR: u64 = 1 << 6;
    pub const MAKE_DIR: u64 = 1 << 7;
    pub const MAKE_REG: u64 = 1 << 8;
    pub const MAKE_SOCK: u64 = 1 << 9;
    pub const MAKE_FIFO: u64 = 1 << 10;
    pub const MAKE_BLOCK: u64 = 1 << 11;
    pub const MAKE_SYM: u64 = 1 << 12;
    pub const REFER: u64 = 1 << 13;
    pub const TRUNCATE: u64 = 1 << 14;
    pub const IOCTL_DEV: u64 = 1 << 15;
    /// All of them.
    pub const ALL: u64 = (1 << 16) - 1;
    /// Those that make sense for what is no directory.
    pub const FILE: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;
    /// `LANDLOCK_ACCESS_NET_BIND_TCP` and `_CONNECT_TCP`.
    pub const NET: u64 = BIND_TCP | CONNECT_TCP;
    #[allow(missing_docs)]
    pub const BIND_TCP: u64 = 1;
    #[allow(missing_docs)]
    pub const CONNECT_TCP: u64 = 2;
}

/// Layers that a domain may have.
pub const LAYERS_MOST: usize = 16;
/// Rules of one ruleset: memory of the Sentry, which Linux does not bound.
const RULES_MOST: usize = 16_384;

/// One set of rules.
#[derive(Clone, Default)]
pub struct Ruleset {
    /// Rights to files that must be granted.
    pub files: u64,
    /// Rights to TCP ports that must be granted.
    pub ports: u64,
    /// What is granted, by inode, which is kept so that its address stays its own.
    beneath: HashMap<usize, (InodeRef, u64)>,
    /// By port.
    granted: BTreeMap<u16, u64>,
}

fn address(inode: &InodeRef) -> usize {
    Arc::as_ptr(inode).cast::<()>().addr()
}

impl Ruleset {
    /// One that grants nothing of what it handles.
    pub fn new(files: u64, ports: u64) -> Self {
        Self { files, ports, ..Self::default() }
    }

    /// Grants rights beneath a directory, or to a file. E2BIG.
    pub fn grant(&mut self, inode: &InodeRef, rights: u64) -> Result<(), Errno> {
        if self.beneath.len() >= RULES_MOST && !self.beneath.contains_key(&address(inode)) {
            return Err(Errno::E2BIG);
        }
        self.beneath.entry(address(inode)).or_insert_with(|| (inode.clone(), 0)).1 |= rights;
        Ok(())
    }

    /// Grants rights to a port.
    pub fn grant_port(&mut self, port: u16, rights: u64) {
        *self.granted.entry(port).or_insert(0) |= rights;
    }

    /// What is granted for an object itself.
    fn own(&self, inode: &InodeRef) -> u64 {
        self.beneath.get(&address(inode)).map_or(0, |(_, rights)| *rights)
    }

    /// What must be granted: to move things between directories as soon as anything.
    fn handled(&self) -> u64 {
        if self.files == 0 { 0 } else { self.files | right::REFER }
    }
}

/// What a task has forbidden itself.
#[derive(Clone, Default)]
pub struct Domain {
    layers: Vec<Arc<Ruleset>>,
}

impl PartialEq for Domain {
    fn eq(&self, other: &Self) -> bool {
        self.layers.len() == other.layers.len() && self.is_around(other)
    }
}

impl Eq for Domain {}

impl std::fmt::Debug for Domain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} layers", self.layers.len())
    }
}

/// Rights that each layer grants to something.
type Granted = [u64; LAYERS_MOST];

/// One side of a link or rename.
pub struct Side<'a> {
    /// The directory.
    pub dir: &'a PathRef,
    /// What has the name there now.
    pub object: Option<&'a InodeRef>,
}

/// The right to make something of this kind.
pub fn to_make(kind: FileType) -> u64 {
    match kind {
        FileType::Regular => right::MAKE_REG,
        FileType::Directory => right::MAKE_DIR,
        FileType::Link => right::MAKE_SYM,
        FileType::Char => right::MAKE_CHAR,
        FileType::Block => right::MAKE_BLOCK,
        FileType::Fifo => right::MAKE_FIFO,
        FileType::Socket => right::MAKE_SOCK,
    }
}

/// The right to take something of this kind away.
pub fn to_remove(kind: FileType) -> u64 {
    if kind == FileType::Directory { right::REMOVE_DIR } else { right::REMOVE_FILE }
}

/// Whether a place is in a file system of the kernel's own that is mounted nowhere.
pub fn is_internal(top: &PathRef) -> bool {
    matches!(top.mount.fs.name(), "pipefs" | "sockfs" | "anon_inodefs" | "nsfs" | "mqueue")
        || top.mount.fs.dev() == Family::Memory.dev()
}

impl Domain {
    /// With one layer more; E2BIG.
    pub fn with(&self, rules: Ruleset) -> Result<Self, Errno> {
        if self.layers.len() >= LAYERS_MOST {
            return Err(Errno::E2BIG);
        }
        let mut layers = self.layers.clone();
        layers.push(Arc::new(rules));
        Ok(Self { layers })
    }

    /// Whether who is in `inner` is in this domain as well.
    pub fn is_around(&self, inner: &Domain) -> bool {
        self.layers.len() <= inner.layers.len() && self.layers.iter().zip(&inner.layers).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    /// Whether it says anything of files.
    pub fn restricts_files(&self) -> bool {
        self.layers.iter().any(|l| l.files != 0)
    }

    /// What each layer grants to an object, for being beneath what its rules name; all for what is in no tree.
    fn granted(&self, at: &PathRef) -> Granted {
        let mut granted = [0; LAYERS_MOST];
        let mut place = at.clone();
        loop {
            for (g, layer) in granted.iter_mut().zip(&self.layers) {
                *g |= layer.own(place.dentry.inode());
            }
            match place.up() {
                Some(up) => place = up,
                None if is_internal(&place) => return [u64::MAX; LAYERS_MOST],
                None => return granted,
            }
        }
    }

    /// Rights that are denied of those wanted.
    pub fn denied(&self, at: &PathRef, wanted: u64) -> u64 {
        if !self.layers.iter().any(|l| l.files & wanted != 0) {
            return 0;
        }
        let granted = self.granted(at);
        self.layers.iter().zip(granted).fold(0, |denied, (layer, g)| denied | (wanted & layer.files & !g))
    }

    /// EACCES unless all layers grant a right to a TCP port.
    pub fn check_port(&self, port: u16, wanted: u64) -> Result<(), Errno> {
        let granted = |l: &Ruleset| l.granted.get(&port).copied().unwrap_or(0);
        let denied = self.layers.iter().any(|l| l.ports & wanted & !granted(l) != 0);
        if denied { Err(Errno::EACCES) } else { Ok(()) }
    }

    /// EACCES unless all layers grant these rights.
    pub fn check(&self, at: &PathRef, wanted: u64) -> Result<(), Errno> {
        if self.denied(at, wanted) == 0 { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// Whether `from`'s object may get a name in `to`, which is taken from it there where it is moved. EACCES; EXDEV where it could by
    /// that be used for more than before.
    pub fn check_moved(&self, from: &Side<'_>, to: &Side<'_>, moved: bool, exchange: bool) -> Result<(), Errno> {
        if !self.restricts_files() {
            return Ok(());
        }
        let Some(object) = from.object else { return Err(Errno::ENOENT) };
        let mut wants = [0, to_make(object.kind())];
        if let (true, Some(other)) = (exchange, to.object) {
            wants[0] |= to_make(other.kind());
        }
        if moved {
            wants[0] |= to_remove(object.kind());
            wants[1] |= to.object.map_or(0, |o| to_remove(o.kind()));
        }
        if from.dir == to.dir {
            return self.check(to.dir, wants[0] | wants[1]);
        }
        let (here, there) = (self.granted(from.dir), self.granted(to.dir));
        let (mut refused, mut wider) = (false, false);
        for ((layer, here), there) in self.layers.iter().zip(here).zip(there) {
            let handled = layer.handled();
            let missing = (wants[0] & handled & !here) | (wants[1] & handled & !there);
            refused |= missing != 0;
            wider |= handled & right::REFER & !(here & there) != 0;
            // What could be done with it at its new place and not at the old one.
            let gains = |o: &InodeRef, old: u64, new: u64| {
                let of = if o.kind() == FileType::Directory { u64::MAX } else { right::FILE };
                new & !(old | layer.own(o)) & handled & of != 0
            };
            wider |= gains(object, here, there);
            if let (true, Some(other)) = (exchange, to.object) {
                wider |= gains(other, there, here);
            }
        }
        match (refused, wider) {
            (true, _) => Err(Errno::EACCES),
            (false, true) => Err(Errno::EXDEV),
            (false, false) => Ok(()),
        }
    }
}

/// Whether who has the first domain may look into who has the second one (`ptrace(2)`).
pub fn may_look_into(own: Option<&Domain>, other: Option<&Domain>) -> bool {
    own.is_none_or(|own| other.is_some_and(|other| own.is_around(other)))
}
