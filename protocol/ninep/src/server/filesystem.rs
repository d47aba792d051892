//! What a backend must be able to do.

use crate::codec::{Attr, DirWriter, Lock, LockKind, MAX_NAME, Qid, SetAttr, StatFs};
use crate::errno::Errno;

/// A new file as the backend made it: the node for the fid, and its identity.
#[derive(Debug)]
pub struct Entry<N> {
    /// The node.
    pub node: N,
    /// Its attributes.
    pub attr: Attr,
}

/// Refuses what is no name of a directory entry: empty, `.`, `..`, with a slash or NUL inside, longer than NAME_MAX.
pub fn check_name(name: &[u8]) -> Result<(), Errno> {
    if name.len() > MAX_NAME {
        return Err(Errno::NAMETOOLONG);
    }
    if name.is_empty() || name == b"." || name == b".." || name.iter().any(|b| matches!(b, b'/' | 0)) {
        return Err(Errno::INVAL);
    }
    Ok(())
}

/// Files, as the engine asks for them. Names have passed [`check_name`] (in `walk`, `.` and `..` may come too); counts are
/// within the message size; every call may come from any thread at any time.
pub trait Filesystem: Send + Sync {
    /// What a fid stands for; holds its own open state.
    type Node: Send + Sync;

    /// The root of a tree.
    fn attach(&self, aname: &[u8], uid: u32) -> Result<Entry<Self::Node>, Errno>;
    /// A second node for the same file, not open.
    fn clone_node(&self, node: &Self::Node) -> Result<Self::Node, Errno>;
    /// One step: never through a symbolic link, never above the tree's root.
    fn walk(&self, from: &Self::Node, name: &[u8]) -> Result<Entry<Self::Node>, Errno>;
    /// Attributes.
    fn getattr(&self, node: &Self::Node) -> Result<Attr, Errno>;
    /// Changes attributes.
    fn setattr(&self, node: &Self::Node, attr: &SetAttr) -> Result<(), Errno>;
    /// Opens in place.
    fn open(&self, node: &Self::Node, flags: u32) -> Result<Qid, Errno>;
    /// Creates a regular file and opens it.
    fn create(
        &self,
        dir: &Self::Node,
        name: &[u8],
        flags: u32,
        mode: u32,
        gid: u32,
    ) -> Result<Entry<Self::Node>, Errno>;
    /// Appends at most `count` bytes of the open file to `to`.
    fn read(&self, node: &Self::Node, offset: u64, count: u32, to: &mut Vec<u8>) -> Result<(), Errno>;
    /// Writes to the open file.
    fn write(&self, node: &Self::Node, offset: u64, data: &[u8]) -> Result<u32, Errno>;
    /// Reads from the open file into the shared window.
    fn fill(&self, node: &Self::Node, offset: u64, count: u32, window: u64) -> Result<u32, Errno>;
    /// The same, where the pages of the window were filled before.
    fn refill(&self, node: &Self::Node, offset: u64, count: u32, window: u64) -> Result<u32, Errno> {
        self.fill(node, offset, count, window)
    }
    /// Writes to the open file from the shared window.
    fn spill(&self, node: &Self::Node, offset: u64, count: u32, window: u64) -> Result<u32, Errno>;
    /// Entries of the open directory from `offset` on.
    fn readdir(&self, node: &Self::Node, offset: u64, to: &mut DirWriter<'_>) -> Result<(), Errno>;
    /// A symbolic link's target.
    fn readlink(&self, node: &Self::Node) -> Result<Vec<u8>, Errno>;
    /// Makes a symbolic link.
    fn symlink(&self, dir: &Self::Node, name: &[u8], target: &[u8], gid: u32) -> Result<Qid, Errno>;
    /// Makes a directory.
    fn mkdir(&self, dir: &Self::Node, name: &[u8], mode: u32, gid: u32) -> Result<Qid, Errno>;
    /// Makes a node.
    fn mknod(&self, dir: &Self::Node, name: &[u8], mode: u32, device: (u32, u32), gid: u32) -> Result<Qid, Errno>;
    /// Makes a hard link to `node`.
    fn link(&self, dir: &Self::Node, node: &Self::Node, name: &[u8]) -> Result<(), Errno>;
    /// Renames; `flags` of renameat2(2).
    fn rename(&self, from: &Self::Node, old: &[u8], to: &Self::Node, new: &[u8], flags: u32) -> Result<(), Errno>;
    /// The directory and name that `node` was found at, to serve Trename and Tremove by name.
    fn place(&self, node: &Self::Node) -> Result<(Self::Node, Vec<u8>), Errno>;
    /// Removes a name.
    fn unlink(&self, dir: &Self::Node, name: &[u8], directory: bool) -> Result<(), Errno>;
    /// To the disk.
    fn fsync(&self, node: &Self::Node, data_only: bool) -> Result<(), Errno>;
    /// Figures of the file system.
    fn statfs(&self, node: &Self::Node) -> Result<StatFs, Errno>;
    /// fallocate(2).
    fn allocate(&self, node: &Self::Node, mode: u32, offset: u64, length: u64) -> Result<(), Errno>;
    /// The value of an extended attribute.
    fn get_xattr(&self, node: &Self::Node, name: &[u8]) -> Result<Vec<u8>, Errno>;
    /// The names of all, each ended by a NUL.
    fn list_xattr(&self, node: &Self::Node) -> Result<Vec<u8>, Errno>;
    /// Sets an extended attribute; `flags` of setxattr(2).
    fn set_xattr(&self, node: &Self::Node, name: &[u8], value: &[u8], flags: u32) -> Result<(), Errno>;
    /// Removes an extended attribute.
    fn remove_xattr(&self, node: &Self::Node, name: &[u8]) -> Result<(), Errno>;
    /// Sets or clears a record lock without waiting: false where another's stands in the way.
    fn lock(&self, node: &Self::Node, kind: LockKind, range: &Lock) -> Result<bool, Errno>;
    /// The lock that stands in the way of one like this.
    fn getlock(&self, node: &Self::Node, kind: LockKind, range: &Lock) -> Result<(LockKind, Lock), Errno>;
}
