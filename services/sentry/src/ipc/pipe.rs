//! Pipes and FIFOs, `pipe(7)`, `fifo(7)`.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::errno::Errno;
use crate::filesystems::anon::{AnonInode, Family};
use crate::memory::store::PAGE;
use crate::sync::Mutex;
use crate::syscalls::{SysResult, UserPtr, done};
use crate::task::{Creds, Task};
use crate::uio::{Sink, Source};
use crate::vfs::file::{File, FileOps, Io, flags};
use crate::vfs::inode::{InodeRef, OpenHow, mode};
use crate::wait::{PollMask, WaitQueue};

/// Writes of at most this many bytes are not interleaved with others.
pub const PIPE_BUF: usize = 4096;
/// Capacity of a new pipe, bytes.
const DEFAULT_SIZE: usize = 65_536;
/// Largest capacity without CAP_SYS_RESOURCE (`fs.pipe-max-size`).
pub const MAX_SIZE: usize = 1 << 20;

struct State {
    data: VecDeque<u8>,
    capacity: usize,
    readers: u32,
    writers: u32,
    /// How many readers and writers ever opened: what an open of a FIFO waits for.
    readers_seen: u64,
    writers_seen: u64,
}

/// A pipe.
pub struct Pipe {
    state: Mutex<State>,
    queue: WaitQueue,
}

impl Pipe {
    fn new() -> Arc<Self> {
        let state = State {
            data: VecDeque::new(),
            capacity: DEFAULT_SIZE,
            readers: 0,
            writers: 0,
            readers_seen: 0,
            writers_seen: 0,
        };
        Arc::new(Self { state: Mutex::new(state), queue: WaitQueue::new() })
    }

    fn end(self: &Arc<Self>, how: OpenHow, fifo: bool) -> Box<PipeEnd> {
        let mut s = self.state.lock();
        if how.read {
            s.readers += 1;
            s.readers_seen += 1;
        }
        if how.write {
            s.writers += 1;
            s.writers_seen += 1;
        }
        let seen = (s.readers_seen, s.writers_seen);
        let waits = fifo && ((how.read && !how.write && s.writers == 0) || (how.write && !how.read && s.readers == 0));
        drop(s);
        self.queue.wake(PollMask::empty());
        Box::new(PipeEnd { pipe: self.clone(), read: how.read, write: how.write, seen, waits })
    }
}

/// One open end of a pipe (or both: a FIFO opened for reading and writing).
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    read: bool,
    write: bool,
    seen: (u64, u64),
    waits: bool,
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let mut s = self.pipe.state.lock();
        s.readers -= u32::from(self.read);
        s.writers -= u32::from(self.write);
        drop(s);
        self.pipe.queue.wake(PollMask::empty());
    }
}

/// Makes a pipe: the reading and the writing end.
pub fn pipe(creds: &Creds, open_flags: i32) -> (Arc<File>, Arc<File>) {
    let pipe = Pipe::new();
    let again = Arc::downgrade(&pipe);
    let reopen = Box::new(move |_: &crate::vfs::Caller<'_>, how: OpenHow| -> Result<Box<dyn FileOps>, Errno> {
        Ok(again.upgrade().ok_or(Errno::ENXIO)?.end(how, false))
    });
    let inode = AnonInode::make(Family::Pipe.dev(), mode::FIFO | 0o600, creds.fsuid, creds.fsgid, Some(reopen));
    let name = format!("pipe:[{}]", inode.attr().map(|a| a.ino).unwrap_or(0));
    let end = |write: bool| {
        let how = OpenHow { flags: open_flags, read: !write, write };
        let f = open_flags | if write { flags::WRONLY } else { flags::RDONLY };
        File::new(Family::Pipe.place(inode.clone(), name.as_bytes()), pipe.end(how, false), f)
    };
    (end(false), end(true))
}

/// Opens one side of a FIFO. ENXIO for a writer that would not wait and finds no reader.
pub fn open_fifo(inode: &InodeRef, how: OpenHow) -> Result<Box<dyn FileOps>, Errno> {
    // A pipe reached through /proc/PID/fd is no FIFO of a file system: its inode knows how to open it again.
    if inode.as_any().is::<AnonInode>() {
        return inode.clone().open(&crate::vfs::Caller::nobody(), how);
    }
    let pipe = {
        let mut slot = inode.common().fifo.lock();
        let old = slot.as_ref().and_then(std::sync::Weak::upgrade).and_then(|p| p.downcast::<Pipe>().ok());
        match old {
            Some(p) => p,
            None => {
                let p = Pipe::new();
                let shared: Arc<dyn Any + Send + Sync> = p.clone();
                *slot = Some(Arc::downgrade(&shared));
                p
            }
        }
    };
    let nonblocking = how.flags & flags::NONBLOCK != 0;
    if nonblocking && how.write && !how.read && pipe.state.lock().readers == 0 {
        return Err(Errno::ENXIO);
    }
    let mut end = pipe.end(how, true);
    end.waits &= !nonblocking;
    Ok(end)
}

impl PipeEnd {
    /// Whether an open of a FIFO still waits for the other side.
    pub fn waits_for_peer(&self) -> bool {
        if !self.waits {
            return false;
        }
        let s = self.pipe.state.lock();
        if self.read { s.writers_seen == self.seen.1 } else { s.readers_seen == self.seen.0 }
    }

    /// Bytes that can be read now.
    pub fn available(&self) -> usize {
        self.pipe.state.lock().data.len()
    }

    /// Copies up to `max` readable bytes without taking them (`tee(2)`, `splice(2)`).
    pub fn peek(&self, max: usize) -> Vec<u8> {
        self.pipe.state.lock().data.iter().take(max).copied().collect()
    }

    /// Takes bytes that were peeked.
    pub fn consume(&self, n: usize) {
        let mut s = self.pipe.state.lock();
        let n = n.min(s.data.len());
        s.data.drain(..n);
        drop(s);
        self.pipe.queue.wake(PollMask::OUT | PollMask::WRNORM);
    }

    /// Bytes that a write could put now.
    pub fn room(&self) -> usize {
        let s = self.pipe.state.lock();
        s.capacity.saturating_sub(s.data.len())
    }

    /// Whether there is anybody who could still write.
    pub fn has_writers(&self) -> bool {
        self.pipe.state.lock().writers > 0
    }

    /// Whether two ends are of one pipe.
    pub fn same_pipe(&self, other: &PipeEnd) -> bool {
        Arc::ptr_eq(&self.pipe, &other.pipe)
    }

    /// `F_GETPIPE_SZ`.
    pub fn capacity(&self) -> usize {
        self.pipe.state.lock().capacity
    }

    /// `F_SETPIPE_SZ`; the capacity it got. EBUSY if there is more in it, EPERM above the limit without right.
    pub fn set_capacity(&self, size: usize, privileged: bool) -> Result<usize, Errno> {
        let size = size.max(PAGE as usize).checked_next_power_of_two().ok_or(Errno::EINVAL)?;
        if size > 1 << 30 {
            return Err(Errno::EINVAL);
        }
        let mut s = self.pipe.state.lock();
        if size > MAX_SIZE && size > s.capacity && !privileged {
            return Err(Errno::EPERM);
        }
        if size < s.data.len() {
            return Err(Errno::EBUSY);
        }
        s.capacity = size;
        drop(s);
        self.pipe.queue.wake(PollMask::OUT | PollMask::WRNORM);
        Ok(size)
    }
}

impl FileOps for PipeEnd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        false
    }

    fn read(&self, _io: &Io<'_>, _at: u64, to: &mut Sink<'_>) -> Result<usize, Errno> {
        if to.room() == 0 {
            return Ok(0);
        }
        let mut s = self.pipe.state.lock();
        if s.data.is_empty() {
            return if s.writers == 0 { Ok(0) } else { Err(Errno::EAGAIN) };
        }
        let (a, b) = s.data.as_slices();
        let mut n = to.put(a)?;
        if n == a.len() && !b.is_empty() {
            n += to.put(b).unwrap_or(0);
        }
        s.data.drain(..n);
        if s.data.is_empty() && s.data.capacity() > DEFAULT_SIZE {
            s.data = VecDeque::new();
        }
        drop(s);
        self.pipe.queue.wake(PollMask::OUT | PollMask::WRNORM);
        Ok(n)
    }

    fn write(&self, _io: &Io<'_>, _at: u64, _append: bool, from: &mut Source<'_>) -> Result<(usize, u64), Errno> {
        let mut s = self.pipe.state.lock();
        if s.readers == 0 {
            return Err(Errno::EPIPE);
        }
        let want = from.left();
        if want == 0 {
            return Ok((0, 0));
        }
        let free = s.capacity.saturating_sub(s.data.len());
        if free == 0 || (want <= PIPE_BUF && free < want) {
            return Err(Errno::EAGAIN);
        }
        let data = from.take_vec(free)?;
        s.data.extend(&data);
        drop(s);
        self.pipe.queue.wake(PollMask::IN | PollMask::RDNORM);
        Ok((data.len(), 0))
    }

    fn poll(&self, _file: &File) -> PollMask {
        let s = self.pipe.state.lock();
        let mut m = PollMask::empty();
        if self.read {
            if !s.data.is_empty() {
                m |= PollMask::IN | PollMask::RDNORM;
            }
            if s.writers == 0 && (s.writers_seen > 0 || !self.waits) {
                m |= PollMask::HUP;
            }
        }
        if self.write {
            if s.capacity - s.data.len().min(s.capacity) >= PIPE_BUF {
                m |= PollMask::OUT | PollMask::WRNORM;
            }
            if s.readers == 0 {
                m |= PollMask::ERR;
            }
        }
        m
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.pipe.queue)
    }

    fn ioctl(&self, task: &Arc<Task>, _file: &Arc<File>, request: u32, argument: u64) -> SysResult {
        match request {
            super::FIONREAD => {
                let n = i32::try_from(self.available()).unwrap_or(i32::MAX);
                UserPtr::<i32>::new(argument).write(task, &n)?;
                done()
            }
            _ => Err(Errno::ENOTTY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(f: &File, n: usize) -> Result<Vec<u8>, Errno> {
        let mut v = Vec::new();
        f.read(None, &mut Sink::kernel(&mut v, n))?;
        Ok(v)
    }

    #[test]
    fn bytes_go_through_and_the_end_is_seen() {
        let (r, w) = pipe(&Creds::root(0), 0);
        assert_eq!(read(&r, 10), Err(Errno::EAGAIN));
        assert_eq!(w.write(None, &mut Source::kernel(b"hello")), Ok(5));
        assert_eq!(r.poll(), PollMask::IN | PollMask::RDNORM);
        assert_eq!(read(&r, 2).unwrap(), b"he");
        assert_eq!(w.read(None, &mut Sink::kernel(&mut Vec::new(), 1)), Err(Errno::EBADF));
        drop(w);
        assert_eq!(read(&r, 9).unwrap(), b"llo");
        assert_eq!(read(&r, 9).unwrap(), b"");
        assert_eq!(r.poll(), PollMask::HUP);
    }

    #[test]
    fn small_writes_are_whole_and_a_pipe_without_reader_is_broken() {
        let (r, w) = pipe(&Creds::root(0), 0);
        assert_eq!(w.write(None, &mut Source::kernel(&[0; 65_000])), Ok(65_000));
        assert_eq!(w.write(None, &mut Source::kernel(&[0; 4096])), Err(Errno::EAGAIN));
        assert_eq!(w.write(None, &mut Source::kernel(&[0; 5000])), Ok(536));
        drop(r);
        assert_eq!(w.write(None, &mut Source::kernel(b"x")), Err(Errno::EPIPE));
    }
}
