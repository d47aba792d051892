//! Files that shrink while they are mapped: what lies beyond the new end must no longer be reachable in any process.
//!
//! The pages are unmapped by the processes themselves, each before it next runs on (`Task::to_user`); a touch after that
//! faults, finds the page beyond the end, and gets SIGBUS.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Task;
use crate::errno::Errno;
use crate::filesystems::gofer;
use crate::vfs::inode::InodeRef;

/// A file was truncated or opened with `O_TRUNC`. Called with no lock held.
pub fn truncated(task: &Arc<Task>, inode: &InodeRef) -> Result<(), Errno> {
    let backing = inode.backing();
    let inode = backing.as_ref().unwrap_or(inode);
    if let Some(identity) = inode.mapped_as() {
        cut(task, identity, inode.attr()?.size);
    }
    Ok(())
}

/// What files turned out to be shorter than before, because the host cut them, is no longer reachable either. Called at the end of each
/// call, with no lock held.
pub fn heard(task: &Arc<Task>) {
    for (identity, size) in gofer::cut_by_host() {
        cut(task, identity, size);
    }
}

fn cut(task: &Arc<Task>, identity: (u64, u64), size: u64) {
    let tasks = task.kernel().tree.lock().tasks();
    for t in tasks {
        if t.mm().shrink(identity, size) {
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
}
