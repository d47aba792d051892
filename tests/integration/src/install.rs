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

/// Has a Debian package installed unless its program is there.
pub fn need(program: &str, package: &str) -> std::io::Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]).any(|d| d.join(program).exists()) {
        return Ok(());
    }
    crate::debian::install(&[package])
}

/// Waits until something is so; panics after half a minute.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ends a child that is no longer needed.
pub fn end(mut child: std::process::Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// A scratch installation, removed when it goes.
#[derive(Debug)]
pub struct Install {
    /// Its folder.
    pub folder: PathBuf,
    /// Who runs it: the caller, or this uid and gid.
    user: Option<u32>,
    /// Pid namespaces of services that were seen ([`Install::note`]): nothing may be left in them. Held open, or their
    /// numbers would be used again.
    namespaces: std::sync::Mutex<std::collections::BTreeMap<PathBuf, std::fs::File>>,
}

/// The programs of a rootfs for [`Install::rootfs`]; all are busybox.
const APPLETS: [&str; 31] = [
    "sh", "ls", "cat", "id", "pwd", "touch", "sleep", "stty", "echo", "true", "false", "env", "kill", "dd", "od",
    "mkdir", "rm", "mv", "stat", "head", "wc", "tr", "chmod", "ln", "sync", "yes", "mount", "hostname", "tty",
    "printf", "rmdir",
];

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
            ("cofferdam-netd", "cofferdam-netd"),
        ] {
            let from = built().join(from);
            // By a program of its own: a descriptor that we hold for writing would go into children of other tests' threads,
            // and whoever runs the copy then would find it busy (ETXTBSY).
            let copied = Command::new("cp").arg(&from).arg(folder.join("bin").join(to)).status()?;
            if !copied.success() {
                let why = format!("{} (cargo build --workspace first): cp: {copied}", from.display());
                return Err(std::io::Error::other(why));
            }
        }
        Ok(Self { folder, user: None, namespaces: std::sync::Mutex::default() })
    }

    /// From now on this user runs it (gid the same, no other groups, a HOME of its own), who owns the folder.
    pub fn as_user(mut self, uid: u32) -> std::io::Result<Self> {
        self.user = Some(uid);
        std::fs::create_dir_all(self.folder.join("home"))?;
        for path in [self.folder.clone(), self.folder.join("home")] {
            std::os::unix::fs::chown(path, Some(uid), Some(uid))?;
        }
        Ok(self)
    }

    /// Who runs it.
    pub fn uid(&self) -> u32 {
        self.user.unwrap_or_else(|| rustix::process::geteuid().as_raw())
    }

    /// A root file system with busybox and a few accounts: `web` (33, group 33) and the group `staff` (50).
    pub fn rootfs(&self, name: &str) -> std::io::Result<PathBuf> {
        need("busybox", "busybox-static")?;
        let root = self.folder.join(name);
        for dir in ["bin", "etc", "tmp"] {
            std::fs::create_dir_all(root.join(dir))?;
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists());
        let busybox = busybox.ok_or_else(|| std::io::Error::other("no busybox"))?;
        std::fs::copy(busybox, root.join("bin/busybox"))?;
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
        }
        std::fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:33:33::/:/bin/sh\n")?;
        std::fs::write(root.join("etc/group"), "root:x:0:\nweb:x:33:\nstaff:x:50:\n")?;
        Ok(root)
    }

    /// A bundle as `spec` makes it, over a busybox rootfs, without a terminal unless asked for.
    pub fn busybox(&self, name: &str, arguments: &[&str], terminal: bool) -> std::io::Result<PathBuf> {
        let bundle = self.folder.join(name);
        self.rootfs(&format!("{name}/rootfs"))?;
        let output = self.command(&["spec", "--bundle"]).arg(&bundle).output()?;
        if !output.status.success() {
            return Err(std::io::Error::other(String::from_utf8_lossy(&output.stderr)));
        }
        Self::edit(&bundle, |document| {
            document["process"]["args"] = serde_json::json!(arguments);
            document["process"]["terminal"] = terminal.into();
        })?;
        Ok(bundle)
    }

    /// Changes a bundle's document.
    pub fn edit(bundle: &Path, change: impl FnOnce(&mut serde_json::Value)) -> std::io::Result<()> {
        let path = bundle.join("config.json");
        let mut document = serde_json::from_slice(&std::fs::read(&path)?)?;
        change(&mut document);
        std::fs::write(path, document.to_string())
    }

    /// Remembers the pid namespaces of the services that run now, for [`Install::nothing_left`].
    pub fn note(&self) {
        let mut seen = self.namespaces.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (pid, name) in self.processes() {
            if ["cofferdam-sentry", "cofferdam-gofer", "cofferdam-netd"].iter().any(|s| name.starts_with(s)) {
                // A namespace that is still this test's own is of a process that is just being made.
                let own = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
                let held = std::fs::File::open(format!("/proc/{pid}/ns/pid"));
                let Ok(held) = held else { continue };
                let name = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held)));
                if let Some(name) = name.ok().filter(|n| *n != own) {
                    seen.entry(name).or_insert(held);
                }
            }
        }
    }

    /// The stubs (host pids) of the services noted: everything in their pid namespaces that runs no program of ours.
    pub fn stubs(&self) -> Vec<i32> {
        self.note();
        let seen = self.namespaces.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let ours: Vec<i32> = self.processes().into_iter().map(|(pid, _)| pid).collect();
        let mut found: Vec<i32> = pids().filter(|p| !ours.contains(p)).filter(|p| in_namespaces(*p, &seen)).collect();
        found.sort_unstable();
        found
    }

    /// The root directory it is used with.
    pub fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// A command line with its --root.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.folder.join("bin/cofferdam"));
        command.arg("--root").arg(self.root()).args(arguments).stdin(Stdio::null());
        if let Some(uid) = self.user {
            use std::os::unix::process::CommandExt;
            command
                .uid(uid)
                .gid(uid)
                .env("HOME", self.folder.join("home"))
                .env_remove("XDG_RUNTIME_DIR")
                .current_dir("/");
        }
        command
    }

    /// `do -- env`, with no network but its loopback device and a folder of the host's at /mnt.
    pub fn do_with(&self, platform: &str, folder: &Path) -> Command {
        let bind = format!("{}:/mnt", folder.display());
        let options = ["--network", "none", "--cwd", "/tmp", "--bind", &bind, "--", "env"];
        let mut command = self.command(&["--platform", platform, "do"]);
        command.args(options);
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
        for pid in pids() {
            let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            let gone = exe.to_string_lossy().replace(" (deleted)", "");
            if Path::new(&gone).starts_with(&bin) {
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
            let mounted = mounts.contains("cofferdam-empty") || mounts.contains(&*self.root().to_string_lossy());
            let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default().contains("cofferdam");
            let stubs = self.stubs();
            if processes.is_empty() && stubs.is_empty() && files.is_empty() && !mounted && !cgroups {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!(
                    "left behind: processes {processes:?}, stubs {stubs:?}, files {files:?}, mounts {mounted}, cgroups {cgroups}"
                ));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Every process.
fn pids() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str().and_then(|n| n.parse().ok()))
}

/// Whether a process lives in one of these pid namespaces. One that is dead already does not.
fn in_namespaces(pid: i32, namespaces: &std::collections::BTreeMap<PathBuf, std::fs::File>) -> bool {
    std::fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|n| namespaces.contains_key(&n))
}

impl Drop for Install {
    fn drop(&mut self) {
        for (pid, _) in self.processes() {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        // A test that fails leaves its containers' cgroups to us.
        for container in std::fs::read_dir(self.root()).into_iter().flatten().flatten() {
            cofferdam_confine::cgroup::remove_recorded(&container.path());
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
