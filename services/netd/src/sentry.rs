//! netd's ends of the channel to the Sentry: what it is told by, and the slots that netd gives out.
//!
//! Called by `connections` and `hosted`.

use std::collections::VecDeque;
use std::sync::Arc;

use cofferdam_socket::queue::Sender;
use cofferdam_socket::ring::{Consumer, Producer};
use cofferdam_socket::slot::Slot;
use cofferdam_socket::{Broken, NETDS, PACKETS, SLOTS, Side, Window, packet};

/// What the Sentry is told by: its packets, its queue, and whether its bell is to be rung.
#[derive(Debug)]
pub struct Sentry {
    queue: Sender,
    packets: Producer,
    slot: Slot,
    /// It sleeps and something is there for it.
    pub ring: bool,
}

impl Sentry {
    /// With what takes the Sentry's own packets out.
    pub fn new(window: &Arc<Window>) -> Result<(Self, Consumer), Broken> {
        let slot = Slot::new(window, PACKETS)?;
        let (packets, taken) = slot.rings(window, Side::Netd);
        let queue = Sender::new(window.clone(), Side::Sentry);
        Ok((Self { queue, packets, slot, ring: false }, taken))
    }

    /// Tells it to look at a slot.
    pub fn tell(&mut self, slot: &Slot) -> Result<(), Broken> {
        self.ring |= self.queue.tell(slot)?;
        Ok(())
    }

    /// Hands a packet on; whether there was room.
    pub fn packet(&mut self, head: &packet::Head, data: &[u8]) -> Result<bool, Broken> {
        let fits = packet::put(&mut self.packets, head, data)?;
        let slot = self.slot;
        self.tell(&slot)?;
        Ok(fits)
    }

    /// There is room for packets again: who waits for that is told.
    pub fn has_room(&mut self, window: &Window) -> Result<(), Broken> {
        let slot = self.slot;
        if slot.was_waited_for(window, Side::Sentry) { self.tell(&slot) } else { Ok(()) }
    }
}

/// Slots of netd's own: those that are free, the last used first; and the first that was never used.
#[derive(Debug)]
pub struct Numbers {
    free: VecDeque<u32>,
    unused: u32,
}

impl Default for Numbers {
    /// All of them.
    fn default() -> Self {
        Self { free: VecDeque::new(), unused: NETDS }
    }
}

impl Numbers {
    /// One that is free.
    pub fn take(&mut self) -> Option<u32> {
        self.free.pop_back().or_else(|| {
            let next = Some(self.unused).filter(|n| *n < SLOTS)?;
            self.unused += 1;
            Some(next)
        })
    }

    /// It is free again.
    pub fn give(&mut self, number: u32) {
        self.free.push_back(number);
    }
}
