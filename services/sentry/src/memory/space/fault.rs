//! Page faults, and pages that a file lost.

use std::sync::Arc;

use cofferdam_platform::{GUEST_BOTTOM, Order, Pages};

use super::{AddressSpace, Bounds, Fault, STACK_GAP, map_extents};
use crate::memory::store::{PAGE, page_down, page_up};
use crate::memory::vma::{Backing, Vma, WRITE, page_of};

/// Bytes around a fault that are filled and mapped.
const AROUND: u64 = 256 << 10;
/// Bytes below a touch by which a stack grows as well.
const AHEAD: u64 = 128 << 10;

impl AddressSpace {
    /// A page fault at `address`, with the processor's error code.
    pub fn fault(&self, tid: i32, address: u64, error: u64) -> Fault {
        let (present, write, exec) = (error & 1 != 0, error & 2 != 0, error & 16 != 0);
        let (object, offset, len, shared) = {
            let inner = self.inner.lock();
            let Some(v) = inner.find(address).cloned() else { return Fault::NoArea };
            if !v.allows(write, exec) {
                return Fault::Segv(2);
            }
            match &v.backing {
                Backing::Anonymous if present => {
                    // Allowed here, refused by the host: another thread's mprotect has not arrived there yet.
                    return Fault::Orders(vec![Order::Protect { address: page_of(address), len: PAGE, prot: v.prot }]);
                }
                Backing::Anonymous => {
                    return Fault::Orders(vec![Order::Map {
                        address: page_of(address),
                        len: PAGE,
                        prot: v.prot,
                        pages: Pages::Anonymous,
                        populate: false,
                    }]);
                }
                Backing::Object { object, .. } => {
                    let page = page_of(address);
                    if v.mapped_whole(page, page + PAGE) {
                        if present {
                            return Fault::Orders(vec![Order::Protect { address: page, len: PAGE, prot: v.prot }]);
                        }
                        return Fault::Retry;
                    }
                    let to = (page - page % AROUND).saturating_add(AROUND).min(v.end);
                    let Some(offset) = v.offset_of(page) else { return Fault::Bus };
                    // From the faulting page on: what is before it is mapped if it is touched.
                    (object.clone(), offset, to - page, v.shared && v.prot & WRITE != 0)
                }
            }
        };
        let Ok(extents) = object.populate(offset, len, shared) else { return Fault::Bus };
        let mut inner = self.inner.lock();
        let Some(v) = inner.find_mut(address) else { return Fault::Retry };
        // Another thread may have mapped something else there meanwhile.
        let same = matches!(&v.backing, Backing::Object { object: o, .. } if Arc::ptr_eq(o, &object));
        if !same || v.offset_of(page_of(address)) != Some(offset) {
            return Fault::Retry;
        }
        // Do not map again what is mapped: private pages would be lost.
        let gap_start = v.mapped_parts(v.start, page_of(address)).last().map_or(v.start, |(_, b)| *b);
        let gap_end = v.mapped_parts(page_of(address), v.end).first().map_or(v.end, |(a, _)| *a);
        if !(gap_start..gap_end).contains(&page_of(address)) {
            // Another thread's fault was faster.
            return Fault::Retry;
        }
        let orders = map_extents(v, &extents, (gap_start, gap_end));
        if orders.is_empty() {
            return Fault::Bus;
        }
        inner.kept.ordered(tid, gap_start, gap_end, Some(&object));
        Fault::Orders(orders)
    }

    /// A touch where there is no area: one below a stack makes it grow, as far as the limits say now.
    pub fn grow(&self, address: u64, bounds: &Bounds) -> Fault {
        let mut inner = self.inner.lock();
        if inner.find(address).is_some() {
            // Another thread's touch was faster.
            return Fault::Retry;
        }
        let Some((start, v)) = inner.areas.range(address..).next() else { return Fault::Segv(1) };
        let (start, end, grows, locked) = (*start, v.end, v.grows_down, v.locked);
        let page = page_down(address);
        let sums = inner.areas.sums();
        let may = |from: u64| {
            end - from <= bounds.stack
                && bounds.allow(sums, start - from, false)
                && (!locked || sums.locked.saturating_add(start - from) <= bounds.locked)
        };
        // What nobody may touch needs no distance: it keeps things apart by itself.
        let below = inner.areas.range(..start).next_back().map(|(_, v)| v);
        let lowest = match below {
            Some(v) if v.grows_down || v.prot == 0 => v.end,
            Some(v) => v.end.saturating_add(STACK_GAP),
            None => GUEST_BOTTOM,
        };
        if !grows || page < lowest || !may(page) {
            return Fault::Segv(1);
        }
        // Some more than what was touched, if that may be as well.
        let more = page.saturating_sub(AHEAD).max(lowest).max(end.saturating_sub(page_down(bounds.stack))).min(page);
        let from = if may(more) { more } else { page };
        let Some(mut v) = inner.areas.remove(start) else { return Fault::Segv(1) };
        v.start = from;
        let (prot, populate) = (v.prot, v.locked && v.prot & WRITE != 0);
        inner.areas.insert(v);
        Fault::Orders(vec![Order::Map { address: from, len: start - from, prot, pages: Pages::Anonymous, populate }])
    }

    /// What a copy by the Sentry found missing, and a touch of the container's own would have: orders to have it there. `None` if there
    /// is nothing to be mended.
    pub fn mend(&self, tid: i32, address: u64, bounds: &Bounds) -> Option<Vec<Order>> {
        const USER_WRITE: u64 = 4 | 2;
        let area = self.inner.lock().find(address).map(|v| matches!(v.backing, Backing::Object { .. }));
        let found = match area {
            Some(true) => self.fault(tid, address, USER_WRITE),
            // The host has all of it: something else is wrong.
            Some(false) => return None,
            None => self.grow(address, bounds),
        };
        if let Fault::Orders(orders) = found { Some(orders) } else { None }
    }

    /// A file is only `size` bytes now: whether pages beyond that are mapped here, for [`shrunk`](Self::shrunk) to unmap.
    pub fn shrink(&self, identity: (u64, u64), size: u64) -> bool {
        let mut pending = self.shrunk.lock();
        let known = pending.iter().any(|(i, s)| *i == identity && *s <= size);
        if !known {
            let inner = self.inner.lock();
            let beyond = inner.areas.values().any(|v| {
                let end = beyond(v, identity, size);
                end.is_some_and(|end| !v.mapped_parts(end, v.end).is_empty())
            });
            if !beyond {
                return false;
            }
            pending.push((identity, size));
        }
        true
    }

    /// Orders that unmap what lies beyond the ends of files that shrank.
    pub fn shrunk(&self) -> Vec<Order> {
        let pending = std::mem::take(&mut *self.shrunk.lock());
        let mut inner = self.inner.lock();
        let mut orders = Vec::new();
        for (identity, size) in pending {
            for v in inner.areas.values_mut() {
                let Some(end) = beyond(v, identity, size) else { continue };
                let gone = v.drop_mapped(end);
                orders.extend(gone.iter().map(|(a, b)| Order::Unmap { address: *a, len: b - a }));
            }
        }
        orders
    }
}

/// The first address of an area that shows nothing of a file of `size` bytes; `None` for an area of something else.
fn beyond(v: &Vma, identity: (u64, u64), size: u64) -> Option<u64> {
    let Backing::Object { object, offset, .. } = &v.backing else { return None };
    let shown = page_up(size)?.saturating_sub(*offset);
    (object.identity() == identity).then(|| v.start.saturating_add(shown).min(v.end))
}
