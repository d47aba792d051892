//! Reading streams: what is joined and what is not, and the urgent byte (`MSG_OOB`).
//!
//! As on Linux the urgent byte waits in the queue like any other, in a message of its own, and is known for what it is as long as no
//! later one takes its place. A read stops in front of it; one that begins there passes it by, unless `SO_OOBINLINE`. What is left of
//! one that was received by itself is an empty message, which marks its place until it is passed. Called by `unix` with its state
//! locked.

use super::{Message, Received, State, garbage};
use crate::errno::Errno;
use crate::uio::Sink;

impl Message {
    /// Bytes not read yet.
    fn rest(&self) -> &[u8] {
        self.data.get(self.read..).unwrap_or_default()
    }
}

impl State {
    fn is_urgent(&self, at: usize) -> bool {
        self.urgent.is_some() && self.messages.get(at).map(|m| m.id) == self.urgent
    }

    fn is_empty_at(&self, at: usize) -> bool {
        self.messages.get(at).is_some_and(|m| m.rest().is_empty())
    }

    /// Whether the next byte is at the mark (`SIOCATMARK`).
    pub(super) fn at_mark(&self) -> bool {
        self.is_urgent(0) || (self.is_empty_at(0) && (self.urgent.is_none() || self.is_urgent(1)))
    }

    fn take_out(&mut self, at: usize, dropped: &mut Vec<Message>) {
        if let Some(m) = self.messages.remove(at) {
            self.bytes -= m.rest().len().min(self.bytes);
            dropped.push(m);
        }
    }

    /// Where a read goes on that comes to the message at `at`, past the mark if there is one; `None` if it ends there. `copied`: it has
    /// got something already.
    fn pass_mark(&mut self, mut at: usize, peek: bool, copied: bool, dropped: &mut Vec<Message>) -> Option<usize> {
        if self.is_empty_at(at) {
            if copied && (self.urgent.is_none() || self.is_urgent(at)) {
                return None;
            }
            if peek {
                at += 1;
            } else {
                self.take_out(at, dropped);
            }
        }
        let inline = self.options.switch(super::OOBINLINE);
        if self.is_urgent(at) {
            if copied {
                return None;
            }
            match (peek, inline) {
                (true, true) => {}
                (true, false) => at += 1,
                (false, true) => self.urgent = None,
                (false, false) => {
                    self.urgent = None;
                    self.take_out(at, dropped);
                }
            }
        }
        (at < self.messages.len()).then_some(at)
    }

    /// Receives bytes of a stream into `got`, nothing if there are none. `already`: the call has got some before. What was used up goes to
    /// `dropped`, which is dropped with no lock held.
    pub(super) fn read_stream(
        &mut self,
        to: &mut Sink<'_>,
        peek: bool,
        already: bool,
        mut skip: usize,
        dropped: &mut Vec<Message>,
    ) -> Result<Option<Received>, Errno> {
        let told = self.tells_senders();
        let mut got: Option<Received> = None;
        let mut next = 0;
        while next < self.messages.len() {
            let copied = already || got.is_some();
            let Some(mut at) = self.pass_mark(next, peek, copied, dropped) else {
                if let Some(got) = &mut got {
                    got.stopped = true;
                } else if already {
                    got = Some(Received { stopped: true, ..Received::default() });
                }
                break;
            };
            // Where a peek begins, and past what is left of urgent bytes.
            while let Some(len) = self.messages.get(at).map(|m| m.rest().len()).filter(|len| skip >= *len) {
                skip -= len;
                at += 1;
            }
            let Some(m) = self.messages.get_mut(at) else { break };
            // What others sent is not joined to what came before, if it matters who sent it.
            if told && got.as_ref().is_some_and(|g| g.ancillary.creds != m.ancillary.creds) {
                break;
            }
            let rest = m.rest().get(skip..).unwrap_or_default();
            let (n, whole) = match to.put(rest) {
                Ok(n) => (n, n == rest.len()),
                Err(e) if got.is_none() => return Err(e),
                Err(_) => break,
            };
            skip = 0;
            let got = got.get_or_insert_default();
            got.count += n;
            got.length += n;
            let files = if peek {
                garbage::copy(&m.ancillary.files)
            } else {
                m.read += n;
                m.ancillary.flight = None;
                std::mem::take(&mut m.ancillary.files)
            };
            (got.ancillary.creds, got.ancillary.process) = (m.ancillary.creds, m.ancillary.process.clone());
            got.from.clone_from(&m.from);
            // Descriptors end what is received at once.
            let last = !files.is_empty();
            got.ancillary.files = files;
            if !peek {
                self.bytes -= n.min(self.bytes);
                self.told -= n.min(self.told);
                if whole {
                    self.take_out(at, dropped);
                }
            }
            if !whole || to.room() == 0 || last {
                break;
            }
            next = if peek { at + 1 } else { 0 };
        }
        Ok(got)
    }

    /// Receives the urgent byte by itself (`MSG_OOB`); EINVAL if there is none, or it comes with the others.
    pub(super) fn read_urgent(
        &mut self,
        to: &mut Sink<'_>,
        peek: bool,
        dropped: &mut Vec<Message>,
    ) -> Result<Received, Errno> {
        let inline = self.options.switch(super::OOBINLINE);
        let at = (0..self.messages.len()).find(|at| self.is_urgent(*at)).filter(|_| !inline).ok_or(Errno::EINVAL)?;
        let byte: Vec<u8> = self.messages.get(at).map(|m| m.rest().to_vec()).unwrap_or_default();
        if !peek {
            self.urgent = None;
            if let Some(m) = self.messages.get_mut(at) {
                m.read = m.data.len();
            }
            self.bytes -= byte.len().min(self.bytes);
            self.told -= byte.len().min(self.told);
            // Of two empty messages in a row the later one marks the place.
            if let Some(before) = at.checked_sub(1).filter(|b| self.is_empty_at(*b)) {
                self.take_out(before, dropped);
            }
        }
        // Without room for it, it is lost and counts all the same.
        if to.room() > 0 {
            to.put(&byte)?;
        }
        Ok(Received { count: 1, length: 1, urgent: true, ..Received::default() })
    }
}
