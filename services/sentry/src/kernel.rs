//! The kernel: what all tasks of a sandbox share.

use std::sync::Arc;

use cofferdam_shm::Window;

use crate::memory::object::HostWindow;
use crate::memory::store::Store;
use crate::sync::{Mutex, RwLock};
use crate::time::Timers;

/// One per Sentry.
pub struct Kernel {
    /// The timers.
    pub timers: Arc<Timers>,
    /// The page cache window, shared with the Gofer.
    pub cache: Arc<Store>,
    /// The Sentry's own memory window.
    pub memory: Arc<Store>,
    /// Host and domain name (`sethostname(2)`).
    pub names: RwLock<(Vec<u8>, Vec<u8>)>,
    /// Kernel log (`dmesg`), complete lines with their time since boot in nanoseconds.
    pub log: Mutex<Vec<(i64, String)>>,
    /// When the kernel started, `CLOCK_BOOTTIME` nanoseconds.
    pub booted: i64,
}

impl Kernel {
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
