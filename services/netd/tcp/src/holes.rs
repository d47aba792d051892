//! What came out of order: which ranges of sequence numbers are there beyond what is expected.
//!
//! Owns the ranges, at most `MOST`: a peer that makes more holes has what is beyond them dropped. Called by `live`.

use crate::segment::{Blocks, after};

/// So many ranges are kept; what would be another one has not come.
const MOST: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Range {
    left: u32,
    right: u32,
    /// Larger for what grew later.
    stamp: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Holes {
    /// In order; they neither overlap nor touch.
    ranges: Vec<Range>,
    stamp: u32,
}

impl Holes {
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Notes that what lies between the two came. False: there is no place for another range. `left` is beyond what is expected.
    pub(crate) fn add(&mut self, mut left: u32, mut right: u32) -> bool {
        let first = self.ranges.partition_point(|range| after(left, range.right));
        let behind = self.ranges.partition_point(|range| !after(range.left, right));
        let joined = self.ranges.get(first..behind).unwrap_or_default();
        if joined.is_empty() && self.ranges.len() >= MOST {
            return false;
        }
        for range in joined {
            left = if after(left, range.left) { range.left } else { left };
            right = if after(range.right, right) { range.right } else { right };
        }
        self.stamp = self.stamp.wrapping_add(1);
        self.ranges.splice(first..behind.max(first), [Range { left, right, stamp: self.stamp }]);
        true
    }

    /// Whether all between the two had come before.
    pub(crate) fn have(&self, left: u32, right: u32) -> bool {
        let within = |range: &Range| !after(range.left, left) && !after(right, range.right);
        self.ranges.get(self.ranges.partition_point(|range| !after(range.right, left))).is_some_and(within)
    }

    /// What there is of it, if a part between the two had come before.
    pub(crate) fn overlap(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        let range = self.ranges.get(self.ranges.partition_point(|range| !after(range.right, left)))?;
        let (l, r) = (
            if after(left, range.left) { left } else { range.left },
            if after(range.right, right) { right } else { range.right },
        );
        after(r, l).then_some((l, r))
    }

    /// All came up to `next`: how far what follows reaches without a hole.
    pub(crate) fn reach(&mut self, next: u32) -> u32 {
        let gone = self.ranges.partition_point(|range| !after(range.left, next));
        let reached = self.ranges.drain(..gone).map(|range| range.right).next_back();
        match reached {
            Some(right) if after(right, next) => right,
            _ => next,
        }
    }

    /// What an acknowledgement says of them: what grew last first (RFC 2018, 4).
    pub(crate) fn told(&self, most: usize) -> Blocks {
        let mut blocks = Blocks::default();
        let mut before: Option<u32> = None;
        for block in blocks.iter_mut().take(most) {
            let younger = |range: &&Range| before.is_none_or(|stamp| after(stamp, range.stamp));
            let Some(range) =
                self.ranges.iter().filter(younger).reduce(|a, b| if after(b.stamp, a.stamp) { b } else { a })
            else {
                break;
            };
            before = Some(range.stamp);
            *block = Some((range.left, range.right));
        }
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_and_are_told_newest_first() {
        let mut holes = Holes::default();
        let base = u32::MAX - 20;
        let at = |n: u32| base.wrapping_add(n);
        for (left, right) in [(30, 40), (10, 20), (50, 60), (70, 80), (90, 100)] {
            assert!(holes.add(at(left), at(right)));
        }
        let told = |holes: &Holes, most| {
            let blocks = holes.told(most).into_iter().flatten();
            blocks.map(|(l, r)| (l.wrapping_sub(base), r.wrapping_sub(base))).collect::<Vec<_>>()
        };
        assert_eq!(told(&holes, 3), [(90, 100), (70, 80), (50, 60)]);
        assert!(holes.add(at(20), at(30)));
        assert_eq!(told(&holes, 4), [(10, 40), (90, 100), (70, 80), (50, 60)]);
        assert!(holes.have(at(12), at(40)) && !holes.have(at(12), at(41)) && !holes.have(at(5), at(12)));
        assert_eq!(holes.overlap(at(35), at(45)), Some((at(35), at(40))));
        assert_eq!(holes.overlap(at(41), at(49)), None);
        assert_eq!(holes.reach(at(5)), at(5));
        assert_eq!(holes.reach(at(15)), at(40));
        assert_eq!(told(&holes, 4), [(90, 100), (70, 80), (50, 60)]);
        assert_eq!(holes.reach(at(100)), at(100));
        assert!(holes.is_empty());
    }

    #[test]
    fn there_is_an_end_to_holes() {
        let mut holes = Holes::default();
        let added = (0..1000).filter(|n| holes.add(10 + n * 10, 15 + n * 10)).count();
        assert_eq!(added, MOST);
        assert!(holes.add(15, 20), "what joins two needs no place");
    }
}
