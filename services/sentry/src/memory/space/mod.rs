//! Address spaces: the areas of a process, and what the host must be ordered to do to match them.
//!
//! The host kernel does the paging: private memory is private memory of the stub, forked copy-on-write by the host's own
//! fork; objects are mapped from the host windows. The tree of areas here is the truth of what the container may touch;
//! every method that changes it returns the [`Order`]s that bring the stub in line, which the caller has carried out in
//! the very thread that asked. Never here: registers, signals, files.

mod advise;
mod areas;
mod fault;
mod lock;
mod map;
mod policy;
mod remap;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use cofferdam_platform::{GUEST_BOTTOM, GUEST_TOP, Order, Pages};

pub use areas::{Bounds, Sums};

use areas::Areas;

use super::kept::Kept;
use super::object::{Extent, HostWindow, Object};
use super::sites::Sites;
use super::store::{PAGE, page_up};
use super::vma::{self, Backing, EXEC, READ, Vma, WRITE};
use crate::errno::Errno;
use crate::ipc::aio::Contexts;
use crate::sync::Mutex;

/// Bytes kept free below a stack (`stack_guard_gap`).
pub const STACK_GAP: u64 = 1 << 20;

/// What to map.
#[derive(Default)]
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
    /// `MAP_LOCKED`.
    pub locked: bool,
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
    /// Nothing is mapped there: see [`AddressSpace::grow`].
    NoArea,
    /// SIGSEGV with `SEGV_MAPERR` (1) or `SEGV_ACCERR` (2).
    Segv(i32),
    /// SIGBUS with `BUS_ADRERR`.
    Bus,
}

#[derive(Default)]
struct Inner {
    areas: Areas,
    /// Areas that are made are locked (`MCL_FUTURE`).
    lock_future: bool,
    /// An area was sealed.
    any_sealed: bool,
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
    /// Contexts of asynchronous I/O.
    pub aio: Contexts,
}

/// What is left of a mapping: the identity of its object, and start and length of each area.
pub type Parts = ((u64, u64), Vec<(u64, u64)>);

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
        if let Some(start) = self.find(at).map(|v| v.start).filter(|start| *start < at)
            && let Some(mut v) = self.areas.remove(start)
        {
            let high = v.split(at);
            self.areas.insert(v);
            self.areas.insert(high);
        }
    }

    /// Takes `[from, to)` out; what was there.
    fn take(&mut self, from: u64, to: u64) -> Vec<Vma> {
        self.cut(from);
        self.cut(to);
        self.touching(from, to).into_iter().filter_map(|s| self.areas.remove(s)).collect()
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
            if let Some(mut b) = self.areas.remove(s) {
                b.join(vma);
                vma = b;
            }
        }
        if let Some(after) = self.areas.get(&vma.end)
            && vma.joins(after)
            && let Some(after) = self.areas.remove(vma.end)
        {
            vma.join(after);
        }
        self.areas.insert(vma);
    }

    /// Bytes of `[from, to)` in areas of a kind.
    fn within(&self, from: u64, to: u64, kind: impl Fn(&Vma) -> bool) -> u64 {
        let areas = self.touching(from, to).into_iter().filter_map(|s| self.areas.get(&s));
        areas.filter(|v| kind(v)).map(|v| v.end.min(to) - v.start.max(from)).sum()
    }

    fn free(&self, from: u64, to: u64) -> bool {
        self.touching(from, to).is_empty() && !self.unmapping.iter().any(|(_, a, b)| *a < to && from < *b)
    }

    /// Whether a stack above `end` keeps its distance.
    fn clear_of_stack(&self, end: u64) -> bool {
        self.areas.range(end..).next().is_none_or(|(_, v)| !v.grows_down || v.start - end >= STACK_GAP)
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
}

impl AddressSpace {
    /// An empty one, with mappings placed downwards from `mmap_base` and the break at `brk`.
    pub fn new(mmap_base: u64, brk: u64) -> Arc<Self> {
        let inner = Inner { mmap_base, brk_start: brk, brk, ..Inner::default() };
        Arc::new(Self {
            inner: Mutex::new(inner),
            shrunk: Mutex::default(),
            sites: Sites::default(),
            aio: Contexts::default(),
        })
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

    /// Bytes that limits count.
    pub fn sums(&self) -> Sums {
        self.inner.lock().areas.sums()
    }

    /// The most bytes that all areas ever were.
    pub fn peak(&self) -> u64 {
        self.inner.lock().areas.peak()
    }

    /// A copy for a process that thread `tid` forks; the host copies the memory itself, later.
    pub fn fork(&self, tid: i32) -> Arc<Self> {
        let mut i = self.inner.lock();
        let kept = i.kept.fork(tid);
        // Locks are not inherited.
        let areas = i.areas.values().filter(|v| !v.dont_fork).map(|v| Vma { locked: false, ..v.clone() }).collect();
        Arc::new(Self {
            inner: Mutex::new(Inner {
                areas,
                lock_future: false,
                any_sealed: i.any_sealed,
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
            aio: Contexts::default(),
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

    /// Checks a page-aligned range within what a container may map; its end.
    fn range(address: u64, len: u64) -> Result<u64, Errno> {
        if !address.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        let end = page_up(len).and_then(|l| address.checked_add(l)).filter(|e| *e <= GUEST_TOP);
        end.ok_or(Errno::EINVAL)
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

    /// Identities of the objects of all areas, one an area.
    pub fn identities(&self) -> Vec<(u64, u64)> {
        let inner = self.inner.lock();
        let objects = inner.areas.values().filter_map(|v| match &v.backing {
            Backing::Object { object, .. } => Some(object.identity()),
            Backing::Anonymous => None,
        });
        objects.collect()
    }

    /// The areas of one object that was mapped as a whole at `at`, as far as they are still there; its identity. `wanted` says of an
    /// identity whether it may be the one.
    pub fn mapped_at(&self, at: u64, wanted: impl Fn((u64, u64)) -> bool) -> Option<Parts> {
        let inner = self.inner.lock();
        let mut found: Option<Parts> = None;
        for v in inner.areas.range(at..).map(|(_, v)| v) {
            let Backing::Object { object, offset, .. } = &v.backing else { continue };
            let identity = object.identity();
            if v.start.checked_sub(*offset) != Some(at) {
                continue;
            }
            match &mut found {
                None if wanted(identity) => found = Some((identity, vec![(v.start, v.len())])),
                Some((first, parts)) if *first == identity => parts.push((v.start, v.len())),
                _ => {}
            }
        }
        found
    }

    /// Writes what shared mappings may have changed back to their files: the address space is about to go.
    pub fn write_back(&self) {
        let shared: Vec<(Object, u64, u64)> = {
            let inner = self.inner.lock();
            let written = inner.areas.values().filter(|v| v.shared && v.prot & WRITE != 0);
            written
                .filter_map(|v| match &v.backing {
                    Backing::Object { object, offset, .. } => Some((object.clone(), *offset, v.len())),
                    Backing::Anonymous => None,
                })
                .collect()
        };
        for (object, offset, len) in shared {
            if let Err(e) = object.sync(offset, len) {
                let path = String::from_utf8_lossy(&object.path()).into_owned();
                tracing::warn!(path, error = %e, "what a mapping wrote did not reach the file");
            }
        }
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

    /// For a write that the process's own protection forbids: what must be ordered to have the page there, and its protection.
    /// `None` where there is none, or one that others share.
    pub fn forced(&self, tid: i32, address: u64) -> Option<(Vec<Order>, i32)> {
        let (prot, there) = {
            let inner = self.inner.lock();
            let v = inner.find(address).filter(|v| !v.shared)?;
            let page = vma::page_of(address);
            (v.prot, v.mapped_whole(page, page + PAGE))
        };
        if there {
            return Some((Vec::new(), prot));
        }
        match self.fault(tid, address, 4) {
            Fault::Orders(orders) => Some((orders, prot)),
            Fault::Retry => Some((Vec::new(), prot)),
            Fault::NoArea | Fault::Segv(_) | Fault::Bus => None,
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
}

/// Whether a protection is one that can be.
pub fn valid_prot(prot: i32) -> bool {
    // PROT_SEM and the grows flags are accepted by mprotect only.
    prot & !(READ | WRITE | EXEC | 8) == 0
}
