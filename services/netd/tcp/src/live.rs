//! One smoltcp socket: the buffers, the reassembly and the states of a connection that has something to do.
//!
//! Owns the socket in a set of its own, and the clock that smoltcp sees (`skew`: the engine's own retransmission timer fires earlier than
//! smoltcp's; the socket is then told that it is as late as its timer wants). A socket is made by playing a handshake to it, so that it
//! can be thrown away while nothing is under way and made again, with other buffers. Called by `connection` only.

use std::net::{IpAddr, SocketAddr};

use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpListenEndpoint};

use crate::Output;
use crate::segment::{Draft, PSH, SYN, ip_header};
use crate::train::{Port, Rewrite, Seen, Stage, Train};

/// How long an acknowledgement may wait for another segment or for data.
const ACK_DELAY: Duration = Duration::from_millis(10);

/// The number that smoltcp's generator draws second with this seed is `wanted`: the first is for IPv4's identification, the second the
/// initial sequence number. smoltcp has no other way to choose one, and its own can be foretold. `Live::new` looks whether it came out.
fn seed_for(wanted: u32) -> u64 {
    const M: u64 = 0xbb2e_fcec_3c39_611d;
    const A: u64 = 0x7590_ef39;
    // Newton's iteration for the inverse modulo 2^64.
    const INVERSE: u64 = {
        let mut x = M;
        let mut i = 0;
        while i < 6 {
            x = x.wrapping_mul(2u64.wrapping_sub(M.wrapping_mul(x)));
            i += 1;
        }
        x
    };
    let mut low = 0u64;
    loop {
        // Its highest three bits are 0, so that it is shifted by 29.
        let second = (u64::from(wanted) << 29) | low;
        let first = second.wrapping_sub(A).wrapping_mul(INVERSE);
        let drawn = (first >> 29u64.wrapping_sub(first >> 61)) as u32;
        // An identification of 0 would be drawn again.
        if (drawn ^ (drawn >> 16)) as u16 != 0 || low > 64 {
            return first.wrapping_sub(A).wrapping_mul(INVERSE);
        }
        low = low.wrapping_add(1);
    }
}

/// smoltcp's interfaces: what of it is not a socket is the same for all of one MTU.
pub(crate) struct Interfaces {
    known: Vec<(usize, Interface)>,
}

impl Interfaces {
    pub(crate) fn new() -> Self {
        Interfaces { known: Vec::new() }
    }

    fn make(mtu: usize, seed: u64) -> Interface {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut stage = Stage { mtu, packet: None, said: None, start: 20 };
        let mut interface = Interface::new(config, &mut stage, Instant::ZERO);
        interface.set_any_ip(true);
        interface
    }

    fn get(&mut self, mtu: usize) -> Option<&mut Interface> {
        if !self.known.iter().any(|(m, _)| *m == mtu) {
            if self.known.len() >= 16 {
                self.known.remove(0);
            }
            self.known.push((mtu, Self::make(mtu, 0)));
        }
        self.known.iter_mut().find(|(m, _)| *m == mtu).map(|(_, interface)| interface)
    }
}

impl std::fmt::Debug for Interfaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} interfaces", self.known.len())
    }
}

/// What a socket begins with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// The first sequence numbers of both directions.
    pub(crate) head: u32,
    pub(crate) tail: u32,

    pub(crate) peer_mss: u16,
    pub(crate) peer_scale: u8,
    pub(crate) sack: bool,
    /// What the peer takes: as its window field.
    pub(crate) window: u16,
    pub(crate) mtu: usize,
    pub(crate) receive: usize,
    pub(crate) send: usize,
    pub(crate) nodelay: bool,
    pub(crate) hop_limit: u8,
}

/// The way to the wire for a socket's packets.
pub(crate) struct Way<'a, O> {
    pub(crate) interfaces: &'a mut Interfaces,
    pub(crate) train: &'a mut Train,
    pub(crate) rewrite: Rewrite,
    pub(crate) mtu: usize,
    pub(crate) highest: u32,
    pub(crate) now: u64,
    pub(crate) out: &'a mut O,
}

pub(crate) struct Live {
    set: SocketSet<'static>,
    handle: SocketHandle,
    local: SocketAddr,
    remote: SocketAddr,
    skew: i64,
    /// The scale in which smoltcp writes its window.
    pub(crate) scale: u8,
    /// The sequence number of the first byte that is not acknowledged, without FIN.
    head: u32,
    /// The sequence number of the first byte that was not read.
    tail: u32,
    /// The window field that smoltcp last saw.
    given: u16,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {}..{}", self.socket().state(), self.head, self.tail)
    }
}

impl Live {
    /// Plays the peer's part of a handshake to a new socket. `None` only if smoltcp does not do what it did when this was written.
    pub(crate) fn new(start: &Start, unread: &[u8]) -> Option<Self> {
        let buffer = |bytes: usize| SocketBuffer::new(vec![0; bytes]);
        let mut socket = Socket::new(buffer(start.receive), buffer(start.send));
        socket.set_congestion_control(CongestionControl::None);
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set.add(socket);
        Self::play(set, handle, start, unread)
    }

    /// The same with the buffers of one that is not needed any more. Their sizes must be those that are wanted.
    pub(crate) fn again(self, start: &Start, unread: &[u8]) -> Option<Self> {
        let Live { mut set, handle, .. } = self;
        set.get_mut::<Socket<'_>>(handle).abort();
        Self::play(set, handle, start, unread)
    }

    fn play(mut set: SocketSet<'static>, handle: SocketHandle, start: &Start, unread: &[u8]) -> Option<Self> {
        let socket = set.get_mut::<Socket<'_>>(handle);
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(!start.nodelay);
        socket.set_hop_limit(Some(start.hop_limit.max(1)));
        let at = IpListenEndpoint { addr: Some(start.local.ip().into()), port: start.local.port() };
        socket.listen(at).ok()?;
        let first = start.head.wrapping_sub(1);
        let mut interface = Interfaces::make(start.mtu, seed_for(first));
        let header = ip_header(start.local.ip());
        let mut syn = Draft::new(start.remote, start.local, SYN, start.tail.wrapping_sub(1), None);
        syn.mss = Some(start.peer_mss);
        syn.scale = Some(start.peer_scale);
        syn.sack = start.sack;
        syn.window = start.window;
        let (bytes, length) = syn.build(0);
        let mut stage = Stage { mtu: start.mtu, packet: bytes.get(..length), said: None, start: header };
        interface.poll_ingress_single(Instant::ZERO, &mut stage, &mut set);
        interface.poll_egress(Instant::ZERO, &mut stage, &mut set);
        if stage.said?.0 != first {
            return None;
        }
        let mut live = Live {
            set,
            handle,
            local: start.local,
            remote: start.remote,
            skew: 0,
            scale: scale_of(start.receive),
            head: start.head,
            tail: start.tail,
            given: start.window,
        };
        // The third step; then a byte that was read already: smoltcp answers it and knows from then on what window it has promised. The one
        // in its SYN is not scaled, but it takes it for that, and would write behind its buffer's end.
        let mut answered = false;
        for (seq, payload) in [(start.tail, 0), (start.tail.wrapping_sub(1), 1)] {
            let mut ack = Draft::new(start.remote, start.local, 0, seq, Some(start.head));
            ack.window = start.window;
            let (bytes, length) = ack.build(payload);
            let packet = bytes.get(..length.saturating_add(payload));
            let mut stage = Stage { mtu: start.mtu, packet, said: None, start: header };
            interface.poll_ingress_single(Instant::ZERO, &mut stage, &mut live.set);
            answered = stage.said.is_some();
        }
        // What the one before had received.
        let mut seq = start.tail;
        for part in unread.chunks(32 << 10) {
            let packet = copy(start.remote, start.local, seq, start.head, start.window, part);
            let mut stage = Stage { mtu: start.mtu, packet: Some(&packet), said: None, start: header };
            interface.poll_ingress_single(Instant::ZERO, &mut stage, &mut live.set);
            seq = seq.wrapping_add(part.len() as u32);
        }
        if live.unread() != unread.len() {
            return None;
        }
        (answered && live.socket().state() == State::Established).then_some(live)
    }

    fn socket(&self) -> &Socket<'static> {
        self.set.get(self.handle)
    }

    fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.set.get_mut(self.handle)
    }

    pub(crate) fn unread(&self) -> usize {
        self.socket().recv_queue()
    }

    pub(crate) fn queued(&self) -> usize {
        self.socket().send_queue()
    }

    pub(crate) fn receive_capacity(&self) -> usize {
        self.socket().recv_capacity()
    }

    pub(crate) fn send_capacity(&self) -> usize {
        self.socket().send_capacity()
    }

    /// The first sequence number that is not acknowledged. smoltcp never knows of a FIN, neither ours nor the peer's: it would take no
    /// news of a window while it waits for the last acknowledgement, and no FIN that comes too early.
    pub(crate) fn unacknowledged(&self) -> u32 {
        self.head
    }

    /// The sequence number that is to come next.
    pub(crate) fn expected(&self) -> u32 {
        self.tail.wrapping_add(self.unread() as u32)
    }

    pub(crate) fn tune(&mut self, nodelay: bool, hop_limit: u8) {
        let socket = self.socket_mut();
        socket.set_nagle_enabled(!nodelay);
        socket.set_hop_limit(Some(hop_limit.max(1)));
    }

    pub(crate) fn recv(&mut self, f: impl FnOnce(&[u8]) -> usize) -> usize {
        let taken = self.socket_mut().recv(|bytes| {
            let taken = f(bytes).min(bytes.len());
            (taken, taken)
        });
        let taken = taken.unwrap_or(0);
        self.tail = self.tail.wrapping_add(taken as u32);
        taken
    }

    pub(crate) fn send(&mut self, f: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let put = self.socket_mut().send(|bytes| {
            let room = bytes.len();
            let put = f(bytes).min(room);
            (put, put)
        });
        put.unwrap_or(0)
    }

    fn time(&self, now: u64) -> Instant {
        Instant::from_micros(i64::try_from(now).unwrap_or(i64::MAX / 2).saturating_add(self.skew))
    }

    /// Gives smoltcp a packet. `at_once`: it is to be acknowledged without delay.
    pub(crate) fn receive<O: Output>(
        &mut self,
        packet: &[u8],
        window: u16,
        at_once: bool,
        way: &mut Way<'_, O>,
    ) -> Seen {
        self.socket_mut().set_ack_delay((!at_once).then_some(ACK_DELAY));
        let queued = self.queued();
        let time = self.time(way.now);
        let Some(interface) = way.interfaces.get(way.mtu) else { return Seen::default() };
        let mut port = Port {
            mtu: way.mtu,
            packet: Some(packet),
            train: way.train,
            rewrite: way.rewrite,
            highest: way.highest,
            seen: Seen::default(),
            out: way.out,
        };
        interface.poll_ingress_single(time, &mut port, &mut self.set);
        port.train.flush(port.out);
        let seen = port.seen;

        self.given = window;
        self.head = self.head.wrapping_add(queued.saturating_sub(self.queued()) as u32);
        seen
    }

    /// Tells smoltcp of an acknowledgement and a window.
    pub(crate) fn acknowledge<O: Output>(&mut self, ack: u32, window: u16, way: &mut Way<'_, O>) -> Seen {
        let mut draft = Draft::new(self.remote, self.local, 0, self.expected(), Some(ack));
        draft.window = window;
        let (bytes, length) = draft.build(0);
        self.receive(bytes.get(..length).unwrap_or_default(), window, false, way)
    }

    /// Tells smoltcp of the window, if it is not the one that it knows.
    pub(crate) fn set_window<O: Output>(&mut self, window: u16, way: &mut Way<'_, O>) {
        if self.given != window {
            self.acknowledge(self.unacknowledged(), window, way);
        }
    }

    /// Makes smoltcp send its first unacknowledged segment once more: three times the same is said to it, after something else.
    pub(crate) fn resend_first<O: Output>(&mut self, way: &mut Way<'_, O>) {
        let (ack, window) = (self.unacknowledged(), self.given);
        if window == 0 {
            return;
        }
        let other = if window == u16::MAX { window.saturating_sub(1) } else { window.saturating_add(1) };
        self.acknowledge(ack, other, way);
        for _ in 0..4 {
            self.acknowledge(ack, window, way);
        }
    }

    /// Lets smoltcp send one segment. False: it has none, or there is no room.
    pub(crate) fn step<O: Output>(&mut self, seen: &mut Seen, way: &mut Way<'_, O>) -> bool {
        let time = self.time(way.now);
        let Some(interface) = way.interfaces.get(way.mtu) else { return false };
        let mut port = Port {
            mtu: way.mtu,
            packet: None,
            train: way.train,
            rewrite: way.rewrite,
            highest: seen.youngest.unwrap_or(way.highest),
            seen: *seen,
            out: way.out,
        };
        let result = interface.poll_egress(time, &mut port, &mut self.set);
        *seen = port.seen;
        result == PollResult::SocketStateChanged
    }

    /// When smoltcp wants to be asked again.
    pub(crate) fn wants(&mut self, interfaces: &mut Interfaces, mtu: usize, now: u64) -> Option<u64> {
        let time = self.time(now);
        let at = interfaces.get(mtu)?.poll_at(time, &self.set)?;
        Some(u64::try_from(at.total_micros().saturating_sub(self.skew)).unwrap_or(0))
    }

    /// Makes it as late for smoltcp as its next timer wants.
    pub(crate) fn hurry(&mut self, interfaces: &mut Interfaces, mtu: usize, now: u64) -> bool {
        match self.wants(interfaces, mtu, now) {
            Some(at) if at > now => {
                self.skew = self.skew.saturating_add(i64::try_from(at.saturating_sub(now)).unwrap_or(0));
                true
            }
            Some(_) => true,
            None => false,
        }
    }
}

/// The scale that a window of so many bytes needs, as smoltcp reckons.
pub(crate) fn scale_of(bytes: usize) -> u8 {
    let bits = usize::BITS.saturating_sub(bytes.leading_zeros());
    u8::try_from(bits.saturating_sub(16)).unwrap_or(14).min(14)
}

/// A packet from the peer with this payload, for what must not be passed on as it came.
pub(crate) fn copy(from: SocketAddr, to: SocketAddr, seq: u32, ack: u32, window: u16, payload: &[u8]) -> Vec<u8> {
    let mut draft = Draft::new(from, to, PSH, seq, Some(ack));
    draft.window = window;
    let (bytes, length) = draft.build(payload.len());
    let mut packet = bytes.get(..length).unwrap_or_default().to_vec();
    packet.extend_from_slice(payload);
    packet
}

/// The largest segment for an MTU.
pub(crate) fn mss_of(ip: IpAddr, mtu: usize) -> u16 {
    u16::try_from(mtu.saturating_sub(ip_header(ip)).saturating_sub(20)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_begins_with_the_numbers_that_it_is_given() {
        let mut number = 1u32;
        let mut spare = None;
        for n in 0..2000u32 {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let v6 = n % 2 == 0;
            let (local, remote) = if v6 { ("[fd00::1]:80", "[fd00::2]:9") } else { ("10.0.0.1:80", "10.0.0.2:9") };
            let head = match n {
                0 => 0,
                1 => 1,
                2 => u32::MAX,
                _ => number,
            };
            let start = Start {
                local: local.parse().unwrap(),
                remote: remote.parse().unwrap(),
                head,
                tail: number.rotate_left(7),

                peer_mss: 1460,
                peer_scale: 7,
                sack: true,
                window: 500,
                mtu: 1500,
                receive: 1 << 20,
                send: 4096,
                nodelay: true,
                hop_limit: 64,
            };
            let unread = vec![n as u8; if n % 40 == 0 { n as usize * 100 } else { 0 }];
            let mut live = match spare.take() {
                None => Live::new(&start, &unread).unwrap(),
                Some(old) => Live::again(old, &start, &unread).unwrap(),
            };
            assert_eq!((live.unacknowledged(), live.expected()), (head, start.tail.wrapping_add(unread.len() as u32)));
            let mut rest = unread.len();
            while live.recv(|bytes| {
                assert!(bytes.iter().all(|&b| b == n as u8));
                rest -= bytes.len();
                bytes.len()
            }) > 0
            {}
            assert_eq!(rest, 0);
            assert_eq!((live.receive_capacity(), live.scale), (1 << 20, 5));
            spare = (n % 5 != 0).then_some(live);
        }
    }
}
