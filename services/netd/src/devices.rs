//! Packet devices behind the sandbox's sockets: frames go to and from `stack`.
//!
//! Owns which devices are watched for room. Called by `service`.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cofferdam_control::netd::{DOMAIN, NAMES, Place};
use cofferdam_socket::Broken;
use cofferdam_socket::slot::Slot;
use cofferdam_socket::traffic::Traffic;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use crate::asking::ASKED;
use crate::behind::Behind;
use crate::device::LONGEST;
use crate::filter::Filter;
use crate::sentry::Sentry;
use crate::service::BEHIND;
use crate::stack::Stack;

/// Frames of one device that are taken before something else gets its turn.
const TURN: usize = 64;
/// How often the host is asked for numbers, at most.
const OFTEN: Duration = Duration::from_secs(1);

/// The devices, with all that is made of their packets.
#[derive(Debug)]
pub struct Devices {
    stack: Stack,
    epoll: Arc<OwnedFd>,
    buffer: Vec<u8>,
    /// Those whose room is waited for.
    waits: Vec<bool>,
    now: Instant,
    /// When the host was last asked what was lost.
    asked: Instant,
}

impl Devices {
    /// Of a stack and its devices, which are watched from now on. They are so before the walls stand: behind them nothing further is.
    pub fn new(mut stack: Stack, epoll: Arc<OwnedFd>) -> Self {
        stack.connections.asking().0.watch_by(epoll.clone());
        let waits = vec![false; stack.wire.links.len()];
        let now = Instant::now();
        Self { stack, epoll, buffer: vec![0; LONGEST], waits, now, asked: now }
    }

    /// Asks the host what found no room before we took it.
    fn ask_for_lost(&mut self) {
        self.asked = self.now;
        for link in &mut self.stack.wire.links {
            let lost = cofferdam_confine::lost_packets(link.device.as_fd());
            link.traffic.received_lost = link.traffic.received_lost.saturating_add(lost);
        }
    }
}

impl Devices {
    /// Answers of who is asked for names.
    fn answers(&mut self, at: usize, deaf: bool) -> Result<(), Broken> {
        for _ in 0..TURN {
            let Some((head, data)) = self.stack.wire.names.answer(at, &mut self.buffer) else { return Ok(()) };
            if !deaf && !self.stack.connections.sentry.packet(&head, &data)? {
                self.stack.wire.counters.no_room += 1;
            }
        }
        Ok(())
    }
}

impl Behind for Devices {
    fn sentry(&mut self) -> &mut Sentry {
        &mut self.stack.connections.sentry
    }

    fn set_now(&mut self, now: Instant) {
        self.now = now;
        self.stack.wire.set_now(now);
    }

    fn asked(&mut self, slot: Slot) -> Result<(), Broken> {
        let Stack { connections, wire, .. } = &mut self.stack;
        connections.asked(slot, self.now, wire)
    }

    fn send_packets(&mut self) -> Result<bool, Broken> {
        let Stack { connections, wire, .. } = &mut self.stack;
        connections.send_packets(wire)
    }

    fn send_frames(&mut self) -> Result<bool, Broken> {
        self.stack.wire.send_frames()
    }

    /// Frames of a device, or room.
    fn happened(&mut self, which: u64, what: EventFlags, deaf: bool) -> Result<(), Broken> {
        if which >= ASKED {
            let (asking, window, sentry) = self.stack.connections.asking();
            return asking.happened(which, window, sentry);
        }
        let at = usize::try_from(which.saturating_sub(BEHIND)).unwrap_or(usize::MAX);
        if let Some(asked) = at.checked_sub(self.stack.wire.links.len()) {
            return self.answers(asked, deaf);
        }
        if what.contains(EventFlags::OUT)
            && let Some(link) = self.stack.wire.links.get_mut(at)
        {
            link.device.full = false;
        }
        for _ in 0..TURN {
            let Some(link) = self.stack.wire.links.get(at) else { return Ok(()) };
            match link.device.receive(&mut self.buffer) {
                Ok(Some(arrived)) if !deaf => self.stack.frame(at, &self.buffer, arrived)?,
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                // It went down, or is gone: told once, and nothing more comes until it is up.
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), Broken> {
        if self.now.saturating_duration_since(self.asked) > OFTEN {
            self.ask_for_lost();
        }
        self.stack.tick()
    }

    /// Who answers for names.
    fn places(&mut self) -> Vec<(u32, Place)> {
        let at = SocketAddr::new(NAMES, DOMAIN);
        let place = Place { stream: true, at, reuse: false, reuseport: false, only_v6: false };
        self.stack.connections.asking().0.wanted().into_iter().map(|number| (number, place)).collect()
    }

    fn bound(&mut self, number: u32, socket: Result<OwnedFd, i32>) -> Result<(), Broken> {
        let (asking, window, sentry) = self.stack.connections.asking();
        asking.got(number, socket, window, sentry)
    }

    /// Watches for room on the devices that have none, and on no others.
    fn watch(&mut self) -> Result<(), Errno> {
        for ((link, waits), which) in self.stack.wire.links.iter().zip(&mut self.waits).zip(BEHIND..) {
            if link.device.full != *waits {
                *waits = link.device.full;
                let mut what = EventFlags::IN;
                what.set(EventFlags::OUT, *waits);
                epoll::modify(&*self.epoll, &link.device, EventData::new_u64(which), what)?;
            }
        }
        Ok(())
    }

    fn is_busy(&self) -> bool {
        self.stack.connections.is_busy()
    }

    fn next(&self) -> Option<Instant> {
        self.stack.next()
    }

    fn traffic(&self) -> impl Iterator<Item = &Traffic> {
        self.stack.wire.links.iter().map(|l| &l.traffic)
    }

    fn filter(&self) -> &Filter {
        &self.stack.wire.filter
    }

    fn count(&mut self) -> Vec<(String, u64)> {
        self.ask_for_lost();
        let mut all = self.stack.wire.counters.list();
        all.extend(self.stack.connections.count());
        all
    }
}
