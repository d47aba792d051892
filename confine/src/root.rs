//! An empty root: the process sees a read-only tmpfs with nothing in it.

use rustix::fs::CWD;
use rustix::mount::{MountFlags, MountPropagationFlags};

use crate::error::{ConfineError, host};
use crate::mounts::root_here;

/// Replaces the root of this process's mount namespace (its own, by contract) with an empty, read-only tmpfs of two
/// inodes, and lets go of every other mount in it. Descriptors opened before stay usable.
pub(crate) fn empty() -> Result<(), ConfineError> {
    rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .map_err(host("making mounts private"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // Any directory will do to hang it on; which ones exist is the host's business.
    let over = ["/tmp", "/dev", "/usr", "/etc"].into_iter().find(|d| {
        rustix::fs::statat(CWD, *d, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|s| rustix::fs::FileType::from_raw_mode(s.st_mode) == rustix::fs::FileType::Directory)
    });
    let over = over.ok_or(rustix::io::Errno::NOENT).map_err(host("a directory to mount the empty root on"))?;
    rustix::mount::mount("cofferdam-empty", over, "tmpfs", flags, Some(c"size=4k,nr_inodes=2,mode=0555"))
        .map_err(host("mounting the empty root"))?;
    rustix::process::chdir(over).map_err(host("chdir to the empty root"))?;
    root_here()?;
    rustix::mount::mount_remount("/", flags | MountFlags::RDONLY, c"size=4k,nr_inodes=2,mode=0555")
        .map_err(host("remounting the empty root read-only"))
}
