//! Processes and threads: making, ending and waiting for them; groups, sessions, limits, `prctl(2)`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Entry, Fd, Outcome, SysResult, UserPtr, UserStr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::ipc::pidfd::PidFd;
use crate::signal::{self, SigInfo, sig};
use crate::task::clone::{CloneRequest, Wanted, flag};
use crate::task::creds::{cap, secure};
use crate::task::exec::{self, ExecRequest};
use crate::task::exit::{self, Change, WaitFor, wait_flag};
use crate::task::group::{Group, LIMITS, Limit, rlimit};
use crate::task::itimer;
use crate::task::tree::Node;
use crate::task::usage::Usage;
use crate::task::{Special, Task};
use crate::time::Timeval;
use crate::wait::{Cause, PollMask, Wait};

fn clone(_: &Arc<Task>, flags: u64, stack: u64, parent_tid: u64, child_tid: u64, tls: u64) -> SysResult {
    let request = CloneRequest {
        flags: flags & !0xff & 0xffff_ffff,
        stack,
        parent_tid,
        child_tid,
        tls,
        exit_signal: (flags & 0xff) as i32,
        pidfd: parent_tid,
        wanted: Wanted::default(),
    };
    Ok(Outcome::Special(Special::Clone(request)))
}

/// `struct clone_args`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Bytes of the first version.
const CLONE_FIRST: usize = 64;

fn clone3(task: &Arc<Task>, args: UserPtr<CloneArgs>, size: usize) -> SysResult {
    let a = args.read_grown(task, size, CLONE_FIRST)?;
    let count = usize::try_from(a.set_tid_size).unwrap_or(usize::MAX);
    let mut wanted = Wanted::default();
    if (a.set_tid == 0) != (count == 0) || count > wanted.ids.len() {
        return Err(Errno::EINVAL);
    }
    let ids = UserPtr::<i32>::new(a.set_tid).read_array(task, count, wanted.ids.len())?;
    wanted.ids.iter_mut().zip(&ids).for_each(|(to, from)| *to = *from);
    wanted.count = count;
    if a.flags & 0xff != 0 || a.exit_signal > 64 || a.flags & flag::DETACHED != 0 {
        return Err(Errno::EINVAL);
    }
    if (a.stack == 0) != (a.stack_size == 0) {
        return Err(Errno::EINVAL);
    }
    if a.flags & (flag::THREAD | flag::PARENT) != 0 && a.exit_signal != 0 {
        return Err(Errno::EINVAL);
    }
    let request = CloneRequest {
        flags: a.flags,
        stack: a.stack.checked_add(a.stack_size).ok_or(Errno::EINVAL)?,
        parent_tid: a.parent_tid,
        child_tid: a.child_tid,
        tls: a.tls,
        exit_signal: i32::try_from(a.exit_signal).map_err(|_| Errno::EINVAL)?,
        pidfd: a.pidfd,
        wanted,
    };
    Ok(Outcome::Special(Special::Clone(request)))
}

fn fork(_: &Arc<Task>) -> SysResult {
    Ok(Outcome::Special(Special::Clone(CloneRequest { exit_signal: sig::CHLD, ..CloneRequest::default() })))
}

fn vfork(_: &Arc<Task>) -> SysResult {
    let flags = flag::VFORK | flag::VM;
    Ok(Outcome::Special(Special::Clone(CloneRequest { flags, exit_signal: sig::CHLD, ..CloneRequest::default() })))
}

fn execve(_: &Arc<Task>, path: UserStr, argv: UserPtr<u64>, envp: UserPtr<u64>) -> SysResult {
    let dir = super::args::AT_FDCWD;
    Ok(Outcome::Special(Special::Exec(ExecRequest { dir, path, argv, envp, flags: 0 })))
}

fn execveat(task: &Arc<Task>, dir: Fd, path: UserStr, argv: UserPtr<u64>, envp: UserPtr<u64>, flags: i32) -> SysResult {
    let request = ExecRequest { dir, path, argv, envp, flags };
    if flags & exec::CHECK != 0 {
        exec::check(task, &request)?;
        return done();
    }
    Ok(Outcome::Special(Special::Exec(request)))
}

fn exit_call(task: &Arc<Task>, code: i32) -> SysResult {
    match super::rseq::before_exit(task) {
        None => end_thread(task, code),
        Some(order) => Ok(Outcome::Special(Special::Then {
            orders: vec![order],
            then: Box::new(move |task: &Arc<Task>, _| end_thread(task, code)),
        })),
    }
}

fn end_thread(task: &Arc<Task>, code: i32) -> SysResult {
    match exit::exit_thread(task, (code & 0xff) << 8) {
        cofferdam_platform::Answer::Exit => Ok(Outcome::Special(Special::Exit)),
        _ => Err(Errno::EINTR),
    }
}

fn exit_group(task: &Arc<Task>, code: i32) -> SysResult {
    // One that another thread's exec has ended takes nobody with it.
    if !task.exited.load(Ordering::SeqCst) {
        exit::exit_group(task, (code & 0xff) << 8);
    }
    // The caller is gone; nothing is answered.
    Err(Errno::EINTR)
}

/// `struct rusage`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
pub struct Rusage {
    utime: Timeval,
    stime: Timeval,
    /// kB.
    max_rss: i64,
    shared: [i64; 3],
    minor_faults: i64,
    major_faults: i64,
    swaps: i64,
    /// Blocks and messages.
    moved: [i64; 4],
    signals: i64,
    voluntary: i64,
    involuntary: i64,
}

impl Rusage {
    /// What a process used.
    pub fn of(u: &Usage) -> Self {
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        Self {
            utime: Timeval::from_ns(u.user),
            stime: Timeval::from_ns(u.system),
            max_rss: count(u.most_resident / 1024),
            minor_faults: count(u.counted.faults),
            voluntary: count(u.counted.waits),
            ..Self::default()
        }
    }
}

type Finish = fn(&Arc<Task>, Option<&Change>, u64, u64, u64) -> Result<i64, Errno>;

/// Waits for a child; `finish` writes what the caller wants to know to the addresses `a`, `b`.
fn wait_for(task: &Arc<Task>, which: WaitFor, options: i32, a: u64, b: u64, finish: Finish) -> SysResult {
    if let Some(change) = exit::look(task, which, options)? {
        return finish(task, Some(&change), a, b, 0).map(Outcome::Value);
    }
    if options & wait_flag::NOHANG != 0 {
        return finish(task, None, a, b, 0).map(Outcome::Value);
    }
    let queue = task.group().child_change.clone();
    let wait = Wait::new(move |task, cause| match exit::look(task, which, options) {
        Ok(Some(change)) => Some(finish(task, Some(&change), a, b, 0)),
        Ok(None) if cause == Cause::Interrupted => Some(Err(Errno::ERESTARTSYS)),
        Ok(None) => None,
        Err(e) => Some(Err(e)),
    });
    Ok(Outcome::Block(wait.on(&queue, PollMask::empty())))
}

/// Whom a `wait4(2)` is for, by an id or a process group's.
fn which_of(task: &Task, pid: i32) -> Result<WaitFor, Errno> {
    Ok(match task.id_of(pid) {
        i32::MIN => return Err(Errno::ESRCH),
        -1 => WaitFor::Any,
        0 => WaitFor::Group(task.kernel().tree.lock().node(task.pid()).map_or(0, |n| n.pgid)),
        p if p < 0 => WaitFor::Group(-p),
        p => WaitFor::Pid(p),
    })
}

fn wait4(task: &Arc<Task>, pid: i32, status: UserPtr<i32>, options: i32, usage: UserPtr<Rusage>) -> SysResult {
    use wait_flag::*;
    if options & !(NOHANG | UNTRACED | CONTINUED | NOTHREAD | WALL | WCLONE) != 0 {
        return Err(Errno::EINVAL);
    }
    let which = which_of(task, pid)?;
    wait_for(task, which, options | EXITED, status.address(), usage.address(), |task, change, status, usage, _| {
        let Some(c) = change else { return Ok(0) };
        UserPtr::<i32>::new(status).write_if(task, &c.status)?;
        UserPtr::<Rusage>::new(usage).write_if(task, &Rusage::of(&c.usage))?;
        Ok(i64::from(c.shown))
    })
}

fn waitid(task: &Arc<Task>, kind: i32, id: i32, info: UserPtr<u8>, options: i32, usage: UserPtr<Rusage>) -> SysResult {
    use wait_flag::*;
    if options & !(NOHANG | STOPPED | EXITED | CONTINUED | NOWAIT | NOTHREAD | WALL | WCLONE) != 0
        || options & (STOPPED | EXITED | CONTINUED) == 0
    {
        return Err(Errno::EINVAL);
    }
    let mut at_once = false;
    let which = match kind {
        3 if id >= 0 => {
            let (group, nonblocking) = super::pidfd::process(task, Fd(id))?;
            // Threads are not waited for.
            let file = task.files().get(id)?;
            let group = group.filter(|_| file.ops_as::<PidFd>().is_none_or(|p| !p.is_of_thread()));
            at_once = nonblocking && options & NOHANG == 0;
            WaitFor::Pid(group.ok_or(Errno::ECHILD)?.pid)
        }
        0 => WaitFor::Any,
        1 if id > 0 => WaitFor::Pid(task.id_of(id)),
        2 if id > 0 => WaitFor::Group(task.id_of(id)),
        2 if id == 0 => which_of(task, 0)?,
        _ => return Err(Errno::EINVAL),
    };
    if at_once && exit::look(task, which, options | NOWAIT)?.is_none() {
        return Err(Errno::EAGAIN);
    }
    wait_for(task, which, options, info.address(), usage.address(), |task, change, info, usage, _| {
        if info != 0 {
            // Only the fields that waitid fills; the rest of the caller's siginfo is zeroed as glibc expects.
            let s = match change {
                None => [0u8; 128],
                Some(c) => {
                    let value = match c.code {
                        signal::code::CLD_EXITED => (c.status >> 8) & 0xff,
                        signal::code::CLD_STOPPED => (c.status >> 8) & 0xff,
                        signal::code::CLD_TRAPPED => c.status >> 8,
                        signal::code::CLD_CONTINUED => sig::CONT,
                        _ => c.status & 0x7f,
                    };
                    SigInfo::child(c.code, c.shown, task.creds().shown_uid(c.uid), value).to_bytes()
                }
            };
            task.write_exact(info, &s)?;
        }
        if let Some(c) = change {
            UserPtr::<Rusage>::new(usage).write_if(task, &Rusage::of(&c.usage))?;
        }
        Ok(0)
    })
}

fn getpid(task: &Arc<Task>) -> SysResult {
    value(task.shown(task.pid()))
}

fn gettid(task: &Arc<Task>) -> SysResult {
    value(task.shown(task.tid()))
}

fn getppid(task: &Arc<Task>) -> SysResult {
    let parent = task.kernel().tree.lock().node(task.pid()).map_or(0, |n| n.parent);
    value(task.shown(parent))
}

fn set_tid_address(task: &Arc<Task>, at: u64) -> SysResult {
    task.state.lock().clear_tid = at;
    value(task.shown(task.tid()))
}

fn own_or(task: &Task, pid: i32) -> i32 {
    if pid == 0 { task.pid() } else { task.id_of(pid) }
}

fn getpgid(task: &Arc<Task>, pid: i32) -> SysResult {
    let pgid = task.kernel().tree.lock().node(own_or(task, pid)).ok_or(Errno::ESRCH)?.pgid;
    value(task.shown(pgid))
}

fn getpgrp(task: &Arc<Task>) -> SysResult {
    getpgid(task, 0)
}

fn getsid(task: &Arc<Task>, pid: i32) -> SysResult {
    let sid = task.kernel().tree.lock().node(own_or(task, pid)).ok_or(Errno::ESRCH)?.sid;
    value(task.shown(sid))
}

fn setpgid(task: &Arc<Task>, pid: i32, pgid: i32) -> SysResult {
    let pid = own_or(task, pid);
    let pgid = if pgid == 0 { pid } else { task.id_of(pgid) };
    if pgid < 0 {
        return Err(Errno::EINVAL);
    }
    let mut tree = task.kernel().tree.lock();
    let my_sid = tree.node(task.pid()).map_or(0, |n| n.sid);
    let node = tree.node(pid).ok_or(Errno::ESRCH)?;
    if pid != task.pid() {
        if node.parent != task.pid() {
            return Err(Errno::ESRCH);
        }
        if node.sid != my_sid {
            return Err(Errno::EPERM);
        }
        if node.executed {
            return Err(Errno::EACCES);
        }
    }
    if node.sid == pid || (pgid != pid && tree.session_of(pgid) != Some(my_sid)) {
        return Err(Errno::EPERM);
    }
    let before = tree.node_mut(pid).map(|n| std::mem::replace(&mut n.pgid, pgid));
    before.into_iter().for_each(|id| tree.release(id));
    done()
}

fn setsid(task: &Arc<Task>) -> SysResult {
    let pid = task.pid();
    let mut tree = task.kernel().tree.lock();
    if !tree.members(pid).is_empty() {
        return Err(Errno::EPERM);
    }
    let of = |n: &mut Node| [std::mem::replace(&mut n.pgid, pid), std::mem::replace(&mut n.sid, pid)];
    let before = tree.node_mut(pid).map(of);
    before.into_iter().flatten().for_each(|id| tree.release(id));
    value(task.shown(pid))
}

/// `struct rlimit64`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
struct RLimit {
    soft: u64,
    hard: u64,
}

fn set_limit(task: &Task, group: &Arc<Group>, which: u32, new: RLimit) -> Result<(), Errno> {
    let i = which as usize;
    let old = group.limit(i);
    if new.soft > new.hard {
        return Err(Errno::EINVAL);
    }
    if new.hard > old.hard && !task.creds().capable(cap::SYS_RESOURCE) {
        return Err(Errno::EPERM);
    }
    if i == rlimit::NOFILE && new.hard > 1_048_576 {
        return Err(Errno::EPERM);
    }
    if let Some(l) = group.limits.write().get_mut(i) {
        *l = Limit { soft: new.soft, hard: new.hard };
    }
    if i == rlimit::CPU {
        itimer::watch_limit(task.kernel(), group);
    }
    Ok(())
}

fn prlimit64(task: &Arc<Task>, pid: i32, which: u32, new: UserPtr<RLimit>, old: UserPtr<RLimit>) -> SysResult {
    if which as usize >= LIMITS {
        return Err(Errno::EINVAL);
    }
    let pid = task.id_of(pid);
    let group = if pid == 0 || pid == task.pid() {
        task.group().clone()
    } else {
        let target = task.kernel().tree.lock().task(pid).ok_or(Errno::ESRCH)?;
        let (s, t) = (task.creds(), target.creds());
        let same = [t.ruid, t.euid, t.suid].iter().all(|u| *u == s.ruid);
        if !same && !s.capable_in(&t.user_ns, cap::SYS_RESOURCE) {
            return Err(Errno::EPERM);
        }
        target.group().clone()
    };
    let before = group.limit(which as usize);
    if !new.is_null() {
        set_limit(task, &group, which, new.read(task)?)?;
    }
    old.write_if(task, &RLimit { soft: before.soft, hard: before.hard })?;
    done()
}

fn getrlimit(task: &Arc<Task>, which: u32, to: UserPtr<RLimit>) -> SysResult {
    prlimit64(task, 0, which, UserPtr::new(0), to)
}

fn setrlimit(task: &Arc<Task>, which: u32, from: UserPtr<RLimit>) -> SysResult {
    let new = from.read(task)?;
    if which as usize >= LIMITS {
        return Err(Errno::EINVAL);
    }
    set_limit(task, task.group(), which, new)?;
    done()
}

fn getrusage(task: &Arc<Task>, who: i32, to: UserPtr<Rusage>) -> SysResult {
    let usage = match who {
        // RUSAGE_SELF
        0 => task.group().usage_now(),
        // RUSAGE_CHILDREN
        -1 => *task.group().children_usage.lock(),
        // RUSAGE_THREAD
        1 => {
            let (user, system) = task.cpu_times();
            let most_resident = task.group().usage_now().most_resident;
            Usage { user, system, most_resident, counted: task.counters.counted() }
        }
        _ => return Err(Errno::EINVAL),
    };
    to.write(task, &Rusage::of(&usage))?;
    done()
}

fn arch_prctl(task: &Arc<Task>, option: i32, address: u64) -> SysResult {
    match option {
        // ARCH_SET_FS, ARCH_SET_GS
        0x1002 | 0x1001 => {
            if address >= 0x7fff_ffff_f000 {
                return Err(Errno::EPERM);
            }
            // Patched call sites find their thread by %gs.
            if option == 0x1001 && !task.mm().sites.turn_off() {
                tracing::warn!("ARCH_SET_GS in a process with patched call sites: run it with --patch off");
                return Err(Errno::EPERM);
            }
            let base = if option == 0x1001 { &task.gs_base } else { &task.fs_base };
            base.store(address, Ordering::Relaxed);
            Ok(Outcome::Special(Special::PassThrough))
        }
        // ARCH_GET_GS: the base is the stub's own until the container sets one.
        0x1004 if !task.mm().sites.is_off() => {
            task.write_exact(address, &[0; 8])?;
            done()
        }
        // ARCH_GET_FS, ARCH_GET_GS: the host writes where the caller says, in the caller's own memory.
        0x1003 | 0x1004 => Ok(Outcome::Special(Special::PassThrough)),
        // ARCH_GET_CPUID
        0x1011 => value(1),
        _ => Err(Errno::EINVAL),
    }
}

fn prctl(task: &Arc<Task>, option: i32, a: u64, b: u64, c: u64, d: u64) -> SysResult {
    let group = task.group();
    match option {
        // PR_SET_PDEATHSIG
        1 => {
            let signal = i32::try_from(a).ok().filter(|s| *s == 0 || signal::valid(*s)).ok_or(Errno::EINVAL)?;
            task.state.lock().death_signal = signal;
            done()
        }
        2 => {
            let signal = task.state.lock().death_signal;
            UserPtr::<i32>::new(a).write(task, &signal)?;
            done()
        }
        // PR_GET_DUMPABLE, PR_SET_DUMPABLE
        3 => value(group.dumpable.load(Ordering::Relaxed)),
        4 => {
            if a > 1 {
                return Err(Errno::EINVAL);
            }
            group.dumpable.store(a as i32, Ordering::Relaxed);
            done()
        }
        // PR_GET_KEEPCAPS, PR_SET_KEEPCAPS
        7 => value(i32::from(task.creds().securebits & secure::KEEP_CAPS != 0)),
        8 => {
            if a > 1 {
                return Err(Errno::EINVAL);
            }
            let mut new = (*task.creds()).clone();
            if new.securebits & secure::KEEP_CAPS << 1 != 0 {
                return Err(Errno::EPERM);
            }
            new.securebits = new.securebits & !secure::KEEP_CAPS | if a == 1 { secure::KEEP_CAPS } else { 0 };
            task.set_creds(new);
            done()
        }
        // PR_SET_NAME, PR_GET_NAME
        15 => {
            let mut name = [0u8; 16];
            let n = task.read_memory(a, &mut name)?;
            let name: Vec<u8> = name.iter().take(n.min(15)).take_while(|b| **b != 0).copied().collect();
            *task.comm.write() = name;
            done()
        }
        16 => {
            let mut name = task.comm.read().clone();
            name.resize(16, 0);
            task.write_exact(a, &name)?;
            done()
        }
        // PR_CAPBSET_READ, PR_CAPBSET_DROP
        23 => {
            let bit = u32::try_from(a).ok().filter(|c| *c <= cap::LAST).ok_or(Errno::EINVAL)?;
            value((task.creds().bounding >> bit) & 1)
        }
        24 => {
            let bit = u32::try_from(a).ok().filter(|c| *c <= cap::LAST).ok_or(Errno::EINVAL)?;
            if !task.creds().has(cap::SETPCAP) {
                return Err(Errno::EPERM);
            }
            let mut new = (*task.creds()).clone();
            new.bounding &= !(1 << bit);
            task.set_creds(new);
            done()
        }
        // PR_GET_TIMING, PR_SET_TIMING: statistical times and no others.
        13 => done(),
        14 if a == 0 => done(),
        // PR_GET_TSC, PR_SET_TSC: the counter can always be read.
        25 => {
            UserPtr::<i32>::new(a).write(task, &1)?;
            done()
        }
        26 if a == 1 => done(),
        // PR_TASK_PERF_EVENTS_DISABLE, PR_TASK_PERF_EVENTS_ENABLE: of none.
        31 | 32 => done(),
        // PR_MCE_KILL_GET: the default.
        34 if a | b | c | d == 0 => value(2),
        // PR_SET_MM; PR_SET_IO_FLUSHER, PR_GET_IO_FLUSHER.
        35 | 57 | 58 if !task.creds().capable(cap::SYS_RESOURCE) => Err(Errno::EPERM),
        58 if a | b | c | d == 0 => done(),
        // PR_GET_MDWE, PR_GET_MEMORY_MERGE: off.
        66 | 68 if a | b | c | d == 0 => done(),
        // PR_GET_TID_ADDRESS
        40 => {
            let at = task.state.lock().clear_tid;
            UserPtr::<u64>::new(a).write(task, &at)?;
            done()
        }
        // PR_GET_AUXV
        0x4155_5856 if c | d == 0 => {
            let auxv = task.mm().layout().auxv;
            let len = usize::try_from(b).unwrap_or(usize::MAX).min(auxv.len());
            task.write_exact(a, auxv.get(..len).unwrap_or_default())?;
            value(auxv.len())
        }
        // PR_GET_SECCOMP, PR_SET_SECCOMP
        21 => value(task.seccomp.mode() as u8),
        22 => super::seccomp::prctl(task, a, UserPtr::new(b)),
        // PR_GET_SECUREBITS, PR_SET_SECUREBITS
        27 => value(task.creds().securebits),
        28 => {
            let mut new = (*task.creds()).clone();
            let bits = u32::try_from(a).ok().filter(|b| b & !secure::ALL == 0).ok_or(Errno::EPERM)?;
            let changed = new.securebits ^ bits;
            let locked = (new.securebits & secure::LOCKS) >> 1;
            let free = new.has(cap::SETPCAP) || (changed != 0 && changed & !secure::UNPRIVILEGED == 0);
            if locked & changed != 0 || new.securebits & secure::LOCKS & !bits != 0 || !free {
                return Err(Errno::EPERM);
            }
            new.securebits = bits;
            task.set_creds(new);
            done()
        }
        // PR_SET_TIMERSLACK, PR_GET_TIMERSLACK: kept; timers here have none.
        29 => {
            let mut state = task.state.lock();
            state.timer_slack = if a == 0 { state.schedule.first_slack } else { Some(a) };
            done()
        }
        30 => value(task.state.lock().timer_slack.unwrap_or(50_000)),
        // PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER
        36 => {
            group.subreaper.store(a != 0, Ordering::Relaxed);
            done()
        }
        37 => {
            let on = i32::from(group.subreaper.load(Ordering::Relaxed));
            UserPtr::<i32>::new(a).write(task, &on)?;
            done()
        }
        // PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS
        38 => {
            if a != 1 || b != 0 || c != 0 || d != 0 {
                return Err(Errno::EINVAL);
            }
            task.bind_privileges();
            done()
        }
        39 if a != 0 || b != 0 || c != 0 || d != 0 => Err(Errno::EINVAL),
        39 => value(i32::from(task.creds().no_new_privileges)),
        // PR_SET_THP_DISABLE, PR_GET_THP_DISABLE
        41 if b != 0 || c != 0 || d != 0 => Err(Errno::EINVAL),
        41 => {
            group.thp_disabled.store(i32::from(a != 0), Ordering::Relaxed);
            done()
        }
        42 if a != 0 || b != 0 || c != 0 || d != 0 => Err(Errno::EINVAL),
        42 => value(group.thp_disabled.load(Ordering::Relaxed)),
        // PR_CAP_AMBIENT
        47 => ambient(task, a, b, c | d),
        // PR_SET_VMA: names of anonymous memory are not kept, as on a kernel without CONFIG_ANON_VMA_NAME.
        0x5356_4d41 => Err(Errno::EINVAL),
        _ => Err(Errno::EINVAL),
    }
}

fn ambient(task: &Task, op: u64, which: u64, rest: u64) -> SysResult {
    let mut new = (*task.creds()).clone();
    if rest != 0 || (op == 4 && which != 0) {
        return Err(Errno::EINVAL);
    }
    if op == 4 {
        new.ambient = 0;
        task.set_creds(new);
        return done();
    }
    let bit = u32::try_from(which).ok().filter(|c| *c <= cap::LAST).map(|c| 1u64 << c).ok_or(Errno::EINVAL)?;
    match op {
        1 => return value(i32::from(new.ambient & bit != 0)),
        2 => {
            if new.permitted & new.inheritable & bit == 0 || new.securebits & secure::NO_CAP_AMBIENT_RAISE != 0 {
                return Err(Errno::EPERM);
            }
            new.ambient |= bit;
        }
        3 => new.ambient &= !bit,
        _ => return Err(Errno::EINVAL),
    }
    task.set_creds(new);
    done()
}

fn restart_syscall(task: &Arc<Task>) -> SysResult {
    match task.state.lock().restart.take() {
        Some(restart) => Ok(Outcome::Block(restart())),
        None => Err(Errno::EINTR),
    }
}

/// The process calls.
pub const TABLE: &[Entry] = &[
    entry!(39, "getpid", Full, "", getpid()),
    entry!(56, "clone", Partial, "no time namespaces", clone(u64, u64, u64, u64, u64)),
    entry!(57, "fork", Full, "", fork()),
    entry!(58, "vfork", Full, "", vfork()),
    entry!(59, "execve", Full, "", execve(UserStr, UserPtr<u64>, UserPtr<u64>)),
    entry!(60, "exit", Full, "", exit_call(i32)),
    entry!(61, "wait4", Partial, "usage as getrusage", wait4(i32, UserPtr<i32>, i32, UserPtr<Rusage>)),
    entry!(97, "getrlimit", Full, "", getrlimit(u32, UserPtr<RLimit>)),
    entry!(98, "getrusage", Partial, "no major faults, blocks, forced switches", getrusage(i32, UserPtr<Rusage>)),
    entry!(109, "setpgid", Full, "", setpgid(i32, i32)),
    entry!(110, "getppid", Full, "", getppid()),
    entry!(111, "getpgrp", Full, "", getpgrp()),
    entry!(112, "setsid", Full, "", setsid()),
    entry!(121, "getpgid", Full, "", getpgid(i32)),
    entry!(124, "getsid", Full, "", getsid(i32)),
    entry!(157, "prctl", Partial, "options that sandboxed software uses", prctl(i32, u64, u64, u64, u64)),
    entry!(
        158,
        "arch_prctl",
        Partial,
        "ARCH_SET_GS is EPERM once call sites are patched (--patch off)",
        arch_prctl(i32, u64)
    ),
    entry!(160, "setrlimit", Full, "", setrlimit(u32, UserPtr<RLimit>)),
    entry!(186, "gettid", Full, "", gettid()),
    entry!(218, "set_tid_address", Full, "", set_tid_address(u64)),
    entry!(219, "restart_syscall", Full, "", restart_syscall()),
    entry!(231, "exit_group", Full, "", exit_group(i32)),
    entry!(247, "waitid", Partial, "as wait4", waitid(i32, i32, UserPtr<u8>, i32, UserPtr<Rusage>)),
    entry!(302, "prlimit64", Full, "", prlimit64(i32, u32, UserPtr<RLimit>, UserPtr<RLimit>)),
    entry!(322, "execveat", Full, "", execveat(Fd, UserStr, UserPtr<u64>, UserPtr<u64>, i32)),
    entry!(435, "clone3", Partial, "as clone", clone3(UserPtr<CloneArgs>, usize)),
];
