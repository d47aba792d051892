//! Locked memory: `mlock(2)` and its kin. Locks are counted and bind what may be dropped; pages are made present when they are
//! locked. That they stay is the host's affair, which the sandbox may not bind.

use cofferdam_platform::Order;

use super::{AddressSpace, Bounds};
use crate::errno::Errno;
use crate::memory::store::PAGE;
use crate::memory::vma::{Backing, READ, Vma, WRITE};

/// `MADV_POPULATE_READ`, `MADV_POPULATE_WRITE`.
const POPULATE_READ: i32 = 22;
const POPULATE_WRITE: i32 = 23;

/// Orders that make the pages of private memory present.
fn present(v: &Vma) -> Option<Order> {
    let advice = match v.prot {
        p if p & WRITE != 0 => POPULATE_WRITE,
        p if p & READ != 0 => POPULATE_READ,
        _ => return None,
    };
    matches!(v.backing, Backing::Anonymous).then(|| Order::Advise { address: v.start, len: v.len(), advice })
}

impl AddressSpace {
    /// `mlock(2)`, `mlock2(2)`: what lies in the range is locked, as far as it is mapped without a gap (ENOMEM for the rest).
    /// `at_fault`: pages are made present when they are touched. ENOMEM beyond what may be locked.
    pub fn lock(&self, tid: i32, address: u64, len: u64, at_fault: bool, bounds: &Bounds) -> Result<Vec<Order>, Errno> {
        let start = address & !(PAGE - 1);
        let len = len.checked_add(address - start).ok_or(Errno::EINVAL)?;
        let end = Self::range(start, len)?;
        let mut inner = self.inner.lock();
        Self::settled(&mut inner, tid);
        let already = inner.within(start, end, |v| v.locked);
        if inner.areas.sums().locked.saturating_sub(already).saturating_add(end - start) > bounds.locked {
            return Err(Errno::ENOMEM);
        }
        let whole = inner.within(start, end, |_| true) == end - start;
        let mut orders = Vec::new();
        for mut v in inner.take(start, end) {
            v.locked = true;
            orders.extend(present(&v).filter(|_| !at_fault));
            inner.put(v);
        }
        if whole { Ok(orders) } else { Err(Errno::ENOMEM) }
    }

    /// `munlock(2)`. ENOMEM if there are gaps.
    pub fn unlock(&self, tid: i32, address: u64, len: u64) -> Result<(), Errno> {
        let start = address & !(PAGE - 1);
        let len = len.checked_add(address - start).ok_or(Errno::EINVAL)?;
        let end = Self::range(start, len)?;
        let mut inner = self.inner.lock();
        Self::settled(&mut inner, tid);
        let whole = inner.within(start, end, |_| true) == end - start;
        for mut v in inner.take(start, end) {
            v.locked = false;
            inner.put(v);
        }
        if whole { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// `mlockall(2)`, `munlockall(2)`: what is there now (`None`: left alone), and what comes.
    pub fn lock_all(
        &self,
        now: Option<bool>,
        future: bool,
        at_fault: bool,
        bounds: &Bounds,
    ) -> Result<Vec<Order>, Errno> {
        let mut inner = self.inner.lock();
        if now == Some(true) && inner.areas.sums().space > bounds.locked {
            return Err(Errno::ENOMEM);
        }
        inner.lock_future = future;
        let mut orders = Vec::new();
        if let Some(locked) = now {
            let starts: Vec<u64> = inner.areas.keys().copied().collect();
            for start in starts {
                if let Some(mut v) = inner.areas.remove(start) {
                    v.locked = locked;
                    orders.extend(present(&v).filter(|_| locked && !at_fault));
                    inner.areas.insert(v);
                }
            }
        }
        Ok(orders)
    }

    /// Whether anything in a range is locked (`msync` with `MS_INVALIDATE`).
    pub fn any_locked(&self, address: u64, len: u64) -> bool {
        self.inner.lock().within(address, address.saturating_add(len), |v| v.locked) > 0
    }
}
