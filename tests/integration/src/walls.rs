//! The walls of a service as the host shows them, on a live process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers: they fail by panicking")]

/// Counts what was looked at.
pub struct Checks(pub usize);

impl Checks {
    /// One thing that must be true, or what is told.
    pub fn that(&mut self, fine: bool, what: impl FnOnce() -> String) {
        self.0 += 1;
        assert!(fine, "{}", what());
    }
}

/// A field of `/proc/PID/status`.
pub fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name}")).trim().to_owned()
}

/// Filter, no_new_privs, capabilities, core limit: of every thread of a process.
pub fn threads(checks: &mut Checks, pid: i32, who: &str, capabilities: u64) {
    let tasks: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().collect();
    assert!(!tasks.is_empty());
    for task in tasks {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap();
        // On ptrace the tracer is the wall of a container's process: it ends with it, and no call gets past it.
        let traced = who == "stub" && field(&status, "TracerPid") != "0";
        checks
            .that(field(&status, "Seccomp") == "2" || traced, || format!("{who}: a thread without a filter: {status}"));
        checks.that(field(&status, "NoNewPrivs") == "1", || format!("{who}: {status}"));
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let bits = u64::from_str_radix(&field(&status, set), 16).unwrap();
            // The bounding set of one that has no capability and no_new_privs grants nothing, and only who has CAP_SETPCAP
            // can lower it.
            let unable = matches!(who, "stub" | "supervisor of a user") && set == "CapBnd";
            let most = if unable { u64::MAX } else { capabilities };
            checks.that(bits & !most == 0, || format!("{who}: {set} {bits:#x}"));
        }
    }
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
    // 1 is what keeps a dump from a program that takes dumps (core(5)); nothing else is ever dumped at that.
    let most = if who == "stub" { "1" } else { "0" };
    let none = core.split_whitespace().filter(|w| *w == most).count();
    checks.that(none == 2, || format!("{who}: {core}"));
}

/// What a process has open.
pub fn descriptors(pid: i32) -> Vec<String> {
    let all = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    all.filter_map(|e| std::fs::read_link(e.path()).ok()).map(|p| p.to_string_lossy().into_owned()).collect()
}

/// The namespaces that a process is in.
pub fn namespaces(pid: &str) -> Vec<String> {
    let of = |n: &&str| std::fs::read_link(format!("/proc/{pid}/ns/{n}")).unwrap().to_string_lossy().into_owned();
    ["pid", "mnt", "net", "ipc", "uts", "cgroup", "user"].iter().map(of).collect()
}

/// Empty root, own namespaces, no network.
pub fn service(checks: &mut Checks, pid: i32, who: &str) {
    let entries = std::fs::read_dir(format!("/proc/{pid}/root/")).unwrap().count();
    checks.that(entries == 0, || format!("{who}: {entries} entries in its root"));
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    checks.that(mounts.lines().count() == 1 && mounts.contains("cofferdam-empty") && mounts.contains(" ro,"), || {
        format!("{who}: {mounts}")
    });
    for (own, theirs) in namespaces("self").iter().zip(namespaces(&pid.to_string())) {
        checks.that(*own != theirs, || format!("{who}: shares {own} with this test"));
    }
    let interfaces = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
    checks.that(interfaces.lines().skip(2).all(|l| l.trim().starts_with("lo:")), || format!("{who}: {interfaces}"));
}
