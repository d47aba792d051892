//! Signals that are read, `signalfd(2)`.
//!
//! A signalfd holds no signals: whoever reads or polls it sees those that are pending for itself.

use std::any::Any;
use std::cell::RefCell;
use std::sync::Arc;

use crate::errno::Errno;
use crate::filesystems::anon;
use crate::kernel::Kernel;
use crate::signal::{SigInfo, SigSet, code};
use crate::sync::Mutex;
use crate::task::Task;
use crate::uio::Sink;
use crate::vfs::file::{File, FileOps, Io, flags};
use crate::wait::{PollMask, WaitQueue};

/// An open signalfd.
pub struct SignalFd {
    mask: Mutex<SigSet>,
    queue: WaitQueue,
}

thread_local! {
    /// The task whose `poll`, `select` or `epoll` this thread carries out.
    static POLLING: RefCell<Option<Arc<Task>>> = const { RefCell::new(None) };
}

/// Carries out a poll of files for a task: a signalfd then shows what is pending for that one.
pub fn polling_for<R>(task: &Arc<Task>, poll: impl FnOnce() -> R) -> R {
    let before = POLLING.replace(Some(task.clone()));
    let result = poll();
    POLLING.set(before);
    result
}

/// A signalfd for the signals of `mask`.
pub fn signalfd(kernel: &Kernel, mask: SigSet, nonblocking: bool) -> Arc<File> {
    let ops = SignalFd { mask: Mutex::new(mask), queue: kernel.signalled.clone() };
    let open = flags::RDWR | if nonblocking { flags::NONBLOCK } else { 0 };
    anon::file(b"anon_inode:[signalfd]", Box::new(ops), open)
}

impl SignalFd {
    /// Replaces the signals it shows.
    pub fn set_mask(&self, mask: SigSet) {
        *self.mask.lock() = mask;
        self.queue.wake(PollMask::IN);
    }
}

/// `struct signalfd_siginfo`.
fn record(info: &SigInfo) -> [u8; 128] {
    let mut out = [0u8; 128];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(to) = out.get_mut(at..at + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    };
    let field = |at: usize, len: usize| info.fields.get(at..at + len).unwrap_or_default();
    put(0, &info.signo.to_le_bytes());
    put(4, &info.errno.to_le_bytes());
    put(8, &info.code.to_le_bytes());
    let value = |put: &mut dyn FnMut(usize, &[u8])| {
        put(44, field(8, 4));
        put(48, field(8, 8));
    };
    match info.code {
        code::TIMER => {
            put(24, field(0, 4));
            put(32, field(4, 4));
            value(&mut put);
        }
        c if c > 0 && info.signo == crate::signal::sig::CHLD => {
            put(12, field(0, 8));
            put(40, field(8, 4));
            put(56, field(16, 16));
        }
        c if c > 0 && SigSet::SYNCHRONOUS.has(info.signo) => put(72, field(0, 8)),
        c if c > 0 && info.signo == crate::signal::sig::IO => {
            put(28, field(0, 4));
            put(20, field(8, 4));
        }
        c if c < 0 => {
            put(12, field(0, 8));
            value(&mut put);
        }
        _ => put(12, field(0, 8)),
    }
    out
}

impl FileOps for SignalFd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ignores_seeks(&self) -> bool {
        true
    }

    fn read(&self, io: &Io<'_>, _at: u64, to: &mut Sink<'_>) -> Result<usize, Errno> {
        let task = io.task.ok_or(Errno::EINVAL)?;
        if to.room() < 128 {
            return Err(Errno::EINVAL);
        }
        let mask = *self.mask.lock();
        let mut done = 0;
        while to.room() >= 128
            && let Some(info) = task.take_signal(mask, mask)
        {
            match to.put(&record(&info)) {
                Ok(n) => done += n,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        if done == 0 { Err(Errno::EAGAIN) } else { Ok(done) }
    }

    fn poll(&self, _file: &File) -> PollMask {
        let pending = POLLING.with_borrow(|task| task.as_ref().map_or(SigSet(0), |t| t.pending_signals()));
        let ready = pending.0 & self.mask.lock().0 != 0;
        if ready { PollMask::IN | PollMask::RDNORM } else { PollMask::empty() }
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn fdinfo(&self) -> String {
        format!("sigmask:\t{:016x}\n", self.mask.lock().0)
    }
}
