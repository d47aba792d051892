//! Platforms: how the container's code runs and how its system calls and faults reach the Sentry.
//!
//! A platform runs container threads in host processes ("stubs") and reports what they do to the kernel behind
//! [`GuestThread`]; the kernel answers with an [`Answer`], at once or later through [`HostThread::answer`]. Nothing a
//! stub does takes effect on the host unless the kernel ordered it: see `notify`. A platform owns host processes and
//! their registers and nothing else: it knows no file, no signal, no credential.
//!
//! Two kinds of stops: a *call* (number, arguments and instruction pointer are known, only the result can be set) and
//! a *trap* (all registers can be read and set). `notify` gets most calls as cheap calls; `ptrace` has registers at
//! every stop. `kvm` (page tables and vCPUs instead of processes) fits behind the same traits: [`Order`]s become page
//! table changes, [`HostThread`]s vCPU states.
#![allow(unsafe_code)]

use std::sync::Arc;

/// Lowest address a container may map.
pub const GUEST_BOTTOM: u64 = 0x1_0000;
/// First address above what a container may map.
pub const GUEST_TOP: u64 = 0x7c00_0000_0000;

/// A system call as a stub made it. Every field is under the container's control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The number, as in `%rax`; calls of another architecture's entry arrive as `u32::MAX`.
    pub number: u32,
    /// `%rdi %rsi %rdx %r10 %r8 %r9`.
    pub args: [u64; 6],
    /// Address after the `syscall` instruction.
    pub ip: u64,
    /// It was posted in memory that the container shares with the Sentry: its thread may be anywhere, doing anything.
    pub posted: bool,
}

/// The general registers of a thread, as in `struct user_regs_struct`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Registers {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub rsp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
}

/// Why a thread stopped with its registers at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// A new thread's first stop: it runs once it is answered.
    Start,
    /// A call that may need registers. Registers hold the state after the `syscall` instruction, `rax` the number.
    Call(Call),
    /// A processor exception, as the host reported it by a signal.
    Fault {
        /// SIGSEGV, SIGBUS, SIGFPE, SIGILL or SIGTRAP.
        signal: i32,
        /// `si_code`.
        code: i32,
        /// `si_addr`.
        address: u64,
        /// Processor's error code (for page faults: bit 1 a write, bit 4 an instruction fetch).
        error: u64,
        /// Processor's trap number.
        number: u64,
    },
    /// [`HostThread::interrupt`] or [`Answer::ReturnThenTrap`] asked for it.
    Interrupt,
    /// The orders of the last answer were carried out: result of the last one, or of the first that failed.
    Ordered(i64),
}

/// The registers of a thread that is stopped in a trap.
pub trait Frame {
    /// The general registers.
    fn registers(&self) -> Registers;
    /// Replaces the general registers. Flags are reduced to those a user may set.
    fn set_registers(&mut self, registers: &Registers);
    /// The extended state in the layout of a signal frame (XSAVE area with `FP_XSTATE_MAGIC1` and `2`).
    fn extended_state(&self) -> Vec<u8>;
    /// Replaces the extended state (same layout; not trusted, may be from the container). `None`: the initial state.
    fn set_extended_state(&mut self, state: Option<&[u8]>);
}

/// Where pages that are to be mapped come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Fresh zeroed memory of the process's own.
    Anonymous,
    /// A host window, from an offset on.
    Window {
        /// Index of the window in the order given to the platform at start.
        window: usize,
        /// Byte offset in it.
        offset: u64,
        /// Whether writes go to the window (or to a private copy).
        shared: bool,
    },
}

/// A change the kernel orders in the stub that traps.
#[derive(Clone)]
pub enum Order {
    /// Map pages at an address, replacing what is there. `prot` as in `mmap(2)`.
    Map {
        /// Where, page-aligned, below [`GUEST_TOP`].
        address: u64,
        /// Bytes.
        len: u64,
        /// `PROT_*`.
        prot: i32,
        /// What.
        pages: Pages,
        /// Whether to make the pages present at once.
        populate: bool,
    },
    /// `munmap(2)`.
    Unmap {
        /// Where.
        address: u64,
        /// Bytes.
        len: u64,
    },
    /// `mprotect(2)`.
    Protect {
        /// Where.
        address: u64,
        /// Bytes.
        len: u64,
        /// `PROT_*`.
        prot: i32,
    },
    /// `mremap(2)` to a fixed new address.
    Remap {
        /// Old address.
        from: u64,
        /// Old length, bytes.
        old_len: u64,
        /// New length, bytes.
        new_len: u64,
        /// New address; may be the old one.
        to: u64,
        /// Leave the old range mapped and empty (`MREMAP_DONTUNMAP`).
        keep: bool,
    },
    /// `madvise(2)`.
    Advise {
        /// Where.
        address: u64,
        /// Bytes.
        len: u64,
        /// `MADV_*`.
        advice: i32,
    },
    /// `pread(2)` from a host window into the process's own memory: what a big read comes to, at the host's own speed.
    Read {
        /// Index of the window.
        window: usize,
        /// Byte offset in it.
        offset: u64,
        /// Where to.
        address: u64,
        /// Bytes.
        len: u64,
    },
    /// Sets the highest bit of a word, atomically (`FUTEX_WAITERS`). EFAULT if it cannot be reached.
    SetWaiters {
        /// The word's address, a multiple of 4.
        address: u64,
    },
    /// `membarrier(2)`.
    Barrier {
        /// `MEMBARRIER_CMD_*`.
        command: i32,
    },
    /// `rseq(2)` for the trapped thread.
    Rseq {
        /// The area's address.
        address: u64,
        /// Its length, bytes.
        len: u32,
        /// `RSEQ_FLAG_UNREGISTER` or 0.
        flags: i32,
        /// What stands before each place that is jumped to.
        signature: u32,
    },
    /// Closes a descriptor of the stub (the platform's own use).
    Close(i32),
    /// Sets the base of `%fs` of the trapped thread.
    SetFs(u64),
    /// Sets the base of `%gs` of the trapped thread, which then has no short way any more.
    SetGs(u64),
    /// Makes a new host thread with the memory of this one (shared or copied), that starts with `registers` and the
    /// extended state of this one. Must be the last order. Result: 0.
    Clone {
        /// The kernel's face of the new thread; its first stop is [`Trap::Start`].
        guest: Arc<dyn GuestThread>,
        /// A thread of the same host process; otherwise a new host process.
        thread: bool,
        /// Whether memory is shared.
        share_memory: bool,
        /// Registers of the new thread.
        registers: Registers,
        /// Base of `%fs`, if not the parent's.
        fs: Option<u64>,
    },
}

/// What the kernel answers to a stop.
pub enum Answer {
    /// Run on with this as the call's result.
    Return(i64),
    /// As `Return`, and trap with [`Trap::Interrupt`] before the next instruction of the container. Calls only.
    ReturnThenTrap(i64),
    /// Let the host carry out the call just as it was made. Only calls whose arguments are all scalars, and only to
    /// change the caller's own memory map or registers. Calls only.
    PassThrough,
    /// Run on with the registers as they are in the frame now. Traps only.
    Resume,
    /// Carry these out in the trapped thread, then trap with [`Trap::Ordered`]. Traps only.
    Orders(Vec<Order>),
    /// The answer comes later, by [`HostThread::answer`]. In a trap `Return` then sets `%rax` and resumes, and
    /// `ReturnThenTrap` sets `%rax` and asks the kernel again with [`Trap::Interrupt`].
    Park,
    /// The host thread ends.
    Exit,
}

/// The kernel's side of a thread of the container.
pub trait GuestThread: Send + Sync {
    /// The host thread that runs it from now on. Called before its first trap.
    fn attach(&self, host: Arc<dyn HostThread>);
    /// The thread made a system call.
    fn call(self: Arc<Self>, call: Call) -> Answer;
    /// The thread stopped with its registers at hand.
    fn trap(self: Arc<Self>, trap: Trap, frame: &mut dyn Frame) -> Answer;
    /// The host thread is gone though nobody ordered it (killed by the host, or it broke its own stub).
    fn lost(self: Arc<Self>, signal: i32);
}

/// Why memory of a stub could not be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryError {
    /// Nothing mapped there, or no access.
    Fault,
    /// The stub is gone.
    Gone,
}

/// The platform's side of a thread of the container.
pub trait HostThread: Send + Sync {
    /// Answers a parked stop.
    fn answer(&self, answer: Answer);
    /// Makes the thread trap with [`Trap::Interrupt`] soon if it runs. No effect on a thread that is in a call.
    fn interrupt(&self);
    /// Ends the whole host process of the thread at once.
    fn kill(&self);
    /// Keeps `what` until the host has nothing left of the thread's process, nor of anything that it made and that was never heard
    /// of: what its memory shows must not be another's before.
    fn keep(&self, what: Arc<dyn std::any::Any + Send + Sync>);
    /// Copies from the thread's memory; how many bytes were reached (an error only if none).
    fn read(&self, address: u64, to: &mut [u8]) -> Result<usize, MemoryError>;
    /// Copies to the thread's memory, as far as it is writable there.
    fn write(&self, address: u64, from: &[u8]) -> Result<usize, MemoryError>;
    /// Copies from the thread's memory into a host window.
    fn read_into(
        &self,
        address: u64,
        window: &cofferdam_shm::Window,
        offset: u64,
        len: usize,
    ) -> Result<usize, MemoryError>;
    /// Copies from a host window to the thread's memory.
    fn write_from(
        &self,
        address: u64,
        window: &cofferdam_shm::Window,
        offset: u64,
        len: usize,
    ) -> Result<usize, MemoryError>;
    /// Where a patched call site of the thread's process may jump to, with the number in `%rax` and the address of the site's
    /// `syscall` instruction in `%rcx`: the call is then served without the host's help where that pays. `None` if the platform has
    /// no such way. From the first time that this is asked, the process counts as one with patched sites.
    fn short_way(&self) -> Option<u64>;
    /// The host's thread id, in the Sentry's pid namespace.
    fn tid(&self) -> i32;
}

mod crew;
mod frame;
mod host;
pub mod layout;
pub mod notify;
pub mod ptrace;
mod slots;
mod starter;

pub use crew::{Crew, about_to_block};
pub use frame::initial_extended_state;
pub use host::{
    CpuTimes, Page, current_processor, learn_scheduling, process_cpu, resident, rseq_features, set_affinity, set_nice,
    start_tsc, tsc_khz,
};
pub use starter::StartError;

/// Ends the Sentry, with the reason as its last words: the supervisor reads them from standard error.
pub(crate) fn fatal(why: &str) -> ! {
    eprintln!("{why}");
    std::process::exit(70)
}

/// A running platform.
pub trait Platform: Send + Sync {
    /// Makes a host process for `guest`, with no memory of the container mapped. Its first stop is [`Trap::Start`].
    fn new_process(&self, guest: Arc<dyn GuestThread>);
    /// Address and length of the vDSO that every process has mapped.
    fn vdso(&self) -> (u64, u64);
    /// Serves stops until the process ends; called on a thread of its own after the Sentry has confined itself.
    fn run(&self) -> !;
    /// Descriptors it needs from now on.
    fn descriptors(&self) -> Vec<i32>;
    /// Whether a thread whose call `exit(2)` is answered with [`Answer::Exit`] ends within that call, with no further way through
    /// the memory of the container.
    fn ends_in_call(&self) -> bool;
    /// Its name, as `--platform` takes it.
    fn name(&self) -> &'static str;
}

/// What became of the thread that an event was of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Its call is done, and it runs by now; whether others of the container run as well.
    Runs {
        /// Others run.
        others: bool,
    },
    /// Anything else.
    Other,
}

/// What the kernel gives a platform at the start.
pub struct Setup {
    /// The host windows, in the order in which [`Pages::Window`] counts them.
    pub windows: Vec<std::os::fd::OwnedFd>,
    /// The starter's own filter, compiled (`struct sock_filter` each), empty for none.
    pub starter_filter: Vec<u64>,
    /// What the host's `oom_score_adj` of starter and stubs is set to before there are any, if it can be.
    pub oom_score_adj: Option<i32>,
    /// Called on the serving thread after each event, with no lock held.
    pub after: fn(After),
}
