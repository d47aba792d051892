//! The calls of sockets, for internet sockets: addresses, connections, messages. `socket` hands them on; options are in `inet_options`.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use zerocopy::IntoBytes;

use super::blocking::{Progress, until_ready};
use super::socket::{
    CONTROL_MAX, Control, MSG_CTRUNC, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_WAITALL,
    MSG_WAITFORONE, MsgHdr, SOL_SOCKET, beyond, message_vector, put_raw_address, put_time, wait_for_rest,
};
use super::{Outcome, SysResult, UserPtr, done, inet_raw, value};
use crate::errno::Errno;
use crate::ipc::inet::address::{self, AF_INET, AF_INET6, Domain, Endpoint, decode, six};
use crate::ipc::inet::host::Asked;
use crate::ipc::inet::udp::{Along, Sending, Why};
use crate::ipc::inet::{Inet, InetFile, Kind, icmp, options, tcp};
use crate::signal::{SigInfo, code, send};
use crate::task::Task;
use crate::task::creds::cap;
use crate::time::{Deadline, Timespec};
use crate::uio::{IoVec, Sink, Source, total};
use crate::vfs::control::ProcessControl;
use crate::vfs::file::{File, flags};
use crate::vfs::landlock::right;
use crate::wait::{Cause, PollMask, Wait};

const SOCK_NONBLOCK: i32 = flags::NONBLOCK;
const SOCK_CLOEXEC: i32 = flags::CLOEXEC;
const MSG_PROBE: i32 = 0x10;
const MSG_MORE: i32 = 0x8000;
const MSG_FASTOPEN: i32 = 0x2000_0000;
const MSG_ERRQUEUE: i32 = 0x2000;
/// The longest address there is (`struct sockaddr_storage`).
const ADDRESS_MOST: usize = 128;

/// An open socket.
pub(super) struct Open {
    pub(super) file: Arc<File>,
    pub(super) socket: Arc<Inet>,
}

impl Open {
    /// The internet socket that a file is.
    pub(super) fn of(file: &Arc<File>) -> Option<Self> {
        let socket = file.ops_as::<InetFile>()?.0.clone();
        Some(Self { file: file.clone(), socket })
    }
}

/// The family, if it is one of these.
pub(super) fn domain(family: i32) -> Option<Domain> {
    match u16::try_from(family) {
        Ok(AF_INET) => Some(Domain::V4),
        Ok(AF_INET6) => Some(Domain::V6),
        _ => None,
    }
}

/// `socket(2)`. EINVAL, ESOCKTNOSUPPORT, EPROTONOSUPPORT, EPERM.
pub(super) fn make(task: &Arc<Task>, domain: Domain, kind: i32, protocol: i32) -> Result<Arc<Inet>, Errno> {
    /// `IPPROTO_MAX`.
    const PROTOCOLS: i32 = 263;
    const RAW: i32 = 3;
    const ICMP: i32 = 1;
    const ICMP6: i32 = 58;
    if !(0..PROTOCOLS).contains(&protocol) {
        return Err(Errno::EINVAL);
    }
    let kind = match (kind, protocol) {
        (1, 0 | 6) => Kind::Tcp,
        (2, 0 | 17) => Kind::Udp,
        (2, ICMP) if domain == Domain::V4 => inet_raw::may_ping(task, icmp::ICMP)?,
        (2, ICMP6) if domain == Domain::V6 => inet_raw::may_ping(task, icmp::ICMP6)?,
        (RAW, 0) => return Err(Errno::EPROTONOSUPPORT),
        (RAW, _) if !task.creds().capable_in(&task.namespaces().net.base.owner, cap::NET_RAW) => {
            return Err(Errno::EPERM);
        }
        (RAW, _) => Kind::Raw(u8::try_from(protocol).map_err(|_| Errno::EPROTONOSUPPORT)?),
        (1..=3, _) => return Err(Errno::EPROTONOSUPPORT),
        _ => return Err(Errno::ESOCKTNOSUPPORT),
    };
    Ok(Inet::new(domain, kind, &task.namespaces().net, task.creds().fsuid, &task.kernel().timers))
}

/// Copies an address in. EINVAL if it is longer than any.
fn read_address(task: &Arc<Task>, at: u64, len: u32) -> Result<Vec<u8>, Errno> {
    let len = len as usize;
    if len > ADDRESS_MOST {
        return Err(Errno::EINVAL);
    }
    let mut raw = vec![0; len];
    task.read_exact(at, &mut raw)?;
    Ok(raw)
}

/// Has the host give a socket what it asks for, and waits for that.
fn settle(task: &Arc<Task>, open: &Open, wanted: Asked) -> SysResult {
    let Open { file, socket } = open;
    let (file, socket, queue) = (file.clone(), socket.clone(), socket.queue().clone());
    until_ready(task, &queue, PollMask::WRITE, None, move |_| {
        // It stays open as long as somebody waits.
        let _open = &file;
        socket.settle(wanted).map(|()| 0)
    })
}

pub(super) fn bind(task: &Arc<Task>, open: &Open, at: u64, len: u32) -> SysResult {
    let raw = read_address(task, at, len)?;
    let socket = &open.socket;
    if let Kind::Raw(_) = socket.kind {
        return inet_raw::bind(socket, &raw);
    }
    let to = decode(&raw, socket.domain)?;
    match (socket.domain, address::family(&raw)?) {
        (Domain::V4, AF_INET) | (Domain::V6, AF_INET6) => {}
        // Programs that forget the family are forgiven where they mean no address in particular.
        (Domain::V4, 0) if to.ip.is_unspecified() => {}
        _ => return Err(Errno::EAFNOSUPPORT),
    }
    let grouped = to.ip.is_ipv6() && to.ip.is_multicast() && socket.kind.is_stream();
    if grouped || to.ip.is_ipv4() && socket.only_v6() {
        return Err(Errno::EINVAL);
    }
    if address::lacks_scope(&raw, to.ip) {
        return Err(Errno::EINVAL);
    }
    let creds = task.creds();
    if let (Kind::Tcp, Some(domain)) = (socket.kind, &creds.domain) {
        domain.check_port(to.port, right::BIND_TCP)?;
    }
    let net = &socket.net;
    let free = to.port == 0 || matches!(socket.kind, Kind::Ping(_)) || net.settings.is_for_all(to.port);
    if !socket.may_bind(to.ip) {
        return Err(Errno::EADDRNOTAVAIL);
    }
    if !free && !creds.capable_in(&net.base.owner, cap::NET_BIND_SERVICE) {
        return Err(Errno::EACCES);
    }
    if socket.host().is_some() {
        return settle(task, open, Asked::Bind(to));
    }
    socket.bind(to)?;
    done()
}

pub(super) fn listen(task: &Arc<Task>, open: &Open, backlog: i32) -> SysResult {
    if !open.socket.kind.is_stream() {
        return Err(Errno::EOPNOTSUPP);
    }
    match open.socket.listen(backlog)? {
        Some(backlog) => settle(task, open, Asked::Listen(backlog)),
        None => done(),
    }
}

fn deadline(socket: &Inet, send: bool) -> Option<Deadline> {
    let [receive, sending] = socket.timeouts();
    let ns = if send { sending } else { receive };
    (ns > 0).then(|| Deadline::after(ns))
}

pub(super) fn accept(task: &Arc<Task>, open: Open, to: u64, len: UserPtr<i32>, options: i32) -> SysResult {
    let Open { file, socket } = open;
    if !socket.kind.is_stream() {
        return Err(Errno::EOPNOTSUPP);
    }
    let (nonblocking, queue, deadline) = (file.nonblocking(), socket.queue().clone(), deadline(&socket, false));
    let step = move |task: &Arc<Task>| {
        // It stays open as long as somebody waits.
        let _open = &file;
        // Who has no number to give leaves it where it is.
        task.check_file_room()?;
        let next = socket.accept()?;
        let peer = next.tcp_peer();
        // Closed again if it cannot be given out.
        let accepted = next.file(&task.creds(), options & SOCK_NONBLOCK != 0);
        if to != 0 {
            put_raw_address(task, &peer.ok_or(Errno::ECONNABORTED)?.encode(next.domain), to, len)?;
        }
        task.add_file(accepted, options & SOCK_CLOEXEC != 0).map(i64::from)
    };
    wait_for_rest(task, nonblocking, &queue, PollMask::READ, deadline, &Progress::default(), step)
}

/// Where `connect` or a message goes, as a socket may. `None` for AF_UNSPEC.
fn destination(socket: &Inet, raw: &[u8]) -> Result<Option<Endpoint>, Errno> {
    let family = address::family(raw)?;
    if family == 0 {
        return Ok(None);
    }
    let four = socket.domain == Domain::V6 && family == AF_INET && socket.kind == Kind::Udp;
    let to = decode(raw, if four { Domain::V4 } else { socket.domain })?;
    if four {
        // A datagram socket of IPv6 takes addresses of IPv4, too.
        return if socket.only_v6() { Err(Errno::EAFNOSUPPORT) } else { Ok(Some(to)) };
    }
    if family != socket.domain.number() {
        return Err(Errno::EAFNOSUPPORT);
    }
    if to.ip.is_ipv4() && socket.only_v6() {
        return Err(Errno::ENETUNREACH);
    }
    Ok(Some(to))
}

pub(super) fn connect(task: &Arc<Task>, open: Open, at: u64, len: u32) -> SysResult {
    let raw = read_address(task, at, len)?;
    let Open { file, socket } = open;
    if address::family(&raw)? == 0 {
        match socket.kind {
            Kind::Tcp => socket.tcp_dissolve(),
            Kind::Udp => socket.udp_disconnect(),
            Kind::Ping(_) | Kind::Raw(_) => socket.raw_disconnect(),
        }
        return done();
    }
    if !socket.kind.is_stream() {
        let to = destination(&socket, &raw)?.ok_or(Errno::EINVAL)?;
        if address::lacks_scope(&raw, to.ip) {
            return Err(Errno::EINVAL);
        }
        return match socket.udp_connect(to)? {
            Some(to) => settle(task, &Open { file, socket }, Asked::Peer(Some(to))),
            None => done(),
        };
    }
    let again = socket.connecting(false);
    if !again {
        socket.may_connect()?;
        let to = destination(&socket, &raw)?.ok_or(Errno::EINVAL)?;
        if address::lacks_scope(&raw, to.ip) && !to.ip.is_multicast() {
            return Err(Errno::EINVAL);
        }
        if let Some(domain) = &task.creds().domain {
            domain.check_port(to.port, right::CONNECT_TCP)?;
        }
        let begun = socket.tcp_connect(to);
        if !matches!(begun, Ok(()) | Err(Errno::EAGAIN | Errno::ECONNREFUSED)) {
            return begun.map(|()| Outcome::Value(0));
        }
        socket.connecting(true);
        if file.nonblocking() {
            return Err(Errno::EINPROGRESS);
        }
    } else if file.nonblocking() {
        return match socket.connected() {
            Err(Errno::EAGAIN) => Err(Errno::EALREADY),
            r => r.map(|()| Outcome::Value(0)),
        };
    }
    match socket.connected() {
        Err(Errno::EAGAIN) => {}
        r => return r.map(|()| Outcome::Value(0)),
    }
    let (queue, deadline) = (socket.queue().clone(), deadline(&socket, true));
    let (timed, dissolved) = (deadline.is_some(), socket.tcp_dissolved());
    let retry = move |_: &Arc<Task>, cause: Cause| {
        let _open = &file;
        if socket.tcp_dissolved() != dissolved {
            return Some(Err(Errno::EPIPE));
        }
        match (socket.connected(), cause) {
            (Err(Errno::EAGAIN), Cause::Woken) => None,
            (Err(Errno::EAGAIN), Cause::TimedOut) => {
                Some(Err(if again { Errno::EALREADY } else { Errno::EINPROGRESS }))
            }
            (Err(Errno::EAGAIN), Cause::Interrupted) if timed => Some(Err(Errno::EINTR)),
            (Err(Errno::EAGAIN), Cause::Interrupted) => Some(Err(Errno::ERESTARTSYS)),
            (r, _) => Some(r.map(|()| 0)),
        }
    };
    Ok(Outcome::Block(Wait::new(retry).on(&queue, PollMask::WRITE).until(deadline)))
}

pub(super) fn getsockname(task: &Arc<Task>, open: &Open, to: u64, len: UserPtr<i32>) -> SysResult {
    let (file, socket, queue) = (open.file.clone(), open.socket.clone(), open.socket.queue().clone());
    until_ready(task, &queue, PollMask::WRITE, None, move |task| {
        let _open = &file;
        socket.is_settled()?;
        put_raw_address(task, &socket.name().encode(socket.domain), to, len).map(|()| 0)
    })
}

pub(super) fn getpeername(task: &Arc<Task>, open: &Open, to: u64, len: UserPtr<i32>) -> SysResult {
    put_raw_address(task, &open.socket.peer()?.encode(open.socket.domain), to, len)?;
    done()
}

pub(super) fn shutdown(open: &Open, how: i32) -> SysResult {
    match how {
        0 => open.socket.shutdown(true, false)?,
        1 => open.socket.shutdown(false, true)?,
        2 => open.socket.shutdown(true, true)?,
        _ => return Err(Errno::EINVAL),
    }
    done()
}

/// Copies in where a message goes.
pub(super) fn send_address(task: &Arc<Task>, at: u64, len: u32) -> Result<Option<Vec<u8>>, Errno> {
    if at == 0 { Ok(None) } else { read_address(task, at, len).map(Some) }
}

/// Sends; a stream goes on until all is sent. `control`: what came along.
pub(super) fn send(
    task: &Arc<Task>,
    open: Open,
    vecs: Vec<IoVec>,
    to: Option<Vec<u8>>,
    control: &[u8],
    how: i32,
) -> SysResult {
    if let Kind::Ping(_) | Kind::Raw(_) = open.socket.kind {
        let with = sending(&open.socket, control, how)?;
        return inet_raw::send(task, &open, vecs, to, with, how);
    }
    if open.socket.kind == Kind::Udp {
        return send_datagram(task, &open, vecs, to, control, how);
    }
    let Open { file, socket } = open;
    for (level, kind, _) in messages(control)? {
        // Rights and credentials mean nothing here, and are passed by.
        if level == SOL_SOCKET && !matches!(kind, 1 | 2) {
            return Err(Errno::EINVAL);
        }
    }
    if how & MSG_FASTOPEN != 0 {
        // As where it is turned off (`net.ipv4.tcp_fastopen`).
        return Err(if socket.peer().is_ok() { Errno::EISCONN } else { Errno::EOPNOTSUPP });
    }
    let (urgent, all) = (how & MSG_OOB != 0, total(&vecs));
    let nonblocking = file.nonblocking() || how & MSG_DONTWAIT != 0;
    let (queue, deadline) = (socket.queue().clone(), deadline(&socket, true));
    let progress = Progress::default();
    let (sent, dissolved) = (progress.clone(), socket.tcp_dissolved());
    let step = move |task: &Arc<Task>| -> Result<i64, Errno> {
        let _open = &file;
        if socket.tcp_dissolved() != dissolved {
            return Err(Errno::EPIPE);
        }
        loop {
            let have = sent.load(Ordering::Relaxed);
            let mut from = Source::user(task, beyond(&vecs, have));
            match socket.tcp_send(&mut from, tcp::Send { urgent, more: how & MSG_MORE != 0 }) {
                Ok(n) => {
                    let have = have + n;
                    sent.store(have, Ordering::Relaxed);
                    if have >= all || n == 0 {
                        if urgent
                            && all > 0
                            && let Some(other) = socket.tcp_other_file()
                        {
                            send::to_owner(task.kernel(), &other, SigInfo::new(libc::SIGURG, code::KERNEL));
                        }
                        return Ok(have as i64);
                    }
                }
                Err(Errno::EAGAIN) => return Err(Errno::EAGAIN),
                Err(_) if have > 0 => return Ok(have as i64),
                Err(e) => {
                    if e == Errno::EPIPE && how & MSG_NOSIGNAL == 0 {
                        task.post_signal(libc::SIGPIPE);
                    }
                    return Err(e);
                }
            }
        }
    };
    wait_for_rest(task, nonblocking, &queue, PollMask::WRITE, deadline, &progress, step)
}

/// A message of control data: level, type, data.
type Said<'a> = (i32, i32, &'a [u8]);

/// The messages of control data. EINVAL.
fn messages(mut rest: &[u8]) -> Result<Vec<Said<'_>>, Errno> {
    let mut all = Vec::new();
    while let Some((head, _)) = rest.split_at_checked(16) {
        let word = |i: usize| head.get(i..i + 4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
        let size = usize::try_from(word(0)).map_err(|_| Errno::EINVAL)?;
        if size < 16 {
            return Err(Errno::EINVAL);
        }
        all.push((word(8), word(12), rest.get(16..size).ok_or(Errno::EINVAL)?));
        rest = rest.get(size.next_multiple_of(8)..).unwrap_or_default();
    }
    Ok(all)
}

/// Copies control data in. ENOBUFS.
pub(super) fn read_control(task: &Arc<Task>, m: &MsgHdr) -> Result<Vec<u8>, Errno> {
    let len = usize::try_from(m.control_len).ok().filter(|l| *l <= CONTROL_MAX).ok_or(Errno::ENOBUFS)?;
    if m.control == 0 || len == 0 {
        return Ok(Vec::new());
    }
    UserPtr::<u8>::new(m.control).read_array(task, len, CONTROL_MAX)
}

/// What control data says of a datagram.
fn sending(socket: &Inet, control: &[u8], how: i32) -> Result<Sending, Errno> {
    const PKTINFO6: i32 = 50;
    const HOPLIMIT: i32 = 52;
    const SEGMENT: i32 = 103;
    let segment = socket.values(|v| v.get(options::UDP, SEGMENT));
    let mut out = Sending {
        more: how & MSG_MORE != 0,
        probe: how & MSG_PROBE != 0,
        segment: usize::try_from(segment).unwrap_or(0),
        ..Sending::default()
    };
    let int = |data: &[u8]| data.first_chunk().map(|b| i32::from_ne_bytes(*b)).ok_or(Errno::EINVAL);
    // The device to send by.
    let device = |data: Option<&[u8]>| {
        let index = data.map(int).and_then(Result::ok).and_then(|n| u32::try_from(n).ok());
        index.filter(|n| *n == 0 || socket.net.has_device(*n)).ok_or(Errno::ENODEV)
    };
    for (level, kind, data) in messages(control)? {
        match (level, kind) {
            (SOL_SOCKET, 1 | 2) => {}
            (SOL_SOCKET, _) => return Err(Errno::EINVAL),
            (options::IP, options::PKTINFO) if data.len() == 12 => {
                out.device = device(data.get(..4))?;
                let from = data.get(4..).and_then(<[u8]>::first_chunk::<4>).map(|b| IpAddr::from(*b));
                out.from = from.filter(|ip| !ip.is_unspecified());
            }
            (options::IP, options::TTL) => {
                let ttl = int(data)?;
                out.ttl = Some(u8::try_from(ttl).ok().filter(|t| *t > 0).ok_or(Errno::EINVAL)?);
            }
            (options::IP, options::TOS) => {
                let tos = if data.len() == 1 { i32::from(data.first().copied().unwrap_or(0)) } else { int(data)? };
                out.tos = Some(u8::try_from(tos).map_err(|_| Errno::EINVAL)?);
            }
            (options::IP, _) => return Err(Errno::EINVAL),
            (options::IPV6, _) if socket.domain == Domain::V4 => {}
            (options::IPV6, PKTINFO6) if data.len() >= 20 => {
                out.device = device(data.get(16..20))?;
                let from = data.first_chunk::<16>().map(|b| address::canonical((*b).into()));
                out.from = from.filter(|ip| !ip.is_unspecified());
            }
            (options::IPV6, HOPLIMIT | options::TCLASS) => {
                let n = int(data)?;
                if !(-1..=255).contains(&n) {
                    return Err(Errno::EINVAL);
                }
                *(if kind == HOPLIMIT { &mut out.ttl } else { &mut out.tos }) = u8::try_from(n).ok();
            }
            (options::IPV6, _) => return Err(Errno::EINVAL),
            (options::UDP, SEGMENT) => {
                let size = data.first_chunk().map(|b| u16::from_ne_bytes(*b)).filter(|_| data.len() == 2);
                out.segment = usize::from(size.ok_or(Errno::EINVAL)?);
            }
            _ => {}
        }
    }
    if let Some(from) = out.from
        && !socket.may_bind(from)
    {
        // To IPv4 it is a matter of the way.
        return Err(if from.is_ipv4() { Errno::ENETUNREACH } else { Errno::EINVAL });
    }
    Ok(out)
}

fn send_datagram(
    task: &Arc<Task>,
    open: &Open,
    vecs: Vec<IoVec>,
    to: Option<Vec<u8>>,
    control: &[u8],
    how: i32,
) -> SysResult {
    let socket = &open.socket;
    if how & MSG_OOB != 0 && socket.domain == Domain::V4 {
        return Err(Errno::EOPNOTSUPP);
    }
    let to = match to {
        None => None,
        Some(raw) => match (socket.domain, address::family(&raw)) {
            (Domain::V4, _) => {
                let to = decode(&raw, Domain::V4)?;
                match address::family(&raw)? {
                    // No family is meant as IPv4's.
                    0 | AF_INET => Some(to),
                    _ => return Err(Errno::EAFNOSUPPORT),
                }
            }
            (Domain::V6, Err(_)) => return Err(Errno::EINVAL),
            (Domain::V6, Ok(0)) => None,
            (Domain::V6, Ok(AF_INET)) if socket.only_v6() => return Err(Errno::ENETUNREACH),
            (Domain::V6, Ok(AF_INET | AF_INET6)) => destination(socket, &raw)?,
            (Domain::V6, Ok(_)) => return Err(Errno::EINVAL),
        },
    };
    let with = sending(socket, control, how)?;
    value(socket.udp_send(&mut Source::user(task, vecs), to, with)?)
}

/// What was received, and what is to be said of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Came {
    /// Bytes put.
    pub(super) count: usize,
    /// Bytes there were.
    length: usize,
    /// Nothing more comes of it by waiting.
    stopped: bool,
    flags: i32,
    from: Option<Endpoint>,
    along: Option<Along>,
    failed: Option<(Endpoint, Why)>,
}

/// Receives once. `already`: this call has received before.
fn receive_once(socket: &Inet, how: i32, to: &mut Sink<'_>, already: bool) -> Result<Came, Errno> {
    let peek = how & MSG_PEEK != 0;
    if how & MSG_ERRQUEUE != 0 {
        if socket.kind == Kind::Tcp {
            return Err(Errno::EAGAIN);
        }
        let failed = socket.udp_failed()?;
        let count = to.put(&failed.data)?;
        return Ok(Came {
            count,
            length: failed.data.len(),
            flags: MSG_ERRQUEUE,
            from: Some(failed.to),
            failed: Some((failed.to, failed.why)),
            ..Came::default()
        });
    }
    if !socket.kind.is_stream() {
        if how & MSG_OOB != 0 && socket.kind != Kind::Udp {
            return Err(Errno::EOPNOTSUPP);
        }
        let got = socket.udp_receive(to, peek)?.unless_ended(how & MSG_DONTWAIT != 0)?;
        let from = got.along.map(|a| a.from);
        return Ok(Came { count: got.count, length: got.length, from, along: got.along, ..Came::default() });
    }
    if how & MSG_OOB != 0 {
        let got = socket.tcp_receive_urgent(to, peek)?;
        let flags = if got.is_some() { MSG_OOB } else { 0 };
        let lost = if got == Some(0) { MSG_TRUNC } else { 0 };
        return Ok(Came { count: got.unwrap_or(0), flags: flags | lost, stopped: true, ..Came::default() });
    }
    let got = socket.tcp_receive(to, tcp::How { peek, already, discard: how & MSG_TRUNC != 0 })?;
    Ok(Came { count: got.count, length: got.count, stopped: got.stopped, ..Came::default() })
}

/// Receives. A stream goes on until there is as much as it was told to wait for (`MSG_WAITALL`, `SO_RCVLOWAT`).
pub(super) fn receive(
    task: &Arc<Task>,
    open: Open,
    vecs: Vec<IoVec>,
    how: i32,
    mut finish: impl FnMut(&Arc<Task>, &Inet, &Came) -> Result<(), Errno> + Send + 'static,
) -> SysResult {
    let Open { file, socket } = open;
    let nonblocking = file.nonblocking() || how & (MSG_DONTWAIT | MSG_ERRQUEUE) != 0;
    let how = if nonblocking { how | MSG_DONTWAIT } else { how };
    let dissolved = socket.tcp_dissolved();
    let (queue, deadline) = (socket.queue().clone(), deadline(&socket, false));
    let all = total(&vecs);
    let stream = socket.kind.is_stream();
    let enough = match how {
        _ if !stream => 0,
        h if h & MSG_WAITALL != 0 => all,
        _ => usize::try_from(socket.options(|o| o.low_water)).unwrap_or(1).min(all),
    };
    let discard = stream && how & MSG_TRUNC != 0;
    let progress = Progress::default();
    let got = progress.clone();
    let step = move |task: &Arc<Task>| -> Result<i64, Errno> {
        // It stays open as long as somebody waits.
        let _open = &file;
        if socket.tcp_dissolved() != dissolved {
            return Err(Errno::EPIPE);
        }
        loop {
            let have = got.load(Ordering::Relaxed);
            let mut to = Sink::user(task, beyond(&vecs, have));
            // What a peek has seen is looked at again from the start, until there is enough.
            let peek_again = how & MSG_PEEK != 0 && stream;
            let came = receive_once(&socket, how, &mut to, have > 0)?;
            if peek_again && how & MSG_OOB == 0 && came.count < enough && !came.stopped {
                return if nonblocking { Ok(came.count as i64) } else { Err(Errno::EAGAIN) };
            }
            if have == 0 {
                finish(task, &socket, &came)?;
            }
            let have = have + came.count;
            got.store(have, Ordering::Relaxed);
            if came.count == 0 || came.stopped || have >= enough || have >= all || peek_again {
                // A ping socket tells of what was copied only.
                let whole = how & MSG_TRUNC != 0 && !discard && !matches!(socket.kind, Kind::Ping(_));
                return Ok(if whole { came.length } else { have } as i64);
            }
        }
    };
    wait_for_rest(task, nonblocking, &queue, PollMask::READ, deadline, &progress, step)
}

/// Tells `recvfrom` who sent it.
pub(super) fn tell_sender(
    task: &Arc<Task>,
    socket: &Inet,
    came: &Came,
    to: u64,
    len: UserPtr<i32>,
) -> Result<(), Errno> {
    match came.from {
        _ if to == 0 => Ok(()),
        Some(from) => put_raw_address(task, &from.encode(socket.domain), to, len),
        None => len.write(task, &0),
    }
}

/// Tells `recvmsg` who sent it, and what came along.
pub(super) fn tell(
    task: &Arc<Task>,
    socket: &Inet,
    came: &Came,
    message: UserPtr<MsgHdr>,
    mut m: MsgHdr,
    how: i32,
) -> Result<(), Errno> {
    const MSG_CMSG_CLOEXEC: i32 = 0x4000_0000;
    let room = if m.control == 0 { 0 } else { usize::try_from(m.control_len).unwrap_or(0).min(CONTROL_MAX) };
    let mut c = Control::new(room);
    if let Some(along) = &came.along {
        put_along(socket, along, &mut c);
    }
    if let Some((to, why)) = came.failed {
        put_failed(socket, to, why, &mut c);
    }
    if socket.kind.is_stream() && socket.values(|v| v.get(options::TCP, options::INQ)) != 0 {
        // What is left to be read; at the end there is always something, as reading tells.
        let left = i32::try_from(socket.tcp_left()).unwrap_or(i32::MAX);
        c.push_of(options::TCP, options::INQ, &left.to_ne_bytes());
    }
    let (out, truncated) = c.into_parts();
    task.write_exact(m.control, &out)?;
    m.control_len = out.len() as u64;
    m.flags = how & MSG_CMSG_CLOEXEC | came.flags;
    if truncated {
        m.flags |= MSG_CTRUNC;
    }
    if came.length > came.count && !socket.kind.is_stream() {
        m.flags |= MSG_TRUNC;
    }
    if m.name != 0 {
        let from = came.from.map(|f| f.encode(socket.domain)).unwrap_or_default();
        let n = from.len().min(m.name_len as usize);
        task.write_exact(m.name, from.get(..n).unwrap_or_default())?;
        m.name_len = u32::try_from(from.len()).unwrap_or(0);
    }
    message.write(task, &m)
}

/// What is told with a datagram, to who asked.
fn put_along(socket: &Inet, along: &Along, c: &mut Control) {
    const PKTINFO6: i32 = 50;
    const HOPLIMIT: i32 = 52;
    put_time(socket.options(|o| o.times), Some(along.time), c);
    let asked = |level, option| socket.values(|v| v.get(level, option)) != 0;
    if socket.domain == Domain::V6 && asked(options::IPV6, options::RECVPKTINFO6) {
        let mut info = six(along.to).octets().to_vec();
        info.extend_from_slice(&along.device.max(1).to_ne_bytes());
        c.push_of(options::IPV6, PKTINFO6, &info);
    }
    match along.to {
        IpAddr::V4(to) => {
            if asked(options::IP, options::PKTINFO) {
                let own = if to.is_multicast() || to.is_broadcast() { std::net::Ipv4Addr::LOCALHOST } else { to };
                let mut info = along.device.max(1).to_ne_bytes().to_vec();
                info.extend_from_slice(&own.octets());
                info.extend_from_slice(&to.octets());
                c.push_of(options::IP, options::PKTINFO, &info);
            }
            if asked(options::IP, options::RECVTTL) {
                c.push_of(options::IP, options::TTL, &i32::from(along.ttl).to_ne_bytes());
            }
            if asked(options::IP, options::RECVTOS) {
                c.push_of(options::IP, options::TOS, &[along.tos]);
            }
            if asked(options::IP, options::ORIGDSTADDR) {
                let to = Endpoint { ip: along.to, port: socket.name().port };
                c.push_of(options::IP, options::ORIGDSTADDR, &to.encode(Domain::V4));
            }
        }
        IpAddr::V6(_) => {
            if asked(options::IPV6, options::RECVHOPLIMIT) {
                c.push_of(options::IPV6, HOPLIMIT, &i32::from(along.ttl).to_ne_bytes());
            }
            if asked(options::IPV6, options::RECVTCLASS) {
                c.push_of(options::IPV6, options::TCLASS, &i32::from(along.tos).to_ne_bytes());
            }
        }
    }
}

/// An error: as the ICMP message that would have brought it (nobody has that port), or as it was found here.
fn put_failed(socket: &Inet, to: Endpoint, why: Why, c: &mut Control) {
    const LOCAL: u8 = 1;
    let (error, kind, info) = match (why, to.ip) {
        (Why::Nobody(_), IpAddr::V4(_)) => (Errno::ECONNREFUSED, [2, 3, 3, 0], 0),
        (Why::Nobody(_), IpAddr::V6(_)) => (Errno::ECONNREFUSED, [3, 1, 4, 0], 0),
        (Why::Told(_, kind, code, info), ip) => {
            let origin = if ip.is_ipv4() { 2 } else { 3 };
            let error = icmp::error_of(ip.is_ipv4(), kind, code).map_or(Errno::EHOSTUNREACH, |(e, _)| e);
            (error, [origin, kind, code, 0], info)
        }
        (Why::TooLong(most), _) => (Errno::EMSGSIZE, [LOCAL, 0, 0, 0], most),
    };
    // `struct sock_extended_err`, and who says so: one's own kernel has no address.
    let mut raw = error.code().to_ne_bytes().to_vec();
    raw.extend_from_slice(&kind);
    raw.extend_from_slice(&info.to_ne_bytes());
    raw.extend_from_slice(&[0; 4]);
    let mut by = Endpoint { ip: socket.domain.any(), port: 0 }.encode(socket.domain);
    match why {
        Why::Nobody(offender) | Why::Told(offender, ..) => {
            by = Endpoint { ip: offender, port: 0 }.encode(socket.domain)
        }
        Why::TooLong(_) => by.fill(0),
    }
    raw.extend_from_slice(&by);
    match socket.domain {
        Domain::V4 => c.push_of(options::IP, options::RECVERR, &raw),
        Domain::V6 => c.push_of(options::IPV6, options::RECVERR6, &raw),
    }
}

/// Several messages. The time is looked at after each, as on Linux: it does not end the wait for one.
pub(super) fn receive_many(
    task: &Arc<Task>,
    open: Open,
    all: UserPtr<MsgHdr>,
    count: usize,
    how: i32,
    until: Option<(Deadline, UserPtr<Timespec>)>,
) -> SysResult {
    let Open { file, socket } = open;
    let one = how & MSG_WAITFORONE != 0;
    let how = how & !MSG_WAITFORONE;
    let nonblocking = file.nonblocking() || how & (MSG_DONTWAIT | MSG_ERRQUEUE) != 0;
    let how = if nonblocking { how | MSG_DONTWAIT } else { how };
    let (queue, deadline) = (socket.queue().clone(), deadline(&socket, false));
    let progress = Progress::default();
    let done = progress.clone();
    let step = move |task: &Arc<Task>| -> Result<i64, Errno> {
        loop {
            let at = done.load(Ordering::Relaxed);
            if at >= count || (at > 0 && until.as_ref().is_some_and(|(u, _)| u.remaining() == 0)) {
                return Ok(at as i64);
            }
            match one_of_many(task, &socket, all.offset(at as u64 * 64)?, how) {
                Ok(()) => {
                    done.store(at + 1, Ordering::Relaxed);
                    // What is left of the time is told.
                    if let Some((until, left)) = &until {
                        left.write(task, &Timespec::from_ns(until.remaining()))?;
                    }
                }
                Err(Errno::EAGAIN) if at > 0 && one => return Ok(at as i64),
                Err(Errno::EAGAIN) => return Err(Errno::EAGAIN),
                Err(_) if at > 0 => return Ok(at as i64),
                Err(e) => return Err(e),
            }
        }
    };
    wait_for_rest(task, nonblocking, &queue, PollMask::READ, deadline, &progress, step)
}

fn one_of_many(task: &Arc<Task>, socket: &Inet, at: UserPtr<MsgHdr>, how: i32) -> Result<(), Errno> {
    let m = at.read(task)?;
    let mut to = Sink::user(task, message_vector(task, &m)?);
    let came = receive_once(socket, how, &mut to, false)?;
    tell(task, socket, &came, at, m, how)?;
    let whole = how & MSG_TRUNC != 0 && !socket.kind.is_stream();
    let len = if whole { came.length } else { came.count };
    at.cast::<u32>().offset(56)?.write(task, &u32::try_from(len).unwrap_or(u32::MAX))
}

/// The credentials that options show, of nobody: connections do not carry them.
pub(super) fn nobody() -> Vec<u8> {
    [0i32, -1, -1].as_bytes().to_vec()
}
