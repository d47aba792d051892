//! A container's limits, and what was refused or killed because of them.
//!
//! Memory and processor time are kept to by the host's cgroup, which the container's processes are in: here they are known, so that
//! a program finds them where it looks (`/proc/meminfo`, `/sys/fs/cgroup`). How many tasks there may be is kept to here, since the host
//! counts threads of the Sentry and stubs. Part of `task::cgroup`; set by `sandbox`, asked by `task::clone` and `filesystems::cgroup`.

use std::sync::atomic::{AtomicU64, Ordering};

use cofferdam_control::sentry::Limits;

use crate::sync::Mutex;

/// Limits and counts. `u64::MAX` is no limit.
#[derive(Debug)]
pub struct Kept {
    all: Mutex<Limits>,
    memory: AtomicU64,
    pids: AtomicU64,
    refused: AtomicU64,
    killed: AtomicU64,
}

impl Default for Kept {
    fn default() -> Self {
        let none = || AtomicU64::new(u64::MAX);
        Self {
            all: Mutex::default(),
            memory: none(),
            pids: none(),
            refused: AtomicU64::new(0),
            killed: AtomicU64::new(0),
        }
    }
}

impl Kept {
    /// From now on these.
    pub fn set(&self, limits: Limits) {
        self.memory.store(limits.memory.unwrap_or(u64::MAX), Ordering::Relaxed);
        self.pids.store(limits.pids.unwrap_or(u64::MAX), Ordering::Relaxed);
        *self.all.lock() = limits;
    }

    /// All of them.
    pub fn get(&self) -> Limits {
        self.all.lock().clone()
    }

    /// Bytes of memory.
    pub fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    /// Number of tasks.
    pub fn pids(&self) -> u64 {
        self.pids.load(Ordering::Relaxed)
    }

    /// A task was refused.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// The host killed a process. With a limit of memory that is why: nothing else of the host's kills a stub by SIGKILL, but for a
    /// person with the rights to.
    pub fn host_killed(&self) {
        if self.memory() != u64::MAX {
            self.killed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many processes that was.
    pub fn killed(&self) -> u64 {
        self.killed.load(Ordering::Relaxed)
    }
}
