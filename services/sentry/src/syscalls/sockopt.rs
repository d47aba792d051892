//! Options of sockets: `getsockopt`, `setsockopt`, `socket(7)`. The level of the socket itself; Unix sockets have no other.
//!
//! What has no effect on Unix sockets on Linux is kept and told here, too, and nothing else. Called by the dispatcher.

use std::sync::Arc;

use zerocopy::IntoBytes;

use super::seccomp::Fprog;
use super::socket::{AF_UNIX, Found, SOL_SOCKET, find};
use super::{Entry, Fd, SysResult, UserPtr, done, netlink};
use crate::bpf::{Instruction, Program};
use crate::entry;
use crate::errno::Errno;
use crate::ipc::pidfd::pidfd;
use crate::ipc::unix::{INQ, Kind, OOBINLINE, PASSCRED, PASSPIDFD, PASSRIGHTS, Socket};
use crate::task::Task;
use crate::task::creds::cap;
use crate::time::Timeval;

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(
        54,
        "setsockopt",
        Partial,
        "no filters of extended BPF; levels of protocols there are none of: EOPNOTSUPP",
        setsockopt(Fd, i32, i32, u64, i32)
    ),
    entry!(55, "getsockopt", Partial, "as setsockopt", getsockopt(Fd, i32, i32, u64, UserPtr<i32>)),
];

const DEBUG: i32 = 1;
const REUSEADDR: i32 = 2;
const TYPE: i32 = 3;
const ERROR: i32 = 4;
const DONTROUTE: i32 = 5;
const BROADCAST: i32 = 6;
const SNDBUF: i32 = 7;
const RCVBUF: i32 = 8;
const KEEPALIVE: i32 = 9;
const NO_CHECK: i32 = 11;
const PRIORITY: i32 = 12;
const LINGER: i32 = 13;
const REUSEPORT: i32 = 15;
const PEERCRED: i32 = 17;
const RCVLOWAT: i32 = 18;
const SNDLOWAT: i32 = 19;
const RCVTIMEO: i32 = 20;
const SNDTIMEO: i32 = 21;
const BINDTODEVICE: i32 = 25;
const TIMESTAMP: i32 = 29;
const ACCEPTCONN: i32 = 30;
const SNDBUFFORCE: i32 = 32;
const RCVBUFFORCE: i32 = 33;
const PASSSEC: i32 = 34;
const TIMESTAMPNS: i32 = 35;
const MARK: i32 = 36;
const TIMESTAMPING: i32 = 37;
const PROTOCOL: i32 = 38;
const DOMAIN: i32 = 39;
const RXQ_OVFL: i32 = 40;
const PEEK_OFF: i32 = 42;
const NOFCS: i32 = 43;
const LOCK_FILTER: i32 = 44;
const SELECT_ERR_QUEUE: i32 = 45;
const BUSY_POLL: i32 = 46;
const MAX_PACING_RATE: i32 = 47;
const INCOMING_CPU: i32 = 49;
const PEERGROUPS: i32 = 59;
const ZEROCOPY: i32 = 60;
const ATTACH_FILTER: i32 = 26;
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
const PEERPIDFD: i32 = 77;
/// Options that are only on or off, and kept so.
const SWITCHES: [i32; 16] = [
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
    PASSCRED,
    PASSPIDFD,
    PASSRIGHTS,
];

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
fn set_timestamping(socket: &Socket, flags: u32, new: bool) -> Result<(), Errno> {
    use timestamping::{ALL, BIND_PHC, OPT_ID, OPT_ID_TCP, OPT_STATS, OPT_TSONLY};
    let has = |flag: u32| flags & flag != 0;
    if flags & !ALL != 0 || has(OPT_ID_TCP) && !has(OPT_ID) || has(OPT_STATS) && !has(OPT_TSONLY) {
        return Err(Errno::EINVAL);
    }
    // There is no clock of hardware.
    if has(BIND_PHC) {
        return Err(Errno::EOPNOTSUPP);
    }
    socket.options(|o| (o.times.flags, o.times.new) = (flags, new));
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
    let creds = task.creds();
    let net = task.namespaces().net.clone();
    let admin = creds.capable_in(&net.base.owner, cap::NET_ADMIN);
    let network = admin || creds.capable_in(&net.base.owner, cap::NET_RAW);
    match option {
        DEBUG if int != 0 && !creds.capable(cap::NET_ADMIN) => return Err(Errno::EACCES),
        REUSEPORT if int != 0 => return Err(Errno::EOPNOTSUPP),
        REUSEPORT => {}
        _ if SWITCHES.contains(&option) => {
            socket.options(|o| o.set_switch(option, int != 0));
        }
        ATTACH_FILTER if len != size_of::<Fprog>() => return Err(Errno::EINVAL),
        ATTACH_FILTER => {
            let program = UserPtr::<Fprog>::new(at).read(task)?;
            if socket.options(|o| o.switch(LOCK_FILTER)) {
                return Err(Errno::EPERM);
            }
            socket.set_filter(Some(Arc::new(Program::of_socket(program.code(task)?)?)));
        }
        DETACH_FILTER if socket.options(|o| o.switch(LOCK_FILTER)) => return Err(Errno::EPERM),
        DETACH_FILTER => drop(socket.set_filter(None).ok_or(Errno::ENOENT)?),
        LOCK_FILTER if int == 0 && socket.options(|o| o.switch(LOCK_FILTER)) => return Err(Errno::EPERM),
        LOCK_FILTER => socket.options(|o| o.set_switch(LOCK_FILTER, int != 0)),
        INQ if socket.kind != Kind::Stream => return Err(Errno::ENOPROTOOPT),
        INQ if !(0..=1).contains(&int) => return Err(Errno::EINVAL),
        INQ => socket.options(|o| o.set_switch(INQ, int != 0)),
        TIMESTAMP | TIMESTAMPNS | TIMESTAMP_NEW | TIMESTAMPNS_NEW => socket.options(|o| {
            let ns = matches!(option, TIMESTAMPNS | TIMESTAMPNS_NEW);
            let new = matches!(option, TIMESTAMP_NEW | TIMESTAMPNS_NEW);
            (o.times.on, o.times.ns) = (int != 0, int != 0 && ns);
            if int != 0 {
                o.times.new = new;
            }
        }),
        TIMESTAMPING | TIMESTAMPING_NEW => set_timestamping(&socket, int.cast_unsigned(), option == TIMESTAMPING_NEW)?,
        SNDBUFFORCE | RCVBUFFORCE if !admin => return Err(Errno::EPERM),
        // A negative size is the largest there is.
        SNDBUF | SNDBUFFORCE => socket.set_buffer(true, usize::try_from(int).unwrap_or(usize::MAX)),
        RCVBUF | RCVBUFFORCE => socket.set_buffer(false, usize::try_from(int).unwrap_or(usize::MAX)),
        PRIORITY if !(0..=6).contains(&int) && !network => return Err(Errno::EPERM),
        PRIORITY => socket.options(|o| o.priority = int),
        MARK if !network => return Err(Errno::EPERM),
        MARK => socket.options(|o| o.mark = int),
        LINGER => {
            if len < 8 {
                return Err(Errno::EINVAL);
            }
            let linger = UserPtr::<[i32; 2]>::new(at).read(task)?;
            socket.options(|o| o.linger = if linger[0] == 0 { [0, o.linger[1]] } else { [1, linger[1]] });
        }
        RCVLOWAT => socket.options(|o| {
            o.low_water = match int {
                0 => 1,
                n if n < 0 => i32::MAX,
                n => n,
            };
        }),
        PEEK_OFF => socket.options(|o| o.peek_from = int),
        RCVTIMEO | SNDTIMEO | RCVTIMEO_NEW | SNDTIMEO_NEW => {
            if len < size_of::<Timeval>() {
                return Err(Errno::EINVAL);
            }
            let sending = matches!(option, SNDTIMEO | SNDTIMEO_NEW);
            socket.set_timeout(sending, timeout(UserPtr::<Timeval>::new(at).read(task)?)?);
        }
        _ => return Err(Errno::ENOPROTOOPT),
    }
    done()
}

fn getsockopt(task: &Arc<Task>, fd: Fd, level: i32, option: i32, at: u64, len: UserPtr<i32>) -> SysResult {
    let (_, socket) = match find(task, fd)? {
        Found::Unix(found) => found,
        Found::Netlink(open) => return netlink::get_option(task, &open, level, option, at, len),
    };
    if level != SOL_SOCKET {
        return Err(Errno::EOPNOTSUPP);
    }
    let room = usize::try_from(len.read(task)?).map_err(|_| Errno::EINVAL)?;
    if option == ATTACH_FILTER {
        // The length is counted in instructions, and tells how many there are.
        let filter = socket.filter();
        let code = filter.as_deref().map_or(&[][..], Program::code);
        if room > 0 && room < code.len() {
            return Err(Errno::EINVAL);
        }
        if room > 0 {
            UserPtr::<Instruction>::new(at).write_array(task, code)?;
        }
        len.write(task, &i32::try_from(code.len()).unwrap_or(0))?;
        return done();
    }
    let int = |n: i32| n.to_le_bytes().to_vec();
    let size = |n: usize| int(i32::try_from(n).unwrap_or(i32::MAX));
    let raw = match option {
        TYPE => int(match socket.kind {
            Kind::Stream => 1,
            Kind::Datagram => 2,
            Kind::Packet => 5,
        }),
        ERROR => int(socket.take_error().map_or(0, Errno::code)),
        SNDBUF => size(socket.buffers().0),
        RCVBUF => size(socket.buffers().1),
        PEERCRED => {
            let u = socket.peer_creds();
            u.shown_to(task)
        }
        RCVTIMEO | SNDTIMEO | RCVTIMEO_NEW | SNDTIMEO_NEW => {
            let [receive, sending] = socket.timeouts();
            let receiving = matches!(option, RCVTIMEO | RCVTIMEO_NEW);
            Timeval::from_ns(if receiving { receive } else { sending }).as_bytes().to_vec()
        }
        ACCEPTCONN => int(i32::from(socket.listens())),
        PROTOCOL => int(0),
        DOMAIN => int(AF_UNIX),
        _ if SWITCHES.contains(&option) => int(i32::from(socket.options(|o| o.switch(option)))),
        PRIORITY => int(socket.options(|o| o.priority)),
        MARK => int(socket.options(|o| o.mark)),
        LINGER => socket.options(|o| o.linger).as_bytes().to_vec(),
        RCVLOWAT => int(socket.options(|o| o.low_water)),
        PEEK_OFF => int(socket.options(|o| o.peek_from)),
        PEERGROUPS => {
            let creds = task.creds();
            socket.peer_groups()?.iter().flat_map(|g| creds.shown_gid(*g).to_le_bytes()).collect()
        }
        SNDLOWAT => int(1),
        BINDTODEVICE => Vec::new(),
        // Off, and cannot be turned on here.
        REUSEPORT | BUSY_POLL | ZEROCOPY => int(0),
        LOCK_FILTER => int(i32::from(socket.options(|o| o.switch(LOCK_FILTER)))),
        TIMESTAMP | TIMESTAMPNS | TIMESTAMP_NEW | TIMESTAMPNS_NEW => {
            let t = socket.options(|o| o.times);
            int(i32::from(match option {
                TIMESTAMP => t.on && !t.new && !t.ns,
                TIMESTAMPNS => t.ns && !t.new,
                TIMESTAMP_NEW => t.on && t.new,
                _ => t.ns && t.new,
            }))
        }
        TIMESTAMPING | TIMESTAMPING_NEW => {
            let t = socket.options(|o| o.times);
            let flags = if option == TIMESTAMPING || t.new { t.flags } else { 0 };
            [flags, 0].as_bytes().to_vec()
        }
        BPF_EXTENSIONS => int(64),
        COOKIE if room < 8 => return Err(Errno::EINVAL),
        COOKIE => socket.id.to_le_bytes().to_vec(),
        PEERPIDFD => {
            let peer = socket.peer_process()?;
            int(task.add_file(pidfd(task.kernel(), &peer, false), true)?)
        }
        MAX_PACING_RATE => vec![0xff; 8],
        INCOMING_CPU => int(-1),
        _ => return Err(Errno::ENOPROTOOPT),
    };
    // Groups come whole or not at all.
    if option == PEERGROUPS && raw.len() > room {
        len.write(task, &i32::try_from(raw.len()).unwrap_or(i32::MAX))?;
        return Err(Errno::ERANGE);
    }
    let n = room.min(raw.len());
    task.write_exact(at, raw.get(..n).unwrap_or_default())?;
    len.write(task, &i32::try_from(n).unwrap_or(0))?;
    done()
}
