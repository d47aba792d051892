//! How long a packet may be on its way to somewhere: what routers have said (RFC 1191, RFC 8201), for as long as Linux believes it.
//!
//! Who notes it has seen that it is about something that was sent: the Sentry for datagrams, netd for connections, each for itself. Bounded: one destination
//! more takes the place of the oldest.

use std::collections::HashMap;
use std::net::IpAddr;

/// Destinations.
const MOST: usize = 1024;
/// Nanoseconds that it is believed (`net.ipv4.route.mtu_expires`).
const AGE: i64 = 600_000_000_000;
/// The least that is believed: `net.ipv4.route.min_pmtu`, and what each link of IPv6 carries.
const LEAST: [u32; 2] = [552, 1280];

/// What is known.
#[derive(Debug, Default)]
pub struct Paths(HashMap<IpAddr, (u32, i64)>);

impl Paths {
    /// The longest packet to there, bytes, if something is known. `now`: nanoseconds of any clock.
    pub fn get(&self, to: IpAddr, now: i64) -> Option<u32> {
        self.0.get(&to).filter(|(_, until)| *until > now).map(|(mtu, _)| *mtu)
    }

    /// A router says so.
    pub fn learn(&mut self, to: IpAddr, mtu: u32, now: i64) {
        let [four, six] = LEAST;
        let mtu = mtu.max(if to.is_ipv4() { four } else { six });
        // It only ever gets less, until it is forgotten.
        if self.get(to, now).is_some_and(|known| known <= mtu) {
            return;
        }
        if self.0.len() >= MOST && !self.0.contains_key(&to) {
            let oldest = self.0.iter().min_by_key(|(_, (_, until))| *until).map(|(to, _)| *to);
            oldest.map(|to| self.0.remove(&to));
        }
        self.0.insert(to, (mtu, now.saturating_add(AGE)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_bounded_and_forgotten() {
        let mut p = Paths::default();
        let ip = |n: u32| IpAddr::V4(n.into());
        p.learn(ip(1), 1300, 0);
        p.learn(ip(1), 1400, 5);
        assert_eq!((p.get(ip(1), 6), p.get(ip(1), AGE), p.get(ip(2), 0)), (Some(1300), None, None));
        p.learn(ip(1), 68, 7);
        p.learn("fd00::1".parse().unwrap(), 68, 7);
        assert_eq!((p.get(ip(1), 8), p.get("fd00::1".parse().unwrap(), 8)), (Some(552), Some(1280)));
        (0..MOST as u32 + 10).for_each(|n| p.learn(ip(n + 100), 1000, 100 + i64::from(n)));
        assert_eq!((p.0.len(), p.get(ip(1), 200), p.get(ip(MOST as u32 + 109), 200)), (MOST, None, Some(1000)));
        p.learn(ip(1), 1450, AGE + 8);
        assert_eq!(p.get(ip(1), AGE + 9), Some(1450));
    }
}
