//! Going into namespaces: `unshare(2)`, `setns(2)`.

use std::sync::Arc;

use super::{Entry, Fd, SysResult, done};
use crate::entry;
use crate::errno::Errno;
use crate::namespaces::{Kind, enter, nsfs};
use crate::task::Task;
use crate::task::clone::flag;

/// The namespace calls.
pub const TABLE: &[Entry] = &[
    entry!(272, "unshare", Partial, "no time namespaces (EINVAL)", unshare(u64)),
    entry!(308, "setns", Full, "", setns(Fd, i32)),
];

/// What `unshare(2)` knows besides namespaces.
const KNOWN: u64 = flag::FS | flag::FILES | flag::SYSVSEM | flag::THREAD | flag::SIGHAND | flag::VM;

fn unshare(task: &Arc<Task>, flags: u64) -> SysResult {
    let mut flags = flags;
    for (one, others) in [
        (flag::NEWUSER, flag::THREAD | flag::FS),
        (flag::VM, flag::SIGHAND),
        (flag::SIGHAND, flag::THREAD),
        (flag::NEWNS, flag::FS),
        (flag::NEWIPC, flag::SYSVSEM),
    ] {
        if flags & one != 0 {
            flags |= others;
        }
    }
    if flags & !(KNOWN | flag::NAMESPACES) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & flag::THREAD != 0 && task.group().tasks().len() > 1 {
        return Err(Errno::EINVAL);
    }
    let fs = if flags & flag::FS != 0 { task.fs().fork() } else { task.fs() };
    let (creds, namespaces) = enter::unshared(task, flags, &fs)?;
    if flags & flag::SYSVSEM != 0 {
        task.ipc().sysv.exit(task.pid());
    }
    task.set_fs(fs);
    if flags & flag::FILES != 0 {
        let copy = task.files().fork();
        task.set_files(copy);
    }
    if flags & flag::NAMESPACES != 0 {
        task.set_namespaces((*namespaces).clone());
    }
    if flags & flag::NEWUSER != 0 {
        task.set_creds((*creds).clone());
    }
    done()
}

fn setns(task: &Arc<Task>, fd: Fd, kinds: i32) -> SysResult {
    let file = task.files().get(fd.0)?;
    let kinds = u64::from(kinds.cast_unsigned());
    let mut entry = enter::Entry::new(task);
    if let Some(namespace) = nsfs::of_file(&file) {
        if kinds != 0 && kinds != namespace.kind().flag() {
            return Err(Errno::EINVAL);
        }
        entry.add(namespace)?;
    } else {
        let Ok((group, _)) = super::pidfd::process(task, fd) else { return Err(Errno::EINVAL) };
        if kinds == 0 || kinds & !(flag::NAMESPACES & !flag::NEWTIME) != 0 {
            return Err(Errno::EINVAL);
        }
        let target = group.and_then(|g| g.leader()).ok_or(Errno::ESRCH)?;
        if !crate::task::creds::may_look_into(task, &target) {
            return Err(Errno::EPERM);
        }
        // A user namespace first: it gives the right to go into the others.
        let order = [Kind::User, Kind::Mount, Kind::Uts, Kind::Ipc, Kind::Pid, Kind::Cgroup, Kind::Net].into_iter();
        for kind in order.filter(|k| kinds & k.flag() != 0) {
            entry.add(&nsfs::of_task(&target, kind))?;
        }
    }
    entry.commit();
    done()
}
