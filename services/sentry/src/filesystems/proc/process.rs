//! `/proc/PID` and `/proc/PID/task/TID`.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::errno::Errno;
use crate::filesystems::proc::{entry, number};
use crate::filesystems::pseudo::{Body, Gate, PseudoFs, PseudoNode, Take, fixed};
use crate::filesystems::sys::processors;
use crate::kernel::Kernel;
use crate::memory::store::PAGE;
use crate::memory::vma::Backing;
use crate::task::creds::cap;
use crate::task::group::Life;
use crate::task::{Group, Task};
use crate::time::NS;
use crate::vfs::caller::Caller;
use crate::vfs::file::flags;
use crate::vfs::inode::{FileSystem, FileType, InodeRef, Link, split_dev};
use crate::vfs::mount::{Mount, MountFlags, PathRef};

/// A process, or one of its threads.
#[derive(Clone)]
struct Subject {
    kernel: Arc<Kernel>,
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

    fn state(&self) -> (char, &'static str) {
        if matches!(*self.group.life.lock(), Life::Zombie(_)) {
            return ('Z', "zombie");
        }
        if self.group.stopped.load(Ordering::Relaxed) {
            return ('T', "stopped");
        }
        match self.task() {
            Ok(t) if t.is_blocked() => ('S', "sleeping"),
            Ok(_) => ('R', "running"),
            Err(_) => ('Z', "zombie"),
        }
    }

    /// EACCES unless the caller may look into the process.
    fn check(&self, caller: &Caller<'_>) -> Result<Arc<Task>, Errno> {
        let task = self.task()?;
        let (me, it) = (&caller.creds, task.creds());
        let user = [it.euid, it.ruid, it.suid].iter().all(|id| *id == me.fsuid);
        let group = [it.egid, it.rgid, it.sgid].iter().all(|id| *id == me.fsgid);
        let open = task.group().dumpable.load(Ordering::Relaxed) == 1 && it.permitted & !me.effective == 0;
        let own = caller.task.is_some_and(|t| t.pid() == task.pid());
        if own || (user && group && open) || me.capable(cap::SYS_PTRACE) { Ok(task) } else { Err(Errno::EACCES) }
    }
}

/// What a process's memory is made of, bytes.
#[derive(Default)]
struct Memory {
    total: u64,
    /// Touched, as far as that is known: without and with a file or shared memory behind it.
    anonymous: u64,
    object: u64,
    /// Private and writable.
    data: u64,
    stack: u64,
    /// The program's own code, and others'.
    code: u64,
    library: u64,
}

impl Memory {
    fn of(task: &Task) -> Self {
        let mm = task.mm();
        let (from, to) = mm.layout().code;
        let page = |a: u64| a & !(PAGE - 1);
        let mut m = Self { code: page(to.saturating_add(PAGE - 1)).saturating_sub(page(from)), ..Self::default() };
        for a in mm.areas() {
            m.total += a.len();
            let touched: u64 = a.mapped_parts(a.start, a.end).iter().map(|(x, y)| y - x).sum();
            let object = matches!(a.backing, Backing::Object { .. });
            *(if object { &mut m.object } else { &mut m.anonymous }) += touched;
            match (a.name == "[stack]", a.prot & 2 != 0 && !a.shared, a.prot & 4 != 0 && object) {
                (true, ..) => m.stack += a.len(),
                (_, true, _) => m.data += a.len(),
                (_, _, true) => m.library += a.len(),
                _ => {}
            }
        }
        m.library = m.library.saturating_sub(m.code);
        m
    }

    fn touched(&self) -> u64 {
        self.anonymous + self.object
    }
}

fn text(s: String) -> Result<Vec<u8>, Errno> {
    Ok(s.into_bytes())
}

fn stat(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let (parent, pgid, sid) = {
        let tree = s.kernel.tree.lock();
        tree.node(s.group.pid).map_or((0, 0, 0), |n| (n.parent, n.pgid, n.sid))
    };
    let task = s.task().ok();
    let comm = s.name();
    let memory = task.as_deref().map(Memory::of).unwrap_or_default();
    let (vsize, rss) = (memory.total, memory.touched());
    let ended = match *s.group.life.lock() {
        Life::Zombie(status) => status,
        _ => 0,
    };
    let layout = task.as_ref().map(|t| t.mm().layout());
    let l = |f: &dyn Fn(&crate::memory::space::Layout) -> u64| layout.as_ref().map_or(0, f);
    let nice = s.group.nice.load(Ordering::Relaxed);
    let tty = crate::ipc::tty::number_of_session(sid);
    let mut out = format!("{} (", s.id()).into_bytes();
    out.extend_from_slice(&comm);
    let fg = crate::ipc::tty::foreground_of_session(sid);
    let start = s.group.start_time.saturating_sub(s.kernel.booted) / (NS / 100);
    let cpu = s.group.final_usage.lock().cpu / (NS / 100);
    let rest = format!(
        ") {} {parent} {pgid} {sid} {tty} {fg} 4194560 0 0 0 0 {cpu} 0 0 0 {} {nice} {} 0 {start} {vsize} {} \
         18446744073709551615 {} {} {} 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 {} {} {} {} {} {} {} {ended}\n",
        s.state().0,
        20 + nice,
        s.group.tasks().len().max(1),
        rss / PAGE,
        l(&|l| l.code.0),
        l(&|l| l.code.1),
        l(&|l| l.start_stack),
        l(&|l| l.data.0),
        l(&|l| l.data.1),
        l(&|l| l.brk.0),
        l(&|l| l.args.0),
        l(&|l| l.args.1),
        l(&|l| l.env.0),
        l(&|l| l.env.1),
    );
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

fn statm(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let m = s.task().as_deref().map(Memory::of).unwrap_or_default();
    let [total, touched, object, code, data] =
        [m.total, m.touched(), m.object, m.code, m.data + m.stack].map(|bytes| bytes / PAGE);
    text(format!("{total} {touched} {object} {code} 0 {data} 0\n"))
}

fn status(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let task = s.task().ok();
    let c = match &task {
        Some(t) => t.creds(),
        None => s.group.epitaph.lock().as_ref().map(|e| e.1.clone()).ok_or(Errno::ESRCH)?,
    };
    let (parent, pgid, sid) = {
        let tree = s.kernel.tree.lock();
        tree.node(s.group.pid).map_or((0, 0, 0), |n| (n.parent, n.pgid, n.sid))
    };
    let state = s.state();
    let groups = c.groups.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let mut out = b"Name:\t".to_vec();
    for b in s.name() {
        match b {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b => out.push(b),
        }
    }
    let mut t = String::new();
    let umask = task.as_ref().map(|t| format!("Umask:\t{:04o}\n", t.fs().umask())).unwrap_or_default();
    writeln!(t, "\n{umask}State:\t{} ({})", state.0, state.1).ok();
    writeln!(t, "Tgid:\t{}\nNgid:\t0\nPid:\t{}\nPPid:\t{parent}\nTracerPid:\t0", s.group.pid, s.id()).ok();
    writeln!(t, "Uid:\t{}\t{}\t{}\t{}", c.ruid, c.euid, c.suid, c.fsuid).ok();
    writeln!(t, "Gid:\t{}\t{}\t{}\t{}", c.rgid, c.egid, c.sgid, c.fsgid).ok();
    let slots = task.as_ref().map_or(0, |t| t.files().size());
    writeln!(t, "FDSize:\t{slots}\nGroups:\t{groups} \nNStgid:\t{}\nNSpid:\t{}", s.group.pid, s.id()).ok();
    writeln!(t, "NSpgid:\t{pgid}\nNSsid:\t{sid}\nKthread:\t0").ok();
    if let Some(task) = &task {
        let m = Memory::of(task);
        let tables = (m.touched() / PAGE * 8).next_multiple_of(PAGE);
        for (name, v) in [
            ("VmPeak", m.total),
            ("VmSize", m.total),
            ("VmLck", 0),
            ("VmPin", 0),
            ("VmHWM", m.touched()),
            ("VmRSS", m.touched()),
            ("RssAnon", m.anonymous),
            ("RssFile", m.object),
            ("RssShmem", 0),
            ("VmData", m.data),
            ("VmStk", m.stack),
            ("VmExe", m.code),
            ("VmLib", m.library),
            ("VmPTE", tables),
            ("VmSwap", 0),
            ("HugetlbPages", 0),
        ] {
            writeln!(t, "{name}:\t{:>8} kB", v / 1024).ok();
        }
        let huge = i32::from(s.group.thp_disabled.load(Ordering::Relaxed) == 0);
        writeln!(t, "CoreDumping:\t0\nTHP_enabled:\t{huge}\nuntag_mask:\t0xffffffffffffffff").ok();
    }
    writeln!(t, "Threads:\t{}", s.group.tasks().len().max(1)).ok();
    let pending = task.as_ref().map_or(0, |t| t.pending.lock().set().0);
    writeln!(t, "SigQ:\t0/65536\nSigPnd:\t{pending:016x}\nShdPnd:\t{:016x}", s.group.pending.lock().set().0).ok();
    let mask = task.as_ref().map_or(0, |t| t.mask().0);
    let (ignored, caught) = task.as_ref().map_or((0, 0), |t| {
        let (i, c) = t.actions().lock().sets();
        (i.0, c.0)
    });
    writeln!(t, "SigBlk:\t{mask:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}").ok();
    for (name, v) in [
        ("CapInh", c.inheritable),
        ("CapPrm", c.permitted),
        ("CapEff", c.effective),
        ("CapBnd", c.bounding),
        ("CapAmb", c.ambient),
    ] {
        writeln!(t, "{name}:\t{v:016x}").ok();
    }
    writeln!(t, "NoNewPrivs:\t{}\nSeccomp:\t0\nSeccomp_filters:\t0", i32::from(c.no_new_privileges)).ok();
    // What the processor does is not looked into.
    writeln!(t, "Speculation_Store_Bypass:\tunknown\nSpeculationIndirectBranch:\tunknown").ok();
    let cpus = processors();
    writeln!(t, "Cpus_allowed:\t{:x}\nCpus_allowed_list:\t0-{}", (1u128 << cpus.min(127)) - 1, cpus - 1).ok();
    writeln!(t, "Mems_allowed:\t1\nMems_allowed_list:\t0\nvoluntary_ctxt_switches:\t0\nnonvoluntary_ctxt_switches:\t0")
        .ok();
    out.extend_from_slice(t.as_bytes());
    Ok(out)
}

/// Bytes of the process's memory between two addresses, as far as they can be read.
fn memory(task: &Task, (from, to): (u64, u64)) -> Vec<u8> {
    let len = usize::try_from(to.saturating_sub(from)).unwrap_or(0).min(1 << 21);
    let mut v = vec![0; len];
    let n = task.read_memory(from, &mut v).unwrap_or(0);
    v.truncate(n);
    v
}

fn cmdline(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let Ok(task) = s.task() else { return Ok(Vec::new()) };
    let range = task.mm().layout().args;
    Ok(memory(&task, range))
}

fn environ(s: &Subject, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let Some(task) = s.open_to(caller)? else { return Ok(Vec::new()) };
    let range = task.mm().layout().env;
    Ok(memory(&task, range))
}

fn auxv(s: &Subject, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    Ok(s.open_to(caller)?.map(|t| t.mm().layout().auxv).unwrap_or_default())
}

fn comm(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let mut c = s.name();
    c.push(b'\n');
    Ok(c)
}

fn maps(s: &Subject, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    areas(s, caller, false)
}

fn smaps(s: &Subject, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    areas(s, caller, true)
}

fn areas(s: &Subject, caller: &Caller<'_>, long: bool) -> Result<Vec<u8>, Errno> {
    let Some(task) = s.open_to(caller)? else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    // What the platform maps into every process; the areas are in order, and it among them.
    let mut vdso = task.kernel().platform.get().map(|p| p.vdso()).filter(|(at, len)| *at != 0 && *len != 0);
    for a in task.mm().areas() {
        if let Some((at, len)) = vdso.take_if(|(at, _)| *at < a.start) {
            out.extend_from_slice(&vdso_line(at, len));
        }
        let (offset, (dev, ino), path) = match &a.backing {
            Backing::Object { object, offset, .. } => (*offset, object.identity(), object.path()),
            _ => (0, (0, 0), a.name.as_bytes().to_vec()),
        };
        let bit = |m: i32, c: char| if a.prot & m != 0 { c } else { '-' };
        let (major, minor) = split_dev(dev);
        let line = format!(
            "{:x}-{:x} {}{}{}{} {offset:08x} {major:02x}:{minor:02x} {ino} ",
            a.start,
            a.end,
            bit(1, 'r'),
            bit(2, 'w'),
            bit(4, 'x'),
            if a.shared { 's' } else { 'p' },
        );
        let start = out.len();
        out.extend_from_slice(line.as_bytes());
        if !path.is_empty() {
            out.resize(out.len().max(start + 73), b' ');
            for b in path {
                // As Linux shows it: a newline in a name must not look like another line.
                if b == b'\n' { out.extend_from_slice(b"\\012") } else { out.push(b) }
            }
        }
        out.push(b'\n');
        if long {
            let rss: u64 = a.mapped_parts(a.start, a.end).iter().map(|(x, y)| (y - x) / 1024).sum();
            let mut t = String::new();
            for (name, kb) in [
                ("Size", a.len() / 1024),
                ("KernelPageSize", 4),
                ("MMUPageSize", 4),
                ("Rss", rss),
                ("Pss", rss),
                ("Pss_Dirty", rss),
                ("Shared_Clean", 0),
                ("Shared_Dirty", 0),
                ("Private_Clean", 0),
                ("Private_Dirty", rss),
                ("Referenced", rss),
                ("Anonymous", rss),
                ("KSM", 0),
                ("LazyFree", 0),
                ("AnonHugePages", 0),
                ("ShmemPmdMapped", 0),
                ("FilePmdMapped", 0),
                ("Shared_Hugetlb", 0),
                ("Private_Hugetlb", 0),
                ("Swap", 0),
                ("SwapPss", 0),
                ("Locked", 0),
            ] {
                writeln!(t, "{:<16}{kb:>8} kB", format!("{name}:")).ok();
            }
            writeln!(
                t,
                "THPeligible:           0\nVmFlags: {}{}",
                if a.prot & 1 != 0 { "rd " } else { "" },
                if a.prot & 2 != 0 { "wr" } else { "" }
            )
            .ok();
            out.extend_from_slice(t.as_bytes());
        }
    }
    if let Some((at, len)) = vdso {
        out.extend_from_slice(&vdso_line(at, len));
    }
    Ok(out)
}

fn vdso_line(at: u64, len: u64) -> Vec<u8> {
    let head = format!("{at:x}-{:x} r-xp 00000000 00:00 0 ", at.saturating_add(len));
    format!("{head:<73}[vdso]\n").into_bytes()
}

const LIMIT_NAMES: [(&str, &str); 16] = [
    ("Max cpu time", "seconds"),
    ("Max file size", "bytes"),
    ("Max data size", "bytes"),
    ("Max stack size", "bytes"),
    ("Max core file size", "bytes"),
    ("Max resident set", "bytes"),
    ("Max processes", "processes"),
    ("Max open files", "files"),
    ("Max locked memory", "bytes"),
    ("Max address space", "bytes"),
    ("Max file locks", "locks"),
    ("Max pending signals", "signals"),
    ("Max msgqueue size", "bytes"),
    ("Max nice priority", ""),
    ("Max realtime priority", ""),
    ("Max realtime timeout", "us"),
];

fn limits(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let mut t = format!("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    let show = |n: u64| if n == u64::MAX { String::from("unlimited") } else { n.to_string() };
    for (i, (name, unit)) in LIMIT_NAMES.iter().enumerate() {
        let l = s.group.limit(i);
        writeln!(t, "{name:<25} {:<20} {:<20} {unit:<10}", show(l.soft), show(l.hard)).ok();
    }
    text(t)
}

fn oom_score(_: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    text(String::from("666\n"))
}

fn oom_score_adj(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    text(format!("{}\n", s.group.oom_score_adj.load(Ordering::Relaxed)))
}

fn cgroup(_: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    text(String::from("0::/\n"))
}

fn id_map(_: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    text(String::from("         0          0 4294967295\n"))
}

fn setgroups(_: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    text(String::from("allow\n"))
}

fn wchan(_: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    text(String::from("0"))
}

fn io(s: &Subject, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    s.open_to(caller)?;
    text(String::from(
        "rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n",
    ))
}

fn escape(path: &[u8]) -> String {
    let mut s = String::new();
    for b in path {
        match b {
            b' ' | b'\t' | b'\n' | b'\\' => {
                write!(s, "\\{b:03o}").ok();
            }
            _ => s.push(char::from(*b)),
        }
    }
    s
}

fn options(m: &Mount) -> String {
    let f = m.flags();
    let mut o = String::from(if f.contains(MountFlags::READ_ONLY) { "ro" } else { "rw" });
    for (flag, name) in [
        (MountFlags::NO_SUID, ",nosuid"),
        (MountFlags::NO_DEV, ",nodev"),
        (MountFlags::NO_EXEC, ",noexec"),
        (MountFlags::NO_ATIME, ",noatime"),
        (MountFlags::NO_DIRATIME, ",nodiratime"),
        (MountFlags::RELATIME, ",relatime"),
    ] {
        if f.contains(flag) {
            o.push_str(name);
        }
    }
    o
}

fn super_options(fs: &dyn FileSystem) -> String {
    let o = fs.options();
    if o.is_empty() { o } else { format!(",{o}") }
}

/// Each mount that can be seen from the process's root, with its path from there.
fn seen(s: &Subject) -> Result<Vec<(Arc<Mount>, String)>, Errno> {
    let fs = s.task()?.fs();
    let root = fs.root();
    let path = |m: Arc<Mount>| {
        let (p, reached) = PathRef::root_of(&m).path_from(&root);
        reached.then(|| (m, escape(&p)))
    };
    Ok(fs.namespace().mounts().into_iter().filter_map(path).collect())
}

fn mounts(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let mut t = String::new();
    for (m, path) in seen(s)? {
        let more = super_options(&*m.fs);
        writeln!(t, "{} {path} {} {}{more} 0 0", escape(&m.source), m.fs.name(), options(&m)).ok();
    }
    text(t)
}

fn mountinfo(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let mut t = String::new();
    for (m, path) in seen(s)? {
        let (major, minor) = split_dev(m.fs.dev());
        let parent = m.parent().map_or(m.id, |p| p.mount.id);
        let source = escape(&m.source);
        let (opts, kind, more) = (options(&m), m.fs.name(), super_options(&*m.fs));
        let way = if m.all_read_only() { "ro" } else { "rw" };
        let shown = escape(&m.shown());
        let how = if m.is_unbindable() { " unbindable" } else { "" };
        writeln!(t, "{} {parent} {major}:{minor} {shown} {path} {opts}{how} - {kind} {source} {way}{more}", m.id).ok();
    }
    text(t)
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
    ("limits", 0o444, limits),
    ("oom_score", 0o444, oom_score),
    ("oom_score_adj", 0o644, oom_score_adj),
    ("cgroup", 0o444, cgroup),
    ("uid_map", 0o644, id_map),
    ("gid_map", 0o644, id_map),
    ("setgroups", 0o644, setgroups),
    ("wchan", 0o444, wchan),
    ("io", 0o400, io),
    ("mounts", 0o444, mounts),
    ("mountinfo", 0o444, mountinfo),
];

const LINKS: &[&str] = &["exe", "cwd", "root"];
const DIRS: &[&str] = &["fd", "fdinfo", "task", "ns", "net"];

/// What becomes of writes to a file that takes them.
fn taker(s: &Subject, name: &str) -> Option<Take> {
    let s = s.clone();
    match name {
        "comm" => Some(Box::new(move |_, data| {
            let task = s.task()?;
            let line = data.split(|b| *b == b'\n').next().unwrap_or_default();
            *task.comm.write() = line.get(..line.len().min(15)).unwrap_or_default().to_vec();
            Ok(())
        })),
        "oom_score_adj" => Some(Box::new(move |caller, data| {
            let n: i32 =
                std::str::from_utf8(data.trim_ascii()).ok().and_then(|t| t.parse().ok()).ok_or(Errno::EINVAL)?;
            if !(-1000..=1000).contains(&n) {
                return Err(Errno::EINVAL);
            }
            if n < s.group.oom_score_adj.load(Ordering::Relaxed) && !caller.creds.capable(cap::SYS_RESOURCE) {
                return Err(Errno::EACCES);
            }
            s.group.oom_score_adj.store(n, Ordering::Relaxed);
            Ok(())
        })),
        _ => None,
    }
}

fn node(fs: &Arc<PseudoFs>, s: &Subject, permissions: u32, body: Body) -> InodeRef {
    named(fs, s, "", permissions, body)
}

/// As [`node`], for a file of that name: some may be opened only by who may look into the process.
fn named(fs: &Arc<PseudoFs>, s: &Subject, which: &str, permissions: u32, body: Body) -> Arc<PseudoNode> {
    let (alive, owner, looked) = (s.clone(), s.clone(), s.clone());
    let gate: Option<Gate> = match which {
        "maps" | "smaps" => Some(Box::new(move |caller| looked.open_to(caller).map(|_| ()))),
        "environ" | "auxv" => Some(Box::new(move |caller| looked.check(caller).map(|_| ()))),
        // Who has ended sees no mounts.
        "mounts" | "mountinfo" => Some(Box::new(move |_| looked.task().map(|_| ()).map_err(|_| Errno::EINVAL))),
        _ => None,
    };
    PseudoNode::of_task(
        fs,
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

fn link(fs: &Arc<PseudoFs>, s: &Subject, which: &'static str) -> InodeRef {
    let place = move |s: &Subject, caller: &Caller<'_>| -> Result<PathRef, Errno> {
        let task = s.open_to(caller)?.ok_or(Errno::ENOENT)?;
        match which {
            "cwd" => Ok(task.fs().cwd()),
            "root" => Ok(task.fs().root()),
            _ => task.group().exe.read().as_ref().map(|f| f.path_ref().clone()).ok_or(Errno::ENOENT),
        }
    };
    let (a, b) = (s.clone(), s.clone());
    let text = move |caller: &Caller<'_>| Ok(place(&a, caller)?.display(&caller.fs.root()));
    let lead = move |caller: &Caller<'_>| Ok(Link::Jump(place(&b, caller)?));
    node(fs, s, 0o777, Body::Link(Box::new(text), Some(Box::new(lead))))
}

fn descriptors(fs: &Arc<PseudoFs>, s: &Subject, info: bool) -> InodeRef {
    let (a, b, f) = (s.clone(), s.clone(), fs.clone());
    let kind = if info { FileType::Regular } else { FileType::Link };
    let list = move |caller: &Caller<'_>| {
        let task = a.check(caller)?;
        Ok(task.files().all().into_iter().map(|(n, file)| entry(n.to_string(), file.id, kind)).collect())
    };
    let find = move |caller: &Caller<'_>, name: &[u8]| {
        let task = b.check(caller)?;
        let fd = if name == b"0" { Some(0) } else { number(name) };
        let Some(fd) = fd else { return Ok(None) };
        let Ok(file) = task.files().get_any(fd) else { return Ok(None) };
        let of = b.clone();
        let get = move || of.task()?.files().get_any(fd).map_err(|_| Errno::ENOENT);
        if info {
            let closing = b.clone();
            let make = move |_: &Caller<'_>| {
                let f = get()?;
                let closes = closing.task()?.files().cloexec(fd).unwrap_or(false);
                let t = format!(
                    "pos:\t{}\nflags:\t0{:o}\nmnt_id:\t{}\nino:\t{}\n{}",
                    f.position(),
                    f.flags() | if closes { flags::CLOEXEC } else { 0 },
                    f.mount().id,
                    f.inode().attr()?.ino,
                    f.ops().fdinfo()
                );
                Ok(t.into_bytes())
            };
            return Ok(Some(node(&f, &b, 0o444, Body::Text(Box::new(make), None))));
        }
        let again = get.clone();
        let text = move |caller: &Caller<'_>| Ok(get()?.path_ref().display(&caller.fs.root()));
        let lead = move |_: &Caller<'_>| Ok(Link::Jump(again()?.path_ref().clone()));
        let bits = if file.readable() { 0o500 } else { 0 } | if file.writable() { 0o300 } else { 0 };
        // As Linux shows links of descriptors, whatever they are to.
        Ok(Some(named(&f, &b, "", bits, Body::Link(Box::new(text), Some(Box::new(lead)))).of_size(64)))
    };
    node(fs, s, 0o500, Body::Dynamic(Vec::new(), Box::new(list), Box::new(find)))
}

fn threads(fs: &Arc<PseudoFs>, s: &Subject) -> InodeRef {
    let (a, b, f) = (s.clone(), s.clone(), fs.clone());
    let list = move |_: &Caller<'_>| {
        let tasks = a.group.tasks();
        Ok(tasks.iter().map(|t| entry(t.tid().to_string(), t.tid() as u64, FileType::Directory)).collect())
    };
    let find = move |_: &Caller<'_>, name: &[u8]| {
        let Some(tid) = number(name) else { return Ok(None) };
        if !b.group.tasks().iter().any(|t| t.tid() == tid) {
            return Ok(None);
        }
        Ok(directory(&f, &b.kernel, b.group.pid, Some(tid)))
    };
    node(fs, s, 0o555, Body::Dynamic(Vec::new(), Box::new(list), Box::new(find)))
}

fn namespaces(fs: &Arc<PseudoFs>, s: &Subject) -> InodeRef {
    let mut names = Vec::new();
    for (i, name) in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"].iter().enumerate() {
        let of = s.clone();
        let text = move |_: &Caller<'_>| {
            let id = match *name {
                "mnt" => of.task()?.fs().namespace().id,
                _ => 4_026_531_835 + i as u64,
            };
            Ok(format!("{name}:[{id}]").into_bytes())
        };
        names.push((name.as_bytes().to_vec(), node(fs, s, 0o777, Body::Link(Box::new(text), None))));
    }
    node(fs, s, 0o511, Body::Directory(names))
}

fn net(fs: &Arc<PseudoFs>, s: &Subject) -> InodeRef {
    let dev = "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop \
               fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n";
    let unix = "Num       RefCount Protocol Flags    Type St Inode Path\n";
    let names = vec![(b"dev".to_vec(), fixed(fs, dev)), (b"unix".to_vec(), fixed(fs, unix))];
    node(fs, s, 0o555, Body::Directory(names))
}

/// The directory of a process, or of one of its threads; `None` if it is gone.
pub fn directory(fs: &Arc<PseudoFs>, kernel: &Arc<Kernel>, pid: i32, tid: Option<i32>) -> Option<InodeRef> {
    let (group, of) = {
        let tree = kernel.tree.lock();
        match tree.group(pid) {
            Some(g) => (g, tid),
            // A thread's id works too, though it is not listed.
            None => (tree.task(pid)?.group().clone(), Some(pid)),
        }
    };
    let s = Subject { kernel: kernel.clone(), group, tid: of };
    let list = move |_: &Caller<'_>| {
        let files = FILES.iter().map(|f| entry(f.0, 1, FileType::Regular));
        let links = LINKS.iter().map(|l| entry(*l, 1, FileType::Link));
        let dirs = DIRS.iter().filter(|d| tid.is_none() || **d != "task").map(|d| entry(*d, 1, FileType::Directory));
        Ok(files.chain(links).chain(dirs).collect())
    };
    let (a, f) = (s.clone(), fs.clone());
    let find = move |_: &Caller<'_>, name: &[u8]| -> Result<Option<InodeRef>, Errno> {
        if let Some((name, bits, make)) = FILES.iter().find(|e| e.0.as_bytes() == name) {
            let of = a.clone();
            let text = move |caller: &Caller<'_>| make(&of, caller);
            return Ok(Some(named(&f, &a, name, *bits, Body::Text(Box::new(text), taker(&a, name)))));
        }
        if let Some(which) = LINKS.iter().find(|l| l.as_bytes() == name) {
            return Ok(Some(link(&f, &a, which)));
        }
        Ok(match name {
            b"fd" => Some(descriptors(&f, &a, false)),
            b"fdinfo" => Some(descriptors(&f, &a, true)),
            b"task" if tid.is_none() => Some(threads(&f, &a)),
            b"ns" => Some(namespaces(&f, &a)),
            b"net" => Some(net(&f, &a)),
            _ => None,
        })
    };
    Some(node(fs, &s, 0o555, Body::Dynamic(Vec::new(), Box::new(list), Box::new(find))))
}
