//! A real systemd as process 1 of namespaces of its own, over this machine's root, with cgroups of its own and a system bus: in a second.
//!
//! It starts nothing but the bus: it sees no unit of this machine (what belongs to a boot, as the emptying of `/tmp`, would be done to
//! this machine), and `/run` is empty. A user's own systemd is started as it is asked
//! for ([`Systemd::user`]), and what that user runs is in a session, whose cgroup is root's, as after a login.

use std::io::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::install::need;

/// Makes a cgroup in every hierarchy, goes there, and becomes process 1 of new namespaces; $1 is the cgroup's name, $2 the version.
const BOOT: &str = r#"
name=$1 version=$2
mounts() { while read -r _ at kind options _; do case $kind in cgroup|cgroup2) echo "$at $kind $options";; esac; done < /proc/mounts; }
all=$(mounts)
echo "$all" | while read -r at kind options; do
    mkdir "$at/$name"
    if [ -e "$at/$name/cpuset.mems" ] && [ $kind = cgroup ]; then
        for f in cpuset.cpus cpuset.mems; do cat "$at/$f" > "$at/$name/$f"; done
    fi
    if [ $kind = cgroup2 ]; then
        for c in $(cat "$at/cgroup.controllers"); do echo "+$c" > "$at/cgroup.subtree_control" || :; done
    fi
done
export all name version
# Who waits outside is in none of them: version 2 has no process where it gives controllers on.
exec unshare --mount --pid --uts --ipc --fork --kill-child sh -ec '
echo "$all" | while read -r at _; do echo $$ > "$at/$name/cgroup.procs"; done
exec unshare --cgroup sh -ec "$inner"'"#;

/// What process 1 does from then on.
const INNER: &str = r#"
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
for folder in /etc/systemd/system /etc/systemd/user /lib/systemd/system /lib/systemd/user; do
    mkdir -p $folder
    mount -t tmpfs tmpfs $folder
done
mkdir -p /run/systemd/system /run/systemd/user /run/lock /run/dbus
mounted() { while read -r _ at _; do case $at in /sys/fs/cgroup*) echo "$at";; esac; done < /proc/mounts; }
while [ -n "$(mounted)" ]; do umount -l $(mounted | tail -n 1); done
if [ $version = 2 ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
    mount -t tmpfs tmpfs /sys/fs/cgroup
    echo "$all" | while read -r at kind options; do
        [ $kind = cgroup ] || continue
        what=
        for word in $(echo "$options" | tr , " "); do
            case $word in rw|relatime|nosuid|nodev|noexec|xattr|release_agent=*) ;; name=*) what=none,$word;; *) what=$what${what:+,}$word;; esac
        done
        mkdir "/sys/fs/cgroup/${at##*/}"
        mount -t cgroup -o "$what" cgroup "/sys/fs/cgroup/${at##*/}"
    done
fi
cd /run/systemd/system
# What services of a client's ask for.
for target in sysinit basic shutdown; do printf "[Unit]\nDefaultDependencies=no\n" > $target.target; done
printf "[Unit]\nDefaultDependencies=no\nWants=dbus.socket dbus.service\nAfter=dbus.service\n" > rig.target
printf "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/run/dbus/system_bus_socket\n" > dbus.socket
printf "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\n[Service]\nType=notify\nNotifyAccess=main\nExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation\n" > dbus.service
# As Debian has it, without a login (PAM) and what needs one.
printf "[Unit]\nDefaultDependencies=no\nAfter=dbus.service\n[Service]\nUser=%%i\nGroup=%%i\nType=notify\nSlice=user-%%i.slice\nKillMode=mixed\nDelegate=pids memory cpu\nRuntimeDirectory=user/%%i\nRuntimeDirectoryMode=0700\nEnvironment=HOME=/ XDG_RUNTIME_DIR=/run/user/%%i\nExecStart=/lib/systemd/systemd --user --unit=rig.target --log-target=journal-or-kmsg\n" > user@.service
cd ../user
printf "[Unit]\nDefaultDependencies=no\nWants=dbus.socket dbus.service\nAfter=dbus.service\n" > rig.target
printf "[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\nRequires=exit.service\nAfter=exit.service\n" > exit.target
printf "[Unit]\nDefaultDependencies=no\nSuccessAction=exit-force\n[Service]\nType=oneshot\nExecStart=/bin/true\n" > exit.service
printf "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=%%t/bus\n" > dbus.socket
printf "[Unit]\nDefaultDependencies=no\nRequires=dbus.socket\n[Service]\nType=notify\nNotifyAccess=main\nExecStart=/usr/bin/dbus-daemon --session --address=systemd: --nofork --nopidfile --systemd-activation\n" > dbus.service
exec env -i container=rig PATH="$PATH" /lib/systemd/systemd --system --unit=rig.target --log-target=console --log-level=info --show-status=no
"#;

/// An account and its systemd.
const USER: &str = r#"
for file in passwd group; do cp /etc/$file /run/$file && mount --bind /run/$file /etc/$file; done
echo rig:x:$0:$0::/:/bin/sh >> /etc/passwd && echo rig:x:$0: >> /etc/group
systemctl start user@$0.service 2>&1 && echo started"#;

/// It, until it goes.
#[derive(Debug)]
pub struct Systemd {
    outer: Child,
    pid: i32,
    name: String,
    log: PathBuf,
}

/// The versions of cgroups that a systemd can have on this machine.
pub fn versions() -> Vec<u32> {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let has = |kind: &str| mounts.lines().any(|l| l.split(' ').nth(2) == Some(kind));
    [(1, "cgroup"), (2, "cgroup2")].into_iter().filter(|(_, kind)| has(kind)).map(|(version, _)| version).collect()
}

/// The version that has the controllers here.
pub fn with_limits() -> u32 {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let first = |l: &str| l.split(' ').nth(2) == Some("cgroup") && l.contains("memory");
    if mounts.lines().any(first) { 1 } else { 2 }
}

impl Systemd {
    /// Boots it with cgroups of this version. `scratch`: where its log goes.
    pub fn boot(scratch: &Path, version: u32) -> std::io::Result<Self> {
        need("systemctl", "systemd")?;
        need("dbus-daemon", "dbus")?;
        let name = format!("cofferdam-test-systemd-{version}-{}", std::process::id());
        let log = scratch.join(format!("systemd-{version}.log"));
        let mut boot = Command::new("sh");
        boot.args(["-ec", BOOT, "sh", &name, &version.to_string()]).env("inner", INNER).stdin(Stdio::null());
        boot.stdout(std::fs::File::create(&log)?).stderr(std::fs::File::options().append(true).open(&log)?);
        let outer = boot.spawn()?;
        let mut it = Self { outer, pid: 0, name, log };
        let children = format!("/proc/{0}/task/{0}/children", it.outer.id());
        // In an emulated machine on a busy host the clock may run several times too fast.
        let end = Instant::now() + Duration::from_secs(240);
        loop {
            let text = std::fs::read_to_string(&children).unwrap_or_default();
            it.pid = text.trim().parse().unwrap_or(0);
            let state = if it.pid == 0 { String::new() } else { it.says(&["systemctl", "is-system-running"]) };
            if state.trim() == "running" {
                return Ok(it);
            }
            if Instant::now() > end {
                return Err(Error::other(format!("systemd ({}) is {state:?}: {}", it.pid, it.log())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A command as it is in there.
    pub fn command(&self, of: &Command) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.pid)).args(["--mount", "--pid", "--cgroup", "--uts", "--ipc", "--"]);
        command.arg(of.get_program()).args(of.get_args()).stdin(Stdio::null());
        command
    }

    /// Makes a user, known in there alone, and starts his systemd.
    pub fn user(&self, uid: u32) -> std::io::Result<()> {
        let started = self.says(&["sh", "-c", USER, &uid.to_string()]);
        match started.trim() {
            "started" => Ok(()),
            other => Err(Error::other(format!("user@{uid}.service: {other}: {}", self.log()))),
        }
    }

    /// A command as that user has it, who knows where the bus of his systemd is.
    pub fn by(&self, uid: u32, of: &Command) -> Command {
        self.command(&by(Command::new("setpriv"), uid, of))
    }

    /// The same in a session of his, whose cgroup is root's.
    pub fn session(&self, uid: u32, of: &Command) -> Command {
        let mut command = Command::new("systemd-run");
        command.args(["--scope", "--quiet", "--collect", &format!("--slice=user-{uid}.slice"), "--", "setpriv"]);
        self.command(&by(command, uid, of))
    }

    /// A path in there, as it is reached from outside.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.pid))
    }

    /// What a command in there prints.
    pub fn says(&self, words: &[&str]) -> String {
        let mut command = Command::new("true");
        if let Some((program, arguments)) = words.split_first() {
            command = Command::new(program);
            command.args(arguments);
        }
        let output = self.command(&command).output();
        output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// `setpriv`, called by `command`, that becomes the user and does as that has it.
fn by(mut command: Command, uid: u32, of: &Command) -> Command {
    command.args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups", "--", "env", "-i"]);
    command.arg(format!("PATH={}", std::env::var("PATH").unwrap_or_default()));
    command.arg(format!("XDG_RUNTIME_DIR=/run/user/{uid}")).arg(of.get_program()).args(of.get_args());
    command
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // All that is in there ends with it.
        let _ = self.outer.kill();
        let _ = self.outer.wait();
        let clean = r#"while read -r _ at kind _; do case $kind in cgroup|cgroup2) for n in 1 2 3 4 5 6 7 8 9; do
            [ -d "$at/$1" ] || break; find "$at/$1" -depth -type d -exec rmdir {} + 2> /dev/null || sleep 0.1; done;; esac; done < /proc/mounts"#;
        let _ = Command::new("sh").args(["-c", clean, "sh", &self.name]).status();
    }
}
