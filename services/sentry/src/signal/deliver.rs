//! Delivery: what a task does with its signals before it runs on, and the return from a handler.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cofferdam_platform::{Answer, Frame, Registers};

use super::frame::{self, FRAME_LEN, MAX_XSTATE, SignalFrame};
use super::{
    Action, Default_, SIG_DFL, SIG_IGN, SS_AUTODISARM, SS_ONSTACK, SigInfo, SigSet, code, default_of, sa, sig,
};
use crate::errno::Errno;
use crate::task::ptrace::Returning;
use crate::task::ptrace::memory::Poking;
use crate::task::ptrace::registers::TRAP_FLAG;
use crate::task::{After, Task, exit};

/// `restart_syscall(2)`.
const RESTART_SYSCALL: u64 = 219;

impl Task {
    /// The last thing before a trapped task runs on: signals, stops, restarts. `returning`: the call that just ended.
    pub(crate) fn to_user(self: &Arc<Self>, frame: &mut dyn Frame, mut returning: Returning) -> Answer {
        if self.stale.swap(false, Ordering::SeqCst) {
            let orders = self.mm().shrunk();
            if !orders.is_empty() {
                self.state.lock().returning = returning;
                return self.order(orders, After::Shrunk);
            }
        }
        loop {
            if self.exited.load(Ordering::SeqCst) {
                return Answer::Park;
            }
            if self.is_traced()
                && let Some(answer) = self.trace_before_user(frame, returning)
            {
                return answer;
            }
            if self.is_kept() {
                let mut state = self.state.lock();
                // Looked at again under the lock: a continuation, a tracer or a thaw may just have come.
                if !self.is_kept() {
                    continue;
                }
                state.returning = returning;
                state.stopped = Some(frame.registers().rax as i64);
                self.counters.wait();
                return Answer::Park;
            }
            // One that was claimed as the call ended comes with the action of then.
            let claimed = self.state.lock().claimed.take().map(|(info, action)| (info, Some(action)));
            let Some((info, action)) = claimed.or_else(|| Some((self.next_signal()?, None))) else { break };
            if self.is_traced() && info.signo != sig::KILL {
                return self.stop_for_signal(frame, info, returning);
            }
            // Further signals nest on top of a handler's frame, as Linux does it.
            let action = action.unwrap_or_else(|| self.action_for(&info));
            if let Some(answer) = self.act_as(&info, action, frame, &mut returning) {
                return answer;
            }
        }
        restart(frame, returning, None);
        let saved = self.state.lock().saved_mask.take();
        if let Some(mask) = saved {
            self.mask.store(mask, Ordering::SeqCst);
            if self.attention() {
                return self.to_user(frame, None);
            }
        }
        if self.is_stepping() {
            // A step must not lead into the short way of a call.
            return match self.patched_at(frame.registers().rip) {
                Some(site) => self.poke_next(Poking::of_site(site), frame),
                None => self.step_once(frame),
            };
        }
        Answer::Resume
    }

    /// Runs on for one instruction.
    pub(crate) fn step_once(&self, frame: &mut dyn Frame) -> Answer {
        let mut r = frame.registers();
        r.rflags |= TRAP_FLAG;
        frame.set_registers(&r);
        self.stepping.store(true, Ordering::SeqCst);
        Answer::Resume
    }

    /// Whether it may not run now: its group is stopped, with no tracer to say otherwise, or its container is frozen.
    fn is_kept(&self) -> bool {
        let group = self.group();
        (group.stopped.load(Ordering::SeqCst) && !self.is_traced()) || group.cgroup.is_frozen()
    }

    fn next_signal(&self) -> Option<SigInfo> {
        self.take_signal(SigSet(!self.mask().0), self.shared_signals())
    }

    /// The action of a signal that is being delivered.
    fn action_for(&self, info: &SigInfo) -> Action {
        let actions = self.actions();
        let mut actions = actions.lock();
        let action = actions.get(info.signo);
        if action.flags & sa::RESETHAND != 0 && action.handler > SIG_IGN {
            actions.set(info.signo, Action { handler: SIG_DFL, ..action });
        }
        action
    }

    /// Takes a signal with its action as the task leaves a call, before it has trapped: on Linux both happen at that moment. Else a
    /// signal to oneself would be lost to another thread that ignores it in the meantime.
    pub(crate) fn claim_signal(&self) {
        if self.is_traced() || self.group().stopped.load(Ordering::SeqCst) || self.state.lock().claimed.is_some() {
            return;
        }
        if let Some(info) = self.next_signal() {
            let action = self.action_for(&info);
            self.state.lock().claimed = Some((info, action));
        }
    }

    /// Does what a signal's action says. `None`: the task goes on, perhaps to a handler.
    pub(crate) fn act(
        self: &Arc<Self>,
        info: &SigInfo,
        frame: &mut dyn Frame,
        returning: &mut Returning,
    ) -> Option<Answer> {
        self.act_as(info, self.action_for(info), frame, returning)
    }

    /// The same with an action that was looked up before.
    fn act_as(
        self: &Arc<Self>,
        info: &SigInfo,
        action: Action,
        frame: &mut dyn Frame,
        returning: &mut Returning,
    ) -> Option<Answer> {
        match action.handler {
            SIG_IGN => {}
            SIG_DFL => match default_of(info.signo) {
                Default_::Ignore | Default_::Continue => {}
                Default_::Stop => {
                    let stop = info.signo == sig::STOP || {
                        let tree = self.kernel().tree.lock();
                        let pgid = tree.node(self.pid()).map_or(0, |n| n.pgid);
                        !tree.orphaned(pgid, 0)
                    };
                    if stop {
                        exit::stop_group(self, info.signo);
                    }
                }
                Default_::Terminate => {
                    if !self.group().is_init() || info.code > 0 {
                        return Some(self.end(info.signo, frame));
                    }
                }
                Default_::Core => {
                    if !self.group().is_init() || info.code > 0 {
                        self.kernel().log(format!(
                            "{}[{}]: ended by signal {} at ip {:x} sp {:x}",
                            String::from_utf8_lossy(&self.comm.read()),
                            self.tid(),
                            info.signo,
                            frame.registers().rip,
                            frame.registers().rsp
                        ));
                        return Some(self.end(info.signo | self.group().dump_flag(), frame));
                    }
                }
            },
            _ => {
                restart(frame, returning.take(), Some(&action));
                if self.push_frame(frame, info, &action).is_err() {
                    if let Some(orders) = self.mend() {
                        return Some(self.order(orders, After::Frame(Box::new((*info, action)))));
                    }
                    return Some(self.no_frame(info));
                }
                self.stepped_into_handler();
            }
        }
        None
    }

    /// The stack has grown for a signal's frame.
    pub(crate) fn room_for_frame(self: &Arc<Self>, info: &SigInfo, action: &Action, frame: &mut dyn Frame) -> Answer {
        if self.push_frame(frame, info, action).is_err() {
            return self.no_frame(info);
        }
        self.stepped_into_handler();
        self.to_user(frame, None)
    }

    /// No room for a frame: as on Linux, SIGSEGV that cannot be caught here.
    fn no_frame(self: &Arc<Self>, info: &SigInfo) -> Answer {
        self.kernel().log(format!("{}: no stack for signal {}", self.tid(), info.signo));
        exit::exit_group(self, sig::SEGV);
        Answer::Park
    }

    /// A signal ends the process.
    fn end(self: &Arc<Self>, status: i32, frame: &mut dyn Frame) -> Answer {
        if let Some(answer) = self.stop_before_end(status, frame) {
            return answer;
        }
        exit::exit_group(self, status);
        Answer::Park
    }

    fn push_frame(self: &Arc<Self>, f: &mut dyn Frame, info: &SigInfo, action: &Action) -> Result<(), Errno> {
        let registers = f.registers();
        let state = self.state.lock();
        let on_alt = state.alt_stack.contains(registers.rsp) && state.alt_stack.flags & SS_AUTODISARM == 0;
        let mut alt = state.alt_stack;
        let mut sp = registers.rsp.wrapping_sub(128);
        if action.flags & sa::ONSTACK != 0 && usable(&alt) && !on_alt {
            sp = alt.sp.checked_add(alt.size).ok_or(Errno::EFAULT)?;
        }
        let entered_alt = action.flags & sa::ONSTACK != 0 && usable(&alt) && !on_alt;
        if on_alt {
            alt.flags |= SS_ONSTACK;
        }
        let xstate = f.extended_state();
        let x_at = sp.checked_sub(xstate.len() as u64).ok_or(Errno::EFAULT)? & !63;
        let at = (x_at.checked_sub(FRAME_LEN).ok_or(Errno::EFAULT)? & !15).checked_sub(8).ok_or(Errno::EFAULT)?;
        if (on_alt || entered_alt) && at < alt.sp {
            return Err(Errno::EFAULT);
        }
        let old_mask = state.saved_mask.unwrap_or(self.mask.load(Ordering::SeqCst));
        let fault = if SigSet::SYNCHRONOUS.has(info.signo) && info.code > 0 {
            let address = info.fields.get(..8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
            (4, 14, address)
        } else {
            (0, 0, 0)
        };
        let content = SignalFrame {
            registers,
            alt_stack: alt,
            mask: old_mask,
            xstate: if xstate.is_empty() { 0 } else { x_at },
            fault,
        };
        drop(state);
        // From below: a stack that must grow for it does so once.
        self.write_exact(at, &frame::build(&content, action.restorer, info))?;
        self.write_exact(x_at, &xstate)?;
        let mut state = self.state.lock();
        state.saved_mask = None;
        if alt.flags & SS_AUTODISARM != 0 && entered_alt {
            state.alt_stack = Default::default();
            state.alt_stack.flags = super::SS_DISABLE;
        }
        drop(state);
        let mut mask = old_mask | action.mask;
        if action.flags & sa::NODEFER == 0 {
            mask |= SigSet::bit(info.signo);
        }
        // The mask in force when a second signal interrupts the first handler is the first handler's.
        self.mask.store(mask & !SigSet::UNBLOCKABLE.0, Ordering::SeqCst);
        let uc = at + 8;
        f.set_registers(&Registers {
            rip: action.handler,
            rsp: at,
            rdi: u64::try_from(info.signo).unwrap_or(0),
            rsi: uc + 304,
            rdx: uc,
            rax: 0,
            rflags: registers.rflags & !(0x400 | 0x100),
            ..registers
        });
        // The handler starts with the extended state as it is: nothing to set.
        Ok(())
    }
}

/// Arranges for an interrupted call to be made again, or to fail with EINTR. `handler`: the action that interrupts it.
fn restart(frame: &mut dyn Frame, returning: Returning, handler: Option<&Action>) {
    let Some((number, Err(e))) = returning else { return };
    if !e.is_restart() {
        return;
    }
    let again = match (e, handler) {
        (Errno::ERESTARTNOINTR, _) | (_, None) => true,
        (Errno::ERESTARTSYS, Some(action)) => action.flags & sa::RESTART != 0,
        _ => false,
    };
    let mut r = frame.registers();
    if again {
        let block = e == Errno::ERESTART_RESTARTBLOCK && handler.is_none();
        r.rax = if block { RESTART_SYSCALL } else { u64::from(number) };
        r.rip = r.rip.wrapping_sub(2);
    } else {
        r.rax = (-i64::from(Errno::EINTR.code())) as u64;
    }
    frame.set_registers(&r);
}

/// `rt_sigreturn(2)`.
pub(crate) fn sigreturn(task: &Arc<Task>, frame: &mut dyn Frame) -> Answer {
    // The handler's `ret` took the return address off.
    let uc = frame.registers().rsp;
    let mut b = [0u8; 304];
    if task.read_exact(uc, &mut b).is_err() {
        task.force_signal(SigInfo::new(sig::SEGV, code::KERNEL));
        return task.to_user(frame, None);
    }
    let f = frame::parse(&b);
    let mut state = Vec::new();
    if f.xstate != 0 {
        let mut legacy = [0u8; 512];
        if task.read_exact(f.xstate, &mut legacy).is_err() {
            task.force_signal(SigInfo::new(sig::SEGV, code::KERNEL));
            return task.to_user(frame, None);
        }
        let word = |at: usize| legacy.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
        let len = if word(464) == 0x4650_5853 { (word(468) as usize).clamp(512, MAX_XSTATE) } else { 512 };
        state = vec![0; len];
        if task.read_exact(f.xstate, &mut state).is_err() {
            state = legacy.to_vec();
        }
    }
    frame.set_extended_state((!state.is_empty()).then_some(state.as_slice()));
    frame.set_registers(&f.registers);
    task.set_mask(SigSet(f.mask));
    {
        let mut s = task.state.lock();
        s.alt_stack = f.alt_stack;
        s.alt_stack.flags &= !SS_ONSTACK;
    }
    task.to_user(frame, None)
}

/// Whether there is a signal stack.
fn usable(alt: &super::AltStack) -> bool {
    alt.size != 0 && alt.flags & super::SS_DISABLE == 0
}
