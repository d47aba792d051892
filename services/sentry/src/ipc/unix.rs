//! Unix sockets, `unix(7)`: streams, datagrams, sequenced packets; path and abstract names; descriptors and credentials.
//!
//! A socket owns what was sent to it. Its peer is held weakly, so that closing one end frees it whatever the other does.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use crate::errno::Errno;
use crate::filesystems::anon::{AnonInode, Family};
use crate::sync::Mutex;
use crate::syscalls::{SysResult, UserPtr, done};
use crate::task::{Creds, Task};
use crate::uio::{Sink, Source};
use crate::vfs::file::{File, FileOps, Io, flags};
use crate::vfs::inode::{InodeRef, mode};
use crate::wait::{PollMask, WaitQueue};

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

/// `struct ucred`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Ucred {
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
}

impl Ucred {
    /// Of a calling task.
    pub fn of(task: &Arc<Task>) -> Self {
        let c = task.creds();
        Self { pid: task.pid(), uid: c.euid, gid: c.egid }
    }

    /// Of a peer that there is none of.
    pub const NOBODY: Self = Self { pid: 0, uid: u32::MAX, gid: u32::MAX };
}

/// Options that are kept and told, and what few of them do. The rest of a socket's options are its state.
#[derive(Clone, Debug)]
pub struct Options {
    /// Those that are on or off, by their number (`SO_KEEPALIVE` and its like): a bit each.
    pub switches: u64,
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
}

impl Default for Options {
    fn default() -> Self {
        Self { switches: 0, linger: [0; 2], priority: 0, mark: 0, low_water: 1, peek_from: -1 }
    }
}

/// A name: what follows `sun_family`. Abstract names begin with a NUL; path names are without their NUL.
pub type Name = Vec<u8>;

/// What goes with data.
#[derive(Clone, Default)]
pub struct Ancillary {
    /// Descriptors on their way.
    pub files: Vec<Arc<File>>,
    /// The sender's credentials, as it gave them.
    pub creds: Option<Ucred>,
    /// Who sends, told to who asks for credentials (`SO_PASSCRED`).
    pub sender: Ucred,
}

struct Message {
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
    /// The name of a peer that is gone.
    peer_name: Name,
    peer_creds: Ucred,
    creds: Ucred,
    messages: VecDeque<Message>,
    bytes: usize,
    no_more_input: bool,
    no_more_output: bool,
    backlog: Option<usize>,
    pending: VecDeque<Arc<Socket>>,
    pass_creds: bool,
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
    me: Weak<Socket>,
    state: Mutex<State>,
    queue: WaitQueue,
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
        Arc::new_cyclic(|me| Self { kind, me: me.clone(), state: Mutex::new(state), queue: WaitQueue::new() })
    }

    /// Two sockets, connected, of a caller with these credentials and groups.
    pub fn pair(kind: Kind, creds: Ucred, groups: &[u32]) -> (Arc<Self>, Arc<Self>) {
        let (a, b) = (Self::new(kind, creds), Self::new(kind, creds));
        a.set_groups(groups);
        b.set_groups(groups);
        a.join(&b, creds);
        b.join(&a, creds);
        (a, b)
    }

    fn join(&self, peer: &Arc<Socket>, peer_creds: Ucred) {
        let groups = peer.state.lock().groups.clone();
        let mut s = self.state.lock();
        s.peer_groups = Some(groups);
        s.peer = Some(Arc::downgrade(peer));
        s.peer_creds = peer_creds;
    }

    /// An open file for it.
    pub fn file(self: &Arc<Self>, creds: &Creds, nonblocking: bool) -> Arc<File> {
        let inode = AnonInode::make(Family::Socket.dev(), mode::SOCKET | 0o777, creds.fsuid, creds.fsgid, None);
        let name = format!("socket:[{}]", inode.attr().map(|a| a.ino).unwrap_or(0));
        let f = flags::RDWR | if nonblocking { flags::NONBLOCK } else { 0 };
        File::new(Family::Socket.place(inode, name.as_bytes()), Box::new(SocketFile(self.clone())), f)
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

    /// Notes the groups of who is about to connect or to listen.
    pub fn set_groups(&self, groups: &[u32]) {
        self.state.lock().groups = groups.into();
    }

    /// Groups of the other side at the time of connecting; ENODATA if there is none.
    pub fn peer_groups(&self) -> Result<Arc<[u32]>, Errno> {
        self.state.lock().peer_groups.clone().ok_or(Errno::ENODATA)
    }

    /// `SO_PASSCRED`.
    pub fn pass_creds(&self) -> bool {
        self.state.lock().pass_creds
    }

    /// Sets `SO_PASSCRED`.
    pub fn set_pass_creds(&self, on: bool) {
        self.state.lock().pass_creds = on;
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
        *inode.common().socket.lock() = Some(Arc::downgrade(&me));
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
        let found = inode.common().socket.lock().as_ref().and_then(Weak::upgrade);
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
                (s.name, s.creds, s.pass_creds) = (l.name.clone(), l.creds, l.pass_creds);
                s.groups = l.groups.clone();
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

    /// Sends to a socket: bytes taken. EAGAIN if it is full; wait on the receiver's queue for `OUT`.
    pub fn send(&self, to: &Arc<Socket>, from: &mut Source<'_>, ancillary: &Ancillary) -> Result<usize, Errno> {
        if !to.takes_from(self) {
            return Err(Errno::EPERM);
        }
        let (name, limit, mut creds, asks) = {
            let s = self.state.lock();
            if s.no_more_output {
                return Err(Errno::EPIPE);
            }
            (s.name.clone(), s.send_buffer, ancillary.creds, s.pass_creds)
        };
        let want = from.left();
        let room = {
            let r = to.state.lock();
            if r.no_more_input || r.hung_up && self.kind != Kind::Datagram {
                return Err(Errno::EPIPE);
            }
            if (r.pass_creds || asks) && creds.is_none() {
                creds = Some(ancillary.sender);
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
        let data = from.take_vec(take)?;
        let n = data.len();
        let mut r = to.state.lock();
        if r.no_more_input {
            return Err(Errno::EPIPE);
        }
        r.bytes += n;
        let ancillary = Ancillary { files: ancillary.files.clone(), creds, sender: ancillary.sender };
        r.messages.push_back(Message { data, read: 0, from: name, ancillary });
        drop(r);
        to.queue.wake(PollMask::IN | PollMask::RDNORM);
        Ok(n)
    }

    /// Receives: bytes put, the whole length of the message, who sent it and what came along.
    pub fn receive(&self, to: &mut Sink<'_>, peek: bool) -> Result<Received, Errno> {
        let mut s = self.state.lock();
        if self.kind != Kind::Datagram && s.peer.is_none() && !s.hung_up {
            return Err(if self.kind == Kind::Stream { Errno::EINVAL } else { Errno::ENOTCONN });
        }
        if s.messages.is_empty() {
            if let Some(e) = s.error.take() {
                return Err(e);
            }
            if s.hung_up || s.no_more_input {
                return Ok(Received { ended: true, ..Received::default() });
            }
            return Err(Errno::EAGAIN);
        }
        let mut got = Received::default();
        // Where a peek begins (`SO_PEEK_OFF`).
        let mut skip = if peek { usize::try_from(s.options.peek_from).unwrap_or(0) } else { 0 };
        if self.kind == Kind::Stream {
            let (mut used, mut freed, mut first) = (0, 0, true);
            let told = s.pass_creds;
            for m in &mut s.messages {
                // What others sent is not joined to what came before, if it matters who sent it.
                if !first && told && got.ancillary.creds != m.ancillary.creds {
                    break;
                }
                let rest = m.data.get(m.read..).unwrap_or_default();
                let past = skip.min(rest.len());
                skip -= past;
                let rest = rest.get(past..).unwrap_or_default();
                if rest.is_empty() && past > 0 {
                    continue;
                }
                let n = match to.put(rest) {
                    Ok(n) => n,
                    Err(e) if first => return Err(e),
                    Err(_) => break,
                };
                first = false;
                got.count += n;
                got.length += n;
                let files = if peek { m.ancillary.files.clone() } else { std::mem::take(&mut m.ancillary.files) };
                got.ancillary.creds = m.ancillary.creds;
                got.from.clone_from(&m.from);
                let whole = n == rest.len();
                if !peek {
                    m.read += n;
                    freed += n;
                }
                used += usize::from(whole);
                // Descriptors end what is received at once.
                let last = !files.is_empty();
                got.ancillary.files = files;
                if !whole || to.room() == 0 || last {
                    break;
                }
            }
            if first {
                // Nothing yet where the peek begins.
                return Err(Errno::EAGAIN);
            }
            if !peek {
                s.messages.drain(..used);
                s.bytes -= freed.min(s.bytes);
            }
        } else {
            // A message that cannot be copied out is lost, as on Linux.
            let taken = if peek { None } else { s.messages.pop_front() };
            if let Some(m) = &taken {
                s.bytes -= m.data.len().min(s.bytes);
            }
            if let Some(m) = taken.as_ref().or(s.messages.front()) {
                got.count = to.put(m.data.get(skip.min(m.data.len())..).unwrap_or_default())?;
                got.length = m.data.len() - skip.min(m.data.len());
                got.from.clone_from(&m.from);
                got.ancillary = m.ancillary.clone();
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
        // Descriptors that nobody received are closed with no lock held.
        drop(messages);
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
}

impl Received {
    /// A datagram socket that does not wait knows no end.
    pub fn unless_ended(self, socket: &Socket, nonblocking: bool) -> Result<Self, Errno> {
        if self.ended && nonblocking && socket.kind == Kind::Datagram { Err(Errno::EAGAIN) } else { Ok(self) }
    }
}

/// An open socket.
pub struct SocketFile(pub Arc<Socket>);

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl FileOps for SocketFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        false
    }

    fn read(&self, io: &Io<'_>, _at: u64, to: &mut Sink<'_>) -> Result<usize, Errno> {
        self.0.receive(to, false)?.unless_ended(&self.0, io.file.nonblocking()).map(|r| r.count)
    }

    fn write_timeout(&self) -> Option<i64> {
        let [_, sending] = self.0.timeouts();
        (sending > 0).then_some(sending)
    }

    fn read_timeout(&self) -> Option<i64> {
        let [receive, _] = self.0.timeouts();
        (receive > 0).then_some(receive)
    }

    fn read_timed_out(&self) -> Result<i64, Errno> {
        Err(Errno::EAGAIN)
    }

    fn write(&self, io: &Io<'_>, _at: u64, _append: bool, from: &mut Source<'_>) -> Result<(usize, u64), Errno> {
        let to = self.0.target()?;
        let with = Ancillary { sender: io.task.map(Ucred::of).unwrap_or_default(), ..Ancillary::default() };
        Ok((self.0.send(&to, from, &with)?, 0))
    }

    fn breaks_with_signal(&self) -> bool {
        self.0.kind == Kind::Stream
    }

    fn poll(&self, _file: &File) -> PollMask {
        self.0.events()
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.queue)
    }

    fn ioctl(&self, task: &Arc<Task>, _file: &Arc<File>, request: u32, argument: u64) -> SysResult {
        const SIOCOUTQ: u32 = 0x5411;
        const SIOCATMARK: u32 = 0x8905;
        let n = match request {
            super::FIONREAD => {
                let s = self.0.state.lock();
                if s.backlog.is_some() {
                    return Err(Errno::EINVAL);
                }
                if self.0.kind == Kind::Datagram { s.messages.front().map_or(0, |m| m.data.len()) } else { s.bytes }
            }
            // What the peer has not read yet.
            SIOCOUTQ => self.0.peer().map_or(0, |p| p.state.lock().bytes),
            // No urgent data.
            SIOCATMARK => return Err(Errno::EOPNOTSUPP),
            _ => return Err(Errno::ENOTTY),
        };
        UserPtr::<i32>::new(argument).write(task, &i32::try_from(n).unwrap_or(i32::MAX))?;
        done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(a: &Arc<Socket>, data: &[u8]) -> Result<usize, Errno> {
        a.send(&a.target()?, &mut Source::kernel(data), &Ancillary::default())
    }

    fn receive(a: &Socket, max: usize) -> Result<Vec<u8>, Errno> {
        let mut v = Vec::new();
        a.receive(&mut Sink::kernel(&mut v, max), false)?;
        Ok(v)
    }

    #[test]
    fn streams_join_and_packets_keep_their_bounds() {
        for (kind, expect) in [(Kind::Stream, &b"abcd"[..]), (Kind::Packet, b"ab"), (Kind::Datagram, b"ab")] {
            let (a, b) = Socket::pair(kind, Ucred::default(), &[]);
            assert_eq!(receive(&b, 9), Err(Errno::EAGAIN));
            send(&a, b"ab").unwrap();
            send(&a, b"cd").unwrap();
            assert_eq!(receive(&b, 9).unwrap(), expect);
        }
    }

    #[test]
    fn the_end_of_a_stream_is_seen_after_its_data() {
        let (a, b) = Socket::pair(Kind::Stream, Ucred::default(), &[]);
        send(&a, b"last").unwrap();
        a.shutdown(false, true).unwrap();
        assert_eq!(send(&a, b"x"), Err(Errno::EPIPE));
        assert_eq!(receive(&b, 2).unwrap(), b"la");
        assert_eq!(receive(&b, 9).unwrap(), b"st");
        assert_eq!(receive(&b, 9).unwrap(), b"");
        send(&b, b"back").unwrap();
        let f = a.file(&Creds::root(0), false);
        drop(f);
        assert_eq!(receive(&b, 9), Err(Errno::ECONNRESET), "it had unread data");
        assert_eq!(send(&b, b"x"), Err(Errno::EPIPE));
    }

    #[test]
    fn abstract_names_connect_and_go() {
        let me = Ucred { pid: 7, uid: 8, gid: 9 };
        let l = Socket::new(Kind::Stream, me);
        assert_eq!(l.listen(1, me), Err(Errno::EINVAL));
        l.bind_abstract(b"\0unit-test-name").unwrap();
        l.listen(0, me).unwrap();
        let c = Socket::new(Kind::Stream, Ucred::default());
        let found = Socket::find_abstract(Kind::Stream, b"\0unit-test-name").unwrap();
        c.connect(&found, Ucred { pid: 1, uid: 2, gid: 3 }).unwrap();
        let second = Socket::new(Kind::Stream, Ucred::default());
        assert_eq!(second.connect(&found, Ucred::default()), Err(Errno::EAGAIN));
        let s = l.accept().unwrap();
        assert_eq!(l.accept().err(), Some(Errno::EAGAIN));
        assert_eq!((s.peer_creds().pid, c.peer_creds()), (1, me));
        send(&c, b"hi").unwrap();
        assert_eq!(receive(&s, 9).unwrap(), b"hi");
        let other = Socket::new(Kind::Stream, me);
        assert_eq!(other.bind_abstract(b"\0unit-test-name"), Err(Errno::EADDRINUSE));
        drop(found);
        drop(l.file(&Creds::root(0), false));
        drop(l);
        assert!(Socket::find_abstract(Kind::Stream, b"\0unit-test-name").is_err());
    }

    #[test]
    fn a_full_stream_waits_and_descriptors_travel() {
        let (a, b) = Socket::pair(Kind::Stream, Ucred::default(), &[]);
        let mut sent = 0;
        while let Ok(n) = send(&a, &[1; 50_000]) {
            sent += n;
        }
        assert_eq!(sent, BUFFER);
        assert!(!a.events().contains(PollMask::OUT));
        while receive(&b, 1 << 20).is_ok() {}
        assert!(a.events().contains(PollMask::OUT));
        let f = crate::ipc::eventfd::eventfd(0, 0);
        let with = Ancillary { files: vec![f.clone()], ..Ancillary::default() };
        a.send(&b, &mut Source::kernel(b"f"), &with).unwrap();
        let mut v = Vec::new();
        let got = b.receive(&mut Sink::kernel(&mut v, 9), false).unwrap();
        assert!(Arc::ptr_eq(&got.ancillary.files[0], &f));
    }
}
