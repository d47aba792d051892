//! Netlink sockets, `netlink(7)`: messages between processes and the kernel, and between processes, by port numbers.
//!
//! Owns ports, queues of datagrams, and what every protocol has in common: requests taken apart, acknowledgements and errors. What a
//! protocol answers is a table of its own (`route`, `diag`); a new protocol is another. Memory is bounded by each socket's receive
//! buffer: what does not fit is lost, and the reader told so (ENOBUFS); and by one list at a time (EBUSY), of what the namespace has, which
//! is handed out as it is read. Called by the calls of sockets (`syscalls::netlink`) and by message queues, whose notifications come by such
//! a socket.

mod diag;
mod file;
mod loopback;
mod message;
mod route;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

pub use file::NetlinkFile;
pub use loopback::{INDEX, INTERFACE_FLAGS, Loopback, NAME, ioctl as device_request};

use crate::errno::Errno;
use crate::namespaces::NetNamespace;
use crate::sync::Mutex;
use crate::task::creds::cap;
use crate::task::{Creds, Task};
use crate::uio::Sink;
use crate::wait::{PollMask, WaitQueue};
use message::Request;

/// The protocol of links, addresses and routes (`NETLINK_ROUTE`).
pub const ROUTE: i32 = 0;
/// The protocol that tells of sockets (`NETLINK_SOCK_DIAG`).
const DIAG: i32 = 4;
/// Protocols have numbers below this (`MAX_LINKS`).
pub const PROTOCOLS: i32 = 32;
/// Bytes of a send or receive buffer (`net.core.rmem_default`).
const BUFFER: usize = 212_992;
/// What a datagram costs beside its content.
const COST: usize = 256;
/// Groups there are of [`ROUTE`].
pub const GROUPS: u32 = 38;

/// Sockets by protocol and port. Below a socket's own lock.
pub type Ports = Mutex<BTreeMap<(i32, u32), Weak<Netlink>>>;

/// Options of `SOL_NETLINK`, and those of `SOL_SOCKET` that count.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Options {
    pub pktinfo: bool,
    pub broadcast_error: bool,
    pub no_enobufs: bool,
    pub listen_all: bool,
    pub cap_ack: bool,
    pub ext_ack: bool,
    pub strict: bool,
    pub passcred: bool,
    /// Bytes, as `SO_SNDBUF` tells them.
    pub send_buffer: usize,
    /// Bytes, as `SO_RCVBUF` tells them.
    pub receive_buffer: usize,
    /// Nanoseconds, 0 for none: `SO_RCVTIMEO`, `SO_SNDTIMEO`.
    pub timeouts: [i64; 2],
}

/// A message that waits to be read.
struct Datagram {
    data: Vec<u8>,
    /// Port of the sender, 0 for the kernel.
    from: u32,
}

struct State {
    port: Option<u32>,
    /// Groups it is a member of, one a bit.
    groups: u64,
    /// Port and group that it is connected to.
    peer: (u32, u32),
    messages: VecDeque<Datagram>,
    bytes: usize,
    /// What of a list has no room yet.
    rest: VecDeque<Vec<u8>>,
    /// Something was lost since it was last told.
    overrun: bool,
    options: Options,
}

/// A socket.
pub struct Netlink {
    /// `NETLINK_*`.
    pub protocol: i32,
    /// `SOCK_RAW` or `SOCK_DGRAM`, which are the same.
    pub kind: i32,
    net: Arc<NetNamespace>,
    me: Weak<Netlink>,
    state: Mutex<State>,
    /// Woken when a message came.
    pub queue: WaitQueue,
}

/// Who asks, and where.
struct Asker<'a> {
    /// Its network namespace.
    net: &'a NetNamespace,
    /// Whose ids are shown.
    creds: &'a Creds,
    /// Whether it may change something there.
    admin: bool,
    /// Its port.
    port: u32,
    /// It wants what is wrong with a request for a list to be told (`NETLINK_GET_STRICT_CHK`).
    strict: bool,
}

/// Messages, each a datagram.
type Answer = Result<Vec<Vec<u8>>, Errno>;
/// What answers a request.
type Answerer = fn(&Asker<'_>, &Request<'_>) -> Answer;
/// Says whether a request is for a list.
type Dumps = fn(&Request<'_>) -> bool;

/// A message that was received.
pub struct Received {
    /// Bytes put.
    pub count: usize,
    /// Bytes there were.
    pub length: usize,
    /// Port of the sender.
    pub from: u32,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        if let Some(port) = self.state.lock().port {
            self.net.ports.lock().remove(&(self.protocol, port));
        }
    }
}

impl Netlink {
    /// A socket of a task's network namespace. EPROTONOSUPPORT.
    pub fn new(task: &Task, kind: i32, protocol: i32) -> Result<Arc<Self>, Errno> {
        if ![ROUTE, DIAG].contains(&protocol) {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let options = Options {
            pktinfo: false,
            broadcast_error: false,
            no_enobufs: false,
            listen_all: false,
            cap_ack: false,
            ext_ack: false,
            strict: false,
            passcred: false,
            send_buffer: BUFFER,
            receive_buffer: BUFFER,
            timeouts: [0; 2],
        };
        let state = State {
            port: None,
            groups: 0,
            peer: (0, 0),
            messages: VecDeque::new(),
            bytes: 0,
            rest: VecDeque::new(),
            overrun: false,
            options,
        };
        let net = task.namespaces().net.clone();
        Ok(Arc::new_cyclic(|me| Self {
            protocol,
            kind,
            net,
            me: me.clone(),
            state: Mutex::new(state),
            queue: WaitQueue::new(),
        }))
    }

    /// Looks at or changes its options.
    pub fn options<T>(&self, f: impl FnOnce(&mut Options) -> T) -> T {
        f(&mut self.state.lock().options)
    }

    /// Port and groups.
    pub fn name(&self) -> (u32, u32) {
        let s = self.state.lock();
        (s.port.unwrap_or(0), s.groups as u32)
    }

    /// Port and groups of what it is connected to.
    pub fn peer(&self) -> (u32, u32) {
        let (port, group) = self.state.lock().peer;
        (port, if group == 0 { 0 } else { 1u32.checked_shl(group - 1).unwrap_or(0) })
    }

    /// Groups it is a member of, one a bit.
    pub fn groups(&self) -> u64 {
        self.state.lock().groups
    }

    /// Joins or leaves a group. EINVAL.
    pub fn member(&self, group: u32, joins: bool) -> Result<(), Errno> {
        let bit = group.checked_sub(1).filter(|g| *g < GROUPS).map(|g| 1u64 << g).ok_or(Errno::EINVAL)?;
        let mut s = self.state.lock();
        s.groups = if joins { s.groups | bit } else { s.groups & !bit };
        Ok(())
    }

    /// Takes a port. EADDRINUSE; EINVAL for one that has another.
    pub fn bind(&self, task: &Task, port: u32, groups: u32) -> Result<(), Errno> {
        if self.state.lock().port.is_some_and(|p| p != port) {
            return Err(Errno::EINVAL);
        }
        if port != 0 {
            self.take(port)?;
        } else {
            self.bind_any(task)?;
        }
        let mut s = self.state.lock();
        s.groups = s.groups & !u64::from(u32::MAX) | u64::from(groups);
        Ok(())
    }

    fn take(&self, port: u32) -> Result<(), Errno> {
        let mut s = self.state.lock();
        match s.port {
            Some(p) if p == port => return Ok(()),
            Some(_) => return Err(Errno::EBUSY),
            None => {}
        }
        let mut ports = self.net.ports.lock();
        if ports.get(&(self.protocol, port)).is_some_and(|s| s.strong_count() > 0) {
            return Err(Errno::EADDRINUSE);
        }
        ports.insert((self.protocol, port), self.me.clone());
        s.port = Some(port);
        Ok(())
    }

    /// Takes its process's id as port, or another that is free.
    pub fn bind_any(&self, task: &Task) -> Result<(), Errno> {
        const LAST: u32 = -4097i32 as u32;
        if self.state.lock().port.is_some() {
            return Ok(());
        }
        let mut port = u32::try_from(task.shown(task.pid())).unwrap_or(0);
        for _ in 0..1 << 16 {
            match self.take(port) {
                Err(Errno::EADDRINUSE) => {}
                done => return done,
            }
            port = if (1 << 31..=LAST).contains(&port) { port - 1 } else { LAST };
        }
        Err(Errno::EADDRINUSE)
    }

    /// Connects it to a port and a group.
    pub fn connect(&self, port: u32, groups: u32) {
        self.state.lock().peer = (port, if groups == 0 { 0 } else { groups.trailing_zeros() + 1 });
    }

    /// Whether a task may send to others than the kernel, or have it change something.
    pub fn may_change(&self, task: &Task) -> bool {
        task.creds().capable_in(&self.net.base.owner, cap::NET_ADMIN)
    }

    /// Sends a datagram to a port and groups, or where it is connected to. Whether the task may is the caller's to ask.
    pub fn send(&self, task: &Task, data: Vec<u8>, to: Option<(u32, u32)>) -> Result<usize, Errno> {
        let (port, groups) = to.unwrap_or_else(|| self.peer());
        self.bind_any(task)?;
        let (own, _) = self.name();
        let len = data.len();
        if groups != 0 {
            let members: Vec<_> = {
                let ports = self.net.ports.lock();
                ports.values().filter_map(Weak::upgrade).collect()
            };
            for m in members.iter().filter(|m| m.groups() & u64::from(groups) != 0 && m.name().0 != own) {
                m.deliver(data.clone(), own).ok();
            }
        }
        if port == 0 && groups == 0 {
            self.ask_kernel(task, &data, own);
        } else if port != 0 {
            let found = self.net.ports.lock().get(&(self.protocol, port)).and_then(Weak::upgrade);
            found.ok_or(Errno::ECONNREFUSED)?.deliver(data, own)?;
        }
        Ok(len)
    }

    /// Puts a datagram into its queue. EAGAIN where there is no room.
    fn deliver(&self, data: Vec<u8>, from: u32) -> Result<(), Errno> {
        {
            let mut s = self.state.lock();
            let bytes = s.bytes.saturating_add(data.len() + COST);
            if bytes > s.options.receive_buffer {
                return Err(Errno::EAGAIN);
            }
            s.bytes = bytes;
            s.messages.push_back(Datagram { data, from });
        }
        self.queue.wake(PollMask::IN | PollMask::RDNORM);
        Ok(())
    }

    /// A datagram of the kernel's own. One that does not fit is lost.
    pub fn tell(&self, data: Vec<u8>) {
        if self.deliver(data, 0).is_err() {
            let mut s = self.state.lock();
            s.overrun |= !s.options.no_enobufs;
            drop(s);
            self.queue.wake(PollMask::ERR);
        }
    }

    /// The kernel's side of a datagram: each request in it is answered.
    fn ask_kernel(&self, task: &Task, data: &[u8], port: u32) {
        let options = self.options(|o| *o);
        let creds = task.creds();
        let (admin, strict) = (self.may_change(task), options.strict);
        let asker = Asker { net: &self.net, creds: &creds, admin, port, strict };
        let (answer, dumps): (Answerer, Dumps) = match self.protocol {
            DIAG => (diag::answer, diag::dumps),
            _ => (route::answer, route::dumps),
        };
        for request in message::requests(data) {
            let listed = dumps(&request);
            let result = if request.flags & message::REQUEST == 0 || request.kind < message::FIRST {
                Ok(Vec::new())
            } else if listed && !self.state.lock().rest.is_empty() {
                Err(Errno::EBUSY)
            } else {
                answer(&asker, &request)
            };
            let error = result.as_ref().err().copied();
            if listed {
                self.state.lock().rest.extend(result.unwrap_or_default());
                self.hand_out();
            } else {
                result.unwrap_or_default().into_iter().for_each(|answer| self.tell(answer));
            }
            if error.is_some() || request.flags & message::ACK != 0 && !listed {
                self.tell(message::acknowledge(&request, port, error, options.cap_ack));
            }
        }
    }

    /// Puts as much of a list into the queue as there is room for; something in any case once all else was read.
    fn hand_out(&self) {
        let mut came = false;
        {
            let mut s = self.state.lock();
            while let Some(next) = s.rest.front() {
                let bytes = s.bytes.saturating_add(next.len() + COST);
                if bytes > s.options.receive_buffer && !s.messages.is_empty() {
                    break;
                }
                s.bytes = bytes;
                if let Some(data) = s.rest.pop_front() {
                    s.messages.push_back(Datagram { data, from: 0 });
                }
                came = true;
            }
        }
        if came {
            self.queue.wake(PollMask::IN | PollMask::RDNORM);
        }
    }

    /// Takes the next datagram, or looks at it. EAGAIN; ENOBUFS once after something was lost.
    pub fn receive(&self, to: &mut Sink<'_>, peek: bool) -> Result<Received, Errno> {
        let mut s = self.state.lock();
        if std::mem::take(&mut s.overrun) {
            return Err(Errno::ENOBUFS);
        }
        let m = s.messages.front().ok_or(Errno::EAGAIN)?;
        let (data, from, length) = (m.data.clone(), m.from, m.data.len());
        if !peek {
            s.messages.pop_front();
            s.bytes = s.bytes.saturating_sub(length + COST);
        }
        let more = !peek && !s.rest.is_empty();
        drop(s);
        if more {
            self.hand_out();
        }
        let count = if length == 0 { 0 } else { to.put(&data)? };
        Ok(Received { count, length, from })
    }

    /// What `poll(2)` says.
    pub fn events(&self) -> PollMask {
        let s = self.state.lock();
        let mut m = PollMask::OUT | PollMask::WRNORM | PollMask::WRBAND;
        m.set(PollMask::IN | PollMask::RDNORM, !s.messages.is_empty());
        m.set(PollMask::ERR, s.overrun);
        m
    }
}
