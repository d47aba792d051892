//! Mounts and mount namespaces, `mount_namespaces(7)`.
//!
//! One table for all namespaces says what is mounted at (mount, directory): a mount is of one namespace only. A dentry that nothing
//! is mounted on says so itself, so a warm walk never looks into the table. Owned here: the table, paths of mounted directories
//! ([`PathRef::path_from`]), what is mounted elsewhere because of a mount here (`propagate`). Never here: who may mount
//! (`syscalls::mount`).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Weak};

use crate::errno::Errno;
use crate::namespaces::{Base, Namespace, UserNamespace, nsfs};
use crate::sync::{Mutex, RwLock, RwLockWriteGuard};
use crate::vfs::dentry::Dentry;
use crate::vfs::inode::FileSystem;
use propagate::{Ties, Way};

bitflags::bitflags! {
    /// Flags of a mount (`MS_*` of `mount(2)`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct MountFlags: u32 {
        /// Nothing may be changed through it.
        const READ_ONLY = 1;
        /// setuid and setgid bits and file capabilities have no effect.
        const NO_SUID = 2;
        /// Device files cannot be opened.
        const NO_DEV = 4;
        /// Nothing may be run or mapped executable from it.
        const NO_EXEC = 8;
        /// Access times are not updated.
        const NO_ATIME = 1024;
        /// Access times of directories are not updated.
        const NO_DIRATIME = 2048;
        /// Symbolic links are not followed.
        const NO_SYMFOLLOW = 256;
        /// Access times are updated only when older than the other times.
        const RELATIME = 1 << 21;
        /// How access times are kept.
        const TIMES = 1024 | 2048 | (1 << 21);
    }
}

pub mod detached;
pub mod propagate;

static NEXT_MOUNT: AtomicU64 = AtomicU64::new(1);
/// Mounts that there are, those in no tree, too.
static ALIVE: AtomicUsize = AtomicUsize::new(0);

/// Unique numbers of mounts are above this, so that nobody takes one for the other.
pub const FIRST_UNIQUE: u64 = 1 << 31;

/// Mounts a namespace may hold (`fs.mount-max`).
pub const MOUNT_MAX: usize = 100_000;
/// Mounts of all namespaces together: memory of the Sentry.
const ALL_MAX: usize = 500_000;

/// ENOSPC if there is no room for so many more mounts.
pub fn check_room(more: usize) -> Result<(), Errno> {
    if ALIVE.load(Ordering::Relaxed).saturating_add(more) > ALL_MAX { Err(Errno::ENOSPC) } else { Ok(()) }
}

/// What all mounts of a file system share.
struct Ground {
    /// Read-only wherever it is mounted (a remount that is no bind).
    read_only: AtomicBool,
    /// Who mounted it first: the owner of its ids and of its devices.
    owner: Arc<UserNamespace>,
    /// The file system.
    fs: Arc<dyn FileSystem>,
    /// Its root.
    top: Arc<Dentry>,
    /// Files open for writing through any mount of it.
    writers: AtomicU32,
    /// Held while names of it move between directories, so that no two moves make a loop.
    renames: Mutex<()>,
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.top.cool();
        self.fs.unmounted();
    }
}

/// A file system, or part of one, at a place in a namespace.
pub struct Mount {
    /// Its number, as in `/proc/PID/mountinfo`; unique in the kernel.
    pub id: u64,
    /// The file system.
    pub fs: Arc<dyn FileSystem>,
    /// The directory (or file) that is shown at the mount point.
    pub root: Arc<Dentry>,
    /// What was named as the source, for `/proc/mounts`.
    pub source: Vec<u8>,
    flags: AtomicU32,
    ground: Arc<Ground>,
    /// Cannot be bound elsewhere (`MS_UNBINDABLE`).
    unbindable: AtomicBool,
    /// Came with others from a namespace of more rights, and cannot be taken away from them (`MNT_LOCKED`).
    locked: AtomicBool,
    /// Flags that came from there, and can only be tightened: those of [`MountFlags`].
    flag_locks: AtomicU32,
    namespace: RwLock<Weak<MountNamespace>>,
    /// It is in a detached tree: what is mounted elsewhere is not mounted on it.
    adrift: AtomicBool,
    ties: Mutex<Ties>,
    /// Files open for writing through it.
    writers: AtomicU32,
    parent: RwLock<Option<PathRef>>,
}

impl Mount {
    /// A mount of `root` of `fs`, not yet placed anywhere.
    pub fn new(fs: Arc<dyn FileSystem>, root: Arc<Dentry>, source: &[u8], flags: MountFlags) -> Arc<Self> {
        Self::of(fs, root, source, flags, UserNamespace::initial())
    }

    /// The same, mounted by someone in a user namespace.
    pub fn of(
        fs: Arc<dyn FileSystem>,
        root: Arc<Dentry>,
        source: &[u8],
        flags: MountFlags,
        owner: Arc<UserNamespace>,
    ) -> Arc<Self> {
        let read_only = AtomicBool::new(flags.contains(MountFlags::READ_ONLY));
        let mut top = root.clone();
        while let Some(up) = top.parent() {
            top = up;
        }
        let ground =
            Ground { read_only, owner, fs: fs.clone(), top, writers: AtomicU32::new(0), renames: Mutex::new(()) };
        Self::make(fs, root, source, flags, Arc::new(ground))
    }

    /// Another mount of the same file system, that shows `root`, not yet tied to any other.
    fn another(&self, root: Arc<Dentry>) -> Arc<Self> {
        let new = Self::make(self.fs.clone(), root, &self.source, self.flags(), self.ground.clone());
        new.flag_locks.store(self.flag_locks.load(Ordering::Relaxed), Ordering::Relaxed);
        new.locked.store(self.is_locked(), Ordering::Relaxed);
        new.set_unbindable(self.is_unbindable());
        new
    }

    /// The file system alone: another mount of it, in no tree, that shows `root` and keeps none busy.
    pub fn apart(&self, root: Arc<Dentry>) -> Arc<Self> {
        self.another(root)
    }

    fn make(
        fs: Arc<dyn FileSystem>,
        root: Arc<Dentry>,
        source: &[u8],
        flags: MountFlags,
        ground: Arc<Ground>,
    ) -> Arc<Self> {
        ALIVE.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            id: NEXT_MOUNT.fetch_add(1, Ordering::Relaxed),
            fs,
            root,
            source: source.to_vec(),
            flags: AtomicU32::new(flags.bits()),
            ground,
            unbindable: AtomicBool::new(false),
            locked: AtomicBool::new(false),
            flag_locks: AtomicU32::new(0),
            namespace: RwLock::default(),
            adrift: AtomicBool::new(false),
            ties: Mutex::default(),
            writers: AtomicU32::new(0),
            parent: RwLock::new(None),
        })
    }

    /// A mount of an empty, read-only directory.
    pub fn empty() -> Arc<Self> {
        let fs = crate::filesystems::anon::Anonymous::empty();
        let root = fs.root();
        Self::new(fs, root, b"none", MountFlags::READ_ONLY)
    }

    /// Its number for those that ask for one that is never used again.
    pub fn unique(&self) -> u64 {
        FIRST_UNIQUE + self.id
    }

    /// Its flags.
    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_truncate(self.flags.load(Ordering::Relaxed))
    }

    /// Changes its flags, without looking at who uses it.
    pub fn set_flags(&self, flags: MountFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
    }

    /// The user namespace of who mounted the file system.
    pub fn owner(&self) -> &Arc<UserNamespace> {
        &self.ground.owner
    }

    /// Whether device files can be opened: not those that someone in a namespace of his own put there.
    pub fn has_devices(&self) -> bool {
        !self.flags().contains(MountFlags::NO_DEV) && self.owner().is_initial()
    }

    /// The namespace it is in; `None` if it is in no tree, or in none any more.
    pub fn namespace(&self) -> Option<Arc<MountNamespace>> {
        self.namespace.read().upgrade()
    }

    /// Whether it cannot be taken away from the mounts that it came with.
    pub fn is_locked(&self) -> bool {
        self.locked.load(Ordering::Relaxed)
    }

    /// Flags that cannot be taken away.
    pub fn flag_locks(&self) -> MountFlags {
        MountFlags::from_bits_truncate(self.flag_locks.load(Ordering::Relaxed))
    }

    /// EPERM if a flag would be taken away that must stay.
    fn check_locks(&self, flags: MountFlags) -> Result<(), Errno> {
        let locks = self.flag_locks();
        let kept = locks & !MountFlags::TIMES;
        let times =
            !locks.intersects(MountFlags::TIMES) || flags & MountFlags::TIMES == self.flags() & MountFlags::TIMES;
        if flags.contains(kept) && times { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// It comes into a namespace of fewer rights: what it forbids there stays forbidden; its place, too, unless it is the first.
    fn lock(&self, first: bool) {
        let forbids = MountFlags::READ_ONLY | MountFlags::NO_SUID | MountFlags::NO_DEV | MountFlags::NO_EXEC;
        let locks = self.flags() & forbids | MountFlags::TIMES;
        self.flag_locks.fetch_or(locks.bits(), Ordering::Relaxed);
        if !first {
            self.locked.store(true, Ordering::Relaxed);
        }
    }

    /// `MS_REMOUNT`: of this mount, and of the whole file system, if it is to be read-only or not. EBUSY if it is to be read-only and is written to; EPERM if
    /// a flag must stay.
    pub fn remount(&self, flags: MountFlags, whole: Option<bool>) -> Result<(), Errno> {
        self.check_locks(flags)?;
        let read_only = flags.contains(MountFlags::READ_ONLY);
        if read_only && self.writers.load(Ordering::Acquire) > 0 {
            return Err(Errno::EBUSY);
        }
        if let Some(read_only) = whole {
            self.reconfigure(read_only)?;
        }
        self.set_flags(flags);
        Ok(())
    }

    /// Makes the whole file system read-only or not, wherever it is mounted. EBUSY if it is written to.
    pub fn reconfigure(&self, read_only: bool) -> Result<(), Errno> {
        if read_only && !self.all_read_only() && self.ground.writers.load(Ordering::Acquire) > 0 {
            return Err(Errno::EBUSY);
        }
        self.fs.reconfigure(read_only)?;
        self.ground.read_only.store(read_only, Ordering::Relaxed);
        Ok(())
    }

    /// Whether it shows the same file system as another.
    pub fn is_of_same(&self, other: &Mount) -> bool {
        Arc::ptr_eq(&self.ground, &other.ground)
    }

    /// Held while names of its file system move between directories.
    pub fn renames(&self) -> &Mutex<()> {
        &self.ground.renames
    }

    /// Whether the file system is read-only, wherever it is mounted.
    pub fn all_read_only(&self) -> bool {
        self.ground.read_only.load(Ordering::Relaxed)
    }

    /// Whether it cannot be bound elsewhere.
    pub fn is_unbindable(&self) -> bool {
        self.unbindable.load(Ordering::Relaxed)
    }

    /// Sets that.
    pub fn set_unbindable(&self, on: bool) {
        self.unbindable.store(on, Ordering::Relaxed);
    }

    /// Counts a file in that is open for writing.
    pub fn begin_write(&self) {
        self.writers.fetch_add(1, Ordering::AcqRel);
        self.ground.writers.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts it out.
    pub fn end_write(&self) {
        self.writers.fetch_sub(1, Ordering::AcqRel);
        self.ground.writers.fetch_sub(1, Ordering::AcqRel);
    }

    /// EROFS if it is read-only.
    pub fn check_writable(&self) -> Result<(), Errno> {
        if self.all_read_only() || self.flags().contains(MountFlags::READ_ONLY) { Err(Errno::EROFS) } else { Ok(()) }
    }

    /// The path of what it shows, from the root of its file system.
    pub fn shown(&self) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = self.root.clone();
        while let Some(up) = at.parent() {
            names.push(at.name());
            at = up;
        }
        if names.is_empty() {
            // A name outside of any tree (`uts:[7]`) stands for itself.
            let name = self.root.name();
            return if name.is_empty() { b"/".to_vec() } else { name.to_vec() };
        }
        names.iter().rev().flat_map(|n| std::iter::once(b'/').chain(n.iter().copied())).collect()
    }

    /// Where it is mounted; `None` for the root of a namespace.
    pub fn parent(&self) -> Option<PathRef> {
        self.parent.read().clone()
    }
}

/// An object in the tree of files: a mount, and a name in it.
#[derive(Clone)]
pub struct PathRef {
    /// The mount.
    pub mount: Arc<Mount>,
    /// The name.
    pub dentry: Arc<Dentry>,
}

impl PartialEq for PathRef {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.mount, &other.mount) && Arc::ptr_eq(&self.dentry, &other.dentry)
    }
}

impl PathRef {
    /// The root of a mount.
    pub fn root_of(mount: &Arc<Mount>) -> Self {
        Self { mount: mount.clone(), dentry: mount.root.clone() }
    }

    /// Whether it is the root of its mount.
    pub fn is_root_of_mount(&self) -> bool {
        Arc::ptr_eq(&self.dentry, &self.mount.root)
    }

    /// The directory above, across mounts; `None` at the root of the namespace or of a detached tree.
    pub fn up(&self) -> Option<PathRef> {
        let mut at = self.clone();
        while Arc::ptr_eq(&at.dentry, &at.mount.root) {
            at = at.mount.parent()?;
        }
        let dentry = at.dentry.parent()?;
        Some(PathRef { mount: at.mount, dentry })
    }

    /// The path as seen from `root`; the second value is false if it cannot be reached from there.
    pub fn path_from(&self, root: &PathRef) -> (Vec<u8>, bool) {
        let mut names: Vec<Arc<[u8]>> = Vec::new();
        let mut at = self.clone();
        let mut reached = true;
        while at != *root {
            if Arc::ptr_eq(&at.dentry, &at.mount.root) {
                match at.mount.parent() {
                    Some(p) => at = p,
                    None => {
                        reached = Arc::ptr_eq(&at.dentry, &root.dentry);
                        break;
                    }
                }
                continue;
            }
            names.push(at.dentry.name());
            match at.dentry.parent() {
                Some(p) => at.dentry = p,
                None => {
                    reached = false;
                    break;
                }
            }
        }
        // A name outside of any tree (`pipe:[7]`) stands for itself.
        if let [one] = names.as_slice()
            && self.dentry.parent().is_none()
            && !Arc::ptr_eq(&self.dentry, &self.mount.root)
        {
            return (one.to_vec(), true);
        }
        let mut path = Vec::new();
        for n in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(n);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        (path, reached)
    }

    /// The path from the top of its mount tree, with ` (deleted)` where the name is gone.
    pub fn full(&self) -> Vec<u8> {
        let mut top = self.clone();
        while let Some(p) = top.mount.parent() {
            top = p;
        }
        self.display(&PathRef::root_of(&top.mount))
    }

    /// As [`path_from`](Self::path_from), with ` (deleted)` where the name is gone, as `/proc` shows it.
    pub fn display(&self, root: &PathRef) -> Vec<u8> {
        let (mut path, _) = self.path_from(root);
        if self.dentry.is_deleted() {
            path.extend_from_slice(b" (deleted)");
        }
        path
    }
}

type Key = (u64, usize);

/// What is mounted where, by mount number and address of the dentry; the mount keeps the dentry alive through its parent path.
static FOREST: LazyLock<RwLock<HashMap<Key, Arc<Mount>>>> = LazyLock::new(RwLock::default);

fn key(at: &PathRef) -> Key {
    (at.mount.id, Arc::as_ptr(&at.dentry).addr())
}

/// What is to be seen at a place: the root of what is mounted there, or the place itself.
pub fn cross(mut at: PathRef) -> PathRef {
    while at.dentry.mounted.load(Ordering::Acquire) > 0 {
        match FOREST.read().get(&key(&at)) {
            Some(m) => at = PathRef::root_of(m),
            None => break,
        }
    }
    at
}

/// A change under way: the table, and what is let go of once that is free again.
struct Change {
    forest: RwLockWriteGuard<'static, HashMap<Key, Arc<Mount>>>,
    /// Dropped after the lock: the last reference to a mount may tell another service to forget a file.
    gone: Vec<Arc<Mount>>,
    namespaces: Vec<Arc<MountNamespace>>,
}

impl Change {
    fn new() -> Self {
        Self { forest: FOREST.write(), gone: Vec::new(), namespaces: Vec::new() }
    }

    fn namespace_of(&mut self, mount: &Mount) -> Option<Arc<MountNamespace>> {
        let found = mount.namespace()?;
        self.namespaces.push(found.clone());
        Some(found)
    }

    /// What is on top at a place.
    fn cross(&self, mut at: PathRef) -> PathRef {
        while let Some(m) = self.forest.get(&key(&at)) {
            at = PathRef::root_of(m);
        }
        at
    }

    fn put(&mut self, mount: &Arc<Mount>, at: PathRef) {
        at.dentry.mounted.fetch_add(1, Ordering::AcqRel);
        self.forest.insert(key(&at), mount.clone());
        let before = mount.parent.write().replace(at);
        self.gone.extend(before.map(|p| p.mount));
    }

    fn take(&mut self, mount: &Arc<Mount>) {
        let Some(at) = mount.parent.write().take() else { return };
        self.gone.extend(self.forest.remove(&key(&at)));
        at.dentry.mounted.fetch_sub(1, Ordering::AcqRel);
        self.gone.push(at.mount);
    }

    /// Takes a tree of mounts from its place; all but the first keep in mind where they lie in it.
    fn uproot(&mut self, tree: &[Arc<Mount>]) {
        for (i, m) in tree.iter().enumerate() {
            let at = m.parent().filter(|_| i > 0);
            self.take(m);
            *m.parent.write() = at;
        }
    }

    /// Puts a tree of mounts at a place: its first there, the others where they have been told that they lie.
    fn plant(&mut self, tree: &[Arc<Mount>], at: PathRef, namespace: &Arc<MountNamespace>) {
        let mut place = Some(at);
        for m in tree {
            let at = place.take().or_else(|| m.parent());
            *m.namespace.write() = Arc::downgrade(namespace);
            m.adrift.store(namespace.detached.is_some(), Ordering::Relaxed);
            if let Some(at) = at {
                self.put(m, at);
            }
        }
        namespace.order.write().extend_from_slice(tree);
    }
}

/// Copies of mounts, parents first; the first shows `root`. Left out with all on them: those that cannot be bound, unless `all`;
/// those of mount namespaces, which could hold themselves.
fn copy_tree(tree: &[Arc<Mount>], root: Arc<Dentry>, way: Way, all: bool) -> Vec<Arc<Mount>> {
    let mut copies = Copies::new();
    let mut made = Vec::new();
    for m in tree {
        let place = match m.parent() {
            _ if made.is_empty() => None,
            Some(p) => match copies.get(&p.mount.id) {
                Some(parent) => Some(PathRef { mount: parent.clone(), dentry: p.dentry }),
                None => continue,
            },
            None => continue,
        };
        let holds = matches!(nsfs::of_dentry(&m.root), Some(Namespace::Mount(_)));
        if place.is_some() && (holds || !all && m.is_unbindable()) {
            continue;
        }
        let shown = if place.is_some() { m.root.clone() } else { root.clone() };
        let copy = m.another(shown);
        propagate::tie(m, &copy, way);
        *copy.parent.write() = place;
        copies.insert(m.id, copy.clone());
        made.push(copy);
    }
    made
}

fn lock_tree(tree: &[Arc<Mount>]) {
    tree.iter().enumerate().for_each(|(i, m)| m.lock(i == 0));
}

/// Copies of mounts, by the numbers of what they are copies of.
pub type Copies = HashMap<u64, Arc<Mount>>;

/// The mounts that a group of processes sees.
pub struct MountNamespace {
    root: RwLock<Arc<Mount>>,
    /// Parents before what is mounted on them.
    order: RwLock<Vec<Arc<Mount>>>,
    /// Whose it is.
    pub base: Base,
    /// Of a tree that nobody's root is in: the number of the namespace that it was copied from, 0 if it was copied from none.
    detached: Option<u64>,
}

impl Drop for MountNamespace {
    fn drop(&mut self) {
        let mut change = Change::new();
        let order = std::mem::take(&mut *self.order.write());
        for m in &order {
            change.take(m);
            propagate::make_private(m);
        }
        change.gone.extend(order);
    }
}

/// Mounts at or below a place, parents first.
fn below(mounts: &[Arc<Mount>], from: &PathRef) -> Vec<Arc<Mount>> {
    let mut found: Vec<Arc<Mount>> = Vec::new();
    let mut known = HashSet::new();
    for m in mounts {
        let Some(p) = m.parent() else { continue };
        let direct = Arc::ptr_eq(&p.mount, &from.mount) && p.dentry.is_below(&from.dentry);
        if direct || known.contains(&p.mount.id) {
            known.insert(m.id);
            found.push(m.clone());
        }
    }
    found
}

/// The numbers of mounts.
fn numbers(mounts: &[Arc<Mount>]) -> HashSet<u64> {
    mounts.iter().map(|m| m.id).collect()
}

impl MountNamespace {
    /// A namespace with one mount.
    pub fn new(root: Arc<Mount>, base: Base) -> Arc<Self> {
        let order = RwLock::new(vec![root.clone()]);
        let new = Arc::new(Self { root: RwLock::new(root.clone()), order, base, detached: None });
        *root.namespace.write() = Arc::downgrade(&new);
        new
    }

    /// A copy with mounts of its own, and which mount became which (by number). ENOSPC for too many mounts.
    pub fn copy(&self, base: Base) -> Result<(Arc<Self>, Copies), Errno> {
        let mut change = Change::new();
        check_room(self.order.read().len())?;
        let fewer = base.owner != self.base.owner;
        let way = if fewer { Way::SharedToSlave } else { Way::Alike };
        let root = self.root.read().clone();
        // The root may have been put in by `pivot`: it comes first all the same.
        let mut old = vec![root.clone()];
        old.extend(below(&self.order.read(), &PathRef::root_of(&root)));
        let tree = copy_tree(&old, root.root.clone(), way, true);
        if fewer {
            // The root, too: only `pivot_root(2)` takes it away, and hands the lock on.
            tree.iter().for_each(|m| m.lock(false));
        }
        let kept = old.iter().filter(|m| !matches!(nsfs::of_dentry(&m.root), Some(Namespace::Mount(_))));
        let map = kept.zip(&tree).map(|(m, copy)| (m.id, copy.clone())).collect();
        let first = tree.first().cloned().unwrap_or(root);
        let copy = Self::new(first.clone(), base);
        for m in tree.iter().skip(1) {
            *m.namespace.write() = Arc::downgrade(&copy);
            if let Some(at) = m.parent() {
                change.put(m, at);
            }
            copy.order.write().push(m.clone());
        }
        drop(change);
        Ok((copy, map))
    }

    /// Its root directory: that of what is mounted over all else there.
    pub fn top(&self) -> PathRef {
        let root = self.root.read().clone();
        cross(PathRef::root_of(&root))
    }

    /// Whether a mount is one of its own.
    pub fn has(&self, mount: &Mount) -> bool {
        std::ptr::eq(mount.namespace.read().as_ptr(), self)
    }

    /// Mounts `mount` at a place, over whatever is mounted there already.
    pub fn attach(self: &Arc<Self>, at: PathRef, mount: &Arc<Mount>) -> Result<(), Errno> {
        let mut change = Change::new();
        let at = change.cross(at);
        self.attach_tree(&mut change, at, vec![mount.clone()], None)
    }

    /// Mounts a tree at a place, taken away from the namespace `from` if it is of one.
    fn attach_tree(
        self: &Arc<Self>,
        change: &mut Change,
        at: PathRef,
        tree: Vec<Arc<Mount>>,
        from: Option<&Arc<MountNamespace>>,
    ) -> Result<(), Errno> {
        if !self.has(&at.mount) {
            return Err(Errno::EINVAL);
        }
        let full = |ns: &Self, more: usize| ns.order.read().len().saturating_add(more) > MOUNT_MAX;
        let moved = from.is_some_and(|from| Arc::ptr_eq(from, self));
        if !moved && full(self, tree.len()) {
            return Err(Errno::ENOSPC);
        }
        let copies = propagate::copies(&at, &tree)?;
        let mut planted = Vec::new();
        for (place, copy) in copies {
            let Some(ns) = change.namespace_of(&place.mount) else { continue };
            if full(&ns, copy.len()) {
                return Err(Errno::ENOSPC);
            }
            planted.push((ns, place, copy));
        }
        if let Some(from) = from {
            let moved = numbers(&tree);
            from.order.write().retain(|m| !moved.contains(&m.id));
            change.uproot(&tree);
        }
        change.plant(&tree, at, self);
        for (ns, place, copy) in planted {
            let Some(first) = copy.first().cloned() else { continue };
            first.locked.store(false, Ordering::Relaxed);
            if ns.base.owner != self.base.owner {
                lock_tree(&copy);
            }
            // What lies over the place already stays on top.
            let over = change.forest.get(&key(&place)).cloned();
            if let Some(over) = &over {
                change.take(over);
            }
            change.plant(&copy, place, &ns);
            if let Some(over) = over {
                let last = change.cross(PathRef::root_of(&first));
                change.put(&over, last);
                ns.sort(&over);
            }
        }
        Ok(())
    }

    /// Moves a mount, and all on it, behind those that it now lies on.
    fn sort(&self, moved: &Arc<Mount>) {
        let mut order = self.order.write();
        let mut after = vec![moved.clone()];
        after.extend(below(&order, &PathRef::root_of(moved)));
        let moved = numbers(&after);
        order.retain(|m| !moved.contains(&m.id));
        order.append(&mut after);
    }

    /// Shows `from` at another place as well (`MS_BIND`), with what is mounted below it if `all`. EINVAL if it cannot be.
    pub fn bind(self: &Arc<Self>, from: &PathRef, at: PathRef, all: bool) -> Result<(), Errno> {
        let mut change = Change::new();
        let copy = self.copy_of(&mut change, from, all)?;
        let at = change.cross(at);
        let result = self.attach_tree(&mut change, at, copy.clone(), None);
        if result.is_err() {
            copy.iter().for_each(|m| propagate::make_private(m));
        }
        change.gone.extend(copy);
        result
    }

    /// A copy of what is to be seen at a place, in no tree yet, with what is mounted below it if `all`. EINVAL if it cannot be.
    fn copy_of(&self, change: &mut Change, from: &PathRef, all: bool) -> Result<Vec<Arc<Mount>>, Errno> {
        let home = change.namespace_of(&from.mount);
        let outside = nsfs::of_dentry(&from.dentry).is_some() && home.is_none();
        if from.mount.is_unbindable() || !(outside || home.as_ref().is_some_and(|n| self.may_use(n))) {
            return Err(Errno::EINVAL);
        }
        // A namespace that holds itself would never end.
        if let Some(Namespace::Mount(ns)) = nsfs::of_dentry(&from.dentry)
            && ns.base.id <= self.base.id
        {
            return Err(Errno::EINVAL);
        }
        let inside = home.map(|n| below(&n.order.read(), from)).unwrap_or_default();
        if !all && inside.iter().any(|m| m.is_locked()) {
            return Err(Errno::EINVAL);
        }
        let mut tree = vec![from.mount.clone()];
        if all {
            tree.extend(inside);
        }
        check_room(tree.len())?;
        let copy = copy_tree(&tree, from.dentry.clone(), Way::Alike, false);
        if let Some(first) = copy.first() {
            first.locked.store(false, Ordering::Relaxed);
        }
        Ok(copy)
    }

    /// Takes a mount away, here and wherever it was mounted because it was mounted here. EBUSY if something is mounted below it
    /// (unless `lazy`: that goes too), EINVAL if it is the root, not of this namespace, or locked.
    pub fn detach(&self, mount: &Arc<Mount>, lazy: bool) -> Result<(), Errno> {
        let mut change = Change::new();
        if mount.parent().is_none() || !self.has(mount) || mount.is_locked() {
            return Err(Errno::EINVAL);
        }
        let inside = below(&self.order.read(), &PathRef::root_of(mount));
        if !lazy && !inside.is_empty() {
            return Err(Errno::EBUSY);
        }
        // Whoever has a file open, works or maps below it holds it, beyond the table's, the order's and the caller's own.
        if !lazy && Arc::strong_count(mount) > 3 {
            return Err(Errno::EBUSY);
        }
        let mut gone = vec![mount.clone()];
        gone.extend(inside);
        let also = propagate::followers(&gone, |at| change.forest.get(&key(at)).cloned(), &mut change.namespaces);
        if !lazy && also.iter().any(|m| Arc::strong_count(m) > 3) {
            return Err(Errno::EBUSY);
        }
        gone.extend(also);
        change.remove(gone);
        Ok(())
    }

    /// Makes `new` the root and puts the old root, which is the caller's, at `put_old` (`pivot_root(2)`). `whole`: both are whole
    /// mounts, and that place lies below `new`.
    pub fn pivot(&self, new: &Arc<Mount>, old: &Arc<Mount>, put_old: PathRef, whole: bool) -> Result<(), Errno> {
        let mut change = Change::new();
        let (from, above) = (new.parent(), old.parent());
        let shared = [&from, &above].into_iter().flatten().any(|p| p.mount.is_shared()) || put_old.mount.is_shared();
        if shared || !self.has(new) || !self.has(old) || new.is_locked() {
            return Err(Errno::EINVAL);
        }
        if Arc::ptr_eq(new, old) || Arc::ptr_eq(&put_old.mount, old) {
            return Err(Errno::EBUSY);
        }
        if !whole || from.is_none() {
            return Err(Errno::EINVAL);
        }
        if old.locked.swap(false, Ordering::Relaxed) {
            new.locked.store(true, Ordering::Relaxed);
        }
        change.take(new);
        change.take(old);
        // Where nothing lies over the place, as with `pivot_root(".", ".")`, that is `new` itself.
        let put_old = change.cross(put_old);
        change.put(old, put_old);
        match above {
            Some(above) => change.put(new, above),
            None => *self.root.write() = new.clone(),
        }
        drop(change);
        self.sort(old);
        Ok(())
    }

    /// All mounts, oldest first.
    pub fn mounts(&self) -> Vec<Arc<Mount>> {
        self.order.read().clone()
    }

    /// The mounts at or below a place, parents first.
    pub fn below(&self, from: &PathRef) -> Vec<Arc<Mount>> {
        below(&self.order.read(), from)
    }

    /// Whether something is mounted on that very directory in this namespace, wherever it is seen.
    pub fn is_mount_point(&self, at: &PathRef) -> bool {
        let here = |m: &Arc<Mount>| m.parent().is_some_and(|p| Arc::ptr_eq(&p.dentry, &at.dentry));
        at.dentry.mounted.load(Ordering::Acquire) > 0 && self.order.read().iter().any(here)
    }
}

impl Change {
    /// Takes mounts away, and all their ties.
    fn remove(&mut self, gone: Vec<Arc<Mount>>) {
        let mut spaces: Vec<Arc<MountNamespace>> = Vec::new();
        for m in &gone {
            self.take(m);
            propagate::make_private(m);
            if let Some(ns) = self.namespace_of(m)
                && !spaces.iter().any(|s| Arc::ptr_eq(s, &ns))
            {
                spaces.push(ns);
            }
            *m.namespace.write() = Weak::new();
        }
        let numbers = numbers(&gone);
        for ns in spaces {
            ns.order.write().retain(|m| !numbers.contains(&m.id));
        }
        self.gone.extend(gone);
    }
}

/// A name has gone: what other namespaces have mounted on it goes, too.
pub fn forget(dentry: &Arc<Dentry>) {
    while dentry.mounted.load(Ordering::Acquire) > 0 {
        let mut change = Change::new();
        let on = |m: &&Arc<Mount>| m.parent().is_some_and(|p| Arc::ptr_eq(&p.dentry, dentry));
        let Some(first) = change.forest.values().find(on).cloned() else { return };
        let mut gone = vec![first.clone()];
        if let Some(ns) = change.namespace_of(&first) {
            gone.extend(below(&ns.order.read(), &PathRef::root_of(&first)));
        }
        change.remove(gone);
    }
}

/// Sets how mounts take part in what is mounted elsewhere (`MS_SHARED` and its like).
pub fn set_propagation(mounts: &[Arc<Mount>], how: propagate::How) {
    let change = Change::new();
    mounts.iter().for_each(|m| propagate::set(m, how));
    drop(change);
}
