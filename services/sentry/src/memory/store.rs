//! Stores: page allocation within a host window.
//!
//! A store hands out page ranges of a sparse window by powers of two (a buddy system over offsets, not pages: unused
//! offsets cost nothing) and gives pages back to the host when a range is freed. Called by file caches and shared memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use cofferdam_shm::Window;

use crate::errno::Errno;
use crate::sync::Mutex;

/// Bytes a page.
pub const PAGE: u64 = 4096;

/// Orders 0 (one page) to MAX_ORDER (2^32 pages).
const MAX_ORDER: usize = 32;

/// Rounds up to whole pages; `None` on overflow.
pub fn page_up(n: u64) -> Option<u64> {
    n.checked_add(PAGE - 1).map(|n| n & !(PAGE - 1))
}

/// Rounds down to whole pages.
pub fn page_down(n: u64) -> u64 {
    n & !(PAGE - 1)
}

/// An allocator over a window.
pub struct Store {
    window: Arc<Window>,
    free: Mutex<Vec<BTreeSet<u64>>>,
}

impl Store {
    /// All of `window`, free.
    pub fn new(window: impl Into<Arc<Window>>) -> Self {
        let window = window.into();
        let mut free = vec![BTreeSet::new(); MAX_ORDER + 1];
        let pages = window.size() / PAGE;
        let mut at = 0;
        // Cut the window into the largest aligned blocks.
        while at < pages {
            let align = if at == 0 { MAX_ORDER } else { (at.trailing_zeros() as usize).min(MAX_ORDER) };
            let fit = (63 - (pages - at).leading_zeros()) as usize;
            let order = align.min(fit);
            if let Some(list) = free.get_mut(order) {
                list.insert(at);
            }
            at += 1 << order;
        }
        Self { window, free: Mutex::new(free) }
    }

    /// The window.
    pub fn window(&self) -> &Arc<Window> {
        &self.window
    }

    fn order(len: u64) -> Result<usize, Errno> {
        let pages = page_up(len).ok_or(Errno::ENOMEM)? / PAGE;
        let order = pages.max(1).next_power_of_two().trailing_zeros() as usize;
        if order > MAX_ORDER { Err(Errno::ENOMEM) } else { Ok(order) }
    }

    /// A range of at least `len` bytes that reads as zeros; its offset. It is a power of two of pages long.
    pub fn allocate(&self, len: u64) -> Result<u64, Errno> {
        let want = Self::order(len)?;
        let mut free = self.free.lock();
        let mut have = want;
        let at = loop {
            let list = free.get_mut(have).ok_or(Errno::ENOMEM)?;
            if let Some(at) = list.pop_first() {
                break at;
            }
            have += 1;
        };
        while have > want {
            have -= 1;
            if let Some(list) = free.get_mut(have) {
                list.insert(at + (1 << have));
            }
        }
        Ok(at * PAGE)
    }

    /// Gives back what [`allocate`](Self::allocate) gave for `len`, and its pages to the host.
    pub fn release(&self, offset: u64, len: u64) {
        let Ok(mut order) = Self::order(len) else { return };
        if let Err(e) = self.window.punch(offset, PAGE << order) {
            tracing::error!("memory not returned to the host: {e}");
            return;
        }
        let mut at = offset / PAGE;
        let mut free = self.free.lock();
        while order < MAX_ORDER {
            let buddy = at ^ (1 << order);
            let Some(list) = free.get_mut(order) else { return };
            if !list.remove(&buddy) {
                break;
            }
            at = at.min(buddy);
            order += 1;
        }
        if let Some(list) = free.get_mut(order) {
            list.insert(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_overlap_and_come_back_whole() {
        let s = Store::new(Window::create("t", 1 << 30).unwrap());
        let a = s.allocate(5000).unwrap();
        let b = s.allocate(4096).unwrap();
        assert!(b >= a + 8192 || a >= b + 4096);
        s.window().write(a, b"x").unwrap();
        s.release(a, 5000);
        s.release(b, 4096);
        let all = s.allocate(1 << 30).unwrap();
        assert_eq!(all, 0);
        let mut c = [1];
        s.window().read(a, &mut c).unwrap();
        assert_eq!(c, [0], "released pages read as zeros");
        assert_eq!(s.allocate(1), Err(Errno::ENOMEM));
    }
}
