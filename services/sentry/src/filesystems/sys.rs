//! `/sys`: the processors, memory nodes and network devices that programs look for.

use std::collections::BTreeMap;
use std::sync::Arc;

use cofferdam_socket::traffic::Traffic;

use crate::errno::Errno;
use crate::filesystems::cpu;
use crate::filesystems::proc::totals;
use crate::filesystems::pseudo::{Body, PseudoFs, PseudoNode, Style, directory, fixed, text};
use crate::ipc::netlink::{INDEX, INTERFACE_FLAGS};
use crate::kernel::Kernel;
use crate::namespaces::NetNamespace;
use crate::sync::Mutex;
use crate::syscalls::sched::cpu_list;
use crate::vfs::caller::Caller;
use crate::vfs::dentry::Dentry;
use crate::vfs::inode::{DirEntry, FileSystem, FileType, InodeRef};

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

/// A device as `class/net` shows it: what it is, and what it has counted.
fn device(f: &PseudoFs, net: &Arc<NetNamespace>, index: u32) -> InodeRef {
    let other = net.outside().and_then(|o| o.network.interface(index)).cloned();
    let colons = |mac: [u8; 6]| mac.map(|b| format!("{b:02x}")).join(":");
    let loopback = other.is_none();
    let own = net.clone();
    let mtu = other.as_ref().map(|i| i.mtu);
    let mtu = move |_: &Caller<'_>| Ok(format!("{}\n", mtu.unwrap_or_else(|| own.loopback.mtu())).into_bytes());
    let own = net.clone();
    let state = move |_: &Caller<'_>| {
        let word = match (loopback, own.loopback.is_up()) {
            (true, true) => "unknown",
            (true, false) => "down",
            (false, _) => "up",
        };
        Ok(format!("{word}\n").into_bytes())
    };
    let own = net.clone();
    let flags = move |_: &Caller<'_>| {
        // Those of old: sixteen bits.
        let flags = if loopback { own.loopback.flags() } else { INTERFACE_FLAGS };
        Ok(format!("{:#x}\n", flags & 0xffff & !0x40).into_bytes())
    };
    let lines = [
        ("addr_assign_type", "0".to_owned()),
        ("addr_len", "6".to_owned()),
        ("address", colons(other.as_ref().map_or([0; 6], |i| i.mac))),
        ("broadcast", colons(if loopback { [0; 6] } else { [0xff; 6] })),
        ("carrier", "1".to_owned()),
        ("dev_id", "0x0".to_owned()),
        ("dormant", "0".to_owned()),
        ("ifalias", String::new()),
        ("ifindex", index.to_string()),
        ("iflink", index.to_string()),
        ("link_mode", "0".to_owned()),
        ("tx_queue_len", "1000".to_owned()),
        ("type", if loopback { "772" } else { "1" }.to_owned()),
    ];
    let mut names: Vec<(&str, InodeRef)> =
        lines.iter().map(|(name, line)| (*name, fixed(f, format!("{line}\n")))).collect();
    type Count = fn(&Traffic) -> u64;
    let counts: [(&str, Count); 6] = [
        ("rx_bytes", |t| t.received_bytes),
        ("rx_packets", |t| t.received_packets),
        ("rx_dropped", |t| t.received_lost),
        ("tx_bytes", |t| t.sent_bytes),
        ("tx_packets", |t| t.sent_packets),
        ("tx_dropped", |t| t.sent_lost),
    ];
    let statistics = counts.iter().map(|(name, of)| {
        let (own, of) = (net.clone(), *of);
        let count = move |_: &Caller<'_>| {
            let mut all = own.outside().into_iter().flat_map(|o| o.interfaces());
            let n = all.find(|(i, _)| i.index == index).map_or(0, |(_, t)| of(&t));
            Ok(format!("{n}\n").into_bytes())
        };
        (*name, text(f, count))
    });
    names.push(("statistics", directory(f, statistics.collect())));
    names.extend([("mtu", text(f, mtu)), ("operstate", text(f, state)), ("flags", text(f, flags))]);
    directory(f, names)
}

/// The devices of a network namespace, which it may be given after this is mounted.
fn devices(f: &PseudoFs, net: &Arc<NetNamespace>) -> InodeRef {
    const LOOPBACK: (&[u8], u32) = (b"lo", INDEX);
    let made: Arc<Mutex<BTreeMap<u32, InodeRef>>> = Arc::default();
    let all = |net: &NetNamespace| -> Vec<(Vec<u8>, u32)> {
        let others = net.outside().into_iter().flat_map(|o| &o.network.interfaces);
        let others = others.map(|i| (i.name.clone().into_bytes(), i.index));
        std::iter::once((LOOPBACK.0.to_vec(), LOOPBACK.1)).chain(others).collect()
    };
    let (fs, own) = (f.styled(Style::Attribute), net.clone());
    let node = Arc::new(move |index: u32| made.lock().entry(index).or_insert_with(|| device(&fs, &own, index)).clone());
    let (own, of) = (net.clone(), node.clone());
    let names = move |_: &Caller<'_>| {
        let entry = |(name, index): (Vec<u8>, u32)| {
            Ok(DirEntry { name, ino: of(index).attr()?.ino, kind: FileType::Directory })
        };
        all(&own).into_iter().map(entry).collect()
    };
    let own = net.clone();
    let find = move |_: &Caller<'_>, name: &[u8]| {
        Ok(all(&own).into_iter().find(|(n, _)| n == name).map(|(_, index)| node(index)))
    };
    PseudoNode::new(f, 0o755, Body::Dynamic(Vec::new(), Box::new(names), Box::new(find)))
}

/// A new sysfs, with the devices of a network namespace.
pub fn mount(kernel: &Arc<Kernel>, net: &Arc<NetNamespace>) -> (Arc<dyn FileSystem>, Arc<Dentry>) {
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
            ("class", directory(f, vec![("net", devices(f, net)), ("tty", empty())])),
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
