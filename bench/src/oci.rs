//! What an OCI client waits for: containers made, started, executed into and deleted by each runtime's own commands, clients that use it,
//! and the memory of one container more in a pod. Each runtime gets the same documents; runc is the measure.

use std::io::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions};
use serde_json::{Value, json};

use crate::{Results, TIMES, median, rest, runtimes, succeeds, timed};

/// Started at once.
const AT_ONCE: usize = 20;
/// Further containers of the pod whose memory is measured.
const FURTHER: usize = 5;

/// An OCI runtime: its column, and its program. The one that the others are compared with comes first.
pub fn runtimes(bin: &Path) -> Vec<(&'static str, PathBuf)> {
    let mut all = vec![("runc", PathBuf::from("runc")), ("cofferdam", bin.join("cofferdam")), ("crun", "crun".into())];
    all.retain(|(name, program)| runtimes::installed(name, program));
    all
}

/// One runtime with its state, and the bundles for it.
struct Oci<'a> {
    program: &'a Path,
    /// Everything of it is below this.
    folder: PathBuf,
    rootfs: PathBuf,
    null: PathBuf,
}

impl Oci<'_> {
    fn command(&self, words: &[&str]) -> std::io::Result<Command> {
        let mut command = Command::new(self.program);
        let null = || std::fs::File::options().read(true).write(true).open(&self.null);
        command.arg("--root").arg(self.folder.join("state")).args(words);
        command.stdin(null()?).stdout(null()?).stderr(null()?);
        Ok(command)
    }

    fn must(&self, words: &[&str]) -> std::io::Result<()> {
        succeeds(&mut self.command(words)?)
    }

    /// A bundle over the host's root, which is bound to `rootfs`.
    fn bundle(&self, name: &str, words: &[&str], annotations: Value) -> std::io::Result<String> {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder)?;
        runtimes::bundle("runc", &folder, words, |spec| {
            spec["root"]["path"] = self.rootfs.display().to_string().into();
            spec["annotations"] = annotations;
        })?;
        Ok(folder.display().to_string())
    }

    /// Made, started, waited for as its parent that we are as a subreaper, and deleted.
    fn whole_life(&self, bundle: &str) -> std::io::Result<()> {
        let file = self.folder.join("pid");
        self.must(&["create", "--bundle", bundle, "--pid-file", &file.display().to_string(), "life"])?;
        self.must(&["start", "life"])?;
        let pid = std::fs::read_to_string(&file)?.trim().parse().ok().and_then(Pid::from_raw);
        rustix::process::waitpid(pid, WaitOptions::empty())?;
        self.must(&["delete", "life"])
    }

    /// Seconds until all that are started at once run.
    fn at_once(&self, bundle: &str) -> std::io::Result<f64> {
        let names: Vec<String> = (0..AT_ONCE).map(|n| format!("many{n}")).collect();
        let begun = Instant::now();
        let started: Vec<_> = names
            .iter()
            .map(|name| self.command(&["run", "--detach", "--bundle", bundle, name]).and_then(|mut c| c.spawn()))
            .collect();
        let mut failed = 0;
        for child in started {
            failed += usize::from(!child?.wait()?.success());
        }
        let seconds = begun.elapsed().as_secs_f64();
        for name in &names {
            let _ = self.must(&["delete", "--force", name]);
        }
        if failed == 0 { Ok(seconds) } else { Err(Error::other(format!("{failed} of {AT_ONCE} did not start"))) }
    }

    /// Bytes of PSS that one container more takes in a pod of containerd's that has one already.
    fn in_a_pod(&self) -> std::io::Result<f64> {
        let kind = |kind| json!({ "io.kubernetes.cri.container-type": kind, "io.kubernetes.cri.sandbox-id": "pod" });
        let run = |name: &str, annotations| {
            self.must(&["run", "--detach", "--bundle", &self.bundle(name, &["sleep", "1000"], annotations)?, name])
        };
        run("pod", kind("sandbox"))?;
        let mut names = vec!["pod".to_owned()];
        std::thread::sleep(Duration::from_secs(2));
        let before = rest::pss();
        let mut outcome = Ok(());
        for n in 0..FURTHER {
            names.push(format!("further{n}"));
            outcome = outcome.and_then(|()| run(&format!("further{n}"), kind("container")));
        }
        std::thread::sleep(Duration::from_secs(2));
        let after = rest::pss();
        for name in names.iter().rev() {
            let _ = self.must(&["delete", "--force", name]);
        }
        outcome.map(|()| (after - before) / FURTHER as f64)
    }
}

/// Puts all rows of one runtime. What fails is said, and its row says so, too.
pub fn measure(results: &mut Results, name: &'static str, program: &Path, scratch: &Path) {
    eprintln!("bench: {name} oci ...");
    let folder = scratch.join(format!("oci-{name}"));
    let oci = Oci { program, folder, rootfs: scratch.join("bundle/rootfs"), null: scratch.join("null") };
    let mut row = |row: &str, value: std::io::Result<f64>| match value {
        Ok(value) => results.put(row, name, value),
        Err(e) => eprintln!("bench: {name}: {row}: {e}"),
    };
    let life = oci.bundle("life", &["true"], Value::Null);
    row("create, start, end, delete of true", life.and_then(|b| timed(|| oci.whole_life(&b))));
    let stays = oci.bundle("stays", &["sleep", "1000"], Value::Null);
    let exec = stays.and_then(|bundle| {
        oci.must(&["run", "--detach", "--bundle", &bundle, "stays"])?;
        let ns = timed(|| oci.must(&["exec", "stays", "true"]));
        oci.must(&["delete", "--force", "stays"])?;
        ns
    });
    row("exec of true into a running container", exec);
    let many = oci.bundle("many", &["sleep", "1000"], Value::Null);
    let rounds = || -> std::io::Result<f64> {
        let bundle = many?;
        let seconds = (0..3).map(|_| oci.at_once(&bundle)).collect::<Result<Vec<_>, _>>()?;
        median(seconds).map(|s| s * 1e9).ok_or_else(|| Error::other("nothing measured"))
    };
    row(&format!("{AT_ONCE} containers started at once"), rounds());
    row("PSS of one container more in a pod", oci.in_a_pod());
    clients(results, name, &oci);
    // What is left is ours: nobody else has processes below us.
    for pid in rest::descendants() {
        rest::end(pid, Signal::KILL);
    }
}

/// podman and containerd with this runtime: `workloads/clients.sh` prints a row a line.
fn clients(results: &mut Results, name: &'static str, oci: &Oci) {
    let program = which(oci.program);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/workloads/clients.sh");
    let mut command = Command::new("bash");
    command.arg(script).env("RUNTIME", program).env("WORK", oci.folder.join("clients")).env("TIMES", TIMES.to_string());
    results.lines(name, "", command.current_dir("/").stdin(Stdio::null()));
}

/// Its whole path, as clients want it.
fn which(program: &Path) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join(program))
        .find(|p| p.exists())
        .unwrap_or_else(|| program.to_owned())
}
