//! What is set of a process by writing: `comm`, `oom_score_adj` and `oom_adj`, `coredump_filter`, `timerslack_ns`, `loginuid`,
//! `clear_refs`, `uid_map` and its like; and what others set: `personality`, `sessionid`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use super::namespaces::user_namespace;
use super::{Subject, text};
use crate::errno::Errno;
use crate::filesystems::pseudo::Take;
use crate::memory::resident;
use crate::namespaces::user::Which;
use crate::task::Task;
use crate::task::creds::cap;
use crate::vfs::caller::Caller;

/// The largest `oom_adj`, and what it stands for.
const ADJ_MOST: (i32, i32) = (15, 1000);
/// What `oom_adj` says of a process that is never chosen.
const ADJ_NEVER: i32 = -17;
/// Bits of `coredump_filter` that mean something.
const FILTER: i32 = 0x1ff;
/// `TIMER_SLACK` of a process that set none.
const SLACK: u64 = 50_000;

pub(super) fn oom_score_adj(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    text(format!("{}\n", s.group.oom_score_adj.load(Ordering::Relaxed)))
}

pub(super) fn oom_adj(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let adj = s.group.oom_score_adj.load(Ordering::Relaxed);
    let old = if adj == ADJ_MOST.1 { ADJ_MOST.0 } else { adj * -ADJ_NEVER / ADJ_MOST.1 };
    text(format!("{old}\n"))
}

pub(super) fn coredump_filter(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    // It belongs to the memory, which is gone with the process.
    if s.task().is_err() {
        return Ok(Vec::new());
    }
    text(format!("{:08x}\n", s.group.coredump_filter.load(Ordering::Relaxed)))
}

pub(super) fn personality(s: &Subject, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    s.open_to(caller)?;
    text(format!("{:08x}\n", s.group.personality.load(Ordering::Relaxed)))
}

pub(super) fn loginuid(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    text(s.group.loginuid.load(Ordering::Relaxed).cast_unsigned().to_string())
}

pub(super) fn sessionid(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    text(s.group.sessionid.load(Ordering::Relaxed).cast_unsigned().to_string())
}

fn slack_of(s: &Subject, caller: &Caller<'_>) -> Result<Arc<Task>, Errno> {
    let task = s.task()?;
    let own = caller.task.is_some_and(|t| t.pid() == task.pid());
    if own || caller.creds.capable(cap::SYS_NICE) { Ok(task) } else { Err(Errno::EPERM) }
}

pub(super) fn timerslack(s: &Subject, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let slack = slack_of(s, caller)?.state.lock().timer_slack;
    text(format!("{}\n", slack.unwrap_or(SLACK)))
}

/// Nothing is to be read here.
pub(super) fn nothing(_: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    Err(Errno::EINVAL)
}

/// A number as the kernel reads one: decimal, `0x` or `0` before it for other bases.
fn number(data: &[u8]) -> Result<i64, Errno> {
    let t = std::str::from_utf8(data.trim_ascii()).map_err(|_| Errno::EINVAL)?;
    let (sign, digits) = t.strip_prefix('-').map_or((1, t), |rest| (-1, rest));
    let digits = digits.strip_prefix('+').unwrap_or(digits);
    let n = if let Some(hex) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        i64::from_str_radix(hex, 16)
    } else if digits.len() > 1 && digits.starts_with('0') {
        i64::from_str_radix(digits, 8)
    } else {
        digits.parse()
    };
    n.map(|n| sign * n).map_err(|_| Errno::EINVAL)
}

fn narrow(n: i64) -> Result<i32, Errno> {
    i32::try_from(n).map_err(|_| Errno::ERANGE)
}

/// Sets `oom_score_adj`. Below what one with the right last set, only one with it may go.
fn adjust(s: &Subject, caller: &Caller<'_>, adj: i32) -> Result<(), Errno> {
    let may = caller.creds.capable(cap::SYS_RESOURCE);
    if adj < s.group.oom_score_least.load(Ordering::Relaxed) && !may {
        return Err(Errno::EACCES);
    }
    s.group.oom_score_adj.store(adj, Ordering::Relaxed);
    if may {
        s.group.oom_score_least.store(adj, Ordering::Relaxed);
    }
    Ok(())
}

/// Login sessions begun.
static SESSIONS: AtomicI32 = AtomicI32::new(0);

fn set_loginuid(s: &Subject, caller: &Caller<'_>, data: &[u8]) -> Result<(), Errno> {
    let me = caller.task.ok_or(Errno::EPERM)?;
    if me.pid() != s.group.pid {
        return Err(Errno::EPERM);
    }
    let uid = u32::try_from(number(data)?).map_err(|_| Errno::EINVAL)?;
    if s.group.loginuid.load(Ordering::Relaxed) != -1 && !caller.creds.capable(cap::AUDIT_CONTROL) {
        return Err(Errno::EPERM);
    }
    let session = if uid == u32::MAX { -1 } else { SESSIONS.fetch_add(1, Ordering::Relaxed) + 1 };
    s.group.loginuid.store(uid.cast_signed(), Ordering::Relaxed);
    s.group.sessionid.store(session, Ordering::Relaxed);
    Ok(())
}

/// What becomes of writes to a file that takes them.
pub(super) fn taker(s: &Subject, name: &str) -> Option<Take> {
    let s = s.clone();
    match name {
        "comm" => Some(Box::new(move |caller, data| {
            let task = s.task()?;
            // Only the process itself names its threads.
            if caller.task.is_none_or(|t| t.pid() != task.pid()) {
                return Err(Errno::EINVAL);
            }
            let line = data.split(|b| *b == b'\n').next().unwrap_or_default();
            *task.comm.write() = line.get(..line.len().min(15)).unwrap_or_default().to_vec();
            Ok(())
        })),
        "oom_score_adj" => Some(Box::new(move |caller, data| {
            let n = narrow(number(data)?)?;
            if !(-1000..=1000).contains(&n) {
                return Err(Errno::EINVAL);
            }
            adjust(&s, caller, n)
        })),
        "oom_adj" => Some(Box::new(move |caller, data| {
            let adj = match narrow(number(data)?)? {
                n if n == ADJ_MOST.0 => ADJ_MOST.1,
                n if (ADJ_NEVER..=ADJ_MOST.0).contains(&n) => n * ADJ_MOST.1 / -ADJ_NEVER,
                _ => return Err(Errno::EINVAL),
            };
            // The old way: nobody gets further down without the right.
            let may = caller.creds.capable(cap::SYS_RESOURCE);
            if adj < s.group.oom_score_adj.load(Ordering::Relaxed) && !may {
                return Err(Errno::EACCES);
            }
            s.group.oom_score_adj.store(adj, Ordering::Relaxed);
            Ok(())
        })),
        "coredump_filter" => Some(Box::new(move |_, data| {
            let n = u32::try_from(number(data)?).map_err(|_| Errno::ERANGE)?;
            s.group.coredump_filter.store(n.cast_signed() & FILTER, Ordering::Relaxed);
            Ok(())
        })),
        "timerslack_ns" => Some(Box::new(move |caller, data| {
            let n = u64::try_from(number(data)?).map_err(|_| Errno::EINVAL)?;
            let task = slack_of(&s, caller)?;
            let mut state = task.state.lock();
            state.timer_slack = if n == 0 { state.schedule.first_slack } else { Some(n) };
            Ok(())
        })),
        "uid_map" | "gid_map" | "projid_map" => {
            let which = match name {
                "uid_map" => Which::Users,
                "gid_map" => Which::Groups,
                _ => Which::Projects,
            };
            Some(Box::new(move |caller, data| {
                let opener = caller.opener.as_ref().unwrap_or(&caller.creds);
                user_namespace(&s)?.write_map(which, data, opener, &caller.creds)
            }))
        }
        "setgroups" => Some(Box::new(move |caller, data| {
            let ns = user_namespace(&s)?;
            let opener = caller.opener.as_ref().unwrap_or(&caller.creds);
            if !opener.capable_in(&ns, cap::SYS_ADMIN) {
                return Err(Errno::EACCES);
            }
            ns.write_setgroups(data)
        })),
        "loginuid" => Some(Box::new(move |caller, data| set_loginuid(&s, caller, data))),
        // 5: the peak of resident memory starts anew. Nobody notes what else could be cleared.
        "clear_refs" => Some(Box::new(move |_, data| match number(data)? {
            5 => {
                let task = s.task()?;
                s.group.forget_resident(resident::of(&task, resident::FEW).in_all());
                Ok(())
            }
            _ => Err(Errno::EINVAL),
        })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_bases() {
        assert_eq!(number(b"0x1F\n"), Ok(31));
        assert_eq!(number(b"-017"), Ok(-15));
        assert_eq!(number(b"0"), Ok(0));
        assert_eq!(number(b""), Err(Errno::EINVAL));
        assert_eq!(number(b"1 2"), Err(Errno::EINVAL));
    }
}
