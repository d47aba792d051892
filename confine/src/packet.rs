//! Packet sockets, `packet(7)`: made where a network is handed over to netd, which can make none itself.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::error::{ConfineError, last};

/// Bytes that may wait in one.
const QUEUE: libc::c_int = 16 << 20;

/// A packet socket for all that comes by an interface of this process's network namespace and for what is to leave by it, each packet with a
/// `virtio_net_hdr` before it: long ones are cut and put together by the host.
pub fn packet_socket(interface: u32) -> Result<OwnedFd, ConfineError> {
    const ALL: u16 = (libc::ETH_P_ALL as u16).to_be();
    let index = libc::c_int::try_from(interface).map_err(|_| last("the number of an interface"))?;
    // SAFETY: socket(2) takes scalars.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    if fd < 0 {
        return Err(last("socket(AF_PACKET)"));
    }
    // SAFETY: the kernel made it for us just now.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    set(&fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1).map_err(|()| last("PACKET_VNET_HDR"))?;
    set(&fd, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1).map_err(|()| last("PACKET_IGNORE_OUTGOING"))?;
    for (force, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        // Who may not have more than others has what others have.
        let _ = set(&fd, libc::SOL_SOCKET, force, QUEUE).or_else(|()| set(&fd, libc::SOL_SOCKET, plain, QUEUE));
    }
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ALL,
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address is a sockaddr_ll of that length and lives during the call.
    match unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) } {
        0 => Ok(fd),
        _ => Err(last("binding a packet socket to an interface")),
    }
}

/// How many packets found no room in a packet socket since this was asked last; of anything else none.
pub fn lost_packets(fd: BorrowedFd<'_>) -> u64 {
    // Packets and lost ones (`struct tpacket_stats`).
    let mut all = [0u32; 2];
    let mut len = size_of_val(&all) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `all`, which has so many.
    let done = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            all.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    let [_, lost] = all;
    if done == 0 { lost.into() } else { 0 }
}

fn set(fd: &OwnedFd, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> Result<(), ()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value is an int of that length and lives during the call.
    match unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), len) } {
        0 => Ok(()),
        _ => Err(()),
    }
}
