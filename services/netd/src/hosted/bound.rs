//! Sockets of datagrams that have a place of the host's: each of the sandbox's is one of the host's, in its own network.
//!
//! Owns which slot is which. What is sent and what came crosses as packets in the slot's own rings, with the addresses, hops and service that
//! `recvmsg(2)` and `sendmsg(2)` have beside it (`cofferdam_confine::datagrams`). Called by `hosted`.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use cofferdam_confine::datagrams::{self as along, Came};
use cofferdam_control::rules::{Action, Direction};
use cofferdam_socket::ring::{Consumer, Producer};
use cofferdam_socket::slot::{Operation, Slot, said};
use cofferdam_socket::{Broken, Side, Window, packet};
use rustix::io::Errno;

use super::datagrams::{self, Ends, TOLD, carried};
use super::{Around, BOUND, Watch, places};
use crate::ip::{Head, UDP};

/// Datagrams of one socket that go one way before something else gets its turn.
const TURN: usize = 64;
/// The same of one that is closed: what has no turn any more is lost, as where a queue is full.
const LAST_TURN: usize = 4096;

#[derive(Debug)]
struct Socket {
    slot: Slot,
    socket: OwnedFd,
    /// Where it was bound to, and where it is: of one that is bound to no address in particular that is known once it has another end.
    at: SocketAddr,
    own: SocketAddr,
    /// It hears that one alone.
    peer: Option<SocketAddr>,
    outgoing: Consumer,
    incoming: Producer,
    /// The last request that was answered.
    request: u32,
}

/// All of a sandbox's.
#[derive(Debug)]
pub(super) struct Bound {
    window: Arc<Window>,
    watch: Watch,
    most: usize,
    sockets: HashMap<u32, Socket>,
    /// Those that may have more to send, and to receive.
    again: [HashSet<u32>; 2],
}

impl Bound {
    pub fn new(window: Arc<Window>, watch: Watch, most: usize) -> Self {
        Self { window, watch, most, sockets: HashMap::new(), again: Default::default() }
    }

    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    pub fn is_busy(&self) -> bool {
        self.again.iter().any(|a| !a.is_empty())
    }

    pub fn has(&self, slot: &Slot) -> bool {
        self.sockets.contains_key(&slot.number())
    }

    /// The Sentry says that something is to be done in the slot of a socket, or in a new one's.
    pub fn asked(&mut self, slot: Slot, around: &mut Around) -> Result<(), Broken> {
        let (w, number) = (self.window.clone(), slot.number());
        let (request, binding) = slot.asked(&w);
        let known = self.sockets.get(&number).map(|s| (s.request, s.at));
        if known.is_some() && slot.said(&w) & said::CLOSED != 0 {
            self.send(number, LAST_TURN, around)?;
            self.sockets.remove(&number);
            slot.release(&w);
            return around.sentry.tell(&slot);
        }
        if known.is_none_or(|(answered, _)| answered != request) {
            let (what, local, remote, _) = slot.wanted(&w)?;
            if what != Operation::Datagrams {
                return Err(Broken("a socket of datagrams is to be something else"));
            }
            let done = match known {
                Some((_, at)) => Ok(at),
                None => self.bind(slot, local, binding, around),
            };
            if let Some(needed) = done.as_ref().err().and_then(|e| places::needed(*e, false, local, binding)) {
                around.needed.push((slot, needed));
                return Ok(());
            }
            let done = done.and_then(|at| self.connect(number, at, remote, around));
            self.answer(slot, request, done, around)?;
        }
        self.send(number, TURN, around)
    }

    fn answer(
        &mut self,
        slot: Slot,
        request: u32,
        done: Result<SocketAddr, Errno>,
        around: &mut Around,
    ) -> Result<(), Broken> {
        if let Some(s) = self.sockets.get_mut(&slot.number()) {
            s.request = request;
        } else {
            slot.release(&self.window);
        }
        slot.answer(&self.window, request, done.map_err(Errno::raw_os_error));
        around.sentry.tell(&slot)
    }

    /// The supervisor has made the socket for the place that a slot is to have.
    pub fn placed(&mut self, slot: Slot, socket: OwnedFd, around: &mut Around) -> Result<(), Broken> {
        let (request, _) = slot.asked(&self.window);
        let (_, _, remote, _) = slot.wanted(&self.window)?;
        let done = self.enter(slot, socket).and_then(|at| self.connect(slot.number(), at, remote, around));
        self.answer(slot, request, done, around)
    }

    fn bind(
        &mut self,
        slot: Slot,
        at: SocketAddr,
        binding: cofferdam_socket::slot::Binding,
        around: &mut Around,
    ) -> Result<SocketAddr, Errno> {
        if self.sockets.len() >= self.most {
            return Err(Errno::NOBUFS);
        }
        let socket = places::bound(false, at, binding).inspect_err(|_| around.counters.refused += 1)?;
        self.enter(slot, socket)
    }

    /// A socket with a place; where it is.
    fn enter(&mut self, slot: Slot, socket: OwnedFd) -> Result<SocketAddr, Errno> {
        self.watch.add(socket.as_fd(), BOUND | u64::from(slot.number()))?;
        let at = places::name(&socket)?;
        along::tell_all(&socket, at.is_ipv4()).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        let (incoming, outgoing) = slot.rings(&self.window, Side::Netd);
        let socket = Socket { slot, socket, at, own: at, peer: None, outgoing, incoming, request: 0 };
        self.sockets.insert(slot.number(), socket);
        Ok(at)
    }

    /// From now on to and from there only; from and to anybody, where it has no port. Where the socket is then.
    fn connect(
        &mut self,
        number: u32,
        at: SocketAddr,
        to: SocketAddr,
        around: &mut Around,
    ) -> Result<SocketAddr, Errno> {
        let s = self.sockets.get_mut(&number).ok_or(Errno::NOBUFS)?;
        let peer = Some(to).filter(|to| to.port() != 0);
        if peer != s.peer {
            match peer {
                Some(to) => {
                    if around.counters.filter.judge(Direction::Out, UDP, to.ip(), 0, to.port()) == Action::Deny {
                        return Err(Errno::CONNREFUSED);
                    }
                    rustix::net::connect(&s.socket, &places::dressed(to, at))?;
                }
                None => rustix::net::connect_unspec(&s.socket)?,
            }
            s.peer = peer;
            s.own = places::name(&s.socket)?;
        }
        Ok(s.own)
    }

    /// Sends what the Sentry has put in, so many at most.
    fn send(&mut self, number: u32, most: usize, around: &mut Around) -> Result<(), Broken> {
        let Some(s) = self.sockets.get_mut(&number) else { return Ok(()) };
        for _ in 0..most {
            let Some((head, data)) = packet::take(&mut s.outgoing)? else { return Ok(()) };
            let Some((_, to, payload)) = datagrams::ends(&head, &data).filter(|_| head.protocol == UDP) else {
                around.counters.broken += 1;
                continue;
            };
            around.sent(payload.len());
            s.sent(&head, to, payload, around)?;
        }
        self.again[0].insert(number);
        Ok(())
    }

    /// Something has happened to a socket.
    pub fn came(&mut self, number: u32, around: &mut Around) -> Result<(), Broken> {
        let Some(s) = self.sockets.get_mut(&number) else { return Ok(()) };
        let mut more = true;
        for _ in 0..TURN {
            match along::receive(&s.socket, &mut around.buffer) {
                Ok(came) => s.received(came, around)?,
                Err(e) if e.raw_os_error() == Some(Errno::AGAIN.raw_os_error()) => {
                    more = s.errors(around)?;
                    break;
                }
                // Of what was sent before: more is told of it by itself.
                Err(_) => {
                    s.errors(around)?;
                }
            }
        }
        if more {
            self.again[1].insert(number);
        }
        let slot = s.slot;
        around.sentry.tell(&slot)
    }

    /// Goes on with what had no turn.
    pub fn tick(&mut self, around: &mut Around) -> Result<(), Broken> {
        let [out, into] = std::mem::take(&mut self.again);
        out.into_iter().try_for_each(|number| self.send(number, TURN, around))?;
        into.into_iter().try_for_each(|number| self.came(number, around))
    }
}

impl Socket {
    /// Whether that end may send or be sent something: who has been sent something may answer, and the other way round.
    fn may(&self, direction: Direction, other: SocketAddr, around: &mut Around) -> bool {
        let filter = &mut around.counters.filter;
        // The own address may become another while it goes on; the port does not.
        let own = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), self.own.port());
        filter.is_unused() || filter.datagram(direction, UDP, own, other, around.now) == Action::Allow
    }

    /// Sends one, as its head says.
    fn sent(&mut self, head: &packet::Head, to: SocketAddr, payload: &[u8], around: &mut Around) -> Result<(), Broken> {
        let ends = Ends { protocol: UDP, local: self.answers(to), remote: to };
        if !self.may(Direction::Out, to, around) {
            return datagrams::tell(ends, payload, Errno::CONNREFUSED, around);
        }
        // One that is connected is not told where to once more.
        let name = Some(places::dressed(to, self.at)).filter(|_| self.peer != Some(to));
        let send = |s: &Self| along::send(&s.socket, payload, name, head.from, (head.hops, head.service));
        let mut done = send(self);
        if done.is_err() && self.errors(around)? {
            // It was about one that was sent before: this one has not gone yet.
            done = send(self);
        }
        let why = match done {
            Ok(_) => return Ok(()),
            Err(e) => Errno::from_io_error(&e).unwrap_or(Errno::IO),
        };
        match why {
            Errno::AGAIN | Errno::INTR | Errno::NOBUFS => Ok(()),
            // Of that more is told by itself.
            Errno::MSGSIZE => self.errors(around).map(drop),
            why => {
                around.counters.refused += 1;
                datagrams::tell(ends, payload, why, around)
            }
        }
    }

    /// Something came, so much of the buffer.
    fn received(&mut self, came: Came, around: &mut Around) -> Result<(), Broken> {
        if !self.may(Direction::In, came.from, around) {
            return Ok(());
        }
        around.received(came.len);
        let at = self.answers(came.from);
        let at = SocketAddr::new(came.to.filter(|ip| ip.is_ipv4() == at.is_ipv4()).unwrap_or(at.ip()), at.port());
        let Some(data) = carried(UDP, (came.from, at), around.buffer.get(..came.len).unwrap_or_default()) else {
            around.counters.broken += 1;
            return Ok(());
        };
        let (hops, service) = (came.hops, came.service);
        let head = Head { from: came.from.ip(), to: at.ip(), protocol: UDP, hops, service, piece: None };
        if !packet::put(&mut self.incoming, &head.told(0, came.interface), &data)? {
            around.counters.no_room += 1;
        }
        Ok(())
    }

    /// The own end that somebody of the other has to do with, in the other's family.
    fn answers(&self, other: SocketAddr) -> SocketAddr {
        let ip = self.own.ip();
        let any = if other.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        SocketAddr::new(if ip.is_ipv4() == other.is_ipv4() { ip } else { any }, self.own.port())
    }

    /// Tells the Sentry of what did not arrive; whether there was something.
    fn errors(&self, around: &mut Around) -> Result<bool, Broken> {
        let mut some = false;
        for _ in 0..TURN {
            let Ok(Some(failed)) = along::failed(&self.socket, &mut around.buffer) else { break };
            some = true;
            let data = around.buffer.get(..failed.len.min(TOLD)).unwrap_or_default().to_vec();
            let ends = Ends { protocol: UDP, local: self.answers(failed.to), remote: failed.to };
            let long = failed.error == Errno::MSGSIZE.raw_os_error();
            let (by, kind, word) = match (failed.by, failed.to.is_ipv4()) {
                (Some((by, kind, code)), _) => (by, (kind, code), failed.info),
                // Of IPv4 and of IPv6: as a router would have said it.
                (None, true) if long => (failed.to.ip(), (3, 4), failed.info),
                (None, false) if long => (failed.to.ip(), (2, 0), failed.info),
                (None, _) => {
                    datagrams::tell(ends, &data, Errno::from_raw_os_error(failed.error), around)?;
                    continue;
                }
            };
            datagrams::tell_of(ends, &data, by, kind, word, around)?;
        }
        Ok(some)
    }
}
