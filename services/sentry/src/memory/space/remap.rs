//! Areas moved and resized: `mremap(2)`.

use cofferdam_platform::{GUEST_BOTTOM, GUEST_TOP, Order, Pages};

use super::{AddressSpace, Inner};
use crate::errno::Errno;
use crate::memory::store::{PAGE, page_up};
use crate::memory::vma::Backing;

impl AddressSpace {
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
    ) -> Result<(u64, Vec<Order>), Errno> {
        let end = Self::range(address, old_len)?;
        let new_len = page_up(new_len).filter(|l| *l > 0 && *l <= GUEST_TOP).ok_or(Errno::EINVAL)?;
        let old_len = end - address;
        let mut inner = self.inner.lock();
        Self::settled(&mut inner, tid);
        let vma = inner.find(address).cloned().ok_or(Errno::EFAULT)?;
        if old_len == 0 {
            // Duplicating a shared mapping is not done.
            return Err(Errno::EINVAL);
        }
        if end > vma.end {
            return Err(Errno::EFAULT);
        }
        if dont_unmap && (new_len != old_len || !may_move || !matches!(vma.backing, Backing::Anonymous)) {
            return Err(Errno::EINVAL);
        }
        if let Some(to) = fixed {
            let to_end =
                to.checked_add(new_len).filter(|e| *e <= GUEST_TOP && to.is_multiple_of(PAGE)).ok_or(Errno::EINVAL)?;
            if !may_move || to < GUEST_BOTTOM || (to < end && address < to_end) {
                return Err(Errno::EINVAL);
            }
            let old = inner.remove(tid, to, to_end);
            let mut orders = Vec::new();
            if !old.is_empty() {
                orders.push(Order::Unmap { address: to, len: new_len });
            }
            Self::relocate(&mut inner, tid, address, old_len, to, new_len, dont_unmap, &mut orders);
            return Ok((to, orders));
        }
        let mut orders = Vec::new();
        if new_len <= old_len && !dont_unmap {
            if new_len < old_len {
                inner.remove(tid, address + new_len, end);
                orders.push(Order::Unmap { address: address + new_len, len: old_len - new_len });
            }
            return Ok((address, orders));
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
                Backing::Anonymous => orders.push(Order::Map {
                    address: end,
                    len: grown - end,
                    prot: vma.prot,
                    pages: Pages::Anonymous,
                    populate: false,
                }),
                Backing::Object { object, offset, .. } => {
                    let offset = offset.checked_add(end - vma.start).ok_or(Errno::EINVAL)?;
                    tail.backing = Backing::Object { object: object.clone(), offset, mapped: Vec::new() };
                }
            }
            inner.put(tail);
            return Ok((address, orders));
        }
        if !may_move {
            return Err(Errno::ENOMEM);
        }
        let base = inner.mmap_base;
        let to = inner.place(new_len, base).ok_or(Errno::ENOMEM)?;
        Self::relocate(&mut inner, tid, address, old_len, to, new_len, dont_unmap, &mut orders);
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
            v.start = to;
            v.end = to + new_len;
            inner.put(v);
        }
    }
}
