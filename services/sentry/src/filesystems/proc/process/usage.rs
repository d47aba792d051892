//! What a process may use and what it used: `limits`, `io`, `oom_score`, and how it is scheduled: `sched`, `schedstat`,
//! `timers`, `wchan`, `stack`.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use super::memory::Memory;
use super::{Subject, text};
use crate::errno::Errno;
use crate::filesystems::proc::totals;
use crate::task::timers;
use crate::vfs::caller::Caller;

const LIMIT_NAMES: [(&str, &str); 16] = [
    ("Max cpu time", "seconds"),
    ("Max file size", "bytes"),
    ("Max data size", "bytes"),
    ("Max stack size", "bytes"),
    ("Max core file size", "bytes"),
    ("Max resident set", "bytes"),
    ("Max processes", "processes"),
    ("Max open files", "files"),
    ("Max locked memory", "bytes"),
    ("Max address space", "bytes"),
    ("Max file locks", "locks"),
    ("Max pending signals", "signals"),
    ("Max msgqueue size", "bytes"),
    ("Max nice priority", ""),
    ("Max realtime priority", ""),
    ("Max realtime timeout", "us"),
];

pub(super) fn limits(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let mut t = format!("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    let show = |n: u64| if n == u64::MAX { String::from("unlimited") } else { n.to_string() };
    for (i, (name, unit)) in LIMIT_NAMES.iter().enumerate() {
        let l = s.group.limit(i);
        writeln!(t, "{name:<25} {:<20} {:<20} {unit:<10}", show(l.soft), show(l.hard)).ok();
    }
    text(t)
}

/// As the kernel that runs out of memory would choose: by resident memory, moved by `oom_score_adj`.
pub(super) fn oom_score(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let used = s.task().ok().map_or(0, |t| Memory::of(&t).touched());
    let (total, _) = crate::syscalls::system::memory();
    let part = i64::try_from(u128::from(used) * 1000 / u128::from(total.max(1))).unwrap_or(1000);
    let adj = i64::from(s.group.oom_score_adj.load(Ordering::Relaxed));
    // Who has ended, or is never chosen, has none.
    let score = if s.task().is_err() || adj <= -1000 { 0 } else { (1000 + part + adj).max(0) * 2 / 3 };
    text(format!("{score}\n"))
}

pub(super) fn io(s: &Subject, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    s.open_to(caller)?;
    let c = s.usage().counted;
    // There is no disk of the container's: nothing is read from one.
    text(format!(
        "rchar: {}\nwchar: {}\nsyscr: {}\nsyscw: {}\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n",
        c.read.0, c.written.0, c.read.1, c.written.1
    ))
}

/// Time on a processor, waiting for one (which the host does not tell), and how often it was given one.
pub(super) fn schedstat(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let u = s.first_thread_usage();
    text(format!("{} 0 {}\n", u.cpu(), u.counted.waits + 1))
}

pub(super) fn sched(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let u = s.first_thread_usage();
    let name = String::from_utf8_lossy(&s.name()).into_owned();
    let mut t = format!("{name} ({}, #threads: {})\n{:-<67}\n", s.id(), s.group.tasks().len(), "");
    let time = |ns: i64| format!("{:>14}.{:06}", ns / 1_000_000, ns % 1_000_000);
    let policy = s.task().map_or(0, |t| t.state.lock().schedule.policy);
    for (name, value) in [
        ("se.exec_start", time(totals::uptime(&s.kernel))),
        ("se.sum_exec_runtime", time(u.cpu())),
        ("nr_switches", format!("{:>21}", u.counted.waits)),
        ("nr_voluntary_switches", format!("{:>21}", u.counted.waits)),
        ("nr_involuntary_switches", format!("{:>21}", 0)),
        ("policy", format!("{policy:>21}")),
        ("prio", format!("{:>21}", 120 + s.group.nice.load(Ordering::Relaxed))),
    ] {
        writeln!(t, "{name:<45}:{value}").ok();
    }
    text(t)
}

pub(super) fn timers(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    text(timers::table(&s.group))
}

pub(super) fn wchan(_: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    text(String::from("0"))
}

/// Of the kernel's stack only the host's administrator learns.
pub(super) fn stack(_: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    Err(Errno::EACCES)
}
