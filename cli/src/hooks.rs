//! Hooks of a container (`hooks` of its document), run by the command line with its caller's rights, never by the supervisor.
//!
//! What there is to run is read from the container's record, as the supervisor accepted it. `createContainer` runs where
//! `createRuntime` does: a sandbox has no namespaces on the host that a hook could be run in (docs/OCI.md). `startContainer` runs
//! inside, as a process of `exec`.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cofferdam_control::client::{Request, Status};
use cofferdam_control::sentry::FailureKind;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::document;
use crate::failure::{Failure, Report};

/// Those of the time when a container has been made, in their order.
pub const CREATE: &[&str] = &["prestart", "createRuntime", "createContainer"];
/// The most that is told of what a hook writes.
const WORDS: u64 = 64 << 10;
/// For how long others may still hold the output of a hook that has ended.
const ECHO: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct Hook {
    path: String,
    #[serde(default)]
    args: Vec<String>,
    env: Option<Vec<String>>,
    timeout: Option<u64>,
}

/// What is kept of a container, before it is gone.
pub struct Hooks {
    root: PathBuf,
    id: String,
    record: Value,
}

impl Hooks {
    /// Those of a container.
    pub fn of(root: &Path, id: &str) -> Self {
        let text = std::fs::read(root.join(id).join("state.json")).unwrap_or_default();
        let record = serde_json::from_slice(&text).unwrap_or_default();
        Self { root: root.to_owned(), id: id.to_owned(), record }
    }

    /// Runs those inside, right before the process starts. One that fails ends the container.
    pub fn inside(&self, connection: &Connection, pid: u32) -> Result<(), Failure> {
        let failed = self.run(&["startContainer"], Status::Created, pid);
        if failed.is_err() {
            let kill = Request::Kill { id: self.id.clone(), process: 0, signal: 9, all: true };
            let _ = connection.ask(&kill);
        }
        failed
    }

    /// The command that runs a hook inside: an `exec` of it, as whom and where the container's process will be.
    fn exec(&self, hook: &Hook) -> Result<(Command, OwnedFd), String> {
        let failed = |e: &dyn std::fmt::Display| format!("error running hook: {e}");
        let bundle = self.record.get("bundle").and_then(Value::as_str).unwrap_or_default();
        let document = document::read_object(&Path::new(bundle).join("config.json"));
        let mut process = document.map_err(|e| failed(&e))?["process"].take();
        process["terminal"] = false.into();
        process["args"] = std::iter::once(&hook.path).chain(hook.args.iter().skip(1)).cloned().collect();
        if let Some(env) = &hook.env {
            process["env"] = env.clone().into();
        }
        // Inherited on purpose.
        let file = rustix::fs::memfd_create(c"process", rustix::fs::MemfdFlags::empty()).map_err(|e| failed(&e))?;
        std::fs::File::from(file.try_clone().map_err(|e| failed(&e))?)
            .write_all(process.to_string().as_bytes())
            .map_err(|e| failed(&e))?;
        let mut command = Command::new("/proc/self/exe");
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        command.arg("--root").arg(&self.root).args(["exec", "--end-as-it", "--process", &path, &self.id]);
        Ok((command, file))
    }

    /// Runs those of these times; the first that fails is the last. `pid`: of the container's process to the world.
    pub fn run(&self, times: &[&str], status: Status, pid: u32) -> Result<(), Failure> {
        for time in times {
            for (n, hook) in self.list(time)?.iter().enumerate() {
                self.run_one(time, hook, status, pid).map_err(|e| refused(format!("error running hook #{n}: {e}")))?;
            }
        }
        Ok(())
    }

    /// Runs all of a time at which nothing can be stopped any more; failures are told.
    pub fn run_all(&self, time: &str, status: Status, pid: u32, report: &Report) {
        match self.list(time) {
            Ok(list) => {
                for (n, hook) in list.iter().enumerate() {
                    if let Err(e) = self.run_one(time, hook, status, pid) {
                        report.warning(&format!("error running {time} hook #{n}: {e}"));
                    }
                }
            }
            Err(e) => report.warning(&e.to_string()),
        }
    }

    fn list(&self, time: &str) -> Result<Vec<Hook>, Failure> {
        match self.record.pointer(&format!("/hooks/{time}")) {
            None => Ok(Vec::new()),
            Some(list) => Vec::deserialize(list).map_err(|e| refused(format!("hooks.{time}: {e}"))),
        }
    }

    fn state(&self, status: Status, pid: u32) -> Value {
        let kept = |key: &str| self.record.get(key).cloned().unwrap_or_default();
        let mut state = json!({
            "ociVersion": kept("ociVersion"),
            "id": kept("id"),
            "status": status.word(),
            "bundle": kept("bundle"),
        });
        if pid != 0 {
            state["pid"] = pid.into();
        }
        if kept("annotations").as_object().is_some_and(|a| !a.is_empty()) {
            state["annotations"] = kept("annotations");
        }
        state
    }

    fn run_one(&self, time: &str, hook: &Hook, status: Status, pid: u32) -> Result<(), String> {
        let (mut command, document) = if time == "startContainer" {
            self.exec(hook).map(|(command, document)| (command, Some(document)))?
        } else {
            let mut command = Command::new(&hook.path);
            if let Some((name, rest)) = hook.args.split_first() {
                command.arg0(name).args(rest);
            }
            if let Some(env) = &hook.env {
                command.env_clear().envs(env.iter().filter_map(|e| e.split_once('=')));
            }
            (command, None)
        };
        // As with runc, whose init is in the root by then.
        let place = if time == "createContainer" { "rootfs" } else { "bundle" };
        if let Some(place) = self.record.get(place).and_then(Value::as_str) {
            command.current_dir(place);
        }
        // A group of its own, which ends with it if it must be ended.
        let started =
            command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = started.map_err(|e| format!("fork/exec {}: {}", hook.path, plain(&e)))?;
        drop(document);
        let (out, err) = (words(child.stdout.take()), words(child.stderr.take()));
        // One that does not read its state is not waited for to do so.
        if let Some(mut to) = child.stdin.take() {
            let state = self.state(status, pid).to_string();
            std::thread::spawn(move || to.write_all(state.as_bytes()));
        }
        let ended = wait(&mut child, hook.timeout)?;
        if ended.success() {
            return Ok(());
        }
        let how = match (ended.code(), ended.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, signal) => format!("signal: {}", words_of(signal.unwrap_or(0))),
        };
        let told = |from: mpsc::Receiver<Vec<u8>>| {
            String::from_utf8_lossy(&from.recv_timeout(ECHO).unwrap_or_default()).into_owned()
        };
        Err(format!("error running hook: {how}, stdout: {}, stderr: {}", told(out), told(err)))
    }
}

fn refused(message: String) -> Failure {
    Failure::Refused { kind: FailureKind::Host, message }
}

fn plain(e: &std::io::Error) -> String {
    match e.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => e.to_string(),
    }
}

/// What somebody writes, up to so much; the rest is read and forgotten, so that nobody is stuck.
fn words(from: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (to, told) = mpsc::channel();
    if let Some(mut from) = from {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = (&mut from).take(WORDS).read_to_end(&mut text);
            let _ = std::io::copy(&mut from, &mut std::io::sink());
            to.send(text)
        });
    }
    told
}

fn wait(child: &mut Child, timeout: Option<u64>) -> Result<ExitStatus, String> {
    let failed = |e: std::io::Error| format!("error running hook: {e}");
    let Some(seconds) = timeout else { return child.wait().map_err(failed) };
    let end = Instant::now().checked_add(Duration::from_secs(seconds));
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(status);
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            let _ = child.wait();
            return Err(format!("hook ran past specified timeout of {seconds}.0s"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A signal's name as Go says it, in whose words clients know failed hooks.
fn words_of(signal: i32) -> String {
    const WORDS: [&str; 31] = [
        "hangup",
        "interrupt",
        "quit",
        "illegal instruction",
        "trace/breakpoint trap",
        "aborted",
        "bus error",
        "floating point exception",
        "killed",
        "user defined signal 1",
        "segmentation fault",
        "user defined signal 2",
        "broken pipe",
        "alarm clock",
        "terminated",
        "stack fault",
        "child exited",
        "continued",
        "stopped (signal)",
        "stopped",
        "stopped (tty input)",
        "stopped (tty output)",
        "urgent I/O condition",
        "CPU time limit exceeded",
        "file size limit exceeded",
        "virtual timer expired",
        "profiling timer expired",
        "window changed",
        "I/O possible",
        "power failure",
        "bad system call",
    ];
    let word = usize::try_from(signal).ok().and_then(|n| WORDS.get(n.checked_sub(1)?));
    word.map_or_else(|| format!("signal {signal}"), |w| (*w).to_owned())
}
