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

/// Closes every descriptor but 0, 1 and 2: for a program that stays longer than who started it, which may have left it anything that
/// somebody waits to see closed. Call it first thing, before anything was opened.
pub fn close_inherited() -> Result<(), ConfineError> {
    sweep(&[])
}

/// Takes the descriptors from 3 on that whoever started this program left open for its own use, as many as it says (`--preserve-fds`).
/// None of them is inherited any further. Call it once, first thing, before anything was opened; EBADF for one that is not open.
pub fn take_inherited(count: u32) -> std::io::Result<Vec<OwnedFd>> {
    let last = i32::try_from(count).ok().and_then(|n| n.checked_add(3)).ok_or(std::io::ErrorKind::InvalidInput)?;
    let mut taken = Vec::new();
    for fd in 3..last {
        // SAFETY: asking for a descriptor's flags touches no memory, whatever the number.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: it is open (fcntl answered) and by contract nothing else in the process owns it.
        taken.push(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    Ok(taken)
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
