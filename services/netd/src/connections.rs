//! Connections of TCP: what the Sentry wants in its slots, and what the engine makes of it.
//!
//! Owns which slot is which connection. Data goes from the Sentry's ring into the engine's buffer and back, one copy each way; who finds the other's ring full
//! asks to be told. Called by `stack` and `service`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::asking::Asking;
use crate::ip::TCP;
use crate::sentry::{Numbers, Sentry};
use crate::stack::Wire;
use crate::tap::Tap;
use cofferdam_control::netd::DOMAIN;
use cofferdam_control::rules::{Action, Direction};
use cofferdam_socket::queue::Receiver;
use cofferdam_socket::ring::{Consumer, Producer};
use cofferdam_socket::slot::{self, Operation, Slot, said, told};
use cofferdam_socket::{Broken, Side, Window, packet};
use cofferdam_tcp::{Bind, End, Engine, Flow, Id, Keepalive, Limits, ListenerId, Output, Phase, Tuning, Unreachable};
use rustix::io::Errno;

/// Packets of the Sentry's that are sent before something else gets its turn.
const TURN: usize = 256;

#[derive(Debug)]
struct Connection {
    id: Id,
    slot: Slot,
    outgoing: Consumer,
    incoming: Producer,
    /// What was told.
    told: u32,
    tuned: u32,
    /// Bytes that may wait in the Sentry's ring.
    limit: u32,
    finished: bool,
}

#[derive(Debug)]
struct Listener {
    id: ListenerId,
    slot: Slot,
    /// How many connections it was given.
    given: u32,
}

/// All of a sandbox's.
#[derive(Debug)]
pub struct Connections {
    engine: Engine,
    window: Arc<Window>,
    /// The way to the Sentry.
    pub sentry: Sentry,
    /// Packets of the Sentry's.
    packets: Consumer,
    by_slot: HashMap<u32, Connection>,
    by_id: HashMap<Id, u32>,
    listeners: HashMap<u32, Listener>,
    listeners_by_id: HashMap<ListenerId, u32>,
    numbers: Numbers,
    /// Slots that are to be looked at once more.
    again: Vec<u32>,
    /// Those to who answers for names.
    asking: Asking,
}

impl Connections {
    /// None yet.
    pub fn new(window: Arc<Window>, limits: Limits, seed: u64) -> Result<Self, Broken> {
        let (sentry, packets) = Sentry::new(&window)?;
        Ok(Self {
            engine: Engine::new(limits, seed),
            window,
            sentry,
            packets,
            by_slot: HashMap::new(),
            by_id: HashMap::new(),
            listeners: HashMap::new(),
            listeners_by_id: HashMap::new(),
            numbers: Numbers::default(),
            again: Vec::new(),
            asking: Asking::default(),
        })
    }

    /// Those to who answers for names, with what they need of the rest.
    pub fn asking(&mut self) -> (&mut Asking, &Window, &mut Sentry) {
        (&mut self.asking, &self.window, &mut self.sentry)
    }

    /// The slot of frames.
    pub fn tap(&self) -> Result<Tap, Broken> {
        Tap::new(&self.window)
    }

    /// What the engine counted, with names.
    pub fn count(&self) -> Vec<(String, u64)> {
        let c = self.engine.counters();
        [
            ("tcp_active_opens", c.active_opens),
            ("tcp_passive_opens", c.passive_opens),
            ("tcp_attempt_fails", c.attempt_fails),
            ("tcp_established_resets", c.established_resets),
            ("tcp_segments_received", c.segments_in),
            ("tcp_segments_sent", c.segments_out),
            ("tcp_segments_retransmitted", c.retransmitted),
            ("tcp_malformed", c.malformed),
            ("tcp_checksum_errors", c.checksum_errors),
            ("tcp_resets_sent", c.resets_out),
            ("tcp_resets_received", c.resets_in),
            ("tcp_syns_dropped", c.dropped_syns),
            ("tcp_half_open_dropped", c.dropped_half_open),
            ("tcp_cookies_sent", c.cookies_sent),
            ("tcp_cookies_received", c.cookies_received),
            ("tcp_time_wait_dropped", c.dropped_time_wait),
            ("tcp_connections", c.connections),
            ("tcp_half_open", c.half_open),
            ("tcp_time_wait", c.time_wait),
        ]
        .map(|(name, n)| (name.to_owned(), n))
        .to_vec()
    }

    /// When there is something to do.
    pub fn next(&self) -> Option<Instant> {
        self.engine.next()
    }

    /// Whether there is something to do at once.
    pub fn is_busy(&self) -> bool {
        !self.again.is_empty() || self.asking.is_busy()
    }

    /// Whether there is such a connection. `begins`: for a packet that begins one, for which one that is over is none.
    pub fn has(&self, flow: Flow, begins: bool) -> bool {
        self.engine.has(flow, begins)
    }

    /// A packet of TCP has come.
    pub fn receive(
        &mut self,
        raw: &[u8],
        trusted: bool,
        mtu: usize,
        now: Instant,
        out: &mut impl Output,
    ) -> Result<(), Broken> {
        self.engine.receive(raw, trusted, mtu, now, out);
        self.changes()
    }

    /// A packet did not arrive. Whether it is about something that is on its way.
    pub fn unreachable(&mut self, flow: Flow, sequence: u32, why: Unreachable) -> bool {
        self.engine.unreachable(flow, sequence, why)
    }

    /// Does what is due, and tells the Sentry of it.
    pub fn work(&mut self, now: Instant, out: &mut impl Output) -> Result<(), Broken> {
        for number in std::mem::take(&mut self.again) {
            self.pump(number)?;
        }
        self.asking.work(&self.window, &mut self.sentry)?;
        self.engine.poll(now, out);
        self.changes()
    }

    fn changes(&mut self) -> Result<(), Broken> {
        while let Some((listener, id, flow)) = self.engine.accepted() {
            self.give(listener, id, flow)?;
        }
        while let Some(id) = self.engine.changed() {
            if let Some(number) = self.by_id.get(&id).copied() {
                self.pump(number)?;
            }
        }
        Ok(())
    }

    /// A new connection of a listener goes to the Sentry.
    fn give(&mut self, listener: ListenerId, id: Id, flow: Flow) -> Result<(), Broken> {
        let number = self.numbers.take();
        let of = self.listeners_by_id.get(&listener).and_then(|n| self.listeners.get_mut(n));
        let (Some(number), Some(of)) = (number, of) else {
            number.into_iter().for_each(|n| self.numbers.give(n));
            self.engine.abort(id);
            return Ok(());
        };
        of.given = of.given.wrapping_add(1);
        let listening = of.slot;
        let pending = of.given.wrapping_sub(listening.accepted(&self.window));
        self.engine.set_pending(listener, pending as usize);
        let slot = Slot::new(&self.window, number)?;
        slot.begin(&self.window, listening.number(), flow.local, flow.remote);
        self.enter(slot, id, told::NEW | told::CONNECTED);
        self.sentry.tell(&slot)?;
        self.pump(number)
    }

    fn enter(&mut self, slot: Slot, id: Id, told: u32) {
        let (incoming, outgoing) = slot.rings(&self.window, Side::Netd);
        let connection = Connection { id, slot, outgoing, incoming, told, tuned: 0, limit: u32::MAX, finished: false };
        self.by_slot.insert(slot.number(), connection);
        self.by_id.insert(id, slot.number());
    }

    /// Sends packets of the Sentry's: so many, that something else gets its turn. Whether there are more.
    pub fn send_packets(&mut self, wire: &mut Wire) -> Result<bool, Broken> {
        let mut more = true;
        for _ in 0..TURN {
            match packet::take(&mut self.packets)? {
                Some((head, data)) => wire.send_packet(&head, data),
                None => {
                    more = false;
                    break;
                }
            }
        }
        self.sentry.has_room(&self.window)?;
        Ok(more)
    }

    /// The Sentry says that something is to be done in a slot.
    pub fn asked(&mut self, slot: Slot, now: Instant, wire: &mut Wire) -> Result<(), Broken> {
        let number = slot.number();
        if self.by_slot.contains_key(&number) {
            return self.pump(number);
        }
        if self.asking.has(number) {
            return self.asking.pump(number, &self.window, &mut self.sentry);
        }
        if let Some(listener) = self.listeners.get(&number) {
            let (id, said) = (listener.id, slot.said(&self.window));
            if said & said::CLOSED != 0 {
                self.listeners.remove(&number);
                self.listeners_by_id.remove(&id);
                self.engine.unlisten(id);
                slot.release(&self.window);
                return self.sentry.tell(&slot);
            }
            let pending = listener.given.wrapping_sub(slot.accepted(&self.window));
            self.engine.set_pending(id, pending as usize);
            let (_, _, _, backlog) = slot.wanted(&self.window)?;
            self.engine.set_backlog(id, backlog as usize);
            return Ok(());
        }
        // Of netd's own only those that are in use mean something.
        if slot.is_netds() {
            return Ok(());
        }
        if slot.is_released(&self.window) {
            // It came to nothing at once; when the Sentry is done with it, too, it is free.
            return if slot.said(&self.window) & said::CLOSED != 0 { self.sentry.tell(&slot) } else { Ok(()) };
        }
        self.begin(slot, now, wire)
    }

    fn begin(&mut self, slot: Slot, now: Instant, wire: &mut Wire) -> Result<(), Broken> {
        let (what, local, remote, backlog) = slot.wanted(&self.window)?;
        let (tuned, tuning) = slot.tuning(&self.window);
        let (tuning, limit) = (tuning_of(tuning), limit_of(tuning));
        let may = what == Operation::Listen
            || wire.filter.judge(Direction::Out, TCP, remote.ip(), local.port(), remote.port()) == Action::Allow;
        let done = match what {
            // As where nobody is: so a host refuses what may not leave it.
            _ if !may => Err(Errno::CONNREFUSED.raw_os_error()),
            Operation::Listen => self.listen(local, backlog, tuning).map_err(refusal).map(|id| {
                self.listeners_by_id.insert(id, slot.number());
                self.listeners.insert(slot.number(), Listener { id, slot, given: 0 });
            }),
            Operation::Connect if wire.names.is_meant(remote.ip()) => {
                let asks = Some(()).filter(|()| remote.port() == DOMAIN).ok_or(Errno::CONNREFUSED);
                asks.and_then(|()| self.asking.begin(slot, &self.window)).map_err(Errno::raw_os_error)
            }
            Operation::Connect => {
                let begun = self.engine.connect(Flow { local, remote }, wire.mtu(remote.ip()), tuning, now);
                begun.map_err(refusal).map(|id| {
                    self.enter(slot, id, 0);
                    if let Some(c) = self.by_slot.get_mut(&slot.number()) {
                        c.tuned = tuned;
                        c.limit = limit;
                    }
                })
            }
            Operation::Bind | Operation::Datagrams => return Err(Broken("a place of the host's is asked of none")),
        };
        match done {
            Ok(()) if what == Operation::Connect => self.pump(slot.number()),
            Ok(()) => Ok(()),
            Err(e) => {
                slot.set_error(&self.window, e);
                slot.tell(&self.window, told::FAILED | told::OVER | told::RELEASED);
                self.sentry.tell(&slot)
            }
        }
    }

    fn listen(&mut self, at: SocketAddr, backlog: u32, tuning: Tuning) -> Result<ListenerId, cofferdam_tcp::Error> {
        let bind = match at.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Bind::V4,
            IpAddr::V6(ip) if ip.is_unspecified() => Bind::V6,
            ip => Bind::To(ip),
        };
        self.engine.listen(bind, at.port(), backlog as usize, tuning)
    }

    /// Moves what can be moved of a connection, and tells the Sentry what it may want to know.
    fn pump(&mut self, number: u32) -> Result<(), Broken> {
        let Some(c) = self.by_slot.get_mut(&number) else { return Ok(()) };
        let w = &self.window;
        let said = c.slot.said(w);
        let (tuned, tuning) = c.slot.tuning(w);
        if tuned != c.tuned {
            c.tuned = tuned;
            c.limit = limit_of(tuning);
            self.engine.tune(c.id, tuning_of(tuning));
        }
        let mut news = false;
        if said & said::RESET != 0 && said & said::CLOSED != 0 {
            self.engine.abort(c.id);
            return self.end(number);
        }
        // Out.
        let mut broken = None;
        let mut moved = 0;
        while c.outgoing.available()? > 0 {
            let outgoing = &mut c.outgoing;
            let n = self.engine.send(c.id, |room| {
                outgoing.take(room).unwrap_or_else(|e| {
                    broken = Some(e);
                    0
                })
            });
            if n == 0 {
                break;
            }
            moved += n;
        }
        if let Some(e) = broken {
            return Err(e);
        }
        let left = c.outgoing.available()?;
        if moved > 0 && c.slot.was_waited_for(w, Side::Sentry) {
            news = true;
        }
        if said & (said::FINISHED | said::CLOSED) != 0 && left == 0 && !c.finished {
            c.finished = true;
            self.engine.finish(c.id);
        }
        // In.
        loop {
            let incoming = &mut c.incoming;
            let mut broken = None;
            let room = c.limit.saturating_sub(incoming.used()?) as usize;
            let n = self.engine.recv(c.id, |bytes| {
                let some = bytes.get(..room).unwrap_or(bytes);
                incoming.put_some(some).unwrap_or_else(|e| {
                    broken = Some(e);
                    0
                })
            });
            if let Some(e) = broken {
                return Err(e);
            }
            if n == 0 {
                break;
            }
            news = true;
        }
        let look = self.engine.look(c.id);
        let over = look.as_ref().is_none_or(|l| l.phase == Phase::Closed);
        if let Some(look) = &look {
            let is_full = |c: &Connection| Ok(c.incoming.room()? == 0 || c.incoming.used()? >= c.limit);
            // Whether or not there is room by now: what was left over found none.
            if look.unread > 0 {
                c.slot.wait_for_room(w, Side::Netd);
                // It may have made room before it could know.
                if !is_full(c)? && c.slot.was_waited_for(w, Side::Netd) {
                    self.again.push(number);
                }
            }
            let unsent = u32::try_from(look.unacknowledged).unwrap_or(u32::MAX).saturating_add(left);
            let rtt = look.round_trip.map_or(0, |(d, _)| u32::try_from(d.as_micros()).unwrap_or(u32::MAX));
            c.slot.set_progress(w, unsent, rtt);
            c.slot.set_mtu(w, u32::try_from(look.mtu).unwrap_or(0));
        }
        let mut told = c.told;
        if look.as_ref().is_some_and(|l| l.phase != Phase::Connecting && l.end.is_none()) {
            told |= told::CONNECTED;
        }
        if look.as_ref().is_some_and(|l| l.ended && l.unread == 0) {
            told |= told::FINISHED;
        }
        if over && look.as_ref().is_none_or(|l| l.unread == 0) {
            told |= told::OVER;
            if let Some((end, four)) = look.as_ref().and_then(|l| Some((l.end?, l.flow.remote.is_ipv4()))) {
                c.slot.set_error(w, number_of(end, four));
                told |= told::FAILED;
            }
        }
        if told != c.told {
            c.told = told;
            c.slot.tell(w, told);
            news = true;
        }
        let slot = c.slot;
        // Nobody has it any more: what is left is the engine's business. A connection whose data the engine has not taken yet is kept.
        if said & said::CLOSED != 0 && (left == 0 || over) {
            return self.end(number);
        }
        if news && said & said::CLOSED == 0 {
            self.sentry.tell(&slot)?;
        }
        Ok(())
    }

    /// The slot is free for another.
    fn end(&mut self, number: u32) -> Result<(), Broken> {
        let Some(c) = self.by_slot.remove(&number) else { return Ok(()) };
        self.by_id.remove(&c.id);
        self.engine.detach(c.id);
        if c.slot.is_netds() {
            c.slot.forget(&self.window);
            self.numbers.give(number);
            return Ok(());
        }
        c.slot.release(&self.window);
        self.sentry.tell(&c.slot)
    }

    /// The receiver of what the Sentry asks.
    pub fn queue(window: &Arc<Window>) -> Receiver {
        Receiver::new(window.clone(), Side::Netd)
    }
}

/// Bytes that may wait in the Sentry's ring: as many as may in the engine.
fn limit_of(t: slot::Tuning) -> u32 {
    if t.receive_buffer == 0 { u32::MAX } else { t.receive_buffer }
}

fn tuning_of(t: slot::Tuning) -> Tuning {
    Tuning {
        nodelay: t.nodelay,
        keepalive: (t.keepalive > 0).then(|| {
            let mut keepalive = Keepalive::after(Duration::from_secs(t.keepalive.into()));
            if t.keepalive_interval > 0 {
                keepalive.interval = Duration::from_secs(t.keepalive_interval.into());
            }
            if t.keepalive_probes > 0 {
                keepalive.probes = t.keepalive_probes;
            }
            keepalive
        }),
        user_timeout: (t.user_timeout > 0).then(|| Duration::from_millis(t.user_timeout.into())),
        hop_limit: if t.hops == 0 { 64 } else { t.hops },
        traffic_class: t.service,
        largest_segment: (t.largest_segment > 0).then_some(t.largest_segment),
        receive_buffer: (t.receive_buffer > 0).then_some(t.receive_buffer as usize),
        send_buffer: (t.send_buffer > 0).then_some(t.send_buffer as usize),
    }
}

/// The number of the error that a program is told.
fn number_of(end: End, four: bool) -> i32 {
    let errno = match end {
        End::Refused => Errno::CONNREFUSED,
        End::Reset => Errno::CONNRESET,
        End::TimedOut => Errno::TIMEDOUT,
        End::Unreachable(Unreachable::Icmp { kind, code }) => match (four, kind, code) {
            (true, 3, 0 | 5 | 6 | 9 | 11) | (false, 1, 0) => Errno::NETUNREACH,
            (true, 3, 3) | (false, 1, 4) => Errno::CONNREFUSED,
            (true, 3, 2) => Errno::NOPROTOOPT,
            (false, 1, 1 | 5 | 6) => Errno::ACCESS,
            _ => Errno::HOSTUNREACH,
        },
        End::Unreachable(_) => Errno::HOSTUNREACH,
    };
    errno.raw_os_error()
}

/// The engine's error where something cannot be begun.
fn refusal(e: cofferdam_tcp::Error) -> i32 {
    use cofferdam_tcp::Error;
    let errno = match e {
        Error::Address => Errno::INVAL,
        Error::InUse => Errno::ADDRNOTAVAIL,
        Error::Full => Errno::NOBUFS,
    };
    errno.raw_os_error()
}
