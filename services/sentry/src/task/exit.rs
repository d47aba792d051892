//! The end of tasks and processes, stops and continuation, and what parents learn of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cofferdam_platform::Answer;

use super::group::{Group, Life};
use super::ptrace::attach;
use super::usage::Usage;
use super::{Task, clone};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::AddressSpace;
use crate::memory::kept::Departed;
use crate::namespaces::PidNamespace;
use crate::signal::{SIG_IGN, SigInfo, code, sa, send, sig};
use crate::vfs::{FdTable, FsContext};
use crate::wait::PollMask;

/// Ends all threads of a process with a wait status (`code << 8`, or the signal).
pub fn exit_group(task: &Arc<Task>, status: i32) {
    let group = task.group().clone();
    // Asked for while the host process is still there.
    let usage = group.usage_at_end();
    {
        let mut life = group.life.lock();
        if *life != Life::Alive {
            return;
        }
        *group.final_usage.lock() = usage;
        *life = Life::Exiting(status);
    }
    task.kernel().ended.lock().add(&usage);
    task.group().cgroup.ended.lock().add(&usage);
    let tasks = group.tasks();
    // Locks in memory that others share are given up while the lists of them can still be read.
    tasks.iter().for_each(release_robust);
    if let Some(host) = tasks.iter().find_map(|t| t.host()) {
        host.keep(Arc::new(Departed { mm: task.mm(), tids: tasks.iter().map(|t| t.tid()).collect() }));
        host.kill();
    }
    for t in &tasks {
        // Threads that shared the process but not the host process (none today) end one by one.
        end_task(t, status, true);
    }
}

/// Ends one thread (`exit(2)`); the last ends the process with `status`. The answer for the host thread.
pub fn exit_thread(task: &Arc<Task>, status: i32) -> Answer {
    if task.exited.load(Ordering::SeqCst) {
        // Another thread ended it (exec), and has the process to itself.
        return Answer::Exit;
    }
    let last = task.group().threads.lock().iter().all(|t| Arc::ptr_eq(t, task));
    if last {
        exit_group(task, status);
        return Answer::Park;
    }
    end_task(task, status, false);
    Answer::Exit
}

/// Gives up the locks on a task's robust list.
pub(crate) fn release_robust(task: &Arc<Task>) {
    let robust = std::mem::take(&mut task.state.lock().robust_list);
    if robust != 0 {
        crate::ipc::futex::exit_robust_list(task, robust);
    }
}

/// Takes a task out of everything.
fn end_task(task: &Arc<Task>, status: i32, whole: bool) {
    if task.exited.swap(true, Ordering::SeqCst) {
        return;
    }
    let kernel = task.kernel().clone();
    task.drop_blocked();
    attach::ended(task, status);
    let (clear_tid, vfork) = {
        let mut s = task.state.lock();
        (std::mem::take(&mut s.clear_tid), s.vfork.take())
    };
    // The memory is still there unless the host process was killed; a futex in shared memory may have waiters elsewhere.
    if !whole {
        release_robust(task);
    }
    if clear_tid != 0 && !whole && task.write_exact(clear_tid, &0i32.to_le_bytes()).is_ok() {
        crate::ipc::futex::wake_address(task, clear_tid, 1);
    }
    kernel.pi_locks.owner_died(task.tid());
    task.set_files(Arc::new(FdTable::default()));
    task.set_fs(FsContext::nowhere());
    task.seccomp.release();
    task.set_host(None);
    let group = task.group().clone();
    group.thread_ended(task);
    kernel.ran_before.fetch_add(task.counters.counted().ran, Ordering::Relaxed);
    let left = {
        let mut threads = group.threads.lock();
        threads.retain(|t| !Arc::ptr_eq(t, task));
        threads.len()
    };
    if group.pending_set.load(Ordering::SeqCst) != 0 {
        // What it would have taken is for others now.
        group.tasks().iter().for_each(Task::get_attention);
    }
    kernel.tree.lock().remove_task(task.tid());
    // For descriptors of the thread.
    group.ended.wake(PollMask::empty());
    if let Some(vfork) = vfork {
        vfork.release();
    }
    if left == 0 {
        // Before anybody learns of the end.
        task.mm().write_back();
        task.ipc().sysv.exit(group.pid);
        crate::ipc::sysv::shm::exit(&task.ipc(), group.pid);
        let name = task.comm.read().clone();
        *group.epitaph.lock() = Some((name, task.creds()));
    }
    if !whole {
        // Else its host process may go on for a moment: see `Departed`.
        task.mm().settle(task.tid());
    }
    // One that never came may come yet: its memory goes with the platform's last reference to it.
    if task.state.lock().begin.is_none() {
        task.set_mm(AddressSpace::new(0, 0));
    }
    if left == 0 {
        // What it had open and mapped is given back: whoever waits for its end may unmount what it was on.
        end_process(&kernel, &group, status);
    }
}

/// The last thread is gone: the process becomes a zombie, or nothing if nobody wants to know.
fn end_process(kernel: &Arc<Kernel>, group: &Arc<Group>, status: i32) {
    let status = match *group.life.lock() {
        Life::Exiting(s) => s,
        _ => status,
    };
    let pid = group.pid;
    super::itimer::stop(group);
    super::timers::clear(group);
    // Whoever waits for the end may write to the program's file at once.
    let program = group.exe.write().take();
    drop(program);
    if group.first.load(Ordering::Relaxed) && pid != 1 {
        // Before anybody can wait for it.
        end_namespace(kernel, group);
    }
    *group.life.lock() = Life::Zombie(status);
    attach::process_ended(kernel, group, status);
    group.stopped.store(false, Ordering::SeqCst);

    let (parent, exit_signal, orphans, was_leader, hangups) = {
        let mut tree = kernel.tree.lock();
        let Some(node) = tree.node(pid) else { return };
        let (parent, exit_signal, pgid, sid) = (node.parent, node.exit_signal, node.pgid, node.sid);
        // Process groups that this exit orphans: its own, and its children's.
        let mut watched: Vec<i32> = vec![pgid];
        watched.extend(node.children.iter().filter_map(|c| tree.node(*c)).map(|n| n.pgid));
        watched.sort_unstable();
        watched.dedup();
        let before: Vec<(i32, bool)> = watched.iter().map(|g| (*g, tree.orphaned(*g, 0))).collect();
        let heir = reaper(&tree, pid);
        let orphans = tree.reparent(pid, heir);
        let hangups: Vec<i32> =
            before.into_iter().filter(|(g, was)| !was && tree.orphaned(*g, pid)).map(|(g, _)| g).collect();
        (parent, exit_signal, orphans, sid == pid, hangups)
    };
    for g in hangups {
        let stopped = kernel.tree.lock().members(g).iter().any(|m| m.pid != pid && m.stopped.load(Ordering::SeqCst));
        if stopped {
            send::to_process_group(kernel, g, SigInfo::new(sig::HUP, code::KERNEL));
            send::to_process_group(kernel, g, SigInfo::new(sig::CONT, code::KERNEL));
        }
    }
    if was_leader {
        crate::task::session_leader_exits(kernel, pid);
    }
    // Children that had asked to be told, and zombies that now have another parent.
    for c in orphans {
        let (child, heir) = {
            let tree = kernel.tree.lock();
            let Some(n) = tree.node(c) else { continue };
            (n.group.clone(), n.parent)
        };
        for t in child.tasks() {
            let signal = t.state.lock().death_signal;
            if signal != 0 {
                send::to_task(&t, SigInfo::from_process(signal, code::USER, pid, owner_of(group)));
            }
        }
        // That of a tracee is its tracer's first.
        if child.is_zombie() && child.traced_by.load(Ordering::SeqCst) == 0 {
            notify_parent(kernel, &child, heir, sig::CHLD);
        }
    }
    group.ended.wake(PollMask::empty());
    if pid == 1 {
        // The container ends with its first process.
        let others: Vec<_> = kernel.tree.lock().tasks();
        for t in others {
            exit_group(&t, sig::KILL);
        }
    } else {
        notify_parent(kernel, group, parent, exit_signal);
    }
    if parent == 0
        && let Some(told) = kernel.outer_exit.get()
    {
        told(pid, status);
    }
}

/// Who adopts the children of `pid`: the nearest subreaper above it in its PID namespace, or the first process there.
fn reaper(tree: &super::tree::Tree, pid: i32) -> i32 {
    let space = tree.node(pid).map(|n| n.group.pid_ns.clone());
    let mut at = tree.node(pid).map_or(0, |n| n.parent);
    while let Some(n) = tree.node(at) {
        if space.as_ref().is_none_or(|s| !Arc::ptr_eq(s, &n.group.pid_ns)) {
            break;
        }
        if n.group.subreaper.load(Ordering::Relaxed) && !n.group.is_exiting() {
            return at;
        }
        at = n.parent;
    }
    // The first process of a namespace that ends itself has nobody there.
    let around = |s: &Arc<PidNamespace>| s.parent.as_ref().map_or(1, |p| p.init());
    space.map_or(1, |s| if s.init() == pid { around(&s) } else { s.init() })
}

/// A PID namespace ends with its first process: all in it are killed, and nobody waits for them any more.
fn end_namespace(kernel: &Arc<Kernel>, first: &Arc<Group>) {
    first.pid_ns.close();
    let others: Vec<_> = {
        let tree = kernel.tree.lock();
        tree.tasks().into_iter().filter(|t| t.group().pid_ns.is_within(&first.pid_ns)).collect()
    };
    for t in others.iter().filter(|t| !Arc::ptr_eq(t.group(), first)) {
        exit_group(t, sig::KILL);
    }
    let mut tree = kernel.tree.lock();
    let children = tree.node(first.pid).map(|n| n.children.clone()).unwrap_or_default();
    for c in children {
        if tree.group(c).is_some_and(|g| g.is_zombie()) {
            tree.remove_process(c);
        }
    }
}

/// The tracer of a process that has ended is gone, or has waited for it: it is its parent's now.
pub(crate) fn release_zombie(kernel: &Arc<Kernel>, group: &Arc<Group>) {
    let node = kernel.tree.lock().node(group.pid).map(|n| (n.parent, n.exit_signal));
    if let Some((parent, exit_signal)) = node {
        notify_parent(kernel, group, parent, exit_signal);
    }
}

/// Tells a parent that a child ended, or its tracer first; reaps it at once if the parent does not care.
fn notify_parent(kernel: &Arc<Kernel>, group: &Arc<Group>, parent: i32, exit_signal: i32) {
    let (parent, exit_signal, traced) = match group.traced_by.load(Ordering::SeqCst) {
        0 => (parent, exit_signal, false),
        tracer if tracer == parent => (parent, exit_signal, true),
        tracer => (tracer, sig::CHLD, true),
    };
    let parent_group = kernel.tree.lock().group(parent);
    let Some(parent_group) = parent_group else {
        kernel.tree.lock().remove_process(group.pid);
        return;
    };
    let Life::Zombie(status) = *group.life.lock() else { return };
    let actions = parent_group.leader().map(|t| t.actions());
    let action = actions.map(|a| a.lock().get(sig::CHLD)).unwrap_or_default();
    let ignores = exit_signal == sig::CHLD && (action.handler == SIG_IGN || action.flags & sa::NOCLDWAIT != 0);
    if exit_signal != 0 && !(ignores && action.handler == SIG_IGN) {
        let (code, value) = child_status(status);
        let mut info = SigInfo::child(code, group.pid, owner_of(group), value);
        info.signo = exit_signal;
        send::to_group(kernel, &parent_group, info);
    }
    if ignores && !traced {
        kernel.tree.lock().remove_process(group.pid);
    }
    parent_group.child_change.wake_all();
}

/// The real user of a process, also of one that has ended.
fn owner_of(group: &Group) -> u32 {
    group.creds().map_or(0, |c| c.ruid)
}

/// `si_code` and `si_status` of a wait status.
pub fn child_status(status: i32) -> (i32, i32) {
    match status & 0x7f {
        0 => (code::CLD_EXITED, (status >> 8) & 0xff),
        s if status & 0x80 != 0 => (code::CLD_DUMPED, s),
        s => (code::CLD_KILLED, s),
    }
}

/// Stops a process with a signal.
pub fn stop_group(task: &Arc<Task>, signo: i32) {
    let group = task.group();
    {
        let mut stop = group.stop.lock();
        stop.signal = signo;
        stop.stop_unseen = true;
        stop.continue_unseen = false;
        group.stopped.store(true, Ordering::SeqCst);
    }
    for t in group.tasks() {
        t.trace_group_stop(signo);
        if !Arc::ptr_eq(&t, task) {
            t.get_attention();
        }
    }
    tell_parent_of_stop(task.kernel(), group, code::CLD_STOPPED, signo);
}

/// Continues a stopped process (SIGCONT).
pub fn continue_group(kernel: &Arc<Kernel>, group: &Arc<Group>) {
    {
        let mut stop = group.stop.lock();
        if stop.signal == 0 {
            return;
        }
        stop.signal = 0;
        stop.stop_unseen = false;
        stop.continue_unseen = true;
        group.stopped.store(false, Ordering::SeqCst);
    }
    for t in group.tasks() {
        t.leave_stop();
    }
    tell_parent_of_stop(kernel, group, code::CLD_CONTINUED, sig::CONT);
}

fn tell_parent_of_stop(kernel: &Arc<Kernel>, group: &Arc<Group>, code: i32, status: i32) {
    let parent = {
        let tree = kernel.tree.lock();
        tree.node(group.pid).and_then(|n| tree.group(n.parent))
    };
    // Who traces it is told of each thread's stop.
    let tracer = group.traced_by.load(Ordering::SeqCst);
    if code == code::CLD_STOPPED && parent.as_ref().is_some_and(|p| p.pid == tracer) {
        return;
    }
    let Some(parent) = parent else {
        crate::task::outer_stopped(kernel, group.pid, code, status);
        return;
    };
    let action = parent.leader().map(|t| t.actions().lock().get(sig::CHLD)).unwrap_or_default();
    if action.flags & sa::NOCLDSTOP == 0 {
        send::to_group(kernel, &parent, SigInfo::child(code, group.pid, owner_of(group), status));
    }
    parent.child_change.wake_all();
}

/// Which children a wait is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitFor {
    /// Any.
    Any,
    /// One process.
    Pid(i32),
    /// Members of a process group.
    Group(i32),
}

/// Options of `wait4(2)` and `waitid(2)`.
#[allow(missing_docs)]
pub mod wait_flag {
    pub const NOHANG: i32 = 1;
    pub const UNTRACED: i32 = 2;
    pub const STOPPED: i32 = 2;
    pub const EXITED: i32 = 4;
    pub const CONTINUED: i32 = 8;
    pub const NOWAIT: i32 = 0x0100_0000;
    pub const NOTHREAD: i32 = 0x2000_0000;
    pub const WALL: i32 = 0x4000_0000;
    pub const WCLONE: i32 = i32::MIN;
}

/// A child that changed state.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// Its id.
    pub pid: i32,
    /// Its id as the parent sees it.
    pub shown: i32,
    /// Its real user.
    pub uid: u32,
    /// `CLD_*`.
    pub code: i32,
    /// Wait status as `wait4` gives it.
    pub status: i32,
    /// What it and its own children used; nothing before it ended.
    pub usage: Usage,
}

/// Looks for a child that changed state as asked; consumes the change unless NOWAIT. ECHILD if there is none to wait for.
pub fn look(task: &Arc<Task>, which: WaitFor, options: i32) -> Result<Option<Change>, Errno> {
    use wait_flag::*;
    let kernel = task.kernel();
    let mut tree = kernel.tree.lock();
    let (mut any, tracee) = look_at_tracees(task, &tree, which, options);
    if let Some((change, ended)) = tracee {
        if let Some(group) = ended.filter(|_| options & NOWAIT == 0) {
            if tree.node(group.pid).is_some_and(|n| n.parent == task.pid()) {
                tree.remove_process(group.pid);
                drop(tree);
                task.group().children_usage.lock().add(&change.usage);
            } else {
                drop(tree);
                release_zombie(kernel, &group);
            }
        }
        return Ok(Some(change));
    }
    let me = tree.node(task.pid()).ok_or(Errno::ECHILD)?;
    let none = Usage::default();
    let of = |g: &Group, code, status, usage| {
        let (pid, shown) = (g.pid, task.shown(g.pid));
        Change { pid, shown, uid: owner_of(g), code, status, usage }
    };
    let mut found = None;
    for c in &me.children {
        let Some(n) = tree.node(*c) else { continue };
        let wanted = match which {
            WaitFor::Any => true,
            WaitFor::Pid(p) => p == *c,
            WaitFor::Group(g) => n.pgid == g,
        };
        // Children whose exit signal is not SIGCHLD are "clone" children.
        let kind = options & WALL != 0 || (options & WCLONE != 0) == (n.exit_signal != sig::CHLD);
        if !wanted || !kind {
            continue;
        }
        let g = n.group.clone();
        if options & NOTHREAD != 0 {
            let maker = tree.task(g.maker.load(Ordering::Relaxed));
            if maker.is_some_and(|m| !Arc::ptr_eq(&m, task) && Arc::ptr_eq(m.group(), task.group())) {
                // Another thread's.
                continue;
            }
        }
        any = true;
        let tracer = g.traced_by.load(Ordering::SeqCst);
        if tracer != 0 && (tracer == task.pid() || g.is_zombie()) {
            // It is its tracer's to wait for.
            continue;
        }
        if let Life::Zombie(status) = *g.life.lock() {
            if options & EXITED != 0 {
                let mut usage = *g.final_usage.lock();
                usage.add(&g.children_usage.lock());
                found = Some((g.clone(), of(&g, child_status(status).0, status, usage), true));
                break;
            }
            continue;
        }
        let mut stop = g.stop.lock();
        if options & STOPPED != 0 && stop.signal != 0 && stop.stop_unseen {
            if options & NOWAIT == 0 {
                stop.stop_unseen = false;
            }
            let status = stop.signal << 8 | 0x7f;
            found = Some((g.clone(), of(&g, code::CLD_STOPPED, status, none), false));
            break;
        }
        if options & CONTINUED != 0 && stop.signal == 0 && stop.continue_unseen {
            if options & NOWAIT == 0 {
                stop.continue_unseen = false;
            }
            found = Some((g.clone(), of(&g, code::CLD_CONTINUED, 0xffff, none), false));
            break;
        }
    }
    if let Some((_, change, dead)) = found {
        if dead && options & NOWAIT == 0 {
            tree.remove_process(change.pid);
            drop(tree);
            task.group().children_usage.lock().add(&change.usage);
        }
        return Ok(Some(change));
    }
    if any { Ok(None) } else { Err(Errno::ECHILD) }
}

/// What changed of a tracee, and its process if that ended.
type Traced = (Change, Option<Arc<Group>>);

/// As [`look`], for what the caller's process traces: whether there is any to wait for, and what changed, with the process if it
/// is that which ended.
fn look_at_tracees(task: &Arc<Task>, tree: &super::tree::Tree, which: WaitFor, options: i32) -> (bool, Option<Traced>) {
    use wait_flag::*;
    let mut any = false;
    let mut list = task.group().tracees.lock();
    for at in 0..list.len() {
        let Some(e) = list.get(at) else { break };
        let (tid, group) = (e.task.tid(), e.task.group().clone());
        let wanted = match which {
            WaitFor::Any => true,
            WaitFor::Pid(p) => p == tid,
            WaitFor::Group(g) => tree.node(group.pid).is_some_and(|n| n.pgid == g),
        };
        if !wanted || (options & NOTHREAD != 0 && !Arc::ptr_eq(&e.tracer, task)) {
            continue;
        }
        any = true;
        if let Some(status) = e.dead {
            if options & EXITED == 0 {
                continue;
            }
            let first = tid == group.pid;
            let mut usage = Usage::default();
            if first {
                usage = *group.final_usage.lock();
                usage.add(&group.children_usage.lock());
            }
            if options & NOWAIT == 0 {
                list.remove(at);
                if first {
                    group.traced_by.store(0, Ordering::SeqCst);
                }
            }
            let (shown, uid) = (task.shown(tid), owner_of(&group));
            let change = Change { pid: tid, shown, uid, code: child_status(status).0, status, usage };
            return (true, Some((change, first.then_some(group))));
        }
        let mut trace = e.task.trace.lock();
        if let Some(stop) = trace.stop.as_mut().filter(|s| !s.seen && !s.listening) {
            stop.seen = options & NOWAIT == 0;
            let (shown, uid, status) = (task.shown(tid), owner_of(&group), stop.code << 8 | 0x7f);
            let change = Change { pid: tid, shown, uid, code: code::CLD_TRAPPED, status, usage: Usage::default() };
            return (true, Some((change, None)));
        }
    }
    (any, None)
}

/// Ends all threads of the caller's process but itself (exec).
pub(crate) fn end_other_threads(task: &Arc<Task>) {
    loop {
        // One that is being ended may just have made another.
        let others: Vec<_> = task.group().tasks().into_iter().filter(|t| !Arc::ptr_eq(t, task)).collect();
        if others.is_empty() {
            break;
        }
        others.iter().for_each(|t| end_task(t, 0, true));
    }
}

/// Lets a `vfork` parent run on.
pub(crate) fn release_vfork(task: &Task) {
    let vfork: Option<Arc<clone::Vfork>> = task.state.lock().vfork.take();
    if let Some(v) = vfork {
        v.release();
    }
}
