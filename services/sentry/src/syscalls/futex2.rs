//! `futex_waitv(2)`, and the calls that took the old one's commands apart: `futex_wait`, `futex_wake`, `futex_requeue`.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::futex::{Again, wait};
use super::time::moment;
use super::{Entry, Outcome, SysResult, UserPtr, value};
use crate::entry;
use crate::errno::Errno;
use crate::ipc::futex::{Key, Place, key};
use crate::task::Task;
use crate::time::{Clock, Deadline, clock};
use crate::wait::{Cause, Wait};

/// The calls.
pub const TABLE: &[Entry] = &[
    entry!(449, "futex_waitv", Full, "", futex_waitv(UserPtr<WaitV>, u32, u32, u64, i32)),
    entry!(454, "futex_wake", Full, "", futex_wake(u64, u64, i32, u32)),
    entry!(455, "futex_wait", Full, "", futex_wait(u64, u64, u64, u32, u64, i32)),
    entry!(456, "futex_requeue", Full, "", futex_requeue(UserPtr<WaitV>, u32, i32, i32)),
];

/// `FUTEX_WAITV_MAX`.
const MOST: u32 = 128;
/// `FUTEX2_SIZE_U32`: the only size there is.
const SIZE_U32: u32 = 2;
/// `FUTEX2_PRIVATE`.
const PRIVATE: u32 = 128;

/// `struct futex_waitv`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct WaitV {
    expected: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

/// Whether the flags say a private futex; EINVAL for any that are not known.
fn private(flags: u32) -> Result<bool, Errno> {
    if flags & !PRIVATE == SIZE_U32 { Ok(flags & PRIVATE != 0) } else { Err(Errno::EINVAL) }
}

impl WaitV {
    fn check(&self) -> Result<bool, Errno> {
        let private = private(self.flags)?;
        if self.reserved != 0 { Err(Errno::EINVAL) } else { Ok(private) }
    }

    fn value(&self) -> Result<u32, Errno> {
        u32::try_from(self.expected).map_err(|_| Errno::EINVAL)
    }
}

/// A timeout of these calls: a moment of one of two clocks.
fn until(task: &Arc<Task>, timeout: u64, id: i32) -> Result<Option<Deadline>, Errno> {
    if timeout == 0 {
        return Ok(None);
    }
    let of = match id {
        clock::REALTIME => Clock::Realtime,
        clock::MONOTONIC => Clock::Monotonic,
        _ => return Err(Errno::EINVAL),
    };
    moment(task, UserPtr::new(timeout), of)
}

fn futex_waitv(task: &Arc<Task>, list: UserPtr<WaitV>, count: u32, flags: u32, timeout: u64, clock: i32) -> SysResult {
    if flags != 0 || count == 0 || count > MOST || list.is_null() {
        return Err(Errno::EINVAL);
    }
    let deadline = until(task, timeout, clock)?;
    let list = list.read_array(task, count as usize, MOST as usize)?;
    let mut wanted = Vec::with_capacity(list.len());
    for w in &list {
        let (private, expected) = (w.check()?, w.value()?);
        wanted.push((w.address, key(task, w.address, private)?, expected));
    }
    let mut places: Vec<Place> = Vec::with_capacity(wanted.len());
    for (address, key, expected) in wanted {
        match task.kernel().futexes.enqueue(task, address, key, expected, u32::MAX) {
            Ok(place) => places.push(place),
            // One that was woken while the others were looked at counts.
            Err(e) => return woken(&places).map_or(Err(e), value),
        }
    }
    let wait = Wait::new(move |_, cause| {
        let failure = match (woken(&places), cause) {
            (Some(index), _) => return Some(Ok(index as i64)),
            (None, Cause::Woken) => return None,
            (None, Cause::TimedOut) => Errno::ETIMEDOUT,
            (None, Cause::Interrupted) => Errno::ERESTARTSYS,
        };
        let left = places.iter().filter(|p| !p.leave()).count();
        Some(if left == 0 { Err(failure) } else { woken(&places).map_or(Err(failure), |i| Ok(i as i64)) })
    });
    Ok(Outcome::Block(wait.until(deadline)))
}

/// The last of those that were woken.
fn woken(places: &[Place]) -> Option<usize> {
    places.iter().rposition(|p| p.woken())
}

fn futex_wake(task: &Arc<Task>, address: u64, mask: u64, count: i32, flags: u32) -> SysResult {
    let private = private(flags)?;
    let bits = u32::try_from(mask).ok().filter(|m| *m != 0).ok_or(Errno::EINVAL)?;
    let k = key(task, address, private)?;
    // Unlike the old call, this one takes 0 for none.
    let count = usize::try_from(count).unwrap_or(1);
    value(if count == 0 { 0 } else { task.kernel().futexes.wake(k, count, bits) })
}

fn futex_wait(
    task: &Arc<Task>,
    address: u64,
    expected: u64,
    mask: u64,
    flags: u32,
    timeout: u64,
    clock: i32,
) -> SysResult {
    let private = private(flags)?;
    let narrow = |v: u64| u32::try_from(v).map_err(|_| Errno::EINVAL);
    let (expected, bits) = (narrow(expected)?, narrow(mask)?);
    let deadline = until(task, timeout, clock)?;
    if bits == 0 {
        return Err(Errno::EINVAL);
    }
    let key = key(task, address, private)?;
    let place = task.kernel().futexes.enqueue(task, address, key, expected, bits)?;
    Ok(Outcome::Block(wait(Some(place), Again { address, key, expected, bits }, deadline)))
}

fn futex_requeue(task: &Arc<Task>, list: UserPtr<WaitV>, flags: u32, wake: i32, requeue: i32) -> SysResult {
    if flags != 0 || list.is_null() {
        return Err(Errno::EINVAL);
    }
    let both = list.read_array(task, 2, 2)?;
    let mut keys: Vec<(Key, u64, u32)> = Vec::with_capacity(2);
    for w in &both {
        let (private, expected) = (w.check()?, w.value()?);
        keys.push((key(task, w.address, private)?, w.address, expected));
    }
    let (Ok(wake), Ok(requeue)) = (usize::try_from(wake), usize::try_from(requeue)) else { return Err(Errno::EINVAL) };
    let [(from, address, expected), (to, ..)] = keys.as_slice() else { return Err(Errno::EINVAL) };
    let (woken, moved) = task.kernel().futexes.requeue(task, *address, *from, *to, wake, requeue, Some(*expected))?;
    value(woken + moved)
}
