//! Files that the host changes under a running container: seen at the next use where they are shared, and not where they are the
//! container's alone; by `do` and from an OCI bundle, as bind mounts and as the root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use std::fs;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cofferdam_integration::install::{Install, need, until};
use cofferdam_integration::shell::{SHELL, Shell};

trait Ask {
    fn ask(&mut self, line: &str) -> String;
}

impl Ask for Shell {
    /// What a line says, without the newline at its end; and its status where that is not 0.
    fn ask(&mut self, line: &str) -> String {
        let (said, status) = self.say(line);
        let said = said.trim_end();
        if status.trim() == "0" { said.into() } else { format!("{said} ({})", status.trim()) }
    }
}

/// A directory of the host with a few files.
fn tree(install: &Install, name: &str) -> PathBuf {
    let dir = install.folder.join(name);
    fs::create_dir_all(dir.join("sub")).unwrap();
    for file in ["f", "g", "sub/deep"] {
        fs::write(dir.join(file), "old\n").unwrap();
    }
    std::os::unix::fs::symlink("f", dir.join("link")).unwrap();
    dir
}

fn do_shell(install: &Install, flags: &[&str]) -> Shell {
    Shell::start(install.command(&[&["do"], flags, &["--", "sh", "-c", SHELL]].concat()))
}

/// A bundle whose `/data` is a directory of the host.
fn bundle(install: &Install, dir: &Path, annotations: serde_json::Value) -> PathBuf {
    let bundle = install.busybox("b", &["sh", "-c", SHELL], false).unwrap();
    Install::edit(&bundle, |document| {
        document["annotations"] = annotations;
        document["root"]["readonly"] = false.into();
        let mount = serde_json::json!({"destination": "/data", "type": "bind", "source": dir, "options": ["rbind"]});
        document["mounts"].as_array_mut().unwrap().push(mount);
    })
    .unwrap();
    bundle
}

/// What a container that shares `dir`, which it has at `at`, sees of the host's changes.
fn sees_changes(shell: &mut Shell, dir: &Path, at: &str) {
    let host = |name: &str| dir.join(name);
    let mut ask = |line: &str| shell.ask(&line.replace('@', at));
    let mut check = |line: &str, want: &str| assert_eq!(ask(line), want, "{line}");
    check("cat @/f @/sub/deep; ls @; [ -e @/new ]", "old\nold\nf\ng\nlink\nsub (1)");
    // Changed, longer and shorter; by its link as well.
    fs::write(host("f"), "changed\n").unwrap();
    check("cat @/f @/link; stat -c %s @/f", "changed\nchanged\n8");
    fs::write(host("f"), "cut").unwrap();
    check("cat @/f; stat -c ' %s' @/f", "cut 3");
    // A name that was missing is there, and gone again.
    fs::write(host("new"), "new\n").unwrap();
    check("cat @/new; ls @", "new\nf\ng\nlink\nnew\nsub");
    fs::remove_file(host("new")).unwrap();
    check("ls @; [ -e @/new ]", "f\ng\nlink\nsub (1)");
    // Renamed, with what is in it.
    fs::rename(host("sub"), host("moved")).unwrap();
    check("cat @/moved/deep; [ -e @/sub ]", "old (1)");
    fs::rename(host("moved"), host("sub")).unwrap();
    check("cat @/sub/deep; [ -e @/moved ]", "old (1)");
    // Modes and links.
    fs::set_permissions(host("g"), std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    check("stat -c %a @/g", "640");
    fs::remove_file(host("link")).unwrap();
    std::os::unix::fs::symlink("g", host("link")).unwrap();
    check("readlink @/link; cat @/link", "g\nold");
    // Replaced while it is open: the open file is the old one, the name is the new one's.
    check("exec 3<@/f; exec 4<@/g", "");
    fs::write(host("next"), "next\n").unwrap();
    fs::rename(host("next"), host("f")).unwrap();
    check("cat <&3; cat @/f", "cutnext");
    fs::remove_file(host("g")).unwrap();
    check("cat <&4; cat @/f; [ -e @/g ]", "old\nnext (1)");
    check("exec 3<&-; exec 4<&-", "");
    // As a log is followed: what the host appends, from where it was read to.
    check("exec 3<@/f; cat <&3", "next");
    writeln!(fs::OpenOptions::new().append(true).open(host("f")).unwrap(), "more").unwrap();
    check("cat <&3; exec 3<&-", "more");
}

/// What it writes to a writable mount of `dir` is on the host when the call is over.
fn writes_at_once(shell: &mut Shell, dir: &Path, at: &str) {
    let mut done = |line: &str| assert_eq!(shell.ask(&line.replace('@', at)), "", "{line}");
    let on_host = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    done("exec 5>@/log; echo one >&5");
    assert_eq!(on_host("log"), "one\n");
    done("exec 5>>@/log; echo two >&5");
    writeln!(fs::OpenOptions::new().append(true).open(dir.join("log")).unwrap(), "host").unwrap();
    done("echo three >&5; exec 5>&-");
    assert_eq!(on_host("log"), "one\ntwo\nhost\nthree\n");
    done("mkdir @/d; mv @/log @/d/log; chmod 600 @/d/log");
    assert_eq!(on_host("d/log"), "one\ntwo\nhost\nthree\n");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(dir.join("d/log")).unwrap()) & 0o777, 0o600);
    // What the host took away cannot be taken away, and what it made is in the way.
    fs::remove_file(dir.join("d/log")).unwrap();
    done("! rm @/d/log 2>/dev/null; rmdir @/d; [ ! -e @/d ]");
    fs::create_dir(dir.join("d")).unwrap();
    done("! mkdir @/d 2>/dev/null; rmdir @/d");
    assert!(!dir.join("d").exists());
}

/// What a container that has the files for itself knows of them stays.
fn keeps_what_it_knows(shell: &mut Shell, dir: &Path, at: &str) {
    let mut check = |line: &str, want: &str| assert_eq!(shell.ask(&line.replace('@', at)), want, "{line}");
    check("cat @/f; ls @; [ -e @/new ]", "old\nf\ng\nlink\nsub (1)");
    fs::write(dir.join("f"), "changed\n").unwrap();
    fs::write(dir.join("new"), "new\n").unwrap();
    fs::remove_file(dir.join("g")).unwrap();
    check("cat @/f; ls @; [ -e @/new ]", "old\nf\ng\nlink\nsub (1)");
    // Of what it did not look at it knows nothing.
    fs::write(dir.join("sub/deep"), "changed\n").unwrap();
    check("cat @/sub/deep", "changed");
}

#[test]
fn bind_mounts_of_do_are_shared_unless_asked_otherwise() {
    let install = Install::with_services("sf-do").unwrap();
    for (name, flags, shared) in [
        ("plain", &[][..], true),
        ("asked", &["--file-access-mounts=shared", "--platform=ptrace"], true),
        ("alone", &["--file-access-mounts=exclusive"], false),
    ] {
        let dir = tree(&install, name);
        let bind = format!("{}:/data", dir.display());
        let mut shell = do_shell(&install, &[flags, &["--bind", &bind]].concat());
        install.note();
        if shared {
            sees_changes(&mut shell, &dir, "/data");
            writes_at_once(&mut shell, &dir, "/data");
        } else {
            keeps_what_it_knows(&mut shell, &dir, "/data");
        }
        shell.end();
    }
    install.nothing_left().unwrap();
}

#[test]
fn the_root_of_do_is_its_own_unless_asked_otherwise() {
    let install = Install::with_services("sf-root").unwrap();
    let (one, two) = (tree(&install, "one"), tree(&install, "two"));
    let mut shell = do_shell(&install, &[]);
    keeps_what_it_knows(&mut shell, &one, one.to_str().unwrap());
    shell.end();
    let mut shell = do_shell(&install, &["--file-access", "shared"]);
    let at = two.to_str().unwrap();
    sees_changes(&mut shell, &two, at);
    // What the container changed is its own from then on.
    assert_eq!(shell.ask(&format!("echo mine > {at}/f; rm {at}/sub/deep; echo made > {at}/made")), "");
    for file in ["f", "sub/deep", "made"] {
        fs::write(two.join(file), "host\n").unwrap();
    }
    fs::write(two.join("beside"), "host\n").unwrap();
    let seen = shell.ask(&format!("cd {at}; cat f made beside; ls . sub"));
    assert_eq!(seen, "mine\nmade\nhost\n.:\nbeside\nf\nlink\nmade\nsub\n\nsub:");
    shell.end();
    install.nothing_left().unwrap();
}

#[test]
fn a_bundle_says_which_of_its_files_the_host_changes() {
    let install = Install::with_services("sf-oci").unwrap();
    for (flags, annotations, data, root) in [
        (&[][..], serde_json::json!({}), true, false),
        (&["--file-access-mounts", "exclusive"], serde_json::json!({}), false, false),
        (
            &["--file-access-mounts", "exclusive"],
            serde_json::json!({"dev.cofferdam.file-access/data": "shared"}),
            true,
            false,
        ),
        (&[], serde_json::json!({"dev.cofferdam.file-access/data": "exclusive"}), false, false),
        (&["--file-access=shared", "--overlay=on"], serde_json::json!({}), true, true),
        (&[], serde_json::json!({"dev.cofferdam.file-access/": "shared"}), true, true),
    ] {
        let dir = tree(&install, "data");
        let bundle = bundle(&install, &dir, annotations);
        fs::create_dir_all(bundle.join("rootfs/tree")).unwrap();
        let within = tree(&install, "b/rootfs/tree");
        let mut command = install.command(&["run", "--bundle"]);
        command.arg(&bundle).args(flags).arg("c");
        let mut shell = Shell::start(command);
        for (shared, dir, at) in [(data, &dir, "/data"), (root, &within, "/tree")] {
            if shared {
                sees_changes(&mut shell, dir, at);
            } else {
                keeps_what_it_knows(&mut shell, dir, at);
            }
        }
        if data {
            writes_at_once(&mut shell, &dir, "/data");
        }
        shell.end();
        fs::remove_dir_all(dir).unwrap();
        fs::remove_dir_all(bundle).unwrap();
    }
    let refused =
        bundle(&install, &tree(&install, "data"), serde_json::json!({"dev.cofferdam.file-access/data": "mine"}));
    let output = install.command(&["run", "--bundle"]).arg(&refused).arg("c").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("exclusive or shared"), "{said}");
    install.nothing_left().unwrap();
}

/// Maps a file and tells what it sees whenever a line comes: after having touched the file by `stat` and `read`, or a page that was
/// not touched before.
const MAPPER: &str = r#"
import mmap, os, sys
fd = os.open("/data/big", os.O_RDONLY)
m = mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)
print(m[0:4], m[1 << 20:(1 << 20) + 4], flush=True)
for line in sys.stdin:
    if line == "read\n":
        print(os.pread(fd, 4, 0), m[0:4], m[1 << 20:(1 << 20) + 4], flush=True)
    elif line == "touch\n":
        m[3 << 20]
        print(m[0:4], flush=True)
    elif line == "size\n":
        print(os.fstat(fd).st_size, os.pread(fd, 4, 0), flush=True)
    elif line == "beyond\n":
        m[1 << 20]
"#;

#[test]
fn mappings_follow_the_host_and_end_where_the_file_does() {
    let install = Install::with_services("sf-map").unwrap();
    for platform in ["notify", "ptrace"] {
        let dir = tree(&install, platform);
        let file = dir.join("big");
        fs::write(&file, vec![b'a'; 4 << 20]).unwrap();
        let bind = format!("{}:/data", dir.display());
        let command = install.command(&["do", "--platform", platform, "--bind", &bind, "--", "python3", "-c", MAPPER]);
        let mut shell = Shell::start(command);
        let mut read = |input: &str| {
            if !input.is_empty() {
                writeln!(shell.input.as_ref().unwrap(), "{input}").unwrap();
            }
            let mut line = String::new();
            shell.output.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        assert_eq!(read(""), "b'aaaa' b'aaaa'");
        let host = fs::OpenOptions::new().write(true).open(&file).unwrap();
        let put = |text: &[u8], at| std::os::unix::fs::FileExt::write_all_at(&host, text, at).unwrap();
        put(b"bbbb", 0);
        put(b"cccc", 1 << 20);
        assert_eq!(read("read"), "b'bbbb' b'bbbb' b'cccc'");
        put(b"dddd", 0);
        assert_eq!(read("touch"), "b'dddd'");
        host.set_len(8192).unwrap();
        assert_eq!(read("size"), "8192 b'dddd'");
        writeln!(shell.input.as_ref().unwrap(), "beyond").unwrap();
        let status = shell.child.wait().unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert!(signal == Some(7) || status.code() == Some(135), "{status:?}: no SIGBUS");
    }
    install.nothing_left().unwrap();
}

/// What a root that a container has for itself shows of the host's changes once somebody acts: as with runc.
#[test]
fn who_execs_or_signals_sees_what_he_put_into_the_root_before() {
    need("runc", "runc").unwrap();
    let install = Install::with_services("sf-acts").unwrap();
    let init = "trap 'cat /tree/f >>/said' USR1; cat /tree/f >/said; while :; do sleep 0.05; done";
    let look = "cat /tree/f /tree/sub/deep /tree/link; ls /tree; stat -c '%a %s' /tree/f /tree/g; cat /tree/new; [ -e /tree/sub/h ]";
    let mut seen = Vec::new();
    for ours in [false, true] {
        let bundle = install.busybox("b", &["sh", "-c", init], false).unwrap();
        Install::edit(&bundle, |document| document["root"]["readonly"] = false.into()).unwrap();
        fs::create_dir_all(bundle.join("rootfs/tree")).unwrap();
        let dir = tree(&install, "b/rootfs/tree");
        let id = format!("cofferdam-sf-acts-{}", std::process::id());
        let run = |arguments: &[&str]| {
            let mut command = if ours { install.command(arguments) } else { Command::new("runc") };
            if !ours {
                command.arg("--root").arg(install.folder.join("runc")).args(arguments);
            }
            let output = command.stdin(Stdio::null()).output().unwrap();
            (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let mut command = if ours { install.command(&["run"]) } else { Command::new("runc") };
        if !ours {
            command.arg("--root").arg(install.folder.join("runc")).arg("run");
        }
        command.args(["--detach", "--bundle"]).arg(&bundle).arg(&id);
        assert!(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
        install.note();
        let said = || fs::read_to_string(bundle.join("rootfs/said")).unwrap_or_default();
        until("the container to have looked", || said() == "old\n");
        let mut told = vec![run(&["exec", &id, "sh", "-c", look])];
        // Replaced, changed in place, made, removed, a link elsewhere, a mode.
        fs::write(dir.join("next"), "another\n").unwrap();
        fs::rename(dir.join("next"), dir.join("f")).unwrap();
        fs::write(dir.join("sub/deep"), "changed\n").unwrap();
        fs::write(dir.join("new"), "new\n").unwrap();
        fs::write(dir.join("sub/h"), "").unwrap();
        fs::remove_file(dir.join("link")).unwrap();
        std::os::unix::fs::symlink("g", dir.join("link")).unwrap();
        fs::set_permissions(dir.join("g"), std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        told.push(run(&["exec", &id, "sh", "-c", look]));
        // A directory in the place of one that was known, and one that is gone.
        fs::rename(dir.join("sub"), dir.join("was")).unwrap();
        fs::create_dir(dir.join("sub")).unwrap();
        fs::write(dir.join("sub/deep"), "deeper\n").unwrap();
        fs::remove_file(dir.join("new")).unwrap();
        told.push(run(&["exec", &id, "sh", "-c", look]));
        // A running program that is told to look.
        fs::write(dir.join("f"), "once more\n").unwrap();
        assert_eq!(run(&["kill", &id, "USR1"]).0, Some(0));
        until("the container to look again", || said() == "old\nonce more\n");
        // Whoever goes on after a pause.
        assert_eq!(run(&["pause", &id]).0, Some(0));
        fs::write(dir.join("f"), "after a pause\n").unwrap();
        assert_eq!(run(&["resume", &id]).0, Some(0));
        told.push(run(&["exec", &id, "cat", "/tree/f"]));
        assert_eq!(run(&["kill", &id, "KILL"]).0, Some(0));
        until("it to be deleted", || run(&["delete", &id]).0 == Some(0));
        seen.push(told);
        fs::remove_dir_all(bundle).unwrap();
    }
    assert_eq!(seen[1], seen[0]);
    assert!(seen[0][1].1.starts_with("another\nchanged\n") && seen[0][2].1.contains("deeper"), "{seen:#?}");
    install.nothing_left().unwrap();
}
