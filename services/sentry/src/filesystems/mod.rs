//! File systems, each behind [`Inode`](crate::vfs::inode::Inode), and the assembly of a container's tree of files.

pub mod anon;
pub mod cgroup;
pub mod content;
pub mod context;
pub mod cpu;
pub mod dev;
pub mod devpts;
pub mod gofer;
pub mod mqueue;
pub mod overlay;
pub mod proc;
pub mod pseudo;
pub mod ranges;
pub mod recipe;
pub mod root;
pub mod seals;
pub mod special;
pub mod stdio;
pub mod sys;
pub mod tree;
