//! A window: one memfd, mapped once and whole, read and written by copy.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

/// Why a window could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// The host refused a call on the memfd behind the window.
    #[error("{what} of a {size}-byte window: {source}")]
    Host {
        /// The call that failed.
        what: &'static str,
        /// Size of the window in bytes.
        size: u64,
        /// The host's answer.
        source: rustix::io::Errno,
    },
    /// The range does not lie within the window.
    #[error("range {offset:#x}+{len:#x} outside a window of {size:#x} bytes")]
    OutOfRange {
        /// Start of the range in bytes.
        offset: u64,
        /// Length of the range in bytes.
        len: usize,
        /// Size of the window in bytes.
        size: u64,
    },
    /// A descriptor that a peer handed over is no memfd of the promised size, or may still shrink under us.
    #[error("the peer's memfd is not sealed against shrinking, or not {0} bytes long")]
    NotSealed(u64),
}

/// A sparse memfd, sealed against shrinking, mapped shared into this process.
///
/// The pages belong to whoever shares the memfd: they can change at any time. Every access copies.
#[derive(Debug)]
pub struct Window {
    fd: OwnedFd,
    base: NonNull<u8>,
    size: u64,
}

// SAFETY: the mapping lives as long as the value and every access through it is a copy by raw pointer that assumes
// nothing of the content, so it may be moved to and used from any thread.
unsafe impl Send for Window {}
// SAFETY: as for Send; concurrent copies may tear, which callers must expect of peer-writable memory anyway.
unsafe impl Sync for Window {}

impl Window {
    /// Makes a new sparse memfd of `size` bytes named `name` and maps it.
    pub fn create(name: &str, size: u64) -> Result<Self, WindowError> {
        let host = |what| move |source| WindowError::Host { what, size, source };
        let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(host("memfd_create"))?;
        rustix::fs::ftruncate(&fd, size).map_err(host("ftruncate"))?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(host("F_ADD_SEALS"))?;
        Self::map(fd, size)
    }

    /// Maps a memfd that a peer made with [`Window::create`], after checking that it cannot shrink under us.
    pub fn from_peer(fd: OwnedFd, size: u64) -> Result<Self, WindowError> {
        let host = |what| move |source| WindowError::Host { what, size, source };
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(host("F_GET_SEALS"))?;
        let stat = rustix::fs::fstat(&fd).map_err(host("fstat"))?;
        if !seals.contains(SealFlags::SHRINK) || u64::try_from(stat.st_size).ok() != Some(size) {
            return Err(WindowError::NotSealed(size));
        }
        Self::map(fd, size)
    }

    /// Maps a memfd that the supervisor made with [`Window::create`] and handed over: for who may not ask the host about it any more.
    pub fn from_supervisor(fd: OwnedFd, size: u64) -> Result<Self, WindowError> {
        Self::map(fd, size)
    }

    fn map(fd: OwnedFd, size: u64) -> Result<Self, WindowError> {
        let out = WindowError::OutOfRange { offset: 0, len: usize::MAX, size };
        let len = usize::try_from(size).map_err(|_| out)?;
        // SAFETY: a new mapping at an address the kernel chooses aliases nothing of ours.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                &fd,
                0,
            )
        }
        .map_err(|source| WindowError::Host { what: "mmap", size, source })?;
        match NonNull::new(base.cast()) {
            Some(base) => Ok(Self { fd, base, size }),
            None => Err(WindowError::Host { what: "mmap", size, source: rustix::io::Errno::INVAL }),
        }
    }

    /// The memfd, to hand to a peer.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The address of a range of the window, for system calls that copy from or to it (never for references).
    pub fn address(&self, offset: u64, len: usize) -> Result<*mut u8, WindowError> {
        let out = || WindowError::OutOfRange { offset, len, size: self.size };
        let end = offset.checked_add(len as u64).ok_or_else(out)?;
        if end > self.size {
            return Err(out());
        }
        let offset = usize::try_from(offset).map_err(|_| out())?;
        // SAFETY: offset <= size and the mapping is size bytes long.
        Ok(unsafe { self.base.as_ptr().add(offset) })
    }

    /// Copies `to.len()` bytes at `offset` out of the window.
    pub fn read(&self, offset: u64, to: &mut [u8]) -> Result<(), WindowError> {
        let from = self.address(offset, to.len())?;
        // SAFETY: address() checked the range; the memfd cannot shrink, so the pages stay; no reference is made.
        unsafe { std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    /// Copies `from` into the window at `offset`.
    pub fn write(&self, offset: u64, from: &[u8]) -> Result<(), WindowError> {
        let to = self.address(offset, from.len())?;
        // SAFETY: as in read().
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
        Ok(())
    }

    /// Has the host copy up to `len` bytes of a file at `at` into the window at `offset` (preadv2(2)); how many it was.
    /// EINVAL for a range outside of the window.
    pub fn read_from(&self, file: impl AsFd, at: u64, offset: u64, len: usize) -> rustix::io::Result<usize> {
        let to = self.address(offset, len).map_err(|_| rustix::io::Errno::INVAL)?;
        let at = i64::try_from(at).map_err(|_| rustix::io::Errno::INVAL)?;
        let part = libc::iovec { iov_base: to.cast(), iov_len: len };
        // SAFETY: address() checked the range; the host writes to it as any peer may at any time, and no reference is made.
        let got = unsafe { libc::preadv2(file.as_fd().as_raw_fd(), &raw const part, 1, at, 0) };
        usize::try_from(got).map_err(|_| {
            let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
            rustix::io::Errno::from_raw_os_error(error)
        })
    }

    /// A word of the window that the peer may change at any time. `None` unless it lies in the window, aligned.
    fn word(&self, offset: u64) -> Option<&AtomicU32> {
        if !offset.is_multiple_of(4) {
            return None;
        }
        let at = self.address(offset, 4).ok()?;
        // SAFETY: address() checked the range, the mapping is page-aligned and the offset a multiple of 4, and it lives as
        // long as `self`. An atomic may be changed by others, in another process too.
        Some(unsafe { AtomicU32::from_ptr(at.cast()) })
    }

    /// Loads a word, before what is read of the window later; 0 outside of it.
    pub fn load(&self, offset: u64) -> u32 {
        self.word(offset).map_or(0, |w| w.load(Ordering::Acquire))
    }

    /// Stores a word, after all that was written to the window before.
    pub fn store(&self, offset: u64, value: u32) {
        if let Some(w) = self.word(offset) {
            w.store(value, Ordering::SeqCst);
        }
    }

    /// Replaces a word that has the value `old`; whether it had.
    pub fn replace(&self, offset: u64, old: u32, new: u32) -> bool {
        self.word(offset).is_some_and(|w| w.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok())
    }

    /// Gives the pages of a range back to the host; they read as zeros afterwards. Whole pages only.
    pub fn punch(&self, offset: u64, len: u64) -> Result<(), WindowError> {
        rustix::fs::fallocate(&self.fd, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)
            .map_err(|source| WindowError::Host { what: "fallocate(PUNCH_HOLE)", size: self.size, source })
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: base and size are what mmap gave; nothing keeps a pointer past the value's life by contract.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.size as usize) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_punched_away() {
        let w = Window::create("test", 1 << 40).unwrap();
        w.write((1 << 39) + 5, b"hello").unwrap();
        let mut b = [0; 5];
        w.read((1 << 39) + 5, &mut b).unwrap();
        assert_eq!(&b, b"hello");
        w.punch(1 << 39, 4096).unwrap();
        w.read((1 << 39) + 5, &mut b).unwrap();
        assert_eq!(b, [0; 5]);
    }

    #[test]
    fn words_are_replaced_only_from_what_they_were() {
        let w = Window::create("test", 4096).unwrap();
        w.store(8, 1);
        assert!(w.replace(8, 1, 2) && !w.replace(8, 1, 3));
        assert_eq!(w.load(8), 2);
        assert!(!w.replace(4094, 0, 1) && !w.replace(4096, 0, 1) && !w.replace(2, 0, 1));
    }

    #[test]
    fn a_range_that_ends_outside_or_overflows_is_refused() {
        let w = Window::create("test", 4096).unwrap();
        assert!(w.read(4095, &mut [0; 2]).is_err());
        assert!(w.write(u64::MAX, &[0]).is_err());
        assert!(w.read(4095, &mut [0; 1]).is_ok());
    }

    #[test]
    fn a_file_is_read_into_the_range_and_nowhere_else() {
        let (file, w) = (Window::create("file", 4096).unwrap(), Window::create("test", 8192).unwrap());
        file.write(100, b"some bytes").unwrap();
        assert_eq!(w.read_from(file.fd(), 100, 4090, 10), Ok(10));
        let mut b = [1; 12];
        w.read(4089, &mut b).unwrap();
        assert_eq!(&b, b"\0some bytes\0");
        assert_eq!(w.read_from(file.fd(), 4090, 0, 100), Ok(6), "the end of the file");
        assert_eq!(w.read_from(file.fd(), 0, 8000, 193), Err(rustix::io::Errno::INVAL));
        assert_eq!(w.read_from(file.fd(), u64::MAX, 0, 1), Err(rustix::io::Errno::INVAL));
    }

    #[test]
    fn a_memfd_that_can_shrink_is_refused() {
        let fd = rustix::fs::memfd_create("evil", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&fd, 4096).unwrap();
        assert!(matches!(Window::from_peer(fd, 4096), Err(WindowError::NotSealed(_))));
    }
}
