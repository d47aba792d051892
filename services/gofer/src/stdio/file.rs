//! One descriptor of a container's stdio: read and written without blocking the runtime.
//!
//! Pipes take RWF_NOWAIT, sockets MSG_DONTWAIT; both are exact. Regular files never wait. A terminal knows no way to ask
//! for "now or not at all" but O_NONBLOCK, which is not ours to set: reading goes by poll(2) first (only another reader
//! of the same terminal could get in between), writing by poll(2) and then on one of a few threads of its own ([`Writers`]),
//! because a terminal that says "writable" may still have less room than asked. A supervisor that opens the terminal
//! itself should open it O_NONBLOCK: then no thread is needed.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use cofferdam_ninep::Errno;
use cofferdam_ninep::codec::{Attr, AttrMask, Qid, QidKind, Time};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, FileType, OFlags, StatxFlags};
use rustix::io::{Errno as Host, ReadWriteFlags};
use rustix::net::{RecvFlags, SendFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{CURRENT, Writers};

/// Most bytes that a pipe takes without waiting once poll(2) says it is writable (PIPE_BUF).
const PIPE_BUF: usize = 4096;

/// How a descriptor is asked not to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Regular,
    Pipe,
    Socket,
    Terminal,
    /// Other devices (/dev/null), anything else.
    Other,
}

#[derive(Debug)]
struct Shared(Arc<OwnedFd>);

impl AsRawFd for Shared {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// A descriptor and how to wait for it.
#[derive(Debug)]
pub struct StdioFile {
    fd: Arc<OwnedFd>,
    kind: Kind,
    /// The one way in which it may be opened, if there is only one.
    access: Option<OFlags>,
    nonblocking: bool,
    /// None where the host cannot wait for it (regular files): always ready.
    waiter: Option<AsyncFd<Shared>>,
    writers: Writers,
}

fn poll_now(fd: BorrowedFd<'_>, events: PollFlags) -> Result<bool, Errno> {
    let mut fds = [PollFd::from_borrowed_fd(fd, events)];
    match rustix::event::poll(&mut fds, Some(&Timespec::default())) {
        Ok(n) => Ok(n > 0),
        Err(Host::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// read(2) and pread(2) in one call (preadv2(2): offset -1 is the description's own position).
fn read(fd: BorrowedFd<'_>, to: &mut [u8], offset: u64, flags: ReadWriteFlags) -> rustix::io::Result<usize> {
    rustix::io::preadv2(fd, &mut [IoSliceMut::new(to)], offset, flags)
}

impl StdioFile {
    /// Takes a descriptor. Inside the runtime only. `strict`: it may be opened only as it is; of the usual three more is asked
    /// than they may allow, and what they do not allow fails when it is done.
    pub fn new(fd: OwnedFd, writers: Writers, strict: bool) -> Result<Self, Errno> {
        let stat = rustix::fs::statx(&fd, "", AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)?;
        let kind = match FileType::from_raw_mode(u32::from(stat.stx_mode)) {
            FileType::RegularFile => Kind::Regular,
            FileType::Fifo => Kind::Pipe,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice if rustix::termios::isatty(&fd) => Kind::Terminal,
            FileType::Directory | FileType::Symlink => return Err(Errno::INVAL),
            _ => Kind::Other,
        };
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        if flags.contains(OFlags::PATH) {
            return Err(Errno::BADF);
        }
        let fd = Arc::new(fd);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let waiter = match crate::watch::watch(Shared(fd.clone()), interest) {
            Ok(waiter) => Some(waiter),
            Err(e) => match e.raw_os_error() {
                // epoll_ctl(2): the file supports no waiting.
                Some(1) => None,
                Some(e) => return Err(Errno(e.unsigned_abs())),
                None => return Err(Errno::IO),
            },
        };
        let access = strict.then_some(flags & OFlags::RWMODE);
        Ok(Self { fd, kind, access, nonblocking: flags.contains(OFlags::NONBLOCK), waiter, writers })
    }

    /// EACCES if it may not be opened with these flags of open(2).
    pub fn may_open(&self, flags: u32) -> Result<(), Errno> {
        let asked = OFlags::from_bits_retain(flags) & OFlags::RWMODE;
        if self.access.is_none_or(|own| own == asked) { Ok(()) } else { Err(Errno::ACCES) }
    }

    /// Attributes.
    pub fn attr(&self) -> Result<Attr, Errno> {
        let s =
            rustix::fs::statx(&self.fd, "", AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
        let time = |t: rustix::fs::StatxTimestamp| Time { sec: t.tv_sec.cast_unsigned(), nsec: u64::from(t.tv_nsec) };
        Ok(Attr {
            valid: AttrMask::BASIC,
            qid: Qid { kind: QidKind::FILE, version: 0, path: s.stx_ino },
            mode: u32::from(s.stx_mode),
            uid: s.stx_uid,
            gid: s.stx_gid,
            nlink: u64::from(s.stx_nlink),
            rdev: rustix::fs::makedev(s.stx_rdev_major, s.stx_rdev_minor),
            size: s.stx_size,
            blksize: u64::from(s.stx_blksize),
            blocks: s.stx_blocks,
            atime: time(s.stx_atime),
            mtime: time(s.stx_mtime),
            ctime: time(s.stx_ctime),
            ..Attr::default()
        })
    }

    /// Rows and columns, where it is a terminal.
    pub fn tty_size(&self) -> Option<(u16, u16)> {
        if self.kind != Kind::Terminal {
            return None;
        }
        rustix::termios::tcgetwinsize(&self.fd).ok().map(|w| (w.ws_row, w.ws_col))
    }

    /// Reads at most `count` bytes, waiting as long as it takes; EIO from a terminal that hung up. Dropping the future loses no data: what is read is read
    /// in its last step.
    pub async fn read(&self, offset: u64, count: u32) -> Result<Vec<u8>, Errno> {
        let mut buffer = vec![0; count as usize];
        let got = loop {
            let Some(waiter) = &self.waiter else { break self.try_read(offset, &mut buffer)? };
            let mut ready = waiter.readable().await.map_err(|_| Errno::IO)?;
            match self.try_read(offset, &mut buffer) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                other => break other?,
            }
        };
        buffer.truncate(got);
        // A terminal that hung up ends every read, one whose user typed ^D before it was raw only this.
        if got == 0 && count > 0 && self.kind == Kind::Terminal && self.tty_size().is_none() {
            return Err(Errno::IO);
        }
        Ok(buffer)
    }

    fn try_read(&self, offset: u64, to: &mut [u8]) -> Result<usize, Errno> {
        let fd = self.fd.as_fd();
        let polled = |to: &mut [u8]| -> Result<usize, Errno> {
            if !self.nonblocking && self.waiter.is_some() && !poll_now(fd, PollFlags::IN)? {
                return Err(Errno::AGAIN);
            }
            Ok(read(fd, to, CURRENT, ReadWriteFlags::empty())?)
        };
        let result = match self.kind {
            Kind::Regular if offset != CURRENT => read(fd, to, offset, ReadWriteFlags::empty()),
            Kind::Pipe if !self.nonblocking => {
                match read(fd, to, CURRENT, ReadWriteFlags::NOWAIT) {
                    // Named pipes, and any pipe before Linux 6.4.
                    Err(Host::OPNOTSUPP) => return polled(to),
                    other => other,
                }
            }
            Kind::Socket => rustix::net::recv(fd, to, RecvFlags::DONTWAIT).map(|(_, n)| n),
            _ => return polled(to),
        };
        match result {
            Err(Host::INTR) => Err(Errno::AGAIN),
            other => other.map_err(Errno::from),
        }
    }

    /// Writes some of `data`, waiting until some can be written.
    pub async fn write(&self, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        loop {
            let Some(waiter) = &self.waiter else { return self.try_write(offset, data) };
            let mut ready = waiter.writable().await.map_err(|_| Errno::IO)?;
            let result = if self.kind == Kind::Terminal && !self.nonblocking {
                if poll_now(self.fd.as_fd(), PollFlags::OUT)? {
                    let (fd, data) = (self.fd.clone(), data.to_vec());
                    self.writers.write(fd, data).await.map(|n| n as u32)
                } else {
                    Err(Errno::AGAIN)
                }
            } else {
                self.try_write(offset, data)
            };
            match result {
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                other => return other,
            }
        }
    }

    fn try_write(&self, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        let fd = self.fd.as_fd();
        let polled = |data: &[u8]| -> Result<u32, Errno> {
            if !self.nonblocking && self.waiter.is_some() && !poll_now(fd, PollFlags::OUT)? {
                return Err(Errno::AGAIN);
            }
            Ok(rustix::io::write(fd, data)? as u32)
        };
        let result = match self.kind {
            Kind::Regular if offset != CURRENT => {
                rustix::io::pwritev2(fd, &[IoSlice::new(data)], offset, ReadWriteFlags::empty())
            }
            Kind::Pipe if !self.nonblocking => {
                match rustix::io::pwritev2(fd, &[IoSlice::new(data)], CURRENT, ReadWriteFlags::NOWAIT) {
                    Err(Host::OPNOTSUPP) => return polled(data.get(..PIPE_BUF).unwrap_or(data)),
                    other => other,
                }
            }
            Kind::Socket => rustix::net::send(fd, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            _ => return polled(data),
        };
        result.map(|n| n as u32).map_err(Errno::from)
    }
}
