//! IP packets: what their headers say, and headers for what is sent. Pure.

use std::net::{IpAddr, Ipv6Addr};

use cofferdam_socket::packet;
use cofferdam_socket::sum::{checksum, pseudo};
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet};

/// Bytes of a header without options.
pub const HEADER4: usize = 20;
/// See [`HEADER4`].
pub const HEADER6: usize = 40;
/// Bytes of the header of a piece (RFC 8200, 4.5).
const PIECE6: usize = 8;
/// Protocols.
pub const ICMP: u8 = 1;
/// See [`ICMP`].
pub const TCP: u8 = 6;
/// See [`ICMP`].
pub const UDP: u8 = 17;
/// See [`ICMP`].
pub const ICMP6: u8 = 58;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Where from.
    pub from: IpAddr,
    /// Where to.
    pub to: IpAddr,
    /// What it carries.
    pub protocol: u8,
    /// Hops left.
    pub hops: u8,
    /// Type of service, traffic class.
    pub service: u8,
    /// Of a piece: the whole's number, where it is in that, and whether more come after it.
    pub piece: Option<(u32, usize, bool)>,
}

impl Head {
    /// As the Sentry says it.
    pub fn of(head: &packet::Head) -> Self {
        Self {
            from: head.from,
            to: head.to,
            protocol: head.protocol,
            hops: head.hops,
            service: head.service,
            piece: None,
        }
    }

    /// As it is told the Sentry, with [`packet::flags`] and the interface that it came by.
    pub fn told(&self, flags: u8, interface: u32) -> packet::Head {
        packet::Head {
            from: self.from,
            to: self.to,
            protocol: self.protocol,
            hops: self.hops,
            service: self.service,
            flags,
            interface,
            mtu: 0,
        }
    }
}

/// Takes a packet apart: what its header says, and what it carries. `None`: it is none.
pub fn parse(packet: &[u8]) -> Option<(Head, &[u8])> {
    match packet.first()? >> 4 {
        4 => parse4(packet),
        6 => parse6(packet),
        _ => None,
    }
}

fn parse4(raw: &[u8]) -> Option<(Head, &[u8])> {
    let packet = Ipv4Packet::new_checked(raw).ok()?;
    if usize::from(packet.header_len()) < HEADER4 || !packet.verify_checksum() {
        return None;
    }
    let (at, more) = (usize::from(packet.frag_offset()), packet.more_frags());
    let head = Head {
        from: packet.src_addr().into(),
        to: packet.dst_addr().into(),
        protocol: packet.next_header().into(),
        hops: packet.hop_limit(),
        service: packet.dscp() << 2 | packet.ecn(),
        piece: (at > 0 || more).then(|| (u32::from(packet.ident()), at, more)),
    };
    raw.get(usize::from(packet.header_len())..usize::from(packet.total_len())).map(|data| (head, data))
}

fn parse6(raw: &[u8]) -> Option<(Head, &[u8])> {
    let packet = Ipv6Packet::new_checked(raw).ok()?;
    let mut data = raw.get(HEADER6..HEADER6.checked_add(usize::from(packet.payload_len()))?)?;
    let mut next = packet.next_header();
    let mut piece = None;
    // Headers between: few, or it is no packet for us.
    for _ in 0..8 {
        let len = match next {
            IpProtocol::HopByHop | IpProtocol::Ipv6Route | IpProtocol::Ipv6Opts => 8 * (usize::from(*data.get(1)?) + 1),
            IpProtocol::Ipv6Frag => {
                let [_, _, high, low, number @ ..] = *data.first_chunk::<PIECE6>()?;
                let word = u16::from_be_bytes([high, low]);
                piece = Some((u32::from_be_bytes(number), usize::from(word & !7), word & 1 != 0));
                PIECE6
            }
            _ => break,
        };
        // A way that it is to take is nobody's business (RFC 5095).
        if next == IpProtocol::Ipv6Route && *data.get(3)? != 0 {
            return None;
        }
        next = IpProtocol::from(*data.first()?);
        data = data.get(len..)?;
        // What comes after the header of a piece is the whole's.
        if piece.is_some() {
            break;
        }
    }
    // A "piece" that is all of it is none (RFC 6946).
    let piece = piece.filter(|(_, at, more)| *at > 0 || *more);
    let head = Head {
        from: packet.src_addr().into(),
        to: packet.dst_addr().into(),
        protocol: next.into(),
        hops: packet.hop_limit(),
        service: packet.traffic_class(),
        piece,
    };
    Some((head, data))
}

/// A packet: header and what it carries. `number`: for its pieces, should it be taken apart on its way; `whole`: it must not be.
pub fn build(head: &Head, number: u16, whole: bool, data: &[u8]) -> Option<Vec<u8>> {
    build_piece(head, number, u16::from(whole) << 14, data)
}

/// With the field of IPv4's header that tells of pieces.
fn build_piece(head: &Head, number: u16, field: u16, data: &[u8]) -> Option<Vec<u8>> {
    match (head.from, head.to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = u16::try_from(HEADER4.checked_add(data.len())?).ok()?;
            let mut raw = vec![0; HEADER4];
            {
                let mut p = Ipv4Packet::new_unchecked(&mut raw);
                p.set_version(4);
                p.set_header_len(HEADER4 as u8);
                p.set_dscp(head.service >> 2);
                p.set_ecn(head.service & 3);
                p.set_total_len(total);
                p.set_ident(number);
                p.clear_flags();
                p.set_dont_frag(field & 1 << 14 != 0);
                p.set_more_frags(field & 1 << 13 != 0);
                p.set_frag_offset((field & 0x1fff) << 3);
                p.set_hop_limit(head.hops);
                p.set_next_header(head.protocol.into());
                p.set_src_addr(from);
                p.set_dst_addr(to);
                p.fill_checksum();
            }
            raw.extend_from_slice(data);
            Some(raw)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut raw = header6(head, from, to, head.protocol, data.len())?;
            raw.extend_from_slice(data);
            Some(raw)
        }
        _ => None,
    }
}

fn header6(head: &Head, from: Ipv6Addr, to: Ipv6Addr, next: u8, len: usize) -> Option<Vec<u8>> {
    let mut raw = vec![0; HEADER6];
    let mut p = Ipv6Packet::new_unchecked(&mut raw);
    p.set_version(6);
    p.set_traffic_class(head.service);
    p.set_payload_len(u16::try_from(len).ok()?);
    p.set_next_header(next.into());
    p.set_hop_limit(head.hops);
    p.set_src_addr(from);
    p.set_dst_addr(to);
    Some(raw)
}

/// The packets of one that is too long for a link, each of `mtu` bytes at most.
pub fn cut(head: &Head, number: u32, data: &[u8], mtu: usize) -> Option<Vec<Vec<u8>>> {
    let four = head.from.is_ipv4();
    let headers = if four { HEADER4 } else { HEADER6 + PIECE6 };
    let size = mtu.checked_sub(headers)? & !7;
    if size == 0 {
        return None;
    }
    let mut all = Vec::new();
    for (n, piece) in data.chunks(size).enumerate() {
        let at = n.checked_mul(size)?;
        let more = at.checked_add(piece.len())? < data.len();
        let packet = match (head.from, head.to) {
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                const FRAGMENT: u8 = 44;
                let mut raw = header6(head, from, to, FRAGMENT, PIECE6.checked_add(piece.len())?)?;
                let word = u16::try_from(at).ok()? | u16::from(more);
                raw.extend_from_slice(&[head.protocol, 0]);
                raw.extend_from_slice(&word.to_be_bytes());
                raw.extend_from_slice(&number.to_be_bytes());
                raw.extend_from_slice(piece);
                raw
            }
            _ => {
                let field = u16::from(more) << 13 | u16::try_from(at >> 3).ok()?;
                build_piece(head, number as u16, field, piece)?
            }
        };
        all.push(packet);
    }
    Some(all)
}

/// Whether the sum of what a packet carries is right, where it has one that we know.
pub fn is_sound(head: &Head, data: &[u8]) -> bool {
    let all = || checksum(&[&pseudo(head.from, head.to, head.protocol, data.len()), data]) == 0;
    match head.protocol {
        UDP => {
            let len = data.get(4..6).and_then(<[u8]>::first_chunk).map_or(0, |b| usize::from(u16::from_be_bytes(*b)));
            let unsummed = data.get(6..8) == Some(&[0, 0]) && head.to.is_ipv4();
            let Some(whole) = data.get(..len).filter(|_| len >= 8) else { return false };
            unsummed || checksum(&[&pseudo(head.from, head.to, UDP, len), whole]) == 0
        }
        ICMP if head.to.is_ipv4() => data.len() >= 8 && checksum(&[data]) == 0,
        ICMP6 if head.to.is_ipv6() => data.len() >= 4 && all(),
        _ => true,
    }
}

/// A message of ICMP's about a packet that is not going on: type, code, a word that goes with it, and as much of the packet as is told.
pub fn unreachable(from: IpAddr, about: &[u8], kind: (u8, u8), word: u32) -> Option<(Head, Vec<u8>)> {
    let (inner, _) = parse(about)?;
    let four = from.is_ipv4();
    let most = if four { 548 } else { 1232 };
    let (protocol, kind, code) = (if four { ICMP } else { ICMP6 }, kind.0, kind.1);
    let mut data = vec![kind, code, 0, 0];
    data.extend_from_slice(&word.to_be_bytes());
    data.extend_from_slice(about.get(..about.len().min(most))?);
    let head = Head { from, to: inner.from, protocol, hops: 64, service: 0xc0, piece: None };
    let sum = match four {
        true => checksum(&[&data]),
        false => checksum(&[&pseudo(head.from, head.to, ICMP6, data.len()), &data]),
    };
    data.iter_mut().skip(2).zip(sum.to_be_bytes()).for_each(|(to, b)| *to = b);
    Some((head, data))
}

/// The beginning of a packet as an error brings it back: from, to, protocol, and what it carried.
pub fn beginning(packet: &[u8]) -> Option<(IpAddr, IpAddr, u8, &[u8])> {
    if packet.first()? >> 4 == 4 {
        let len = usize::from(packet.first()? & 15) * 4;
        let ip = |at: usize| packet.get(at..).and_then(<[u8]>::first_chunk::<4>).map(|b| IpAddr::from(*b));
        return Some((ip(12)?, ip(16)?, *packet.get(9)?, packet.get(len..)?));
    }
    let ip = |at: usize| packet.get(at..).and_then(<[u8]>::first_chunk::<16>).map(|b| IpAddr::from(*b));
    Some((ip(8)?, ip(24)?, *packet.get(6)?, packet.get(HEADER6..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(ips: [&str; 2]) -> Head {
        let [from, to] = ips.map(|ip| ip.parse().unwrap());
        Head { from, to, protocol: UDP, hops: 9, service: 0x2e, piece: None }
    }

    #[test]
    fn packets_are_read_as_they_were_built() {
        for ips in [["10.0.0.1", "10.0.0.2"], ["fd00::1", "fd00::2"]] {
            let head = head(ips);
            let data = vec![5; 3000];
            let raw = build(&head, 7, true, &data).unwrap();
            assert_eq!(parse(&raw), Some((head, &data[..])));
            for len in 0..raw.len() {
                assert_eq!(parse(&raw[..len]), None, "{len}");
            }
            let mut all = Vec::new();
            for piece in cut(&head, 70_000, &data, 1280).unwrap() {
                assert!(piece.len() <= 1280);
                let (h, d) = parse(&piece).unwrap();
                let (_, at, more) = h.piece.unwrap();
                assert_eq!((at, more), (all.len(), all.len() + d.len() < 3000));
                all.extend_from_slice(d);
            }
            assert_eq!(all, data);
        }
    }

    #[test]
    fn sums_are_checked() {
        for ips in [["10.0.0.1", "10.0.0.2"], ["fd00::1", "fd00::2"]] {
            let head = head(ips);
            let mut data = vec![0, 1, 0, 2, 0, 11, 0, 0, 1, 2, 3];
            let right = checksum(&[&pseudo(head.from, head.to, UDP, 11), &data]).to_be_bytes();
            assert_eq!(is_sound(&head, &data), head.to.is_ipv4(), "none at all");
            data[6..8].copy_from_slice(&right);
            assert!(is_sound(&head, &data));
            data[10] ^= 1;
            assert!(!is_sound(&head, &data));
            let raw = build(&head, 0, false, &data).unwrap();
            let (error, body) = unreachable(head.to, &raw, (3, 1), 0).unwrap();
            assert!(is_sound(&error, &body) && error.to == head.from);
        }
    }
}
