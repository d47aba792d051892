//! Over folders that imitate cgroupfs: a file is there if it was put there before.

use super::*;
use serde_json::json;

struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("cofferdam-cgroups-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn files(&self, folder: &str, files: &[(&str, &str)]) {
        std::fs::create_dir_all(self.0.join(folder)).unwrap();
        for (name, text) in files {
            std::fs::write(self.0.join(folder).join(name), text).unwrap();
        }
    }

    fn says(&self, path: &str) -> String {
        std::fs::read_to_string(self.0.join(path)).unwrap()
    }

    fn hierarchy(&self, name: &str, controllers: &[&str]) -> Hierarchy {
        Hierarchy {
            mount: self.0.join(name),
            own: "me/here".into(),
            controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
            unified: controllers.is_empty(),
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn wanted(json: serde_json::Value) -> Wanted {
    Wanted::read(json!({"linux": json}).to_string().as_bytes(), None).unwrap()
}

fn change(cgroup: &mut Cgroup, json: &[u8]) -> Result<Limits, Refused> {
    let change = cgroup.prepare(json)?;
    assert_eq!(change.order, None, "these are not systemd's");
    cgroup.update(change)
}

const V2: &[(&str, &str)] = &[
    ("cgroup.controllers", "cpuset cpu io memory pids\n"),
    ("cgroup.procs", ""),
    ("memory.max", ""),
    ("memory.swap.max", ""),
    ("memory.low", ""),
    ("memory.high", ""),
    ("memory.current", "4096\n"),
    ("memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n"),
    ("memory.stat", "anon 5\nfile 6\n"),
    ("cpu.max", ""),
    ("cpu.weight", ""),
    ("cpu.stat", "usage_usec 10\nuser_usec 4\nsystem_usec 6\nnr_periods 2\nnr_throttled 1\nthrottled_usec 7\n"),
    ("cpuset.cpus", ""),
    ("cpuset.mems", ""),
    ("pids.max", ""),
    ("io.weight", ""),
    ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"),
];

#[test]
fn a_unified_host_gives_controllers_on_and_takes_every_limit() {
    let tree = Tree::new("v2");
    let above = [("cgroup.controllers", "cpuset cpu io memory pids\n"), ("cgroup.subtree_control", "")];
    tree.files("u", &above);
    tree.files("u/pod", &[("cgroup.subtree_control", "cpu\n")]);
    tree.files("u/pod/c1", V2);
    let asked = wanted(json!({"cgroupsPath": "/pod/c1", "resources": {
        "memory": {"limit": 100_000, "swap": 150_000, "reservation": 7}, "cpu": {"shares": 1024, "quota": 5, "cpus": "0"},
        "pids": {"limit": 20}, "blockIO": {"weight": 10}, "unified": {"memory.high": "90000"}}}));
    let mut cgroup = Cgroup::at(&[tree.hierarchy("u", &[])], &asked, "id").unwrap();
    assert_eq!(tree.says("u/cgroup.subtree_control"), "+cpuset +cpu +io +memory +pids");
    // Over what was there: the imitation keeps what a write does not cover.
    assert!(tree.says("u/pod/cgroup.subtree_control").starts_with("+cpuset +io +memory +pids"));
    for (file, text) in [
        ("memory.max", "100000"),
        ("memory.swap.max", "50000"),
        ("memory.low", "7"),
        ("memory.high", "90000"),
        ("cpu.max", "5 100000"),
        ("cpu.weight", "39"),
        ("cpuset.cpus", "0"),
        ("pids.max", "552"),
        ("io.weight", "1"),
    ] {
        assert_eq!(tree.says(&format!("u/pod/c1/{file}")), text, "{file}");
    }
    cgroup.add(4321).unwrap();
    assert_eq!(tree.says("u/pod/c1/cgroup.procs"), "4321");
    assert_eq!(cgroup.oom_kills(), Some(2));

    tree.files("u/pod/c1", &[("memory.max", ""), ("memory.swap.max", "")]);
    let limits = change(&mut cgroup, br#"{"memory": {"limit": 200000, "swap": -1}}"#).unwrap();
    assert_eq!(
        (tree.says("u/pod/c1/memory.max"), tree.says("u/pod/c1/memory.swap.max")),
        ("200000".into(), "max".into())
    );
    assert_eq!((limits.memory, limits.swap, limits.pids), (Some(200_000), None, Some(20)));
    let refused = change(&mut cgroup, br#"{"memory": {"limit": 4096, "checkBeforeUpdate": true}}"#).unwrap_err();
    assert_eq!(refused.message, "rejecting memory limit 4096 <= usage 4096");
    for bad in [r#"{"memory": {"limit": -7}}"#, "[]", "{", r#"{"pids": 3}"#] {
        assert_eq!(change(&mut cgroup, bad.as_bytes()).unwrap_err().kind, FailureKind::Invalid, "{bad}");
    }
    assert_eq!(tree.says("u/pod/c1/memory.max"), "200000", "what is refused changes nothing");

    let usage = cofferdam_control::sentry::Usage { tasks: 3, ..Default::default() };
    let s = stats(Some(&cgroup), &limits, &usage);
    assert_eq!(
        s["cpu"],
        json!({"usage": {"total": 10_000, "kernel": 6000, "user": 4000},
        "throttling": {"periods": 2, "throttledPeriods": 1, "throttledTime": 7000}})
    );
    assert_eq!(s["memory"]["usage"], json!({"limit": 200_000, "usage": 4096, "failcnt": 3}));
    assert_eq!(s["memory"]["raw"], json!({"anon": 5, "file": 6}));
    assert_eq!(s["pids"], json!({"current": 3, "limit": 20}));
    assert_eq!(s["blkio"]["ioServicedRecursive"][1], json!({"major": 8, "op": "Write", "value": 4}));
}

#[test]
fn a_host_of_version_1_gets_what_it_has_in_each_hierarchy() {
    let tree = Tree::new("v1");
    tree.files("cpuset", &[("cpuset.cpus", "0-1\n"), ("cpuset.mems", "0\n")]);
    let empty = [("cpuset.cpus", "\n"), ("cpuset.mems", "\n"), ("cgroup.procs", "")];
    tree.files("cpuset/a", &empty);
    tree.files("cpuset/a/b", &empty);
    tree.files(
        "memory/a/b",
        &[
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"),
        ],
    );
    let all = [tree.hierarchy("cpuset", &["cpuset"]), tree.hierarchy("memory", &["memory"])];
    let asked = wanted(json!({"cgroupsPath": "/a/b", "resources": {"memory": {"limit": 65536}, "cpu": {"cpus": "1"}}}));
    let cgroup = Cgroup::at(&all, &asked, "id").unwrap();
    assert!(tree.says("memory/a/b/memory.limit_in_bytes").starts_with("65536"));
    assert_eq!(tree.says("cpuset/a/cpuset.cpus"), "0-1", "one that is new begins as the one above it");
    assert!(tree.says("cpuset/a/b/cpuset.cpus").starts_with('1'));
    assert_eq!(tree.says("cpuset/a/b/cpuset.mems").trim(), "0");
    assert_eq!(cgroup.oom_kills(), Some(5));
    assert!(cgroup.add(1).is_err(), "a hierarchy without cgroup.procs is none");

    for (resources, why) in [
        (json!({"pids": {"limit": 5}}), "no cgroup controller \"pids\""),
        (json!({"unified": {"memory.high": "1"}}), "cannot use unified on cgroup v1"),
        (json!({"memory": {"limit": 65536, "swap": 70000}}), "memory.memsw.limit_in_bytes"),
    ] {
        let e = Cgroup::at(&all, &wanted(json!({"cgroupsPath": "/a/b", "resources": resources})), "id").unwrap_err();
        assert!(e.contains(why), "{e}");
    }
    assert!(Cgroup::at(&[], &wanted(json!({})), "id").is_err());
}

#[test]
fn what_was_made_goes_again_when_something_fails() {
    let tree = Tree::new("undo");
    tree.files("m/me/here", &[]);
    let asked = wanted(json!({"resources": {"memory": {"limit": 65536}}}));
    let e = Cgroup::at(&[tree.hierarchy("m", &["memory"])], &asked, "id").unwrap_err();
    assert!(e.contains("memory.limit_in_bytes"), "{e}");
    assert!(!tree.0.join("m/me/here/id").exists());
}

#[test]
fn documents_that_make_no_sense_are_refused() {
    for (bad, why) in [
        (json!({"cgroupsPath": "/"}), "root cgroup"),
        (json!({"cgroupsPath": "/a/.."}), "root cgroup"),
        (json!({"cgroupsPath": "/a\0b"}), "not a path"),
        (json!({"resources": {"memory": {"limit": 5, "swap": 4}}}), "memory+swap limit should be >= memory limit"),
        (json!({"resources": {"memory": {"limit": "5"}}}), "invalid type"),
    ] {
        let e = Wanted::read(json!({"linux": bad}).to_string().as_bytes(), None).unwrap_err();
        assert!(e.message.contains(why), "{e}");
    }
    assert!(!Wanted::read(b"{}", None).unwrap().matters());
}
