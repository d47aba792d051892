//! System V message queues, `msgget(2)`, `msgsnd(2)`, `msgrcv(2)`, `msgctl(2)`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Get, Perm, Raw, Which, seconds};
use crate::errno::Errno;
use crate::namespaces::{IpcNamespace, PidNamespace};
use crate::sync::Mutex;
use crate::task::Creds;
use crate::task::creds::cap;
use crate::wait::{PollMask, WaitQueue};

/// Most queues (`msgmni`). Linux takes 32,000 where there is memory; what they hold here, the Sentry's memory holds.
pub const MOST: usize = 2000;
/// Most bytes of a message (`msgmax`).
pub const MESSAGE_MAX: usize = 8192;
/// Bytes that a queue takes unless told otherwise (`msgmnb`).
pub const QUEUE_BYTES: u64 = 16384;

/// What all queues of a sandbox hold together: memory of the Sentry, which Linux does not bound beyond each queue's bytes. ENOMEM.
const ALL_BYTES: u64 = 64 << 20;
/// What a message costs beside its text.
const MESSAGE_COST: u64 = 64;

/// Bytes that messages hold now.
#[derive(Debug, Default)]
pub struct Held(AtomicU64);

impl Held {
    fn take(&self, bytes: u64) -> Result<(), Errno> {
        let fits = |held: u64| held.checked_add(bytes).filter(|all| *all <= ALL_BYTES);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map(|_| ()).map_err(|_| Errno::ENOMEM)
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its type, at least 1.
    pub kind: i64,
    /// Its text.
    pub text: Vec<u8>,
}

impl Message {
    fn cost(&self) -> u64 {
        self.text.len() as u64 + MESSAGE_COST
    }
}

/// Which message to take.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// The first.
    Any,
    /// The first of a type.
    Of(i64),
    /// The first of another type (`MSG_EXCEPT`).
    Except(i64),
    /// The first of the lowest type up to this.
    UpTo(i64),
    /// A copy of the one at a place (`MSG_COPY`).
    Copy(usize),
}

#[derive(Debug, Default)]
struct Inner {
    messages: VecDeque<Message>,
    bytes: u64,
    limit: u64,
    removed: bool,
    sent: i64,
    received: i64,
    changed: i64,
    sender: i32,
    receiver: i32,
}

/// A queue.
#[derive(Default)]
pub struct Queue {
    inner: Mutex<Inner>,
    held: Arc<Held>,
    /// Woken when a message came or went.
    pub queue: WaitQueue,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Queue {
    fn new(held: Arc<Held>, limit: u64) -> Self {
        let inner = Inner { limit, changed: seconds(), ..Inner::default() };
        Self { inner: Mutex::new(inner), held, queue: WaitQueue::new() }
    }

    fn gives_back(&self, messages: &[Message]) {
        let bytes: u64 = messages.iter().map(Message::cost).sum();
        self.held.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Adds a message of a process; false if there is no room now. EIDRM once the queue is removed.
    pub fn send(&self, message: &Message, pid: i32) -> Result<bool, Errno> {
        {
            let mut inner = self.inner.lock();
            if inner.removed {
                return Err(Errno::EIDRM);
            }
            let bytes = inner.bytes + message.text.len() as u64;
            if bytes > inner.limit || inner.messages.len() as u64 >= inner.limit {
                return Ok(false);
            }
            self.held.take(message.cost())?;
            inner.bytes = bytes;
            inner.messages.push_back(message.clone());
            (inner.sender, inner.sent) = (pid, seconds());
        }
        self.queue.wake(PollMask::IN);
        Ok(true)
    }

    /// Takes a message; `None` if there is none now. E2BIG if it is longer than `most` and may not be cut, EIDRM.
    pub fn receive(&self, wanted: Wanted, most: usize, cut: bool, pid: i32) -> Result<Option<Message>, Errno> {
        let mut message = {
            let mut inner = self.inner.lock();
            if inner.removed {
                return Err(Errno::EIDRM);
            }
            let kinds = || inner.messages.iter().map(|m| m.kind);
            let at = match wanted {
                Wanted::Any => (!inner.messages.is_empty()).then_some(0),
                Wanted::Of(kind) => kinds().position(|k| k == kind),
                Wanted::Except(kind) => kinds().position(|k| k != kind),
                Wanted::UpTo(kind) => {
                    let lowest = kinds().filter(|k| *k <= kind).min();
                    lowest.and_then(|lowest| kinds().position(|k| k == lowest))
                }
                Wanted::Copy(place) => Some(place).filter(|p| *p < inner.messages.len()),
            };
            let Some(at) = at else { return Ok(None) };
            let Some(message) = inner.messages.get(at) else { return Ok(None) };
            if message.text.len() > most && !cut {
                return Err(Errno::E2BIG);
            }
            if matches!(wanted, Wanted::Copy(_)) {
                message.clone()
            } else {
                let Some(message) = inner.messages.remove(at) else { return Ok(None) };
                inner.bytes -= message.text.len() as u64;
                (inner.receiver, inner.received) = (pid, seconds());
                drop(inner);
                self.gives_back(std::slice::from_ref(&message));
                self.queue.wake(PollMask::OUT);
                message
            }
        };
        message.text.truncate(most);
        Ok(Some(message))
    }
}

/// `msgget(2)`.
pub fn get(get: Get<'_>) -> Result<i32, Errno> {
    let ns = get.namespace;
    let limit = ns.sysv.limits.queue.load(Ordering::Relaxed) as u64;
    ns.sysv.msg.lock().find_or_make(get, |_| Ok(()), |_| Ok(Arc::new(Queue::new(ns.sysv.messages.clone(), limit))))
}

/// The queue of an identifier, with permission to `want`.
pub fn queue(ns: &IpcNamespace, creds: &Creds, id: i32, want: i32) -> Result<Arc<Queue>, Errno> {
    Ok(ns.sysv.msg.lock().permitted(id, ns, creds, want)?.item.clone())
}

/// `struct msqid64_ds`: see [`super::shm::stat`].
pub fn stat((ns, pids): (&IpcNamespace, &PidNamespace), creds: &Creds, which: Which) -> Result<(i32, Raw), Errno> {
    let mut ids = ns.sysv.msg.lock();
    let (id, slot) = ids.shown(which, ns, creds)?;
    let q = slot.item.inner.lock();
    let raw = Raw::of(&slot.perm, creds).time(q.sent).time(q.received).time(q.changed).word(q.bytes);
    let raw = raw.word(q.messages.len() as u64).word(q.limit);
    Ok((
        id,
        raw.word32(pids.shown(q.sender).cast_unsigned()).word32(pids.shown(q.receiver).cast_unsigned()).word(0).word(0),
    ))
}

/// `IPC_SET`: also how many bytes the queue takes, beyond `msgmnb` only with CAP_SYS_RESOURCE (EPERM).
pub fn change(ns: &IpcNamespace, creds: &Creds, id: i32, raw: &Raw) -> Result<(), Errno> {
    let queue = {
        let mut ids = ns.sysv.msg.lock();
        let slot = ids.owned(id, ns, creds)?;
        let limit = raw.u64(88);
        if limit > ns.sysv.limits.queue.load(Ordering::Relaxed) as u64 && !creds.capable(cap::SYS_RESOURCE) {
            return Err(Errno::EPERM);
        }
        slot.perm.set(creds, raw)?;
        let mut inner = slot.item.inner.lock();
        (inner.limit, inner.changed) = (limit, seconds());
        slot.item.clone()
    };
    // There may be room now, and whoever waits may have lost the right to.
    queue.queue.wake_all();
    Ok(())
}

/// `IPC_RMID`: whoever waits gets EIDRM.
pub fn remove(ns: &IpcNamespace, creds: &Creds, id: i32) -> Result<(), Errno> {
    let slot = {
        let mut ids = ns.sysv.msg.lock();
        ids.owned(id, ns, creds)?;
        ids.remove(id).ok_or(Errno::EINVAL)?
    };
    let gone = {
        let mut inner = slot.item.inner.lock();
        inner.removed = true;
        std::mem::take(&mut inner.messages)
    };
    slot.item.gives_back(&Vec::from(gone));
    slot.item.queue.wake_all();
    Ok(())
}

/// How many queues, messages and bytes there are, and the highest place in use.
pub fn totals(ns: &IpcNamespace) -> (usize, usize, u64, i64) {
    let ids = ns.sysv.msg.lock();
    let (mut messages, mut bytes) = (0, 0);
    for (_, slot) in ids.all() {
        let q = slot.item.inner.lock();
        messages += q.messages.len();
        bytes += q.bytes;
    }
    (ids.len(), messages, bytes, ids.highest())
}

/// `/proc/sysvipc/msg`.
pub fn table((ns, pids): (&IpcNamespace, &PidNamespace), creds: &Creds) -> String {
    use std::fmt::Write;
    let mut out = String::from(
        "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      \
         ctime\n",
    );
    for (id, slot) in ns.sysv.msg.lock().all() {
        let (p, q): (&Perm, _) = (&slot.perm, slot.item.inner.lock());
        let [uid, gid, cuid, cgid] = p.shown(creds);
        writeln!(
            out,
            "{:>10} {id:>10}  {:>4o}  {:>10} {:>10} {:>5} {:>5} {:>5} {:>5} {:>5} {:>5} {:>10} {:>10} {:>10}",
            p.key,
            p.mode,
            q.bytes,
            q.messages.len(),
            pids.shown(q.sender),
            pids.shown(q.receiver),
            uid,
            gid,
            cuid,
            cgid,
            q.sent,
            q.received,
            q.changed
        )
        .ok();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: i64, text: &str) -> Message {
        Message { kind, text: text.into() }
    }

    #[test]
    fn messages_are_taken_by_type() {
        let q = Queue::new(Arc::default(), QUEUE_BYTES);
        for (kind, text) in [(3, "three"), (1, "one"), (2, "two"), (1, "one more")] {
            assert!(q.send(&message(kind, text), 1).unwrap());
        }
        let take = |wanted| q.receive(wanted, 100, false, 2).unwrap().map(|m| String::from_utf8(m.text).unwrap());
        assert_eq!(take(Wanted::Copy(1)).as_deref(), Some("one"));
        assert_eq!(take(Wanted::UpTo(2)).as_deref(), Some("one"));
        assert_eq!(take(Wanted::Except(3)).as_deref(), Some("two"));
        assert_eq!(take(Wanted::Of(7)), None);
        assert_eq!(q.receive(Wanted::Any, 3, false, 2), Err(Errno::E2BIG));
        assert_eq!(q.receive(Wanted::Any, 3, true, 2).unwrap(), Some(message(3, "thr")));
        assert_eq!(take(Wanted::Any).as_deref(), Some("one more"));
        assert_eq!(take(Wanted::Any), None);
        // Empty messages are bounded by their number.
        let filled = (0..).take_while(|_| q.send(&message(1, ""), 1).unwrap()).count();
        assert_eq!(filled as u64, QUEUE_BYTES);
        assert_eq!(q.held.0.load(Ordering::Relaxed), QUEUE_BYTES * MESSAGE_COST);
    }
}
