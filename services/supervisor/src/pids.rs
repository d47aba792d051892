//! Which host processes are a Sentry's stubs: their ids in its PID namespace translated to the host's.
//!
//! Reads `/proc/PID/status` of the host, in which nothing but numbers is looked at. Called by `sandbox` for `ps`.

use std::collections::HashMap;

use rustix::fs::{CWD, Dir, Mode, OFlags};

/// The host pids of the processes that have the ids `inside` in the PID namespace of the Sentry with the host pid `sentry`.
pub fn on_host(sentry: i32, inside: &[i32]) -> Vec<i32> {
    // By host pid: the parent's, and the id in the innermost namespace.
    let mut all: HashMap<i32, (i32, i32)> = HashMap::new();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // Not the standard library's list, which makes a call that this service has no other use for.
    let proc = rustix::fs::openat(CWD, "/proc", flags, Mode::empty()).and_then(Dir::new);
    for entry in proc.into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().ok().and_then(|n| n.parse::<i32>().ok());
        let Some(pid) = pid else { continue };
        let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        if let Some(found) = parse(&status) {
            all.insert(pid, found);
        }
    }
    let mut found: Vec<i32> = all
        .iter()
        .filter(|(pid, (_, innermost))| inside.contains(innermost) && descends(&all, **pid, sentry))
        .map(|(pid, _)| *pid)
        .collect();
    found.sort_unstable();
    found
}

/// Parent and innermost id of a `/proc/PID/status`.
fn parse(status: &str) -> Option<(i32, i32)> {
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name));
    let parent = field("PPid:")?.trim().parse().ok()?;
    let innermost = field("NStgid:")?.split_whitespace().last()?.parse().ok()?;
    Some((parent, innermost))
}

fn descends(all: &HashMap<i32, (i32, i32)>, mut pid: i32, from: i32) -> bool {
    // Stubs are children of the starter, which is the Sentry's child.
    for _ in 0..4 {
        match all.get(&pid) {
            Some((parent, _)) if *parent == from => return true,
            Some((parent, _)) => pid = *parent,
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stubs_are_found_by_their_innermost_id_below_their_sentry() {
        let all = HashMap::from([(100, (1, 1)), (101, (100, 2)), (102, (101, 7)), (103, (1, 7)), (104, (103, 7))]);
        assert!(descends(&all, 102, 100) && !descends(&all, 103, 100) && !descends(&all, 104, 100));
        let status = "Name:\tx\nPPid:\t12\nNStgid:\t500\t7\nNSpid:\t500\t7\n";
        assert_eq!(parse(status), Some((12, 7)));
    }
}
