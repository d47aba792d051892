//! `rtnetlink(7)`: links, addresses, routes. A table of requests. A namespace has a loopback device with the addresses that it is given; the
//! sandbox's first one has the interfaces, addresses and routes that netd has, too, which are as the engine made them: they can be looked at.

use std::net::{IpAddr, Ipv6Addr};

use cofferdam_control::netd::{self, Interface, Route};
use cofferdam_socket::traffic::Traffic;

use super::loopback::{Address, INDEX, INTERFACE_FLAGS, NAME, PERMANENT, UP, label};
use super::message::{self, Attributes, Builder, CREATE, EXCL, MULTI, REPLACE, Request, word};
use super::{Answer, Answerer, Asker};
use crate::errno::Errno;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const AF_BRIDGE: u8 = 7;
/// Bytes of `struct ifinfomsg`, `struct ifaddrmsg`.
const LINK: usize = 16;
const ADDRESS: usize = 8;
/// `RTM_MAX`.
const LAST: u16 = 123;

/// What a kind of request comes to.
struct Entry {
    kind: u16,
    /// Families it is for; [`AF_UNSPEC`] for all others as well.
    family: u8,
    /// Of one thing.
    one: Option<Answerer>,
    /// Of all.
    all: Option<Answerer>,
}

/// The requests.
const TABLE: &[Entry] = &[
    Entry { kind: 16, family: AF_UNSPEC, one: Some(new_link), all: None },
    Entry { kind: 17, family: AF_UNSPEC, one: Some(delete_link), all: None },
    Entry { kind: 18, family: AF_UNSPEC, one: Some(get_link), all: Some(links) },
    Entry { kind: 18, family: AF_BRIDGE, one: None, all: Some(nothing) },
    Entry { kind: 19, family: AF_UNSPEC, one: Some(set_link), all: None },
    Entry { kind: 20, family: AF_INET, one: Some(new_address), all: None },
    Entry { kind: 21, family: AF_INET, one: Some(delete_address), all: None },
    Entry { kind: 22, family: AF_UNSPEC, one: None, all: Some(addresses) },
    Entry { kind: 22, family: AF_INET, one: None, all: Some(addresses) },
    Entry { kind: 22, family: AF_INET6, one: None, all: Some(addresses) },
    Entry { kind: 26, family: AF_UNSPEC, one: None, all: Some(routes) },
    Entry { kind: 26, family: AF_INET, one: Some(route_to), all: Some(routes) },
    Entry { kind: 26, family: AF_INET6, one: Some(route_to), all: Some(routes) },
    Entry { kind: 30, family: AF_UNSPEC, one: None, all: Some(nothing) },
    Entry { kind: 38, family: AF_UNSPEC, one: None, all: Some(nothing) },
    Entry { kind: 90, family: AF_UNSPEC, one: None, all: Some(nothing) },
];

fn found(kind: u16, family: u8, of: impl Fn(&Entry) -> Option<Answerer>) -> Option<Answerer> {
    let named = |family| TABLE.iter().find(|e| e.kind == kind && e.family == family).and_then(&of);
    named(family).or_else(|| named(AF_UNSPEC))
}

/// Whether a request is for a list, which has an end of its own.
pub(super) fn dumps(request: &Request<'_>) -> bool {
    const GET: u16 = 2;
    request.kind % 4 == GET && request.flags & message::DUMP != 0 && !request.payload().is_empty()
}

/// Answers a request.
pub(super) fn answer(asker: &Asker<'_>, request: &Request<'_>) -> Answer {
    const GET: u16 = 2;
    if request.kind > LAST {
        return Err(Errno::EOPNOTSUPP);
    }
    // Too short to say what it is about: not an error.
    let Some(family) = request.payload().first().copied() else { return Ok(Vec::new()) };
    if request.kind % 4 != GET && !asker.admin {
        return Err(Errno::EPERM);
    }
    if dumps(request) {
        let all = found(request.kind, family, |e| e.all).ok_or(Errno::EOPNOTSUPP)?;
        let mut list = all(asker, request)?;
        list.push(message::done(request, asker.port, None));
        return Ok(list);
    }
    found(request.kind, family, |e| e.one).ok_or(Errno::EOPNOTSUPP)?(asker, request)
}

fn nothing(_: &Asker<'_>, _: &Request<'_>) -> Answer {
    Ok(Vec::new())
}

mod rta {
    pub const DST: u16 = 1;
    pub const OIF: u16 = 4;
    pub const GATEWAY: u16 = 5;
    pub const PRIORITY: u16 = 6;
    pub const PREFSRC: u16 = 7;
    pub const TABLE: u16 = 15;
}
/// Bytes of `struct rtmsg`.
const ROUTE: usize = 12;

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// A route as a message. `to`: the one address that was asked for, and the address that something for it comes from.
fn route(asker: &Asker<'_>, request: &Request<'_>, flags: u16, r: &Route, to: Option<(IpAddr, IpAddr)>) -> Vec<u8> {
    const NEW: u16 = 24;
    const MAIN: u8 = 254;
    const BOOT: u8 = 3;
    const KERNEL: u8 = 2;
    const LINK_SCOPE: u8 = 253;
    const UNICAST: u8 = 1;
    let four = r.to.ip.is_ipv4();
    let prefix = if to.is_none() {
        r.to.prefix
    } else if four {
        32
    } else {
        128
    };
    let scope = if r.via.is_none() && four { LINK_SCOPE } else { 0 };
    let by = if r.via.is_some() { BOOT } else { KERNEL };
    // RTM_F_CLONED: it was made of one of the table for this address.
    let cloned = if to.is_some() { 2 } else { 0 };
    let own = [if four { AF_INET } else { AF_INET6 }, prefix, 0, 0, MAIN, by, scope, UNICAST, 0, cloned, 0, 0];
    let mut b = Builder::new(NEW, flags, request.sequence, asker.port).raw(&own).number(rta::TABLE, MAIN.into());
    if let Some(ip) = to.map(|(to, _)| to).or(Some(r.to.ip).filter(|_| r.to.prefix > 0)) {
        b = b.attribute(rta::DST, &octets(ip));
    }
    if let Some(via) = r.via {
        b = b.attribute(rta::GATEWAY, &octets(via));
    }
    b = b.number(rta::OIF, r.interface);
    if r.metric != 0 && to.is_none() {
        b = b.number(rta::PRIORITY, r.metric);
    }
    if let Some(source) = to.map(|(_, from)| from).or(r.source) {
        b = b.attribute(rta::PREFSRC, &octets(source));
    }
    b.end()
}

fn routes(asker: &Asker<'_>, request: &Request<'_>) -> Answer {
    let family = request.payload().first().copied().unwrap_or(AF_UNSPEC);
    let wanted = |r: &&Route| match family {
        AF_INET => r.to.ip.is_ipv4(),
        AF_INET6 => r.to.ip.is_ipv6(),
        family => family == AF_UNSPEC,
    };
    let all = asker.net.outside().into_iter().flat_map(|o| &o.network.routes);
    Ok(all.filter(wanted).map(|r| route(asker, request, MULTI, r, None)).collect())
}

/// The way to one address. ENETUNREACH.
fn route_to(asker: &Asker<'_>, request: &Request<'_>) -> Answer {
    let (own, attributes) = request.split(ROUTE)?;
    let raw = attributes.of(rta::DST).ok_or(Errno::EINVAL)?;
    let to = match own.first().copied() {
        Some(AF_INET) => raw.first_chunk::<4>().map(|b| IpAddr::from(*b)),
        _ => raw.first_chunk::<16>().map(|b| IpAddr::from(*b)),
    };
    let to = to.ok_or(Errno::EINVAL)?;
    let outside = asker.net.outside().ok_or(Errno::ENETUNREACH)?;
    let (found, source) = outside.route(to, None).ok_or(Errno::ENETUNREACH)?;
    Ok(vec![route(asker, request, 0, &found, Some((to, source)))])
}

/// An interface of netd's, as a message about a link.
fn interface(asker: &Asker<'_>, request: &Request<'_>, flags: u16, i: &Interface, t: &Traffic) -> Vec<u8> {
    const NEW: u16 = 16;
    const ARPHRD_ETHER: u16 = 1;
    let mut own = vec![0, 0];
    own.extend_from_slice(&ARPHRD_ETHER.to_ne_bytes());
    own.extend_from_slice(&i.index.to_ne_bytes());
    own.extend_from_slice(&INTERFACE_FLAGS.to_ne_bytes());
    own.extend_from_slice(&[0; 4]);
    let counts =
        [t.received_packets, t.sent_packets, t.received_bytes, t.sent_bytes, 0, 0, t.received_lost, t.sent_lost];
    let mut wide: Vec<u8> = counts.iter().flat_map(|n| n.to_ne_bytes()).collect();
    wide.resize(200, 0);
    let mut narrow: Vec<u8> = counts.iter().flat_map(|n| (*n as u32).to_ne_bytes()).collect();
    narrow.resize(96, 0);
    // IF_OPER_UP.
    Builder::new(NEW, flags, request.sequence, asker.port)
        .raw(&own)
        .attribute(3, &[i.name.as_bytes(), &[0]].concat())
        .number(13, 1000)
        .attribute(16, &[6])
        .attribute(17, &[0])
        .number(4, i.mtu)
        .number(50, 68)
        .number(51, 65535)
        .number(27, 0)
        .number(30, 0)
        .number(31, 1)
        .number(40, 65535)
        .number(41, 65536)
        .number(32, 1)
        .attribute(33, &[1])
        .attribute(39, &[0])
        .attribute(1, &i.mac)
        .attribute(2, &[0xff; 6])
        .attribute(23, &wide)
        .attribute(7, &narrow)
        .attribute(6, b"noqueue\0")
        .attribute(14, &[0; 32])
        .end()
}

/// Which device a request about a link names.
enum Named<'a> {
    Loopback,
    Other(&'a Interface, Traffic),
}

impl Named<'_> {
    fn message(&self, asker: &Asker<'_>, request: &Request<'_>, flags: u16) -> Vec<u8> {
        match self {
            Self::Loopback => link(asker, request, flags),
            Self::Other(i, t) => interface(asker, request, flags, i, t),
        }
    }
}

/// The loopback device, as a message about a link.
fn link(asker: &Asker<'_>, request: &Request<'_>, flags: u16) -> Vec<u8> {
    const NEW: u16 = 16;
    const ARPHRD_LOOPBACK: u16 = 772;
    let device = &asker.net.loopback;
    let up = device.is_up();
    let kind = ARPHRD_LOOPBACK.to_ne_bytes();
    let mut own = vec![0, 0];
    own.extend_from_slice(&kind);
    own.extend_from_slice(&INDEX.to_ne_bytes());
    own.extend_from_slice(&device.flags().to_ne_bytes());
    own.extend_from_slice(&[0; 4]);
    let name = [NAME, &[0]].concat();
    // IF_OPER_DOWN, or UNKNOWN: it has no other way to be up.
    let operating = if up { 0 } else { 2 };
    Builder::new(NEW, flags, request.sequence, asker.port)
        .raw(&own)
        .attribute(3, &name)
        .number(13, 1000)
        .attribute(16, &[operating])
        .attribute(17, &[0])
        .number(4, device.mtu())
        .number(50, 0)
        .number(51, 0)
        .number(27, 0)
        .number(30, 0)
        .number(61, 0)
        .number(31, 1)
        .number(40, 65535)
        .number(41, 65536)
        .number(58, 65536)
        .number(63, 65536)
        .number(64, 65536)
        .number(59, 524_280)
        .number(60, 65535)
        .number(32, 1)
        .attribute(33, &[1])
        .number(35, 0)
        .number(47, 0)
        .number(48, 0)
        .attribute(39, &[0])
        .attribute(1, &[0; 6])
        .attribute(2, &[0; 6])
        .attribute(23, &[0; 200])
        .attribute(7, &[0; 96])
        .attribute(6, device.queueing())
        .attribute(14, &[0; 32])
        .end()
}

fn links(asker: &Asker<'_>, request: &Request<'_>) -> Answer {
    if asker.strict {
        request.split(LINK)?;
    }
    let others = asker.net.outside().into_iter().flat_map(|o| o.interfaces());
    let others = others.map(|(i, t)| interface(asker, request, MULTI, i, &t));
    Ok(std::iter::once(link(asker, request, MULTI)).chain(others).collect())
}

/// The device that a request about a link names. ENODEV for one that there is none of, `otherwise` where it names none.
fn named<'a>(
    asker: &'a Asker<'_>,
    own: &[u8],
    attributes: Attributes<'_>,
    otherwise: Errno,
) -> Result<Named<'a>, Errno> {
    const IFNAME: u16 = 3;
    const ALT_IFNAME: u16 = 53;
    let index = word(own, 4);
    let name = attributes.name(IFNAME).or_else(|| attributes.name(ALT_IFNAME));
    if index == INDEX || index == 0 && name == Some(NAME) {
        return Ok(Named::Loopback);
    }
    if index == 0 && name.is_none() {
        return Err(otherwise);
    }
    let is = |i: &Interface| if index != 0 { i.index == index } else { name == Some(i.name.as_bytes()) };
    let mut others = asker.net.outside().into_iter().flat_map(|o| o.interfaces());
    others.find(|(i, _)| is(i)).map(|(i, t)| Named::Other(i, t)).ok_or(Errno::ENODEV)
}

fn get_link(asker: &Asker<'_>, request: &Request<'_>) -> Answer {
    let (own, attributes) = request.split(LINK)?;
    Ok(vec![named(asker, own, attributes, Errno::EINVAL)?.message(asker, request, 0)])
}

/// Takes the device up or down. Nothing else of it can be changed.
fn set_link(asker: &Asker<'_>, request: &Request<'_>) -> Answer {
    const NAMED_BY: [u16; 3] = [3, 29, 53];
    let (own, mut attributes) = request.split(LINK)?;
    let device = named(asker, own, attributes, Errno::EINVAL)?;
    if attributes.any(|(kind, _)| !NAMED_BY.contains(&kind)) {
        return Err(Errno::EOPNOTSUPP);
    }
    let (flags, change) = (word(own, 8), word(own, 12));
    let change = if change == 0 && flags != 0 { u32::MAX } else { change };
    if let Named::Other(..) = device {
        // It is up, and stays so: it is the engine's.
        return if change & UP != 0 && flags & UP == 0 { Err(Errno::EOPNOTSUPP) } else { Ok(Vec::new()) };
    }
    if change & UP != 0 {
        asker.net.loopback.set_up(flags & UP != 0);
    }
    Ok(Vec::new())
}

fn new_link(asker: &Asker<'_>, request: &Request<'_>) -> Answer {
    let (own, attributes) = request.split(LINK)?;
    match named(asker, own, attributes, Errno::ENODEV).map(drop) {
        // There are no devices of any other kind.
        Err(_) if request.flags & CREATE != 0 => Err(Errno::EOPNOTSUPP),
        Err(e) => Err(e),
        Ok(()) if request.flags & EXCL != 0 => Err(Errno::EEXIST),
        Ok(()) if request.flags & REPLACE != 0 => Err(Errno::EOPNOTSUPP),
        Ok(()) => set_link(asker, request),
    }
}

fn delete_link(asker: &Asker<'_>, request: &Request<'_>) -> Answer {
    let (own, attributes) = request.split(LINK)?;
    named(asker, own, attributes, Errno::EINVAL)?;
    Err(Errno::EOPNOTSUPP)
}

mod ifa {
    pub const ADDRESS: u16 = 1;
    pub const LOCAL: u16 = 2;
    pub const LABEL: u16 = 3;
    pub const BROADCAST: u16 = 4;
    pub const CACHEINFO: u16 = 6;
    pub const FLAGS: u16 = 8;
}

fn addresses(asker: &Asker<'_>, request: &Request<'_>) -> Answer {
    const NEW: u16 = 20;
    let named = if asker.strict { word(request.split(ADDRESS)?.0, 4) } else { 0 };
    if named != 0 && !asker.net.has_device(named) {
        return Err(Errno::ENODEV);
    }
    let mut list = Vec::new();
    let family = request.payload().first().copied().unwrap_or(AF_UNSPEC);
    let of_loopback = named == 0 || named == INDEX;
    let four = if family == AF_INET6 || !of_loopback { Vec::new() } else { asker.net.loopback.addresses() };
    for a in four {
        let mut own = vec![AF_INET, a.prefix, a.flags as u8, a.scope];
        own.extend_from_slice(&INDEX.to_ne_bytes());
        let b = Builder::new(NEW, MULTI, request.sequence, asker.port).raw(&own);
        let b = b.attribute(ifa::ADDRESS, &a.address).attribute(ifa::LOCAL, &a.local);
        let b = if let Some(to) = a.broadcast { b.attribute(ifa::BROADCAST, &to) } else { b };
        // For ever, made when nobody knows.
        let lives = [[0xff; 8], [0; 8]].concat();
        let b = b.attribute(ifa::LABEL, &[a.name(), &[0]].concat()).number(ifa::FLAGS, a.flags);
        list.extend_from_slice(&b.attribute(ifa::CACHEINFO, &lives).end());
    }
    let others = || asker.net.outside().into_iter().flat_map(|o| &o.network.interfaces);
    let others = || others().filter(|i| named == 0 || named == i.index);
    let of = |four: bool| {
        others().flat_map(move |i| i.addresses.iter().filter(move |a| a.ip.is_ipv4() == four).map(move |a| (i, a)))
    };
    if family != AF_INET6 {
        of(true).for_each(|(i, a)| list.extend_from_slice(&address(asker, request, i, a)));
    }
    if family != AF_INET && of_loopback && asker.net.loopback.has_six() {
        list.extend_from_slice(&localhost6(asker, request));
    }
    if family != AF_INET {
        of(false).for_each(|(i, a)| list.extend_from_slice(&address(asker, request, i, a)));
    }
    Ok(if list.is_empty() { Vec::new() } else { vec![list] })
}

/// An address of an interface of netd's.
fn address(asker: &Asker<'_>, request: &Request<'_>, i: &Interface, a: &netd::Address) -> Vec<u8> {
    const NEW: u16 = 20;
    const LINK_SCOPE: u8 = 253;
    let local = matches!(a.ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let family = if a.ip.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut own = vec![family, a.prefix, PERMANENT as u8, if local { LINK_SCOPE } else { 0 }];
    own.extend_from_slice(&i.index.to_ne_bytes());
    let ip = octets(a.ip);
    let mut b = Builder::new(NEW, MULTI, request.sequence, asker.port).raw(&own).attribute(ifa::ADDRESS, &ip);
    if a.ip.is_ipv4() {
        b = b.attribute(ifa::LOCAL, &ip);
        if let Some(to) = a.broadcast() {
            b = b.attribute(ifa::BROADCAST, &octets(to));
        }
        b = b.attribute(ifa::LABEL, &[i.name.as_bytes(), &[0]].concat());
    }
    let lives = [[0xff; 8], [0; 8]].concat();
    b.number(ifa::FLAGS, PERMANENT).attribute(ifa::CACHEINFO, &lives).end()
}

/// IPv6's address of the loopback device, which it has while it is up.
fn localhost6(asker: &Asker<'_>, request: &Request<'_>) -> Vec<u8> {
    const NEW: u16 = 20;
    const HOST: u8 = 254;
    let mut own = vec![AF_INET6, 128, PERMANENT as u8, HOST];
    own.extend_from_slice(&INDEX.to_ne_bytes());
    let lives = [[0xff; 8], [0; 8]].concat();
    let b = Builder::new(NEW, MULTI, request.sequence, asker.port).raw(&own);
    let b = b.attribute(ifa::ADDRESS, &Ipv6Addr::LOCALHOST.octets()).attribute(ifa::CACHEINFO, &lives);
    b.number(ifa::FLAGS, PERMANENT).end()
}

/// An IPv4 address in an attribute. EINVAL.
fn four(attributes: Attributes<'_>, kind: u16) -> Result<Option<[u8; 4]>, Errno> {
    attributes.of(kind).map(|a| a.try_into().map_err(|_| Errno::EINVAL)).transpose()
}

fn new_address(asker: &Asker<'_>, request: &Request<'_>) -> Answer {
    let (own, attributes) = request.split(ADDRESS)?;
    let &[_, prefix, flags, scope, ..] = own else { return Err(Errno::EINVAL) };
    let local = four(attributes, ifa::LOCAL)?.filter(|_| prefix <= 32).ok_or(Errno::EINVAL)?;
    if word(own, 4) != INDEX {
        // The addresses of others are the engine's.
        return Err(if asker.net.has_device(word(own, 4)) { Errno::EOPNOTSUPP } else { Errno::ENODEV });
    }
    let flags = attributes.of(ifa::FLAGS).map_or(u32::from(flags), |f| word(f, 0));
    let new = Address {
        local,
        address: four(attributes, ifa::ADDRESS)?.unwrap_or(local),
        broadcast: four(attributes, ifa::BROADCAST)?,
        prefix,
        scope,
        flags: flags | PERMANENT,
        label: label(attributes.name(ifa::LABEL).unwrap_or(NAME)),
    };
    let replace = request.flags & REPLACE != 0 && request.flags & EXCL == 0;
    asker.net.loopback.add(new, replace).map(|()| Vec::new())
}

fn delete_address(asker: &Asker<'_>, request: &Request<'_>) -> Answer {
    let (own, attributes) = request.split(ADDRESS)?;
    let prefix = own.get(1).copied().unwrap_or(0);
    if word(own, 4) != INDEX {
        // The addresses of others are the engine's.
        return Err(if asker.net.has_device(word(own, 4)) { Errno::EOPNOTSUPP } else { Errno::ENODEV });
    }
    let (local, address) = (four(attributes, ifa::LOCAL)?, four(attributes, ifa::ADDRESS)?);
    let named = attributes.name(ifa::LABEL);
    let is = |a: &Address| {
        local.is_none_or(|l| l == a.local)
            && named.is_none_or(|l| l == a.name())
            && address.is_none_or(|to| prefix == a.prefix && to == a.address)
    };
    asker.net.loopback.remove(is).map(|()| Vec::new())
}
