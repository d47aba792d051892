//! `/proc`, `proc(5)`.

use std::sync::Arc;

use crate::filesystems::pseudo::{PseudoFs, directory};
use crate::kernel::Kernel;
use crate::vfs::dentry::Dentry;
use crate::vfs::inode::FileSystem;

/// `PROC_SUPER_MAGIC`.
const PROC_MAGIC: u64 = 0x9fa0;

/// A new procfs.
pub fn mount(_kernel: &Arc<Kernel>) -> (Arc<dyn FileSystem>, Arc<Dentry>) {
    let fs = PseudoFs::new("proc", PROC_MAGIC);
    let root = directory(&fs, Vec::new());
    (fs, Dentry::root(root))
}
