//! One connection: what it is, and what its owner does with it.
//!
//! Owns a connection's sequence numbers, windows, timers and congestion control, and its buffers while there is something in them. What comes
//! of each segment is in `receiving`, what is sent in `sending`, acknowledgements and losses in `recovery`, what is due in `timers`. Called by
//! `engine`, which knows which connection a packet is for.

mod receiving;
mod recovery;
mod sending;
mod timers;

use crate::congestion::{Congestion, NEVER, RoundTrip};
use crate::keyed::Key;
use crate::live::{Live, mss_of, scale_of};
use crate::segment::{Draft, RST, Segment, after};
use crate::{Counters, End, Flow, Limits, ListenerId, Look, Output, Phase, Tuning, Unreachable};

/// What a connection's first buffers have. What is promised in a SYN is the first.
pub(crate) const FIRST_RECEIVE: usize = 32 << 10;
const FIRST_SEND: usize = 64 << 10;
/// What they have when there is no memory left.
const LEAST: usize = 4 << 10;
/// So many pairs of buffers are kept to be used again.
const SPARE: usize = 64;
/// The step between the first and the largest receive buffer.
const SECOND_RECEIVE: usize = 256 << 10;
/// In which a fast stream fills half of its buffer.
const FAST: u64 = 100_000;
/// How often what may be forged is answered (Linux: tcp_invalid_ratelimit).
pub(crate) const CHALLENGE: u64 = 500_000;
/// What the option of timestamps takes of a segment.
const STAMPS: u16 = 12;
/// SYNs after the first (Linux: tcp_syn_retries).
const SYN_RETRIES: u8 = 6;
/// Timestamps that are older than this say nothing (RFC 7323, 5.5).
const STALE: u64 = 24 * 86_400 * 1_000_000;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Works {
    pub(crate) counters: Counters,
    pub(crate) limits: Limits,
    /// Where packets are put together.
    pub(crate) packet: Vec<u8>,
    /// Buffers of the first size that are not needed.
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

    fn make(&mut self, head: u32, tail: u32, receive: usize, send: usize) -> Box<Live> {
        let usual = (receive, send) == (FIRST_RECEIVE, FIRST_SEND);
        let live = match if usual { self.spare.pop() } else { None } {
            Some(spare) => spare.again(head, tail),
            None => Live::new(head, tail, receive, send),
        };
        let counters = &mut self.counters;
        counters.live = counters.live.saturating_add(1);
        counters.memory = counters.memory.saturating_add(receive.saturating_add(send) as u64);
        Box::new(live)
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
    /// The TSval of its SYN, if it had one.
    pub(crate) stamp: Option<u32>,
}

impl Peer {
    pub(crate) fn of(segment: &Segment<'_>) -> Self {
        let usual = if segment.remote.is_ipv4() { 536 } else { 1220 };
        let mss = segment.options.mss.filter(|&mss| mss != 0).unwrap_or(usual);
        // Linux's minimum: a segment has to carry something.
        Peer {
            mss: mss.max(48),
            scale: segment.options.scale,
            sack: segment.options.sack,
            stamp: segment.options.stamps.map(|s| s.0),
        }
    }
}

/// Timestamps (RFC 7323), where both have them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamps {
    /// What is added to our clock, so that it says nothing of other connections.
    pub(crate) offset: u32,
    /// The peer's that is echoed, and since when.
    pub(crate) recent: u32,
    pub(crate) since: u64,
}

impl Stamps {
    /// Our clock, in milliseconds.
    pub(crate) fn value(offset: u32, now: u64) -> u32 {
        ((now / 1000) as u32).wrapping_add(offset)
    }

    /// PAWS: what carries this one is older than something that came.
    pub(crate) fn is_old(&self, value: u32, now: u64) -> bool {
        after(self.recent, value) && now.saturating_sub(self.since) < STALE
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
    /// Without buffers: the first sequence number that is not acknowledged, the one that is expected.
    head: u32,
    tail: u32,
    /// The end of what was ever sent; of the last segment that was not a full one.
    pub(crate) highest: u32,
    small: u32,
    /// What the peer takes after what it acknowledged.
    window: u32,
    /// The most that it ever took, and the sequence number of the segment that said last what it takes.
    widest: u32,
    window_at: u32,
    /// The edge of what the peer was told that we take, and what was last acknowledged.
    edge: u32,
    said: u32,
    stamp_offset: u32,
    pub(crate) stamps: Option<Stamps>,
    congestion: Congestion,
    round_trip: RoundTrip,
    /// The timers: retransmission, or a closed window; the last segments may be lost (RFC 8985's probe); what is late may be lost; an
    /// acknowledgement that waited for company.
    resend_at: u64,
    probe_at: u64,
    late_at: u64,
    answer_at: u64,
    progress_at: u64,
    heard_at: u64,
    used_at: u64,
    probes: u8,
    quiet_until: u64,
    /// What came since the last acknowledgement, and whether one is to go at once.
    unanswered: usize,
    acknowledge: bool,
    /// What came twice and was not told yet (RFC 2883).
    twice: Option<(u32, u32)>,
    /// How often the same was acknowledged, by a peer that does not know SACK.
    repeated: u8,
    /// What had been sent when the last segment was sent as a probe, and whether it was sent again for that.
    probed: Option<(u32, bool)>,
    /// Our clock when something was first sent again in this recovery.
    first_again: Option<u32>,
    /// How much came since a moment: whether the stream is a fast one.
    fast: (u64, usize),
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
    /// Our initial sequence number, and where our timestamps begin.
    pub(crate) initial: u32,
    pub(crate) stamp_offset: u32,
    pub(crate) now: u64,
}

/// The MTUs that can be: headers and options must fit, and lengths be of 16 bits.
pub(crate) fn sane_mtu(flow: &Flow, mtu: usize) -> usize {
    mtu.clamp(if flow.local.is_ipv4() { 296 } else { 1280 }, 65_535)
}

impl Connection {
    /// One whose SYN is to be sent.
    pub(crate) fn connecting(birth: &Birth) -> Self {
        let Birth { flow, owner, tuning, mtu, initial, stamp_offset, now } = *birth;
        Connection {
            key: Key::new(flow.local, flow.remote),
            flow,
            owner,
            stage: Stage::Connecting { tries: 0, at: 0, crossed: false },
            live: None,
            tuning,
            peer: Peer { mss: 536, scale: None, sack: false, stamp: None },
            mtu: sane_mtu(&flow, mtu),
            promised: 0,
            head: initial.wrapping_add(1),
            tail: 0,
            highest: initial.wrapping_add(1),
            small: initial,
            window: 0,
            widest: u32::MAX,
            window_at: 0,
            edge: 0,
            said: 0,
            stamp_offset,
            stamps: None,
            congestion: Congestion::new(536),
            round_trip: RoundTrip::new(),
            resend_at: NEVER,
            probe_at: NEVER,
            late_at: NEVER,
            answer_at: NEVER,
            progress_at: now,
            heard_at: now,
            used_at: now,
            probes: 0,
            quiet_until: 0,
            unanswered: 0,
            acknowledge: false,
            twice: None,
            repeated: 0,
            probed: None,
            first_again: None,
            fast: (now, 0),
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
        connection.open(peer, tail, window, birth.now, works);
        connection
    }

    fn open(&mut self, peer: Peer, tail: u32, window: u32, now: u64, works: &Works) {
        self.stage = Stage::Open;
        self.peer = peer;
        self.promised = if peer.scale.is_some() { works.scale() } else { 0 };
        (self.tail, self.said, self.window_at) = (tail, tail, tail.wrapping_sub(1));
        self.stamps = peer.stamp.map(|recent| Stamps { offset: self.stamp_offset, recent, since: now });
        self.edge = tail.wrapping_add(u32::from(works.first_window()));
        self.window = window;
        self.widest = if window == 0 { u32::MAX } else { window };
        self.congestion = Congestion::new(u32::from(self.mss()));
        self.news = true;
    }

    /// The most bytes that a segment has.
    pub(crate) fn mss(&self) -> u16 {
        let largest = self.tuning.largest_segment.unwrap_or(u16::MAX).max(48);
        let whole = self.peer.mss.min(mss_of(self.flow.local.ip(), self.mtu)).min(largest);
        // As Linux: two segments fit what the peer takes at most.
        let fits = if self.widest > 536 { self.widest / 2 } else { self.widest.max(48) };
        let whole = whole.min(u16::try_from(fits).unwrap_or(u16::MAX));
        if self.stamps.is_some() { whole.saturating_sub(STAMPS) } else { whole }
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

    /// How much we take after what is expected: what the peer was told, as far as there is room.
    fn offer(&self) -> usize {
        let offer = self.edge.wrapping_sub(self.next_byte());
        let offer = if (offer as i32) < 0 { 0 } else { offer as usize };
        self.live.as_ref().map_or(offer, |live| offer.min(live.receive_room()))
    }

    /// What is to be said that we take, as a window field. The edge does not go back, nor forward by less than it is worth.
    fn offer_field(&self) -> u16 {
        let scale = u32::from(self.promised.min(14));
        let offer = self.edge.wrapping_sub(self.next_byte());
        let offer = if (offer as i32) < 0 { 0 } else { offer as usize };
        let field = match &self.live {
            Some(live) => {
                let (room, least) = (live.receive_room(), usize::from(self.mss()).min(live.receive_capacity() / 2));
                let more = (room >> scale) << scale;
                if more >= offer.saturating_add(least) { room >> scale } else { offer.div_ceil(1 << scale) }
            }
            None => offer.div_ceil(1 << scale),
        };
        u16::try_from(field).unwrap_or(u16::MAX)
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

    fn draft(&self, flags: u8, seq: u32, ack: Option<u32>, now: u64) -> Draft {
        let mut draft = Draft::new(self.flow.local, self.flow.remote, flags, seq, ack);
        draft.hop_limit = self.tuning.hop_limit.max(1);
        draft.traffic_class = self.tuning.traffic_class;
        draft.window = self.offer_field();
        draft.stamps = self.stamps.map(|s| (Stamps::value(s.offset, now), s.recent));
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
    fn send_ack(&mut self, now: u64, works: &mut Works, out: &mut impl Output) {
        let mut draft = self.draft(0, self.highest, Some(self.expected()), now);
        if self.peer.sack {
            let twice = self.twice.take();
            let room = if self.stamps.is_some() { 3 } else { 4 };
            let holes = self.live.as_ref().map(|live| live.holes.told(room)).unwrap_or_default();
            let blocks = twice.into_iter().chain(holes.into_iter().flatten()).take(room);
            draft.blocks.iter_mut().zip(blocks).for_each(|(to, block)| *to = Some(block));
        }
        Self::send_draft(&draft, works, out);
        self.answered(&draft);
    }

    /// The peer was told by this what we have and take.
    fn answered(&mut self, draft: &Draft) {
        let taken = u32::from(draft.window) << self.promised.min(14);
        let edge = self.next_byte().wrapping_add(taken);
        // Less is only what rounding up has made of the one before.
        if after(edge, self.edge) && edge.wrapping_sub(self.edge) >> self.promised.min(14) > 0 {
            self.edge = edge;
        }
        self.said = self.expected();
        self.unanswered = 0;
        (self.acknowledge, self.answer_at) = (false, NEVER);
    }

    /// RFC 5961: whoever meant it will say it again, with the right numbers.
    fn challenge(&mut self, now: u64, works: &mut Works, out: &mut impl Output) {
        if now >= self.quiet_until {
            self.quiet_until = now.saturating_add(CHALLENGE);
            works.counters.challenges = works.counters.challenges.saturating_add(1);
            self.send_ack(now, works, out);
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

    /// Does without buffers.
    pub(crate) fn rest(&mut self, works: &mut Works) {
        (self.head, self.tail) = (self.first_queued(), self.next_byte());
        if let Some(live) = self.live.take() {
            works.give_back(*live);
        }
    }

    /// RST and ACK, for an abort.
    pub(crate) fn reset_draft(&self, now: u64) -> Option<Draft> {
        let mut draft = self.draft(RST, self.highest, Some(self.expected()), now);
        draft.window = 0;
        match self.stage {
            Stage::Open => Some(draft),
            Stage::Connecting { crossed: true, .. } => Some(draft),
            Stage::Connecting { .. } | Stage::Over => None,
        }
    }

    /// Makes buffers, if there are none.
    fn wake(&mut self, works: &mut Works) {
        if self.live.is_none() && matches!(self.stage, Stage::Open) {
            let (receive, send) = works.first_sizes(self.edge.wrapping_sub(self.tail) as usize);
            self.live = Some(works.make(self.head, self.tail, receive, send.min(self.most(works).1)));
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

    /// Nothing is under way in either direction, so that there need be no buffers.
    fn quiescent(&self) -> bool {
        matches!(self.stage, Stage::Open)
            && self.queued() == 0
            && self.flight() == 0
            && self.unanswered == 0
            && self.live.as_ref().is_none_or(|live| live.holes.is_empty())
    }

    /// Larger buffers, if there is memory for them.
    fn grow(&mut self, receive: usize, send: usize, works: &mut Works) {
        let Some(live) = &mut self.live else { return };
        if works.tight() {
            return;
        }
        let more =
            receive.saturating_sub(live.receive_capacity()).saturating_add(send.saturating_sub(live.send_capacity()));
        live.grow(receive, send);
        works.counters.memory = works.counters.memory.saturating_add(more as u64);
    }

    // What its owner does.

    pub(crate) fn recv(&mut self, f: impl FnOnce(&[u8]) -> usize, works: &mut Works) -> usize {
        let Some(live) = &mut self.live else { return 0 };
        let taken = live.recv(f);
        if matches!(self.stage, Stage::Over) {
            if live.unread() == 0 {
                self.rest(works);
            }
        } else if taken > 0 && !self.ended {
            // As Linux: the peer hears of room when there is twice as much as it knows.
            let told = self.edge.wrapping_sub(self.next_byte());
            let told = if (told as i32) < 0 { 0 } else { told as usize };
            let now = usize::from(self.offer_field()) << self.promised.min(14);
            self.acknowledge |= now > told && now >= told.saturating_mul(2);
        }
        taken
    }

    pub(crate) fn send(&mut self, f: impl FnOnce(&mut [u8]) -> usize, works: &mut Works) -> usize {
        if !matches!(self.stage, Stage::Open) || self.finishing {
            return 0;
        }
        self.wake(works);
        let Some(live) = &self.live else { return 0 };
        let (queued, capacity) = (live.queued(), live.send_capacity());
        let most = self.most(works).1;
        if queued >= capacity && capacity < most {
            self.grow(0, capacity.saturating_mul(4).min(most), works);
        }
        let Some(live) = &mut self.live else { return 0 };
        let put = live.send(f);
        if queued == 0 && put > 0 {
            self.progress_at = NEVER;
        }
        self.starved = live.queued() >= live.send_capacity();
        put
    }

    pub(crate) fn finish(&mut self) {
        if self.finishing {
            return;
        }
        self.finishing = true;
        self.passive = self.ended;
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
                    // What was too long is sent again, which has nothing to do with how full the network is.
                    if let Some(live) = &mut self.live {
                        live.board.all_lost();
                    }
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
            _ if self.finishing => 0,
            (Some(live), Stage::Open) if works.tight() => live.send_capacity(),
            // It grows when it is full.
            (Some(live), Stage::Open) if live.queued() >= live.send_capacity() => self.most(works).1,
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
