//! The life of a netd: its orders, its walls, its loop.
//!
//! The loop waits for the supervisor, for the Sentry's bell and for packets, and for the next time that something is due. While there is work it
//! does not sleep, and nobody has to wake it. Called by `main`.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cofferdam_confine::Walls;
use cofferdam_control::netd::{FromNetd, NetdOrders, ToNetd};
use cofferdam_control::{Channel, ControlError};
use cofferdam_socket::queue::Receiver;
use cofferdam_socket::{Broken, PACKETS, WINDOW_BYTES, Window, traffic};
use cofferdam_tcp::Limits;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::connections::Connections;
use crate::device::{Device, LONGEST};
use crate::stack::{Stack, Wire};

/// Name of the policy.
pub const POLICY: &str = "netd";
/// Frames of one device that are taken before something else gets its turn.
const TURN: usize = 64;

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
const DEVICES: u64 = 2;

struct Service<'a> {
    control: &'a Channel,
    bell: OwnedFd,
    epoll: OwnedFd,
    stack: Stack,
    queue: Receiver,
    window: Arc<Window>,
    buffer: Vec<u8>,
    /// Devices whose room is waited for.
    waits: Vec<bool>,
    /// There are packets of the Sentry's that had no turn yet.
    more: bool,
    /// The Sentry is gone: nothing comes of packets.
    deaf: bool,
}

/// Takes the orders and carries them out until told to stop. The walls stand before a packet is looked at.
pub fn run(control: &Channel) -> Result<(), ServiceError> {
    let got = match control.receive::<NetdOrders>() {
        Err(ControlError::Closed) => return Ok(()),
        other => other?,
    };
    let (orders, fds) = (got.message, got.descriptors);
    let wanted = orders.network.interfaces.len().saturating_add(2);
    if fds.len() != wanted {
        return Err(ServiceError::Descriptors { got: fds.len(), wanted });
    }
    let host = |what| move |e| ServiceError::Host(what, e);
    let mut fds = fds.into_iter();
    let mut next = || fds.next().ok_or(ServiceError::Descriptors { got: 0, wanted });
    let (bell, window) = (next()?, Arc::new(Window::from_peer(next()?, WINDOW_BYTES)?));
    let devices: Vec<_> = fds.map(Device::new).collect();
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(host("epoll_create1"))?;
    let watch = |fd: std::os::fd::BorrowedFd<'_>, who| {
        epoll::add(&epoll, fd, epoll::EventData::new_u64(who), epoll::EventFlags::IN).map_err(host("epoll_ctl"))
    };
    watch(control.as_fd(), SUPERVISOR)?;
    watch(bell.as_fd(), SENTRY)?;
    for (device, who) in devices.iter().zip(DEVICES..) {
        watch(device.as_fd(), who)?;
    }
    let [seed, number] = chance()?;
    let connections = Connections::new(window.clone(), Limits::default(), seed)?;
    let queue = Connections::queue(&window);
    let mut keep = vec![control.as_fd().as_raw_fd(), bell.as_raw_fd(), window.fd().as_raw_fd(), epoll.as_raw_fd()];
    keep.extend(devices.iter().map(|d| d.as_fd().as_raw_fd()));
    // Tables whose order nobody can foresee take their chance now: later there is none to be had.
    drop(std::collections::HashMap::<u8, u8>::new());
    Walls { policy: POLICY, keep: &keep, capabilities: &[], landlock: None, trees: &[], dumpable: false }.raise()?;
    let waits = vec![false; devices.len()];
    let wire = Wire::new(orders.network, devices, number as u32, Instant::now());
    let stack = Stack::new(wire, connections);
    let buffer = vec![0; LONGEST];
    let service = Service { control, bell, epoll, stack, queue, window, buffer, waits, more: false, deaf: false };
    control.send_plain(&FromNetd::Ready)?;
    // Behind the walls nothing is closed any more: the end of the process does that.
    let mut service = std::mem::ManuallyDrop::new(service);
    service.serve()
}

/// Two numbers that nobody can foresee.
fn chance() -> Result<[u64; 2], ServiceError> {
    use std::hash::{BuildHasher, RandomState};
    Ok([RandomState::new().hash_one(1), RandomState::new().hash_one(2)])
}

impl Service<'_> {
    fn serve(&mut self) -> Result<(), ServiceError> {
        let mut events = Vec::with_capacity(64);
        loop {
            let now = Instant::now();
            self.stack.wire.set_now(now);
            let mut busy = self.hear_sentry(now)?;
            self.stack.tick()?;
            self.ring()?;
            self.mind_room()?;
            // Not while something was put into the queue meanwhile.
            busy |= self.stack.connections.is_busy();
            busy |= !self.deaf && !busy && !self.queue.sleep();
            let timeout = match (busy, self.stack.next()) {
                (true, _) => Some(Duration::ZERO),
                (false, Some(at)) => Some(at.saturating_duration_since(Instant::now())),
                (false, None) => None,
            };
            // In whole milliseconds, and never so long that they do not fit.
            let timeout = timeout.map(|t| {
                let ms = t.as_nanos().div_ceil(1_000_000).min(60_000) as i64;
                rustix::event::Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 }
            });
            if !busy {
                for (n, link) in self.stack.wire.links.iter().enumerate() {
                    traffic::put(&self.window, n, &link.traffic);
                }
            }
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(ServiceError::Host("epoll_wait", e)),
            }
            self.queue.wake();
            self.stack.wire.set_now(Instant::now());
            for event in &events {
                let (who, flags) = (event.data, event.flags);
                match who.u64() {
                    SUPERVISOR => {
                        if !self.ordered()? {
                            return Ok(());
                        }
                    }
                    SENTRY => self.bell_rang()?,
                    device => {
                        let at = usize::try_from(device - DEVICES).unwrap_or(usize::MAX);
                        if flags.contains(epoll::EventFlags::OUT)
                            && let Some(link) = self.stack.wire.links.get_mut(at)
                        {
                            link.device.full = false;
                        }
                        self.packets(at)?;
                    }
                }
            }
        }
    }

    /// What the Sentry wants; whether there is more.
    fn hear_sentry(&mut self, now: Instant) -> Result<bool, ServiceError> {
        if self.deaf {
            return Ok(false);
        }
        let Stack { connections, wire, .. } = &mut self.stack;
        self.more = self.more && connections.send_packets(wire)?;
        // As many as there are slots: what is put in meanwhile has its turn after the packets.
        for _ in 0..TURN * 64 {
            let Some(slot) = self.queue.pop()? else { return Ok(self.more) };
            if slot.number() == PACKETS {
                self.more |= connections.send_packets(wire)?;
            } else {
                connections.asked(slot, now, wire)?;
            }
        }
        Ok(true)
    }

    /// Rings the Sentry's bell if it sleeps and something is there for it. One that has rings enough needs no more.
    fn ring(&mut self) -> Result<(), ServiceError> {
        if std::mem::take(&mut self.stack.connections.sentry.ring) {
            match rustix::net::send(&self.bell, &[1], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                // It is gone; the supervisor ends this process soon.
                Err(_) => self.deaf = true,
            }
        }
        Ok(())
    }

    fn bell_rang(&mut self) -> Result<(), ServiceError> {
        let mut raw = [0; 64];
        loop {
            match rustix::net::recv(&self.bell, &mut raw, RecvFlags::DONTWAIT) {
                Ok((0, _)) => {
                    self.deaf = true;
                    return epoll::delete(&self.epoll, &self.bell).map_err(|e| ServiceError::Host("epoll_ctl", e));
                }
                Ok(_) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(ServiceError::Host("recv", e)),
            }
        }
    }

    /// Frames of a device.
    fn packets(&mut self, at: usize) -> Result<(), ServiceError> {
        for _ in 0..TURN {
            let Some(link) = self.stack.wire.links.get(at) else { return Ok(()) };
            match link.device.receive(&mut self.buffer) {
                Ok(Some(arrived)) if !self.deaf => {
                    self.stack.frame(at, &self.buffer, arrived)?;
                }
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                // It went down, or is gone: told once, and nothing more comes until it is up.
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Watches for room on the devices that have none, and on no others.
    fn mind_room(&mut self) -> Result<(), ServiceError> {
        for (n, (link, waits)) in self.stack.wire.links.iter().zip(&mut self.waits).enumerate() {
            if link.device.full != *waits {
                *waits = link.device.full;
                let mut flags = epoll::EventFlags::IN;
                flags.set(epoll::EventFlags::OUT, *waits);
                let who = epoll::EventData::new_u64(DEVICES + n as u64);
                epoll::modify(&self.epoll, &link.device, who, flags).map_err(|e| ServiceError::Host("epoll_ctl", e))?;
            }
        }
        Ok(())
    }

    /// An order of the supervisor's; whether to go on.
    fn ordered(&mut self) -> Result<bool, ServiceError> {
        match self.control.receive::<ToNetd>() {
            Ok(order) => match order.message {
                ToNetd::Stop => Ok(false),
                ToNetd::Count => {
                    let mut all = self.stack.wire.counters.list();
                    all.extend(self.stack.connections.count());
                    self.control.send_plain(&FromNetd::Counters(all))?;
                    Ok(true)
                }
            },
            Err(ControlError::Closed) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}
