//! Shared anonymous memory: `mmap(MAP_SHARED | MAP_ANONYMOUS)`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::object::{Extent, HostWindow, MemoryObject};
use super::store::{Store, page_up};
use crate::errno::Errno;

/// Above the identifiers of System V segments, which show the same device.
static NEXT: AtomicU64 = AtomicU64::new(1 << 32);

/// Pages in the Sentry's memory window, shared by whoever maps them.
pub struct SharedMemory {
    store: Arc<Store>,
    host: u64,
    len: u64,
    id: u64,
}

impl SharedMemory {
    /// `len` bytes of zeros.
    pub fn new(store: &Arc<Store>, len: u64) -> Result<Arc<Self>, Errno> {
        let len = page_up(len).ok_or(Errno::ENOMEM)?;
        let host = store.allocate(len)?;
        Ok(Arc::new(Self { store: store.clone(), host, len, id: NEXT.fetch_add(1, Ordering::Relaxed) }))
    }

    /// Reads bytes at an offset. EFAULT beyond the end.
    pub fn read(&self, offset: u64, to: &mut [u8]) -> Result<(), Errno> {
        if offset.checked_add(to.len() as u64).is_none_or(|end| end > self.len) {
            return Err(Errno::EFAULT);
        }
        self.store.window().read(self.host + offset, to).map_err(|_| Errno::EFAULT)
    }

    /// Writes bytes at an offset. EFAULT beyond the end.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.len) {
            return Err(Errno::EFAULT);
        }
        self.store.window().write(self.host + offset, bytes).map_err(|_| Errno::EFAULT)
    }
}

impl MemoryObject for SharedMemory {
    fn populate(&self, offset: u64, _len: u64, _write: bool) -> Result<Vec<Extent>, Errno> {
        if offset >= self.len {
            return Ok(Vec::new());
        }
        // It is all there already: one extent for the whole rest.
        Ok(vec![Extent { offset, len: self.len - offset, window: HostWindow::Memory, host: self.host + offset }])
    }

    fn size(&self) -> u64 {
        self.len
    }

    fn identity(&self) -> (u64, u64) {
        (1, self.id)
    }

    fn path(&self) -> Vec<u8> {
        b"/dev/zero (deleted)".to_vec()
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        self.store.release(self.host, self.len);
    }
}
