//! `rtnetlink(7)`: links, addresses, routes. A table of requests; what is true of a sandbox without a network is that there is a loopback
//! device with the addresses it was given, and no route.

use std::net::Ipv6Addr;

use super::loopback::{Address, INDEX, NAME, PERMANENT, UP, label};
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
    Entry { kind: 26, family: AF_UNSPEC, one: None, all: Some(nothing) },
    Entry { kind: 26, family: AF_INET, one: Some(no_route), all: Some(nothing) },
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

fn no_route(_: &Asker<'_>, _: &Request<'_>) -> Answer {
    Err(Errno::ENETUNREACH)
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
    Ok(vec![link(asker, request, MULTI)])
}

/// Whether a request about a link names the loopback device. ENODEV for another, `otherwise` where it names none.
fn names_loopback(own: &[u8], attributes: Attributes<'_>, otherwise: Errno) -> Result<(), Errno> {
    const IFNAME: u16 = 3;
    const ALT_IFNAME: u16 = 53;
    let index = word(own, 4);
    if index != 0 {
        return if index == INDEX { Ok(()) } else { Err(Errno::ENODEV) };
    }
    match attributes.name(IFNAME).or_else(|| attributes.name(ALT_IFNAME)) {
        Some(name) if name == NAME => Ok(()),
        Some(_) => Err(Errno::ENODEV),
        None => Err(otherwise),
    }
}

fn get_link(asker: &Asker<'_>, request: &Request<'_>) -> Answer {
    let (own, attributes) = request.split(LINK)?;
    names_loopback(own, attributes, Errno::EINVAL)?;
    Ok(vec![link(asker, request, 0)])
}

/// Takes the device up or down. Nothing else of it can be changed.
fn set_link(asker: &Asker<'_>, request: &Request<'_>) -> Answer {
    const NAMED_BY: [u16; 3] = [3, 29, 53];
    let (own, mut attributes) = request.split(LINK)?;
    names_loopback(own, attributes, Errno::EINVAL)?;
    if attributes.any(|(kind, _)| !NAMED_BY.contains(&kind)) {
        return Err(Errno::EOPNOTSUPP);
    }
    let (flags, change) = (word(own, 8), word(own, 12));
    let change = if change == 0 && flags != 0 { u32::MAX } else { change };
    if change & UP != 0 {
        asker.net.loopback.set_up(flags & UP != 0);
    }
    Ok(Vec::new())
}

fn new_link(asker: &Asker<'_>, request: &Request<'_>) -> Answer {
    let (own, attributes) = request.split(LINK)?;
    match names_loopback(own, attributes, Errno::ENODEV) {
        // There are no devices of any other kind.
        Err(_) if request.flags & CREATE != 0 => Err(Errno::EOPNOTSUPP),
        Err(e) => Err(e),
        Ok(()) if request.flags & EXCL != 0 => Err(Errno::EEXIST),
        Ok(()) if request.flags & REPLACE != 0 => Err(Errno::EOPNOTSUPP),
        Ok(()) => set_link(asker, request),
    }
}

fn delete_link(_: &Asker<'_>, request: &Request<'_>) -> Answer {
    let (own, attributes) = request.split(LINK)?;
    names_loopback(own, attributes, Errno::EINVAL)?;
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
    if named != 0 && named != INDEX {
        return Err(Errno::ENODEV);
    }
    let mut list = Vec::new();
    let family = request.payload().first().copied().unwrap_or(AF_UNSPEC);
    let four = if family == AF_INET6 { Vec::new() } else { asker.net.loopback.addresses() };
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
    if family != AF_INET && asker.net.loopback.has_six() {
        list.extend_from_slice(&localhost6(asker, request));
    }
    Ok(if list.is_empty() { Vec::new() } else { vec![list] })
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
        return Err(Errno::ENODEV);
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
        return Err(Errno::ENODEV);
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
