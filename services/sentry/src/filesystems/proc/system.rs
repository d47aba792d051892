//! Files of `/proc` about the whole kernel, but for what it adds up (`totals`).

use std::fmt::Write;
use std::ops::{Deref, RangeInclusive};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::errno::Errno;
use crate::filesystems::cpu;
use crate::filesystems::proc::sysctl::{self, setting};
use crate::filesystems::proc::{network_settings, totals};
use crate::filesystems::pseudo::{Body, PseudoFs, PseudoNode, Style, directory, fixed, text};
use crate::filesystems::sys::processors;
use crate::ipc::aio;
use crate::ipc::inotify;
use crate::ipc::mqueue::{HARD_MESSAGES, HARD_SIZE, Limits};
use crate::ipc::sysv::{self, sem};
use crate::kernel::Kernel;
use crate::namespaces::{IpcNamespace, Kind, PidNamespace, UtsNamespace};
use crate::task::Creds;
use crate::task::creds::cap;
use crate::vfs::caller::Caller;
use crate::vfs::dentry;
use crate::vfs::file::open_files;
use crate::vfs::inode::InodeRef;
use crate::vfs::meeting::Meeting;

const FILESYSTEMS: &str = "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tcgroup2\nnodev\tdevtmpfs\nnodev\tpipefs\n\
                           nodev\tsockfs\nnodev\tdevpts\nnodev\toverlay\nnodev\tmqueue\nnodev\t9p\n";

/// The UTS namespace of who reads or writes.
fn uts(caller: &Caller<'_>) -> Result<Arc<UtsNamespace>, Errno> {
    caller.task.map(|t| t.uts()).ok_or(Errno::ESRCH)
}

fn name(fs: &PseudoFs, domain: bool) -> InodeRef {
    let read = move |caller: &Caller<'_>| {
        let uts = uts(caller)?;
        let names = uts.names.read();
        let mut n = if domain { names.1.clone() } else { names.0.clone() };
        n.push(b'\n');
        Ok(n)
    };
    let write = move |caller: &Caller<'_>, data: &[u8]| {
        let uts = uts(caller)?;
        if !caller.creds.capable_in(&uts.base.owner, cap::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        let n = data.split(|b| *b == b'\n').next().unwrap_or_default();
        let n = n.get(..n.len().min(64)).unwrap_or_default().to_vec();
        let mut names = uts.names.write();
        *(if domain { &mut names.1 } else { &mut names.0 }) = n;
        Ok(())
    };
    PseudoNode::new(fs, 0o644, Body::Text(Box::new(read), Some(Box::new(write))))
}

/// `sys/user`: how many namespaces the users of the reader's user namespace may have.
fn user(fs: &PseudoFs) -> InodeRef {
    let mut names = Vec::new();
    for kind in Kind::ALL {
        let read = move |caller: &Caller<'_>| {
            let most = caller.creds.user_ns.limit(kind).load(Ordering::Relaxed);
            Ok(format!("{most}\n").into_bytes())
        };
        let write = move |caller: &Caller<'_>, data: &[u8]| {
            let creds = &caller.creds;
            let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
            let most: i32 = text.trim().parse().ok().filter(|n| *n >= 0).ok_or(Errno::EINVAL)?;
            creds.user_ns.limit(kind).store(most, Ordering::Relaxed);
            Ok(())
        };
        // Whoever has the right in his own namespace sets what holds there.
        let rule = |creds: &Creds| if creds.has(cap::SYS_RESOURCE) { 0o6 } else { 0o4 };
        let file = PseudoNode::ruled(fs, 0o644, Body::Text(Box::new(read), Some(Box::new(write))), rule);
        names.push((format!("max_{}_namespaces", kind.name()).into_bytes(), file as InodeRef));
    }
    PseudoNode::new(fs, 0o555, Body::Directory(names))
}

fn uuid() -> Result<Vec<u8>, Errno> {
    let mut b = [0u8; 16];
    getrandom::fill(&mut b).map_err(|_| Errno::EIO)?;
    let n = (u128::from_be_bytes(b) & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let s = format!("{n:032x}");
    let part = |a: usize, z: usize| s.get(a..z).unwrap_or_default().to_string();
    Ok(format!("{}-{}-{}-{}-{}\n", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)).into_bytes())
}

/// A limit that acts: a number in this range that may be set. `of`: which one, of who looks or sets.
fn limit<D: Deref<Target = AtomicUsize>>(
    fs: &PseudoFs,
    range: RangeInclusive<usize>,
    of: impl Fn(&Caller<'_>) -> Result<D, Errno> + Clone + Send + Sync + 'static,
) -> InodeRef {
    let set = of.clone();
    let take = move |caller: &Caller<'_>, new: &[u8]| {
        let text = std::str::from_utf8(new).map_err(|_| Errno::EINVAL)?;
        let number: usize = text.trim().parse().map_err(|_| Errno::EINVAL)?;
        if !range.contains(&number) {
            return Err(Errno::EINVAL);
        }
        set(caller)?.store(number, Ordering::Relaxed);
        Ok(())
    };
    let show = move |caller: &Caller<'_>| Ok(format!("{}\n", of(caller)?.load(Ordering::Relaxed)).into_bytes());
    PseudoNode::new(fs, 0o644, Body::Text(Box::new(show), Some(Box::new(take))))
}

/// A limit of the message queues of an IPC namespace.
fn queue_limit(fs: &PseudoFs, range: RangeInclusive<usize>, which: fn(&Limits) -> &Arc<AtomicUsize>) -> InodeRef {
    limit(fs, range, move |caller| {
        let ipc = caller.task.ok_or(Errno::ESRCH)?.ipc();
        Ok(which(&ipc.mqueues.limits).clone())
    })
}

/// A limit of System V IPC of an IPC namespace.
fn ipc_limit(fs: &PseudoFs, range: RangeInclusive<usize>, which: fn(&sysv::Limits) -> &Arc<AtomicUsize>) -> InodeRef {
    limit(fs, range, move |caller| Ok(which(&caller.task.ok_or(Errno::ESRCH)?.ipc().sysv.limits).clone()))
}

/// `shm_rmid_forced`.
fn shm_forced(fs: &PseudoFs) -> InodeRef {
    let show = |caller: &Caller<'_>| {
        let forced = caller.task.ok_or(Errno::ESRCH)?.ipc().sysv.limits.forced.load(Ordering::Relaxed);
        Ok(format!("{forced}\n").into_bytes())
    };
    let take = |caller: &Caller<'_>, new: &[u8]| {
        let forced = match new.trim_ascii() {
            b"0" => false,
            b"1" => true,
            _ => return Err(Errno::EINVAL),
        };
        sysv::shm::force(&caller.task.ok_or(Errno::ESRCH)?.ipc(), forced);
        Ok(())
    };
    PseudoNode::new(fs, 0o644, Body::Text(Box::new(show), Some(Box::new(take))))
}

/// `sem`: four limits in one.
fn semaphore_limits(fs: &PseudoFs) -> InodeRef {
    let of = |caller: &Caller<'_>| -> Result<_, Errno> {
        Ok(caller.task.ok_or(Errno::ESRCH)?.ipc().sysv.limits.semaphores.clone())
    };
    let show = move |caller: &Caller<'_>| {
        let all: Vec<String> = of(caller)?.iter().map(|n| n.load(Ordering::Relaxed).to_string()).collect();
        Ok(format!("{}\n", all.join("\t")).into_bytes())
    };
    let take = move |caller: &Caller<'_>, new: &[u8]| {
        let text = std::str::from_utf8(new).map_err(|_| Errno::EINVAL)?;
        let numbers: Result<Vec<usize>, _> = text.split_ascii_whitespace().map(str::parse).collect();
        let numbers = numbers.map_err(|_| Errno::EINVAL)?;
        // Those that are not said stay.
        if numbers.len() > 4 || numbers.iter().zip(sysv::hard::SEMAPHORES).any(|(n, most)| *n > most) {
            return Err(Errno::EINVAL);
        }
        of(caller)?.iter().zip(numbers).for_each(|(limit, n)| limit.store(n, Ordering::Relaxed));
        Ok(())
    };
    PseudoNode::new(fs, 0o644, Body::Text(Box::new(show), Some(Box::new(take))))
}

/// What seccomp filters can say, the strongest first.
fn actions() -> String {
    let names: Vec<&str> = crate::task::seccomp::action::ALL.iter().map(|(_, name)| *name).collect();
    names.join(" ") + "\n"
}

/// `fs.dentry-state`: how many names, unused ones, their age and how many more are wanted, those of nothing.
fn dentry_state() -> Vec<u8> {
    let (names, missing) = dentry::counts();
    format!("{names}\t0\t45\t0\t{missing}\t0\n").into_bytes()
}

/// `kernel.pty.nr`: terminals that there are.
fn ptys() -> Vec<u8> {
    format!("{}\n", crate::filesystems::devpts::count()).into_bytes()
}

/// `vm.drop_caches`: 1 for pages of files; what 2 stands for is never kept for long.
fn drop_caches(fs: &PseudoFs, kernel: &Arc<Kernel>) -> InodeRef {
    let held = kernel.held.clone();
    let take = move |_: &Caller<'_>, new: &[u8]| {
        let text = std::str::from_utf8(new).map_err(|_| Errno::EINVAL)?;
        let which: u32 = text.trim().parse().map_err(|_| Errno::EINVAL)?;
        if which & 1 != 0 {
            held.drop_pages();
        }
        Ok(())
    };
    let nothing = |_: &Caller<'_>| Err(Errno::EINVAL);
    PseudoNode::new(fs, 0o200, Body::Text(Box::new(nothing), Some(Box::new(take))))
}

/// `locks`: those of all files that processes have open.
fn locks(kernel: &Kernel) -> String {
    let tasks = kernel.tree.lock().tasks();
    let mut seen: Vec<Arc<Meeting>> = Vec::new();
    let mut out = String::new();
    let mut number = 0;
    for task in tasks.iter().filter(|t| t.tid() == t.pid()) {
        for (_, file) in task.files().all() {
            let inode = file.inode();
            let Some(met) = inode.met() else { continue };
            if seen.iter().any(|m| Arc::ptr_eq(m, met)) {
                continue;
            }
            seen.push(met.clone());
            let Ok(attr) = inode.attr() else { continue };
            for lock in met.locks.list() {
                number += 1;
                writeln!(out, "{number}: {}", lock.line((attr.dev, attr.ino))).ok();
            }
        }
    }
    out
}

/// `cgroups`: controllers, all of them version 2's.
fn cgroups() -> String {
    let names = ["cpuset", "cpu", "cpuacct", "blkio", "memory", "pids"];
    let lines: String = names.iter().map(|n| format!("{n}\t0\t1\t1\n")).collect();
    format!("#subsys_name\thierarchy\tnum_cgroups\tenabled\n{lines}")
}

/// `interrupts` and `softirqs`: the host's are nobody's business, and there are no others.
fn no_interrupts(first: usize) -> String {
    let cpus: String = (0..processors()).map(|c| format!("{:<11}", format!("CPU{c}"))).collect();
    format!("{:first$}{cpus}\n", "")
}

const TTY_DRIVERS: &str = "/dev/tty             /dev/tty        5       0 system:/dev/tty\n\
                           /dev/ptmx            /dev/ptmx       5       2 system\n\
                           pty_slave            /dev/pts      136 0-1048575 pty:slave\n\
                           pty_master           /dev/ptm      128 0-1048575 pty:master\n";

fn sys(fs: &PseudoFs, kernel: &Arc<Kernel>) -> InodeRef {
    let set = |v: &str| setting(fs, v);
    let boot_id = uuid().unwrap_or_default();
    let random = directory(
        fs,
        vec![
            ("boot_id", fixed(fs, boot_id)),
            ("uuid", text(fs, |_| uuid())),
            ("entropy_avail", fixed(fs, "256\n")),
            ("poolsize", fixed(fs, "256\n")),
        ],
    );
    let all = |list, mut acting: Vec<(&'static str, InodeRef)>| {
        acting.extend(sysctl::files(fs, list));
        directory(fs, acting)
    };
    let k = kernel.clone();
    let last_pid = text(fs, move |_| Ok(format!("{}\n", k.tree.lock().last_id()).into_bytes()));
    let kernel_dir = all(
        sysctl::KERNEL,
        vec![
            ("ns_last_pid", last_pid),
            ("pty", directory(fs, vec![("max", set("4096")), ("nr", text(fs, |_| Ok(ptys())))])),
            ("hostname", name(fs, false)),
            ("domainname", name(fs, true)),
            ("ostype", fixed(fs, "Linux\n")),
            ("osrelease", fixed(fs, format!("{}\n", crate::syscalls::system::RELEASE))),
            ("version", fixed(fs, format!("{}\n", crate::syscalls::system::VERSION))),
            ("pid_max", set("4194304")),
            ("threads-max", set("65536")),
            ("cap_last_cap", fixed(fs, "40\n")),
            ("ngroups_max", fixed(fs, "65536\n")),
            ("randomize_va_space", set("2")),
            ("core_pattern", set("core")),
            ("core_uses_pid", set("0")),
            ("tainted", set("0")),
            ("printk", set("4\t4\t1\t7")),
            ("overflowuid", set("65534")),
            ("overflowgid", set("65534")),
            ("io_uring_disabled", fixed(fs, "2\n")),
            ("shmmax", ipc_limit(fs, 0..=usize::MAX, |l| &l.segment)),
            ("shmall", ipc_limit(fs, 0..=usize::MAX, |l| &l.pages)),
            ("shm_rmid_forced", shm_forced(fs)),
            ("shmmni", ipc_limit(fs, 0..=sysv::hard::OBJECTS, |l| &l.segments)),
            ("msgmax", ipc_limit(fs, 0..=sysv::hard::MESSAGE, |l| &l.message)),
            ("msgmnb", ipc_limit(fs, 0..=sysv::hard::MESSAGE, |l| &l.queue)),
            ("msgmni", ipc_limit(fs, 0..=sysv::hard::OBJECTS, |l| &l.queues)),
            ("sem", semaphore_limits(fs)),
            ("sched_rr_timeslice_ms", set("100")),
            ("unprivileged_userns_clone", set("1")),
            ("seccomp", directory(fs, vec![("actions_avail", fixed(fs, actions()))])),
            ("yama", directory(fs, vec![("ptrace_scope", set("0"))])),
            ("random", random),
        ],
    );
    let vm = all(
        sysctl::VM,
        vec![
            ("drop_caches", drop_caches(fs, kernel)),
            ("overcommit_memory", set("0")),
            ("overcommit_ratio", set("50")),
            ("max_map_count", set("65530")),
            ("mmap_min_addr", set("65536")),
            ("swappiness", set("60")),
            ("dirty_ratio", set("20")),
            ("dirty_background_ratio", set("10")),
            ("nr_hugepages", set("0")),
        ],
    );
    let epoll = directory(fs, vec![("max_user_watches", set("1000000"))]);
    let inotify_dir = directory(
        fs,
        vec![
            ("max_user_watches", limit(fs, 0..=inotify::LIMIT, |_| Ok(&inotify::WATCHES_MOST))),
            ("max_user_instances", limit(fs, 0..=inotify::LIMIT, |_| Ok(&inotify::INSTANCES_MOST))),
            ("max_queued_events", limit(fs, 0..=inotify::LIMIT, |_| Ok(&inotify::EVENTS_MOST))),
        ],
    );
    let (queues, messages, sizes) = (0..=i32::MAX as usize, 1..=HARD_MESSAGES, 128..=HARD_SIZE);
    let mqueue = directory(
        fs,
        vec![
            ("msg_max", queue_limit(fs, messages.clone(), |l| &l.messages)),
            ("msg_default", queue_limit(fs, messages, |l| &l.messages_default)),
            ("msgsize_max", queue_limit(fs, sizes.clone(), |l| &l.size)),
            ("msgsize_default", queue_limit(fs, sizes, |l| &l.size_default)),
            ("queues_max", queue_limit(fs, queues, |l| &l.queues)),
        ],
    );
    let fs_dir = all(
        sysctl::FS,
        vec![
            ("dentry-state", text(fs, |_| Ok(dentry_state()))),
            ("inode-nr", text(fs, |_| Ok(format!("{}\t0\n", dentry::counts().0).into_bytes()))),
            ("inode-state", text(fs, |_| Ok(format!("{}\t0\t0\t0\t0\t0\t0\n", dentry::counts().0).into_bytes()))),
            ("aio-max-nr", limit(fs, 0..=usize::MAX, |_| Ok(&aio::MOST))),
            ("aio-nr", text(fs, |_| Ok(format!("{}\n", aio::count()).into_bytes()))),
            ("file-max", set("9223372036854775807")),
            ("file-nr", text(fs, |_| Ok(format!("{}\t0\t9223372036854775807\n", open_files()).into_bytes()))),
            ("nr_open", set("1048576")),
            ("pipe-max-size", set("1048576")),
            ("mount-max", set("100000")),
            ("protected_hardlinks", set("0")),
            ("protected_symlinks", set("0")),
            ("suid_dumpable", set("0")),
            ("epoll", epoll),
            ("inotify", inotify_dir),
            ("mqueue", mqueue),
        ],
    );
    let net = network_settings::directory_of(fs);
    directory(fs, vec![("kernel", kernel_dir), ("vm", vm), ("fs", fs_dir), ("net", net), ("user", user(fs))])
}

/// `sysvipc`.
fn sysvipc(fs: &Arc<PseudoFs>, kernel: &Arc<Kernel>) -> InodeRef {
    let table = |table: fn(&Kernel, (&IpcNamespace, &PidNamespace), &Creds) -> String| {
        let kernel = kernel.clone();
        text(fs, move |caller| {
            let task = caller.task.ok_or(Errno::ESRCH)?;
            Ok(table(&kernel, (&task.ipc(), &task.group().pid_ns), &caller.creds).into_bytes())
        })
    };
    let sem = |_: &Kernel, (ns, _): (&IpcNamespace, &PidNamespace), creds: &Creds| sem::table(ns, creds);
    let msg = |_: &Kernel, of: (&IpcNamespace, &PidNamespace), creds: &Creds| sysv::msg::table(of, creds);
    directory(fs, vec![("shm", table(sysv::shm::table)), ("sem", table(sem)), ("msg", table(msg))])
}

/// The fixed names of a procfs root.
pub fn files(fs: &Arc<PseudoFs>, kernel: &Arc<Kernel>) -> Vec<(Vec<u8>, InodeRef)> {
    let total = |make: fn(&Kernel) -> String| {
        let kernel = kernel.clone();
        text(fs, move |_| Ok(make(&kernel).into_bytes()))
    };
    let k = kernel.clone();
    let version = format!(
        "Linux version {} (cofferdam@cofferdam) {}\n",
        crate::syscalls::system::RELEASE,
        crate::syscalls::system::VERSION
    );
    let names: Vec<(&str, InodeRef)> = vec![
        ("meminfo", total(totals::meminfo)),
        ("stat", total(totals::stat)),
        ("uptime", total(totals::uptime_text)),
        ("loadavg", text(fs, move |caller| Ok(totals::loadavg(&k, caller.task).into_bytes()))),
        ("vmstat", total(totals::vmstat)),
        ("cpuinfo", text(fs, |_| Ok(cpu::info()))),
        ("version", fixed(fs, version)),
        ("filesystems", fixed(fs, FILESYSTEMS)),
        ("cmdline", fixed(fs, "\n")),
        ("devices", fixed(fs, "Character devices:\n  1 mem\n  5 /dev/tty\n136 pts\n\nBlock devices:\n")),
        ("swaps", fixed(fs, "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")),
        ("modules", fixed(fs, "")),
        ("interrupts", fixed(fs, no_interrupts(11))),
        ("softirqs", fixed(fs, no_interrupts(20))),
        ("locks", total(locks)),
        ("diskstats", fixed(fs, "")),
        ("execdomains", fixed(fs, "0-0\tLinux           \t[kernel]\n")),
        ("misc", fixed(fs, "")),
        ("consoles", fixed(fs, "")),
        ("tty", directory(fs, vec![("drivers", fixed(fs, TTY_DRIVERS))])),
        ("partitions", fixed(fs, "major minor  #blocks  name\n\n")),
        ("cgroups", fixed(fs, cgroups())),
        ("sys", sys(&fs.styled(Style::Setting), kernel)),
        ("sysvipc", sysvipc(fs, kernel)),
    ];
    names.into_iter().map(|(n, i)| (n.as_bytes().to_vec(), i)).collect()
}
