//! TCP to and from elsewhere: connections whose other end is not in the namespace.
//!
//! netd has the connection; here is what of it a socket has: a slot with a ring in either direction ([`Rings`]). What was received is taken out of the ring as
//! a program looks for it, so that its order with the end of the stream, and what a program is told first, are those of `tcp`. What is written goes
//! into the ring at once. Called by `tcp`, and by the thread that hears netd (`net`).

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use cofferdam_socket::slot::{Operation, Slot, Tuning, said, told};
use cofferdam_socket::{RING_MOST, Side};

use super::address::{Domain, Endpoint};
use super::tcp::{PIECE, Phase};
use super::{Inet, Kind, LEAST, State, is_full, options};
use crate::errno::Errno;
use crate::namespaces::net::Settings;
use crate::namespaces::net::count;
use crate::net::{Outside, Rings, Wire};
use crate::wait::PollMask;

/// Connections that may wait beyond a listener's backlog, should netd not keep to it.
const SLACK: usize = 64;

/// Bytes that are worth a ring of netd's bell though more may follow.
const PLENTY: usize = 8 << 10;

/// The other end of a connection that is elsewhere.
pub(super) struct Remote {
    wire: Arc<Wire>,
    rings: Rings,
    /// The slot of the listener that it came from.
    listener: Option<Slot>,
    /// What two threads wrote at once, and had no room together.
    unsent: VecDeque<u8>,
    /// What was said of it ([`said`]).
    said: u32,
    /// What was heard of it ([`told`]).
    told: u32,
}

impl From<Endpoint> for SocketAddr {
    fn from(e: Endpoint) -> Self {
        Self::new(e.ip, e.port)
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(a: SocketAddr) -> Self {
        Self { ip: a.ip(), port: a.port() }
    }
}

impl Remote {
    /// Bytes that netd has not taken.
    pub(super) fn kept(&self) -> usize {
        self.rings.outgoing.used().map_or(0, |n| n as usize).saturating_add(self.unsent.len())
    }

    /// Bytes that were written and that the other end has not acknowledged.
    pub(super) fn unacknowledged(&self) -> usize {
        let (unacked, _) = self.rings.slot.progress(self.wire.window());
        self.kept().max(unacked as usize)
    }

    /// The time that a packet takes there and back, microseconds; 0 if nobody knows.
    pub(super) fn round_trip(&self) -> u32 {
        self.rings.slot.progress(self.wire.window()).1
    }

    /// The longest packet that gets there, bytes; 0 if nobody knows.
    pub(super) fn mtu(&self) -> u32 {
        self.rings.slot.mtu(self.wire.window())
    }

    /// Where the host has put it: `None` while that is not known.
    pub(super) fn place(&self) -> Option<Result<Endpoint, Errno>> {
        let (w, slot) = (self.wire.window(), &self.rings.slot);
        match slot.answered(w, slot.asked(w).0)? {
            Ok(Ok(local)) => Some(Ok(local.into())),
            Ok(Err(why)) => Some(Err(Errno::from_host(why))),
            Err(broken) => {
                self.wire.lose(broken);
                Some(Err(Errno::ENETDOWN))
            }
        }
    }

    /// Bytes that can be written now, of a sender with a buffer of that size. If there are none netd is asked to tell when there are.
    pub(super) fn room(&self, limit: usize) -> usize {
        let look = || {
            let room = self.rings.outgoing.room().map_or(0, |n| n as usize);
            if self.unsent.is_empty() { room.min(limit.saturating_sub(self.kept())) } else { 0 }
        };
        match look() {
            0 => {
                self.rings.slot.wait_for_room(self.wire.window(), Side::Sentry);
                // It may have made room before it could know.
                look()
            }
            room => room,
        }
    }

    /// Writes; what has no room is kept.
    pub(super) fn write(&mut self, data: &[u8]) {
        let n = if self.unsent.is_empty() { self.put(data) } else { 0 };
        self.unsent.extend(data.get(n..).unwrap_or_default());
        while !self.unsent.is_empty() {
            self.rings.slot.wait_for_room(self.wire.window(), Side::Sentry);
            // It may have made room before it could know.
            let mut kept = std::mem::take(&mut self.unsent);
            let n = self.put(kept.make_contiguous());
            kept.drain(..n.min(kept.len()));
            self.unsent = kept;
            if n == 0 {
                break;
            }
        }
        self.wire.tell(&self.rings.slot);
        if self.kept() >= PLENTY {
            self.wire.hurry();
        }
    }

    fn put(&mut self, data: &[u8]) -> usize {
        self.rings.outgoing.put_some(data).unwrap_or_else(|e| {
            self.wire.lose(e);
            data.len()
        })
    }

    /// There may be room for what was kept.
    fn flush(&mut self) {
        if self.unsent.is_empty() {
            return;
        }
        let kept: Vec<u8> = std::mem::take(&mut self.unsent).into();
        self.write(&kept);
        if self.unsent.is_empty() && self.said != 0 {
            self.say(0);
        }
    }

    /// Nothing more is sent.
    pub(super) fn finish(&mut self) {
        self.say(said::FINISHED);
    }

    fn say(&mut self, what: u32) {
        self.said |= what;
        // The end is after all that was written.
        if self.unsent.is_empty() || what & said::CLOSED != 0 {
            self.rings.slot.say(self.wire.window(), self.said);
            self.wire.tell(&self.rings.slot);
        }
    }

    /// Nobody has it any more. `resets`: the other end is told that what it sent was not read.
    pub(super) fn close(mut self, resets: bool) {
        let resets = resets || !self.unsent.is_empty();
        let what = if resets { said::CLOSED | said::RESET } else { said::CLOSED | said::FINISHED };
        self.said |= what;
        self.rings.slot.say(self.wire.window(), self.said);
        self.wire.leave(&self.rings.slot);
    }

    /// A listener's connection was accepted.
    pub(super) fn accepted(&mut self) {
        if let Some(listener) = self.listener.take() {
            let w = self.wire.window();
            listener.set_accepted(w, listener.accepted(w).wrapping_add(1));
            self.wire.tell(&listener);
        }
    }

    /// Says how it is to behave.
    fn tune(&self, tuning: Tuning) {
        self.rings.slot.tune(self.wire.window(), tuning);
        self.wire.tell(&self.rings.slot);
    }
}

/// A listener's slots: one for each family that it listens to.
#[derive(Default)]
pub(super) struct Doors(Vec<(Arc<Wire>, Rings)>);

impl Doors {
    /// One more.
    pub(super) fn add(&mut self, door: (Arc<Wire>, Rings)) {
        self.0.push(door);
    }

    /// So many may wait at each from now on.
    pub(super) fn set_backlog(&self, backlog: usize) {
        for (wire, rings) in &self.0 {
            rings.slot.set_backlog(wire.window(), u32::try_from(backlog).unwrap_or(u32::MAX));
            wire.tell(&rings.slot);
        }
    }

    /// They are shut.
    pub(super) fn close(self) {
        for (wire, rings) in self.0 {
            rings.slot.say(wire.window(), said::CLOSED);
            wire.leave(&rings.slot);
        }
    }
}

impl State {
    /// Takes in what came from elsewhere, as far as there is room.
    pub(super) fn pull(&mut self) {
        let Some(mut remote) = self.tcp.remote.take() else { return };
        let mut moved = false;
        loop {
            let here = self.tcp.unread();
            let room = if is_full() { LEAST } else { self.receive_buffer }.saturating_sub(here);
            let there = match remote.rings.incoming.available() {
                Ok(n) => n as usize,
                Err(e) => {
                    remote.wire.lose(e);
                    0
                }
            };
            let want = there.min(room).min(PIECE);
            if want == 0 {
                break;
            }
            let mut piece = vec![0; want];
            match remote.rings.incoming.take(&mut piece) {
                Ok(n) => piece.truncate(n),
                Err(e) => {
                    remote.wire.lose(e);
                    break;
                }
            }
            moved = true;
            self.tcp.push(piece);
        }
        if moved && remote.rings.slot.was_waited_for(remote.wire.window(), Side::Netd) {
            remote.wire.tell(&remote.rings.slot);
            // It has more that had no room.
            remote.wire.hurry();
        }
        self.tcp.remote = Some(remote);
    }

    pub(super) fn tuning(&self, set: &Settings) -> Tuning {
        const MAXSEG: i32 = 2;
        const WINDOW_CLAMP: i32 = 10;
        const NODELAY: i32 = 1;
        const KEEPIDLE: i32 = 4;
        const KEEPINTVL: i32 = 5;
        const KEEPCNT: i32 = 6;
        const USER_TIMEOUT: i32 = 18;
        let of = |option| self.values.get(options::TCP, option);
        let alive = self.options.switch(crate::ipc::unix::KEEPALIVE);
        let to = self.peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |p| p.ip);
        // Half of a buffer is for what it costs to keep things in it.
        let buffer = |send: bool, own: usize| {
            let [_, most] = set.tcp_buffer(send);
            let asked = if self.sized[usize::from(!send)] { own } else { most };
            u32::try_from(asked / 2).unwrap_or(u32::MAX).max(1)
        };
        let clamp = u32::try_from(of(WINDOW_CLAMP)).ok().filter(|n| *n > 0).unwrap_or(u32::MAX);
        let segment = self.values.kept(options::TCP, MAXSEG).and_then(|n| u16::try_from(n).ok());
        Tuning {
            service: self.service(to),
            largest_segment: segment.unwrap_or(0),
            receive_buffer: buffer(false, self.receive_buffer).min(clamp),
            send_buffer: buffer(true, self.send_buffer),
            nodelay: of(NODELAY) != 0,
            keepalive: if alive { u16::try_from(of(KEEPIDLE)).unwrap_or(u16::MAX) } else { 0 },
            keepalive_interval: u16::try_from(of(KEEPINTVL)).unwrap_or(0),
            keepalive_probes: u8::try_from(of(KEEPCNT)).unwrap_or(0),
            user_timeout: u32::try_from(of(USER_TIMEOUT)).unwrap_or(0),
            hops: self.time_to_live(to),
        }
    }
}

impl Inet {
    /// Of a connection to elsewhere: the time there and back, microseconds, and bytes that are on their way.
    pub fn tcp_progress(&self) -> Option<(u32, u32)> {
        let s = self.state.lock();
        let remote = s.tcp.remote.as_ref()?;
        Some((remote.round_trip(), u32::try_from(remote.unacknowledged()).unwrap_or(u32::MAX)))
    }

    /// Tells netd how the connection is to behave, after an option was set.
    pub fn retune(&self) {
        let s = self.state.lock();
        if let Some(remote) = &s.tcp.remote {
            remote.tune(s.tuning(&self.net.settings));
        }
    }

    /// Begins a connection to elsewhere, whose addresses are noted. EAGAIN: netd will tell; EADDRNOTAVAIL: it can have no more.
    pub(super) fn knock_outside(self: &Arc<Self>, outside: &Arc<Outside>) -> Result<(), Errno> {
        let begun = if outside.network.host { self.connect_place() } else { self.connect_slot(outside) };
        let (wire, rings) = match begun {
            Ok(begun) => begun,
            Err(why) => {
                self.refuse(why);
                return Err(Errno::EAGAIN);
            }
        };
        let slot = rings.slot;
        let remote = Remote { wire: wire.clone(), rings, listener: None, unsent: VecDeque::new(), said: 0, told: 0 };
        let shut = {
            let mut s = self.state.lock();
            if s.tcp.is_connecting() {
                s.tcp.remote = Some(remote);
                None
            } else {
                Some(remote)
            }
        };
        match shut {
            // It was closed meanwhile.
            Some(remote) => remote.close(true),
            None => wire.tell(&slot),
        }
        Err(Errno::EAGAIN)
    }

    /// A slot for a connection whose addresses are noted. EADDRNOTAVAIL, ENETDOWN.
    fn connect_slot(self: &Arc<Self>, outside: &Arc<Outside>) -> Result<(Arc<Wire>, Rings), Errno> {
        let (local, to, tuning) = {
            let s = self.state.lock();
            let (local, to) = s.pair().ok_or(Errno::EINVAL)?;
            (local, to, s.tuning(&self.net.settings))
        };
        let wire = outside.wire();
        match wire.take(self, Operation::Connect, local.into(), Some(to.into()), 0, tuning) {
            Some(rings) => Ok((wire, rings)),
            None => Err(if wire.is_lost() { Errno::ENETDOWN } else { Errno::EADDRNOTAVAIL }),
        }
    }

    /// netd has news of the connection in a slot of this socket's, or of a place of the host's.
    pub fn news(self: &Arc<Self>, slot: &Slot) {
        if self.host().is_some() {
            if self.place_news(slot) {
                return;
            }
            let _ = self.is_settled();
        }
        let (fresh, error, room) = {
            let mut s = self.state.lock();
            let Some(remote) = s.tcp.remote.as_mut().filter(|r| r.rings.slot == *slot) else { return };
            remote.flush();
            let all = slot.told(remote.wire.window());
            let fresh = all & !remote.told;
            remote.told |= all;
            (fresh, slot.error(remote.wire.window()), remote.room(usize::MAX) > 0)
        };
        if fresh & told::CONNECTED != 0 {
            self.establish_outside();
        }
        if fresh & told::FAILED != 0 {
            let why = Errno::from_host(error);
            if why == Errno::EADDRNOTAVAIL && self.choose_anew() {
                return;
            }
            self.fail(why);
        } else if fresh & told::FINISHED != 0 {
            self.tcp_end();
        }
        let mut events = PollMask::IN | PollMask::RDNORM;
        events.set(PollMask::OUT | PollMask::WRNORM, room);
        self.queue.wake(events);
        self.come_forward();
    }

    /// netd still has what is left of another connection between these ends, which was closed here: one more port is tried, where it was chosen and
    /// not asked for. Whether there is one.
    fn choose_anew(self: &Arc<Self>) -> bool {
        let Some(outside) = self.net.outside().filter(|o| !o.network.host) else { return false };
        let gone = {
            let mut table = self.net.ports(Kind::Tcp).lock();
            let mut s = self.state.lock();
            let Some((local, to)) = s.pair().filter(|_| s.tcp.is_connecting() && s.tcp.chosen) else { return false };
            drop(s);
            let Ok(port) = table.connect(self, local.ip, to, self.choice_of_ports()) else { return false };
            table.unpair((local, to), None);
            table.free(self.id, local.port);
            s = self.state.lock();
            s.local = Some(Endpoint { port, ..local });
            s.tcp.remote.take()
        };
        if let Some(gone) = gone {
            gone.close(true);
        }
        // It waits on as it did.
        let _ = self.knock_outside(outside);
        true
    }

    fn establish_outside(&self) {
        let mut s = self.state.lock();
        if !s.tcp.is_connecting() {
            return;
        }
        s.tcp.phase = Phase::Established;
        s.tcp.patience = None;
        if !s.sized[0] {
            let [_, most] = self.net.settings.tcp_buffer(true);
            s.send_buffer = (RING_MOST as usize).min(most);
        }
    }

    /// The connection ended by an error.
    fn fail(&self, why: Errno) {
        let (pair, connecting) = {
            let mut s = self.state.lock();
            s.pull();
            match s.tcp.phase {
                Phase::Close | Phase::Listen => return,
                Phase::SynSent => (None, true),
                phase => {
                    let reset = phase == Phase::CloseWait && why == Errno::ECONNRESET;
                    s.error = Some(if reset { Errno::EPIPE } else { why });
                    count(&self.net.counts.reset);
                    s.finish();
                    (s.pair(), false)
                }
            }
        };
        if connecting {
            self.refuse(why);
            return;
        }
        self.unregister(None, pair, None);
        self.queue.wake(PollMask::empty());
    }

    /// netd is gone, and all connections with it. Listeners stay, for another one.
    pub fn outside_is_gone(&self) {
        let there = {
            let mut s = self.state.lock();
            s.tcp.doors.0.clear();
            s.tcp.remote.is_some()
        };
        self.queue.wake(PollMask::empty());
        if there {
            self.fail(Errno::ECONNRESET);
        }
    }

    /// Listens to who comes from elsewhere, too: unless its address is one that nobody elsewhere can name.
    pub fn listen_outside(self: &Arc<Self>, backlog: usize) {
        let Some(outside) = self.net.outside() else { return };
        if outside.network.host {
            return self.listen_anew(backlog);
        }
        let (local, tuning, v6only) = {
            let s = self.state.lock();
            let Some(local) = s.local else { return };
            (local, s.tuning(&self.net.settings), self.is_v6only(&s))
        };
        if !local.ip.is_unspecified() && !outside.network.has(local.ip) {
            return;
        }
        let both = local.ip.is_unspecified() && self.domain == Domain::V6 && !v6only;
        let four = both.then(|| Endpoint { ip: Domain::V4.any(), port: local.port });
        for at in [Some(local), four].into_iter().flatten() {
            let backlog = u32::try_from(backlog).unwrap_or(u32::MAX);
            let wire = outside.wire();
            let Some(rings) = wire.take(self, Operation::Listen, at.into(), None, backlog, tuning) else { return };
            let slot = rings.slot;
            self.state.lock().tcp.doors.0.push((wire.clone(), rings));
            wire.tell(&slot);
        }
    }

    /// A connection to this listener has come from elsewhere; whether it is taken.
    pub fn welcome(
        self: &Arc<Self>,
        wire: &Arc<Wire>,
        slot: &Slot,
        door: &Slot,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> bool {
        let (child, tries) = {
            let l = self.state.lock();
            let full = l.tcp.waiting_here() > l.tcp.backlog.saturating_add(SLACK);
            if !l.tcp.listens() || full {
                return false;
            }
            (l.child(local.into(), remote.into()), l.values.get(options::TCP, options::DEFER_ACCEPT))
        };
        let child = Self::with((self.domain, Kind::Tcp), &self.net, self.uid, &self.timers, child);
        {
            let mut table = self.net.ports(Kind::Tcp).lock();
            if table.pair((local.into(), remote.into())).is_err() {
                return false;
            }
            table.take(&child, local.port());
        }
        count(&self.net.counts.passive);
        {
            let rings = wire.own(*slot, &child);
            let (unsent, listener) = (VecDeque::new(), Some(*door));
            let told = told::NEW | told::CONNECTED;
            let mut s = child.state.lock();
            s.tcp.remote = Some(Remote { wire: wire.clone(), rings, listener, unsent, said: 0, told });
            let tuning = s.tuning(&self.net.settings);
            s.tcp.remote.iter().for_each(|r| r.tune(tuning));
        }
        child.establish_outside();
        // What was told before it had its slot.
        child.news(slot);
        if tries > 0 && child.tcp_waiting().unwrap_or(0) == 0 {
            return child.defer(self, tries).is_ok();
        }
        self.offer(child);
        true
    }
}
