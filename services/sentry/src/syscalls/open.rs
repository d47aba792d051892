//! Opening: `open`, `openat`, `openat2`, `creat`.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::entry;
use crate::errno::Errno;
use crate::ipc::pipe::PipeEnd;
use crate::syscalls::args::AT_FDCWD;
use crate::syscalls::{Entry, Fd, Outcome, SysResult, UserPtr, UserStr, value};
use crate::task::Task;
use crate::vfs::file::{File, flags};
use crate::vfs::walk::Resolve;
use crate::vfs::{Caller, ops, task_files};
use crate::wait::{Cause, PollMask, Wait};

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(2, "open", Full, "", open(UserStr, i32, u32)),
    entry!(257, "openat", Full, "", openat(Fd, UserStr, i32, u32)),
    entry!(437, "openat2", Full, "", openat2(Fd, UserStr, UserPtr<OpenHow2>, usize)),
    entry!(85, "creat", Full, "", creat(UserStr, u32)),
];

/// `struct open_how`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct OpenHow2 {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Flags that `open(2)` knows; others are ignored by `open` and refused by `openat2`.
const KNOWN: i32 = flags::ACCMODE
    | flags::CREAT
    | flags::EXCL
    | flags::NOCTTY
    | flags::TRUNC
    | flags::APPEND
    | flags::NONBLOCK
    | flags::SYNC
    | flags::ASYNC
    | flags::DIRECT
    | flags::LARGEFILE
    | flags::DIRECTORY
    | flags::NOFOLLOW
    | flags::NOATIME
    | flags::CLOEXEC
    | flags::PATH
    | flags::TMPFILE;

/// Enters an opened file, once the other side of a FIFO is there.
fn install(task: &Arc<Task>, file: Arc<File>, cloexec: bool) -> SysResult {
    let queue = match file.ops_as::<PipeEnd>() {
        Some(end) if end.waits_for_peer() => file.ops().queue().cloned(),
        _ => None,
    };
    let Some(queue) = queue else { return value(task.add_file(file, cloexec)?) };
    let mut file = Some(file);
    Ok(Outcome::Block(
        Wait::new(move |task: &Arc<Task>, cause| {
            if file.as_ref().and_then(|f| f.ops_as::<PipeEnd>()).is_some_and(PipeEnd::waits_for_peer) {
                return if cause == Cause::Woken { None } else { Some(Err(Errno::ERESTARTSYS)) };
            }
            Some(task.add_file(file.take()?, cloexec).map(i64::from))
        })
        .on(&queue, PollMask::empty()),
    ))
}

fn do_open(task: &Arc<Task>, dirfd: Fd, path: UserStr, open_flags: i32, mode: u32, resolve: Resolve) -> SysResult {
    let path = path.read_path(task)?;
    let caller = Caller::of(task);
    let base = task_files::base(task, &caller, dirfd, &path)?;
    // A 64-bit program's files are all large; only what open() makes shows it.
    let file = ops::open(&caller, base, &path, (open_flags & KNOWN) | flags::LARGEFILE, mode, resolve)?;
    if open_flags & flags::TRUNC != 0 {
        crate::task::shrink::truncated(task, file.inode())?;
    }
    crate::ipc::terminal_opened(task, &file, open_flags);
    install(task, file, open_flags & flags::CLOEXEC != 0)
}

fn open(task: &Arc<Task>, path: UserStr, open_flags: i32, mode: u32) -> SysResult {
    do_open(task, AT_FDCWD, path, open_flags, mode, Resolve::empty())
}

fn openat(task: &Arc<Task>, dirfd: Fd, path: UserStr, open_flags: i32, mode: u32) -> SysResult {
    do_open(task, dirfd, path, open_flags, mode, Resolve::empty())
}

fn creat(task: &Arc<Task>, path: UserStr, mode: u32) -> SysResult {
    do_open(task, AT_FDCWD, path, flags::CREAT | flags::WRONLY | flags::TRUNC, mode, Resolve::empty())
}

fn openat2(task: &Arc<Task>, dirfd: Fd, path: UserStr, how: UserPtr<OpenHow2>, size: usize) -> SysResult {
    let how = how.read_sized(task, size)?;
    let open_flags = i32::try_from(how.flags).map_err(|_| Errno::EINVAL)?;
    let resolve = Resolve::from_bits(how.resolve).ok_or(Errno::EINVAL)?;
    let makes = open_flags & flags::CREAT != 0 || open_flags & flags::TMPFILE == flags::TMPFILE;
    if open_flags & !KNOWN != 0
        || how.mode & !0o7777 != 0
        || (how.mode != 0 && !makes)
        || resolve.contains(Resolve::BENEATH | Resolve::IN_ROOT)
        || (open_flags & flags::PATH != 0
            && open_flags & !(flags::PATH | flags::DIRECTORY | flags::NOFOLLOW | flags::CLOEXEC) != 0)
    {
        return Err(Errno::EINVAL);
    }
    // What makes or cuts files is not tried without waiting.
    if resolve.contains(Resolve::CACHED) && (makes || open_flags & flags::TRUNC != 0) {
        return Err(Errno::EAGAIN);
    }
    do_open(task, dirfd, path, open_flags, how.mode as u32, resolve)
}
