//! File systems, each behind [`Inode`](crate::vfs::inode::Inode), and the assembly of a container's tree of files.

pub mod anon;
pub mod content;
pub mod dev;
pub mod ranges;
pub mod special;
pub mod tree;
