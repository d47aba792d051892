//! Differential tests: every program of tests/guest is compiled and run natively and in the sandbox on each platform, each
//! time in an empty directory of its own; output and status must be the same. A difference that is known stands with its
//! reason in tests/guest/EXPECTED-DEVIATIONS; a line there that differs on no platform fails too, so the file cannot grow
//! stale. `GUEST=NAME` runs one program, `PLATFORM=NAME` one platform.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test: what fails shall fail it")]

use std::collections::HashSet;
use std::fmt::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cofferdam_integration::install::built;

/// The sandbox's platforms, both of which must behave as Linux does.
const PLATFORMS: [&str; 2] = ["notify", "ptrace"];

/// How long a program may run before it counts as hanging; each ends itself by an alarm before.
const LIMIT: Duration = Duration::from_secs(90);

struct Run {
    output: String,
    time: Duration,
}

fn status(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no status".into(),
    }
}

/// Runs to the end or to the limit; the last line of the output is the status.
fn run(mut command: Command, folder: &Path) -> Run {
    std::fs::create_dir_all(folder).unwrap();
    let start = Instant::now();
    // A pipe, not a file: a program that limits the size of files still speaks.
    let mut child =
        command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        if told.recv_timeout(LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    });
    let mut errors = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || std::io::read_to_string(&mut errors));
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(child.stdout.as_mut().unwrap(), &mut bytes).unwrap();
    let ended = child.wait().unwrap();
    drop(tell);
    guard.join().unwrap();
    let mut output = String::from_utf8_lossy(&bytes).into_owned();
    output += &errors.join().unwrap().unwrap_or_default();
    writeln!(output, "{}", status(ended)).unwrap();
    Run { output, time: start.elapsed() }
}

/// Lines that only one side has, in order: a longest common subsequence over lines.
fn differences(native: &str, sandbox: &str) -> Vec<String> {
    let a: Vec<&str> = native.lines().collect();
    let b: Vec<&str> = sandbox.lines().collect();
    let mut length = vec![vec![0u32; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            length[i][j] = if a[i] == b[j] { length[i + 1][j + 1] + 1 } else { length[i + 1][j].max(length[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut found) = (0, 0, Vec::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            (i, j) = (i + 1, j + 1);
        } else if i < a.len() && (j == b.len() || length[i + 1][j] >= length[i][j + 1]) {
            found.push(format!("-{}", a[i]));
            i += 1;
        } else {
            found.push(format!("+{}", b[j]));
            j += 1;
        }
    }
    found
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

fn compile(source: &Path, program: &Path) {
    let compiled = Command::new("gcc")
        .args(["-O1", "-w", "-o"])
        .arg(program)
        .arg(source)
        .args(["-lpthread", "-lm", "-lutil"])
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}: {}", source.display(), String::from_utf8_lossy(&compiled.stderr));
}

fn compare(source: &Path, scratch: &Path, platforms: &[&str], known: &[(String, String, String)]) -> Compared {
    let name = source.file_stem().unwrap().to_str().unwrap().to_owned();
    let program = scratch.join(&name);
    compile(source, &program);
    let native = run(Command::new(&program), &scratch.join("native").join(&name));
    let mut c = Compared { name, table: String::new(), report: String::new(), failed: false, seen: Vec::new() };
    for platform in platforms {
        let mut command = Command::new(built().join("cofferdam"));
        command.arg("--root").arg(scratch.join("root")).args(["--platform", platform, "do", "--"]).arg(&program);
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
            done.push(compare(source, &scratch, &platforms, &known));
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
