//! What the layers show together: names, attributes, and the changes of names.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock, Weak};

use super::file::OverlayFile;
use super::{Overlay, is_whiteout};
use crate::errno::Errno;
use crate::filesystems::anon::DirectoryFile;
use crate::sync::{Mutex, RwLock};
use crate::vfs::access;
use crate::vfs::caller::Caller;
use crate::vfs::dentry::Dentry;
use crate::vfs::file::FileOps;
use crate::vfs::inode::{
    Attr, Common, DirEntry, FileType, Inode, InodeRef, NewNode, OpenHow, RENAME_EXCHANGE, RENAME_WHITEOUT, SetAttr,
    next_ino,
};
use crate::vfs::mount::PathRef;
use crate::vfs::ops;

/// Where an object is in the layers.
#[derive(Clone, Default)]
pub(super) struct Place {
    pub(super) upper: Option<PathRef>,
    /// Directories that are shown together, topmost first; of anything else the one that is shown.
    pub(super) lowers: Vec<PathRef>,
}

impl Place {
    /// What is shown of it but for names: the topmost.
    pub(super) fn real(&self) -> Result<&PathRef, Errno> {
        self.upper.as_ref().or(self.lowers.first()).ok_or(Errno::EIO)
    }
}

/// An object of an overlay.
pub struct Node {
    pub(super) me: Weak<Node>,
    pub(super) fs: Arc<Overlay>,
    kind: FileType,
    common: Common,
    pub(super) place: RwLock<Place>,
    /// The directory and the name it was found at; neither changes as long as it is not in the upper layer.
    pub(super) from: Option<(Arc<Node>, Box<[u8]>)>,
    /// Device and number of the lower object that it was copied from, which it goes on to show.
    pub(super) origin: Mutex<Option<(u64, u64)>>,
    /// The number of a directory that is of more than one device.
    number: u64,
    pub(super) key: OnceLock<(u64, u64)>,
    /// Nodes of names in it that are only in lower layers.
    names: Mutex<HashMap<Box<[u8]>, Weak<Node>>>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(key) = self.key.get() {
            let mut known = self.fs.known.lock();
            if known.get(key).is_some_and(|w| w.strong_count() == 0) {
                known.remove(key);
            }
        } else if let Some((parent, name)) = &self.from {
            let mut names = parent.names.lock();
            if names.get(name).is_some_and(|w| w.strong_count() == 0) {
                names.remove(name);
            }
        }
    }
}

impl Overlay {
    /// The node of a place: the one that is there already, where the upper layer has it.
    pub(super) fn node(
        self: &Arc<Self>,
        kind: FileType,
        place: Place,
        from: Option<(Arc<Node>, Box<[u8]>)>,
    ) -> Result<Arc<Node>, Errno> {
        let upper = place.upper.clone();
        let key = match &upper {
            Some(upper) => Some(upper.dentry.inode().attr().map(|a| (a.dev, a.ino))?),
            None => None,
        };
        let origin = upper.as_ref().and_then(|u| self.origin_of(u));
        let new = Arc::new_cyclic(|me| Node {
            me: me.clone(),
            fs: self.clone(),
            kind,
            common: Common::default(),
            place: RwLock::new(place),
            from,
            origin: Mutex::new(origin),
            number: next_ino(),
            key: OnceLock::new(),
            names: Mutex::default(),
        });
        Ok(match key {
            Some(key) => new.enter(key),
            None => new,
        })
    }
}

pub(super) fn node_of(inode: &InodeRef) -> Result<Arc<Node>, Errno> {
    inode.as_any().downcast_ref::<Node>().and_then(|n| n.me.upgrade()).ok_or(Errno::EXDEV)
}

impl Node {
    /// Makes it known by what it is in the upper layer; the one that was known before, if there is one.
    pub(super) fn enter(self: Arc<Self>, key: (u64, u64)) -> Arc<Self> {
        let mut known = self.fs.known.lock();
        if let Some(old) = known.get(&key).and_then(Weak::upgrade) {
            drop(known);
            return old;
        }
        self.key.set(key).ok();
        known.insert(key, Arc::downgrade(&self));
        drop(known);
        self
    }

    pub(super) fn me(&self) -> Result<Arc<Node>, Errno> {
        self.me.upgrade().ok_or(Errno::ESTALE)
    }

    pub(super) fn place(&self) -> Place {
        self.place.read().clone()
    }

    /// What is shown of it: in the upper layer if it is there.
    pub(super) fn real(&self) -> Result<PathRef, Errno> {
        self.place.read().real().cloned()
    }

    fn inode(&self) -> Result<InodeRef, Errno> {
        Ok(self.real()?.dentry.inode().clone())
    }

    fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    fn find(&self, name: &[u8]) -> Result<Option<Arc<Node>>, Errno> {
        let (place, fs) = (self.place(), &self.fs);
        let (mut found, mut kind) = (Place::default(), None);
        let mut ends = false;
        if let Some(upper) = &place.upper
            && let Some(child) = fs.child(upper, name)?
        {
            if is_whiteout(&child.dentry)? {
                return Ok(None);
            }
            let k = child.dentry.inode().kind();
            ends = k != FileType::Directory || fs.is_opaque(&child);
            kind = Some(k);
            found.upper = Some(child);
        }
        for lower in place.lowers.iter().take_while(|_| !ends).collect::<Vec<_>>() {
            let Some(child) = fs.child(lower, name)? else { continue };
            let k = child.dentry.inode().kind();
            // What is no directory ends what is shown together, and is shown itself only if nothing lies over it.
            if is_whiteout(&child.dentry)? || k != FileType::Directory && kind.is_some() {
                break;
            }
            kind = Some(k);
            let last = k != FileType::Directory || fs.is_opaque(&child);
            found.lowers.push(child);
            if last {
                break;
            }
        }
        let Some(kind) = kind else { return Ok(None) };
        let lower = found.upper.is_none();
        if lower && let Some(known) = self.names.lock().get(name).and_then(Weak::upgrade) {
            return Ok(Some(known));
        }
        let node = fs.node(kind, found, Some((self.me()?, name.into())))?;
        if !lower {
            return Ok(Some(node));
        }
        let mut names = self.names.lock();
        let known = names.get(name).and_then(Weak::upgrade);
        if known.is_none() {
            names.insert(name.into(), Arc::downgrade(&node));
        }
        // One that is not needed goes after the lock, which it takes.
        drop(names);
        Ok(Some(known.unwrap_or(node)))
    }

    /// What a name in it was only in lower layers is so no longer.
    pub(super) fn forget(&self, name: &[u8]) {
        let old = self.names.lock().remove(name);
        drop(old);
    }

    /// Whether a lower layer has that name, so that it shows where the upper has nothing.
    fn lies_below(&self, name: &[u8]) -> Result<bool, Errno> {
        for lower in &self.place().lowers {
            if let Some(child) = self.fs.child(lower, name)? {
                return Ok(!is_whiteout(&child.dentry)?);
            }
        }
        Ok(false)
    }

    /// The directories of lower layers that a directory by that name shows, topmost first.
    fn below(&self, name: &[u8]) -> Result<Vec<PathRef>, Errno> {
        self.fs.shown_together(&self.place().lowers, name)
    }

    /// Keeps what lower layers have by that name from showing in `directory`, which comes to lie over it.
    fn hide_below(&self, directory: &PathRef, name: &[u8]) -> Result<(), Errno> {
        match self.fs.set_mark(directory, b"opaque", b"y") {
            Ok(()) => Ok(()),
            Err(_) if self.fs.on_export() => self.fs.cover(directory, &self.below(name)?),
            Err(_) if self.lies_below(name)? => Err(Errno::EIO),
            Err(_) => Ok(()),
        }
    }

    /// What the upper layer has by that name in the directory `upper`, and whether it is a whiteout.
    fn upper_child(&self, upper: &PathRef, name: &[u8]) -> Result<Option<(PathRef, bool)>, Errno> {
        match self.fs.child(upper, name)? {
            Some(child) => {
                let white = is_whiteout(&child.dentry)?;
                Ok(Some((child, white)))
            }
            None => Ok(None),
        }
    }

    fn is_merged(&self) -> bool {
        let place = self.place.read();
        self.is_dir() && place.lowers.len() + usize::from(place.upper.is_some()) > 1
    }

    /// A directory that is only in the upper layer, or anything else: it can be moved whole.
    fn can_move(&self) -> bool {
        !self.is_dir() || self.place.read().lowers.is_empty()
    }

    fn list(&self) -> Result<Vec<DirEntry>, Errno> {
        let (place, fs) = (self.place(), &self.fs);
        let caller = fs.caller();
        let mut seen = HashSet::new();
        let mut out = Vec::new();
        for (layer, upper) in place.upper.iter().map(|u| (u, true)).chain(place.lowers.iter().map(|l| (l, false))) {
            for mut e in layer.dentry.inode().entries(&caller)? {
                if !seen.insert(e.name.clone()) {
                    continue;
                }
                let looked_at = e.kind == FileType::Char || upper && !place.lowers.is_empty();
                if looked_at && let Some(child) = fs.child(layer, &e.name)? {
                    if is_whiteout(&child.dentry)? {
                        continue;
                    }
                    e.ino = fs.origin_of(&child).filter(|_| upper).map_or(e.ino, |o| o.1);
                }
                out.push(e);
            }
        }
        Ok(out)
    }

    fn is_empty(&self) -> Result<bool, Errno> {
        Ok(self.list()?.is_empty())
    }

    /// Makes a name: in the upper directory, or in place of the whiteout that is there.
    fn make(&self, name: &[u8], new: &NewNode, target: Option<&[u8]>) -> Result<InodeRef, Errno> {
        let fs = &self.fs;
        let upper = self.copy_up(u64::MAX)?;
        let covered = match self.upper_child(&upper, name)? {
            Some((_, false)) => return Err(Errno::EEXIST),
            Some((_, true)) => true,
            None => false,
        };
        let (dir, as_name) =
            if covered { (fs.work()?.clone(), fs.temporary()) } else { (upper.clone(), name.to_vec()) };
        let made = fs.make_real(&dir, &as_name, new, target)?;
        let is_dir = FileType::of(new.mode) == FileType::Directory;
        let place = || -> Result<(), Errno> {
            if is_dir && covered {
                self.hide_below(&made, name)?;
            }
            if covered { fs.put(&as_name, &upper, name, is_dir) } else { Ok(()) }
        };
        if let Err(e) = place() {
            if is_dir {
                fs.clear(&made, 0).ok();
            }
            fs.discard(&dir, &as_name, is_dir);
            return Err(e);
        }
        let place = Place { upper: Some(made), lowers: Vec::new() };
        Ok(fs.node(FileType::of(new.mode), place, Some((self.me()?, name.into())))?)
    }
}

impl Inode for Node {
    crate::vfs::inode::fields!();

    fn attr(&self) -> Result<Attr, Errno> {
        let place = self.place();
        let mut a = place.real()?.dentry.inode().attr()?;
        let one = self.fs.shown.is_empty();
        if let Some((dev, ino)) = *self.origin.lock()
            && place.upper.is_some()
            && (one || !self.is_dir())
        {
            (a.dev, a.ino) = (dev, ino);
        }
        if self.is_dir() {
            a.ino = if one { a.ino } else { self.number };
            a.dev = self.fs.dev;
            a.nlink = if self.is_merged() { 1 } else { a.nlink };
        } else {
            a.dev = self.fs.shown_device(a.dev);
        }
        Ok(a)
    }

    fn set_attr(&self, set: &SetAttr) -> Result<(), Errno> {
        let upper = self.copy_up(set.size.unwrap_or(u64::MAX))?;
        upper.dentry.inode().set_attr(set)
    }

    fn backing(&self) -> Option<InodeRef> {
        self.inode().ok()
    }

    fn lookup(&self, _caller: &Caller<'_>, name: &[u8]) -> Result<Option<InodeRef>, Errno> {
        if !self.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        Ok(self.find(name)?.map(|n| n as InodeRef))
    }

    fn entries(&self, _caller: &Caller<'_>) -> Result<Vec<DirEntry>, Errno> {
        self.list()
    }

    fn create(&self, name: &[u8], new: &NewNode) -> Result<InodeRef, Errno> {
        self.make(name, new, None)
    }

    fn create_unnamed(&self, new: &NewNode) -> Result<InodeRef, Errno> {
        let upper = self.copy_up(u64::MAX)?;
        let inode = upper.dentry.inode().create_unnamed(new)?;
        inode.common().linkable.store(true, std::sync::atomic::Ordering::Relaxed);
        let dentry = Dentry::unnamed(inode, &upper.dentry, &self.fs.temporary());
        let place = Place { upper: Some(PathRef { mount: upper.mount, dentry }), lowers: Vec::new() };
        Ok(self.fs.node(FileType::Regular, place, None)?)
    }

    fn symlink(&self, name: &[u8], target: &[u8], new: &NewNode) -> Result<InodeRef, Errno> {
        self.make(name, new, Some(target))
    }

    fn link(&self, name: &[u8], target: &InodeRef) -> Result<(), Errno> {
        let (node, fs) = (node_of(target)?, &self.fs);
        if !Arc::ptr_eq(&node.fs, fs) {
            return Err(Errno::EXDEV);
        }
        let what = node.copy_up(u64::MAX)?;
        let upper = self.copy_up(u64::MAX)?;
        let what = PathRef { mount: upper.mount.clone(), dentry: what.dentry };
        match self.upper_child(&upper, name)? {
            Some((_, false)) => Err(Errno::EEXIST),
            None => ops::link(&fs.caller(), &what, upper, name),
            Some((_, true)) => {
                let temporary = fs.temporary();
                ops::link(&fs.caller(), &what, fs.work()?.clone(), &temporary)?;
                fs.put(&temporary, &upper, name, false).inspect_err(|_| fs.discard(&upper, &temporary, false))
            }
        }
    }

    fn unlink(&self, name: &[u8], directory: bool) -> Result<(), Errno> {
        let fs = &self.fs;
        let victim = self.find(name)?.ok_or(Errno::ENOENT)?;
        match (directory, victim.is_dir()) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            (true, true) if !victim.is_empty()? => return Err(Errno::ENOTEMPTY),
            _ => {}
        }
        let upper = self.copy_up(u64::MAX)?;
        let there = self.upper_child(&upper, name)?;
        if self.lies_below(name)? {
            let white = fs.whiteout()?;
            fs.put(&white, &upper, name, directory && there.is_some())?;
            self.forget(name);
            return Ok(());
        }
        if let (true, Some((there, _))) = (directory, &there) {
            // What it holds are whiteouts.
            fs.clear(there, 0)?;
        }
        ops::unlink(&fs.caller(), upper, name, directory)
    }

    fn rename(&self, name: &[u8], to: &InodeRef, new_name: &[u8], flags: u32) -> Result<(), Errno> {
        let (to, fs) = (node_of(to)?, &self.fs);
        if !Arc::ptr_eq(&to.fs, fs) {
            return Err(Errno::EXDEV);
        }
        if flags & RENAME_WHITEOUT != 0 {
            return Err(Errno::EINVAL);
        }
        let exchange = flags & RENAME_EXCHANGE != 0;
        let node = self.find(name)?.ok_or(Errno::ENOENT)?;
        let target = to.find(new_name)?;
        if !node.can_move() || exchange && target.as_ref().is_some_and(|t| !t.can_move()) {
            return Err(Errno::EXDEV);
        }
        let below = self.lies_below(name)?;
        if let Some(t) = target.as_ref().filter(|t| !exchange && t.is_dir())
            && !t.is_empty()?
        {
            return Err(Errno::ENOTEMPTY);
        }
        let moved = node.copy_up(u64::MAX)?;
        let (a, b) = (self.copy_up(u64::MAX)?, to.copy_up(u64::MAX)?);
        let b = PathRef { mount: a.mount.clone(), dentry: b.dentry };
        // What a directory comes to lie over must not show in it.
        let hide = |what: &PathRef, dir: &Node, name: &[u8]| -> Result<(), Errno> {
            if dir.place.read().lowers.is_empty() || what.dentry.inode().kind() != FileType::Directory {
                return Ok(());
            }
            dir.hide_below(what, name).map_err(|e| if e == Errno::EIO { Errno::EXDEV } else { e })
        };
        hide(&moved, &to, new_name)?;
        let caller = fs.caller();
        if exchange {
            let other = target.ok_or(Errno::ENOENT)?.copy_up(u64::MAX)?;
            hide(&other, self, name)?;
            return ops::rename(&caller, (a, name), (b, new_name), RENAME_EXCHANGE);
        }
        let over = self.upper_child(&b, new_name)?;
        if let Some((dir, false)) = &over
            && dir.dentry.inode().kind() == FileType::Directory
        {
            fs.clear(dir, 0)?;
        }
        if node.is_dir() && matches!(over, Some((_, true))) {
            // The whiteout changes places with it, and stays if it is needed.
            ops::rename(&caller, (a.clone(), name), (b, new_name), RENAME_EXCHANGE)?;
            return if below { Ok(()) } else { ops::unlink(&caller, a, name, false) };
        }
        // Made before, so that the name cannot come to show what lies below it.
        let white = if below { Some(fs.new_whiteout()?) } else { None };
        let renamed = ops::rename(&caller, (a.clone(), name), (b, new_name), 0);
        match white {
            Some(white) if renamed.is_ok() => fs.put(&white, &a, name, false),
            Some(white) => {
                fs.discard(fs.work()?, &white, false);
                renamed
            }
            None => renamed,
        }
    }

    fn readlink(&self, _caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
        self.inode()?.readlink(&self.fs.caller())
    }

    fn open(self: Arc<Self>, _caller: &Caller<'_>, how: OpenHow) -> Result<Box<dyn FileOps>, Errno> {
        match self.kind {
            FileType::Directory => Ok(Box::new(DirectoryFile)),
            FileType::Regular => {
                let truncates = how.flags & crate::vfs::file::flags::TRUNC != 0;
                if how.write || truncates {
                    self.copy_up(if truncates { 0 } else { u64::MAX })?;
                }
                Ok(Box::new(OverlayFile::open(self, how)?))
            }
            _ => Err(Errno::ENXIO),
        }
    }

    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        self.inode()?.xattr(&self.fs.escaped(name))
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: i32) -> Result<(), Errno> {
        let upper = self.copy_up(u64::MAX)?;
        upper.dentry.inode().set_xattr(&self.fs.escaped(name), value, flags)
    }

    fn xattrs(&self) -> Result<Vec<Vec<u8>>, Errno> {
        let all = self.inode()?.xattrs()?;
        Ok(all.into_iter().filter_map(|n| self.fs.unescaped(n)).collect())
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        let name = self.fs.escaped(name);
        self.inode()?.xattr(&name)?;
        let upper = self.copy_up(u64::MAX)?;
        upper.dentry.inode().remove_xattr(&name)
    }

    fn drop_capabilities(&self) {
        if let Ok(inode) = self.inode()
            && inode.xattr(access::CAPABILITIES).is_ok()
            && let Ok(upper) = self.copy_up(u64::MAX)
        {
            upper.dentry.inode().drop_capabilities();
        }
    }

    fn touch(&self) {
        if let Ok(inode) = self.inode() {
            inode.touch();
        }
    }
}

impl Overlay {
    /// The name by which an attribute is kept in the layers: our own are not for those who look at the overlay.
    fn escaped(&self, name: &[u8]) -> Vec<u8> {
        match name.strip_prefix(self.prefix) {
            Some(rest) => [self.prefix, b"overlay.", rest].concat(),
            None => name.to_vec(),
        }
    }

    /// The name by which an attribute that is kept in the layers is shown, if it is.
    fn unescaped(&self, name: Vec<u8>) -> Option<Vec<u8>> {
        match name.strip_prefix(self.prefix) {
            Some(rest) => Some([self.prefix, rest.strip_prefix(b"overlay.")?].concat()),
            None => Some(name),
        }
    }
}
