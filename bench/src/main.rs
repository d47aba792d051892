//! Side-by-side benchmarks: the same workload natively, in Cofferdam and in an installed peer, in one run.
//!
//! Prints ratios to native, never a verdict. Peers that are not installed are named as missing. Usage: `make bench`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

/// Starts of `true` that are measured.
const STARTS: usize = 15;

struct Runtime {
    name: &'static str,
    prefix: Vec<String>,
}

fn runtimes(bin: &Path) -> Vec<Runtime> {
    let words = |s: &str| s.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let cofferdam = bin.join("cofferdam");
    let mut all = vec![
        Runtime { name: "native", prefix: Vec::new() },
        Runtime {
            name: "cofferdam",
            prefix: words(&format!("{} --root /tmp/cofferdam-bench do --", cofferdam.display())),
        },
    ];
    if Command::new("runsc").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok() {
        let flags = "runsc --network=none --ignore-cgroups --platform=ptrace do";
        all.push(Runtime { name: "runsc (ptrace)", prefix: words(flags) });
    } else {
        println!("runsc is not installed (apt-get install runsc): no peer in this run");
    }
    all
}

fn command(runtime: &Runtime, args: &[&str]) -> Command {
    let mut words = runtime.prefix.iter().map(String::as_str).chain(args.iter().copied());
    let mut c = Command::new(words.next().unwrap_or("true"));
    c.args(words);
    c
}

/// Median milliseconds from start to exit of `args`.
fn start_to_exit(runtime: &Runtime, args: &[&str]) -> Option<f64> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let begun = Instant::now();
        let ok = command(runtime, args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !ok.is_ok_and(|s| s.success()) {
            return None;
        }
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).map(|us| us * 1e3)
}

fn build_workload() -> Result<PathBuf, String> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/workloads/micro.c");
    let out = std::env::temp_dir().join("cofferdam-bench-micro");
    let status = Command::new("gcc").args(["-O2", "-pthread", source, "-o"]).arg(&out).status();
    match status {
        Ok(s) if s.success() => Ok(out),
        other => Err(format!("gcc of {source}: {other:?} (apt-get install gcc libc6-dev)")),
    }
}

fn main() -> ExitCode {
    let exe = std::env::current_exe().unwrap_or_default();
    let bin = exe.parent().map(Path::to_path_buf).unwrap_or_default();
    let workload = match build_workload() {
        Ok(w) => w,
        Err(e) => {
            eprintln!("bench: {e}");
            return ExitCode::FAILURE;
        }
    };
    let workload = workload.display().to_string();
    let runtimes = runtimes(&bin);
    // Row name -> nanoseconds by runtime.
    let mut rows: Vec<String> = Vec::new();
    let mut results: BTreeMap<(String, &'static str), f64> = BTreeMap::new();
    for runtime in &runtimes {
        eprintln!("bench: {} ...", runtime.name);
        for (row, args) in [
            ("start to exit of true", vec!["true"]),
            ("start to exit of python3 -c pass", vec!["python3", "-c", "pass"]),
        ] {
            if !rows.iter().any(|r| r == row) {
                rows.push(row.to_owned());
            }
            if let Some(ns) = start_to_exit(runtime, &args) {
                results.insert((row.to_owned(), runtime.name), ns);
            }
        }
        let output = command(runtime, &[&workload]).stdin(Stdio::null()).output();
        let text = match output {
            Ok(o) if o.status.success() => String::from_utf8_lossy(&o.stdout).into_owned(),
            Ok(o) => {
                eprintln!("bench: {}: {} {}", runtime.name, o.status, String::from_utf8_lossy(&o.stderr));
                String::from_utf8_lossy(&o.stdout).into_owned()
            }
            Err(e) => {
                eprintln!("bench: {}: {e}", runtime.name);
                continue;
            }
        };
        for line in text.lines() {
            let Some((name, ns)) = line.rsplit_once(' ') else { continue };
            let Ok(ns) = ns.parse::<f64>() else { continue };
            if !rows.iter().any(|r| r == name) {
                rows.push(name.to_owned());
            }
            results.insert((name.to_owned(), runtime.name), ns);
        }
    }
    print!("| workload | native |");
    for r in runtimes.iter().skip(1) {
        print!(" {} |", r.name);
    }
    println!("\n|---|---|{}", "---|".repeat(runtimes.len().saturating_sub(1)));
    for row in &rows {
        let native = results.get(&(row.clone(), "native")).copied();
        print!("| {row} | {} |", native.map_or("-".into(), human));
        for r in runtimes.iter().skip(1) {
            match (results.get(&(row.clone(), r.name)), native) {
                (Some(ns), Some(n)) if n > 0.0 => print!(" {:.1}x ({}) |", ns / n, human(*ns)),
                (Some(ns), _) => print!(" {} |", human(*ns)),
                (None, _) => print!(" failed |"),
            }
        }
        println!();
    }
    ExitCode::SUCCESS
}

fn human(ns: f64) -> String {
    if ns < 1e4 {
        format!("{ns:.0} ns")
    } else if ns < 1e7 {
        format!("{:.1} us", ns / 1e3)
    } else {
        format!("{:.1} ms", ns / 1e6)
    }
}
