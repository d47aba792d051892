//! Test suites that Debian ships as source: perl's own and git's own. Each case ends in the sandbox as it does natively.
//! `PLATFORM=NAME` takes a platform (notify).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test: what fails shall fail it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cofferdam_integration::compare::run;
use cofferdam_integration::debian;
use cofferdam_integration::install::Install;

const LIMIT: Duration = Duration::from_secs(900);

const CLEAN: [&str; 6] =
    ["-i", "--default-signal", "HOME=/root", "LANG=C.UTF-8", "PATH=/usr/bin:/bin:/usr/sbin:/sbin", "bash"];

/// The source of a package, made ready once and kept.
fn ready(name: &str, drive: &Path, suite: &Path) -> PathBuf {
    let source = debian::source(name).unwrap();
    let mark = source.with_extension("ready");
    if !mark.exists() {
        let mut prepare = Command::new("env");
        prepare.args(CLEAN).args([drive, suite, &source]);
        let made = run(prepare, LIMIT).unwrap();
        assert!(made.success, "{name} is not made ready:\n{}", made.output);
        std::fs::write(&mark, "").unwrap();
    }
    source
}

/// How the cases of each test ended (`ok 3`, `not ok 4`, `ok 5 skip`, in order), and the test itself; names and reasons hold what differs
/// from run to run.
fn ends(folder: &Path) -> BTreeMap<String, Vec<String>> {
    let mut tests = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let bytes = std::fs::read(entry.path()).unwrap();
        let said = String::from_utf8_lossy(&bytes);
        let mut cases: Vec<String> = said.lines().filter_map(case).collect();
        cases.sort();
        tests.insert(entry.file_name().into_string().unwrap(), cases);
    }
    tests
}

fn case(line: &str) -> Option<String> {
    if line.starts_with("status ") || line.starts_with("1..") {
        return Some(line.split('#').next()?.trim_end().to_owned());
    }
    let (word, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => ("not ok", rest),
        None => ("ok", line.strip_prefix("ok ")?),
    };
    let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let lower = rest.to_ascii_lowercase();
    let directive = ["# skip", "# todo"].into_iter().find(|d| lower.contains(d)).unwrap_or_default();
    (!number.is_empty()).then(|| format!("{word} {number} {directive}"))
}

fn compared(name: &str, packages: &[&str]) {
    debian::install(packages).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/source_suites");
    let (drive, suite) = (folder.join("drive.sh"), folder.join(format!("{name}.sh")));
    let source = ready(name, &drive, &suite);
    let install = Install::with_services(name).unwrap();
    let platform = std::env::var("PLATFORM").unwrap_or_else(|_| "notify".into());
    let out = |side: &str| {
        let folder = install.folder.join(side);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    };
    let (before, after) = (out("native"), out("boxed"));
    let mut native = Command::new("env");
    native.args(CLEAN).args([&drive, &suite, &source, &before]);
    let native = run(native, LIMIT).unwrap();
    let mut boxed = install.do_with(&platform, &after);
    boxed.args(CLEAN).args([&drive, &suite, &source, Path::new("/mnt")]);
    let boxed = run(boxed, LIMIT).unwrap();
    let (before, after) = (ends(&before), ends(&after));
    let cases: usize = before.values().map(Vec::len).sum();
    println!(
        "{name}: {} tests, {cases} cases; natively {:?}, on {platform} {:?}",
        before.len(),
        native.time,
        boxed.time
    );
    assert!(cases > 1000, "hardly anything ran: {}\n{}", native.output, boxed.output);
    let differ: Vec<String> = before
        .iter()
        .filter(|(test, cases)| after.get(*test) != Some(cases))
        .map(|(test, cases)| {
            let (native, boxed) = (cases.join("\n"), after.get(test).map(|c| c.join("\n")).unwrap_or_default());
            let lines = cofferdam_integration::compare::differences(&native, &boxed);
            let said = std::fs::read(install.folder.join("boxed").join(test)).unwrap_or_default();
            println!("---- {test} in the sandbox:\n{}", String::from_utf8_lossy(&said));
            format!("{test}: {}", lines.join(", "))
        })
        .collect();
    assert!(differ.is_empty(), "end otherwise than natively: {differ:#?}\n{}", boxed.output);
    install.nothing_left().unwrap();
}

#[test]
fn perls_own_tests_end_as_on_the_host() {
    compared("perl", &["perl", "procps"]);
}

#[test]
fn gits_own_tests_end_as_on_the_host() {
    compared("git", &["gcc", "libc6-dev", "make", "zlib1g-dev", "perl"]);
}
