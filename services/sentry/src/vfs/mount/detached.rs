//! Trees of mounts that are in nobody's namespace yet, or never: `open_tree(2)`, `fsmount(2)`, and how they get to a place
//! (`move_mount(2)`).
//!
//! A detached tree is a namespace of its own that nobody is in. It ends with the descriptor that it was made with, unless it has been
//! moved by then. Never here: who may do that (`syscalls::mount_api`).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::propagate::{self, How};
use super::{Change, Mount, MountFlags, MountNamespace, PathRef, below};
use crate::errno::Errno;
use crate::namespaces::{Base, Namespace, UserNamespace, nsfs};
use crate::sync::RwLock;
use crate::vfs::inode::FileType;

/// What `mount_setattr(2)` changes.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    /// Flags to put on.
    pub set: MountFlags,
    /// Flags to take away before.
    pub clear: MountFlags,
    /// How to take part in what is mounted elsewhere.
    pub how: Option<How>,
}

impl MountNamespace {
    /// A detached tree of a mount that is new.
    pub fn detached(mount: Arc<Mount>, owner: &Arc<UserNamespace>) -> Arc<Self> {
        let mut change = Change::new();
        Self::of_tree(&mut change, vec![mount], owner, 0)
    }

    fn of_tree(change: &mut Change, tree: Vec<Arc<Mount>>, owner: &Arc<UserNamespace>, origin: u64) -> Arc<Self> {
        let root = tree.first().cloned().unwrap_or_else(Mount::empty);
        let new = Arc::new(Self {
            root: RwLock::new(root),
            order: RwLock::default(),
            base: Base::nameless(owner),
            detached: Some(origin),
        });
        for m in &tree {
            *m.namespace.write() = Arc::downgrade(&new);
            m.adrift.store(true, Ordering::Relaxed);
            if let Some(at) = m.parent() {
                change.put(m, at);
            }
        }
        *new.order.write() = tree;
        new
    }

    /// A detached copy of what is to be seen at a place (`OPEN_TREE_CLONE`), with what is mounted below it if `all`.
    pub fn copy_detached(&self, from: &PathRef, all: bool, owner: &Arc<UserNamespace>) -> Result<Arc<Self>, Errno> {
        let mut change = Change::new();
        let tree = self.copy_of(&mut change, from, all)?;
        let home = change.namespace_of(&from.mount).and_then(|n| n.detached);
        Ok(Self::of_tree(&mut change, tree, owner, home.unwrap_or(self.base.id)))
    }

    /// Whether those in this namespace may take mounts from, or mount in, another: if it is the same, or a detached tree that came
    /// from here or from nowhere.
    pub(super) fn may_use(&self, other: &MountNamespace) -> bool {
        std::ptr::eq(self, other) || other.detached.is_some_and(|origin| origin == 0 || origin == self.base.id)
    }

    /// Whether a mount is one of its own, or the root of a detached tree.
    fn may_change(&self, mount: &Mount, home: &MountNamespace) -> bool {
        self.has(mount) || home.detached.is_some() && mount.parent().is_none()
    }

    /// Moves a mount, or a detached tree, to another place; `beneath`: under what is mounted there, unless the caller's root is there.
    pub fn relocate(self: &Arc<Self>, from: &PathRef, to: PathRef, beneath: Option<&PathRef>) -> Result<(), Errno> {
        let mut change = Change::new();
        let mount = &from.mount;
        let to = change.cross(to);
        let home = change.namespace_of(mount).ok_or(Errno::EINVAL)?;
        let target = change.namespace_of(&to.mount).ok_or(Errno::EINVAL)?;
        let own = self.has(mount);
        let refused = if own {
            mount.is_locked() || mount.parent().is_none_or(|p| p.mount.is_shared()) || !self.has(&to.mount)
        } else {
            !self.may_change(mount, &home) || Arc::ptr_eq(&home, &target) || !self.may_use(&target)
        };
        if refused || !from.is_root_of_mount() {
            return Err(Errno::EINVAL);
        }
        let mut tree = vec![mount.clone()];
        tree.extend(below(&home.order.read(), &PathRef::root_of(mount)));
        let above = match beneath {
            Some(root) => Some(above(&to, mount, root, own)?),
            None => None,
        };
        let place = above.clone().unwrap_or_else(|| to.clone());
        let is_dir = |p: &PathRef| p.dentry.inode().kind() == FileType::Directory;
        if is_dir(from) != is_dir(&place) || place.mount.is_shared() && tree.iter().any(|m| m.is_unbindable()) {
            return Err(Errno::EINVAL);
        }
        // A namespace that holds itself would never end.
        let holds =
            |m: &Arc<Mount>| matches!(nsfs::of_dentry(&m.root), Some(Namespace::Mount(n)) if n.base.id <= self.base.id);
        let mut up = Some(place.clone());
        while let Some(p) = up {
            if Arc::ptr_eq(&p.mount, mount) {
                return Err(Errno::ELOOP);
            }
            up = p.mount.parent();
        }
        if tree.iter().any(holds) {
            return Err(Errno::ELOOP);
        }
        let Some(place) = above else { return target.attach_tree(&mut change, to, tree, Some(&home)) };
        let top = to.mount;
        change.take(&top);
        let result = target.attach_tree(&mut change, place.clone(), tree, Some(&home));
        let at = if result.is_ok() { change.cross(PathRef::root_of(mount)) } else { place };
        change.put(&top, at);
        target.sort(&top);
        result
    }

    /// `MOVE_MOUNT_SET_GROUP`: a private mount takes part where another does.
    pub fn set_group(&self, from: &PathRef, to: &PathRef, may: impl Fn(&UserNamespace) -> bool) -> Result<(), Errno> {
        let mut change = Change::new();
        for at in [from, to] {
            let home = change.namespace_of(&at.mount).ok_or(Errno::EINVAL)?;
            if !may(&home.base.owner) {
                return Err(Errno::EPERM);
            }
        }
        let home = change.namespace_of(&from.mount).ok_or(Errno::EINVAL)?;
        let (a, b) = (&from.mount, &to.mount);
        let shown = PathRef { mount: a.clone(), dentry: b.root.clone() };
        if !from.is_root_of_mount()
            || !to.is_root_of_mount()
            || !a.is_of_same(b)
            || !b.root.is_below(&a.root)
            || below(&home.order.read(), &shown).iter().any(|m| m.is_locked())
            || b.is_shared()
            || b.is_slave()
            || !(a.is_shared() || a.is_slave())
        {
            return Err(Errno::EINVAL);
        }
        propagate::tie(a, b, propagate::Way::Alike);
        Ok(())
    }

    /// `mount_setattr(2)`, of all mounts at and below a place or of one. Nothing is changed if it fails for any of them.
    pub fn set_attributes(&self, at: &PathRef, all: bool, what: &Attributes) -> Result<(), Errno> {
        let mut change = Change::new();
        let home = change.namespace_of(&at.mount).ok_or(Errno::EINVAL)?;
        if !at.is_root_of_mount() || !self.may_change(&at.mount, &home) {
            return Err(Errno::EINVAL);
        }
        let mut mounts = vec![at.mount.clone()];
        if all {
            mounts.extend(below(&home.order.read(), at));
        }
        let flags = |m: &Mount| m.flags() & !what.clear | what.set;
        for m in &mounts {
            m.check_locks(flags(m))?;
            let closes = flags(m).contains(MountFlags::READ_ONLY) && !m.flags().contains(MountFlags::READ_ONLY);
            if closes && m.writers.load(Ordering::Acquire) > 0 {
                return Err(Errno::EBUSY);
            }
        }
        for m in &mounts {
            m.set_flags(flags(m));
            if let Some(how) = what.how {
                propagate::set(m, how);
            }
        }
        Ok(())
    }
}

/// The place that something is mounted at, where it is about to get something beneath it. EINVAL if that cannot be.
fn above(top: &PathRef, moved: &Arc<Mount>, root: &PathRef, own: bool) -> Result<PathRef, Errno> {
    let place = top.mount.parent().ok_or(Errno::EINVAL)?;
    let mut up = Some(PathRef::root_of(moved));
    while let Some(p) = up {
        if Arc::ptr_eq(&p.mount, &top.mount) {
            return Err(Errno::EINVAL);
        }
        up = p.mount.parent();
    }
    // What is mounted on the parent must not end on top of what it is to lie under.
    let over = |on: &Arc<Mount>| propagate::reaches(&place.mount, on, &place.dentry);
    if !top.is_root_of_mount()
        || top.mount.is_locked()
        || Arc::ptr_eq(&top.mount, &root.mount)
        || over(&top.mount)
        || own && over(moved)
    {
        return Err(Errno::EINVAL);
    }
    Ok(place)
}
