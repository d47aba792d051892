//! Host calls on stubs: their memory (`process_vm_readv(2)`) and signals to them.

use cofferdam_shm::Window;

use crate::MemoryError;
use crate::layout::INTERRUPT;

fn result(n: isize) -> Result<usize, MemoryError> {
    match usize::try_from(n) {
        Ok(n) => Ok(n),
        Err(_) if std::io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT) => Err(MemoryError::Fault),
        Err(_) => Err(MemoryError::Gone),
    }
}

/// One of `process_vm_readv` and `process_vm_writev`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
}

/// Bytes that take long enough to copy for another thread to serve meanwhile.
const LONG: usize = 256 << 10;

fn transfer(direction: Direction, tid: i32, address: u64, local: *mut u8, len: usize) -> Result<usize, MemoryError> {
    // The host checks the remote range; refuse what is not the container's before it gets there.
    if address.checked_add(len as u64).is_none_or(|end| end > crate::GUEST_TOP) && !in_vdso_range(address, len) {
        return Err(MemoryError::Fault);
    }
    if len >= LONG {
        crate::about_to_block();
    }
    let local = libc::iovec { iov_base: local.cast(), iov_len: len };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: len };
    // SAFETY: `local` describes memory of ours that the callers own for the length given; the host checks the remote
    // side. For a write the local memory is only read.
    let n = unsafe {
        match direction {
            Direction::Read => libc::process_vm_readv(tid, &local, 1, &remote, 1, 0),
            Direction::Write => libc::process_vm_writev(tid, &local, 1, &remote, 1, 0),
        }
    };
    result(n)
}

/// Above the stub lies what the host mapped at exec: the container may have the Sentry read the vDSO there (a debugger
/// does); nothing there is writable but the starter's old stack.
fn in_vdso_range(address: u64, len: usize) -> bool {
    address >= 0x7e00_0000_0000 && address.checked_add(len as u64).is_some_and(|end| end <= 0x7fff_ffff_f000)
}

pub(crate) fn read(tid: i32, address: u64, to: &mut [u8]) -> Result<usize, MemoryError> {
    if to.is_empty() {
        return Ok(0);
    }
    transfer(Direction::Read, tid, address, to.as_mut_ptr(), to.len())
}

pub(crate) fn write(tid: i32, address: u64, from: &[u8]) -> Result<usize, MemoryError> {
    if from.is_empty() {
        return Ok(0);
    }
    transfer(Direction::Write, tid, address, from.as_ptr().cast_mut(), from.len())
}

pub(crate) fn read_into(tid: i32, address: u64, w: &Window, offset: u64, len: usize) -> Result<usize, MemoryError> {
    let local = w.address(offset, len).map_err(|_| MemoryError::Fault)?;
    transfer(Direction::Read, tid, address, local, len)
}

pub(crate) fn write_from(tid: i32, address: u64, w: &Window, offset: u64, len: usize) -> Result<usize, MemoryError> {
    let local = w.address(offset, len).map_err(|_| MemoryError::Fault)?;
    transfer(Direction::Write, tid, address, local, len)
}

/// A random number that no stub can guess; `None` if the host has none to give.
pub(crate) fn random() -> Option<u32> {
    let mut bytes = [0u8; 4];
    // SAFETY: getrandom fills at most the 4 bytes.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    (got == 4).then_some(u32::from_le_bytes(bytes))
}

/// Interrupts one thread.
pub(crate) fn interrupt(process: i32, tid: i32) {
    // SAFETY: tgkill touches no memory. A thread that is gone gives ESRCH, which is as good.
    unsafe { libc::syscall(libc::SYS_tgkill, process, tid, INTERRUPT) };
}

/// Ends a host process.
pub(crate) fn kill(process: i32) {
    if process > 1 {
        // SAFETY: kill touches no memory; the id is positive, so it names one process.
        unsafe { libc::kill(process, libc::SIGKILL) };
    }
}

/// Ends whatever is in a host process group, or (without `end`) only looks; whether anything is.
pub(crate) fn signal_group(group: i32, end: bool) -> bool {
    // SAFETY: kill touches no memory; the id is negative and not -1, so it names one group.
    group > 1 && unsafe { libc::kill(-group, if end { libc::SIGKILL } else { 0 }) } == 0
}

/// The process group of a thread's process.
pub(crate) fn group_of(tid: i32) -> Option<i32> {
    // SAFETY: getpgid touches no memory.
    let group = unsafe { libc::getpgid(tid) };
    (tid > 0 && group > 0).then_some(group)
}

/// Whether a thread has something mapped at an address of the slots; `None` if the host does not say.
pub(crate) fn maps(tid: i32, address: u64) -> Option<bool> {
    let mut byte = 0u8;
    let local = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: 1 };
    // SAFETY: `local` describes one byte of ours; the host checks the remote side.
    match result(unsafe { libc::process_vm_readv(tid, &local, 1, &remote, 1, 0) }) {
        Ok(n) => Some(n == 1),
        Err(MemoryError::Fault) => Some(false),
        Err(MemoryError::Gone) => None,
    }
}

/// CPU time of the process that the thread `tid` belongs to, nanoseconds; 0 if it is gone.
pub fn process_cpu(tid: i32) -> i64 {
    if tid <= 0 {
        return 0;
    }
    // The clock of a process by its id: ~pid << 3 | CPUCLOCK_SCHED (clock_getcpuclockid(3)).
    let clock = (!tid << 3) | 2;
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime fills one timespec.
    if unsafe { libc::clock_gettime(clock, &mut t) } != 0 {
        return 0;
    }
    t.tv_sec.saturating_mul(1_000_000_000).saturating_add(t.tv_nsec)
}
