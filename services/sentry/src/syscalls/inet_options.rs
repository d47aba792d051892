//! Options of internet sockets: `getsockopt` and `setsockopt` of the levels of IP, IPv6, TCP and UDP (`ipc::inet::options` is the table), and
//! what of the socket's own level is theirs alone. `sockopt` hands them on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use zerocopy::IntoBytes;

use super::socket::SOL_SOCKET;
use super::sockopt::{
    ATTACH_FILTER, BINDTODEVICE, DOMAIN, MAX_PACING_RATE, PASSSEC, PEERCRED, PEERGROUPS, PEERPIDFD, PROTOCOL,
    REUSEPORT, TYPE, ZEROCOPY, get_basic, get_filter, put, set_basic,
};
use super::{SysResult, UserPtr, done, inet, inet_raw};
use crate::errno::Errno;
use crate::ipc::inet::address::{AF_INET, Domain};
use crate::ipc::inet::options::{self, Form, IP, IPV6, Of, SOCKET, TCP, UDP, find};
use crate::ipc::inet::tcp::{self, Phase};
use crate::ipc::inet::{Inet, Kind};
use crate::ipc::unix::{PASSCRED, PASSPIDFD, PASSRIGHTS};
use crate::task::Task;
use crate::task::creds::cap;

/// Options with more to them than a number.
#[allow(missing_docs)]
mod special {
    pub const OPTIONS: i32 = 4;
    pub const MTU: i32 = 14;
    pub const PROTOCOL: i32 = 52;
    pub const MULTICAST_IF: i32 = 32;
    pub const ADD_MEMBERSHIP: i32 = 35;
    pub const DROP_MEMBERSHIP: i32 = 36;
    pub const MULTICAST_IF6: i32 = 17;
    pub const JOIN_GROUP: i32 = 20;
    pub const LEAVE_GROUP: i32 = 21;
    pub const ADDRFORM: i32 = 1;
    pub use crate::ipc::inet::options::MTU6;
    pub const PATHMTU: i32 = 61;
    pub const MAXSEG: i32 = 2;
    pub const LINGER2: i32 = 8;
    pub const INFO: i32 = 11;
    pub const CONGESTION: i32 = 13;
    pub const REPAIR: i32 = 19;
    pub const FASTOPEN: i32 = 23;
    pub const SAVED_SYN: i32 = 28;
    pub const ULP: i32 = 31;
    pub const PEERNAME: i32 = 28;
    pub const MEMINFO: i32 = 55;
    pub const INCOMING_NAPI_ID: i32 = 56;
    pub const NETNS_COOKIE: i32 = 71;
    pub const BUF_LOCK: i32 = 72;
}
/// What comes along over Unix sockets alone.
const OF_UNIX: [i32; 4] = [PASSCRED, PASSSEC, PASSPIDFD, PASSRIGHTS];

/// Congestion control that can be asked for: nothing is congested between a namespace and itself.
const CONTROLS: [&str; 2] = ["cubic", "reno"];
/// Number of the loopback device.
const LOOPBACK: u32 = 1;
/// Its name.
const LO: &[u8] = b"lo";

fn network_admin(task: &Task, socket: &Inet, also_raw: bool) -> bool {
    let (creds, owner) = (task.creds(), &socket.net.base.owner);
    creds.capable_in(owner, cap::NET_ADMIN) || also_raw && creds.capable_in(owner, cap::NET_RAW)
}

/// `setsockopt`.
pub(super) fn set(task: &Arc<Task>, socket: &Arc<Inet>, level: i32, option: i32, at: u64, len: i32) -> SysResult {
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    if let Some(set) = inet_raw::set(task, socket, level, option, (at, len)) {
        set?;
        return done();
    }
    match (level, socket.kind, socket.domain) {
        (SOL_SOCKET, ..) => set_own(task, socket, option, at, len)?,
        (IP, ..) => set_ip(task, socket, option, at, len)?,
        (IPV6, _, Domain::V6) => set_ipv6(task, socket, option, at, len)?,
        (TCP, Kind::Tcp, _) => set_tcp(task, socket, option, at, len)?,
        (UDP, Kind::Udp, _) => set_udp(task, socket, option, at, len)?,
        _ => return Err(Errno::ENOPROTOOPT),
    }
    if socket.kind == Kind::Tcp {
        socket.retune();
    }
    done()
}

fn set_own(task: &Arc<Task>, socket: &Arc<Inet>, option: i32, at: u64, len: usize) -> Result<(), Errno> {
    if option == BINDTODEVICE {
        return bind_to_device(task, socket, at, len);
    }
    if len < 4 {
        return Err(Errno::EINVAL);
    }
    let int = UserPtr::<i32>::new(at).read(task)?;
    match option {
        REUSEPORT => {
            socket.options(|o| o.set_switch(option, int != 0));
            Ok(())
        }
        // Kept as switches are: nothing is polled or copied less.
        ZEROCOPY if !(0..=1).contains(&int) => Err(Errno::EINVAL),
        ZEROCOPY => {
            socket.options(|o| o.set_switch(option, int != 0));
            Ok(())
        }
        _ if OF_UNIX.contains(&option) => Err(Errno::EOPNOTSUPP),
        options::BINDTOIFINDEX => bind_to_index(task, socket, int),
        options::PREFER_BUSY_POLL if int != 0 && !network_admin(task, socket, false) => Err(Errno::EPERM),
        options::BUSY_POLL_BUDGET
            if int > socket.values(|v| v.get(SOCKET, option)) && !network_admin(task, socket, false) =>
        {
            Err(Errno::EPERM)
        }
        special::BUF_LOCK if !(0..=3).contains(&int) => Err(Errno::EINVAL),
        special::BUF_LOCK => {
            socket.set_sized([int & 1 != 0, int & 2 != 0]);
            Ok(())
        }
        MAX_PACING_RATE => {
            let wide = if len == 8 { Some(UserPtr::<u64>::new(at).read(task)?) } else { None };
            let pace = wide.or((int != -1).then_some(u64::from(int.cast_unsigned())));
            socket.values(|v| v.pace = pace);
            Ok(())
        }
        _ if find(SOCKET, option).is_some() => set_number(socket, SOCKET, option, int, len),
        _ => set_basic(task, &**socket, option, (at, len), int),
    }
}

/// `SO_BINDTODEVICE`. ENODEV, EPERM.
fn bind_to_device(task: &Arc<Task>, socket: &Inet, at: u64, len: usize) -> Result<(), Errno> {
    const IFNAMSIZ: usize = 16;
    let raw = UserPtr::<u8>::new(at).read_array(task, len.min(IFNAMSIZ - 1), IFNAMSIZ)?;
    let index = match raw.split(|b| *b == 0).next().unwrap_or_default() {
        [] => 0,
        LO => LOOPBACK,
        name => socket.net.outside().and_then(|o| o.named(name)).map(|i| i.index).ok_or(Errno::ENODEV)?,
    };
    bind_to_index(task, socket, index.cast_signed())
}

/// `SO_BINDTOIFINDEX`, of a device that there need not be. Who has one already needs a right to change it. EPERM, EINVAL.
fn bind_to_index(task: &Arc<Task>, socket: &Inet, index: i32) -> Result<(), Errno> {
    let bound = socket.values(|v| v.get(SOCKET, options::BINDTOIFINDEX)) != 0;
    if bound && !task.creds().capable_in(&socket.net.base.owner, cap::NET_RAW) {
        return Err(Errno::EPERM);
    }
    set_number(socket, SOCKET, options::BINDTOIFINDEX, index, size_of::<i32>())
}

/// A number of an option of IP, which may be a byte.
fn int_or_byte(task: &Arc<Task>, at: u64, len: usize) -> Result<i32, Errno> {
    match len {
        0 => Ok(0),
        1..=3 => Ok(i32::from(UserPtr::<u8>::new(at).read(task)?)),
        _ => UserPtr::<i32>::new(at).read(task),
    }
}

/// Sets an option of the table. ENOPROTOOPT, EINVAL, EOPNOTSUPP, EADDRNOTAVAIL. `len`: the bytes it came in.
fn set_number(socket: &Inet, level: i32, option: i32, int: i32, len: usize) -> Result<(), Errno> {
    let row = find(level, option).ok_or(Errno::ENOPROTOOPT)?;
    match (row.of, socket.kind.is_stream()) {
        (Of::Datagrams, true) if level == IP => return Err(Errno::EINVAL),
        (Of::Datagrams, true) => return Err(Errno::ENOPROTOOPT),
        (Of::Streams, false) => return Err(Errno::EOPNOTSUPP),
        _ => {}
    }
    if !row.length.fits(len) {
        return Err(Errno::EINVAL);
    }
    let int = match row.form {
        Form::Switch => i32::from(int != 0),
        Form::Default(..) if int == -1 => row.default,
        Form::Number(least, most) | Form::Default(least, most) if (least..=most).contains(&int) => int,
        Form::AtLeast(least) => {
            if int == 0 {
                0
            } else {
                int.max(least)
            }
        }
        Form::Passed(least, most) if (least..=most).contains(&int) => row.default,
        Form::Device if int == 0 || socket.net.has_device(u32::from_be_bytes(int.to_ne_bytes())) => int,
        Form::Device => return Err(Errno::EADDRNOTAVAIL),
        Form::Ports => match options::ports(int) {
            (first, last) if first != 0 && last != 0 && first > last => return Err(Errno::EINVAL),
            _ => int,
        },
        Form::Raw(e) => return Err(e),
        Form::Number(..) | Form::Default(..) | Form::Passed(..) => return Err(Errno::EINVAL),
    };
    socket.values(|v| v.set(level, option, int));
    Ok(())
}

/// `IP_OPTIONS`: what would be in every packet's header (RFC 791), in words of four bytes. Those that say nothing, and their end, are kept;
/// routes and records are for packets. EINVAL.
fn set_ip_options(task: &Arc<Task>, socket: &Inet, at: u64, len: usize) -> Result<(), Errno> {
    const MOST: usize = 40;
    const END: u8 = 0;
    const NOTHING: u8 = 1;
    if len > MOST {
        return Err(Errno::EINVAL);
    }
    let mut raw = UserPtr::<u8>::new(at).read_array(task, len, MOST)?;
    let said = raw.iter().position(|b| *b == END).unwrap_or(len);
    if raw.iter().take(said).any(|b| *b != NOTHING) {
        return Err(Errno::EINVAL);
    }
    raw.truncate(said);
    raw.resize(len.next_multiple_of(4), END);
    socket.values(|v| v.ip = raw);
    Ok(())
}

fn set_ip(task: &Arc<Task>, socket: &Arc<Inet>, option: i32, at: u64, len: usize) -> Result<(), Errno> {
    const SOURCES_AND_GROUPS: std::ops::RangeInclusive<i32> = 37..=48;
    match option {
        special::MULTICAST_IF | special::ADD_MEMBERSHIP | special::DROP_MEMBERSHIP => {
            if socket.kind.is_stream() && option == special::MULTICAST_IF {
                return Err(Errno::EINVAL);
            }
            if socket.kind.is_stream() {
                return Err(Errno::EPROTO);
            }
            return set_multicast(task, socket, option, at, len);
        }
        special::OPTIONS => return set_ip_options(task, socket, at, len),
        special::MTU => return Err(Errno::ENOPROTOOPT),
        _ if SOURCES_AND_GROUPS.contains(&option) => return Err(Errno::ENOPROTOOPT),
        _ => {}
    }
    find(IP, option).ok_or(Errno::ENOPROTOOPT)?;
    let int = int_or_byte(task, at, len)?;
    if option == options::TRANSPARENT && int != 0 && !network_admin(task, socket, true) {
        return Err(Errno::EPERM);
    }
    let int = match option {
        // Congestion marks are the kernel's own on a stream.
        options::TOS if socket.kind.is_stream() => (int & 0xff & !3) | (socket.values(|v| v.get(IP, options::TOS)) & 3),
        options::TOS => int & 0xff,
        _ => int,
    };
    let before = socket.values(|v| v.get(IP, option));
    set_number(socket, IP, option, int, len)?;
    if option == options::TOS && int != before {
        // What kind of service it is says how urgent it is, too (`ip_tos2prio`).
        const PRIORITIES: [i32; 4] = [0, 2, 6, 4];
        let kind = usize::try_from(int >> 3 & 3).unwrap_or(0);
        socket.options(|o| o.priority = PRIORITIES.get(kind).copied().unwrap_or(0));
    }
    Ok(())
}

/// An address of a device, of a family.
fn address_of(socket: &Inet, index: u32, four: bool) -> Option<IpAddr> {
    match index {
        0 => None,
        LOOPBACK if four => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        LOOPBACK => Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        index => socket.net.outside()?.any(four, index),
    }
}

/// Multicast: the device it leaves by, and groups.
fn set_multicast(task: &Arc<Task>, socket: &Arc<Inet>, option: i32, at: u64, len: usize) -> Result<(), Errno> {
    if len < 4 || len < 8 && option != special::MULTICAST_IF {
        return Err(Errno::EINVAL);
    }
    let raw = UserPtr::<u8>::new(at).read_array(task, len.min(12), 12)?;
    let four = |at: usize| raw.get(at..).and_then(<[u8]>::first_chunk::<4>).map(|b| Ipv4Addr::from(*b));
    let index = raw.get(8..).and_then(<[u8]>::first_chunk).map_or(0, |b| u32::from_ne_bytes(*b));
    // `struct in_addr`, `struct ip_mreq`, `struct ip_mreqn`.
    let device = if raw.len() >= 8 { four(4) } else { four(0) }.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let is_own = socket.net.has(IpAddr::V4(device));
    if option == special::MULTICAST_IF {
        if index != 0 && !socket.net.has_device(index) || index == 0 && !device.is_unspecified() && !is_own {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let out = address_of(socket, index, true).or(Some(IpAddr::V4(device)).filter(|d| !d.is_unspecified()));
        socket.values(|v| v.set_interface(true, out));
        return Ok(());
    }
    let group = four(0).filter(Ipv4Addr::is_multicast).ok_or(Errno::EINVAL)?;
    // Without a device named it is the one that leads there.
    let led = device.is_unspecified() && socket.net.outside().is_some();
    if index != 0 && !socket.net.has_device(index) || index == 0 && !is_own && !led {
        return Err(if option == special::ADD_MEMBERSHIP { Errno::ENODEV } else { Errno::EADDRNOTAVAIL });
    }
    let on = match index {
        0 if led => socket.net.device_for(IpAddr::V4(group)).ok_or(Errno::ENODEV)?,
        0 => socket.net.device_of(IpAddr::V4(device)),
        index => index,
    };
    match option {
        special::ADD_MEMBERSHIP => socket.join(IpAddr::V4(group), on),
        _ => socket.leave(IpAddr::V4(group), on),
    }
}

fn set_ipv6(task: &Arc<Task>, socket: &Arc<Inet>, option: i32, at: u64, len: usize) -> Result<(), Errno> {
    if option == special::JOIN_GROUP || option == special::LEAVE_GROUP {
        if len < 20 {
            return Err(Errno::EINVAL);
        }
        if socket.kind.is_stream() {
            return Err(Errno::EPROTO);
        }
        let raw = UserPtr::<u8>::new(at).read_array(task, 20, 20)?;
        let group = raw.first_chunk::<16>().map(|b| Ipv6Addr::from(*b)).ok_or(Errno::EINVAL)?;
        let index = raw.get(16..).and_then(<[u8]>::first_chunk).map_or(0, |b| u32::from_ne_bytes(*b));
        if !group.is_multicast() {
            return Err(Errno::EINVAL);
        }
        if !(socket.net.has_device(index) || index == 0 && socket.net.outside().is_some()) {
            return Err(if option == special::JOIN_GROUP { Errno::ENODEV } else { Errno::EADDRNOTAVAIL });
        }
        let on = match index {
            0 => socket.net.device_for(IpAddr::V6(group)).ok_or(Errno::ENODEV)?,
            index => index,
        };
        return match option {
            special::JOIN_GROUP => socket.join(IpAddr::V6(group), on),
            _ => socket.leave(IpAddr::V6(group), on),
        };
    }
    let int = if at == 0 || len < 4 { 0 } else { UserPtr::<i32>::new(at).read(task)? };
    let alone = [special::MULTICAST_IF6, special::ADDRFORM, special::MTU6].contains(&option);
    match option {
        options::V6ONLY if socket.holds_port() => Err(Errno::EINVAL),
        special::MULTICAST_IF6 if socket.kind.is_stream() => Err(Errno::ENOPROTOOPT),
        _ if alone && len < 4 => Err(Errno::EINVAL),
        special::MULTICAST_IF6 if int != 0 && !socket.net.has_device(int.cast_unsigned()) => Err(Errno::ENODEV),
        special::MULTICAST_IF6 => {
            let out = address_of(socket, int.cast_unsigned(), false);
            socket.values(|v| v.set_interface(false, out));
            Ok(())
        }
        special::ADDRFORM if int != i32::from(AF_INET) => Err(Errno::EINVAL),
        // An IPv6 socket stays one, whoever it is connected to.
        special::ADDRFORM => socket.peer().and(Err(Errno::EADDRNOTAVAIL)),
        special::MTU6 if (1..1280).contains(&int) || int < 0 => Err(Errno::EINVAL),
        special::MTU6 => {
            socket.values(|v| v.set(IPV6, options::MTU6, int));
            Ok(())
        }
        // Congestion marks are the kernel's own on a stream.
        options::TCLASS if socket.kind.is_stream() && int > 0 => {
            let marks = socket.values(|v| v.get(IPV6, option)) & 3;
            set_number(socket, IPV6, option, int & !3 | marks, len)
        }
        // IPV6_TRANSPARENT.
        75 if int != 0 && !network_admin(task, socket, true) => Err(Errno::EPERM),
        75 => {
            set_number(socket, IPV6, option, int, len)?;
            socket.values(|v| v.set(IP, options::TRANSPARENT, i32::from(int != 0)));
            Ok(())
        }
        // IPV6_FREEBIND.
        78 => {
            set_number(socket, IPV6, option, int, len)?;
            socket.values(|v| v.set(IP, options::FREEBIND, i32::from(int != 0)));
            Ok(())
        }
        _ => set_number(socket, IPV6, option, int, len),
    }
}

fn set_tcp(task: &Arc<Task>, socket: &Arc<Inet>, option: i32, at: u64, len: usize) -> Result<(), Errno> {
    const NAME_MOST: usize = 16;
    if option == special::CONGESTION || option == special::ULP {
        if len < 1 {
            return Err(Errno::EINVAL);
        }
        let raw = UserPtr::<u8>::new(at).read_array(task, len.min(NAME_MOST - 1), NAME_MOST)?;
        let name = raw.split(|b| *b == 0).next().unwrap_or_default();
        let known = CONTROLS.iter().find(|c| c.as_bytes() == name);
        let known = known.filter(|_| option == special::CONGESTION).ok_or(Errno::ENOENT)?;
        socket.values(|v| v.congestion = Some(known));
        return Ok(());
    }
    if len < 4 {
        return Err(Errno::EINVAL);
    }
    let int = UserPtr::<i32>::new(at).read(task)?;
    let keep = |value: i32| socket.values(|v| v.set(TCP, option, value));
    match option {
        special::MAXSEG if int != 0 && !(88..=32_767).contains(&int) => return Err(Errno::EINVAL),
        special::MAXSEG => keep(int),
        special::LINGER2 => keep(match int {
            n if n < 0 => -1,
            n if n > 120 => 120,
            n => n,
        }),
        options::DEFER_ACCEPT => keep(options::tries_of(int)),
        options::FASTOPEN_CONNECT if (0..=1).contains(&int) && socket.tcp_look().0 != Phase::Close => {
            return Err(Errno::EINVAL);
        }
        special::FASTOPEN if int < 0 => return Err(Errno::EINVAL),
        special::FASTOPEN if !matches!(socket.tcp_look().0, Phase::Close | Phase::Listen) => return Err(Errno::EINVAL),
        special::FASTOPEN => keep(int),
        special::REPAIR if !network_admin(task, socket, false) => return Err(Errno::EPERM),
        special::REPAIR if !(-1..=1).contains(&int) => return Err(Errno::EINVAL),
        special::REPAIR if int == 1 => return Err(Errno::EPERM),
        special::REPAIR => {}
        _ => {
            set_number(socket, TCP, option, int, len)?;
            // Both let go what was held back.
            if option == options::CORK3 && int == 0 || option == options::NODELAY && int != 0 {
                socket.tcp_release();
            }
        }
    }
    Ok(())
}

fn set_udp(task: &Arc<Task>, socket: &Arc<Inet>, option: i32, at: u64, len: usize) -> Result<(), Errno> {
    if len < 4 {
        return Err(Errno::EINVAL);
    }
    let int = UserPtr::<i32>::new(at).read(task)?;
    // UDP_ENCAP.
    if option == 100 {
        return Err(Errno::ENOPROTOOPT);
    }
    set_number(socket, UDP, option, int, len)?;
    if option == options::CORK && int == 0 {
        socket.udp_uncork();
    }
    Ok(())
}

/// `getsockopt`.
pub(super) fn get(
    task: &Arc<Task>,
    socket: &Arc<Inet>,
    level: i32,
    option: i32,
    at: u64,
    len: UserPtr<i32>,
) -> SysResult {
    if let Some(raw) = inet_raw::get(socket, level, option) {
        let room = usize::try_from(len.read(task)?).map_err(|_| Errno::EINVAL)?;
        return put(task, &raw?, at, len, room);
    }
    match (level, socket.kind, socket.domain) {
        (SOL_SOCKET | IP, ..) | (IPV6, _, Domain::V6) | (TCP, Kind::Tcp, _) | (UDP, Kind::Udp, _) => {}
        (.., Domain::V4) => return Err(Errno::EOPNOTSUPP),
        (.., Domain::V6) => return Err(Errno::ENOPROTOOPT),
    }
    // A length that is none is as good as any to IPv6.
    let room = match (usize::try_from(len.read(task)?), level) {
        (Err(_), IPV6) if option != special::PATHMTU => usize::MAX,
        (room, _) => room.map_err(|_| Errno::EINVAL)?,
    };
    if (level, option) == (SOL_SOCKET, ATTACH_FILTER) {
        return get_filter(task, &**socket, at, len, room);
    }
    let raw = match (level, socket.kind, socket.domain) {
        (SOL_SOCKET, ..) => get_own(socket, option, room)?,
        (IP, ..) => {
            let raw = get_ip(socket, option)?;
            // What fits into a byte is told in one where there is no room for more.
            match raw.as_slice() {
                [byte, 0, 0, 0] if (1..4).contains(&room) && option != special::OPTIONS => vec![*byte],
                _ => raw,
            }
        }
        (IPV6, ..) => get_ipv6(socket, option, room)?,
        (TCP, ..) => get_tcp(socket, option)?,
        _ => get_number(socket, level, option)?,
    };
    put(task, &raw, at, len, room)
}

fn get_own(socket: &Inet, option: i32, room: usize) -> Result<Vec<u8>, Errno> {
    let int = |n: i32| n.to_ne_bytes().to_vec();
    Ok(match option {
        TYPE => int(socket.kind.number()),
        PROTOCOL => int(socket.kind.protocol()),
        DOMAIN => int(i32::from(socket.domain.number())),
        REUSEPORT | ZEROCOPY => int(i32::from(socket.options(|o| o.switch(option)))),
        PEERCRED => inet::nobody(),
        PEERGROUPS | PEERPIDFD => return Err(Errno::ENODATA),
        BINDTODEVICE => match socket.values(|v| v.get(SOCKET, options::BINDTOIFINDEX)) {
            0 => Vec::new(),
            _ if room < 16 => return Err(Errno::EINVAL),
            index if index == LOOPBACK.cast_signed() => [LO, &[0]].concat(),
            _ => return Err(Errno::ENODEV),
        },
        _ if OF_UNIX.contains(&option) => return Err(Errno::EOPNOTSUPP),
        special::BUF_LOCK => {
            let [send, receive] = socket.sized();
            int(i32::from(send) | i32::from(receive) << 1)
        }
        MAX_PACING_RATE => match socket.values(|v| v.pace) {
            pace if room >= 8 => pace.unwrap_or(u64::MAX).to_ne_bytes().to_vec(),
            pace => u32::try_from(pace.unwrap_or(u64::MAX)).unwrap_or(u32::MAX).to_ne_bytes().to_vec(),
        },
        special::PEERNAME => {
            let raw = socket.peer()?.encode(socket.domain);
            if raw.len() < room {
                return Err(Errno::EINVAL);
            }
            raw
        }
        special::NETNS_COOKIE if room != 8 => return Err(Errno::EINVAL),
        special::NETNS_COOKIE => socket.net.base.id.to_ne_bytes().to_vec(),
        // No queue of a device has anything to poll.
        special::INCOMING_NAPI_ID => int(0),
        special::MEMINFO => {
            let (send, receive) = socket.buffers();
            let waits = if socket.kind.is_stream() { socket.tcp_look().1 } else { socket.udp_queued() };
            let at = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            // SK_MEMINFO_RMEM_ALLOC to SK_MEMINFO_DROPS.
            [at(waits), at(receive), 0, at(send), 0, 0, 0, 0, 0].as_bytes().to_vec()
        }
        _ if find(SOCKET, option).is_some() => get_number(socket, SOCKET, option)?,
        _ => get_basic(socket, option, room)?,
    })
}

fn get_number(socket: &Inet, level: i32, option: i32) -> Result<Vec<u8>, Errno> {
    let row = find(level, option).ok_or(Errno::ENOPROTOOPT)?;
    if row.of == Of::Streams && !socket.kind.is_stream() {
        return Err(Errno::EOPNOTSUPP);
    }
    Ok(socket.values(|v| v.get(row.at.0, row.at.1)).to_ne_bytes().to_vec())
}

fn get_ip(socket: &Inet, option: i32) -> Result<Vec<u8>, Errno> {
    /// Largest packet of IPv4, which the loopback device takes.
    const MTU: i32 = 65_535;
    let mtu = |own: i32| socket.mtu_of_peer().and_then(|n| i32::try_from(n).ok()).unwrap_or(own);
    match option {
        special::OPTIONS => Ok(socket.values(|v| v.ip.clone())),
        // The number by which it is found, which is its port (`inet_num`).
        special::PROTOCOL => Ok(i32::from(socket.name().port).to_ne_bytes().to_vec()),
        special::MTU => socket.peer().map(|_| mtu(MTU).to_ne_bytes().to_vec()),
        special::MULTICAST_IF => match socket.values(|v| v.interface(true)) {
            Some(IpAddr::V4(ip)) => Ok(ip.octets().to_vec()),
            _ => Ok(vec![0; 4]),
        },
        _ => get_number(socket, IP, option),
    }
}

fn get_ipv6(socket: &Inet, option: i32, room: usize) -> Result<Vec<u8>, Errno> {
    const MTU: i32 = 65_536;
    let mtu = |own: i32| socket.mtu_of_peer().and_then(|n| i32::try_from(n).ok()).unwrap_or(own);
    let int = |n: i32| Ok(n.to_ne_bytes().to_vec());
    match option {
        options::V6ONLY => int(socket.values(|v| v.get(IPV6, options::V6ONLY))),
        special::MTU6 => socket.peer().map(|_| mtu(MTU).to_ne_bytes().to_vec()),
        special::PATHMTU if room < 32 => Err(Errno::EINVAL),
        // `struct ip6_mtuinfo`: an address, which is none, and a size.
        special::PATHMTU => socket.peer().map(|_| [[0; 7].as_bytes(), mtu(MTU).as_bytes()].concat()),
        special::MULTICAST_IF6 => int(i32::from(socket.values(|v| v.interface(false)).is_some())),
        // IPV6_ADDRFORM.
        special::ADDRFORM => int(i32::from(socket.domain.number())),
        _ => get_number(socket, IPV6, option),
    }
}

fn get_tcp(socket: &Inet, option: i32) -> Result<Vec<u8>, Errno> {
    let int = |n: i32| Ok(n.to_ne_bytes().to_vec());
    let kept = |default: i32| socket.values(|v| v.kept(TCP, option)).unwrap_or(default);
    match option {
        special::MAXSEG => int(match socket.tcp_look().0 {
            Phase::Close | Phase::Listen => Some(kept(0)).filter(|n| *n != 0).unwrap_or(536),
            _ if socket.tcp_progress().is_some() => tcp::SEGMENT_OUTSIDE.cast_signed(),
            _ => SEGMENT,
        }),
        special::LINGER2 => int(Some(kept(0)).filter(|n| *n != 0).unwrap_or(60)),
        options::DEFER_ACCEPT => int(options::seconds_of(kept(0))),
        // There was no packet that it began with.
        special::SAVED_SYN => Ok(Vec::new()),
        special::FASTOPEN | special::REPAIR => int(kept(0)),
        special::INFO => Ok(info(socket)),
        special::CONGESTION => {
            let name = socket.values(|v| v.congestion).unwrap_or("cubic");
            let mut raw = name.as_bytes().to_vec();
            raw.resize(16, 0);
            Ok(raw)
        }
        special::ULP => Ok(Vec::new()),
        _ => get_number(socket, TCP, option),
    }
}

/// Bytes of a segment.
const SEGMENT: i32 = tcp::SEGMENT as i32;

/// `struct tcp_info`. What a connection without packets has no measure of is zero.
pub(crate) fn info(socket: &Inet) -> Vec<u8> {
    const LEN: usize = 248;
    let (phase, _, pending) = socket.tcp_look();
    let (sent, taken) = socket.tcp_moved();
    let mut raw = vec![0; LEN];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(to) = raw.get_mut(at..at + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    };
    put(0, &[phase.number()]);
    if phase == Phase::Listen {
        // A listener tells of its queue where others tell of packets.
        put(24, (pending as u32).as_bytes());
        put(28, (socket.tcp_backlog() as u32).as_bytes());
        return raw;
    }
    if matches!(phase, Phase::Established | Phase::FinWait | Phase::CloseWait) {
        const TIMESTAMPS_SACK_SCALING: u8 = 7;
        put(5, &[TIMESTAMPS_SACK_SCALING, 0x77]);
        put(16, (SEGMENT as u32).as_bytes());
        put(20, 536u32.as_bytes());
        put(80, 10u32.as_bytes());
        put(84, (SEGMENT as u32).as_bytes());
        put(120, sent.as_bytes());
        put(128, taken.as_bytes());
        // What netd knows of one that goes elsewhere: the time there and back in all its forms, and what is on its way.
        if let Some((rtt, unacked)) = socket.tcp_progress() {
            put(8, rtt.saturating_mul(2).max(200_000).as_bytes());
            put(68, rtt.as_bytes());
            put(72, (rtt / 2).as_bytes());
            put(16, tcp::SEGMENT_OUTSIDE.as_bytes());
            put(84, tcp::SEGMENT_OUTSIDE.as_bytes());
            put(24, unacked.div_ceil(tcp::SEGMENT_OUTSIDE).as_bytes());
            put(148, rtt.as_bytes());
        }
    }
    raw
}
