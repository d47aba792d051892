//! Changes of the upper layer: copying up, and whiteouts. Whatever is made whole is made in the work directory, then renamed.

use std::collections::HashSet;

use super::node::Node;
use super::{Overlay, device, is_whiteout};
use crate::errno::Errno;
use crate::uio::{Sink, Source};
use crate::vfs::file::{Whence, flags};
use crate::vfs::inode::{FileType, NewNode, RENAME_EXCHANGE, RENAME_NOREPLACE, SetAttr, mode};
use crate::vfs::mount::PathRef;
use crate::vfs::ops;

/// Bytes copied at a time.
const CHUNK: usize = 1 << 20;
/// What the mark begins with that says where something was copied from: version, magic number.
const ORIGIN: [u8; 2] = [0, 0xfb];
/// Its length: both, length, flags, kind, then device and number in the places of a file system's identity and a handle.
const ORIGIN_LEN: usize = 33;

impl Overlay {
    /// Makes something in a directory of the upper layer.
    pub(super) fn make_real(
        &self,
        dir: &PathRef,
        name: &[u8],
        new: &NewNode,
        target: Option<&[u8]>,
    ) -> Result<PathRef, Errno> {
        // Who mounted it makes nothing that would be nobody's in its namespace, least of all a program of root's.
        let known = &self.creator.user_ns;
        if known.uid(new.uid).is_none() || known.gid(new.gid).is_none() {
            return Err(Errno::EOVERFLOW);
        }
        let caller = self.caller_for(new);
        let bits = new.mode & mode::PERMISSIONS;
        match (FileType::of(new.mode), target) {
            (FileType::Link, target) => ops::symlink(&caller, target.ok_or(Errno::EINVAL)?, dir.clone(), name)?,
            (FileType::Directory, _) => ops::mkdir(&caller, dir.clone(), name, bits)?,
            _ => {
                ops::mknod(&caller, dir.clone(), name, new.mode, new.rdev)?;
            }
        }
        let made = self.child(dir, name)?.ok_or(Errno::EIO)?;
        let inode = made.dentry.inode();
        let a = inode.attr()?;
        // Who mounts it may not be somebody that the directory would let have it like that.
        if (a.uid, a.gid) != (new.uid, new.gid) {
            let given = inode.set_attr(&SetAttr { uid: Some(new.uid), gid: Some(new.gid), ..SetAttr::default() });
            match given {
                // As on an export itself, it is the Gofer's then.
                Err(Errno::EPERM | Errno::EINVAL) if self.on_export() => {}
                given => given?,
            }
        }
        if inode.kind() != FileType::Link && inode.attr()?.mode & mode::PERMISSIONS != bits {
            inode.set_attr(&SetAttr { mode: Some(bits), ..SetAttr::default() })?;
        }
        Ok(made)
    }

    /// Removes what was made in vain.
    pub(super) fn discard(&self, dir: &PathRef, name: &[u8], directory: bool) {
        ops::unlink(&self.caller(), dir.clone(), name, directory).ok();
    }

    /// Puts what the work directory has by a name to its place, over what is there. `changes`: they change places, since one is a
    /// directory; what was there is then removed.
    pub(super) fn put(&self, temporary: &[u8], dir: &PathRef, name: &[u8], changes: bool) -> Result<(), Errno> {
        let (caller, work) = (self.caller(), self.work()?.clone());
        let how = if changes { RENAME_EXCHANGE } else { 0 };
        ops::rename(&caller, (work.clone(), temporary), (dir.clone(), name), how)
            .inspect_err(|_| self.discard(&work, temporary, false))?;
        if changes && let Some(old) = self.child(&work, temporary)? {
            let directory = old.dentry.inode().kind() == FileType::Directory;
            if directory {
                self.clear(&old, 0)?;
            }
            ops::unlink(&caller, work, temporary, directory)?;
        }
        Ok(())
    }

    /// A whiteout of its own in the work directory: its name there.
    pub(super) fn new_whiteout(&self) -> Result<Vec<u8>, Errno> {
        let name = self.temporary();
        ops::mknod(&self.caller(), self.work()?.clone(), &name, mode::CHAR, 0)?;
        Ok(name)
    }

    /// A whiteout in the work directory: its name there. It is a link to others, as on Linux.
    pub(super) fn whiteout(&self) -> Result<Vec<u8>, Errno> {
        let work = self.work()?.clone();
        let shared = self.whiteout.lock().clone();
        let shared = match shared {
            Some(shared) => shared,
            None => {
                let name = self.new_whiteout()?;
                let made = self.child(&work, &name)?.ok_or(Errno::EIO)?;
                *self.whiteout.lock() = Some(made.clone());
                made
            }
        };
        let name = self.temporary();
        match ops::link(&self.caller(), &shared, work, &name) {
            Ok(()) => Ok(name),
            Err(_) => self.new_whiteout(),
        }
    }

    /// The directories that lower layers have by a name, as far as they are shown together.
    pub(super) fn shown_together(&self, lowers: &[PathRef], name: &[u8]) -> Result<Vec<PathRef>, Errno> {
        let mut found = Vec::new();
        for lower in lowers {
            let Some(child) = self.child(lower, name)? else { continue };
            if child.dentry.inode().kind() != FileType::Directory {
                break;
            }
            let last = self.is_opaque(&child);
            found.push(child);
            if last {
                break;
            }
        }
        Ok(found)
    }

    /// Whether it is the Gofer who changes things: it has no right to the attributes that would make a directory opaque, and an ordinary
    /// user's none to give files away.
    pub(super) fn on_export(&self) -> bool {
        self.upper.as_ref().is_some_and(|u| u.mount.fs.name() == "9p")
    }

    /// Makes a directory of the upper layer opaque without a mark, in a way that whoever mounts it later understands: each name that would
    /// show from the directories `lowers` gets a whiteout, unless the directory has something of its own by it.
    pub(super) fn cover(&self, directory: &PathRef, lowers: &[PathRef]) -> Result<(), Errno> {
        let caller = self.caller();
        let mut todo = vec![(directory.clone(), lowers.to_vec())];
        while let Some((directory, lowers)) = todo.pop() {
            let mut seen = HashSet::new();
            for lower in &lowers {
                for e in lower.dentry.inode().entries(&caller)? {
                    if !seen.insert(e.name.clone()) {
                        continue;
                    }
                    if e.kind == FileType::Char
                        && let Some(below) = self.child(lower, &e.name)?
                        && is_whiteout(&below.dentry)?
                    {
                        continue;
                    }
                    match self.child(&directory, &e.name)? {
                        Some(own) if own.dentry.inode().kind() != FileType::Directory || self.is_opaque(&own) => {}
                        Some(own) => todo.push((own, self.shown_together(&lowers, &e.name)?)),
                        None => {
                            let white = self.whiteout()?;
                            self.put(&white, &directory, &e.name, false)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Device and number of the lower object that something in the upper layer was copied from, if they are known.
    pub(super) fn origin_of(&self, upper: &PathRef) -> Option<(u64, u64)> {
        let mark = self.mark(upper, b"origin")?;
        let number = |at: usize| mark.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        let (dev, ino) = (number(5)?, number(21)?);
        let known = self.lowers.iter().any(|l| device(l) == Ok(dev));
        (mark.starts_with(&ORIGIN) && mark.len() == ORIGIN_LEN && known).then_some((dev, ino))
    }

    fn set_origin(&self, upper: &PathRef, (dev, ino): (u64, u64)) {
        let mut mark = [0u8; ORIGIN_LEN];
        let parts: [(usize, &[u8]); 4] =
            [(0, &ORIGIN), (2, &[ORIGIN_LEN as u8, 0, 1]), (5, &dev.to_le_bytes()), (21, &ino.to_le_bytes())];
        for (at, bytes) in parts {
            if let Some(to) = mark.get_mut(at..at + bytes.len()) {
                to.copy_from_slice(bytes);
            }
        }
        // Without it the number is another when it is looked up anew.
        self.set_mark(upper, b"origin", &mark).ok();
    }

    fn copy_data(&self, from: &PathRef, to: &PathRef, size: u64) -> Result<(), Errno> {
        let caller = self.caller();
        let source = ops::open_at(&caller, from.clone(), flags::RDONLY, true)?;
        let target = ops::open_at(&caller, to.clone(), flags::WRONLY, true)?;
        let mut at = 0;
        while at < size {
            // Holes stay holes.
            at = match source.seek(at as i64, Whence::Data) {
                Ok(data) => data,
                Err(Errno::ENXIO) => break,
                Err(_) => at,
            };
            // One that somebody changes meanwhile may answer with a hole where there was data: each turn gets on all the same.
            let end = source.seek(at as i64, Whence::Hole).unwrap_or(size).clamp(at + 1, size.max(at + 1));
            while at < end {
                let mut chunk = Vec::new();
                let max = (end - at).min(CHUNK as u64) as usize;
                let n = source.read_at(at, &mut Sink::kernel(&mut chunk, max))?;
                if n == 0 {
                    return Ok(());
                }
                let mut done = 0;
                while done < n {
                    let rest = chunk.get(done..n).ok_or(Errno::EIO)?;
                    let put = target.pwrite(None, at + done as u64, &mut Source::kernel(rest))?;
                    if put == 0 {
                        return Err(Errno::EIO);
                    }
                    done += put;
                }
                at += n as u64;
            }
        }
        let inode = to.dentry.inode();
        if inode.attr()?.size == size {
            return Ok(());
        }
        inode.set_attr(&SetAttr { size: Some(size), ..SetAttr::default() })
    }

    fn copy_marks(&self, from: &PathRef, to: &PathRef) -> Result<(), Errno> {
        for name in from.dentry.inode().xattrs().unwrap_or_default() {
            if name.starts_with(self.prefix) {
                continue;
            }
            let value = from.dentry.inode().xattr(&name)?;
            match to.dentry.inode().set_xattr(&name, &value, 0) {
                Err(Errno::EOPNOTSUPP) if !name.starts_with(b"system.") && !name.starts_with(b"security.") => {}
                done => done?,
            }
        }
        Ok(())
    }
}

impl Node {
    /// Its place in the upper layer, where it and all directories above it are copied to if they are not there yet. Of a file's
    /// bytes only the first `keep` are copied. EROFS if there is no upper layer.
    pub(super) fn copy_up(&self, keep: u64) -> Result<PathRef, Errno> {
        if let Some(upper) = &self.place.read().upper {
            return Ok(upper.clone());
        }
        self.fs.work()?;
        let mut above = vec![self.me()?];
        while let Some((parent, _)) = above.last().and_then(|n| n.from.clone()) {
            if parent.place.read().upper.is_some() {
                break;
            }
            above.push(parent);
        }
        while let Some(node) = above.pop() {
            node.copy_up_one(if above.is_empty() { keep } else { u64::MAX })?;
        }
        self.place.read().upper.clone().ok_or(Errno::EIO)
    }

    fn copy_up_one(&self, keep: u64) -> Result<(), Errno> {
        let fs = &self.fs;
        let (parent, name) = self.from.as_ref().ok_or(Errno::EIO)?;
        let dir = parent.place.read().upper.clone().ok_or(Errno::EIO)?;
        let lower = self.place.read().lowers.first().cloned().ok_or(Errno::EIO)?;
        let a = lower.dentry.inode().attr()?;
        let before = dir.dentry.inode().attr()?;
        let target = match a.kind() {
            FileType::Link => Some(lower.dentry.inode().readlink(&fs.caller())?),
            _ => None,
        };
        let work = fs.work()?.clone();
        let temporary = fs.temporary();
        let new = NewNode { mode: a.mode, uid: a.uid, gid: a.gid, rdev: a.rdev };
        let made = fs.make_real(&work, &temporary, &new, target.as_deref())?;
        let directory = a.kind() == FileType::Directory;
        let fill = || -> Result<bool, Errno> {
            // Nobody's file becomes another's by being changed.
            let copy = made.dentry.inode().attr()?;
            if (copy.uid, copy.gid) != (a.uid, a.gid) {
                return Err(Errno::EPERM);
            }
            if a.kind() == FileType::Regular {
                fs.copy_data(&lower, &made, a.size.min(keep))?;
            }
            fs.copy_marks(&lower, &made)?;
            let origin = (a.dev, a.ino);
            if directory || a.nlink == 1 {
                fs.set_origin(&made, origin);
            }
            let inode = made.dentry.inode();
            // Bytes and owners have changed what may be run how.
            if inode.kind() != FileType::Link && inode.attr()?.mode != a.mode {
                inode.set_attr(&SetAttr { mode: Some(a.mode & mode::PERMISSIONS), ..SetAttr::default() })?;
            }
            inode.set_attr(&SetAttr { atime: Some(a.atime), mtime: Some(a.mtime), ..SetAttr::default() })?;
            self.install(&made, (&work, &temporary), (&dir, name))
        };
        match fill() {
            Ok(true) => {
                let set = SetAttr { atime: Some(before.atime), mtime: Some(before.mtime), ..SetAttr::default() };
                dir.dentry.inode().set_attr(&set).ok();
                Ok(())
            }
            Ok(false) => {
                fs.discard(&work, &temporary, directory);
                Ok(())
            }
            Err(e) => {
                fs.discard(&work, &temporary, directory);
                Err(e)
            }
        }
    }

    /// Puts the copy to its place; false if somebody else was first.
    fn install(&self, made: &PathRef, from: (&PathRef, &[u8]), to: (&PathRef, &[u8])) -> Result<bool, Errno> {
        let fs = &self.fs;
        let renamed = ops::rename(&fs.caller(), (from.0.clone(), from.1), (to.0.clone(), to.1), RENAME_NOREPLACE);
        let (upper, first) = match renamed {
            Ok(()) => (made.clone(), true),
            Err(Errno::EEXIST) => match fs.child(to.0, to.1)? {
                Some(there) if !is_whiteout(&there.dentry)? => (there, false),
                // Its name was removed meanwhile: what is open of it lives on without one.
                _ => (made.clone(), false),
            },
            Err(e) => return Err(e),
        };
        let a = upper.dentry.inode().attr()?;
        let lower = {
            let mut place = self.place.write();
            if place.upper.is_some() {
                return Ok(false);
            }
            let lower = place.lowers.first().cloned();
            if a.kind() != FileType::Directory {
                place.lowers.clear();
            }
            place.upper = Some(upper);
            lower
        };
        if let Some(l) = lower.and_then(|l| l.dentry.inode().attr().ok())
            && (l.kind() == FileType::Directory || l.nlink == 1)
        {
            *self.origin.lock() = Some((l.dev, l.ino));
        }
        if let Some((parent, name)) = &self.from {
            parent.forget(name);
        }
        self.me()?.enter((a.dev, a.ino));
        Ok(first)
    }
}
