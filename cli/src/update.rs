//! `update`: changes the limits of a container, from a file of OCI resources or from flags, as runc takes both.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use cofferdam_control::client::Request;
use serde_json::{Map, Value};

use crate::connection::Connection;
use crate::document;
use crate::failure::Failure;

/// `update`.
#[derive(Debug, Args)]
pub struct Update {
    /// The container
    pub id: String,
    /// Read the limits that change from FILE (`-`: stdin), in the form of config.json's linux.resources; other flags do not count then
    #[arg(short, long, value_name = "FILE")]
    pub resources: Option<std::path::PathBuf>,
    /// Weight for block devices, 10 to 1000
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    blkio_weight: Option<String>,
    /// Period of the processor limit in microseconds
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    cpu_period: Option<String>,
    /// Processor time in a period, in microseconds
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    cpu_quota: Option<String>,
    /// Processor time that may be saved up, in microseconds
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    cpu_burst: Option<String>,
    /// Weight for the processors against other containers
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    cpu_share: Option<String>,
    /// Period of the real-time limit in microseconds
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    cpu_rt_period: Option<String>,
    /// Processor time of real-time tasks in a period, in microseconds
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    cpu_rt_runtime: Option<String>,
    /// 1: run only when nobody else wants to
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    cpu_idle: Option<String>,
    /// Processors to use, as 0-2,4
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Nodes of memory to use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Memory, in bytes or with k, m or g behind; -1 for no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory: Option<String>,
    /// What is left of it when memory is short
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_reservation: Option<String>,
    /// Memory and swap together; -1 for no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Number of tasks; -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pids_limit: Option<String>,
}

/// Carries it out.
pub fn run(connection: &Connection, update: &Update) -> Result<ExitCode, Failure> {
    let resources = match &update.resources {
        Some(file) => read(file)?,
        None => from_flags(update)?.to_string().into_bytes(),
    };
    connection.ask(&Request::Update { id: update.id.clone(), resources })?;
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let name = file.display().to_string();
    match name.as_str() {
        "-" => document::read(std::io::stdin(), &name),
        _ => document::read(std::fs::File::open(file).map_err(Failure::host(name.clone()))?, &name),
    }
}

fn from_flags(u: &Update) -> Result<Value, Failure> {
    let mut all = Map::new();
    let mut put = |part: &str, name: &str, value: Value| {
        if let Value::Object(part) = all.entry(part).or_insert_with(|| Value::Object(Map::new())) {
            part.insert(name.into(), value);
        }
    };
    type Parse = fn(&str) -> Option<Value>;
    let signed: Parse = |t| t.parse::<i64>().ok().map(Value::from);
    let unsigned: Parse = |t| t.parse::<u64>().ok().map(Value::from);
    let bytes: Parse = |t| bytes(t).map(Value::from);
    let as_is: Parse = |t| Some(t.into());
    for (flag, given, part, name, parse) in [
        ("blkio-weight", &u.blkio_weight, "blockIO", "weight", unsigned),
        ("cpu-period", &u.cpu_period, "cpu", "period", unsigned),
        ("cpu-quota", &u.cpu_quota, "cpu", "quota", signed),
        ("cpu-burst", &u.cpu_burst, "cpu", "burst", unsigned),
        ("cpu-share", &u.cpu_share, "cpu", "shares", unsigned),
        ("cpu-rt-period", &u.cpu_rt_period, "cpu", "realtimePeriod", unsigned),
        ("cpu-rt-runtime", &u.cpu_rt_runtime, "cpu", "realtimeRuntime", signed),
        ("cpu-idle", &u.cpu_idle, "cpu", "idle", signed),
        ("cpuset-cpus", &u.cpuset_cpus, "cpu", "cpus", as_is),
        ("cpuset-mems", &u.cpuset_mems, "cpu", "mems", as_is),
        ("memory", &u.memory, "memory", "limit", bytes),
        ("memory-reservation", &u.memory_reservation, "memory", "reservation", bytes),
        ("memory-swap", &u.memory_swap, "memory", "swap", bytes),
        ("pids-limit", &u.pids_limit, "pids", "limit", signed),
    ] {
        let Some(text) = given.as_ref().filter(|t| !t.is_empty()) else { continue };
        let value = parse(text).ok_or_else(|| Failure::Usage(format!("invalid value for {flag}: {text:?}")))?;
        put(part, name, value);
    }
    Ok(all.into())
}

/// `N`, or `N` with `k`, `m`, `g` or `t` and perhaps `b` or `ib` behind, each 1024 of the one before; -1.
fn bytes(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let lower = text.trim().to_ascii_lowercase();
    let unit = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let (digits, shift) = match unit.chars().last()? {
        'k' => (unit.strip_suffix('k')?, 10),
        'm' => (unit.strip_suffix('m')?, 20),
        'g' => (unit.strip_suffix('g')?, 30),
        't' => (unit.strip_suffix('t')?, 40),
        _ => (unit, 0),
    };
    let number: u64 = digits.trim().parse().ok()?;
    i64::try_from(number.checked_mul(1 << shift)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_in_powers_of_1024() {
        for (text, n) in
            [("-1", -1), ("64M", 64 << 20), ("1g", 1 << 30), ("5", 5), ("2KiB", 2048), ("3kb", 3072), ("7b", 7)]
        {
            assert_eq!(bytes(text), Some(n), "{text}");
        }
        for text in ["", "M", "-2", "1x", "ib", "99999999999g", "1.5.2m"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}
