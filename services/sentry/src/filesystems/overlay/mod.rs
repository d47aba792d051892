//! The overlay of directories of other file systems, as `mount -t overlay` makes it.
//!
//! An upper directory, which takes all changes, over lower ones, which are only read. What of a lower layer is changed is copied up
//! first: made whole in the work directory and renamed into place. Everything goes through the dentries of the layers, with the
//! credentials of who mounted it, so that whoever looks at a layer itself sees what is there. Owned here: what the layers show
//! together (`node`), copying up and whiteouts (`up`), open files (`file`), what it is mounted with (`spec`). Never here:
//! permissions, which are checked against what is shown. The overlay over a container's root is another (`tree`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::errno::Errno;
use crate::sync::Mutex;
use crate::task::Creds;
use crate::vfs::dentry::Dentry;
use crate::vfs::inode::{FileSystem, FileType, InodeRef, NewNode, SetAttr, StatFs, anonymous_dev};
use crate::vfs::mount::{MountFlags, PathRef, check_room};
use crate::vfs::{Caller, FsContext, ops};
use node::{Node, Place};
pub use spec::{Bad, Given, Spec, split};

mod file;
mod node;
mod spec;
mod up;

/// `OVERLAYFS_SUPER_MAGIC`.
const MAGIC: u64 = 0x794c_7630;
/// How many overlays may lie over each other.
const DEPTH_MAX: u32 = 2;
/// Lower layers of one.
const LAYERS_MAX: usize = 500;

/// An overlay.
pub struct Overlay {
    dev: u64,
    /// The devices of the layers, and those that files of them are shown to be on; empty if all are on one.
    shown: Vec<(u64, u64)>,
    upper: Option<PathRef>,
    lowers: Vec<PathRef>,
    /// Where things are put together.
    work: Option<PathRef>,
    creator: Arc<Creds>,
    /// No place at all, and no mask.
    nowhere: Arc<FsContext>,
    /// Whose attributes say what is opaque and where things come from: `trusted.overlay.` or `user.overlay.`.
    prefix: &'static [u8],
    /// Whether the upper layer keeps such attributes.
    marks: bool,
    options: String,
    depth: u32,
    /// Nodes that have an upper inode, by that one's device and number.
    known: Mutex<HashMap<(u64, u64), Weak<Node>>>,
    temporary: AtomicU64,
    /// A whiteout that further ones are links to.
    whiteout: Mutex<Option<PathRef>>,
}

impl FileSystem for Overlay {
    fn name(&self) -> &'static str {
        "overlay"
    }

    fn dev(&self) -> u64 {
        self.dev
    }

    fn statfs(&self) -> Result<StatFs, Errno> {
        let real = self.upper.as_ref().or(self.lowers.first()).ok_or(Errno::EIO)?;
        Ok(StatFs { kind: MAGIC, ..real.mount.fs.statfs()? })
    }

    fn options(&self) -> String {
        self.options.clone()
    }

    fn sync(&self) -> Result<(), Errno> {
        self.upper.as_ref().map_or(Ok(()), |u| u.mount.fs.sync())
    }

    fn reconfigure(&self, read_only: bool) -> Result<(), Errno> {
        if read_only || self.work.is_some() { Ok(()) } else { Err(Errno::EROFS) }
    }

    fn stack_depth(&self) -> u32 {
        self.depth
    }
}

/// A mount of a layer that nobody else sees, and that keeps none of the caller's busy.
fn private(at: &PathRef) -> Result<PathRef, Errno> {
    if at.mount.is_unbindable() {
        return Err(Errno::EINVAL);
    }
    let mount = at.mount.apart(at.dentry.clone());
    mount.set_flags(mount.flags() & !(MountFlags::TIMES | MountFlags::NO_EXEC | MountFlags::NO_DEV));
    Ok(PathRef::root_of(&mount))
}

fn device(at: &PathRef) -> Result<u64, Errno> {
    Ok(at.dentry.inode().attr()?.dev)
}

fn is_whiteout(dentry: &Dentry) -> Result<bool, Errno> {
    Ok(dentry.inode().kind() == FileType::Char && dentry.inode().attr()?.rdev == 0)
}

impl Overlay {
    /// The overlay that is asked for, and its root. EINVAL, ELOOP for layers that cannot be together.
    pub fn mount(spec: &Spec, creds: &Arc<Creds>) -> Result<(Arc<Self>, Arc<Dentry>), Errno> {
        spec.check()?;
        check_room(spec.lowers.len() + 1)?;
        let lowers: Vec<PathRef> = spec.lowers.iter().map(|l| private(&l.place)).collect::<Result<_, _>>()?;
        let upper = spec.upper.as_ref().map(|u| private(&u.place)).transpose()?;
        let depth = upper.iter().chain(&lowers).map(|l| l.mount.fs.stack_depth()).max().unwrap_or(0) + 1;
        if depth > DEPTH_MAX {
            return Err(Errno::EINVAL);
        }
        let mut devices: Vec<u64> = Vec::new();
        for l in upper.iter().chain(&lowers) {
            let dev = device(l)?;
            if !devices.contains(&dev) {
                devices.push(dev);
            }
        }
        let shown = match devices.as_slice() {
            [_] => Vec::new(),
            all => all.iter().map(|d| (*d, anonymous_dev())).collect(),
        };
        let nowhere = FsContext::default();
        nowhere.set_umask(0);
        let mut new = Self {
            dev: anonymous_dev(),
            shown,
            upper,
            lowers,
            work: None,
            creator: creds.clone(),
            nowhere: Arc::new(nowhere),
            prefix: if spec.user_marks { b"user.overlay." } else { b"trusted.overlay." },
            marks: false,
            options: spec.shown(),
            depth,
            known: Mutex::default(),
            temporary: AtomicU64::new(1),
            whiteout: Mutex::default(),
        };
        if let (Some(upper), Some(work)) = (&new.upper, &spec.work) {
            let base = PathRef { mount: upper.mount.clone(), dentry: work.place.dentry.clone() };
            let made = new.make_work(&base, spec.volatile)?;
            new.marks = made.as_ref().is_some_and(|w| new.keeps_marks(w));
            new.work = made;
        }
        let place = Place { upper: new.upper.clone(), lowers: new.lowers.clone() };
        let new = Arc::new(new);
        let root: InodeRef = new.node(FileType::Directory, place, None)?;
        Ok((new, Dentry::root(root)))
    }

    /// Whether nothing can be changed.
    pub fn is_read_only(&self) -> bool {
        self.work.is_none()
    }

    fn caller(&self) -> Caller<'static> {
        Caller { fs: self.nowhere.clone(), creds: self.creator.clone(), task: None, opener: None }
    }

    /// As [`caller`](Self::caller), for what is to belong to somebody else.
    fn caller_for(&self, new: &NewNode) -> Caller<'static> {
        let creds = Creds { fsuid: new.uid, fsgid: new.gid, ..(*self.creator).clone() };
        Caller { creds: Arc::new(creds), ..self.caller() }
    }

    /// The name in a directory of a layer; `None` if there is none.
    fn child(&self, dir: &PathRef, name: &[u8]) -> Result<Option<PathRef>, Errno> {
        let found = dir.dentry.child(&self.caller(), name)?;
        Ok(found.map(|dentry| PathRef { mount: dir.mount.clone(), dentry }))
    }

    /// An attribute of our own of something in a layer.
    fn mark(&self, of: &PathRef, name: &[u8]) -> Option<Vec<u8>> {
        of.dentry.inode().xattr(&[self.prefix, name].concat()).ok()
    }

    fn set_mark(&self, of: &PathRef, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        if !self.marks {
            return Err(Errno::EOPNOTSUPP);
        }
        of.dentry.inode().set_xattr(&[self.prefix, name].concat(), value, 0)
    }

    fn is_opaque(&self, directory: &PathRef) -> bool {
        self.mark(directory, b"opaque").is_some_and(|v| v == b"y")
    }

    /// Whether the upper layer keeps our attributes: tried on the work directory.
    fn keeps_marks(&self, work: &PathRef) -> bool {
        if self.prefix == b"trusted.overlay." && !self.creator.capable(crate::task::creds::cap::SYS_ADMIN) {
            return false;
        }
        let (inode, name) = (work.dentry.inode(), [self.prefix, b"opaque"].concat());
        inode.set_xattr(&name, b"0", 0).is_ok() && inode.remove_xattr(&name).is_ok()
    }

    /// The directory in the work directory where things are put together; `None` if it cannot be made. What was left there is
    /// cleared away.
    fn make_work(&self, base: &PathRef, volatile: bool) -> Result<Option<PathRef>, Errno> {
        let caller = self.caller();
        if let Some(left) = self.child(base, b"work")? {
            if let Some(incompatible) = self.child(&left, b"incompat")?
                && !incompatible.dentry.inode().entries(&caller)?.is_empty()
            {
                return Err(Errno::EINVAL);
            }
            if left.dentry.inode().kind() == FileType::Directory {
                self.clear(&left, 2)?;
            }
            ops::unlink(&caller, base.clone(), b"work", left.dentry.inode().kind() == FileType::Directory)?;
        }
        match ops::mkdir(&caller, base.clone(), b"work", 0) {
            Ok(()) => {}
            // The host's mount is read-only, which only the attempt tells.
            Err(Errno::EROFS) => return Err(Errno::EINVAL),
            Err(_) => return Ok(None),
        }
        let work = self.child(base, b"work")?;
        // An ordinary user's Gofer cannot look into one that nobody may.
        if let Some(work) = &work
            && matches!(work.dentry.inode().entries(&caller), Err(Errno::EACCES))
        {
            work.dentry.inode().set_attr(&SetAttr { mode: Some(0o700), ..SetAttr::default() })?;
        }
        if volatile && let Some(work) = &work {
            ops::mkdir(&caller, work.clone(), b"incompat", 0o700)?;
            let incompatible = self.child(work, b"incompat")?.ok_or(Errno::EIO)?;
            ops::mkdir(&caller, incompatible, b"volatile", 0o700)?;
        }
        Ok(work)
    }

    /// Removes all that is in a directory of the upper layer, directories in it down to `deep`.
    fn clear(&self, directory: &PathRef, deep: u32) -> Result<(), Errno> {
        let caller = self.caller();
        for e in directory.dentry.inode().entries(&caller)? {
            let is_dir = e.kind == FileType::Directory;
            if is_dir
                && deep > 0
                && let Some(inner) = self.child(directory, &e.name)?
            {
                self.clear(&inner, deep - 1)?;
            }
            ops::unlink(&caller, directory.clone(), &e.name, is_dir)?;
        }
        Ok(())
    }

    /// A name that nothing in the work directory has.
    fn temporary(&self) -> Vec<u8> {
        format!("#{:x}", self.temporary.fetch_add(1, Ordering::Relaxed)).into_bytes()
    }

    fn work(&self) -> Result<&PathRef, Errno> {
        self.work.as_ref().ok_or(Errno::EROFS)
    }

    /// The device that what is on a device of a layer is shown to be on.
    fn shown_device(&self, real: u64) -> u64 {
        self.shown.iter().find(|(d, _)| *d == real).map_or(self.dev, |(_, shown)| *shown)
    }
}
