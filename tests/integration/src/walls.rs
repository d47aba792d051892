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

/// Whether every descriptor that names a root is of the root that the process has.
pub fn roots_are_its_own(pid: i32) -> bool {
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let empty = mounts.lines().find(|l| l.contains("cofferdam-empty"));
    let own = empty.and_then(|l| l.split(' ').next()).unwrap().to_owned();
    let all = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let roots = all.filter(|e| std::fs::read_link(e.path()).is_ok_and(|p| p == std::path::Path::new("/")));
    roots
        .map(|e| std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", e.file_name().to_string_lossy())))
        .all(|info| info.is_ok_and(|info| field(&info, "mnt_id") == own))
}

/// The namespaces that a process is in.
pub fn namespaces(pid: &str) -> Vec<String> {
    let of = |n: &&str| std::fs::read_link(format!("/proc/{pid}/ns/{n}")).unwrap().to_string_lossy().into_owned();
    ["pid", "mnt", "net", "ipc", "uts", "cgroup", "user"].iter().map(of).collect()
}

/// Empty root but for `trees`, own namespaces, no network.
pub fn service(checks: &mut Checks, pid: i32, who: &str, trees: usize) {
    apart(checks, pid, who, trees);
    let interfaces = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
    checks.that(interfaces.lines().skip(2).all(|l| l.trim().starts_with("lo:")), || format!("{who}: {interfaces}"));
}

/// The same of one that may have a network.
pub fn apart(checks: &mut Checks, pid: i32, who: &str, trees: usize) {
    let entries = std::fs::read_dir(format!("/proc/{pid}/root/")).unwrap().count();
    checks.that(entries == trees, || format!("{who}: {entries} entries in its root"));
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let (roots, others): (Vec<_>, Vec<_>) = mounts.lines().partition(|l| l.contains(" / / "));
    let empty = matches!(roots[..], [root] if root.contains("cofferdam-empty") && root.contains(" / / ro,"));
    checks.that(empty, || format!("{who}: {mounts}"));
    // What they are copies of gets what the host mounts, and nothing the other way; nothing there is run or a device.
    let tree = |line: &str| {
        let place = line.split(' ').nth(4).unwrap_or_default();
        place.ends_with("/tree")
            && ["nosuid", "nodev", "noexec"].iter().all(|w| line.contains(w))
            && !line.contains("shared:")
    };
    checks.that(others.len() == trees && others.into_iter().all(tree), || format!("{who}: {mounts}"));
    for (own, theirs) in namespaces("self").iter().zip(namespaces(&pid.to_string())) {
        checks.that(*own != theirs, || format!("{who}: shares {own} with this test"));
    }
}
