//! UDP, `udp(7)`, between sockets of a namespace.
//!
//! A datagram goes straight into its receivers' queues. What does not fit there is lost without a word, as on Linux; what nobody takes comes
//! back as an error to who is connected or asked for errors (`IP_RECVERR`), as the ICMP message would have brought it.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::address::Endpoint;
use super::icmp::{self, checksum, pseudo};
use super::ports::best;
use super::raw::{self, Packet};
use super::{Inet, Kind, State, Waiting, check_family, is_full, options};
use crate::errno::Errno;
use crate::ipc::packet;
use crate::namespaces::NetNamespace;
use crate::namespaces::net::count;
use crate::net::Outside;
use crate::time::{Clock, now};
use crate::uio::{Sink, Source};
use crate::wait::PollMask;

/// Most bytes of a datagram: what the length fields of IP and UDP leave.
const MOST4: usize = 65_507;
const MOST6: usize = 65_527;
/// Its number, and bytes of its header.
const PROTOCOL: u8 = 17;
const HEADER: usize = 8;
/// What a datagram costs beside its bytes.
const COST: usize = 512;
/// Errors that wait to be read.
const ERRORS: usize = 64;
/// Groups a socket may be a member of (`net.ipv4.igmp_max_memberships`).
const MEMBERSHIPS: usize = 20;

/// What comes with a datagram, and is told to who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Along {
    /// Where it came from.
    pub from: Endpoint,
    /// Where it was sent to.
    pub to: IpAddr,
    /// Time to live, or hops.
    pub ttl: u8,
    /// Type of service, or traffic class.
    pub tos: u8,
    /// When it was sent, `CLOCK_REALTIME` nanoseconds.
    pub time: i64,
    /// The number of the device that it came by, or leaves by; of the latter 0: whichever leads there.
    pub device: u32,
}

impl Along {
    /// What comes with a packet.
    pub(super) fn of(p: &Packet, from: Endpoint) -> Self {
        Self { from, to: p.to, ttl: p.ttl, tos: p.tos, time: now(Clock::Realtime), device: p.device }
    }
}

struct Datagram {
    data: Vec<u8>,
    along: Along,
}

/// An error that came back, or that was found as it was sent (`MSG_ERRQUEUE`).
#[derive(Clone, Debug)]
pub struct Failed {
    /// What was sent.
    pub data: Vec<u8>,
    /// Where to.
    pub to: Endpoint,
    /// Why, and who says so.
    pub why: Why,
}

/// Why a datagram was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nobody has the port, says that address.
    Nobody(IpAddr),
    /// A message of ICMP's says so: by whom, type, code, what it adds.
    Told(IpAddr, u8, u8, u32),
    /// It is longer than what goes over the device.
    TooLong(u32),
}

/// What a UDP socket has besides what all have.
#[derive(Default)]
pub(crate) struct Udp {
    queue: VecDeque<Datagram>,
    bytes: Waiting,
    errors: VecDeque<Failed>,
    groups: Vec<(IpAddr, u32)>,
    /// What is held back until the rest comes (`MSG_MORE`, `UDP_CORK`), and where it goes.
    corked: Option<(Endpoint, Vec<u8>)>,
}

/// How a datagram is to be sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sending {
    /// The rest of it is still to come.
    pub more: bool,
    /// Instead of the socket's own time to live and type of service.
    pub ttl: Option<u8>,
    /// See `ttl`.
    pub tos: Option<u8>,
    /// Instead of the address that it would come from.
    pub from: Option<IpAddr>,
    /// It is not sent, only looked at where it would go (`MSG_PROBE`).
    pub probe: bool,
    /// It is cut into datagrams of so many bytes (`UDP_SEGMENT`); 0: it is one.
    pub segment: usize,
    /// The device that it leaves by, instead of the one that leads there; 0: none in particular.
    pub device: u32,
}

/// What was received.
#[derive(Clone, Copy, Debug)]
pub struct Got {
    /// Bytes put.
    pub count: usize,
    /// Bytes of the whole datagram.
    pub length: usize,
    /// `None` where nothing comes any more.
    pub along: Option<Along>,
}

impl Got {
    /// A socket that does not wait knows no end.
    pub fn unless_ended(self, nonblocking: bool) -> Result<Self, Errno> {
        if self.along.is_none() && nonblocking { Err(Errno::EAGAIN) } else { Ok(self) }
    }
}

impl State {
    pub(super) fn time_to_live(&self, to: IpAddr) -> u8 {
        let (level, option, default) = match (to, to.is_multicast()) {
            (IpAddr::V4(_), false) => (options::IP, options::TTL, 64),
            (IpAddr::V4(_), true) => (options::IP, options::MULTICAST_TTL, 1),
            (IpAddr::V6(_), false) => (options::IPV6, options::UNICAST_HOPS, 64),
            (IpAddr::V6(_), true) => (options::IPV6, options::MULTICAST_HOPS, 1),
        };
        u8::try_from(self.values.get(level, option)).unwrap_or(default)
    }

    pub(super) fn service(&self, to: IpAddr) -> u8 {
        let value = match to {
            IpAddr::V4(_) => self.values.get(options::IP, options::TOS),
            IpAddr::V6(_) => self.values.get(options::IPV6, options::TCLASS).max(0),
        };
        value as u8
    }

    /// Whether what it sends to a group is heard within, too (`IP_MULTICAST_LOOP`).
    fn hears_itself(&self, to: IpAddr) -> bool {
        const LOOP: i32 = 34;
        const LOOP6: i32 = 19;
        !to.is_multicast()
            || match to {
                IpAddr::V4(_) => self.values.get(options::IP, LOOP) != 0,
                IpAddr::V6(_) => self.values.get(options::IPV6, LOOP6) != 0,
            }
    }

    fn wants_errors(&self, to: IpAddr) -> bool {
        match to {
            IpAddr::V4(_) => self.values.get(options::IP, options::RECVERR) != 0,
            IpAddr::V6(_) => self.values.get(options::IPV6, options::RECVERR6) != 0,
        }
    }
}

impl Inet {
    /// `connect(2)`: from now on to and from there only. `Some`: the host is to be asked for that.
    pub fn udp_connect(self: &Arc<Self>, to: Endpoint) -> Result<Option<Endpoint>, Errno> {
        let to = self.meant(to);
        let source = self.source_of(to.ip)?;
        if self.is_broadcast(to.ip) && !self.options(|o| o.switch(options::BROADCAST)) {
            return Err(Errno::EACCES);
        }
        if self.host().is_some() {
            return Ok(Some(to));
        }
        self.autobind()?;
        let mut s = self.state.lock();
        let local = s.local.ok_or(Errno::EAGAIN)?;
        let ip = if local.ip.is_unspecified() { source } else { local.ip };
        check_family(ip, to.ip)?;
        s.local = Some(Endpoint { ip, ..local });
        s.peer = Some(to);
        Ok(None)
    }

    /// Forgets the peer (`connect(2)` to AF_UNSPEC), and the address and port that were not asked for.
    pub fn udp_disconnect(self: &Arc<Self>) {
        let (freed, place) = {
            let mut s = self.state.lock();
            s.peer = None;
            let [ip_stays, port_stays] = s.bound;
            let before = s.local;
            s.local = before.map(|l| Endpoint {
                ip: if ip_stays { l.ip } else { self.domain.any() },
                port: if port_stays { l.port } else { 0 },
            });
            let held = s.holds;
            s.holds = held && port_stays;
            (before.filter(|_| held && !port_stays), s.place.take())
        };
        // Its place on the host goes with it; where the port stays there is another at once.
        if let Some(place) = place {
            place.close();
            if freed.is_none() {
                let _ = self.settle_soon();
            }
        }
        if freed.is_some() {
            self.unregister(freed, None, None);
        }
    }

    /// The address that a datagram to there comes from; multicast and broadcast by the device that was asked for. ENETUNREACH.
    pub(super) fn source_of(&self, to: IpAddr) -> Result<IpAddr, Errno> {
        if !to.is_multicast() && to != IpAddr::V4(Ipv4Addr::BROADCAST) {
            return self.source(to);
        }
        let (out, device) = {
            let s = self.state.lock();
            (s.values.interface(to.is_ipv4()), Self::device(&s))
        };
        let asked = out.filter(|_| self.net.loopback.is_up());
        let other = || self.net.outside().and_then(|o| o.any(to.is_ipv4(), device));
        asked.or_else(other).ok_or(Errno::ENETUNREACH)
    }

    /// Sends a datagram to there, or to the peer. EDESTADDRREQ, EMSGSIZE, ENETUNREACH, EACCES, an error that came back before.
    pub fn udp_send(
        self: &Arc<Self>,
        from: &mut Source<'_>,
        to: Option<Endpoint>,
        how: Sending,
    ) -> Result<usize, Errno> {
        let (to, held) = {
            let mut s = self.state.lock();
            if s.shut[1] {
                return Err(Errno::EPIPE);
            }
            let held = s.udp.corked.take();
            let to = held.as_ref().map(|(to, _)| *to).or(to).or(s.peer).ok_or(Errno::EDESTADDRREQ)?;
            if let Some(e) = s.error.take() {
                return Err(e);
            }
            (to, held)
        };
        if to.port == 0 {
            return Err(Errno::EINVAL);
        }
        let to = self.meant(to);
        let source = self.source_of(to.ip)?;
        if self.is_broadcast(to.ip) && !self.options(|o| o.switch(options::BROADCAST)) {
            return Err(Errno::EACCES);
        }
        let most = if to.ip.is_ipv4() { MOST4 } else { MOST6 };
        let mut data = held.map(|(_, data)| data).unwrap_or_default();
        let count = from.left();
        let length = data.len().saturating_add(count);
        if length > most {
            return Err(self.too_long(to, length));
        }
        if count > 0 {
            data.extend(from.take_vec(count)?);
        }
        if how.more || self.values(|v| v.get(options::UDP, options::CORK)) != 0 {
            self.state.lock().udp.corked = Some((to, data));
            return Ok(count);
        }
        self.autobind()?;
        let (along, peer) = {
            let s = self.state.lock();
            // What the host has not given yet is none in particular.
            let unknown = self.host().map(|_| Endpoint { ip: self.domain.any(), port: 0 });
            let local = s.local.or(unknown).ok_or(Errno::EAGAIN)?;
            let own = how.from.unwrap_or(local.ip);
            // In the host's own network the host knows better.
            let own = if own.is_unspecified() && unknown.is_none() { source } else { own };
            if !own.is_unspecified() {
                check_family(own, to.ip)?;
            }
            let along = Along {
                from: Endpoint { ip: own, port: local.port },
                to: to.ip,
                ttl: how.ttl.unwrap_or_else(|| s.time_to_live(to.ip)),
                tos: how.tos.unwrap_or_else(|| s.service(to.ip)),
                time: now(Clock::Realtime),
                device: if how.device == 0 { Self::device(&s) } else { how.device },
            };
            (along, s.peer)
        };
        if how.segment == 0 && self.way(to.ip, data.len().saturating_add(HEADER)).is_err() {
            return Err(self.too_long(to, length));
        }
        if how.probe {
            return Ok(count);
        }
        let size = if how.segment == 0 { data.len() } else { how.segment };
        let send = |data: Vec<u8>| {
            self.deliver(to, data, along, peer, true);
        };
        if size >= data.len() {
            send(data);
        } else {
            data.chunks(size).for_each(|d| send(d.to_vec()));
        }
        Ok(count)
    }

    /// Who asked for errors is told of one that is too long, too; not of what no length field of IPv4 holds.
    pub(super) fn too_long(&self, to: Endpoint, length: usize) -> Errno {
        let outside = self.net.outside().filter(|_| !self.is_own(to.ip));
        let known = outside.map(|o| self.mtu(o, to.ip, self.discovers(to.ip)));
        let mut s = self.state.lock();
        let (limit, told) = if to.ip.is_ipv4() { (65_535, length <= 65_535) } else { (65_536, true) };
        let limit = known.unwrap_or(limit);
        if !told || !s.wants_errors(to.ip) || s.udp.errors.len() >= ERRORS {
            return Errno::EMSGSIZE;
        }
        // IPv4 tells of the port that the socket is connected to.
        let port = if to.ip.is_ipv4() { s.peer.map_or(0, |p| p.port) } else { to.port };
        let failed = Failed { data: Vec::new(), to: Endpoint { port, ..to }, why: Why::TooLong(limit) };
        s.udp.errors.push_back(failed);
        drop(s);
        self.queue.wake(PollMask::ERR);
        Errno::EMSGSIZE
    }

    /// Sends what was held back (`UDP_CORK` turned off).
    pub fn udp_uncork(self: &Arc<Self>) {
        if self.state.lock().udp.corked.is_some() {
            let _ = self.udp_send(&mut Source::kernel(&[]), None, Sending::default());
        }
    }

    /// `fresh`: nobody who looks at packets has seen it yet.
    fn deliver(&self, to: Endpoint, data: Vec<u8>, along: Along, peer: Option<Endpoint>, fresh: bool) {
        count(&self.net.counts.sent);
        if self.host().is_some() {
            return self.send_from_place(&Self::packet(to, &data, along));
        }
        let mut left = false;
        let many = to.ip.is_multicast() || self.is_broadcast(to.ip);
        // Elsewhere; what is for many is for those within, too.
        if let Some(outside) = self.net.outside().filter(|_| !self.is_own(to.ip)) {
            let away = !many || outside.network.has(along.from.ip);
            left = away;
            if away {
                let way = self.way(to.ip, data.len().saturating_add(HEADER)).unwrap_or((false, 0));
                outside.send_packet(&Self::packet(to, &data, along), way, along.device);
            }
            if !many || away && !self.state.lock().hears_itself(to.ip) {
                return;
            }
        }
        // What a device that is down gets is lost.
        if !self.net.loopback.is_up() {
            return;
        }
        if fresh {
            self.show(to, &data, along, left);
        }
        let Some(data) = hand_over(&self.net, to, data, along) else { return };
        count(&self.net.counts.no_port);
        self.tell_unreachable(to, &data, along);
        // Nobody there: the error is for who is connected, or asked.
        let mut s = self.state.lock();
        let asked = s.wants_errors(to.ip);
        if !asked && peer.is_none() {
            return;
        }
        if asked && s.udp.errors.len() < ERRORS {
            s.udp.errors.push_back(Failed { data, to, why: Why::Nobody(to.ip) });
        }
        s.error = Some(Errno::ECONNREFUSED);
        drop(s);
        self.queue.wake(PollMask::ERR);
    }

    /// How something of that length goes there: as one packet, or in pieces of a size, 0 for what the device takes. EMSGSIZE: not at all
    /// (`IP_MTU_DISCOVER`, `IPV6_MTU_DISCOVER`, `IPV6_DONTFRAG`, `IPV6_MTU`).
    pub(super) fn way(&self, to: IpAddr, len: usize) -> Result<(bool, u32), Errno> {
        use super::options::discover::{DO, INTERFACE, PROBE, WANT};
        let Some(outside) = self.net.outside().filter(|_| !self.is_own(to)) else { return Ok((false, 0)) };
        let how = self.discovers(to);
        let mtu = self.mtu(outside, to, how);
        let (four, header) = (to.is_ipv4(), if to.is_ipv4() { 20 } else { 40 });
        let fits = len.saturating_add(header) <= mtu as usize;
        let whole = !four && self.values(|v| v.get(options::IPV6, options::DONTFRAG6)) != 0;
        if !fits && (whole || [DO, PROBE, INTERFACE].contains(&how)) {
            return Err(Errno::EMSGSIZE);
        }
        // A router may take a packet of IPv4 apart, unless it is told not to.
        Ok((four && fits && [WANT, DO, PROBE].contains(&how), mtu))
    }

    /// How the longest packet to somewhere is to be found (`IP_MTU_DISCOVER`, `IPV6_MTU_DISCOVER`).
    fn discovers(&self, to: IpAddr) -> i32 {
        let level = if to.is_ipv4() { (options::IP, options::DISCOVER) } else { (options::IPV6, options::DISCOVER6) };
        self.values(|v| v.get(level.0, level.1))
    }

    fn mtu(&self, outside: &Outside, to: IpAddr, how: i32) -> u32 {
        let mtu = if how >= options::discover::PROBE { outside.mtu(to) } else { outside.path_mtu(to) };
        let asked = self.values(|v| v.kept(options::IPV6, options::MTU6)).and_then(|n| u32::try_from(n).ok());
        mtu.min(asked.filter(|n| to.is_ipv6() && *n > 0).unwrap_or(u32::MAX))
    }

    /// The longest packet to the peer, who is elsewhere (`IP_MTU`).
    pub fn mtu_of_peer(&self) -> Option<u32> {
        let to = self.peer().ok()?.ip;
        let outside = self.net.outside().filter(|_| !self.is_own(to))?;
        let of_connection = self.state.lock().tcp.remote.as_ref().map(super::remote::Remote::mtu);
        Some(of_connection.filter(|n| *n > 0).unwrap_or(u32::MAX).min(outside.path_mtu(to)))
    }

    /// A datagram as the packet that it would be.
    fn packet(to: Endpoint, data: &[u8], along: Along) -> Packet {
        let mut bytes = along.from.port.to_be_bytes().to_vec();
        bytes.extend_from_slice(&to.port.to_be_bytes());
        bytes.extend_from_slice(&u16::try_from(data.len() + HEADER).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend_from_slice(&[0; 2]);
        bytes.extend_from_slice(data);
        let (from, to) = (along.from.ip, to.ip);
        let sum = checksum(&[&pseudo(from, to, PROTOCOL, bytes.len()), &bytes]);
        let sum = if sum == 0 { u16::MAX } else { sum };
        bytes.iter_mut().skip(6).zip(sum.to_be_bytes()).for_each(|(to, b)| *to = b);
        let device = along.device;
        Packet { from, to, protocol: PROTOCOL, ttl: along.ttl, tos: along.tos, data: bytes, whole: None, device }
    }

    /// Raw sockets get a copy; packet sockets, too, of what did not leave by a device of its own.
    fn show(&self, to: Endpoint, data: &[u8], along: Along, left: bool) {
        if self.is_watched() {
            let p = Self::packet(to, data, along);
            if !left {
                packet::see_within(&self.net, &p, true);
            }
            raw::hear(&self.net, &p);
        }
    }

    /// Whether somebody looks at packets.
    fn is_watched(&self) -> bool {
        self.net.raw.load(Ordering::Relaxed) > 0 || self.net.taps.any()
    }

    /// They hear that nobody has the port, too.
    fn tell_unreachable(&self, to: Endpoint, data: &[u8], along: Along) {
        if self.is_watched() {
            let code = if to.ip.is_ipv4() { 3 } else { 4 };
            let p = icmp::unreachable(&self.net, &Self::packet(to, data, along), code);
            packet::see_within(&self.net, &p, false);
            raw::hear(&self.net, &p);
        }
    }

    /// A datagram that a raw socket made. One that is broken is lost.
    pub(super) fn deliver_datagram(&self, p: &Packet) {
        if let Some((to, data, along)) = read(p) {
            self.deliver(to, data, along, None, false);
        }
    }

    /// Puts a packet of a raw or ping socket into its queue; whether there was room.
    pub(super) fn queue_packet(&self, data: Vec<u8>, along: Along) -> bool {
        let mut s = self.state.lock();
        let cost = data.len().saturating_add(COST);
        if s.udp.bytes.get().saturating_add(cost) > s.receive_buffer || is_full() {
            return false;
        }
        s.udp.bytes.add(cost);
        s.udp.queue.push_back(Datagram { data, along });
        true
    }

    /// How well it fits a datagram; `None`: not at all.
    fn udp_score(&self, to: Endpoint, along: &Along, many: bool) -> Option<u32> {
        let (s, from) = (self.state.lock(), along.from);
        if !self.hears_device(&s, along.device) {
            return None;
        }
        let claim = self.claim_of(&s);
        let connected = match s.peer {
            Some(peer) if peer != from => return None,
            peer => u32::from(peer.is_some()),
        };
        if many {
            // Groups are for members, and for who wants to hear what another joined for.
            let (level, all) = match to.ip {
                IpAddr::V4(_) => (options::IP, options::MULTICAST_ALL),
                IpAddr::V6(_) => (options::IPV6, options::MULTICAST_ALL6),
            };
            let member = !to.ip.is_multicast()
                || s.udp.groups.iter().any(|(group, _)| *group == to.ip)
                || s.values.get(level, all) != 0 && self.net.groups.has(to.ip);
            return claim.score(to.ip).filter(|_| member);
        }
        claim.score(to.ip).map(|score| score + 4 * connected)
    }

    pub(super) fn udp_take(&self, mut data: Vec<u8>, along: Along) {
        if let Some(filter) = self.filter() {
            // Filters see the datagram with its header.
            let mut packet = along.from.port.to_be_bytes().to_vec();
            packet.extend_from_slice(&self.name().port.to_be_bytes());
            packet.extend_from_slice(&u16::try_from(data.len() + 8).unwrap_or(u16::MAX).to_be_bytes());
            packet.extend_from_slice(&[0; 2]);
            packet.extend_from_slice(&data);
            match (filter.run_packet(&packet) as usize).checked_sub(8) {
                Some(most) => data.truncate(most),
                None => return,
            }
        }
        let mut s = self.state.lock();
        if s.shut[0] && s.peer.is_none() && self.kind != Kind::Udp {
            return;
        }
        let cost = data.len().saturating_add(COST);
        if s.udp.bytes.get().saturating_add(cost) > s.receive_buffer || is_full() {
            count(&self.net.counts.lost);
            return;
        }
        count(&self.net.counts.received);
        s.udp.bytes.add(cost);
        s.udp.queue.push_back(Datagram { data, along });
        drop(s);
        self.queue.wake(PollMask::IN | PollMask::RDNORM);
    }

    /// Receives a datagram. EAGAIN, or an error that came back.
    pub fn udp_receive(&self, to: &mut Sink<'_>, peek: bool) -> Result<Got, Errno> {
        let mut s = self.state.lock();
        if let Some(e) = s.error.take() {
            return Err(e);
        }
        // Where a peek begins (`SO_PEEK_OFF`).
        let at = s.options.peek_from;
        let skip = if peek { usize::try_from(at).unwrap_or(0) } else { 0 };
        let Some(first) = s.udp.queue.front() else {
            return if s.shut[0] { Ok(Got { count: 0, length: 0, along: None }) } else { Err(Errno::EAGAIN) };
        };
        let (length, along) = (first.data.len(), first.along);
        if peek {
            let rest = first.data.get(skip.min(length)..).unwrap_or_default();
            let count = if rest.is_empty() { 0 } else { to.put(rest)? };
            if at >= 0 {
                s.options.peek_from = at.saturating_add(i32::try_from(count).unwrap_or(i32::MAX));
            }
            return Ok(Got { count, length: length - skip.min(length), along: Some(along) });
        }
        // One that cannot be copied out is lost, as on Linux.
        let taken = s.udp.queue.pop_front();
        s.udp.bytes.take(length.saturating_add(COST));
        if at > 0 {
            s.options.peek_from = at.saturating_sub(i32::try_from(length).unwrap_or(i32::MAX)).max(0);
        }
        drop(s);
        let data = taken.map(|t| t.data).unwrap_or_default();
        let count = if data.is_empty() { 0 } else { to.put(&data)? };
        Ok(Got { count, length, along: Some(along) })
    }

    /// Takes an error that came back (`MSG_ERRQUEUE`). EAGAIN.
    pub fn udp_failed(&self) -> Result<Failed, Errno> {
        let mut s = self.state.lock();
        let failed = s.udp.errors.pop_front().ok_or(Errno::EAGAIN)?;
        let came_back = |f: &Failed| match f.why {
            Why::Nobody(_) => Some(Errno::ECONNREFUSED),
            Why::Told(_, kind, code, _) => icmp::error_of(f.to.ip.is_ipv4(), kind, code).map(|(error, _)| error),
            Why::TooLong(_) => None,
        };
        // With the last of those that came back the socket's own error is told, too.
        if let Some(next) = s.udp.errors.front().and_then(came_back) {
            s.error = Some(next);
        } else if came_back(&failed).is_some() {
            s.error = None;
        }
        Ok(failed)
    }

    /// Bytes of the next datagram.
    pub fn udp_waiting(&self) -> usize {
        self.state.lock().udp.queue.front().map_or(0, |d| d.data.len())
    }

    /// Bytes that wait, with what they cost.
    pub fn udp_queued(&self) -> usize {
        self.state.lock().udp.bytes.get()
    }

    /// Joins a group on a device. EADDRINUSE, ENOBUFS.
    pub fn join(&self, group: IpAddr, device: u32) -> Result<(), Errno> {
        let own = (group, device);
        {
            let mut s = self.state.lock();
            if s.udp.groups.contains(&own) {
                return Err(Errno::EADDRINUSE);
            }
            if s.udp.groups.len() >= MEMBERSHIPS {
                return Err(Errno::ENOBUFS);
            }
            s.udp.groups.push(own);
        }
        let joined = self.net.groups.join(&self.net, group, device);
        if joined.is_err() {
            self.state.lock().udp.groups.retain(|g| *g != own);
        }
        joined
    }

    /// Leaves it. EADDRNOTAVAIL.
    pub fn leave(&self, group: IpAddr, device: u32) -> Result<(), Errno> {
        {
            let mut s = self.state.lock();
            let at = s.udp.groups.iter().position(|g| *g == (group, device)).ok_or(Errno::EADDRNOTAVAIL)?;
            s.udp.groups.swap_remove(at);
        }
        self.net.groups.leave(&self.net, group, device);
        Ok(())
    }

    pub(super) fn udp_shutdown(&self, read: bool, write: bool) -> Result<(), Errno> {
        let connected = {
            let mut s = self.state.lock();
            s.shut[0] |= read;
            s.shut[1] |= write;
            s.peer.is_some()
        };
        self.queue.wake(PollMask::empty());
        if connected { Ok(()) } else { Err(Errno::ENOTCONN) }
    }

    pub(super) fn udp_close(&self) {
        let (local, groups, queue, place) = {
            let mut s = self.state.lock();
            s.shut = [true; 2];
            let s = &mut *s;
            let (groups, queue) = (std::mem::take(&mut s.udp.groups), std::mem::take(&mut s.udp.queue));
            (s.local.filter(|_| s.holds), groups, queue, s.place.take())
        };
        drop(queue);
        if let Some(place) = place {
            place.close();
        }
        self.unregister(local, None, None);
        groups.into_iter().for_each(|(group, device)| self.net.groups.leave(&self.net, group, device));
        self.queue.wake(PollMask::empty());
    }

    pub(super) fn udp_events(&self) -> PollMask {
        let s = self.state.lock();
        let mut m = PollMask::OUT | PollMask::WRNORM | PollMask::WRBAND;
        m.set(PollMask::IN | PollMask::RDNORM, !s.udp.queue.is_empty() || s.shut[0]);
        m.set(PollMask::RDHUP, s.shut[0]);
        m.set(PollMask::HUP, s.shut == [true; 2]);
        m.set(PollMask::ERR, s.error.is_some() || !s.udp.errors.is_empty());
        m
    }
}

/// A datagram in a packet: where to, what, and what comes with it. `None`: it is broken.
fn read(p: &Packet) -> Option<(Endpoint, Vec<u8>, Along)> {
    let half = |at: usize| p.data.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u16::from_be_bytes(*b));
    let len = usize::from(half(4));
    let data = p.data.get(HEADER..len)?;
    let summed = half(6) != 0;
    let good = || {
        let whole = p.data.get(..len).unwrap_or_default();
        checksum(&[&pseudo(p.from, p.to, PROTOCOL, len), whole]) == 0
    };
    if summed && p.device <= 1 && !good() || !summed && p.to.is_ipv6() {
        return None;
    }
    let along = Along::of(p, Endpoint { ip: p.from, port: half(0) });
    Some((Endpoint { ip: p.to, port: half(2) }, data.to_vec(), along))
}

/// Gives a datagram to those of the namespace that it is for. Back comes what nobody is there for.
fn hand_over(net: &NetNamespace, to: Endpoint, data: Vec<u8>, along: Along) -> Option<Vec<u8>> {
    let all = net.ports(Kind::Udp).lock().at(to.port);
    let many = to.ip.is_multicast() || net.is_broadcast(to.ip);
    let fits: Vec<_> = all.into_iter().filter_map(|s| s.udp_score(to, &along, many).map(|score| (score, s))).collect();
    if many {
        fits.iter().for_each(|(_, s)| s.udp_take(data.clone(), along));
        return None;
    }
    match best(fits, along.from) {
        Some(receiver) => {
            receiver.udp_take(data, along);
            None
        }
        None => Some(data),
    }
}

/// A datagram has come from elsewhere; whether somebody is there for it.
pub(super) fn come_in(net: &NetNamespace, p: &Packet) -> bool {
    let Some((to, data, along)) = read(p) else { return true };
    let found = hand_over(net, to, data, along).is_none();
    if !found {
        count(&net.counts.no_port);
    }
    found
}

/// A message of ICMP's about what a socket of this namespace has sent: `inner` is as much of that packet as came back.
pub(super) fn failed(net: &NetNamespace, message: &Packet, inner: &[u8]) {
    let [kind, code, _, _, w @ ..] = message.data.first_chunk::<8>().copied().unwrap_or_default();
    let four = message.from.is_ipv4();
    // One that says too little of what it is about is nobody's.
    let Some(p) = Packet::beginning(inner).filter(|p| p.data.len() >= HEADER) else { return };
    let half = |at: usize| p.data.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u16::from_be_bytes(*b));
    let info = if four { u32::from_be_bytes(w) & 0xffff } else { u32::from_be_bytes(w) };
    let Some((error, hard)) = icmp::error_of(four, kind, code) else { return };
    let nobody = Endpoint { ip: p.to, port: 0 };
    // Whose the packet can be, and what of it they are told: of a datagram its content, of others what was under IP.
    let (mut sockets, port, skip) = match p.protocol {
        PROTOCOL => (net.ports(Kind::Udp).lock().at(half(0)), half(2), HEADER),
        icmp::ICMP | icmp::ICMP6 => (net.ports(Kind::Ping(p.protocol)).lock().at(half(4)), 0, 0),
        _ => (Vec::new(), 0, 0),
    };
    let named = sockets.len();
    if net.raw.load(Ordering::Relaxed) > 0 {
        sockets.extend(net.ports(Kind::Raw(p.protocol)).lock().at(u16::from(p.protocol)));
    }
    for (n, socket) in sockets.into_iter().enumerate() {
        let (to, skip) = if n < named { (Endpoint { port, ..nobody }, skip) } else { (nobody, 0) };
        let mut s = socket.state.lock();
        let own = s.local.is_none_or(|l| l.ip.is_unspecified() || l.ip == p.from);
        let peer = s.peer.is_none_or(|peer| peer.ip == to.ip && (to.port == 0 || peer.port == to.port));
        let asked = s.wants_errors(to.ip);
        if !own || !peer {
            continue;
        }
        let mut hard = hard;
        if error == Errno::EMSGSIZE {
            use super::options::discover::{DONT, INTERFACE};
            drop(s);
            let how = socket.discovers(to.ip);
            // Who asks nobody believes nobody.
            if info == 0 || how >= INTERFACE {
                continue;
            }
            if let Some(outside) = net.outside() {
                outside.learn_mtu(to.ip, info);
            }
            hard = how != DONT;
            if four && !hard {
                continue;
            }
            s = socket.state.lock();
        }
        if !asked && (s.peer.is_none() || !hard) {
            continue;
        }
        if asked && s.udp.errors.len() < ERRORS {
            let data = p.data.get(skip..).unwrap_or_default().to_vec();
            s.udp.errors.push_back(Failed { data, to, why: Why::Told(message.from, kind, code, info) });
        }
        s.error = Some(error);
        drop(s);
        socket.queue.wake(PollMask::ERR);
    }
}
