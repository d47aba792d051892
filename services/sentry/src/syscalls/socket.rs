//! Sockets: `socket`, `bind`, `connect`, `send*`, `recv*` and their kin. Unix sockets only; other families answer
//! EAFNOSUPPORT.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::entry;
use crate::errno::Errno;
use crate::ipc::unix::{Ancillary, Kind, Name, Received, Socket, SocketFile, Ucred};
use crate::syscalls::blocking::{Progress, until_done};
use crate::syscalls::read_write::{RawVec, vector};
use crate::syscalls::{Entry, Fd, Outcome, SysResult, UserPtr, done, value};
use crate::task::Task;
use crate::task::creds::cap;
use crate::time::{Deadline, Timespec};
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
    entry!(299, "recvmmsg", Full, "", recvmmsg(Fd, UserPtr<MsgHdr>, u32, i32, UserPtr<Timespec>)),
];

pub(super) const AF_UNIX: i32 = 1;
const SOCK_NONBLOCK: i32 = flags::NONBLOCK;
const SOCK_CLOEXEC: i32 = flags::CLOEXEC;
const MSG_PEEK: i32 = 2;
const MSG_CTRUNC: i32 = 8;
const MSG_TRUNC: i32 = 0x20;
const MSG_DONTWAIT: i32 = 0x40;
const MSG_WAITALL: i32 = 0x100;
const MSG_NOSIGNAL: i32 = 0x4000;
const MSG_WAITFORONE: i32 = 0x1_0000;
const MSG_CMSG_CLOEXEC: i32 = 0x4000_0000;
pub(super) const SOL_SOCKET: i32 = 1;
const SCM_RIGHTS: i32 = 1;
const SCM_CREDENTIALS: i32 = 2;
/// Descriptors in one message.
const SCM_MAX_FD: usize = 253;
/// Bytes of control data.
const CONTROL_MAX: usize = 65_536;

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
    value(install(task, &Socket::new(kind, Ucred::of(task)), how)?)
}

fn socketpair(task: &Arc<Task>, family: i32, how: i32, protocol: i32, to: UserPtr<[i32; 2]>) -> SysResult {
    if how & !(0xf | SOCK_NONBLOCK | SOCK_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    let (x, y) = Socket::pair(kind(family, how, protocol)?, Ucred::of(task), &task.creds().groups);
    let files = [x, y].map(|socket| socket.file(&task.creds(), how & SOCK_NONBLOCK != 0));
    task.add_pair(files, how & SOCK_CLOEXEC != 0, to)?;
    done()
}

pub(super) fn find(task: &Arc<Task>, fd: Fd) -> Result<(Arc<File>, Arc<Socket>), Errno> {
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
    let (_, socket) = find(task, fd)?;
    socket.set_groups(&task.creds().groups);
    socket.listen(backlog, Ucred::of(task))?;
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
        let name = served.peer_name().unwrap_or_default();
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
    step: impl FnMut(&Arc<Task>) -> Result<i64, Errno> + Send + 'static,
) -> SysResult {
    wait_for_rest(task, nonblocking, queue, mask, deadline, &Progress::default(), step)
}

/// As [`wait`], for what may be done in part: that counts if it cannot go on.
fn wait_for_rest(
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
    let to = named(task, socket.kind, &name)?;
    let queue = to.queue().clone();
    let deadline = deadline(&socket, true);
    let me = Ucred::of(task);
    socket.set_groups(&task.creds().groups);
    wait(task, file.nonblocking(), &queue, PollMask::WRITE, deadline, move |_| socket.connect(&to, me).map(|()| 0))
}

fn getsockname(task: &Arc<Task>, fd: Fd, to: u64, len: UserPtr<i32>) -> SysResult {
    let name = find(task, fd)?.1.name();
    put_address(task, &name, to, len)?;
    done()
}

fn getpeername(task: &Arc<Task>, fd: Fd, to: u64, len: UserPtr<i32>) -> SysResult {
    let name = find(task, fd)?.1.peer_name()?;
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
    let total = crate::uio::total(&vecs);
    let queue = target.queue().clone();
    let deadline = deadline(&socket, true);
    let mut ancillary = ancillary;
    ancillary.sender = Ucred::of(task);
    let progress = Progress::default();
    let done = progress.clone();
    let step = move |task: &Arc<Task>| -> Result<i64, Errno> {
        loop {
            let sent = done.load(Ordering::Relaxed);
            let rest = beyond(&vecs, sent);
            match socket.send(&target, &mut Source::user(task, rest), &ancillary) {
                Ok(n) => {
                    // Descriptors go once; who sends stands with all of it.
                    ancillary.files.clear();
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
fn beyond(vecs: &[IoVec], mut done: usize) -> Vec<IoVec> {
    let rest = |v: &IoVec| {
        let cut = done.min(v.len);
        done -= cut;
        (cut < v.len).then_some(IoVec { base: v.base.wrapping_add(cut as u64), len: v.len - cut })
    };
    vecs.iter().filter_map(rest).collect()
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
                let may_pid = pid == task.process() || c.capable(cap::SYS_ADMIN);
                let may_uid = [c.ruid, c.euid, c.suid].contains(&uid) || c.capable(cap::SETUID);
                let may_gid = [c.rgid, c.egid, c.sgid].contains(&gid) || c.capable(cap::SETGID);
                if !(may_pid && may_uid && may_gid) {
                    return Err(Errno::EPERM);
                }
                if pid != task.process() && task.kernel().tree.lock().group(pid).is_none() {
                    return Err(Errno::ESRCH);
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
        let left = self.room.saturating_sub(self.out.len());
        let len = (16 + data.len()).min(left);
        self.truncated |= len < 16 + data.len();
        let Some(data) = len.checked_sub(16).and_then(|n| data.get(..n)) else { return };
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

/// There is no urgent data to receive (`MSG_OOB`).
fn no_out_of_band(socket: &Socket, how: i32) -> Result<(), Errno> {
    match socket.kind {
        _ if how & 1 == 0 => Ok(()),
        Kind::Stream => Err(Errno::EINVAL),
        _ => Err(Errno::EOPNOTSUPP),
    }
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
        loop {
            let have = done.load(Ordering::Relaxed);
            let got = socket.receive(&mut Sink::user(task, beyond(&vecs, have)), peek)?;
            let got = got.unless_ended(&socket, nonblocking)?;
            if !got.ended || have == 0 {
                finish(task, &socket, &got)?;
            }
            let have = have + got.count;
            done.store(have, Ordering::Relaxed);
            if got.count == 0 || have >= enough || !got.ancillary.files.is_empty() {
                let whole = how & MSG_TRUNC != 0 && socket.kind != Kind::Stream;
                return Ok(if whole { got.length } else { have } as i64);
            }
        }
    };
    wait_for_rest(task, nonblocking, &queue, PollMask::READ, deadline, &progress, step)
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
    let (file, socket) = find(task, fd)?;
    no_out_of_band(&socket, how)?;
    let one = how & MSG_WAITFORONE != 0;
    let how = how & !MSG_WAITFORONE;
    let nonblocking = file.nonblocking() || how & MSG_DONTWAIT != 0;
    let count = count.min(1024) as usize;
    let (queue, deadline) = (socket.queue().clone(), deadline(&socket, false));
    let progress = Progress::default();
    let done = progress.clone();
    let step = move |task: &Arc<Task>| -> Result<i64, Errno> {
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
    let got = socket.receive(&mut Sink::user(task, vecs), how & MSG_PEEK != 0)?.unless_ended(socket, nonblocking)?;
    tell(task, socket, &got, at, m, how)?;
    let whole = how & MSG_TRUNC != 0 && socket.kind != Kind::Stream;
    let len = if whole { got.length } else { got.count };
    at.cast::<u32>().offset(56)?.write(task, &u32::try_from(len).unwrap_or(u32::MAX))
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
