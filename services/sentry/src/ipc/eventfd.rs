//! Event counters, `eventfd(2)`.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::errno::Errno;
use crate::filesystems::anon;
use crate::sync::Mutex;
use crate::uio::{Sink, Source};
use crate::vfs::file::{File, FileOps, Io, flags};
use crate::wait::{PollMask, WaitQueue};

/// `EFD_SEMAPHORE`.
pub const SEMAPHORE: i32 = 1;

pub struct EventFd {
    count: Mutex<u64>,
    semaphore: bool,
    queue: WaitQueue,
    /// As `fdinfo` tells it.
    id: u64,
}

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A new counter.
pub fn eventfd(initial: u32, options: i32) -> Arc<File> {
    let ops = EventFd {
        count: Mutex::new(u64::from(initial)),
        semaphore: options & SEMAPHORE != 0,
        queue: WaitQueue::new(),
        id: NEXT.fetch_add(1, Ordering::Relaxed),
    };
    let open = flags::RDWR | (options & flags::NONBLOCK);
    anon::file(b"anon_inode:[eventfd]", Box::new(ops), open)
}

impl FileOps for EventFd {
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
        let value = {
            let mut count = self.count.lock();
            let value = match *count {
                0 => return Err(Errno::EAGAIN),
                _ if self.semaphore => 1,
                n => n,
            };
            *count -= value;
            value
        };
        self.queue.wake(PollMask::OUT | PollMask::WRNORM);
        to.put(&value.to_le_bytes())
    }

    fn write(&self, _io: &Io<'_>, _at: u64, _append: bool, from: &mut Source<'_>) -> Result<(usize, u64), Errno> {
        let mut value = [0; 8];
        if from.left() < 8 || from.take(&mut value)? < 8 {
            return Err(Errno::EINVAL);
        }
        let value = u64::from_le_bytes(value);
        if value == u64::MAX {
            return Err(Errno::EINVAL);
        }
        {
            let mut count = self.count.lock();
            *count = count.checked_add(value).filter(|n| *n < u64::MAX).ok_or(Errno::EAGAIN)?;
        }
        if value > 0 {
            self.queue.wake(PollMask::IN | PollMask::RDNORM);
        }
        Ok((8, 0))
    }

    fn poll(&self, _file: &File) -> PollMask {
        let count = *self.count.lock();
        let mut m = PollMask::empty();
        m.set(PollMask::IN | PollMask::RDNORM, count > 0);
        m.set(PollMask::OUT | PollMask::WRNORM, count < u64::MAX - 1);
        m
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn fdinfo(&self) -> String {
        let (count, semaphore) = (*self.count.lock(), i32::from(self.semaphore));
        format!("eventfd-count: {count:16x}\neventfd-id: {}\neventfd-semaphore: {semaphore}\n", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_adds_up_and_a_semaphore_gives_one() {
        for (options, expect) in [(0, 5u64), (SEMAPHORE, 1)] {
            let f = eventfd(2, options);
            f.write(None, &mut Source::kernel(&3u64.to_le_bytes())).unwrap();
            let mut v = Vec::new();
            f.read(None, &mut Sink::kernel(&mut v, 8)).unwrap();
            assert_eq!(v, expect.to_le_bytes());
            let full = f.write(None, &mut Source::kernel(&(u64::MAX - 1).to_le_bytes()));
            assert_eq!(full.is_ok(), options == 0);
        }
        let f = eventfd(0, 0);
        assert_eq!(f.read(None, &mut Sink::kernel(&mut Vec::new(), 8)), Err(Errno::EAGAIN));
        assert_eq!(f.read(None, &mut Sink::kernel(&mut Vec::new(), 7)), Err(Errno::EINVAL));
    }
}
