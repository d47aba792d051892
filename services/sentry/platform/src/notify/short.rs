//! The short way of a call: from a patched call site through the thread's slot to a watching thread of the Sentry, with no
//! system call of the host.
//!
//! A call site (`mov $nr, %eax; syscall`) that the kernel had patched jumps to the stub's `short` (see `stub/main.rs`). If the
//! Sentry watches the thread, the call is posted in the slot and answered there, on another core; else, or if nobody takes it in
//! time, it goes the long way: the site's own `syscall` is still there. Watching pays only while calls come back to back and a
//! core is free (FIELD.md: 0.34 us against 2.1), so a thread is watched once it is seen doing so, and no longer than that.
//!
//! Owns the watching thread and the words in the slot. All of the slot is the container's to change: what is posted is copied
//! once and is a call like any other; what is answered changes nothing but the container's own registers. A stub that breaks the
//! protocol waits for nobody but itself. Called by `notify`.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::{EPERM, Notification, Shared, State, Stop, Thread, filter, lock};
use crate::frame::SlotFrame;
use crate::layout::*;
use crate::{Answer, Call, Frame, host};

/// Cycles between an answer and the next call of a thread that is worth watching (about 15 us).
const SOON: u64 = 40_000;
/// Calls in a row that came soon.
const SOON_CALLS: u32 = 12;
/// Looks without a call after which watching ends (about 30 us).
const PATIENCE: u32 = 1_500;
/// Calls that a watch should see, and cycles between them at most on average (about 9 us): else notifications are as good.
const WORTH: u32 = 16;
const WORTH_CYCLES: u64 = 24_000;
/// After that many watches in a row that saw fewer, a thread is watched as rarely as can be.
const FAILURES_MOST: u32 = 6;

/// Where the labels of the short way lie in a stub.
#[derive(Clone, Copy, Debug)]
pub(super) struct Labels {
    start: u64,
    posted: u64,
    done: u64,
    last: u64,
    end: u64,
}

impl Labels {
    pub(super) fn new([start, posted, done, last, end]: [u64; 5]) -> Self {
        Self { start, posted, done, last, end }
    }
}

/// What a thread's calls are like.
#[derive(Default)]
pub(super) struct Pace {
    /// When the last was answered.
    answered: AtomicU64,
    /// How many came soon after the one before, in a row.
    soon: AtomicU32,
    /// Watches in a row that were not worth it: each doubles the calls before the next.
    failures: AtomicU32,
}

/// The watching thread's orders.
pub(super) struct Watch {
    pub(super) labels: Labels,
    /// Whether the host has what it takes: more than one core, and `wrgsbase` for programs.
    pub(super) possible: bool,
    cores: i64,
    /// The thread to watch, and the core it was served on.
    wanted: Mutex<Option<(Arc<Thread>, i32)>>,
    wake: Condvar,
    /// Whether the thread watches, or is about to.
    busy: AtomicBool,
    started: AtomicBool,
}

/// The core that this thread runs on.
fn core() -> i32 {
    // SAFETY: touches no memory of ours.
    unsafe { libc::sched_getcpu() }
}

fn now() -> u64 {
    // SAFETY: reads a counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

impl Watch {
    /// Where patched sites jump to.
    pub(super) fn way(&self) -> Option<u64> {
        self.possible.then_some(self.labels.start)
    }

    pub(super) fn new(labels: [u64; 5]) -> Self {
        // SAFETY: both look at what the host told at start.
        let (cores, hwcap2) = unsafe { (libc::sysconf(libc::_SC_NPROCESSORS_ONLN), libc::getauxval(libc::AT_HWCAP2)) };
        const FSGSBASE: u64 = 2;
        Self {
            labels: Labels::new(labels),
            possible: cores > 1 && hwcap2 & FSGSBASE != 0 && labels.iter().all(|l| *l != 0),
            cores,
            wanted: Mutex::default(),
            wake: Condvar::new(),
            busy: AtomicBool::new(false),
            started: AtomicBool::new(false),
        }
    }
}

/// Calls that may not come the short way: those that trap, and those that only the host can carry out.
fn long_only(number: u32) -> bool {
    filter::TRAPPED.contains(&number) || matches!(number, 10 | 11 | 15 | 28 | 60 | 158 | 231) || number >= 512
}

impl Shared {
    /// A thread's call from `ip` came the long way: it is watched if it is one of many in a row from patched sites.
    pub(super) fn pace(self: &Arc<Self>, thread: &Arc<Thread>, ip: u64) {
        if !thread.process.patched.load(Ordering::Relaxed)
            || self.slots.word(thread.slot + SHORT_SITE).wrapping_add(2) != ip
        {
            return;
        }
        let pace = &thread.pace;
        if now().wrapping_sub(pace.answered.load(Ordering::Relaxed)) > SOON {
            pace.soon.store(0, Ordering::Relaxed);
            return;
        }
        let wanted = SOON_CALLS << pace.failures.load(Ordering::Relaxed).min(FAILURES_MOST);
        if pace.soon.fetch_add(1, Ordering::Relaxed) < wanted
            || self.crew.running() >= self.watch.cores
            || self.watch.busy.swap(true, Ordering::AcqRel)
        {
            return;
        }
        pace.soon.store(0, Ordering::Relaxed);
        if !self.watch.started.swap(true, Ordering::AcqRel) {
            let shared = self.clone();
            let builder = std::thread::Builder::new().name("watcher".into()).stack_size(256 << 10);
            if let Err(e) = builder.spawn(move || shared.watch_for_ever()) {
                // Stays busy: nobody is watched from now on.
                tracing::warn!("no watching thread: {e}");
                return;
            }
        }
        *lock(&self.watch.wanted) = Some((thread.clone(), core()));
        self.watch.wake.notify_one();
    }

    /// Notes when a thread was answered.
    pub(super) fn answered(thread: &Thread) {
        if thread.process.patched.load(Ordering::Relaxed) {
            thread.pace.answered.store(now(), Ordering::Relaxed);
        }
    }

    fn watch_for_ever(self: &Arc<Self>) -> ! {
        loop {
            let (thread, served_on) = {
                let mut wanted = lock(&self.watch.wanted);
                loop {
                    match wanted.take() {
                        Some(wanted) => break wanted,
                        None => {
                            wanted = self.watch.wake.wait(wanted).unwrap_or_else(std::sync::PoisonError::into_inner)
                        }
                    }
                }
            };
            // On the same core one would only keep the other from running.
            let worth = (core() != served_on || host::leave_core(served_on)) && self.watch_one(&thread);
            let failures = &thread.pace.failures;
            if worth {
                failures.store(0, Ordering::Relaxed);
            } else {
                failures.fetch_add(1, Ordering::Relaxed);
            }
            self.watch.busy.store(false, Ordering::Release);
        }
    }

    /// Serves a thread's calls for as long as they keep coming; whether that was worth it.
    fn watch_one(self: &Arc<Self>, thread: &Arc<Thread>) -> bool {
        let window = &self.slots.window;
        let state = thread.slot + SHORT_STATE;
        window.store(thread.slot + SHORT_WATCHED, 1);
        let begun = now();
        let (mut calls, mut idle, mut last) = (0u32, 0, begun);
        while idle < PATIENCE {
            if window.load(state) == SHORT_POSTED && self.serve_short(thread) {
                calls = calls.saturating_add(1);
                (idle, last) = (0, now());
            } else {
                idle += 1;
                std::hint::spin_loop();
            }
            // Another thread needs the core, or this one waited in vain for us.
            if idle % 64 == 63
                && (self.crew.running() >= self.watch.cores || window.load(thread.slot + SHORT_WATCHED) == 0)
            {
                break;
            }
        }
        window.store(thread.slot + SHORT_WATCHED, 0);
        // Posted just before that: it is served, or taken back.
        if window.load(state) == SHORT_POSTED {
            self.serve_short(thread);
        }
        calls >= WORTH && last.wrapping_sub(begun) / u64::from(calls) < WORTH_CYCLES
    }

    /// Takes the call that is posted in the slot and serves it; false if it cannot be taken.
    fn serve_short(self: &Arc<Self>, thread: &Arc<Thread>) -> bool {
        let word = |i: u64| self.slots.word(thread.slot + SHORT_CALL + 8 * i);
        let (guest, number) = {
            // What the slot says and what the state says change together, so that a thread that goes to sleep over its call
            // ([`Thread::asleep`]) can tell one that was taken from one that nobody serves: only the latter it may make again.
            let mut state = lock(&thread.state);
            let Some(guest) = lock(&thread.guest).clone().filter(|_| state.stop == Stop::Running) else {
                // It is gone, or a stub made it up, or an interrupt came first: then `settle` takes it back.
                return false;
            };
            if !self.slots.window.replace(thread.slot + SHORT_STATE, SHORT_POSTED, SHORT_TAKEN) {
                return false;
            }
            let number = u32::try_from(word(0)).unwrap_or(u32::MAX);
            if !state.orders.is_empty() || long_only(number) {
                // Only a stub that made it up comes here.
                thread.put_short(self, EPERM);
                return true;
            }
            state.stop = Stop::Short(None);
            (guest, number)
        };
        self.crew.stops();
        let answer = guest.call(Call {
            number,
            args: [word(1), word(2), word(3), word(4), word(5), word(6)],
            ip: self.slots.word(thread.slot + SHORT_SITE).wrapping_add(2),
            posted: true,
        });
        let returns = matches!(answer, Answer::Return(_));
        if matches!(answer, Answer::Park) {
            // Answered by now, or it takes long: then the stub need not look any more.
            self.slots.window.replace(thread.slot + SHORT_STATE, SHORT_TAKEN, SHORT_SLEEP);
        } else {
            thread.finish(answer);
        }
        (self.after)(self.after(returns));
        true
    }
}

impl Thread {
    /// Answers on the short way.
    pub(super) fn put_short(&self, shared: &Shared, result: i64) {
        shared.slots.set_word(self.slot + SHORT_RESULT, result as u64);
        shared.slots.window.store(self.slot + SHORT_STATE, SHORT_DONE);
    }

    /// Carries out the answer to a call that came the short way; `asleep`: the notification, if its thread sleeps over it.
    pub(super) fn finish_short(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        mut state: MutexGuard<'_, State>,
        asleep: Option<u64>,
        answer: &Answer,
    ) {
        let (result, trap) = match *answer {
            Answer::Return(v) => (v, false),
            Answer::ReturnThenTrap(v) => (v, true),
            // No other outcome has a place without a notification: only calls that come to none go the short way.
            _ => (EPERM, false),
        };
        if trap && asleep.is_none() {
            // It must not run on before it traps: it is sent to sleep first.
            state.stop = Stop::ShortTrap(result);
            shared.slots.window.replace(self.slot + SHORT_STATE, SHORT_TAKEN, SHORT_SLEEP);
        } else {
            state.stop = Stop::Running;
            self.put_short(shared, result);
        }
        let interrupted = std::mem::take(&mut state.interrupted);
        drop(state);
        if trap || interrupted {
            // Also for one that does not go to sleep: no honest stub, whose answer to this is to go on.
            host::interrupt(self.process.id(), self.tid.load(Ordering::Acquire));
        }
        match asleep {
            Some(id) => shared.send(id, 0, 0),
            None => shared.crew.runs(),
        }
    }

    /// The stub went to sleep over a call on the short way.
    pub(super) fn asleep(self: &Arc<Self>, shared: &Arc<Shared>, n: &Notification) {
        let trap = {
            let mut state = lock(&self.state);
            match state.stop {
                Stop::Short(None) => {
                    state.stop = Stop::Short(Some(n.id));
                    drop(state);
                    // It was counted out when its call was taken, and now again.
                    return shared.crew.runs();
                }
                Stop::ShortTrap(result) => {
                    state.stop = Stop::Running;
                    Some(result)
                }
                // Answered meanwhile, or nobody serves it: then the call is made the long way.
                _ => {
                    if shared.slots.window.load(self.slot + SHORT_STATE) != SHORT_DONE {
                        shared.slots.window.store(self.slot + SHORT_STATE, SHORT_LONG);
                    }
                    None
                }
            }
        };
        if let Some(result) = trap {
            self.put_short(shared, result);
            host::interrupt(self.process.id(), self.tid.load(Ordering::Acquire));
        }
        shared.send(n.id, 0, 0);
    }

    /// Makes the frame of an interrupted thread what it would be had the call been one instruction: before it, or behind it. False
    /// if it is in the middle, in the hands of the Sentry: then it is like a thread in a call, which an interrupt does not concern.
    pub(super) fn settle(&self, shared: &Shared, frame: &mut SlotFrame<'_>) -> bool {
        let labels = shared.watch.labels;
        let mut r = frame.registers();
        if !(labels.start..labels.end).contains(&r.rip) {
            return true;
        }
        let word = |at: u64| shared.slots.word(self.slot + at);
        let (state, window) = (self.slot + SHORT_STATE, &shared.slots.window);
        if r.rip == labels.last {
            r.rip = r.rcx;
        } else {
            let site = if r.rip == labels.start { r.rcx } else { word(SHORT_SITE) };
            match window.load(state) {
                SHORT_DONE => {
                    window.store(state, SHORT_IDLE);
                    if r.rip < labels.done {
                        r.rdi = word(SHORT_CALL + 8);
                    }
                    (r.rax, r.rip, r.rcx) = (word(SHORT_RESULT), site.wrapping_add(2), site.wrapping_add(2));
                }
                SHORT_LONG => {
                    window.store(state, SHORT_IDLE);
                    (r.rax, r.rdi) = (word(SHORT_CALL), word(SHORT_CALL + 8));
                    (r.rip, r.rcx) = (site, site);
                }
                SHORT_POSTED if !window.replace(state, SHORT_POSTED, SHORT_IDLE) => return false,
                SHORT_IDLE | SHORT_POSTED => {
                    // The number is in its register until the call is posted.
                    if r.rip > labels.posted {
                        r.rax = word(SHORT_CALL);
                    }
                    (r.rip, r.rcx) = (site, site);
                }
                _ => return false,
            }
        }
        frame.set_registers(&r);
        true
    }
}
