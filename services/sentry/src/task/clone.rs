//! `clone(2)`, `clone3(2)`, `fork(2)`, `vfork(2)`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use cofferdam_platform::{Answer, Frame, Order};

use super::creds::{Creds, cap};
use super::group::{Group, rlimit};
use super::ptrace::attach;
use super::tree::PID_MAX;
use super::{After, Begin, Parts, Schedule, Task};
use crate::errno::Errno;
use crate::ipc::pidfd;
use crate::namespaces::{PidNamespace, enter};
use crate::sync::Mutex;

#[allow(missing_docs, dead_code, reason = "the ABI's table, given whole")]
pub mod flag {
    pub const VM: u64 = 0x100;
    pub const FS: u64 = 0x200;
    pub const FILES: u64 = 0x400;
    pub const SIGHAND: u64 = 0x800;
    pub const PIDFD: u64 = 0x1000;
    pub const PTRACE: u64 = 0x2000;
    pub const VFORK: u64 = 0x4000;
    pub const PARENT: u64 = 0x8000;
    pub const THREAD: u64 = 0x1_0000;
    pub const NEWNS: u64 = 0x2_0000;
    pub const SYSVSEM: u64 = 0x4_0000;
    pub const SETTLS: u64 = 0x8_0000;
    pub const PARENT_SETTID: u64 = 0x10_0000;
    pub const CHILD_CLEARTID: u64 = 0x20_0000;
    pub const DETACHED: u64 = 0x40_0000;
    pub const UNTRACED: u64 = 0x80_0000;
    pub const CHILD_SETTID: u64 = 0x100_0000;
    pub const NEWCGROUP: u64 = 0x200_0000;
    pub const NEWUTS: u64 = 0x400_0000;
    pub const NEWIPC: u64 = 0x800_0000;
    pub const NEWUSER: u64 = 0x1000_0000;
    pub const NEWPID: u64 = 0x2000_0000;
    pub const NEWNET: u64 = 0x4000_0000;
    pub const IO: u64 = 0x8000_0000;
    pub const CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    pub const INTO_CGROUP: u64 = 0x2_0000_0000;
    pub const NEWTIME: u64 = 0x80;
    /// Namespaces.
    pub const NAMESPACES: u64 = NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET | NEWTIME;
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneRequest {
    /// `CLONE_*`.
    pub flags: u64,
    /// Stack pointer of the child, 0 for the caller's.
    pub stack: u64,
    /// Where the caller wants the id.
    pub parent_tid: u64,
    /// Where the child wants it set or cleared.
    pub child_tid: u64,
    /// Base of `%fs`.
    pub tls: u64,
    /// Signal at exit.
    pub exit_signal: i32,
    /// Where the caller wants the child's descriptor.
    pub pidfd: u64,
    /// Which numbers it shall have.
    pub wanted: Wanted,
}

/// Numbers that the child shall have (`set_tid` of `clone3(2)`), in the innermost PID namespace first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// The numbers.
    pub ids: [i32; 32],
    /// How many of them.
    pub count: usize,
}

impl Wanted {
    fn list(&self) -> &[i32] {
        self.ids.get(..self.count).unwrap_or_default()
    }

    /// Whether a caller may have them in a namespace and those around it.
    fn check(&self, creds: &Creds, space: &Arc<PidNamespace>) -> Result<(), Errno> {
        let mut at = Some(space);
        for number in self.list() {
            let ns = at.ok_or(Errno::EINVAL)?;
            let has_init = ns.is_first() || ns.init() != 0;
            if !(1..PID_MAX).contains(number) || (*number != 1 && !has_init) {
                return Err(Errno::EINVAL);
            }
            let owner = &ns.base.owner;
            if !creds.capable_in(owner, cap::SYS_ADMIN) && !creds.capable_in(owner, cap::CHECKPOINT_RESTORE) {
                return Err(Errno::EPERM);
            }
            at = ns.parent.as_ref();
        }
        Ok(())
    }
}

/// A parent that waits for its `vfork` child.
pub struct Vfork {
    parent: Arc<Task>,
    /// As the parent sees it.
    child: AtomicI32,
    number: u32,
    /// Whether the child has gone on, and whether the parent waits for it.
    state: Mutex<(bool, bool)>,
}

impl Vfork {
    /// The child has executed a program or ended.
    pub(crate) fn release(&self) {
        let waits = {
            let mut s = self.state.lock();
            !std::mem::replace(&mut s.0, true) && s.1
        };
        if waits {
            self.parent.counters.ready();
            self.parent.answer_parked(self.number, Ok(i64::from(self.child.load(Ordering::Relaxed))));
        }
    }

    /// The parent starts waiting; false if there is nothing to wait for any more.
    fn wait(&self) -> bool {
        let mut s = self.state.lock();
        s.1 = !s.0;
        s.1
    }
}

/// Checks the flags as Linux does.
pub fn check(r: &CloneRequest) -> Result<(), Errno> {
    use flag::*;
    let f = r.flags;
    let bad = (f & SIGHAND != 0 && f & VM == 0)
        || (f & THREAD != 0 && f & SIGHAND == 0)
        || (f & (NEWNS | FS) == NEWNS | FS)
        || (f & (NEWUSER | FS) == NEWUSER | FS)
        || (f & (CLEAR_SIGHAND | SIGHAND) == CLEAR_SIGHAND | SIGHAND)
        || (f & PIDFD != 0 && f & DETACHED != 0);
    if bad {
        return Err(Errno::EINVAL);
    }
    if f & PIDFD != 0 && f & PARENT_SETTID != 0 && r.pidfd == r.parent_tid {
        return Err(Errno::EINVAL);
    }
    let apart = NEWUSER | NEWPID;
    if f & INTO_CGROUP != 0 || (f & THREAD != 0 && f & apart != 0) || f & (NEWIPC | SYSVSEM) == NEWIPC | SYSVSEM {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// Makes the child and orders its host thread.
pub(crate) fn start(task: &Arc<Task>, number: u32, r: CloneRequest, frame: &mut dyn Frame) -> Result<Answer, Errno> {
    use flag::*;
    check(&r)?;
    let thread = r.flags & THREAD != 0;
    let share = r.flags & VM != 0;
    if !share && !crate::syscalls::rseq::outlives_fork(task) {
        return Err(Errno::ENOMEM);
    }
    let kernel = task.kernel().clone();
    let parent_group = task.group();
    let fs = if r.flags & FS != 0 { task.fs() } else { task.fs().fork() };
    let (creds, namespaces) = enter::unshared(task, r.flags, &fs)?;
    let space = namespaces.pid_for_children.clone();
    // Threads are where their process is; and an init has no siblings.
    if thread && !Arc::ptr_eq(&space, &parent_group.pid_ns) || r.flags & PARENT != 0 && parent_group.is_init() {
        return Err(Errno::EINVAL);
    }

    let tid = {
        let mut tree = kernel.tree.lock();
        let limit = parent_group.limit(rlimit::NPROC).soft;
        let creds = task.creds();
        if creds.ruid != 0 && tree.count() as u64 >= limit {
            return Err(Errno::EAGAIN);
        }
        if !parent_group.cgroup.has_room(&tree) {
            return Err(Errno::EAGAIN);
        }
        r.wanted.check(&creds, &space)?;
        // In the first namespace numbers are the ids themselves.
        match r.wanted.list().get(space.level()) {
            Some(id) => tree.claim(*id)?,
            None => tree.new_id().ok_or(Errno::EAGAIN)?,
        }
    };
    let group = if thread { parent_group.clone() } else { fork_group(task, tid, space.clone()) };
    let actions = if r.flags & SIGHAND != 0 {
        task.actions()
    } else {
        let mut copy = task.actions().lock().clone();
        if r.flags & CLEAR_SIGHAND != 0 {
            copy.exec();
        }
        Arc::new(Mutex::new(copy))
    };
    let files = if r.flags & FILES != 0 { task.files() } else { task.files().fork() };
    let mm = if share { task.mm() } else { task.mm().fork(task.tid()) };
    let set_tid = if r.flags & CHILD_SETTID != 0 { r.child_tid } else { 0 };
    let child = Task::new(Parts {
        kernel: kernel.clone(),
        tid,
        group: group.clone(),
        files,
        fs,
        creds,
        namespaces,
        mm,
        actions,
        comm: task.comm.read().clone(),
        mask: task.mask().0,
        begin: Begin::Clone { set_tid, number },
    });
    if r.flags & PIDFD != 0 {
        let file = if thread { pidfd::of_thread(&child, false) } else { pidfd::pidfd(&kernel, &group, false) };
        let fd = task.add_file(file, true)?;
        task.write_exact(r.pidfd, &fd.to_le_bytes()).inspect_err(|_| {
            task.files().close(fd).ok();
        })?;
    }
    let fs_base = if r.flags & SETTLS != 0 { r.tls } else { task.fs_base.load(Ordering::Relaxed) };
    child.fs_base.store(fs_base, Ordering::Relaxed);
    child.gs_base.store(task.gs_base.load(Ordering::Relaxed), Ordering::Relaxed);
    let vfork = (r.flags & VFORK != 0).then(|| {
        Arc::new(Vfork { parent: task.clone(), child: AtomicI32::new(tid), number, state: Mutex::new((false, false)) })
    });
    {
        let mut c = child.state.lock();
        if r.flags & CHILD_CLEARTID != 0 {
            c.clear_tid = r.child_tid;
        }
        // A thread that shares memory gets no signal stack, unless it is a vfork.
        if !share || r.flags & VFORK != 0 {
            c.alt_stack = task.state.lock().alt_stack;
        }
        if !share {
            c.rseq = task.state.lock().rseq;
        }
        let own = task.state.lock();
        (c.timer_slack, c.affinity, c.policy) = (own.timer_slack, own.affinity.clone(), own.policy);
        c.schedule = Schedule { reset_on_fork: false, first_slack: own.timer_slack, ..own.schedule };
        c.vfork = vfork.clone();
    }
    {
        // A thread must not join a process that is ending.
        let mut threads = group.threads.lock();
        // Nor one that another thread just had to itself (exec).
        if group.is_exiting() || task.exited.load(Ordering::SeqCst) {
            return Err(Errno::EAGAIN);
        }
        // Here, since another thread may bind all of them (SECCOMP_FILTER_FLAG_TSYNC).
        child.seccomp.inherit(&task.seccomp);
        if task.creds().no_new_privileges {
            child.bind_privileges();
        }
        threads.push(child.clone());
    }
    {
        let mut tree = kernel.tree.lock();
        // One that was asked for may have been taken meanwhile, as may the last place.
        let free = match group.cgroup.has_room(&tree) {
            true => tree.claim(tid).map(|_| ()),
            false => Err(Errno::EAGAIN),
        };
        if let Err(e) = free.and_then(|()| tree.number(tid, &space, r.wanted.list())) {
            drop(tree);
            forget(task, &child);
            return Err(e);
        }
        if !thread {
            group.first.store(space.init() == tid, Ordering::Relaxed);
            let me = tree.node(task.pid()).map(|n| (n.pgid, n.sid, n.parent, n.exit_signal));
            let (pgid, sid, grandparent, own_signal) = me.unwrap_or((tid, tid, 0, 0));
            let (parent, signal) =
                if r.flags & PARENT != 0 { (grandparent, own_signal) } else { (task.pid(), r.exit_signal) };
            tree.add_process(&group, parent, pgid, sid, signal);
        }
        tree.add_task(&child);
    }
    let (event, traced) = attach::of_clone(task, &r);
    if traced {
        attach::adopt(task, &child);
    }
    let shown = task.shown(tid);
    if let Some(v) = &vfork {
        v.child.store(shown, Ordering::Relaxed);
    }
    kernel.forks.fetch_add(1, Ordering::Relaxed);
    if r.flags & PARENT_SETTID != 0 {
        let _ = task.write_exact(r.parent_tid, &shown.to_le_bytes());
    }
    let mut registers = frame.registers();
    registers.rax = 0;
    if r.stack != 0 {
        registers.rsp = r.stack;
    }
    let fs = (r.flags & SETTLS != 0).then_some(r.tls);
    let order = Order::Clone { guest: child.clone(), thread, share_memory: share, registers, fs };
    Ok(task.order(vec![order], After::Clone { number, child, shown, vfork, event }))
}

fn fork_group(task: &Task, pid: i32, space: Arc<PidNamespace>) -> Arc<Group> {
    let parent = task.group();
    let group = Group::new(pid, space, *parent.limits.read(), parent.cgroup.clone());
    group.maker.store(task.tid(), Ordering::Relaxed);
    let exe = parent.exe.read().clone();
    *group.exe.write() = exe;
    for (to, from) in [
        (&group.oom_score_adj, &parent.oom_score_adj),
        (&group.oom_score_least, &parent.oom_score_least),
        (&group.coredump_filter, &parent.coredump_filter),
        (&group.loginuid, &parent.loginuid),
        (&group.sessionid, &parent.sessionid),
        (&group.thp_disabled, &parent.thp_disabled),
        (&group.personality, &parent.personality),
        (&group.dumpable, &parent.dumpable),
        (&group.nice, &parent.nice),
    ] {
        to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    super::itimer::watch_limit(task.kernel(), &group);
    group
}

/// Takes a child that did not come to be out of its process, and its descriptor away.
fn forget(task: &Arc<Task>, child: &Arc<Task>) {
    let group = child.group();
    group.threads.lock().retain(|t| !Arc::ptr_eq(t, child));
    let opened = task.files().all().into_iter();
    let mut opened =
        opened.filter(|(_, f)| f.ops_as::<pidfd::PidFd>().is_some_and(|p| p.is_of(group) && p.id() == child.tid()));
    if let Some((fd, _)) = opened.next() {
        task.files().close(fd).ok();
    }
}

/// The host has made the child, or refused.
pub(crate) fn finish(
    task: &Arc<Task>,
    number: u32,
    (child, shown): (&Arc<Task>, i32),
    vfork: Option<Arc<Vfork>>,
    event: Option<i32>,
    result: i64,
    frame: &mut dyn Frame,
) -> Answer {
    let tid = child.tid();
    if result < 0 {
        attach::disown(child);
        let mut tree = task.kernel().tree.lock();
        tree.remove_task(tid);
        if child.group().pid == tid {
            tree.remove_process(tid);
        }
        drop(tree);
        forget(task, child);
        return task.return_in_trap(number, Err(Errno::EAGAIN), frame);
    }
    match event {
        Some(event) => task.stop_for_clone(frame, event, number, (tid, shown), vfork),
        None => made(task, number, (tid, shown), vfork, frame),
    }
}

/// The child is there, and a tracer was told. `shown`: its id as the caller sees it.
pub(crate) fn made(
    task: &Arc<Task>,
    number: u32,
    (child, shown): (i32, i32),
    vfork: Option<Arc<Vfork>>,
    frame: &mut dyn Frame,
) -> Answer {
    if let Some(vfork) = vfork {
        task.note_vfork(child);
        if vfork.wait() {
            task.counters.wait();
            return Answer::Park;
        }
    }
    task.return_in_trap(number, Ok(i64::from(shown)), frame)
}
