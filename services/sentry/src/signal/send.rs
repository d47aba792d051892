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
use crate::vfs::File;
use crate::wait::PollMask;

/// Whether a signal would be dropped on arrival: ignored, and not blocked by `task`. `force`: not by who is in its namespace.
fn ignored(group: &Group, task: &Task, signo: i32, force: bool) -> bool {
    // A tracer sees what its tracee ignores.
    if task.mask().has(signo) || (task.is_traced() && signo != sig::KILL) {
        return false;
    }
    // An init gets only what it handles: nobody ends it by default from within.
    let action = task.actions().lock().get(signo);
    match action.handler {
        SIG_IGN => true,
        SIG_DFL => {
            let default = default_of(signo);
            let must = (force && matches!(signo, sig::KILL | sig::STOP)) || SigSet::SYNCHRONOUS.has(signo);
            // What SIGCONT does is done by sending it.
            matches!(default, Default_::Ignore | Default_::Continue) || (group.is_init() && !must)
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
        group.tasks().iter().for_each(Task::trace_group_continue);
    }
}

/// Sends a signal to a process.
pub fn to_group(kernel: &Arc<Kernel>, group: &Arc<Group>, info: SigInfo) {
    if group.is_exiting() {
        return;
    }
    let tasks = group.tasks();
    let Some(leader) = tasks.first() else { return };
    let (info, force) = info.seen_by(leader);
    on_send(kernel, group, info.signo);
    if info.signo == sig::KILL {
        if !group.is_init() || force {
            exit::exit_group(leader, sig::KILL);
        }
        return;
    }
    if ignored(group, leader, info.signo, force) {
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
    let (info, force) = info.seen_by(task);
    on_send(task.kernel(), group, info.signo);
    if info.signo == sig::KILL {
        if !group.is_init() || force {
            exit::exit_group(task, sig::KILL);
        }
        return;
    }
    if ignored(group, task, info.signo, force) {
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

/// Sends a signal to whoever `F_SETOWN` of a file says, as far as who said so may.
pub fn to_owner(kernel: &Arc<Kernel>, file: &File, info: SigInfo) {
    let owner = *file.owner.lock();
    let targets = {
        let tree = kernel.tree.lock();
        match owner.pid {
            0 => return,
            pid if pid > 0 => {
                tree.group(pid).or_else(|| tree.task(pid).map(|t| t.group().clone())).into_iter().collect()
            }
            pid => tree.members(pid.saturating_neg()),
        }
    };
    for group in targets {
        let Some(c) = group.creds() else { continue };
        if owner.euid == 0 || [owner.euid, owner.uid].iter().any(|u| *u == c.suid || *u == c.ruid) {
            to_group(kernel, &group, info);
        }
    }
}

/// Whether `sender` may send `signo` to a process of `target` (`kill(2)`).
pub fn permitted(kernel: &Kernel, sender: &Task, target: &Group, signo: i32) -> Result<(), Errno> {
    if sender.pid() == target.pid {
        return Ok(());
    }
    let s: Arc<Creds> = sender.creds();
    let Some(leader) = target.leader() else {
        // A zombie takes signals without effect.
        return Ok(());
    };
    let t = leader.creds();
    if s.capable_in(&t.user_ns, cap::KILL) {
        return Ok(());
    }
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

    /// Which of the process's pending signals are this task's to take: those it does not block, but for those that the
    /// first thread does not block either. That one is preferred, as by Linux: a program may wait in it for its signals.
    pub(crate) fn shared_signals(&self) -> SigSet {
        let open = self.group().pending_set.load(Ordering::SeqCst) & !self.mask().0;
        if open == 0 {
            return SigSet(0);
        }
        match self.group().threads.lock().first() {
            Some(first) if !std::ptr::eq(&**first, self) => SigSet(open & first.mask().0),
            _ => SigSet(open),
        }
    }

    /// Has the other threads look again at the process's signals, some of which this one has just blocked.
    fn retarget(self: &Arc<Self>, old: u64, new: u64) {
        if self.group().pending_set.load(Ordering::SeqCst) & new & !old != 0 {
            self.group().tasks().iter().filter(|t| !Arc::ptr_eq(t, self)).for_each(Task::get_attention);
        }
    }

    /// Takes the next signal of its `own` or of the process's.
    pub(crate) fn take_signal(&self, own: SigSet, shared: SigSet) -> Option<SigInfo> {
        let mut info = self.dequeue(own, shared)?;
        crate::task::timers::delivered(self.group(), &mut info);
        Some(info)
    }

    fn dequeue(&self, own: SigSet, shared: SigSet) -> Option<SigInfo> {
        {
            let mut pending = self.pending.lock();
            if let Some(info) = pending.take(own) {
                self.pending_set.store(pending.set().0, Ordering::SeqCst);
                return Some(info);
            }
        }
        let group = self.group();
        let mut pending = group.pending.lock();
        let info = pending.take(shared)?;
        group.note_pending(&pending);
        Some(info)
    }

    /// All that is pending for the task.
    pub fn pending_signals(&self) -> SigSet {
        SigSet(self.pending_set.load(Ordering::SeqCst) | self.group().pending_set.load(Ordering::SeqCst))
    }

    /// Sets the mask; what can be neither caught nor blocked stays free.
    pub fn set_mask(self: &Arc<Self>, mask: SigSet) {
        let new = mask.0 & !SigSet::UNBLOCKABLE.0;
        let old = self.mask.swap(new, Ordering::SeqCst);
        self.retarget(old, new);
    }

    /// Sets a mask that holds until the call returns, or until the handler that ends it returns (ppoll, sigsuspend).
    pub fn set_mask_for_call(self: &Arc<Self>, mask: SigSet) {
        let new = mask.0 & !SigSet::UNBLOCKABLE.0;
        let old = self.mask.swap(new, Ordering::SeqCst);
        self.retarget(old, new);
        let mut state = self.state.lock();
        if state.saved_mask.is_none() {
            state.saved_mask = Some(old);
        }
    }
}
