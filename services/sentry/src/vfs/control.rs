//! What files need to know of tasks: limits, signals, process groups.
//!
//! The task side implements this; files use nothing else of it.

use std::sync::Arc;

use crate::errno::Errno;
use crate::task::Task;

/// `RLIMIT_FSIZE`.
pub const RLIMIT_FSIZE: u32 = 1;
/// `RLIMIT_NOFILE`.
pub const RLIMIT_NOFILE: u32 = 7;

/// Processes as files see them.
pub trait ProcessControl {
    /// The soft resource limit.
    fn limit(&self, which: u32) -> u64;
    /// Posts a signal to the task itself (SIGPIPE, SIGXFSZ).
    fn post_signal(self: &Arc<Self>, signal: i32);
    /// Blocks these signals instead for the time of a call (`ppoll(2)`); the old mask.
    fn swap_signal_mask(self: &Arc<Self>, mask: u64) -> u64;
    /// Ends that. `interrupted`: only after the handler of the signal that interrupted the call has been set up.
    fn restore_signal_mask(self: &Arc<Self>, old: u64, interrupted: bool);
    /// Goes on with a descriptor table of its own (`CLONE_FILES` undone).
    fn unshare_files(&self);
    /// The process id.
    fn process(&self) -> i32;
}

/// Default RLIMIT_NOFILE, as systemd and container engines set it.
const DEFAULT_NOFILE: u64 = 20_000;

impl ProcessControl for Task {
    fn limit(&self, which: u32) -> u64 {
        if which == RLIMIT_NOFILE { DEFAULT_NOFILE } else { u64::MAX }
    }
    fn post_signal(self: &Arc<Self>, _signal: i32) {}
    fn swap_signal_mask(self: &Arc<Self>, _mask: u64) -> u64 {
        0
    }
    fn restore_signal_mask(self: &Arc<Self>, _old: u64, _interrupted: bool) {}
    fn unshare_files(&self) {}
    fn process(&self) -> i32 {
        self.tid()
    }
}

/// The error of a write that would pass RLIMIT_FSIZE, with its signal.
pub fn check_file_size(task: &Arc<Task>, at: u64) -> Result<u64, Errno> {
    let limit = task.limit(RLIMIT_FSIZE);
    if at >= limit {
        task.post_signal(libc::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    Ok(limit - at)
}
