//! The words of a slot, and who writes which.
//!
//! A slot is a connection or a listener. Its words lie in two halves, one written by the Sentry and one by netd, with the addresses that go with
//! it. Who gave it out takes it back once both are done with it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::ring::{Consumer, Place, Producer};
use crate::{Broken, NETDS, RING_MOST, RINGS_AT, SLOT_BYTES, SLOTS, SLOTS_AT, Side, Window};

/// Words of the Sentry.
mod sentry {
    pub const OPERATION: u64 = 0;
    pub const FLAGS: u64 = 4;
    pub const TAIL: u64 = 8;
    pub const SIZE: u64 = 12;
    pub const HEAD: u64 = 16;
    pub const WAITS: u64 = 20;
    pub const ACCEPTED: u64 = 24;
    pub const CHANGES: u64 = 28;
    pub const QUEUED: u64 = 32;
    pub const TUNING: u64 = 36;
    pub const REQUEST: u64 = 56;
    pub const BINDING: u64 = 60;
    pub const LOCAL: u64 = 64;
    pub const REMOTE: u64 = 84;
    pub const BACKLOG: u64 = 104;
    pub const KEEPALIVE: u64 = 108;
}

/// Words of netd.
mod netd {
    pub const FLAGS: u64 = 128;
    pub const ERROR: u64 = 132;
    pub const TAIL: u64 = 136;
    pub const SIZE: u64 = 140;
    pub const HEAD: u64 = 144;
    pub const WAITS: u64 = 148;
    pub const QUEUED: u64 = 152;
    pub const UNACKED: u64 = 156;
    pub const LISTENER: u64 = 160;
    pub const RTT: u64 = 164;
    pub const MTU: u64 = 168;
    pub const ANSWER: u64 = 172;
    pub const REFUSED: u64 = 176;
    pub const LOCAL: u64 = 192;
    pub const REMOTE: u64 = 212;
}

/// What the Sentry wants a slot of its own to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A connection to be made.
    Connect,
    /// A listener.
    Listen,
    /// An address and a port of the host's, for a connection or a listener to come.
    Bind,
    /// Datagrams by an address and a port of the host's, as packets in the rings of the slot ([`crate::packet`]); to one other end, if that has a port.
    Datagrams,
}

impl Operation {
    const ALL: [Self; 4] = [Self::Connect, Self::Listen, Self::Bind, Self::Datagrams];

    fn number(self) -> u32 {
        Self::ALL.iter().zip(1..).find(|(o, _)| **o == self).map_or(0, |(_, n)| n)
    }
}

/// What a place of the host's is to be like: what counts of it when another wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Binding {
    /// `SO_REUSEADDR`.
    pub reuse: bool,
    /// `SO_REUSEPORT`.
    pub reuseport: bool,
    /// `IPV6_V6ONLY`.
    pub only_v6: bool,
}

impl Binding {
    fn number(self) -> u32 {
        let Self { reuse, reuseport, only_v6 } = self;
        [reuse, reuseport, only_v6].into_iter().zip(0..).map(|(is, bit)| u32::from(is) << bit).sum()
    }

    fn of(number: u32) -> Self {
        let [reuse, reuseport, only_v6] = [0, 1, 2].map(|bit| number >> bit & 1 != 0);
        Self { reuse, reuseport, only_v6 }
    }
}

/// What the Sentry says of a connection: each stays true.
pub mod said {
    /// Nothing more is sent after what is in the ring.
    pub const FINISHED: u32 = 1;
    /// It is done with: what is in the ring is still sent.
    pub const CLOSED: u32 = 2;
    /// With [`CLOSED`]: it is reset.
    pub const RESET: u32 = 4;
}

/// What netd says of a connection: each stays true.
pub mod told {
    /// It is established.
    pub const CONNECTED: u32 = 1;
    /// The other end sends nothing more after what is in the ring.
    pub const FINISHED: u32 = 2;
    /// It has ended by an error (see [`super::Slot::error`]).
    pub const FAILED: u32 = 4;
    /// netd is done with a slot of the Sentry's.
    pub const RELEASED: u32 = 8;
    /// A slot of netd's is a new connection of a listener.
    pub const NEW: u32 = 16;
    /// Both directions have ended.
    pub const OVER: u32 = 32;
}

/// How a connection is to behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tuning {
    /// `TCP_NODELAY`.
    pub nodelay: bool,
    /// `SO_KEEPALIVE` with `TCP_KEEPIDLE`, seconds; 0: none.
    pub keepalive: u16,
    /// `TCP_KEEPINTVL`, seconds, and `TCP_KEEPCNT`; 0: the usual.
    pub keepalive_interval: u16,
    /// See `keepalive_interval`.
    pub keepalive_probes: u8,
    /// `TCP_USER_TIMEOUT`, milliseconds; 0: the usual.
    pub user_timeout: u32,
    /// Time to live, hops; 0: the usual.
    pub hops: u8,
    /// Type of service, traffic class.
    pub service: u8,
    /// `TCP_MAXSEG`; 0: as large as fits.
    pub largest_segment: u16,
    /// Bytes that may wait to be read, and to be sent (`SO_RCVBUF`, `SO_SNDBUF`, `tcp_rmem`, `tcp_wmem`); 0: the usual.
    pub receive_buffer: u32,
    /// See `receive_buffer`.
    pub send_buffer: u32,
}

/// A slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    number: u32,
    at: u64,
}

impl Slot {
    /// The slot of a number that may come from the other side.
    pub fn new(_: &Window, number: u32) -> Result<Self, Broken> {
        if number >= SLOTS {
            return Err(Broken("a slot that there is none of"));
        }
        Ok(Self { number, at: SLOTS_AT + SLOT_BYTES * u64::from(number) })
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Where one of its words is in the window: for tests that write what they like.
    pub fn word(&self, offset: u64) -> u64 {
        self.at + offset % SLOT_BYTES
    }

    /// Whether netd gives it out.
    pub fn is_netds(&self) -> bool {
        self.number >= NETDS
    }

    pub(crate) fn queued(&self, to: Side) -> u64 {
        // The word is set by who tells and cleared by who is told.
        self.at + if to == Side::Netd { sentry::QUEUED } else { netd::QUEUED }
    }

    fn data(&self, by: Side) -> u64 {
        let ring = 2 * u64::from(self.number) + u64::from(by == Side::Netd);
        RINGS_AT + u64::from(RING_MOST) * ring
    }

    fn place(&self, by: Side) -> Place {
        let (tail, size, head) = match by {
            Side::Sentry => (sentry::TAIL, sentry::SIZE, netd::HEAD),
            Side::Netd => (netd::TAIL, netd::SIZE, sentry::HEAD),
        };
        Place { tail: self.at + tail, size: self.at + size, head: self.at + head, data: self.data(by) }
    }

    /// Its rings for a side that begins to use it, empty: what that puts in and what it takes out.
    pub fn rings(&self, window: &Arc<Window>, side: Side) -> (Producer, Consumer) {
        (Producer::new(window.clone(), self.place(side)), Consumer::new(window.clone(), self.place(side.other())))
    }

    /// Who gives a slot out clears both sides' words before, but for those that say that it is in a queue.
    fn clear(&self, w: &Window) {
        let (queued, end) = ([sentry::QUEUED, netd::QUEUED], SLOT_BYTES / 4);
        (0..end).map(|n| 4 * n).filter(|at| !queued.contains(at)).for_each(|at| w.store(self.at + at, 0));
    }

    /// Begins to use a slot of the Sentry's own.
    pub fn prepare(&self, w: &Window, what: Operation, local: SocketAddr, remote: Option<SocketAddr>, backlog: u32) {
        self.clear(w);
        put(w, self.at + sentry::LOCAL, local);
        if let Some(remote) = remote {
            put(w, self.at + sentry::REMOTE, remote);
        }
        w.store(self.at + sentry::BACKLOG, backlog);
        w.store(self.at + sentry::OPERATION, what.number());
    }

    /// Of a slot in use: asks for something more, in the host's own network. The number of the request.
    pub fn ask(
        &self,
        w: &Window,
        what: Operation,
        (local, remote): (SocketAddr, Option<SocketAddr>),
        backlog: u32,
        binding: Binding,
    ) -> u32 {
        put(w, self.at + sentry::LOCAL, local);
        put(w, self.at + sentry::REMOTE, remote.unwrap_or(SocketAddr::from(([0; 4], 0))));
        w.store(self.at + sentry::BACKLOG, backlog);
        w.store(self.at + sentry::BINDING, binding.number());
        w.store(self.at + sentry::OPERATION, what.number());
        let request = w.load(self.at + sentry::REQUEST).wrapping_add(1);
        w.store(self.at + sentry::REQUEST, request);
        request
    }

    /// Of a listener: so many may wait from now on.
    pub fn set_backlog(&self, w: &Window, backlog: u32) {
        w.store(self.at + sentry::BACKLOG, backlog);
    }

    /// The number of the last request, and what the place is to be like.
    pub fn asked(&self, w: &Window) -> (u32, Binding) {
        (w.load(self.at + sentry::REQUEST), Binding::of(w.load(self.at + sentry::BINDING)))
    }

    /// Answers a request: with the address that it has now, or a number of an error.
    pub fn answer(&self, w: &Window, request: u32, what: Result<SocketAddr, i32>) {
        if let Ok(local) = what {
            put(w, self.at + netd::LOCAL, local);
        }
        w.store(self.at + netd::REFUSED, what.err().map_or(0, i32::cast_unsigned));
        w.store(self.at + netd::ANSWER, request);
    }

    /// The answer to a request, once there is one.
    pub fn answered(&self, w: &Window, request: u32) -> Option<Result<Result<SocketAddr, i32>, Broken>> {
        if w.load(self.at + netd::ANSWER) != request {
            return None;
        }
        Some(match w.load(self.at + netd::REFUSED) {
            0 => get(w, self.at + netd::LOCAL).map(Ok),
            why => Ok(Err(why.cast_signed())),
        })
    }

    /// What the Sentry wants of a slot of its own: with the local address, the other one of a connection, and the backlog of a listener.
    pub fn wanted(&self, w: &Window) -> Result<(Operation, SocketAddr, SocketAddr, u32), Broken> {
        let what = match w.load(self.at + sentry::OPERATION) {
            0 => None,
            n => Operation::ALL.get(n as usize - 1).copied(),
        };
        let what = what.ok_or(Broken("a slot is to be something that there is none of"))?;
        let of = |at| get(w, self.at + at);
        Ok((what, of(sentry::LOCAL)?, of(sentry::REMOTE)?, w.load(self.at + sentry::BACKLOG)))
    }

    /// Whether the Sentry may use it anew: netd has never had it, or is done with it.
    pub fn is_released(&self, w: &Window) -> bool {
        w.load(self.at + netd::FLAGS) & told::RELEASED != 0
    }

    /// netd is done with a slot of the Sentry's.
    pub fn release(&self, w: &Window) {
        w.store(self.at + netd::FLAGS, told::RELEASED);
    }

    /// netd begins to use a slot of its own: a connection of a listener, with its address and the other one.
    pub fn begin(&self, w: &Window, listener: u32, local: SocketAddr, remote: SocketAddr) {
        self.clear(w);
        put(w, self.at + netd::LOCAL, local);
        put(w, self.at + netd::REMOTE, remote);
        w.store(self.at + netd::LISTENER, listener);
        w.store(self.at + netd::FLAGS, told::NEW | told::CONNECTED);
    }

    /// Of a new connection: the listener's slot, the local address and the other one.
    pub fn newcomer(&self, w: &Window) -> Result<(u32, SocketAddr, SocketAddr), Broken> {
        let of = |at| get(w, self.at + at);
        Ok((w.load(self.at + netd::LISTENER), of(netd::LOCAL)?, of(netd::REMOTE)?))
    }

    /// What the Sentry says ([`said`]).
    pub fn said(&self, w: &Window) -> u32 {
        w.load(self.at + sentry::FLAGS)
    }

    /// Says it.
    pub fn say(&self, w: &Window, flags: u32) {
        w.store(self.at + sentry::FLAGS, flags);
    }

    /// What netd tells ([`told`]).
    pub fn told(&self, w: &Window) -> u32 {
        w.load(self.at + netd::FLAGS)
    }

    /// Tells it.
    pub fn tell(&self, w: &Window, flags: u32) {
        w.store(self.at + netd::FLAGS, flags);
    }

    /// Why a connection failed: a number of an error.
    pub fn error(&self, w: &Window) -> i32 {
        w.load(self.at + netd::ERROR).cast_signed()
    }

    /// Sets that.
    pub fn set_error(&self, w: &Window, number: i32) {
        w.store(self.at + netd::ERROR, number.cast_unsigned());
    }

    /// A side asks to be told when there is room in its ring.
    pub fn wait_for_room(&self, w: &Window, side: Side) {
        w.store(self.at + waits(side), 1);
    }

    /// Whether the other side has asked to be told of room; it is not asked again until it does.
    pub fn was_waited_for(&self, w: &Window, by: Side) -> bool {
        // Looked at first: it hardly ever is.
        w.load(self.at + waits(by)) == 1 && w.replace(self.at + waits(by), 1, 0)
    }

    /// How many connections of a listener were accepted so far.
    pub fn accepted(&self, w: &Window) -> u32 {
        w.load(self.at + sentry::ACCEPTED)
    }

    /// Sets that.
    pub fn set_accepted(&self, w: &Window, n: u32) {
        w.store(self.at + sentry::ACCEPTED, n);
    }

    /// How a connection is to behave, and how often that was changed.
    pub fn tuning(&self, w: &Window) -> (u32, Tuning) {
        let [a, b, c, d, e] = [0, 4, 8, 12, 16].map(|n| w.load(self.at + sentry::TUNING + n));
        let [segment @ .., service, _] = e.to_le_bytes();
        let [nodelay, hops, low, high] = a.to_le_bytes();
        let [interval @ .., probes, _] = w.load(self.at + sentry::KEEPALIVE).to_le_bytes();
        let tuning = Tuning {
            nodelay: nodelay != 0,
            keepalive: u16::from_le_bytes([low, high]),
            keepalive_interval: u16::from_le_bytes(interval),
            keepalive_probes: probes,
            user_timeout: b,
            hops,
            service,
            largest_segment: u16::from_le_bytes(segment),
            receive_buffer: c,
            send_buffer: d,
        };
        (w.load(self.at + sentry::CHANGES), tuning)
    }

    /// Sets that.
    pub fn tune(&self, w: &Window, tuning: Tuning) {
        let [low, high] = tuning.keepalive.to_le_bytes();
        let a = u32::from_le_bytes([u8::from(tuning.nodelay), tuning.hops, low, high]);
        w.store(self.at + sentry::TUNING, a);
        let [low, high] = tuning.keepalive_interval.to_le_bytes();
        w.store(self.at + sentry::KEEPALIVE, u32::from_le_bytes([low, high, tuning.keepalive_probes, 0]));
        let [small, large] = tuning.largest_segment.to_le_bytes();
        let e = u32::from_le_bytes([small, large, tuning.service, 0]);
        for (n, word) in [(4, tuning.user_timeout), (8, tuning.receive_buffer), (12, tuning.send_buffer), (16, e)] {
            w.store(self.at + sentry::TUNING + n, word);
        }
        w.store(self.at + sentry::CHANGES, w.load(self.at + sentry::CHANGES).wrapping_add(1));
    }

    /// Bytes that were sent and not acknowledged, and the time a packet takes there and back, microseconds.
    pub fn progress(&self, w: &Window) -> (u32, u32) {
        (w.load(self.at + netd::UNACKED), w.load(self.at + netd::RTT))
    }

    /// Sets that.
    pub fn set_progress(&self, w: &Window, unacked: u32, rtt: u32) {
        w.store(self.at + netd::UNACKED, unacked);
        w.store(self.at + netd::RTT, rtt);
    }

    /// The longest packet of a connection, bytes; 0: not known.
    pub fn mtu(&self, w: &Window) -> u32 {
        w.load(self.at + netd::MTU)
    }

    /// Sets that.
    pub fn set_mtu(&self, w: &Window, mtu: u32) {
        w.store(self.at + netd::MTU, mtu);
    }

    /// Gives the pages of its rings back, but for the first ones: of those that have grown.
    pub fn forget(&self, w: &Window) {
        let keep = u64::from(crate::RING_LEAST);
        for by in [Side::Sentry, Side::Netd] {
            if w.load(self.place(by).size) > crate::RING_LEAST {
                // Memory that is not given back is used again.
                let _ = w.punch(self.data(by) + keep, u64::from(RING_MOST) - keep);
            }
        }
    }
}

fn waits(side: Side) -> u64 {
    if side == Side::Sentry { sentry::WAITS } else { netd::WAITS }
}

fn put(w: &Window, at: u64, address: SocketAddr) {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; 20];
    let (head, tail) = bytes.split_at_mut(16);
    head.copy_from_slice(&ip.octets());
    tail.iter_mut().zip(address.port().to_le_bytes()).for_each(|(to, b)| *to = b);
    // It lies in the window by construction.
    let _ = w.write(at, &bytes);
}

fn get(w: &Window, at: u64) -> Result<SocketAddr, Broken> {
    let mut bytes = [0; 20];
    w.read(at, &mut bytes).map_err(|_| Broken("an address outside of the window"))?;
    let [ip @ .., low, high, _, _] = bytes;
    let ip = Ipv6Addr::from(ip);
    let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
    Ok(SocketAddr::new(ip, u16::from_le_bytes([low, high])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WINDOW_BYTES;

    #[test]
    fn words_are_read_as_they_were_written() {
        let w = Window::create("test", WINDOW_BYTES).unwrap();
        let slot = Slot::new(&w, SLOTS - 1).unwrap();
        let of = |s: &str| s.parse::<SocketAddr>().unwrap();
        assert!(slot.wanted(&w).is_err() && !slot.is_released(&w));
        slot.prepare(&w, Operation::Connect, of("10.0.0.1:80"), Some(of("[fd00::1]:443")), 9);
        assert_eq!(slot.wanted(&w).unwrap(), (Operation::Connect, of("10.0.0.1:80"), of("[fd00::1]:443"), 9));
        let binding = Binding { reuse: true, only_v6: true, ..Binding::default() };
        let request = slot.ask(&w, Operation::Datagrams, (of("0.0.0.0:0"), None), 0, binding);
        assert_eq!((slot.asked(&w), slot.answered(&w, request)), ((request, binding), None));
        assert_eq!(slot.wanted(&w).unwrap().0, Operation::Datagrams);
        slot.answer(&w, request, Err(98));
        assert_eq!(slot.answered(&w, request), Some(Ok(Err(98))));
        slot.answer(&w, request, Ok(of("[::1]:7")));
        assert_eq!(slot.answered(&w, request), Some(Ok(Ok(of("[::1]:7")))));
        slot.begin(&w, 3, of("1.2.3.4:5"), of("6.7.8.9:10"));
        assert_eq!(slot.newcomer(&w).unwrap(), (3, of("1.2.3.4:5"), of("6.7.8.9:10")));
        assert_eq!(slot.told(&w), told::NEW | told::CONNECTED);
        let tuning = Tuning {
            nodelay: true,
            keepalive: 7200,
            keepalive_interval: 750,
            keepalive_probes: 9,
            user_timeout: 90_000,
            hops: 3,
            service: 16,
            largest_segment: 536,
            receive_buffer: 1,
            send_buffer: 2,
        };
        slot.tune(&w, tuning);
        assert_eq!(slot.tuning(&w), (1, tuning));
        slot.wait_for_room(&w, Side::Netd);
        assert!(slot.was_waited_for(&w, Side::Netd) && !slot.was_waited_for(&w, Side::Netd));
        slot.release(&w);
        assert!(slot.is_released(&w) && Slot::new(&w, SLOTS).is_err());
    }
}
