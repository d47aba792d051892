//! What a process is and does: `stat`, `statm`, `status`, `comm`, `children`.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use super::memory::Memory;
use super::{Subject, text};
use crate::errno::Errno;
use crate::filesystems::sys::cpu_mask;
use crate::memory::store::PAGE;
use crate::signal::sig;
use crate::syscalls::sched::{allowed, cpu_list};
use crate::task::group::{Life, rlimit};
use crate::time::NS;
use crate::vfs::caller::Caller;

pub(super) fn stat(s: &Subject, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let [parent, pgid, sid] = s.family();
    let (session, exit_signal) = {
        let tree = s.kernel.tree.lock();
        tree.node(s.group.pid).map_or((0, sig::CHLD), |n| {
            // The first process has nobody to tell here, and would tell as others do.
            let signal = if n.parent == 0 { sig::CHLD } else { n.exit_signal };
            (n.sid, signal)
        })
    };
    let task = s.task().ok();
    let memory = task.as_deref().map(Memory::of).unwrap_or_default();
    // Addresses, and how it ended, are for who may look into it.
    let open = s.check(caller).err() != Some(Errno::EACCES);
    let ended = match *s.group.life.lock() {
        Life::Zombie(status) => status,
        _ => 0,
    };
    let layout = task.as_ref().filter(|_| open).map(|t| t.mm().layout()).unwrap_or_default();
    let hidden = u64::from(task.is_some() && !open);
    let nice = s.group.nice.load(Ordering::Relaxed);
    let tty = crate::ipc::tty::number_of_session(session);
    let fg = crate::ipc::tty::foreground_of_session(session);
    let fg = if fg > 0 { s.pids.shown(fg) } else { fg };
    let ticks = |ns: i64| ns / (NS / 100);
    let start = ticks(s.group.start_time.saturating_sub(s.kernel.booted));
    let usage = s.usage();
    let children = *s.group.children_usage.lock();
    let (blocked, ignored, caught, pending, policy) = task.as_ref().map_or((0, 0, 0, 0, 0), |t| {
        let (ignored, caught) = t.actions().lock().sets();
        let pending = t.pending.lock().set().0;
        (t.mask().0, ignored.0, caught.0, pending, t.state.lock().schedule.policy)
    });
    // Of the signals it shows what fits in 31 bits.
    let few = |set: u64| set & 0x7fff_ffff;
    let waits = task.as_ref().map_or(0, |t| u64::from(!t.counters.is_ready()));
    let mut out = format!("{} (", s.pids.shown(s.id())).into_bytes();
    out.extend_from_slice(&s.name());
    let rest = format!(
        ") {} {parent} {pgid} {sid} {tty} {fg} 4194304 {} {} 0 0 {} {} {} {} {} {nice} {} 0 {start} {} {} \
         {} {} {} {} 0 0 {} {} {} {} {waits} 0 0 {exit_signal} 0 0 {policy} 0 0 0 {} {} {} {} {} {} {} {}\n",
        s.state().0,
        usage.counted.faults,
        children.counted.faults,
        ticks(usage.user),
        ticks(usage.system),
        ticks(children.user),
        ticks(children.system),
        20 + nice,
        s.group.tasks().len().max(1),
        memory.total,
        memory.touched() / PAGE,
        s.group.limit(rlimit::RSS).soft,
        layout.code.0.max(hidden),
        layout.code.1.max(hidden),
        layout.start_stack,
        few(pending),
        few(blocked),
        few(ignored),
        few(caught),
        layout.data.0,
        layout.data.1,
        layout.brk.0,
        layout.args.0,
        layout.args.1,
        layout.env.0,
        layout.env.1,
        if open { ended } else { 0 },
    );
    out.extend_from_slice(rest.as_bytes());
    Ok(out)
}

pub(super) fn statm(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let m = s.task().as_deref().map(Memory::of).unwrap_or_default();
    let [total, touched, object, code, data] =
        [m.total, m.touched(), m.file + m.shared, m.code, m.data + m.stack].map(|bytes| bytes / PAGE);
    text(format!("{total} {touched} {object} {code} 0 {data} 0\n"))
}

pub(super) fn status(s: &Subject, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let task = s.task().ok();
    let c = match &task {
        Some(t) => t.creds(),
        None => s.group.epitaph.lock().as_ref().map(|e| e.1.clone()).ok_or(Errno::ESRCH)?,
    };
    let [parent, ..] = s.family();
    let (pgid, sid) = s.kernel.tree.lock().node(s.group.pid).map_or((0, 0), |n| (n.pgid, n.sid));
    let state = s.state();
    let tracer = task.as_ref().map_or(0, |t| t.tracer());
    let me = &caller.creds;
    let groups = c.groups.iter().map(|g| me.shown_gid(*g).to_string()).collect::<Vec<_>>().join(" ");
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
    let (tgid, pid, tracer) = (s.pids.shown(s.group.pid), s.pids.shown(s.id()), s.pids.shown(tracer));
    writeln!(t, "Tgid:\t{tgid}\nNgid:\t0\nPid:\t{pid}\nPPid:\t{parent}\nTracerPid:\t{tracer}").ok();
    let [r, e, saved, f] = [c.ruid, c.euid, c.suid, c.fsuid].map(|id| me.shown_uid(id));
    writeln!(t, "Uid:\t{r}\t{e}\t{saved}\t{f}").ok();
    let [r, e, saved, f] = [c.rgid, c.egid, c.sgid, c.fsgid].map(|id| me.shown_gid(id));
    writeln!(t, "Gid:\t{r}\t{e}\t{saved}\t{f}").ok();
    let slots = task.as_ref().map_or(0, |t| t.files().size());
    writeln!(t, "FDSize:\t{slots}\nGroups:\t{groups} ").ok();
    writeln!(t, "NStgid:\t{}\nNSpid:\t{}", s.numbers(s.group.pid), s.numbers(s.id())).ok();
    writeln!(t, "NSpgid:\t{}\nNSsid:\t{}\nKthread:\t0", s.numbers(pgid), s.numbers(sid)).ok();
    if let Some(task) = &task {
        let m = Memory::of(task);
        let tables = (m.touched() / PAGE * 8).next_multiple_of(PAGE);
        for (name, v) in [
            ("VmPeak", m.peak),
            ("VmSize", m.total),
            ("VmLck", m.locked),
            ("VmPin", 0),
            ("VmHWM", s.group.saw_resident(m.touched())),
            ("VmRSS", m.touched()),
            ("RssAnon", m.anonymous),
            ("RssFile", m.file),
            ("RssShmem", m.shared),
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
    let (pending, mut queued) = task.as_ref().map_or((0, 0), |t| {
        let pending = t.pending.lock();
        (pending.set().0, pending.count())
    });
    let shared = {
        let pending = s.group.pending.lock();
        queued += pending.count();
        pending.set().0
    };
    let most = s.group.limit(rlimit::SIGPENDING).soft;
    writeln!(t, "SigQ:\t{queued}/{most}\nSigPnd:\t{pending:016x}\nShdPnd:\t{shared:016x}").ok();
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
    writeln!(t, "NoNewPrivs:\t{}", i32::from(c.no_new_privileges)).ok();
    let (mode, filters) = task.as_ref().map_or((0, 0), |t| (t.seccomp.mode() as u8, t.seccomp.count()));
    writeln!(t, "Seccomp:\t{mode}\nSeccomp_filters:\t{filters}").ok();
    // What the processor does is not looked into.
    writeln!(t, "Speculation_Store_Bypass:\tunknown\nSpeculationIndirectBranch:\tunknown").ok();
    let cpus = allowed(task.as_deref());
    writeln!(t, "Cpus_allowed:\t{}\nCpus_allowed_list:\t{}", cpu_mask(&cpus), cpu_list(&cpus)).ok();
    let waits = s.usage().counted.waits;
    // One node of the 1,024 there may be.
    let nodes = "00000000,".repeat(31);
    writeln!(t, "Mems_allowed:\t{nodes}00000001\nMems_allowed_list:\t0\nvoluntary_ctxt_switches:\t{waits}").ok();
    // The host does not tell how often it put others before it.
    writeln!(t, "nonvoluntary_ctxt_switches:\t0").ok();
    out.extend_from_slice(t.as_bytes());
    Ok(out)
}

/// The children of a process, which are all its first thread's.
pub(super) fn children(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    if s.id() != s.group.pid {
        return Ok(Vec::new());
    }
    let tree = s.kernel.tree.lock();
    let all = tree.node(s.group.pid).map(|n| n.children.iter().map(|c| format!("{} ", s.pids.shown(*c))).collect());
    text(all.unwrap_or_default())
}

pub(super) fn comm(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let mut c = s.name();
    c.push(b'\n');
    Ok(c)
}
