//! Parts that several messages share.

use super::wire::{DecodeError, Field, Reader};
use super::{MAX_BATCH, MAX_WALK};

macro_rules! record {
    ($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident: $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty),* }

        impl Field<'_> for $name {
            fn get(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(Self { $($field: <$ty as Field<'_>>::get(r)?),* })
            }
            fn put(&self, w: &mut Vec<u8>) {
                $(self.$field.put(w);)*
            }
        }
    };
}

/// The type byte of a qid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QidKind(pub u8);

impl QidKind {
    /// A directory.
    pub const DIR: QidKind = QidKind(0x80);
    /// A symbolic link.
    pub const SYMLINK: QidKind = QidKind(0x02);
    /// Anything else.
    pub const FILE: QidKind = QidKind(0);
    /// With one of the others: on a mount of the server's that may go. Whoever uses it not lets go of it.
    pub const MOUNT: QidKind = QidKind(0x10);

    /// Whether it is a directory.
    pub fn is_dir(self) -> bool {
        self.0 & Self::DIR.0 != 0
    }

    /// Whether it has that mark.
    pub fn is_on_mount(self) -> bool {
        self.0 & Self::MOUNT.0 != 0
    }

    /// The same with that mark.
    #[must_use]
    pub fn on_mount(self) -> Self {
        Self(self.0 | Self::MOUNT.0)
    }
}

impl Field<'_> for QidKind {
    fn get(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(QidKind(r.u8()?))
    }
    fn put(&self, w: &mut Vec<u8>) {
        w.push(self.0);
    }
}

record! {
    /// A file's identity: equal `path` means the same file on this server.
    Qid {
        /// What kind of file.
        kind: QidKind,
        /// Changes when the file's content or attributes change.
        version: u32,
        /// Unique among the server's files that exist at one time.
        path: u64,
    }
}

record! {
    /// A time since 1970.
    Time {
        /// Whole seconds (two's complement where before 1970).
        sec: u64,
        /// Nanoseconds.
        nsec: u64,
    }
}

record! {
    /// A file's attributes (Rgetattr; stat(2)).
    Attr {
        /// Which of the rest are valid ([`AttrMask`]).
        valid: u64,
        /// Identity.
        qid: Qid,
        /// Type and permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Hard links.
        nlink: u64,
        /// Device number of a device node (`makedev` encoding of Linux, 64 bits).
        rdev: u64,
        /// Bytes.
        size: u64,
        /// Preferred size of a transfer, in bytes.
        blksize: u64,
        /// 512-byte blocks allocated.
        blocks: u64,
        /// Last access.
        atime: Time,
        /// Last change of content.
        mtime: Time,
        /// Last change of attributes.
        ctime: Time,
        /// Birth (zero where unknown).
        btime: Time,
        /// Generation of the inode.
        generation: u64,
        /// Version of the data.
        data_version: u64,
    }
}

/// Bits of Tgetattr's mask.
#[derive(Debug, Clone, Copy)]
pub struct AttrMask;

impl AttrMask {
    /// All that stat(2) tells.
    pub const BASIC: u64 = 0x7ff;
    /// Time of birth too.
    pub const BTIME: u64 = 0x800;
}

record! {
    /// What to change (Tsetattr).
    SetAttr {
        /// Which ([`SetAttrMask`]).
        valid: u32,
        /// New permission bits.
        mode: u32,
        /// New owner.
        uid: u32,
        /// New group.
        gid: u32,
        /// New size.
        size: u64,
        /// New time of access.
        atime: Time,
        /// New time of change.
        mtime: Time,
    }
}

/// Bits of [`SetAttr::valid`].
#[derive(Debug, Clone, Copy)]
pub struct SetAttrMask;

impl SetAttrMask {
    /// mode
    pub const MODE: u32 = 1;
    /// uid
    pub const UID: u32 = 2;
    /// gid
    pub const GID: u32 = 4;
    /// size
    pub const SIZE: u32 = 8;
    /// atime: to now unless [`Self::ATIME_SET`]
    pub const ATIME: u32 = 0x10;
    /// mtime: to now unless [`Self::MTIME_SET`]
    pub const MTIME: u32 = 0x20;
    /// ctime
    pub const CTIME: u32 = 0x40;
    /// atime is given
    pub const ATIME_SET: u32 = 0x80;
    /// mtime is given
    pub const MTIME_SET: u32 = 0x100;
}

record! {
    /// A file system's figures (Rstatfs; statfs(2)).
    StatFs {
        /// Magic number.
        kind: u32,
        /// Block size.
        bsize: u32,
        /// Blocks.
        blocks: u64,
        /// Free blocks.
        bfree: u64,
        /// Free blocks for users.
        bavail: u64,
        /// Inodes.
        files: u64,
        /// Free inodes.
        ffree: u64,
        /// Identity.
        fsid: u64,
        /// Longest name.
        namelen: u32,
    }
}

/// Kind of a record lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LockKind(pub u8);

impl LockKind {
    /// Shared.
    pub const READ: LockKind = LockKind(0);
    /// Exclusive.
    pub const WRITE: LockKind = LockKind(1);
    /// None.
    pub const UNLOCK: LockKind = LockKind(2);
}

impl Field<'_> for LockKind {
    fn get(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(LockKind(r.u8()?))
    }
    fn put(&self, w: &mut Vec<u8>) {
        w.push(self.0);
    }
}

record! {
    /// A record lock's place (fcntl(2)); `length` 0 is up to the end of the file.
    Lock {
        /// First byte.
        start: u64,
        /// Bytes.
        length: u64,
        /// Whose, among the client's processes.
        process: u32,
    }
}

/// The names of a walk, at most [`MAX_WALK`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names<'a> {
    names: [&'a [u8]; MAX_WALK],
    len: usize,
}

impl<'a> Names<'a> {
    /// The names of `from`, or none where there are too many.
    pub fn new(from: &[&'a [u8]]) -> Option<Self> {
        let mut names: [&[u8]; MAX_WALK] = [&[]; MAX_WALK];
        names.get_mut(..from.len())?.copy_from_slice(from);
        Some(Self { names, len: from.len() })
    }

    /// All of them.
    pub fn as_slice(&self) -> &[&'a [u8]] {
        self.names.get(..self.len).unwrap_or_default()
    }
}

impl<'a> Field<'a> for Names<'a> {
    fn get(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let len = r.count(MAX_WALK)?;
        let mut names: [&[u8]; MAX_WALK] = [&[]; MAX_WALK];
        for name in names.iter_mut().take(len) {
            *name = Field::get(r)?;
        }
        Ok(Self { names, len })
    }
    fn put(&self, w: &mut Vec<u8>) {
        (self.len as u16).put(w);
        self.as_slice().iter().for_each(|name| name.put(w));
    }
}

macro_rules! list {
    ($(#[$meta:meta])* $name:ident of $ty:ty, at most $max:expr) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct $name(pub Vec<$ty>);

        impl Field<'_> for $name {
            fn get(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let len = r.count($max)?;
                let mut all = Vec::with_capacity(len);
                for _ in 0..len {
                    all.push(<$ty as Field<'_>>::get(r)?);
                }
                Ok(Self(all))
            }
            fn put(&self, w: &mut Vec<u8>) {
                (self.0.len().min($max) as u16).put(w);
                self.0.iter().take($max).for_each(|one| one.put(w));
            }
        }
    };
}

list! {
    /// The qids of the steps that a walk reached.
    Qids of Qid, at most MAX_WALK
}
list! {
    /// The attributes of the steps that a walk reached.
    Steps of Attr, at most MAX_WALK
}
list! {
    /// Fids of a batch.
    Fids of u32, at most MAX_BATCH
}
