//! Process descriptors: `pidfd_open`, `pidfd_send_signal`, `pidfd_getfd`.

use std::sync::Arc;

use super::signal::{info_from, read_info};
use super::{Entry, Fd, SysResult, UserPtr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::ipc::pidfd::{PidFd, pidfd};
use crate::signal::{code, send, valid};
use crate::task::creds::cap;
use crate::task::{Group, Task};
use crate::vfs::file::flags;

/// The pidfd calls.
pub const TABLE: &[Entry] = &[
    entry!(424, "pidfd_send_signal", Full, "", pidfd_send_signal(Fd, i32, UserPtr<u8>, u32)),
    entry!(434, "pidfd_open", Partial, "no PIDFD_THREAD (EINVAL)", pidfd_open(i32, u32)),
    entry!(438, "pidfd_getfd", Full, "", pidfd_getfd(Fd, Fd, u32)),
];

fn pidfd_open(task: &Arc<Task>, pid: i32, options: u32) -> SysResult {
    let nonblocking = options == flags::NONBLOCK.cast_unsigned();
    if (options != 0 && !nonblocking) || pid <= 0 {
        return Err(Errno::EINVAL);
    }
    let kernel = task.kernel();
    let group = {
        let tree = kernel.tree.lock();
        match tree.group(pid) {
            Some(group) => group,
            // A thread that is no process.
            None if tree.task(pid).is_some() => return Err(Errno::EINVAL),
            None => return Err(Errno::ESRCH),
        }
    };
    value(task.add_file(pidfd(kernel, &group, nonblocking), true)?)
}

/// The process behind a pidfd, and whether the pidfd is non-blocking. EBADF for another descriptor; `None` once it has
/// been waited for.
pub(super) fn process(task: &Task, fd: Fd) -> Result<(Option<Arc<Group>>, bool), Errno> {
    let file = task.files().get(fd.0)?;
    let group = file.ops_as::<PidFd>().ok_or(Errno::EBADF)?.group().cloned();
    Ok((group, file.nonblocking()))
}

const SIGNAL_THREAD: u32 = 1;
const SIGNAL_THREAD_GROUP: u32 = 2;
const SIGNAL_PROCESS_GROUP: u32 = 4;

fn pidfd_send_signal(task: &Arc<Task>, fd: Fd, signo: i32, info: UserPtr<u8>, options: u32) -> SysResult {
    if !matches!(options, 0 | SIGNAL_THREAD | SIGNAL_THREAD_GROUP | SIGNAL_PROCESS_GROUP) {
        return Err(Errno::EINVAL);
    }
    let group = process(task, fd)?.0;
    let info = if info.is_null() {
        info_from(task, signo, code::USER)
    } else {
        let own = group.as_ref().is_some_and(|g| Arc::ptr_eq(g, task.group()));
        let given = read_info(task, own && options != SIGNAL_PROCESS_GROUP, None, info)?;
        if given.signo != signo {
            return Err(Errno::EINVAL);
        }
        given
    };
    let group = group.ok_or(Errno::ESRCH)?;
    if signo != 0 && !valid(signo) {
        return Err(Errno::EINVAL);
    }
    let kernel = task.kernel();
    let targets = match options {
        SIGNAL_PROCESS_GROUP => {
            let tree = kernel.tree.lock();
            tree.node(group.pid).map(|n| n.pgid).map(|g| tree.members(g)).unwrap_or_default()
        }
        _ => vec![group],
    };
    for target in &targets {
        send::permitted(kernel, task, target, signo)?;
        match target.leader() {
            _ if signo == 0 => {}
            Some(thread) if options == SIGNAL_THREAD => send::to_task(&thread, info),
            _ => send::to_group(kernel, target, info),
        }
    }
    done()
}

fn pidfd_getfd(task: &Arc<Task>, fd: Fd, wanted: Fd, options: u32) -> SysResult {
    if options != 0 {
        return Err(Errno::EINVAL);
    }
    let group = process(task, fd)?.0.filter(|g| !g.is_exiting()).ok_or(Errno::ESRCH)?;
    let target = group.leader().ok_or(Errno::ESRCH)?;
    let (own, other) = (task.creds(), target.creds());
    // As for ptrace(2): all of the other's ids are the caller's real ones, or the caller has the right.
    let same = [other.ruid, other.euid, other.suid].iter().all(|u| *u == own.ruid)
        && [other.rgid, other.egid, other.sgid].iter().all(|g| *g == own.rgid);
    if !Arc::ptr_eq(&group, task.group()) && !same && !own.capable(cap::SYS_PTRACE) {
        return Err(Errno::EPERM);
    }
    let file = target.files().get_any(wanted.0)?;
    value(task.add_file(file, true)?)
}
