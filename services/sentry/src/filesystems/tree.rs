//! The in-memory tree: tmpfs, and the overlay of such a tree over a read-only lower file system.
//!
//! A tmpfs is a tree of [`Node`]s. An overlay is the same tree in which a node may stand for an object of the lower file
//! system as long as it has not been changed, and a directory may have lower names besides its own. A changed lower
//! object is kept in the table of its file system, by lower inode number: so hard links of the lower layer stay links
//! when one of them is changed, inode numbers never change, and a directory can be renamed without copying it, since its
//! node takes its lower directory along. Owned here: names and attributes. Bytes are `content`'s.

mod file;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use crate::errno::Errno;
use crate::filesystems::anon::DirectoryFile;
use crate::filesystems::content::{Content, Quota};
use crate::filesystems::seals::Seals;
use crate::memory::store::{PAGE, Store};
use crate::sync::{Mutex, RwLock};
use crate::uio::{Sink, Source};
use crate::vfs::access;
use crate::vfs::caller::Caller;
use crate::vfs::dentry::Dentry;
use crate::vfs::file::{File, FileOps};
use crate::vfs::inode::{
    Attr, Common, DirEntry, FileSystem, FileType, Inode, InodeRef, NewNode, OpenHow, RENAME_EXCHANGE, RENAME_NOREPLACE,
    RENAME_WHITEOUT, SetAttr, StatFs, anonymous_dev, file_time, mode,
};

use file::NodeFile;

/// Inodes a tree may have.
const NODES_MAX: u64 = 4 << 20;
/// Bytes of extended attributes of one inode.
const XATTR_MAX: usize = 128 * 1024;
/// `TMPFS_MAGIC`.
const TMPFS_MAGIC: u64 = 0x0102_1994;
/// `RAMFS_MAGIC`.
const RAMFS_MAGIC: u64 = 0x8584_58f6;
/// `OVERLAYFS_SUPER_MAGIC`.
const OVERLAY_MAGIC: u64 = 0x794c_7630;

enum Lower {
    Clean(Weak<Node>),
    Changed(Arc<Node>),
}

/// A tmpfs, or an overlay.
pub struct Tree {
    store: Arc<Store>,
    quota: Arc<Quota>,
    dev: u64,
    overlay: bool,
    /// A tmpfs without limits, of another name.
    ramfs: bool,
    options: RwLock<String>,
    /// What a tmpfs was mounted with.
    how: Mutex<Tmpfs>,
    nodes: AtomicU64,
    /// Most of them.
    nodes_max: AtomicU64,
    /// Nodes that stand for lower inodes, by device and inode number.
    lower: Mutex<HashMap<(u64, u64), Lower>>,
    /// Held while names change, so that changes of two directories are one.
    names: Mutex<()>,
}

/// Own names of a directory.
type Names = BTreeMap<Box<[u8]>, Name>;

enum Body {
    Directory(Mutex<Names>),
    /// `None` while the bytes are the lower inode's.
    Regular(Mutex<Option<Arc<Content>>>),
    Link(Vec<u8>),
    Special,
}

/// A name in a directory of the tree.
struct Name {
    /// `None` is a whiteout: the lower name does not show.
    node: Option<Arc<Node>>,
    /// Whether the lower directory has that name.
    covers: bool,
}

/// An object of the tree.
pub struct Node {
    me: Weak<Node>,
    tree: Arc<Tree>,
    ino: u64,
    kind: FileType,
    common: Common,
    /// `None` while the attributes are the lower inode's.
    meta: RwLock<Option<Attr>>,
    body: Body,
    lower: Option<InodeRef>,
    /// `None` while the attributes are the lower inode's.
    xattrs: Mutex<Option<BTreeMap<Vec<u8>, Vec<u8>>>>,
    /// Of memfds only.
    seals: Option<Seals>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tree.nodes.fetch_sub(1, Ordering::Relaxed);
        if let Some(key) = self.lower_key() {
            let mut lower = self.tree.lower.lock();
            if matches!(lower.get(&key), Some(Lower::Clean(w)) if w.strong_count() == 0) {
                lower.remove(&key);
            }
        }
    }
}

/// Bytes of a tmpfs without a size.
const TMPFS_MAX: u64 = 8 << 30;

/// What a tmpfs is mounted with (`tmpfs(5)`); `None` where nothing was said.
#[derive(Clone, Debug)]
pub struct Tmpfs {
    /// Bytes.
    pub size: Option<u64>,
    /// Inodes, its root with them.
    pub nodes: Option<u64>,
    /// Permissions of the root directory.
    pub mode: u32,
    /// Who owns that.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Whether it is a ramfs: of another name, and nobody asks how large it is.
    pub ramfs: bool,
}

impl Default for Tmpfs {
    fn default() -> Self {
        Self { size: None, nodes: None, mode: 0o1777, uid: 0, gid: 0, ramfs: false }
    }
}

impl Tmpfs {
    /// With this size and mode.
    pub fn new(size: u64, mode: u32) -> Self {
        Self { size: Some(size), mode, ..Self::default() }
    }

    /// As `/proc/mounts` shows it: what differs from the default.
    fn shown(&self) -> String {
        if self.ramfs {
            return if self.mode == 0o755 { String::new() } else { format!("mode={:o}", self.mode) };
        }
        let mut all = Vec::new();
        all.extend(self.size.map(|s| format!("size={}k", s / 1024)));
        all.extend(self.nodes.map(|n| format!("nr_inodes={n}")));
        all.extend((self.mode != 0o1777).then(|| format!("mode={:o}", self.mode)));
        all.extend((self.uid != 0).then(|| format!("uid={}", self.uid)));
        all.extend((self.gid != 0).then(|| format!("gid={}", self.gid)));
        all.join(",")
    }
}

impl FileSystem for Tree {
    fn name(&self) -> &'static str {
        match (self.overlay, self.ramfs) {
            (true, _) => "overlay",
            (_, true) => "ramfs",
            _ => "tmpfs",
        }
    }
    fn dev(&self) -> u64 {
        self.dev
    }
    fn unmounted(&self) {
        // Those that were changed hold the tree. Dropped with no lock held: each takes this one.
        let changed = std::mem::take(&mut *self.lower.lock());
        drop(changed);
    }
    fn statfs(&self) -> Result<StatFs, Errno> {
        if self.ramfs {
            return Ok(StatFs { kind: RAMFS_MAGIC, block_size: PAGE, ..StatFs::default() });
        }
        let nodes = self.nodes.load(Ordering::Relaxed);
        Ok(StatFs {
            kind: if self.overlay { OVERLAY_MAGIC } else { TMPFS_MAGIC },
            block_size: PAGE,
            blocks: self.quota.limit(),
            // The root directory of an upper layer on disk takes a block, too: none is ever found empty.
            free: self.quota.limit().saturating_sub(self.quota.used().max(u64::from(self.overlay))),
            files: self.nodes_max(),
            files_free: self.nodes_max().saturating_sub(nodes),
        })
    }
    fn options(&self) -> String {
        self.options.read().clone()
    }
    fn resize(&self, size: Option<u64>, nodes: Option<u64>) -> Result<(), &'static str> {
        // 0 is no limit; who had none cannot get one.
        let mut how = self.how.lock();
        let too_small = size.is_some_and(|s| s > 0 && s / PAGE < self.quota.used());
        let too_few = nodes.is_some_and(|n| n > 0 && n < self.nodes.load(Ordering::Relaxed));
        if too_few {
            return Err("Too few inodes for current use");
        }
        if too_small {
            return Err("Too small a size for current use");
        }
        if let Some(size) = size {
            how.size = Some(size).filter(|s| *s > 0);
            self.quota.set_limit(how.size.unwrap_or(TMPFS_MAX) / PAGE);
        }
        if let Some(nodes) = nodes {
            how.nodes = Some(nodes).filter(|n| *n > 0);
            self.nodes_max.store(how.nodes.unwrap_or(NODES_MAX), Ordering::Relaxed);
        }
        *self.options.write() = how.shown();
        Ok(())
    }
}

impl Tree {
    fn make(store: Arc<Store>, size: u64, nodes_max: u64, overlay: bool, ramfs: bool, options: String) -> Arc<Self> {
        Arc::new(Self {
            store,
            quota: Quota::new(size / PAGE),
            dev: anonymous_dev(),
            overlay,
            ramfs,
            options: RwLock::new(options),
            how: Mutex::default(),
            nodes: AtomicU64::new(0),
            nodes_max: AtomicU64::new(nodes_max),
            lower: Mutex::default(),
            names: Mutex::new(()),
        })
    }

    fn nodes_max(&self) -> u64 {
        self.nodes_max.load(Ordering::Relaxed)
    }

    /// A tmpfs, and its root directory.
    pub fn tmpfs(store: Arc<Store>, how: &Tmpfs) -> (Arc<Self>, Arc<Dentry>) {
        let tree = Self::make(
            store,
            how.size.unwrap_or(TMPFS_MAX),
            how.nodes.unwrap_or(NODES_MAX),
            false,
            how.ramfs,
            how.shown(),
        );
        *tree.how.lock() = how.clone();
        let new =
            NewNode { mode: mode::DIRECTORY | (how.mode & mode::PERMISSIONS), uid: how.uid, gid: how.gid, rdev: 0 };
        let root = tree.fresh(&new, Body::Directory(Mutex::default()), 2);
        (tree, Dentry::root(root))
    }

    /// An overlay over the directory `lower`, with at most `size` bytes of changes, and its root directory.
    pub fn overlay(store: Arc<Store>, size: u64, lower: InodeRef) -> Result<(Arc<Self>, Arc<Dentry>), Errno> {
        let tree = Self::make(store, size, NODES_MAX, true, false, String::from("lowerdir=/,upperdir=memory"));
        let root = tree.of_lower(lower)?;
        Ok((tree.clone(), Dentry::root(root)))
    }

    /// A tmpfs that begins with what is in the directory `lower` (`tmpcopyup`): an overlay that nobody sees is one.
    pub fn begun_with(
        store: Arc<Store>,
        size: u64,
        options: String,
        lower: InodeRef,
    ) -> Result<(Arc<Self>, Arc<Dentry>), Errno> {
        let tree = Self::make(store, size, NODES_MAX, false, false, options);
        let root = tree.of_lower(lower)?;
        Ok((tree.clone(), Dentry::root(root)))
    }

    /// A regular file of no tree (memfd), with seals.
    pub fn unnamed_file(store: Arc<Store>, new: &NewNode, seals: u32) -> Arc<Node> {
        let tree = Self::make(store, u64::MAX >> 1, NODES_MAX, false, false, String::new());
        tree.fresh_sealed(new, Body::Regular(Mutex::new(None)), 0, Some(Seals::new(seals)))
    }

    fn fresh(self: &Arc<Self>, new: &NewNode, body: Body, nlink: u32) -> Arc<Node> {
        self.fresh_sealed(new, body, nlink, None)
    }

    fn fresh_sealed(self: &Arc<Self>, new: &NewNode, body: Body, nlink: u32, seals: Option<Seals>) -> Arc<Node> {
        self.nodes.fetch_add(1, Ordering::Relaxed);
        let body = match body {
            Body::Regular(_) => Body::Regular(Mutex::new(Some(Content::new(self.store.clone(), self.quota.clone())))),
            b => b,
        };
        let attr = Attr { nlink, ..Attr::fresh(self.dev, new) };
        Arc::new_cyclic(|me| Node {
            me: me.clone(),
            tree: self.clone(),
            ino: attr.ino,
            kind: attr.kind(),
            common: Common::default(),
            meta: RwLock::new(Some(attr)),
            body,
            lower: None,
            xattrs: Mutex::new(Some(BTreeMap::new())),
            seals,
        })
    }

    /// The node that stands for a lower inode.
    fn of_lower(self: &Arc<Self>, lower: InodeRef) -> Result<Arc<Node>, Errno> {
        let key = lower.number()?;
        let kind = lower.kind();
        // The host may have given the number of one that is gone to another.
        let same = |n: &Arc<Node>| n.lower.as_ref().is_some_and(|l| Arc::ptr_eq(l, &lower));
        let known = |t: &HashMap<(u64, u64), Lower>| match t.get(&key) {
            Some(Lower::Clean(w)) => w.upgrade().filter(same),
            Some(Lower::Changed(n)) => Some(n.clone()),
            None => None,
        };
        if let Some(node) = known(&self.lower.lock()) {
            return Ok(node);
        }
        let body = match kind {
            FileType::Directory => Body::Directory(Mutex::default()),
            FileType::Regular => Body::Regular(Mutex::new(None)),
            _ => Body::Special,
        };
        self.nodes.fetch_add(1, Ordering::Relaxed);
        let node = Arc::new_cyclic(|me| Node {
            me: me.clone(),
            tree: self.clone(),
            // Numbers of the lower layer, marked so that they never meet one of ours.
            ino: key.1 | (1 << 62),
            kind,
            common: Common::default(),
            meta: RwLock::new(None),
            body,
            lower: Some(lower.clone()),
            xattrs: Mutex::new(None),
            seals: None,
        });
        let mut table = self.lower.lock();
        if let Some(other) = known(&table) {
            drop(table);
            return Ok(other);
        }
        table.insert(key, Lower::Clean(Arc::downgrade(&node)));
        Ok(node)
    }
}

impl Node {
    fn lower_key(&self) -> Option<(u64, u64)> {
        self.lower.as_ref()?.number().ok()
    }

    /// Keeps a node that stands for a lower inode, since it is changed now.
    fn keep(&self) {
        if let (Some(key), Some(me)) = (self.lower_key(), self.me.upgrade()) {
            self.tree.lower.lock().insert(key, Lower::Changed(me));
        }
    }

    /// Forgets a lower object whose last name is gone; it lives as long as it is open.
    fn release(&self) {
        if let (Some(key), Some(me)) = (self.lower_key(), self.me.upgrade()) {
            let old = self.tree.lower.lock().insert(key, Lower::Clean(Arc::downgrade(&me)));
            drop(old);
        }
    }

    /// The attributes kept in the node or the lower inode, without size of content.
    fn base_attr(&self) -> Result<Attr, Errno> {
        if let Some(a) = &*self.meta.read() {
            return Ok(*a);
        }
        let lower = self.lower.as_ref().ok_or(Errno::EIO)?;
        let mut a = lower.attr()?;
        (a.dev, a.ino) = (self.tree.dev, self.ino);
        Ok(a)
    }

    fn change<R>(&self, f: impl FnOnce(&mut Attr) -> R) -> Result<R, Errno> {
        if let Some(a) = &mut *self.meta.write() {
            return Ok(f(a));
        }
        let base = self.base_attr()?;
        let r = f(self.meta.write().get_or_insert(base));
        self.keep();
        Ok(r)
    }

    fn touch_names(&self, links: i32) -> Result<(), Errno> {
        let t = file_time();
        self.change(|a| {
            (a.mtime, a.ctime) = (t, t);
            a.nlink = a.nlink.saturating_add_signed(links).max(1);
        })
    }

    fn names(&self) -> Result<&Mutex<Names>, Errno> {
        match &self.body {
            Body::Directory(names) => Ok(names),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn me(&self) -> Result<Arc<Node>, Errno> {
        self.me.upgrade().ok_or(Errno::ESTALE)
    }

    fn lower_names(&self, caller: &Caller<'_>) -> Result<Vec<DirEntry>, Errno> {
        self.lower.as_ref().map_or(Ok(Vec::new()), |l| l.entries(caller))
    }

    /// The node of a name, and whether the lower directory has that name.
    fn find(&self, name: &[u8]) -> Result<(Option<Arc<Node>>, bool), Errno> {
        if let Some(n) = self.names()?.lock().get(name) {
            return Ok((n.node.clone(), n.covers));
        }
        let Some(lower) = &self.lower else { return Ok((None, false)) };
        match lower.lookup(&Caller::nobody(), name)? {
            None => Ok((None, false)),
            Some(inode) => Ok((Some(self.tree.of_lower(inode)?), true)),
        }
    }

    fn set_name(&self, name: &[u8], node: Option<Arc<Node>>, covers: bool) -> Result<(), Errno> {
        let mut names = self.names()?.lock();
        let old = if node.is_none() && !covers {
            names.remove(name)
        } else {
            names.insert(name.into(), Name { node, covers })
        };
        drop(names);
        drop(old);
        Ok(())
    }

    fn enter(&self, name: &[u8], make: impl FnOnce(&Arc<Tree>) -> Arc<Node>) -> Result<InodeRef, Errno> {
        let (old, covers) = self.find(name)?;
        if old.is_some() {
            return Err(Errno::EEXIST);
        }
        if self.base_attr()?.nlink == 0 {
            return Err(Errno::ENOENT);
        }
        if self.tree.nodes.load(Ordering::Relaxed) >= self.tree.nodes_max() {
            return Err(Errno::ENOSPC);
        }
        let node = make(&self.tree);
        let _names = self.tree.names.lock();
        self.set_name(name, Some(node.clone()), covers)?;
        self.touch_names(i32::from(node.kind == FileType::Directory))?;
        Ok(node)
    }

    fn is_empty(&self) -> Result<bool, Errno> {
        let names = self.names()?.lock();
        if names.values().any(|n| n.node.is_some()) {
            return Ok(false);
        }
        let hidden: Vec<Box<[u8]>> = names.keys().cloned().collect();
        drop(names);
        let lower = self.lower_names(&Caller::nobody())?;
        Ok(lower.iter().all(|e| hidden.binary_search_by(|h| (**h).cmp(e.name.as_slice())).is_ok()))
    }

    fn unlinked(&self) -> Result<(), Errno> {
        let t = file_time();
        let directory = self.kind == FileType::Directory;
        let left = self.change(|a| {
            a.nlink = if directory { 0 } else { a.nlink.saturating_sub(1) };
            a.ctime = t;
            a.nlink
        })?;
        if left == 0 {
            self.release();
        }
        Ok(())
    }

    /// The node's own bytes: those of the lower inode are copied first, up to `keep` bytes of them.
    fn own_content(&self, keep: u64) -> Result<Arc<Content>, Errno> {
        let Body::Regular(slot) = &self.body else { return Err(Errno::EINVAL) };
        if let Some(c) = &*slot.lock() {
            return Ok(c.clone());
        }
        let content = Content::new(self.tree.store.clone(), self.tree.quota.clone());
        let lower = self.lower.as_ref().ok_or(Errno::EIO)?;
        let size = lower.attr()?.size;
        if keep > 0 && size > 0 {
            let caller = Caller::nobody();
            let how = OpenHow { flags: 0, read: true, write: false };
            let place = crate::filesystems::anon::Family::Inode.place(lower.clone(), b"lower");
            let file = File::new(place, lower.clone().open(&caller, how)?, 0);
            let mut at = 0;
            while at < size.min(keep) {
                let mut chunk = Vec::new();
                let max = (size.min(keep) - at).min(1 << 20) as usize;
                let n = file.read_at(at, &mut Sink::kernel(&mut chunk, max))?;
                if n == 0 {
                    break;
                }
                content.write(at, false, &mut Source::kernel(&chunk))?;
                at += n as u64;
            }
        }
        if keep >= size {
            content.truncate(size)?;
        }
        let mut slot = slot.lock();
        if let Some(c) = &*slot {
            return Ok(c.clone());
        }
        *slot = Some(content.clone());
        drop(slot);
        self.change(|_| ())?;
        Ok(content)
    }

    fn content(&self) -> Option<Arc<Content>> {
        match &self.body {
            Body::Regular(slot) => slot.lock().clone(),
            _ => None,
        }
    }

    fn written(&self) -> Result<(), Errno> {
        let t = file_time();
        self.change(|a| {
            (a.mtime, a.ctime) = (t, t);
        })
    }

    fn own_xattrs<R>(&self, f: impl FnOnce(&mut BTreeMap<Vec<u8>, Vec<u8>>) -> Result<R, Errno>) -> Result<R, Errno> {
        if self.xattrs.lock().is_none() {
            let mut copy = BTreeMap::new();
            if let Some(lower) = &self.lower {
                for name in lower.xattrs().unwrap_or_default() {
                    if let Ok(v) = lower.xattr(&name) {
                        copy.insert(name, v);
                    }
                }
            }
            self.change(|_| ())?;
            self.xattrs.lock().get_or_insert(copy);
        }
        f(self.xattrs.lock().get_or_insert_default())
    }

    fn resize(&self, size: u64) -> Result<(), Errno> {
        if self.kind == FileType::Directory {
            return Err(Errno::EISDIR);
        }
        let content = self.own_content(size)?;
        if let Some(seals) = &self.seals {
            seals.check_resize(content.size(), size)?;
        }
        content.truncate(size)?;
        self.written()
    }
}

/// The seals of a memfd; `None` for any other file.
pub fn seals(inode: &InodeRef) -> Option<&Seals> {
    inode.as_any().downcast_ref::<Node>()?.seals.as_ref()
}

fn node_of(inode: &InodeRef) -> Result<Arc<Node>, Errno> {
    inode.as_any().downcast_ref::<Node>().ok_or(Errno::EXDEV)?.me()
}

impl Inode for Node {
    crate::vfs::inode::fields!();

    fn attr(&self) -> Result<Attr, Errno> {
        let mut a = self.base_attr()?;
        match &self.body {
            Body::Regular(slot) => {
                if let Some(c) = &*slot.lock() {
                    a.size = c.size();
                    a.blocks = c.pages() * (PAGE / 512);
                }
            }
            Body::Link(target) => a.size = target.len() as u64,
            Body::Directory(names) if self.lower.is_none() => a.size = names.lock().len() as u64 * 20 + 40,
            _ => {}
        }
        Ok(a)
    }

    fn set_attr(&self, set: &SetAttr) -> Result<(), Errno> {
        if let Some(size) = set.size {
            self.resize(size)?;
        }
        if let (Some(seals), Some(m)) = (&self.seals, set.mode) {
            seals.check_mode(self.attr()?.mode, m)?;
        }
        self.change(|a| set.apply(a))
    }

    fn names_since(&self) -> Option<u64> {
        self.lower.as_ref().filter(|_| self.kind == FileType::Directory).map_or(Some(0), |l| l.names_since())
    }

    fn number(&self) -> Result<(u64, u64), Errno> {
        Ok((self.tree.dev, self.ino))
    }

    fn lookup(&self, _caller: &Caller<'_>, name: &[u8]) -> Result<Option<InodeRef>, Errno> {
        Ok(self.find(name)?.0.map(|n| n as InodeRef))
    }

    fn entries(&self, caller: &Caller<'_>) -> Result<Vec<DirEntry>, Errno> {
        let lower = self.lower_names(caller)?;
        let names = self.names()?.lock();
        let mut out: Vec<DirEntry> = names
            .iter()
            .filter_map(|(n, e)| {
                let node = e.node.as_ref()?;
                Some(DirEntry { name: n.to_vec(), ino: node.ino, kind: node.kind })
            })
            .collect();
        let shown = lower.into_iter().filter(|e| !names.contains_key(e.name.as_slice()));
        out.extend(shown.map(|e| DirEntry { ino: e.ino | (1 << 62), ..e }));
        Ok(out)
    }

    fn create(&self, name: &[u8], new: &NewNode) -> Result<InodeRef, Errno> {
        let (body, nlink) = match FileType::of(new.mode) {
            FileType::Directory => (Body::Directory(Mutex::default()), 2),
            FileType::Regular => (Body::Regular(Mutex::new(None)), 1),
            FileType::Link => return Err(Errno::EINVAL),
            _ => (Body::Special, 1),
        };
        self.enter(name, |tree| tree.fresh(new, body, nlink))
    }

    fn create_unnamed(&self, new: &NewNode) -> Result<InodeRef, Errno> {
        Ok(self.tree.fresh(new, Body::Regular(Mutex::new(None)), 0))
    }

    fn symlink(&self, name: &[u8], target: &[u8], new: &NewNode) -> Result<InodeRef, Errno> {
        self.enter(name, |tree| tree.fresh(new, Body::Link(target.to_vec()), 1))
    }

    fn link(&self, name: &[u8], target: &InodeRef) -> Result<(), Errno> {
        let node = node_of(target)?;
        if !Arc::ptr_eq(&node.tree, &self.tree) {
            return Err(Errno::EXDEV);
        }
        let (old, covers) = self.find(name)?;
        if old.is_some() {
            return Err(Errno::EEXIST);
        }
        let t = file_time();
        let _names = self.tree.names.lock();
        node.change(|a| {
            a.nlink += 1;
            a.ctime = t;
        })?;
        self.set_name(name, Some(node), covers)?;
        self.touch_names(0)
    }

    fn unlink(&self, name: &[u8], directory: bool) -> Result<(), Errno> {
        let (node, covers) = self.find(name)?;
        let node = node.ok_or(Errno::ENOENT)?;
        match (directory, node.kind == FileType::Directory) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            (true, true) if !node.is_empty()? => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        let _names = self.tree.names.lock();
        self.set_name(name, None, covers)?;
        self.touch_names(-i32::from(directory))?;
        node.unlinked()
    }

    fn rename(&self, name: &[u8], to: &InodeRef, new_name: &[u8], flags: u32) -> Result<(), Errno> {
        let to = node_of(to)?;
        if !Arc::ptr_eq(&to.tree, &self.tree) {
            return Err(Errno::EXDEV);
        }
        let (node, covers) = self.find(name)?;
        let node = node.ok_or(Errno::ENOENT)?;
        let (old, old_covers) = to.find(new_name)?;
        let is_dir = i32::from(node.kind == FileType::Directory);
        if flags & RENAME_EXCHANGE != 0 {
            let other = old.ok_or(Errno::ENOENT)?;
            let other_dir = i32::from(other.kind == FileType::Directory);
            let _names = self.tree.names.lock();
            self.set_name(name, Some(other), covers)?;
            to.set_name(new_name, Some(node), old_covers)?;
            self.touch_names(other_dir - is_dir)?;
            return to.touch_names(is_dir - other_dir);
        }
        if let Some(old) = &old {
            if flags & RENAME_NOREPLACE != 0 {
                return Err(Errno::EEXIST);
            }
            if Arc::ptr_eq(old, &node) {
                return Ok(());
            }
            match (is_dir == 1, old.kind == FileType::Directory) {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                (true, true) if !old.is_empty()? => return Err(Errno::ENOTEMPTY),
                _ => {}
            }
        }
        let whiteout = match flags & RENAME_WHITEOUT {
            0 => None,
            _ if self.tree.nodes.load(Ordering::Relaxed) >= self.tree.nodes_max() => return Err(Errno::ENOSPC),
            _ => {
                let a = self.base_attr()?;
                let new = NewNode { mode: mode::CHAR, uid: a.uid, gid: a.gid, rdev: 0 };
                Some(self.tree.fresh(&new, Body::Special, 1))
            }
        };
        let t = file_time();
        let _names = self.tree.names.lock();
        node.change(|a| a.ctime = t)?;
        to.set_name(new_name, Some(node), old_covers)?;
        self.set_name(name, whiteout, covers)?;
        self.touch_names(-is_dir)?;
        let replaced_dir = i32::from(old.as_ref().is_some_and(|o| o.kind == FileType::Directory));
        to.touch_names(is_dir - replaced_dir)?;
        old.map_or(Ok(()), |o| o.unlinked())
    }

    fn readlink(&self, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
        match (&self.body, &self.lower) {
            (Body::Link(t), _) => Ok(t.clone()),
            (_, Some(lower)) => lower.readlink(caller),
            _ => Err(Errno::EINVAL),
        }
    }

    fn open(self: Arc<Self>, caller: &Caller<'_>, how: OpenHow) -> Result<Box<dyn FileOps>, Errno> {
        match &self.body {
            Body::Directory(_) => Ok(Box::new(DirectoryFile)),
            Body::Regular(_) => {
                let lower = OnceLock::new();
                if self.content().is_none()
                    && how.flags & crate::vfs::file::flags::TRUNC == 0
                    && let Some(l) = &self.lower
                {
                    let how = OpenHow { flags: 0, read: true, write: false };
                    lower.set(l.clone().open(caller, how)?).ok();
                }
                Ok(Box::new(NodeFile { node: self, lower }))
            }
            _ => Err(Errno::ENXIO),
        }
    }

    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        if let Some(own) = &*self.xattrs.lock() {
            return own.get(name).cloned().ok_or(Errno::ENODATA);
        }
        self.lower.as_ref().ok_or(Errno::ENODATA)?.xattr(name)
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: i32) -> Result<(), Errno> {
        self.own_xattrs(|own| {
            match (flags, own.contains_key(name)) {
                (libc::XATTR_CREATE, true) => return Err(Errno::EEXIST),
                (libc::XATTR_REPLACE, false) => return Err(Errno::ENODATA),
                _ => {}
            }
            let used: usize = own.iter().map(|(k, v)| k.len() + v.len()).sum();
            if used + name.len() + value.len() > XATTR_MAX {
                return Err(Errno::ENOSPC);
            }
            own.insert(name.to_vec(), value.to_vec());
            Ok(())
        })?;
        let t = file_time();
        self.change(|a| a.ctime = t)
    }

    fn xattrs(&self) -> Result<Vec<Vec<u8>>, Errno> {
        if let Some(own) = &*self.xattrs.lock() {
            return Ok(own.keys().cloned().collect());
        }
        self.lower.as_ref().map_or(Ok(Vec::new()), |l| l.xattrs())
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        self.own_xattrs(|own| own.remove(name).map(|_| ()).ok_or(Errno::ENODATA))?;
        let t = file_time();
        self.change(|a| a.ctime = t)
    }

    fn drop_capabilities(&self) {
        let may_have = self.xattrs.lock().as_ref().map_or(self.lower.is_some(), |own| !own.is_empty());
        if may_have {
            self.own_xattrs(|own| Ok(own.remove(access::CAPABILITIES))).ok();
        }
    }

    fn has_flags(&self) -> bool {
        matches!(self.kind, FileType::Regular | FileType::Directory)
    }

    fn touch(&self) {
        let t = file_time();
        // As relatime: only where it says something new. Lower objects stay as they are.
        if let Some(a) = &mut *self.meta.write()
            && (a.atime <= a.mtime || a.atime <= a.ctime || t - a.atime > 86_400 * crate::time::NS)
        {
            a.atime = t;
        }
    }
}
