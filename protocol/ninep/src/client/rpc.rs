//! Who sends, who receives, and who gets which answer.
//!
//! Leader and followers: a caller sends its request, and if nobody is receiving it receives (the leader) until its own
//! answer comes; answers of others are put in their slot and their thread is woken. On leaving, the leader wakes one
//! follower to lead. With a reader thread ([`Rpc::read_for_ever`]) that thread leads always.

use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use cofferdam_shm::Window;
use cofferdam_transport::{Channel, TransportError};

use super::submit::Callback;
use crate::codec::{DecodeError, HEADER, Reader, Reply, Request};
use crate::errno::Errno;

/// Most requests in flight.
const MAX_TAGS: usize = 8192;
/// Most of them whose answers nobody may come for yet: these lie in the socket, and the server must never block on it.
const MAX_POSTED: usize = 64;
/// Dropped fids that are worth a message.
const BATCH: usize = 48;

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("{0}")]
    Transport(#[from] TransportError),
    #[error("protocol broken by the server: {0}")]
    Decode(#[from] DecodeError),
    #[error("protocol broken by the server: an answer with tag {0}, which nobody waits for")]
    Tag(u16),
}

/// What a posted request needs until the server is done with it.
pub(super) type Keep = Arc<dyn std::any::Any + Send + Sync>;

/// What a tag is used for.
pub(super) enum Slot {
    Free,
    /// A thread waits for the answer on the tag's condition variable, or will come for it.
    Waiting,
    /// Nobody will come for the answer; what must stay until it is there.
    Abandoned(Keep),
    /// The answer is there for that thread.
    Answered(Vec<u8>),
    /// The reader calls back. With a flush of it under way the tag stays taken until that is answered.
    Callback {
        callback: Option<Callback>,
        flushing: bool,
    },
    /// A flush of another tag.
    Flush(u16),
    /// Fids given back; their numbers are free when the answer comes.
    Clunking(Vec<u32>),
}

struct TagState {
    slot: Slot,
    /// Tells one use of the tag from the next.
    generation: u64,
    /// The waiting thread sleeps on it.
    wake: Arc<Condvar>,
    asleep: bool,
}

pub(super) struct State {
    tags: Vec<TagState>,
    free_tags: Vec<u16>,
    pub leading: bool,
    dead: bool,
    dropped: Vec<u32>,
    free_fids: Vec<u32>,
    next_fid: u32,
    clunks_in_flight: usize,
    /// Dropped fids are waited for at the other end: they go when the clunks in flight are answered.
    clunk_at_once: bool,
    /// Posted requests whose answers were not fetched yet.
    posted: usize,
}

pub(super) struct Rpc {
    channel: Channel,
    state: Mutex<State>,
    pub msize: u32,
    pub extended: bool,
    pub window: Option<Arc<Window>>,
    /// Called before a thread waits for an answer.
    pub before_wait: OnceLock<fn()>,
}

impl std::fmt::Debug for Rpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rpc").field("msize", &self.msize).field("extended", &self.extended).finish_non_exhaustive()
    }
}

thread_local! {
    /// A thread's request and answer, kept from call to call.
    static SCRATCH: RefCell<(Vec<u8>, Vec<u8>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

impl State {
    fn take_tag(&mut self, slot: Slot) -> Result<u16, Errno> {
        if self.dead {
            return Err(Errno::IO);
        }
        let tag = match self.free_tags.pop() {
            Some(tag) => tag,
            None if self.tags.len() >= MAX_TAGS => return Err(Errno::AGAIN),
            None => {
                let tag = u16::try_from(self.tags.len()).map_err(|_| Errno::AGAIN)?;
                let wake = Arc::new(Condvar::new());
                self.tags.push(TagState { slot: Slot::Free, generation: 0, wake, asleep: false });
                tag
            }
        };
        if let Some(t) = self.tags.get_mut(usize::from(tag)) {
            t.slot = slot;
            t.generation = t.generation.wrapping_add(1);
        }
        Ok(tag)
    }

    fn free_tag(&mut self, tag: u16) {
        if let Some(t) = self.tags.get_mut(usize::from(tag)) {
            t.slot = Slot::Free;
            self.free_tags.push(tag);
        }
    }

    /// The answer of a posted request was fetched, or never will be.
    fn fetched(&mut self) {
        self.posted = self.posted.saturating_sub(1);
    }

    fn tag(&mut self, tag: u16) -> Option<&mut TagState> {
        self.tags.get_mut(usize::from(tag))
    }

    /// Someone who sleeps takes over the receiving.
    fn wake_a_leader(&mut self) {
        if let Some(t) = self.tags.iter_mut().find(|t| t.asleep && matches!(t.slot, Slot::Waiting)) {
            t.asleep = false;
            t.wake.notify_one();
        }
    }
}

impl Rpc {
    pub fn new(channel: Channel, msize: u32, extended: bool, window: Option<Arc<Window>>) -> Self {
        let state = State {
            tags: Vec::new(),
            free_tags: Vec::new(),
            leading: false,
            dead: false,
            dropped: Vec::new(),
            free_fids: Vec::new(),
            next_fid: 0,
            clunks_in_flight: 0,
            clunk_at_once: false,
            posted: 0,
        };
        Self { channel, state: Mutex::new(state), msize, extended, window, before_wait: OnceLock::new() }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks and waits; `read` makes something of the answer, or says that it is not the right one.
    pub fn call<T>(&self, request: &Request<'_>, read: impl FnOnce(Reply<'_>) -> Option<T>) -> Result<T, Errno> {
        self.give_back(BATCH);
        // Taken, not borrowed: a callback or a drop inside may call again.
        let (mut out, mut packet) = SCRATCH.take();
        if let Some(before) = self.before_wait.get() {
            before();
        }
        let result = self
            .ask(request, &mut out)
            .and_then(|tag| self.fetch(tag, &mut packet))
            .and_then(|()| self.answered(request.code(), &packet, read));
        SCRATCH.set((out, packet));
        result
    }

    /// Asks; the answer is fetched later, by [`fetch_posted`](Self::fetch_posted). EAGAIN if there are too many such.
    pub fn post(&self, request: &Request<'_>) -> Result<u16, Errno> {
        {
            let mut state = self.lock();
            if state.posted >= MAX_POSTED {
                return Err(Errno::AGAIN);
            }
            state.posted += 1;
        }
        let (mut out, packet) = SCRATCH.take();
        let tag = self.ask(request, &mut out);
        SCRATCH.set((out, packet));
        if tag.is_err() {
            self.lock().fetched();
        }
        tag
    }

    /// Waits for the answer of a posted request, which was of type `code`.
    pub fn fetch_posted<T>(&self, tag: u16, code: u8, read: impl FnOnce(Reply<'_>) -> Option<T>) -> Result<T, Errno> {
        let here = self.lock().tag(tag).is_some_and(|t| matches!(t.slot, Slot::Answered(_)));
        if let Some(before) = self.before_wait.get().filter(|_| !here) {
            before();
        }
        let (out, mut packet) = SCRATCH.take();
        let result = self.fetch(tag, &mut packet).and_then(|()| self.answered(code, &packet, read));
        SCRATCH.set((out, packet));
        self.lock().fetched();
        result
    }

    /// Nobody comes for the answer of a posted request; `keep` stays until it is there.
    pub fn abandon(&self, tag: u16, keep: Keep) {
        let mut state = self.lock();
        let dead = state.dead;
        match state.tag(tag).map(|t| &mut t.slot) {
            Some(slot @ Slot::Waiting) if !dead => *slot = Slot::Abandoned(keep),
            _ => {
                state.free_tag(tag);
                state.fetched();
            }
        }
    }

    /// What a call makes of its answer.
    fn answered<T>(&self, code: u8, packet: &[u8], read: impl FnOnce(Reply<'_>) -> Option<T>) -> Result<T, Errno> {
        match Reply::decode(packet) {
            Ok((_, Reply::Lerror { errno })) => Err(Errno(if errno == 0 { Errno::IO.0 } else { errno })),
            Ok((_, reply)) => {
                let got = reply.code();
                read(reply).ok_or_else(|| {
                    self.break_off(&format!("protocol broken by the server: type {got} answers {code}"));
                    Errno::IO
                })
            }
            Err(e) => {
                self.break_off(&Fault::from(e).to_string());
                Err(Errno::IO)
            }
        }
    }

    /// Sends a request whose answer a thread will fetch.
    fn ask(&self, request: &Request<'_>, out: &mut Vec<u8>) -> Result<u16, Errno> {
        let tag = self.lock().take_tag(Slot::Waiting)?;
        request.encode(tag, out);
        if out.len() > self.msize as usize {
            self.lock().free_tag(tag);
            return Err(Errno::INVAL);
        }
        if let Err(e) = self.channel.send(out) {
            self.break_off(&e.to_string());
        }
        Ok(tag)
    }

    /// Waits for an answer.
    fn fetch(&self, tag: u16, packet: &mut Vec<u8>) -> Result<(), Errno> {
        let mut state = self.lock();
        loop {
            let Some(mine) = state.tag(tag) else { return Err(Errno::IO) };
            if matches!(mine.slot, Slot::Answered(_)) {
                if let Slot::Answered(answer) = std::mem::replace(&mut mine.slot, Slot::Free) {
                    *packet = answer;
                }
                state.free_tag(tag);
                return Ok(());
            }
            if state.dead {
                state.free_tag(tag);
                return Err(Errno::IO);
            }
            if state.leading {
                let Some(mine) = state.tag(tag) else { return Err(Errno::IO) };
                mine.asleep = true;
                let wake = mine.wake.clone();
                state = wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                if let Some(mine) = state.tag(tag) {
                    mine.asleep = false;
                }
                continue;
            }
            state.leading = true;
            drop(state);
            let ours = self.lead(packet, Some(tag));
            state = self.lock();
            state.leading = false;
            match ours {
                Ok(()) => {
                    state.free_tag(tag);
                    state.wake_a_leader();
                    return Ok(());
                }
                Err(why) => {
                    state.free_tag(tag);
                    drop(state);
                    self.break_off(&why.to_string());
                    return Err(Errno::IO);
                }
            }
        }
    }

    /// Receives and hands out answers until the one for `until` is in `packet`.
    fn lead(&self, packet: &mut Vec<u8>, until: Option<u16>) -> Result<(), Fault> {
        loop {
            self.channel.recv(packet, self.msize as usize)?;
            let (_, tag, _) = Reader::message(packet)?;
            if Some(tag) == until {
                return Ok(());
            }
            self.deliver(tag, packet)?;
        }
    }

    fn deliver(&self, tag: u16, packet: &mut Vec<u8>) -> Result<(), Fault> {
        let mut state = self.lock();
        let mine = state.tag(tag).ok_or(Fault::Tag(tag))?;
        match &mut mine.slot {
            Slot::Free | Slot::Answered(_) => return Err(Fault::Tag(tag)),
            slot @ Slot::Waiting => {
                *slot = Slot::Answered(std::mem::take(packet));
                mine.asleep = false;
                mine.wake.notify_one();
            }
            Slot::Callback { callback, flushing } => {
                let callback = callback.take();
                if !*flushing {
                    state.free_tag(tag);
                }
                drop(state);
                callback.ok_or(Fault::Tag(tag))?(Reply::decode(packet)?.1.into_result());
            }
            Slot::Flush(old) => {
                let old = *old;
                state.free_tag(tag);
                let cancelled = match state.tag(old).map(|t| &mut t.slot) {
                    Some(Slot::Callback { callback, .. }) => callback.take(),
                    _ => None,
                };
                state.free_tag(old);
                drop(state);
                if let Some(callback) = cancelled {
                    callback(Err(Errno::INTR));
                }
            }
            Slot::Abandoned(keep) => {
                let keep = keep.clone();
                state.free_tag(tag);
                state.fetched();
                drop(state);
                drop(keep);
            }
            Slot::Clunking(fids) => {
                let mut fids = std::mem::take(fids);
                state.clunks_in_flight = state.clunks_in_flight.saturating_sub(1);
                state.free_fids.append(&mut fids);
                state.free_tag(tag);
                // What was to be given back at once meanwhile and could not be.
                let at_once = std::mem::take(&mut state.clunk_at_once);
                drop(state);
                if at_once {
                    self.clunk_batch();
                }
            }
        }
        Ok(())
    }

    /// Takes the lead for the reader thread, once nobody has it: two that receive would take each other's answers.
    pub fn take_lead(&self) {
        while std::mem::replace(&mut self.lock().leading, true) {
            std::thread::yield_now();
        }
    }

    /// The reader thread's work, after [`Rpc::take_lead`]: leads until the connection ends.
    pub fn read_for_ever(&self) {
        let mut packet = Vec::with_capacity(HEADER);
        if let Err(why) = self.lead(&mut packet, None) {
            self.break_off(&why.to_string());
        }
    }

    /// Ends the connection once: wakes everybody with EIO.
    pub fn break_off(&self, why: &str) {
        let mut callbacks = Vec::new();
        {
            let mut state = self.lock();
            if state.dead {
                return;
            }
            state.dead = true;
            for t in &mut state.tags {
                if let Slot::Callback { callback, .. } = &mut t.slot {
                    callbacks.extend(callback.take());
                }
                t.wake.notify_all();
            }
        }
        tracing::error!(why, "connection to the file server ended");
        self.channel.shutdown();
        callbacks.into_iter().for_each(|callback| callback(Err(Errno::IO)));
    }

    /// Sends a request whose answer the leader handles by its slot. Gives tag and generation.
    pub fn send(&self, request: &Request<'_>, slot: Slot) -> Result<(u16, u64), Errno> {
        let (tag, generation) = {
            let mut state = self.lock();
            let tag = state.take_tag(slot)?;
            (tag, state.tag(tag).map_or(0, |t| t.generation))
        };
        let (mut out, packet) = SCRATCH.take();
        request.encode(tag, &mut out);
        let sent = self.channel.send(&out);
        SCRATCH.set((out, packet));
        if let Err(e) = sent {
            self.break_off(&e.to_string());
            return Err(Errno::IO);
        }
        Ok((tag, generation))
    }

    /// Marks a callback's tag as being flushed; false where its answer has come already, or a flush is under way.
    pub fn start_flush(&self, tag: u16, generation: u64) -> bool {
        let mut state = self.lock();
        match state.tag(tag) {
            Some(t) if t.generation == generation => match &mut t.slot {
                Slot::Callback { callback: Some(_), flushing } => !std::mem::replace(flushing, true),
                _ => false,
            },
            _ => false,
        }
    }

    /// A number for a new fid.
    pub fn new_fid(&self) -> u32 {
        let mut state = self.lock();
        state.free_fids.pop().unwrap_or_else(|| {
            // Below NOFID by the server's quota long before; a wrap would meet EBADF, not a wrong file.
            let fid = state.next_fid;
            state.next_fid = state.next_fid.wrapping_add(1);
            fid
        })
    }

    /// A number that the server does not know (any more).
    pub fn unused_fid(&self, fid: u32) {
        self.lock().free_fids.push(fid);
    }

    /// Notes that a fid is no longer wanted.
    pub fn drop_fid(&self, fid: u32) {
        let mut state = self.lock();
        if !state.dead {
            state.dropped.push(fid);
        }
    }

    /// Gives back every fid dropped so far, as soon as can be.
    pub fn clunk_batch(&self) {
        loop {
            self.give_back(1);
            let mut state = self.lock();
            if state.dropped.is_empty() || state.dead {
                return;
            }
            if state.clunks_in_flight > 0 {
                state.clunk_at_once = true;
                return;
            }
        }
    }

    /// Gives dropped fids back to the server without waiting for its answer, where there are `least` of them.
    pub fn give_back(&self, least: usize) {
        loop {
            let fids = {
                let mut state = self.lock();
                // Answers of clunks lie in the socket until somebody receives: few, so that the server never blocks on
                // them.
                let most = if self.extended { crate::codec::MAX_BATCH } else { 1 };
                let in_flight = if self.extended { 1 } else { 4 };
                if state.dead || state.dropped.len() < least.max(1) || state.clunks_in_flight >= in_flight {
                    return;
                }
                let room = (self.msize as usize / 4).saturating_sub(HEADER).min(most);
                let from = state.dropped.len().saturating_sub(room);
                let fids = state.dropped.split_off(from);
                state.clunks_in_flight += 1;
                fids
            };
            let request = match fids.as_slice() {
                [fid] if !self.extended => Request::Clunk { fid: *fid },
                _ => Request::ClunkBatch { fids: crate::codec::Fids(fids.clone()) },
            };
            if self.send(&request, Slot::Clunking(fids)).is_err() {
                return;
            }
        }
    }
}

impl Reply<'_> {
    /// What a callback gets: the data of a read, the count of a write as 4 bytes, nothing for the rest.
    fn into_result(self) -> Result<Vec<u8>, Errno> {
        match self {
            Reply::Lerror { errno } => Err(Errno(errno)),
            Reply::Read { data } => Ok(data.0.to_vec()),
            Reply::Write { count } => Ok(count.to_le_bytes().to_vec()),
            _ => Err(Errno::IO),
        }
    }
}
