//! The task tree: every task by id, process groups, sessions, parents and children.
//!
//! One lock over all of it (`Kernel::tree`), first in the lock order; nothing is called out to while it is held.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Task;
use super::cgroup::Cgroup;
use super::group::Group;
use crate::errno::Errno;
use crate::namespaces::PidNamespace;

/// Highest process id plus one (`/proc/sys/kernel/pid_max`).
pub const PID_MAX: i32 = 4_194_304;

/// A process in the tree; stays as a zombie until its parent has waited for it.
pub struct Node {
    /// The process.
    pub group: Arc<Group>,
    /// Its parent; 0 for the first.
    pub parent: i32,
    /// Its children, zombies included, in the order they were made.
    pub children: Vec<i32>,
    /// Its process group.
    pub pgid: i32,
    /// Its session.
    pub sid: i32,
    /// Whether it has executed a program since it was forked (`setpgid(2)`).
    pub executed: bool,
    /// Signal to send the parent at exit; 0 for none.
    pub exit_signal: i32,
}

/// All tasks.
#[derive(Default)]
pub struct Tree {
    tasks: HashMap<i32, Arc<Task>>,
    nodes: HashMap<i32, Node>,
    /// The PID namespaces of ids that have numbers in others than the first.
    spaces: HashMap<i32, Arc<PidNamespace>>,
    last: i32,
}

impl Tree {
    /// An id nothing uses; `None` when all are taken.
    pub fn new_id(&mut self) -> Option<i32> {
        for _ in 0..PID_MAX {
            self.last = if self.last + 1 >= PID_MAX { 300 } else { self.last + 1 };
            let id = self.last;
            if !self.is_used(id) {
                return Some(id);
            }
        }
        None
    }

    /// A certain id; EEXIST if something uses it.
    pub fn claim(&mut self, id: i32) -> Result<i32, Errno> {
        if self.is_used(id) { Err(Errno::EEXIST) } else { Ok(id) }
    }

    fn is_used(&self, id: i32) -> bool {
        self.tasks.contains_key(&id)
            || self.nodes.contains_key(&id)
            || self.nodes.values().any(|n| n.pgid == id || n.sid == id)
    }

    /// Gives an id its numbers in a PID namespace and those around it; ENOMEM if that has ended.
    /// `wanted`: the numbers that it shall have, the innermost first; EEXIST if one is taken.
    pub fn number(&mut self, id: i32, space: &Arc<PidNamespace>, wanted: &[i32]) -> Result<(), Errno> {
        space.add(id, wanted)?;
        if !space.is_first() {
            self.spaces.insert(id, space.clone());
        }
        Ok(())
    }

    /// Takes the numbers of an id back if nothing uses it any more.
    pub fn release(&mut self, id: i32) {
        if self.spaces.contains_key(&id)
            && !self.is_used(id)
            && let Some(space) = self.spaces.remove(&id)
        {
            space.remove(id);
        }
    }

    /// The task with an id.
    pub fn task(&self, tid: i32) -> Option<Arc<Task>> {
        self.tasks.get(&tid).cloned()
    }

    /// The process with an id.
    pub fn group(&self, pid: i32) -> Option<Arc<Group>> {
        self.nodes.get(&pid).map(|n| n.group.clone())
    }

    /// The node of a process.
    pub fn node(&self, pid: i32) -> Option<&Node> {
        self.nodes.get(&pid)
    }

    /// The node of a process, to change it.
    pub fn node_mut(&mut self, pid: i32) -> Option<&mut Node> {
        self.nodes.get_mut(&pid)
    }

    /// All processes, by id.
    pub fn pids(&self) -> Vec<i32> {
        let mut all: Vec<i32> = self.nodes.keys().copied().collect();
        all.sort_unstable();
        all
    }

    /// All tasks.
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        self.tasks.values().cloned().collect()
    }

    /// Number of tasks.
    pub fn count(&self) -> usize {
        self.tasks.len()
    }

    /// Whether there may be one more task of a container that may have so many. Those that nobody has waited for yet count, as in Linux's
    /// cgroups.
    pub fn has_room(&self, of: &Arc<Cgroup>, limit: u64) -> bool {
        let (tasks, processes) = (self.tasks.len() as u64, self.nodes.len() as u64);
        tasks.saturating_add(processes) < limit || self.charged(of) < limit
    }

    /// Number of tasks of a container with those that have ended and that nobody has waited for.
    pub fn charged(&self, of: &Arc<Cgroup>) -> u64 {
        let tasks = self.tasks.values().filter(|t| Arc::ptr_eq(&t.group().cgroup, of)).count();
        let left = |(pid, n): &(&i32, &Node)| Arc::ptr_eq(&n.group.cgroup, of) && !self.tasks.contains_key(pid);
        (tasks + self.nodes.iter().filter(left).count()) as u64
    }

    /// The last id given out.
    pub fn last_id(&self) -> i32 {
        self.last
    }

    /// Adds a process.
    pub fn add_process(&mut self, group: &Arc<Group>, parent: i32, pgid: i32, sid: i32, exit_signal: i32) {
        let node = Node { group: group.clone(), parent, children: Vec::new(), pgid, sid, executed: false, exit_signal };
        self.nodes.insert(group.pid, node);
        if let Some(p) = self.nodes.get_mut(&parent) {
            p.children.push(group.pid);
        }
    }

    /// Adds a task.
    pub fn add_task(&mut self, task: &Arc<Task>) {
        self.tasks.insert(task.tid(), task.clone());
    }

    /// Removes a task.
    pub fn remove_task(&mut self, tid: i32) {
        self.tasks.remove(&tid);
        self.release(tid);
    }

    /// Gives a task another id (exec by a thread that is not the leader).
    pub fn rename_task(&mut self, task: &Arc<Task>, old: i32) {
        self.tasks.remove(&old);
        self.tasks.insert(task.tid(), task.clone());
        self.release(old);
    }

    /// Removes a process that has been waited for.
    pub fn remove_process(&mut self, pid: i32) {
        let Some(node) = self.nodes.remove(&pid) else { return };
        if let Some(p) = self.nodes.get_mut(&node.parent) {
            p.children.retain(|c| *c != pid);
        }
        [pid, node.pgid, node.sid].into_iter().for_each(|id| self.release(id));
    }

    /// Gives the children of `pid` to `to`; which they are.
    pub fn reparent(&mut self, pid: i32, to: i32) -> Vec<i32> {
        let children = self.nodes.get_mut(&pid).map(|n| std::mem::take(&mut n.children)).unwrap_or_default();
        for c in &children {
            if let Some(n) = self.nodes.get_mut(c) {
                n.parent = to;
                n.exit_signal = crate::signal::sig::CHLD;
            }
        }
        if let Some(p) = self.nodes.get_mut(&to) {
            p.children.extend_from_slice(&children);
        }
        children
    }

    /// The processes of a process group.
    pub fn members(&self, pgid: i32) -> Vec<Arc<Group>> {
        self.nodes.values().filter(|n| n.pgid == pgid).map(|n| n.group.clone()).collect()
    }

    /// The session of a process group, if it has a member.
    pub fn session_of(&self, pgid: i32) -> Option<i32> {
        self.nodes.values().find(|n| n.pgid == pgid).map(|n| n.sid)
    }

    /// Whether no member of the process group has a parent in the same session but in another group. `without`: a
    /// process that does not count any more. The command of `do` has its parent outside: the user's shell, it may be.
    pub fn orphaned(&self, pgid: i32, without: i32) -> bool {
        !self.nodes.values().any(|n| {
            n.pgid == pgid
                && n.group.pid != without
                && !n.group.is_zombie()
                && match self.nodes.get(&n.parent) {
                    Some(p) => p.sid == n.sid && p.pgid != pgid,
                    None => n.group.plain.load(Ordering::Relaxed) && n.sid == n.group.pid,
                }
        })
    }
}
