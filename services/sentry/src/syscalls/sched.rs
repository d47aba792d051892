//! Scheduling calls. The host schedules; priorities and affinities are kept and told back, not enforced.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Entry, SysResult, UserPtr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::task::creds::cap;
use crate::task::{Group, Task};
use crate::time::Timespec;

fn sched_yield(_: &Arc<Task>) -> SysResult {
    rustix::thread::sched_yield();
    done()
}

fn exists(task: &Task, pid: i32) -> Result<Arc<Task>, Errno> {
    if pid < 0 {
        return Err(Errno::EINVAL);
    }
    let found = task.kernel().tree.lock().task(if pid == 0 { task.tid() } else { pid });
    found.ok_or(Errno::ESRCH)
}

/// Number of processors the container sees. First asked for before the walls go up (it reads the host's cgroup files).
pub fn cpus() -> usize {
    static CPUS: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *CPUS.get_or_init(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}

fn sched_getaffinity(task: &Arc<Task>, pid: i32, len: usize, to: UserPtr<u8>) -> SysResult {
    let of = exists(task, pid)?;
    let n = cpus();
    if len * 8 < n || !len.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let bytes = len.min(n.div_ceil(64) * 8);
    let mut mask = vec![0u8; bytes];
    let allowed = of.state.lock().affinity.clone();
    for i in (0..n).filter(|i| allowed.is_empty() || has(&allowed, *i)) {
        if let Some(b) = mask.get_mut(i / 8) {
            *b |= 1 << (i % 8);
        }
    }
    task.write_exact(to.address(), &mask)?;
    value(bytes)
}

fn has(mask: &[u8], cpu: usize) -> bool {
    mask.get(cpu / 8).is_some_and(|b| b & 1 << (cpu % 8) != 0)
}

fn sched_setaffinity(task: &Arc<Task>, pid: i32, len: usize, from: UserPtr<u8>) -> SysResult {
    let mut mask = vec![0; len.min(128)];
    task.read_exact(from.address(), &mut mask)?;
    let of = exists(task, pid)?;
    let (s, t) = (task.creds(), of.creds());
    if s.euid != t.euid && s.euid != t.ruid && !s.capable(cap::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    if !(0..cpus()).any(|i| has(&mask, i)) {
        return Err(Errno::EINVAL);
    }
    of.state.lock().affinity = mask;
    done()
}

fn sched_getscheduler(task: &Arc<Task>, pid: i32) -> SysResult {
    exists(task, pid)?;
    value(0)
}

fn sched_setscheduler(task: &Arc<Task>, pid: i32, policy: i32, param: UserPtr<i32>) -> SysResult {
    if param.is_null() || policy < 0 {
        return Err(Errno::EINVAL);
    }
    exists(task, pid)?;
    let priority = param.read(task)?;
    match policy & !0x4000_0000 {
        // OTHER, BATCH, IDLE
        0 | 3 | 5 if priority == 0 => done(),
        // FIFO, RR: no real-time share is given.
        1 | 2 if (1..=99).contains(&priority) => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

fn sched_setparam(task: &Arc<Task>, pid: i32, param: UserPtr<i32>) -> SysResult {
    if param.is_null() {
        return Err(Errno::EINVAL);
    }
    exists(task, pid)?;
    if param.read(task)? == 0 { done() } else { Err(Errno::EINVAL) }
}

fn sched_getparam(task: &Arc<Task>, pid: i32, param: UserPtr<i32>) -> SysResult {
    if param.is_null() {
        return Err(Errno::EINVAL);
    }
    exists(task, pid)?;
    param.write(task, &0)?;
    done()
}

fn sched_get_priority_max(_: &Arc<Task>, policy: i32) -> SysResult {
    match policy {
        1 | 2 => value(99),
        0 | 3 | 5 | 6 => value(0),
        _ => Err(Errno::EINVAL),
    }
}

fn sched_get_priority_min(_: &Arc<Task>, policy: i32) -> SysResult {
    match policy {
        1 | 2 => value(1),
        0 | 3 | 5 | 6 => value(0),
        _ => Err(Errno::EINVAL),
    }
}

fn sched_rr_get_interval(task: &Arc<Task>, pid: i32, to: UserPtr<Timespec>) -> SysResult {
    exists(task, pid)?;
    to.write(task, &Timespec { sec: 0, nsec: 100_000_000 })?;
    done()
}

/// Processes that a `which`, `who` pair names.
fn named(task: &Task, which: i32, who: i32) -> Result<Vec<Arc<Group>>, Errno> {
    let tree = task.kernel().tree.lock();
    let list: Vec<Arc<Group>> = match which {
        0 => tree.task(if who == 0 { task.tid() } else { who }).map(|t| t.group().clone()).into_iter().collect(),
        1 => {
            let pgid = if who == 0 { tree.node(task.pid()).map_or(0, |n| n.pgid) } else { who };
            tree.members(pgid)
        }
        2 => {
            let uid = if who == 0 { task.creds().ruid } else { who as u32 };
            tree.tasks().iter().filter(|t| t.creds().ruid == uid).map(|t| t.group().clone()).collect()
        }
        _ => return Err(Errno::EINVAL),
    };
    if list.is_empty() { Err(Errno::ESRCH) } else { Ok(list) }
}

fn getpriority(task: &Arc<Task>, which: i32, who: i32) -> SysResult {
    let list = named(task, which, who)?;
    let nice = list.iter().map(|g| g.nice.load(Ordering::Relaxed)).min().unwrap_or(0);
    // The raw call returns 20 - nice, so that results are never negative.
    value(20 - nice)
}

fn setpriority(task: &Arc<Task>, which: i32, who: i32, nice: i32) -> SysResult {
    let nice = nice.clamp(-20, 19);
    let me = task.creds();
    for g in named(task, which, who)? {
        let it = g.leader().map_or_else(|| me.clone(), |t| t.creds());
        if me.euid != it.euid && me.euid != it.ruid && !me.capable(cap::SYS_NICE) {
            return Err(Errno::EPERM);
        }
        if nice < g.nice.load(Ordering::Relaxed) && !me.capable(cap::SYS_NICE) {
            return Err(Errno::EACCES);
        }
        g.nice.store(nice, Ordering::Relaxed);
    }
    done()
}

fn getcpu(task: &Arc<Task>, cpu: UserPtr<u32>, node: UserPtr<u32>) -> SysResult {
    cpu.write_if(task, &0)?;
    node.write_if(task, &0)?;
    done()
}

fn ioprio_get(_: &Arc<Task>, which: i32, _who: i32) -> SysResult {
    if (1..=3).contains(&which) { value(0) } else { Err(Errno::EINVAL) }
}

fn ioprio_set(_: &Arc<Task>, which: i32, _who: i32, priority: i32) -> SysResult {
    let class = priority >> 13;
    if (1..=3).contains(&which) && (0..=3).contains(&class) { done() } else { Err(Errno::EINVAL) }
}

/// The scheduling calls.
pub const TABLE: &[Entry] = &[
    entry!(24, "sched_yield", Full, "", sched_yield()),
    entry!(140, "getpriority", Partial, "kept, not enforced", getpriority(i32, i32)),
    entry!(141, "setpriority", Partial, "kept, not enforced", setpriority(i32, i32, i32)),
    entry!(142, "sched_setparam", Partial, "only priority 0", sched_setparam(i32, UserPtr<i32>)),
    entry!(143, "sched_getparam", Partial, "always 0", sched_getparam(i32, UserPtr<i32>)),
    entry!(
        144,
        "sched_setscheduler",
        Partial,
        "real-time policies are EPERM",
        sched_setscheduler(i32, i32, UserPtr<i32>)
    ),
    entry!(145, "sched_getscheduler", Partial, "always SCHED_OTHER", sched_getscheduler(i32)),
    entry!(146, "sched_get_priority_max", Full, "", sched_get_priority_max(i32)),
    entry!(147, "sched_get_priority_min", Full, "", sched_get_priority_min(i32)),
    entry!(148, "sched_rr_get_interval", Partial, "a constant", sched_rr_get_interval(i32, UserPtr<Timespec>)),
    entry!(203, "sched_setaffinity", Partial, "kept, not enforced", sched_setaffinity(i32, usize, UserPtr<u8>)),
    entry!(204, "sched_getaffinity", Partial, "as set", sched_getaffinity(i32, usize, UserPtr<u8>)),
    entry!(251, "ioprio_set", Partial, "checked, not kept", ioprio_set(i32, i32, i32)),
    entry!(252, "ioprio_get", Partial, "always none", ioprio_get(i32, i32)),
    entry!(309, "getcpu", Partial, "always processor 0; the vDSO tells the truth", getcpu(UserPtr<u32>, UserPtr<u32>)),
];
