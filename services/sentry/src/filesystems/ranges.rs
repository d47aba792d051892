//! Sets of ranges, and the layout of a file's bytes in a host window.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::errno::Errno;
use crate::memory::object::{Extent, HostWindow};
use crate::memory::store::{Store, page_down, page_up};

/// A set of numbers as disjoint ranges.
#[derive(Clone, Debug, Default)]
pub struct RangeSet {
    map: BTreeMap<u64, u64>,
    total: u64,
}

impl RangeSet {
    /// Adds `[start, end)`; how many numbers were new.
    pub fn add(&mut self, mut start: u64, mut end: u64) -> u64 {
        if start >= end {
            return 0;
        }
        let before = self.total;
        while let Some((&s, &e)) = self.map.range(..=end).next_back() {
            if e < start {
                break;
            }
            self.map.remove(&s);
            self.total -= e - s;
            start = start.min(s);
            end = end.max(e);
        }
        self.map.insert(start, end);
        self.total += end - start;
        self.total - before
    }

    /// Removes `[start, end)`; how many numbers were in it.
    pub fn remove(&mut self, start: u64, end: u64) -> u64 {
        let before = self.total;
        while let Some((&s, &e)) = self.map.range(..end).next_back() {
            if e <= start {
                break;
            }
            self.map.remove(&s);
            self.total -= e - s;
            if s < start {
                self.map.insert(s, start);
                self.total += start - s;
            }
            if end < e {
                self.map.insert(end, e);
                self.total += e - end;
            }
        }
        before - self.total
    }

    /// How many numbers of `[start, end)` are in it.
    pub fn count(&self, start: u64, end: u64) -> u64 {
        let before = self.map.range(..start).next_back().map_or(0, |(_, &e)| e.min(end).saturating_sub(start));
        before + self.map.range(start..end).map(|(&s, &e)| e.min(end) - s).sum::<u64>()
    }

    /// How many numbers are in it.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The end of the range that `at` lies in.
    pub fn covered_to(&self, at: u64) -> Option<u64> {
        let (_, &e) = self.map.range(..=at).next_back()?;
        (at < e).then_some(e)
    }

    /// The first number from `at` on that is in the set.
    pub fn next_in(&self, at: u64) -> Option<u64> {
        if self.covered_to(at).is_some() {
            return Some(at);
        }
        self.map.range(at..).next().map(|(&s, _)| s)
    }
}

/// Bytes of the first block of a layout; each further block is as long as all before it.
const FIRST: u64 = 64 * 1024;
const BLOCKS: usize = 40;

/// Where a file's bytes lie in a store: blocks whose length doubles, so that nearly all of a file is one linear run and
/// a grown file never moves. Blocks are taken when first used; the offsets cost nothing until pages are touched.
pub struct Layout {
    store: Arc<Store>,
    window: HostWindow,
    blocks: [Option<u64>; BLOCKS],
}

impl Drop for Layout {
    fn drop(&mut self) {
        for (i, b) in self.blocks.iter().enumerate() {
            if let Some(at) = b {
                self.store.release(*at, Self::bounds(i).1);
            }
        }
    }
}

impl Layout {
    /// Nothing yet.
    pub fn new(store: Arc<Store>, window: HostWindow) -> Self {
        Self { store, window, blocks: [None; BLOCKS] }
    }

    /// The store that blocks are taken from.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Start and length of a block.
    fn bounds(index: usize) -> (u64, u64) {
        if index == 0 { (0, FIRST) } else { (FIRST << (index - 1), FIRST << (index - 1)) }
    }

    fn index(offset: u64) -> usize {
        (64 - (offset / FIRST).leading_zeros()) as usize
    }

    /// The piece of `[offset, offset + len)` that starts at `offset` and lies in one block: its place (`None` if the
    /// block is not there) and length.
    pub fn find(&self, offset: u64, len: u64) -> (Option<u64>, u64) {
        let i = Self::index(offset);
        let (start, size) = Self::bounds(i);
        let into = offset - start;
        (self.blocks.get(i).copied().flatten().map(|b| b + into), len.min(size - into))
    }

    /// As [`find`](Self::find), taking the block if it is not there. ENOSPC if there is no room, EFBIG beyond all blocks.
    pub fn take(&mut self, offset: u64, len: u64) -> Result<(u64, u64), Errno> {
        let i = Self::index(offset);
        let (start, size) = Self::bounds(i.min(BLOCKS - 1));
        let block = self.blocks.get_mut(i).ok_or(Errno::EFBIG)?;
        let base = match block {
            Some(b) => *b,
            None => *block.insert(self.store.allocate(size).map_err(|_| Errno::ENOSPC)?),
        };
        let into = offset - start;
        Ok((base + into, len.min(size - into)))
    }

    /// Gives the pages of a range back to the host (whole pages within it; the rest is zeroed).
    pub fn clear(&self, start: u64, end: u64) {
        let mut at = start;
        while at < end {
            let (place, len) = self.find(at, end - at);
            if let Some(host) = place {
                let (from, to) = (page_up(host).unwrap_or(host), page_down(host + len));
                let zero = |a: u64, b: u64| {
                    if a < b && self.store.window().write(a, &vec![0; (b - a) as usize]).is_err() {
                        tracing::error!("file layout outside of its window");
                    }
                };
                if from < to {
                    zero(host, from);
                    if let Err(e) = self.store.window().punch(from, to - from) {
                        tracing::error!("pages not returned to the host: {e}");
                    }
                    zero(to, host + len);
                } else {
                    zero(host, host + len);
                }
            }
            at += len;
        }
    }

    /// Extents of a page-aligned range whose blocks are taken; ends early where a block is not.
    pub fn extents(&self, offset: u64, end: u64) -> Vec<Extent> {
        let mut out = Vec::new();
        let mut at = offset;
        while at < end {
            let (Some(host), len) = self.find(at, end - at) else { break };
            out.push(Extent { offset: at, len, window: self.window, host });
            at += len;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_and_split() {
        let mut s = RangeSet::default();
        assert_eq!(s.add(0, 10), 10);
        assert_eq!(s.add(20, 30), 10);
        assert_eq!(s.add(5, 25), 10);
        assert_eq!(s.covered_to(0), Some(30));
        assert_eq!(s.remove(10, 20), 10);
        assert_eq!(s.next_in(12), Some(20));
        assert_eq!(s.covered_to(12), None);
        assert_eq!(s.total(), 20);
    }

    #[test]
    fn blocks_double_and_are_linear() {
        assert_eq!(Layout::index(0), 0);
        assert_eq!(Layout::index(FIRST), 1);
        assert_eq!(Layout::index(2 * FIRST - 1), 1);
        assert_eq!(Layout::index(2 * FIRST), 2);
        assert_eq!(Layout::bounds(2), (2 * FIRST, 2 * FIRST));
    }
}
