//! Packets of all that is not TCP, in the ring of slot 0: what an IP packet carries, whole, with what its header says.
//!
//! netd puts pieces together and takes packets apart into pieces, finds the way and the neighbour, and checks the sums of what comes in. What
//! sockets of the Sentry's sent is complete but for the IP header.

use std::net::{IpAddr, Ipv6Addr};

use crate::Broken;
use crate::ring::{Consumer, Producer};

/// The longest payload.
pub const MOST: usize = 65_535;

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Where from.
    pub from: IpAddr,
    /// Where to.
    pub to: IpAddr,
    /// `IPPROTO_*`.
    pub protocol: u8,
    /// Time to live, hops.
    pub hops: u8,
    /// Type of service, traffic class.
    pub service: u8,
    /// See [`flags`].
    pub flags: u8,
    /// Number of the interface that it came by, or that it is to leave by; 0: any.
    pub interface: u32,
    /// The longest packet that gets there, bytes, of one to be sent; 0: as long as the interface's.
    pub mtu: u32,
}

/// What is said with a packet.
pub mod flags {
    /// It must not be taken apart (`IP_DF`): one that is too long is answered by an error of ICMP's.
    pub const WHOLE: u8 = 1;
    /// It has its IP header already (`IP_HDRINCL`).
    pub const HEADED: u8 = 2;
    /// It was sent to all on its link.
    pub const BROADCAST: u8 = 4;
}

const HEAD: usize = 48;

/// Puts a packet into a ring; whether it fitted.
pub fn put(ring: &mut Producer, head: &Head, payload: &[u8]) -> Result<bool, Broken> {
    let Ok(len) = u32::try_from(payload.len()) else { return Ok(false) };
    let six = |ip| match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let mut raw = [0; HEAD];
    let fields: [&[u8]; 6] = [
        &len.to_le_bytes(),
        &six(head.from),
        &six(head.to),
        &[head.protocol, head.hops, head.service, head.flags],
        &head.interface.to_le_bytes(),
        &head.mtu.to_le_bytes(),
    ];
    raw.iter_mut().zip(fields.into_iter().flatten()).for_each(|(to, b)| *to = *b);
    ring.put(&[&raw, payload])
}

/// Takes the next one out; `None` where there is none.
pub fn take(ring: &mut Consumer) -> Result<Option<(Head, Vec<u8>)>, Broken> {
    let mut raw = [0; HEAD];
    match ring.peek(0, &mut raw)? {
        0 => return Ok(None),
        HEAD => {}
        _ => return Err(Broken("a packet without its head")),
    }
    let word = |at: usize| raw.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u32::from_le_bytes(*b));
    let ip = |at: usize| {
        let ip = Ipv6Addr::from(raw.get(at..).and_then(<[u8]>::first_chunk::<16>).copied().unwrap_or_default());
        ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)
    };
    let byte = |at: usize| raw.get(at).copied().unwrap_or(0);
    let len = word(0) as usize;
    if len > MOST {
        return Err(Broken("a packet that is too long"));
    }
    let mut payload = vec![0; len];
    ring.pass(HEAD as u32)?;
    if ring.take(&mut payload)? < len {
        return Err(Broken("a packet that is not whole"));
    }
    let head = Head {
        from: ip(4),
        to: ip(20),
        protocol: byte(36),
        hops: byte(37),
        service: byte(38),
        flags: byte(39),
        interface: word(40),
        mtu: word(44),
    };
    if head.from.is_ipv4() != head.to.is_ipv4() {
        return Err(Broken("a packet between two families"));
    }
    Ok(Some((head, payload)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::Slot;
    use crate::{Side, WINDOW_BYTES, Window};
    use std::sync::Arc;

    fn rings() -> (Producer, Consumer) {
        let w = Arc::new(Window::create("test", WINDOW_BYTES).unwrap());
        let slot = Slot::new(&w, crate::PACKETS).unwrap();
        (slot.rings(&w, Side::Netd).0, slot.rings(&w, Side::Sentry).1)
    }

    #[test]
    fn packets_come_out_as_they_went_in() {
        let (mut p, mut c) = rings();
        for (ips, len) in [(["10.1.2.3", "255.255.255.255"], 0), (["fd00::1", "ff02::1"], 1), (["::", "::1"], MOST)] {
            let [from, to] = ips.map(|ip| ip.parse().unwrap());
            let head =
                Head { from, to, protocol: 17, hops: 3, service: 4, flags: flags::WHOLE, interface: 70_000, mtu: 1300 };
            let payload = vec![7; len];
            assert!(put(&mut p, &head, &payload).unwrap());
            assert_eq!(take(&mut c).unwrap(), Some((head, payload)));
        }
        assert_eq!(take(&mut c).unwrap(), None);
    }

    #[test]
    fn what_is_broken_is_told() {
        let (mut p, mut c) = rings();
        p.put(&[&[0; HEAD - 1]]).unwrap();
        assert!(take(&mut c).is_err());
        let (mut p, mut c) = rings();
        p.put(&[&[9, 0, 0, 0], &[0; HEAD - 4], &[0; 8]]).unwrap();
        assert!(take(&mut c).is_err());
        let (mut p, mut c) = rings();
        p.put(&[&[255; HEAD]]).unwrap();
        assert!(take(&mut c).is_err());
    }
}
