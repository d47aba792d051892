//! Real servers and clients over a network: each scenario (`network_software/*.sh`) has a server and one who asks it. The one runs in the
//! sandbox and the other on the host's kernel at the other end of a pair of interfaces, and then the other way about; before each both run on
//! the host's kernel. What who asks is told must be the same. Needs root, as namespaces with interfaces do.
//!
//! A scenario is a shell script with three functions: `prepare`, once and natively, fills the folder `$W`; `serve` starts servers in the
//! background and returns when they are up; `ask` prints what it was told by the server at `$A` (`$A6`). `prelude.sh` calls them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use cofferdam_integration::compare::{self, Run, differences};
use cofferdam_integration::debian;
use cofferdam_integration::install::Install;
use cofferdam_integration::network::{Peer, Rig, bundle, log_of};

/// One after the other: the interfaces of all have the same addresses, and a loaded machine is late.
static ONE: Mutex<()> = Mutex::new(());
/// A few seconds natively; a machine may be busy with much else.
const LIMIT: Duration = Duration::from_secs(150);
/// What all scenarios need.
const COMMON: [&str; 5] = ["iproute2", "curl", "openssl", "python3", "util-linux"];
/// What the containers are allowed: what engines allow, and to set up what they serve.
const RIGHTS: [&str; 13] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SYS_CHROOT",
    "MKNOD",
    "AUDIT_WRITE",
];

/// Who is in the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    Server,
    Client,
}

/// A scenario with all that it stands on.
struct Scene<'a> {
    install: &'a Install,
    rig: &'a Rig,
    name: &'a str,
    /// Prelude and script.
    script: String,
    /// Where `prepare` put things; seen within under the same name.
    shared: PathBuf,
}

const ENVIRONMENT: [&str; 4] =
    ["PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1"];

impl Scene<'_> {
    /// `peer` is the host's number of the other end.
    fn environment(&self, scratch: &Path, peer: u32) -> Vec<String> {
        let mut all = ENVIRONMENT.map(str::to_owned).to_vec();
        all.extend([format!("W={}", self.shared.display()), format!("T={}", scratch.display())]);
        all.extend([format!("A=10.99.0.{peer}"), format!("A6=fd99::{peer}")]);
        all
    }

    fn natively(&self, namespace: &str, part: &str, peer: u32) -> Command {
        let scratch = self.install.folder.join(format!("{part}-{peer}"));
        // Of the run before.
        let _ = std::fs::remove_dir_all(&scratch);
        std::fs::create_dir_all(&scratch).unwrap();
        // Nothing outlives it.
        let alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "env", "-i", "--default-signal"];
        let mut command = Rig::natively(namespace, &alone);
        command.args(self.environment(&scratch, peer)).args(["bash", "-c", &self.script, part]).current_dir(&scratch);
        command
    }

    fn boxed(&self, part: &str, peer: u32) -> Command {
        let name = format!("{}-{part}", self.name);
        let folder = bundle(self.install, self.rig, &name, &["bash", "-c", &self.script, part]);
        Install::edit(&folder, |document| {
            let process = &mut document["process"];
            process["env"] = self.environment(Path::new("/tmp"), peer).into();
            process["cwd"] = "/tmp".into();
            let rights: Vec<String> = RIGHTS.iter().map(|r| format!("CAP_{r}")).collect();
            process["capabilities"] =
                serde_json::json!({"bounding": rights, "effective": rights, "permitted": rights});
            process["rlimits"] = serde_json::json!([{"type": "RLIMIT_NOFILE", "soft": 4096, "hard": 4096}]);
            let mounts = document["mounts"].as_array_mut().unwrap();
            let options = ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
            mounts.push(serde_json::json!(
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": options}
            ));
            // What this machine's shells run when they begin is no matter of the test's.
            for place in ["/dev/shm", "/root"] {
                mounts.push(serde_json::json!({"destination": place, "type": "tmpfs", "source": "tmpfs"}));
            }
            let bind = serde_json::json!({"destination": &self.shared, "source": &self.shared, "type": "bind", "options": ["rbind", "ro"]});
            mounts.push(bind);
        })
        .unwrap();
        let mut command = self.install.command(&["--log"]);
        let log = self.install.folder.join(format!("{name}.log"));
        command.arg(log).args(["run", "--bundle"]).arg(folder).arg(name);
        command
    }

    /// One runs, the other asks. The server's word counts only when it does not end as it should.
    fn round(&self, mut server: Command, ask: Command) -> Run {
        let complains = std::fs::File::create(self.install.folder.join("server.log")).unwrap();
        server.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(complains);
        let mut server = server.spawn().unwrap();
        let mut word = Vec::new();
        let mut says = server.stdout.take().unwrap();
        let _ = says.by_ref().take(6).read_to_end(&mut word);
        if word != b"ready\n" {
            drop(server.stdin.take());
            let _ = server.kill();
            let _ = server.wait();
            panic!("{}: the server did not come up: {}", self.name, self.complaints());
        }
        let mut run = compare::run(ask, LIMIT).unwrap();
        drop(server.stdin.take());
        let ended = ended(server);
        run.output += &format!("server: {ended}\n");
        run.success &= ended == "status 0";
        run
    }

    fn complaints(&self) -> String {
        let said = std::fs::read_to_string(self.install.folder.join("server.log")).unwrap_or_default();
        let logs = ["serve", "ask"].map(|part| log_of(self.install, &format!("{}-{part}", self.name)));
        format!("{said}{}", logs.concat())
    }

    /// Once natively and once with one of the two in the sandbox.
    fn compare(&self, within: Within) {
        let (inner, outer) = (self.rig.inner.as_str(), self.rig.outer.as_str());
        let (native, boxed) = match within {
            Within::Server => {
                let ask = || self.natively(outer, "ask", 2);
                let native = self.round(self.natively(inner, "serve", 1), ask());
                (native, self.round(self.boxed("serve", 1), ask()))
            }
            Within::Client => {
                let serve = || self.natively(outer, "serve", 2);
                let native = self.round(serve(), self.natively(inner, "ask", 1));
                (native, self.round(serve(), self.boxed("ask", 1)))
            }
        };
        let who = format!("{within:?}").to_lowercase();
        assert!(native.success, "{}: natively it fails itself:\n{}{}", self.name, native.output, self.complaints());
        let differ = differences(&native.output, &boxed.output);
        let result = if differ.is_empty() { "same" } else { "DIFFERS" };
        let (before, after) = (native.time.as_millis(), boxed.time.as_millis());
        println!("{:<10} {who} within: native {before:>6} ms, sandbox {after:>6} ms  {result}", self.name);
        assert!(
            differ.is_empty(),
            "{}, {who} within: - natively, + in the sandbox\n{}\n{}",
            self.name,
            differ.join("\n"),
            self.complaints()
        );
    }
}

/// How a server that was told to end did so, within a while.
fn ended(mut server: Child) -> String {
    let until = Instant::now() + Duration::from_secs(30);
    while Instant::now() < until {
        if let Some(status) = server.try_wait().unwrap() {
            return compare::status(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = server.kill();
    let _ = server.wait();
    "does not end".into()
}

/// Runs a scenario with each of these in the sandbox.
fn scenario(name: &str, packages: &[&str], both: &[Within]) {
    staged(name, packages, both, |_| ());
}

/// The same after the network was made as somebody wants it, which stays so until the value is dropped.
fn staged<T>(name: &str, packages: &[&str], both: &[Within], stage: impl FnOnce(&Rig) -> T) {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    debian::install(&[&COMMON, packages].concat()).unwrap();
    let (install, rig) = (Install::with_services(&format!("soft-{name}")).unwrap(), Rig::new("n"));
    let stage = stage(&rig);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/network_software");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let script = format!("{}\n{}\nmain", read("prelude.sh"), read(&format!("{name}.sh")));
    let shared = install.folder.join("shared");
    std::fs::create_dir_all(&shared).unwrap();
    let scene = Scene { install: &install, rig: &rig, name, script, shared };
    let mut prepare = Command::new("env");
    prepare
        .args(["-i", "--default-signal"])
        .args(scene.environment(&scene.shared, 1))
        .arg(format!("F={}", folder.display()));
    prepare.args(["bash", "-c", &scene.script, "prepare"]).current_dir(&scene.shared);
    let prepared = compare::run(prepare, LIMIT).unwrap();
    assert!(prepared.success, "{name} cannot be prepared:\n{}", prepared.output);
    for within in both {
        scene.compare(*within);
    }
    install.nothing_left().unwrap();
    drop(stage);
}

const BOTH: [Within; 2] = [Within::Server, Within::Client];

#[test]
fn redis() {
    scenario("redis", &["redis-server", "redis-tools"], &BOTH);
}

#[test]
fn nginx() {
    scenario("nginx", &["nginx-light", "wrk", "apache2-utils"], &BOTH);
}

#[test]
fn postgres() {
    scenario("postgres", &["postgresql"], &BOTH);
}

#[test]
fn python() {
    scenario("python", &[], &BOTH);
}

#[test]
fn node() {
    cofferdam_integration::install::need("node", "nodejs").unwrap();
    scenario("node", &[], &BOTH);
}

#[test]
fn go() {
    cofferdam_integration::install::need("go", "golang-go").unwrap();
    scenario("go", &[], &BOTH);
}

#[test]
fn iperf() {
    scenario("iperf", &["iperf3"], &BOTH);
}

#[test]
fn ping() {
    scenario("ping", &["iputils-ping"], &BOTH);
}

#[test]
fn ssh() {
    scenario("ssh", &["openssh-server", "openssh-client"], &BOTH);
}

#[test]
fn apt() {
    scenario("apt", &["apt", "dpkg"], &[Within::Client]);
}

/// Over a path that loses, doubles, delays and reorders frames: TCP's other half is the host's.
#[test]
fn bad_path() {
    staged("bad_path", &["nginx-light", "redis-server", "redis-tools", "ethtool"], &BOTH, |rig| {
        let middle = rig.part();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/network/path.py").display().to_string();
        (Peer::begin(Rig::natively(&middle.0, &["python3", "-u", &path, "m0", "m1"])), middle)
    });
}
