//! A connection's timers.
//!
//! Called by `sending` before anything is sent, and by `engine`, which asks when the next is due.

use super::{Connection, Owner, Stage, Works};
use crate::congestion::NEVER;
use crate::{End, Output};

/// A connection in which nothing happened for so long gives its buffers back.
const SILENCE: u64 = 2_000_000;
/// The same when memory is scarce.
const SHORT_SILENCE: u64 = 50_000;
/// Linux' tcp_retries2 and its orphans' retries, as times.
const GIVE_UP: u64 = 924_600_000;
const GIVE_UP_ORPHAN: u64 = 120_000_000;
/// The least time before the last segments are asked for.
const PROBE: u64 = 10_000;
/// How long the peer may keep an acknowledgement back.
const DELAYED: u64 = 200_000;
/// How long an acknowledgement may wait for another segment or for data.
pub(super) const ANSWER: u64 = 10_000;

impl Connection {
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

    /// When the last segments are asked for, if nobody says anything of them: the peer cannot say that something is missing if nothing
    /// follows it.
    pub(super) fn arm_probe(&mut self, now: u64) {
        // One segment alone may wait for its acknowledgement a while; then a probe says no less than the timer, and does no harm.
        let alone = if self.flight() <= u32::from(self.mss()) { DELAYED } else { 0 };
        let even = self.live.as_ref().is_none_or(|live| !live.board.is_uneven());
        self.probe_at = match self.round_trip.smoothed() {
            Some(time)
                if self.peer.sack && even && self.window > 0 && self.probed.is_none() && self.congestion.open() =>
            {
                let after = u64::from(time).saturating_mul(2).saturating_add(alone).max(PROBE);
                now.saturating_add(after).min(self.resend_at)
            }
            _ => NEVER,
        };
    }

    /// Timers. True: it is over.
    pub(super) fn due<O: Output>(&mut self, now: u64, works: &mut Works, out: &mut O) -> bool {
        if now >= self.give_up_at() {
            self.fail(Some(End::TimedOut), works);
            return true;
        }
        if now >= self.keepalive_at() {
            let user = self.tuning.user_timeout.map_or(NEVER, |t| u64::try_from(t.as_micros()).unwrap_or(NEVER));
            let silent = now.saturating_sub(self.heard_at) >= user && self.probes > 0;
            if silent || self.tuning.keepalive.is_some_and(|k| self.probes >= k.probes) {
                if let Some(draft) = self.reset_draft(now) {
                    Self::send_draft(&draft, works, out);
                }
                self.fail(Some(End::TimedOut), works);
                return true;
            }
            self.probes = self.probes.saturating_add(1);
            self.ask(now, works, out);
        }
        if now >= self.answer_at {
            self.answer_at = NEVER;
            self.acknowledge = true;
        }
        if now >= self.silent_at(works) {
            self.rest(works);
        }
        if now >= self.late_at {
            self.late_at = NEVER;
            self.look_for_lost(now);
        }
        if now >= self.probe_at {
            self.probe_at = NEVER;
            self.probe(now, works, out);
        }
        if now >= self.resend_at {
            self.expire(now, works, out);
        }
        false
    }

    /// A segment that says nothing new: the peer answers it.
    fn ask<O: Output>(&mut self, now: u64, works: &mut Works, out: &mut O) {
        let draft = self.draft(0, self.unacknowledged().wrapping_sub(1), Some(self.expected()), now);
        Self::send_draft(&draft, works, out);
        self.answered(&draft);
    }

    /// Sends something more, or the last segment again: the answer says what is missing (RFC 8985, 7).
    fn probe<O: Output>(&mut self, now: u64, works: &mut Works, out: &mut O) {
        let mss = u32::from(self.mss()).max(1);
        let bytes_end = self.first_queued().wrapping_add(self.queued() as u32);
        let unsent = if self.our_fin.is_some() { 0 } else { bytes_end.wrapping_sub(self.highest) };
        let within = self.window.saturating_sub(self.flight());
        let last = if self.our_fin.is_some() { bytes_end } else { self.highest };
        let flight = last.wrapping_sub(self.first_queued());
        let fresh = unsent > 0 && within >= unsent.min(mss);
        if fresh {
            self.send_bytes(self.highest, unsent.min(mss), now, works, out);
        } else if flight > 0 {
            let length = flight.checked_rem(mss).filter(|&rest| rest > 0).unwrap_or(mss).min(flight);
            self.send_bytes(last.wrapping_sub(length), length, now, works, out);
        } else {
            self.resend_fin(now, works, out);
        }
        self.probed = Some((self.highest, !fresh));
        self.probe_at = NEVER;
        self.resend_at = now.saturating_add(self.round_trip.timeout());
    }

    /// The retransmission timer.
    fn expire<O: Output>(&mut self, now: u64, works: &mut Works, out: &mut O) {
        (self.resend_at, self.probe_at, self.late_at, self.probed) = (NEVER, NEVER, NEVER, None);
        let una = self.unacknowledged();
        if self.flight() == 0 {
            // Bytes that find no room: does the peer still have none?
            if self.queued() > 0 {
                let within = self.window.min(u32::from(self.mss())).min(self.queued() as u32);
                if within > 0 {
                    self.send_bytes(self.highest, within, now, works, out);
                } else {
                    self.ask(now, works, out);
                }
                self.round_trip.back_off();
                self.resend_at = now.saturating_add(self.round_trip.timeout());
            }
            return;
        }
        self.round_trip.back_off();
        self.resend_at = now.saturating_add(self.round_trip.timeout());
        if self.queued() == 0 {
            return self.resend_fin(now, works, out);
        }
        self.congestion.expired(una, self.highest);
        (self.repeated, self.first_again) = (0, None);
        let mut length = 0;
        if let Some(live) = &mut self.live {
            if live.board.is_reneged() {
                live.board.forget();
            }
            live.board.all_lost();
            length = live.board.next_lost().map_or(0, |(_, length)| length).min(u32::from(self.mss()));
        }
        if length == 0 {
            return self.resend_fin(now, works, out);
        }
        // The first at least, also into a window that has closed over it.
        self.send_bytes(una, length, now, works, out);
    }

    /// When `output` is to be called at the latest.
    pub(crate) fn deadline(&self, works: &Works) -> u64 {
        match self.stage {
            Stage::Connecting { at, .. } => match self.tuning.user_timeout {
                Some(t) => {
                    let patience = u64::try_from(t.as_micros()).unwrap_or(NEVER);
                    at.min(self.progress_at.saturating_add(patience))
                }
                None => at,
            },
            Stage::Open => {
                let losses = self.resend_at.min(self.probe_at).min(self.late_at);
                let others = self.give_up_at().min(self.keepalive_at()).min(self.answer_at);
                losses.min(others).min(self.silent_at(works))
            }
            Stage::Over => NEVER,
        }
    }
}
