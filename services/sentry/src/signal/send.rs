//! Sending signals: `kill(2)` and all the kernel's own reasons.
//!
//! A signal is put into the pending set of a task or a process and the receiver is made to look; SIGKILL, stops and
//! continuation also act at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Default_, SIG_DFL, SIG_IGN, SigInfo, SigSet, default_of, sig};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::task::creds::cap;
use crate::task::group::rlimit;
use crate::task::{Creds, Group, Task, exit};
use crate::wait::PollMask;

/// Whether a signal would be dropped on arrival: ignored, and not blocked by `task`.
fn ignored(group: &Group, task: &Task, signo: i32) -> bool {
    if task.mask().has(signo) {
        return false;
    }
    // An init gets only what it handles: nobody ends it by default from within.
    let action = task.actions().lock().get(signo);
    match action.handler {
        SIG_IGN => true,
        SIG_DFL => {
            default_of(signo) == Default_::Ignore
                || (group.is_init()
                    && !matches!(signo, sig::KILL | sig::STOP)
                    && !SigSet::SYNCHRONOUS.has(signo)
                    && !matches!(default_of(signo), Default_::Continue))
        }
        _ => false,
    }
}

/// What stops and continuation do on sending, whatever becomes of the signal.
fn on_send(kernel: &Arc<Kernel>, group: &Arc<Group>, signo: i32) {
    let discard = if signo == sig::CONT {
        SigSet::STOPPING
    } else if SigSet::STOPPING.has(signo) {
        SigSet(SigSet::bit(sig::CONT))
    } else {
        return;
    };
    {
        let mut pending = group.pending.lock();
        pending.discard(discard);
        group.note_pending(&pending);
    }
    for t in group.tasks() {
        let mut pending = t.pending.lock();
        pending.discard(discard);
        t.pending_set.store(pending.set().0, Ordering::SeqCst);
    }
    if signo == sig::CONT {
        crate::task::exit::continue_group(kernel, group);
    }
}

/// Sends a signal to a process.
pub fn to_group(kernel: &Arc<Kernel>, group: &Arc<Group>, info: SigInfo) {
    if group.is_exiting() {
        return;
    }
    on_send(kernel, group, info.signo);
    let tasks = group.tasks();
    let Some(leader) = tasks.first() else { return };
    if info.signo == sig::KILL {
        if !group.is_init() || info.code > 0 {
            exit::exit_group(leader, sig::KILL);
        }
        return;
    }
    if ignored(group, leader, info.signo) {
        return;
    }
    {
        let limit = usize::try_from(group.limit(rlimit::SIGPENDING).soft).unwrap_or(usize::MAX);
        let mut pending = group.pending.lock();
        pending.push(info, limit);
        group.note_pending(&pending);
    }
    kernel.signalled.wake(PollMask::IN);
    // Any thread that does not block it may take it; one that waits for it by sigtimedwait is woken by looking as well.
    let free = tasks.iter().find(|t| !t.mask().has(info.signo));
    match free {
        Some(t) => t.get_attention(),
        None => tasks.iter().for_each(Task::wake_up),
    }
}

/// Sends a signal to one task.
pub fn to_task(task: &Arc<Task>, info: SigInfo) {
    let group = task.group();
    if group.is_exiting() {
        return;
    }
    on_send(task.kernel(), group, info.signo);
    if info.signo == sig::KILL {
        if !group.is_init() || info.code > 0 {
            exit::exit_group(task, sig::KILL);
        }
        return;
    }
    if ignored(group, task, info.signo) {
        return;
    }
    {
        let limit = usize::try_from(group.limit(rlimit::SIGPENDING).soft).unwrap_or(usize::MAX);
        let mut pending = task.pending.lock();
        pending.push(info, limit);
        task.pending_set.store(pending.set().0, Ordering::SeqCst);
    }
    task.kernel().signalled.wake(PollMask::IN);
    if task.mask().has(info.signo) { task.wake_up() } else { task.get_attention() }
}

/// Sends a signal to all processes of a process group; whether there was one.
pub fn to_process_group(kernel: &Arc<Kernel>, pgid: i32, info: SigInfo) -> bool {
    let members = kernel.tree.lock().members(pgid);
    for g in &members {
        to_group(kernel, g, info);
    }
    !members.is_empty()
}

/// Whether `sender` may send `signo` to a process of `target` (`kill(2)`).
pub fn permitted(kernel: &Kernel, sender: &Task, target: &Group, signo: i32) -> Result<(), Errno> {
    if sender.pid() == target.pid {
        return Ok(());
    }
    let s: Arc<Creds> = sender.creds();
    if s.capable(cap::KILL) {
        return Ok(());
    }
    let Some(leader) = target.leader() else {
        // A zombie takes signals without effect.
        return Ok(());
    };
    let t = leader.creds();
    if [s.euid, s.ruid].iter().any(|u| *u == t.ruid || *u == t.suid) {
        return Ok(());
    }
    if signo == sig::CONT {
        let tree = kernel.tree.lock();
        if tree.node(sender.pid()).map(|n| n.sid) == tree.node(target.pid).map(|n| n.sid) {
            return Ok(());
        }
    }
    Err(Errno::EPERM)
}

impl Task {
    /// Raises a signal that cannot be refused: if blocked or ignored it ends the process.
    pub(crate) fn force_signal(self: &Arc<Self>, info: SigInfo) {
        {
            let actions = self.actions();
            let mut actions = actions.lock();
            let mut action = actions.get(info.signo);
            if self.mask().has(info.signo) || action.handler == SIG_IGN {
                action.handler = SIG_DFL;
                actions.set(info.signo, action);
            }
        }
        self.mask.fetch_and(!SigSet::bit(info.signo), Ordering::SeqCst);
        let mut pending = self.pending.lock();
        pending.push(info, usize::MAX);
        self.pending_set.store(pending.set().0, Ordering::SeqCst);
    }

    /// Takes the next signal that is not blocked.
    pub(crate) fn take_signal(&self, wanted: SigSet) -> Option<SigInfo> {
        let mut info = self.dequeue(wanted)?;
        crate::task::timers::delivered(self.group(), &mut info);
        Some(info)
    }

    fn dequeue(&self, wanted: SigSet) -> Option<SigInfo> {
        {
            let mut pending = self.pending.lock();
            if let Some(info) = pending.take(wanted) {
                self.pending_set.store(pending.set().0, Ordering::SeqCst);
                return Some(info);
            }
        }
        let group = self.group();
        let mut pending = group.pending.lock();
        let info = pending.take(wanted)?;
        group.note_pending(&pending);
        Some(info)
    }

    /// All that is pending for the task.
    pub fn pending_signals(&self) -> SigSet {
        SigSet(self.pending_set.load(Ordering::SeqCst) | self.group().pending_set.load(Ordering::SeqCst))
    }

    /// Sets the mask; what can be neither caught nor blocked stays free.
    pub fn set_mask(self: &Arc<Self>, mask: SigSet) {
        self.mask.store(mask.0 & !SigSet::UNBLOCKABLE.0, Ordering::SeqCst);
    }

    /// Sets a mask that holds until the call returns, or until the handler that ends it returns (ppoll, sigsuspend).
    pub fn set_mask_for_call(self: &Arc<Self>, mask: SigSet) {
        let old = self.mask.swap(mask.0 & !SigSet::UNBLOCKABLE.0, Ordering::SeqCst);
        let mut state = self.state.lock();
        if state.saved_mask.is_none() {
            state.saved_mask = Some(old);
        }
    }
}
