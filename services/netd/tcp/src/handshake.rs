//! Handshakes that a peer began: SYN_RECEIVED without a socket.
//!
//! Owns the records, their order by age, and the cookies for when there is no place for a record. Called by `engine`.

use std::collections::VecDeque;

use crate::ListenerId;
use crate::connection::Peer;
use crate::keyed::{Key, Secret};
use crate::slab::Slab;

/// SYN|ACKs after the first (Linux: tcp_synack_retries).
pub(crate) const RETRIES: u8 = 5;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Half {
    pub(crate) key: Key,
    pub(crate) listener: ListenerId,
    /// Our initial sequence number and the peer's.
    pub(crate) ours: u32,
    pub(crate) theirs: u32,
    pub(crate) peer: Peer,
    pub(crate) mtu: u16,
    pub(crate) tries: u8,
    /// When the SYN|ACK is sent again.
    pub(crate) at: u64,
    pub(crate) began: u64,
    /// No answer to what may be forged before.
    pub(crate) quiet: u64,
}

#[derive(Debug)]
pub(crate) struct Halves {
    all: Slab<Half>,
    order: VecDeque<(u32, u32)>,
    limit: usize,
}

impl Halves {
    pub(crate) fn new(limit: usize) -> Self {
        Halves { all: Slab::new(), order: VecDeque::new(), limit: limit.max(1) }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut Half> {
        self.all.get_mut(index)
    }

    /// Whether there is no place for another.
    pub(crate) fn full(&self) -> bool {
        self.all.len() >= self.limit
    }

    pub(crate) fn add(&mut self, half: Half) -> u32 {
        let (index, generation) = self.all.insert(half);
        self.order.push_back((index, generation));
        if self.order.len() > self.all.len().saturating_mul(2).saturating_add(64) {
            let all = &self.all;
            self.order.retain(|&(index, generation)| all.is(index, generation));
        }
        index
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<Half> {
        self.all.remove(index)
    }

    /// Those of a listener. For its end only: it walks over all.
    pub(crate) fn of(&self, listener: ListenerId) -> Vec<u32> {
        let places = self.order.iter().filter(|&&(index, generation)| self.all.is(index, generation));
        places.filter(|&&(i, _)| self.all.get(i).is_some_and(|h| h.listener == listener)).map(|&(i, _)| i).collect()
    }
}

/// Segment sizes that a cookie can hold.
const SIZES: [u16; 8] = [536, 1220, 1300, 1360, 1400, 1440, 1460, 8960];
/// A cookie holds for one to two of these.
const AGE: u64 = 64_000_000;
/// So long after the last cookie an acknowledgement may bring one back.
pub(crate) const COOKIES: u64 = 2 * AGE;

fn period(now: u64) -> u64 {
    now / AGE
}

fn cookie_at(secret: Secret, key: &Key, theirs: u32, period: u64, size: u32) -> u32 {
    let [a, b, c, d, e] = key.words();
    // Three bits for the size; the rest proves that who answers saw our SYN|ACK.
    (secret.hash(&[a, b, c, d, e, (period << 32) | u64::from(theirs), u64::from(size)]) as u32 & !7) | size
}

/// An initial sequence number from which the handshake can be known again (no scale and no SACK: 29 bits are not for that).
pub(crate) fn cookie(secret: Secret, key: &Key, theirs: u32, mss: u16, now: u64) -> u32 {
    let size = SIZES.iter().rposition(|&size| size <= mss).unwrap_or(0);
    cookie_at(secret, key, theirs, period(now), size as u32)
}

/// The peer's segment size, if this was a cookie of ours.
pub(crate) fn redeem(secret: Secret, key: &Key, theirs: u32, ours: u32, now: u64) -> Option<u16> {
    let size = ours & 7;
    let now = period(now);
    let known = [Some(now), now.checked_sub(1)].into_iter().flatten();
    let mut known = known.map(|period| cookie_at(secret, key, theirs, period, size));
    if known.any(|cookie| cookie == ours) { SIZES.get(size as usize).copied() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_hold_for_a_while_and_for_one_peer() {
        let secret = Secret::new(1, 2);
        let key = Key::new("10.0.0.1:80".parse().unwrap(), "10.0.0.2:9".parse().unwrap());
        let other = Key::new("10.0.0.1:80".parse().unwrap(), "10.0.0.3:9".parse().unwrap());
        let second = 1_000_000;
        for (mss, known) in [(1460, 1460), (9000, 8960), (100, 536), (1459, 1440)] {
            let cookie = cookie(secret, &key, 77, mss, 1000 * second);
            assert_eq!(redeem(secret, &key, 77, cookie, 1000 * second), Some(known));
            assert_eq!(redeem(secret, &key, 77, cookie, 1060 * second), Some(known));
            assert_eq!(redeem(secret, &key, 77, cookie, 1200 * second), None);
            assert_eq!(redeem(secret, &key, 78, cookie, 1000 * second), None);
            assert_eq!(redeem(secret, &other, 77, cookie, 1000 * second), None);
            assert_eq!(redeem(secret, &key, 77, cookie ^ 8, 1000 * second), None);
        }
    }
}
