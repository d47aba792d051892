//! The virtual file system.

use std::sync::Arc;

/// Open files by number.
#[derive(Default)]
pub struct FdTable;

impl FdTable {
    /// A copy for a forked process.
    pub fn fork(&self) -> Arc<FdTable> {
        Arc::new(FdTable)
    }

    /// Closes what is marked close-on-exec.
    pub fn close_on_exec(&self) {}
}

/// Root, working directory, umask, mount namespace of a task.
#[derive(Default)]
pub struct FsContext;

impl FsContext {
    /// A copy for a forked process.
    pub fn fork(&self) -> Arc<FsContext> {
        Arc::new(FsContext)
    }
}
