//! `--systemd-cgroup` with a real systemd, next to runc with the same documents: which unit a container is, what systemd knows of it, what is
//! in its cgroup, that limits are kept, and that nothing of it is left; of root, and of an ordinary user with a systemd of his own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cofferdam_integration::debian;
use cofferdam_integration::install::{Install, built, need, until};
use cofferdam_integration::systemd::{Systemd, versions};
use cofferdam_integration::vm;
use serde_json::{Value, json};

/// Properties that are the same for both runtimes.
const SAME: [&str; 21] = [
    "Slice",
    "Delegate",
    "DefaultDependencies",
    "ActiveState",
    "SubState",
    "Transient",
    "Wants",
    "MemoryAccounting",
    "CPUAccounting",
    "IOAccounting",
    "BlockIOAccounting",
    "TasksAccounting",
    "MemoryMax",
    "MemoryLimit",
    "MemoryLow",
    "MemorySwapMax",
    "CPUShares",
    "CPUQuotaPerSecUSec",
    "CPUQuotaPeriodUSec",
    "AllowedCPUs",
    "BlockIOWeight",
];

/// Files of a cgroup that are the same for both, of either version. Not the weight for block devices: systemd has a scale of its own for BFQ's,
/// and writes that over what either runtime wrote when it next comes by (as another unit starts).
const FILES: [&str; 12] = [
    "memory/*/memory.limit_in_bytes",
    "memory/*/memory.memsw.limit_in_bytes",
    "memory/*/memory.soft_limit_in_bytes",
    "cpu/*/cpu.shares",
    "cpu/*/cpu.cfs_quota_us",
    "cpu/*/cpu.cfs_period_us",
    "cpuset/*/cpuset.cpus",
    "*/memory.max",
    "*/memory.swap.max",
    "*/cpu.max",
    "*/cpu.weight",
    "*/cpuset.cpus",
];

/// Set in the emulated machine, which is slow: what has to do with limits is all that is seen there.
const INSIDE: &str = "COFFERDAM_TEST_IN_MACHINE";

/// Both runtimes in one systemd.
struct Rig<'a> {
    install: &'a Install,
    systemd: Systemd,
    /// Who runs them, if not root: from a session, with the systemd of this user.
    user: Option<u32>,
}

/// The user.
const USER: u32 = 1234;

/// A runtime: its name, which is the prefix of its units too.
const OURS: &str = "ours";
const THEIRS: &str = "theirs";

impl Rig<'_> {
    fn command(&self, who: &str, arguments: &[&str]) -> Command {
        let command = match who {
            OURS => self.install.command(&[&["--systemd-cgroup"], arguments].concat()),
            _ => {
                let mut runc = Command::new("runc");
                runc.arg("--root").arg(self.install.folder.join("runc")).arg("--systemd-cgroup").args(arguments);
                runc
            }
        };
        match self.user {
            Some(uid) => self.systemd.session(uid, &command),
            None => self.systemd.command(&command),
        }
    }

    /// What `systemctl` says, of the systemd that has the containers.
    fn systemctl(&self, words: &[&str]) -> String {
        let mut command = Command::new("systemctl");
        let mut command = match self.user {
            Some(uid) => self.systemd.by(uid, command.arg("--user").args(words)),
            None => self.systemd.command(command.args(words)),
        };
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    /// Where the cgroups of that systemd begin.
    fn top(&self) -> String {
        self.user.map(|uid| format!("/user.slice/user-{uid}.slice/user@{uid}.service")).unwrap_or_default()
    }

    /// Runs it to its end; what a container keeps of its stdio is a file.
    fn run(&self, who: &str, arguments: &[&str]) -> Output {
        let file = |name: &str| self.install.folder.join(format!("{who}.{name}"));
        let create = |name: &str| std::fs::File::create(file(name)).unwrap();
        let status = self.command(who, arguments).stdout(create("out")).stderr(create("err")).status().unwrap();
        self.install.note();
        let read = |name: &str| std::fs::read(file(name)).unwrap();
        Output { status, stdout: read("out"), stderr: read("err") }
    }

    fn must(&self, who: &str, arguments: &[&str]) -> String {
        let output = self.run(who, arguments);
        assert!(output.status.success(), "{who} {arguments:?}: {}\n{}", errors(&output), self.systemd.log());
        assert!(who != OURS || !errors(&output).contains("not empty"), "{}", errors(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn fails(&self, who: &str, arguments: &[&str]) -> String {
        let output = self.run(who, arguments);
        assert_eq!(output.status.code(), Some(1), "{who} {arguments:?}");
        errors(&output)
    }

    /// A bundle that sleeps, with this place and these limits.
    fn bundle(&self, name: &str, path: &str, resources: &Value) -> String {
        let bundle = self.install.folder.join(name);
        if !bundle.exists() {
            self.install.busybox(name, &["sleep", "1000"], false).unwrap();
        }
        Install::edit(&bundle, |d| {
            d["linux"]["cgroupsPath"] = path.into();
            d["linux"]["resources"] = resources.clone();
            d["root"]["path"] = bundle.join("rootfs").to_str().into();
            if let Some(uid) = self.user {
                // Root inside is he.
                let (linux, map) = (&mut d["linux"], json!([{"containerID": 0, "hostID": uid, "size": 1}]));
                (linux["uidMappings"], linux["gidMappings"]) = (map.clone(), map);
                let spaces = linux["namespaces"].as_array_mut().unwrap();
                if !spaces.iter().any(|s| s["type"] == "user") {
                    spaces.push(json!({"type": "user"}));
                }
                let mounts = d["mounts"].as_array_mut().unwrap();
                mounts.retain(|m| m["type"] != "cgroup" && m["type"] != "sysfs");
                let options = mounts.iter_mut().filter_map(|m| m["options"].as_array_mut());
                options.for_each(|all| all.retain(|o| !o.as_str().unwrap().starts_with("gid=")));
            }
        })
        .unwrap();
        if let Some(uid) = self.user {
            let owner = format!("{uid}:{uid}");
            assert!(Command::new("chown").args(["-R", &owner]).arg(&self.install.folder).status().unwrap().success());
        }
        bundle.to_str().unwrap().to_owned()
    }

    fn properties(&self, unit: &str) -> BTreeMap<String, String> {
        let text = self.systemctl(&["show", "--all", unit]);
        text.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    fn property(&self, unit: &str, name: &str) -> String {
        self.systemctl(&["show", "--value", "--property", name, unit]).trim().to_owned()
    }

    fn file(&self, pattern: &str, place: &str) -> Option<String> {
        let path = format!("/sys/fs/cgroup/{}", pattern.replace('*', place.trim_start_matches('/')));
        std::fs::read_to_string(self.systemd.path(&path)).ok()
    }

    fn files(&self, place: &str) -> Vec<(&'static str, Option<String>)> {
        FILES.iter().map(|pattern| (*pattern, self.file(pattern, place))).collect()
    }

    /// Folders of that name in any hierarchy.
    fn folders(&self, name: &str) -> String {
        self.systemd.says(&["find", "/sys/fs/cgroup", "-name", name])
    }

    /// That no unit and no folder is left.
    fn gone(&self, unit: &str) {
        assert_eq!(self.property(unit, "LoadState"), "not-found", "{unit}");
        assert_eq!(self.folders(unit), "", "{unit}");
    }

    /// The cgroup of systemd's own hierarchy that a host's process is in.
    fn group_of(&self, pid: i32) -> String {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let of = |prefix: &str| text.lines().find_map(|l| l.split_once(prefix).map(|(_, path)| path.to_owned()));
        let whole = of(":name=systemd:").filter(|p| p.contains("systemd-1")).or_else(|| of("0::")).unwrap();
        // As it is called in there.
        whole.splitn(3, '/').nth(2).map(|p| format!("/{p}")).unwrap_or_default()
    }
}

/// What of it is the same for both.
fn same(properties: &BTreeMap<String, String>) -> Vec<(&'static str, Option<String>)> {
    SAME.iter().map(|name| (*name, properties.get(*name).cloned())).collect()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The limits that can be set in there.
fn limits(rig: &Rig<'_>, version: u32) -> Value {
    let whole = json!({
        "memory": {"limit": 128 << 20, "reservation": 64 << 20, "swap": 256 << 20},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0"},
        "pids": {"limit": 50}, "blockIO": {"weight": 200}
    });
    if version == 1 {
        return whole;
    }
    let there = std::fs::read_to_string(rig.systemd.path("/sys/fs/cgroup/cgroup.controllers")).unwrap();
    let has = |name: &str| there.split_whitespace().any(|c| c == name);
    let mut some = serde_json::Map::new();
    for (name, controllers) in [("memory", &["memory"][..]), ("cpu", &["cpu", "cpuset"]), ("pids", &["pids"])] {
        if controllers.iter().all(|c| has(c)) {
            some.insert(name.into(), whole[name].clone());
        }
    }
    if let (Some(_), Some(cpu)) = (rig.user, some.get_mut("cpu").and_then(Value::as_object_mut)) {
        // A user is not given processors of his own.
        cpu.remove("cpus");
    }
    some.into()
}

/// What a container's life looks like to systemd, beside runc's.
fn life(rig: &Rig<'_>, version: u32) {
    let resources = limits(rig, version);
    let unit = |who: &str| format!("{who}-c1.scope");
    let place = |who: &str| format!("{}/cofferdamtest.slice/cofferdamtest-deep.slice/{who}-c1.scope", rig.top());
    for who in [OURS, THEIRS] {
        let bundle = rig.bundle(who, &format!("cofferdamtest-deep.slice:{who}:c1"), &resources);
        rig.must(who, &["create", "--bundle", &bundle, "c1"]);
        rig.must(who, &["start", "c1"]);
    }
    let (our, their) = (unit(OURS), unit(THEIRS));
    let known = rig.properties(&our);
    let set = same(&known);
    assert_eq!(set, same(&rig.properties(&their)));
    let is = |name: &str, value: &str| assert_eq!(known.get(name).map(String::as_str), Some(value), "{name}");
    is("ControlGroup", &place(OURS));
    is("Slice", "cofferdamtest-deep.slice");
    is("Delegate", "yes");
    is("SubState", "running");
    is("Description", "cofferdam container c1");
    let compared = rig.files(&place(OURS));
    assert_eq!(compared, rig.files(&place(THEIRS)));
    let some = |value: &Value| value.as_object().is_some_and(|o| !o.is_empty());
    if some(&resources["memory"]) {
        is(if version == 1 { "MemoryLimit" } else { "MemoryMax" }, "134217728");
        is("CPUQuotaPerSecUSec", "500ms");
        // As many as the container's tasks may need on the host.
        is("TasksMax", "612");
        assert!(compared.iter().filter(|(_, v)| v.is_some()).count() >= 4, "{compared:?}");
    }

    // All that belongs to it is in there: the stand-in, the services, the stubs.
    let ours = || rig.install.processes().into_iter().filter(|(_, name)| name != "cofferdam-supervisor");
    let mut pids: Vec<i32> = ours().map(|(pid, _)| pid).chain(rig.install.stubs()).collect();
    pids.sort_unstable();
    pids.dedup();
    assert!(pids.len() >= 4, "{pids:?}");
    for pid in pids {
        assert_eq!(
            rig.group_of(pid),
            place(OURS),
            "{pid}: {}",
            std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap()
        );
    }
    // Out of the session, which may end.
    for pid in rig.install.pids("cofferdam-supervisor").into_iter().filter(|_| rig.user.is_some()) {
        let group = rig.group_of(pid);
        let own = group.strip_prefix(&format!("{}/user.slice/cofferdam-supervisor-", rig.top()));
        assert!(own.is_some_and(|name| name.ends_with(".scope")), "{pid}: {group}");
    }
    for who in [OURS, THEIRS] {
        assert_eq!(rig.must(who, &["exec", "c1", "echo", "here"]), "here\n");
        rig.must(who, &["pause", "c1"]);
        rig.must(who, &["resume", "c1"]);
    }

    if some(&resources["memory"]) {
        let (mut ours, mut theirs) = (BTreeMap::new(), BTreeMap::new());
        for change in [
            &["--memory", "160M", "--memory-swap", "512M", "--memory-reservation", "32M"][..],
            &["--cpu-quota", "20000", "--cpu-share", "2048"],
            &["--cpu-period", "50000", "--cpu-quota", "-1"],
            &["--pids-limit", "20"],
        ] {
            let arguments = [&["update"], change, &["c1"]].concat();
            rig.must(OURS, &arguments);
            rig.must(THEIRS, &arguments);
            (ours, theirs) = (rig.properties(&our), rig.properties(&their));
            assert_eq!(same(&ours), same(&theirs), "{change:?}");
            assert_eq!(rig.files(&place(OURS)), rig.files(&place(THEIRS)), "{change:?}");
        }
        assert_ne!(same(&ours), set);
        let tasks = |of: &BTreeMap<String, String>| of.get("TasksMax").cloned().unwrap_or_default();
        assert_eq!((&*tasks(&ours), &*tasks(&theirs)), ("552", "20"));
        // What systemd reads anew is what the kernel has.
        let files = rig.files(&place(OURS));
        rig.systemctl(&["daemon-reload"]);
        assert_eq!(rig.files(&place(OURS)), files);
        let nothing = rig.fails(OURS, &["update", "--cpuset-cpus", "x-", "c1"]);
        assert!(nothing.contains("invalid range"), "{nothing}");
    }

    // The unit is taken: who comes second is told so, as runc 1.2 does (1.1 goes in there, too), and does not disturb it.
    let bundle = rig.bundle(OURS, &format!("cofferdamtest-deep.slice:{OURS}:c1"), &json!({}));
    let error = rig.fails(OURS, &["create", "--bundle", &bundle, "second"]);
    assert!(error.contains("Unit ours-c1.scope was already loaded"), "{error}");
    assert_eq!(rig.property(&our, "SubState"), "running");
    assert_eq!(rig.must(OURS, &["exec", "c1", "echo", "still"]), "still\n");
    for who in [OURS, THEIRS] {
        rig.must(who, &["delete", "--force", "c1"]);
        rig.gone(&unit(who));
    }
    if some(&resources["memory"]) {
        // What is asked for is kept.
        for who in [OURS, THEIRS] {
            let bundle =
                rig.bundle(who, &format!(":{who}:eats"), &json!({"memory": {"limit": 48 << 20, "swap": 48 << 20}}));
            Install::edit(Path::new(&bundle), |d| {
                d["process"]["args"] = json!(["busybox", "awk", "BEGIN{s=1;for(i=0;i<28;i++)s=s s}"])
            })
            .unwrap();
            let output = rig.run(who, &["run", "--bundle", &bundle, "eats"]);
            assert_eq!(output.status.code(), Some(137), "{who}: {}", errors(&output));
            Install::edit(Path::new(&bundle), |d| d["process"]["args"] = json!(["sleep", "1000"])).unwrap();
            rig.gone(&format!("{who}-eats.scope"));
        }
    }
}

/// A limit that this systemd cannot keep is refused by name by both.
fn beyond(rig: &Rig<'_>, resources: &Value, ours: &str) {
    for who in [OURS, THEIRS] {
        let bundle = rig.bundle(who, &format!(":{who}:beyond"), resources);
        let error = rig.fails(who, &["run", "--bundle", &bundle, "beyond"]);
        assert!(who == THEIRS || error.contains(ours), "{error}");
        rig.gone(&format!("{who}-beyond.scope"));
    }
}

/// Ends that nobody ordered, and names that nobody gave.
fn ends(rig: &Rig<'_>) {
    let unit = "cofferdam-own.scope";
    let bundle = rig.bundle(OURS, "", &json!({}));
    rig.must(OURS, &["run", "--detach", "--bundle", &bundle, "own"]);
    assert_eq!(rig.property(unit, "Slice"), if rig.user.is_some() { "user.slice" } else { "system.slice" });
    // The container ends by itself: systemd may have forgotten it before it is deleted.
    rig.must(OURS, &["kill", "own", "KILL"]);
    let state = || serde_json::from_str::<Value>(&rig.must(OURS, &["state", "own"])).unwrap()["status"].clone();
    until("stopped", || state() == "stopped");
    rig.must(OURS, &["delete", "own"]);
    rig.gone(unit);

    // Its services and its supervisor are killed.
    for victim in ["cofferdam-sentry", "cofferdam-gofer", "cofferdam-supervisor"] {
        rig.must(OURS, &["run", "--detach", "--bundle", &bundle, "own"]);
        assert_eq!(rig.property(unit, "SubState"), "running");
        for pid in rig.install.pids(victim) {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        until(victim, || rig.install.pids("cofferdam-sentry").is_empty());
        rig.must(OURS, &["delete", "--force", "own"]);
        rig.gone(unit);
    }
    // The next supervisor tidies up what is left of one, too.
    rig.must(OURS, &["run", "--detach", "--bundle", &bundle, "own"]);
    for pid in rig.install.pids("cofferdam-supervisor") {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    until("dead services", || rig.install.pids("cofferdam-sentry").is_empty());
    let other = rig.bundle("other", ":ours:other", &json!({}));
    rig.must(OURS, &["run", "--detach", "--bundle", &other, "other"]);
    rig.gone(unit);
    assert_eq!(rig.property("ours-other.scope", "SubState"), "running");
    for id in ["other", "own"] {
        rig.must(OURS, &["delete", "--force", id]);
    }
    rig.gone("ours-other.scope");
    until("the supervisor to end", || rig.install.processes().is_empty());
    assert_eq!(rig.folders("cofferdam-supervisor-*"), "");
}

/// Places that are none, in runc's words.
fn refusals(rig: &Rig<'_>) {
    for path in ["/a/b", "a.slice", "a.slice:b:c:d"] {
        let message = format!(
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
        );
        for who in [OURS, THEIRS] {
            let bundle = rig.bundle(who, path, &json!({}));
            let error = rig.fails(who, &["create", "--bundle", &bundle, "bad"]);
            assert!(error.replace('\\', "").contains(&message), "{who}: {error}");
        }
    }
    for path in ["a:b:c", "a--b.slice:c:d", "a/b.slice:c:d"] {
        let bundle = rig.bundle(OURS, path, &json!({}));
        let error = rig.fails(OURS, &["create", "--bundle", &bundle, "bad"]);
        assert!(error.contains("invalid slice name: "), "{error}");
    }
    // A limit that the host refuses leaves no unit.
    let bundle = rig.bundle(OURS, "system.slice:ours:bad", &json!({"cpu": {"cpus": "4000"}}));
    rig.fails(OURS, &["create", "--bundle", &bundle, "bad"]);
    rig.gone("ours-bad.scope");

    rig.systemd.says(&["systemctl", "stop", "dbus.socket", "dbus.service"]);
    let bundle = rig.bundle(OURS, "system.slice:ours:bad", &json!({}));
    let error = rig.fails(OURS, &["create", "--bundle", &bundle, "bad"]);
    let message = "--systemd-cgroup: systemd is not reachable at /run/dbus/system_bus_socket (";
    assert!(error.contains(message) && error.contains("; leave the option out for cgroupfs"), "{error}");
}

/// One test at a time: the emulated machine has enough to do.
static ONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn containers_are_units_of_systemd_as_those_of_runc_are() {
    let _alone = alone();
    need("runc", "runc").unwrap();
    let versions = versions();
    assert!(!versions.is_empty(), "this machine has no cgroups");
    for version in versions {
        let install = Install::with_services(&format!("systemd-{version}")).unwrap();
        let systemd = Systemd::boot(&install.folder, version).unwrap();
        let mut rig = Rig { install: &install, systemd, user: None };
        life(&rig, version);
        let whole = std::env::var_os(INSIDE).is_none();
        if whole {
            ends(&rig);
        }
        install.nothing_left().unwrap();

        let users = Install::with_services(&format!("systemd-user-{version}")).unwrap();
        rig.systemd.user(USER).unwrap();
        (rig.install, rig.user) = (&users, Some(USER));
        match version {
            1 => {
                let message = "--systemd-cgroup: without root systemd keeps no limits where cgroups are of version 1";
                beyond(&rig, &json!({}), message);
            }
            _ => {
                life(&rig, version);
                let name = if whole { "memory" } else { "cpuset" };
                let limit = if whole { json!({"memory": {"limit": 64 << 20}}) } else { json!({"cpu": {"cpus": "0"}}) };
                beyond(&rig, &limit, &format!("this user's systemd has no cgroup controller {name:?}"));
            }
        }
        if whole && version != 1 {
            ends(&rig);
            rig.systemctl(&["stop", "dbus.socket", "dbus.service"]);
            let message = format!("--systemd-cgroup: systemd is not reachable at /run/user/{USER}/bus (");
            beyond(&rig, &json!({}), &message);
        }
        users.nothing_left().unwrap();

        (rig.install, rig.user) = (&install, None);
        if whole {
            refusals(&rig);
        }
        install.nothing_left().unwrap();
    }
}

/// Whether this host's version 2 has the controllers that limits are set with.
fn has_controllers() -> bool {
    let here = |folder: &str| std::fs::read_to_string(format!("{folder}/cgroup.controllers")).unwrap_or_default();
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].into_iter().any(|f| here(f).split_whitespace().any(|c| c == "memory"))
}

/// Programs and files that the machine must have for the test above.
const THERE: [&str; 20] = [
    "/usr/share/dbus-1/system.d/org.freedesktop.systemd1.conf",
    "/usr/share/dbus-1/session.conf",
    "/usr/bin/systemd-run",
    "/usr/bin/setpriv",
    "/usr/bin/env",
    "/usr/bin/chown",
    "/usr/bin/sh",
    "/lib/systemd/systemd",
    "/lib/systemd/systemd-executor",
    "/usr/bin/systemctl",
    "/usr/bin/dbus-daemon",
    "/usr/share/dbus-1/system.conf",
    "/usr/sbin/runc",
    "/usr/bin/unshare",
    "/usr/bin/nsenter",
    "/usr/bin/mount",
    "/usr/bin/umount",
    "/usr/bin/find",
    "/usr/bin/cp",
    "/usr/bin/cat",
];

#[test]
fn so_they_are_in_a_machine_whose_version_2_has_all_controllers() {
    if has_controllers() {
        // The test above has seen it.
        return;
    }
    let _alone = alone();
    debian::install(&["systemd", "dbus", "runc", "busybox-static", "binutils"]).unwrap();
    // The machine has a /tmp of its own over what it was given.
    let scratch = Path::new("/var/tmp").join(format!("cofferdam-test-systemd-vm-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&scratch);
    std::fs::create_dir_all(scratch.join("bin")).unwrap();
    let name = "systemd_cgroups";
    let mut programs: Vec<PathBuf> = Vec::new();
    for (from, name) in ["cofferdam", "cofferdam-supervisor", "cofferdam-sentry", "cofferdam-gofer", "cofferdam-netd"]
        .map(|name| (built().join(name), name))
        .into_iter()
        .chain([(std::env::current_exe().unwrap(), name)])
    {
        let to = scratch.join("bin").join(name);
        assert!(Command::new("strip").arg("-o").arg(&to).arg(from).status().unwrap().success());
        programs.push(to);
    }
    let all: Vec<&Path> =
        programs.iter().map(PathBuf::as_path).chain(THERE.iter().map(Path::new).filter(|p| p.exists())).collect();
    // What is run needs a root that is no initial file system: nobody can pivot away from that one.
    let command = format!(
        "export PATH=/usr/sbin:/usr/bin:/bin; mkdir -p /new; mount -t tmpfs new /new; cd /; cp -a bin lib lib64 usr etc var new 2> /dev/null
         cd /new; mkdir -p dev proc sys tmp run root etc/systemd/system var/lib
         for f in dev proc sys; do mount --move /$f $f; done
         mount --move . /; exec chroot . sh -c '
         echo root:x:0:0::/root:/bin/sh > /etc/passwd; echo messagebus:x:100:100::/:/bin/false >> /etc/passwd; echo root:x:0: > /etc/group
         echo messagebus:x:100: >> /etc/group; echo 0123456789abcdef0123456789abcdef > /etc/machine-id
         mount -t cgroup2 cgroup2 /sys/fs/cgroup
         {INSIDE}=1 {}/{name} --nocapture --exact containers_are_units_of_systemd_as_those_of_runc_are 2>&1'",
        scratch.join("bin").display()
    );
    let ran = vm::run(&scratch.join("vm"), &all, &[], &command, 600).unwrap();
    let _ = std::fs::remove_dir_all(&scratch);
    assert_eq!(ran.status, Some(0), "{}", ran.console);
    assert!(ran.console.contains("1 passed"), "{}", ran.console);
}
