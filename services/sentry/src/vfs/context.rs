//! Root, working directory, umask and mount namespace of a process (`CLONE_FS`, `CLONE_NEWNS`).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use crate::errno::Errno;
use crate::namespaces::{Base, Kind};
use crate::sync::RwLock;
use crate::vfs::mount::{Mount, MountNamespace, PathRef};

struct Places {
    root: PathRef,
    cwd: PathRef,
    namespace: Arc<MountNamespace>,
}

/// Where a process is in the tree of files.
pub struct FsContext {
    places: RwLock<Places>,
    umask: AtomicU32,
}

impl Default for FsContext {
    /// A context whose root is an empty, read-only directory.
    fn default() -> Self {
        Self::new_root(Mount::empty())
    }
}

impl FsContext {
    /// A context in a new mount namespace that has only `root` in it; umask 022.
    pub fn new_root(root: Arc<Mount>) -> Self {
        Self::new_root_in(root, Base::first(Kind::Mount))
    }

    /// The same, whose mount namespace is `base`.
    pub fn new_root_in(root: Arc<Mount>, base: Base) -> Self {
        let at = PathRef::root_of(&root);
        let namespace = MountNamespace::new(root, base);
        Self { places: RwLock::new(Places { root: at.clone(), cwd: at, namespace }), umask: AtomicU32::new(0o022) }
    }

    /// Where a thread is that has ended: in an empty directory, so that it keeps nothing mounted.
    pub fn nowhere() -> Arc<FsContext> {
        static NOWHERE: OnceLock<Arc<FsContext>> = OnceLock::new();
        NOWHERE.get_or_init(Arc::default).clone()
    }

    /// A copy for a forked process.
    pub fn fork(&self) -> Arc<FsContext> {
        Arc::new(self.duplicate())
    }

    /// A copy.
    pub fn duplicate(&self) -> FsContext {
        let p = self.places.read();
        let places = Places { root: p.root.clone(), cwd: p.cwd.clone(), namespace: p.namespace.clone() };
        Self { places: RwLock::new(places), umask: AtomicU32::new(self.umask()) }
    }

    /// Goes on in a copy of the mount namespace (`CLONE_NEWNS`).
    pub fn unshare_mounts(&self, base: Base) -> Result<(), Errno> {
        let mut p = self.places.write();
        let (namespace, map) = p.namespace.copy(base)?;
        let moved = |at: &PathRef| match map.get(&at.mount.id) {
            Some(m) => PathRef { mount: m.clone(), dentry: at.dentry.clone() },
            None => at.clone(),
        };
        let (root, cwd) = (moved(&p.root), moved(&p.cwd));
        *p = Places { root, cwd, namespace };
        Ok(())
    }

    /// Goes on at the root of another mount namespace (`setns(2)`).
    pub fn enter(&self, namespace: Arc<MountNamespace>) {
        let root = namespace.top();
        *self.places.write() = Places { root: root.clone(), cwd: root, namespace };
    }

    /// Whether its root is another than that of its mount namespace.
    pub fn is_chrooted(&self) -> bool {
        let p = self.places.read();
        p.root != p.namespace.top()
    }

    /// The root directory.
    pub fn root(&self) -> PathRef {
        self.places.read().root.clone()
    }

    /// The working directory.
    pub fn cwd(&self) -> PathRef {
        self.places.read().cwd.clone()
    }

    /// The mounts.
    pub fn namespace(&self) -> Arc<MountNamespace> {
        self.places.read().namespace.clone()
    }

    /// `chroot(2)`, without its checks.
    pub fn set_root(&self, to: PathRef) {
        self.places.write().root = to;
    }

    /// `chdir(2)`, without its checks.
    pub fn set_cwd(&self, to: PathRef) {
        self.places.write().cwd = to;
    }

    /// The file mode creation mask.
    pub fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }

    /// Sets the mask; the old one.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o777, Ordering::Relaxed)
    }
}
