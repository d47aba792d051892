//! The systemd driver: which unit a container is, and what systemd is told of its limits, as runc's driver names both.
//!
//! Owns the form `slice:prefix:name` of `linux.cgroupsPath`, the place of a slice and the properties. Data only: it makes no unit and opens
//! nothing (that is [`super::bus`], in a process of its own). What has no property is written in the unit's folder, which is delegated
//! to us. Called by `cgroups`.

use serde::{Deserialize, Serialize};

use super::resources::{Resources, set, text, weight};
use super::settings::tasks;

/// The first part of a unit's name where the document says nothing.
const PREFIX: &str = "cofferdam";

/// The kernel's period of processor time, in microseconds.
const PERIOD: u64 = 100_000;

/// The unit that a container is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name, with `.scope` or `.slice` at its end.
    pub name: String,
    /// The slice that it is in.
    pub slice: String,
    /// What it is for, to people.
    pub description: String,
    /// Whether it is the user's own systemd that has it.
    pub user: bool,
}

/// What systemd is told of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// A number; all bits for no limit.
    Number(u64),
    /// Processors or nodes of memory: bit 0 of the first byte is the first.
    Set(Vec<u8>),
}

/// A property by name.
pub type Property = (String, Value);

/// The properties that are ever set.
pub const PROPERTIES: [&str; 14] = [
    "AllowedCPUs",
    "AllowedMemoryNodes",
    "BlockIOWeight",
    "CPUQuotaPerSecUSec",
    "CPUQuotaPeriodUSec",
    "CPUShares",
    "CPUWeight",
    "MemoryHigh",
    "MemoryLimit",
    "MemoryLow",
    "MemoryMax",
    "MemoryMin",
    "MemorySwapMax",
    "TasksMax",
];

impl Unit {
    /// The unit that `path` names, of the container `id`; `user` without privilege.
    pub fn parse(path: &str, id: &str, user: bool) -> Result<Self, String> {
        let (slice, prefix, name) = match path.split(':').collect::<Vec<_>>()[..] {
            _ if path.is_empty() => ("", PREFIX, id),
            [slice, prefix, name] => (slice, prefix, name),
            _ => {
                return Err(format!(
                    "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
                ));
            }
        };
        let slice = match slice {
            "" if user => "user.slice",
            "" => "system.slice",
            slice => slice,
        };
        expand(slice)?;
        let unit = if name.ends_with(".slice") { name.to_owned() } else { format!("{prefix}-{name}.scope") };
        if !is_name(&unit) {
            return Err(format!("invalid unit name: {unit}"));
        }
        let unit = Self { name: unit, slice: slice.into(), description: format!("cofferdam container {name}"), user };
        unit.place()?;
        Ok(unit)
    }

    /// The unit of a user's supervisor, with this pid: a scope that only ends with it, and from which the user may move what it starts.
    pub fn supervisor(pid: u32) -> Self {
        let name = format!("{PREFIX}-supervisor-{pid}.scope");
        Self { name, slice: "user.slice".into(), description: "cofferdam supervisor".into(), user: true }
    }

    /// Whether it is a slice, which holds other units and is given no processes.
    pub fn is_slice(&self) -> bool {
        self.name.ends_with(".slice")
    }

    /// Its place below the cgroup of the systemd that has it.
    pub fn place(&self) -> Result<String, String> {
        match self.is_slice() {
            // Where a slice is its own name says.
            true => expand(&self.name),
            false => Ok(format!("{}/{}", expand(&self.slice)?.trim_end_matches('/'), self.name)),
        }
    }
}

/// Whether systemd takes it for a unit's name: what a folder may be called, too.
fn is_name(name: &str) -> bool {
    name.len() < 256 && name.chars().all(|c| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c))
}

/// Where a slice is: `a-b.slice` is in `a.slice`.
pub fn expand(slice: &str) -> Result<String, String> {
    let invalid = || format!("invalid slice name: {slice}");
    let name = slice.strip_suffix(".slice").filter(|_| is_name(slice)).ok_or_else(invalid)?;
    if name == "-" {
        return Ok("/".into());
    }
    let (mut place, mut whole) = (String::new(), String::new());
    for part in name.split('-') {
        if part.is_empty() {
            return Err(invalid());
        }
        whole.push_str(part);
        place.push_str(&format!("/{whole}.slice"));
        whole.push('-');
    }
    Ok(place)
}

/// A list as `0-2,4`, one bit for each.
fn bits(list: &str) -> Result<Vec<u8>, String> {
    let mut all: Vec<u8> = Vec::new();
    for range in list.split(',').map(str::trim).filter(|r| !r.is_empty()) {
        let number = |t: &str| t.trim().parse::<usize>().map_err(|_| format!("invalid range {range:?}"));
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(range)?, number(range)?),
        };
        // More than any kernel has.
        if first > last || last >= 1 << 16 {
            return Err(format!("invalid range {range:?}"));
        }
        if all.len() <= last / 8 {
            all.resize(last / 8 + 1, 0);
        }
        for n in first..=last {
            if let Some(byte) = all.get_mut(n / 8) {
                *byte |= 1 << (n % 8);
            }
        }
    }
    if all.is_empty() { Err("an empty range".into()) } else { Ok(all) }
}

/// A limit as systemd counts: all bits for none.
fn or_none(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// The properties that say the same as these resources. `unified`: whether version 2 is all there is.
pub fn properties(r: &Resources, unified: bool) -> Result<Vec<Property>, String> {
    let mut all: Vec<Property> = Vec::new();
    let mut put = |name: &str, value: u64| all.push((name.into(), Value::Number(value)));
    let (m, c) = (r.memory.unwrap_or_default(), r.cpu.clone().unwrap_or_default());
    let limit = set(m.limit);
    if unified {
        limit.into_iter().for_each(|n| put("MemoryMax", or_none(n)));
        set(m.reservation).into_iter().for_each(|n| put("MemoryLow", or_none(n)));
        super::settings::swap_v2(&m).into_iter().for_each(|n| put("MemorySwapMax", or_none(n)));
        // A group that is idle has no other weight: that is what the folder says.
        set(c.shares).into_iter().for_each(|n| put("CPUWeight", weight(n)));
    } else {
        limit.into_iter().for_each(|n| put("MemoryLimit", or_none(n)));
        set(c.shares).into_iter().for_each(|n| put("CPUShares", n));
        let block = r.block_io.as_ref().and_then(|b| set(b.weight));
        block.into_iter().for_each(|n| put("BlockIOWeight", n.into()));
    }
    quota(&mut put, set(c.quota), set(c.period));
    tasks(r).into_iter().for_each(|n| put("TasksMax", or_none(n)));
    for (name, list) in [("AllowedCPUs", &c.cpus), ("AllowedMemoryNodes", &c.mems)] {
        if let Some(list) = text(list.as_ref()) {
            let bits = bits(list).map_err(|e| format!("linux.resources.cpu: {list:?}: {e}"))?;
            all.push((name.into(), Value::Set(bits)));
        }
    }
    if unified {
        for (name, value) in &r.unified {
            of_file(&mut all, name, value.trim())?;
        }
    }
    Ok(all)
}

/// Processor time: systemd counts in whole hundredths of a processor, the folder is exact.
fn quota(put: &mut impl FnMut(&str, u64), quota: Option<i64>, period: Option<u64>) {
    if let Some(n) = period {
        put("CPUQuotaPeriodUSec", n);
    }
    if quota.is_none() && period.is_none() {
        return;
    }
    let a_second = match quota.map(u64::try_from) {
        Some(Ok(n)) => {
            let exact = u128::from(n) * 1_000_000 / u128::from(period.unwrap_or(PERIOD).max(1));
            u64::try_from(exact.div_ceil(10_000) * 10_000).unwrap_or(u64::MAX)
        }
        _ => u64::MAX,
    };
    put("CPUQuotaPerSecUSec", a_second);
}

/// The property for a file of version 2, if there is one: the file is written in any case.
fn of_file(all: &mut Vec<Property>, file: &str, value: &str) -> Result<(), String> {
    let wrong = || format!("unified resource {file:?} value invalid: {value:?}");
    let number = |t: &str| if t == "max" { Ok(u64::MAX) } else { t.parse::<u64>().map_err(|_| wrong()) };
    let mut put = |name: &str, value: Value| all.push((name.into(), value));
    match file {
        "cpu.max" => {
            let mut words = value.split_whitespace();
            let most = words.next().ok_or_else(wrong)?;
            let most = if most == "max" { -1 } else { most.parse::<i64>().map_err(|_| wrong())? };
            let period = words.next().map(|p| p.parse::<u64>().map_err(|_| wrong())).transpose()?;
            quota(&mut |name, n| put(name, Value::Number(n)), Some(most), Some(period.unwrap_or(PERIOD)));
        }
        "cpu.weight" => put("CPUWeight", Value::Number(value.parse().map_err(|_| wrong())?)),
        "cpuset.cpus" => put("AllowedCPUs", Value::Set(bits(value).map_err(|_| wrong())?)),
        "cpuset.mems" => put("AllowedMemoryNodes", Value::Set(bits(value).map_err(|_| wrong())?)),
        "memory.high" => put("MemoryHigh", Value::Number(number(value)?)),
        "memory.low" => put("MemoryLow", Value::Number(number(value)?)),
        "memory.min" => put("MemoryMin", Value::Number(number(value)?)),
        "memory.max" => put("MemoryMax", Value::Number(number(value)?)),
        "memory.swap.max" => put("MemorySwapMax", Value::Number(number(value)?)),
        "pids.max" => put("TasksMax", Value::Number(number(value)?)),
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(resources: serde_json::Value, unified: bool) -> Vec<String> {
        let all = properties(&serde_json::from_value(resources).unwrap(), unified).unwrap();
        for (name, _) in &all {
            assert!(PROPERTIES.contains(&name.as_str()), "{name}");
        }
        all.into_iter()
            .map(|(name, value)| match value {
                Value::Number(u64::MAX) => format!("{name}=infinity"),
                Value::Number(n) => format!("{name}={n}"),
                Value::Set(bytes) => format!("{name}={bytes:?}"),
            })
            .collect()
    }

    #[test]
    fn slices_are_in_the_slices_of_their_names() {
        for (slice, place) in [
            ("system.slice", "/system.slice"),
            ("test-a-b.slice", "/test.slice/test-a.slice/test-a-b.slice"),
            ("-.slice", "/"),
            (
                "kubepods-besteffort-pod1_2.slice",
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1_2.slice",
            ),
        ] {
            assert_eq!(expand(slice).as_deref(), Ok(place), "{slice}");
        }
        for slice in [
            "",
            ".slice",
            "a",
            "a.scope",
            "a--b.slice",
            "-a.slice",
            "a-.slice",
            "a/b.slice",
            "../a.slice",
            "a\nb.slice",
        ] {
            assert_eq!(expand(slice), Err(format!("invalid slice name: {slice}")), "{slice}");
        }
    }

    #[test]
    fn units_are_named_as_runc_names_them() {
        for (path, user, name, slice, place) in [
            ("system.slice:docker:12", false, "docker-12.scope", "system.slice", "/system.slice/docker-12.scope"),
            ("a-b.slice:crio:x", false, "crio-x.scope", "a-b.slice", "/a.slice/a-b.slice/crio-x.scope"),
            (":libpod:x", false, "libpod-x.scope", "system.slice", "/system.slice/libpod-x.scope"),
            (":libpod:x", true, "libpod-x.scope", "user.slice", "/user.slice/libpod-x.scope"),
            ("", false, "cofferdam-c1.scope", "system.slice", "/system.slice/cofferdam-c1.scope"),
            ("-.slice:p:x", false, "p-x.scope", "-.slice", "/p-x.scope"),
            ("system.slice::x", false, "-x.scope", "system.slice", "/system.slice/-x.scope"),
            ("a.slice:p:a-b.slice", false, "a-b.slice", "a.slice", "/a.slice/a-b.slice"),
        ] {
            let unit = Unit::parse(path, "c1", user).unwrap();
            assert_eq!((&*unit.name, &*unit.slice, unit.user), (name, slice, user), "{path}");
            assert_eq!(unit.place().as_deref(), Ok(place), "{path}");
        }
        for path in ["/a/b", "a.slice", "a.slice:b", "a.slice:b:c:d"] {
            let error = Unit::parse(path, "c1", false).unwrap_err();
            assert!(
                error.ends_with(&format!("\"slice:prefix:name\" for systemd cgroups, got {path:?} instead")),
                "{error}"
            );
        }
        for path in ["a:b:c", "a/b.slice:c:d", "a.slice:b:c/../../d", "a.slice:b:c\nd", "a.slice:b:--.slice"] {
            assert!(Unit::parse(path, "c1", false).unwrap_err().starts_with("invalid "), "{path}");
        }
        assert!(Unit::parse(&format!("a.slice:b:{}", "c".repeat(250)), "c1", false).is_err());
    }

    #[test]
    fn limits_are_properties_of_either_version() {
        let r = json!({
            "memory": {"limit": 1000, "swap": 3000, "reservation": 500}, "pids": {"limit": 10},
            "cpu": {"shares": 1024, "quota": 20_001, "period": 50_000, "cpus": "0-2,9", "mems": "0"}, "blockIO": {"weight": 300}
        });
        let both = ["CPUQuotaPeriodUSec=50000", "CPUQuotaPerSecUSec=410000", "TasksMax=532"];
        let sets = ["AllowedCPUs=[7, 2]", "AllowedMemoryNodes=[1]"];
        let v2 = ["MemoryMax=1000", "MemoryLow=500", "MemorySwapMax=2000", "CPUWeight=39"];
        let v1 = ["MemoryLimit=1000", "CPUShares=1024", "BlockIOWeight=300"];
        assert_eq!(told(r.clone(), true), [&v2[..], &both, &sets].concat());
        assert_eq!(told(r, false), [&v1[..], &both, &sets].concat());
        let none = json!({"memory": {"limit": -1}, "cpu": {"quota": -1}, "pids": {"limit": -1}});
        let same = ["CPUQuotaPerSecUSec=infinity", "TasksMax=infinity"];
        assert_eq!(told(none.clone(), true), [&["MemoryMax=infinity", "MemorySwapMax=infinity"][..], &same].concat());
        assert_eq!(told(none, false), [&["MemoryLimit=infinity"][..], &same].concat());
        assert_eq!(told(json!({"memory": {"swappiness": 3}, "rdma": {}}), true), [""; 0]);
        assert_eq!(
            told(json!({"cpu": {"period": 1000}}), true),
            ["CPUQuotaPeriodUSec=1000", "CPUQuotaPerSecUSec=infinity"]
        );
        assert_eq!(told(json!({"cpu": {"quota": i64::MAX, "period": 1}}), true)[1], "CPUQuotaPerSecUSec=infinity");
    }

    #[test]
    fn files_of_version_2_are_properties_where_there_is_one() {
        let unified = json!({"unified": {
            "cpu.max": "20000 50000", "cpu.weight": "7", "cpuset.cpus": "1", "memory.high": "max", "memory.max": " 9 ",
            "memory.oom.group": "1", "pids.max": "5"
        }});
        let told_ = told(unified.clone(), true);
        let all = ["CPUQuotaPeriodUSec=50000", "CPUQuotaPerSecUSec=400000", "CPUWeight=7", "AllowedCPUs=[2]"];
        assert_eq!(told_, [&all[..], &["MemoryHigh=infinity", "MemoryMax=9", "TasksMax=5"]].concat());
        assert_eq!(told(unified, false), [""; 0]);
        for (file, value) in
            [("cpu.max", ""), ("cpu.max", "x"), ("cpu.weight", "max"), ("cpuset.cpus", "3-1"), ("memory.max", "-1")]
        {
            let mut r = Resources::default();
            r.unified.insert(file.into(), value.into());
            assert!(properties(&r, true).is_err(), "{file} {value}");
        }
    }

    #[test]
    fn lists_that_are_none_are_refused() {
        for list in ["x", "1-", "-1", "2-1", "65536", ",", "0-18446744073709551616"] {
            assert!(bits(list).is_err(), "{list}");
        }
        assert_eq!(bits("0,15, 3-4"), Ok(vec![0b1_1001, 0b1000_0000]));
    }
}
