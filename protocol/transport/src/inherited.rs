//! The descriptor a service is born with.

use std::os::fd::{AsFd, OwnedFd, RawFd};

/// Why an inherited descriptor could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// The descriptor is not open, or is no socket.
    #[error("descriptor {fd} was not inherited as a socket: {source}")]
    NotASocket {
        /// Its number.
        fd: RawFd,
        /// The host's answer.
        source: std::io::Error,
    },
}

/// Takes a socket that the parent left open as descriptor `fd` (3 for every service), as `/proc`-free as it gets: the
/// number is duplicated by the host into a descriptor that this process owns, close-on-exec set.
///
/// The number itself stays open: the sweep of descriptors at confinement closes it. Call it once, at the start of
/// `main`, before anything else opens descriptors.
pub fn inherited(fd: RawFd) -> Result<OwnedFd, InheritError> {
    let wrong = |source: std::io::Error| InheritError::NotASocket { fd, source };
    // Opening the magic link is no option for a socket; pidfd_getfd of ourselves duplicates a number without `unsafe`.
    let me = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty())
        .map_err(|e| wrong(e.into()))?;
    let owned = rustix::process::pidfd_getfd(me.as_fd(), fd, rustix::process::PidfdGetfdFlags::empty())
        .map_err(|e| wrong(e.into()))?;
    rustix::net::sockopt::socket_type(&owned).map_err(|e| wrong(e.into()))?;
    Ok(owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_socket_is_taken_and_anything_else_refused() {
        let (a, b) = crate::Channel::pair().unwrap();
        let taken = crate::Channel::new(inherited(a.as_raw_fd()).unwrap()).unwrap();
        taken.send(b"x").unwrap();
        let mut m = Vec::new();
        b.recv(&mut m, 8).unwrap();
        assert_eq!(m, b"x");
        let (pipe, _w) = std::io::pipe().unwrap();
        assert!(inherited(pipe.as_raw_fd()).is_err());
        assert!(inherited(1_000_000).is_err());
    }
}
