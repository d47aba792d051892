//! Documents that are wrong in one place, created with cofferdam and with runc: both refuse, or both take it, but for the known
//! differences, each with its reason; and of what was refused nothing is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use cofferdam_integration::install::{Install, need};
use serde_json::{Value, json};

/// What becomes of a document.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Both {
    /// Neither takes it; ours says this.
    Refuse(&'static str),
    /// Both take it.
    Take,
    /// We refuse, saying this, what runc takes, because.
    OnlyRunc(&'static str, #[allow(dead_code, reason = "for the reader")] &'static str),
    /// We take what runc refuses, because.
    OnlyOurs(#[allow(dead_code, reason = "for the reader")] &'static str),
}

use Both::{OnlyOurs, OnlyRunc, Refuse, Take};

fn long(n: usize) -> Value {
    json!("x".repeat(n))
}

/// Where in the document, what is put there (null takes it away), what becomes of it.
fn cases() -> Vec<(&'static str, Value, Both)> {
    const NO_TIME: &str = "it is 1.0.2's, and knows no time namespaces";
    const NEWER: &str = "a property that runc 1.1 does not know and passes over";
    let mount = |m: Value| json!([{"destination": "/proc", "type": "proc", "source": "proc"}, m]);
    let overlay =
        |options: &[&str]| mount(json!({"destination": "/x", "type": "overlay", "source": "o", "options": options}));
    let caps = |list: Value| json!({"bounding": list, "effective": [], "permitted": []});
    vec![
        // As it is, so that all the rest means something.
        ("/annotations", json!({"a": "b"}), Take),
        // process
        ("/process", Value::Null, Refuse("process property must be set")),
        ("/process", json!("x"), Refuse("config.json: ")),
        ("/process", json!([]), Refuse("config.json: ")),
        ("/process/args", Value::Null, Refuse("args must not be empty")),
        ("/process/args", json!([]), Refuse("args must not be empty")),
        ("/process/args", json!("sh"), Refuse("config.json: ")),
        ("/process/args", json!([1]), Refuse("config.json: ")),
        ("/process/args", json!(["no-such-program"]), Refuse("executable file not found in $PATH")),
        ("/process/cwd", json!(""), Refuse("Cwd property must not be empty")),
        ("/process/cwd", Value::Null, Refuse("cwd")),
        ("/process/cwd", json!("tmp"), Refuse("Cwd must be an absolute path")),
        ("/process/cwd", json!(7), Refuse("config.json: ")),
        ("/process/env", json!({"A": "b"}), Refuse("config.json: ")),
        ("/process/user/uid", json!(-1), Refuse("config.json: ")),
        ("/process/user/uid", json!("root"), Refuse("config.json: ")),
        ("/process/user/uid", json!(1.5), Refuse("config.json: ")),
        ("/process/user/uid", json!(4_294_967_296u64), Refuse("config.json: ")),
        ("/process/user/gid", json!(-5), Refuse("config.json: ")),
        ("/process/user/additionalGids", json!([-1]), Refuse("config.json: ")),
        ("/process/user/additionalGids", json!(5), Refuse("config.json: ")),
        ("/process/user/umask", json!(-1), Refuse("config.json: ")),
        ("/process/terminal", json!("yes"), Refuse("config.json: ")),
        ("/process/noNewPrivileges", json!(1), Refuse("config.json: ")),
        ("/process/oomScoreAdj", json!(2000), Refuse("oom_score_adj")),
        ("/process/oomScoreAdj", json!("x"), Refuse("config.json: ")),
        ("/process/capabilities", caps(json!(["CAP_NO_SUCH"])), Take),
        ("/process/capabilities", json!(["CAP_KILL"]), Refuse("config.json: ")),
        ("/process/capabilities", caps(json!([5])), Refuse("config.json: ")),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_NONE", "soft": 1, "hard": 1}]),
            Refuse("invalid rlimit type: RLIMIT_NONE"),
        ),
        ("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 9, "hard": 5}]), Refuse("invalid argument")),
        ("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": -1, "hard": 5}]), Refuse("config.json: ")),
        (
            "/process/rlimits",
            json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]),
            OnlyRunc("is there twice", "the specification wants an error"),
        ),
        ("/process/consoleSize", json!("x"), Refuse("config.json: ")),
        ("/process/selinuxLabel", json!("a:b:c"), OnlyOurs("a warning says that there is no SELinux inside")),
        ("/process/apparmorProfile", json!("p"), OnlyOurs("a warning says that there is no AppArmor inside")),
        ("/process/scheduler", json!({"policy": "SCHED_FIFO", "priority": 5}), OnlyRunc("SCHED_FIFO", NEWER)),
        ("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": 50}), OnlyRunc("nice", NEWER)),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 9}), OnlyRunc("ioPriority", NEWER)),
        // root
        ("/root", Value::Null, Refuse("root property must be set")),
        ("/root", json!("rootfs"), Refuse("config.json: ")),
        ("/root/path", json!("no-such-dir"), Refuse("no such file or directory")),
        ("/root/path", json!("config.json"), Refuse("is not a directory")),
        ("/root/path", long(5000), Refuse("File name too long")),
        ("/root/readonly", json!("yes"), Refuse("config.json: ")),
        // names
        ("/hostname", long(65), Refuse("sethostname: invalid argument")),
        ("/hostname", json!(["h"]), Refuse("config.json: ")),
        ("/domainname", long(65), OnlyRunc("setdomainname", NEWER)),
        // mounts
        ("/mounts", json!({"destination": "/x"}), Refuse("config.json: ")),
        ("/mounts", json!(["x"]), Refuse("config.json: ")),
        ("/mounts", mount(json!({"destination": "/x", "type": "nosuchfs", "source": "x"})), Refuse("no such device")),
        ("/mounts", mount(json!({"destination": "/x", "type": "bind", "source": "/tmp"})), Refuse("no such device")),
        (
            "/mounts",
            mount(json!({"destination": "/x", "source": "/no/such", "options": ["bind"]})),
            Refuse("no such file or directory"),
        ),
        (
            "/mounts",
            mount(json!({"destination": "/x", "type": "tmpfs", "source": "t", "options": ["no-such-option"]})),
            Refuse("invalid argument"),
        ),
        (
            "/mounts",
            mount(json!({"destination": "/x", "type": "tmpfs", "source": "t", "options": ["size=much"]})),
            Refuse("invalid argument"),
        ),
        (
            "/mounts",
            mount(json!({"destination": "/x", "type": "tmpfs", "source": "t", "options": ["mode=9"]})),
            Refuse("invalid argument"),
        ),
        (
            "/mounts",
            mount(json!({"destination": "/x", "type": "tmpfs", "source": "t", "options": "ro"})),
            Refuse("config.json: "),
        ),
        (
            "/mounts",
            mount(json!({"destination": "/proc/sys", "source": "/tmp", "options": ["bind"]})),
            Refuse("because it is inside /proc"),
        ),
        (
            "/mounts",
            mount(json!({"destination": "/x\0y", "type": "tmpfs", "source": "t"})),
            Refuse("mount field contains null byte"),
        ),
        (
            "/mounts",
            mount(json!({"destination": long(300), "type": "tmpfs", "source": "t"})),
            Refuse("file name too long"),
        ),
        (
            "/mounts",
            mount(json!({"destination": long(5000), "type": "tmpfs", "source": "t"})),
            Refuse("file name too long"),
        ),
        (
            "/mounts",
            mount(json!({"destination": "/loop/x", "type": "tmpfs", "source": "t"})),
            Refuse("too many levels of symbolic links"),
        ),
        ("/mounts", mount(json!({"destination": "/out/x", "type": "tmpfs", "source": "t"})), Take),
        ("/mounts", mount(json!({"destination": "/../../x", "type": "tmpfs", "source": "t"})), Take),
        ("/mounts", mount(json!({"destination": "x", "type": "tmpfs", "source": "t"})), Take),
        (
            "/mounts",
            mount(json!({"destination": "/bin/busybox/x", "type": "tmpfs", "source": "t"})),
            Refuse("not a directory"),
        ),
        (
            "/mounts",
            mount(json!({"destination": "/x", "source": "/tmp", "options": ["rbind", "idmap"]})),
            OnlyRunc("idmap", "it takes the word for data of the bind mount, and does nothing"),
        ),
        ("/mounts", overlay(&["lowerdir=/usr:/etc"]), Take),
        ("/mounts", overlay(&["lowerdir=/a:/b"]), Refuse("no such file or directory")),
        ("/mounts", overlay(&["lowerdir=/usr"]), Refuse("invalid argument")),
        ("/mounts", overlay(&[]), Refuse("invalid argument")),
        ("/mounts", overlay(&["lowerdir="]), Refuse("invalid argument")),
        ("/mounts", overlay(&["lowerdir=/usr:/etc", "no-such-option"]), Refuse("invalid argument")),
        ("/mounts", overlay(&["lowerdir=/usr:/etc", "xino=perhaps"]), Refuse("invalid argument")),
        ("/mounts", overlay(&["lowerdir=/usr:/etc/passwd"]), Refuse("invalid argument")),
        ("/mounts", overlay(&["lowerdir=/usr:/usr"]), Refuse("too many levels of symbolic links")),
        ("/mounts", overlay(&["lowerdir=/usr:/usr/bin"]), Refuse("too many levels of symbolic links")),
        ("/mounts", overlay(&["lowerdir=/usr", "upperdir=/tmp"]), Refuse("invalid argument")),
        ("/mounts", overlay(&["lowerdir=/usr", "upperdir=/tmp", "workdir=/tmp"]), Refuse("invalid argument")),
        ("/mounts", overlay(&["lowerdir=/usr", "upperdir=/tmp", "workdir=/proc/sys"]), Refuse("nvalid argument")),
        (
            "/mounts",
            overlay(&["lowerdir=/usr:/etc", "index=on"]),
            OnlyRunc("invalid argument", "the Sentry's overlay has no index"),
        ),
        ("/mounts", mount(json!({"destination": "/x", "source": "/tmp", "options": ["remount"]})), Refuse("")),
        // hooks
        ("/hooks", json!({"createRuntime": "x"}), Refuse("config.json: ")),
        ("/hooks", json!({"createRuntime": [{"path": "true"}]}), Refuse("not absolute")),
        ("/hooks", json!({"createRuntime": [{"path": "/no/such"}]}), Refuse("no such file or directory")),
        ("/hooks", json!({"createRuntime": [{"path": "/bin/true", "timeout": 0}]}), Refuse("greater than zero")),
        ("/hooks", json!({"createRuntime": [{"path": "/bin/true", "timeout": "x"}]}), Refuse("config.json: ")),
        ("/hooks", json!({"createRuntime": [{"path": "/bin/false"}]}), Refuse("error running hook")),
        ("/annotations", json!({"a": 5}), Refuse("config.json: ")),
        (
            "/annotations",
            json!({"dev.cofferdam.file-access/": "mine"}),
            OnlyRunc("exclusive or shared", "the annotation is ours"),
        ),
        // linux
        ("/linux", json!("x"), Refuse("config.json: ")),
        ("/linux/namespaces", json!([{"type": "magic"}]), Refuse("namespace \"magic\" does not exist")),
        ("/linux/namespaces", json!([{"type": "pid"}, {"type": "pid"}]), Refuse("duplicated ns")),
        ("/linux/namespaces", json!([{"type": 5}]), Refuse("config.json: ")),
        ("/linux/namespaces", json!([{"type": "pid"}, {"type": "mount"}]), Refuse("without a private UTS namespace")),
        ("/linux/namespaces", json!([{"type": "pid"}, {"type": "uts"}]), Refuse("without a private MNT namespace")),
        ("/linux/namespaces/0", json!({"type": "time"}), Refuse("time")),
        ("/linux/timeOffsets", json!({"monotonic": {"secs": 5}}), OnlyRunc("timeOffsets", NO_TIME)),
        ("/linux/uidMappings", json!([{"containerID": 0, "hostID": 1000, "size": 1}]), Take),
        ("/linux/namespaces/5", json!({"type": "user"}), Refuse("no user mappings found")),
        ("/linux/sysctl", json!({"vm.swappiness": "5"}), Refuse("is not in a separate kernel namespace")),
        ("/linux/sysctl", json!({"kernel.hostname": "x"}), Refuse("conflicts with the OCI \"hostname\" field")),
        ("/linux/sysctl", json!({"fs.mqueue.no_such": "5"}), Refuse("no such file or directory")),
        ("/linux/sysctl", json!({"fs.mqueue.msg_max": "much"}), Refuse("invalid argument")),
        ("/linux/sysctl", json!({"kernel.domainname": 5}), Refuse("config.json: ")),
        ("/linux/sysctl", json!(["kernel.domainname"]), Refuse("config.json: ")),
        ("/linux/rootfsPropagation", json!("sideways"), Refuse("rootfsPropagation=sideways is not supported")),
        (
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "z", "major": 1, "minor": 3}]),
            Refuse("invalid device type \"z\""),
        ),
        (
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "c", "major": "one", "minor": 3}]),
            Refuse("config.json: "),
        ),
        (
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": -1}]),
            Refuse("config.json: "),
        ),
        ("/linux/maskedPaths", json!("x"), Refuse("config.json: ")),
        ("/linux/maskedPaths", json!(["/no/such"]), Take),
        ("/linux/readonlyPaths", json!([5]), Refuse("config.json: ")),
        ("/linux/personality", json!({"domain": "SOLARIS"}), OnlyRunc("config.json: ", NEWER)),
        ("/linux/personality", json!({"domain": "LINUX", "flags": ["x"]}), OnlyRunc("flags", NEWER)),
        ("/linux/intelRdt", json!({"closID": "a/b"}), Refuse("invalid intelRdt.ClosID")),
        ("/linux/intelRdt", json!({"l3CacheSchema": "L3:0=f"}), Refuse("Intel RDT/CAT is not enabled")),
        ("/linux/mountLabel", json!("a:b:c"), OnlyOurs("a warning says that there is no SELinux inside")),
        ("/linux/netDevices", json!({"eth0": {}}), OnlyRunc("netDevices", NEWER)),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_MAYBE"}), Refuse("is not a valid action for seccomp")),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_VAX"]}),
            Refuse("is not a valid arch for seccomp"),
        ),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_LIKE"}]}]}),
            Refuse("is not a valid operator for seccomp"),
        ),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 7, "value": 1, "op": "SCMP_CMP_EQ"}]}]}),
            Refuse("6 arguments"),
        ),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOTIFY"}), Refuse("SCMP_ACT_NOTIFY")),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["NO_SUCH"]}), Refuse("seccomp flag")),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"]}),
            OnlyOurs("runc 1.1 knows no flags, 1.2 does"),
        ),
        ("/linux/seccomp", json!({}), Take),
        ("/linux/seccomp", json!("x"), Refuse("config.json: ")),
    ]
}

fn set(document: &mut Value, at: &str, what: &Value) {
    let (parent, key) = at.rsplit_once('/').unwrap();
    match document.pointer_mut(parent).unwrap() {
        Value::Object(map) if what.is_null() => {
            map.remove(key);
        }
        Value::Object(map) => {
            map.insert(key.into(), what.clone());
        }
        Value::Array(list) => {
            let n: usize = key.parse().unwrap();
            if n < list.len() { list[n] = what.clone() } else { list.push(what.clone()) }
        }
        _ => panic!("{at}"),
    }
}

/// `create` with its output in a file, as containers hold it; its status and what it said.
fn create(mut command: Command, out: &Path) -> (Option<i32>, String) {
    let file = File::create(out).unwrap();
    let status = command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).status().unwrap();
    (status.code(), std::fs::read_to_string(out).unwrap())
}

#[test]
fn what_is_wrong_is_refused_as_by_runc_and_leaves_nothing() {
    need("runc", "runc").unwrap();
    let install = Install::with_services("bad-config").unwrap();
    let bundle = install.busybox("b", &["true"], false).unwrap();
    for (name, target) in [("loop", "/loop"), ("out", "/../../../../tmp")] {
        std::os::unix::fs::symlink(target, bundle.join("rootfs").join(name)).unwrap();
    }
    Install::edit(&bundle, |d| d["root"]["readonly"] = json!(false)).unwrap();
    let good: Value = serde_json::from_slice(&std::fs::read(bundle.join("config.json")).unwrap()).unwrap();
    let (out, theirs) = (install.folder.join("out"), install.folder.join("runc"));
    let path = bundle.to_str().unwrap();
    let mut wrong = Vec::new();
    for (n, (at, what, expected)) in cases().into_iter().enumerate() {
        let mut document = good.clone();
        set(&mut document, at, &what);
        std::fs::write(bundle.join("config.json"), document.to_string()).unwrap();
        let mut shown = format!("{at} = {what}");
        shown.truncate(150);
        let ours = create(install.command(&["create", "--bundle", path, "c"]), &out);
        if ours.0 == Some(0) {
            assert!(install.run(&["delete", "--force", "c"]).unwrap().status.success());
        } else if install.root().join("c").exists() {
            wrong.push(format!("{shown}: state is left"));
        }
        let id = format!("cofferdam-bad-{}-{n}", std::process::id());
        let mut runc = Command::new("runc");
        runc.arg("--root").arg(&theirs).args(["create", "--bundle", path, &id]);
        let runc = create(runc, &out);
        let _ = Command::new("runc").arg("--root").arg(&theirs).args(["delete", "--force", &id]).output();
        let (took, runc_took) = (ours.0 == Some(0), runc.0 == Some(0));
        let (want, runc_wants, says) = match expected {
            Refuse(says) => (false, false, says),
            Take => (true, true, ""),
            OnlyRunc(says, _) => (false, true, says),
            OnlyOurs(_) => (true, false, ""),
        };
        if (took, runc_took) != (want, runc_wants) || !ours.1.contains(says) || !took && ours.0 != Some(1) {
            wrong.push(format!("{shown}:\n    ours {:?} {}    runc {:?} {}", ours.0, ours.1, runc.0, runc.1));
        }
    }
    // What is no document at all.
    for text in ["", "{", "[]", "7", "{\"ociVersion\": }", "\u{0}"] {
        std::fs::write(bundle.join("config.json"), text).unwrap();
        let ours = create(install.command(&["create", "--bundle", path, "c"]), &out);
        if ours.0 != Some(1) || install.root().join("c").exists() {
            wrong.push(format!("{text:?}: {ours:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    install.nothing_left().unwrap();
}
