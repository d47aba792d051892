//! On which nodes memory is wanted: `set_mempolicy(2)`, `mbind(2)`, `move_pages(2)` and their kin. There is one node: see
//! `memory/policy.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cofferdam_platform::Page;

use super::{Entry, SysResult, UserPtr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::memory::policy::{NODES, Policy};
use crate::memory::store::{PAGE, page_down, page_up};
use crate::task::Task;
use crate::task::creds::{cap, may_look_into};

const NODE: u64 = 1;
const ADDR: u64 = 2;
const MEMS_ALLOWED: u64 = 4;

/// `MPOL_MF_MOVE`, `MPOL_MF_MOVE_ALL`; with them `MPOL_MF_STRICT` of `mbind(2)`.
const MOVE: u32 = 2;
const MOVE_ALL: u32 = 4;
const STRICT: u32 = 1;

/// The item of an array at an index.
fn at<T>(array: UserPtr<T>, index: u64) -> Result<UserPtr<T>, Errno> {
    array.offset(index.checked_mul(size_of::<T>() as u64).ok_or(Errno::EFAULT)?)
}

/// Nodes that a mask may name (`MAX_NUMNODES`).
const MAX_NODES: u64 = 1024;
/// Stands for all nodes above the first 63, none of which there are.
const BEYOND: u64 = 1 << 63;

/// Reads a mask of `max - 1` nodes. EINVAL if it names some above [`MAX_NODES`].
fn nodes(task: &Arc<Task>, mask: UserPtr<u64>, max: u64) -> Result<u64, Errno> {
    let bits = max.wrapping_sub(1);
    if bits == 0 || mask.is_null() {
        return Ok(0);
    }
    if bits > PAGE * 8 {
        return Err(Errno::EINVAL);
    }
    let mut first = 0;
    // From its end, as Linux does.
    for word in (0..bits.div_ceil(64)).rev() {
        let used = bits - word * 64;
        let set = at(mask, word)?.read(task)? & if used < 64 { (1 << used) - 1 } else { u64::MAX };
        match word {
            0 => first |= set,
            _ if set == 0 => {}
            _ if word < MAX_NODES / 64 => first |= BEYOND,
            _ => return Err(Errno::EINVAL),
        }
    }
    Ok(first)
}

/// Writes a mask of `max - 1` nodes.
fn tell_nodes(task: &Arc<Task>, mask: UserPtr<u64>, max: u64, nodes: u64) -> Result<(), Errno> {
    let words = max.saturating_sub(1).div_ceil(64);
    if words > PAGE / 8 {
        return Err(Errno::EINVAL);
    }
    for word in (0..words).rev() {
        at(mask, word)?.write(task, &if word == 0 { nodes } else { 0 })?;
    }
    Ok(())
}

fn set_mempolicy(task: &Arc<Task>, mode: i32, mask: UserPtr<u64>, max: u64) -> SysResult {
    // What is wrong with the mode comes before what is wrong with the mask.
    let mode = Policy::parse(mode)?;
    let policy = Policy::new(mode, nodes(task, mask, max)?)?;
    task.state.lock().policy = policy;
    done()
}

fn get_mempolicy(
    task: &Arc<Task>,
    mode: UserPtr<i32>,
    mask: UserPtr<u64>,
    max: u64,
    address: u64,
    flags: u64,
) -> SysResult {
    if !mask.is_null() && max < 1 || flags & !(NODE | ADDR | MEMS_ALLOWED) != 0 {
        return Err(Errno::EINVAL);
    }
    let (told, nodes) = if flags & MEMS_ALLOWED != 0 {
        if flags != MEMS_ALLOWED {
            return Err(Errno::EINVAL);
        }
        (0, NODES)
    } else {
        let own = task.state.lock().policy;
        let policy = if flags & ADDR != 0 {
            let found = task.mm().policies(page_down(address), PAGE).map_err(|_| Errno::EFAULT)?;
            *found.first().ok_or(Errno::EFAULT)?
        } else if address != 0 {
            return Err(Errno::EINVAL);
        } else {
            own
        };
        let nodes = policy.map_or(0, Policy::nodes);
        match (flags & NODE != 0, flags & ADDR != 0) {
            (false, _) => (policy.map_or(0, Policy::mode), nodes),
            // It is there when it was touched.
            (true, true) => {
                let mut byte = [0];
                task.read_exact(address, &mut byte)?;
                (0, nodes)
            }
            (true, false) if policy.is_some_and(Policy::interleaves) => (0, nodes),
            (true, false) => return Err(Errno::EINVAL),
        }
    };
    mode.write_if(task, &told)?;
    if !mask.is_null() {
        tell_nodes(task, mask, max, nodes)?;
    }
    done()
}

fn mbind(
    task: &Arc<Task>,
    address: UserPtr<u8>,
    len: u64,
    mode: i32,
    mask: UserPtr<u64>,
    max: u64,
    flags: u32,
) -> SysResult {
    let mode = Policy::parse(mode)?;
    let nodes = nodes(task, mask, max)?;
    if flags & !(STRICT | MOVE | MOVE_ALL) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & MOVE_ALL != 0 && !task.creds().capable(cap::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    if !address.address().is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    // A length that wraps is none, as Linux rounds it.
    if len == 0 || page_up(len).is_none() {
        return done();
    }
    let policy = Policy::new(mode, nodes)?;
    task.mm().set_policy(address.address(), len, policy)?;
    done()
}

fn set_mempolicy_home_node(task: &Arc<Task>, address: UserPtr<u8>, len: u64, node: u64, flags: u64) -> SysResult {
    if flags != 0 || !address.address().is_multiple_of(PAGE) || node != 0 {
        return Err(Errno::EINVAL);
    }
    if len == 0 || page_up(len).is_none() {
        return done();
    }
    let policies = task.mm().policies(address.address(), len)?;
    let mut set = policies.into_iter().flatten().peekable();
    set.peek().ok_or(Errno::ENOENT)?;
    // The one node is the home of all.
    if set.all(Policy::has_home) { done() } else { Err(Errno::EOPNOTSUPP) }
}

/// The task whose memory is meant. ESRCH if there is none, EPERM for one that the caller may not look into.
fn whose(task: &Arc<Task>, pid: i32) -> Result<Arc<Task>, Errno> {
    if pid == 0 {
        return Ok(task.clone());
    }
    let other = task.kernel().tree.lock().task(task.id_of(pid)).ok_or(Errno::ESRCH)?;
    if may_look_into(task, &other) { Ok(other) } else { Err(Errno::EPERM) }
}

fn migrate_pages(task: &Arc<Task>, pid: i32, max: u64, from: UserPtr<u64>, to: UserPtr<u64>) -> SysResult {
    let _ = nodes(task, from, max)?;
    let to = nodes(task, to, max)?;
    whose(task, pid)?;
    if to & !NODES != 0 && !task.creds().capable(cap::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    // All pages are where they can be.
    if to & NODES == 0 { Err(Errno::EINVAL) } else { value(0) }
}

/// Where a page is: its node, or the error that `move_pages(2)` tells of it.
fn node_of(of: &Arc<Task>, address: u64) -> i32 {
    let page = page_down(address);
    let error = |e: Errno| -e.code();
    let Some(mapped) = of.mm().host_has(page) else { return error(Errno::EFAULT) };
    let mut found = Page::Absent;
    if let (true, Some(host)) = (mapped, of.host()) {
        cofferdam_platform::resident(host.tid(), std::iter::once(page), |p| found = p);
    }
    match found {
        Page::Present => 0,
        Page::Absent => error(Errno::ENOENT),
        Page::Zeros => error(Errno::EFAULT),
    }
}

fn move_pages(
    task: &Arc<Task>,
    pid: i32,
    count: u64,
    pages: UserPtr<u64>,
    nodes: UserPtr<i32>,
    status: UserPtr<i32>,
    flags: u32,
) -> SysResult {
    if flags & !(MOVE | MOVE_ALL) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & MOVE_ALL != 0 && !task.creds().capable(cap::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let of = whose(task, pid)?;
    for n in 0..count {
        let address = at(pages, n)?.read(task)?;
        if !nodes.is_null() && at(nodes, n)?.read(task)? != 0 {
            return Err(Errno::ENODEV);
        }
        at(status, n)?.write(task, &node_of(&of, address))?;
        if n % 4096 == 4095 && task.pending_signals().0 & !task.mask.load(Ordering::Relaxed) != 0 {
            // It may take long: from the start again after the signals.
            return Err(Errno::ERESTARTNOINTR);
        }
    }
    done()
}

/// The calls about memory's nodes.
pub const TABLE: &[Entry] = &[
    entry!(
        237,
        "mbind",
        Partial,
        "as set_mempolicy; of shared memory, a policy is that of the mapping",
        mbind(UserPtr<u8>, u64, i32, UserPtr<u64>, u64, u32)
    ),
    entry!(
        238,
        "set_mempolicy",
        Partial,
        "one node; nodes above 62, which there are none of, are told as node 63",
        set_mempolicy(i32, UserPtr<u64>, u64)
    ),
    entry!(239, "get_mempolicy", Full, "", get_mempolicy(UserPtr<i32>, UserPtr<u64>, u64, u64, u64)),
    entry!(256, "migrate_pages", Full, "", migrate_pages(i32, u64, UserPtr<u64>, UserPtr<u64>)),
    entry!(279, "move_pages", Full, "", move_pages(i32, u64, UserPtr<u64>, UserPtr<i32>, UserPtr<i32>, u32)),
    entry!(450, "set_mempolicy_home_node", Full, "", set_mempolicy_home_node(UserPtr<u8>, u64, u64, u64)),
];
