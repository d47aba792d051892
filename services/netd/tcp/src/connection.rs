//! One connection: what comes of each segment, each timer, each call of its owner.
//!
//! Owns a connection's sequence numbers, windows, timers and congestion control, and its smoltcp socket while there is one. Must never pass
//! a segment to smoltcp that was not looked at here. Called by `engine`, which knows which connection a packet is for.

use crate::congestion::{Congestion, NEVER, RoundTrip, Then};
use crate::keyed::Key;
use crate::live::{Interfaces, Live, Start, Way, copy, mss_of, scale_of};
use crate::segment::{ACK, Draft, FIN, RST, SYN, Segment, after, ip_header};
use crate::train::{Rewrite, Seen, Train};
use crate::{Counters, End, Flow, Limits, ListenerId, Look, Output, Phase, Tuning, Unreachable};

/// What a connection's first buffers have. What is promised in a SYN is the first.
pub(crate) const FIRST_RECEIVE: usize = 32 << 10;
const FIRST_SEND: usize = 64 << 10;
/// What they have when there is no memory left.
const LEAST: usize = 4 << 10;
/// So many sockets are kept to be used again.
const SPARE: usize = 64;
/// The step between the first and the largest receive buffer.
const SECOND_RECEIVE: usize = 256 << 10;
/// A connection in which nothing happened for so long gives its buffers back.
const SILENCE: u64 = 2_000_000;
/// The same when memory is scarce.
const SHORT_SILENCE: u64 = 50_000;
/// In which a fast stream fills half of its buffer.
const FAST: u64 = 100_000;
/// Linux' tcp_retries2 and its orphans' retries, as times.
const GIVE_UP: u64 = 924_600_000;
const GIVE_UP_ORPHAN: u64 = 120_000_000;
/// How often what may be forged is answered (Linux: tcp_invalid_ratelimit).
pub(crate) const CHALLENGE: u64 = 500_000;
/// How many segments one connection sends before the next has its turn.
const TURN: usize = 256;
/// The least time before the last segments are asked for.
const PROBE: u64 = 10_000;
/// SYNs after the first (Linux: tcp_syn_retries).
const SYN_RETRIES: u8 = 6;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Works {
    pub(crate) interfaces: Interfaces,
    pub(crate) train: Train,
    pub(crate) counters: Counters,
    pub(crate) limits: Limits,
    /// Sockets of the first size that are not needed.
    pub(crate) spare: Vec<Live>,
}

impl Works {
    /// The largest receive buffer, and the scale that is promised for it.
    pub(crate) fn receive(&self) -> usize {
        self.limits.receive_buffer.clamp(4096, 1 << 29)
    }

    fn send(&self) -> usize {
        self.limits.send_buffer.clamp(4096, 1 << 29)
    }

    /// Whether half of what buffers may have is used.
    fn tight(&self) -> bool {
        self.counters.memory as usize > self.limits.memory / 2
    }

    /// What a connection begins with that has promised so much.
    fn first_sizes(&self, promised: usize) -> (usize, usize) {
        let memory = self.counters.memory as usize;
        let least = match memory {
            memory if memory > self.limits.memory => return (LEAST, LEAST),
            memory if memory > self.limits.memory / 2 => (2 * LEAST, 2 * LEAST),
            _ => (FIRST_RECEIVE, FIRST_SEND),
        };
        (promised.clamp(least.0.min(self.receive()), self.receive()), least.1.min(self.send()))
    }

    fn make(&mut self, start: &Start, unread: &[u8]) -> Option<Box<Live>> {
        let usual = (start.receive, start.send) == (FIRST_RECEIVE, FIRST_SEND);
        let live = match if usual { self.spare.pop() } else { None } {
            Some(spare) => Box::new(Live::again(spare, start, unread)?),
            None => Box::new(Live::new(start, unread)?),
        };
        let counters = &mut self.counters;
        counters.live = counters.live.saturating_add(1);
        counters.memory = counters.memory.saturating_add(start.receive.saturating_add(start.send) as u64);
        Some(live)
    }

    fn give_back(&mut self, live: Live) {
        let sizes = (live.receive_capacity(), live.send_capacity());
        let counters = &mut self.counters;
        counters.live = counters.live.saturating_sub(1);
        counters.memory = counters.memory.saturating_sub(sizes.0.saturating_add(sizes.1) as u64);
        if sizes == (FIRST_RECEIVE, FIRST_SEND) && self.spare.len() < SPARE {
            self.spare.push(live);
        }
    }

    pub(crate) fn scale(&self) -> u8 {
        scale_of(self.receive())
    }

    /// The window field of a SYN.
    pub(crate) fn first_window(&self) -> u16 {
        u16::try_from(self.first_sizes(0).0).unwrap_or(u16::MAX)
    }
}

/// Who has a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Nobody yet: it waits to be handed over.
    Listener(ListenerId),
    Held,
    Nobody,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Stage {
    /// Our SYN is on its way. `crossed`: the peer's SYN came without acknowledging ours.
    Connecting {
        tries: u8,
        at: u64,
        crossed: bool,
    },
    Open,
    Over,
}

/// What the peer's SYN said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) mss: u16,
    pub(crate) scale: Option<u8>,
    pub(crate) sack: bool,
}

impl Peer {
    pub(crate) fn of(segment: &Segment<'_>) -> Self {
        let usual = if segment.remote.is_ipv4() { 536 } else { 1220 };
        let mss = segment.options.mss.filter(|&mss| mss != 0).unwrap_or(usual);
        // Linux's minimum: a segment has to carry something.
        Peer { mss: mss.max(48), scale: segment.options.scale, sack: segment.options.sack }
    }
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) flow: Flow,
    pub(crate) key: Key,
    pub(crate) owner: Owner,
    pub(crate) stage: Stage,
    live: Option<Box<Live>>,
    pub(crate) tuning: Tuning,
    peer: Peer,
    mtu: usize,
    /// Of what we take: the scale that the peer knows.
    promised: u8,
    /// Without a socket: the first sequence number that is not acknowledged, the one that is expected.
    head: u32,
    tail: u32,
    /// The end of what was ever sent.
    pub(crate) highest: u32,
    /// What the peer takes after what it acknowledged.
    window: u32,
    /// The edge of what the peer was told that we take, of what smoltcp believes that it was told, and of what came.
    edge: u32,
    promise: u32,
    furthest: u32,
    congestion: Congestion,
    round_trip: RoundTrip,
    resend_at: u64,
    progress_at: u64,
    heard_at: u64,
    used_at: u64,
    probes: u8,
    quiet_until: u64,
    /// What came since the last acknowledgement.
    unanswered: usize,
    acknowledge: bool,
    resend: bool,
    restart: bool,
    /// When the first segment is sent again to hear what arrived: the last ones may be lost, and nobody says so (RFC 8985's probe).
    probe_at: u64,
    /// When that was done, until something new is acknowledged.
    probed: Option<u64>,
    /// How much came since a moment: whether the stream is a fast one.
    fast: (u64, usize),
    larger_receive: bool,
    larger_send: bool,
    /// The owner found no room.
    starved: bool,
    /// `finish` was called; the peer's FIN had come before.
    finishing: bool,
    passive: bool,
    /// The sequence number of our FIN, once it was sent; of the peer's, once it was seen.
    our_fin: Option<u32>,
    their_fin: Option<u32>,
    /// The first was acknowledged, the second reached.
    finished: bool,
    ended: bool,
    pub(crate) end: Option<End>,
    soft: Option<Unreachable>,
    retransmissions: u32,
    received: u64,
    acknowledged: u64,
    // The engine's notes.
    /// Something happened that the owner may want to know.
    pub(crate) news: bool,
    pub(crate) told: bool,
    pub(crate) dirty: bool,
    pub(crate) armed: u64,
    /// It is in the table.
    pub(crate) known: bool,
    pub(crate) orphan: bool,
}

/// What both ways to a connection have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Birth {
    pub(crate) flow: Flow,
    pub(crate) owner: Owner,
    pub(crate) tuning: Tuning,
    pub(crate) mtu: usize,
    /// Our initial sequence number.
    pub(crate) initial: u32,
    pub(crate) now: u64,
}

/// The MTUs that can be: headers and options must fit, and lengths be of 16 bits.
pub(crate) fn sane_mtu(flow: &Flow, mtu: usize) -> usize {
    mtu.clamp(if flow.local.is_ipv4() { 296 } else { 1280 }, 65_535)
}

impl Connection {
    /// One whose SYN is to be sent.
    pub(crate) fn connecting(birth: &Birth) -> Self {
        let Birth { flow, owner, tuning, mtu, initial, now } = *birth;
        Connection {
            key: Key::new(flow.local, flow.remote),
            flow,
            owner,
            stage: Stage::Connecting { tries: 0, at: 0, crossed: false },
            live: None,
            tuning,
            peer: Peer { mss: 536, scale: None, sack: false },
            mtu: sane_mtu(&flow, mtu),
            promised: 0,
            head: initial.wrapping_add(1),
            tail: 0,
            highest: initial.wrapping_add(1),
            window: 0,
            edge: 0,
            promise: 0,
            furthest: 0,
            congestion: Congestion::new(536),
            round_trip: RoundTrip::new(),
            resend_at: NEVER,
            progress_at: now,
            heard_at: now,
            used_at: now,
            probes: 0,
            quiet_until: 0,
            unanswered: 0,
            acknowledge: false,
            resend: false,
            restart: false,
            probe_at: NEVER,
            probed: None,
            fast: (now, 0),
            larger_receive: false,
            larger_send: false,
            starved: false,
            finishing: false,
            passive: false,
            our_fin: None,
            their_fin: None,
            finished: false,
            ended: false,
            end: None,
            soft: None,
            retransmissions: 0,
            received: 0,
            acknowledged: 0,
            news: false,
            told: false,
            dirty: false,
            armed: NEVER,
            known: false,
            orphan: false,
        }
    }

    /// One whose handshake is done: `tail` is the peer's first sequence number, `window` what it takes.
    pub(crate) fn established(birth: &Birth, peer: Peer, tail: u32, window: u32, works: &Works) -> Self {
        let mut connection = Self::connecting(birth);
        connection.open(peer, tail, window, works);
        connection
    }

    fn open(&mut self, peer: Peer, tail: u32, window: u32, works: &Works) {
        self.stage = Stage::Open;
        self.peer = peer;
        self.promised = if peer.scale.is_some() { works.scale() } else { 0 };
        (self.tail, self.furthest) = (tail, tail);
        self.edge = tail.wrapping_add(u32::from(works.first_window()));
        self.window = window;
        self.congestion = Congestion::new(u32::from(self.mss()));
        self.news = true;
    }

    /// The largest segment that goes.
    pub(crate) fn mss(&self) -> u16 {
        self.peer.mss.min(mss_of(self.flow.local.ip(), self.mtu)).min(self.tuning.largest_segment.unwrap_or(u16::MAX))
    }

    pub(crate) fn unacknowledged(&self) -> u32 {
        self.first_queued().wrapping_add(u32::from(self.finished))
    }

    /// It without our FIN.
    fn first_queued(&self) -> u32 {
        self.live.as_ref().map_or(self.head, |live| live.unacknowledged())
    }

    pub(crate) fn expected(&self) -> u32 {
        self.next_byte().wrapping_add(u32::from(self.ended))
    }

    /// It without the peer's FIN.
    fn next_byte(&self) -> u32 {
        self.live.as_ref().map_or(self.tail, |live| live.expected())
    }

    fn flight(&self) -> u32 {
        self.highest.wrapping_sub(self.unacknowledged())
    }

    pub(crate) fn unread(&self) -> usize {
        self.live.as_ref().map_or(0, |live| live.unread())
    }

    fn queued(&self) -> usize {
        self.live.as_ref().map_or(0, |live| live.queued())
    }

    /// How much we take after what is expected. Never more than smoltcp does, which takes what it has promised.
    fn offer(&self) -> usize {
        let edge = if self.live.is_some() { self.promise } else { self.edge };
        let offer = edge.wrapping_sub(self.next_byte());
        if (offer as i32) < 0 { 0 } else { offer as usize }
    }

    /// It as a window field.
    fn offer_field(&self) -> u16 {
        u16::try_from(self.offer() >> self.promised.min(14)).unwrap_or(u16::MAX)
    }

    /// The window that smoltcp is to know: the smaller one of the peer's and of the network's, as a field.
    fn field(&self) -> u16 {
        let scale = self.peer.scale.unwrap_or(0);
        let least = u32::from(self.window > 0);
        let unit = (1u32 << scale.min(14)).wrapping_sub(1);
        let window = self.window.min(self.congestion.window().saturating_add(unit));
        u16::try_from((window >> scale.min(14)).max(least)).unwrap_or(u16::MAX)
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.stage {
            Stage::Connecting { .. } => Phase::Connecting,
            Stage::Over => Phase::Closed,
            Stage::Open => match (self.finishing, self.finished, self.ended) {
                (false, _, false) => Phase::Established,
                (false, _, true) => Phase::CloseWait,
                (true, false, false) => Phase::FinWait1,
                (true, false, true) if self.passive => Phase::LastAck,
                (true, false, true) => Phase::Closing,
                (true, true, false) => Phase::FinWait2,
                (true, true, true) => Phase::Closed,
            },
        }
    }

    /// Both ways have ended; true: in TIME_WAIT.
    pub(crate) fn done(&self) -> Option<bool> {
        (matches!(self.stage, Stage::Open) && self.finished && self.ended).then_some(!self.passive)
    }

    fn draft(&self, flags: u8, seq: u32, ack: Option<u32>) -> Draft {
        let mut draft = Draft::new(self.flow.local, self.flow.remote, flags, seq, ack);
        draft.hop_limit = self.tuning.hop_limit.max(1);
        draft.traffic_class = self.tuning.traffic_class;
        draft.window = self.offer_field();
        draft
    }

    pub(crate) fn send_draft(draft: &Draft, works: &mut Works, out: &mut impl Output) {
        let (bytes, length) = draft.build(0);
        works.counters.segments_out = works.counters.segments_out.saturating_add(1);
        if draft.flags & RST != 0 {
            works.counters.resets_out = works.counters.resets_out.saturating_add(1);
        }
        out.send(bytes.get(..length).unwrap_or_default(), length, 0);
    }

    /// Says what we have and take.
    fn send_ack(&mut self, works: &mut Works, out: &mut impl Output) {
        let draft = self.draft(0, self.highest, Some(self.expected()));
        Self::send_draft(&draft, works, out);
        self.answered(self.expected(), self.expected().wrapping_add(u32::from(draft.window) << self.promised.min(14)));
    }

    fn answered(&mut self, ack: u32, edge: u32) {
        // Not what the place of the peer's FIN makes of it.
        let edge = edge.wrapping_sub(u32::from(self.ended));
        if after(edge, self.edge) {
            self.edge = edge;
        }
        if after(edge, self.promise) {
            self.promise = edge;
        }
        if ack == self.expected() {
            self.unanswered = 0;
            self.acknowledge = false;
        }
    }

    /// RFC 5961: whoever meant it will say it again, with the right numbers.
    fn challenge(&mut self, now: u64, works: &mut Works, out: &mut impl Output) {
        if now >= self.quiet_until {
            self.quiet_until = now.saturating_add(CHALLENGE);
            works.counters.challenges = works.counters.challenges.saturating_add(1);
            self.send_ack(works, out);
        }
    }

    /// It is over.
    pub(crate) fn fail(&mut self, end: Option<End>, works: &mut Works) {
        if matches!(self.stage, Stage::Over) {
            return;
        }
        let counters = &mut works.counters;
        match (self.stage, end) {
            (Stage::Connecting { .. }, _) => counters.attempt_fails = counters.attempt_fails.saturating_add(1),
            (_, Some(_)) => counters.established_resets = counters.established_resets.saturating_add(1),
            _ => {}
        }
        self.end = end;
        self.news = true;
        self.stage = Stage::Over;
        if self.unread() == 0 {
            self.rest(works);
        }
    }

    /// Does without a socket.
    pub(crate) fn rest(&mut self, works: &mut Works) {
        (self.head, self.tail) = (self.first_queued(), self.next_byte());
        if let Some(live) = self.live.take() {
            works.give_back(*live);
        }
        (self.larger_receive, self.larger_send) = (false, false);
    }

    /// RST and ACK, for an abort.
    pub(crate) fn reset_draft(&self) -> Option<Draft> {
        let mut draft = self.draft(RST, self.highest, Some(self.expected()));
        draft.window = 0;
        match self.stage {
            Stage::Open => Some(draft),
            Stage::Connecting { crossed: true, .. } => Some(draft),
            Stage::Connecting { .. } | Stage::Over => None,
        }
    }

    /// Makes the socket, if there is none.
    fn wake(&mut self, works: &mut Works) {
        if self.live.is_none() && matches!(self.stage, Stage::Open) {
            let (receive, send) = works.first_sizes(self.edge.wrapping_sub(self.tail) as usize);
            self.build(receive, send.min(self.most(works).1), works);
        }
    }

    /// The largest buffers that it may have.
    fn most(&self, works: &Works) -> (usize, usize) {
        let within = |wanted: Option<usize>, least: usize, limit: usize| match wanted {
            Some(wanted) => wanted.clamp(least.min(limit), limit),
            None => limit,
        };
        (
            within(self.tuning.receive_buffer, FIRST_RECEIVE, works.receive()),
            within(self.tuning.send_buffer, LEAST, works.send()),
        )
    }

    fn build(&mut self, receive: usize, send: usize, works: &mut Works) {
        let mut unread = Vec::with_capacity(self.unread());
        if let Some(live) = &mut self.live {
            while live.recv(|bytes| {
                unread.extend_from_slice(bytes);
                bytes.len()
            }) > 0
            {}
        }
        self.rest(works);
        self.tail = self.tail.wrapping_sub(unread.len() as u32);
        let start = Start {
            local: self.flow.local,
            remote: self.flow.remote,
            head: self.head,
            tail: self.tail,
            peer_mss: self.peer.mss.min(self.tuning.largest_segment.unwrap_or(u16::MAX)).max(48),
            peer_scale: self.peer.scale.unwrap_or(0),
            sack: self.peer.sack,
            window: self.field(),
            mtu: self.mtu,
            receive,
            send,
            nodelay: self.tuning.nodelay,
            hop_limit: self.tuning.hop_limit,
        };
        self.live = works.make(&start, &unread);
        let scale = scale_of(receive);
        self.promise = self.tail.wrapping_add(((receive >> scale) << scale) as u32);
        self.furthest = self.next_byte();
    }

    /// Nothing is under way in either direction, so that the socket could be another. What was not read goes with it.
    fn quiescent(&self) -> bool {
        matches!(self.stage, Stage::Open)
            && self.queued() == 0
            && self.flight() == 0
            && !after(self.furthest, self.next_byte())
    }

    /// Larger buffers, where a fast stream would have them.
    fn grow(&mut self, works: &mut Works) {
        // A larger window is for who reads.
        let larger_receive = self.larger_receive && self.unread() == 0;
        if !(larger_receive || self.larger_send) || !self.quiescent() {
            return;
        }
        if works.tight() {
            // What is there has to do.
            (self.larger_receive, self.larger_send) = (false, false);
            self.news |= self.starved;
            return;
        }
        let Some(live) = &self.live else { return };
        let (mut receive, mut send) = (live.receive_capacity(), live.send_capacity());
        let most = self.most(works);
        if larger_receive {
            receive = if receive < SECOND_RECEIVE { SECOND_RECEIVE.min(most.0) } else { most.0 };
        }
        if self.larger_send {
            send = most.1;
        }
        self.build(receive, send, works);
        self.acknowledge = true;
        self.news |= self.starved;
    }

    fn rewrite(&self) -> Rewrite {
        Rewrite {
            start: ip_header(self.flow.local.ip()),
            scale: self.live.as_ref().map_or(0, |live| live.scale),
            promised: self.promised,
            beyond: u32::from(self.ended),
            fin: self.our_fin,
            traffic_class: self.tuning.traffic_class,
        }
    }

    fn with<O: Output, R>(
        &mut self,
        now: u64,
        works: &mut Works,
        out: &mut O,
        f: impl FnOnce(&mut Live, &mut Way<'_, O>) -> R,
    ) -> Option<R> {
        let rewrite = self.rewrite();
        let live = self.live.as_mut()?;
        let mut way = Way {
            interfaces: &mut works.interfaces,
            train: &mut works.train,
            rewrite,
            mtu: self.mtu,
            highest: self.highest,
            now,
            out,
        };
        Some(f(live, &mut way))
    }

    /// Notes what went by.
    fn sent(&mut self, seen: &Seen, now: u64, works: &mut Works) {
        let counters = &mut works.counters;
        counters.segments_out = counters.segments_out.saturating_add(seen.segments);
        counters.retransmitted = counters.retransmitted.saturating_add(seen.again);
        if seen.again > 0 {
            self.round_trip.resent();
            self.retransmissions = self.retransmissions.saturating_add(u32::try_from(seen.again).unwrap_or(u32::MAX));
        }
        if let Some(youngest) = seen.youngest {
            if self.flight() == 0 {
                self.progress_at = now;
            }
            self.highest = youngest;
            if seen.again == 0 {
                self.round_trip.sent(youngest, now);
            }
        }
        if self.flight() > 0 && self.resend_at == NEVER && (self.window > 0 || self.queued() == 0) {
            self.resend_at = now.saturating_add(self.round_trip.timeout());
        }
        if seen.youngest.is_some() {
            self.arm_probe(now);
        }
        if let Some((ack, edge)) = seen.acked {
            self.answered(ack, edge);
        }
        if seen.segments > 0 {
            self.used_at = now;
        }
    }

    fn arm_probe(&mut self, now: u64) {
        // One segment alone may wait for its acknowledgement a while.
        let alone = self.flight() <= u32::from(self.mss());
        self.probe_at = match self.round_trip.smoothed() {
            Some(time) if !alone && self.window > 0 && self.congestion.open() => {
                now.saturating_add(u64::from(time).saturating_mul(2).max(PROBE))
            }
            _ => NEVER,
        };
    }

    /// A segment came.
    pub(crate) fn input<O: Output>(&mut self, segment: &Segment<'_>, now: u64, works: &mut Works, out: &mut O) {
        match self.stage {
            Stage::Connecting { .. } => self.input_connecting(segment, now, works, out),
            Stage::Open => self.input_open(segment, now, works, out),
            Stage::Over => {}
        }
    }

    fn input_connecting<O: Output>(&mut self, segment: &Segment<'_>, now: u64, works: &mut Works, out: &mut O) {
        let Stage::Connecting { tries, at, crossed } = self.stage else { return };
        if crossed {
            // SYN_RECEIVED: both SYNs were seen, ours is not acknowledged.
            let exact =
                segment.seq == self.expected() || segment.has(SYN) && segment.seq == self.expected().wrapping_sub(1);
            if segment.has(RST) && exact {
                works.counters.resets_in = works.counters.resets_in.saturating_add(1);
                return self.fail(Some(End::Refused), works);
            }
            if !segment.has(ACK) || segment.has(RST) {
                return;
            }
            if segment.ack != self.highest {
                return Self::send_draft(&self.draft(RST, segment.ack, None), works, out);
            }
            if !exact && after(self.expected(), segment.seq) {
                return;
            }
            let scale = if segment.has(SYN) { 0 } else { self.peer.scale.unwrap_or(0) };
            self.open(self.peer, self.tail, u32::from(segment.window) << scale, works);
            self.established_now(tries, at, now);
            if segment.has(SYN) {
                self.acknowledge = true;
            } else {
                self.input_open(segment, now, works, out);
            }
            return;
        }
        if segment.has(ACK) && segment.ack != self.highest {
            if !segment.has(RST) {
                Self::send_draft(&self.draft(RST, segment.ack, None), works, out);
            }
            return;
        }
        if segment.has(RST) {
            if segment.has(ACK) {
                works.counters.resets_in = works.counters.resets_in.saturating_add(1);
                self.fail(Some(End::Refused), works);
            }
            return;
        }
        if !segment.has(SYN) {
            return;
        }
        let (peer, tail) = (Peer::of(segment), segment.seq.wrapping_add(1));
        if segment.has(ACK) {
            self.open(peer, tail, u32::from(segment.window), works);
            self.established_now(tries, at, now);
            self.acknowledge = true;
        } else {
            // Simultaneous open: our SYN once more, now with an acknowledgement.
            (self.peer, self.tail) = (peer, tail);
            self.promised = if peer.scale.is_some() { works.scale() } else { 0 };
            self.stage = Stage::Connecting { tries, at: 0, crossed: true };
        }
    }

    fn established_now(&mut self, tries: u8, at: u64, now: u64) {
        // The first SYN was sent a second before it would be sent again.
        if tries == 1 {
            self.round_trip.sample(now.saturating_add(1_000_000).saturating_sub(at));
        }
        (self.heard_at, self.progress_at, self.used_at) = (now, now, now);
    }

    fn input_open<O: Output>(&mut self, segment: &Segment<'_>, now: u64, works: &mut Works, out: &mut O) {
        let (expected, offer) = (self.expected(), self.offer() as u32);
        let ahead = segment.seq.wrapping_sub(expected);
        if segment.has(RST) {
            if ahead == 0 {
                works.counters.resets_in = works.counters.resets_in.saturating_add(1);
                self.fail(Some(End::Reset), works);
            } else if ahead < offer {
                self.challenge(now, works, out);
            }
            return;
        }
        if segment.has(SYN) {
            return self.challenge(now, works, out);
        }
        if !segment.has(ACK) {
            return;
        }
        let length = segment.length();
        let end = segment.seq.wrapping_add(length);
        // All of it was there before: its acknowledgement was lost, or the peer asks whether we live.
        if after(expected, segment.seq) && !after(end, expected) {
            if length > 0 {
                self.heard(now);
                return self.send_ack(works, out);
            }
            // An acknowledgement that was overtaken by data says what it says. One before the last byte asks whether we live.
            let near = expected.wrapping_sub(segment.seq) as usize <= works.receive();
            if ahead == u32::MAX || !near {
                self.challenge(now, works, out);
            }
            if !near {
                return;
            }
        }
        // All of it is beyond what we take.
        if !after(expected, segment.seq) && ahead > offer {
            return if length > 0 { self.send_ack(works, out) } else { self.challenge(now, works, out) };
        }
        let una = self.unacknowledged();
        if after(segment.ack, self.highest) {
            return self.challenge(now, works, out);
        }
        let old = after(una, segment.ack);
        if old && length == 0 {
            return;
        }
        self.heard(now);
        // A connection that nobody has takes nothing more.
        if self.owner == Owner::Nobody && !segment.payload.is_empty() {
            Self::send_draft(&self.draft(RST, segment.ack, None), works, out);
            return self.fail(Some(End::Reset), works);
        }
        let flight = self.highest.wrapping_sub(una);
        let newly = if old { 0 } else { segment.ack.wrapping_sub(una) };
        let window = u32::from(segment.window) << self.peer.scale.unwrap_or(0);
        if length == 0 && newly == 0 && flight > 0 && window == self.window {
            if window == 0 {
                return;
            }
            let sacked = match segment.options.sacked {
                Some((right, bytes)) if after(right, una) && !after(right, self.highest) => bytes.min(flight),
                _ => 0,
            };
            if self.congestion.duplicate(una, self.highest, sacked) == Then::Resend {
                self.resend = true;
            }
            return;
        }
        if !old {
            if self.window == 0 && window > 0 {
                self.progress_at = now;
            }
            self.window = window;
        }
        if newly > 0 {
            self.progress_at = now;
            self.round_trip.acknowledged(segment.ack, now);
            self.round_trip.forward();
            // Too late to be the answer to what was sent first: the probe filled a hole (RFC 8985, 7.4).
            if let (Some(at), Some(time)) = (self.probed.take(), self.round_trip.smoothed())
                && now.saturating_sub(at) >= u64::from(time / 4).saturating_mul(3)
            {
                self.congestion.repaired(flight);
            }
            match self.congestion.acknowledged(segment.ack, newly, flight, now, &self.round_trip) {
                Then::Nothing => {}
                Then::Resend => self.resend = true,
                Then::Restart => self.restart = true,
            }
            self.resend_at = if newly == flight { NEVER } else { now.saturating_add(self.round_trip.timeout()) };
        }
        // smoltcp asks for a window only if it hears of none while its own timer rests: it is told again (`due`).
        if window == 0 && self.queued() > 0 {
            self.resend_at = now.saturating_add(self.round_trip.timeout());
        }
        // For an acknowledgement, and for a FIN in its place, no socket is made.
        if self.live.is_none() && !segment.payload.is_empty() {
            self.wake(works);
        }
        self.feed(segment, now, works, out);
        if newly > 0 {
            self.arm_probe(now);
        }
    }

    fn heard(&mut self, now: u64) {
        (self.heard_at, self.used_at, self.probes) = (now, now, 0);
    }

    /// Passes to smoltcp what of a segment it may have.
    fn feed<O: Output>(&mut self, segment: &Segment<'_>, now: u64, works: &mut Works, out: &mut O) {
        let una = self.unacknowledged();
        let (unread, queued) = (self.unread(), self.queued());
        let ack = if after(una, segment.ack) { una } else { segment.ack };
        // Not our FIN's.
        let bytes_end = self.first_queued().wrapping_add(self.queued() as u32);
        if self.our_fin.is_some_and(|fin| after(ack, fin)) && !self.finished {
            self.finished = true;
            self.news = true;
        }
        let ack = if after(ack, bytes_end) { bytes_end } else { ack };
        let field = self.field();
        let expected = self.next_byte();
        let seen = if segment.payload.is_empty() {
            if segment.has(FIN) {
                self.their_fin.get_or_insert(segment.seq);
                self.acknowledge = true;
            }
            self.with(now, works, out, |live, way| live.acknowledge(ack, field, way))
        } else {
            let mut room = self.offer();
            if let Some(fin) = self.their_fin {
                let left = fin.wrapping_sub(expected);
                room = room.min(if (left as i32) < 0 { 0 } else { left as usize });
            }
            let skip = expected.wrapping_sub(segment.seq);
            let skip = if (skip as i32) > 0 { skip as usize } else { 0 };
            let begin = segment.seq.wrapping_sub(expected).wrapping_add(skip as u32) as usize;
            let fits = room.saturating_sub(begin).saturating_add(skip).min(segment.payload.len());
            let whole = fits == segment.payload.len();
            let end = segment.seq.wrapping_add(fits as u32);
            if after(end, self.furthest) {
                self.furthest = end;
            }
            self.unanswered = self.unanswered.saturating_add(fits);
            // More than a segment is acknowledged at once (as Linux), and so is the end. If smoltcp waits already, it sees to that itself.
            let fin = segment.has(FIN);
            if fin && whole {
                self.their_fin.get_or_insert(end);
            }
            let at_once = fin || !whole || self.unanswered > usize::from(self.mss());
            self.acknowledge |= at_once;
            let at_once = at_once && self.unanswered == fits;
            if whole && !fin && ack == segment.ack {
                let packet = segment.packet;
                let window = segment.window;
                self.with(now, works, out, |live, way| live.receive(packet, window, at_once, way))
            } else {
                let payload = segment.payload.get(..fits).unwrap_or_default();
                let (from, to) = (segment.remote, segment.local);
                let made = copy(from, to, segment.seq, ack, field, payload);
                self.with(now, works, out, |live, way| live.receive(&made, field, at_once, way))
            }
        };
        if let Some(seen) = seen {
            self.sent(&seen, now, works);
        }
        let (came, gone) = (self.unread().saturating_sub(unread), queued.saturating_sub(self.queued()));
        self.received = self.received.saturating_add(came as u64);
        self.acknowledged = self.acknowledged.saturating_add(gone as u64);
        self.news |= came > 0 || gone > 0 && self.starved && !self.larger_send;
        if !self.ended && self.their_fin == Some(self.next_byte()) {
            self.ended = true;
            self.news = true;
            self.acknowledge = true;
        }
        if came > 0 {
            self.measure(came, now, works);
        }
    }

    fn measure(&mut self, came: usize, now: u64, works: &Works) {
        if now.saturating_sub(self.fast.0) > FAST {
            self.fast = (now, 0);
        }
        self.fast.1 = self.fast.1.saturating_add(came);
        let capacity = self.live.as_ref().map_or(0, |live| live.receive_capacity());
        if self.fast.1 >= capacity / 2 && capacity < self.most(works).0 && !works.tight() {
            self.larger_receive = true;
        }
    }

    /// Sends what is to be sent, after the timers that are due. True: there is more, for the next turn.
    pub(crate) fn output<O: Output>(&mut self, now: u64, works: &mut Works, out: &mut O) -> bool {
        if let Stage::Connecting { .. } = self.stage {
            return self.output_connecting(now, works, out);
        }
        if !matches!(self.stage, Stage::Open) {
            return false;
        }
        // What the owner did since the last time happened now.
        for at in [&mut self.progress_at, &mut self.heard_at] {
            if *at == NEVER {
                *at = now;
            }
        }
        if !out.has_room() {
            return true;
        }
        self.grow(works);
        if self.due(now, works, out) {
            return false;
        }
        if self.live.is_some() {
            let flight = self.flight();
            if self.queued() > flight as usize {
                self.congestion.about_to_send(flight, now, self.round_trip.timeout());
            }
            if std::mem::take(&mut self.restart) && self.flight() > 0 && self.queued() > 0 && self.window > 0 {
                self.send_again(now, works, out);
            }
            let field = self.field();
            let hop_limit = self.tuning.hop_limit;
            let resend = std::mem::take(&mut self.resend) && self.flight() > 0;
            let mut turns = 0usize;
            // Where a window ends is no reason for a small segment.
            let limited = self.queued() > (usize::from(field) << self.peer.scale.unwrap_or(0).min(14));
            let nagle = !(self.tuning.nodelay || self.finishing) || limited;
            let fin_at = self.first_queued().wrapping_add(self.queued() as u32);
            let (wants_fin, highest) = (self.finishing && self.our_fin.is_none(), self.highest);
            let seen = self.with(now, works, out, |live, way| {
                live.tune(!nagle, hop_limit);
                live.set_window(field, way);
                if resend {
                    live.resend_first(way);
                }
                let mut seen = Seen::default();
                while turns < TURN && live.step(&mut seen, way) {
                    turns = turns.saturating_add(1);
                }
                let done = wants_fin && seen.youngest.unwrap_or(highest) == fin_at && way.train.finish(fin_at);
                way.train.flush(way.out);
                (seen, done)
            });
            let (mut seen, done) = seen.unwrap_or_default();
            if done {
                self.our_fin = Some(fin_at);
                seen.youngest = Some(fin_at.wrapping_add(1));
            }
            if seen.again > 0 && !resend && !self.congestion.lost() {
                // smoltcp's own timer was the earlier one.
                self.congestion.expired(self.unacknowledged(), self.highest);
                self.round_trip.back_off();
                self.resend_at = now.saturating_add(self.round_trip.timeout());
            }
            self.sent(&seen, now, works);
            if turns >= TURN {
                return true;
            }
            if resend && self.queued() == 0 {
                self.resend_fin(now, works, out);
            }
        }
        if self.finishing && self.our_fin.is_none() && self.flight() as usize == self.queued() {
            if !out.has_room() {
                return true;
            }
            if self.flight() == 0 {
                self.progress_at = now;
            }
            self.our_fin = Some(self.highest);
            self.highest = self.highest.wrapping_add(1);
            self.send_fin(now, works, out);
        }
        if self.acknowledge {
            if !out.has_room() {
                return true;
            }
            self.send_ack(works, out);
            self.acknowledge = false;
        }
        !out.has_room()
    }

    fn send_fin<O: Output>(&mut self, now: u64, works: &mut Works, out: &mut O) {
        let Some(fin) = self.our_fin else { return };
        let draft = self.draft(FIN, fin, Some(self.expected()));
        Self::send_draft(&draft, works, out);
        let edge = self.expected().wrapping_add(u32::from(draft.window) << self.promised.min(14));
        self.answered(self.expected(), edge);
        self.used_at = now;
        if self.resend_at == NEVER {
            self.resend_at = now.saturating_add(self.round_trip.timeout());
        }
    }

    fn resend_fin<O: Output>(&mut self, now: u64, works: &mut Works, out: &mut O) {
        if self.our_fin.is_some() && !self.finished {
            self.retransmissions = self.retransmissions.saturating_add(1);
            works.counters.retransmitted = works.counters.retransmitted.saturating_add(1);
            self.send_fin(now, works, out);
        }
    }

    fn output_connecting<O: Output>(&mut self, now: u64, works: &mut Works, out: &mut O) -> bool {
        let Stage::Connecting { tries, at, crossed } = self.stage else { return false };
        let patience = self.tuning.user_timeout.map_or(NEVER, |t| u64::try_from(t.as_micros()).unwrap_or(NEVER));
        if now >= self.progress_at.saturating_add(patience) || tries > SYN_RETRIES && now >= at {
            self.fail(Some(End::TimedOut), works);
            return false;
        }
        if now < at {
            return false;
        }
        if !out.has_room() {
            return true;
        }
        let ack = crossed.then_some(self.tail);
        let mut draft = self.draft(SYN, self.head.wrapping_sub(1), ack);
        let largest = self.tuning.largest_segment.unwrap_or(u16::MAX).max(48);
        draft.mss = Some(mss_of(self.flow.local.ip(), self.mtu).min(largest));
        draft.sack = !crossed || self.peer.sack;
        draft.scale = (!crossed || self.peer.scale.is_some()).then(|| works.scale());
        draft.window = works.first_window();
        Self::send_draft(&draft, works, out);
        if tries > 0 {
            self.retransmissions = self.retransmissions.saturating_add(1);
            works.counters.retransmitted = works.counters.retransmitted.saturating_add(1);
        }
        let wait = 1_000_000u64 << tries.min(SYN_RETRIES);
        self.stage = Stage::Connecting { tries: tries.saturating_add(1), at: now.saturating_add(wait), crossed };
        false
    }

    /// How long what we sent may stay unanswered.
    fn give_up_at(&self) -> u64 {
        let waits = self.queued() > 0 || self.finishing && !self.finished;
        if !waits {
            return NEVER;
        }
        let usual = if self.owner == Owner::Nobody { GIVE_UP_ORPHAN } else { GIVE_UP };
        let patience = match self.tuning.user_timeout {
            Some(t) if self.owner == Owner::Nobody => u64::try_from(t.as_micros()).unwrap_or(NEVER).min(usual),
            Some(t) => u64::try_from(t.as_micros()).unwrap_or(NEVER),
            None => usual,
        };
        // A peer that says again and again that it has no room may do so, unless nobody waits for it.
        let closed = self.window == 0 && self.owner != Owner::Nobody && self.tuning.user_timeout.is_none();
        let since = if closed { self.progress_at.max(self.heard_at) } else { self.progress_at };
        since.saturating_add(patience)
    }

    fn keepalive_at(&self) -> u64 {
        let Some(keepalive) = self.tuning.keepalive else { return NEVER };
        if self.queued() > 0 || self.flight() > 0 || !matches!(self.stage, Stage::Open) {
            return NEVER;
        }
        let micros = |d: std::time::Duration| u64::try_from(d.as_micros()).unwrap_or(NEVER).max(1000);
        let more = micros(keepalive.interval).saturating_mul(u64::from(self.probes));
        self.heard_at.saturating_add(micros(keepalive.idle)).saturating_add(more)
    }

    fn silent_at(&self, works: &Works) -> u64 {
        let silence = if works.tight() { SHORT_SILENCE } else { SILENCE };
        if self.live.is_some() && self.unread() == 0 && self.quiescent() {
            self.used_at.saturating_add(silence)
        } else {
            NEVER
        }
    }

    /// Timers. True: it is over.
    fn due<O: Output>(&mut self, now: u64, works: &mut Works, out: &mut O) -> bool {
        if now >= self.give_up_at() {
            self.fail(Some(End::TimedOut), works);
            return true;
        }
        if now >= self.keepalive_at() {
            let user = self.tuning.user_timeout.map_or(NEVER, |t| u64::try_from(t.as_micros()).unwrap_or(NEVER));
            let silent = now.saturating_sub(self.heard_at) >= user && self.probes > 0;
            if silent || self.tuning.keepalive.is_some_and(|k| self.probes >= k.probes) {
                if let Some(draft) = self.reset_draft() {
                    Self::send_draft(&draft, works, out);
                }
                self.fail(Some(End::TimedOut), works);
                return true;
            }
            self.probes = self.probes.saturating_add(1);
            let draft = self.draft(0, self.highest.wrapping_sub(1), Some(self.expected()));
            Self::send_draft(&draft, works, out);
        }
        if now >= self.silent_at(works) {
            self.acknowledge |= self.unanswered > 0;
            self.rest(works);
        }
        if now >= self.probe_at {
            self.probe_at = NEVER;
            if self.queued() > 0 {
                self.resend = true;
                self.probed = Some(now);
            }
        }
        if now >= self.resend_at {
            (self.resend_at, self.probe_at, self.probed) = (NEVER, NEVER, None);
            let una = self.unacknowledged();
            if self.flight() > 0 && self.queued() == 0 {
                self.round_trip.back_off();
                self.round_trip.resent();
                self.resend_fin(now, works, out);
                self.resend_at = now.saturating_add(self.round_trip.timeout());
            } else if self.window == 0 && self.queued() > 0 {
                self.with(now, works, out, |live, way| live.acknowledge(live.unacknowledged(), 0, way));
                self.resend_at = now.saturating_add(self.round_trip.timeout().max(1_000_000));
            } else if self.flight() > 0 && self.window > 0 {
                self.congestion.expired(una, self.highest);
                self.round_trip.back_off();
                self.send_again(now, works, out);
                self.resend_at = now.saturating_add(self.round_trip.timeout());
            }
        }
        false
    }

    /// Sends what is not acknowledged again, as far as the window goes.
    fn send_again<O: Output>(&mut self, now: u64, works: &mut Works, out: &mut O) {
        self.round_trip.resent();
        let (field, mtu) = (self.field(), self.mtu);
        let seen = self.with(now, works, out, |live, way| {
            live.set_window(field, way);
            let mut seen = Seen::default();
            // What is due first may be an acknowledgement.
            for _ in 0..4 {
                if seen.again > 0 || !live.hurry(way.interfaces, mtu, way.now) {
                    break;
                }
                live.step(&mut seen, way);
            }
            way.train.flush(way.out);
            seen
        });
        self.sent(&seen.unwrap_or_default(), now, works);
    }

    /// When `output` is to be called at the latest.
    pub(crate) fn deadline(&mut self, now: u64, works: &mut Works) -> u64 {
        match self.stage {
            Stage::Connecting { at, .. } => match self.tuning.user_timeout {
                Some(t) => {
                    let patience = u64::try_from(t.as_micros()).unwrap_or(NEVER);
                    at.min(self.progress_at.saturating_add(patience))
                }
                None => at,
            },
            Stage::Open => {
                let wants = match &mut self.live {
                    // What smoltcp wants at once it would have had in `output`: not again before a while.
                    Some(live) => live
                        .wants(&mut works.interfaces, self.mtu, now)
                        .map_or(NEVER, |at| if at <= now { now.saturating_add(10_000) } else { at }),
                    None => NEVER,
                };
                let own = self.resend_at.min(self.probe_at).min(self.give_up_at()).min(self.keepalive_at());
                wants.min(own).min(self.silent_at(works))
            }
            Stage::Over => NEVER,
        }
    }

    // What its owner does.

    pub(crate) fn recv(&mut self, f: impl FnOnce(&[u8]) -> usize, works: &mut Works) -> usize {
        let Some(live) = &mut self.live else { return 0 };
        let taken = live.recv(f);
        if matches!(self.stage, Stage::Over) && live.unread() == 0 {
            self.rest(works);
        }
        taken
    }

    pub(crate) fn send(&mut self, f: impl FnOnce(&mut [u8]) -> usize, works: &mut Works) -> usize {
        if !matches!(self.stage, Stage::Open) || self.finishing {
            return 0;
        }
        self.wake(works);
        self.starved = self.larger_send;
        if self.larger_send {
            return 0;
        }
        let Some(live) = &mut self.live else { return 0 };
        let before = live.queued();
        let put = live.send(f);
        if before == 0 && put > 0 {
            self.progress_at = NEVER;
        }
        let (queued, capacity) = (live.queued(), live.send_capacity());
        if queued >= capacity {
            self.starved = true;
            self.larger_send = capacity < self.most(works).1 && !works.tight();
        }
        put
    }

    pub(crate) fn finish(&mut self) {
        if self.finishing {
            return;
        }
        self.finishing = true;
        self.passive = self.ended;
        self.larger_send = false;
        if self.queued() == 0 {
            self.progress_at = NEVER;
        }
    }

    pub(crate) fn tune(&mut self, tuning: Tuning) {
        if tuning.keepalive != self.tuning.keepalive {
            self.probes = 0;
            // As Linux: the time begins when it is turned on.
            if self.tuning.keepalive.is_none() {
                self.heard_at = NEVER;
            }
        }
        self.tuning = tuning;
    }

    /// The network said that a packet of ours with this sequence number did not arrive.
    pub(crate) fn unreachable(&mut self, sequence: u32, why: Unreachable, works: &mut Works) -> bool {
        // RFC 5927: only of what is on its way.
        let first = match self.stage {
            Stage::Connecting { .. } => self.head.wrapping_sub(1),
            Stage::Open => self.unacknowledged(),
            Stage::Over => return false,
        };
        if sequence.wrapping_sub(first) >= self.highest.wrapping_sub(first) {
            return false;
        }
        match (self.stage, why) {
            (_, Unreachable::TooBig(mtu)) => {
                // Linux's minimum for IPv4 (min_pmtu): what is less is likelier forged than true.
                let least = if self.flow.local.is_ipv4() { 552 } else { 1280 };
                let mtu = sane_mtu(&self.flow, (mtu as usize).max(least));
                if mtu < self.mtu {
                    self.mtu = mtu;
                    self.congestion.set_mss(u32::from(self.mss()));
                    self.resend = true;
                    if let Stage::Connecting { tries, crossed, .. } = self.stage {
                        self.stage = Stage::Connecting { tries, at: 0, crossed };
                    }
                }
            }
            (Stage::Connecting { .. }, why) => self.fail(Some(End::Unreachable(why)), works),
            (_, why) => {
                self.soft = Some(why);
                self.news = true;
            }
        }
        true
    }

    pub(crate) fn mtu_at_most(&mut self, mtu: usize) {
        let mtu = sane_mtu(&self.flow, mtu);
        if mtu < self.mtu {
            self.mtu = mtu;
            self.congestion.set_mss(u32::from(self.mss()));
        }
    }

    pub(crate) fn look(&self, works: &Works) -> Look {
        let micros = |m: u32| std::time::Duration::from_micros(u64::from(m));
        let capacity = match (&self.live, self.stage) {
            _ if self.finishing || self.larger_send => 0,
            (Some(live), Stage::Open) => live.send_capacity(),
            (None, Stage::Open) => works.first_sizes(0).1.min(self.most(works).1),
            _ => 0,
        };
        Look {
            flow: self.flow,
            phase: self.phase(),
            unread: self.unread(),
            unacknowledged: self.queued(),
            room: capacity.saturating_sub(self.queued()),
            ended: self.ended,
            finished: self.finishing,
            end: self.end,
            soft: self.soft,
            round_trip: self.round_trip.smoothed().map(|s| (micros(s), micros(self.round_trip.deviation()))),
            timeout: std::time::Duration::from_micros(self.round_trip.timeout()),
            mss: self.mss(),
            peer_mss: self.peer.mss,
            mtu: self.mtu,
            congestion: (self.congestion.window(), self.congestion.threshold()),
            windows: (self.window, self.edge.wrapping_sub(self.expected())),
            scales: self.peer.scale.map(|scale| (scale, self.promised)),
            sack: self.peer.sack,
            retransmissions: self.retransmissions,
            bytes: (self.received, self.acknowledged),
        }
    }

    /// How long our SYN|ACK and its acknowledgement took.
    pub(crate) fn measured(&mut self, micros: u64) {
        self.round_trip.sample(micros);
    }

    pub(crate) fn window_field(&self) -> u16 {
        self.offer_field()
    }
}
