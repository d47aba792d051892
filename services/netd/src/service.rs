//! The life of a netd: its orders, its walls, its loop.
//!
//! The loop waits for the supervisor, for the Sentry's bell, for what is behind the sandbox's sockets (`behind`), and for the next time that something
//! is due. While there is work it does not sleep, and nobody has to wake it. Called by `main`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cofferdam_confine::Walls;
use cofferdam_control::netd::{Counts, FromNetd, InterfaceCounts, Mode, NetdOrders, ToNetd};
use cofferdam_control::{Channel, ControlError};
use cofferdam_socket::queue::Receiver;
use cofferdam_socket::traffic::{self, Traffic};
use cofferdam_socket::{Broken, FRAMES, PACKETS, Side, WINDOW_BYTES, Window};
use cofferdam_tcp::Limits;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Resource, Rlimit};

use crate::behind::Behind;
use crate::connections::Connections;
use crate::device::Device;
use crate::devices::Devices;
use crate::hosted::{self, Hosted};
use crate::names::Names;
use crate::stack::{Stack, Wire};

/// Name of the policy with packet devices.
pub const POLICY: &str = "netd";
/// Name of the policy with sockets of the caller's.
pub const USER_POLICY: &str = "netd-user";

/// Name of the policy with sockets of the host's.
pub const HOST_POLICY: &str = "netd-host";

/// Why it ends.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The supervisor's channel.
    #[error("the channel to the supervisor: {0}")]
    Control(#[from] ControlError),
    /// Its orders make no sense.
    #[error("orders with {got} descriptors where {wanted} are needed")]
    Descriptors {
        /// How many came.
        got: usize,
        /// How many it takes.
        wanted: usize,
    },
    /// The window.
    #[error("the window that is shared with the Sentry: {0}")]
    Window(#[from] cofferdam_socket::WindowError),
    /// The walls.
    #[error(transparent)]
    Walls(#[from] cofferdam_confine::ConfineError),
    /// The Sentry broke a rule.
    #[error("the Sentry: {0}")]
    Sentry(#[from] Broken),
    /// The host.
    #[error("{0}: {1}")]
    Host(&'static str, Errno),
}

/// Whom something came from.
const SUPERVISOR: u64 = 0;
const SENTRY: u64 = 1;
/// The first of what is behind.
pub const BEHIND: u64 = 2;

/// How long the loop dozes before it sleeps: meanwhile the Sentry need not ring at once.
const DOZE: Duration = Duration::from_millis(1);

/// Packets of the Sentry's, and slots, that have their turn before something else.
const TURN: usize = 4096;

struct Service<'a, B> {
    control: &'a Channel,
    bell: OwnedFd,
    epoll: Arc<OwnedFd>,
    behind: B,
    queue: Receiver,
    window: Arc<Window>,
    /// Names of the network's interfaces.
    interfaces: Vec<String>,
    /// There are packets of the Sentry's that had no turn yet.
    more: bool,
    /// There are frames of its that had none.
    frames: bool,
    /// The Sentry is gone: nothing comes of packets.
    deaf: bool,
    /// It wanted something when it was last heard.
    heard: bool,
}

/// What every netd has from its birth on.
struct Born<'a> {
    control: &'a Channel,
    bell: OwnedFd,
    epoll: Arc<OwnedFd>,
    window: Arc<Window>,
    interfaces: Vec<String>,
}

/// Takes the orders and carries them out until told to stop. The walls stand before a packet is looked at.
pub fn run(control: &Channel) -> Result<(), ServiceError> {
    let got = match control.receive::<NetdOrders>() {
        Err(ControlError::Closed) => return Ok(()),
        other => other?,
    };
    let (orders, fds) = (got.message, got.descriptors);
    let further = match &orders.mode {
        Mode::Devices => orders.network.sockets(),
        Mode::User(user) => user.published.len(),
        Mode::Host => 0,
    };
    let wanted = further.saturating_add(2);
    if fds.len() != wanted {
        return Err(ServiceError::Descriptors { got: fds.len(), wanted });
    }
    let host = |what| move |e| ServiceError::Host(what, e);
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or(ServiceError::Descriptors { got: 0, wanted });
    let (bell, window) = (next()?, Arc::new(Window::from_peer(next()?, WINDOW_BYTES)?));
    let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC).map_err(host("epoll_create1"))?);
    let watch = |fd: BorrowedFd<'_>, who| {
        epoll::add(&epoll, fd, epoll::EventData::new_u64(who), epoll::EventFlags::IN).map_err(host("epoll_ctl"))
    };
    watch(control.as_fd(), SUPERVISOR)?;
    watch(bell.as_fd(), SENTRY)?;
    // Tables whose order nobody can foresee take their chance now: later there is none to be had.
    let [seed, number] = chance()?;
    let interfaces = orders.network.interfaces.iter().map(|i| i.name.clone()).collect();
    let born = Born { control, bell, epoll: epoll.clone(), window: window.clone(), interfaces };
    match orders.mode {
        Mode::Devices => {
            let mut sockets: Vec<_> = fds.collect();
            for (socket, which) in sockets.iter().zip(BEHIND..) {
                watch(socket.as_fd(), which)?;
            }
            born.wall(POLICY, &sockets)?;
            let names = Names::new(sockets.split_off(orders.network.interfaces.len().min(sockets.len())));
            let devices: Vec<_> = sockets.into_iter().map(Device::new).collect();
            let connections = Connections::new(window, Limits::default(), seed)?;
            let wire = Wire::new(orders.network, orders.rules, devices, names, number as u32, Instant::now());
            born.serve(Devices::new(Stack::new(wire, connections), epoll))
        }
        mode => {
            let (user, policy) = match mode {
                Mode::User(user) => (Some(user), USER_POLICY),
                _ => (None, HOST_POLICY),
            };
            let doors: Vec<_> = fds.collect();
            for (door, which) in doors.iter().zip(hosted::DOORS..) {
                watch(door.as_fd(), which)?;
            }
            // As many sockets as the host allows.
            let limit = rustix::process::getrlimit(Resource::Nofile);
            let all = Rlimit { current: limit.maximum, ..limit };
            rustix::process::setrlimit(Resource::Nofile, all).map_err(host("RLIMIT_NOFILE"))?;
            born.wall(policy, &doors)?;
            let most = limit.maximum.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
            born.serve(Hosted::new(orders.network, user, orders.rules, doors, &window, epoll, most)?)
        }
    }
}

/// Two numbers that nobody can foresee.
fn chance() -> Result<[u64; 2], ServiceError> {
    use std::hash::{BuildHasher, RandomState};
    Ok([RandomState::new().hash_one(1), RandomState::new().hash_one(2)])
}

impl Born<'_> {
    /// Raises the walls of a policy around it and what else it was given.
    fn wall(&self, policy: &str, more: &[impl AsFd]) -> Result<(), ServiceError> {
        let own = [self.control.as_fd(), self.bell.as_fd(), self.window.fd(), self.epoll.as_fd()];
        let keep: Vec<_> = own.into_iter().chain(more.iter().map(AsFd::as_fd)).map(|fd| fd.as_raw_fd()).collect();
        Walls { policy, keep: &keep, capabilities: &[], landlock: None, trees: &[], dumpable: false }.raise()?;
        Ok(())
    }

    fn serve(self, behind: impl Behind) -> Result<(), ServiceError> {
        let Self { control, bell, epoll, window, interfaces } = self;
        let queue = Receiver::new(window.clone(), Side::Netd);
        let (more, frames, deaf, heard) = (false, false, false, false);
        let service = Service { control, bell, epoll, behind, queue, window, interfaces, more, frames, deaf, heard };
        control.send_plain(&FromNetd::Ready)?;
        // Nothing of it is closed any more: the end of the process does that.
        let mut service = std::mem::ManuallyDrop::new(service);
        service.serve()
    }
}

impl<B: Behind> Service<'_, B> {
    fn serve(&mut self) -> Result<(), ServiceError> {
        let host = |what| move |e| ServiceError::Host(what, e);
        let mut events = Vec::with_capacity(64);
        // Whether something has happened since it last slept.
        let mut astir = false;
        loop {
            let now = Instant::now();
            self.behind.set_now(now);
            self.heard = false;
            let mut busy = self.hear_sentry()?;
            astir |= self.heard;
            self.behind.tick()?;
            for (number, place) in self.behind.places() {
                self.control.send_plain(&FromNetd::Bind { number, place })?;
            }
            self.ring()?;
            self.behind.watch().map_err(host("epoll_ctl"))?;
            // Not while something was put into the queue meanwhile.
            busy |= self.behind.is_busy();
            busy |= !self.deaf && !busy && !if astir { self.queue.doze() } else { self.queue.sleep() };
            let due = self.behind.next().map(|at| at.saturating_duration_since(now));
            let timeout = match (busy, astir) {
                (true, _) => Some(Duration::ZERO),
                (false, true) => Some(due.map_or(DOZE, |due| due.min(DOZE))),
                (false, false) => due,
            };
            // In whole milliseconds, and never so long that they do not fit.
            let timeout = timeout.map(|t| {
                let ms = t.as_nanos().div_ceil(1_000_000).min(60_000) as i64;
                rustix::event::Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 }
            });
            if !busy {
                for (n, counted) in self.behind.traffic().enumerate() {
                    traffic::put(&self.window, n, counted);
                }
            }
            events.clear();
            match epoll::wait(&*self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(ServiceError::Host("epoll_wait", e)),
            }
            self.queue.wake();
            astir = busy || !events.is_empty();
            self.behind.set_now(Instant::now());
            for event in &events {
                let (who, what) = (event.data, event.flags);
                match who.u64() {
                    SUPERVISOR => {
                        if !self.ordered()? {
                            return Ok(());
                        }
                    }
                    SENTRY => self.bell_rang()?,
                    which => self.behind.happened(which, what, self.deaf)?,
                }
            }
        }
    }

    /// What the Sentry wants; whether there is more.
    fn hear_sentry(&mut self) -> Result<bool, ServiceError> {
        if self.deaf {
            return Ok(false);
        }
        self.more = self.more && self.behind.send_packets()?;
        self.frames = self.frames && self.behind.send_frames()?;
        // As many as there are slots: what is put in meanwhile has its turn after the packets.
        for _ in 0..TURN {
            let Some(slot) = self.queue.pop()? else { return Ok(self.more || self.frames) };
            self.heard = true;
            match slot.number() {
                PACKETS => self.more |= self.behind.send_packets()?,
                FRAMES => self.frames |= self.behind.send_frames()?,
                _ => self.behind.asked(slot)?,
            }
        }
        Ok(true)
    }

    /// Rings the Sentry's bell if it sleeps and something is there for it. One that has rings enough needs no more.
    fn ring(&mut self) -> Result<(), ServiceError> {
        if std::mem::take(&mut self.behind.sentry().ring) {
            match rustix::net::send(&self.bell, &[1], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                // It is gone; the supervisor ends this process soon.
                Err(_) => self.deaf = true,
            }
        }
        Ok(())
    }

    /// Takes a ring of the bell: where there are more, it is told anew.
    fn bell_rang(&mut self) -> Result<(), ServiceError> {
        match rustix::net::recv(&self.bell, &mut [0; 64], RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                self.deaf = true;
                epoll::delete(&*self.epoll, &self.bell).map_err(|e| ServiceError::Host("epoll_ctl", e))
            }
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(e) => Err(ServiceError::Host("recv", e)),
        }
    }

    /// All that was counted.
    fn count(&mut self) -> Counts {
        let mut counters = self.behind.count();
        counters.extend(self.behind.filter().list());
        let of = |(name, t): (&String, &Traffic)| InterfaceCounts {
            name: name.clone(),
            received_packets: t.received_packets,
            received_bytes: t.received_bytes,
            received_lost: t.received_lost,
            sent_packets: t.sent_packets,
            sent_bytes: t.sent_bytes,
            sent_lost: t.sent_lost,
        };
        let interfaces = self.interfaces.iter().zip(self.behind.traffic()).map(of).collect();
        Counts { counters, rules: self.behind.filter().fitted(), interfaces }
    }

    /// An order of the supervisor's; whether to go on.
    fn ordered(&mut self) -> Result<bool, ServiceError> {
        match self.control.receive::<ToNetd>() {
            Ok(order) => match order.message {
                ToNetd::Stop => Ok(false),
                ToNetd::Bound { number, error } => {
                    let socket = order.descriptors.into_iter().next().ok_or(error);
                    self.behind.bound(number, socket)?;
                    Ok(true)
                }
                ToNetd::Count => {
                    self.control.send_plain(&FromNetd::Counters(Box::new(self.count())))?;
                    Ok(true)
                }
            },
            Err(ControlError::Closed) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}
