//! The client: files of a 9P server for many blocking threads at once.
//!
//! Owns: fids as values ([`Fid`]: dropping one gives it back, in batches), the typed requests ([`Client`]), requests
//! that call back ([`Client::submit_read`]), requests whose answer is fetched later ([`Client::post_refill`]), and the
//! fall-back of every extension to plain 9P2000.L. A thread that asks receives its own answer: among waiting threads one reads the socket and hands the others theirs (`rpc`), so that a
//! lone caller costs no wake-up but the server's. Needs from the host, once connected, nothing but send, receive and
//! futex. Must never trust the server more than the server trusts us: an answer that breaks the protocol ends the
//! connection with a logged reason and everybody gets EIO. Callers: the Sentry's 9P file system and its stdio files;
//! tests.

mod bulk;
mod fid;
mod files;
mod rpc;
mod submit;

use std::sync::Arc;

use cofferdam_shm::Window;
use cofferdam_transport::{Channel, TransportError};

pub use bulk::{OpenFilled, Refilling};
pub use fid::Fid;
pub use files::{Entry, WalkOutcome};
pub use submit::{Callback, Tag};

use crate::codec::{DecodeError, MAX_MSIZE, MIN_MSIZE, NOTAG, Reply, Request, VERSION_EXTENDED, VERSION_PLAIN};
use crate::errno::Errno;
use rpc::Rpc;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The socket failed.
    #[error("while negotiating: {0}")]
    Transport(#[from] TransportError),
    /// The server's answer is none.
    #[error("while negotiating: {0}")]
    Decode(#[from] DecodeError),
    /// The server speaks something else.
    #[error("the server offers {version:?}, messages of {msize} bytes")]
    Unsupported {
        /// Its version.
        version: String,
        /// Its message size.
        msize: u32,
    },
    /// The server refused to negotiate.
    #[error("the server refused Tversion: {0}")]
    Refused(Errno),
}

/// A connection to a 9P server. Cheap to clone; all clones are one connection.
#[derive(Clone, Debug)]
pub struct Client {
    rpc: Arc<Rpc>,
}

impl Client {
    /// Negotiates over `channel`. `window` is the memory shared with the server, where there is any.
    pub fn connect(channel: Channel, window: Option<Arc<Window>>) -> Result<Self, ConnectError> {
        Self::connect_as(channel, window, VERSION_EXTENDED)
    }

    /// As [`Client::connect`], but never uses the extension.
    pub fn connect_plain(channel: Channel) -> Result<Self, ConnectError> {
        Self::connect_as(channel, None, VERSION_PLAIN)
    }

    fn connect_as(channel: Channel, window: Option<Arc<Window>>, version: &[u8]) -> Result<Self, ConnectError> {
        let (mut asked, mut packet) = (version, Vec::new());
        loop {
            Request::Version { msize: MAX_MSIZE, version: asked }.encode(NOTAG, &mut packet);
            channel.send(&packet)?;
            channel.recv(&mut packet, MAX_MSIZE as usize)?;
            match Reply::decode(&packet)? {
                (_, Reply::Version { msize, version })
                    if (MIN_MSIZE..=MAX_MSIZE).contains(&msize) && (version == asked || version == VERSION_PLAIN) =>
                {
                    let extended = version == VERSION_EXTENDED;
                    return Ok(Self { rpc: Arc::new(Rpc::new(channel, msize, extended, window)) });
                }
                // A server that has never heard of us may say so instead of falling back by itself.
                (_, Reply::Version { .. } | Reply::Lerror { .. }) if asked == VERSION_EXTENDED => asked = VERSION_PLAIN,
                (_, Reply::Version { msize, version }) => {
                    let version = String::from_utf8_lossy(version).into_owned();
                    return Err(ConnectError::Unsupported { version, msize });
                }
                (_, Reply::Lerror { errno }) => return Err(ConnectError::Refused(Errno(errno))),
                _ => return Err(ConnectError::Refused(Errno::PROTO)),
            }
        }
    }

    /// Whether the server speaks `9P2000.L.cofferdam`.
    pub fn extended(&self) -> bool {
        self.rpc.extended
    }

    /// Has `before` called on every thread that is about to wait for an answer. The first one set stays.
    pub fn set_before_wait(&self, before: fn()) {
        let _ = self.rpc.before_wait.set(before);
    }

    /// Largest message agreed on, in bytes.
    pub fn msize(&self) -> u32 {
        self.rpc.msize
    }

    /// Ends the connection: everybody who waits gets EIO.
    pub fn close(&self) {
        self.rpc.break_off("closed by this side");
    }
}
