//! Differential tests: every program of tests/guest is compiled and run natively and in the sandbox, each time in an
//! empty directory of its own; output and status must be the same. A difference that is known stands with its reason in
//! tests/guest/EXPECTED-DEVIATIONS; a line there that no longer differs fails too, so the file cannot grow stale.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test: what fails shall fail it")]

use std::collections::HashSet;
use std::fmt::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use cofferdam_integration::install::built;

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

#[test]
fn guests_behave_as_on_linux() {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest");
    let scratch = std::env::temp_dir().join(format!("cofferdam-guest-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&scratch);
    std::fs::create_dir_all(&scratch).unwrap();
    let known = expected(&guests.join("EXPECTED-DEVIATIONS"));
    let waiting = std::fs::read_to_string(guests.join("NOT-YET")).unwrap();
    let waiting: Vec<(&str, &str)> = waiting.lines().filter_map(|l| l.split_once(" | ")).collect();
    let only = std::env::var("GUEST").ok();
    let (mut table, mut failed) = (String::new(), Vec::new());
    let mut seen = HashSet::new();
    for source in sources(&guests) {
        let name = source.file_stem().unwrap().to_str().unwrap().to_owned();
        if only.as_ref().is_some_and(|o| *o != name) {
            continue;
        }
        // Programs that are ahead of the Sentry: named with what is missing, never counted as passed.
        if only.is_none()
            && let Some((_, why)) = waiting.iter().find(|(program, _)| *program == name)
        {
            writeln!(table, "{name:<14} NOT COMPARED YET: {why}").unwrap();
            continue;
        }
        let program = scratch.join(&name);
        let compiled = Command::new("gcc")
            .args(["-O1", "-w", "-o"])
            .arg(&program)
            .arg(&source)
            .args(["-lpthread", "-lm", "-lutil"])
            .output()
            .unwrap();
        assert!(compiled.status.success(), "{name}: {}", String::from_utf8_lossy(&compiled.stderr));
        let native = run(Command::new(&program), &scratch.join("native").join(&name));
        let mut command = Command::new(built().join("cofferdam"));
        command.arg("--root").arg(scratch.join("root")).args(["do", "--"]).arg(&program);
        let sandbox = run(command, &scratch.join("sandbox").join(&name));
        let found = differences(&native.output, &sandbox.output);
        let reason = |d: &String| known.iter().position(|(p, k, _)| *p == name && k == d);
        let (old, new): (Vec<_>, Vec<_>) = found.iter().partition(|d| reason(d).is_some());
        seen.extend(old.iter().filter_map(|d| reason(d)));
        let lines = native.output.lines().count();
        writeln!(
            table,
            "{name:<14} {lines:>5} lines {:>5} differ {:>3} known  native {:>6} ms  sandbox {:>6} ms",
            new.len(),
            old.len(),
            native.time.as_millis(),
            sandbox.time.as_millis()
        )
        .unwrap();
        for d in old {
            let (_, _, reason) = &known[known.iter().position(|(p, k, _)| *p == name && k == d).unwrap()];
            println!("{name}: known {d}: {reason}");
        }
        if !new.is_empty() {
            println!("== {name}: - native, + sandbox");
            new.iter().for_each(|d| println!("{d}"));
            failed.push(name);
        }
    }
    println!("{table}");
    let stale: Vec<_> = known.iter().enumerate().filter(|(i, _)| !seen.contains(i)).map(|(_, k)| k).collect();
    let _ = std::fs::remove_dir_all(&scratch);
    assert!(failed.is_empty(), "differs from Linux: {failed:?}");
    assert!(only.is_some() || stale.is_empty(), "no deviation any more: {stale:?}");
}
