//! What goes wrong with the real services: bad input, a full disk, and the death of every part at every step. A clear
//! message, runc's exit status, nothing left behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use cofferdam_integration::install::{Install, until};
use rustix::process::{Pid, Signal, kill_process};

fn says(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn kill(pid: i32) {
    // It may have ended meanwhile.
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

/// A tmpfs of the test's own, gone with it.
struct Small(PathBuf);

impl Small {
    fn new(at: PathBuf, size: &str) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", size, "cofferdam-test"]).arg(&at).status().unwrap();
        assert!(mounted.success());
        Self(at)
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
        while std::io::Write::write_all(&mut file, &[1; 1]).is_ok() {}
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn bad_input_is_told_with_status_1_and_leaves_nothing() {
    let install = Install::with_services("faults-input").unwrap();
    let bundle = install.busybox("good", &["true"], false).unwrap();
    let broken = |name: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let copy = install.folder.join(name);
        std::fs::create_dir_all(&copy).unwrap();
        std::fs::copy(bundle.join("config.json"), copy.join("config.json")).unwrap();
        std::os::unix::fs::symlink(bundle.join("rootfs"), copy.join("rootfs")).unwrap();
        Install::edit(&copy, change).unwrap();
        copy.to_string_lossy().into_owned()
    };
    let cut = broken("cut", &|_| {});
    let text = std::fs::read(bundle.join("config.json")).unwrap();
    std::fs::write(Path::new(&cut).join("config.json"), &text[..text.len() / 2]).unwrap();
    let binary = broken("binary", &|_| {});
    std::fs::write(Path::new(&binary).join("config.json"), [0xff, 0, 1, 2]).unwrap();
    let fifo = broken("fifo", &|_| {});
    std::fs::remove_file(Path::new(&fifo).join("config.json")).unwrap();
    assert!(Command::new("mkfifo").arg(Path::new(&fifo).join("config.json")).status().unwrap().success());
    let file = install.folder.join("file");
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let no_root = broken("no-root", &|d| d["root"]["path"] = "elsewhere".into());
    let file_root = broken("file-root", &|d| d["root"]["path"] = file.into());
    let no_args = broken("no-args", &|d| d["process"]["args"] = serde_json::json!([]));
    let wrong_type = broken("wrong-type", &|d| d["process"]["args"] = "sh".into());
    let no_mount = broken("no-mount", &|d| {
        d["mounts"]
            .as_array_mut()
            .unwrap()
            .push(serde_json::json!({"destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"]}));
    });
    let odd_mount = broken("odd-mount", &|d| {
        d["mounts"]
            .as_array_mut()
            .unwrap()
            .push(serde_json::json!({"destination": "/x", "type": "nfs4", "source": "x"}));
    });
    let clash = broken("clash", &|d| {
        d["mounts"]
            .as_array_mut()
            .unwrap()
            .push(serde_json::json!({"destination": "/etc/passwd/x", "type": "tmpfs", "source": "x"}));
    });
    let file_cwd = broken("file-cwd", &|d| d["process"]["cwd"] = "/etc/passwd".into());
    let good = bundle.to_str().unwrap();
    let cases: Vec<(Vec<&str>, Vec<&str>)> = vec![
        (vec!["run", "-b", &cut, "c"], vec!["config.json", "EOF"]),
        (vec!["run", "-b", &binary, "c"], vec!["config.json"]),
        (vec!["run", "-b", &fifo, "c"], vec!["config.json", "not a regular file"]),
        (vec!["run", "-b", &no_root, "c"], vec!["rootfs", "elsewhere", "no such file or directory"]),
        (vec!["run", "-b", &file_root, "c"], vec!["rootfs", file, "is not a directory"]),
        (vec!["run", "-b", &no_args, "c"], vec!["args must not be empty"]),
        (vec!["run", "-b", &wrong_type, "c"], vec!["config.json", "expected a sequence"]),
        (vec!["run", "-b", &no_mount, "c"], vec!["/no/such", "no such file or directory"]),
        (vec!["run", "-b", &odd_mount, "c"], vec!["/x", "no such device"]),
        (vec!["run", "-b", &clash, "c"], vec!["/etc/passwd/x"]),
        (vec!["run", "-b", &file_cwd, "c"], vec!["/etc/passwd", "cwd"]),
        (vec!["run", "-b", "/no/such/bundle", "c"], vec!["/no/such/bundle"]),
        (vec!["run", "-b", file, "c"], vec![file, "not a directory"]),
        (vec!["run", "-b", good], vec!["<ID>"]),
        (vec!["run", "-b", good, "../c"], vec!["invalid container ID"]),
        (vec!["run", "--no-such-flag", "-b", good, "c"], vec!["--no-such-flag"]),
        (vec!["run", "--platform", "vax", "-b", good, "c"], vec!["vax", "notify"]),
        (vec!["do"], vec!["CMD"]),
        (vec!["do", "--rootfs", "/no/such", "true"], vec!["/no/such", "no such file or directory"]),
        (vec!["do", "--rootfs", file, "true"], vec![file, "is not a directory"]),
        (vec!["do", "--bind", "x", "true"], vec!["SRC:DST"]),
        (vec!["do", "--bind", "/no/such:/x", "true"], vec!["/no/such", "no such file or directory"]),
        (vec!["do", "--network", "bridge", "true"], vec!["network", "none"]),
        (vec!["do", "--log-format", "xml", "true"], vec!["xml", "json"]),
        (vec!["--log", "/no/such/dir/log", "list"], vec!["/no/such/dir/log"]),
        (vec!["--root", file, "list"], vec![file]),
        (vec!["--root", "/proc/x", "do", "true"], vec!["/proc/x"]),
    ];
    for (arguments, wanted) in cases {
        let output = install.run(&arguments).unwrap();
        let told = says(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
        for word in wanted {
            assert!(told.contains(word), "{arguments:?} does not tell of {word:?}: {told}");
        }
        assert!(!told.contains("panicked"), "{told}");
    }
    install.nothing_left().unwrap();
}

#[test]
fn programs_that_cannot_run_give_a_shells_statuses_from_do() {
    let install = Install::with_services("faults-elf").unwrap();
    let rootfs = install.rootfs("r").unwrap();
    let busybox = std::fs::read(rootfs.join("bin/busybox")).unwrap();
    let program = |name: &str, content: &[u8]| {
        std::fs::write(rootfs.join(name), content).unwrap();
        std::fs::set_permissions(rootfs.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    let mut foreign = busybox.clone();
    foreign[18..20].copy_from_slice(&183u16.to_le_bytes());
    program("foreign", &foreign);
    program("orphan", b"#!/no/such\n");
    for cut in [1, 4, 16, 63, 64, 100, 500, 4096, 50_000, busybox.len() / 2, busybox.len() - 4096] {
        program(&format!("cut{cut}"), &busybox[..cut]);
    }
    // The headers say more than there is: every field of the first 1000 bytes overwritten with the largest number.
    for at in (16..1000).step_by(12) {
        let mut wild = busybox.clone();
        wild[at..at + 4].fill(0xff);
        program(&format!("wild{at}"), &wild);
    }
    let run = |name: &str| {
        let output = install.run(&["do", "--rootfs", rootfs.to_str().unwrap(), name, "true"]).unwrap();
        (output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap()), says(&output))
    };
    let (code, told) = run("/foreign");
    assert_eq!((code, told.as_str()), (126, "cofferdam: exec /foreign: exec format error\n"));
    let (code, told) = run("/orphan");
    assert_eq!(code, 127, "{told}");
    assert!(told.contains("interpreter"), "{told}");
    let (code, told) = run("/etc/passwd");
    assert_eq!((code, told.contains("permission denied")), (126, true), "{told}");
    let mut names: Vec<_> =
        std::fs::read_dir(&rootfs).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|n| n.starts_with("cut") || n.starts_with("wild"));
    for name in names {
        let (code, told) = run(&format!("/{name}"));
        let refused = code == 126 && told.contains("exec");
        if name.starts_with("cut") {
            // As the host does with the same file: refuses it, or kills it when it comes to what is not there.
            let native = Command::new(rootfs.join(&name)).arg("true").status();
            let native = native.map_or(126, |s| s.code().unwrap_or_else(|| 128 + s.signal().unwrap()));
            assert_eq!(code, native, "/{name}: {told}");
            assert!(refused || code != 126, "/{name}: {told}");
            continue;
        }
        // Some run all the same, or run into what is not there: that is the program's own end.
        let ran = matches!(code, 0 | 1 | 127 | 132..=139);
        assert!(refused || ran, "/{name}: {code}: {told}");
        assert!(!told.contains("sandbox lost") && !told.contains("Sentry"), "/{name}: {told}");
    }
    install.nothing_left().unwrap();
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let install = Install::with_services("faults-full").unwrap();
    // State cannot be written.
    let root = Small::new(install.folder.join("small"), "size=64k,nr_inodes=64");
    root.fill();
    let at = root.0.to_str().unwrap().to_owned();
    for command in [&["do", "echo", "ran"][..], &["run", "-b"]] {
        let bundle = install.busybox(command[0], &["echo", "ran"], false).unwrap();
        let mut arguments = vec!["--root", &at];
        arguments.extend(command);
        if command[0] == "run" {
            arguments.extend([bundle.to_str().unwrap(), "c"]);
        }
        let output = install.run(&arguments).unwrap();
        let told = says(&output);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.to_lowercase().contains("no space left on device") && told.contains(&at), "{told}");
        until("no process left", || install.processes().is_empty());
    }
    let mut names: Vec<_> = std::fs::read_dir(&root.0).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    names.retain(|n| n != "supervisor.lock");
    assert_eq!(names, ["filler"]);

    // Not even a directory can be made: no inodes.
    let root = Small::new(install.folder.join("noinodes"), "size=1m,nr_inodes=2");
    std::fs::write(root.0.join("one"), "").unwrap();
    let output = install.run(&["--root", root.0.join("sub").to_str().unwrap(), "do", "true"]).unwrap();
    let told = says(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.to_lowercase().contains("no space left on device"), "{told}");

    // A bound directory is full: the program is told, and goes on.
    let data = Small::new(install.folder.join("data"), "size=256k,nr_inodes=16");
    let bind = format!("{}:/data", data.0.display());
    let rootfs = install.rootfs("r").unwrap();
    let script = "dd if=/dev/zero of=/data/big bs=64k count=64 2>&1; echo status $?; echo more > /data/more; echo status $?; \
                  rm /data/big; echo more > /data/more; cat /data/more; i=0; while mkdir /data/d$i; do i=$((i+1)); done; echo end";
    let output =
        install.run(&["do", "--rootfs", rootfs.to_str().unwrap(), "--bind", &bind, "sh", "-c", script]).unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout).into_owned(), says(&output));
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    assert!(format!("{out}{err}").contains("No space left on device") && out.contains("status 1"), "{out}{err}");
    assert!(out.ends_with("more\nend\n"), "{out}{err}");
    assert!(err.matches("No space left on device").count() >= 1, "{err}");
    assert_eq!(std::fs::read(data.0.join("more")).unwrap(), b"more\n");

    // The log cannot grow: lines are lost, nothing else.
    let logs = Small::new(install.folder.join("logs"), "size=64k");
    logs.fill();
    let log = logs.0.join("log");
    let output = install.run(&["--debug", "--log", log.to_str().unwrap(), "do", "echo", "ran"]).unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"ran\n"[..]), "{}", says(&output));
    install.nothing_left().unwrap();
}

/// The parts of a running sandbox that can be killed.
const PARTS: [&str; 7] =
    ["cofferdam-sentry", "cofferdam-gofer", "supervisor", "launcher", "starter", "stub", "cofferdam"];

/// Pids of a part, if it is there.
fn pids_of(install: &Install, part: &str, cli: &Child) -> Vec<i32> {
    let comm = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let launcher = |pid: &i32| comm(pid).starts_with("cofferdam-launc");
    match part {
        "cofferdam" => vec![cli.id() as i32],
        "supervisor" => install.pids("cofferdam-supervisor").into_iter().filter(|p| !launcher(p)).collect(),
        "launcher" => install.pids("cofferdam-supervisor").into_iter().filter(launcher).collect(),
        // The starter is the Sentry's only child; the others are its own.
        "starter" => install.stubs().into_iter().take(1).collect(),
        "stub" => install.stubs().into_iter().skip(1).collect(),
        service => install.pids(service),
    }
}

/// What is said when a part has been killed.
fn obituary(part: &str) -> &'static [&'static str] {
    match part {
        "cofferdam-sentry" => &["the Sentry was killed by signal 9"],
        "cofferdam-gofer" => &["the Gofer was killed by signal 9"],
        // The launcher takes the services along, the supervisor follows.
        "supervisor" | "launcher" => &["the supervisor"],
        "starter" => &["the stub starter"],
        _ => &[],
    }
}

/// How the command line ended and what it said; `None` if it still runs after a few seconds.
fn ended(child: &mut Child) -> Option<(std::process::ExitStatus, String)> {
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        if let Some(status) = child.try_wait().unwrap() {
            let mut text = String::new();
            child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
            return Some((status, text));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    None
}

/// Starts a sandbox that does `script` for ever, kills `part` once `ready` says so, and looks at what came of it.
fn kill_when(install: &Install, part: &str, script: &str, wait: Duration, ready: impl Fn() -> bool) -> String {
    let mut child =
        install.command(&["do", "sh", "-c", script]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while !ready() && Instant::now() < end {
        std::hint::spin_loop();
    }
    let pids = loop {
        let pids = pids_of(install, part, &child);
        if !pids.is_empty() || Instant::now() > end {
            break pids;
        }
    };
    assert!(!pids.is_empty(), "{part} never came");
    std::thread::sleep(wait);
    install.note();
    for pid in pids {
        kill(pid);
    }
    let Some((status, text)) = ended(&mut child) else {
        // A supervisor that is killed before it has said anything is replaced: then the command runs.
        let list = install.run(&["list"]).unwrap();
        let runs = String::from_utf8_lossy(&list.stdout).contains("running");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(part, "supervisor" | "launcher") && runs, "{part} after {wait:?}: the command line hangs");
        install.nothing_left().unwrap();
        return "cofferdam: another supervisor took over".into();
    };
    assert!(!status.success(), "{part} after {wait:?}: {status} {text}");
    install.nothing_left().unwrap_or_else(|e| panic!("{part} after {wait:?}: {e}\n{text}"));
    text
}

#[test]
fn whatever_part_is_killed_while_it_runs_is_named_and_nothing_is_left() {
    let install = Install::with_services("faults-run").unwrap();
    let running = || String::from_utf8_lossy(&install.run(&["list"]).unwrap().stdout).contains("running");
    for part in PARTS {
        let text = kill_when(&install, part, "sleep 1000", Duration::from_millis(100), running);
        for word in obituary(part) {
            assert!(text.contains(word), "{part}: {text}");
        }
    }
}

#[test]
fn whatever_part_is_killed_under_load_nothing_is_left() {
    let install = Install::with_services("faults-load").unwrap();
    let load = "while :; do ls -lR /usr/lib/python3 >/dev/null 2>&1; (echo x | cat | cat >/dev/null); done & \
                while :; do dd if=/dev/zero of=/tmp/big bs=1M count=8 2>/dev/null; done & \
                while :; do :; done & wait";
    let running = || String::from_utf8_lossy(&install.run(&["list"]).unwrap().stdout).contains("running");
    for part in PARTS {
        let text = kill_when(&install, part, load, Duration::from_millis(300), running);
        for word in obituary(part) {
            assert!(text.contains(word), "{part}: {text}");
        }
    }
}

#[test]
fn whatever_part_is_killed_at_whatever_step_of_the_start_nothing_is_left() {
    let install = Install::with_services("faults-start").unwrap();
    for part in PARTS {
        for after in [0, 1, 2, 4, 7, 11, 16, 25] {
            let text = kill_when(&install, part, "while :; do :; done", Duration::from_millis(after), || true);
            if !matches!(part, "stub" | "cofferdam") {
                assert!(text.starts_with("cofferdam: "), "{part} after {after} ms: {text:?}");
            }
        }
    }
}

#[test]
fn a_killed_container_process_ends_as_if_the_container_had_been_signalled() {
    let install = Install::with_services("faults-stub").unwrap();
    let child = install
        .command(&["do", "sh", "-c", "sh -c 'echo ready; while :; do :; done'; echo status $?"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    // starter, template, the outer shell, the inner one: which burns the processor.
    let spent = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().and_then(|s| s.split_whitespace().nth(11)?.parse::<u64>().ok()).unwrap_or(0)
    };
    let busy = install.stubs().into_iter().max_by_key(spent).unwrap();
    kill(busy);
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ready\nstatus 137\n");
    install.nothing_left().unwrap();
}

#[test]
fn a_killed_command_line_ends_its_sandbox_and_no_other() {
    let install = Install::with_services("faults-cli").unwrap();
    let other = install.command(&["do", "sh", "-c", "sleep 2; echo fine"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut victim = install.command(&["do", "sleep", "1000"]).stdout(Stdio::null()).spawn().unwrap();
    until("both run", || install.pids("cofferdam-sentry").len() == 2);
    std::thread::sleep(Duration::from_millis(300));
    install.note();
    victim.kill().unwrap();
    victim.wait().unwrap();
    until("its services' end", || {
        install.pids("cofferdam-sentry").len() == 1 && install.pids("cofferdam-gofer").len() == 1
    });
    let output = other.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"fine\n");
    install.nothing_left().unwrap();
}

#[test]
fn a_container_whose_supervisor_was_killed_is_stopped_and_can_be_deleted() {
    let install = Install::with_services("faults-super").unwrap();
    let bundle = install.busybox("b", &["sleep", "1000"], false).unwrap();
    let status = install
        .command(&["create", "-b", bundle.to_str().unwrap(), "c"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success() && install.run(&["start", "c"]).unwrap().status.success());
    install.note();
    for pid in install.pids("cofferdam-supervisor") {
        kill(pid);
    }
    until("everything's end", || install.processes().is_empty() && install.stubs().is_empty());
    let state = install.run(&["state", "c"]).unwrap();
    assert!(String::from_utf8_lossy(&state.stdout).contains("stopped"), "{}", says(&state));
    assert!(install.run(&["delete", "c"]).unwrap().status.success());
    install.nothing_left().unwrap();
}
