//! Segments that follow each other, put together into one packet (GSO) on their way from smoltcp to `Output`.
//!
//! Owns one buffer for the engine. smoltcp writes each segment so that its payload lies right behind that of the one before: the bytes
//! that its header covers are put aside and put back. Must never send a segment after one that is younger. Called by `connection`.

use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

use crate::Output;
use crate::segment::{ACK, FIN, PSH, RST, SYN, after, seal};

/// The longest packet: what a length field of 16 bits can say.
const LONGEST: usize = 65_535;
/// The longest header that is merged: IPv6 and TCP with all options.
const HEADERS: usize = 100;

/// What becomes of the headers that smoltcp writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rewrite {
    /// Bytes of the IP header.
    pub(crate) start: usize,
    /// smoltcp's window field counts in units of two to this power; the peer was promised the other one.
    pub(crate) scale: u8,
    pub(crate) promised: u8,
    /// What is added to its acknowledgements: it does not know of the peer's FIN.
    pub(crate) beyond: u32,
    /// Nor of ours, that was sent with this sequence number: what it sends without data is behind it.
    pub(crate) fin: Option<u32>,
    pub(crate) traffic_class: u8,
}

/// What was seen of the segments that went by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) segments: u64,
    /// Segments with data or FIN that had been sent before.
    pub(crate) again: u64,
    /// The end of the youngest, if it is younger than any before.
    pub(crate) youngest: Option<u32>,
    /// The last acknowledgement and the edge of the window that came with it.
    pub(crate) acked: Option<(u32, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Head {
    /// Bytes of IP and TCP header.
    length: usize,
    /// Payload of each segment but perhaps the last.
    segment: usize,
    /// The sequence number that would follow.
    next: u32,
    ack: u32,
    window: u16,
    /// Nothing can follow.
    closed: bool,
}

/// The buffer.
#[derive(Debug)]
pub(crate) struct Train {
    bytes: Vec<u8>,
    used: usize,
    head: Option<Head>,
    segments: usize,
    aside: [u8; HEADERS],
    start: usize,
    traffic_class: u8,
}

impl Train {
    pub(crate) fn new() -> Self {
        Train {
            bytes: vec![0; LONGEST.saturating_add(HEADERS).saturating_mul(2)],
            used: 0,
            head: None,
            segments: 0,
            aside: [0; HEADERS],
            start: 20,
            traffic_class: 0,
        }
    }

    /// Sends what is there.
    pub(crate) fn flush(&mut self, out: &mut impl Output) {
        let Some(head) = self.head.take() else { return };
        let (start, class) = (self.start, self.traffic_class);
        if let Some(packet) = self.bytes.get_mut(..self.used) {
            seal(packet, start, self.used.saturating_sub(start), class);
            let segment = if self.segments > 1 { head.segment as u16 } else { 0 };
            out.send(packet, head.length, segment);
        }
        (self.used, self.segments) = (0, 0);
    }

    /// Makes the last segment the one with FIN, if it ends at `seq`.
    pub(crate) fn finish(&mut self, seq: u32) -> bool {
        let Some(head) = &mut self.head else { return false };
        let Some(flags) = self.bytes.get_mut(self.start.saturating_add(13)) else { return false };
        if head.next != seq || head.segment == 0 || *flags & (FIN | SYN | RST) != 0 {
            return false;
        }
        *flags |= FIN | PSH;
        head.closed = true;
        true
    }

    fn add<R>(
        &mut self,
        length: usize,
        write: impl FnOnce(&mut [u8]) -> R,
        rewrite: Rewrite,
        highest: u32,
        seen: &mut Seen,
        out: &mut impl Output,
    ) -> R {
        // A packet of the engine's making is never longer than its MTU; what is would find no place.
        if length > LONGEST {
            let mut lost = vec![0; length];
            return write(&mut lost);
        }
        let before = self.head;
        let mut base = 0;
        if let Some(head) = before {
            base = self.used.saturating_sub(head.length);
            let covered = self.bytes.get(base..self.used).unwrap_or_default();
            self.aside.iter_mut().zip(covered).for_each(|(to, from)| *to = *from);
        }
        let end = base.saturating_add(length);
        let Some(place) = self.bytes.get_mut(base..end) else {
            let mut lost = vec![0; length];
            return write(&mut lost);
        };
        let result = write(place);
        let Some(mut head) = Self::look(place, rewrite, highest, seen) else {
            // Not a segment; smoltcp has nothing else to say.
            self.restore(before);
            return result;
        };
        let payload = length.saturating_sub(head.length);
        let flags = place.get(rewrite.start.saturating_add(13)).copied().unwrap_or(0);
        if let Some(old) = before {
            let follows = !old.closed
                && payload > 0
                && payload <= old.segment
                && head.next.wrapping_sub(payload as u32).wrapping_sub(u32::from(flags & FIN != 0)) == old.next
                && (head.length, head.ack, head.window) == (old.length, old.ack, old.window)
                && flags & (SYN | RST) == 0
                && self.used.saturating_add(payload) <= LONGEST;
            if follows {
                self.restore(before);
                self.used = self.used.saturating_add(payload);
                self.segments = self.segments.saturating_add(1);
                if let Some(all) = self.bytes.get_mut(rewrite.start.saturating_add(13)) {
                    *all |= flags & (PSH | FIN);
                }
                let closed = payload < old.segment || flags & (PSH | FIN) != 0;
                self.head = Some(Head { next: head.next, closed, ..old });
                return result;
            }
            // The one before leaves; this one begins anew.
            let newer = self.bytes.get(base..end).map(<[u8]>::to_vec).unwrap_or_default();
            self.restore(before);
            self.flush(out);
            if let Some(place) = self.bytes.get_mut(..newer.len()) {
                place.copy_from_slice(&newer);
            }
        }
        head.segment = payload;
        head.closed = payload == 0 || flags & (PSH | FIN | SYN | RST) != 0;
        (self.used, self.segments) = (length, 1);
        (self.start, self.traffic_class) = (rewrite.start, rewrite.traffic_class);
        self.head = Some(head);
        result
    }

    fn restore(&mut self, before: Option<Head>) {
        let Some(head) = before else { return };
        let base = self.used.saturating_sub(head.length);
        if let Some(covered) = self.bytes.get_mut(base..self.used) {
            covered.iter_mut().zip(&self.aside).for_each(|(to, from)| *to = *from);
        }
    }

    /// Rewrites the header and notes what it says.
    fn look(packet: &mut [u8], rewrite: Rewrite, highest: u32, seen: &mut Seen) -> Option<Head> {
        let length = packet.len();
        let tcp = packet.get_mut(rewrite.start..)?;
        let [_, _, _, _, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, ..] = tcp else { return None };
        let (offset, flags) = (usize::from(*offset >> 4).checked_mul(4)?, *flags);
        let mut seq = u32::from_be_bytes([*s0, *s1, *s2, *s3]);
        if rewrite.fin == Some(seq) {
            seq = seq.wrapping_add(1);
            [*s0, *s1, *s2, *s3] = seq.to_be_bytes();
        }
        let ack = u32::from_be_bytes([*a0, *a1, *a2, *a3]).wrapping_add(rewrite.beyond);
        [*a0, *a1, *a2, *a3] = ack.to_be_bytes();
        if flags & SYN == 0 {
            let bytes = u64::from(u16::from_be_bytes([*w0, *w1])) << rewrite.scale.min(14);
            let field = u16::try_from(bytes >> rewrite.promised.min(14)).unwrap_or(u16::MAX);
            [*w0, *w1] = field.to_be_bytes();
        }
        let window = u16::from_be_bytes([*w0, *w1]);
        let header = rewrite.start.checked_add(offset)?;
        let payload = length.checked_sub(header)?;
        let next = seq.wrapping_add(payload as u32).wrapping_add(u32::from(flags & FIN != 0));
        seen.segments = seen.segments.saturating_add(1);
        if next != seq {
            let newest = seen.youngest.unwrap_or(highest);
            if after(next, newest) {
                seen.youngest = Some(next);
            }
            if after(newest, seq) {
                seen.again = seen.again.saturating_add(1);
            }
        }
        if flags & ACK != 0 {
            seen.acked = Some((ack, ack.wrapping_add(u32::from(window) << rewrite.promised.min(14))));
        }
        Some(Head { length: header, segment: payload, next, ack, window, closed: false })
    }
}

/// The device that smoltcp sees: at most one packet comes, what goes boards the train.
pub(crate) struct Port<'a, O> {
    pub(crate) mtu: usize,
    pub(crate) packet: Option<&'a [u8]>,
    pub(crate) train: &'a mut Train,
    pub(crate) rewrite: Rewrite,
    pub(crate) highest: u32,
    pub(crate) seen: Seen,
    pub(crate) out: &'a mut O,
}

pub(crate) struct Arrival<'a>(&'a [u8]);

impl smoltcp::phy::RxToken for Arrival<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

pub(crate) struct Place<'a, O> {
    train: &'a mut Train,
    rewrite: Rewrite,
    highest: u32,
    seen: &'a mut Seen,
    out: &'a mut O,
}

impl<O: Output> smoltcp::phy::TxToken for Place<'_, O> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        self.train.add(length, f, self.rewrite, self.highest, self.seen, self.out)
    }
}

pub(crate) fn capabilities(mtu: usize) -> DeviceCapabilities {
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ip;
    capabilities.max_transmission_unit = mtu;
    capabilities.checksum = ChecksumCapabilities::ignored();
    capabilities.checksum.tcp = Checksum::None;
    capabilities
}

impl<O: Output> Device for Port<'_, O> {
    type RxToken<'a>
        = Arrival<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Place<'a, O>
    where
        Self: 'a;

    fn receive(&mut self, now: Instant) -> Option<(Arrival<'_>, Place<'_, O>)> {
        let packet = self.packet.take()?;
        let _ = now;
        let place = Place {
            train: self.train,
            rewrite: self.rewrite,
            highest: self.highest,
            seen: &mut self.seen,
            out: self.out,
        };
        Some((Arrival(packet), place))
    }

    fn transmit(&mut self, _: Instant) -> Option<Place<'_, O>> {
        if self.train.head.is_some_and(|head| head.closed) {
            self.train.flush(self.out);
        }
        if self.train.head.is_none() && !self.out.has_room() {
            return None;
        }
        Some(Place {
            train: self.train,
            rewrite: self.rewrite,
            highest: self.highest,
            seen: &mut self.seen,
            out: self.out,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities(self.mtu)
    }
}

/// The device of a handshake that is played again: what goes is kept, the last only.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    pub(crate) mtu: usize,
    pub(crate) packet: Option<&'a [u8]>,
    pub(crate) said: Option<(u32, u8)>,
    pub(crate) start: usize,
}

pub(crate) struct Note<'a> {
    said: &'a mut Option<(u32, u8)>,
    start: usize,
}

impl smoltcp::phy::TxToken for Note<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut bytes = vec![0; length];
        let result = f(&mut bytes);
        let tcp = bytes.get(self.start..).unwrap_or_default();
        if let [_, _, _, _, s0, s1, s2, s3, _, _, _, _, _, flags, ..] = tcp {
            *self.said = Some((u32::from_be_bytes([*s0, *s1, *s2, *s3]), *flags));
        }
        result
    }
}

impl Device for Stage<'_> {
    type RxToken<'a>
        = Arrival<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Note<'a>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Arrival<'_>, Note<'_>)> {
        let packet = self.packet.take()?;
        Some((Arrival(packet), Note { said: &mut self.said, start: self.start }))
    }

    fn transmit(&mut self, _: Instant) -> Option<Note<'_>> {
        Some(Note { said: &mut self.said, start: self.start })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities(self.mtu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{Draft, Segment};

    #[derive(Default)]
    struct Sent(Vec<(Vec<u8>, usize, u16)>);

    impl Output for Sent {
        fn send(&mut self, packet: &[u8], header: usize, segment: u16) {
            self.0.push((packet.to_vec(), header, segment));
        }
        fn has_room(&self) -> bool {
            true
        }
    }

    #[test]
    fn what_follows_goes_in_one_packet() {
        let (from, to) = ("10.0.0.1:7".parse().unwrap(), "10.0.0.2:9".parse().unwrap());
        let rewrite = Rewrite { start: 20, scale: 0, promised: 2, beyond: 0, fin: None, traffic_class: 0x10 };
        let (mut train, mut out, mut seen) = (Train::new(), Sent::default(), Seen::default());
        // (sequence number, bytes, flags): three that follow, the last one short; then one elsewhere.
        for (seq, bytes, flags) in [(100u32, 1000usize, 0), (1100, 1000, 0), (2100, 10, PSH), (9000, 1000, 0)] {
            let mut draft = Draft::new(from, to, flags, seq, Some(5));
            draft.window = 400;
            let (packet, length) = draft.build(bytes);
            let write = |place: &mut [u8]| {
                place[..length].copy_from_slice(&packet[..length]);
                place[length..].fill(seq as u8);
            };
            train.add(length + bytes, write, rewrite, 100, &mut seen, &mut out);
        }
        train.flush(&mut out);
        assert_eq!(out.0.iter().map(|s| (s.0.len(), s.1, s.2)).collect::<Vec<_>>(), [(2050, 40, 1000), (1040, 40, 0)]);
        let first = Segment::parse(&out.0[0].0, true).unwrap();
        assert_eq!((first.seq, first.flags, first.window, first.payload.len()), (100, ACK | PSH, 100, 2010));
        let shape: Vec<u8> = [(100u8, 1000), (76, 1000), (52, 10)].iter().flat_map(|&(b, n)| vec![b; n]).collect();
        assert_eq!(first.payload, shape);
        assert_eq!((seen.youngest, seen.again, seen.acked), (Some(10_000), 0, Some((5, 405))));
    }
}
