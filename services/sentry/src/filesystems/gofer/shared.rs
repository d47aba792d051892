//! Files of an export that the host changes, too: reads and writes without a cache, and mapped pages kept in step.
//!
//! What is read comes from the host each time, and what is written goes there at once; what is appended is put at the end of the
//! file by the host. Only mapped files have pages, which are copies. Whenever a mapped file is opened, read, written, synchronised,
//! or faulted on, it is compared with what it was when they were filled; if it is another now they are filled anew where they
//! lie, so that every mapping shows it. Not in step: what a mapping showed before any of that happens; what the host writes through
//! a mapping of its own, until its kernel notes that in the file's times; and a file that is mapped shared and writable here: its
//! pages are the container's until that mapping is gone, and are written back over what the host wrote meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::errno::Errno;
use crate::filesystems::gofer::pages::{Filling, Pages, pages_of};
use crate::filesystems::gofer::{GoferInode, errno, stream};
use crate::memory::store::PAGE;
use crate::sync::Mutex;
use crate::uio::{Sink, Source};
use crate::vfs::inode::{Attr, Inode, file_time};

/// Changes that come closer together than this may leave a file's times as they are: the host's clock for them ticks every ten
/// milliseconds at worst.
const TICK: i64 = 20_000_000;
/// Bytes that are filled anew by one message at most.
const FILL_MAX: u64 = 1 << 20;
/// How often a file is asked for anew that others keep changing.
const TRIES: usize = 4;
/// Files that may have been cut and not looked after yet.
const CUT_MOST: usize = 4096;

/// Mapped files that the host made shorter, by device and inode number, and their sizes now.
static CUT: Mutex<Vec<((u64, u64), u64)>> = Mutex::new(Vec::new());
static ANY_CUT: AtomicBool = AtomicBool::new(false);

/// The mapped files that were found shorter than before since this was last asked: what lies beyond their ends is to be unmapped.
pub fn cut_by_host() -> Vec<((u64, u64), u64)> {
    if !ANY_CUT.load(Ordering::Relaxed) || !ANY_CUT.swap(false, Ordering::AcqRel) {
        return Vec::new();
    }
    std::mem::take(&mut *CUT.lock())
}

/// What tells whether a file is as it was.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    size: u64,
    mtime: i64,
    ctime: i64,
    /// It was changed so shortly before that a later change may not show.
    fresh: bool,
}

impl Stamp {
    pub fn of(a: &Attr) -> Self {
        let fresh = file_time().saturating_sub(a.mtime.max(a.ctime)) < TICK;
        Self { size: a.size, mtime: a.mtime, ctime: a.ctime, fresh }
    }

    fn is_still(&self, now: &Stamp) -> bool {
        !self.fresh && (self.size, self.mtime, self.ctime) == (now.size, now.mtime, now.ctime)
    }
}

impl Pages {
    /// Reads from the host.
    pub fn read_through(&self, inode: &GoferInode, at: u64, to: &mut Sink<'_>) -> Result<usize, Errno> {
        let fid = self.reader(inode)?;
        let window = inode.fs.cache.window();
        let mut p = at;
        while to.room() > 0 {
            let want = (to.room() as u64).min(stream::PIECE).min(i64::MAX.cast_unsigned().saturating_sub(p));
            if want == 0 {
                break;
            }
            let buffer = self.held.buffer(&inode.fs.cache)?;
            let filled = inode.client().fill(&fid, p, u32::try_from(want).map_err(|_| Errno::EIO)?, buffer.at());
            let put = filled.map_err(errno).and_then(|n| Ok((n, to.put_window(window, buffer.at(), n as usize)?)));
            self.held.keep_buffer(buffer);
            match put {
                Ok((n, put)) => {
                    p += put as u64;
                    if put < n as usize || u64::from(n) < want {
                        break;
                    }
                }
                Err(e) if p == at => return Err(e),
                Err(_) => break,
            }
        }
        Ok((p - at) as usize)
    }

    /// Writes to the host, and to pages that are mapped; how much, and the position after it.
    pub fn write_through(
        &self,
        inode: &GoferInode,
        at: u64,
        append: bool,
        from: &mut Source<'_>,
    ) -> Result<(usize, u64), Errno> {
        let _write = self.write.lock();
        let _in_use = self.in_use.read();
        let writer = inode.open.lock().writer.clone().ok_or(Errno::EBADF)?;
        // One that got `O_APPEND` after it was opened, and after the host moved it: at what is the end now.
        let appender = if append { self.appender(inode).ok() } else { None };
        let at = if append { inode.attr()?.size } else { at };
        let append = appender.is_some();
        let fid = appender.unwrap_or(writer);
        at.checked_add(from.left() as u64).filter(|e| i64::try_from(*e).is_ok()).ok_or(Errno::EFBIG)?;
        self.validate(inode)?;
        let window = inode.fs.cache.window();
        let (mut p, mut done, mut failed) = (at, 0usize, None);
        while from.left() > 0 && failed.is_none() {
            let buffer = self.held.buffer(&inode.fs.cache)?;
            let want = from.left().min(stream::PIECE as usize);
            let step = from.take_window(window, buffer.at(), want).and_then(|n| {
                let count = u32::try_from(n).map_err(|_| Errno::EIO)?;
                // Where it ends up is the host's decision: pages that are there are filled anew later.
                let pages = if append { (0, 0) } else { pages_of(p, p + n as u64) };
                let _writing = self.begin_write(pages);
                let spilled = inode.client().spill(&fid, p, count, buffer.at()).map_err(errno)?;
                inode.outdated();
                if !append {
                    self.keep_in_step(inode, p, buffer.at(), spilled as usize)?;
                }
                Ok((n, spilled as usize))
            });
            self.held.keep_buffer(buffer);
            match step {
                Ok((n, spilled)) => {
                    p += spilled as u64;
                    done += spilled;
                    if spilled < n {
                        failed = Some(Errno::ENOSPC);
                    } else if n < want {
                        break;
                    }
                }
                Err(e) => failed = Some(e),
            }
        }
        if append {
            p = inode.attr()?.size;
            self.state.lock().learn(None);
        } else if self.state.lock().filled.total() > 0 {
            // They are what the file is now, unless the host wrote in the very same moment.
            let a = inode.attr()?;
            self.state.lock().learn(Some(Stamp { fresh: false, ..Stamp::of(&a) }));
        }
        match failed {
            Some(e) if done == 0 => Err(e),
            _ => Ok((done, p)),
        }
    }

    /// A fid that writes to the end of the file.
    pub fn appender(&self, inode: &GoferInode) -> Result<Arc<cofferdam_ninep::client::Fid>, Errno> {
        if let Some(fid) = &inode.open.lock().appender {
            return Ok(fid.clone());
        }
        let fid = inode.open_fid((libc::O_RDWR | libc::O_APPEND).cast_unsigned())?;
        Ok(inode.open.lock().appender.get_or_insert(fid.into()).clone())
    }

    /// Copies what was written at `p`, and lies in the window at `host`, to the pages that are there.
    fn keep_in_step(&self, inode: &GoferInode, p: u64, host: u64, len: usize) -> Result<(), Errno> {
        let s = self.state.lock();
        if s.filled.total() == 0 {
            return Ok(());
        }
        let (window, end) = (inode.fs.cache.window(), p + len as u64);
        let mut bytes = Vec::new();
        let mut q = p;
        while let Some(page) = s.filled.next_in(q / PAGE).filter(|page| page * PAGE < end) {
            q = q.max(page * PAGE);
            let stop = s.filled.covered_to(page).map_or(end, |to| end.min(to * PAGE));
            let (place, n) = s.layout.find(q, stop - q);
            if let Some(to) = place {
                bytes.resize(n as usize, 0);
                window.read(host + (q - p), &mut bytes).map_err(|_| Errno::EIO)?;
                window.write(to, &bytes).map_err(|_| Errno::EIO)?;
            }
            q += n;
            if q >= end {
                break;
            }
        }
        Ok(())
    }

    /// Makes sure that pages are what the file is now. Where nobody else changes it, that is as good as known, until
    /// somebody outside acts.
    pub fn validate(&self, inode: &GoferInode) -> Result<(), Errno> {
        if inode.fs.shared {
            return self.compare(inode);
        }
        let acts = inode.fs.now();
        if self.checked.load(Ordering::Acquire) >= acts {
            return Ok(());
        }
        // What is written right now, maybe by this very thread, makes the file another: that comes first.
        let Some(_write) = self.write.try_lock() else { return Ok(()) };
        self.compare(inode)?;
        self.checked.store(acts, Ordering::Release);
        Ok(())
    }

    /// Compares the file with what it was when pages were filled, and has them filled anew if it is another.
    fn compare(&self, inode: &GoferInode) -> Result<(), Errno> {
        let mut now = Stamp::of(&inode.attr()?);
        let mut learnt = Vec::new();
        let before = loop {
            let mut s = self.state.lock();
            if s.filled.total() == 0 {
                s.learn(Some(now));
                return Ok(());
            }
            if s.stamp.is_some_and(|old| old.is_still(&now)) {
                return Ok(());
            }
            // By another inode of the file more may be known than this one heard: what it heard must be of after that.
            if !inode.has_others() || learnt.last() == Some(&s.learnt) {
                break s.stamp;
            }
            if learnt.len() == TRIES {
                // Others have just done it, again and again.
                return Ok(());
            }
            learnt.push(s.learnt);
            drop(s);
            inode.refresh()?;
            now = Stamp::of(&inode.attr.read());
        };
        // What is open stays what was opened: a file that has no name any more, and was read whole, is nowhere but
        // here.
        if !inode.fs.shared && inode.in_use() && inode.open.lock().any().is_none() {
            match inode.open_fid(0) {
                Ok(fid) => drop(inode.open.lock().reader.get_or_insert(Arc::new(fid)).clone()),
                Err(_) => return Ok(()),
            }
        }
        if !self.is_mapped() && self.give_back() {
            self.state.lock().learn(Some(now));
            return Ok(());
        }
        if before.is_none_or(|old| now.size < old.size) {
            self.truncated(now.size);
            let mut cut = CUT.lock();
            if cut.len() < CUT_MOST {
                cut.push((self.identity, now.size));
            }
            ANY_CUT.store(true, Ordering::Release);
        }
        if self.written.load(Ordering::Acquire) == 0 {
            self.refill(inode)?;
        }
        self.state.lock().learn(Some(now));
        Ok(())
    }

    /// Has all pages that are there filled anew, where they lie.
    fn refill(&self, inode: &GoferInode) -> Result<(), Errno> {
        let fid = self.reader(inode)?;
        let mut next = 0;
        loop {
            let mut s = self.state.lock();
            let Some(first) = s.filled.next_in(next) else { return Ok(()) };
            let end = s.filled.covered_to(first).unwrap_or(first + 1);
            let (place, len) = s.layout.find(first * PAGE, ((end - first) * PAGE).min(FILL_MAX));
            let range = pages_of(first * PAGE, first * PAGE + len);
            let me = std::thread::current().id();
            if s.writing.is_some_and(|((a, b), who)| who != me && a < range.1 && range.0 < b) {
                drop(self.wait(s));
                continue;
            }
            next = range.1;
            let Some(host) = place else { continue };
            s.filling.push(range);
            let cuts = s.cuts;
            drop(s);
            let _filling = Filling(self, range);
            let count = u32::try_from(len).map_err(|_| Errno::EIO)?;
            let got = u64::from(inode.client().fill(&fid, first * PAGE, count, host).map_err(errno)?);
            let s = self.state.lock();
            if got < len && s.cuts == cuts {
                // What follows the end of the file reads as zeros.
                s.layout.clear(first * PAGE + got, first * PAGE + len);
            }
        }
    }
}
