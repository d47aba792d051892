//! Thread groups: processes. What all threads of one share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use super::cgroup::Cgroup;
use super::usage::{Past, Usage};
use super::{Creds, Task};
use crate::interval::IntervalTimer;
use crate::memory::space::Bounds;
use crate::namespaces::PidNamespace;
use crate::signal::Pending;
use crate::sync::{Mutex, RwLock};
use crate::task::creds::cap;
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
    pub const RSS: usize = 5;
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
    /// The PID namespace that it is in, from its beginning to its end.
    pub pid_ns: Arc<PidNamespace>,
    /// The container's that it is of.
    pub cgroup: Arc<Cgroup>,
    /// It is the first process there.
    pub first: AtomicBool,
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
    /// `oom_score_adj`, and what it may not go below without a right.
    pub oom_score_adj: AtomicI32,
    /// See `oom_score_adj`.
    pub oom_score_least: AtomicI32,
    /// `coredump_filter`: kept and told, no core is dumped.
    pub coredump_filter: AtomicI32,
    /// `loginuid` and `sessionid`; -1 for none.
    pub loginuid: AtomicI32,
    /// See `loginuid`.
    pub sessionid: AtomicI32,
    /// Process 1 that is not an init: signals do to it what they do to any other (`Container::plain`).
    pub plain: AtomicBool,
    /// `PR_SET_THP_DISABLE`: kept and told, the host decides about huge pages.
    pub thp_disabled: AtomicI32,
    /// `personality(2)`: `PER_LINUX` or `PER_LINUX32`, and `ADDR_NO_RANDOMIZE`.
    pub personality: AtomicI32,
    /// `PR_SET_DUMPABLE`.
    pub dumpable: AtomicI32,
    /// Nice value.
    pub nice: AtomicI32,
    /// What children used that were waited for.
    pub children_usage: Mutex<Usage>,
    /// What it had used at the end.
    pub final_usage: Mutex<Usage>,
    /// `setitimer`'s timers.
    pub itimers: super::itimer::ITimers,
    /// Expires when as much CPU time as `RLIMIT_CPU` was used; `None` without a limit.
    pub cpu_limit: Mutex<Option<Arc<IntervalTimer>>>,
    /// `timer_create`'s timers.
    pub timers: Mutex<super::timers::PosixTimers>,
    /// What its threads trace.
    pub tracees: Mutex<Vec<super::ptrace::attach::Tracee>>,
    /// The process that traces its first thread; 0 for none.
    pub traced_by: AtomicI32,
    /// The thread that made it.
    pub maker: AtomicI32,
    /// What its threads that ended and its programs before used.
    pub past: Past,
}

impl Group {
    /// A new process.
    pub fn new(pid: i32, pid_ns: Arc<PidNamespace>, limits: [Limit; LIMITS], cgroup: Arc<Cgroup>) -> Arc<Self> {
        Arc::new(Self {
            pid,
            pid_ns,
            cgroup,
            first: AtomicBool::new(pid == 1),
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
            oom_score_least: AtomicI32::new(0),
            coredump_filter: AtomicI32::new(0x33),
            loginuid: AtomicI32::new(-1),
            sessionid: AtomicI32::new(-1),
            thp_disabled: AtomicI32::new(0),
            personality: AtomicI32::new(0),
            plain: AtomicBool::new(false),
            dumpable: AtomicI32::new(1),
            nice: AtomicI32::new(0),
            children_usage: Mutex::default(),
            final_usage: Mutex::default(),
            itimers: super::itimer::ITimers::new(),
            cpu_limit: Mutex::default(),
            timers: Mutex::default(),
            tracees: Mutex::default(),
            traced_by: AtomicI32::new(0),
            maker: AtomicI32::new(0),
            past: Past::default(),
        })
    }

    /// Whether it is a first process that its own container cannot end by default actions (`SIGNAL_UNKILLABLE`).
    pub fn is_init(&self) -> bool {
        self.first.load(Ordering::Relaxed) && !self.plain.load(Ordering::Relaxed)
    }

    /// A limit.
    pub fn limit(&self, which: usize) -> Limit {
        self.limits.read().get(which).copied().unwrap_or(Limit { soft: INFINITY, hard: INFINITY })
    }

    /// What its memory may come to, for a thread with these credentials.
    pub fn bounds(&self, creds: &Creds) -> Bounds {
        let limits = *self.limits.read();
        let soft = |which: usize| limits.get(which).map_or(INFINITY, |l| l.soft);
        let locked = if creds.capable(cap::IPC_LOCK) { u64::MAX } else { soft(rlimit::MEMLOCK) };
        Bounds { space: soft(rlimit::AS), data: soft(rlimit::DATA), stack: soft(rlimit::STACK), locked }
    }

    /// The bit of a wait status that says that a signal which dumps core has (`RLIMIT_CORE`).
    pub fn dump_flag(&self) -> i32 {
        if self.limit(rlimit::CORE).soft > 0 { 0x80 } else { 0 }
    }

    /// Whose it is, also once it has ended; `None` before its first thread.
    pub fn creds(&self) -> Option<Arc<Creds>> {
        self.leader().map(|t| t.creds()).or_else(|| self.epitaph.lock().as_ref().map(|e| e.1.clone()))
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
