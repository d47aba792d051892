//! Where a platform's stops arrive: calls and traps of tasks are turned into kernel calls, faults and signals.
//!
//! A call that arrives without registers (`call`) is answered with its result; if the task then has something to look
//! at first (a signal, a stop), or the outcome needs registers, the platform is told to trap it before it runs on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use cofferdam_platform::{Answer, Call, Frame, GuestThread, HostThread, Order, Trap};

use super::ptrace::registers::TRAP_FLAG;
use super::{After, Begin, Special, Task, seccomp};
use crate::errno::Errno;
use crate::memory::sites::{SITE_LEN, Sites};
use crate::memory::space::{Bounds, Fault, MapRequest};
use crate::memory::store::{PAGE, page_down, page_up};
use crate::memory::vma::{EXEC, READ, WRITE};
use crate::signal::{SigInfo, code, sig};
use crate::syscalls::{self, Outcome, SysResult};
use crate::vfs::moment;

/// Orders given at once.
const BATCH: usize = 48;

/// The result register of a result.
fn encode(result: Result<i64, Errno>) -> i64 {
    match result {
        Ok(v) => v,
        Err(e) if e.is_restart() => -i64::from(Errno::EINTR.code()),
        Err(e) => -i64::from(e.code()),
    }
}

impl GuestThread for Task {
    fn attach(&self, host: Arc<dyn HostThread>) {
        self.set_host(Some(host));
        self.scheduled_anew();
    }

    fn call(self: Arc<Self>, call: Call) -> Answer {
        crate::wait::serving(self.tid(), self.woke.load(Ordering::Relaxed));
        moment::begin();
        // A call from shared memory says nothing about where the thread is.
        if !call.posted {
            self.mm().settle(self.tid());
        }
        if self.is_traced() {
            self.state.lock().deferred = Some((call.number, Special::Traced(call.args)));
            return Answer::ReturnThenTrap(-i64::from(Errno::ENOSYS.code()));
        }
        let done = self.make_call(&call);
        if crate::wait::has_woken() {
            self.woke.store(true, Ordering::Relaxed);
        }
        match done {
            Ok(Outcome::Value(v)) => match self.leave_call(call.number, Ok(v)) {
                Answer::Return(v) if self.worth_patching(&call) => {
                    self.state.lock().deferred = Some((call.number, Special::Patch(call.ip)));
                    Answer::ReturnThenTrap(v)
                }
                answer => answer,
            },
            Err(e) => self.leave_call(call.number, Err(e)),
            Ok(Outcome::Block(wait)) => match self.block_in(wait, call.number) {
                Some(result) => self.leave_call(call.number, result),
                None => {
                    self.woke.store(false, Ordering::Relaxed);
                    Answer::Park
                }
            },
            Ok(Outcome::Special(Special::Exit)) => Answer::Exit,
            Ok(Outcome::Special(Special::PassThrough)) => {
                if !self.attention() && !self.group().cgroup.is_frozen() {
                    return Answer::PassThrough;
                }
                // It must trap before it runs on.
                match self.without_pass_through(call.number, call.args, Ok(Outcome::Special(Special::PassThrough))) {
                    Ok(Outcome::Special(special)) => {
                        self.state.lock().deferred = Some((call.number, special));
                        Answer::ReturnThenTrap(0)
                    }
                    Ok(Outcome::Value(v)) => self.leave_call(call.number, Ok(v)),
                    Ok(Outcome::Block(_)) => self.leave_call(call.number, Err(Errno::ENOSYS)),
                    Err(e) => self.leave_call(call.number, Err(e)),
                }
            }
            Ok(Outcome::Special(special)) => {
                self.state.lock().deferred = Some((call.number, special));
                Answer::ReturnThenTrap(0)
            }
        }
    }

    fn trap(self: Arc<Self>, trap: Trap, frame: &mut dyn Frame) -> Answer {
        crate::wait::serving(self.tid(), false);
        moment::begin();
        if self.exited.load(Ordering::SeqCst) {
            // Ended before its host process was there: that is not asked to end.
            if trap == Trap::Start
                && self.group().is_exiting()
                && let Some(host) = self.host()
            {
                host.kill();
                return Answer::Park;
            }
            return Answer::Exit;
        }
        let owing = {
            let state = self.state.lock();
            !state.more.is_empty() || (trap == Trap::Interrupt && state.deferred.is_some())
        };
        if !owing {
            self.mm().settle(self.tid());
        }
        if let Some(answer) = self.end_step(trap, frame) {
            return answer;
        }
        match trap {
            Trap::Start => self.begin(frame),
            Trap::Call(call) => {
                if self.is_traced() {
                    return self.enter_call(call.number, call.args, frame);
                }
                let result = self.make_call(&call);
                self.finish_in_trap(call.number, result, frame)
            }
            Trap::Fault { signal, code, address, error, number } => {
                self.fault(signal, code, address, error, number, frame)
            }
            Trap::Interrupt => {
                self.leave_trampoline(frame);
                if let Some(go) = self.take_go() {
                    return self.carry_on(go, frame);
                }
                let deferred = self.state.lock().deferred.take();
                match deferred {
                    Some((number, special)) => self.finish_in_trap(number, Ok(Outcome::Special(special)), frame),
                    None => {
                        let returning = self.state.lock().returning.take();
                        self.to_user(frame, returning)
                    }
                }
            }
            Trap::Ordered(result) => self.ordered(result, frame),
        }
    }

    fn lost(self: Arc<Self>, signal: i32) {
        if self.exited.load(Ordering::SeqCst) {
            // Ended before; its process may go on with another program.
            return;
        }
        // The host killed the stub, or the container broke it: for the container it is as if that signal came.
        tracing::warn!(tid = self.tid(), signal, "a container process was lost");
        if signal & 0x7f == sig::KILL {
            self.group().cgroup.limits.host_killed();
        }
        super::exit::exit_group(&self, signal & 0x7f);
    }
}

/// Gives the pages that a call site lies in a protection.
fn text_order(site: u64, prot: i32) -> Order {
    let address = page_down(site);
    let len = page_up(site + SITE_LEN).unwrap_or(address + PAGE) - address;
    Order::Protect { address, len, prot }
}

impl Task {
    /// Makes a call, unless a filter of its own says otherwise.
    fn make_call(self: &Arc<Self>, call: &Call) -> SysResult {
        let result = self.refused(call, false).unwrap_or_else(|| syscalls::dispatch(self, call.number, &call.args));
        super::shrink::heard(self);
        result
    }

    /// What a filter of its own makes of a call; `None` if it may be made. `told`: its tracer has been told of it.
    pub(crate) fn refused(self: &Arc<Self>, call: &Call, told: bool) -> Option<SysResult> {
        if self.seccomp.mode() == seccomp::Mode::Disabled { None } else { seccomp::gate(self, call, told) }
    }

    /// Whether the site of a call that just ended should be patched now.
    fn worth_patching(&self, call: &Call) -> bool {
        self.kernel().patch.load(Ordering::Relaxed)
            && self.mm().sites.often(call.number, call.ip)
            && self.has_memory_alone()
    }

    /// Whether no other thread has this one's memory, of its process or of another (`CLONE_VM`).
    fn has_memory_alone(&self) -> bool {
        let mm = self.mm();
        let tasks = self.kernel().tree.lock().tasks();
        !tasks.iter().any(|t| t.tid() != self.tid() && Arc::ptr_eq(&t.mm(), &mm))
    }

    /// An interrupt found the thread in a trampoline: it is put back to before its call.
    fn leave_trampoline(&self, frame: &mut dyn Frame) {
        let mut r = frame.registers();
        if let Some(site) = self.mm().sites.site_of(r.rip) {
            r.rip = site;
            frame.set_registers(&r);
        }
    }

    /// Begins to patch the call site that ends at `ip`; `None` if that cannot be.
    fn patch(self: &Arc<Self>, number: u32, ip: u64) -> Option<Answer> {
        let (host, mm, kernel) = (self.host()?, self.mm(), self.kernel());
        let site = ip.checked_sub(SITE_LEN)?;
        let mut found = [0; SITE_LEN as usize];
        if host.read(site, &mut found) != Ok(found.len()) || found != Sites::pattern(number) {
            return None;
        }
        let prot = mm.private_text(site, ip)?;
        let mut orders = Vec::new();
        if !mm.sites.has_room(site) {
            if !mm.sites.may_add_page() {
                return None;
            }
            let way = host.short_way()?;
            let memory = Sites::page(&kernel.memory).ok()?;
            let mut mapped = None;
            for hint in Sites::hints(site) {
                let request = MapRequest {
                    address: hint,
                    len: PAGE,
                    prot: READ | EXEC,
                    max_prot: READ | EXEC,
                    shared: true,
                    no_replace: true,
                    populate: true,
                    object: Some((memory.clone(), 0)),
                    name: "[calls]",
                    ..MapRequest::default()
                };
                if let Ok(done) = mm.map(self.tid(), request, &Bounds::NONE) {
                    mapped = Some(done);
                    break;
                }
            }
            let (address, new) = mapped?;
            mm.sites.add_page(address, memory, way).ok()?;
            orders = new;
        }
        let jump = mm.sites.trampoline(site, number).ok()?;
        orders.push(text_order(site, READ | WRITE | EXEC));
        tracing::debug!(tid = self.tid(), site, number, "call site patched");
        Some(self.order(orders, After::Patch { site, jump, prot }))
    }

    /// Ends a call whose task has no registers at hand.
    pub(crate) fn leave_call(self: &Arc<Self>, number: u32, result: Result<i64, Errno>) -> Answer {
        if self.may_mend(result) {
            self.state.lock().deferred = Some((number, Special::Mend));
            return Answer::ReturnThenTrap(encode(result));
        }
        if self.seccomp.mode() == seccomp::Mode::Filter {
            let mut state = self.state.lock();
            if let Some(args) = state.noticed.take() {
                state.deferred = Some((number, Special::Noticed(args)));
                return Answer::ReturnThenTrap(0);
            }
        }
        if let Ok(done) = result {
            self.counters.call(number, done);
        }
        if self.exited.load(Ordering::SeqCst) {
            return Answer::Park;
        }
        let restarts = matches!(result, Err(e) if e.is_restart());
        if !restarts && !self.attention() {
            // A mask that held for this call only (ppoll) is over; what it blocked may be deliverable now.
            let saved = self.state.lock().saved_mask.take();
            if let Some(mask) = saved {
                self.mask.store(mask, Ordering::SeqCst);
            }
        }
        let frozen = self.group().cgroup.is_frozen();
        if restarts || frozen || self.attention() || self.stale.load(Ordering::SeqCst) || self.is_traced() {
            self.state.lock().returning = Some((number, result));
            self.claim_signal();
            Answer::ReturnThenTrap(encode(result))
        } else {
            Answer::Return(encode(result))
        }
    }

    /// Ends a call in a trap.
    pub(crate) fn finish_in_trap(self: &Arc<Self>, number: u32, result: SysResult, frame: &mut dyn Frame) -> Answer {
        match result {
            Ok(Outcome::Value(v)) => self.return_in_trap(number, Ok(v), frame),
            Err(e) => self.return_in_trap(number, Err(e), frame),
            Ok(Outcome::Block(wait)) => match self.block_in(wait, number) {
                Some(result) => self.return_in_trap(number, result, frame),
                None => Answer::Park,
            },
            Ok(Outcome::Special(Special::Exit)) => Answer::Exit,
            // There is nothing to pass through any more: the call itself is over.
            Ok(Outcome::Special(Special::PassThrough)) => self.return_in_trap(number, Err(Errno::ENOSYS), frame),
            Ok(Outcome::Special(Special::Orders { orders, result, undo })) => {
                if orders.is_empty() {
                    return self.return_in_trap(number, Ok(result), frame);
                }
                self.order(orders, After::Call { number, result, undo })
            }
            Ok(Outcome::Special(Special::Then { orders, then })) => self.order(orders, After::Then { number, then }),
            Ok(Outcome::Special(Special::Clone(request))) => match super::clone::start(self, number, request, frame) {
                Ok(answer) => answer,
                Err(e) => self.return_in_trap(number, Err(e), frame),
            },
            Ok(Outcome::Special(Special::Exec(request))) => match super::exec::exec(self, &request) {
                Ok(()) => Answer::Park,
                Err(e) => self.return_in_trap(number, Err(e), frame),
            },
            Ok(Outcome::Special(Special::AltStack(request))) => {
                let result = syscalls::signal::alt_stack(self, &request, frame.registers().rsp);
                self.return_in_trap(number, result, frame)
            }
            Ok(Outcome::Special(Special::Patch(ip))) => match self.patch(number, ip) {
                Some(answer) => answer,
                None => self.to_user(frame, None),
            },
            Ok(Outcome::Special(Special::Filtered(said))) => self.stop_for_filter(number, said, frame),
            Ok(Outcome::Special(Special::Noticed(args))) => {
                let result = syscalls::dispatch(self, number, &args);
                let result = self.without_pass_through(number, args, result);
                self.finish_in_trap(number, result, frame)
            }
            Ok(Outcome::Special(Special::Mend)) => self.return_in_trap(number, Err(Errno::EFAULT), frame),
            Ok(Outcome::Special(Special::Traced(args))) => self.enter_call(number, args, frame),
            Ok(Outcome::Special(Special::SigReturn)) => crate::signal::deliver::sigreturn(self, frame),
        }
    }

    pub(crate) fn return_in_trap(
        self: &Arc<Self>,
        number: u32,
        result: Result<i64, Errno>,
        frame: &mut dyn Frame,
    ) -> Answer {
        if self.may_mend(result)
            && let Some(orders) = self.mend()
        {
            return self.order(orders, After::Again { number });
        }
        let noticed = self.state.lock().noticed.take();
        if let Some(args) = noticed {
            return self.finish_in_trap(number, Ok(Outcome::Special(Special::Noticed(args))), frame);
        }
        if let Ok(done) = result {
            self.counters.call(number, done);
        }
        let mut r = frame.registers();
        r.rax = encode(result) as u64;
        frame.set_registers(&r);
        self.to_user(frame, Some((number, result)))
    }

    /// Gives orders, in batches; `after` follows the last.
    pub(crate) fn order(&self, mut orders: Vec<Order>, after: After) -> Answer {
        let mut state = self.state.lock();
        state.more = if orders.len() > BATCH { orders.split_off(BATCH) } else { Vec::new() };
        state.after = Some(after);
        Answer::Orders(orders)
    }

    fn ordered(self: &Arc<Self>, result: i64, frame: &mut dyn Frame) -> Answer {
        let after = {
            let mut state = self.state.lock();
            if result == 0 && !state.more.is_empty() {
                let rest = if state.more.len() > BATCH { state.more.split_off(BATCH) } else { Vec::new() };
                let now = std::mem::replace(&mut state.more, rest);
                return Answer::Orders(now);
            }
            state.more.clear();
            state.after.take()
        };
        match after {
            Some(After::Call { number, result: value, undo }) => {
                if result < 0 {
                    if let Some(undo) = undo {
                        undo();
                    }
                    let e = Errno::from_host(i32::try_from(-result).unwrap_or(0));
                    return self.return_in_trap(number, Err(e), frame);
                }
                self.return_in_trap(number, Ok(value), frame)
            }
            Some(After::Then { number, then }) => {
                let result = then(self, result);
                self.finish_in_trap(number, result, frame)
            }
            Some(After::Fault) => {
                if result < 0 {
                    // The host has no memory left for it.
                    self.force_signal(SigInfo::new(sig::BUS, code::KERNEL));
                }
                self.to_user(frame, None)
            }
            Some(After::Again { number }) => {
                let again = if result < 0 { Errno::EFAULT } else { Errno::ERESTARTNOINTR };
                self.return_in_trap(number, Err(again), frame)
            }
            Some(After::Frame(what)) => self.room_for_frame(&what.0, &what.1, frame),
            Some(After::Shrunk) => {
                let returning = self.state.lock().returning.take();
                self.to_user(frame, returning)
            }
            Some(After::Patch { site, jump, prot }) => {
                if result == 0
                    && let Some(host) = self.host()
                    && host.write(site, &jump) != Ok(jump.len())
                {
                    tracing::warn!(site, "a call site could not be patched");
                }
                self.order(vec![text_order(site, prot)], After::Patched)
            }
            Some(After::Patched) => self.to_user(frame, None),
            Some(After::Clone { number, child, shown, vfork, event }) => {
                super::clone::finish(self, number, (&child, shown), vfork, event, result, frame)
            }
            Some(After::Trace(go)) => self.carry_on(go, frame),
            Some(After::Poke(poking)) => self.poke_ordered(poking, result, frame),
            Some(After::Exec(start)) => super::exec::finish(self, &start, result, frame),
            None => self.to_user(frame, None),
        }
    }

    /// Takes the trap flag of a single step out of the flags. The answer to a trap for a step that nobody waits for any more.
    fn end_step(self: &Arc<Self>, trap: Trap, frame: &mut dyn Frame) -> Option<Answer> {
        const STEP: i32 = 2;
        let step = matches!(trap, Trap::Fault { signal: sig::TRAP, code: STEP, .. });
        if self.stepping.swap(false, Ordering::SeqCst) {
            let mut r = frame.registers();
            r.rflags &= !TRAP_FLAG;
            frame.set_registers(&r);
            self.step_owed.store(!step, Ordering::SeqCst);
            return if step { self.watched_step(frame) } else { None };
        }
        (step && self.step_owed.swap(false, Ordering::SeqCst)).then(|| self.to_user(frame, None))
    }

    /// A new task's first stop.
    fn begin(self: &Arc<Self>, frame: &mut dyn Frame) -> Answer {
        let begin = self.state.lock().begin.take();
        match begin {
            Some(Begin::Clone { set_tid, number }) => {
                self.begun.store(true, Ordering::SeqCst);
                if set_tid != 0 {
                    let _ = self.write_exact(set_tid, &self.shown(self.tid()).to_le_bytes());
                }
                self.to_user(frame, Some((number, Ok(0))))
            }
            Some(Begin::Exec(mut start)) => {
                let orders = std::mem::take(&mut start.orders);
                self.order(orders, After::Exec(start))
            }
            None => Answer::Exit,
        }
    }

    fn fault(
        self: &Arc<Self>,
        signal: i32,
        si_code: i32,
        address: u64,
        error: u64,
        number: u64,
        frame: &mut dyn Frame,
    ) -> Answer {
        if crate::syscalls::strace() {
            tracing::debug!(
                "{} fault {signal} at {address:#x} error {error} trap {number} ip {:#x}",
                self.tid(),
                frame.registers().rip
            );
        }
        // Trap 14: a page fault; everything else is the container's own business.
        if number != 14 || !matches!(signal, sig::SEGV | sig::BUS) {
            self.force_signal(SigInfo::fault(signal, si_code, address));
            return self.to_user(frame, None);
        }
        let mm = self.mm();
        let found = match mm.fault(self.tid(), address, error) {
            Fault::NoArea => mm.grow(address, &self.bounds()),
            found => found,
        };
        match found {
            Fault::Orders(orders) => {
                self.counters.fault();
                return self.order(orders, After::Fault);
            }
            Fault::Retry => {
                let mut state = self.state.lock();
                let (at, times) = state.retries;
                state.retries = if at == address { (address, times + 1) } else { (address, 0) };
                if state.retries.1 < 100_000 {
                    drop(state);
                    // The thread whose orders mend it needs a processor.
                    std::thread::yield_now();
                    return self.to_user(frame, None);
                }
                drop(state);
                tracing::error!(address, "a fault that nothing mends");
                self.force_signal(SigInfo::fault(sig::SEGV, 2, address));
            }
            Fault::NoArea => self.force_signal(SigInfo::fault(sig::SEGV, 1, address)),
            Fault::Segv(c) => self.force_signal(SigInfo::fault(sig::SEGV, c, address)),
            Fault::Bus => self.force_signal(SigInfo::fault(sig::BUS, 2, address)),
        }
        self.to_user(frame, None)
    }
}
