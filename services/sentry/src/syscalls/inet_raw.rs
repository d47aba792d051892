//! The calls of sockets, for raw and ping sockets (`ipc::inet::raw`): who may have one, addresses, options that are theirs alone. `inet` and
//! `inet_options` hand them on.

use std::sync::Arc;

use super::inet::Open;
use super::socket::MSG_OOB;
use super::{SysResult, UserPtr, done, value};
use crate::errno::Errno;
use crate::ipc::inet::address::{self, AF_INET, AF_INET6, Domain, decode};
use crate::ipc::inet::icmp::{ICMP, ICMP6};
use crate::ipc::inet::options::{self, IP, IPV6};
use crate::ipc::inet::udp::Sending;
use crate::ipc::inet::{Inet, Kind};
use crate::task::Task;
use crate::uio::{IoVec, Source};

/// Levels.
const SOL_RAW: i32 = 255;
const SOL_ICMP6: i32 = 58;
/// `ICMP_FILTER`, `ICMP6_FILTER`.
const FILTER: i32 = 1;
/// `IPV6_CHECKSUM`, `IPV6_HDRINCL`.
const CHECKSUM: i32 = 7;
const HDRINCL6: i32 = 36;

/// A ping socket, if one of the task's groups may have them (`net.ipv4.ping_group_range`). EACCES.
pub(super) fn may_ping(task: &Task, protocol: u8) -> Result<Kind, Errno> {
    let (creds, net) = (task.creds(), &task.namespaces().net);
    let mut groups = creds.groups.iter().chain([&creds.egid]);
    if groups.any(|g| net.settings.may_ping(*g)) { Ok(Kind::Ping(protocol)) } else { Err(Errno::EACCES) }
}

/// `bind` of a raw socket.
pub(super) fn bind(socket: &Arc<Inet>, raw: &[u8]) -> SysResult {
    let to = decode(raw, socket.domain)?;
    if socket.domain == Domain::V6 {
        if address::family(raw)? != AF_INET6 || address::lacks_scope(raw, to.ip) {
            return Err(Errno::EINVAL);
        }
        if to.ip.is_ipv4() {
            return Err(Errno::EADDRNOTAVAIL);
        }
    }
    socket.raw_bind(to.ip)?;
    done()
}

/// Sends a packet, or an echo request.
pub(super) fn send(
    task: &Arc<Task>,
    open: &Open,
    vecs: Vec<IoVec>,
    to: Option<Vec<u8>>,
    with: Sending,
    how: i32,
) -> SysResult {
    let socket = &open.socket;
    if how & MSG_OOB != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let ping = matches!(socket.kind, Kind::Ping(_));
    let to = match to {
        None => None,
        Some(raw) => {
            let to = decode(&raw, socket.domain)?;
            match (socket.domain, address::family(&raw)?) {
                (Domain::V4, AF_INET) | (Domain::V6, AF_INET6) => {}
                // A raw socket forgives that there is none.
                (_, 0) if !ping => {}
                // What is sent is looked at before.
                _ => return Err(if ping { Errno::EINVAL } else { Errno::EAFNOSUPPORT }),
            }
            if socket.domain == Domain::V6 && !ping {
                let own = socket.kind.protocol();
                let asked = i32::from(to.port);
                if asked != 0 && asked != own && own != SOL_RAW || asked > 255 {
                    return Err(Errno::EINVAL);
                }
            }
            if address::lacks_scope(&raw, to.ip) && !to.ip.is_multicast() {
                return Err(Errno::EINVAL);
            }
            if socket.domain == Domain::V6 && to.ip.is_ipv4() {
                return Err(Errno::ENETUNREACH);
            }
            Some(to)
        }
    };
    value(socket.raw_send(&mut Source::user(task, vecs), to, with)?)
}

/// `setsockopt` of what raw sockets alone have; `None` for all else.
pub(super) fn set(
    task: &Arc<Task>,
    socket: &Inet,
    level: i32,
    option: i32,
    (at, len): (u64, usize),
) -> Option<Result<(), Errno>> {
    let Kind::Raw(protocol) = socket.kind else { return None };
    Some(match (level, option, socket.domain) {
        (SOL_RAW, _, Domain::V4) if option != FILTER => Err(Errno::ENOPROTOOPT),
        (SOL_RAW, ..) if socket.domain == Domain::V4 && protocol != ICMP => Err(Errno::EOPNOTSUPP),
        (SOL_ICMP6, _, Domain::V6) if protocol != ICMP6 => Err(Errno::EOPNOTSUPP),
        (SOL_ICMP6, _, Domain::V6) if option != FILTER => Err(Errno::ENOPROTOOPT),
        (SOL_RAW, _, Domain::V4) => filter(task, socket, at, len.min(4)),
        (SOL_ICMP6, _, Domain::V6) => filter(task, socket, at, len.min(32)),
        (IP, options::HDRINCL, Domain::V4) => (|| {
            let byte = || UserPtr::<u8>::new(at).read(task).map(i32::from);
            let on = if len >= 4 { UserPtr::<i32>::new(at).read(task)? } else { byte()? };
            socket.values(|v| v.set(IP, options::HDRINCL, i32::from(on != 0)));
            Ok(())
        })(),
        (IPV6 | SOL_RAW, CHECKSUM | HDRINCL6, Domain::V6) if len < 4 => Err(Errno::EINVAL),
        (IPV6 | SOL_RAW, CHECKSUM | HDRINCL6, Domain::V6) => (|| {
            let int = UserPtr::<i32>::new(at).read(task)?;
            // Messages of ICMPv6 are summed where it says (RFC 3542), unless Linux's own level is used.
            if option == CHECKSUM && protocol == ICMP6 && level == IPV6 {
                return Err(Errno::EINVAL);
            }
            if option == CHECKSUM {
                return socket.set_sum_at(int);
            }
            socket.values(|v| v.set(IP, options::HDRINCL, i32::from(int != 0)));
            Ok(())
        })(),
        _ => return None,
    })
}

/// Types of messages that are not wanted; as many bytes as there are.
fn filter(task: &Arc<Task>, socket: &Inet, at: u64, len: usize) -> Result<(), Errno> {
    let new = if len == 0 { Vec::new() } else { UserPtr::<u8>::new(at).read_array(task, len, 32)? };
    let mut words = socket.unwanted();
    let mut raw: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
    raw.iter_mut().zip(new).for_each(|(to, b)| *to = b);
    words.iter_mut().zip(raw.as_chunks::<4>().0).for_each(|(to, b)| *to = u32::from_ne_bytes(*b));
    socket.set_unwanted(words);
    Ok(())
}

/// `getsockopt` of what raw sockets alone have; `None` for all else.
pub(super) fn get(socket: &Inet, level: i32, option: i32) -> Option<Result<Vec<u8>, Errno>> {
    let Kind::Raw(protocol) = socket.kind else { return None };
    let bytes = |count: usize| {
        let raw = socket.unwanted();
        raw.iter().take(count).flat_map(|w| w.to_ne_bytes()).collect::<Vec<u8>>()
    };
    Some(match (level, option, socket.domain) {
        (SOL_RAW, _, Domain::V4) if option != FILTER => Err(Errno::ENOPROTOOPT),
        (SOL_RAW, _, Domain::V4) if protocol != ICMP => Err(Errno::EOPNOTSUPP),
        (SOL_ICMP6, _, Domain::V6) if protocol != ICMP6 => Err(Errno::EOPNOTSUPP),
        (SOL_ICMP6, _, Domain::V6) if option != FILTER => Err(Errno::ENOPROTOOPT),
        (SOL_RAW, _, Domain::V4) => Ok(bytes(1)),
        (SOL_ICMP6, _, Domain::V6) => Ok(bytes(8)),
        (IPV6 | SOL_RAW, CHECKSUM, Domain::V6) => Ok(socket.sum_at().to_ne_bytes().to_vec()),
        (IP, options::HDRINCL, Domain::V4) | (IPV6 | SOL_RAW, HDRINCL6, Domain::V6) => {
            Ok(socket.values(|v| v.get(IP, options::HDRINCL)).to_ne_bytes().to_vec())
        }
        _ => return None,
    })
}
