//! Tasks: threads of the container, their thread groups, process groups and sessions.

use std::sync::Arc;

use cofferdam_platform::HostThread;
use cofferdam_shm::Window;

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::sync::RwLock;
use crate::vfs::{FdTable, FsContext};

pub mod creds;

pub use creds::Creds;

/// Outcomes that only task, memory and signal handlers produce.
pub enum Special {
    /// The task is gone.
    Exit,
}

/// A thread of the container.
pub struct Task {
    kernel: Arc<Kernel>,
    tid: i32,
    host: RwLock<Arc<dyn HostThread>>,
    files: RwLock<Arc<FdTable>>,
    fs: RwLock<Arc<FsContext>>,
    creds: RwLock<Arc<Creds>>,
}

impl Task {
    /// The kernel.
    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }

    /// The thread id.
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// The open files.
    pub fn files(&self) -> Arc<FdTable> {
        self.files.read().clone()
    }

    /// Root, working directory, umask.
    pub fn fs(&self) -> Arc<FsContext> {
        self.fs.read().clone()
    }

    /// Who it is.
    pub fn creds(&self) -> Arc<Creds> {
        self.creds.read().clone()
    }

    fn host(&self) -> Arc<dyn HostThread> {
        self.host.read().clone()
    }

    /// Copies from the container's memory; how many bytes were reached, EFAULT if none.
    pub fn read_memory(&self, address: u64, to: &mut [u8]) -> Result<usize, Errno> {
        self.host().read(address, to).map_err(|_| Errno::EFAULT)
    }

    /// Copies to the container's memory; how many bytes were reached, EFAULT if none.
    pub fn write_memory(&self, address: u64, from: &[u8]) -> Result<usize, Errno> {
        self.host().write(address, from).map_err(|_| Errno::EFAULT)
    }

    /// Copies from the container's memory to a host window.
    pub fn read_memory_into(&self, address: u64, window: &Window, offset: u64, len: usize) -> Result<usize, Errno> {
        self.host().read_into(address, window, offset, len).map_err(|_| Errno::EFAULT)
    }

    /// Copies from a host window to the container's memory.
    pub fn write_memory_from(&self, address: u64, window: &Window, offset: u64, len: usize) -> Result<usize, Errno> {
        self.host().write_from(address, window, offset, len).map_err(|_| Errno::EFAULT)
    }

    /// Copies all of `to` from the container's memory, or EFAULT.
    pub fn read_exact(&self, address: u64, to: &mut [u8]) -> Result<(), Errno> {
        let len = to.len();
        if len == 0 || self.read_memory(address, to)? == len { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Copies all of `from` to the container's memory, or EFAULT.
    pub fn write_exact(&self, address: u64, from: &[u8]) -> Result<(), Errno> {
        if from.is_empty() || self.write_memory(address, from)? == from.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Copies a NUL-terminated string in, without its NUL; `too_long` if there is none in `max` bytes.
    pub fn read_cstr(&self, address: u64, max: usize, too_long: Errno) -> Result<Vec<u8>, Errno> {
        let mut out = Vec::new();
        while out.len() < max {
            let at = address.checked_add(out.len() as u64).ok_or(Errno::EFAULT)?;
            // Up to 256 bytes at a time, never across a page that may not be there.
            let page_left = 4096 - (at % 4096) as usize;
            let want = page_left.min(256).min(max - out.len());
            let mut chunk = [0u8; 256];
            let chunk = chunk.get_mut(..want).ok_or(Errno::EFAULT)?;
            let n = self.read_memory(at, chunk)?;
            let got = chunk.get(..n).ok_or(Errno::EFAULT)?;
            if let Some(end) = got.iter().position(|b| *b == 0) {
                out.extend_from_slice(got.get(..end).unwrap_or_default());
                return Ok(out);
            }
            if n < want {
                return Err(Errno::EFAULT);
            }
            out.extend_from_slice(got);
        }
        Err(too_long)
    }

    /// Tries the blocked call again after a wake-up. Called by `wait::run_woken`.
    pub fn retry_blocked(self: &Arc<Self>) {}
}
