//! Bytes of a file that lives in the Sentry's own memory: tmpfs files, copied-up files, memfds, shared memory.
//!
//! Small content is inline; larger content lies in the memory window and can be mapped. Two locks: `pin` is held while
//! data moves from or to the container (page faults of the container never take it), `inner` only for moments.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::errno::Errno;
use crate::filesystems::ranges::{Layout, RangeSet};
use crate::filesystems::seals::Writer;
use crate::memory::object::{Extent, HostWindow, MemoryObject};
use crate::memory::store::{PAGE, Store, page_down, page_up};
use crate::sync::{Mutex, RwLock};
use crate::uio::{Sink, Source};
use crate::vfs::mount::PathRef;

/// Content up to this many bytes is kept inline.
const INLINE: u64 = 1024;
/// Pages that a fault on a mapping brings in at once.
const FAULT_AROUND: u64 = 64 * 1024;
/// Largest file, bytes.
pub const FILE_MAX: u64 = 1 << 46;

/// Bytes that services and the page cache need of a container's memory.
const BESIDE: u64 = 8 << 20;

/// Pages in use by all file systems.
static PAGES: AtomicU64 = AtomicU64::new(0);

/// Pages that all of them may use together.
static MOST: AtomicU64 = AtomicU64::new(u64::MAX);

/// The container may have that many bytes of memory. The host would take back no page of what is kept here, and end the Sentry for it when
/// there is nobody else left to kill: so there is no space left in files before.
pub fn set_memory(bytes: u64) {
    let most = (bytes / 4 * 3).saturating_sub(BESIDE).max(1 << 20);
    MOST.store(if bytes == u64::MAX { u64::MAX } else { most / PAGE }, Ordering::Relaxed);
}

/// Pages of all files that live in the Sentry's memory.
pub fn pages() -> u64 {
    PAGES.load(Ordering::Relaxed)
}

/// Pages that a file system may use in all.
pub struct Quota {
    limit: AtomicU64,
    used: AtomicU64,
}

impl Quota {
    /// A quota of so many pages.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit: AtomicU64::new(limit), used: AtomicU64::new(0) })
    }

    /// Pages allowed.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Allows so many pages.
    pub fn set_limit(&self, pages: u64) {
        self.limit.store(pages, Ordering::Relaxed);
    }

    /// Pages in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, pages: u64) -> Result<(), Errno> {
        let fits = |n: u64| n.checked_add(pages).filter(|n| *n <= self.limit());
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map_err(|_| Errno::ENOSPC)?;
        let fits = |n: u64| n.checked_add(pages).filter(|n| pages == 0 || *n <= MOST.load(Ordering::Relaxed));
        PAGES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map(drop).map_err(|_| {
            self.used.fetch_sub(pages, Ordering::Relaxed);
            Errno::ENOSPC
        })
    }

    fn give(&self, pages: u64) {
        self.used.fetch_sub(pages, Ordering::Relaxed);
        PAGES.fetch_sub(pages, Ordering::Relaxed);
    }
}

struct Inner {
    size: u64,
    inline: Vec<u8>,
    /// `None` while the content is inline.
    layout: Option<Layout>,
    /// Pages with data.
    present: RangeSet,
}

/// The bytes of a file.
pub struct Content {
    store: Arc<Store>,
    quota: Arc<Quota>,
    pin: RwLock<()>,
    inner: Mutex<Inner>,
}

impl Drop for Content {
    fn drop(&mut self) {
        self.quota.give(self.inner.lock().present.total());
    }
}

impl Content {
    /// No bytes.
    pub fn new(store: Arc<Store>, quota: Arc<Quota>) -> Arc<Self> {
        let inner = Inner { size: 0, inline: Vec::new(), layout: None, present: RangeSet::default() };
        Arc::new(Self { store, quota, pin: RwLock::new(()), inner: Mutex::new(inner) })
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.inner.lock().size
    }

    /// Pages with data.
    pub fn pages(&self) -> u64 {
        let inner = self.inner.lock();
        if inner.layout.is_none() { u64::from(inner.size > 0) } else { inner.present.total() }
    }

    /// Pages of `[first, end)` with data.
    pub fn pages_within(&self, first: u64, end: u64) -> u64 {
        let inner = self.inner.lock();
        if inner.layout.is_none() {
            return u64::from(inner.size > 0 && first == 0 && end > 0);
        }
        inner.present.count(first, end)
    }

    /// Reads at an offset.
    pub fn read(&self, at: u64, to: &mut Sink<'_>) -> Result<usize, Errno> {
        let _pin = self.pin.read();
        let mut pieces = Vec::new();
        {
            let inner = self.inner.lock();
            if at >= inner.size {
                return Ok(0);
            }
            let end = inner.size.min(at.saturating_add(to.room() as u64));
            match &inner.layout {
                None => {
                    let (from, len) = (at as usize, (end - at) as usize);
                    let mut copy = [0u8; INLINE as usize];
                    let have = inner.inline.get(from..inner.inline.len().min(from + len)).unwrap_or_default();
                    copy.get_mut(..have.len()).ok_or(Errno::EIO)?.copy_from_slice(have);
                    drop(inner);
                    return to.put(copy.get(..len).ok_or(Errno::EIO)?);
                }
                Some(layout) => {
                    let mut p = at;
                    while p < end {
                        let (host, len) = layout.find(p, end - p);
                        pieces.push((host, len));
                        p += len;
                    }
                }
            }
        }
        let mut done = 0;
        for (host, len) in pieces {
            let mut left = len as usize;
            let n = match host {
                Some(host) => to.put_window(self.store.window(), host, left),
                None => {
                    let zeros = [0u8; 4096];
                    let mut put = 0;
                    loop {
                        match to.put(zeros.get(..left.min(4096)).unwrap_or_default()) {
                            Ok(n) if n > 0 => {
                                put += n;
                                left -= n;
                            }
                            Err(e) if put == 0 => break Err(e),
                            _ => break Ok(put),
                        }
                        if left == 0 {
                            break Ok(put);
                        }
                    }
                }
            };
            match n {
                Ok(n) => {
                    done += n;
                    if n < len as usize {
                        break;
                    }
                }
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Makes room for pages of `[start, end)`; what of it lies in one piece at `start`.
    fn room(&self, inner: &mut Inner, start: u64, end: u64) -> Result<(u64, u64), Errno> {
        self.paged(inner)?;
        let layout = inner.layout.as_mut().ok_or(Errno::EIO)?;
        let (host, len) = layout.take(start, end - start)?;
        let (first, last) = (start / PAGE, page_up(start + len).ok_or(Errno::EFBIG)? / PAGE);
        self.quota.take((last - first) - inner.present.count(first, last))?;
        inner.present.add(first, last);
        Ok((host, len))
    }

    /// Moves inline content to the window.
    fn paged(&self, inner: &mut Inner) -> Result<(), Errno> {
        if inner.layout.is_some() {
            return Ok(());
        }
        let mut layout = Layout::new(self.store.clone(), HostWindow::Memory);
        if !inner.inline.is_empty() {
            self.quota.take(1)?;
            inner.present.add(0, 1);
            let (host, _) = layout.take(0, PAGE)?;
            self.store.window().write(host, &inner.inline).map_err(|_| Errno::EIO)?;
            inner.inline = Vec::new();
        }
        inner.layout = Some(layout);
        Ok(())
    }

    /// Writes at an offset, or at the end if `append`; how much, and the offset after it.
    pub fn write(&self, at: u64, append: bool, from: &mut Source<'_>) -> Result<(usize, u64), Errno> {
        let _pin = self.pin.write();
        let want = from.left() as u64;
        let (at, size, inline) = {
            let inner = self.inner.lock();
            (if append { inner.size } else { at }, inner.size, inner.layout.is_none())
        };
        if want == 0 {
            return Ok((0, at));
        }
        let end = at.saturating_add(want).min(FILE_MAX);
        if at >= end {
            return Err(Errno::EFBIG);
        }
        if inline && end <= INLINE && size <= INLINE {
            let data = from.take_vec((end - at) as usize)?;
            let after = at + data.len() as u64;
            let mut inner = self.inner.lock();
            // A mapping may have made it paged meanwhile.
            if inner.layout.is_none() {
                let len = inner.inline.len().max(after as usize);
                inner.inline.resize(len, 0);
                if let Some(to) = inner.inline.get_mut(at as usize..after as usize) {
                    to.copy_from_slice(&data);
                }
            } else {
                let (host, _) = self.room(&mut inner, at, after)?;
                self.store.window().write(host, &data).map_err(|_| Errno::EIO)?;
            }
            inner.size = inner.size.max(after);
            return Ok((data.len(), after));
        }
        let mut p = at;
        while p < end {
            let (host, len) = {
                let mut inner = self.inner.lock();
                match self.room(&mut inner, p, end) {
                    Ok(r) => r,
                    Err(e) if p == at => return Err(e),
                    Err(_) => break,
                }
            };
            let n = match from.take_window(self.store.window(), host, len as usize) {
                Ok(n) => n as u64,
                Err(e) if p == at => return Err(e),
                Err(_) => break,
            };
            p += n;
            let mut inner = self.inner.lock();
            inner.size = inner.size.max(p);
            if n < len {
                break;
            }
        }
        Ok(((p - at) as usize, p))
    }

    /// Changes the size; bytes beyond the old size read as zeros.
    pub fn truncate(&self, size: u64) -> Result<(), Errno> {
        if size > FILE_MAX {
            return Err(Errno::EFBIG);
        }
        let _pin = self.pin.write();
        let mut inner = self.inner.lock();
        if inner.layout.is_none() {
            if size <= INLINE {
                inner.inline.resize(size as usize, 0);
                inner.size = size;
                return Ok(());
            }
            self.paged(&mut inner)?;
        }
        let old = inner.size;
        if size < old {
            self.clear(&mut inner, size, old)?;
        } else if let Some(layout) = &inner.layout {
            // What a mapping left behind the end of the last page does not become part of the file.
            layout.clear(old, page_up(old).ok_or(Errno::EFBIG)?.min(size));
        }
        inner.size = size;
        Ok(())
    }

    fn clear(&self, inner: &mut Inner, start: u64, end: u64) -> Result<(), Errno> {
        let (first, last) = (page_up(start).ok_or(Errno::EFBIG)? / PAGE, page_up(end).ok_or(Errno::EFBIG)? / PAGE);
        if let Some(layout) = &inner.layout {
            layout.clear(start, end);
            // A mapping may have touched the rest of the last page.
            if end == inner.size {
                layout.clear(end, last * PAGE);
            }
        }
        let whole = if end == inner.size { last } else { end / PAGE };
        if first < whole {
            self.quota.give(inner.present.remove(first, whole));
        }
        Ok(())
    }

    /// `fallocate(2)`: reserve, with `keep_size` beyond the end too.
    pub fn allocate(&self, start: u64, len: u64, keep_size: bool) -> Result<(), Errno> {
        let end = start.checked_add(len).filter(|e| *e <= FILE_MAX).ok_or(Errno::EFBIG)?;
        let _pin = self.pin.write();
        let mut inner = self.inner.lock();
        let mut p = page_down(start);
        while p < end {
            p += self.room(&mut inner, p, end)?.1;
        }
        if !keep_size {
            inner.size = inner.size.max(end);
        }
        Ok(())
    }

    /// `fallocate(2)` with `PUNCH_HOLE` or `ZERO_RANGE`.
    pub fn punch(&self, start: u64, len: u64) -> Result<(), Errno> {
        let _pin = self.pin.write();
        let mut inner = self.inner.lock();
        self.paged(&mut inner)?;
        let end = start.saturating_add(len).min(inner.size);
        if start < end { self.clear(&mut inner, start, end) } else { Ok(()) }
    }

    /// Takes `[start, start + len)`, whole pages before the end, out of the file: what follows moves up.
    pub fn collapse(&self, start: u64, len: u64) -> Result<(), Errno> {
        let _pin = self.pin.write();
        let mut inner = self.inner.lock();
        let end = start.checked_add(len).filter(|e| *e < inner.size).ok_or(Errno::EINVAL)?;
        if !start.is_multiple_of(PAGE) || !len.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        self.paged(&mut inner)?;
        self.drop_pages(&mut inner, start / PAGE, end / PAGE);
        let mut at = end / PAGE;
        while let Some(page) = inner.present.next_in(at) {
            self.move_page(&mut inner, page, page - len / PAGE)?;
            at = page + 1;
        }
        inner.size -= len;
        Ok(())
    }

    /// Puts a hole of `len` bytes, whole pages, into the file at `start`, before its end: what follows moves down.
    pub fn insert(&self, start: u64, len: u64) -> Result<(), Errno> {
        let _pin = self.pin.write();
        let mut inner = self.inner.lock();
        if !start.is_multiple_of(PAGE) || !len.is_multiple_of(PAGE) || start >= inner.size {
            return Err(Errno::EINVAL);
        }
        let size = inner.size.checked_add(len).filter(|s| *s <= FILE_MAX).ok_or(Errno::EFBIG)?;
        self.paged(&mut inner)?;
        let mut ranges = Vec::new();
        let mut at = start / PAGE;
        while let Some(first) = inner.present.next_in(at) {
            at = inner.present.covered_to(first).unwrap_or(first + 1);
            ranges.push((first, at));
        }
        for page in ranges.into_iter().rev().flat_map(|(first, end)| (first..end).rev()) {
            self.move_page(&mut inner, page, page + len / PAGE)?;
        }
        inner.size = size;
        Ok(())
    }

    fn drop_pages(&self, inner: &mut Inner, first: u64, end: u64) {
        if let Some(layout) = &inner.layout {
            layout.clear(first * PAGE, end * PAGE);
        }
        self.quota.give(inner.present.remove(first, end));
    }

    /// Moves a page that is there to a place where none is.
    fn move_page(&self, inner: &mut Inner, from: u64, to: u64) -> Result<(), Errno> {
        let layout = inner.layout.as_mut().ok_or(Errno::EIO)?;
        let mut bytes = [0; PAGE as usize];
        let window = self.store.window();
        let (there, _) = layout.take(to * PAGE, PAGE)?;
        let here = layout.find(from * PAGE, PAGE).0.ok_or(Errno::EIO)?;
        window.read(here, &mut bytes).map_err(|_| Errno::EIO)?;
        window.write(there, &bytes).map_err(|_| Errno::EIO)?;
        layout.clear(from * PAGE, (from + 1) * PAGE);
        inner.present.remove(from, from + 1);
        inner.present.add(to, to + 1);
        Ok(())
    }

    /// The next data (or hole) from `at` on; ENXIO at or after the end.
    pub fn seek(&self, at: u64, data: bool) -> Result<u64, Errno> {
        let inner = self.inner.lock();
        if at >= inner.size {
            return Err(Errno::ENXIO);
        }
        if inner.layout.is_none() {
            return Ok(if data { at } else { inner.size });
        }
        if data {
            let page = inner.present.next_in(at / PAGE).ok_or(Errno::ENXIO)?;
            let found = at.max(page * PAGE);
            return if found < inner.size { Ok(found) } else { Err(Errno::ENXIO) };
        }
        Ok(match inner.present.covered_to(at / PAGE) {
            None => at,
            Some(page) => (page * PAGE).min(inner.size),
        })
    }

    /// Where the pages of a range lie, made present.
    pub fn populate(&self, offset: u64, len: u64) -> Result<Vec<Extent>, Errno> {
        let mut inner = self.inner.lock();
        let size = page_up(inner.size).ok_or(Errno::EFBIG)?;
        let offset = page_down(offset);
        if offset >= size {
            return Ok(Vec::new());
        }
        let want = page_up(offset.saturating_add(len.max(1))).ok_or(Errno::EFBIG)?;
        let end = want.max((offset + FAULT_AROUND).min(size)).min(size);
        self.paged(&mut inner)?;
        let mut p = offset;
        while p < end {
            p += match self.room(&mut inner, p, end) {
                Ok((_, len)) => len,
                Err(e) if p == offset => return Err(e),
                Err(_) => break,
            };
        }
        Ok(inner.layout.as_ref().map(|l| l.extents(offset, p)).unwrap_or_default())
    }
}

/// A mapping's view of a content: with the identity and path of the file it was mapped through.
pub struct Mapped {
    /// The bytes.
    pub content: Arc<Content>,
    /// Device and inode number.
    pub identity: (u64, u64),
    /// Where it was opened; `None` for memory without a file.
    pub path: Option<PathRef>,
    /// Counts it as a shared mapping that may be written, where there are seals.
    pub _writer: Option<Writer>,
}

impl MemoryObject for Mapped {
    fn populate(&self, offset: u64, len: u64, _write: bool) -> Result<Vec<Extent>, Errno> {
        self.content.populate(offset, len)
    }

    fn size(&self) -> u64 {
        self.content.size()
    }

    fn identity(&self) -> (u64, u64) {
        self.identity
    }

    fn path(&self) -> Vec<u8> {
        self.path.as_ref().map(PathRef::full).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_shm::Window;

    fn content(limit: u64) -> Arc<Content> {
        Content::new(Arc::new(Store::new(Window::create("t", 1 << 36).unwrap())), Quota::new(limit))
    }

    fn read(c: &Content, at: u64, n: usize) -> Vec<u8> {
        let mut v = Vec::new();
        c.read(at, &mut Sink::kernel(&mut v, n)).unwrap();
        v
    }

    #[test]
    fn small_content_grows_into_pages() {
        let c = content(1 << 20);
        c.write(0, false, &mut Source::kernel(b"hello")).unwrap();
        assert_eq!(read(&c, 1, 100), b"ello");
        let big = vec![7u8; 300_000];
        assert_eq!(c.write(3, false, &mut Source::kernel(&big)).unwrap(), (300_000, 300_003));
        assert_eq!(read(&c, 0, 5), [b'h', b'e', b'l', 7, 7]);
        assert_eq!(read(&c, 300_002, 9), [7]);
        assert_eq!(c.write(0, true, &mut Source::kernel(b"end")).unwrap(), (3, 300_006));
        assert_eq!(read(&c, 300_003, 9), b"end");
    }

    #[test]
    fn truncated_bytes_read_as_zeros_when_it_grows_again() {
        let c = content(1 << 20);
        c.write(0, false, &mut Source::kernel(&[9; 10_000])).unwrap();
        c.truncate(5000).unwrap();
        c.truncate(10_000).unwrap();
        assert_eq!(read(&c, 4999, 3), [9, 0, 0]);
        assert_eq!(c.pages(), 2);
    }

    #[test]
    fn holes_are_found_and_the_quota_holds() {
        let c = content(4);
        c.write(1 << 30, false, &mut Source::kernel(b"x")).unwrap();
        assert_eq!(c.seek(0, true), Ok(1 << 30));
        assert_eq!(c.seek(0, false), Ok(0));
        assert_eq!(read(&c, 5, 2), [0, 0]);
        assert_eq!(c.write(0, false, &mut Source::kernel(&[1; 5 * 4096])), Err(Errno::ENOSPC));
    }

    #[test]
    fn a_mapping_sees_what_was_written() {
        let c = content(100);
        c.write(0, false, &mut Source::kernel(b"inline")).unwrap();
        let e = c.populate(0, 1).unwrap();
        let mut b = [0; 6];
        c.store.window().read(e[0].host, &mut b).unwrap();
        assert_eq!(&b, b"inline");
        assert!(c.populate(4096, 1).unwrap().is_empty());
    }
}
