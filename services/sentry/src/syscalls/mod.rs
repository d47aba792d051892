//! The system-call table and the typed arguments of its handlers.
//!
//! One file a family; each holds its handlers and its part of the table ([`Entry`]): number, name, handler, support
//! level and a note. `docs/COMPATIBILITY.md` is made from the parts (`cofferdam-sentry --compatibility`). A call that
//! is not in the table, or is listed as missing, answers ENOSYS, is counted, and is logged once with its arguments.

use std::sync::Arc;

use crate::errno::Errno;
use crate::task::Task;
use crate::wait::Wait;

pub mod args;
pub mod attr;
pub mod blocking;
pub mod dir;
pub mod fd;
pub mod lock;
pub mod open;
pub mod pipe;
pub mod poll;
pub mod read_write;
pub mod stat;

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
