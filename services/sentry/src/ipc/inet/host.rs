//! Sockets in the host's own network (`podman --network=host`): their addresses and ports are the host's to give.
//!
//! netd has a socket of the host's for each; here is what one of ours has of it: a slot by which a place is asked for ([`Place`]), and for datagrams the
//! rings that they go by. Who binds, listens or connects datagrams waits for netd's answer: EAGAIN until it is there, and the same is done again. Nothing
//! stays within, as programs of the host may be at loopback addresses, too. A connection, once begun, is as one to elsewhere (`remote`).
//! Called by the calls of sockets, by `tcp` and `udp`, and by the thread that hears netd (`net`).

use std::net::IpAddr;
use std::sync::Arc;

use cofferdam_socket::packet;
use cofferdam_socket::slot::{Binding, Operation, Slot, said};

use super::address::{Domain, Endpoint};
use super::tcp::Phase;
use super::udp::Along;
use super::{Inet, Kind, State, options};
use crate::errno::Errno;
use crate::ipc::netlink::INDEX;
use crate::net::{Outside, Rings, Wire};
use crate::wait::PollMask;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// An address and a port, or one that the host chooses.
    Bind(Endpoint),
    /// To listen there, with that backlog.
    Listen(usize),
    /// Datagrams to and from there only; or anybody again.
    Peer(Option<Endpoint>),
}

/// A place that was asked for.
pub(super) struct Place {
    wire: Arc<Wire>,
    rings: Rings,
    /// The last request, and what it was, while somebody waits for the answer.
    request: u32,
    asked: Option<Asked>,
}

impl Place {
    /// Nobody has it any more.
    pub(super) fn close(self) {
        self.rings.slot.say(self.wire.window(), said::CLOSED);
        self.wire.leave(&self.rings.slot);
    }

    /// Its slot becomes another's.
    pub(super) fn into_slot(self) -> (Arc<Wire>, Rings) {
        (self.wire, self.rings)
    }

    /// The answer to the last request: where it is. `None`: there is none yet; ENETDOWN: there will be none.
    fn answer(&self) -> Option<Result<Endpoint, Errno>> {
        match self.rings.slot.answered(self.wire.window(), self.request) {
            Some(Ok(Ok(local))) => Some(Ok(local.into())),
            Some(Ok(Err(why))) => Some(Err(Errno::from_host(why))),
            Some(Err(broken)) => {
                self.wire.lose(broken);
                Some(Err(Errno::ENETDOWN))
            }
            None if self.wire.is_lost() => Some(Err(Errno::ENETDOWN)),
            None => None,
        }
    }
}

/// No address in particular, of the family of another.
fn any(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { Domain::V4.any() } else { Domain::V6.any() }
}

impl State {
    /// What counts of it for the host.
    fn binding(&self, only_v6: bool) -> Binding {
        let switch = |option| self.options.switch(option);
        Binding { reuse: switch(options::REUSEADDR), reuseport: switch(options::REUSEPORT), only_v6 }
    }

    /// The address and port that it asks for by itself: those that it has.
    fn wanted(&self, domain: Domain) -> Endpoint {
        let any = Endpoint { ip: domain.any(), port: 0 };
        let [ip_stays, _] = self.bound;
        match self.local {
            Some(local) if self.holds => Endpoint { ip: if ip_stays { local.ip } else { any.ip }, ..local },
            Some(local) if ip_stays => Endpoint { port: 0, ..local },
            _ => any,
        }
    }
}

impl Inet {
    /// The outside, if this is a socket in the host's own network.
    pub fn host(&self) -> Option<&Arc<Outside>> {
        let ports = matches!(self.kind, Kind::Tcp | Kind::Udp);
        self.net.outside().filter(|o| ports && o.network.host)
    }

    /// The outside, if something for there goes by it.
    pub(super) fn away(&self, to: IpAddr) -> Option<&Arc<Outside>> {
        self.host().or_else(|| self.net.outside().filter(|_| !self.is_own(to)))
    }

    /// Asks netd for something, in the slot that it has or in a new one.
    fn ask(
        self: &Arc<Self>,
        s: &mut State,
        what: Operation,
        (local, remote): (Endpoint, Option<Endpoint>),
        backlog: usize,
        asked: Option<Asked>,
    ) -> Result<(), Errno> {
        let outside = self.host().ok_or(Errno::ENETDOWN)?;
        let binding = s.binding(self.is_v6only(s));
        let (local, remote) = (local.into(), remote.map(Into::into));
        let backlog = u32::try_from(backlog).unwrap_or(u32::MAX);
        if s.place.as_ref().is_some_and(|p| p.wire.is_lost()) {
            s.place = None;
        }
        if s.place.is_none() {
            let (wire, tuning) = (outside.wire(), s.tuning(&self.net.settings));
            let Some(rings) = wire.take(self, what, local, remote, backlog, tuning) else {
                return Err(if wire.is_lost() { Errno::ENETDOWN } else { Errno::ENOBUFS });
            };
            s.place = Some(Place { wire, rings, request: 0, asked: None });
        }
        let Some(place) = &mut s.place else { return Err(Errno::ENETDOWN) };
        let window = place.wire.window();
        place.request = place.rings.slot.ask(window, what, (local, remote), backlog, binding);
        place.asked = asked;
        // Of a connection netd is told once the socket is ready for its news.
        if what != Operation::Connect {
            place.wire.tell(&place.rings.slot);
        }
        Ok(())
    }

    /// Asks for something and waits for the answer. EAGAIN: it is not there yet, and this is to be called again with the same.
    pub fn settle(self: &Arc<Self>, wanted: Asked) -> Result<(), Errno> {
        let mut s = self.state.lock();
        if let Some((asked, place)) = s.place.as_ref().and_then(|p| Some((p.asked?, p))) {
            let answer = place.answer().ok_or(Errno::EAGAIN)?;
            drop(s);
            let done = self.answered(asked, answer);
            if asked == wanted {
                return done;
            }
            s = self.state.lock();
        }
        let own = s.wanted(self.domain);
        let closed = s.tcp.is_closed();
        let (what, ends, backlog) = match wanted {
            Asked::Bind(_) if s.holds || !closed || !self.kind.is_stream() && s.peer.is_some() => {
                return Err(Errno::EINVAL);
            }
            Asked::Bind(to) if to.port == 0 && s.values.get(options::IP, options::BIND_ADDRESS_NO_PORT) != 0 => {
                s.local = Some(to);
                s.bound = [!to.ip.is_unspecified(), false];
                return Ok(());
            }
            Asked::Bind(to) if self.kind.is_stream() => (Operation::Bind, (to, None), 0),
            Asked::Bind(to) => (Operation::Datagrams, (to, None), 0),
            Asked::Listen(backlog) => (Operation::Listen, (own, None), backlog),
            Asked::Peer(peer) => (Operation::Datagrams, (own, peer), 0),
        };
        self.ask(&mut s, what, ends, backlog, Some(wanted))?;
        Err(Errno::EAGAIN)
    }

    /// There is the answer to what somebody waits for.
    fn answered(self: &Arc<Self>, asked: Asked, answer: Result<Endpoint, Errno>) -> Result<(), Errno> {
        let place = {
            let mut s = self.state.lock();
            let Some(place) = s.place.as_mut().filter(|p| p.asked == Some(asked)) else { return Err(Errno::EAGAIN) };
            place.asked = None;
            // One of datagrams that could not have another end has its place still.
            let keeps = answer.is_ok() || matches!(asked, Asked::Peer(_)) && s.holds;
            if keeps { None } else { s.place.take() }
        };
        if let Some(place) = place {
            place.close();
        }
        let local = answer?;
        self.is_at(local);
        let mut s = self.state.lock();
        match asked {
            Asked::Bind(to) => s.bound = [!to.ip.is_unspecified(), to.port != 0],
            Asked::Listen(backlog) => {
                s.tcp.phase = Phase::Listen;
                s.tcp.backlog = backlog;
                s.shut = [false; 2];
                if let Some(place) = s.place.take() {
                    s.tcp.doors.add(place.into_slot());
                }
            }
            Asked::Peer(peer) => s.peer = peer,
        }
        Ok(())
    }

    /// It has that address and port now.
    fn is_at(self: &Arc<Self>, local: Endpoint) {
        let mut table = self.net.ports(self.kind).lock();
        let mut s = self.state.lock();
        let before = s.local.filter(|_| s.holds);
        s.local = Some(local);
        s.holds = true;
        if before.is_none_or(|b| b.port != local.port) {
            if let Some(before) = before {
                table.free(self.id, before.port);
            }
            table.take(self, local.port);
        }
    }

    /// Whether its address and port are known; EAGAIN while netd has been asked and has not said so.
    pub fn is_settled(self: &Arc<Self>) -> Result<(), Errno> {
        let answer = {
            let s = self.state.lock();
            match (&s.place, s.holds) {
                // Who waits for it takes the answer.
                (Some(place), false) if place.asked.is_none() => place.answer(),
                (None, false) if s.tcp.is_connecting() => s.tcp.remote.as_ref().and_then(|r| r.place()),
                _ => return Ok(()),
            }
        };
        match answer {
            Some(Ok(local)) => self.is_at(local),
            Some(Err(_)) => {}
            None => return Err(Errno::EAGAIN),
        }
        Ok(())
    }

    /// netd has news of a place of this socket's; whether it is one.
    pub(super) fn place_news(self: &Arc<Self>, slot: &Slot) -> bool {
        let awaited = {
            let s = self.state.lock();
            let Some(place) = s.place.as_ref().filter(|p| p.rings.slot == *slot) else { return false };
            place.asked.is_some() || !s.holds
        };
        if awaited {
            // Who waits for it takes the answer; nobody does for the port of a socket that just sends.
            let _ = self.is_settled();
            self.queue.wake(PollMask::OUT | PollMask::WRNORM);
        }
        self.receive();
        true
    }

    /// Takes the datagrams that came.
    fn receive(&self) {
        loop {
            let mut s = self.state.lock();
            let Some(place) = &mut s.place else { return };
            let (head, data) = match packet::take(&mut place.rings.incoming) {
                Ok(Some(one)) => one,
                Ok(None) => return,
                Err(broken) => return place.wire.lose(broken),
            };
            drop(s);
            if let Some((data, along)) = self.came(&head, data) {
                self.udp_take(data, along);
            }
        }
    }

    /// A datagram that came, with what comes with it.
    fn came(&self, head: &packet::Head, mut data: Vec<u8>) -> Option<(Vec<u8>, Along)> {
        let port = u16::from_be_bytes(*data.first_chunk()?);
        data.drain(..8.min(data.len()));
        let to = if head.to.is_unspecified() { self.net.source(head.from, 0).unwrap_or(head.to) } else { head.to };
        let device = if head.interface == 0 { INDEX } else { head.interface };
        let from = Endpoint { ip: head.from, port };
        let (ttl, tos) = (head.hops, head.service);
        let time = crate::time::now(crate::time::Clock::Realtime);
        Some((data, Along { from, to, ttl, tos, time, device }))
    }

    /// Has a place for datagrams asked for, unless there is one; nobody waits.
    pub(super) fn settle_soon(self: &Arc<Self>) -> Result<(), Errno> {
        let mut s = self.state.lock();
        if s.place.as_ref().is_some_and(|p| !p.wire.is_lost()) {
            return Ok(());
        }
        let (own, peer) = (s.wanted(self.domain), s.peer);
        self.ask(&mut s, Operation::Datagrams, (own, peer), 0, None)
    }

    /// Sends a datagram from its place. What has no room is lost.
    pub(super) fn send_from_place(&self, p: &super::raw::Packet) {
        let head = packet::Head {
            // Both are of one family; from none in particular it is the host who says from which.
            from: if p.to.is_ipv4() == p.from.is_ipv4() { p.from } else { any(p.to) },
            to: p.to,
            protocol: p.protocol,
            hops: p.ttl,
            service: p.tos,
            flags: 0,
            interface: 0,
            mtu: 0,
        };
        let mut s = self.state.lock();
        let Some(place) = &mut s.place else { return };
        match packet::put(&mut place.rings.outgoing, &head, &p.data) {
            Ok(true) => {}
            Ok(false) => crate::namespaces::net::count(&self.net.counts.lost),
            Err(broken) => return place.wire.lose(broken),
        }
        place.wire.tell(&place.rings.slot);
    }

    /// Another netd is there: a socket that had a place asks for it once more.
    pub fn settle_anew(self: &Arc<Self>) {
        if self.host().is_some() && self.kind == Kind::Udp && self.settle_soon().is_err() {
            tracing::warn!("a socket of datagrams has no place with the new netd");
        }
    }

    /// Listens where it did before, by another netd.
    pub(super) fn listen_anew(self: &Arc<Self>, backlog: usize) {
        let mut s = self.state.lock();
        let own = s.wanted(self.domain);
        if self.ask(&mut s, Operation::Listen, (own, None), backlog, None).is_ok()
            && let Some(place) = s.place.take()
        {
            s.tcp.doors.add(place.into_slot());
        }
    }

    /// Notes where a connection goes that the host gives an address and a port, unless the socket has them. ENETUNREACH, EAFNOSUPPORT.
    pub(super) fn goes_to(&self, to: Endpoint) -> Result<(), Errno> {
        let mut s = self.state.lock();
        let own = s.wanted(self.domain);
        if !own.ip.is_unspecified() {
            super::check_family(own.ip, to.ip)?;
        }
        s.tcp.chosen |= !s.holds;
        s.peer = Some(to);
        Ok(())
    }

    /// The slot of a connection, in the place that the socket has; netd is not told yet. EADDRNOTAVAIL, ENETDOWN.
    pub(super) fn connect_place(self: &Arc<Self>) -> Result<(Arc<Wire>, Rings), Errno> {
        let mut s = self.state.lock();
        let (own, to) = (s.wanted(self.domain), s.peer.ok_or(Errno::EINVAL)?);
        // Its family is that of whom it goes to, unless it has a place.
        let own = if own.ip.is_unspecified() && s.place.is_none() && own.port == 0 {
            Endpoint { ip: any(to.ip), port: 0 }
        } else {
            own
        };
        let asked = self.ask(&mut s, Operation::Connect, (own, Some(to)), 0, None);
        asked.map_err(|e| if e == Errno::ENOBUFS { Errno::EADDRNOTAVAIL } else { e })?;
        s.place.take().map(Place::into_slot).ok_or(Errno::ENETDOWN)
    }
}
