//! Differential tests: every program of tests/guest is compiled and run natively and in the sandbox on each platform, each
//! time in an empty directory of its own; output and status must be the same. A difference that is known stands with its
//! reason in tests/guest/EXPECTED-DEVIATIONS; a line there that differs on no platform fails too, so the file cannot grow
//! stale. `GUEST=NAME` runs one program, `PLATFORM=NAME` one platform.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test: what fails shall fail it")]

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cofferdam_integration::compare::{self, Run, differences};
use cofferdam_integration::install::built;

/// The sandbox's platforms, both of which must behave as Linux does.
const PLATFORMS: [&str; 2] = ["notify", "ptrace"];

/// Programs that mount or make namespaces: natively in a mount namespace of their own, so that the host's tree stays as it is, and in a container
/// with the right to mount, which that of `do` has not. Both in a directory that is their own.
const MOUNTS: [&str; 10] =
    ["devpts", "mount_api", "mount_stat", "mounts", "ns_misc", "ns_mount", "ns_pid", "ns_user", "overlay", "unmounted"];

/// What the root of a container that mounts may do.
const RIGHTS: [&str; 12] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_SYS_CHROOT",
    "CAP_SYS_ADMIN",
    "CAP_MKNOD",
    "CAP_SETFCAP",
];

/// How long a program may run before it counts as hanging; each ends itself by an alarm before.
const LIMIT: Duration = Duration::from_secs(90);

/// Runs it in an empty directory of its own.
fn run(mut command: Command, folder: &Path) -> Run {
    std::fs::create_dir_all(folder).unwrap();
    command.current_dir(folder);
    compare::run(command, LIMIT).unwrap()
}

/// `PROGRAM | DIFFERENCE | REASON` a line: the difference as the table shows it.
fn expected(file: &Path) -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut lines = Vec::new();
    for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let parts: Vec<&str> = line.split(" | ").collect();
        let [program, difference, reason] = parts[..] else { panic!("not PROGRAM | DIFFERENCE | REASON: {line}") };
        assert!(!reason.trim().is_empty(), "no reason: {line}");
        lines.push((program.to_owned(), difference.to_owned(), reason.to_owned()));
    }
    lines
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    found.retain(|p| p.extension().is_some_and(|e| e == "c"));
    found.sort();
    found
}

/// What one program came to.
struct Compared {
    name: String,
    /// Lines for the table.
    table: String,
    /// Differences that nothing explains, and what is known about others.
    report: String,
    failed: bool,
    /// Known deviations that were seen, by their place in the list.
    seen: Vec<usize>,
}

/// A bundle of one program, with the right to mount; the command that runs it.
fn container(program: &Path, scratch: &Path, platform: &str) -> Command {
    let name = program.file_name().unwrap().to_str().unwrap();
    // One each: two run at a time, and what a program leaves in its root is no other's.
    let bundle = scratch.join(format!("bundle-{name}-{platform}"));
    let root = bundle.join("rootfs");
    std::fs::create_dir_all(root.join("proc")).unwrap();
    std::fs::copy(program, root.join(name)).unwrap();
    let config = serde_json::json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": [format!("/{name}")],
            "env": [],
            "cwd": "/",
            "capabilities": { "bounding": RIGHTS, "effective": RIGHTS, "permitted": RIGHTS },
        },
        "root": { "path": "rootfs" },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": { "namespaces": [{ "type": "pid" }, { "type": "mount" }] },
    });
    std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    let mut command = Command::new(built().join("cofferdam"));
    // Warnings are nothing that the program says.
    command.arg("--root").arg(scratch.join("root")).arg("--log").arg(scratch.join("log"));
    command.args(["--platform", platform, "run", "--bundle"]);
    command.arg(&bundle).arg(format!("{name}-{platform}"));
    command
}

fn compile(source: &Path, program: &Path, alone: bool) {
    let compiled = Command::new("gcc")
        .args(["-O1", "-w"])
        .args(alone.then_some("-static"))
        .arg("-o")
        .arg(program)
        .arg(source)
        .args(["-lpthread", "-lm", "-lutil"])
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}: {}", source.display(), String::from_utf8_lossy(&compiled.stderr));
}

fn compared(source: &Path, scratch: &Path, platforms: &[&str], known: &[(String, String, String)]) -> Compared {
    let name = source.file_stem().unwrap().to_str().unwrap().to_owned();
    let program = scratch.join(&name);
    let mounts = MOUNTS.contains(&name.as_str());
    compile(source, &program, mounts);
    let mut command = Command::new(if mounts { Path::new("unshare") } else { &program });
    if mounts {
        command.args(["--mount", "--propagation", "private"]).arg(&program);
    }
    let native = run(command, &scratch.join("native").join(&name));
    let mut c = Compared { name, table: String::new(), report: String::new(), failed: false, seen: Vec::new() };
    for platform in platforms {
        let command = if mounts {
            container(&program, scratch, platform)
        } else {
            let mut command = Command::new(built().join("cofferdam"));
            command.arg("--root").arg(scratch.join("root")).args(["--platform", platform, "do", "--"]).arg(&program);
            command
        };
        let sandbox = run(command, &scratch.join(platform).join(&c.name));
        let found = differences(&native.output, &sandbox.output);
        let place = |d: &String| known.iter().position(|(p, k, _)| *p == c.name && k == d);
        let (old, new): (Vec<_>, Vec<_>) = found.iter().partition(|d| place(d).is_some());
        writeln!(
            c.table,
            "{:<14} {platform:<7} {:>5} lines {:>5} differ {:>3} known  native {:>6} ms  sandbox {:>6} ms",
            c.name,
            native.output.lines().count(),
            new.len(),
            old.len(),
            native.time.as_millis(),
            sandbox.time.as_millis()
        )
        .unwrap();
        for at in old.into_iter().filter_map(place) {
            let (_, difference, reason) = &known[at];
            writeln!(c.report, "{} on {platform}: known {difference}: {reason}", c.name).unwrap();
            c.seen.push(at);
        }
        if !new.is_empty() {
            writeln!(c.report, "== {} on {platform}: - native, + sandbox", c.name).unwrap();
            new.iter().for_each(|d| writeln!(c.report, "{d}").unwrap());
            c.failed = true;
        }
    }
    c
}

#[test]
fn guests_behave_as_on_linux() {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest");
    let scratch = std::env::temp_dir().join(format!("cofferdam-guest-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&scratch);
    std::fs::create_dir_all(&scratch).unwrap();
    let known = expected(&guests.join("EXPECTED-DEVIATIONS"));
    let only = |name: &str| std::env::var(name).ok();
    let (program, platform) = (only("GUEST"), only("PLATFORM"));
    let platforms: Vec<&str> = PLATFORMS.iter().copied().filter(|p| platform.as_ref().is_none_or(|o| o == p)).collect();
    let mut list = sources(&guests);
    list.retain(|s| program.as_ref().is_none_or(|o| s.file_stem().unwrap().to_str() == Some(o)));
    assert!(!list.is_empty() && !platforms.is_empty(), "nothing to run");
    // Two at a time: most of a program's time is sleep.
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(source) = list.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push(compared(source, &scratch, &platforms, &known));
        }
        done
    };
    let mut done = std::thread::scope(|s| {
        let other = s.spawn(work);
        let mut done = work();
        done.extend(other.join().unwrap());
        done
    });
    done.sort_by(|a, b| a.name.cmp(&b.name));
    done.iter().for_each(|c| print!("{}", c.report));
    done.iter().for_each(|c| print!("{}", c.table));
    let seen: HashSet<usize> = done.iter().flat_map(|c| c.seen.iter().copied()).collect();
    let stale: Vec<_> = known.iter().enumerate().filter(|(i, _)| !seen.contains(i)).map(|(_, k)| k).collect();
    let failed: Vec<_> = done.iter().filter(|c| c.failed).map(|c| &c.name).collect();
    let _ = std::fs::remove_dir_all(&scratch);
    assert!(failed.is_empty(), "differs from Linux: {failed:?}");
    let all = program.is_none() && platform.is_none();
    assert!(!all || stale.is_empty(), "no deviation any more: {stale:?}");
}
