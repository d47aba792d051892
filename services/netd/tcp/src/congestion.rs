//! Round-trip times (RFC 6298) and the congestion window (CUBIC, RFC 9438; NewReno's recovery, RFC 6582).
//!
//! Owns no data and no clock: it is told what was sent and acknowledged, in microseconds. smoltcp has both, but begins with 2 KiB, forgets
//! a recovery at its first partial acknowledgement, counts in whole milliseconds and waits for a second at least. Called by `connection`.

/// A time that never comes.
pub(crate) const NEVER: u64 = u64::MAX;

const SECOND: u64 = 1_000_000;
/// As Linux: RFC 6298's second is a SHOULD that nobody keeps.
const MIN_RTO: u64 = 200_000;
/// As smoltcp's, whose timer would be the earlier one else.
const MAX_RTO: u64 = 60 * SECOND;

/// The estimate of the round-trip time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoundTrip {
    /// Zero until there was a measurement.
    smoothed: u32,
    deviation: u32,
    /// The end of the segment that is timed, and when it left.
    timed: Option<(u32, u64)>,
    backoff: u8,
    /// The least that was measured, and how many measurements in a row were well above it.
    least: u32,
    above: u8,
    samples: u8,
}

impl RoundTrip {
    pub(crate) fn new() -> Self {
        RoundTrip { smoothed: 0, deviation: 0, timed: None, backoff: 0, least: u32::MAX, above: 0, samples: 0 }
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

    pub(crate) fn sent(&mut self, end: u32, now: u64) {
        if self.timed.is_none() {
            self.timed = Some((end, now));
        }
    }

    /// Karn: what was sent twice is not timed.
    pub(crate) fn resent(&mut self) {
        self.timed = None;
    }

    pub(crate) fn acknowledged(&mut self, ack: u32, now: u64) {
        if let Some((end, at)) = self.timed
            && (ack.wrapping_sub(end) as i32) >= 0
        {
            self.timed = None;
            self.sample(now.saturating_sub(at));
        }
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

    pub(crate) fn deviation(&self) -> u32 {
        self.deviation
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Nothing known to be lost.
    Open,
    /// Since three acknowledgements said the same: until all is acknowledged that had been sent then. So many holes were filled.
    Recovery { until: u32, holes: u8 },
    /// After the timer, or too many holes: what had been sent then is sent again, in slow start.
    Loss { until: u32 },
}

/// What is to be done after an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Nothing,
    /// The first segment that is not acknowledged is sent again.
    Resend,
    /// All that is not acknowledged is sent again.
    Restart,
}

/// The congestion window, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Congestion {
    window: u32,
    threshold: u32,
    mss: u32,
    duplicates: u16,
    phase: Phase,
    /// CUBIC: the window before the last loss, when this epoch began, how long until that window is reached again (seconds).
    before: f32,
    epoch: Option<u64>,
    reach: f32,
    /// What Reno would have.
    reno: f32,
    /// Bytes that make up the next byte of growth.
    used_at: u64,
}

const BETA: f32 = 0.7;
const CUBIC: f32 = 0.4;
const LARGEST: u32 = 1 << 30;
/// So many holes are filled one by one.
const HOLES: u8 = 10;

impl Congestion {
    pub(crate) fn new(mss: u32) -> Self {
        let mss = mss.max(1);
        Congestion {
            window: Self::initial(mss),
            threshold: LARGEST,
            mss,
            duplicates: 0,
            phase: Phase::Open,
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

    /// An acknowledgement of `bytes` more, up to `ack`; `flight` was on its way before.
    pub(crate) fn acknowledged(&mut self, ack: u32, bytes: u32, flight: u32, now: u64, round_trip: &RoundTrip) -> Then {
        if bytes == 0 {
            return Then::Nothing;
        }
        self.duplicates = 0;
        match self.phase {
            Phase::Recovery { until, holes } if (ack.wrapping_sub(until) as i32) < 0 => {
                // A hole takes a round trip. After some it is faster to send again what may have arrived, too: acknowledgements leap over it.
                if holes >= HOLES {
                    self.phase = Phase::Loss { until };
                    self.window = self.mss.saturating_mul(4);
                    return Then::Restart;
                }
                self.phase = Phase::Recovery { until, holes: holes.saturating_add(1) };
                // A part of it: the next hole begins here. The window shrinks by what left (RFC 6582, 3.2).
                self.window = self.window.saturating_sub(bytes).saturating_add(self.mss).max(self.mss);
                return Then::Resend;
            }
            Phase::Recovery { .. } => {
                let left = flight.saturating_sub(bytes).max(self.mss).saturating_add(self.mss);
                self.window = self.threshold.min(left).max(self.mss.saturating_mul(2));
                self.phase = Phase::Open;
                return Then::Nothing;
            }
            Phase::Loss { until } if (ack.wrapping_sub(until) as i32) >= 0 => self.phase = Phase::Open,
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
        Then::Nothing
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

    /// An acknowledgement that said nothing new while `flight` was on its way. `sacked`: bytes that arrived behind the hole, if known.
    pub(crate) fn duplicate(&mut self, una: u32, highest: u32, sacked: u32) -> Then {
        let flight = highest.wrapping_sub(una);
        self.duplicates = self.duplicates.saturating_add(1);
        match self.phase {
            Phase::Open if self.duplicates >= 3 || sacked >= self.mss.saturating_mul(3) => {
                self.reduce(flight);
                self.phase = Phase::Recovery { until: highest, holes: 0 };
                let arrived = sacked.max(u32::from(self.duplicates).saturating_mul(self.mss));
                self.window = self.threshold.saturating_add(arrived).min(flight.saturating_add(self.mss));
                Then::Resend
            }
            Phase::Recovery { .. } => {
                self.window = self.window.saturating_add(self.mss).min(LARGEST);
                Then::Nothing
            }
            Phase::Open | Phase::Loss { .. } => Then::Nothing,
        }
    }

    /// Nothing is known to be lost.
    pub(crate) fn open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// What was sent before the timer is being sent again.
    pub(crate) fn lost(&self) -> bool {
        matches!(self.phase, Phase::Loss { .. })
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
            self.reduce(highest.wrapping_sub(una));
        }
        self.phase = Phase::Loss { until: highest };
        self.window = self.mss;
        self.duplicates = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_follow_the_round_trip() {
        let mut round_trip = RoundTrip::new();
        assert_eq!(round_trip.timeout(), SECOND);
        round_trip.sent(100, 0);
        round_trip.sent(200, 5);
        round_trip.acknowledged(99, 10);
        assert_eq!(round_trip.smoothed(), None);
        round_trip.acknowledged(100, 50_000);
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
        assert_eq!(congestion.duplicate(una, highest, 0), Then::Nothing);
        assert_eq!(congestion.duplicate(una, highest, 0), Then::Nothing);
        assert_eq!(congestion.duplicate(una, highest, 0), Then::Resend);
        assert_eq!(congestion.threshold(), 700_000);
        let part = una.wrapping_add(10_000);
        assert_eq!(congestion.acknowledged(part, 10_000, 1_000_000, 20_000, &round_trip), Then::Resend);
        assert_eq!(congestion.acknowledged(highest, 990_000, 990_000, 20_000, &round_trip), Then::Nothing);
        assert!(congestion.window() <= 700_000);
    }

    #[test]
    fn after_the_timer_there_is_one_segment() {
        let mut congestion = Congestion::new(1000);
        congestion.expired(0, 50_000);
        assert_eq!(congestion.window(), 1000);
        assert_eq!(congestion.duplicate(0, 50_000, 30_000), Then::Nothing);
    }
}
