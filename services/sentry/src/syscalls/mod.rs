//! The system-call table and the typed arguments of its handlers.
//!
//! One file a family; each holds its handlers and its part of the table ([`Entry`]): number, name, handler, support
//! level and a note. `docs/COMPATIBILITY.md` is made from the parts (`cofferdam-sentry --compatibility`). A call that
//! is not in the table, or is listed as missing, answers ENOSYS, is counted, and is logged once with its arguments.

use std::sync::Arc;

use cofferdam_control::calls;
use cofferdam_control::sentry::InVain;

use crate::errno::Errno;
use crate::task::Task;
use crate::vfs::moment;
use crate::wait::Wait;

pub mod aio;
pub mod args;
pub mod attr;
pub mod blocking;
pub mod compatibility;
pub mod dir;
pub mod epoll;
pub mod event;
pub mod fd;
pub mod file_attr;
pub mod files;
pub mod futex;
pub mod futex2;
pub mod identity;
pub mod inet;
pub mod inet_options;
mod inet_raw;
pub mod inotify;
pub mod ioctl;
pub mod landlock;
pub mod lock;
pub mod memory;
pub mod mempolicy;
pub mod mount;
pub mod mount_api;
pub mod mqueue;
pub mod msg;
pub mod namespaces;
pub mod netlink;
pub mod open;
pub mod packet;
pub mod pidfd;
pub mod pipe;
pub mod pkey;
pub mod poll;
pub mod process;
pub mod ptrace;
pub mod read_write;
pub mod refused;
pub mod rseq;
pub mod sched;
pub mod seccomp;
pub mod sem;
pub mod shm;
pub mod signal;
pub mod socket;
pub mod sockopt;
pub mod stat;
pub mod statmount;
pub mod sync;
pub mod system;
pub mod time;
pub mod timer;
pub mod xattr;

pub use args::{Fd, FromArg, UserPtr, UserStr};

/// What a handler came to.
pub enum Outcome {
    /// The call is done: its result.
    Value(i64),
    /// It waits for something.
    Block(Wait),
    /// The caller must not run on as it was: the task code has arranged what happens (exit, exec, sigreturn, a call
    /// whose memory orders are under way). Only `task`, `memory` and `signal` handlers use it.
    Special(crate::task::Special),
}

/// What a handler returns.
pub type SysResult = Result<Outcome, Errno>;

/// `Ok(Outcome::Value(v))` for any integer that fits.
pub fn value<T: TryInto<i64>>(v: T) -> SysResult {
    v.try_into().map(Outcome::Value).map_err(|_| Errno::EOVERFLOW)
}

/// `Ok(Outcome::Value(0))`.
pub fn done() -> SysResult {
    Ok(Outcome::Value(0))
}

/// How much of a call is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// All that the man page says.
    Full,
    /// What the note says is missing.
    Partial,
    /// Answers with an error on purpose, as the note says.
    Refused,
}

/// The type every handler has behind its typed face.
pub type Handler = fn(&Arc<Task>, &[u64; 6]) -> SysResult;

/// One line of the table.
pub struct Entry {
    /// x86-64 system-call number.
    pub number: u32,
    /// Name as in the man pages.
    pub name: &'static str,
    /// Who answers it.
    pub handler: Handler,
    /// How much is there.
    pub support: Support,
    /// What is missing or special, for the compatibility page.
    pub note: &'static str,
}

/// Makes an [`Entry`] from a handler with typed arguments:
/// `entry!(3, "close", Full, "", close(Fd))` calls `close(task, Fd::from_arg(a0)?)`.
#[macro_export]
macro_rules! entry {
    ($number:literal, $name:literal, $support:ident, $note:literal, $handler:ident ( $($ty:ty),* $(,)? )) => {
        $crate::syscalls::Entry {
            number: $number,
            name: $name,
            support: $crate::syscalls::Support::$support,
            note: $note,
            handler: {
                fn shim(
                    task: &std::sync::Arc<$crate::task::Task>,
                    args: &[u64; 6],
                ) -> $crate::syscalls::SysResult {
                    let mut _args = args.iter().copied();
                    $handler(task, $(<$ty as $crate::syscalls::FromArg>::from_arg(_args.next().unwrap_or(0))?),*)
                }
                shim
            },
        }
    };
}

/// Numbers below this have a place in the dispatch table.
const NUMBERS: usize = 480;

/// The parts of the table, in the order of `docs/COMPATIBILITY.md`.
pub fn families() -> Vec<(&'static str, &'static [Entry])> {
    let mut all: Vec<(&'static str, &'static [Entry])> = vec![
        ("asynchronous I/O", aio::TABLE),
        ("memory", memory::TABLE),
        ("memory policies", mempolicy::TABLE),
        ("memory protection keys", pkey::TABLE),
        ("processes", process::TABLE),
        ("restartable sequences", rseq::TABLE),
        ("process descriptors", pidfd::TABLE),
        ("tracing", ptrace::TABLE),
        ("namespaces", namespaces::TABLE),
        ("identity", identity::TABLE),
        ("signals", signal::TABLE),
        ("futexes", futex::TABLE),
        ("futexes of several words", futex2::TABLE),
        ("System V shared memory", shm::TABLE),
        ("System V semaphores", sem::TABLE),
        ("System V message queues", msg::TABLE),
        ("POSIX message queues", mqueue::TABLE),
        ("time", time::TABLE),
        ("POSIX timers", timer::TABLE),
        ("scheduling", sched::TABLE),
        ("seccomp", seccomp::TABLE),
        ("landlock", landlock::TABLE),
        ("system", system::TABLE),
        ("refused", refused::TABLE),
    ];
    all.extend(files::families());
    all
}

struct Dispatch {
    by_number: Vec<Option<&'static Entry>>,
    /// Calls that were made in vain, missing or refused, by number.
    vain: crate::sync::Mutex<std::collections::BTreeMap<u32, u64>>,
}

impl Dispatch {
    /// Counts a call that was made in vain; whether it is the first of its number.
    fn count(&self, number: u32) -> bool {
        // A container can make up numbers: only those that could be calls are counted one by one.
        let key = if (number as usize) < NUMBERS { number } else { u32::MAX };
        let mut vain = self.vain.lock();
        let count = vain.entry(key).or_insert(0);
        *count += 1;
        *count == 1
    }
}

/// Calls that the container made and that are missing or refused.
pub fn in_vain() -> Vec<InVain> {
    let table = dispatch_table();
    let vain = table.vain.lock();
    let refused = |n: u32| table.by_number.get(n as usize).copied().flatten().is_some();
    vain.iter().map(|(n, count)| InVain { number: *n, count: *count, refused: refused(*n) }).collect()
}

fn dispatch_table() -> &'static Dispatch {
    static TABLE: std::sync::OnceLock<Dispatch> = std::sync::OnceLock::new();
    TABLE.get_or_init(|| {
        let mut by_number = vec![None; NUMBERS];
        for (_, entries) in families() {
            for e in entries {
                if let Some(slot) = by_number.get_mut(e.number as usize) {
                    *slot = Some(e);
                }
            }
        }
        Dispatch { by_number, vain: crate::sync::Mutex::default() }
    })
}

/// Answers a call.
pub fn dispatch(task: &Arc<Task>, number: u32, args: &[u64; 6]) -> SysResult {
    let table = dispatch_table();
    let entry = table.by_number.get(number as usize).copied().flatten();
    let Some(entry) = entry else {
        if table.count(number) {
            let name = calls::of(number);
            let comm = String::from_utf8_lossy(&task.comm.read()).into_owned();
            tracing::warn!(number, name, ?args, comm, "system call is missing");
            task.kernel().log(format!("{comm}: system call {name} ({number}) is missing"));
        }
        return Err(Errno::ENOSYS);
    };
    if entry.support == Support::Refused && table.count(number) {
        tracing::info!(number, name = entry.name, ?args, note = entry.note, "system call is refused");
    }
    if strace() {
        let result = (entry.handler)(task, args);
        let said = match &result {
            Ok(Outcome::Value(v)) => format!("= {v:#x}"),
            Ok(Outcome::Block(_)) => "...".into(),
            Ok(Outcome::Special(_)) => "(trap)".into(),
            Err(e) => format!("= {e}"),
        };
        let [a, b, c, d, e, f] = args;
        tracing::debug!("{} {}({a:#x}, {b:#x}, {c:#x}, {d:#x}, {e:#x}, {f:#x}) {said}", task.tid(), entry.name);
        return result;
    }
    let mut result = (entry.handler)(task, args);
    for _ in 0..STALE_TRIES {
        // The host moved a file between two steps of the call, which has done nothing yet: once more from the start, as Linux does.
        if !matches!(result, Err(Errno::ESTALE)) {
            break;
        }
        moment::begin();
        result = (entry.handler)(task, args);
    }
    result
}

/// How often a call is made again that found a file moved.
const STALE_TRIES: u32 = 8;

/// Whether calls are logged one by one (log level trace).
pub fn strace() -> bool {
    STRACE.load(std::sync::atomic::Ordering::Relaxed)
}

/// Set at start.
pub static STRACE: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
