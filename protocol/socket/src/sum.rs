//! The sum of the Internet's protocols (RFC 1071): netd checks it in what comes, the Sentry puts it into what its sockets send.

use std::net::IpAddr;

/// The sum of 16-bit words over some parts, each of an even length but for the last; over all of it, with the sum in its place, it is 0.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        let (pairs, rest) = part.as_chunks::<2>();
        sum += pairs.iter().map(|p| u64::from(u16::from_be_bytes(*p))).sum::<u64>();
        sum += rest.first().map_or(0, |b| u64::from(*b) << 8);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// What is summed of a packet's header (RFC 768; RFC 8200, 8.1): addresses, length, protocol.
pub fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    let mut raw = Vec::with_capacity(40);
    for ip in [from, to] {
        match ip {
            IpAddr::V4(ip) => raw.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => raw.extend_from_slice(&ip.octets()),
        }
    }
    raw.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    raw.extend_from_slice(&[0, 0, 0, protocol]);
    raw
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&[&data]), !0xddf2);
    }
}
