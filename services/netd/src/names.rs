//! Names as an engine answers for them within the container's network namespace (Docker, at 127.0.0.11).
//!
//! What the sandbox sends there goes by one of a few sockets that were connected to the engine's when the network was taken over: netd makes
//! none. Who asked is known by the number of his question, which no other has on the same socket at the same time. Bounded in number and time.
//! Called by `stack` and `devices`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use cofferdam_control::netd::{DOMAIN, NAMES};
use cofferdam_socket::packet;
use cofferdam_socket::sum::{checksum, pseudo};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::ip::{Head, UDP};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Questions that wait for an answer, on each socket.
const MOST: usize = 512;

/// A socket, and who waits for an answer there.
#[derive(Debug)]
struct Asking {
    socket: OwnedFd,
    /// By the number of the question.
    askers: HashMap<u16, (SocketAddr, Instant)>,
}

/// The sockets.
#[derive(Debug, Default)]
pub struct Names(Vec<Asking>);

impl Names {
    /// With sockets that are connected to who answers.
    pub fn new(sockets: Vec<OwnedFd>) -> Self {
        Self(sockets.into_iter().map(|socket| Asking { socket, askers: HashMap::new() }).collect())
    }

    /// Whether a packet is for who answers for names.
    pub fn is_meant(&self, to: IpAddr) -> bool {
        to == NAMES && !self.0.is_empty()
    }

    /// Sends a question; false if that cannot be.
    pub fn ask(&mut self, head: &packet::Head, data: &[u8], now: Instant) -> bool {
        let Some(([a, b, c, d, e, f, _, _], rest)) = data.split_first_chunk::<8>() else { return false };
        let word = |a: &u8, b: &u8| u16::from_be_bytes([*a, *b]);
        let question = usize::from(word(e, f)).checked_sub(8).and_then(|n| rest.get(..n));
        let Some((question, [high, low])) = question.and_then(|q| Some((q, q.first_chunk::<2>()?))) else {
            return false;
        };
        if head.protocol != UDP || word(c, d) != DOMAIN {
            return false;
        }
        let (number, asker) = (word(high, low), SocketAddr::new(head.from, word(a, b)));
        // One who asks again does so by the same socket. Where all have somebody with that number, the one that has waited longest gives way.
        let is_his = |a: &Asking| a.askers.get(&number).is_some_and(|(who, _)| *who == asker);
        let free = |a: &Asking| {
            a.askers.get(&number).is_none_or(|(_, since)| now.saturating_duration_since(*since) > PATIENCE)
        };
        let place = self.0.iter().position(is_his).or_else(|| self.0.iter().position(free));
        let oldest =
            || (0..self.0.len()).min_by_key(|n| self.0.get(*n).and_then(|a| a.askers.get(&number)).map(|(_, at)| *at));
        let Some(asking) = place.or_else(oldest).and_then(|n| self.0.get_mut(n)) else { return false };
        if asking.askers.len() >= MOST {
            asking.askers.retain(|_, (_, since)| now.saturating_duration_since(*since) <= PATIENCE);
            if asking.askers.len() >= MOST {
                return false;
            }
        }
        asking.askers.insert(number, (asker, now));
        rustix::net::send(&asking.socket, question, SendFlags::NOSIGNAL).is_ok()
    }

    /// The next answer that has come by a socket: the packet for who asked. `None`: there are no more.
    pub fn answer(&mut self, at: usize, buffer: &mut [u8]) -> Option<(packet::Head, Vec<u8>)> {
        let asking = self.0.get_mut(at)?;
        loop {
            let n = match rustix::net::recv(&asking.socket, &mut *buffer, RecvFlags::empty()) {
                Ok((n, _)) => n,
                Err(Errno::AGAIN) => return None,
                // An earlier question found nobody: he who asked will ask again.
                Err(_) => continue,
            };
            let answer = buffer.get(..n).unwrap_or_default();
            let asker = answer.first_chunk().and_then(|number| asking.askers.remove(&u16::from_be_bytes(*number)));
            let Some((asker, len)) = asker.map(|(a, _)| a).zip(u16::try_from(n.saturating_add(8)).ok()) else {
                continue;
            };
            let mut data: Vec<u8> = [DOMAIN, asker.port(), len, 0].into_iter().flat_map(u16::to_be_bytes).collect();
            data.extend_from_slice(answer);
            let sum = match checksum(&[&pseudo(NAMES, asker.ip(), UDP, data.len()), &data]) {
                0 => u16::MAX,
                sum => sum,
            };
            data.iter_mut().skip(6).zip(sum.to_be_bytes()).for_each(|(to, b)| *to = b);
            let head = Head { from: NAMES, to: asker.ip(), protocol: UDP, hops: 64, service: 0, piece: None };
            return Some((head.told(0, 0), data));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn each_gets_the_answer_to_his_own_question() {
        let (ours, theirs): (Vec<_>, Vec<_>) = (0..2).map(|_| UnixDatagram::pair().unwrap()).unzip();
        theirs.iter().chain(&ours).for_each(|s| s.set_nonblocking(true).unwrap());
        let mut names = Names::new(ours.into_iter().map(OwnedFd::from).collect());
        let now = Instant::now();
        let head =
            Head { from: "127.0.0.1".parse().unwrap(), to: NAMES, protocol: UDP, hops: 64, service: 0, piece: None };
        let question = |port: u16, number: u16| {
            let mut data: Vec<u8> = [port, 53, 12, 0, number].into_iter().flat_map(u16::to_be_bytes).collect();
            data.extend_from_slice(&[7, 7]);
            data
        };
        // Two with the same number go by two sockets; a third one takes the place of the first.
        for (port, later) in [(1000, 0), (2000, 1), (2000, 1), (3000, 2)] {
            assert!(names.ask(&head.told(0, 0), &question(port, 9), now + Duration::from_secs(later)));
        }
        let mut buffer = [0; 512];
        for (socket, asked, asker) in [(0, 2, 3000u16), (1, 2, 2000)] {
            for _ in 0..asked {
                assert_eq!(theirs[socket].recv(&mut buffer).unwrap(), 4);
            }
            theirs[socket].send(&[0, 8, 1]).unwrap();
            theirs[socket].send(&[0, 9, 1, 2, 3]).unwrap();
            let (told, data) = names.answer(socket, &mut buffer).unwrap();
            assert_eq!((told.from, told.to), (NAMES, head.from));
            assert_eq!(
                (&data[..4], &data[8..]),
                (&[&[0, 53][..], &asker.to_be_bytes()].concat()[..], &[0, 9, 1, 2, 3][..])
            );
            assert!(crate::ip::is_sound(&Head { from: NAMES, to: told.to, ..head }, &data));
            assert!(names.answer(socket, &mut buffer).is_none());
        }
        // What is no question, and too much, is not asked.
        assert!(!names.ask(&head.told(0, 0), &question(1, 2)[..9], now));
        assert!(!names.ask(&packet::Head { protocol: 6, ..head.told(0, 0) }, &question(1, 2), now));
        let taken = (0..u16::MAX).filter(|n| names.ask(&head.told(0, 0), &question(5, *n), now)).count();
        assert!(taken <= 2 * MOST && taken > 100, "{taken}");
    }
}
