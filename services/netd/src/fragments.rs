//! Packets that come in pieces (RFC 791, 3.2; RFC 8200, 4.5): put together, within bounds of time and memory.
//!
//! Pieces that overlap spoil their whole (RFC 5722, as Linux does for both families).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long pieces wait for the others (`net.ipv4.ipfrag_time`).
const PATIENCE: Duration = Duration::from_secs(30);
/// How many wholes are put together at once, bytes of all pieces, and pieces of one.
const MOST: usize = 256;
const MOST_BYTES: usize = 4 << 20;
const PIECES: usize = 128;
/// The longest whole.
const LONGEST: usize = 65_535;

/// What the pieces of one whole have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// Where from.
    pub from: IpAddr,
    /// Where to.
    pub to: IpAddr,
    /// `IPPROTO_*`.
    pub protocol: u8,
    /// The number that its sender gave it.
    pub number: u32,
}

#[derive(Debug)]
struct Parts {
    since: Instant,
    /// Where each begins, in order.
    pieces: Vec<(usize, Vec<u8>)>,
    bytes: usize,
    /// Where the last one ends, once it is there.
    end: Option<usize>,
}

/// What became of a piece.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Others are missing.
    Kept,
    /// The whole.
    Whole(Vec<u8>),
    /// It is given up, with so many pieces.
    Lost(u64),
}

/// Pieces of all packets.
#[derive(Debug, Default)]
pub struct Fragments {
    all: HashMap<Key, Parts>,
    bytes: usize,
}

impl Fragments {
    /// Takes a piece: where it is in the whole, and whether more come after it.
    pub fn take(&mut self, key: Key, at: usize, more: bool, piece: &[u8], now: Instant) -> Outcome {
        let end = at.saturating_add(piece.len());
        // Only the last may have a length that is no multiple of 8.
        if piece.is_empty() || end > LONGEST || more && !piece.len().is_multiple_of(8) {
            return Outcome::Lost(1);
        }
        let mut lost = self.make_room(piece.len(), now);
        let parts =
            self.all.entry(key).or_insert_with(|| Parts { since: now, pieces: Vec::new(), bytes: 0, end: None });
        let place = parts.pieces.partition_point(|(from, _)| *from < at);
        let before = place.checked_sub(1).and_then(|n| parts.pieces.get(n)).map_or(0, |(from, p)| from + p.len());
        let after = parts.pieces.get(place).map_or(LONGEST, |(from, _)| *from);
        // The same piece once more is no other.
        if parts.pieces.get(place).is_some_and(|(from, p)| *from == at && p.as_slice() == piece) {
            return if lost > 0 { Outcome::Lost(lost) } else { Outcome::Kept };
        }
        let fits = before <= at && end <= after && parts.pieces.len() < PIECES;
        let ends = match parts.end {
            Some(last) => end <= last && (more || end == last),
            None => more || parts.pieces.last().is_none_or(|(from, p)| from + p.len() <= end),
        };
        if !fits || !ends {
            lost += 1 + self.give_up(&key);
            return Outcome::Lost(lost);
        }
        parts.pieces.insert(place, (at, piece.to_vec()));
        parts.bytes += piece.len();
        self.bytes += piece.len();
        if !more {
            parts.end = Some(end);
        }
        if parts.end != Some(parts.bytes) {
            return if lost > 0 { Outcome::Lost(lost) } else { Outcome::Kept };
        }
        let whole = self.all.remove(&key).map(|p| p.pieces).unwrap_or_default();
        let whole = whole.into_iter().flat_map(|(_, p)| p).collect::<Vec<_>>();
        self.bytes = self.bytes.saturating_sub(whole.len());
        Outcome::Whole(whole)
    }

    fn give_up(&mut self, key: &Key) -> u64 {
        let Some(parts) = self.all.remove(key) else { return 0 };
        self.bytes = self.bytes.saturating_sub(parts.bytes);
        parts.pieces.len() as u64
    }

    /// Those that have waited too long go, and the oldest where there are too many.
    fn make_room(&mut self, more: usize, now: Instant) -> u64 {
        let full = |me: &Self| me.all.len() >= MOST || me.bytes.saturating_add(more) > MOST_BYTES;
        let mut lost = 0;
        if full(self) {
            lost += self.tick(now);
        }
        while full(self) {
            let Some(oldest) = self.all.iter().min_by_key(|(_, p)| p.since).map(|(k, _)| *k) else { break };
            lost += self.give_up(&oldest);
        }
        lost
    }

    /// Gives up what has waited too long; how many pieces.
    pub fn tick(&mut self, now: Instant) -> u64 {
        let late: Vec<_> =
            self.all.iter().filter(|(_, p)| now.duration_since(p.since) > PATIENCE).map(|(k, _)| *k).collect();
        late.iter().map(|k| self.give_up(k)).sum()
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key {
        from: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        to: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        protocol: 17,
        number: 7,
    };

    #[test]
    fn pieces_make_a_whole_in_any_order() {
        let now = Instant::now();
        let data: Vec<u8> = (0..=255).cycle().take(5000).collect();
        let cuts: Vec<_> = (0..5000).step_by(1480).map(|at| (at, &data[at..5000.min(at + 1480)])).collect();
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
            let mut f = Fragments::default();
            let mut last = Outcome::Kept;
            for n in order {
                let (at, piece) = cuts[n];
                assert_eq!(last, Outcome::Kept);
                last = f.take(KEY, at, n < 3, piece, now);
                // The same once more changes nothing.
                if last == Outcome::Kept {
                    assert_eq!(f.take(KEY, at, n < 3, piece, now), Outcome::Kept);
                }
            }
            assert_eq!(last, Outcome::Whole(data.clone()));
            assert!(f.is_empty() && f.bytes == 0);
        }
    }

    #[test]
    fn pieces_that_overlap_or_lie_spoil_it() {
        let now = Instant::now();
        let take = |f: &mut Fragments, at, more, len| f.take(KEY, at, more, &vec![at as u8; len], now);
        let mut f = Fragments::default();
        assert_eq!(take(&mut f, 0, true, 16), Outcome::Kept);
        assert_eq!(take(&mut f, 8, true, 16), Outcome::Lost(2));
        assert_eq!(take(&mut f, 0, true, 7), Outcome::Lost(1));
        assert_eq!(take(&mut f, 65_528, false, 8), Outcome::Lost(1));
        assert_eq!(take(&mut f, 16, false, 8), Outcome::Kept);
        assert_eq!(take(&mut f, 24, true, 8), Outcome::Lost(2));
        assert_eq!(take(&mut f, 16, true, 8), Outcome::Kept);
        assert_eq!(take(&mut f, 0, false, 8), Outcome::Lost(2));
        assert!(f.is_empty() && f.bytes == 0);
    }

    #[test]
    fn there_are_bounds() {
        let (mut f, now) = (Fragments::default(), Instant::now());
        for number in 0..10_000 {
            f.take(Key { number, ..KEY }, 8, true, &[0; 32_768], now + Duration::from_millis(u64::from(number)));
            assert!(f.all.len() <= MOST && f.bytes <= MOST_BYTES);
        }
        assert!(f.tick(now + Duration::from_secs(60)) > 0 && f.is_empty() && f.bytes == 0);
    }
}
