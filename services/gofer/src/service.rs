//! Putting the parts to work: workers for files, the runtime for stdio and orders.
//!
//! Owns the order of starting: take the orders, start every thread, raise the walls (over all threads), report ready.
//! After that no thread is made and no descriptor comes but stdio's, over the control channel. Caller: `main`, tests.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use cofferdam_ninep::Errno;
use cofferdam_ninep::server::{Limits, Session};
use cofferdam_transport::{Channel, TransportError};
use tokio::io::Interest;
use tokio::task::LocalSet;

use crate::host::{CacheWindow, Export, ExportKind, Host};
use crate::orders::{self, Control, FromGofer, GoferOrders, OrderError, ToGofer};
use crate::stdio::{self, Stdios};

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
    Order(#[from] OrderError),
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
    #[error("confinement: {0}")]
    Confine(String),
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

/// Takes the orders from `control` and carries them out until told to stop. `confine` raises the walls; it is called
/// once, when every thread runs and before anything is served to the client.
pub fn run(control: Control, confine: impl FnOnce(&GoferOrders) -> Result<(), String>) -> Result<(), ServiceError> {
    let (orders, fds): (GoferOrders, _) = control.receive()?;
    let mut fds = fds.into_iter();
    let wrong = || ServiceError::Descriptors { exports: orders.exports.len(), fds: orders.exports.len() };
    if fds.len() != orders.exports.len() + 3 {
        return Err(ServiceError::Descriptors { exports: orders.exports.len(), fds: fds.len() });
    }
    let files = Channel::new(fds.next().ok_or_else(wrong)?)?;
    let stdio_channel = Channel::new(fds.next().ok_or_else(wrong)?)?;
    let window = CacheWindow::new(fds.next().ok_or_else(wrong)?).map_err(ServiceError::Export)?;
    let exports = orders.exports.iter().zip(fds).map(export).collect();
    rustix::process::umask(rustix::fs::Mode::empty());

    let budget = descriptor_budget();
    let backend = Host::new(exports, Some(window), budget).map_err(ServiceError::Export)?;
    let session = Arc::new(Session::new(backend, limits(budget)));
    // Bound to the session, but started after the walls stand: see below.
    let gate = Arc::new(Barrier::new(WORKERS + 1));
    let files = Arc::new(files);
    for _ in 0..WORKERS {
        let (session, files, gate) = (session.clone(), files.clone(), gate.clone());
        std::thread::Builder::new()
            .name("files".to_owned())
            .spawn(move || {
                gate.wait();
                session.work(&files);
            })
            .map_err(host("thread"))?;
    }
    let runtime = runtime()?;
    confine(&orders).map_err(ServiceError::Confine)?;
    gate.wait();
    control.send(&FromGofer::Ready {}, &[])?;
    tracing::info!(sandbox = orders.sandbox, exports = orders.exports.len(), "serving");
    let outcome = LocalSet::new().block_on(&runtime, attend(&control, stdio_channel));
    files.shutdown();
    // Threads that hang in a terminal's write end with the process.
    runtime.shutdown_background();
    outcome
}

fn export((export, fd): (&orders::Export, OwnedFd)) -> Export {
    let kind = match export.kind {
        orders::ExportKind::Directory => ExportKind::Directory,
        orders::ExportKind::File => ExportKind::File,
    };
    Export { name: export.name.clone(), read_only: export.read_only, kind, root: fd }
}

/// The runtime, with its blocking threads already there: none can be made behind the walls.
fn runtime() -> Result<tokio::runtime::Runtime, ServiceError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .max_blocking_threads(TERMINAL_WRITERS)
        .thread_keep_alive(Duration::from_secs(u64::from(u32::MAX)))
        .build()
        .map_err(host("tokio"))?;
    let all_there = Arc::new(Barrier::new(TERMINAL_WRITERS + 1));
    for _ in 0..TERMINAL_WRITERS {
        let all_there = all_there.clone();
        runtime.spawn_blocking(move || {
            all_there.wait();
        });
    }
    all_there.wait();
    Ok(runtime)
}

/// Serves stdio and orders.
async fn attend(control: &Control, stdio_channel: Channel) -> Result<(), ServiceError> {
    let stdios = Stdios::default();
    let session = {
        let stdios = stdios.clone();
        tokio::task::spawn_local(async move {
            match stdio::serve(stdio_channel, stdios).await {
                Ok(()) => tracing::debug!("stdio session closed"),
                Err(why) => tracing::warn!(%why, "stdio session ended"),
            }
        })
    };
    let waiter = crate::watch::watch(control.channel().as_fd(), Interest::READABLE).map_err(host("epoll"))?;
    loop {
        let mut ready = waiter.readable().await.map_err(host("epoll"))?;
        if !readable(control).map_err(|e| ServiceError::Host { what: "poll", source: e.into() })? {
            ready.clear_ready();
            continue;
        }
        let (order, fds): (ToGofer, _) = match control.receive() {
            // Without a supervisor there is nothing more to do for anybody.
            Err(OrderError::Transport(TransportError::Closed)) => return Ok(()),
            other => other?,
        };
        let result = match order {
            ToGofer::Stop => {
                control.send(&FromGofer::Done, &[])?;
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
        control.send(&report, &[])?;
    }
}

fn readable(control: &Control) -> rustix::io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec};
    let mut fds = [PollFd::new(control.channel(), PollFlags::IN)];
    Ok(rustix::event::poll(&mut fds, Some(&Timespec::default()))? > 0)
}
