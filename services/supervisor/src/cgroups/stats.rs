//! What a container used, as `events` prints it: the shape is runc's `types.Stats`, so are the names.
//!
//! The numbers are the kernel's, read from the files of its cgroups, but for those of tasks, which the Sentry counts (the host would count
//! threads of services, too), and all of them where there is no cgroup. Called by `sandbox`.

use std::collections::BTreeMap;
use std::path::Path;

use cofferdam_control::sentry::{Limits, Usage};
use serde_json::{Map, Value, json};

use super::{Cgroup, Place, number, read};

/// The lines `NAME NUMBER` of a file.
pub fn table(file: &Path) -> BTreeMap<String, u64> {
    let text = read(file).unwrap_or_default();
    let line = |l: &str| l.split_once(' ').and_then(|(k, v)| Some((k.to_owned(), v.trim().parse().ok()?)));
    text.lines().filter_map(line).collect()
}

/// An object of the members that are not zero, as Go leaves them out (`omitempty`).
fn sparse(members: &[(&str, u64)]) -> Map<String, Value> {
    members.iter().filter(|(_, n)| *n != 0).map(|(k, n)| ((*k).to_owned(), (*n).into())).collect()
}

/// What is used, as runc prints it.
pub fn stats(cgroup: Option<&Cgroup>, limits: &Limits, usage: &Usage) -> Value {
    let place = |names| cgroup.and_then(|c| c.place(names));
    let cpu = cgroup.map(cpu).unwrap_or_else(|| {
        json!({"usage": {"total": usage.user + usage.system, "kernel": usage.system, "user": usage.user}, "throttling": {}})
    });
    let memory = match place(("memory", "memory")) {
        Some(p) if p.unified => memory_v2(p),
        Some(p) => memory_v1(p),
        None => {
            let limit = limits.memory.unwrap_or(u64::MAX);
            json!({"usage": {"limit": limit, "usage": usage.memory, "failcnt": 0}, "swap": {"limit": 0, "failcnt": 0},
                   "kernel": {"limit": 0, "failcnt": 0}, "kernelTCP": {"limit": 0, "failcnt": 0}, "raw": {}})
        }
    };
    json!({
        "cpu": cpu,
        "cpuset": cpuset(place(("cpuset", "cpuset"))),
        "memory": memory,
        "pids": sparse(&[("current", usage.tasks), ("limit", limits.pids.unwrap_or(0))]),
        "blkio": place(("io", "blkio")).map(blkio).unwrap_or_else(|| json!({})),
        "hugetlb": place(("hugetlb", "hugetlb")).map(hugetlb).unwrap_or_else(|| json!({})),
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

fn cpu(cgroup: &Cgroup) -> Value {
    let throttling = |p: Option<&Place>, time: &str, unit: u64| {
        let t = p.map(|p| table(&p.folder.join("cpu.stat"))).unwrap_or_default();
        let of = |name: &str| t.get(name).copied().unwrap_or(0);
        sparse(&[
            ("periods", of("nr_periods")),
            ("throttledPeriods", of("nr_throttled")),
            ("throttledTime", of(time).saturating_mul(unit)),
        ])
    };
    // Version 1 counts in a hierarchy of its own, version 2 in every cgroup, with the controller and without.
    let (Some(acct), false) = (cgroup.place(("", "cpuacct")), cgroup.places.iter().all(|p| p.unified)) else {
        let unified = cgroup.places.iter().find(|p| p.unified);
        let t = unified.map(|p| table(&p.folder.join("cpu.stat"))).unwrap_or_default();
        let of = |name: &str| t.get(name).copied().unwrap_or(0).saturating_mul(1000);
        let mut usage = sparse(&[("total", of("usage_usec"))]);
        usage.insert("kernel".into(), of("system_usec").into());
        usage.insert("user".into(), of("user_usec").into());
        return json!({"usage": usage, "throttling": throttling(unified, "throttled_usec", 1000)});
    };
    let folder = &acct.folder;
    let mut usage = sparse(&[("total", number(&folder.join("cpuacct.usage")).unwrap_or(0))]);
    let per: Vec<u64> = read(&folder.join("cpuacct.usage_percpu"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|n| n.parse().ok())
        .collect();
    // `cpu user system`, a line a processor.
    let all = read(&folder.join("cpuacct.usage_all")).unwrap_or_default();
    let column =
        |n: usize| -> Vec<u64> { all.lines().skip(1).filter_map(|l| l.split(' ').nth(n)?.parse().ok()).collect() };
    for (name, list) in [("percpu", per), ("percpu_kernel", column(2)), ("percpu_user", column(1))] {
        if !list.is_empty() {
            usage.insert(name.into(), list.into());
        }
    }
    // In ticks of a hundredth of a second.
    let ticks = table(&folder.join("cpuacct.stat"));
    for (name, file) in [("kernel", "system"), ("user", "user")] {
        usage.insert(name.into(), ticks.get(file).copied().unwrap_or(0).saturating_mul(10_000_000).into());
    }
    json!({"usage": usage, "throttling": throttling(cgroup.place(("cpu", "cpu")), "throttled_time", 1)})
}

/// `0-2,5` as numbers, a few thousand at most.
fn listed(text: &str) -> Vec<u16> {
    let range = |r: &str| -> Option<std::ops::RangeInclusive<u16>> {
        let (from, to) = r.split_once('-').unwrap_or((r, r));
        Some(from.parse().ok()?..=to.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().take(8192).collect()
}

fn cpuset(place: Option<&Place>) -> Value {
    let read = |name: &str| place.and_then(|p| read(&p.folder.join(format!("cpuset.{name}"))));
    let mut all = Map::new();
    for name in ["cpus", "mems"] {
        let list = listed(&read(name).unwrap_or_default());
        if !list.is_empty() {
            all.insert(name.into(), list.into());
        }
    }
    for name in [
        "cpu_exclusive",
        "mem_hardwall",
        "mem_exclusive",
        "memory_migrate",
        "memory_spread_page",
        "memory_spread_slab",
        "memory_pressure",
        "sched_load_balance",
        "sched_relax_domain_level",
    ] {
        let n: i64 = read(name).and_then(|t| t.trim().parse().ok()).unwrap_or(0);
        all.insert(name.into(), n.into());
    }
    all.into()
}

/// One kind of memory: the limit and how often it was met are always told.
fn entry(limit: u64, usage: u64, max: u64, failed: u64) -> Value {
    let mut all = sparse(&[("usage", usage), ("max", max)]);
    all.insert("limit".into(), limit.into());
    all.insert("failcnt".into(), failed.into());
    all.into()
}

fn memory_v1(place: &Place) -> Value {
    let of = |kind: &str| {
        let get = |name: &str| number(&place.folder.join(format!("memory{kind}.{name}"))).unwrap_or(0);
        entry(get("limit_in_bytes"), get("usage_in_bytes"), get("max_usage_in_bytes"), get("failcnt"))
    };
    let raw = table(&place.folder.join("memory.stat"));
    let mut all = sparse(&[("cache", raw.get("cache").copied().unwrap_or(0))]);
    for (name, kind) in [("usage", ""), ("swap", ".memsw"), ("kernel", ".kmem"), ("kernelTCP", ".kmem.tcp")] {
        all.insert(name.into(), of(kind));
    }
    all.insert("raw".into(), json!(raw));
    all.into()
}

fn memory_v2(place: &Place) -> Value {
    let get = |name: &str| {
        let text = read(&place.folder.join(format!("memory.{name}"))).unwrap_or_default();
        if text.trim() == "max" { u64::MAX } else { text.trim().parse().unwrap_or(0) }
    };
    let raw = table(&place.folder.join("memory.stat"));
    let met = table(&place.folder.join("memory.events")).get("max").copied().unwrap_or(0);
    let (limit, used) = (get("max"), get("current"));
    let mut all = sparse(&[("cache", raw.get("file").copied().unwrap_or(0))]);
    all.insert("usage".into(), entry(limit, used, get("peak"), met));
    // As version 1 counts: memory and swap together.
    let both = entry(limit.saturating_add(get("swap.max")), used.saturating_add(get("swap.current")), 0, 0);
    all.insert("swap".into(), both);
    for name in ["kernel", "kernelTCP"] {
        all.insert(name.into(), entry(0, 0, 0, 0));
    }
    all.insert("raw".into(), json!(raw));
    all.into()
}

fn blkio(place: &Place) -> Value {
    let entry = |device: &str, op: &str, value: &str| {
        let (major, minor) = device.split_once(':')?;
        let mut all = sparse(&[("major", major.parse().ok()?), ("minor", minor.parse().ok()?)]);
        all.insert("op".into(), op.into());
        all.extend(sparse(&[("value", value.parse().ok()?)]));
        Some(Value::from(all))
    };
    let (mut bytes, mut times) = (Vec::new(), Vec::new());
    if place.unified {
        // `8:0 rbytes=1 wbytes=2 rios=3 wios=4 ...`
        for line in read(&place.folder.join("io.stat")).unwrap_or_default().lines() {
            let mut words = line.split(' ');
            let device = words.next().unwrap_or_default();
            for (name, value) in words.filter_map(|w| w.split_once('=')) {
                match name {
                    "rbytes" => bytes.extend(entry(device, "Read", value)),
                    "wbytes" => bytes.extend(entry(device, "Write", value)),
                    "rios" => times.extend(entry(device, "Read", value)),
                    "wios" => times.extend(entry(device, "Write", value)),
                    _ => {}
                }
            }
        }
    } else {
        // `8:0 Read 1`, a line for each kind.
        for (file, list) in [("io_service_bytes_recursive", &mut bytes), ("io_serviced_recursive", &mut times)] {
            for line in read(&place.folder.join(format!("blkio.throttle.{file}"))).unwrap_or_default().lines() {
                if let [device, op, value] = line.split(' ').collect::<Vec<_>>()[..] {
                    list.extend(entry(device, op, value));
                }
            }
        }
    }
    let mut all = Map::new();
    for (name, list) in [("ioServiceBytesRecursive", bytes), ("ioServicedRecursive", times)] {
        if !list.is_empty() {
            all.insert(name.into(), list.into());
        }
    }
    all.into()
}

/// Sizes of huge pages of Linux's architectures, as its files are named.
const PAGE_SIZES: [&str; 8] = ["64KB", "1MB", "2MB", "16MB", "32MB", "512MB", "1GB", "16GB"];

fn hugetlb(place: &Place) -> Value {
    let mut all = Map::new();
    let used = if place.unified { "current" } else { "usage_in_bytes" };
    for size in PAGE_SIZES {
        let get = |name: &str| number(&place.folder.join(format!("hugetlb.{size}.{name}")));
        let Some(usage) = get(used) else { continue };
        let failed = if place.unified {
            table(&place.folder.join(format!("hugetlb.{size}.events"))).get("max").copied()
        } else {
            get("failcnt")
        };
        let mut one = sparse(&[("usage", usage), ("max", get("max_usage_in_bytes").unwrap_or(0))]);
        one.insert("failcnt".into(), failed.unwrap_or(0).into());
        all.insert(size.into(), one.into());
    }
    all.into()
}
