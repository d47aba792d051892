//! `ptrace(2)`: what a tracee stops for, what its tracer sees then, and how it goes on.
//!
//! A tracee's calls all come in a trap (`task::run`), so that every stop has registers. A stop copies them, with the extended
//! state, into [`Stopped`], tells the tracer and parks the host thread: no thread of the Sentry waits. The tracer changes the
//! copy; to let the tracee go on it leaves a [`Go`], which the tracee, trapped again, carries on from (`carry_on`). Single steps
//! are made with the trap flag, which is put into the flags last before the task runs and taken out first when it traps.
//!
//! `attach` links and unlinks, `memory` reads and writes a tracee's memory, `registers` lays registers out, `debug` stands in for the
//! processor's debug registers. Never here: the
//! requests themselves (`syscalls::ptrace`), waiting (`task::exit`).
//!
//! Locks: a tracer's `Group::tracees`, then a tracee's `Task::trace`, both after the tree's; under `trace` no other but the wait
//! queues'. Neither is held while a host thread is answered: that is left to [`Task::wake_up`], so that tracees that trace others
//! do not nest.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cofferdam_platform::{Answer, Call, Frame, GUEST_BOTTOM, Order};

use self::memory::Poke;
use self::registers::{NO_CALL, TRAP_FLAG, View};
use super::{After, Special, Task, clone, exit};
use crate::errno::Errno;
use crate::signal::{SIG_IGN, SigInfo, SigSet, code, sa, send, sig};
use crate::syscalls::{self, Outcome, SysResult};

pub mod attach;
mod debug;
pub(crate) mod memory;
pub(crate) mod registers;

/// `PTRACE_O_*`.
#[allow(missing_docs)]
pub mod option {
    pub const TRACESYSGOOD: u32 = 1;
    pub const TRACEFORK: u32 = 1 << 1;
    pub const TRACEVFORK: u32 = 1 << 2;
    pub const TRACECLONE: u32 = 1 << 3;
    pub const TRACEEXEC: u32 = 1 << 4;
    pub const TRACEVFORKDONE: u32 = 1 << 5;
    pub const TRACEEXIT: u32 = 1 << 6;
    pub const TRACESECCOMP: u32 = 1 << 7;
    pub const EXITKILL: u32 = 1 << 20;
    pub const SUSPEND_SECCOMP: u32 = 1 << 21;
    /// All there are.
    pub const MASK: u32 = 0xff | EXITKILL | SUSPEND_SECCOMP;
}

/// `PTRACE_EVENT_*`.
#[allow(missing_docs)]
pub mod event {
    pub const FORK: i32 = 1;
    pub const VFORK: i32 = 2;
    pub const CLONE: i32 = 3;
    pub const EXEC: i32 = 4;
    pub const VFORK_DONE: i32 = 5;
    pub const EXIT: i32 = 6;
    pub const SECCOMP: i32 = 7;
    pub const STOP: i32 = 128;
}

/// A call that ended, number and result, and may be made again.
pub(crate) type Returning = Option<(u32, Result<i64, Errno>)>;

/// How a tracee was last let go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// `PTRACE_CONT`.
    #[default]
    Continue,
    /// `PTRACE_SYSCALL`: to the next entry into a call, or exit from one.
    Syscall,
    /// `PTRACE_SINGLESTEP`.
    Step,
    /// `PTRACE_SYSEMU`: to the next entry into a call, which is not made.
    Emulate,
    /// `PTRACE_SYSEMU_SINGLESTEP`.
    EmulateStep,
}

impl Mode {
    fn steps(self) -> bool {
        matches!(self, Mode::Step | Mode::EmulateStep)
    }

    fn emulates(self) -> bool {
        matches!(self, Mode::Emulate | Mode::EmulateStep)
    }
}

/// Where in a call a stop is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CallStop {
    /// It has nothing to do with one.
    #[default]
    None,
    /// Before it.
    Entry,
    /// After it.
    Exit,
    /// Before it: a filter has this to say.
    Filter(u32),
}

/// What the tracer was told of a call beyond that it is about to be made.
#[derive(Clone, Copy, Default)]
pub(crate) struct Told {
    /// It ends the task.
    end: bool,
    /// A filter wanted it told.
    filter: bool,
}

/// What follows a stop.
pub(crate) enum Then {
    /// The task runs on.
    User,
    /// The call is made.
    Call(Told),
    /// The signal that it stopped for is delivered, or the one that the tracer wants instead.
    Signal,
    /// The clone is done: the child's id, and that as the caller sees it.
    Made { number: u32, child: (i32, i32), vfork: Option<Arc<clone::Vfork>> },
    /// The process ends with this status.
    Die(i32),
}

/// A tracee's stop.
pub(crate) struct Stopped {
    /// Signal and event, as a wait status has them from bit 8 on.
    pub(crate) code: i32,
    /// The tracer has waited for it.
    pub(crate) seen: bool,
    /// `PTRACE_LISTEN`: it stays, but counts as stopped no more.
    pub(crate) listening: bool,
    pub(crate) registers: View,
    /// As a signal frame has it.
    pub(crate) state: Vec<u8>,
    /// The tracer changed `state`.
    pub(crate) state_set: bool,
    /// `None` for a group-stop.
    pub(crate) info: Option<SigInfo>,
    pub(crate) call: CallStop,
    then: Then,
}

/// How a tracee goes on from a stop.
pub(crate) struct Go {
    stopped: Box<Stopped>,
    /// What it gets where a signal is due.
    signal: i32,
    /// The host thread was told to trap for it.
    told: bool,
    /// What must be ordered first was.
    prepared: bool,
}

/// Why a tracee stops.
struct Reason {
    code: i32,
    info: Option<SigInfo>,
    message: u64,
    call: CallStop,
    then: Then,
}

/// A task as a tracee.
#[derive(Default)]
pub(crate) struct Trace {
    pub(crate) tracer: Option<Arc<Task>>,
    pub(crate) seized: bool,
    /// [`option`].
    pub(crate) options: u32,
    /// `PTRACE_GETEVENTMSG`.
    pub(crate) message: u64,
    pub(crate) stop: Option<Box<Stopped>>,
    mode: Mode,
    /// It entered a call and has not left it.
    in_call: bool,
    /// To stop soon: `PTRACE_INTERRUPT`, or because its process is stopped and it has just been attached to.
    trap_stop: bool,
    /// To tell that its process was continued.
    trap_notify: bool,
    /// Its process was stopped by this signal, and it has not told.
    group_stop: i32,
    /// It was stepped into a signal handler.
    stepped_in: bool,
    pub(crate) debug: debug::DebugRegisters,
    /// A `vfork` child that let it go, to be told.
    vfork_done: Option<i32>,
    /// Its id before it executed a program.
    former: i32,
    go: Option<Box<Go>>,
    /// Its host thread carries out orders for its memory while it is stopped.
    poking: Option<Arc<Poke>>,
}

impl Trace {
    fn has(&self, option: u32) -> bool {
        self.tracer.is_some() && self.options & option != 0
    }

    /// Whether there is something to stop for before it runs on.
    fn is_due(&self) -> bool {
        self.tracer.is_some()
            && (self.trap_stop || self.trap_notify || self.group_stop != 0 || self.vfork_done.is_some())
    }

    /// Ends a stop. The task must be woken after that.
    fn release(&mut self, signal: i32) {
        if let Some(stopped) = self.stop.take() {
            self.go = Some(Box::new(Go { stopped, signal, told: false, prepared: false }));
        }
    }
}

/// The siginfo of a stop that no signal made.
fn notice(task: &Task, signo: i32, code: i32) -> SigInfo {
    SigInfo::from_process(signo, code, task.shown(task.tid()), task.creds().shown_uid(task.creds().ruid))
}

impl Task {
    /// Whether it is traced.
    pub fn is_traced(&self) -> bool {
        self.traced.load(Ordering::SeqCst)
    }

    /// The thread id of its tracer; 0 for none.
    pub fn tracer(&self) -> i32 {
        self.trace.lock().tracer.as_ref().map_or(0, |t| t.tid())
    }

    /// Whether it is in a stop that its tracer can look into.
    pub fn is_trace_stopped(&self) -> bool {
        self.is_traced() && self.trace.lock().stop.is_some()
    }

    /// Stops, unless nobody traces it any more: then it goes on as if it had been let go.
    fn trace_stop(self: &Arc<Self>, frame: &mut dyn Frame, reason: Reason, returning: Returning) -> Answer {
        let mut general = frame.registers();
        general.rflags &= !TRAP_FLAG;
        let mut orig_rax = NO_CALL;
        if let Some((number, result)) = returning {
            orig_rax = u64::from(number);
            general.rax = match result {
                Ok(v) => v,
                Err(e) => -i64::from(e.code()),
            } as u64;
        }
        let mut state = frame.extended_state();
        if state.len() < 512 {
            state = cofferdam_platform::initial_extended_state();
        }
        let (fs_base, gs_base) = (self.fs_base.load(Ordering::Relaxed), self.gs_base.load(Ordering::Relaxed));
        let Reason { code, info, message, call, then } = reason;
        let stopped = Box::new(Stopped {
            code,
            seen: false,
            listening: false,
            registers: View { general, orig_rax, fs_base, gs_base },
            state,
            state_set: false,
            info,
            call,
            then,
        });
        let tracer = {
            let mut t = self.trace.lock();
            match t.tracer.clone() {
                Some(tracer) if !self.exited.load(Ordering::SeqCst) => {
                    t.message = message;
                    t.trap_stop = false;
                    if code >> 8 == event::STOP {
                        t.trap_notify = false;
                    }
                    self.hailed.store(t.is_due(), Ordering::SeqCst);
                    t.stop = Some(stopped);
                    tracer
                }
                _ => {
                    drop(t);
                    let go = Go { stopped, signal: code & 0x7f, told: true, prepared: false };
                    return self.carry_on(Box::new(go), frame);
                }
            }
        };
        let why = if info.is_none() || code >> 8 == event::STOP { code::CLD_STOPPED } else { code::CLD_TRAPPED };
        tell(&tracer, self, why, code & 0x7f);
        Answer::Park
    }

    /// Where a task that was let go traps again: how it goes on.
    pub(crate) fn take_go(&self) -> Option<Box<Go>> {
        let mut t = self.trace.lock();
        if t.go.as_ref().is_some_and(|g| g.told) { t.go.take() } else { None }
    }

    /// Has the host thread of a task that was let go trap. Called without locks (`wait::run_woken`).
    pub(crate) fn answer_go(&self) {
        if !self.going.swap(false, Ordering::SeqCst) {
            return;
        }
        {
            let mut t = self.trace.lock();
            if t.poking.is_some() {
                return;
            }
            match &mut t.go {
                Some(go) if !go.told => go.told = true,
                _ => return,
            }
        }
        if let Some(host) = self.host() {
            host.answer(Answer::ReturnThenTrap(0));
        }
    }

    /// After [`Trace::release`], without the lock.
    fn wake_released(self: &Arc<Self>) {
        self.going.store(true, Ordering::SeqCst);
        self.wake_up();
    }

    /// Goes on after a stop.
    pub(crate) fn carry_on(self: &Arc<Self>, mut go: Box<Go>, frame: &mut dyn Frame) -> Answer {
        if !go.prepared {
            go.prepared = true;
            let view = go.stopped.registers;
            let mut orders = Vec::new();
            if self.fs_base.swap(view.fs_base, Ordering::Relaxed) != view.fs_base {
                orders.push(Order::SetFs(view.fs_base));
            }
            if self.gs_base.swap(view.gs_base, Ordering::Relaxed) != view.gs_base {
                orders.push(Order::SetGs(view.gs_base));
            }
            if !orders.is_empty() {
                return self.order(orders, After::Trace(go));
            }
        }
        let Go { stopped, signal, .. } = *go;
        let Stopped { registers: view, state, state_set, info, then, .. } = *stopped;
        let rax = view.general.rax as i64;
        let returning = view.call().map(|number| (number, restart_of(rax).map_or(Ok(rax), Err)));
        let mut general = view.general;
        if let Some((_, Err(_))) = returning {
            general.rax = -i64::from(Errno::EINTR.code()) as u64;
        }
        frame.set_registers(&general);
        if state_set {
            frame.set_extended_state(Some(&state));
        }
        match then {
            Then::User => self.to_user(frame, returning),
            Then::Call(told) => self.make_traced_call(view.call(), frame, told),
            Then::Signal => self.after_signal_stop(info, signal, frame, returning),
            Then::Made { number, child, vfork } => clone::made(self, number, child, vfork, frame),
            Then::Die(status) => {
                exit::exit_group(self, status);
                Answer::Park
            }
        }
    }

    /// A call of a traced task: the stop before it, if it is to stop, and the call.
    pub(crate) fn enter_call(self: &Arc<Self>, number: u32, args: [u64; 6], frame: &mut dyn Frame) -> Answer {
        let mut r = frame.registers();
        r.rflags &= !TRAP_FLAG;
        // As the syscall instruction leaves them, also where the call came another way.
        (r.rcx, r.r11) = (r.rip, r.rflags);
        [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9] = args;
        r.rax = -i64::from(Errno::ENOSYS.code()) as u64;
        frame.set_registers(&r);
        let stop = {
            let mut t = self.trace.lock();
            t.in_call = t.tracer.is_some();
            let stops = t.in_call && (t.mode == Mode::Syscall || t.mode.emulates());
            stops.then(|| t.has(option::TRACESYSGOOD))
        };
        match stop {
            Some(good) => {
                let code = call_code(good);
                let info = Some(notice(self, sig::TRAP, code));
                let reason =
                    Reason { code, info, message: 1, call: CallStop::Entry, then: Then::Call(Told::default()) };
                self.trace_stop(frame, reason, Some((number, Err(Errno::ENOSYS))))
            }
            None => self.make_traced_call(Some(number), frame, Told::default()),
        }
    }

    /// Makes the call that `number` says now, with the arguments in the registers.
    fn make_traced_call(self: &Arc<Self>, number: Option<u32>, frame: &mut dyn Frame, told: Told) -> Answer {
        let r = frame.registers();
        let (emulates, tells) = {
            let mut t = self.trace.lock();
            let emulates = t.in_call && t.mode.emulates();
            if emulates {
                t.in_call = t.mode.steps();
            }
            (emulates, t.has(option::TRACEEXIT) && !told.end)
        };
        let Some(number) = number.filter(|_| !emulates) else { return self.to_user(frame, None) };
        let args = [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9];
        if let Some(said) = self.refused(&Call { number, args, ip: r.rip, posted: false }, told.filter) {
            return self.finish_in_trap(number, said, frame);
        }
        const EXIT: u32 = 60;
        const EXIT_GROUP: u32 = 231;
        if tells && matches!(number, EXIT | EXIT_GROUP) {
            let (status, then) = ((r.rdi & 0xff) << 8, Then::Call(Told { end: true, filter: true }));
            return self.stop_for_event(frame, event::EXIT, status, then, Some((number, Err(Errno::ENOSYS))));
        }
        let result = syscalls::dispatch(self, number, &args);
        let result = self.without_pass_through(number, args, result);
        self.finish_in_trap(number, result, frame)
    }

    /// What a call comes to that the host would carry out itself, in a trap, where the call is over for the host.
    pub(crate) fn without_pass_through(&self, number: u32, args: [u64; 6], result: SysResult) -> SysResult {
        if !matches!(result, Ok(Outcome::Special(Special::PassThrough))) {
            return result;
        }
        let [address, len, third, fourth, ..] = args;
        let order = match number {
            10 => Order::Protect { address, len, prot: third as i32 },
            // Below what can be mapped there is nothing to unmap.
            11 if address.saturating_add(len) <= GUEST_BOTTOM => return Ok(Outcome::Value(0)),
            11 => {
                let from = address.max(GUEST_BOTTOM);
                Order::Unmap { address: from, len: len.saturating_sub(from - address) }
            }
            334 => Order::Rseq { address, len: len as u32, flags: third as i32, signature: fourth as u32 },
            28 => Order::Advise { address, len, advice: third as i32 },
            158 => match address as i32 {
                0x1001 => Order::SetGs(len),
                0x1002 => Order::SetFs(len),
                0x1003 | 0x1004 => {
                    let base = if address as i32 == 0x1003 { &self.fs_base } else { &self.gs_base };
                    self.write_exact(len, &base.load(Ordering::Relaxed).to_le_bytes())?;
                    return Ok(Outcome::Value(0));
                }
                _ => return Err(Errno::EINVAL),
            },
            _ => return Err(Errno::ENOSYS),
        };
        Ok(Outcome::Special(Special::Orders { orders: vec![order], result: 0, undo: None }))
    }

    /// Whether its tracer is to be told what filters want traced (`SECCOMP_RET_TRACE`).
    pub(crate) fn traces_filters(&self) -> bool {
        self.is_traced() && self.trace.lock().has(option::TRACESECCOMP)
    }

    /// A filter wants a call told: the call has not been made.
    pub(crate) fn stop_for_filter(self: &Arc<Self>, number: u32, said: u32, frame: &mut dyn Frame) -> Answer {
        let code = sig::TRAP | event::SECCOMP << 8;
        let reason = Reason {
            code,
            info: Some(notice(self, sig::TRAP, code)),
            message: u64::from(said),
            call: CallStop::Filter(said),
            then: Then::Call(Told { filter: true, ..Told::default() }),
        };
        self.trace_stop(frame, reason, Some((number, Err(Errno::ENOSYS))))
    }

    fn stop_for_event(
        self: &Arc<Self>,
        frame: &mut dyn Frame,
        event: i32,
        message: u64,
        then: Then,
        returning: Returning,
    ) -> Answer {
        let code = sig::TRAP | event << 8;
        let info = Some(notice(self, sig::TRAP, code));
        // What tells of a thread tells it by the id that the tracer knows.
        let message = match (event, i32::try_from(message)) {
            (event::FORK..=event::VFORK_DONE, Ok(id)) => {
                let tracer = self.trace.lock().tracer.clone();
                tracer.map_or(0, |t| u64::try_from(t.shown(id)).unwrap_or(0))
            }
            _ => message,
        };
        self.trace_stop(frame, Reason { code, info, message, call: CallStop::None, then }, returning)
    }

    /// What a traced task stops for before it runs on, other than signals. `None`: nothing.
    pub(crate) fn trace_before_user(self: &Arc<Self>, frame: &mut dyn Frame, returning: Returning) -> Option<Answer> {
        enum Due {
            VforkDone(i32),
            Exit(bool),
            Step,
            Handler,
            Group(i32, bool),
        }
        loop {
            let stop = *self.group().stop.lock();
            let due = {
                let mut t = self.trace.lock();
                t.tracer.as_ref()?;
                let due = if let Some(child) = t.vfork_done.take() {
                    Due::VforkDone(child)
                } else if std::mem::take(&mut t.in_call) {
                    match t.mode {
                        Mode::Syscall => Due::Exit(t.has(option::TRACESYSGOOD)),
                        Mode::Step | Mode::EmulateStep => Due::Step,
                        Mode::Continue | Mode::Emulate => continue,
                    }
                } else if std::mem::take(&mut t.stepped_in) {
                    Due::Handler
                } else if t.is_due() {
                    let signal = match (std::mem::take(&mut t.group_stop), stop.signal) {
                        (0, 0) if t.seized => sig::TRAP,
                        (0, 0) => sig::STOP,
                        (0, signal) | (signal, _) => signal,
                    };
                    if !t.seized {
                        (t.trap_stop, t.trap_notify) = (false, false);
                    }
                    Due::Group(signal, t.seized)
                } else {
                    self.hailed.store(false, Ordering::SeqCst);
                    return None;
                };
                self.hailed.store(t.is_due(), Ordering::SeqCst);
                due
            };
            let reason = match due {
                Due::VforkDone(child) => {
                    return Some(self.stop_for_event(frame, event::VFORK_DONE, child as u64, Then::User, returning));
                }
                Due::Step => {
                    self.force_signal(SigInfo::fault(sig::TRAP, 1, frame.registers().rip));
                    continue;
                }
                Due::Exit(good) => {
                    let code = call_code(good);
                    let info = Some(notice(self, sig::TRAP, code));
                    Reason { code, info, message: 2, call: CallStop::Exit, then: Then::User }
                }
                Due::Handler => {
                    let info = Some(notice(self, sig::TRAP, sig::TRAP));
                    Reason { code: sig::TRAP, info, message: 0, call: CallStop::None, then: Then::User }
                }
                Due::Group(signal, seized) => {
                    let code = signal | if seized { event::STOP << 8 } else { 0 };
                    let info = seized.then(|| notice(self, signal, code));
                    Reason { code, info, message: 0, call: CallStop::None, then: Then::User }
                }
            };
            return Some(self.trace_stop(frame, reason, returning));
        }
    }

    /// A traced task stops with a signal that it is about to get.
    pub(crate) fn stop_for_signal(
        self: &Arc<Self>,
        frame: &mut dyn Frame,
        info: SigInfo,
        returning: Returning,
    ) -> Answer {
        let reason =
            Reason { code: info.signo, info: Some(info), message: 0, call: CallStop::None, then: Then::Signal };
        self.trace_stop(frame, reason, returning)
    }

    /// Delivers the signal that the tracer let through.
    fn after_signal_stop(
        self: &Arc<Self>,
        info: Option<SigInfo>,
        signal: i32,
        frame: &mut dyn Frame,
        mut returning: Returning,
    ) -> Answer {
        if signal != 0 {
            let info = match info {
                Some(info) if info.signo == signal => info,
                _ => {
                    let t = self.trace.lock();
                    let (pid, uid) = t
                        .tracer
                        .as_ref()
                        .map_or((0, 0), |t| (self.shown(t.tid()), self.creds().shown_uid(t.creds().ruid)));
                    SigInfo::from_process(signal, code::USER, pid, uid)
                }
            };
            if self.mask().has(signal) {
                // The tracer made it one that is blocked, or had it blocked: it waits.
                let mut pending = self.pending.lock();
                pending.push(info, usize::MAX);
                self.pending_set.store(pending.set().0, Ordering::SeqCst);
            } else if let Some(answer) = self.act(&info, frame, &mut returning) {
                return answer;
            }
        }
        self.to_user(frame, returning)
    }

    /// A handler's frame was pushed: a step ends there.
    pub(crate) fn stepped_into_handler(&self) {
        if self.is_traced() {
            let mut t = self.trace.lock();
            t.stepped_in = t.mode.steps();
        }
    }

    /// A signal ends the process: the stop before that, if the tracer wants it.
    pub(crate) fn stop_before_end(self: &Arc<Self>, status: i32, frame: &mut dyn Frame) -> Option<Answer> {
        if !self.is_traced() || !self.trace.lock().has(option::TRACEEXIT) {
            return None;
        }
        Some(self.stop_for_event(frame, event::EXIT, status as u64, Then::Die(status), None))
    }

    /// Executes a program: what its tracer is told of.
    pub(crate) fn trace_exec(self: &Arc<Self>, frame: &mut dyn Frame) -> Answer {
        const EXECVE: u32 = 59;
        let returning = Some((EXECVE, Ok(0)));
        if self.is_traced() {
            let (told, former, seized) = {
                let t = self.trace.lock();
                (t.has(option::TRACEEXEC), t.former, t.seized)
            };
            if told {
                return self.stop_for_event(frame, event::EXEC, former as u64, Then::User, returning);
            }
            if !seized {
                send::to_task(self, SigInfo::from_process(sig::TRAP, code::USER, self.pid(), self.creds().ruid));
            }
        }
        self.to_user(frame, returning)
    }

    /// Notes the id that it has before it executes a program.
    pub(crate) fn note_former(&self, tid: i32) {
        let mut t = self.trace.lock();
        t.former = tid;
        // They were the program's before.
        t.debug = debug::DebugRegisters::default();
    }

    /// A clone was made: the stop that tells of it, if there is to be one.
    pub(crate) fn stop_for_clone(
        self: &Arc<Self>,
        frame: &mut dyn Frame,
        event: i32,
        number: u32,
        child: (i32, i32),
        vfork: Option<Arc<clone::Vfork>>,
    ) -> Answer {
        let returning = Some((number, Err(Errno::ENOSYS)));
        self.stop_for_event(frame, event, child.0 as u64, Then::Made { number, child, vfork }, returning)
    }

    /// It is about to wait for its `vfork` child: once that lets it go, its tracer may want to know.
    pub(crate) fn note_vfork(&self, child: i32) {
        if self.is_traced() {
            let mut t = self.trace.lock();
            if t.has(option::TRACEVFORKDONE) {
                t.vfork_done = Some(child);
                self.hailed.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Whether the next thing that it does in its own code is one step. Asked last before it runs.
    pub(crate) fn is_stepping(&self) -> bool {
        if !self.is_traced() {
            return false;
        }
        let steps = {
            let t = self.trace.lock();
            t.tracer.is_some() && t.mode.steps()
        };
        self.watch() || steps
    }

    /// Its process was stopped by a signal.
    pub(crate) fn trace_group_stop(self: &Arc<Self>, signo: i32) {
        if self.is_traced() {
            let mut t = self.trace.lock();
            if t.tracer.is_some() {
                t.group_stop = signo;
                self.hailed.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Its process gets SIGCONT.
    pub(crate) fn trace_group_continue(self: &Arc<Self>) {
        if !self.is_traced() {
            return;
        }
        let released = {
            let mut t = self.trace.lock();
            t.group_stop = 0;
            t.trap_notify = t.seized && t.tracer.is_some();
            let listens = t.stop.as_ref().is_some_and(|s| s.listening);
            if listens {
                t.release(0);
            }
            self.hailed.store(t.is_due(), Ordering::SeqCst);
            listens
        };
        if released { self.wake_released() } else { self.get_attention() }
    }

    /// The stop of a tracee of `tracer`, for a request; ESRCH if it is in none.
    pub fn with_stop<T>(
        self: &Arc<Self>,
        tracer: &Arc<Task>,
        f: impl FnOnce(&mut Trace, &mut Stopped) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut t = self.trace.lock();
        if !t.tracer.as_ref().is_some_and(|t| Arc::ptr_eq(t, tracer)) {
            return Err(Errno::ESRCH);
        }
        let mut stop = t.stop.take().ok_or(Errno::ESRCH)?;
        let result = if stop.listening { Err(Errno::ESRCH) } else { f(&mut t, &mut stop) };
        t.stop = Some(stop);
        result
    }

    /// Lets a tracee go.
    pub fn let_go(self: &Arc<Self>, tracer: &Arc<Task>, mode: Mode, signal: i32) -> Result<(), Errno> {
        self.with_stop(tracer, |t, _| {
            t.mode = mode;
            Ok(())
        })?;
        self.trace.lock().release(signal);
        self.wake_released();
        Ok(())
    }

    /// `PTRACE_INTERRUPT`.
    pub fn trace_interrupt(self: &Arc<Self>, tracer: &Arc<Task>) -> Result<(), Errno> {
        let listens = {
            let mut t = self.trace.lock();
            if !t.tracer.as_ref().is_some_and(|t| Arc::ptr_eq(t, tracer)) {
                return Err(Errno::ESRCH);
            }
            if !t.seized {
                return Err(Errno::EIO);
            }
            t.trap_stop = true;
            self.hailed.store(true, Ordering::SeqCst);
            let listens = t.stop.as_ref().is_some_and(|s| s.listening);
            if listens {
                t.release(0);
            }
            listens
        };
        if listens {
            self.wake_released()
        } else {
            self.get_attention()
        }
        Ok(())
    }

    /// `PTRACE_LISTEN`.
    pub fn trace_listen(self: &Arc<Self>, tracer: &Arc<Task>) -> Result<(), Errno> {
        let told = self.with_stop(tracer, |t, stop| {
            if !t.seized || stop.code >> 8 != event::STOP {
                return Err(Errno::EIO);
            }
            stop.listening = true;
            // What came meanwhile is told at once.
            Ok(t.trap_notify)
        })?;
        if told {
            self.trace.lock().release(0);
            self.wake_released();
        }
        Ok(())
    }
}

/// The code of a stop at a call.
fn call_code(good: bool) -> i32 {
    sig::TRAP | if good { 0x80 } else { 0 }
}

/// The restart code that a result register holds.
fn restart_of(rax: i64) -> Option<Errno> {
    const CODES: [Errno; 4] =
        [Errno::ERESTARTSYS, Errno::ERESTARTNOINTR, Errno::ERESTARTNOHAND, Errno::ERESTART_RESTARTBLOCK];
    CODES.into_iter().find(|e| rax == -i64::from(e.code()))
}

/// Tells a tracer that its tracee stopped.
fn tell(tracer: &Arc<Task>, tracee: &Task, why: i32, status: i32) {
    let group = tracer.group();
    let action = tracer.actions().lock().get(sig::CHLD);
    if action.handler != SIG_IGN && action.flags & sa::NOCLDSTOP == 0 {
        let info = SigInfo::child(why, tracee.tid(), tracee.creds().ruid, status);
        send::to_group(tracer.kernel(), group, info);
    }
    group.child_change.wake_all();
}

/// What a stop's siginfo may be set to: a signal that is delivered, or nothing.
pub(crate) fn deliverable(signal: u64) -> Result<i32, Errno> {
    let signal = i32::try_from(signal).map_err(|_| Errno::EIO)?;
    if signal == 0 || SigSet::bit(signal) != 0 { Ok(signal) } else { Err(Errno::EIO) }
}
