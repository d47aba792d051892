//! A socket to the host's kernel for what it knows of its network (`rtnetlink(7)`), and its firewall (`nfnetlink`).
//!
//! Owns how a question is asked and its answer read, and the messages that more than one caller has a use for. It must never be used within
//! walls: who speaks to the host's kernel of its network has privilege. Callers: the launcher's process that takes a network over
//! (`cofferdam-supervisor`), and the command line, which makes one (`cofferdam do --network sandbox`).

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use cofferdam_control::netd::{Address, Route};
pub use netlink_packet_core as core;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
pub use netlink_packet_route as route;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// The most bytes of one answer.
const ANSWER: usize = 1 << 18;

/// A socket to the host's kernel, of the network namespace in which it was made.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

fn broken(why: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("netlink: an answer that cannot be read: {why}"))
}

impl Netlink {
    /// One for links, addresses and routes.
    pub fn open() -> io::Result<Self> {
        Self::of(None)
    }

    /// One for the firewall.
    pub fn firewall() -> io::Result<Self> {
        Self::of(Some(netlink::NETFILTER))
    }

    fn of(protocol: Option<Protocol>) -> io::Result<Self> {
        let made = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol);
        Ok(Self(made?))
    }

    fn send_raw(&mut self, raw: &[u8]) -> io::Result<()> {
        let kernel = netlink::SocketAddrNetlink::new(0, 0);
        Ok(rustix::net::sendto(&self.0, raw, SendFlags::empty(), &kernel).map(drop)?)
    }

    fn send(&mut self, what: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut message = NetlinkMessage::from(what);
        message.header.flags = NLM_F_REQUEST | flags;
        message.finalize();
        let mut raw = vec![0; message.buffer_len()];
        message.serialize(&mut raw);
        self.send_raw(&raw)
    }

    /// What the kernel answers, until it says that this was all. `Err`: its error.
    fn answers(&mut self) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut all = Vec::new();
        let mut buffer = vec![0; ANSWER];
        loop {
            let (n, _) = rustix::net::recv(&self.0, &mut buffer, RecvFlags::empty())?;
            let mut rest = buffer.get(..n).unwrap_or_default();
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(broken)?;
                let len = (message.header.length as usize).next_multiple_of(4).max(16).min(rest.len());
                rest = rest.get(len..).unwrap_or_default();
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(all),
                    NetlinkPayload::Error(e) if e.code.is_none() => return Ok(all),
                    NetlinkPayload::Error(e) => return Err(e.to_io()),
                    NetlinkPayload::InnerMessage(inner) => all.push(inner),
                    _ => {}
                }
            }
        }
    }

    /// Everything of a kind.
    pub fn dump(&mut self, what: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.send(what, NLM_F_DUMP)?;
        self.answers()
    }

    /// Makes something that may be there.
    pub fn make(&mut self, what: RouteNetlinkMessage) -> io::Result<()> {
        self.send(what, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)?;
        self.answers().map(drop)
    }

    /// Makes something that must not be there.
    pub fn create(&mut self, what: RouteNetlinkMessage) -> io::Result<()> {
        self.send(what, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)?;
        self.answers().map(drop)
    }

    /// Changes something, or takes it away.
    pub fn change(&mut self, what: RouteNetlinkMessage) -> io::Result<()> {
        self.send(what, NLM_F_ACK)?;
        self.answers().map(drop)
    }

    /// Sends messages that are carried out all, or not at all (`nfnetlink`'s batches), one of which asks for an answer. Of several errors the
    /// first is told.
    pub fn batch(&mut self, raw: &[u8]) -> io::Result<()> {
        const ERROR: u32 = 2;
        self.send_raw(raw)?;
        let mut buffer = vec![0; ANSWER];
        let mut heard = false;
        loop {
            // What there is to be said was said before the sending returned.
            let n = match rustix::net::recv(&self.0, &mut buffer, RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN) if heard => return Ok(()),
                Err(Errno::AGAIN) => return Err(broken("there is none")),
                other => other?.0,
            };
            // Each has a header, then the error: 0 for an answer that was asked for.
            let answer = buffer.get(..n).unwrap_or_default();
            let word = |at: usize| answer.get(at..).and_then(<[u8]>::first_chunk).map(|b| u32::from_ne_bytes(*b));
            match (word(4).map(|w| w & 0xffff), word(16).map(u32::cast_signed)) {
                (Some(ERROR), Some(0)) => heard = true,
                (Some(ERROR), Some(code)) => return Err(io::Error::from_raw_os_error(code.saturating_neg())),
                _ => return Err(broken("no word of success")),
            }
        }
    }
}

fn family(ip: IpAddr) -> route::AddressFamily {
    match ip {
        IpAddr::V4(_) => route::AddressFamily::Inet,
        IpAddr::V6(_) => route::AddressFamily::Inet6,
    }
}

/// An address of an interface, which is had at once: nobody is asked whether he has it, too.
pub fn address_message(index: u32, address: &Address) -> AddressMessage {
    const NODAD: u32 = 2;
    let mut message = AddressMessage::default();
    message.header.family = family(address.ip);
    message.header.prefix_len = address.prefix;
    message.header.index = index;
    message.attributes.push(AddressAttribute::Address(address.ip));
    message.attributes.push(AddressAttribute::Local(address.ip));
    if let Some(IpAddr::V4(to)) = address.broadcast() {
        message.attributes.push(AddressAttribute::Broadcast(to));
    }
    if address.ip.is_ipv6() {
        message.attributes.push(AddressAttribute::Flags(AddressFlags::from_bits_retain(NODAD)));
    }
    message
}

/// The interface's own address: of a link between two the other end's is told beside it.
pub fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let local =
        message.attributes.iter().find_map(|a| if let AddressAttribute::Local(ip) = a { Some(*ip) } else { None });
    let or =
        || message.attributes.iter().find_map(|a| if let AddressAttribute::Address(ip) = a { Some(*ip) } else { None });
    local.or_else(or)
}

/// A route.
pub fn route_message(route: &Route) -> RouteMessage {
    let address = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    };
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.to.ip);
    message.header.destination_prefix_length = route.to.prefix;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    if route.to.prefix > 0 {
        message.attributes.push(RouteAttribute::Destination(address(route.to.ip)));
    }
    message.attributes.extend(route.via.map(|via| RouteAttribute::Gateway(address(via))));
    message.attributes.push(RouteAttribute::Oif(route.interface));
    message.attributes.extend(route.source.map(|ip| RouteAttribute::PrefSource(address(ip))));
    if route.metric > 0 {
        message.attributes.push(RouteAttribute::Priority(route.metric));
    }
    message
}

/// A route as the kernel tells it: of any table and kind. `None`: it is of neither family.
pub fn read_route(message: &RouteMessage) -> Option<Route> {
    let ip = |a: &RouteAddress| match a {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    };
    let any = match message.header.address_family {
        route::AddressFamily::Inet => IpAddr::from([0; 4]),
        _ => IpAddr::from([0; 16]),
    };
    let to = Address { ip: any, prefix: message.header.destination_prefix_length };
    let mut route = Route { to, via: None, interface: 0, source: None, metric: 0 };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(a) => route.to.ip = ip(a)?,
            RouteAttribute::Gateway(a) => route.via = Some(ip(a)?),
            RouteAttribute::PrefSource(a) => route.source = ip(a),
            RouteAttribute::Oif(index) => route.interface = *index,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            _ => {}
        }
    }
    Some(route)
}
