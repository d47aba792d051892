//! `/proc/PID` and `/proc/PID/task/TID`: which files there are, and whose they are. What they say is in the modules below.

mod files;
mod memory;
mod mounts;
mod namespaces;
mod settings;
mod status;
mod usage;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use files::{descriptors, link};
use memory::{auxv, cmdline, environ, map_files, maps, numa_maps, smaps, smaps_rollup};
use mounts::{mountinfo, mounts, mountstats};
use namespaces::{attr, cgroup, cpuset, gid_map, namespaces, net, projid_map, setgroups, uid_map};
use settings::{coredump_filter, loginuid, nothing, oom_adj, oom_score_adj, personality, sessionid, taker, timerslack};
use status::{children, comm, stat, statm, status};
use usage::{io, limits, oom_score, sched, schedstat, stack, timers, wchan};

use crate::errno::Errno;
use crate::filesystems::proc::mem::MemFile;
use crate::filesystems::proc::{entry, number};
use crate::filesystems::pseudo::{Body, Gate, PseudoFs, PseudoNode, Style};
use crate::kernel::Kernel;
use crate::namespaces::PidNamespace;
use crate::task::creds::cap;
use crate::task::group::Life;
use crate::task::usage::Usage;
use crate::task::{Group, Task};
use crate::vfs::caller::Caller;
use crate::vfs::file::FileOps;
use crate::vfs::inode::{FileType, InodeRef};
use crate::vfs::landlock;

/// A process, or one of its threads.
#[derive(Clone)]
struct Subject {
    kernel: Arc<Kernel>,
    /// Whose numbers are shown.
    pids: Arc<PidNamespace>,
    group: Arc<Group>,
    /// The thread; `None` for the process.
    tid: Option<i32>,
}

impl Subject {
    /// The thread, or the process's first. ESRCH for a zombie.
    fn task(&self) -> Result<Arc<Task>, Errno> {
        match self.tid {
            Some(tid) => self.kernel.tree.lock().task(tid),
            None => self.group.leader().or_else(|| self.group.tasks().into_iter().next()),
        }
        .ok_or(Errno::ESRCH)
    }

    /// The task's name, also of one that has ended.
    fn name(&self) -> Vec<u8> {
        match self.task() {
            Ok(t) => t.comm.read().clone(),
            Err(_) => self.group.epitaph.lock().as_ref().map(|e| e.0.clone()).unwrap_or_default(),
        }
    }

    /// The task if the caller may look into it; `None` for one that has ended.
    fn open_to(&self, caller: &Caller<'_>) -> Result<Option<Arc<Task>>, Errno> {
        match self.check(caller) {
            Err(Errno::ESRCH) => Ok(None),
            r => r.map(Some),
        }
    }

    fn id(&self) -> i32 {
        self.tid.unwrap_or(self.group.pid)
    }

    /// Parent, process group and session, as they are shown.
    fn family(&self) -> [i32; 3] {
        let tree = self.kernel.tree.lock();
        let ids = tree.node(self.group.pid).map_or([0; 3], |n| [n.parent, n.pgid, n.sid]);
        ids.map(|id| self.pids.shown(id))
    }

    /// An id in this namespace and in those from here to the process's own.
    fn numbers(&self, id: i32) -> String {
        let all = self.pids.all_shown(id, &self.group.pid_ns);
        all.iter().map(i32::to_string).collect::<Vec<_>>().join("\t")
    }

    fn state(&self) -> (char, &'static str) {
        if matches!(*self.group.life.lock(), Life::Zombie(_)) {
            return ('Z', "zombie");
        }
        if self.task().is_ok_and(|t| t.is_trace_stopped()) {
            return ('t', "tracing stop");
        }
        if self.group.stopped.load(Ordering::Relaxed) && !self.task().is_ok_and(|t| t.is_traced()) {
            return ('T', "stopped");
        }
        match self.task() {
            Ok(t) if t.is_blocked() => ('S', "sleeping"),
            Ok(_) => ('R', "running"),
            Err(_) => ('Z', "zombie"),
        }
    }

    /// What its one thread used: the first of a process.
    fn first_thread_usage(&self) -> Usage {
        match self.task() {
            Ok(task) => Self { tid: Some(task.tid()), ..self.clone() }.usage(),
            Err(_) => self.usage(),
        }
    }

    /// What it used: the process, or the thread of its own.
    fn usage(&self) -> Usage {
        match (self.tid, self.task()) {
            (Some(_), Ok(task)) => {
                let (user, system) = task.cpu_times();
                Usage { user, system, most_resident: 0, counted: task.counters.counted() }
            }
            _ => self.group.usage(0),
        }
    }

    /// EACCES unless the caller may look into the process.
    fn check(&self, caller: &Caller<'_>) -> Result<Arc<Task>, Errno> {
        let task = self.task()?;
        let (me, it) = (&caller.creds, task.creds());
        let user = [it.euid, it.ruid, it.suid].iter().all(|id| *id == me.fsuid);
        let group = [it.egid, it.rgid, it.sgid].iter().all(|id| *id == me.fsgid);
        let fewer = me.user_ns == it.user_ns && it.permitted & !me.effective == 0;
        let open = task.group().dumpable.load(Ordering::Relaxed) == 1 && fewer;
        let own = caller.task.is_some_and(|t| t.pid() == task.pid());
        let may = (user && group && open) || me.capable_in(&it.user_ns, cap::SYS_PTRACE);
        if own || (may && landlock::may_look_into(me.domain.as_deref(), it.domain.as_deref())) {
            Ok(task)
        } else {
            Err(Errno::EACCES)
        }
    }
}

fn text(s: String) -> Result<Vec<u8>, Errno> {
    Ok(s.into_bytes())
}

type Maker = fn(&Subject, &Caller<'_>) -> Result<Vec<u8>, Errno>;

const FILES: &[(&str, u32, Maker)] = &[
    ("stat", 0o444, stat),
    ("statm", 0o444, statm),
    ("status", 0o444, status),
    ("cmdline", 0o444, cmdline),
    ("environ", 0o400, environ),
    ("auxv", 0o400, auxv),
    ("comm", 0o644, comm),
    ("maps", 0o444, maps),
    ("smaps", 0o444, smaps),
    ("smaps_rollup", 0o444, smaps_rollup),
    ("numa_maps", 0o444, numa_maps),
    ("limits", 0o444, limits),
    ("oom_score", 0o444, oom_score),
    ("oom_score_adj", 0o644, oom_score_adj),
    ("oom_adj", 0o644, oom_adj),
    ("coredump_filter", 0o644, coredump_filter),
    ("personality", 0o400, personality),
    ("loginuid", 0o644, loginuid),
    ("sessionid", 0o444, sessionid),
    ("timerslack_ns", 0o666, timerslack),
    ("clear_refs", 0o200, nothing),
    ("pagemap", 0o400, nothing),
    ("stack", 0o400, stack),
    ("sched", 0o644, sched),
    ("schedstat", 0o444, schedstat),
    ("timers", 0o444, timers),
    ("children", 0o444, children),
    ("cpuset", 0o444, cpuset),
    ("cgroup", 0o444, cgroup),
    ("uid_map", 0o644, uid_map),
    ("gid_map", 0o644, gid_map),
    ("projid_map", 0o644, projid_map),
    ("setgroups", 0o644, setgroups),
    ("wchan", 0o444, wchan),
    ("io", 0o400, io),
    ("mounts", 0o444, mounts),
    ("mountinfo", 0o444, mountinfo),
    ("mountstats", 0o400, mountstats),
];

/// Files that are copied from what there is: their end can be sought.
const COPIED: &[&str] = &[
    "auxv",
    "clear_refs",
    "cmdline",
    "coredump_filter",
    "environ",
    "loginuid",
    "oom_adj",
    "oom_score_adj",
    "sessionid",
];

/// Files that only a process has, and those that only a thread has.
const OF_PROCESS: &[&str] = &["task", "map_files", "timerslack_ns", "timers", "mountstats", "coredump_filter"];
const OF_THREAD: &[&str] = &["children"];

/// Whether a process (or a thread of it) has that file.
fn has(thread: bool, name: &str) -> bool {
    !(if thread { OF_PROCESS } else { OF_THREAD }).contains(&name)
}

/// A process's memory, for who may trace it.
const MEM: &str = "mem";

const LINKS: &[&str] = &["exe", "cwd", "root"];
const DIRS: &[&str] = &["fd", "fdinfo", "task", "ns", "net", "map_files", "attr"];

fn node(fs: &Arc<PseudoFs>, s: &Subject, permissions: u32, body: Body) -> InodeRef {
    named(fs, s, "", permissions, body)
}

/// As [`node`], for a file of that name: some may be opened only by who may look into the process.
fn named(fs: &Arc<PseudoFs>, s: &Subject, which: &str, permissions: u32, body: Body) -> Arc<PseudoNode> {
    let (alive, owner, looked) = (s.clone(), s.clone(), s.clone());
    let fs = fs.styled(if COPIED.contains(&which) { Style::ProcessCopied } else { Style::Process });
    let gate: Option<Gate> = match which {
        "smaps_rollup" => Some(Box::new(move |caller| looked.check(caller).map(|_| ()))),
        "maps" | "smaps" | "numa_maps" => Some(Box::new(move |caller| looked.open_to(caller).map(|_| ()))),
        "environ" | "auxv" => Some(Box::new(move |caller| looked.check(caller).map(|_| ()))),
        // Frames of the host's memory are nobody's business here.
        "pagemap" => Some(Box::new(move |_| Err(Errno::EPERM))),
        // Who has ended sees no mounts.
        "mounts" | "mountinfo" | "mountstats" => {
            Some(Box::new(move |_| looked.task().map(|_| ()).map_err(|_| Errno::EINVAL)))
        }
        _ => None,
    };
    PseudoNode::of_task(
        &fs,
        permissions,
        body,
        move || {
            let tree = alive.kernel.tree.lock();
            let there = tree.group(alive.group.pid).is_some_and(|g| Arc::ptr_eq(&g, &alive.group));
            there && alive.tid.is_none_or(|t| tree.task(t).is_some())
        },
        // What nobody may look into is root's, but for the directories that all may search.
        move || match owner.task() {
            Ok(t) if permissions == 0o555 || t.group().dumpable.load(Ordering::Relaxed) == 1 => {
                (t.creds().euid, t.creds().egid)
            }
            _ => (0, 0),
        },
        gate,
    )
}

fn memory_file(fs: &Arc<PseudoFs>, s: &Subject) -> InodeRef {
    let of = s.clone();
    let open = move |caller: &Caller<'_>| -> Result<Box<dyn FileOps>, Errno> {
        let task = of.check(caller)?;
        Ok(Box::new(MemFile::new(&task)))
    };
    node(fs, s, 0o600, Body::Special(Box::new(open)))
}

fn threads(fs: &Arc<PseudoFs>, s: &Subject) -> InodeRef {
    let (a, b, f) = (s.clone(), s.clone(), fs.clone());
    let list = move |_: &Caller<'_>| {
        let tasks = a.group.tasks();
        let entry = |t: i32| entry(t.to_string(), t as u64, FileType::Directory);
        Ok(tasks.iter().map(|t| entry(a.pids.shown(t.tid()))).collect())
    };
    let find = move |_: &Caller<'_>, name: &[u8]| {
        let Some(tid) = number(name).map(|n| b.pids.id(n)) else { return Ok(None) };
        if !b.group.tasks().iter().any(|t| t.tid() == tid) {
            return Ok(None);
        }
        Ok(directory(&f, &b.kernel, &b.pids, b.group.pid, Some(tid)))
    };
    let of = s.group.clone();
    let count = move || 2 + of.tasks().len() as u64;
    named(fs, s, "", 0o555, Body::Dynamic(Vec::new(), Box::new(list), Box::new(find))).linked(count)
}

/// The directory of a process, or of one of its threads; `None` if it is gone.
pub fn directory(
    fs: &Arc<PseudoFs>,
    kernel: &Arc<Kernel>,
    pids: &Arc<PidNamespace>,
    pid: i32,
    tid: Option<i32>,
) -> Option<InodeRef> {
    let (group, of) = {
        let tree = kernel.tree.lock();
        match tree.group(pid) {
            Some(g) => (g, tid),
            // A thread's id works too, though it is not listed.
            None => (tree.task(pid)?.group().clone(), Some(pid)),
        }
    };
    let s = Subject { kernel: kernel.clone(), pids: pids.clone(), group, tid: of };
    let list = move |_: &Caller<'_>| {
        let files = FILES.iter().filter(|f| has(tid.is_some(), f.0)).map(|f| entry(f.0, 1, FileType::Regular));
        let mem = [entry(MEM, 1, FileType::Regular)];
        let links = LINKS.iter().map(|l| entry(*l, 1, FileType::Link));
        let dirs = DIRS.iter().filter(|d| has(tid.is_some(), d)).map(|d| entry(*d, 1, FileType::Directory));
        Ok(files.chain(mem).chain(links).chain(dirs).collect())
    };
    let (a, f) = (s.clone(), fs.clone());
    let find = move |_: &Caller<'_>, name: &[u8]| -> Result<Option<InodeRef>, Errno> {
        if let Some((name, bits, make)) = FILES.iter().find(|e| e.0.as_bytes() == name && has(tid.is_some(), e.0)) {
            let of = a.clone();
            let text = move |caller: &Caller<'_>| make(&of, caller);
            return Ok(Some(named(&f, &a, name, *bits, Body::Text(Box::new(text), taker(&a, name)))));
        }
        if name == MEM.as_bytes() {
            return Ok(Some(memory_file(&f, &a)));
        }
        if let Some(which) = LINKS.iter().find(|l| l.as_bytes() == name) {
            return Ok(Some(link(&f, &a, which)));
        }
        Ok(match name {
            b"fd" => Some(descriptors(&f, &a, false)),
            b"fdinfo" => Some(descriptors(&f, &a, true)),
            b"task" if tid.is_none() => Some(threads(&f, &a)),
            b"map_files" if tid.is_none() => Some(map_files(&f, &a)),
            b"attr" => Some(attr(&f, &a)),
            b"ns" => Some(namespaces(&f, &a)),
            b"net" => Some(net(&f, &a)),
            _ => None,
        })
    };
    let links = 2 + DIRS.iter().filter(|d| has(tid.is_some(), d)).count() as u64;
    let body = Body::Dynamic(Vec::new(), Box::new(list), Box::new(find));
    let made = named(fs, &s, "", 0o555, body).linked(move || links);
    Some(if tid.is_none() { made.of_process(&s.group) } else { made })
}
