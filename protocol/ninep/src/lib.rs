//! 9P2000.L and our extension of it, `9P2000.L.cofferdam`: the file protocol between the Sentry and the Gofer.
//!
//! Owns: the codec ([`codec`]), the client that the Sentry's blocking threads share ([`client`]) and the server engine
//! ([`server`]: fids, tags, flush, quotas) over a backend. Names are bytes. Must never trust a peer: every length,
//! count, tag and fid that comes from it is checked and bounded, and a message that breaks the protocol ends its
//! connection, nothing else. Callers: the Sentry (client), the Gofer (server), their tests and fuzz targets.

pub mod client;
pub mod codec;
mod errno;
pub mod server;
#[cfg(feature = "testing")]
pub mod testing;

pub use errno::Errno;
