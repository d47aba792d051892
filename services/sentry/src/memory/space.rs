//! Address spaces: the areas of a process, and what the host must be ordered to do to match them.
//!
//! The host kernel does the paging: private memory is private memory of the stub, forked copy-on-write by the host's own
//! fork; objects are mapped from the host windows. The tree of areas here is the truth of what the container may touch;
//! every method that changes it returns the [`Order`]s that bring the stub in line, which the caller has carried out in
//! the very thread that asked. Never here: registers, signals, files.

use std::collections::BTreeMap;
use std::sync::Arc;

use cofferdam_platform::{GUEST_BOTTOM, GUEST_TOP, Order, Pages};

use super::kept::Kept;
use super::object::{Extent, HostWindow, Object};
use super::sites::Sites;
use super::store::{PAGE, page_down, page_up};
use super::vma::{Backing, EXEC, READ, Vma, WRITE, page_of};
use crate::errno::Errno;
use crate::sync::Mutex;

/// Bytes of an object that are filled and mapped at once when it is mapped.
const EAGER: u64 = 1 << 20;
/// Bytes around a fault that are filled and mapped.
const AROUND: u64 = 256 << 10;
/// Bytes kept free below a stack.
const STACK_GAP: u64 = 1 << 20;
/// Areas a process may have (`vm.max_map_count`).
const MAX_AREAS: usize = 65530;

/// What to map.
pub struct MapRequest {
    /// Wanted address: exact if `fixed`, else a hint (0 for none).
    pub address: u64,
    /// Bytes, not zero.
    pub len: u64,
    /// `PROT_*`.
    pub prot: i32,
    /// `PROT_*` that may be set later.
    pub max_prot: i32,
    /// `MAP_SHARED`.
    pub shared: bool,
    /// `MAP_FIXED`.
    pub fixed: bool,
    /// `MAP_FIXED_NOREPLACE`.
    pub no_replace: bool,
    /// `MAP_GROWSDOWN`.
    pub grows_down: bool,
    /// `MAP_POPULATE` or `MAP_LOCKED`.
    pub populate: bool,
    /// Below 4 GiB (`MAP_32BIT`: below 2 GiB).
    pub low: bool,
    /// The object and the offset in it; `None` for private anonymous memory.
    pub object: Option<(Object, u64)>,
    /// Name for `/proc/PID/maps`.
    pub name: &'static str,
}

/// What a fault came to.
pub enum Fault {
    /// Carry out these and run on.
    Orders(Vec<Order>),
    /// Run on: what was missing is there by now.
    Retry,
    /// SIGSEGV with `SEGV_MAPERR` (1) or `SEGV_ACCERR` (2).
    Segv(i32),
    /// SIGBUS with `BUS_ADRERR`.
    Bus,
}

#[derive(Default)]
struct Inner {
    areas: BTreeMap<u64, Vma>,
    /// Top of where mappings are placed, downwards.
    mmap_base: u64,
    brk_start: u64,
    brk: u64,
    /// Ranges that a thread was let unmap and may not have unmapped yet: not to be given to others until its next call.
    unmapping: Vec<(i32, u64, u64)>,
    /// What the host may still have mapped.
    kept: Kept,
    /// Where the last search for free space ended.
    hint: u64,
    /// Ranges of the process's arguments and environment, for `/proc`.
    pub args: (u64, u64),
    pub env: (u64, u64),
    pub start_stack: u64,
    pub code: (u64, u64),
    pub data: (u64, u64),
    pub auxv: Vec<u8>,
}

/// An address space.
pub struct AddressSpace {
    inner: Mutex<Inner>,
    /// Files that shrank and whose pages beyond the end are still mapped here: identity and size.
    shrunk: Mutex<Vec<((u64, u64), u64)>>,
    /// Call sites that are counted or patched.
    pub sites: Sites,
}

/// What `/proc` shows of the layout.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Layout {
    pub args: (u64, u64),
    pub env: (u64, u64),
    pub start_stack: u64,
    pub code: (u64, u64),
    pub data: (u64, u64),
    pub brk: (u64, u64),
    pub auxv: Vec<u8>,
}

/// The window's number for the platform. Only what may be written in place is mapped through a descriptor for writing: an order
/// to change a protection may be carried out late, by a thread that took its time, when something else lies at that address.
pub fn window_index(w: HostWindow, written: bool) -> usize {
    match (w, written) {
        (HostWindow::Cache, true) => 0,
        (HostWindow::Memory, true) => 1,
        (HostWindow::Cache, false) => 2,
        (HostWindow::Memory, false) => 3,
    }
}

/// Orders that map the extents of an object that lie within `vma`, with each run of adjacent ones in one.
fn map_extents(vma: &mut Vma, extents: &[Extent], within: (u64, u64)) -> Vec<Order> {
    let mut orders: Vec<Order> = Vec::new();
    let Backing::Object { offset: base, .. } = vma.backing else { return orders };
    for e in extents {
        // The part of the extent that lies in the area.
        let from = e.offset.max(base.saturating_add(within.0 - vma.start));
        let to = e.offset.saturating_add(e.len).min(base.saturating_add(within.1 - vma.start));
        if from >= to {
            continue;
        }
        let (address, len) = (vma.start + (from - base), to - from);
        let host = e.host + (from - e.offset);
        let window = window_index(e.window, vma.shared && vma.max_prot & WRITE != 0);
        vma.add_mapped(address, address + len);
        if let Some(Order::Map { address: a, len: l, pages: Pages::Window { window: w, offset: o, .. }, .. }) =
            orders.last_mut()
            && *a + *l == address
            && *w == window
            && *o + *l == host
        {
            *l += len;
            continue;
        }
        orders.push(Order::Map {
            address,
            len,
            prot: vma.prot,
            pages: Pages::Window { window, offset: host, shared: vma.shared },
            populate: false,
        });
    }
    orders
}

impl Inner {
    fn find(&self, address: u64) -> Option<&Vma> {
        self.areas.range(..=address).next_back().map(|(_, v)| v).filter(|v| address < v.end)
    }

    fn find_mut(&mut self, address: u64) -> Option<&mut Vma> {
        self.areas.range_mut(..=address).next_back().map(|(_, v)| v).filter(|v| address < v.end)
    }

    /// Starts of the areas that touch `[from, to)`.
    fn touching(&self, from: u64, to: u64) -> Vec<u64> {
        let first = self.areas.range(..=from).next_back().filter(|(_, v)| v.end > from).map(|(s, _)| *s);
        first.into_iter().chain(self.areas.range(from..to).map(|(s, _)| *s).filter(|s| Some(*s) != first)).collect()
    }

    /// Makes area borders at `at`, if it lies within one.
    fn cut(&mut self, at: u64) {
        if let Some(v) = self.find_mut(at)
            && v.start < at
        {
            let high = v.split(at);
            self.areas.insert(at, high);
        }
    }

    /// Takes `[from, to)` out; what was there.
    fn take(&mut self, from: u64, to: u64) -> Vec<Vma> {
        self.cut(from);
        self.cut(to);
        self.touching(from, to).into_iter().filter_map(|s| self.areas.remove(&s)).collect()
    }

    /// Takes `[from, to)` out for good; what was there is kept until thread `tid` has taken it out of the host as well.
    fn remove(&mut self, tid: i32, from: u64, to: u64) -> Vec<Vma> {
        let taken = self.take(from, to);
        self.kept.removed(tid, &taken);
        taken
    }

    /// Puts an area in and joins it with its neighbours where it can.
    fn put(&mut self, mut vma: Vma) {
        if let Some((s, before)) = self.areas.range(..vma.start).next_back()
            && before.joins(&vma)
        {
            let s = *s;
            if let Some(mut b) = self.areas.remove(&s) {
                b.join(vma);
                vma = b;
            }
        }
        if let Some(after) = self.areas.get(&vma.end)
            && vma.joins(after)
            && let Some(after) = self.areas.remove(&vma.end)
        {
            vma.join(after);
        }
        self.areas.insert(vma.start, vma);
    }

    fn free(&self, from: u64, to: u64) -> bool {
        self.touching(from, to).is_empty() && !self.unmapping.iter().any(|(_, a, b)| *a < to && from < *b)
    }

    /// A free range, as high as possible below `top`.
    fn place(&mut self, len: u64, top: u64) -> Option<u64> {
        let top = top.min(GUEST_TOP);
        if self.hint != 0 && self.hint <= top && top == self.mmap_base {
            let at = self.place_from(len, self.hint);
            if at.is_some() {
                return at;
            }
        }
        self.place_from(len, top)
    }

    fn place_from(&mut self, len: u64, top: u64) -> Option<u64> {
        let mut end = top;
        loop {
            let start = end.checked_sub(len).filter(|s| *s >= GUEST_BOTTOM)?;
            let area = self.areas.range(..end).next_back().map(|(_, v)| v).filter(|v| v.end > start);
            let below = area.map(|v| if v.grows_down { v.start.saturating_sub(STACK_GAP) } else { v.start });
            let held = self.unmapping.iter().filter(|(_, a, b)| *a < end && start < *b).map(|(_, a, _)| *a).min();
            match (below, held) {
                (None, None) => {
                    self.hint = start;
                    return Some(start);
                }
                (Some(b), None) => end = b,
                (None, Some(h)) => end = h,
                (Some(b), Some(h)) => end = b.min(h),
            }
        }
    }

    fn total(&self) -> u64 {
        self.areas.values().map(Vma::len).sum()
    }
}

impl AddressSpace {
    /// An empty one, with mappings placed downwards from `mmap_base` and the break at `brk`.
    pub fn new(mmap_base: u64, brk: u64) -> Arc<Self> {
        let inner = Inner { mmap_base, brk_start: brk, brk, ..Inner::default() };
        Arc::new(Self { inner: Mutex::new(inner), shrunk: Mutex::default(), sites: Sites::default() })
    }

    /// Sets the break of a program just loaded.
    pub fn set_break(&self, at: u64) {
        let mut inner = self.inner.lock();
        inner.brk_start = at;
        inner.brk = at;
    }

    /// Sets what `/proc` shows.
    pub fn set_layout(&self, layout: Layout) {
        let mut inner = self.inner.lock();
        inner.args = layout.args;
        inner.env = layout.env;
        inner.start_stack = layout.start_stack;
        inner.code = layout.code;
        inner.data = layout.data;
        inner.auxv = layout.auxv;
    }

    /// Where the break is.
    pub fn current_break(&self) -> u64 {
        self.inner.lock().brk
    }

    /// What `/proc` shows.
    pub fn layout(&self) -> Layout {
        let i = self.inner.lock();
        Layout {
            args: i.args,
            env: i.env,
            start_stack: i.start_stack,
            code: i.code,
            data: i.data,
            brk: (i.brk_start, i.brk),
            auxv: i.auxv.clone(),
        }
    }

    /// All areas, ascending.
    pub fn areas(&self) -> Vec<Vma> {
        self.inner.lock().areas.values().cloned().collect()
    }

    /// Bytes of all areas.
    pub fn total(&self) -> u64 {
        self.inner.lock().total()
    }

    /// A copy for a process that thread `tid` forks; the host copies the memory itself, later.
    pub fn fork(&self, tid: i32) -> Arc<Self> {
        let mut i = self.inner.lock();
        let kept = i.kept.fork(tid);
        let areas = i.areas.iter().filter(|(_, v)| !v.dont_fork).map(|(s, v)| (*s, v.clone())).collect();
        Arc::new(Self {
            inner: Mutex::new(Inner {
                areas,
                mmap_base: i.mmap_base,
                brk_start: i.brk_start,
                brk: i.brk,
                unmapping: Vec::new(),
                kept,
                hint: 0,
                args: i.args,
                env: i.env,
                start_stack: i.start_stack,
                code: i.code,
                data: i.data,
                auxv: i.auxv.clone(),
            }),
            shrunk: Mutex::new(self.shrunk.lock().clone()),
            sites: self.sites.fork(),
        })
    }

    /// Thread `tid` made its next call: what it was let unmap is unmapped.
    fn settled(inner: &mut Inner, tid: i32) {
        inner.unmapping.retain(|(t, _, _)| *t != tid);
        drop(inner.kept.settle(tid));
    }

    /// Thread `tid` has stopped, and has no orders: what it was to do to the host's mappings is done.
    pub fn settle(&self, tid: i32) {
        let gone = {
            let mut inner = self.inner.lock();
            if !inner.kept.owes() && inner.unmapping.is_empty() {
                return;
            }
            inner.unmapping.retain(|(t, _, _)| *t != tid);
            inner.kept.settle(tid)
        };
        // Without the lock: the last reference may give pages back.
        drop(gone);
    }

    /// `mmap(2)`: the address, and orders. `limit`: RLIMIT_AS in bytes.
    pub fn map(&self, tid: i32, r: MapRequest, limit: u64) -> Result<(u64, Vec<Order>), Errno> {
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
        if inner.total().saturating_add(len) > limit || inner.areas.len() >= MAX_AREAS {
            return Err(Errno::ENOMEM);
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
            let old = inner.remove(tid, r.address, end);
            // What is mapped now replaces what was there, but where pages of an object are not mapped yet nothing would.
            let whole = r.object.is_none();
            if !whole && old.iter().any(|v| !v.mapped_parts(r.address, end).is_empty()) {
                orders.push(Order::Unmap { address: r.address, len });
            }
            r.address
        } else {
            let hint = page_down(r.address);
            let fits =
                hint >= GUEST_BOTTOM && hint.checked_add(len).is_some_and(|e| e <= GUEST_TOP && inner.free(hint, e));
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
        vma.name = r.name;
        match r.object {
            None => orders.push(Order::Map {
                address,
                len,
                prot: r.prot,
                pages: Pages::Anonymous,
                populate: r.populate && r.prot & WRITE != 0,
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
        let taken = inner.remove(tid, address, end);
        if !taken.is_empty() {
            inner.unmapping.push((tid, address, end));
            if end > inner.hint {
                inner.hint = 0;
            }
        }
        Ok(())
    }

    /// Checks a page-aligned range within what a container may map; its end.
    fn range(address: u64, len: u64) -> Result<u64, Errno> {
        if !address.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        let end = page_up(len).and_then(|l| address.checked_add(l)).filter(|e| *e <= GUEST_TOP);
        end.ok_or(Errno::EINVAL)
    }

    /// `mprotect(2)`. `None`: let it pass through as it was made; else these orders do it.
    pub fn protect(&self, tid: i32, address: u64, len: u64, prot: i32) -> Result<Option<Vec<Order>>, Errno> {
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

    /// `brk(2)`: the break as it is then, and orders. `limit`: RLIMIT_DATA in bytes.
    pub fn brk(&self, tid: i32, wanted: u64, limit: u64) -> (u64, Vec<Order>) {
        let mut inner = self.inner.lock();
        Self::settled(&mut inner, tid);
        let start = inner.brk_start;
        if wanted < start || wanted > GUEST_TOP || wanted - start > limit {
            return (inner.brk, Vec::new());
        }
        let (Some(old), Some(new)) = (page_up(inner.brk), page_up(wanted)) else { return (inner.brk, Vec::new()) };
        let mut orders = Vec::new();
        if new > old {
            if !inner.free(old, new) {
                return (inner.brk, Vec::new());
            }
            let mut vma = Vma::anonymous(old, new, READ | WRITE);
            vma.name = "[heap]";
            inner.put(vma);
            orders.push(Order::Map {
                address: old,
                len: new - old,
                prot: READ | WRITE,
                pages: Pages::Anonymous,
                populate: false,
            });
        } else if new < old {
            inner.remove(tid, new, old);
            orders.push(Order::Unmap { address: new, len: old - new });
        }
        inner.brk = wanted;
        (wanted, orders)
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

    /// `madvise(2)` on a range: whether the host should carry it out as it was made.
    pub fn advise(&self, tid: i32, address: u64, len: u64, advice: i32) -> Result<bool, Errno> {
        let end = Self::range(address, len)?;
        let mut inner = self.inner.lock();
        Self::settled(&mut inner, tid);
        let mut at = address;
        let starts = inner.touching(address, end);
        let mut hole = false;
        for s in &starts {
            if let Some(v) = inner.areas.get(s) {
                hole |= v.start > at;
                at = v.end;
            }
        }
        hole |= at < end;
        let anonymous =
            starts.iter().filter_map(|s| inner.areas.get(s)).all(|v| matches!(v.backing, Backing::Anonymous));
        let pass = match advice {
            // DONTNEED: on objects the host drops private copies too.
            4 => true,
            // FREE, HUGEPAGE, NOHUGEPAGE, COLD, PAGEOUT, POPULATE_READ, POPULATE_WRITE
            8 if !anonymous => return Err(Errno::EINVAL),
            8 | 14 | 15 | 20 | 21 => anonymous,
            22 | 23 => {
                if !anonymous {
                    return Ok(false);
                }
                true
            }
            10 | 11 | 18 | 19 => {
                if matches!(advice, 18 | 19) && !anonymous {
                    return Err(Errno::EINVAL);
                }
                if hole {
                    return Err(Errno::ENOMEM);
                }
                for mut v in inner.take(address, end) {
                    match advice {
                        10 => v.dont_fork = true,
                        11 => v.dont_fork = false,
                        18 => v.wipe_on_fork = true,
                        _ => v.wipe_on_fork = false,
                    }
                    inner.put(v);
                }
                true
            }
            // NORMAL, RANDOM, SEQUENTIAL, WILLNEED, MERGEABLE, UNMERGEABLE, DONTDUMP, DODUMP: nothing to do.
            0..=3 | 12 | 13 | 16 | 17 => false,
            _ => return Err(Errno::EINVAL),
        };
        if hole {
            return Err(Errno::ENOMEM);
        }
        Ok(pass && address < end)
    }

    /// Whether all of a range is mapped (`mlock`, `mincore`, `msync`).
    pub fn covered(&self, address: u64, len: u64) -> Result<(), Errno> {
        let end =
            Self::range(address, len).map_err(|e| if address.is_multiple_of(PAGE) { Errno::ENOMEM } else { e })?;
        let inner = self.inner.lock();
        let mut at = address;
        while at < end {
            at = inner.find(at).ok_or(Errno::ENOMEM)?.end;
        }
        Ok(())
    }

    /// Objects with shared mappings in a range, with the range in each.
    pub fn shared_objects(&self, address: u64, len: u64) -> Vec<(Object, u64, u64)> {
        let inner = self.inner.lock();
        let end = address.saturating_add(len);
        let areas = inner.touching(address, end).into_iter().filter_map(|s| inner.areas.get(&s));
        areas
            .filter(|v| v.shared)
            .filter_map(|v| match &v.backing {
                Backing::Object { object, .. } => {
                    let (a, b) = (v.start.max(address), v.end.min(end));
                    Some((object.clone(), v.offset_of(a)?, b - a))
                }
                Backing::Anonymous => None,
            })
            .collect()
    }

    /// What shared memory lies at an address: identity of the object and offset in it (futexes).
    pub fn shared_at(&self, address: u64) -> Option<((u64, u64), u64)> {
        let inner = self.inner.lock();
        let v = inner.find(address)?;
        match &v.backing {
            Backing::Object { object, .. } if v.shared => Some((object.identity(), v.offset_of(address)?)),
            _ => None,
        }
    }

    /// A page of an object that the host has not mapped there: object, offset of the address in it, bytes to the end of
    /// the page. For copies by the Sentry that find nothing mapped.
    pub fn object_at(&self, address: u64, write: bool) -> Option<(Object, u64, bool)> {
        let inner = self.inner.lock();
        let v = inner.find(address)?;
        if !v.allows(write, false) {
            return None;
        }
        match &v.backing {
            Backing::Object { object, .. } => Some((object.clone(), v.offset_of(address)?, v.shared)),
            Backing::Anonymous => None,
        }
    }

    /// A page fault at `address`, with the processor's error code.
    pub fn fault(&self, tid: i32, address: u64, error: u64) -> Fault {
        let (present, write, exec) = (error & 1 != 0, error & 2 != 0, error & 16 != 0);
        let (object, offset, len, shared) = {
            let mut inner = self.inner.lock();
            let Some(v) = inner.find(address).cloned() else { return Self::grow(&mut inner, address) };
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
                    if offset >= page_up(object.size()).unwrap_or(u64::MAX) {
                        return Fault::Bus;
                    }
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

    /// A touch below a stack makes it grow.
    fn grow(inner: &mut Inner, address: u64) -> Fault {
        let Some((start, v)) = inner.areas.range(address..).next() else { return Fault::Segv(1) };
        let (start, room) = (*start, v.grows_down);
        if !room || start - address > (8 << 20) {
            return Fault::Segv(1);
        }
        let from = page_down(address).saturating_sub(128 << 10).max(GUEST_BOTTOM);
        let below = inner.areas.range(..start).next_back().map_or(0, |(_, v)| v.end);
        let from = from.max(below.saturating_add(STACK_GAP));
        if from > address {
            return Fault::Segv(1);
        }
        let Some(mut v) = inner.areas.remove(&start) else { return Fault::Segv(1) };
        v.start = from;
        let order =
            Order::Map { address: from, len: start - from, prot: v.prot, pages: Pages::Anonymous, populate: false };
        inner.areas.insert(from, v);
        Fault::Orders(vec![order])
    }
}

/// The first address of an area that shows nothing of a file of `size` bytes; `None` for an area of something else.
fn beyond(v: &Vma, identity: (u64, u64), size: u64) -> Option<u64> {
    let Backing::Object { object, offset, .. } = &v.backing else { return None };
    let shown = page_up(size)?.saturating_sub(*offset);
    (object.identity() == identity).then(|| v.start.saturating_add(shown).min(v.end))
}

/// Whether a protection is one that can be.
pub fn valid_prot(prot: i32) -> bool {
    // PROT_SEM and the grows flags are accepted by mprotect only.
    prot & !(READ | WRITE | EXEC | 8) == 0
}

#[cfg(test)]
mod tests {
    use super::super::shared::SharedMemory;
    use super::*;

    fn request(address: u64, len: u64, fixed: bool) -> MapRequest {
        MapRequest {
            address,
            len,
            prot: READ | WRITE,
            max_prot: 7,
            shared: false,
            fixed,
            no_replace: false,
            grows_down: false,
            populate: false,
            low: false,
            object: None,
            name: "",
        }
    }

    #[test]
    fn neighbours_join_and_holes_split() {
        let s = AddressSpace::new(0x7000_0000_0000, 0x5000_0000);
        let (a, _) = s.map(1, request(0, 0x3000, false), u64::MAX).unwrap();
        let (b, _) = s.map(1, request(0, 0x1000, false), u64::MAX).unwrap();
        assert_eq!(b + 0x1000, a);
        assert_eq!(s.areas().len(), 1);
        s.unmap(1, a + 0x1000, 0x1000).unwrap();
        assert_eq!(
            s.areas().iter().map(|v| (v.start, v.end)).collect::<Vec<_>>(),
            [(b, a + 0x1000), (a + 0x2000, a + 0x3000)]
        );
    }

    #[test]
    fn what_a_thread_is_unmapping_is_not_given_to_another() {
        let s = AddressSpace::new(0x7000_0000_0000, 0x5000_0000);
        let (a, _) = s.map(1, request(0, 0x1000, false), u64::MAX).unwrap();
        s.unmap(1, a, 0x1000).unwrap();
        let (b, _) = s.map(2, request(0, 0x1000, false), u64::MAX).unwrap();
        assert_ne!(a, b);
        let (c, _) = s.map(1, request(0, 0x1000, false), u64::MAX).unwrap();
        assert_ne!(c, b);
    }

    /// An object that nobody needs to fill, and an area of it.
    fn shared(s: &AddressSpace, tid: i32) -> (std::sync::Weak<SharedMemory>, u64) {
        let window = cofferdam_shm::Window::create("t", 1 << 20).unwrap();
        let memory = SharedMemory::new(&Arc::new(super::super::store::Store::new(window)), 0x1000).unwrap();
        let weak = Arc::downgrade(&memory);
        let mut r = request(0, 0x1000, false);
        let object: Object = memory;
        (r.shared, r.object) = (true, Some((object, 0)));
        let at = s.map(tid, r, u64::MAX).unwrap().0;
        (weak, at)
    }

    #[test]
    fn an_object_is_kept_until_the_host_has_unmapped_it() {
        let s = AddressSpace::new(0x7000_0000_0000, 0x5000_0000);
        let (object, at) = shared(&s, 1);
        s.settle(1);
        s.unmap(1, at, 0x1000).unwrap();
        s.settle(2);
        assert!(object.upgrade().is_some(), "its thread has not stopped since");
        s.settle(1);
        assert!(object.upgrade().is_none());
        // Replaced: until the order for that was carried out.
        let (object, at) = shared(&s, 1);
        s.settle(1);
        s.map(1, request(at, 0x1000, true), u64::MAX).unwrap();
        assert!(object.upgrade().is_some());
        s.settle(1);
        assert!(object.upgrade().is_none());
        // Removed by another while the order to map it is not carried out: nobody knows when it will be.
        let (object, at) = shared(&s, 1);
        s.unmap(2, at, 0x1000).unwrap();
        s.settle(1);
        s.settle(2);
        assert!(object.upgrade().is_some());
        drop(s);
        assert!(object.upgrade().is_none());
    }

    #[test]
    fn a_forked_copy_keeps_what_the_host_may_have_copied() {
        let s = AddressSpace::new(0x7000_0000_0000, 0x5000_0000);
        let (before, at) = shared(&s, 1);
        s.settle(1);
        s.unmap(1, at, 0x1000).unwrap();
        let child = s.fork(2);
        let (meanwhile, at) = shared(&s, 1);
        s.unmap(1, at, 0x1000).unwrap();
        s.settle(1);
        s.settle(2);
        assert!(before.upgrade().is_some() && meanwhile.upgrade().is_some());
        let (after, at) = shared(&s, 1);
        s.settle(1);
        s.unmap(1, at, 0x1000).unwrap();
        s.settle(1);
        assert!(after.upgrade().is_none(), "the copy was made before");
        drop((s, child));
        assert!(before.upgrade().is_none() && meanwhile.upgrade().is_none());
    }

    #[test]
    fn break_moves_and_stops_at_a_mapping() {
        let s = AddressSpace::new(0x7000_0000_0000, 0x5000_0000);
        assert_eq!(s.brk(1, 0, u64::MAX).0, 0x5000_0000);
        assert_eq!(s.brk(1, 0x5000_1001, u64::MAX).0, 0x5000_1001);
        s.map(1, request(0x5000_4000, 0x1000, true), u64::MAX).unwrap();
        assert_eq!(s.brk(1, 0x5000_5000, u64::MAX).0, 0x5000_1001);
        assert_eq!(s.brk(1, 0x5000_0000, u64::MAX).0, 0x5000_0000);
        assert_eq!(s.areas().len(), 1);
    }

    #[test]
    fn protect_of_a_hole_is_enomem_and_moves_keep_length() {
        let s = AddressSpace::new(0x7000_0000_0000, 0x5000_0000);
        let (a, _) = s.map(1, request(0, 0x3000, false), u64::MAX).unwrap();
        assert!(s.protect(1, a, 0x1000, READ).unwrap().is_none());
        assert_eq!(s.areas().len(), 2);
        s.unmap(1, a + 0x1000, 0x1000).unwrap();
        assert_eq!(s.protect(1, a, 0x3000, READ).err(), Some(Errno::ENOMEM));
        let (b, orders) = s.remap(1, a, 0x1000, 0x10000, true, None, false).unwrap();
        assert_ne!(a, b);
        assert_eq!(orders.len(), 1);
        assert_eq!(s.areas().iter().map(Vma::len).sum::<u64>(), 0x11000);
    }

    #[test]
    fn a_range_outside_what_may_be_mapped_is_refused() {
        let s = AddressSpace::new(0x7000_0000_0000, 0x5000_0000);
        assert_eq!(s.map(1, request(GUEST_TOP, 0x1000, true), u64::MAX).err(), Some(Errno::ENOMEM));
        assert_eq!(s.map(1, request(0, 0x1000, true), u64::MAX).err(), Some(Errno::EPERM));
        assert_eq!(s.unmap(1, GUEST_TOP - 0x1000, 0x2000), Err(Errno::EINVAL));
        assert_eq!(s.unmap(1, !0xfff, u64::MAX), Err(Errno::EINVAL));
    }
}
