//! What the supervisor holds altogether: its launcher, its containers, and the count of connected command lines.
//!
//! One thread; every borrow ends before an await. Called by `server`, `sandbox` and `container`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use cofferdam_control::{AsyncChannel, Channel};
use tokio::sync::{Notify, OnceCell, watch};
use tokio::time::timeout;

use crate::cgroups::bus::{self, Order};
use crate::cgroups::systemd::Unit;
use crate::container::Container;
use crate::launcher::{FromLauncher, Service, ToLauncher, Who};
use crate::link::{PATIENCE, internal};
use crate::spec::Refused;
use crate::takeover;
use cofferdam_control::sentry::FailureKind;

/// Whether a launched process has ended, and how.
pub type Ending = watch::Receiver<Option<String>>;

/// Where a launched process's pid and its end are told.
type Telling = (watch::Sender<i32>, watch::Sender<Option<String>>);

/// Everything the supervisor holds.
pub struct House {
    /// DIR.
    pub root: PathBuf,
    /// Whether it runs as root: then the host does what a document asks, or the document is refused.
    pub privileged: bool,
    launcher: AsyncChannel,
    endings: RefCell<HashMap<u64, Telling>>,
    next_key: Cell<u64>,
    /// Containers by id.
    pub containers: RefCell<BTreeMap<String, Rc<Container>>>,
    left_cgroups: Cell<bool>,
    left_session: OnceCell<()>,
    clients: Cell<usize>,
    /// Told whenever a client or a container has gone.
    pub less: Notify,
}

/// A started service.
#[derive(Debug)]
pub struct Launched {
    /// Which.
    pub service: Service,
    /// For orders to the launcher.
    pub key: u64,
    /// Its host pid, once it runs.
    running: watch::Receiver<i32>,
    /// Its end.
    pub ending: Ending,
    /// What it says on stderr: read when it has ended.
    pub voice: std::fs::File,
}

impl Launched {
    /// Its host pid; 0 if it does not run yet.
    pub fn pid(&self) -> i32 {
        *self.running.borrow()
    }

    /// Its host pid as soon as it runs; `None` if it never does.
    pub async fn started(&self) -> Option<i32> {
        let mut running = self.running.clone();
        running.wait_for(|pid| *pid != 0).await.ok().map(|pid| *pid)
    }
}

impl House {
    /// A house with nothing in it.
    pub fn new(
        root: PathBuf,
        privileged: bool,
        launcher: Channel,
    ) -> Result<Rc<Self>, cofferdam_control::ControlError> {
        Ok(Rc::new(Self {
            root,
            privileged,
            launcher: AsyncChannel::new(launcher)?,
            endings: RefCell::default(),
            next_key: Cell::new(1),
            containers: RefCell::default(),
            left_cgroups: Cell::new(false),
            left_session: OnceCell::new(),
            clients: Cell::new(0),
            less: Notify::new(),
        }))
    }

    /// Reads what the launcher tells, for ever. Its end is the supervisor's end.
    pub async fn hear_launcher(&self) -> String {
        loop {
            match self.launcher.receive::<FromLauncher>().await {
                Ok(got) => match got.message {
                    FromLauncher::Launched { key, pid } => {
                        if let Some((running, _)) = self.endings.borrow().get(&key) {
                            running.send_replace(pid);
                        }
                    }
                    FromLauncher::Ended { key, how } => {
                        if let Some((_, ending)) = self.endings.borrow_mut().remove(&key) {
                            ending.send_replace(Some(how));
                        }
                    }
                },
                Err(e) => return format!("the launcher: {e}"),
            }
        }
    }

    /// Has a service started with `channel` as its descriptor 3, in that network of the host's or in none.
    pub fn launch(
        &self,
        service: Service,
        channel: Channel,
        network: Option<BorrowedFd<'_>>,
    ) -> Result<Launched, Refused> {
        let host = |what: &str, e: &dyn std::fmt::Display| {
            Refused::new(FailureKind::Host, format!("starting the {}: {what}: {e}", service.title()))
        };
        let key = self.next_key.get();
        self.next_key.set(key.wrapping_add(1));
        let flags = rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK;
        let (hear, voice) = rustix::pipe::pipe_with(flags).map_err(|e| host("pipe", &e))?;
        let (tell, ending) = watch::channel(None);
        let (told, running) = watch::channel(0);
        self.endings.borrow_mut().insert(key, (told, tell));
        let order = ToLauncher::Launch { key, service, id: unprivileged_id(key) };
        let descriptors: Vec<_> = [channel.as_fd(), voice.as_fd()].into_iter().chain(network).collect();
        self.launcher.send(&order, &descriptors).map_err(|e| host("launcher", &e))?;
        Ok(Launched { service, key, running, ending, voice: hear.into() })
    }

    /// Leaves the cgroups of the client that happened to start us, once: before there is a container that outlives it. A person's
    /// command does not need it, and it takes the kernel a while.
    pub fn leave_callers_cgroups(&self) {
        if self.privileged && !self.left_cgroups.replace(true) {
            crate::cgroups::leave_callers();
            let _ = self.launcher.send(&ToLauncher::LeaveCallersCgroups, &[]);
            let _ = self.launcher.send(&ToLauncher::ReadServices, &[]);
        }
    }

    /// The same for a user whose own systemd makes the containers' units: we get one of our own from it. What we start is then where that
    /// user may move it to and fro, which is not so in a session that root made.
    pub async fn leave_callers_session(&self) -> Result<(), Refused> {
        let order = || Order::Start { unit: Unit::supervisor(std::process::id()), limits: Vec::new(), unified: true };
        let leave = || async {
            self.systemd(order(), Who::Ourselves).await?;
            let _ = self.launcher.send(&ToLauncher::ReadServices, &[]);
            Ok(())
        };
        // Who comes while that is being done waits for it.
        self.left_session.get_or_try_init(leave).await.copied()
    }

    /// Has systemd do something, by a process that the launcher makes for it. `who` comes into the unit.
    pub async fn systemd(&self, order: Order, who: Who) -> Result<String, Refused> {
        let host = |e: String| Refused::new(FailureKind::Host, e);
        let (ours, theirs) = Channel::pair().map_err(internal)?;
        let order = ToLauncher::Systemd { order: Box::new(order), who };
        self.launcher.send(&order, &[theirs.as_fd()]).map_err(internal)?;
        drop(theirs);
        let ours = AsyncChannel::new(ours).map_err(internal)?;
        // It gives up by itself: after a start that was tried twice at the latest.
        match timeout(4 * bus::PATIENCE, ours.receive::<bus::Answer>()).await {
            Ok(Ok(got)) => got.message.map_err(host),
            Ok(Err(e)) => Err(host(format!("--systemd-cgroup: the process that asks systemd: {e}"))),
            Err(_) => Err(host("--systemd-cgroup: the process that asks systemd does not answer".into())),
        }
    }

    /// Has the network of a namespace taken over, or given back. With the answer come its descriptors.
    pub async fn network(
        &self,
        order: takeover::Order,
        namespace: BorrowedFd<'_>,
    ) -> Result<(takeover::Answer, Vec<OwnedFd>), Refused> {
        let host = |why: String| Refused::new(FailureKind::Host, format!("the container's network: {why}"));
        let (ours, theirs) = Channel::pair().map_err(internal)?;
        let order = ToLauncher::Network(Box::new(order));
        self.launcher.send(&order, &[namespace, theirs.as_fd()]).map_err(internal)?;
        drop(theirs);
        let ours = AsyncChannel::new(ours).map_err(internal)?;
        match timeout(PATIENCE, ours.receive::<Result<takeover::Answer, String>>()).await {
            Ok(Ok(got)) => Ok((got.message.map_err(host)?, got.descriptors)),
            Ok(Err(e)) => Err(host(format!("the process that takes it over: {e}"))),
            Err(_) => Err(host("it is not taken over in time".into())),
        }
    }

    /// Has a service killed. Nothing happens if it has ended.
    pub fn kill(&self, key: u64) {
        let _ = self.launcher.send(&ToLauncher::Kill { key }, &[]);
    }

    /// The container of that id.
    pub fn find(&self, id: &str) -> Result<Rc<Container>, Refused> {
        self.containers
            .borrow()
            .get(id)
            .cloned()
            .ok_or_else(|| Refused::new(FailureKind::NoSuchContainer, "container does not exist"))
    }

    /// Counts a client in.
    pub fn arrive(&self) {
        self.clients.set(self.clients.get().saturating_add(1));
    }

    /// Counts a client out.
    pub fn leave(&self) {
        self.clients.set(self.clients.get().saturating_sub(1));
        self.less.notify_one();
    }

    /// Whether there is nothing to stay for.
    pub fn is_empty(&self) -> bool {
        self.clients.get() == 0 && self.containers.borrow().is_empty()
    }
}

/// A host id that no account uses, for one service: 0x70000000 upward, beyond systemd's and shadow's ranges. Two
/// supervisors may hand out the same one; pid namespaces keep such services apart all the same.
fn unprivileged_id(key: u64) -> u32 {
    let spread = u64::from(std::process::id()).wrapping_mul(4099).wrapping_add(key);
    0x7000_0000 | u32::try_from(spread & 0x00ff_ffff).unwrap_or(0)
}
