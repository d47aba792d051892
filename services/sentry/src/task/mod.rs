//! Tasks: threads of the container, their thread groups, process groups and sessions.
//!
//! `run` is where a platform's stops arrive; `clone`, `exec`, `exit` are the life of a task; `tree` holds them all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

use cofferdam_platform::{HostThread, Order};
use cofferdam_shm::Window;

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::memory::AddressSpace;
use crate::memory::policy::Policy;
use crate::namespaces::{IpcNamespace, Namespaces, UtsNamespace};
use crate::signal::{Action, Actions, AltStack, Pending, SigInfo, SigSet};
use crate::sync::{Mutex, RwLock};
use crate::vfs::{FdTable, FsContext};
use crate::wait::push_woken;

pub mod block;
pub mod cgroup;
pub mod clone;
pub mod creds;
pub mod exec;
pub mod exit;
pub mod group;
pub mod home;
pub mod itimer;
mod mend;
pub mod ptrace;
pub mod run;
pub mod seccomp;
pub mod shrink;
pub mod timers;
pub mod tree;
pub mod usage;

pub use creds::Creds;
pub use group::Group;

/// Outcomes that only task, memory and signal handlers produce. They need the registers of the caller, or change its
/// memory, so they are carried out in a trap (see `run`).
pub enum Special {
    /// The task is gone; nothing is answered.
    Exit,
    /// Let the host carry out the call as it was made (munmap, mprotect, madvise, arch_prctl).
    PassThrough,
    /// Have these carried out in the caller, then return `result`; `undo` if the host refuses.
    Orders {
        /// What to do.
        orders: Vec<Order>,
        /// Result of the call.
        result: i64,
        /// What to forget if it fails.
        undo: Option<Box<dyn FnOnce() + Send>>,
    },
    /// As `Orders`, and then this, which gets the result of the last order.
    Then {
        /// What to do.
        orders: Vec<Order>,
        /// What the call comes to.
        then: Then,
    },
    /// `clone(2)` and its kin.
    Clone(clone::CloneRequest),
    /// `execve(2)`.
    Exec(exec::ExecRequest),
    /// `rt_sigreturn(2)`.
    SigReturn,
    /// Patch the call site that ends at this address, for this call (see `memory::sites`).
    Patch(u64),
    /// A call that a filter wants its tracer told of, with this.
    Filtered(u32),
    /// A call that failed as a copy found something missing that can be mended (`mend`).
    Mend,
    /// A call of a traced task, which is made in a trap: its arguments.
    Traced([u64; 6]),
    /// A call that whoever listens to a filter of its task lets go on, with these arguments.
    Noticed([u64; 6]),
    /// `sigaltstack(2)` of a task that has a signal stack.
    AltStack(crate::syscalls::signal::AltStackRequest),
}

/// The rest of a call whose orders were carried out: the result of the last one, or of the first that failed.
pub type Then = Box<dyn FnOnce(&Arc<Task>, i64) -> crate::syscalls::SysResult + Send>;

/// What happens after the orders under way are carried out.
pub(crate) enum After {
    /// A call ends.
    Call { number: u32, result: i64, undo: Option<Box<dyn FnOnce() + Send>> },
    /// A call goes on.
    Then { number: u32, then: Then },
    /// A fault is mended.
    Fault,
    /// What a call's copy found missing is there: the call is made again.
    Again { number: u32 },
    /// There is room for a signal's frame.
    Frame(Box<(SigInfo, Action)>),
    /// Pages beyond the end of a file are unmapped.
    Shrunk,
    /// A call site's page can be written to: the site, the bytes for it, the page's protection.
    Patch { site: u64, jump: [u8; 5], prot: i32 },
    /// It no longer can.
    Patched,
    /// A clone is done: the child, and its id as the caller sees it.
    Clone { number: u32, child: Arc<Task>, shown: i32, vfork: Option<Arc<clone::Vfork>>, event: Option<i32> },
    /// A tracee goes on from a stop.
    Trace(Box<ptrace::Go>),
    /// A tracee's page can be written to, or is as it was.
    Poke(Box<ptrace::memory::Poking>),
    /// A program's memory is mapped.
    Exec(Box<exec::Start>),
}

/// How a new task begins.
pub(crate) enum Begin {
    /// As a copy: where its id is to be written in its memory, 0 for nowhere.
    Clone { set_tid: u64, number: u32 },
    /// With a program.
    Exec(Box<exec::Start>),
}

/// How a task wants to be scheduled: kept and told, the host decides.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Schedule {
    /// `SCHED_OTHER`, `SCHED_BATCH` or `SCHED_IDLE`.
    pub(crate) policy: i32,
    /// `SCHED_RESET_ON_FORK`: children begin without real-time policies, of which there are none here.
    pub(crate) reset_on_fork: bool,
    /// `ioprio_set(2)`.
    pub(crate) io_priority: i32,
    /// What `PR_SET_TIMERSLACK` 0 goes back to, nanoseconds; `None` for the default.
    pub(crate) first_slack: Option<u64>,
}

/// Parts of a task that only its own calls and traps use, and signals sent to it.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) alt_stack: AltStack,
    /// Mask to restore when the next handler returns (sigsuspend, ppoll).
    pub(crate) saved_mask: Option<u64>,
    /// A signal that was taken, with what its action was then, as the thread left a call: it is acted on when the thread has trapped.
    pub(crate) claimed: Option<(SigInfo, Action)>,
    pub(crate) clear_tid: u64,
    pub(crate) robust_list: u64,
    pub(crate) death_signal: i32,
    /// `PR_SET_TIMERSLACK`, nanoseconds; `None` for the default.
    pub(crate) timer_slack: Option<u64>,
    /// Processors it may run on, as `sched_setaffinity(2)` got them; empty for all.
    pub(crate) affinity: Vec<u8>,
    /// Where it wants its memory: `None` for the default.
    pub(crate) policy: Option<Policy>,
    /// `sched(7)`: kept and told.
    pub(crate) schedule: Schedule,
    /// A call that ended and whose task has signals to look at first: number and result.
    pub(crate) returning: Option<(u32, Result<i64, Errno>)>,
    /// A special outcome of a call that arrived without registers.
    pub(crate) deferred: Option<(u32, Special)>,
    /// The call that just ended waiting is made now, with these arguments (`seccomp::notify`).
    pub(crate) noticed: Option<[u64; 6]>,
    pub(crate) after: Option<After>,
    /// Orders that did not fit in one go.
    pub(crate) more: Vec<Order>,
    pub(crate) begin: Option<Begin>,
    pub(crate) vfork: Option<Arc<clone::Vfork>>,
    /// What it last registered for restartable sequences.
    pub(crate) rseq: Option<crate::syscalls::rseq::Registered>,
    /// What `restart_syscall(2)` does.
    pub(crate) restart: Option<block::Restart>,
    /// Stopped in a trap, with this result register.
    pub(crate) stopped: Option<i64>,
    /// Faults in a row at one address that had nothing to mend.
    pub(crate) retries: (u64, u32),
}

/// A thread of the container.
pub struct Task {
    kernel: Arc<Kernel>,
    tid: AtomicI32,
    group: Arc<Group>,
    host: RwLock<Option<Arc<dyn HostThread>>>,
    files: RwLock<Arc<FdTable>>,
    fs: RwLock<Arc<FsContext>>,
    creds: RwLock<Arc<Creds>>,
    namespaces: RwLock<Arc<Namespaces>>,
    mm: RwLock<Arc<AddressSpace>>,
    actions: RwLock<Arc<Mutex<Actions>>>,
    /// Name (`PR_SET_NAME`), at most 15 bytes.
    pub comm: RwLock<Vec<u8>>,
    pub(crate) pending: Mutex<Pending>,
    pub(crate) pending_set: AtomicU64,
    pub(crate) mask: AtomicU64,
    pub(crate) exited: AtomicBool,
    pub(crate) state: Mutex<State>,
    pub(crate) block: block::Slot,
    queued: AtomicBool,
    /// It has woken other tasks since it last blocked: see `wait::after_call`.
    pub(crate) woke: AtomicBool,
    /// Its host thread has come, and its memory is as it should be.
    pub(crate) begun: AtomicBool,
    /// Where a copy last found nothing (`mend`), 0 for nowhere.
    pub(crate) missed: AtomicU64,
    /// A file that its address space maps has shrunk (`shrink`).
    pub(crate) stale: AtomicBool,
    /// What binds its calls.
    pub seccomp: seccomp::Seccomp,
    /// What it used.
    pub counters: usage::Counters,
    /// Bases of `%fs` and `%gs`, as calls set them.
    pub(crate) fs_base: AtomicU64,
    pub(crate) gs_base: AtomicU64,
    /// As a tracee.
    pub(crate) trace: Mutex<ptrace::Trace>,
    /// Whether it is traced, for a look without the lock.
    pub(crate) traced: AtomicBool,
    /// Whether it is to stop for its tracer soon.
    pub(crate) hailed: AtomicBool,
    /// Let go from a stop, its host thread is still to be told.
    pub(crate) going: AtomicBool,
    /// It runs with the trap flag, to trap after one instruction.
    pub(crate) stepping: AtomicBool,
    /// It trapped for something else before that, and may have trapped for both.
    pub(crate) step_owed: AtomicBool,
}

/// What a new task is made of.
pub(crate) struct Parts {
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) tid: i32,
    pub(crate) group: Arc<Group>,
    pub(crate) files: Arc<FdTable>,
    pub(crate) fs: Arc<FsContext>,
    pub(crate) creds: Arc<Creds>,
    pub(crate) namespaces: Arc<Namespaces>,
    pub(crate) mm: Arc<AddressSpace>,
    pub(crate) actions: Arc<Mutex<Actions>>,
    pub(crate) comm: Vec<u8>,
    pub(crate) mask: u64,
    pub(crate) begin: Begin,
}

impl Task {
    pub(crate) fn new(p: Parts) -> Arc<Self> {
        Arc::new(Self {
            kernel: p.kernel,
            tid: AtomicI32::new(p.tid),
            group: p.group,
            host: RwLock::new(None),
            files: RwLock::new(p.files),
            fs: RwLock::new(p.fs),
            creds: RwLock::new(p.creds),
            namespaces: RwLock::new(p.namespaces),
            mm: RwLock::new(p.mm),
            actions: RwLock::new(p.actions),
            comm: RwLock::new(p.comm),
            pending: Mutex::default(),
            pending_set: AtomicU64::new(0),
            mask: AtomicU64::new(p.mask),
            exited: AtomicBool::new(false),
            state: Mutex::new(State { begin: Some(p.begin), ..State::default() }),
            block: block::Slot::default(),
            queued: AtomicBool::new(false),
            woke: AtomicBool::new(false),
            begun: AtomicBool::new(false),
            missed: AtomicU64::new(0),
            stale: AtomicBool::new(false),
            seccomp: seccomp::Seccomp::default(),
            counters: usage::Counters::new(),
            fs_base: AtomicU64::new(0),
            gs_base: AtomicU64::new(0),
            trace: Mutex::default(),
            traced: AtomicBool::new(false),
            hailed: AtomicBool::new(false),
            going: AtomicBool::new(false),
            stepping: AtomicBool::new(false),
            step_owed: AtomicBool::new(false),
        })
    }

    /// The kernel.
    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }

    /// The thread id.
    pub fn tid(&self) -> i32 {
        self.tid.load(Ordering::Relaxed)
    }

    pub(crate) fn set_tid(&self, tid: i32) {
        self.tid.store(tid, Ordering::Relaxed);
    }

    /// The process.
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        self.group.pid
    }

    /// An id as this task sees it: 0 if it does not see whose it is (`pid_namespaces(7)`).
    pub fn shown(&self, id: i32) -> i32 {
        self.group.pid_ns.shown(id)
    }

    /// The id that this task means by a number, which may be a process group's; one that nobody has if there is none.
    pub fn id_of(&self, number: i32) -> i32 {
        self.group.pid_ns.id(number)
    }

    /// The open files.
    pub fn files(&self) -> Arc<FdTable> {
        self.files.read().clone()
    }

    pub(crate) fn set_files(&self, files: Arc<FdTable>) -> Arc<FdTable> {
        std::mem::replace(&mut *self.files.write(), files)
    }

    /// Root, working directory, umask.
    pub fn fs(&self) -> Arc<FsContext> {
        self.fs.read().clone()
    }

    pub(crate) fn set_fs(&self, fs: Arc<FsContext>) {
        // Without the lock: with the last reference a mount namespace may go.
        let old = std::mem::replace(&mut *self.fs.write(), fs);
        drop(old);
    }

    /// Who it is.
    pub fn creds(&self) -> Arc<Creds> {
        self.creds.read().clone()
    }

    /// Becomes someone else. Who changes its user or gains a capability can no longer be looked into by who it was, and its
    /// parent's death is nothing to it (`PR_SET_DUMPABLE`, `PR_SET_PDEATHSIG`).
    pub fn set_creds(&self, creds: Creds) {
        let new = Arc::new(creds);
        let old = std::mem::replace(&mut *self.creds.write(), new.clone());
        let ids = |c: &Creds| (c.euid, c.egid, c.fsuid, c.fsgid);
        if ids(&old) != ids(&new) || !old.covers(&new) {
            self.group.dumpable.store(0, Ordering::Relaxed);
            self.state.lock().death_signal = 0;
        }
    }

    /// Programs give it no privileges from now on (`PR_SET_NO_NEW_PRIVS`).
    pub fn bind_privileges(&self) {
        let creds = self.creds();
        if !creds.no_new_privileges {
            self.set_creds(Creds { no_new_privileges: true, ..(*creds).clone() });
        }
    }

    /// The namespaces it is in, but for its user and mount namespace.
    pub fn namespaces(&self) -> Arc<Namespaces> {
        self.namespaces.read().clone()
    }

    pub(crate) fn set_namespaces(&self, namespaces: Namespaces) {
        let before = std::mem::replace(&mut *self.namespaces.write(), Arc::new(namespaces));
        // What goes with them goes outside of the lock.
        drop(before);
    }

    /// Its IPC namespace.
    pub fn ipc(&self) -> Arc<IpcNamespace> {
        self.namespaces.read().ipc.clone()
    }

    /// Its UTS namespace.
    pub fn uts(&self) -> Arc<UtsNamespace> {
        self.namespaces.read().uts.clone()
    }

    /// Its address space.
    pub fn mm(&self) -> Arc<AddressSpace> {
        self.mm.read().clone()
    }

    pub(crate) fn set_mm(&self, mm: Arc<AddressSpace>) {
        *self.mm.write() = mm;
    }

    /// Its signal actions.
    pub fn actions(&self) -> Arc<Mutex<Actions>> {
        self.actions.read().clone()
    }

    pub(crate) fn set_actions(&self, actions: Arc<Mutex<Actions>>) {
        *self.actions.write() = actions;
    }

    pub(crate) fn host(&self) -> Option<Arc<dyn HostThread>> {
        self.host.read().clone()
    }

    pub(crate) fn set_host(&self, host: Option<Arc<dyn HostThread>>) -> Option<Arc<dyn HostThread>> {
        std::mem::replace(&mut *self.host.write(), host)
    }

    /// Before others look at its memory: ERESTARTNOINTR while the host has not made it yet, so that whoever asks asks again. That is a
    /// matter of microseconds, and nobody who serves the container may wait for another's host thread.
    pub fn has_memory(&self) -> Result<(), Errno> {
        let awaited = !self.begun.load(Ordering::SeqCst) && !self.exited.load(Ordering::SeqCst);
        if awaited { Err(Errno::ERESTARTNOINTR) } else { Ok(()) }
    }

    /// The signals it blocks.
    pub fn mask(&self) -> SigSet {
        SigSet(self.mask.load(Ordering::SeqCst))
    }

    /// Whether it has something to look at before it runs on: a signal, a stop, its end.
    pub fn attention(&self) -> bool {
        self.pending_set.load(Ordering::SeqCst) & !self.mask.load(Ordering::SeqCst) != 0
            || self.shared_signals().0 != 0
            || (self.group.stopped.load(Ordering::SeqCst) && !self.is_traced())
            || self.hailed.load(Ordering::SeqCst)
            || self.exited.load(Ordering::SeqCst)
    }

    /// Puts the task on this thread's list of the woken, once.
    pub(crate) fn wake_up(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            push_woken(self.clone());
        }
    }

    pub(crate) fn unqueue(&self) {
        self.queued.store(false, Ordering::Release);
    }

    /// Sends itself a signal, as the kernel.
    pub fn signal_self(self: &Arc<Self>, signo: i32) {
        let info = crate::signal::SigInfo::new(signo, crate::signal::code::KERNEL);
        crate::signal::send::to_task(self, info);
    }

    /// What its memory may come to (`setrlimit(2)`).
    pub fn bounds(&self) -> crate::memory::space::Bounds {
        self.group.bounds(&self.creds())
    }

    /// Copies from the container's memory; how many bytes were reached, EFAULT if none.
    pub fn read_memory(&self, address: u64, to: &mut [u8]) -> Result<usize, Errno> {
        let host = self.host().ok_or(Errno::EFAULT)?;
        let mut done = 0;
        while done < to.len() {
            let rest = to.get_mut(done..).unwrap_or_default();
            let at = address.checked_add(done as u64).ok_or(Errno::EFAULT)?;
            match host.read(at, rest) {
                Ok(n) if n == rest.len() => return Ok(done + n),
                Ok(n) if n > 0 => done += n,
                // Nothing mapped there (yet): an object's page that was never touched is read from where it lies.
                _ => match self.read_object(at, rest) {
                    Some(n) => done += n,
                    None => {
                        self.missed.store(at, Ordering::Relaxed);
                        return if done > 0 { Ok(done) } else { Err(Errno::EFAULT) };
                    }
                },
            }
        }
        Ok(done)
    }

    fn read_object(&self, address: u64, to: &mut [u8]) -> Option<usize> {
        let (object, offset, _) = self.mm().object_at(address, false)?;
        let len = to.len().min((4096 - address % 4096) as usize);
        let (window, at) = self.locate(&object, offset, len, false)?;
        self.kernel.window(window).read(at, to.get_mut(..len)?).ok()?;
        Some(len)
    }

    /// Where `len` bytes (within one page) of an object lie in a host window.
    fn locate(
        &self,
        object: &crate::memory::object::Object,
        offset: u64,
        len: usize,
        write: bool,
    ) -> Option<(crate::memory::object::HostWindow, u64)> {
        let page = offset & !4095;
        let extents = object.populate(page, 4096, write).ok()?;
        let e = extents.iter().find(|e| e.offset <= page && page < e.offset.saturating_add(e.len))?;
        let at = e.host.checked_add(offset - e.offset)?;
        at.checked_add(len as u64)?;
        Some((e.window, at))
    }

    /// Copies to the container's memory; how many bytes were reached, EFAULT if none.
    pub fn write_memory(&self, address: u64, from: &[u8]) -> Result<usize, Errno> {
        let host = self.host().ok_or(Errno::EFAULT)?;
        let mut done = 0;
        while done < from.len() {
            let rest = from.get(done..).unwrap_or_default();
            let at = address.checked_add(done as u64).ok_or(Errno::EFAULT)?;
            match host.write(at, rest) {
                Ok(n) if n == rest.len() => return Ok(done + n),
                Ok(n) if n > 0 => done += n,
                _ => match self.write_object(at, rest) {
                    Some(n) => done += n,
                    None => {
                        self.missed.store(at, Ordering::Relaxed);
                        return if done > 0 { Ok(done) } else { Err(Errno::EFAULT) };
                    }
                },
            }
        }
        Ok(done)
    }

    fn write_object(&self, address: u64, from: &[u8]) -> Option<usize> {
        let (object, offset, shared) = self.mm().object_at(address, true)?;
        if !shared {
            // A private page must first be mapped by a touch of the container's own.
            return None;
        }
        let len = from.len().min((4096 - address % 4096) as usize);
        let (window, at) = self.locate(&object, offset, len, true)?;
        self.kernel.window(window).write(at, from.get(..len)?).ok()?;
        Some(len)
    }

    /// Copies from the container's memory to a host window.
    pub fn read_memory_into(&self, address: u64, window: &Window, offset: u64, len: usize) -> Result<usize, Errno> {
        let host = self.host().ok_or(Errno::EFAULT)?;
        let n = host.read_into(address, window, offset, len).unwrap_or(0);
        if n == len {
            return Ok(n);
        }
        let mut rest = vec![0; len - n];
        match self.read_memory(address.checked_add(n as u64).ok_or(Errno::EFAULT)?, &mut rest) {
            Ok(m) => {
                let got = rest.get(..m).unwrap_or_default();
                window.write(offset + n as u64, got).map_err(|_| Errno::EIO)?;
                Ok(n + m)
            }
            Err(e) if n == 0 => Err(e),
            Err(_) => Ok(n),
        }
    }

    /// Copies from a host window to the container's memory.
    pub fn write_memory_from(&self, address: u64, window: &Window, offset: u64, len: usize) -> Result<usize, Errno> {
        let host = self.host().ok_or(Errno::EFAULT)?;
        let n = host.write_from(address, window, offset, len).unwrap_or(0);
        if n == len {
            return Ok(n);
        }
        let mut rest = vec![0; len - n];
        window.read(offset + n as u64, &mut rest).map_err(|_| Errno::EIO)?;
        match self.write_memory(address.checked_add(n as u64).ok_or(Errno::EFAULT)?, &rest) {
            Ok(m) => Ok(n + m),
            Err(e) if n == 0 => Err(e),
            Err(_) => Ok(n),
        }
    }

    /// Copies all of `to` from the container's memory, or EFAULT.
    pub fn read_exact(&self, address: u64, to: &mut [u8]) -> Result<(), Errno> {
        let len = to.len();
        if len == 0 || self.read_memory(address, to)? == len { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Copies all of `from` to the container's memory, or EFAULT.
    pub fn write_exact(&self, address: u64, from: &[u8]) -> Result<(), Errno> {
        if from.is_empty() || self.write_memory(address, from)? == from.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Copies a NUL-terminated string in, without its NUL; `too_long` if there is none in `max` bytes.
    pub fn read_cstr(&self, address: u64, max: usize, too_long: Errno) -> Result<Vec<u8>, Errno> {
        let mut out = Vec::new();
        while out.len() < max {
            let at = address.checked_add(out.len() as u64).ok_or(Errno::EFAULT)?;
            // Up to 256 bytes at a time, never across a page that may not be there.
            let page_left = 4096 - (at % 4096) as usize;
            let want = page_left.min(256).min(max - out.len());
            let mut chunk = [0u8; 256];
            let chunk = chunk.get_mut(..want).ok_or(Errno::EFAULT)?;
            let n = self.read_memory(at, chunk)?;
            let got = chunk.get(..n).ok_or(Errno::EFAULT)?;
            if let Some(end) = got.iter().position(|b| *b == 0) {
                out.extend_from_slice(got.get(..end).unwrap_or_default());
                return Ok(out);
            }
            if n < want {
                return Err(Errno::EFAULT);
            }
            out.extend_from_slice(got);
        }
        Err(too_long)
    }
}

/// A process with no parent in the sandbox has stopped or continues: `CLD_*` and the signal.
pub(crate) fn outer_stopped(kernel: &Arc<Kernel>, pid: i32, code: i32, signal: i32) {
    if let Some(told) = kernel.outer_stopped.get() {
        told(pid, code, signal);
    }
}

/// A session leader is ending: its terminal, if it has one, hangs up.
pub(crate) fn session_leader_exits(kernel: &Arc<Kernel>, sid: i32) {
    if let Some(hook) = kernel.session_end.get() {
        hook(sid);
    }
}
