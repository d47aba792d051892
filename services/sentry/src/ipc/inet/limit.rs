//! How many ICMP messages about lost packets go elsewhere, `icmp(7)`: so many in a second over all, and to one destination so seldom
//! (`net.ipv4.icmp_ratelimit`, `icmp_ratemask`, `icmp_msgs_per_sec`, `icmp_msgs_burst`, `net.ipv6.icmp.ratelimit`). Who floods a closed port with forged senders makes nobody else busy.
//!
//! Bounded: one destination more takes the place of the one that has waited longest. Called by `icmp`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};

/// Messages that a destination may get at once (`XRLIM_BURST_FACTOR`).
const BURST: i64 = 6;
/// Destinations.
const MOST: usize = 1024;
const SECOND: i64 = 1_000_000_000;

/// What may be set.
pub struct Rates {
    /// Milliseconds between two messages to one destination: of IPv4, of IPv6.
    pub each: [AtomicI64; 2],
    /// Types of IPv4's messages that are limited, a bit each.
    pub mask: AtomicI64,
    /// Messages in a second, and at once.
    pub all: [AtomicI64; 2],
}

impl Default for Rates {
    fn default() -> Self {
        let of = AtomicI64::new;
        Self { each: [of(1000), of(100)], mask: of(6168), all: [of(1000), of(50)] }
    }
}

/// What was sent.
#[derive(Default)]
pub struct Limit {
    /// Nanoseconds that were saved up, and when that was counted: over all, and by destination.
    all: (i64, i64),
    each: HashMap<IpAddr, (i64, i64)>,
}

impl Limit {
    /// Whether a message of a type may go to a destination now, which it does then.
    pub fn allows(&mut self, rates: &Rates, to: IpAddr, kind: u8, now: i64) -> bool {
        let of = |n: &AtomicI64| n.load(Ordering::Relaxed);
        let [four, six] = &rates.each;
        let limited = match to {
            IpAddr::V4(_) => kind < 32 && of(&rates.mask) & 1 << kind != 0,
            // All that say of an error, but that it was too long.
            IpAddr::V6(_) => kind < 128 && kind != 2,
        };
        if !limited {
            return true;
        }
        let [rate, burst] = &rates.all;
        let one = SECOND / of(rate).max(1);
        let saved = |(saved, at): (i64, i64), most: i64| saved.saturating_add(now.saturating_sub(at).max(0)).min(most);
        let have = saved(self.all, one.saturating_mul(of(burst)));
        self.all = (have, now);
        if have < one {
            return false;
        }
        let each = of(if to.is_ipv4() { four } else { six }).saturating_mul(1_000_000);
        if each > 0 {
            let most = each.saturating_mul(BURST);
            let have = self.each.get(&to).map_or(most, |known| saved(*known, most));
            if have < each {
                return false;
            }
            if self.each.len() >= MOST && !self.each.contains_key(&to) {
                let oldest = self.each.iter().min_by_key(|(_, (_, at))| *at).map(|(to, _)| *to);
                oldest.map(|to| self.each.remove(&to));
            }
            self.each.insert(to, (have.saturating_sub(each), now));
        }
        self.all = (have.saturating_sub(one), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_gets_a_few_at_once_and_then_one_at_a_time() {
        let (rates, mut l) = (Rates::default(), Limit::default());
        let ip = |n: u32| IpAddr::V4(n.into());
        let mut sent = |to, kind, now, tries: usize| (0..tries).filter(|_| l.allows(&rates, to, kind, now)).count();
        assert_eq!(sent(ip(1), 3, 100 * SECOND, 100), 6);
        assert_eq!(sent(ip(1), 3, 101 * SECOND, 100), 1);
        // Answers are not errors.
        assert_eq!(sent(ip(1), 0, 101 * SECOND, 100), 100);
        assert_eq!(sent("fd00::1".parse().unwrap(), 1, 101 * SECOND, 100), 6);
        assert_eq!(sent("fd00::1".parse().unwrap(), 1, 101 * SECOND + SECOND / 5, 100), 2);
    }

    #[test]
    fn all_together_get_so_many() {
        let (rates, mut l) = (Rates::default(), Limit::default());
        let many = |l: &mut Limit, now| (0..5000).filter(|n| l.allows(&rates, IpAddr::V4((*n).into()), 3, now)).count();
        assert_eq!(many(&mut l, 100 * SECOND), 50);
        assert_eq!(many(&mut l, 100 * SECOND + SECOND / 50), 20);
        (0..5000i64)
            .for_each(|n| assert!(l.allows(&rates, IpAddr::V4((n as u32 + 9000).into()), 3, (200 + n) * SECOND)));
        assert_eq!(l.each.len(), MOST);
        rates.each[0].store(0, Ordering::Relaxed);
        assert_eq!((0..100).filter(|_| l.allows(&rates, IpAddr::V4(1.into()), 3, 9000 * SECOND)).count(), 50);
    }
}
