//! What the supervisor orders, and the channel it comes on.
//!
//! Owns the Gofer's side of the control channel. The messages have the names and fields of `cofferdam_control::gofer`;
//! [`Control`] is the only thing that knows how they travel, so that switching is a change to this file. Must never take
//! a message longer than [`MAX_MESSAGE`]. Caller: [`crate::service`].

use std::os::fd::OwnedFd;

use cofferdam_transport::{Channel, TransportError};
use serde::{Deserialize, Serialize};

/// Longest control message, in bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// The first message. Descriptors: files socket, stdio socket, cache memfd, then one a export in order (see
/// [`crate::host::ExportKind`] for what each must be).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GoferOrders {
    /// The sandbox's id, for the log.
    pub sandbox: String,
    /// What to serve.
    pub exports: Vec<Export>,
    /// How to log.
    pub log: LogSettings,
}

/// One export.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Export {
    /// Its name.
    pub name: String,
    /// Whether every change is refused.
    pub read_only: bool,
    /// What it is.
    pub kind: ExportKind,
}

/// What an export is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExportKind {
    /// A tree.
    Directory,
    /// One file.
    File,
}

/// How to log.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LogSettings {
    /// A filter of tracing-subscriber's, such as `info`.
    pub filter: String,
    /// JSON lines instead of text.
    pub json: bool,
}

/// Later messages of the supervisor.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ToGofer {
    /// A container's stdio. Descriptors: 0, 1, 2, or with `tty` the terminal's slave.
    AddStdio {
        /// The container (or exec) it belongs to.
        container: String,
        /// Whether it is a terminal.
        tty: bool,
    },
    /// Forget and close it.
    RemoveStdio {
        /// The container (or exec).
        container: String,
    },
    /// End.
    Stop,
}

/// What the Gofer reports.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum FromGofer {
    /// Confined and serving.
    Ready {},
    /// An order could not be carried out.
    Failed {
        /// Why.
        message: String,
    },
    /// The order was carried out.
    Done,
}

/// Why an order could not be had.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The channel ended or failed.
    #[error("control channel: {0}")]
    Transport(#[from] TransportError),
    /// It is no order.
    #[error("control channel: {0}")]
    Malformed(String),
}

/// The control channel.
#[derive(Debug)]
pub struct Control {
    channel: Channel,
}

impl Control {
    /// Over a packet socket.
    pub fn new(channel: Channel) -> Self {
        Self { channel }
    }

    /// The socket, to wait for.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The next message, with its descriptors. Blocks.
    pub fn receive<M: serde::de::DeserializeOwned>(&self) -> Result<(M, Vec<OwnedFd>), OrderError> {
        let mut bytes = Vec::new();
        let fds = self.channel.recv_with(&mut bytes, MAX_MESSAGE)?;
        let config = bincode::config::standard().with_limit::<MAX_MESSAGE>();
        let (message, used) =
            bincode::serde::decode_from_slice(&bytes, config).map_err(|e| OrderError::Malformed(e.to_string()))?;
        if used != bytes.len() {
            return Err(OrderError::Malformed(format!("{} bytes too many", bytes.len().saturating_sub(used))));
        }
        Ok((message, fds))
    }

    /// Sends a message with descriptors.
    pub fn send<M: Serialize>(&self, message: &M, fds: &[std::os::fd::BorrowedFd<'_>]) -> Result<(), OrderError> {
        let config = bincode::config::standard().with_limit::<MAX_MESSAGE>();
        let bytes = bincode::serde::encode_to_vec(message, config).map_err(|e| OrderError::Malformed(e.to_string()))?;
        Ok(self.channel.send_with(&bytes, fds)?)
    }
}
