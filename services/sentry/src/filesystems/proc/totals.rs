//! What all of the container's processes together use: `meminfo`, `stat`, `uptime`, `loadavg`, `vmstat`, and what
//! `sysinfo(2)` says of the same. Total memory is the host's or the container's limit, what is used the container's: it is told nothing
//! of others.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::filesystems::content;
use crate::filesystems::sys::processors;
use crate::kernel::Kernel;
use crate::memory::resident::{self, is_shared_memory};
use crate::memory::store::PAGE;
use crate::memory::vma::{Backing, WRITE};
use crate::sync::Mutex;
use crate::task::cgroup::Cgroup;
use crate::task::usage::Usage;
use crate::task::{Group, Task};
use crate::time::{Clock, NS, now};

/// Pages looked at for the sum of all processes; of one at least, and at most.
const PLACES: u64 = 65_536;
const PLACES_LEAST: u64 = 64;
const PLACES_MOST: u64 = 4096;
/// For how long a look at all of them is good, nanoseconds.
const MOMENT: i64 = 10_000_000;

/// Nanoseconds since the container's kernel started.
pub fn uptime(kernel: &Kernel) -> i64 {
    now(Clock::Boottime).saturating_sub(kernel.booted).max(0)
}

/// What all processes used, those that ended among them.
pub fn usage(kernel: &Kernel) -> Usage {
    let groups: Vec<_> = {
        let tree = kernel.tree.lock();
        tree.pids().into_iter().filter_map(|p| tree.group(p)).collect()
    };
    sum(&kernel.ended, &groups)
}

/// What these processes used, with what was counted of such as ended.
pub fn sum(ended: &Mutex<Usage>, groups: &[Arc<Group>]) -> Usage {
    let mut all = *ended.lock();
    groups.iter().filter(|g| !g.is_exiting()).for_each(|g| all.add(&g.usage(0)));
    all
}

/// Memory, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// All there is.
    pub total: u64,
    /// What nobody uses.
    pub free: u64,
    /// Private memory of processes.
    pub anonymous: u64,
    /// Pages of files that can be read again, and shared memory with files in memory.
    pub cached: u64,
    /// Shared memory and files in memory.
    pub shared: u64,
    /// Of `cached`, what processes have mapped.
    pub mapped: u64,
    /// Locked.
    pub locked: u64,
    /// Page tables, as far as resident pages need them.
    pub tables: u64,
    /// What processes may come to use.
    pub committed: u64,
}

impl Memory {
    /// What could be used: free, or cached and not the only copy.
    pub fn available(&self) -> u64 {
        self.free + self.cached.saturating_sub(self.shared)
    }

    /// As the container uses it now.
    pub fn now(kernel: &Kernel) -> Self {
        // As much as the container may have, where that is less than there is: Linux tells the host's in a container, too, but what
        // programs make of that is that they are killed.
        let total = crate::syscalls::system::memory().0.min(kernel.memory_limit.load(Ordering::Relaxed));
        let p = *kernel.private.get(|| Private::of(leaders(kernel)));
        Self::within(total, content::pages() * PAGE + p.shared, kernel.held.bytes(), &p)
    }

    /// With so much shared memory and files in memory, and so much of other files. What forks share counts for each: no more than there is
    /// can be in use.
    fn within(total: u64, shared: u64, files: u64, p: &Private) -> Self {
        let mut m = Self { total, locked: p.locked, committed: p.committed, ..Self::default() };
        m.shared = shared.min(total);
        m.cached = (m.shared + files).min(total);
        m.mapped = p.mapped.min(m.cached);
        m.anonymous = p.anonymous.min(total - m.cached);
        m.tables = p.tables.min(total - m.cached - m.anonymous);
        m.free = total - m.cached - m.anonymous - m.tables;
        m
    }

    /// As one container uses it: alone in its sandbox all of that, else what its processes have. Files in memory and the page cache are
    /// no single container's then.
    pub fn of(kernel: &Kernel, cgroup: &Arc<Cgroup>) -> Self {
        if !kernel.pod.load(Ordering::Relaxed) {
            return Self::now(kernel);
        }
        let members = cgroup.members(kernel);
        let p = *cgroup.private.get(|| Private::of(members.iter().filter_map(|g| g.leader()).collect()));
        let total = crate::syscalls::system::memory().0.min(cgroup.limits.memory());
        Self::within(total, p.shared, p.mapped, &p)
    }
}

/// What is found by looking at the memory of all processes, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Private {
    anonymous: u64,
    mapped: u64,
    /// Shared memory of no file.
    shared: u64,
    locked: u64,
    tables: u64,
    committed: u64,
}

impl Private {
    fn of(leaders: Vec<Arc<Task>>) -> Self {
        let mut p = Self::default();
        let mut seen = HashSet::new();
        // Of shared memory the most that one process has touched.
        let mut shared: HashMap<(u64, u64), u64> = HashMap::new();
        let places = (PLACES / leaders.len().max(1) as u64).clamp(PLACES_LEAST, PLACES_MOST);
        for task in leaders {
            let mm = task.mm();
            // Processes of one address space (CLONE_VM) have it once.
            if !seen.insert(Arc::as_ptr(&mm) as usize) {
                continue;
            }
            let areas = mm.areas();
            for (a, bytes) in areas.iter().zip(resident::of_areas(&task, &areas, places)) {
                p.tables += bytes / PAGE * 8;
                p.locked += if a.locked { bytes } else { 0 };
                p.committed += if a.prot & WRITE != 0 && !a.shared { a.len() } else { 0 };
                match &a.backing {
                    Backing::Anonymous => p.anonymous += bytes,
                    Backing::Object { object, .. } => {
                        p.mapped += bytes;
                        if is_shared_memory(a) && object.path().starts_with(b"/dev/zero") {
                            let most = shared.entry(object.identity()).or_default();
                            *most = (*most).max(bytes);
                        }
                    }
                }
            }
        }
        p.shared = shared.values().sum();
        p
    }
}

/// The last look at all processes' memory, which is good for a moment: `sysinfo(2)` is called in loops.
#[derive(Default)]
pub struct Look(Mutex<Option<(i64, Arc<Private>)>>);

impl Look {
    fn get(&self, look: impl FnOnce() -> Private) -> Arc<Private> {
        let last = self.0.lock().clone();
        match last {
            Some((at, found)) if now(Clock::Monotonic).saturating_sub(at) < MOMENT => found,
            _ => {
                let found = Arc::new(look());
                *self.0.lock() = Some((now(Clock::Monotonic), found.clone()));
                found
            }
        }
    }
}

/// One thread of each process.
fn leaders(kernel: &Kernel) -> Vec<Arc<Task>> {
    let tasks = kernel.tree.lock().tasks();
    tasks.into_iter().filter(|t| t.tid() == t.pid()).collect()
}

/// `meminfo`, also of the one node below `/sys`.
pub fn meminfo(kernel: &Kernel) -> String {
    let m = Memory::now(kernel);
    let files = m.cached - m.shared;
    let mut s = String::new();
    for (name, bytes) in [
        ("MemTotal", m.total),
        ("MemFree", m.free),
        ("MemAvailable", m.available()),
        ("Buffers", 0),
        ("Cached", m.cached),
        ("SwapCached", 0),
        ("Active", m.anonymous + files),
        ("Inactive", m.shared),
        ("Active(anon)", m.anonymous),
        ("Inactive(anon)", m.shared),
        ("Active(file)", files),
        ("Inactive(file)", 0),
        ("Unevictable", m.locked),
        ("Mlocked", m.locked),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", m.anonymous),
        ("Mapped", m.mapped),
        ("Shmem", m.shared),
        ("KReclaimable", 0),
        ("Slab", 0),
        ("SReclaimable", 0),
        ("SUnreclaim", 0),
        ("KernelStack", 0),
        ("PageTables", m.tables),
        ("NFS_Unstable", 0),
        ("Bounce", 0),
        ("WritebackTmp", 0),
        ("CommitLimit", m.total / 2),
        ("Committed_AS", m.committed + m.shared),
        ("VmallocTotal", 34_359_738_367 << 10),
        ("VmallocUsed", 0),
        ("VmallocChunk", 0),
        ("Percpu", 0),
        ("AnonHugePages", 0),
        ("ShmemHugePages", 0),
        ("ShmemPmdMapped", 0),
        ("FileHugePages", 0),
        ("FilePmdMapped", 0),
    ] {
        writeln!(s, "{:<16}{:>8} kB", format!("{name}:"), bytes / 1024).ok();
    }
    for name in ["Total", "Free", "Rsvd", "Surp"] {
        writeln!(s, "{:<16}{:>8}", format!("HugePages_{name}:"), 0).ok();
    }
    s.push_str("Hugepagesize:       2048 kB\nHugetlb:               0 kB\n");
    s
}

/// `vmstat`: what the tools read of it.
pub fn vmstat(kernel: &Kernel) -> String {
    let m = Memory::now(kernel);
    let faults = usage(kernel).counted.faults;
    let mut s = String::new();
    for (name, n) in [
        ("nr_free_pages", m.free / PAGE),
        ("nr_zone_active_anon", m.anonymous / PAGE),
        ("nr_zone_active_file", (m.cached - m.shared) / PAGE),
        ("nr_mlock", m.locked / PAGE),
        ("nr_anon_pages", m.anonymous / PAGE),
        ("nr_mapped", m.mapped / PAGE),
        ("nr_file_pages", m.cached / PAGE),
        ("nr_dirty", 0),
        ("nr_writeback", 0),
        ("nr_shmem", m.shared / PAGE),
        ("nr_page_table_pages", m.tables / PAGE),
        ("pgpgin", 0),
        ("pgpgout", 0),
        ("pswpin", 0),
        ("pswpout", 0),
        ("pgfault", faults),
        ("pgmajfault", 0),
        ("oom_kill", 0),
    ] {
        writeln!(s, "{name} {n}").ok();
    }
    s
}

/// The busy and idle time of all processors together, in ticks: user, system, idle.
fn busy(kernel: &Kernel) -> (i64, i64, i64) {
    let all = usage(kernel);
    let ticks = |ns: i64| ns / (NS / 100);
    let there = ticks(uptime(kernel)).saturating_mul(i64::try_from(processors()).unwrap_or(1));
    let (user, system) = (ticks(all.user), ticks(all.system));
    (user, system, there.saturating_sub(user).saturating_sub(system).max(0))
}

/// `stat`. The host does not tell which processor a process ran on: each has an equal part of the time.
pub fn stat(kernel: &Kernel) -> String {
    let (user, system, idle) = busy(kernel);
    let n = i64::try_from(processors()).unwrap_or(1);
    let mut s = format!("cpu  {user} 0 {system} {idle} 0 0 0 0 0 0\n");
    for c in 0..n {
        let part = |all: i64| all / n + i64::from(c < all % n);
        writeln!(s, "cpu{c} {} 0 {} {} 0 0 0 0 0 0", part(user), part(system), part(idle)).ok();
    }
    let boot = (now(Clock::Realtime) - uptime(kernel)) / NS;
    let (forks, waits) = (kernel.forks.load(Ordering::Relaxed) + 1, usage(kernel).counted.waits);
    let ready = kernel.tree.lock().tasks().iter().filter(|t| t.counters.is_ready()).count();
    writeln!(s, "intr 0\nctxt {waits}\nbtime {boot}\nprocesses {forks}\nprocs_running {ready}").ok();
    s.push_str("procs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n");
    s
}

/// `uptime`.
pub fn uptime_text(kernel: &Kernel) -> String {
    let (t, idle) = (uptime(kernel) / (NS / 100), busy(kernel).2);
    format!("{}.{:02} {}.{:02}\n", t / 100, t % 100, idle / 100, idle % 100)
}

/// `loadavg`.
pub fn loadavg(kernel: &Kernel, reader: Option<&Arc<Task>>) -> String {
    // Rounded as Linux does, up from half a hundredth.
    let [one, five, fifteen] = kernel.load.averages(kernel);
    let tree = kernel.tree.lock();
    let ready = tree.tasks().iter().filter(|t| t.counters.is_ready()).count();
    let space = reader.map(|t| &t.group().pid_ns).filter(|s| !s.is_first());
    let last = space.map_or(tree.last_id(), |s| s.last());
    format!("{one:.2} {five:.2} {fifteen:.2} {ready}/{} {last}\n", tree.count())
}
