//! Areas moved and resized: `mremap(2)`.

use cofferdam_platform::{GUEST_BOTTOM, GUEST_TOP, Order};

use super::areas::is_data;
use super::{AddressSpace, Bounds, Inner};
use crate::errno::Errno;
use crate::memory::store::{PAGE, page_up};
use crate::memory::vma::{Backing, Vma};

/// What `mremap(2)` comes to.
pub struct Remapped {
    /// The new address.
    pub address: u64,
    /// What makes it so.
    pub orders: Vec<Order>,
    /// If the host refuses: the range that is to be forgotten, and what was where it came from.
    undo: ((u64, u64), Vec<Vma>),
}

impl AddressSpace {
    /// The host refused to move or to resize an area (it has it in several): it is where it was.
    pub fn unmoved(&self, done: Remapped) {
        let ((from, to), before) = done.undo;
        let mut inner = self.inner.lock();
        let taken = inner.take(from, to);
        inner.kept.doubtful(&taken);
        for v in before {
            if inner.touching(v.start, v.end).is_empty() {
                inner.put(v);
            }
        }
    }

    /// `mremap(2)`: the new address, and orders.
    #[allow(clippy::too_many_arguments)]
    pub fn remap(
        &self,
        tid: i32,
        address: u64,
        old_len: u64,
        new_len: u64,
        may_move: bool,
        fixed: Option<u64>,
        dont_unmap: bool,
        bounds: &Bounds,
    ) -> Result<Remapped, Errno> {
        let end = Self::range(address, old_len)?;
        let new_len = page_up(new_len).filter(|l| *l > 0 && *l <= GUEST_TOP).ok_or(Errno::EINVAL)?;
        let old_len = end - address;
        let mut inner = self.inner.lock();
        Self::settled(&mut inner, tid);
        let vma = inner.find(address).cloned().ok_or(Errno::EFAULT)?;
        inner.unsealed(address, end.max(address + 1))?;
        if end > vma.end {
            return Err(Errno::EFAULT);
        }
        let more = new_len.saturating_sub(old_len) + if dont_unmap { old_len } else { 0 };
        if more > 0 && !bounds.allow(inner.areas.sums(), more, is_data(vma.prot, vma.shared, vma.grows_down)) {
            return Err(Errno::ENOMEM);
        }
        if vma.locked && inner.areas.sums().locked.saturating_add(more) > bounds.locked {
            return Err(Errno::EAGAIN);
        }
        if old_len == 0 {
            let (to, orders) = Self::duplicate(&mut inner, tid, &vma, address, new_len, may_move, fixed)?;
            return Ok(Remapped { address: to, orders, undo: ((to, to + new_len), Vec::new()) });
        }
        if dont_unmap && (new_len != old_len || !may_move || !matches!(vma.backing, Backing::Anonymous)) {
            return Err(Errno::EINVAL);
        }
        let mut source = vma.clone();
        if source.start < address {
            source = source.split(address);
        }
        if source.end > end {
            let _beyond = source.split(end);
        }
        if let Some(to) = fixed {
            let to_end =
                to.checked_add(new_len).filter(|e| *e <= GUEST_TOP && to.is_multiple_of(PAGE)).ok_or(Errno::EINVAL)?;
            if !may_move || to < GUEST_BOTTOM || (to < end && address < to_end) {
                return Err(Errno::EINVAL);
            }
            inner.unsealed(to, to_end)?;
            let old = inner.remove(tid, to, to_end);
            let mut orders = Vec::new();
            if !old.is_empty() {
                orders.push(Order::Unmap { address: to, len: new_len });
            }
            Self::relocate(&mut inner, tid, address, old_len, to, new_len, dont_unmap, &mut orders);
            return Ok(Remapped { address: to, orders, undo: ((to, to_end), vec![source]) });
        }
        let mut orders = Vec::new();
        if new_len <= old_len && !dont_unmap {
            if new_len < old_len {
                inner.remove(tid, address + new_len, end);
                orders.push(Order::Unmap { address: address + new_len, len: old_len - new_len });
            }
            // An unmapping that the host refuses leaves the container without the memory, as one that it carries out.
            return Ok(Remapped { address, orders, undo: ((address, address), Vec::new()) });
        }
        // Grow in place, if it is the end of the area and there is room.
        let grown = address.checked_add(new_len).filter(|e| *e <= GUEST_TOP);
        if !dont_unmap
            && end == vma.end
            && let Some(grown) = grown
            && inner.free(end, grown)
        {
            let mut tail = vma.clone();
            tail.start = end;
            tail.end = grown;
            match &vma.backing {
                // By the host's own mremap: memory that was moved here is one area with what is mapped beside it by no other way.
                Backing::Anonymous => {
                    orders.push(Order::Remap { from: address, old_len, new_len, to: address, keep: false });
                }
                Backing::Object { object, offset, .. } => {
                    let offset = offset.checked_add(end - vma.start).ok_or(Errno::EINVAL)?;
                    tail.backing = Backing::Object { object: object.clone(), offset, mapped: Vec::new() };
                }
            }
            inner.put(tail);
            return Ok(Remapped { address, orders, undo: ((end, grown), Vec::new()) });
        }
        if !may_move {
            return Err(Errno::ENOMEM);
        }
        let base = inner.mmap_base;
        let to = inner.place(new_len, base).ok_or(Errno::ENOMEM)?;
        Self::relocate(&mut inner, tid, address, old_len, to, new_len, dont_unmap, &mut orders);
        Ok(Remapped { address: to, orders, undo: ((to, to + new_len), vec![source]) })
    }

    /// A second mapping of the same shared memory (old length 0).
    fn duplicate(
        inner: &mut Inner,
        tid: i32,
        vma: &Vma,
        address: u64,
        len: u64,
        may_move: bool,
        fixed: Option<u64>,
    ) -> Result<(u64, Vec<Order>), Errno> {
        let Backing::Object { object, .. } = &vma.backing else { return Err(Errno::EINVAL) };
        if !vma.shared || !may_move {
            return Err(Errno::EINVAL);
        }
        let offset = vma.offset_of(address).ok_or(Errno::EINVAL)?;
        let mut orders = Vec::new();
        let base = inner.mmap_base;
        let to = match fixed {
            None => inner.place(len, base).ok_or(Errno::ENOMEM)?,
            Some(to) => {
                let end = to.checked_add(len).filter(|e| *e <= GUEST_TOP).ok_or(Errno::EINVAL)?;
                if !to.is_multiple_of(PAGE) || to < GUEST_BOTTOM || (to <= address && address < end) {
                    return Err(Errno::EINVAL);
                }
                inner.unsealed(to, end)?;
                if !inner.remove(tid, to, end).is_empty() {
                    orders.push(Order::Unmap { address: to, len });
                }
                to
            }
        };
        // Its pages are mapped when they are touched.
        let backing = Backing::Object { object: object.clone(), offset, mapped: Vec::new() };
        inner.put(Vma { start: to, end: to + len, backing, ..vma.clone() });
        Ok((to, orders))
    }

    #[allow(clippy::too_many_arguments)]
    fn relocate(
        inner: &mut Inner,
        tid: i32,
        from: u64,
        old_len: u64,
        to: u64,
        new_len: u64,
        keep: bool,
        orders: &mut Vec<Order>,
    ) {
        let moved_len = old_len.min(new_len);
        // Until it is moved, the host has it where it was.
        inner.kept.ordered(tid, from, from + old_len, None);
        inner.kept.ordered(tid, to, to + new_len, None);
        if old_len > new_len {
            inner.remove(tid, from + new_len, from + old_len);
            orders.push(Order::Unmap { address: from + new_len, len: old_len - new_len });
        }
        for mut v in inner.take(from, from + moved_len) {
            if keep {
                inner.put(v.clone());
            }
            match &mut v.backing {
                Backing::Anonymous => {
                    orders.push(Order::Remap { from: v.start, old_len: v.len(), new_len, to, keep });
                }
                Backing::Object { mapped, .. } => {
                    for (a, b) in mapped.iter_mut() {
                        let new = to + (*a - from);
                        orders.push(Order::Remap {
                            from: *a,
                            old_len: *b - *a,
                            new_len: *b - *a,
                            to: new,
                            keep: false,
                        });
                        (*a, *b) = (new, new + (*b - *a));
                    }
                }
            }
            v.moved = v.moved.wrapping_add(to.wrapping_sub(from));
            v.start = to;
            v.end = to + new_len;
            inner.put(v);
        }
    }
}
