//! The launcher: the half of the supervisor that makes processes.
//!
//! Forked before the supervisor confines itself, so that services do not inherit the supervisor's filter (a stub under
//! it would be killed for a call that the Sentry answers) and so that the supervisor itself needs no clone, exec or
//! mount. It holds one channel, to the supervisor, starts the programs that lie beside its own, tells how they
//! end, has systemd make units for them, and networks taken over (`takeover`). It must never read a document, a path or anything else that came from outside. Called by `main`.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use cofferdam_confine::ConfineError;
use cofferdam_confine::signals::Signals;
use cofferdam_confine::spawn::{Fork, Identity, Spawn, Spawned};
use cofferdam_control::{Channel, ControlError};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Pid, WaitOptions, WaitStatus};
use rustix::thread::LinkNameSpaceType;
use serde::{Deserialize, Serialize};

use crate::cgroups::bus::{self, Order};
use crate::takeover;

/// The services it can start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Service {
    /// cofferdam-sentry.
    Sentry,
    /// cofferdam-gofer.
    Gofer,
    /// cofferdam-netd.
    Netd,
}

impl Service {
    /// What people call it.
    pub fn title(self) -> &'static str {
        match self {
            Service::Sentry => "Sentry",
            Service::Gofer => "Gofer",
            Service::Netd => "netd",
        }
    }

    fn program(self) -> (&'static str, &'static std::ffi::CStr) {
        match self {
            Service::Sentry => ("cofferdam-sentry", c"cofferdam-sentry"),
            Service::Gofer => ("cofferdam-gofer", c"cofferdam-gofer"),
            Service::Netd => ("cofferdam-netd", c"cofferdam-netd"),
        }
    }
}

/// Processes that an order to systemd is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Who {
    /// None.
    Nobody,
    /// The service with this key.
    Service(u64),
    /// The supervisor and the launcher.
    Ourselves,
}

/// What the supervisor orders. `key` names the process from then on.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToLauncher {
    /// Start a service. Descriptors: its control channel, the pipe for its last words; of one that is to use a network of the host's that
    /// network's namespace.
    Launch {
        /// Chosen by the supervisor, never used twice.
        key: u64,
        /// Which service.
        service: Service,
        /// The host id of an unprivileged service.
        id: u32,
    },
    /// Leave the cgroups of the client that started the supervisor.
    LeaveCallersCgroups,
    /// Read the services' programs, now that we are in cgroups of our own: the pages count as ours then. A container whose memory is short
    /// would have its own services' text taken back and read again without end, before the host kills anything.
    ReadServices,
    /// Have systemd do something. Descriptor: where the answer goes.
    Systemd {
        /// What.
        order: Box<Order>,
        /// Who comes into the unit.
        who: Who,
    },
    /// Take a network over, or give one back. Descriptors: its namespace, where the answer goes.
    Network(Box<takeover::Order>),
    /// Kill it.
    Kill {
        /// Which.
        key: u64,
    },
}

/// What the launcher answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromLauncher {
    /// It runs.
    Launched {
        /// Which.
        key: u64,
        /// Its pid on the host.
        pid: i32,
    },
    /// It ended, or never came to run.
    Ended {
        /// Which.
        key: u64,
        /// How, for a person: "was killed by signal 9".
        how: String,
    },
}

struct Launcher {
    channel: Channel,
    folder: PathBuf,
    children: HashMap<i32, (u64, Spawned)>,
}

/// Serves the supervisor until its channel ends; then ends, and every service with it. Returns why.
pub fn serve(channel: Channel) -> Result<(), String> {
    cofferdam_confine::spawn::set_name(c"cofferdam-launc");
    let folder = own_folder()?;
    let mut signals = Signals::take(&[libc::SIGCHLD]).map_err(|e| e.to_string())?;
    let mut launcher = Launcher { channel, folder, children: HashMap::new() };
    loop {
        let mut fds =
            [PollFd::new(&launcher.channel, PollFlags::IN), PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(format!("poll: {e}")),
        }
        let asked = fds.first().is_some_and(|f| !f.revents().is_empty());
        while signals.pending().is_some() {}
        launcher.reap().map_err(|e| e.to_string())?;
        if asked {
            match launcher.channel.receive::<ToLauncher>() {
                Ok(order) => launcher.carry_out(order.message, order.descriptors).map_err(|e| e.to_string())?,
                Err(ControlError::Closed) => return Ok(()),
                Err(e) => return Err(e.to_string()),
            }
        }
    }
}

/// The folder of this program, where its services lie too.
fn own_folder() -> Result<PathBuf, String> {
    let exe = std::fs::read_link("/proc/self/exe").map_err(|e| format!("/proc/self/exe: {e}"))?;
    exe.parent().map(PathBuf::from).ok_or_else(|| "the program lies in no folder".into())
}

impl Launcher {
    fn carry_out(&mut self, order: ToLauncher, descriptors: Vec<OwnedFd>) -> Result<(), ControlError> {
        match order {
            ToLauncher::Launch { key, service, id } => {
                let answer = match self.launch(service, id, &descriptors) {
                    Ok(spawned) => {
                        let pid = spawned.pid;
                        self.children.insert(pid, (key, spawned));
                        FromLauncher::Launched { key, pid }
                    }
                    Err(e) => FromLauncher::Ended { key, how: format!("could not be started: {e}") },
                };
                self.channel.send(&answer, &[])
            }
            ToLauncher::LeaveCallersCgroups => {
                crate::cgroups::leave_callers();
                Ok(())
            }
            ToLauncher::ReadServices => {
                for service in [Service::Sentry, Service::Gofer, Service::Netd] {
                    if let Some(Ok(program)) = self.places(service).iter().find(|p| p.exists()).map(std::fs::File::open)
                    {
                        read_ahead(&program);
                    }
                }
                Ok(())
            }
            ToLauncher::Systemd { order, who } => {
                let own = |pid: Option<Pid>| pid.map(|p| p.as_raw_nonzero().get());
                let processes: Vec<i32> = match who {
                    Who::Nobody => Vec::new(),
                    Who::Service(key) => {
                        self.children.iter().filter(|(_, (k, _))| *k == key).map(|(pid, _)| *pid).collect()
                    }
                    Who::Ourselves => {
                        let both = [Some(rustix::process::getpid()), rustix::process::getppid()];
                        both.into_iter().filter_map(own).collect()
                    }
                };
                // In a process of its own: systemd may take its time, and the answer is its last deed. One that cannot be made is seen by the
                // answer's channel being closed.
                if let (Some(answer), Ok(Fork::Child)) =
                    (descriptors.into_iter().next(), cofferdam_confine::spawn::fork(true))
                {
                    cofferdam_confine::spawn::set_name(c"cofferdam-systd");
                    bus::serve(&order, &processes, &Channel::new(answer));
                    std::process::exit(0);
                }
                Ok(())
            }
            ToLauncher::Network(order) => {
                let Ok([namespace, answer]) = <[OwnedFd; 2]>::try_from(descriptors) else { return Ok(()) };
                // In a process of its own, too: who has entered a namespace stays there.
                if let Ok(Fork::Child) = cofferdam_confine::spawn::fork(true) {
                    cofferdam_confine::spawn::set_name(c"cofferdam-takes");
                    takeover::serve(&order, &namespace, &Channel::new(answer));
                    std::process::exit(0);
                }
                Ok(())
            }
            ToLauncher::Kill { key } => {
                for (pid, (k, _)) in &self.children {
                    // Ours and not reaped yet, so the pid is still its own.
                    if let (true, Some(pid)) = (*k == key, Pid::from_raw(*pid)) {
                        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                    }
                }
                Ok(())
            }
        }
    }

    /// Where a service's program may be.
    fn places(&self, service: Service) -> [PathBuf; 2] {
        let (file, _) = service.program();
        [self.folder.join(file), PathBuf::from("/usr/libexec/cofferdam").join(file)]
    }

    fn launch(&self, service: Service, id: u32, descriptors: &[OwnedFd]) -> Result<Spawned, String> {
        let (channel, voice, network) = match descriptors {
            [channel, voice] => (channel, voice, None),
            [channel, voice, network] if service == Service::Netd => (channel, voice, Some(network)),
            _ => return Err("a launch takes two descriptors, or three".into()),
        };
        let (file, name) = service.program();
        let program = self
            .places(service)
            .iter()
            .find_map(|p| rustix::fs::openat(CWD, p, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok())
            .ok_or_else(|| format!("{file} lies neither in {} nor in /usr/libexec/cofferdam", self.folder.display()))?;
        let identity = match service {
            Service::Sentry | Service::Netd => Identity::Id(id),
            Service::Gofer => Identity::All,
        };
        let (program, networked) = (program.as_fd(), network.is_some());
        let spawn = Spawn { program, name, channel: channel.as_fd(), voice: voice.as_fd(), identity, networked };
        let start = || spawn.start().map_err(|e: ConfineError| e.to_string());
        match network {
            Some(network) => within(network, start)?,
            None => start(),
        }
    }

    fn reap(&mut self) -> Result<(), ControlError> {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if let Some((key, _)) = self.children.remove(&pid.as_raw_nonzero().get()) {
                self.channel.send(&FromLauncher::Ended { key, how: describe(status) }, &[])?;
            }
        }
        Ok(())
    }
}

/// Does something in a network namespace, which may be our own.
fn within<T>(network: &OwnedFd, what: impl FnOnce() -> T) -> Result<T, String> {
    let place = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|s| (s.st_dev, s.st_ino)).map_err(|e| e.to_string());
    let own = rustix::fs::open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let own = own.map_err(|e| format!("/proc/thread-self/ns/net: {e}"))?;
    if place(&own)? == place(network)? {
        return Ok(what());
    }
    let enter = |fd: &OwnedFd| rustix::thread::move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Network));
    enter(network).map_err(|e| format!("the supervisor has another network than its caller, and may not enter that: {e}"))?;
    let done = what();
    // It was ours a moment ago. One that cannot be entered again is not to be worked without.
    enter(&own).map_err(|e| format!("returning to the supervisor's network: {e}"))?;
    Ok(done)
}

/// Has the host read a file to its memory, what is there already excepted, without waiting for it.
fn read_ahead(file: &std::fs::File) {
    // As much as the host does at a time.
    const STEP: NonZeroU64 = NonZeroU64::new(128 << 10).unwrap();
    let size = file.metadata().map_or(0, |m| m.len());
    for step in 0..size.div_ceil(STEP.get()) {
        let _ = rustix::fs::fadvise(file, step.saturating_mul(STEP.get()), Some(STEP), rustix::fs::Advice::WillNeed);
    }
}

fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(libc::SIGSYS)) => "was killed by SIGSYS: it made a system call that its policy forbids".into(),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".into(),
    }
}
