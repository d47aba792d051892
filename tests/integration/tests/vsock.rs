//! Channels over vsock: the Gofer's executable serving on `vsock:CID:PORT`, our client and plain messages over it.
//!
//! Needs vsock's loopback (CONFIG_VSOCKETS_LOOPBACK). Where the host's kernel has none, the test boots an emulated machine whose kernel
//! has, and runs itself there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod files;

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cofferdam_integration::install::{built, end};
use cofferdam_integration::vm;
use cofferdam_ninep::Errno;
use cofferdam_ninep::client::Client;
use cofferdam_shm::Window;
use cofferdam_transport::{Address, Channel, TransportError};
use files::Scratch;

/// VMADDR_CID_LOCAL
const LOCAL: u32 = 1;
/// Set in the emulated machine.
const INSIDE: &str = "COFFERDAM_TEST_IN_MACHINE";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Whether this kernel carries vsock to itself: a port where nobody listens is then refused, and not unreachable.
fn has_loopback() -> bool {
    let nobody = Address::Vsock { cid: LOCAL, port: 1 };
    let refused = runtime().block_on(nobody.connect()).map(|_| ()).unwrap_err();
    println!("{refused}");
    assert!(refused.to_string().starts_with("cannot connect to vsock:1:1: "), "{refused}");
    let cofferdam_transport::AddressError::Host { source, .. } = refused else { panic!("{refused}") };
    source.raw_os_error() == Some(libc::ECONNRESET)
}

fn served(dir: &Scratch, address: &str) -> Child {
    Command::new(built().join("cofferdam-gofer"))
        .args(["--serve", address, "--export"])
        .arg(format!("root={}", dir.path().display()))
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

fn connected(address: &str) -> Channel {
    let address: Address = address.parse().unwrap();
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        match runtime().block_on(address.connect()) {
            Ok(fd) => return Channel::new(fd).unwrap(),
            Err(e) => assert!(Instant::now() < limit, "{e}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Files through the Gofer's executable: no descriptor can pass, so the window does not, and all else must work.
fn files_over_vsock() {
    let dir = Scratch::new();
    let content: Vec<u8> = (0..700_000u32).map(|i| (i % 251) as u8).collect();
    std::fs::write(dir.join("f"), &content).unwrap();
    let gofer = served(&dir, "vsock:any:5640");
    let w = Arc::new(Window::create("t", 1 << 20).unwrap());
    let c = Client::connect(connected(&format!("vsock:{LOCAL}:5640")), Some(w.clone())).unwrap();
    assert!(c.extended());
    let (root, _) = c.attach(b"export/root", b"", u32::MAX).unwrap();
    let found = c.open_fill(&root, b"f", 4096, 0).unwrap();
    assert_eq!((found.open, found.filled, found.error), (true, 4096, None));
    assert_eq!(c.fill(&found.fid, 0, 1 << 20, 0).unwrap(), 700_000);
    let mut back = vec![0; 700_000];
    w.read(0, &mut back).unwrap();
    assert!(back == content);
    let g = c.walk(&root, &[]).unwrap();
    c.lcreate(&g, b"g", 2, 0o644, 0).unwrap();
    assert_eq!(c.spill(&g, 0, 600_000, 0).unwrap(), 600_000);
    assert!(std::fs::read(dir.join("g")).unwrap() == content[..600_000]);
    assert_eq!(c.walk_getattr(&root, &[b"none"]).unwrap().error, Some(Errno::NOENT));
    let root = Arc::new(root);
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (c, root) = (c.clone(), root.clone());
            std::thread::spawn(move || {
                for _ in 0..50 {
                    assert_eq!(c.walk_getattr(&root, &[b"f"]).unwrap().steps[0].size, 700_000);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    // A second one at the same time is a session of its own.
    let other = Client::connect(connected(&format!("vsock:{LOCAL}:5640")), None).unwrap();
    let (root, _) = other.attach(b"export/root", b"", u32::MAX).unwrap();
    assert_eq!(other.walk_getattr(&root, &[b"f"]).unwrap().steps[0].size, 700_000);
    end(gofer);
    // Its end is an error, and no hang.
    assert!(other.walk_getattr(&root, &[b"f"]).is_err());
}

/// Messages on a channel: sizes, caps, lies about the length, the peer's end.
fn messages_over_vsock() {
    let runtime = runtime();
    let (near, far) = runtime.block_on(async {
        let listener = Address::Vsock { cid: u32::MAX, port: 5641 }.listen().unwrap();
        let address = Address::Vsock { cid: LOCAL, port: 5641 };
        let (near, far) = tokio::join!(address.connect(), listener.accept());
        (Channel::new(near.unwrap()).unwrap(), Channel::new(far.unwrap()).unwrap())
    });
    let message = |len: u32| {
        let mut m = len.to_le_bytes().to_vec();
        m.resize(len as usize, 7);
        m
    };
    let sizes = [5, 4096, 70_000, 1 << 20];
    let sender = std::thread::spawn(move || {
        sizes.iter().for_each(|s| near.send(&message(*s)).unwrap());
        // More than the other side takes, and less than can be.
        near.send(&(1u32 << 30).to_le_bytes()).unwrap();
        near
    });
    let mut m = Vec::new();
    for size in sizes {
        far.recv(&mut m, 1 << 20).unwrap();
        assert!(m == message(size), "{size}");
    }
    assert!(matches!(far.recv(&mut m, 1 << 20), Err(TransportError::TooLong { .. })));
    let near = sender.join().unwrap();
    drop(far);
    let closed = (0..1000).find_map(|_| {
        std::thread::sleep(Duration::from_millis(5));
        near.send(&message(5)).err()
    });
    assert!(matches!(closed, Some(TransportError::Closed)), "{closed:?}");
}

#[test]
fn files_and_messages_travel_over_vsock() {
    if has_loopback() {
        files_over_vsock();
        messages_over_vsock();
        println!("vsock works");
        return;
    }
    assert!(std::env::var_os(INSIDE).is_none(), "no loopback in the machine either");
    println!("no vsock loopback on this host: in an emulated machine");
    let (this, gofer) = (std::env::current_exe().unwrap(), built().join("cofferdam-gofer"));
    let modules = ["vsock", "vmw_vsock_virtio_transport_common", "vsock_loopback"];
    let modules = modules.map(|m| format!("net/vmw_vsock/{m}.ko"));
    let modules: Vec<&str> = modules.iter().map(String::as_str).collect();
    let command = format!("{INSIDE}=1 {} --nocapture files_and_messages_travel_over_vsock 2>&1", this.display());
    let scratch = Scratch::new();
    // Seven seconds on an idle machine.
    let ran = vm::run(scratch.path(), &[&this, &gofer], &modules, &command, 300).unwrap();
    println!("{}", ran.console);
    assert_eq!(ran.status, Some(0), "{}", ran.console);
    assert!(ran.console.contains("vsock works"), "{}", ran.console);
}
