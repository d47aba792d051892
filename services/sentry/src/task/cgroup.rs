//! What all processes of a container are one in, wherever they go: the container's cgroup, as far as it acts inside.
//!
//! Owned here: its limits, what it used that has ended, the freezer (`pause`, `resume`). A frozen task is parked where it would run on; calls that block go on blocking and end
//! as if nothing had been, once it is thawed. Called by the sandbox, and by whatever lets a task run on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use cofferdam_platform::Answer;

use super::home::Home;
use super::tree::Tree;
use super::usage::Usage;
use super::{Group, Task};
use crate::errno::Errno;
use crate::filesystems::proc::totals::{self, Look};
use crate::kernel::Kernel;
use crate::limits::Kept;
use crate::sync::Mutex;
use crate::wait::run_woken;

/// How long the last of many running threads may take to be seen at rest.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often that is looked at.
const LOOK: Duration = Duration::from_micros(200);

/// A container's.
#[derive(Default)]
pub struct Cgroup {
    /// Its limits.
    pub limits: Kept,
    /// What processes used that have ended.
    pub ended: Mutex<Usage>,
    /// The memory of its processes, as it was last looked at.
    pub private: Look,
    /// What its host processes are copied from, if it is not alone in the sandbox.
    pub home: OnceLock<Arc<Home>>,
    frozen: AtomicBool,
}

impl Cgroup {
    /// Whether its tasks shall not run.
    pub fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::SeqCst)
    }

    /// Has a host process made for a task that has none.
    pub fn new_process(&self, task: &Arc<Task>) -> Result<(), Errno> {
        match self.home.get() {
            Some(home) => home.new_process(task.clone()),
            None => task.kernel().platform.get().ok_or(Errno::EIO)?.new_process(task.clone()),
        }
        Ok(())
    }

    /// Whether there may be one more task; the refusal is counted.
    pub fn has_room(self: &Arc<Self>, tree: &Tree) -> bool {
        let free = tree.has_room(self, self.limits.pids());
        if !free {
            self.limits.refuse();
        }
        free
    }

    /// What its processes used, those that ended among them.
    pub fn usage(self: &Arc<Self>, kernel: &Kernel) -> Usage {
        totals::sum(&self.ended, &self.members(kernel))
    }

    /// Its processes.
    pub fn members(self: &Arc<Self>, kernel: &Kernel) -> Vec<Arc<Group>> {
        let tree = kernel.tree.lock();
        tree.pids().into_iter().filter_map(|p| tree.group(p)).filter(|g| Arc::ptr_eq(&g.cgroup, self)).collect()
    }

    /// Stops all of its tasks; whether they were all seen at rest. Those that are made meanwhile stop before their first instruction.
    pub fn freeze(self: &Arc<Self>, kernel: &Kernel) -> bool {
        self.frozen.store(true, Ordering::SeqCst);
        let end = Instant::now() + PATIENCE;
        loop {
            let running: Vec<Arc<Task>> = self.tasks(kernel).into_iter().filter(|t| !at_rest(t)).collect();
            running.iter().for_each(Task::get_attention);
            run_woken();
            if running.is_empty() || Instant::now() > end {
                return running.is_empty();
            }
            cofferdam_platform::about_to_block();
            std::thread::sleep(LOOK);
        }
    }

    /// Lets them run on, but for those that a signal has stopped.
    pub fn thaw(self: &Arc<Self>, kernel: &Kernel) {
        self.frozen.store(false, Ordering::SeqCst);
        for t in self.tasks(kernel) {
            if t.group().stopped.load(Ordering::SeqCst) && !t.is_traced() {
                continue;
            }
            t.leave_stop();
        }
    }

    fn tasks(self: &Arc<Self>, kernel: &Kernel) -> Vec<Arc<Task>> {
        self.members(kernel).iter().flat_map(|g| g.tasks()).collect()
    }
}

/// Whether nothing of a task runs now, nor can without being stopped first.
fn at_rest(task: &Task) -> bool {
    task.host().is_none() || task.is_blocked() || task.state.lock().stopped.is_some() || task.is_trace_stopped()
}

impl Task {
    /// Lets a task run on that is parked in a stop; it looks first whether it may.
    pub(crate) fn leave_stop(&self) {
        let parked = self.state.lock().stopped.take();
        if parked.is_some() {
            self.counters.ready();
        }
        if let (Some(rax), Some(host)) = (parked, self.host()) {
            host.answer(Answer::ReturnThenTrap(rax));
        }
    }
}
