//! System calls at random inside a sandbox (`tests/fuzzer/calls.c`), on each platform: the Sentry must neither die nor hang nor
//! keep what a round left behind, and everyday things must work after each round. `FUZZ_SECONDS` is for both platforms together (a
//! minute), `FUZZ_SEED` begins with another seed, `PLATFORM=NAME` takes one platform. `make fuzz-syscalls` runs ten minutes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test: what fails shall fail it")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cofferdam_integration::install::Install;

/// What the Sentry may come to hold, MiB: its own memory, that of the files in memory aside (`RssAnon`).
const MOST_MIB: u64 = 160;
/// Its descriptors and threads at the end: some more than at rest.
const MOST_DESCRIPTORS: usize = 64;
const MOST_THREADS: u64 = 64;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// A field of `/proc/PID/status`.
fn field(pid: i32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn fuzz(install: &Install, program: &Path, seeds: &Path, platform: &str, seconds: u64, seed: u64) {
    let log = install.folder.join(format!("log-{platform}"));
    let mut command = install.command(&["--platform", platform, "--log"]);
    command.arg(&log).arg("do").arg("--").arg(program);
    command.args([seconds.to_string(), seed.to_string()]).arg(seeds);
    let start = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut most, mut threads, mut descriptors) = (0, 0, 0);
    // A round may be under way at the end, and is swept.
    let limit = Duration::from_secs(seconds + 60);
    let ended = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if start.elapsed() > limit {
            break None;
        }
        let sentry = install.processes().into_iter().find(|(_, name)| name == "cofferdam-sentry");
        if let Some((pid, _)) = sentry {
            most = most.max(field(pid, "RssAnon") / 1024);
            threads = field(pid, "Threads");
            descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        }
        std::thread::sleep(Duration::from_millis(500));
    };
    let what = format!("platform {platform}, FUZZ_SEED={seed}, FUZZ_SECONDS={seconds}");
    if ended.is_none() {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    println!("{platform}: {} (Sentry: {most} MiB, {threads} threads, {descriptors} descriptors)", said.trim());
    let log = std::fs::read_to_string(&log).unwrap_or_default();
    let tail: Vec<&str> = log.lines().rev().take(20).collect();
    assert!(ended.is_some_and(|s| s.success()), "{what}: {ended:?}: {said}\n{tail:#?}");
    let faults: Vec<&str> = log.lines().filter(|l| l.contains("panic") || l.contains("level=error")).collect();
    assert!(faults.is_empty(), "{what}: {faults:#?}");
    assert!(most < MOST_MIB, "{what}: the Sentry came to {most} MiB");
    assert!(threads < MOST_THREADS && descriptors < MOST_DESCRIPTORS, "{what}: {threads} threads, {descriptors} fds");
}

#[test]
fn calls_at_random_leave_the_kernel_as_it_was() {
    let sources = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzzer"));
    let install = Install::with_services("fuzz-calls").unwrap();
    let program = install.folder.join("fuzz_calls");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"]).arg(&program).arg(sources.join("calls.c"));
    let built = gcc.output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let seeds = install.folder.join("seeds");
    std::fs::copy(sources.join("seeds"), &seeds).unwrap();
    let only = std::env::var("PLATFORM").ok();
    let platforms: Vec<&str> =
        ["notify", "ptrace"].into_iter().filter(|p| only.as_deref().is_none_or(|o| o == *p)).collect();
    let each = setting("FUZZ_SECONDS", 60) / platforms.len() as u64;
    let seed = setting("FUZZ_SEED", 1);
    for platform in platforms {
        fuzz(&install, &program, &seeds, platform, each, seed);
    }
    install.note();
    install.nothing_left().unwrap();
}
