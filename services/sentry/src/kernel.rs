//! The kernel: what all tasks of a sandbox share.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use cofferdam_platform::Platform;
use cofferdam_shm::Window;

use crate::filesystems::gofer::Held;
use crate::memory::object::HostWindow;
use crate::memory::store::Store;
use crate::sync::{Mutex, RwLock};
use crate::task::tree::Tree;
use crate::time::Timers;
use crate::wait::WaitQueue;

/// Told when the container's first process ends, with its wait status.
pub type InitExit = Box<dyn Fn(i32) + Send + Sync>;

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
    /// Host and domain name (`sethostname(2)`).
    pub names: RwLock<(Vec<u8>, Vec<u8>)>,
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
    /// System V IPC.
    pub sysv: crate::ipc::sysv::SysV,
    /// Told when process 1 ends.
    pub init_exit: OnceLock<InitExit>,
    /// Told when process 1 stops or continues: `CLD_*` and the signal.
    pub init_stopped: OnceLock<Box<dyn Fn(i32, i32) + Send + Sync>>,
    /// Told when a session leader ends, with the session's id: its controlling terminal hangs up.
    pub session_end: OnceLock<Box<dyn Fn(i32) + Send + Sync>>,
    /// Woken by every signal that becomes pending (signalfds).
    pub signalled: WaitQueue,
    /// Whether call sites are patched for the platform's short way.
    pub patch: AtomicBool,
    /// Forks since boot (`/proc/stat`).
    pub forks: AtomicU64,
}

/// Bytes of memory of the host. Asked once, before the walls go up.
fn host_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

impl Kernel {
    /// A kernel with nothing in it yet, over its two host windows.
    pub fn new(cache: Window, memory: Window) -> Arc<Self> {
        Arc::new(Self {
            timers: Timers::new(),
            cache: Arc::new(Store::new(cache)),
            memory: Arc::new(Store::new(memory)),
            held: Held::new(host_memory()),
            names: RwLock::new((b"cofferdam".to_vec(), b"(none)".to_vec())),
            log: Mutex::default(),
            booted: crate::time::now(crate::time::Clock::Boottime),
            tree: Mutex::default(),
            platform: OnceLock::new(),
            futexes: crate::ipc::futex::Futexes::default(),
            sysv: crate::ipc::sysv::SysV::default(),
            init_exit: OnceLock::new(),
            init_stopped: OnceLock::new(),
            session_end: OnceLock::new(),
            signalled: WaitQueue::new(),
            patch: AtomicBool::new(false),
            forks: AtomicU64::new(0),
        })
    }

    /// The host window behind a store.
    pub fn window(&self, which: HostWindow) -> &Window {
        match which {
            HostWindow::Cache => self.cache.window(),
            HostWindow::Memory => self.memory.window(),
        }
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
