//! Addresses of internet sockets, `ip(7)`, `ipv6(7)`: as programs write them (`struct sockaddr_in`, `struct sockaddr_in6`) and as they are
//! kept: an IPv4 address is one whichever family of socket has it (IPv6 sockets show it mapped, `::ffff:a.b.c.d`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::errno::Errno;

/// `AF_INET`.
pub const AF_INET: u16 = 2;
/// `AF_INET6`.
pub const AF_INET6: u16 = 10;
/// Bytes of `struct sockaddr_in`.
const LEN4: usize = 16;
/// Bytes of `struct sockaddr_in6`, and how many Linux asks for (RFC 2133 had no scope).
const LEN6: usize = 28;
const LEAST6: usize = 24;

/// Family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Domain {
    V4,
    V6,
}

impl Domain {
    /// Its number.
    pub fn number(self) -> u16 {
        match self {
            Self::V4 => AF_INET,
            Self::V6 => AF_INET6,
        }
    }

    /// The address that is none in particular.
    pub fn any(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Never a mapped one.
    pub ip: IpAddr,
    /// In the host's order.
    pub port: u16,
}

impl Endpoint {
    /// As a socket of a family shows it.
    pub fn encode(self, domain: Domain) -> Vec<u8> {
        let mut raw = domain.number().to_ne_bytes().to_vec();
        raw.extend_from_slice(&self.port.to_be_bytes());
        match domain {
            Domain::V4 => {
                let ip = if let IpAddr::V4(ip) = self.ip { ip } else { Ipv4Addr::UNSPECIFIED };
                raw.extend_from_slice(&ip.octets());
                raw.resize(LEN4, 0);
            }
            Domain::V6 => {
                raw.extend_from_slice(&[0; 4]);
                raw.extend_from_slice(&six(self.ip).octets());
                raw.resize(LEN6, 0);
            }
        }
        raw
    }
}

/// As an IPv6 address, mapped if need be.
pub fn six(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// The family that an address says it is of; EINVAL if it is too short to.
pub fn family(raw: &[u8]) -> Result<u16, Errno> {
    raw.first_chunk().map(|b| u16::from_ne_bytes(*b)).ok_or(Errno::EINVAL)
}

/// Takes an address apart as one of a family, whatever it says itself. EINVAL if it is too short. Whether it was written as an IPv6
/// address comes along: a mapped one is of both.
pub fn decode(raw: &[u8], domain: Domain) -> Result<Endpoint, Errno> {
    let port = raw.get(2..).and_then(<[u8]>::first_chunk).map(|b| u16::from_be_bytes(*b)).ok_or(Errno::EINVAL)?;
    let ip = match domain {
        Domain::V4 if raw.len() < LEN4 => return Err(Errno::EINVAL),
        Domain::V4 => raw.get(4..).and_then(<[u8]>::first_chunk::<4>).map(|b| IpAddr::V4(Ipv4Addr::from(*b))),
        Domain::V6 if raw.len() < LEAST6 => return Err(Errno::EINVAL),
        Domain::V6 => raw.get(8..).and_then(<[u8]>::first_chunk::<16>).map(|b| canonical(Ipv6Addr::from(*b))),
    };
    Ok(Endpoint { ip: ip.ok_or(Errno::EINVAL)?, port })
}

/// Whether an address of IPv6 says on which link it is only by a number of a device, and names none.
pub fn lacks_scope(raw: &[u8], ip: IpAddr) -> bool {
    let IpAddr::V6(ip) = ip else { return false };
    let scope = raw.get(24..).and_then(<[u8]>::first_chunk).map_or(0, |b| u32::from_ne_bytes(*b));
    let [first, second, ..] = ip.octets();
    let local = first == 0xfe && second & 0xc0 == 0x80 || first == 0xff && second & 15 <= 2;
    local && scope == 0
}

/// A mapped address is the IPv4 address that it stands for.
pub fn canonical(ip: Ipv6Addr) -> IpAddr {
    ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_shown() {
        let of = |ip: &str, port| Endpoint { ip: ip.parse().unwrap(), port };
        for (at, domain, len) in [
            (of("127.0.0.1", 80), Domain::V4, 16),
            (of("127.0.0.1", 80), Domain::V6, 28),
            (of("::1", 1), Domain::V6, 28),
        ] {
            let raw = at.encode(domain);
            assert_eq!((raw.len(), family(&raw), decode(&raw, domain)), (len, Ok(domain.number()), Ok(at)));
            assert_eq!(decode(raw.get(..len - 5).unwrap(), domain), Err(Errno::EINVAL));
        }
        assert_eq!(family(&[1]), Err(Errno::EINVAL));
    }
}
