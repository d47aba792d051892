//! Timers that are read, `timerfd_create(2)`.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use crate::errno::Errno;
use crate::filesystems::anon;
use crate::interval::{Base, IntervalTimer};
use crate::kernel::Kernel;
use crate::time::{Clock, NS};
use crate::uio::Sink;
use crate::vfs::file::{File, FileOps, Io, flags};
use crate::wait::{PollMask, WaitQueue};

/// An open timer.
pub struct TimerFd {
    timer: Arc<IntervalTimer>,
    /// Expiries that were not read yet.
    ticks: Arc<AtomicU64>,
    queue: WaitQueue,
    clock_id: i32,
    options: AtomicI32,
}

/// A timer on `clock` (its number `clock_id`) that is off.
pub fn timerfd(kernel: &Arc<Kernel>, clock: Clock, clock_id: i32, nonblocking: bool) -> Arc<File> {
    let (ticks, queue) = (Arc::<AtomicU64>::default(), WaitQueue::new());
    let (count, wakes) = (ticks.clone(), queue.clone());
    let timer = IntervalTimer::new(&kernel.timers, Base::Clock(clock), move |times| {
        count.fetch_add(times, Ordering::AcqRel);
        wakes.wake(PollMask::IN | PollMask::RDNORM);
    });
    let ops = TimerFd { timer, ticks, queue, clock_id, options: AtomicI32::new(0) };
    let open = flags::RDWR | if nonblocking { flags::NONBLOCK } else { 0 };
    anon::file(b"anon_inode:[timerfd]", Box::new(ops), open)
}

impl TimerFd {
    /// Sets it, as [`IntervalTimer::set`]; expiries not read are forgotten.
    pub fn set(&self, value: i64, interval: i64, absolute: bool, options: i32) -> (i64, i64) {
        let old = self.timer.get();
        self.timer.set(0, 0, false);
        self.ticks.store(0, Ordering::Release);
        self.options.store(options, Ordering::Relaxed);
        self.timer.set(value, interval, absolute);
        old
    }

    /// What is left, and the interval.
    pub fn get(&self) -> (i64, i64) {
        self.timer.get()
    }
}

impl FileOps for TimerFd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ignores_seeks(&self) -> bool {
        true
    }

    fn read(&self, _io: &Io<'_>, _at: u64, to: &mut Sink<'_>) -> Result<usize, Errno> {
        if to.room() < 8 {
            return Err(Errno::EINVAL);
        }
        self.timer.look();
        match self.ticks.swap(0, Ordering::AcqRel) {
            0 => Err(Errno::EAGAIN),
            ticks => to.put(&ticks.to_le_bytes()),
        }
    }

    fn poll(&self, _file: &File) -> PollMask {
        let ready = self.ticks.load(Ordering::Acquire) > 0;
        if ready { PollMask::IN | PollMask::RDNORM } else { PollMask::empty() }
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn fdinfo(&self) -> String {
        let (left, interval) = self.timer.get();
        let time = |ns: i64| format!("({}, {})", ns / NS, ns % NS);
        format!(
            "clockid: {}\nticks: {}\nsettime flags: 0{:o}\nit_value: {}\nit_interval: {}\n",
            self.clock_id,
            self.ticks.load(Ordering::Acquire),
            self.options.load(Ordering::Relaxed),
            time(left),
            time(interval)
        )
    }
}
