//! The walls as the host shows them, on the live processes of a running sandbox: for root and for an unprivileged user.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers outside #[test] functions")]

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use cofferdam_integration::install::{Install, until};
use cofferdam_integration::walls::{Checks, descriptors, field, namespaces, roots_are_its_own, service, threads};

/// An id that no account has.
const SOMEBODY: u32 = 54_321;
/// CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, MKNOD, SETFCAP: what a file server may be given at most.
const FILE_CAPABILITIES: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 27 | 1 << 31;

fn look(install: &Install, platform: &str) {
    let data = install.folder.join("data");
    std::fs::create_dir_all(&data).unwrap();
    std::os::unix::fs::chown(&data, Some(install.uid()), Some(install.uid())).unwrap();
    let rootfs = install.rootfs(&format!("r-{platform}")).unwrap();
    let secret = std::fs::File::open("/etc/passwd").unwrap();
    let bind = format!("{}:/data", data.display());
    let script = "(sleep 1000 &) ; sleep 1000; exit";
    let arguments = [
        "--platform",
        platform,
        "do",
        "--network",
        "none",
        "--rootfs",
        rootfs.to_str().unwrap(),
        "--bind",
        &bind,
        "sh",
        "-c",
        script,
    ];
    let mut command = install.command(&arguments);
    // Descriptors that the command line was left with by accident must reach nobody.
    rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).unwrap();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("running", || String::from_utf8_lossy(&install.run(&["list"]).unwrap().stdout).contains("running"));
    // Those that the shell's programs replaced are on their way out.
    until("its processes", || {
        let before = install.stubs();
        std::thread::sleep(std::time::Duration::from_millis(100));
        before.len() >= 5 && install.stubs() == before
    });
    let mut checks = Checks(0);
    let one = |name: &str| match install.pids(name).as_slice() {
        [pid] => *pid,
        other => panic!("{name}: {other:?}"),
    };
    let (sentry, gofer) = (one("cofferdam-sentry"), one("cofferdam-gofer"));

    service(&mut checks, sentry, "sentry", 0);
    threads(&mut checks, sentry, "sentry", 0);
    for fd in descriptors(sentry) {
        let fine = [
            "socket:[",
            "pipe:[",
            "/memfd:cofferdam-",
            "anon_inode:seccomp notify",
            "anon_inode:[eventfd]",
            "anon_inode:[signalfd]",
        ];
        checks.that(fine.iter().any(|f| fd.starts_with(f)), || format!("sentry holds {fd}"));
    }
    // Who may mount has the folder copied as a bind mount is.
    let trees = usize::from(install.uid() == 0);
    service(&mut checks, gofer, "gofer", trees);
    threads(&mut checks, gofer, "gofer", FILE_CAPABILITIES);
    let roots: BTreeSet<String> = [&rootfs, &data].map(|p| p.to_string_lossy().into_owned()).into();
    for fd in descriptors(gofer) {
        let fine = [
            "socket:[",
            "pipe:[",
            "/memfd:cofferdam-cache",
            "anon_inode:[eventpoll]",
            "anon_inode:[eventfd]",
            "/dev/null",
        ];
        let beneath = (fd == "/" && trees > 0 && roots_are_its_own(gofer))
            || roots.iter().any(|r| fd == *r || fd.starts_with(&format!("{r}/")));
        checks.that(beneath || fine.iter().any(|f| fd.starts_with(f)), || format!("gofer holds {fd}"));
    }
    let (a, b) = (namespaces(&sentry.to_string()), namespaces(&gofer.to_string()));
    for (a, b) in a.iter().zip(&b) {
        checks.that(a != b, || format!("Sentry and Gofer share {a}"));
    }
    let ids = |pid: i32| field(&std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap(), "Uid");
    for stub in install.stubs() {
        threads(&mut checks, stub, "stub", 0);
        for fd in descriptors(stub) {
            let fine = ["/memfd:cofferdam-slots", "/memfd:cofferdam-cache", "/memfd:cofferdam-memory"];
            // The starter's pipe to the Sentry.
            checks.that(fine.iter().any(|f| fd.starts_with(f)) || fd.starts_with("pipe:["), || {
                format!("stub holds {fd}")
            });
        }
        let theirs = namespaces(&stub.to_string());
        checks.that(theirs == a, || format!("a stub is not where its Sentry is: {theirs:?} {a:?}"));
        let runs_as = ids(stub);
        checks.that(runs_as.split_whitespace().all(|id| id != "0"), || format!("a stub runs as {runs_as}"));
    }
    let supervisors = install.pids("cofferdam-supervisor");
    for pid in &supervisors {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        if !comm.starts_with("cofferdam-launc") {
            // CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, to open the roots of exports.
            match install.uid() {
                0 => threads(&mut checks, *pid, "supervisor", 1 << 1 | 1 << 2),
                _ => threads(&mut checks, *pid, "supervisor of a user", 0),
            }
        }
    }
    if install.uid() == 0 {
        let uid: u32 = ids(sentry).split_whitespace().next().unwrap().parse().unwrap();
        checks.that(uid >= 0x7000_0000, || format!("the Sentry runs as uid {uid}"));
        // Another process of that id, outside, may look into it only if it is dumpable (ptrace(2)).
        use std::os::unix::process::CommandExt;
        for (pid, may) in [(sentry, false), (std::process::id() as i32, false)] {
            let seen = Command::new("cat").arg(format!("/proc/{pid}/environ")).uid(uid).gid(uid).output().unwrap();
            checks.that(seen.status.success() == may, || format!("uid {uid} sees the environment of {pid}"));
        }
        let child = Command::new("sleep").arg("5").uid(uid).gid(uid).spawn().unwrap();
        let path = format!("/proc/{}/environ", child.id());
        let control = Command::new("cat").arg(path).uid(uid).gid(uid).output().unwrap();
        checks.that(control.status.success(), || "the control: a process that is dumpable can be looked into".into());
        cofferdam_integration::install::end(child);
    } else {
        for pid in [sentry, gofer] {
            checks.that(ids(pid).split_whitespace().all(|id| id == install.uid().to_string()), || ids(pid));
        }
    }
    println!("{:?} on {platform}: {} checks of live processes", install.uid(), checks.0);
    child.kill().unwrap();
    child.wait().unwrap();
    install.nothing_left().unwrap();
}

#[test]
fn the_walls_of_live_services_for_root() {
    let install = Install::with_services("walls-root").unwrap();
    look(&install, "notify");
    look(&install, "ptrace");
}

#[test]
fn the_walls_of_live_services_for_an_unprivileged_user() {
    let install = Install::with_services("walls-user").unwrap().as_user(SOMEBODY).unwrap();
    look(&install, "notify");
    look(&install, "ptrace");
}

#[test]
fn where_user_namespaces_are_refused_it_is_told() {
    let install = Install::with_services("walls-nons").unwrap();
    // A user namespace of the test's own, in which no further ones may be made (namespaces(7)).
    let command = format!(
        "echo 0 > /proc/sys/user/max_user_namespaces && exec {} --root {} do true",
        install.folder.join("bin/cofferdam").display(),
        install.root().display()
    );
    let output = Command::new("unshare").args(["--user", "--map-root-user", "sh", "-c", &command]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("user namespaces"), "{told}");
    install.nothing_left().unwrap();
}
