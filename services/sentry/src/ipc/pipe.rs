//! Pipes and FIFOs, `pipe(7)`, `fifo(7)`.
//!
//! The bytes of a pipe lie in one ring; how they fill it is counted as Linux does, in slots of a page: a write adds to the
//! last slot if all of its odd bytes fit there, and takes new slots for the rest. What fits, what a partial write wrote,
//! and when a pipe is full follow from the slots, not from the bytes.

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

/// Bytes of a slot.
const SLOT: usize = PAGE as usize;
/// Capacity of a new pipe, bytes.
const DEFAULT_SIZE: usize = 16 * SLOT;
/// Largest capacity without CAP_SYS_RESOURCE (`fs.pipe-max-size`).
pub const MAX_SIZE: usize = 1 << 20;

/// What lies in one page of a pipe.
#[derive(Clone, Copy)]
struct Slot {
    /// Bytes in it that are not read yet.
    len: usize,
    /// Bytes of the page in use, those already read included.
    end: usize,
    /// Whether a write may add to it.
    open: bool,
    /// Whether a read takes it alone and drops what it had no room for (`O_DIRECT`).
    packet: bool,
}

struct State {
    data: VecDeque<u8>,
    slots: VecDeque<Slot>,
    /// Slots there may be.
    most: usize,
    readers: u32,
    writers: u32,
    /// How many readers and writers ever opened: what an open of a FIFO waits for.
    readers_seen: u64,
    writers_seen: u64,
}

impl State {
    /// Takes `n` bytes off the front.
    fn drop_front(&mut self, mut n: usize) {
        self.data.drain(..n.min(self.data.len()));
        while let Some(first) = self.slots.front_mut() {
            if n < first.len {
                first.len -= n;
                break;
            }
            n -= first.len;
            self.slots.pop_front();
        }
        if self.data.is_empty() && self.data.capacity() > DEFAULT_SIZE {
            self.data = VecDeque::new();
        }
    }

    fn free(&self) -> usize {
        self.most.saturating_sub(self.slots.len())
    }

    /// Bytes of a write of `want` that go into the last slot.
    fn merges(&self, want: usize) -> usize {
        let odd = want % SLOT;
        match self.slots.back() {
            Some(s) if s.open && s.end + odd <= SLOT => odd,
            _ => 0,
        }
    }

    /// Enters bytes: `merged` of them into the last slot, the rest into new ones.
    fn enter(&mut self, data: &[u8], merged: usize, open: bool, packet: bool) {
        self.data.extend(data);
        if let Some(last) = self.slots.back_mut() {
            last.len += merged;
            last.end += merged;
        }
        for chunk in data.get(merged..).unwrap_or_default().chunks(SLOT) {
            self.slots.push_back(Slot { len: chunk.len(), end: chunk.len(), open, packet });
        }
    }
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
            slots: VecDeque::new(),
            most: DEFAULT_SIZE / SLOT,
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
        Box::new(PipeEnd { pipe: self.clone(), read: how.read, write: how.write, seen, waits, quiet_at: 0 })
    }
}

/// One open end of a pipe (or both: a FIFO opened for reading and writing).
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    read: bool,
    write: bool,
    seen: (u64, u64),
    waits: bool,
    /// How many writers there had been when this end was opened without waiting for one: until there is another, that nobody
    /// writes is no hang-up (`poll`). Otherwise 0.
    quiet_at: u64,
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
        let meeting = inode.meeting();
        let mut slot = meeting.fifo.lock();
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
    if nonblocking && end.waits {
        end.waits = false;
        end.quiet_at = end.seen.1;
    }
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
        self.pipe.state.lock().drop_front(n);
        self.pipe.queue.wake(PollMask::OUT | PollMask::WRNORM);
    }

    /// Bytes that a write could put now.
    pub fn room(&self) -> usize {
        self.pipe.state.lock().free() * SLOT
    }

    /// Moves (`take`) or copies up to `len` bytes slot by slot to another pipe (`splice(2)`, `tee(2)`). 0 at the end of a
    /// pipe that nobody writes; EAGAIN if there is nothing to move or no room; EPIPE if nobody reads the other.
    pub fn transfer(&self, to: &PipeEnd, len: usize, take: bool) -> Result<usize, Errno> {
        let (a, b) = (&self.pipe.state, &to.pipe.state);
        // Two pipes are locked in one order, whichever way the bytes go.
        let (mut from, mut into) = if Arc::as_ptr(&self.pipe) < Arc::as_ptr(&to.pipe) {
            let from = a.lock();
            (from, b.lock())
        } else {
            let into = b.lock();
            (a.lock(), into)
        };
        if into.readers == 0 {
            return Err(Errno::EPIPE);
        }
        if len == 0 || (from.slots.is_empty() && from.writers == 0) {
            return Ok(0);
        }
        let mut moved = 0;
        for n in 0..from.slots.len().min(into.free()) {
            let Some(slot) = from.slots.get(n).copied().filter(|_| moved < len) else { break };
            let part = slot.len.min(len - moved);
            let data: Vec<u8> = from.data.range(moved..moved + part).copied().collect();
            into.enter(&data, 0, false, slot.packet);
            moved += part;
        }
        if moved == 0 {
            return Err(Errno::EAGAIN);
        }
        if take {
            from.drop_front(moved);
        }
        drop((from, into));
        to.pipe.queue.wake(PollMask::IN | PollMask::RDNORM);
        if take {
            self.pipe.queue.wake(PollMask::OUT | PollMask::WRNORM);
        }
        Ok(moved)
    }

    /// Enters a chunk of at most a page as a slot of its own (`vmsplice(2)`). EAGAIN if there is no slot, EPIPE if nobody
    /// reads.
    pub fn add_page(&self, from: &mut Source<'_>, len: usize) -> Result<usize, Errno> {
        let mut s = self.pipe.state.lock();
        if s.readers == 0 {
            return Err(Errno::EPIPE);
        }
        if s.free() == 0 {
            return Err(Errno::EAGAIN);
        }
        let data = from.take_vec(len.min(SLOT))?;
        s.enter(&data, 0, false, false);
        drop(s);
        self.pipe.queue.wake(PollMask::IN | PollMask::RDNORM);
        Ok(data.len())
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
        self.pipe.state.lock().most * SLOT
    }

    /// `F_SETPIPE_SZ`; the capacity it got. EBUSY if there is more in it, EPERM above the limit without right.
    pub fn set_capacity(&self, size: usize, privileged: bool) -> Result<usize, Errno> {
        let size = size.max(PAGE as usize).checked_next_power_of_two().ok_or(Errno::EINVAL)?;
        if size > 1 << 30 {
            return Err(Errno::EINVAL);
        }
        let mut s = self.pipe.state.lock();
        if size > MAX_SIZE && size > s.most * SLOT && !privileged {
            return Err(Errno::EPERM);
        }
        if size / SLOT < s.slots.len() {
            return Err(Errno::EBUSY);
        }
        s.most = size / SLOT;
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
        let packet = s.slots.front().filter(|p| p.packet).map(|p| p.len);
        let most = packet.unwrap_or(s.data.len());
        let (a, b) = s.data.as_slices();
        let (a, b) = (a.get(..most).unwrap_or(a), b.get(..most.saturating_sub(a.len())).unwrap_or_default());
        let mut n = to.put(a)?;
        if n == a.len() && !b.is_empty() {
            n += to.put(b).unwrap_or(0);
        }
        s.drop_front(packet.unwrap_or(n));
        drop(s);
        self.pipe.queue.wake(PollMask::OUT | PollMask::WRNORM);
        Ok(n)
    }

    fn write(&self, io: &Io<'_>, _at: u64, _append: bool, from: &mut Source<'_>) -> Result<(usize, u64), Errno> {
        let mut s = self.pipe.state.lock();
        if s.readers == 0 {
            return Err(Errno::EPIPE);
        }
        let want = from.left();
        if want == 0 {
            return Ok((0, 0));
        }
        let packet = io.file.flags() & flags::DIRECT != 0;
        let merged = s.merges(want);
        let fits = (want - merged).min(s.free() * SLOT) + merged;
        if fits == 0 {
            return Err(Errno::EAGAIN);
        }
        let mut data = from.take_vec(fits)?;
        if data.len() < fits {
            // A page that could not be filled is not entered.
            let whole = data.len().checked_sub(merged).map_or(0, |rest| merged + rest - rest % SLOT);
            data.truncate(whole);
            if whole == 0 {
                return Err(Errno::EFAULT);
            }
        }
        s.enter(&data, merged, !packet, packet);
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
            if s.writers == 0 && s.writers_seen != self.quiet_at {
                m |= PollMask::HUP;
            }
        }
        if self.write {
            if s.free() > 0 {
                m |= PollMask::OUT | PollMask::WRNORM;
            }
            if s.readers == 0 {
                m |= PollMask::ERR;
            }
        }
        m
    }

    fn fasync(&self) -> PollMask {
        PollMask::IN | PollMask::OUT
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
    fn a_pipe_is_full_when_its_slots_are() {
        let (r, w) = pipe(&Creds::root(0), 0);
        let write = |n: usize| w.write(None, &mut Source::kernel(&vec![0; n]));
        assert_eq!(write(65_000), Ok(65_000));
        assert_eq!(write(4096), Err(Errno::EAGAIN));
        assert_eq!(write(537), Err(Errno::EAGAIN));
        // The odd bytes of a big write go into the last slot only if all of them fit.
        assert_eq!(write(4096 + 536), Ok(536));
        assert_eq!(read(&r, 4095).unwrap().len(), 4095);
        assert_eq!(write(1), Err(Errno::EAGAIN));
        read(&r, 1).unwrap();
        assert_eq!(write(5000), Ok(4096));
        drop(r);
        assert_eq!(write(1), Err(Errno::EPIPE));
    }

    #[test]
    fn packets_are_read_one_by_one() {
        let (r, w) = pipe(&Creds::root(0), flags::DIRECT);
        for data in ["ab", "cdef"] {
            w.write(None, &mut Source::kernel(data.as_bytes())).unwrap();
        }
        assert_eq!(read(&r, 10).unwrap(), b"ab");
        assert_eq!(read(&r, 1).unwrap(), b"c");
        assert_eq!(read(&r, 1), Err(Errno::EAGAIN));
    }
}
