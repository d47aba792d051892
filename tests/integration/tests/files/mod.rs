//! What the tests of files share: a scratch directory, a Gofer in this process, a client of it.
#![allow(dead_code)]

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cofferdam_gofer::host::{CacheWindow, Export, ExportKind, Host};
use cofferdam_gofer::service;
use cofferdam_ninep::client::{Client, Fid};
use cofferdam_ninep::codec::NONUNAME;
use cofferdam_ninep::server::{Limits, Session};
use cofferdam_shm::Window;
use cofferdam_transport::Channel;
use rustix::fs::{Mode, OFlags};

/// A directory of its own, removed at the end.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("cofferdam-files-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn open_path(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

pub fn export(name: &str, path: &Path, read_only: bool) -> Export {
    Export { name: name.to_owned(), read_only, kind: ExportKind::Directory, root: open_path(path), beside: None }
}

pub struct Served {
    pub client: Client,
    pub root: Fid,
    pub window: Arc<Window>,
    pub session: Arc<Session<Host>>,
}

/// A channel to a Gofer's workers over `exports`.
pub fn raw(
    exports: Vec<Export>,
    window: Option<&Window>,
    limits: Limits,
    descriptors: usize,
) -> (Channel, Arc<Session<Host>>) {
    let _ = tracing_subscriber::fmt().with_test_writer().try_init();
    let window = window.map(|w| CacheWindow::new(w.fd().try_clone_to_owned().unwrap()).unwrap());
    let host = Host::new(exports, window, descriptors).unwrap();
    let session = Arc::new(Session::new(host, limits));
    let (near, far) = Channel::pair().unwrap();
    service::start_workers(session.clone(), far, 4).unwrap();
    (near, session)
}

/// A client of a Gofer over one directory, with a window.
pub fn serve(path: &Path, read_only: bool) -> Served {
    let window = Arc::new(Window::create("test-cache", 1 << 30).unwrap());
    let exports = vec![export("root", path, read_only)];
    let (channel, session) = raw(exports, Some(&window), Limits::default(), 4096);
    let client = Client::connect(channel, Some(window.clone())).unwrap();
    let (root, _) = client.attach(b"export/root", b"", NONUNAME).unwrap();
    Served { client, root, window, session }
}
