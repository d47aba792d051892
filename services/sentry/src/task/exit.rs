//! The end of tasks and processes, stops and continuation, and what parents learn of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cofferdam_platform::Answer;

use super::group::{Group, Life};
use super::{Task, clone};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::AddressSpace;
use crate::memory::kept::Departed;
use crate::signal::{SIG_IGN, SigInfo, code, sa, send, sig};
use crate::vfs::FdTable;
use crate::wait::PollMask;

/// Ends all threads of a process with a wait status (`code << 8`, or the signal).
pub fn exit_group(task: &Arc<Task>, status: i32) {
    let group = task.group().clone();
    // Times are asked for while the host process is still there.
    let cpu = group.cpu_time();
    {
        let mut life = group.life.lock();
        if *life != Life::Alive {
            return;
        }
        *life = Life::Exiting(status);
    }
    let tasks = group.tasks();
    // Locks in memory that others share are given up while the lists of them can still be read.
    tasks.iter().for_each(release_robust);
    group.final_usage.lock().cpu = cpu;
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
    task.set_files(Arc::new(FdTable::default()));
    task.set_host(None);
    let group = task.group().clone();
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
    if let Some(vfork) = vfork {
        vfork.release();
    }
    if left == 0 {
        // Before anybody learns of the end.
        task.mm().write_back();
        let name = task.comm.read().clone();
        *group.epitaph.lock() = Some((name, task.creds()));
        end_process(&kernel, &group, status);
    }
    if !whole {
        // Else its host process may go on for a moment: see `Departed`.
        task.mm().settle(task.tid());
    }
    // One that never came may come yet: its memory goes with the platform's last reference to it.
    if task.state.lock().begin.is_none() {
        task.set_mm(AddressSpace::new(0, 0));
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
    kernel.sysv.exit(pid);
    *group.life.lock() = Life::Zombie(status);
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
                send::to_task(&t, SigInfo::from_process(signal, code::USER, pid, 0));
            }
        }
        if child.is_zombie() {
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
        if let Some(told) = kernel.init_exit.get() {
            told(status);
        }
        return;
    }
    notify_parent(kernel, group, parent, exit_signal);
}

/// Who adopts the children of `pid`: the nearest subreaper above it, or process 1.
fn reaper(tree: &super::tree::Tree, pid: i32) -> i32 {
    let mut at = tree.node(pid).map_or(0, |n| n.parent);
    while let Some(n) = tree.node(at) {
        if n.group.subreaper.load(Ordering::Relaxed) && !n.group.is_exiting() {
            return at;
        }
        at = n.parent;
    }
    1
}

/// Tells a parent that a child ended; reaps it at once if the parent does not care.
fn notify_parent(kernel: &Arc<Kernel>, group: &Arc<Group>, parent: i32, exit_signal: i32) {
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
        let mut info = SigInfo::child(code, group.pid, 0, value);
        info.signo = exit_signal;
        send::to_group(kernel, &parent_group, info);
    }
    if ignores {
        kernel.tree.lock().remove_process(group.pid);
    }
    parent_group.child_change.wake_all();
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
        let parked = t.state.lock().stopped.take();
        if let (Some(rax), Some(host)) = (parked, t.host()) {
            host.answer(Answer::ReturnThenTrap(rax));
        }
    }
    tell_parent_of_stop(kernel, group, code::CLD_CONTINUED, sig::CONT);
}

fn tell_parent_of_stop(kernel: &Arc<Kernel>, group: &Arc<Group>, code: i32, status: i32) {
    let parent = {
        let tree = kernel.tree.lock();
        tree.node(group.pid).and_then(|n| tree.group(n.parent))
    };
    let Some(parent) = parent else {
        crate::task::init_stopped(kernel, code, status);
        return;
    };
    let action = parent.leader().map(|t| t.actions().lock().get(sig::CHLD)).unwrap_or_default();
    if action.flags & sa::NOCLDSTOP == 0 {
        send::to_group(kernel, &parent, SigInfo::child(code, group.pid, 0, status));
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
    /// `CLD_*`.
    pub code: i32,
    /// Wait status as `wait4` gives it.
    pub status: i32,
    /// Its CPU time, nanoseconds.
    pub cpu: i64,
}

/// Looks for a child that changed state as asked; consumes the change unless NOWAIT. ECHILD if there is none to wait for.
pub fn look(task: &Arc<Task>, which: WaitFor, options: i32) -> Result<Option<Change>, Errno> {
    use wait_flag::*;
    let kernel = task.kernel();
    let mut tree = kernel.tree.lock();
    let me = tree.node(task.pid()).ok_or(Errno::ECHILD)?;
    let mut any = false;
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
        any = true;
        let g = n.group.clone();
        if let Life::Zombie(status) = *g.life.lock() {
            if options & EXITED != 0 {
                let cpu = g.final_usage.lock().cpu.saturating_add(g.children_usage.lock().cpu);
                found = Some((g.clone(), Change { pid: *c, code: child_status(status).0, status, cpu }, true));
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
            found = Some((g.clone(), Change { pid: *c, code: code::CLD_STOPPED, status, cpu: 0 }, false));
            break;
        }
        if options & CONTINUED != 0 && stop.signal == 0 && stop.continue_unseen {
            if options & NOWAIT == 0 {
                stop.continue_unseen = false;
            }
            found = Some((g.clone(), Change { pid: *c, code: code::CLD_CONTINUED, status: 0xffff, cpu: 0 }, false));
            break;
        }
    }
    if let Some((_, change, dead)) = found {
        if dead && options & NOWAIT == 0 {
            tree.remove_process(change.pid);
            drop(tree);
            let mut usage = task.group().children_usage.lock();
            usage.cpu = usage.cpu.saturating_add(change.cpu);
        }
        return Ok(Some(change));
    }
    if any { Ok(None) } else { Err(Errno::ECHILD) }
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
