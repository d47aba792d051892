//! What cached files hold, and when they give it back: fids (each a descriptor in the Gofer) and pages of the window.
//!
//! One queue over all exports, with a second chance for what was used since it was last looked at. A file that gives back
//! stays what it is: its fids are walked to again by its name, its pages filled again. Called by `gofer` and `pages`, with
//! no lock held. Never here: files without a name, which could not be found again, and pages that are mapped or being
//! copied.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use crate::errno::Errno;
use crate::filesystems::gofer::GoferInode;
use crate::sync::Mutex;

/// Files that may hold fids at once, until the Gofer says that it is too many.
const FILES: usize = 4096;
/// Fewest that are worth keeping.
const FILES_LEAST: usize = 64;
/// Most of the host's memory that the cache takes: a part of this many, and bytes.
const MEMORY_PART: u64 = 8;
const MEMORY_MOST: u64 = 2 << 30;
/// How often a request is tried for which the Gofer has no descriptor left.
const TRIES: u32 = 20;

/// The accounts.
pub struct Held {
    queue: Mutex<VecDeque<Weak<GoferInode>>>,
    files_most: AtomicUsize,
    bytes: AtomicU64,
    bytes_most: u64,
}

impl Held {
    /// Nothing held, on a host with this many bytes of memory.
    pub fn new(host_memory: u64) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            files_most: AtomicUsize::new(FILES),
            bytes: AtomicU64::new(0),
            bytes_most: (host_memory / MEMORY_PART).clamp(16 << 20, MEMORY_MOST),
        })
    }

    /// A file now holds something; it joins the queue unless it is in it.
    pub fn add(&self, inode: &Arc<GoferInode>) {
        inode.used.store(true, Ordering::Relaxed);
        if inode.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut queue = self.queue.lock();
        queue.push_back(Arc::downgrade(inode));
        let many = queue.len() > self.files_most.load(Ordering::Relaxed);
        drop(queue);
        if many {
            self.give_back(|held| held.queue.lock().len() > held.files_most.load(Ordering::Relaxed) / 8 * 7);
        }
    }

    /// Pages were filled (bytes) or given back (negative).
    pub fn pages(&self, bytes: i64) {
        self.bytes.fetch_add(bytes.cast_unsigned(), Ordering::Relaxed);
    }

    /// Sees to it that pages do not take more than their part of memory. Called after each use of pages.
    pub fn trim(&self) {
        if self.bytes.load(Ordering::Relaxed) > self.bytes_most {
            self.give_back(|held| held.bytes.load(Ordering::Relaxed) > held.bytes_most / 4 * 3);
        }
    }

    /// Has files give back, those that were not used for longest first, while `more` asks for it.
    fn give_back(&self, more: impl Fn(&Self) -> bool) {
        // Each file is looked at twice at most: once for its second chance.
        let mut turns = self.queue.lock().len() * 2;
        while turns > 0 && more(self) {
            turns -= 1;
            let Some(next) = self.queue.lock().pop_front() else { return };
            let Some(inode) = next.upgrade() else { continue };
            if inode.used.swap(false, Ordering::Relaxed) || !inode.give_back() {
                self.queue.lock().push_back(next);
            } else {
                inode.queued.store(false, Ordering::Release);
            }
        }
    }

    /// Asks the Gofer for something that takes a descriptor there; where it has none left, files give theirs back first.
    pub fn with_room<T>(&self, give_back: &dyn Fn(), ask: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        let mut answer = ask();
        for _ in 0..TRIES {
            if !matches!(answer, Err(Errno::ENFILE | Errno::EMFILE)) {
                break;
            }
            let half = (self.queue.lock().len() / 2).max(FILES_LEAST);
            self.files_most.fetch_min(half, Ordering::Relaxed);
            self.give_back(|held| held.queue.lock().len() > half);
            give_back();
            // The Gofer closes them on a thread of its own.
            std::thread::sleep(std::time::Duration::from_millis(1));
            answer = ask();
        }
        answer
    }
}
