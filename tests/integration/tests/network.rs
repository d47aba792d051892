//! A network beyond the sandbox: namespaces joined by a pair of interfaces, with the host's kernel at the other end.
//!
//! Each case runs natively in the namespace and then in a sandbox that is given it, both with the same things at the other end: what is told
//! must be the same. Needs root, as namespaces with interfaces do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use std::process::{Command, Stdio};
use std::sync::Mutex;

use cofferdam_integration::compare::{self, Run};
use cofferdam_integration::install::{Install, need, until};
use cofferdam_integration::network::{self, LIMIT, Peer, Rig, boxed, ip, log_of, script};
use cofferdam_integration::walls::{Checks, field, service};

#[path = "network/rules.rs"]
mod rules;

/// One after the other: the interfaces of all have the same addresses, and a loaded machine is late.
static ONE: Mutex<()> = Mutex::new(());

fn the_same(install: &Install, name: &str, native: &Run, sandbox: &Run) {
    network::the_same(name, native, sandbox, &log_of(install, name));
}

#[test]
fn a_program_is_told_what_its_network_is() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("net-look").unwrap(), Rig::new("l"));
    let look = script("look.sh");
    let native = compare::run(Rig::natively(&rig.inner, &["sh", &look]), LIMIT).unwrap();
    let sandbox = compare::run(boxed(&install, &rig, "look", &["sh", &look]), LIMIT).unwrap();
    the_same(&install, "look", &native, &sandbox);
    // What was taken over is the host's kernel's again.
    until("the network is given back", || {
        compare::run(Rig::natively(&rig.inner, &["sh", &look]), LIMIT).unwrap().output == native.output
    });
    install.nothing_left().unwrap();
}

#[test]
fn clients_within_reach_servers_beyond() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("net-client").unwrap(), Rig::new("c"));
    let _peer = Peer::start(&rig, &["python3", "-u", &script("peer.py")]);
    let client = script("client.py");
    let native = compare::run(Rig::natively(&rig.inner, &["python3", "-u", &client]), LIMIT).unwrap();
    let sandbox = compare::run(boxed(&install, &rig, "client", &["python3", "-u", &client]), LIMIT).unwrap();
    the_same(&install, "client", &native, &sandbox);
    install.nothing_left().unwrap();
}

/// Packet sockets: frames by hand, those of others, `arping` and `tcpdump`.
#[test]
fn frames_are_seen_and_sent() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    need("tcpdump", "tcpdump").unwrap();
    need("arping", "iputils-arping").unwrap();
    let (install, rig) = (Install::with_services("net-frames").unwrap(), Rig::new("f"));
    let _peer = Peer::start(&rig, &["python3", "-u", &script("frames_peer.py")]);
    let frames = script("frames.py");
    let native = compare::run(Rig::natively(&rig.inner, &["python3", "-u", &frames]), LIMIT).unwrap();
    let sandbox = compare::run(boxed(&install, &rig, "frames", &["python3", "-u", &frames]), LIMIT).unwrap();
    the_same(&install, "frames", &native, &sandbox);
    install.nothing_left().unwrap();
}

/// Buffers, segments and types of service that are asked for, as the packets show them.
#[test]
fn connections_are_as_options_and_settings_say() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("net-buffers").unwrap(), Rig::new("u"));
    let _peer = Peer::start(&rig, &["python3", "-u", &script("peer.py")]);
    let buffers = script("buffers.py");
    let native = compare::run(Rig::natively(&rig.inner, &["python3", "-u", &buffers]), LIMIT).unwrap();
    let sandbox = compare::run(boxed(&install, &rig, "buffers", &["python3", "-u", &buffers]), LIMIT).unwrap();
    the_same(&install, "buffers", &native, &sandbox);
    install.nothing_left().unwrap();
}

/// Datagrams to ports where nobody is: errors come back, but only so many.
#[test]
fn errors_are_limited_in_number() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("net-limit").unwrap(), Rig::new("e"));
    let (server, caller) = (script("closed.py"), script("closed_caller.py"));
    served(&install, &rig, "closed", &["python3", "-u", &server], &["python3", "-u", &caller]);
    install.nothing_left().unwrap();
}

/// A router between whose other link takes shorter packets: what sockets are told of it, and that what is sent arrives.
#[test]
fn packets_that_are_too_long_for_the_path() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("net-mtu").unwrap(), Rig::new("p"));
    let far = || {
        let far = Rig::named(&rig.inner.replace("cdi", "cdn"));
        let router = &rig.outer;
        ip(&format!("link add v1 netns {router} type veth peer name far0 netns {}", far.0));
        for (namespace, device, n) in [(router, "v1", 1), (&far.0, "far0", 2)] {
            ip(&format!("-n {namespace} addr add 10.98.0.{n}/24 brd + dev {device}"));
            ip(&format!("-n {namespace} addr add fd98::{n}/64 dev {device} nodad"));
            ip(&format!("-n {namespace} link set {device} up"));
        }
        // Who connects is told that longer segments are welcome: only the router knows better.
        ip(&format!("-n {router} link set v1 mtu 1300"));
        ip(&format!("-n {} route add default via 10.98.0.1 mtu 1300 advmss 1460", far.0));
        ip(&format!("-n {} -6 route add default via fd98::1 mtu 1300 advmss 1440", far.0));
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
        assert!(Rig::natively(router, &["sh", "-c", forward]).status().unwrap().success());
        let peer = Peer::begin(Rig::natively(&far.0, &["python3", "-u", &script("mtu_peer.py")]));
        (far, peer)
    };
    let program = script("mtu.py");
    let there = far();
    let native = compare::run(Rig::natively(&rig.inner, &["python3", "-u", &program]), LIMIT).unwrap();
    // What the host's kernel has learned of the path is nothing to the sandbox: it has learned it by itself.
    let sandbox = compare::run(boxed(&install, &rig, "mtu", &["python3", "-u", &program]), LIMIT).unwrap();
    drop(there);
    the_same(&install, "mtu", &native, &sandbox);
    install.nothing_left().unwrap();
}

/// A server within, called from beyond. What either side says is compared.
fn served(install: &Install, rig: &Rig, name: &str, server: &[&str], caller: &[&str]) {
    let native = network::served(rig, Rig::natively(&rig.inner, server), caller);
    let sandbox = network::served(rig, boxed(install, rig, name, server), caller);
    the_same(install, name, &native, &sandbox);
}

#[test]
fn clients_beyond_reach_servers_within() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("net-server").unwrap(), Rig::new("s"));
    let (server, caller) = (script("server.py"), script("caller.py"));
    served(&install, &rig, "server", &["python3", "-u", &server], &["python3", "-u", &caller]);
    install.nothing_left().unwrap();
}

/// Groups that a program joins and leaves: what the wire brings of it, and what is answered to who asks.
#[test]
fn groups_are_reported() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("net-groups").unwrap(), Rig::new("g"));
    let link = || {
        !String::from_utf8_lossy(&Rig::natively(&rig.outer, &["ip", "addr"]).output().unwrap().stdout)
            .contains("tentative")
    };
    until("the links have addresses", link);
    let (within, caller) = (script("groups.py"), script("groups_caller.py"));
    served(&install, &rig, "groups", &["python3", "-u", &within], &["python3", "-u", &caller]);
    install.nothing_left().unwrap();
}

/// A path that loses, delays, doubles and reorders packets: a third namespace between the two, and a program there that passes frames on.
#[test]
fn what_is_sent_arrives_over_a_bad_path() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("net-bad").unwrap(), Rig::new("b"));
    let middle = rig.part();
    let _path = Peer::begin(Rig::natively(&middle.0, &["python3", "-u", &script("path.py"), "m0", "m1"]));
    let _peer = Peer::start(&rig, &["python3", "-u", &script("peer.py")]);
    let transfer = script("transfer.py");
    let native = compare::run(Rig::natively(&rig.inner, &["python3", "-u", &transfer]), LIMIT).unwrap();
    let sandbox = compare::run(boxed(&install, &rig, "bad", &["python3", "-u", &transfer]), LIMIT).unwrap();
    the_same(&install, "bad", &native, &sandbox);
    install.nothing_left().unwrap();
}

/// netd is killed: connections are reset, listeners come back with another one, and the container lives.
#[test]
fn a_netd_that_dies_is_replaced() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("net-death").unwrap(), Rig::new("d"));
    let server = script("server.py");
    let child = boxed(&install, &rig, "death", &["python3", "-u", &server]).spawn().unwrap();
    network::survives_netd(&install, &rig, child, || log_of(&install, "death"));
}

/// netd as the host shows it: no right, no name, and nothing open but its packet socket, its channels and the window.
#[test]
fn the_walls_of_a_live_netd() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("net-walls").unwrap(), Rig::new("w"));
    let mut child = boxed(&install, &rig, "walls", &["sleep", "1000"]).spawn().unwrap();
    until("a netd", || install.pids("cofferdam-netd").len() == 1 && !install.stubs().is_empty());
    until("the program", || String::from_utf8_lossy(&install.run(&["list"]).unwrap().stdout).contains("running"));
    let netd = install.pids("cofferdam-netd")[0];
    let mut checks = Checks(0);
    service(&mut checks, netd, "netd", 0);
    // Its channel, the bell, and one packet socket.
    network::netd_is_walled(&mut checks, &install, netd, 3);
    // The Sentry holds no packet socket, and netd's window is all that they share.
    let packet = std::fs::read_to_string(format!("/proc/{netd}/net/packet")).unwrap();
    checks.that(packet.lines().count() == 1, || format!("in netd's own namespace: {packet}"));
    println!("{} checks of a live netd", checks.0);
    assert!(install.run(&["kill", "walls", "KILL"]).unwrap().status.success());
    child.wait().unwrap();
    install.nothing_left().unwrap();
}

/// Who answers for names within the namespace, as Docker does, is asked by programs within the sandbox.
#[test]
fn names_are_asked_of_the_engine() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("net-names").unwrap(), Rig::new("q"));
    let _names = Peer::begin(Rig::natively(&rig.inner, &["python3", "-u", &script("names.py")]));
    let asks = "import socket, threading\n\
                def ask(n): told[n] = socket.getaddrinfo('x' * n, 80, socket.AF_INET, socket.SOCK_STREAM)[0][4]\n\
                told = {}\n\
                all = [threading.Thread(target=ask, args=(n,)) for n in range(1, 60)]\n\
                [t.start() for t in all], [t.join() for t in all]\n\
                print(sorted(told.items()))";
    let bundle = network::bundle(&install, &rig, "names", &["python3", "-c", asks]);
    let resolv = install.folder.join("resolv.conf");
    std::fs::write(&resolv, "nameserver 127.0.0.11\noptions ndots:0\n").unwrap();
    Install::edit(&bundle, |document| {
        let mount = serde_json::json!({"destination": "/etc/resolv.conf", "type": "bind", "source": resolv, "options": ["bind", "ro"]});
        document["mounts"].as_array_mut().unwrap().push(mount);
    })
    .unwrap();
    let mut command = install.command(&["run", "--bundle"]);
    command.arg(bundle).arg("names");
    let run = compare::run(command, LIMIT).unwrap();
    let wanted: Vec<String> = (1..60).map(|n| format!("({n}, ('10.9.8.{n}', 80))")).collect();
    assert_eq!(run.output, format!("[{}]\nstatus 0\n", wanted.join(", ")));
    install.nothing_left().unwrap();
}

/// The same by streams, where answers are too long for datagrams: beside the same natively.
#[test]
fn long_answers_of_the_engine_arrive() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("net-asks").unwrap(), Rig::new("a"));
    let _names = Peer::begin(Rig::natively(&rig.inner, &["python3", "-u", &script("names.py"), "127.0.0.11"]));
    let folder = std::path::Path::new("/etc/netns").join(&rig.inner);
    std::fs::create_dir_all(&folder).unwrap();
    let resolv = folder.join("resolv.conf");
    std::fs::write(&resolv, "nameserver 127.0.0.11\noptions ndots:0\n").unwrap();
    let asks = script("asks.py");
    let native = compare::run(Rig::natively(&rig.inner, &["python3", "-u", &asks, "127.0.0.11"]), LIMIT);
    let bundle = network::bundle(&install, &rig, "asks", &["python3", "-u", &asks, "127.0.0.11"]);
    Install::edit(&bundle, |document| {
        let mount = serde_json::json!({"destination": "/etc/resolv.conf", "type": "bind", "source": resolv, "options": ["bind", "ro"]});
        document["mounts"].as_array_mut().unwrap().push(mount);
    })
    .unwrap();
    let mut command = install.command(&["--log"]);
    command.arg(install.folder.join("asks.log")).args(["run", "--bundle"]).arg(bundle).arg("asks");
    let sandbox = compare::run(command, LIMIT);
    std::fs::remove_dir_all(&folder).unwrap();
    let _ = std::fs::remove_dir("/etc/netns");
    the_same(&install, "asks", &native.unwrap(), &sandbox.unwrap());
    install.nothing_left().unwrap();
}
