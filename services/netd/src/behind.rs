//! What stands behind the sandbox's sockets: packet devices (`devices`), or sockets of the host's (`hosted`).
//!
//! Called by `service`, whose loop gives each its turns.

use std::os::fd::OwnedFd;
use std::time::Instant;

use cofferdam_control::netd::Place;
use cofferdam_socket::Broken;
use cofferdam_socket::slot::Slot;
use cofferdam_socket::traffic::Traffic;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

use crate::filter::Filter;
use crate::sentry::Sentry;

/// One of them.
pub trait Behind {
    /// The way to the Sentry.
    fn sentry(&mut self) -> &mut Sentry;

    /// What time it is, until this is told anew.
    fn set_now(&mut self, now: Instant);

    /// The Sentry says that something is to be done in a slot.
    fn asked(&mut self, slot: Slot) -> Result<(), Broken>;

    /// Sends packets of the Sentry's: so many, that something else gets its turn. Whether there are more.
    fn send_packets(&mut self) -> Result<bool, Broken>;

    /// Sends frames of the Sentry's packet sockets, as [`send_packets`](Self::send_packets). Where there are no frames none leave.
    fn send_frames(&mut self) -> Result<bool, Broken> {
        Ok(false)
    }

    /// Something has happened to a descriptor that it has watched, and what. `deaf`: the Sentry is gone.
    fn happened(&mut self, which: u64, what: EventFlags, deaf: bool) -> Result<(), Broken>;

    /// Does what is due.
    fn tick(&mut self) -> Result<(), Broken>;

    /// Places of the host's that it may not take itself and needs a socket in, with numbers for the answers.
    fn places(&mut self) -> Vec<(u32, Place)> {
        Vec::new()
    }

    /// The socket in one of them, or a number of an error.
    fn bound(&mut self, _number: u32, _socket: Result<OwnedFd, i32>) -> Result<(), Broken> {
        Ok(())
    }

    /// Has its descriptors watched for what it waits for now.
    fn watch(&mut self) -> Result<(), Errno>;

    /// Whether there is something to do at once.
    fn is_busy(&self) -> bool;

    /// When there is something to do by itself.
    fn next(&self) -> Option<Instant>;

    /// What the network's interfaces have counted, in their order.
    fn traffic(&self) -> impl Iterator<Item = &Traffic>;

    /// What may pass.
    fn filter(&self) -> &Filter;

    /// What else was counted, with names.
    fn count(&mut self) -> Vec<(String, u64)>;
}
