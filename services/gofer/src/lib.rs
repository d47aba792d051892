//! The Gofer: files beneath the roots it was given, and a container's stdio, served over 9P.
//!
//! Owns: the host's files ([`host`]), stdio and terminals ([`stdio`]), the orders of the supervisor ([`orders`]). Must
//! never follow a symbolic link for a client, leave an export, open a device, socket or FIFO of the host as a file, or
//! make a socket, a process or a mount. Its peer, the Sentry, is hostile. Callers: `main`, tests.

pub mod host;
mod log;
pub mod orders;
pub mod service;
pub mod stdio;
mod watch;
