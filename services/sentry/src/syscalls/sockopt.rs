//! Options of sockets: `getsockopt`, `setsockopt`, `socket(7)`. The level of the socket itself, which is the same for all; Unix sockets have no
//! other, those of internet sockets are in `inet_options`.
//!
//! What has no effect on Unix sockets on Linux is kept and told here, too, and nothing else. Called by the dispatcher.

use std::sync::Arc;

use zerocopy::IntoBytes;

use super::seccomp::Fprog;
use super::socket::{AF_UNIX, Found, SOL_SOCKET, find};
use super::{Entry, Fd, SysResult, UserPtr, done, inet_options, netlink, packet};
use crate::bpf::{Instruction, Program};
use crate::entry;
use crate::errno::Errno;
use crate::ipc::inet::Inet;
use crate::ipc::packet::PacketSocket;
use crate::ipc::pidfd::pidfd;
use crate::ipc::unix::{INQ, KEEPALIVE, Kind, OOBINLINE, Options, PASSCRED, PASSPIDFD, PASSRIGHTS, Socket};
use crate::task::Task;
use crate::task::creds::cap;
use crate::time::Timeval;

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(
        54,
        "setsockopt",
        Partial,
        "no filters of extended BPF; packet sockets: no TPACKET_V3 and no PACKET_TX_RING (EINVAL), no PACKET_FANOUT and PACKET_VNET_HDR (ENOPROTOOPT); levels of protocols there are none of: EOPNOTSUPP",
        setsockopt(Fd, i32, i32, u64, i32)
    ),
    entry!(55, "getsockopt", Partial, "as setsockopt", getsockopt(Fd, i32, i32, u64, UserPtr<i32>)),
];

const DEBUG: i32 = 1;
pub(super) const REUSEADDR: i32 = 2;
pub(super) const TYPE: i32 = 3;
pub(super) const ERROR: i32 = 4;
const DONTROUTE: i32 = 5;
pub(super) const BROADCAST: i32 = 6;
const SNDBUF: i32 = 7;
const RCVBUF: i32 = 8;
const NO_CHECK: i32 = 11;
const PRIORITY: i32 = 12;
const LINGER: i32 = 13;
pub(super) const REUSEPORT: i32 = 15;
pub(super) const PEERCRED: i32 = 17;
const RCVLOWAT: i32 = 18;
const SNDLOWAT: i32 = 19;
const RCVTIMEO: i32 = 20;
const SNDTIMEO: i32 = 21;
pub(super) const BINDTODEVICE: i32 = 25;
const TIMESTAMP: i32 = 29;
const ACCEPTCONN: i32 = 30;
const SNDBUFFORCE: i32 = 32;
const RCVBUFFORCE: i32 = 33;
pub(super) const PASSSEC: i32 = 34;
const TIMESTAMPNS: i32 = 35;
const MARK: i32 = 36;
const TIMESTAMPING: i32 = 37;
pub(super) const PROTOCOL: i32 = 38;
pub(super) const DOMAIN: i32 = 39;
const RXQ_OVFL: i32 = 40;
const PEEK_OFF: i32 = 42;
const NOFCS: i32 = 43;
const LOCK_FILTER: i32 = 44;
const SELECT_ERR_QUEUE: i32 = 45;
const BUSY_POLL: i32 = 46;
pub(super) const MAX_PACING_RATE: i32 = 47;
const INCOMING_CPU: i32 = 49;
pub(super) const PEERGROUPS: i32 = 59;
pub(super) const ZEROCOPY: i32 = 60;
pub(super) const ATTACH_FILTER: i32 = 26;
const DETACH_FILTER: i32 = 27;
const WIFI_STATUS: i32 = 41;
const BPF_EXTENSIONS: i32 = 48;
const COOKIE: i32 = 57;
const TIMESTAMP_NEW: i32 = 63;
const TIMESTAMPNS_NEW: i32 = 64;
const TIMESTAMPING_NEW: i32 = 65;
const RCVTIMEO_NEW: i32 = 66;
const SNDTIMEO_NEW: i32 = 67;
const RCVMARK: i32 = 75;
pub(super) const PEERPIDFD: i32 = 77;
/// Options that are only on or off, and kept so.
const SWITCHES: [i32; 13] = [
    DEBUG,
    REUSEADDR,
    DONTROUTE,
    BROADCAST,
    KEEPALIVE,
    OOBINLINE,
    NO_CHECK,
    PASSSEC,
    RXQ_OVFL,
    WIFI_STATUS,
    NOFCS,
    SELECT_ERR_QUEUE,
    RCVMARK,
];

/// What the options of the socket's own level are of.
pub(super) trait Basic {
    /// What is kept.
    fn kept<R>(&self, f: impl FnOnce(&mut Options) -> R) -> R;
    /// Sets the size of a buffer; `forced`: beyond the bounds (`SO_SNDBUFFORCE`).
    fn size(&self, send: bool, bytes: usize, forced: bool);
    /// Sizes of the buffers: send, receive.
    fn sizes(&self) -> (usize, usize);
    /// Sets a time to wait, nanoseconds, 0 for ever.
    fn patience(&self, send: bool, ns: i64);
    /// Times to wait: for receiving, for sending.
    fn patiences(&self) -> [i64; 2];
    /// The filter of what comes in.
    fn packets(&self) -> Option<Arc<Program>>;
    /// Sets it; the one before.
    fn set_packets(&self, filter: Option<Arc<Program>>) -> Option<Arc<Program>>;
    /// Takes the error that waits to be told.
    fn failure(&self) -> Option<Errno>;
    /// Whether it listens.
    fn is_listening(&self) -> bool;
    /// Unique.
    fn number(&self) -> u64;
}

macro_rules! basic {
    ($socket:ty, $size:expr) => {
        impl Basic for $socket {
            fn kept<R>(&self, f: impl FnOnce(&mut Options) -> R) -> R {
                self.options(f)
            }
            fn size(&self, send: bool, bytes: usize, forced: bool) {
                $size(self, send, bytes, forced);
            }
            fn sizes(&self) -> (usize, usize) {
                self.buffers()
            }
            fn patience(&self, send: bool, ns: i64) {
                self.set_timeout(send, ns);
            }
            fn patiences(&self) -> [i64; 2] {
                self.timeouts()
            }
            fn packets(&self) -> Option<Arc<Program>> {
                self.filter()
            }
            fn set_packets(&self, filter: Option<Arc<Program>>) -> Option<Arc<Program>> {
                self.set_filter(filter)
            }
            fn failure(&self) -> Option<Errno> {
                self.take_error()
            }
            fn is_listening(&self) -> bool {
                self.listens()
            }
            fn number(&self) -> u64 {
                self.id
            }
        }
    };
}
basic!(Socket, |socket: &Socket, send, bytes, _| socket.set_buffer(send, bytes));
basic!(PacketSocket, |socket: &PacketSocket, send, bytes, forced: bool| {
    let most = if forced { i32::MAX as usize / 2 } else { socket.net.settings.largest(send) };
    socket.set_buffer(send, bytes, most);
});
basic!(Inet, |socket: &Inet, send, bytes, forced: bool| {
    let most = if forced { i32::MAX as usize / 2 } else { socket.net.settings.largest(send) };
    socket.set_buffer(send, bytes, most);
});

/// Flags of `SO_TIMESTAMPING`; what some of them need.
mod timestamping {
    pub const OPT_ID: u32 = 0x80;
    pub const OPT_TSONLY: u32 = 0x800;
    pub const OPT_STATS: u32 = 0x1000;
    pub const BIND_PHC: u32 = 0x8000;
    pub const OPT_ID_TCP: u32 = 0x1_0000;
    pub const ALL: u32 = 0x7_ffff;
}

/// `SO_TIMESTAMPING`: which times are taken and told.
fn set_timestamping(socket: &impl Basic, flags: u32, new: bool) -> Result<(), Errno> {
    use timestamping::{ALL, BIND_PHC, OPT_ID, OPT_ID_TCP, OPT_STATS, OPT_TSONLY};
    let has = |flag: u32| flags & flag != 0;
    if flags & !ALL != 0 || has(OPT_ID_TCP) && !has(OPT_ID) || has(OPT_STATS) && !has(OPT_TSONLY) {
        return Err(Errno::EINVAL);
    }
    // There is no clock of hardware.
    if has(BIND_PHC) {
        return Err(Errno::EOPNOTSUPP);
    }
    socket.kept(|o| (o.times.flags, o.times.new) = (flags, new));
    Ok(())
}

/// Timeouts are kept in steps of so many nanoseconds, rounded up, as a kernel's clock ticks.
const STEP: i64 = 1_000_000;

/// Nanoseconds of a timeout, 0 for none: a negative one is none, one beyond all bounds, too. EDOM if it is not normal.
pub(super) fn timeout(t: Timeval) -> Result<i64, Errno> {
    if !(0..1_000_000).contains(&t.usec) {
        return Err(Errno::EDOM);
    }
    if t.sec < 0 || t.sec >= i64::MAX / 1_000_000_000 - 1 {
        return Ok(0);
    }
    Ok(t.to_ns()?.saturating_add(STEP - 1) / STEP * STEP)
}

fn setsockopt(task: &Arc<Task>, fd: Fd, level: i32, option: i32, at: u64, len: i32) -> SysResult {
    let (_, socket) = match find(task, fd)? {
        Found::Unix(found) => found,
        Found::Netlink(open) => return netlink::set_option(task, &open, level, option, at, len),
        Found::Packet(open) => return packet::set_option(task, &open.socket, level, option, at, len),
        Found::Inet(open) => return inet_options::set(task, &open.socket, level, option, at, len),
    };
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    if level != SOL_SOCKET {
        return Err(Errno::EOPNOTSUPP);
    }
    if option == BINDTODEVICE {
        return Err(Errno::ENOPROTOOPT);
    }
    if len < 4 {
        return Err(Errno::EINVAL);
    }
    let int = UserPtr::<i32>::new(at).read(task)?;
    match option {
        REUSEPORT if int != 0 => return Err(Errno::EOPNOTSUPP),
        REUSEPORT => {}
        _ if [PASSCRED, PASSPIDFD, PASSRIGHTS].contains(&option) => socket.options(|o| o.set_switch(option, int != 0)),
        INQ if socket.kind != Kind::Stream => return Err(Errno::ENOPROTOOPT),
        INQ if !(0..=1).contains(&int) => return Err(Errno::EINVAL),
        INQ => socket.options(|o| o.set_switch(INQ, int != 0)),
        _ => set_basic(task, &*socket, option, (at, len), int)?,
    }
    done()
}

/// Sets an option that all kinds of sockets have. `int`: what is there as a number.
pub(super) fn set_basic(
    task: &Arc<Task>,
    socket: &impl Basic,
    option: i32,
    (at, len): (u64, usize),
    int: i32,
) -> Result<(), Errno> {
    let creds = task.creds();
    let net = task.namespaces().net.clone();
    let admin = creds.capable_in(&net.base.owner, cap::NET_ADMIN);
    let network = admin || creds.capable_in(&net.base.owner, cap::NET_RAW);
    match option {
        DEBUG if int != 0 && !creds.capable(cap::NET_ADMIN) => return Err(Errno::EACCES),
        _ if SWITCHES.contains(&option) => {
            socket.kept(|o| o.set_switch(option, int != 0));
        }
        ATTACH_FILTER if len != size_of::<Fprog>() => return Err(Errno::EINVAL),
        ATTACH_FILTER => {
            let program = UserPtr::<Fprog>::new(at).read(task)?;
            if socket.kept(|o| o.switch(LOCK_FILTER)) {
                return Err(Errno::EPERM);
            }
            socket.set_packets(Some(Arc::new(Program::of_socket(program.code(task)?)?)));
        }
        DETACH_FILTER if socket.kept(|o| o.switch(LOCK_FILTER)) => return Err(Errno::EPERM),
        DETACH_FILTER => drop(socket.set_packets(None).ok_or(Errno::ENOENT)?),
        LOCK_FILTER if int == 0 && socket.kept(|o| o.switch(LOCK_FILTER)) => return Err(Errno::EPERM),
        LOCK_FILTER => socket.kept(|o| o.set_switch(LOCK_FILTER, int != 0)),
        TIMESTAMP | TIMESTAMPNS | TIMESTAMP_NEW | TIMESTAMPNS_NEW => socket.kept(|o| {
            let ns = matches!(option, TIMESTAMPNS | TIMESTAMPNS_NEW);
            let new = matches!(option, TIMESTAMP_NEW | TIMESTAMPNS_NEW);
            (o.times.on, o.times.ns) = (int != 0, int != 0 && ns);
            if int != 0 {
                o.times.new = new;
            }
        }),
        TIMESTAMPING | TIMESTAMPING_NEW => set_timestamping(socket, int.cast_unsigned(), option == TIMESTAMPING_NEW)?,
        SNDBUFFORCE | RCVBUFFORCE if !admin => return Err(Errno::EPERM),
        // A negative size is the largest there is.
        SNDBUF | SNDBUFFORCE | RCVBUF | RCVBUFFORCE => {
            let forced = matches!(option, SNDBUFFORCE | RCVBUFFORCE);
            let bytes = usize::try_from(int).unwrap_or(usize::MAX);
            socket.size(matches!(option, SNDBUF | SNDBUFFORCE), bytes, forced);
        }
        PRIORITY if !(0..=6).contains(&int) && !network => return Err(Errno::EPERM),
        PRIORITY => socket.kept(|o| o.priority = int),
        MARK if !network => return Err(Errno::EPERM),
        MARK => socket.kept(|o| o.mark = int),
        LINGER => {
            if len < 8 {
                return Err(Errno::EINVAL);
            }
            let linger = UserPtr::<[i32; 2]>::new(at).read(task)?;
            socket.kept(|o| o.linger = if linger[0] == 0 { [0, o.linger[1]] } else { [1, linger[1]] });
        }
        RCVLOWAT => socket.kept(|o| {
            o.low_water = match int {
                0 => 1,
                n if n < 0 => i32::MAX,
                n => n,
            };
        }),
        PEEK_OFF => socket.kept(|o| o.peek_from = int),
        RCVTIMEO | SNDTIMEO | RCVTIMEO_NEW | SNDTIMEO_NEW => {
            if len < size_of::<Timeval>() {
                return Err(Errno::EINVAL);
            }
            let sending = matches!(option, SNDTIMEO | SNDTIMEO_NEW);
            socket.patience(sending, timeout(UserPtr::<Timeval>::new(at).read(task)?)?);
        }
        _ => return Err(Errno::ENOPROTOOPT),
    }
    Ok(())
}

fn getsockopt(task: &Arc<Task>, fd: Fd, level: i32, option: i32, at: u64, len: UserPtr<i32>) -> SysResult {
    let (_, socket) = match find(task, fd)? {
        Found::Unix(found) => found,
        Found::Netlink(open) => return netlink::get_option(task, &open, level, option, at, len),
        Found::Packet(open) => return packet::get_option(task, &open.socket, level, option, at, len),
        Found::Inet(open) => return inet_options::get(task, &open.socket, level, option, at, len),
    };
    if level != SOL_SOCKET {
        return Err(Errno::EOPNOTSUPP);
    }
    let room = usize::try_from(len.read(task)?).map_err(|_| Errno::EINVAL)?;
    if option == ATTACH_FILTER {
        return get_filter(task, &*socket, at, len, room);
    }
    let int = |n: i32| n.to_le_bytes().to_vec();
    let raw = match option {
        TYPE => int(match socket.kind {
            Kind::Stream => 1,
            Kind::Datagram => 2,
            Kind::Packet => 5,
        }),
        PEERCRED => {
            let u = socket.peer_creds();
            u.shown_to(task)
        }
        PROTOCOL => int(0),
        DOMAIN => int(AF_UNIX),
        _ if [PASSCRED, PASSPIDFD, PASSRIGHTS].contains(&option) => {
            int(i32::from(socket.options(|o| o.switch(option))))
        }
        PEERGROUPS => {
            let creds = task.creds();
            socket.peer_groups()?.iter().flat_map(|g| creds.shown_gid(*g).to_le_bytes()).collect()
        }
        BINDTODEVICE => Vec::new(),
        // Off, and cannot be turned on here.
        REUSEPORT => int(0),
        PEERPIDFD => {
            let peer = socket.peer_process()?;
            int(task.add_file(pidfd(task.kernel(), &peer, false), true)?)
        }
        _ => get_basic(&*socket, option, room)?,
    };
    // Groups come whole or not at all.
    if option == PEERGROUPS && raw.len() > room {
        len.write(task, &i32::try_from(raw.len()).unwrap_or(i32::MAX))?;
        return Err(Errno::ERANGE);
    }
    put(task, &raw, at, len, room)
}

/// Tells as much of an option as there is room for.
pub(super) fn put(task: &Arc<Task>, raw: &[u8], at: u64, len: UserPtr<i32>, room: usize) -> SysResult {
    let n = room.min(raw.len());
    task.write_exact(at, raw.get(..n).unwrap_or_default())?;
    len.write(task, &i32::try_from(n).unwrap_or(0))?;
    done()
}

/// `SO_ATTACH_FILTER`, asked for.
pub(super) fn get_filter(task: &Arc<Task>, socket: &impl Basic, at: u64, len: UserPtr<i32>, room: usize) -> SysResult {
    // The length is counted in instructions, and tells how many there are.
    let filter = socket.packets();
    let code = filter.as_deref().map_or(&[][..], Program::code);
    if room > 0 && room < code.len() {
        return Err(Errno::EINVAL);
    }
    if room > 0 {
        UserPtr::<Instruction>::new(at).write_array(task, code)?;
    }
    len.write(task, &i32::try_from(code.len()).unwrap_or(0))?;
    done()
}

/// An option that all kinds of sockets have.
pub(super) fn get_basic(socket: &impl Basic, option: i32, room: usize) -> Result<Vec<u8>, Errno> {
    let int = |n: i32| n.to_le_bytes().to_vec();
    let size = |n: usize| int(i32::try_from(n).unwrap_or(i32::MAX));
    Ok(match option {
        ERROR => int(socket.failure().map_or(0, Errno::code)),
        SNDBUF => size(socket.sizes().0),
        RCVBUF => size(socket.sizes().1),
        RCVTIMEO | SNDTIMEO | RCVTIMEO_NEW | SNDTIMEO_NEW => {
            let [receive, sending] = socket.patiences();
            let receiving = matches!(option, RCVTIMEO | RCVTIMEO_NEW);
            Timeval::from_ns(if receiving { receive } else { sending }).as_bytes().to_vec()
        }
        ACCEPTCONN => int(i32::from(socket.is_listening())),
        _ if SWITCHES.contains(&option) => int(i32::from(socket.kept(|o| o.switch(option)))),
        PRIORITY => int(socket.kept(|o| o.priority)),
        MARK => int(socket.kept(|o| o.mark)),
        LINGER => socket.kept(|o| o.linger).as_bytes().to_vec(),
        RCVLOWAT => int(socket.kept(|o| o.low_water)),
        PEEK_OFF => int(socket.kept(|o| o.peek_from)),
        SNDLOWAT => int(1),
        // Off, and cannot be turned on here.
        BUSY_POLL | ZEROCOPY => int(0),
        LOCK_FILTER => int(i32::from(socket.kept(|o| o.switch(LOCK_FILTER)))),
        TIMESTAMP | TIMESTAMPNS | TIMESTAMP_NEW | TIMESTAMPNS_NEW => {
            let t = socket.kept(|o| o.times);
            int(i32::from(match option {
                TIMESTAMP => t.on && !t.new && !t.ns,
                TIMESTAMPNS => t.ns && !t.new,
                TIMESTAMP_NEW => t.on && t.new,
                _ => t.ns && t.new,
            }))
        }
        TIMESTAMPING | TIMESTAMPING_NEW => {
            let t = socket.kept(|o| o.times);
            let flags = if option == TIMESTAMPING || t.new { t.flags } else { 0 };
            [flags, 0].as_bytes().to_vec()
        }
        BPF_EXTENSIONS => int(64),
        COOKIE if room < 8 => return Err(Errno::EINVAL),
        COOKIE => socket.number().to_le_bytes().to_vec(),
        MAX_PACING_RATE => vec![0xff; 8],
        INCOMING_CPU => int(-1),
        _ => return Err(Errno::ENOPROTOOPT),
    })
}
