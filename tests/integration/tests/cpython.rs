//! CPython's own tests, from Debian's `libpython3.11-testsuite`: each case ends in the sandbox as it does natively. One run of all of
//! them natively and one in the sandbox, each with two at a time. `PLATFORM=ptrace` takes the other platform, `MODULES="test_os ..."` a
//! part.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test: what fails shall fail it")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cofferdam_integration::compare::{Run, run};
use cofferdam_integration::debian;
use cofferdam_integration::install::Install;
use cofferdam_integration::network::{Rig, bundle, ip};

/// Debian's Python, whatever else is in the path.
const PYTHON: &str = "/usr/bin/python3.11";
/// For `env`: nothing but what they need.
const CLEAN: [&str; 6] =
    ["-i", "--default-signal", "HOME=/root", "LANG=C.UTF-8", "PATH=/usr/bin:/bin:/usr/sbin:/sbin", PYTHON];
/// The slowest take two minutes each natively.
const LIMIT: Duration = Duration::from_secs(1500);

const MODULES: [&str; 41] = [
    "test_socket",
    "test_socketserver",
    "test_asyncore",
    "test_httplib",
    "test_httpservers",
    "test_urllib2_localnet",
    "test_ftplib",
    "test_os",
    "test_posix",
    "test_subprocess",
    "test_threading",
    "test_signal",
    "test_mmap",
    "test_select",
    "test_selectors",
    "test_epoll",
    "test_fcntl",
    "test_io",
    "test_file",
    "test_tempfile",
    "test_shutil",
    "test_glob",
    "test_multiprocessing_fork",
    "test_multiprocessing_spawn",
    "test_pty",
    "test_time",
    "test_resource",
    "test_sqlite3",
    "test_json",
    "test_hashlib",
    "test_zipfile",
    "test_tarfile",
    "test_pathlib",
    "test_largefile",
    "test_eintr",
    "test_faulthandler",
    "test_pwd",
    "test_grp",
    "test_wait4",
    "test_posixpath",
    "test_mailbox",
];

/// Cases that end otherwise in the sandbox, and why. One that ends alike fails this test: the list cannot grow stale.
const KNOWN: [(&str, &str); 1] =
    [("test.test_time.TimeTestCase.test_monotonic_settime", "skipped: nobody sets the host's clocks")];

/// Cases that are left out on both sides: UDP-Lite, which a sandbox has not, and virtual machines' sockets, which wait for ever where the
/// machine's own host answers nobody.
const LEFT_OUT: [&str; 4] = ["-i", "*UDPLITE*", "-i", "*VSOCK*"];

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Passed,
    Skipped,
    Failed,
}

/// The cases of a report as `--junit-xml` writes it.
fn cases(report: &str) -> BTreeMap<String, End> {
    let mut found = BTreeMap::new();
    for case in report.split("<testcase ").skip(1) {
        let name = case.split('"').nth(1).unwrap_or_default().to_owned();
        let content = case.split("</testcase>").next().unwrap_or_default();
        let end = if content.contains("<error") || content.contains("<failure") {
            End::Failed
        } else if content.contains("<skipped") {
            End::Skipped
        } else {
            End::Passed
        };
        // A case with parts has a line for each: one that failed counts.
        let whole = found.entry(name).or_insert(end);
        if end == End::Failed {
            *whole = end;
        }
    }
    found
}

#[test]
fn cpythons_own_tests_end_as_on_the_host() {
    debian::install(&["python3.11", "libpython3.11-testsuite", "iproute2", "util-linux"]).unwrap();
    let install = Install::with_services("cpython").unwrap();
    let asked = std::env::var("MODULES").unwrap_or_default();
    let modules: Vec<&str> = if asked.is_empty() { MODULES.to_vec() } else { asked.split_whitespace().collect() };
    let platform = std::env::var("PLATFORM").unwrap_or_else(|_| "notify".into());

    let test = [&["-m", "test", "-j2"][..], &LEFT_OUT, &["--junit-xml"]].concat();

    // Natively with the network that the sandbox has, a loopback device, and with its host's name, which nobody resolves.
    let folder = install.folder.join("out");
    std::fs::create_dir_all(&folder).unwrap();
    let mut native = Command::new("unshare");
    native
        .args(["--net", "--uts", "sh", "-c", "ip link set lo up; hostname cofferdam; exec env \"$@\"", "sh"])
        .args(CLEAN)
        .args(&test)
        .arg(folder.join("native.xml"));
    native.args(&modules).current_dir(&folder);
    let native = run(native, LIMIT).unwrap();
    let mut boxed = install.do_with(&platform, &folder);
    boxed.args(CLEAN).args(&test).arg("/mnt/boxed.xml").args(&modules);
    let boxed = run(boxed, LIMIT).unwrap();

    judge(&folder, &native, &boxed, &platform);
    install.nothing_left().unwrap();
}

/// The two that wait most, over a network of the sandbox's own; at once natively and in the sandbox, for they hardly compute.
#[test]
fn those_of_networks_end_as_on_the_host() {
    debian::install(&["python3.11", "libpython3.11-testsuite", "iproute2", "util-linux"]).unwrap();
    let (install, rig) = (Install::with_services("cpython-net").unwrap(), Rig::new("y"));
    let beside = Rig::named(&rig.inner.replace("cdi", "cdb"));
    ip(&format!("-n {} link set lo up", beside.0));
    let folder = install.folder.join("out");
    std::fs::create_dir_all(&folder).unwrap();
    let words = |report: &str| {
        let words = ["-m", "test", "-j2", "--junit-xml", report, "test_asyncio", "test_ssl"];
        [&CLEAN[..], &words].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut native =
        Rig::natively(&beside.0, &["unshare", "--uts", "sh", "-c", "hostname cofferdam; exec env \"$@\"", "sh"]);
    native.args(words(&folder.join("native.xml").display().to_string())).current_dir(&folder);
    let mut all = vec!["env".to_owned()];
    all.extend(words("/mnt/boxed.xml"));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let document = bundle(&install, &rig, "tests", &all);
    Install::edit(&document, |document| {
        document["hostname"] = "cofferdam".into();
        document["process"]["cwd"] = "/tmp".into();
        let mounts = document["mounts"].as_array_mut().unwrap();
        mounts.push(
            serde_json::json!({"destination": "/mnt", "source": folder, "type": "bind", "options": ["rbind", "rw"]}),
        );
        mounts.push(serde_json::json!({"destination": "/dev/shm", "source": "shm", "type": "tmpfs"}));
        let options = ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
        mounts.push(
            serde_json::json!({"destination": "/dev/pts", "source": "devpts", "type": "devpts", "options": options}),
        );
    })
    .unwrap();
    let mut boxed = install.command(&["run", "--bundle"]);
    boxed.arg(document).arg("tests");
    let native = std::thread::spawn(|| run(native, LIMIT).unwrap());
    let boxed = run(boxed, LIMIT).unwrap();
    judge(&folder, &native.join().unwrap(), &boxed, "notify");
    install.nothing_left().unwrap();
}

/// Compares the reports of two runs, `native.xml` and `boxed.xml`.
fn judge(folder: &Path, native: &Run, boxed: &Run, platform: &str) {
    let read = |name: &str, run: &Run| {
        let report = std::fs::read_to_string(folder.join(name));
        cases(&report.unwrap_or_else(|e| panic!("{name}: {e}\n{}", run.output)))
    };
    let (before, after) = (read("native.xml", native), read("boxed.xml", boxed));
    let count = |all: &BTreeMap<String, End>, end| all.values().filter(|e| **e == end).count();
    for (what, all, run) in [("natively", &before, native), (platform, &after, boxed)] {
        let (passed, skipped) = (count(all, End::Passed), count(all, End::Skipped));
        let failed = count(all, End::Failed);
        println!("{what:<9} {passed} passed, {skipped} skipped, {failed} failed, {:?}", run.time);
    }
    let differ: Vec<(&String, End, Option<End>)> = before
        .iter()
        .map(|(name, end)| (name, *end, after.get(name).copied()))
        // What is skipped natively and runs here is fine.
        .filter(|(_, native, boxed)| *boxed != Some(*native) && (*native, *boxed) != (End::Skipped, Some(End::Passed)))
        .collect();
    let known = |name: &str| KNOWN.iter().any(|(k, _)| *k == name);
    let new: Vec<_> = differ.iter().filter(|(name, ..)| !known(name)).collect();
    if !new.is_empty() {
        println!("{}", boxed.output);
    }
    assert!(new.is_empty(), "end otherwise than natively (case, natively, in the sandbox): {new:#?}");
    let stale = KNOWN.iter().filter(|(k, _)| before.contains_key(*k) && !differ.iter().any(|(name, ..)| name == k));
    assert_eq!(stale.count(), 0, "end alike by now: {KNOWN:?}, {differ:?}");
    assert!(!before.is_empty(), "no case ran:\n{}", native.output);
}
