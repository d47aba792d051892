//! A network beyond the sandbox: namespaces joined by a pair of interfaces, with the host's kernel at the other end.
//!
//! Each case runs natively in the namespace and then in a sandbox that is given it, both with the same things at the other end: what is told
//! must be the same. Needs root, as namespaces with interfaces do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use cofferdam_integration::compare::{self, Run};
use cofferdam_integration::install::{Install, need, until};
use cofferdam_integration::walls::{Checks, descriptors, field, namespaces, service, threads};

/// One after the other: the interfaces of all have the same addresses, and a loaded machine is late.
static ONE: Mutex<()> = Mutex::new(());

/// Two network namespaces with an interface each, joined.
struct Rig {
    inner: String,
    outer: String,
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Rig {
    fn new(name: &str) -> Self {
        need("ip", "iproute2").unwrap();
        let n = std::process::id();
        let rig = Self { inner: format!("cdi{n}{name}"), outer: format!("cdo{n}{name}") };
        let (inner, outer) = (&rig.inner, &rig.outer);
        ip(&format!("netns add {inner}"));
        ip(&format!("netns add {outer}"));
        for namespace in [inner, outer] {
            // Addresses of its own making would come late, or not at all.
            let off = "for f in all default; do echo 1 > /proc/sys/net/ipv6/conf/$f/accept_dad; done; echo 0 > /proc/sys/net/ipv4/ping_group_range";
            let _ = Command::new("ip").args(["netns", "exec", namespace, "sh", "-c", off]).output();
        }
        ip(&format!(
            "link add v0 address 02:00:00:00:00:01 netns {outer} type veth peer name eth0 address 02:00:00:00:00:02 netns {inner}"
        ));
        for (namespace, device, n) in [(outer, "v0", 1), (inner, "eth0", 2)] {
            ip(&format!("-n {namespace} link set lo up"));
            ip(&format!("-n {namespace} addr add 10.99.0.{n}/24 brd + dev {device}"));
            ip(&format!("-n {namespace} addr add fd99::{n}/64 dev {device} nodad"));
            ip(&format!("-n {namespace} link set {device} up"));
        }
        ip(&format!("-n {inner} route add default via 10.99.0.1"));
        ip(&format!("-n {inner} -6 route add default via fd99::1"));
        let up = || {
            let shown = Command::new("ip").args(["-n", inner, "-br", "link", "show", "eth0"]).output().unwrap();
            String::from_utf8_lossy(&shown.stdout).contains(" UP ")
        };
        until("the interfaces are up", up);
        rig
    }

    /// One more.
    fn named(name: &str) -> Namespace {
        ip(&format!("netns add {name}"));
        Namespace(name.to_owned())
    }

    /// A command in one of them, on the host's kernel.
    fn natively(namespace: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).args(arguments);
        command
    }
}

/// A namespace that goes when it is dropped.
struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for namespace in [&self.inner, &self.outer] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

fn script(name: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/network").join(name).display().to_string()
}

/// A bundle over the host's root, which is read-only, with a /tmp of its own, in the inner namespace.
fn bundle(install: &Install, rig: &Rig, name: &str, arguments: &[&str]) -> PathBuf {
    let bundle = install.folder.join(name);
    std::fs::create_dir_all(&bundle).unwrap();
    let caps = ["NET_RAW", "NET_ADMIN", "NET_BIND_SERVICE", "SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE", "KILL"];
    let caps: Vec<String> = caps.iter().map(|c| format!("CAP_{c}")).collect();
    let mount = |at: &str, kind: &str| serde_json::json!({"destination": at, "type": kind, "source": kind});
    let namespaces = ["pid", "ipc", "uts", "mount"].map(|kind| serde_json::json!({"type": kind}));
    let mut namespaces = namespaces.to_vec();
    namespaces.push(serde_json::json!({"type": "network", "path": format!("/run/netns/{}", rig.inner)}));
    let document = serde_json::json!({
        "ociVersion": "1.0.2",
        "process": {
            "args": arguments, "cwd": "/", "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "PYTHONDONTWRITEBYTECODE=1"],
            "user": {"uid": 0, "gid": 0},
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
        },
        "root": {"path": "/", "readonly": true},
        "mounts": [mount("/proc", "proc"), mount("/tmp", "tmpfs"), mount("/run", "tmpfs"), mount("/dev", "tmpfs"), mount("/sys", "sysfs")],
        "linux": {"namespaces": namespaces},
    });
    std::fs::write(bundle.join("config.json"), document.to_string()).unwrap();
    bundle
}

fn boxed(install: &Install, rig: &Rig, name: &str, arguments: &[&str]) -> Command {
    let bundle = bundle(install, rig, name, arguments);
    let log = install.folder.join(format!("{name}.log"));
    let mut command = install.command(&["--log"]);
    command.arg(log).args(["run", "--bundle"]).arg(bundle).arg(name);
    command
}

/// What runs at the other end until it is dropped.
struct Peer(Child);

impl Peer {
    fn start(rig: &Rig, arguments: &[&str]) -> Self {
        Self::begin(Rig::natively(&rig.outer, arguments))
    }

    fn begin(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut word = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut word).unwrap();
        assert_eq!(&word, b"ready\n");
        // It goes on saying what it likes: nobody reads it.
        let mut rest = child.stdout.take().unwrap();
        std::thread::spawn(move || std::io::copy(&mut rest, &mut std::io::sink()));
        Self(child)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn log_of(install: &Install, name: &str) -> String {
    std::fs::read_to_string(install.folder.join(format!("{name}.log"))).unwrap_or_default()
}

fn the_same(install: &Install, name: &str, native: &Run, sandbox: &Run) {
    assert!(native.success, "natively it fails itself:\n{}", native.output);
    let differ = compare::differences(&native.output, &sandbox.output);
    assert!(
        differ.is_empty(),
        "{name}: - natively, + in the sandbox\n{}\n{}",
        differ.join("\n"),
        log_of(install, name)
    );
}

const LIMIT: Duration = Duration::from_secs(120);

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

/// A server within, called from beyond. What either side says is compared.
fn served(install: &Install, rig: &Rig, name: &str, server: &[&str], caller: &[&str]) {
    let both = |mut server: Command| {
        let mut serves = server.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let called = compare::run(Rig::natively(&rig.outer, caller), LIMIT).unwrap();
        if !called.success {
            let _ = serves.kill();
        }
        let within = serves.wait_with_output().unwrap();
        let said = [within.stdout, within.stderr].concat();
        let output = format!("{}{}", called.output, String::from_utf8_lossy(&said));
        Run { output, ..called }
    };
    let native = both(Rig::natively(&rig.inner, server));
    let sandbox = both(boxed(install, rig, name, server));
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

/// A path that loses, delays, doubles and reorders packets: a third namespace between the two, and a program there that passes frames on.
#[test]
fn what_is_sent_arrives_over_a_bad_path() {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    need("ethtool", "ethtool").unwrap();
    let (install, rig) = (Install::with_services("net-bad").unwrap(), Rig::new("b"));
    let middle = Rig::named(&rig.inner.replace("cdi", "cdm"));
    // The one pair becomes two: from the inner to the middle, and from there to the outer.
    ip(&format!("-n {} link set v0 netns {} name m0", rig.outer, middle.0));
    ip(&format!("link add v0 address 02:00:00:00:00:01 netns {} type veth peer name m1 netns {}", rig.outer, middle.0));
    ip(&format!("-n {} addr add 10.99.0.1/24 brd + dev v0", rig.outer));
    ip(&format!("-n {} addr add fd99::1/64 dev v0 nodad", rig.outer));
    for (namespace, device) in [(&rig.outer, "v0"), (&middle.0, "m0"), (&middle.0, "m1"), (&rig.inner, "eth0")] {
        ip(&format!("-n {namespace} link set {device} up"));
        // Each frame is one that fits the wire.
        let off = ["ethtool", "-K", device, "tso", "off", "gso", "off", "gro", "off", "tx", "off"];
        assert!(Rig::natively(namespace, &off).stdout(Stdio::null()).status().unwrap().success());
    }
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
    let mut child = boxed(&install, &rig, "death", &["python3", "-u", &server]).spawn().unwrap();
    let netd = || install.processes().into_iter().find(|(_, name)| name == "cofferdam-netd").map(|(pid, _)| pid);
    let kill = |pid: i32| {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    for _ in 0..3 {
        let held = Rig::natively(&rig.outer, &["python3", "-u", &script("held.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut held = held.unwrap();
        let mut word = [0; 5];
        std::io::Read::read_exact(held.stdout.as_mut().unwrap(), &mut word).unwrap();
        assert_eq!(&word, b"held\n");
        let before = netd().expect("there is a netd");
        kill(before);
        until("another netd", || netd().is_some_and(|pid| pid != before));
        drop(held.stdin.take());
        let told = held.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&told.stdout), "reset\nagain\n", "{}", log_of(&install, "death"));
    }
    let over = compare::run(Rig::natively(&rig.outer, &["python3", "-u", &script("over.py")]), LIMIT).unwrap();
    assert!(over.success, "{}", over.output);
    assert!(child.wait().unwrap().success());
    install.nothing_left().unwrap();
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
    threads(&mut checks, netd, "netd", 0);
    let open = descriptors(netd);
    for fd in &open {
        let fine = ["socket:[", "pipe:[", "/memfd:cofferdam-net", "anon_inode:[eventpoll]"];
        checks.that(fine.iter().any(|f| fd.starts_with(f)), || format!("netd holds {fd}"));
    }
    // Its channel, the bell, and one packet socket.
    let sockets = open.iter().filter(|fd| fd.starts_with("socket:[")).count();
    checks.that(sockets == 3, || format!("netd holds {sockets} sockets: {open:?}"));
    // The Sentry holds no packet socket, and netd's window is all that they share.
    let sentry = install.pids("cofferdam-sentry")[0];
    let packet = std::fs::read_to_string(format!("/proc/{netd}/net/packet")).unwrap();
    checks.that(packet.lines().count() == 1, || format!("in netd's own namespace: {packet}"));
    for (a, b) in namespaces(&netd.to_string()).iter().zip(namespaces(&sentry.to_string())) {
        checks.that(*a != b, || format!("netd and Sentry share {a}"));
    }
    let status = std::fs::read_to_string(format!("/proc/{netd}/status")).unwrap();
    let uid: u32 = field(&status, "Uid").split_whitespace().next().unwrap().parse().unwrap();
    checks.that(uid >= 0x7000_0000, || format!("netd runs as uid {uid}"));
    println!("{} checks of a live netd", checks.0);
    assert!(install.run(&["kill", "walls", "KILL"]).unwrap().status.success());
    child.wait().unwrap();
    install.nothing_left().unwrap();
}
