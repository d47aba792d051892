//! Seccomp inside the container (`seccomp(2)`): the mode and the filters of a task, and what they say of a call.
//!
//! Owns the chain of filters. It is asked before each call of a task that has some (`gate`, from `run`), whichever way the
//! call came. It must never be asked for what the Sentry itself does for a task. Filters of the container bind the
//! container's calls alone: the walls around the stub are the platform's.
//!
//! `SECCOMP_RET_USER_NOTIF` asks the filter's listener (`notify`), and answers ENOSYS as Linux does without one;
//! `SECCOMP_RET_TRACE` does so where no tracer asked for it (`PTRACE_O_TRACESECCOMP`, `task::ptrace`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use cofferdam_platform::Call;

use super::{Task, exit};
use crate::bpf::{Data, Instruction, Program};
use crate::errno::Errno;
use crate::signal::{SigInfo, sig};
use crate::sync::RwLock;
use crate::syscalls::{Outcome, SysResult};

pub mod notify;

use notify::Listener;

/// `AUDIT_ARCH_X86_64`.
pub const ARCH: u32 = 0xc000_003e;
/// Instructions on the way of one task, each filter counted with four more (`MAX_INSNS_PER_PATH`).
const MAX_PATH: usize = (1 << 18) / 8;
/// Instructions of all filters of the sandbox, counted alike: 32 MiB at most. Linux charges them to the container's memory.
const MAX_ALL: usize = 4 << 20;
/// Those there are.
static ALL: AtomicUsize = AtomicUsize::new(0);

/// `SECCOMP_RET_*`.
#[allow(missing_docs, reason = "the ABI's table, given whole")]
pub mod action {
    pub const KILL_PROCESS: u32 = 0x8000_0000;
    pub const KILL_THREAD: u32 = 0;
    pub const TRAP: u32 = 0x0003_0000;
    pub const ERRNO: u32 = 0x0005_0000;
    pub const USER_NOTIF: u32 = 0x7fc0_0000;
    pub const TRACE: u32 = 0x7ff0_0000;
    pub const LOG: u32 = 0x7ffc_0000;
    pub const ALLOW: u32 = 0x7fff_0000;
    /// The action of a result; the rest is its data.
    pub const FULL: u32 = 0xffff_0000;
    pub const DATA: u32 = 0x0000_ffff;
    /// Those that a kernel with seccomp carries out, with their names in `/proc/sys/kernel/seccomp`.
    pub const ALL: [(u32, &str); 8] = [
        (KILL_PROCESS, "kill_process"),
        (KILL_THREAD, "kill_thread"),
        (TRAP, "trap"),
        (ERRNO, "errno"),
        (USER_NOTIF, "user_notif"),
        (TRACE, "trace"),
        (LOG, "log"),
        (ALLOW, "allow"),
    ];
}

/// `SECCOMP_MODE_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// None.
    Disabled = 0,
    /// `read`, `write`, `exit` and `rt_sigreturn`.
    Strict = 1,
    /// As the filters say.
    Filter = 2,
}

/// Calls have numbers below.
const NUMBERS: usize = 512;

/// A filter, counted as long as there is one.
pub struct Filter {
    program: Program,
    /// Calls, by number, that it always allows: most calls of most programs are of these, and need not run it.
    allowed: [u64; NUMBERS / 64],
    log: bool,
    listener: Option<Arc<Listener>>,
}

impl Filter {
    /// Checks a program. ENOMEM if the sandbox has too many.
    pub fn new(code: Vec<Instruction>, log: bool, listener: Option<Arc<Listener>>) -> Result<Arc<Self>, Errno> {
        let program = Program::new(code)?;
        let mut allowed = [0; NUMBERS / 64];
        for number in (0..NUMBERS as u32).filter(|n| program.constant(*n, ARCH) == Some(action::ALLOW)) {
            if let Some(word) = allowed.get_mut(number as usize / 64) {
                *word |= 1 << (number % 64);
            }
        }
        let before = ALL.fetch_add(program.cost(), Ordering::Relaxed);
        let filter = Arc::new(Self { program, allowed, log, listener });
        if before.saturating_add(filter.program.cost()) > MAX_ALL { Err(Errno::ENOMEM) } else { Ok(filter) }
    }

    /// Whether it allows all calls of a number.
    fn allows(&self, number: u32) -> bool {
        self.allowed.get(number as usize / 64).is_some_and(|word| word & (1 << (number % 64)) != 0)
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        ALL.fetch_sub(self.program.cost(), Ordering::Relaxed);
        if let Some(listener) = &self.listener {
            listener.desert();
        }
    }
}

/// Filters, the oldest first.
type Chain = Arc<Vec<Arc<Filter>>>;

/// What binds a task.
pub struct Seccomp {
    /// `Mode`, for a look without the lock.
    mode: AtomicU8,
    filters: RwLock<Chain>,
}

impl Default for Seccomp {
    fn default() -> Self {
        Self { mode: AtomicU8::new(Mode::Disabled as u8), filters: RwLock::default() }
    }
}

impl Seccomp {
    /// The mode.
    pub fn mode(&self) -> Mode {
        match self.mode.load(Ordering::Relaxed) {
            0 => Mode::Disabled,
            1 => Mode::Strict,
            _ => Mode::Filter,
        }
    }

    /// How many filters.
    pub fn count(&self) -> usize {
        self.filters.read().len()
    }

    /// Becomes what the parent has.
    pub fn inherit(&self, parent: &Seccomp) {
        let filters = parent.filters.read().clone();
        *self.filters.write() = filters;
        self.mode.store(parent.mode() as u8, Ordering::Relaxed);
    }

    /// Enters strict mode; EINVAL with filters.
    pub fn set_strict(&self) -> Result<(), Errno> {
        if self.mode() == Mode::Filter {
            return Err(Errno::EINVAL);
        }
        self.mode.store(Mode::Strict as u8, Ordering::Relaxed);
        Ok(())
    }

    /// The task has ended: nothing is told to listeners any more.
    pub fn release(&self) {
        let old = std::mem::take(&mut *self.filters.write());
        drop(old);
    }

    fn set(&self, chain: Chain) {
        *self.filters.write() = chain;
        self.mode.store(Mode::Filter as u8, Ordering::Relaxed);
    }
}

/// Whether `chain` begins with all of `first`.
fn begins_with(chain: &[Arc<Filter>], first: &[Arc<Filter>]) -> bool {
    chain.len() >= first.len() && chain.iter().zip(first).all(|(a, b)| Arc::ptr_eq(a, b))
}

/// Adds a filter to a task, or to all threads of its process. `Err(Ok(tid))`: this thread has filters of its own.
pub fn add(task: &Arc<Task>, filter: Arc<Filter>, all_threads: bool) -> Result<(), Result<i32, Errno>> {
    // Threads are neither born nor do two of them add filters meanwhile.
    let threads = task.group().threads.lock();
    if task.seccomp.mode() == Mode::Strict {
        return Err(Err(Errno::EINVAL));
    }
    let old = task.seccomp.filters.read().clone();
    let path: usize = old.iter().map(|f| f.program.cost() + 4).sum();
    if path + filter.program.cost() > MAX_PATH {
        return Err(Err(Errno::ENOMEM));
    }
    let listens = |f: &Arc<Filter>| f.listener.as_ref().is_some_and(|l| !l.closed());
    if filter.listener.is_some() && old.iter().any(listens) {
        return Err(Err(Errno::EBUSY));
    }
    let others = || threads.iter().filter(|t| !Arc::ptr_eq(t, task));
    if all_threads {
        let apart = others().find(|t| match t.seccomp.mode() {
            Mode::Disabled => false,
            Mode::Strict => true,
            Mode::Filter => !begins_with(&old, &t.seccomp.filters.read()),
        });
        if let Some(apart) = apart {
            return Err(Ok(apart.tid()));
        }
    }
    let mut new = (*old).clone();
    new.push(filter);
    let new = Arc::new(new);
    task.seccomp.set(new.clone());
    if all_threads {
        let bound = task.creds().no_new_privileges;
        for t in others() {
            t.seccomp.set(new.clone());
            if bound {
                t.bind_privileges();
            }
        }
    }
    Ok(())
}

/// What becomes of a call that a task with seccomp makes: `None` if it may be made. `told`: its tracer has been told of it.
pub fn gate(task: &Arc<Task>, call: &Call, told: bool) -> Option<SysResult> {
    match task.seccomp.mode() {
        Mode::Disabled => None,
        Mode::Strict => strict(task, call),
        Mode::Filter => filtered(task, call, told),
    }
}

fn strict(task: &Arc<Task>, call: &Call) -> Option<SysResult> {
    // read, write, rt_sigreturn, exit
    if [0, 1, 15, 60].contains(&call.number) {
        return None;
    }
    Some(end_thread(task, sig::KILL))
}

fn filtered(task: &Arc<Task>, call: &Call, told: bool) -> Option<SysResult> {
    let chain = {
        let chain = task.seccomp.filters.read();
        if chain.iter().all(|f| f.allows(call.number)) {
            return None;
        }
        chain.clone()
    };
    // No number is what a call by another architecture's entry comes with: none of ours has it.
    let number = i32::try_from(call.number).unwrap_or(-1);
    let data = Data { number, arch: ARCH, ip: call.ip, args: call.args };
    let mut said = action::ALLOW;
    let mut log = false;
    let mut listener = None;
    for filter in chain.iter().rev() {
        let this = filter.program.run(&data);
        // The strongest action; of equals the newest filter's. Signed: to kill the process comes before all.
        if ((this & action::FULL) as i32) < ((said & action::FULL) as i32) {
            (said, log, listener) = (this, filter.log, filter.listener.as_ref());
        }
    }
    let bits = said & action::DATA;
    match said & action::FULL {
        action::ALLOW => None,
        action::LOG => {
            note(task, call, "logged");
            None
        }
        action::ERRNO => {
            if log {
                note(task, call, "refused");
            }
            // Linux cuts it at MAX_ERRNO.
            let errno = i64::from(bits.min(4095));
            Some(Ok(Outcome::Value(-errno)))
        }
        action::TRAP => {
            if log {
                note(task, call, "trapped");
            }
            let errno = i32::try_from(bits).unwrap_or(0);
            task.force_signal(SigInfo::bad_call(call.ip, number, ARCH, errno));
            // The register has the number again, as if the call had not been made.
            Some(Ok(Outcome::Value(i64::from(number))))
        }
        action::TRACE if told => None,
        action::TRACE if task.traces_filters() => Some(Ok(Outcome::Special(super::Special::Filtered(bits)))),
        action::TRACE => Some(Err(Errno::ENOSYS)),
        action::USER_NOTIF => Some(listener.map_or(Err(Errno::ENOSYS), |l| l.ask(task, data))),
        action::KILL_THREAD => {
            note(task, call, "ended the thread");
            Some(end_thread(task, sig::SYS))
        }
        _ => {
            note(task, call, "ended the process");
            Some(end_process(task))
        }
    }
}

/// A line of the kernel's log, as Linux's audit gives it.
fn note(task: &Arc<Task>, call: &Call, what: &str) {
    let comm = String::from_utf8_lossy(&task.comm.read()).into_owned();
    let name = cofferdam_control::calls::of(call.number);
    task.kernel().log(format!("seccomp: {comm}[{}]: {name} ({}) {what}, ip {:x}", task.tid(), call.number, call.ip));
}

fn end_process(task: &Arc<Task>) -> SysResult {
    exit::exit_group(task, sig::SYS | task.group().dump_flag());
    // The caller is gone; nothing is answered.
    Err(Errno::EINTR)
}

/// Ends the calling thread as by a signal; the last one of a process dumps core, if any does.
fn end_thread(task: &Arc<Task>, signal: i32) -> SysResult {
    let alone = task.group().tasks().len() == 1;
    if alone && signal == sig::SYS {
        return end_process(task);
    }
    match exit::exit_thread(task, signal) {
        cofferdam_platform::Answer::Exit => Ok(Outcome::Special(super::Special::Exit)),
        _ => Err(Errno::EINTR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_always_allowed_is_known_beforehand() {
        let i = |code, jt, jf, k| Instruction { code, jt, jf, k };
        // By number: read is allowed, write only to descriptor 1, all else refused; other architectures are killed.
        let code = vec![
            i(0x20, 0, 0, 4),
            i(0x15, 1, 0, ARCH),
            i(0x06, 0, 0, action::KILL_THREAD),
            i(0x20, 0, 0, 0),
            i(0x15, 3, 0, 0),
            i(0x15, 0, 3, 1),
            i(0x20, 0, 0, 16),
            i(0x15, 0, 1, 1),
            i(0x06, 0, 0, action::ALLOW),
            i(0x06, 0, 0, action::ERRNO | 1),
        ];
        let filter = Filter::new(code, false, None).unwrap();
        assert!(filter.allows(0));
        for number in [1, 2, 511, 512, u32::MAX] {
            assert!(!filter.allows(number), "{number}");
        }
        assert_eq!(filter.program.constant(2, ARCH), Some(action::ERRNO | 1));
        assert_eq!(filter.program.constant(1, ARCH), None);
    }
}
