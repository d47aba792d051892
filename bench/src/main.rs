//! Side-by-side benchmarks: the same workload natively, in Cofferdam and in the installed peers, in one run.
//!
//! Prints ratios to native, never a verdict. Peers that are not installed are named as missing. Usage: `make bench`;
//! with words, only the parts so named: `cofferdam-bench starts micro files small big programs rest`.

mod rest;
mod runtimes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use runtimes::Runtime;

/// Starts that are measured, a command.
const STARTS: usize = 15;
/// Small files: folders, and files in each.
const TREE: (usize, usize) = (100, 100);
/// Bytes of the big file.
const BIG: u64 = 1 << 30;

const PARTS: [&str; 7] = ["starts", "micro", "files", "small", "big", "programs", "rest"];

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

fn must(command: &mut Command) -> std::io::Result<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(std::io::Error::other(format!("{command:?}: {status}"))) }
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
    fn put(&mut self, row: &str, runtime: &Runtime, value: f64) {
        if !self.rows.iter().any(|r| r == row) {
            self.rows.push(row.to_owned());
        }
        self.values.insert((row.to_owned(), runtime.name), value);
    }

    /// Runs a workload that prints "name nanoseconds" a line.
    fn workload(&mut self, runtime: &Runtime, suffix: &str, words: &[&str]) {
        let output = runtime.command(words).and_then(|mut c| c.output());
        let output = match output {
            Ok(output) => output,
            Err(e) => return eprintln!("bench: {}: {e}", runtime.name),
        };
        if !output.status.success() {
            let says = String::from_utf8_lossy(&output.stderr);
            eprintln!("bench: {}: {words:?}: {} {says}", runtime.name, output.status);
        }
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Some((name, ns)) = line.rsplit_once(' ') else { continue };
            let Ok(ns) = ns.parse::<f64>() else { continue };
            self.put(&format!("{name}{suffix}"), runtime, ns);
        }
    }

    fn print(&self, runtimes: &[Runtime]) {
        print!("| workload | native |");
        for r in runtimes.iter().skip(1) {
            print!(" {} |", r.name);
        }
        println!("\n|---|---|{}", "---|".repeat(runtimes.len().saturating_sub(1)));
        for row in &self.rows {
            let value = |name| self.values.get(&(row.clone(), name)).copied();
            let human = if row.starts_with("PSS") { mib } else { time };
            let native = value("native");
            print!("| {row} | {} |", native.map_or("-".into(), human));
            for r in runtimes.iter().skip(1) {
                match (value(r.name), native) {
                    (Some(v), Some(n)) if n > 0.0 => print!(" {:.1}x ({}) |", v / n, human(v)),
                    (Some(v), _) => print!(" {} |", human(v)),
                    (None, _) => print!(" failed |"),
                }
            }
            println!();
        }
    }
}

/// Median nanoseconds from start to exit of `words`.
fn start_to_exit(runtime: &Runtime, words: &[&str]) -> Option<f64> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let mut command = runtime.silent(words).ok()?;
        let begun = Instant::now();
        let ok = command.status();
        if !ok.is_ok_and(|s| s.success()) {
            return None;
        }
        times.push(begun.elapsed().as_secs_f64() * 1e9);
    }
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied()
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
                    if let Some(ns) = start_to_exit(runtime, words) {
                        results.put(&format!("start to exit of {}", words.join(" ")), runtime, ns);
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
            _ => match rest::at_rest(runtime) {
                Ok(bytes) => results.put("PSS of all processes at rest", runtime, bytes),
                Err(e) => eprintln!("bench: {}: {e}", runtime.name),
            },
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
    let runtimes = runtimes::all(&bin, &scratch.folder);
    let mut results = Results::default();
    for runtime in &runtimes {
        measure(&mut results, runtime, &parts, &scratch);
    }
    results.print(&runtimes);
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

fn mib(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / 1024.0 / 1024.0)
}
