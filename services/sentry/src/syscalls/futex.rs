//! `futex(2)` and robust lists.

use std::sync::Arc;

use cofferdam_platform::Order;

use super::time::moment;
use super::{Entry, Outcome, SysResult, UserPtr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::ipc::futex::{Key, Place, key, word};
use crate::ipc::pi_futex::{self, Locks, Taken};
use crate::memory::space::Fault;
use crate::task::{Special, Task};
use crate::time::{Clock, Deadline};
use crate::wait::{Cause, Wait};

const WAIT: i32 = 0;
const WAKE: i32 = 1;
const REQUEUE: i32 = 3;
const CMP_REQUEUE: i32 = 4;
const WAKE_OP: i32 = 5;
const LOCK_PI: i32 = 6;
const UNLOCK_PI: i32 = 7;
const TRYLOCK_PI: i32 = 8;
const WAIT_BITSET: i32 = 9;
const WAKE_BITSET: i32 = 10;
const WAIT_REQUEUE_PI: i32 = 11;
const CMP_REQUEUE_PI: i32 = 12;
const LOCK_PI2: i32 = 13;
const PRIVATE: i32 = 128;
const CLOCK_REALTIME: i32 = 256;

fn futex(task: &Arc<Task>, address: u64, op: i32, value1: u32, timeout: u64, address2: u64, value3: u32) -> SysResult {
    let private = op & PRIVATE != 0;
    let realtime = op & CLOCK_REALTIME != 0;
    let command = op & !(PRIVATE | CLOCK_REALTIME);
    if realtime && !matches!(command, WAIT | WAIT_BITSET | WAIT_REQUEUE_PI | LOCK_PI2) {
        return Err(Errno::ENOSYS);
    }
    let futexes = &task.kernel().futexes;
    match command {
        WAIT | WAIT_BITSET => {
            let bits = if command == WAIT { u32::MAX } else { value3 };
            if bits == 0 {
                return Err(Errno::EINVAL);
            }
            let clock = if realtime { Clock::Realtime } else { Clock::Monotonic };
            let mut deadline = moment(task, UserPtr::new(timeout), clock)?;
            if command == WAIT {
                // A duration.
                deadline = deadline.map(|d| Deadline::after(d.at));
            }
            let k = key(task, address, private)?;
            let waiter = futexes.enqueue(task, address, k, value1, bits)?;
            let again = Again { address, key: k, expected: value1, bits };
            Ok(Outcome::Block(wait(Some(waiter), again, deadline)))
        }
        WAKE | WAKE_BITSET => {
            let bits = if command == WAKE { u32::MAX } else { value3 };
            if bits == 0 {
                return Err(Errno::EINVAL);
            }
            let k = key(task, address, private)?;
            futexes.check_plain(k)?;
            value(futexes.wake(k, (value1 as usize).max(1), bits))
        }
        REQUEUE | CMP_REQUEUE => {
            let (from, to) = (key(task, address, private)?, key(task, address2, private)?);
            if (value1 as i32) < 0 || (timeout as i32) < 0 {
                return Err(Errno::EINVAL);
            }
            futexes.check_plain(from)?;
            let check = (command == CMP_REQUEUE).then_some(value3);
            let limit = timeout as u32 as usize;
            let (woken, moved) = futexes.requeue(task, address, from, to, value1 as usize, limit, check)?;
            value(woken + moved)
        }
        WAKE_OP => wake_op(task, address, value1, timeout as u32, address2, value3, private),
        LOCK_PI | LOCK_PI2 => {
            let clock = if realtime || command == LOCK_PI { Clock::Realtime } else { Clock::Monotonic };
            let deadline = moment(task, UserPtr::new(timeout), clock)?;
            lock_pi(task, Pi { address, key: key(task, address, private)?, deadline, only_try: false })
        }
        TRYLOCK_PI => lock_pi(task, Pi { address, key: key(task, address, private)?, deadline: None, only_try: true }),
        UNLOCK_PI => {
            Locks::give_back(task, address, key(task, address, private)?)?;
            done()
        }
        WAIT_REQUEUE_PI => {
            if address == address2 {
                return Err(Errno::EINVAL);
            }
            let clock = if realtime { Clock::Realtime } else { Clock::Monotonic };
            let deadline = moment(task, UserPtr::new(timeout), clock)?;
            let lock = key(task, address2, private)?;
            let k = key(task, address, private)?;
            if k == lock {
                return Err(Errno::EINVAL);
            }
            let waiter = futexes.enqueue_for(task, address, k, value1, u32::MAX, Some((lock, address2)))?;
            Ok(Outcome::Block(wait_for_lock(waiter, deadline)))
        }
        CMP_REQUEUE_PI => {
            let limit = usize::try_from(timeout as i32).map_err(|_| Errno::EINVAL)?;
            if address == address2 || value1 != 1 {
                return Err(Errno::EINVAL);
            }
            let from = (address, key(task, address, private)?, value3);
            let to = (address2, key(task, address2, private)?);
            if from.1 == to.1 {
                return Err(Errno::EINVAL);
            }
            requeue_pi(task, from, to, limit)
        }
        // FD went away in Linux 2.6.26.
        _ => Err(Errno::ENOSYS),
    }
}

/// A lock that is wanted.
#[derive(Clone, Copy)]
struct Pi {
    address: u64,
    key: Key,
    deadline: Option<Deadline>,
    only_try: bool,
}

/// Orders that give a lock's word the waiters' bit.
fn mark_waiters(task: &Arc<Task>, address: u64) -> Vec<Order> {
    // A page of shared memory that its process has not touched is mapped first.
    let mut orders = match task.mm().object_at(address, true) {
        Some(_) => match task.mm().fault(task.tid(), address, 2) {
            Fault::Orders(orders) => orders,
            _ => Vec::new(),
        },
        None => Vec::new(),
    };
    orders.push(Order::SetWaiters { address });
    orders
}

/// Moves who waits at a word to the lock at another.
fn requeue_pi(task: &Arc<Task>, from: (u64, Key, u32), to: (u64, Key), limit: usize) -> SysResult {
    let (address, key, expected) = from;
    if word(task, address)? != expected {
        return Err(Errno::EAGAIN);
    }
    let owner = word(task, to.0)?;
    if !task.kernel().futexes.any(key) {
        return done();
    }
    Locks::check_owner(task, owner)?;
    let then = Box::new(move |task: &Arc<Task>, set: i64| {
        if set < 0 {
            return Err(Errno::EFAULT);
        }
        match task.kernel().futexes.requeue_pi(task, from, to, limit)? {
            Some(count) => value(count),
            None => requeue_pi(task, from, to, limit),
        }
    });
    Ok(Outcome::Special(Special::Then { orders: mark_waiters(task, to.0), then }))
}

/// Waits to be moved to a lock, and then for that.
fn wait_for_lock(waiter: Place, deadline: Option<Deadline>) -> Wait {
    Wait::new(move |_, cause| {
        if waiter.woken() {
            return Some(Ok(0));
        }
        if waiter.moved().is_none() {
            let failure = match cause {
                Cause::Woken => return None,
                Cause::TimedOut => Errno::ETIMEDOUT,
                Cause::Interrupted => Errno::ERESTARTNOINTR,
            };
            if waiter.leave() {
                return Some(Err(failure));
            }
        }
        // It was moved, or has the lock.
        let Some(place) = waiter.moved() else { return Some(Ok(0)) };
        if place.granted() {
            return Some(Ok(0));
        }
        let failure = match cause {
            Cause::Woken => return None,
            Cause::TimedOut => Errno::ETIMEDOUT,
            // It cannot be done again: it has been moved.
            Cause::Interrupted => Errno::EAGAIN,
        };
        Some(if place.leave() { Err(failure) } else { Ok(0) })
    })
    .until(deadline)
}

/// Takes a lock with priority inheritance: first its word gets the waiters' bit, so that nobody else changes it.
fn lock_pi(task: &Arc<Task>, pi: Pi) -> SysResult {
    Locks::check(task, pi.address)?;
    let orders = mark_waiters(task, pi.address);
    let then = Box::new(move |task: &Arc<Task>, set: i64| {
        if set < 0 {
            return Err(Errno::EFAULT);
        }
        match Locks::take(task, pi.address, pi.key, pi.only_try)? {
            Taken::Yes => done(),
            Taken::Again => lock_pi(task, pi),
            Taken::Waits(place) => Ok(Outcome::Block(wait_pi(place, pi.deadline))),
        }
    });
    Ok(Outcome::Special(Special::Then { orders, then }))
}

fn wait_pi(place: pi_futex::Place, deadline: Option<Deadline>) -> Wait {
    Wait::new(move |_, cause| {
        if place.granted() {
            return Some(Ok(0));
        }
        let failure = match cause {
            Cause::Woken => return None,
            Cause::TimedOut => Errno::ETIMEDOUT,
            Cause::Interrupted => Errno::ERESTARTNOINTR,
        };
        Some(if place.leave() { Err(failure) } else { Ok(0) })
    })
    .until(deadline)
}

fn wake_op(
    task: &Arc<Task>,
    address: u64,
    count: u32,
    count2: u32,
    address2: u64,
    encoded: u32,
    private: bool,
) -> SysResult {
    let futexes = &task.kernel().futexes;
    let (k1, k2) = (key(task, address, private)?, key(task, address2, private)?);
    let word = UserPtr::<u32>::new(address2);
    let sign = |v: u32| ((v << 20) as i32) >> 20;
    let (op, compare) = ((encoded >> 28) & 0xf, (encoded >> 24) & 0xf);
    let mut argument = sign((encoded >> 12) & 0xfff);
    let against = sign(encoded & 0xfff);
    if op & 8 != 0 {
        argument = 1i32.wrapping_shl(argument as u32 & 31);
    }
    let old = word.read(task)?;
    let new = match op & 7 {
        0 => argument as u32,
        1 => old.wrapping_add(argument as u32),
        2 => old | argument as u32,
        3 => old & !(argument as u32),
        4 => old ^ argument as u32,
        _ => return Err(Errno::ENOSYS),
    };
    if new != old || op & 7 == 0 {
        word.write(task, &new)?;
    }
    let o = old as i32;
    let holds = match compare {
        0 => o == against,
        1 => o != against,
        2 => o < against,
        3 => o <= against,
        4 => o > against,
        5 => o >= against,
        _ => return Err(Errno::ENOSYS),
    };
    let mut woken = futexes.wake(k1, count as usize, u32::MAX);
    if holds {
        woken += futexes.wake(k2, count2 as usize, u32::MAX);
    }
    value(woken)
}

/// What a wait that starts over waits for.
#[derive(Clone, Copy)]
pub(super) struct Again {
    pub(super) address: u64,
    pub(super) key: Key,
    pub(super) expected: u32,
    pub(super) bits: u32,
}

/// Waits as `waiter`; without one (after a stop) the word is looked at again first.
pub(super) fn wait(waiter: Option<Place>, again: Again, deadline: Option<Deadline>) -> Wait {
    let mut waiter = waiter;
    Wait::new(move |task, cause| {
        let waiter = match &waiter {
            Some(w) => w,
            None => {
                let Again { address, key, expected, bits } = again;
                match task.kernel().futexes.enqueue(task, address, key, expected, bits) {
                    Ok(new) => waiter.insert(new),
                    Err(e) => return Some(Err(e)),
                }
            }
        };
        if waiter.woken() {
            return Some(Ok(0));
        }
        let failure = match cause {
            Cause::Woken => return None,
            Cause::TimedOut => Errno::ETIMEDOUT,
            // With a timeout the call is not restarted from scratch: it would wait anew.
            Cause::Interrupted if deadline.is_some() => Errno::ERESTART_RESTARTBLOCK,
            Cause::Interrupted => Errno::ERESTARTSYS,
        };
        if !waiter.leave() {
            return Some(Ok(0));
        }
        if failure == Errno::ERESTART_RESTARTBLOCK {
            task.state.lock().restart = Some(Box::new(move || wait(None, again, deadline)));
        }
        Some(Err(failure))
    })
    .until(deadline)
}

fn set_robust_list(task: &Arc<Task>, head: u64, len: usize) -> SysResult {
    if len != 24 {
        return Err(Errno::EINVAL);
    }
    task.state.lock().robust_list = head;
    done()
}

fn get_robust_list(task: &Arc<Task>, pid: i32, head: UserPtr<u64>, len: UserPtr<u64>) -> SysResult {
    let t = if pid == 0 {
        task.clone()
    } else {
        let pid = task.id_of(pid);
        task.kernel().tree.lock().task(pid).ok_or(Errno::ESRCH)?
    };
    if t.pid() != task.pid() && !crate::task::creds::may_look_into(task, &t) {
        return Err(Errno::EPERM);
    }
    let at = t.state.lock().robust_list;
    len.write(task, &24)?;
    head.write(task, &at)?;
    done()
}

/// The futex calls.
pub const TABLE: &[Entry] = &[
    entry!(
        202,
        "futex",
        Partial,
        "no priority is inherited, as there is one; WAKE_OP changes the word without a lock against the container's own threads",
        futex(u64, i32, u32, u64, u64, u32)
    ),
    entry!(273, "set_robust_list", Full, "", set_robust_list(u64, usize)),
    entry!(274, "get_robust_list", Full, "", get_robust_list(i32, UserPtr<u64>, UserPtr<u64>)),
];
