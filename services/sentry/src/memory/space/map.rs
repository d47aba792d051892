//! Areas made, taken away and protected: `mmap(2)`, `munmap(2)`, `mprotect(2)`, `brk(2)`.

use cofferdam_platform::{GUEST_BOTTOM, GUEST_TOP, Order, Pages};

use super::areas::is_data;
use super::{AddressSpace, Bounds, MapRequest, map_extents};
use crate::errno::Errno;
use crate::memory::store::{PAGE, page_down, page_up};
use crate::memory::vma::{Backing, EXEC, READ, Vma, WRITE, page_of};

/// Bytes of an object that are filled and mapped at once when it is mapped.
const EAGER: u64 = 1 << 20;
/// Areas a process may have (`vm.max_map_count`).
const MAX_AREAS: usize = 65530;

impl AddressSpace {
    /// `mmap(2)`: the address, and orders. EAGAIN beyond what may be locked.
    pub fn map(&self, tid: i32, r: MapRequest, bounds: &Bounds) -> Result<(u64, Vec<Order>), Errno> {
        let len = page_up(r.len).filter(|l| *l > 0 && *l <= GUEST_TOP).ok_or(Errno::ENOMEM)?;
        // Filled before the lock is taken: it may ask the Gofer.
        let extents = match &r.object {
            Some((object, offset)) => {
                offset.checked_add(len).ok_or(Errno::EOVERFLOW)?;
                let want = if r.populate { len } else { len.min(EAGER) };
                if r.prot == 0 {
                    Vec::new()
                } else {
                    object.populate(*offset, want, r.shared && r.prot & WRITE != 0)?
                }
            }
            None => Vec::new(),
        };
        let mut inner = self.inner.lock();
        Self::settled(&mut inner, tid);
        // What is replaced is not counted twice.
        let end = r.address.saturating_add(len);
        let replaced: u64 = if r.fixed { inner.within(r.address, end, |_| true) } else { 0 };
        let more = len - replaced.min(len);
        if !bounds.allow(inner.areas.sums(), more, is_data(r.prot, r.shared, r.grows_down))
            || inner.areas.len() >= MAX_AREAS
        {
            return Err(Errno::ENOMEM);
        }
        let locked = r.locked || inner.lock_future;
        if locked && inner.areas.sums().locked.saturating_add(len) > bounds.locked {
            return Err(Errno::EAGAIN);
        }
        let mut orders = Vec::new();
        let address = if r.fixed || r.no_replace {
            let end = r.address.checked_add(len).filter(|e| *e <= GUEST_TOP).ok_or(Errno::ENOMEM)?;
            if !r.address.is_multiple_of(PAGE) {
                return Err(Errno::EINVAL);
            }
            if r.address < GUEST_BOTTOM {
                return Err(Errno::EPERM);
            }
            if r.no_replace && !inner.touching(r.address, end).is_empty() {
                return Err(Errno::EEXIST);
            }
            inner.unsealed(r.address, end)?;
            let old = inner.remove(tid, r.address, end);
            // What is mapped now replaces what was there, but where pages of an object are not mapped yet nothing would.
            let whole = r.object.is_none();
            if !whole && old.iter().any(|v| !v.mapped_parts(r.address, end).is_empty()) {
                orders.push(Order::Unmap { address: r.address, len });
            }
            r.address
        } else {
            let hint = page_down(r.address);
            let fits = hint >= GUEST_BOTTOM
                && hint
                    .checked_add(len)
                    .is_some_and(|e| e <= GUEST_TOP && inner.free(hint, e) && inner.clear_of_stack(e));
            if fits && !r.low {
                hint
            } else {
                let top = if r.low { 0x8000_0000 } else { inner.mmap_base };
                let at = inner.place(len, top);
                let at = if at.is_none() && !r.low { inner.place_from(len, GUEST_TOP) } else { at };
                at.ok_or(Errno::ENOMEM)?
            }
        };
        let mut vma = Vma::anonymous(address, address + len, r.prot);
        vma.max_prot = r.max_prot;
        vma.shared = r.shared;
        vma.grows_down = r.grows_down;
        vma.locked = locked;
        vma.name = r.name;
        match r.object {
            None => orders.push(Order::Map {
                address,
                len,
                prot: r.prot,
                pages: Pages::Anonymous,
                populate: (r.populate || locked) && r.prot & WRITE != 0,
            }),
            Some((object, offset)) => {
                inner.kept.ordered(tid, vma.start, vma.end, Some(&object));
                vma.backing = Backing::Object { object, offset, mapped: Vec::new() };
                let within = (vma.start, vma.end);
                orders.extend(map_extents(&mut vma, &extents, within));
            }
        }
        inner.put(vma);
        Ok((address, orders))
    }

    /// Forgets `[address, address + len)`: a mapping that the host then refused.
    pub fn forget(&self, address: u64, len: u64) {
        if let Some(end) = page_up(len).and_then(|l| address.checked_add(l)) {
            let mut inner = self.inner.lock();
            let taken = inner.take(address, end);
            inner.kept.doubtful(&taken);
        }
    }

    /// `munmap(2)`. The caller lets the call pass through to the host as it was made.
    pub fn unmap(&self, tid: i32, address: u64, len: u64) -> Result<(), Errno> {
        let end = Self::range(address, len)?;
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        let mut inner = self.inner.lock();
        Self::settled(&mut inner, tid);
        inner.unsealed(address, end)?;
        let taken = inner.remove(tid, address, end);
        if !taken.is_empty() {
            inner.unmapping.push((tid, address, end));
            if end > inner.hint {
                inner.hint = 0;
            }
        }
        Ok(())
    }

    /// `mprotect(2)`. `None`: let it pass through as it was made; else these orders do it.
    pub fn protect(
        &self,
        tid: i32,
        address: u64,
        len: u64,
        prot: i32,
        bounds: &Bounds,
    ) -> Result<Option<Vec<Order>>, Errno> {
        let end =
            Self::range(address, len).map_err(|e| if address.is_multiple_of(PAGE) { Errno::ENOMEM } else { e })?;
        if address == end {
            return Ok(Some(Vec::new()));
        }
        let mut inner = self.inner.lock();
        Self::settled(&mut inner, tid);
        let mut at = address;
        for s in inner.touching(address, end) {
            let Some(v) = inner.areas.get(&s) else { continue };
            if v.start > at {
                return Err(Errno::ENOMEM);
            }
            if prot & !v.max_prot != 0 {
                return Err(Errno::EACCES);
            }
            at = v.end;
        }
        if at < end || address < GUEST_BOTTOM {
            return Err(Errno::ENOMEM);
        }
        inner.unsealed(address, end)?;
        // What becomes data counts as such.
        let more = inner.within(address, end, |v| {
            is_data(prot, v.shared, v.grows_down) && !is_data(v.prot, v.shared, v.grows_down)
        });
        if more > 0 && inner.areas.sums().data.saturating_add(more) > bounds.data {
            return Err(Errno::ENOMEM);
        }
        let mut orders = Vec::new();
        let mut whole = true;
        for mut v in inner.take(address, end) {
            whole &= v.mapped_whole(v.start, v.end);
            for (a, b) in v.mapped_parts(v.start, v.end) {
                orders.push(Order::Protect { address: a, len: b - a, prot });
            }
            v.prot = prot;
            inner.put(v);
        }
        Ok(if whole { None } else { Some(orders) })
    }

    /// Protection of the pages that `[from, to)` lies in, if they are private pages of one mapped file.
    pub fn private_text(&self, from: u64, to: u64) -> Option<i32> {
        let inner = self.inner.lock();
        let v = inner.find(from)?;
        let fits = matches!(v.backing, Backing::Object { .. }) && !v.shared && to <= v.end && v.prot & EXEC != 0;
        (fits && v.mapped_whole(page_of(from), page_up(to)?)).then_some(v.prot)
    }

    /// Whether a range is private anonymous memory that may be written: the host needs no help of ours to write there.
    pub fn private_writable(&self, address: u64, len: u64) -> bool {
        let Some(end) = address.checked_add(len) else { return false };
        let inner = self.inner.lock();
        let mut at = address;
        while at < end {
            match inner.find(at) {
                Some(v) if matches!(v.backing, Backing::Anonymous) && v.prot & WRITE != 0 => at = v.end,
                _ => return false,
            }
        }
        true
    }

    /// The pages of a range of private memory that may be written which the host has not mapped; `None` if not all of it is such.
    pub fn private_missing(&self, from: u64, to: u64) -> Option<Vec<u64>> {
        let inner = self.inner.lock();
        let mut missing = Vec::new();
        let mut page = page_of(from);
        while page < to {
            let v = inner.find(page).filter(|v| !v.shared && v.prot & WRITE != 0)?;
            if !v.mapped_whole(page, page + PAGE) {
                missing.push(page);
            }
            page += PAGE;
        }
        Some(missing)
    }

    /// Whether any of a range is not in a forked copy (`MADV_DONTFORK`).
    pub fn forgets(&self, from: u64, to: u64) -> bool {
        let inner = self.inner.lock();
        inner.touching(from, to).into_iter().any(|s| inner.areas.get(&s).is_some_and(|v| v.dont_fork))
    }

    /// `brk(2)`: the break as it is then, and orders.
    pub fn brk(&self, tid: i32, wanted: u64, bounds: &Bounds) -> (u64, Vec<Order>) {
        let mut inner = self.inner.lock();
        Self::settled(&mut inner, tid);
        let start = inner.brk_start;
        if wanted < start || wanted > GUEST_TOP || wanted - start > bounds.data {
            return (inner.brk, Vec::new());
        }
        let (Some(old), Some(new)) = (page_up(inner.brk), page_up(wanted)) else { return (inner.brk, Vec::new()) };
        let mut orders = Vec::new();
        if new > old {
            let (sums, more) = (inner.areas.sums(), new - old);
            let locked = inner.lock_future;
            let fits = bounds.allow(sums, more, true) && (!locked || sums.locked.saturating_add(more) <= bounds.locked);
            if !fits || !inner.free(old, new) {
                return (inner.brk, Vec::new());
            }
            let mut vma = Vma::anonymous(old, new, READ | WRITE);
            vma.name = "[heap]";
            vma.locked = locked;
            inner.put(vma);
            orders.push(Order::Map {
                address: old,
                len: new - old,
                prot: READ | WRITE,
                pages: Pages::Anonymous,
                populate: false,
            });
        } else if new < old {
            if inner.unsealed(new, old).is_err() {
                return (inner.brk, Vec::new());
            }
            inner.remove(tid, new, old);
            orders.push(Order::Unmap { address: new, len: old - new });
        }
        inner.brk = wanted;
        (wanted, orders)
    }
}
