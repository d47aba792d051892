//! The engine: which connection a packet, a timer or a call is for.
//!
//! Owns the table of four-tuples, the timers and the queues of what its caller is to know. Called by netd.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::congestion::NEVER;
use crate::connection::{Birth, CHALLENGE, Connection, Owner, Peer, Stage, Stamps, Works, sane_mtu};
use crate::handshake::{COOKIES, Half, Halves, RETRIES, cookie, redeem};
use crate::keyed::{Key, Secret};
use crate::listeners::Listeners;
use crate::live::mss_of;
use crate::segment::{ACK, Draft, FIN, Fault, RST, SYN, Segment, after};
use crate::slab::Slab;
use crate::waiting::{TIME_WAIT, Waiting, Waits};
use crate::{Bind, Counters, Error, Flow, Id, Limits, ListenerId, Look, Output, Phase, Tuning, Unreachable};

/// What a four-tuple is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Connection(u32),
    Half(u32),
    Waiting(u32),
}

/// Timers of half-open handshakes have this bit.
const HALF: u32 = 1 << 31;
/// RSTs that wait to be sent.
const RESETS: usize = 4096;

/// See the crate.
#[derive(Debug)]
pub struct Engine {
    works: Works,
    table: HashMap<Key, Entry, Secret>,
    connections: Slab<Connection>,
    listeners: Listeners,
    halves: Halves,
    waits: Waits,
    /// (time, connection or half-open handshake).
    timers: BTreeSet<(u64, u32)>,
    /// Connections with something to send, or to be looked at.
    dirty: VecDeque<(u32, u32)>,
    resets: VecDeque<Draft>,
    changed: VecDeque<(u32, u32)>,
    accepted: VecDeque<(u32, u32)>,
    orphans: usize,
    /// The last turn ended because there was no room.
    stuck: bool,
    sequence: Secret,
    cookies: Secret,
    epoch: Option<Instant>,
    now: u64,
}

impl Engine {
    /// An engine with nothing in it. `seed` must be one that nobody can guess.
    pub fn new(limits: Limits, seed: u64) -> Self {
        Engine {
            works: Works {
                counters: Counters::default(),
                limits,
                packet: Vec::with_capacity(65_535),
                spare: Vec::new(),
            },
            table: HashMap::with_hasher(Secret::new(seed, 1)),
            connections: Slab::new(),
            listeners: Listeners::new(Secret::new(seed, 2), limits.listeners),
            halves: Halves::new(limits.half_open),
            waits: Waits::new(limits.time_wait),
            timers: BTreeSet::new(),
            dirty: VecDeque::new(),
            resets: VecDeque::new(),
            changed: VecDeque::new(),
            accepted: VecDeque::new(),
            orphans: 0,
            stuck: false,
            sequence: Secret::new(seed, 3),
            cookies: Secret::new(seed, 4),
            epoch: None,
            now: 0,
        }
    }

    /// Microseconds since a second before the first time that was told; never back.
    fn clock(&mut self, now: Instant) -> u64 {
        let epoch = *self.epoch.get_or_insert(now);
        let since = now.checked_duration_since(epoch).unwrap_or_default();
        let micros = u64::try_from(since.as_micros()).unwrap_or(NEVER / 4).min(NEVER / 4);
        self.now = self.now.max(micros.saturating_add(1_000_000));
        self.now
    }

    /// RFC 6528: a hash of the four-tuple and a clock of 4 us.
    fn initial(&self, key: &Key) -> u32 {
        (self.sequence.hash(&key.words()) as u32).wrapping_add((self.now / 4) as u32)
    }

    /// Where the timestamps of a connection begin.
    fn stamp_offset(&self, key: &Key) -> u32 {
        (self.sequence.hash(&key.words()) >> 32) as u32
    }

    // Listeners.

    /// Listens. Several may at one address and port: the peer's address chooses (SO_REUSEPORT; whether that is allowed is the caller's).
    pub fn listen(&mut self, bind: Bind, port: u16, backlog: usize, tuning: Tuning) -> Result<ListenerId, Error> {
        self.listeners.add(bind, port, backlog, tuning)
    }

    /// Sets the backlog.
    pub fn set_backlog(&mut self, listener: ListenerId, backlog: usize) {
        if let Some(listener) = self.listeners.get_mut(listener) {
            listener.backlog = backlog;
        }
    }

    /// Sets what its connections begin with.
    pub fn set_listener_tuning(&mut self, listener: ListenerId, tuning: Tuning) {
        if let Some(listener) = self.listeners.get_mut(listener) {
            listener.tuning = tuning;
        }
    }

    /// How many connections that `accepted` handed over the program has not accepted yet. While that is more than the backlog, SYNs are
    /// dropped, and the third step of a handshake is.
    pub fn set_pending(&mut self, listener: ListenerId, pending: usize) {
        if let Some(listener) = self.listeners.get_mut(listener) {
            listener.pending = pending;
        }
    }

    /// Ends a listener: its handshakes are forgotten, connections that were not handed over are reset.
    pub fn unlisten(&mut self, listener: ListenerId) {
        if !self.listeners.remove(listener) {
            return;
        }
        for index in self.halves.of(listener) {
            self.remove_half(index);
        }
        let queue = std::mem::take(&mut self.accepted);
        for (index, generation) in queue {
            let of = self.connections.get(index).map(|c| c.owner);
            if self.connections.is(index, generation) && of == Some(Owner::Listener(listener)) {
                self.drop_connection(index, true);
            } else {
                self.accepted.push_back((index, generation));
            }
        }
    }

    // Connections.

    /// Begins a connection; its SYN leaves with the next `poll`. Every `Id` that this or `accepted` gave is to be given back: `detach`, `abort`.
    pub fn connect(&mut self, flow: Flow, mtu: usize, tuning: Tuning, now: Instant) -> Result<Id, Error> {
        let now = self.clock(now);
        let canonical = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
        let flow = Flow { local: canonical(flow.local), remote: canonical(flow.remote) };
        let nobody =
            |ip: IpAddr| ip.is_unspecified() || ip.is_multicast() || matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
        if flow.local.is_ipv4() != flow.remote.is_ipv4()
            || flow.local.port() == 0
            || flow.remote.port() == 0
            || nobody(flow.local.ip())
            || nobody(flow.remote.ip())
        {
            return Err(Error::Address);
        }
        let key = Key::new(flow.local, flow.remote);
        if self.connections.len() >= self.works.limits.connections {
            return Err(Error::Full);
        }
        let mut initial = self.initial(&key);
        match self.table.get(&key) {
            Some(Entry::Connection(_)) => return Err(Error::InUse),
            Some(&Entry::Half(index)) => self.remove_half(index),
            Some(&Entry::Waiting(index)) => {
                // As a new connection to us would be: numbers that the old one has not used.
                if let Some(wait) = self.waits.remove(index) {
                    let least = wait.next.wrapping_add(65_537);
                    initial = if after(least, initial) { least } else { initial };
                }
                self.table.remove(&key);
            }
            None => {}
        }
        let stamp_offset = self.stamp_offset(&key);
        let birth = Birth { flow, owner: Owner::Held, tuning, mtu, initial, stamp_offset, now };
        let mut connection = Connection::connecting(&birth);
        connection.known = true;
        let (index, generation) = self.connections.insert(connection);
        self.table.insert(key, Entry::Connection(index));
        let counters = &mut self.works.counters;
        counters.active_opens = counters.active_opens.saturating_add(1);
        self.mark(index);
        Ok(Id { index, generation })
    }

    fn connection(&mut self, id: Id) -> Option<&mut Connection> {
        if self.connections.is(id.index, id.generation) { self.connections.get_mut(id.index) } else { None }
    }

    /// Gives `f` a contiguous part of what came; it answers how much of it it took, which is answered. Call it again for more.
    pub fn recv(&mut self, id: Id, f: impl FnOnce(&[u8]) -> usize) -> usize {
        if !self.connections.is(id.index, id.generation) {
            return 0;
        }
        let Some(connection) = self.connections.get_mut(id.index) else { return 0 };
        let taken = connection.recv(f, &mut self.works);
        if taken > 0 {
            self.mark(id.index);
        }
        taken
    }

    /// Gives `f` a contiguous place for what is to be sent; it answers how much of it it filled, which is answered. Call it again for more.
    pub fn send(&mut self, id: Id, f: impl FnOnce(&mut [u8]) -> usize) -> usize {
        if !self.connections.is(id.index, id.generation) {
            return 0;
        }
        let Some(connection) = self.connections.get_mut(id.index) else { return 0 };
        let put = connection.send(f, &mut self.works);
        if put > 0 {
            self.mark(id.index);
        }
        put
    }

    /// A FIN goes after what `send` took.
    pub fn finish(&mut self, id: Id) {
        if !self.connections.is(id.index, id.generation) {
            return;
        }
        if let Some(connection) = self.connections.get_mut(id.index) {
            connection.finish();
            self.mark(id.index);
        }
    }

    /// Ends a connection with a RST, if the peer knows of it, and gives the `Id` back.
    pub fn abort(&mut self, id: Id) {
        if self.connections.is(id.index, id.generation) {
            self.drop_connection(id.index, true);
        }
    }

    /// Gives the `Id` back. What is queued is still sent, then FIN; the connection ends by itself, in time. With bytes that nobody has read,
    /// or as one too many, it is reset, as by Linux.
    pub fn detach(&mut self, id: Id) {
        if !self.connections.is(id.index, id.generation) {
            return;
        }
        let many = self.orphans >= self.works.limits.orphans;
        let Some(connection) = self.connections.get_mut(id.index) else { return };
        match connection.stage {
            Stage::Connecting { .. } | Stage::Over => self.drop_connection(id.index, true),
            Stage::Open if connection.unread() > 0 || many => self.drop_connection(id.index, true),
            Stage::Open => {
                connection.owner = Owner::Nobody;
                connection.orphan = true;
                self.orphans = self.orphans.saturating_add(1);
                connection.finish();
                self.mark(id.index);
            }
        }
    }

    /// Sets what may be set of a connection.
    pub fn tune(&mut self, id: Id, tuning: Tuning) {
        if let Some(connection) = self.connection(id) {
            connection.tune(tuning);
            self.mark(id.index);
        }
    }

    /// Looks at a connection.
    pub fn look(&self, id: Id) -> Option<Look> {
        if !self.connections.is(id.index, id.generation) {
            return None;
        }
        Some(self.connections.get(id.index)?.look(&self.works))
    }

    /// The next one in which something happened: established, readable, room again after there was none, end, error. Each once, until
    /// something happens again.
    pub fn changed(&mut self) -> Option<Id> {
        while let Some((index, generation)) = self.changed.pop_front() {
            if self.connections.is(index, generation)
                && let Some(connection) = self.connections.get_mut(index)
            {
                connection.told = false;
                if connection.owner == Owner::Held {
                    return Some(Id { index, generation });
                }
            }
        }
        None
    }

    /// The next connection that a peer began. It may have ended already, and there may be bytes.
    pub fn accepted(&mut self) -> Option<(ListenerId, Id, Flow)> {
        while let Some((index, generation)) = self.accepted.pop_front() {
            if !self.connections.is(index, generation) {
                continue;
            }
            let Some(connection) = self.connections.get_mut(index) else { continue };
            let Owner::Listener(listener) = connection.owner else { continue };
            connection.owner = Owner::Held;
            let flow = connection.flow;
            if let Some(listener) = self.listeners.get_mut(listener) {
                listener.queued = listener.queued.saturating_sub(1);
            }
            return Some((listener, Id { index, generation }, flow));
        }
        None
    }

    /// Counts.
    pub fn counters(&self) -> Counters {
        let mut counters = self.works.counters;
        counters.connections = self.connections.len() as u64;
        counters.half_open = self.halves.len() as u64;
        counters.time_wait = self.waits.len() as u64;
        counters
    }

    /// Whether there is such a connection, or a handshake. `begins`: for a packet that begins one, for which what is in TIME_WAIT is none.
    pub fn has(&self, flow: Flow, begins: bool) -> bool {
        match self.table.get(&Key::new(flow.local, flow.remote)) {
            Some(Entry::Connection(_) | Entry::Half(_)) => true,
            Some(Entry::Waiting(_)) => !begins,
            None => false,
        }
    }

    // Packets.

    /// A packet came whose protocol is TCP; up to 64 KiB (GRO). `trusted`: the device vouches for the TCP checksum. `mtu`: of the interface.
    /// What is to be sent for it leaves with the next `poll`, so that several packets may be answered at once; only what must be
    /// answered for itself leaves here.
    pub fn receive(&mut self, packet: &[u8], trusted: bool, mtu: usize, now: Instant, out: &mut impl Output) {
        let now = self.clock(now);
        let counters = &mut self.works.counters;
        counters.segments_in = counters.segments_in.saturating_add(1);
        let segment = match Segment::parse(packet, trusted) {
            Ok(segment) => segment,
            Err(Fault::Malformed) => {
                counters.malformed = counters.malformed.saturating_add(1);
                return;
            }
            Err(Fault::Checksum) => {
                counters.checksum_errors = counters.checksum_errors.saturating_add(1);
                return;
            }
        };
        let key = Key::new(segment.local, segment.remote);
        match self.table.get(&key) {
            Some(&Entry::Connection(index)) => self.for_connection(index, &segment, mtu, now, out),
            Some(&Entry::Half(index)) => self.for_half(index, &key, &segment, now, out),
            Some(&Entry::Waiting(index)) => self.for_waiting(index, &key, &segment, mtu, now, out),
            None => self.for_nobody(&key, &segment, None, mtu, now, out),
        }
    }

    fn for_connection(&mut self, index: u32, segment: &Segment<'_>, mtu: usize, now: u64, out: &mut impl Output) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        connection.mtu_at_most(mtu);
        connection.input(segment, now, &mut self.works, out);
        self.mark(index);
        self.tell(index);
    }

    /// RFC 9293, 3.10.7.1: nobody is there.
    fn refuse(&mut self, segment: &Segment<'_>, out: &mut impl Output) {
        if segment.has(RST) {
            return;
        }
        let (seq, ack) =
            if segment.has(ACK) { (segment.ack, None) } else { (0, Some(segment.seq.wrapping_add(segment.length()))) };
        let draft = Draft::new(segment.local, segment.remote, RST, seq, ack);
        Connection::send_draft(&draft, &mut self.works, out);
    }

    /// `least`: our sequence numbers begin there or later.
    fn for_nobody(
        &mut self,
        key: &Key,
        segment: &Segment<'_>,
        least: Option<u32>,
        mtu: usize,
        now: u64,
        out: &mut impl Output,
    ) {
        if segment.has(RST) {
            return;
        }
        let Some(id) = self.listeners.find(key) else { return self.refuse(segment, out) };
        let Some(listener) = self.listeners.get_mut(id) else { return };
        if segment.has(ACK) {
            // The third step of a handshake that we did not remember?
            let cookies = listener.cookies > now && !segment.has(SYN);
            let (ours, theirs) = (segment.ack.wrapping_sub(1), segment.seq.wrapping_sub(1));
            let known = if cookies { redeem(self.cookies, key, theirs, ours, now) } else { None };
            return match known {
                Some(_) if listener.full() => {}
                Some(mss) => {
                    let counters = &mut self.works.counters;
                    counters.cookies_received = counters.cookies_received.saturating_add(1);
                    let peer = Peer { mss, scale: None, sack: false, stamp: None };
                    self.accept(key, id, ours, segment.seq, peer, mtu, now);
                    if let Some(&Entry::Connection(index)) = self.table.get(key) {
                        self.for_connection(index, segment, mtu, now, out);
                    }
                }
                None => self.refuse(segment, out),
            };
        }
        if !segment.has(SYN) {
            return;
        }
        if listener.full() {
            let counters = &mut self.works.counters;
            counters.dropped_syns = counters.dropped_syns.saturating_add(1);
            return;
        }
        let peer = Peer::of(segment);
        let flow = Flow { local: segment.local, remote: segment.remote };
        let mtu = sane_mtu(&flow, mtu);
        // As long as handshakes are answered, those who come too many at once come again, as to Linux.
        if listener.busy() && listener.stale == 0 && !self.halves.full() {
            let counters = &mut self.works.counters;
            counters.dropped_syns = counters.dropped_syns.saturating_add(1);
            return;
        }
        // Else there may be a flood: who is real, proves it.
        if listener.busy() || self.halves.full() {
            listener.cookies = now.saturating_add(COOKIES);
            let ours = cookie(self.cookies, key, segment.seq, peer.mss, now);
            let tuning = listener.tuning;
            let counters = &mut self.works.counters;
            counters.cookies_sent = counters.cookies_sent.saturating_add(1);
            let peer = Peer { scale: None, sack: false, stamp: None, ..peer };
            return self.answer_syn(&flow, ours, segment.seq, &peer, mtu, &tuning, out);
        }
        listener.half_open = listener.half_open.saturating_add(1);
        let tuning = listener.tuning;
        let mut ours = self.initial(key);
        if let Some(least) = least
            && after(least, ours)
        {
            ours = least;
        }
        let half = Half {
            key: *key,
            listener: id,
            ours,
            theirs: segment.seq,
            peer,
            mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
            tries: 0,
            at: now.saturating_add(1_000_000),
            began: now,
            quiet: 0,
        };
        let index = self.halves.add(half);
        self.table.insert(*key, Entry::Half(index));
        self.timers.insert((half.at, index | HALF));
        self.answer_syn(&flow, ours, segment.seq, &peer, mtu, &tuning, out);
    }

    #[expect(clippy::too_many_arguments, reason = "each is a field of the answer")]
    fn answer_syn(
        &mut self,
        flow: &Flow,
        ours: u32,
        theirs: u32,
        peer: &Peer,
        mtu: usize,
        tuning: &Tuning,
        out: &mut impl Output,
    ) {
        let mut draft = Draft::new(flow.local, flow.remote, SYN, ours, Some(theirs.wrapping_add(1)));
        let largest = tuning.largest_segment.unwrap_or(u16::MAX).max(48);
        draft.mss = Some(mss_of(flow.local.ip(), mtu).min(largest));
        draft.scale = peer.scale.map(|_| self.works.scale());
        draft.sack = peer.sack;
        let offset = self.stamp_offset(&Key::new(flow.local, flow.remote));
        draft.stamps = peer.stamp.map(|echo| (Stamps::value(offset, self.now), echo));
        draft.window = self.works.first_window();
        draft.hop_limit = tuning.hop_limit.max(1);
        draft.traffic_class = tuning.traffic_class;
        Connection::send_draft(&draft, &mut self.works, out);
    }

    fn again(&mut self, index: u32, out: &mut impl Output) {
        let Some(half) = self.halves.get_mut(index).map(|half| *half) else { return };
        let Some(tuning) = self.listeners.get(half.listener).map(|l| l.tuning) else { return };
        let (local, remote) = half.key.flow();
        let flow = Flow { local, remote };
        self.answer_syn(&flow, half.ours, half.theirs, &half.peer, usize::from(half.mtu), &tuning, out);
    }

    fn remove_half(&mut self, index: u32) {
        let Some(half) = self.halves.remove(index) else { return };
        self.table.remove(&half.key);
        self.timers.remove(&(half.at, index | HALF));
        if let Some(listener) = self.listeners.get_mut(half.listener) {
            listener.half_open = listener.half_open.saturating_sub(1);
            listener.stale = listener.stale.saturating_sub(usize::from(half.tries > 0));
        }
    }

    fn for_half(&mut self, index: u32, key: &Key, segment: &Segment<'_>, now: u64, out: &mut impl Output) {
        let window = u32::from(self.works.first_window());
        let Some(half) = self.halves.get_mut(index) else { return };
        let expected = half.theirs.wrapping_add(1);
        let counters = &mut self.works.counters;
        if segment.has(RST) {
            // RFC 5961: with the very number only.
            if segment.seq == expected {
                counters.resets_in = counters.resets_in.saturating_add(1);
                counters.attempt_fails = counters.attempt_fails.saturating_add(1);
                self.remove_half(index);
            } else if segment.seq.wrapping_sub(expected) < window && now >= half.quiet {
                half.quiet = now.saturating_add(CHALLENGE);
                counters.challenges = counters.challenges.saturating_add(1);
                let draft = Draft::new(segment.local, segment.remote, 0, half.ours.wrapping_add(1), Some(expected));
                let draft = Draft { window: u16::try_from(window).unwrap_or(u16::MAX), ..draft };
                Connection::send_draft(&draft, &mut self.works, out);
            }
            return;
        }
        if segment.has(SYN) {
            // Again, or another one: who sent it will reset the one that it does not know.
            counters.retransmitted = counters.retransmitted.saturating_add(1);
            if let (Some(stamp), Some((value, _))) = (&mut half.peer.stamp, segment.options.stamps) {
                *stamp = value;
            }
            return self.again(index, out);
        }
        if !segment.has(ACK) {
            return;
        }
        if segment.ack != half.ours.wrapping_add(1) {
            return self.refuse(segment, out);
        }
        let ahead = segment.seq.wrapping_sub(expected);
        if ahead > window {
            return self.again(index, out);
        }
        let half = *half;
        let full = self.listeners.get(half.listener).is_none_or(|listener| listener.full());
        if full || self.connections.len() >= self.works.limits.connections {
            // The peer believes that it is established; it hears our SYN|ACK again until there is a place.
            return;
        }
        self.remove_half(index);
        self.accept(key, half.listener, half.ours, expected, half.peer, usize::from(half.mtu), now);
        if let Some(&Entry::Connection(index)) = self.table.get(key) {
            if half.tries == 0
                && let Some(connection) = self.connections.get_mut(index)
            {
                connection.measured(now.saturating_sub(half.began));
            }
            self.for_connection(index, segment, usize::from(half.mtu), now, out);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a handshake leaves")]
    fn accept(&mut self, key: &Key, id: ListenerId, ours: u32, tail: u32, peer: Peer, mtu: usize, now: u64) {
        if self.connections.len() >= self.works.limits.connections {
            return;
        }
        let Some(listener) = self.listeners.get_mut(id) else { return };
        listener.queued = listener.queued.saturating_add(1);
        let (local, remote) = key.flow();
        let flow = Flow { local, remote };
        let tuning = listener.tuning;
        let stamp_offset = self.stamp_offset(key);
        let birth = Birth { flow, owner: Owner::Listener(id), tuning, mtu, initial: ours, stamp_offset, now };
        let mut connection = Connection::established(&birth, peer, tail, 0, &self.works);
        connection.known = true;
        let (index, generation) = self.connections.insert(connection);
        self.table.insert(*key, Entry::Connection(index));
        self.accepted.push_back((index, generation));
        let counters = &mut self.works.counters;
        counters.passive_opens = counters.passive_opens.saturating_add(1);
    }

    fn for_waiting(
        &mut self,
        index: u32,
        key: &Key,
        segment: &Segment<'_>,
        mtu: usize,
        now: u64,
        out: &mut impl Output,
    ) {
        let Some(wait) = self.waits.get_mut(index) else { return };
        // RFC 1337: a RST does not end it.
        if segment.has(RST) {
            return;
        }
        let stamp = wait.stamps.and_then(|s| Some((s, segment.options.stamps?.0)));
        let is_old = stamp.is_some_and(|(s, value)| s.is_old(value, now));
        if segment.has(SYN) {
            // RFC 6191: a later time is as good as a later number.
            let newer = after(segment.seq, wait.expected) || stamp.is_some_and(|(s, value)| after(value, s.recent));
            if !segment.has(ACK) && !is_old && newer && self.listeners.find(key).is_some() {
                let least = wait.next.wrapping_add(65_537);
                self.waits.remove(index);
                self.table.remove(key);
                return self.for_nobody(key, segment, Some(least), mtu, now, out);
            }
        } else if wait.open && segment.has(ACK) {
            let end = segment.seq.wrapping_add(segment.length());
            // Data for which nobody is there any more.
            if !segment.payload.is_empty() && after(end, wait.expected) {
                self.waits.remove(index);
                self.table.remove(key);
                return self.refuse(segment, out);
            }
            if !segment.has(FIN) || segment.seq != wait.expected {
                return;
            }
            wait.expected = wait.expected.wrapping_add(1);
            wait.open = false;
            wait.until = now.saturating_add(TIME_WAIT);
        } else if segment.length() == 0 && segment.seq == wait.expected {
            return;
        } else if segment.has(FIN) {
            wait.until = now.saturating_add(TIME_WAIT);
        } else if now < wait.quiet {
            return;
        }
        if !segment.has(FIN) {
            if now < wait.quiet {
                return;
            }
            wait.quiet = now.saturating_add(CHALLENGE);
        }
        let (local, remote) = key.flow();
        let mut draft = Draft::new(local, remote, 0, wait.next, Some(wait.expected));
        draft.stamps = wait.stamps.map(|s| (Stamps::value(s.offset, now), s.recent));
        draft.window = wait.window;
        draft.hop_limit = wait.hop_limit;
        draft.traffic_class = wait.traffic_class;
        Connection::send_draft(&draft, &mut self.works, out);
    }

    /// An ICMP or ICMPv6 message said that a packet of ours did not arrive: its flow, and the sequence number in its TCP header. Whether
    /// that is about something that is on its way: what is not is not believed (RFC 5927).
    pub fn unreachable(&mut self, flow: Flow, sequence: u32, why: Unreachable) -> bool {
        let key = Key::new(flow.local, flow.remote);
        match self.table.get(&key) {
            Some(&Entry::Connection(index)) => {
                let Some(connection) = self.connections.get_mut(index) else { return false };
                let believed = connection.unreachable(sequence, why, &mut self.works);
                self.mark(index);
                self.tell(index);
                return believed;
            }
            Some(&Entry::Half(index)) => {
                let Some(half) = self.halves.get_mut(index) else { return false };
                if sequence != half.ours {
                    return false;
                }
                match why {
                    Unreachable::TooBig(mtu) => {
                        half.mtu = half.mtu.min(u16::try_from(mtu.max(552)).unwrap_or(u16::MAX));
                    }
                    Unreachable::Icmp { .. } => {
                        let counters = &mut self.works.counters;
                        counters.attempt_fails = counters.attempt_fails.saturating_add(1);
                        self.remove_half(index);
                    }
                }
            }
            Some(Entry::Waiting(_)) | None => return false,
        }
        true
    }

    // Time.

    /// Does what is due: timers, and what `receive`, `send`, `recv`, `finish` and the others left to be sent. Call it after each of these (or
    /// several), when `next` says so, and when there is room again after there was none.
    pub fn poll(&mut self, now: Instant, out: &mut impl Output) {
        let now = self.clock(now);
        self.stuck = false;
        while let Some(key) = self.waits.expired(now) {
            self.table.remove(&key);
        }
        while let Some(&(at, what)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            if what & HALF == 0 {
                if let Some(connection) = self.connections.get_mut(what) {
                    connection.armed = NEVER;
                }
                self.mark(what);
            } else {
                self.half_due(what & !HALF, now, out);
            }
        }
        while out.has_room() {
            let Some(draft) = self.resets.pop_front() else { break };
            Connection::send_draft(&draft, &mut self.works, out);
        }
        for _ in 0..self.dirty.len() {
            if !out.has_room() {
                self.stuck = true;
                break;
            }
            let Some((index, generation)) = self.dirty.pop_front() else { break };
            if !self.connections.is(index, generation) {
                continue;
            }
            let Some(connection) = self.connections.get_mut(index) else { continue };
            connection.dirty = false;
            let more = connection.output(now, &mut self.works, out);
            if more {
                self.mark(index);
            }
            self.settle(index, now);
        }
        self.stuck |= !out.has_room();
    }

    fn half_due(&mut self, index: u32, now: u64, out: &mut impl Output) {
        let Some(half) = self.halves.get_mut(index) else { return };
        if half.tries >= RETRIES {
            let counters = &mut self.works.counters;
            counters.dropped_half_open = counters.dropped_half_open.saturating_add(1);
            counters.attempt_fails = counters.attempt_fails.saturating_add(1);
            return self.remove_half(index);
        }
        if half.tries == 0
            && let Some(listener) = self.listeners.get_mut(half.listener)
        {
            listener.stale = listener.stale.saturating_add(1);
        }
        half.tries = half.tries.saturating_add(1);
        half.at = now.saturating_add(1_000_000 << half.tries.min(RETRIES));
        self.timers.insert((half.at, index | HALF));
        let counters = &mut self.works.counters;
        counters.retransmitted = counters.retransmitted.saturating_add(1);
        self.again(index, out);
    }

    /// When `poll` must be called at the latest. A time that has passed: at once. While there is no room that is a millisecond later.
    pub fn next(&self) -> Option<Instant> {
        let waiting = match (self.dirty.is_empty() && self.resets.is_empty(), self.stuck) {
            (true, _) => None,
            (false, false) => Some(self.now),
            (false, true) => Some(self.now.saturating_add(1000)),
        };
        let timer = self.timers.first().map(|&(at, _)| at);
        let at = waiting.into_iter().chain(timer).chain(self.waits.next()).min()?;
        self.epoch?.checked_add(Duration::from_micros(at.saturating_sub(1_000_000)))
    }

    fn mark(&mut self, index: u32) {
        let generation = self.connections.generation(index);
        if let Some(connection) = self.connections.get_mut(index)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push_back((index, generation));
        }
    }

    fn tell(&mut self, index: u32) {
        let generation = self.connections.generation(index);
        if let Some(connection) = self.connections.get_mut(index)
            && std::mem::take(&mut connection.news)
            && connection.owner == Owner::Held
            && !connection.told
        {
            connection.told = true;
            self.changed.push_back((index, generation));
        }
    }

    /// After anything happened to a connection: its end, its record in TIME_WAIT, its timer, its owner.
    fn settle(&mut self, index: u32, now: u64) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        let nobody = connection.owner == Owner::Nobody;
        let wait = match (connection.done(), connection.phase()) {
            (Some(true), _) => Some(false),
            (_, Phase::FinWait2) if nobody => Some(true),
            _ => None,
        };
        if let Some(open) = wait {
            let record = Waiting {
                key: connection.key,
                next: connection.highest,
                expected: connection.expected(),
                stamps: connection.stamps,
                window: connection.window_field(),
                hop_limit: connection.tuning.hop_limit.max(1),
                traffic_class: connection.tuning.traffic_class,
                open,
                quiet: 0,
                until: now.saturating_add(TIME_WAIT),
            };
            connection.fail(None, &mut self.works);
            connection.known = false;
            let (place, gone) = self.waits.add(record);
            self.table.insert(record.key, Entry::Waiting(place));
            if let Some(key) = gone {
                self.table.remove(&key);
                let counters = &mut self.works.counters;
                counters.dropped_time_wait = counters.dropped_time_wait.saturating_add(1);
            }
        } else if connection.done().is_some() {
            connection.fail(None, &mut self.works);
        }
        let Some(connection) = self.connections.get_mut(index) else { return };
        if matches!(connection.stage, Stage::Over) {
            if std::mem::take(&mut connection.known) {
                let key = connection.key;
                self.table.remove(&key);
            }
            if connection.armed != NEVER {
                self.timers.remove(&(connection.armed, index));
                connection.armed = NEVER;
            }
            if nobody {
                return self.free(index);
            }
            return self.tell(index);
        }
        let at = connection.deadline(&self.works);
        // A later time can wait for the earlier one: then it is asked again.
        if at < connection.armed {
            if connection.armed != NEVER {
                self.timers.remove(&(connection.armed, index));
            }
            connection.armed = at;
            self.timers.insert((at, index));
        }
        self.tell(index);
    }

    fn free(&mut self, index: u32) {
        let Some(mut connection) = self.connections.remove(index) else { return };
        connection.rest(&mut self.works);
        if connection.armed != NEVER {
            self.timers.remove(&(connection.armed, index));
        }
        if connection.known {
            self.table.remove(&connection.key);
        }
        if connection.orphan {
            self.orphans = self.orphans.saturating_sub(1);
        }

        if let Owner::Listener(listener) = connection.owner
            && let Some(listener) = self.listeners.get_mut(listener)
        {
            listener.queued = listener.queued.saturating_sub(1);
        }
    }

    /// Ends a connection at once.
    fn drop_connection(&mut self, index: u32, reset: bool) {
        let Some(connection) = self.connections.get(index) else { return };
        if let (true, Some(draft)) = (reset, connection.reset_draft(self.now))
            && self.resets.len() < RESETS
        {
            self.resets.push_back(draft);
            let counters = &mut self.works.counters;
            counters.established_resets = counters.established_resets.saturating_add(1);
        }
        self.free(index);
    }
}
