//! What a process of a container begins with, its first one and those of `exec`: ids and capabilities in the container's user
//! namespace, how it is scheduled, its personality, the filter of its calls.
//!
//! Called by `sandbox` before the process has a program. The order does not matter to what it may do: nothing of this is a call of
//! the container's.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cofferdam_control::sentry::{Process, Seccomp};

use crate::bpf::Instruction;
use crate::errno::Errno;
use crate::namespaces::UserNamespace;
use crate::task::creds::ALL_CAPABILITIES;
use crate::task::seccomp::{self, Filter};
use crate::task::{Creds, Task};
use crate::vfs::file::flags;
use crate::vfs::walk::Resolve;
use crate::vfs::{Caller, ops};

/// What all processes of a container from outside begin with.
pub struct Common {
    /// The container's user namespace.
    pub user_ns: Arc<UserNamespace>,
    /// `personality(2)`.
    pub personality: Option<i32>,
    /// The filter of its calls.
    pub seccomp: Option<Seccomp>,
}

/// The credentials of a process. EINVAL for an id that the user namespace has not.
pub fn credentials(process: &Process, user_ns: &Arc<UserNamespace>) -> Result<Creds, Errno> {
    let uid = user_ns.kernel_uid(process.uid).ok_or(Errno::EINVAL)?;
    let gid = user_ns.kernel_gid(process.gid).ok_or(Errno::EINVAL)?;
    let groups: Option<Vec<u32>> = process.groups.iter().map(|g| user_ns.kernel_gid(*g)).collect();
    let c = &process.capabilities;
    let mut creds = Creds::user(uid, gid, groups.ok_or(Errno::EINVAL)?, c.bounding);
    creds.permitted = c.permitted;
    creds.effective = c.effective;
    creds.inheritable = c.inheritable;
    // What is not both permitted and inheritable cannot be raised.
    creds.ambient = c.ambient & c.permitted & c.inheritable;
    creds.no_new_privileges = process.no_new_privileges;
    creds.user_ns = user_ns.clone();
    Ok(creds)
}

/// An environment as runc hands it on: of what is said more than once the last counts, and there is a `HOME`.
pub fn complete(env: &mut Vec<Vec<u8>>, home: impl FnOnce() -> Vec<u8>) {
    let name = |e: &[u8]| e.split(|b| *b == b'=').next().unwrap_or_default().to_vec();
    let mut seen = std::collections::HashSet::new();
    env.reverse();
    env.retain(|e| seen.insert(name(e)));
    env.reverse();
    if !seen.contains(&b"HOME"[..]) {
        env.push([b"HOME=", home().as_slice()].concat());
    }
}

/// The most that is read of a container's accounts.
const ACCOUNTS_MAX: usize = 1 << 20;

/// Where a user is at home, as the container's own accounts have it: `HOME` of a process whose document has none, as under runc.
pub fn home(task: &Arc<Task>, uid: u32) -> Vec<u8> {
    let root = Creds { user_ns: task.creds().user_ns.clone(), ..Creds::root(ALL_CAPABILITIES) };
    let caller = Caller { creds: Arc::new(root), ..Caller::of(task) };
    // It may be anything, a pipe that nobody writes to as well.
    let how = flags::RDONLY | flags::NONBLOCK | flags::NOCTTY;
    let open = || ops::open(&caller, task.fs().root(), b"/etc/passwd", how, 0, Resolve::default());
    let accounts = open().and_then(|file| crate::loader::read_at(&file, 0, ACCOUNTS_MAX)).unwrap_or_default();
    let number = uid.to_string();
    let mut lines = accounts.split(|b| *b == b'\n').map(|line| line.split(|b| *b == b':'));
    let mut account = lines.find(|l| l.clone().nth(2) == Some(number.as_bytes()));
    let home = account.as_mut().and_then(|l| l.nth(5)).filter(|h| !h.is_empty());
    home.unwrap_or(b"/").to_vec()
}

/// The rest of it, for a task that has these.
pub fn settle(task: &Arc<Task>, process: &Process, common: &Common) -> Result<(), Errno> {
    if let Some(wanted) = process.scheduler {
        {
            let mut state = task.state.lock();
            state.schedule.policy = wanted.policy;
            state.schedule.reset_on_fork = wanted.reset_on_fork;
        }
        task.group().nice.store(wanted.nice, Ordering::Relaxed);
        task.run_as_nice();
    }
    if let Some(priority) = process.io_priority {
        task.state.lock().schedule.io_priority = priority;
    }
    if let Some(personality) = common.personality {
        task.group().personality.store(personality, Ordering::Relaxed);
    }
    if let Some(wanted) = &common.seccomp {
        let code = wanted.program.iter().map(|(code, jt, jf, k)| Instruction { code: *code, jt: *jt, jf: *jf, k: *k });
        let filter = Filter::new(code.collect(), wanted.log, None)?;
        seccomp::add(task, filter, false).map_err(|e| e.err().unwrap_or(Errno::EINVAL))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::complete;

    #[test]
    fn the_last_value_of_a_variable_counts_and_home_is_there() {
        let all = |words: &[&str]| words.iter().map(|w| w.as_bytes().to_vec()).collect::<Vec<_>>();
        let mut env = all(&["PATH=/bin", "A=1", "PATH=/usr/bin"]);
        complete(&mut env, || b"/root".to_vec());
        assert_eq!(env, all(&["A=1", "PATH=/usr/bin", "HOME=/root"]));
        let mut env = all(&["HOME=", "B"]);
        complete(&mut env, || b"/root".to_vec());
        assert_eq!(env, all(&["HOME=", "B"]));
    }
}
