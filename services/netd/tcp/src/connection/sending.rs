//! What a connection sends: SYN, what is lost, new bytes, FIN, acknowledgements.
//!
//! Must never send beyond the peer's window, nor more than the congestion window has place for, but for probes. Called by `engine` after
//! anything happened.

use super::{Connection, SYN_RETRIES, Stage, Works};
use crate::congestion::NEVER;
use crate::live::mss_of;
use crate::segment::{FIN, PSH, SYN, after};
use crate::{End, Output};

/// How many packets one connection sends before the next has its turn.
const TURN: usize = 64;
/// What a packet of several segments may have, headers included.
const LONGEST: usize = 65_535 - 100;

impl Connection {
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
        if self.due(now, works, out) {
            return false;
        }
        let mut turns = 0usize;
        while self.send_some(now, works, out) {
            turns = turns.saturating_add(1);
            if turns >= TURN || !out.has_room() {
                return true;
            }
        }
        if self.finishing && self.our_fin.is_none() && self.flight() as usize == self.queued() {
            if !out.has_room() {
                return true;
            }
            self.send_bytes(self.highest, 0, now, works, out);
        }
        if self.acknowledge {
            if !out.has_room() {
                return true;
            }
            self.send_ack(now, works, out);
        }
        !out.has_room()
    }

    /// Bytes that are believed to be on their way.
    pub(super) fn pipe(&self) -> u32 {
        let Some(live) = &self.live else { return 0 };
        // Each repeated acknowledgement is for a segment that arrived.
        let arrived = u32::from(self.repeated).saturating_mul(u32::from(self.mss()));
        live.board.pipe().saturating_sub(arrived)
    }

    /// One packet, of what is lost or of what is new. False: there is nothing that may be sent.
    fn send_some<O: Output>(&mut self, now: u64, works: &mut Works, out: &mut O) -> bool {
        let Some(live) = &self.live else { return false };
        if self.window == 0 {
            if live.queued() > 0 && self.resend_at == NEVER {
                self.resend_at = now.saturating_add(self.round_trip.timeout());
            }
            return false;
        }
        let mss = u32::from(self.mss()).max(1);
        let whole = |bytes: u32| bytes.saturating_sub(bytes.checked_rem(mss).unwrap_or(0)).max(mss);
        let chunk = whole(LONGEST as u32);
        let (head, end, lost) = (live.unacknowledged(), live.end(), live.board.next_lost());
        let pipe = self.pipe();
        let room = self.congestion.window().saturating_sub(pipe);
        let edge = self.unacknowledged().wrapping_add(self.window);
        if let Some((left, length)) = lost {
            let within = edge.wrapping_sub(left);
            let within = if (within as i32) < 0 { 0 } else { within };
            // The first is what the peer waits for, whatever it takes.
            let within = if left == head { within.max(mss) } else { within };
            if within == 0 || room < mss.min(length) && pipe > 0 {
                return false;
            }
            self.send_bytes(left, length.min(whole(room)).min(chunk).min(within), now, works, out);
            return true;
        }
        if self.our_fin.is_some() || !after(end, self.highest) {
            return false;
        }
        let flight = self.flight();
        let unsent = end.wrapping_sub(self.highest);
        let within = edge.wrapping_sub(self.highest);
        let within = if (within as i32) < 0 { 0 } else { within };
        let least = unsent.min(mss);
        if within < least {
            // It waits for a larger window; if nothing is on its way, who knows whether it hears of it.
            if flight == 0 && self.resend_at == NEVER {
                self.resend_at = now.saturating_add(self.round_trip.timeout());
            }
            return false;
        }
        if room < least && pipe > 0 {
            return false;
        }
        self.congestion.about_to_send(flight, now, self.round_trip.timeout());
        let room = self.congestion.window().saturating_sub(pipe).max(least);
        let mut length = unsent.min(within).min(room).min(chunk);
        let rest = length.checked_rem(mss).unwrap_or(0);
        if rest > 0 {
            // Where a window ends is no reason for a small segment; nor, by Nagle, for a second one (as Minshall has it: one may be on its way).
            let waits = !(self.tuning.nodelay || self.finishing) && after(self.small, self.unacknowledged());
            if length < unsent && length > rest || length == unsent && waits {
                length = length.saturating_sub(rest);
            }
        }
        if length == 0 {
            return false;
        }
        self.send_bytes(self.highest, length, now, works, out);
        true
    }

    /// Sends bytes (or none, for a FIN), as segments of one packet. What follows the last byte is a FIN, if it is time for it.
    pub(super) fn send_bytes<O: Output>(&mut self, seq: u32, length: u32, now: u64, works: &mut Works, out: &mut O) {
        let bytes_end = self.first_queued().wrapping_add(self.queued() as u32);
        let (end, mss) = (seq.wrapping_add(length), u32::from(self.mss()).max(1));
        let fin = end == bytes_end && self.finishing && !self.finished;
        let mut flags = if end == bytes_end && length > 0 { PSH } else { 0 };
        flags |= if fin { FIN } else { 0 };
        let draft = self.draft(flags, seq, Some(self.expected()), now);
        let (header, size) = draft.build(length as usize);
        let packet = &mut works.packet;
        packet.clear();
        packet.extend_from_slice(header.get(..size).unwrap_or_default());
        if let Some(live) = &mut self.live
            && length > 0
        {
            live.copy(seq, length as usize, packet);
            if after(end, live.board.end()) {
                live.board.sent(end, now);
            }
            if after(self.highest, seq) {
                live.board.resent(seq, end, now);
            }
        }
        out.send(packet, size, if length > mss { mss as u16 } else { 0 });
        let segments = u64::from(length.div_ceil(mss).max(1));
        works.counters.segments_out = works.counters.segments_out.saturating_add(segments);
        let again = after(self.highest, seq);
        if again {
            works.counters.retransmitted = works.counters.retransmitted.saturating_add(segments);
            self.retransmissions = self.retransmissions.saturating_add(u32::try_from(segments).unwrap_or(u32::MAX));
            if let Some(stamps) = self.stamps {
                self.first_again.get_or_insert(super::Stamps::value(stamps.offset, now));
            }
        }
        self.congestion.sent(length, if again { length } else { 0 });
        if self.flight() == 0 {
            self.progress_at = now;
        }
        let end = end.wrapping_add(u32::from(fin));
        if fin {
            self.our_fin = Some(bytes_end);
        }
        if self.resend_at == NEVER || again && seq == self.unacknowledged() {
            self.resend_at = now.saturating_add(self.round_trip.timeout());
        }
        if after(end, self.highest) {
            self.highest = end;
            if length.checked_rem(mss).unwrap_or(0) > 0 {
                self.small = end;
            }
            self.arm_probe(now);
        }
        self.used_at = now;
        self.answered(&draft);
    }

    pub(super) fn resend_fin<O: Output>(&mut self, now: u64, works: &mut Works, out: &mut O) {
        if let Some(fin) = self.our_fin
            && !self.finished
        {
            self.send_bytes(fin, 0, now, works, out);
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
        let mut draft = self.draft(SYN, self.head.wrapping_sub(1), ack, now);
        let largest = self.tuning.largest_segment.unwrap_or(u16::MAX).max(48);
        draft.mss = Some(mss_of(self.flow.local.ip(), self.mtu).min(largest));
        draft.sack = !crossed || self.peer.sack;
        draft.scale = (!crossed || self.peer.scale.is_some()).then(|| works.scale());
        let echo = if crossed { self.peer.stamp } else { Some(0) };
        draft.stamps = echo.map(|echo| (super::Stamps::value(self.stamp_offset, now), echo));
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
}
