//! Starting the stub starter: before the Sentry confines itself, once.
//!
//! The starter gets descriptors by fixed numbers and nothing else: the slots memfd, the host windows, a pipe to report
//! ended processes on. It must not inherit the Sentry's filter (filters stack, the most severe wins), so it is born first.

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Setup;
use crate::layout::*;
use crate::slots::Slots;

/// Why a platform could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A host call failed.
    #[error("{what}: {source}")]
    Host {
        /// Which.
        what: &'static str,
        /// The host's answer.
        source: std::io::Error,
    },
    /// Slots could not be made.
    #[error(transparent)]
    Window(#[from] cofferdam_shm::WindowError),
    /// The starter gave up or never answered.
    #[error("the stub starter failed: {0}")]
    Starter(String),
    /// The host lacks what the platform needs.
    #[error("this host cannot run the platform: {0}")]
    Unsupported(String),
}

pub(crate) fn last(what: &'static str) -> StartError {
    StartError::Host { what, source: std::io::Error::last_os_error() }
}

const STUB: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cofferdam-stub"));

/// What came of it.
pub(crate) struct Started {
    pub(crate) slots: Arc<Slots>,
    /// Pids and statuses of ended stub processes arrive here.
    pub(crate) pipe: OwnedFd,
    pub(crate) template: i32,
    /// The template's listener descriptor, in the template (notify).
    pub(crate) listener: i32,
    pub(crate) vdso: (u64, u64),
    /// Labels of the short way, as [`BOOT_SHORT`] lists them.
    pub(crate) short: [u64; 5],
}

fn put_filter(slots: &Slots, at: u64, filter: &[u64]) -> Result<(), StartError> {
    slots.set_word(at, filter.len() as u64);
    for (i, instruction) in filter.iter().enumerate() {
        slots.window.write(at + 8 + 8 * i as u64, &instruction.to_le_bytes())?;
    }
    Ok(())
}

/// Starts starter and template. `mode`: see [`BOOT_MODE`].
pub(crate) fn start(setup: &Setup, mode: u64, stub_filter: &[u64]) -> Result<Started, StartError> {
    let slots = Slots::new()?;
    slots.set_word(BOOT_MODE, mode);
    put_filter(&slots, BOOT_STARTER_FILTER, &setup.starter_filter)?;
    put_filter(&slots, BOOT_STUB_FILTER, stub_filter)?;
    if setup.windows.len() != WINDOWS as usize {
        return Err(StartError::Starter(format!("{} host windows, not {WINDOWS}", setup.windows.len())));
    }

    let mut pipe = [0; 2];
    // SAFETY: pipe2 fills the array.
    if unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(last("pipe2"));
    }
    // SAFETY: the pipe's ends are fresh descriptors of ours.
    let (read_end, write_end) = unsafe { (OwnedFd::from_raw_fd(pipe[0]), OwnedFd::from_raw_fd(pipe[1])) };
    let name = CString::new("cofferdam-stub").unwrap_or_default();
    // SAFETY: memfd_create reads the name.
    let exe = unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) };
    if exe < 0 {
        return Err(last("memfd_create"));
    }
    // SAFETY: a fresh descriptor of ours.
    let exe = unsafe { OwnedFd::from_raw_fd(exe) };
    let mut file = std::fs::File::from(exe);
    std::io::Write::write_all(&mut file, STUB)
        .map_err(|source| StartError::Host { what: "writing the stub", source })?;
    // Read-only from here: an executable that is open for writing cannot be run.
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default();
    // SAFETY: open reads the path.
    let read_only = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    let exe: OwnedFd = if read_only >= 0 {
        drop(file);
        // SAFETY: a fresh descriptor of ours.
        unsafe { OwnedFd::from_raw_fd(read_only) }
    } else {
        // No /proc: the kernel refuses only files open for writing through a path (ETXTBSY) on memfds it can deny.
        file.into()
    };

    // All descriptors the child needs, moved out of the way of the numbers they are to get.
    let mut wanted: Vec<(RawFd, RawFd)> = vec![(slots.window.fd().as_raw_fd(), SLOTS_FD)];
    for (i, w) in setup.windows.iter().enumerate() {
        wanted.push((w.as_raw_fd(), WINDOW_FD + i as RawFd));
    }
    wanted.push((write_end.as_raw_fd(), PIPE_FD));
    let empty = CString::default();
    let score = setup.oom_score_adj.map(|n| n.to_string());
    let argv = [name.as_ptr(), std::ptr::null()];
    let envp = [std::ptr::null::<libc::c_char>()];

    // Stubs can be looked into, so the host would dump a dying one's memory: to a file, or to a program whatever the limit
    // says unless it says 1 (core(5), fs/coredump.c). The Sentry's own walls lower it to 0.
    let none = libc::rlimit { rlim_cur: 1, rlim_max: 1 };
    // SAFETY: setrlimit reads one struct rlimit.
    if unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) } != 0 {
        // Lowered for good by the caller: no file then, and a program gets a dump without any memory in it.
        std::fs::write("/proc/self/coredump_filter", "0")
            .map_err(|source| StartError::Host { what: "coredump_filter", source })?;
    }
    // SAFETY: the child only makes system calls on prepared data until it execs: it neither allocates nor locks.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(last("fork"));
    }
    if pid == 0 {
        // SAFETY: as above; all pointers are to data made before the fork.
        unsafe {
            // Highest first, so that no source is overwritten: sources are moved above 100 first.
            let exe_high = libc::fcntl(exe.as_raw_fd(), libc::F_DUPFD, 200);
            for (i, (from, _)) in wanted.iter().enumerate() {
                libc::dup2(*from, 100 + i as RawFd);
            }
            for (i, (_, to)) in wanted.iter().enumerate() {
                libc::dup2(100 + i as RawFd, *to);
            }
            libc::syscall(libc::SYS_close_range, 0, SLOTS_FD - 1, 0);
            libc::syscall(libc::SYS_close_range, PIPE_FD + 1, exe_high - 1, 0);
            libc::syscall(libc::SYS_close_range, exe_high + 1, !0u32, 0);
            libc::fcntl(exe_high, libc::F_SETFD, libc::FD_CLOEXEC);
            // Before the exec, as the starter's policy names no file. Where it fails the stubs have the Sentry's own: no more is lost.
            if let Some(text) = &score {
                let file = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                libc::write(file, text.as_ptr().cast(), text.len());
                libc::close(file);
            }
            // Signal state is inherited over exec: none blocked, none ignored.
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            libc::syscall(
                libc::SYS_execveat,
                exe_high,
                empty.as_ptr(),
                argv.as_ptr(),
                envp.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
            libc::_exit(100);
        }
    }
    drop(write_end);

    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let listener = slots.word(BOOT_LISTENER) as i64;
        if listener < 0 {
            // Nothing of it may be left for another platform to find: nor the template, which is ours once its parent is gone.
            crate::host::kill(pid);
            // SAFETY: waitpid writes nothing. The starter was just killed, and the template ends by itself.
            while unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } > 0 {}
            return Err(StartError::Unsupported(format!(
                "seccomp user notification: {}",
                std::io::Error::from_raw_os_error((-listener) as i32)
            )));
        }
        if listener > 0 && slots.word(BOOT_CONFINED) == 1 {
            let template = slots.word(BOOT_TEMPLATE) as i32;
            let base = slots.word(BOOT_VDSO);
            let vdso = (base, vdso_len(template, base));
            let short = [0, 1, 2, 3, 4].map(|i| slots.word(BOOT_SHORT + 8 * i));
            return Ok(Started { slots, pipe: read_end, template, listener: listener as i32 - 1, vdso, short });
        }
        let mut status = 0;
        // SAFETY: waitpid writes the status.
        if unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } == pid {
            return Err(StartError::Starter(format!("it ended with wait status {status:#x}")));
        }
        if Instant::now() > deadline {
            return Err(StartError::Starter("no answer within 10 s".into()));
        }
        std::thread::sleep(Duration::from_micros(20));
    }
}

/// Length of the vDSO image: the end of its last loadable segment, in whole pages.
fn vdso_len(template: i32, base: u64) -> u64 {
    let mut image = vec![0u8; 4096];
    if base == 0 || crate::host::read(template, base, &mut image).is_err() {
        return 0;
    }
    let u16_at = |o: usize| image.get(o..o + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes);
    let u64_at = |o: usize| image.get(o..o + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    let (offset, size, count) = (u64_at(32) as usize, usize::from(u16_at(54)), usize::from(u16_at(56)));
    let mut end = 0;
    for i in 0..count.min(16) {
        let at = offset + i * size;
        if u64_at(at) as u32 == 1 {
            end = end.max(u64_at(at + 16).saturating_add(u64_at(at + 40)));
        }
    }
    end.next_multiple_of(4096)
}
