//! The `ptrace` platform: every stub thread runs under `PTRACE_SYSEMU`. Slow and simple; works where user notification
//! does not; the reference for the others.
//!
//! One thread of the Sentry, the tracer, serves all stubs, since a tracee belongs to the thread that attached to it. What
//! other threads want (answers, interrupts, new processes) comes to it in a queue. It sleeps in `poll(2)` on a signalfd
//! for SIGCHLD, on an eventfd for the queue, and on the starter's pipe.
//!
//! What holds whatever a stub does: under SYSEMU no call of it is ever carried out. The host runs a call in a stub only
//! when the tracer has set number, arguments and instruction pointer itself while the thread was stopped (an order, or
//! the few calls about its own memory map that the kernel passed through), and all of these go into registers that
//! nobody else can reach between then and the call. Signals for a stub are reported and dropped, so no handler runs, and
//! its text is no authority: jumping to it gains nothing. (The legacy vsyscall page answers `time`, `gettimeofday` and
//! `getcpu` without any tracer; they reach nothing but their caller's own memory.)
//!
//! Locks: the queue's and a thread's guest's, each held for a moment, never while the kernel behind [`GuestThread`] runs.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::starter::{StartError, last};
use crate::{Answer, GuestThread, HostThread, MemoryError, Platform, Setup, host};

mod sequence;
mod tracee;
mod tracer;

fn lock<T: ?Sized>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The platform.
pub struct Ptrace {
    shared: Arc<Shared>,
    vdso: (u64, u64),
    template: i32,
    after: fn(crate::After),
    /// SIGCHLD arrives here; it is blocked in every thread.
    children: OwnedFd,
    pipe: OwnedFd,
}

/// What all threads of the Sentry may touch.
struct Shared {
    queue: Mutex<VecDeque<Message>>,
    /// The tracer is about to sleep: whoever queues something must wake it.
    sleeping: AtomicBool,
    wake: OwnedFd,
}

enum Message {
    New(Arc<dyn GuestThread>),
    Answer(Arc<Thread>, Answer),
    Interrupt(Arc<Thread>),
}

/// A host process.
struct Process {
    id: AtomicI32,
    /// Killed on purpose.
    doomed: AtomicBool,
    /// What may not be given back before it has ended: it goes with the last of its threads.
    kept: Mutex<Vec<Arc<dyn Any + Send + Sync>>>,
}

impl Process {
    fn new(id: i32) -> Arc<Self> {
        Arc::new(Self { id: AtomicI32::new(id), doomed: AtomicBool::new(false), kept: Mutex::default() })
    }
}

struct Thread {
    shared: Arc<Shared>,
    tid: i32,
    process: Arc<Process>,
    guest: Mutex<Option<Arc<dyn GuestThread>>>,
}

/// Whether the host lets us trace, and why not. The calling process must have one thread.
pub fn probe() -> Result<(), String> {
    // SAFETY: the child only sleeps until it is killed: no lock, no allocation.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(format!("fork: {}", std::io::Error::last_os_error()));
    }
    if child == 0 {
        loop {
            // SAFETY: pause touches no memory; the parent kills this process.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::pause();
            }
        }
    }
    let seized = tracee::request(libc::PTRACE_SEIZE as i32, child, 0, libc::PTRACE_O_EXITKILL as usize);
    let error = std::io::Error::last_os_error();
    host::kill(child);
    let mut status = 0;
    // SAFETY: waitpid fills the status.
    unsafe { libc::waitpid(child, &mut status, libc::__WALL) };
    if seized == 0 { Ok(()) } else { Err(format!("no ptrace ({error})")) }
}

impl Ptrace {
    /// Starts starter and template. The calling process must have one thread and must not be confined yet.
    pub fn start(setup: Setup) -> Result<Self, StartError> {
        let started = crate::starter::start(&setup, 2, &[])?;
        // SAFETY: sigset and descriptors are ours; the calls fill or read only what is passed.
        let (children, wake) = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGCHLD);
            // Before any other thread is made: all inherit it.
            if libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) != 0 {
                return Err(last("sigprocmask"));
            }
            let children = libc::signalfd(-1, &set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC);
            if children < 0 {
                return Err(last("signalfd"));
            }
            let children = OwnedFd::from_raw_fd(children);
            let wake = libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
            if wake < 0 {
                return Err(last("eventfd"));
            }
            (children, OwnedFd::from_raw_fd(wake))
        };
        let shared = Arc::new(Shared { queue: Mutex::default(), sleeping: AtomicBool::new(false), wake });
        let (vdso, template, after) = (started.vdso, started.template, setup.after);
        Ok(Self { shared, vdso, template, after, children, pipe: started.pipe })
    }
}

impl Shared {
    fn send(&self, message: Message) {
        lock(&self.queue).push_back(message);
        if self.sleeping.swap(false, Ordering::SeqCst) {
            let one = 1u64;
            // SAFETY: write reads eight bytes. EAGAIN: the eventfd is already readable.
            unsafe { libc::write(self.wake.as_raw_fd(), (&raw const one).cast(), 8) };
        }
    }
}

impl Platform for Ptrace {
    fn new_process(&self, guest: Arc<dyn GuestThread>) {
        self.shared.send(Message::New(guest));
    }

    fn vdso(&self) -> (u64, u64) {
        self.vdso
    }

    fn run(&self) -> ! {
        match tracer::Tracer::attach(self) {
            Ok(mut tracer) => tracer.run(),
            Err(e) => {
                crate::fatal(&format!("the template cannot be traced: {e}"));
            }
        }
    }

    fn descriptors(&self) -> Vec<i32> {
        [&self.children, &self.shared.wake, &self.pipe].map(AsRawFd::as_raw_fd).to_vec()
    }

    fn ends_in_call(&self) -> bool {
        false
    }

    fn name(&self) -> &'static str {
        "ptrace"
    }
}

impl HostThread for Arc<Thread> {
    fn answer(&self, answer: Answer) {
        if !matches!(answer, Answer::Park) {
            self.shared.send(Message::Answer(self.clone(), answer));
        }
    }

    fn interrupt(&self) {
        self.shared.send(Message::Interrupt(self.clone()));
    }

    fn kill(&self) {
        self.process.doomed.store(true, Ordering::Release);
        host::kill(self.process.id.load(Ordering::Acquire));
    }

    fn keep(&self, what: Arc<dyn Any + Send + Sync>) {
        lock(&self.process.kept).push(what);
    }

    fn read(&self, address: u64, to: &mut [u8]) -> Result<usize, MemoryError> {
        host::read(self.tid, address, to)
    }

    fn write(&self, address: u64, from: &[u8]) -> Result<usize, MemoryError> {
        host::write(self.tid, address, from)
    }

    fn read_into(&self, at: u64, w: &cofferdam_shm::Window, offset: u64, len: usize) -> Result<usize, MemoryError> {
        host::read_into(self.tid, at, w, offset, len)
    }

    fn write_from(&self, at: u64, w: &cofferdam_shm::Window, offset: u64, len: usize) -> Result<usize, MemoryError> {
        host::write_from(self.tid, at, w, offset, len)
    }

    fn short_way(&self) -> Option<u64> {
        None
    }

    fn tid(&self) -> i32 {
        self.tid
    }
}

/// Threads by their id, as the tracer sees them.
type Threads = HashMap<i32, tracer::Live>;
