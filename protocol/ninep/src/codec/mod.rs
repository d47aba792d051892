//! Messages to bytes and back.
//!
//! Owns the shape of every message of 9P2000.L (Linux `include/net/9p/9p.h`, diod's `protocol.md`) and of our
//! extension. Decoding borrows from the packet, allocates nothing that a peer's count has not paid for in bytes, and
//! accepts a packet only whole: no byte missing, none left over. What a name may contain is the server's question, not
//! the codec's. Callers: client and server, fuzz targets.

mod dirent;
mod messages;
mod types;
mod wire;

pub use dirent::{DirEntries, DirEntry, DirWriter};
pub use messages::{Reply, Request};
pub use types::{
    Attr, AttrMask, Fids, Lock, LockKind, Names, Qid, QidKind, Qids, SetAttr, SetAttrMask, StatFs, Steps, Time,
};
pub use wire::{Data, DataSync, DecodeError, Field, HEADER, Reader, begin, finish};

/// The extension's name in Tversion.
pub const VERSION_EXTENDED: &[u8] = b"9P2000.L.cofferdam";
/// The plain protocol's name in Tversion.
pub const VERSION_PLAIN: &[u8] = b"9P2000.L";
/// Tag of Tversion.
pub const NOTAG: u16 = u16::MAX;
/// The fid that stands for none.
pub const NOFID: u32 = u32::MAX;
/// The user id that stands for none.
pub const NONUNAME: u32 = u32::MAX;
/// Most names in one walk (`P9_MAXWELEM`).
pub const MAX_WALK: usize = 16;
/// Most bytes in one name (NAME_MAX).
pub const MAX_NAME: usize = 255;
/// Most bytes of a symlink's target (PATH_MAX less its NUL).
pub const MAX_TARGET: usize = 4095;
/// Most bytes of an extended attribute's value (XATTR_SIZE_MAX).
pub const MAX_XATTR: u64 = 65536;
/// Most fids in one batch of clunks.
pub const MAX_BATCH: usize = 1024;
/// What a read or write message needs around its data, at most (`P9_IOHDRSZ`).
pub const IO_HEADER: u32 = 24;
/// Smallest msize that either side of ours agrees to, in bytes.
pub const MIN_MSIZE: u32 = 4096;
/// Largest message on our own sockets, in bytes: a packet of it fits the default send buffer of a Unix socket.
pub const MAX_MSIZE: u32 = 128 * 1024;
