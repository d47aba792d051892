//! Others' own tests, from Debian's source packages: runc's (bats), crun's (Python) and podman's (bats). Each suite runs with the runtime it
//! is of, which shows what its tests are worth here, then with Cofferdam: what passes there must pass here, but for what
//! `peer_suites/*.expected` names with a reason. What the control itself fails or skips on this machine is printed as such, and counts as
//! passed for nobody. podman's take long: what they came to with runc is kept in `podman.control`, which `RECORD=1` makes anew.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test: what fails shall fail it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cofferdam_integration::compare::run;
use cofferdam_integration::debian;
use cofferdam_integration::install::{Install, until};

const LIMIT: Duration = Duration::from_secs(600);

const CLEAN: [&str; 6] =
    ["-i", "--default-signal", "HOME=/root", "LANG=C.UTF-8", "PATH=/usr/bin:/bin:/usr/sbin:/sbin", "bash"];

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Passed,
    Skipped,
    Failed,
}

/// A test: its file and its name.
type Name = (String, String);

/// The source of a package, with what its tests need, made once and kept.
fn ready(name: &str, script: &Path) -> PathBuf {
    let source = debian::source(name).unwrap();
    let mark = source.with_extension("peer");
    if !mark.exists() {
        let mut prepare = Command::new("env");
        prepare.args(CLEAN).arg(script).arg("prepare").arg(&source);
        let made = run(prepare, LIMIT).unwrap();
        assert!(made.success, "{name} is not made ready:\n{}", made.output);
        std::fs::write(&mark, "").unwrap();
    }
    source
}

/// A line of TAP: `ok 3 name # skip why`.
fn case(line: &str) -> Option<(String, End)> {
    let (passed, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok ")?),
    };
    let (number, name) = rest.split_once(' ')?;
    number.parse::<u32>().ok()?;
    let skipped = name.to_ascii_lowercase().rfind("#skip").or_else(|| name.to_ascii_lowercase().rfind("# skip"));
    let end = match (passed, skipped) {
        (_, Some(_)) => End::Skipped,
        (true, None) => End::Passed,
        (false, None) => End::Failed,
    };
    let name = skipped.and_then(|at| name.get(..at)).unwrap_or(name);
    Some((name.trim().trim_start_matches("- ").to_owned(), end))
}

/// How all tests ended with a runtime, and what each file's said.
fn ends(script: &Path, source: &Path, runtime: &Path, out: &Path) -> (BTreeMap<Name, End>, Duration) {
    std::fs::create_dir_all(out).unwrap();
    let mut command = Command::new("env");
    command.args(CLEAN).arg(script).arg("run").arg(source).arg(runtime).arg(out);
    let ran = run(command, LIMIT).unwrap();
    assert!(ran.success, "{}", ran.output);
    let mut ends = BTreeMap::new();
    for entry in std::fs::read_dir(out).unwrap().flatten().filter(|e| e.path().is_file()) {
        let file = entry.file_name().into_string().unwrap();
        let said = said(out, &file);
        ends.extend(said.lines().filter_map(case).map(|(name, end)| ((file.clone(), name), end)));
    }
    (ends, ran.time)
}

fn said(out: &Path, file: &str) -> String {
    String::from_utf8_lossy(&std::fs::read(out.join(file)).unwrap_or_default()).into_owned()
}

/// `FILE | TEST | why`.
fn expected(path: &Path) -> BTreeMap<Name, String> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
    let parts = lines.map(|l| {
        let parts: Vec<&str> = l.splitn(3, " | ").collect();
        let [file, name, why] = parts[..] else { panic!("{}: {l:?} is not FILE | TEST | why", path.display()) };
        ((file.to_owned(), name.to_owned()), why.to_owned())
    });
    parts.collect()
}

/// What passes with the control, as it was recorded: `FILE | TEST`.
fn recorded(path: &Path) -> Option<BTreeMap<Name, End>> {
    let text = std::fs::read_to_string(path).ok()?;
    let names = text.lines().filter(|l| !l.starts_with('#')).map(|l| {
        let (file, test) =
            l.split_once(" | ").unwrap_or_else(|| panic!("{}: {l:?} is not FILE | TEST", path.display()));
        ((file.to_owned(), test.to_owned()), End::Passed)
    });
    Some(names.collect())
}

/// Records it, beneath what the file says of itself.
fn record(path: &Path, control: &BTreeMap<Name, End>) {
    let before = std::fs::read_to_string(path).unwrap();
    let head = before.lines().filter(|l| l.starts_with('#')).map(str::to_owned);
    let passed = control.iter().filter(|(_, e)| **e == End::Passed).map(|((file, test), _)| format!("{file} | {test}"));
    std::fs::write(path, head.chain(passed).collect::<Vec<_>>().join("\n") + "\n").unwrap();
}

/// `least`: so many tests pass with the control, or the suite has not really run.
fn compared(name: &str, control: &Path, packages: &[&str], least: usize) {
    debian::install(packages).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peer_suites");
    let script = folder.join(format!("{name}.sh"));
    let source = ready(name, &script);
    let known = expected(&folder.join(format!("{name}.expected")));
    let install = Install::with_services(&format!("p{name}")).unwrap();
    let kept = folder.join(format!("{name}.control"));
    let (control, before) = match recorded(&kept).filter(|_| std::env::var_os("RECORD").is_none()) {
        Some(control) => (control, Duration::ZERO),
        None => {
            let ran = ends(&script, &source, control, &install.folder.join("c"));
            if kept.exists() {
                record(&kept, &ran.0);
            }
            ran
        }
    };
    let out = install.folder.join("o");
    let (ours, after) = ends(&script, &source, &install.folder.join("bin/cofferdam"), &out);
    let passed = |all: &BTreeMap<Name, End>| {
        all.iter().filter(|(n, e)| **e == End::Passed && control.get(*n) == Some(&End::Passed)).count()
    };
    let (theirs, mine) = (passed(&control), passed(&ours));
    println!(
        "{name}: {} tests, {theirs} pass with {name} ({before:?}), {mine} of these with cofferdam ({after:?})",
        control.len()
    );
    for ((file, test), end) in control.iter().filter(|(_, e)| **e != End::Passed) {
        println!("  no control here, {end:?} with {name}: {file} | {test}");
    }
    assert!(theirs >= least, "{name}'s own tests fail with {name}");
    let mut wrong = Vec::new();
    for (test, why) in &known {
        if control.get(test) != Some(&End::Passed) || ours.get(test) == Some(&End::Passed) {
            wrong.push(format!("{test:?} no longer differs: {why}"));
        }
    }
    let mut files = Vec::new();
    for test in control.iter().filter(|(_, e)| **e == End::Passed).map(|(t, _)| t) {
        if ours.get(test) != Some(&End::Passed) && !known.contains_key(test) {
            wrong.push(format!("{test:?}: {:?}", ours.get(test)));
            files.push(test.0.clone());
        }
    }
    files.dedup();
    for file in files {
        println!(
            "---- {file} with cofferdam:\n{}{}",
            said(&out, &file),
            said(&out.join("tmp"), &format!("err.{file}"))
        );
    }
    assert!(wrong.is_empty(), "{name}: {wrong:#?}");
    until("the suite's services to end", || install.processes().is_empty());
    install.nothing_left().unwrap();
}

#[test]
fn runcs_own_tests_end_as_with_runc() {
    let packages = [
        "runc",
        "bats",
        "golang-go",
        "golang-github-opencontainers-runc-dev",
        "jq",
        "gawk",
        "busybox-static",
        "bsdutils",
    ];
    compared("runc", Path::new("/usr/sbin/runc"), &packages, 110);
}

#[test]
fn cruns_own_tests_end_as_with_crun() {
    compared("crun", Path::new("/usr/bin/crun"), &["crun", "gcc", "libc6-dev", "python3", "bsdutils"], 60);
}

#[test]
fn podmans_own_tests_end_as_with_runc() {
    let packages = [
        "podman",
        "conmon",
        "catatonit",
        "netavark",
        "buildah",
        "runc",
        "bats",
        "busybox-static",
        "socat",
        "jq",
        "iptables",
        "gcc",
        "libc6-dev",
    ];
    compared("podman", Path::new("/usr/sbin/runc"), &packages, 90);
}
