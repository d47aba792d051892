//! Waiting: wait queues, poll events, and system calls that are not finished yet.
//!
//! A blocked system call holds no thread of the Sentry. Its handler returns [`Outcome::Block`](crate::syscalls::Outcome)
//! with a [`Wait`]: the queues it waits on, a deadline, and a closure to try again. The task keeps the `Wait`; whoever
//! makes the condition true wakes the queue, which only marks the task and puts it on the waking thread's list of woken
//! tasks; once that thread holds no lock any more it calls [`run_woken`], which tries the calls again and answers those
//! that are done. So a write to a pipe answers its reader without waking another thread of the Sentry in between.
//!
//! Unless the waking task runs on, beside others or waking one after the other: then those it woke are left for later
//! ([`after_call`]), that is until it blocks, or a little while has passed. As on Linux, where a wake-up takes that long too, a task that wakes others keeps its lead: what it does next
//! (give back the lock that they all want) is done when they come.
//!
//! Owned here: the queues and the list of the woken. Never here: what a condition means.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cofferdam_platform::After;

use crate::errno::Errno;
use crate::sync;
use crate::task::Task;
use crate::time::Deadline;

bitflags::bitflags! {
    /// Poll events, as in `poll(2)` and `epoll_ctl(2)`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct PollMask: u32 {
        /// There is something to read.
        const IN = 0x001;
        /// There is urgent data, or an exceptional condition.
        const PRI = 0x002;
        /// A write would not block.
        const OUT = 0x004;
        /// An error condition.
        const ERR = 0x008;
        /// The peer hung up.
        const HUP = 0x010;
        /// The descriptor is not open.
        const NVAL = 0x020;
        /// As IN, for normal data.
        const RDNORM = 0x040;
        /// Priority band data can be read.
        const RDBAND = 0x080;
        /// As OUT, for normal data.
        const WRNORM = 0x100;
        /// Priority data may be written.
        const WRBAND = 0x200;
        /// A message is there (unused by Linux).
        const MSG = 0x400;
        /// The peer shut down its writing half.
        const RDHUP = 0x2000;
    }
}

impl PollMask {
    /// What a reader waits for.
    pub const READ: PollMask =
        PollMask::IN.union(PollMask::RDNORM).union(PollMask::HUP).union(PollMask::ERR).union(PollMask::RDHUP);
    /// What a writer waits for.
    pub const WRITE: PollMask = PollMask::OUT.union(PollMask::WRNORM).union(PollMask::HUP).union(PollMask::ERR);
}

/// Something that can be woken: a task's blocked call, an epoll item.
///
/// `wake` is called with the queue's lock held: it may mark and enqueue, and must neither block nor take a lock that
/// is ordered before wait queues.
pub trait Wake: Send + Sync {
    /// `events` happened on the queue (empty: no particular event).
    fn wake(&self, events: PollMask);
}

struct Waiter {
    id: u64,
    mask: PollMask,
    exclusive: bool,
    target: Arc<dyn Wake>,
}

/// Who waits for something to happen. Cheap to clone; clones are the same queue.
#[derive(Clone, Default)]
pub struct WaitQueue(Arc<sync::Mutex<Vec<Waiter>>>);

static NEXT_WAITER: AtomicU64 = AtomicU64::new(1);

impl WaitQueue {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a waiter for any of the events in `mask` (empty: all wake-ups) until the registration is dropped.
    pub fn register(&self, target: Arc<dyn Wake>, mask: PollMask) -> Registration {
        self.add(target, mask, false)
    }

    /// As [`register`](Self::register), but [`wake`](Self::wake) wakes only one of the exclusive waiters.
    pub fn register_exclusive(&self, target: Arc<dyn Wake>, mask: PollMask) -> Registration {
        self.add(target, mask, true)
    }

    fn add(&self, target: Arc<dyn Wake>, mask: PollMask, exclusive: bool) -> Registration {
        let id = NEXT_WAITER.fetch_add(1, Ordering::Relaxed);
        self.0.lock().push(Waiter { id, mask, exclusive, target });
        Registration { queue: self.clone(), id }
    }

    /// Wakes all waiters for `events`, but of the exclusive ones only the first.
    pub fn wake(&self, events: PollMask) {
        let mut exclusive = false;
        for w in self.0.lock().iter() {
            if !w.mask.is_empty() && !events.is_empty() && !w.mask.intersects(events) {
                continue;
            }
            if w.exclusive {
                if exclusive {
                    continue;
                }
                exclusive = true;
            }
            w.target.wake(events);
        }
    }

    /// Wakes all waiters, exclusive or not.
    pub fn wake_all(&self) {
        for w in self.0.lock().iter() {
            w.target.wake(PollMask::empty());
        }
    }
}

/// A place in a wait queue; dropping it leaves the queue.
#[must_use]
pub struct Registration {
    queue: WaitQueue,
    id: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut list = self.queue.0.lock();
        if let Some(at) = list.iter().position(|w| w.id == self.id) {
            list.remove(at);
        }
    }
}

/// Why a blocked call is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Something it waits on woke it, or it is tried for the first time.
    Woken,
    /// Its deadline passed. The closure must finish the call.
    TimedOut,
    /// A signal is to be delivered. The closure must finish the call: partial work, or a restart code.
    Interrupted,
}

/// What a blocked call does when it is tried again: `None` keeps waiting.
pub type Retry = Box<dyn FnMut(&Arc<Task>, Cause) -> Option<Result<i64, Errno>> + Send>;

/// A blocked system call.
pub struct Wait {
    /// Queues it is woken by, with the events it cares for; registered before the closure is first tried.
    pub queues: Vec<(WaitQueue, PollMask)>,
    /// When to give up.
    pub deadline: Option<Deadline>,
    /// Tries again.
    pub retry: Retry,
    /// Whether signals leave it alone (a call that a native kernel sleeps through uninterruptibly).
    pub uninterruptible: bool,
}

impl Wait {
    /// A wait that ends when `retry` says so.
    pub fn new(retry: impl FnMut(&Arc<Task>, Cause) -> Option<Result<i64, Errno>> + Send + 'static) -> Self {
        Self { queues: Vec::new(), deadline: None, retry: Box::new(retry), uninterruptible: false }
    }

    /// Adds a queue to be woken by.
    #[must_use]
    pub fn on(mut self, queue: &WaitQueue, mask: PollMask) -> Self {
        self.queues.push((queue.clone(), mask));
        self
    }

    /// Sets when to give up.
    #[must_use]
    pub fn until(mut self, deadline: Option<Deadline>) -> Self {
        self.deadline = deadline;
        self
    }
}

thread_local! {
    static WORK: RefCell<VecDeque<Box<dyn FnOnce()>>> = const { RefCell::new(VecDeque::new()) };
    static WOKEN: RefCell<VecDeque<Arc<Task>>> = const { RefCell::new(VecDeque::new()) };
    /// The task that this thread serves, or served last, and whether it has woken others since it last blocked.
    static WAKER: Cell<(i32, bool)> = const { Cell::new((0, false)) };
}

/// Leaves work for when this thread holds no lock any more: what a wake-up sees to that is no task's call.
pub fn push_work(work: Box<dyn FnOnce()>) {
    WORK.with_borrow_mut(|w| w.push_back(work));
}

/// Does it, and what that leaves.
fn do_work() {
    while let Some(work) = WORK.with_borrow_mut(VecDeque::pop_front) {
        work();
    }
}

/// Puts a woken task on this thread's list. Called by the task's own [`Wake`] implementation.
pub fn push_woken(task: Arc<Task>) {
    WOKEN.with_borrow_mut(|w| w.push_back(task));
}

/// Tries the blocked calls of all tasks that this thread woke. Call it with no lock held: at the end of every timer
/// expiry and message from another service ([`after_call`]: of a system call).
pub fn run_woken() {
    do_work();
    while let Some(task) = WOKEN.with_borrow_mut(VecDeque::pop_front) {
        task.retry_blocked();
        do_work();
    }
}

/// How long a task that wakes others keeps its lead: about what it takes Linux to wake an idle processor of a virtual machine.
/// Shorter, and threads that hand a lock around (Python's interpreter lock) do nothing else: 5 s for 0.12 s of work.
const LEAD: Duration = Duration::from_micros(60);

/// Woken tasks whose wakers ran on.
struct Later {
    /// Who woke it, when, and whom.
    tasks: VecDeque<(i32, Instant, Arc<Task>)>,
    /// The thread of [`serve_later`] was woken, or works.
    awake: bool,
}

/// Below all other locks.
static LATER: Mutex<Later> = Mutex::new(Later { tasks: VecDeque::new(), awake: false });
static LATER_COMES: Condvar = Condvar::new();
/// How many there are.
static LATER_TASKS: AtomicUsize = AtomicUsize::new(0);

impl Later {
    /// Takes out the first one that was woken by `waker`.
    fn take(&mut self, waker: i32) -> Option<Arc<Task>> {
        let at = self.tasks.iter().position(|(w, ..)| *w == waker)?;
        let (_, _, task) = self.tasks.remove(at)?;
        LATER_TASKS.store(self.tasks.len(), Ordering::Release);
        Some(task)
    }
}

fn later() -> MutexGuard<'static, Later> {
    LATER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes that this thread now serves the task `tid`. `woke`: it has woken others since it last blocked.
pub fn serving(tid: i32, woke: bool) {
    WAKER.set((tid, woke));
}

/// Whether this thread has woken tasks that are still to be seen to.
pub fn has_woken() -> bool {
    WOKEN.with_borrow(|w| !w.is_empty())
}

/// As [`run_woken`], after an event of the task that is served. What it has sent beyond the sandbox leaves first.
pub fn after_call(after: After) {
    crate::net::after_call(matches!(after, After::Runs { .. }));
    do_work();
    let (waker, woke) = WAKER.get();
    // Who is alone, wakes one and blocks next keeps no lead: the first comes at once.
    if let After::Runs { others } = after
        && (woke || others)
    {
        let awake = WOKEN.with_borrow_mut(|woken| {
            if woken.is_empty() {
                return true;
            }
            let now = Instant::now();
            let mut later = later();
            later.tasks.extend(woken.drain(..).map(|task| (waker, now, task)));
            LATER_TASKS.store(later.tasks.len(), Ordering::Release);
            std::mem::replace(&mut later.awake, true)
        });
        if !awake {
            LATER_COMES.notify_one();
        }
        return;
    }
    run_woken();
    while LATER_TASKS.load(Ordering::Acquire) > 0 {
        let Some(task) = later().take(waker) else { break };
        task.retry_blocked();
        run_woken();
    }
}

/// Sees to the tasks that were left for later, for ever. On a thread of its own.
pub fn serve_later() -> ! {
    loop {
        let (waker, woken) = {
            let mut later = later();
            loop {
                match later.tasks.front() {
                    Some((waker, at, _)) => break (*waker, *at),
                    None => {
                        later.awake = false;
                        later = LATER_COMES.wait(later).unwrap_or_else(PoisonError::into_inner);
                    }
                }
            }
        };
        // Its waker may block meanwhile, and then sees to it.
        if let Some(left) = LEAD.checked_sub(woken.elapsed()) {
            std::thread::sleep(left);
        }
        let task = later().take(waker);
        if let Some(task) = task {
            task.retry_blocked();
            run_woken();
        }
    }
}
