//! File change events, `inotify(7)`.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use crate::errno::Errno;
use crate::filesystems::anon;
use crate::ipc::FIONREAD;
use crate::sync::Mutex;
use crate::syscalls::{SysResult, UserPtr, done};
use crate::task::Task;
use crate::uio::Sink;
use crate::vfs::file::{File, FileOps, Io, flags};
use crate::vfs::inode::InodeRef;
use crate::vfs::watch::{self, Watch, Watcher, event};
use crate::wait::{PollMask, WaitQueue};

/// Most instances (`/proc/sys/fs/inotify/max_user_instances`).
pub static INSTANCES_MOST: AtomicUsize = AtomicUsize::new(128);
/// Most watches of all (`max_user_watches`).
pub static WATCHES_MOST: AtomicUsize = AtomicUsize::new(65536);
/// Most events that wait in one instance (`max_queued_events`).
pub static EVENTS_MOST: AtomicUsize = AtomicUsize::new(16384);
/// What none of these can be set beyond: what they count is memory of the Sentry.
pub const LIMIT: usize = 1 << 20;

/// `IN_Q_OVERFLOW`.
const OVERFLOW: u32 = 0x4000;
/// `IN_MASK_CREATE`.
pub const MASK_CREATE: u32 = 0x1000_0000;
/// `IN_MASK_ADD`.
pub const MASK_ADD: u32 = 0x2000_0000;
/// `IN_ONESHOT`.
pub const ONESHOT: u32 = 0x8000_0000;
/// Bytes of a `struct inotify_event` without its name, and what names are padded to.
const HEADER: usize = 16;

/// Events that wait in all instances at most: memory of the Sentry, which Linux does not bound beyond each instance's.
const WAITING_MOST: usize = 1 << 18;

static WAITING: AtomicUsize = AtomicUsize::new(0);
static INSTANCES: AtomicUsize = AtomicUsize::new(0);
static WATCHES: AtomicUsize = AtomicUsize::new(0);

#[derive(PartialEq, Eq)]
struct Event {
    wd: i32,
    mask: u32,
    cookie: u32,
    name: Vec<u8>,
}

impl Event {
    fn len(&self) -> usize {
        HEADER + if self.name.is_empty() { 0 } else { (self.name.len() + 1).next_multiple_of(HEADER) }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut b = Vec::with_capacity(self.len());
        b.extend_from_slice(&self.wd.to_le_bytes());
        b.extend_from_slice(&self.mask.to_le_bytes());
        b.extend_from_slice(&self.cookie.to_le_bytes());
        b.extend_from_slice(&((self.len() - HEADER) as u32).to_le_bytes());
        b.extend_from_slice(&self.name);
        b.resize(self.len(), 0);
        b
    }
}

#[derive(Default)]
struct Inner {
    events: VecDeque<Event>,
    /// By descriptor, each with what it watches, which stays as long.
    watches: BTreeMap<i32, (Arc<Watch>, InodeRef)>,
    last: i32,
}

/// An instance. Its lock is below those of inodes' watches only where none of these is taken under it.
pub struct Inotify {
    me: Weak<Inotify>,
    inner: Mutex<Inner>,
    queue: WaitQueue,
}

/// What the descriptor holds.
struct Handle(Arc<Inotify>);

/// A new instance; EMFILE if there are too many.
pub fn inotify(options: i32) -> Result<Arc<File>, Errno> {
    let more = |n: usize| (n < INSTANCES_MOST.load(Ordering::Relaxed)).then_some(n + 1);
    INSTANCES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map_err(|_| Errno::EMFILE)?;
    let instance = Arc::new_cyclic(|me| Inotify { me: me.clone(), inner: Mutex::default(), queue: WaitQueue::new() });
    let open = flags::RDONLY | (options & flags::NONBLOCK);
    Ok(anon::file(b"anon_inode:inotify", Box::new(Handle(instance)), open))
}

/// The instance behind a descriptor; EINVAL for another.
pub fn of(file: &File) -> Result<&Arc<Inotify>, Errno> {
    file.ops_as::<Handle>().map(|h| &h.0).ok_or(Errno::EINVAL)
}

impl Inotify {
    fn put(&self, event: Event) {
        {
            let mut inner = self.inner.lock();
            // One that says the same as the last says nothing.
            let same = |e: &Event| (e.wd, e.mask, &e.name) == (event.wd, event.mask, &event.name);
            if inner.events.back().is_some_and(same) {
                return;
            }
            let full = inner.events.len() >= EVENTS_MOST.load(Ordering::Relaxed);
            if full || WAITING.load(Ordering::Relaxed) >= WAITING_MOST {
                if inner.events.back().is_some_and(|e| e.mask == OVERFLOW) {
                    return;
                }
                inner.events.push_back(Event { wd: -1, mask: OVERFLOW, cookie: 0, name: Vec::new() });
            } else {
                inner.events.push_back(event);
            }
            WAITING.fetch_add(1, Ordering::Relaxed);
        }
        self.queue.wake(PollMask::IN | PollMask::RDNORM);
    }

    /// Watches an inode for `mask`, or changes what it is watched for; the descriptor. ENOSPC, EEXIST.
    pub fn add(&self, inode: &InodeRef, mask: u32) -> Result<i32, Errno> {
        let kept = mask & (event::ALL | event::EXCL_UNLINK | ONESHOT);
        let mut inner = self.inner.lock();
        if let Some((watch, _)) = inner.watches.values().find(|(_, i)| Arc::ptr_eq(i.meeting(), inode.meeting())) {
            if mask & MASK_CREATE != 0 {
                return Err(Errno::EEXIST);
            }
            let old = if mask & MASK_ADD != 0 { watch.mask.load(Ordering::Relaxed) } else { 0 };
            watch.mask.store(old | kept, Ordering::Relaxed);
            return Ok(watch.wd);
        }
        let more = |n: usize| (n < WATCHES_MOST.load(Ordering::Relaxed)).then_some(n + 1);
        WATCHES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map_err(|_| Errno::ENOSPC)?;
        inner.last = inner.last.checked_add(1).unwrap_or(1);
        while inner.watches.contains_key(&inner.last) {
            inner.last = inner.last.checked_add(1).unwrap_or(1);
        }
        let wd = inner.last;
        let me: Weak<dyn Watcher> = self.me.clone();
        let watch = watch::add(inode, wd, kept, me);
        inner.watches.insert(wd, (watch, inode.clone()));
        Ok(wd)
    }

    /// Ends a watch; EINVAL if there is none.
    pub fn remove(&self, wd: i32) -> Result<(), Errno> {
        let (watch, inode) = self.forget(wd).ok_or(Errno::EINVAL)?;
        watch::remove(&inode, &watch);
        self.put(Event { wd, mask: event::IGNORED, cookie: 0, name: Vec::new() });
        Ok(())
    }

    fn forget(&self, wd: i32) -> Option<(Arc<Watch>, InodeRef)> {
        let gone = self.inner.lock().watches.remove(&wd)?;
        WATCHES.fetch_sub(1, Ordering::Relaxed);
        Some(gone)
    }
}

impl Watcher for Inotify {
    fn told(&self, watch: &Arc<Watch>, what: u32, cookie: u32, name: Option<&[u8]>) {
        self.put(Event { wd: watch.wd, mask: what, cookie, name: name.unwrap_or_default().to_vec() });
        if what == event::IGNORED {
            self.forget(watch.wd);
        } else if watch.mask.load(Ordering::Relaxed) & ONESHOT != 0 {
            self.remove(watch.wd).ok();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let (watches, events) = {
            let mut inner = self.0.inner.lock();
            (std::mem::take(&mut inner.watches), std::mem::take(&mut inner.events))
        };
        WAITING.fetch_sub(events.len(), Ordering::Relaxed);
        WATCHES.fetch_sub(watches.len(), Ordering::Relaxed);
        for (watch, inode) in watches.into_values() {
            watch::remove(&inode, &watch);
        }
        INSTANCES.fetch_sub(1, Ordering::Relaxed);
    }
}

impl FileOps for Handle {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ignores_seeks(&self) -> bool {
        true
    }

    fn read(&self, _io: &Io<'_>, _at: u64, to: &mut Sink<'_>) -> Result<usize, Errno> {
        let room = to.room();
        let events: Vec<u8> = {
            let mut inner = self.0.inner.lock();
            let mut bytes = Vec::new();
            while let Some(event) = inner.events.front() {
                if bytes.len() + event.len() > room {
                    break;
                }
                bytes.extend(event.bytes());
                inner.events.pop_front();
                WAITING.fetch_sub(1, Ordering::Relaxed);
            }
            if bytes.is_empty() {
                return Err(if inner.events.is_empty() { Errno::EAGAIN } else { Errno::EINVAL });
            }
            bytes
        };
        to.put(&events)
    }

    fn poll(&self, _file: &File) -> PollMask {
        let mut m = PollMask::empty();
        m.set(PollMask::IN | PollMask::RDNORM, !self.0.inner.lock().events.is_empty());
        m
    }

    fn fasync(&self) -> PollMask {
        PollMask::IN
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.queue)
    }

    fn ioctl(&self, task: &Arc<Task>, _file: &Arc<File>, request: u32, argument: u64) -> SysResult {
        if request != FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let bytes: usize = self.0.inner.lock().events.iter().map(Event::len).sum();
        UserPtr::<i32>::new(argument).write(task, &i32::try_from(bytes).unwrap_or(i32::MAX))?;
        done()
    }

    fn fdinfo(&self) -> String {
        let watches: Vec<_> = self.0.inner.lock().watches.values().cloned().collect();
        let line = |(watch, inode): &(Arc<Watch>, InodeRef)| {
            let (ino, dev) = inode.attr().map_or((0, 0), |a| (a.ino, a.dev));
            let mask = watch.mask.load(Ordering::Relaxed);
            format!("inotify wd:{:x} ino:{ino:x} sdev:{dev:x} mask:{mask:x} ignored_mask:0\n", watch.wd)
        };
        watches.iter().rev().map(line).collect()
    }
}
