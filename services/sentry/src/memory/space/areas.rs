//! The areas of an address space by address, with what they come to: bytes that limits count (`setrlimit(2)`).

use std::collections::BTreeMap;
use std::collections::btree_map::{RangeMut, ValuesMut};
use std::ops::{Deref, RangeBounds};

use crate::memory::vma::{Vma, WRITE};

/// Bytes of all areas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// All (`RLIMIT_AS`).
    pub space: u64,
    /// Private and writable, but for stacks (`RLIMIT_DATA`).
    pub data: u64,
    /// Locked (`RLIMIT_MEMLOCK`).
    pub locked: u64,
}

/// What a process may have mapped, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// `RLIMIT_AS`.
    pub space: u64,
    /// `RLIMIT_DATA`.
    pub data: u64,
    /// `RLIMIT_STACK`.
    pub stack: u64,
    /// `RLIMIT_MEMLOCK`; no bound for who has CAP_IPC_LOCK.
    pub locked: u64,
}

impl Bounds {
    /// No bounds.
    pub const NONE: Bounds = Bounds { space: u64::MAX, data: u64::MAX, stack: u64::MAX, locked: u64::MAX };

    /// Whether so much more may be mapped, as an area of this kind.
    pub fn allow(&self, now: Sums, more: u64, data: bool) -> bool {
        now.space.saturating_add(more) <= self.space && (!data || now.data.saturating_add(more) <= self.data)
    }
}

/// Whether an area counts as data.
pub fn is_data(prot: i32, shared: bool, stack: bool) -> bool {
    prot & WRITE != 0 && !shared && !stack
}

/// Areas by their first address.
#[derive(Default)]
pub struct Areas {
    map: BTreeMap<u64, Vma>,
    sums: Sums,
    peak: u64,
}

impl Deref for Areas {
    type Target = BTreeMap<u64, Vma>;
    fn deref(&self) -> &Self::Target {
        &self.map
    }
}

impl Areas {
    /// What they come to.
    pub fn sums(&self) -> Sums {
        self.sums
    }

    /// The most bytes that they ever were.
    pub fn peak(&self) -> u64 {
        self.peak
    }

    fn count(&mut self, v: &Vma, add: bool) {
        let change = |sum: &mut u64| *sum = if add { *sum + v.len() } else { sum.saturating_sub(v.len()) };
        change(&mut self.sums.space);
        if is_data(v.prot, v.shared, v.grows_down) {
            change(&mut self.sums.data);
        }
        if v.locked {
            change(&mut self.sums.locked);
        }
    }

    /// Puts an area in that touches no other.
    pub fn insert(&mut self, v: Vma) {
        self.count(&v, true);
        if let Some(old) = self.map.insert(v.start, v) {
            self.count(&old, false);
        }
        self.peak = self.peak.max(self.sums.space);
    }

    /// Takes the area out that begins there.
    pub fn remove(&mut self, start: u64) -> Option<Vma> {
        let v = self.map.remove(&start)?;
        self.count(&v, false);
        Some(v)
    }

    /// To note what the host has mapped of them. What is counted must not be changed.
    pub fn range_mut(&mut self, range: impl RangeBounds<u64>) -> RangeMut<'_, u64, Vma> {
        self.map.range_mut(range)
    }

    /// As [`range_mut`](Self::range_mut), all of them.
    pub fn values_mut(&mut self) -> ValuesMut<'_, u64, Vma> {
        self.map.values_mut()
    }
}

impl FromIterator<Vma> for Areas {
    fn from_iter<I: IntoIterator<Item = Vma>>(all: I) -> Self {
        let mut areas = Self::default();
        all.into_iter().for_each(|v| areas.insert(v));
        areas
    }
}
