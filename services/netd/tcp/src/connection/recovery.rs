//! What acknowledgements say: what arrived, what is missing, and what is taken for lost.
//!
//! Everything here is from the peer's mouth: it can make us send again what it has, slower, or as fast as before it was thought to be lost, and
//! nothing else. Called by `receiving` and `timers`.

use super::{Connection, Stamps};
use crate::board::News;
use crate::congestion::NEVER;
use crate::segment::{Segment, after};

/// So many segments behind a hole, or so many repeated acknowledgements, say that it is one (RFC 5681).
const ENOUGH: u8 = 3;

impl Connection {
    /// An acknowledgement that is not beyond what was sent; it may be an old one.
    pub(super) fn acknowledged(&mut self, segment: &Segment<'_>, now: u64) {
        let una = self.unacknowledged();
        let old = after(una, segment.ack);
        let flight = self.flight();
        let newly = if old { 0 } else { segment.ack.wrapping_sub(una) };
        let window = u32::from(segment.window) << self.peer.scale.unwrap_or(0);
        // As Linux: what was overtaken does not make it smaller.
        let newest = newly > 0
            || after(segment.seq, self.window_at)
            || segment.seq == self.window_at && (window > self.window || window == 0);
        let same = !old && !newest && segment.length() == 0;
        if !old && newest {
            self.window_at = segment.seq;
            if self.window == 0 && window > 0 {
                self.progress_at = now;
                self.round_trip.forward();
                if flight == 0 {
                    (self.resend_at, self.probe_at) = (NEVER, NEVER);
                } else if !self.congestion.open() {
                    // What was sent into the closed window was thrown away.
                    self.resend_at = now.saturating_add(self.round_trip.timeout());
                    if let Some(live) = &mut self.live {
                        live.board.all_lost();
                    }
                }
            }
            self.window = window;
            if window > 0 {
                self.widest = if self.widest == u32::MAX { window } else { self.widest.max(window) };
            }
        }
        let least = self.round_trip.least();
        let mut news = News::default();
        let mut told_twice = None;
        let mut gone = 0;
        let bytes_end = self.first_queued().wrapping_add(self.queued() as u32);
        if let Some(live) = &mut self.live {
            let ack = if after(segment.ack, bytes_end) { bytes_end } else { segment.ack };
            if newly > 0 {
                live.board.acknowledged(ack, now, least, &mut news);
                gone = live.acknowledge(ack);
            }
            if self.peer.sack && segment.options.blocks.iter().any(Option::is_some) {
                let mut blocks = segment.options.blocks;
                told_twice = came_twice(&blocks, segment.ack);
                if told_twice.is_some() {
                    blocks[0] = None;
                }
                // Low ones first: what arrives behind another that arrives with it is not out of order.
                blocks.sort_unstable_by_key(|block| block.map_or(u32::MAX, |b| b.0.wrapping_sub(una)));
                for (left, right) in blocks.into_iter().flatten() {
                    // A FIN may be among it.
                    let fin = self.our_fin.is_some() && right == bytes_end.wrapping_add(1);
                    let right = if fin { bytes_end } else { right };
                    if !after(segment.ack, left) {
                        live.board.has(left, right, now, least, &mut news);
                    }
                }
            }
            if told_twice.is_some() {
                live.board.came_twice();
            }
        }
        if let Some((left, right)) = told_twice
            && self.congestion.came_twice(right.wrapping_sub(left))
            && let Some(live) = &mut self.live
        {
            live.board.found();
        }
        self.acknowledged = self.acknowledged.saturating_add(gone as u64);
        self.news |= gone > 0 && self.starved;
        if self.our_fin.is_some_and(|fin| after(segment.ack, fin)) && !self.finished {
            self.finished = true;
            self.news = true;
        }
        if newly > 0 {
            self.measure_round_trip(segment, &news, now);
            self.progress_at = now;
            self.round_trip.forward();
            self.resend_at = if newly == flight { NEVER } else { now.saturating_add(self.round_trip.timeout()) };
            // What it answers left before anything was sent again: nothing had been lost.
            if let (Some(first), Some((_, echo))) = (self.first_again, segment.options.stamps)
                && self.stamps.is_some()
                && !self.congestion.open()
                && after(first, echo)
            {
                self.congestion.restore();
                self.first_again = None;
                if let Some(live) = &mut self.live {
                    live.board.found();
                }
            }
        } else if let Some(took) = news.took {
            self.round_trip.sample(took);
        }
        self.probe_answered(segment.ack, flight, told_twice.is_some(), same && news.delivered == 0);
        if !self.peer.sack {
            self.without_sack(same && flight > 0, newly, &mut news);
        }
        self.look_for_lost(now);
        // What repeats says that something arrived.
        self.congestion.acknowledged(segment.ack, newly, flight, now, &self.round_trip);
        let pipe = self.pipe();
        self.congestion.delivered(news.delivered, pipe);
        if self.congestion.open() {
            self.first_again = None;
        }
        // A window that is closed is asked for again and again, for as long as that is answered.
        if window == 0 && self.queued() > 0 && self.resend_at == NEVER {
            self.resend_at = now.saturating_add(self.round_trip.timeout());
        }
        if newly > 0 || news.delivered > 0 {
            self.arm_probe(now);
        }
    }

    fn measure_round_trip(&mut self, segment: &Segment<'_>, news: &News, now: u64) {
        if let Some(took) = news.took {
            return self.round_trip.sample(took);
        }
        // Of what was sent more than once the echo tells which of them is answered.
        if let (Some(stamps), Some((_, echo))) = (self.stamps, segment.options.stamps) {
            let took = Stamps::value(stamps.offset, now).wrapping_sub(echo);
            if news.delivered > 0 && echo != 0 && took < 60_000 {
                self.round_trip.sample(u64::from(took).saturating_mul(1000));
            }
        }
    }

    /// RFC 8985, 7.4: whether a probe filled a hole.
    fn probe_answered(&mut self, ack: u32, flight: u32, twice: bool, repeated: bool) {
        let Some((end, again)) = self.probed else { return };
        if after(end, ack) {
            return;
        }
        if !again || twice || repeated {
            self.probed = None;
        } else if after(ack, end) {
            self.probed = None;
            self.congestion.repaired(flight);
        }
    }

    /// RFC 6582, for a peer that does not say what it has.
    fn without_sack(&mut self, same: bool, newly: u32, news: &mut News) {
        let mss = u32::from(self.mss()).max(1);
        let (una, highest, recovers) = (self.unacknowledged(), self.highest, self.congestion.recovers());
        let Some(live) = &mut self.live else { return };
        if newly > 0 {
            let segments = u8::try_from(newly.checked_div(mss).unwrap_or(1)).unwrap_or(u8::MAX).max(1);
            self.repeated = if recovers { self.repeated.saturating_sub(segments) } else { 0 };
            if recovers && after(highest, una) && !live.board.has_lost() {
                live.board.first_lost(mss);
            }
        } else if same {
            self.repeated = self.repeated.saturating_add(1);
            news.delivered = news.delivered.saturating_add(mss);
            if self.repeated == ENOUGH && self.congestion.open() {
                live.board.first_lost(mss);
            }
        }
        if self.congestion.open() && newly > 0 {
            self.repeated = 0;
        }
    }

    /// Looks for what is lost, and slows down for it.
    pub(super) fn look_for_lost(&mut self, now: u64) {
        let (una, highest, open) = (self.unacknowledged(), self.highest, self.congestion.open());
        let enough = u32::from(self.mss()).saturating_mul(u32::from(ENOUGH));
        let Some(live) = &mut self.live else { return };
        let settled = !open || live.board.had() >= enough;
        let (least, smoothed) = (self.round_trip.least(), self.round_trip.smoothed().unwrap_or(0));
        self.late_at = live.board.look_for_lost(now, least, u64::from(smoothed), settled).unwrap_or(NEVER);
        if live.board.has_lost() && open {
            self.congestion.lose(una, highest);
            (self.probe_at, self.first_again) = (NEVER, None);
            self.congestion.delivered(0, self.pipe());
        }
    }
}

/// Whether the first block is about what came twice (RFC 2883, 4): before what is acknowledged, or a part of the second.
fn came_twice(blocks: &[Option<(u32, u32)>; 4], ack: u32) -> Option<(u32, u32)> {
    let [Some((left, right)), second, ..] = *blocks else { return None };
    if !after(right, left) {
        return None;
    }
    let before = !after(right, ack);
    let within = second.is_some_and(|(l, r)| !after(l, left) && !after(right, r));
    (before || within).then_some((left, right))
}
