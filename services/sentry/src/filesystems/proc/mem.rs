//! `/proc/PID/mem`: a process's memory as a file, for debuggers. Written to also where the process itself may not write, while
//! one of its threads is stopped by its tracer (`task::ptrace::memory`). It belongs to the program that ran when it was opened.

use std::any::Any;
use std::sync::{Arc, Weak};

use crate::errno::Errno;
use crate::memory::AddressSpace;
use crate::sync::Mutex;
use crate::task::Task;
use crate::task::ptrace::memory::{Poke, Written};
use crate::uio::{Sink, Source};
use crate::vfs::file::{File, FileOps, Io, Whence};
use crate::wait::{PollMask, WaitQueue};

/// Bytes read or written at a time.
const PIECE: usize = 64 << 10;

/// A write under way.
struct Writing {
    at: u64,
    data: Vec<u8>,
    poke: Arc<Poke>,
}

/// The open file.
pub(super) struct MemFile {
    task: Weak<Task>,
    mm: Weak<AddressSpace>,
    writing: Mutex<Option<Writing>>,
    queue: WaitQueue,
}

impl MemFile {
    pub(super) fn new(task: &Arc<Task>) -> Self {
        let mm = Arc::downgrade(&task.mm());
        Self { task: Arc::downgrade(task), mm, writing: Mutex::default(), queue: WaitQueue::new() }
    }

    /// The task, if it still runs the program.
    fn task(&self) -> Option<Arc<Task>> {
        let task = self.task.upgrade()?;
        self.mm.upgrade().is_some_and(|mm| Arc::ptr_eq(&mm, &task.mm())).then_some(task)
    }

    /// What became of the same write when it was tried before.
    fn again(&self, at: u64, data: &[u8]) -> Option<Result<(), Errno>> {
        let mut writing = self.writing.lock();
        let before = writing.as_ref().filter(|w| w.at == at && w.data == data)?;
        let result = before.poke.result();
        if result.is_some() {
            *writing = None;
        }
        Some(result.unwrap_or(Err(Errno::EAGAIN)))
    }
}

impl FileOps for MemFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _: &Io<'_>, at: u64, to: &mut Sink<'_>) -> Result<usize, Errno> {
        let Some(task) = self.task() else { return Ok(0) };
        task.has_memory()?;
        let mut done = 0usize;
        while to.room() > 0 {
            let mut piece = vec![0; to.room().min(PIECE)];
            let from = at.checked_add(done as u64).ok_or(Errno::EIO)?;
            let n = match task.peek(from, &mut piece) {
                Ok(n) => to.put(piece.get(..n).unwrap_or_default())?,
                Err(_) if done > 0 => return Ok(done),
                Err(_) => return Err(Errno::EIO),
            };
            done += n;
            if n < piece.len() {
                break;
            }
        }
        Ok(done)
    }

    fn write(&self, _: &Io<'_>, at: u64, _append: bool, from: &mut Source<'_>) -> Result<(usize, u64), Errno> {
        let Some(task) = self.task() else { return Ok((0, at)) };
        task.has_memory()?;
        let data = from.take_vec(PIECE)?;
        let (len, end) = (data.len(), at.saturating_add(data.len() as u64));
        if let Some(result) = self.again(at, &data) {
            return result.map(|()| (len, end));
        }
        match task.poke(at, data.clone(), &self.queue)? {
            Written::Done => Ok((len, end)),
            Written::Later(poke) => {
                *self.writing.lock() = Some(Writing { at, data: data.clone(), poke });
                // It may be done by now.
                self.again(at, &data).unwrap_or(Err(Errno::EAGAIN)).map(|()| (len, end))
            }
        }
    }

    fn poll(&self, _: &File) -> PollMask {
        PollMask::IN | PollMask::OUT | PollMask::RDNORM | PollMask::WRNORM
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn most(&self) -> u64 {
        u64::MAX
    }

    fn seek(&self, _: &File, offset: u64, whence: Whence) -> Result<u64, Errno> {
        match whence {
            Whence::End | Whence::Data | Whence::Hole => Err(Errno::EINVAL),
            Whence::Set | Whence::Current => Ok(offset),
        }
    }
}
