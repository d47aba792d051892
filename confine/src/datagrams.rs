//! Datagrams of a socket of the host's with what goes along: addresses and devices (`IP_PKTINFO`), hops, service, and the errors that come back
//! (`MSG_ERRQUEUE`), as `ip(7)` and `ipv6(7)` have it. Called by netd in the host's own network.

use std::io::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

/// Bytes of control data, of one message.
const CONTROL: usize = 512;
/// `SO_EE_ORIGIN_ICMP`, `SO_EE_ORIGIN_ICMP6`.
const FROM_ICMP: [u8; 2] = [2, 3];

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Came {
    /// Bytes.
    pub len: usize,
    /// Where from. Never an address of IPv4 in IPv6's clothes.
    pub from: SocketAddr,
    /// Where it was sent to.
    pub to: Option<IpAddr>,
    /// The number of the interface that it came by.
    pub interface: u32,
    /// Time to live, or hops; type of service, or traffic class.
    pub hops: u8,
    /// See `hops`.
    pub service: u8,
}

/// What did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// Bytes of it that came back.
    pub len: usize,
    /// Where it was to go.
    pub to: SocketAddr,
    /// A number of an error.
    pub error: i32,
    /// Who says so, with type and code of his message; `None`: this host itself.
    pub by: Option<(IpAddr, u8, u8)>,
    /// What is said with it: of one that is too long how long it may be.
    pub info: u32,
}

/// Has a socket of datagrams tell all of that. `four`: it is one of IPv4's.
pub fn tell_all(fd: &impl AsFd, four: bool) -> Result<(), Error> {
    let own = [libc::IP_RECVERR, libc::IP_RECVTTL, libc::IP_RECVTOS];
    let six = [libc::IPV6_RECVERR, libc::IPV6_RECVHOPLIMIT, libc::IPV6_RECVTCLASS, libc::IPV6_RECVPKTINFO];
    // One of IPv6's has to do with IPv4 as well.
    own.iter().try_for_each(|option| set(fd, libc::IPPROTO_IP, *option))?;
    match four {
        true => set(fd, libc::IPPROTO_IP, libc::IP_PKTINFO),
        false => six.iter().try_for_each(|option| set(fd, libc::IPPROTO_IPV6, *option)),
    }
}

fn set(fd: &impl AsFd, level: libc::c_int, option: libc::c_int) -> Result<(), Error> {
    let (on, len) = (1 as libc::c_int, size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the value is an int of that length and lives during the call.
    match unsafe { libc::setsockopt(fd.as_fd().as_raw_fd(), level, option, (&raw const on).cast(), len) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

/// Takes the next one; what has no room is cut off.
pub fn receive(fd: &impl AsFd, buffer: &mut [u8]) -> Result<Came, Error> {
    let got = Got::take(fd, buffer, libc::MSG_DONTWAIT)?;
    let from = got.from.ok_or(Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
    let mut came = Came { len: got.len, from, to: None, interface: 0, hops: 0, service: 0 };
    for (level, kind, data) in got.messages() {
        let int = int(data);
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                came.interface = int;
                came.to = data.get(8..).and_then(<[u8]>::first_chunk::<4>).map(|b| Ipv4Addr::from(*b).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                came.to = data.first_chunk::<16>().map(|b| IpAddr::from(*b).to_canonical());
                came.interface = data.get(16..).map_or(0, self::int);
            }
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => came.hops = int as u8,
            (libc::IPPROTO_IP, libc::IP_TOS) => came.service = data.first().copied().unwrap_or(0),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => came.service = int as u8,
            _ => {}
        }
    }
    Ok(came)
}

/// Takes the next error that came back; `None`: there is none.
pub fn failed(fd: &impl AsFd, buffer: &mut [u8]) -> Result<Option<Failed>, Error> {
    let got = match Got::take(fd, buffer, libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE) {
        Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => return Ok(None),
        other => other?,
    };
    let told = got.messages().into_iter().find_map(|(level, kind, data)| {
        let is = [(libc::IPPROTO_IP, libc::IP_RECVERR), (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)];
        is.contains(&(level, kind)).then_some(data)
    });
    let (Some(to), Some(data)) = (got.from, told) else { return Ok(None) };
    // `struct sock_extended_err`, and after it the address of who says so.
    let byte = |at: usize| data.get(at).copied().unwrap_or(0);
    let by = || address(data.get(16..)?).map(|a| (a.ip(), byte(5), byte(6)));
    let by = if FROM_ICMP.contains(&byte(4)) { by() } else { None };
    let info = data.get(8..).map_or(0, int);
    Ok(Some(Failed { len: got.len, to, error: int(data).cast_signed(), by, info }))
}

/// Sends one: from that address, unless that is none in particular, with so many hops and that service.
pub fn send(
    fd: &impl AsFd,
    data: &[u8],
    to: Option<SocketAddr>,
    from: IpAddr,
    (hops, service): (u8, u8),
) -> Result<usize, Error> {
    let mut control = Control::default();
    let ints = |n: u8| libc::c_int::from(n).to_ne_bytes();
    match from {
        IpAddr::V4(ip) => {
            if !ip.is_unspecified() {
                let mut info = [0; 12];
                info.iter_mut().skip(4).zip(ip.octets()).for_each(|(to, b)| *to = b);
                control.put(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            control.put(libc::IPPROTO_IP, libc::IP_TTL, &ints(hops.max(1)));
            control.put(libc::IPPROTO_IP, libc::IP_TOS, &ints(service));
        }
        IpAddr::V6(ip) => {
            if !ip.is_unspecified() {
                let mut info = [0; 20];
                info.iter_mut().zip(ip.octets()).for_each(|(to, b)| *to = b);
                control.put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            control.put(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &ints(hops));
            control.put(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &ints(service));
        }
    }
    let name = to.map(encode);
    let mut piece = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    // SAFETY: a msghdr of zeros is one without name, data and control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    if let Some((name, len)) = &name {
        message.msg_name = name.as_ptr().cast_mut().cast();
        message.msg_namelen = *len as libc::socklen_t;
    }
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes.0.as_mut_ptr().cast();
    message.msg_controllen = control.len;
    // SAFETY: name, data and control data live during the call, are as long as is said, and are only read.
    let sent = unsafe { libc::sendmsg(fd.as_fd().as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| Error::last_os_error())
}

/// Bytes that lie as control data must.
#[repr(align(8))]
struct Aligned([u8; CONTROL]);

/// Control data to be sent.
struct Control {
    bytes: Aligned,
    len: usize,
}

impl Default for Control {
    fn default() -> Self {
        Self { bytes: Aligned([0; CONTROL]), len: 0 }
    }
}

impl Control {
    /// One message more (`struct cmsghdr`): its length, level, type, and data.
    fn put(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let len = HEAD + data.len();
        let whole = [&len.to_ne_bytes()[..], &level.to_ne_bytes(), &kind.to_ne_bytes(), data].concat();
        if self.len + whole.len() <= CONTROL {
            self.bytes.0.iter_mut().skip(self.len).zip(whole).for_each(|(to, b)| *to = b);
            self.len = (self.len + len).next_multiple_of(8);
        }
    }
}

/// Bytes of a `struct cmsghdr`.
const HEAD: usize = 16;

struct Got {
    len: usize,
    from: Option<SocketAddr>,
    control: Aligned,
    /// Bytes of it.
    used: usize,
}

impl Got {
    fn take(fd: &impl AsFd, buffer: &mut [u8], flags: libc::c_int) -> Result<Self, Error> {
        let mut name = [0u8; size_of::<libc::sockaddr_storage>()];
        let mut control = Aligned([0; CONTROL]);
        let mut piece = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: a msghdr of zeros is one without name, data and control data.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_name = name.as_mut_ptr().cast();
        message.msg_namelen = name.len() as libc::socklen_t;
        message.msg_iov = &raw mut piece;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL;
        // SAFETY: name, data and control data live during the call and are as long as is said.
        let got = unsafe { libc::recvmsg(fd.as_fd().as_raw_fd(), &raw mut message, flags) };
        let len = usize::try_from(got).map_err(|_| Error::last_os_error())?;
        Ok(Self { len, from: address(&name), control, used: message.msg_controllen.min(CONTROL) })
    }

    /// The messages of the control data: level, type, data.
    fn messages(&self) -> Vec<(libc::c_int, libc::c_int, &[u8])> {
        let mut rest = self.control.0.get(..self.used).unwrap_or_default();
        let mut all = Vec::new();
        while let Some(len) = rest.first_chunk().map(|b| usize::from_ne_bytes(*b)).filter(|len| *len >= HEAD) {
            let word = |at: usize| rest.get(at..).map_or(0, int).cast_signed();
            all.push((word(8), word(12), rest.get(HEAD..len.min(rest.len())).unwrap_or_default()));
            rest = rest.get(len.next_multiple_of(8)..).unwrap_or_default();
        }
        all
    }
}

fn int(data: &[u8]) -> u32 {
    data.first_chunk().map_or(0, |b| u32::from_ne_bytes(*b))
}

/// An address as the kernel writes it (`struct sockaddr_in`, `struct sockaddr_in6`).
fn address(raw: &[u8]) -> Option<SocketAddr> {
    let family = libc::c_int::from(raw.first_chunk().map(|b| u16::from_ne_bytes(*b))?);
    let port = raw.get(2..).and_then(<[u8]>::first_chunk).map(|b| u16::from_be_bytes(*b))?;
    let ip = match family {
        libc::AF_INET => raw.get(4..).and_then(<[u8]>::first_chunk::<4>).map(|b| IpAddr::from(*b)),
        libc::AF_INET6 => raw.get(8..).and_then(<[u8]>::first_chunk::<16>).map(|b| IpAddr::from(*b)),
        _ => None,
    };
    Some(SocketAddr::new(ip?.to_canonical(), port))
}

/// An address as the kernel reads it, and its length.
fn encode(a: SocketAddr) -> ([u8; 28], usize) {
    let mut raw = [0; 28];
    let (family, ip, at, len): (libc::c_int, Ipv6Addr, usize, usize) = match a.ip() {
        IpAddr::V4(ip) => (libc::AF_INET, ip.to_ipv6_mapped(), 4, 16),
        IpAddr::V6(ip) => (libc::AF_INET6, ip, 8, 28),
    };
    let octets = ip.octets();
    let octets = if len == 16 { octets.get(12..).unwrap_or_default() } else { &octets };
    raw.iter_mut().zip((family as u16).to_ne_bytes()).for_each(|(to, b)| *to = b);
    raw.iter_mut().skip(2).zip(a.port().to_be_bytes()).for_each(|(to, b)| *to = b);
    raw.iter_mut().skip(at).zip(octets).for_each(|(to, b)| *to = *b);
    (raw, len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn what_goes_along_comes() {
        let (a, b) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        tell_all(&b, true).unwrap();
        let from = "127.4.5.6".parse().unwrap();
        let any = UdpSocket::bind("0.0.0.0:0").unwrap();
        assert_eq!(send(&any, b"one", Some(b.local_addr().unwrap()), from, (33, 16)).unwrap(), 3);
        let mut buffer = [0; 100];
        let came = receive(&b, &mut buffer).unwrap();
        let wanted = Came {
            len: 3,
            from: SocketAddr::new(from, any.local_addr().unwrap().port()),
            to: Some(Ipv4Addr::LOCALHOST.into()),
            interface: 1,
            hops: 33,
            service: 16,
        };
        assert_eq!(came, wanted);
        assert_eq!(receive(&b, &mut buffer).unwrap_err().raw_os_error(), Some(libc::EAGAIN));
        let gone = a.local_addr().unwrap();
        drop(a);
        send(&b, b"lost", Some(gone), Ipv4Addr::UNSPECIFIED.into(), (64, 0)).unwrap();
        let mut told = None;
        while told.is_none() {
            told = failed(&b, &mut buffer).unwrap();
        }
        let by = Some((Ipv4Addr::LOCALHOST.into(), 3, 3));
        assert_eq!(told, Some(Failed { len: 4, to: gone, error: libc::ECONNREFUSED, by, info: 0 }));
    }

    #[test]
    fn one_socket_for_both_families() {
        let Ok(both) = UdpSocket::bind("[::]:0") else { return };
        tell_all(&both, false).unwrap();
        let port = both.local_addr().unwrap().port();
        for ip in ["127.0.0.1", "::1"] {
            let ip: IpAddr = ip.parse().unwrap();
            let other = UdpSocket::bind((ip, 0)).unwrap();
            other.send_to(b"x", (ip, port)).unwrap();
            let came = receive(&both, &mut [0; 9]).unwrap();
            assert_eq!((came.from, came.to), (other.local_addr().unwrap(), Some(ip)));
            let to = match ip {
                IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), came.from.port()),
                IpAddr::V6(_) => came.from,
            };
            assert_eq!(send(&both, b"back", Some(to), ip, (9, 0)).unwrap(), 4);
            assert_eq!(other.recv_from(&mut [0; 9]).unwrap().0, 4);
        }
    }
}
