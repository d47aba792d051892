//! stress-ng's stressors, one after the other for a moment each, as an ordinary user: each ends in the sandbox as it does natively, be it
//! that it runs, that it finds nothing to work with, or that it is refused. `STRESSOR=NAME` runs one, `PLATFORM=NAME` takes a platform
//! (notify).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test: what fails shall fail it")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cofferdam_integration::compare::{Run, run};
use cofferdam_integration::debian;
use cofferdam_integration::install::Install;

const CLASSES: [&str; 7] = ["cpu", "memory", "pipe", "scheduler", "interrupt", "filesystem", "os"];

/// Protocols and devices that a sandbox has not, and what ends its machine (`reboot`) or changes it for others.
const LEFT_OUT: [&str; 7] = ["dccp", "sctp", "tun", "cpu-online", "reboot", "sleep", "cyclic"];

/// Stressors that end otherwise in the sandbox, and why. One that ends alike fails this test.
const KNOWN: [(&str, &str); 2] =
    [("io-uring", "io_uring is switched off, as by kernel.io_uring_disabled=2"), ("pci", "no devices in /sys/bus/pci")];

/// Who runs them.
const USER: &str = "1000";
const LIMIT: Duration = Duration::from_secs(60);

fn stressors() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for class in CLASSES {
        let said = Command::new("stress-ng").arg("--class").arg(format!("{class}?")).output().unwrap();
        let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
        let list = text.split("stressors:").nth(1).unwrap_or_else(|| panic!("{class}: {text}"));
        all.extend(list.split_whitespace().map(str::to_owned));
    }
    all.retain(|name| !LEFT_OUT.contains(&name.as_str()));
    all
}

/// The arguments for one: a few operations, or a second.
fn arguments(name: &str, folder: &str) -> Vec<String> {
    let (one, few) = (format!("--{name}"), format!("--{name}-ops"));
    ["--temp-path", folder, &one, "1", &few, "4", "-t", "1", "--no-rand-seed", "--oom-avoid"].map(str::to_owned).into()
}

fn native(name: &str, folder: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "stress-ng"]);
    command.args(arguments(name, folder.to_str().unwrap())).current_dir(folder);
    command
}

/// How it ended: the last line of its output.
fn status(run: &Run) -> &str {
    run.output.lines().last().unwrap_or_default()
}

#[test]
fn each_stressor_ends_as_on_the_host() {
    debian::install(&["stress-ng", "util-linux"]).unwrap();
    let install = Install::with_services("stressors").unwrap();
    let platform = std::env::var("PLATFORM").unwrap_or_else(|_| "notify".into());
    let only = std::env::var("STRESSOR").ok();
    let folder = install.folder.join("work");
    std::fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::chown(&folder, USER.parse().ok(), USER.parse().ok()).unwrap();
    let user = format!("{USER}:{USER}");
    let (mut new, mut stale, mut count) = (Vec::new(), Vec::new(), 0);
    for name in stressors().iter().filter(|n| only.as_deref().is_none_or(|o| o == n.as_str())) {
        let mut boxed = install.command(&["--platform", &platform, "do", "-u", &user, "--cwd", "/tmp", "--"]);
        boxed.arg("stress-ng").args(arguments(name, "/tmp"));
        let (before, after) = (run(native(name, &folder), LIMIT).unwrap(), run(boxed, LIMIT).unwrap());
        let known = KNOWN.iter().find(|(n, _)| n == name);
        count += 1;
        match (status(&before) == status(&after), known) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(_)) => stale.push(name.clone()),
            (false, None) => {
                println!("---- {name}: natively {}, in the sandbox:\n{}", status(&before), after.output);
                new.push(format!("{name}: natively {}, in the sandbox {}", status(&before), status(&after)));
            }
        }
    }
    println!("{count} stressors on {platform}");
    assert!(new.is_empty(), "end otherwise than natively: {new:#?}");
    assert!(stale.is_empty(), "end alike by now: {stale:?}");
    assert!(count > 0, "no such stressor");
    install.nothing_left().unwrap();
}
