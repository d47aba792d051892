//! `sock_diag(7)`: which internet sockets a namespace has, as `ss(8)` asks. A table of protocols; other families have no module for it
//! here, which Linux calls ENOENT, and who asks reads `/proc/net` instead.
//!
//! Called by netlink sockets (`super`). Must never tell of another namespace's sockets, nor change one.

use std::net::IpAddr;
use std::sync::Arc;

use super::message::{Attributes, Builder, DUMP, MULTI, Request, done, word};
use super::{Answer, Asker};
use crate::errno::Errno;
use crate::ipc::inet::address::{AF_INET, AF_INET6, Domain, Endpoint, six};
use crate::ipc::inet::options::{IP, IPV6, TCLASS, TOS, V6ONLY};
use crate::ipc::inet::tcp::Phase;
use crate::ipc::inet::{Inet, Kind};

/// `SOCK_DIAG_BY_FAMILY`, `SOCK_DESTROY`.
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
/// `TCPDIAG_GETSOCK`, `DCCPDIAG_GETSOCK`: the older requests, of all families.
const OF_TCP: u16 = 18;
const OF_DCCP: u16 = 19;
/// Bytes of `struct inet_diag_req_v2`, `struct inet_diag_req`.
const REQUEST: usize = 56;
const OLD_REQUEST: usize = 60;
/// Bytes of a datagram of a list: about as many as Linux puts into one.
const DATAGRAM: usize = 16_384;
/// `TCP_CLOSE`, `TCP_TIME_WAIT`.
const CLOSE: u8 = 7;
const TIME_WAIT: u8 = 6;

/// The protocols that are told of.
const TABLE: &[(u32, Kind)] = &[(6, Kind::Tcp), (17, Kind::Udp)];

/// Numbers of attributes (`INET_DIAG_*`).
mod attribute {
    pub const INFO: u16 = 2;
    pub const CONG: u16 = 4;
    pub const TOS: u16 = 5;
    pub const TCLASS: u16 = 6;
    pub const SHUTDOWN: u16 = 8;
    pub const SKV6ONLY: u16 = 11;
}

/// Whether a request is for a list.
pub(super) fn dumps(request: &Request<'_>) -> bool {
    matches!(request.kind, BY_FAMILY | OF_TCP | OF_DCCP) && request.flags & DUMP != 0
}

/// Answers a request. EINVAL, ENOENT, ESTALE, EPERM, EOPNOTSUPP.
pub(super) fn answer(asker: &Asker<'_>, request: &Request<'_>) -> Answer {
    /// `AF_MAX`.
    const FAMILIES: u8 = 46;
    /// `INET_DIAG_REQ_PROTOCOL`: one that a byte does not hold.
    const PROTOCOL: u16 = 3;
    if let OF_TCP | OF_DCCP = request.kind {
        let (own, attributes) = request.split(OLD_REQUEST)?;
        let extensions = own.get(3).copied().unwrap_or(0);
        let protocol = if request.kind == OF_TCP { 6 } else { 33 };
        let wanted = Wanted { domain: None, protocol, extensions, states: word(own, 52) };
        return match dumps(request) {
            true => list(asker, request, attributes, wanted),
            false => one(asker, request, own.get(4..).unwrap_or_default(), wanted),
        };
    }
    if !matches!(request.kind, BY_FAMILY | DESTROY) {
        return Err(Errno::EINVAL);
    }
    let &[family, protocol, ..] = request.payload() else { return Err(Errno::EINVAL) };
    let domain = match u16::from(family) {
        _ if family >= FAMILIES => return Err(Errno::EINVAL),
        AF_INET => Domain::V4,
        AF_INET6 => Domain::V6,
        _ => return Err(Errno::ENOENT),
    };
    let (own, attributes) = request.split(REQUEST)?;
    if request.kind == DESTROY {
        // As a kernel without CONFIG_INET_DIAG_DESTROY.
        return Err(if asker.admin { Errno::EOPNOTSUPP } else { Errno::EPERM });
    }
    let wanted = Wanted {
        domain: Some(domain),
        protocol: attributes.of(PROTOCOL).map_or(u32::from(protocol), |p| word(p, 0)),
        extensions: own.get(2).copied().unwrap_or(0),
        states: word(own, 4),
    };
    match dumps(request) {
        true => list(asker, request, attributes, wanted),
        false => one(asker, request, own.get(8..).unwrap_or_default(), wanted),
    }
}

/// What a request asks for.
#[derive(Clone, Copy)]
struct Wanted {
    /// `None`: both.
    domain: Option<Domain>,
    protocol: u32,
    /// Attributes, a bit each.
    extensions: u8,
    /// States, a bit each.
    states: u32,
}

fn list(asker: &Asker<'_>, request: &Request<'_>, attributes: Attributes<'_>, wanted: Wanted) -> Answer {
    let filter = attributes.of(Filter::ATTRIBUTE).map(Filter::new).transpose()?;
    let mut rows = match rows(asker, wanted) {
        Err(e) => return Ok(vec![done(request, asker.port, Some(e))]),
        Ok(rows) => rows,
    };
    rows.retain(|r| filter.as_ref().is_none_or(|f| f.takes(r)));
    let mut list: Vec<Vec<u8>> = Vec::new();
    for row in rows {
        let told = row.message(asker, request, MULTI, wanted.extensions);
        match list.last_mut().filter(|last| last.len() + told.len() <= DATAGRAM) {
            Some(last) => last.extend_from_slice(&told),
            None => list.push(told),
        }
    }
    list.push(done(request, asker.port, None));
    Ok(list)
}

/// What is told of a socket, or of what is left of one.
struct Row {
    domain: Domain,
    state: u8,
    own: Endpoint,
    other: Endpoint,
    /// Milliseconds that what is left stays.
    expires: u32,
    queues: [usize; 2],
    uid: u32,
    socket: Option<Arc<Inet>>,
}

impl Row {
    fn of(asker: &Asker<'_>, socket: Arc<Inet>) -> Self {
        let none = Endpoint { ip: socket.domain.any(), port: 0 };
        let (state, other, queues) = match socket.kind {
            Kind::Tcp => {
                let (phase, _, pending) = socket.tcp_look();
                let queues = match phase {
                    Phase::Listen => [pending, socket.tcp_backlog()],
                    _ => [socket.tcp_unread(), socket.tcp_unsent().unwrap_or(0)],
                };
                (phase.number(), socket.tcp_peer(), queues)
            }
            _ => {
                let peer = socket.peer().ok();
                (if peer.is_some() { 1 } else { CLOSE }, peer, [socket.udp_queued(), 0])
            }
        };
        Self {
            domain: socket.domain,
            state,
            own: socket.name(),
            other: other.unwrap_or(none),
            expires: 0,
            queues,
            uid: socket.shown_uid(asker.creds),
            socket: Some(socket),
        }
    }

    fn id(&self) -> u64 {
        self.socket.as_ref().map_or(u64::MAX, |s| s.id)
    }

    fn message(&self, asker: &Asker<'_>, request: &Request<'_>, flags: u16, extensions: u8) -> Vec<u8> {
        const TIMER_OF_TIME_WAIT: u8 = 3;
        let timer = if self.socket.is_none() { TIMER_OF_TIME_WAIT } else { 0 };
        let mut raw = vec![self.domain.number() as u8, self.state, timer, 0];
        raw.extend_from_slice(&self.own.port.to_be_bytes());
        raw.extend_from_slice(&self.other.port.to_be_bytes());
        for at in [self.own, self.other] {
            raw.extend_from_slice(&address(at.ip, self.domain));
        }
        // No device in particular.
        raw.extend_from_slice(&[0; 4]);
        raw.extend_from_slice(&self.id().to_ne_bytes());
        let [receive, send] = self.queues.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let ino = self.socket.as_ref().map_or(0, |s| u32::try_from(s.ino()).unwrap_or(u32::MAX));
        for n in [self.expires, receive, send, self.uid, ino] {
            raw.extend_from_slice(&n.to_ne_bytes());
        }
        let mut b = Builder::new(BY_FAMILY, flags, request.sequence, asker.port).raw(&raw);
        let Some(socket) = &self.socket else { return b.end() };
        let wants = |n: u16| extensions & 1u8.checked_shl(u32::from(n) - 1).unwrap_or(0) != 0;
        let value = |level, option| socket.values(|v| v.get(level, option));
        b = b.attribute(attribute::SHUTDOWN, &[socket.shut_bits()]);
        if wants(attribute::TOS) {
            b = b.attribute(attribute::TOS, &[value(IP, TOS) as u8]);
        }
        if self.domain == Domain::V6 {
            if wants(attribute::TCLASS) {
                b = b.attribute(attribute::TCLASS, &[value(IPV6, TCLASS).max(0) as u8]);
            }
            if matches!(self.state, CLOSE | 10) {
                b = b.attribute(attribute::SKV6ONLY, &[u8::from(value(IPV6, V6ONLY) != 0)]);
            }
        }
        if socket.kind == Kind::Tcp && wants(attribute::INFO) {
            b = b.attribute(attribute::INFO, &crate::syscalls::inet_options::info(socket));
        }
        if socket.kind == Kind::Tcp && wants(attribute::CONG) {
            let name = socket.values(|v| v.congestion).unwrap_or("cubic");
            b = b.attribute(attribute::CONG, &[name.as_bytes(), &[0]].concat());
        }
        b.end()
    }
}

fn address(ip: IpAddr, domain: Domain) -> [u8; 16] {
    match (domain, ip) {
        (Domain::V4, IpAddr::V4(ip)) => {
            let mut raw = [0; 16];
            raw.iter_mut().zip(ip.octets()).for_each(|(to, b)| *to = b);
            raw
        }
        // No address in particular is all zeros, not a mapped one.
        (_, ip) if ip.is_unspecified() => [0; 16],
        (_, ip) => six(ip).octets(),
    }
}

/// What there is: who listens first, what is left of connections last. ENOENT of protocols that nothing is told of.
fn rows(asker: &Asker<'_>, wanted: Wanted) -> Result<Vec<Row>, Errno> {
    let kind = TABLE.iter().find(|(p, _)| *p == wanted.protocol).map(|(_, kind)| *kind).ok_or(Errno::ENOENT)?;
    let of_family = |domain| wanted.domain.is_none_or(|d| d == domain);
    let (sockets, left) = asker.net.ports(kind).lock().all();
    let mut rows: Vec<Row> = sockets.into_iter().map(|s| Row::of(asker, s)).collect();
    // What has a port and no connection is in no table of TCP's.
    rows.retain(|r| kind != Kind::Tcp || r.state != CLOSE);
    rows.sort_by_key(|r| (r.socket.as_ref().is_none_or(|s| !s.listens()), r.id()));
    rows.extend(left.into_iter().map(|((own, other), ns)| Row {
        domain: if own.ip.is_ipv4() { Domain::V4 } else { Domain::V6 },
        state: TIME_WAIT,
        own,
        other,
        expires: u32::try_from(ns / 1_000_000).unwrap_or(0),
        queues: [0; 2],
        uid: 0,
        socket: None,
    }));
    let in_state = |state: u8| wanted.states & 1u32.checked_shl(u32::from(state)).unwrap_or(0) != 0;
    rows.retain(|r| of_family(r.domain) && in_state(r.state));
    Ok(rows)
}

/// The one socket that `struct inet_diag_sockid` names. ENOENT; ESTALE for another's cookie.
fn one(asker: &Asker<'_>, request: &Request<'_>, id: &[u8], wanted: Wanted) -> Answer {
    let named = |r: &Row| {
        let ports = [r.own.port.to_be_bytes(), r.other.port.to_be_bytes()].concat();
        let ips = [address(r.own.ip, r.domain), address(r.other.ip, r.domain)].concat();
        // Of an IPv4 address the rest says nothing.
        let len = if r.domain == Domain::V4 { 4 } else { 16 };
        let same = |at: usize| id.get(4 + at..4 + at + len) == ips.get(at..at + len);
        id.get(..4) == Some(&ports[..]) && same(0) && same(16)
    };
    let all = rows(asker, Wanted { states: u32::MAX, ..wanted })?;
    let row = all.into_iter().find(named).ok_or(Errno::ENOENT)?;
    let cookie = id.get(40..48).and_then(|b| b.try_into().ok()).map_or(u64::MAX, u64::from_ne_bytes);
    if cookie != u64::MAX && cookie != row.id() {
        // Protocols differ.
        return Err(if wanted.protocol == 6 { Errno::ENOENT } else { Errno::ESTALE });
    }
    Ok(vec![row.message(asker, request, 0, wanted.extensions)])
}

/// Which sockets are wanted (`INET_DIAG_REQ_BYTECODE`): comparisons that go on to one place or another, until the end of the program.
/// Jumps only ever go forward, so it ends.
struct Filter<'a>(&'a [u8]);

impl<'a> Filter<'a> {
    const ATTRIBUTE: u16 = 1;
    const NOP: u8 = 0;
    const JMP: u8 = 1;

    /// EINVAL for one that does not end where it should.
    fn new(program: &'a [u8]) -> Result<Self, Errno> {
        const LAST: u8 = 6;
        const EQUALS: [u8; 2] = [11, 12];
        let mut at = 0;
        while at < program.len() {
            let (code, yes, no) = Self::operation(program, at).ok_or(Errno::EINVAL)?;
            let known = code <= LAST || [7, 8].contains(&code) || EQUALS.contains(&code);
            let (rest, jumps) = (program.len() - at, code != Self::NOP);
            let bad = |n: usize| n < 4 || !n.is_multiple_of(4) || n > rest + 4;
            if !known || yes < 4 || !yes.is_multiple_of(4) || yes > rest || jumps && bad(no) {
                return Err(Errno::EINVAL);
            }
            at += yes;
        }
        Ok(Self(program))
    }

    fn operation(program: &[u8], at: usize) -> Option<(u8, usize, usize)> {
        let &[code, yes, low, high] = program.get(at..)?.first_chunk()?;
        Some((code, usize::from(yes), usize::from(u16::from_ne_bytes([low, high]))))
    }

    /// Whether a socket is wanted: who comes to the end is, who jumps beyond it is not.
    fn takes(&self, row: &Row) -> bool {
        let mut at = 0;
        while at < self.0.len() {
            let Some((code, yes, no)) = Self::operation(self.0, at) else { return false };
            // A port is where the next operation would be told to go, or a word of its own.
            let port = |at: usize| Self::operation(self.0, at + 4).map_or(0, |(_, _, n)| n);
            let (own, other) = (usize::from(row.own.port), usize::from(row.other.port));
            let is = match code {
                Self::NOP => true,
                Self::JMP => false,
                2 => own >= port(at),
                3 => own <= port(at),
                4 => other >= port(at),
                5 => other <= port(at),
                // INET_DIAG_BC_AUTO: its port was not asked for.
                6 => row.socket.as_ref().is_some_and(|s| !s.claim().asked),
                7 => self.is_at(at, row.own, row.domain),
                8 => self.is_at(at, row.other, row.domain),
                11 => own == port(at),
                12 => other == port(at),
                _ => false,
            };
            at += if is { yes.max(4) } else { no.max(4) };
        }
        at == self.0.len()
    }

    /// `struct inet_diag_hostcond`: a family, so many bits of an address, a port or -1.
    fn is_at(&self, at: usize, place: Endpoint, domain: Domain) -> bool {
        let Some(condition) = self.0.get(at + 4..) else { return false };
        let &[family, bits, _, _, ..] = condition else { return false };
        let port = word(condition, 4);
        if port != u32::MAX && port != u32::from(place.port) {
            return false;
        }
        let family = u16::from(family);
        if family != 0 && family != domain.number() && !(family == AF_INET && place.ip.is_ipv4()) {
            return false;
        }
        let bits = usize::from(bits);
        let raw = match place.ip {
            IpAddr::V4(ip) if family != AF_INET6 => ip.octets().to_vec(),
            ip => six(ip).octets().to_vec(),
        };
        let Some(want) = condition.get(8..8 + bits.div_ceil(8)) else { return false };
        let same = |n: usize| {
            let mask = 0x80u8 >> (n % 8);
            raw.get(n / 8).zip(want.get(n / 8)).is_some_and(|(a, b)| a & mask == b & mask)
        };
        (0..bits).all(same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(own: u16, other: u16) -> Row {
        let at = |port| Endpoint { ip: "127.0.0.1".parse().unwrap(), port };
        let (own, other) = (at(own), at(other));
        Row { domain: Domain::V4, state: 1, own, other, expires: 0, queues: [0; 2], uid: 0, socket: None }
    }

    #[test]
    fn filters_compare_and_end() {
        // sport >= 80, as ss writes it: beyond the end where it is not.
        let least = [2, 8, 12, 0, 0, 0, 80, 0];
        let f = Filter::new(&least).unwrap();
        assert!(f.takes(&row(80, 1)) && !f.takes(&row(79, 1)));
        // dst 127.0.0.0/8.
        let of = [8, 16, 20, 0, 2, 8, 0, 0, 0xff, 0xff, 0xff, 0xff, 127, 0, 0, 0];
        assert!(Filter::new(&of).unwrap().takes(&row(1, 2)));
        let not = [8, 16, 20, 0, 2, 8, 0, 0, 0xff, 0xff, 0xff, 0xff, 10, 0, 0, 0];
        assert!(!Filter::new(&not).unwrap().takes(&row(1, 2)));
        for bad in [&[2, 0, 4, 0][..], &[2, 8, 4, 0], &[99, 4, 4, 0], &[1, 4, 200, 0], &[1, 4]] {
            assert!(Filter::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn attributes_of_other_kinds_are_no_filter() {
        let raw = Builder::new(BY_FAMILY, 0, 0, 0).raw(&[0; REQUEST]).attribute(9, &[1, 2, 3, 4]).end();
        let request = super::super::message::requests(&raw).next().unwrap();
        let (_, attributes): (_, Attributes<'_>) = request.split(REQUEST).unwrap();
        assert!(attributes.of(Filter::ATTRIBUTE).is_none());
    }
}
