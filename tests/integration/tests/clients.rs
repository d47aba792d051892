//! Real clients, each with its own commands (`clients/*.sh`): podman of root and of an ordinary user, containerd by ctr and through CRI,
//! dockerd, buildah and `podman build`; conmon and the runtime called as CRI-O calls them; podman of both, dockerd and CRI with systemd as what
//! makes their cgroups. Each script runs with runc first, which shows what the checks are worth here, then with Cofferdam: all that passes
//! with runc must. `CLIENT=NAME` runs one.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test: what fails shall fail it")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cofferdam_integration::compare::run;
use cofferdam_integration::debian;
use cofferdam_integration::install::{Install, until};
use cofferdam_integration::systemd::{self, Systemd};

/// Scripts, and what Debian must have for them. Those of [`UNDER_SYSTEMD`] run in a systemd.
const CLIENTS: [(&str, &[&str]); 12] = [
    ("podman", &["podman", "conmon", "catatonit", "netavark", "aardvark-dns"]),
    ("network", &["podman", "conmon", "catatonit", "netavark", "aardvark-dns"]),
    ("rootless", &["podman", "conmon", "uidmap", "fuse-overlayfs"]),
    ("containerd", &["containerd"]),
    (
        "cri",
        &["containerd", "python3-grpcio", "python3-websocket", "protobuf-compiler", "iproute2", "gcc", "libc6-dev"],
    ),
    ("docker", &["docker.io"]),
    ("buildah", &["buildah", "podman"]),
    ("crio", &["conmon"]),
    ("docker-systemd", &["docker.io", "dbus", "systemd"]),
    ("podman-systemd", &["podman", "conmon", "dbus", "systemd"]),
    ("rootless-systemd", &["podman", "conmon", "uidmap", "fuse-overlayfs", "dbus", "systemd"]),
    ("cri-systemd", &["containerd", "python3-grpcio", "python3-websocket", "protobuf-compiler", "dbus", "systemd"]),
];
/// Scripts that have a systemd of their own, and whether it must be one with cgroups of version 2; else it has those with limits.
const UNDER_SYSTEMD: [(&str, bool); 4] =
    [("docker-systemd", false), ("podman-systemd", false), ("rootless-systemd", true), ("cri-systemd", false)];
/// For all of them.
const COMMON: [&str; 7] =
    ["runc", "crun", "busybox-static", "bsdutils", "iptables", "containernetworking-plugins", "python3"];

/// Checks that fail with Cofferdam, and why. One that passes fails this test: the list cannot grow stale.
const KNOWN: [(&str, &[&str], &str); 1] = [(
    "rootless",
    &["top"],
    "podman reads /proc in the mount namespace of the stand-in, where there is none (docs/CLIENTS.md)",
)];

const LIMIT: Duration = Duration::from_secs(400);

/// What each check came to, and all that was printed. `systemd`: the version of cgroups of the systemd that the script shall find.
fn checks(script: &Path, runtime: &Path, work: &Path, systemd: Option<u32>) -> (BTreeMap<String, bool>, String) {
    std::fs::create_dir_all(work).unwrap();
    let systemd = systemd.map(|version| Systemd::boot(work, version).unwrap());
    let mut command = Command::new("bash");
    command.arg(script);
    let mut command = systemd.as_ref().map(|systemd| systemd.command(&command)).unwrap_or(command);
    command.env("RUNTIME", runtime).env("WORK", work).current_dir("/");
    let mut output = run(command, LIMIT).unwrap().output;
    output.extend(systemd.map(|systemd| systemd.log()));
    let mut found = BTreeMap::new();
    for line in output.lines() {
        if let Some(name) = line.strip_prefix("ok ") {
            found.insert(name.to_owned(), true);
        } else if let Some((name, _)) = line.strip_prefix("not ok ").and_then(|l| l.split_once(':')) {
            found.insert(name.to_owned(), false);
        }
    }
    (found, output)
}

/// Lines of a file of the host's that name a folder.
fn naming(file: &str, folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().filter(|l| l.contains(&*folder.to_string_lossy())).map(str::to_owned).collect()
}

#[test]
fn clients_work_as_with_runc() {
    debian::install(&COMMON).unwrap();
    let install = Install::with_services("clients").unwrap();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    let only = std::env::var("CLIENT").unwrap_or_default();
    let (mut wrong, mut seen) = (Vec::new(), Vec::new());
    for (client, packages) in CLIENTS.iter().filter(|(c, _)| only.is_empty() || *c == only) {
        debian::install(packages).unwrap();
        let script = scripts.join(format!("{client}.sh"));
        let systemd = UNDER_SYSTEMD.iter().find(|(c, _)| c == client);
        let systemd = systemd.map(|(_, second)| if *second { 2 } else { systemd::with_limits() });
        let (control, told) = checks(&script, Path::new("/usr/sbin/runc"), &install.folder.join("runc"), systemd);
        assert!(control.len() > 3, "{client} with runc:\n{told}");
        let ours = install.folder.join("ours");
        let (ours, text) = checks(&script, &install.folder.join("bin/cofferdam"), &ours, systemd);
        let passed = |all: &BTreeMap<String, bool>| all.values().filter(|p| **p).count();
        println!(
            "{client:<12} runc {}/{}, cofferdam {}/{}",
            passed(&control),
            control.len(),
            passed(&ours),
            ours.len()
        );
        for (name, passed) in &control {
            let known = KNOWN.iter().any(|(c, names, _)| c == client && names.contains(&name.as_str()));
            let mine = ours.get(name).copied();
            seen.push((*client, name.clone()));
            if known == (mine == Some(true)) && (*passed || known) {
                wrong.push(format!("{client} {name}: {mine:?}, known to fail: {known}\n{text}"));
            }
        }
        for name in ["runc", "ours"] {
            let folder = install.folder.join(name);
            until("mounts to go", || naming("/proc/self/mounts", &folder).is_empty());
            std::fs::remove_dir_all(&folder).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    install.nothing_left().unwrap();
}
