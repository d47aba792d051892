//! Asynchronous I/O, `io_setup(2)`: contexts, and the ring that tells of what is done.
//!
//! As on Linux reads and writes are done when they are submitted; only polls wait. What is done goes to a list of the Sentry's own and
//! to a ring in memory that the container has mapped and may reap by itself: of that only the head is read, as a number between
//! bounds, and whatever else the container writes there is its own loss. Contexts belong to an address space and go with it. Owns the
//! contexts and the polls under way; what an operation is, is the calls'. Called by `syscalls::aio`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::errno::Errno;
use crate::memory::object::{Extent, MemoryObject};
use crate::memory::shared::SharedMemory;
use crate::memory::store::{PAGE, Store, page_up};
use crate::sync::Mutex;
use crate::uio::Source;
use crate::vfs::file::File;
use crate::wait::{PollMask, Registration, WaitQueue, Wake, push_work};

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
pub struct Event {
    /// `aio_data` of what was submitted.
    pub data: u64,
    /// Where that lies.
    pub object: u64,
    /// What it came to.
    pub result: i64,
    /// Nothing.
    pub result2: i64,
}

/// Bytes of an event, and of the ring's head (`struct aio_ring`).
const EVENT: u64 = 32;
const HEAD: u64 = 8;
const TAIL: u64 = 12;
const MAGIC: u32 = 0xa10a_10a1;

/// `fs.aio-max-nr`.
pub static MOST: AtomicUsize = AtomicUsize::new(65_536);
/// `fs.aio-nr`: operations that all contexts together were set up for.
static ALL: AtomicU64 = AtomicU64::new(0);

/// `fs.aio-nr`.
pub fn count() -> u64 {
    ALL.load(Ordering::Relaxed)
}

/// The memory of a ring, with a name of its own.
pub struct Ring(Arc<SharedMemory>);

impl MemoryObject for Ring {
    fn populate(&self, offset: u64, len: u64, write: bool) -> Result<Vec<Extent>, Errno> {
        self.0.populate(offset, len, write)
    }

    fn size(&self) -> u64 {
        self.0.size()
    }

    fn identity(&self) -> (u64, u64) {
        self.0.identity()
    }

    fn path(&self) -> Vec<u8> {
        b"/[aio] (deleted)".to_vec()
    }
}

#[derive(Default)]
struct State {
    dead: bool,
    /// Where the next event goes, and where the ones that were not reaped begin.
    tail: u32,
    head: u32,
    done: VecDeque<Event>,
    polls: Vec<Arc<Poll>>,
}

/// A context.
pub struct Context {
    /// What `io_setup` was asked for.
    asked: u64,
    /// Events that the ring has place for.
    slots: u32,
    ring: Arc<Ring>,
    state: Mutex<State>,
    /// Woken by each event.
    pub queue: WaitQueue,
}

impl Drop for Context {
    fn drop(&mut self) {
        self.kill();
        ALL.fetch_sub(self.asked, Ordering::Relaxed);
    }
}

/// The contexts of an address space, by where their rings are mapped.
#[derive(Default)]
pub struct Contexts(Mutex<BTreeMap<u64, Arc<Context>>>);

impl Contexts {
    /// Enters one.
    pub fn add(&self, base: u64, context: Arc<Context>) {
        self.0.lock().insert(base, context);
    }

    /// The one whose ring is there; EINVAL.
    pub fn get(&self, base: u64) -> Result<Arc<Context>, Errno> {
        self.0.lock().get(&base).cloned().ok_or(Errno::EINVAL)
    }

    /// Takes it out.
    pub fn remove(&self, base: u64) -> Result<Arc<Context>, Errno> {
        self.0.lock().remove(&base).ok_or(Errno::EINVAL)
    }
}

impl Context {
    /// For so many operations at a time. EINVAL beyond all bounds, EAGAIN beyond `fs.aio-max-nr`.
    pub fn new(store: &Arc<Store>, asked: u32, processors: u32) -> Result<Arc<Self>, Errno> {
        const MOST_EVENTS: u64 = 0x1000_0000 / EVENT;
        let events = u64::from(asked.max(processors.saturating_mul(4))) * 2;
        if events > MOST_EVENTS {
            return Err(Errno::EINVAL);
        }
        let (asked, most) = (u64::from(asked), MOST.load(Ordering::Relaxed) as u64);
        let before = ALL.fetch_add(asked, Ordering::Relaxed);
        let len = page_up((events + 3) * EVENT).unwrap_or(PAGE);
        let memory = if before + asked > most { Err(Errno::EAGAIN) } else { SharedMemory::new(store, len) };
        let memory = memory.inspect_err(|_| {
            ALL.fetch_sub(asked, Ordering::Relaxed);
        })?;
        let slots = u32::try_from((len - EVENT) / EVENT).unwrap_or(u32::MAX);
        let head: [u32; 8] = [0, slots, 0, 0, MAGIC, 1, 0, EVENT as u32];
        memory.write(0, head.as_bytes()).ok();
        Ok(Arc::new(Self {
            asked,
            slots,
            ring: Arc::new(Ring(memory)),
            state: Mutex::default(),
            queue: WaitQueue::new(),
        }))
    }

    /// Its ring, to be mapped.
    pub fn ring(&self) -> Arc<Ring> {
        self.ring.clone()
    }

    /// Operations that it takes in one go.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Whether it was destroyed.
    pub fn is_dead(&self) -> bool {
        self.state.lock().dead
    }

    /// Notes what the container reaped by itself.
    fn look(&self, s: &mut State) {
        let mut raw = [0; 4];
        if self.ring.0.read(HEAD, &mut raw).is_err() {
            return;
        }
        let head = u32::from_le_bytes(raw) % self.slots;
        let reaped = (head + self.slots - s.head) % self.slots;
        if reaped as usize <= s.done.len() {
            s.done.drain(..reaped as usize);
            s.head = head;
        }
    }

    /// Whether one more operation may be under way or wait to be reaped; EAGAIN.
    pub fn room(&self) -> Result<(), Errno> {
        let mut s = self.state.lock();
        self.look(&mut s);
        let used = s.done.len() + s.polls.len();
        if used + 1 < self.slots as usize { Ok(()) } else { Err(Errno::EAGAIN) }
    }

    /// An operation is done.
    pub fn complete(&self, event: Event, notify: Option<&Arc<File>>) {
        {
            let mut s = self.state.lock();
            if s.dead {
                return;
            }
            let at = s.tail;
            s.tail = (at + 1) % self.slots;
            s.done.push_back(event);
            // There first, then told of.
            self.ring.0.write(EVENT + u64::from(at) * EVENT, event.as_bytes()).ok();
            self.ring.0.write(TAIL, &s.tail.to_le_bytes()).ok();
        }
        if let Some(file) = notify {
            file.write(None, &mut Source::kernel(&1u64.to_le_bytes())).ok();
        }
        self.queue.wake_all();
    }

    /// Gives `to` up to `max` events, with no lock held, and takes back what it refused.
    pub fn reap(&self, max: usize, to: impl FnOnce(&[Event]) -> Result<(), Errno>) -> Result<usize, Errno> {
        let (events, count): (Vec<Event>, u32) = {
            let mut s = self.state.lock();
            self.look(&mut s);
            let n = max.min(s.done.len());
            if n == 0 {
                // The head is the container's then.
                return Ok(0);
            }
            let events: Vec<Event> = s.done.drain(..n).collect();
            let count = u32::try_from(n).unwrap_or(0);
            self.set_head(&mut s, count);
            (events, count)
        };
        if let Err(e) = to(&events) {
            let mut s = self.state.lock();
            events.iter().rev().for_each(|e| s.done.push_front(*e));
            self.set_head(&mut s, self.slots - count);
            return Err(e);
        }
        Ok(events.len())
    }

    /// Moves the head of the ring on, round it.
    fn set_head(&self, s: &mut State, by: u32) {
        s.head = (s.head + by) % self.slots;
        self.ring.0.write(HEAD, &s.head.to_le_bytes()).ok();
    }

    /// Waits for events of a file; done at once if there are some. EINVAL for one that nobody can wait for.
    pub fn poll(
        self: &Arc<Self>,
        file: Arc<File>,
        events: PollMask,
        notify: Option<Arc<File>>,
        (object, data): (u64, u64),
    ) -> Result<(), Errno> {
        let poll = Arc::new_cyclic(|me| Poll {
            me: me.clone(),
            context: Arc::downgrade(self),
            file,
            events,
            notify,
            object,
            data,
            queued: AtomicBool::new(false),
            woken: AtomicU32::new(0),
            done: AtomicBool::new(false),
            registration: Mutex::default(),
        });
        if poll.now().is_empty() && poll.file.ops().queue().is_none() {
            return Err(Errno::EINVAL);
        }
        self.state.lock().polls.push(poll.clone());
        if let Some(queue) = poll.file.ops().queue() {
            let target: Arc<dyn Wake> = poll.clone();
            *poll.registration.lock() = Some(queue.register(target, PollMask::empty()));
        }
        poll.look();
        Ok(())
    }

    /// `io_cancel(2)`: EINPROGRESS if it will be told of, EINVAL if there is none.
    pub fn cancel(&self, object: u64) -> Errno {
        let found = self.state.lock().polls.iter().find(|p| p.object == object).cloned();
        match found {
            Some(poll) => {
                poll.finish(PollMask::empty());
                Errno::EINPROGRESS
            }
            None => Errno::EINVAL,
        }
    }

    /// Nothing waits in it any more, and nobody for it.
    pub fn kill(&self) {
        let polls = {
            let mut s = self.state.lock();
            s.dead = true;
            std::mem::take(&mut s.polls)
        };
        for poll in polls {
            poll.done.store(true, Ordering::SeqCst);
            let r = poll.registration.lock().take();
            drop(r);
        }
        self.queue.wake_all();
    }
}

/// A poll under way.
struct Poll {
    me: Weak<Poll>,
    context: Weak<Context>,
    file: Arc<File>,
    events: PollMask,
    notify: Option<Arc<File>>,
    object: u64,
    data: u64,
    queued: AtomicBool,
    /// What woke it. As on Linux that is told, also what was not asked for.
    woken: AtomicU32,
    done: AtomicBool,
    registration: Mutex<Option<Registration>>,
}

impl Wake for Poll {
    fn wake(&self, events: PollMask) {
        self.woken.store(events.bits(), Ordering::Relaxed);
        if !self.queued.swap(true, Ordering::AcqRel)
            && let Some(poll) = self.me.upgrade()
        {
            push_work(Box::new(move || poll.look()));
        }
    }
}

impl Poll {
    fn now(&self) -> PollMask {
        self.file.poll() & self.events
    }

    fn look(&self) {
        self.queued.store(false, Ordering::Release);
        if self.done.load(Ordering::SeqCst) {
            return;
        }
        let now = self.now();
        if !now.is_empty() {
            let woken = PollMask::from_bits_truncate(self.woken.swap(0, Ordering::Relaxed));
            self.finish(if woken.intersects(self.events) { woken } else { now });
        }
    }

    fn finish(&self, events: PollMask) {
        if self.done.swap(true, Ordering::SeqCst) {
            return;
        }
        let r = self.registration.lock().take();
        drop(r);
        let Some(context) = self.context.upgrade() else { return };
        let event = Event { data: self.data, object: self.object, result: events.bits().into(), result2: 0 };
        // Counted as one or the other until it is both.
        context.complete(event, self.notify.as_ref());
        let gone: Vec<_> = {
            let mut s = context.state.lock();
            let at = s.polls.iter().position(|p| std::ptr::eq(Arc::as_ptr(p), self));
            at.map(|at| s.polls.swap_remove(at)).into_iter().collect()
        };
        drop(gone);
    }
}
