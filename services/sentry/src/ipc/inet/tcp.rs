//! TCP, `tcp(7)`: what is true of a socket whoever is at the other end, and connections between two sockets of a namespace. Those to elsewhere
//! are in `remote`.
//!
//! A connection is two sockets that know each other weakly: each holds what was sent to it. What one side does to the other's state
//! (data, end, reset) is done as the call is made, so the states in which a side waits for an acknowledgement are never seen. What a
//! program sees follows Linux (`net/ipv4/tcp.c`, `tcp_input.c`): what is told first, data, end or error, and which of them only once.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use super::address::Endpoint;
use super::ports::Pair;
use super::remote::{Doors, Remote};
use super::{Inet, Kind, LEAST, State, Waiting, check_family, is_full, options};
use crate::errno::Errno;
use crate::ipc::unix::Options;
use crate::namespaces::net::count;
use crate::time::{Deadline, NS};
use crate::uio::{Sink, Source};
use crate::vfs::file::File;
use crate::wait::{PollMask, Wake};

/// What the buffer of a connection's sender grows to, unless `net.ipv4.tcp_wmem` has less.
const SEND_GROWN: usize = 262_144;
/// Bytes that are joined to one piece, and that are taken from a program at once.
pub(super) const PIECE: usize = 65_536;
/// Bytes of a segment on the loopback device: its packets' less two headers and a time stamp, half of them at most.
pub const SEGMENT: usize = 32_741;
/// Of one that goes elsewhere: Ethernet's.
pub const SEGMENT_OUTSIDE: u32 = 1448;
/// How long what is held back may wait (`TCP_CORK` in `tcp(7)`).
const HELD_BACK: i64 = NS / 5;
/// How long a connection is tried while the listener's queue is full (six times, `net.ipv4.tcp_syn_retries`).
const PATIENCE: i64 = 127 * NS;

/// State of a socket (RFC 9293), without those that pass at once here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// No connection.
    #[default]
    Close,
    /// It listens.
    Listen,
    /// The listener has no room yet.
    SynSent,
    /// Connected.
    Established,
    /// Its side has ended, the other has not.
    FinWait,
    /// The other side has ended, its own has not.
    CloseWait,
}

impl Phase {
    /// Its number (`TCP_ESTABLISHED` and so on).
    pub fn number(self) -> u8 {
        match self {
            Self::Established => 1,
            Self::SynSent => 2,
            Self::FinWait => 5,
            Self::Close => 7,
            Self::CloseWait => 8,
            Self::Listen => 10,
        }
    }
}

/// The byte that was sent out of band last.
#[derive(Clone, Copy, Debug)]
struct Urgent {
    /// Where it is in all that was received.
    at: u64,
    byte: u8,
    /// It was received by itself.
    taken: bool,
}

/// What a TCP socket has besides what all have.
#[derive(Default)]
pub(crate) struct Tcp {
    pub(super) phase: Phase,
    /// The other end of the connection: in the namespace, or elsewhere.
    other: Weak<Inet>,
    pub(super) remote: Option<Remote>,
    /// Of a listener: where connections from elsewhere come in.
    pub(super) doors: Doors,
    /// It came from a listener.
    pub(super) accepted: bool,
    /// Its port was chosen for the connection: others may be to elsewhere.
    pub(super) chosen: bool,
    /// A `connect` that did not wait has not been told how it ended (`SS_CONNECTING`).
    connecting: bool,
    /// It was connected, and is what it was then until it is dissolved (`SS_CONNECTED`).
    joined: bool,
    /// The other side's end was seen (`SOCK_DONE`).
    ended: bool,
    /// Which was told by a read.
    told_end: bool,
    pieces: VecDeque<Vec<u8>>,
    /// Bytes of the first piece that were read.
    read: usize,
    bytes: Waiting,
    /// How much was read and written in all.
    taken: u64,
    sent: u64,
    urgent: Option<Urgent>,
    /// What is held back as more is to come (`TCP_CORK`, `MSG_MORE`), and what lets it go after a while.
    held: Vec<u8>,
    release: Option<Arc<dyn Wake>>,
    pub(super) backlog: usize,
    /// Connections that wait to be accepted, and sockets that wait for there to be room.
    pub(super) pending: VecDeque<Arc<Inet>>,
    waiting: VecDeque<Weak<Inet>>,
    /// Connections that have said nothing yet, where that is waited for (`TCP_DEFER_ACCEPT`); and the listener that such a one waits at.
    silent: Vec<Arc<Inet>>,
    deferred: Weak<Inet>,
    /// How often it was dissolved: calls that wait meanwhile end.
    dissolved: u64,
    /// Gives up waiting: for room, or for a word.
    pub(super) patience: Option<Arc<dyn Wake>>,
}

impl Tcp {
    /// Whether it listens.
    pub(super) fn listens(&self) -> bool {
        self.phase == Phase::Listen
    }

    /// Whether nobody has answered yet.
    pub(super) fn is_connecting(&self) -> bool {
        self.phase == Phase::SynSent
    }

    /// Bytes that are here and were not read.
    pub(super) fn unread(&self) -> usize {
        self.bytes.get()
    }

    /// How many connections wait here to be accepted.
    pub(super) fn waiting_here(&self) -> usize {
        self.pending.len() + self.silent.len()
    }

    /// Whether it has no connection.
    pub(super) fn is_closed(&self) -> bool {
        self.phase == Phase::Close
    }

    /// Whether there is somebody at the other end, or was until it has been told.
    pub(super) fn has_peer(&self) -> bool {
        !matches!(self.phase, Phase::Close | Phase::Listen | Phase::SynSent)
    }

    /// Takes the connections that nobody will accept any more, and the sockets that wait for there to be room.
    fn take_queues(&mut self) -> (VecDeque<Arc<Inet>>, VecDeque<Weak<Inet>>) {
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend(std::mem::take(&mut self.silent));
        (pending, std::mem::take(&mut self.waiting))
    }

    /// Where the next byte is in all that was received.
    fn urgent_here(&self) -> Option<Urgent> {
        self.urgent.filter(|u| u.at == self.taken)
    }

    /// What a reader finds (`SIOCINQ`): up to the urgent byte.
    fn readable(&self, inline: bool) -> usize {
        match self.urgent {
            Some(u) if !inline && u.at >= self.taken => {
                usize::try_from(u.at - self.taken).unwrap_or(usize::MAX).min(self.bytes.get())
            }
            _ => self.bytes.get(),
        }
    }

    /// Takes up to `n` bytes away without looking at them.
    fn skip(&mut self, mut n: usize) {
        while n > 0 {
            let Some(first) = self.pieces.front() else { break };
            let rest = first.len() - self.read.min(first.len());
            let now = rest.min(n);
            self.read += now;
            self.bytes.take(now);
            self.taken += now as u64;
            n -= now;
            if now == rest {
                self.pieces.pop_front();
                self.read = 0;
            }
        }
        if self.urgent.is_some_and(|u| self.taken > u.at) {
            self.urgent = None;
        }
    }

    pub(super) fn push(&mut self, data: Vec<u8>) {
        self.bytes.add(data.len());
        if let Some(last) = self.pieces.back_mut()
            && last.len() + data.len() <= PIECE
            && data.len() < PIECE / 4
        {
            last.extend_from_slice(&data);
            return;
        }
        self.pieces.push_back(data);
    }
}

/// How bytes are to be sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Send {
    /// The last of them is out of band.
    pub urgent: bool,
    /// More is to come (`MSG_MORE`).
    pub more: bool,
}

/// How bytes are to be received.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// They stay (`MSG_PEEK`).
    pub peek: bool,
    /// The call has some already.
    pub already: bool,
    /// They are thrown away (`MSG_TRUNC`).
    pub discard: bool,
}

/// What was received.
#[derive(Clone, Copy, Debug, Default)]
pub struct Got {
    /// Bytes.
    pub count: usize,
    /// Nothing came and nothing will, or it ends at the mark.
    pub stopped: bool,
}

/// What a socket does once a time is over: gives up on a connection that nobody has room for, lets go what a program held back and
/// forgot, lets in one that has said nothing for long enough.
struct Later(Weak<Inet>, fn(&Inet));

impl Wake for Later {
    fn wake(&self, _: PollMask) {
        let (socket, act) = (self.0.clone(), self.1);
        crate::wait::push_work(Box::new(move || {
            if let Some(socket) = socket.upgrade() {
                act(&socket);
            }
        }));
    }
}

impl State {
    /// The connection is over (`tcp_done`).
    pub(super) fn finish(&mut self) {
        self.tcp.phase = Phase::Close;
        self.shut = [true; 2];
    }

    pub(super) fn pair(&self) -> Option<Pair> {
        Some((self.local?, self.peer?))
    }

    /// What a connection of this listener begins with.
    pub(super) fn child(&self, local: Endpoint, peer: Endpoint) -> Self {
        let tcp = Tcp { phase: Phase::SynSent, accepted: true, joined: true, ..Tcp::default() };
        Self {
            local: Some(local),
            holds: true,
            bound: [true; 2],
            peer: Some(peer),
            error: None,
            timeouts: self.timeouts,
            send_buffer: self.send_buffer,
            receive_buffer: self.receive_buffer,
            sized: self.sized,
            // The priority is the listener's own.
            options: Options { priority: 0, ..self.options.clone() },
            values: self.values.clone(),
            filter: self.filter.clone(),
            shut: [false; 2],
            tcp,
            udp: Default::default(),
            raw: Default::default(),
            place: None,
        }
    }
}

impl Inet {
    /// Where a connection goes or went, whatever became of it.
    pub fn tcp_peer(&self) -> Option<Endpoint> {
        self.state.lock().peer
    }

    /// Which state it is in, and how much waits in it: unread, and for a listener connections.
    pub fn tcp_look(&self) -> (Phase, usize, usize) {
        let mut s = self.state.lock();
        s.pull();
        (s.tcp.phase, s.tcp.bytes.get(), if s.tcp.listens() { s.tcp.pending.len() } else { 0 })
    }

    /// What is unread, with the end of the other side, which counts as a byte.
    pub fn tcp_unread(&self) -> usize {
        let mut s = self.state.lock();
        s.pull();
        s.tcp.bytes.get() + usize::from(s.tcp.phase == Phase::CloseWait && s.tcp.ended && !s.tcp.told_end)
    }

    /// How many may wait to be accepted.
    pub fn tcp_backlog(&self) -> usize {
        self.state.lock().tcp.backlog
    }

    /// Bytes written and read so far.
    pub fn tcp_moved(&self) -> (u64, u64) {
        let s = self.state.lock();
        (s.tcp.sent, s.tcp.taken)
    }

    /// `listen(2)`. `Some`: the host is to be asked for that, with such a backlog. EINVAL, EADDRINUSE.
    pub fn listen(self: &Arc<Self>, backlog: i32) -> Result<Option<usize>, Errno> {
        let most = self.net.settings.somaxconn();
        let backlog = usize::try_from(backlog).unwrap_or(most).min(most);
        {
            let mut s = self.state.lock();
            match s.tcp.phase {
                Phase::Listen => {
                    s.tcp.backlog = backlog;
                    s.tcp.doors.set_backlog(backlog);
                    return Ok(None);
                }
                Phase::Close if !s.tcp.connecting && !s.tcp.joined => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        if self.host().is_some() {
            return Ok(Some(backlog));
        }
        self.autobind().map_err(|_| Errno::EADDRINUSE)?;
        let mut table = self.net.ports(Kind::Tcp).lock();
        let (port, claim) = {
            let s = self.state.lock();
            (s.local.map_or(0, |l| l.port), self.claim_of(&s))
        };
        table.listen(self, port, &claim)?;
        let mut s = self.state.lock();
        s.tcp.phase = Phase::Listen;
        s.tcp.backlog = backlog;
        s.shut = [false; 2];
        s.tcp.ended = false;
        drop(s);
        drop(table);
        self.listen_outside(backlog);
        Ok(None)
    }

    /// How often its connection was dissolved.
    pub fn tcp_dissolved(&self) -> u64 {
        self.state.lock().tcp.dissolved
    }

    /// EISCONN unless it can be connected.
    pub fn may_connect(&self) -> Result<(), Errno> {
        let s = self.state.lock();
        if s.tcp.is_closed() && !s.tcp.joined { Ok(()) } else { Err(Errno::EISCONN) }
    }

    /// The open file of the other side, whose owner is told of urgent data.
    pub fn tcp_other_file(&self) -> Option<Arc<File>> {
        let other = self.state.lock().tcp.other.upgrade();
        other.and_then(|o| o.open_file())
    }

    /// `connect(2)`. EAGAIN: the listener has no room, wait; [`connected`](Self::connected) tells.
    pub fn tcp_connect(self: &Arc<Self>, to: Endpoint) -> Result<(), Errno> {
        self.may_connect()?;
        let to = self.meant(to);
        let source = self.source(to.ip)?;
        if to.ip.is_multicast() || self.is_broadcast(to.ip) {
            return Err(Errno::ENETUNREACH);
        }
        if self.host().is_some() {
            self.goes_to(to)?;
        } else {
            self.take_pair(source, to)?;
        }
        {
            let mut s = self.state.lock();
            s.tcp.phase = Phase::SynSent;
            s.shut = [false; 2];
            s.tcp.ended = false;
            s.tcp.told_end = false;
        }
        count(&self.net.counts.active);
        if let Some(outside) = self.away(to.ip) {
            return self.knock_outside(outside);
        }
        let result = self.knock();
        if result == Err(Errno::EAGAIN) {
            self.wait_for_room();
        }
        result
    }

    /// Notes where the connection goes, and gives the socket the address and port that it lacks.
    fn take_pair(self: &Arc<Self>, source: std::net::IpAddr, to: Endpoint) -> Result<(), Errno> {
        let mut table = self.net.ports(Kind::Tcp).lock();
        let (local, holds) = {
            let s = self.state.lock();
            (s.local, s.holds)
        };
        let ip = local.map(|l| l.ip).filter(|ip| !ip.is_unspecified()).unwrap_or(source);
        check_family(ip, to.ip)?;
        let port = match local.filter(|_| holds) {
            Some(local) => {
                table.pair((Endpoint { ip, port: local.port }, to))?;
                local.port
            }
            None => table.connect(self, ip, to, self.choice_of_ports())?,
        };
        let mut s = self.state.lock();
        s.tcp.chosen |= !holds;
        s.local = Some(Endpoint { ip, port });
        s.holds = true;
        s.peer = Some(to);
        Ok(())
    }

    /// Asks the listener to be let in. ECONNREFUSED; EAGAIN where it has no room, then it asks back.
    fn knock(self: &Arc<Self>) -> Result<(), Errno> {
        let (local, to) = self.state.lock().pair().ok_or(Errno::EINVAL)?;
        // Nobody hears it through a device that is down.
        if !self.net.loopback.is_up() {
            return Err(Errno::EAGAIN);
        }
        // A socket that connects to its own port meets itself (RFC 9293, 3.5: both open at once).
        let listener = if local == to { None } else { self.net.ports(Kind::Tcp).lock().listener(to, local) };
        let result = match listener {
            _ if local == to => {
                self.establish(self);
                Ok(())
            }
            Some(listener) => self.enter(&listener),
            None => Err(Errno::ECONNREFUSED),
        };
        if result == Err(Errno::ECONNREFUSED) {
            self.refuse(Errno::ECONNREFUSED);
        }
        result
    }

    /// Joins a listener's queue.
    fn enter(self: &Arc<Self>, listener: &Arc<Inet>) -> Result<(), Errno> {
        let (local, to) = self.state.lock().pair().ok_or(Errno::EINVAL)?;
        let (child, tries) = {
            let mut l = listener.state.lock();
            if !l.tcp.listens() {
                return Err(Errno::ECONNREFUSED);
            }
            if l.tcp.pending.len() + l.tcp.silent.len() > l.tcp.backlog {
                l.tcp.waiting.retain(|w| w.strong_count() > 0);
                l.tcp.waiting.push_back(self.me.clone());
                return Err(Errno::EAGAIN);
            }
            let tries = l.values.get(options::TCP, options::DEFER_ACCEPT);
            let child = l.child(to, local);
            (child, tries)
        };
        let child = Inet::with((listener.domain, Kind::Tcp), &listener.net, listener.uid, &listener.timers, child);
        {
            let mut table = self.net.ports(Kind::Tcp).lock();
            // Its own view of the connection; the one of who connects is noted already.
            table.pair((to, local)).map_err(|_| Errno::ECONNREFUSED)?;
            table.take(&child, to.port);
        }
        count(&self.net.counts.passive);
        child.establish(self);
        if tries > 0 {
            child.defer(listener, tries)?;
            self.establish(&child);
            return Ok(());
        }
        self.establish(&child);
        listener.offer(child);
        Ok(())
    }

    /// A connection waits at this listener to be accepted.
    pub(super) fn offer(&self, child: Arc<Self>) {
        {
            let mut l = self.state.lock();
            if l.tcp.listens() {
                l.tcp.pending.push_back(child);
                drop(l);
                self.queue.wake(PollMask::IN | PollMask::RDNORM);
                return;
            }
        }
        // It was closed meanwhile: the connection was made, and is reset.
        child.tcp_abort();
    }

    /// Waits at the listener until something was said, or for the time of so many tries. ECONNREFUSED if it listens no more.
    pub(super) fn defer(self: &Arc<Self>, listener: &Arc<Inet>, tries: i32) -> Result<(), Errno> {
        {
            let overdue = self
                .later(Deadline::after(i64::from(options::seconds_of(tries)).saturating_mul(NS)), Self::come_forward);
            let mut s = self.state.lock();
            (s.tcp.deferred, s.tcp.patience) = (Arc::downgrade(listener), Some(overdue));
        }
        {
            let mut l = listener.state.lock();
            if l.tcp.listens() {
                l.tcp.silent.push(self.clone());
                return Ok(());
            }
        }
        self.tcp_abort();
        Err(Errno::ECONNREFUSED)
    }

    /// One that was waited for to say something did, or ended: it can be accepted.
    pub(super) fn come_forward(&self) {
        let listener = {
            let mut s = self.state.lock();
            let listener = std::mem::take(&mut s.tcp.deferred);
            if listener.strong_count() > 0 {
                s.tcp.patience = None;
            }
            listener.upgrade()
        };
        let Some(listener) = listener else { return };
        {
            let mut l = listener.state.lock();
            let Some(at) = l.tcp.silent.iter().position(|s| s.id == self.id) else { return };
            let child = l.tcp.silent.remove(at);
            l.tcp.pending.push_back(child);
        }
        listener.queue.wake(PollMask::IN | PollMask::RDNORM);
    }

    fn establish(&self, other: &Arc<Inet>) {
        let mut s = self.state.lock();
        // It may have been closed meanwhile.
        if s.tcp.phase != Phase::SynSent {
            return;
        }
        s.tcp.phase = Phase::Established;
        s.tcp.other = Arc::downgrade(other);
        s.tcp.patience = None;
        if !s.sized[0] {
            let [_, most] = self.net.settings.tcp_buffer(true);
            s.send_buffer = SEND_GROWN.min(most);
        }
        drop(s);
        self.queue.wake(PollMask::OUT | PollMask::WRNORM);
    }

    /// A connection that was tried came to nothing.
    pub(super) fn refuse(&self, why: Errno) {
        let pair = {
            let mut s = self.state.lock();
            if s.tcp.phase != Phase::SynSent {
                return;
            }
            count(&self.net.counts.failed);
            s.finish();
            s.error = Some(why);
            s.tcp.patience = None;
            s.pair()
        };
        self.unregister(None, pair, None);
        self.queue.wake(PollMask::empty());
    }

    fn wait_for_room(&self) {
        let mut s = self.state.lock();
        if s.tcp.phase == Phase::SynSent && s.tcp.patience.is_none() {
            let patience = self.later(Deadline::after(PATIENCE), Self::give_up);
            s.tcp.patience = Some(patience);
        }
    }

    /// Has something done after a time, unless what is returned is dropped before.
    fn later(&self, after: Deadline, act: fn(&Self)) -> Arc<dyn Wake> {
        let later: Arc<dyn Wake> = Arc::new(Later(self.me.clone(), act));
        self.timers.add(after, &later);
        later
    }

    fn give_up(&self) {
        self.refuse(Errno::ETIMEDOUT);
    }

    /// How a connection that was begun came out: EAGAIN while nobody knows, its error once. A socket that failed can be used again.
    pub fn connected(&self) -> Result<(), Errno> {
        let mut s = self.state.lock();
        match s.tcp.phase {
            Phase::SynSent => Err(Errno::EAGAIN),
            Phase::Close if s.error.is_some() || !s.tcp.ended && s.shut[1] => {
                let e = s.error.take().unwrap_or(Errno::ECONNABORTED);
                s.tcp.connecting = false;
                drop(s);
                self.tcp_disconnect();
                Err(e)
            }
            _ => {
                s.tcp.connecting = false;
                s.tcp.joined = true;
                Ok(())
            }
        }
    }

    /// Whether a `connect` without waiting is under way; notes that it is.
    pub fn connecting(&self, begun: bool) -> bool {
        let mut s = self.state.lock();
        s.tcp.connecting |= begun;
        s.tcp.connecting
    }

    /// `connect(2)` to AF_UNSPEC: calls that wait end, too.
    pub fn tcp_dissolve(&self) {
        {
            let mut s = self.state.lock();
            s.tcp.dissolved = s.tcp.dissolved.wrapping_add(1);
        }
        self.tcp_disconnect();
    }

    /// Dissolves what connection there is: the other side is told by a reset.
    pub fn tcp_disconnect(&self) {
        let (freed, pair, other, pending, waiting, remote, doors) = {
            let mut s = self.state.lock();
            let (remote, doors) = (s.tcp.remote.take(), std::mem::take(&mut s.tcp.doors));
            let (pair, local) = (s.pair(), s.local);
            if s.tcp.has_peer() || s.tcp.phase == Phase::SynSent {
                s.error = Some(Errno::ECONNRESET);
            }
            let other = if s.tcp.has_peer() { s.tcp.other.upgrade() } else { None };
            let (pending, waiting) = s.tcp.take_queues();
            let [ip_stays, port_stays] = s.bound;
            // The port is still told, as on Linux, though it may be another's by now.
            s.local = local.map(|l| Endpoint { ip: if ip_stays { l.ip } else { self.domain.any() }, port: l.port });
            let held = s.holds;
            s.holds = held && port_stays;
            s.peer = None;
            s.shut = [false; 2];
            s.tcp = Tcp { accepted: s.tcp.accepted, dissolved: s.tcp.dissolved, ..Tcp::default() };
            (local.filter(|_| held && !port_stays), pair, other, pending, waiting, remote, doors)
        };
        doors.close();
        if let Some(remote) = remote {
            remote.close(true);
        }
        match freed {
            Some(_) => self.unregister(freed, pair, None),
            None => {
                self.unregister(None, pair, None);
                let port = self.name().port;
                self.net.ports(Kind::Tcp).lock().deafen(self.id, port);
            }
        }
        if let Some(other) = other {
            other.tcp_reset();
        }
        turn_away(pending, waiting);
        self.queue.wake(PollMask::empty());
    }

    /// `accept(2)`: the next connection. EINVAL, EAGAIN.
    pub fn accept(&self) -> Result<Arc<Inet>, Errno> {
        let (next, more) = {
            let mut s = self.state.lock();
            if !s.tcp.listens() {
                return Err(Errno::EINVAL);
            }
            let next = s.tcp.pending.pop_front().ok_or(Errno::EAGAIN)?;
            (next, s.tcp.waiting.pop_front())
        };
        if let Some(remote) = &mut next.state.lock().tcp.remote {
            remote.accepted();
        }
        if let Some(waiting) = more.and_then(|w| w.upgrade()) {
            let _ = waiting.knock();
        }
        Ok(next)
    }

    /// Bytes that the connection holds beyond what its receiver has room for: those the sender keeps.
    fn held_back(&self, other: &Inet) -> usize {
        let o = other.state.lock();
        o.tcp.bytes.get().saturating_sub(o.receive_buffer)
    }

    /// Bytes that a sender with a buffer of that size may add to those that wait here.
    fn room(&self, limit: usize) -> usize {
        let s = self.state.lock();
        let most = if is_full() { LEAST } else { s.receive_buffer.saturating_add(limit) };
        most.saturating_sub(s.tcp.bytes.get())
    }

    /// Sends bytes: how many. EAGAIN, EPIPE and what happened to the connection.
    pub fn tcp_send(&self, from: &mut Source<'_>, how: Send) -> Result<usize, Errno> {
        let (other, limit, away) = {
            let mut s = self.state.lock();
            if !matches!(s.tcp.phase, Phase::Established | Phase::CloseWait) || s.shut[1] {
                if s.tcp.phase == Phase::SynSent {
                    return Err(Errno::EAGAIN);
                }
                return Err(s.error.take().unwrap_or(Errno::EPIPE));
            }
            if let Some(e) = s.error.take() {
                return Err(e);
            }
            let away = s.tcp.remote.as_ref().map(|r| r.room(s.send_buffer));
            (s.tcp.other.upgrade(), s.send_buffer, away)
        };
        if from.left() == 0 {
            return Ok(0);
        }
        let kept = other.as_ref().map_or(0, |o| self.held_back(o));
        if kept >= limit {
            return Err(Errno::EAGAIN);
        }
        let room = away.unwrap_or_else(|| other.as_ref().map_or(PIECE, |o| o.room(limit)));
        if room == 0 {
            return Err(Errno::EAGAIN);
        }
        let want = from.left().min(room).min(4 * PIECE);
        let data = from.take_vec(want)?;
        // What is not there in the middle of it spoils it all.
        if data.len() < want {
            return Err(Errno::EFAULT);
        }
        let n = want;
        let urgent = data.last().copied().filter(|_| how.urgent && from.left() == 0);
        let Some(data) = self.hold_back(data, how) else { return Ok(n) };
        if away.is_some() {
            self.send_outside(&data);
        } else if other.as_ref().is_some_and(|o| o.tcp_deliver(data, urgent)) {
            self.state.lock().tcp.sent += n as u64;
        } else {
            // There is nobody to read it: it was sent, and is answered by a reset.
            self.tcp_reset();
        }
        Ok(n)
    }

    fn send_outside(&self, data: &[u8]) {
        let mut s = self.state.lock();
        if let Some(remote) = &mut s.tcp.remote {
            remote.write(data);
            s.tcp.sent += data.len() as u64;
        }
    }

    /// Keeps what does not fill a segment where more is to come; what is to be sent now.
    fn hold_back(&self, mut data: Vec<u8>, how: Send) -> Option<Vec<u8>> {
        let mut s = self.state.lock();
        let corked = how.more || s.values.get(options::TCP, options::CORK3) != 0;
        let segment = if s.tcp.remote.is_some() { SEGMENT_OUTSIDE as usize } else { SEGMENT };
        if corked && !how.urgent && s.tcp.held.len() + data.len() < segment {
            s.tcp.held.append(&mut data);
            if s.tcp.release.is_none() {
                let release = self.later(Deadline::after(HELD_BACK), Self::tcp_release);
                s.tcp.release = Some(release);
            }
            return None;
        }
        s.tcp.release = None;
        if !s.tcp.held.is_empty() {
            let mut held = std::mem::take(&mut s.tcp.held);
            held.append(&mut data);
            data = held;
        }
        Some(data)
    }

    /// Sends what was held back.
    pub fn tcp_release(&self) {
        let (data, other, away) = {
            let mut s = self.state.lock();
            s.tcp.release = None;
            (std::mem::take(&mut s.tcp.held), s.tcp.other.upgrade(), s.tcp.remote.is_some())
        };
        if away && !data.is_empty() {
            self.send_outside(&data);
        } else if !data.is_empty()
            && let Some(other) = other
            && !other.tcp_deliver(data, None)
        {
            self.tcp_reset();
        }
    }

    /// Takes what the other side sent; whether it is still there to.
    fn tcp_deliver(&self, data: Vec<u8>, urgent: Option<u8>) -> bool {
        let mut s = self.state.lock();
        match s.tcp.phase {
            Phase::Established | Phase::CloseWait => {}
            Phase::FinWait if !s.shut[0] => {}
            Phase::FinWait => {
                drop(s);
                self.tcp_reset();
                return false;
            }
            _ => return false,
        }
        s.tcp.push(data);
        let mut events = PollMask::IN | PollMask::RDNORM;
        if let Some(byte) = urgent {
            let inline = s.options.switch(crate::ipc::unix::OOBINLINE);
            // One that is passed by as the next comes is no part of the data.
            if !inline && s.tcp.bytes.get() > 1 && s.tcp.urgent_here().is_some() {
                s.tcp.skip(1);
            }
            let at = s.tcp.taken + (s.tcp.bytes.get() as u64).saturating_sub(1);
            s.tcp.urgent = Some(Urgent { at, byte, taken: false });
            events |= PollMask::PRI;
        }
        drop(s);
        self.queue.wake(events);
        self.come_forward();
        true
    }

    /// The other side has ended.
    pub(super) fn tcp_end(&self) {
        let left = {
            let mut s = self.state.lock();
            match s.tcp.phase {
                Phase::Established => s.tcp.phase = Phase::CloseWait,
                Phase::FinWait => s.finish(),
                _ => return,
            }
            s.shut[0] = true;
            s.tcp.ended = true;
            s.pair().filter(|_| s.tcp.phase == Phase::Close).map(|pair| (pair, self.claim_of(&s)))
        };
        if let Some((pair, claim)) = left {
            self.unregister(None, Some(pair), Some(claim).filter(|_| self.host().is_none()));
        }
        self.queue.wake(PollMask::empty());
        self.come_forward();
    }

    /// The connection was reset by the other side.
    fn tcp_reset(&self) {
        let pair = {
            let mut s = self.state.lock();
            s.error = match s.tcp.phase {
                Phase::Close | Phase::Listen => return,
                Phase::SynSent => Some(Errno::ECONNREFUSED),
                Phase::CloseWait => Some(Errno::EPIPE),
                _ => Some(Errno::ECONNRESET),
            };
            count(&self.net.counts.reset);
            s.finish();
            s.pair()
        };
        self.unregister(None, pair, None);
        self.queue.wake(PollMask::empty());
        self.come_forward();
    }

    /// Resets the connection of one that nobody accepts any more.
    pub(super) fn tcp_abort(&self) {
        let (local, pair, other, remote) = {
            let mut s = self.state.lock();
            let remote = s.tcp.remote.take();
            let other = if s.tcp.has_peer() { s.tcp.other.upgrade() } else { None };
            s.finish();
            (s.local, s.pair(), other, remote)
        };
        self.unregister(local, pair, None);
        if let Some(mut remote) = remote {
            remote.accepted();
            remote.close(true);
        }
        if let Some(other) = other {
            other.tcp_reset();
        }
    }

    /// Receives bytes. EAGAIN, ENOTCONN, or what happened to the connection, once.
    pub fn tcp_receive(&self, to: &mut Sink<'_>, how: How) -> Result<Got, Errno> {
        let mut s = self.state.lock();
        if s.tcp.listens() {
            return Err(Errno::ENOTCONN);
        }
        s.pull();
        let got = s.read_stream(to, how)?;
        if let Some(got) = got {
            let other = s.tcp.other.upgrade();
            drop(s);
            if !how.peek
                && let Some(other) = other
            {
                other.queue.wake(PollMask::OUT | PollMask::WRNORM);
            }
            return Ok(got);
        }
        let end = Ok(Got { count: 0, stopped: true });
        if s.tcp.ended {
            s.tcp.told_end |= !how.peek;
            return end;
        }
        if how.already && s.error.is_some() {
            return end;
        }
        if let Some(e) = s.error.take() {
            return Err(e);
        }
        match s.tcp.phase {
            _ if s.shut[0] => end,
            Phase::Close => Err(Errno::ENOTCONN),
            _ => Err(Errno::EAGAIN),
        }
    }

    /// Receives the byte that was sent out of band, by itself: `None` at the end of a connection. EINVAL, EAGAIN, ENOTCONN.
    pub fn tcp_receive_urgent(&self, to: &mut Sink<'_>, peek: bool) -> Result<Option<usize>, Errno> {
        let byte = {
            let mut s = self.state.lock();
            let inline = s.options.switch(crate::ipc::unix::OOBINLINE);
            let urgent = s.tcp.urgent.filter(|u| !inline && !u.taken).ok_or(Errno::EINVAL)?;
            if s.tcp.phase == Phase::Close && !s.tcp.ended {
                return Err(Errno::ENOTCONN);
            }
            if !peek {
                s.tcp.urgent = Some(Urgent { taken: true, ..urgent });
            }
            urgent.byte
        };
        if to.room() == 0 { Ok(Some(0)) } else { to.put(&[byte]).map(Some) }
    }

    /// Whether the next byte is the one that was sent out of band (`SIOCATMARK`).
    pub fn tcp_at_mark(&self) -> Result<bool, Errno> {
        Ok(self.state.lock().tcp.urgent_here().is_some())
    }

    /// Bytes that can be read (`SIOCINQ`); EINVAL of a listener.
    pub fn tcp_waiting(&self) -> Result<usize, Errno> {
        let mut s = self.state.lock();
        s.pull();
        if s.tcp.listens() {
            return Err(Errno::EINVAL);
        }
        Ok(s.tcp.readable(s.options.switch(crate::ipc::unix::OOBINLINE)))
    }

    /// Bytes that are left to be read; one where nothing is but the end (`TCP_INQ`).
    pub fn tcp_left(&self) -> usize {
        let mut s = self.state.lock();
        s.pull();
        if s.tcp.bytes.get() == 0 { usize::from(s.tcp.ended) } else { s.tcp.bytes.get() }
    }

    /// Bytes that were written and that the other side has no room for (`SIOCOUTQ`); EINVAL of a listener.
    pub fn tcp_unsent(&self) -> Result<usize, Errno> {
        let (other, held) = {
            let s = self.state.lock();
            if s.tcp.listens() {
                return Err(Errno::EINVAL);
            }
            if let Some(remote) = &s.tcp.remote {
                return Ok(s.tcp.held.len() + remote.unacknowledged());
            }
            (s.tcp.other.upgrade(), s.tcp.held.len())
        };
        Ok(held + other.map_or(0, |o| self.held_back(&o)))
    }

    pub(super) fn tcp_shutdown(&self, read: bool, write: bool) -> Result<(), Errno> {
        if write {
            self.tcp_release();
        }
        let other = {
            let mut s = self.state.lock();
            match s.tcp.phase {
                Phase::Close => {
                    s.shut[0] |= read;
                    s.shut[1] |= write;
                    drop(s);
                    self.queue.wake(PollMask::empty());
                    return Err(Errno::ENOTCONN);
                }
                Phase::Listen if !read => return Ok(()),
                Phase::Listen | Phase::SynSent => {
                    drop(s);
                    self.tcp_disconnect();
                    return Ok(());
                }
                _ => {}
            }
            s.tcp.joined |= std::mem::take(&mut s.tcp.connecting);
            s.shut[0] |= read;
            let ends = write && !s.shut[1];
            s.shut[1] |= write;
            match s.tcp.phase {
                Phase::Established if ends => s.tcp.phase = Phase::FinWait,
                Phase::CloseWait if ends => s.finish(),
                _ => {}
            }
            if let Some(remote) = s.tcp.remote.as_mut().filter(|_| ends) {
                remote.finish();
            }
            let over = s.pair().filter(|_| s.tcp.phase == Phase::Close);
            let other = s.tcp.other.upgrade().filter(|_| ends);
            drop(s);
            if over.is_some() {
                self.unregister(None, over, None);
            }
            other
        };
        if let Some(other) = other {
            other.tcp_end();
        }
        self.queue.wake(PollMask::empty());
        Ok(())
    }

    pub(super) fn tcp_close(&self) {
        self.tcp_release();
        let (local, pair, other, resets, left, (pending, waiting), ((remote, doors), place)) = {
            let mut s = self.state.lock();
            s.pull();
            let away = (s.tcp.remote.take(), std::mem::take(&mut s.tcp.doors));
            let place = s.place.take();
            let phase = s.tcp.phase;
            let lingers_not = s.options.linger[0] != 0 && s.options.linger[1] == 0;
            let resets = s.tcp.bytes.get() > 0 || lingers_not || phase == Phase::SynSent;
            let other = if s.tcp.has_peer() { s.tcp.other.upgrade() } else { None };
            // Who closes first keeps the connection in mind.
            let first = matches!(phase, Phase::Established | Phase::FinWait) && !resets;
            // In the host's own network that is the host's to do.
            let left = first.then(|| self.claim_of(&s)).filter(|_| self.host().is_none());
            let (local, pair) = (s.local.filter(|_| s.holds), s.pair().filter(|_| !s.tcp.is_closed()));
            let queues = s.tcp.take_queues();
            s.finish();
            let rest = (std::mem::take(&mut s.tcp.pieces), std::mem::take(&mut s.tcp.bytes));
            drop(s);
            drop(rest);
            (local, pair, other, resets, left, queues, (away, place))
        };
        self.unregister(local, pair, left);
        doors.close();
        if let Some(place) = place {
            place.close();
        }
        if let Some(remote) = remote {
            remote.close(resets);
        }
        match other {
            Some(other) if resets => other.tcp_reset(),
            Some(other) => other.tcp_end(),
            None => {}
        }
        turn_away(pending, waiting);
        self.queue.wake(PollMask::empty());
    }

    pub(super) fn tcp_events(&self) -> PollMask {
        let mut s = self.state.lock();
        s.pull();
        let mut m = PollMask::empty();
        if s.tcp.listens() {
            m.set(PollMask::IN | PollMask::RDNORM, !s.tcp.pending.is_empty());
            return m;
        }
        m.set(PollMask::HUP, s.shut == [true; 2] || s.tcp.is_closed());
        m.set(PollMask::IN | PollMask::RDNORM | PollMask::RDHUP, s.shut[0]);
        m.set(PollMask::ERR, s.error.is_some());
        if s.tcp.phase == Phase::SynSent {
            return m;
        }
        let inline = s.options.switch(crate::ipc::unix::OOBINLINE);
        let target = usize::try_from(s.options.low_water).unwrap_or(1).min(s.receive_buffer / 2)
            + usize::from(!inline && s.tcp.urgent_here().is_some());
        if s.tcp.bytes.get() >= target {
            m |= PollMask::IN | PollMask::RDNORM;
        }
        m.set(PollMask::PRI, s.tcp.urgent.is_some_and(|u| !u.taken));
        let (closed, other, limit) = (s.shut[1], s.tcp.other.upgrade(), s.send_buffer);
        if let Some(remote) = &s.tcp.remote {
            m.set(PollMask::OUT | PollMask::WRNORM, closed || remote.room(limit) > 0);
            return m;
        }
        drop(s);
        let kept = other.as_ref().map_or(0, |o| self.held_back(o));
        let room = other.is_none_or(|o| o.room(limit) > 0);
        if closed || room && limit.saturating_sub(kept) >= kept / 2 && kept < limit {
            m |= PollMask::OUT | PollMask::WRNORM;
        }
        m
    }
}

/// A listener is gone: connections that it did not accept are reset, and those it had no room for refused.
fn turn_away(pending: VecDeque<Arc<Inet>>, waiting: VecDeque<Weak<Inet>>) {
    for child in pending {
        child.tcp_abort();
    }
    for socket in waiting.iter().filter_map(Weak::upgrade) {
        socket.refuse(Errno::ECONNREFUSED);
    }
}

impl State {
    /// Reads what there is, up to the mark of what was sent out of band; `None` if there is nothing.
    fn read_stream(&mut self, to: &mut Sink<'_>, how: How) -> Result<Option<Got>, Errno> {
        let inline = self.options.switch(crate::ipc::unix::OOBINLINE);
        let mut at = 0;
        // Where a peek begins (`SO_PEEK_OFF`).
        if how.peek {
            at = usize::try_from(self.options.peek_from).unwrap_or(0);
        }
        let mut stop = self.tcp.bytes.get();
        if let Some(u) = self.tcp.urgent {
            let from_here = usize::try_from(u.at.saturating_sub(self.tcp.taken)).unwrap_or(usize::MAX);
            if from_here > at || from_here == at && how.already {
                stop = stop.min(from_here);
            } else if from_here == at && !inline {
                // The byte itself is passed by.
                if how.peek {
                    at += 1;
                } else {
                    self.tcp.skip(1);
                    self.tcp.urgent = None;
                    stop = self.tcp.bytes.get();
                }
            }
        }
        if stop <= at {
            let marked = how.already && self.tcp.urgent_here().is_some();
            return Ok(marked.then_some(Got { count: 0, stopped: true }));
        }
        let want = (stop - at).min(to.room());
        let count = if how.discard { want } else { self.copy_out(to, at, want)? };
        // What cannot be written in the middle of it spoils it all, and nothing is taken.
        if count < want {
            return Err(Errno::EFAULT);
        }
        if how.peek {
            if self.options.peek_from >= 0 {
                let moved = i32::try_from(count).unwrap_or(i32::MAX);
                self.options.peek_from = self.options.peek_from.saturating_add(moved);
            }
        } else {
            self.tcp.skip(count);
            if self.options.peek_from > 0 {
                let moved = i32::try_from(count).unwrap_or(i32::MAX);
                self.options.peek_from = self.options.peek_from.saturating_sub(moved).max(0);
            }
        }
        Ok(Some(Got { count, stopped: count == want && stop < self.tcp.bytes.get() + count }))
    }

    fn copy_out(&self, to: &mut Sink<'_>, mut at: usize, want: usize) -> Result<usize, Errno> {
        let mut put = 0;
        let mut before = self.tcp.read;
        for piece in &self.tcp.pieces {
            let rest = piece.get(before..).unwrap_or_default();
            before = 0;
            if at >= rest.len() {
                at -= rest.len();
                continue;
            }
            let rest = rest.get(at..).unwrap_or_default();
            at = 0;
            let rest = rest.get(..rest.len().min(want - put)).unwrap_or_default();
            match to.put(rest) {
                Ok(n) if n == rest.len() => put += n,
                Ok(n) => return Ok(put + n),
                Err(e) if put == 0 => return Err(e),
                Err(_) => break,
            }
            if put == want {
                break;
            }
        }
        Ok(put)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(data: &[&[u8]]) -> Tcp {
        let mut t = Tcp::default();
        data.iter().for_each(|d| t.push(d.to_vec()));
        t
    }

    #[test]
    fn pieces_are_joined_and_taken() {
        let mut t = of(&[b"abc", b"de"]);
        assert_eq!((t.pieces.len(), t.bytes.get()), (1, 5));
        t.skip(4);
        assert_eq!((t.bytes.get(), t.taken, t.read), (1, 4, 4));
        t.skip(9);
        assert_eq!((t.bytes.get(), t.taken, t.read, t.pieces.len()), (0, 5, 0, 0));
        let big = vec![0; PIECE];
        assert_eq!(of(&[b"a", &big, b"b"]).pieces.len(), 3);
    }

    #[test]
    fn what_can_be_read_ends_at_the_mark() {
        let mut t = of(&[b"abcd"]);
        t.urgent = Some(Urgent { at: 2, byte: b'c', taken: false });
        assert_eq!((t.readable(false), t.readable(true)), (2, 4));
        t.skip(2);
        assert!(t.urgent_here().is_some());
        t.skip(1);
        assert!(t.urgent.is_none());
    }
}
