//! A scratch installation: the host-side programs and doubles of the services in a folder of their own, with a root
//! directory and bundles; and what tests ask of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The folder the tests' programs were built into.
pub fn built() -> PathBuf {
    let mut folder = std::env::current_exe().unwrap_or_default();
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    folder
}

/// A scratch installation, removed when it goes.
#[derive(Debug)]
pub struct Install {
    /// Its folder.
    pub folder: PathBuf,
}

impl Install {
    /// Installs `cofferdam`, its supervisor and, under the services' names, the test double.
    pub fn with_doubles(name: &str) -> std::io::Result<Self> {
        Self::with(name, "double", "double")
    }

    /// Installs `cofferdam`, its supervisor and the real services.
    pub fn with_services(name: &str) -> std::io::Result<Self> {
        Self::with(name, "cofferdam-sentry", "cofferdam-gofer")
    }

    fn with(name: &str, sentry: &str, gofer: &str) -> std::io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("cofferdam-test-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder.join("bin"))?;
        for (from, to) in [
            ("cofferdam", "cofferdam"),
            ("cofferdam-supervisor", "cofferdam-supervisor"),
            (sentry, "cofferdam-sentry"),
            (gofer, "cofferdam-gofer"),
        ] {
            let from = built().join(from);
            std::fs::copy(&from, folder.join("bin").join(to)).map_err(|e| {
                std::io::Error::other(format!("{} (cargo build --workspace first): {e}", from.display()))
            })?;
        }
        Ok(Self { folder })
    }

    /// The root directory it is used with.
    pub fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// A command line with its --root.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.folder.join("bin/cofferdam"));
        command.arg("--root").arg(self.root()).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str]) -> std::io::Result<Output> {
        self.command(arguments).output()
    }

    /// Makes a bundle whose container has these arguments.
    pub fn bundle(&self, name: &str, arguments: &[&str]) -> std::io::Result<PathBuf> {
        let bundle = self.folder.join(name);
        std::fs::create_dir_all(bundle.join("rootfs"))?;
        let document = serde_json::json!({
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": arguments, "cwd": "/"},
            "root": {"path": "rootfs"}
        });
        std::fs::write(bundle.join("config.json"), document.to_string())?;
        Ok(bundle)
    }

    /// Every process that runs a program of this installation, by pid and name.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let bin = self.folder.join("bin");
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok());
            let exe = std::fs::read_link(entry.path().join("exe")).unwrap_or_default();
            let gone = exe.to_string_lossy().replace(" (deleted)", "");
            if let (Some(pid), true) = (pid, Path::new(&gone).starts_with(&bin)) {
                found.push((pid, Path::new(&gone).file_name().unwrap_or_default().to_string_lossy().into_owned()));
            }
        }
        found
    }

    /// Pids of that program.
    pub fn pids(&self, name: &str) -> Vec<i32> {
        self.processes().into_iter().filter(|(_, n)| n == name).map(|(pid, _)| pid).collect()
    }

    /// Whether, before long, no process of it is left and its root directory holds nothing but the lock.
    pub fn nothing_left(&self) -> Result<(), String> {
        let until = Instant::now() + Duration::from_secs(15);
        loop {
            let processes = self.processes();
            let files: Vec<_> = std::fs::read_dir(self.root())
                .into_iter()
                .flatten()
                .flatten()
                .map(|e| e.file_name().to_string_lossy().into_owned())
                .filter(|n| n != "supervisor.lock")
                .collect();
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            let mounted = mounts.contains("cofferdam-empty") || mounts.contains(&*self.folder.to_string_lossy());
            if processes.is_empty() && files.is_empty() && !mounted {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!("left behind: processes {processes:?}, files {files:?}, mounts {mounted}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Install {
    fn drop(&mut self) {
        for (pid, _) in self.processes() {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
