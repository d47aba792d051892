//! Content: reading, writing, the shared window, directories.

use std::cell::RefCell;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::PoisonError;

use cofferdam_ninep::Errno;
use cofferdam_ninep::codec::{DirEntry, DirWriter, Qid};
use rustix::fs::{FileType, RawDir, SeekFrom};
use rustix::io::ReadWriteFlags;

use super::attr::qid_kind;
use super::inode::statx_of;
use super::{CacheWindow, Host, Node};

/// What is moved at a time between file and window: stays in the core's cache between the two copies.
const CHUNK: usize = 64 * 1024;
const DIRENTS: usize = 32 * 1024;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; CHUNK]);
}

fn offset_ok(offset: u64, count: usize) -> Result<(), Errno> {
    // off_t is signed; the kernel would say the same.
    match offset.checked_add(count as u64) {
        Some(end) if i64::try_from(end).is_ok() => Ok(()),
        _ => Err(Errno::INVAL),
    }
}

/// pread(2) by the call that the policy has anyway for stdio; never with offset -1, which [`offset_ok`] refuses.
fn read_at(fd: impl AsFd, to: &mut [u8], offset: u64) -> rustix::io::Result<usize> {
    rustix::io::preadv2(fd, &mut [IoSliceMut::new(to)], offset, ReadWriteFlags::empty())
}

/// pwrite(2), likewise.
fn write_at(fd: impl AsFd, from: &[u8], offset: u64) -> rustix::io::Result<usize> {
    rustix::io::pwritev2(fd, &[IoSlice::new(from)], offset, ReadWriteFlags::empty())
}

fn again<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map_err(Errno::from),
        }
    }
}

/// Copies `count` bytes from one descriptor at an offset to another at an offset; gives what was moved.
fn copy(from: impl AsFd, mut at: u64, to: impl AsFd, mut put: u64, count: u32) -> Result<u32, Errno> {
    offset_ok(at, count as usize)?;
    offset_ok(put, count as usize)?;
    BUFFER.with_borrow_mut(|buffer| {
        let mut done = 0u32;
        while done < count {
            let want = buffer.len().min((count - done) as usize);
            let room = buffer.get_mut(..want).unwrap_or_default();
            let got = match again(|| read_at(&from, room, at)) {
                Ok(0) => break,
                Ok(got) => got,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            };
            let mut rest = room.get(..got).unwrap_or_default();
            while !rest.is_empty() {
                match again(|| write_at(&to, rest, put)) {
                    Ok(n) if n > 0 => {
                        rest = rest.get(n..).unwrap_or_default();
                        put += n as u64;
                        at += n as u64;
                        done += n as u32;
                    }
                    Ok(_) => return Ok(done),
                    Err(e) if done == 0 => return Err(e),
                    Err(_) => return Ok(done),
                }
            }
        }
        Ok(done)
    })
}

impl Host {
    pub(super) fn window(&self) -> Result<&CacheWindow, Errno> {
        self.window.as_ref().ok_or(Errno::OPNOTSUPP)
    }

    pub(super) fn read_file(&self, node: &Node, offset: u64, count: u32, to: &mut Vec<u8>) -> Result<(), Errno> {
        let open = node.opened()?;
        if !open.read {
            return Err(Errno::BADF);
        }
        offset_ok(offset, count as usize)?;
        let start = to.len();
        to.resize(start.saturating_add(count as usize), 0);
        let got = again(|| read_at(&open.fd, to.get_mut(start..).unwrap_or_default(), offset));
        to.truncate(start + got.unwrap_or(0));
        got.map(|_| ())
    }

    pub(super) fn write_file(&self, node: &Node, offset: u64, data: &[u8]) -> Result<u32, Errno> {
        let open = node.opened()?;
        if !open.write {
            return Err(Errno::BADF);
        }
        offset_ok(offset, data.len())?;
        let n = again(|| write_at(&open.fd, data, offset))?;
        u32::try_from(n).map_err(|_| Errno::FBIG)
    }

    pub(super) fn fill_window(&self, node: &Node, offset: u64, count: u32, at: u64) -> Result<u32, Errno> {
        let (open, window) = (node.opened()?, self.window()?);
        if !open.read {
            return Err(Errno::BADF);
        }
        window.check(at, count)?;
        copy(&open.fd, offset, window.0.fd(), at, count)
    }

    /// As [`fill_window`](Self::fill_window) by one copy: for pages that are there, and mapped. New ones would be faulted in
    /// one by one, which takes longer than a second copy.
    pub(super) fn refill_window(&self, node: &Node, offset: u64, count: u32, at: u64) -> Result<u32, Errno> {
        let (open, window) = (node.opened()?, self.window()?);
        if !open.read {
            return Err(Errno::BADF);
        }
        window.check(at, count)?;
        offset_ok(offset, count as usize)?;
        let mut done = 0u32;
        while done < count {
            let (from, to) = (offset + u64::from(done), at + u64::from(done));
            match again(|| window.0.read_from(&open.fd, from, to, (count - done) as usize)) {
                Ok(0) => break,
                Ok(n) => done += n as u32,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    pub(super) fn spill_window(&self, node: &Node, offset: u64, count: u32, at: u64) -> Result<u32, Errno> {
        let (open, window) = (node.opened()?, self.window()?);
        if !open.write {
            return Err(Errno::BADF);
        }
        window.check(at, count)?;
        copy(window.0.fd(), at, &open.fd, offset, count)
    }

    pub(super) fn list(&self, node: &Node, offset: u64, to: &mut DirWriter<'_>) -> Result<(), Errno> {
        let open = node.opened()?;
        if !node.inode.is_dir() {
            return Err(Errno::NOTDIR);
        }
        if node.inode.barred {
            return Ok(());
        }
        let own = Qid { kind: qid_kind(FileType::Directory), version: 0, path: self.path_of(node.inode.key) };
        let _one = open.reading.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::fs::seek(&open.fd, SeekFrom::Start(offset))?;
        let mut space = [MaybeUninit::<u8>::uninit(); DIRENTS];
        let mut entries = RawDir::new(&open.fd, &mut space);
        let mut any = false;
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !to.fits(name) {
                // A budget too small for a single entry must not look like the end.
                return if any { Ok(()) } else { Err(Errno::INVAL) };
            }
            let dots = matches!(name, b"." | b"..");
            let stat = if to.with_attr() && !dots { statx_of(&open.fd, name).ok() } else { None };
            let attr = stat.map(|s| self.attr_in(&node.inode, &s));
            let qid = match attr {
                Some(attr) => attr.qid,
                // What lies above an export is nobody's business.
                None if dots => own,
                None => Qid {
                    kind: qid_kind(entry.file_type()),
                    version: 0,
                    path: self.path_of((node.inode.key.0, entry.ino())),
                },
            };
            let kind = dirent_kind(entry.file_type());
            any |= to.push(&DirEntry { qid, offset: entry.next_entry_cookie(), kind, name, attr });
        }
        Ok(())
    }
}

/// DT_* of a kind (readdir(3)).
fn dirent_kind(kind: FileType) -> u8 {
    match kind {
        FileType::Fifo => 1,
        FileType::CharacterDevice => 2,
        FileType::Directory => 4,
        FileType::BlockDevice => 6,
        FileType::RegularFile => 8,
        FileType::Symlink => 10,
        FileType::Socket => 12,
        FileType::Unknown => 0,
    }
}
