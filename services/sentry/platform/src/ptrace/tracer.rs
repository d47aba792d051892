//! The tracer: waits for stops, asks the kernel, carries out its answers. Runs on one thread, which attached to all stubs;
//! everything here belongs to it. It must never wait for one stub alone without taking note of what others report: the
//! first thread of a process is reported dead only after the others have been.

use std::collections::VecDeque;
use std::io::Error;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use libc::user_regs_struct as Regs;

use super::sequence;
use super::tracee::{self, RegsFrame, SYSEMU, request};
use super::{Message, Process, Ptrace, Thread, Threads, lock};
use crate::layout::{STUB_BASE, STUB_SPAN};
use crate::notify::{filter::TRAPPED, orders::raw};
use crate::{Answer, Call, GuestThread, Order, Registers, Trap};

const EPERM: i64 = -1;
const EAGAIN: i64 = -11;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const RT_SIGRETURN: u32 = 15;
/// Stop at a call, with `PTRACE_O_TRACESYSGOOD`.
const CALL_STOP: i32 = libc::SIGTRAP | 0x80;
const EVENT_STOP: i32 = 128;
const OPTIONS: i32 = libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_EXITKILL;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    Running,
    /// In a call, with its number.
    Call(u32),
    Trap,
}

/// A thread as the tracer knows it.
pub(super) struct Live {
    thread: Arc<Thread>,
    stop: Stop,
    regs: Regs,
    /// What to set at the first stop.
    start: Option<(Registers, u64)>,
    /// It was sent to its end; its further stops mean nothing.
    leaving: bool,
    /// It asked for restartable sequences, or may have them from its parent.
    sequences: bool,
    /// Instruction, address and kind of access guessed of the last fault, if nothing came after it.
    fault: (u64, u64, u64),
}

/// The thread is dead or dying; its end is still to be reported.
struct Gone;

pub(super) struct Tracer<'a> {
    platform: &'a Ptrace,
    threads: Threads,
    /// Stops reported while another thread was waited for.
    pending: VecDeque<(i32, i32)>,
    /// Address of a `syscall` instruction in the stub's text.
    syscall_at: u64,
    template: Live,
}

/// One `waitpid(2)`; `None` if nothing is to be reported (or, with `WNOHANG`, yet).
fn wait_any(flags: i32) -> Option<(i32, i32)> {
    let mut status = 0;
    loop {
        // SAFETY: waitpid fills the status.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::__WALL | flags) };
        if pid > 0 {
            return Some((pid, status));
        }
        if pid == 0 || Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return None;
        }
    }
}

impl<'a> Tracer<'a> {
    /// Attaches to the template and brings it to a known stop.
    pub(super) fn attach(platform: &'a Ptrace) -> Result<Self, Error> {
        let tid = platform.template;
        if request(libc::PTRACE_SEIZE as i32, tid, 0, OPTIONS as usize) != 0
            || request(libc::PTRACE_INTERRUPT as i32, tid, 0, 0) != 0
        {
            return Err(Error::last_os_error());
        }
        // It is about to sleep in a call, or sleeps in it: run it to the call's entry, which tells where one is.
        let regs = loop {
            let Some((pid, status)) = wait_any(0) else { return Err(Error::last_os_error()) };
            if pid != tid || !libc::WIFSTOPPED(status) {
                return Err(Error::other(format!("process {pid} reported {status:#x}")));
            }
            let at_entry = libc::WSTOPSIG(status) == CALL_STOP && tracee::call_info(tid).0;
            if at_entry && let Some(regs) = tracee::registers(tid) {
                break regs;
            }
            request(libc::PTRACE_SYSCALL as i32, tid, 0, 0);
        };
        let syscall_at = regs.rip.wrapping_sub(2);
        if !(STUB_BASE..STUB_BASE + STUB_SPAN).contains(&syscall_at) {
            return Err(Error::other(format!("the template is at {syscall_at:#x}")));
        }
        let process = Process::new(tid);
        let thread = Arc::new(Thread { shared: platform.shared.clone(), tid, process, guest: Mutex::new(None) });
        let template =
            Live { thread, stop: Stop::Trap, regs, start: None, leaving: false, sequences: false, fault: (0, 0, 0) };
        Ok(Self { platform, threads: Threads::new(), pending: VecDeque::new(), syscall_at, template })
    }

    /// Serves for ever.
    pub(super) fn run(&mut self) -> ! {
        loop {
            let mut idle = true;
            while let Some((tid, status)) = self.pending.pop_front().or_else(|| wait_any(libc::WNOHANG)) {
                idle = false;
                self.stopped(tid, status);
                (self.platform.after)(crate::After::Other);
            }
            while let Some(message) = self.next_message() {
                idle = false;
                self.obey(message);
                (self.platform.after)(crate::After::Other);
            }
            if idle {
                self.sleep();
            }
        }
    }

    fn next_message(&self) -> Option<Message> {
        lock(&self.platform.shared.queue).pop_front()
    }

    /// Waits until a child reports, a message comes, or the starter ends.
    fn sleep(&self) {
        let shared = &self.platform.shared;
        shared.sleeping.store(true, Ordering::SeqCst);
        if !lock(&shared.queue).is_empty() {
            shared.sleeping.store(false, Ordering::SeqCst);
            return;
        }
        let fds = [&self.platform.children, &shared.wake, &self.platform.pipe];
        let mut polls = fds.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 });
        // SAFETY: poll fills the three entries.
        unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, -1) };
        shared.sleeping.store(false, Ordering::SeqCst);
        let [children, wake, pipe] = polls;
        let mut bytes = [0u8; 1024];
        for poll in [children, wake, pipe] {
            if poll.revents == 0 {
                continue;
            }
            // SAFETY: read fills at most the array. Of signals and wake-ups only that they came matters; of the
            // starter's reports too, since the tracer learns of ends by itself.
            let n = unsafe { libc::read(poll.fd, bytes.as_mut_ptr().cast(), bytes.len()) };
            if n == 0 && poll.fd == pipe.fd {
                crate::fatal("the stub starter is gone");
            }
        }
    }

    fn obey(&mut self, message: Message) {
        match message {
            Message::New(guest) => self.new_process(guest),
            Message::Interrupt(thread) => {
                if self.threads.get(&thread.tid).is_some_and(|l| {
                    l.stop == Stop::Running && l.start.is_none() && !l.leaving && Arc::ptr_eq(&l.thread, &thread)
                }) {
                    request(libc::PTRACE_INTERRUPT as i32, thread.tid, 0, 0);
                }
            }
            Message::Answer(thread, answer) => {
                let current = self.threads.get(&thread.tid).is_some_and(|l| Arc::ptr_eq(&l.thread, &thread));
                if current && let Some(mut live) = self.threads.remove(&thread.tid) {
                    self.finish(&mut live, answer);
                    self.threads.insert(thread.tid, live);
                }
            }
        }
    }

    fn new_process(&mut self, guest: Arc<dyn GuestThread>) {
        let thread = self.template.thread.clone();
        let fresh = Live {
            thread,
            stop: Stop::Trap,
            regs: self.template.regs,
            start: None,
            leaving: false,
            sequences: false,
            fault: (0, 0, 0),
        };
        let mut template = std::mem::replace(&mut self.template, fresh);
        let made = self.clone(&mut template, guest.clone(), false, false, Registers::default(), Some(0));
        self.template = template;
        match made {
            Ok(0) => {}
            Ok(error) => {
                tracing::error!("no new process: {}", Error::from_raw_os_error(i32::try_from(-error).unwrap_or(0)));
                guest.lost(libc::SIGKILL);
            }
            Err(Gone) => {
                crate::fatal("the stub template died: no new processes can be made");
            }
        }
    }

    /// What a thread reports.
    fn stopped(&mut self, tid: i32, status: i32) {
        let Some(mut live) = self.threads.remove(&tid) else {
            if tid == self.template.thread.tid {
                crate::fatal("the stub template died: no new processes can be made");
            }
            if libc::WIFSTOPPED(status) {
                // Made by a thread that was killed before it could tell.
                crate::host::kill(tid);
            }
            return;
        };
        if !libc::WIFSTOPPED(status) {
            let guest = lock(&live.thread.guest).take();
            if let Some(guest) = guest
                && !live.leaving
                && !live.thread.process.doomed.load(Ordering::Acquire)
            {
                guest.lost(if libc::WIFSIGNALED(status) { libc::WTERMSIG(status) } else { libc::SIGKILL });
            }
            return;
        }
        if live.leaving {
            request(libc::PTRACE_CONT as i32, tid, 0, 0);
        } else if let Some(regs) = tracee::registers(tid) {
            live.regs = regs;
            self.serve(&mut live, libc::WSTOPSIG(status), status >> 16);
        }
        self.threads.insert(tid, live);
    }

    /// Asks the kernel about a stop and carries out its answer.
    fn serve(&mut self, live: &mut Live, signal: i32, event: i32) {
        let tid = live.thread.tid;
        let Some(guest) = lock(&live.thread.guest).clone() else { return };
        let trap = if let Some((registers, fs)) = live.start.take() {
            tracee::put(&mut live.regs, &registers);
            live.regs.fs_base = fs;
            guest.attach(Arc::new(live.thread.clone()));
            Trap::Start
        } else if signal == CALL_STOP {
            live.fault = (0, 0, 0);
            let arch = tracee::call_info(tid).1;
            let r = &mut live.regs;
            let number = if arch == AUDIT_ARCH_X86_64 { r.orig_rax as u32 } else { u32::MAX };
            let call = Call { number, args: [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9], ip: r.rip, posted: false };
            if number != RT_SIGRETURN && !TRAPPED.contains(&number) {
                live.stop = Stop::Call(number);
                let answer = guest.call(call);
                return self.finish(live, answer);
            }
            r.rax = u64::from(number);
            Trap::Call(call)
        } else if event == EVENT_STOP {
            live.fault = (0, 0, 0);
            Trap::Interrupt
        } else {
            match fault(live, signal) {
                Some(trap) => trap,
                // Somebody's kill(2): nothing of the container's.
                None => return self.resume(live),
            }
        };
        if live.sequences && matches!(trap, Trap::Interrupt | Trap::Fault { .. }) {
            sequence::abort(tid, &mut live.regs);
        }
        live.stop = Stop::Trap;
        let answer = guest.trap(trap, &mut RegsFrame { tid, regs: &mut live.regs });
        self.finish(live, answer);
    }

    fn resume(&mut self, live: &mut Live) {
        live.stop = Stop::Running;
        tracee::set_registers(live.thread.tid, &live.regs);
        request(SYSEMU, live.thread.tid, 0, 0);
    }

    /// Carries out an answer to the current stop.
    fn finish(&mut self, live: &mut Live, mut answer: Answer) {
        loop {
            let again = match (live.stop, answer) {
                (Stop::Running, _) | (_, Answer::Park) => return,
                (_, Answer::Return(v)) => {
                    live.regs.rax = v as u64;
                    return self.resume(live);
                }
                (_, Answer::ReturnThenTrap(v)) => {
                    live.regs.rax = v as u64;
                    Trap::Interrupt
                }
                (Stop::Call(nr), Answer::PassThrough) => {
                    let r = &live.regs;
                    // Only what changes the caller's own memory map, registers or area for restartable sequences: mprotect, munmap,
                    // madvise, arch_prctl, rseq.
                    let words = [u64::from(nr), r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9];
                    let result =
                        if matches!(nr, 10 | 11 | 28 | 158 | 334) { self.inject(live, &words) } else { Ok((EPERM, 0)) };
                    let Ok((result, _)) = result else { return live.stop = Stop::Running };
                    live.regs.rax = result as u64;
                    return self.resume(live);
                }
                (Stop::Call(_), Answer::Resume | Answer::Orders(_)) => {
                    live.regs.rax = EPERM as u64;
                    return self.resume(live);
                }
                (Stop::Trap, Answer::Resume | Answer::PassThrough) => return self.resume(live),
                (_, Answer::Exit) => return self.leave(live),
                (Stop::Trap, Answer::Orders(orders)) => match self.carry_out(live, orders) {
                    Ok(result) => Trap::Ordered(result),
                    Err(Gone) => return live.stop = Stop::Running,
                },
            };
            live.stop = Stop::Trap;
            let Some(guest) = lock(&live.thread.guest).clone() else { return };
            answer = guest.trap(again, &mut RegsFrame { tid: live.thread.tid, regs: &mut live.regs });
        }
    }

    /// Ends the thread by its own exit(2).
    fn leave(&mut self, live: &mut Live) {
        live.stop = Stop::Running;
        live.leaving = true;
        *lock(&live.thread.guest) = None;
        let regs = Regs { rax: 60, rdi: 0, rip: self.syscall_at, eflags: 0x202, ..live.regs };
        tracee::set_registers(live.thread.tid, &regs);
        request(libc::PTRACE_CONT as i32, live.thread.tid, 0, 0);
    }

    /// Carries out orders; the result of the last, or of the first that failed.
    fn carry_out(&mut self, live: &mut Live, orders: Vec<Order>) -> Result<i64, Gone> {
        for order in orders {
            let result = match order {
                Order::Clone { guest, thread, share_memory, registers, fs } => {
                    self.clone(live, guest, thread, share_memory, registers, fs)?
                }
                Order::SetFs(base) if base < crate::GUEST_TOP => {
                    live.regs.fs_base = base;
                    0
                }
                Order::SetGs(base) if base < crate::GUEST_TOP => {
                    live.regs.gs_base = base;
                    0
                }
                order => match raw(&order) {
                    Some([a, b, c, d, e, f, g, _]) => self.inject(live, &[a, b, c, d, e, f, g])?.0,
                    None => EAGAIN,
                },
            };
            if (-4095..0).contains(&result) {
                return Ok(result);
            }
        }
        Ok(0)
    }

    /// Makes a new host thread; 0 or an error.
    fn clone(
        &mut self,
        live: &mut Live,
        guest: Arc<dyn GuestThread>,
        thread: bool,
        share_memory: bool,
        registers: Registers,
        fs: Option<u64>,
    ) -> Result<i64, Gone> {
        const VM: u64 = 0x100;
        const THREAD: u64 = VM | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000;
        const PARENT: u64 = 0x8000;
        let flags = match (thread, share_memory) {
            (true, _) => THREAD,
            (false, true) => VM | PARENT | 17,
            (false, false) => PARENT | 17,
        };
        let fs = fs.unwrap_or(live.regs.fs_base);
        let (result, tid) = match self.inject(live, &[56, flags, 0, 0, 0, 0, 0]) {
            Ok(made) => made,
            Err(Gone) => {
                guest.lost(libc::SIGKILL);
                return Err(Gone);
            }
        };
        if result < 0 || tid == 0 {
            return Ok(if result < 0 { result } else { EAGAIN });
        }
        let process = if thread { live.thread.process.clone() } else { Process::new(tid) };
        let shared = live.thread.shared.clone();
        let child = Arc::new(Thread { shared, tid, process, guest: Mutex::new(Some(guest)) });
        let live = Live {
            thread: child,
            stop: Stop::Running,
            regs: live.regs,
            start: Some((registers, fs)),
            leaving: false,
            sequences: live.sequences && !share_memory,
            fault: (0, 0, 0),
        };
        self.threads.insert(tid, live);
        Ok(0)
    }

    /// Has a stopped thread make one call; its result, and the thread that it made (0: none). The thread's registers
    /// are still to be put back, which `resume` does.
    fn inject(&mut self, live: &mut Live, words: &[u64; 7]) -> Result<(i64, i32), Gone> {
        let tid = live.thread.tid;
        let [rax, rdi, rsi, rdx, r10, r8, r9] = *words;
        live.sequences |= rax == 334;
        let regs = Regs { rax, rdi, rsi, rdx, r10, r8, r9, rip: self.syscall_at, eflags: 0x202, ..live.regs };
        let mut child = 0;
        loop {
            tracee::set_registers(tid, &regs);
            let mut entered = false;
            let mut signal = 0;
            loop {
                request(libc::PTRACE_SYSCALL as i32, tid, 0, signal);
                let status = self.wait_for(tid)?;
                // The host forces it where it cannot write to a thread's area for restartable sequences, each time again: the
                // thread ends by it, as on Linux. A call made here raises none of its own.
                let forced = status >> 16 == 0 && libc::WSTOPSIG(status) == libc::SIGSEGV;
                signal = if forced { libc::SIGSEGV as usize } else { 0 };
                if libc::WSTOPSIG(status) == CALL_STOP {
                    // The first may be the exit from the call that the thread is stopped in.
                    if tracee::call_info(tid).0 {
                        entered = true;
                    } else if entered {
                        break;
                    }
                } else if matches!(
                    status >> 16,
                    libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK
                ) {
                    child = tracee::event_message(tid);
                }
            }
            let Some(after) = tracee::registers(tid) else { return Err(Gone) };
            // What arch_prctl(2) sets.
            live.regs.fs_base = after.fs_base;
            live.regs.gs_base = after.gs_base;
            let result = after.rax as i64;
            // Interrupted by a stop that was just asked for (ERESTARTSYS and its like): again.
            if child != 0 || !(-516..=-512).contains(&result) {
                return Ok((result, child));
            }
        }
    }

    /// The next stop of one thread; what others report is kept for later.
    fn wait_for(&mut self, tid: i32) -> Result<i32, Gone> {
        loop {
            let Some((pid, status)) = wait_any(0) else { return Err(Gone) };
            if pid != tid {
                self.pending.push_back((pid, status));
            } else if libc::WIFSTOPPED(status) {
                return Ok(status);
            } else {
                self.pending.push_back((pid, status));
                return Err(Gone);
            }
        }
    }
}

/// The fault that a signal stands for; `None` if the processor did not raise it. The host does not tell a tracer the
/// processor's error code, so the kind of access is found by trying: a read, then, if the same instruction faults on
/// the same address again with nothing in between, a write, then a fetch. That a page is absent is never claimed of one
/// that the host has mapped: the kernel would replace it.
fn fault(live: &mut Live, signal: i32) -> Option<Trap> {
    let (_, code, address) = tracee::signal_info(live.thread.tid)?;
    if code <= 0 || !matches!(signal, libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL | libc::SIGTRAP) {
        return None;
    }
    const KERNEL: i32 = 0x80;
    let (number, address) = match (signal, code) {
        (libc::SIGSEGV, KERNEL) => (13, 0),
        (libc::SIGSEGV, _) => (14, address),
        (libc::SIGBUS, 1) => (17, address),
        (libc::SIGBUS, KERNEL) => (12, 0),
        (libc::SIGBUS, _) => (14, address),
        (libc::SIGFPE, 1) => (0, address),
        (libc::SIGFPE, _) => (19, address),
        (libc::SIGILL, _) => (6, address),
        (_, KERNEL) => (3, 0),
        _ => (1, address),
    };
    let mut error = 0;
    if number == 14 {
        const USER: u64 = 4;
        const WRITE: u64 = 2;
        const FETCH: u64 = 16;
        let (ip, at, times) = live.fault;
        let times = if (ip, at) == (live.regs.rip, address) { times.saturating_add(1) } else { 0 };
        live.fault = (live.regs.rip, address, times);
        // SIGBUS: mapped, but nothing is there; as the processor says of it.
        let mapped = signal == libc::SIGSEGV && code != 1;
        let access = match times {
            _ if address == live.regs.rip => FETCH,
            0 => 0,
            1 => WRITE,
            _ => FETCH,
        };
        error = USER | u64::from(mapped) | access;
    }
    Some(Trap::Fault { signal, code, address, error, number })
}
