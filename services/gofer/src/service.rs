//! Putting the parts to work: workers for files, the runtime for stdio and orders.
//!
//! Owns the order of starting: take the orders, start every thread, raise the walls (over all threads), report ready.
//! After that no thread is made and no descriptor comes but stdio's, over the control channel. Caller: `main`, tests.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Barrier};

use caps::Capability;
use cofferdam_confine::{ConfineError, Landlock, Walls};
use cofferdam_ninep::Errno;
use cofferdam_ninep::server::{Limits, Session};
use cofferdam_transport::{Channel, TransportError};
use rustix::fs::{Mode, OFlags};
use tokio::io::Interest;
use tokio::task::LocalSet;

use crate::host::{CacheWindow, Export, ExportKind, Host};
use crate::orders::{self, Control, ControlError, FromGofer, GoferOrders, ToGofer};
use crate::stdio::{self, Stdios, Writers};

/// Threads that answer file requests: a request that waits for a disk shall not keep others waiting.
pub const WORKERS: usize = 4;
/// Threads that may hang in a write to a terminal that is not ours to set O_NONBLOCK on.
const TERMINAL_WRITERS: usize = 2;
/// Descriptors kept back from clients' files: sockets, stdio, the runtime's.
const RESERVED: u64 = 512;

/// Why the Gofer could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// No order, or none that makes sense.
    #[error(transparent)]
    Order(#[from] ControlError),
    /// The orders came with other descriptors than they need.
    #[error("orders for {exports} exports came with {fds} descriptors")]
    Descriptors {
        /// How many exports.
        exports: usize,
        /// How many descriptors.
        fds: usize,
    },
    /// A socket is none.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// An export cannot be served.
    #[error("exports: {0}")]
    Export(Errno),
    /// The runtime or a thread could not be had.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// The host's answer.
        source: std::io::Error,
    },
    /// The walls could not be raised.
    #[error(transparent)]
    Confine(#[from] ConfineError),
}

fn host(what: &'static str) -> impl Fn(std::io::Error) -> ServiceError {
    move |source| ServiceError::Host { what, source }
}

/// How many files clients may hold, by the limit of descriptors.
pub fn descriptor_budget() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 20);
    usize::try_from(limit.saturating_sub(RESERVED).max(64)).unwrap_or(1 << 20)
}

/// Limits of a session that may use `descriptors` files.
pub fn limits(descriptors: usize) -> Limits {
    // Many fids may share one file, so there may be more fids than files.
    Limits { fids: descriptors.saturating_mul(4), ..Limits::default() }
}

/// Starts the workers of one file session.
pub fn start_workers(session: Arc<Session<Host>>, channel: Channel, workers: usize) -> Result<(), ServiceError> {
    let channel = Arc::new(channel);
    for _ in 0..workers {
        let (session, channel) = (session.clone(), channel.clone());
        std::thread::Builder::new()
            .name("files".to_owned())
            .spawn(move || session.work(&channel))
            .map_err(host("thread"))?;
    }
    Ok(())
}

/// How much of the walls is raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confinement {
    /// None: tests inside a test's process.
    None,
    /// The system-call filter alone: tests of the policy.
    Filter,
    /// All: what a supervisor gets.
    Whole,
}

/// Name of the policy.
pub const POLICY: &str = "gofer";

/// Capabilities for exports that may be changed, where the process has them: a container's users are not ours.
const READ_WRITE: [Capability; 5] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
];
/// Capabilities for exports that may only be read.
const READ_ONLY: [Capability; 1] = [Capability::CAP_DAC_READ_SEARCH];

/// Takes the orders from `control` and carries them out until told to stop. The walls stand before anything is served.
pub fn run(control: Arc<Control>, confinement: Confinement) -> Result<(), ServiceError> {
    let Some((orders, fds)) = control.receive::<GoferOrders>()? else { return Ok(()) };
    if fds.len() != orders.exports.len() + 3 {
        return Err(ServiceError::Descriptors { exports: orders.exports.len(), fds: fds.len() });
    }
    if confinement != Confinement::None {
        crate::log::to_supervisor(&control, orders.log);
    }
    rustix::process::umask(rustix::fs::Mode::empty());
    let mut mounted = vec![None; orders.exports.len()];
    let landlock =
        if confinement == Confinement::Whole { raise_walls(&control, &orders, &fds, &mut mounted)? } else { 0 };

    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or(ServiceError::Descriptors { exports: orders.exports.len(), fds: 0 });
    let files = Arc::new(Channel::new(next()?)?);
    let stdio_channel = Channel::new(next()?)?;
    let window = CacheWindow::new(next()?).map_err(ServiceError::Export)?;
    let exports: Result<Vec<_>, _> = orders.exports.iter().zip(fds).zip(mounted).map(export).collect();
    let exports = exports?;
    let budget = descriptor_budget();
    let backend = Host::new(exports, Some(window), budget).map_err(ServiceError::Export)?;
    let session = Arc::new(Session::new(backend, limits(budget)));
    // The workers are made before the filter, which lets nobody make a thread, and serve after it.
    let gate = Arc::new(Barrier::new(WORKERS + 1));
    for _ in 0..WORKERS {
        let (session, files, gate) = (session.clone(), files.clone(), gate.clone());
        let work = move || {
            // Once to say that this thread has made all the calls that a thread starts with, once to begin.
            gate.wait();
            gate.wait();
            session.work(&files);
            drop((session, files));
            // A thread that ends makes calls that the policy has no other need for.
            if confinement != Confinement::None {
                loop {
                    std::thread::park();
                }
            }
        };
        std::thread::Builder::new().name("files".to_owned()).spawn(work).map_err(host("thread"))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(host("tokio"))?;
    let writers = Writers::start(TERMINAL_WRITERS).map_err(host("thread"))?;
    gate.wait();
    if confinement != Confinement::None {
        cofferdam_confine::raise_filter(POLICY)?;
    }
    gate.wait();
    control.send(&FromGofer::Ready { landlock })?;
    tracing::info!(sandbox = orders.sandbox, exports = orders.exports.len(), "serving");
    let outcome = LocalSet::new().block_on(&runtime, attend(&control, stdio_channel, writers));
    files.shutdown();
    outcome
}

/// All walls but the filter.
///
/// Exports that follow the host's mounts go into the root on the way: `mounted` is under which names.
fn raise_walls(
    control: &Control,
    orders: &GoferOrders,
    fds: &[OwnedFd],
    mounted: &mut [Option<String>],
) -> Result<u32, ServiceError> {
    let keep: Vec<_> = fds.iter().map(|fd| fd.as_raw_fd()).chain([control.as_fd().as_raw_fd()]).collect();
    let roots = |read_only| -> Vec<_> {
        let roots = orders.exports.iter().zip(fds.iter().skip(3));
        roots.filter(|(export, _)| export.read_only == read_only).map(|(_, fd)| fd.as_fd()).collect()
    };
    let (read_write, read_only) = (roots(false), roots(true));
    let wanted: &[Capability] = if read_write.is_empty() { &READ_ONLY } else { &READ_WRITE };
    let held = caps::read(None, caps::CapSet::Permitted).unwrap_or_default();
    let capabilities: Vec<_> = wanted.iter().copied().filter(|c| held.contains(c)).collect();
    let landlock = Landlock { read_write: &read_write, read_only: &read_only };
    let (capabilities, landlock) = (capabilities.as_slice(), Some(landlock));
    let follows = orders.exports.iter().zip(fds.iter().skip(3)).filter(|(export, _)| export.follows);
    let trees: Vec<_> = follows.map(|(export, fd)| (fd.as_fd(), !export.read_only)).collect();
    let walls = Walls { policy: POLICY, keep: &keep, capabilities, landlock, trees: &trees, dumpable: false };
    let raised = walls.raise_all_but_filter()?;
    let places = orders.exports.iter().zip(mounted).filter(|(export, _)| export.follows);
    for (n, ((export, mounted), there)) in places.zip(&raised.trees).enumerate() {
        *mounted = there.then(|| cofferdam_confine::tree_name(n));
        if !there {
            tracing::warn!(export = export.name, "what the host mounts there later will not be seen");
        }
    }
    Ok(raised.landlock)
}

fn export(((export, fd), mounted): ((&orders::Export, OwnedFd), Option<String>)) -> Result<Export, ServiceError> {
    let (kind, root) = match (export.kind, mounted) {
        (orders::ExportKind::Directory, Some(name)) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let own = rustix::fs::open("/", flags, Mode::empty()).map_err(|e| ServiceError::Export(e.into()))?;
            (ExportKind::Mounted(name.into_bytes()), own)
        }
        (orders::ExportKind::Directory, None) => (ExportKind::Directory, fd),
        (orders::ExportKind::File, _) => (ExportKind::File, fd),
    };
    let (name, beside) = (export.name.clone(), export.beside.clone());
    Ok(Export { name, read_only: export.read_only, kind, root, beside })
}

/// Serves stdio and orders.
async fn attend(control: &Control, stdio_channel: Channel, writers: Writers) -> Result<(), ServiceError> {
    let stdios = Stdios::new(writers);
    let session = {
        let stdios = stdios.clone();
        tokio::task::spawn_local(async move {
            match stdio::serve(stdio_channel, stdios).await {
                Ok(()) => tracing::debug!("stdio session closed"),
                Err(why) => tracing::warn!(%why, "stdio session ended"),
            }
        })
    };
    let waiter = crate::watch::watch(control.as_fd(), Interest::READABLE).map_err(host("epoll"))?;
    loop {
        let mut ready = waiter.readable().await.map_err(host("epoll"))?;
        if !readable(control).map_err(|e| ServiceError::Host { what: "poll", source: e.into() })? {
            ready.clear_ready();
            continue;
        }
        // Without a supervisor there is nothing more to do for anybody.
        let Some((order, fds)) = control.receive::<ToGofer>()? else { return Ok(()) };
        let result = match order {
            ToGofer::Stop => {
                session.abort();
                return Ok(());
            }
            ToGofer::AddStdio { container, tty } => stdios.add(&container, tty, fds),
            ToGofer::RemoveStdio { container } => stdios.remove(&container),
        };
        let report = match result {
            Ok(()) => FromGofer::Done,
            Err(e) => FromGofer::Failed { message: e.to_string() },
        };
        control.send(&report)?;
    }
}

fn readable(control: &Control) -> rustix::io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec};
    let mut fds = [PollFd::new(control, PollFlags::IN)];
    Ok(rustix::event::poll(&mut fds, Some(&Timespec::default()))? > 0)
}
