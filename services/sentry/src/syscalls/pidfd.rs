//! Process descriptors: `pidfd_open`, `pidfd_send_signal`, `pidfd_getfd`.

use std::sync::Arc;

use super::signal::{info_from, read_info};
use super::{Entry, Fd, SysResult, UserPtr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::filesystems::pseudo::PseudoNode;
use crate::ipc::pidfd::{PidFd, of_thread, pidfd};
use crate::signal::{code, send, valid};
use crate::task::creds::may_look_into;
use crate::task::{Group, Task};
use crate::vfs::file::flags;

/// The pidfd calls.
pub const TABLE: &[Entry] = &[
    entry!(424, "pidfd_send_signal", Full, "", pidfd_send_signal(Fd, i32, UserPtr<u8>, u32)),
    entry!(434, "pidfd_open", Full, "", pidfd_open(i32, u32)),
    entry!(438, "pidfd_getfd", Full, "", pidfd_getfd(Fd, Fd, u32)),
];

fn pidfd_open(task: &Arc<Task>, pid: i32, options: u32) -> SysResult {
    let (nonblocking, thread) = (flags::NONBLOCK.cast_unsigned(), flags::EXCL.cast_unsigned());
    if options & !(nonblocking | thread) != 0 || pid <= 0 {
        return Err(Errno::EINVAL);
    }
    let (nonblocking, thread) = (options & nonblocking != 0, options & thread != 0);
    let pid = task.id_of(pid);
    let kernel = task.kernel();
    let group = {
        let tree = kernel.tree.lock();
        match tree.group(pid) {
            Some(group) => Ok(group),
            // A thread that is no process.
            None => Err(tree.task(pid).ok_or(Errno::ESRCH)?),
        }
    };
    let file = match group {
        Err(other) if thread => of_thread(&other, nonblocking),
        Err(_) => return Err(Errno::ENOENT),
        Ok(group) => {
            let file = pidfd(kernel, &group, nonblocking);
            file.mark(if thread { flags::EXCL } else { 0 });
            file
        }
    };
    value(task.add_file(file, true)?)
}

/// The process behind a pidfd, and whether the pidfd is non-blocking. EBADF for another descriptor; `None` once it has
/// been waited for.
pub(super) fn process(task: &Task, fd: Fd) -> Result<(Option<Arc<Group>>, bool), Errno> {
    let file = task.files().get(fd.0)?;
    let group = file.ops_as::<PidFd>().ok_or(Errno::EBADF)?.group().cloned();
    Ok((group, file.nonblocking()))
}

/// A process, and the thread of it that is meant, if it is there.
type Signalled = (Option<Arc<Group>>, Option<Arc<Task>>);

/// The process behind what a signal may be sent by: a pidfd, or a directory of `/proc` as before there were any.
/// If it was opened for a thread, that too.
fn signalled(task: &Task, fd: Fd) -> Result<Signalled, Errno> {
    let file = task.files().get(fd.0)?;
    match file.inode().as_any().downcast_ref::<PseudoNode>().and_then(PseudoNode::process) {
        Some(group) => Ok(((!group.is_zombie()).then_some(group), None)),
        None => {
            let ops = file.ops_as::<PidFd>().ok_or(Errno::EBADF)?;
            let thread = if file.flags() & flags::EXCL != 0 { ops.task() } else { None };
            Ok((ops.group().cloned(), thread))
        }
    }
}

const SIGNAL_THREAD: u32 = 1;
const SIGNAL_THREAD_GROUP: u32 = 2;
const SIGNAL_PROCESS_GROUP: u32 = 4;

fn pidfd_send_signal(task: &Arc<Task>, fd: Fd, signo: i32, info: UserPtr<u8>, options: u32) -> SysResult {
    if !matches!(options, 0 | SIGNAL_THREAD | SIGNAL_THREAD_GROUP | SIGNAL_PROCESS_GROUP) {
        return Err(Errno::EINVAL);
    }
    let (group, thread) = signalled(task, fd)?;
    // By default what the descriptor is of.
    let to_thread = options == SIGNAL_THREAD || (options == 0 && thread.is_some());
    let info = if info.is_null() {
        info_from(task, signo, if to_thread { code::TKILL } else { code::USER })
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
        match thread.clone().or_else(|| target.leader()) {
            _ if signo == 0 => {}
            Some(thread) if to_thread => send::to_task(&thread, info),
            _ => send::to_group(kernel, target, info),
        }
    }
    done()
}

fn pidfd_getfd(task: &Arc<Task>, fd: Fd, wanted: Fd, options: u32) -> SysResult {
    if options != 0 {
        return Err(Errno::EINVAL);
    }
    process(task, fd)?.0.filter(|g| !g.is_exiting()).ok_or(Errno::ESRCH)?;
    let target = task.files().get(fd.0)?.ops_as::<PidFd>().and_then(PidFd::task).ok_or(Errno::ESRCH)?;
    if !may_look_into(task, &target) {
        return Err(Errno::EPERM);
    }
    let file = target.files().get_any(wanted.0)?;
    value(task.add_file(file, true)?)
}
