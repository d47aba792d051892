//! Round-trip times (RFC 6298) and the congestion window (CUBIC, RFC 9438; in a recovery proportional rate reduction, RFC 6937).
//!
//! Owns no data and no clock: it is told what was sent, what arrived and what is lost, in bytes and microseconds. Called by `connection`.

/// A time that never comes.
pub(crate) const NEVER: u64 = u64::MAX;

const SECOND: u64 = 1_000_000;
/// As Linux: RFC 6298's second is a SHOULD that nobody keeps.
const MIN_RTO: u64 = 200_000;
/// As Linux.
const MAX_RTO: u64 = 120 * SECOND;

/// The estimate of the round-trip time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoundTrip {
    /// Zero until there was a measurement.
    smoothed: u32,
    deviation: u32,
    backoff: u8,
    /// The least that was measured, and how many measurements in a row were well above it.
    least: u32,
    above: u8,
    samples: u8,
}

impl RoundTrip {
    pub(crate) fn new() -> Self {
        RoundTrip { smoothed: 0, deviation: 0, backoff: 0, least: u32::MAX, above: 0, samples: 0 }
    }

    pub(crate) fn sample(&mut self, micros: u64) {
        let sample = u32::try_from(micros).unwrap_or(u32::MAX).clamp(1, 60_000_000);
        if self.smoothed == 0 {
            (self.smoothed, self.deviation) = (sample, sample / 2);
        } else {
            let off = self.smoothed.abs_diff(sample);
            self.deviation = (self.deviation / 4).saturating_mul(3).saturating_add(off / 4);
            self.smoothed = (self.smoothed / 8).saturating_mul(7).saturating_add(sample / 8).max(1);
        }
        self.backoff = 0;
        self.samples = self.samples.wrapping_add(1);
        // Not for ever: the way may be another one.
        self.least = if self.samples == 0 { sample } else { self.least.min(sample) };
        // As RFC 9406 (HyStart++): a queue grows on the way.
        let much = self.least.saturating_add((self.least / 8).clamp(4000, 16_000));
        self.above = if sample > much { self.above.saturating_add(1) } else { 0 };
    }

    /// Whether what is sent seems to wait in a queue somewhere, and whether it does so for long.
    fn queues(&self) -> (bool, bool) {
        (self.above >= 1, self.above >= 4)
    }

    pub(crate) fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1).min(16);
    }

    /// New data was acknowledged (RFC 6298, 5.3: the timer starts again; as Linux, without the backoff).
    pub(crate) fn forward(&mut self) {
        self.backoff = 0;
    }

    pub(crate) fn timeout(&self) -> u64 {
        let base = match self.smoothed {
            0 => SECOND,
            smoothed => u64::from(smoothed).saturating_add(u64::from(self.deviation).saturating_mul(4).max(MIN_RTO)),
        };
        base.saturating_mul(1 << self.backoff.min(16)).min(MAX_RTO)
    }

    pub(crate) fn smoothed(&self) -> Option<u32> {
        (self.smoothed > 0).then_some(self.smoothed)
    }

    /// The shortest that was measured of late.
    pub(crate) fn least(&self) -> u64 {
        if self.least == u32::MAX { 0 } else { u64::from(self.least) }
    }

    pub(crate) fn deviation(&self) -> u32 {
        self.deviation
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Nothing known to be lost.
    Open,
    /// Something was lost: until all is acknowledged that had been sent then. What was on its way, what arrived since and what was sent.
    Recovery { until: u32, flight: u32, delivered: u32, sent: u32 },
    /// After the timer: what had been sent then is sent again, in slow start.
    Loss { until: u32 },
}

/// What there was before a loss that was none, perhaps.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Before {
    window: u32,
    threshold: u32,
    most: f32,
    /// Bytes that were sent again and did not arrive twice.
    again: u32,
    /// What had been sent then: long after it what comes twice is about something else.
    until: u32,
}

/// The congestion window, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Congestion {
    window: u32,
    threshold: u32,
    mss: u32,
    phase: Phase,
    undo: Option<Before>,
    /// CUBIC: the window before the last loss, when this epoch began, how long until that window is reached again (seconds).
    before: f32,
    epoch: Option<u64>,
    reach: f32,
    /// What Reno would have.
    reno: f32,
    used_at: u64,
}

const BETA: f32 = 0.7;
const CUBIC: f32 = 0.4;
const LARGEST: u32 = 1 << 30;

impl Congestion {
    pub(crate) fn new(mss: u32) -> Self {
        let mss = mss.max(1);
        Congestion {
            window: Self::initial(mss),
            threshold: LARGEST,
            mss,
            phase: Phase::Open,
            undo: None,
            before: 0.0,
            epoch: None,
            reach: 0.0,
            reno: 0.0,
            used_at: 0,
        }
    }

    /// RFC 6928.
    fn initial(mss: u32) -> u32 {
        mss.saturating_mul(10).min(mss.saturating_mul(2).max(14_600))
    }

    pub(crate) fn window(&self) -> u32 {
        self.window
    }

    pub(crate) fn threshold(&self) -> u32 {
        self.threshold
    }

    pub(crate) fn set_mss(&mut self, mss: u32) {
        self.mss = mss.max(1);
        self.window = self.window.max(self.mss);
    }

    /// RFC 5681, 4.1: after a silence of more than a timeout it begins anew.
    pub(crate) fn about_to_send(&mut self, flight: u32, now: u64, timeout: u64) {
        if flight == 0 && self.used_at != 0 && now.saturating_sub(self.used_at) > timeout {
            self.window = self.window.min(Self::initial(self.mss));
            self.epoch = None;
        }
        self.used_at = now;
    }

    /// The peer has `bytes` more, all before `ack`; `flight` was on its way before.
    pub(crate) fn acknowledged(&mut self, ack: u32, bytes: u32, flight: u32, now: u64, round_trip: &RoundTrip) {
        if bytes == 0 {
            return;
        }
        match self.phase {
            Phase::Recovery { until, .. } if !reached(ack, until) => return,
            Phase::Recovery { .. } => {
                self.window = self.threshold.max(self.mss.saturating_mul(2));
                self.phase = Phase::Open;
                return;
            }
            Phase::Loss { until } if reached(ack, until) => self.phase = Phase::Open,
            Phase::Open if self.undo.is_some_and(|before| reached(ack, before.until.wrapping_add(before.window))) => {
                self.undo = None;
            }
            Phase::Loss { .. } | Phase::Open => {}
        }
        if self.window < self.threshold {
            // It grows only if it was in use (RFC 7661).
            let large = self.window >= self.mss.saturating_mul(16);
            let (slower, enough) = round_trip.queues();
            if enough && large {
                self.threshold = self.window;
            } else if flight >= self.window / 2 {
                let more = if slower && large { bytes / 4 } else { bytes };
                self.window = self.window.saturating_add(more).min(LARGEST);
                if self.window >= self.threshold {
                    self.window = self.threshold.max(self.mss);
                }
            }
        } else if flight.saturating_add(self.mss.saturating_mul(3)) >= self.window {
            self.avoid(bytes, now, round_trip);
        }
    }

    /// In a recovery: so many bytes arrived just now, so many are in the network. What leaves follows what arrives (RFC 6937).
    pub(crate) fn delivered(&mut self, bytes: u32, pipe: u32) {
        let mss = self.mss;
        let Phase::Recovery { flight, delivered, sent, .. } = &mut self.phase else { return };
        *delivered = delivered.saturating_add(bytes);
        let may = if pipe > self.threshold {
            let share = u64::from(*delivered).saturating_mul(u64::from(self.threshold));
            let share = share.div_ceil(u64::from((*flight).max(1)));
            u32::try_from(share).unwrap_or(u32::MAX).saturating_sub(*sent)
        } else {
            let most = delivered.saturating_sub(*sent).max(bytes).saturating_add(mss);
            self.threshold.saturating_sub(pipe).min(most)
        };
        // The first is sent again at once.
        let may = if *sent == 0 { may.max(mss) } else { may };
        self.window = pipe.saturating_add(may).clamp(mss, LARGEST);
    }

    /// So many bytes left, so many of them not for the first time.
    pub(crate) fn sent(&mut self, bytes: u32, again: u32) {
        if let Phase::Recovery { sent, .. } = &mut self.phase {
            *sent = sent.saturating_add(bytes);
        }
        if let Some(before) = &mut self.undo
            && self.phase != Phase::Open
        {
            before.again = before.again.saturating_add(again);
        }
    }

    fn avoid(&mut self, bytes: u32, now: u64, round_trip: &RoundTrip) {
        let (window, mss) = (self.window as f32, self.mss as f32);
        let start = match self.epoch {
            Some(start) => start,
            None => {
                self.reno = window;
                if self.before < window {
                    (self.before, self.reach) = (window, 0.0);
                } else {
                    self.reach = ((self.before - window) / (CUBIC * mss)).cbrt();
                }
                self.epoch = Some(now);
                now
            }
        };
        let ahead = u64::from(round_trip.smoothed().unwrap_or(0));
        let since = now.saturating_sub(start).saturating_add(ahead) as f32 / SECOND as f32 - self.reach;
        let target = (CUBIC * mss * since * since * since + self.before).clamp(window, window * 1.5);
        let factor = if self.reno < self.before { 3.0 * (1.0 - BETA) / (1.0 + BETA) } else { 1.0 };
        self.reno += factor * mss * bytes as f32 / window;
        let cubic = window + (target - window) * bytes as f32 / window;
        // From f32 to u32 it saturates.
        self.window = (cubic.max(self.reno) as u32).clamp(self.mss, LARGEST);
    }

    fn reduce(&mut self, flight: u32) {
        let window = self.window.min(flight.max(self.mss)) as f32;
        self.before = if window < self.before { window * (1.0 + BETA) / 2.0 } else { window };
        self.threshold = ((window * BETA) as u32).max(self.mss.saturating_mul(2));
        self.epoch = None;
    }

    /// Something was lost of what is between the two.
    pub(crate) fn lose(&mut self, una: u32, highest: u32) {
        if self.phase == Phase::Open {
            let flight = highest.wrapping_sub(una);
            self.remember(highest);
            self.reduce(flight);
            self.phase = Phase::Recovery { until: highest, flight, delivered: 0, sent: 0 };
        }
    }

    fn remember(&mut self, until: u32) {
        let (window, threshold, most) = (self.window, self.threshold, self.before);
        self.undo = Some(Before { window, threshold, most, again: 0, until });
    }

    /// So many bytes came to the peer twice: if all did that were sent again, nothing was lost. True: so it is.
    pub(crate) fn came_twice(&mut self, bytes: u32) -> bool {
        let Some(before) = &mut self.undo else { return false };
        if before.again == 0 {
            return false;
        }
        before.again = before.again.saturating_sub(bytes);
        let none = before.again == 0;
        if none {
            self.restore();
        }
        none
    }

    /// What was taken for lost had only been late.
    pub(crate) fn restore(&mut self) {
        if let Some(before) = self.undo.take() {
            self.window = self.window.max(before.window);
            (self.threshold, self.before) = (before.threshold.max(self.threshold), before.most);
            (self.phase, self.epoch) = (Phase::Open, None);
        }
    }

    /// Nothing is known to be lost.
    pub(crate) fn open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// In a recovery, and not after the timer.
    pub(crate) fn recovers(&self) -> bool {
        matches!(self.phase, Phase::Recovery { .. })
    }

    /// One segment was lost, and is there now.
    pub(crate) fn repaired(&mut self, flight: u32) {
        if self.phase == Phase::Open {
            self.reduce(flight);
            self.window = self.window.min(self.threshold);
        }
    }

    /// The retransmission timer.
    pub(crate) fn expired(&mut self, una: u32, highest: u32) {
        if !matches!(self.phase, Phase::Loss { .. }) {
            if self.phase == Phase::Open {
                self.remember(highest);
            }
            self.reduce(highest.wrapping_sub(una));
        }
        self.phase = Phase::Loss { until: highest };
        self.window = self.mss;
    }
}

/// Whether `ack` is at or after `until`.
fn reached(ack: u32, until: u32) -> bool {
    (ack.wrapping_sub(until) as i32) >= 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_follow_the_round_trip() {
        let mut round_trip = RoundTrip::new();
        assert_eq!(round_trip.timeout(), SECOND);
        round_trip.sample(50_000);
        assert_eq!(round_trip.smoothed(), Some(50_000));
        assert_eq!(round_trip.timeout(), 250_000);
        round_trip.back_off();
        round_trip.back_off();
        assert_eq!(round_trip.timeout(), 1_000_000);
        for _ in 0..40 {
            round_trip.back_off();
        }
        assert_eq!(round_trip.timeout(), MAX_RTO);
    }

    #[test]
    fn slow_start_doubles_and_a_loss_takes_three_tenths() {
        let mut congestion = Congestion::new(1000);
        let round_trip = RoundTrip::new();
        assert_eq!(congestion.window(), 10_000);
        let mut una = 0u32;
        for now in 0..10u64 {
            let flight = congestion.window();
            una = una.wrapping_add(flight);
            congestion.acknowledged(una, flight, flight, now * 1000, &round_trip);
        }
        assert_eq!(congestion.window(), 10_240_000);
        let highest = una.wrapping_add(1_000_000);
        congestion.lose(una, highest);
        assert_eq!(congestion.threshold(), 700_000);
        // Half of the flight arrives, the other half is in the network: of what arrived seven tenths may leave.
        congestion.delivered(100_000, 800_000);
        assert_eq!(congestion.window(), 870_000);
        congestion.sent(70_000, 70_000);
        congestion.delivered(50_000, 750_000);
        assert_eq!(congestion.window(), 785_000);
        let part = una.wrapping_add(10_000);
        congestion.acknowledged(part, 10_000, 1_000_000, 20_000, &round_trip);
        assert!(congestion.recovers());
        congestion.acknowledged(highest, 990_000, 990_000, 20_000, &round_trip);
        assert!(congestion.open());
        assert_eq!(congestion.window(), 700_000);
    }

    #[test]
    fn what_was_only_late_costs_nothing() {
        let mut congestion = Congestion::new(1000);
        congestion.lose(0, 10_000);
        congestion.delivered(1000, 8000);
        congestion.sent(1000, 1000);
        assert!(congestion.threshold() == 7000 && congestion.recovers());
        congestion.came_twice(1000);
        assert!(congestion.open());
        assert_eq!((congestion.window(), congestion.threshold()), (10_000, LARGEST));
    }

    #[test]
    fn after_the_timer_there_is_one_segment() {
        let mut congestion = Congestion::new(1000);
        congestion.expired(0, 50_000);
        assert_eq!(congestion.window(), 1000);
        congestion.lose(0, 50_000);
        assert_eq!((congestion.window(), congestion.open(), congestion.recovers()), (1000, false, false));
    }
}
