//! Who listens where.
//!
//! Owns the listeners and the table by address and port. A lookup is two hash lookups and an index. Called by `engine`.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::keyed::{Key, Secret};
use crate::slab::Slab;
use crate::{Bind, Error, ListenerId, Tuning};

#[derive(Debug)]
pub(crate) struct Listener {
    bind: Bind,
    port: u16,
    pub(crate) backlog: usize,
    /// Handed over and not accepted by the program.
    pub(crate) pending: usize,
    /// Established and not handed over.
    pub(crate) queued: usize,
    pub(crate) half_open: usize,
    /// Of these, those whose peer did not answer within a second.
    pub(crate) stale: usize,
    /// Until when a cookie may come back.
    pub(crate) cookies: u64,
    pub(crate) tuning: Tuning,
}

impl Listener {
    /// Whether the program is behind with accepting.
    pub(crate) fn full(&self) -> bool {
        self.pending.saturating_add(self.queued) > self.backlog
    }

    /// Whether no further handshake can be remembered.
    pub(crate) fn busy(&self) -> bool {
        self.pending.saturating_add(self.queued).saturating_add(self.half_open) > self.backlog
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Where {
    At(IpAddr),
    Any4,
    Any6,
}

#[derive(Debug)]
pub(crate) struct Listeners {
    all: Slab<Listener>,
    table: HashMap<(Where, u16), Vec<u32>>,
    secret: Secret,
    limit: usize,
}

impl Listeners {
    pub(crate) fn new(secret: Secret, limit: usize) -> Self {
        Listeners { all: Slab::new(), table: HashMap::new(), secret, limit }
    }

    fn places(bind: Bind) -> impl Iterator<Item = Where> {
        let (one, other) = match bind {
            Bind::To(ip) => (Where::At(ip.to_canonical()), None),
            Bind::V4 => (Where::Any4, None),
            Bind::V6 => (Where::Any6, None),
            Bind::Both => (Where::Any4, Some(Where::Any6)),
        };
        [Some(one), other].into_iter().flatten()
    }

    pub(crate) fn add(&mut self, bind: Bind, port: u16, backlog: usize, tuning: Tuning) -> Result<ListenerId, Error> {
        if port == 0 || matches!(bind, Bind::To(ip) if ip.is_unspecified() || ip.is_multicast()) {
            return Err(Error::Address);
        }
        if self.all.len() >= self.limit {
            return Err(Error::Full);
        }
        let listener =
            Listener { bind, port, backlog, pending: 0, queued: 0, half_open: 0, stale: 0, cookies: 0, tuning };
        let (index, generation) = self.all.insert(listener);
        for place in Self::places(bind) {
            self.table.entry((place, port)).or_default().push(index);
        }
        Ok(ListenerId { index, generation })
    }

    pub(crate) fn remove(&mut self, id: ListenerId) -> bool {
        if !self.all.is(id.index, id.generation) {
            return false;
        }
        let Some(listener) = self.all.remove(id.index) else { return false };
        for place in Self::places(listener.bind) {
            if let Some(list) = self.table.get_mut(&(place, listener.port)) {
                list.retain(|&i| i != id.index);
                if list.is_empty() {
                    self.table.remove(&(place, listener.port));
                }
            }
        }
        true
    }

    pub(crate) fn get_mut(&mut self, id: ListenerId) -> Option<&mut Listener> {
        if self.all.is(id.index, id.generation) { self.all.get_mut(id.index) } else { None }
    }

    pub(crate) fn get(&self, id: ListenerId) -> Option<&Listener> {
        if self.all.is(id.index, id.generation) { self.all.get(id.index) } else { None }
    }

    /// Who listens for this peer. Of several with one address and port (SO_REUSEPORT) the peer's address chooses.
    pub(crate) fn find(&self, key: &Key) -> Option<ListenerId> {
        let (local, _) = key.flow();
        let any = if local.is_ipv4() { Where::Any4 } else { Where::Any6 };
        let list = [Where::At(local.ip()), any].into_iter().find_map(|place| self.table.get(&(place, local.port())))?;
        let index = match list.as_slice() {
            [one] => *one,
            several => {
                let chosen = self.secret.hash(&key.words()).checked_rem(several.len() as u64)?;
                *several.get(chosen as usize)?
            }
        };
        Some(ListenerId { index, generation: self.all.generation(index) })
    }
}
