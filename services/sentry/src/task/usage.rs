//! What threads and processes used: processor time, memory, bytes read and written, waits.
//!
//! The host counts a process's processor time, and does not tell of one thread of another process: a thread's part is
//! what it was ready to run of all the time that its process's threads were, between two looks. Waits and bytes are counted here, as calls
//! end. The time that the Sentry takes to serve calls is nobody's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::{Group, Task};
use crate::memory::resident::{self, FEW, SOME};
use crate::sync::Mutex;
use crate::time::{Clock, now};

/// What was counted, of a thread or of a whole process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Page faults that the Sentry mended.
    pub faults: u64,
    /// Times it waited in a call: switches of its own will.
    pub waits: u64,
    /// Bytes read by calls, and calls that read; the same of writes.
    pub read: (u64, u64),
    /// See `read`.
    pub written: (u64, u64),
    /// Nanoseconds in which it was ready to run.
    pub ran: i64,
}

impl Counted {
    /// Adds another's.
    pub fn add(&mut self, o: &Self) {
        self.faults = self.faults.saturating_add(o.faults);
        self.waits = self.waits.saturating_add(o.waits);
        self.read = (self.read.0.saturating_add(o.read.0), self.read.1.saturating_add(o.read.1));
        self.written = (self.written.0.saturating_add(o.written.0), self.written.1.saturating_add(o.written.1));
        self.ran = self.ran.saturating_add(o.ran);
    }
}

/// What was used, of a process or of several.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Nanoseconds in its own code.
    pub user: i64,
    /// Nanoseconds in the host.
    pub system: i64,
    /// Most bytes of memory that were seen resident at once, of one process.
    pub most_resident: u64,
    /// What was counted.
    pub counted: Counted,
}

impl Usage {
    /// CPU time, nanoseconds.
    pub fn cpu(&self) -> i64 {
        self.user.saturating_add(self.system)
    }

    /// Adds another's.
    pub fn add(&mut self, o: &Self) {
        self.user = self.user.saturating_add(o.user);
        self.system = self.system.saturating_add(o.system);
        self.most_resident = self.most_resident.max(o.most_resident);
        self.counted.add(&o.counted);
    }
}

/// The counters of a thread.
pub struct Counters {
    faults: AtomicU64,
    waits: AtomicU64,
    read: (AtomicU64, AtomicU64),
    written: (AtomicU64, AtomicU64),
    /// Since when it is ready to run, CLOCK_MONOTONIC; 0 while it waits.
    since: AtomicI64,
    ran: AtomicI64,
    /// Its part of its process's CPU time as it was last shared out, and what it had been ready to run by then.
    share: AtomicI64,
    /// See `share`.
    shared_at: AtomicI64,
}

impl Counters {
    /// Of a thread that begins now.
    pub fn new() -> Self {
        Self {
            faults: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            read: Default::default(),
            written: Default::default(),
            since: AtomicI64::new(now(Clock::Monotonic)),
            ran: AtomicI64::new(0),
            share: AtomicI64::new(0),
            shared_at: AtomicI64::new(0),
        }
    }

    /// It waits from now on.
    pub fn wait(&self) {
        let since = self.since.swap(0, Ordering::Relaxed);
        if since != 0 {
            self.ran.fetch_add(now(Clock::Monotonic).saturating_sub(since), Ordering::Relaxed);
            self.waits.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// It can run on.
    pub fn ready(&self) {
        if self.since.load(Ordering::Relaxed) == 0 {
            self.since.store(now(Clock::Monotonic).max(1), Ordering::Relaxed);
        }
    }

    /// Whether it can run.
    pub fn is_ready(&self) -> bool {
        self.since.load(Ordering::Relaxed) != 0
    }

    /// A fault was mended.
    pub fn fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    /// A call ended well: those that read or write count.
    pub fn call(&self, number: u32, result: i64) {
        let add = |to: &(AtomicU64, AtomicU64)| {
            to.0.fetch_add(u64::try_from(result).unwrap_or(0), Ordering::Relaxed);
            to.1.fetch_add(1, Ordering::Relaxed);
        };
        match number {
            // read, pread64, readv, preadv, preadv2
            0 | 17 | 19 | 295 | 327 => add(&self.read),
            // write, pwrite64, writev, pwritev, pwritev2
            1 | 18 | 20 | 296 | 328 => add(&self.written),
            // sendfile, copy_file_range
            40 | 326 => {
                add(&self.read);
                add(&self.written);
            }
            _ => {}
        }
    }

    /// What was counted so far.
    pub fn counted(&self) -> Counted {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let since = self.since.load(Ordering::Relaxed);
        let running = if since == 0 { 0 } else { now(Clock::Monotonic).saturating_sub(since).max(0) };
        Counted {
            faults: get(&self.faults),
            waits: get(&self.waits),
            read: (get(&self.read.0), get(&self.read.1)),
            written: (get(&self.written.0), get(&self.written.1)),
            ran: self.ran.load(Ordering::Relaxed).saturating_add(running),
        }
    }
}

/// What a process keeps of what its threads and programs before used.
#[derive(Default)]
pub struct Past {
    /// Of threads that ended.
    ended: Mutex<Counted>,
    /// User and system time of the programs it ran before the one it runs.
    programs: Mutex<(i64, i64)>,
    /// CPU time that was shared out among its threads.
    shared_out: Mutex<i64>,
    /// User and system time as they were last told: neither gets less.
    told: Mutex<(i64, i64)>,
    /// Most bytes seen resident, of this program and those before.
    most_resident: AtomicU64,
    /// When its memory was last looked at for `getrusage(2)`, CLOCK_MONOTONIC.
    looked: AtomicI64,
}

/// Nanoseconds between two looks for `getrusage(2)`: it is called in loops.
const LOOK_AGAIN: i64 = 5_000_000;

impl Group {
    /// User and system time used so far, nanoseconds.
    fn times(&self) -> (i64, i64) {
        let host = self.tasks().iter().find_map(|t| t.host());
        let now = host.map(|h| cofferdam_platform::process_cpu(h.tid())).unwrap_or_default();
        let before = *self.past.programs.lock();
        let mut told = self.past.told.lock();
        // As the host divides it (`cputime_adjust`): the exact total in the ratio of the ticks.
        let system = match (now.user, now.system) {
            (_, 0) => 0,
            (0, _) => now.total,
            (u, s) => {
                let part = i128::from(now.total) * i128::from(s) / (i128::from(u) + i128::from(s)).max(1);
                i64::try_from(part).unwrap_or(0)
            }
        };
        let (user, system) = (before.0.saturating_add(now.total - system), before.1.saturating_add(system));
        let total = user.saturating_add(system).max(told.0.saturating_add(told.1));
        let system = system.clamp(told.1, (total - told.0).max(told.1));
        *told = (total - system, system);
        *told
    }

    /// CPU time used so far, nanoseconds: user and system.
    pub fn cpu_times(&self) -> (i64, i64) {
        if self.is_exiting() {
            let last = self.final_usage.lock();
            return (last.user, last.system);
        }
        self.times()
    }

    /// What its threads counted, those that ended among them.
    pub fn counted(&self) -> Counted {
        let mut all = *self.past.ended.lock();
        self.tasks().iter().for_each(|t| all.add(&t.counters.counted()));
        all
    }

    /// What it used so far, its memory looked at in so many places at most (0: not at all).
    pub fn usage(&self, places: u64) -> Usage {
        if self.is_exiting() {
            return *self.final_usage.lock();
        }
        let (user, system) = self.times();
        if places > 0
            && let Some(task) = self.tasks().first()
        {
            self.saw_resident(resident::of(task, places).in_all());
        }
        let most_resident = self.past.most_resident.load(Ordering::Relaxed);
        let mut counted = self.counted();
        // The host mends faults in memory that it has mapped; of each page that was seen there was one at least.
        counted.faults = counted.faults.max(most_resident / crate::memory::store::PAGE);
        Usage { user, system, most_resident, counted }
    }

    /// As much of its memory was resident just now; the most that was.
    pub fn saw_resident(&self, bytes: u64) -> u64 {
        self.past.most_resident.fetch_max(bytes, Ordering::Relaxed).max(bytes)
    }

    /// The most that was seen resident is this from now on.
    pub fn forget_resident(&self, bytes: u64) {
        self.past.most_resident.store(bytes, Ordering::Relaxed);
    }

    /// Its usage as `getrusage(2)` tells it.
    pub fn usage_now(&self) -> Usage {
        let at = now(Clock::Monotonic);
        let again = at.saturating_sub(self.past.looked.load(Ordering::Relaxed)) >= LOOK_AGAIN;
        if again {
            self.past.looked.store(at, Ordering::Relaxed);
        }
        self.usage(if again { SOME } else { 0 })
    }

    /// Its usage as it ends.
    pub fn usage_at_end(&self) -> Usage {
        self.usage(FEW)
    }

    /// Another program takes its place, in another process of the host.
    pub fn program_ends(&self) {
        let usage = self.usage(FEW);
        *self.past.programs.lock() = (usage.user, usage.system);
    }

    /// Shares out the CPU time since it was last shared out: to each thread by how long it was ready to run since then. All of it, user
    /// and system.
    fn share_out(&self) -> (i64, i64) {
        let (user, system) = self.cpu_times();
        let mut out = self.past.shared_out.lock();
        let more = user.saturating_add(system).saturating_sub(*out);
        if more <= 0 {
            return (user, system);
        }
        let ready = |c: &Counters| c.counted().ran.saturating_sub(c.shared_at.load(Ordering::Relaxed)).max(0);
        let parts: Vec<(Arc<Task>, i64)> = self.tasks().into_iter().map(|t| (t.clone(), ready(&t.counters))).collect();
        let all: i128 = parts.iter().map(|(_, part)| i128::from(*part)).sum();
        for (task, part) in parts {
            let mine = i64::try_from(i128::from(more) * i128::from(part) / all.max(1)).unwrap_or(0);
            task.counters.share.fetch_add(mine, Ordering::Relaxed);
            task.counters.shared_at.fetch_add(part, Ordering::Relaxed);
            *out = out.saturating_add(mine);
        }
        (user, system)
    }

    /// One of its threads has ended.
    pub fn thread_ended(&self, task: &Task) {
        if self.tasks().len() > 1 {
            // What it used is not to fall to the others.
            self.share_out();
        }
        task.counters.wait();
        self.past.ended.lock().add(&task.counters.counted());
    }
}

impl Task {
    /// Its part of its process's CPU time, nanoseconds: user and system.
    pub fn cpu_times(&self) -> (i64, i64) {
        let (user, system) = self.group().share_out();
        let mine = self.counters.share.load(Ordering::Relaxed);
        let total = user.saturating_add(system).max(1);
        let system = i64::try_from(i128::from(mine) * i128::from(system) / i128::from(total)).unwrap_or(0);
        (mine - system, system)
    }
}

/// Load averages (`/proc/loadavg`): how many tasks were ready to run, decaying over 1, 5 and 15 minutes.
///
/// No clock ticks for them. The time that tasks were ready is counted exactly, so that what lies between two looks is
/// an average that is known; looks come when somebody asks, and as tasks come to wait.
#[derive(Default)]
pub struct Load {
    /// When it was last looked, CLOCK_MONOTONIC, and the ready time of all tasks until then.
    last: AtomicI64,
    state: Mutex<(i64, [f64; 3])>,
}

/// Nanoseconds between two looks, as on Linux.
const LOOK: i64 = 5 * crate::time::NS;

impl Load {
    /// Looks if it is time to.
    pub fn tick(&self, kernel: &crate::kernel::Kernel) {
        if now(Clock::Monotonic).saturating_sub(self.last.load(Ordering::Relaxed)) >= LOOK {
            self.averages(kernel);
        }
    }

    /// The averages now.
    pub fn averages(&self, kernel: &crate::kernel::Kernel) -> [f64; 3] {
        let tasks: Vec<Arc<Task>> = kernel.tree.lock().tasks();
        let ran: i64 = tasks.iter().map(|t| t.counters.counted().ran).sum();
        let mut state = self.state.lock();
        let ran = ran.saturating_add(kernel.ran_before.load(Ordering::Relaxed)).max(state.0);
        let at = now(Clock::Monotonic);
        let before = self.last.swap(at, Ordering::Relaxed);
        let passed = if before == 0 { 0 } else { at.saturating_sub(before) };
        if passed > 0 {
            let ready = (ran - state.0) as f64 / passed as f64;
            let seconds = passed as f64 / crate::time::NS as f64;
            for (average, period) in state.1.iter_mut().zip([60.0, 300.0, 900.0]) {
                let kept = (-seconds / period).exp();
                *average = *average * kept + ready * (1.0 - kept);
            }
        }
        state.0 = ran;
        state.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_count_by_their_kind() {
        let c = Counters::new();
        c.call(0, 10);
        c.call(20, 5);
        c.call(40, 7);
        c.call(39, 3);
        let n = c.counted();
        assert_eq!((n.read, n.written), ((17, 2), (12, 2)));
    }

    #[test]
    fn waits_are_counted_once() {
        let c = Counters::new();
        c.wait();
        c.wait();
        assert!(!c.is_ready());
        let ran = c.counted().ran;
        assert_eq!(c.counted().ran, ran, "who waits does not run");
        c.ready();
        c.wait();
        assert_eq!(c.counted().waits, 2);
    }
}
