//! Side-by-side benchmarks: the same workload natively, in Cofferdam and in the installed peers, in one run.
//!
//! Prints ratios to native, never a verdict. Peers that are not installed are named as missing. Usage: `make bench`;
//! with words, only the parts so named: `cofferdam-bench starts micro files small big programs rest network oci`. What is asked of OCI
//! runtimes (`oci`) is a table of its own, with ratios to runc; so is what a network costs (`network`), with ratios to native.

mod network;
mod oci;
mod rest;
mod runtimes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use runtimes::Runtime;

/// Starts and the like are measured this many times; the median counts.
const TIMES: usize = 15;
/// Small files: folders, and files in each.
const TREE: (usize, usize) = (100, 100);
/// Bytes of the big file.
const BIG: u64 = 1 << 30;

const PARTS: [&str; 9] = ["starts", "micro", "files", "small", "big", "programs", "rest", "network", "oci"];

/// What is measured with: files of the benchmark's own on the host's disk, removed at the end.
struct Scratch {
    folder: PathBuf,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let rootfs = self.folder.join("bundle/rootfs");
        let _ = Command::new("umount").arg("-l").arg(&rootfs).stderr(Stdio::null()).status();
        // Never through a root that is still bound there.
        if std::fs::read_dir(&rootfs).is_ok_and(|mut d| d.next().is_none()) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// Runs it to its end; an error if it fails.
fn succeeds(command: &mut Command) -> std::io::Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(std::io::Error::other(format!("{command:?}: {status}"))) }
}

/// The same of a program of the host's own, in silence. Never a runtime: see [`Runtime`].
fn must(command: &mut Command) -> std::io::Result<()> {
    succeeds(command.stdin(Stdio::null()).stdout(Stdio::null()))
}

impl Scratch {
    fn make(parts: &[&str]) -> std::io::Result<Self> {
        let folder = PathBuf::from("/var/tmp/cofferdam-bench");
        let scratch = Self { folder };
        let at = |name: &str| scratch.folder.join(name);
        std::fs::create_dir_all(at("bundle/rootfs"))?;
        must(Command::new("mount").args(["--bind", "/"]).arg(at("bundle/rootfs")))?;
        let _ = std::fs::remove_file(at("null"));
        must(Command::new("mknod").arg(at("null")).args(["c", "1", "3"]))?;
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/workloads");
        std::fs::copy(format!("{source}/files.py"), at("files.py"))?;
        must(Command::new("gcc").args(["-O2", "-pthread", &format!("{source}/micro.c"), "-o"]).arg(at("micro")))?;
        if parts.contains(&"small") || parts.contains(&"programs") {
            for d in 0..TREE.0 {
                let folder = at("tree").join(format!("d{d}"));
                std::fs::create_dir_all(&folder)?;
                for f in 0..TREE.1 {
                    std::fs::write(folder.join(format!("f{f}")), format!("{d} {f}\n").repeat(200))?;
                }
            }
            let git = |words: &[&str]| must(Command::new("git").arg("-C").arg(at("tree")).args(words));
            git(&["init", "-q"])?;
            git(&["add", "."])?;
            git(&["-c", "user.name=b", "-c", "user.email=b@b", "commit", "-q", "-m", "bench"])?;
        }
        if parts.contains(&"big") {
            let mut random = std::fs::File::open("/dev/urandom")?;
            let mut big = std::fs::File::create(at("big"))?;
            std::io::copy(&mut std::io::Read::take(&mut random, BIG), &mut big)?;
            big.sync_all()?;
        }
        Ok(scratch)
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

/// Results: rows in the order they came, nanoseconds (or bytes) by row and runtime.
#[derive(Default)]
struct Results {
    rows: Vec<String>,
    values: BTreeMap<(String, &'static str), f64>,
}

impl Results {
    fn put(&mut self, row: &str, column: &'static str, value: f64) {
        if !self.rows.iter().any(|r| r == row) {
            self.rows.push(row.to_owned());
        }
        self.values.insert((row.to_owned(), column), value);
    }

    /// Runs a workload with a runtime.
    fn workload(&mut self, runtime: &Runtime, suffix: &str, words: &[&str]) {
        match runtime.command(words) {
            Ok(mut command) => self.lines(runtime.name, suffix, &mut command),
            Err(e) => eprintln!("bench: {}: {e}", runtime.name),
        }
    }

    /// Runs what prints "name nanoseconds" a line: a row each.
    fn lines(&mut self, column: &'static str, suffix: &str, command: &mut Command) {
        let output = match command.output() {
            Ok(output) => output,
            Err(e) => return eprintln!("bench: {column}: {e}"),
        };
        if !output.status.success() {
            eprintln!("bench: {column}: {command:?}: {}", output.status);
        }
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Some((name, ns)) = line.rsplit_once(' ') else { continue };
            let Ok(ns) = ns.parse::<f64>() else { continue };
            self.put(&format!("{name}{suffix}"), column, ns);
        }
    }

    /// A table with a row for each workload. The first column has what was measured, the others that and the ratio to it.
    fn print(&self, columns: &[&'static str]) {
        let Some((base, others)) = columns.split_first() else { return };
        println!("| workload | {base} | {} |\n|---|---|{}", others.join(" | "), "---|".repeat(others.len()));
        for row in &self.rows {
            let value = |name| self.values.get(&(row.clone(), name)).copied();
            let human = if row.starts_with("PSS") {
                mib
            } else if row.ends_with("/s") {
                rate
            } else {
                time
            };
            let first = value(base);
            print!("| {row} | {} |", first.map_or("-".into(), human));
            for other in others {
                match (value(other), first) {
                    // Of a rate less is worse, and what is below one is what counts.
                    (Some(v), Some(n)) if n > 0.0 && row.ends_with("/s") => print!(" {:.2}x ({}) |", v / n, human(v)),
                    (Some(v), Some(n)) if n > 0.0 => print!(" {:.1}x ({}) |", v / n, human(v)),
                    (Some(v), _) => print!(" {} |", human(v)),
                    (None, _) => print!(" failed |"),
                }
            }
            println!();
        }
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Nanoseconds that it takes, the median of several times.
fn timed(mut what: impl FnMut() -> std::io::Result<()>) -> std::io::Result<f64> {
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let begun = Instant::now();
        what()?;
        times.push(begun.elapsed().as_secs_f64() * 1e9);
    }
    median(times).ok_or_else(|| std::io::Error::other("nothing measured"))
}

fn drop_host_cache() {
    let _ = must(&mut Command::new("sync"));
    if let Err(e) = std::fs::write("/proc/sys/vm/drop_caches", "3") {
        eprintln!("bench: the host's cache stays warm: {e}");
    }
}

fn measure(results: &mut Results, runtime: &Runtime, parts: &[&str], scratch: &Scratch) {
    let script = scratch.path("files.py");
    let python = |words: &[&'static str]| [&["/usr/bin/python3", script.as_str()], words].concat().to_vec();
    for part in parts {
        eprintln!("bench: {} {part} ...", runtime.name);
        match *part {
            "starts" => {
                for words in [&["true"][..], &["/usr/bin/python3", "-c", "pass"]] {
                    let row = format!("start to exit of {}", words.join(" "));
                    match timed(|| succeeds(&mut runtime.silent(words)?)) {
                        Ok(ns) => results.put(&row, runtime.name, ns),
                        Err(e) => eprintln!("bench: {}: {row}: {e}", runtime.name),
                    }
                }
            }
            "micro" => results.workload(runtime, "", &[&scratch.path("micro")]),
            "files" => results.workload(runtime, "", &python(&["micro"])),
            "small" | "big" => {
                let what = scratch.path(if *part == "big" { "big" } else { "tree" });
                for suffix in [", host's cache dropped", ""] {
                    if !suffix.is_empty() {
                        drop_host_cache();
                    }
                    results.workload(runtime, suffix, &[&python(&[])[..], &[part, &what]].concat());
                }
            }
            "programs" => {
                results.workload(runtime, "", &[&python(&["programs"])[..], &[&scratch.path("tree")]].concat())
            }
            "rest" => match rest::at_rest(runtime) {
                Ok(bytes) => results.put("PSS of all processes at rest", runtime.name, bytes),
                Err(e) => eprintln!("bench: {}: {e}", runtime.name),
            },
            // Of other columns: see `main`.
            _ => {}
        }
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut parts: Vec<&str> = words.iter().map(String::as_str).collect();
    if parts.is_empty() {
        parts = PARTS.to_vec();
    }
    if let Some(unknown) = parts.iter().find(|p| !PARTS.contains(p)) {
        eprintln!("bench: no part {unknown}; there are {}", PARTS.join(" "));
        return ExitCode::FAILURE;
    }
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let bin = std::env::current_exe().ok().and_then(|e| e.parent().map(Path::to_path_buf)).unwrap_or_default();
    let scratch = match Scratch::make(&parts) {
        Ok(scratch) => scratch,
        Err(e) => {
            eprintln!(
                "bench: {e} (needs root, and gcc, git, python3: apt-get install gcc libc6-dev git python3-minimal)"
            );
            return ExitCode::FAILURE;
        }
    };
    let (own, others): (Vec<&str>, Vec<&str>) = parts.iter().partition(|p| ["network", "oci"].contains(p));
    if !others.is_empty() {
        let runtimes = runtimes::all(&bin, &scratch.folder);
        let mut results = Results::default();
        for runtime in &runtimes {
            measure(&mut results, runtime, &others, &scratch);
        }
        results.print(&runtimes.iter().map(|r| r.name).collect::<Vec<_>>());
    }
    if own.contains(&"network") {
        let runtimes = network::runtimes(&bin, &scratch.folder);
        let mut results = Results::default();
        for (name, command) in &runtimes {
            network::measure(&mut results, name, command, &scratch.folder);
        }
        results.print(&runtimes.iter().map(|r| r.0).collect::<Vec<_>>());
    }
    if own.contains(&"oci") {
        let runtimes = oci::runtimes(&bin);
        let mut results = Results::default();
        for (name, program) in &runtimes {
            oci::measure(&mut results, name, program, &scratch.folder);
        }
        results.print(&runtimes.iter().map(|r| r.0).collect::<Vec<_>>());
    }
    ExitCode::SUCCESS
}

fn time(ns: f64) -> String {
    if ns < 1e4 {
        format!("{ns:.0} ns")
    } else if ns < 1e7 {
        format!("{:.1} us", ns / 1e3)
    } else {
        format!("{:.1} ms", ns / 1e6)
    }
}

fn rate(n: f64) -> String {
    if n < 1e4 {
        format!("{n:.0}")
    } else if n < 1e7 {
        format!("{:.1}k", n / 1e3)
    } else {
        format!("{:.2}G", n / 1e9)
    }
}

fn mib(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / 1024.0 / 1024.0)
}
