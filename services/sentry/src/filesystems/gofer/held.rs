//! What cached files hold, and when they give it back: fids (each a descriptor in the Gofer) and pages of the window.
//!
//! A queue for each over all exports, with a second chance for what was used since it was last looked at. A file that gives
//! back stays what it is: its fids are walked to again by its name, its pages filled again. Called by `gofer` and `pages`, with
//! no lock held. Never given back: the fids of files without a name, which could not be found again, and pages that are mapped
//! or being copied.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use crate::errno::Errno;
use crate::filesystems::gofer::GoferInode;
use crate::filesystems::gofer::stream::{BUFFERS, Buffer, PIECE};
use crate::memory::store::Store;
use crate::sync::Mutex;

/// Files that may hold fids at once, until the Gofer says that it is too many.
const FILES: usize = 4096;
/// Fewest that are worth keeping.
const FILES_LEAST: usize = 64;
/// Most of the host's memory that the cache takes: a part of this many, and bytes.
const MEMORY_PART: u64 = 8;
const MEMORY_MOST: u64 = 2 << 30;
/// Least that is worth having: on a host, and of a container's limit.
const MEMORY_LEAST: u64 = 16 << 20;
const LIMIT_LEAST: u64 = 4 << 20;
/// Most streams at once, and buffers that are kept for the next one.
const STREAMS: u64 = 16;
const BUFFERS_KEPT: usize = 4;
/// How often a request is tried for which the Gofer has no descriptor left.
const TRIES: u32 = 20;

/// A file's place in a queue.
#[derive(Default)]
pub struct Place {
    /// Used since the queue was last looked at.
    used: AtomicBool,
    queued: AtomicBool,
}

/// Files that hold something of one kind, the one longest there first.
#[derive(Default)]
struct Queue {
    files: Mutex<VecDeque<Weak<GoferInode>>>,
}

impl Queue {
    /// A file holds something, or uses it; how many files there are, if it is new.
    fn add(&self, inode: &Arc<GoferInode>, place: &Place) -> Option<usize> {
        place.used.store(true, Ordering::Relaxed);
        if place.queued.load(Ordering::Acquire) || place.queued.swap(true, Ordering::AcqRel) {
            return None;
        }
        let mut files = self.files.lock();
        files.push_back(Arc::downgrade(inode));
        Some(files.len())
    }

    fn len(&self) -> usize {
        self.files.lock().len()
    }

    /// Has files give back, those that were not used for longest first, while `more` asks for it.
    fn shrink(
        &self,
        place: impl Fn(&GoferInode) -> &Place,
        give_back: impl Fn(&GoferInode) -> bool,
        more: impl Fn() -> bool,
    ) {
        // Each file is looked at twice at most: once for its second chance.
        let mut turns = self.len() * 2;
        while turns > 0 && more() {
            turns -= 1;
            let Some(next) = self.files.lock().pop_front() else { return };
            let Some(inode) = next.upgrade() else { continue };
            let place = place(&inode);
            if place.used.swap(false, Ordering::Relaxed) || !give_back(&inode) {
                self.files.lock().push_back(next);
            } else {
                place.queued.store(false, Ordering::Release);
            }
        }
    }
}

/// What the cache may take of so much memory.
fn part(memory: u64, least: u64) -> u64 {
    (memory / MEMORY_PART).clamp(least, MEMORY_MOST)
}

/// The accounts.
pub struct Held {
    fids: Queue,
    fids_most: AtomicUsize,
    pages: Queue,
    bytes: AtomicU64,
    bytes_most: AtomicU64,
    /// Streams that may still begin.
    streams: AtomicUsize,
    buffers: Mutex<Vec<Arc<Buffer>>>,
}

/// The right to be a stream.
pub struct Permit(Arc<Held>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.streams.fetch_add(1, Ordering::Relaxed);
    }
}

impl Held {
    /// Nothing held, where there are this many bytes of memory.
    pub fn new(memory: u64) -> Arc<Self> {
        let bytes_most = part(memory, MEMORY_LEAST);
        // Their buffers shall not take more than an eighth of that.
        let streams = (bytes_most / 8 / (PIECE * BUFFERS as u64)).clamp(1, STREAMS);
        Arc::new(Self {
            fids: Queue::default(),
            fids_most: AtomicUsize::new(FILES),
            pages: Queue::default(),
            bytes: AtomicU64::new(0),
            bytes_most: AtomicU64::new(bytes_most),
            streams: AtomicUsize::new(streams as usize),
            buffers: Mutex::default(),
        })
    }

    /// There are this many bytes of memory from now on: the host's, or what the container may have of it.
    pub fn set_memory(&self, memory: u64) {
        self.bytes_most.store(part(memory, LIMIT_LEAST), Ordering::Relaxed);
        self.trim();
    }

    fn shrink_fids(&self, to: usize) {
        self.fids.shrink(|i| &i.fids_place, GoferInode::give_back_fids, || self.fids.len() > to);
    }

    /// A file holds or uses fids.
    pub fn fids(&self, inode: &Arc<GoferInode>) {
        let most = self.fids_most.load(Ordering::Relaxed);
        if self.fids.add(inode, &inode.fids_place).is_some_and(|n| n > most) {
            self.shrink_fids(most / 8 * 7);
        }
    }

    /// A file holds or uses pages.
    pub fn pages(&self, inode: &Arc<GoferInode>) {
        self.pages.add(inode, &inode.pages_place);
    }

    /// Bytes of pages that are filled.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Pages were filled (bytes) or given back (negative).
    pub fn count(&self, bytes: i64) {
        self.bytes.fetch_add(bytes.cast_unsigned(), Ordering::Relaxed);
    }

    /// Sees to it that pages do not take more than their part of memory. Called after each use of pages.
    pub fn trim(&self) {
        let more = |most: u64| self.bytes.load(Ordering::Relaxed) > most;
        let most = self.bytes_most.load(Ordering::Relaxed);
        if more(most) {
            self.pages.shrink(|i| &i.pages_place, GoferInode::give_back_pages, || more(most / 4 * 3));
        }
    }

    /// Gives back all pages that can be read again and that nobody uses (`drop_caches`).
    pub fn drop_pages(&self) {
        self.pages.shrink(|i| &i.pages_place, GoferInode::give_back_pages, || true);
    }

    /// One more stream, unless there are too many.
    pub fn stream(self: &Arc<Self>) -> Option<Permit> {
        self.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).ok()?;
        Some(Permit(self.clone()))
    }

    /// A stream needs a buffer no more.
    pub fn keep_buffer(&self, buffer: Arc<Buffer>) {
        // Who still copies gives it back when it is done.
        if Arc::strong_count(&buffer) == 1 {
            let mut buffers = self.buffers.lock();
            if buffers.len() < BUFFERS_KEPT {
                buffers.push(buffer);
            }
        }
    }

    /// A buffer: one that is no longer needed elsewhere, or a new one.
    pub fn buffer(&self, store: &Arc<Store>) -> Result<Arc<Buffer>, Errno> {
        let kept = self.buffers.lock().pop();
        kept.map_or_else(|| Buffer::new(store).map(Arc::new), Ok)
    }

    /// Asks the Gofer for something that takes a descriptor there; where it has none left, files give theirs back first.
    pub fn with_room<T>(&self, give_back: &dyn Fn(), ask: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        let mut answer = ask();
        for _ in 0..TRIES {
            if !matches!(answer, Err(Errno::ENFILE | Errno::EMFILE)) {
                break;
            }
            let half = (self.fids.len() / 2).max(FILES_LEAST);
            self.fids_most.fetch_min(half, Ordering::Relaxed);
            self.shrink_fids(half);
            give_back();
            // The Gofer closes them on a thread of its own.
            std::thread::sleep(std::time::Duration::from_millis(1));
            answer = ask();
        }
        answer
    }
}
