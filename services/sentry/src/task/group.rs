//! Thread groups: processes. What all threads of one share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering};

use super::{Creds, Task};
use crate::signal::Pending;
use crate::sync::{Mutex, RwLock};
use crate::time::{Clock, now};
use crate::vfs::File;
use crate::wait::WaitQueue;

/// Number of `RLIMIT_*`.
pub const LIMITS: usize = 16;
/// No limit.
pub const INFINITY: u64 = u64::MAX;

#[allow(missing_docs, dead_code, reason = "the ABI's table, given whole")]
pub mod rlimit {
    pub const CPU: usize = 0;
    pub const FSIZE: usize = 1;
    pub const DATA: usize = 2;
    pub const STACK: usize = 3;
    pub const CORE: usize = 4;
    pub const NPROC: usize = 6;
    pub const NOFILE: usize = 7;
    pub const MEMLOCK: usize = 8;
    pub const AS: usize = 9;
    pub const SIGPENDING: usize = 11;
    pub const MSGQUEUE: usize = 12;
    pub const NICE: usize = 13;
    pub const RTPRIO: usize = 14;
}

/// Soft and hard limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What counts.
    pub soft: u64,
    /// What the soft one may be raised to.
    pub hard: u64,
}

/// Limits as a fresh Linux system gives its first process.
pub fn default_limits() -> [Limit; LIMITS] {
    let mut l = [Limit { soft: INFINITY, hard: INFINITY }; LIMITS];
    let mut set = |i: usize, soft, hard| {
        if let Some(x) = l.get_mut(i) {
            *x = Limit { soft, hard };
        }
    };
    set(rlimit::STACK, 8 << 20, INFINITY);
    set(rlimit::CORE, 0, INFINITY);
    set(rlimit::NPROC, 65536, 65536);
    set(rlimit::NOFILE, 1024, 1_048_576);
    set(rlimit::MEMLOCK, 8 << 20, 8 << 20);
    set(rlimit::SIGPENDING, 65536, 65536);
    set(rlimit::MSGQUEUE, 819_200, 819_200);
    set(rlimit::NICE, 0, 0);
    set(rlimit::RTPRIO, 0, 0);
    l
}

/// Times used, nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time together, as the host counts it for the stub.
    pub cpu: i64,
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs, or is stopped.
    Alive,
    /// It is ending with this wait status.
    Exiting(i32),
    /// It ended with this wait status and waits to be waited for.
    Zombie(i32),
}

/// Job control.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stop {
    /// Stopped by this signal; 0 if not.
    pub signal: i32,
    /// The stop has not been waited for yet.
    pub stop_unseen: bool,
    /// A continuation has not been waited for yet.
    pub continue_unseen: bool,
}

/// A process.
pub struct Group {
    /// Its id: the thread id of its first thread.
    pub pid: i32,
    /// Its threads, the leader first while it lives.
    pub threads: Mutex<Vec<Arc<Task>>>,
    /// Signals for any of its threads.
    pub pending: Mutex<Pending>,
    /// The set of `pending`, for a look without the lock.
    pub pending_set: AtomicU64,
    /// Life.
    pub life: Mutex<Life>,
    /// Job control.
    pub stop: Mutex<Stop>,
    /// Whether it is stopped, for a look without the lock.
    pub stopped: AtomicBool,
    /// Resource limits.
    pub limits: RwLock<[Limit; LIMITS]>,
    /// Woken when a child changes state.
    pub child_change: WaitQueue,
    /// Woken when it ends (pidfds).
    pub ended: WaitQueue,
    /// The program: nobody may write to it while this is open. `None` before the first and after the end.
    pub exe: RwLock<Option<Arc<File>>>,
    /// What is told of it once it has no thread any more: name and credentials.
    pub epitaph: Mutex<Option<(Vec<u8>, Arc<Creds>)>>,
    /// When it was made, CLOCK_BOOTTIME nanoseconds.
    pub start_time: i64,
    /// Adopts orphans below it (`PR_SET_CHILD_SUBREAPER`).
    pub subreaper: AtomicBool,
    /// `oom_score_adj`.
    pub oom_score_adj: AtomicI32,
    /// Process 1 that is not an init: signals do to it what they do to any other (`Container::plain`).
    pub plain: AtomicBool,
    /// `PR_SET_THP_DISABLE`: kept and told, the host decides about huge pages.
    pub thp_disabled: AtomicI32,
    /// `personality(2)`: 0 or `ADDR_NO_RANDOMIZE`.
    pub personality: AtomicI32,
    /// `PR_SET_DUMPABLE`.
    pub dumpable: AtomicI32,
    /// Nice value.
    pub nice: AtomicI32,
    /// Times of children that were waited for.
    pub children_usage: Mutex<Usage>,
    /// Own times at the end.
    pub final_usage: Mutex<Usage>,
    /// `setitimer`'s timers.
    pub itimers: super::itimer::ITimers,
    /// `timer_create`'s timers.
    pub timers: Mutex<super::timers::PosixTimers>,
    /// CPU time of the programs it ran before the one it runs, nanoseconds.
    pub earlier_cpu: AtomicI64,
}

impl Group {
    /// A new process.
    pub fn new(pid: i32, limits: [Limit; LIMITS]) -> Arc<Self> {
        Arc::new(Self {
            pid,
            threads: Mutex::default(),
            pending: Mutex::default(),
            pending_set: AtomicU64::new(0),
            life: Mutex::new(Life::Alive),
            stop: Mutex::default(),
            stopped: AtomicBool::new(false),
            limits: RwLock::new(limits),
            child_change: WaitQueue::new(),
            ended: WaitQueue::new(),
            exe: RwLock::default(),
            epitaph: Mutex::default(),
            start_time: now(Clock::Boottime),
            subreaper: AtomicBool::new(false),
            oom_score_adj: AtomicI32::new(0),
            thp_disabled: AtomicI32::new(0),
            personality: AtomicI32::new(0),
            plain: AtomicBool::new(false),
            dumpable: AtomicI32::new(1),
            nice: AtomicI32::new(0),
            children_usage: Mutex::default(),
            final_usage: Mutex::default(),
            itimers: super::itimer::ITimers::new(),
            timers: Mutex::default(),
            earlier_cpu: AtomicI64::new(0),
        })
    }

    /// CPU time used so far, nanoseconds.
    pub fn cpu_time(&self) -> i64 {
        if self.is_exiting() {
            return self.final_usage.lock().cpu;
        }
        let running = self.tasks().iter().find_map(|t| t.host()).map_or(0, |h| crate::time::process_cpu(h.tid()));
        self.earlier_cpu.load(Ordering::Relaxed).saturating_add(running)
    }

    /// Whether it is a first process that its own container cannot end by default actions (`SIGNAL_UNKILLABLE`).
    pub fn is_init(&self) -> bool {
        self.pid == 1 && !self.plain.load(Ordering::Relaxed)
    }

    /// A limit.
    pub fn limit(&self, which: usize) -> Limit {
        self.limits.read().get(which).copied().unwrap_or(Limit { soft: INFINITY, hard: INFINITY })
    }

    /// Whether it has ended.
    pub fn is_zombie(&self) -> bool {
        matches!(*self.life.lock(), Life::Zombie(_))
    }

    /// Whether it has ended or is about to.
    pub fn is_exiting(&self) -> bool {
        *self.life.lock() != Life::Alive
    }

    /// The first thread that is left.
    pub fn leader(&self) -> Option<Arc<Task>> {
        self.threads.lock().first().cloned()
    }

    /// Its threads now.
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.threads.lock().clone()
    }

    /// Sets the lock-free copy of the pending set.
    pub fn note_pending(&self, pending: &Pending) {
        self.pending_set.store(pending.set().0, Ordering::SeqCst);
    }
}
