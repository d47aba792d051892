//! A tracee's memory as its tracer sees and changes it: patched call sites look as they were, and what the tracee itself may not
//! write is written all the same, into its private copy (`FOLL_FORCE`).
//!
//! The host lets nobody write there either, so the tracee's own host thread, while it is stopped, has orders to make the page
//! writable and then as it was; between the two the Sentry writes. Who asked waits ([`Poke`]).

use std::collections::VecDeque;
use std::sync::Arc;

use cofferdam_platform::{Answer, Frame, Order};

use crate::errno::Errno;
use crate::memory::sites::{SITE_LEN, Site};
use crate::memory::store::{PAGE, page_down};
use crate::memory::vma::{READ, WRITE};
use crate::sync::Mutex;
use crate::task::{After, Task};
use crate::wait::WaitQueue;

/// A write that the tracee's host thread helps with.
pub(crate) struct Poke {
    result: Mutex<Option<Result<(), Errno>>>,
    /// Woken when it is done.
    queue: WaitQueue,
}

impl Poke {
    /// What came of it, once that is known.
    pub(crate) fn result(&self) -> Option<Result<(), Errno>> {
        *self.result.lock()
    }

    /// Ends it.
    pub(crate) fn done(&self, result: Result<(), Errno>) {
        self.result.lock().get_or_insert(result);
        self.queue.wake_all();
    }
}

/// A write under way in the tracee.
pub(crate) struct Poking {
    /// What is left to write; no piece crosses a page.
    pieces: VecDeque<(u64, Vec<u8>)>,
    /// The page of the first piece is writable; its protection before that.
    open: Option<i32>,
    /// It was written.
    written: bool,
    /// Who waits.
    poke: Option<Arc<Poke>>,
    /// The tracee was about to run, and does after it; else it is stopped.
    runs: bool,
}

impl Poking {
    /// Puts a call site back to what it was, before the tracee runs on.
    pub(crate) fn of_site(site: Site) -> Box<Self> {
        let pieces = pieces(site.at, site.original().to_vec());
        Box::new(Self { pieces, open: None, written: false, poke: None, runs: true })
    }
}

/// Cuts at page borders.
fn pieces(mut address: u64, mut data: Vec<u8>) -> VecDeque<(u64, Vec<u8>)> {
    let mut out = VecDeque::new();
    while !data.is_empty() {
        let room = usize::try_from(PAGE - address % PAGE).unwrap_or(0).min(data.len());
        let rest = data.split_off(room);
        out.push_back((address, data));
        address = address.saturating_add(room as u64);
        data = rest;
    }
    out
}

/// What a write came to.
pub(crate) enum Written {
    /// It is done.
    Done,
    /// It is under way.
    Later(Arc<Poke>),
}

impl Task {
    /// The patched call sites in a range, as far as they still are.
    fn patched_in(&self, from: u64, to: u64) -> Vec<Site> {
        let mut sites = self.mm().sites.within(from, to);
        sites.retain(|s| {
            let mut now = [0; 5];
            self.read_exact(s.at, &mut now).is_ok() && now == s.jump
        });
        sites
    }

    /// The patched call site that begins at an address.
    pub(crate) fn patched_at(&self, address: u64) -> Option<Site> {
        self.patched_in(address, address.checked_add(1)?).into_iter().find(|s| s.at == address)
    }

    /// Copies from its memory, for its tracer.
    pub fn peek(&self, address: u64, to: &mut [u8]) -> Result<usize, Errno> {
        let n = self.read_memory(address, to)?;
        let end = address.saturating_add(n as u64);
        for site in self.patched_in(address, end) {
            for (i, byte) in site.original().into_iter().enumerate() {
                let at = (site.at + i as u64).checked_sub(address).and_then(|at| usize::try_from(at).ok());
                if let Some(to) = at.filter(|at| *at < n).and_then(|at| to.get_mut(at)) {
                    *to = byte;
                }
            }
        }
        Ok(n)
    }

    /// Copies to its memory, for its tracer: EIO where that cannot be.
    /// `queue` is woken when it is done later.
    pub(crate) fn poke(self: &Arc<Self>, address: u64, data: Vec<u8>, queue: &WaitQueue) -> Result<Written, Errno> {
        let end = address.checked_add(data.len() as u64).ok_or(Errno::EIO)?;
        let sites = self.patched_in(address, end);
        let from = sites.iter().map(|s| s.at).min().unwrap_or(address).min(address);
        let to = sites.iter().map(|s| s.at + SITE_LEN - 2).max().unwrap_or(end).max(end);
        let mut whole = vec![0; usize::try_from(to - from).map_err(|_| Errno::EIO)?];
        if sites.is_empty() {
            match self.write_memory(address, &data) {
                Ok(n) if n == data.len() => return Ok(Written::Done),
                _ => whole = data,
            }
        } else {
            if self.peek(from, &mut whole)? != whole.len() {
                return Err(Errno::EIO);
            }
            let at = usize::try_from(address - from).map_err(|_| Errno::EIO)?;
            whole.get_mut(at..at + data.len()).ok_or(Errno::EIO)?.copy_from_slice(&data);
        }
        let poke = Arc::new(Poke { result: Mutex::default(), queue: queue.clone() });
        let helper = self.poke_helper(&poke).ok_or(Errno::EIO)?;
        let mut poking = Box::new(Poking {
            pieces: pieces(from, whole),
            open: None,
            written: false,
            poke: Some(poke.clone()),
            runs: false,
        });
        match (helper.next_orders(&mut poking), helper.host()) {
            (Some(orders), Some(host)) => {
                host.answer(helper.order(orders, After::Poke(poking)));
                Ok(Written::Later(poke))
            }
            _ => {
                helper.trace.lock().poking = None;
                // Let go meanwhile, it was left for us to see to.
                helper.wake_released();
                Err(Errno::EIO)
            }
        }
    }

    /// A thread with this memory that is stopped and can help; it is taken.
    fn poke_helper(self: &Arc<Self>, poke: &Arc<Poke>) -> Option<Arc<Task>> {
        let mm = self.mm();
        let mut all = vec![self.clone()];
        all.extend(self.group().tasks().into_iter().filter(|t| !Arc::ptr_eq(t, self) && Arc::ptr_eq(&t.mm(), &mm)));
        all.into_iter().find(|task| {
            let mut t = task.trace.lock();
            let free = t.stop.is_some() && t.poking.is_none();
            if free {
                t.poking = Some(poke.clone());
            }
            free
        })
    }

    /// Orders that make the page of the next piece writable; `None` if it cannot be.
    fn next_orders(&self, poking: &mut Poking) -> Option<Vec<Order>> {
        let (address, _) = poking.pieces.front()?;
        let page = page_down(*address);
        let (mut orders, prot) = self.mm().forced(self.tid(), *address)?;
        poking.open = Some(prot);
        orders.push(Order::Protect { address: page, len: PAGE, prot: prot | READ | WRITE });
        Some(orders)
    }

    /// Begins the next piece, or ends.
    pub(crate) fn poke_next(self: &Arc<Self>, mut poking: Box<Poking>, frame: &mut dyn Frame) -> Answer {
        if poking.pieces.is_empty() {
            return self.poked(*poking, Ok(()), frame);
        }
        match self.next_orders(&mut poking) {
            Some(orders) => self.order(orders, After::Poke(poking)),
            None => self.poked(*poking, Err(Errno::EIO), frame),
        }
    }

    /// The last orders were carried out.
    pub(crate) fn poke_ordered(
        self: &Arc<Self>,
        mut poking: Box<Poking>,
        result: i64,
        frame: &mut dyn Frame,
    ) -> Answer {
        let Some(prot) = poking.open.take() else { return self.poke_next(poking, frame) };
        let Some((address, data)) = poking.pieces.pop_front() else {
            return self.poked(*poking, Ok(()), frame);
        };
        if result < 0 {
            return self.poked(*poking, Err(Errno::EIO), frame);
        }
        poking.written = self.write_exact(address, &data).is_ok();
        if !poking.written {
            poking.pieces.clear();
        }
        self.order(vec![Order::Protect { address: page_down(address), len: PAGE, prot }], After::Poke(poking))
    }

    fn poked(self: &Arc<Self>, poking: Poking, result: Result<(), Errno>, frame: &mut dyn Frame) -> Answer {
        let result = if poking.written { result } else { Err(Errno::EIO) };
        let go = {
            let mut t = self.trace.lock();
            t.poking = None;
            t.go.take()
        };
        if let Some(poke) = &poking.poke {
            poke.done(result);
        }
        match go {
            Some(go) => self.carry_on(go, frame),
            None if poking.runs && result.is_ok() => self.to_user(frame, None),
            // It stays as it is: the step leads where it does.
            None if poking.runs => self.step_once(frame),
            None => Answer::Park,
        }
    }
}
