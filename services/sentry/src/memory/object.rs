//! Memory objects: what can be mapped.
//!
//! A file (or anonymous shared memory) that can be mapped says where its pages lie in one of the two host windows: the
//! page cache that Sentry and Gofer share, or the Sentry's own memory. The address space maps those extents into the
//! container's process; reads and writes copy from and to the same pages, so that the two stay coherent.

use std::sync::Arc;

use crate::errno::Errno;

/// Which host window pages lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostWindow {
    /// The page cache: filled by the Gofer from host files.
    Cache,
    /// The Sentry's own memory: tmpfs files, shared memory. No other service has it.
    Memory,
}

/// A run of an object's bytes that lies in one piece in a host window. Page-aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Offset in the object, bytes.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// The window.
    pub window: HostWindow,
    /// Offset in the window, bytes.
    pub host: u64,
}

/// Something with pages that can be mapped. Called by the address space with no lock held.
pub trait MemoryObject: Send + Sync {
    /// Makes the pages of `[offset, offset + len)` present, filling them where needed, and says where they lie, in
    /// ascending order. The answer may cover more (fill-around) or end early: at the end of the object, or where
    /// filling on was not worth it; at least the first page is covered unless it lies beyond the end (then: empty).
    /// `write`: pages that will be written through a shared mapping.
    fn populate(&self, offset: u64, len: u64, write: bool) -> Result<Vec<Extent>, Errno>;

    /// Size in bytes; accesses to pages wholly beyond it raise SIGBUS.
    fn size(&self) -> u64;

    /// Identity, also for futexes: device and inode number.
    fn identity(&self) -> (u64, u64);

    /// Device and inode number as `/proc/PID/maps` shows them: what `stat(2)` says of the file.
    fn shown(&self) -> (u64, u64) {
        self.identity()
    }

    /// Path for `/proc/PID/maps`, empty if none.
    fn path(&self) -> Vec<u8>;

    /// Writes pages of a shared writable mapping back to where they came from (msync, munmap). Nothing to do for
    /// objects that live in the Sentry's memory.
    fn sync(&self, _offset: u64, _len: u64) -> Result<(), Errno> {
        Ok(())
    }
}

/// A shared memory object.
pub type Object = Arc<dyn MemoryObject>;
