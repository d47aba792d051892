//! `epoll(7)`: level and edge triggered, one-shot, exclusive, nested.
//!
//! An item registers itself on the queue of its file; a wake-up puts it on the instance's ready list. What is ready is
//! asked of the file again when events are taken, so a stale wake-up costs a look and nothing else. A file that is
//! closed for good takes its items along: an item holds it weakly.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use crate::errno::Errno;
use crate::filesystems::anon;
use crate::sync::Mutex;
use crate::vfs::file::{File, FileOps, flags};
use crate::wait::{PollMask, Registration, WaitQueue, Wake};

/// `EPOLLET`.
pub const EDGE: u32 = 1 << 31;
/// `EPOLLONESHOT`.
pub const ONESHOT: u32 = 1 << 30;
/// `EPOLLWAKEUP`.
pub const WAKEUP: u32 = 1 << 29;
/// `EPOLLEXCLUSIVE`.
pub const EXCLUSIVE: u32 = 1 << 28;
/// How deep instances may contain each other.
const DEPTH_MAX: u32 = 5;
/// Items of one instance.
const ITEMS_MAX: usize = 1 << 20;

struct Interest {
    events: u32,
    data: u64,
    /// A one-shot item that has fired.
    spent: bool,
}

struct Item {
    me: Weak<Item>,
    file: Weak<File>,
    epoll: Weak<Epoll>,
    interest: Mutex<Interest>,
    queued: AtomicBool,
    gone: AtomicBool,
    registration: Mutex<Option<Registration>>,
}

impl Wake for Item {
    fn wake(&self, _events: PollMask) {
        if let Some(e) = self.epoll.upgrade() {
            e.make_ready(self);
        }
    }
}

impl Item {
    fn mask(&self) -> PollMask {
        let i = self.interest.lock();
        if i.spent {
            return PollMask::empty();
        }
        PollMask::from_bits_truncate(i.events) | PollMask::ERR | PollMask::HUP
    }

    fn now(&self) -> PollMask {
        let mask = self.mask();
        match self.file.upgrade() {
            Some(f) if !mask.is_empty() => f.poll() & mask,
            _ => PollMask::empty(),
        }
    }
}

type Key = (i32, u64);

/// An epoll instance.
pub struct Epoll {
    me: Weak<Epoll>,
    items: Mutex<BTreeMap<Key, Arc<Item>>>,
    ready: Mutex<VecDeque<Arc<Item>>>,
    queue: WaitQueue,
}

/// A new instance.
pub fn create() -> Arc<File> {
    let epoll = Arc::new_cyclic(|me| Epoll {
        me: me.clone(),
        items: Mutex::default(),
        ready: Mutex::default(),
        queue: WaitQueue::new(),
    });
    anon::file(b"anon_inode:[eventpoll]", Box::new(EpollFile(epoll)), flags::RDWR)
}

/// An open epoll instance.
pub struct EpollFile(pub Arc<Epoll>);

impl Drop for EpollFile {
    /// Leaves all queues here, where no queue is locked: the last reference to the instance may be a wake-up's.
    fn drop(&mut self) {
        let items = std::mem::take(&mut *self.0.items.lock());
        for item in items.values() {
            item.gone.store(true, Ordering::Relaxed);
            let r = item.registration.lock().take();
            drop(r);
        }
        let ready = std::mem::take(&mut *self.0.ready.lock());
        drop((ready, items));
    }
}

impl Epoll {
    fn make_ready(&self, item: &Item) {
        if item.gone.load(Ordering::Relaxed) {
            return;
        }
        // One that is on the list already may be there from before, unready since: who waits must look again.
        if !item.queued.swap(true, Ordering::AcqRel)
            && let Some(item) = item.me.upgrade()
        {
            self.ready.lock().push_back(item);
        }
        self.queue.wake(PollMask::IN | PollMask::RDNORM);
    }

    /// Whether `self` contains `other`, at most so deep. ELOOP if deeper.
    fn reaches(&self, other: &Arc<Epoll>, depth: u32) -> Result<bool, Errno> {
        if depth >= DEPTH_MAX {
            return Err(Errno::ELOOP);
        }
        let files: Vec<Arc<File>> = self.items.lock().values().filter_map(|i| i.file.upgrade()).collect();
        for f in files {
            if let Some(EpollFile(e)) = f.ops_as::<EpollFile>()
                && (Arc::ptr_eq(e, other) || e.reaches(other, depth + 1)?)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// `EPOLL_CTL_ADD`.
    pub fn add(&self, fd: i32, file: &Arc<File>, events: u32, data: u64) -> Result<(), Errno> {
        let Some(queue) = file.ops().queue() else { return Err(Errno::EPERM) };
        let me = self.me.upgrade().ok_or(Errno::EBADF)?;
        if let Some(EpollFile(e)) = file.ops_as::<EpollFile>() {
            if events & EXCLUSIVE != 0 || Arc::ptr_eq(e, &me) {
                return Err(Errno::EINVAL);
            }
            if e.reaches(&me, 1)? {
                return Err(Errno::ELOOP);
            }
        }
        let key = (fd, file.id);
        let item = {
            let mut items = self.items.lock();
            if items.contains_key(&key) {
                return Err(Errno::EEXIST);
            }
            if items.len() >= ITEMS_MAX {
                items.retain(|_, i| i.file.strong_count() > 0);
                if items.len() >= ITEMS_MAX {
                    return Err(Errno::ENOSPC);
                }
            }
            let item = Arc::new_cyclic(|w| Item {
                me: w.clone(),
                file: Arc::downgrade(file),
                epoll: self.me.clone(),
                interest: Mutex::new(Interest { events, data, spent: false }),
                queued: AtomicBool::new(false),
                gone: AtomicBool::new(false),
                registration: Mutex::new(None),
            });
            items.insert(key, item.clone());
            item
        };
        let target: Arc<dyn Wake> = item.clone();
        // All events: the interest may be changed later, and is looked at when events are taken.
        let r = if events & EXCLUSIVE != 0 {
            queue.register_exclusive(target, item.mask())
        } else {
            queue.register(target, PollMask::empty())
        };
        *item.registration.lock() = Some(r);
        if !item.now().is_empty() {
            self.make_ready(&item);
        }
        Ok(())
    }

    /// `EPOLL_CTL_MOD`.
    pub fn modify(&self, fd: i32, file: &Arc<File>, events: u32, data: u64) -> Result<(), Errno> {
        let item = self.items.lock().get(&(fd, file.id)).cloned().ok_or(Errno::ENOENT)?;
        {
            let mut i = item.interest.lock();
            if (events | i.events) & EXCLUSIVE != 0 {
                return Err(Errno::EINVAL);
            }
            *i = Interest { events, data, spent: false };
        }
        if !item.now().is_empty() {
            self.make_ready(&item);
        }
        Ok(())
    }

    /// `EPOLL_CTL_DEL`.
    pub fn delete(&self, fd: i32, file: &Arc<File>) -> Result<(), Errno> {
        let item = self.items.lock().remove(&(fd, file.id)).ok_or(Errno::ENOENT)?;
        item.gone.store(true, Ordering::Relaxed);
        // Outside of the item's lock: leaving a queue takes the queue's lock.
        let r = item.registration.lock().take();
        drop(r);
        self.ready.lock().retain(|i| !Arc::ptr_eq(i, &item));
        Ok(())
    }

    /// Takes up to `max` events: mask and data of each.
    pub fn take(&self, max: usize) -> Vec<(u32, u64)> {
        let mut out = Vec::new();
        let mut again = Vec::new();
        let mut turns = self.ready.lock().len();
        while out.len() < max && turns > 0 {
            turns -= 1;
            let Some(item) = self.ready.lock().pop_front() else { break };
            item.queued.store(false, Ordering::Release);
            if item.gone.load(Ordering::Relaxed) {
                continue;
            }
            if item.file.strong_count() == 0 {
                self.items.lock().retain(|_, i| !Arc::ptr_eq(i, &item));
                continue;
            }
            let now = item.now();
            if now.is_empty() {
                continue;
            }
            let mut i = item.interest.lock();
            out.push((now.bits(), i.data));
            i.spent = i.events & ONESHOT != 0;
            let level = i.events & (EDGE | ONESHOT) == 0;
            drop(i);
            if level {
                again.push(item);
            }
        }
        // Level-triggered items stay on the list, behind the others, until they are found idle.
        for item in again {
            if !item.queued.swap(true, Ordering::AcqRel) {
                self.ready.lock().push_back(item);
            }
        }
        out
    }

    /// The file that was added as descriptor `fd`, or one of several.
    pub fn target(&self, fd: i32, index: usize) -> Option<Arc<File>> {
        let items = self.items.lock();
        items.range((fd, 0)..=(fd, u64::MAX)).filter_map(|(_, i)| i.file.upgrade()).nth(index)
    }

    /// The queue that is woken when something becomes ready.
    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }
}

impl FileOps for EpollFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ignores_seeks(&self) -> bool {
        true
    }

    fn poll(&self, _file: &File) -> PollMask {
        let ready: Vec<_> = self.0.ready.lock().iter().cloned().collect();
        if ready.iter().any(|i| !i.now().is_empty()) { PollMask::IN | PollMask::RDNORM } else { PollMask::empty() }
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.queue)
    }

    fn fdinfo(&self) -> String {
        let items: Vec<(Key, Arc<Item>)> = self.0.items.lock().iter().map(|(k, i)| (*k, i.clone())).collect();
        let line = |(k, item): &(Key, Arc<Item>)| {
            let (pos, (ino, dev)) = item
                .file
                .upgrade()
                .map_or((0, (0, 0)), |f| (f.position(), f.inode().attr().map_or((0, 0), |a| (a.ino, a.dev))));
            let i = item.interest.lock();
            // Errors and hang-ups are told whether asked for or not, until the one time is over.
            let asked = (PollMask::all().bits() & i.events) != 0;
            let events = i.events | if asked { (PollMask::ERR | PollMask::HUP).bits() } else { 0 };
            let data = i.data;
            format!("tfd: {:8} events: {events:8x} data: {data:16x}  pos:{pos} ino:{ino:x} sdev:{dev:x}\n", k.0)
        };
        items.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::eventfd::eventfd;
    use crate::uio::{Sink, Source};

    fn instance(f: &Arc<File>) -> Arc<Epoll> {
        f.ops_as::<EpollFile>().unwrap().0.clone()
    }

    fn raise(f: &File) {
        f.write(None, &mut Source::kernel(&1u64.to_le_bytes())).unwrap();
    }

    const IN: u32 = 1;

    #[test]
    fn level_edge_and_oneshot() {
        let (level, edge, once) = (eventfd(0, 0), eventfd(0, 0), eventfd(0, 0));
        let ep = create();
        let e = instance(&ep);
        e.add(1, &level, IN, 1).unwrap();
        e.add(2, &edge, IN | EDGE, 2).unwrap();
        e.add(3, &once, IN | ONESHOT, 3).unwrap();
        assert_eq!(e.add(3, &once, IN, 3), Err(Errno::EEXIST));
        assert_eq!(e.take(9), []);
        for f in [&level, &edge, &once] {
            raise(f);
        }
        assert_eq!(e.take(9), [(IN, 1), (IN, 2), (IN, 3)]);
        assert_eq!(e.take(9), [(IN, 1)]);
        raise(&edge);
        raise(&once);
        assert_eq!(e.take(9), [(IN, 1), (IN, 2)]);
        e.modify(3, &once, IN | ONESHOT, 33).unwrap();
        assert_eq!(e.take(9), [(IN, 1), (IN, 33)]);
        level.read(None, &mut Sink::kernel(&mut Vec::new(), 8)).unwrap();
        assert_eq!(e.take(9), []);
        raise(&level);
        drop(level);
        assert_eq!(e.take(9), [], "a closed file is gone");
    }

    #[test]
    fn nested_instances_wake_and_loops_are_refused() {
        let (a, b) = (create(), create());
        let f = eventfd(0, 0);
        instance(&a).add(1, &b, IN, 7).unwrap();
        assert_eq!(instance(&b).add(1, &a, IN, 0), Err(Errno::ELOOP));
        assert_eq!(instance(&a).add(2, &a, IN, 0), Err(Errno::EINVAL));
        instance(&b).add(1, &f, IN, 8).unwrap();
        assert_eq!(instance(&a).take(9), []);
        raise(&f);
        assert_eq!(instance(&a).take(9), [(IN, 7)]);
        assert_eq!(instance(&b).take(9), [(IN, 8)]);
        instance(&b).delete(1, &f).unwrap();
        assert_eq!(a.poll(), PollMask::empty());
    }
}
