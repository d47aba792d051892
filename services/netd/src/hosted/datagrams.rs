//! Datagrams and echo requests: each pair of ends has a socket of the host's for a while.
//!
//! A socket is connected to the other end, so that nothing else comes there and the host tells when nobody is there. Published ports have a
//! socket each, by which whoever asked is answered. Bounded in number: the one that was used longest ago goes first. Called by `hosted`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use cofferdam_control::rules::{Action, Direction};
use cofferdam_socket::Broken;
use cofferdam_socket::packet;
use cofferdam_socket::sum::{checksum, pseudo};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};

use super::{Around, FLOWS, Nowhere, Watch};
use crate::ip::{self, Head, ICMP, ICMP6, UDP};

/// Datagrams of one socket that are taken before something else gets its turn.
const TURN: usize = 64;
/// How long a pair of ends is remembered after its last datagram; and one that only asks for a name, or is an echo.
const MEMORY: Duration = Duration::from_secs(180);
const SHORT: Duration = Duration::from_secs(15);
/// Who asked at a published port, at most.
const ASKERS: usize = 1024;
/// Bytes of a datagram that an error brings back.
pub(super) const TOLD: usize = 512;
/// The port where names are asked for.
const DOMAIN: u16 = 53;

/// Two ends: the sandbox's, and whom it meant. Of echo requests the first port is the identifier, and the second 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    pub protocol: u8,
    pub local: SocketAddr,
    pub remote: SocketAddr,
}

#[derive(Debug)]
struct Flow {
    socket: OwnedFd,
    ends: Ends,
    until: Instant,
    /// The beginning of what was sent last: an error brings it back.
    last: Vec<u8>,
}

#[derive(Debug)]
struct Door {
    socket: OwnedFd,
    port: u16,
    /// Who asked: as the sandbox sees him, who he is, and until when that is remembered.
    askers: HashMap<SocketAddr, (SocketAddr, Instant)>,
}

/// All of a sandbox's.
#[derive(Debug)]
pub(super) struct Datagrams {
    watch: Watch,
    most: usize,
    flows: HashMap<u32, Flow>,
    by_ends: HashMap<Ends, u32>,
    next: u32,
    doors: HashMap<u64, Door>,
    /// Sockets that may have more.
    again: Vec<u32>,
    doors_again: Vec<u64>,
    /// When it is next looked which are forgotten.
    sweep: Option<Instant>,
}

impl Datagrams {
    pub fn new(watch: Watch, most: usize) -> Self {
        Self {
            watch,
            most,
            flows: HashMap::new(),
            by_ends: HashMap::new(),
            next: 0,
            doors: HashMap::new(),
            again: Vec::new(),
            doors_again: Vec::new(),
            sweep: None,
        }
    }

    /// A socket of the caller's that is bound is for a port inside.
    pub fn publish(&mut self, which: u64, socket: OwnedFd, port: u16) {
        self.doors.insert(which, Door { socket, port, askers: HashMap::new() });
    }

    pub fn is_door(&self, which: u64) -> bool {
        self.doors.contains_key(&which)
    }

    pub fn len(&self) -> usize {
        self.flows.len()
    }

    pub fn is_busy(&self) -> bool {
        !self.again.is_empty() || !self.doors_again.is_empty()
    }

    pub fn next(&self) -> Option<Instant> {
        self.sweep
    }

    /// Sends what a packet of the Sentry's carries.
    pub fn send(&mut self, head: &packet::Head, data: &[u8], around: &mut Around) -> Result<(), Broken> {
        let Some((from, to, payload)) = ends(head, data) else {
            around.counters.broken += 1;
            return Ok(());
        };
        let ends = Ends { protocol: head.protocol, local: from, remote: to };
        if head.protocol == UDP
            && let Some(door) = self.doors.values_mut().find(|d| d.port == from.port() && d.askers.contains_key(&to))
        {
            if let Some((asker, until)) = door.askers.get_mut(&to) {
                *until = around.now + MEMORY;
                // What is lost is lost, as on a wire.
                let _ = rustix::net::sendto(&door.socket, payload, SendFlags::NOSIGNAL, asker);
            }
            return Ok(());
        }
        // What begins is judged, by the name that the sandbox has for it.
        if !self.by_ends.contains_key(&ends) {
            let [own, other] = if head.protocol == UDP { [from.port(), to.port()] } else { [0; 2] };
            if around.counters.filter.judge(Direction::Out, head.protocol, to.ip(), own, other) == Action::Deny {
                return tell(ends, payload, Errno::CONNREFUSED, around);
            }
        }
        let sent = self.flow(ends, around).and_then(|flow| {
            flow.last.clear();
            flow.last.extend_from_slice(payload.get(..payload.len().min(TOLD)).unwrap_or_default());
            match rustix::net::send(&flow.socket, payload, SendFlags::NOSIGNAL) {
                // It was about one that was sent before: this one has not gone yet.
                Err(Errno::CONNREFUSED) => rustix::net::send(&flow.socket, payload, SendFlags::NOSIGNAL),
                other => other,
            }
        });
        match sent {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => Ok(()),
            Err(why) => {
                around.counters.refused += 1;
                tell(ends, payload, why, around)
            }
        }
    }

    /// The socket of two ends.
    fn flow(&mut self, ends: Ends, around: &mut Around) -> Result<&mut Flow, Errno> {
        let Around { names, counters, now, .. } = around;
        let now = *now;
        let memory = if ends.protocol == UDP && ends.remote.port() != DOMAIN { MEMORY } else { SHORT };
        let number = match self.by_ends.get(&ends) {
            Some(number) => *number,
            None => {
                let to = names.meant(ends.remote).map_err(|why| {
                    counters.forbidden += u64::from(why == Nowhere::Forbidden);
                    if why == Nowhere::Nobody { Errno::HOSTUNREACH } else { Errno::NETUNREACH }
                })?;
                self.make(ends, to, now)?
            }
        };
        let flow = self.flows.get_mut(&number).ok_or(Errno::NOBUFS)?;
        flow.until = now + memory;
        self.sweep.get_or_insert(now + SHORT);
        Ok(flow)
    }

    fn make(&mut self, ends: Ends, to: SocketAddr, now: Instant) -> Result<u32, Errno> {
        if self.flows.len() >= self.most {
            let oldest = self.flows.iter().min_by_key(|(_, f)| f.until).map(|(number, _)| *number);
            self.forget(oldest.ok_or(Errno::NOBUFS)?);
        }
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let protocol = match ends.protocol {
            UDP => ipproto::UDP,
            ICMP => ipproto::ICMP,
            _ => ipproto::ICMPV6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, Some(protocol))?;
        rustix::net::connect(&socket, &to)?;
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.watch.add(socket.as_fd(), FLOWS | u64::from(number))?;
        self.by_ends.insert(ends, number);
        self.flows.insert(number, Flow { socket, ends, until: now, last: Vec::new() });
        Ok(number)
    }

    fn forget(&mut self, number: u32) {
        if let Some(flow) = self.flows.remove(&number) {
            self.by_ends.remove(&flow.ends);
        }
    }

    /// Something came at a socket.
    pub fn came(&mut self, number: u32, around: &mut Around) -> Result<(), Broken> {
        for _ in 0..TURN {
            let Some(flow) = self.flows.get_mut(&number) else { return Ok(()) };
            match rustix::net::recv(&flow.socket, &mut *around.buffer, RecvFlags::empty()) {
                Ok((n, _)) => {
                    flow.until = flow.until.max(around.now + SHORT);
                    let Ends { protocol, local, remote } = flow.ends;
                    deliver(protocol, (remote, local), n, around)?;
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => {
                    // Of what has left, whatever else befell it: the host is not reached.
                    let plain = matches!(e, Errno::CONNREFUSED | Errno::NETUNREACH);
                    tell(flow.ends, &flow.last, if plain { e } else { Errno::HOSTUNREACH }, around)?;
                }
            }
        }
        self.again.push(number);
        Ok(())
    }

    /// Something came at a published port.
    pub fn door(&mut self, which: u64, around: &mut Around) -> Result<(), Broken> {
        let now = around.now;
        let Some(door) = self.doors.get_mut(&which) else { return Ok(()) };
        for _ in 0..TURN {
            match rustix::net::recvfrom(&door.socket, &mut *around.buffer, RecvFlags::empty()) {
                Ok((n, _, from)) => {
                    let Some(asker) = from.and_then(|a| SocketAddr::try_from(a).ok()) else { continue };
                    // Who is listened to inside is not known here: what comes by IPv6 seems to come by it if there is any.
                    let (seen, own) = around.names.seen(asker, asker.ip().to_canonical().is_ipv4());
                    // Who he really is.
                    let known = door.askers.get(&seen).is_some_and(|(known, _)| *known == asker);
                    let filter = &mut around.counters.filter;
                    if !known && filter.judge(Direction::In, UDP, asker.ip(), door.port, asker.port()) == Action::Deny {
                        continue;
                    }
                    if door.askers.len() >= ASKERS && !door.askers.contains_key(&seen) {
                        let oldest = door.askers.iter().min_by_key(|(_, (_, until))| *until).map(|(seen, _)| *seen);
                        oldest.and_then(|seen| door.askers.remove(&seen));
                    }
                    door.askers.insert(seen, (asker, now + MEMORY));
                    self.sweep.get_or_insert(now + SHORT);
                    deliver(UDP, (seen, SocketAddr::new(own, door.port)), n, around)?;
                }
                Err(Errno::AGAIN) => return Ok(()),
                // An answer that did not arrive.
                Err(_) => {}
            }
        }
        self.doors_again.push(which);
        Ok(())
    }

    /// Goes on with what had no turn, and forgets what was not used for long.
    pub fn tick(&mut self, around: &mut Around) -> Result<(), Broken> {
        let now = around.now;
        for number in std::mem::take(&mut self.again) {
            self.came(number, around)?;
        }
        for which in std::mem::take(&mut self.doors_again) {
            self.door(which, around)?;
        }
        if self.sweep.is_some_and(|at| at <= now) {
            let old: Vec<u32> = self.flows.iter().filter(|(_, f)| f.until <= now).map(|(number, _)| *number).collect();
            old.into_iter().for_each(|number| self.forget(number));
            self.doors.values_mut().for_each(|d| d.askers.retain(|_, (_, until)| *until > now));
            let some = !self.flows.is_empty() || self.doors.values().any(|d| !d.askers.is_empty());
            self.sweep = some.then(|| now + SHORT);
        }
        Ok(())
    }
}

/// The ends of what a packet carries, and what of it the host is to send: of UDP the payload, of an echo request all.
pub(super) fn ends<'a>(head: &packet::Head, data: &'a [u8]) -> Option<(SocketAddr, SocketAddr, &'a [u8])> {
    let ([a, b, c, d, e, f, _, _], rest) = data.split_first_chunk::<8>()?;
    let word = |a: &u8, b: &u8| u16::from_be_bytes([*a, *b]);
    if head.protocol == UDP {
        let payload = rest.get(..usize::from(word(e, f)).checked_sub(8)?)?;
        return Some((SocketAddr::new(head.from, word(a, b)), SocketAddr::new(head.to, word(c, d)), payload));
    }
    let asks = (head.protocol == ICMP && *a == 8) || (head.protocol == ICMP6 && *a == 128);
    let sound = asks && head.to.is_ipv4() == (head.protocol == ICMP);
    sound.then(|| (SocketAddr::new(head.from, word(e, f)), SocketAddr::new(head.to, 0), data))
}

/// A datagram as the sandbox is to see it.
pub(super) fn carried(protocol: u8, (from, to): (SocketAddr, SocketAddr), payload: &[u8]) -> Option<Vec<u8>> {
    let mut data = Vec::with_capacity(payload.len() + 8);
    let place = if protocol == UDP {
        let len = u16::try_from(payload.len() + 8).ok()?;
        [from.port(), to.port(), len, 0].iter().for_each(|w| data.extend_from_slice(&w.to_be_bytes()));
        data.extend_from_slice(payload);
        6
    } else {
        // The identifier was the host's socket's.
        let ([kind, code, _, _, _, _, sequence @ ..], rest) = payload.split_first_chunk::<8>()?;
        let [a, b] = to.port().max(from.port()).to_be_bytes();
        data.extend_from_slice(&[*kind, *code, 0, 0, a, b]);
        data.extend_from_slice(sequence);
        data.extend_from_slice(rest);
        2
    };
    let summed = pseudo(from.ip(), to.ip(), protocol, data.len());
    let sum = if protocol == ICMP { checksum(&[&data]) } else { checksum(&[&summed, &data]) };
    let sum = if protocol == UDP && sum == 0 { u16::MAX } else { sum };
    data.iter_mut().skip(place).zip(sum.to_be_bytes()).for_each(|(to, b)| *to = b);
    Some(data)
}

/// Hands the Sentry a datagram, so much of the buffer.
fn deliver(protocol: u8, (from, to): (SocketAddr, SocketAddr), len: usize, around: &mut Around) -> Result<(), Broken> {
    around.received(len);
    let Some(data) = carried(protocol, (from, to), around.buffer.get(..len).unwrap_or_default()) else {
        around.counters.broken += 1;
        return Ok(());
    };
    let head = Head { from: from.ip(), to: to.ip(), protocol, hops: 64, service: 0, piece: None };
    hand_over(&head, &data, around)
}

/// Tells the Sentry that one of its datagrams did not arrive: as a router, or the other end, would.
pub(super) fn tell(ends: Ends, payload: &[u8], why: Errno, around: &mut Around) -> Result<(), Broken> {
    let remote = ends.remote;
    let kind = match (why, remote.is_ipv4()) {
        (Errno::CONNREFUSED, true) => (3, 3),
        (Errno::CONNREFUSED, false) => (1, 4),
        (Errno::HOSTUNREACH, true) => (3, 1),
        (Errno::HOSTUNREACH, false) => (1, 3),
        (Errno::ACCESS | Errno::PERM, true) => (3, 13),
        (Errno::ACCESS | Errno::PERM, false) => (1, 1),
        (_, true) => (3, 0),
        (_, false) => (1, 0),
    };
    tell_of(ends, payload, remote.ip(), kind, 0, around)
}

/// The same, said by somebody with that type and code of ICMP's, and a word of his.
pub(super) fn tell_of(
    ends: Ends,
    payload: &[u8],
    by: IpAddr,
    kind: (u8, u8),
    word: u32,
    around: &mut Around,
) -> Result<(), Broken> {
    let Ends { protocol, local, remote } = ends;
    let about = payload.get(..payload.len().min(TOLD)).unwrap_or_default();
    let Some(data) = carried(protocol, (local, remote), about) else { return Ok(()) };
    let own = Head { from: local.ip(), to: remote.ip(), protocol, hops: 64, service: 0, piece: None };
    match ip::build(&own, 0, true, &data).and_then(|raw| ip::unreachable(by, &raw, kind, word)) {
        Some((head, data)) => hand_over(&head, &data, around),
        None => Ok(()),
    }
}

fn hand_over(head: &Head, data: &[u8], around: &mut Around) -> Result<(), Broken> {
    // By the one interface that there is.
    const INTERFACE: u32 = 2;
    if !around.sentry.packet(&head.told(0, INTERFACE), data)? {
        around.counters.no_room += 1;
    }
    Ok(())
}
