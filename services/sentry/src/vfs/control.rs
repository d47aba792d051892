//! What files need to know of tasks: limits, signals, process groups.
//!
//! The task side implements this; files use nothing else of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

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

impl ProcessControl for Task {
    fn limit(&self, which: u32) -> u64 {
        self.group().limit(which as usize).soft
    }
    fn post_signal(self: &Arc<Self>, signal: i32) {
        self.signal_self(signal);
    }
    fn unshare_files(&self) {
        let own = self.files().fork();
        self.set_files(own);
    }
    fn swap_signal_mask(self: &Arc<Self>, mask: u64) -> u64 {
        self.mask.swap(mask & !((1 << 8) | (1 << 18)), Ordering::Relaxed)
    }
    fn restore_signal_mask(self: &Arc<Self>, old: u64, interrupted: bool) {
        if interrupted {
            self.state.lock().saved_mask = Some(old);
        } else {
            self.mask.store(old, Ordering::Relaxed);
        }
    }
    fn process(&self) -> i32 {
        self.pid()
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
