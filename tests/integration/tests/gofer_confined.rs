//! The executable behind all its walls: everything it serves still works, and it never dies of its own policy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking
#![allow(unsafe_code)] // handing down descriptor 3

mod files;

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use cofferdam_control::gofer::{Export, ExportKind, FromGofer, GoferOrders, ToGofer};
use cofferdam_control::{Channel as Control, LogLevel, LogSettings};
use cofferdam_integration::install::built;
use cofferdam_ninep::Errno;
use cofferdam_ninep::client::Client;
use cofferdam_ninep::codec::{Lock, LockKind, NONUNAME, SetAttr, SetAttrMask, Time};
use cofferdam_shm::Window;
use cofferdam_transport::Channel;
use files::Scratch;

/// The executable beside this test's.
fn gofer() -> PathBuf {
    let path = built().join("cofferdam-gofer");
    assert!(path.exists(), "{}: cargo build --workspace --bins first", path.display());
    path
}

struct Confined {
    child: Child,
    control: Control,
    files: Client,
    stdio: Client,
    window: Arc<Window>,
}

/// Lets a child that was started under PTRACE_TRACEME go on without a vDSO: every reading of a clock by the C library is a system call
/// then, as on a host whose clock source cannot be read in user space.
fn without_vdso(child: &Child) {
    const WORD: u64 = 8;
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    let mut status = 0;
    // SAFETY: waits for our own child.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert!(libc::WIFSTOPPED(status), "not stopped by its execve: {status:x}");
    // SAFETY: all zeroes is a value of it.
    let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    // SAFETY: the registers of a stopped tracee are written to what was given for them.
    assert_eq!(unsafe { libc::ptrace(libc::PTRACE_GETREGS, pid, 0, &raw mut registers) }, 0);
    // SAFETY: the tracee's memory is read and written, none of ours.
    let peek = |at: u64| unsafe { libc::ptrace(libc::PTRACE_PEEKDATA, pid, at, 0) };
    // Upwards from the stack pointer: argc, argv, 0, the environment, 0, the auxiliary vector.
    let mut at = registers.rsp + WORD;
    for _ in 0..2 {
        while peek(at) != 0 {
            at += WORD;
        }
        at += WORD;
    }
    while peek(at) != libc::AT_SYSINFO_EHDR.cast_signed() {
        assert_ne!(peek(at), libc::AT_NULL.cast_signed(), "no AT_SYSINFO_EHDR");
        at += 2 * WORD;
    }
    // SAFETY: as above.
    unsafe {
        assert_eq!(libc::ptrace(libc::PTRACE_POKEDATA, pid, at, libc::AT_IGNORE), 0);
        assert_eq!(libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0), 0);
    }
}

impl Confined {
    fn start(exports: &[(&str, &std::path::Path, bool)]) -> Self {
        Self::begin(exports, true)
    }

    /// With `vdso` off, on a host where telling the time is a system call.
    fn begin(exports: &[(&str, &std::path::Path, bool)], vdso: bool) -> Self {
        let (control, far) = Control::pair().unwrap();
        let far = far.into_socket();
        let number = far.as_raw_fd();
        let mut command = Command::new(gofer());
        // SAFETY: dup2, fcntl and ptrace are async-signal-safe; the descriptor outlives the spawn.
        unsafe {
            command.pre_exec(move || {
                let ok = if number == 3 { libc::fcntl(3, libc::F_SETFD, 0) } else { libc::dup2(number, 3) };
                let traced = vdso || libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) == 0;
                if ok < 0 || !traced { Err(std::io::Error::last_os_error()) } else { Ok(()) }
            })
        };
        let child = command.spawn().unwrap();
        if !vdso {
            without_vdso(&child);
        }
        drop(far);
        let window = Arc::new(Window::create("t", 1 << 30).unwrap());
        let (files, files_far) = Channel::pair().unwrap();
        let (stdio, stdio_far) = Channel::pair().unwrap();
        let export = |(name, _, read_only): &(&str, _, bool)| Export {
            name: (*name).into(),
            read_only: *read_only,
            kind: ExportKind::Directory,
            beside: None,
            follows: false,
        };
        let orders = GoferOrders {
            sandbox: "t".into(),
            cache_size: 1 << 30,
            exports: exports.iter().map(export).collect(),
            log: LogSettings { level: LogLevel::Warn },
        };
        let roots: Vec<OwnedFd> = exports.iter().map(|e| files::open_path(e.1)).collect();
        let mut fds = vec![files_far.as_fd(), stdio_far.as_fd(), window.fd()];
        fds.extend(roots.iter().map(AsFd::as_fd));
        control.send(&orders, &fds).unwrap();
        match control.receive::<FromGofer>().unwrap().message {
            FromGofer::Ready { landlock } => println!("ready, Landlock ABI {landlock}"),
            other => panic!("{other:?}"),
        }
        drop((files_far, stdio_far));
        let files = Client::connect(files, Some(window.clone())).unwrap();
        let stdio = Client::connect(stdio, None).unwrap();
        stdio.start_reader("stdio").unwrap();
        Self { child, control, files, stdio, window }
    }

    fn stop(mut self) {
        self.control.send(&ToGofer::Stop, &[]).unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(0), None));
    }
}

#[test]
fn everything_it_serves_works_behind_the_walls() {
    everything_works(true);
}

#[test]
fn everything_it_serves_works_where_the_vdso_cannot_tell_the_time() {
    everything_works(false);
}

fn everything_works(vdso: bool) {
    let (rw, ro) = (Scratch::new(), Scratch::new());
    std::fs::write(ro.join("f"), "read only").unwrap();
    for i in 0..3000 {
        std::fs::write(ro.join(&format!("many-{i}")), "").unwrap();
    }
    let g = Confined::begin(&[("rw", rw.path(), false), ("ro", ro.path(), true)], vdso);
    let c = &g.files;
    let (root, _) = c.attach(b"export/rw", b"", NONUNAME).unwrap();
    let (ro_root, _) = c.attach(b"export/ro", b"", 1000).unwrap();

    let f = c.walk(&root, &[]).unwrap();
    c.lcreate(&f, b"f", 2, 0o640, 0).unwrap();
    assert_eq!(c.write(&f, 0, &[9; 100_000]).unwrap(), 100_000);
    assert_eq!(c.fill(&f, 0, 1 << 20, 0).unwrap(), 100_000);
    assert_eq!(c.spill(&f, 100_000, 100_000, 0).unwrap(), 100_000);
    c.fsync(&f, false).unwrap();
    c.fsync(&f, true).unwrap();
    c.allocate(&f, 1, 0, 1 << 20).unwrap();
    c.set_xattr(&f, b"user.k", b"v", 0).unwrap();
    assert_eq!(c.get_xattr(&f, b"user.k").unwrap(), b"v");
    assert_eq!(c.get_xattr(&f, b"").unwrap(), b"user.k\0");
    c.remove_xattr(&f, b"user.k").unwrap();
    let range = Lock { start: 0, length: 10, process: 1 };
    assert!(c.lock(&f, LockKind::WRITE, range, b"").unwrap());
    let other = c.walk(&root, &[b"f"]).unwrap();
    c.lopen(&other, 2).unwrap();
    assert!(!c.lock(&other, LockKind::WRITE, range, b"").unwrap());
    assert_eq!(c.getlock(&other, LockKind::WRITE, range, b"").unwrap().0, LockKind::WRITE);
    let valid =
        SetAttrMask::MODE | SetAttrMask::SIZE | SetAttrMask::MTIME | SetAttrMask::MTIME_SET | SetAttrMask::ATIME;
    let mtime = Time { sec: 5, nsec: 6 };
    c.setattr(&f, &SetAttr { valid, mode: 0o600, size: 7, mtime, ..SetAttr::default() }).unwrap();
    if rustix::process::geteuid().is_root() {
        let valid = SetAttrMask::UID | SetAttrMask::GID;
        c.setattr(&f, &SetAttr { valid, uid: 4321, gid: 4322, ..SetAttr::default() }).unwrap();
        assert_eq!(c.getattr(&f).unwrap().uid, 4321);
        // Somebody else's unreadable file, through the capabilities kept.
        let again = c.walk(&root, &[b"f"]).unwrap();
        c.lopen(&again, 2).unwrap();
    }
    c.mkdir(&root, b"d", 0o755, NONUNAME).unwrap();
    c.symlink(&root, b"s", b"target", NONUNAME).unwrap();
    c.mknod(&root, b"p", 0o010_644, (0, 0), NONUNAME).unwrap();
    c.mknod(&root, b"e", 0o100_644, (0, 0), NONUNAME).unwrap();
    c.link(&root, &f, b"hard").unwrap();
    let d = c.walk(&root, &[b"d"]).unwrap();
    c.renameat(&root, b"hard", &d, b"moved", 0).unwrap();
    c.renameat(&root, b"s", &root, b"e", 2).unwrap();
    assert_eq!(c.renameat(&root, b"s", &root, b"e", 1).unwrap_err(), Errno::EXIST);
    let e = c.walk(&root, &[b"e"]).unwrap();
    assert_eq!(c.readlink(&e).unwrap(), b"target");
    c.unlinkat(&d, b"moved", 0).unwrap();
    c.unlinkat(&root, b"d", 0x200).unwrap();
    assert!(c.statfs(&root).unwrap().blocks > 0);
    assert!(c.open_fill(&ro_root, b"f", 4096, 0).unwrap().open);
    let mut text = [0; 9];
    g.window.read(0, &mut text).unwrap();
    assert_eq!(&text, b"read only");
    let list = c.walk(&ro_root, &[]).unwrap();
    c.lopen(&list, 0).unwrap();
    let (mut offset, mut count) = (0, 0);
    while let entries = c.readdir_attr(&list, offset).unwrap()
        && let Some(last) = entries.last()
    {
        (offset, count) = (last.offset, count + entries.len());
    }
    assert_eq!(count, 3003);
    assert_eq!(c.mkdir(&ro_root, b"x", 0o700, NONUNAME).unwrap_err(), Errno::ROFS);
    assert_eq!(c.link(&root, &c.walk(&ro_root, &[b"f"]).unwrap(), b"x").unwrap_err(), Errno::XDEV);

    let ro_root = Arc::new(ro_root);
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (c, root) = (g.files.clone(), ro_root.clone());
            std::thread::spawn(move || {
                for i in 0..500 {
                    let name = format!("many-{i}");
                    let found = c.open_fill(&root, name.as_bytes(), 4096, 0).unwrap();
                    assert!(found.open);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    drop(ro_root);

    // stdio: pipes, a terminal, a regular file.
    let (r0, mut w0) = std::io::pipe().unwrap();
    let (mut r1, w1) = std::io::pipe().unwrap();
    let regular: OwnedFd = std::fs::File::options()
        .read(true)
        .write(true)
        .open(rw.join("p2"))
        .or_else(|_| std::fs::File::options().read(true).write(true).create(true).truncate(false).open(rw.join("p2")))
        .unwrap()
        .into();
    let add = |container: &str, tty, fds: &[&OwnedFd]| {
        let fds: Vec<_> = fds.iter().map(|f| f.as_fd()).collect();
        g.control.send(&ToGofer::AddStdio { container: container.into(), tty }, &fds).unwrap();
        assert!(matches!(g.control.receive::<FromGofer>().unwrap().message, FromGofer::Done));
    };
    let (r0, w1): (OwnedFd, OwnedFd) = (r0.into(), w1.into());
    add("c", false, &[&r0, &w1, &regular]);
    let fid = |name: &str| g.stdio.attach(format!("stdio/{name}").as_bytes(), b"", 0).unwrap().0;
    let read = |fid: &_| {
        let (tx, rx) = mpsc::channel();
        let tag = g.stdio.submit_read(fid, u64::MAX, 100, Box::new(move |r| tx.send(r).unwrap())).unwrap();
        (tag, rx)
    };
    let soon = Duration::from_secs(20);
    let (tag, cancelled) = read(&fid("c/0"));
    g.stdio.flush(tag).unwrap();
    assert_eq!(cancelled.recv_timeout(soon).unwrap(), Err(Errno::INTR));
    let (_, typed) = read(&fid("c/0"));
    w0.write_all(b"typed").unwrap();
    assert_eq!(typed.recv_timeout(soon).unwrap().unwrap(), b"typed");
    let out = fid("c/1");
    assert_eq!(g.stdio.write(&out, u64::MAX, b"out").unwrap(), 3);
    let mut back = [0; 3];
    r1.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"out");
    assert_eq!(g.stdio.write(&fid("c/2"), u64::MAX, b"err").unwrap(), 3);

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = rustix::fs::open(&*name, rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY, 0.into()).unwrap();
    add("t", true, &[&slave]);
    let t = fid("t/tty");
    assert_eq!(g.stdio.tty_size(&t).unwrap(), (0, 0));
    let (_, line) = read(&t);
    rustix::io::write(&master, b"line\n").unwrap();
    assert_eq!(line.recv_timeout(soon).unwrap().unwrap(), b"line\n");
    assert_eq!(g.stdio.write(&t, u64::MAX, b"shown").unwrap(), 5);
    g.control.send(&ToGofer::RemoveStdio { container: "t".into() }, &[]).unwrap();
    assert!(matches!(g.control.receive::<FromGofer>().unwrap().message, FromGofer::Done));
    drop((root, list, f, other, d, e));
    g.stop();
}

#[test]
fn a_client_that_breaks_the_protocol_is_logged_and_the_gofer_lives() {
    let dir = Scratch::new();
    let g = Confined::start(&[("rw", dir.path(), false)]);
    g.files.close();
    g.stdio.close();
    g.control.send(&ToGofer::RemoveStdio { container: "none".into() }, &[]).unwrap();
    loop {
        match g.control.receive::<FromGofer>().unwrap().message {
            FromGofer::Log(line) => println!("{line:?}"),
            FromGofer::Failed { message } => {
                assert!(message.contains("ENOENT"), "{message}");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    g.stop();
}

#[test]
fn its_walls_are_seen_from_outside() {
    let dir = Scratch::new();
    let g = Confined::start(&[("ro", dir.path(), true)]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", g.child.id())).unwrap();
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1".into(), "2".into()));
    let dac_read_search = 1u64 << 2;
    for set in ["CapPrm:", "CapEff:", "CapBnd:", "CapInh:", "CapAmb:"] {
        let bits = u64::from_str_radix(&field(set), 16).unwrap();
        assert!(
            set == "CapBnd:" && !rustix::process::geteuid().is_root() || bits & !dac_read_search == 0,
            "{set} {bits:x}"
        );
    }
    let tasks = std::fs::read_dir(format!("/proc/{}/task", g.child.id())).unwrap();
    for task in tasks {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        assert!(status.contains("Seccomp:\t2"), "a thread without the filter");
    }
    let policy = cofferdam_confine::POLICIES.iter().find(|p| p.name == "gofer").unwrap();
    let calls: std::collections::BTreeSet<_> = policy.rules.iter().map(|r| r.call).collect();
    println!("the Gofer may make {} calls: {calls:?}", calls.len());
    assert!(calls.len() <= 45);
    g.stop();
}
