//! What a connection has while there is something to do: the bytes of both directions, what came out of order, what is on its way.
//!
//! Owns the two rings and the scoreboard. It is thrown away while nothing is under way, and made again. Must never take a byte that has no
//! place. Called by `connection` only.

use std::net::IpAddr;

use crate::board::Board;
use crate::holes::Holes;
use crate::ring::Ring;
use crate::segment::{after, ip_header};

#[derive(Debug)]
pub(crate) struct Live {
    outgoing: Ring,
    incoming: Ring,
    pub(crate) holes: Holes,
    pub(crate) board: Board,
    /// The sequence number of the first byte that is not acknowledged, without FIN.
    head: u32,
    /// The sequence number of the first byte that was not read.
    tail: u32,
}

/// What became of bytes that came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Came {
    /// They are to be acknowledged at once: something is missing, was missing, or came before.
    pub(crate) at_once: bool,
    /// What of it had come before.
    pub(crate) twice: Option<(u32, u32)>,
}

impl Live {
    pub(crate) fn new(head: u32, tail: u32, receive: usize, send: usize) -> Self {
        Live {
            outgoing: Ring::new(send),
            incoming: Ring::new(receive),
            holes: Holes::default(),
            board: Board::new(head),
            head,
            tail,
        }
    }

    /// Another one with the buffers of this one.
    pub(crate) fn again(mut self, head: u32, tail: u32) -> Self {
        self.outgoing.drop_first(usize::MAX);
        self.incoming.drop_first(usize::MAX);
        Live { holes: Holes::default(), board: Board::new(head), head, tail, ..self }
    }

    pub(crate) fn unread(&self) -> usize {
        self.incoming.len()
    }

    pub(crate) fn queued(&self) -> usize {
        self.outgoing.len()
    }

    pub(crate) fn receive_capacity(&self) -> usize {
        self.incoming.capacity()
    }

    pub(crate) fn send_capacity(&self) -> usize {
        self.outgoing.capacity()
    }

    /// How many bytes have a place after those that came.
    pub(crate) fn receive_room(&self) -> usize {
        self.incoming.room()
    }

    /// The first sequence number that is not acknowledged. FINs have no place here.
    pub(crate) fn unacknowledged(&self) -> u32 {
        self.head
    }

    /// The sequence number that is to come next.
    pub(crate) fn expected(&self) -> u32 {
        self.tail.wrapping_add(self.unread() as u32)
    }

    /// The end of what is to be sent.
    pub(crate) fn end(&self) -> u32 {
        self.head.wrapping_add(self.queued() as u32)
    }

    pub(crate) fn grow(&mut self, receive: usize, send: usize) {
        self.incoming.grow(receive);
        self.outgoing.grow(send);
    }

    pub(crate) fn recv(&mut self, f: impl FnOnce(&[u8]) -> usize) -> usize {
        let taken = self.incoming.take(f);
        self.tail = self.tail.wrapping_add(taken as u32);
        if self.holes.is_empty() {
            self.incoming.rewind();
        }
        taken
    }

    pub(crate) fn send(&mut self, f: impl FnOnce(&mut [u8]) -> usize) -> usize {
        self.outgoing.put(f)
    }

    /// Appends `length` bytes that begin at `seq`.
    pub(crate) fn copy(&self, seq: u32, length: usize, to: &mut Vec<u8>) {
        self.outgoing.copy(seq.wrapping_sub(self.head) as usize, length, to);
    }

    /// All before `ack` arrived; answers how many bytes were waiting for that.
    pub(crate) fn acknowledge(&mut self, ack: u32) -> usize {
        if !after(ack, self.head) {
            return 0;
        }
        let bytes = (ack.wrapping_sub(self.head) as usize).min(self.queued());
        self.outgoing.drop_first(bytes);
        self.head = self.head.wrapping_add(bytes as u32);
        bytes
    }

    /// Bytes came that begin at `seq`, none of them beyond what there is room for.
    pub(crate) fn receive(&mut self, mut seq: u32, mut payload: &[u8]) -> Came {
        let expected = self.expected();
        let mut came = Came { at_once: !self.holes.is_empty(), twice: None };
        let old = expected.wrapping_sub(seq);
        if (old as i32) > 0 {
            let old = (old as usize).min(payload.len());
            came = Came { at_once: true, twice: Some((seq, seq.wrapping_add(old as u32))) };
            payload = payload.get(old..).unwrap_or_default();
            seq = expected;
        }
        if payload.is_empty() {
            return came;
        }
        let end = seq.wrapping_add(payload.len() as u32);
        if !self.holes.is_empty() {
            came.twice = came.twice.or_else(|| self.holes.overlap(seq, end));
            if seq != expected && self.holes.have(seq, end) {
                return came;
            }
        }
        let gap = seq.wrapping_sub(expected) as usize;
        came.at_once |= gap > 0;
        if !self.incoming.write(gap, payload) {
            return came;
        }
        if gap > 0 {
            self.holes.add(seq, end);
        } else {
            let reached = self.holes.reach(end);
            self.incoming.extend(reached.wrapping_sub(expected) as usize);
        }
        came
    }
}

/// The scale that a window of so many bytes needs.
pub(crate) fn scale_of(bytes: usize) -> u8 {
    let bits = usize::BITS.saturating_sub(bytes.leading_zeros());
    u8::try_from(bits.saturating_sub(16)).unwrap_or(14).min(14)
}

/// The largest segment for an MTU.
pub(crate) fn mss_of(ip: IpAddr, mtu: usize) -> u16 {
    u16::try_from(mtu.saturating_sub(ip_header(ip)).saturating_sub(20)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_in_any_order_is_read_in_one() {
        let mut live = Live::new(1, u32::MAX - 5, 100, 10);
        let at = |n: u32| (u32::MAX - 5).wrapping_add(n);
        let late = Came { at_once: true, twice: None };
        assert_eq!(live.receive(at(0), &[0, 1]), Came::default());
        assert_eq!(live.receive(at(10), &[10, 11, 12]), late);
        assert_eq!(live.receive(at(5), &[5, 6]), late);
        assert_eq!(live.receive(at(11), &[11, 12]), Came { twice: Some((at(11), at(13))), ..late });
        assert_eq!(live.receive(at(0), &[9, 9, 2, 3]), Came { twice: Some((at(0), at(2))), ..late });
        live.grow(200, 10);
        assert_eq!(live.receive(at(4), &[4, 5, 6, 7, 8, 9, 10]), Came { twice: Some((at(5), at(7))), ..late });
        assert!(live.holes.is_empty());
        let mut all = Vec::new();
        while live.recv(|bytes| {
            all.extend_from_slice(bytes);
            bytes.len()
        }) > 0
        {}
        assert_eq!(all, (0..13).collect::<Vec<u8>>());
        assert_eq!(live.expected(), at(13));
    }
}
