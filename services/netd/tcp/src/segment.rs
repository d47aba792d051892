//! IP packets with a TCP segment: taken apart and put together.
//!
//! Owns every byte that comes from a peer until it is known to be well-formed. Must never panic. Called by `engine` and `connection`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const PSH: u8 = 8;
pub(crate) const ACK: u8 = 16;

/// Whether sequence number `a` is after `b`.
pub(crate) fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

/// What was received out of order: left and right edges, the first block first.
pub(crate) type Blocks = [Option<(u32, u32)>; 4];

/// What a segment's options said. Those that belong to a SYN are for a SYN only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) mss: Option<u16>,
    pub(crate) scale: Option<u8>,
    pub(crate) sack: bool,
    /// TSval and TSecr.
    pub(crate) stamps: Option<(u32, u32)>,
    pub(crate) blocks: Blocks,
}

impl Options {
    /// `None` for options that lie about their length.
    fn parse(mut rest: &[u8]) -> Option<Options> {
        let mut options = Options::default();
        while let Some((&kind, tail)) = rest.split_first() {
            match kind {
                0 => break,
                1 => {
                    rest = tail;
                    continue;
                }
                _ => {}
            }
            let length = usize::from(*tail.first()?);
            let body = rest.get(2..length)?;
            match (kind, body) {
                (2, [high, low]) => options.mss = Some(u16::from_be_bytes([*high, *low])),
                (3, [scale]) => options.scale = Some((*scale).min(14)),
                (4, []) => options.sack = true,
                (5, body) if !body.is_empty() && body.len().is_multiple_of(8) => {
                    for (to, block) in options.blocks.iter_mut().zip(body.chunks_exact(8)) {
                        *to = Some((u32_at(block, 0)?, u32_at(block, 4)?));
                    }
                }
                (8, body) if body.len() == 8 => options.stamps = Some((u32_at(body, 0)?, u32_at(body, 4)?)),
                (2..=5 | 8, _) => return None,
                _ => {}
            }
            rest = rest.get(length..)?;
        }
        Some(options)
    }
}

/// A segment that came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    /// Our end.
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) options: Options,
    pub(crate) payload: &'a [u8],
    /// The packet without what followed it.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) packet: &'a [u8],
}

/// Why a packet was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Too short, lengths that lie, flags or addresses that no segment has.
    Malformed,
    Checksum,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    match bytes.get(at..at.checked_add(2)?)? {
        [a, b] => Some(u16::from_be_bytes([*a, *b])),
        _ => None,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    match bytes.get(at..at.checked_add(4)?)? {
        [a, b, c, d] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at.saturating_add(value.len())) {
        place.copy_from_slice(value);
    }
}

/// The ones' complement sum, not folded beyond 32 bits and not inverted.
fn sum(bytes: &[u8]) -> u64 {
    let mut total = 0u64;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        if let [a, b, c, d] = word {
            total = total.wrapping_add(u64::from(u32::from_be_bytes([*a, *b, *c, *d])));
        }
    }
    let mut last = [0; 4];
    last.iter_mut().zip(words.remainder()).for_each(|(to, from)| *to = *from);
    total.wrapping_add(u64::from(u32::from_be_bytes(last)))
}

fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff).wrapping_add(total >> 16);
    }
    total as u16
}

fn pseudo(one: IpAddr, other: IpAddr, length: usize) -> u64 {
    let ends = match (one, other) {
        (IpAddr::V4(a), IpAddr::V4(b)) => sum(&a.octets()).wrapping_add(sum(&b.octets())),
        (IpAddr::V6(a), IpAddr::V6(b)) => sum(&a.octets()).wrapping_add(sum(&b.octets())),
        _ => 0,
    };
    ends.wrapping_add(6).wrapping_add(length as u64)
}

/// Bytes of the IP header that such an address has in what we send.
pub(crate) fn ip_header(of: IpAddr) -> usize {
    if of.is_ipv4() { 20 } else { 40 }
}

fn unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !(v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast()),
        // A mapped address never stands in a packet.
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_multicast() || v6.to_ipv4_mapped().is_some()),
    }
}

impl<'a> Segment<'a> {
    /// Takes a packet apart that came to us. `trusted`: the sum of the TCP segment is known to be right.
    pub(crate) fn parse(packet: &'a [u8], trusted: bool) -> Result<Self, Fault> {
        Self::take_apart(packet, trusted).ok_or(Fault::Malformed)?
    }

    fn take_apart(packet: &'a [u8], trusted: bool) -> Option<Result<Self, Fault>> {
        let (source, destination, whole, start) = match packet.first()? >> 4 {
            4 => {
                let start = usize::from(packet.first()? & 15).checked_mul(4)?;
                let total = usize::from(u16_at(packet, 2)?);
                let header = packet.get(..start)?;
                // More fragments, or a place in a fragmented packet: not whole.
                if start < 20 || total < start || u16_at(packet, 6)? & 0x3fff != 0 || *packet.get(9)? != 6 {
                    return None;
                }
                if fold(sum(header)) != 0xffff {
                    return Some(Err(Fault::Checksum));
                }
                let source = IpAddr::V4(Ipv4Addr::from_bits(u32_at(packet, 12)?));
                (source, IpAddr::V4(Ipv4Addr::from_bits(u32_at(packet, 16)?)), packet.get(..total)?, start)
            }
            6 => {
                let total = usize::from(u16_at(packet, 4)?).checked_add(40)?;
                if *packet.get(6)? != 6 {
                    return None;
                }
                let address = |bytes: &[u8]| Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)));
                (address(packet.get(8..24)?)?, address(packet.get(24..40)?)?, packet.get(..total)?, 40)
            }
            _ => return None,
        };
        let tcp = whole.get(start..)?;
        let offset = usize::from(*tcp.get(12)? >> 4).checked_mul(4)?;
        let flags = *tcp.get(13)?;
        let (from, to) = (u16_at(tcp, 0)?, u16_at(tcp, 2)?);
        let (options, payload) = (tcp.get(20..offset)?, tcp.get(offset..)?);
        if from == 0 || to == 0 || !unicast(source) || !unicast(destination) {
            return None;
        }
        if (flags & (SYN | FIN | RST)).count_ones() > 1 {
            return None;
        }
        if !trusted && fold(pseudo(source, destination, tcp.len()).wrapping_add(sum(tcp))) != 0xffff {
            return Some(Err(Fault::Checksum));
        }
        Some(Ok(Segment {
            local: SocketAddr::new(destination, to),
            remote: SocketAddr::new(source, from),
            seq: u32_at(tcp, 4)?,
            ack: u32_at(tcp, 8)?,
            flags,
            window: u16_at(tcp, 14)?,
            options: Options::parse(options)?,
            payload,
            #[cfg(any(test, feature = "testing"))]
            packet: whole,
        }))
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// How many sequence numbers it takes.
    pub(crate) fn length(&self) -> u32 {
        (self.payload.len() as u32).wrapping_add(u32::from(self.has(SYN))).wrapping_add(u32::from(self.has(FIN)))
    }
}

/// A segment without payload, to be built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) seq: u32,
    /// With the flag ACK, if any.
    pub(crate) ack: Option<u32>,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) mss: Option<u16>,
    pub(crate) scale: Option<u8>,
    pub(crate) sack: bool,
    pub(crate) stamps: Option<(u32, u32)>,
    pub(crate) blocks: Blocks,
    pub(crate) hop_limit: u8,
    pub(crate) traffic_class: u8,
}

impl Draft {
    pub(crate) fn new(from: SocketAddr, to: SocketAddr, flags: u8, seq: u32, ack: Option<u32>) -> Self {
        Draft {
            from,
            to,
            seq,
            ack,
            flags,
            window: 0,
            mss: None,
            scale: None,
            sack: false,
            stamps: None,
            blocks: Blocks::default(),
            hop_limit: 64,
            traffic_class: 0,
        }
    }

    /// The packet, as `Output` has it, and how much of the array it is. What follows it in the array may be filled by the caller
    /// (`payload` says with how much, so that lengths are right).
    pub(crate) fn build(&self, payload: usize) -> ([u8; 100], usize) {
        let mut bytes = [0; 100];
        let start = ip_header(self.from.ip());
        let mut at = start.saturating_add(20);
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            put(&mut bytes, at, &[2, 4, high, low]);
            at = at.saturating_add(4);
        }
        // In Linux's order.
        if self.sack || self.stamps.is_some() {
            let filler = if self.sack { [4, 2] } else { [1, 1] };
            if let Some((value, echo)) = self.stamps {
                put(&mut bytes, at, &filler);
                put(&mut bytes, at.saturating_add(2), &[8, 10]);
                put(&mut bytes, at.saturating_add(4), &value.to_be_bytes());
                put(&mut bytes, at.saturating_add(8), &echo.to_be_bytes());
                at = at.saturating_add(12);
            } else {
                put(&mut bytes, at, &[1, 1, 4, 2]);
                at = at.saturating_add(4);
            }
        }
        if let Some(scale) = self.scale {
            put(&mut bytes, at, &[1, 3, 3, scale]);
            at = at.saturating_add(4);
        }
        let blocks = self.blocks.iter().flatten().count().min(if self.stamps.is_some() { 3 } else { 4 });
        if blocks > 0 {
            put(&mut bytes, at, &[1, 1, 5, (blocks as u8).saturating_mul(8).saturating_add(2)]);
            at = at.saturating_add(4);
            for (left, right) in self.blocks.iter().flatten().take(blocks) {
                put(&mut bytes, at, &left.to_be_bytes());
                put(&mut bytes, at.saturating_add(4), &right.to_be_bytes());
                at = at.saturating_add(8);
            }
        }
        let tcp = at.saturating_sub(start);
        put(&mut bytes, start, &self.from.port().to_be_bytes());
        put(&mut bytes, start.saturating_add(2), &self.to.port().to_be_bytes());
        put(&mut bytes, start.saturating_add(4), &self.seq.to_be_bytes());
        put(&mut bytes, start.saturating_add(8), &self.ack.unwrap_or(0).to_be_bytes());
        let flags = self.flags | if self.ack.is_some() { ACK } else { 0 };
        put(&mut bytes, start.saturating_add(12), &[(tcp as u8) << 2, flags]);
        put(&mut bytes, start.saturating_add(14), &self.window.to_be_bytes());
        let length = tcp.saturating_add(payload);
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                put(&mut bytes, 0, &[0x45, self.traffic_class]);
                put(&mut bytes, 6, &[0x40, 0, self.hop_limit, 6]);
                put(&mut bytes, 12, &from.octets());
                put(&mut bytes, 16, &to.octets());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                put(&mut bytes, 6, &[6, self.hop_limit]);
                put(&mut bytes, 8, &from.octets());
                put(&mut bytes, 24, &to.octets());
            }
            _ => {}
        }
        seal(&mut bytes, start, length, self.traffic_class);
        (bytes, at)
    }
}

/// Completes the headers of a packet to be sent, whose IP header has `start` bytes and whose segment has `length`: length, traffic class,
/// IPv4's checksum, and the sum of the pseudo header where the segment's checksum will be.
pub(crate) fn seal(packet: &mut [u8], start: usize, length: usize, traffic_class: u8) {
    let Some((header, tcp)) = packet.split_at_mut_checked(start) else { return };
    let ends = if start == 20 {
        put(header, 1, &[traffic_class]);
        put(header, 2, &(length.saturating_add(20) as u16).to_be_bytes());
        put(header, 10, &[0, 0]);
        let check = !fold(sum(header));
        put(header, 10, &check.to_be_bytes());
        header.get(12..20)
    } else {
        put(header, 0, &[0x60 | (traffic_class >> 4), traffic_class << 4, 0, 0]);
        put(header, 4, &(length as u16).to_be_bytes());
        header.get(8..40)
    };
    let partial = fold(sum(ends.unwrap_or_default()).wrapping_add(6).wrapping_add(length as u64));
    put(tcp, 16, &partial.to_be_bytes());
}

/// Completes the checksum of a packet of one segment as `Output` gets it. For devices without offload, and for tests.
pub fn complete_checksum(packet: &mut [u8]) {
    let start = match packet.first() {
        Some(first) if first >> 4 == 4 => usize::from(first & 15).saturating_mul(4),
        _ => 40,
    };
    if let Some(tcp) = packet.get_mut(start..) {
        let check = match !fold(sum(tcp)) {
            0 => 0xffff,
            check => check,
        };
        put(tcp, 16, &check.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(v6: bool) -> Vec<u8> {
        let (from, to) = if v6 { ("[fd00::1]:7", "[fd00::2]:9") } else { ("10.0.0.1:7", "10.0.0.2:9") };
        let mut draft = Draft::new(from.parse().unwrap(), to.parse().unwrap(), SYN, 77, Some(99));
        draft.mss = Some(1460);
        draft.scale = Some(7);
        draft.sack = true;
        draft.window = 1000;
        let (bytes, length) = draft.build(3);
        let mut packet = bytes[..length].to_vec();
        packet.extend(b"abc");
        complete_checksum(&mut packet);
        packet
    }

    #[test]
    fn what_is_built_is_parsed() {
        for v6 in [false, true] {
            let packet = sample(v6);
            let segment = Segment::parse(&packet, false).unwrap();
            assert_eq!((segment.seq, segment.ack, segment.flags, segment.window), (77, 99, SYN | ACK, 1000));
            assert_eq!((segment.local.port(), segment.remote.port(), segment.payload), (9, 7, &b"abc"[..]));
            assert_eq!(segment.options, Options { mss: Some(1460), scale: Some(7), sack: true, ..Options::default() });
            let mut longer = packet.clone();
            longer.extend([0; 9]);
            assert_eq!(Segment::parse(&longer, false).unwrap().payload, b"abc", "what follows the packet is not of it");
        }
    }

    #[test]
    fn truncated_and_changed_packets_are_refused() {
        for v6 in [false, true] {
            let packet = sample(v6);
            for length in 0..packet.len() {
                assert!(Segment::parse(&packet[..length], true).is_err(), "{length} bytes");
            }
            for at in 0..packet.len() {
                let mut changed = packet.clone();
                changed[at] ^= 0x10;
                // Traffic class, flow label, hop limit of IPv6 are in no sum.
                let open = v6 && (at < 4 || at == 7);
                assert!(open || Segment::parse(&changed, false).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn stamps_and_blocks_are_built_as_they_are_parsed() {
        let (from, to) = ("10.0.0.1:7".parse().unwrap(), "10.0.0.2:9".parse().unwrap());
        let blocks = [Some((1, 2)), Some((u32::MAX, 5)), Some((7, 9)), Some((11, 12))];
        for (stamps, kept) in [(None, 4), (Some((77, u32::MAX)), 3)] {
            let mut draft = Draft { stamps, blocks, ..Draft::new(from, to, 0, 1, Some(2)) };
            let (bytes, length) = draft.build(0);
            let mut packet = bytes[..length].to_vec();
            complete_checksum(&mut packet);
            let options = Segment::parse(&packet, false).unwrap().options;
            assert_eq!((options.stamps, &options.blocks[..kept]), (stamps, &blocks[..kept]));
            assert!(options.blocks[kept..].iter().all(Option::is_none));
            (draft.mss, draft.scale, draft.sack, draft.blocks, draft.flags) =
                (Some(9), Some(3), true, Blocks::default(), SYN);
            let (bytes, length) = draft.build(0);
            complete_checksum(&mut bytes[..length].to_vec());
            let options = Segment::parse(&bytes[..length], true).unwrap().options;
            assert_eq!(
                options,
                Options { mss: Some(9), scale: Some(3), sack: true, stamps, blocks: Blocks::default() }
            );
        }
    }

    #[test]
    fn options_that_lie_are_refused() {
        assert_eq!(Options::parse(&[2, 4, 5, 180, 1, 3, 3, 20, 0, 99]).unwrap().scale, Some(14));
        assert_eq!(Options::parse(&[99, 2, 1]), Some(Options::default()));
        let blocks = [5, 18, 0, 0, 0, 9, 0, 0, 0, 11, 0, 0, 0, 20, 0, 0, 0, 25];
        assert_eq!(Options::parse(&blocks).unwrap().blocks, [Some((9, 11)), Some((20, 25)), None, None]);
        for bad in [
            &[2][..],
            &[2, 0],
            &[2, 1],
            &[2, 3, 1],
            &[2, 4, 1],
            &[3, 4, 1, 1],
            &[5, 2],
            &[5, 9, 0, 0, 0, 0, 0, 0, 0],
            &[8, 3, 1],
            &[99, 0],
            &[4, 3, 0],
        ] {
            assert_eq!(Options::parse(bad), None, "{bad:?}");
        }
    }
}
