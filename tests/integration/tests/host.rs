//! Supervisor and command line with doubles in place of Sentry and Gofer: commands and their statuses, bad input, and
//! the death of every part at every step. Whatever happens, nothing may be left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use cofferdam_integration::install::Install;

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(15);
    while !done() {
        assert!(Instant::now() < end, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn kill(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Starts `run` of a sleeping container and waits until it runs.
fn sleeping(install: &Install, id: &str) -> Child {
    let bundle = install.bundle(id, &["sleep"]).unwrap();
    let child = install
        .command(&["run", "--bundle", bundle.to_str().unwrap(), id])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("running", || {
        let state = install.run(&["state", id]).unwrap();
        String::from_utf8_lossy(&state.stdout).contains("\"running\"")
    });
    child
}

#[test]
fn do_ends_with_the_status_of_its_command() {
    let install = Install::with_doubles("do").unwrap();
    for code in [0, 1, 7, 255] {
        let output = install.run(&["do", "--", "exit", &code.to_string()]).unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "stdio reached the Gofer\n");
    }
    for signal in [9, 15, 10] {
        let output = install.run(&["do", "--", "signal", &signal.to_string()]).unwrap();
        assert_eq!(output.status.signal(), Some(signal), "{}", stderr(&output));
    }
    install.nothing_left().unwrap();
}

#[test]
fn a_command_that_cannot_run_gives_127_or_126() {
    let install = Install::with_doubles("notfound").unwrap();
    for (word, code, says) in [("missing", 127, "executable file not found"), ("forbidden", 126, "permission denied")] {
        let output = install.run(&["do", word]).unwrap();
        assert_eq!(output.status.code(), Some(code));
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
    install.nothing_left().unwrap();
}

#[test]
fn signals_reach_the_command_and_end_the_command_line() {
    let install = Install::with_doubles("signals").unwrap();
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT, rustix::process::Signal::USR1] {
        let mut child = install.command(&["do", "sleep"]).stdout(Stdio::null()).spawn().unwrap();
        until("running", || {
            let list = install.run(&["list", "--format", "json"]).unwrap();
            String::from_utf8_lossy(&list.stdout).contains("running")
        });
        kill(child.id() as i32, signal);
        assert_eq!(child.wait().unwrap().signal(), Some(signal.as_raw()));
        install.nothing_left().unwrap();
    }
}

#[test]
fn create_start_kill_delete_with_states_and_a_stand_in() {
    let install = Install::with_doubles("oci").unwrap();
    let bundle = install.bundle("b", &["sleep"]).unwrap();
    let bundle = bundle.to_str().unwrap();
    let pid_file = install.folder.join("pid");
    let status = |word: &str| {
        let output = install.run(&["state", "c1"]).unwrap();
        let state: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(state["status"], word);
        state["pid"].as_i64().unwrap()
    };
    let output = install.run(&["create", "c1", "--bundle", bundle, "--pid-file", pid_file.to_str().unwrap()]).unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let pid: i64 = std::fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    assert_eq!(status("created"), pid);
    let again = install.run(&["create", "--bundle", bundle, "c1"]).unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("container with given ID already exists"), "{}", stderr(&again));
    assert!(install.run(&["start", "c1"]).unwrap().status.success());
    assert_eq!(status("running"), pid);
    let output = install.run(&["start", "c1"]).unwrap();
    assert!(stderr(&output).contains("cannot start an already running container"), "{}", stderr(&output));
    let output = install.run(&["delete", "c1"]).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("that is not stopped"), "{}", stderr(&output));
    // A signal to the stand-in is a signal to the container.
    kill(pid as i32, rustix::process::Signal::TERM);
    until("stopped", || String::from_utf8_lossy(&install.run(&["state", "c1"]).unwrap().stdout).contains("stopped"));
    assert_eq!(status("stopped"), 0);
    let output = install.run(&["kill", "c1", "KILL"]).unwrap();
    assert!(stderr(&output).contains("container not running"), "{}", stderr(&output));
    assert!(install.run(&["kill", "--all", "c1", "9"]).unwrap().status.success());
    assert!(install.run(&["delete", "c1"]).unwrap().status.success());
    let output = install.run(&["state", "c1"]).unwrap();
    assert!(stderr(&output).contains("does not exist"), "{}", stderr(&output));
    assert!(install.run(&["delete", "--force", "c1"]).unwrap().status.success());
    install.nothing_left().unwrap();
}

#[test]
fn nobody_keeps_the_stdio_of_create() {
    let install = Install::with_doubles("stdio").unwrap();
    let bundle = install.bundle("b", &["sleep"]).unwrap();
    // start, kill and delete give back end of file at once; output() waits for it.
    let mut create = install.command(&["create", "c", "-b", bundle.to_str().unwrap()]);
    assert!(create.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    for arguments in [&["start", "c"][..], &["kill", "c", "9"], &["delete", "-f", "c"]] {
        let output = install.run(arguments).unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    }
    install.nothing_left().unwrap();
}

#[test]
fn wrong_usage_and_broken_bundles_are_told_and_leave_nothing() {
    let install = Install::with_doubles("bad").unwrap();
    let folder = &install.folder;
    let path = |p: &str| folder.join(p).to_string_lossy().into_owned();
    let bundle = |name: &str, document: &str| {
        std::fs::create_dir_all(folder.join(name)).unwrap();
        std::fs::write(folder.join(name).join("config.json"), document).unwrap();
        path(name)
    };
    let good =
        r#"{"ociVersion":"1.0.2","process":{"user":{"uid":0,"gid":0},"args":["exit"],"cwd":"/"},"root":{"path":"R"}}"#;
    std::fs::write(folder.join("file"), "").unwrap();
    std::fs::create_dir_all(folder.join("empty")).unwrap();
    let broken = bundle("broken", "{ not json");
    let no_process = bundle("no-process", r#"{"ociVersion":"1.0.2","root":{"path":"/"}}"#);
    let no_root = bundle("no-root", good);
    let file_root = bundle("file-root", &good.replace("\"R\"", &format!("\"{}\"", path("file"))));
    let huge = bundle("huge", &format!("{{\"ociVersion\":\"{}\"}}", "x".repeat(2 << 20)));
    let tty = bundle("tty", &good.replace("\"process\":{", "\"process\":{\"terminal\":true,"));
    let empty = path("empty");
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (vec!["--no-such-flag"], "--no-such-flag"),
        (vec!["frobnicate"], "frobnicate"),
        (vec!["do"], "CMD"),
        (vec!["do", "--network", "bridge", "--", "exit"], "network"),
        (vec!["do", "--platform", "vax", "--", "exit"], "vax"),
        (vec!["do", "--rootfs", "/no/such/rootfs", "--", "exit"], "no such file or directory"),
        (vec!["do", "--rootfs", "/etc/passwd", "--", "exit"], "is not a directory"),
        (vec!["do", "--bind", "/tmp", "--", "exit"], "SRC:DST"),
        (vec!["do", "--bind", "/no/such:/x", "--", "exit"], "no such file or directory"),
        (vec!["do", "--env", "=x", "--", "exit"], "K=V"),
        (vec!["do", "--user", "no-such-user", "--", "exit"], "no-such-user"),
        (vec!["do", "--cwd", "relative", "--", "exit"], "absolute"),
        (vec!["create", "-b", "/no/such/bundle", "c"], "No such file"),
        (vec!["create", "-b", &empty, "c"], "config.json not found"),
        (vec!["create", "-b", &broken, "c"], "config.json"),
        (vec!["create", "-b", &no_process, "c"], "process property"),
        (vec!["create", "-b", &no_root, "c"], "no such file or directory"),
        (vec!["create", "-b", &file_root, "c"], "is not a directory"),
        (vec!["create", "-b", &huge, "c"], "more than 1 MiB"),
        (vec!["create", "-b", &tty, "c"], "console socket"),
        (vec!["create", "-b", &file_root, "../evil"], "invalid container ID"),
        (vec!["create", "-b", &file_root, ""], "invalid container ID"),
        (vec!["start", "nobody"], "does not exist"),
        (vec!["state", "../../etc"], "does not exist"),
        (vec!["kill", "nobody", "9"], "does not exist"),
        (vec!["kill", "nobody", "NOSIG"], "does not exist"),
        (vec!["delete", "nobody"], "does not exist"),
        (vec!["--log", "/no/such/dir/log", "list"], "/no/such/dir/log"),
    ];
    for (arguments, says) in cases {
        let output = install.run(&arguments).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(says), "{arguments:?}: {}", stderr(&output));
    }
    install.nothing_left().unwrap();
}

#[test]
fn errors_go_to_the_log_as_a_shim_reads_them() {
    let install = Install::with_doubles("log").unwrap();
    let log = install.folder.join("log.json");
    let output = install.run(&["--log", log.to_str().unwrap(), "--log-format", "json", "start", "nobody"]).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line = std::fs::read_to_string(&log).unwrap();
    let line: serde_json::Value = serde_json::from_str(line.trim()).unwrap();
    assert_eq!((&line["level"], &line["msg"]), (&"error".into(), &"container does not exist".into()));
}

#[test]
fn a_service_that_dies_at_any_step_is_named_and_leaves_nothing() {
    let install = Install::with_doubles("dies").unwrap();
    for (id, word, says) in [
        ("sentry-dies-at-orders", "exit", "the Sentry exited with status 4: the double dies as told"),
        ("gofer-dies-at-orders", "exit", "the Gofer exited with status 4: the double dies as told"),
        ("gofer-dies-at-stdio", "exit", "the Gofer exited with status 4"),
        ("c1", "die-at-create", "the Sentry exited with status 4"),
        ("c2", "die-at-start", "the Sentry exited with status 4"),
        ("c3", "babble", "it answered what nobody asked"),
    ] {
        let bundle = install.bundle(id, &[word]).unwrap();
        let output = install.run(&["run", "-b", bundle.to_str().unwrap(), id]).unwrap();
        assert_eq!(output.status.code(), Some(1), "{id}: {}", stderr(&output));
        assert!(stderr(&output).contains(says), "{id}: {}", stderr(&output));
        install.nothing_left().unwrap();
    }
}

#[test]
fn killing_any_part_ends_the_sandbox_and_leaves_nothing() {
    let install = Install::with_doubles("killed").unwrap();
    for part in ["cofferdam-sentry", "cofferdam-gofer", "cofferdam-supervisor", "cofferdam"] {
        let mut child = sleeping(&install, "c");
        let pids = if part == "cofferdam" { vec![child.id() as i32] } else { install.pids(part) };
        assert!(!pids.is_empty());
        for pid in pids {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            // Killing the supervisor takes its launcher along, which may be next in this list.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let status = child.wait().unwrap();
        assert!(!status.success(), "{part}");
        if part != "cofferdam" {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut text).unwrap();
            let says = match part {
                "cofferdam-sentry" => "the Sentry was killed by signal 9",
                "cofferdam-gofer" => "the Gofer was killed by signal 9",
                _ => "the supervisor",
            };
            assert!(text.contains(says), "{part}: {text}");
        }
        if part == "cofferdam-supervisor" {
            // It could clear up nothing: the command line does in its place.
            let state = install.run(&["state", "c"]).unwrap();
            assert!(stderr(&state).contains("does not exist"), "{}", stderr(&state));
        }
        install.nothing_left().unwrap();
    }
}

#[test]
fn killing_the_command_line_while_the_sandbox_comes_up_leaves_nothing() {
    let install = Install::with_doubles("early").unwrap();
    for delay in [0, 2, 5, 10, 15, 20, 30, 50] {
        let mut child = install.command(&["do", "sleep"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
        install.nothing_left().unwrap_or_else(|e| panic!("killed after {delay} ms: {e}"));
    }
}

#[test]
fn killing_the_stand_in_kills_the_container() {
    let install = Install::with_doubles("standin").unwrap();
    let bundle = install.bundle("b", &["sleep"]).unwrap();
    let pid_file = install.folder.join("pid");
    let arguments = ["run", "-d", "-b", bundle.to_str().unwrap(), "--pid-file", pid_file.to_str().unwrap(), "c"];
    assert!(install.run(&arguments).unwrap().status.success());
    kill(std::fs::read_to_string(&pid_file).unwrap().parse().unwrap(), rustix::process::Signal::KILL);
    until("stopped", || String::from_utf8_lossy(&install.run(&["state", "c"]).unwrap().stdout).contains("stopped"));
    assert!(install.run(&["delete", "c"]).unwrap().status.success());
    install.nothing_left().unwrap();
}

#[test]
fn many_at_once_share_one_supervisor() {
    let install = Install::with_doubles("many").unwrap();
    let children: Vec<Child> = (0..8)
        .map(|n| install.command(&["do", "exit", &n.to_string()]).stdout(Stdio::null()).spawn().unwrap())
        .collect();
    for (n, mut child) in children.into_iter().enumerate() {
        assert_eq!(child.wait().unwrap().code(), Some(n as i32));
    }
    install.nothing_left().unwrap();
}

#[test]
fn the_trace_names_each_phase() {
    let install = Install::with_doubles("trace").unwrap();
    let output = install.run(&["--trace-startup", "do", "exit", "0"]).unwrap();
    for phase in ["connected", "services launched", "services ready", "container created", "container started"] {
        assert!(stderr(&output).contains(phase), "{phase}: {}", stderr(&output));
    }
    install.nothing_left().unwrap();
}

#[test]
fn spec_writes_a_document_that_create_takes() {
    let install = Install::with_doubles("spec").unwrap();
    let bundle = install.folder.join("s");
    std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
    let bundle = bundle.to_str().unwrap();
    assert!(install.run(&["spec", "--bundle", bundle]).unwrap().status.success());
    let again = install.run(&["spec", "--bundle", bundle]).unwrap();
    assert!(stderr(&again).contains("config.json exists"));
    let path = install.folder.join("s/config.json");
    let text = std::fs::read_to_string(&path).unwrap().replace("\"terminal\": true", "\"terminal\": false");
    std::fs::write(&path, text).unwrap();
    assert!(install.run(&["create", "-b", bundle, "c"]).unwrap().status.success());
    assert!(install.run(&["delete", "--force", "c"]).unwrap().status.success());
    install.nothing_left().unwrap();
}
