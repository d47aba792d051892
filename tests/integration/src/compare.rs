//! One command run to its end, and what differs between two runs: what differential tests are made of.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How a command went.
#[derive(Debug)]
pub struct Run {
    /// stdout and stderr as they came, and the status as the last line.
    pub output: String,
    /// From start to end.
    pub time: Duration,
    /// Whether it ended with 0 within its time.
    pub success: bool,
}

/// The status in words.
pub fn status(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no status".into(),
    }
}

/// Runs it, with nothing to read and one pipe for stdout and stderr, to its end, or kills its process group at `limit`.
pub fn run(mut command: Command, limit: Duration) -> std::io::Result<Run> {
    let start = Instant::now();
    let (mut hear, voice) = std::io::pipe()?;
    command.process_group(0).stdin(Stdio::null()).stdout(voice.try_clone()?).stderr(voice);
    let mut child = command.spawn()?;
    // Its copies of the pipe's end would keep the pipe open.
    drop(command);
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        let late = told.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if let (true, Some(pid)) = (late, pid) {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
        late
    });
    let mut bytes = Vec::new();
    hear.read_to_end(&mut bytes)?;
    let ended = child.wait()?;
    drop(tell);
    let late = guard.join().unwrap_or(true);
    let mut output = String::from_utf8_lossy(&bytes).into_owned();
    if !output.is_empty() && !output.ends_with('\n') {
        output.push('\n');
    }
    output += &if late { format!("did not end within {limit:?}\n") } else { status(ended) + "\n" };
    Ok(Run { output, time: start.elapsed(), success: ended.success() && !late })
}

/// Lines that only one side has, in order, `-` and `+` before them: a longest common subsequence over lines.
pub fn differences(native: &str, sandbox: &str) -> Vec<String> {
    let (a, b): (Vec<&str>, Vec<&str>) = (native.lines().collect(), sandbox.lines().collect());
    let mut length = vec![vec![0u32; b.len() + 1]; a.len() + 1];
    let at = |length: &[Vec<u32>], i: usize, j: usize| length.get(i).and_then(|l| l.get(j)).copied().unwrap_or(0);
    for (i, x) in a.iter().enumerate().rev() {
        for (j, y) in b.iter().enumerate().rev() {
            let best =
                if x == y { at(&length, i + 1, j + 1) + 1 } else { at(&length, i + 1, j).max(at(&length, i, j + 1)) };
            if let Some(to) = length.get_mut(i).and_then(|l| l.get_mut(j)) {
                *to = best;
            }
        }
    }
    let (mut i, mut j, mut found) = (0, 0, Vec::new());
    loop {
        match (a.get(i), b.get(j)) {
            (None, None) => return found,
            (Some(x), Some(y)) if x == y => (i, j) = (i + 1, j + 1),
            (Some(x), y) if y.is_none() || at(&length, i + 1, j) >= at(&length, i, j + 1) => {
                found.push(format!("-{x}"));
                i += 1;
            }
            (_, y) => {
                found.push(format!("+{}", y.copied().unwrap_or_default()));
                j += 1;
            }
        }
    }
}
