//! Connections of the sandbox's to who answers for names in its network namespace (Docker, at 127.0.0.11): what is too long for a datagram is asked so.
//!
//! netd makes none: it asks the supervisor for one that is made, for each that the sandbox begins, and passes on what either side says. Whatever is asked,
//! it leads to that one place. Bounded in number. Called by `connections` and `devices`.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use cofferdam_socket::ring::{Consumer, Producer};
use cofferdam_socket::slot::{Slot, said, told};
use cofferdam_socket::{Broken, Side, Window};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::sentry::Sentry;

/// What their sockets are watched as, by their slots.
pub const ASKED: u64 = 1 << 32;
/// How many there may be, and how many sockets may be asked for at a time.
const MOST: usize = 16;
/// Bytes that are moved at a time, and how often before something else gets its turn.
const PIECE: usize = 4096;
const TURN: usize = 64;

#[derive(Debug)]
struct Stream {
    slot: Slot,
    /// For the supervisor's answer.
    request: u32,
    /// Until that comes there is none.
    socket: Option<OwnedFd>,
    outgoing: Consumer,
    incoming: Producer,
    /// What was taken out of the ring and had no room in the socket.
    pending: Vec<u8>,
    /// It had something when last tried.
    readable: bool,
    /// Nothing more comes.
    ended: bool,
    told: u32,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Asking {
    epoll: Option<Arc<OwnedFd>>,
    streams: HashMap<u32, Stream>,
    /// Those that a socket is to be asked for.
    wanted: Vec<u32>,
    requests: u32,
    /// Those that no answer came to yet.
    unanswered: usize,
    /// Slots that are to be looked at once more.
    again: Vec<u32>,
}

impl Asking {
    /// From now on there may be some, watched by this.
    pub fn watch_by(&mut self, epoll: Arc<OwnedFd>) {
        self.epoll = Some(epoll);
    }

    /// Whether a slot is one of them.
    pub fn has(&self, number: u32) -> bool {
        self.streams.contains_key(&number)
    }

    /// Whether there is something to do at once.
    pub fn is_busy(&self) -> bool {
        !self.again.is_empty()
    }

    /// Requests for sockets, with their numbers.
    pub fn wanted(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.wanted)
    }

    /// A slot begins one.
    pub fn begin(&mut self, slot: Slot, window: &Arc<Window>) -> Result<(), Errno> {
        if self.epoll.is_none() || self.streams.len() >= MOST || self.unanswered >= MOST {
            return Err(Errno::CONNREFUSED);
        }
        self.requests = self.requests.wrapping_add(1);
        self.unanswered += 1;
        self.wanted.push(self.requests);
        let (incoming, outgoing) = slot.rings(window, Side::Netd);
        let stream = Stream {
            slot,
            request: self.requests,
            socket: None,
            outgoing,
            incoming,
            pending: Vec::new(),
            readable: false,
            ended: false,
            told: 0,
        };
        self.streams.insert(slot.number(), stream);
        Ok(())
    }

    /// The supervisor's answer: a socket that is connected, or a number of an error. One that nobody waits for any more is closed.
    pub fn got(
        &mut self,
        request: u32,
        socket: Result<OwnedFd, i32>,
        window: &Window,
        sentry: &mut Sentry,
    ) -> Result<(), Broken> {
        self.unanswered = self.unanswered.saturating_sub(1);
        let Some(stream) = self.streams.values_mut().find(|s| s.request == request && s.socket.is_none()) else {
            return Ok(());
        };
        let number = stream.slot.number();
        let watched = socket.map_err(Errno::from_raw_os_error).and_then(|socket| {
            let what = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            let epoll = self.epoll.as_ref().ok_or(Errno::CONNREFUSED)?;
            epoll::add(&**epoll, socket.as_fd(), EventData::new_u64(ASKED | u64::from(number)), what)?;
            Ok(socket)
        });
        match watched {
            Ok(socket) => {
                (stream.socket, stream.readable) = (Some(socket), true);
                self.pump(number, window, sentry)
            }
            Err(why) => self.over(number, Some(why), window, sentry),
        }
    }

    /// Something has happened to one's socket.
    pub fn happened(&mut self, which: u64, window: &Window, sentry: &mut Sentry) -> Result<(), Broken> {
        let number = (which & u64::from(u32::MAX)) as u32;
        if let Some(stream) = self.streams.get_mut(&number) {
            stream.readable = true;
        }
        self.pump(number, window, sentry)
    }

    /// Goes on with what had no turn.
    pub fn work(&mut self, window: &Window, sentry: &mut Sentry) -> Result<(), Broken> {
        std::mem::take(&mut self.again).into_iter().try_for_each(|number| self.pump(number, window, sentry))
    }

    /// Moves what can be moved of one.
    pub fn pump(&mut self, number: u32, window: &Window, sentry: &mut Sentry) -> Result<(), Broken> {
        let Some(s) = self.streams.get_mut(&number) else { return Ok(()) };
        let said = s.slot.said(window);
        if said & said::CLOSED != 0 {
            // Who has closed it hears no answer: nothing is asked any more.
            return self.over(number, None, window, sentry);
        }
        let Some(socket) = s.socket.as_ref() else { return Ok(()) };
        let mut news = false;
        let mut buffer = [0; PIECE];
        for turn in 0.. {
            if s.pending.is_empty() {
                let n = s.outgoing.take(&mut buffer)?;
                s.pending.extend_from_slice(buffer.get(..n).unwrap_or_default());
                news |= n > 0 && s.slot.was_waited_for(window, Side::Sentry);
            }
            if s.pending.is_empty() {
                break;
            }
            match rustix::net::send(socket, &s.pending, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(n) => drop(s.pending.drain(..n.min(s.pending.len()))),
                Err(Errno::AGAIN) => break,
                Err(why) => return self.over(number, Some(why), window, sentry),
            }
            if turn == TURN {
                self.again.push(number);
                break;
            }
        }
        while s.readable && !s.ended {
            let room = (s.incoming.room()? as usize).min(PIECE);
            if room == 0 {
                s.slot.wait_for_room(window, Side::Netd);
                // It may have made room before it could know.
                if s.incoming.room()? > 0 && s.slot.was_waited_for(window, Side::Netd) {
                    self.again.push(number);
                }
                break;
            }
            let piece = buffer.get_mut(..room).unwrap_or_default();
            match rustix::net::recv(socket, piece, RecvFlags::DONTWAIT) {
                Ok((0, _)) => s.ended = true,
                Ok((n, _)) => {
                    s.incoming.put_some(buffer.get(..n).unwrap_or_default())?;
                    news = true;
                }
                Err(Errno::AGAIN) => s.readable = false,
                Err(why) => return self.over(number, Some(why), window, sentry),
            }
        }
        let told = told::CONNECTED | if s.ended { told::FINISHED } else { 0 };
        if told != s.told {
            s.told = told;
            s.slot.tell(window, told);
            news = true;
        }
        if news { sentry.tell(&s.slot) } else { Ok(()) }
    }

    /// One is over: by an error, or as the Sentry has done with it.
    fn over(&mut self, number: u32, why: Option<Errno>, window: &Window, sentry: &mut Sentry) -> Result<(), Broken> {
        let Some(stream) = self.streams.remove(&number) else { return Ok(()) };
        match why {
            Some(why) => {
                stream.slot.set_error(window, why.raw_os_error());
                stream.slot.tell(window, stream.told | told::FAILED | told::OVER | told::RELEASED);
            }
            None => stream.slot.release(window),
        }
        sentry.tell(&stream.slot)
    }
}
