//! What a network costs: servers within, asked from the other end of a pair of interfaces (`workloads/network.sh`), natively and in each
//! sandbox that can be given a network namespace.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Results, runtimes};

/// Columns, and the runtime's command line; the host's kernel has none.
pub fn runtimes(bin: &Path, scratch: &Path) -> Vec<(&'static str, String)> {
    let cofferdam = format!("{} --root {}", bin.join("cofferdam").display(), scratch.join("network-root").display());
    let mut all = vec![("native", String::new()), ("cofferdam", cofferdam)];
    if runtimes::installed("runsc", "runsc".as_ref()) {
        // It refuses where it takes a namespace for the host's own: the column says so.
        let root = scratch.join("network-runsc");
        let options = "--network=sandbox --platform=ptrace --ignore-cgroups";
        all.push(("runsc (ptrace)", format!("runsc --root {} {options}", root.display())));
    }
    all
}

/// Puts all rows of one.
pub fn measure(results: &mut Results, name: &'static str, runtime: &str, scratch: &Path) {
    eprintln!("bench: {name} network ...");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/workloads/network.sh");
    let mut command = Command::new("bash");
    command.arg(script).env("RUNTIME", runtime).env("WORK", scratch).current_dir("/").stdin(Stdio::null());
    results.lines(name, "", &mut command);
}
