//! The OCI commands with the real services on a busybox bundle, held against runc where both can do the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use std::io::{IoSliceMut, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use cofferdam_integration::install::{Install, need, until};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::termios::Winsize;

fn says(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn state(install: &Install, id: &str) -> serde_json::Value {
    let output = install.run(&["state", id]).unwrap();
    assert!(output.status.success(), "{}", says(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// `create` with its stdout in a file: whoever reads a pipe would wait for the container's end.
fn create(install: &Install, arguments: &[&str], out: &Path) -> Output {
    let errors = out.with_extension("err");
    let status = install
        .command(&[&["create"], arguments].concat())
        .stdout(std::fs::File::create(out).unwrap())
        .stderr(std::fs::File::create(&errors).unwrap())
        .status()
        .unwrap();
    Output { status, stdout: Vec::new(), stderr: std::fs::read(errors).unwrap() }
}

#[test]
fn a_container_goes_through_its_life() {
    let install = Install::with_services("oci-life").unwrap();
    let bundle = install
        .busybox("b", &["sh", "-c", "echo begun; trap 'echo ended; exit 9' TERM; while :; do sleep 0.05; done"], false)
        .unwrap();
    let (bundle, out) = (bundle.to_str().unwrap(), install.folder.join("out"));
    let pid_file = install.folder.join("pid");
    let output = create(&install, &["--bundle", bundle, "--pid-file", pid_file.to_str().unwrap(), "c1"], &out);
    assert!(output.status.success(), "{}", says(&output));
    install.note();

    let created = state(&install, "c1");
    let pid: i64 = std::fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    assert_eq!(created["status"], "created");
    assert_eq!(created["pid"], pid);
    assert_eq!(created["id"], "c1");
    assert_eq!(created["bundle"], bundle);
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "", "nothing runs before start");
    let services: Vec<String> = install.processes().into_iter().map(|(_, name)| name).collect();
    for name in ["cofferdam-supervisor", "cofferdam-sentry", "cofferdam-gofer"] {
        assert!(services.iter().any(|s| s == name), "ps shows no {name}: {services:?}");
    }

    let again = create(&install, &["-b", bundle, "c1"], &install.folder.join("again"));
    assert_eq!(again.status.code(), Some(1));
    assert!(says(&again).contains("container with given ID already exists"), "{}", says(&again));

    let output = install.run(&["start", "c1"]).unwrap();
    assert!(output.status.success(), "{}", says(&output));
    let early = install.run(&["delete", "c1"]).unwrap();
    assert!(says(&early).contains("that is not stopped"), "{}", says(&early));
    until("the program's first words", || std::fs::read_to_string(&out).unwrap() == "begun\n");
    assert_eq!((&state(&install, "c1")["status"], &state(&install, "c1")["pid"]), (&"running".into(), &pid.into()));
    let output = install.run(&["start", "c1"]).unwrap();
    assert!(says(&output).contains("cannot start an already running container"), "{}", says(&output));
    let table = String::from_utf8(install.run(&["list"]).unwrap().stdout).unwrap();
    assert!(table.lines().next().unwrap().starts_with("ID"), "{table}");
    assert!(table.lines().any(|l| l.starts_with("c1 ") && l.contains("running") && l.contains(bundle)), "{table}");
    let list: serde_json::Value =
        serde_json::from_slice(&install.run(&["list", "--format", "json"]).unwrap().stdout).unwrap();
    assert_eq!((&list[0]["id"], &list[0]["status"]), (&"c1".into(), &"running".into()));
    assert_eq!(install.run(&["list", "-q"]).unwrap().stdout, b"c1\n");

    assert!(install.run(&["kill", "c1", "TERM"]).unwrap().status.success());
    until("stopped", || state(&install, "c1")["status"] == "stopped");
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "begun\nended\n");
    until("the stand-in's end", || !Path::new(&format!("/proc/{pid}")).exists());
    let output = install.run(&["kill", "c1", "TERM"]).unwrap();
    assert!(says(&output).contains("container not running"), "{}", says(&output));
    assert!(install.run(&["delete", "c1"]).unwrap().status.success());
    let output = install.run(&["state", "c1"]).unwrap();
    assert_eq!((output.status.code(), says(&output).contains("does not exist")), (Some(1), true));
    install.nothing_left().unwrap();
}

#[test]
fn delete_force_ends_a_running_container_and_kill_all_reaches_every_process() {
    let install = Install::with_services("oci-force").unwrap();
    let bundle = install.busybox("b", &["sh", "-c", "sleep 1000 & sleep 1000 & wait"], false).unwrap();
    let bundle = bundle.to_str().unwrap();
    for id in ["one", "two"] {
        let output = create(&install, &["-b", bundle, id], &install.folder.join(id));
        assert!(output.status.success(), "{}", says(&output));
        assert!(install.run(&["start", id]).unwrap().status.success());
    }
    install.note();
    assert!(install.run(&["delete", "--force", "one"]).unwrap().status.success());
    assert!(install.run(&["kill", "--all", "two", "KILL"]).unwrap().status.success());
    until("stopped", || state(&install, "two")["status"] == "stopped");
    assert!(install.run(&["delete", "two"]).unwrap().status.success());
    assert!(install.run(&["delete", "--force", "two"]).unwrap().status.success(), "none there is no error");
    install.nothing_left().unwrap();
}

/// Engines enter the mount namespace of the pid they were told, and take names there for the container's (`podman cp`).
#[test]
fn the_stand_ins_root_is_the_containers_and_nothing_else_of_the_hosts() {
    let install = Install::with_services("oci-tree").unwrap();
    let bundle = install.busybox("b", &["sh", "-c", "echo in >/tmp/inside; sleep 100"], false).unwrap();
    for folder in ["rw", "ro", "outside"] {
        std::fs::create_dir(install.folder.join(folder)).unwrap();
    }
    let rootfs = bundle.join("rootfs");
    for folder in ["rw", "ro", "mem", "etc"] {
        std::fs::create_dir_all(rootfs.join(folder)).unwrap();
    }
    std::fs::write(rootfs.join("etc/mine"), "the container's").unwrap();
    // A name that leads out of the root is taken from the root.
    let outside = install.folder.join("outside");
    std::os::unix::fs::symlink(&outside, rootfs.join("leads")).unwrap();
    let led = rootfs.join(outside.strip_prefix("/").unwrap()).join("file");
    std::fs::create_dir_all(led.parent().unwrap()).unwrap();
    std::fs::write(&led, "").unwrap();
    std::fs::write(install.folder.join("file"), "bound").unwrap();
    Install::edit(&bundle, |document| {
        let bind = |to: &str, from: &str, how: &str| {
            let from = install.folder.join(from);
            serde_json::json!({"destination": to, "type": "bind", "source": from, "options": ["bind", how]})
        };
        document["root"]["readonly"] = false.into();
        let mounts = document["mounts"].as_array_mut().unwrap();
        mounts.push(bind("/rw", "rw", "rw"));
        mounts.push(bind("/ro", "ro", "ro"));
        mounts.push(bind("/leads/file", "file", "rw"));
        mounts.push(serde_json::json!({"destination": "/mem", "type": "tmpfs", "source": "tmpfs"}));
    })
    .unwrap();
    let output = create(&install, &["--bundle", bundle.to_str().unwrap(), "c1"], &install.folder.join("out"));
    assert!(output.status.success(), "{}", says(&output));
    assert!(install.run(&["start", "c1"]).unwrap().status.success());
    until("the program's file", || rootfs.join("tmp/inside").exists());

    let pid = &state(&install, "c1")["pid"];
    let there = std::path::PathBuf::from(format!("/proc/{pid}/root"));
    assert_ne!(
        std::fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap(),
        std::fs::read_link("/proc/self/ns/mnt").unwrap()
    );
    assert_eq!(std::fs::read_to_string(there.join("etc/mine")).unwrap(), "the container's");
    assert_eq!(std::fs::read_to_string(there.join("tmp/inside")).unwrap(), "in\n");
    assert!(!there.join(install.folder.strip_prefix("/").unwrap()).join("bin").exists(), "the host's root");
    std::fs::write(there.join("tmp/put"), "put").unwrap();
    assert_eq!(std::fs::read_to_string(rootfs.join("tmp/put")).unwrap(), "put");
    std::fs::write(there.join("rw/put"), "put").unwrap();
    assert_eq!(std::fs::read_to_string(install.folder.join("rw/put")).unwrap(), "put");
    for place in ["ro/put", "mem/put", "proc/put", "dev/put"] {
        let error = std::fs::write(there.join(place), "put").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{place}");
    }
    assert_eq!(std::fs::read_dir(there.join("proc")).unwrap().count(), 0);
    let at = there.join(outside.strip_prefix("/").unwrap());
    assert_eq!(std::fs::read_to_string(at.join("file")).unwrap(), "bound");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);

    assert!(install.run(&["delete", "--force", "c1"]).unwrap().status.success());
    install.nothing_left().unwrap();
}

/// Engines put interfaces into the network namespace of the pid they were told: never into the host's, unless that was asked for.
#[test]
fn the_stand_ins_network_namespace_is_the_one_that_was_asked_for() {
    let install = Install::with_services("oci-net").unwrap();
    let bundle = install.busybox("b", &["sleep", "100"], false).unwrap();
    let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    let made = |id: &str, network: Option<serde_json::Value>| {
        Install::edit(&bundle, |document| {
            let namespaces = document["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|n| n["type"] != "network");
            namespaces.extend(network);
        })
        .unwrap();
        let output = create(&install, &["--bundle", bundle.to_str().unwrap(), id], &install.folder.join("out"));
        assert!(output.status.success(), "{}", says(&output));
        of(&state(&install, id)["pid"].to_string())
    };
    let (own, new) = (of("self"), made("new", Some(serde_json::json!({"type": "network"}))));
    assert_ne!(new, own);
    let path = format!("/proc/{}/ns/net", state(&install, "new")["pid"]);
    assert_eq!(made("joins", Some(serde_json::json!({"type": "network", "path": path}))), new);
    assert_eq!(made("hosts", None), own);
    for id in ["new", "joins", "hosts"] {
        assert!(install.run(&["delete", "--force", id]).unwrap().status.success());
    }
    install.nothing_left().unwrap();
}

/// Changes stay inside, or nothing may be changed: nobody changes the host's files through the stand-in.
#[test]
fn the_stand_ins_root_is_read_only_where_the_hosts_files_are_not_the_containers_to_write() {
    let install = Install::with_services("oci-tree-ro").unwrap();
    let bundle = install.busybox("b", &["sleep", "100"], false).unwrap();
    for (id, read_only, overlay) in [("c1", true, "off"), ("c2", false, "on")] {
        Install::edit(&bundle, |document| document["root"]["readonly"] = read_only.into()).unwrap();
        let flag = format!("--overlay={overlay}");
        let output = create(&install, &[&flag, "--bundle", bundle.to_str().unwrap(), id], &install.folder.join("out"));
        assert!(output.status.success(), "{}", says(&output));
        let there = std::path::PathBuf::from(format!("/proc/{}/root", state(&install, id)["pid"]));
        let error = std::fs::write(there.join("tmp/put"), "put").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{id}");
        assert!(install.run(&["delete", "--force", id]).unwrap().status.success());
    }
    install.nothing_left().unwrap();
}

#[test]
fn debug_shows_what_a_running_container_asked_for_in_vain() {
    let install = Install::with_services("oci-vain").unwrap();
    let script = "rmmod a 2>/dev/null; rmmod b 2>/dev/null; echo asked; sleep 1000";
    let bundle = install.busybox("b", &["sh", "-c", script], false).unwrap();
    let out = install.folder.join("out");
    let output = create(&install, &["-b", bundle.to_str().unwrap(), "c"], &out);
    assert!(output.status.success(), "{}", says(&output));
    install.note();
    assert!(install.run(&["start", "c"]).unwrap().status.success());
    until("it has asked", || std::fs::read_to_string(&out).unwrap() == "asked\n");
    let output = install.run(&["debug", "c", "--unimplemented"]).unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let words = |l: &str| l.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let line = table.lines().map(words).find(|l| l.get(1).is_some_and(|n| n == "delete_module"));
    assert_eq!(line.unwrap_or_default(), ["2", "delete_module", "176", "refused", "on", "purpose"], "{table}");
    assert_eq!(install.run(&["debug", "c"]).unwrap().status.code(), Some(1), "what to show must be said");
    assert!(install.run(&["delete", "--force", "c"]).unwrap().status.success());
    let output = install.run(&["debug", "c", "--unimplemented"]).unwrap();
    assert_eq!((output.status.code(), says(&output).contains("does not exist")), (Some(1), true), "{}", says(&output));
    install.nothing_left().unwrap();
}

/// Runs a bundle under both; what each ended with and said last.
fn both(install: &Install, bundle: &Path) -> [(Option<i32>, String, String); 2] {
    let runc = Command::new("runc")
        .arg("--root")
        .arg(install.folder.join("runc"))
        .args(["run", "--bundle"])
        .arg(bundle)
        .arg(format!("cofferdam-test-{}", std::process::id()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let ours = install.run(&["run", "--bundle", bundle.to_str().unwrap(), "ours"]).unwrap();
    [runc, ours].map(|o| (o.status.code(), String::from_utf8_lossy(&o.stdout).into_owned(), says(&o)))
}

#[test]
fn run_ends_and_complains_as_runc_does() {
    need("runc", "runc").unwrap();
    let install = Install::with_services("oci-runc").unwrap();
    let bundle = install.busybox("b", &["true"], false).unwrap();
    let files = bundle.join("rootfs/t");
    std::fs::create_dir_all(&files).unwrap();
    let busybox = std::fs::read(bundle.join("rootfs/bin/busybox")).unwrap();
    let program = |name: &str, content: &[u8]| {
        std::fs::write(files.join(name), content).unwrap();
        std::fs::set_permissions(files.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    // e_machine: 183, AArch64.
    let mut foreign = busybox.clone();
    foreign[18..20].copy_from_slice(&183u16.to_le_bytes());
    program("foreign", &foreign);
    program("headless", &busybox[..200]);
    program("empty", b"");
    program("script", b"#!/bin/sh\necho \"$0\" \"$@\"\n");
    program("orphan", b"#!/no/such/interpreter\n");
    let cases: [(&[&str], &str); 15] = [
        (&["true"], ""),
        (&["false"], ""),
        (&["sh", "-c", "echo out; echo err >&2; exit 42"], "err"),
        (&["sh", "-c", "sh -c 'kill -9 $$'"], ""),
        (&["sh", "-c", "sh -c 'kill -SEGV $$'; exit $?"], ""),
        (&["/t/script", "a", "b c"], ""),
        (&["sh", "-c", "id; hostname"], ""),
        (&["no-such-program"], "exec: \"no-such-program\": executable file not found in $PATH"),
        (&["/no/such/program"], "exec: \"/no/such/program\": stat /no/such/program: no such file or directory"),
        (&["/etc/passwd"], "exec: \"/etc/passwd\": permission denied"),
        (&["/etc"], "exec: \"/etc\": permission denied"),
        (&["/t/foreign"], "exec /t/foreign: exec format error"),
        (&["/t/headless"], "exec /t/headless: exec format error"),
        (&["/t/empty"], "exec /t/empty: exec format error"),
        (&["/t/orphan"], "exec /t/orphan: no such file or directory"),
    ];
    for (arguments, complaint) in cases {
        Install::edit(&bundle, |d| d["process"]["args"] = serde_json::json!(arguments)).unwrap();
        let [runc, ours] = both(&install, &bundle);
        assert_eq!((ours.0, &ours.1), (runc.0, &runc.1), "{arguments:?}: runc {runc:?}, ours {ours:?}");
        let plain = |text: &str| text.replace('\\', "");
        assert!(plain(&runc.2).contains(complaint), "{arguments:?}: runc says {}", runc.2);
        assert!(plain(&ours.2).contains(complaint), "{arguments:?}: we say {}", ours.2);
        install.nothing_left().unwrap();
    }
    // An ELF file that ends within its segments is killed once it runs, by whatever signal the host's loader ends it with.
    program("cut", &busybox[..5000]);
    Install::edit(&bundle, |d| d["process"]["args"] = serde_json::json!(["/t/cut"])).unwrap();
    let [runc, ours] = both(&install, &bundle);
    assert_eq!((runc.0, ours.0), (Some(139), Some(139)), "{ours:?}");
    install.nothing_left().unwrap();
}

/// What a client (containerd's shim) gets over a console socket: the terminal's master.
fn take_master(listener: &UnixListener) -> (OwnedFd, String) {
    let (stream, _) = listener.accept().unwrap();
    let mut name = [0u8; 256];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got =
        rustix::net::recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::empty()).unwrap();
    let master = control.drain().find_map(|m| match m {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    (master.expect("a descriptor over the console socket"), String::from_utf8_lossy(&name[..got.bytes]).into_owned())
}

#[test]
fn a_console_socket_gets_the_terminal_which_takes_input_sizes_and_signals() {
    let install = Install::with_services("oci-console").unwrap();
    let script = "tty; stty size; trap 'stty size' WINCH; trap 'echo int; exit 5' INT; echo ready; read line; echo got \"$line\"; while :; do sleep 0.05; done";
    let bundle = install.busybox("b", &["sh", "-c", script], true).unwrap();
    let socket = install.folder.join("console");
    let listener = UnixListener::bind(&socket).unwrap();
    let client = std::thread::spawn(move || take_master(&listener));
    let arguments = ["-b", bundle.to_str().unwrap(), "--console-socket", socket.to_str().unwrap(), "c"];
    let output = create(&install, &arguments, &install.folder.join("out"));
    assert!(output.status.success(), "{}", says(&output));
    install.note();
    let (master, name) = client.join().unwrap();
    assert!(name.starts_with("/dev/pts/"), "{name}");
    let size = |rows, columns| Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size(33, 101)).unwrap();
    assert!(install.run(&["start", "c"]).unwrap().status.success());

    let mut master = std::fs::File::from(master);
    let mut reader = master.try_clone().unwrap();
    let (to, from) = std::sync::mpsc::channel::<Vec<u8>>();
    // Ends with EIO when the container's side is gone.
    let reading = std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(n) = reader.read(&mut bytes) {
            if n == 0 || to.send(bytes[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    let mut seen = String::new();
    let mut expect = |what: &str| {
        until(what, || {
            seen.push_str(&from.try_iter().map(|b| String::from_utf8_lossy(&b).into_owned()).collect::<String>());
            seen.contains(what)
        });
        let rest = seen.split_once(what).unwrap();
        let before = rest.0.to_owned();
        seen = rest.1.to_owned();
        before
    };
    let before = expect("ready\r\n");
    assert_eq!(before, "/dev/pts/0\r\n33 101\r\n", "the size set before the start");
    master.write_all(b"hello\r").unwrap();
    expect("hello\r\n");
    expect("got hello\r\n");
    rustix::termios::tcsetwinsize(&master, size(44, 132)).unwrap();
    expect("44 132\r\n");
    master.write_all(b"\x03").unwrap();
    expect("int\r\n");
    until("stopped", || state(&install, "c")["status"] == "stopped");
    assert!(install.run(&["delete", "c"]).unwrap().status.success());
    drop(master);
    reading.join().unwrap();
    install.nothing_left().unwrap();
}

#[test]
fn a_terminal_needs_a_console_socket_and_the_other_way_round() {
    let install = Install::with_services("oci-noconsole").unwrap();
    let bundle = install.busybox("b", &["true"], true).unwrap();
    let output = create(&install, &["-b", bundle.to_str().unwrap(), "c"], &install.folder.join("out"));
    assert_eq!(output.status.code(), Some(1));
    assert!(says(&output).contains("console socket"), "{}", says(&output));
    let missing = install.folder.join("missing");
    let arguments = ["-b", bundle.to_str().unwrap(), "--console-socket", missing.to_str().unwrap(), "c"];
    let output = create(&install, &arguments, &install.folder.join("out"));
    assert_eq!(output.status.code(), Some(1));
    assert!(says(&output).contains(missing.to_str().unwrap()), "{}", says(&output));
    install.nothing_left().unwrap();
}

/// Engines show what comes from `create`'s stderr as the container's words: where that is the container's own, and conmon always
/// (podman's `run -t` where it attaches quickly).
#[test]
fn what_create_warns_of_is_never_taken_for_the_containers_words() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let install = Install::with_services("oci-warned").unwrap();
    for terminal in [false, true] {
        let name = format!("b{terminal}");
        let bundle = install.busybox(&name, &["true"], terminal).unwrap();
        Install::edit(&bundle, |d| d["linux"]["sysctl"] = serde_json::json!({"net.ipv4.nothing_like_it": "0 0"}))
            .unwrap();
        let (bundle, log) = (bundle.to_str().unwrap(), install.folder.join(format!("{name}.log")));
        let socket = install.folder.join(format!("{name}.console"));
        let listener = UnixListener::bind(&socket).unwrap();
        // The masters live until the end: a terminal that hung up is none.
        let times = if terminal { 4 } else { 0 };
        let client = std::thread::spawn(move || (0..times).map(|_| take_master(&listener)).collect::<Vec<_>>());
        let console = ["--console-socket", socket.to_str().unwrap()];
        let arguments = [&["-b", bundle][..], if terminal { &console[..] } else { &[] }, &["c"]].concat();
        let delete = || assert!(install.run(&["delete", "--force", "c"]).unwrap().status.success());

        for (conmon, told) in [(false, terminal), (true, false)] {
            let errors = install.folder.join(format!("{name}.err"));
            let mut command = install.command(&[&["create"], &arguments[..]].concat());
            if conmon {
                command.env("_OCI_SYNCPIPE", "3");
            }
            let files = || std::fs::File::create(&errors).unwrap();
            assert!(command.stdout(files()).stderr(files()).status().unwrap().success());
            let said = std::fs::read_to_string(&errors).unwrap();
            assert_eq!(said.contains("linux.sysctl: net.ipv4"), told, "conmon {conmon}: {said}");
            assert!(told || said.is_empty(), "{said}");
            delete();
        }

        let logged = [&["--log", log.to_str().unwrap()], &arguments[..]].concat();
        let output = create(&install, &logged, &install.folder.join("out"));
        assert!(output.status.success() && output.stderr.is_empty(), "{}", says(&output));
        let log = std::fs::read_to_string(log).unwrap();
        assert_eq!(log.lines().filter(|l| l.contains("linux.sysctl: net.ipv4")).count(), 1, "{log}");
        delete();

        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap();
        let stderr = std::fs::File::options().write(true).open(path.to_str().unwrap()).unwrap();
        let status = install.command(&[&["create"], &arguments[..]].concat()).stderr(stderr).status().unwrap();
        let mut said = [0; 4096];
        let n = rustix::io::read(&master, &mut said).unwrap();
        let said = String::from_utf8_lossy(&said[..n]).into_owned();
        assert!(status.success() && said.contains("linux.sysctl: net.ipv4"), "{said}");
        delete();
        client.join().unwrap();
    }
    install.nothing_left().unwrap();
}

#[test]
fn every_command_has_help_and_takes_the_global_flags() {
    let install = Install::with_services("oci-help").unwrap();
    for command in ["do", "spec", "create", "start", "run", "state", "kill", "delete", "list", "debug"] {
        let output = install.run(&[command, "--help"]).unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{command}");
        for flag in ["--root", "--log", "--log-format", "--debug", "--trace-startup", "--platform", "Usage: cofferdam"]
        {
            assert!(text.contains(flag), "{command} --help does not tell of {flag}:\n{text}");
        }
    }
    let text = String::from_utf8(install.run(&["--help"]).unwrap().stdout).unwrap();
    for command in ["do", "spec", "create", "start", "run", "state", "kill", "delete", "list", "debug"] {
        assert!(text.lines().any(|l| l.trim().starts_with(command)), "{command}: {text}");
    }
    install.nothing_left().unwrap();
}

#[test]
fn logs_are_written_in_both_formats_with_the_services_lines() {
    let install = Install::with_services("oci-log").unwrap();
    let bundle = install.busybox("b", &["true"], false).unwrap();
    let (json, text) = (install.folder.join("log.json"), install.folder.join("log.text"));
    let run = |log: &Path, more: &[&str], command: &[&str]| {
        let output = install.run(&[&["--log", log.to_str().unwrap()], more, command].concat()).unwrap();
        (output.status.code(), says(&output))
    };
    let command = ["run", "-b", bundle.to_str().unwrap(), "c"];
    assert_eq!(run(&json, &["--log-format", "json", "--debug"], &command).0, Some(0));
    assert_eq!(run(&json, &["--log-format", "json"], &["start", "nobody"]).0, Some(1));
    let written = std::fs::read_to_string(&json).unwrap();
    let lines: Vec<serde_json::Value> = written.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let has = |level: &str, what: &str| {
        lines.iter().any(|l| l["level"] == level && l["msg"].as_str().unwrap().contains(what) && l["time"].is_string())
    };
    assert!(has("debug", "platform"), "{written}");
    assert!(has("debug", "sentry: "), "{written}");
    assert!(has("error", "container does not exist"), "{written}");
    assert_eq!(run(&text, &["--debug"], &command).0, Some(0));
    let (code, told) = run(&text, &[], &["start", "nobody"]);
    assert_eq!((code, told.as_str()), (Some(1), "cofferdam: container does not exist\n"));
    let written = std::fs::read_to_string(&text).unwrap();
    assert!(written.lines().all(|l| l.starts_with("time=\"")), "{written}");
    assert!(written.contains("level=error msg=\"container does not exist\""), "{written}");
    assert!(written.contains("msg=\"sentry: "), "{written}");
    install.nothing_left().unwrap();
}

#[test]
fn the_trace_of_a_start_names_its_phases_in_order() {
    let install = Install::with_services("oci-trace").unwrap();
    let bundle = install.busybox("b", &["true"], false).unwrap();
    let output = install.run(&["--trace-startup", "run", "-b", bundle.to_str().unwrap(), "c"]).unwrap();
    assert!(output.status.success());
    let text = says(&output);
    let mut at = 0;
    for phase in ["connected", "services launched", "walls", "services ready", "container created", "container started"]
    {
        let found = text[at..].find(phase).unwrap_or_else(|| panic!("no {phase:?} in its place:\n{text}"));
        at += found;
    }
    install.nothing_left().unwrap();
}

#[test]
fn a_root_of_ones_own_keeps_containers_apart() {
    let install = Install::with_services("oci-root").unwrap();
    let other = Install::with_services("oci-root-other").unwrap();
    let bundle = install.busybox("b", &["sleep", "1000"], false).unwrap();
    for one in [&install, &other] {
        let output = create(one, &["-b", bundle.to_str().unwrap(), "same"], &one.folder.join("out"));
        assert!(output.status.success(), "{}", says(&output));
        one.note();
    }
    assert!(install.run(&["delete", "-f", "same"]).unwrap().status.success());
    assert_eq!(state(&other, "same")["status"], "created");
    assert!(other.run(&["delete", "-f", "same"]).unwrap().status.success());
    install.nothing_left().unwrap();
    other.nothing_left().unwrap();
}

#[test]
fn somebody_runs_the_bundle_of_spec_rootless() {
    const SOMEBODY: u32 = 54_322;
    let install = Install::with_services("oci-rootless").unwrap();
    install.rootfs("b/rootfs").unwrap();
    let bundle = install.folder.join("b");
    assert!(
        Command::new("chown").arg("-R").arg(format!("{SOMEBODY}:{SOMEBODY}")).arg(&bundle).status().unwrap().success()
    );
    let install = install.as_user(SOMEBODY).unwrap();
    let path = bundle.to_str().unwrap();
    let output = install.run(&["--rootless", "auto", "spec", "--rootless", "--bundle", path]).unwrap();
    assert!(output.status.success(), "{}", says(&output));
    let text = std::fs::read_to_string(bundle.join("config.json")).unwrap();
    let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
    document["process"]["terminal"] = false.into();
    document["root"]["readonly"] = false.into();
    document["process"]["args"] = serde_json::json!(["sh", "-c", "id -u; touch /tmp/made; stat -c %u /tmp/made"]);
    std::fs::write(bundle.join("config.json"), document.to_string()).unwrap();
    let output = install.run(&["run", "--bundle", path, "c"]).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n0\n", "{}", says(&output));
    let made = std::fs::metadata(bundle.join("rootfs/tmp/made")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), SOMEBODY);
    install.nothing_left().unwrap();
}
