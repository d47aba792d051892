//! A hostile stub (issue 2, point 11): a program that takes over its own process, stack frames and instruction pointer,
//! in a sandbox of the real services, on both platforms. Prints the table; one unexpected success fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cofferdam_integration::install::Install;

/// How many attacks the program makes at least, every number through the stub's text included.
const ATTACKS: usize = 760;

fn attack(platform: &str) {
    let install = Install::with_services(&format!("hostile-{platform}")).unwrap();
    let rootfs = install.rootfs("r").unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/hostile_stub.c");
    let built = Command::new("gcc")
        .args(["-O1", "-static", "-pthread", "-Wall", "-Werror", "-o"])
        .arg(rootfs.join("hostile"))
        .arg(source)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let (out, err) = (install.folder.join("out"), install.folder.join("err"));
    let file = |path: &Path| Stdio::from(std::fs::File::create(path).unwrap());
    let mode = if platform == "ptrace" { "answered" } else { "ordered" };
    let mut child = install
        .command(&["--platform", platform, "do", "--rootfs", rootfs.to_str().unwrap(), "--user", "0", "/hostile", mode])
        .stdout(file(&out))
        .stderr(file(&err))
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(300);
    let status = loop {
        install.note();
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            child.kill().unwrap();
            let table = std::fs::read_to_string(&out).unwrap();
            panic!("the attacks do not end: {}", table.lines().last().unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let (table, told) = (std::fs::read_to_string(&out).unwrap(), std::fs::read_to_string(&err).unwrap());
    println!("platform {platform}\n{table}");
    assert!(!table.contains("SUCCEEDED"), "{told}");
    let last = table.lines().last().unwrap_or_default();
    let made: usize = last.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    assert!(made >= ATTACKS && last.ends_with("0 succeeded, the shell still gives 5"), "{last}\n{told}");
    assert_eq!(status.code(), Some(0), "{told}");
    if platform == "notify" {
        // The attacks were made: what they aim at was there.
        assert!(!table.contains("nothing there") && !table.contains("no slot"), "{table}");
    }
    if platform == "notify" && std::thread::available_parallelism().unwrap().get() > 1 {
        // Where all cores are busy nobody is watched; but not for the whole of the attacks.
        let taken =
            table.lines().find_map(|l| l.strip_prefix('(')?.strip_suffix(" calls were taken on the short way)"));
        assert!(taken.and_then(|n| n.parse::<u32>().ok()).is_some_and(|n| n >= 5), "{taken:?}");
    }
    install.nothing_left().unwrap();
}

#[test]
fn a_hostile_stub_gets_nothing_that_was_not_ordered_on_notify() {
    attack("notify");
}

#[test]
fn a_hostile_stub_gets_nothing_that_was_not_ordered_on_ptrace() {
    attack("ptrace");
}
