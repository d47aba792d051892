//! Descriptors: the channel a service is born with, and the sweep of all it should not have.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use crate::error::{ConfineError, last};

/// Takes descriptor 3, the channel to the supervisor that every service is born with. Call it once, first thing.
pub fn inherited_channel() -> Result<OwnedFd, ConfineError> {
    let mut kind: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: kind and len are valid for the duration of the call.
    let ok = unsafe { libc::getsockopt(3, libc::SOL_SOCKET, libc::SO_TYPE, (&raw mut kind).cast(), &raw mut len) };
    if ok != 0 || kind != libc::SOCK_SEQPACKET {
        return Err(ConfineError::NoChannel);
    }
    // SAFETY: 3 is open (getsockopt answered) and by contract nothing else in the process owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(3) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).map_err(crate::error::host("close-on-exec"))?;
    Ok(fd)
}

/// Closes every descriptor but 0, 1, 2 and those of `keep`.
pub(crate) fn sweep(keep: &[RawFd]) -> Result<(), ConfineError> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    keep.dedup();
    let mut from = 3u32;
    for fd in keep {
        if fd > from {
            close(from, fd - 1)?;
        }
        from = fd.saturating_add(1);
    }
    close(from, u32::MAX)
}

fn close(first: u32, last_fd: u32) -> Result<(), ConfineError> {
    // SAFETY: closing descriptors touches no memory; owners of swept descriptors are the caller's responsibility.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last_fd, 0) } {
        0 => Ok(()),
        _ => Err(last("close_range: descriptors not to be kept")),
    }
}
