//! Where processes meet that have to do with the same file: its advisory locks, who watches and who writes it, the pages that mappings
//! show, and what is behind a FIFO or a socket file.
//!
//! One for each file that has any of that. Files of the host that several exports show, as the volumes that containers of a pod share, are
//! known by what the Gofers tell of them: whoever meets there need not have come through the same export. A Gofer that lies about it
//! has its files meet others of the same Sentry, so nothing that is found here may be a right to the file itself. Called by
//! inodes (`Inode::meeting`), and through them by whoever works on such a file.

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, LazyLock, OnceLock, Weak};

use crate::sync::Mutex;
use crate::vfs::inode::Writers;
use crate::vfs::lock::Locks;
use crate::vfs::watch::Watches;

/// A file of the host: device, number, and when it was made (nanoseconds), as numbers are used again.
pub type HostFile = (u64, u64, i64);

static KNOWN: LazyLock<Mutex<HashMap<HostFile, Weak<Meeting>>>> = LazyLock::new(Mutex::default);

/// What is to be found at a file.
#[derive(Default)]
pub struct Meeting {
    /// The pipe behind a FIFO, while somebody has it open.
    pub fifo: Mutex<Option<Weak<dyn Any + Send + Sync>>>,
    /// The socket bound to a socket file.
    pub socket: Mutex<Option<Weak<dyn Any + Send + Sync>>>,
    /// Advisory locks.
    pub locks: Locks,
    /// Who watches it.
    pub watches: Watches,
    /// Who writes it, where other inodes may be the same file.
    pub writers: Writers,
    /// Open files of it, where other inodes may be the same file: so long it is not gone, though it has no name.
    pub opens: AtomicUsize,
    /// The pages that mappings of it show, where several exports may show the file.
    pub pages: OnceLock<Arc<dyn Any + Send + Sync>>,
    of: Option<HostFile>,
}

impl Meeting {
    /// That of a file of the host, or one that nobody else comes to.
    pub fn of(file: Option<HostFile>) -> Arc<Self> {
        let Some(file) = file else { return Arc::default() };
        let mut known = KNOWN.lock();
        if let Some(old) = known.get(&file).and_then(Weak::upgrade) {
            return old;
        }
        let mut new = Self::default();
        new.of = Some(file);
        let new = Arc::new(new);
        known.insert(file, Arc::downgrade(&new));
        new
    }

    /// That of a file of the host, if anybody has come there.
    pub fn known(file: HostFile) -> Option<Arc<Self>> {
        KNOWN.lock().get(&file).and_then(Weak::upgrade)
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        let Some(file) = self.of else { return };
        let mut known = KNOWN.lock();
        // Somebody may just have made another.
        if known.get(&file).is_some_and(|m| m.strong_count() == 0) {
            known.remove(&file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_host_have_one_each_while_somebody_is_there() {
        let file = Some((u64::MAX, 7, 1));
        let first = Meeting::of(file);
        assert!(Arc::ptr_eq(&first, &Meeting::of(file)));
        assert!(Meeting::known((u64::MAX, 7, 1)).is_some_and(|m| Arc::ptr_eq(&first, &m)));
        assert!(Meeting::known((u64::MAX, 7, 2)).is_none());
        assert!(!Arc::ptr_eq(&first, &Meeting::of(Some((u64::MAX, 7, 2)))));
        assert!(!Arc::ptr_eq(&Meeting::of(None), &Meeting::of(None)));
        drop(first);
        assert!(!KNOWN.lock().contains_key(&(u64::MAX, 7, 1)));
    }
}
