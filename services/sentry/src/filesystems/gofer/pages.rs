//! Pages of an export's files, in the cache window.
//!
//! A page that was filled stays valid: nobody else changes the file (for files that somebody does change, see `shared`). Reads fill what is missing, ahead of sequential
//! readers; writes go into the window and through to the host at once. No lock of the inode's state is held across a
//! message; `write` alone is, since writes to one file are one after the other (as with Linux's inode lock).

use std::any::Any;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, LazyLock, MutexGuard, PoisonError};
use std::thread::ThreadId;

use cofferdam_ninep::client::Fid;

use crate::errno::Errno;
use crate::filesystems::gofer::held::Held;
use crate::filesystems::gofer::shared::Stamp;
use crate::filesystems::gofer::stream::{self, Stream};
use crate::filesystems::gofer::{GoferInode, errno, room};
use crate::filesystems::ranges::{Layout, RangeSet};
use crate::memory::object::{Extent, HostWindow, MemoryObject, Object};
use crate::memory::store::{PAGE, Store, page_down, page_up};
use crate::sync::{Mutex, RwLock};
use crate::uio::{LARGE, Sink, Source};
use crate::vfs::file::{Cached, File, FileOps, Io, flags};
use crate::vfs::inode::{Inode, InodeRef, OpenHow, SetAttr, anonymous_dev, file_time};
use crate::vfs::mount::PathRef;
use crate::vfs::watch;

/// Bytes filled with the open of a file.
const FIRST_FILL: u64 = 64 * 1024;
/// Bytes that one message fills at most.
const FILL_MAX: u64 = 1 << 20;
/// Bytes that a fault on a mapping brings in at least.
const FAULT_AROUND: u64 = 128 * 1024;

/// The device that pages seem to be of which several exports may show.
static MET: LazyLock<u64> = LazyLock::new(anonymous_dev);
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A new identity for such pages: none of the exports' own numbers would do.
pub(super) fn met_identity() -> (u64, u64) {
    (*MET, NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(super) struct State {
    pub(super) layout: Layout,
    /// Pages that are valid.
    pub(super) filled: RangeSet,
    /// Where the last read ended, and how far ahead of it is filled: doubled while reads are sequential.
    last: u64,
    ahead: u64,
    /// What the file was like on the host when pages were found valid or filled.
    pub(super) stamp: Option<Stamp>,
    /// Pages that the Gofer is filling: first and after the last.
    pub(super) filling: Vec<(u64, u64)>,
    /// Pages that are being written. Nothing is filled there meanwhile, nor written while something is: the Gofer's copy of
    /// what was there before would take the place of what is written.
    pub(super) writing: Option<((u64, u64), ThreadId)>,
    /// How often the file was cut or grown.
    pub(super) cuts: u64,
    /// How often something was learnt of what the file is like (`stamp`, `cuts`).
    pub(super) learnt: u64,
}

/// The pages of one file. Whoever fills and writes them does so through an inode's own fids.
pub struct Pages {
    /// What mappings of them are told from others by.
    pub(super) identity: (u64, u64),
    /// Memory objects that show them, and those of them that a container may write.
    mapped: AtomicUsize,
    pub(super) written: AtomicUsize,
    pub(super) state: Mutex<State>,
    /// Held over a whole write.
    pub(super) write: Mutex<()>,
    /// Told when pages are no longer being filled or written.
    settled: Condvar,
    /// When they were last compared with what the host has ([`Acts`](super::Acts)). Of exclusive files only.
    pub(super) checked: AtomicU64,
    /// Shared by whoever has to do with bytes in the window: while anybody has, pages are not given back. Only ever
    /// tried for exclusively, so that nobody waits for it.
    pub(super) in_use: RwLock<()>,
    /// Counts what may make what a stream has of the file wrong.
    changes: AtomicU64,
    pub(super) held: Arc<Held>,
}

impl Drop for Pages {
    fn drop(&mut self) {
        let pages = self.state.lock().filled.total();
        self.held.count(-bytes(pages));
    }
}

fn bytes(pages: u64) -> i64 {
    i64::try_from(pages.saturating_mul(PAGE)).unwrap_or(i64::MAX)
}

impl State {
    /// What the file is like now.
    pub(super) fn learn(&mut self, stamp: Option<Stamp>) {
        self.stamp = stamp;
        self.learnt += 1;
    }

    /// Whether all pages of the file are valid.
    fn whole(&self, size: u64) -> bool {
        self.filled.covered_to(0).is_some_and(|end| end >= size.div_ceil(PAGE))
    }
}

/// The pages that bytes `[from, to)` lie in: the first, and after the last.
pub(super) fn pages_of(from: u64, to: u64) -> (u64, u64) {
    (from / PAGE, to.div_ceil(PAGE))
}

/// While it lives, the Gofer may fill these pages.
pub(super) struct Filling<'a>(pub(super) &'a Pages, pub(super) (u64, u64));

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        let mut s = self.0.state.lock();
        if let Some(at) = s.filling.iter().position(|f| *f == self.1) {
            s.filling.swap_remove(at);
        }
        self.0.settled.notify_all();
    }
}

/// While it lives, nobody else fills or writes the pages that are being written.
pub(super) struct Writing<'a>(&'a Pages);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.state.lock().writing = None;
        self.0.settled.notify_all();
    }
}

impl Pages {
    /// None yet.
    pub fn new(
        cache: Arc<Store>,
        held: Arc<Held>,
        identity: (u64, u64),
        (stamp, checked): (Option<Stamp>, u64),
    ) -> Self {
        let layout = Layout::new(cache, HostWindow::Cache);
        let filled = RangeSet::default();
        let state = State {
            layout,
            filled,
            last: 0,
            ahead: FIRST_FILL,
            stamp,
            filling: Vec::new(),
            writing: None,
            cuts: 0,
            learnt: 0,
        };
        Self {
            identity,
            mapped: AtomicUsize::new(0),
            written: AtomicUsize::new(0),
            state: Mutex::new(state),
            write: Mutex::new(()),
            settled: Condvar::new(),
            checked: AtomicU64::new(checked),
            in_use: RwLock::new(()),
            changes: AtomicU64::new(0),
            held,
        }
    }

    /// Notes pages `[first, end)` as valid.
    fn filled(&self, s: &mut State, first: u64, end: u64) {
        let new = s.filled.add(first, end);
        self.held.count(bytes(new));
    }

    /// The file on the host is another now, or pages that may have been written by a mapping are no longer cached.
    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether they may be mapped.
    pub fn is_mapped(&self) -> bool {
        self.mapped.load(Ordering::Acquire) > 0
    }

    /// Gives up the pages, unless they may be mapped or are being copied: then false.
    pub fn give_back(&self) -> bool {
        let alone = self.in_use.try_write();
        let mut s = self.state.lock();
        if s.filled.total() == 0 {
            return true;
        }
        if self.is_mapped() || alone.is_none() {
            return false;
        }
        let layout = Layout::new(s.layout.store().clone(), HostWindow::Cache);
        // Dropped below with the lock still held: its blocks may be handed out again right after.
        let _gone = std::mem::replace(&mut s.layout, layout);
        let pages = std::mem::take(&mut s.filled).total();
        self.held.count(-bytes(pages));
        self.changed();
        true
    }

    /// Gets ready for an open file: the fids it needs, and with the first open the first bytes.
    pub fn prepare(&self, inode: &GoferInode, how: OpenHow) -> Result<(), Errno> {
        if how.write && inode.open.lock().writer.is_none() {
            let fid = inode.open_fid(libc::O_RDWR.cast_unsigned())?;
            inode.open.lock().writer.get_or_insert(Arc::new(fid));
            inode.fs.held.fids(&inode.me()?);
        }
        // Later the host may have given its name to another file.
        if inode.fs.shared && how.write && how.flags & flags::APPEND != 0 {
            self.appender(inode)?;
        }
        if how.read || !how.write {
            let size = inode.attr()?.size;
            let whole = self.state.lock().whole(size);
            if !whole || size == 0 || inode.fs.shared {
                self.reader(inode)?;
            }
        }
        inode.fs.held.pages(&inode.me()?);
        self.validate(inode)
    }

    /// Waits until pages are no longer being filled or written.
    pub(super) fn wait<'a>(&'a self, s: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        cofferdam_platform::about_to_block();
        self.settled.wait(s).unwrap_or_else(PoisonError::into_inner)
    }

    /// Has these pages for a write of its own, once nothing is filled there any more. One at a time: `write` is held.
    pub(super) fn begin_write(&self, pages: (u64, u64)) -> Writing<'_> {
        let mut s = self.state.lock();
        while s.filling.iter().any(|(a, b)| *a < pages.1 && pages.0 < *b) {
            s = self.wait(s);
        }
        s.writing = Some((pages, std::thread::current().id()));
        Writing(self)
    }

    pub(super) fn reader(&self, inode: &GoferInode) -> Result<Arc<Fid>, Errno> {
        if let Some(fid) = inode.open.lock().any() {
            return Ok(fid);
        }
        let _in_use = self.in_use.read();
        let (size, from) = (inode.attr()?.size, inode.from.lock().clone());
        let (place, _filling, cuts) = {
            let mut s = self.state.lock();
            if let Some(fid) = inode.open.lock().any() {
                return Ok(fid);
            }
            // The window keeps a block for a file only once it is opened.
            // A shared file is read through: nothing is filled that others may be writing.
            let place = if size > 0 && !inode.fs.shared { Some(s.layout.take(0, FIRST_FILL.min(size))?) } else { None };
            let filling = place.map(|_| {
                // Nobody writes: there is no fid to write with.
                let range = pages_of(0, FIRST_FILL.min(size));
                s.filling.push(range);
                Filling(self, range)
            });
            (place, filling, s.cuts)
        };
        let fid = match (place, from) {
            (Some((host, len)), Some((dir, name))) => {
                let count = u32::try_from(len).map_err(|_| Errno::EIO)?;
                let dir = dir.fid()?;
                let got = inode.fs.with_room(|| {
                    let got = inode.client().open_fill(&dir, &name, count, host)?;
                    room(got.error).map(|()| got)
                })?;
                if got.attr.qid.path != inode.qid {
                    return Err(Errno::ESTALE);
                }
                match (got.open, got.error) {
                    (true, None) => {
                        let filled = u64::from(got.filled);
                        let whole = filled >= size.min(len);
                        let end = if whole { page_up(size.min(len)).unwrap_or(0) } else { page_down(filled) };
                        let mut s = self.state.lock();
                        if s.cuts == cuts {
                            self.filled(&mut s, 0, end / PAGE);
                        }
                        if s.whole(size) {
                            // Nothing will be read from the host any more.
                            return Ok(Arc::new(got.fid));
                        }
                        got.fid
                    }
                    (true, Some(_)) => got.fid,
                    (false, Some(e)) => return Err(errno(e)),
                    (false, None) => return Err(Errno::ESTALE),
                }
            }
            _ => inode.open_fid(0)?,
        };
        inode.fs.held.fids(&inode.me()?);
        Ok(inode.open.lock().reader.get_or_insert(Arc::new(fid)).clone())
    }

    /// Makes `[at, end)` valid, at least from `at` on for a page; where that ends.
    fn fill(&self, inode: &GoferInode, at: u64, end: u64, size: u64) -> Result<u64, Errno> {
        let (start, host, len, _filling, cuts) = {
            let mut s = self.state.lock();
            loop {
                if let Some(to) = s.filled.covered_to(at / PAGE) {
                    s.last = end;
                    return Ok((to * PAGE).max(at + 1));
                }
                // The writer itself may have to: its source is these pages, and they were cut off meanwhile.
                let other = s.writing.filter(|(_, who)| *who != std::thread::current().id());
                if !other.is_some_and(|((a, b), _)| (a..b).contains(&(at / PAGE))) {
                    break;
                }
                s = self.wait(s);
            }
            let start = page_down(at);
            if at == s.last || at < FIRST_FILL {
                s.ahead = (s.ahead * 2).min(FILL_MAX);
            } else {
                s.ahead = FIRST_FILL;
            }
            s.last = end;
            let stop = page_up(size).ok_or(Errno::EFBIG)?;
            let want = end.max(start + s.ahead).min(start + FILL_MAX).min(stop);
            // Up to what is valid already.
            let want = s.filled.next_in(start / PAGE).map_or(want, |n| want.min(n * PAGE));
            let written = s.writing.map(|((first, _), _)| first).filter(|first| *first > start / PAGE);
            let want = written.map_or(want, |first| want.min(first * PAGE));
            let (host, len) = s.layout.take(start, want - start)?;
            let range = pages_of(start, start + len);
            s.filling.push(range);
            (start, host, len, Filling(self, range), s.cuts)
        };
        let fid = self.reader(inode)?;
        let count = u32::try_from(len).map_err(|_| Errno::EIO)?;
        let got = u64::from(inode.client().fill(&fid, start, count, host).map_err(errno)?);
        // A short answer is the end of the file: what follows reads as zeros.
        let valid = if start + got >= size.min(start + len) { len } else { page_down(got) };
        let valid = if valid == 0 { PAGE } else { valid };
        let mut s = self.state.lock();
        if s.cuts != cuts {
            // Cut meanwhile: what came may be of before. Nothing of the file is there any more, or it is filled once more.
            drop(s);
            let size = inode.attr()?.size;
            let stop = page_up(size).ok_or(Errno::EFBIG)?;
            return if at < stop { self.fill(inode, at, end.min(stop), size) } else { Ok(start + PAGE) };
        }
        self.filled(&mut s, start / PAGE, (start + valid) / PAGE);
        if s.whole(size) && !inode.fs.shared {
            inode.open.lock().reader = None;
        }
        drop(s);
        // Anew, if all it had was given back while it is open.
        inode.fs.held.pages(&inode.me()?);
        Ok(start + valid)
    }

    fn read(
        &self,
        inode: &GoferInode,
        at: u64,
        to: &mut Sink<'_>,
        mut stream: Option<&mut Stream>,
    ) -> Result<usize, Errno> {
        if inode.fs.shared {
            if !self.is_mapped() {
                return self.read_through(inode, at, to);
            }
            stream = None;
        }
        self.validate(inode)?;
        let size = inode.attr()?.size;
        if let Some(s) = &mut stream {
            s.begin(at);
        }
        let done = {
            let _in_use = self.in_use.read();
            self.read_pages(inode, at, size, to, stream.as_deref_mut())
        };
        if let (Some(s), Ok(n)) = (stream, done) {
            s.went(at.saturating_add(n as u64));
            if at.saturating_add(n as u64) >= size {
                s.end();
            }
        }
        self.held.trim();
        done
    }

    /// Has the stream give what it has at `at`, up to `end`: whether it could, and how much it was and should have been.
    fn read_stream(
        &self,
        inode: &GoferInode,
        stream: &mut Stream,
        (at, end, size): (u64, u64, u64),
        later: bool,
        to: &mut Sink<'_>,
    ) -> Option<Result<(usize, u64), Errno>> {
        // What is cached comes first.
        let cached = {
            let s = self.state.lock();
            if s.filled.covered_to(at / PAGE).is_some() {
                return None;
            }
            s.filled.next_in(at / PAGE).map_or(end, |n| n * PAGE)
        };
        let fid = self.reader(inode).ok()?;
        let (client, store) = (inode.client(), &inode.fs.cache);
        let from = stream::From { client, fid: &fid, store, changes: &self.changes, size };
        let (host, len, buffer) = stream.find(&from, at)?;
        let len = len.min(cached.min(end) - at);
        if later && len >= LARGE as u64 {
            let later = to.put_later(host, len as usize, || Box::new(buffer));
            if later > 0 {
                return Some(Ok((later, later as u64)));
            }
        }
        Some(to.put_window(store.window(), host, len as usize).map(|n| (n, len)))
    }

    fn read_pages(
        &self,
        inode: &GoferInode,
        at: u64,
        size: u64,
        to: &mut Sink<'_>,
        mut stream: Option<&mut Stream>,
    ) -> Result<usize, Errno> {
        let end = size.min(at.saturating_add(to.room() as u64));
        let mut p = at;
        while p < end {
            let streamed = stream.as_deref_mut().filter(|s| s.on(size)).and_then(|s| {
                // Copies that are put off hold their buffers: so few of them that the stream goes on.
                let later = p - at < 2 * stream::PIECE;
                self.read_stream(inode, s, (p, end, size), later, to)
            });
            let step = streamed.unwrap_or_else(|| self.read_cached(inode, p, end, size, to));
            match step {
                Ok((n, len)) => {
                    p += n as u64;
                    if (n as u64) < len {
                        break;
                    }
                }
                Err(e) if p == at => return Err(e),
                Err(_) => break,
            }
        }
        Ok(p.saturating_sub(at) as usize)
    }

    /// Gives what is cached at `p`, filled before if it is not: how much it was and should have been.
    fn read_cached(
        &self,
        inode: &GoferInode,
        p: u64,
        end: u64,
        size: u64,
        to: &mut Sink<'_>,
    ) -> Result<(usize, u64), Errno> {
        let valid = self.fill(inode, p, end, size)?;
        let (place, len) = self.state.lock().layout.find(p, valid.min(end) - p);
        let host = place.ok_or(Errno::EIO)?;
        if len >= LARGE as u64 {
            // Held while `in_use` is: nobody gives the pages back in between.
            let later = to.put_later(host, len as usize, || Box::new(InUse::new(inode)));
            if later > 0 {
                return Ok((later, later as u64));
            }
        }
        Ok((to.put_window(inode.fs.cache.window(), host, len as usize)?, len))
    }

    fn write(&self, inode: &GoferInode, at: u64, append: bool, from: &mut Source<'_>) -> Result<(usize, u64), Errno> {
        if inode.fs.shared {
            return self.write_through(inode, at, append, from);
        }
        self.validate(inode)?;
        let _write = self.write.lock();
        let _in_use = self.in_use.read();
        let fid = inode.open.lock().writer.clone().ok_or(Errno::EBADF)?;
        let mut size = inode.attr()?.size;
        let at = if append { size } else { at };
        let end = at.checked_add(from.left() as u64).filter(|e| i64::try_from(*e).is_ok()).ok_or(Errno::EFBIG)?;
        let mut p = at;
        let mut failed = None;
        while p < end && failed.is_none() {
            // Pages that are written in part must be valid first.
            let stop = end.min(page_down(p) + FILL_MAX);
            for edge in [p, stop] {
                if edge % PAGE != 0 && page_down(edge) < size {
                    self.fill(inode, page_down(edge), page_down(edge) + 1, size)?;
                }
            }
            let (host, len, direct) = {
                let mut s = self.state.lock();
                let (host, len) = s.layout.take(p, stop - p)?;
                // Where there is nothing to fill: what is valid, and what the file does not have yet.
                let (first, last) = pages_of(p, p + len);
                let last = last.min(size.div_ceil(PAGE)).max(first);
                (host, len, s.filled.count(first, last) == last - first)
            };
            let pages = pages_of(p, p + len);
            let (n, spilled, _writing) = match self.spill(inode, &fid, p, (host, len, direct), pages, from) {
                Ok(done) => done,
                Err(e) => {
                    failed = Some(e);
                    break;
                }
            };
            match spilled {
                Ok(done) => {
                    let done = u64::from(done);
                    let whole = if p + done >= size { page_up(p + done) } else { Some(page_down(p + done)) };
                    let (first, last) = (page_down(p) / PAGE, whole.unwrap_or(p) / PAGE);
                    self.filled(&mut self.state.lock(), first, last);
                    p += done;
                    size = size.max(p);
                    inode.change(|a| {
                        a.size = a.size.max(p);
                        a.blocks = a.blocks.max(a.size.div_ceil(512));
                        let t = file_time();
                        (a.mtime, a.ctime) = (t, t);
                    });
                    if done < n as u64 {
                        failed = Some(Errno::ENOSPC);
                    }
                }
                Err(e) => failed = Some(errno(e)),
            }
            if failed.is_some() {
                // What did not get there is not what the file has.
                let mut s = self.state.lock();
                let lost = s.filled.remove(pages_of(p, p).0, pages.1);
                self.held.count(-bytes(lost));
            }
            if (n as u64) < len {
                break;
            }
        }
        match failed {
            Some(e) if p == at => Err(e),
            _ => Ok(((p - at) as usize, p)),
        }
    }

    /// Takes up to `len` bytes of a write to `p` and hands them to the Gofer: how many were taken, and its answer. They lie in their
    /// pages at `host` then, which nobody fills while the third is held. `direct`: nobody wants to anyway; else the container's memory
    /// is read first, since that may be a mapping of these very pages.
    #[allow(clippy::type_complexity, reason = "used once")]
    fn spill(
        &self,
        inode: &GoferInode,
        fid: &Fid,
        p: u64,
        (host, len, direct): (u64, u64, bool),
        pages: (u64, u64),
        from: &mut Source<'_>,
    ) -> Result<(usize, Result<u32, cofferdam_ninep::Errno>, Writing<'_>), Errno> {
        let window = inode.fs.cache.window();
        let count = |n: usize| u32::try_from(n).map_err(|_| Errno::EIO);
        if direct {
            let writing = self.begin_write(pages);
            let n = from.take_window(window, host, len as usize)?;
            let spilled = inode.client().spill(fid, p, count(n)?, host);
            self.changed();
            return Ok((n, spilled, writing));
        }
        let buffer = self.held.buffer(&inode.fs.cache)?;
        let n = from.take_window(window, buffer.at(), len.min(stream::PIECE) as usize)?;
        let writing = self.begin_write(pages);
        let spilled = inode.client().spill(fid, p, count(n)?, buffer.at());
        self.changed();
        let mut bytes = vec![0; n];
        window.read(buffer.at(), &mut bytes).map_err(|_| Errno::EIO)?;
        window.write(host, &bytes).map_err(|_| Errno::EIO)?;
        self.held.keep_buffer(buffer);
        Ok((n, spilled, writing))
    }

    /// The file was cut or grown to `size`.
    pub fn truncated(&self, size: u64) {
        let mut s = self.state.lock();
        s.cuts += 1;
        s.learnt += 1;
        let end = page_up(size).unwrap_or(size);
        s.layout.clear(size, end);
        let gone: u64 = u64::MAX / PAGE;
        let mut at = end;
        while let Some(page) = s.filled.next_in(at / PAGE) {
            let stop = s.filled.covered_to(page).unwrap_or(page + 1);
            s.layout.clear(page * PAGE, stop * PAGE);
            at = stop * PAGE;
        }
        let pages = s.filled.remove(end / PAGE, gone);
        self.held.count(-bytes(pages));
        self.changed();
    }

    fn populate(&self, inode: &GoferInode, offset: u64, len: u64) -> Result<Vec<Extent>, Errno> {
        self.validate(inode)?;
        // Not given back afterwards: the memory object that asks counts as a mapping.
        let _in_use = self.in_use.read();
        let size = inode.attr()?.size;
        let stop = page_up(size).ok_or(Errno::EFBIG)?;
        let offset = page_down(offset);
        if offset >= stop {
            return Ok(Vec::new());
        }
        let want = page_up(offset.saturating_add(len.max(1))).ok_or(Errno::EFBIG)?;
        let end = want.max(offset + FAULT_AROUND).min(stop);
        let mut p = offset;
        while p < end {
            match self.fill(inode, p, end, size) {
                Ok(to) => p = to,
                Err(e) if p == offset => return Err(e),
                Err(_) => break,
            }
        }
        Ok(self.state.lock().layout.extents(offset, p.min(stop)))
    }
}

/// An open file of an export.
pub struct GoferFile {
    /// The file.
    pub inode: Arc<GoferInode>,
    /// Taken out by the read that uses it; others that read through the same open file at that moment go without.
    stream: Mutex<Option<Stream>>,
}

impl GoferFile {
    /// Counts as one more open file of it.
    pub fn new(inode: Arc<GoferInode>) -> Self {
        inode.opens.fetch_add(1, Ordering::AcqRel);
        if inode.fs.shared {
            inode.meeting().opens.fetch_add(1, Ordering::AcqRel);
        }
        let stream = Mutex::new(Some(Stream::new(inode.fs.held.clone())));
        Self { inode, stream }
    }
}

impl Drop for GoferFile {
    fn drop(&mut self) {
        self.inode.opens.fetch_sub(1, Ordering::AcqRel);
        if self.inode.fs.shared
            && self.inode.meeting().opens.fetch_sub(1, Ordering::AcqRel) == 1
            && !self.inode.in_use()
        {
            // Its last name may have been taken away where another export shows it, too.
            let inode: InodeRef = self.inode.clone();
            watch::gone(&inode);
        }
        self.inode.let_go();
    }
}

impl FileOps for GoferFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _io: &Io<'_>, at: u64, to: &mut Sink<'_>) -> Result<usize, Errno> {
        let mut stream = self.stream.lock().take();
        let done = self.inode.pages().read(&self.inode, at, to, stream.as_mut());
        if stream.is_some() {
            *self.stream.lock() = stream;
        }
        done
    }

    fn write(&self, _io: &Io<'_>, at: u64, append: bool, from: &mut Source<'_>) -> Result<(usize, u64), Errno> {
        let done = self.inode.pages().write(&self.inode, at, append, from);
        self.inode.fs.held.pages(&self.inode);
        self.inode.fs.held.trim();
        done
    }

    fn memory_object(&self, file: &File, shared: bool, _write: bool) -> Result<Object, Errno> {
        let in_use = InUse::new(&self.inode);
        // What is only read now may be made writable later.
        let written = (shared && file.writable()).then(|| Written::new(&self.inode));
        let path = file.path_ref().clone();
        Ok(Arc::new(Mapped { inode: self.inode.clone(), path, _in_use: in_use, _written: written }))
    }

    fn truncate(&self, _file: &File, size: u64) -> Result<(), Errno> {
        self.inode.set_attr(&SetAttr { size: Some(size), ..SetAttr::default() })
    }

    fn allocate(&self, _file: &File, how: i32, offset: u64, len: u64) -> Result<(), Errno> {
        let fid = self.inode.open.lock().writer.clone().ok_or(Errno::EBADF)?;
        self.inode.client().allocate(&fid, how.cast_unsigned(), offset, len).map_err(errno)?;
        if how & !libc::FALLOC_FL_KEEP_SIZE != 0 {
            // Bytes became zeros on the host: what is cached of the file is fetched again.
            if self.inode.fs.shared {
                self.inode.pages().state.lock().learn(None);
            } else {
                self.inode.pages().truncated(0);
            }
        }
        self.inode.refresh()
    }

    fn cached(&self, first: u64, end: u64) -> Cached {
        let s = self.inode.pages().state.lock();
        Cached { pages: s.filled.count(first, end), dirty: 0 }
    }

    fn sync(&self, _file: &File, data_only: bool) -> Result<(), Errno> {
        let fid = self.inode.open.lock().writer.clone();
        match fid {
            Some(fid) => self.inode.client().fsync(&fid, data_only).map_err(errno),
            None => Ok(()),
        }
    }
}

/// Keeps the pages of a file where they are, as a mapping does.
struct InUse(Option<Arc<GoferInode>>);

impl InUse {
    fn new(inode: &GoferInode) -> Self {
        let me = inode.me().ok();
        if let Some(inode) = &me {
            inode.mapped.fetch_add(1, Ordering::AcqRel);
            inode.pages().mapped.fetch_add(1, Ordering::AcqRel);
        }
        Self(me)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        if let Some(inode) = &self.0 {
            inode.pages().mapped.fetch_sub(1, Ordering::AcqRel);
            inode.mapped.fetch_sub(1, Ordering::AcqRel);
            inode.let_go();
        }
    }
}

/// Counts as a mapping that the container may write.
struct Written(Arc<GoferInode>);

impl Written {
    fn new(inode: &Arc<GoferInode>) -> Self {
        inode.pages().written.fetch_add(1, Ordering::AcqRel);
        Self(inode.clone())
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        self.0.pages().written.fetch_sub(1, Ordering::AcqRel);
        self.0.outdated();
    }
}

struct Mapped {
    inode: Arc<GoferInode>,
    path: PathRef,
    _in_use: InUse,
    _written: Option<Written>,
}

impl MemoryObject for Mapped {
    fn populate(&self, offset: u64, len: u64, _write: bool) -> Result<Vec<Extent>, Errno> {
        self.inode.pages().populate(&self.inode, offset, len)
    }

    fn size(&self) -> u64 {
        self.inode.attr.read().size
    }

    fn identity(&self) -> (u64, u64) {
        self.inode.pages().identity
    }

    /// An overlay has numbers of its own for what it shows of others.
    fn shown(&self) -> (u64, u64) {
        self.path.dentry.inode().number().unwrap_or_else(|_| self.identity())
    }

    fn path(&self) -> Vec<u8> {
        self.path.full()
    }

    fn sync(&self, offset: u64, len: u64) -> Result<(), Errno> {
        let pages = self.inode.pages();
        pages.validate(&self.inode)?;
        let Some(fid) = self.inode.open.lock().writer.clone() else { return Ok(()) };
        let end = self.size().min(offset.saturating_add(len));
        let mut p = page_down(offset);
        while p < end {
            let (place, len) = {
                let s = pages.state.lock();
                match s.filled.covered_to(p / PAGE) {
                    None => (None, PAGE.min(end - p)),
                    Some(to) => s.layout.find(p, (to * PAGE).min(end).min(p + FILL_MAX) - p),
                }
            };
            if let Some(host) = place {
                let count = u32::try_from(len).map_err(|_| Errno::EIO)?;
                self.inode.client().spill(&fid, p, count, host).map_err(errno)?;
                self.inode.outdated();
            }
            p += len;
        }
        Ok(())
    }
}
