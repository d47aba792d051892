//! Seals of memfds (`fcntl(2)`, `F_ADD_SEALS`): what may no longer be done to a file, and who maps it for writing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::errno::Errno;
use crate::memory::store::page_down;

/// `F_SEAL_SEAL`: no more seals.
pub const SEAL: u32 = 1;
/// `F_SEAL_SHRINK`.
pub const SHRINK: u32 = 2;
/// `F_SEAL_GROW`.
pub const GROW: u32 = 4;
/// `F_SEAL_WRITE`.
pub const WRITE: u32 = 8;
/// `F_SEAL_FUTURE_WRITE`: as WRITE, but mappings that are there may go on.
pub const FUTURE_WRITE: u32 = 16;
/// `F_SEAL_EXEC`: the execute permissions stay as they are.
pub const EXEC: u32 = 32;

/// The seals of one file.
pub struct Seals {
    bits: AtomicU32,
    /// Shared mappings that may be written.
    writers: Arc<AtomicUsize>,
}

/// A shared mapping that may be written; counted while it lives.
pub struct Writer(Arc<AtomicUsize>);

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Seals {
    /// A file that begins with these seals.
    pub fn new(bits: u32) -> Self {
        Self { bits: AtomicU32::new(bits), writers: Arc::default() }
    }

    /// `F_GET_SEALS`.
    pub fn get(&self) -> u32 {
        self.bits.load(Ordering::Acquire)
    }

    /// `F_ADD_SEALS`: EINVAL for unknown ones, EPERM if sealed against it, EBUSY for `WRITE` while somebody maps it for
    /// writing. `program`: whether it may be executed.
    pub fn add(&self, mut new: u32, program: bool) -> Result<(), Errno> {
        if new & !(SEAL | SHRINK | GROW | WRITE | FUTURE_WRITE | EXEC) != 0 {
            return Err(Errno::EINVAL);
        }
        let old = self.get();
        if old & SEAL != 0 {
            return Err(Errno::EPERM);
        }
        if new & EXEC != 0 && program {
            // A program that stays one stays as it is.
            new |= SHRINK | GROW | WRITE | FUTURE_WRITE;
        }
        if new & WRITE & !old != 0 && self.writers.load(Ordering::Acquire) > 0 {
            return Err(Errno::EBUSY);
        }
        self.bits.fetch_or(new, Ordering::AcqRel);
        Ok(())
    }

    /// Whether writing is sealed off.
    pub fn no_writing(&self) -> bool {
        self.get() & (WRITE | FUTURE_WRITE) != 0
    }

    /// Counts a shared mapping that may be written; EPERM if that is sealed off.
    pub fn map(&self) -> Result<Writer, Errno> {
        if self.no_writing() {
            return Err(Errno::EPERM);
        }
        self.writers.fetch_add(1, Ordering::AcqRel);
        Ok(Writer(self.writers.clone()))
    }

    /// How much of a write of `len` bytes at `at` to a file of `size` bytes may be written; EPERM if nothing.
    pub fn check_write(&self, at: u64, len: u64, size: u64) -> Result<u64, Errno> {
        if self.no_writing() {
            return Err(Errno::EPERM);
        }
        if self.get() & GROW == 0 || at.saturating_add(len) <= size {
            return Ok(len);
        }
        // Page by page, as Linux writes: the page that would pass the end is refused.
        page_down(size).checked_sub(at).filter(|n| *n > 0).ok_or(Errno::EPERM)
    }

    /// EPERM if the size may not change so.
    pub fn check_resize(&self, old: u64, new: u64) -> Result<(), Errno> {
        let bits = self.get();
        let refused = (new < old && bits & SHRINK != 0) || (new > old && bits & GROW != 0);
        if refused { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// EPERM if the permissions may not change so.
    pub fn check_mode(&self, old: u32, new: u32) -> Result<(), Errno> {
        if self.get() & EXEC != 0 && (old ^ new) & 0o111 != 0 { Err(Errno::EPERM) } else { Ok(()) }
    }
}
