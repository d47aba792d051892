//! What the supervisor orders, and the channel it comes on: `cofferdam_control::gofer`, in the one place that names it.
//!
//! Must never take an order that is longer than the control protocol's cap or comes with other descriptors than it needs.
//! Caller: [`crate::service`].

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub use cofferdam_control::gofer::{Export, ExportKind, FromGofer, GoferOrders, ToGofer};
pub use cofferdam_control::{Channel, ControlError, LogLevel, LogLine, LogSettings};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The control channel.
#[derive(Debug)]
pub struct Control {
    channel: Channel,
}

impl Control {
    /// Over a packet socket.
    pub fn new(socket: OwnedFd) -> Self {
        Self { channel: Channel::new(socket) }
    }

    /// The next message, with its descriptors. Blocks. None when the peer has gone.
    pub fn receive<M: DeserializeOwned>(&self) -> Result<Option<(M, Vec<OwnedFd>)>, ControlError> {
        match self.channel.receive() {
            Ok(received) => Ok(Some((received.message, received.descriptors))),
            Err(ControlError::Closed) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Sends a message. The Gofer passes no descriptor to anybody, and its policy has no sendmsg(2).
    pub fn send<M: Serialize>(&self, message: &M) -> Result<(), ControlError> {
        self.channel.send_plain(message)
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
