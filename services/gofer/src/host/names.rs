//! Making, linking, renaming and removing names.

use std::sync::{Arc, OnceLock, PoisonError};

use cofferdam_ninep::Errno;
use cofferdam_ninep::codec::{NONUNAME, Qid};
use cofferdam_ninep::server::Entry;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Uid};

use super::inode::{Inode, Place, key_of, openat2, statx_of};
use super::{Host, Node};

impl Host {
    /// A directory that names may be changed in.
    fn changeable(dir: &Node) -> Result<&Arc<Inode>, Errno> {
        dir.writable()?;
        if !dir.inode.is_dir() {
            Err(Errno::NOTDIR)
        } else if dir.inode.barred {
            Err(Errno::ACCES)
        } else {
            Ok(&dir.inode)
        }
    }

    /// Gives what was just made its owner. Without the right to (an ordinary user's Gofer) it stays ours.
    fn own(&self, inode: &Inode, uid: u32, gid: u32) -> Result<(), Errno> {
        let uid = (uid != NONUNAME).then(|| Uid::from_raw(uid));
        let gid = (gid != NONUNAME).then(|| Gid::from_raw(gid));
        if uid.is_none() && gid.is_none() {
            return Ok(());
        }
        let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
        match rustix::fs::chownat(inode.handle()?, "", uid, gid, flags) {
            // EINVAL: an id that its user namespace has not.
            Ok(()) | Err(rustix::io::Errno::PERM | rustix::io::Errno::INVAL) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn made(&self, dir: &Node, name: &[u8], gid: u32) -> Result<Qid, Errno> {
        let (inode, attr) = self.step(&dir.inode, name)?;
        self.own(&inode, dir.uid, gid)?;
        Ok(attr.qid)
    }

    pub(super) fn create_file(
        &self,
        dir: &Node,
        name: &[u8],
        flags: u32,
        mode: u32,
        gid: u32,
    ) -> Result<Entry<Node>, Errno> {
        let parent = Self::changeable(dir)?;
        let (oflags, read, write) = super::files::open_flags(flags)?;
        let mode = Mode::from_raw_mode(mode & 0o7777);
        let new = (oflags - OFlags::DIRECTORY) | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let exclusive = OFlags::from_bits_retain(flags).contains(OFlags::EXCL);
        match openat2(parent.handle()?, name, new, mode) {
            Ok(fd) => {
                let (inode, _) = self.step(parent, name)?;
                if key_of(&statx_of(&fd, b"")?) != inode.key {
                    return Err(Errno::STALE);
                }
                self.own(&inode, dir.uid, gid)?;
                let attr = self.attr_of(&inode)?;
                let open = OnceLock::from(self.open_state(&inode, fd, read, write)?);
                Ok(Entry { node: Node { tree: dir.tree.clone(), inode, uid: dir.uid, open }, attr })
            }
            Err(Errno::EXIST) if !exclusive => {
                let (inode, attr) = self.step(parent, name)?;
                let node = Node { tree: dir.tree.clone(), inode, uid: dir.uid, open: OnceLock::new() };
                self.open_node(&node, flags)?;
                Ok(Entry { node, attr })
            }
            Err(e) => Err(e),
        }
    }

    pub(super) fn make_symlink(&self, dir: &Node, name: &[u8], target: &[u8], gid: u32) -> Result<Qid, Errno> {
        rustix::fs::symlinkat(target, Self::changeable(dir)?.handle()?, name)?;
        self.made(dir, name, gid)
    }

    pub(super) fn make_dir(&self, dir: &Node, name: &[u8], mode: u32, gid: u32) -> Result<Qid, Errno> {
        rustix::fs::mkdirat(Self::changeable(dir)?.handle()?, name, Mode::from_raw_mode(mode & 0o7777))?;
        self.made(dir, name, gid)
    }

    pub(super) fn make_node(
        &self,
        dir: &Node,
        name: &[u8],
        mode: u32,
        device: (u32, u32),
        gid: u32,
    ) -> Result<Qid, Errno> {
        let kind = match FileType::from_raw_mode(mode) {
            // No type given is a regular file (mknod(2)).
            FileType::Unknown if mode & 0o170_000 == 0 => FileType::RegularFile,
            kind @ (FileType::RegularFile | FileType::Fifo | FileType::Socket) => kind,
            // An overlay's whiteout: a device that there is not, which anybody may make and nobody open.
            kind @ FileType::CharacterDevice if device == (0, 0) => kind,
            // Devices are the host's.
            _ => return Err(Errno::PERM),
        };
        let mode = Mode::from_raw_mode(mode & 0o7777);
        rustix::fs::mknodat(Self::changeable(dir)?.handle()?, name, kind, mode, 0)?;
        self.made(dir, name, gid)
    }

    pub(super) fn make_link(&self, dir: &Node, node: &Node, name: &[u8]) -> Result<(), Errno> {
        let to = Self::changeable(dir)?;
        if !dir.tree.is_one_with(&node.tree) {
            return Err(Errno::XDEV);
        }
        if node.inode.is_dir() {
            return Err(Errno::PERM);
        }
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        // AT_EMPTY_PATH would take the handle itself, but wants CAP_DAC_READ_SEARCH.
        let place = node.inode.place().ok_or(Errno::XDEV)?;
        if key_of(&statx_of(place.dir.handle()?, &place.name)?) != node.inode.key {
            return Err(Errno::STALE);
        }
        *names = names.wrapping_add(1);
        Ok(rustix::fs::linkat(place.dir.handle()?, &*place.name, to.handle()?, name, AtFlags::empty())?)
    }

    pub(super) fn move_name(&self, from: &Node, old: &[u8], to: &Node, new: &[u8], flags: u32) -> Result<(), Errno> {
        let (source, target) = (Self::changeable(from)?, Self::changeable(to)?);
        if !from.tree.is_one_with(&to.tree) {
            return Err(Errno::XDEV);
        }
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        *names = names.wrapping_add(1);
        let seen = *names;
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        rustix::fs::renameat_with(source.handle()?, old, target.handle()?, new, flags)?;
        // Inodes in use learn where they are now.
        let learn = |dir: &Arc<Inode>, name: &[u8]| {
            if let Ok(handle) = dir.handle()
                && let Ok(stat) = statx_of(handle, name)
                && let Some(inode) = self.in_use(&stat)
            {
                inode.set_place(Place { dir: dir.clone(), name: name.to_vec(), seen });
            }
        };
        learn(target, new);
        if flags.contains(RenameFlags::EXCHANGE) {
            learn(source, old);
        }
        Ok(())
    }

    pub(super) fn remove_name(&self, dir: &Node, name: &[u8], directory: bool) -> Result<(), Errno> {
        let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        Ok(rustix::fs::unlinkat(Self::changeable(dir)?.handle()?, name, flags)?)
    }
}
