//! Places of the host's: addresses and ports that sockets are bound to, in the host's own network.
//!
//! Called by `streams` and `bound`.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;

use cofferdam_control::netd::Place;
use cofferdam_socket::slot::Binding;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

/// A socket that does not wait, of streams or of datagrams, for an address or one of its family.
pub fn make(stream: bool, at: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, protocol) = if stream { (SocketType::STREAM, ipproto::TCP) } else { (SocketType::DGRAM, ipproto::UDP) };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // As many as there may be is not the sandbox's fault.
    rustix::net::socket_with(family, kind, flags, Some(protocol))
        .map_err(|e| if matches!(e, Errno::MFILE | Errno::NFILE) { Errno::NOBUFS } else { e })
}

/// One that is bound, to a port that the host chooses where that is 0.
pub fn bound(stream: bool, at: SocketAddr, binding: Binding) -> Result<OwnedFd, Errno> {
    let socket = make(stream, at)?;
    set(&socket, stream, at, binding)?;
    rustix::net::bind(&socket, &at)?;
    Ok(socket)
}

/// Has it be what the sandbox said that it is to be.
fn set(socket: &OwnedFd, stream: bool, at: SocketAddr, binding: Binding) -> Result<(), Errno> {
    if at.is_ipv6() {
        sockopt::set_ipv6_v6only(socket, binding.only_v6)?;
    }
    if binding.reuse {
        sockopt::set_socket_reuseaddr(socket, true)?;
    }
    if binding.reuseport {
        sockopt::set_socket_reuseport(socket, true)?;
    }
    if !stream {
        // The Sentry knows who may.
        sockopt::set_socket_broadcast(socket, true)?;
    }
    Ok(())
}

/// What the supervisor is to be asked for, where a place was refused for want of a right.
pub fn needed(why: Errno, stream: bool, at: SocketAddr, binding: Binding) -> Option<Place> {
    let Binding { reuse, reuseport, only_v6 } = binding;
    (why == Errno::ACCESS && at.port() != 0).then_some(Place { stream, at, reuse, reuseport, only_v6 })
}

/// Where a socket is: an address of IPv4 in IPv6's clothes is taken for what it is.
pub fn name(socket: &OwnedFd) -> Result<SocketAddr, Errno> {
    let address = rustix::net::getsockname(socket)?;
    SocketAddr::try_from(address).map(plain).map_err(|_| Errno::AFNOSUPPORT)
}

/// An address without clothes.
pub fn plain(a: SocketAddr) -> SocketAddr {
    SocketAddr::new(a.ip().to_canonical(), a.port())
}

/// An address as a socket of that family takes it.
pub fn dressed(a: SocketAddr, like: SocketAddr) -> SocketAddr {
    match a.ip() {
        IpAddr::V4(ip) if like.is_ipv6() => SocketAddrV6::new(ip.to_ipv6_mapped(), a.port(), 0, 0).into(),
        _ => a,
    }
}
