//! A container's cgroups with the real services, next to runc with the same config.json: what is written there, what it does, and that
//! nothing of it is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use cofferdam_integration::install::{Install, need, until};
use serde_json::{Value, json};

/// Files whose values must be those that runc sets, by controller of version 1, and their names in version 2.
const FILES: [(&str, &str, &[&str]); 12] = [
    ("memory", "memory.limit_in_bytes", &["memory.max"]),
    ("memory", "memory.memsw.limit_in_bytes", &["memory.swap.max"]),
    ("memory", "memory.soft_limit_in_bytes", &["memory.low"]),
    ("memory", "memory.swappiness", &[]),
    ("memory", "memory.oom_control", &[]),
    ("cpu", "cpu.shares", &["cpu.weight"]),
    ("cpu", "cpu.cfs_quota_us", &["cpu.max"]),
    ("cpu", "cpu.cfs_period_us", &["cpu.max"]),
    ("cpu", "cpu.rt_runtime_us", &[]),
    ("cpuset", "cpuset.cpus", &["cpuset.cpus"]),
    ("cpuset", "cpuset.mems", &["cpuset.mems"]),
    ("blkio", "blkio.bfq.weight", &["io.bfq.weight"]),
];

fn says(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A path that only this test has.
fn place(name: &str) -> String {
    format!("/cofferdam-test-{name}-{}", std::process::id())
}

/// Folders of cgroups with a path, in every hierarchy.
fn folders(path: &str) -> Vec<PathBuf> {
    let mut all = vec![PathBuf::from("/sys/fs/cgroup")];
    all.extend(std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|e| e.path()));
    all.into_iter().map(|h| h.join(path.trim_start_matches('/'))).filter(|f| f.is_dir()).collect()
}

/// A file of a controller, for the cgroup with a path.
fn value(path: &str, controller: &str, file: &str, other: &[&str]) -> Option<String> {
    let path = path.trim_start_matches('/');
    let v1 = Path::new("/sys/fs/cgroup").join(controller).join(path).join(file);
    let v2 = other.iter().map(|f| Path::new("/sys/fs/cgroup").join(path).join(f));
    std::iter::once(v1).chain(v2).find_map(|f| std::fs::read_to_string(f).ok())
}

/// All values that are compared.
fn values(path: &str) -> Vec<(&'static str, Option<String>)> {
    // What was killed is no setting.
    let settings = |t: String| t.lines().filter(|l| !l.starts_with("oom_kill ")).collect::<Vec<_>>().join("\n");
    FILES.iter().map(|(c, f, other)| (*f, value(path, c, f, other).map(settings))).collect()
}

/// The cgroup of a process in a hierarchy.
fn group_of(pid: &Value, controller: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let named = text.lines().find(|l| l.split(':').nth(1).is_some_and(|c| c.split(',').any(|c| c == controller)));
    named.or_else(|| text.lines().find(|l| l.starts_with("0::"))).unwrap().rsplit(':').next().unwrap().to_owned()
}

/// A bundle of busybox with a cgroup of its own and these resources.
fn bundle(install: &Install, name: &str, arguments: &[&str], resources: Value) -> (String, String) {
    let bundle = install.busybox(name, arguments, false).unwrap();
    let path = place(&format!("{name}-{}", install.folder.file_name().unwrap().to_string_lossy()));
    Install::edit(&bundle, |d| {
        d["linux"]["cgroupsPath"] = path.clone().into();
        d["linux"]["resources"] = resources;
        d["root"]["path"] = bundle.join("rootfs").to_str().into();
    })
    .unwrap();
    (bundle.to_str().unwrap().to_owned(), path)
}

fn quiet(mut command: Command, errors: &Path) -> Output {
    let status = command.stdout(Stdio::null()).stderr(std::fs::File::create(errors).unwrap()).status().unwrap();
    Output { status, stdout: Vec::new(), stderr: std::fs::read(errors).unwrap() }
}

fn detached(install: &Install, bundle: &str, id: &str) {
    let output = quiet(install.command(&["run", "--detach", "--bundle", bundle, id]), &install.folder.join("err"));
    assert!(output.status.success(), "{}", says(&output));
    install.note();
}

/// runc with a state directory of its own, whose containers end with it.
struct Runc<'a>(&'a Install);

impl Runc<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("runc");
        command.arg("--root").arg(self.0.folder.join("runc")).args(arguments).stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn detached(&self, bundle: &str, id: &str) {
        let output = quiet(self.command(&["run", "--detach", "--bundle", bundle, id]), &self.0.folder.join("runc.err"));
        assert!(output.status.success(), "{}", says(&output));
    }
}

impl Drop for Runc<'_> {
    fn drop(&mut self) {
        for id in ["c", "limits", "stats"] {
            let _ = self.run(&["delete", "--force", id]);
        }
    }
}

fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{}", says(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// `exec --cgroup`: a container has one cgroup, whatever it is called; what is not there, or cannot be, is refused as by runc.
#[test]
fn exec_finds_no_cgroup_but_the_containers_own() {
    need("runc", "runc").unwrap();
    let install = Install::with_services("exec-cgroup").unwrap();
    let runc = Runc(&install);
    let (bundle, _) = bundle(&install, "c", &["sleep", "1000"], json!({}));
    runc.detached(&bundle, "c");
    detached(&install, &bundle, "c");
    let words =
        ["no such file or directory", "is not a sub cgroup path", "unknown controller", "invalid --cgroup argument"];
    let mut seen = std::collections::BTreeSet::new();
    for cgroups in [
        &["/"][..],
        &[""],
        &["."],
        &["a/.."],
        &["memory:/"],
        &["memory:/", "pids:"],
        &["sub"],
        &["/sub/deeper"],
        &["memory:sub"],
        &["memory:/", "pids:/sub"],
        &["../.."],
        &["memory:/../../x/y/z"],
        &["nosuch:/"],
        &["memory,nosuch:/"],
        &["/", "/"],
        &["memory:a:b"],
    ] {
        let mut arguments = vec!["exec"];
        arguments.extend(cgroups.iter().flat_map(|c| ["--cgroup", c]));
        arguments.extend(["c", "echo", "here"]);
        let told = [runc.run(&arguments), install.run(&arguments).unwrap()].map(|o| {
            let why = words.iter().position(|w| says(&o).contains(w));
            (o.status.code(), String::from_utf8_lossy(&o.stdout).into_owned(), why, says(&o))
        });
        let [theirs, ours] = &told;
        assert_eq!((ours.0, &ours.1, ours.2), (theirs.0, &theirs.1, theirs.2), "{cgroups:?}: {told:?}");
        seen.insert((ours.0, ours.2));
    }
    assert_eq!(seen.len(), 1 + words.len(), "{seen:?}");
    drop(runc);
    assert!(install.run(&["delete", "--force", "c"]).unwrap().status.success());
    install.nothing_left().unwrap();
}

#[test]
fn the_same_document_sets_what_runc_sets_and_so_does_an_update() {
    need("runc", "runc").unwrap();
    let install = Install::with_services("cgroup-limits").unwrap();
    let resources = json!({
        "memory": {"limit": 128 << 20, "reservation": 64 << 20, "swap": 256 << 20, "swappiness": 10},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 50}, "blockIO": {"weight": 200}
    });
    let (ours, our_path) = bundle(&install, "ours", &["sleep", "1000"], resources.clone());
    let (theirs, their_path) = bundle(&install, "theirs", &["sleep", "1000"], resources);
    let runc = Runc(&install);
    detached(&install, &ours, "limits");
    runc.detached(&theirs, "limits");

    let pid = json_of(&install.run(&["state", "limits"]).unwrap())["pid"].clone();
    for controller in ["memory", "cpu", "cpuset", "pids", "blkio", "freezer", "devices", "name=systemd"] {
        assert_eq!(group_of(&pid, controller), our_path, "the stand-in's place for {controller}");
    }
    let set = values(&our_path);
    assert_eq!(set, values(&their_path));
    assert!(set.iter().filter(|(_, v)| v.is_some()).count() >= 6, "{set:?}");
    for name in ["cofferdam-sentry", "cofferdam-gofer"] {
        for pid in install.pids(name) {
            assert_eq!(group_of(&pid.into(), "memory"), our_path, "{name}");
        }
    }
    let stubs = install.stubs();
    assert!(!stubs.is_empty());
    for pid in stubs {
        assert_eq!(group_of(&pid.into(), "memory"), our_path, "a stub");
        let score: i32 = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().parse().unwrap();
        assert!(score >= 500, "a stub is killed before the Sentry: {score}");
    }

    let file = install.folder.join("resources");
    std::fs::write(&file, r#"{"memory": {"limit": 100663296, "swap": -1}, "cpu": {"shares": 100, "quota": -1}}"#)
        .unwrap();
    let file = file.to_str().unwrap();
    for arguments in [
        vec!["--memory", "160M", "--memory-swap", "512M", "--memory-reservation", "32m"],
        vec!["--cpu-period", "50000", "--cpu-quota", "20000", "--cpu-share", "2048"],
        vec!["--cpuset-cpus", "0", "--cpuset-mems", "0", "--blkio-weight", "300"],
        vec!["--resources", file, "--memory", "1k"],
        vec!["--memory-swap", "600M", "--memory", "64M"],
    ] {
        let arguments = [&["update"], &arguments[..], &["limits"]].concat();
        let (our, their) = (install.run(&arguments).unwrap(), runc.run(&arguments));
        assert!(our.status.success() && their.status.success(), "{arguments:?}: {} {}", says(&our), says(&their));
        assert_eq!(values(&our_path), values(&their_path), "{arguments:?}");
    }
    // What the host refuses, or makes no sense, changes nothing in either.
    for arguments in [
        ["--cpu-period", "1"],
        ["--memory", "x"],
        ["--blkio-weight", "5000"],
        ["--memory", "700M"],
        ["--cpuset-cpus", "4000"],
    ] {
        let arguments = [&["update"], &arguments[..], &["limits"]].concat();
        let (our, their) = (install.run(&arguments).unwrap(), runc.run(&arguments));
        assert_eq!((our.status.code(), their.status.code()), (Some(1), Some(1)), "{arguments:?}: {}", says(&our));
        assert_eq!(values(&our_path), values(&their_path), "{arguments:?}");
    }
    drop(runc);
    assert!(install.run(&["kill", "limits", "KILL"]).unwrap().status.success());
    until("stopped", || json_of(&install.run(&["state", "limits"]).unwrap())["status"] == "stopped");
    let output = install.run(&["update", "--memory", "64M", "limits"]).unwrap();
    assert!(says(&output).contains("container not running"), "{}", says(&output));
    assert!(!folders(&our_path).is_empty(), "who looks for what it used finds it until it is deleted");
    assert!(install.run(&["delete", "limits"]).unwrap().status.success());
    assert_eq!(folders(&our_path), Vec::<PathBuf>::new());
    install.nothing_left().unwrap();
}

#[test]
fn the_container_sees_its_limits_and_their_changes() {
    let install = Install::with_services("cgroup-seen").unwrap();
    let script = "show() { for f in memory.max memory.swap.max cpu.max cpu.weight pids.max; do cat /sys/fs/cgroup/$f; done
        head -n 1 /proc/meminfo; }; show; while [ ! -e /go ]; do sleep 0.05; [ \"$(cat /sys/fs/cgroup/pids.max)\" = 7 ] && break; done; show";
    let resources = json!({"memory": {"limit": 64 << 20, "swap": 96 << 20}, "cpu": {"shares": 2048, "quota": 150_000}, "pids": {"limit": 9}});
    let (bundle, path) = bundle(&install, "b", &["sh", "-c", script], resources);
    let out = install.folder.join("out");
    let mut command = install.command(&["create", "--bundle", &bundle, "c"]);
    assert!(command.stdout(std::fs::File::create(&out).unwrap()).stderr(Stdio::null()).status().unwrap().success());
    install.note();
    assert!(install.run(&["start", "c"]).unwrap().status.success());
    let lines = |n: usize| {
        until("its words", || std::fs::read_to_string(&out).unwrap().lines().count() >= n);
        std::fs::read_to_string(&out).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(lines(6), ["67108864", "33554432", "150000 100000", "79", "9", "MemTotal:          65536 kB"]);
    let update = ["update", "--memory", "48M", "--memory-swap", "48M", "--cpu-quota", "-1", "--pids-limit", "7", "c"];
    let output = install.run(&update).unwrap();
    assert!(output.status.success(), "{}", says(&output));
    assert_eq!(lines(12)[6..], ["50331648", "0", "max 100000", "79", "7", "MemTotal:          49152 kB"]);
    assert!(install.run(&["delete", "--force", "c"]).unwrap().status.success());
    assert_eq!(folders(&path), Vec::<PathBuf>::new());
    install.nothing_left().unwrap();
}

/// A program that touches that many mebibytes; its child does if there is one more argument, and it tells of that one's end.
fn hog(install: &Install, bundle: &str) {
    const SOURCE: &str = r#"
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <sys/wait.h>
        #include <unistd.h>
        int main(int argc, char **argv) {
            if (argc > 2 && fork()) {
                int status;
                wait(&status);
                printf("%d\n", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
                return 0;
            }
            for (int i = 0; i < atoi(argv[1]); i++) {
                volatile char *page = malloc(1 << 20);
                memset((char *)page, 1, 1 << 20);
            }
            return 0;
        }"#;
    let source = install.folder.join("hog.c");
    std::fs::write(&source, SOURCE).unwrap();
    let to = Path::new(bundle).join("rootfs/bin/hog");
    assert!(Command::new("gcc").args(["-static", "-o"]).arg(to).arg(source).status().unwrap().success());
}

#[test]
fn at_the_limit_of_memory_the_host_kills_the_program_and_not_the_services() {
    let install = Install::with_services("cgroup-oom").unwrap();
    let limit = json!({"memory": {"limit": 32 << 20, "swap": 32 << 20}});
    let (alone, path) = bundle(&install, "alone", &["hog", "64"], limit.clone());
    hog(&install, &alone);
    let output = install.run(&["run", "--bundle", &alone, "c"]).unwrap();
    assert_eq!(output.status.code(), Some(137), "{}", says(&output));
    assert_eq!(folders(&path), Vec::<PathBuf>::new());
    Install::edit(Path::new(&alone), |d| d["process"]["args"] = json!(["hog", "16"])).unwrap();
    assert_eq!(install.run(&["run", "--bundle", &alone, "c"]).unwrap().status.code(), Some(0), "half of it is no harm");

    let script = "hog 64 child; cat /sys/fs/cgroup/memory.events; while :; do sleep 1; done";
    let (child, path) = bundle(&install, "child", &["sh", "-c", script], limit);
    hog(&install, &child);
    let out = install.folder.join("out");
    let mut command = install.command(&["create", "--bundle", &child, "c"]);
    assert!(command.stdout(std::fs::File::create(&out).unwrap()).stderr(Stdio::null()).status().unwrap().success());
    install.note();
    let mut events = install.command(&["events", "--interval", "100ms", "c"]);
    let told = install.folder.join("told");
    let mut events = events.stdout(std::fs::File::create(&told).unwrap()).spawn().unwrap();
    until("the first of it", || !std::fs::read(&told).unwrap().is_empty());
    assert!(install.run(&["start", "c"]).unwrap().status.success());
    let text = || std::fs::read_to_string(&out).unwrap();
    until("the child's end", || text().contains("oom_group_kill"));
    assert_eq!(text().lines().next(), Some("9"), "its parent sees it killed");
    assert!(text().contains("\noom_kill 1\n"), "{}", text());
    until("the event", || std::fs::read_to_string(&told).unwrap().lines().any(|l| l == r#"{"type":"oom","id":"c"}"#));
    let control = value(&path, "memory", "memory.oom_control", &["memory.events"]).unwrap();
    assert!(control.contains("oom_kill 1"), "{control}");
    assert!(install.run(&["delete", "--force", "c"]).unwrap().status.success());
    assert!(events.wait().unwrap().success(), "what there was to tell ends with the container");
    install.nothing_left().unwrap();
}

/// A container whose memory is short would have its services' programs taken out of memory and read again without end.
#[test]
fn the_services_programs_count_as_nobodys() {
    let install = Install::with_services("programs").unwrap();
    let mut size = 0;
    for name in ["cofferdam-sentry", "cofferdam-gofer"] {
        // Nobody has read them yet.
        let program = std::fs::File::open(install.folder.join("bin").join(name)).unwrap();
        program.sync_all().unwrap();
        rustix::fs::fadvise(&program, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        size += program.metadata().unwrap().len();
    }
    let (bundle, path) = bundle(&install, "c", &["sleep", "1000"], json!({"memory": {"limit": 128 << 20}}));
    detached(&install, &bundle, "c");
    let text = value(&path, "memory", "memory.stat", &["memory.stat"]).unwrap();
    let number = |names: [&str; 2]| {
        let line = text.lines().filter_map(|l| l.split_once(' ')).find(|(name, _)| names.contains(name)).unwrap();
        line.1.parse::<u64>().unwrap()
    };
    let files = number(["cache", "file"]) - number(["shmem", "shmem"]);
    assert!(files < size / 20, "{files} of {size}\n{text}");
    assert!(install.run(&["delete", "--force", "c"]).unwrap().status.success());
    install.nothing_left().unwrap();
}

#[test]
fn files_larger_than_the_limit_do_no_harm() {
    let install = Install::with_services("cgroup-files").unwrap();
    // By sendfile into a pipe, which takes a part of what is read, so that it is read anew: that is not streamed.
    let script = "cat /big | wc -c; dd if=/big of=/dev/null bs=64k 2>/dev/null; for i in 1 2 3 4 5 6; do cat /part$i | wc -c; done";
    let limit = json!({"memory": {"limit": 32 << 20, "swap": 32 << 20}});
    let (bundle, _) = bundle(&install, "b", &["sh", "-c", script], limit);
    let make = |name: &str, size: u64| {
        std::fs::File::create(Path::new(&bundle).join("rootfs").join(name)).unwrap().set_len(size).unwrap();
    };
    make("big", 100 << 20);
    (1..=6).for_each(|n| make(&format!("part{n}"), 7 << 20));
    let output = install.run(&["run", "--bundle", &bundle, "c"]).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text, format!("{}\n{}", 100 << 20, format!("{}\n", 7 << 20).repeat(6)), "{}", says(&output));

    // What is written into memory.
    let script =
        "for i in 1 2; do dd if=/dev/zero of=/new bs=1M count=64 2>/dev/null; echo $?; wc -c < /new; rm /new; done";
    Install::edit(Path::new(&bundle), |d| {
        d["process"]["args"] = json!(["sh", "-c", script]);
        d["root"]["readonly"] = false.into();
    })
    .unwrap();
    let output = install.run(&["run", "--overlay", "on", "--bundle", &bundle, "c"]).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text, format!("1\n{0}\n1\n{0}\n", 16 << 20), "no space left, twice: {}", says(&output));
    install.nothing_left().unwrap();
}

#[test]
fn a_container_has_no_more_tasks_than_it_may() {
    let install = Install::with_services("cgroup-pids").unwrap();
    let script = "i=0; while [ $i -lt 20 ]; do sleep 30 & i=$((i+1)); done; echo never";
    let (bundle, _) = bundle(&install, "b", &["sh", "-c", script], json!({"pids": {"limit": 8}}));
    let output = install.run(&["run", "--bundle", &bundle, "c"]).unwrap();
    assert!(says(&output).contains("can't fork: Resource temporarily unavailable"), "{}", says(&output));
    assert_eq!((output.status.code(), output.stdout), (Some(2), Vec::new()));
    let script =
        "for i in 1 2 3 4 5 6; do sleep 30 & done; cat /sys/fs/cgroup/pids.current; cat /sys/fs/cgroup/pids.events";
    Install::edit(Path::new(&bundle), |d| d["process"]["args"] = json!(["sh", "-c", script])).unwrap();
    let output = install.run(&["run", "--bundle", &bundle, "c"]).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "8\nmax 0\n", "{}", says(&output));
    // Many at the limit are no trouble: the host's own is not met first.
    let script = "for i in 1 2 3 4 5; do for j in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 30 & done; done; cat /sys/fs/cgroup/pids.current";
    Install::edit(Path::new(&bundle), |d| {
        d["process"]["args"] = json!(["sh", "-c", script]);
        d["linux"]["resources"]["pids"]["limit"] = 101.into();
    })
    .unwrap();
    let output = install.run(&["run", "--bundle", &bundle, "c"]).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "101\n", "{}", says(&output));
    install.nothing_left().unwrap();
}

#[test]
fn a_quota_of_processor_time_is_kept_to() {
    let install = Install::with_services("cgroup-cpu").unwrap();
    let busy = ["sh", "-c", "while :; do :; done"];
    let (bundle, path) = bundle(&install, "b", &busy, json!({"cpu": {"quota": 20_000, "period": 100_000}}));
    detached(&install, &bundle, "c");
    let used = || -> Duration {
        let v1 = value(&path, "cpuacct", "cpuacct.usage", &[]);
        let v2 = value(&path, "-", "-", &["cpu.stat"]);
        let v2 = v2.map(|t| t.lines().next().unwrap().trim_start_matches("usage_usec ").to_owned() + "000");
        Duration::from_nanos(v1.or(v2).unwrap().trim().parse().unwrap())
    };
    let part = || {
        let (begun, before) = (Instant::now(), used());
        std::thread::sleep(Duration::from_secs(2));
        (used() - before).as_secs_f64() / begun.elapsed().as_secs_f64()
    };
    let limited = part();
    assert!(limited < 0.3, "a fifth of a processor: {limited}");
    let stats = json_of(&install.run(&["events", "--stats", "c"]).unwrap());
    assert!(stats["data"]["cpu"]["throttling"]["throttledPeriods"].as_u64().unwrap() > 0, "{stats}");
    assert!(install.run(&["update", "--cpu-quota", "-1", "c"]).unwrap().status.success());
    // How much it gets then is the others' to say; more than it had, on any host that works at all.
    let free = part();
    assert!(free > limited * 1.2, "{limited} under a limit, {free} without");
    assert!(install.run(&["delete", "--force", "c"]).unwrap().status.success());
    install.nothing_left().unwrap();
}

/// The names of all members, those inside as `a.b`; numbers of devices and pages are no names.
fn members(value: &Value, above: &str, all: &mut Vec<String>) {
    for (name, inner) in value.as_object().into_iter().flatten() {
        let name = format!("{above}{name}");
        if name != "data.memory.raw" {
            members(inner, &format!("{name}."), all);
        }
        all.push(name);
    }
}

#[test]
fn events_tell_what_is_used_as_runc_does() {
    need("runc", "runc").unwrap();
    let install = Install::with_services("cgroup-stats").unwrap();
    let resources = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 30}, "cpu": {"quota": 50_000}});
    let (ours, _) = bundle(&install, "ours", &["sleep", "1000"], resources.clone());
    let (theirs, _) = bundle(&install, "theirs", &["sleep", "1000"], resources);
    let runc = Runc(&install);
    detached(&install, &ours, "stats");
    runc.detached(&theirs, "stats");
    let (our, their) = (
        json_of(&install.run(&["events", "--stats", "stats"]).unwrap()),
        json_of(&runc.run(&["events", "--stats", "stats"])),
    );
    let names = |value| {
        let mut all = Vec::new();
        members(value, "", &mut all);
        // Go leaves out what is zero, which these may be in one and not in the other.
        let fleeting = |n: &String| {
            // runc does not look for huge pages where only the hierarchy of version 2 counts them.
            n.starts_with("data.hugetlb.")
                || n.starts_with("data.cpu.throttling.")
                || n.starts_with("data.blkio.")
                || n == "data.memory.cache"
        };
        all.retain(|n| !fleeting(n));
        all.sort();
        all
    };
    assert_eq!(names(&our), names(&their));
    assert_eq!((&our["type"], &our["id"]), (&"stats".into(), &"stats".into()));
    assert_eq!(our["data"]["pids"], json!({"current": 1, "limit": 30}), "tasks of the container, not of its services");
    assert_eq!(our["data"]["memory"]["usage"]["limit"], 64 << 20);
    assert!(our["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0);

    let mut events = install.command(&["events", "--interval", "50ms", "stats"]);
    let told = install.folder.join("told");
    let mut events = events.stdout(std::fs::File::create(&told).unwrap()).spawn().unwrap();
    until("a second line", || std::fs::read_to_string(&told).unwrap().lines().count() >= 2);
    assert!(install.run(&["delete", "--force", "stats"]).unwrap().status.success());
    assert!(events.wait().unwrap().success());
    for id in ["stats", "never"] {
        let output = install.run(&["events", "--stats", id]).unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", says(&output));
        assert!(says(&output).contains("container does not exist"), "{}", says(&output));
    }
    assert_eq!(install.run(&["events", "--interval", "0s", "stats"]).unwrap().status.code(), Some(1));
    install.nothing_left().unwrap();
}

#[test]
fn what_cannot_be_set_is_refused_and_leaves_nothing() {
    let install = Install::with_services("cgroup-refused").unwrap();
    let (bundle, path) = bundle(&install, "b", &["true"], json!({}));
    // On a hybrid host the wish for huge pages has them given on from the root of version 2, for good.
    let given = Path::new("/sys/fs/cgroup/unified/cgroup.subtree_control");
    let before = std::fs::read_to_string(given);
    for (resources, why) in [
        (json!({"memory": {"limit": -2}}), "invalid memory limit: -2"),
        (json!({"memory": {"limit": 1000, "swap": 999}}), "memory+swap limit should be >= memory limit"),
        (json!({"memory": {"swappiness": 101}}), "valid range is 0-100"),
        (json!({"blockIO": {"weight": 5000}}), "failed to write \"5000\""),
        (json!({"cpu": {"cpus": "4000"}}), "failed to write \"4000\""),
        (json!({"cpu": {"period": 1}}), "failed to write \"1\""),
        (json!({"unified": {"../x": "1"}}), "must be a file name"),
        (json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}), "hugetlb"),
        (json!({"pids": "many"}), "invalid type"),
    ] {
        Install::edit(Path::new(&bundle), |d| d["linux"]["resources"] = resources.clone()).unwrap();
        let output = install.run(&["run", "--bundle", &bundle, "c"]).unwrap();
        assert_eq!(output.status.code(), Some(1), "{resources}");
        assert!(says(&output).contains(why), "{resources}: {}", says(&output));
        assert_eq!(folders(&path), Vec::<PathBuf>::new(), "{resources}");
    }
    if before.is_ok_and(|b| !b.contains("hugetlb")) {
        let _ = std::fs::write(given, "-hugetlb");
    }
    Install::edit(Path::new(&bundle), |d| {
        d["linux"]["resources"] = json!({"memory": {"kernel": 1 << 20}, "network": {"classID": 7}, "devices": [{"allow": false, "access": "rwm"}]});
    })
    .unwrap();
    let log = install.folder.join("log");
    let output = install.run(&["--log", log.to_str().unwrap(), "run", "--bundle", &bundle, "c"]).unwrap();
    assert!(output.status.success(), "{}", says(&output));
    let log = std::fs::read_to_string(log).unwrap();
    for name in ["linux.resources.memory.kernel: not set", "linux.resources.network: not set"] {
        assert_eq!(log.lines().filter(|l| l.contains("level=warning") && l.contains(name)).count(), 1, "{log}");
    }
    assert!(!log.contains("devices"), "{log}");
    install.nothing_left().unwrap();
}

#[test]
fn whoever_has_no_right_to_cgroups_is_told_which_limits_are_missing() {
    let install = Install::with_services("cgroup-user").unwrap();
    let resources = json!({"memory": {"limit": 64 << 20}, "cpu": {"quota": 50_000}, "pids": {"limit": 5}});
    let script = "cat /sys/fs/cgroup/pids.max; for i in 1 2 3 4 5 6; do sleep 30 & done; echo never";
    let (bundle, path) = bundle(&install, "b", &["sh", "-c", script], resources);
    let install = install.as_user(54_321).unwrap();
    let log = install.folder.join("log");
    let output = install.run(&["--log", log.to_str().unwrap(), "run", "--bundle", &bundle, "c"]).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "5\n", "{}", says(&output));
    let log = std::fs::read_to_string(log).unwrap();
    for name in ["memory.limit", "cpu.quota"] {
        let told = format!("linux.resources.{name}: not set, the container runs without");
        assert_eq!(log.lines().filter(|l| l.contains(&told)).count(), 1, "{log}");
    }
    assert!(!log.contains("pids"), "that one the Sentry keeps to: {log}");
    assert_eq!(folders(&path), Vec::<PathBuf>::new());
    install.nothing_left().unwrap();
}

/// Kills the processes of a program of the installation.
fn kill(install: &Install, name: &str) {
    for pid in install.pids(name) {
        let _ =
            rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL);
    }
}

#[test]
fn nothing_of_it_is_left_whoever_is_killed() {
    let install = Install::with_services("cgroup-killed").unwrap();
    let (bundle, path) = bundle(&install, "b", &["sleep", "1000"], json!({"memory": {"limit": 64 << 20}}));
    for name in ["cofferdam-supervisor", "cofferdam-sentry", "cofferdam-gofer"] {
        detached(&install, &bundle, "c");
        assert!(!folders(&path).is_empty());
        kill(&install, name);
        until("its end", || json_of(&install.run(&["state", "c"]).unwrap())["status"] == "stopped");
        let output = install.run(&["delete", "--force", "c"]).unwrap();
        assert!(output.status.success(), "{name}: {}", says(&output));
        assert_eq!(folders(&path), Vec::<PathBuf>::new(), "{name}");
    }

    // The next supervisor of the directory clears up, too, what nobody deletes.
    detached(&install, &bundle, "c");
    kill(&install, "cofferdam-supervisor");
    until("the services' end", || install.pids("cofferdam-sentry").is_empty() && install.pids("cofferdam").is_empty());
    let other = install.busybox("other", &["true"], false).unwrap();
    assert!(install.run(&["run", "--bundle", other.to_str().unwrap(), "other"]).unwrap().status.success());
    assert_eq!(folders(&path), Vec::<PathBuf>::new(), "by a supervisor");
    assert!(install.run(&["delete", "c"]).unwrap().status.success());

    // A command in front that is killed, or whose supervisor is.
    for name in ["cofferdam", "cofferdam-supervisor"] {
        let mut front = install.command(&["run", "--bundle", &bundle, "c"]).stderr(Stdio::null()).spawn().unwrap();
        until("its cgroup", || !folders(&path).is_empty());
        until("its start", || json_of(&install.run(&["list", "--format", "json"]).unwrap())[0]["status"] == "running");
        install.note();
        match name {
            "cofferdam" => front.kill().unwrap(),
            name => kill(&install, name),
        }
        let status = front.wait().unwrap();
        assert!(status.signal() == Some(9) || status.code() == Some(1), "{name}: {status}");
        until("no cgroup", || folders(&path).is_empty());
    }
    install.nothing_left().unwrap();
}

#[test]
fn a_path_is_by_default_the_id_and_equal_ids_get_along() {
    let (one, two) = (Install::with_services("cgroup-one").unwrap(), Install::with_services("cgroup-two").unwrap());
    let id = format!("cofferdam-test-{}", std::process::id());
    let mut places = Vec::new();
    for install in [&one, &two] {
        let bundle = install.busybox("b", &["sleep", "1000"], false).unwrap();
        detached(install, bundle.to_str().unwrap(), &id);
        let pid = json_of(&install.run(&["state", &id]).unwrap())["pid"].clone();
        places.push(group_of(&pid, "cpu"));
    }
    assert!(places[0].ends_with(&format!("/{id}")), "{places:?}");
    assert_ne!(places[0], places[1]);
    for install in [&one, &two] {
        assert!(install.run(&["delete", "--force", &id]).unwrap().status.success());
        install.nothing_left().unwrap();
    }
    for place in &places {
        assert_eq!(folders(place), Vec::<PathBuf>::new());
    }
}
