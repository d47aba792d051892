//! The cgroup file system, version 2: the one group of the container whose process mounts it, as the root of its cgroup namespace. What it
//! used is counted, and the limits that it has are shown, which only the host sets; there are no groups below it, so nothing here can be written
//! but a process's place, which it has.

use std::fmt::Write;
use std::sync::Arc;

use crate::errno::Errno;
use crate::filesystems::proc::totals::Memory;
use crate::filesystems::pseudo::{Body, PseudoFs, PseudoNode, Style, directory, fixed, text};
use crate::filesystems::sys::processors;
use crate::kernel::Kernel;
use crate::syscalls::sched::cpu_list;
use crate::task::cgroup::Cgroup;
use crate::vfs::caller::Caller;
use crate::vfs::dentry::Dentry;
use crate::vfs::inode::{FileSystem, InodeRef};

/// `CGROUP2_SUPER_MAGIC`.
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// What never changes: nothing more is limited, weighed or frozen.
const FIXED: &[(&str, &str)] = &[
    ("cgroup.controllers", "cpuset cpu io memory pids\n"),
    ("cgroup.subtree_control", ""),
    ("cgroup.type", "domain\n"),
    ("cgroup.stat", "nr_descendants 0\nnr_dying_descendants 0\n"),
    ("cgroup.events", "populated 1\nfrozen 0\n"),
    ("cgroup.freeze", "0\n"),
    ("cgroup.max.depth", "max\n"),
    ("cgroup.max.descendants", "max\n"),
    ("cpu.max.burst", "0\n"),
    ("cpu.weight.nice", "0\n"),
    ("cpu.idle", "0\n"),
    ("cpuset.cpus", "\n"),
    ("cpuset.cpus.partition", "member\n"),
    ("cpuset.mems", "\n"),
    ("cpuset.mems.effective", "0\n"),
    ("io.stat", ""),
    ("io.max", ""),
    ("io.weight", "default 100\n"),
    ("memory.high", "max\n"),
    ("memory.low", "0\n"),
    ("memory.min", "0\n"),
    ("memory.oom.group", "0\n"),
    ("memory.swap.current", "0\n"),
    ("memory.swap.high", "max\n"),
    ("memory.swap.events", "high 0\nmax 0\nfail 0\n"),
];

type Maker = fn(&Kernel, &Arc<Cgroup>) -> String;

const COUNTED: &[(&str, Maker)] = &[
    ("cpu.stat", cpu_stat),
    ("memory.current", |k, c| format!("{}\n", current(&Memory::of(k, c)))),
    ("memory.stat", memory_stat),
    ("memory.max", |_, c| or_max(c.limits.get().memory)),
    ("memory.swap.max", |_, c| or_max(c.limits.get().swap)),
    ("memory.events", memory_events),
    ("memory.events.local", memory_events),
    ("cpu.max", cpu_max),
    ("cpu.weight", |_, c| format!("{}\n", c.limits.get().cpu_weight.unwrap_or(100))),
    ("pids.current", |k, c| format!("{}\n", k.tree.lock().charged(c))),
    ("pids.max", |_, c| or_max(c.limits.get().pids)),
    ("pids.events", |_, c| format!("max {}\n", c.limits.refused())),
    ("cpuset.cpus.effective", |_, _| format!("{}\n", cpu_list(&(0..processors()).collect::<Vec<_>>()))),
];

fn or_max(limit: Option<u64>) -> String {
    limit.map_or_else(|| "max\n".into(), |n| format!("{n}\n"))
}

fn cpu_max(_: &Kernel, cgroup: &Arc<Cgroup>) -> String {
    let l = cgroup.limits.get();
    let quota = l.cpu_quota.map_or_else(|| "max".into(), |n| n.to_string());
    format!("{quota} {}\n", l.cpu_period.unwrap_or(100_000))
}

/// The host kills, and we see whom; how often memory was short before it could be reclaimed it does not tell us.
fn memory_events(_: &Kernel, cgroup: &Arc<Cgroup>) -> String {
    let n = cgroup.limits.killed();
    format!("low 0\nhigh 0\nmax {n}\noom {n}\noom_kill {n}\noom_group_kill 0\n")
}

/// Bytes that count as the group's.
pub fn current(m: &Memory) -> u64 {
    m.anonymous + m.cached + m.tables
}

fn cpu_stat(kernel: &Kernel, cgroup: &Arc<Cgroup>) -> String {
    let u = cgroup.usage(kernel);
    let mut s =
        format!("usage_usec {}\nuser_usec {}\nsystem_usec {}\n", u.cpu() / 1000, u.user / 1000, u.system / 1000);
    for name in ["nr_periods", "nr_throttled", "throttled_usec", "nr_bursts", "burst_usec"] {
        writeln!(s, "{name} 0").ok();
    }
    s
}

fn memory_stat(kernel: &Kernel, cgroup: &Arc<Cgroup>) -> String {
    let m = Memory::of(kernel, cgroup);
    let files = m.cached - m.shared;
    let faults = cgroup.usage(kernel).counted.faults;
    let mut s = String::new();
    for (name, n) in [
        ("anon", m.anonymous),
        ("file", m.cached),
        ("kernel", m.tables),
        ("kernel_stack", 0),
        ("pagetables", m.tables),
        ("sock", 0),
        ("shmem", m.shared),
        ("file_mapped", m.mapped),
        ("file_dirty", 0),
        ("file_writeback", 0),
        ("swapcached", 0),
        ("anon_thp", 0),
        ("inactive_anon", m.shared),
        ("active_anon", m.anonymous),
        ("inactive_file", 0),
        ("active_file", files),
        ("unevictable", m.locked),
        ("slab_reclaimable", 0),
        ("slab_unreclaimable", 0),
        ("slab", 0),
        ("pgfault", faults),
        ("pgmajfault", 0),
    ] {
        writeln!(s, "{name} {n}").ok();
    }
    s
}

/// `cgroup.procs` and `cgroup.threads`: everybody's ids, as the reader knows them. Who is written there is there.
fn members(fs: &PseudoFs, kernel: &Arc<Kernel>, cgroup: &Arc<Cgroup>, threads: bool) -> InodeRef {
    let (k, again, cgroup) = (kernel.clone(), kernel.clone(), cgroup.clone());
    let list = move |caller: &Caller<'_>| {
        let groups = cgroup.members(&k);
        let mut ids: Vec<i32> = match threads {
            true => groups.iter().flat_map(|g| g.tasks()).map(|t| t.tid()).collect(),
            false => groups.iter().map(|g| g.pid).collect(),
        };
        if let Some(reader) = caller.task {
            ids.iter_mut().for_each(|id| *id = reader.shown(*id));
            ids.retain(|id| *id != 0);
        }
        ids.sort_unstable();
        Ok(ids.into_iter().map(|id| format!("{id}\n")).collect::<String>().into_bytes())
    };
    let join = move |caller: &Caller<'_>, data: &[u8]| {
        let t = std::str::from_utf8(data.trim_ascii()).map_err(|_| Errno::EINVAL)?;
        let id: i32 = t.parse().ok().filter(|id| *id >= 0).ok_or(Errno::EINVAL)?;
        let there = id == 0 || again.tree.lock().task(caller.task.map_or(id, |t| t.group().pid_ns.id(id))).is_some();
        if there { Ok(()) } else { Err(Errno::ESRCH) }
    };
    PseudoNode::new(fs, 0o644, Body::Text(Box::new(list), Some(Box::new(join))))
}

/// A new cgroup file system, of this cgroup.
pub fn mount(kernel: &Arc<Kernel>, cgroup: &Arc<Cgroup>) -> (Arc<dyn FileSystem>, Arc<Dentry>) {
    let fs = PseudoFs::new("cgroup2", CGROUP2_MAGIC, Style::Control);
    let f: &PseudoFs = &fs;
    let mut names: Vec<(&str, InodeRef)> = FIXED.iter().map(|(name, value)| (*name, fixed(f, *value))).collect();
    for (name, make) in COUNTED {
        let (k, c) = (kernel.clone(), cgroup.clone());
        names.push((name, text(f, move |_| Ok(make(&k, &c).into_bytes()))));
    }
    for (name, threads) in [("cgroup.procs", false), ("cgroup.threads", true)] {
        names.push((name, members(f, kernel, cgroup, threads)));
    }
    let root = directory(f, names);
    (fs, Dentry::root(root))
}
