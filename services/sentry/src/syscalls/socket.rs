//! Sockets: `socket`, `bind`, `connect`, `send*`, `recv*` and their kin, for Unix sockets; those of netlink are handed on to
//! `syscalls::netlink`, those of the internet to `syscalls::inet`, packet sockets to `syscalls::packet`, and other families answer EAFNOSUPPORT.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::entry;
use crate::errno::Errno;
use crate::ipc::netlink::Netlink;
use crate::ipc::pidfd::pidfd;
use crate::ipc::scm::{Ancillary, Flight, Ucred};
use crate::ipc::unix::{INQ, Kind, Name, PASSCRED, PASSPIDFD, Received, Socket, SocketFile, Times};
use crate::signal::{SigInfo, code, send};
use crate::syscalls::blocking::{Progress, until_done};
use crate::syscalls::read_write::{RawVec, vector};
use crate::syscalls::{Entry, Fd, Outcome, SysResult, UserPtr, done, value};
use crate::syscalls::{inet, netlink, packet};
use crate::task::Task;
use crate::task::creds::cap;
use crate::task::group::rlimit;
use crate::time::{Clock, Deadline, Timespec, Timeval, now};
use crate::uio::{IoVec, Sink, Source};
use crate::vfs::control::ProcessControl;
use crate::vfs::file::{File, flags};
use crate::vfs::inode::mode;
use crate::vfs::walk::walk;
use crate::vfs::{Caller, access, ops};
use crate::wait::PollMask;

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(
        41,
        "socket",
        Partial,
        "AF_UNIX, AF_NETLINK (route, sock_diag), AF_INET, AF_INET6 (TCP, UDP, raw, ping), AF_PACKET (no SOCK_PACKET); others: EAFNOSUPPORT",
        socket(i32, i32, i32)
    ),
    entry!(53, "socketpair", Full, "", socketpair(i32, i32, i32, UserPtr<[i32; 2]>)),
    entry!(49, "bind", Full, "", bind(Fd, u64, u32)),
    entry!(50, "listen", Full, "", listen(Fd, i32)),
    entry!(43, "accept", Full, "", accept(Fd, u64, UserPtr<i32>)),
    entry!(288, "accept4", Full, "", accept4(Fd, u64, UserPtr<i32>, i32)),
    entry!(42, "connect", Full, "", connect(Fd, u64, u32)),
    entry!(51, "getsockname", Full, "", getsockname(Fd, u64, UserPtr<i32>)),
    entry!(52, "getpeername", Full, "", getpeername(Fd, u64, UserPtr<i32>)),
    entry!(44, "sendto", Full, "", sendto(Fd, u64, usize, i32, u64, u32)),
    entry!(45, "recvfrom", Full, "", recvfrom(Fd, u64, usize, i32, u64, UserPtr<i32>)),
    entry!(46, "sendmsg", Full, "", sendmsg(Fd, UserPtr<MsgHdr>, i32)),
    entry!(47, "recvmsg", Full, "", recvmsg(Fd, UserPtr<MsgHdr>, i32)),
    entry!(307, "sendmmsg", Full, "", sendmmsg(Fd, UserPtr<MsgHdr>, u32, i32)),
    entry!(48, "shutdown", Full, "", shutdown(Fd, i32)),
    entry!(299, "recvmmsg", Full, "", recvmmsg(Fd, UserPtr<MsgHdr>, u32, i32, UserPtr<Timespec>)),
];

pub(super) const AF_UNIX: i32 = 1;
const SOCK_NONBLOCK: i32 = flags::NONBLOCK;
const SOCK_CLOEXEC: i32 = flags::CLOEXEC;
pub(super) const MSG_OOB: i32 = 1;
pub(super) const MSG_PEEK: i32 = 2;
pub(super) const MSG_CTRUNC: i32 = 8;
pub(super) const MSG_TRUNC: i32 = 0x20;
pub(super) const MSG_DONTWAIT: i32 = 0x40;
pub(super) const MSG_WAITALL: i32 = 0x100;
pub(super) const MSG_NOSIGNAL: i32 = 0x4000;
pub(super) const MSG_WAITFORONE: i32 = 0x1_0000;
const MSG_CMSG_CLOEXEC: i32 = 0x4000_0000;
pub(super) const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;
const SCM_CREDENTIALS: i32 = 2;
const SCM_PIDFD: i32 = 4;
/// Descriptors in one message.
const SCM_MAX_FD: usize = 253;
/// Bytes of control data.
pub(super) const CONTROL_MAX: usize = 65_536;

fn kind(task_family: i32, kind: i32, protocol: i32) -> Result<Kind, Errno> {
    if task_family != AF_UNIX {
        return Err(Errno::EAFNOSUPPORT);
    }
    if protocol != 0 && protocol != AF_UNIX {
        return Err(Errno::EPROTONOSUPPORT);
    }
    match kind & 0xf {
        1 => Ok(Kind::Stream),
        // Linux takes SOCK_RAW for a datagram socket here.
        2 | 3 => Ok(Kind::Datagram),
        5 => Ok(Kind::Packet),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

fn install(task: &Arc<Task>, socket: &Arc<Socket>, options: i32) -> Result<i32, Errno> {
    task.add_file(socket.file(&task.creds(), options & SOCK_NONBLOCK != 0), options & SOCK_CLOEXEC != 0)
}

fn socket(task: &Arc<Task>, family: i32, how: i32, protocol: i32) -> SysResult {
    if how & !(0xf | SOCK_NONBLOCK | SOCK_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    // SOCK_MAX.
    if how & 0xf >= 11
        && ([AF_UNIX, netlink::AF_NETLINK, packet::AF_PACKET].contains(&family) || inet::domain(family).is_some())
    {
        return Err(Errno::EINVAL);
    }
    if family == netlink::AF_NETLINK {
        let file = netlink::open(task, how & 0xf, protocol, how & SOCK_NONBLOCK != 0)?;
        return value(task.add_file(file, how & SOCK_CLOEXEC != 0)?);
    }
    if family == packet::AF_PACKET {
        let file = packet::open(task, how & 0xf, protocol, how & SOCK_NONBLOCK != 0)?;
        return value(task.add_file(file, how & SOCK_CLOEXEC != 0)?);
    }
    if let Some(domain) = inet::domain(family) {
        let socket = inet::make(task, domain, how & 0xf, protocol)?;
        let file = socket.file(&task.creds(), how & SOCK_NONBLOCK != 0);
        return value(task.add_file(file, how & SOCK_CLOEXEC != 0)?);
    }
    let kind = kind(family, how, protocol)?;
    value(install(task, &Socket::new(kind, Ucred::of(task)), how)?)
}

fn socketpair(task: &Arc<Task>, family: i32, how: i32, protocol: i32, to: UserPtr<[i32; 2]>) -> SysResult {
    if how & !(0xf | SOCK_NONBLOCK | SOCK_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    if family == netlink::AF_NETLINK {
        netlink::open(task, how & 0xf, protocol, false)?;
        return Err(Errno::EOPNOTSUPP);
    }
    if family == packet::AF_PACKET {
        packet::open(task, how & 0xf, protocol, false)?;
        return Err(Errno::EOPNOTSUPP);
    }
    if let Some(domain) = inet::domain(family) {
        inet::make(task, domain, how & 0xf, protocol)?;
        return Err(Errno::EOPNOTSUPP);
    }
    let (x, y) = Socket::pair(kind(family, how, protocol)?, Ucred::of(task), &task.creds().groups, Some(task.group()));
    let files = [x, y].map(|socket| socket.file(&task.creds(), how & SOCK_NONBLOCK != 0));
    task.add_pair(files, how & SOCK_CLOEXEC != 0, to)?;
    done()
}

/// An open Unix socket.
type Unix = (Arc<File>, Arc<Socket>);

/// The socket of a descriptor.
pub(super) enum Found {
    Unix(Unix),
    Netlink(netlink::Open),
    Inet(inet::Open),
    Packet(packet::Open),
}

pub(super) fn find(task: &Arc<Task>, fd: Fd) -> Result<Found, Errno> {
    let file = task.file(fd)?;
    if let Some(socket) = file.ops_as::<SocketFile>().map(|f| f.0.clone()) {
        return Ok(Found::Unix((file, socket)));
    }
    if let Some(open) = inet::Open::of(&file) {
        return Ok(Found::Inet(open));
    }
    if let Some(open) = packet::Open::of(&file) {
        return Ok(Found::Packet(open));
    }
    netlink::Open::of(file).map(Found::Netlink).ok_or(Errno::ENOTSOCK)
}

/// Copies an address in: `None` for a family alone (AF_UNSPEC or an unnamed one).
fn address(task: &Arc<Task>, at: u64, len: u32) -> Result<(u16, Name), Errno> {
    let len = len as usize;
    if !(2..=110).contains(&len) {
        return Err(Errno::EINVAL);
    }
    let mut raw = vec![0; len];
    task.read_exact(at, &mut raw)?;
    let (family, name) = raw.split_at(2);
    let family = u16::from_le_bytes([family.first().copied().unwrap_or(0), family.get(1).copied().unwrap_or(0)]);
    let name = match name.first() {
        // A path ends at its NUL; an abstract name has the length given.
        Some(b) if *b != 0 => name.split(|b| *b == 0).next().unwrap_or_default(),
        _ => name,
    };
    Ok((family, name.to_vec()))
}

fn put_address(task: &Arc<Task>, name: &[u8], to: u64, len: UserPtr<i32>) -> Result<(), Errno> {
    if to == 0 {
        return Ok(());
    }
    put_raw_address(task, &encode(name), to, len)
}

pub(super) fn put_raw_address(task: &Arc<Task>, raw: &[u8], to: u64, len: UserPtr<i32>) -> Result<(), Errno> {
    let room = usize::try_from(len.read(task)?).map_err(|_| Errno::EINVAL)?;
    task.write_exact(to, raw.get(..room.min(raw.len())).unwrap_or_default())?;
    len.write(task, &i32::try_from(raw.len()).unwrap_or(0))
}

fn encode(name: &[u8]) -> Vec<u8> {
    let mut raw = 1u16.to_le_bytes().to_vec();
    raw.extend_from_slice(name);
    if name.first().is_some_and(|b| *b != 0) {
        raw.push(0);
    }
    raw
}

/// The socket that an address names.
fn named(task: &Arc<Task>, kind: Kind, name: &Name) -> Result<Arc<Socket>, Errno> {
    if name.first() == Some(&0) {
        return Socket::find_abstract(kind, name);
    }
    let caller = Caller::of(task);
    let at = walk(&caller, caller.fs.cwd(), name, true)?;
    let inode = at.dentry.inode();
    access::check(&caller.creds, &**inode, access::WRITE)?;
    Socket::find_inode(inode)
}

fn bind(task: &Arc<Task>, fd: Fd, at: u64, len: u32) -> SysResult {
    let (_, socket) = match find(task, fd)? {
        Found::Unix(found) => found,
        Found::Netlink(open) => return netlink::bind(task, &open, at, len),
        Found::Packet(open) => return packet::bind(task, &open, at, len),
        Found::Inet(open) => return inet::bind(task, &open, at, len),
    };
    let (family, name) = address(task, at, len)?;
    if i32::from(family) != AF_UNIX {
        return Err(Errno::EINVAL);
    }
    if name.first().is_none_or(|b| *b == 0) {
        // A socket that has a name needs no automatic one.
        if !name.is_empty() || !socket.is_bound() {
            socket.bind_abstract(&name)?;
        }
        return done();
    }
    let caller = Caller::of(task);
    let bits = mode::SOCKET | 0o777;
    let made = ops::mknod(&caller, caller.fs.cwd(), &name, bits, 0)
        .map_err(|e| if e == Errno::EEXIST { Errno::EADDRINUSE } else { e })?;
    // As on Linux the name is made before it is seen that the socket has one already.
    if socket.is_bound() {
        ops::unlink(&caller, caller.fs.cwd(), &name, false)?;
        return Err(Errno::EINVAL);
    }
    socket.bind_inode(&name, made.dentry.inode().clone())?;
    done()
}

fn listen(task: &Arc<Task>, fd: Fd, backlog: i32) -> SysResult {
    let (_, socket) = match find(task, fd)? {
        Found::Unix(found) => found,
        Found::Netlink(_) | Found::Packet(_) => return Err(Errno::EOPNOTSUPP),
        Found::Inet(open) => return inet::listen(task, &open, backlog),
    };
    socket.set_owner(&task.creds().groups, Some(task.group()));
    socket.listen(backlog, Ucred::of(task))?;
    done()
}

fn accept4(task: &Arc<Task>, fd: Fd, to: u64, len: UserPtr<i32>, options: i32) -> SysResult {
    if options & !(SOCK_NONBLOCK | SOCK_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    let (file, socket) = match find(task, fd)? {
        Found::Unix(found) => found,
        Found::Netlink(_) | Found::Packet(_) => return Err(Errno::EOPNOTSUPP),
        Found::Inet(open) => return inet::accept(task, open, to, len, options),
    };
    if socket.kind == Kind::Datagram {
        return Err(Errno::EOPNOTSUPP);
    }
    let nonblocking = file.nonblocking();
    let queue = socket.queue().clone();
    let deadline = deadline(&socket, false);
    let step = move |task: &Arc<Task>| {
        // It stays open as long as somebody waits.
        let _open = &file;
        let served = socket.accept()?;
        let name = served.peer_name().unwrap_or_default();
        // Closed again if it cannot be given out.
        let accepted = served.file(&task.creds(), options & SOCK_NONBLOCK != 0);
        put_address(task, &name, to, len)?;
        task.add_file(accepted, options & SOCK_CLOEXEC != 0).map(i64::from)
    };
    wait(task, nonblocking, &queue, PollMask::READ, deadline, step)
}

fn accept(task: &Arc<Task>, fd: Fd, to: u64, len: UserPtr<i32>) -> SysResult {
    accept4(task, fd, to, len, 0)
}

fn deadline(socket: &Socket, send: bool) -> Option<Deadline> {
    let [receive, sending] = socket.timeouts();
    let ns = if send { sending } else { receive };
    (ns > 0).then(|| Deadline::after(ns))
}

fn wait(
    task: &Arc<Task>,
    nonblocking: bool,
    queue: &crate::wait::WaitQueue,
    mask: PollMask,
    deadline: Option<Deadline>,
    step: impl FnMut(&Arc<Task>) -> Result<i64, Errno> + Send + 'static,
) -> SysResult {
    wait_for_rest(task, nonblocking, queue, mask, deadline, &Progress::default(), step)
}

/// As [`wait`], for what may be done in part: that counts if it cannot go on.
pub(super) fn wait_for_rest(
    task: &Arc<Task>,
    nonblocking: bool,
    queue: &crate::wait::WaitQueue,
    mask: PollMask,
    deadline: Option<Deadline>,
    progress: &Progress,
    mut step: impl FnMut(&Arc<Task>) -> Result<i64, Errno> + Send + 'static,
) -> SysResult {
    if !nonblocking {
        return until_done(task, queue, mask, deadline, progress, step);
    }
    match (step(task), progress.load(Ordering::Relaxed)) {
        (Err(Errno::EAGAIN), done) if done > 0 => Ok(Outcome::Value(done as i64)),
        (r, _) => r.map(Outcome::Value),
    }
}

fn connect(task: &Arc<Task>, fd: Fd, at: u64, len: u32) -> SysResult {
    let (file, socket) = match find(task, fd)? {
        Found::Unix(found) => found,
        Found::Netlink(open) => return netlink::connect(task, &open, at, len),
        Found::Packet(_) => return Err(Errno::EOPNOTSUPP),
        Found::Inet(open) => return inet::connect(task, open, at, len),
    };
    let (family, name) = address(task, at, len)?;
    if family == 0 && socket.kind == Kind::Datagram {
        socket.disconnect();
        return done();
    }
    if i32::from(family) != AF_UNIX || name.is_empty() {
        return Err(Errno::EINVAL);
    }
    if socket.tells_senders() && !socket.is_bound() {
        socket.bind_abstract(b"")?;
    }
    let to = named(task, socket.kind, &name)?;
    let queue = to.queue().clone();
    let deadline = deadline(&socket, true);
    let me = Ucred::of(task);
    socket.set_owner(&task.creds().groups, Some(task.group()));
    wait(task, file.nonblocking(), &queue, PollMask::WRITE, deadline, move |_| socket.connect(&to, me).map(|()| 0))
}

fn getsockname(task: &Arc<Task>, fd: Fd, to: u64, len: UserPtr<i32>) -> SysResult {
    let (_, socket) = match find(task, fd)? {
        Found::Unix(found) => found,
        Found::Packet(open) => {
            put_raw_address(task, &packet::name(&open.socket), to, len)?;
            return done();
        }
        Found::Inet(open) => return inet::getsockname(task, &open, to, len),
        Found::Netlink(open) => {
            put_raw_address(task, &netlink::encode(open.socket.name()), to, len)?;
            return done();
        }
    };
    let name = socket.name();
    put_address(task, &name, to, len)?;
    done()
}

fn getpeername(task: &Arc<Task>, fd: Fd, to: u64, len: UserPtr<i32>) -> SysResult {
    let (_, socket) = match find(task, fd)? {
        Found::Unix(found) => found,
        Found::Packet(_) => return Err(Errno::EOPNOTSUPP),
        Found::Inet(open) => return inet::getpeername(task, &open, to, len),
        Found::Netlink(open) => {
            put_raw_address(task, &netlink::encode(open.socket.peer()), to, len)?;
            return done();
        }
    };
    let name = socket.peer_name()?;
    put_address(task, &name, to, len)?;
    done()
}

/// Sends; a stream goes on until all is sent.
fn send(
    task: &Arc<Task>,
    (file, socket): (Arc<File>, Arc<Socket>),
    vecs: Vec<IoVec>,
    to: Option<Name>,
    ancillary: Ancillary,
    how: i32,
) -> SysResult {
    let urgent = how & MSG_OOB != 0;
    let total = crate::uio::total(&vecs);
    if urgent && (socket.kind != Kind::Stream || total == 0) {
        return Err(Errno::EOPNOTSUPP);
    }
    let target = match to {
        Some(_) if socket.kind == Kind::Stream && socket.peer().is_ok() => return Err(Errno::EISCONN),
        Some(_) if socket.kind == Kind::Stream => return Err(Errno::EOPNOTSUPP),
        Some(name) if socket.kind == Kind::Datagram => {
            let t = named(task, socket.kind, &name)?;
            if t.kind != socket.kind {
                return Err(Errno::EPROTOTYPE);
            }
            Ok(t)
        }
        _ => socket.target(),
    };
    let stream = socket.kind == Kind::Stream;
    let broken = move |task: &Arc<Task>, e: Errno| {
        if e == Errno::EPIPE && stream && how & MSG_NOSIGNAL == 0 {
            task.post_signal(libc::SIGPIPE);
        }
        e
    };
    let target = target.map_err(|e| broken(task, e))?;
    let nonblocking = file.nonblocking() || how & MSG_DONTWAIT != 0;
    let queue = target.queue().clone();
    let deadline = deadline(&socket, true);
    let mut ancillary = ancillary;
    ancillary.sender = Ucred::of(task);
    ancillary.process.get_or_insert_with(|| task.group().clone());
    let progress = Progress::default();
    let done = progress.clone();
    let step = move |task: &Arc<Task>| -> Result<i64, Errno> {
        let _open = &file;
        loop {
            let sent = done.load(Ordering::Relaxed);
            let rest = beyond(&vecs, sent);
            let mut from = Source::user(task, rest);
            // The last byte is the urgent one, in a message of its own.
            let last = urgent && sent + 1 == total;
            if urgent && !last {
                from.limit(total - sent - 1);
            }
            match socket.send(&target, &mut from, &ancillary, last) {
                Ok(n) => {
                    if last && let Some(file) = target.open_file() {
                        send::to_owner(task.kernel(), &file, SigInfo::new(libc::SIGURG, code::KERNEL));
                    }
                    // Descriptors go once; who sends stands with all of it.
                    ancillary.files.clear();
                    ancillary.flight = None;
                    done.store(sent + n, Ordering::Relaxed);
                    if sent + n >= total || n == 0 || !stream {
                        return Ok((sent + n) as i64);
                    }
                }
                Err(Errno::EAGAIN) => return Err(Errno::EAGAIN),
                Err(_) if sent > 0 => return Ok(sent as i64),
                Err(e) => return Err(broken(task, e)),
            }
        }
    };
    wait_for_rest(task, nonblocking, &queue, PollMask::WRITE, deadline, &progress, step)
}

/// What is left of vectors after so many bytes.
pub(super) fn beyond(vecs: &[IoVec], mut done: usize) -> Vec<IoVec> {
    let rest = |v: &IoVec| {
        let cut = done.min(v.len);
        done -= cut;
        (cut < v.len).then_some(IoVec { base: v.base.wrapping_add(cut as u64), len: v.len - cut })
    };
    vecs.iter().filter_map(rest).collect()
}

fn sendto(task: &Arc<Task>, fd: Fd, base: u64, len: usize, how: i32, at: u64, at_len: u32) -> SysResult {
    let found = match find(task, fd)? {
        Found::Unix(found) => found,
        Found::Packet(open) => {
            let to = if at == 0 { None } else { Some(packet::destination(task, at, at_len)?) };
            return packet::send(task, open, vec![IoVec { base, len }], to);
        }
        Found::Inet(open) => {
            let to = inet::send_address(task, at, at_len)?;
            return inet::send(task, open, vec![IoVec { base, len }], to, &[], how);
        }
        Found::Netlink(open) => {
            let to = if at == 0 { None } else { Some(netlink::address(task, at, at_len)?.ok_or(Errno::EINVAL)?) };
            return netlink::send(task, open, vec![IoVec { base, len }], to, how);
        }
    };
    let to = if at == 0 { None } else { Some(address(task, at, at_len)?.1) };
    send(task, found, vec![IoVec { base, len }], to, Ancillary::default(), how)
}

/// `struct msghdr`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
pub(super) struct MsgHdr {
    pub(super) name: u64,
    pub(super) name_len: u32,
    pad: u32,
    iov: u64,
    iov_len: u64,
    pub(super) control: u64,
    pub(super) control_len: u64,
    pub(super) flags: i32,
    pad2: i32,
}

/// Control data that goes with a message.
fn parse_control(task: &Arc<Task>, at: u64, len: u64) -> Result<Ancillary, Errno> {
    let mut out = Ancillary::default();
    if at == 0 || len == 0 {
        return Ok(out);
    }
    let len = usize::try_from(len).ok().filter(|l| *l <= CONTROL_MAX).ok_or(Errno::ENOBUFS)?;
    let raw = UserPtr::<u8>::new(at).read_array(task, len, CONTROL_MAX)?;
    let mut rest = raw.as_slice();
    while let Some((head, _)) = rest.split_at_checked(16) {
        let word = |i: usize| head.get(i..i + 4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_le_bytes);
        let size = usize::try_from(word(0)).map_err(|_| Errno::EINVAL)?;
        if size < 16 || size > rest.len() {
            return Err(Errno::EINVAL);
        }
        let data = rest.get(16..size).ok_or(Errno::EINVAL)?;
        let ints = || data.as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b));
        match word(12) {
            // What is for others is passed by.
            _ if word(8) != SOL_SOCKET => {}
            SCM_RIGHTS => {
                for fd in ints() {
                    if out.files.len() >= SCM_MAX_FD {
                        return Err(Errno::EINVAL);
                    }
                    out.files.push(task.files().get_any(fd)?);
                }
            }
            SCM_CREDENTIALS => {
                let [pid, uid, gid] = ints().collect::<Vec<_>>().try_into().map_err(|_| Errno::EINVAL)?;
                let c = task.creds();
                let (uid, gid) = (uid.cast_unsigned(), gid.cast_unsigned());
                let pid = task.id_of(pid);
                let may_pid = pid == task.process() || c.capable_in(&task.group().pid_ns.base.owner, cap::SYS_ADMIN);
                let uid = c.user_ns.kernel_uid(uid).ok_or(Errno::EINVAL)?;
                let gid = c.user_ns.kernel_gid(gid).ok_or(Errno::EINVAL)?;
                let may_uid = [c.ruid, c.euid, c.suid].contains(&uid) || c.has(cap::SETUID);
                let may_gid = [c.rgid, c.egid, c.sgid].contains(&gid) || c.has(cap::SETGID);
                if !(may_pid && may_uid && may_gid) {
                    return Err(Errno::EPERM);
                }
                let process = task.kernel().tree.lock().group(pid);
                if pid != task.process() && process.is_none() {
                    return Err(Errno::ESRCH);
                }
                out.process = process;
                out.creds = Some(Ucred { pid, uid, gid });
            }
            _ => return Err(Errno::EINVAL),
        }
        rest = rest.get(size.next_multiple_of(8)..).unwrap_or_default();
    }
    if !out.files.is_empty() {
        let c = task.creds();
        let free = c.capable(cap::SYS_RESOURCE) || c.capable(cap::SYS_ADMIN);
        let limit = if free { u64::MAX } else { task.group().limit(rlimit::NOFILE).soft };
        out.flight = Some(Flight::begin(c.ruid, &out.files, limit)?);
    }
    Ok(out)
}

pub(super) fn message_vector(task: &Arc<Task>, m: &MsgHdr) -> Result<Vec<IoVec>, Errno> {
    let count = usize::try_from(m.iov_len).ok().filter(|n| *n <= 1024).ok_or(Errno::EMSGSIZE)?;
    vector(task, UserPtr::<RawVec>::new(m.iov), count)
}

fn sendmsg(task: &Arc<Task>, fd: Fd, message: UserPtr<MsgHdr>, how: i32) -> SysResult {
    let found = match find(task, fd)? {
        Found::Unix(found) => found,
        Found::Packet(open) => {
            let m = message.read(task)?;
            let vecs = message_vector(task, &m)?;
            let named = m.name != 0 && m.name_len != 0;
            let to = if named { Some(packet::destination(task, m.name, m.name_len)?) } else { None };
            return packet::send(task, open, vecs, to);
        }
        Found::Inet(open) => {
            let m = message.read(task)?;
            let vecs = message_vector(task, &m)?;
            let control = inet::read_control(task, &m)?;
            let to = if m.name_len == 0 { None } else { inet::send_address(task, m.name, m.name_len)? };
            return inet::send(task, open, vecs, to, &control, how);
        }
        Found::Netlink(open) => {
            let m = message.read(task)?;
            let vecs = message_vector(task, &m)?;
            parse_control(task, m.control, m.control_len)?;
            let named = m.name != 0 && m.name_len != 0;
            let to = if named { Some(netlink::address(task, m.name, m.name_len)?.ok_or(Errno::EINVAL)?) } else { None };
            return netlink::send(task, open, vecs, to, how);
        }
    };
    let m = message.read(task)?;
    let vecs = message_vector(task, &m)?;
    let ancillary = parse_control(task, m.control, m.control_len)?;
    let to = if m.name == 0 || m.name_len == 0 { None } else { Some(address(task, m.name, m.name_len)?.1) };
    send(task, found, vecs, to, ancillary, how)
}

fn sendmmsg(task: &Arc<Task>, fd: Fd, messages: UserPtr<MsgHdr>, count: u32, how: i32) -> SysResult {
    let mut sent = 0;
    for i in 0..u64::from(count.min(1024)) {
        let at = messages.offset(i * 64)?;
        // Only the first may wait: what was sent by then is not taken back.
        let how = if i == 0 { how } else { how | MSG_DONTWAIT };
        match sendmsg(task, fd, at, how) {
            Ok(Outcome::Value(n)) => {
                at.cast::<u32>().offset(56)?.write(task, &u32::try_from(n).unwrap_or(0))?;
                sent += 1;
            }
            Ok(other) => return Ok(other),
            Err(e) if sent == 0 => return Err(e),
            Err(_) => break,
        }
    }
    value(sent)
}

/// Where what came along goes.
pub(super) struct Control {
    out: Vec<u8>,
    room: usize,
    truncated: bool,
}

impl Control {
    pub(super) fn new(room: usize) -> Self {
        Self { out: Vec::new(), room, truncated: false }
    }

    /// What there is, and whether something did not fit.
    pub(super) fn into_parts(self) -> (Vec<u8>, bool) {
        (self.out, self.truncated)
    }

    fn push(&mut self, kind: i32, data: &[u8]) {
        self.push_of(SOL_SOCKET, kind, data);
    }

    pub(super) fn push_of(&mut self, level: i32, kind: i32, data: &[u8]) {
        let left = self.room.saturating_sub(self.out.len());
        let len = (16 + data.len()).min(left);
        self.truncated |= len < 16 + data.len();
        let Some(data) = len.checked_sub(16).and_then(|n| data.get(..n)) else { return };
        self.out.extend_from_slice(&(len as u64).to_le_bytes());
        self.out.extend_from_slice(&level.to_le_bytes());
        self.out.extend_from_slice(&kind.to_le_bytes());
        self.out.extend_from_slice(data);
        self.out.resize(self.out.len().next_multiple_of(8).min(self.room), 0);
    }
}

/// When it was sent: `SCM_TIMESTAMP` and its kin. Streams tell no times.
fn put_times(socket: &Socket, got: &Received, c: &mut Control) {
    if socket.kind != Kind::Stream {
        put_time(socket.options(|o| o.times), got.time, c);
    }
}

/// The same for any socket. `time`: when it was sent, if it was noted.
pub(super) fn put_time(times: Times, time: Option<i64>, c: &mut Control) {
    // Of `SO_TIMESTAMPING`: software's times are told, those of what comes in are taken, and only those.
    const SOFTWARE: u32 = 0x10;
    const RX_SOFTWARE: u32 = 8;
    const RX_FILTER: u32 = 0x2_0000;
    if !times.on {
        return;
    }
    let at = time.unwrap_or_else(|| now(Clock::Realtime));
    let moment = Timespec::from_ns(at);
    match (times.ns, times.new) {
        (false, new) => c.push(if new { 63 } else { 29 }, Timeval::from_ns(at).as_bytes()),
        (true, new) => c.push(if new { 64 } else { 35 }, moment.as_bytes()),
    }
    if times.flags & SOFTWARE != 0 && (times.flags & RX_SOFTWARE != 0 || times.flags & RX_FILTER == 0) {
        let zero = Timespec::default();
        c.push(if times.new { 65 } else { 37 }, [moment, zero, zero].as_bytes());
    }
}

fn put_control(task: &Arc<Task>, socket: &Socket, got: &Received, room: usize, how: i32) -> Control {
    let mut c = Control::new(room);
    if got.urgent {
        return c;
    }
    put_times(socket, got, &mut c);
    let (creds, pidfds, waiting) = socket.options(|o| (o.switch(PASSCRED), o.switch(PASSPIDFD), o.switch(INQ)));
    if creds {
        let u = got.ancillary.creds.unwrap_or(Ucred { pid: 0, uid: 65_534, gid: 65_534 });
        c.push(SCM_CREDENTIALS, &u.shown_to(task));
    }
    if !got.ancillary.files.is_empty() {
        let fit = room.saturating_sub(c.out.len() + 16) / 4;
        let mut raw = Vec::new();
        for f in got.ancillary.files.iter().take(fit) {
            match task.add_file(f.clone(), how & MSG_CMSG_CLOEXEC != 0) {
                Ok(n) => raw.extend_from_slice(&n.to_le_bytes()),
                Err(_) => break,
            }
        }
        c.truncated |= raw.len() / 4 < got.ancillary.files.len();
        if !raw.is_empty() {
            c.push(SCM_RIGHTS, &raw);
        }
    }
    if pidfds {
        put_pidfd(task, got, &mut c);
    }
    if waiting {
        c.push(INQ, &i32::try_from(socket.readable()).unwrap_or(i32::MAX).to_le_bytes());
    }
    c
}

/// A descriptor of the sender's process (`SCM_PIDFD`), or why there is none.
fn put_pidfd(task: &Arc<Task>, got: &Received, c: &mut Control) {
    const LEN: usize = 16 + 4;
    let Some(group) = &got.ancillary.process else { return };
    if c.room.saturating_sub(c.out.len()) < LEN {
        c.truncated = true;
        return;
    }
    let opened = task.add_file(pidfd(task.kernel(), group, false), true);
    c.push(SCM_PIDFD, &opened.unwrap_or_else(|e| -e.code()).to_le_bytes());
}

/// Only streams have urgent data (`MSG_OOB`).
fn no_out_of_band(socket: &Socket, how: i32) -> Result<(), Errno> {
    if how & MSG_OOB != 0 && socket.kind != Kind::Stream { Err(Errno::EOPNOTSUPP) } else { Ok(()) }
}

/// Receives. A stream goes on until there is as much as it was told to wait for (`MSG_WAITALL`, `SO_RCVLOWAT`).
fn receive(
    task: &Arc<Task>,
    (file, socket): (Arc<File>, Arc<Socket>),
    vecs: Vec<IoVec>,
    how: i32,
    mut finish: impl FnMut(&Arc<Task>, &Socket, &Received) -> Result<(), Errno> + Send + 'static,
) -> SysResult {
    no_out_of_band(&socket, how)?;
    let nonblocking = file.nonblocking() || how & MSG_DONTWAIT != 0;
    let queue = socket.queue().clone();
    let deadline = deadline(&socket, false);
    let total = crate::uio::total(&vecs);
    let peek = how & MSG_PEEK != 0;
    let enough = match socket.kind {
        Kind::Stream if peek => 1,
        Kind::Stream if how & MSG_WAITALL != 0 => total,
        Kind::Stream => usize::try_from(socket.options(|o| o.low_water)).unwrap_or(1).min(total),
        _ => 0,
    };
    let progress = Progress::default();
    let done = progress.clone();
    let step = move |task: &Arc<Task>| -> Result<i64, Errno> {
        // It stays open as long as somebody waits.
        let _open = &file;
        loop {
            let have = done.load(Ordering::Relaxed);
            let mut to = Sink::user(task, beyond(&vecs, have));
            if how & MSG_OOB != 0 {
                // Nobody waits for it.
                let got = socket.receive_urgent(&mut to, peek)?;
                finish(task, &socket, &got)?;
                return Ok(1);
            }
            let got = socket.receive(&mut to, peek, have > 0)?;
            let got = got.unless_ended(&socket, nonblocking)?;
            if !got.ended || have == 0 {
                finish(task, &socket, &got)?;
            }
            let have = have + got.count;
            done.store(have, Ordering::Relaxed);
            if got.count == 0 || got.stopped || have >= enough || !got.ancillary.files.is_empty() {
                let whole = how & MSG_TRUNC != 0 && socket.kind != Kind::Stream;
                return Ok(if whole { got.length } else { have } as i64);
            }
        }
    };
    wait_for_rest(task, nonblocking, &queue, PollMask::READ, deadline, &progress, step)
}

fn recvfrom(task: &Arc<Task>, fd: Fd, base: u64, len: usize, how: i32, to: u64, to_len: UserPtr<i32>) -> SysResult {
    let found = match find(task, fd)? {
        Found::Unix(found) => found,
        Found::Packet(open) => {
            return packet::receive(task, open, vec![IoVec { base, len }], how, move |task, _, got| {
                if to == 0 { Ok(()) } else { put_raw_address(task, &packet::from(got), to, to_len) }
            });
        }
        Found::Inet(open) => {
            return inet::receive(task, open, vec![IoVec { base, len }], how, move |task, socket, came| {
                inet::tell_sender(task, socket, came, to, to_len)
            });
        }
        Found::Netlink(open) => {
            return netlink::receive(task, open, vec![IoVec { base, len }], how, move |task, _, got, _| {
                if to == 0 { Ok(()) } else { put_raw_address(task, &netlink::encode((got.from, 0)), to, to_len) }
            });
        }
    };
    receive(task, found, vec![IoVec { base, len }], how, move |task, socket, got| {
        if socket.kind == Kind::Datagram && !got.from.is_empty() {
            return put_address(task, &got.from, to, to_len);
        }
        if to != 0 { to_len.write(task, &0) } else { Ok(()) }
    })
}

fn recvmsg(task: &Arc<Task>, fd: Fd, message: UserPtr<MsgHdr>, how: i32) -> SysResult {
    let found = match find(task, fd)? {
        Found::Unix(found) => found,
        Found::Packet(open) => {
            let m = message.read(task)?;
            let vecs = message_vector(task, &m)?;
            return packet::receive(task, open, vecs, how, move |task, socket, got| {
                packet::tell(task, socket, got, message, m, how)
            });
        }
        Found::Inet(open) => {
            let m = message.read(task)?;
            let vecs = message_vector(task, &m)?;
            return inet::receive(task, open, vecs, how, move |task, socket, came| {
                inet::tell(task, socket, came, message, m, how)
            });
        }
        Found::Netlink(open) => {
            let m = message.read(task)?;
            let vecs = message_vector(task, &m)?;
            return netlink::receive(task, open, vecs, how, move |task, socket, got, flags| {
                tell_netlink(task, socket, got, message, m, flags | how & MSG_CMSG_CLOEXEC)
            });
        }
    };
    let m = message.read(task)?;
    let vecs = message_vector(task, &m)?;
    receive(task, found, vecs, how, move |task, socket, got| tell(task, socket, got, message, m, how))
}

/// Writes down what came with a message and who sent it.
fn tell(
    task: &Arc<Task>,
    socket: &Socket,
    got: &Received,
    message: UserPtr<MsgHdr>,
    mut m: MsgHdr,
    how: i32,
) -> Result<(), Errno> {
    let room = if m.control == 0 { 0 } else { usize::try_from(m.control_len).unwrap_or(0).min(CONTROL_MAX) };
    let control = put_control(task, socket, got, room, how);
    task.write_exact(m.control, &control.out)?;
    m.control_len = control.out.len() as u64;
    m.flags = how & MSG_CMSG_CLOEXEC;
    if control.truncated {
        m.flags |= MSG_CTRUNC;
    }
    if got.urgent {
        m.flags |= MSG_OOB;
    }
    if got.length > got.count {
        m.flags |= MSG_TRUNC;
    }
    if m.name != 0 {
        let from = if socket.kind == Kind::Datagram && !got.from.is_empty() { encode(&got.from) } else { Vec::new() };
        let n = from.len().min(m.name_len as usize);
        task.write_exact(m.name, from.get(..n).unwrap_or_default())?;
        m.name_len = u32::try_from(from.len()).unwrap_or(0);
    }
    message.write(task, &m)
}

/// As [`tell`], for a netlink socket.
fn tell_netlink(
    task: &Arc<Task>,
    socket: &Netlink,
    got: &netlink::Received,
    message: UserPtr<MsgHdr>,
    mut m: MsgHdr,
    flags: i32,
) -> Result<(), Errno> {
    let room = if m.control == 0 { 0 } else { usize::try_from(m.control_len).unwrap_or(0).min(CONTROL_MAX) };
    let mut c = Control::new(room);
    if socket.options(|o| o.passcred) {
        // The kernel's own, which is all that comes with credentials.
        c.push(SCM_CREDENTIALS, &Ucred::default().shown_to(task));
    }
    task.write_exact(m.control, &c.out)?;
    m.control_len = c.out.len() as u64;
    m.flags = flags | if c.truncated { MSG_CTRUNC } else { 0 };
    if m.name != 0 {
        let from = netlink::encode((got.from, 0));
        let n = from.len().min(m.name_len as usize);
        task.write_exact(m.name, from.get(..n).unwrap_or_default())?;
        m.name_len = u32::try_from(from.len()).unwrap_or(0);
    }
    message.write(task, &m)
}

/// Several messages. The time is looked at after each, as on Linux: it does not end the wait for one.
fn recvmmsg(
    task: &Arc<Task>,
    fd: Fd,
    messages: UserPtr<MsgHdr>,
    count: u32,
    how: i32,
    timeout: UserPtr<Timespec>,
) -> SysResult {
    let until = match timeout.is_null() {
        true => None,
        false => Some(Deadline::after(timeout.read(task)?.to_ns()?)),
    };
    let (file, socket) = match find(task, fd)? {
        Found::Unix(found) => found,
        Found::Inet(open) => {
            let until = until.map(|until| (until, timeout));
            return inet::receive_many(task, open, messages, count.min(1024) as usize, how, until);
        }
        Found::Packet(open) => return packet::receive_many(task, open, messages, count.min(1024) as usize, how, until),
        Found::Netlink(open) => return one_netlink(task, open, messages, count, how),
    };
    no_out_of_band(&socket, how)?;
    let one = how & MSG_WAITFORONE != 0;
    let how = how & !MSG_WAITFORONE;
    let nonblocking = file.nonblocking() || how & MSG_DONTWAIT != 0;
    let count = count.min(1024) as usize;
    let (queue, deadline) = (socket.queue().clone(), deadline(&socket, false));
    let progress = Progress::default();
    let done = progress.clone();
    let step = move |task: &Arc<Task>| -> Result<i64, Errno> {
        let _open = &file;
        loop {
            let at = done.load(Ordering::Relaxed);
            if at >= count || (at > 0 && until.as_ref().is_some_and(|u| u.remaining() == 0)) {
                return Ok(at as i64);
            }
            let got = one_of_many(task, &socket, messages.offset(at as u64 * 64)?, nonblocking, how);
            match got {
                Ok(()) => done.store(at + 1, Ordering::Relaxed),
                Err(Errno::EAGAIN) if at > 0 && one => return Ok(at as i64),
                Err(Errno::EAGAIN) => return Err(Errno::EAGAIN),
                Err(_) if at > 0 => return Ok(at as i64),
                Err(e) => return Err(e),
            }
        }
    };
    wait_for_rest(task, nonblocking, &queue, PollMask::READ, deadline, &progress, step)
}

/// `recvmmsg` of a netlink socket: one message, which is what it may come to at any time.
fn one_netlink(task: &Arc<Task>, open: netlink::Open, messages: UserPtr<MsgHdr>, count: u32, how: i32) -> SysResult {
    if count == 0 {
        return value(0);
    }
    let m = messages.read(task)?;
    let vecs = message_vector(task, &m)?;
    let how = how & !MSG_WAITFORONE;
    let counted = move |task: &Arc<Task>, socket: &Netlink, got: &netlink::Received, flags: i32| {
        tell_netlink(task, socket, got, messages, m, flags)?;
        let len = if how & MSG_TRUNC != 0 { got.length } else { got.count };
        messages.cast::<u32>().offset(56)?.write(task, &u32::try_from(len).unwrap_or(u32::MAX))
    };
    match netlink::receive(task, open, vecs, how, counted)? {
        Outcome::Value(_) => value(1),
        other => Ok(other),
    }
}

/// Receives one message of `recvmmsg` and writes its length down.
fn one_of_many(
    task: &Arc<Task>,
    socket: &Arc<Socket>,
    at: UserPtr<MsgHdr>,
    nonblocking: bool,
    how: i32,
) -> Result<(), Errno> {
    let m = at.read(task)?;
    let vecs = message_vector(task, &m)?;
    let (mut to, peek) = (Sink::user(task, vecs), how & MSG_PEEK != 0);
    let got = if how & MSG_OOB != 0 {
        socket.receive_urgent(&mut to, peek)?
    } else {
        socket.receive(&mut to, peek, false)?.unless_ended(socket, nonblocking)?
    };
    tell(task, socket, &got, at, m, how)?;
    let whole = how & MSG_TRUNC != 0 && socket.kind != Kind::Stream;
    let len = if whole { got.length } else { got.count };
    at.cast::<u32>().offset(56)?.write(task, &u32::try_from(len).unwrap_or(u32::MAX))
}

fn shutdown(task: &Arc<Task>, fd: Fd, how: i32) -> SysResult {
    let (_, socket) = match find(task, fd)? {
        Found::Unix(found) => found,
        Found::Packet(_) => return Err(Errno::EOPNOTSUPP),
        Found::Inet(open) => return inet::shutdown(&open, how),
        Found::Netlink(_) => return Err(Errno::EOPNOTSUPP),
    };
    match how {
        0 => socket.shutdown(true, false)?,
        1 => socket.shutdown(false, true)?,
        2 => socket.shutdown(true, true)?,
        _ => return Err(Errno::EINVAL),
    }
    done()
}
