//! What is written for a resource: the files of version 1 and of version 2, with runc's conversions between them. Data only.
//!
//! Called by `cgroups`.

use super::resources::{BlockIo, Cpu, Memory, Resources, ThrottleDevice, set, text, weight};

/// Tasks of the host that a container's tasks may need beside themselves: threads of the services, the stubs' starter and template, and
/// for a moment a second process for one that executes a program. How many tasks a container may have is kept to in the Sentry, which
/// knows what is one; the host counts all of these.
const PIDS_BESIDE: i64 = 512;

/// What a controller is called in version 2, and in version 1.
pub const FAMILIES: [(&str, &str); 7] = [
    ("cpuset", "cpuset"),
    ("cpu", "cpu"),
    ("memory", "memory"),
    ("pids", "pids"),
    ("io", "blkio"),
    ("hugetlb", "hugetlb"),
    ("rdma", "rdma"),
];

/// What may go wrong with a setting and does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lenient {
    /// Nothing.
    No,
    /// The host has no such file, which is as good as this value.
    Missing,
    /// EINVAL while another setting is still the old one: it is tried again after the others.
    Again,
}

/// A file and what is written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The file's name.
    pub file: String,
    /// What is written.
    pub value: String,
    /// See there.
    pub lenient: Lenient,
    /// Another file, and what is written there, where a host has not got that one.
    pub or: Option<(&'static str, String)>,
}

fn put(all: &mut Vec<Setting>, file: &str, value: impl ToString) {
    all.push(Setting { file: file.into(), value: value.to_string(), lenient: Lenient::No, or: None });
}

/// Has the last setting be lenient.
fn leniently(all: &mut [Setting], how: Lenient) {
    if let Some(last) = all.last_mut() {
        last.lenient = how;
    }
}

/// What is written for a family in version 1. `memory_now`: the limit of memory that is in force.
pub fn of_v1(family: &str, r: &Resources, memory_now: u64) -> Vec<Setting> {
    let mut all = Vec::new();
    match family {
        "memory" => memory_v1(&mut all, &r.memory.unwrap_or_default(), memory_now),
        "cpu" => cpu_v1(&mut all, &r.cpu.clone().unwrap_or_default()),
        "cpuset" => cpuset(&mut all, &r.cpu.clone().unwrap_or_default()),
        "pids" => pids(&mut all, r),
        "blkio" => blkio_v1(&mut all, &r.block_io.clone().unwrap_or_default()),
        "hugetlb" => r.hugepage_limits.iter().for_each(|h| {
            put(&mut all, &format!("hugetlb.{}.limit_in_bytes", h.page_size), h.limit);
            put(&mut all, &format!("hugetlb.{}.rsvd.limit_in_bytes", h.page_size), h.limit);
            leniently(&mut all, Lenient::Missing);
        }),
        "rdma" => rdma(&mut all, r),
        _ => {}
    }
    all
}

fn memory_v1(all: &mut Vec<Setting>, m: &Memory, now: u64) {
    const LIMIT: &str = "memory.limit_in_bytes";
    const SWAP: &str = "memory.memsw.limit_in_bytes";
    let limit = set(m.limit);
    // No limit of memory alone is no limit of both, where the host counts swap at all.
    let implied = limit == Some(-1) && set(m.swap).is_none();
    let swap = if implied { Some(-1) } else { set(m.swap) };
    // The host refuses a limit of memory above that of both, so the one that makes room comes first.
    let swap_first = limit.is_some() && swap.is_some_and(|s| s == -1 || now < s.unsigned_abs());
    let put_swap = |all: &mut Vec<Setting>| {
        if let Some(n) = swap {
            put(all, SWAP, n);
            if implied {
                leniently(all, Lenient::Missing);
            }
        }
    };
    if swap_first {
        put_swap(all);
    }
    if let Some(n) = limit {
        put(all, LIMIT, n);
    }
    if !swap_first {
        put_swap(all);
    }
    if let Some(n) = set(m.reservation) {
        put(all, "memory.soft_limit_in_bytes", n);
    }
    if let Some(disabled) = m.disable_oom_killer {
        put(all, "memory.oom_control", u8::from(disabled));
    }
    if let Some(n) = m.swappiness {
        put(all, "memory.swappiness", n);
    }
}

fn cpu_v1(all: &mut Vec<Setting>, c: &Cpu) {
    if let Some(n) = set(c.idle) {
        put(all, "cpu.idle", n);
    }
    if let Some(n) = set(c.shares) {
        put(all, "cpu.shares", n);
    }
    if let Some(n) = set(c.period) {
        put(all, "cpu.cfs_period_us", n);
        if set(c.quota).is_some() {
            leniently(all, Lenient::Again);
        }
    }
    if let Some(n) = set(c.quota) {
        put(all, "cpu.cfs_quota_us", n);
    }
    if let Some(n) = c.burst {
        put(all, "cpu.cfs_burst_us", n);
    }
    if let Some(n) = set(c.realtime_period) {
        put(all, "cpu.rt_period_us", n);
    }
    if let Some(n) = set(c.realtime_runtime) {
        put(all, "cpu.rt_runtime_us", n);
    }
}

fn cpuset(all: &mut Vec<Setting>, c: &Cpu) {
    for (file, value) in [("cpuset.cpus", &c.cpus), ("cpuset.mems", &c.mems)] {
        if let Some(list) = text(value.as_ref()) {
            put(all, file, list);
        }
    }
}

fn pids(all: &mut Vec<Setting>, r: &Resources) {
    if let Some(n) = tasks(r) {
        put(all, "pids.max", or_max(n));
    }
}

/// How many tasks of the host there may be for as many of the container; below 0 no limit.
pub fn tasks(r: &Resources) -> Option<i64> {
    match r.pids.map_or(0, |p| p.limit) {
        0 => None,
        n if n < 0 => Some(-1),
        n => Some(n.saturating_mul(2).saturating_add(PIDS_BESIDE).min(4_194_304)),
    }
}

fn throttles(b: &BlockIo) -> [(&'static str, &'static str, &Vec<ThrottleDevice>); 4] {
    [
        ("blkio.throttle.read_bps_device", "rbps", &b.throttle_read_bps_device),
        ("blkio.throttle.write_bps_device", "wbps", &b.throttle_write_bps_device),
        ("blkio.throttle.read_iops_device", "riops", &b.throttle_read_iops_device),
        ("blkio.throttle.write_iops_device", "wiops", &b.throttle_write_iops_device),
    ]
}

fn blkio_v1(all: &mut Vec<Setting>, b: &BlockIo) {
    let mut weighed = |file: &str, or: &'static str, value: String| {
        all.push(Setting { file: file.into(), value: value.clone(), lenient: Lenient::No, or: Some((or, value)) });
    };
    if let Some(n) = set(b.weight) {
        weighed("blkio.weight", "blkio.bfq.weight", n.to_string());
    }
    if let Some(n) = set(b.leaf_weight) {
        weighed("blkio.leaf_weight", "blkio.bfq.leaf_weight", n.to_string());
    }
    for d in &b.weight_device {
        if let Some(n) = set(d.weight) {
            weighed("blkio.weight_device", "blkio.bfq.weight_device", format!("{}:{} {n}", d.major, d.minor));
        }
        if let Some(n) = set(d.leaf_weight) {
            weighed("blkio.leaf_weight_device", "blkio.bfq.leaf_weight_device", format!("{}:{} {n}", d.major, d.minor));
        }
    }
    for (file, _, devices) in throttles(b) {
        devices.iter().for_each(|d| put(all, file, format!("{}:{} {}", d.major, d.minor, d.rate)));
    }
}

fn rdma(all: &mut Vec<Setting>, r: &Resources) {
    for (device, limit) in &r.rdma {
        let mut line = device.clone();
        for (name, n) in [("hca_handle", limit.hca_handles), ("hca_object", limit.hca_objects)] {
            if let Some(n) = n {
                line.push_str(&format!(" {name}={n}"));
            }
        }
        put(all, "rdma.max", line);
    }
}

fn or_max(n: i64) -> String {
    if n < 0 { "max".into() } else { n.to_string() }
}

/// What is written for a family in version 2.
pub fn of_v2(family: &str, r: &Resources) -> Vec<Setting> {
    let mut all = Vec::new();
    match family {
        "memory" => memory_v2(&mut all, &r.memory.unwrap_or_default()),
        "cpu" => cpu_v2(&mut all, &r.cpu.clone().unwrap_or_default()),
        "cpuset" => cpuset(&mut all, &r.cpu.clone().unwrap_or_default()),
        "pids" => pids(&mut all, r),
        "io" => io_v2(&mut all, &r.block_io.clone().unwrap_or_default()),
        "hugetlb" => r.hugepage_limits.iter().for_each(|h| {
            put(&mut all, &format!("hugetlb.{}.max", h.page_size), h.limit);
            put(&mut all, &format!("hugetlb.{}.rsvd.max", h.page_size), h.limit);
            leniently(&mut all, Lenient::Missing);
        }),
        "rdma" => rdma(&mut all, r),
        _ => {}
    }
    all
}

fn memory_v2(all: &mut Vec<Setting>, m: &Memory) {
    let limit = set(m.limit);
    if let Some(n) = swap_v2(m) {
        put(all, "memory.swap.max", or_max(n));
        if n <= 0 {
            leniently(all, Lenient::Missing);
        }
    }
    if let Some(n) = limit {
        put(all, "memory.max", or_max(n));
    }
    if let Some(n) = set(m.reservation) {
        put(all, "memory.low", or_max(n));
    }
}

/// The limit of swap: version 1 counts memory with it, version 2 swap alone.
pub fn swap_v2(m: &Memory) -> Option<i64> {
    match (set(m.limit), set(m.swap)) {
        (Some(-1), None) | (_, Some(-1)) => Some(-1),
        (Some(limit), Some(both)) => Some(both - limit),
        _ => None,
    }
}

fn cpu_v2(all: &mut Vec<Setting>, c: &Cpu) {
    if let Some(n) = set(c.idle) {
        put(all, "cpu.idle", n);
    }
    if let Some(n) = set(c.shares) {
        put(all, "cpu.weight", weight(n));
    }
    let (quota, period) = (set(c.quota), set(c.period));
    if quota.is_some() || period.is_some() {
        put(all, "cpu.max", format!("{} {}", or_max(quota.unwrap_or(-1)), period.unwrap_or(100_000)));
    }
    if let Some(n) = c.burst {
        put(all, "cpu.max.burst", n);
    }
}

fn io_v2(all: &mut Vec<Setting>, b: &BlockIo) {
    if let Some(n) = set(b.weight) {
        // BFQ takes the number as it is; io.weight goes from 1 to 10000.
        let other = 1 + (u64::from(n).saturating_sub(10)) * 9999 / 990;
        let (file, value) = ("io.bfq.weight".into(), n.to_string());
        all.push(Setting { file, value, lenient: Lenient::No, or: Some(("io.weight", other.to_string())) });
    }
    for d in &b.weight_device {
        if let Some(n) = set(d.weight) {
            put(all, "io.bfq.weight", format!("{}:{} {n}", d.major, d.minor));
        }
    }
    for (_, name, devices) in throttles(b) {
        devices.iter().for_each(|d| put(all, "io.max", format!("{}:{} {name}={}", d.major, d.minor, d.rate)));
    }
}

/// What version 2 has no word for, by name and with the reason.
pub fn without_word_v2(r: &Resources) -> Vec<&'static str> {
    let m = r.memory.unwrap_or_default();
    let c = r.cpu.clone().unwrap_or_default();
    let b = r.block_io.clone().unwrap_or_default();
    let leaf = set(b.leaf_weight).is_some() || b.weight_device.iter().any(|d| set(d.leaf_weight).is_some());
    [
        (m.swappiness.is_some(), "memory.swappiness: not set: cgroup v2 has none"),
        (m.disable_oom_killer == Some(true), "memory.disableOOMKiller: not set: cgroup v2 has none"),
        (set(c.realtime_runtime).is_some(), "cpu.realtimeRuntime: not set: cgroup v2 has none"),
        (set(c.realtime_period).is_some(), "cpu.realtimePeriod: not set: cgroup v2 has none"),
        (leaf, "blockIO.leafWeight: not set: cgroup v2 has none"),
    ]
    .into_iter()
    .filter_map(|(there, text)| there.then_some(text))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(all: Vec<Setting>) -> Vec<String> {
        all.into_iter().map(|s| format!("{}={}", s.file, s.value)).collect()
    }

    fn of(json: serde_json::Value) -> Resources {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn memory_and_swap_are_written_in_the_order_that_the_host_takes() {
        let both = of(serde_json::json!({"memory": {"limit": 100, "swap": 200, "reservation": 50, "swappiness": 7}}));
        let rest = ["memory.soft_limit_in_bytes=50", "memory.swappiness=7"];
        let (m, s) = ("memory.limit_in_bytes=100", "memory.memsw.limit_in_bytes=200");
        assert_eq!(lines(of_v1("memory", &both, u64::MAX)), [m, s, rest[0], rest[1]]);
        assert_eq!(lines(of_v1("memory", &both, 150)), [s, m, rest[0], rest[1]]);
        let none = of(serde_json::json!({"memory": {"limit": -1}}));
        let all = of_v1("memory", &none, 150);
        assert_eq!(all.first().unwrap().lenient, Lenient::Missing);
        assert_eq!(lines(all), ["memory.memsw.limit_in_bytes=-1", "memory.limit_in_bytes=-1"]);
        assert_eq!(lines(of_v2("memory", &both)), ["memory.swap.max=100", "memory.max=100", "memory.low=50"]);
        assert_eq!(lines(of_v2("memory", &none)), ["memory.swap.max=max", "memory.max=max"]);
    }

    #[test]
    fn version_2_gets_the_same_in_its_own_words() {
        let r = of(serde_json::json!({
            "cpu": {"shares": 1024, "quota": 20000, "period": 50000, "cpus": "0-1", "mems": "0"}, "pids": {"limit": 20},
            "blockIO": {"weight": 100, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 5}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 9}], "rdma": {"mlx": {"hcaHandles": 3}}
        }));
        assert_eq!(lines(of_v2("cpu", &r)), ["cpu.weight=39", "cpu.max=20000 50000"]);
        assert_eq!(
            lines(of_v1("cpu", &r, 0)),
            ["cpu.shares=1024", "cpu.cfs_period_us=50000", "cpu.cfs_quota_us=20000"]
        );
        assert_eq!(lines(of_v2("cpuset", &r)), ["cpuset.cpus=0-1", "cpuset.mems=0"]);
        assert_eq!(lines(of_v2("pids", &r)), ["pids.max=552"]);
        assert_eq!(lines(of_v2("io", &r)), ["io.bfq.weight=100", "io.max=8:0 rbps=5"]);
        assert_eq!(lines(of_v1("blkio", &r, 0)), ["blkio.weight=100", "blkio.throttle.read_bps_device=8:0 5"]);
        assert_eq!(lines(of_v2("hugetlb", &r)), ["hugetlb.2MB.max=9", "hugetlb.2MB.rsvd.max=9"]);
        assert_eq!(lines(of_v1("rdma", &r, 0)), ["rdma.max=mlx hca_handle=3"]);
        let unlimited = of(serde_json::json!({"cpu": {"quota": -1}, "pids": {"limit": -1}}));
        assert_eq!(lines(of_v2("cpu", &unlimited)), ["cpu.max=max 100000"]);
        assert_eq!(lines(of_v2("pids", &unlimited)), ["pids.max=max"]);
    }
}
