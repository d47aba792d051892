//! `linux.resources` of a document, and the same document as `update` brings it: what is asked, whether it makes sense, and what of
//! it the Sentry is told.
//!
//! Opens nothing. Called by the rest of `cgroups`.

use std::collections::BTreeMap;

use cofferdam_control::sentry::Limits;
use serde::{Deserialize, Serialize};

/// `linux.resources`. What is absent is left as it is; 0 is absent, too, where runc takes it so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// Memory.
    pub memory: Option<Memory>,
    /// Processors.
    pub cpu: Option<Cpu>,
    /// Number of tasks.
    pub pids: Option<Pids>,
    /// Block devices.
    #[serde(rename = "blockIO")]
    pub block_io: Option<BlockIo>,
    /// Huge pages.
    pub hugepage_limits: Vec<HugepageLimit>,
    /// RDMA, by device.
    pub rdma: BTreeMap<String, Rdma>,
    /// Files of cgroup v2 by name.
    pub unified: BTreeMap<String, String>,
    /// Marks on packets, which a sandbox has none of that the host would see.
    pub network: Option<Network>,
}

/// Memory, bytes; -1 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// The limit.
    pub limit: Option<i64>,
    /// What is left to it when memory is short.
    pub reservation: Option<i64>,
    /// Memory and swap together.
    pub swap: Option<i64>,
    /// Of the kernel: Linux has no such limit any more.
    pub kernel: Option<i64>,
    /// Of the kernel's TCP buffers.
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: Option<i64>,
    /// 0 to 100.
    pub swappiness: Option<u64>,
    /// Whether processes wait at the limit instead of being killed.
    #[serde(rename = "disableOOMKiller")]
    pub disable_oom_killer: Option<bool>,
    /// Whether a limit below what is used is refused (v2; v1 always does).
    pub check_before_update: Option<bool>,
}

/// Processors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cpu {
    /// Weight, 1024 is everybody's.
    pub shares: Option<u64>,
    /// Microseconds of a period; below 0 no limit.
    pub quota: Option<i64>,
    /// What may be saved up of it.
    pub burst: Option<u64>,
    /// Microseconds.
    pub period: Option<u64>,
    /// For real-time tasks.
    pub realtime_runtime: Option<i64>,
    /// For real-time tasks.
    pub realtime_period: Option<u64>,
    /// Which ones.
    pub cpus: Option<String>,
    /// Which nodes of memory.
    pub mems: Option<String>,
    /// 1: only what nobody else wants.
    pub idle: Option<i64>,
}

/// Number of tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pids {
    /// The limit; below 0 none.
    pub limit: i64,
}

/// Block devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockIo {
    /// 10 to 1000 by the specification; a host takes what its scheduler does.
    pub weight: Option<u16>,
    /// The same against groups below it.
    pub leaf_weight: Option<u16>,
    /// Weights by device.
    pub weight_device: Vec<WeightDevice>,
    /// Bytes a second that are read.
    pub throttle_read_bps_device: Vec<ThrottleDevice>,
    /// Bytes a second that are written.
    pub throttle_write_bps_device: Vec<ThrottleDevice>,
    /// Reads a second.
    #[serde(rename = "throttleReadIOPSDevice")]
    pub throttle_read_iops_device: Vec<ThrottleDevice>,
    /// Writes a second.
    #[serde(rename = "throttleWriteIOPSDevice")]
    pub throttle_write_iops_device: Vec<ThrottleDevice>,
}

/// A weight for one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WeightDevice {
    /// Of the device.
    pub major: i64,
    /// Of the device.
    pub minor: i64,
    /// See [`BlockIo`].
    pub weight: Option<u16>,
    /// See [`BlockIo`].
    pub leaf_weight: Option<u16>,
}

/// A rate for one device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThrottleDevice {
    /// Of the device.
    pub major: i64,
    /// Of the device.
    pub minor: i64,
    /// A second.
    pub rate: u64,
}

/// Huge pages of one size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HugepageLimit {
    /// As `2MB`.
    pub page_size: String,
    /// Bytes.
    pub limit: u64,
}

/// Handles and objects of one RDMA device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rdma {
    /// Handles.
    pub hca_handles: Option<u32>,
    /// Objects.
    pub hca_objects: Option<u32>,
}

/// Marks on packets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// The class.
    #[serde(rename = "classID")]
    pub class_id: Option<u32>,
    /// By interface.
    pub priorities: Vec<serde_json::Value>,
}

/// A value that is there: 0 stands for none, as runc takes it.
pub fn set<T: Default + PartialEq + Copy>(value: Option<T>) -> Option<T> {
    value.filter(|v| *v != T::default())
}

/// A text that is there.
pub fn text(value: Option<&String>) -> Option<&str> {
    value.map(String::as_str).filter(|t| !t.is_empty())
}

/// The file name of a page size: two words may name one limit, slashes none.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && !name.contains('\0') && name != "." && name != ".."
}

impl Resources {
    /// Asks for no weight of processor time among others.
    pub fn without_weight(&mut self) {
        if let Some(cpu) = &mut self.cpu {
            cpu.shares = None;
        }
        self.unified.remove("cpu.weight");
    }

    /// Whether it makes sense; the message is for a person.
    pub fn check(&self) -> Result<(), String> {
        if let Some(m) = &self.memory {
            for (what, value) in
                [("memory limit", m.limit), ("memory reservation", m.reservation), ("memory+swap limit", m.swap)]
            {
                if let Some(n) = value.filter(|n| *n < -1) {
                    return Err(format!("invalid {what}: {n}"));
                }
            }
            match (set(m.limit).unwrap_or(-1), set(m.swap).unwrap_or(-1)) {
                (limit, swap) if limit > 0 && swap > 0 && swap < limit => {
                    return Err("memory+swap limit should be >= memory limit".into());
                }
                (-1, swap) if swap > 0 => return Err("unable to set swap limit without memory limit".into()),
                _ => {}
            }
            if let Some(n) = m.swappiness.filter(|n| *n > 100) {
                return Err(format!("invalid memory swappiness value: {n} (valid range is 0-100)"));
            }
        }
        if let Some(c) = &self.cpu {
            if let Some(n) = c.idle.filter(|n| !(0..=1).contains(n)) {
                return Err(format!("invalid cpu idle value: {n} (0 or 1)"));
            }
            if let (Some(burst), Some(quota)) = (set(c.burst), c.quota.filter(|q| *q > 0))
                && burst > quota.unsigned_abs()
            {
                return Err(format!("cpu burst {burst} is more than the quota {quota}"));
            }
        }
        for h in &self.hugepage_limits {
            if !is_name(&h.page_size) {
                return Err(format!("invalid hugepage size {:?}", h.page_size));
            }
        }
        for device in self.rdma.keys() {
            if device.is_empty() || device.contains(char::is_whitespace) {
                return Err(format!("invalid rdma device {device:?}"));
            }
        }
        for name in self.unified.keys() {
            if !is_name(name) {
                return Err(format!("unified resource {name:?} must be a file name (no slashes)"));
            }
        }
        Ok(())
    }

    /// The limits by name that a host without cgroups leaves unset.
    pub fn names(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut note = |there: bool, name: &str| {
            if there {
                all.push(format!("linux.resources.{name}"));
            }
        };
        let m = self.memory.unwrap_or_default();
        note(set(m.limit).is_some_and(|n| n > 0), "memory.limit");
        note(set(m.reservation).is_some_and(|n| n > 0), "memory.reservation");
        note(set(m.swap).is_some_and(|n| n > 0), "memory.swap");
        note(m.swappiness.is_some(), "memory.swappiness");
        note(m.disable_oom_killer == Some(true), "memory.disableOOMKiller");
        let c = self.cpu.clone().unwrap_or_default();
        note(set(c.shares).is_some(), "cpu.shares");
        note(c.quota.is_some_and(|q| q > 0), "cpu.quota");
        note(set(c.period).is_some(), "cpu.period");
        note(set(c.burst).is_some(), "cpu.burst");
        note(set(c.realtime_runtime).is_some(), "cpu.realtimeRuntime");
        note(set(c.realtime_period).is_some(), "cpu.realtimePeriod");
        note(text(c.cpus.as_ref()).is_some(), "cpu.cpus");
        note(text(c.mems.as_ref()).is_some(), "cpu.mems");
        note(set(c.idle).is_some(), "cpu.idle");
        // The number of tasks is the Sentry's to count, with cgroups and without.
        note(self.block_io.as_ref().is_some_and(|b| *b != BlockIo::default()), "blockIO");
        note(!self.hugepage_limits.is_empty(), "hugepageLimits");
        note(!self.rdma.is_empty(), "rdma");
        self.unified.keys().for_each(|k| note(true, &format!("unified[{k}]")));
        all
    }

    /// What is asked for and has no meaning here, by name and with the reason.
    pub fn meaningless(&self) -> Vec<String> {
        let m = self.memory.unwrap_or_default();
        let mut all = Vec::new();
        let mut note = |there: bool, text: &str| {
            if there {
                all.push(format!("linux.resources.{text}"));
            }
        };
        note(
            set(m.kernel).is_some_and(|n| n > 0),
            "memory.kernel: not set: Linux has no limit of kernel memory any more",
        );
        note(set(m.kernel_tcp).is_some_and(|n| n > 0), "memory.kernelTCP: not set: a sandbox has no TCP of the host's");
        let marks = self.network.as_ref().is_some_and(|n| set(n.class_id).is_some() || !n.priorities.is_empty());
        note(marks, "network: not set: a sandbox sends no packets that the host could mark");
        all
    }

    /// This with what an update changes.
    pub fn merge(&mut self, new: &Resources) {
        fn over<T: Clone>(old: &mut Option<T>, new: &Option<T>) {
            if new.is_some() {
                old.clone_from(new);
            }
        }
        if let Some(n) = &new.memory {
            let m = self.memory.get_or_insert_default();
            over(&mut m.limit, &set(n.limit));
            over(&mut m.reservation, &set(n.reservation));
            over(&mut m.swap, &set(n.swap));
            over(&mut m.swappiness, &n.swappiness);
            over(&mut m.disable_oom_killer, &n.disable_oom_killer);
            over(&mut m.check_before_update, &n.check_before_update);
        }
        if let Some(n) = &new.cpu {
            let c = self.cpu.get_or_insert_default();
            over(&mut c.shares, &set(n.shares));
            over(&mut c.quota, &set(n.quota));
            over(&mut c.burst, &n.burst);
            over(&mut c.period, &set(n.period));
            over(&mut c.realtime_runtime, &set(n.realtime_runtime));
            over(&mut c.realtime_period, &set(n.realtime_period));
            over(&mut c.cpus, &n.cpus.clone().filter(|t| !t.is_empty()));
            over(&mut c.mems, &n.mems.clone().filter(|t| !t.is_empty()));
            over(&mut c.idle, &n.idle);
        }
        over(&mut self.pids, &new.pids.filter(|p| p.limit != 0));
        over(&mut self.block_io, &new.block_io);
        over(&mut self.network, &new.network);
        self.hugepage_limits.retain(|old| new.hugepage_limits.iter().all(|n| n.page_size != old.page_size));
        self.hugepage_limits.extend(new.hugepage_limits.iter().cloned());
        self.rdma.extend(new.rdma.iter().map(|(k, v)| (k.clone(), *v)));
        self.unified.extend(new.unified.iter().map(|(k, v)| (k.clone(), v.clone())));
    }

    /// What the container is to see of it.
    pub fn limits(&self) -> Limits {
        let m = self.memory.unwrap_or_default();
        let c = self.cpu.clone().unwrap_or_default();
        let above = |n: Option<i64>| n.filter(|n| *n > 0).map(i64::unsigned_abs);
        let unified = |name: &str| self.unified.get(name).and_then(|v| v.trim().parse().ok());
        let memory = above(m.limit).or_else(|| unified("memory.max"));
        let max: Option<(&str, Option<&str>)> = self.unified.get("cpu.max").map(|v| {
            let mut words = v.split_whitespace();
            (words.next().unwrap_or_default(), words.next())
        });
        let (quota, period) = match max {
            Some((q, p)) => (q.parse().ok(), p.and_then(|p| p.parse().ok())),
            None => (above(c.quota), set(c.period)),
        };
        Limits {
            memory,
            swap: above(m.swap)
                .zip(above(m.limit))
                .map(|(s, m)| s.saturating_sub(m))
                .or_else(|| unified("memory.swap.max")),
            cpu_quota: quota,
            cpu_period: period,
            cpu_weight: set(c.shares).map(weight).or_else(|| unified("cpu.weight")),
            pids: above(self.pids.map(|p| p.limit)).or_else(|| unified("pids.max")),
        }
    }
}

/// The weight of cgroup v2 for a number of shares, as runc and crun count: 2 to 262144 become 1 to 10000.
pub fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: serde_json::Value) -> Resources {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn nonsense_is_refused_and_sense_is_not() {
        let bad = serde_json::json!([
            {"memory": {"limit": -2}}, {"memory": {"swap": -5}}, {"memory": {"reservation": -9}},
            {"memory": {"limit": 100, "swap": 99}}, {"memory": {"swap": 99}}, {"memory": {"swappiness": 101}},
            {"cpu": {"idle": 2}}, {"cpu": {"quota": 1000, "burst": 2000}}, {"hugepageLimits": [{"pageSize": "../x", "limit": 1}]},
            {"unified": {"a/b": "1"}}, {"rdma": {"a b": {"hcaHandles": 1}}}
        ]);
        for one in bad.as_array().unwrap() {
            assert!(of(one.clone()).check().is_err(), "{one}");
        }
        let good = serde_json::json!([
            {}, {"memory": {"limit": -1}}, {"memory": {"limit": 100, "swap": 100}}, {"memory": {"limit": 100, "swap": -1}},
            {"cpu": {"quota": -1, "shares": 2}}, {"pids": {"limit": -1}}, {"memory": {"limit": 0, "swap": 0}},
            {"devices": [{"allow": false, "access": "rwm"}]}, {"memory": null, "cpu": null}
        ]);
        for one in good.as_array().unwrap() {
            assert_eq!(of(one.clone()).check(), Ok(()), "{one}");
        }
        assert!(serde_json::from_value::<Resources>(serde_json::json!({"memory": {"limit": "64M"}})).is_err());
        assert!(serde_json::from_value::<Resources>(serde_json::json!({"cpu": {"shares": -1}})).is_err());
    }

    #[test]
    fn shares_become_weights() {
        for (shares, weight_) in [(2, 1), (1024, 39), (512, 20), (262_144, 10_000), (1, 1), (u64::MAX, 10_000)] {
            assert_eq!(weight(shares), weight_, "{shares}");
        }
    }

    #[test]
    fn an_update_changes_what_it_names() {
        let mut r = of(
            serde_json::json!({"memory": {"limit": 100, "swap": 300}, "cpu": {"shares": 1024}, "pids": {"limit": 9}}),
        );
        r.merge(&of(serde_json::json!({"memory": {"limit": 200, "swap": 0}, "cpu": {"quota": 5000, "period": 0}})));
        let limits = r.limits();
        assert_eq!((limits.memory, limits.swap, limits.pids), (Some(200), Some(100), Some(9)));
        assert_eq!((limits.cpu_quota, limits.cpu_period, limits.cpu_weight), (Some(5000), None, Some(39)));
        let mut traverse = r.clone();
        traverse.merge(&of(serde_json::json!({"hugepageLimits": [{"pageSize": "../x", "limit": 1}]})));
        assert!(traverse.check().is_err());
        r.merge(&of(serde_json::json!({"pids": {"limit": -1}, "memory": {"limit": -1, "swap": -1}})));
        assert_eq!((r.limits().pids, r.limits().memory, r.limits().swap), (None, None, None));
    }
}
