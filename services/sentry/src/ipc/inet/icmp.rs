//! ICMP and ICMPv6 within a namespace, `icmp(7)`: echo requests to its own addresses are answered, answers go to ping sockets, and what says
//! that nobody is there is made for raw sockets to hear. Checksums are those of RFC 1071.
//!
//! Called by what sends packets (`raw`) and by UDP. Everything in a packet is the container's.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use cofferdam_socket::sum::{checksum, pseudo};

use super::Kind;
use super::address::Domain;
use super::raw::{self, Packet};
use crate::errno::Errno;
use crate::namespaces::NetNamespace;

/// `IPPROTO_ICMP`, `IPPROTO_ICMPV6`.
pub const ICMP: u8 = 1;
pub const ICMP6: u8 = 58;
/// Bytes of a message's header.
pub const HEADER: usize = 8;

/// Types of messages: what asks for an echo, what answers.
pub const fn echo(protocol: u8) -> [u8; 2] {
    if protocol == ICMP { [8, 0] } else { [128, 129] }
}

/// The sum over what a packet holds, with its header where the protocol takes that in.
fn sum_of(p: &Packet) -> u16 {
    let with = if p.protocol == ICMP { Vec::new() } else { pseudo(p.from, p.to, p.protocol, p.data.len()) };
    checksum(&[&with, &p.data])
}

/// Puts the sum into a message.
pub fn seal(p: &mut Packet) {
    put(&mut p.data, 2, [0; 2]);
    let sum = sum_of(p).to_be_bytes();
    put(&mut p.data, 2, sum);
}

fn put(data: &mut [u8], at: usize, bytes: [u8; 2]) {
    data.iter_mut().skip(at).zip(bytes).for_each(|(to, b)| *to = b);
}

/// A message has come: what it makes the namespace send.
pub fn take(net: &Arc<NetNamespace>, p: &Packet) -> Option<Packet> {
    let [asks, answers] = echo(p.protocol);
    let &[kind, code, _, _, high, low, ..] = p.data.as_slice() else { return None };
    if p.data.len() < HEADER || sum_of(p) != 0 {
        return None;
    }
    if kind == answers {
        let id = u16::from_be_bytes([high, low]);
        let domain = if p.protocol == ICMP { Domain::V4 } else { Domain::V6 };
        let all = net.ports(Kind::Ping(p.protocol)).lock().at(id);
        let fits = all.into_iter().filter(|s| s.domain == domain && s.hears(p));
        // The last that took the number.
        if let Some(socket) = fits.max_by_key(|s| s.id) {
            socket.take_packet(p.data.clone(), p);
        }
        return None;
    }
    let ignored = match p.to {
        IpAddr::V4(_) => net.settings.silent.load(Ordering::Relaxed) != 0,
        IpAddr::V6(_) => false,
    };
    // Groups and all of a network are asked in vain (`net.ipv4.icmp_echo_ignore_broadcasts`).
    if kind != asks || code != 0 || ignored || !net.has(p.to) || net.is_broadcast(p.to) {
        return None;
    }
    let mut data = p.data.clone();
    if let Some(kind) = data.first_mut() {
        *kind = answers;
    }
    let mut reply = Packet {
        from: p.to,
        to: p.from,
        protocol: p.protocol,
        ttl: raw::hops(net),
        tos: p.tos,
        data,
        whole: None,
        device: p.device,
    };
    seal(&mut reply);
    Some(reply)
}

/// What a message means to who sent the packet that it is about: an error, and whether it stands (`icmp_err_convert`, `tab_unreach`).
pub fn error_of(four: bool, kind: u8, code: u8) -> Option<(Errno, bool)> {
    Some(match (four, kind, code) {
        (true, 3, 0 | 5 | 6 | 8 | 11) => (Errno::ENETUNREACH, code == 6 || code == 9),
        (true, 3, 2) => (Errno::ENOPROTOOPT, true),
        (true, 3, 3) => (Errno::ECONNREFUSED, true),
        (true, 3, 4) => (Errno::EMSGSIZE, false),
        (true, 3, 9) => (Errno::ENETUNREACH, true),
        (true, 3, 13..=15) => (Errno::EHOSTUNREACH, true),
        (true, 3, 7 | 10) => (Errno::EHOSTUNREACH, true),
        (true, 3 | 11, _) => (Errno::EHOSTUNREACH, false),
        (true, 12, _) => (Errno::EPROTO, true),
        (false, 1, 0) => (Errno::ENETUNREACH, false),
        (false, 1, 1 | 5 | 6) => (Errno::EACCES, true),
        (false, 1, 4) => (Errno::ECONNREFUSED, true),
        (false, 1 | 3, _) => (Errno::EHOSTUNREACH, false),
        (false, 2, _) => (Errno::EMSGSIZE, false),
        (false, 4, _) => (Errno::EPROTO, true),
        _ => return None,
    })
}

/// The message that nobody takes a packet: `code` says what there is none of.
pub fn unreachable(net: &Arc<NetNamespace>, lost: &Packet, code: u8) -> Packet {
    /// As much of the packet as there is room for in one that every network carries.
    const MOST: [usize; 2] = [576 - 28, 1280 - 48];
    const TYPES: [u8; 2] = [3, 1];
    let [four, six] = MOST;
    let ([kind4, kind6], is_four) = (TYPES, lost.to.is_ipv4());
    let mut about = lost.bytes();
    about.truncate(if is_four { four } else { six });
    let mut data = vec![if is_four { kind4 } else { kind6 }, code, 0, 0, 0, 0, 0, 0];
    data.extend_from_slice(&about);
    let protocol = if is_four { ICMP } else { ICMP6 };
    // Its own precedence (RFC 1812).
    let tos = if is_four { lost.tos & 0x1e | 0xc0 } else { 0 };
    let device = lost.device;
    let mut p = Packet { from: lost.to, to: lost.from, protocol, ttl: raw::hops(net), tos, data, whole: None, device };
    seal(&mut p);
    p
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_right_with_themselves_in_place() {
        // RFC 1071's example.
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&[&data]), !0xddf2);
        for ip in ["127.0.0.1", "::1"] {
            let ip: IpAddr = ip.parse().unwrap();
            let protocol = if ip.is_ipv4() { ICMP } else { ICMP6 };
            let data = vec![8, 0, 9, 9, 1, 2, 3, 4, 5];
            let mut p = Packet { from: ip, to: ip, protocol, ttl: 1, tos: 0, data, whole: None, device: 0 };
            seal(&mut p);
            assert_eq!(sum_of(&p), 0);
            p.data[8] ^= 1;
            assert_ne!(sum_of(&p), 0);
        }
    }
}
