//! Connections: each of the sandbox's is one of the host's.
//!
//! Owns which slot is which socket. Data goes from a ring to the socket and from the socket to the other ring; who finds the other's ring full asks
//! to be told. Sockets are watched for changes only, so each remembers whether it had something, or room, when last tried. Called by `hosted`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use cofferdam_control::rules::{Action, Direction};
use cofferdam_socket::ring::{Consumer, Producer};
use cofferdam_socket::slot::{Operation, Slot, Tuning, said, told};
use cofferdam_socket::{Broken, Side, Window};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags};

use super::{Around, LISTENERS, Nowhere, STREAMS, Watch, places};
use crate::ip::TCP;
use crate::sentry::Numbers;

/// Pieces of one connection that are moved before another gets its turn.
const TURN: usize = 16;
/// Connections that are taken from one published port before something else gets its turn.
const CALLERS: usize = 64;

#[derive(Debug)]
struct Stream {
    slot: Slot,
    /// Gone once both directions have ended.
    socket: Option<OwnedFd>,
    outgoing: Consumer,
    incoming: Producer,
    /// What was taken out of the ring and had no room in the socket.
    pending: Vec<u8>,
    connecting: bool,
    /// It had something, or room, when last tried.
    readable: bool,
    writable: bool,
    /// Something has happened to it that may be an error.
    suspect: bool,
    /// Nothing more is sent; nothing more comes.
    finished: bool,
    ended: bool,
    told: u32,
    tuned: u32,
}

#[derive(Debug)]
struct Listener {
    slot: Slot,
    at: SocketAddr,
    backlog: u32,
    /// How many connections it was given.
    given: u32,
    /// In the host's own network: the host's socket that listens, which may have callers.
    own: Option<(OwnedFd, bool)>,
}

impl Listener {
    /// Whether one more has room. One more than the backlog, as on Linux.
    fn has_room(&self, w: &Window) -> bool {
        self.given.wrapping_sub(self.slot.accepted(w)) <= self.backlog
    }
}

/// A place of the host's that nothing came of yet.
#[derive(Debug)]
struct Place {
    socket: OwnedFd,
    at: SocketAddr,
    /// The request that it was made for.
    request: u32,
}

/// A published port.
#[derive(Debug)]
struct Door {
    socket: OwnedFd,
    port: u16,
    /// There may be callers.
    ready: bool,
}

/// All of a sandbox's.
#[derive(Debug)]
pub(super) struct Streams {
    window: Arc<Window>,
    watch: Watch,
    /// Sockets, at most.
    most: usize,
    /// It is the host's own network.
    host: bool,
    places: HashMap<u32, Place>,
    streams: HashMap<u32, Stream>,
    listeners: HashMap<u32, Listener>,
    doors: HashMap<u64, Door>,
    numbers: Numbers,
    /// Slots that are to be looked at once more.
    again: Vec<u32>,
    /// A connection has ended: one who waits at a published port may be let in.
    has_room: bool,
}

impl Streams {
    pub fn new(window: Arc<Window>, watch: Watch, most: usize, host: bool) -> Self {
        Self {
            window,
            watch,
            most,
            host,
            places: HashMap::new(),
            streams: HashMap::new(),
            listeners: HashMap::new(),
            doors: HashMap::new(),
            numbers: Numbers::default(),
            again: Vec::new(),
            has_room: false,
        }
    }

    /// A socket of the caller's that listens is for a port inside.
    pub fn publish(&mut self, which: u64, socket: OwnedFd, port: u16) {
        self.doors.insert(which, Door { socket, port, ready: true });
    }

    pub fn len(&self) -> usize {
        self.streams.len()
    }

    pub fn is_busy(&self) -> bool {
        let waits = |l: &Listener| l.own.as_ref().is_some_and(|(_, ready)| *ready);
        let ready = || self.doors.values().any(|d| d.ready) || self.listeners.values().any(waits);
        !self.again.is_empty() || (self.has_room && ready())
    }

    /// Whether a slot is one of these.
    pub fn has(&self, slot: &Slot) -> bool {
        let number = &slot.number();
        self.streams.contains_key(number) || self.listeners.contains_key(number) || self.places.contains_key(number)
    }

    /// Sockets that there are.
    fn used(&self) -> usize {
        self.streams.len() + self.places.len() + self.listeners.values().filter(|l| l.own.is_some()).count()
    }

    /// The Sentry says that something is to be done in a slot.
    pub fn asked(&mut self, slot: Slot, around: &mut Around) -> Result<(), Broken> {
        let number = slot.number();
        if self.streams.contains_key(&number) {
            return self.pump(number, around);
        }
        if let Some(listener) = self.listeners.get_mut(&number) {
            if slot.said(&self.window) & said::CLOSED != 0 {
                self.listeners.remove(&number);
                slot.release(&self.window);
                return around.sentry.tell(&slot);
            }
            let before = listener.backlog;
            (_, _, _, listener.backlog) = slot.wanted(&self.window)?;
            if let Some((socket, _)) = listener.own.as_ref().filter(|_| before != listener.backlog) {
                // What it refuses stays as it was.
                let _ = rustix::net::listen(socket, waiting(listener.backlog));
            }
            return self.callers(around);
        }
        // Of netd's own only those that are in use mean something.
        if slot.is_netds() {
            return Ok(());
        }
        let closed = slot.said(&self.window) & said::CLOSED != 0;
        if slot.is_released(&self.window) {
            // It came to nothing at once; when the Sentry is done with it, too, it is free.
            return if closed { around.sentry.tell(&slot) } else { Ok(()) };
        }
        if closed {
            self.places.remove(&number);
            slot.release(&self.window);
            return around.sentry.tell(&slot);
        }
        let (request, _) = slot.asked(&self.window);
        // Only what is asked anew is new.
        if self.places.get(&number).is_some_and(|p| p.request == request) {
            return Ok(());
        }
        let place = self.places.remove(&number);
        self.begin(slot, place, around)
    }

    /// Begins what a slot is to be, maybe in a place that it has.
    fn begin(&mut self, slot: Slot, place: Option<Place>, around: &mut Around) -> Result<(), Broken> {
        let number = slot.number();
        let (what, local, remote, backlog) = slot.wanted(&self.window)?;
        match what {
            Operation::Listen if !self.host => {
                self.listeners.insert(number, Listener { slot, at: local, backlog, given: 0, own: None });
                self.callers(around)
            }
            Operation::Connect => {
                let (request, _) = slot.asked(&self.window);
                let (tuned, tuning) = slot.tuning(&self.window);
                let made = self.connect(slot, place, (local, remote), tuning, around);
                if self.host {
                    let name = made.as_ref().map_err(|e| *e).and_then(places::name);
                    slot.answer(&self.window, request, name.map_err(Errno::raw_os_error));
                }
                match made {
                    Ok(socket) => {
                        self.enter(slot, socket, false, tuned);
                        if self.host {
                            around.sentry.tell(&slot)?;
                        }
                        self.pump(number, around)
                    }
                    Err(why) => {
                        slot.set_error(&self.window, why.raw_os_error());
                        slot.tell(&self.window, told::FAILED | told::OVER | told::RELEASED);
                        around.sentry.tell(&slot)
                    }
                }
            }
            Operation::Bind | Operation::Listen if self.host => self.settle(slot, place, around),
            _ => Err(Broken("a place of the host's is asked of none")),
        }
    }

    /// The supervisor has made the socket for the place that a slot is to have.
    pub fn placed(&mut self, slot: Slot, socket: OwnedFd, around: &mut Around) -> Result<(), Broken> {
        let (_, local, _, _) = slot.wanted(&self.window)?;
        self.begin(slot, Some(Place { socket, at: local, request: 0 }), around)
    }

    /// Gives a slot its place on the host, and has it listen there if it is to.
    fn settle(&mut self, slot: Slot, place: Option<Place>, around: &mut Around) -> Result<(), Broken> {
        let (what, local, _, backlog) = slot.wanted(&self.window)?;
        let (request, binding) = slot.asked(&self.window);
        let bound = || {
            if self.used() >= self.most {
                return Err(Errno::NOBUFS);
            }
            let socket = places::bound(true, local, binding)?;
            Ok(Place { at: places::name(&socket)?, socket, request })
        };
        let settled = place.map_or_else(bound, |p| Ok(Place { request, ..p }));
        if let Some(needed) = settled.as_ref().err().and_then(|e| places::needed(*e, true, local, binding)) {
            around.needed.push((slot, needed));
            return Ok(());
        }
        let listens = what == Operation::Listen;
        let settled = settled.and_then(|place| {
            if listens {
                rustix::net::listen(&place.socket, waiting(backlog))?;
                self.watch.add(place.socket.as_fd(), LISTENERS | u64::from(slot.number()))?;
            }
            Ok(place)
        });
        slot.answer(&self.window, request, settled.as_ref().map(|p| p.at).map_err(|e| e.raw_os_error()));
        match settled {
            Ok(Place { socket, at, .. }) if listens => {
                let own = Some((socket, false));
                self.listeners.insert(slot.number(), Listener { slot, at, backlog, given: 0, own });
            }
            Ok(place) => {
                self.places.insert(slot.number(), place);
            }
            Err(_) => {
                around.counters.refused += 1;
                slot.release(&self.window);
            }
        }
        around.sentry.tell(&slot)
    }

    fn connect(
        &self,
        slot: Slot,
        place: Option<Place>,
        (from, to): (SocketAddr, SocketAddr),
        tuning: Tuning,
        around: &mut Around,
    ) -> Result<OwnedFd, Errno> {
        // By the name that the sandbox has for it. As where nobody is: so a host refuses what may not leave it.
        if around.counters.filter.judge(Direction::Out, TCP, to.ip(), 0, to.port()) == Action::Deny {
            return Err(Errno::CONNREFUSED);
        }
        let to = around.names.meant(to).map_err(|why| match why {
            Nowhere::Nobody => Errno::HOSTUNREACH,
            Nowhere::Forbidden => {
                around.counters.forbidden += 1;
                Errno::NETUNREACH
            }
        })?;
        if place.is_none() && self.used() >= self.most {
            return Err(Errno::NOBUFS);
        }
        let mut refused = |e| {
            around.counters.refused += 1;
            e
        };
        // Of the host's own network an address may be asked for without a port, or one that it had before.
        let named = self.host && !(from.ip().is_unspecified() && from.port() == 0);
        let (socket, at) = match place {
            Some(place) => (Ok(place.socket), place.at),
            None if named => (places::bound(true, from, slot.asked(&self.window).1), from),
            None => (places::make(true, to), to),
        };
        let socket = socket.map_err(&mut refused)?;
        tune(&socket, tuning);
        match rustix::net::connect(&socket, &places::dressed(to, at)) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(e) => return Err(refused(e)),
        }
        self.watch.add(socket.as_fd(), STREAMS | u64::from(slot.number()))?;
        Ok(socket)
    }

    /// `called`: it came by a published port.
    fn enter(&mut self, slot: Slot, socket: OwnedFd, called: bool, tuned: u32) {
        let (incoming, outgoing) = slot.rings(&self.window, Side::Netd);
        let stream = Stream {
            slot,
            socket: Some(socket),
            outgoing,
            incoming,
            pending: Vec::new(),
            connecting: !called,
            // One that came can be used; one that is made tells when it can.
            readable: called,
            writable: called,
            suspect: false,
            finished: false,
            ended: false,
            told: if called { told::NEW | told::CONNECTED } else { 0 },
            tuned,
        };
        self.streams.insert(slot.number(), stream);
    }

    /// Something has happened to a connection, or a published port.
    pub fn happened(&mut self, which: u64, what: EventFlags, around: &mut Around) -> Result<(), Broken> {
        if let Some(door) = self.doors.get_mut(&which) {
            door.ready = true;
            return self.callers(around);
        }
        let number = (which & u64::from(u32::MAX)) as u32;
        let Some(stream) = self.streams.get_mut(&number) else { return Ok(()) };
        let broken = what.intersects(EventFlags::ERR | EventFlags::HUP);
        stream.readable |= broken || what.intersects(EventFlags::IN | EventFlags::RDHUP);
        stream.writable |= broken || what.contains(EventFlags::OUT);
        stream.suspect |= broken;
        self.pump(number, around)
    }

    /// Somebody may have called where a listener of the host's listens.
    pub fn called(&mut self, number: u32, around: &mut Around) -> Result<(), Broken> {
        if let Some((_, ready)) = self.listeners.get_mut(&number).and_then(|l| l.own.as_mut()) {
            *ready = true;
            self.let_in(number, around)?;
        }
        Ok(())
    }

    /// Lets callers of one in, as far as it has room for them. The others wait with the host.
    fn let_in(&mut self, number: u32, around: &mut Around) -> Result<(), Broken> {
        for _ in 0..CALLERS {
            let full = self.used() >= self.most;
            let Some(listener) = self.listeners.get_mut(&number) else { return Ok(()) };
            if full || !listener.has_room(&self.window) {
                return Ok(());
            }
            let Some((own, ready)) = listener.own.as_mut().filter(|(_, ready)| *ready) else { return Ok(()) };
            let Some((socket, from)) = accept(own, ready) else { return Ok(()) };
            let (Some(remote), Ok(local)) = (from.map(places::plain), places::name(&socket)) else { continue };
            let filter = &mut around.counters.filter;
            if filter.judge(Direction::In, TCP, remote.ip(), local.port(), remote.port()) == Action::Deny {
                reset(&socket);
                continue;
            }
            self.give(number, socket, local, remote, around)?;
        }
        self.has_room = true;
        Ok(())
    }

    /// Goes on with what had no turn.
    pub fn work(&mut self, around: &mut Around) -> Result<(), Broken> {
        for number in std::mem::take(&mut self.again) {
            self.pump(number, around)?;
        }
        if std::mem::take(&mut self.has_room) { self.callers(around) } else { Ok(()) }
    }

    /// Gives those who called at published ports to who listens there, as far as it has room for them. The others wait with the host.
    fn callers(&mut self, around: &mut Around) -> Result<(), Broken> {
        let own: Vec<u32> = self.listeners.iter().filter(|(_, l)| l.own.is_some()).map(|(n, _)| *n).collect();
        own.into_iter().try_for_each(|number| self.let_in(number, around))?;
        let which: Vec<u64> = self.doors.iter().filter(|(_, d)| d.ready).map(|(which, _)| *which).collect();
        for which in which {
            for _ in 0..CALLERS {
                let Some(door) = self.doors.get_mut(&which) else { break };
                let port = door.port;
                let listens = |four: bool| {
                    let fits = |l: &&Listener| {
                        l.at.port() == port && (l.at.ip().is_unspecified() || around.names.network.has(l.at.ip()))
                    };
                    self.listeners.values().filter(fits).find(|l| l.at.is_ipv4() == four).map(|l| l.slot.number())
                };
                let (four, six) = (listens(true), listens(false));
                // Both may be one socket's, and have one backlog.
                let both = [four, six].into_iter().flatten().filter_map(|at| self.listeners.get(&at));
                let (waiting, backlog) = both.fold((0u32, None), |(waiting, backlog), l| {
                    let more = l.given.wrapping_sub(l.slot.accepted(&self.window));
                    (waiting.saturating_add(more), Some(backlog.map_or(l.backlog, |b: u32| b.min(l.backlog))))
                });
                // One more than the backlog, as on Linux.
                if backlog.is_some_and(|b| waiting > b) || self.streams.len() >= self.most {
                    break;
                }
                let Some((socket, from)) = accept(&door.socket, &mut door.ready) else { break };
                // Who he really is; the host has let him in already, so he is told.
                let may = from.is_some_and(|from| {
                    around.counters.filter.judge(Direction::In, TCP, from.ip(), port, from.port()) == Action::Allow
                });
                if !may {
                    reset(&socket);
                    continue;
                }
                let seen = from.map(|from| around.names.seen(from, six.is_none()));
                let to = seen.and_then(|(_, own)| if own.is_ipv4() { four } else { six });
                let (Some((remote, own)), Some(to)) = (seen, to) else {
                    // Nobody listens: who called is told so, as far as that can be done by now.
                    around.counters.refused += 1;
                    reset(&socket);
                    continue;
                };
                self.give(to, socket, SocketAddr::new(own, port), remote, around)?;
            }
        }
        Ok(())
    }

    /// A caller goes to a listener.
    pub fn give(
        &mut self,
        listener: u32,
        socket: OwnedFd,
        local: SocketAddr,
        remote: SocketAddr,
        around: &mut Around,
    ) -> Result<(), Broken> {
        let Some(listener) = self.listeners.get_mut(&listener) else { return Ok(()) };
        let Some(number) = self.numbers.take() else { return Ok(()) };
        if self.watch.add(socket.as_fd(), STREAMS | u64::from(number)).is_err() {
            self.numbers.give(number);
            return Ok(());
        }
        listener.given = listener.given.wrapping_add(1);
        let slot = Slot::new(&self.window, number)?;
        slot.begin(&self.window, listener.slot.number(), local, remote);
        self.enter(slot, socket, true, 0);
        around.sentry.tell(&slot)?;
        self.pump(number, around)
    }

    /// Moves what can be moved of a connection, and tells the Sentry what it may want to know.
    fn pump(&mut self, number: u32, around: &mut Around) -> Result<(), Broken> {
        let Some(s) = self.streams.get_mut(&number) else { return Ok(()) };
        let w = &self.window;
        let said = s.slot.said(w);
        let (tuned, tuning) = s.slot.tuning(w);
        if let Some(socket) = s.socket.as_ref().filter(|_| tuned != s.tuned) {
            s.tuned = tuned;
            tune(socket, tuning);
        }
        if said & said::RESET != 0 && said & said::CLOSED != 0 {
            // What was written before was on its way by then; what has no room any more is lost with the rest.
            if !s.connecting && s.told & told::OVER == 0 {
                s.send(w, 0, around, &mut false)?;
            }
            if let Some(socket) = &s.socket {
                reset(socket);
            }
            return self.end(number, around);
        }
        let mut news = false;
        let mut failed = s.connect(&mut news);
        if failed.is_none() && !s.connecting {
            failed = s.send(w, said, around, &mut news)?;
        }
        if !s.connecting && said & said::CLOSED == 0 {
            // What came before the other end was gone is read first.
            s.readable |= failed.is_some();
            failed = s.receive(w, around, &mut news, &mut self.again)?.or(failed);
        }
        if s.suspect && s.ended && failed.is_none() {
            // Nobody reads any more who would see that the other end is gone altogether.
            s.suspect = false;
            let error = s.socket.as_ref().map(sockopt::socket_error);
            failed = error.and_then(|e| e.unwrap_or(Ok(())).err()).map(|_| Errno::CONNRESET);
        }
        let left = (s.pending.len() as u32).saturating_add(s.outgoing.available()?);
        s.slot.set_progress(w, left, 0);
        if let Some(why) = failed {
            s.slot.set_error(w, why.raw_os_error());
            s.told |= told::FAILED | told::OVER;
        } else if s.ended && s.finished {
            s.told |= told::OVER;
        }
        if s.told & told::OVER != 0 {
            // Closed now: nobody is to wait until the sandbox has read what came.
            s.socket = None;
        }
        if s.told != s.slot.told(w) {
            s.slot.tell(w, s.told);
            news = true;
        }
        let (slot, over) = (s.slot, s.told & told::OVER != 0);
        if said & said::CLOSED != 0 && (over || left == 0) {
            // What is on its way still gets there: that is the host's business now.
            return self.end(number, around);
        }
        if news && said & said::CLOSED == 0 {
            around.sentry.tell(&slot)?;
        }
        Ok(())
    }

    /// The slot is free for another.
    fn end(&mut self, number: u32, around: &mut Around) -> Result<(), Broken> {
        let Some(s) = self.streams.remove(&number) else { return Ok(()) };
        drop(s.socket);
        if s.slot.is_netds() {
            s.slot.forget(&self.window);
            self.numbers.give(number);
        } else {
            s.slot.release(&self.window);
            around.sentry.tell(&s.slot)?;
        }
        // There is room for one more. Not here: a Sentry that ends each as it begins would have this go ever deeper.
        self.has_room = true;
        Ok(())
    }
}

impl Stream {
    /// Whether it is connected by now. `Some`: why it is not.
    fn connect(&mut self, news: &mut bool) -> Option<Errno> {
        let socket = self.socket.as_ref().filter(|_| self.connecting && self.writable)?;
        match sockopt::socket_error(socket) {
            Ok(Ok(())) => {
                self.connecting = false;
                self.told |= told::CONNECTED;
                *news = true;
                None
            }
            Ok(Err(why)) | Err(why) => Some(why),
        }
    }

    /// Out. `Some`: why it ended.
    fn send(&mut self, w: &Window, said: u32, a: &mut Around, news: &mut bool) -> Result<Option<Errno>, Broken> {
        let Some(socket) = &self.socket else { return Ok(None) };
        let mut moved = false;
        while self.writable {
            if self.pending.is_empty() {
                let n = self.outgoing.take(&mut a.buffer)?;
                moved |= n > 0;
                self.pending.extend_from_slice(a.buffer.get(..n).unwrap_or_default());
            }
            if self.pending.is_empty() {
                break;
            }
            match rustix::net::send(socket, &self.pending, SendFlags::NOSIGNAL) {
                Ok(n) => {
                    a.sent(n);
                    self.pending.drain(..n.min(self.pending.len()));
                }
                Err(Errno::AGAIN) => self.writable = false,
                Err(Errno::INTR) => {}
                // The error itself was told with what came: there it was seen that the other end is gone.
                Err(Errno::PIPE) => return Ok(Some(Errno::CONNRESET)),
                Err(e) => return Ok(Some(e)),
            }
        }
        *news |= moved && self.slot.was_waited_for(w, Side::Sentry);
        let all = self.pending.is_empty() && self.outgoing.available()? == 0;
        if said & (said::FINISHED | said::CLOSED) != 0 && all && !self.finished {
            self.finished = true;
            let _ = rustix::net::shutdown(socket, Shutdown::Write);
        }
        Ok(None)
    }

    /// In. `Some`: why it ended.
    fn receive(
        &mut self,
        w: &Window,
        a: &mut Around,
        news: &mut bool,
        again: &mut Vec<u32>,
    ) -> Result<Option<Errno>, Broken> {
        let Some(socket) = &self.socket else { return Ok(None) };
        let mut turns = 0;
        while self.readable && !self.ended {
            if turns == TURN {
                again.push(self.slot.number());
                break;
            }
            turns += 1;
            let mut room = self.incoming.room()?;
            if room == 0 {
                self.slot.wait_for_room(w, Side::Netd);
                // It may have made room before it could know.
                room = self.incoming.room()?;
                if room == 0 || !self.slot.was_waited_for(w, Side::Netd) {
                    break;
                }
            }
            let most = a.buffer.len().min(room as usize);
            let to = a.buffer.get_mut(..most).unwrap_or_default();
            match rustix::net::recv(socket, to, RecvFlags::empty()) {
                Ok((0, _)) => {
                    self.ended = true;
                    self.told |= told::FINISHED;
                }
                Ok((n, _)) => {
                    a.received(n);
                    let came = a.buffer.get(..n).unwrap_or_default();
                    if self.incoming.put_some(came)? < n {
                        return Err(Broken("a ring has less room than it had"));
                    }
                    *news = true;
                }
                Err(Errno::AGAIN) => self.readable = false,
                Err(Errno::INTR) => {}
                Err(e) => return Ok(Some(e)),
            }
        }
        Ok(None)
    }
}

/// Who has called; `None` where nobody has (`ready` says so then), or he is gone already, or there are too many.
fn accept(socket: &OwnedFd, ready: &mut bool) -> Option<(OwnedFd, Option<SocketAddr>)> {
    match rustix::net::acceptfrom_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
        Ok((socket, from)) => Some((socket, from.and_then(|a| SocketAddr::try_from(a).ok()))),
        Err(e) => {
            *ready &= e != Errno::AGAIN;
            None
        }
    }
}

/// A backlog as the host takes it.
fn waiting(backlog: u32) -> i32 {
    i32::try_from(backlog).unwrap_or(i32::MAX)
}

/// Has a connection be reset when it is closed: one that lingers for no time at all is.
fn reset(socket: &OwnedFd) {
    let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

/// Has a socket behave as asked. What the host refuses stays as it was.
fn tune(socket: &OwnedFd, t: Tuning) {
    let _ = sockopt::set_tcp_nodelay(socket, t.nodelay);
    let _ = sockopt::set_socket_keepalive(socket, t.keepalive > 0);
    if t.keepalive > 0 {
        let _ = sockopt::set_tcp_keepidle(socket, Duration::from_secs(t.keepalive.into()));
    }
    if t.user_timeout > 0 {
        let _ = sockopt::set_tcp_user_timeout(socket, t.user_timeout);
    }
}
