//! Stdio over 9P, through the whole service: orders on a control channel, files and stdio sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod files;

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cofferdam_control::{Channel as Supervisor, ControlError};
use cofferdam_gofer::orders::{Control, Export, ExportKind, FromGofer, GoferOrders, LogSettings, ToGofer};
use cofferdam_gofer::service;
use cofferdam_ninep::Errno;
use cofferdam_ninep::client::{Client, Fid};
use cofferdam_ninep::codec::NONUNAME;
use cofferdam_shm::Window;
use cofferdam_transport::Channel;
use files::Scratch;

const CURRENT: u64 = u64::MAX;

struct Gofer {
    control: Supervisor,
    files: Client,
    stdio: Client,
    thread: Option<std::thread::JoinHandle<()>>,
    _dir: Scratch,
}

impl Gofer {
    fn start() -> Self {
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
        let dir = Scratch::new();
        std::fs::write(dir.join("f"), "file").unwrap();
        let (near, far) = Channel::pair().unwrap();
        let far = Arc::new(Control::new(far.into_fd()));
        let thread = std::thread::spawn(move || service::run(far, service::Confinement::None).unwrap());
        let control = Supervisor::new(near.into_fd());
        let window = Arc::new(Window::create("t", 1 << 30).unwrap());
        let (files, files_far) = Channel::pair().unwrap();
        let (stdio, stdio_far) = Channel::pair().unwrap();
        let root = files::open_path(dir.path());
        let export =
            Export { name: "root".into(), read_only: false, kind: ExportKind::Directory, beside: None, follows: false };
        let orders = GoferOrders {
            sandbox: "t".into(),
            exports: vec![export],
            log: LogSettings::default(),
            cache_size: 1 << 30,
        };
        control.send(&orders, &[files_far.as_fd(), stdio_far.as_fd(), window.fd(), root.as_fd()]).unwrap();
        drop((files_far, stdio_far));
        let ready = control.receive::<FromGofer>().unwrap().message;
        assert!(matches!(ready, FromGofer::Ready { .. }));
        let files = Client::connect(files, Some(window)).unwrap();
        let stdio = Client::connect(stdio, None).unwrap();
        stdio.start_reader("stdio").unwrap();
        Self { control, files, stdio, thread: Some(thread), _dir: dir }
    }

    fn answer(&self) -> FromGofer {
        self.control.receive().unwrap().message
    }

    fn add(&self, container: &str, tty: bool, fds: &[OwnedFd]) -> FromGofer {
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        self.control.send(&ToGofer::AddStdio { container: container.into(), tty }, &fds).unwrap();
        self.answer()
    }

    fn fid(&self, name: &str) -> Fid {
        self.stdio.attach(format!("stdio/{name}").as_bytes(), b"", NONUNAME).unwrap().0
    }

    fn read(&self, fid: &Fid, count: u32) -> mpsc::Receiver<Result<Vec<u8>, Errno>> {
        let (tx, rx) = mpsc::channel();
        self.stdio.submit_read(fid, CURRENT, count, Box::new(move |r| tx.send(r).unwrap())).unwrap();
        rx
    }

    fn write(&self, fid: &Fid, data: &[u8]) -> Result<u32, Errno> {
        let (tx, rx) = mpsc::channel();
        self.stdio.submit_write(fid, CURRENT, data, Box::new(move |r| tx.send(r).unwrap())).unwrap();
        let count = rx.recv_timeout(Duration::from_secs(10)).unwrap()?;
        Ok(u32::from_le_bytes(count.try_into().unwrap()))
    }
}

impl Drop for Gofer {
    fn drop(&mut self) {
        self.control.send(&ToGofer::Stop, &[]).unwrap();
        assert!(matches!(self.control.receive::<FromGofer>(), Err(ControlError::Closed)));
        self.thread.take().unwrap().join().unwrap();
    }
}

fn pipes() -> ([OwnedFd; 3], std::io::PipeWriter, std::io::PipeReader, std::io::PipeReader) {
    let (r0, w0) = std::io::pipe().unwrap();
    let (r1, w1) = std::io::pipe().unwrap();
    let (r2, w2) = std::io::pipe().unwrap();
    ([r0.into(), w1.into(), w2.into()], w0, r1, r2)
}

const SOON: Duration = Duration::from_secs(10);

#[test]
fn pipes_carry_both_ways_and_end() {
    let g = Gofer::start();
    let (fds, mut w0, mut r1, mut r2) = pipes();
    assert!(matches!(g.add("c", false, &fds), FromGofer::Done));
    drop(fds);
    let (f0, f1, f2) = (g.fid("c/0"), g.fid("c/1"), g.fid("c/2"));
    let waiting = g.read(&f0, 100);
    assert!(waiting.recv_timeout(Duration::from_millis(50)).is_err());
    w0.write_all(b"typed").unwrap();
    assert_eq!(waiting.recv_timeout(SOON).unwrap().unwrap(), b"typed");
    assert_eq!(g.write(&f1, b"out").unwrap(), 3);
    assert_eq!(g.write(&f2, b"err").unwrap(), 3);
    let mut b = [0; 3];
    r1.read_exact(&mut b).unwrap();
    assert_eq!(&b, b"out");
    r2.read_exact(&mut b).unwrap();
    assert_eq!(&b, b"err");
    let waiting = g.read(&f0, 100);
    drop(w0);
    assert_eq!(waiting.recv_timeout(SOON).unwrap().unwrap(), b"");
    drop(r1);
    assert_eq!(g.write(&f1, b"x").unwrap_err(), Errno::PIPE);
    assert_eq!(g.stdio.tty_size(&f1).unwrap_err(), Errno::NOTTY);
    assert_eq!(g.stdio.getattr(&f1).unwrap().mode & 0o170_000, 0o010_000);
}

#[test]
fn a_blocked_read_blocks_nothing_and_a_flush_cancels_it() {
    let g = Gofer::start();
    let (fds, mut w0, _r1, _r2) = pipes();
    assert!(matches!(g.add("c", false, &fds), FromGofer::Done));
    let (f0, f1) = (g.fid("c/0"), g.fid("c/1"));
    let (tx, rx) = mpsc::channel();
    let tag = g.stdio.submit_read(&f0, CURRENT, 10, Box::new(move |r| tx.send(r).unwrap())).unwrap();
    let begin = Instant::now();
    // Others on the same socket, and on the other one.
    for _ in 0..200 {
        assert_eq!(g.write(&f1, b"x").unwrap(), 1);
        g.stdio.getattr(&f0).unwrap();
    }
    let (root, _) = g.files.attach(b"export/root", b"", NONUNAME).unwrap();
    g.files.walk(&root, &[b"f"]).unwrap();
    assert!(begin.elapsed() < SOON);
    assert!(rx.try_recv().is_err());
    g.stdio.flush(tag).unwrap();
    assert_eq!(rx.recv_timeout(SOON).unwrap(), Err(Errno::INTR));
    // A flush of what has ended is nothing; and what is typed next is lost to nobody.
    g.stdio.flush(tag).unwrap();
    w0.write_all(b"after").unwrap();
    assert_eq!(g.read(&f0, 10).recv_timeout(SOON).unwrap().unwrap(), b"after");
}

#[test]
fn a_full_pipe_blocks_only_its_writer_and_can_be_flushed() {
    let g = Gofer::start();
    let (fds, _w0, mut r1, _r2) = pipes();
    assert!(matches!(g.add("c", false, &fds), FromGofer::Done));
    let (f1, f2) = (g.fid("c/1"), g.fid("c/2"));
    let block = vec![b'a'; 100_000];
    let mut sent = g.write(&f1, &block).unwrap() as usize;
    assert!(sent >= 4096 && sent < block.len(), "{sent}");
    let (tx, rx) = mpsc::channel();
    let tag = g.stdio.submit_write(&f1, CURRENT, &block, Box::new(move |r| tx.send(r).unwrap())).unwrap();
    assert_eq!(g.write(&f2, b"err").unwrap(), 3);
    assert!(rx.recv_timeout(Duration::from_millis(50)).is_err());
    g.stdio.flush(tag).unwrap();
    assert_eq!(rx.recv_timeout(SOON).unwrap(), Err(Errno::INTR));
    let (tx, rx) = mpsc::channel();
    g.stdio.submit_write(&f1, CURRENT, b"tail", Box::new(move |r| tx.send(r).unwrap())).unwrap();
    let mut drained = vec![0; sent];
    r1.read_exact(&mut drained).unwrap();
    assert_eq!(rx.recv_timeout(SOON).unwrap().unwrap(), 4u32.to_le_bytes());
    sent = 4;
    r1.read_exact(&mut drained[..sent]).unwrap();
    assert_eq!(&drained[..4], b"tail");
}

#[test]
fn the_callers_descriptors_keep_their_flags() {
    let g = Gofer::start();
    let (fds, _w0, _r1, _r2) = pipes();
    let before: Vec<_> = fds.iter().map(|f| rustix::fs::fcntl_getfl(f).unwrap()).collect();
    g.add("c", false, &fds);
    let f1 = g.fid("c/1");
    g.write(&f1, b"x").unwrap();
    let waiting = g.read(&g.fid("c/0"), 1);
    assert!(waiting.recv_timeout(Duration::from_millis(20)).is_err());
    let after: Vec<_> = fds.iter().map(|f| rustix::fs::fcntl_getfl(f).unwrap()).collect();
    assert_eq!(before, after);
}

#[test]
fn a_terminal_has_a_size_and_is_read_by_lines() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let g = Gofer::start();
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
    let slave = rustix::fs::open(&*name, flags, 0.into()).unwrap();
    let size = rustix::termios::Winsize { ws_row: 33, ws_col: 111, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size).unwrap();
    assert!(matches!(g.add("t", true, &[slave]), FromGofer::Done));
    let t = g.fid("t/tty");
    assert_eq!(g.stdio.tty_size(&t).unwrap(), (33, 111));
    assert_eq!(g.stdio.getattr(&t).unwrap().mode & 0o170_000, 0o020_000);
    let line = g.read(&t, 100);
    rustix::io::write(&master, b"half").unwrap();
    assert!(line.recv_timeout(Duration::from_millis(50)).is_err());
    rustix::io::write(&master, b" line\n").unwrap();
    assert_eq!(line.recv_timeout(SOON).unwrap().unwrap(), b"half line\n");
    assert_eq!(g.write(&g.fid("t/1"), b"prompt> ").unwrap(), 8);
    let mut seen = Vec::new();
    while !seen.ends_with(b"prompt> ") {
        let mut b = [0; 100];
        let n = rustix::io::read(&master, &mut b).unwrap();
        seen.extend_from_slice(&b[..n]);
    }
    // Hanging up ends a waiting read.
    let waiting = g.read(&t, 10);
    drop(master);
    assert_eq!(waiting.recv_timeout(SOON).unwrap().unwrap_err(), Errno::IO);
}

#[test]
fn regular_files_and_dev_null_are_stdio_too() {
    let g = Gofer::start();
    let dir = Scratch::new();
    std::fs::write(dir.join("in"), "0123456789").unwrap();
    let input = std::fs::File::open(dir.join("in")).unwrap();
    let output = std::fs::File::create(dir.join("out")).unwrap();
    let null = std::fs::File::options().read(true).write(true).open("/dev/null").unwrap();
    g.add("c", false, &[input.into(), output.into(), null.into()]);
    let (f0, f1, f2) = (g.fid("c/0"), g.fid("c/1"), g.fid("c/2"));
    assert_eq!(g.read(&f0, 4).recv_timeout(SOON).unwrap().unwrap(), b"0123");
    assert_eq!(g.read(&f0, 4).recv_timeout(SOON).unwrap().unwrap(), b"4567");
    let mut b = [0; 3];
    assert_eq!((g.stdio.read(&f0, 1, &mut b).unwrap(), &b), (3, b"123"));
    assert_eq!(g.write(&f1, b"one").unwrap() + g.write(&f1, b"two").unwrap(), 6);
    assert_eq!(std::fs::read(dir.join("out")).unwrap(), b"onetwo");
    assert_eq!(g.write(&f2, b"gone").unwrap(), 4);
    assert_eq!(g.read(&f2, 4).recv_timeout(SOON).unwrap().unwrap(), b"");
}

#[test]
fn orders_that_make_no_sense_are_refused_and_unknown_names_are_not_found() {
    let g = Gofer::start();
    let (fds, _w0, _r1, _r2) = pipes();
    assert!(matches!(g.add("c", true, &fds), FromGofer::Failed { .. }));
    assert!(matches!(g.add("c", false, &fds), FromGofer::Done));
    assert!(matches!(g.add("c", false, &fds), FromGofer::Failed { .. }));
    for name in ["stdio/c/3", "stdio/c/tty", "stdio/d/0", "stdio/c", "export/root", "stdio//0", "\u{fffd}"] {
        assert_eq!(g.stdio.attach(name.as_bytes(), b"", NONUNAME).unwrap_err(), Errno::NOENT, "{name}");
    }
    assert_eq!(g.files.attach(b"stdio/c/0", b"", NONUNAME).unwrap_err(), Errno::NOENT);
    let held = g.fid("c/1");
    g.control.send(&ToGofer::RemoveStdio { container: "c".into() }, &[]).unwrap();
    assert!(matches!(g.answer(), FromGofer::Done));
    assert_eq!(g.stdio.attach(b"stdio/c/1", b"", NONUNAME).unwrap_err(), Errno::NOENT);
    assert_eq!(g.write(&held, b"x").unwrap(), 1);
}

#[test]
fn a_hostile_stdio_client_ends_its_session_and_nothing_else() {
    let g = Gofer::start();
    // A tag that is in flight: the client type cannot do that, so break the connection by hand.
    let (fds, _w0, _r1, _r2) = pipes();
    g.add("c", false, &fds);
    let f0 = g.fid("c/0");
    let waiting = g.read(&f0, 1);
    g.stdio.close();
    assert_eq!(waiting.recv_timeout(SOON).unwrap(), Err(Errno::IO));
    let (root, _) = g.files.attach(b"export/root", b"", NONUNAME).unwrap();
    assert!(g.files.getattr(&root).is_ok());
}
