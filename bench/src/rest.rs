//! Memory of a sandbox at rest: the proportional set size of every process that a runtime started.

use std::collections::HashMap;
use std::time::Duration;

use crate::runtimes::Runtime;

/// Parent of every process.
fn parents() -> HashMap<u32, u32> {
    let mut all = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name in brackets may hold anything: what counts is after the last bracket.
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        if let Some(parent) = after.split_whitespace().nth(1).and_then(|p| p.parse().ok()) {
            all.insert(pid, parent);
        }
    }
    all
}

/// Our descendants. `main` is a subreaper: daemons stay among them.
pub fn descendants() -> Vec<u32> {
    let parents = parents();
    let ours = |mut pid: u32| {
        while let Some(parent) = parents.get(&pid) {
            if *parent == std::process::id() {
                return true;
            }
            pid = *parent;
        }
        false
    };
    parents.keys().copied().filter(|pid| ours(*pid)).collect()
}

/// Sends a signal to a process, if there is one.
pub fn end(pid: u32, signal: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed()) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Bytes of PSS of all our descendants.
pub fn pss() -> f64 {
    let kib = |pid: u32| {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        rollup.lines().find_map(|l| l.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok())
    };
    descendants().into_iter().filter_map(kib).sum::<f64>() * 1024.0
}

/// Bytes of PSS of all processes that `sleep` in this runtime takes. The command itself counts as well.
pub fn at_rest(runtime: &Runtime) -> std::io::Result<f64> {
    let mut child = runtime.silent(&["sleep", "60"])?.spawn()?;
    std::thread::sleep(Duration::from_secs(3));
    let bytes = pss();
    end(child.id(), rustix::process::Signal::TERM);
    std::thread::sleep(Duration::from_millis(1500));
    for pid in descendants() {
        end(pid, rustix::process::Signal::KILL);
    }
    child.wait()?;
    Ok(bytes)
}
