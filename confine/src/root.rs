//! An empty root: the process sees a read-only tmpfs with nothing in it, but for trees that it is to serve.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags};

use crate::error::{ConfineError, host};
use crate::mounts::root_here;

/// Replaces the root of this process's mount namespace (its own, by contract) with an empty, read-only tmpfs of two
/// inodes, and lets go of every other mount in it. Descriptors opened before stay usable. Mount trees that are mounted
/// nowhere yet go into it, as [`tree_name`] says: only in somebody's namespace does a mount receive what the host
/// mounts. Given back are the directories that they are in; none where the kernel does not take a tree.
pub(crate) fn empty(trees: &[BorrowedFd<'_>]) -> Result<Vec<Option<OwnedFd>>, ConfineError> {
    rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .map_err(host("making mounts private"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // Any directory will do to hang it on; which ones exist is the host's business.
    let over = ["/tmp", "/dev", "/usr", "/etc"].into_iter().find(|d| {
        rustix::fs::statat(CWD, *d, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode) == rustix::fs::FileType::Directory)
    });
    let over = over.ok_or(rustix::io::Errno::NOENT).map_err(host("a directory to mount the empty root on"))?;
    let options = format!("size=4k,nr_inodes={},mode=0555", trees.len().saturating_mul(2).saturating_add(2));
    let options = std::ffi::CString::new(options)
        .map_err(|e| ConfineError::Host { what: "options of the empty root", source: e.into() })?;
    rustix::mount::mount("cofferdam-empty", over, "tmpfs", flags, Some(options.as_c_str()))
        .map_err(host("mounting the empty root"))?;
    rustix::process::chdir(over).map_err(host("chdir to the empty root"))?;
    root_here()?;
    let around = trees.iter().enumerate().map(|(n, tree)| mounted(*tree, n)).collect();
    rustix::mount::mount_remount("/", flags | MountFlags::RDONLY, options.as_c_str())
        .map_err(host("remounting the empty root read-only"))?;
    Ok(around)
}

/// Where in the empty root the tree of that number is.
pub fn tree_name(n: usize) -> String {
    format!("{n}/tree")
}

/// Mounts a tree in a new directory of the root; that directory.
fn mounted(tree: BorrowedFd<'_>, n: usize) -> Option<OwnedFd> {
    let (around, name) = (n.to_string(), tree_name(n));
    for name in [&around, &name] {
        rustix::fs::mkdirat(CWD, name, Mode::from_raw_mode(0o555)).ok()?;
    }
    rustix::mount::move_mount(tree, "", CWD, &name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).ok()?;
    rustix::fs::openat(CWD, &around, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
}
