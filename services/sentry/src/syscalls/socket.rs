//! Sockets: `socket`, `bind`, `connect`, `send*`, `recv*` and their kin. Unix sockets only; other families answer
//! EAFNOSUPPORT.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::entry;
use crate::errno::Errno;
use crate::ipc::unix::{Ancillary, Kind, Name, Received, Socket, SocketFile, Ucred};
use crate::syscalls::blocking::until_ready;
use crate::syscalls::read_write::{RawVec, vector};
use crate::syscalls::{Entry, Fd, Outcome, SysResult, UserPtr, done, value};
use crate::task::Task;
use crate::task::creds::cap;
use crate::time::{Deadline, Timeval};
use crate::uio::{IoVec, Sink, Source};
use crate::vfs::control::ProcessControl;
use crate::vfs::file::{File, flags};
use crate::vfs::inode::mode;
use crate::vfs::walk::walk;
use crate::vfs::{Caller, access, ops};
use crate::wait::PollMask;

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(41, "socket", Partial, "AF_UNIX only; other families answer EAFNOSUPPORT", socket(i32, i32, i32)),
    entry!(53, "socketpair", Full, "", socketpair(i32, i32, i32, UserPtr<[i32; 2]>)),
    entry!(49, "bind", Full, "", bind(Fd, u64, u32)),
    entry!(50, "listen", Full, "", listen(Fd, i32)),
    entry!(43, "accept", Full, "", accept(Fd, u64, UserPtr<i32>)),
    entry!(288, "accept4", Full, "", accept4(Fd, u64, UserPtr<i32>, i32)),
    entry!(42, "connect", Full, "", connect(Fd, u64, u32)),
    entry!(51, "getsockname", Full, "", getsockname(Fd, u64, UserPtr<i32>)),
    entry!(52, "getpeername", Full, "", getpeername(Fd, u64, UserPtr<i32>)),
    entry!(44, "sendto", Partial, "no MSG_OOB", sendto(Fd, u64, usize, i32, u64, u32)),
    entry!(45, "recvfrom", Partial, "no MSG_OOB", recvfrom(Fd, u64, usize, i32, u64, UserPtr<i32>)),
    entry!(
        46,
        "sendmsg",
        Partial,
        "cycles of descriptors in flight are not collected",
        sendmsg(Fd, UserPtr<MsgHdr>, i32)
    ),
    entry!(47, "recvmsg", Full, "", recvmsg(Fd, UserPtr<MsgHdr>, i32)),
    entry!(307, "sendmmsg", Full, "", sendmmsg(Fd, UserPtr<MsgHdr>, u32, i32)),
    entry!(48, "shutdown", Full, "", shutdown(Fd, i32)),
    entry!(54, "setsockopt", Partial, "SOL_SOCKET only", setsockopt(Fd, i32, i32, u64, u32)),
    entry!(55, "getsockopt", Partial, "SOL_SOCKET only", getsockopt(Fd, i32, i32, u64, UserPtr<u32>)),
];

const AF_UNIX: i32 = 1;
const SOCK_NONBLOCK: i32 = flags::NONBLOCK;
const SOCK_CLOEXEC: i32 = flags::CLOEXEC;
const MSG_PEEK: i32 = 2;
const MSG_CTRUNC: i32 = 8;
const MSG_TRUNC: i32 = 0x20;
const MSG_DONTWAIT: i32 = 0x40;
const MSG_WAITALL: i32 = 0x100;
const MSG_NOSIGNAL: i32 = 0x4000;
const MSG_CMSG_CLOEXEC: i32 = 0x4000_0000;
const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;
const SCM_CREDENTIALS: i32 = 2;
/// Descriptors in one message.
const SCM_MAX_FD: usize = 253;
/// Bytes of control data.
const CONTROL_MAX: usize = 65_536;

fn ucred(task: &Arc<Task>) -> Ucred {
    let c = task.creds();
    Ucred { pid: task.process(), uid: c.euid, gid: c.egid }
}

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
    let kind = kind(family, how, protocol)?;
    value(install(task, &Socket::new(kind, ucred(task)), how)?)
}

fn socketpair(task: &Arc<Task>, family: i32, how: i32, protocol: i32, to: UserPtr<[i32; 2]>) -> SysResult {
    if how & !(0xf | SOCK_NONBLOCK | SOCK_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    let (x, y) = Socket::pair(kind(family, how, protocol)?, ucred(task));
    let files = [x, y].map(|socket| socket.file(&task.creds(), how & SOCK_NONBLOCK != 0));
    task.add_pair(files, how & SOCK_CLOEXEC != 0, to)?;
    done()
}

fn find(task: &Arc<Task>, fd: Fd) -> Result<(Arc<File>, Arc<Socket>), Errno> {
    let file = task.file(fd)?;
    let socket = file.ops_as::<SocketFile>().ok_or(Errno::ENOTSOCK)?.0.clone();
    Ok((file, socket))
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
    let room = usize::try_from(len.read(task)?).map_err(|_| Errno::EINVAL)?;
    let raw = encode(name);
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
fn named(task: &Arc<Task>, name: &Name) -> Result<Arc<Socket>, Errno> {
    if name.first() == Some(&0) {
        return Socket::find_abstract(name);
    }
    let caller = Caller::of(task);
    let at = walk(&caller, caller.fs.cwd(), name, true)?;
    let inode = at.dentry.inode();
    access::check(&caller.creds, &**inode, access::WRITE)?;
    Socket::find_inode(inode)
}

fn bind(task: &Arc<Task>, fd: Fd, at: u64, len: u32) -> SysResult {
    let (_, socket) = find(task, fd)?;
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
    find(task, fd)?.1.listen(backlog)?;
    done()
}

fn accept4(task: &Arc<Task>, fd: Fd, to: u64, len: UserPtr<i32>, options: i32) -> SysResult {
    if options & !(SOCK_NONBLOCK | SOCK_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    let (file, socket) = find(task, fd)?;
    if socket.kind == Kind::Datagram {
        return Err(Errno::EOPNOTSUPP);
    }
    let nonblocking = file.nonblocking();
    let queue = socket.queue().clone();
    let deadline = deadline(&socket, false);
    let step = move |task: &Arc<Task>| {
        let served = socket.accept()?;
        let name = served.peer().map(|p| p.name()).unwrap_or_default();
        put_address(task, &name, to, len)?;
        install(task, &served, options).map(i64::from)
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
    mut step: impl FnMut(&Arc<Task>) -> Result<i64, Errno> + Send + 'static,
) -> SysResult {
    if nonblocking { step(task).map(Outcome::Value) } else { until_ready(task, queue, mask, deadline, step) }
}

fn connect(task: &Arc<Task>, fd: Fd, at: u64, len: u32) -> SysResult {
    let (file, socket) = find(task, fd)?;
    let (family, name) = address(task, at, len)?;
    if family == 0 && socket.kind == Kind::Datagram {
        socket.disconnect();
        return done();
    }
    if i32::from(family) != AF_UNIX || name.is_empty() {
        return Err(Errno::EINVAL);
    }
    if socket.pass_creds() && !socket.is_bound() {
        socket.bind_abstract(b"")?;
    }
    let to = named(task, &name)?;
    let queue = to.queue().clone();
    let deadline = deadline(&socket, true);
    let me = ucred(task);
    wait(task, file.nonblocking(), &queue, PollMask::WRITE, deadline, move |_| socket.connect(&to, me).map(|()| 0))
}

fn getsockname(task: &Arc<Task>, fd: Fd, to: u64, len: UserPtr<i32>) -> SysResult {
    let name = find(task, fd)?.1.name();
    put_address(task, &name, to, len)?;
    done()
}

fn getpeername(task: &Arc<Task>, fd: Fd, to: u64, len: UserPtr<i32>) -> SysResult {
    let name = find(task, fd)?.1.peer()?.name();
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
    if how & 1 != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let target = match to {
        Some(_) if socket.kind == Kind::Stream && socket.peer().is_ok() => return Err(Errno::EISCONN),
        Some(_) if socket.kind == Kind::Stream => return Err(Errno::EOPNOTSUPP),
        Some(name) if socket.kind == Kind::Datagram => {
            let t = named(task, &name)?;
            if t.kind != socket.kind {
                return Err(Errno::EPROTOTYPE);
            }
            Ok(t)
        }
        _ => socket.target(),
    };
    let broken = move |task: &Arc<Task>, e: Errno| {
        if e == Errno::EPIPE && how & MSG_NOSIGNAL == 0 {
            task.post_signal(libc::SIGPIPE);
        }
        e
    };
    let target = target.map_err(|e| broken(task, e))?;
    let nonblocking = file.nonblocking() || how & MSG_DONTWAIT != 0;
    let total = crate::uio::total(&vecs);
    let queue = target.queue().clone();
    let deadline = deadline(&socket, true);
    let mut ancillary = ancillary;
    let mut sent = 0usize;
    let step = move |task: &Arc<Task>| -> Result<i64, Errno> {
        loop {
            let mut left = sent;
            let rest: Vec<IoVec> = vecs
                .iter()
                .filter_map(|v| {
                    let cut = left.min(v.len);
                    left -= cut;
                    (cut < v.len).then_some(IoVec { base: v.base.wrapping_add(cut as u64), len: v.len - cut })
                })
                .collect();
            match socket.send(&target, &mut Source::user(task, rest), &ancillary) {
                Ok(n) => {
                    ancillary = Ancillary::default();
                    sent += n;
                    if sent >= total || n == 0 || socket.kind != Kind::Stream {
                        return Ok(sent as i64);
                    }
                }
                Err(Errno::EAGAIN) if nonblocking && sent > 0 => return Ok(sent as i64),
                Err(Errno::EAGAIN) => return Err(Errno::EAGAIN),
                Err(_) if sent > 0 => return Ok(sent as i64),
                Err(e) => return Err(broken(task, e)),
            }
        }
    };
    wait(task, nonblocking, &queue, PollMask::WRITE, deadline, step)
}

fn sendto(task: &Arc<Task>, fd: Fd, base: u64, len: usize, how: i32, at: u64, at_len: u32) -> SysResult {
    let found = find(task, fd)?;
    let to = if at == 0 { None } else { Some(address(task, at, at_len)?.1) };
    send(task, found, vec![IoVec { base, len }], to, Ancillary::default(), how)
}

/// `struct msghdr`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct MsgHdr {
    name: u64,
    name_len: u32,
    pad: u32,
    iov: u64,
    iov_len: u64,
    control: u64,
    control_len: u64,
    flags: i32,
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
        if word(8) != SOL_SOCKET {
            return Err(Errno::EINVAL);
        }
        match word(12) {
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
                let may_pid = pid == task.process() || c.capable(cap::SYS_ADMIN);
                let may_uid = [c.ruid, c.euid, c.suid].contains(&uid) || c.capable(cap::SETUID);
                let may_gid = [c.rgid, c.egid, c.sgid].contains(&gid) || c.capable(cap::SETGID);
                if !(may_pid && may_uid && may_gid) {
                    return Err(Errno::EPERM);
                }
                out.creds = Some(Ucred { pid, uid, gid });
            }
            _ => return Err(Errno::EINVAL),
        }
        rest = rest.get(size.next_multiple_of(8)..).unwrap_or_default();
    }
    Ok(out)
}

fn message_vector(task: &Arc<Task>, m: &MsgHdr) -> Result<Vec<IoVec>, Errno> {
    let count = usize::try_from(m.iov_len).ok().filter(|n| *n <= 1024).ok_or(Errno::EMSGSIZE)?;
    vector(task, UserPtr::<RawVec>::new(m.iov), count)
}

fn sendmsg(task: &Arc<Task>, fd: Fd, message: UserPtr<MsgHdr>, how: i32) -> SysResult {
    let found = find(task, fd)?;
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
struct Control {
    out: Vec<u8>,
    room: usize,
    truncated: bool,
}

impl Control {
    fn push(&mut self, kind: i32, data: &[u8]) {
        let len = 16 + data.len();
        if self.out.len() + len > self.room {
            self.truncated = true;
            return;
        }
        self.out.extend_from_slice(&(len as u64).to_le_bytes());
        self.out.extend_from_slice(&SOL_SOCKET.to_le_bytes());
        self.out.extend_from_slice(&kind.to_le_bytes());
        self.out.extend_from_slice(data);
        self.out.resize(self.out.len().next_multiple_of(8).min(self.room), 0);
    }
}

fn put_control(task: &Arc<Task>, socket: &Socket, got: &Received, room: usize, how: i32) -> Control {
    let mut c = Control { out: Vec::new(), room, truncated: false };
    if socket.pass_creds() {
        let u = got.ancillary.creds.unwrap_or(Ucred { pid: 0, uid: 65_534, gid: 65_534 });
        let raw: Vec<u8> =
            [u.pid.to_le_bytes(), u.uid.to_le_bytes(), u.gid.to_le_bytes()].into_iter().flatten().collect();
        c.push(SCM_CREDENTIALS, &raw);
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
    c
}

/// Receives; with `MSG_WAITALL` a stream goes on until all is there.
fn receive(
    task: &Arc<Task>,
    (file, socket): (Arc<File>, Arc<Socket>),
    vecs: Vec<IoVec>,
    how: i32,
    mut finish: impl FnMut(&Arc<Task>, &Socket, &Received) -> Result<(), Errno> + Send + 'static,
) -> SysResult {
    if how & 1 != 0 {
        return Err(Errno::EINVAL);
    }
    let nonblocking = file.nonblocking() || how & MSG_DONTWAIT != 0;
    let queue = socket.queue().clone();
    let deadline = deadline(&socket, false);
    let total = crate::uio::total(&vecs);
    let all = how & MSG_WAITALL != 0 && how & MSG_PEEK == 0 && socket.kind == Kind::Stream;
    let mut have = 0usize;
    let step = move |task: &Arc<Task>| -> Result<i64, Errno> {
        loop {
            let mut skip = have;
            let rest: Vec<IoVec> = vecs
                .iter()
                .filter_map(|v| {
                    let cut = skip.min(v.len);
                    skip -= cut;
                    (cut < v.len).then_some(IoVec { base: v.base.wrapping_add(cut as u64), len: v.len - cut })
                })
                .collect();
            let got = match socket.receive(&mut Sink::user(task, rest), how & MSG_PEEK != 0) {
                Err(Errno::EAGAIN) if have > 0 && nonblocking => return Ok(have as i64),
                r => r?,
            };
            have += got.count;
            finish(task, &socket, &got)?;
            if !all || got.count == 0 || have >= total {
                let whole = how & MSG_TRUNC != 0 && socket.kind != Kind::Stream;
                return Ok(if whole { got.length } else { have } as i64);
            }
        }
    };
    wait(task, nonblocking, &queue, PollMask::READ, deadline, step)
}

fn recvfrom(task: &Arc<Task>, fd: Fd, base: u64, len: usize, how: i32, to: u64, to_len: UserPtr<i32>) -> SysResult {
    let found = find(task, fd)?;
    receive(task, found, vec![IoVec { base, len }], how, move |task, socket, got| {
        if socket.kind == Kind::Datagram && !got.from.is_empty() {
            return put_address(task, &got.from, to, to_len);
        }
        if to != 0 { to_len.write(task, &0) } else { Ok(()) }
    })
}

fn recvmsg(task: &Arc<Task>, fd: Fd, message: UserPtr<MsgHdr>, how: i32) -> SysResult {
    let found = find(task, fd)?;
    let m = message.read(task)?;
    let vecs = message_vector(task, &m)?;
    receive(task, found, vecs, how, move |task, socket, got| {
        let mut m = m;
        let room = if m.control == 0 { 0 } else { usize::try_from(m.control_len).unwrap_or(0).min(CONTROL_MAX) };
        let control = put_control(task, socket, got, room, how);
        task.write_exact(m.control, &control.out)?;
        m.control_len = control.out.len() as u64;
        m.flags = how & MSG_CMSG_CLOEXEC;
        if control.truncated {
            m.flags |= MSG_CTRUNC;
        }
        if got.length > got.count {
            m.flags |= MSG_TRUNC;
        }
        if m.name != 0 {
            let from =
                if socket.kind == Kind::Datagram && !got.from.is_empty() { encode(&got.from) } else { Vec::new() };
            let n = from.len().min(m.name_len as usize);
            task.write_exact(m.name, from.get(..n).unwrap_or_default())?;
            m.name_len = u32::try_from(from.len()).unwrap_or(0);
        }
        message.write(task, &m)
    })
}

fn shutdown(task: &Arc<Task>, fd: Fd, how: i32) -> SysResult {
    let (_, socket) = find(task, fd)?;
    match how {
        0 => socket.shutdown(true, false)?,
        1 => socket.shutdown(false, true)?,
        2 => socket.shutdown(true, true)?,
        _ => return Err(Errno::EINVAL),
    }
    done()
}

const SO_TYPE: i32 = 3;
const SO_ERROR: i32 = 4;
const SO_SNDBUF: i32 = 7;
const SO_RCVBUF: i32 = 8;
const SO_PASSCRED: i32 = 16;
const SO_PEERCRED: i32 = 17;
const SO_RCVTIMEO: i32 = 20;
const SO_SNDTIMEO: i32 = 21;
const SO_ACCEPTCONN: i32 = 30;
const SO_SNDBUFFORCE: i32 = 32;
const SO_RCVBUFFORCE: i32 = 33;
const SO_PROTOCOL: i32 = 38;
const SO_DOMAIN: i32 = 39;

fn setsockopt(task: &Arc<Task>, fd: Fd, level: i32, option: i32, at: u64, len: u32) -> SysResult {
    let (_, socket) = find(task, fd)?;
    if level != SOL_SOCKET {
        return Err(Errno::EOPNOTSUPP);
    }
    let int = || if len < 4 { Err(Errno::EINVAL) } else { UserPtr::<i32>::new(at).read(task) };
    match option {
        SO_PASSCRED => socket.set_pass_creds(int()? != 0),
        SO_SNDBUF | SO_SNDBUFFORCE => socket.set_buffer(true, usize::try_from(int()?).unwrap_or(0)),
        SO_RCVBUF | SO_RCVBUFFORCE => socket.set_buffer(false, usize::try_from(int()?).unwrap_or(0)),
        SO_RCVTIMEO | SO_SNDTIMEO => {
            if len < 16 {
                return Err(Errno::EINVAL);
            }
            let t = UserPtr::<Timeval>::new(at).read(task)?;
            let ns = t.to_ns().map_err(|_| Errno::EDOM)?;
            socket.set_timeout(option == SO_SNDTIMEO, ns);
        }
        // Reuse, keep-alive, linger, priority, mark, timestamps: taken and without effect on Unix sockets, as on Linux.
        1 | 2 | 5 | 6 | 9..=15 | 18 | 19 | 29 | 35 => {
            int()?;
        }
        _ => return Err(Errno::ENOPROTOOPT),
    }
    done()
}

fn getsockopt(task: &Arc<Task>, fd: Fd, level: i32, option: i32, at: u64, len: UserPtr<u32>) -> SysResult {
    let (_, socket) = find(task, fd)?;
    if level != SOL_SOCKET {
        return Err(Errno::EOPNOTSUPP);
    }
    let int = |n: i32| n.to_le_bytes().to_vec();
    let size = |n: usize| int(i32::try_from(n).unwrap_or(i32::MAX));
    let raw = match option {
        SO_TYPE => int(match socket.kind {
            Kind::Stream => 1,
            Kind::Datagram => 2,
            Kind::Packet => 5,
        }),
        SO_ERROR => int(socket.take_error().map_or(0, Errno::code)),
        SO_SNDBUF => size(socket.buffers().0),
        SO_RCVBUF => size(socket.buffers().1),
        SO_PASSCRED => int(i32::from(socket.pass_creds())),
        SO_PEERCRED => {
            let u = socket.peer_creds();
            [u.pid.to_le_bytes(), u.uid.to_le_bytes(), u.gid.to_le_bytes()].into_iter().flatten().collect()
        }
        SO_RCVTIMEO | SO_SNDTIMEO => {
            let [receive, sending] = socket.timeouts();
            Timeval::from_ns(if option == SO_RCVTIMEO { receive } else { sending }).as_bytes().to_vec()
        }
        SO_ACCEPTCONN => int(i32::from(socket.listens())),
        SO_PROTOCOL => int(0),
        SO_DOMAIN => int(AF_UNIX),
        1 | 2 | 5 | 6 | 9..=12 | 15 => int(0),
        _ => return Err(Errno::ENOPROTOOPT),
    };
    let room = len.read(task)? as usize;
    let n = room.min(raw.len());
    task.write_exact(at, raw.get(..n).unwrap_or_default())?;
    len.write(task, &u32::try_from(n).unwrap_or(0))?;
    done()
}
