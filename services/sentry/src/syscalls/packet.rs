//! The calls of sockets, for packet sockets, `packet(7)`: addresses, frames, options. `socket` and `sockopt` hand them on.
//!
//! Not there: rings of the third version and rings to send by (EINVAL), fanout and headers of virtio (ENOPROTOOPT), sockets of type `SOCK_PACKET`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use zerocopy::IntoBytes;

use super::blocking::Progress;
use super::socket::{
    CONTROL_MAX, Control, MSG_CTRUNC, MSG_DONTWAIT, MSG_PEEK, MSG_TRUNC, MSG_WAITFORONE, MsgHdr, SOL_SOCKET,
    message_vector, put_time, wait_for_rest,
};
use super::sockopt::{ATTACH_FILTER, BINDTODEVICE, DOMAIN, PROTOCOL, TYPE, get_basic, get_filter, put, set_basic};
use super::{SysResult, UserPtr, done, value};
use crate::errno::Errno;
use crate::ipc::netlink::{INDEX, NAME};
use crate::ipc::packet::{Got, MAC, PacketFile, PacketSocket, Place, Shape, address};
use crate::task::Task;
use crate::task::creds::cap;
use crate::time::Deadline;
use crate::uio::{IoVec, Sink, Source};
use crate::vfs::file::File;
use crate::wait::PollMask;

/// `AF_PACKET`.
pub(super) const AF_PACKET: i32 = 17;
/// `SOL_PACKET`.
const SOL_PACKET: i32 = 263;
/// Bytes of `struct sockaddr_ll`, and where in it the address begins.
const ADDRESS: usize = 20;
const AT: usize = 12;

/// An open socket.
pub(super) struct Open {
    pub(super) file: Arc<File>,
    pub(super) socket: Arc<PacketSocket>,
}

impl Open {
    /// The packet socket that a file is.
    pub(super) fn of(file: &Arc<File>) -> Option<Self> {
        let socket = file.ops_as::<PacketFile>()?.0.clone();
        Some(Self { file: file.clone(), socket })
    }
}

/// `socket(2)`: the file of a new one. EPERM, ESOCKTNOSUPPORT. `protocol`: in the network's order.
pub(super) fn open(task: &Arc<Task>, kind: i32, protocol: i32, nonblocking: bool) -> Result<Arc<File>, Errno> {
    const DATAGRAM: i32 = 2;
    const RAW: i32 = 3;
    let net = &task.namespaces().net;
    if !task.creds().capable_in(&net.base.owner, cap::NET_RAW) {
        return Err(Errno::EPERM);
    }
    if ![DATAGRAM, RAW].contains(&kind) {
        return Err(Errno::ESOCKTNOSUPPORT);
    }
    let protocol = u16::from_be(protocol as u16);
    let socket = PacketSocket::new(net, kind == RAW, protocol, task.creds().fsuid);
    Ok(socket.file(&task.creds(), nonblocking))
}

/// Where a message goes: an address that is as long as it says at least, and no longer than any. EINVAL.
pub(super) fn destination(task: &Arc<Task>, at: u64, len: u32) -> Result<Place, Errno> {
    const MOST: usize = 128;
    let len = len as usize;
    if !(ADDRESS..=MOST).contains(&len) {
        return Err(Errno::EINVAL);
    }
    let mut raw = vec![0; len];
    task.read_exact(at, &mut raw)?;
    let head: [u8; ADDRESS] = *raw.first_chunk().ok_or(Errno::EINVAL)?;
    let [_, _, p0, p1, d0, d1, d2, d3, _, _, _, length, m0, m1, m2, m3, m4, m5, _, _] = head;
    if len < AT + usize::from(length) {
        return Err(Errno::EINVAL);
    }
    let device = u32::from_ne_bytes([d0, d1, d2, d3]);
    Ok(Place { protocol: u16::from_be_bytes([p0, p1]), device, mac: [m0, m1, m2, m3, m4, m5] })
}

/// `bind(2)`. EINVAL, ENODEV.
pub(super) fn bind(task: &Arc<Task>, open: &Open, at: u64, len: u32) -> SysResult {
    let mut raw = [0; ADDRESS];
    if (len as usize) < ADDRESS {
        return Err(Errno::EINVAL);
    }
    task.read_exact(at, &mut raw)?;
    let [a, b, c, d, device @ .., _, _, _, _, _, _, _, _, _, _, _, _] = raw;
    if i32::from(u16::from_ne_bytes([a, b])) != AF_PACKET {
        return Err(Errno::EINVAL);
    }
    open.socket.bind(u32::from_ne_bytes(device), u16::from_be_bytes([c, d]))?;
    done()
}

/// Its own name: as long as its device's address.
pub(super) fn name(socket: &PacketSocket) -> Vec<u8> {
    let (protocol, device, index) = socket.bound();
    let mut raw = (AF_PACKET as u16).to_ne_bytes().to_vec();
    raw.extend_from_slice(&protocol.to_be_bytes());
    raw.extend_from_slice(&index.to_ne_bytes());
    raw.extend_from_slice(&device.map_or(0, |d| d.hatype).to_ne_bytes());
    raw.extend_from_slice(&[0, if device.is_some() { MAC as u8 } else { 0 }]);
    if let Some(d) = device {
        raw.extend_from_slice(&d.mac);
    }
    raw
}

/// Who sent a frame.
pub(super) fn from(got: &Got) -> Vec<u8> {
    address(&got.along)
}

/// `sendmsg(2)` and its kin.
pub(super) fn send(task: &Arc<Task>, open: Open, vecs: Vec<IoVec>, to: Option<Place>) -> SysResult {
    let mut source = Source::user(task, vecs);
    value(i64::try_from(open.socket.send(&mut source, to.as_ref())?).unwrap_or(i64::MAX))
}

fn deadline(socket: &PacketSocket) -> Option<Deadline> {
    let [receive, _] = socket.timeouts();
    (receive > 0).then(|| Deadline::after(receive))
}

/// Only these mean something.
fn check(how: i32) -> Result<(), Errno> {
    const MSG_CMSG_CLOEXEC: i32 = 0x4000_0000;
    const MSG_ERRQUEUE: i32 = 0x2000;
    match how {
        _ if how & !(MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC | MSG_CMSG_CLOEXEC | MSG_ERRQUEUE) != 0 => Err(Errno::EINVAL),
        // No error comes back.
        _ if how & MSG_ERRQUEUE != 0 => Err(Errno::EAGAIN),
        _ => Ok(()),
    }
}

/// `recvmsg(2)` and its kin; `finish` gets what was received.
pub(super) fn receive(
    task: &Arc<Task>,
    open: Open,
    vecs: Vec<IoVec>,
    how: i32,
    mut finish: impl FnMut(&Arc<Task>, &PacketSocket, &Got) -> Result<(), Errno> + Send + 'static,
) -> SysResult {
    check(how)?;
    let Open { file, socket } = open;
    let nonblocking = file.nonblocking() || how & MSG_DONTWAIT != 0;
    let (of, deadline) = (socket.clone(), deadline(&socket));
    let step = move |task: &Arc<Task>| {
        // It stays open as long as somebody waits.
        let _open = &file;
        let mut to = Sink::user(task, vecs.clone());
        let got = socket.receive(&mut to, how & MSG_PEEK != 0)?;
        finish(task, &socket, &got)?;
        Ok(if how & MSG_TRUNC != 0 { got.length } else { got.count } as i64)
    };
    wait_for_rest(task, nonblocking, &of.queue, PollMask::READ, deadline, &Progress::default(), step)
}

/// Tells `recvmsg` who sent it, and what came along.
pub(super) fn tell(
    task: &Arc<Task>,
    socket: &PacketSocket,
    got: &Got,
    message: UserPtr<MsgHdr>,
    mut m: MsgHdr,
    how: i32,
) -> Result<(), Errno> {
    const MSG_CMSG_CLOEXEC: i32 = 0x4000_0000;
    const AUXDATA: i32 = 8;
    const UNSUMMED: u32 = 8;
    let room = if m.control == 0 { 0 } else { usize::try_from(m.control_len).unwrap_or(0).min(CONTROL_MAX) };
    let mut c = Control::new(room);
    put_time(socket.options(|o| o.times), Some(got.along.time), &mut c);
    if socket.kept(|k| k.auxdata) {
        // `struct tpacket_auxdata`.
        let word = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_ne_bytes();
        let mut raw = (1 | if got.along.unsummed { UNSUMMED } else { 0 }).to_ne_bytes().to_vec();
        raw.extend([word(got.along.length), word(got.length)].concat());
        raw.extend_from_slice(&[0; 2]);
        raw.extend_from_slice(&u16::try_from(got.along.network).unwrap_or(0).to_ne_bytes());
        raw.extend_from_slice(&[0; 4]);
        c.push_of(SOL_PACKET, AUXDATA, &raw);
    }
    let (out, truncated) = c.into_parts();
    task.write_exact(m.control, &out)?;
    m.control_len = out.len() as u64;
    m.flags = how & MSG_CMSG_CLOEXEC;
    m.flags |= if truncated { MSG_CTRUNC } else { 0 };
    m.flags |= if got.length > got.count { MSG_TRUNC } else { 0 };
    if m.name != 0 {
        let from = from(got);
        let n = from.len().min(m.name_len as usize);
        task.write_exact(m.name, from.get(..n).unwrap_or_default())?;
        m.name_len = u32::try_from(from.len()).unwrap_or(0);
    }
    message.write(task, &m)
}

/// Several messages.
pub(super) fn receive_many(
    task: &Arc<Task>,
    open: Open,
    all: UserPtr<MsgHdr>,
    count: usize,
    how: i32,
    until: Option<Deadline>,
) -> SysResult {
    let one = how & MSG_WAITFORONE != 0;
    let how = how & !MSG_WAITFORONE;
    check(how)?;
    let Open { file, socket } = open;
    let nonblocking = file.nonblocking() || how & MSG_DONTWAIT != 0;
    let (of, deadline) = (socket.clone(), deadline(&socket));
    let progress = Progress::default();
    let so_far = progress.clone();
    let next = move |task: &Arc<Task>, at: UserPtr<MsgHdr>| -> Result<(), Errno> {
        let m = at.read(task)?;
        let mut to = Sink::user(task, message_vector(task, &m)?);
        let got = socket.receive(&mut to, how & MSG_PEEK != 0)?;
        tell(task, &socket, &got, at, m, how)?;
        let len = if how & MSG_TRUNC != 0 { got.length } else { got.count };
        at.cast::<u32>().offset(56)?.write(task, &u32::try_from(len).unwrap_or(u32::MAX))
    };
    let step = move |task: &Arc<Task>| -> Result<i64, Errno> {
        let _open = &file;
        loop {
            let at = so_far.load(Ordering::Relaxed);
            if at >= count || at > 0 && until.as_ref().is_some_and(|u| u.remaining() == 0) {
                return Ok(at as i64);
            }
            match next(task, all.offset(at as u64 * 64)?) {
                Ok(()) => so_far.store(at + 1, Ordering::Relaxed),
                Err(Errno::EAGAIN) if at == 0 || !one => return Err(Errno::EAGAIN),
                Err(_) if at > 0 => return Ok(at as i64),
                Err(e) => return Err(e),
            }
        }
    };
    wait_for_rest(task, nonblocking, &of.queue, PollMask::READ, deadline, &progress, step)
}

mod option {
    pub const ADD_MEMBERSHIP: i32 = 1;
    pub const DROP_MEMBERSHIP: i32 = 2;
    pub const RX_RING: i32 = 5;
    pub const STATISTICS: i32 = 6;
    pub const COPY_THRESH: i32 = 7;
    pub const AUXDATA: i32 = 8;
    pub const ORIGDEV: i32 = 9;
    pub const VERSION: i32 = 10;
    pub const HDRLEN: i32 = 11;
    pub const RESERVE: i32 = 12;
    pub const TX_RING: i32 = 13;
    pub const LOSS: i32 = 14;
    pub const TIMESTAMP: i32 = 17;
    pub const TX_HAS_OFF: i32 = 19;
    pub const QDISC_BYPASS: i32 = 20;
    pub const IGNORE_OUTGOING: i32 = 23;
}

/// `setsockopt(2)`.
pub(super) fn set_option(
    task: &Arc<Task>,
    socket: &Arc<PacketSocket>,
    level: i32,
    name: i32,
    at: u64,
    len: i32,
) -> SysResult {
    use option::*;
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    match level {
        SOL_SOCKET if name == BINDTODEVICE => {
            bind_to_device(task, socket, at, len)?;
            return done();
        }
        SOL_SOCKET if len < 4 => return Err(Errno::EINVAL),
        SOL_SOCKET => {
            let int = UserPtr::<i32>::new(at).read(task)?;
            set_basic(task, &**socket, name, (at, len), int)?;
            return done();
        }
        SOL_PACKET => {}
        _ => return Err(Errno::ENOPROTOOPT),
    }
    if [ADD_MEMBERSHIP, DROP_MEMBERSHIP].contains(&name) {
        membership(task, socket, name == ADD_MEMBERSHIP, at, len)?;
        return done();
    }
    if [RX_RING, TX_RING].contains(&name) {
        ring(task, socket, name == RX_RING, at, len)?;
        return done();
    }
    let exact = [COPY_THRESH, VERSION, RESERVE, LOSS, TIMESTAMP, TX_HAS_OFF, QDISC_BYPASS, IGNORE_OUTGOING];
    if exact.contains(&name) && len != 4 || [AUXDATA, ORIGDEV].contains(&name) && len < 4 {
        return Err(Errno::EINVAL);
    }
    if !exact.contains(&name) && ![AUXDATA, ORIGDEV].contains(&name) {
        return Err(Errno::ENOPROTOOPT);
    }
    let int = UserPtr::<i32>::new(at).read(task)?;
    // TPACKET_V1, TPACKET_V2.
    let wrong = name == VERSION && !(0..=1).contains(&int)
        || name == RESERVE && int < 0
        || name == IGNORE_OUTGOING && !(0..=1).contains(&int);
    if wrong {
        return Err(Errno::EINVAL);
    }
    if [VERSION, RESERVE, LOSS, TX_HAS_OFF].contains(&name) && socket.has_ring() {
        return Err(Errno::EBUSY);
    }
    socket.kept(|k| match name {
        AUXDATA => k.auxdata = int != 0,
        ORIGDEV => k.origdev = int != 0,
        LOSS => k.loss = int != 0,
        TX_HAS_OFF => k.has_off = int != 0,
        QDISC_BYPASS => k.bypass = int != 0,
        IGNORE_OUTGOING => k.ignore_outgoing = int != 0,
        TIMESTAMP => k.timestamp = int,
        COPY_THRESH => k.copy_thresh = int,
        VERSION => k.version = int,
        _ => k.reserve = int.cast_unsigned(),
    });
    done()
}

/// `PACKET_ADD_MEMBERSHIP`, `PACKET_DROP_MEMBERSHIP`: `struct packet_mreq`, whose address may be longer.
fn membership(task: &Arc<Task>, socket: &PacketSocket, add: bool, at: u64, len: usize) -> Result<(), Errno> {
    const BYTES: usize = 16;
    const BEFORE: usize = 8;
    const MOST: usize = BEFORE + 32;
    if len < BYTES {
        return Err(Errno::EINVAL);
    }
    let raw = UserPtr::<u8>::new(at).read_array(task, len.min(MOST), MOST)?;
    let half = |at: usize| raw.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u16::from_ne_bytes(*b));
    let device = raw.first_chunk().map_or(0, |b| u32::from_ne_bytes(*b));
    let (what, length) = (half(4), usize::from(half(6)));
    if len < BEFORE.saturating_add(length) {
        return Err(Errno::EINVAL);
    }
    let address = raw.get(BEFORE..).and_then(|a| a.get(..length)).ok_or(Errno::EINVAL)?.to_vec();
    if add {
        return socket.join(device, what, address);
    }
    socket.leave(device, what, address);
    Ok(())
}

/// `PACKET_RX_RING`; there is none to send by.
fn ring(task: &Arc<Task>, socket: &PacketSocket, receive: bool, at: u64, len: usize) -> Result<(), Errno> {
    // `struct tpacket_req`.
    if len < 16 {
        return Err(Errno::EINVAL);
    }
    let [block_size, blocks, frame_size, frames] = UserPtr::<[u32; 4]>::new(at).read(task)?;
    if blocks == 0 && frames != 0 || blocks != 0 && !receive {
        return Err(Errno::EINVAL);
    }
    let second = socket.kept(|k| k.version) == 1;
    let shape = (blocks != 0).then_some(Shape { block_size, blocks, frame_size, frames, second });
    if receive { socket.set_ring(&task.kernel().memory, shape) } else { Ok(()) }
}

/// `SO_BINDTODEVICE`: kept. ENODEV, EPERM.
fn bind_to_device(task: &Arc<Task>, socket: &PacketSocket, at: u64, len: usize) -> Result<(), Errno> {
    const IFNAMSIZ: usize = 16;
    let raw = UserPtr::<u8>::new(at).read_array(task, len.min(IFNAMSIZ - 1), IFNAMSIZ)?;
    let index = match raw.split(|b| *b == 0).next().unwrap_or_default() {
        [] => 0,
        name if name == NAME => INDEX,
        name => socket.net.outside().and_then(|o| o.named(name)).map(|i| i.index).ok_or(Errno::ENODEV)?,
    };
    if socket.kept(|k| k.bound) != 0 && !task.creds().capable_in(&socket.net.base.owner, cap::NET_RAW) {
        return Err(Errno::EPERM);
    }
    socket.kept(|k| k.bound = index);
    Ok(())
}

/// `getsockopt(2)`.
pub(super) fn get_option(
    task: &Arc<Task>,
    socket: &Arc<PacketSocket>,
    level: i32,
    name: i32,
    at: u64,
    len: UserPtr<i32>,
) -> SysResult {
    use option::*;
    let room = usize::try_from(len.read(task)?).map_err(|_| Errno::EINVAL)?;
    let int = |n: i32| n.to_ne_bytes().to_vec();
    let switch = |on: bool| int(i32::from(on));
    let k = socket.kept(|k| *k);
    let raw = match (level, name) {
        (SOL_SOCKET, ATTACH_FILTER) => return get_filter(task, &**socket, at, len, room),
        (SOL_SOCKET, TYPE) => int(if socket.raw { 3 } else { 2 }),
        (SOL_SOCKET, PROTOCOL) => int(0),
        (SOL_SOCKET, DOMAIN) => int(AF_PACKET),
        (SOL_SOCKET, BINDTODEVICE) if k.bound == 0 => Vec::new(),
        (SOL_SOCKET, BINDTODEVICE) if room < 16 => return Err(Errno::EINVAL),
        (SOL_SOCKET, BINDTODEVICE) if k.bound == INDEX => [NAME, &[0]].concat(),
        (SOL_SOCKET, BINDTODEVICE) => {
            let i = socket.net.outside().and_then(|o| o.network.interface(k.bound)).ok_or(Errno::ENODEV)?;
            [i.name.as_bytes(), &[0]].concat()
        }
        (SOL_SOCKET, _) => get_basic(&**socket, name, room)?,
        (SOL_PACKET, STATISTICS) => socket.statistics().as_bytes().to_vec(),
        (SOL_PACKET, AUXDATA) => switch(k.auxdata),
        (SOL_PACKET, ORIGDEV) => switch(k.origdev),
        (SOL_PACKET, VERSION) => int(k.version),
        (SOL_PACKET, HDRLEN) if room < 4 => return Err(Errno::EINVAL),
        // `struct tpacket_hdr`, `struct tpacket2_hdr`.
        (SOL_PACKET, HDRLEN) => match UserPtr::<i32>::new(at).read(task)? {
            0 | 1 => int(32),
            _ => return Err(Errno::EINVAL),
        },
        (SOL_PACKET, RESERVE) => int(k.reserve.cast_signed()),
        (SOL_PACKET, LOSS) => switch(k.loss),
        (SOL_PACKET, TIMESTAMP) => int(k.timestamp),
        (SOL_PACKET, TX_HAS_OFF) => switch(k.has_off),
        (SOL_PACKET, QDISC_BYPASS) => switch(k.bypass),
        (SOL_PACKET, IGNORE_OUTGOING) => switch(k.ignore_outgoing),
        _ => return Err(Errno::ENOPROTOOPT),
    };
    put(task, &raw, at, len, room)
}
