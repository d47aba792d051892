//! Sentry <-> netd: one window of shared memory, and a bell.
//!
//! The window holds *slots* (`slot`), one for each connection and each listener, with a ring of bytes in either direction (`ring`), a queue in
//! either direction of the slots in which something happened (`queue`), in slot 0 the packets of all that is not TCP (`packet`), in slot 1 frames for packet sockets (`frame`), and what interfaces have counted (`traffic`). The
//! socket beside it only carries bells: a byte to a side that has said that it sleeps. So a side that works is never woken, and neither can make the
//! other wait.
//!
//! Either side treats the other as hostile: what it reads is copied and then checked, its own positions are its own copies, and whatever
//! breaks a rule is [`Broken`], which ends the channel. No allocation here follows from what the other side says. Callers: netd, and the Sentry's `net`.

pub mod frame;
pub mod packet;
pub mod paths;
pub mod queue;
pub mod ring;
pub mod slot;
pub mod sum;
pub mod traffic;

pub use cofferdam_shm::{Window, WindowError};

/// A rule was broken by the other side: which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other side broke a rule: {0}")]
pub struct Broken(pub &'static str);

/// How many slots there are. The first half is given out by the Sentry, the second by netd.
pub const SLOTS: u32 = 65_536;
/// The first slot that netd gives out.
pub const NETDS: u32 = SLOTS / 2;
/// The slot of packets.
pub const PACKETS: u32 = 0;
/// The slot of frames.
pub const FRAMES: u32 = 1;
/// Bytes of a ring, at most and at first.
pub const RING_MOST: u32 = 1 << 20;
/// See [`RING_MOST`].
pub const RING_LEAST: u32 = 1 << 16;

/// Where things lie: the two queues, slots' words, rings.
const QUEUE_BYTES: u64 = 64 + 4 * SLOTS as u64;
const TRAFFIC_AT: u64 = (2 * QUEUE_BYTES).next_multiple_of(4096);
const SLOTS_AT: u64 = TRAFFIC_AT + 4096;
const SLOT_BYTES: u64 = 256;
const RINGS_AT: u64 = (SLOTS_AT + SLOT_BYTES * SLOTS as u64).next_multiple_of(RING_MOST as u64);

/// Bytes of the window. Only what is used takes memory.
pub const WINDOW_BYTES: u64 = RINGS_AT + 2 * RING_MOST as u64 * SLOTS as u64;

/// The two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Side {
    Sentry,
    Netd,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Sentry => Self::Netd,
            Self::Netd => Self::Sentry,
        }
    }
}
