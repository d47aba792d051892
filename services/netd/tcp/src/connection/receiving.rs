//! What comes of each segment of a peer.
//!
//! Decides what is believed (RFC 9293, RFC 5961, RFC 7323), takes what is new of it, and says what is to be answered. Called by `engine`.

use super::timers::ANSWER;
use super::{Connection, FAST, Owner, Peer, SECOND_RECEIVE, Stage, Works};
use crate::congestion::NEVER;
use crate::segment::{ACK, FIN, RST, SYN, Segment, after};
use crate::{End, Output};

/// When a SYN is tried again after an answer to another one.
const SOON: u64 = 4000;

impl Connection {
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
                return Self::send_draft(&self.draft(RST, segment.ack, None, now), works, out);
            }
            if !exact && after(self.expected(), segment.seq) {
                return;
            }
            let scale = if segment.has(SYN) { 0 } else { self.peer.scale.unwrap_or(0) };
            self.open(self.peer, self.tail, u32::from(segment.window) << scale, now, works);
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
                Self::send_draft(&self.draft(RST, segment.ack, None, now), works, out);
            }
            // As Linux: the peer had another one at this place, and knows better now.
            if tries == 1 {
                self.stage = Stage::Connecting { tries, at: now.saturating_add(SOON), crossed };
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
            self.open(peer, tail, u32::from(segment.window), now, works);
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
        let stamp = self.stamps.and(segment.options.stamps).map(|(value, _)| value);
        if !segment.has(RST)
            && let (Some(stamps), Some(value)) = (self.stamps, stamp)
            && stamps.is_old(value, now)
        {
            // PAWS: an old one, or one of another connection.
            return if segment.payload.is_empty() {
                self.challenge(now, works, out)
            } else {
                self.send_ack(now, works, out)
            };
        }
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
        let old = after(expected, segment.seq) && !after(end, expected);
        // All of it was there before: its acknowledgement was lost, or the peer asks whether we live.
        if old {
            // An acknowledgement that was overtaken by data says what it says. One before the last byte asks whether we live.
            let near = expected.wrapping_sub(segment.seq) as usize <= works.receive();
            if length == 0 && (ahead == u32::MAX || !near) {
                self.challenge(now, works, out);
            }
            if !near {
                if length > 0 {
                    self.send_ack(now, works, out);
                }
                return;
            }
        }
        // All of it is beyond what we take.
        if !after(expected, segment.seq) && ahead > offer {
            return if length > 0 { self.send_ack(now, works, out) } else { self.challenge(now, works, out) };
        }
        // What was not sent, or what was acknowledged long ago (RFC 5961, 5.2).
        let oldest = self.unacknowledged().wrapping_sub(self.widest.min(1 << 30));
        if after(segment.ack, self.highest) || after(oldest, segment.ack) {
            return self.challenge(now, works, out);
        }
        self.heard(now);
        // RFC 7323, 4.3: what is echoed is of the segment that the next acknowledgement is for.
        if let (Some(stamps), Some(value)) = (&mut self.stamps, stamp)
            && !after(segment.seq, self.said)
            && !after(stamps.recent, value)
        {
            (stamps.recent, stamps.since) = (value, now);
        }
        // A connection that nobody has takes nothing more.
        if self.owner == Owner::Nobody && !segment.payload.is_empty() && !old {
            Self::send_draft(&self.draft(RST, segment.ack, None, now), works, out);
            return self.fail(Some(End::Reset), works);
        }
        self.acknowledged(segment, now);
        if old {
            if length > 0 {
                self.twice = Some((segment.seq, end));
                self.send_ack(now, works, out);
            }
            return;
        }
        // After the end there is nothing.
        if self.ended {
            return;
        }
        // For an acknowledgement, and for a FIN in its place, no buffers are made.
        if self.live.is_none() && !segment.payload.is_empty() {
            self.wake(works);
        }
        self.feed(segment, now, works, out);
    }

    fn heard(&mut self, now: u64) {
        (self.heard_at, self.used_at, self.probes) = (now, now, 0);
    }

    /// Takes what a segment brings.
    fn feed<O: Output>(&mut self, segment: &Segment<'_>, now: u64, works: &mut Works, out: &mut O) {
        let (expected, unread) = (self.next_byte(), self.unread());
        let mut missing = false;
        let mut fits = 0;
        if !segment.payload.is_empty() {
            let mut room = self.offer();
            if let Some(fin) = self.their_fin {
                let left = fin.wrapping_sub(expected);
                room = room.min(if (left as i32) < 0 { 0 } else { left as usize });
            }
            let ahead = segment.seq.wrapping_sub(expected);
            // Where it may end, from where it begins.
            let most = if (ahead as i32) < 0 {
                room.saturating_add(ahead.wrapping_neg() as usize)
            } else {
                room.saturating_sub(ahead as usize)
            };
            fits = most.min(segment.payload.len());
            let payload = segment.payload.get(..fits).unwrap_or_default();
            if let Some(live) = &mut self.live {
                let came = live.receive(segment.seq, payload);
                missing = came.at_once;
                self.twice = came.twice.or(self.twice);
            }
        }
        let whole = fits == segment.payload.len();
        if segment.has(FIN) && whole {
            self.their_fin.get_or_insert(segment.seq.wrapping_add(fits as u32));
        }
        let came = self.unread().saturating_sub(unread);
        self.received = self.received.saturating_add(came as u64);
        self.news |= came > 0;
        if !self.ended && self.their_fin == Some(self.next_byte()) {
            self.ended = true;
            self.news = true;
        }
        if !segment.payload.is_empty() || segment.has(FIN) {
            self.unanswered = self.unanswered.saturating_add(came);
            // Each says what is missing, as the peer counts them.
            if missing || segment.has(FIN) && !self.ended {
                self.send_ack(now, works, out);
            } else if segment.has(FIN) || !whole || self.unanswered > usize::from(self.mss()) {
                // More than a segment is acknowledged at once (as Linux), and so is the end.
                self.acknowledge = true;
            } else if self.answer_at == NEVER {
                self.answer_at = now.saturating_add(ANSWER);
            }
        }
        if came > 0 {
            self.measure(came, now, works);
        }
    }

    fn measure(&mut self, came: usize, now: u64, works: &mut Works) {
        if now.saturating_sub(self.fast.0) > FAST {
            self.fast = (now, 0);
        }
        self.fast.1 = self.fast.1.saturating_add(came);
        let (capacity, most) = (self.live.as_ref().map_or(0, |live| live.receive_capacity()), self.most(works).0);
        // A larger window is for a fast stream, and for who reads.
        if self.fast.1 >= capacity / 2 && capacity < most && self.unread() <= capacity / 2 {
            let larger = if capacity < SECOND_RECEIVE { SECOND_RECEIVE.min(most) } else { most };
            self.grow(larger, 0, works);
            self.acknowledge = true;
        }
    }
}
