//! What the supervisor holds altogether: its launcher, its sandboxes, and the count of connected command lines.
//!
//! One thread; every borrow ends before an await. Called by `server` and `sandbox`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::rc::Rc;

use cofferdam_control::{AsyncChannel, Channel};
use tokio::sync::{Notify, watch};

use crate::launcher::{FromLauncher, Service, ToLauncher};
use crate::sandbox::Sandbox;
use crate::spec::Refused;
use cofferdam_control::sentry::FailureKind;

/// Whether a launched process has ended, and how.
pub type Ending = watch::Receiver<Option<String>>;

/// Everything the supervisor holds.
pub struct House {
    /// DIR.
    pub root: PathBuf,
    launcher: AsyncChannel,
    endings: RefCell<HashMap<u64, watch::Sender<Option<String>>>>,
    next_key: Cell<u64>,
    /// Sandboxes by container id.
    pub sandboxes: RefCell<BTreeMap<String, Rc<Sandbox>>>,
    clients: Cell<usize>,
    /// Told whenever a client or a sandbox has gone.
    pub less: Notify,
}

/// A started service.
#[derive(Debug)]
pub struct Launched {
    /// Which.
    pub service: Service,
    /// For orders to the launcher.
    pub key: u64,
    /// Its end.
    pub ending: Ending,
    /// What it says on stderr: read when it has ended.
    pub voice: std::fs::File,
}

impl House {
    /// A house with nothing in it.
    pub fn new(root: PathBuf, launcher: Channel) -> Result<Rc<Self>, cofferdam_control::ControlError> {
        Ok(Rc::new(Self {
            root,
            launcher: AsyncChannel::new(launcher)?,
            endings: RefCell::default(),
            next_key: Cell::new(1),
            sandboxes: RefCell::default(),
            clients: Cell::new(0),
            less: Notify::new(),
        }))
    }

    /// Reads what the launcher tells, for ever. Its end is the supervisor's end.
    pub async fn hear_launcher(&self) -> String {
        loop {
            match self.launcher.receive::<FromLauncher>().await {
                Ok(got) => match got.message {
                    FromLauncher::Launched { .. } => {}
                    FromLauncher::Ended { key, how } => {
                        if let Some(ending) = self.endings.borrow_mut().remove(&key) {
                            ending.send_replace(Some(how));
                        }
                    }
                },
                Err(e) => return format!("the launcher: {e}"),
            }
        }
    }

    /// Has a service started with `channel` as its descriptor 3.
    pub fn launch(&self, service: Service, channel: Channel) -> Result<Launched, Refused> {
        let host = |what: &str, e: &dyn std::fmt::Display| {
            Refused::new(FailureKind::Host, format!("starting the {}: {what}: {e}", service.title()))
        };
        let key = self.next_key.get();
        self.next_key.set(key.wrapping_add(1));
        let flags = rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK;
        let (hear, voice) = rustix::pipe::pipe_with(flags).map_err(|e| host("pipe", &e))?;
        let (tell, ending) = watch::channel(None);
        self.endings.borrow_mut().insert(key, tell);
        let order = ToLauncher::Launch { key, service, id: unprivileged_id(key) };
        self.launcher.send(&order, &[channel.as_fd(), voice.as_fd()]).map_err(|e| host("launcher", &e))?;
        Ok(Launched { service, key, ending, voice: hear.into() })
    }

    /// Has a service killed. Nothing happens if it has ended.
    pub fn kill(&self, key: u64) {
        let _ = self.launcher.send(&ToLauncher::Kill { key }, &[]);
    }

    /// The sandbox of that id.
    pub fn find(&self, id: &str) -> Result<Rc<Sandbox>, Refused> {
        self.sandboxes
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
        self.clients.get() == 0 && self.sandboxes.borrow().is_empty()
    }
}

/// A host id that no account uses, for one service: 0x70000000 upward, beyond systemd's and shadow's ranges. Two
/// supervisors may hand out the same one; pid namespaces keep such services apart all the same.
fn unprivileged_id(key: u64) -> u32 {
    let spread = u64::from(std::process::id()).wrapping_mul(4099).wrapping_add(key);
    0x7000_0000 | u32::try_from(spread & 0x00ff_ffff).unwrap_or(0)
}
