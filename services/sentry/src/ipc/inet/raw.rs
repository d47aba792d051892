//! Raw and ping sockets, `raw(7)`, `icmp(7)`: packets of a protocol as they are, and echo requests, within a namespace.
//!
//! A packet goes straight to who is to have it: copies to the raw sockets of its protocol and family that are bound or connected to nothing
//! else, then to the protocol itself (`icmp`, `udp`). There are no packets of TCP, so none are heard, and none can be made. What is for elsewhere goes to netd, and what comes from there comes in here. What waits in a
//! socket is bounded as UDP's is. Who may have such a socket is asked where it is made (`syscalls::inet`).
//! Everything in a packet is the container's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::address::{Domain, Endpoint, canonical, six};
use super::groups::IGMP;
use super::icmp::{self, ICMP, ICMP6, checksum, pseudo};
use super::udp::{self, Along, Sending};
use super::{Inet, Kind, check_family, options};
use crate::errno::Errno;
use crate::ipc::packet;
use crate::namespaces::NetNamespace;
use crate::time::{Clock, now};
use crate::uio::Source;
use crate::wait::PollMask;

/// Most bytes of a packet.
const MOST: usize = 0xffff;
/// Bytes of a header without options.
const HEADER4: usize = 20;
const HEADER6: usize = 40;
const UDP: u8 = 17;

/// What a raw socket has besides what all have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw {
    /// Types of messages that it does not want, a bit each (`ICMP_FILTER`, `ICMP6_FILTER`).
    unwanted: [u32; 8],
    /// Where in what it sends and receives a sum belongs (`IPV6_CHECKSUM`); negative: nowhere.
    sum_at: i32,
}

impl Default for Raw {
    fn default() -> Self {
        Self { unwanted: [0; 8], sum_at: -1 }
    }
}

/// A packet within a namespace.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Packet {
    pub from: IpAddr,
    pub to: IpAddr,
    pub protocol: u8,
    pub ttl: u8,
    pub tos: u8,
    /// What follows the header.
    pub data: Vec<u8>,
    /// All of it, where a program made the header.
    pub whole: Option<Vec<u8>>,
    /// The number of the device that it came by, or is to leave by; 0: the loopback one, or whichever leads there.
    pub device: u32,
}

/// How far answers go.
pub fn hops(net: &NetNamespace) -> u8 {
    u8::try_from(net.settings.ttl.load(Ordering::Relaxed)).unwrap_or(64)
}

impl Packet {
    /// As much of a packet as an error brings back.
    pub(super) fn beginning(raw: &[u8]) -> Option<Self> {
        let six = raw.first()? >> 4 == 6;
        let at = |at: usize| raw.get(at).copied();
        let (from, to, protocol, len) = if six {
            let ip = |at: usize| raw.get(at..).and_then(<[u8]>::first_chunk::<16>).map(|b| Ipv6Addr::from(*b));
            (canonical(ip(8)?), canonical(ip(24)?), at(6)?, HEADER6)
        } else {
            let ip = |at: usize| raw.get(at..).and_then(<[u8]>::first_chunk::<4>).map(|b| IpAddr::from(*b));
            (ip(12)?, ip(16)?, at(9)?, usize::from(raw.first()? & 15) * 4)
        };
        let data = raw.get(len..)?.to_vec();
        Some(Self { from, to, protocol, ttl: 0, tos: 0, data, whole: None, device: 0 })
    }

    /// With its header.
    pub fn bytes(&self) -> Vec<u8> {
        if let Some(whole) = &self.whole {
            return whole.clone();
        }
        let mut raw = match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                /// Version 4, five words.
                const FORM: u8 = 0x45;
                const DONT_FRAGMENT: u8 = 0x40;
                let [high, low] = u16::try_from(HEADER4 + self.data.len()).unwrap_or(u16::MAX).to_be_bytes();
                let mut raw = vec![FORM, self.tos, high, low, 0, 0, DONT_FRAGMENT, 0, self.ttl, self.protocol, 0, 0];
                raw.extend_from_slice(&from.octets());
                raw.extend_from_slice(&to.octets());
                seal_header(&mut raw);
                raw
            }
            (from, to) => {
                let mut raw = vec![0x60 | self.tos >> 4, self.tos << 4, 0, 0];
                raw.extend_from_slice(&u16::try_from(self.data.len()).unwrap_or(u16::MAX).to_be_bytes());
                raw.extend_from_slice(&[self.protocol, self.ttl]);
                raw.extend_from_slice(&six(from).octets());
                raw.extend_from_slice(&six(to).octets());
                raw
            }
        };
        raw.extend_from_slice(&self.data);
        raw
    }

    /// Takes a packet apart that came as bytes. `None`: it is none, or a piece of one.
    fn whole(raw: &[u8]) -> Option<Self> {
        const FRAGMENT: u16 = 0x3fff;
        let word = |at: usize| raw.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u16::from_be_bytes(*b));
        let six = raw.first()? >> 4 == 6;
        if six {
            let whole = raw.get(..HEADER6.checked_add(usize::from(word(4)))?)?;
            return Self::made(whole.to_vec(), IpAddr::V6(Ipv6Addr::UNSPECIFIED)).ok()?;
        }
        let len = usize::from(raw.first()? & 15) * 4;
        let header = raw.get(..len).filter(|h| h.len() >= HEADER4)?;
        let whole = raw.get(..usize::from(word(2))).filter(|w| w.len() >= len)?;
        if checksum(&[header]) != 0 || word(6) & FRAGMENT != 0 {
            return None;
        }
        Self::made(whole.to_vec(), IpAddr::V4(Ipv4Addr::UNSPECIFIED)).ok()?
    }

    /// Takes a packet apart whose header a program made; what it left open is filled in. EINVAL; `None` where nobody would take it.
    fn made(mut raw: Vec<u8>, source: IpAddr) -> Result<Option<Self>, Errno> {
        if source.is_ipv6() {
            let head: [u8; HEADER6] = *raw.first_chunk().ok_or(Errno::EINVAL)?;
            let [_, _, _, _, _, _, protocol, ttl, addresses @ ..] = head;
            let ip =
                |from: usize| addresses.get(from..).and_then(<[u8]>::first_chunk::<16>).map(|b| Ipv6Addr::from(*b));
            let (from, to) = ip(0).zip(ip(16)).ok_or(Errno::EINVAL)?;
            let tos = head[0] << 4 | head[1] >> 4;
            let data = raw.split_off(HEADER6);
            let (from, to) = (canonical(from), canonical(to));
            let fits = head[0] >> 4 == 6;
            return Ok(fits.then_some(Self { from, to, protocol, ttl, tos, data, whole: None, device: 0 }));
        }
        let head: [u8; HEADER4] = *raw.first_chunk().ok_or(Errno::EINVAL)?;
        let len = usize::from(head[0] & 15) * 4;
        if !(HEADER4..=raw.len()).contains(&len) {
            return Err(Errno::EINVAL);
        }
        let total = u16::try_from(raw.len()).map_err(|_| Errno::EMSGSIZE)?;
        let mut fill = |at: usize, bytes: &[u8]| raw.iter_mut().skip(at).zip(bytes).for_each(|(to, b)| *to = *b);
        fill(2, &total.to_be_bytes());
        let mut from = Ipv4Addr::new(head[12], head[13], head[14], head[15]);
        if let (true, IpAddr::V4(source)) = (from.is_unspecified(), source) {
            fill(12, &source.octets());
            from = source;
        }
        let header = raw.get_mut(..len).ok_or(Errno::EINVAL)?;
        seal_header(header);
        const FRAGMENT: u16 = 0x3fff;
        // Of pieces nobody makes a whole here.
        let fits = head[0] >> 4 == 4 && u16::from_be_bytes([head[6], head[7]]) & FRAGMENT == 0;
        let packet = Self {
            from: IpAddr::V4(from),
            to: IpAddr::V4(Ipv4Addr::new(head[16], head[17], head[18], head[19])),
            protocol: head[9],
            ttl: head[8],
            tos: head[1],
            data: raw.get(len..).unwrap_or_default().to_vec(),
            whole: Some(raw),
            device: 0,
        };
        Ok(fits.then_some(packet))
    }
}

/// Puts the sum into a header of IPv4.
fn seal_header(header: &mut [u8]) {
    let fill = |header: &mut [u8], sum: [u8; 2]| header.iter_mut().skip(10).zip(sum).for_each(|(to, b)| *to = b);
    fill(header, [0; 2]);
    let sum = checksum(&[header]).to_be_bytes();
    fill(header, sum);
}

/// A packet is at one of the namespace's addresses. `by`: who sent it, if a socket did.
fn arrive(net: &Arc<NetNamespace>, by: Option<&Arc<Inet>>, packet: Packet) {
    // What a device that is down gets is lost.
    let mut next = Some(packet).filter(|_| net.loopback.is_up());
    // An answer brings no other.
    while let Some(p) = next.take() {
        // What is for many goes by its own device where there is one.
        let many = p.to.is_multicast() || net.is_broadcast(p.to);
        if !many || net.outside().is_none() {
            packet::see_within(net, &p, false);
        }
        let heard = hear(net, &p);
        next = match (p.protocol, p.to) {
            (ICMP, IpAddr::V4(_)) | (ICMP6, IpAddr::V6(_)) => icmp::take(net, &p),
            (UDP, _) => match by {
                Some(by) => {
                    by.deliver_datagram(&p);
                    None
                }
                None => unheard(net, &p, many),
            },
            // No such protocol.
            (_, IpAddr::V4(_)) if !heard && !many => Some(icmp::unreachable(net, &p, 2)),
            _ => None,
        };
    }
}

/// A packet has come from elsewhere.
pub fn come_in(net: &Arc<NetNamespace>, head: cofferdam_socket::packet::Head, data: Vec<u8>) {
    let (from, to) = (head.from, head.to);
    let p = Packet {
        from,
        to,
        protocol: head.protocol,
        ttl: head.hops,
        tos: head.service,
        data,
        whole: None,
        device: head.interface,
    };
    let heard = hear(net, &p);
    let many = to.is_multicast() || net.is_broadcast(to);
    let answer = match (p.protocol, to) {
        (ICMP, IpAddr::V4(_)) | (ICMP6, IpAddr::V6(_)) => {
            if let Some((_, inner)) = p.data.split_at_checked(icmp::HEADER) {
                udp::failed(net, &p, inner);
            }
            net.groups.heard(net, &p);
            icmp::take(net, &p)
        }
        (UDP, _) => unheard(net, &p, many),
        (IGMP, _) => {
            net.groups.heard(net, &p);
            None
        }
        (_, IpAddr::V4(_)) if !heard && !many => Some(icmp::unreachable(net, &p, 2)),
        _ => None,
    };
    if let (Some(answer), Some(outside)) = (answer, net.outside()) {
        let kind = answer.data.first().copied().unwrap_or(0);
        if !net.icmp.lock().allows(&net.settings.icmp, answer.to, kind, now(Clock::Monotonic)) {
            return;
        }
        let mtu = outside.path_mtu(answer.to);
        outside.send_packet(&answer, (false, mtu), 0);
    }
}

/// A datagram goes to who is there for it; what is said if nobody is.
fn unheard(net: &Arc<NetNamespace>, p: &Packet, many: bool) -> Option<Packet> {
    let code = if p.to.is_ipv4() { 3 } else { 4 };
    (!udp::come_in(net, p) && !many).then(|| icmp::unreachable(net, p, code))
}

/// A packet that a packet socket has sent over the loopback device. One that is broken, a piece, or for nobody here is lost; so is one of IPv4's that
/// says it comes from here: nothing that has been on a wire does.
pub fn looped(net: &Arc<NetNamespace>, raw: &[u8]) {
    let for_us = |p: &Packet| net.has(p.to) || p.to.is_multicast() || net.is_broadcast(p.to);
    let own = |p: &Packet| p.to.is_ipv4() && (p.from.is_loopback() || p.to.is_loopback() || net.has(p.from));
    let Some(p) = Packet::whole(raw).filter(|p| for_us(p) && !own(p)) else { return };
    let heard = hear(net, &p);
    let many = p.to.is_multicast() || net.is_broadcast(p.to);
    let answer = match (p.protocol, p.to) {
        (ICMP, IpAddr::V4(_)) | (ICMP6, IpAddr::V6(_)) => icmp::take(net, &p),
        (UDP, _) => unheard(net, &p, many),
        (_, IpAddr::V4(_)) if !heard && !many => Some(icmp::unreachable(net, &p, 2)),
        _ => None,
    };
    if let Some(answer) = answer {
        arrive(net, None, answer);
    }
}

/// Gives a copy to each raw socket that it is for; whether there was one.
pub fn hear(net: &NetNamespace, p: &Packet) -> bool {
    if net.raw.load(Ordering::Relaxed) == 0 {
        return false;
    }
    let all = net.ports(Kind::Raw(p.protocol)).lock().at(u16::from(p.protocol));
    let mut heard = false;
    for socket in all.iter().filter(|s| s.hears(p)) {
        heard = true;
        if socket.wants(p) {
            let data = if socket.domain == Domain::V4 { p.bytes() } else { p.data.clone() };
            socket.take_packet(data, p);
        }
    }
    heard
}

impl Inet {
    /// Notes that it hears of its protocol from now on.
    pub(super) fn listen_in(self: &Arc<Self>) {
        let Kind::Raw(protocol) = self.kind else { return };
        let port = u16::from(protocol);
        self.net.ports(self.kind).lock().take(self, port);
        self.net.raw.fetch_add(1, Ordering::Relaxed);
        let mut s = self.state.lock();
        s.local = Some(Endpoint { ip: self.domain.any(), port });
        s.holds = true;
        s.raw.sum_at = if protocol == ICMP6 && self.domain == Domain::V6 { 2 } else { -1 };
        // IPPROTO_RAW: its packets have headers.
        if protocol == u8::MAX {
            s.values.set(options::IP, options::HDRINCL, 1);
        }
    }

    /// It hears no more.
    fn leave_off(&self) {
        let local = {
            let mut s = self.state.lock();
            let held = std::mem::take(&mut s.holds);
            s.local.filter(|_| held)
        };
        if local.is_some() {
            self.unregister(local, None, None);
            if let Kind::Raw(_) = self.kind {
                self.net.raw.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// `connect(2)` to no family: nothing is left of its addresses, and a raw socket hears no more.
    pub fn raw_disconnect(&self) {
        self.leave_off();
        let mut s = self.state.lock();
        (s.local, s.peer, s.bound) = (None, None, [false; 2]);
    }

    pub(super) fn raw_close(&self) {
        self.leave_off();
        self.udp_close();
    }

    /// `bind(2)` of a raw socket to an address that it may have, as often as it likes. EINVAL, EADDRNOTAVAIL.
    pub fn raw_bind(&self, ip: IpAddr) -> Result<(), Errno> {
        if self.state.lock().peer.is_some() {
            return Err(Errno::EINVAL);
        }
        if !self.may_bind(ip) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let mut s = self.state.lock();
        let port = s.local.map_or(0, |l| l.port);
        s.local = Some(Endpoint { ip, port });
        Ok(())
    }

    /// Whether a packet is from and to where it is connected and bound.
    pub fn hears(&self, p: &Packet) -> bool {
        let s = self.state.lock();
        let four = self.domain == Domain::V4;
        let bound = s.local.is_none_or(|l| l.ip.is_unspecified() || l.ip == p.to);
        four == p.to.is_ipv4() && bound && s.peer.is_none_or(|peer| peer.ip == p.from)
    }

    /// Whether it lets the message's type and sum pass.
    fn wants(&self, p: &Packet) -> bool {
        let raw = self.state.lock().raw;
        let kind = p.data.first().copied().unwrap_or(0);
        let word = raw.unwanted.get(usize::from(kind / 32)).copied().unwrap_or(0);
        let filtered = match (self.domain, p.protocol) {
            (Domain::V4, ICMP) => kind < 32 && word & 1 << kind != 0,
            (Domain::V6, ICMP6) => word & 1 << (kind % 32) != 0,
            _ => false,
        };
        let summed = self.domain == Domain::V6 && raw.sum_at >= 0;
        let good = || checksum(&[&pseudo(p.from, p.to, p.protocol, p.data.len()), &p.data]) == 0;
        !filtered && (!summed || good())
    }

    /// Puts what came into its queue; what has no room is lost.
    pub(super) fn take_packet(&self, mut data: Vec<u8>, p: &Packet) {
        if let Some(filter) = self.filter() {
            match filter.run_packet(&data) as usize {
                0 => return,
                most => data.truncate(most),
            }
        }
        let along = Along::of(p, Endpoint { ip: p.from, port: 0 });
        if self.queue_packet(data, along) {
            self.queue.wake(PollMask::IN | PollMask::RDNORM);
        }
    }

    /// Sends a packet, or of a ping socket an echo request. EMSGSIZE, EINVAL, EDESTADDRREQ, ENETUNREACH, EACCES.
    pub fn raw_send(
        self: &Arc<Self>,
        from: &mut Source<'_>,
        to: Option<Endpoint>,
        how: Sending,
    ) -> Result<usize, Errno> {
        let count = from.left();
        if count > MOST {
            return Err(Errno::EMSGSIZE);
        }
        let data = if count == 0 { Vec::new() } else { from.take_vec(count)? };
        if data.len() < count {
            return Err(Errno::EFAULT);
        }
        let (protocol, ping) = match self.kind {
            Kind::Ping(p) => (p, true),
            _ => (u8::try_from(self.kind.protocol()).unwrap_or(0), false),
        };
        if ping {
            let [asks, _] = icmp::echo(protocol);
            if data.len() < icmp::HEADER || !data.starts_with(&[asks, 0]) {
                return Err(Errno::EINVAL);
            }
        }
        let mut to = match to {
            Some(to) => to,
            None => self.state.lock().peer.ok_or(Errno::EDESTADDRREQ)?,
        };
        if let Some(e) = self.take_error() {
            return Err(e);
        }
        if !(ping && self.domain == Domain::V6) {
            to = self.meant(to);
        }
        let source = self.source_of(to.ip)?;
        if self.is_broadcast(to.ip) && !self.options(|o| o.switch(options::BROADCAST)) {
            return Err(Errno::EACCES);
        }
        if ping {
            if self.state.lock().shut[1] {
                return Err(Errno::EPIPE);
            }
            self.autobind()?;
        }
        let made = !ping && self.values(|v| v.get(options::IP, options::HDRINCL)) != 0;
        let most = if self.domain == Domain::V4 && !made { MOST - HEADER4 } else { MOST };
        if data.len() > most {
            return Err(Errno::EMSGSIZE);
        }
        let packet = {
            let s = self.state.lock();
            let local = s.local.unwrap_or(Endpoint { ip: self.domain.any(), port: 0 });
            let own = how.from.unwrap_or(local.ip);
            let own = if own.is_unspecified() { source } else { own };
            check_family(own, to.ip)?;
            if made {
                Packet::made(data, own)?
            } else {
                let device = if how.device == 0 { Self::device(&s) } else { how.device };
                let ttl = how.ttl.unwrap_or_else(|| s.time_to_live(to.ip));
                let tos = how.tos.unwrap_or_else(|| s.service(to.ip));
                let mut p = Packet { from: own, to: to.ip, protocol, ttl, tos, data, whole: None, device };
                if ping {
                    // The number is the socket's own.
                    p.data.iter_mut().skip(4).zip(local.port.to_be_bytes()).for_each(|(to, b)| *to = b);
                    icmp::seal(&mut p);
                } else if let Ok(at) = usize::try_from(s.raw.sum_at) {
                    put_sum(&mut p, at)?;
                }
                Some(p)
            }
        };
        let Some(p) = packet else { return Ok(count) };
        let way = match &p.whole {
            // Its header says what it likes, but it goes as it is.
            Some(raw) if self.net.outside().is_some_and(|o| !self.is_own(p.to) && raw.len() > o.mtu(p.to) as usize) => {
                return Err(self.too_long(to, raw.len()));
            }
            Some(_) => (false, 0),
            None => self.way(p.to, p.data.len()).map_err(|_| self.too_long(to, count))?,
        };
        let many = p.to.is_multicast() || self.is_broadcast(p.to);
        if let Some(outside) = self.net.outside().filter(|_| !self.is_own(p.to)) {
            outside.send_packet(&p, way, p.device);
            if !many {
                return Ok(count);
            }
        }
        // Without a way out what is for elsewhere ends here, whatever its sender was told.
        if many || self.is_own(p.to) {
            arrive(&self.net, Some(self), p);
        }
        Ok(count)
    }

    /// `ICMP_FILTER`, `ICMP6_FILTER`.
    pub fn unwanted(&self) -> [u32; 8] {
        self.state.lock().raw.unwanted
    }

    /// Sets it.
    pub fn set_unwanted(&self, types: [u32; 8]) {
        self.state.lock().raw.unwanted = types;
    }

    /// `IPV6_CHECKSUM`.
    pub fn sum_at(&self) -> i32 {
        self.state.lock().raw.sum_at
    }

    /// Sets it. EINVAL: a place is an even one.
    pub fn set_sum_at(&self, at: i32) -> Result<(), Errno> {
        if at > 0 && at % 2 != 0 {
            return Err(Errno::EINVAL);
        }
        self.state.lock().raw.sum_at = at.max(-1);
        Ok(())
    }
}

/// Puts a sum to a place in what is sent. EINVAL where there is none.
fn put_sum(p: &mut Packet, at: usize) -> Result<(), Errno> {
    let len = p.data.len();
    let place = at.checked_add(2).and_then(|end| p.data.get_mut(at..end)).ok_or(Errno::EINVAL)?;
    place.fill(0);
    let sum = checksum(&[&pseudo(p.from, p.to, p.protocol, len), &p.data]);
    // 0 would mean that there is none.
    let sum = if sum == 0 { u16::MAX } else { sum };
    p.data.iter_mut().skip(at).zip(sum.to_be_bytes()).for_each(|(to, b)| *to = b);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_programs_make_are_read_and_filled_in() {
        let own: IpAddr = "127.0.0.1".parse().unwrap();
        let p =
            Packet { from: own, to: own, protocol: 253, ttl: 9, tos: 4, data: vec![1, 2, 3], whole: None, device: 0 };
        let raw = p.bytes();
        assert_eq!((raw.len(), checksum(&[&raw[..20]])), (23, 0));
        let again = Packet::made(raw.clone(), own).unwrap().unwrap();
        assert_eq!((again.to, again.protocol, again.ttl, again.tos, again.data), (own, 253, 9, 4, vec![1, 2, 3]));
        for len in 0..20 {
            assert!(Packet::made(raw[..len].to_vec(), own).is_err(), "{len}");
        }
        for (at, byte) in [(0, 0x4f), (0, 0x44), (0, 0x40)] {
            let mut bad = raw.clone();
            bad[at] = byte;
            assert!(Packet::made(bad, own).is_err(), "{byte:x}");
        }
        for (at, byte) in [(0, 0x65), (6, 0x20), (7, 1)] {
            let mut odd = raw.clone();
            odd[at] = byte;
            assert!(Packet::made(odd, own).unwrap().is_none(), "{at}");
        }
        let six: IpAddr = "::1".parse().unwrap();
        let raw = Packet { from: six, to: six, ..p }.bytes();
        let again = Packet::made(raw.clone(), six).unwrap().unwrap();
        assert_eq!((again.from, again.protocol, again.tos, again.data.len()), (six, 253, 4, 3));
        assert!(Packet::made(raw[..39].to_vec(), six).is_err());
    }
}
