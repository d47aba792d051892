//! The channel under tokio: the supervisor waits for many of them in one thread.
//!
//! Sending does not return to the reactor while a peer's queue is full: messages to services are few and small, and a
//! service that stops reading is killed by its sandbox's watchdog.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram as StdSocket;

use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use crate::{Channel, ControlError, Received};

/// A [`Channel`] registered with the current tokio reactor.
#[derive(Debug)]
pub struct AsyncChannel {
    channel: Channel,
    /// The same socket for the reactor, which has no type of its own for SOCK_SEQPACKET: only readiness is asked of it.
    ready: UnixDatagram,
}

impl AsyncChannel {
    /// Registers a channel and makes it non-blocking. Must be called inside a tokio runtime.
    pub fn new(channel: Channel) -> Result<Self, ControlError> {
        let ready = register(channel.as_fd())?;
        Ok(Self { channel, ready })
    }

    /// Sends a message (see [`Channel::send`]).
    pub fn send<T: Serialize>(&self, message: &T, descriptors: &[BorrowedFd<'_>]) -> Result<(), ControlError> {
        self.channel.send(message, descriptors)
    }

    /// Waits for the next whole message. Cancel-safe: what has come in so far is kept.
    pub async fn receive<T: DeserializeOwned>(&self) -> Result<Received<T>, ControlError> {
        loop {
            self.ready.readable().await.map_err(|e| ControlError::Host("epoll_wait", errno(&e)))?;
            let mut outcome = Ok(None);
            // The closure says WouldBlock exactly when the queue is empty, which is what rearms the reactor.
            let _ = self.ready.try_io(Interest::READABLE, || {
                outcome = self.channel.try_receive();
                match outcome {
                    Ok(None) => Err(std::io::ErrorKind::WouldBlock.into()),
                    _ => Ok(()),
                }
            });
            if let Some(message) = outcome? {
                return Ok(message);
            }
        }
    }
}

impl AsFd for AsyncChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// Has the reactor tell of a socket, which does not wait from now on.
fn register(socket: BorrowedFd<'_>) -> Result<UnixDatagram, ControlError> {
    let host = |what| move |e: std::io::Error| ControlError::Host(what, errno(&e));
    let socket = StdSocket::from(socket.try_clone_to_owned().map_err(host("dup"))?);
    socket.set_nonblocking(true).map_err(host("O_NONBLOCK"))?;
    UnixDatagram::from_std(socket).map_err(host("epoll_ctl"))
}

/// Waits until there is something to be read from a socket, or its other end is gone, and reads nothing.
pub async fn rung(socket: BorrowedFd<'_>) -> Result<(), ControlError> {
    let ready = register(socket)?;
    ready.readable().await.map_err(|e| ControlError::Host("epoll_wait", errno(&e)))
}

fn errno(e: &std::io::Error) -> Errno {
    Errno::from_io_error(e).unwrap_or(Errno::IO)
}
