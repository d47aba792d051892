//! User I/O: the container's buffers as sources and sinks of data.
//!
//! File implementations never see a guest address. They get a [`Sink`] to put data into (read) or a [`Source`] to take
//! data from (write); both stand for an I/O vector in the memory of the calling task, or for a buffer of the kernel's own.

use std::sync::Arc;

use cofferdam_platform::Order;

use crate::errno::Errno;
use crate::memory::object::HostWindow;
use crate::task::Task;

/// Copies that are put off in one call.
const LATER_MOST: usize = 32;

/// One element of an I/O vector: an address in the container's memory and a length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoVec {
    /// Start in the container's memory.
    pub base: u64,
    /// Length in bytes.
    pub len: usize,
}

enum Buffer<'a> {
    User { task: &'a Arc<Task>, vecs: Vec<IoVec> },
    Kernel(&'a mut Vec<u8>),
    KernelSource(&'a [u8]),
}

/// Bytes that are worth having the stub copy itself: an order takes a trap, but then the host copies at its own speed.
pub const LARGE: usize = 256 << 10;

/// Copies that the task's own stub is to make, and what must stay as it is until it has.
#[derive(Default)]
pub struct Later {
    /// The orders.
    pub orders: Vec<Order>,
    /// Dropped when they are carried out.
    pub held: Vec<Box<dyn Send>>,
}

/// Where a read puts its data.
pub struct Sink<'a> {
    buffer: Buffer<'a>,
    left: usize,
    done: usize,
    /// Large copies are put off, if there is a place to put them to.
    later: Option<Later>,
}

/// Where a write takes its data from.
pub struct Source<'a> {
    buffer: Buffer<'a>,
    left: usize,
    done: usize,
}

/// Total length of an I/O vector, capped as Linux caps it (`MAX_RW_COUNT`, 2 GiB less a page).
pub fn total(vecs: &[IoVec]) -> usize {
    vecs.iter().fold(0usize, |n, v| n.saturating_add(v.len)).min(0x7fff_f000)
}

/// Address and length of up to `want` bytes at `done` bytes into the vector.
fn piece(vecs: &[IoVec], mut done: usize, want: usize) -> Option<(u64, usize)> {
    for v in vecs {
        if done < v.len {
            return Some((v.base.checked_add(done as u64)?, want.min(v.len - done)));
        }
        done -= v.len;
    }
    None
}

impl<'a> Sink<'a> {
    /// A sink over the calling task's memory.
    pub fn user(task: &'a Arc<Task>, vecs: Vec<IoVec>) -> Self {
        let left = total(&vecs);
        Self { buffer: Buffer::User { task, vecs }, left, done: 0, later: None }
    }

    /// The same, whose large copies may be put off: the caller has [`into_later`](Self::into_later) carried out.
    pub fn user_later(task: &'a Arc<Task>, vecs: Vec<IoVec>) -> Self {
        Self { later: Some(Later::default()), ..Self::user(task, vecs) }
    }

    /// What was put off.
    pub fn into_later(self) -> Later {
        self.later.unwrap_or_default()
    }

    /// Puts off copying a large range of the page cache window at `offset` to private memory, where `held` keeps the range as it
    /// is; how much that is. 0 if it cannot be put off.
    pub fn put_later(&mut self, offset: u64, len: usize, held: impl FnOnce() -> Box<dyn Send>) -> usize {
        let (Buffer::User { task, vecs }, Some(later)) = (&self.buffer, &mut self.later) else { return 0 };
        let Some((address, len)) = piece(vecs, self.done, len.min(self.left)) else { return 0 };
        if len < LARGE || later.orders.len() >= LATER_MOST || !task.mm().private_writable(address, len as u64) {
            return 0;
        }
        let window = crate::memory::space::window_index(HostWindow::Cache, false);
        later.orders.push(Order::Read { window, offset, address, len: len as u64 });
        later.held.push(held());
        self.done += len;
        self.left -= len;
        len
    }

    /// A sink that appends at most `max` bytes to a kernel buffer.
    pub fn kernel(to: &'a mut Vec<u8>, max: usize) -> Self {
        Self { buffer: Buffer::Kernel(to), left: max, done: 0, later: None }
    }

    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        self.left
    }

    /// Puts as much of `data` as fits; how much that was. EFAULT only if not a byte could be written.
    pub fn put(&mut self, data: &[u8]) -> Result<usize, Errno> {
        let mut put = 0;
        while put < data.len() && self.left > 0 {
            let chunk = data.get(put..).unwrap_or_default();
            let n = match &mut self.buffer {
                Buffer::Kernel(v) => {
                    let n = chunk.len().min(self.left);
                    v.extend_from_slice(chunk.get(..n).unwrap_or_default());
                    n
                }
                Buffer::User { task, vecs } => {
                    let Some((at, len)) = piece(vecs, self.done, chunk.len().min(self.left)) else { break };
                    match task.write_memory(at, chunk.get(..len).unwrap_or_default()) {
                        Ok(n) if n == len => n,
                        Ok(n) if put + n > 0 => {
                            self.done += n;
                            self.left = 0;
                            return Ok(put + n);
                        }
                        Ok(_) => return Err(Errno::EFAULT),
                        Err(e) if put == 0 => return Err(e),
                        Err(_) => break,
                    }
                }
                Buffer::KernelSource(_) => return Err(Errno::EINVAL),
            };
            put += n;
            self.done += n;
            self.left -= n;
        }
        Ok(put)
    }

    /// Puts `len` bytes of the host window at `offset` (page cache to container: one copy, no buffer in between).
    pub fn put_window(&mut self, window: &cofferdam_shm::Window, offset: u64, len: usize) -> Result<usize, Errno> {
        let mut put = 0;
        while put < len && self.left > 0 {
            let n = match &mut self.buffer {
                Buffer::Kernel(v) => {
                    let n = (len - put).min(self.left);
                    let old = v.len();
                    v.resize(old + n, 0);
                    let to = v.get_mut(old..).ok_or(Errno::EIO)?;
                    window.read(offset + put as u64, to).map_err(|_| Errno::EIO)?;
                    n
                }
                Buffer::User { task, vecs } => {
                    let Some((at, n)) = piece(vecs, self.done, (len - put).min(self.left)) else { break };
                    match task.write_memory_from(at, window, offset + put as u64, n) {
                        Ok(m) if m == n => n,
                        Ok(m) if put + m > 0 => {
                            self.done += m;
                            self.left = 0;
                            return Ok(put + m);
                        }
                        Ok(_) => return Err(Errno::EFAULT),
                        Err(e) if put == 0 => return Err(e),
                        Err(_) => break,
                    }
                }
                Buffer::KernelSource(_) => return Err(Errno::EINVAL),
            };
            put += n;
            self.done += n;
            self.left -= n;
        }
        Ok(put)
    }
}

impl<'a> Source<'a> {
    /// A source over the calling task's memory.
    pub fn user(task: &'a Arc<Task>, vecs: Vec<IoVec>) -> Self {
        let left = total(&vecs);
        Self { buffer: Buffer::User { task, vecs }, left, done: 0 }
    }

    /// A source over a kernel buffer.
    pub fn kernel(from: &'a [u8]) -> Self {
        Self { left: from.len(), buffer: Buffer::KernelSource(from), done: 0 }
    }

    /// Takes no more than `most` further bytes.
    pub fn limit(&mut self, most: usize) {
        self.left = self.left.min(most);
    }

    /// Bytes not yet taken.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Fills as much of `to` as there is; how much that was. EFAULT only if not a byte could be read.
    pub fn take(&mut self, to: &mut [u8]) -> Result<usize, Errno> {
        let mut took = 0;
        while took < to.len() && self.left > 0 {
            let want = (to.len() - took).min(self.left);
            let rest = to.get_mut(took..).unwrap_or_default();
            let n = match &mut self.buffer {
                Buffer::KernelSource(s) => {
                    let n = want;
                    let from = s.get(self.done..self.done + n).ok_or(Errno::EIO)?;
                    rest.get_mut(..n).ok_or(Errno::EIO)?.copy_from_slice(from);
                    n
                }
                Buffer::User { task, vecs } => {
                    let Some((at, n)) = piece(vecs, self.done, want) else { break };
                    match task.read_memory(at, rest.get_mut(..n).unwrap_or_default()) {
                        Ok(m) if m == n => n,
                        Ok(m) if took + m > 0 => {
                            self.done += m;
                            self.left = 0;
                            return Ok(took + m);
                        }
                        Ok(_) => return Err(Errno::EFAULT),
                        Err(e) if took == 0 => return Err(e),
                        Err(_) => break,
                    }
                }
                Buffer::Kernel(_) => return Err(Errno::EINVAL),
            };
            took += n;
            self.done += n;
            self.left -= n;
        }
        Ok(took)
    }

    /// Takes all that is left, at most `max` bytes, into a new buffer.
    pub fn take_vec(&mut self, max: usize) -> Result<Vec<u8>, Errno> {
        let mut v = vec![0; self.left.min(max)];
        let n = self.take(&mut v)?;
        v.truncate(n);
        Ok(v)
    }

    /// Takes `len` bytes straight into the host window at `offset` (container to page cache, one copy).
    pub fn take_window(&mut self, window: &cofferdam_shm::Window, offset: u64, len: usize) -> Result<usize, Errno> {
        let mut took = 0;
        while took < len && self.left > 0 {
            let n = match &mut self.buffer {
                Buffer::KernelSource(s) => {
                    let n = (len - took).min(self.left);
                    let from = s.get(self.done..self.done + n).ok_or(Errno::EIO)?;
                    window.write(offset + took as u64, from).map_err(|_| Errno::EIO)?;
                    n
                }
                Buffer::User { task, vecs } => {
                    let Some((at, n)) = piece(vecs, self.done, (len - took).min(self.left)) else { break };
                    match task.read_memory_into(at, window, offset + took as u64, n) {
                        Ok(m) if m == n => n,
                        Ok(m) if took + m > 0 => {
                            self.done += m;
                            self.left = 0;
                            return Ok(took + m);
                        }
                        Ok(_) => return Err(Errno::EFAULT),
                        Err(e) if took == 0 => return Err(e),
                        Err(_) => break,
                    }
                }
                Buffer::Kernel(_) => return Err(Errno::EINVAL),
            };
            took += n;
            self.done += n;
            self.left -= n;
        }
        Ok(took)
    }
}
