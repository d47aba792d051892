//! Unix sockets, `unix(7)`: streams, datagrams, sequenced packets; path and abstract names; descriptors and credentials.
//!
//! A socket owns what was sent to it. Its peer is held weakly, so that closing one end frees it whatever the other does.

mod file;
mod stream;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use crate::bpf::Program;
use crate::errno::Errno;
use crate::filesystems::anon::{AnonInode, Family};
use crate::ipc::garbage::{self, Reach};
use crate::ipc::scm::{Ancillary, Ucred};
use crate::sync::Mutex;
use crate::task::{Creds, Group};
use crate::time::{Clock, now};
use crate::uio::{Sink, Source};
use crate::vfs::file::{File, flags};
use crate::vfs::inode::{InodeRef, mode};
use crate::wait::{PollMask, WaitQueue};

pub use file::SocketFile;

/// Bytes that may wait in a socket (`net.core.wmem_default`).
const BUFFER: usize = 212_992;
/// Datagrams that may wait in a socket (`net.unix.max_dgram_qlen`).
const QUEUE_MAX: usize = 512;
/// Connections that may wait to be accepted (`net.core.somaxconn`).
const BACKLOG_MAX: usize = 4096;

/// Type of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `SOCK_STREAM`.
    Stream,
    /// `SOCK_DGRAM`.
    Datagram,
    /// `SOCK_SEQPACKET`.
    Packet,
}

/// Options that are kept and told, and what few of them do. The rest of a socket's options are its state.
#[derive(Clone, Debug)]
pub struct Options {
    /// Those that are on or off, by their number (`SO_KEEPALIVE` and its like): a bit each.
    pub switches: u128,
    /// `SO_LINGER`.
    pub linger: [i32; 2],
    /// `SO_PRIORITY`.
    pub priority: i32,
    /// `SO_MARK`.
    pub mark: i32,
    /// `SO_RCVLOWAT`: bytes that a blocking read of a stream waits for.
    pub low_water: i32,
    /// `SO_PEEK_OFF`: where the next peek begins; negative: at the start, always.
    pub peek_from: i32,
    /// Which times are told.
    pub times: Times,
}

/// `SO_TIMESTAMP` and its kin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// When a message was sent is told.
    pub on: bool,
    /// In nanoseconds (`SO_TIMESTAMPNS`).
    pub ns: bool,
    /// By the options of 64 bits (`_NEW`).
    pub new: bool,
    /// `SO_TIMESTAMPING`.
    pub flags: u32,
}

/// `SO_OOBINLINE`.
pub const OOBINLINE: i32 = 10;
/// `SO_KEEPALIVE`.
pub const KEEPALIVE: i32 = 9;
/// `SO_PASSCRED`.
pub const PASSCRED: i32 = 16;
/// `SO_PASSPIDFD`.
pub const PASSPIDFD: i32 = 76;
/// `SO_PASSRIGHTS`.
pub const PASSRIGHTS: i32 = 83;
/// `SO_INQ`.
pub const INQ: i32 = 84;

impl Default for Options {
    fn default() -> Self {
        let switches = 1 << PASSRIGHTS;
        Self { switches, linger: [0; 2], priority: 0, mark: 0, low_water: 1, peek_from: -1, times: Times::default() }
    }
}

impl Options {
    /// Whether one of those that are on or off is on.
    pub fn switch(&self, option: i32) -> bool {
        self.switches & (1 << option) != 0
    }

    /// Turns it on or off.
    pub fn set_switch(&mut self, option: i32, on: bool) {
        self.switches = if on { self.switches | (1 << option) } else { self.switches & !(1 << option) };
    }
}

/// A name: what follows `sun_family`. Abstract names begin with a NUL; path names are without their NUL.
pub type Name = Vec<u8>;

struct Message {
    id: u64,
    /// When it was sent, `CLOCK_REALTIME` nanoseconds, if the receiver asked for it.
    time: Option<i64>,
    data: Vec<u8>,
    /// Bytes of a stream that were read already.
    read: usize,
    from: Name,
    ancillary: Ancillary,
}

#[derive(Default)]
struct State {
    name: Name,
    /// Keeps a path name's inode alive for as long as the socket is bound to it.
    bound: Option<InodeRef>,
    peer: Option<Weak<Socket>>,
    /// It was connected once and the other side is gone.
    hung_up: bool,
    /// Supplementary groups: of who connects or listens with it, and of the other side (`SO_PEERGROUPS`).
    groups: Arc<[u32]>,
    peer_groups: Option<Arc<[u32]>>,
    /// The same for the process (`SO_PEERPIDFD`).
    process: Option<Arc<Group>>,
    peer_process: Option<Arc<Group>>,
    /// The name of a peer that is gone.
    peer_name: Name,
    peer_creds: Ucred,
    creds: Ucred,
    messages: VecDeque<Message>,
    /// The message that is the urgent byte.
    urgent: Option<u64>,
    /// Which messages come in, and how much of them (`SO_ATTACH_FILTER`).
    filter: Option<Arc<Program>>,
    bytes: usize,
    /// Bytes of a stream as `FIONREAD` tells: Linux counts on what a read passed by at the mark.
    told: usize,
    no_more_input: bool,
    no_more_output: bool,
    backlog: Option<usize>,
    pending: VecDeque<Arc<Socket>>,
    send_buffer: usize,
    receive_buffer: usize,
    error: Option<Errno>,
    timeouts: [i64; 2],
    options: Options,
}

/// A socket.
pub struct Socket {
    /// Its type.
    pub kind: Kind,
    /// Unique.
    pub id: u64,
    /// Through which socket it is reached.
    pub reach: Reach,
    me: Weak<Socket>,
    /// Its open file, whose owner is told of urgent data.
    open: OnceLock<Weak<File>>,
    state: Mutex<State>,
    queue: WaitQueue,
}

/// Numbers of sockets and messages.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl State {
    fn tells_senders(&self) -> bool {
        self.options.switch(PASSCRED) || self.options.switch(PASSPIDFD)
    }
}

/// Abstract names; those of each type by themselves.
type Names = HashMap<(Kind, Name), Weak<Socket>>;

static ABSTRACT: Mutex<Option<Names>> = Mutex::new(None);

fn abstract_socket(kind: Kind, name: &[u8]) -> Option<Arc<Socket>> {
    ABSTRACT.lock().as_ref()?.get(&(kind, name.to_vec()))?.upgrade()
}

impl Socket {
    /// A new socket of a caller with these credentials.
    pub fn new(kind: Kind, creds: Ucred) -> Arc<Self> {
        let buffers = State { send_buffer: BUFFER, receive_buffer: BUFFER, ..State::default() };
        let state = State { creds, peer_creds: Ucred::NOBODY, ..buffers };
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Arc::new_cyclic(|me| Self {
            kind,
            id,
            reach: Arc::new(AtomicU64::new(id)),
            me: me.clone(),
            open: OnceLock::new(),
            state: Mutex::new(state),
            queue: WaitQueue::new(),
        })
    }

    /// Two sockets, connected, of a caller with these credentials and groups, and its process.
    pub fn pair(kind: Kind, creds: Ucred, groups: &[u32], process: Option<&Arc<Group>>) -> (Arc<Self>, Arc<Self>) {
        let (a, b) = (Self::new(kind, creds), Self::new(kind, creds));
        a.set_owner(groups, process);
        b.set_owner(groups, process);
        a.join(&b, creds);
        b.join(&a, creds);
        (a, b)
    }

    fn join(&self, peer: &Arc<Socket>, peer_creds: Ucred) {
        let (groups, process) = {
            let p = peer.state.lock();
            (p.groups.clone(), p.process.clone())
        };
        let mut s = self.state.lock();
        s.peer_groups = Some(groups);
        s.peer_process = process;
        s.peer = Some(Arc::downgrade(peer));
        s.peer_creds = peer_creds;
    }

    /// An open file for it.
    pub fn file(self: &Arc<Self>, creds: &Creds, nonblocking: bool) -> Arc<File> {
        let inode = AnonInode::make(Family::Socket.dev(), mode::SOCKET | 0o777, creds.fsuid, creds.fsgid, None);
        let name = format!("socket:[{}]", inode.attr().map(|a| a.ino).unwrap_or(0));
        let f = flags::RDWR | if nonblocking { flags::NONBLOCK } else { 0 };
        let file = File::new(Family::Socket.place(inode, name.as_bytes()), Box::new(SocketFile(self.clone())), f);
        self.open.get_or_init(|| Arc::downgrade(&file));
        file
    }

    /// Its open file.
    pub fn open_file(&self) -> Option<Arc<File>> {
        self.open.get().and_then(Weak::upgrade)
    }

    /// The queue that is woken when something changes.
    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    /// Its own name.
    pub fn name(&self) -> Name {
        self.state.lock().name.clone()
    }

    /// The other side; ENOTCONN.
    pub fn peer(&self) -> Result<Arc<Socket>, Errno> {
        let s = self.state.lock();
        s.peer.as_ref().and_then(Weak::upgrade).ok_or(Errno::ENOTCONN)
    }

    /// The name of the other side, also of one that is gone; ENOTCONN if there never was one.
    pub fn peer_name(&self) -> Result<Name, Errno> {
        let (had, name) = {
            let s = self.state.lock();
            (s.hung_up || s.peer.is_some(), s.peer_name.clone())
        };
        match self.peer() {
            Ok(peer) => Ok(peer.name()),
            Err(_) if had => Ok(name),
            Err(e) => Err(e),
        }
    }

    /// Its options, to be read or changed.
    pub fn options<R>(&self, f: impl FnOnce(&mut Options) -> R) -> R {
        f(&mut self.state.lock().options)
    }

    /// Credentials of the other side at the time of connecting.
    pub fn peer_creds(&self) -> Ucred {
        self.state.lock().peer_creds
    }

    /// Notes the groups and the process of who is about to connect or to listen.
    pub fn set_owner(&self, groups: &[u32], process: Option<&Arc<Group>>) {
        let mut s = self.state.lock();
        s.groups = groups.into();
        s.process = process.cloned();
    }

    /// The process of the other side at the time of connecting; ENODATA if there is none.
    pub fn peer_process(&self) -> Result<Arc<Group>, Errno> {
        self.state.lock().peer_process.clone().ok_or(Errno::ENODATA)
    }

    /// Groups of the other side at the time of connecting; ENODATA if there is none.
    pub fn peer_groups(&self) -> Result<Arc<[u32]>, Errno> {
        self.state.lock().peer_groups.clone().ok_or(Errno::ENODATA)
    }

    /// Whether messages tell who sent them (`SO_PASSCRED`, `SO_PASSPIDFD`).
    pub fn tells_senders(&self) -> bool {
        self.state.lock().tells_senders()
    }

    /// Sizes of the buffers: send, receive.
    pub fn buffers(&self) -> (usize, usize) {
        let s = self.state.lock();
        (s.send_buffer, s.receive_buffer)
    }

    /// Sets a size as `SO_SNDBUF` and `SO_RCVBUF` do (doubled, within bounds).
    pub fn set_buffer(&self, send: bool, size: usize) {
        let least = if send { 4608 } else { 2304 };
        let size = size.min(BUFFER).saturating_mul(2).max(least);
        let mut s = self.state.lock();
        *(if send { &mut s.send_buffer } else { &mut s.receive_buffer }) = size;
    }

    /// Timeouts for receiving and sending, nanoseconds, 0 for none.
    pub fn timeouts(&self) -> [i64; 2] {
        self.state.lock().timeouts
    }

    /// Sets one of them.
    pub fn set_timeout(&self, send: bool, ns: i64) {
        let mut s = self.state.lock();
        let [receive, sending] = &mut s.timeouts;
        *(if send { sending } else { receive }) = ns;
    }

    /// The filter of what comes in.
    pub fn filter(&self) -> Option<Arc<Program>> {
        self.state.lock().filter.clone()
    }

    /// Sets it; the one before.
    pub fn set_filter(&self, filter: Option<Arc<Program>>) -> Option<Arc<Program>> {
        std::mem::replace(&mut self.state.lock().filter, filter)
    }

    /// Takes a pending error (`SO_ERROR`).
    pub fn take_error(&self) -> Option<Errno> {
        self.state.lock().error.take()
    }

    /// Whether it listens.
    pub fn listens(&self) -> bool {
        self.state.lock().backlog.is_some()
    }

    /// Binds to an abstract name; EADDRINUSE. An empty name picks one (autobind).
    pub fn bind_abstract(&self, name: &[u8]) -> Result<(), Errno> {
        let mut table = ABSTRACT.lock();
        let table = table.get_or_insert_default();
        table.retain(|_, w| w.strong_count() > 0);
        let mut s = self.state.lock();
        if !s.name.is_empty() {
            return Err(Errno::EINVAL);
        }
        let name = if name.is_empty() {
            (0..0x10_0000u32)
                .map(|n| format!("\0{n:05x}").into_bytes())
                .find(|n| !table.contains_key(&(self.kind, n.clone())))
                .ok_or(Errno::ENOSPC)?
        } else {
            name.to_vec()
        };
        if table.contains_key(&(self.kind, name.clone())) {
            return Err(Errno::EADDRINUSE);
        }
        table.insert((self.kind, name.clone()), self.me.clone());
        s.name = name;
        Ok(())
    }

    /// Binds to an inode that was just made at a path.
    pub fn bind_inode(&self, name: &[u8], inode: InodeRef) -> Result<(), Errno> {
        let me: Arc<dyn Any + Send + Sync> = self.me.upgrade().ok_or(Errno::EINVAL)?;
        *inode.meeting().socket.lock() = Some(Arc::downgrade(&me));
        let mut s = self.state.lock();
        s.name = name.to_vec();
        s.bound = Some(inode);
        Ok(())
    }

    /// Whether it has a name.
    pub fn is_bound(&self) -> bool {
        !self.state.lock().name.is_empty()
    }

    /// The socket of that type with an abstract name; ECONNREFUSED.
    pub fn find_abstract(kind: Kind, name: &[u8]) -> Result<Arc<Socket>, Errno> {
        abstract_socket(kind, name).ok_or(Errno::ECONNREFUSED)
    }

    /// The socket bound to an inode; ECONNREFUSED.
    pub fn find_inode(inode: &InodeRef) -> Result<Arc<Socket>, Errno> {
        let found = inode.meeting().socket.lock().as_ref().and_then(Weak::upgrade);
        found.and_then(|s| s.downcast::<Socket>().ok()).ok_or(Errno::ECONNREFUSED)
    }

    /// `listen(2)` by a caller with these credentials, which are shown to who connects.
    pub fn listen(&self, backlog: i32, creds: Ucred) -> Result<(), Errno> {
        if self.kind == Kind::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut s = self.state.lock();
        if s.name.is_empty() || s.peer.is_some() {
            return Err(Errno::EINVAL);
        }
        (s.creds, s.peer_creds) = (creds, creds);
        s.peer_groups = Some(s.groups.clone());
        s.peer_process = s.process.clone();
        s.backlog = Some(usize::try_from(backlog).unwrap_or(BACKLOG_MAX).min(BACKLOG_MAX));
        Ok(())
    }

    /// `connect(2)`; EAGAIN while the listener's queue is full.
    pub fn connect(self: &Arc<Self>, to: &Arc<Socket>, creds: Ucred) -> Result<(), Errno> {
        if to.kind != self.kind {
            return Err(Errno::EPROTOTYPE);
        }
        if self.kind == Kind::Datagram {
            if !to.takes_from(self) {
                return Err(Errno::EPERM);
            }
            let name = to.name();
            let mut s = self.state.lock();
            (s.peer, s.peer_name) = (Some(Arc::downgrade(to)), name);
            return Ok(());
        }
        {
            let s = self.state.lock();
            if s.backlog.is_some() {
                return Err(Errno::EINVAL);
            }
            if s.peer.is_some() {
                return Err(Errno::EISCONN);
            }
        }
        let served = Socket::new(self.kind, Ucred::default());
        served.reach.store(to.id, Ordering::Relaxed);
        let listener_creds = {
            let mut l = to.state.lock();
            let backlog = l.backlog.ok_or(Errno::ECONNREFUSED)?;
            if l.no_more_input {
                return Err(Errno::ECONNREFUSED);
            }
            if l.pending.len() > backlog {
                return Err(Errno::EAGAIN);
            }
            {
                let mut s = served.state.lock();
                (s.name, s.creds) = (l.name.clone(), l.creds);
                for option in [PASSCRED, PASSPIDFD, PASSRIGHTS] {
                    s.options.set_switch(option, l.options.switch(option));
                }
                (s.groups, s.process) = (l.groups.clone(), l.process.clone());
            }
            served.join(self, creds);
            l.pending.push_back(served.clone());
            l.creds
        };
        self.join(&served, listener_creds);
        to.queue.wake(PollMask::IN | PollMask::RDNORM);
        Ok(())
    }

    /// A datagram socket with a peer takes from nobody else.
    fn takes_from(&self, from: &Socket) -> bool {
        let peer = self.state.lock().peer.as_ref().and_then(Weak::upgrade);
        self.kind != Kind::Datagram || peer.is_none_or(|p| std::ptr::eq(Arc::as_ptr(&p), from))
    }

    /// Forgets the peer of a datagram socket.
    pub fn disconnect(&self) {
        self.state.lock().peer = None;
    }

    /// `accept(2)`; EAGAIN if nobody waits.
    pub fn accept(&self) -> Result<Arc<Socket>, Errno> {
        let mut l = self.state.lock();
        if l.backlog.is_none() {
            return Err(Errno::EINVAL);
        }
        let Some(s) = l.pending.pop_front() else {
            return Err(if l.no_more_input { Errno::EINVAL } else { Errno::EAGAIN });
        };
        drop(l);
        garbage::accepted(&s);
        self.queue.wake(PollMask::OUT | PollMask::WRNORM);
        Ok(s)
    }

    /// Where a send with no address goes; EPIPE, ENOTCONN, ECONNREFUSED or ECONNRESET if nowhere.
    pub fn target(&self) -> Result<Arc<Socket>, Errno> {
        let mut s = self.state.lock();
        // A stream finds out about its end before what went wrong, the others after.
        if s.no_more_output && self.kind == Kind::Stream {
            return Err(Errno::EPIPE);
        }
        if let Some(e) = s.error.take() {
            return Err(e);
        }
        if s.no_more_output {
            return Err(Errno::EPIPE);
        }
        match &s.peer {
            None if s.hung_up => Err(Errno::EPIPE),
            None => Err(Errno::ENOTCONN),
            Some(p) => match p.upgrade() {
                Some(p) => Ok(p),
                None if self.kind == Kind::Datagram => Err(Errno::ECONNREFUSED),
                None => Err(Errno::EPIPE),
            },
        }
    }

    /// Sends to a socket: bytes taken. `urgent`: as the urgent byte of a stream. EAGAIN if it is full; wait on the receiver's queue for `OUT`.
    pub fn send(
        &self,
        to: &Arc<Socket>,
        from: &mut Source<'_>,
        ancillary: &Ancillary,
        urgent: bool,
    ) -> Result<usize, Errno> {
        if !to.takes_from(self) {
            return Err(Errno::EPERM);
        }
        let (name, limit, creds, asks) = {
            let s = self.state.lock();
            if s.no_more_output {
                return Err(Errno::EPIPE);
            }
            (s.name.clone(), s.send_buffer, ancillary.creds, s.tells_senders())
        };
        let want = from.left();
        let room = {
            let r = to.state.lock();
            if r.no_more_input || r.hung_up && self.kind != Kind::Datagram {
                return Err(Errno::EPIPE);
            }
            if !ancillary.files.is_empty() && !r.options.switch(PASSRIGHTS) {
                return Err(Errno::EPERM);
            }
            let full = self.kind != Kind::Stream && r.messages.len() >= QUEUE_MAX;
            if full { 0 } else { limit.min(BUFFER * 2).saturating_sub(r.bytes) }
        };
        if self.kind != Kind::Stream && want > limit.saturating_sub(32) {
            return Err(Errno::EMSGSIZE);
        }
        // A message goes in whole where there is any room.
        let take = if self.kind == Kind::Stream { want.min(room) } else { want };
        if room == 0 && (want > 0 || self.kind != Kind::Stream) {
            return Err(Errno::EAGAIN);
        }
        if take == 0 && self.kind == Kind::Stream {
            return Ok(0);
        }
        let mut data = from.take_vec(take)?;
        let n = data.len();
        if self.kind != Kind::Stream
            && let Some(filter) = to.filter()
        {
            // What is not let through is gone without a word; what is, with a byte at least.
            match filter.run_packet(&data) as usize {
                0 => return Ok(n),
                most => data.truncate(most),
            }
        }
        let kept = data.len();
        let mut r = to.state.lock();
        if r.no_more_input {
            return Err(Errno::EPIPE);
        }
        r.bytes += kept;
        r.told += kept;
        let mut ancillary = Ancillary { creds, ..ancillary.clone() };
        if creds.is_none() && (asks || r.tells_senders()) {
            ancillary.creds = Some(ancillary.sender);
        }
        if ancillary.creds.is_none() {
            ancillary.process = None;
        }
        if let Some(flight) = &ancillary.flight {
            flight.board(to);
        }
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let time = r.options.times.on.then(|| now(Clock::Realtime));
        r.messages.push_back(Message { id, time, data, read: 0, from: name, ancillary });
        let mut events = PollMask::IN | PollMask::RDNORM;
        if urgent {
            r.urgent = Some(id);
            events |= PollMask::PRI | PollMask::RDBAND;
        }
        drop(r);
        to.queue.wake(events);
        Ok(n)
    }

    /// Receives the urgent byte of a stream.
    pub fn receive_urgent(&self, to: &mut Sink<'_>, peek: bool) -> Result<Received, Errno> {
        let mut dropped = Vec::new();
        let mut s = self.state.lock();
        if s.peer.is_none() && !s.hung_up {
            return Err(Errno::EINVAL);
        }
        let got = s.read_urgent(to, peek, &mut dropped);
        drop(s);
        got
    }

    /// Bytes of a stream that can be read.
    pub fn readable(&self) -> usize {
        self.state.lock().told
    }

    /// Receives: bytes put, the whole length of the message, who sent it and what came along. `already`: this call has received
    /// before.
    pub fn receive(&self, to: &mut Sink<'_>, peek: bool, already: bool) -> Result<Received, Errno> {
        // Dropped with no lock held.
        let mut dropped = Vec::new();
        let mut s = self.state.lock();
        if self.kind != Kind::Datagram && s.peer.is_none() && !s.hung_up {
            return Err(if self.kind == Kind::Stream { Errno::EINVAL } else { Errno::ENOTCONN });
        }
        // Where a peek begins (`SO_PEEK_OFF`).
        let skip = if peek { usize::try_from(s.options.peek_from).unwrap_or(0) } else { 0 };
        let stream = match self.kind {
            Kind::Stream => s.read_stream(to, peek, already, skip, &mut dropped)?,
            _ => None,
        };
        if stream.is_none() && (self.kind == Kind::Stream || s.messages.is_empty()) {
            if let Some(e) = s.error.take() {
                return Err(e);
            }
            // A peek may begin behind all there is.
            if (s.hung_up || s.no_more_input) && (s.messages.is_empty() || skip == 0) {
                return Ok(Received { ended: true, ..Received::default() });
            }
            return Err(Errno::EAGAIN);
        }
        let mut got = Received::default();
        if let Some(stream) = stream {
            got = stream;
        } else {
            // A message that cannot be copied out is lost, as on Linux.
            let mut taken = if peek { None } else { s.messages.pop_front() };
            if let Some(m) = &mut taken {
                s.bytes -= m.data.len().min(s.bytes);
                m.ancillary.flight = None;
            }
            if let Some(m) = taken.as_ref().or(s.messages.front()) {
                let put = to.put(m.data.get(skip.min(m.data.len())..).unwrap_or_default());
                got.length = m.data.len() - skip.min(m.data.len());
                got.from.clone_from(&m.from);
                let files = garbage::copy(&m.ancillary.files);
                got.ancillary = Ancillary { files, flight: None, process: m.ancillary.process.clone(), ..m.ancillary };
                got.time = m.time;
                drop(s);
                // Descriptors are closed with no lock held.
                drop(taken);
                got.count = put?;
                s = self.state.lock();
            }
        }
        // Peeks go on where the last one ended; what is taken away brings their place nearer.
        let at = s.options.peek_from;
        if at >= 0 {
            let moved = i32::try_from(if self.kind == Kind::Stream || peek { got.count } else { got.length })
                .unwrap_or(i32::MAX);
            s.options.peek_from = if peek { at.saturating_add(moved) } else { at.saturating_sub(moved).max(0) };
        }
        let peer = s.peer.as_ref().and_then(Weak::upgrade);
        drop(s);
        drop(dropped);
        if !peek {
            self.queue.wake(PollMask::OUT | PollMask::WRNORM);
            if let Some(p) = peer {
                p.queue.wake(PollMask::OUT | PollMask::WRNORM);
            }
        }
        Ok(got)
    }

    /// `shutdown(2)`.
    pub fn shutdown(&self, read: bool, write: bool) -> Result<(), Errno> {
        let peer = {
            let mut s = self.state.lock();
            s.no_more_input |= read;
            s.no_more_output |= write;
            s.peer.as_ref().and_then(Weak::upgrade)
        };
        if let (Some(p), true) = (&peer, self.kind != Kind::Datagram) {
            let mut s = p.state.lock();
            s.no_more_input |= write;
            s.no_more_output |= read;
            drop(s);
            p.queue.wake(PollMask::empty());
        }
        self.queue.wake(PollMask::empty());
        Ok(())
    }

    fn close(&self) {
        let name = self.name();
        if name.first() == Some(&0)
            && let Some(t) = &mut *ABSTRACT.lock()
            && t.get(&(self.kind, name.clone())).is_some_and(|w| Weak::ptr_eq(w, &self.me))
        {
            t.remove(&(self.kind, name.clone()));
        }
        let (peer, unread, pending, messages) = {
            let mut s = self.state.lock();
            s.no_more_input = true;
            s.no_more_output = true;
            s.bound = None;
            s.urgent = None;
            let messages = std::mem::take(&mut s.messages);
            let pending = std::mem::take(&mut s.pending);
            s.backlog = None;
            (s.peer.take().and_then(|p| p.upgrade()), !messages.is_empty(), pending, messages)
        };
        if let Some(p) = peer
            && self.kind != Kind::Datagram
        {
            let mut s = p.state.lock();
            s.hung_up = true;
            s.peer = None;
            s.no_more_input = true;
            s.no_more_output = true;
            s.peer_name = name;
            if unread {
                s.error = Some(Errno::ECONNRESET);
            }
            drop(s);
            p.queue.wake(PollMask::empty());
        }
        for s in pending {
            s.close();
        }
        self.queue.wake(PollMask::empty());
        bury(messages);
        garbage::collect();
    }

    /// Takes out all that waits in it and in those that wait to be accepted by it: nobody can receive it any more.
    pub(super) fn empty(&self) {
        let (messages, pending) = {
            let mut s = self.state.lock();
            s.bytes = 0;
            (std::mem::take(&mut s.messages), s.pending.iter().cloned().collect::<Vec<_>>())
        };
        for s in pending {
            s.empty();
        }
        bury(messages);
    }

    fn events(&self) -> PollMask {
        let s = self.state.lock();
        let mut m = PollMask::empty();
        if s.backlog.is_some() {
            if !s.pending.is_empty() {
                m |= PollMask::IN | PollMask::RDNORM;
            }
            return m;
        }
        if !s.messages.is_empty() || s.hung_up || s.no_more_input {
            m |= PollMask::IN | PollMask::RDNORM;
        }
        if s.urgent.is_some() {
            m |= PollMask::PRI;
        }
        if s.hung_up || s.no_more_input {
            m |= PollMask::RDHUP;
        }
        if s.hung_up || (s.no_more_input && s.no_more_output) {
            m |= PollMask::HUP;
        }
        if self.kind != Kind::Datagram && s.peer.is_none() && !s.hung_up {
            return m | PollMask::OUT | PollMask::WRNORM | PollMask::HUP;
        }
        if s.error.is_some() {
            m |= PollMask::ERR;
        }
        let (peer, limit) = (s.peer.as_ref().and_then(Weak::upgrade), s.send_buffer);
        drop(s);
        let room = match peer {
            Some(p) if !std::ptr::eq(Arc::as_ptr(&p), self) => {
                let r = p.state.lock();
                r.bytes * 4 <= limit * 3 && (self.kind == Kind::Stream || r.messages.len() < QUEUE_MAX)
            }
            _ => true,
        };
        if room {
            m |= PollMask::OUT | PollMask::WRNORM;
        }
        m
    }
}

thread_local! {
    /// Messages that this thread drops, as long as it does.
    static DROPPED: RefCell<Option<Vec<VecDeque<Message>>>> = const { RefCell::new(None) };
}

/// Drops messages that nobody received, with no lock held. Their descriptors may be the last of sockets that hold messages with
/// descriptors of sockets, and so on: a chain as long as the container likes, which is dropped link by link and not one in the other.
fn bury(messages: VecDeque<Message>) {
    let first = DROPPED.with_borrow_mut(|d| {
        let first = d.is_none();
        d.get_or_insert_default().push(messages);
        first
    });
    if !first {
        return;
    }
    while let Some(next) = DROPPED.with_borrow_mut(|d| d.as_mut().and_then(Vec::pop)) {
        drop(next);
    }
    DROPPED.with_borrow_mut(|d| *d = None);
}

/// What was received.
#[derive(Default)]
pub struct Received {
    /// Bytes put.
    pub count: usize,
    /// Bytes of the whole message.
    pub length: usize,
    /// Who sent it.
    pub from: Name,
    /// What came along.
    pub ancillary: Ancillary,
    /// Nothing came and nothing will.
    pub ended: bool,
    /// It ends at the mark of urgent data, whatever else there is.
    pub stopped: bool,
    /// It is urgent data.
    pub urgent: bool,
    /// When it was sent.
    pub time: Option<i64>,
}

impl Received {
    /// A datagram socket that does not wait knows no end.
    pub fn unless_ended(self, socket: &Socket, nonblocking: bool) -> Result<Self, Errno> {
        if self.ended && nonblocking && socket.kind == Kind::Datagram { Err(Errno::EAGAIN) } else { Ok(self) }
    }
}
