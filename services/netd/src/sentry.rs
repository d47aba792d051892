//! netd's ends of the channel to the Sentry: what it is told by, and the slots that netd gives out.
//!
//! Called by `connections` and `hosted`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cofferdam_socket::queue::Sender;
use cofferdam_socket::ring::{Consumer, Producer};
use cofferdam_socket::slot::Slot;
use cofferdam_socket::{Broken, NETDS, PACKETS, SLOTS, Side, Window, packet};

/// How long news waits for a Sentry that looks by itself as its tasks make calls. Less than its bell costs both.
const LINGER: Duration = Duration::from_micros(15);

/// What is to be done about a bell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bell {
    /// Nothing.
    Rests,
    /// It is to be rung.
    Rings,
    /// To be asked again, soon.
    Waits,
}

/// What the Sentry is told by: its packets, its queue, and when its bell is to be rung.
#[derive(Debug)]
pub struct Sentry {
    queue: Sender,
    packets: Producer,
    slot: Slot,
    /// Something was put in for it since its bell was last thought of.
    news: bool,
    /// Since when something waits for it that looks soon by itself.
    since: Option<Instant>,
}

impl Sentry {
    /// With what takes the Sentry's own packets out.
    pub fn new(window: &Arc<Window>) -> Result<(Self, Consumer), Broken> {
        let slot = Slot::new(window, PACKETS)?;
        let (packets, taken) = slot.rings(window, Side::Netd);
        let queue = Sender::new(window.clone(), Side::Sentry);
        Ok((Self { queue, packets, slot, news: false, since: None }, taken))
    }

    /// Tells it to look at a slot.
    pub fn tell(&mut self, slot: &Slot) -> Result<(), Broken> {
        self.news = true;
        self.queue.put(slot)
    }

    /// What is to be done about its bell.
    pub fn bell(&mut self, now: Instant) -> Bell {
        if !self.news {
            return Bell::Rests;
        }
        let late = self.since.is_some_and(|at| now.saturating_duration_since(at) >= LINGER);
        let bell = match () {
            () if self.queue.is_taken() => Bell::Rests,
            () if self.queue.wakes(late) => Bell::Rings,
            () if self.queue.dozes() => Bell::Waits,
            () => Bell::Rests,
        };
        if bell == Bell::Waits {
            self.since.get_or_insert(now);
        } else {
            (self.news, self.since) = (false, None);
        }
        bell
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
