//! Mounts: a root of one's own, and what rustix has no call for.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::mount::UnmountFlags;

use crate::error::{ConfineError, host};

/// Makes the working directory, which something is mounted on, the root of this process's mount namespace (its own, by contract), and lets
/// go of the old one.
pub fn root_here() -> Result<(), ConfineError> {
    // The old root ends up on top of the new one, from where it is taken away (pivot_root(2), NOTES).
    rustix::process::pivot_root(".", ".").map_err(host("pivot_root to the new root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(host("detaching the old root"))?;
    rustix::process::chdir("/").map_err(host("chdir to the new root"))
}

/// Makes a mount, by its root, read-only; with all below it if asked to.
pub fn mount_read_only(mount: BorrowedFd<'_>, below: bool) -> rustix::io::Result<()> {
    set_attributes(mount, [libc::MOUNT_ATTR_RDONLY, 0, 0, 0], below)
}

/// Makes a mount, by its root, with all below it, one that nothing is run from and no device opened in; if asked to,
/// one that is only read.
pub fn mount_for_serving(mount: BorrowedFd<'_>, read_only: bool) -> rustix::io::Result<()> {
    let flags = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    set_attributes(mount, [if read_only { flags | libc::MOUNT_ATTR_RDONLY } else { flags }, 0, 0, 0], true)
}

/// Says how a mount, by its root, takes part in what is mounted elsewhere (one of `MS_SHARED`, `MS_SLAVE`,
/// `MS_PRIVATE`, `MS_UNBINDABLE`); with all below it if asked to.
pub fn mount_propagation(mount: BorrowedFd<'_>, how: u64, below: bool) -> rustix::io::Result<()> {
    set_attributes(mount, [0, 0, how, 0], below)
}

/// `struct mount_attr`: attributes that are set, that are cleared, propagation, a user namespace.
fn set_attributes(mount: BorrowedFd<'_>, attributes: [u64; 4], below: bool) -> rustix::io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if below { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the kernel reads an empty string and as many bytes as it is told there are.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    if done == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::INVAL))
}
