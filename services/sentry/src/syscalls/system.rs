//! The system as a whole: names, totals, random bytes, the kernel log.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Entry, SysResult, UserPtr, UserStr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::task::Task;
use crate::task::creds::cap;
use crate::time::{Clock, NS, now};

/// The kernel version that the container sees: the interface it is modelled on.
pub const RELEASE: &str = "6.1.0-cofferdam";
/// The version line.
pub const VERSION: &str = "#1 SMP Cofferdam";

fn uname(task: &Arc<Task>, to: UserPtr<u8>) -> SysResult {
    let names = task.kernel().names.read();
    let fields: [&[u8]; 6] = [b"Linux", &names.0, RELEASE.as_bytes(), VERSION.as_bytes(), b"x86_64", &names.1];
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
    if !task.creds().capable(cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    if len > 64 {
        return Err(Errno::EINVAL);
    }
    let mut name = vec![0; len];
    task.read_exact(from.address(), &mut name)?;
    let mut names = task.kernel().names.write();
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
    let (total, free) = memory();
    let kernel = task.kernel();
    let info = SysInfo {
        uptime: now(Clock::Boottime).saturating_sub(kernel.booted) / NS,
        total_ram: total,
        free_ram: free,
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

fn reboot(task: &Arc<Task>, _m1: u32, _m2: u32, _command: u32) -> SysResult {
    // As in a pid namespace that is not the first.
    if task.creds().capable(cap::SYS_BOOT) { Err(Errno::EINVAL) } else { Err(Errno::EPERM) }
}

/// `ADDR_NO_RANDOMIZE`: programs started from now on lie where they lay before.
pub const ADDR_NO_RANDOMIZE: i32 = 0x4_0000;

fn personality(task: &Arc<Task>, wanted: u32) -> SysResult {
    let kept = &task.group().personality;
    match i32::from_ne_bytes(wanted.to_ne_bytes()) {
        -1 => value(kept.load(Ordering::Relaxed)),
        new @ (0 | ADDR_NO_RANDOMIZE) => value(kept.swap(new, Ordering::Relaxed)),
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
    entry!(99, "sysinfo", Partial, "totals of the host; no load", sysinfo(UserPtr<SysInfo>)),
    entry!(103, "syslog", Partial, "the sandbox's own log; it cannot be cleared", syslog(i32, UserPtr<u8>, i32)),
    entry!(135, "personality", Partial, "PER_LINUX, with or without ADDR_NO_RANDOMIZE", personality(u32)),
    entry!(153, "vhangup", Refused, "EPERM; a terminal hangs up when its other end goes", not_yours()),
    entry!(163, "acct", Refused, "EPERM; no accounting", not_yours()),
    entry!(164, "settimeofday", Refused, "EPERM; the clocks are the host's", not_yours()),
    entry!(167, "swapon", Refused, "no swap of its own", swapon(UserStr, i32)),
    entry!(168, "swapoff", Refused, "no swap of its own", swap(UserStr)),
    entry!(169, "reboot", Refused, "a sandbox ends with its first process", reboot(u32, u32, u32)),
    entry!(170, "sethostname", Full, "", sethostname(UserPtr<u8>, usize)),
    entry!(171, "setdomainname", Full, "", setdomainname(UserPtr<u8>, usize)),
    entry!(318, "getrandom", Full, "", getrandom(UserPtr<u8>, usize, u32)),
];
