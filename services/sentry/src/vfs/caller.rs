//! The caller: on whose behalf a file operation runs.
//!
//! File operations take a [`Caller`] and not a task, so that the kernel can act for itself (building the root, loading a
//! program before its task exists) and tests need no platform.

use std::sync::{Arc, OnceLock};

use crate::task::creds::ALL_CAPABILITIES;
use crate::task::{Creds, Task};
use crate::vfs::context::FsContext;

/// Root, working directory and credentials that an operation uses, and the task if there is one.
pub struct Caller<'a> {
    /// Root, working directory, umask, mounts.
    pub fs: Arc<FsContext>,
    /// Credentials; `fsuid` and `fsgid` count for files.
    pub creds: Arc<Creds>,
    /// The calling task, for `/proc/self` and terminals.
    pub task: Option<&'a Arc<Task>>,
    /// Who opened the generated file that is written to.
    pub opener: Option<Arc<Creds>>,
}

impl<'a> Caller<'a> {
    /// A task calling.
    pub fn of(task: &'a Arc<Task>) -> Self {
        Self { fs: task.fs(), creds: task.creds(), task: Some(task), opener: None }
    }

    /// The kernel itself, with these credentials.
    pub fn kernel(fs: Arc<FsContext>, creds: Creds) -> Self {
        Self { fs, creds: Arc::new(creds), task: None, opener: None }
    }

    /// The kernel itself, with all rights and no place in the tree: for file systems that use another file system.
    pub fn nobody() -> Self {
        static NOBODY: OnceLock<(Arc<FsContext>, Arc<Creds>)> = OnceLock::new();
        let (fs, creds) = NOBODY.get_or_init(|| (Arc::default(), Arc::new(Creds::root(ALL_CAPABILITIES))));
        Self { fs: fs.clone(), creds: creds.clone(), task: None, opener: None }
    }
}
