//! netd: the network of one sandbox.
//!
//! Takes packets from the interfaces that the sandbox was given and makes of them what sockets of the Sentry's see, and the other way round: Ethernet
//! with its neighbours (`neighbour`), IPv4 and IPv6 with routes and pieces (`ip`, `fragments`), TCP (`cofferdam_tcp`, by `connections`); what is not TCP
//! goes to the Sentry and comes from it as packets (`cofferdam_socket::packet`), and frames for packet sockets as they are (`tap`). Where there is no
//! interface to be had it makes sockets of the host's instead, as its caller may (`hosted`). One thread, one loop (`service`).
//!
//! Must never: open or make anything once its walls are up, wait for anybody but in its loop, keep more for a peer than its bounds say. Packets
//! and what the Sentry writes are hostile alike. Started by the supervisor (`main`).

pub mod asking;
pub mod behind;
pub mod connections;
mod counters;
pub mod device;
pub mod devices;
pub mod filter;
pub mod fragments;
pub mod hosted;
pub mod ip;
pub mod names;
pub mod neighbour;
pub mod sentry;
pub mod service;
pub mod stack;
pub mod tap;
#[cfg(feature = "testing")]
pub mod testing;
