//! Signal calls: `kill(2)`, `sigaction(2)`, `sigprocmask(2)` and their kin.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Entry, Outcome, SysResult, UserPtr, done};
use crate::entry;
use crate::errno::Errno;
use crate::signal::{
    Action, AltStack, RT_MIN, SIG_DFL, SIG_IGN, SS_AUTODISARM, SS_DISABLE, SS_ONSTACK, SigInfo, SigSet, code,
    default_of, send, valid,
};
use crate::task::{Special, Task};
use crate::time::{Deadline, Timespec};
use crate::wait::{Cause, Wait};

const SET_SIZE: usize = 8;
const MIN_STACK: u64 = 2048;

fn check_set(size: usize) -> Result<(), Errno> {
    if size == SET_SIZE { Ok(()) } else { Err(Errno::EINVAL) }
}

fn rt_sigaction(task: &Arc<Task>, signo: i32, new: UserPtr<Action>, old: UserPtr<Action>, size: usize) -> SysResult {
    check_set(size)?;
    if !valid(signo) || (!new.is_null() && SigSet::UNBLOCKABLE.has(signo)) {
        return Err(Errno::EINVAL);
    }
    let wanted = if new.is_null() { None } else { Some(new.read(task)?) };
    let actions = task.actions();
    let before = actions.lock().get(signo);
    if let Some(mut action) = wanted {
        action.mask &= !SigSet::UNBLOCKABLE.0;
        actions.lock().set(signo, action);
        let ignores = action.handler == SIG_IGN
            || (action.handler == SIG_DFL && default_of(signo) == crate::signal::Default_::Ignore);
        if ignores {
            let set = SigSet(SigSet::bit(signo));
            let group = task.group();
            let mut pending = group.pending.lock();
            pending.discard(set);
            group.note_pending(&pending);
            drop(pending);
            for t in group.tasks() {
                let mut pending = t.pending.lock();
                pending.discard(set);
                t.pending_set.store(pending.set().0, Ordering::SeqCst);
            }
        }
    }
    old.write_if(task, &before)?;
    done()
}

fn rt_sigprocmask(task: &Arc<Task>, how: i32, new: UserPtr<u64>, old: UserPtr<u64>, size: usize) -> SysResult {
    check_set(size)?;
    let before = task.mask().0;
    if !new.is_null() {
        let set = new.read(task)?;
        task.set_mask(SigSet(match how {
            0 => before | set,
            1 => before & !set,
            2 => set,
            _ => return Err(Errno::EINVAL),
        }));
    }
    old.write_if(task, &before)?;
    done()
}

fn rt_sigpending(task: &Arc<Task>, to: UserPtr<u64>, size: usize) -> SysResult {
    if size > SET_SIZE {
        return Err(Errno::EINVAL);
    }
    let set = (task.pending_signals().0 & task.mask().0).to_le_bytes();
    task.write_exact(to.address(), set.get(..size).unwrap_or_default())?;
    done()
}

fn rt_sigsuspend(task: &Arc<Task>, set: UserPtr<u64>, size: usize) -> SysResult {
    check_set(size)?;
    task.set_mask_for_call(SigSet(set.read(task)?));
    Ok(Outcome::Block(Wait::new(|_, cause| (cause == Cause::Interrupted).then_some(Err(Errno::ERESTARTNOHAND)))))
}

fn pause(_: &Arc<Task>) -> SysResult {
    Ok(Outcome::Block(Wait::new(|_, cause| (cause == Cause::Interrupted).then_some(Err(Errno::ERESTARTNOHAND)))))
}

fn rt_sigtimedwait(
    task: &Arc<Task>,
    set: UserPtr<u64>,
    info: UserPtr<u8>,
    timeout: UserPtr<Timespec>,
    size: usize,
) -> SysResult {
    check_set(size)?;
    let wanted = SigSet(set.read(task)? & !SigSet::UNBLOCKABLE.0);
    let limit = if timeout.is_null() { None } else { Some(timeout.read(task)?.to_ns()?) };
    let take = move |task: &Arc<Task>| -> Option<Result<i64, Errno>> {
        let got = task.take_signal(wanted, wanted)?;
        if !info.is_null()
            && let Err(e) = task.write_exact(info.address(), &got.to_bytes())
        {
            return Some(Err(e));
        }
        Some(Ok(i64::from(got.signo)))
    };
    if let Some(r) = take(task) {
        return r.map(Outcome::Value);
    }
    if limit == Some(0) {
        return Err(Errno::EAGAIN);
    }
    let wait = Wait::new(move |task, cause| match (take(task), cause) {
        (Some(r), _) => Some(r),
        (None, Cause::TimedOut) => Some(Err(Errno::EAGAIN)),
        (None, Cause::Interrupted) => Some(Err(Errno::EINTR)),
        (None, Cause::Woken) => None,
    });
    Ok(Outcome::Block(wait.until(limit.map(Deadline::after))))
}

fn rt_sigreturn(_: &Arc<Task>) -> SysResult {
    Ok(Outcome::Special(Special::SigReturn))
}

fn sigaltstack(task: &Arc<Task>, new: UserPtr<AltStack>, old: UserPtr<AltStack>) -> SysResult {
    let request = AltStackRequest { new: if new.is_null() { None } else { Some(new.read(task)?) }, old };
    // Where there is a signal stack, whether the caller runs on it decides: that takes its stack pointer.
    if task.state.lock().alt_stack.size != 0 {
        return Ok(Outcome::Special(Special::AltStack(request)));
    }
    alt_stack(task, &request, 0).map(Outcome::Value)
}

/// What `sigaltstack(2)` was asked.
pub struct AltStackRequest {
    new: Option<AltStack>,
    old: UserPtr<AltStack>,
}

/// `sigaltstack(2)` of a caller with the stack pointer `sp`.
pub(crate) fn alt_stack(task: &Arc<Task>, request: &AltStackRequest, sp: u64) -> Result<i64, Errno> {
    let current = task.state.lock().alt_stack;
    let disarms = current.flags & SS_AUTODISARM;
    let on = disarms == 0 && current.contains(sp);
    if let Some(mut s) = request.new {
        if on {
            return Err(Errno::EPERM);
        }
        match s.flags & !SS_AUTODISARM {
            SS_DISABLE => (s.sp, s.size) = (0, 0),
            0 | SS_ONSTACK if s.size < MIN_STACK => return Err(Errno::ENOMEM),
            0 | SS_ONSTACK => {}
            _ => return Err(Errno::EINVAL),
        }
        s.flags &= SS_AUTODISARM | SS_DISABLE;
        task.state.lock().alt_stack = s;
    }
    let how = if current.size == 0 { SS_DISABLE } else { i32::from(on) * SS_ONSTACK };
    request.old.write_if(task, &AltStack { flags: how | disarms, ..current })?;
    Ok(0)
}

pub(super) fn info_from(task: &Task, signo: i32, code: i32) -> SigInfo {
    SigInfo::from_process(signo, code, task.pid(), task.creds().ruid)
}

fn kill(task: &Arc<Task>, pid: i32, signo: i32) -> SysResult {
    let pid = task.id_of(pid);
    if signo != 0 && !valid(signo) {
        return Err(Errno::EINVAL);
    }
    let kernel = task.kernel().clone();
    let info = info_from(task, signo, code::USER);
    let targets: Vec<_> = {
        let tree = kernel.tree.lock();
        match pid {
            i32::MIN => return Err(Errno::ESRCH),
            p if p > 0 => {
                let group = tree.group(p).or_else(|| tree.task(p).map(|t| t.group().clone()));
                vec![group.ok_or(Errno::ESRCH)?]
            }
            -1 => {
                let others = tree.pids().into_iter().filter(|p| task.shown(*p) > 1 && *p != task.pid());
                others.filter_map(|p| tree.group(p)).collect()
            }
            p => {
                let pgid = if p == 0 { tree.node(task.pid()).map_or(0, |n| n.pgid) } else { -p };
                tree.members(pgid)
            }
        }
    };
    if targets.is_empty() {
        return Err(Errno::ESRCH);
    }
    let mut result = Err(Errno::EPERM);
    for g in targets {
        match send::permitted(&kernel, task, &g, signo) {
            Ok(()) => {
                if signo != 0 {
                    send::to_group(&kernel, &g, info);
                }
                result = done();
            }
            Err(e) if pid > 0 => return Err(e),
            Err(_) => {}
        }
    }
    if pid == -1 && result.is_err() { done() } else { result }
}

fn target(task: &Task, tgid: Option<i32>, tid: i32, signo: i32) -> Result<Arc<Task>, Errno> {
    if tid <= 0 || tgid.is_some_and(|t| t <= 0) || (signo != 0 && !valid(signo)) {
        return Err(Errno::EINVAL);
    }
    let (tid, tgid) = (task.id_of(tid), tgid.map(|t| task.id_of(t)));
    let kernel = task.kernel();
    let found = kernel.tree.lock().task(tid);
    let t = found.filter(|t| tgid.is_none_or(|g| g == t.pid())).ok_or(Errno::ESRCH)?;
    send::permitted(kernel, task, t.group(), signo)?;
    Ok(t)
}

fn tgkill(task: &Arc<Task>, tgid: i32, tid: i32, signo: i32) -> SysResult {
    let t = target(task, Some(tgid), tid, signo)?;
    if signo != 0 {
        send::to_task(&t, info_from(task, signo, code::TKILL));
    }
    done()
}

fn tkill(task: &Arc<Task>, tid: i32, signo: i32) -> SysResult {
    let t = target(task, None, tid, signo)?;
    if signo != 0 {
        send::to_task(&t, info_from(task, signo, code::TKILL));
    }
    done()
}

/// Copies a `siginfo_t` in. `own`: for the caller itself, who may say what it likes; `signo`: the signal that it is made
/// to be of.
pub(super) fn read_info(task: &Arc<Task>, own: bool, signo: Option<i32>, info: UserPtr<u8>) -> Result<SigInfo, Errno> {
    let mut b = [0u8; 128];
    task.read_exact(info.address(), &mut b)?;
    let mut info = SigInfo::from_bytes(&b);
    // Only the kernel says that the kernel sent it.
    if !own && (info.code >= 0 || info.code == code::TKILL) {
        return Err(Errno::EPERM);
    }
    info.signo = signo.unwrap_or(info.signo);
    Ok(info.given_by(task))
}

fn rt_sigqueueinfo(task: &Arc<Task>, pid: i32, signo: i32, info: UserPtr<u8>) -> SysResult {
    let pid = task.id_of(pid);
    let info = read_info(task, pid == task.pid(), Some(signo), info)?;
    let kernel = task.kernel();
    if signo != 0 && !valid(signo) {
        return Err(Errno::EINVAL);
    }
    let group = kernel.tree.lock().group(pid).ok_or(Errno::ESRCH)?;
    send::permitted(kernel, task, &group, signo)?;
    if signo != 0 {
        queue_room(&group, signo)?;
        send::to_group(kernel, &group, info);
    }
    done()
}

fn queue_room(group: &crate::task::Group, signo: i32) -> Result<(), Errno> {
    let full = signo >= RT_MIN && group.limit(crate::task::group::rlimit::SIGPENDING).soft == 0;
    if full { Err(Errno::EAGAIN) } else { Ok(()) }
}

fn rt_tgsigqueueinfo(task: &Arc<Task>, tgid: i32, tid: i32, signo: i32, info: UserPtr<u8>) -> SysResult {
    let info = read_info(task, task.id_of(tid) == task.tid(), Some(signo), info)?;
    let t = target(task, Some(tgid), tid, signo)?;
    if signo != 0 {
        send::to_task(&t, info);
    }
    done()
}

/// The signal calls.
pub const TABLE: &[Entry] = &[
    entry!(13, "rt_sigaction", Full, "", rt_sigaction(i32, UserPtr<Action>, UserPtr<Action>, usize)),
    entry!(14, "rt_sigprocmask", Full, "", rt_sigprocmask(i32, UserPtr<u64>, UserPtr<u64>, usize)),
    entry!(15, "rt_sigreturn", Full, "", rt_sigreturn()),
    entry!(34, "pause", Full, "", pause()),
    entry!(62, "kill", Full, "", kill(i32, i32)),
    entry!(127, "rt_sigpending", Full, "", rt_sigpending(UserPtr<u64>, usize)),
    entry!(128, "rt_sigtimedwait", Full, "", rt_sigtimedwait(UserPtr<u64>, UserPtr<u8>, UserPtr<Timespec>, usize)),
    entry!(129, "rt_sigqueueinfo", Full, "", rt_sigqueueinfo(i32, i32, UserPtr<u8>)),
    entry!(130, "rt_sigsuspend", Full, "", rt_sigsuspend(UserPtr<u64>, usize)),
    entry!(131, "sigaltstack", Full, "", sigaltstack(UserPtr<AltStack>, UserPtr<AltStack>)),
    entry!(200, "tkill", Full, "", tkill(i32, i32)),
    entry!(234, "tgkill", Full, "", tgkill(i32, i32, i32)),
    entry!(297, "rt_tgsigqueueinfo", Full, "", rt_tgsigqueueinfo(i32, i32, i32, UserPtr<u8>)),
];
