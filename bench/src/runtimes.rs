//! The runtimes that are compared, and how each runs a command over the host's root.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One way to run a command.
#[derive(Debug)]
pub struct Runtime {
    /// Its column.
    pub name: &'static str,
    how: How,
    /// A null device of the benchmark's own: runsc gives the files that it gets as stdin, stdout and stderr to nobody, and that
    /// must not be the host's /dev/null.
    null: PathBuf,
}

#[derive(Debug)]
enum How {
    /// Words before the command.
    Prefix(Vec<String>),
    /// An OCI bundle with this rootfs, given to this program.
    Bundle { program: &'static str, folder: PathBuf },
}

/// Whether a runtime's program is there; says so if it is not.
pub fn installed(name: &str, program: &Path) -> bool {
    let there = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        println!("{name} is not installed (apt-get install {name}): no column in this run");
    }
    there
}

/// Native, Cofferdam from `bin`, and the peers that are installed; `scratch` is a folder for bundles, with a null device.
pub fn all(bin: &Path, scratch: &Path) -> Vec<Runtime> {
    let words = |s: &str| s.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let cofferdam = format!("{} --root {} do --", bin.join("cofferdam").display(), scratch.join("root").display());
    let runtime = |name, how| Runtime { name, how, null: scratch.join("null") };
    let mut all =
        vec![runtime("native", How::Prefix(Vec::new())), runtime("cofferdam", How::Prefix(words(&cofferdam)))];
    for (name, how) in [
        ("runc", How::Bundle { program: "runc", folder: scratch.join("bundle") }),
        ("runsc (ptrace)", How::Prefix(words("runsc --network=none --ignore-cgroups --platform=ptrace do"))),
    ] {
        let program = name.split(' ').next().unwrap_or(name);
        if installed(program, program.as_ref()) {
            all.push(runtime(name, how));
        }
    }
    all
}

impl Runtime {
    /// A command line that runs `words` to its end with this runtime. Its input is empty.
    pub fn command(&self, words: &[&str]) -> std::io::Result<Command> {
        let mut command = match &self.how {
            How::Prefix(prefix) => {
                let mut all = prefix.iter().map(String::as_str).chain(words.iter().copied());
                let mut command = Command::new(all.next().unwrap_or("true"));
                command.args(all);
                command
            }
            How::Bundle { program, folder } => {
                // Over what `main` has bound to its `rootfs`.
                bundle(program, folder, words, |spec| spec["root"]["readonly"] = false.into())?;
                let mut command = Command::new(program);
                command.args(["run", "--bundle"]).arg(folder).arg(format!("bench-{}", std::process::id()));
                command
            }
        };
        command.stdin(self.null()?);
        Ok(command)
    }

    /// Such a command, with its output thrown away.
    pub fn silent(&self, words: &[&str]) -> std::io::Result<Command> {
        let mut command = self.command(words)?;
        command.stdout(self.null()?).stderr(self.null()?);
        Ok(command)
    }

    fn null(&self) -> std::io::Result<std::fs::File> {
        std::fs::File::options().read(true).write(true).open(&self.null)
    }
}

/// Makes a bundle of what `program` says is a document, for these words, with a change of one's own.
pub fn bundle(
    program: &str,
    folder: &Path,
    words: &[&str],
    change: impl FnOnce(&mut serde_json::Value),
) -> std::io::Result<()> {
    let config = folder.join("config.json");
    let _ = std::fs::remove_file(&config);
    let made = Command::new(program).args(["spec", "--bundle"]).arg(folder).status()?;
    if !made.success() {
        return Err(std::io::Error::other(format!("{program} spec: {made}")));
    }
    let mut spec: serde_json::Value = serde_json::from_slice(&std::fs::read(&config)?)?;
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = words.to_vec().into();
    change(&mut spec);
    std::fs::write(&config, spec.to_string())
}
