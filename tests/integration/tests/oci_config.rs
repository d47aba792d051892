//! What a container sees of its document, beside runc with the same bundle: process fields, mounts, paths, settings, seccomp
//! profiles, namespaces of users, propagation. One program prints what it sees; both must print the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use std::path::Path;
use std::process::{Command, Stdio};

use cofferdam_integration::install::{Install, need};
use serde_json::{Value, json};

/// Runs a bundle under runc and under us: exit status, stdout, stderr.
fn both(install: &Install, bundle: &Path) -> [(Option<i32>, String, String); 2] {
    // What we change of the root is gone with the container: runc comes second.
    let ours = install.run(&["--overlay", "on", "run", "--bundle", bundle.to_str().unwrap(), "ours"]).unwrap();
    let runc = Command::new("runc")
        .arg("--root")
        .arg(install.folder.join("runc"))
        .args(["run", "--bundle"])
        .arg(bundle)
        .arg(format!("cofferdam-config-{}", bundle.parent().unwrap().file_name().unwrap().to_str().unwrap()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    [runc, ours].map(|o| (o.status.code(), text(&o.stdout), text(&o.stderr)))
}

/// A bundle whose process runs a script.
fn bundle(install: &Install, script: &str) -> std::path::PathBuf {
    let bundle = install.busybox("b", &["sh", "-c", script], false).unwrap();
    let root = bundle.join("rootfs");
    for applet in [
        "grep", "sort", "sed", "awk", "uname", "cut", "find", "df", "ulimit", "nice", "mknod", "chown", "umount",
        "ping",
    ] {
        let _ = std::os::unix::fs::symlink("busybox", root.join("bin").join(applet));
    }
    bundle
}

/// Has both run a script with a document as `edit` makes it, and asserts that they tell the same.
fn same(name: &str, script: &str, edit: impl FnOnce(&mut Value)) {
    need("runc", "runc").unwrap();
    let install = Install::with_services(name).unwrap();
    let bundle = bundle(&install, script);
    Install::edit(&bundle, edit).unwrap();
    let [runc, ours] = both(&install, &bundle);
    assert_eq!((&ours.0, &ours.1), (&runc.0, &runc.1), "runc: {runc:?}\nours: {ours:?}");
    assert_ne!(runc.1, "", "nothing to compare: {runc:?}");
    install.nothing_left().unwrap();
}

fn push(document: &mut Value, list: &str, value: Value) {
    document.pointer_mut(list).and_then(Value::as_array_mut).unwrap().push(value);
}

#[test]
fn process_fields() {
    let script = "id; umask; ulimit -n; ulimit -c; grep -E '^(Cap|NoNewPrivs|Groups|Uid|Gid)' /proc/self/status; \
                  cat /proc/self/oom_score_adj; pwd; echo $A $B; hostname; cat /proc/sys/kernel/domainname; uname -m";
    same("oci-process", script, |d| {
        let p = &mut d["process"];
        p["user"] = json!({"uid": 33, "gid": 33, "additionalGids": [50, 60], "umask": 23});
        p["rlimits"] =
            json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]);
        p["capabilities"]["inheritable"] = json!(["CAP_KILL", "CAP_NO_SUCH"]);
        p["oomScoreAdj"] = json!(300);
        p["cwd"] = json!("/tmp");
        p["env"] = json!(["PATH=/bin", "A=1", "B=two words"]);
    });
}

#[test]
fn the_hosts_name() {
    same("oci-hostname", "hostname; uname -n; cat /proc/sys/kernel/hostname", |d| {
        d.as_object_mut().unwrap().remove("hostname");
        d["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "uts");
    });
}

#[test]
fn mounts_with_their_options() {
    let script = "cut -d' ' -f5,6 /proc/self/mountinfo | grep ^/m | sort; grep ' /m' /proc/mounts | grep -v ext4 | grep -v 9p | cut -d' ' -f2-3 | sort; \
                  cat /m/bound/f /m/file; ls -ld /m/tmp /m/mode | cut -c1-10; df -k /m/tmp | awk 'END {print $2}'; \
                  echo x > /m/ro/f || echo refused; echo y > /m/tmp/y && cat /m/tmp/y; cat /m/over/f; ls /m/link /elsewhere; \
                  cat /m/up/kept; echo more > /m/up/new; ls /m/up";
    same("oci-mounts", script, |d| {
        let host = std::env::temp_dir().join(format!("cofferdam-test-oci-mounts-{}/host", std::process::id()));
        std::fs::create_dir_all(host.join("d")).unwrap();
        std::fs::write(host.join("d/f"), "bound\n").unwrap();
        let root = host.parent().unwrap().join("b/rootfs");
        std::fs::create_dir_all(root.join("m/up")).unwrap();
        std::fs::create_dir_all(root.join("elsewhere")).unwrap();
        std::fs::write(root.join("m/up/kept"), "kept\n").unwrap();
        // A link that leads out of the root leads nowhere but into it.
        std::os::unix::fs::symlink("/../../elsewhere", root.join("m/link")).unwrap();
        let (dir, file) = (host.join("d"), host.join("d/f"));
        d["root"]["readonly"] = json!(false);
        for mount in [
            json!({"destination": "/m/bound", "type": "bind", "source": dir, "options": ["rbind", "nosuid", "nodev", "noexec", "noatime"]}),
            json!({"destination": "/m/ro", "type": "none", "source": dir, "options": ["bind", "ro", "rw", "ro"]}),
            json!({"destination": "/m/file", "source": file, "options": ["bind", "ro"]}),
            json!({"destination": "m/tmp", "type": "tmpfs", "source": "t", "options": ["size=64k", "mode=1700", "nosymfollow", "strictatime"]}),
            json!({"destination": "/m/mode", "type": "tmpfs", "source": "t", "options": ["nodiratime", "relatime", "nr_inodes=100", "dirsync"]}),
            json!({"destination": "/m/over", "type": "tmpfs", "source": "t"}),
            json!({"destination": "/m/over", "type": "bind", "source": dir, "options": ["rbind", "rprivate", "rro"]}),
            json!({"destination": "/m/link", "type": "bind", "source": dir, "options": ["rbind"]}),
            json!({"destination": "/m/../m/proc/./x", "type": "proc", "source": "proc"}),
            json!({"destination": "/m/up", "type": "tmpfs", "source": "t", "options": ["tmpcopyup", "rw"]}),
        ] {
            push(d, "/mounts", mount);
        }
    });
}

/// What is in a directory of the host, but for times. Whiteouts in directories whose names begin with `opaque` are left out: those may be
/// opaque by a mark, too.
fn content(directory: &Path) -> Vec<String> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let (path, m) = (entry.path(), entry.metadata().unwrap());
        let whiteout = m.file_type().is_char_device() && m.rdev() == 0;
        if whiteout && path.to_string_lossy().contains("/opaque") {
            continue;
        }
        let mut hash = DefaultHasher::new();
        if m.is_file() {
            std::fs::read(&path).unwrap().hash(&mut hash);
        } else if m.is_symlink() {
            std::fs::read_link(&path).unwrap().hash(&mut hash);
        }
        let links = if m.is_file() { m.nlink() } else { 0 };
        let (mode, uid, gid, rdev) = (m.mode(), m.uid(), m.gid(), m.rdev());
        lines.push(format!("{} {mode:o} {uid}:{gid} {links} {rdev:x} {:x}", path.display(), hash.finish()));
        if m.is_dir() {
            lines.extend(content(&path));
        }
    }
    lines.sort();
    lines
}

/// The layers as they are before anything was changed.
fn layers(host: &Path) {
    let _ = std::fs::remove_dir_all(host);
    for dir in
        ["low/dir/deep", "low/opaque/sub", "low/opaque-moved/sub", "low/empty", "lower/dir", "lower/only", "up", "work"]
    {
        std::fs::create_dir_all(host.join(dir)).unwrap();
    }
    for file in [
        "low/changed",
        "low/gone",
        "low/away",
        "low/own",
        "low/mode",
        "low/dir/a",
        "low/dir/deep/b",
        "low/opaque/c",
        "low/opaque/sub/d",
        "low/opaque-moved/e",
        "low/opaque-moved/sub/f",
        "lower/dir/g",
        "lower/only/h",
        "lower/gone",
    ] {
        std::fs::write(host.join(file), format!("{file}\n")).unwrap();
    }
    std::fs::write(host.join("low/large"), vec![7; 3 << 20]).unwrap();
}

/// An overlay of directories of the host: what the container changes is in the directory for it, as Linux has it there, so that whoever
/// mounts it next, with either runtime, sees the same.
#[test]
fn overlays_of_the_hosts_directories() {
    const LOOK: &str = "cd /o; find . ! -name . | sort | while read -r f; do [ -d $f ] && stat -c '%n %F %a %u:%g' $f || stat -c '%n %F %a %u:%g %s %N' $f; done; \
                        cat changed dir/a dir/g only/h opaque/own opaque-moved/own opaque-moved/sub/own; wc -c large; \
                        grep ' /[or] ' /proc/mounts | cut -d' ' -f1-3; grep ' /[or] ' /proc/mounts | grep -o '[a-z]*dir=[^, ]*'; \
                        grep -c ' /r .* ro,' /proc/self/mounts; sed -n 's/.* \\(\\/[or] [^ ]*\\).* - \\(overlay [^ ]* r[ow]\\).*/\\1 \\2/p' /proc/self/mountinfo";
    const CHANGE: &str = "cd /o; echo more >> changed; rm gone; rm -r opaque; mkdir opaque; echo own > opaque/own; mv away moved; ln moved linked; \
                          chmod 600 mode; chown 33:50 own; rmdir empty; echo x > empty; ln -s changed link; mkdir -p new/in; echo y > new/in/it; \
                          mv new renamed; rm -r opaque-moved; mkdir -p made/sub; echo own > made/own; echo own > made/sub/own; \
                          mv made opaque-moved; rm dir/g; echo z >> dir/deep/b; printf q | dd of=large bs=1 seek=100 conv=notrunc 2>/dev/null; \
                          mknod fifo p; touch /r/x 2>&1; ls /r /r/dir; ";
    need("runc", "runc").unwrap();
    let install = Install::with_services("oci-overlay").unwrap();
    let bundle = bundle(&install, "");
    let host = install.folder.join("host");
    let (low, lower, up, work) = (host.join("low"), host.join("lower"), host.join("up"), host.join("work"));
    let word = |key: &str, paths: &[&Path]| {
        json!(format!("{key}={}", paths.iter().map(|p| p.to_string_lossy()).collect::<Vec<_>>().join(":")))
    };
    Install::edit(&bundle, |d| {
        let lowers = word("lowerdir", &[&low, &lower]);
        push(d, "/mounts", json!({"destination": "/r", "type": "overlay", "source": "o", "options": [lowers]}));
        let changes = [lowers, word("upperdir", &[&up]), word("workdir", &[&work]), json!("private"), json!("nosuid")];
        push(d, "/mounts", json!({"destination": "/o", "type": "overlay", "source": "o", "options": changes}));
        d["process"]["capabilities"]["bounding"] = json!(["CAP_CHOWN", "CAP_MKNOD", "CAP_FOWNER", "CAP_DAC_OVERRIDE"]);
        d["process"]["capabilities"]["effective"] = d["process"]["capabilities"]["bounding"].clone();
        d["process"]["capabilities"]["permitted"] = d["process"]["capabilities"]["bounding"].clone();
    })
    .unwrap();
    let run = |runtime: &str, script: String| {
        Install::edit(&bundle, |d| d["process"]["args"] = json!(["sh", "-c", script])).unwrap();
        let name = format!("cofferdam-overlay-{}", std::process::id());
        let output = match runtime {
            "runc" => Command::new("runc")
                .arg("--root")
                .arg(install.folder.join("runc"))
                .arg("run")
                .arg("--bundle")
                .arg(&bundle)
                .arg(name)
                .stdin(Stdio::null())
                .output()
                .unwrap(),
            _ => install.run(&["--overlay", "on", "run", "--bundle", bundle.to_str().unwrap(), "ours"]).unwrap(),
        };
        assert!(output.status.success(), "{runtime}: {output:?}");
        (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let mut written = Vec::new();
    for runtime in ["runc", "ours"] {
        layers(&host);
        let before = [content(&low), content(&lower)];
        let all = run(runtime, format!("{CHANGE}{LOOK}"));
        assert_eq!([content(&low), content(&lower)], before, "a lower layer was changed");
        written.push((all, content(&up)));
    }
    let [runc, ours] = &written[..] else { panic!("two runs") };
    assert_eq!(ours, runc);
    assert!(
        runc.0.0.contains("Read-only file system") && runc.1.iter().any(|l| l.contains("/up/gone 20000")),
        "{runc:#?}"
    );
    // What is there now is ours.
    let (mine, theirs) = (run("ours", LOOK.to_owned()), run("runc", LOOK.to_owned()));
    assert_eq!(mine, theirs);
    // Its whiteouts are left in the directory that a mount under Linux finds opaque.
    assert!(theirs.0.contains("./opaque-moved/sub/own") && !theirs.0.contains("./opaque-moved/e"), "{theirs:?}");
    install.nothing_left().unwrap();
}

/// The Gofer has no right to anybody else's files then: what it makes is its user's, and what is another's stays as it is.
#[test]
fn overlays_of_an_ordinary_users_directories() {
    const USER: u32 = 54_321;
    let install = Install::with_services("oci-user-overlay").unwrap();
    let script = "cd /o; echo more >> changed; rm -r opaque; mkdir opaque; ls opaque; rm gone; echo new > new; \
                  echo no >> own || echo refused; ls";
    let bundle = bundle(&install, script);
    let host = install.folder.join("host");
    layers(&host);
    let chown = |args: &[&str]| assert!(Command::new("chown").args(args).status().unwrap().success());
    let folder = install.folder.to_str().unwrap();
    chown(&["-R", &format!("{USER}:{USER}"), folder]);
    chown(&["0:0", host.join("low/own").to_str().unwrap()]);
    Install::edit(&bundle, |d| {
        let word = |key: &str, name: &str| json!(format!("{key}={}", host.join(name).display()));
        let options = [word("lowerdir", "low"), word("upperdir", "up"), word("workdir", "work")];
        push(d, "/mounts", json!({"destination": "/o", "type": "overlay", "source": "o", "options": options}));
        for set in ["bounding", "effective", "permitted"] {
            push(d, &format!("/process/capabilities/{set}"), json!("CAP_DAC_OVERRIDE"));
        }
    })
    .unwrap();
    let install = install.as_user(USER).unwrap();
    let output = install.run(&["--overlay", "on", "run", "--bundle", bundle.to_str().unwrap(), "c"]).unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = "away\nchanged\ndir\nempty\nlarge\nmode\nnew\nopaque\nopaque-moved\nown\n";
    assert_eq!(said, format!("refused\n{names}"), "{output:?}");
    let mut found = content(&host.join("up"));
    found.iter_mut().for_each(|l| *l = l.split(' ').take(3).collect::<Vec<_>>().join(" "));
    let up = host.join("up").display().to_string();
    let all = [("changed", "100644"), ("gone", "20000"), ("new", "100644"), ("opaque", "40755")];
    assert_eq!(found, all.map(|(name, mode)| format!("{up}/{name} {mode} {USER}:{USER}")));
    install.nothing_left().unwrap();
}

#[test]
fn dev_has_what_runc_puts_there() {
    let script = "cd /dev; for f in null zero full random urandom tty mine pipe; do stat -c '%n %F %a %u %g %t %T' $f; done; \
                  for f in fd stdin stdout stderr ptmx; do stat -c '%N' $f; done; echo x > /dev/null; head -c 3 /dev/zero | od -c; \
                  cat /dev/mine | wc -c; stat -c '%a %F' /dev/shm /dev/pts /dev/mqueue";
    same("oci-dev", script, |d| {
        d["linux"]["devices"] = json!([
            {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 0, "gid": 50},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o600},
            {"path": "/dev/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o600},
        ]);
    });
}

#[test]
fn hidden_and_read_only_paths() {
    let script = "cat /hide/f | wc -c; ls /hide/d | wc -l; touch /hide/d/x || echo refused; cat /close/f; echo x > /close/f || echo refused; \
                  cut -d' ' -f5,6 /proc/self/mountinfo | grep -E '/(hide|close|proc/sys )' | sort; touch /new || echo refused; \
                  echo 1 > /proc/sys/kernel/domainname || echo refused; cat /proc/kcore | wc -c";
    same("oci-paths", script, |d| {
        let root = std::env::temp_dir().join(format!("cofferdam-test-oci-paths-{}/b/rootfs", std::process::id()));
        for dir in ["hide/d", "close/in"] {
            std::fs::create_dir_all(root.join(dir)).unwrap();
        }
        for file in ["hide/f", "hide/d/y", "close/f"] {
            std::fs::write(root.join(file), "content\n").unwrap();
        }
        push(d, "/linux/maskedPaths", json!("/hide/f"));
        push(d, "/linux/maskedPaths", json!("/hide/d"));
        push(d, "/linux/maskedPaths", json!("/no/such"));
        push(d, "/linux/readonlyPaths", json!("/close"));
        push(d, "/linux/readonlyPaths", json!("/no/such"));
    });
}

#[test]
fn settings() {
    let script = "cd /proc/sys; cat fs/mqueue/msg_max kernel/domainname; cd kernel; cat sem shmmax shmall shmmni msgmax msgmnb msgmni; \
                  ipcs -l 2>/dev/null | sort";
    same("oci-sysctl", script, |d| {
        d["linux"]["sysctl"] = json!({
            "fs.mqueue.msg_max": "20", "kernel/domainname": "example.org", "kernel.sem": "100 200 50 60",
            "kernel/shmmax": "1000000", "kernel.shmall": "10000", "kernel.shmmni": "99", "kernel.msgmax": "9000",
            "kernel.msgmnb": "20000", "kernel.msgmni": "77"
        });
    });
}

/// A network namespace of its own, which a bundle need not ask for here.
fn with_network(d: &mut Value, settings: Value) {
    let namespaces = d["linux"]["namespaces"].as_array_mut().unwrap();
    if !namespaces.iter().any(|n| n["type"] == "network") {
        namespaces.push(json!({"type": "network"}));
    }
    d["linux"]["sysctl"] = settings;
}

#[test]
fn settings_of_the_network() {
    let script = "cd /proc/sys/net; cat core/somaxconn ipv6/conf/all/disable_ipv6; cd ipv4; cat ping_group_range ip_default_ttl \
                  ip_unprivileged_port_start ip_local_port_range ip_local_reserved_ports tcp_keepalive_time tcp_fin_timeout; \
                  ping -c1 -W1 127.0.0.1 | grep -c 'bytes from'; ping -c1 -W1 ::1 2>/dev/null | grep -c 'bytes from'";
    same("oci-net-sysctl", script, |d| {
        let settings = json!({
            "net.ipv4.ping_group_range": "0 0", "net.core.somaxconn": "77", "net/ipv4/ip_default_ttl": "33",
            "net.ipv4.ip_unprivileged_port_start": "80", "net.ipv4.ip_local_port_range": "40000 50000",
            "net.ipv4.ip_local_reserved_ports": "40001,40003-40005", "net.ipv4.tcp_keepalive_time": "99",
            "net.ipv4.tcp_fin_timeout": "30", "net.ipv6.conf.all.disable_ipv6": "1"
        });
        with_network(d, settings);
    });
}

#[test]
fn settings_of_the_network_that_are_refused() {
    need("runc", "runc").unwrap();
    let install = Install::with_services("oci-net-refused").unwrap();
    let bundle = bundle(&install, "echo ran");
    for (name, value) in [("net.ipv4.ip_default_ttl", "999"), ("net.ipv4.ping_group_range", "x")] {
        Install::edit(&bundle, |d| with_network(d, json!({name: value}))).unwrap();
        for (code, out, err) in both(&install, &bundle) {
            assert!(code != Some(0) && out.is_empty() && err.contains(&name.replace('.', "/")), "{code:?} {out} {err}");
        }
    }
    install.nothing_left().unwrap();
}

/// The fields of propagation of the mounts at / and below /m, without numbers.
const FIELDS: &str = "sed 's/shared:[0-9]*/shared/; s/master:[0-9]*/master/' /proc/self/mountinfo | \
                      awk '$5 == \"/\" || $5 ~ \"^/m\" {print $5, $7}' | sort";

fn with_propagation(d: &mut Value, root: Option<&str>) {
    if let Some(root) = root {
        d["linux"]["rootfsPropagation"] = json!(root);
    }
    d["mounts"].as_array_mut().unwrap().retain(|m| m["destination"] != "/dev/mqueue");
    for (n, word) in ["shared", "private", "unbindable", "rshared", "rw"].iter().enumerate() {
        let to = format!("/m{n}");
        push(d, "/mounts", json!({"destination": to, "type": "tmpfs", "source": "t", "options": [word]}));
    }
}

#[test]
fn propagation_of_mounts() {
    same("oci-propagation", FIELDS, |d| with_propagation(d, None));
}

/// runc 1.1 gives the root what the host's has; from 1.2 on it does what the document says, as we do.
#[test]
fn propagation_of_the_root() {
    for (how, root) in [("shared", "shared"), ("rprivate", "-"), ("unbindable", "unbindable"), ("slave", "-")] {
        let install = Install::with_services(&format!("oci-root-{how}")).unwrap();
        let bundle = bundle(&install, FIELDS);
        Install::edit(&bundle, |d| {
            with_propagation(d, Some(how));
            if how == "unbindable" {
                d["linux"]["readonlyPaths"] = json!([]);
            }
        })
        .unwrap();
        let output = install.run(&["run", "--bundle", bundle.to_str().unwrap(), "c"]).unwrap();
        let others = if how == "rprivate" { ["-"; 5] } else { ["shared", "-", "unbindable", "shared", "-"] };
        let expected: String = others.iter().enumerate().map(|(n, o)| format!("/m{n} {o}\n")).collect();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said, format!("/ {root}\n{expected}"), "{how}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_user_namespace_with_its_maps() {
    let script = "cat /proc/self/uid_map /proc/self/gid_map; id; touch /tmp/mine; stat -c '%u %g' /tmp/mine /bin/busybox /tmp/theirs; \
                  chown 5:6 /tmp/mine; stat -c '%u %g' /tmp/mine; chown 70000 /tmp/mine || echo refused; \
                  hostname changed && hostname; mount -t tmpfs t /tmp && echo mounted; mknod /tmp/n c 1 3 || echo refused; \
                  echo x > /dev/null && echo written; cat /proc/self/setgroups; stat -c '%u %g' /proc/self /dev";
    same("oci-userns", script, |d| {
        let root = std::env::temp_dir().join(format!("cofferdam-test-oci-userns-{}/b/rootfs", std::process::id()));
        for path in ["", "bin", "bin/busybox", "tmp", "etc"] {
            std::os::unix::fs::chown(root.join(path), Some(100_000), Some(100_000)).unwrap();
        }
        for dir in [root.parent().unwrap().parent().unwrap(), root.parent().unwrap()] {
            std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        for dir in ["proc", "dev", "sys"] {
            std::fs::create_dir_all(root.join(dir)).unwrap();
            std::os::unix::fs::chown(root.join(dir), Some(100_000), Some(100_000)).unwrap();
        }
        std::fs::write(root.join("tmp/theirs"), "").unwrap();
        d["root"]["readonly"] = json!(false);
        d["process"]["noNewPrivileges"] = json!(false);
        let all = ["CAP_CHOWN", "CAP_FOWNER", "CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_DAC_OVERRIDE"];
        for set in ["bounding", "effective", "permitted"] {
            d["process"]["capabilities"][set] = json!(all);
        }
        d["process"]["capabilities"]["ambient"] = json!([]);
        push(d, "/linux/namespaces", json!({"type": "user"}));
        d["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        d["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    });
}

/// Numbers of namespaces: of those that a document asks for none is the host's, nor another sandbox's; of those that it does not ask for they
/// are what Linux would show.
#[test]
fn namespaces_are_numbered_as_what_they_are() {
    const KINDS: [&str; 6] = ["cgroup", "ipc", "mnt", "pid", "user", "uts"];
    need("runc", "runc").unwrap();
    let install = Install::with_services("oci-numbers").unwrap();
    let script = "cd /proc/self/ns; for k in cgroup ipc mnt pid user uts net; do readlink $k; stat -L -c %i $k; done";
    let bundle = bundle(&install, script);
    std::os::unix::fs::symlink("busybox", bundle.join("rootfs/bin/readlink")).unwrap();
    let host = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
    let mut seen = std::collections::BTreeSet::new();
    for left_out in [&[][..], &["ipc", "uts", "cgroup"], &["cgroup"]] {
        Install::edit(&bundle, |d| {
            d.as_object_mut().unwrap().remove("hostname");
            let kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"];
            let kinds = kinds.iter().filter(|k| !left_out.contains(k)).map(|k| json!({"type": k})).collect();
            d["linux"]["namespaces"] = Value::Array(kinds);
        })
        .unwrap();
        let told = both(&install, &bundle).map(|(status, out, err)| {
            assert_eq!(status, Some(0), "{err}");
            let lines: Vec<String> = out.lines().map(str::to_owned).collect();
            for pair in lines.chunks(2) {
                assert!(pair[0].ends_with(&format!(":[{}]", pair[1])), "{lines:?}");
            }
            lines.into_iter().step_by(2).collect::<Vec<_>>()
        });
        let of_host = |all: &[String]| all.iter().zip(KINDS).map(|(n, kind)| *n == host(kind)).collect::<Vec<_>>();
        assert_eq!(of_host(&told[1]), of_host(&told[0]), "without {left_out:?}: {told:?}");
        assert_ne!(told[1][6], host("net"));
        for number in told[1].iter().zip(KINDS).filter(|(n, kind)| **n != host(kind)).map(|(n, _)| n) {
            assert!(seen.insert(number.clone()), "{number} is of two sandboxes");
        }
    }
    assert!(seen.len() > 10, "{seen:?}");
}

/// Hooks that write down when they come, where, and what they are told; `fails`: the one that ends with an error.
fn hooks(d: &mut Value, log: &Path, fails: &str) {
    for time in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let status = if time == fails { "echo said; echo why >&2; exit 7" } else { "exit 0" };
        let script = format!(
            "s=$(cat | tr -d ' \\t\\n'); echo {time} $0 $1 A=$A $(pwd | sed 's,.*/,,') >> {log}; echo \"$s\" | \
             sed 's/\"pid\":[0-9]*/\"pid\":N/; s/\"ociVersion\":\"[^\"]*\"/V/' | tr ',' '\\n' | tr -d '{{}}' | sort | \
             grep -v -e bundle= -e '\"id\"' >> {log}; {status}",
            log = log.display()
        );
        d["hooks"][time] = json!([
            {"path": "/bin/sh", "args": ["sh", "-c", script, "zero", "one"], "env": ["A=b", "PATH=/usr/bin:/bin"], "timeout": 10}
        ]);
    }
    d["annotations"] = json!({"a": "b"});
}

#[test]
fn hooks_run_in_order_with_the_state() {
    let install = Install::with_services("oci-hooks").unwrap();
    let bundle = bundle(&install, "echo running");
    let log = install.folder.join("log");
    Install::edit(&bundle, |d| hooks(d, &log, "")).unwrap();
    let told = |install: &Install| {
        let [runc, ours] = both(install, &bundle);
        let lines = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(&log).unwrap();
        // Ours came first. runc runs poststart before anything is started, and says so; we do as the specification has it.
        let second = lines.match_indices("prestart").nth(1).unwrap().0;
        let (ours_log, runc_log) = lines.split_at(second);
        let (ours_log, runc_log) = (ours_log.replace("running", "created"), runc_log.to_owned());
        assert_eq!(ours_log, runc_log, "runc: {runc:?}\nours: {ours:?}");
        (runc, ours, ours_log)
    };
    let (runc, ours, log_of_all) = told(&install);
    assert_eq!((&runc.0, &runc.1), (&ours.0, &ours.1), "{runc:?} {ours:?}");
    assert_eq!(log_of_all.matches("A=b").count(), 5, "{log_of_all}");
    for time in ["createRuntime", "createContainer"] {
        Install::edit(&bundle, |d| hooks(d, &log, time)).unwrap();
        let (runc, ours, _) = told(&install);
        assert_eq!(runc.0, ours.0);
        let says = "error running hook #0: error running hook: exit status 7, stdout: said";
        let plain = |text: &str| text.replace('\\', "");
        assert!(plain(&runc.2).contains(says), "{time}: {runc:?}");
        assert!(ours.2.contains(says), "{time}: {ours:?}");
    }
    // Of the host's containers nothing is left either.
    Install::edit(&bundle, |d| {
        d["hooks"] =
            json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "exec sleep 1000"], "timeout": 1}]});
    })
    .unwrap();
    let [runc, ours] = both(&install, &bundle);
    for said in [&runc.2, &ours.2] {
        assert!(said.contains("hook ran past specified timeout of 1.0s"), "{said}");
    }
    Install::edit(&bundle, |d| d["hooks"] = json!({"prestart": [{"path": "/no/such/hook"}]})).unwrap();
    let [runc, ours] = both(&install, &bundle);
    for said in [&runc.2, &ours.2] {
        assert!(said.contains("fork/exec /no/such/hook: no such file or directory"), "{said}");
    }
    install.nothing_left().unwrap();
}

/// Compiles a C program, statically, into a bundle's root.
fn compile(bundle: &Path, name: &str, source: &str) {
    let c = bundle.join(format!("{name}.c"));
    std::fs::write(&c, source).unwrap();
    let to = bundle.join("rootfs/bin").join(name);
    let done = Command::new("cc").args(["-O1", "-static", "-o"]).arg(&to).arg(&c).status().unwrap();
    assert!(done.success());
}

/// Makes calls and tells what they came to.
const CALLS: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
static void tell(const char *what, long r) { printf("%s: %s\n", what, r < 0 ? strerrorname_np(errno) : "ok"); fflush(stdout); }
static void on_sys(int s, siginfo_t *i, void *c) { printf("SIGSYS %d %d\n", i->si_syscall, i->si_errno); fflush(stdout); }
int main(void) {
  struct sigaction sa = {.sa_sigaction = on_sys, .sa_flags = SA_SIGINFO};
  sigaction(SIGSYS, &sa, 0);
  tell("getpid", syscall(SYS_getpid));
  tell("mkdir", syscall(SYS_mkdir, "/tmp/x", 0755));
  tell("personality 0", syscall(SYS_personality, 0));
  tell("personality 8", syscall(SYS_personality, 0x1234));
  tell("personality high", syscall(SYS_personality, 0xffffffffffffffffUL));
  tell("lseek low", syscall(SYS_lseek, 0, 5L, 99));
  tell("lseek high", syscall(SYS_lseek, 0, 1L << 32, 99));
  tell("sync", syscall(SYS_sync));
  tell("getuid", syscall(SYS_getuid));
  tell("unshare", syscall(SYS_unshare, CLONE_NEWUSER));
  tell("clone3", syscall(SYS_clone3, 0, 0));
  tell("500", syscall(500));
  tell("1000", syscall(1000));
  for (int i = 0; i < 3; i++) {
    int st = 0;
    if (!fork()) { syscall(i == 0 ? SYS_chroot : i == 1 ? SYS_acct : SYS_getppid, 0); _exit(3); }
    wait(&st);
    printf("child %d: %d %d\n", i, WIFSIGNALED(st) ? WTERMSIG(st) : 0, WIFEXITED(st) ? WEXITSTATUS(st) : 0);
  }
  FILE *f = fopen("/proc/self/status", "r");
  char line[256];
  while (fgets(line, sizeof line, f)) if (!strncmp(line, "Seccomp", 7) || !strncmp(line, "NoNew", 5)) fputs(line, stdout);
  return 0;
}
"#;

fn with_seccomp(name: &str, profile: Value) {
    need("runc", "runc").unwrap();
    for no_new_privileges in [true, false] {
        let install = Install::with_services(&format!("{name}-{no_new_privileges}")).unwrap();
        let bundle = bundle(&install, "true");
        compile(&bundle, "calls", CALLS);
        Install::edit(&bundle, |d| {
            d["process"]["args"] = json!(["/bin/calls"]);
            d["process"]["noNewPrivileges"] = json!(no_new_privileges);
            d["root"]["readonly"] = json!(false);
            d["linux"]["seccomp"] = profile.clone();
        })
        .unwrap();
        let [runc, ours] = both(&install, &bundle);
        assert_eq!((&ours.0, &ours.1), (&runc.0, &runc.1), "runc: {runc:?}\nours: {ours:?}");
        assert!(runc.1.contains("child 2"), "{runc:?}");
        install.nothing_left().unwrap();
    }
}

#[test]
fn a_seccomp_profile_that_allows_by_default() {
    with_seccomp(
        "oci-seccomp-allow",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
            {"names": ["mkdir", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95},
            {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": [
                {"index": 0, "value": 4096, "op": "SCMP_CMP_GE"}, {"index": 0, "value": 0xffff_ffffu64, "op": "SCMP_CMP_LT"}]},
            {"names": ["lseek"], "action": "SCMP_ACT_ERRNO", "errnoRet": 110, "args": [
                {"index": 1, "value": 0xf_0000_0000u64, "valueTwo": 0x1_0000_0000u64, "op": "SCMP_CMP_MASKED_EQ"},
                {"index": 2, "value": 99, "op": "SCMP_CMP_EQ"}]},
            {"names": ["sync"], "action": "SCMP_ACT_TRAP"},
            {"names": ["getuid"], "action": "SCMP_ACT_LOG"},
            {"names": ["unshare"], "action": "SCMP_ACT_TRACE"},
            {"names": ["chroot"], "action": "SCMP_ACT_KILL_PROCESS"},
            {"names": ["acct"], "action": "SCMP_ACT_KILL"},
        ]}),
    );
}

#[test]
fn a_seccomp_profile_that_refuses_by_default() {
    // What runc's own start and the program need, in several rules and by conditions.
    let needed = [
        "read",
        "write",
        "close",
        "fstat",
        "newfstatat",
        "mmap",
        "mprotect",
        "munmap",
        "brk",
        "rt_sigaction",
        "rt_sigprocmask",
        "rt_sigreturn",
        "execve",
        "exit",
        "exit_group",
        "arch_prctl",
        "set_tid_address",
        "set_robust_list",
        "rseq",
        "prlimit64",
        "readlink",
        "readlinkat",
        "getrandom",
        "getpid",
        "gettid",
        "clone",
        "fork",
        "wait4",
        "openat",
        "futex",
        "tgkill",
        "fcntl",
        "epoll_ctl",
        "epoll_pwait",
        "epoll_create1",
        "pipe2",
        "nanosleep",
        "sched_yield",
        "sigaltstack",
        "prctl",
        "capget",
        "capset",
        "setgid",
        "setuid",
        "setgroups",
        "chdir",
        "getdents64",
        "statx",
        "faccessat2",
        "faccessat",
        "eventfd2",
        "getcwd",
        "lseek",
        "open",
        "stat",
        "lstat",
        "access",
        "getppid",
        "fstatfs",
        "statfs",
        "geteuid",
        "madvise",
        "sched_getaffinity",
        "dup",
        "dup3",
        "setresuid",
        "setresgid",
        "uname",
        "ioctl",
        "pread64",
        "tkill",
        "setitimer",
        "timer_create",
        "timer_settime",
        "mincore",
        "kill",
        "getgroups",
        "umask",
        "epoll_wait",
        "sendmsg",
        "recvmsg",
        "poll",
        "ppoll",
        "keyctl",
    ];
    with_seccomp(
        "oci-seccomp-errno",
        json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], "syscalls": [
            {"names": needed.to_vec(), "action": "SCMP_ACT_ALLOW"},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 0xffff_ffff_ffff_ffffu64, "op": "SCMP_CMP_EQ"}]},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {"names": ["chroot"], "action": "SCMP_ACT_KILL_PROCESS"},
        ]}),
    );
}

/// The profile that podman gives by default (Docker's is the same but for a few names), for this machine and these capabilities.
#[test]
fn the_profile_that_engines_give_by_default() {
    let path = Path::new("/usr/share/containers/seccomp.json");
    need("podman", "podman").unwrap();
    let template: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let caps = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    let any = |list: &Value, of: &[&str]| {
        list.as_array().is_some_and(|l| l.iter().any(|w| of.contains(&w.as_str().unwrap())))
    };
    let all =
        |list: &Value, of: &[&str]| list.as_array().is_none_or(|l| l.iter().all(|w| of.contains(&w.as_str().unwrap())));
    let amd64 = ["amd64", "x32", "x86"];
    let rules: Vec<Value> = template["syscalls"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|r| all(&r["includes"]["caps"], &caps) && !any(&r["excludes"]["caps"], &caps))
        .filter(|r| r["includes"]["arches"].is_null() || any(&r["includes"]["arches"], &amd64))
        .filter(|r| !any(&r["excludes"]["arches"], &amd64))
        .map(|r| {
            let mut rule = json!({"names": r["names"], "action": r["action"]});
            for key in ["args", "errnoRet"] {
                if !r[key].is_null() && r[key].as_array().is_none_or(|a| !a.is_empty()) {
                    rule[key] = r[key].clone();
                }
            }
            rule
        })
        .collect();
    assert!(rules.len() > 5);
    let mut profile = json!({"defaultAction": template["defaultAction"], "syscalls": rules,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]});
    if !template["defaultErrnoRet"].is_null() {
        profile["defaultErrnoRet"] = template["defaultErrnoRet"].clone();
    }
    with_seccomp("oci-seccomp-default", profile);
}
