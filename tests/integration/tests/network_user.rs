//! `do` with a network behind its caller's sockets, in a namespace that is joined to another one with the host's kernel at the other end.
//!
//! Each program runs natively in the namespace, too: what is told must be the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use std::process::Stdio;
use std::sync::Mutex;

use cofferdam_integration::compare::{self, Run};
use cofferdam_integration::install::{Install, until};
use cofferdam_integration::network::{
    LIMIT, Peer, Rig, SOMEBODY, netd_is_walled, script, served, survives_netd, the_same, within,
};
use cofferdam_integration::walls::{Checks, apart, namespaces};

/// One after the other: the interfaces of all have the same addresses.
static ONE: Mutex<()> = Mutex::new(());

#[test]
fn clients_reach_what_their_caller_does() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let rig = Rig::new("u");
    // As distributions set it: anybody may send echo requests.
    let anybody = "echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range";
    assert!(Rig::natively(&rig.inner, &["sh", "-c", anybody]).status().unwrap().success());
    let _peer = Peer::start(&rig, &["python3", "-u", &script("peer.py")]);
    let client = script("client.py");
    let arguments = ["env", "PYTHONDONTWRITEBYTECODE=1", "python3", "-u", &client, "user"];
    let native = compare::run(Rig::natively(&rig.inner, &arguments), LIMIT).unwrap();
    for who in [0, SOMEBODY] {
        let install = Install::with_services(&format!("user-{who}")).unwrap();
        let install = if who == 0 { install } else { install.as_user(who).unwrap() };
        // For root the supervisor is started by somebody with another network, who stays.
        let resident = (who == 0).then(|| {
            let mut first = install.command(&["do", "--network", "none", "--", "sh", "-c", "echo up; sleep 1000"]);
            let mut first = first.stdout(Stdio::piped()).spawn().unwrap();
            let mut word = [0; 3];
            std::io::Read::read_exact(first.stdout.as_mut().unwrap(), &mut word).unwrap();
            first
        });
        let sandbox = compare::run(within(&install, &rig, &[], &arguments), LIMIT).unwrap();
        the_same(&format!("uid {who}"), &native, &sandbox, "");
        if let Some(mut resident) = resident {
            resident.kill().unwrap();
            resident.wait().unwrap();
        }
        install.nothing_left().unwrap();
    }
}

/// A server within, called from beyond by published ports. What either side says is compared.
#[test]
fn published_ports_lead_inside() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("user-ports").unwrap(), Rig::new("p"));
    let (server, caller) = (script("server.py"), script("caller.py"));
    let caller = ["python3", "-u", &caller, "user"];
    let server = ["env", "PYTHONDONTWRITEBYTECODE=1", "python3", "-u", &server, "user"];
    let native = served(&rig, Rig::natively(&rig.inner, &server), &caller);
    let ports = ["-p", "7:7", "-p", "8:8", "-p", "10.99.0.2:9:9/tcp", "--publish", "7:7/udp"];
    let sandbox = served(&rig, within(&install, &rig, &ports, &server), &caller);
    the_same("published", &native, &sandbox, "");
    install.nothing_left().unwrap();
}

/// A person who asks for the impossible is told so, and nothing is left.
#[test]
fn ports_that_cannot_be_had_are_told() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("user-wrong").unwrap(), Rig::new("r"));
    let _peer = Peer::begin(Rig::natively(
        &rig.inner,
        &[
            "python3",
            "-uc",
            "import socket, time; s = socket.create_server(('', 8080)); print('ready'); time.sleep(1000)",
        ],
    ));
    for (options, told) in [
        (&["-p", "8080:80"][..], "port 8080/tcp: Address already in use"),
        (&["-p", "10.1.2.3:8081:80"], "10.1.2.3 port 8081/tcp: Cannot assign requested address"),
        (&["-p", "80"], "PORT:PORT_INSIDE"),
        (&["--network", "none", "-p", "8081:80"], "only with --network user or sandbox"),
        (&["--network", "ns:/run/netns/no-such"], "/run/netns/no-such"),
        (&["--network", "bridge"], "want user, host, sandbox, none, or ns:PATH"),
    ] {
        let output = within(&install, &rig, options, &["true"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(told), "{options:?}: {said}");
    }
    install.nothing_left().unwrap();
}

/// `ns:PATH`: what is there is the sandbox's while it runs.
#[test]
fn a_namespace_can_be_had_whole() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("user-whole").unwrap(), Rig::new("n"));
    let look = ["ip", "-br", "addr", "show", "eth0"];
    let native = compare::run(Rig::natively(&rig.inner, &look), LIMIT).unwrap();
    let place = format!("ns:/run/netns/{}", rig.inner);
    let mut sandbox = install.command(&["do", "--network", &place, "--"]);
    sandbox.args(["sh", "-c", "ip -br addr show eth0; ping -q -c1 10.99.0.1 > /dev/null || echo no answer"]);
    let sandbox = compare::run(sandbox, LIMIT).unwrap();
    let words = |run: &Run| {
        let all: Vec<_> = run.output.split_whitespace().map(str::to_owned).filter(|w| !w.contains('@')).collect();
        all.into_iter().filter(|w| !w.starts_with("fe80") && w != "eth0").collect::<Vec<_>>()
    };
    assert_eq!(words(&native), words(&sandbox), "{}\n{}", native.output, sandbox.output);
    until("it is given back", || {
        compare::run(Rig::natively(&rig.inner, &look), LIMIT).unwrap().output == native.output
    });
    install.nothing_left().unwrap();
}

/// netd is killed: connections are reset, published ports lead inside again by another one, and the command lives.
#[test]
fn a_netd_that_dies_is_replaced() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("user-death").unwrap(), Rig::new("k"));
    let server = script("server.py");
    let arguments = ["env", "PYTHONDONTWRITEBYTECODE=1", "python3", "-u", &server, "user"];
    let child = within(&install, &rig, &["-p", "7:7"], &arguments).spawn().unwrap();
    survives_netd(&install, &rig, child, String::new);
}

/// There is no netd until there is something to do for it; then it has its walls: nobody's rights, no name, nothing open but its sockets.
#[test]
fn the_walls_of_a_live_netd() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("user-walls").unwrap(), Rig::new("w"));
    let _peer = Peer::start(&rig, &["python3", "-u", &script("peer.py")]);
    let program = "import socket, sys; print('up', flush=True); sys.stdin.readline(); \
                   c = socket.create_connection(('10.99.0.1', 7)); print('on', flush=True); sys.stdin.readline()";
    let mut command = within(&install, &rig, &[], &["python3", "-uc", program]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut word = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut word).unwrap();
    assert_eq!(install.pids("cofferdam-netd"), [] as [i32; 0], "nothing was asked of it");
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"\n").unwrap();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut word).unwrap();
    let netd = install.pids("cofferdam-netd")[0];
    let mut checks = Checks(0);
    apart(&mut checks, netd, "netd in its caller's network", 0);
    // Its channel, the bell, and the one connection.
    netd_is_walled(&mut checks, &install, netd, 3);
    // Of its namespaces the network's is the caller's, and no other.
    let callers = std::fs::metadata(format!("/run/netns/{}", rig.inner)).unwrap();
    let its = std::fs::metadata(format!("/proc/{netd}/ns/net")).unwrap();
    use std::os::unix::fs::MetadataExt;
    checks.that(callers.ino() == its.ino(), || "netd is in another network than its caller's".into());
    let (own, host) = (namespaces(&netd.to_string()), namespaces("self"));
    checks.that(own.iter().all(|ns| !host.contains(ns)), || format!("netd shares a namespace with the host: {own:?}"));
    println!("{} checks of a live netd", checks.0);
    drop(child.stdin.take());
    child.wait().unwrap();
    install.nothing_left().unwrap();
}
