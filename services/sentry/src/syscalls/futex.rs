//! `futex(2)` and robust lists.

use std::sync::Arc;

use super::{Entry, Outcome, SysResult, UserPtr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::ipc::futex::{Key, Waiter, key};
use crate::task::Task;
use crate::time::{Clock, Deadline, Timespec};
use crate::wait::{Cause, Wait};

const WAIT: i32 = 0;
const WAKE: i32 = 1;
const REQUEUE: i32 = 3;
const CMP_REQUEUE: i32 = 4;
const WAKE_OP: i32 = 5;
const WAIT_BITSET: i32 = 9;
const WAKE_BITSET: i32 = 10;
const PRIVATE: i32 = 128;
const CLOCK_REALTIME: i32 = 256;

fn futex(task: &Arc<Task>, address: u64, op: i32, value1: u32, timeout: u64, address2: u64, value3: u32) -> SysResult {
    let private = op & PRIVATE != 0;
    let realtime = op & CLOCK_REALTIME != 0;
    let command = op & !(PRIVATE | CLOCK_REALTIME);
    if realtime && !matches!(command, WAIT | WAIT_BITSET | 11 | 13) {
        return Err(Errno::ENOSYS);
    }
    let futexes = &task.kernel().futexes;
    match command {
        WAIT | WAIT_BITSET => {
            let bits = if command == WAIT { u32::MAX } else { value3 };
            if bits == 0 {
                return Err(Errno::EINVAL);
            }
            let deadline = match UserPtr::<Timespec>::new(timeout) {
                t if t.is_null() => None,
                t => {
                    let ns = t.read(task)?.to_ns()?;
                    let clock = if realtime { Clock::Realtime } else { Clock::Monotonic };
                    // WAIT takes a duration, WAIT_BITSET a moment.
                    Some(if command == WAIT { Deadline::after(ns) } else { Deadline { clock, at: ns } })
                }
            };
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
            value(futexes.wake(k, (value1 as usize).max(1), bits))
        }
        REQUEUE | CMP_REQUEUE => {
            let (from, to) = (key(task, address, private)?, key(task, address2, private)?);
            if (value1 as i32) < 0 || (timeout as i32) < 0 {
                return Err(Errno::EINVAL);
            }
            let check = (command == CMP_REQUEUE).then_some(value3);
            let limit = timeout as u32 as usize;
            let (woken, moved) = futexes.requeue(task, address, from, to, value1 as usize, limit, check)?;
            value(woken + moved)
        }
        WAKE_OP => wake_op(task, address, value1, timeout as u32, address2, value3, private),
        // Priority inheritance needs an atomic exchange in the container's memory; FD went away in Linux 2.6.26.
        _ => Err(Errno::ENOSYS),
    }
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
struct Again {
    address: u64,
    key: Key,
    expected: u32,
    bits: u32,
}

/// Waits as `waiter`; without one (after a stop) the word is looked at again first.
fn wait(waiter: Option<Arc<Waiter>>, again: Again, deadline: Option<Deadline>) -> Wait {
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
        if !task.kernel().futexes.leave(waiter) {
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
    let t = if pid == 0 { task.clone() } else { task.kernel().tree.lock().task(pid).ok_or(Errno::ESRCH)? };
    if t.pid() != task.pid() && !task.creds().capable(crate::task::creds::cap::SYS_PTRACE) {
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
        "no priority inheritance; WAKE_OP changes the word without a lock against the container's own threads",
        futex(u64, i32, u32, u64, u64, u32)
    ),
    entry!(273, "set_robust_list", Full, "", set_robust_list(u64, usize)),
    entry!(274, "get_robust_list", Full, "", get_robust_list(i32, UserPtr<u64>, UserPtr<u64>)),
];
