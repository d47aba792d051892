//! Internet sockets, `ip(7)`, `ipv6(7)`: TCP (`tcp`), UDP (`udp`), raw and ping sockets (`raw`, `icmp`) of one network namespace.
//!
//! What goes from a namespace to itself (loopback, its own addresses) never leaves the Sentry: there is no wire that could lose or
//! reorder anything, so there are no packets, and the state of both ends of a connection changes at once. What goes elsewhere is netd's
//! (`remote`, `raw`, by `net`). In the host's own network all of TCP and UDP does, and addresses are the host's to give (`host`).
//!
//! Owns sockets, their addresses and ports, queues and errors. Must never have a socket of the host. Memory is bounded by each
//! socket's buffers, and by [`QUEUED_MOST`] for all of them. Called by the calls of sockets (`syscalls::inet`, `syscalls::inet_options`) and by `/proc/net`.
//!
//! Locks: a namespace's [`Ports`](ports::Ports) come before a socket's state, and no two sockets' states are held at once.

pub mod address;
mod file;
pub mod groups;
pub mod host;
pub mod icmp;
pub mod limit;
pub mod options;
pub mod ports;
pub mod raw;
mod remote;
pub mod tcp;
pub mod udp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

pub use file::InetFile;

use crate::bpf::Program;
use crate::errno::Errno;
use crate::filesystems::anon::{AnonInode, Family};
use crate::ipc::unix::Options;
use crate::namespaces::NetNamespace;
use crate::sync::Mutex;
use crate::task::Creds;
use crate::time::Timers;
use crate::vfs::file::{File, flags};
use crate::vfs::inode::mode;
use crate::wait::{PollMask, WaitQueue};
use address::{Domain, Endpoint};
use options::Values;
use ports::{Claim, Pair};
use tcp::Tcp;
use udp::Udp;

/// Protocol of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Tcp,
    Udp,
    /// Of `IPPROTO_ICMP` or `IPPROTO_ICMPV6`.
    Ping(u8),
    /// Of a protocol.
    Raw(u8),
}

impl Kind {
    /// Whether it has connections.
    pub fn is_stream(self) -> bool {
        self == Self::Tcp
    }

    /// `SOCK_STREAM`, `SOCK_DGRAM`, `SOCK_RAW`.
    pub fn number(self) -> i32 {
        match self {
            Self::Tcp => 1,
            Self::Udp | Self::Ping(_) => 2,
            Self::Raw(_) => 3,
        }
    }

    /// `IPPROTO_*`.
    pub fn protocol(self) -> i32 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Ping(p) | Self::Raw(p) => i32::from(p),
        }
    }
}

/// A socket's state.
pub(crate) struct State {
    /// What `bind` or the first use gave it; the address may be none in particular. The port may be one that it had.
    local: Option<Endpoint>,
    /// It has that port.
    holds: bool,
    /// Address and port were asked for with `bind`: they stay.
    bound: [bool; 2],
    peer: Option<Endpoint>,
    /// `SO_ERROR`: told once.
    error: Option<Errno>,
    /// `SO_RCVTIMEO`, `SO_SNDTIMEO`: nanoseconds, 0 for none.
    timeouts: [i64; 2],
    send_buffer: usize,
    receive_buffer: usize,
    /// The sizes were asked for: they stay.
    sized: [bool; 2],
    options: Options,
    values: Values,
    filter: Option<Arc<Program>>,
    /// `shutdown(2)`: nothing more is received, or sent.
    shut: [bool; 2],
    tcp: Tcp,
    udp: Udp,
    raw: raw::Raw,
    /// In the host's own network: its place there, until it is a connection or listens.
    place: Option<host::Place>,
}

/// A socket.
pub struct Inet {
    /// Its family.
    pub domain: Domain,
    /// Its protocol.
    pub kind: Kind,
    /// Unique.
    pub id: u64,
    /// Whose it is.
    pub uid: u32,
    /// Where it is.
    pub net: Arc<NetNamespace>,
    timers: Arc<Timers>,
    me: Weak<Inet>,
    open: OnceLock<Weak<File>>,
    /// Number of its inode, once it has a file.
    ino: OnceLock<u64>,
    state: Mutex<State>,
    queue: WaitQueue,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

const LOCALHOST4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOCALHOST6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Bytes that may wait in all sockets of a sandbox (`net.ipv4.tcp_mem`). Beyond it a connection gets [`LEAST`], and datagrams are lost.
pub const QUEUED_MOST: usize = 256 << 20;
/// Bytes of a connection that are taken however much waits elsewhere, so that it goes on.
const LEAST: usize = 4096;
static QUEUED: AtomicUsize = AtomicUsize::new(0);

/// Whether as much waits as may.
fn is_full() -> bool {
    QUEUED.load(Ordering::Relaxed) >= QUEUED_MOST
}

/// Bytes that wait in a socket, counted among all.
#[derive(Default)]
struct Waiting(usize);

impl Waiting {
    fn get(&self) -> usize {
        self.0
    }

    fn add(&mut self, n: usize) {
        self.0 += n;
        QUEUED.fetch_add(n, Ordering::Relaxed);
    }

    fn take(&mut self, n: usize) {
        let n = n.min(self.0);
        self.0 -= n;
        QUEUED.fetch_sub(n, Ordering::Relaxed);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        QUEUED.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// How much may wait in a datagram socket, in either direction (`net.core.rmem_default`).
const DATAGRAMS: usize = 212_992;

impl Inet {
    /// A new socket of a user in a namespace.
    pub fn new(domain: Domain, kind: Kind, net: &Arc<NetNamespace>, uid: u32, timers: &Arc<Timers>) -> Arc<Self> {
        let [send_buffer, receive_buffer] = match kind {
            Kind::Tcp => [true, false].map(|send| net.settings.tcp_buffer(send)[0]),
            _ => [DATAGRAMS; 2],
        };
        let mut values = Values::default();
        let of = |n: &std::sync::atomic::AtomicI64| i32::try_from(n.load(Ordering::Relaxed)).unwrap_or(0);
        let set = &net.settings;
        let [time, interval, probes] = &set.keepalive;
        let defaults = [
            (options::IP, options::TTL, &set.ttl),
            (options::TCP, 4, time),
            (options::TCP, 5, interval),
            (options::TCP, 6, probes),
        ];
        for (level, option, n) in defaults {
            if of(n) != values.get(level, option) {
                values.set(level, option, of(n));
            }
        }
        if domain == Domain::V6 {
            // What others joined for is not for it, as long as it is IPv4's.
            values.set(options::IP, options::MULTICAST_ALL, 0);
        }
        if domain == Domain::V6 && net.settings.bindv6only() {
            values.set(options::IPV6, options::V6ONLY, 1);
        }
        let mut own = Options::default();
        // What is no port can be shared.
        own.set_switch(options::REUSEADDR, matches!(kind, Kind::Ping(_) | Kind::Raw(_)));
        let state = State {
            local: None,
            holds: false,
            bound: [false; 2],
            peer: None,
            error: None,
            timeouts: [0; 2],
            send_buffer,
            receive_buffer,
            sized: [false; 2],
            options: own,
            values,
            filter: None,
            shut: [false; 2],
            tcp: Tcp::default(),
            udp: Udp::default(),
            raw: raw::Raw::default(),
            place: None,
        };
        Self::with((domain, kind), net, uid, timers, state)
    }

    fn with(
        (domain, kind): (Domain, Kind),
        net: &Arc<NetNamespace>,
        uid: u32,
        timers: &Arc<Timers>,
        state: State,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            domain,
            kind,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            uid,
            net: net.clone(),
            timers: timers.clone(),
            me: me.clone(),
            open: OnceLock::new(),
            ino: OnceLock::new(),
            state: Mutex::new(state),
            queue: WaitQueue::new(),
        })
    }

    /// An open file for it.
    pub fn file(self: &Arc<Self>, creds: &Creds, nonblocking: bool) -> Arc<File> {
        let inode = AnonInode::make(Family::Socket.dev(), mode::SOCKET | 0o777, creds.fsuid, creds.fsgid, None);
        let ino = inode.attr().map(|a| a.ino).unwrap_or(0);
        let _ = self.ino.set(ino);
        self.listen_in();
        let name = format!("socket:[{ino}]");
        let f = flags::RDWR | if nonblocking { flags::NONBLOCK } else { 0 };
        let file = File::new(Family::Socket.place(inode, name.as_bytes()), Box::new(InetFile(self.clone())), f);
        self.open.get_or_init(|| Arc::downgrade(&file));
        file
    }

    /// Its open file, whose owner is told of urgent data.
    pub fn open_file(&self) -> Option<Arc<File>> {
        self.open.get().and_then(Weak::upgrade)
    }

    /// Number of its inode; 0 for one that nobody has accepted yet.
    pub fn ino(&self) -> u64 {
        self.ino.get().copied().unwrap_or(0)
    }

    /// Whose it is, as others see it.
    pub fn shown_uid(&self, to: &Creds) -> u32 {
        to.shown_uid(self.uid)
    }

    /// The queue that is woken when something changes.
    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    /// What counts of it when another wants its port.
    pub fn claim(&self) -> Claim {
        let s = self.state.lock();
        self.claim_of(&s)
    }

    fn claim_of(&self, s: &State) -> Claim {
        Claim {
            domain: self.domain,
            ip: s.local.filter(|_| !matches!(self.kind, Kind::Ping(_))).map_or(self.domain.any(), |l| l.ip),
            v6only: self.is_v6only(s),
            reuse: s.options.switch(options::REUSEADDR),
            reuseport: s.options.switch(options::REUSEPORT),
            uid: self.uid,
            listens: s.tcp.listens(),
            asked: !s.tcp.chosen,
            left: false,
        }
    }

    fn is_v6only(&self, s: &State) -> bool {
        self.domain == Domain::V6 && s.values.get(options::IPV6, options::V6ONLY) != 0
    }

    /// The device that it is bound to (`SO_BINDTOIFINDEX`); 0: none in particular.
    fn device(s: &State) -> u32 {
        u32::try_from(s.values.get(options::SOCKET, options::BINDTOIFINDEX)).unwrap_or(u32::MAX)
    }

    /// Whether something that came by a device is for it as far as that goes. `by`: 0 is the loopback one, as is 1.
    fn hears_device(&self, s: &State, by: u32) -> bool {
        let own = Self::device(s);
        own == 0 || own == by.max(1)
    }

    /// Whether an address of the other family is none for it.
    pub fn only_v6(&self) -> bool {
        self.is_v6only(&self.state.lock())
    }

    /// Whether it has a port.
    pub fn holds_port(&self) -> bool {
        self.state.lock().holds
    }

    /// Its own address; none in particular before it has one.
    pub fn name(&self) -> Endpoint {
        self.state.lock().local.unwrap_or(Endpoint { ip: self.domain.any(), port: 0 })
    }

    /// The other side's. ENOTCONN.
    pub fn peer(&self) -> Result<Endpoint, Errno> {
        let s = self.state.lock();
        let gone = self.kind == Kind::Tcp && !s.tcp.has_peer();
        // Where there are no ports one of 0 tells of no peer.
        let gone = gone || matches!(self.kind, Kind::Ping(_) | Kind::Raw(_)) && s.peer.is_some_and(|p| p.port == 0);
        s.peer.filter(|_| !gone).ok_or(Errno::ENOTCONN)
    }

    /// Options of the socket's own level, to be read or changed.
    pub fn options<R>(&self, f: impl FnOnce(&mut Options) -> R) -> R {
        f(&mut self.state.lock().options)
    }

    /// Options of the protocols' levels.
    pub fn values<R>(&self, f: impl FnOnce(&mut Values) -> R) -> R {
        f(&mut self.state.lock().values)
    }

    /// Sizes of the buffers: send, receive.
    pub fn buffers(&self) -> (usize, usize) {
        let s = self.state.lock();
        (s.send_buffer, s.receive_buffer)
    }

    /// Sets a size as `SO_SNDBUF` and `SO_RCVBUF` do (doubled, within bounds). `most`: `net.core.wmem_max` and its like.
    pub fn set_buffer(&self, send: bool, size: usize, most: usize) {
        let least = if send { 4608 } else { 2304 };
        let size = size.min(most).saturating_mul(2).max(least);
        let mut s = self.state.lock();
        let s = &mut *s;
        let at = if send { (&mut s.send_buffer, &mut s.sized[0]) } else { (&mut s.receive_buffer, &mut s.sized[1]) };
        (*at.0, *at.1) = (size, true);
    }

    /// Which sizes stay as they are: send, receive (`SO_BUF_LOCK`).
    pub fn sized(&self) -> [bool; 2] {
        self.state.lock().sized
    }

    /// Sets that.
    pub fn set_sized(&self, which: [bool; 2]) {
        self.state.lock().sized = which;
    }

    /// The ports that one may be chosen of: the namespace's, within the socket's own bounds where those are among them
    /// (`IP_LOCAL_PORT_RANGE`). Of the identifiers of ping sockets any.
    fn choice_of_ports(&self) -> RangeInclusive<u16> {
        if let Kind::Ping(_) = self.kind {
            return 1..=u16::MAX;
        }
        let all = self.net.settings.port_range();
        let (first, last) = options::ports(self.values(|v| v.get(options::IP, options::LOCAL_PORT_RANGE)));
        let or = |own: u16, bound: &u16| if all.contains(&own) { own } else { *bound };
        or(first, all.start())..=or(last, all.end())
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
        self.state.lock().tcp.listens()
    }

    /// Which directions are shut (`RCV_SHUTDOWN`, `SEND_SHUTDOWN`).
    pub fn shut_bits(&self) -> u8 {
        let [read, write] = self.state.lock().shut;
        u8::from(read) | u8::from(write) << 1
    }

    /// Whether all on a network of the namespace have the address.
    fn is_broadcast(&self, ip: IpAddr) -> bool {
        self.net.is_broadcast(ip)
    }

    /// Whether one of the namespace's devices has the address.
    fn is_own(&self, ip: IpAddr) -> bool {
        self.net.has(ip)
    }

    /// Whether it may have the address.
    pub fn may_bind(&self, ip: IpAddr) -> bool {
        let multicast = ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST);
        let any =
            |v: &mut Values| [options::FREEBIND, options::TRANSPARENT].iter().any(|o| v.get(options::IP, *o) != 0);
        // Before there are addresses nobody says that it is none; in the host's own network it is the host who does.
        let early = || {
            self.host().is_some()
                || ip.is_ipv4() && (self.net.settings.may_bind_others() || !self.net.loopback.was_up())
        };
        ip.is_unspecified() || multicast || self.values(any) || early() || self.is_own(ip)
    }

    /// `bind(2)` to an address that it may have. EINVAL, EADDRINUSE.
    pub fn bind(self: &Arc<Self>, to: Endpoint) -> Result<(), Errno> {
        let mut table = self.net.ports(self.kind).lock();
        let claim = {
            let s = self.state.lock();
            if s.holds || !s.tcp.is_closed() || !self.kind.is_stream() && s.peer.is_some() {
                return Err(Errno::EINVAL);
            }
            // An IPv6 socket with an IPv4 address takes no port from one that has IPv6's any.
            Claim { ip: to.ip, asked: to.port != 0, ..self.claim_of(&s) }
        };
        let late = to.port == 0 && self.values(|v| v.get(options::IP, options::BIND_ADDRESS_NO_PORT)) != 0;
        let port = if late { 0 } else { table.bind(self, to.port, &claim, self.choice_of_ports())? };
        let mut s = self.state.lock();
        s.local = Some(Endpoint { ip: to.ip, port });
        s.holds = port != 0;
        s.bound = [!to.ip.is_unspecified(), to.port != 0];
        Ok(())
    }

    /// Gives it a port if it has none: the first use does. EAGAIN if there is none.
    fn autobind(self: &Arc<Self>) -> Result<(), Errno> {
        if self.host().is_some() {
            return self.settle_soon();
        }
        let mut table = self.net.ports(self.kind).lock();
        let (claim, ip) = {
            let s = self.state.lock();
            if s.holds {
                return Ok(());
            }
            (self.claim_of(&s), s.local.map_or(self.domain.any(), |l| l.ip))
        };
        let port = table.bind(self, 0, &claim, self.choice_of_ports()).map_err(|_| Errno::EAGAIN)?;
        let mut s = self.state.lock();
        s.local = Some(Endpoint { ip, port });
        s.holds = true;
        Ok(())
    }

    /// The address that something to `to` comes from, unless the socket has one. ENETUNREACH; ENODEV where the device that it is
    /// bound to is none.
    fn source(&self, to: IpAddr) -> Result<IpAddr, Errno> {
        let by = Self::device(&self.state.lock());
        if by != 0 && !self.net.has_device(by) {
            return Err(Errno::ENODEV);
        }
        // While the device is down its address of IPv6 is gone, which is not that nothing leads there.
        let gone = if to == LOCALHOST6 { Errno::EADDRNOTAVAIL } else { Errno::ENETUNREACH };
        let source = self.net.source(to, by);
        // The host knows more ways than it was asked for.
        let hosts = || self.host().map(|_| if to.is_ipv4() { Domain::V4.any() } else { Domain::V6.any() });
        source.or_else(hosts).ok_or(gone)
    }

    /// Where a program that names no address in particular means to go: to itself.
    fn meant(&self, mut to: Endpoint) -> Endpoint {
        let own = self.state.lock().local.map(|l| l.ip).filter(|ip| !ip.is_unspecified());
        if to.ip.is_unspecified() {
            to.ip = match (self.domain, to.ip, own) {
                (Domain::V4, _, Some(own)) => own,
                (Domain::V6, IpAddr::V6(_), Some(IpAddr::V4(_))) | (Domain::V4, _, _) => LOCALHOST4,
                (Domain::V6, IpAddr::V4(_), _) => LOCALHOST4,
                (Domain::V6, IpAddr::V6(_), _) => LOCALHOST6,
            };
        }
        to
    }

    /// Takes it out of the namespace's tables. `left`: the connection stays known for a while.
    fn unregister(&self, local: Option<Endpoint>, pair: Option<Pair>, left: Option<Claim>) {
        let mut table = self.net.ports(self.kind).lock();
        if let Some(local) = local {
            table.free(self.id, local.port);
        }
        if let Some(pair) = pair {
            table.unpair(pair, left);
        }
    }

    /// What `poll(2)` says.
    pub fn events(&self) -> PollMask {
        match self.kind {
            Kind::Tcp => self.tcp_events(),
            _ => self.udp_events(),
        }
    }

    fn close(&self) {
        match self.kind {
            Kind::Tcp => self.tcp_close(),
            Kind::Udp => self.udp_close(),
            Kind::Ping(_) | Kind::Raw(_) => self.raw_close(),
        }
    }

    /// `shutdown(2)`.
    pub fn shutdown(&self, read: bool, write: bool) -> Result<(), Errno> {
        match self.kind {
            Kind::Tcp => self.tcp_shutdown(read, write),
            _ => self.udp_shutdown(read, write),
        }
    }
}

/// A socket with an address of one family does not go to one of the other. ENETUNREACH, EAFNOSUPPORT.
fn check_family(own: IpAddr, to: IpAddr) -> Result<(), Errno> {
    match (own, to) {
        (IpAddr::V4(_), IpAddr::V6(_)) => Err(Errno::EAFNOSUPPORT),
        (IpAddr::V6(_), IpAddr::V4(_)) => Err(Errno::ENETUNREACH),
        _ => Ok(()),
    }
}
