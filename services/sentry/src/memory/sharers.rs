//! With how many address spaces an area's pages are shared: what `Pss` divides by.
//!
//! Counted are those that have the same part of the same object mapped; the host does not say whose a page is as well, so a page counts as
//! everybody's who has its area there, what was written privately among them, and what forks share of private memory as each one's own.
//! Called for `/proc`; never with a lock held.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::vma::{Backing, Vma};
use crate::kernel::Kernel;

/// A part of an object: from, to, and in which address space it is mapped.
type Part = (u64, u64, usize);

/// The parts of objects that are mapped anywhere, by identity.
pub struct Sharers(HashMap<(u64, u64), Vec<Part>>);

impl Sharers {
    /// As everybody's memory is now.
    pub fn of(kernel: &Kernel) -> Self {
        let tasks = kernel.tree.lock().tasks();
        let mut seen = BTreeSet::new();
        let mut parts: HashMap<(u64, u64), Vec<Part>> = HashMap::new();
        for task in tasks {
            let mm = task.mm();
            let who = Arc::as_ptr(&mm).addr();
            if !seen.insert(who) {
                continue;
            }
            for a in mm.areas() {
                let Backing::Object { object, mapped, .. } = &a.backing else { continue };
                let to = parts.entry(object.identity()).or_default();
                to.extend(mapped.iter().filter_map(|(x, y)| Some((a.offset_of(*x)?, a.offset_of(*x)? + (y - x), who))));
            }
        }
        Self(parts)
    }

    /// In how many an area's pages are; 1 for what is its own.
    pub fn count(&self, a: &Vma) -> u64 {
        let Backing::Object { object, offset, .. } = &a.backing else { return 1 };
        let end = offset.saturating_add(a.len());
        let parts = self.0.get(&object.identity()).into_iter().flatten();
        let who: BTreeSet<usize> = parts.filter(|(x, y, _)| *x < end && *offset < *y).map(|(_, _, who)| *who).collect();
        (who.len() as u64).max(1)
    }
}
