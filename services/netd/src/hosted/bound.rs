//! Sockets of datagrams that have a place of the host's: each of the sandbox's is one of the host's, in its own network.
//!
//! Owns which slot is which. What is sent and what came crosses as packets in the slot's own rings. Which ends have exchanged something is remembered for
//! the sake of the rules: an answer may pass where the question might. Called by `hosted`.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cofferdam_control::rules::{Action, Direction};
use cofferdam_socket::ring::{Consumer, Producer};
use cofferdam_socket::slot::{Operation, Slot, said};
use cofferdam_socket::{Broken, Side, Window, packet};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::datagrams::{self, Ends, TOLD, carried};
use super::{Around, BOUND, Watch, places};
use crate::ip::{Head, UDP};

/// Datagrams of one socket that go one way before something else gets its turn.
const TURN: usize = 64;
/// Other ends that are remembered of one socket, at most, and for how long after the last datagram.
const KNOWN: usize = 1024;
const MEMORY: Duration = Duration::from_secs(180);

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
    known: HashMap<SocketAddr, Instant>,
    /// Whom something was sent to last, and the beginning of that: an error brings it back.
    last: Option<(SocketAddr, Vec<u8>)>,
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
            self.send(number, usize::MAX, around)?;
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
        let (incoming, outgoing) = slot.rings(&self.window, Side::Netd);
        let (known, last) = (HashMap::new(), None);
        let socket = Socket { slot, socket, at, own: at, peer: None, outgoing, incoming, request: 0, known, last };
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
            s.sent(to, payload, around)?;
        }
        self.again[0].insert(number);
        Ok(())
    }

    /// Something has happened to a socket.
    pub fn came(&mut self, number: u32, around: &mut Around) -> Result<(), Broken> {
        let Some(s) = self.sockets.get_mut(&number) else { return Ok(()) };
        let mut more = true;
        for _ in 0..TURN {
            match rustix::net::recvfrom(&s.socket, &mut *around.buffer, RecvFlags::empty()) {
                Ok((n, _, from)) => {
                    let Some(from) = from.and_then(|a| SocketAddr::try_from(a).ok()).map(places::plain) else {
                        continue;
                    };
                    s.received(from, n, around)?;
                }
                Err(Errno::AGAIN) => {
                    more = false;
                    break;
                }
                Err(Errno::INTR) => {}
                // Of what was sent before.
                Err(why) => s.fail(why, around)?,
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
    /// Whether that end may send or be sent something: as it was found when there was something first.
    fn may(&mut self, direction: Direction, other: SocketAddr, around: &mut Around) -> bool {
        let now = around.now;
        let own = self.at.port();
        if self.known.get(&other).is_none_or(|until| *until <= now)
            && around.counters.filter.judge(direction, UDP, other.ip(), own, other.port()) == Action::Deny
        {
            return false;
        }
        if self.known.len() >= KNOWN && !self.known.contains_key(&other) {
            self.known.retain(|_, until| *until > now);
            let oldest = self.known.iter().min_by_key(|(_, until)| **until).map(|(other, _)| *other);
            oldest.filter(|_| self.known.len() >= KNOWN).and_then(|other| self.known.remove(&other));
        }
        self.known.insert(other, now + MEMORY);
        true
    }

    fn sent(&mut self, to: SocketAddr, payload: &[u8], around: &mut Around) -> Result<(), Broken> {
        if !self.may(Direction::Out, to, around) {
            self.note(to, payload);
            return self.fail(Errno::CONNREFUSED, around);
        }
        let send = |s: &Self| match s.peer {
            Some(peer) if peer == to => rustix::net::send(&s.socket, payload, SendFlags::NOSIGNAL),
            _ => rustix::net::sendto(&s.socket, payload, SendFlags::NOSIGNAL, &places::dressed(to, s.at)),
        };
        let mut done = send(self);
        if done == Err(Errno::CONNREFUSED) {
            // It is about one that was sent before: this one has not gone yet.
            self.fail(Errno::CONNREFUSED, around)?;
            done = send(self);
        }
        self.note(to, payload);
        match done {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => Ok(()),
            Err(why) => {
                around.counters.refused += 1;
                self.fail(why, around)
            }
        }
    }

    fn note(&mut self, to: SocketAddr, payload: &[u8]) {
        let (last, data) = self.last.get_or_insert_with(|| (to, Vec::new()));
        *last = to;
        data.clear();
        data.extend_from_slice(payload.get(..payload.len().min(TOLD)).unwrap_or_default());
    }

    /// So much of the buffer came from somebody.
    fn received(&mut self, from: SocketAddr, len: usize, around: &mut Around) -> Result<(), Broken> {
        if !self.may(Direction::In, from, around) {
            return Ok(());
        }
        around.received(len);
        let at = self.answers(from);
        let Some(data) = carried(UDP, (from, at), around.buffer.get(..len).unwrap_or_default()) else {
            around.counters.broken += 1;
            return Ok(());
        };
        let head = Head { from: from.ip(), to: at.ip(), protocol: UDP, hops: 64, service: 0, piece: None };
        if !packet::put(&mut self.incoming, &head.told(0, 0), &data)? {
            around.counters.no_room += 1;
        }
        Ok(())
    }

    /// The own end that somebody of the other has to do with, in the other's family.
    fn answers(&self, other: SocketAddr) -> SocketAddr {
        let ip = self.own.ip();
        let any = if other.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        SocketAddr::new(if ip.is_ipv4() == other.is_ipv4() { ip } else { any }, self.at.port())
    }

    /// Tells the Sentry that what was sent last did not arrive.
    fn fail(&mut self, why: Errno, around: &mut Around) -> Result<(), Broken> {
        let Some((remote, data)) = self.last.as_ref() else { return Ok(()) };
        let ends = Ends { protocol: UDP, local: self.answers(*remote), remote: *remote };
        datagrams::tell(ends, data, why, around)
    }
}
