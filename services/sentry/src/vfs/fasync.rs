//! Signal-driven I/O: an open file with `O_ASYNC` sends its owner a signal when there is something to do (`fcntl(2)`).
//!
//! Owned here: who is woken by the file's queue for that, and what is told. Whose signal it is (`F_SETOWN`, `F_SETSIG`) is the file's;
//! which events a kind of file tells of says [`FileOps::fasync`](crate::vfs::file::FileOps::fasync). Called by `fcntl` and `ioctl`.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use crate::kernel::Kernel;
use crate::signal::{SigInfo, code, send, sig};
use crate::task::Task;
use crate::vfs::file::{File, flags};
use crate::wait::{PollMask, Registration, Wake, push_work};

/// `si_code` and `si_band`.
const POLL_IN: (i32, u32) = (1, 0x41);
const POLL_OUT: (i32, u32) = (2, 0x304);
const POLL_HUP: (i32, u32) = (6, 0x18);

/// What waits in a file's queue to tell of it.
pub struct Teller {
    file: Weak<File>,
    kernel: Weak<Kernel>,
    me: Weak<Self>,
    /// The descriptor through which it was asked for.
    fd: i32,
    queued: AtomicBool,
    /// What happened that was not told of yet; and whether something did that has no name.
    events: AtomicU32,
    other: AtomicBool,
}

/// A teller in its file's place in the queue.
pub type Told = (Arc<Teller>, Registration);

impl Wake for Teller {
    fn wake(&self, events: PollMask) {
        if events.is_empty() {
            self.other.store(true, Ordering::Relaxed);
        }
        self.events.fetch_or(events.bits(), Ordering::Relaxed);
        if !self.queued.swap(true, Ordering::AcqRel)
            && let Some(me) = self.me.upgrade()
        {
            push_work(Box::new(move || me.tell()));
        }
    }
}

impl Teller {
    fn tell(&self) {
        self.queued.store(false, Ordering::Release);
        let events = PollMask::from_bits_truncate(self.events.swap(0, Ordering::Relaxed));
        let other = self.other.swap(false, Ordering::Relaxed);
        let (Some(file), Some(kernel)) = (self.file.upgrade(), self.kernel.upgrade()) else { return };
        if file.flags() & flags::ASYNC == 0 {
            return;
        }
        let tells = file.ops().fasync();
        let state = file.poll();
        let now = if other { state } else { PollMask::empty() };
        if tells.contains(PollMask::IN) && file.readable() {
            // A terminal is woken by each key, and has something to read with a line.
            if events.contains(PollMask::IN) && state.contains(PollMask::IN) {
                tell_owner(&kernel, &file, POLL_IN, self.fd);
            } else if now.contains(PollMask::HUP) {
                let why = if tells.contains(PollMask::HUP) { POLL_HUP } else { POLL_IN };
                tell_owner(&kernel, &file, why, self.fd);
            } else if now.contains(PollMask::RDHUP) {
                tell_owner(&kernel, &file, POLL_IN, self.fd);
            }
        }
        let out = events.contains(PollMask::OUT) || now.contains(PollMask::ERR);
        if tells.contains(PollMask::OUT) && file.writable() && out {
            tell_owner(&kernel, &file, POLL_OUT, self.fd);
        }
    }
}

/// Tells a file's owner, as it wants to be told: why (`si_code` and `si_band`), and of which descriptor.
pub(super) fn tell_owner(kernel: &Arc<Kernel>, file: &File, (reason, band): (i32, u32), fd: i32) {
    let info = match file.owner.lock().signal {
        0 => SigInfo::new(sig::IO, code::KERNEL),
        chosen => SigInfo::poll(chosen, reason, band, fd),
    };
    send::to_owner(kernel, file, info);
}

/// Has a file tell its owner from now on, or not any more; false if it is of a kind that never does.
pub fn set(task: &Task, file: &Arc<File>, fd: i32, on: bool) -> bool {
    let queue = file.ops().queue().filter(|_| !file.ops().fasync().is_empty());
    let Some(queue) = queue else { return false };
    let new = on.then(|| {
        let teller = Arc::new_cyclic(|me| Teller {
            file: Arc::downgrade(file),
            kernel: Arc::downgrade(task.kernel()),
            me: me.clone(),
            fd,
            queued: AtomicBool::new(false),
            events: AtomicU32::new(0),
            other: AtomicBool::new(false),
        });
        let target: Arc<dyn Wake> = teller.clone();
        let registration = queue.register(target, PollMask::empty());
        (teller, registration)
    });
    let old = std::mem::replace(&mut *file.told.lock(), new);
    drop(old);
    file.set_async(on);
    true
}
