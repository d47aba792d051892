//! The system as a whole: names, totals, random bytes, the kernel log.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Entry, SysResult, UserPtr, UserStr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::filesystems::proc::totals;
use crate::signal::sig;
use crate::task::Task;
use crate::task::creds::cap;
use crate::time::NS;

/// The kernel version that the container sees: the interface it is modelled on.
pub const RELEASE: &str = "6.1.0-cofferdam";
/// The version line.
pub const VERSION: &str = "#1 SMP Cofferdam";

fn uname(task: &Arc<Task>, to: UserPtr<u8>) -> SysResult {
    let uts = task.uts();
    let names = uts.names.read();
    let narrow = task.group().personality.load(Ordering::Relaxed) & PER_MASK == PER_LINUX32;
    let machine: &[u8] = if narrow { b"i686" } else { b"x86_64" };
    let fields: [&[u8]; 6] = [b"Linux", &names.0, RELEASE.as_bytes(), VERSION.as_bytes(), machine, &names.1];
    let mut out = Vec::with_capacity(6 * 65);
    for f in fields {
        let f = f.get(..f.len().min(64)).unwrap_or_default();
        out.extend_from_slice(f);
        out.resize(out.len() + 65 - f.len(), 0);
    }
    drop(names);
    task.write_exact(to.address(), &out)?;
    done()
}

fn set_name(task: &Arc<Task>, from: UserPtr<u8>, len: usize, domain: bool) -> SysResult {
    let uts = task.uts();
    if !task.creds().capable_in(&uts.base.owner, cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    if len > 64 {
        return Err(Errno::EINVAL);
    }
    let mut name = vec![0; len];
    task.read_exact(from.address(), &mut name)?;
    let mut names = uts.names.write();
    if domain {
        names.1 = name
    } else {
        names.0 = name
    }
    done()
}

fn sethostname(task: &Arc<Task>, from: UserPtr<u8>, len: usize) -> SysResult {
    set_name(task, from, len, false)
}

fn setdomainname(task: &Arc<Task>, from: UserPtr<u8>, len: usize) -> SysResult {
    set_name(task, from, len, true)
}

/// `struct sysinfo`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
struct SysInfo {
    uptime: i64,
    loads: [u64; 3],
    total_ram: u64,
    free_ram: u64,
    shared_ram: u64,
    buffer_ram: u64,
    total_swap: u64,
    free_swap: u64,
    procs: u16,
    pad: u16,
    pad2: u32,
    total_high: u64,
    free_high: u64,
    mem_unit: u32,
    end: u32,
}

fn sysinfo(task: &Arc<Task>, to: UserPtr<SysInfo>) -> SysResult {
    let kernel = task.kernel();
    let memory = totals::Memory::now(kernel);
    // Fixed point, 16 bits behind it.
    let loads = kernel.load.averages(kernel).map(|l| (l * 65536.0) as u64);
    let info = SysInfo {
        uptime: totals::uptime(kernel) / NS,
        loads,
        total_ram: memory.total,
        free_ram: memory.free,
        shared_ram: memory.shared,
        procs: u16::try_from(kernel.tree.lock().count()).unwrap_or(u16::MAX),
        mem_unit: 1,
        ..SysInfo::default()
    };
    to.write(task, &info)?;
    done()
}

/// Total and free memory of the host, bytes.
pub fn memory() -> (u64, u64) {
    let s = rustix::system::sysinfo();
    let unit = u64::from(s.mem_unit.max(1));
    (s.totalram.saturating_mul(unit), s.freeram.saturating_mul(unit))
}

fn getrandom(task: &Arc<Task>, to: UserPtr<u8>, len: usize, flags: u32) -> SysResult {
    if flags & !7 != 0 || flags & 6 == 6 {
        return Err(Errno::EINVAL);
    }
    let len = len.min(0x1ff_ffff);
    let mut put = 0;
    let mut chunk = [0u8; 4096];
    while put < len {
        let n = (len - put).min(chunk.len());
        let part = chunk.get_mut(..n).ok_or(Errno::EIO)?;
        ::getrandom::fill(part).map_err(|_| Errno::EIO)?;
        match task.write_memory(to.offset(put as u64)?.address(), part) {
            Ok(m) if m == n => put += n,
            Ok(m) if put + m > 0 => return value(put + m),
            _ if put > 0 => return value(put),
            _ => return Err(Errno::EFAULT),
        }
    }
    value(put)
}

/// The kernel log as `dmesg` reads it.
pub fn log_text(task: &Task) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, line) in task.kernel().log.lock().iter() {
        out.extend_from_slice(format!("<6>[{:5}.{:06}] {line}\n", at / NS, at % NS / 1000).as_bytes());
    }
    out
}

fn syslog(task: &Arc<Task>, kind: i32, to: UserPtr<u8>, len: i32) -> SysResult {
    const READ: i32 = 2;
    const READ_ALL: i32 = 3;
    const READ_CLEAR: i32 = 4;
    const CLEAR: i32 = 5;
    const SIZE_UNREAD: i32 = 9;
    const SIZE_BUFFER: i32 = 10;
    if !matches!(kind, READ_ALL | SIZE_BUFFER) && !task.creds().capable(cap::SYSLOG) {
        return Err(Errno::EPERM);
    }
    match kind {
        READ | READ_ALL | READ_CLEAR => {
            let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
            let text = log_text(task);
            // The last whole lines that fit.
            let mut from = text.len().saturating_sub(len);
            if from > 0 {
                let rest = text.get(from..).unwrap_or_default();
                from += rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |p| p + 1);
            }
            let part = text.get(from..).unwrap_or_default();
            task.write_exact(to.address(), part)?;
            value(part.len())
        }
        SIZE_UNREAD => value(log_text(task).len()),
        SIZE_BUFFER => value(1 << 18),
        // The log is the sandbox's own record: it is not cleared. Console levels have no console to act on.
        CLEAR | 0 | 1 | 6 | 7 | 8 => done(),
        _ => Err(Errno::EINVAL),
    }
}

fn reboot(task: &Arc<Task>, first: u32, second: u32, command: u32) -> SysResult {
    const FIRST: u32 = 0xfee1_dead;
    const SECOND: [u32; 4] = [672_274_793, 85_072_278, 369_367_448, 537_993_216];
    let space = &task.group().pid_ns;
    if !task.creds().capable_in(&space.base.owner, cap::SYS_BOOT) {
        return Err(Errno::EPERM);
    }
    // The sandbox itself is as a PID namespace that is not the first, but one that cannot be ended so.
    if space.is_first() || first != FIRST || !SECOND.contains(&second) {
        return Err(Errno::EINVAL);
    }
    // What the first process of the namespace seems to have ended by: to start again, or to stay down.
    let signal = match command {
        0x0123_4567 | 0xa1b2_c3d4 => sig::HUP,
        0xcdef_0123 | 0x4321_fedc => sig::INT,
        _ => return Err(Errno::EINVAL),
    };
    let init = task.kernel().tree.lock().task(space.init()).ok_or(Errno::EINVAL)?;
    crate::task::exit::exit_group(&init, signal);
    // The caller is gone with it; nothing is answered.
    Err(Errno::EINTR)
}

/// `ADDR_NO_RANDOMIZE`: programs started from now on lie where they lay before.
pub const ADDR_NO_RANDOMIZE: i32 = 0x4_0000;
/// The part of a personality that says which system it is, and the one whose machine is an i686.
const PER_MASK: i32 = 0xff;
const PER_LINUX32: i32 = 8;

fn personality(task: &Arc<Task>, wanted: u32) -> SysResult {
    let kept = &task.group().personality;
    match i32::from_ne_bytes(wanted.to_ne_bytes()) {
        -1 => value(kept.load(Ordering::Relaxed)),
        new if matches!(new & !ADDR_NO_RANDOMIZE, 0 | PER_LINUX32) => value(kept.swap(new, Ordering::Relaxed)),
        _ => Err(Errno::EINVAL),
    }
}

fn swap(task: &Arc<Task>, _path: UserStr) -> SysResult {
    if task.creds().capable(cap::SYS_ADMIN) { Err(Errno::EINVAL) } else { Err(Errno::EPERM) }
}

fn swapon(task: &Arc<Task>, path: UserStr, _flags: i32) -> SysResult {
    swap(task, path)
}

fn not_yours(_: &Arc<Task>) -> SysResult {
    Err(Errno::EPERM)
}

/// The system calls about the system.
pub const TABLE: &[Entry] = &[
    entry!(63, "uname", Full, "", uname(UserPtr<u8>)),
    entry!(99, "sysinfo", Full, "", sysinfo(UserPtr<SysInfo>)),
    entry!(103, "syslog", Partial, "the sandbox's own log; it cannot be cleared", syslog(i32, UserPtr<u8>, i32)),
    entry!(
        135,
        "personality",
        Partial,
        "PER_LINUX and PER_LINUX32, with or without ADDR_NO_RANDOMIZE",
        personality(u32)
    ),
    entry!(153, "vhangup", Refused, "EPERM; a terminal hangs up when its other end goes", not_yours()),
    entry!(163, "acct", Refused, "EPERM; no accounting", not_yours()),
    entry!(164, "settimeofday", Refused, "EPERM; the clocks are the host's", not_yours()),
    entry!(167, "swapon", Refused, "no swap of its own", swapon(UserStr, i32)),
    entry!(168, "swapoff", Refused, "no swap of its own", swap(UserStr)),
    entry!(
        169,
        "reboot",
        Refused,
        "EINVAL; a sandbox ends with its first process. Ends a PID namespace",
        reboot(u32, u32, u32)
    ),
    entry!(170, "sethostname", Full, "", sethostname(UserPtr<u8>, usize)),
    entry!(171, "setdomainname", Full, "", setdomainname(UserPtr<u8>, usize)),
    entry!(318, "getrandom", Full, "", getrandom(UserPtr<u8>, usize, u32)),
];
