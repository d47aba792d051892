//! Signals of host-side processes (command line, stand-in, launcher): taken from a descriptor, never in a handler.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::error::{ConfineError, last};

/// A descriptor from which blocked signals are read.
#[derive(Debug)]
pub struct Signals {
    fd: File,
}

/// One signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal {
    /// Its number.
    pub number: i32,
    /// Who sent it, 0 for the kernel.
    pub pid: u32,
}

fn set_of(numbers: &[i32]) -> libc::sigset_t {
    // SAFETY: sigset_t is plain data; sigemptyset and sigaddset initialise and change the value they are given.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        for n in numbers {
            libc::sigaddset(&raw mut set, *n);
        }
        set
    }
}

impl Signals {
    /// Blocks `numbers` on this thread and opens a non-blocking, close-on-exec signalfd for them. Call it before
    /// there is a second thread.
    pub fn take(numbers: &[i32]) -> Result<Self, ConfineError> {
        let set = set_of(numbers);
        // SAFETY: set is a valid set for both calls; the old mask is not asked for.
        unsafe {
            if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
                return Err(last("sigprocmask"));
            }
            match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
                -1 => Err(last("signalfd")),
                fd => Ok(Self { fd: File::from(OwnedFd::from_raw_fd(fd)) }),
            }
        }
    }

    /// The next pending signal, if there is one.
    pub fn pending(&mut self) -> Option<Signal> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        match self.fd.read(&mut info) {
            Ok(n) if n == info.len() => {
                let word = |at: usize| info.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes);
                // ssi_signo is the first field, ssi_pid the fourth (signalfd(2)).
                let number = i32::try_from(word(0)?).ok()?;
                Some(Signal { number, pid: word(12)? })
            }
            _ => None,
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Every signal that can be blocked and forwarded: all but SIGKILL, SIGSTOP, SIGCHLD and those a fault raises.
pub fn forwardable() -> Vec<i32> {
    let not = [
        libc::SIGKILL,
        libc::SIGSTOP,
        libc::SIGCHLD,
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGILL,
        libc::SIGFPE,
        libc::SIGSYS,
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGPIPE,
    ];
    // glibc keeps 32 and 33 for itself.
    (1..=64).filter(|n| !not.contains(n) && *n != 32 && *n != 33).collect()
}

/// Unblocks every signal, as a new program should find it.
pub fn unblock_all() {
    let set = set_of(&[]);
    // SAFETY: set is a valid (empty) set.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
}

/// Ends this process by `number`, as whoever waits for it expects of the process it stands for. Comes back only if
/// that signal does not end a process.
pub fn die_of(number: i32) {
    // No core file of this process: it is not the one that crashed.
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    let set = set_of(&[number]);
    // SAFETY: restoring the default action and unblocking touch no memory of ours; the sets are valid.
    unsafe {
        libc::signal(number, libc::SIG_DFL);
        libc::raise(number);
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Stops this process, or its process group, by `number`, a blocked signal that stops; comes back when it is continued.
/// At once where that signal is ignored, or the process group is orphaned and nobody could continue it.
pub fn stop_by(number: i32, group: bool) {
    let set = set_of(&[number]);
    // SAFETY: kill, raise and getpid take scalars; the set is valid, the old masks are not asked for.
    unsafe {
        if group {
            libc::kill(0, number);
        } else {
            libc::raise(number);
        }
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}
