//! The kernel: what all tasks of a sandbox share.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use cofferdam_platform::Platform;
use cofferdam_shm::Window;

use crate::filesystems::content;
use crate::filesystems::gofer::Held;
use crate::filesystems::proc::totals::Look;
use crate::memory::object::HostWindow;
use crate::memory::store::Store;
use crate::namespaces::Namespaces;
use crate::sync::Mutex;
use crate::task::tree::Tree;
use crate::task::usage::{Load, Usage};
use crate::time::Timers;
use crate::wait::WaitQueue;

/// Told when a process ends that has no parent in the sandbox, with its id and wait status.
pub type OuterExit = Box<dyn Fn(i32, i32) + Send + Sync>;
/// Told when such a process stops or continues: its id, `CLD_*` and the signal.
pub type OuterStop = Box<dyn Fn(i32, i32, i32) + Send + Sync>;

/// One per Sentry.
pub struct Kernel {
    /// The timers.
    pub timers: Arc<Timers>,
    /// The page cache window, shared with the Gofer.
    pub cache: Arc<Store>,
    /// The Sentry's own memory window.
    pub memory: Arc<Store>,
    /// What cached files hold of the Gofer and the page cache window.
    pub held: Arc<Held>,
    /// The namespaces that the sandbox began in.
    pub first: Namespaces,
    /// Kernel log (`dmesg`), complete lines with their time since boot in nanoseconds.
    pub log: Mutex<Vec<(i64, String)>>,
    /// When the kernel started, `CLOCK_BOOTTIME` nanoseconds.
    pub booted: i64,
    /// All tasks.
    pub tree: Mutex<Tree>,
    /// The platform; set once before the first task is made.
    pub platform: OnceLock<Arc<dyn Platform>>,
    /// Futexes.
    pub futexes: crate::ipc::futex::Futexes,
    /// Futexes with priority inheritance.
    pub pi_locks: crate::ipc::pi_futex::Locks,
    /// Told when a process from outside ends: the first of a container, or one of `exec`.
    pub outer_exit: OnceLock<OuterExit>,
    /// Told when such a process stops or continues.
    pub outer_stopped: OnceLock<OuterStop>,
    /// Told when a session leader ends, with the session's id: its controlling terminal hangs up.
    pub session_end: OnceLock<Box<dyn Fn(i32) + Send + Sync>>,
    /// Woken by every signal that becomes pending (signalfds).
    pub signalled: WaitQueue,
    /// Whether call sites are patched for the platform's short way.
    pub patch: AtomicBool,
    /// Whether more than one container is or was in it.
    pub pod: AtomicBool,
    /// Bytes of memory that all containers together may have; `u64::MAX` for no limit.
    pub memory_limit: AtomicU64,
    /// Forks since boot (`/proc/stat`).
    pub forks: AtomicU64,
    /// What processes used that have ended.
    pub ended: Mutex<Usage>,
    /// For how long threads that have ended were ready to run, nanoseconds.
    pub ran_before: AtomicI64,
    /// Load averages.
    pub load: Load,
    /// The memory of all processes, as it was last looked at.
    pub private: Look,
}

/// Bytes of memory of the host.
fn host_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

impl Kernel {
    /// A kernel with nothing in it yet, over its two host windows.
    pub fn new(cache: Window, memory: Window) -> Arc<Self> {
        // Measured from here on.
        cofferdam_platform::start_tsc();
        Arc::new(Self {
            timers: Timers::new(),
            cache: Arc::new(Store::new(cache)),
            memory: Arc::new(Store::new(memory)),
            held: Held::new(host_memory()),
            first: Namespaces::first(),
            log: Mutex::default(),
            booted: crate::time::now(crate::time::Clock::Boottime),
            tree: Mutex::default(),
            platform: OnceLock::new(),
            futexes: crate::ipc::futex::Futexes::default(),
            pi_locks: crate::ipc::pi_futex::Locks::default(),
            outer_exit: OnceLock::new(),
            outer_stopped: OnceLock::new(),
            session_end: OnceLock::new(),
            signalled: WaitQueue::new(),
            patch: AtomicBool::new(false),
            pod: AtomicBool::new(false),
            memory_limit: AtomicU64::new(u64::MAX),
            forks: AtomicU64::new(0),
            ended: Mutex::default(),
            ran_before: AtomicI64::new(0),
            load: Load::default(),
            private: Look::default(),
        })
    }

    /// The host window behind a store.
    pub fn window(&self, which: HostWindow) -> &Window {
        match which {
            HostWindow::Cache => self.cache.window(),
            HostWindow::Memory => self.memory.window(),
        }
    }

    /// All containers together may have so much memory from now on.
    pub fn limit_memory(&self, bytes: Option<u64>) {
        let bytes = bytes.unwrap_or(u64::MAX);
        self.held.set_memory(host_memory().min(bytes));
        content::set_memory(bytes);
        self.memory_limit.store(bytes, Ordering::Relaxed);
    }

    /// Adds a line to the kernel log.
    pub fn log(&self, line: String) {
        let at = crate::time::now(crate::time::Clock::Boottime).saturating_sub(self.booted);
        let mut log = self.log.lock();
        if log.len() >= 4096 {
            log.drain(..1024);
        }
        log.push((at, line));
    }
}
