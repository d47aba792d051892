//! The `notify` platform: seccomp user notification.
//!
//! One listener serves all stubs of the sandbox, since stubs are copies of the template and inherit its filter. Serving
//! threads receive from it; with synchronous wake-up the host keeps a stub and the thread that serves it on one core.
//! Most calls are answered without the stub's registers. Calls that change registers or memory, faults and interrupts
//! end in the stub's signal handler, which reports and runs orders (see `stub/main.rs`).
//!
//! What holds whatever a stub does: a notification is let through (`CONTINUE`) only if it is the next order of that very
//! thread, number and all arguments, or a call that the kernel passed through by name; everything else gets a result
//! and no effect. Locks: `Thread::state` before `Shared::{expected, pool, processes, threads}`; none is held while the
//! kernel behind [`GuestThread`] runs.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use self::family::{Done, Family, Grave, Parent, SETPGID};
use self::short::{Pace, Watch};
use crate::crew::Crew;
use crate::frame::SlotFrame;
use crate::layout::*;
use crate::slots::{MmSlots, Slots, address};
use crate::starter::{StartError, last};
use crate::{
    After, Answer, Call, Frame, GuestThread, HostThread, MemoryError, Order, Platform, Registers, Setup, Trap, host,
};

mod family;
pub(crate) mod filter;
pub(crate) mod orders;
mod short;

const RECV: u64 = 0xc050_2100;
const SEND: u64 = 0xc018_2101;
const SET_FLAGS: u64 = 0x4008_2104;
const SYNC_WAKE_UP: u64 = 1;
const CONTINUE: u32 = 1;

const EPERM: i64 = -1;
const EAGAIN: i64 = -11;

/// `struct seccomp_notif`.
#[repr(C)]
#[derive(Default)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    nr: i32,
    arch: u32,
    ip: u64,
    args: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Response {
    id: u64,
    val: i64,
    error: i32,
    flags: u32,
}

fn lock<T: ?Sized>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The platform.
pub struct Notify {
    shared: Arc<Shared>,
    vdso: (u64, u64),
}

struct Shared {
    listener: OwnedFd,
    slots: Arc<Slots>,
    /// By host thread id.
    threads: RwLock<HashMap<i32, Arc<Thread>>>,
    /// Threads ordered but not yet heard of, by the offset of their slot.
    expected: Mutex<HashMap<u64, Arc<Thread>>>,
    processes: Mutex<HashMap<i32, Arc<Process>>>,
    /// Processes that have ended and of which the host may have something left.
    graves: Mutex<Vec<Grave>>,
    /// Host process id of the template, and of its group.
    template: i32,
    pool: Mutex<Pool>,
    crew: Arc<Crew>,
    watch: Watch,
    after: fn(After),
    pipe: Mutex<Option<OwnedFd>>,
}

struct Pool {
    template: Option<Arc<Thread>>,
    /// Whether the template waits for orders.
    idle: bool,
    wanted: VecDeque<Arc<dyn GuestThread>>,
}

/// A host process and the slots mapped in its memory.
struct Process {
    /// Host process id; 0 until its first thread has been heard of.
    id: AtomicI32,
    mm: Arc<MmSlots>,
    /// Killed on purpose.
    doomed: AtomicBool,
    /// Whether call sites of it were patched for the short way.
    patched: AtomicBool,
    /// Whether it is the template, which no container's code ever runs in.
    template: bool,
    family: Family,
}

impl Process {
    fn id(&self) -> i32 {
        self.id.load(Ordering::SeqCst)
    }
}

struct Thread {
    shared: Weak<Shared>,
    slot: u64,
    /// Whether its first act is to map its group of slots.
    maps: bool,
    /// What it says when it is heard of for the first time, so that no other thread can take its place: PROT_READ |
    /// PROT_WRITE and a random half.
    word: u64,
    tid: AtomicI32,
    process: Arc<Process>,
    guest: Mutex<Option<Arc<dyn GuestThread>>>,
    state: Mutex<State>,
    pace: Pace,
    /// The process that was ordered to make it; `None` for a thread of a process that is known, and once it has reported.
    parent: Mutex<Option<Parent>>,
}

#[derive(Default)]
struct State {
    stop: Stop,
    orders: VecDeque<[u64; 7]>,
    /// The thread that the last of the orders makes, and the group mapped for it.
    child: Option<(Arc<Thread>, Option<u64>)>,
    /// A child that it says that there is none of, and the result that it claims, while that is looked into.
    claimed: Option<(Arc<Thread>, i64)>,
    started: bool,
    /// It was to be interrupted while it was in a stop: it may have been answered by then, so it is once it runs.
    interrupted: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stop {
    #[default]
    Running,
    /// In a call: notification, call number.
    Call(u64, i32),
    /// In a trap: notification, address of the ucontext.
    Trap(u64, u64),
    /// In a call on the short way: the notification, if it sleeps over it.
    Short(Option<u64>),
    /// The same, answered with this, but to trap before it runs on: which it does when it goes to sleep.
    ShortTrap(i64),
    /// It has ended, or is about to: nothing is served for it any more.
    Gone,
}

/// What a new thread does first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    /// A copy of a process maps its slots.
    Maps,
    /// A process with its parent's memory leaves its parent's group.
    Leaves,
    /// A thread reports.
    Reports,
}

impl Stop {
    /// Whether the thread is in a call on the short way as far as the Sentry knows: all it may do is to go to sleep over it.
    fn is_short(self) -> bool {
        matches!(self, Stop::Short(_) | Stop::ShortTrap(_))
    }
}

/// Whether the host can run the platform, and why not.
pub fn probe() -> Result<(), String> {
    let action: u32 = 0x7fc0_0000;
    // SAFETY: SECCOMP_GET_ACTION_AVAIL reads one u32.
    let r = unsafe { libc::syscall(libc::SYS_seccomp, 2, 0, &action) };
    if r != 0 {
        return Err(format!("no seccomp user notification ({})", std::io::Error::last_os_error()));
    }
    Ok(())
}

impl Notify {
    /// Starts starter and template. The calling process must have one thread and must not be confined yet.
    pub fn start(setup: Setup) -> Result<Self, StartError> {
        let started = crate::starter::start(&setup, 1, &filter::compile())?;
        // SAFETY: these calls touch no memory of ours; the template is our descendant.
        let listener = unsafe {
            let pidfd = libc::syscall(libc::SYS_pidfd_open, started.template, 0);
            if pidfd < 0 {
                return Err(last("pidfd_open of the template"));
            }
            let pidfd = OwnedFd::from_raw_fd(pidfd as i32);
            let fd = libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), started.listener, 0);
            if fd < 0 {
                return Err(last("pidfd_getfd of the listener"));
            }
            OwnedFd::from_raw_fd(fd as i32)
        };
        // Linux 6.6 and later; without it the platform works, but slower.
        // SAFETY: the ioctl takes its argument by value.
        if unsafe { libc::ioctl(listener.as_raw_fd(), SET_FLAGS, SYNC_WAKE_UP) } != 0 {
            tracing::warn!("no synchronous wake-up for user notification: {}", std::io::Error::last_os_error());
        }
        let mm = MmSlots::with_group(&started.slots, 0);
        let process = Arc::new(Process {
            id: AtomicI32::new(started.template),
            mm,
            doomed: AtomicBool::new(false),
            patched: AtomicBool::new(false),
            template: true,
            family: Family::default(),
        });
        let shared = Arc::new_cyclic(|shared: &Weak<Shared>| Shared {
            crew: {
                let shared = shared.clone();
                Crew::new(Box::new(move || {
                    if let Some(shared) = shared.upgrade() {
                        shared.step();
                    }
                }))
            },
            watch: Watch::new(started.short),
            listener,
            slots: started.slots,
            threads: RwLock::default(),
            expected: Mutex::default(),
            processes: Mutex::new(HashMap::from([(started.template, process.clone())])),
            graves: Mutex::default(),
            template: started.template,
            pool: Mutex::new(Pool { template: None, idle: false, wanted: VecDeque::new() }),
            after: setup.after,
            pipe: Mutex::new(Some(started.pipe)),
        });
        let template = Arc::new(Thread {
            shared: Arc::downgrade(&shared),
            slot: 0,
            maps: false,
            word: 0,
            tid: AtomicI32::new(started.template),
            process,
            guest: Mutex::new(None),
            state: Mutex::default(),
            pace: Pace::default(),
            parent: Mutex::default(),
        });
        *lock(&template.guest) =
            Some(Arc::new(Template { shared: Arc::downgrade(&shared), listener: started.listener }));
        SlotFrame::start(&shared.slots.window, 0, &Registers::default());
        shared.threads.write().unwrap_or_else(PoisonError::into_inner).insert(started.template, template.clone());
        lock(&shared.pool).template = Some(template);
        shared.crew.runs();
        Ok(Self { shared, vdso: started.vdso })
    }

    /// How many stub threads run, and are in no stop: what decides whether somebody waits for notifications.
    pub fn running(&self) -> i64 {
        self.shared.crew.running()
    }
}

impl Platform for Notify {
    fn new_process(&self, guest: Arc<dyn GuestThread>) {
        lock(&self.shared.pool).wanted.push_back(guest);
        self.shared.serve_wanted();
    }

    fn vdso(&self) -> (u64, u64) {
        self.vdso
    }

    fn run(&self) -> ! {
        if let Some(pipe) = lock(&self.shared.pipe).take() {
            let shared = self.shared.clone();
            let reaper = std::thread::Builder::new().name("reaper".into()).stack_size(256 << 10);
            if let Err(e) = reaper.spawn(move || shared.reap(&pipe)) {
                crate::fatal(&format!("no thread to reap stubs: {e}"));
            }
        }
        self.shared.crew.join()
    }

    fn descriptors(&self) -> Vec<i32> {
        let pipe = lock(&self.shared.pipe).as_ref().map(AsRawFd::as_raw_fd);
        [Some(self.shared.listener.as_raw_fd()), Some(self.shared.slots.window.fd().as_raw_fd()), pipe]
            .into_iter()
            .flatten()
            .collect()
    }

    fn ends_in_call(&self) -> bool {
        true
    }

    fn name(&self) -> &'static str {
        "notify"
    }
}

/// The template's guest side: it only waits for orders.
struct Template {
    shared: Weak<Shared>,
    listener: i32,
}

impl GuestThread for Template {
    fn attach(&self, _: Arc<dyn HostThread>) {}

    fn call(self: Arc<Self>, _: Call) -> Answer {
        Answer::Return(EPERM)
    }

    fn trap(self: Arc<Self>, trap: Trap, _: &mut dyn Frame) -> Answer {
        let Some(shared) = self.shared.upgrade() else { return Answer::Park };
        match trap {
            // The first order: forget the listener.
            Trap::Start => Answer::Orders(vec![Order::Close(self.listener)]),
            _ => {
                // Marked idle only once its stop is recorded, which `stopped` below the caller does before the trap:
                // so the next order may be given right away.
                lock(&shared.pool).idle = true;
                Answer::Park
            }
        }
    }

    fn lost(self: Arc<Self>, signal: i32) {
        crate::fatal(&format!("the stub template died of signal {signal}: no new processes can be made"));
    }
}

impl Shared {
    /// Orders the next wanted process from the template, if it is idle.
    fn serve_wanted(&self) {
        let (template, guest) = {
            let mut pool = lock(&self.pool);
            if !pool.idle {
                return;
            }
            let Some(template) = pool.template.clone() else { return };
            let Some(guest) = pool.wanted.pop_front() else { return };
            pool.idle = false;
            (template, guest)
        };
        template.answer(Answer::Orders(vec![Order::Clone {
            guest,
            thread: false,
            share_memory: false,
            registers: Registers::default(),
            fs: Some(0),
        }]));
    }

    /// Receives one notification and serves it.
    fn step(self: &Arc<Self>) {
        let mut n = Notification::default();
        // SAFETY: the ioctl fills one struct seccomp_notif, which must be zeroed before.
        if unsafe { libc::ioctl(self.listener.as_raw_fd(), RECV, &raw mut n) } != 0 {
            let e = std::io::Error::last_os_error();
            match e.raw_os_error() {
                // Interrupted, or the stub was gone before the notification was picked up.
                Some(libc::EINTR | libc::ENOENT) => return,
                _ => {
                    crate::fatal(&format!("receiving notifications: {e}"));
                }
            }
        }
        let after = self.serve(&n);
        self.serve_wanted();
        (self.after)(after);
    }

    /// Answers the notification of a thread that is known.
    fn send(&self, id: u64, val: i64, flags: u32) {
        self.crew.runs();
        self.respond(id, val, flags);
    }

    /// Whether there was anybody left to answer.
    fn respond(&self, id: u64, val: i64, flags: u32) -> bool {
        let response = Response { id, val, error: 0, flags };
        // SAFETY: the ioctl reads one struct seccomp_notif_resp. ENOENT: the thread died meanwhile, which is told elsewhere.
        unsafe { libc::ioctl(self.listener.as_raw_fd(), SEND, &raw const response) == 0 }
    }

    /// The thread behind a notification; threads heard of for the first time are bound to the clone that made them.
    fn thread(&self, n: &Notification) -> Option<Arc<Thread>> {
        let tid = n.pid as i32;
        if let Some(t) = self.threads.read().unwrap_or_else(PoisonError::into_inner).get(&tid) {
            return Some(t.clone());
        }
        // The first call of a copy, of a process with its parent's memory, and of a thread.
        let (said, word, first) = if n.nr == 9 {
            (n.args[0].checked_sub(SLOTS)?, n.args[2], First::Maps)
        } else if n.nr as u64 == REPORT && n.args[0] == START {
            (n.args[2].checked_sub(SLOTS + START_CONTEXT)?, n.args[1], First::Reports)
        } else if n.nr as u64 == SETPGID {
            (n.args[3].checked_sub(SLOTS)?, n.args[2], First::Leaves)
        } else {
            return None;
        };
        let t = {
            let mut expected = lock(&self.expected);
            expected.get(&said).filter(|t| t.word == word && t.first_call() == first && self.belongs(t, tid))?;
            expected.remove(&said)?
        };
        t.tid.store(tid, Ordering::Release);
        let _ = t.process.id.compare_exchange(0, tid, Ordering::SeqCst, Ordering::SeqCst);
        {
            let mut state = lock(&t.state);
            if t.maps {
                state.orders.push_back([9, address(t.slot), GROUP * SLOT, t.word, 0x11, SLOTS_FD as u64, t.slot]);
            }
            if lock(&t.parent).is_some() {
                state.orders.push_back([SETPGID, 0, 0, t.word, address(t.slot), 0, 0]);
            }
        }
        lock(&self.processes).entry(t.process.id()).or_insert_with(|| t.process.clone());
        self.threads.write().unwrap_or_else(PoisonError::into_inner).insert(tid, t.clone());
        if t.process.doomed.load(Ordering::SeqCst) {
            host::kill(t.process.id());
        }
        Some(t)
    }

    fn serve(self: &Arc<Self>, n: &Notification) -> After {
        let Some(thread) = self.thread(n) else {
            // A thread nobody ordered cannot exist, unless a stub made it from an order and disowned it: it ends here. One
            // that is being killed may still knock, and minds it not.
            tracing::warn!(tid = n.pid, "an unknown thread made a call: ended");
            host::kill(n.pid as i32);
            self.respond(n.id, EPERM, 0);
            return After::Other;
        };
        self.crew.stops();
        if n.nr as u64 == REPORT {
            thread.reported(n);
            return After::Other;
        }
        let guest = {
            let mut state = lock(&thread.state);
            if state.stop == Stop::Gone {
                // It died meanwhile, and was counted out.
                drop(state);
                self.send(n.id, EPERM, 0);
                return After::Other;
            }
            let said = [n.nr as u64, n.args[0], n.args[1], n.args[2], n.args[3], n.args[4], n.args[5]];
            if let Some(next) = state.orders.front() {
                let ok = *next == said && n.arch == 0xc000_003e;
                if ok {
                    state.orders.pop_front();
                }
                drop(state);
                if ok {
                    if said[0] == 60 {
                        thread.leave(self);
                    }
                    if said[0] == 56 {
                        thread.process.family.let_through(true);
                    }
                    self.crew.runs();
                    if !self.respond(n.id, 0, CONTINUE) && said[0] == 56 {
                        thread.process.family.let_through(false);
                    }
                } else {
                    tracing::warn!(tid = n.pid, nr = n.nr, "a stub made a call that is not its order: refused");
                    self.send(n.id, EPERM, 0);
                }
                return After::Other;
            }
            if !state.started {
                // Known, but it has not reported: the kernel has no host thread for it yet.
                drop(state);
                tracing::warn!(tid = n.pid, nr = n.nr, "a call from a thread that has not reported: refused");
                self.send(n.id, EPERM, 0);
                return After::Other;
            }
            if filter::TRAPPED.contains(&(n.nr as u32)) && n.arch == 0xc000_003e {
                // From the stub's own text, but nobody ordered it.
                drop(state);
                self.send(n.id, EPERM, 0);
                return After::Other;
            }
            if state.stop.is_short() {
                // Its slot asks for one call, and it makes another: one at a time, or the kernel would take one's end for the
                // other's, and the crew would count the thread twice.
                drop(state);
                tracing::warn!(tid = n.pid, nr = n.nr, "a call from a thread that is in a call: refused");
                self.send(n.id, EPERM, 0);
                return After::Other;
            }
            state.stop = Stop::Call(n.id, n.nr);
            lock(&thread.guest).clone()
        };
        self.pace(&thread, n.ip);
        let Some(guest) = guest else {
            self.send(n.id, EPERM, 0);
            return After::Other;
        };
        let number = if n.arch == 0xc000_003e { n.nr as u32 } else { u32::MAX };
        let answer = guest.call(Call { number, args: n.args, ip: n.ip, posted: false });
        let returns = matches!(answer, Answer::Return(_));
        thread.finish(answer);
        self.after(returns)
    }

    /// What became of a thread whose call was just answered; `returns`: with a result.
    fn after(&self, returns: bool) -> After {
        if returns { After::Runs { others: self.crew.running() > 1 } } else { After::Other }
    }

    /// Learns of stub processes that ended.
    fn reap(&self, pipe: &OwnedFd) {
        let mut message = [0u8; 8];
        loop {
            if let Some(again) = self.sweep_graves() {
                let mut poll = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
                let wait = i32::try_from(again.as_millis()).unwrap_or(1);
                // SAFETY: poll fills the one entry.
                if unsafe { libc::poll(&raw mut poll, 1, wait) } == 0 {
                    continue;
                }
            }
            // SAFETY: read fills the array; messages of 8 bytes are written to the pipe atomically.
            let n = unsafe { libc::read(pipe.as_raw_fd(), message.as_mut_ptr().cast(), 8) };
            if n != 8 {
                if n < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) {
                    continue;
                }
                crate::fatal("the stub starter is gone");
            }
            let word =
                |at: usize| message.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_le_bytes);
            let (pid, status) = (word(0), word(4));
            let Some(process) = lock(&self.processes).remove(&pid) else { continue };
            let gone: Vec<Arc<Thread>> = {
                let mut threads = self.threads.write().unwrap_or_else(PoisonError::into_inner);
                let of = threads.values().filter(|t| Arc::ptr_eq(&t.process, &process)).cloned().collect::<Vec<_>>();
                for t in &of {
                    threads.remove(&t.tid.load(Ordering::Acquire));
                }
                of
            };
            for thread in gone {
                let was = std::mem::replace(&mut lock(&thread.state).stop, Stop::Gone);
                if matches!(was, Stop::Running | Stop::ShortTrap(_)) {
                    self.crew.stops();
                }
                thread.process.mm.give(thread.slot);
                thread.arrived();
                let guest = lock(&thread.guest).take();
                if let Some(guest) = guest
                    && !process.doomed.load(Ordering::SeqCst)
                {
                    guest.lost(if libc::WIFSIGNALED(status) { libc::WTERMSIG(status) } else { libc::SIGKILL });
                }
            }
            self.bury(process, pid);
            (self.after)(After::Other);
        }
    }
}

impl Thread {
    fn first_call(&self) -> First {
        match (self.maps, lock(&self.parent).is_some()) {
            (true, _) => First::Maps,
            (false, true) => First::Leaves,
            (false, false) => First::Reports,
        }
    }

    /// A report of the stub's handler.
    fn reported(self: &Arc<Self>, n: &Notification) {
        let Some(shared) = self.shared.upgrade() else { return };
        if n.args[0] == ASLEEP {
            return self.asleep(&shared, n);
        }
        let Some(mut frame) = SlotFrame::at(&shared.slots.window, self.slot, n.args[2]) else {
            tracing::warn!(tid = n.pid, "a stub reported a frame outside its slot: process ended");
            self.kill_lost(&shared);
            return;
        };
        let kind = n.args[0];
        if kind == INTERRUPT as u64 && !self.settle(&shared, &mut frame) {
            return shared.send(n.id, 0, 0);
        }
        let trap = {
            let mut state = lock(&self.state);
            if state.stop == Stop::Gone {
                // It died meanwhile, and was counted out.
                drop(state);
                return shared.send(n.id, EPERM, 0);
            }
            if !state.orders.is_empty() || (kind != START && !state.started) {
                // It ran none of them, or not all: what the kernel believes of its memory would not be so. (The handler
                // blocks every signal, so an order that failed with others behind it is the only honest way here.)
                drop(state);
                tracing::warn!(tid = n.pid, "a stub did not carry out its orders: process ended");
                self.kill_lost(&shared);
                return;
            }
            if matches!(state.stop, Stop::Short(_)) {
                // In a call that its slot asked for, or that was made to look so: it goes on, and nothing is done for it.
                drop(state);
                return shared.send(n.id, 0, 0);
            }
            state.stop = Stop::Trap(n.id, n.args[2]);
            match kind {
                START if !state.started => {
                    state.started = true;
                    drop(state);
                    if !self.arrived() {
                        tracing::warn!(tid = n.pid, "a stub that is no process of its own poses as one: ended");
                        return self.kill_lost(&shared);
                    }
                    Trap::Start
                }
                DONE => {
                    let result = if (-4095..0).contains(&(n.args[1] as i64)) { n.args[1] as i64 } else { 0 };
                    match self.orders_done(&shared, &mut state, result) {
                        Done::Result(result) => Trap::Ordered(result),
                        Done::Turn(result) => {
                            drop(state);
                            self.process.family.done();
                            Trap::Ordered(result)
                        }
                        Done::Asked => {
                            drop(state);
                            return shared.send(n.id, 1, 0);
                        }
                        Done::Lied => {
                            drop(state);
                            tracing::warn!(tid = n.pid, "a stub disowned its child: process ended");
                            return self.kill_lost(&shared);
                        }
                    }
                }
                31 => {
                    let r = frame.registers();
                    Trap::Call(Call {
                        number: u32::try_from(r.rax).unwrap_or(u32::MAX),
                        args: [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9],
                        ip: r.rip,
                        posted: false,
                    })
                }
                4 | 5 | 7 | 8 | 11 => {
                    let info = n.args[1];
                    let at = info.checked_sub(SLOTS).filter(|at| *at >= self.slot && *at + 128 <= self.slot + SLOT);
                    let (code, address) =
                        at.map_or((0x80, 0), |at| (shared.slots.word(at + 8) as i32, shared.slots.word(at + 16)));
                    let (error, number) = frame.fault();
                    Trap::Fault { signal: kind as i32, code, address, error, number }
                }
                _ => Trap::Interrupt,
            }
        };
        let guest = lock(&self.guest).clone();
        let Some(guest) = guest else { return };
        if trap == Trap::Start {
            guest.attach(Arc::new(self.clone()));
        }
        let answer = guest.trap(trap, &mut frame);
        self.finish(answer);
    }

    /// Carries out an answer to the current stop.
    fn finish(self: &Arc<Self>, mut answer: Answer) {
        let Some(shared) = self.shared.upgrade() else { return };
        loop {
            let stop = {
                let mut state = lock(&self.state);
                if matches!(answer, Answer::Park) {
                    return;
                }
                if state.stop == Stop::Gone {
                    drop(state);
                    if let Answer::Orders(orders) = answer {
                        family::never(orders);
                    }
                    return;
                }
                match state.stop {
                    Stop::Short(asleep) => return self.finish_short(&shared, state, asleep, &answer),
                    Stop::Call(..) | Stop::Trap(..) => {
                        if std::mem::take(&mut state.interrupted) && !matches!(answer, Answer::Orders(_) | Answer::Exit)
                        {
                            host::interrupt(self.process.id(), self.tid.load(Ordering::Acquire));
                        }
                        std::mem::replace(&mut state.stop, Stop::Running)
                    }
                    // Nothing to answer: what it waits for, if it does, stays.
                    Stop::Running | Stop::ShortTrap(_) | Stop::Gone => return,
                }
            };
            match (stop, answer) {
                (Stop::Running | Stop::Short(_) | Stop::ShortTrap(_) | Stop::Gone, _) | (_, Answer::Park) => return,
                (Stop::Call(id, _), Answer::Return(v)) => {
                    Shared::answered(self);
                    return shared.send(id, v, 0);
                }
                (Stop::Call(id, _), Answer::ReturnThenTrap(v)) => {
                    host::interrupt(self.process.id(), self.tid.load(Ordering::Acquire));
                    return shared.send(id, v, 0);
                }
                (Stop::Call(id, nr), Answer::PassThrough) => {
                    // Only what changes the caller's own memory map, registers or area for restartable sequences: munmap, mprotect,
                    // madvise, arch_prctl, rseq.
                    let ok = matches!(nr, 10 | 11 | 28 | 158 | 334);
                    return shared.send(id, if ok { 0 } else { EPERM }, if ok { CONTINUE } else { 0 });
                }
                (Stop::Call(id, nr), Answer::Exit) => {
                    if nr == 60 {
                        self.leave(&shared);
                        return shared.send(id, 0, CONTINUE);
                    }
                    // Ask again in a trap; the guest answers Exit again, which is ordered there.
                    host::interrupt(self.process.id(), self.tid.load(Ordering::Acquire));
                    return shared.send(id, EAGAIN, 0);
                }
                (Stop::Call(id, _), Answer::Resume | Answer::Orders(_)) => return shared.send(id, EPERM, 0),
                (Stop::Trap(id, uc), Answer::Return(v)) => {
                    if let Some(mut f) = SlotFrame::at(&shared.slots.window, self.slot, uc) {
                        f.set_result(v);
                    }
                    return shared.send(id, 0, 0);
                }
                (Stop::Trap(id, _), Answer::Resume | Answer::PassThrough) => return shared.send(id, 0, 0),
                (Stop::Trap(id, uc), Answer::ReturnThenTrap(v)) => {
                    let Some(mut f) = SlotFrame::at(&shared.slots.window, self.slot, uc) else { return };
                    f.set_result(v);
                    if !self.trapped_again(&shared, id, uc) {
                        return;
                    }
                    let Some(guest) = lock(&self.guest).clone() else { return };
                    answer = guest.trap(Trap::Interrupt, &mut f);
                }
                (Stop::Trap(id, _), Answer::Exit) => {
                    let ordered = self.order_one(&shared, &mut lock(&self.state), [60, 0, 0, 0, 0, 0, 0]);
                    return if ordered { shared.send(id, 1, 0) } else { self.kill_lost(&shared) };
                }
                (Stop::Trap(id, uc), Answer::Orders(orders)) => {
                    let clones = matches!(orders.last(), Some(Order::Clone { .. })) && !self.process.template;
                    let orders = if clones {
                        // One at a time; stopped again before somebody else may give the turn to it.
                        if !self.trapped_again(&shared, id, uc) {
                            return family::never(orders);
                        }
                        let Some(orders) = self.process.family.turn(self, orders) else { return };
                        let mut state = lock(&self.state);
                        if state.stop != Stop::Gone {
                            state.stop = Stop::Running;
                        }
                        orders
                    } else {
                        orders
                    };
                    if let Some(count) = self.prepare(&shared, uc, orders) {
                        return shared.send(id, count, 0);
                    }
                    // No slot or no room: as if the host had refused the first order.
                    if !self.trapped_again(&shared, id, uc) {
                        return;
                    }
                    if clones {
                        self.process.family.done();
                    }
                    let Some(mut f) = SlotFrame::at(&shared.slots.window, self.slot, uc) else { return };
                    let Some(guest) = lock(&self.guest).clone() else { return };
                    answer = guest.trap(Trap::Ordered(EAGAIN), &mut f);
                }
            }
        }
    }

    /// Stopped in a trap again, after all; false if it died meanwhile.
    fn trapped_again(&self, shared: &Shared, id: u64, uc: u64) -> bool {
        let mut state = lock(&self.state);
        if state.stop == Stop::Gone {
            // It was counted out as one that runs.
            shared.crew.runs();
            return false;
        }
        state.stop = Stop::Trap(id, uc);
        true
    }

    /// The thread is about to end, in the host's hands: no longer found by its id, and its slot is free.
    fn leave(&self, shared: &Shared) {
        shared.threads.write().unwrap_or_else(PoisonError::into_inner).remove(&self.tid.load(Ordering::Acquire));
        *lock(&self.guest) = None;
        let was = std::mem::replace(&mut lock(&self.state).stop, Stop::Gone);
        self.process.mm.give(self.slot);
        // The answer that follows lets it run, but only to its end. (A call in its slot, posted by somebody else, counted it out.)
        if !matches!(was, Stop::Short(_)) {
            shared.crew.stops();
        }
    }

    /// Ends the process because of what its stub did; the guest hears of it when the process is reaped.
    fn kill_lost(&self, shared: &Shared) {
        {
            // Not answered, so it is no longer counted as one that runs.
            let mut state = lock(&self.state);
            if state.stop == Stop::Gone {
                shared.crew.runs();
            } else {
                state.stop = Stop::Trap(0, 0);
            }
        }
        host::kill(self.process.id());
    }
}

impl HostThread for Arc<Thread> {
    fn answer(&self, answer: Answer) {
        self.finish(answer);
    }

    fn interrupt(&self) {
        {
            let mut state = lock(&self.state);
            if state.stop != Stop::Running {
                state.interrupted = true;
                return;
            }
        }
        if self.tid.load(Ordering::Acquire) != 0 {
            host::interrupt(self.process.id(), self.tid.load(Ordering::Acquire));
        }
    }

    fn kill(&self) {
        self.process.doomed.store(true, Ordering::SeqCst);
        host::kill(self.process.id());
    }

    fn keep(&self, what: Arc<dyn Any + Send + Sync>) {
        self.process.family.keep(what);
    }

    fn read(&self, address: u64, to: &mut [u8]) -> Result<usize, MemoryError> {
        host::read(self.tid.load(Ordering::Acquire), address, to)
    }

    fn write(&self, address: u64, from: &[u8]) -> Result<usize, MemoryError> {
        host::write(self.tid.load(Ordering::Acquire), address, from)
    }

    fn read_into(&self, at: u64, w: &cofferdam_shm::Window, offset: u64, len: usize) -> Result<usize, MemoryError> {
        host::read_into(self.tid.load(Ordering::Acquire), at, w, offset, len)
    }

    fn write_from(&self, at: u64, w: &cofferdam_shm::Window, offset: u64, len: usize) -> Result<usize, MemoryError> {
        host::write_from(self.tid.load(Ordering::Acquire), at, w, offset, len)
    }

    fn short_way(&self) -> Option<u64> {
        let shared = self.shared.upgrade()?;
        let way = shared.watch.way()?;
        self.process.patched.store(true, Ordering::Relaxed);
        Some(way)
    }

    fn tid(&self) -> i32 {
        self.tid.load(Ordering::Acquire)
    }
}
