//! Pods: containers of one sandbox, as containerd and CRI-O ask for them by annotations. What they share and what they do not, the end
//! and the return of one while others run, what becomes of all when a part is killed, and that files of a volume are the same to all.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use cofferdam_integration::asked::{Answer, Asked, ask, begin, must, nothing_left_within, place, say, wait_for};
use cofferdam_integration::chance::{Random, kill, struck};
use cofferdam_integration::install::{Install, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::time::Duration;

/// The names of annotations: kind, sandbox.
const CONTAINERD: [&str; 2] = ["io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"];
const CRIO: [&str; 2] = ["io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"];

/// `meet listen PATH`, `meet connect PATH`; `meet pty PATH` has a terminal from when that is there.
const MEET: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(int n, char **v) {
    struct sockaddr_un a = {AF_UNIX};
    char b[8] = "";
    if (v[1][0] == 'p') return open("/dev/ptmx", O_RDWR | O_NOCTTY) < 0 || creat(v[2], 0600) < 0 || sleep(1000);
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    strcpy(a.sun_path, v[2]);
    if (v[1][0] == 'c') {
        if (connect(s, (void *)&a, sizeof a)) return perror("connect"), 1;
        read(s, b, sizeof b - 1);
        return puts(b) < 0;
    }
    if (bind(s, (void *)&a, sizeof a) || listen(s, 1)) return perror("listen"), 1;
    return write(accept(s, 0, 0), "met", 3) != 3;
}
"#;

/// What `programs/together.c` does in two containers.
const WHAT: [&str; 6] = ["locks", "news", "maps", "memory", "count", "run"];

/// What it finds in a volume that it may not write.
const LOOKED: &str = "looked: read one , mapped one \nlooked: read two , mapped two \nopen to write: EROFS\n\
                      map to write: EACCES\nlock: EAGAIN\nover\n";

/// A pod with its first container running.
struct Pod {
    install: Install,
    names: [&'static str; 2],
    /// The pid of what stands for the first container.
    pid: i32,
}

/// A bundle with a cgroup of its own within the pod's.
fn bundle(install: &Install, name: &str, arguments: &[&str]) -> String {
    let bundle = install.busybox(name, arguments, false).unwrap();
    Install::edit(&bundle, |d| d["linux"]["cgroupsPath"] = format!("{}/{name}", place(install)).into()).unwrap();
    bundle.to_str().unwrap().to_owned()
}

fn pid_of(install: &Install, id: &str) -> i32 {
    let state: Value = serde_json::from_str(&must(install, &["state", id]).text).unwrap();
    state["pid"].as_i64().unwrap() as i32
}

impl Pod {
    fn new(name: &str, names: [&'static str; 2]) -> Self {
        Self::on("notify", name, names, true)
    }

    /// `says`: whether the first container says that it is a pod's, which podman's does not.
    fn on(platform: &str, name: &str, names: [&'static str; 2], says: bool) -> Self {
        let install = Install::with_services(name).unwrap();
        let first = bundle(&install, "pod", &["sleep", "1000"]);
        Install::edit(first.as_ref(), |d| {
            if says {
                d["annotations"] = json!({ names[0]: "sandbox", names[1]: "pod" });
            }
            d["hostname"] = "the-pod".into();
        })
        .unwrap();
        must(&install, &["--platform", platform, "create", "-b", &first, "pod"]);
        must(&install, &["start", "pod"]);
        install.note();
        let pid = pid_of(&install, "pod");
        Self { install, names, pid }
    }

    /// A bundle of a further container, in the pod's namespaces for network, IPC and host name, as the engines ask for it.
    fn bundle(&self, name: &str, arguments: &[&str], change: impl FnOnce(&mut Value)) -> String {
        let bundle = bundle(&self.install, name, arguments);
        let volume = self.install.folder.join("volume");
        std::fs::create_dir_all(&volume).unwrap();
        Install::edit(bundle.as_ref(), |d| {
            d["annotations"] = json!({ self.names[0]: "container", self.names[1]: "pod" });
            d["root"]["readonly"] = false.into();
            d.as_object_mut().unwrap().remove("hostname");
            let of = |kind: &str| format!("/proc/{}/ns/{kind}", self.pid);
            d["linux"]["namespaces"] = json!([
                {"type": "mount"}, {"type": "pid"}, {"type": "ipc", "path": of("ipc")},
                {"type": "uts", "path": of("uts")}, {"type": "network", "path": of("net")}
            ]);
            let mount = json!({"destination": "/v", "type": "bind", "source": volume, "options": ["rbind", "rw"]});
            d["mounts"].as_array_mut().unwrap().push(mount);
            change(d);
        })
        .unwrap();
        bundle
    }

    fn run(&self, id: &str, bundle: &str) {
        must(&self.install, &["create", "-b", bundle, id]);
        must(&self.install, &["start", id]);
        self.install.note();
    }

    /// Puts a program into the volume, that listens at a socket file and greets, or connects and tells.
    fn give_program(&self) {
        let source = self.install.folder.join("meet.c");
        let volume = self.install.folder.join("volume");
        std::fs::create_dir_all(&volume).unwrap();
        std::fs::write(&source, MEET).unwrap();
        let mut compiler = std::process::Command::new("gcc");
        let made = compiler.args(["-static", "-o"]).arg(volume.join("meet")).arg(&source).status().unwrap();
        assert!(made.success());
    }

    /// Makes a program of this folder in the volume.
    fn build(&self, name: &str) {
        let volume = self.install.folder.join("volume");
        std::fs::create_dir_all(&volume).unwrap();
        let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("programs").join(format!("{name}.c"));
        let mut compiler = std::process::Command::new("gcc");
        compiler.args(["-static", "-pthread", "-Wall", "-Wextra", "-Werror", "-o"]);
        assert!(compiler.arg(volume.join(name)).arg(&source).status().unwrap().success());
    }

    /// What a command in a container says.
    fn exec(&self, id: &str, line: &str) -> String {
        must(&self.install, &["exec", id, "sh", "-c", line]).text.trim().to_owned()
    }

    fn services(&self) -> [usize; 2] {
        ["cofferdam-sentry", "cofferdam-gofer"].map(|name| self.install.pids(name).len())
    }

    fn over(self, ids: &[&str]) {
        for id in ids {
            must(&self.install, &["delete", "--force", id]);
        }
        must(&self.install, &["delete", "--force", "pod"]);
        nothing_left_within(&self.install).unwrap();
    }
}

/// `process.json` to share the PID namespace of another container.
fn share_pids(document: &mut Value, pid: i32) {
    let namespaces = document["linux"]["namespaces"].as_array_mut().unwrap();
    let path = format!("/proc/{pid}/ns/pid");
    namespaces.iter_mut().filter(|n| n["type"] == "pid").for_each(|n| n["path"] = path.as_str().into());
}

#[test]
fn containers_share_what_is_the_pods_and_nothing_else() {
    for (platform, names, says) in [("notify", CONTAINERD, true), ("ptrace", CRIO, true), ("notify", CRIO, false)] {
        let pod = Pod::on(platform, "pods-share", names, says);
        pod.give_program();
        let limited = |pids: i64| move |d: &mut Value| d["linux"]["resources"] = json!({"pids": {"limit": pids}});
        pod.run("a", &pod.bundle("a", &["sleep", "1000"], limited(20)));
        pod.run("b", &pod.bundle("b", &["sleep", "1000"], limited(30)));
        assert_eq!(pod.services(), [1, 3], "one Sentry, and a Gofer for each container");

        // The pod's: host name, System V IPC, the volume.
        assert_eq!(pod.exec("a", "hostname"), "the-pod");
        must(&pod.install, &["exec", "--cap", "CAP_SYS_ADMIN", "a", "hostname", "renamed"]);
        pod.exec("a", "echo from a > /v/file");
        assert_eq!(pod.exec("b", "hostname; cat /v/file"), "renamed\nfrom a");
        for kind in ["uts", "ipc", "net"] {
            let of = |id| pod.exec(id, &format!("readlink /proc/self/ns/{kind}"));
            assert_eq!((of("a"), of("b")), (of("pod"), of("pod")), "{kind}");
        }
        // Who opens the same FIFO of it meets the other, whichever container it is in.
        pod.exec("a", "mkfifo /v/fifo");
        pod.exec("a", "(echo through >/v/fifo; echo done >/v/written) </dev/null >/dev/null 2>&1 &");
        assert_eq!(pod.exec("b", "cat /v/fifo"), "through");
        until("the writer's end", || pod.install.folder.join("volume/written").exists());
        // And who connects to a socket that was bound there.
        pod.exec(
            "a",
            "/v/meet listen /v/socket </dev/null >/dev/null 2>&1 & while ! test -S /v/socket; do sleep 0.01; done",
        );
        assert_eq!(pod.exec("b", "/v/meet connect /v/socket"), "met");
        // Their own: the tree, processes, mounts.
        pod.exec("a", "echo own > /tmp/own");
        assert_eq!(pod.exec("b", "cat /tmp/own 2>&1 || true"), "cat: can't open '/tmp/own': No such file or directory");
        assert_eq!(pod.exec("b", "cat /proc/1/comm; ps -o comm | grep -c sleep"), "sleep\n1");
        let begin = "/v/meet pty /v/up </dev/null >/dev/null 2>&1 & while ! test -e /v/up; do sleep 0.01; done";
        pod.exec("a", begin);
        assert_eq!(pod.exec("a", "ls /dev/pts"), "0\nptmx");
        assert_eq!(pod.exec("b", "ls /dev/pts"), "ptmx", "terminals of others");
        for kind in ["pid", "mnt"] {
            let of = |id| pod.exec(id, &format!("readlink /proc/self/ns/{kind}"));
            assert!(of("a") != of("b") && of("a") != of("pod"), "{kind}");
        }
        assert_eq!(pod.exec("a", "kill -9 1; echo $?"), "0");
        assert_eq!(say(&pod.install, &["state", "a"]).text.matches("running").count(), 1);

        // Their own limits and counts.
        assert_eq!(pod.exec("a", "cat /sys/fs/cgroup/pids.max"), "20");
        assert_eq!(pod.exec("b", "cat /sys/fs/cgroup/pids.max"), "30");
        let many = "i=0; while [ $i -lt 25 ]; do sleep 100 & i=$((i+1)); done; echo all";
        assert!(!pod.exec("a", &format!("({many}) 2>&1 || true")).contains("all\n"));
        let counted: u32 = pod.exec("b", "cat /sys/fs/cgroup/pids.current").parse().unwrap();
        assert!(counted < 6, "{counted} tasks of other containers count in b");
        assert_eq!(pod.exec("b", "cat /sys/fs/cgroup/cgroup.procs | wc -l"), "4");
        must(&pod.install, &["pause", "a"]);
        assert_eq!(pod.exec("b", "echo awake"), "awake");
        must(&pod.install, &["resume", "a"]);
        assert_eq!(must(&pod.install, &["list", "-q"]).text.split_whitespace().collect::<Vec<_>>(), ["a", "b", "pod"]);
        pod.over(&["a", "b"]);
    }
}

#[test]
fn processes_are_shared_where_the_document_says_so() {
    let pod = Pod::new("pods-pids", CONTAINERD);
    let first = pod.pid;
    pod.run("a", &pod.bundle("a", &["sleep", "1001"], |d| share_pids(d, first)));
    pod.run("b", &pod.bundle("b", &["sleep", "1002"], |d| share_pids(d, first)));
    let seen = pod.exec("b", "ps -o args | grep '^sleep' | sort");
    assert_eq!(seen, "sleep 1000\nsleep 1001\nsleep 1002");
    // Another's root is seen by who may; a signal ends it.
    pod.exec("b", "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline | grep -q '^sleep 1001' && kill -KILL ${p#/proc/}; done; true");
    wait_for(&pod.install, "a", "stopped");
    // In a container's own namespace, as debugging containers are.
    pod.run("c", &pod.bundle("c", &["sleep", "1003"], |_| ()));
    let of_c = pid_of(&pod.install, "c");
    pod.run("d", &pod.bundle("d", &["sleep", "1004"], |d| share_pids(d, of_c)));
    assert_eq!(pod.exec("d", "ps -o args | grep '^sleep' | sort"), "sleep 1003\nsleep 1004");
    // What an init leaves behind in the pod's namespace ends with it.
    let leaving = ["sh", "-c", "sleep 2000 & sleep 0.1"];
    pod.run("e", &pod.bundle("e", &leaving, |d| share_pids(d, first)));
    wait_for(&pod.install, "e", "stopped");
    until("the end of what it left", || !pod.exec("b", "ps -o args").contains("sleep 2000"));
    pod.over(&["a", "b", "c", "d", "e"]);
}

/// A file of the cgroups of a container, by controller: version 2 has one folder for all.
fn cgroup_file(install: &Install, container: &str, controller: &str, names: [&str; 2]) -> String {
    let inner = format!("{}/{container}", place(install));
    let [one, two] = names;
    let files = [format!("/sys/fs/cgroup/{controller}{inner}/{one}"), format!("/sys/fs/cgroup{inner}/{two}")];
    let found = files.iter().find_map(|f| std::fs::read_to_string(f).ok());
    found.unwrap_or_else(|| panic!("none of {files:?}"))
}

/// There is one network, so there is one list of rules: who says another is not given what he did not ask for.
#[test]
fn rules_of_the_network_are_the_pods() {
    let pod = Pod::new("pods-rules", CONTAINERD);
    let with = |name: &str, rules: &str| {
        pod.bundle(name, &["sleep", "1000"], |d| d["annotations"]["dev.cofferdam.network-rules"] = rules.into())
    };
    let bundle = with("other", "in deny all");
    let refused = say(&pod.install, &["create", "-b", &bundle, "other"]);
    let why = "annotation dev.cofferdam.network-rules: the pod's sandbox pod has other rules";
    assert!(!refused.fine() && refused.text.contains(why), "{refused:?}");
    pod.run("same", &with("same", ""));
    wait_for(&pod.install, "same", "running");
    ["same", "pod"].iter().for_each(|id| drop(must(&pod.install, &["delete", "--force", id])));
    nothing_left_within(&pod.install).unwrap();
}

#[test]
fn the_host_keeps_each_container_to_its_own_limits() {
    let pod = Pod::new("pods-limits", CONTAINERD);
    let busy = ["sh", "-c", "while :; do :; done"];
    pod.run("busy", &pod.bundle("busy", &busy, |_| ()));
    pod.run("idle", &pod.bundle("idle", &["sleep", "1000"], |_| ()));
    // Every host process of a container is in its cgroup: the Gofer, what stands for the container, what its
    // processes are copied from, the program, also after exec.
    let count = |id: &str| cgroup_file(&pod.install, id, "memory", ["cgroup.procs", "cgroup.procs"]).lines().count();
    assert_eq!((count("busy"), count("idle")), (4, 4));
    pod.exec("idle", "sh -c 'exec sleep 100' & sleep 0.1; test $(ps -o comm | grep -c sleep) = 2");
    assert_eq!(count("idle"), 5);
    // What it used is its own.
    let used = |id: &str| {
        let stats: Value = serde_json::from_str(&must(&pod.install, &["events", "--stats", id]).text).unwrap();
        stats["data"]["cpu"]["usage"]["total"].as_u64().unwrap()
    };
    until("a second of use", || used("busy") > 1_000_000_000);
    assert!(used("idle") < 500_000_000, "{}", used("idle"));
    assert!(pod.exec("idle", "sed -n 's/^usage_usec //p' /sys/fs/cgroup/cpu.stat").parse::<u64>().unwrap() < 500_000);
    // Whose limit of memory is met ends, and nobody else.
    let greedy = ["sh", "-c", "x=$(head -c 300000000 /dev/zero | tr '\\0' x); echo survived > /v/survived"];
    let limited = |d: &mut Value| d["linux"]["resources"] = json!({"memory": {"limit": 48 << 20}});
    pod.run("greedy", &pod.bundle("greedy", &greedy, limited));
    wait_for(&pod.install, "greedy", "stopped");
    assert!(!pod.install.folder.join("volume/survived").exists());
    assert_eq!(pod.exec("idle", "echo $((6*7))"), "42");
    must(&pod.install, &["update", "--pids-limit", "77", "idle"]);
    assert_eq!(pod.exec("idle", "cat /sys/fs/cgroup/pids.max"), "77");
    assert_eq!(pod.exec("busy", "cat /sys/fs/cgroup/pids.max"), "max");
    pod.over(&["busy", "idle", "greedy"]);
}

#[test]
fn one_container_ends_and_returns_while_others_run() {
    let pod = Pod::new("pods-restart", CONTAINERD);
    let line = "n=0; while :; do n=$((n+1)); echo $n > /v/$HOSTNAME-counter; sleep 0.01; done";
    let b = pod.bundle("b", &["sh", "-c", &format!("HOSTNAME=b; {line}")], |_| ());
    pod.run("b", &b);
    let a = pod.bundle("a", &["sh", "-c", "echo begun >> /v/starts; sleep 1000"], |_| ());
    let starts = pod.install.folder.join("volume/starts");
    let counter = pod.install.folder.join("volume/b-counter");
    let count = || std::fs::read_to_string(&counter).ok().and_then(|t| t.trim().parse::<u64>().ok()).unwrap_or(0);
    for n in 0..20 {
        let before = count();
        pod.run("a", &a);
        assert_eq!(pod.services(), [1, 3]);
        until("its begin", || std::fs::read_to_string(&starts).is_ok_and(|t| t.lines().count() == n + 1));
        if n % 2 == 0 {
            must(&pod.install, &["kill", "a", "KILL"]);
            wait_for(&pod.install, "a", "stopped");
            must(&pod.install, &["delete", "a"]);
        } else {
            must(&pod.install, &["delete", "--force", "a"]);
        }
        until("b runs on", || count() > before);
    }
    let gofers = || pod.services()[1];
    until("the ends of the Gofers", || gofers() == 2);
    // What the Sentry holds does not grow with each: descriptors of sockets among it.
    let sentry = pod.install.pids("cofferdam-sentry")[0];
    let open = || std::fs::read_dir(format!("/proc/{sentry}/fd")).unwrap().count();
    let before = open();
    for _ in 0..5 {
        pod.run("a", &a);
        must(&pod.install, &["delete", "--force", "a"]);
    }
    until("what it held of them to be given back", || open() <= before);
    pod.over(&["b"]);
}

#[test]
fn whatever_is_killed_ends_no_more_than_it_carries() {
    let pod = Pod::new("pods-killed", CONTAINERD);
    let gofers_before = pod.install.pids("cofferdam-gofer");
    let a = pod.bundle("a", &["sleep", "1000"], |_| ());
    pod.run("a", &a);
    let gofer: Vec<i32> =
        pod.install.pids("cofferdam-gofer").into_iter().filter(|p| !gofers_before.contains(p)).collect();
    let b = pod.bundle("b", &["sleep", "1000"], |_| ());
    pod.run("b", &b);
    // Its Gofer: that container alone.
    kill(gofer[0]);
    wait_for(&pod.install, "a", "stopped");
    assert_eq!(pod.exec("b", "echo $((6*7))"), "42");
    must(&pod.install, &["delete", "a"]);
    // What stands for a container: that one.
    pod.run("a", &a);
    kill(pid_of(&pod.install, "a"));
    wait_for(&pod.install, "a", "stopped");
    must(&pod.install, &["delete", "a"]);
    // One that cannot be made leaves no trace.
    let broken = pod.bundle("x", &["/no/such/program"], |_| ());
    let refused = say(&pod.install, &["create", "-b", &broken, "x"]);
    assert!(refused.text.contains("no such file or directory"), "{refused:?}");
    assert!(say(&pod.install, &["state", "x"]).text.contains("does not exist"));
    until("the end of its Gofer", || pod.services() == [1, 2]);
    // The first container: all of them, and nobody comes in any more.
    pod.run("a", &a);
    must(&pod.install, &["kill", "pod", "KILL"]);
    for id in ["pod", "a", "b"] {
        wait_for(&pod.install, id, "stopped");
    }
    let late = say(&pod.install, &["create", "-b", &broken, "x"]);
    assert!(late.text.contains("the pod's sandbox pod is not running"), "{late:?}");
    pod.over(&["a", "b"]);

    // The Sentry: all.
    let pod = Pod::new("pods-killed", CONTAINERD);
    pod.run("a", &pod.bundle("a", &["sleep", "1000"], |_| ()));
    kill(pod.install.pids("cofferdam-sentry")[0]);
    for id in ["pod", "a"] {
        wait_for(&pod.install, id, "stopped");
    }
    pod.over(&["a"]);

    // Without such a pod it is a sandbox of its own.
    let pod = Pod::new("pods-killed", CONTAINERD);
    let alone = pod.bundle("a", &["sleep", "1000"], |d| d["annotations"][CONTAINERD[1]] = "other".into());
    pod.run("a", &alone);
    assert_eq!(pod.services(), [2, 2]);
    // And the first one may go first.
    pod.run("b", &pod.bundle("b", &["sleep", "1000"], |_| ()));
    must(&pod.install, &["delete", "--force", "pod"]);
    wait_for(&pod.install, "b", "stopped");
    must(&pod.install, &["delete", "b"]);
    must(&pod.install, &["delete", "--force", "a"]);
    nothing_left_within(&pod.install).unwrap();
}

#[test]
fn whatever_is_killed_at_whatever_step_of_a_container_of_a_pod_delete_force_clears_up() {
    let mut random = Random::default();
    let seed = random.seed();
    // What dies, and whether the pod's first container lives on.
    let victims = [
        ("cli", true),
        ("stand-in", true),
        ("cofferdam-gofer", true),
        ("cofferdam-sentry", false),
        ("cofferdam-supervisor", false),
    ];
    for (victim, lives) in victims {
        let mut living = None;
        let steps: [&[&str]; 5] = [
            &["create", "-b", "BUNDLE", "a"],
            &["start", "a"],
            &["exec", "a", "sleep", "0.05"],
            &["exec", "--detach", "a", "sleep", "1000"],
            &["delete", "--force", "a"],
        ];
        for (n, step) in steps.iter().enumerate() {
            let pod = living.take().unwrap_or_else(|| Pod::new("pods-steps", CONTAINERD));
            let delay = std::time::Duration::from_millis(random.below(if n == 0 { 60 } else { 25 }));
            let what = format!("{victim} dies {delay:?} into {step:?} of a pod's container (seed {seed})");
            println!("{what}");
            let bundle = pod.bundle(&format!("a{n}"), &["sleep", "1000"], |_| ());
            let of_pod = |name: &str| pod.install.pids(name);
            let (gofers, stand_ins) = (of_pod("cofferdam-gofer"), of_pod("cofferdam"));
            if n > 0 {
                must(&pod.install, &["create", "-b", &bundle, "a"]);
            }
            if n > 1 {
                must(&pod.install, &["start", "a"]);
            }
            pod.install.note();
            let step: Vec<&str> = step.iter().map(|w| if *w == "BUNDLE" { bundle.as_str() } else { *w }).collect();
            let answer = struck(&pod.install, &step, delay, |cli| {
                // Those of this container, not of the pod's first.
                let new = |name: &str, old: &[i32]| -> Vec<i32> {
                    of_pod(name).into_iter().filter(|pid| *pid != cli && !old.contains(pid)).collect()
                };
                match victim {
                    "cli" => vec![cli],
                    "stand-in" => new("cofferdam", &stand_ins),
                    "cofferdam-gofer" => new(victim, &gofers),
                    service => of_pod(service),
                }
            });
            let cleared = say(&pod.install, &["delete", "--force", "a"]);
            assert!(cleared.fine(), "{what}: {answer:?}, {cleared:?}");
            if lives {
                assert_eq!(pod.exec("pod", "echo $((6*7))"), "42", "{what}: {answer:?}");
                until(&what, || pod.services() == [1, 1]);
                // And takes another one.
                pod.run("b", &pod.bundle(&format!("b{n}"), &["sleep", "1000"], |_| ()));
                must(&pod.install, &["delete", "--force", "b"]);
                living = Some(pod);
            } else {
                must(&pod.install, &["delete", "--force", "pod"]);
                nothing_left_within(&pod.install).unwrap_or_else(|e| panic!("{what}: {e}; {answer:?}"));
            }
        }
        if let Some(pod) = living {
            pod.over(&["a"]);
        }
    }
}

/// Gofers and what they are told by signals.
fn tell(pids: &[i32], signal: Signal) {
    pids.iter().filter_map(|pid| Pid::from_raw(*pid)).for_each(|pid| kill_process(pid, signal).unwrap());
}

/// Whether a process has its filter: then it is about to serve, or serves.
fn is_confined(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|s| s.contains("Seccomp:\t2"))
}

/// What a command says, which nothing may hold up.
fn at_once(install: &Install, arguments: &[&str]) -> Answer {
    let begun = std::time::Instant::now();
    let answer = say(install, arguments);
    assert!(begun.elapsed() < Duration::from_secs(8), "{answer:?} after {:?}", begun.elapsed());
    answer
}

/// That the others of a pod with a container `b` are served: what is made, run, asked and ended.
fn others_go_on(pod: &Pod, c: &str) {
    let asked = |arguments: &[&str]| {
        let answer = at_once(&pod.install, arguments);
        assert!(answer.fine(), "{answer:?}");
        answer.text
    };
    assert_eq!(asked(&["exec", "b", "echo", "here"]), "here\n");
    assert!(asked(&["state", "b"]).contains("running"));
    asked(&["pause", "b"]);
    asked(&["resume", "b"]);
    asked(&["create", "-b", c, "c"]);
    asked(&["start", "c"]);
    asked(&["kill", "c", "KILL"]);
    wait_for(&pod.install, "c", "stopped");
    asked(&["delete", "c"]);
}

#[test]
fn a_container_that_hangs_holds_up_no_other_of_its_pod() {
    for platform in ["notify", "ptrace"] {
        let pod = Pod::on(platform, "pods-hang", CONTAINERD, true);
        pod.run("b", &pod.bundle("b", &["sleep", "1000"], |_| ()));
        let c = pod.bundle("c", &["sleep", "1000"], |_| ());
        // Many mounts: the Sentry asks its Gofer for each, and a stop comes in between.
        let a = pod.bundle("a", &["sleep", "1000"], |d| {
            let mounts = d["mounts"].as_array_mut().unwrap();
            let volume = mounts.last().unwrap()["source"].clone();
            for n in 0..150 {
                let to = format!("/m/{n}");
                mounts.push(json!({"destination": to, "type": "bind", "source": volume, "options": ["rbind", "rw"]}));
            }
        });
        let mut random = Random::default();
        let seed = random.seed();
        let before = pod.install.pids("cofferdam-gofer");
        let new = || -> Vec<i32> {
            pod.install.pids("cofferdam-gofer").into_iter().filter(|pid| !before.contains(pid)).collect()
        };
        let (mut hung, mut round) = (0, 0);
        while hung < 6 {
            round += 1;
            assert!(round < 60, "only {hung} of {round} were stopped in time (seed {seed})");
            let create = ask(&pod.install, &["create", "-b", &a, "a"]);
            until("its Gofer", || !new().is_empty());
            let gofer = new();
            // The first ones at their birth, with their orders or their streams under way.
            if hung > 1 {
                until("its walls", || gofer.iter().all(|pid| is_confined(*pid)));
                std::thread::sleep(Duration::from_micros(random.below(8000)));
            }
            tell(&gofer, Signal::STOP);
            let state = at_once(&pod.install, &["state", "a"]).text;
            if !state.contains("\"status\": \"creating\"") {
                // Too late: it was made. Or too early, and nobody knows it.
                tell(&gofer, Signal::CONT);
                create.end();
                must(&pod.install, &["delete", "--force", "a"]);
                until("the end of its Gofer", || new().is_empty());
                continue;
            }
            hung += 1;
            others_go_on(&pod, &c);
            assert!(at_once(&pod.install, &["start", "a"]).text.contains("creating state"));
            assert!(at_once(&pod.install, &["kill", "a", "USR1"]).text.contains("container not running"));
            let (order, told): (&[&str], &str) = match hung % 3 {
                0 => (&["kill", "a", "KILL"], "container a was killed by signal 9 while it was being made"),
                1 => (&["delete", "--force", "a"], "container a was deleted while it was being made"),
                _ => (&[], ""),
            };
            if order.is_empty() {
                // It is made after all.
                tell(&gofer, Signal::CONT);
                let made = create.end();
                assert!(made.fine(), "{made:?}");
                must(&pod.install, &["start", "a"]);
                assert_eq!(pod.exec("a", "ls -d /m/149"), "/m/149");
                must(&pod.install, &["delete", "--force", "a"]);
            } else {
                assert!(at_once(&pod.install, order).fine());
                let refused = create.end();
                assert!(!refused.fine() && refused.text.contains(told), "{refused:?}");
            }
            until("the end of its Gofer", || new().is_empty());
            until("its end", || at_once(&pod.install, &["state", "a"]).text.contains("does not exist"));
        }

        // One that hangs when it is to be let run.
        must(&pod.install, &["create", "-b", &a, "a"]);
        tell(&new(), Signal::STOP);
        let start = ask(&pod.install, &["start", "a"]);
        others_go_on(&pod, &c);
        assert!(at_once(&pod.install, &["kill", "a", "KILL"]).fine());
        let refused = start.end();
        assert!(!refused.fine(), "{refused:?}");
        wait_for(&pod.install, "a", "stopped");
        must(&pod.install, &["delete", "a"]);
        if platform == "ptrace" {
            // One thread serves the calls of all: one that hangs holds up the others'.
            pod.over(&["b"]);
            continue;
        }
        // One that nobody ends is given up after a while.
        let create = loop {
            let create = ask(&pod.install, &["create", "-b", &a, "a"]);
            until("its Gofer", || !new().is_empty());
            let gofer = new();
            until("its walls", || gofer.iter().all(|pid| is_confined(*pid)));
            tell(&gofer, Signal::STOP);
            if at_once(&pod.install, &["state", "a"]).text.contains("\"status\": \"creating\"") {
                break create;
            }
            tell(&gofer, Signal::CONT);
            create.end();
            must(&pod.install, &["delete", "--force", "a"]);
        };
        others_go_on(&pod, &c);
        let refused = create.end();
        assert!(!refused.fine() && refused.text.contains("in time"), "{refused:?}");
        until("the end of its Gofer", || new().is_empty());

        // One that runs.
        pod.run("a", &a);
        tell(&new(), Signal::STOP);
        let exec = ask(&pod.install, &["exec", "a", "echo", "never"]);
        others_go_on(&pod, &c);
        assert!(at_once(&pod.install, &["delete", "--force", "a"]).fine());
        assert!(!exec.end().fine());
        until("the end of its Gofer", || new().is_empty());
        pod.run("a", &a);
        pod.over(&["a", "b"]);
    }
}

/// A folder of the host's memory for `/dev/shm`.
struct SharedMemory(std::path::PathBuf);

impl SharedMemory {
    fn new(name: &str) -> Self {
        let folder = std::path::PathBuf::from(format!("/dev/shm/cofferdam-test-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What both of a pair say.
fn said(a: Asked, b: Asked) -> [String; 2] {
    let b = b.end();
    let a = a.end();
    [a.text, b.text]
}

#[test]
fn files_of_a_volume_are_the_same_to_all() {
    for platform in ["notify", "ptrace"] {
        let pod = Pod::on(platform, "pods-together", CONTAINERD, true);
        let memory = SharedMemory::new("pods");
        pod.build("together");
        let volume = pod.install.folder.join("volume");
        let with_memory = |access: &'static str| {
            let source = memory.0.clone();
            move |d: &mut Value| {
                let mounts = d["mounts"].as_array_mut().unwrap();
                mounts.retain(|m| m["destination"] != "/dev/shm");
                let shm =
                    json!({"destination": "/dev/shm", "type": "bind", "source": source, "options": ["rbind", "rw"]});
                mounts.push(shm);
                mounts
                    .iter_mut()
                    .filter(|m| m["destination"] == "/v")
                    .for_each(|m| m["options"] = json!(["rbind", access]));
            }
        };
        let a = pod.bundle("a", &["sleep", "1000"], with_memory("rw"));
        pod.run("a", &a);
        pod.run("b", &pod.bundle("b", &["sleep", "1000"], with_memory("rw")));
        pod.run("c", &pod.bundle("c", &["sleep", "1000"], with_memory("ro")));
        let inside = |id: &str, what: &str, who: &str| {
            let (folder, steps) = (format!("/v/{what}"), format!("/dev/shm/{what}"));
            ask(&pod.install, &["exec", id, "/v/together", what, who, &folder, &steps])
        };
        let begun = |what: &str| {
            for folder in [volume.join(what), memory.0.join(what)] {
                let _ = std::fs::remove_dir_all(&folder);
                std::fs::create_dir(&folder).unwrap();
            }
        };
        for what in WHAT {
            let native = |who: &str| {
                let mut command = std::process::Command::new(volume.join("together"));
                command.args([what, who]).arg(volume.join(what)).arg(memory.0.join(what));
                begin(command, &pod.install.folder)
            };
            begun(what);
            let control = said(native("A"), native("B"));
            assert!(control.iter().all(|text| text.ends_with("over\n") && !text.contains("early")), "{control:#?}");
            begun(what);
            let ours = said(inside("a", what, "A"), inside("b", what, "B"));
            assert_eq!(ours, control, "{what} on {platform}");
        }

        // A container that ends lets go of all that it held; another begun in its place finds the same files.
        for n in 0..3 {
            begun("hold");
            let holder = inside("a", "hold", "A");
            until("the lock", || volume.join("hold/holds").exists());
            let waits = inside("b", "hold", "B");
            until("who waits for it", || volume.join("hold/wants").exists());
            match n {
                0 => drop(must(&pod.install, &["kill", "a", "KILL"])),
                1 => kill(gofer_of(&pod, "a")),
                _ => drop(must(&pod.install, &["delete", "--force", "a"])),
            }
            assert_eq!(waits.end().text, "flock: EAGAIN\nhas it: her\nover\n", "{n}");
            assert!(!holder.end().fine());
            must(&pod.install, &["delete", "--force", "a"]);
            pod.run("a", &a);
            // And where one may only look at them, they are no more than that.
            begun("look");
            let [a, c] = said(inside("a", "look", "A"), inside("c", "look", "B"));
            assert_eq!(a, "still: two \nover\n");
            assert_eq!(c, LOOKED);
        }
        pod.over(&["a", "b", "c"]);
    }
}

/// The Gofer of a container: the one in its cgroup.
fn gofer_of(pod: &Pod, id: &str) -> i32 {
    let gofers = pod.install.pids("cofferdam-gofer");
    let inside = cgroup_file(&pod.install, id, "memory", ["cgroup.procs", "cgroup.procs"]);
    inside.lines().map(|line| line.parse().unwrap()).find(|pid| gofers.contains(pid)).unwrap()
}
