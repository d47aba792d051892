//! What may pass between the sandbox and its network: an operator's rules, and the answers to what they let pass.
//!
//! Owns the rules, what each was found to fit, and a bounded table of flows: of UDP, ICMP and all else that has no connections. The first packet
//! of a flow is judged, the others and those back pass with it; so is the beginning of a connection of TCP, whose owner knows its others. What
//! cannot be told what it is does not pass. Must never let a packet through that it has not understood, nor keep more for a peer than its bounds
//! say. Called by `stack` and `connections`.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use cofferdam_control::rules::{Action, Direction, Protocol, Rule, Rules};
use cofferdam_tcp::Flow;

use crate::ip::{self, Head, ICMP, ICMP6, TCP, UDP};

/// A flow in which nothing passes is forgotten after this time, or twice that.
const SILENCE: Duration = Duration::from_secs(60);
/// Flows that one side began, half of them.
const MOST: usize = 8192;

/// What all packets of a flow have in common. Of ICMP's questions the number counts as the local port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    protocol: u8,
    local: SocketAddr,
    remote: SocketAddr,
}

impl Key {
    fn new(protocol: u8, local: SocketAddr, remote: SocketAddr) -> Self {
        let plain = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
        Self { protocol, local: plain(local), remote: plain(remote) }
    }
}

/// Flows that one side began: those of the present while and of the one before. A while ends by time, or when there are too many.
#[derive(Debug)]
struct Flows {
    present: HashSet<Key>,
    before: HashSet<Key>,
    since: Option<Instant>,
    /// Forgotten for want of room.
    lost: u64,
}

impl Flows {
    fn new() -> Self {
        Self { present: HashSet::new(), before: HashSet::new(), since: None, lost: 0 }
    }

    fn turn(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let past = now.saturating_duration_since(since);
        if past < SILENCE {
            return;
        }
        self.next(now);
        if past >= SILENCE * 2 {
            self.before.clear();
        }
    }

    fn next(&mut self, now: Instant) {
        std::mem::swap(&mut self.present, &mut self.before);
        // It keeps its room, which is bounded: a flood need not ask for it again and again.
        self.present.clear();
        self.since = Some(now);
    }

    /// Whether it is one of them; it is not silent then.
    fn has(&mut self, key: &Key, now: Instant) -> bool {
        self.turn(now);
        if self.present.contains(key) {
            return true;
        }
        let known = self.before.remove(key);
        if known {
            self.add(*key, now);
        }
        known
    }

    fn add(&mut self, key: Key, now: Instant) {
        self.turn(now);
        if self.present.len() >= MOST && !self.present.contains(&key) {
            self.lost = self.lost.saturating_add(self.before.len() as u64);
            self.next(now);
        }
        self.present.insert(key);
    }

    fn len(&self) -> usize {
        self.present.len().saturating_add(self.before.len())
    }
}

/// The rules of a sandbox at work.
#[derive(Debug)]
pub struct Filter {
    rules: Rules,
    /// What each fitted.
    fitted: Vec<u64>,
    /// What none fitted: in, out.
    by_default: [u64; 2],
    denied: u64,
    refused: u64,
    began_inside: Flows,
    began_outside: Flows,
}

impl Filter {
    /// With rules, and nothing seen yet.
    pub fn new(rules: Rules) -> Self {
        let fitted = vec![0; rules.list.len()];
        let (began_inside, began_outside) = (Flows::new(), Flows::new());
        Self { rules, fitted, by_default: [0; 2], denied: 0, refused: 0, began_inside, began_outside }
    }

    /// Whether there is nothing to look at: everything passes, and no rule counts.
    pub fn is_unused(&self) -> bool {
        self.rules.list.is_empty() && self.rules.is_open(Direction::In) && self.rules.is_open(Direction::Out)
    }

    /// What becomes of something that begins: a connection, a flow, or a packet that is of neither. Counts it. `protocol`: `IPPROTO_*`; ports of
    /// what has none are 0.
    pub fn judge(
        &mut self,
        direction: Direction,
        protocol: u8,
        remote: IpAddr,
        local_port: u16,
        remote_port: u16,
    ) -> Action {
        if self.is_unused() {
            return Action::Allow;
        }
        let remote = remote.to_canonical();
        let port = if direction == Direction::Out { remote_port } else { local_port };
        let place = self.rules.list.iter().position(|r| fits(r, direction, protocol, remote, port));
        let (action, count) = match place.and_then(|n| self.rules.list.get(n).zip(self.fitted.get_mut(n))) {
            Some((rule, count)) => (rule.action, count),
            None => {
                let [inward, outward] = &mut self.by_default;
                let count = if direction == Direction::In { inward } else { outward };
                (self.rules.by_default(direction), count)
            }
        };
        *count = count.saturating_add(1);
        if action == Action::Deny {
            self.denied = self.denied.saturating_add(1);
        }
        action
    }

    /// What becomes of a datagram: it is of a flow that may pass, or begins one.
    pub fn datagram(
        &mut self,
        direction: Direction,
        protocol: u8,
        local: SocketAddr,
        remote: SocketAddr,
        now: Instant,
    ) -> Action {
        let key = Key::new(protocol, local, remote);
        if self.began_inside.has(&key, now) || self.began_outside.has(&key, now) {
            return Action::Allow;
        }
        self.begin(direction, key, now)
    }

    fn begin(&mut self, direction: Direction, key: Key, now: Instant) -> Action {
        // What stands for a port in the table is none to a rule.
        let [local, remote] = match key.protocol {
            ICMP | ICMP6 => [0; 2],
            _ => [key.local.port(), key.remote.port()],
        };
        let action = self.judge(direction, key.protocol, key.remote.ip(), local, remote);
        if action == Action::Allow {
            self.began_by(direction).add(key, now);
        }
        action
    }

    fn began_by(&mut self, direction: Direction) -> &mut Flows {
        match direction {
            Direction::In => &mut self.began_outside,
            Direction::Out => &mut self.began_inside,
        }
    }

    /// What becomes of a whole packet. Of TCP's each is judged: who knows its connections asks for those that begin only. `has`: whether there
    /// is such a connection, which an error may be about.
    pub fn packet(
        &mut self,
        direction: Direction,
        head: &Head,
        data: &[u8],
        now: Instant,
        has: impl FnOnce(Flow) -> bool,
    ) -> Action {
        if self.is_unused() {
            return Action::Allow;
        }
        let Some((protocol, data)) = carried(head, data) else { return self.refuse() };
        let (local, remote) = if direction == Direction::Out { (head.from, head.to) } else { (head.to, head.from) };
        match protocol {
            TCP | UDP => {
                let Some([from, to]) = ports(data) else { return self.refuse() };
                let [own, other] = if direction == Direction::Out { [from, to] } else { [to, from] };
                if protocol == TCP {
                    return self.judge(direction, TCP, remote, own, other);
                }
                self.datagram(direction, UDP, (local, own).into(), (remote, other).into(), now)
            }
            ICMP | ICMP6 => match message(head, protocol, data) {
                Message::Question(number) => {
                    let key = Key::new(protocol, (local, number).into(), (remote, 0).into());
                    let known = self.began_by(direction).has(&key, now);
                    if known { Action::Allow } else { self.begin(direction, key, now) }
                }
                Message::Answer(number) => {
                    let key = Key::new(protocol, (local, number).into(), (remote, 0).into());
                    let other = if direction == Direction::Out { Direction::In } else { Direction::Out };
                    let known = self.began_by(other).has(&key, now);
                    if known { Action::Allow } else { self.judge(direction, protocol, remote, 0, 0) }
                }
                Message::Error(about) if self.is_about_ours(direction, remote, about, now, has) => Action::Allow,
                _ => self.judge(direction, protocol, remote, 0, 0),
            },
            _ => self.datagram(direction, protocol, (local, 0).into(), (remote, 0).into(), now),
        }
    }

    /// Whether a packet that an error brings back is one of a flow or a connection that may pass.
    fn is_about_ours(
        &mut self,
        direction: Direction,
        remote: IpAddr,
        about: &[u8],
        now: Instant,
        has: impl FnOnce(Flow) -> bool,
    ) -> bool {
        let Some((from, to, protocol, rest)) = ip::beginning(about) else { return false };
        // An error goes the other way than what it is about; any router may send one, the sandbox only to whom it got that from.
        let (local, other) = if direction == Direction::In { (from, to) } else { (to, from) };
        if direction == Direction::Out && other.to_canonical() != remote.to_canonical() {
            return false;
        }
        let flipped = |[a, b]: [u16; 2]| if direction == Direction::In { [a, b] } else { [b, a] };
        let [own, others] = match protocol {
            TCP | UDP => match ports(rest) {
                Some(ports) => flipped(ports),
                None => return false,
            },
            ICMP | ICMP6 => match rest.get(4..6).and_then(<[u8]>::first_chunk) {
                Some(number) => [u16::from_be_bytes(*number), 0],
                None => return false,
            },
            _ => [0; 2],
        };
        let (local, other) = ((local, own).into(), (other, others).into());
        if protocol == TCP {
            return direction == Direction::In && has(Flow { local, remote: other });
        }
        let key = Key::new(protocol, local, other);
        self.began_inside.has(&key, now) || self.began_outside.has(&key, now)
    }

    /// A packet of which nobody can say what it is.
    pub fn refuse(&mut self) -> Action {
        self.refused = self.refused.saturating_add(1);
        Action::Deny
    }

    /// How much did not pass so far.
    pub fn turned_away(&self) -> u64 {
        self.denied.saturating_add(self.refused)
    }

    /// What each rule fitted, in their order, and both defaults.
    pub fn fitted(&self) -> Vec<(String, u64)> {
        let named = self.rules.list.iter().zip(&self.fitted).map(|(rule, n)| (rule.to_string(), *n));
        let [inward, outward] = self.by_default;
        let defaults = [(Direction::In, inward), (Direction::Out, outward)]
            .map(|(d, n)| (format!("{d} default {}", self.rules.by_default(d)), n));
        named.chain(defaults).collect()
    }

    /// What was counted besides.
    pub fn list(&self) -> Vec<(String, u64)> {
        let flows = self.began_inside.len().saturating_add(self.began_outside.len());
        [
            ("filter_denied", self.denied),
            ("filter_packets_refused", self.refused),
            ("filter_flows", flows as u64),
            ("filter_flows_lost", self.began_inside.lost.saturating_add(self.began_outside.lost)),
        ]
        .map(|(name, n)| (name.to_owned(), n))
        .to_vec()
    }
}

fn fits(rule: &Rule, direction: Direction, protocol: u8, remote: IpAddr, port: u16) -> bool {
    let of_protocol = match rule.protocol {
        Protocol::Any => true,
        Protocol::Tcp => protocol == TCP,
        Protocol::Udp => protocol == UDP,
        Protocol::Icmp => matches!(protocol, ICMP | ICMP6),
    };
    rule.direction == direction
        && of_protocol
        && rule.other.is_none_or(|o| o.contains(remote))
        && rule.ports.is_none_or(|(first, last)| matches!(protocol, TCP | UDP) && (first..=last).contains(&port))
}

fn ports(data: &[u8]) -> Option<[u16; 2]> {
    let [a, b, c, d] = *data.first_chunk()?;
    Some([u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])])
}

const HOPS: u8 = 0;
const ROUTE: u8 = 43;
const PIECE: u8 = 44;
const AUTHENTICATION: u8 = 51;
const OPTIONS: u8 = 60;

/// Whether what a packet carries begins with a header that is between version 6's and the last.
pub fn is_between(head: &Head) -> bool {
    head.to.is_ipv6() && matches!(head.protocol, HOPS | ROUTE | PIECE | AUTHENTICATION | OPTIONS)
}

/// What a packet carries behind all headers that may be between. `None`: nobody can say, or a header says that it goes on to somebody else.
fn carried<'a>(head: &Head, mut data: &'a [u8]) -> Option<(u8, &'a [u8])> {
    let mut protocol = head.protocol;
    if head.piece.is_some() {
        return None;
    }
    while is_between(&Head { protocol, ..*head }) {
        let [next, len, _, left] = *data.first_chunk()?;
        let len = match protocol {
            PIECE => return None,
            ROUTE if left != 0 => return None,
            AUTHENTICATION => 4 * (usize::from(len) + 2),
            _ => 8 * (usize::from(len) + 1),
        };
        protocol = next;
        data = data.get(len..)?;
    }
    Some((protocol, data))
}

/// What a message of ICMP's is.
enum Message<'a> {
    /// One that is answered, with its number.
    Question(u16),
    /// Its answer.
    Answer(u16),
    /// About a packet.
    Error(&'a [u8]),
    Other,
}

fn message<'a>(head: &Head, protocol: u8, data: &'a [u8]) -> Message<'a> {
    let Some(([kind, _, _, _, a, b, _, _], rest)) = data.split_first_chunk::<8>() else { return Message::Other };
    let number = u16::from_be_bytes([*a, *b]);
    match (head.to.is_ipv4(), protocol, kind) {
        (true, ICMP, 8 | 13 | 15 | 17) | (false, ICMP6, 128) => Message::Question(number),
        (true, ICMP, 0 | 14 | 16 | 18) | (false, ICMP6, 129) => Message::Answer(number),
        (true, ICMP, 3 | 4 | 11 | 12) | (false, ICMP6, 1..=4) => Message::Error(rest),
        _ => Message::Other,
    }
}

/// Whether a packet is an error, about which nobody sends another.
pub fn is_error(head: &Head, data: &[u8]) -> bool {
    match head.to {
        IpAddr::V4(_) => head.protocol == ICMP && matches!(data.first(), Some(3 | 4 | 5 | 11 | 12)),
        IpAddr::V6(_) => head.protocol == ICMP6 && data.first().is_none_or(|kind| *kind < 128),
    }
}

/// Whether a header of version 4 names hosts that a packet is to go by: where it ends is not where it says.
pub fn has_route(packet: &[u8]) -> bool {
    let Some(first) = packet.first().filter(|b| **b >> 4 == 4) else { return false };
    let end = usize::from(first & 15) * 4;
    let mut options = packet.get(ip::HEADER4..end).unwrap_or_default();
    while let [kind, rest @ ..] = options {
        match (kind, rest.first()) {
            (0, _) => return false,
            (1, _) => options = rest,
            (131 | 137, _) => return true,
            (_, Some(len)) if *len >= 2 => options = options.get(usize::from(*len)..).unwrap_or_default(),
            // No options at all: who reads it otherwise may find a way there.
            _ => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_socket::sum::checksum;

    fn filter(rules: &str) -> Filter {
        Filter::new(Rules::parse(rules).unwrap())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const IN: Direction = Direction::In;
    const OUT: Direction = Direction::Out;

    #[test]
    fn the_first_rule_that_fits_counts() {
        let mut f = filter(
            "out allow tcp 10.0.0.1:443; out deny tcp 10.0.0.0/8:400-500; in allow udp :53; in deny any [fd00::/8]:1-99; in default deny",
        );
        let mut is = |d, p, ip_: &str, l, r| f.judge(d, p, ip(ip_), l, r) == Action::Allow;
        assert!(is(OUT, TCP, "10.0.0.1", 9, 443) && is(OUT, TCP, "::ffff:10.0.0.1", 9, 443));
        assert!(!is(OUT, TCP, "10.0.0.2", 9, 443) && !is(OUT, TCP, "::ffff:10.0.0.2", 9, 500));
        assert!(is(OUT, TCP, "10.0.0.2", 443, 501) && is(OUT, UDP, "10.0.0.2", 9, 443));
        assert!(is(OUT, TCP, "11.0.0.1", 9, 443) && is(OUT, TCP, "fd00::1", 9, 443));
        // Of what comes in the own port counts.
        assert!(is(IN, UDP, "1.2.3.4", 53, 9) && !is(IN, UDP, "1.2.3.4", 9, 53) && !is(IN, TCP, "1.2.3.4", 53, 9));
        // A rule with ports fits nothing that has none.
        assert!(!is(IN, TCP, "fd00::1", 99, 1) && !is(IN, ICMP6, "fd00::1", 0, 0));
        let counts: Vec<u64> = f.fitted().into_iter().map(|(_, n)| n).collect();
        assert_eq!(counts, [2, 2, 1, 1, 3, 4]);
        assert_eq!(f.fitted()[4].0, "in default deny");
        assert_eq!(f.list()[0], ("filter_denied".into(), 6));
        assert!(filter("").is_unused() && !filter("in allow all").is_unused());
    }

    /// A packet as it is judged.
    fn packet(f: &mut Filter, d: Direction, ips: [&str; 2], protocol: u8, data: &[u8], now: Instant) -> bool {
        let [from, to] = ips.map(ip);
        let head = Head { from, to, protocol, hops: 9, service: 0, piece: None };
        f.packet(d, &head, data, now, |_| false) == Action::Allow
    }

    fn udp(from: u16, to: u16) -> Vec<u8> {
        [from.to_be_bytes(), to.to_be_bytes(), 8u16.to_be_bytes(), [0; 2]].concat()
    }

    #[test]
    fn answers_pass_and_nothing_else_does() {
        for ips in [["10.0.0.2", "10.0.0.1"], ["fd00::2", "fd00::1"]] {
            let [us, them] = ips;
            let back = [them, us];
            let mut f = filter("in default deny");
            let now = Instant::now();
            assert!(!packet(&mut f, IN, back, UDP, &udp(53, 1000), now));
            assert!(packet(&mut f, OUT, ips, UDP, &udp(1000, 53), now));
            assert!(packet(&mut f, IN, back, UDP, &udp(53, 1000), now));
            assert!(!packet(&mut f, IN, back, UDP, &udp(53, 1001), now));
            assert!(!packet(&mut f, IN, back, UDP, &udp(54, 1000), now));
            // For as long as something passes, and a while after that.
            let later = |n: u32| now + SILENCE * n + Duration::from_secs(1);
            assert!(packet(&mut f, IN, back, UDP, &udp(53, 1000), later(1)));
            assert!(packet(&mut f, IN, back, UDP, &udp(53, 1000), later(2)));
            assert!(!packet(&mut f, IN, back, UDP, &udp(53, 1000), later(4)));
            // Echoes: an answer to us, and no question.
            let four = ip(us).is_ipv4();
            let (protocol, ask, answer) = if four { (ICMP, 8, 0) } else { (ICMP6, 128, 129) };
            let echo = |kind| [kind, 0, 0, 0, 7, 7, 0, 1];
            assert!(!packet(&mut f, IN, back, protocol, &echo(answer), later(5)));
            assert!(packet(&mut f, OUT, ips, protocol, &echo(ask), later(5)));
            assert!(packet(&mut f, IN, back, protocol, &echo(answer), later(5)));
            assert!(!packet(&mut f, IN, back, protocol, &echo(ask), later(5)));
            // And the other way round.
            let mut f = filter("out default deny");
            assert!(packet(&mut f, IN, back, UDP, &udp(1000, 53), now));
            assert!(packet(&mut f, OUT, ips, UDP, &udp(53, 1000), now));
            assert!(!packet(&mut f, OUT, ips, UDP, &udp(53, 1001), now));
        }
    }

    #[test]
    fn errors_pass_that_are_about_what_passed() {
        let now = Instant::now();
        let mut f = filter("in deny all; out deny udp :99");
        let about = |to: u16| {
            let own =
                Head { from: ip("10.0.0.2"), to: ip("10.0.0.1"), protocol: UDP, hops: 1, service: 0, piece: None };
            let inner = ip::build(&own, 1, false, &udp(1000, to)).unwrap();
            let mut data = [&[3, 4, 0, 0, 0, 0, 5, 0][..], &inner].concat();
            let sum = checksum(&[&data]).to_be_bytes();
            data[2..4].copy_from_slice(&sum);
            data
        };
        assert!(packet(&mut f, OUT, ["10.0.0.2", "10.0.0.1"], UDP, &udp(1000, 53), now));
        assert!(!packet(&mut f, OUT, ["10.0.0.2", "10.0.0.1"], UDP, &udp(1000, 99), now));
        // From any router.
        assert!(packet(&mut f, IN, ["10.0.0.99", "10.0.0.2"], ICMP, &about(53), now));
        assert!(!packet(&mut f, IN, ["10.0.0.99", "10.0.0.2"], ICMP, &about(99), now));
        for len in 0..8 + 20 + 4 {
            assert!(!packet(&mut f, IN, ["10.0.0.99", "10.0.0.2"], ICMP, &about(53)[..len], now), "{len}");
        }
        // About TCP its connections are asked.
        let head = Head { from: ip("10.0.0.9"), to: ip("10.0.0.2"), protocol: ICMP, hops: 1, service: 0, piece: None };
        let mut error = about(53);
        error[8 + 9] = TCP;
        let mut asked = None;
        let action = f.packet(IN, &head, &error, now, |flow| {
            asked = Some(flow);
            true
        });
        let flow = Flow { local: "10.0.0.2:1000".parse().unwrap(), remote: "10.0.0.1:53".parse().unwrap() };
        assert_eq!((action, asked), (Action::Allow, Some(flow)));
        // The sandbox tells nobody of what it did not get from there.
        let mut f = filter("out default deny");
        let mut error = about(53);
        error[8 + 12..8 + 20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        assert!(!packet(&mut f, OUT, ["10.0.0.2", "10.0.0.1"], ICMP, &error, now));
        assert!(packet(&mut f, IN, ["10.0.0.1", "10.0.0.2"], UDP, &udp(1000, 53), now));
        assert!(packet(&mut f, OUT, ["10.0.0.2", "10.0.0.1"], ICMP, &error, now));
        assert!(!packet(&mut f, OUT, ["10.0.0.2", "10.0.0.3"], ICMP, &error, now));
    }

    #[test]
    fn what_is_between_headers_hides_nothing() {
        let now = Instant::now();
        let mut f = filter("out deny udp");
        let ips = ["fd00::2", "fd00::1"];
        let behind = |header: &[u8]| [header, &udp(1, 2)].concat();
        assert!(!packet(&mut f, OUT, ips, 60, &behind(&[UDP, 0, 1, 4, 0, 0, 0, 0]), now));
        assert!(!packet(&mut f, OUT, ips, 0, &behind(&[60, 0, 1, 4, 0, 0, 0, 0, UDP, 0, 1, 4, 0, 0, 0, 0]), now));
        assert!(!packet(&mut f, OUT, ips, 51, &behind(&[UDP, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), now));
        assert_eq!(f.list()[1].1, 0);
        // Nobody can say.
        assert!(!packet(&mut f, OUT, ips, 44, &behind(&[UDP, 0, 0, 0, 0, 0, 0, 1]), now));
        assert!(!packet(&mut f, OUT, ips, 43, &behind(&[TCP, 0, 0, 1, 0, 0, 0, 0]), now));
        assert!(!packet(&mut f, OUT, ips, 60, &[TCP, 9, 0], now));
        assert!(!packet(&mut f, OUT, ips, UDP, &[0; 3], now));
        assert_eq!(f.list()[1].1, 4);
        // Other protocols are what they are, and their answers pass.
        assert!(packet(&mut f, OUT, ips, 132, &[], now));
        let head = [0x47, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let with = |options: [u8; 8]| has_route(&[&head[..], &options].concat());
        assert!(with([131, 7, 4, 1, 2, 3, 4, 0]) && with([1, 1, 137, 3, 4, 0, 0, 0]));
        assert!(with([7, 1, 0, 0, 0, 0, 0, 0]) && with([7, 6, 0, 0, 0, 0, 131, 3]));
        assert!(!with([1; 8]) && !with([0, 131, 0, 0, 0, 0, 0, 0]) && !with([7, 7, 4, 0, 0, 0, 0, 0]));
        assert!(!has_route(&[0x45; 20]) && !has_route(&[]) && !has_route(&[0x60; 40]));
    }

    #[test]
    fn floods_fill_no_table_and_drive_out_no_flow_of_ours() {
        let mut f = filter("in allow udp :9; in default deny; out default allow");
        let now = Instant::now();
        let (us, them) = ("10.0.0.2", "10.0.0.1");
        assert!(packet(&mut f, OUT, [us, them], UDP, &udp(1000, 53), now));
        for n in 0..60_000u32 {
            let from = IpAddr::from([10, 1, (n >> 8) as u8, n as u8]).to_string();
            assert!(packet(&mut f, IN, [&from, us], UDP, &udp(7, 9), now));
        }
        assert!(f.began_outside.len() <= 2 * MOST && f.began_outside.lost > 0);
        assert!(packet(&mut f, IN, [them, us], UDP, &udp(53, 1000), now));
    }
}
