//! Groups that sockets are members of, and how the network is told: IGMP (RFC 2236, 3376) and MLD (RFC 2710, 3810), as Linux does it.
//!
//! Owns who is a member of what on which device, and what is to be said of it when. One that comes or goes is told at once and again (as often as the
//! querier wants it), questions are answered after a time that chance chooses, in the oldest version that was heard of lately. What arrives is
//! hostile: it is checked, changes no more than times, and makes nobody send more than [`TURN`] packets each [`PAUSE`]. Never here: what groups mean to a
//! socket (`udp`). Called by `namespaces::net`, `raw` and the kernel's timers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Weak};

use super::icmp::{ICMP6, checksum, pseudo};
use super::raw::Packet;
use crate::errno::Errno;
use crate::namespaces::NetNamespace;
use crate::sync::Mutex;
use crate::time::{Clock, Deadline, NS, Timers, now};
use crate::wait::{PollMask, Wake};

/// `IPPROTO_IGMP`.
pub const IGMP: u8 = 2;
/// Groups of a namespace, on all its devices.
const MOST: usize = 4096;
/// Packets that are sent at once, and the time before there are more.
const TURN: usize = 64;
const PAUSE: i64 = NS / 10;
/// What holds until a querier says otherwise: how often things are said, how often it asks, how long answers may take.
const ROBUSTNESS: u8 = 2;
const INTERVAL: i64 = 125 * NS;
const RESPONSE: i64 = 10 * NS;
/// How late what is said unasked is said again at most: in the newest version, and in older ones.
const UNASKED: [i64; 2] = [NS, 10 * NS];
/// Records that fit a packet that every network carries.
const RECORDS: usize = 60;
/// Where reports of the newest version go, and what a member that goes says in older ones.
const ALL_REPORTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
const ALL_REPORTS6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
const ALL_ROUTERS6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// Types of messages.
mod kind {
    pub const QUERY: u8 = 0x11;
    pub const REPORT1: u8 = 0x12;
    pub const REPORT2: u8 = 0x16;
    pub const LEAVE: u8 = 0x17;
    pub const REPORT3: u8 = 0x22;
    pub const QUERY6: u8 = 130;
    pub const REPORT6: u8 = 131;
    pub const DONE6: u8 = 132;
    pub const REPORT6_2: u8 = 143;
}

/// What a record says: that all are welcome, that nobody is any more, that all are from now on.
mod record {
    pub const IS_ALL: u8 = 2;
    pub const TO_NONE: u8 = 3;
    pub const TO_ALL: u8 = 4;
}

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    /// IGMP alone.
    Oldest,
    Old,
    New,
}

/// A member on a device.
#[derive(Debug, Default)]
struct Member {
    /// How often it was joined; 0: it is gone, which is still to be told.
    times: usize,
    /// Later ones are greater.
    since: u64,
    /// How often its coming or going is still to be told, in the newest version.
    changes: u8,
    /// When it is to be told of by itself, and how often that is to be so unasked, in older versions.
    due: Option<i64>,
    unasked: u8,
    /// It was this host that spoke of it last.
    told: bool,
}

/// What is known of a device's network, in one family.
#[derive(Debug)]
struct Link {
    /// Until when queriers of older versions count: the oldest, the old.
    older: [i64; 2],
    robustness: u8,
    interval: i64,
    response: i64,
    /// When all is to be told of.
    all: Option<i64>,
    /// When changes are, and how often still.
    changes: Option<i64>,
    left: u8,
}

impl Default for Link {
    fn default() -> Self {
        let (robustness, interval, response) = (ROBUSTNESS, INTERVAL, RESPONSE);
        Self { older: [0; 2], robustness, interval, response, all: None, changes: None, left: 0 }
    }
}

impl Link {
    fn version(&self, now: i64) -> Version {
        match self.older {
            [until, _] if until > now => Version::Oldest,
            [_, until] if until > now => Version::Old,
            _ => Version::New,
        }
    }

    fn changed(&mut self, now: i64) {
        self.left = self.robustness;
        self.changes = Some(now);
    }
}

/// What is to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    device: u32,
    to: IpAddr,
    kind: u8,
    /// Of the newest version: what is said of each group.
    records: Vec<(u8, IpAddr)>,
    /// Of older ones.
    group: IpAddr,
}

#[derive(Debug, Default)]
struct State {
    members: BTreeMap<(u32, IpAddr), Member>,
    /// By device, and whether it is IPv6's.
    links: BTreeMap<(u32, bool), Link>,
    count: u64,
    /// When the time began in which so many packets were sent, and when nothing more may be sent before.
    sent: (i64, usize),
    pause: i64,
    /// When the kernel's timers wake this.
    alarm: Option<i64>,
}

/// A number below `most` that nobody can foresee.
fn chance(most: i64) -> i64 {
    let mut raw = [0; 8];
    // Without, all is said at once.
    let _ = getrandom::fill(&mut raw);
    i64::try_from(u64::from_ne_bytes(raw) % most.max(1).unsigned_abs()).unwrap_or(0)
}

/// Whether anybody is told of a group: not of that of all on a link, nor of those that stay within a host.
fn is_told(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group != Ipv4Addr::new(224, 0, 0, 1),
        IpAddr::V6(group) => {
            let scope = group.octets().get(1).map_or(0, |b| b & 15);
            scope > 1 && group != Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)
        }
    }
}

/// The group by which an address is asked for (RFC 4291).
pub fn solicited(ip: Ipv6Addr) -> Ipv6Addr {
    const ALL: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;
    Ipv6Addr::from_bits(ALL | ip.to_bits() & 0x00ff_ffff)
}

/// A time as queries say it in a byte: with an exponent from 128 on.
fn long(code: u8) -> i64 {
    let code = i64::from(code);
    if code < 128 { code } else { (code & 15 | 16) << ((code >> 4 & 7) + 3) }
}

impl State {
    fn links_of(members: &BTreeMap<(u32, IpAddr), Member>, device: u32, six: bool) -> impl Iterator<Item = IpAddr> {
        let own = members.range((device, Ipv4Addr::UNSPECIFIED.into())..);
        let mut all: Vec<_> = own
            .take_while(|((d, _), _)| *d == device)
            .filter(|((_, g), m)| g.is_ipv6() == six && m.times > 0 && is_told(*g))
            .map(|((_, g), m)| (m.since, *g))
            .collect();
        // As Linux has them: the last one first.
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.into_iter().map(|(_, g)| g)
    }

    /// One more is a member. `tells`: the device's network is told. ENOBUFS.
    fn join(&mut self, group: IpAddr, device: u32, tells: bool, now: i64) -> Result<(), Errno> {
        if self.members.len() >= MOST && !self.members.contains_key(&(device, group)) {
            return Err(Errno::ENOBUFS);
        }
        let member = self.members.entry((device, group)).or_default();
        member.times = member.times.saturating_add(1);
        if member.times > 1 {
            return Ok(());
        }
        self.count += 1;
        (member.since, member.changes, member.due, member.told) = (self.count, 0, None, false);
        if tells && is_told(group) {
            let link = self.links.entry((device, group.is_ipv6())).or_default();
            if link.version(now) == Version::New {
                member.changes = link.robustness;
                link.changed(now);
            } else {
                (member.unasked, member.due) = (link.robustness, Some(now));
            }
        }
        Ok(())
    }

    /// One is no more. What is to be said at once.
    fn leave(&mut self, group: IpAddr, device: u32, tells: bool, now: i64) -> Option<Message> {
        let member = self.members.get_mut(&(device, group))?;
        member.times = member.times.saturating_sub(1);
        if member.times > 0 {
            return None;
        }
        if tells && is_told(group) {
            let link = self.links.entry((device, group.is_ipv6())).or_default();
            match link.version(now) {
                Version::New => {
                    (member.changes, member.due) = (link.robustness, None);
                    link.changed(now);
                    return None;
                }
                Version::Old if member.told => {
                    self.members.remove(&(device, group));
                    let (to, kind) = if group.is_ipv4() {
                        (ALL_ROUTERS.into(), kind::LEAVE)
                    } else {
                        (ALL_ROUTERS6.into(), kind::DONE6)
                    };
                    return Some(Message { device, to, kind, records: Vec::new(), group });
                }
                _ => {}
            }
        }
        self.members.remove(&(device, group));
        None
    }

    /// Somebody asks, or tells of itself.
    fn heard(&mut self, p: &Packet, now: i64) -> Option<()> {
        let six = p.to.is_ipv6();
        let link = self.links.entry((p.device, six)).or_default();
        let (&kind, &code) = (p.data.first()?, p.data.get(1)?);
        let four = |at: usize| p.data.get(at..).and_then(<[u8]>::first_chunk::<4>).map(|b| Ipv4Addr::from(*b));
        let group = match six {
            false => IpAddr::V4(four(4)?),
            true => IpAddr::V6(p.data.get(8..).and_then(<[u8]>::first_chunk::<16>).map(|b| Ipv6Addr::from(*b))?),
        };
        match (six, kind) {
            (false, kind::REPORT1 | kind::REPORT2) | (true, kind::REPORT6) => {
                // Who asked knows by another.
                let member = self.members.get_mut(&(p.device, group))?;
                (member.due, member.unasked, member.told) = (None, 0, false);
                return None;
            }
            (false, kind::QUERY) => {}
            // Only from the link itself (RFC 3810, 6.2).
            (true, kind::QUERY6) => {
                let near = matches!(p.from, IpAddr::V6(ip) if ip.is_unicast_link_local());
                if !near || p.ttl != 1 {
                    return None;
                }
            }
            _ => return None,
        }
        let (plain, least) = if six { (24, 28) } else { (8, 12) };
        let is_old = p.data.len() == plain;
        if !is_old && p.data.len() < least {
            return None;
        }
        let millis = |ms: i64| ms.saturating_mul(NS / 1000);
        let short = i64::from(p.data.get(4..6).and_then(<[u8]>::first_chunk).map_or(0, |b| u16::from_be_bytes(*b)));
        let mut within = match (six, is_old) {
            (false, true) if code == 0 => RESPONSE,
            (false, true) => millis(i64::from(code) * 100),
            (false, false) => millis(long(code) * 100),
            (true, true) => millis(short),
            (true, false) if short < 0x8000 => millis(short),
            (true, false) => millis((short & 0xfff | 0x1000) << ((short >> 12 & 7) + 3)),
        };
        within = within.max(NS / 1000);
        let mut group = Some(group).filter(|g| !g.is_unspecified());
        if is_old {
            let until = now + i64::from(link.robustness) * link.interval + link.response;
            let [oldest, old] = &mut link.older;
            if !six && code == 0 {
                // One of the oldest asks for all.
                (*oldest, group) = (until, None);
            } else {
                *old = until;
            }
            // What the newest version would say is not understood.
            (link.all, link.changes, link.left) = (None, None, 0);
            self.members.retain(|(d, g), m| *d != p.device || g.is_ipv6() != six || m.times > 0);
        } else if link.version(now) == Version::New {
            let more = p.data.get(plain..).unwrap_or_default();
            let (flags, often) = (more.first().copied()?, more.get(1).copied()?);
            let sources = more.get(2..).and_then(<[u8]>::first_chunk).map(|b| u16::from_be_bytes(*b))?;
            link.robustness = Some(flags & 7).filter(|n| *n > 0).unwrap_or(ROBUSTNESS);
            link.interval = Some(long(often) * NS).filter(|n| *n > 0).unwrap_or(INTERVAL);
            link.response = within;
            if group.is_none() {
                let at = now + chance(within);
                link.all = Some(link.all.map_or(at, |before| before.min(at))).filter(|_| sources == 0).or(link.all);
                return None;
            }
        }
        for ((device, of), member) in &mut self.members {
            let meant = *device == p.device && of.is_ipv6() == six && group.is_none_or(|g| g == *of);
            if meant && member.times > 0 && is_told(*of) {
                let at = now + chance(within);
                member.due = Some(member.due.map_or(at, |before| before.min(at)));
            }
        }
        None
    }

    /// When there is something to be said.
    fn next(&self) -> Option<i64> {
        let links = self.links.values().flat_map(|l| [l.all, l.changes]);
        let due = links.chain(self.members.values().map(|m| m.due)).flatten().min()?;
        Some(due.max(self.pause))
    }

    /// What is to be said by now.
    fn tick(&mut self, now: i64) -> Vec<Message> {
        let mut all = Vec::new();
        if now < self.pause {
            return all;
        }
        if now.saturating_sub(self.sent.0) >= PAUSE {
            self.sent = (now, 0);
        }
        let most = TURN.saturating_sub(self.sent.1);
        let State { members, links, .. } = self;
        for ((device, six), link) in links.iter_mut() {
            if all.len() >= most {
                break;
            }
            let to: IpAddr = if *six { ALL_REPORTS6.into() } else { ALL_REPORTS.into() };
            let kind = if *six { kind::REPORT6_2 } else { kind::REPORT3 };
            let mut say = |records: Vec<(u8, IpAddr)>| {
                for part in records.chunks(RECORDS) {
                    all.push(Message { device: *device, to, kind, records: part.to_vec(), group: to });
                }
            };
            if link.all.is_some_and(|at| at <= now) {
                link.all = None;
                say(Self::links_of(members, *device, *six).map(|g| (record::IS_ALL, g)).collect());
            }
            if link.changes.is_some_and(|at| at <= now) {
                link.left = link.left.saturating_sub(1);
                link.changes = Some(now + chance(UNASKED[0])).filter(|_| link.left > 0);
                let mut changed = Vec::new();
                let own = members.iter_mut().filter(|((d, g), m)| d == device && g.is_ipv6() == *six && m.changes > 0);
                for ((_, g), m) in own {
                    m.changes -= 1;
                    changed.push((m.times > 0, std::cmp::Reverse(m.since), *g));
                }
                members.retain(|_, m| m.times > 0 || m.changes > 0);
                // Those that are gone first, as Linux does.
                changed.sort_unstable();
                let of = |(is, _, g)| (if is { record::TO_ALL } else { record::TO_NONE }, g);
                say(changed.into_iter().map(of).collect());
            }
        }
        for ((device, group), member) in members.iter_mut() {
            if all.len() >= most || member.due.is_none_or(|at| at > now) {
                continue;
            }
            let version = links.get(&(*device, group.is_ipv6())).map_or(Version::New, |l| l.version(now));
            member.unasked = member.unasked.saturating_sub(1);
            member.due =
                Some(now + chance(UNASKED[usize::from(version != Version::New)])).filter(|_| member.unasked > 0);
            member.told = true;
            let (to, kind, records) = match (group, version) {
                (IpAddr::V4(_), Version::New) => (ALL_REPORTS.into(), kind::REPORT3, vec![(record::IS_ALL, *group)]),
                (IpAddr::V6(_), Version::New) => (ALL_REPORTS6.into(), kind::REPORT6_2, vec![(record::IS_ALL, *group)]),
                (IpAddr::V4(_), Version::Old) => (*group, kind::REPORT2, Vec::new()),
                (IpAddr::V4(_), Version::Oldest) => (*group, kind::REPORT1, Vec::new()),
                (IpAddr::V6(_), _) => (*group, kind::REPORT6, Vec::new()),
            };
            all.push(Message { device: *device, to, kind, records, group: *group });
        }
        self.sent.1 += all.len();
        if all.len() >= most {
            self.pause = self.sent.0 + PAUSE;
        }
        all
    }
}

/// A message as it leaves. `None`: it has no address to come from.
fn packet(message: &Message, from: IpAddr) -> Option<Packet> {
    let count = u16::try_from(message.records.len()).ok()?.to_be_bytes();
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut data = vec![message.kind, 0, 0, 0];
    if matches!(message.kind, kind::REPORT3 | kind::REPORT6_2) {
        data.extend_from_slice(&[0, 0]);
        data.extend_from_slice(&count);
        for (kind, group) in &message.records {
            data.extend_from_slice(&[*kind, 0, 0, 0]);
            data.extend_from_slice(&octets(*group));
        }
    } else {
        if message.group.is_ipv6() {
            data.extend_from_slice(&[0; 4]);
        }
        data.extend_from_slice(&octets(message.group));
    }
    let seal =
        |data: &mut Vec<u8>, sum: u16| data.iter_mut().skip(2).zip(sum.to_be_bytes()).for_each(|(to, b)| *to = b);
    let protocol = if from.is_ipv4() { IGMP } else { ICMP6 };
    let sum = match from {
        IpAddr::V4(_) => checksum(&[&data]),
        IpAddr::V6(_) => checksum(&[&pseudo(from, message.to, ICMP6, data.len()), &data]),
    };
    seal(&mut data, sum);
    // Both have an option that routers look at: the header is made here.
    let raw = match (from, message.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let [high, low] = u16::try_from(data.len().checked_add(24)?).ok()?.to_be_bytes();
            let mut head = vec![0x46, 0xc0, high, low, 0, 0, 0x40, 0, 1, IGMP, 0, 0];
            head.extend_from_slice(&from.octets());
            head.extend_from_slice(&to.octets());
            head.extend_from_slice(&[148, 4, 0, 0]);
            let sum = checksum(&[&head]);
            head.iter_mut().skip(10).zip(sum.to_be_bytes()).for_each(|(to, b)| *to = b);
            [head, data.clone()].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let [high, low] = u16::try_from(data.len().checked_add(8)?).ok()?.to_be_bytes();
            let mut head = vec![0x60, 0, 0, 0, high, low, 0, 1];
            head.extend_from_slice(&from.octets());
            head.extend_from_slice(&to.octets());
            head.extend_from_slice(&[ICMP6, 0, 5, 2, 0, 0, 1, 0]);
            [head, data.clone()].concat()
        }
        _ => return None,
    };
    let (to, device) = (message.to, message.device);
    Some(Packet { from, to, protocol, ttl: 1, tos: 0xc0, data, whole: Some(raw), device })
}

/// What is shown of a member.
#[derive(Debug)]
pub struct Shown {
    /// The group.
    pub group: IpAddr,
    /// How often it was joined.
    pub times: usize,
    /// When it is told of by itself, in nanoseconds.
    pub due: Option<i64>,
    /// This host told of it last.
    pub told: bool,
}

/// The groups of a namespace.
#[derive(Default)]
pub struct Groups {
    state: Mutex<State>,
    /// What it is woken by, once there is somebody to be told.
    alarm: std::sync::OnceLock<(Arc<Timers>, Arc<dyn Wake>)>,
}

/// What the kernel's timers wake.
struct Alarm(Weak<NetNamespace>);

impl Wake for Alarm {
    fn wake(&self, _: PollMask) {
        if let Some(net) = self.0.upgrade() {
            net.groups.woken(&net);
        }
    }
}

impl Groups {
    /// There are networks to be told from now on: of the groups by which the namespace's own addresses are asked for, to begin with.
    pub fn begin(&self, net: &Arc<NetNamespace>, timers: &Arc<Timers>) {
        let alarm: Arc<dyn Wake> = Arc::new(Alarm(Arc::downgrade(net)));
        if self.alarm.set((timers.clone(), alarm)).is_err() {
            return;
        }
        let Some(outside) = net.outside() else { return };
        for interface in &outside.network.interfaces {
            let own =
                interface.addresses.iter().filter_map(|a| if let IpAddr::V6(ip) = a.ip { Some(ip) } else { None });
            for ip in own {
                // There are fewer than there may be groups.
                let _ = self.join(net, solicited(ip).into(), interface.index);
            }
        }
    }

    fn tells(net: &NetNamespace, device: u32) -> bool {
        net.outside().is_some_and(|o| o.network.reports && o.network.interface(device).is_some())
    }

    /// One more is a member on a device. ENOBUFS.
    pub fn join(&self, net: &NetNamespace, group: IpAddr, device: u32) -> Result<(), Errno> {
        let at = now(Clock::Monotonic);
        self.state.lock().join(group, device, Self::tells(net, device), at)?;
        self.turn(net, at);
        Ok(())
    }

    /// One is no more.
    pub fn leave(&self, net: &NetNamespace, group: IpAddr, device: u32) {
        let at = now(Clock::Monotonic);
        let message = self.state.lock().leave(group, device, Self::tells(net, device), at);
        message.into_iter().for_each(|m| send(net, &m));
        self.turn(net, at);
    }

    /// Whether there is a member, on any device.
    pub fn has(&self, group: IpAddr) -> bool {
        self.state.lock().members.iter().any(|((_, g), m)| *g == group && m.times > 0)
    }

    /// A message has come from elsewhere.
    pub fn heard(&self, net: &NetNamespace, p: &Packet) {
        let sound = match p.protocol {
            IGMP => p.to.is_ipv4() && checksum(&[&p.data]) == 0,
            _ => {
                p.to.is_ipv6()
                    && matches!(p.data.first(), Some(&kind::QUERY6 | &kind::REPORT6))
                    && checksum(&[&pseudo(p.from, p.to, ICMP6, p.data.len()), &p.data]) == 0
            }
        };
        if sound && Self::tells(net, p.device) {
            let at = now(Clock::Monotonic);
            self.state.lock().heard(p, at);
            self.turn(net, at);
        }
    }

    /// The members of a device, of one family, and the version that is spoken.
    pub fn list(&self, device: u32, six: bool) -> (u8, Vec<Shown>) {
        let (s, now) = (self.state.lock(), now(Clock::Monotonic));
        let version = s.links.get(&(device, six)).map_or(Version::New, |l| l.version(now));
        let own = s.members.iter().filter(|((d, g), m)| *d == device && g.is_ipv6() == six && m.times > 0);
        let shown = |(group, m): (IpAddr, &Member)| Shown {
            group,
            times: m.times,
            due: m.due.map(|at| at.saturating_sub(now).max(0)),
            told: m.told,
        };
        let mut all: Vec<_> = own.map(|((_, g), m)| (m.since, shown((*g, m)))).collect();
        all.sort_unstable_by_key(|(since, _)| std::cmp::Reverse(*since));
        (version as u8 + 1, all.into_iter().map(|(_, shown)| shown).collect())
    }

    fn woken(&self, net: &NetNamespace) {
        let at = now(Clock::Monotonic);
        {
            let mut s = self.state.lock();
            // One that was meant for what has been said since.
            if s.alarm.is_none_or(|alarm| alarm > at) {
                return;
            }
            s.alarm = None;
        }
        self.turn(net, at);
    }

    /// Says what is to be said, and has itself woken for what comes next.
    fn turn(&self, net: &NetNamespace, at: i64) {
        let Some((timers, alarm)) = self.alarm.get() else { return };
        let (messages, next) = {
            let mut s = self.state.lock();
            let messages = s.tick(at);
            let next = s.next().filter(|next| s.alarm.is_none_or(|alarm| *next < alarm));
            s.alarm = next.or(s.alarm);
            (messages, next)
        };
        messages.iter().for_each(|m| send(net, m));
        if let Some(next) = next {
            timers.add(Deadline { clock: Clock::Monotonic, at: next }, alarm);
        }
    }
}

fn send(net: &NetNamespace, message: &Message) {
    let Some(outside) = net.outside() else { return };
    let mut own =
        outside.network.interface(message.device).map(|i| i.addresses.iter().map(|a| a.ip)).into_iter().flatten();
    let from = own.find(|ip| match ip {
        IpAddr::V4(_) => message.to.is_ipv4(),
        IpAddr::V6(ip) => message.to.is_ipv6() && ip.is_unicast_link_local(),
    });
    // Who has no address of the link yet speaks as nobody.
    let from =
        from.unwrap_or(if message.to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() });
    if let Some(p) = packet(message, from) {
        outside.send_packet(&p, (true, 0), message.device);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn heard(state: &mut State, from: &str, to: &str, data: &[u8], now: i64) {
        let (from, to) = (ip(from), ip(to));
        let protocol = if to.is_ipv4() { IGMP } else { ICMP6 };
        state.heard(&Packet { from, to, protocol, ttl: 1, tos: 0, data: data.to_vec(), whole: None, device: 2 }, now);
    }

    /// All that is said until nothing is left to be said, and how long that takes.
    fn said(state: &mut State, mut now: i64) -> (Vec<Message>, i64) {
        let (mut all, begun) = (state.tick(now), now);
        while let Some(next) = state.next() {
            now = now.max(next);
            all.extend(state.tick(now));
        }
        (all, now - begun)
    }

    #[test]
    fn the_oldest_routers_are_answered_in_their_words() {
        let (mut state, group) = (State::default(), ip("239.1.1.1"));
        state.join(group, 2, true, 0).unwrap();
        let kinds = |all: &[Message]| all.iter().map(|m| m.kind).collect::<Vec<_>>();
        assert_eq!(kinds(&said(&mut state, 0).0), [kind::REPORT3; 2]);
        heard(&mut state, "10.0.0.1", "224.0.0.1", &[kind::QUERY, 0, 0, 0, 0, 0, 0, 0], NS);
        let (all, time) = said(&mut state, NS);
        assert_eq!((kinds(&all), all[0].to, time < RESPONSE), (vec![kind::REPORT1], group, true));
        // They are not told of who goes; and are forgotten after a while.
        assert_eq!(state.leave(group, 2, true, 20 * NS), None);
        state.join(group, 2, true, 20 * NS).unwrap();
        assert_eq!(kinds(&said(&mut state, 20 * NS).0), [kind::REPORT1; 2]);
        state.leave(group, 2, true, 300 * NS);
        let (all, _) = said(&mut state, 300 * NS);
        assert_eq!(all[1].records, [(record::TO_NONE, group)]);
        assert!(state.members.is_empty());
    }

    #[test]
    fn what_stays_here_is_told_to_nobody() {
        let mut state = State::default();
        for group in ["224.0.0.1", "ff02::1", "ff01::5"] {
            state.join(ip(group), 2, true, 0).unwrap();
        }
        state.join(ip("239.1.1.1"), 1, false, 0).unwrap();
        heard(&mut state, "10.0.0.1", "224.0.0.1", &[kind::QUERY, 1, 0, 0, 0, 0, 0, 0, 2, 9, 0, 0], 0);
        assert_eq!(said(&mut state, 0).0, []);
        assert_eq!(solicited("fe80::1:2:3".parse().unwrap()), ip("ff02::1:ff02:3"));
    }

    #[test]
    fn nobody_is_made_to_say_much() {
        let mut state = State::default();
        for n in 0..MOST as u32 {
            state.join(Ipv4Addr::from_bits(0xef00_0000 + n).into(), 2, true, 0).unwrap();
        }
        assert_eq!(state.join(ip("239.9.9.9"), 2, true, 0), Err(Errno::ENOBUFS));
        said(&mut state, 0);
        // An older router that wants all of it within a tenth of a second gets it, but not so soon.
        heard(&mut state, "10.0.0.1", "224.0.0.1", &[kind::QUERY, 1, 0, 0, 0, 0, 0, 0], NS);
        let (all, time) = said(&mut state, NS);
        assert!(all.len() == MOST && time >= (MOST / TURN - 1) as i64 * PAUSE, "{} {time}", all.len());
        // All of it in packets that fit.
        let mut state = State::default();
        (0..150).for_each(|n| state.join(Ipv4Addr::from_bits(0xef00_0000 + n).into(), 2, true, 0).unwrap());
        let (all, _) = said(&mut state, 0);
        assert_eq!(all.iter().map(|m| m.records.len()).collect::<Vec<_>>(), [60, 60, 30, 60, 60, 30]);
        let packet = packet(&all[0], ip("10.0.0.2")).unwrap();
        assert_eq!(packet.whole.unwrap().len(), 24 + 8 + 60 * 8);
    }

    #[test]
    fn nonsense_changes_nothing_but_times() {
        let mut state = State::default();
        let groups = ["239.1.1.1", "ff05::1"].map(ip);
        groups.iter().for_each(|g| state.join(*g, 2, true, 0).unwrap());
        let (mut seed, mut now) = (7u64, 0);
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize
        };
        for n in 0..50_000 {
            let mut data: Vec<u8> = (0..random() % 40).map(|_| random() as u8).collect();
            if let Some(kind) = data.first_mut() {
                *kind = [kind::QUERY, kind::QUERY6, kind::REPORT2, kind::REPORT6][n % 4];
            }
            let (from, to) = if n % 2 == 0 { ("10.0.0.1", "224.0.0.1") } else { ("fe80::1", "ff02::1") };
            heard(&mut state, from, to, &data, now);
            now += random() as i64 % NS;
            assert!(state.tick(now).len() <= 4);
            assert_eq!((state.members.len(), state.links.len()), (2, 2));
        }
        assert!(groups.iter().all(|g| state.members[&(2, *g)].times == 1));
    }
}
