//! Mounts and mount namespaces, `mount_namespaces(7)`.
//!
//! A namespace is a table from (mount, directory) to what is mounted there. A dentry that nothing is mounted on says so
//! itself, so a warm walk never looks into the table. Owned here: the table, and paths of mounted directories
//! ([`PathRef::path`]). Never here: who may mount (`syscalls::mount`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::errno::Errno;
use crate::sync::RwLock;
use crate::vfs::dentry::Dentry;
use crate::vfs::inode::FileSystem;

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
        /// Access times are updated only when older than the other times.
        const RELATIME = 1 << 21;
    }
}

static NEXT_MOUNT: AtomicU64 = AtomicU64::new(1);

/// Mounts a namespace may hold (`fs.mount-max`).
pub const MOUNT_MAX: usize = 100_000;

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
    /// Read-only for all mounts of the file system (a remount that is no bind): shared by those that show it.
    ground: Arc<AtomicBool>,
    /// Cannot be bound elsewhere (`MS_UNBINDABLE`).
    unbindable: AtomicBool,
    /// Files open for writing through it.
    writers: AtomicU32,
    parent: RwLock<Option<PathRef>>,
}

impl Mount {
    /// A mount of `root` of `fs`, not yet placed anywhere.
    pub fn new(fs: Arc<dyn FileSystem>, root: Arc<Dentry>, source: &[u8], flags: MountFlags) -> Arc<Self> {
        let ground = Arc::new(AtomicBool::new(flags.contains(MountFlags::READ_ONLY)));
        Self::make(fs, root, source, flags, ground)
    }

    /// Another mount of the same file system, that shows `root` (`MS_BIND`).
    pub fn bind(&self, root: Arc<Dentry>) -> Arc<Self> {
        Self::make(self.fs.clone(), root, &self.source, self.flags(), self.ground.clone())
    }

    fn make(
        fs: Arc<dyn FileSystem>,
        root: Arc<Dentry>,
        source: &[u8],
        flags: MountFlags,
        ground: Arc<AtomicBool>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: NEXT_MOUNT.fetch_add(1, Ordering::Relaxed),
            fs,
            root,
            source: source.to_vec(),
            flags: AtomicU32::new(flags.bits()),
            ground,
            unbindable: AtomicBool::new(false),
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

    /// Its flags.
    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_truncate(self.flags.load(Ordering::Relaxed))
    }

    /// Changes its flags, without looking at who uses it.
    pub fn set_flags(&self, flags: MountFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
    }

    /// `MS_REMOUNT`: of the whole file system, or of this mount alone. EBUSY if it is to be read-only and is written to.
    pub fn remount(&self, flags: MountFlags, alone: bool) -> Result<(), Errno> {
        let read_only = flags.contains(MountFlags::READ_ONLY);
        if read_only && self.writers.load(Ordering::Acquire) > 0 {
            return Err(Errno::EBUSY);
        }
        self.set_flags(flags);
        if !alone {
            self.ground.store(read_only, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether the file system is read-only, wherever it is mounted.
    pub fn all_read_only(&self) -> bool {
        self.ground.load(Ordering::Relaxed)
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
    }

    /// Counts it out.
    pub fn end_write(&self) {
        self.writers.fetch_sub(1, Ordering::AcqRel);
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
            return b"/".to_vec();
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

#[derive(Default)]
struct Table {
    /// By mount number and address of the dentry; the child keeps the dentry alive through its parent path.
    at: HashMap<(u64, usize), Arc<Mount>>,
    order: Vec<Arc<Mount>>,
}

/// The mounts that a group of processes sees.
pub struct MountNamespace {
    root: RwLock<Arc<Mount>>,
    table: RwLock<Table>,
    /// Number of the namespace, for `/proc/PID/ns/mnt`.
    pub id: u64,
}

fn key(mount: &Mount, dentry: &Arc<Dentry>) -> (u64, usize) {
    (mount.id, Arc::as_ptr(dentry).addr())
}

impl Drop for MountNamespace {
    fn drop(&mut self) {
        for m in &self.table.read().order {
            if let Some(p) = m.parent() {
                p.dentry.mounted.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }
}

impl MountNamespace {
    /// A namespace with one mount.
    pub fn new(root: Arc<Mount>) -> Arc<Self> {
        let table = Table { at: HashMap::new(), order: vec![root.clone()] };
        let id = NEXT_MOUNT.fetch_add(1, Ordering::Relaxed) + 0xf000_0000;
        Arc::new(Self { root: RwLock::new(root), table: RwLock::new(table), id })
    }

    /// A copy with mounts of its own, and which mount became which (by number).
    #[allow(dead_code, reason = "mount namespaces of the container are not wired to unshare(2) yet")]
    pub fn copy(&self) -> (Arc<Self>, HashMap<u64, Arc<Mount>>) {
        let table = self.table.read();
        let mut map = HashMap::new();
        for m in &table.order {
            map.insert(m.id, m.bind(m.root.clone()));
        }
        let root = self.root.read();
        let new_root = map.get(&root.id).cloned().unwrap_or_else(|| root.clone());
        let copy = Self::new(new_root);
        {
            let mut to = copy.table.write();
            to.order.clear();
            for m in &table.order {
                let Some(new) = map.get(&m.id) else { continue };
                to.order.push(new.clone());
                let Some(p) = m.parent() else { continue };
                let Some(parent) = map.get(&p.mount.id) else { continue };
                p.dentry.mounted.fetch_add(1, Ordering::AcqRel);
                to.at.insert(key(parent, &p.dentry), new.clone());
                *new.parent.write() = Some(PathRef { mount: parent.clone(), dentry: p.dentry.clone() });
            }
        }
        (copy, map)
    }

    /// What is to be seen at a place: the root of what is mounted there, or the place itself.
    pub fn cross(&self, mut at: PathRef) -> PathRef {
        while at.dentry.mounted.load(Ordering::Acquire) > 0 {
            match self.table.read().at.get(&key(&at.mount, &at.dentry)) {
                Some(m) => at = PathRef::root_of(m),
                None => break,
            }
        }
        at
    }

    /// Mounts `mount` at a place, over whatever is mounted there already.
    pub fn attach(&self, at: PathRef, mount: &Arc<Mount>) -> Result<(), Errno> {
        let at = self.cross(at);
        let mut table = self.table.write();
        if table.order.len() >= MOUNT_MAX {
            return Err(Errno::ENOSPC);
        }
        at.dentry.mounted.fetch_add(1, Ordering::AcqRel);
        table.at.insert(key(&at.mount, &at.dentry), mount.clone());
        table.order.push(mount.clone());
        *mount.parent.write() = Some(at);
        Ok(())
    }

    /// Takes a mount away. EBUSY if something is mounted below it (unless `lazy`: that goes too), EINVAL if it is the
    /// root or not of this namespace.
    pub fn detach(&self, mount: &Arc<Mount>, lazy: bool) -> Result<(), Errno> {
        let mut table = self.table.write();
        let mut gone = vec![mount.clone()];
        if mount.parent().is_none() || !table.order.iter().any(|m| Arc::ptr_eq(m, mount)) {
            return Err(Errno::EINVAL);
        }
        // Mounts come after their parents in the order, so one pass finds all below.
        for m in &table.order {
            if m.parent().is_some_and(|p| gone.iter().any(|g| Arc::ptr_eq(g, &p.mount))) {
                if !lazy {
                    return Err(Errno::EBUSY);
                }
                gone.push(m.clone());
            }
        }
        // Whoever has a file open, works or maps below it holds it, beyond the table's two, the list's and the caller's own.
        if !lazy && Arc::strong_count(mount) > 4 {
            return Err(Errno::EBUSY);
        }
        for m in &gone {
            if let Some(p) = m.parent.write().take() {
                table.at.remove(&key(&p.mount, &p.dentry));
                p.dentry.mounted.fetch_sub(1, Ordering::AcqRel);
            }
        }
        table.order.retain(|m| !gone.iter().any(|g| Arc::ptr_eq(g, m)));
        drop(table);
        Ok(())
    }

    /// Moves a mount to another place.
    pub fn relocate(&self, mount: &Arc<Mount>, to: PathRef) -> Result<(), Errno> {
        let to = self.cross(to);
        let mut table = self.table.write();
        let Some(from) = mount.parent.write().take() else { return Err(Errno::EINVAL) };
        table.at.remove(&key(&from.mount, &from.dentry));
        from.dentry.mounted.fetch_sub(1, Ordering::AcqRel);
        to.dentry.mounted.fetch_add(1, Ordering::AcqRel);
        table.at.insert(key(&to.mount, &to.dentry), mount.clone());
        *mount.parent.write() = Some(to);
        Ok(())
    }

    /// Makes `new` the top and puts the old top at `put_old`, which lies below `new` (`pivot_root(2)`).
    pub fn pivot(&self, new: &Arc<Mount>, put_old: PathRef) -> Result<(), Errno> {
        let mut table = self.table.write();
        let mut root = self.root.write();
        let Some(from) = new.parent.write().take() else { return Err(Errno::EINVAL) };
        table.at.remove(&key(&from.mount, &from.dentry));
        from.dentry.mounted.fetch_sub(1, Ordering::AcqRel);
        put_old.dentry.mounted.fetch_add(1, Ordering::AcqRel);
        table.at.insert(key(&put_old.mount, &put_old.dentry), root.clone());
        *root.parent.write() = Some(put_old);
        *root = new.clone();
        Ok(())
    }

    /// All mounts, oldest first.
    pub fn mounts(&self) -> Vec<Arc<Mount>> {
        self.table.read().order.clone()
    }

    /// Whether something is mounted on that very directory in this namespace.
    pub fn is_mount_point(&self, at: &PathRef) -> bool {
        at.dentry.mounted.load(Ordering::Acquire) > 0 && self.table.read().at.contains_key(&key(&at.mount, &at.dentry))
    }
}
