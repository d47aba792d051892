//! `execve(2)`: a new program in a fresh host process.
//!
//! The old host process ends; a new one with nothing mapped takes the task over. So no state of the old program
//! survives in the host, whatever it did to its stub.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cofferdam_platform::{Answer, Frame, Order, Registers};

use super::{Begin, Task, exit};
use crate::errno::Errno;
use crate::loader::{self, Called, Loaded};
use crate::memory::kept::Departed;
use crate::signal::sig;
use crate::sync::Mutex;
use crate::syscalls::{Fd, UserPtr, UserStr};
use crate::vfs::task_files::{AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW};
use crate::vfs::{self, File};

/// Bytes of arguments and environment together (a quarter of the stack limit, at least this).
const ARG_MIN: u64 = 128 << 10;
/// Longest single string.
const STRING_MAX: usize = 128 << 10;

/// `AT_EXECVE_CHECK`.
pub const CHECK: i32 = 0x10000;

/// What is asked for; strings are still in the caller's memory.
pub struct ExecRequest {
    /// Directory a relative path starts from.
    pub dir: Fd,
    /// Path.
    pub path: UserStr,
    /// Argument vector.
    pub argv: UserPtr<u64>,
    /// Environment.
    pub envp: UserPtr<u64>,
    /// `AT_EMPTY_PATH`, `AT_SYMLINK_NOFOLLOW`, `AT_EXECVE_CHECK`; others are refused.
    pub flags: i32,
}

/// A program that is about to start.
pub(crate) struct Start {
    pub(crate) orders: Vec<Order>,
    pub(crate) loaded: Loaded,
}

fn read_vector(task: &Arc<Task>, at: UserPtr<u64>, room: &mut u64) -> Result<Vec<Vec<u8>>, Errno> {
    let mut out = Vec::new();
    if at.is_null() {
        return Ok(out);
    }
    loop {
        let pointer = at.offset(out.len() as u64 * 8)?.read(task)?;
        if pointer == 0 {
            return Ok(out);
        }
        let s = UserStr(pointer).read(task, STRING_MAX, Errno::E2BIG)?;
        *room = room.checked_sub(s.len() as u64 + 9).ok_or(Errno::E2BIG)?;
        out.push(s);
    }
}

/// A program that was asked for, opened, with its arguments and environment.
struct Asked {
    file: Arc<File>,
    called: Called,
    argv: Vec<Vec<u8>>,
    envp: Vec<Vec<u8>>,
}

/// Opens the program and copies the strings in, in the order in which Linux finds what is wrong with them.
fn ask(task: &Arc<Task>, r: &ExecRequest) -> Result<Asked, Errno> {
    let path = r.path.read_path(task)?;
    if path.is_empty() && r.flags & AT_EMPTY_PATH == 0 {
        return Err(Errno::ENOENT);
    }
    if r.flags & !(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | CHECK) != 0 {
        return Err(Errno::EINVAL);
    }
    let file = vfs::open_exec(task, r.dir, &path, r.flags & !CHECK)?;
    let by_descriptor = path.is_empty();
    let below = by_descriptor || (r.dir != crate::syscalls::args::AT_FDCWD && !path.starts_with(b"/"));
    let called = if below {
        let mut name = format!("/dev/fd/{}", r.dir.0).into_bytes();
        if !by_descriptor {
            name.push(b'/');
            name.extend_from_slice(&path);
        }
        Called { path: name, by_descriptor, unreachable: task.files().cloexec(r.dir.0)? }
    } else {
        Called { path, by_descriptor, unreachable: false }
    };
    let stack = task.group().limit(super::group::rlimit::STACK).soft;
    let room = (stack / 4).clamp(ARG_MIN, 6 << 20);
    let mut room = room.checked_sub(called.path.len() as u64 + 1).ok_or(Errno::E2BIG)?;
    let mut argv = read_vector(task, r.argv, &mut room)?;
    let envp = read_vector(task, r.envp, &mut room)?;
    if argv.is_empty() {
        argv.push(Vec::new());
    }
    Ok(Asked { file, called, argv, envp })
}

/// Says whether the program might be executed (`AT_EXECVE_CHECK`), and does not.
pub fn check(task: &Arc<Task>, r: &ExecRequest) -> Result<(), Errno> {
    ask(task, r).map(|_| ())
}

/// Replaces the task's program. `Ok`: the old host thread is gone, the new one will start the program.
pub(crate) fn exec(task: &Arc<Task>, r: &ExecRequest) -> Result<(), Errno> {
    let Asked { file, called, argv, envp } = ask(task, r)?;
    let program = loader::load(task, file, called, argv, envp)?;
    commit(task, program)
}

/// From here on there is no way back.
fn commit(task: &Arc<Task>, program: loader::Program) -> Result<(), Errno> {
    let old_host = task.host();
    exit::release_robust(task);
    let tids = task.group().tasks().iter().map(|t| t.tid()).collect();
    exit::end_other_threads(task);
    super::timers::clear(task.group());
    task.group().program_ends();
    // A thread other than the leader becomes the leader.
    let old_tid = task.tid();
    task.note_former(old_tid);
    if old_tid != task.pid() {
        task.set_tid(task.pid());
        task.kernel().tree.lock().rename_task(task, old_tid);
        super::ptrace::attach::replaced(task);
    }
    task.fs_base.store(0, Ordering::Relaxed);
    task.gs_base.store(0, Ordering::Relaxed);
    // What the old memory shows is held until its host process has ended.
    let old_mm = task.mm();
    old_mm.write_back();
    task.begun.store(false, Ordering::SeqCst);
    let start = install(task, program);
    task.set_host(None);
    if let Some(host) = old_host {
        host.keep(Arc::new(Departed { mm: old_mm, tids }));
        host.kill();
    }
    {
        let mut s = task.state.lock();
        s.begin = Some(Begin::Exec(Box::new(start)));
        s.returning = None;
        s.deferred = None;
        s.after = None;
        s.more.clear();
    }
    exit::release_vfork(task);
    task.group().cgroup.new_process(task)
}

/// Gives the task its new memory, credentials, signal actions and files.
fn install(task: &Arc<Task>, program: loader::Program) -> Start {
    let loader::Program { mm, orders, loaded, file, comm, creds, secure, dumpable } = program;
    task.set_mm(mm);
    let mut actions = task.actions().lock().clone();
    actions.exec();
    task.set_actions(Arc::new(Mutex::new(actions)));
    {
        let mut s = task.state.lock();
        s.alt_stack = Default::default();
        s.clear_tid = 0;
        s.robust_list = 0;
        s.rseq = None;
        s.restart = None;
        if secure {
            s.death_signal = 0;
        }
    }
    let files = task.files();
    let files = if Arc::strong_count(&files) > 2 { files.fork() } else { files };
    files.close_on_exec();
    task.set_files(files);
    task.group().dumpable.store(i32::from(dumpable), Ordering::Relaxed);
    task.set_creds(creds);
    *task.comm.write() = comm;
    // The program before is let go of outside of the lock.
    let before = task.group().exe.write().replace(file);
    drop(before);
    {
        let mut tree = task.kernel().tree.lock();
        if let Some(n) = tree.node_mut(task.pid()) {
            n.executed = true;
            n.exit_signal = if task.pid() == 1 { 0 } else { sig::CHLD };
        }
    }
    Start { orders, loaded }
}

/// Makes process 1 with a program. Called once the platform runs.
pub fn start_init(
    task: &Arc<Task>,
    file: Arc<File>,
    name: Vec<u8>,
    argv: Vec<Vec<u8>>,
    envp: Vec<Vec<u8>>,
) -> Result<(), Errno> {
    let called = Called { path: name, by_descriptor: false, unreachable: false };
    let program = loader::load(task, file, called, argv, envp)?;
    if task.group().is_exiting() {
        return Err(Errno::ESRCH);
    }
    let start = install(task, program);
    task.state.lock().begin = Some(Begin::Exec(Box::new(start)));
    task.group().cgroup.new_process(task)
}

/// The program's memory is mapped: fill the stack, set the registers, go.
pub(crate) fn finish(task: &Arc<Task>, start: &Start, result: i64, frame: &mut dyn Frame) -> Answer {
    let l = &start.loaded;
    if result == 0 && !l.zero.iter().all(|(at, len)| task.write_exact(*at, &vec![0; *len]).is_ok()) {
        // The file ends before its data does: too late for an error, as on Linux.
        exit::exit_group(task, sig::SEGV);
        return Answer::Park;
    }
    let written = result == 0 && task.write_exact(l.stack_at, &l.stack).is_ok();
    task.begun.store(true, Ordering::SeqCst);
    if !written {
        tracing::error!(tid = task.tid(), result, "a program could not be mapped");
        exit::exit_group(task, sig::KILL);
        return Answer::Park;
    }
    frame.set_registers(&Registers { rip: l.entry, rsp: l.stack_at, rflags: 0x202, ..Registers::default() });
    frame.set_extended_state(None);
    task.trace_exec(frame)
}
