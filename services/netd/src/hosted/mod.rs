//! Sockets of the host's behind the sandbox's: a network without packets, as its caller could use it himself.
//!
//! A connection of the sandbox's is one of the host's, made when the sandbox asks for it (`streams`); a datagram leaves by a socket that is
//! made for it and what comes back there goes to who sent it (`datagrams`). The sandbox seems to have a network of its own; what of that is
//! somebody in particular, and what nobody, is decided here: loopback addresses of the host's are out of reach, but for the port where it
//! asks for names. Ports that the caller has published come as sockets that are there already.
//!
//! Or the network is the host's own (`podman --network=host`): then nothing is out of reach that the host's programs reach, and sockets are bound where the
//! sandbox binds them (`places`), also those of datagrams (`bound`). Called by `service`.

mod bound;
mod datagrams;
mod places;
mod streams;
#[cfg(feature = "testing")]
pub mod testing;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use cofferdam_control::netd::{INSIDE, INSIDE6, Network, Place, Published, RESOLVER, ROUTER, ROUTER6, User};
use cofferdam_control::rules::Rules;
use cofferdam_socket::ring::Consumer;
use cofferdam_socket::slot::{Operation, Slot, said};
use cofferdam_socket::traffic::Traffic;
use cofferdam_socket::{Broken, Window, packet};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use self::bound::Bound;
use self::datagrams::Datagrams;
use self::streams::Streams;
use crate::behind::Behind;
use crate::filter::Filter;
use crate::ip::{ICMP, ICMP6, UDP};
use crate::sentry::Sentry;
use crate::service::BEHIND;

/// What a descriptor is watched as: published ports, connections by their slots, sockets of datagrams.
pub const DOORS: u64 = BEHIND;
const STREAMS: u64 = 1 << 32;
const FLOWS: u64 = 2 << 32;
const LISTENERS: u64 = 3 << 32;
const BOUND: u64 = 4 << 32;
/// Packets of the Sentry's that are sent before something else gets its turn.
const TURN: usize = 256;
/// Bytes that are moved at a time.
const PIECE: usize = 1 << 16;
/// Sockets of datagrams, at most; and what is left of all for what is no socket.
const DATAGRAMS: usize = 1024;
const SPARE: usize = 64;

/// Why something does not leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nowhere {
    /// Nobody is there.
    Nobody,
    /// Nobody may go there.
    Forbidden,
}

/// Who is who.
#[derive(Debug)]
struct Names {
    network: Network,
    resolver: Option<IpAddr>,
}

impl Names {
    /// Whom the sandbox means by an address.
    fn meant(&self, to: SocketAddr) -> Result<SocketAddr, Nowhere> {
        let ip = to.ip().to_canonical();
        if self.network.host {
            return Ok(SocketAddr::new(ip, to.port()));
        }
        if ip == IpAddr::V4(RESOLVER) && to.port() == 53 {
            return self.resolver.map(|ip| SocketAddr::new(ip, 53)).ok_or(Nowhere::Nobody);
        }
        let local = match ip {
            IpAddr::V4(ip) => ip.is_loopback() || ip.is_unspecified() || ip.octets().first() == Some(&0),
            // IPv4 addresses in IPv6's clothes are taken for what they are above.
            IpAddr::V6(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local(),
        };
        if local || ip.is_multicast() || ip == IpAddr::from([255; 4]) {
            return Err(Nowhere::Forbidden);
        }
        let inside = self.network.interfaces.iter().flat_map(|i| &i.addresses).any(|a| a.contains(ip));
        if inside { Err(Nowhere::Nobody) } else { Ok(SocketAddr::new(ip, to.port())) }
    }

    /// Whom the sandbox takes somebody for who comes by a published port: the host itself seems to be the router. With the sandbox's own
    /// address for it. `four`: only IPv4 will do.
    fn seen(&self, from: SocketAddr, four: bool) -> (SocketAddr, IpAddr) {
        let ip = from.ip().to_canonical();
        let six = ip.is_ipv6() && !four && self.network.has(INSIDE6.into());
        let (own, router) = if six { (INSIDE6.into(), ROUTER6.into()) } else { (INSIDE.into(), IpAddr::V4(ROUTER)) };
        let strange = match ip {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => !six || ip.is_loopback() || ip.is_unicast_link_local(),
        };
        // Nor may anybody seem to be one of the sandbox's own network.
        let inside = self.network.interfaces.iter().flat_map(|i| &i.addresses).any(|a| a.contains(ip));
        (SocketAddr::new(if strange || inside { router } else { ip }, from.port()), own)
    }
}

/// What descriptors are watched by.
#[derive(Debug, Clone)]
struct Watch(Arc<OwnedFd>);

impl Watch {
    /// Watches one for all that happens, each time that it does.
    fn add(&self, fd: BorrowedFd<'_>, which: u64) -> Result<(), Errno> {
        let what = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&*self.0, fd, EventData::new_u64(which), what)
    }
}

/// What was counted, and what may pass, which is counted with it.
#[derive(Debug)]
struct Counters {
    filter: Filter,
    /// Of connections, of packets: those that nobody may make, that the host refused, that had no room.
    forbidden: u64,
    refused: u64,
    no_room: u64,
    broken: u64,
}

/// What connections and datagrams have in common.
#[derive(Debug)]
struct Around {
    sentry: Sentry,
    names: Names,
    counters: Counters,
    traffic: Traffic,
    buffer: Vec<u8>,
    now: Instant,
    /// Places that the supervisor is to be asked for: the slots that they are for.
    needed: Vec<(Slot, Place)>,
}

impl Around {
    /// So much came at a socket of the host's.
    fn received(&mut self, bytes: usize) {
        self.traffic.received_packets += 1;
        self.traffic.received_bytes += bytes as u64;
    }

    /// So much left by one, or was to.
    fn sent(&mut self, bytes: usize) {
        self.traffic.sent_packets += 1;
        self.traffic.sent_bytes += bytes as u64;
    }
}

/// All of it.
#[derive(Debug)]
pub struct Hosted {
    window: Arc<Window>,
    /// Packets of the Sentry's.
    packets: Consumer,
    streams: Streams,
    datagrams: Datagrams,
    bound: Bound,
    /// Slots whose place the supervisor is asked for.
    awaited: HashMap<u32, Slot>,
    around: Around,
}

impl Hosted {
    /// With the sockets of the published ports, which do not wait and are watched as [`DOORS`] in their order, and what more is to be watched by.
    /// `user`: what the network is like, unless it is the host's own; `most`: descriptors, at most.
    pub fn new(
        network: Network,
        user: Option<User>,
        rules: Rules,
        doors: Vec<OwnedFd>,
        window: &Arc<Window>,
        epoll: Arc<OwnedFd>,
        most: usize,
    ) -> Result<Self, Broken> {
        let (sentry, packets) = Sentry::new(window)?;
        let sockets = most.saturating_sub(SPARE + doors.len());
        let (of_datagrams, watch) = (DATAGRAMS.min(sockets / 4), Watch(epoll));
        let of_places = if network.host { sockets / 4 } else { 0 };
        let of_streams = sockets - of_datagrams - of_places;
        let mut streams = Streams::new(window.clone(), watch.clone(), of_streams, network.host);
        let mut datagrams = Datagrams::new(watch.clone(), of_datagrams);
        let bound = Bound::new(window.clone(), watch, of_places);
        let (published, resolver) = user.map(|u| (u.published, u.resolver)).unwrap_or_default();
        for ((door, published), which) in doors.into_iter().zip(published).zip(DOORS..) {
            let Published { udp, port } = published;
            if udp { datagrams.publish(which, door, port) } else { streams.publish(which, door, port) }
        }
        let names = Names { network, resolver };
        let counters = Counters { filter: Filter::new(rules), forbidden: 0, refused: 0, no_room: 0, broken: 0 };
        let (traffic, buffer, now) = (Traffic::default(), vec![0; PIECE], Instant::now());
        let around = Around { sentry, names, counters, traffic, buffer, now, needed: Vec::new() };
        Ok(Self { window: window.clone(), packets, streams, datagrams, bound, awaited: HashMap::new(), around })
    }

    /// A packet of the Sentry's.
    fn packet(&mut self, head: &packet::Head, data: &[u8]) -> Result<(), Broken> {
        if head.flags & packet::flags::HEADED != 0 || !matches!(head.protocol, UDP | ICMP | ICMP6) {
            // Nothing of the caller's can carry it.
            self.around.counters.forbidden += 1;
            return Ok(());
        }
        self.around.sent(data.len());
        self.datagrams.send(head, data, &mut self.around)
    }
}

/// Whether a slot of the Sentry's is to be begun: neither was netd done with it, nor was the Sentry before it began.
fn is_open(slot: &Slot, window: &Window) -> bool {
    !slot.is_netds() && !slot.is_released(window) && slot.said(window) & said::CLOSED == 0
}

impl Behind for Hosted {
    fn sentry(&mut self) -> &mut Sentry {
        &mut self.around.sentry
    }

    fn set_now(&mut self, now: Instant) {
        self.around.now = now;
    }

    fn asked(&mut self, slot: Slot) -> Result<(), Broken> {
        let Self { window, streams, bound, awaited, around, .. } = self;
        if awaited.contains_key(&slot.number()) {
            // Its answer comes first.
            return Ok(());
        }
        let begins = || slot.wanted(window).is_ok_and(|(what, ..)| what == Operation::Datagrams);
        if bound.has(&slot) || around.names.network.host && !streams.has(&slot) && begins() && is_open(&slot, window) {
            return bound.asked(slot, around);
        }
        streams.asked(slot, around)
    }

    fn send_packets(&mut self) -> Result<bool, Broken> {
        let mut more = true;
        for _ in 0..TURN {
            match packet::take(&mut self.packets)? {
                Some((head, data)) => self.packet(&head, &data)?,
                None => {
                    more = false;
                    break;
                }
            }
        }
        self.around.sentry.has_room(&self.window)?;
        Ok(more)
    }

    fn happened(&mut self, which: u64, what: EventFlags, deaf: bool) -> Result<(), Broken> {
        if deaf {
            return Ok(());
        }
        let Self { streams, datagrams, bound, around, .. } = self;
        let number = (which & u64::from(u32::MAX)) as u32;
        if which < STREAMS && datagrams.is_door(which) {
            return datagrams.door(which, around);
        }
        match which & !u64::from(u32::MAX) {
            FLOWS => datagrams.came(number, around),
            BOUND => bound.came(number, around),
            LISTENERS => streams.called(number, around),
            _ => streams.happened(which, what, around),
        }
    }

    fn tick(&mut self) -> Result<(), Broken> {
        self.datagrams.tick(&mut self.around)?;
        self.bound.tick(&mut self.around)?;
        self.streams.work(&mut self.around)
    }

    fn places(&mut self) -> Vec<(u32, Place)> {
        let needed = std::mem::take(&mut self.around.needed);
        let all = needed.into_iter().map(|(slot, place)| {
            self.awaited.insert(slot.number(), slot);
            (slot.number(), place)
        });
        all.collect()
    }

    fn bound(&mut self, number: u32, socket: Result<OwnedFd, i32>) -> Result<(), Broken> {
        let Some(slot) = self.awaited.remove(&number) else { return Ok(()) };
        let Self { window, streams, bound, around, .. } = self;
        let closed = slot.said(window) & said::CLOSED != 0;
        match socket {
            Ok(socket) if !closed => {
                if slot.wanted(window)?.0 == Operation::Datagrams {
                    bound.placed(slot, socket, around)
                } else {
                    streams.placed(slot, socket, around)
                }
            }
            other => {
                let (request, _) = slot.asked(window);
                slot.answer(window, request, Err(other.err().unwrap_or(0)));
                slot.release(window);
                around.sentry.tell(&slot)
            }
        }
    }

    /// Each as it is made.
    fn watch(&mut self) -> Result<(), Errno> {
        Ok(())
    }

    fn is_busy(&self) -> bool {
        self.streams.is_busy() || self.datagrams.is_busy() || self.bound.is_busy()
    }

    fn next(&self) -> Option<Instant> {
        self.datagrams.next()
    }

    fn traffic(&self) -> impl Iterator<Item = &Traffic> {
        std::iter::once(&self.around.traffic)
    }

    fn filter(&self) -> &Filter {
        &self.around.counters.filter
    }

    fn count(&mut self) -> Vec<(String, u64)> {
        let c = &self.around.counters;
        [
            ("packets_broken", c.broken),
            ("forbidden", c.forbidden),
            ("refused_by_the_host", c.refused),
            ("packets_without_room", c.no_room),
            ("tcp_connections", self.streams.len() as u64),
            ("datagram_sockets", (self.datagrams.len() + self.bound.len()) as u64),
        ]
        .map(|(name, n)| (name.to_owned(), n))
        .to_vec()
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_socket::WINDOW_BYTES;
    use cofferdam_socket::queue::Receiver;
    use cofferdam_socket::slot::told;

    use super::*;

    #[test]
    fn a_slot_that_came_to_nothing_is_given_back() {
        let window = Arc::new(Window::create("test", WINDOW_BYTES).unwrap());
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC).unwrap());
        let user = User { resolver: None, six: false, published: Vec::new() };
        let (network, rules) = (Network::user(false), Rules::default());
        let mut hosted = Hosted::new(network, Some(user), rules, Vec::new(), &window, epoll, SPARE + 9).unwrap();
        let mut sentrys = Receiver::new(window.clone(), cofferdam_socket::Side::Sentry);
        let slot = Slot::new(&window, 2).unwrap();
        // Nobody else is in its own network.
        let nobody = Some("10.0.2.9:9".parse().unwrap());
        slot.prepare(&window, Operation::Connect, SocketAddr::new(INSIDE.into(), 1), nobody, 0);
        hosted.asked(slot).unwrap();
        assert_eq!(slot.told(&window), told::FAILED | told::OVER | told::RELEASED);
        assert_eq!((sentrys.pop(), sentrys.pop()), (Ok(Some(slot)), Ok(None)));
        // Once more when the Sentry is done with it, too: else it would never use it again.
        slot.say(&window, said::CLOSED | said::RESET);
        hosted.asked(slot).unwrap();
        assert!(slot.is_released(&window));
        assert_eq!(sentrys.pop(), Ok(Some(slot)));
        // What only the host's own network has is a rule that is broken.
        slot.prepare(&window, Operation::Bind, SocketAddr::new(INSIDE.into(), 1), None, 0);
        assert!(hosted.asked(slot).is_err());
    }
}
