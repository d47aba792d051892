//! `pipe` and `pipe2`.

use std::sync::Arc;

use crate::entry;
use crate::errno::Errno;
use crate::syscalls::{Entry, SysResult, UserPtr, done};
use crate::task::Task;
use crate::vfs::file::flags;

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(22, "pipe", Full, "", pipe(UserPtr<[i32; 2]>)),
    entry!(293, "pipe2", Full, "", pipe2(UserPtr<[i32; 2]>, i32)),
];

fn pipe2(task: &Arc<Task>, to: UserPtr<[i32; 2]>, open_flags: i32) -> SysResult {
    if open_flags & !(flags::CLOEXEC | flags::NONBLOCK | flags::DIRECT) != 0 {
        return Err(Errno::EINVAL);
    }
    let cloexec = open_flags & flags::CLOEXEC != 0;
    let (r, w) = crate::ipc::pipe::pipe(&task.creds(), open_flags & !flags::CLOEXEC);
    task.add_pair([r, w], cloexec, to)?;
    done()
}

fn pipe(task: &Arc<Task>, to: UserPtr<[i32; 2]>) -> SysResult {
    pipe2(task, to, 0)
}
