//! The calls of sockets, for netlink sockets: addresses, messages, options. `socket` and `sockopt` hand them on.

use std::sync::Arc;

use super::blocking::until_done;
use super::{SysResult, UserPtr, done, value};
use crate::errno::Errno;
pub(super) use crate::ipc::netlink::Received;
use crate::ipc::netlink::{GROUPS, Netlink, NetlinkFile, PROTOCOLS};
use crate::syscalls::blocking::Progress;
use crate::task::Task;
use crate::task::creds::cap;
use crate::time::{Deadline, Timeval};
use crate::uio::{IoVec, Sink, Source};
use crate::vfs::File;
use crate::wait::PollMask;

/// `AF_NETLINK`.
pub(super) const AF_NETLINK: i32 = 16;
/// Bytes of `struct sockaddr_nl`.
const ADDRESS: usize = 12;
const SOL_SOCKET: i32 = 1;
const SOL_NETLINK: i32 = 270;
const MSG_OOB: i32 = 1;
const MSG_PEEK: i32 = 2;
const MSG_TRUNC: i32 = 0x20;
const MSG_DONTWAIT: i32 = 0x40;

/// An open socket.
pub(super) struct Open {
    pub(super) file: Arc<File>,
    pub(super) socket: Arc<Netlink>,
}

impl Open {
    /// The netlink socket that a file is.
    pub(super) fn of(file: Arc<File>) -> Option<Self> {
        let socket = file.ops_as::<NetlinkFile>()?.0.clone();
        Some(Self { file, socket })
    }
}

/// `socket(2)`: the file of a new one.
pub(super) fn open(task: &Arc<Task>, kind: i32, protocol: i32, nonblocking: bool) -> Result<Arc<File>, Errno> {
    const DATAGRAM: i32 = 2;
    const RAW: i32 = 3;
    if ![DATAGRAM, RAW].contains(&kind) {
        return Err(Errno::ESOCKTNOSUPPORT);
    }
    if !(0..PROTOCOLS).contains(&protocol) {
        return Err(Errno::EPROTONOSUPPORT);
    }
    Ok(NetlinkFile::open(Netlink::new(task, kind, protocol)?, &task.creds(), nonblocking))
}

/// Copies an address in: port and groups, `None` for one of no family.
pub(super) fn address(task: &Arc<Task>, at: u64, len: u32) -> Result<Option<(u32, u32)>, Errno> {
    const MOST: usize = 128;
    let len = len as usize;
    if !(2..=MOST).contains(&len) {
        return Err(Errno::EINVAL);
    }
    let mut raw = vec![0; len];
    task.read_exact(at, &mut raw)?;
    match raw.get(..2).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes) {
        Some(0) => return Ok(None),
        Some(family) if i32::from(family) == AF_NETLINK && len >= ADDRESS => {}
        _ => return Err(Errno::EINVAL),
    }
    let word = |from: usize| raw.get(from..from + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
    Ok(Some((word(4), word(8))))
}

/// An address as it is told.
pub(super) fn encode((port, groups): (u32, u32)) -> Vec<u8> {
    let family = u32::try_from(AF_NETLINK).unwrap_or(0);
    [family, port, groups].iter().flat_map(|w| w.to_ne_bytes()).collect()
}

/// `bind(2)`.
pub(super) fn bind(task: &Arc<Task>, open: &Open, at: u64, len: u32) -> SysResult {
    let (port, groups) = address(task, at, len)?.ok_or(Errno::EINVAL)?;
    open.socket.bind(task, port, groups)?;
    done()
}

/// `connect(2)`.
pub(super) fn connect(task: &Arc<Task>, open: &Open, at: u64, len: u32) -> SysResult {
    match address(task, at, len)? {
        None => open.socket.connect(0, 0),
        Some((port, groups)) if (port != 0 || groups != 0) && !open.socket.may_change(task) => {
            return Err(Errno::EPERM);
        }
        Some((port, groups)) => {
            open.socket.bind_any(task)?;
            open.socket.connect(port, groups);
        }
    }
    done()
}

/// `sendmsg(2)` and its kin.
pub(super) fn send(task: &Arc<Task>, open: Open, vecs: Vec<IoVec>, to: Option<(u32, u32)>, how: i32) -> SysResult {
    if how & MSG_OOB != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let total = crate::uio::total(&vecs);
    if total == 0 {
        return Err(Errno::ENODATA);
    }
    if to.is_some_and(|to| to != (0, 0)) && !open.socket.may_change(task) {
        return Err(Errno::EPERM);
    }
    let (most, [_, sending]) = open.socket.options(|o| (o.send_buffer, o.timeouts));
    if total > most {
        return Err(Errno::EMSGSIZE);
    }
    let data = Source::user(task, vecs).take_vec(total)?;
    if data.len() < total {
        return Err(Errno::EFAULT);
    }
    let nonblocking = open.file.nonblocking() || how & MSG_DONTWAIT != 0;
    let queue = open.socket.queue.clone();
    let step = move |task: &Arc<Task>| open.socket.send(task, data.clone(), to).map(|n| n as i64);
    wait(task, nonblocking, &queue, PollMask::WRITE, sending, step)
}

fn wait(
    task: &Arc<Task>,
    nonblocking: bool,
    queue: &crate::wait::WaitQueue,
    mask: PollMask,
    timeout: i64,
    mut step: impl FnMut(&Arc<Task>) -> Result<i64, Errno> + Send + 'static,
) -> SysResult {
    if nonblocking {
        return value(step(task)?);
    }
    let deadline = (timeout > 0).then(|| Deadline::after(timeout));
    until_done(task, queue, mask, deadline, &Progress::default(), step)
}

/// `recvmsg(2)` and its kin; `finish` gets what was received and the flags to tell.
pub(super) fn receive(
    task: &Arc<Task>,
    open: Open,
    vecs: Vec<IoVec>,
    how: i32,
    mut finish: impl FnMut(&Arc<Task>, &Netlink, &Received, i32) -> Result<(), Errno> + Send + 'static,
) -> SysResult {
    if how & MSG_OOB != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let nonblocking = open.file.nonblocking() || how & MSG_DONTWAIT != 0;
    let [receiving, _] = open.socket.options(|o| o.timeouts);
    let queue = open.socket.queue.clone();
    let step = move |task: &Arc<Task>| {
        // It stays open as long as somebody waits.
        let _open = &open.file;
        let mut to = Sink::user(task, vecs.clone());
        let got = open.socket.receive(&mut to, how & MSG_PEEK != 0)?;
        let flags = if got.length > got.count { MSG_TRUNC } else { 0 };
        finish(task, &open.socket, &got, flags)?;
        Ok(if how & MSG_TRUNC != 0 { got.length } else { got.count } as i64)
    };
    wait(task, nonblocking, &queue, PollMask::READ, receiving, step)
}

mod option {
    pub const ADD_MEMBERSHIP: i32 = 1;
    pub const DROP_MEMBERSHIP: i32 = 2;
    pub const PKTINFO: i32 = 3;
    pub const BROADCAST_ERROR: i32 = 4;
    pub const NO_ENOBUFS: i32 = 5;
    pub const LISTEN_ALL_NSID: i32 = 8;
    pub const LIST_MEMBERSHIPS: i32 = 9;
    pub const CAP_ACK: i32 = 10;
    pub const EXT_ACK: i32 = 11;
    pub const GET_STRICT_CHK: i32 = 12;
    pub const TYPE: i32 = 3;
    pub const ERROR: i32 = 4;
    pub const SNDBUF: i32 = 7;
    pub const RCVBUF: i32 = 8;
    pub const PASSCRED: i32 = 16;
    pub const RCVTIMEO: i32 = 20;
    pub const SNDTIMEO: i32 = 21;
    pub const ACCEPTCONN: i32 = 30;
    pub const SNDBUFFORCE: i32 = 32;
    pub const RCVBUFFORCE: i32 = 33;
    pub const PROTOCOL: i32 = 38;
    pub const DOMAIN: i32 = 39;
}

/// `setsockopt(2)`.
pub(super) fn set_option(task: &Arc<Task>, open: &Open, level: i32, name: i32, at: u64, len: i32) -> SysResult {
    use option::*;
    /// Least and most bytes of a buffer, as Linux counts them.
    const LEAST: [usize; 2] = [4608, 2304];
    const MOST: i32 = 212_992;
    let socket = &open.socket;
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    let int = if len >= 4 { UserPtr::<i32>::new(at).read(task)? } else { 0 };
    let on = int != 0;
    match (level, name) {
        (SOL_NETLINK, ADD_MEMBERSHIP | DROP_MEMBERSHIP) => {
            socket.member(u32::try_from(int).map_err(|_| Errno::EINVAL)?, name == ADD_MEMBERSHIP)?;
        }
        (SOL_NETLINK, PKTINFO) => socket.options(|o| o.pktinfo = on),
        (SOL_NETLINK, BROADCAST_ERROR) => socket.options(|o| o.broadcast_error = on),
        (SOL_NETLINK, NO_ENOBUFS) => socket.options(|o| o.no_enobufs = on),
        (SOL_NETLINK, LISTEN_ALL_NSID) if !task.creds().capable(cap::NET_ADMIN) => return Err(Errno::EPERM),
        (SOL_NETLINK, LISTEN_ALL_NSID) => socket.options(|o| o.listen_all = on),
        (SOL_NETLINK, CAP_ACK) => socket.options(|o| o.cap_ack = on),
        (SOL_NETLINK, EXT_ACK) => socket.options(|o| o.ext_ack = on),
        (SOL_NETLINK, GET_STRICT_CHK) => socket.options(|o| o.strict = on),
        (SOL_SOCKET, _) if len < 4 => return Err(Errno::EINVAL),
        (SOL_SOCKET, PASSCRED) => socket.options(|o| o.passcred = on),
        (SOL_SOCKET, SNDBUF | RCVBUF | SNDBUFFORCE | RCVBUFFORCE) => {
            let forced = [SNDBUFFORCE, RCVBUFFORCE].contains(&name);
            if forced && !task.creds().capable(cap::NET_ADMIN) {
                return Err(Errno::EPERM);
            }
            let wanted = usize::try_from(int.cast_unsigned().min(MOST.cast_unsigned())).unwrap_or(0) * 2;
            let [send, receive] = LEAST;
            socket.options(|o| match name {
                SNDBUF | SNDBUFFORCE => o.send_buffer = wanted.max(send),
                _ => o.receive_buffer = wanted.max(receive),
            });
        }
        (SOL_SOCKET, RCVTIMEO | SNDTIMEO) => {
            if len < size_of::<Timeval>() {
                return Err(Errno::EINVAL);
            }
            let ns = super::sockopt::timeout(UserPtr::<Timeval>::new(at).read(task)?)?;
            socket.options(|o| {
                let [receive, send] = &mut o.timeouts;
                *(if name == RCVTIMEO { receive } else { send }) = ns;
            });
        }
        _ => return Err(Errno::ENOPROTOOPT),
    }
    done()
}

/// `getsockopt(2)`.
pub(super) fn get_option(
    task: &Arc<Task>,
    open: &Open,
    level: i32,
    name: i32,
    at: u64,
    len: UserPtr<i32>,
) -> SysResult {
    use option::*;
    let socket = &open.socket;
    let room = usize::try_from(len.read(task)?).map_err(|_| Errno::EINVAL)?;
    let o = socket.options(|o| *o);
    let big = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    if (level, name) == (SOL_NETLINK, LIST_MEMBERSHIPS) {
        // As many words as there are groups for.
        let words = socket.groups().to_ne_bytes();
        let told = words.get(..GROUPS.div_ceil(32) as usize * 4).unwrap_or_default();
        task.write_exact(at, told.get(..room.min(told.len()) / 4 * 4).unwrap_or_default())?;
        len.write(task, &big(told.len()))?;
        return done();
    }
    if level == SOL_SOCKET && (name == RCVTIMEO || name == SNDTIMEO) {
        let [receive, send] = o.timeouts;
        let t = Timeval::from_ns(if name == RCVTIMEO { receive } else { send });
        let raw = zerocopy::IntoBytes::as_bytes(&t);
        task.write_exact(at, raw.get(..room.min(raw.len())).unwrap_or_default())?;
        len.write(task, &big(room.min(raw.len())))?;
        return done();
    }
    let int = match (level, name) {
        (SOL_NETLINK, _) if room < 4 => return Err(Errno::EINVAL),
        (SOL_NETLINK, PKTINFO) => i32::from(o.pktinfo),
        (SOL_NETLINK, BROADCAST_ERROR) => i32::from(o.broadcast_error),
        (SOL_NETLINK, NO_ENOBUFS) => i32::from(o.no_enobufs),
        (SOL_NETLINK, LISTEN_ALL_NSID) => i32::from(o.listen_all),
        (SOL_NETLINK, CAP_ACK) => i32::from(o.cap_ack),
        (SOL_NETLINK, EXT_ACK) => i32::from(o.ext_ack),
        (SOL_NETLINK, GET_STRICT_CHK) => i32::from(o.strict),
        (SOL_SOCKET, TYPE) => socket.kind,
        (SOL_SOCKET, DOMAIN) => AF_NETLINK,
        (SOL_SOCKET, PROTOCOL) => socket.protocol,
        (SOL_SOCKET, ERROR | ACCEPTCONN) => 0,
        (SOL_SOCKET, PASSCRED) => i32::from(o.passcred),
        (SOL_SOCKET, SNDBUF) => big(o.send_buffer),
        (SOL_SOCKET, RCVBUF) => big(o.receive_buffer),
        _ => return Err(Errno::ENOPROTOOPT),
    };
    let raw = int.to_ne_bytes();
    let told = raw.get(..room.min(4)).unwrap_or_default();
    task.write_exact(at, told)?;
    len.write(task, &big(told.len()))?;
    done()
}
