//! A network of a test's own: two namespaces joined by a pair of interfaces, a container in the one and the host's kernel in the other.
//! Needs root, as namespaces with interfaces do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers: they fail by panicking")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::compare::{self, Run};
use crate::install::{Install, need, until};
use crate::walls::{Checks, descriptors, field, namespaces, threads};

/// Two network namespaces with an interface each, joined.
#[derive(Debug)]
pub struct Rig {
    /// The one that containers are given.
    pub inner: String,
    /// The other end.
    pub outer: String,
}

/// Runs `ip` with these words.
pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Rig {
    /// Both, with their addresses.
    pub fn new(name: &str) -> Self {
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

    /// Parts the two by a third namespace: from the inner to its `m0`, and from its `m1` to the outer, each frame one that fits the wire. Something
    /// there must pass frames on.
    pub fn part(&self) -> Namespace {
        need("ethtool", "ethtool").unwrap();
        let middle = Self::named(&self.inner.replace("cdi", "cdm"));
        let (inner, outer, middle_name) = (&self.inner, &self.outer, &middle.0);
        ip(&format!("-n {outer} link set v0 netns {middle_name} name m0"));
        ip(&format!("link add v0 address 02:00:00:00:00:01 netns {outer} type veth peer name m1 netns {middle_name}"));
        ip(&format!("-n {outer} addr add 10.99.0.1/24 brd + dev v0"));
        ip(&format!("-n {outer} addr add fd99::1/64 dev v0 nodad"));
        for (namespace, device) in [(outer, "v0"), (middle_name, "m0"), (middle_name, "m1"), (inner, "eth0")] {
            ip(&format!("-n {namespace} link set {device} up"));
            let off = ["ethtool", "-K", device, "tso", "off", "gso", "off", "gro", "off", "tx", "off"];
            assert!(Self::natively(namespace, &off).stdout(Stdio::null()).status().unwrap().success());
        }
        middle
    }

    /// One more.
    pub fn named(name: &str) -> Namespace {
        ip(&format!("netns add {name}"));
        Namespace(name.to_owned())
    }

    /// A command in one of them, on the host's kernel.
    pub fn natively(namespace: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).args(arguments);
        command
    }
}

/// A namespace that goes when it is dropped.
#[derive(Debug)]
pub struct Namespace(pub String);

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

/// A bundle over the host's root, which is read-only, with a /tmp of its own, in the inner namespace.
pub fn bundle(install: &Install, rig: &Rig, name: &str, arguments: &[&str]) -> PathBuf {
    bundle_with(install, name, arguments, Some(format!("/run/netns/{}", rig.inner)))
}

/// The same with that network namespace, or the host's own.
pub fn bundle_with(install: &Install, name: &str, arguments: &[&str], network: Option<String>) -> PathBuf {
    let bundle = install.folder.join(name);
    std::fs::create_dir_all(&bundle).unwrap();
    let caps = ["NET_RAW", "NET_ADMIN", "NET_BIND_SERVICE", "SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE", "KILL"];
    let caps: Vec<String> = caps.iter().map(|c| format!("CAP_{c}")).collect();
    let mount = |at: &str, kind: &str| serde_json::json!({"destination": at, "type": kind, "source": kind});
    let namespaces = ["pid", "ipc", "uts", "mount"].map(|kind| serde_json::json!({"type": kind}));
    let mut namespaces = namespaces.to_vec();
    namespaces.extend(network.map(|path| serde_json::json!({"type": "network", "path": path})));
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

/// The command that runs such a container.
pub fn boxed(install: &Install, rig: &Rig, name: &str, arguments: &[&str]) -> Command {
    let bundle = bundle(install, rig, name, arguments);
    let log = install.folder.join(format!("{name}.log"));
    let mut command = install.command(&["--log"]);
    command.arg(log).args(["run", "--bundle"]).arg(bundle).arg(name);
    command
}

/// Somebody who is not root.
pub const SOMEBODY: u32 = 54_321;

/// A `do` in the inner namespace, of the installation's user.
pub fn within(install: &Install, rig: &Rig, options: &[&str], arguments: &[&str]) -> Command {
    let own = install.command(&[]);
    let uid = install.uid().to_string();
    let mut command = Rig::natively(&rig.inner, &[]);
    if uid != "0" {
        command.args(["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups"]);
    }
    command
        .arg(own.get_program())
        .args(own.get_args())
        .args(["do", "--cwd", "/"])
        .args(options)
        .arg("--")
        .args(arguments);
    for (name, value) in own.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// What runs at the other end until it is dropped.
#[derive(Debug)]
pub struct Peer(Child);

impl Peer {
    /// Starts it in the outer namespace and waits until it is ready.
    pub fn start(rig: &Rig, arguments: &[&str]) -> Self {
        Self::begin(Rig::natively(&rig.outer, arguments))
    }

    /// The same with a command of one's own.
    pub fn begin(mut command: Command) -> Self {
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

/// What the container of that name had to complain of.
pub fn log_of(install: &Install, name: &str) -> String {
    std::fs::read_to_string(install.folder.join(format!("{name}.log"))).unwrap_or_default()
}

/// How long a program may take.
pub const LIMIT: Duration = Duration::from_secs(120);

/// One of the programs that run within and at the other end.
pub fn script(name: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/network").join(name).display().to_string()
}

/// Fails unless a program that ended well natively said the same in the sandbox. `log`: what there is to complain of.
pub fn the_same(name: &str, native: &Run, sandbox: &Run, log: &str) {
    assert!(native.success, "natively it fails itself:\n{}", native.output);
    let differ = compare::differences(&native.output, &sandbox.output);
    assert!(differ.is_empty(), "{name}: - natively, + in the sandbox\n{}\n{log}", differ.join("\n"));
}

/// A server within that is called from the outer namespace: what both say.
pub fn served(rig: &Rig, mut server: Command, caller: &[&str]) -> Run {
    let mut serves = server.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let called = compare::run(Rig::natively(&rig.outer, caller), LIMIT).unwrap();
    if !called.success {
        let _ = serves.kill();
    }
    let within = serves.wait_with_output().unwrap();
    let said = [within.stdout, within.stderr].concat();
    let output = format!("{}{}", called.output, String::from_utf8_lossy(&said));
    Run { output, ..called }
}

/// `server.py` runs as `child`: its netd is killed again and again, under a connection. That is reset, the next one goes by another netd, and the
/// server lives until it is told to end.
pub fn survives_netd(install: &Install, rig: &Rig, mut child: Child, log: impl Fn() -> String) {
    let netd = || install.pids("cofferdam-netd").first().copied();
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
        let pid = rustix::process::Pid::from_raw(before).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        until("another netd", || netd().is_some_and(|pid| pid != before));
        drop(held.stdin.take());
        let told = held.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&told.stdout), "reset\nagain\n", "{}", log());
    }
    let over = compare::run(Rig::natively(&rig.outer, &["python3", "-u", &script("over.py")]), LIMIT).unwrap();
    assert!(over.success, "{}", over.output);
    assert!(child.wait().unwrap().success());
    install.nothing_left().unwrap();
}

/// What holds of every live netd: who it is, and that nothing is open but sockets, its window and what it waits by. `sockets`: how many.
pub fn netd_is_walled(checks: &mut Checks, install: &Install, netd: i32, sockets: usize) {
    threads(checks, netd, "netd", 0);
    let open = descriptors(netd);
    for fd in &open {
        let fine = ["socket:[", "pipe:[", "/memfd:cofferdam-net", "anon_inode:[eventpoll]"];
        checks.that(fine.iter().any(|f| fd.starts_with(f)), || format!("netd holds {fd}"));
    }
    let held = open.iter().filter(|fd| fd.starts_with("socket:[")).count();
    checks.that(held == sockets, || format!("netd holds {held} sockets: {open:?}"));
    let sentry = install.pids("cofferdam-sentry")[0];
    for (a, b) in namespaces(&netd.to_string()).iter().zip(namespaces(&sentry.to_string())) {
        checks.that(*a != b, || format!("netd and Sentry share {a}"));
    }
    let status = std::fs::read_to_string(format!("/proc/{netd}/status")).unwrap();
    let uid: u32 = field(&status, "Uid").split_whitespace().next().unwrap().parse().unwrap();
    checks.that(uid >= 0x7000_0000, || format!("netd runs as uid {uid}"));
}
