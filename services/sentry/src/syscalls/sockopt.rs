//! Options of sockets: `getsockopt`, `setsockopt`, `socket(7)`. The level of the socket itself; Unix sockets have no other.
//!
//! What has no effect on Unix sockets on Linux is kept and told here, too, and nothing else. Called by the dispatcher.

use std::sync::Arc;

use zerocopy::IntoBytes;

use super::socket::{AF_UNIX, SOL_SOCKET, find};
use super::{Entry, Fd, SysResult, UserPtr, done};
use crate::entry;
use crate::errno::Errno;
use crate::ipc::unix::Kind;
use crate::task::Task;
use crate::task::creds::cap;
use crate::time::Timeval;

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(
        54,
        "setsockopt",
        Partial,
        "no SO_TIMESTAMP and its kin, no filters; levels of protocols there are none of: EOPNOTSUPP",
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
const OOBINLINE: i32 = 10;
const NO_CHECK: i32 = 11;
const PRIORITY: i32 = 12;
const LINGER: i32 = 13;
const REUSEPORT: i32 = 15;
const PASSCRED: i32 = 16;
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
/// Options that are only on or off, and kept so.
const SWITCHES: [i32; 9] = [DEBUG, REUSEADDR, DONTROUTE, BROADCAST, KEEPALIVE, OOBINLINE, NO_CHECK, PASSSEC, RXQ_OVFL];

/// Timeouts are kept in steps of so many nanoseconds, rounded up, as a kernel's clock ticks.
const STEP: i64 = 1_000_000;

/// Nanoseconds of a timeout, 0 for none: a negative one is none, one beyond all bounds, too. EDOM if it is not normal.
fn timeout(t: Timeval) -> Result<i64, Errno> {
    if !(0..1_000_000).contains(&t.usec) {
        return Err(Errno::EDOM);
    }
    if t.sec < 0 || t.sec >= i64::MAX / 1_000_000_000 - 1 {
        return Ok(0);
    }
    Ok(t.to_ns()?.saturating_add(STEP - 1) / STEP * STEP)
}

fn setsockopt(task: &Arc<Task>, fd: Fd, level: i32, option: i32, at: u64, len: i32) -> SysResult {
    let (_, socket) = find(task, fd)?;
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
    let network = creds.capable(cap::NET_ADMIN) || creds.capable(cap::NET_RAW);
    match option {
        DEBUG if int != 0 && !creds.capable(cap::NET_ADMIN) => return Err(Errno::EACCES),
        REUSEPORT if int != 0 => return Err(Errno::EOPNOTSUPP),
        REUSEPORT => {}
        _ if SWITCHES.contains(&option) => {
            socket.options(|o| {
                let bit = 1u64 << option;
                o.switches = if int != 0 { o.switches | bit } else { o.switches & !bit };
            });
        }
        PASSCRED => socket.set_pass_creds(int != 0),
        SNDBUFFORCE | RCVBUFFORCE if !creds.capable(cap::NET_ADMIN) => return Err(Errno::EPERM),
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
        RCVTIMEO | SNDTIMEO => {
            if len < size_of::<Timeval>() {
                return Err(Errno::EINVAL);
            }
            socket.set_timeout(option == SNDTIMEO, timeout(UserPtr::<Timeval>::new(at).read(task)?)?);
        }
        _ => return Err(Errno::ENOPROTOOPT),
    }
    done()
}

fn getsockopt(task: &Arc<Task>, fd: Fd, level: i32, option: i32, at: u64, len: UserPtr<i32>) -> SysResult {
    let (_, socket) = find(task, fd)?;
    if level != SOL_SOCKET {
        return Err(Errno::EOPNOTSUPP);
    }
    let room = usize::try_from(len.read(task)?).map_err(|_| Errno::EINVAL)?;
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
        PASSCRED => int(i32::from(socket.pass_creds())),
        PEERCRED => {
            let u = socket.peer_creds();
            [u.pid.to_le_bytes(), u.uid.to_le_bytes(), u.gid.to_le_bytes()].into_iter().flatten().collect()
        }
        RCVTIMEO | SNDTIMEO => {
            let [receive, sending] = socket.timeouts();
            Timeval::from_ns(if option == RCVTIMEO { receive } else { sending }).as_bytes().to_vec()
        }
        ACCEPTCONN => int(i32::from(socket.listens())),
        PROTOCOL => int(0),
        DOMAIN => int(AF_UNIX),
        _ if SWITCHES.contains(&option) => int(i32::from(socket.options(|o| o.switches) & (1 << option) != 0)),
        PRIORITY => int(socket.options(|o| o.priority)),
        MARK => int(socket.options(|o| o.mark)),
        LINGER => socket.options(|o| o.linger).as_bytes().to_vec(),
        RCVLOWAT => int(socket.options(|o| o.low_water)),
        PEEK_OFF => int(socket.options(|o| o.peek_from)),
        PEERGROUPS => socket.peer_groups()?.as_bytes().to_vec(),
        SNDLOWAT => int(1),
        BINDTODEVICE => Vec::new(),
        // Off, and cannot be turned on here.
        REUSEPORT | TIMESTAMP | TIMESTAMPNS | NOFCS | LOCK_FILTER | SELECT_ERR_QUEUE | BUSY_POLL | ZEROCOPY => int(0),
        TIMESTAMPING => vec![0; 8],
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
