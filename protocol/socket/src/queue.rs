//! Queues of slots in which something happened, one to each side.
//!
//! A slot is in a queue once at most (a word of the slot says that it is), so that one as long as there are slots never overflows. Who finds its
//! queue empty and is about to sleep says so; who puts something into the queue of one that sleeps has to ring its bell. One that only dozes looks by
//! itself soon: what is put in may wait for that a little, so that more comes with it. How long is for who puts it in to say; a bell wakes that one, too.

use std::sync::Arc;

use crate::slot::Slot;
use crate::{Broken, QUEUE_BYTES, SLOTS, Side, Window};

/// Words of a queue.
const TAIL: u64 = 0;
const HEAD: u64 = 4;
/// What the side does that it is for: see [`AWAKE`].
const STATE: u64 = 8;
const ENTRIES: u64 = 64;

/// It looks before it sleeps.
const AWAKE: u32 = 0;
/// It sleeps until its bell is rung.
const SLEEPS: u32 = 1;
/// It looks soon, but a bell can make it sooner.
const DOZES: u32 = 2;

fn place(to: Side) -> u64 {
    match to {
        Side::Netd => 0,
        Side::Sentry => QUEUE_BYTES,
    }
}

/// The end that slots are put into. One thread at a time.
#[derive(Debug)]
pub struct Sender {
    window: Arc<Window>,
    to: Side,
    tail: u32,
}

impl Sender {
    /// The queue to a side.
    pub fn new(window: Arc<Window>, to: Side) -> Self {
        Self { window, to, tail: 0 }
    }

    /// Tells the other side to look at a slot; whether its bell is to be rung.
    pub fn tell(&mut self, slot: &Slot) -> Result<bool, Broken> {
        self.put(slot)?;
        Ok(self.wakes(true))
    }

    /// Puts a slot in. Whether a bell is to be rung, and when, is to be asked then ([`wakes`](Self::wakes)).
    pub fn put(&mut self, slot: &Slot) -> Result<(), Broken> {
        let queued = slot.queued(self.to);
        if self.window.replace(queued, 0, 1) {
            let at = place(self.to);
            if self.tail.wrapping_sub(self.window.load(at + HEAD)) >= SLOTS {
                return Err(Broken("a queue's head is beyond its tail"));
            }
            let entry = at + ENTRIES + 4 * u64::from(self.tail % SLOTS);
            self.window.store(entry, slot.number());
            self.tail = self.tail.wrapping_add(1);
            self.window.store(at + TAIL, self.tail);
        }
        Ok(())
    }

    /// Whether the other side has taken all that was put in.
    pub fn is_taken(&self) -> bool {
        self.window.load(place(self.to) + HEAD) == self.tail
    }

    /// Whether its bell is to be rung, which it then has to be: it sleeps, or dozes and is to be woken from that (`hurry`).
    pub fn wakes(&self, hurry: bool) -> bool {
        let state = place(self.to) + STATE;
        self.window.replace(state, SLEEPS, AWAKE) || (hurry && self.window.replace(state, DOZES, AWAKE))
    }

    /// Whether the other side looks soon by itself.
    pub fn dozes(&self) -> bool {
        self.window.load(place(self.to) + STATE) == DOZES
    }
}

/// The end that they are taken out of.
#[derive(Debug)]
pub struct Receiver {
    window: Arc<Window>,
    side: Side,
    head: u32,
}

impl Receiver {
    /// The queue of a side.
    pub fn new(window: Arc<Window>, side: Side) -> Self {
        Self { window, side, head: 0 }
    }

    fn waiting(&self) -> u32 {
        self.window.load(place(self.side) + TAIL).wrapping_sub(self.head)
    }

    /// The next slot to look at.
    pub fn pop(&mut self) -> Result<Option<Slot>, Broken> {
        match self.waiting() {
            0 => return Ok(None),
            1..=SLOTS => {}
            _ => return Err(Broken("a queue has more than there are slots")),
        }
        let entry = place(self.side) + ENTRIES + 4 * u64::from(self.head % SLOTS);
        let slot = Slot::new(&self.window, self.window.load(entry))?;
        self.head = self.head.wrapping_add(1);
        self.window.store(place(self.side) + HEAD, self.head);
        // Before it is looked at: what happens from now on is told anew.
        self.window.store(slot.queued(self.side), 0);
        Ok(Some(slot))
    }

    /// Says that this side is about to sleep; whether it may.
    pub fn sleep(&self) -> bool {
        self.rest(SLEEPS)
    }

    /// Says that this side is about to look away for a little, and then looks; whether it may.
    pub fn doze(&self) -> bool {
        self.rest(DOZES)
    }

    fn rest(&self, how: u32) -> bool {
        self.window.store(place(self.side) + STATE, how);
        if self.waiting() == 0 {
            return true;
        }
        self.wake();
        false
    }

    /// Says that it does not sleep any more.
    pub fn wake(&self) {
        self.window.store(place(self.side) + STATE, AWAKE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WINDOW_BYTES;

    #[test]
    fn a_slot_is_told_once_until_it_is_looked_at() {
        let w = Arc::new(Window::create("test", WINDOW_BYTES).unwrap());
        let (mut tell, mut hear) = (Sender::new(w.clone(), Side::Netd), Receiver::new(w.clone(), Side::Netd));
        let slot = |n| Slot::new(&w, n).unwrap();
        assert!(hear.sleep());
        assert!(tell.tell(&slot(3)).unwrap() && !tell.tell(&slot(3)).unwrap() && !tell.tell(&slot(9)).unwrap());
        assert!(!hear.sleep());
        let mut next = || hear.pop().unwrap().map(|s| s.number());
        assert_eq!([next(), next(), next()], [Some(3), Some(9), None]);
        tell.tell(&slot(3)).unwrap();
        assert_eq!(hear.pop().unwrap().map(|s| s.number()), Some(3));
    }

    #[test]
    fn one_that_dozes_is_woken_in_a_hurry_only() {
        let w = Arc::new(Window::create("test", WINDOW_BYTES).unwrap());
        let (mut tell, mut hear) = (Sender::new(w.clone(), Side::Netd), Receiver::new(w.clone(), Side::Netd));
        let slot = Slot::new(&w, 3).unwrap();
        assert!(hear.doze() && tell.dozes() && tell.is_taken());
        tell.put(&slot).unwrap();
        assert!(!tell.wakes(false) && !tell.is_taken() && !hear.doze());
        // It is awake by now.
        assert!(!tell.wakes(true) && hear.pop().unwrap().is_some() && tell.is_taken());
        assert!(hear.doze() && tell.wakes(true) && !tell.wakes(true));
        // Who sleeps is woken always.
        assert!(hear.sleep() && tell.wakes(false) && !tell.wakes(true));
    }

    #[test]
    fn slots_that_there_are_none_of_are_told() {
        let w = Arc::new(Window::create("test", WINDOW_BYTES).unwrap());
        let mut hear = Receiver::new(w.clone(), Side::Sentry);
        w.store(place(Side::Sentry) + ENTRIES, SLOTS);
        w.store(place(Side::Sentry) + TAIL, 1);
        assert!(hear.pop().is_err());
        w.store(place(Side::Sentry) + TAIL, SLOTS + 1);
        assert!(hear.pop().is_err());
    }
}
