//! Scheduling calls. The host schedules: it is told which processors a thread may run on and how nice it is; a policy but the usual one
//! counts as nice, and what has no say there (I/O priorities, for the stub does no I/O) is kept and told back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use zerocopy::{FromBytes, Immutable, IntoBytes};

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
    if pid < 0 { Err(Errno::EINVAL) } else { any(task, pid) }
}

/// As [`exists`], for calls that look for any number.
fn any(task: &Task, pid: i32) -> Result<Arc<Task>, Errno> {
    let found = task.kernel().tree.lock().task(if pid == 0 { task.tid() } else { task.id_of(pid) });
    found.ok_or(Errno::ESRCH)
}

/// Number of processors the container sees. First asked for before the walls go up (it reads the host's cgroup files).
pub fn cpus() -> usize {
    static CPUS: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *CPUS.get_or_init(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}

fn sched_getaffinity(task: &Arc<Task>, pid: i32, len: usize, to: UserPtr<u8>) -> SysResult {
    let n = cpus();
    if len.saturating_mul(8) < n || !len.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let of = any(task, pid)?;
    let bytes = len.min(n.div_ceil(64) * 8);
    let mut mask = vec![0u8; bytes];
    for i in allowed(Some(&of)) {
        if let Some(b) = mask.get_mut(i / 8) {
            *b |= 1 << (i % 8);
        }
    }
    task.write_exact(to.address(), &mask)?;
    value(bytes)
}

/// Processors that a task may run on; all for none.
pub fn allowed(task: Option<&Task>) -> Vec<usize> {
    let mask = task.map(|t| t.state.lock().affinity.clone()).unwrap_or_default();
    (0..cpus()).filter(|i| mask.is_empty() || has(&mask, *i)).collect()
}

/// Numbers of processors as `/proc` and `/sys` list them: `0-3,5`.
pub fn cpu_list(cpus: &[usize]) -> String {
    let runs = cpus.chunk_by(|a, b| *b == a + 1).filter_map(|run| match run {
        [] => None,
        [one] => Some(one.to_string()),
        [first, .., last] => Some(format!("{first}-{last}")),
    });
    runs.collect::<Vec<_>>().join(",")
}

fn has(mask: &[u8], cpu: usize) -> bool {
    mask.get(cpu / 8).is_some_and(|b| b & 1 << (cpu % 8) != 0)
}

fn sched_setaffinity(task: &Arc<Task>, pid: i32, len: usize, from: UserPtr<u8>) -> SysResult {
    let mut mask = vec![0; len.min(128)];
    task.read_exact(from.address(), &mut mask)?;
    let of = any(task, pid)?;
    may_change(task, &of)?;
    if !(0..cpus()).any(|i| has(&mask, i)) {
        return Err(Errno::EINVAL);
    }
    of.state.lock().affinity = mask;
    of.run_on_asked();
    done()
}

impl Task {
    /// Has the host run it where it may run.
    fn run_on_asked(&self) {
        let allowed = allowed(Some(self));
        let Some(host) = self.host() else { return };
        let all = allowed.len() >= cpus();
        if !cofferdam_platform::set_affinity(host.tid(), (!all).then_some(&allowed)) {
            tracing::debug!(tid = self.tid(), "the host does not take the affinity");
        }
    }

    /// Has the host run it as nicely as it is. What was given up is had back only where the host allows it.
    pub(crate) fn run_as_nice(&self) {
        let nice = self.group().nice.load(Ordering::Relaxed);
        let nice = if self.state.lock().schedule.policy == IDLE { 19 } else { nice.max(0) };
        let Some(host) = self.host() else { return };
        if !cofferdam_platform::set_nice(host.tid(), nice) {
            tracing::debug!(tid = self.tid(), nice, "the host does not take the nice value");
        }
    }

    /// Another thread of the host runs it from now on: it is to be scheduled as this one was. (One that this one's made is already.)
    pub(crate) fn scheduled_anew(&self) {
        let (pinned, idle) = {
            let state = self.state.lock();
            (!state.affinity.is_empty(), state.schedule.policy == IDLE)
        };
        if pinned {
            self.run_on_asked();
        }
        if idle || self.group().nice.load(Ordering::Relaxed) > 0 {
            self.run_as_nice();
        }
    }
}

const FIFO: i32 = 1;
const RR: i32 = 2;
const BATCH: i32 = 3;
const IDLE: i32 = 5;
const DEADLINE: i32 = 6;
const EXT: i32 = 7;
const RESET_ON_FORK: i32 = 0x4000_0000;

fn sched_getscheduler(task: &Arc<Task>, pid: i32) -> SysResult {
    let s = exists(task, pid)?.state.lock().schedule;
    value(s.policy | if s.reset_on_fork { RESET_ON_FORK } else { 0 })
}

/// Who may change how another is scheduled.
fn may_change(task: &Task, of: &Task) -> Result<(), Errno> {
    let (s, t) = (task.creds(), of.creds());
    if s.euid == t.euid || s.euid == t.ruid || s.capable_in(&t.user_ns, cap::SYS_NICE) {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

/// Sets a policy. Real-time policies are EPERM: no share of a processor is given away.
fn set_policy(task: &Task, of: &Task, policy: i32, reset: bool, priority: i32) -> Result<(), Errno> {
    match policy {
        0 | BATCH | IDLE if priority == 0 => {}
        FIFO | RR if (1..=99).contains(&priority) => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    }
    may_change(task, of)?;
    let mut state = of.state.lock();
    // Who may not be scheduled better may not shed this, either.
    if state.schedule.reset_on_fork && !reset && !task.creds().capable(cap::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let before = std::mem::replace(&mut state.schedule.policy, policy);
    state.schedule.reset_on_fork = reset;
    drop(state);
    if (before == IDLE) != (policy == IDLE) {
        of.run_as_nice();
    }
    Ok(())
}

fn sched_setscheduler(task: &Arc<Task>, pid: i32, policy: i32, param: UserPtr<i32>) -> SysResult {
    if param.is_null() || policy < 0 || pid < 0 {
        return Err(Errno::EINVAL);
    }
    let priority = param.read(task)?;
    let of = exists(task, pid)?;
    set_policy(task, &of, policy & !RESET_ON_FORK, policy & RESET_ON_FORK != 0, priority)?;
    done()
}

/// `struct sched_attr`, the first version and the one with utilisation bounds.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    times: [u64; 3],
    bounds: [u32; 2],
}

/// Bytes of the first version.
const ATTR_FIRST: usize = 48;

fn sched_getattr(task: &Arc<Task>, pid: i32, to: UserPtr<u8>, size: u32, flags: u32) -> SysResult {
    let size = size as usize;
    if to.is_null() || pid < 0 || !(ATTR_FIRST..=4096).contains(&size) || flags != 0 {
        return Err(Errno::EINVAL);
    }
    let of = exists(task, pid)?;
    let s = of.state.lock().schedule;
    let known = size.min(size_of::<SchedAttr>());
    let attr = SchedAttr {
        size: known as u32,
        policy: s.policy.cast_unsigned(),
        flags: u64::from(s.reset_on_fork),
        nice: of.group().nice.load(Ordering::Relaxed),
        ..SchedAttr::default()
    };
    task.write_exact(to.address(), attr.as_bytes().get(..known).unwrap_or_default())?;
    done()
}

fn sched_setattr(task: &Arc<Task>, pid: i32, from: UserPtr<u32>, flags: u32) -> SysResult {
    if from.is_null() || pid < 0 || flags != 0 {
        return Err(Errno::EINVAL);
    }
    let size = match from.read(task)? as usize {
        0 => ATTR_FIRST,
        n => n,
    };
    if !(ATTR_FIRST..=4096).contains(&size) {
        from.write(task, &(size_of::<SchedAttr>() as u32))?;
        return Err(Errno::E2BIG);
    }
    let attr = match from.cast::<SchedAttr>().read_grown(task, size, ATTR_FIRST) {
        Err(Errno::E2BIG) => {
            from.write(task, &(size_of::<SchedAttr>() as u32))?;
            return Err(Errno::E2BIG);
        }
        attr => attr?,
    };
    let policy = i32::try_from(attr.policy).map_err(|_| Errno::EINVAL)?;
    let of = exists(task, pid)?;
    // Keeping the policy, bounds of utilisation and the rest are not built.
    if attr.flags & !1 != 0 {
        return Err(Errno::EINVAL);
    }
    let priority = i32::try_from(attr.priority).map_err(|_| Errno::EINVAL)?;
    let nice = attr.nice.clamp(-20, 19);
    if matches!(policy, 0 | BATCH)
        && nice < of.group().nice.load(Ordering::Relaxed)
        && !task.creds().capable(cap::SYS_NICE)
    {
        return Err(Errno::EPERM);
    }
    set_policy(task, &of, policy, attr.flags & 1 != 0, priority)?;
    if matches!(policy, 0 | BATCH) {
        of.group().nice.store(nice, Ordering::Relaxed);
        of.group().tasks().iter().for_each(|t| t.run_as_nice());
    }
    done()
}

fn sched_setparam(task: &Arc<Task>, pid: i32, param: UserPtr<i32>) -> SysResult {
    if param.is_null() || pid < 0 {
        return Err(Errno::EINVAL);
    }
    let priority = param.read(task)?;
    exists(task, pid)?;
    if priority == 0 { done() } else { Err(Errno::EINVAL) }
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
        FIFO | RR => value(99),
        0 | BATCH | IDLE | DEADLINE | EXT => value(0),
        _ => Err(Errno::EINVAL),
    }
}

fn sched_get_priority_min(_: &Arc<Task>, policy: i32) -> SysResult {
    match policy {
        FIFO | RR => value(1),
        0 | BATCH | IDLE | DEADLINE | EXT => value(0),
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
        0 => tree
            .task(if who == 0 { task.tid() } else { task.id_of(who) })
            .map(|t| t.group().clone())
            .into_iter()
            .collect(),
        1 => {
            let pgid = if who == 0 { tree.node(task.pid()).map_or(0, |n| n.pgid) } else { task.id_of(who) };
            tree.members(pgid)
        }
        2 => {
            let c = task.creds();
            let uid = if who == 0 { c.ruid } else { c.user_ns.kernel_uid(who as u32).ok_or(Errno::EINVAL)? };
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
        if let Some(leader) = g.leader() {
            may_change(task, &leader)?;
        }
        if nice < g.nice.load(Ordering::Relaxed) && !me.capable(cap::SYS_NICE) {
            return Err(Errno::EACCES);
        }
        g.nice.store(nice, Ordering::Relaxed);
        g.tasks().iter().for_each(|t| t.run_as_nice());
    }
    done()
}

fn getcpu(task: &Arc<Task>, cpu: UserPtr<u32>, node: UserPtr<u32>) -> SysResult {
    // The host has a call served where it was made, as a rule.
    let (here, allowed) = (cofferdam_platform::current_processor(), allowed(Some(task)));
    let here = if allowed.contains(&here) { here } else { allowed.first().copied().unwrap_or(0) };
    cpu.write_if(task, &u32::try_from(here).unwrap_or(0))?;
    node.write_if(task, &0)?;
    done()
}

/// Tasks that the `which`, `who` of an I/O priority names.
fn io_named(task: &Task, which: i32, who: i32) -> Result<Vec<Arc<Task>>, Errno> {
    match which {
        1 => any(task, who).map(|t| vec![t]),
        2 | 3 => Ok(named(task, which - 1, who)?.iter().flat_map(|g| g.tasks()).collect()),
        _ => Err(Errno::EINVAL),
    }
}

fn ioprio_get(task: &Arc<Task>, which: i32, who: i32) -> SysResult {
    let all = io_named(task, which, who)?;
    value(all.iter().map(|t| t.state.lock().schedule.io_priority).min().unwrap_or(0))
}

/// Whether a task may have I/O done with that priority.
pub(super) fn check_io_priority(task: &Task, priority: i32) -> Result<(), Errno> {
    // A class, a hint of ten bits, a level of three.
    match (priority >> 13, priority & 7) {
        (1, _) if !task.creds().capable(cap::SYS_NICE) && !task.creds().capable(cap::SYS_ADMIN) => Err(Errno::EPERM),
        (1..=3, _) | (0, 0) => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

fn ioprio_set(task: &Arc<Task>, which: i32, who: i32, priority: i32) -> SysResult {
    check_io_priority(task, priority)?;
    for t in io_named(task, which, who)? {
        may_change(task, &t)?;
        t.state.lock().schedule.io_priority = priority;
    }
    done()
}

/// The scheduling calls.
pub const TABLE: &[Entry] = &[
    entry!(24, "sched_yield", Full, "", sched_yield()),
    entry!(140, "getpriority", Full, "", getpriority(i32, i32)),
    entry!(
        141,
        "setpriority",
        Partial,
        "of whole processes; acts from 0 up, and back only where the host allows it",
        setpriority(i32, i32, i32)
    ),
    entry!(142, "sched_setparam", Partial, "only priority 0", sched_setparam(i32, UserPtr<i32>)),
    entry!(143, "sched_getparam", Partial, "always 0", sched_getparam(i32, UserPtr<i32>)),
    entry!(
        144,
        "sched_setscheduler",
        Partial,
        "SCHED_IDLE is nice 19, SCHED_BATCH as usual; real-time policies are EPERM",
        sched_setscheduler(i32, i32, UserPtr<i32>)
    ),
    entry!(145, "sched_getscheduler", Full, "", sched_getscheduler(i32)),
    entry!(146, "sched_get_priority_max", Full, "", sched_get_priority_max(i32)),
    entry!(147, "sched_get_priority_min", Full, "", sched_get_priority_min(i32)),
    entry!(148, "sched_rr_get_interval", Partial, "a constant", sched_rr_get_interval(i32, UserPtr<Timespec>)),
    entry!(203, "sched_setaffinity", Full, "", sched_setaffinity(i32, usize, UserPtr<u8>)),
    entry!(204, "sched_getaffinity", Full, "", sched_getaffinity(i32, usize, UserPtr<u8>)),
    entry!(251, "ioprio_set", Partial, "kept, not enforced", ioprio_set(i32, i32, i32)),
    entry!(252, "ioprio_get", Partial, "as set", ioprio_get(i32, i32)),
    entry!(
        314,
        "sched_setattr",
        Partial,
        "as sched_setscheduler; flags but RESET_ON_FORK are EINVAL",
        sched_setattr(i32, UserPtr<u32>, u32)
    ),
    entry!(315, "sched_getattr", Full, "", sched_getattr(i32, UserPtr<u8>, u32, u32)),
    entry!(
        309,
        "getcpu",
        Partial,
        "the processor that served the call; the vDSO tells the caller's",
        getcpu(UserPtr<u32>, UserPtr<u32>)
    ),
];
