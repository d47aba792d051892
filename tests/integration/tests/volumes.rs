//! Bind mounts and the host's mounts below them: what is there at the start, what the host mounts and takes away under
//! the running container, and what it finds busy; by each way of taking part in that, beside runc with the same bundle.
//! Root's alone: others mount nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cofferdam_integration::install::{Install, need, until};
use cofferdam_integration::shell::{SHELL, Shell};

trait Ask {
    fn ask(&mut self, line: &str) -> String;
}

impl Ask for Shell {
    /// What a line says, and its status.
    fn ask(&mut self, line: &str) -> String {
        let (said, status) = self.say(line);
        said + &status
    }
}

/// A mount of the host that takes part in everything, gone when this is.
struct Ground(PathBuf);

impl Ground {
    fn new(install: &Install) -> Self {
        let at = install.folder.join("ground");
        fs::create_dir_all(&at).unwrap();
        let ground = Self(at);
        tmpfs(&ground.0);
        assert!(Command::new("mount").arg("--make-rshared").arg(&ground.0).status().unwrap().success());
        ground
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        Command::new("umount").arg("-lR").arg(&self.0).stderr(Stdio::null()).status().ok();
    }
}

fn tmpfs(at: &Path) {
    assert!(Command::new("mount").args(["-t", "tmpfs", "volumes"]).arg(at).status().unwrap().success());
}

/// Whether the host can unmount it; within a second, as what was let go of inside is let go of outside soon after.
fn unmounted(at: &Path) -> bool {
    let end = Instant::now() + Duration::from_secs(1);
    loop {
        if Command::new("umount").arg(at).stderr(Stdio::null()).status().unwrap().success() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a container with the ground's volume on /data sees, and the host.
fn story(install: &Install, ours: bool, words: &[&str], propagation: Option<&str>) -> Vec<String> {
    let ground = Ground::new(install);
    let volume = ground.0.join("volume");
    fs::create_dir_all(volume.join("sub")).unwrap();
    fs::create_dir_all(volume.join("later/deep")).unwrap();
    fs::write(volume.join("file"), "file\n").unwrap();
    tmpfs(&volume.join("sub"));
    fs::write(volume.join("sub/inner"), "inner\n").unwrap();
    let bundle = install.busybox("b", &["sh", "-c", SHELL], false).unwrap();
    Install::edit(&bundle, |d| {
        let mount =
            serde_json::json!({"destination": "/data", "type": "bind", "source": volume, "options": words});
        d["mounts"].as_array_mut().unwrap().push(mount);
        let mount = serde_json::json!({"destination": "/data-file", "type": "bind", "source": volume.join("file"), "options": words});
        d["mounts"].as_array_mut().unwrap().push(mount);
        if let Some(propagation) = propagation {
            d["linux"]["rootfsPropagation"] = propagation.into();
        }
    })
    .unwrap();
    let mut command = if ours { install.command(&["run"]) } else { Command::new("runc") };
    if !ours {
        command.arg("--root").arg(install.folder.join("runc")).arg("run");
    }
    command.arg("--bundle").arg(&bundle).arg(install.folder.file_name().unwrap());
    let mut shell = Shell::start(command);
    let mut told = Vec::new();
    macro_rules! ask {
        ($line:expr) => {
            told.push(format!("{}: {}", $line, shell.ask($line)))
        };
    }
    macro_rules! unmount {
        ($at:expr, $what:expr) => {
            told.push(format!("unmount {}: {}", $what, unmounted($at)))
        };
    }
    ask!("ls /data /data/sub /data/later; cat /data/sub/inner /data-file");
    install.note();
    // Mounted under it, looked at all over, and taken away again.
    let later = volume.join("later");
    for turn in ["first", "second"] {
        tmpfs(&later);
        fs::write(later.join("new"), format!("{turn}\n")).unwrap();
        fs::create_dir(later.join("dir")).unwrap();
        ask!("ls /data/later; cat /data/later/new; stat -c %s /data/later/new; ls /data/later/dir");
        ask!("echo made > /data/later/dir/made && cat /data/later/dir/made");
        told.push(format!("{:?}", fs::read_to_string(later.join("dir/made")).ok()));
        ask!(
            "cd /data/later && mkdir -p a/b/c && echo deep > a/b/c/f && mv a z && cat z/b/c/f && ln z/b/c/f l && chmod 600 l"
        );
        ask!("stat -c '%a %h' l; rm -r z; cat l; ln -s l s; cat s; echo more >> s; cat l; rm l s; ls; cd /");
        ask!(
            "echo words > /data/later/u; exec 4<>/data/later/u; rm /data/later/u; echo x >&4; stat -L -c '%h %s' /proc/self/fd/4; exec 4>&-"
        );
        unmount!(&later, "what nobody uses");
        ask!("ls /data/later; cat /data/later/new");
        fs::remove_file(later.join("dir/made")).ok();
        fs::remove_dir(later.join("dir")).ok();
        fs::remove_file(later.join("new")).ok();
    }
    // One below another.
    tmpfs(&later);
    fs::create_dir(later.join("under")).unwrap();
    tmpfs(&later.join("under"));
    fs::write(later.join("under/most"), "most\n").unwrap();
    ask!("cat /data/later/under/most; cd /data/later/under && ls && cd /");
    unmount!(&later.join("under"), "the one below");
    ask!("ls /data/later/under");
    // With a file in use: read, mapped and written.
    fs::write(later.join("used"), "used\n").unwrap();
    ask!("[ ! -e /data/later/used ] || { exec 3</data/later/used; cat <&3; }");
    unmount!(&later, "what is open");
    ask!("exec 3<&-");
    unmount!(&later, "what was open");
    ask!("ls /data/later");
    // What was there from the start.
    unmount!(&volume.join("sub"), "what was there");
    ask!("ls /data/sub");
    // Over the volume itself.
    tmpfs(&volume);
    fs::write(volume.join("over"), "over\n").unwrap();
    ask!("ls /data; cat /data/over; echo x > /data/made; ls /data");
    unmount!(&volume, "what is over it");
    ask!("ls /data; cat /data/file /data-file; rm -f /data/made");
    // All that it is from: the container has that of its own.
    fs::remove_file(volume.join("made")).ok();
    unmount!(&ground.0, "all");
    ask!("ls /data; cat /data/file /data-file");
    shell.end();
    fs::remove_dir_all(bundle).unwrap();
    told
}

/// `follows`: whether runc's container sees what the host mounts.
fn as_with_runc(name: &str, follows: bool, ways: &[(&[&str], Option<&str>)]) {
    need("runc", "runc").unwrap();
    let install = Install::with_services(name).unwrap();
    for (words, propagation) in ways {
        let runc = story(&install, false, words, *propagation);
        let ours = story(&install, true, words, *propagation);
        for (ours, runc) in ours.iter().zip(&runc) {
            assert_eq!(ours, runc, "{words:?} {propagation:?}");
        }
        assert_eq!(ours.len(), runc.len());
        assert_eq!(
            runc.iter().any(|told| told.contains("first\n6\n")),
            follows,
            "{words:?} {propagation:?}: {runc:#?}"
        );
    }
    install.nothing_left().unwrap();
}

#[test]
fn a_volume_follows_the_host() {
    as_with_runc("vol-follow", true, &[(&["rbind", "rslave"], None), (&["rbind"], None), (&["bind", "slave"], None)]);
}

#[test]
fn a_volume_of_ones_own_does_not() {
    as_with_runc(
        "vol-private",
        false,
        &[(&["rbind", "rprivate"], None), (&["bind", "private"], None), (&["rbind", "private"], None)],
    );
}

#[test]
fn what_the_roots_propagation_says_goes_for_volumes_too() {
    as_with_runc("vol-root", true, &[(&["rbind"], Some("rslave"))]);
    as_with_runc(
        "vol-none",
        false,
        &[(&["rbind", "rslave"], Some("rprivate")), (&["rbind", "rprivate", "rslave"], None)],
    );
}

/// What a container mounts is the sandbox's own, whatever the document asks for: it is said, and the other way it
/// works.
#[test]
fn a_shared_volume_follows_the_host_which_sees_nothing_of_what_is_mounted_inside() {
    as_with_runc("vol-shared", true, &[(&["rbind", "rshared"], None), (&["bind", "shared"], None)]);
    let install = Install::with_services("vol-inside").unwrap();
    let ground = Ground::new(&install);
    let volume = ground.0.join("volume");
    fs::create_dir_all(volume.join("dir")).unwrap();
    let script = "mount -t tmpfs inside /data/dir && echo x > /data/dir/x && ls /data/dir";
    for (words, said) in [(["rbind", "rshared"], true), (["rbind", "rslave"], false)] {
        let bundle = install.busybox("b", &["sh", "-c", script], false).unwrap();
        Install::edit(&bundle, |d| {
            let mount = serde_json::json!({"destination": "/data", "type": "bind", "source": volume, "options": words});
            d["mounts"].as_array_mut().unwrap().push(mount);
            for set in ["bounding", "effective", "permitted"] {
                d["process"]["capabilities"][set].as_array_mut().unwrap().push("CAP_SYS_ADMIN".into());
            }
        })
        .unwrap();
        let log = install.folder.join("log");
        let mut command = install.command(&["--log"]);
        command.arg(&log).args(["run", "--bundle"]).arg(&bundle).arg("c").stdin(Stdio::null());
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "x\n", "{output:?}");
        assert_eq!(fs::read_dir(volume.join("dir")).unwrap().count(), 0);
        let log = fs::read_to_string(&log).unwrap_or_default();
        assert_eq!(log.contains("/data") && log.contains("what is mounted inside stays inside"), said, "{log}");
        fs::remove_file(install.folder.join("log")).ok();
        fs::remove_dir_all(bundle).unwrap();
    }
    drop(ground);
    install.nothing_left().unwrap();
}

/// A container of an engine has a process on the host that stands for it, with mounts of its own: they keep nothing
/// busy either.
#[test]
fn what_stands_for_a_container_keeps_no_mount_busy() {
    need("runc", "runc").unwrap();
    let install = Install::with_services("vol-stand-in").unwrap();
    for words in [["rbind", "rslave"], ["rbind", "rprivate"]] {
        let mut told = Vec::new();
        for ours in [false, true] {
            let ground = Ground::new(&install);
            let volume = ground.0.join("volume");
            fs::create_dir_all(volume.join("later")).unwrap();
            let bundle = install.busybox("b", &["sleep", "1000"], false).unwrap();
            Install::edit(&bundle, |d| {
                let mount =
                    serde_json::json!({"destination": "/data", "type": "bind", "source": volume, "options": words});
                d["mounts"].as_array_mut().unwrap().push(mount);
            })
            .unwrap();
            let id = install.folder.file_name().unwrap().to_string_lossy().into_owned();
            let run = |arguments: &[&str]| {
                let mut command = if ours { install.command(arguments) } else { Command::new("runc") };
                if !ours {
                    command.arg("--root").arg(install.folder.join("runc")).args(arguments);
                }
                let output = command.stdin(Stdio::null()).stdout(Stdio::piped()).output().unwrap();
                (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
            };
            let mut command = if ours { install.command(&["run"]) } else { Command::new("runc") };
            if !ours {
                command.arg("--root").arg(install.folder.join("runc")).arg("run");
            }
            command.args(["--detach", "--bundle"]).arg(&bundle).arg(&id);
            assert!(
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
            );
            install.note();
            tmpfs(&volume.join("later"));
            fs::write(volume.join("later/new"), "new\n").unwrap();
            told.push((
                run(&["exec", &id, "ls", "/data/later"]),
                unmounted(&volume.join("later")),
                run(&["exec", &id, "ls", "/data/later"]),
                unmounted(&ground.0),
                run(&["exec", &id, "ls", "/data"]),
            ));
            assert!(run(&["kill", &id, "KILL"]).0);
            until("it to be deleted", || run(&["delete", &id]).0);
            fs::remove_dir_all(bundle).unwrap();
        }
        assert_eq!(told[1], told[0], "{words:?}");
        assert!(told[0].1 && told[0].3, "{told:?}");
    }
    install.nothing_left().unwrap();
}

/// Nor does one that the container has for itself, and of which it keeps what it knows.
#[test]
fn a_volume_with_exclusive_access_keeps_nothing_busy() {
    let install = Install::with_services("vol-exclusive").unwrap();
    let ground = Ground::new(&install);
    let volume = ground.0.join("volume");
    let later = volume.join("later");
    fs::create_dir_all(&later).unwrap();
    tmpfs(&later);
    fs::create_dir(later.join("dir")).unwrap();
    fs::write(later.join("dir/file"), "file\n").unwrap();
    fs::write(later.join("big"), vec![b'x'; 3 << 20]).unwrap();
    let bundle = install.busybox("b", &["sh", "-c", SHELL], false).unwrap();
    Install::edit(&bundle, |d| {
        d["annotations"] = serde_json::json!({"dev.cofferdam.file-access/data": "exclusive"});
        let words = ["rbind", "rslave"];
        let mount = serde_json::json!({"destination": "/data", "type": "bind", "source": volume, "options": words});
        d["mounts"].as_array_mut().unwrap().push(mount);
    })
    .unwrap();
    let mut command = install.command(&["run", "--bundle"]);
    command.arg(&bundle).arg("c");
    let mut shell = Shell::start(command);
    assert_eq!(shell.ask("ls -lR /data >/dev/null; cat /data/later/dir/file"), "file\n0\n");
    install.note();
    assert_eq!(
        shell.ask("head -c 100 /data/later/big | wc -c; echo x >/data/later/new; cat /data/later/new"),
        "100\nx\n0\n"
    );
    assert_eq!(shell.ask("exec 3</data/later/big; head -c 2 <&3; echo"), "xx\n0\n");
    assert!(!unmounted(&later));
    assert_eq!(shell.ask("exec 3<&-"), "0\n");
    assert!(unmounted(&later));
    shell.end();
    drop(ground);
    install.nothing_left().unwrap();
}
