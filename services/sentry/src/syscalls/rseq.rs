//! Restartable sequences, `rseq(2)`.
//!
//! They belong to the kernel that preempts, which is the host's: a thread's area is registered with the host, by the thread itself. So
//! the host says what is wrong with a registration, writes the processor's number there, and aborts sequences; what ends a process on
//! Linux (an area that is unmapped while it is registered) makes the host end the stub by the same signal. That the host writes there
//! whenever the thread was preempted, in the stub's own code too, does no harm as long as only the container itself can make the memory
//! go away: so it must be private memory that the host has mapped. A thread that is told to end gives the area up first, wherever
//! it has a way to go in which others may already have unmapped it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cofferdam_platform::Order;

use super::{Entry, Outcome, SysResult, UserPtr};
use crate::entry;
use crate::errno::Errno;
use crate::memory::space::Fault;
use crate::task::{Special, Task, seccomp};

/// The calls.
pub const TABLE: &[Entry] = &[entry!(
    334,
    "rseq",
    Partial,
    "the area in private memory only (EFAULT); ENOSYS where processors are numbered otherwise than on the host",
    rseq(UserPtr<u8>, u32, i32, u32)
)];

/// `RSEQ_FLAG_UNREGISTER`.
const UNREGISTER: i32 = 1;
/// No host has more to say than fits in a page.
const PAGE: u32 = 4096;
/// Bytes of the first `struct rseq`, and its alignment.
const FIRST: u32 = 32;

/// What a thread registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    address: u64,
    len: u32,
    signature: u32,
}

fn rseq(task: &Arc<Task>, area: UserPtr<u8>, len: u32, flags: i32, signature: u32) -> SysResult {
    let address = area.address();
    if flags & !UNREGISTER != 0 {
        return Err(Errno::EINVAL);
    }
    let (features, _) = cofferdam_platform::rseq_features().ok_or(Errno::ENOSYS)?;
    let new = Registered { address, len, signature };
    let known = task.state.lock().rseq;
    if flags == UNREGISTER && known == Some(new) {
        task.state.lock().rseq = None;
    }
    if flags == 0 && known.is_none() {
        // What the host says first.
        if len < FIRST || !address.is_multiple_of(u64::from(FIRST)) || (len != FIRST && u64::from(len) < features) {
            return Err(Errno::EINVAL);
        }
        let missing = reachable(task, address, len)?;
        task.state.lock().rseq = Some(new);
        if !missing.is_empty() {
            let order = Order::Rseq { address, len, flags, signature };
            let orders = missing.into_iter().chain([order]).collect();
            return Ok(Outcome::Special(Special::Orders { orders, result: 0, undo: None }));
        }
    }
    Ok(Outcome::Special(Special::PassThrough))
}

/// Orders that have an area's memory mapped where it is not yet. EFAULT for what cannot be used.
fn reachable(task: &Arc<Task>, address: u64, len: u32) -> Result<Vec<Order>, Errno> {
    let mm = task.mm();
    let end = address.checked_add(u64::from(len.min(PAGE))).ok_or(Errno::EFAULT)?;
    let mut orders = Vec::new();
    for page in mm.private_missing(address, end).ok_or(Errno::EFAULT)? {
        match mm.fault(task.tid(), page, 2) {
            Fault::Orders(more) => orders.extend(more),
            Fault::Retry => {}
            _ => return Err(Errno::EFAULT),
        }
    }
    Ok(orders)
}

/// Whether a copy of a task's process could live with its area: one that lacks it, the host would end before it said a word.
pub fn outlives_fork(task: &Task) -> bool {
    let area = task.state.lock().rseq;
    area.is_none_or(|r| {
        let end = r.address.saturating_add(u64::from(r.len.min(PAGE)));
        task.mm().private_missing(r.address, end).is_some() && !task.mm().forgets(r.address, end)
    })
}

/// What a thread's host must forget before the thread ends, where that takes it through memory that others may unmap meanwhile.
pub(super) fn before_exit(task: &Arc<Task>) -> Option<Order> {
    let at_once = task.kernel().platform.get().is_some_and(|p| p.ends_in_call());
    if task.exited.load(Ordering::SeqCst)
        || (at_once && !task.is_traced() && task.seccomp.mode() == seccomp::Mode::Disabled)
    {
        return None;
    }
    let Registered { address, len, signature } = task.state.lock().rseq.take()?;
    Some(Order::Rseq { address, len, flags: UNREGISTER, signature })
}
