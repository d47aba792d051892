//! Real programs: every case of tests/programs/*.sh runs natively and in the sandbox, over the host's root and over a
//! Debian root file system, on each platform; output and status must be the same. Nothing is patched for it: the programs
//! are Debian's packages. `CASE=NAME`, `PLATFORM=NAME` and `ROOT=host|debian` run a part; without them all of it runs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test: what fails shall fail it")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cofferdam_integration::compare::{Run, differences, run};
use cofferdam_integration::debian;
use cofferdam_integration::install::Install;

/// The sandbox's platforms.
const PLATFORMS: [&str; 2] = ["notify", "ptrace"];
/// What every case finds in its environment; the rest it sets itself.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Whoever runs the tests in the background of a shell has SIGINT ignored, and a native run would inherit that.
const SIGNALS: &str = "--default-signal";
/// A case natively takes seconds; a machine may be busy with much else.
const LIMIT: Duration = Duration::from_secs(240);

/// A case: its name and its script with the prelude before it.
fn cases() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs");
    let prelude = std::fs::read_to_string(folder.join("prelude.sh")).unwrap();
    let mut found: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "sh") && !p.ends_with("prelude.sh"))
        .map(|p| {
            let name = p.file_stem().unwrap().to_string_lossy().into_owned();
            (name, format!("{prelude}\n{}", std::fs::read_to_string(&p).unwrap()))
        })
        .collect();
    found.sort();
    assert!(found.len() > 10, "the cases are gone from {}", folder.display());
    found
}

/// The case on the host's own kernel: as it is, or in a mount namespace whose root is a throw-away overlay of the rootfs,
/// which goes with the namespace.
fn native(rootfs: Option<&Path>, name: &str, script: &str) -> Command {
    let clean = ["-i", SIGNALS, PATH, "bash", "-c", script, name];
    let Some(rootfs) = rootfs else {
        let mut command = Command::new("env");
        command.args(clean);
        return command;
    };
    let outer = "set -e; mount -t tmpfs tmpfs /mnt; mkdir /mnt/upper /mnt/work /mnt/root
        mount -t overlay overlay -o \"lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work\" /mnt/root
        mount -t proc proc /mnt/root/proc; mount --rbind /dev /mnt/root/dev; mount -t tmpfs shm /mnt/root/dev/shm
        shift; exec chroot /mnt/root env \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation=private"]);
    command.args(["sh", "-c", outer, "sh"]).arg(rootfs).args(clean);
    command
}

fn sandboxed(install: &Install, platform: &str, rootfs: Option<&Path>, name: &str, script: &str) -> Command {
    let mut command = install.command(&["--platform", platform, "do", "--cwd", "/"]);
    if let Some(rootfs) = rootfs {
        command.arg("--rootfs").arg(rootfs);
    }
    command.args(["--", "env", "-i", SIGNALS, PATH, "bash", "-c", script, name]);
    command
}

fn told(run: &Run, of: &str) {
    println!("---- {of}");
    print!("{}", run.output);
}

#[test]
fn debian_programs_run_as_on_the_host() {
    debian::install(&debian::PROGRAMS).unwrap();
    let install = Install::with_services("programs").unwrap();
    let asked = |variable: &str, value: &str| std::env::var(variable).is_ok_and(|v| v != value);
    let mut roots: Vec<(&str, Option<PathBuf>)> = vec![("host", None)];
    if !asked("ROOT", "debian") {
        roots.push(("debian", Some(debian::rootfs().unwrap())));
    }
    roots.retain(|(name, _)| !asked("ROOT", name));
    let mut failed = Vec::new();
    let mut table =
        format!("{:<18} {:<8} {:<7} {:>9} {:>10}  result\n", "case", "platform", "root", "native ms", "sandbox ms");
    for (name, script) in cases() {
        if asked("CASE", &name) {
            continue;
        }
        for (root, rootfs) in &roots {
            let reference = run(native(rootfs.as_deref(), &name, &script), LIMIT).unwrap();
            if !reference.success {
                told(&reference, &format!("{name} natively over {root}"));
                panic!("{name} fails natively over {root}: the case is wrong");
            }
            for platform in PLATFORMS.iter().filter(|p| !asked("PLATFORM", p)) {
                let boxed = run(sandboxed(&install, platform, rootfs.as_deref(), &name, &script), LIMIT).unwrap();
                let differ = differences(&reference.output, &boxed.output);
                let result = if differ.is_empty() { "same" } else { "DIFFERS" };
                let (before, after) = (reference.time.as_millis(), boxed.time.as_millis());
                table += &format!("{name:<18} {platform:<8} {root:<7} {before:>9} {after:>10}  {result}\n");
                if !differ.is_empty() {
                    println!("---- {name} on {platform} over {root}: - native, + sandbox");
                    differ.iter().for_each(|d| println!("{d}"));
                    failed.push(format!("{name} on {platform} over {root}"));
                }
            }
        }
    }
    println!("{table}");
    install.nothing_left().unwrap();
    assert!(failed.is_empty(), "differs from a native run: {failed:?}");
}
