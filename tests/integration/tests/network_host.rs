//! The host's own network: `do --network host`, and documents without a network namespace (podman's `--network=host`).
//!
//! The host is a namespace that is joined to another one. Each program runs natively in it, too: what is told must be the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use std::process::{Command, Stdio};
use std::sync::Mutex;

use cofferdam_integration::compare;
use cofferdam_integration::install::Install;
use cofferdam_integration::network::{
    LIMIT, Peer, Rig, SOMEBODY, bundle_with, log_of, netd_is_walled, script, served, survives_netd, the_same, within,
};
use cofferdam_integration::walls::{Checks, apart};

/// One after the other: the interfaces of all have the same addresses.
static ONE: Mutex<()> = Mutex::new(());

const HOST: [&str; 2] = ["--network", "host"];

/// A container whose document has no network namespace, run by a caller in the inner one.
fn boxed(install: &Install, rig: &Rig, name: &str, arguments: &[&str]) -> Command {
    let bundle = bundle_with(install, name, arguments, None);
    let own = install.command(&["--log"]);
    let mut command = Rig::natively(&rig.inner, &[]);
    command.arg(own.get_program()).args(own.get_args()).arg(install.folder.join(format!("{name}.log")));
    command.args(["run", "--bundle"]).arg(bundle).arg(name);
    command
}

#[test]
fn places_and_ends_are_the_hosts() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let rig = Rig::new("h");
    let _other = Peer::begin(Rig::natively(&rig.inner, &["python3", "-u", &script("host_other.py")]));
    let program = script("host.py");
    let arguments = ["env", "PYTHONDONTWRITEBYTECODE=1", "python3", "-u", &program];
    for who in [0, SOMEBODY] {
        let install = Install::with_services(&format!("host-{who}")).unwrap();
        let install = if who == 0 { install } else { install.as_user(who).unwrap() };
        let mut native = Rig::natively(&rig.inner, &[]);
        if who != 0 {
            let id = who.to_string();
            native.args(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]);
        }
        native.args(arguments);
        let native = compare::run(native, LIMIT).unwrap();
        let sandbox = compare::run(within(&install, &rig, &HOST, &arguments), LIMIT).unwrap();
        the_same(&format!("uid {who}"), &native, &sandbox, "");
        if who == 0 {
            let sandbox = compare::run(boxed(&install, &rig, "one", &arguments), LIMIT).unwrap();
            the_same("a document without a network namespace", &native, &sandbox, &log_of(&install, "one"));
        }
        install.nothing_left().unwrap();
    }
}

/// The programs of the test of networks that are taken over: a client within, and a server that is called from beyond.
#[test]
fn clients_and_servers() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("host-ends").unwrap(), Rig::new("e"));
    let anybody = "echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range";
    assert!(Rig::natively(&rig.inner, &["sh", "-c", anybody]).status().unwrap().success());
    {
        let _peer = Peer::start(&rig, &["python3", "-u", &script("peer.py")]);
        let client = script("client.py");
        let arguments = ["env", "PYTHONDONTWRITEBYTECODE=1", "python3", "-u", &client, "user"];
        let native = compare::run(Rig::natively(&rig.inner, &arguments), LIMIT).unwrap();
        let sandbox = compare::run(within(&install, &rig, &HOST, &arguments), LIMIT).unwrap();
        the_same("client", &native, &sandbox, "");
    }
    let (server, caller) = (script("server.py"), script("caller.py"));
    let caller = ["python3", "-u", &caller, "user"];
    let server = ["env", "PYTHONDONTWRITEBYTECODE=1", "python3", "-u", &server, "user"];
    let native = served(&rig, Rig::natively(&rig.inner, &server), &caller);
    let sandbox = served(&rig, within(&install, &rig, &HOST, &server), &caller);
    the_same("server", &native, &sandbox, "");
    install.nothing_left().unwrap();
}

/// netd is killed: connections are reset, listeners and datagrams are where they were by another one, and the command lives.
#[test]
fn a_netd_that_dies_is_replaced() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("host-death").unwrap(), Rig::new("k"));
    let server = script("server.py");
    let arguments = ["env", "PYTHONDONTWRITEBYTECODE=1", "python3", "-u", &server, "user"];
    let child = within(&install, &rig, &HOST, &arguments).spawn().unwrap();
    survives_netd(&install, &rig, child, String::new);
}

/// Rules are kept to: what they forbid neither leaves nor comes, at the host's loopback addresses neither.
#[test]
fn rules_hold() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("host-rules").unwrap(), Rig::new("r"));
    let _other = Peer::begin(Rig::natively(&rig.inner, &["python3", "-u", &script("host_other.py")]));
    let program = "import socket\n\
        def told(act):\n    try: return act()\n    except OSError as e: return e.strerror or 'timed out'\n\
        print(told(lambda: socket.create_connection(('127.0.0.1', 9999)) and 'connected'))\n\
        u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(2)\n\
        print(told(lambda: u.sendto(b'x', ('127.0.0.1', 9999))), told(lambda: u.recv(9)))\n\
        print(told(lambda: u.connect(('127.0.0.1', 9999))))\n";
    let run = |rules: &[&str]| {
        let mut options = HOST.to_vec();
        rules.iter().for_each(|rule| options.extend(["--net-rule", rule]));
        compare::run(within(&install, &rig, &options, &["python3", "-uc", program]), LIMIT)
            .unwrap()
            .output
            .replace("status 0\n", "")
    };
    assert_eq!(run(&[]), "connected\n1 b'x'\nNone\n");
    let none = "Connection refused\n1 timed out\nConnection refused\n";
    assert_eq!(run(&["out deny all 127.0.0.0/8:9999"]), none);
    assert_eq!(run(&["out allow udp 127.0.0.1:9999", "out default deny"]), "Connection refused\n1 b'x'\nNone\n");
    install.nothing_left().unwrap();
}

/// There is no netd until there is something to do for it; then it has its walls, and is in the host's network.
#[test]
fn the_walls_of_a_live_netd() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let (install, rig) = (Install::with_services("host-walls").unwrap(), Rig::new("w"));
    let program = "import socket, sys; print('up', flush=True); sys.stdin.readline(); \
                   s = socket.create_server(('127.0.0.1', 90)); u = socket.socket(type=socket.SOCK_DGRAM); u.bind(('', 0)); \
                   print('on', flush=True); sys.stdin.readline()";
    let mut command = within(&install, &rig, &HOST, &["python3", "-uc", program]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut word = [0; 3];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut word).unwrap();
    assert_eq!(install.pids("cofferdam-netd"), [] as [i32; 0], "nothing was asked of it");
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"\n").unwrap();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut word).unwrap();
    let netd = install.pids("cofferdam-netd")[0];
    let mut checks = Checks(0);
    apart(&mut checks, netd, "netd in the host's network", 0);
    // Its channel, the bell, and the two that the program has.
    netd_is_walled(&mut checks, &install, netd, 4);
    use std::os::unix::fs::MetadataExt;
    let hosts = std::fs::metadata(format!("/run/netns/{}", rig.inner)).unwrap();
    let its = std::fs::metadata(format!("/proc/{netd}/ns/net")).unwrap();
    checks.that(hosts.ino() == its.ino(), || "netd is in another network than the host's".into());
    println!("{} checks of a live netd", checks.0);
    drop(child.stdin.take());
    child.wait().unwrap();
    install.nothing_left().unwrap();
}
