//! Orders: how they come into a stub's slot, as the host calls that the stub is to make.
//!
//! What is written there is remembered in the thread's state too, which alone counts: a call that is not the next of them is
//! refused. Never here: whose turn it is to make a clone, and what becomes of the child (`family`). Called by `notify`;
//! `ptrace` has the same calls made another way.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};

use super::family::{Family, Parent, SETPGID};
use super::short::Pace;
use super::{Process, Shared, State, Thread, lock};
use crate::frame::SlotFrame;
use crate::layout::*;
use crate::slots::{MmSlots, address};
use crate::{Frame, GUEST_BOTTOM, GUEST_TOP, GuestThread, Order, Pages, Registers, host};

impl Thread {
    /// Gives one call as the only order; false if it cannot be written. With `state` locked.
    pub(super) fn order_one(&self, shared: &Shared, state: &mut State, call: [u64; 7]) -> bool {
        let [number, a, b, c, d, e, f] = call;
        let written = shared.slots.put_order(self.slot, 0, &[number, a, b, c, d, e, f, 0]).is_ok();
        if written {
            state.orders = [call].into();
        }
        written
    }

    /// Writes orders to the slot and remembers them; how many there are. `None` if they cannot be given.
    pub(super) fn prepare(self: &Arc<Self>, shared: &Arc<Shared>, uc: u64, orders: Vec<Order>) -> Option<i64> {
        let mut calls: Vec<[u64; 8]> = Vec::with_capacity(orders.len() + 2);
        let mut child = None;
        let last = orders.len().saturating_sub(1);
        for (i, order) in orders.into_iter().enumerate() {
            if let Order::Clone { guest, thread, share_memory, registers, fs } = order {
                if i != last {
                    return None;
                }
                child =
                    Some(self.prepare_clone(shared, uc, &mut calls, guest, thread, share_memory, &registers, fs)?);
            } else {
                calls.push(raw(&order)?);
            }
        }
        if calls.is_empty() || calls.len() > MAX_ORDERS {
            return None;
        }
        for (i, words) in calls.iter().enumerate() {
            shared.slots.put_order(self.slot, i as u64, words).ok()?;
        }
        let mut state = lock(&self.state);
        state.orders = calls.iter().map(|w| [w[0], w[1], w[2], w[3], w[4], w[5], w[6]]).collect();
        state.child = child;
        Some(calls.len() as i64)
    }

    #[allow(clippy::too_many_arguments)]
    fn prepare_clone(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        uc: u64,
        calls: &mut Vec<[u64; 8]>,
        guest: Arc<dyn GuestThread>,
        thread: bool,
        share_memory: bool,
        registers: &Registers,
        fs: Option<u64>,
    ) -> Option<(Arc<Thread>, Option<u64>)> {
        let (mm, slot, group) = if share_memory || thread {
            let new = self.process.mm.take()?;
            if let Some(group) = new.map {
                let (at, len) = (address(group), GROUP * SLOT);
                calls.push([9, at, len, 3, 0x11, SLOTS_FD as u64, group, 0]);
                // MADV_DONTFORK
                calls.push([28, at, len, 10, 0, 0, 0, 0]);
            }
            (self.process.mm.clone(), new.slot, new.map)
        } else {
            let mm = MmSlots::new(&shared.slots)?;
            if let Some(group) = self.process.mm.hide() {
                // MADV_DONTFORK
                calls.push([28, address(group), GROUP * SLOT, 10, 0, 0, 0, 0]);
            }
            let slot = mm.first();
            (mm, slot, None)
        };
        let process = if thread {
            self.process.clone()
        } else {
            Arc::new(Process {
                id: AtomicI32::new(0),
                mm,
                doomed: AtomicBool::new(false),
                // A copy has the sites that the original has.
                patched: AtomicBool::new(self.process.patched.load(Ordering::Relaxed)),
                template: false,
                family: Family::default(),
            })
        };
        let maps = !(share_memory || thread);
        let word = u64::from(host::random()?) << 32 | 3;
        let child = Arc::new(Thread {
            shared: self.shared.clone(),
            slot,
            maps,
            word,
            tid: AtomicI32::new(0),
            process,
            guest: Mutex::new(Some(guest)),
            state: Mutex::default(),
            pace: Pace::default(),
            parent: Mutex::new((!thread).then(|| Parent { process: self.process.clone(), slot: self.slot })),
        });
        shared.slots.set_word(slot + SHORT, 0);
        let mut start = SlotFrame::start(&shared.slots.window, slot, registers);
        if let Some(parent) = SlotFrame::at(&shared.slots.window, self.slot, uc) {
            let state = parent.extended_state();
            start.set_extended_state((!state.is_empty()).then_some(state.as_slice()));
        }
        debug_assert_eq!(start.uc_address(), address(slot + START_CONTEXT));
        lock(&shared.expected).insert(slot, child.clone());
        shared.crew.runs();
        if !thread && !self.process.template {
            match self.process.family.ordered(&child) {
                Some(true) => calls.push([SETPGID, 0, 0, 0, 0, 0, 0, 0]),
                Some(false) => {}
                None => {
                    shared.abandon(&child);
                    return None;
                }
            }
        }
        const VM: u64 = 0x100;
        const THREAD: u64 = VM | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000;
        const PARENT: u64 = 0x8000;
        const SETTLS: u64 = 0x8_0000;
        let flags = match (thread, share_memory) {
            (true, _) => THREAD,
            (false, true) => VM | PARENT | 17,
            (false, false) => PARENT | 17,
        } | if fs.is_some() { SETTLS } else { 0 };
        let gs = if shared.watch.possible { MARK_GS } else { 0 };
        let group_of_its_own = if thread { 0 } else { MARK_GROUP };
        let mark = address(slot) | if maps { MARK_MAPS } else { 0 } | gs | group_of_its_own;
        calls.push([56, flags, 0, word, 0, fs.unwrap_or(0), 0, mark]);
        Some((child, group))
    }
}

/// The host call of an order, with a zero last word. `None` for one that would reach outside the container's memory.
pub(crate) fn raw(order: &Order) -> Option<[u64; 8]> {
    let within = |address: u64, len: u64| {
        (address >= GUEST_BOTTOM && address.checked_add(len)? <= GUEST_TOP && address.is_multiple_of(4096))
            .then_some(())
    };
    const FIXED: u64 = 0x10;
    const NORESERVE: u64 = 0x4000;
    const POPULATE: u64 = 0x8000;
    match *order {
        Order::Map { address, len, prot, pages, populate } => {
            within(address, len)?;
            let populate = if populate { POPULATE } else { 0 };
            let (kind, fd, offset) = match pages {
                Pages::Anonymous => (0x22, !0, 0),
                Pages::Window { window, offset, shared } => {
                    let fd = i32::try_from(window).ok().filter(|w| *w < WINDOWS)? + WINDOW_FD;
                    (if shared { 1 } else { 2 }, fd as u64, offset)
                }
            };
            Some([9, address, len, prot as u64, kind | FIXED | NORESERVE | populate, fd, offset, 0])
        }
        Order::Unmap { address, len } => {
            within(address, len)?;
            Some([11, address, len, 0, 0, 0, 0, 0])
        }
        Order::Protect { address, len, prot } => {
            within(address, len)?;
            Some([10, address, len, prot as u64, 0, 0, 0, 0])
        }
        Order::Remap { from, old_len, new_len, to, keep } => {
            within(from, old_len)?;
            within(to, new_len)?;
            let flags = if from == to { 0 } else { 3 } | if keep { 4 } else { 0 };
            Some([25, from, old_len, new_len, flags, if from == to { 0 } else { to }, 0, 0])
        }
        Order::Advise { address, len, advice } => {
            within(address, len)?;
            Some([28, address, len, advice as u64, 0, 0, 0, 0])
        }
        Order::Read { window, offset, address, len } => {
            let end = address.checked_add(len)?;
            let fd = i32::try_from(window).ok().filter(|w| *w < WINDOWS)? + WINDOW_FD;
            let fits = address >= GUEST_BOTTOM && end <= GUEST_TOP && i64::try_from(offset).is_ok();
            fits.then_some([17, fd as u64, address, len, offset, 0, 0, 0])
        }
        Order::SetWaiters { address } => {
            const WAKE_OP_PRIVATE: u64 = 5 | 128;
            // FUTEX_OP(FUTEX_OP_OR | FUTEX_OP_OPARG_SHIFT, 31, FUTEX_OP_CMP_EQ, 0). Nobody waits on a futex of the host's.
            const OR_BIT_31: u64 = (2 | 8) << 28 | 31 << 12;
            let fits = address >= GUEST_BOTTOM && address.checked_add(4)? <= GUEST_TOP;
            fits.then_some([202, address, WAKE_OP_PRIVATE, 0, 0, address, OR_BIT_31, 0])
        }
        Order::Barrier { command } => Some([324, command as u64, 0, 0, 0, 0, 0, 0]),
        Order::Rseq { address, len, flags, signature } => {
            let fits = address >= GUEST_BOTTOM && address.checked_add(u64::from(len))? <= GUEST_TOP;
            fits.then_some([334, address, u64::from(len), flags as u64, u64::from(signature), 0, 0, 0])
        }
        Order::SetFs(base) => Some([158, 0x1002, base, 0, 0, 0, 0, 0]),
        Order::SetGs(base) => Some([158, 0x1001, base, 0, 0, 0, 0, 0]),
        Order::Close(fd) => Some([3, fd as u64, 0, 0, 0, 0, 0, 0]),
        Order::Clone { .. } => None,
    }
}
