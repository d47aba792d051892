//! How bytes get from one service to another: sockets, addresses, and descriptors that travel with a message.
//!
//! Owns: [`Channel`] (blocking; a Unix packet socket where one message is one packet, or any byte stream framed by the
//! length word that every 9P message starts with), descriptor passing on packet sockets, [`Address`] (`unix:PATH`,
//! `vsock:CID:PORT`), listening and connecting. Must never look into a message beyond its length word, and never trust
//! that word: it is capped before anything is allocated. Callers: `cofferdam_ninep` (client and server), the Gofer,
//! the supervisor and the Sentry for their control channels.

mod address;
mod channel;
mod inherited;

pub use address::{Address, AddressError, Listener};
pub use channel::{Channel, Framing, MAX_DESCRIPTORS, TransportError};
pub use inherited::{InheritError, inherited};
