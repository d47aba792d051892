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

/// CPU time that the host counted for a process, nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTimes {
    /// In all, exactly.
    pub total: i64,
    /// What ticks found it doing: running code of its own, and in the host. Only their ratio means something.
    pub user: i64,
    /// See `user`.
    pub system: i64,
}

/// CPU time of the process that the thread `tid` belongs to; zeros if it is gone.
pub fn process_cpu(tid: i32) -> CpuTimes {
    let total = cpu_clock(tid, 2);
    // What is small has had few ticks, if any: three calls for nothing.
    if total < TICK {
        return CpuTimes { total, ..CpuTimes::default() };
    }
    let (both, user) = (cpu_clock(tid, 0), cpu_clock(tid, 1));
    CpuTimes { total, user, system: both.saturating_sub(user).max(0) }
}

/// The longest tick of a host, nanoseconds.
const TICK: i64 = 10_000_000;

/// A CPU clock of a process: `CPUCLOCK_PROF` (0), `CPUCLOCK_VIRT` (1), `CPUCLOCK_SCHED` (2).
fn cpu_clock(tid: i32, which: i32) -> i64 {
    if tid <= 0 {
        return 0;
    }
    // The clock of a process by its id: ~pid << 3 | which (clock_getcpuclockid(3)).
    let clock = (!tid << 3) | which;
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime fills one timespec.
    if unsafe { libc::clock_gettime(clock, &mut t) } != 0 {
        return 0;
    }
    t.tv_sec.saturating_mul(1_000_000_000).saturating_add(t.tv_nsec)
}

/// Pages asked about in one host call.
const ASKED: usize = 256;
/// Such calls that take long enough for another thread to serve meanwhile.
const LONG_ASKING: usize = 4;

/// What a page of a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Nothing yet.
    Absent,
    /// The host's page of zeros: it was read, and takes no memory.
    Zeros,
    /// In memory.
    Present,
}

/// Tells of each of these pages of a thread's process what it is, in order; false if the host does not say. The pages must lie
/// in what is mapped. This is `move_pages(2)` that moves nothing.
pub fn resident(tid: i32, pages: impl Iterator<Item = u64>, mut tell: impl FnMut(Page)) -> bool {
    if tid <= 0 {
        return false;
    }
    let mut pages = pages.peekable();
    let mut calls = 0;
    while pages.peek().is_some() {
        calls += 1;
        if calls == LONG_ASKING {
            crate::about_to_block();
        }
        let mut asked = [std::ptr::null::<libc::c_void>(); ASKED];
        let mut found = [0i32; ASKED];
        let mut n = 0;
        for (slot, page) in asked.iter_mut().zip(&mut pages) {
            *slot = page as *const libc::c_void;
            n += 1;
        }
        // SAFETY: `asked` and `found` have `n` elements at least; the addresses in `asked` are only looked up. Without nodes
        // nothing is moved.
        let r = unsafe {
            libc::syscall(
                libc::SYS_move_pages,
                tid,
                n as libc::c_ulong,
                asked.as_ptr(),
                std::ptr::null::<libc::c_int>(),
                found.as_mut_ptr(),
                0,
            )
        };
        if r != 0 {
            return false;
        }
        for node in found.iter().take(n) {
            tell(match *node {
                0.. => Page::Present,
                e if e == -libc::EFAULT => Page::Zeros,
                _ => Page::Absent,
            });
        }
    }
    true
}

/// How the host schedules this process: the processors it may run on, ascending, and its nice value. What the container asks for counts
/// from there.
static OWN: std::sync::OnceLock<(Vec<usize>, i32)> = std::sync::OnceLock::new();

/// Looks how the host schedules this process. To be called before the walls go up.
pub fn learn_scheduling() {
    OWN.get_or_init(|| {
        // SAFETY: `set` is a plain mask that sched_getaffinity fills; both calls change nothing.
        let (set, nice) = unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set);
            (set, libc::getpriority(libc::PRIO_PROCESS, 0))
        };
        // SAFETY: CPU_ISSET looks within the set.
        let there = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &set) };
        ((0..libc::CPU_SETSIZE.unsigned_abs() as usize).filter(there).collect(), nice)
    });
}

/// Has the host schedule a stub's thread so much more nicely (0 to 19) than this process. False where the host refuses: what was given up
/// is not had back without a right.
pub fn set_nice(tid: i32, nice: i32) -> bool {
    let own = OWN.get().map_or(0, |(_, nice)| *nice);
    let which = libc::PRIO_PROCESS;
    // SAFETY: setpriority takes numbers only.
    tid > 0 && unsafe { libc::setpriority(which, tid.cast_unsigned(), own.saturating_add(nice).min(19)) } == 0
}

/// Has the host run a stub's thread only on these of the processors that this process may run on, by their places among them; `None` for
/// all. False where the host refuses.
pub fn set_affinity(tid: i32, places: Option<&[usize]>) -> bool {
    let Some((cpus, _)) = OWN.get() else { return false };
    // SAFETY: a mask of zeros is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let chosen = cpus.iter().enumerate().filter(|(place, _)| places.is_none_or(|p| p.contains(place)));
    for (_, cpu) in chosen.filter(|(_, cpu)| **cpu < libc::CPU_SETSIZE.unsigned_abs() as usize) {
        // SAFETY: the number is within the set.
        unsafe { libc::CPU_SET(*cpu, &mut set) };
    }
    // SAFETY: `set` is as long as is said.
    tid > 0 && unsafe { libc::sched_setaffinity(tid, size_of::<libc::cpu_set_t>(), &set) } == 0
}

/// Has the calling thread go on on another of the processors that this process may run on. It may come back when the host likes. False if
/// there is no other.
pub(crate) fn leave_core(core: i32) -> bool {
    let Some((cpus, _)) = OWN.get() else { return false };
    let others: Vec<usize> =
        (0..cpus.len()).filter(|place| cpus.get(*place).is_some_and(|cpu| i32::try_from(*cpu) != Ok(core))).collect();
    // SAFETY: takes nothing.
    let me = unsafe { libc::gettid() };
    if others.is_empty() || !set_affinity(me, Some(&others)) {
        return false;
    }
    set_affinity(me, None)
}

/// Bytes of `struct rseq` that the host fills, and how it wants them aligned. `None` where it does not say; and where the container's
/// processors have other numbers than the host's, since the host writes its own.
pub fn rseq_features() -> Option<(u64, u64)> {
    const AT_RSEQ_FEATURE_SIZE: u64 = 27;
    const AT_RSEQ_ALIGN: u64 = 28;
    let alike = OWN.get().is_some_and(|(cpus, _)| cpus.iter().copied().eq(0..cpus.len()));
    // SAFETY: getauxval only reads what the host gave this process at its start.
    let (size, align) = unsafe { (libc::getauxval(AT_RSEQ_FEATURE_SIZE), libc::getauxval(AT_RSEQ_ALIGN)) };
    (alike && size != 0 && align != 0).then_some((size, align))
}

/// The place, among the processors that this process may run on, of the one that the calling thread runs on.
pub fn current_processor() -> usize {
    // SAFETY: sched_getcpu takes nothing and only tells.
    let cpu = usize::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(0);
    OWN.get().and_then(|(cpus, _)| cpus.iter().position(|c| *c == cpu)).unwrap_or(0)
}

/// The time stamp counter and CLOCK_MONOTONIC (nanoseconds) at one moment.
fn stamp() -> (u64, u64) {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime fills one timespec; every x86-64 processor has the counter, and reading it changes nothing.
    let counter = unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t);
        std::arch::x86_64::_rdtsc()
    };
    (counter, t.tv_sec.cast_unsigned().saturating_mul(1_000_000_000).saturating_add(t.tv_nsec.cast_unsigned()))
}

static FIRST: std::sync::OnceLock<(u64, u64)> = std::sync::OnceLock::new();
static KHZ: std::sync::OnceLock<u64> = std::sync::OnceLock::new();

/// Nanoseconds over which the time stamp counter is measured at least.
const MEASURE: u64 = 20_000_000;

/// From now on the time stamp counter is measured.
pub fn start_tsc() {
    FIRST.get_or_init(stamp);
}

/// kHz of the time stamp counter, measured against the clock once. Waits if it began only just now.
pub fn tsc_khz() -> u64 {
    *KHZ.get_or_init(|| {
        let first = *FIRST.get_or_init(stamp);
        let passed = stamp().1.saturating_sub(first.1);
        if let Some(left) = MEASURE.checked_sub(passed) {
            std::thread::sleep(std::time::Duration::from_nanos(left));
        }
        let now = stamp();
        let (ticks, ns) = (now.0.saturating_sub(first.0), now.1.saturating_sub(first.1).max(1));
        u64::try_from(u128::from(ticks) * 1_000_000 / u128::from(ns)).unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touched_pages_are_present() {
        let me = std::process::id().cast_signed();
        let touched = vec![1u8; 16 << 12];
        let first = (touched.as_ptr() as u64 + 4095) & !4095;
        let mut found = Vec::new();
        assert!(resident(me, (0..8).map(|p| first + p * 4096), |page| found.push(page)));
        assert_eq!(found, [Page::Present; 8]);
        assert!(!resident(i32::MAX, [first].into_iter(), |_| ()), "nobody has that number");
    }

    #[test]
    fn time_is_counted() {
        let me = std::process::id().cast_signed();
        let first = process_cpu(me).total;
        let mut n = 0u64;
        while process_cpu(me).total < first + 1_000_000 {
            n = std::hint::black_box(n + 1);
        }
        assert_eq!(process_cpu(-1).total, 0);
        assert!(tsc_khz() > 100_000, "slower than any processor that there is");
    }
}
