//! `/dev/pts`: pseudo terminals by number, and `ptmx`.

use std::sync::Arc;

use crate::filesystems::pseudo::PseudoFs;
use crate::vfs::dentry::Dentry;
use crate::vfs::inode::FileSystem;

/// `DEVPTS_SUPER_MAGIC`.
const DEVPTS_MAGIC: u64 = 0x1cd1;

/// A new devpts.
pub fn mount() -> (Arc<dyn FileSystem>, Arc<Dentry>) {
    let fs = PseudoFs::new("devpts", DEVPTS_MAGIC);
    let root = crate::filesystems::pseudo::directory(&fs, Vec::new());
    (fs, Dentry::root(root))
}
