//! From frames to packets and back: Ethernet, neighbours, IP.
//!
//! [`Wire`] sends packets by the interface that leads to where they go; [`Stack`] takes frames and hands what they carry on: TCP to `connections`, the rest to the
//! Sentry. Called by `service`.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use cofferdam_control::netd::{Interface, Network};
use cofferdam_control::rules::{Action, Direction, Rules};
use cofferdam_socket::packet::{self, flags};
use cofferdam_socket::paths::Paths;
use cofferdam_socket::traffic::Traffic;
use cofferdam_socket::{Broken, frame};
use cofferdam_tcp::{Flow, Output, Unreachable};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv6Packet, Icmpv6Repr, NdiscNeighborFlags, NdiscRepr,
    RawHardwareAddress,
};

use crate::connections::Connections;
use crate::counters::Counters;
use crate::device::{Arrived, Cut, Device, ETHERNET, OFFLOAD, Offload};
use crate::filter::{self, Filter};
use crate::fragments::{Fragments, Key, Outcome};
use crate::ip::{self, Head, ICMP, ICMP6, TCP};
use crate::names::Names;
use crate::neighbour::{Ask, Mac, Neighbours, Waiting, Way, group, solicited};
use crate::tap::Tap;

const ARP: u16 = 0x0806;
const IP4: u16 = 0x0800;
const IP6: u16 = 0x86dd;
const ALL: Mac = [0xff; 6];
/// Packets for the Sentry that wait for room in its ring.
const LOCAL: usize = 64;
/// Frames of the Sentry's that are sent before something else gets its turn.
const TURN: usize = 256;
/// A tag between the Ethernet header and what it carries (IEEE 802.1Q), and its bytes.
const TAGGED: [u8; 2] = [0x81, 0];
const TAG: usize = 4;

/// An interface with its device.
#[derive(Debug)]
pub struct Link {
    /// What it is.
    pub interface: Interface,
    /// Its device.
    pub device: Device,
    neighbours: Neighbours<Offload>,
    /// What it has counted.
    pub traffic: Traffic,
}

/// The way out.
#[derive(Debug)]
pub struct Wire {
    network: Network,
    /// In the network's order.
    pub links: Vec<Link>,
    /// Who is asked for names.
    pub names: Names,
    /// What was counted.
    pub counters: Counters,
    /// What may pass.
    pub filter: Filter,
    /// Pieces that programs made themselves, where it matters of what.
    pieces: Fragments,
    /// For the Sentry: what became of packets of its own.
    local: VecDeque<(Head, Vec<u8>)>,
    /// The number of the next packet that is taken apart.
    number: u32,
    now: Instant,
    /// When it began: paths are known by the time since.
    began: Instant,
    /// What connections were told of their paths.
    paths: Paths,
    /// Packet sockets.
    tap: Option<Tap>,
}

impl Wire {
    /// With the devices of a network's interfaces, in their order.
    pub fn new(network: Network, rules: Rules, devices: Vec<Device>, names: Names, number: u32, now: Instant) -> Self {
        let link = |(interface, device): (&Interface, _)| Link {
            interface: interface.clone(),
            device,
            neighbours: Neighbours::default(),
            traffic: Traffic::default(),
        };
        let links = network.interfaces.iter().zip(devices).map(link).collect();
        Self {
            network,
            links,
            names,
            counters: Counters::default(),
            filter: Filter::new(rules),
            pieces: Fragments::default(),
            local: VecDeque::new(),
            number,
            now,
            began: now,
            paths: Paths::default(),
            tap: None,
        }
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// What time it is.
    pub fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// The longest packet to there.
    pub fn mtu(&self, to: IpAddr) -> usize {
        let route = self.network.route(to, None);
        let interface = route.and_then(|r| self.network.interface(r.interface));
        let mtu = interface.map_or(1500, |i| i.mtu as usize).max(576);
        self.known_mtu(to).map_or(mtu, |known| mtu.min(known))
    }

    fn age(&self) -> i64 {
        i64::try_from(self.now.saturating_duration_since(self.began).as_nanos()).unwrap_or(i64::MAX)
    }

    /// What a connection to there was told of the path.
    fn known_mtu(&self, to: IpAddr) -> Option<usize> {
        self.paths.get(to, self.age()).map(|mtu| mtu as usize)
    }

    fn at(&self, index: u32) -> Option<usize> {
        self.links.iter().position(|l| l.interface.index == index)
    }

    /// A packet of the Sentry's that is not TCP's: sends it, if it may leave.
    pub fn send_packet(&mut self, head: &packet::Head, data: Vec<u8>) {
        self.send_checked(head, data, false);
    }

    /// `again`: it was put together here.
    fn send_checked(&mut self, head: &packet::Head, data: Vec<u8>, again: bool) {
        let headed = head.flags & flags::HEADED != 0;
        let own = Head::of(head);
        if self.names.is_meant(head.to) {
            let raw = || ip::build(&own, 0, true, data.get(..data.len().min(1200))?);
            // What has a header of its own is no question.
            if headed || self.may_leave(&own, &data, raw) && !self.names.ask(head, &data, self.now) {
                self.counters.no_route += 1;
            }
            return;
        }
        if !headed && (self.filter.is_unused() || !filter::is_between(&own)) {
            if self.may_leave(&own, &data, || ip::build(&own, 0, true, data.get(..data.len().min(1200))?)) {
                self.send_own(head, &data);
            }
            return;
        }
        // What a program made of headers is read as others will read it.
        let built = if headed { None } else { ip::build(&own, 0, true, &data) };
        let raw = if headed { Some(&data) } else { built.as_ref() };
        let parsed = raw.and_then(|raw| Some((raw, ip::parse(raw)?)));
        let Some((raw, (own, inner))) = parsed.filter(|(_, (h, _))| h.to == head.to) else {
            self.counters.broken += 1;
            return;
        };
        if !self.filter.is_unused() {
            if filter::has_route(raw) || own.piece.is_some() && again {
                self.filter.refuse();
                return;
            }
            // A piece says too little of its whole, and the next one might say something else.
            if let Some((number, place, more)) = own.piece {
                let key = Key { from: own.from, to: own.to, protocol: own.protocol, number };
                if let Outcome::Whole(whole) = self.pieces.take(key, place, more, inner, self.now) {
                    self.send_checked(&own.told(0, head.interface), whole, true);
                }
                return;
            }
            if !self.may_leave(&own, inner, || Some(raw.clone())) {
                return;
            }
        }
        if headed {
            self.send(raw, Offload::default(), Some(head.interface).filter(|n| *n != 0));
        } else {
            self.send_own(head, &data);
        }
    }

    /// Whether a whole packet of the Sentry's may leave. If not its sender is told, as by a host that refuses it. `raw`: the packet, or its beginning.
    fn may_leave(&mut self, head: &Head, data: &[u8], raw: impl FnOnce() -> Option<Vec<u8>>) -> bool {
        if self.filter.packet(Direction::Out, head, data, self.now, |_| false) == Action::Allow {
            return true;
        }
        if !filter::is_error(head, data)
            && !head.to.is_multicast()
            && let Some(raw) = raw()
        {
            self.tell_sender(&raw, if head.to.is_ipv4() { (3, 3) } else { (1, 4) }, 0);
        }
        false
    }

    /// Sends a packet that has no header yet.
    fn send_own(&mut self, head: &packet::Head, data: &[u8]) {
        let by = Some(head.interface).filter(|n| *n != 0);
        let own = Head::of(head);
        let route = self.network.route(head.to, by).map(|r| r.interface);
        let Some(mtu) = route
            .or(by)
            .and_then(|n| self.network.interface(n))
            .or(self.network.interfaces.first())
            .map(|i| i.mtu as usize)
        else {
            return;
        };
        // What goes through pieces so small is no network.
        let least = if head.to.is_ipv4() { 552 } else { 1280 };
        let mtu = if head.mtu == 0 { mtu } else { mtu.min((head.mtu as usize).max(least)) };
        self.number = self.number.wrapping_add(1);
        let headers = if head.to.is_ipv4() { ip::HEADER4 } else { ip::HEADER6 };
        if headers.saturating_add(data.len()) <= mtu {
            if let Some(raw) = ip::build(&own, self.number as u16, head.flags & flags::WHOLE != 0, data) {
                self.send(&raw, Offload::default(), by);
            }
            return;
        }
        if head.flags & flags::WHOLE != 0 {
            // Nobody has to be asked for it to be known.
            let about = data.get(..data.len().min(1200)).unwrap_or_default();
            if let Some(raw) = ip::build(&own, self.number as u16, true, about) {
                let (kind, word) = if head.to.is_ipv4() { ((3, 4), mtu as u32 & 0xffff) } else { ((2, 0), mtu as u32) };
                self.tell_sender(&raw, kind, word);
            }
            return;
        }
        for raw in ip::cut(&own, self.number, data, mtu).unwrap_or_default() {
            self.send(&raw, Offload::default(), by);
        }
    }

    /// Sends an IP packet. `how`: as from the IP header on.
    fn send(&mut self, packet: &[u8], how: Offload, by: Option<u32>) {
        let to = match packet.first().map(|b| b >> 4) {
            Some(4) => packet.get(16..).and_then(<[u8]>::first_chunk::<4>).map(|b| IpAddr::from(*b)),
            Some(6) => packet.get(24..).and_then(<[u8]>::first_chunk::<16>).map(|b| IpAddr::from(*b)),
            _ => None,
        };
        let Some(to) = to else {
            self.counters.broken += 1;
            return;
        };
        let all = to == IpAddr::from([255; 4]) || to.is_multicast();
        let route = self.network.route(to, by);
        let first = || self.network.interfaces.first().map(|i| i.index);
        let interface = route.map(|r| r.interface).or(by).or_else(|| if all { first() } else { None });
        let Some(at) = interface.and_then(|n| self.at(n)) else {
            self.counters.no_route += 1;
            return;
        };
        let kind = if to.is_ipv4() { IP4 } else { IP6 };
        if to.is_multicast() {
            self.emit(at, group(to), kind, packet, how);
            return;
        }
        if all || self.network.is_broadcast(to) {
            self.emit(at, ALL, kind, packet, how);
            return;
        }
        let next = route.and_then(|r| r.via).unwrap_or(to);
        let now = self.now;
        let Some(link) = self.links.get_mut(at) else { return };
        match link.neighbours.way(next, now, || Waiting { packet: packet.to_vec(), how }) {
            Way::Known(mac, ask) => {
                self.emit(at, mac, kind, packet, how);
                ask.into_iter().for_each(|a| self.ask(at, a));
            }
            Way::Waits(ask) => ask.into_iter().for_each(|a| self.ask(at, a)),
            Way::Lost => self.counters.no_neighbour += 1,
        }
    }

    fn emit(&mut self, at: usize, to: Mac, kind: u16, packet: &[u8], mut how: Offload) {
        let Some(link) = self.links.get_mut(at) else { return };
        let mut ethernet = [0; ETHERNET];
        let bytes = to.into_iter().chain(link.interface.mac).chain(kind.to_be_bytes());
        ethernet.iter_mut().zip(bytes).for_each(|(to, b)| *to = b);
        const HEADER: u16 = ETHERNET as u16;
        how.sum = how.sum.map(|(start, offset)| (start.saturating_add(HEADER), offset));
        how.cut = how.cut.map(|c| Cut { headers: c.headers.saturating_add(HEADER), ..c });
        if let Some(tap) = &mut self.tap {
            let sums = if how.sum.is_some() { frame::flags::UNSUMMED } else { 0 };
            let seen = tap.see(link.interface.index, frame::flags::LEFT | sums, &ethernet, packet);
            self.counters.frames_lost += u64::from(!seen);
        }
        if link.device.send(&ethernet, packet, how) {
            link.traffic.sent_packets += 1;
            link.traffic.sent_bytes += (packet.len() + ETHERNET) as u64;
        } else {
            link.traffic.sent_lost += 1;
        }
    }

    /// Sends frames of packet sockets: so many, that something else gets its turn. Whether there are more.
    pub fn send_frames(&mut self) -> Result<bool, Broken> {
        for _ in 0..TURN {
            let Some(tap) = &mut self.tap else { return Ok(false) };
            let Some((interface, raw)) = tap.to_send()? else { return Ok(false) };
            let link = self.at(interface).and_then(|at| self.links.get_mut(at));
            let Some((link, (ethernet, packet))) = link.zip(raw.split_first_chunk::<ETHERNET>()) else {
                self.counters.broken += 1;
                continue;
            };
            let tag = if ethernet.ends_with(&TAGGED) { TAG } else { 0 };
            let may = self.filter.is_unused() || frame_may_leave(&mut self.filter, ethernet, packet, self.now);
            if !may {
                continue;
            }
            if packet.len() > (link.interface.mtu as usize).saturating_add(tag) {
                self.counters.broken += 1;
            } else if link.device.send(ethernet, packet, Offload::default()) {
                link.traffic.sent_packets += 1;
                link.traffic.sent_bytes += raw.len() as u64;
            } else {
                link.traffic.sent_lost += 1;
            }
        }
        Ok(true)
    }

    /// Asks who has an address.
    fn ask(&mut self, at: usize, ask: Ask) {
        let Some(link) = self.links.get(at) else { return };
        let mac = link.interface.mac;
        let own = |six: bool| {
            let all = link.interface.addresses.iter().map(|a| a.ip).filter(|ip| ip.is_ipv6() == six);
            all.max_by_key(|ip| matches!((ip, ask.ip), (IpAddr::V6(a), IpAddr::V6(b)) if a.is_unicast_link_local() == b.is_unicast_link_local()))
        };
        match (ask.ip, own(ask.ip.is_ipv6())) {
            (IpAddr::V4(ip), Some(IpAddr::V4(from))) => {
                self.arp(at, ArpOperation::Request, from, ask.to.unwrap_or(ALL), ip, [0; 6])
            }
            (IpAddr::V6(ip), Some(IpAddr::V6(from))) => {
                let lladdr = Some(RawHardwareAddress::from(EthernetAddress(mac)));
                let repr = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr: ip, lladdr });
                let to = if ask.to.is_some() { ip } else { solicited(ip) };
                self.discover(at, from, to, ask.to.unwrap_or(group(IpAddr::V6(to))), repr);
            }
            _ => {}
        }
    }

    fn arp(
        &mut self,
        at: usize,
        operation: ArpOperation,
        from: std::net::Ipv4Addr,
        mac: Mac,
        ip: std::net::Ipv4Addr,
        target: Mac,
    ) {
        let Some(link) = self.links.get(at) else { return };
        let repr = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: EthernetAddress(link.interface.mac),
            source_protocol_addr: from,
            target_hardware_addr: EthernetAddress(target),
            target_protocol_addr: ip,
        };
        let mut raw = vec![0; repr.buffer_len()];
        repr.emit(&mut ArpPacket::new_unchecked(&mut raw));
        self.emit(at, mac, ARP, &raw, Offload::default());
    }

    /// A message of neighbour discovery.
    fn discover(&mut self, at: usize, from: Ipv6Addr, to: Ipv6Addr, mac: Mac, repr: Icmpv6Repr<'_>) {
        let mut data = vec![0; repr.buffer_len()];
        repr.emit(&from, &to, &mut Icmpv6Packet::new_unchecked(&mut data), &ChecksumCapabilities::default());
        let head = Head { from: from.into(), to: to.into(), protocol: ICMP6, hops: 255, service: 0, piece: None };
        if let Some(raw) = ip::build(&head, 0, true, &data) {
            self.emit(at, mac, IP6, &raw, Offload::default());
        }
    }

    /// A neighbour says where it is.
    fn learn(&mut self, at: usize, ip: IpAddr, mac: Mac, new: bool) {
        let now = self.now;
        let Some(link) = self.links.get_mut(at) else { return };
        let kind = if ip.is_ipv4() { IP4 } else { IP6 };
        for waiting in link.neighbours.learn(ip, mac, now, new) {
            self.emit(at, mac, kind, &waiting.packet, waiting.how);
        }
    }

    /// Tells the sender, who is one of the Sentry's, that a packet is not going on.
    fn tell_sender(&mut self, about: &[u8], kind: (u8, u8), word: u32) {
        let from = ip::parse(about).map(|(h, _)| h.from);
        if let Some(message) = from.and_then(|from| ip::unreachable(from, about, kind, word))
            && self.local.len() < LOCAL
        {
            self.local.push_back(message);
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next(&self) -> Option<Instant> {
        self.links.iter().filter_map(|l| l.neighbours.next()).min()
    }

    /// Asks again, and gives up. Packets of TCP that nobody is there for.
    fn tick(&mut self) -> Vec<Vec<u8>> {
        let mut lost_of_tcp = Vec::new();
        for at in 0..self.links.len() {
            let now = self.now;
            let Some(link) = self.links.get_mut(at) else { break };
            let (asks, lost) = link.neighbours.tick(now);
            asks.into_iter().for_each(|a| self.ask(at, a));
            for (_, waiting) in lost {
                self.counters.no_neighbour += 1;
                let Some((head, _)) = ip::parse(&waiting.packet) else { continue };
                if head.protocol == TCP {
                    lost_of_tcp.push(waiting.packet);
                } else {
                    let kind = if head.to.is_ipv4() { (3, 1) } else { (1, 3) };
                    self.tell_sender(&waiting.packet, kind, 0);
                }
            }
        }
        lost_of_tcp
    }
}

impl Output for Wire {
    fn send(&mut self, packet: &[u8], header: usize, segment: u16) {
        /// Where TCP has its sum.
        const SUM: u16 = 16;
        let six = packet.first().is_some_and(|b| b >> 4 == 6);
        let start = if six { ip::HEADER6 } else { ip::HEADER4 } as u16;
        let cut =
            u16::try_from(header).ok().filter(|_| segment != 0).map(|headers| Cut { size: segment, headers, six });
        Wire::send(self, packet, Offload { sum: Some((start, SUM)), cut }, None);
    }

    fn has_room(&self) -> bool {
        !self.links.iter().any(|l| l.device.full)
    }
}

/// The way in.
#[derive(Debug)]
pub struct Stack {
    /// The way out.
    pub wire: Wire,
    /// Connections.
    pub connections: Connections,
    fragments: Fragments,
}

impl Stack {
    /// Of a network and what its connections are.
    pub fn new(mut wire: Wire, connections: Connections) -> Self {
        wire.tap = connections.tap().ok();
        Self { wire, connections, fragments: Fragments::default() }
    }

    /// A frame has come by a link; it begins after what the device says of it.
    pub fn frame(&mut self, at: usize, buffer: &[u8], arrived: Arrived) -> Result<(), cofferdam_socket::Broken> {
        if let Some(link) = self.wire.links.get_mut(at) {
            link.traffic.received_packets += 1;
            link.traffic.received_bytes += arrived.len as u64;
        }
        let frame = buffer.get(OFFLOAD..).and_then(|b| b.get(..arrived.len)).unwrap_or_default();
        let Some((header, packet)) = frame.split_first_chunk::<ETHERNET>() else {
            self.wire.counters.broken += 1;
            return Ok(());
        };
        const NEEDS_SUM: u8 = 1;
        let unsummed = buffer.first().is_some_and(|b| b & NEEDS_SUM != 0);
        if self.wire.filter.is_unused() {
            self.show(at, header, packet, unsummed);
            return self.arrived(at, header, packet, arrived);
        }
        // What may not come in is not to be seen either; nor is a piece, of whose whole nobody can say whether it may.
        let before = self.wire.filter.turned_away();
        self.arrived(at, header, packet, arrived)?;
        let is_piece = ip::parse(packet).is_some_and(|(h, _)| h.piece.is_some());
        if self.wire.filter.turned_away() == before && !is_piece {
            self.show(at, header, packet, unsummed);
        }
        Ok(())
    }

    /// Shows a frame that came to packet sockets.
    fn show(&mut self, at: usize, header: &[u8; ETHERNET], packet: &[u8], unsummed: bool) {
        if let (Some(tap), Some(link)) = (&mut self.wire.tap, self.wire.links.get(at)) {
            let how = if unsummed { frame::flags::UNSUMMED } else { 0 };
            let seen = tap.see(link.interface.index, how, header, packet);
            self.wire.counters.frames_lost += u64::from(!seen);
        }
    }

    fn arrived(
        &mut self,
        at: usize,
        header: &[u8; ETHERNET],
        packet: &[u8],
        arrived: Arrived,
    ) -> Result<(), cofferdam_socket::Broken> {
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, kind @ ..] = *header;
        let (to, from, kind) = ([d0, d1, d2, d3, d4, d5], [s0, s1, s2, s3, s4, s5], u16::from_be_bytes(kind));
        let own = self.wire.links.get(at).is_some_and(|l| l.interface.mac == to);
        // The lowest bit of the first byte says that it is for several.
        if !own && d0 & 1 == 0 {
            self.wire.counters.foreign += 1;
            return Ok(());
        }
        match kind {
            ARP => self.arp(at, packet),
            IP4 | IP6 if packet.first().map(|b| b >> 4) == Some(if kind == IP4 { 4 } else { 6 }) => {
                self.packet(at, from, packet, arrived.trusted, !own)?;
            }
            _ => self.wire.counters.foreign += 1,
        }
        Ok(())
    }

    fn arp(&mut self, at: usize, packet: &[u8]) {
        let parsed = ArpPacket::new_checked(packet).and_then(|p| ArpRepr::parse(&p));
        let Ok(ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        }) = parsed
        else {
            self.wire.counters.broken += 1;
            return;
        };
        let Some(link) = self.wire.links.get(at) else { return };
        let mac = source_hardware_addr.0;
        let fair = mac.first().is_some_and(|b| b & 1 == 0) && !self.wire.network.has(source_protocol_addr.into());
        let asked = link.interface.addresses.iter().any(|a| a.ip == IpAddr::V4(target_protocol_addr));
        if !fair {
            return;
        }
        // Who asks for us will want an answer; what others tell each other is only noted of whom we know.
        if !source_protocol_addr.is_unspecified() {
            self.wire.learn(at, source_protocol_addr.into(), mac, asked);
        }
        if asked && operation == ArpOperation::Request {
            self.wire.arp(at, ArpOperation::Reply, target_protocol_addr, mac, source_protocol_addr, mac);
        }
    }

    /// An IP packet. `mac`: of who sent the frame; `many`: the frame was for several.
    fn packet(
        &mut self,
        at: usize,
        mac: Mac,
        raw: &[u8],
        trusted: bool,
        many: bool,
    ) -> Result<(), cofferdam_socket::Broken> {
        let Some((head, data)) = ip::parse(raw) else {
            self.wire.counters.broken += 1;
            return Ok(());
        };
        let own = self.wire.network.has(head.to);
        let all = head.to == IpAddr::from([255; 4]) || self.wire.network.is_broadcast(head.to);
        // Nobody is several, or we.
        let fair = !head.from.is_multicast()
            && !head.from.is_loopback()
            && !head.to.is_loopback()
            && head.from != IpAddr::from([255; 4])
            && !self.wire.network.has(head.from);
        if !fair || !own && !all && !head.to.is_multicast() {
            self.wire.counters.foreign += 1;
            return Ok(());
        }
        if let Some((number, place, more)) = head.piece {
            self.wire.counters.pieces += 1;
            let key = Key { from: head.from, to: head.to, protocol: head.protocol, number };
            match self.fragments.take(key, place, more, data, self.wire.now) {
                Outcome::Kept => {}
                Outcome::Lost(n) => self.wire.counters.pieces_lost += n,
                Outcome::Whole(data) => {
                    self.wire.counters.whole += 1;
                    let whole = Head { piece: None, ..head };
                    return self.take(at, mac, whole, &data, false, many || all, None);
                }
            }
            return Ok(());
        }
        self.take(at, mac, head, data, trusted, many || all, Some(raw))
    }

    /// What a whole packet carries. `raw`: the packet, unless it came in pieces.
    #[allow(clippy::too_many_arguments, reason = "what is known of one packet")]
    fn take(
        &mut self,
        at: usize,
        mac: Mac,
        head: Head,
        data: &[u8],
        trusted: bool,
        many: bool,
        raw: Option<&[u8]>,
    ) -> Result<(), cofferdam_socket::Broken> {
        let index = self.wire.links.get(at).map_or(0, |l| l.interface.index);
        if head.protocol == TCP {
            let mtu = self.wire.links.get(at).map_or(1500, |l| l.interface.mtu as usize);
            let mtu = self.wire.known_mtu(head.from).map_or(mtu, |known| mtu.min(known));
            if many || head.to.is_multicast() {
                return Ok(());
            }
            if !self.begins_rightly(&head, data) {
                return Ok(());
            }
            // What was between the headers, or came in pieces, is not TCP's business.
            let plain = raw.filter(|raw| raw.len() >= data.len() && headers(raw) == Some(raw.len() - data.len()));
            let built = if plain.is_none() { ip::build(&head, 0, true, data) } else { None };
            let Some(raw) = plain.or(built.as_deref()) else { return Ok(()) };
            let now = self.wire.now;
            return self.connections.receive(raw, trusted, mtu, now, &mut self.wire);
        }
        if !trusted && !ip::is_sound(&head, data) {
            self.wire.counters.broken += 1;
            return Ok(());
        }
        match (head.protocol, head.to) {
            (ICMP6, IpAddr::V6(_)) if matches!(data.first(), Some(133..=137)) => {
                self.discovered(at, mac, &head, data);
                return Ok(());
            }
            _ => {}
        }
        let Self { wire, connections, .. } = self;
        let has = |flow| connections.has(flow, false);
        if wire.filter.packet(Direction::In, &head, data, wire.now, has) == Action::Deny {
            return Ok(());
        }
        if matches!((head.protocol, head.to), (ICMP, IpAddr::V4(_)) | (ICMP6, IpAddr::V6(_))) {
            self.told(&head, data);
        }
        let mut how = 0;
        if many && !head.to.is_multicast() {
            how |= flags::BROADCAST;
        }
        if !self.connections.sentry.packet(&head.told(how, index), data)? {
            self.wire.counters.no_room += 1;
        }
        Ok(())
    }

    /// Whether a segment may come in: it is of a connection that could be made, or begins one that may.
    fn begins_rightly(&mut self, head: &Head, data: &[u8]) -> bool {
        let Self { wire: Wire { filter, now, .. }, connections, .. } = self;
        if filter.is_unused() {
            return true;
        }
        const SYN_AND_ACK: u8 = 0x12;
        const SYN: u8 = 2;
        // Too short: its sum is counted as wrong, or it as none.
        let (Some([a, b, c, d]), Some(flags)) = (data.first_chunk(), data.get(13)) else { return true };
        let remote = (head.from, u16::from_be_bytes([*a, *b])).into();
        let local = (head.to, u16::from_be_bytes([*c, *d])).into();
        connections.has(Flow { local, remote }, flags & SYN_AND_ACK == SYN)
            || filter.packet(Direction::In, head, data, *now, |_| false) == Action::Allow
    }

    /// An error about a packet of TCP's.
    fn told(&mut self, head: &Head, data: &[u8]) {
        let Some(([kind, code, _, _, word @ ..], inner)) = data.split_first_chunk::<8>() else { return };
        let mtu = u32::from_be_bytes(*word);
        let why = match (head.to.is_ipv4(), kind, code) {
            (true, 3, 4) => Unreachable::TooBig(mtu & 0xffff),
            (false, 2, _) => Unreachable::TooBig(mtu),
            (true, 3 | 11, _) | (false, 1 | 3, _) => Unreachable::Icmp { kind: *kind, code: *code },
            _ => return,
        };
        self.unreachable(inner, why);
    }

    /// A packet of TCP's (its beginning at least) did not arrive.
    fn unreachable(&mut self, packet: &[u8], why: Unreachable) {
        let Some((from, to, protocol, rest)) = ip::beginning(packet) else { return };
        let Some([a, b, c, d, sequence @ ..]) = rest.first_chunk::<8>().filter(|_| protocol == TCP) else { return };
        let local = (from, u16::from_be_bytes([*a, *b])).into();
        let remote = (to, u16::from_be_bytes([*c, *d])).into();
        let believed = self.connections.unreachable(Flow { local, remote }, u32::from_be_bytes(*sequence), why);
        if let (true, Unreachable::TooBig(mtu)) = (believed, why) {
            let age = self.wire.age();
            // The next connection knows.
            self.wire.paths.learn(to, mtu, age);
        }
    }

    /// A message of neighbour discovery (RFC 4861; one that came from further away is none).
    fn discovered(&mut self, at: usize, mac: Mac, head: &Head, data: &[u8]) {
        let (IpAddr::V6(from), IpAddr::V6(to)) = (head.from, head.to) else { return };
        let caps = ChecksumCapabilities::ignored();
        let parsed = Icmpv6Packet::new_checked(data).and_then(|p| Icmpv6Repr::parse(&from, &to, &p, &caps));
        if head.hops != 255 || mac.first().is_none_or(|b| b & 1 != 0) {
            self.wire.counters.broken += 1;
            return;
        }
        let ethernet = |a: Option<RawHardwareAddress>| {
            a.and_then(|a| <[u8; 6]>::try_from(a.as_bytes()).ok()).filter(|a| a.first().is_some_and(|b| b & 1 == 0))
        };
        let Some(link) = self.wire.links.get(at) else { return };
        let own_mac = link.interface.mac;
        match parsed {
            Ok(Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr, lladdr })) => {
                if !link.interface.addresses.iter().any(|a| a.ip == IpAddr::V6(target_addr)) {
                    return;
                }
                let told = ethernet(lladdr).unwrap_or(mac);
                // Who has no address yet is answered to all (RFC 4861, 7.2.4).
                let nobody = from.is_unspecified();
                if !nobody {
                    self.wire.learn(at, from.into(), told, true);
                }
                let flags = if nobody {
                    NdiscNeighborFlags::OVERRIDE
                } else {
                    NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE
                };
                let lladdr = Some(RawHardwareAddress::from(EthernetAddress(own_mac)));
                let repr = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { flags, target_addr, lladdr });
                let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
                let (to, mac) = if nobody { (all, group(all.into())) } else { (from, told) };
                self.wire.discover(at, target_addr, to, mac, repr);
            }
            Ok(Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { target_addr, lladdr, .. })) => {
                if !self.wire.network.has(target_addr.into()) {
                    self.wire.learn(at, target_addr.into(), ethernet(lladdr).unwrap_or(mac), false);
                }
            }
            // Routers are the host's business: who made the network has said which there are.
            Ok(_) => {}
            Err(_) => self.wire.counters.broken += 1,
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next(&self) -> Option<Instant> {
        self.wire.next().into_iter().chain(self.connections.next()).min()
    }

    /// Does what is due.
    pub fn tick(&mut self) -> Result<(), cofferdam_socket::Broken> {
        for packet in self.wire.tick() {
            let six = packet.first().is_some_and(|b| b >> 4 == 6);
            let (kind, code) = if six { (1, 3) } else { (3, 1) };
            self.unreachable(&packet, Unreachable::Icmp { kind, code });
        }
        if !self.fragments.is_empty() {
            self.wire.counters.pieces_lost += self.fragments.tick(self.wire.now);
        }
        if !self.wire.pieces.is_empty() {
            self.wire.counters.pieces_lost += self.wire.pieces.tick(self.wire.now);
        }
        self.connections.work(self.wire.now, &mut self.wire)?;
        while let Some((head, data)) = self.wire.local.pop_front() {
            self.connections.sentry.packet(&head.told(0, 0), &data)?;
        }
        if let Some(slot) = self.wire.tap.as_mut().map_or(Ok(None), Tap::news)? {
            self.connections.sentry.tell(&slot)?;
        }
        Ok(())
    }
}

/// Whether rules let a frame of a packet socket leave: it carries a whole packet that may, or asks who has an address. What it is must be plain.
fn frame_may_leave(filter: &mut Filter, ethernet: &[u8; ETHERNET], packet: &[u8], now: Instant) -> bool {
    let [.., high, low] = *ethernet;
    let version = packet.first().map(|b| b >> 4);
    match (u16::from_be_bytes([high, low]), version) {
        (ARP, _) => true,
        (IP4, Some(4)) | (IP6, Some(6)) => match ip::parse(packet) {
            Some((head, data)) if head.piece.is_none() && !filter::has_route(packet) => {
                filter.packet(Direction::Out, &head, data, now, |_| false) == Action::Allow
            }
            _ => filter.refuse() == Action::Allow,
        },
        _ => filter.refuse() == Action::Allow,
    }
}

/// Bytes of a packet's headers before TCP's, if there is nothing else between.
fn headers(packet: &[u8]) -> Option<usize> {
    match packet.first()? >> 4 {
        4 => Some(ip::HEADER4).filter(|_| packet.first() == Some(&0x45)),
        _ => Some(ip::HEADER6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_control::netd::{Address, Route};
    use std::os::unix::net::UnixDatagram;

    /// A way out with rules, and what leaves by it: IP packets.
    fn wire(rules: &str) -> (Wire, impl FnMut() -> Vec<Vec<u8>>) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let addresses = ["10.0.0.2", "fd00::2"].map(|ip| Address { ip: ip.parse().unwrap(), prefix: 24 }).to_vec();
        let interface = Interface { name: "eth0".into(), index: 2, mac: [2, 0, 0, 0, 0, 2], mtu: 1500, addresses };
        let to = |ip: &str| Address { ip: ip.parse().unwrap(), prefix: 0 };
        let route = |ip| Route { to: to(ip), via: None, interface: 2, source: None, metric: 0 };
        let routes = vec![route("0.0.0.0"), route("::")];
        let network = Network { interfaces: vec![interface], routes, ..Network::default() };
        let (rules, devices) = (Rules::parse(rules).unwrap(), vec![Device::new(ours.into())]);
        let wire = Wire::new(network, rules, devices, Names::default(), 1, Instant::now());
        let left = move || {
            let mut all = Vec::new();
            let mut raw = [0; 2000];
            while let Ok(len) = theirs.recv(&mut raw) {
                all.push(raw[OFFLOAD + ETHERNET..len].to_vec());
            }
            all
        };
        (wire, left)
    }

    #[test]
    fn pieces_are_judged_as_what_they_are_pieces_of() {
        // To all, whom nobody has to be asked for.
        for (from, to) in [("10.0.0.2", "255.255.255.255"), ("fd00::2", "ff02::1")] {
            let (mut wire, mut left) = wire("out deny udp :77");
            let head = Head {
                from: from.parse().unwrap(),
                to: to.parse().unwrap(),
                protocol: ip::UDP,
                hops: 1,
                service: 0,
                piece: None,
            };
            let mut send = |port: u16, number, backwards: bool| {
                let data = [&[0, 9], &port.to_be_bytes()[..], &[0, 208, 0, 0], &[5; 200]].concat();
                // Eight bytes each at first: ports and what follows are apart.
                let mut pieces = ip::cut(&head, number, &data, if head.to.is_ipv4() { 28 } else { 56 }).unwrap();
                if backwards {
                    pieces.reverse();
                }
                for piece in pieces {
                    wire.send_packet(&head.told(flags::HEADED, 0), piece);
                }
                wire.filter.list()[0].1
            };
            for backwards in [false, true] {
                send(77, 7, backwards);
                assert_eq!(left(), Vec::<Vec<u8>>::new());
                send(78, 8, backwards);
                let left = left();
                let [packet] = &left[..] else { panic!("{left:?}") };
                let (h, data) = ip::parse(packet).unwrap();
                assert_eq!((h, data.len()), (head, 208));
            }
            assert_eq!(send(79, 9, false), 2, "two were denied");
            let other = ip::cut(&head, 10, &[1; 300], 100).unwrap().pop().unwrap();
            wire.send_packet(&head.told(flags::HEADED, 0), other);
            assert_eq!(left().len(), 1, "a piece alone goes nowhere");
            assert!(!wire.pieces.is_empty());
        }
    }

    #[test]
    fn a_way_that_a_packet_names_is_refused() {
        let (mut wire, mut left) = wire("out deny any 10.9.0.0/16");
        let to: IpAddr = "255.255.255.255".parse().unwrap();
        let head = Head { from: "10.0.0.2".parse().unwrap(), to, protocol: ip::UDP, hops: 1, service: 0, piece: None };
        let plain = ip::build(&head, 1, true, &[0, 1, 0, 2, 0, 8, 0, 0]).unwrap();
        let mut routed = [&plain[..20], &[131, 7, 4, 10, 9, 0, 1, 0], &plain[20..]].concat();
        (routed[0], routed[3]) = (0x47, routed.len() as u8);
        routed[10..12].fill(0);
        let sum = cofferdam_socket::sum::checksum(&[&routed[..28]]).to_be_bytes();
        routed[10..12].copy_from_slice(&sum);
        assert!(ip::parse(&routed).is_some());
        for (packet, leaves) in [(plain, 1), (routed, 0)] {
            wire.send_packet(&head.told(flags::HEADED, 0), packet);
            assert_eq!(left().len(), leaves);
        }
        assert_eq!(wire.filter.list()[1], ("filter_packets_refused".into(), 1));
        // Who is denied something is told, but not of an error.
        let denied = packet::Head { to: "10.9.0.1".parse().unwrap(), ..head.told(0, 0) };
        wire.send_packet(&denied, vec![0, 1, 0, 2, 0, 8, 0, 0]);
        let (told, data) = wire.local.pop_front().unwrap();
        assert_eq!((told.to, told.protocol, &data[..2]), (head.from, ICMP, &[3, 3][..]));
        wire.send_packet(&packet::Head { protocol: ICMP, ..denied }, vec![3, 3, 0, 0, 0, 0, 0, 0]);
        assert!(wire.local.is_empty() && left().is_empty());
    }
}
