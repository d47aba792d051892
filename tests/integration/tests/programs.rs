//! Real programs: every case of tests/programs/*.sh runs natively and in the sandbox, over the host's root and over a
//! Debian root file system, on each platform; output and status must be the same. Nothing is patched for it: the programs
//! are Debian's packages. `CASE=NAME`, `PLATFORM=NAME` and `ROOT=host|debian` run a part; without them all of it runs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test: what fails shall fail it")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cofferdam_integration::compare::{Run, differences, run};
use cofferdam_integration::debian;
use cofferdam_integration::install::{Install, need};

/// The sandbox's platforms.
const PLATFORMS: [&str; 2] = ["notify", "ptrace"];
/// What every case finds in its environment; the rest it sets itself.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// With the folder of the compiler that these tests were built with, for the case of `rustc`.
fn path() -> String {
    let cargo = std::env::var_os("CARGO").map(PathBuf::from).unwrap_or_default();
    format!("{PATH}:{}", cargo.parent().unwrap_or(Path::new("/usr/bin")).display())
}

/// Whoever runs the tests in the background of a shell has SIGINT ignored, and a native run would inherit that.
const SIGNALS: &str = "--default-signal";
/// A case natively takes seconds; a machine may be busy with much else.
const LIMIT: Duration = Duration::from_secs(240);

/// The cases of a folder: name and script, with the prelude before it.
fn cases(folder: &str) -> Vec<(String, String)> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let prelude = std::fs::read_to_string(tests.join("programs/prelude.sh")).unwrap();
    let folder = tests.join(folder);
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
    assert!(found.len() > 3, "the cases are gone from {}", folder.display());
    found
}

/// The case on the host's own kernel: as it is, or in a mount namespace whose root is a throw-away overlay of the rootfs,
/// which goes with the namespace. No chroot: from one, no user namespace can be made.
fn native(rootfs: Option<&Path>, name: &str, script: &str) -> Command {
    let path = path();
    let clean = ["-i", SIGNALS, &path, "bash", "-c", script, name];
    let Some(rootfs) = rootfs else {
        let mut command = Command::new("env");
        command.args(clean);
        return command;
    };
    let outer = "set -e; mount -t tmpfs tmpfs /mnt; mkdir /mnt/upper /mnt/work /mnt/root
        mount -t overlay overlay -o \"lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work\" /mnt/root
        mount -t proc proc /mnt/root/proc; mount --rbind /dev /mnt/root/dev; mount -t tmpfs shm /mnt/root/dev/shm
        cd /mnt/root; mkdir -p .old; pivot_root . .old; umount -l /.old; rmdir /.old; cd /; shift; exec env \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation=private"]);
    command.args(["sh", "-c", outer, "sh"]).arg(rootfs).args(clean);
    command
}

fn sandboxed(install: &Install, platform: &str, rootfs: Option<&Path>, name: &str, script: &str) -> Command {
    let mut command = install.command(&["--platform", platform, "do", "--network", "none", "--cwd", "/"]);
    if let Some(rootfs) = rootfs {
        command.arg("--rootfs").arg(rootfs);
    }
    command.args(["--", "env", "-i", SIGNALS, &path(), "bash", "-c", script, name]);
    command
}

fn told(run: &Run, of: &str) {
    println!("---- {of}");
    print!("{}", run.output);
}

/// One after the other: each needs the machine to itself.
static ALONE: Mutex<()> = Mutex::new(());

fn asked(variable: &str, value: &str) -> bool {
    std::env::var(variable).is_ok_and(|v| v != value)
}

/// Runs the cases of a folder over each root; fails if one differs.
fn compare(folder: &str, roots: &[(&str, Option<PathBuf>)]) {
    let install = Install::with_services(folder).unwrap();
    let mut failed = Vec::new();
    let mut table =
        format!("{:<18} {:<8} {:<7} {:>9} {:>10}  result\n", "case", "platform", "root", "native ms", "sandbox ms");
    for (name, script) in cases(folder) {
        if asked("CASE", &name) {
            continue;
        }
        for (root, rootfs) in roots.iter().filter(|(root, _)| !asked("ROOT", root)) {
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

#[test]
fn debian_programs_run_as_on_the_host() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    debian::install(&debian::PROGRAMS).unwrap();
    let mut roots: Vec<(&str, Option<PathBuf>)> = vec![("host", None)];
    if !asked("ROOT", "debian") {
        roots.push(("debian", Some(debian::rootfs().unwrap())));
    }
    compare("programs", &roots);
}

/// Large run-times and compilers, over the host's root only: node, java, Go, rustc, and apt-get with a package of one's own.
#[test]
fn languages_run_as_on_the_host() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (program, package) in [("node", "nodejs"), ("javac", "default-jdk-headless"), ("go", "golang-go")] {
        need(program, package).unwrap();
    }
    compare("languages", &[("host", None)]);
}
