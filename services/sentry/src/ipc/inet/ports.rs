//! Ports of a network namespace: which sockets have which, which listen, and which pairs of addresses are connected.
//!
//! Owns the rules of who may have a port beside whom (`SO_REUSEADDR`, `SO_REUSEPORT`, `socket(7)`, `ip(7)`), the choice of a free one, and
//! what is left of a connection for a minute after who closed it first is gone (TIME_WAIT, RFC 9293). Sockets are held weakly: one takes itself
//! out as it closes. Called by `inet` and its protocols. Its lock comes before a socket's own.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock, Weak};

use super::address::{Domain, Endpoint};
use super::{Inet, Kind};
use crate::errno::Errno;
use crate::time::{Clock, NS, now};

/// How long what is left of a connection stays (`TCP_TIMEWAIT_LEN`).
const TIME_WAIT: i64 = 60 * NS;
/// How many of those there may be (`net.ipv4.tcp_max_tw_buckets`); beyond it the oldest go.
const TIME_WAITS: usize = 16_384;

/// Both ends of a connection, the own one first.
pub type Pair = (Endpoint, Endpoint);

/// What counts of a socket when another wants its port.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Its family.
    pub domain: Domain,
    /// Its address, which may be none in particular.
    pub ip: IpAddr,
    /// `IPV6_V6ONLY`.
    pub v6only: bool,
    /// `SO_REUSEADDR`.
    pub reuse: bool,
    /// `SO_REUSEPORT`.
    pub reuseport: bool,
    /// Whose it is: ports are shared by `SO_REUSEPORT` with oneself only.
    pub uid: u32,
    /// It listens.
    pub listens: bool,
    /// Its port was asked for, not chosen for a connection.
    pub asked: bool,
    /// It is what is left of a connection.
    pub left: bool,
}

impl Claim {
    /// Whether the addresses of both may be the same one.
    fn meets(&self, other: &Self) -> bool {
        match (self.ip, other.ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => a == b || a.is_unspecified() || b.is_unspecified(),
            (IpAddr::V6(a), IpAddr::V6(b)) => a == b || a.is_unspecified() || b.is_unspecified(),
            (IpAddr::V6(a), IpAddr::V4(_)) => a.is_unspecified() && !self.v6only,
            (IpAddr::V4(_), IpAddr::V6(b)) => b.is_unspecified() && !other.v6only,
        }
    }

    /// Whether a stream that wants a port beside another may not have it (`inet_bind_conflict`).
    fn excludes_stream(&self, other: &Self) -> bool {
        if !self.meets(other) || self.reuse && other.reuse && !other.listens {
            return false;
        }
        !(self.reuseport && other.reuseport && (other.left || self.uid == other.uid))
    }

    /// The same for datagrams (`udp_lib_lport_inuse`).
    fn excludes_datagrams(&self, other: &Self) -> bool {
        self.meets(other)
            && !(self.reuse && other.reuse)
            && !(self.reuseport && other.reuseport && self.uid == other.uid)
    }
}

struct Left {
    until: i64,
    claim: Claim,
}

/// The ports of a protocol.
#[derive(Default)]
pub struct Ports {
    bound: HashMap<u16, HashMap<u64, Weak<Inet>>>,
    listeners: HashMap<u16, Vec<Weak<Inet>>>,
    pairs: HashSet<Pair>,
    /// What is left of connections, by port; those pairs are not among the others.
    left: HashMap<u16, HashMap<Pair, Left>>,
    /// When they end, in that order, with some that are no more.
    ends: VecDeque<(i64, Pair)>,
    left_count: usize,
}

impl Ports {
    fn forget(&mut self) {
        let now = now(Clock::Monotonic);
        while let Some((until, pair)) = self.ends.front().copied() {
            let there = self.left.get(&pair.0.port).and_then(|all| all.get(&pair)).is_some_and(|l| l.until == until);
            if there && until > now && self.left_count <= TIME_WAITS {
                break;
            }
            self.ends.pop_front();
            if there {
                self.forget_pair(&pair);
            }
        }
    }

    /// Whether it was there.
    fn forget_pair(&mut self, pair: &Pair) -> bool {
        let Some(all) = self.left.get_mut(&pair.0.port) else { return false };
        let was = all.remove(pair).is_some();
        if all.is_empty() {
            self.left.remove(&pair.0.port);
        }
        self.left_count = self.left_count.saturating_sub(usize::from(was));
        was
    }

    /// Whether the port may be had by one more. `own`: the socket that asks.
    fn is_free(&self, port: u16, claim: &Claim, stream: bool, own: u64) -> bool {
        let excludes = |other: &Claim| {
            if stream { claim.excludes_stream(other) } else { claim.excludes_datagrams(other) }
        };
        let others = self.bound.get(&port).into_iter().flatten().filter(|(id, _)| **id != own);
        let taken = others.filter_map(|(_, s)| s.upgrade()).any(|s| excludes(&s.claim()));
        let left = || self.left.get(&port).into_iter().flatten().any(|(_, l)| excludes(&l.claim));
        !taken && !left()
    }

    /// Gives a socket a port: that one, or one of the range for 0. EADDRINUSE.
    pub fn bind(
        &mut self,
        socket: &Arc<Inet>,
        port: u16,
        claim: &Claim,
        range: RangeInclusive<u16>,
    ) -> Result<u16, Errno> {
        self.forget();
        let stream = socket.kind.is_stream();
        let port = if port != 0 {
            self.is_free(port, claim, stream, socket.id).then_some(port)
        } else {
            // One that nobody has comes before one that may be shared.
            let free = |p: &u16| !is_kept(socket, *p);
            let empty = |p: &u16| !self.bound.contains_key(p) && !self.left.contains_key(p);
            from_somewhere(range.clone())
                .filter(free)
                .find(empty)
                .or_else(|| from_somewhere(range).filter(free).find(|p| self.is_free(*p, claim, stream, socket.id)))
        };
        let port = port.ok_or(Errno::EADDRINUSE)?;
        self.take(socket, port);
        Ok(port)
    }

    /// Notes that a socket has a port.
    pub fn take(&mut self, socket: &Arc<Inet>, port: u16) {
        self.bound.entry(port).or_default().insert(socket.id, Arc::downgrade(socket));
    }

    /// Chooses a port for a connection that has none, and notes the connection. Ports may be those of other connections, to elsewhere.
    /// EADDRNOTAVAIL.
    pub fn connect(
        &mut self,
        socket: &Arc<Inet>,
        ip: IpAddr,
        to: Endpoint,
        range: RangeInclusive<u16>,
    ) -> Result<u16, Errno> {
        self.forget();
        let free = |port: &u16| {
            let asked = |s: &Weak<Inet>| s.upgrade().is_some_and(|s| s.claim().asked);
            let first = |all: &HashMap<u64, Weak<Inet>>| all.values().next().is_none_or(|s| !asked(s));
            self.bound.get(port).is_none_or(first) && !self.pairs.contains(&(Endpoint { ip, port: *port }, to))
        };
        let port = from_somewhere(range).find(|p| !is_kept(socket, *p) && free(p)).ok_or(Errno::EADDRNOTAVAIL)?;
        self.pairs.insert((Endpoint { ip, port }, to));
        self.take(socket, port);
        Ok(port)
    }

    /// Notes a connection of a socket with a port. EADDRNOTAVAIL if there is one such already. What is left of one gives way
    /// (`net.ipv4.tcp_tw_reuse`): nothing of it can come any more.
    pub fn pair(&mut self, pair: Pair) -> Result<(), Errno> {
        self.forget();
        if !self.pairs.insert(pair) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        self.forget_pair(&pair);
        Ok(())
    }

    /// The connection is no more. `left`: it was closed from here first, and stays known for a minute.
    pub fn unpair(&mut self, pair: Pair, left: Option<Claim>) {
        self.pairs.remove(&pair);
        let Some(claim) = left else { return };
        let claim = Claim { ip: pair.0.ip, left: true, listens: false, ..claim };
        let until = now(Clock::Monotonic).saturating_add(TIME_WAIT);
        let fresh = self.left.entry(pair.0.port).or_default().insert(pair, Left { until, claim }).is_none();
        self.left_count += usize::from(fresh);
        self.ends.push_back((until, pair));
        self.forget();
        // Those that are no more are many where the same ends meet again and again.
        if self.ends.len() > 4 * TIME_WAITS {
            let left = &self.left;
            let there = |until: i64, pair: &Pair| left.get(&pair.0.port)?.get(pair).filter(|l| l.until == until);
            self.ends.retain(|(until, pair)| there(*until, pair).is_some());
        }
    }

    /// Gives a socket's port back.
    pub fn free(&mut self, id: u64, port: u16) {
        if let Some(all) = self.bound.get_mut(&port) {
            all.remove(&id);
            if all.is_empty() {
                self.bound.remove(&port);
            }
        }
        self.deafen(id, port);
    }

    /// A socket with a port listens from now on; EADDRINUSE if another does there already.
    pub fn listen(&mut self, socket: &Arc<Inet>, port: u16, claim: &Claim) -> Result<(), Errno> {
        if !self.is_free(port, claim, true, socket.id) {
            return Err(Errno::EADDRINUSE);
        }
        self.listeners.entry(port).or_default().push(Arc::downgrade(socket));
        Ok(())
    }

    /// It listens no more.
    pub fn deafen(&mut self, id: u64, port: u16) {
        if let Some(all) = self.listeners.get_mut(&port) {
            all.retain(|s| s.upgrade().is_some_and(|s| s.id != id));
            if all.is_empty() {
                self.listeners.remove(&port);
            }
        }
    }

    /// Who listens for connections to there. Of several that share it, one by where they come from.
    pub fn listener(&self, to: Endpoint, from: Endpoint) -> Option<Arc<Inet>> {
        let all = self.listeners.get(&to.port)?.iter().filter_map(Weak::upgrade);
        best(all.filter_map(|s| s.claim().score(to.ip).map(|score| (score, s))).collect(), from)
    }

    /// All that have the port.
    pub fn at(&self, port: u16) -> Vec<Arc<Inet>> {
        self.bound.get(&port).into_iter().flatten().filter_map(|(_, s)| s.upgrade()).collect()
    }

    /// All sockets there are, and what is left of connections with the seconds that it stays.
    pub fn all(&mut self) -> (Vec<Arc<Inet>>, Vec<(Pair, i64)>) {
        self.forget();
        let sockets = self.bound.values().flatten().filter_map(|(_, s)| s.upgrade()).collect();
        let now = now(Clock::Monotonic);
        let left = self.left.values().flatten();
        (sockets, left.map(|(pair, l)| (*pair, l.until.saturating_sub(now))).collect())
    }
}

impl Claim {
    /// How well a socket with this claim fits what is for an address; `None`: not at all.
    pub fn score(&self, to: IpAddr) -> Option<u32> {
        let family = u32::from(matches!((self.domain, to), (Domain::V4, IpAddr::V4(_)) | (Domain::V6, IpAddr::V6(_))));
        match (self.ip, to) {
            (ip, to) if ip == to => Some(2 + family),
            (IpAddr::V4(ip), IpAddr::V4(_)) if ip.is_unspecified() => Some(family),
            (IpAddr::V6(ip), IpAddr::V6(_)) if ip.is_unspecified() => Some(family),
            (IpAddr::V6(ip), IpAddr::V4(_)) if ip.is_unspecified() && !self.v6only => Some(family),
            _ => None,
        }
    }
}

/// The one that fits best. Of several that share their port (`SO_REUSEPORT`) always the same for one sender; else the newest.
pub fn best(all: Vec<(u32, Arc<Inet>)>, from: Endpoint) -> Option<Arc<Inet>> {
    let most = all.iter().map(|(score, _)| *score).max()?;
    let mut all: Vec<_> = all.into_iter().filter(|(score, _)| *score == most).map(|(_, s)| s).collect();
    all.sort_by_key(|s| s.id);
    let shared = all.iter().all(|s| s.claim().reuseport);
    let at = if shared { chance_of(from) % all.len() } else { all.len() - 1 };
    Some(all.swap_remove(at))
}

/// A number that a sender has by chance, and keeps.
fn chance_of(from: Endpoint) -> usize {
    static KEY: OnceLock<RandomState> = OnceLock::new();
    let hash = KEY.get_or_init(RandomState::new).hash_one(from);
    usize::try_from(hash >> 32).unwrap_or(0)
}

/// Whether a port is kept for who asks for it (`net.ipv4.ip_local_reserved_ports`); identifiers of ping sockets are no ports.
fn is_kept(socket: &Inet, port: u16) -> bool {
    matches!(socket.kind, Kind::Tcp | Kind::Udp) && socket.net.settings.is_reserved(port)
}

fn random() -> u16 {
    let mut raw = [0; 2];
    // Without chance there is still a first one.
    let _ = getrandom::fill(&mut raw);
    u16::from_ne_bytes(raw)
}

/// The ports of a range, all of them, from one by chance on.
fn from_somewhere(range: RangeInclusive<u16>) -> impl Iterator<Item = u16> {
    let (first, last) = range.into_inner();
    let count = u32::from(last.saturating_sub(first)) + 1;
    let begin = u32::from(random()) % count;
    (0..count).filter_map(move |n| u16::try_from(u32::from(first) + (begin + n) % count).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(ip: &str) -> Claim {
        let ip: IpAddr = ip.parse().unwrap();
        let domain = if ip.is_ipv4() { Domain::V4 } else { Domain::V6 };
        let (no, uid) = (false, 0);
        Claim { domain, ip, v6only: no, reuse: no, reuseport: no, uid, listens: no, asked: true, left: no }
    }

    #[test]
    fn who_may_have_a_port_beside_whom() {
        let (a, b, any, any6) = (claim("127.0.0.1"), claim("127.0.0.2"), claim("0.0.0.0"), claim("::"));
        assert!(!a.excludes_stream(&b) && a.excludes_stream(&any) && any.excludes_stream(&any6));
        let only6 = Claim { v6only: true, ..any6 };
        assert!(!any.excludes_stream(&only6) && !only6.excludes_stream(&any) && only6.excludes_stream(&any6));
        let reuse = |c: Claim| Claim { reuse: true, ..c };
        assert!(!reuse(a).excludes_stream(&reuse(any)) && reuse(a).excludes_stream(&any));
        assert!(reuse(a).excludes_stream(&Claim { listens: true, ..reuse(any) }));
        let shared = |uid| Claim { reuseport: true, uid, listens: true, ..any };
        assert!(!shared(1).excludes_stream(&shared(1)) && shared(1).excludes_stream(&shared(2)));
        assert!(!shared(1).excludes_datagrams(&shared(1)) && shared(1).excludes_datagrams(&shared(2)));
    }

    #[test]
    fn all_ports_of_a_range_are_tried_once() {
        let mut all: Vec<u16> = from_somewhere(65_530..=65_535).collect();
        all.sort_unstable();
        assert_eq!(all, [65_530, 65_531, 65_532, 65_533, 65_534, 65_535]);
        assert_eq!(from_somewhere(7..=7).collect::<Vec<_>>(), [7]);
    }
}
