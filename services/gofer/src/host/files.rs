//! The backend's face to the server engine.

use std::sync::{Arc, OnceLock};

use cofferdam_ninep::Errno;
use cofferdam_ninep::codec::{Attr, DirWriter, Lock, LockKind, MAX_XATTR, Qid, SetAttr, StatFs};
use cofferdam_ninep::server::{Entry, Filesystem};
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{FallocateFlags, FileType, OFlags, XattrFlags};

use super::{Host, Node, Open};

/// What of the client's open flags reaches the host, and whether the file may be read and written then.
pub(super) fn open_flags(flags: u32) -> Result<(OFlags, bool, bool), Errno> {
    let given = OFlags::from_bits_retain(flags);
    let (mode, read, write) = match flags & 3 {
        0 => (OFlags::RDONLY, true, false),
        1 => (OFlags::WRONLY, false, true),
        2 => (OFlags::RDWR, true, true),
        _ => return Err(Errno::INVAL),
    };
    let passed = given & (OFlags::APPEND | OFlags::TRUNC | OFlags::SYNC | OFlags::DSYNC | OFlags::DIRECTORY);
    if passed.contains(OFlags::TRUNC) && !write {
        return Err(Errno::INVAL);
    }
    Ok((mode | passed, read, write))
}

/// Attributes that a container may see and set; the rest are the host's.
fn xattr_allowed(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
}

impl Host {
    pub(super) fn open_node(&self, node: &Node, flags: u32) -> Result<(), Errno> {
        let (oflags, read, write) = open_flags(flags)?;
        if write {
            node.writable()?;
        }
        if node.open.get().is_some() {
            return Err(Errno::BUSY);
        }
        let open = match (&node.tree.file, node.inode.kind) {
            (Some(file), FileType::RegularFile) => {
                if oflags.contains(OFlags::TRUNC) {
                    rustix::fs::ftruncate(file, 0)?;
                }
                Open { fd: file.clone(), read, write, reading: std::sync::Mutex::new(()), _permit: self.permit()? }
            }
            (_, FileType::Directory) if write => return Err(Errno::ISDIR),
            (_, FileType::RegularFile) if oflags.contains(OFlags::DIRECTORY) => return Err(Errno::NOTDIR),
            _ => self.open_state(&node.inode, self.reopen(&node.inode, oflags)?, read, write)?,
        };
        node.open.set(open).map_err(|_| Errno::BUSY)
    }

    fn lock_range(range: &Lock) -> Result<(i64, i64), Errno> {
        let to_i64 = |v: u64| i64::try_from(v).map_err(|_| Errno::INVAL);
        Ok((to_i64(range.start)?, to_i64(range.length)?))
    }
}

fn flock(kind: LockKind, start: i64, len: i64) -> Result<nix::libc::flock, Errno> {
    let kind = match kind {
        LockKind::READ => nix::libc::F_RDLCK,
        LockKind::WRITE => nix::libc::F_WRLCK,
        LockKind::UNLOCK => nix::libc::F_UNLCK,
        _ => return Err(Errno::INVAL),
    };
    let whence = nix::libc::SEEK_SET as i16;
    Ok(nix::libc::flock { l_type: kind as i16, l_whence: whence, l_start: start, l_len: len, l_pid: 0 })
}

impl Filesystem for Host {
    type Node = Node;

    fn attach(&self, aname: &[u8], uid: u32) -> Result<Entry<Node>, Errno> {
        let name = aname.strip_prefix(b"export/").unwrap_or(aname);
        let tree = self.trees.get(name).ok_or(Errno::NOENT)?.clone();
        let attr = self.attr_of(&tree.root)?;
        let inode = tree.root.clone();
        Ok(Entry { node: Node { tree, inode, uid, open: OnceLock::new() }, attr })
    }

    fn clone_node(&self, node: &Node) -> Result<Node, Errno> {
        let (tree, inode) = (node.tree.clone(), node.inode.clone());
        Ok(Node { tree, inode, uid: node.uid, open: OnceLock::new() })
    }

    fn walk(&self, from: &Node, name: &[u8]) -> Result<Entry<Node>, Errno> {
        let (inode, attr) = if matches!(name, b"." | b"..") {
            if !from.inode.is_dir() {
                return Err(Errno::NOTDIR);
            }
            let inode = match from.inode.place() {
                Some(place) if name == b".." && !Arc::ptr_eq(&from.inode, &from.tree.root) => place.dir,
                _ => from.inode.clone(),
            };
            let attr = self.attr_of(&inode)?;
            (inode, attr)
        } else {
            self.step(&from.inode, name)?
        };
        Ok(Entry { node: Node { tree: from.tree.clone(), inode, uid: from.uid, open: OnceLock::new() }, attr })
    }

    fn getattr(&self, node: &Node) -> Result<Attr, Errno> {
        self.attr_of(&node.inode)
    }

    fn setattr(&self, node: &Node, attr: &SetAttr) -> Result<(), Errno> {
        self.change(node, attr)
    }

    fn open(&self, node: &Node, flags: u32) -> Result<Qid, Errno> {
        self.open_node(node, flags)?;
        let kind = super::attr::qid_kind(node.inode.kind);
        Ok(Qid { kind, version: 0, path: self.path_of(node.inode.key) })
    }

    fn create(&self, dir: &Node, name: &[u8], flags: u32, mode: u32, gid: u32) -> Result<Entry<Node>, Errno> {
        self.create_file(dir, name, flags, mode, gid)
    }

    fn read(&self, node: &Node, offset: u64, count: u32, to: &mut Vec<u8>) -> Result<(), Errno> {
        self.read_file(node, offset, count, to)
    }

    fn write(&self, node: &Node, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        self.write_file(node, offset, data)
    }

    fn fill(&self, node: &Node, offset: u64, count: u32, window: u64) -> Result<u32, Errno> {
        self.fill_window(node, offset, count, window)
    }

    fn refill(&self, node: &Node, offset: u64, count: u32, window: u64) -> Result<u32, Errno> {
        self.refill_window(node, offset, count, window)
    }

    fn spill(&self, node: &Node, offset: u64, count: u32, window: u64) -> Result<u32, Errno> {
        self.spill_window(node, offset, count, window)
    }

    fn readdir(&self, node: &Node, offset: u64, to: &mut DirWriter<'_>) -> Result<(), Errno> {
        self.list(node, offset, to)
    }

    fn readlink(&self, node: &Node) -> Result<Vec<u8>, Errno> {
        if node.inode.kind != FileType::Symlink {
            return Err(Errno::INVAL);
        }
        // An empty path reads the link that the handle itself is (readlinkat(2)).
        Ok(rustix::fs::readlinkat(node.inode.handle()?, "", Vec::new())?.into_bytes())
    }

    fn symlink(&self, dir: &Node, name: &[u8], target: &[u8], gid: u32) -> Result<Qid, Errno> {
        self.make_symlink(dir, name, target, gid)
    }

    fn mkdir(&self, dir: &Node, name: &[u8], mode: u32, gid: u32) -> Result<Qid, Errno> {
        self.make_dir(dir, name, mode, gid)
    }

    fn mknod(&self, dir: &Node, name: &[u8], mode: u32, device: (u32, u32), gid: u32) -> Result<Qid, Errno> {
        self.make_node(dir, name, mode, device, gid)
    }

    fn link(&self, dir: &Node, node: &Node, name: &[u8]) -> Result<(), Errno> {
        self.make_link(dir, node, name)
    }

    fn rename(&self, from: &Node, old: &[u8], to: &Node, new: &[u8], flags: u32) -> Result<(), Errno> {
        self.move_name(from, old, to, new, flags)
    }

    fn place(&self, node: &Node) -> Result<(Node, Vec<u8>), Errno> {
        // The root of an export has no name that its client may touch.
        if Arc::ptr_eq(&node.inode, &node.tree.root) {
            return Err(Errno::BUSY);
        }
        let place = node.inode.place().ok_or(Errno::BUSY)?;
        let (tree, uid) = (node.tree.clone(), node.uid);
        Ok((Node { tree, inode: place.dir, uid, open: OnceLock::new() }, place.name))
    }

    fn unlink(&self, dir: &Node, name: &[u8], directory: bool) -> Result<(), Errno> {
        self.remove_name(dir, name, directory)
    }

    fn fsync(&self, node: &Node, data_only: bool) -> Result<(), Errno> {
        let open = node.opened()?;
        if data_only {
            rustix::fs::fdatasync(&open.fd)?
        } else {
            rustix::fs::fsync(&open.fd)?
        }
        Ok(())
    }

    fn statfs(&self, node: &Node) -> Result<StatFs, Errno> {
        let s = rustix::fs::fstatfs(node.inode.handle()?)?;
        Ok(StatFs {
            kind: s.f_type as u32,
            bsize: s.f_bsize as u32,
            blocks: s.f_blocks,
            bfree: s.f_bfree,
            bavail: s.f_bavail,
            files: s.f_files,
            ffree: s.f_ffree,
            fsid: 0,
            namelen: s.f_namelen as u32,
        })
    }

    fn allocate(&self, node: &Node, mode: u32, offset: u64, length: u64) -> Result<(), Errno> {
        let open = node.opened()?;
        if !open.write {
            return Err(Errno::BADF);
        }
        let known = FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE;
        let mode = FallocateFlags::from_bits(mode).filter(|m| known.contains(*m)).ok_or(Errno::OPNOTSUPP)?;
        Ok(rustix::fs::fallocate(&open.fd, mode, offset, length)?)
    }

    fn get_xattr(&self, node: &Node, name: &[u8]) -> Result<Vec<u8>, Errno> {
        if !xattr_allowed(name) {
            return Err(Errno::NODATA);
        }
        self.borrow_open(node, |fd| {
            let mut value = vec![0; MAX_XATTR as usize];
            let got = rustix::fs::fgetxattr(fd, name, &mut value[..])?;
            value.truncate(got);
            Ok(value)
        })
    }

    fn list_xattr(&self, node: &Node) -> Result<Vec<u8>, Errno> {
        let listed = self.borrow_open(node, |fd| {
            let mut names = vec![0; MAX_XATTR as usize];
            let got = rustix::fs::flistxattr(fd, &mut names[..])?;
            names.truncate(got);
            Ok(names)
        });
        match listed {
            // Files that are never opened have none that a container may see.
            Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
            Err(e) => Err(e),
            Ok(names) => Ok(names
                .split_inclusive(|b| *b == 0)
                .filter(|n| xattr_allowed(n.strip_suffix(&[0]).unwrap_or(n)))
                .flatten()
                .copied()
                .collect()),
        }
    }

    fn set_xattr(&self, node: &Node, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno> {
        node.writable()?;
        if !xattr_allowed(name) {
            return Err(Errno::OPNOTSUPP);
        }
        let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        self.borrow_open(node, |fd| Ok(rustix::fs::fsetxattr(fd, name, value, flags)?))
    }

    fn remove_xattr(&self, node: &Node, name: &[u8]) -> Result<(), Errno> {
        node.writable()?;
        if !xattr_allowed(name) {
            return Err(Errno::OPNOTSUPP);
        }
        self.borrow_open(node, |fd| Ok(rustix::fs::fremovexattr(fd, name)?))
    }

    fn lock(&self, node: &Node, kind: LockKind, range: &Lock) -> Result<bool, Errno> {
        let (start, len) = Self::lock_range(range)?;
        let want = flock(kind, start, len)?;
        // Open-file-description locks: a fid is an owner of its own, and losing it loses its locks.
        match fcntl(&*node.opened()?.fd, FcntlArg::F_OFD_SETLK(&want)) {
            Ok(_) => Ok(true),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => Ok(false),
            Err(e) => Err(Errno((e as i32).unsigned_abs())),
        }
    }

    fn getlock(&self, node: &Node, kind: LockKind, range: &Lock) -> Result<(LockKind, Lock), Errno> {
        let (start, len) = Self::lock_range(range)?;
        let mut found = flock(kind, start, len)?;
        fcntl(&*node.opened()?.fd, FcntlArg::F_OFD_GETLK(&mut found)).map_err(|e| Errno((e as i32).unsigned_abs()))?;
        let kind = match i32::from(found.l_type) {
            nix::libc::F_RDLCK => LockKind::READ,
            nix::libc::F_WRLCK => LockKind::WRITE,
            _ => return Ok((LockKind::UNLOCK, *range)),
        };
        let place = Lock { start: found.l_start.unsigned_abs(), length: found.l_len.unsigned_abs(), process: 0 };
        Ok((kind, place))
    }
}
