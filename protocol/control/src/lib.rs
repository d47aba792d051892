//! The control messages: what the supervisor says to its services and to the command line, and what they answer.
//!
//! Owns the message types ([`gofer`], [`netd`], [`sentry`], [`client`]) and their framing ([`Channel`]): bincode in
//! SOCK_SEQPACKET packets, with descriptors by SCM_RIGHTS, every size and number bounded. It must never allocate by a
//! length that a peer states, and never do more on a descriptor than `sendmsg` and `recvmsg` (services use it inside
//! their filters). Callers: supervisor, Sentry, Gofer, netd and the `cofferdam` command.

pub mod calls;
mod channel;
pub mod client;
pub mod gofer;
pub mod netd;
pub mod oci;
pub mod overlay;
pub mod rules;
pub mod sentry;
mod settings;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "tokio")]
mod reactor;

pub use channel::{Channel, ControlError, MAX_DESCRIPTORS, MAX_MESSAGE, Received};
#[cfg(feature = "tokio")]
pub use reactor::{AsyncChannel, rung};
pub use settings::{LogFormat, LogLevel, LogLine, LogSettings, rfc3339};

/// The descriptor every service is born with: its channel to the supervisor.
pub const BIRTH_DESCRIPTOR: i32 = 3;
