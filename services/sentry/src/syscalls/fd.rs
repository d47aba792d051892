//! Descriptors: `close`, `close_range`, `dup*`, `fcntl`.

use std::sync::Arc;

use crate::entry;
use crate::errno::Errno;
use crate::filesystems::tree::seals;
use crate::ipc::pipe::PipeEnd;
use crate::syscalls::{Entry, Fd, SysResult, UserPtr, done, value};
use crate::task::Task;
use crate::task::creds::cap;
use crate::vfs::control::{ProcessControl, RLIMIT_NOFILE};
use crate::vfs::file::File;
use crate::vfs::file::flags;
use crate::vfs::{dnotify, fasync};

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(3, "close", Full, "", close(Fd)),
    entry!(436, "close_range", Full, "", close_range(u32, u32, u32)),
    entry!(32, "dup", Full, "", dup(Fd)),
    entry!(33, "dup2", Full, "", dup2(Fd, Fd)),
    entry!(292, "dup3", Full, "", dup3(Fd, Fd, i32)),
    entry!(72, "fcntl", Partial, "no leases (EAGAIN)", fcntl(Fd, i32, u64)),
];

fn close(task: &Arc<Task>, fd: Fd) -> SysResult {
    task.files().close(fd.0)?;
    done()
}

const CLOSE_RANGE_UNSHARE: u32 = 2;
const CLOSE_RANGE_CLOEXEC: u32 = 4;

fn close_range(task: &Arc<Task>, first: u32, last: u32, options: u32) -> SysResult {
    if first > last || options & !(CLOSE_RANGE_CLOEXEC | CLOSE_RANGE_UNSHARE) != 0 {
        return Err(Errno::EINVAL);
    }
    if options & CLOSE_RANGE_UNSHARE != 0 {
        task.unshare_files();
    }
    task.files().close_range(first, last, options & CLOSE_RANGE_CLOEXEC != 0);
    done()
}

fn dup(task: &Arc<Task>, fd: Fd) -> SysResult {
    let file = task.files().get_any(fd.0)?;
    value(task.add_file(file, false)?)
}

fn dup2(task: &Arc<Task>, from: Fd, to: Fd) -> SysResult {
    let file = task.files().get_any(from.0)?;
    if from != to {
        task.files().put(to.0, file, false, task.limit(RLIMIT_NOFILE))?;
    }
    value(to.0)
}

fn dup3(task: &Arc<Task>, from: Fd, to: Fd, open_flags: i32) -> SysResult {
    if from == to || open_flags & !flags::CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.files().get_any(from.0)?;
    task.files().put(to.0, file, open_flags & flags::CLOEXEC != 0, task.limit(RLIMIT_NOFILE))?;
    value(to.0)
}

const F_DUPFD: i32 = 0;
const F_GETFD: i32 = 1;
const F_SETFD: i32 = 2;
const F_GETFL: i32 = 3;
const F_SETFL: i32 = 4;
const F_GETLK: i32 = 5;
const F_SETLK: i32 = 6;
const F_SETLKW: i32 = 7;
const F_SETOWN: i32 = 8;
const F_GETOWN: i32 = 9;
const F_SETSIG: i32 = 10;
const F_GETSIG: i32 = 11;
const F_SETOWN_EX: i32 = 15;
const F_GETOWN_EX: i32 = 16;
const F_OFD_GETLK: i32 = 36;
const F_OFD_SETLK: i32 = 37;
const F_OFD_SETLKW: i32 = 38;
const F_DUPFD_CLOEXEC: i32 = 1030;
const F_SETPIPE_SZ: i32 = 1031;
const F_GETPIPE_SZ: i32 = 1032;
const F_ADD_SEALS: i32 = 1033;
const F_GET_SEALS: i32 = 1034;
const F_GETLEASE: i32 = 1025;
const F_SETLEASE: i32 = 1024;
const F_NOTIFY: i32 = 1026;
const F_UNLCK: i32 = 2;

/// Says who gets a file's signals.
fn own(task: &Task, file: &File, pid: i32) {
    let c = task.creds();
    let mut owner = file.owner.lock();
    (owner.pid, owner.uid, owner.euid) = (pid, c.ruid, c.euid);
}

fn fcntl(task: &Arc<Task>, fd: Fd, command: i32, argument: u64) -> SysResult {
    let files = task.files();
    let file = files.get_any(fd.0)?;
    if file.is_path_only() && !matches!(command, F_DUPFD | F_DUPFD_CLOEXEC | F_GETFD | F_SETFD | F_GETFL) {
        return Err(Errno::EBADF);
    }
    let number = argument as i32;
    match command {
        F_DUPFD | F_DUPFD_CLOEXEC => {
            let limit = task.limit(RLIMIT_NOFILE);
            if number < 0 || number as u64 >= limit {
                return Err(Errno::EINVAL);
            }
            value(files.add_from(file, command == F_DUPFD_CLOEXEC, number, limit)?)
        }
        F_GETFD => value(i32::from(files.cloexec(fd.0)?)),
        F_SETFD => {
            files.set_cloexec(fd.0, number & 1 != 0)?;
            done()
        }
        F_GETFL => value(file.flags()),
        F_SETFL => {
            if (file.flags() ^ number) & flags::ASYNC != 0 {
                fasync::set(task, &file, fd.0, number & flags::ASYNC != 0);
            }
            file.set_flags(number);
            done()
        }
        F_GETLK | F_OFD_GETLK => super::lock::get(task, &file, UserPtr::new(argument), command == F_OFD_GETLK),
        F_SETLK | F_OFD_SETLK => super::lock::set(task, &file, UserPtr::new(argument), command == F_OFD_SETLK, false),
        F_SETLKW | F_OFD_SETLKW => super::lock::set(task, &file, UserPtr::new(argument), command == F_OFD_SETLKW, true),
        F_SETOWN => {
            own(task, &file, task.id_of(number));
            done()
        }
        F_GETOWN => value(task.shown(file.owner.lock().pid)),
        F_SETSIG => {
            if !(0..=64).contains(&number) {
                return Err(Errno::EINVAL);
            }
            file.owner.lock().signal = number;
            done()
        }
        F_GETSIG => value(file.owner.lock().signal),
        F_SETOWN_EX => {
            let [kind, pid] = UserPtr::<[i32; 2]>::new(argument).read(task)?;
            let pid = match kind {
                0 | 1 => task.id_of(pid),
                2 => task.id_of(pid.checked_neg().ok_or(Errno::EINVAL)?),
                _ => return Err(Errno::EINVAL),
            };
            own(task, &file, pid);
            done()
        }
        F_GETOWN_EX => {
            let pid = task.shown(file.owner.lock().pid);
            UserPtr::<[i32; 2]>::new(argument).write(task, &if pid < 0 { [2, -pid] } else { [1, pid] })?;
            done()
        }
        F_GETPIPE_SZ => value(file.ops_as::<PipeEnd>().ok_or(Errno::EBADF)?.capacity()),
        F_SETPIPE_SZ => {
            let size = usize::try_from(number).map_err(|_| Errno::EINVAL)?;
            let pipe = file.ops_as::<PipeEnd>().ok_or(Errno::EBADF)?;
            value(pipe.set_capacity(size, task.creds().capable(cap::SYS_RESOURCE))?)
        }
        F_ADD_SEALS if !file.writable() => Err(Errno::EPERM),
        F_ADD_SEALS => {
            let seals = seals(file.inode()).ok_or(Errno::EINVAL)?;
            let program = file.inode().attr()?.mode & 0o111 != 0;
            seals.add(number.cast_unsigned(), program)?;
            done()
        }
        F_GET_SEALS => value(seals(file.inode()).ok_or(Errno::EINVAL)?.get()),
        F_NOTIFY => {
            dnotify::set(task, &file, fd.0, number.cast_unsigned())?;
            done()
        }
        F_GETLEASE => value(F_UNLCK),
        F_SETLEASE if number == F_UNLCK => Err(Errno::EAGAIN),
        F_SETLEASE => Err(Errno::EAGAIN),
        _ => Err(Errno::EINVAL),
    }
}
