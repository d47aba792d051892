//! `/sys`: the processors and memory nodes that programs look for.

use std::sync::Arc;

use crate::errno::Errno;
use crate::filesystems::cpu;
use crate::filesystems::proc::totals;
use crate::filesystems::pseudo::{Body, PseudoFs, PseudoNode, Style, directory, fixed, text};
use crate::kernel::Kernel;
use crate::syscalls::sched::cpu_list;
use crate::vfs::caller::Caller;
use crate::vfs::dentry::Dentry;
use crate::vfs::inode::{FileSystem, InodeRef};

/// `SYSFS_MAGIC`.
const SYSFS_MAGIC: u64 = 0x6265_6572;

/// Processors that tasks may run on.
pub fn processors() -> usize {
    crate::syscalls::sched::cpus()
}

/// Processors as a bit mask, 32 to a group: `3`, `ff,ffffffff`.
pub fn cpu_mask(cpus: &[usize]) -> String {
    let digits = processors().div_ceil(4).max(1);
    let mut out = String::new();
    for d in (0..digits).rev() {
        let bits = (0..4).filter(|b| cpus.contains(&(d * 4 + b))).fold(0, |n, b| n | 1 << b);
        out.push(char::from_digit(bits, 16).unwrap_or('0'));
        if d % 8 == 0 && d > 0 {
            out.push(',');
        }
    }
    out
}

type Named = (&'static str, InodeRef);

/// A directory of texts.
fn texts(f: &PseudoFs, lines: &[(&'static str, String)]) -> InodeRef {
    directory(f, lines.iter().map(|(name, line)| (*name, fixed(f, format!("{line}\n")))).collect())
}

fn link(f: &PseudoFs, to: String) -> InodeRef {
    let lead = move |_: &Caller<'_>| Ok(to.clone().into_bytes());
    PseudoNode::new(f, 0o777, Body::Link(Box::new(lead), None))
}

/// The caches of a processor.
fn caches(f: &PseudoFs, n: usize, all: &[usize]) -> InodeRef {
    let mut dirs: Vec<(String, InodeRef)> = Vec::new();
    for (i, c) in cpu::caches().iter().enumerate() {
        let shared: Vec<usize> = all.iter().copied().filter(|m| m / c.shared == n / c.shared).collect();
        let kind = match c.kind {
            1 => "Data",
            2 => "Instruction",
            _ => "Unified",
        };
        let lines = [
            ("coherency_line_size", c.line.to_string()),
            ("id", (n / c.shared).to_string()),
            ("level", c.level.to_string()),
            ("number_of_sets", c.sets.to_string()),
            ("physical_line_partition", c.partitions.to_string()),
            ("shared_cpu_list", cpu_list(&shared)),
            ("shared_cpu_map", cpu_mask(&shared)),
            ("size", format!("{}K", c.size())),
            ("type", kind.to_owned()),
            ("ways_of_associativity", c.ways.to_string()),
        ];
        dirs.push((format!("index{i}"), texts(f, &lines)));
    }
    directory(f, dirs.iter().map(|(n, i)| (n.as_str(), i.clone())).collect())
}

/// A processor, a core of the one package.
fn processor(f: &PseudoFs, n: usize, all: &[usize]) -> InodeRef {
    let own = [n];
    let mut lines = vec![("cluster_id", "65535".to_owned()), ("core_id", n.to_string()), ("die_id", "0".to_owned())];
    lines.push(("physical_package_id", "0".to_owned()));
    for (mask, list, which) in [
        ("cluster_cpus", "cluster_cpus_list", &own[..]),
        ("core_cpus", "core_cpus_list", &own[..]),
        ("thread_siblings", "thread_siblings_list", &own[..]),
        ("core_siblings", "core_siblings_list", all),
        ("die_cpus", "die_cpus_list", all),
        ("package_cpus", "package_cpus_list", all),
    ] {
        lines.extend([(mask, cpu_mask(which)), (list, cpu_list(which))]);
    }
    let mut names = vec![
        ("cache", caches(f, n, all)),
        ("node0", link(f, "../../node/node0".to_owned())),
        ("topology", texts(f, &lines)),
    ];
    // The first cannot be taken away, and has no switch.
    if n > 0 {
        names.push(("online", fixed(f, "1\n")));
    }
    directory(f, names)
}

fn cpus(f: &PseudoFs, all: &[usize]) -> InodeRef {
    let dirs: Vec<(String, InodeRef)> = all.iter().map(|n| (format!("cpu{n}"), processor(f, *n, all))).collect();
    let list = || fixed(f, format!("{}\n", cpu_list(all)));
    let mut names: Vec<(&str, InodeRef)> = dirs.iter().map(|(n, i)| (n.as_str(), i.clone())).collect();
    names.extend([("online", list()), ("possible", list()), ("present", list()), ("enabled", list())]);
    names.extend([("offline", fixed(f, "\n")), ("isolated", fixed(f, "\n")), ("kernel_max", fixed(f, "8191\n"))]);
    names.push(("smt", texts(f, &[("active", "0".to_owned()), ("control", "notsupported".to_owned())])));
    directory(f, names)
}

/// The one node of memory.
fn nodes(f: &PseudoFs, kernel: &Arc<Kernel>, all: &[usize]) -> InodeRef {
    let k = kernel.clone();
    let memory = move |_: &Caller<'_>| -> Result<Vec<u8>, Errno> {
        let t = totals::meminfo(&k);
        // A node has no swap and makes no promises.
        let without = ["Swap", "MemAvail", "Buffers", "Cached", "Commit", "Vmalloc", "Hugepagesize", "Percpu"];
        let lines = t.lines().filter(|l| !without.iter().any(|w| l.starts_with(w)));
        Ok(lines.map(|l| format!("Node 0 {l}\n")).collect::<String>().into_bytes())
    };
    let links: Vec<(String, InodeRef)> =
        all.iter().map(|n| (format!("cpu{n}"), link(f, format!("../../cpu/cpu{n}")))).collect();
    let mut names: Vec<(&str, InodeRef)> = links.iter().map(|(n, i)| (n.as_str(), i.clone())).collect();
    names.extend([
        ("cpulist", fixed(f, format!("{}\n", cpu_list(all)))),
        ("cpumap", fixed(f, format!("{}\n", cpu_mask(all)))),
        ("distance", fixed(f, "10\n")),
        ("meminfo", text(f, memory)),
    ]);
    let one = || fixed(f, "0\n");
    let mut dirs: Vec<Named> = vec![("node0", directory(f, names))];
    dirs.extend(["has_cpu", "has_memory", "has_normal_memory", "online", "possible"].map(|n| (n, one())));
    directory(f, dirs)
}

/// A new sysfs.
pub fn mount(kernel: &Arc<Kernel>) -> (Arc<dyn FileSystem>, Arc<Dentry>) {
    let fs = PseudoFs::new("sysfs", SYSFS_MAGIC, Style::Attribute);
    let f: &PseudoFs = &fs;
    let empty = || directory(f, Vec::new());
    let all: Vec<usize> = (0..processors()).collect();
    let system = directory(f, vec![("cpu", cpus(f, &all)), ("node", nodes(f, kernel, &all))]);
    let thp = directory(
        f,
        vec![("enabled", fixed(f, "always [madvise] never\n")), ("hpage_pmd_size", fixed(f, "2097152\n"))],
    );
    let mm = directory(f, vec![("transparent_hugepage", thp), ("hugepages", empty())]);
    let root = directory(
        f,
        vec![
            ("block", empty()),
            ("bus", empty()),
            ("class", directory(f, vec![("net", empty()), ("tty", empty())])),
            ("dev", directory(f, vec![("block", empty()), ("char", empty())])),
            ("devices", directory(f, vec![("system", system), ("virtual", empty())])),
            ("firmware", empty()),
            ("fs", directory(f, vec![("cgroup", empty())])),
            ("kernel", directory(f, vec![("mm", mm), ("security", empty()), ("debug", empty())])),
            ("module", empty()),
            ("power", empty()),
        ],
    );
    (fs, Dentry::root(root))
}
