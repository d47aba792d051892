//! Who traces whom: attaching, detaching, and the ends of tracers and tracees.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Trace, event, option};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::signal::{SigInfo, code, send, sig};
use crate::task::clone::{CloneRequest, flag};
use crate::task::creds::may_look_into;
use crate::task::group::Group;
use crate::task::{Task, exit};

/// Tracees, and threads that ended and were not waited for, that a process may have. Beyond that children of tracees are not
/// traced, and nothing can be attached to.
const TRACEES: usize = 32_768;

/// A tracee, in the list of its tracer's process.
pub struct Tracee {
    /// The thread that traces it.
    pub tracer: Arc<Task>,
    /// It.
    pub task: Arc<Task>,
    /// It ended with this wait status: a thread that is not the first, or a process.
    pub dead: Option<i32>,
}

/// Makes `tracee` one of `tracer`'s.
fn link(tracer: &Arc<Task>, tracee: &Arc<Task>, options: u32, seized: bool) -> Result<(), Errno> {
    let mut list = tracer.group().tracees.lock();
    if tracer.exited.load(Ordering::SeqCst) || list.len() >= TRACEES {
        return Err(Errno::EPERM);
    }
    let mut t = tracee.trace.lock();
    if tracee.exited.load(Ordering::SeqCst) || t.tracer.is_some() {
        return Err(Errno::EPERM);
    }
    let (go, poking) = (t.go.take(), t.poking.take());
    *t = Trace { tracer: Some(tracer.clone()), seized, options, go, poking, ..Trace::default() };
    tracee.traced.store(true, Ordering::SeqCst);
    if tracee.tid() == tracee.pid() {
        tracee.group().traced_by.store(tracer.pid(), Ordering::SeqCst);
    }
    list.push(Tracee { tracer: tracer.clone(), task: tracee.clone(), dead: None });
    Ok(())
}

/// Undoes [`link`], of a tracee that was taken off the list.
fn unlink(tracee: &Arc<Task>, signal: Option<i32>) {
    let released = {
        let mut t = tracee.trace.lock();
        tracee.traced.store(false, Ordering::SeqCst);
        tracee.hailed.store(false, Ordering::SeqCst);
        if tracee.tid() == tracee.pid() {
            tracee.group().traced_by.store(0, Ordering::SeqCst);
        }
        // A tracer that had not seen the signal leaves it to the tracee.
        let left = t.stop.as_ref().map_or(0, |s| if s.seen { 0 } else { s.code & 0x7f });
        t.release(signal.unwrap_or(left));
        let (go, poking) = (t.go.take(), t.poking.take());
        let released = go.as_ref().is_some_and(|g| !g.told);
        *t = Trace { go, poking, ..Trace::default() };
        released
    };
    if released { tracee.wake_released() } else { tracee.get_attention() }
}

/// `PTRACE_ATTACH`, or `PTRACE_SEIZE` with options.
pub fn attach(tracer: &Arc<Task>, tracee: &Arc<Task>, seize: Option<u32>) -> Result<(), Errno> {
    if Arc::ptr_eq(tracer.group(), tracee.group()) || !may_look_into(tracer, tracee) {
        return Err(Errno::EPERM);
    }
    link(tracer, tracee, seize.unwrap_or(0), seize.is_some())?;
    // One that is stopped with its process stops for the tracer instead.
    let parked = tracee.state.lock().stopped.take();
    if parked.is_some() || tracee.group().stopped.load(Ordering::SeqCst) {
        tracee.trace.lock().trap_stop = true;
        tracee.hailed.store(true, Ordering::SeqCst);
    }
    if seize.is_none() {
        send::to_task(tracee, SigInfo::new(sig::STOP, code::KERNEL));
    }
    match (parked, tracee.host()) {
        (Some(rax), Some(host)) => host.answer(cofferdam_platform::Answer::ReturnThenTrap(rax)),
        _ => tracee.get_attention(),
    }
    Ok(())
}

/// `PTRACE_TRACEME`.
pub fn trace_me(task: &Arc<Task>) -> Result<(), Errno> {
    let parent = {
        let tree = task.kernel().tree.lock();
        let parent = tree.node(task.pid()).and_then(|n| tree.group(n.parent));
        let maker = tree.task(task.group().maker.load(Ordering::Relaxed));
        match (parent, maker) {
            (Some(parent), Some(maker)) if Arc::ptr_eq(maker.group(), &parent) => Some(maker),
            (Some(parent), _) => parent.leader(),
            (None, _) => None,
        }
    };
    let parent = parent.filter(|p| may_look_into(p, task)).ok_or(Errno::EPERM)?;
    link(&parent, task, 0, false)
}

/// `PTRACE_DETACH`: of a tracee that is stopped.
pub fn detach(tracer: &Arc<Task>, tracee: &Arc<Task>, signal: i32) -> Result<(), Errno> {
    tracee.with_stop(tracer, |_, _| Ok(()))?;
    forget(tracer, tracee);
    unlink(tracee, Some(signal));
    Ok(())
}

/// Takes a tracee off its tracer's list.
fn forget(tracer: &Task, tracee: &Arc<Task>) {
    tracer.group().tracees.lock().retain(|e| !Arc::ptr_eq(&e.task, tracee));
}

/// What a clone means to the tracer of who makes it: the event to tell, if any, and whether the child is traced as well.
pub(crate) fn of_clone(task: &Task, r: &CloneRequest) -> (Option<i32>, bool) {
    if !task.is_traced() {
        return (None, false);
    }
    let t = task.trace.lock();
    let (event, wanted) = if r.flags & flag::VFORK != 0 {
        (event::VFORK, option::TRACEVFORK)
    } else if r.exit_signal != sig::CHLD {
        (event::CLONE, option::TRACECLONE)
    } else {
        (event::FORK, option::TRACEFORK)
    };
    let event = (r.flags & flag::UNTRACED == 0 && t.has(wanted)).then_some(event);
    (event, t.tracer.is_some() && (event.is_some() || r.flags & flag::PTRACE != 0))
}

/// The child of a tracee becomes a tracee. It has not begun.
pub(crate) fn adopt(task: &Task, child: &Arc<Task>) {
    let (tracer, options, seized) = {
        let t = task.trace.lock();
        let Some(tracer) = t.tracer.clone() else { return };
        (tracer, t.options, t.seized)
    };
    if link(&tracer, child, options, seized).is_err() {
        return;
    }
    if seized {
        child.trace.lock().trap_stop = true;
        child.hailed.store(true, Ordering::SeqCst);
    } else {
        let mut pending = child.pending.lock();
        pending.push(SigInfo::new(sig::STOP, code::USER), usize::MAX);
        child.pending_set.store(pending.set().0, Ordering::SeqCst);
    }
}

/// The child of a tracee could not be made after all.
pub(crate) fn disown(child: &Arc<Task>) {
    let tracer = child.trace.lock().tracer.take();
    child.traced.store(false, Ordering::SeqCst);
    if let Some(tracer) = tracer {
        forget(&tracer, child);
    }
}

/// A task has ended, with this wait status: its tracer is told of threads, and its tracees are nobody's any more. That it was the
/// process's first thread is told once the process has ended ([`process_ended`]). Called with `exited` set and no lock held.
pub(crate) fn ended(task: &Arc<Task>, status: i32) {
    let tracer = {
        let mut t = task.trace.lock();
        let tracer = t.tracer.take();
        task.traced.store(false, Ordering::SeqCst);
        (t.stop, t.go) = (None, None);
        if let Some(poke) = t.poking.take() {
            poke.done(Err(Errno::ESRCH));
        }
        tracer
    };
    if let Some(tracer) = tracer
        && task.tid() != task.pid()
    {
        let group = tracer.group();
        let mut told = false;
        if let Some(e) = group.tracees.lock().iter_mut().find(|e| Arc::ptr_eq(&e.task, task)) {
            e.dead = Some(status);
            told = true;
        }
        if told {
            let (code, value) = exit::child_status(status);
            send::to_group(task.kernel(), group, SigInfo::child(code, task.tid(), task.creds().ruid, value));
            group.child_change.wake_all();
        }
    }
    release_tracees(task);
}

/// A tracer ends.
fn release_tracees(tracer: &Arc<Task>) {
    let (own, others): (Vec<_>, Vec<_>) =
        std::mem::take(&mut *tracer.group().tracees.lock()).into_iter().partition(|e| Arc::ptr_eq(&e.tracer, tracer));
    if !others.is_empty() {
        tracer.group().tracees.lock().extend(others);
    }
    for e in own {
        let kernel = e.task.kernel().clone();
        if e.dead.is_some() || e.task.exited.load(Ordering::SeqCst) {
            let group = e.task.group();
            if e.task.tid() == e.task.pid() && group.traced_by.swap(0, Ordering::SeqCst) != 0 && group.is_zombie() {
                exit::release_zombie(&kernel, group);
            }
            continue;
        }
        let kills = e.task.trace.lock().options & option::EXITKILL != 0;
        unlink(&e.task, None);
        if kills {
            send::to_task(&e.task, SigInfo::new(sig::KILL, code::KERNEL));
        }
    }
}

/// A traced process has ended with this status.
pub(crate) fn process_ended(kernel: &Kernel, group: &Group, status: i32) {
    let tracer = group.traced_by.load(Ordering::SeqCst);
    if tracer == 0 {
        return;
    }
    let tracer = kernel.tree.lock().group(tracer);
    let known = tracer.is_some_and(|tracer| {
        let mut list = tracer.tracees.lock();
        let first = |e: &&mut Tracee| std::ptr::eq(&**e.task.group(), group) && e.task.tid() == group.pid;
        list.iter_mut().find(first).map(|e| e.dead = Some(status)).is_some()
    });
    if !known {
        group.traced_by.store(0, Ordering::SeqCst);
    }
}

/// A thread that is not the first executes a program and takes the first one's place: that one ended without a word.
pub(crate) fn replaced(task: &Arc<Task>) {
    let group = task.group();
    let old = group.traced_by.swap(0, Ordering::SeqCst);
    let tracer = if old == 0 { None } else { task.kernel().tree.lock().group(old) };
    if let Some(tracer) = tracer {
        let first = |e: &Tracee| Arc::ptr_eq(e.task.group(), group) && e.task.tid() == group.pid;
        tracer.tracees.lock().retain(|e| !first(e) || Arc::ptr_eq(&e.task, task));
    }
    if let Some(tracer) = &task.trace.lock().tracer {
        group.traced_by.store(tracer.pid(), Ordering::SeqCst);
    }
}
