//! Attributes: from the host's to 9P's, and changing them.

use std::sync::PoisonError;

use cofferdam_ninep::Errno;
use cofferdam_ninep::codec::{Attr, AttrMask, Qid, QidKind, SetAttr, SetAttrMask, Time};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Statx, StatxFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid,
};

use super::inode::{Inode, Key, key_of};
use super::{Host, Node};

/// Inode numbers at or above this are mixed with their device instead of being put beside it.
const PLAIN_INODES: u64 = 1 << 48;

fn time(t: rustix::fs::StatxTimestamp) -> Time {
    Time { sec: t.tv_sec.cast_unsigned(), nsec: u64::from(t.tv_nsec) }
}

pub(super) fn qid_kind(kind: FileType) -> QidKind {
    match kind {
        FileType::Directory => QidKind::DIR,
        FileType::Symlink => QidKind::SYMLINK,
        _ => QidKind::FILE,
    }
}

impl Host {
    /// A number that differs for files of different devices too.
    pub(super) fn path_of(&self, (dev, ino): Key) -> u64 {
        let index = {
            let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
            match devices.iter().position(|d| *d == dev) {
                Some(index) => index,
                None if devices.len() < 4096 => {
                    devices.push(dev);
                    devices.len() - 1
                }
                None => devices.len(),
            }
        };
        match index {
            0 => ino,
            1..4096 if ino < PLAIN_INODES => ino | ((index as u64) << 48),
            // Big numbers (overlayfs, btrfs) and too many devices: 64 mixed bits, splitmix64's.
            _ => {
                let mut x = ino ^ dev.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15;
                x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                (x ^ (x >> 31)) | (1 << 63)
            }
        }
    }

    pub(super) fn attr(&self, s: &Statx) -> Attr {
        let has_btime = s.stx_mask & StatxFlags::BTIME.bits() != 0;
        let ctime = time(s.stx_ctime);
        Attr {
            valid: AttrMask::BASIC | if has_btime { AttrMask::BTIME } else { 0 },
            qid: Qid {
                kind: qid_kind(FileType::from_raw_mode(u32::from(s.stx_mode))),
                version: (ctime.nsec as u32) ^ (ctime.sec as u32).rotate_left(30),
                path: self.path_of(key_of(s)),
            },
            mode: u32::from(s.stx_mode),
            uid: s.stx_uid,
            gid: s.stx_gid,
            nlink: u64::from(s.stx_nlink),
            rdev: rustix::fs::makedev(s.stx_rdev_major, s.stx_rdev_minor),
            size: s.stx_size,
            blksize: u64::from(s.stx_blksize),
            blocks: s.stx_blocks,
            atime: time(s.stx_atime),
            mtime: time(s.stx_mtime),
            ctime,
            btime: if has_btime { time(s.stx_btime) } else { Time::default() },
            // Which file of the host it is: a Sentry may have others of us, and the same file from one of them.
            generation: rustix::fs::makedev(s.stx_dev_major, s.stx_dev_minor),
            data_version: s.stx_ino,
        }
    }

    /// An open descriptor of the file for calls that take no `O_PATH` handle (fchmod, xattrs): the fid's own where it is
    /// open, else opened for this moment, for reading or, where that is not allowed, for writing.
    pub(super) fn borrow_open<T>(
        &self,
        node: &Node,
        use_it: impl FnOnce(&std::os::fd::OwnedFd) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        if let Some(open) = node.open.get() {
            return use_it(&open.fd);
        }
        if let Some(file) = &node.tree.file {
            return use_it(file);
        }
        if let Some(fd) = node.inode.opened(false) {
            return use_it(&fd);
        }
        let for_write = || -> Result<_, Errno> {
            if node.inode.is_dir() || node.tree.read_only {
                return Err(Errno::ACCES);
            }
            self.reopen(&node.inode, OFlags::WRONLY)
        };
        let _permit = self.permit()?;
        match self.reopen(&node.inode, OFlags::RDONLY) {
            Err(Errno::ACCES) => use_it(&for_write()?),
            // Special files and links are never opened.
            Err(Errno::NXIO | Errno::LOOP) => Err(Errno::OPNOTSUPP),
            file => use_it(&file?),
        }
    }

    pub(super) fn change(&self, node: &Node, attr: &SetAttr) -> Result<(), Errno> {
        node.writable()?;
        let inode: &Inode = &node.inode;
        let has = |bit| attr.valid & bit != 0;
        // The order matters: a change of owner clears set-id bits, a change of size sets mtime.
        if has(SetAttrMask::UID | SetAttrMask::GID) {
            let uid = (has(SetAttrMask::UID) && attr.uid != u32::MAX).then(|| Uid::from_raw(attr.uid));
            let gid = (has(SetAttrMask::GID) && attr.gid != u32::MAX).then(|| Gid::from_raw(attr.gid));
            rustix::fs::chownat(inode.handle()?, "", uid, gid, AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if has(SetAttrMask::MODE) {
            let mode = Mode::from_raw_mode(attr.mode & 0o7777);
            self.borrow_open(node, |fd| Ok(rustix::fs::fchmod(fd, mode)?))?;
        }
        if has(SetAttrMask::SIZE) {
            self.truncate(node, attr.size)?;
        }
        if has(SetAttrMask::ATIME | SetAttrMask::MTIME) {
            let when = |touched, set, t: Time| -> Result<Timespec, Errno> {
                if !has(touched) {
                    return Ok(Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT });
                }
                if !has(set) {
                    return Ok(Timespec { tv_sec: 0, tv_nsec: UTIME_NOW });
                }
                let tv_nsec = i64::try_from(t.nsec).map_err(|_| Errno::INVAL)?;
                if tv_nsec >= 1_000_000_000 {
                    return Err(Errno::INVAL);
                }
                Ok(Timespec { tv_sec: t.sec.cast_signed(), tv_nsec })
            };
            let times = Timestamps {
                last_access: when(SetAttrMask::ATIME, SetAttrMask::ATIME_SET, attr.atime)?,
                last_modification: when(SetAttrMask::MTIME, SetAttrMask::MTIME_SET, attr.mtime)?,
            };
            rustix::fs::utimensat(inode.handle()?, "", &times, AtFlags::EMPTY_PATH)?;
        }
        Ok(())
    }

    fn truncate(&self, node: &Node, size: u64) -> Result<(), Errno> {
        if node.inode.is_dir() {
            return Err(Errno::ISDIR);
        }
        if let Some(open) = node.open.get().filter(|open| open.write) {
            return Ok(rustix::fs::ftruncate(&open.fd, size)?);
        }
        if let Some(file) = &node.tree.file {
            return Ok(rustix::fs::ftruncate(file, size)?);
        }
        if let Some(fd) = node.inode.opened(true) {
            return Ok(rustix::fs::ftruncate(fd, size)?);
        }
        let _permit = self.permit()?;
        Ok(rustix::fs::ftruncate(self.reopen(&node.inode, OFlags::WRONLY)?, size)?)
    }
}
