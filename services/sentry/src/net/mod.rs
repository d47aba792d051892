//! The way out of the sandbox: the channel to netd.
//!
//! Owns the window that is shared with netd, which slots of it are whose, and the thread that hears what netd tells. Sockets (`ipc::inet`) put data into
//! their slots themselves, on the thread of whoever writes; nobody waits for netd but that one thread. What netd says is hostile: a rule that it
//! breaks ends this sandbox's network ([`Wire::lose`]), and nothing else.
//!
//! A ring of a bell wakes a thread on another core, which costs more than a call of a program. So what a task sends is told to a netd that only dozes
//! when the task blocks, or [`LEAD`] later ([`after_call`]): what it sends meanwhile goes with it. A netd that sleeps is woken at once.
//!
//! Locks: `slots`, `packets`, `frames`, `paths` and `queue` are held alone or after a socket's state, and nothing is taken after them; `WIRES` alone.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use cofferdam_control::netd::{Interface, Network, Route};
use cofferdam_socket::frame;
use cofferdam_socket::packet::{self, flags};
use cofferdam_socket::paths::Paths;
use cofferdam_socket::queue::{Receiver, Sender};
use cofferdam_socket::ring::{Consumer, Producer};
use cofferdam_socket::slot::{Operation, Slot, Tuning};
use cofferdam_socket::traffic::{self, Traffic};
use cofferdam_socket::{Broken, FRAMES, NETDS, PACKETS, Side, WINDOW_BYTES, Window, WindowError};
use rustix::io::Errno as HostErrno;
use rustix::net::{RecvFlags, SendFlags};

use crate::ipc::inet::Inet;
use crate::ipc::inet::raw::Packet;
use crate::namespaces::NetNamespace;
use crate::sync::{Mutex, RwLock};
use crate::time::{Clock, now};
use crate::wait::run_woken;

/// Slots of the Sentry's.
struct Slots {
    /// Whose each is.
    owners: HashMap<u32, Weak<Inet>>,
    /// Those that nobody has any more, and that netd is not done with.
    leaving: HashSet<u32>,
    /// Those that can be used again, and the first that was never used.
    free: Vec<u32>,
    unused: u32,
}

/// The outside as a network namespace has it.
pub struct Outside {
    /// Its interfaces and routes.
    pub network: Network,
    /// The channel to the netd that there is now.
    wire: RwLock<Arc<Wire>>,
    /// Which frames packet sockets want to see (`frame::wanted`).
    wanted: AtomicU32,
    /// How long packets may be.
    paths: Mutex<Paths>,
}

/// The channel to one netd.
pub struct Wire {
    window: Arc<Window>,
    bell: OwnedFd,
    queue: Mutex<Sender>,
    packets: Mutex<Producer>,
    frames: Mutex<Producer>,
    slots: Mutex<Slots>,
    lost: AtomicBool,
    /// Since when something waits for a netd that dozes ([`moment`]); 0: nothing does.
    owed: AtomicU64,
}

/// A slot in use: what a connection has of it.
pub struct Rings {
    /// Which.
    pub slot: Slot,
    /// What is sent.
    pub outgoing: Producer,
    /// What came.
    pub incoming: Consumer,
}

impl Outside {
    /// With the channel to netd: its bell, and the window.
    pub fn new(network: Network, bell: OwnedFd, window: OwnedFd) -> Result<(Arc<Self>, Listener), WindowError> {
        let (wire, listener) = Wire::new(bell, window)?;
        Ok((
            Arc::new(Self { network, wire: RwLock::new(wire), wanted: AtomicU32::new(0), paths: Mutex::default() }),
            listener,
        ))
    }

    /// Another netd takes the place of one that is gone.
    pub fn renew(&self, bell: OwnedFd, window: OwnedFd) -> Result<Listener, WindowError> {
        let (wire, listener) = Wire::new(bell, window)?;
        *self.wire.write() = wire.clone();
        // What is wanted meanwhile is said to the one that there is then.
        wire.want_frames(self.wanted.load(Ordering::SeqCst));
        Ok(listener)
    }

    /// The channel.
    pub fn wire(&self) -> Arc<Wire> {
        self.wire.read().clone()
    }

    /// The way to an address, and the address that one comes from there.
    pub fn route(&self, to: IpAddr, by: Option<u32>) -> Option<(Route, IpAddr)> {
        let route = self.network.route(to, by)?;
        Some((route, self.network.source(&route, to)?))
    }

    /// The interface of a name.
    pub fn named(&self, name: &[u8]) -> Option<&Interface> {
        self.network.interfaces.iter().find(|i| i.name.as_bytes() == name)
    }

    /// Its interfaces, each with what it has counted.
    pub fn interfaces(&self) -> impl Iterator<Item = (&Interface, Traffic)> {
        let wire = self.wire();
        self.network.interfaces.iter().enumerate().map(move |(n, i)| (i, traffic::get(&wire.window, n)))
    }

    /// The longest packet to there, bytes, as far as it is known.
    pub fn path_mtu(&self, to: IpAddr) -> u32 {
        let known = self.paths.lock().get(to, now(Clock::Monotonic));
        self.mtu(to).min(known.unwrap_or(u32::MAX))
    }

    /// A router says how long a packet to there may be that a socket has sent.
    pub fn learn_mtu(&self, to: IpAddr, mtu: u32) {
        if mtu < self.mtu(to) {
            self.paths.lock().learn(to, mtu, now(Clock::Monotonic));
        }
    }

    /// The longest packet that goes there by its interface, bytes.
    pub fn mtu(&self, to: IpAddr) -> u32 {
        let route = self.network.route(to, None);
        route.and_then(|r| self.network.interface(r.interface)).map_or(1500, |i| i.mtu)
    }

    /// An address of a family that something for many comes from, by that interface or any (0).
    pub fn any(&self, four: bool, by: u32) -> Option<IpAddr> {
        let all = self.network.interfaces.iter().filter(|i| by == 0 || i.index == by);
        all.flat_map(|i| &i.addresses).map(|a| a.ip).find(|ip| ip.is_ipv4() == four)
    }

    /// Says which frames packet sockets want to see.
    pub fn want_frames(&self, which: u32) {
        self.wanted.store(which, Ordering::SeqCst);
        self.wire().want_frames(which);
    }

    /// Sends a frame of a packet socket's by an interface; whether there was room.
    pub fn send_frame(&self, interface: u32, raw: &[u8]) -> bool {
        let wire = self.wire();
        let head = frame::Head { interface, lost: 0, flags: 0 };
        let put = frame::put(&mut wire.frames.lock(), head, raw, &[]);
        wire.sent(put, FRAMES)
    }

    /// Sends a packet of a socket's. `whole`: it must not go in pieces; `mtu`: its pieces are so long, or 0; `by`: the device that it leaves by, or 0.
    pub fn send_packet(&self, p: &Packet, (whole, mtu): (bool, u32), by: u32) -> bool {
        let (mut how, data) = match &p.whole {
            Some(raw) => (flags::HEADED, raw),
            None => (0, &p.data),
        };
        if whole {
            how |= flags::WHOLE;
        }
        let head = packet::Head {
            from: p.from,
            to: p.to,
            protocol: p.protocol,
            hops: p.ttl,
            service: p.tos,
            flags: how,
            interface: if by <= 1 { 0 } else { by },
            mtu,
        };
        self.wire().send(&head, data)
    }
}

impl Wire {
    fn new(bell: OwnedFd, window: OwnedFd) -> Result<(Arc<Self>, Listener), WindowError> {
        let window = Arc::new(Window::from_supervisor(window, WINDOW_BYTES)?);
        // Slot 0 is there by construction.
        let slot = Slot::new(&window, PACKETS).map_err(|_| WindowError::NotSealed(WINDOW_BYTES))?;
        let (outgoing, incoming) = slot.rings(&window, Side::Sentry);
        let slot = frame::slot(&window).map_err(|_| WindowError::NotSealed(WINDOW_BYTES))?;
        let (out_frames, frames) = slot.rings(&window, Side::Sentry);
        let slots = Slots { owners: HashMap::new(), leaving: HashSet::new(), free: Vec::new(), unused: FRAMES + 1 };
        let wire = Arc::new(Self {
            queue: Mutex::new(Sender::new(window.clone(), Side::Netd)),
            packets: Mutex::new(outgoing),
            frames: Mutex::new(out_frames),
            slots: Mutex::new(slots),
            lost: AtomicBool::new(false),
            owed: AtomicU64::new(0),
            window: window.clone(),
            bell,
        });
        let listener = Listener {
            wire: wire.clone(),
            queue: Receiver::new(window, Side::Sentry),
            packets: incoming,
            frames,
            more: [false; 2],
        };
        Ok((wire, listener))
    }

    /// The window, for who reads a slot's words.
    pub fn window(&self) -> &Arc<Window> {
        &self.window
    }

    /// Whether netd is gone.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Tells netd to look at a slot: at once if it sleeps, and soon otherwise.
    pub fn tell(&self, slot: &Slot) {
        let (put, rings, dozes) = {
            let mut queue = self.queue.lock();
            let put = queue.put(slot);
            let rings = queue.wakes(false);
            (put, rings, !rings && queue.dozes())
        };
        if rings {
            self.ring();
        }
        if dozes && self.owed.load(Ordering::Acquire) == 0 {
            self.owed.store(moment(), Ordering::Release);
        }
        if let Err(e) = put {
            self.lose(e);
        }
    }

    /// What was told is not to wait.
    pub fn hurry(&self) {
        if self.owed.load(Ordering::Acquire) != 0 && self.owed.swap(0, Ordering::AcqRel) != 0 {
            let rings = {
                let queue = self.queue.lock();
                !queue.is_taken() && queue.wakes(true)
            };
            if rings {
                self.ring();
            }
        }
    }

    /// Whether something has waited long enough.
    fn is_late(&self) -> bool {
        match self.owed.load(Ordering::Acquire) {
            0 => false,
            at => moment().saturating_sub(at) >= LEAD.as_nanos() as u64,
        }
    }

    fn ring(&self) {
        // One that has rings enough needs no more; one that is gone is found out by who listens.
        let _ = rustix::net::send(&self.bell, &[1], SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }

    /// Sends a packet that is not TCP's. What has no room is lost.
    fn send(&self, head: &packet::Head, data: &[u8]) -> bool {
        let put = packet::put(&mut self.packets.lock(), head, data);
        self.sent(put, PACKETS)
    }

    fn want_frames(&self, which: u32) {
        if let Ok(slot) = frame::slot(&self.window) {
            slot.say(&self.window, which);
        }
    }

    /// Something was put into a ring of a slot, or had no room.
    fn sent(&self, put: Result<bool, Broken>, slot: u32) -> bool {
        match put {
            Ok(fits) => {
                if let Ok(slot) = Slot::new(&self.window, slot) {
                    self.tell(&slot);
                }
                fits
            }
            Err(e) => {
                self.lose(e);
                false
            }
        }
    }

    /// A slot for a connection or a listener of a socket's. `None`: there are none left, or netd is gone.
    pub fn take(
        &self,
        owner: &Arc<Inet>,
        what: Operation,
        local: SocketAddr,
        remote: Option<SocketAddr>,
        backlog: u32,
        tuning: Tuning,
    ) -> Option<Rings> {
        if self.is_lost() {
            return None;
        }
        let slot = {
            let mut slots = self.slots.lock();
            let number = slots.free.pop().or_else(|| {
                let next = Some(slots.unused).filter(|n| *n < NETDS)?;
                slots.unused += 1;
                Some(next)
            })?;
            slots.owners.insert(number, Arc::downgrade(owner));
            Slot::new(&self.window, number).ok()?
        };
        slot.prepare(&self.window, what, local, remote, backlog);
        slot.tune(&self.window, tuning);
        let (outgoing, incoming) = slot.rings(&self.window, Side::Sentry);
        Some(Rings { slot, outgoing, incoming })
    }

    /// A slot that netd has begun is a socket's.
    pub fn own(&self, slot: Slot, owner: &Arc<Inet>) -> Rings {
        self.slots.lock().owners.insert(slot.number(), Arc::downgrade(owner));
        let (outgoing, incoming) = slot.rings(&self.window, Side::Sentry);
        Rings { slot, outgoing, incoming }
    }

    /// A socket is done with its slot, and has said so to netd.
    pub fn leave(&self, slot: &Slot) {
        {
            let mut slots = self.slots.lock();
            slots.owners.remove(&slot.number());
            if !slot.is_netds() {
                slots.leaving.insert(slot.number());
            }
        }
        self.tell(slot);
    }

    /// netd broke a rule: nothing is believed of it any more.
    pub fn lose(&self, why: Broken) {
        if !self.lost.swap(true, Ordering::Relaxed) {
            tracing::error!("netd: {why}: the sandbox has no network any more");
        }
        let _ = rustix::net::shutdown(&self.bell, rustix::net::Shutdown::Both);
    }

    fn owner(&self, slot: &Slot) -> Option<Arc<Inet>> {
        self.slots.lock().owners.get(&slot.number()).and_then(Weak::upgrade)
    }

    fn owners(&self) -> Vec<Arc<Inet>> {
        self.slots.lock().owners.values().filter_map(Weak::upgrade).collect()
    }

    /// netd is done with a slot that nobody has: it is free.
    fn free(&self, slot: &Slot) {
        let mut slots = self.slots.lock();
        // What a hostile netd says is free twice, or never was used, is not.
        if slots.leaving.remove(&slot.number()) {
            slots.free.push(slot.number());
        }
    }
}

/// How long what a task sends waits for what it sends next while netd dozes, if the task makes calls: as long as those whom it wakes wait
/// (`wait`). If it makes none netd looks soon by itself.
const LEAD: Duration = Duration::from_micros(60);

/// Nanoseconds since something that was before all that is measured.
fn moment() -> u64 {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(BEGAN.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// All that a netd is at the other end of, and how many those are.
static WIRES: RwLock<Vec<Arc<Wire>>> = RwLock::new(Vec::new());
static WIRE_COUNT: AtomicUsize = AtomicUsize::new(0);

/// After a call of a task: rings for what tasks have told netds, unless it `runs` on and more may follow. Call it with no lock held.
pub fn after_call(runs: bool) {
    if WIRE_COUNT.load(Ordering::Acquire) == 0 {
        return;
    }
    for wire in WIRES.read().iter() {
        if !runs || wire.is_late() {
            wire.hurry();
        }
    }
}

/// What hears netd, on a thread of its own.
pub struct Listener {
    wire: Arc<Wire>,
    queue: Receiver,
    packets: Consumer,
    frames: Consumer,
    /// There may be packets, and frames.
    more: [bool; 2],
}

/// Packets, and slots, that are looked at before those whom they woke are.
const TURN: usize = 64;

impl Listener {
    /// Hears until netd is gone.
    pub fn serve(mut self, net: &Arc<NetNamespace>) {
        WIRES.write().push(self.wire.clone());
        WIRE_COUNT.fetch_add(1, Ordering::AcqRel);
        loop {
            let more = match self.work(net) {
                Ok(more) => more,
                Err(e) => {
                    self.wire.lose(e);
                    break;
                }
            };
            run_woken();
            self.wire.hurry();
            if more || !self.queue.sleep() {
                continue;
            }
            let mut raw = [0; 64];
            let rung = rustix::net::recv(&self.wire.bell, &mut raw, RecvFlags::empty());
            self.queue.wake();
            match rung {
                Ok((0, _)) => break,
                Ok(_) | Err(HostErrno::INTR) => {}
                Err(_) => break,
            }
        }
        WIRES.write().retain(|w| !Arc::ptr_eq(w, &self.wire));
        WIRE_COUNT.fetch_sub(1, Ordering::AcqRel);
        self.wire.lost.store(true, Ordering::Relaxed);
        for socket in self.wire.owners() {
            socket.outside_is_gone();
        }
        run_woken();
    }

    /// Looks at some of what there is, so that those whom it wakes get their turn; whether there is more.
    fn work(&mut self, net: &Arc<NetNamespace>) -> Result<bool, Broken> {
        for _ in 0..TURN {
            let [packets, frames] = std::mem::take(&mut self.more);
            if let Some((head, raw)) = if frames { frame::take(&mut self.frames)? } else { None } {
                crate::ipc::packet::come_in(net, head, &raw);
                self.more[1] = true;
            }
            if let Some((head, data)) = if packets { packet::take(&mut self.packets)? } else { None } {
                crate::ipc::inet::raw::come_in(net, head, data);
                self.more[0] = true;
            }
            if self.more == [false; 2] {
                break;
            }
        }
        for _ in 0..TURN {
            let Some(slot) = self.queue.pop()? else { return Ok(self.more != [false; 2]) };
            if slot.number() == PACKETS {
                self.more[0] = true;
            } else if slot.number() == FRAMES {
                self.more[1] = true;
            } else if let Some(socket) = self.wire.owner(&slot) {
                socket.news(&slot);
            } else if slot.is_netds() {
                self.newcomer(&slot)?;
            } else if slot.is_released(&self.wire.window) {
                slot.forget(&self.wire.window);
                self.wire.free(&slot);
            }
        }
        Ok(true)
    }

    /// A connection of a listener.
    fn newcomer(&self, slot: &Slot) -> Result<(), Broken> {
        use cofferdam_socket::slot::{said, told};
        let w = &self.wire.window;
        if slot.told(w) & told::NEW == 0 || slot.said(w) & said::CLOSED != 0 {
            return Ok(());
        }
        let (listener, local, remote) = slot.newcomer(w)?;
        let listener = Slot::new(w, listener)?;
        let taken = self.wire.owner(&listener).is_some_and(|l| l.welcome(&self.wire, slot, &listener, local, remote));
        if !taken {
            slot.say(w, said::CLOSED | said::RESET);
            self.wire.tell(slot);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn a_netd_that_dozes_is_rung_for_once_that_is_worth_it() {
        let window = Arc::new(Window::create("test", WINDOW_BYTES).unwrap());
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let (wire, _) = Wire::new(ours.into(), window.fd().try_clone_to_owned().unwrap()).unwrap();
        let mut netd = Receiver::new(window.clone(), Side::Netd);
        let slot = Slot::new(&window, 5).unwrap();
        let rung = || theirs.recv(&mut [0; 8]).is_ok();
        // One that sleeps is woken at once.
        assert!(netd.sleep());
        wire.tell(&slot);
        assert!(rung() && netd.pop().unwrap().is_some());
        // One that dozes as somebody says so, and once.
        assert!(netd.doze());
        wire.tell(&slot);
        assert!(!rung());
        std::thread::sleep(LEAD);
        assert!(wire.is_late());
        wire.hurry();
        assert!(rung() && !wire.is_late());
        wire.hurry();
        assert!(!rung() && netd.pop().unwrap().is_some());
        // One that has looked meanwhile needs no bell, and one that is awake none either.
        assert!(netd.doze());
        wire.tell(&slot);
        assert!(netd.pop().unwrap().is_some() && netd.doze());
        wire.hurry();
        netd.wake();
        wire.tell(&slot);
        wire.hurry();
        assert!(!rung() && !wire.is_late());
    }
}
