//! Connections in TIME_WAIT (and FIN_WAIT_2 that nobody has any more) as records.
//!
//! Owns the records and the order in which they end. What packets do to them is decided in `engine`. Called by `engine`.

use std::collections::VecDeque;

use crate::connection::Stamps;
use crate::keyed::Key;
use crate::slab::Slab;

/// As Linux: twice a maximum segment lifetime of 30 s.
pub(crate) const TIME_WAIT: u64 = 60_000_000;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) key: Key,
    /// Our next sequence number, the peer's.
    pub(crate) next: u32,
    pub(crate) expected: u32,
    /// Its timestamps.
    pub(crate) stamps: Option<Stamps>,
    /// The window field that is said.
    pub(crate) window: u16,
    pub(crate) hop_limit: u8,
    pub(crate) traffic_class: u8,
    /// The peer's FIN did not come yet.
    pub(crate) open: bool,
    /// No answer to what may be forged before.
    pub(crate) quiet: u64,
    pub(crate) until: u64,
}

#[derive(Debug)]
pub(crate) struct Waits {
    all: Slab<Waiting>,
    /// Those that end first are in front. A record that was prolonged is put behind when its turn comes.
    order: VecDeque<(u64, u32, u32)>,
    limit: usize,
}

impl Waits {
    pub(crate) fn new(limit: usize) -> Self {
        Waits { all: Slab::new(), order: VecDeque::new(), limit }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut Waiting> {
        self.all.get_mut(index)
    }

    /// Adds one; answers its index and the key of the oldest, which had to go for it.
    pub(crate) fn add(&mut self, record: Waiting) -> (u32, Option<Key>) {
        let mut gone = None;
        if self.all.len() >= self.limit.max(1) {
            while let Some((_, index, generation)) = self.order.pop_front() {
                if self.all.is(index, generation) {
                    gone = self.all.remove(index).map(|w| w.key);
                    break;
                }
            }
        }
        let until = record.until;
        let (index, generation) = self.all.insert(record);
        self.order.push_back((until, index, generation));
        // Those that were removed before their time stay in the order; not for ever.
        if self.order.len() > self.all.len().saturating_mul(2).saturating_add(64) {
            let all = &self.all;
            self.order.retain(|&(_, index, generation)| all.is(index, generation));
        }
        (index, gone)
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<Waiting> {
        self.all.remove(index)
    }

    /// One whose time is over.
    pub(crate) fn expired(&mut self, now: u64) -> Option<Key> {
        while let Some(&(at, index, generation)) = self.order.front() {
            if !self.all.is(index, generation) {
                self.order.pop_front();
                continue;
            }
            if at > now {
                return None;
            }
            self.order.pop_front();
            match self.all.get(index).map(|w| w.until) {
                Some(until) if until > now => self.order.push_back((until, index, generation)),
                _ => return self.all.remove(index).map(|w| w.key),
            }
        }
        None
    }

    pub(crate) fn next(&self) -> Option<u64> {
        self.order.front().map(|&(at, _, _)| at)
    }
}
