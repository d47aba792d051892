//! Other people's 9P2000.L: our client against diod's and rs9p's servers, diod's client tools against our server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod files;

use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cofferdam_gofer::host::Host;
use cofferdam_gofer::service;
use cofferdam_ninep::Errno;
use cofferdam_ninep::client::{Client, Fid};
use cofferdam_ninep::codec::{Lock, LockKind, SetAttr, SetAttrMask};
use cofferdam_ninep::server::{Limits, Session};
use cofferdam_shm::Window;
use cofferdam_transport::Channel;
use files::Scratch;

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// diod (Debian package `diod`) over a directory, on a loopback port of its own.
fn diod(dir: &Path) -> (Ended, TcpStream) {
    cofferdam_integration::install::need("diod", "diod").unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let child = Command::new("diod")
        .args(["-f", "-n", "-N", "-L", "stderr", "-l", &format!("127.0.0.1:{port}"), "-e"])
        .arg(dir)
        .stderr(Stdio::null())
        .spawn()
        .expect("diod must be installed (apt-get install diod)");
    let child = Ended(child);
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => return (child, stream),
            Err(e) => assert!(Instant::now() < end, "diod does not answer: {e}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What every plain server must let our client do, including the extension's requests by other means.
fn exercise(dir: &Path, c: &Client, root: &Fid, w: &Window, gid: u32, with_xattrs_and_locks: bool) {
    assert!(!c.extended());
    std::fs::create_dir_all(dir.join("a/b")).unwrap();
    std::fs::write(dir.join("a/b/f"), vec![7u8; 200_000]).unwrap();
    std::os::unix::fs::symlink("a/b", dir.join("l")).unwrap();

    let walked = c.walk_getattr(root, &[b"a", b"b", b"f"]).unwrap();
    assert_eq!(walked.steps.iter().map(|a| a.mode & 0o170_000).collect::<Vec<_>>(), [0o40_000, 0o40_000, 0o100_000]);
    assert_eq!(walked.steps[2].size, 200_000);
    let short = c.walk_getattr(root, &[b"a", b"none"]).unwrap();
    assert_eq!((short.steps.len(), short.error), (1, Some(Errno::NOENT)));

    let f = c.walk(root, &[b"a", b"b", b"f"]).unwrap();
    c.lopen(&f, 0).unwrap();
    assert_eq!(c.fill(&f, 0, 1 << 20, 4096).unwrap(), 200_000);
    let mut back = vec![0; 200_000];
    w.read(4096, &mut back).unwrap();
    assert!(back.iter().all(|b| *b == 7));
    let b = c.walk(root, &[b"a", b"b"]).unwrap();
    let found = c.open_fill(&b, b"f", 100, 0).unwrap();
    assert_eq!((found.open, found.filled, found.attr.size), (true, 100, 200_000));

    let g = c.walk(root, &[]).unwrap();
    c.lcreate(&g, b"g", 2, 0o644, gid).unwrap();
    assert_eq!(c.spill(&g, 0, 150_000, 4096).unwrap(), 150_000);
    assert_eq!(std::fs::read(dir.join("g")).unwrap(), vec![7u8; 150_000]);
    c.setattr(&g, &SetAttr { valid: SetAttrMask::SIZE, size: 10, ..SetAttr::default() }).unwrap();
    assert_eq!(std::fs::metadata(dir.join("g")).unwrap().len(), 10);
    c.fsync(&g, false).unwrap();

    let l = c.walk(root, &[b"l"]).unwrap();
    assert_eq!(c.readlink(&l).unwrap(), b"a/b");
    c.mkdir(root, b"d", 0o755, gid).unwrap();
    c.symlink(root, b"s", b"target", gid).unwrap();
    c.renameat(root, b"s", root, b"t", 0).unwrap();
    assert_eq!(c.renameat(root, b"t", root, b"x", 1).unwrap_err(), Errno::INVAL);
    assert_eq!(std::fs::read_link(dir.join("t")).unwrap(), Path::new("target"));

    for i in 0..500 {
        std::fs::write(dir.join("d").join(format!("file-with-a-longer-name-{i}")), "").unwrap();
    }
    let d = c.walk(root, &[b"d"]).unwrap();
    c.lopen(&d, 0).unwrap();
    let (mut offset, mut names) = (0, std::collections::HashSet::new());
    loop {
        let entries = c.readdir_attr(&d, offset).unwrap();
        let Some(last) = entries.last() else { break };
        offset = last.offset;
        names.extend(entries.into_iter().map(|e| e.name).filter(|n| n != b"." && n != b".."));
    }
    assert_eq!(names.len(), 500);
    for name in names {
        c.unlinkat(&d, &name, 0).unwrap();
    }
    c.unlinkat(root, b"d", 0x200).unwrap();
    assert!(c.statfs(root).unwrap().blocks > 0);
    if with_xattrs_and_locks {
        c.link(root, &f, b"hard").unwrap();
        // Debian 12's diod has no extended attributes: its refusal must arrive as what it is.
        match c.set_xattr(&f, b"user.k", b"value", 0) {
            Ok(()) => assert_eq!(c.get_xattr(&f, b"user.k").unwrap(), b"value"),
            Err(e) => assert_eq!(e, Errno::OPNOTSUPP),
        }
        let range = Lock { start: 0, length: 10, process: 1 };
        assert!(c.lock(&g, LockKind::WRITE, range, b"us").unwrap());
        assert!(c.lock(&g, LockKind::UNLOCK, range, b"us").unwrap());
    }
    // Fids are given back one by one, and many at a time must not jam the connection.
    for _ in 0..2000 {
        drop(c.walk(root, &[b"a"]).unwrap());
    }
    c.clunk_batch();
    let next = c.walk(root, &[b"a"]).unwrap();
    assert!(next.number() < 1000, "fid {}", next.number());
}

#[test]
fn our_client_works_with_diods_server() {
    let dir = Scratch::new();
    let (_diod, stream) = diod(dir.path());
    let w = Arc::new(Window::create("t", 1 << 20).unwrap());
    let c = Client::connect(Channel::new(stream.into()).unwrap(), Some(w.clone())).unwrap();
    let aname = dir.path().as_os_str().as_encoded_bytes();
    let me = rustix::process::geteuid().as_raw();
    let (root, _) = c.attach(aname, b"", me).unwrap();
    exercise(dir.path(), &c, &root, &w, rustix::process::getegid().as_raw(), true);
}

/// A Gofer on a Unix stream socket, as `--serve` makes it.
fn listen(dir: &Path, socket: &Path) {
    let listener = UnixListener::bind(socket).unwrap();
    let dir = dir.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let host = Host::new(vec![files::export("root", &dir, false)], None, 1000).unwrap();
            let session = Arc::new(Session::new(host, Limits::default()));
            service::start_workers(session, Channel::new(stream.unwrap().into()).unwrap(), 4).unwrap();
        }
    });
}

fn tool(name: &str, socket: &Path, arguments: &[&str]) -> Output {
    cofferdam_integration::install::need(name, "diod").unwrap();
    let mut command = Command::new(name);
    command.arg("-s").arg(socket).args(["-a", "root", "-t", "20"]).args(arguments);
    let output = command.output().expect("diod's client tools must be installed (apt-get install diod)");
    println!("{name} {arguments:?}: {output:?}");
    output
}

#[test]
fn diods_client_tools_work_with_our_server() {
    let dir = Scratch::new();
    let content: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    std::fs::create_dir(dir.join("sub")).unwrap();
    std::fs::write(dir.join("sub/f"), &content).unwrap();
    std::fs::write(dir.join("short"), "hello\n").unwrap();
    let socket_dir = Scratch::new();
    let socket = socket_dir.join("9p");
    listen(dir.path(), &socket);
    assert_eq!(tool("diodcat", &socket, &["short"]).stdout, b"hello\n");
    assert!(tool("diodcat", &socket, &["sub/f"]).stdout == content);
    let missing = tool("diodcat", &socket, &["none"]);
    assert!(!missing.status.success());
    let names = String::from_utf8(tool("diodls", &socket, &["sub"]).stdout).unwrap();
    assert!(names.split_whitespace().any(|n| n == "f"), "{names}");
    let long = String::from_utf8(tool("diodls", &socket, &["-l"]).stdout).unwrap();
    let line = long.lines().find(|l| l.ends_with(" short")).unwrap();
    assert!(line.starts_with("-rw") && line.contains(" 6 "), "{line}");
    assert!(long.lines().any(|l| l.starts_with('d') && l.ends_with(" sub")), "{long}");
}

#[test]
fn our_client_and_server_work_over_a_stream_with_the_extension_but_no_window() {
    let dir = Scratch::new();
    std::fs::write(dir.join("f"), vec![5u8; 300_000]).unwrap();
    let socket_dir = Scratch::new();
    let socket = socket_dir.join("9p");
    listen(dir.path(), &socket);
    let stream = UnixStream::connect(&socket).unwrap();
    let w = Arc::new(Window::create("t", 1 << 20).unwrap());
    let c = Client::connect(Channel::new(stream.into()).unwrap(), Some(w.clone())).unwrap();
    assert!(c.extended());
    let (root, _) = c.attach(b"export/root", b"", u32::MAX).unwrap();
    let found = c.open_fill(&root, b"f", 4096, 0).unwrap();
    assert_eq!((found.open, found.filled, found.error), (true, 4096, None));
    assert_eq!(c.fill(&found.fid, 0, 1 << 19, 0).unwrap(), 300_000);
    let mut back = vec![0; 300_000];
    w.read(0, &mut back).unwrap();
    assert!(back.iter().all(|b| *b == 5));
    let root = Arc::new(root);
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (c, root) = (c.clone(), root.clone());
            std::thread::spawn(move || {
                for _ in 0..200 {
                    assert_eq!(c.walk_getattr(&root, &[b"f"]).unwrap().steps[0].size, 300_000);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
}

mod rs9p_server;

#[test]
fn our_client_works_with_rs9ps_server() {
    let dir = Scratch::new();
    let socket_dir = Scratch::new();
    let socket = socket_dir.join("9p");
    rs9p_server::start(dir.path(), &socket);
    let end = Instant::now() + Duration::from_secs(20);
    let stream = loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(e) => assert!(Instant::now() < end, "rs9p does not answer: {e}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let w = Arc::new(Window::create("t", 1 << 20).unwrap());
    let c = Client::connect(Channel::new(stream.into()).unwrap(), Some(w.clone())).unwrap();
    let (root, _) = c.attach(b"", b"", 0).unwrap();
    exercise(dir.path(), &c, &root, &w, 0, false);
}
