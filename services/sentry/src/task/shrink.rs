//! Files that shrink while they are mapped: what lies beyond the new end must no longer be reachable in any process.
//!
//! The pages are unmapped by the processes themselves, each before it next runs on (`Task::to_user`); a touch after that
//! faults, finds the page beyond the end, and gets SIGBUS.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Task;
use crate::errno::Errno;
use crate::vfs::inode::InodeRef;

/// A file was truncated or opened with `O_TRUNC`. Called with no lock held.
pub fn truncated(task: &Arc<Task>, inode: &InodeRef) -> Result<(), Errno> {
    if !inode.common().mapped.load(Ordering::Acquire) {
        return Ok(());
    }
    let attr = inode.attr()?;
    let tasks = task.kernel().tree.lock().tasks();
    for t in tasks {
        if t.mm().shrink((attr.dev, attr.ino), attr.size) {
            t.stale.store(true, Ordering::SeqCst);
            // One that waits in a call looks when the call ends.
            if !Arc::ptr_eq(&t, task)
                && !t.in_call()
                && let Some(host) = t.host()
            {
                host.interrupt();
            }
        }
    }
    Ok(())
}
