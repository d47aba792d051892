//! `unix:PATH` and `vsock:CID:PORT`.

use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::str::FromStr;

use rustix::fs::OFlags;

/// Where a service listens or is to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix stream socket at a path.
    Unix(PathBuf),
    /// A vsock port of a machine: context id (`any` when listening is `u32::MAX`) and port.
    Vsock {
        /// Context id.
        cid: u32,
        /// Port.
        port: u32,
    },
}

/// Why an address was refused or could not be used.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It is neither `unix:PATH` nor `vsock:CID:PORT`.
    #[error("'{0}' is neither unix:PATH nor vsock:CID:PORT")]
    Malformed(String),
    /// The host refused it.
    #[error("{what} {address}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// On which address.
        address: Address,
        /// The host's answer.
        source: std::io::Error,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Vsock { cid: u32::MAX, port } => write!(f, "vsock:any:{port}"),
            Address::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError::Malformed(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            // sun_path holds 108 bytes with its NUL (unix(7)).
            if path.is_empty() || path.len() > 107 || path.contains('\0') {
                return Err(wrong());
            }
            return Ok(Address::Unix(path.into()));
        }
        let (cid, port) = text.strip_prefix("vsock:").and_then(|rest| rest.split_once(':')).ok_or_else(wrong)?;
        let cid = match cid {
            "any" => u32::MAX,
            digits => digits.parse().map_err(|_| wrong())?,
        };
        Ok(Address::Vsock { cid, port: port.parse().map_err(|_| wrong())? })
    }
}

/// A listening socket. vsock needs a tokio runtime around its making and its use (tokio-vsock).
#[derive(Debug)]
pub enum Listener {
    /// On a Unix path.
    Unix(tokio::net::UnixListener),
    /// On a vsock port.
    Vsock(tokio_vsock::VsockListener),
}

impl Address {
    /// Listens. An existing socket file at a Unix path is an error: whoever owns the path removes it first.
    pub fn listen(&self) -> Result<Listener, AddressError> {
        let host = |source| AddressError::Host { what: "cannot listen on", address: self.clone(), source };
        match self {
            Address::Unix(path) => tokio::net::UnixListener::bind(path).map(Listener::Unix).map_err(host),
            Address::Vsock { cid, port } => tokio_vsock::VsockListener::bind(tokio_vsock::VsockAddr::new(*cid, *port))
                .map(Listener::Vsock)
                .map_err(host),
        }
    }

    /// Connects and gives a blocking stream socket for [`crate::Channel::new`].
    pub async fn connect(&self) -> Result<OwnedFd, AddressError> {
        let host = |source| AddressError::Host { what: "cannot connect to", address: self.clone(), source };
        match self {
            Address::Unix(path) => {
                let stream = tokio::net::UnixStream::connect(path).await.map_err(host)?;
                let stream = stream.into_std().map_err(host)?;
                stream.set_nonblocking(false).map_err(host)?;
                Ok(stream.into())
            }
            Address::Vsock { cid, port } => {
                let stream = tokio_vsock::VsockStream::connect(tokio_vsock::VsockAddr::new(*cid, *port));
                blocking_copy(&stream.await.map_err(host)?).map_err(host)
            }
        }
    }
}

impl Listener {
    /// Takes the next connection as a blocking stream socket.
    pub async fn accept(&self) -> std::io::Result<OwnedFd> {
        match self {
            Listener::Unix(listener) => {
                let stream = listener.accept().await?.0.into_std()?;
                stream.set_nonblocking(false)?;
                Ok(stream.into())
            }
            Listener::Vsock(listener) => blocking_copy(&listener.accept().await?.0),
        }
    }
}

/// A blocking descriptor for a connection that tokio-vsock holds (it gives none away itself).
fn blocking_copy(stream: &tokio_vsock::VsockStream) -> std::io::Result<OwnedFd> {
    let copy = duplicate(stream)?;
    let flags = rustix::fs::fcntl_getfl(&copy)?;
    rustix::fs::fcntl_setfl(&copy, flags - OFlags::NONBLOCK)?;
    Ok(copy)
}

fn duplicate(stream: &tokio_vsock::VsockStream) -> std::io::Result<OwnedFd> {
    use std::os::fd::AsFd;
    let fd: BorrowedFd<'_> = stream.as_fd();
    debug_assert!(fd.as_raw_fd() >= 0);
    fd.try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_alike() {
        for text in ["unix:/run/x", "vsock:3:1024", "vsock:any:5", "unix:rel"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("vsock:any:5".parse::<Address>().unwrap(), Address::Vsock { cid: u32::MAX, port: 5 });
    }

    #[test]
    fn malformed_addresses_are_refused() {
        let long = format!("unix:{}", "x".repeat(108));
        for text in ["", "unix:", "vsock:1", "vsock:1:", "vsock:x:1", "vsock:1:2:3", "tcp:1:2", "vsock:-1:2", &long] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_unix_address_connects_and_talks() {
        let dir = std::env::temp_dir().join(format!("cofferdam-transport-{}", std::process::id()));
        let _ = std::fs::remove_file(&dir);
        let address: Address = format!("unix:{}", dir.display()).parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let listener = address.listen().unwrap();
            let (near, far) = tokio::join!(address.connect(), listener.accept());
            let (near, far) = (crate::Channel::new(near.unwrap()).unwrap(), crate::Channel::new(far.unwrap()).unwrap());
            near.send(&[5, 0, 0, 0, 9]).unwrap();
            let mut m = Vec::new();
            far.recv(&mut m, 100).unwrap();
            assert_eq!(m, [5, 0, 0, 0, 9]);
        });
        std::fs::remove_file(&dir).unwrap();
    }
}
