//! POSIX message queues, `mq_overview(7)`: a queue's messages, limits and notification.
//!
//! Owns what is in a queue. Names and inodes are `filesystems::mqueue`'s; called by it and by `syscalls::mqueue`.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::errno::Errno;
use crate::ipc::netlink::Netlink;
use crate::signal::{SigInfo, code, send};
use crate::sync::Mutex;
use crate::task::{Group, Task};
use crate::uio::Sink;
use crate::vfs::file::{File, FileOps, Io};
use crate::wait::{PollMask, WaitQueue};

/// Priorities are below this (`MQ_PRIO_MAX`).
pub const PRIORITIES: u32 = 32768;
/// What a message costs beside its text.
const MESSAGE_COST: u64 = 64;
/// What all queues of a sandbox hold together: memory of the Sentry. ENOMEM.
const ALL_BYTES: u64 = 64 << 20;
/// What they hold now.
static HELD: AtomicU64 = AtomicU64::new(0);

/// Who is told of the next message that comes to an empty queue.
struct Notification {
    group: std::sync::Weak<Group>,
    pid: i32,
    /// Its descriptor table: the registration ends with the first of its descriptors that is closed.
    table: u64,
    how: Notify,
}

/// How it is told (`SIGEV_*`).
pub enum Notify {
    /// Not at all.
    Nothing,
    /// By a signal with a value.
    Signal(i32, u64),
    /// By a cookie that is sent to a socket, for libc to start a thread.
    Thread(Arc<Netlink>, [u8; COOKIE]),
}

/// Bytes of a cookie (`NOTIFY_COOKIE_LEN`).
pub const COOKIE: usize = 32;
/// What its last byte says: a message came (`NOTIFY_WOKENUP`), or none will be told of (`NOTIFY_REMOVED`).
const WOKEN: u8 = 1;
const REMOVED: u8 = 2;

impl Notification {
    /// Sends the cookie back, if it is by that.
    fn send_cookie(&self, what: u8) {
        if let Notify::Thread(socket, cookie) = &self.how {
            let mut cookie = *cookie;
            if let Some(last) = cookie.last_mut() {
                *last = what;
            }
            socket.tell(cookie.to_vec());
        }
    }
}

#[derive(Default)]
struct Inner {
    /// By priority.
    messages: BTreeMap<u32, VecDeque<Vec<u8>>>,
    count: usize,
    bytes: usize,
    /// Calls that wait for a message.
    waiting: usize,
    notification: Option<Notification>,
}

/// A queue.
pub struct Queue {
    inner: Mutex<Inner>,
    /// Most messages.
    pub max_count: usize,
    /// Most bytes of one.
    pub max_size: usize,
    /// Woken when a message came or went.
    pub queue: WaitQueue,
}

/// A call that waits for a message, as long as this is there.
pub struct Waiting(Arc<Queue>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.inner.lock().waiting -= 1;
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let inner = self.inner.lock();
        HELD.fetch_sub(inner.bytes as u64 + inner.count as u64 * MESSAGE_COST, Ordering::Relaxed);
    }
}

impl Queue {
    /// An empty queue.
    pub fn new(max_count: usize, max_size: usize) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), max_count, max_size, queue: WaitQueue::new() })
    }

    /// Messages in it.
    pub fn len(&self) -> usize {
        self.inner.lock().count
    }

    /// Counts a call in that waits for a message.
    pub fn wait(self: &Arc<Self>) -> Waiting {
        self.inner.lock().waiting += 1;
        Waiting(self.clone())
    }

    /// Adds a message of a task. EAGAIN while there is no room.
    pub fn send(&self, sender: &Task, text: &[u8], priority: u32) -> Result<(), Errno> {
        let told = {
            let mut inner = self.inner.lock();
            if inner.count >= self.max_count {
                return Err(Errno::EAGAIN);
            }
            let cost = text.len() as u64 + MESSAGE_COST;
            let fits = |held: u64| held.checked_add(cost).filter(|all| *all <= ALL_BYTES);
            HELD.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map_err(|_| Errno::ENOMEM)?;
            inner.messages.entry(priority).or_default().push_back(text.to_vec());
            inner.count += 1;
            inner.bytes += text.len();
            // Whoever waits gets it; nobody is told then.
            if inner.count == 1 && inner.waiting == 0 { inner.notification.take() } else { None }
        };
        self.queue.wake(PollMask::IN | PollMask::RDNORM);
        let Some(told) = told else { return Ok(()) };
        told.send_cookie(WOKEN);
        if let Notify::Signal(signo, value) = told.how
            && let Some(group) = told.group.upgrade()
        {
            let info = SigInfo::from_process(signo, code::MESGQ, sender.pid(), sender.creds().ruid).with_value(value);
            send::to_group(sender.kernel(), &group, info);
        }
        Ok(())
    }

    /// Takes the oldest message of the highest priority. EAGAIN if there is none.
    pub fn receive(&self) -> Result<(Vec<u8>, u32), Errno> {
        let taken = {
            let mut inner = self.inner.lock();
            let mut highest = inner.messages.last_entry().ok_or(Errno::EAGAIN)?;
            let priority = *highest.key();
            let text = highest.get_mut().pop_front().ok_or(Errno::EAGAIN)?;
            if highest.get().is_empty() {
                highest.remove();
            }
            inner.count -= 1;
            inner.bytes -= text.len();
            (text, priority)
        };
        HELD.fetch_sub(taken.0.len() as u64 + MESSAGE_COST, Ordering::Relaxed);
        self.queue.wake(PollMask::OUT | PollMask::WRNORM);
        Ok(taken)
    }

    /// `mq_notify(2)`. EBUSY.
    pub fn register(&self, task: &Task, how: Notify) -> Result<(), Errno> {
        let mut inner = self.inner.lock();
        // One whose process is gone is nobody's.
        if inner.notification.as_ref().is_some_and(|n| n.group.upgrade().is_some_and(|g| !g.is_exiting())) {
            return Err(Errno::EBUSY);
        }
        let (group, pid, table) = (Arc::downgrade(task.group()), task.pid(), task.files().id);
        inner.notification = Some(Notification { group, pid, table, how });
        Ok(())
    }

    /// Takes a process's own registration back.
    pub fn unregister(&self, pid: i32) {
        self.remove(|n| n.pid == pid);
    }

    fn remove(&self, which: impl Fn(&Notification) -> bool) {
        let removed = {
            let mut inner = self.inner.lock();
            if inner.notification.as_ref().is_some_and(which) { inner.notification.take() } else { None }
        };
        if let Some(n) = removed {
            n.send_cookie(REMOVED);
        }
    }

    fn status(&self, reader: Option<&Arc<Task>>) -> String {
        let inner = self.inner.lock();
        let n = inner.notification.as_ref();
        let (how, signo) = match n.map(|n| &n.how) {
            Some(Notify::Signal(signo, _)) => (0, *signo),
            Some(Notify::Nothing) => (1, 0),
            Some(Notify::Thread(..)) => (2, 0),
            None => (0, 0),
        };
        let pid = n.map_or(0, |n| reader.map_or(n.pid, |r| r.shown(n.pid)));
        format!("QSIZE:{:<10} NOTIFY:{how:<5} SIGNO:{signo:<5} NOTIFY_PID:{pid:<6}\n", inner.bytes)
    }
}

/// An open queue.
pub struct QueueFile(pub Arc<Queue>);

impl FileOps for QueueFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, io: &Io<'_>, at: u64, to: &mut Sink<'_>) -> Result<usize, Errno> {
        let text = self.0.status(io.task);
        let from = usize::try_from(at).unwrap_or(usize::MAX);
        to.put(text.as_bytes().get(from..).unwrap_or_default())
    }

    fn truncate(&self, _file: &File, _size: u64) -> Result<(), Errno> {
        Ok(())
    }

    fn poll(&self, _file: &File) -> PollMask {
        let count = self.0.len();
        let mut m = PollMask::empty();
        m.set(PollMask::IN | PollMask::RDNORM, count > 0);
        m.set(PollMask::OUT | PollMask::WRNORM, count < self.0.max_count);
        m
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.queue)
    }

    fn flush(&self, _file: &File, table: u64) -> Result<(), Errno> {
        self.0.remove(|n| n.table == table);
        Ok(())
    }
}

/// The limits of `/proc/sys/fs/mqueue`.
pub struct Limits {
    /// Most queues.
    pub queues: Arc<AtomicUsize>,
    /// Most messages of a queue of an ordinary user.
    pub messages: Arc<AtomicUsize>,
    /// Most bytes of one.
    pub size: Arc<AtomicUsize>,
    /// Messages of a queue made without attributes.
    pub messages_default: Arc<AtomicUsize>,
    /// Bytes of a message there.
    pub size_default: Arc<AtomicUsize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queues: Arc::new(256.into()),
            messages: Arc::new(10.into()),
            size: Arc::new(8192.into()),
            messages_default: Arc::new(10.into()),
            size_default: Arc::new(8192.into()),
        }
    }
}

/// Most messages that anybody may have in a queue.
pub const HARD_MESSAGES: usize = 65536;
/// Most bytes of a message that anybody may allow.
pub const HARD_SIZE: usize = 16 << 20;
