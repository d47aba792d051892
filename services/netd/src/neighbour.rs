//! Neighbours on a link: which Ethernet address has an IP address (ARP, RFC 826; neighbour discovery, RFC 4861).
//!
//! Owns what is known, what is asked, and the packets that wait for an answer, all bounded. Pure: it says what is to be sent. Called by `stack`.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// How long an answer is good, how long one is used while it is asked anew, how often is asked, and how many packets wait for one.
const GOOD: Duration = Duration::from_secs(30);
const OLD: Duration = Duration::from_secs(600);
const EVERY: Duration = Duration::from_secs(1);
const TRIES: u32 = 3;
const WAITING: usize = 101;
const WAITING_BYTES: usize = 1 << 20;
/// How many there may be on a link.
const MOST: usize = 4096;

/// A packet that waits: all of it, and how it is to be sent.
#[derive(Debug)]
pub struct Waiting<H> {
    /// An IP packet.
    pub packet: Vec<u8>,
    /// How.
    pub how: H,
}

#[derive(Debug)]
struct Entry<H> {
    mac: Option<Mac>,
    /// When it was learnt, or first asked for.
    since: Instant,
    /// When it was last used: the one that was not for longest makes room.
    used: Instant,
    asked: Option<(Instant, u32)>,
    waiting: VecDeque<Waiting<H>>,
    bytes: usize,
}

/// What to do with a packet to a neighbour.
#[derive(Debug, PartialEq, Eq)]
pub enum Way {
    /// It is known. `ask`: but not for sure any more.
    Known(Mac, Option<Ask>),
    /// It waits. `ask` now, if so.
    Waits(Option<Ask>),
    /// There is no room to wait.
    Lost,
}

/// A question: of the one that it was, or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// For which address.
    pub ip: IpAddr,
    /// Whom.
    pub to: Option<Mac>,
}

/// The neighbours of a link. `H`: what is kept of how a packet is to be sent.
#[derive(Debug)]
pub struct Neighbours<H> {
    all: HashMap<IpAddr, Entry<H>>,
    /// When something is to be done.
    next: Option<Instant>,
}

impl<H> Default for Neighbours<H> {
    fn default() -> Self {
        Self { all: HashMap::new(), next: None }
    }
}

impl<H> Neighbours<H> {
    /// How a packet to a neighbour is sent. `keep` makes the packet to be kept, if it waits.
    pub fn way(&mut self, ip: IpAddr, now: Instant, keep: impl FnOnce() -> Waiting<H>) -> Way {
        if !self.all.contains_key(&ip) {
            self.make_room();
        }
        let entry = self.all.entry(ip).or_insert_with(|| Entry {
            mac: None,
            since: now,
            used: now,
            asked: None,
            waiting: VecDeque::new(),
            bytes: 0,
        });
        entry.used = now;
        let due = entry.asked.is_none_or(|(at, _)| now.duration_since(at) >= EVERY);
        let age = now.duration_since(entry.since);
        if let Some(mac) = entry.mac.filter(|_| age < OLD) {
            let ask = (age >= GOOD && due).then_some(Ask { ip, to: Some(mac) });
            if ask.is_some() {
                entry.asked = Some((now, 1));
            }
            return Way::Known(mac, ask);
        }
        let packet = keep();
        if entry.waiting.len() >= WAITING || entry.bytes.saturating_add(packet.packet.len()) > WAITING_BYTES {
            return Way::Lost;
        }
        entry.mac = None;
        entry.bytes = entry.bytes.saturating_add(packet.packet.len());
        entry.waiting.push_back(packet);
        if entry.asked.is_some() && entry.waiting.len() > 1 {
            return Way::Waits(None);
        }
        entry.asked = Some((now, 1));
        let at = now + EVERY;
        self.next = Some(self.next.map_or(at, |n| n.min(at)));
        Way::Waits(Some(Ask { ip, to: None }))
    }

    /// Who was not used for longest goes.
    fn make_room(&mut self) {
        if self.all.len() < MOST {
            return;
        }
        let oldest = self.all.iter().min_by_key(|(_, e)| e.used).map(|(ip, _)| *ip);
        oldest.map(|ip| self.all.remove(&ip));
    }

    /// A neighbour has said where it is. Packets that waited for that. `new`: it is noted though nobody asked.
    pub fn learn(&mut self, ip: IpAddr, mac: Mac, now: Instant, new: bool) -> VecDeque<Waiting<H>> {
        if new && !self.all.contains_key(&ip) {
            self.make_room();
            let entry = Entry { mac: None, since: now, used: now, asked: None, waiting: VecDeque::new(), bytes: 0 };
            self.all.insert(ip, entry);
        }
        let Some(entry) = self.all.get_mut(&ip) else { return VecDeque::new() };
        (entry.mac, entry.since, entry.asked, entry.bytes) = (Some(mac), now, None, 0);
        std::mem::take(&mut entry.waiting)
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next(&self) -> Option<Instant> {
        self.next
    }

    /// What is to be asked again, and the packets that nobody answered for.
    pub fn tick(&mut self, now: Instant) -> (Vec<Ask>, Vec<(IpAddr, Waiting<H>)>) {
        let (mut asks, mut lost) = (Vec::new(), Vec::new());
        if self.next.is_none_or(|at| at > now) {
            return (asks, lost);
        }
        self.next = None;
        let mut gone = Vec::new();
        for (ip, entry) in self.all.iter_mut().filter(|(_, e)| !e.waiting.is_empty()) {
            let Some((at, tries)) = entry.asked else { continue };
            let mut due = at + EVERY;
            if due <= now {
                if tries >= TRIES {
                    gone.push(*ip);
                    continue;
                }
                entry.asked = Some((now, tries.saturating_add(1)));
                asks.push(Ask { ip: *ip, to: None });
                due = now + EVERY;
            }
            self.next = Some(self.next.map_or(due, |n| n.min(due)));
        }
        for ip in gone {
            let entry = self.all.remove(&ip);
            lost.extend(entry.into_iter().flat_map(|e| e.waiting).map(|w| (ip, w)));
        }
        (asks, lost)
    }

    /// What is known: addresses, and when they were learnt.
    pub fn known(&self) -> impl Iterator<Item = (IpAddr, Mac)> {
        self.all.iter().filter_map(|(ip, e)| Some((*ip, e.mac?)))
    }
}

/// The Ethernet address of a group.
pub fn group(ip: IpAddr) -> Mac {
    match ip {
        IpAddr::V4(ip) => {
            let [_, b, c, d] = ip.octets();
            [1, 0, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(ip) => {
            let [.., a, b, c, d] = ip.octets();
            [0x33, 0x33, a, b, c, d]
        }
    }
}

/// The group that is asked for an address (RFC 4291, 2.7.1).
pub fn solicited(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> Waiting<()> {
        Waiting { packet: vec![1; 100], how: () }
    }

    #[test]
    fn packets_wait_for_an_answer_and_are_given_up_without() {
        let (mut n, mut now) = (Neighbours::default(), Instant::now());
        let ip: IpAddr = "10.0.0.2".parse().unwrap();
        let ask = Ask { ip, to: None };
        assert_eq!(n.way(ip, now, packet), Way::Waits(Some(ask)));
        assert_eq!(n.way(ip, now, packet), Way::Waits(None));
        for _ in 0..2 {
            now += EVERY;
            let (asks, lost) = n.tick(now);
            assert_eq!((asks, lost.len()), (vec![ask], 0));
        }
        now += EVERY;
        let (asks, lost) = n.tick(now);
        assert_eq!((asks.len(), lost.len(), n.next()), (0, 2, None));
        assert_eq!(n.way(ip, now, packet), Way::Waits(Some(ask)));
        assert_eq!(n.learn(ip, [1; 6], now, false).len(), 1);
        assert_eq!(n.way(ip, now, packet), Way::Known([1; 6], None));
        now += GOOD;
        assert_eq!(n.way(ip, now, packet), Way::Known([1; 6], Some(Ask { ip, to: Some([1; 6]) })));
        assert_eq!(n.way(ip, now, packet), Way::Known([1; 6], None));
        now += OLD;
        assert_eq!(n.way(ip, now, packet), Way::Waits(Some(ask)));
    }

    #[test]
    fn there_are_bounds() {
        let (mut n, now) = (Neighbours::default(), Instant::now());
        let ip: IpAddr = "10.0.0.2".parse().unwrap();
        let lost = (0..WAITING + 5).filter(|_| n.way(ip, now, packet) == Way::Lost).count();
        assert_eq!(lost, 5);
        for i in 0..MOST as u32 * 2 {
            n.learn(
                IpAddr::from((0x0a00_0000 + i).to_be_bytes()),
                [2; 6],
                now + Duration::from_millis(u64::from(i)),
                true,
            );
        }
        assert_eq!(n.all.len(), MOST);
        assert_eq!(n.learn("9.9.9.9".parse().unwrap(), [2; 6], now, false).len(), 0);
        assert_eq!(n.all.len(), MOST);
    }

    #[test]
    fn groups_have_addresses() {
        assert_eq!(group("239.255.1.2".parse().unwrap()), [1, 0, 0x5e, 0x7f, 1, 2]);
        assert_eq!(group("ff02::1:ff00:5".parse().unwrap()), [0x33, 0x33, 0xff, 0, 0, 5]);
        assert_eq!(solicited("fd00::1:2:3".parse().unwrap()), "ff02::1:ff02:3".parse::<Ipv6Addr>().unwrap());
    }
}
