//! Command lines that are started, looked after and judged: none may hang, and what they say goes to a file, since a pipe would be held
//! by the container.
#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails shall fail the test")]

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::install::{Install, until};

/// What a command said and how it ended.
pub struct Answer {
    /// What was asked.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// What it said, errors among it.
    pub text: String,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}, {:?}", self.command, self.status, self.text)
    }
}

impl Answer {
    /// Whether it succeeded.
    pub fn fine(&self) -> bool {
        self.status.success()
    }

    /// Its exit code.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Whether it succeeded, or failed with one of these messages.
    pub fn is_one_of(&self, messages: &[&str]) {
        let told = messages.iter().any(|m| self.text.contains(m));
        assert!(self.fine() || (matches!(self.code(), Some(1 | 255)) && told), "{self:?}: want one of {messages:?}");
    }
}

static FILE: AtomicU64 = AtomicU64::new(0);

/// A command line under way. What it says goes to a file: a pipe would be held by the container.
pub struct Asked {
    child: Child,
    command: String,
    file: PathBuf,
}

/// Starts one, with a file in `folder` for what it says.
pub fn begin(mut command: Command, folder: &std::path::Path) -> Asked {
    let file = folder.join(format!("said-{}", FILE.fetch_add(1, Ordering::Relaxed)));
    let out = std::fs::File::create(&file).unwrap();
    command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
    let text: Vec<_> = command.get_args().skip(2).map(|a| a.to_string_lossy().into_owned()).collect();
    Asked { child: command.spawn().unwrap(), command: text.join(" "), file }
}

impl Asked {
    /// Its process.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Its end, which must come.
    pub fn end(mut self) -> Answer {
        let until = Instant::now() + Duration::from_secs(30);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > until {
                let _ = self.child.kill();
                panic!("{} does not end: {}", self.command, std::fs::read_to_string(&self.file).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let _ = std::fs::remove_file(&self.file);
        Answer { command: self.command, status, text }
    }
}

/// Starts a command of an installation.
pub fn ask(install: &Install, arguments: &[&str]) -> Asked {
    begin(install.command(arguments), &install.folder)
}

/// Runs one to its end.
pub fn say(install: &Install, arguments: &[&str]) -> Answer {
    ask(install, arguments).end()
}

/// Runs one that must succeed.
pub fn must(install: &Install, arguments: &[&str]) -> Answer {
    let answer = say(install, arguments);
    assert!(answer.fine(), "{answer:?}");
    answer
}

/// The path of the cgroups of an installation's containers.
pub fn place(install: &Install) -> String {
    format!("/{}", install.folder.file_name().unwrap().to_string_lossy())
}

/// A bundle with cgroups of its own.
pub fn bundle(install: &Install, name: &str, arguments: &[&str]) -> String {
    let bundle = install.busybox(name, arguments, false).unwrap();
    Install::edit(&bundle, |d| d["linux"]["cgroupsPath"] = place(install).into()).unwrap();
    bundle.to_str().unwrap().to_owned()
}

/// Where the cgroups of an installation's containers are, in each hierarchy.
fn places(install: &Install) -> impl Iterator<Item = PathBuf> {
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|e| e.path());
    let name = place(install).trim_start_matches('/').to_owned();
    std::iter::once(PathBuf::from("/sys/fs/cgroup"))
        .chain(hierarchies)
        .map(move |h| h.join(&name))
        .filter(|f| f.is_dir())
}

/// That nothing at all is left, cgroups included.
pub fn nothing_left(install: &Install) -> Result<(), String> {
    install.nothing_left()?;
    let left: Vec<_> = places(install).collect();
    if left.is_empty() { Ok(()) } else { Err(format!("cgroups left: {left:?}")) }
}

/// The same where containers had cgroups within one, which stays as with runc: it is removed first, if it is empty.
pub fn nothing_left_within(install: &Install) -> Result<(), String> {
    places(install).for_each(|folder| drop(std::fs::remove_dir(folder)));
    nothing_left(install)
}

/// Waits until a container is in a state.
pub fn wait_for(install: &Install, id: &str, status: &str) {
    until(status, || say(install, &["state", id]).text.contains(&format!("\"status\": \"{status}\"")));
}
