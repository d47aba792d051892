//! Single segments of TCP: scripts (`network_segments/*.pkt`, in the words of packetdrill) say what the peer of a program sends and what must
//! come back. Each is played against the host's kernel and then against a sandbox with netd, the same program in both: what Linux does is
//! what a script says, and where we differ it says so, with the reason. Needs root, as namespaces with interfaces do.
//!
//! `CASE=NAME` plays only those with that in their names; `LATE=SECONDS` is what a machine may be late.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use std::path::Path;
use std::process::{Command, Stdio};

use cofferdam_integration::install::{Install, need};
use cofferdam_integration::network::{Rig, boxed, log_of};

/// What each script came to, in their order.
fn play(rig: &Rig, kind: &str, mut guest: Command) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/network_segments");
    let mut guest = guest.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let player = folder.join("player.py").display().to_string();
    let mut player = Rig::natively(&rig.outer, &["python3", "-u", &player, kind, "v0", &folder.display().to_string()]);
    player.stdin(guest.stdout.take().unwrap()).stdout(guest.stdin.take().unwrap()).stderr(Stdio::piped());
    let told = player.spawn().unwrap().wait_with_output().unwrap();
    // Its end of the pipe is closed with the command.
    drop(player);
    guest.wait().unwrap();
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    let mut said: Vec<String> = Vec::new();
    for line in told.lines() {
        match said.last_mut() {
            Some(last) if line.starts_with(' ') => *last += &format!("\n{line}"),
            _ => said.push(line.to_owned()),
        }
    }
    said
}

#[test]
fn segments_are_answered_as_by_linux() {
    need("ethtool", "ethtool").unwrap();
    let (install, rig) = (Install::with_services("net-segments").unwrap(), Rig::new("g"));
    // Each segment is one packet.
    for (namespace, device) in [(&rig.outer, "v0"), (&rig.inner, "eth0")] {
        let off = ["ethtool", "-K", device, "tso", "off", "gso", "off", "gro", "off", "tx", "off"];
        assert!(Rig::natively(namespace, &off).stdout(Stdio::null()).status().unwrap().success());
    }
    // What a connection learned is nothing to the next one.
    let alone = "echo 1 > /proc/sys/net/ipv4/tcp_no_metrics_save";
    assert!(Rig::natively(&rig.inner, &["sh", "-c", alone]).status().unwrap().success());
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/network_segments/guest.py").display().to_string();
    let native = play(&rig, "native", Rig::natively(&rig.inner, &["python3", "-u", &guest]));
    let wrong = |said: &[String]| said.iter().filter(|s| !s.ends_with(": ok")).cloned().collect::<Vec<_>>().join("\n");
    println!("{} scripts natively\n{}", native.len(), wrong(&native));
    let sandbox = play(&rig, "netd", boxed(&install, &rig, "segments", &["python3", "-u", &guest]));
    println!("{} scripts in the sandbox\n{}", sandbox.len(), wrong(&sandbox));
    assert!(!native.is_empty() && native.len() == sandbox.len(), "{native:?} {sandbox:?}");
    let log = log_of(&install, "segments");
    assert!(wrong(&native).is_empty() && wrong(&sandbox).is_empty(), "they are not as their scripts say\n{log}");
    install.nothing_left().unwrap();
}
