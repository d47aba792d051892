//! Files of `/proc` about the whole kernel.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::errno::Errno;
use crate::filesystems::pseudo::{Body, PseudoFs, PseudoNode, directory, fixed, text};
use crate::filesystems::sys::processors;
use crate::ipc::inotify;
use crate::ipc::sysv::{self, sem};
use crate::kernel::Kernel;
use crate::memory::store::PAGE;
use crate::task::creds::cap;
use crate::time::{Clock, NS, now};
use crate::vfs::caller::Caller;
use crate::vfs::inode::InodeRef;

/// Memory that the container is told of, bytes, where nothing limits it.
pub const MEMORY: u64 = 8 << 30;

fn uptime(kernel: &Kernel) -> i64 {
    now(Clock::Boottime).saturating_sub(kernel.booted).max(0)
}

/// `meminfo`, also of the one node below `/sys`.
pub fn meminfo(kernel: &Kernel) -> String {
    let areas: u64 = kernel.tree.lock().tasks().iter().filter(|t| t.tid() == t.pid()).map(|t| t.mm().total()).sum();
    let used = areas.min(MEMORY / 2) / 1024;
    let total = MEMORY / 1024;
    let free = total - used;
    let mut s = String::new();
    for (name, kb) in [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", free),
        ("Buffers", 0),
        ("Cached", 0),
        ("SwapCached", 0),
        ("Active", used),
        ("Inactive", 0),
        ("Active(anon)", used),
        ("Inactive(anon)", 0),
        ("Active(file)", 0),
        ("Inactive(file)", 0),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", used),
        ("Mapped", 0),
        ("Shmem", 0),
        ("KReclaimable", 0),
        ("Slab", 0),
        ("SReclaimable", 0),
        ("SUnreclaim", 0),
        ("KernelStack", 0),
        ("PageTables", 0),
        ("NFS_Unstable", 0),
        ("Bounce", 0),
        ("WritebackTmp", 0),
        ("CommitLimit", total / 2),
        ("Committed_AS", used),
        ("VmallocTotal", 34_359_738_367),
        ("VmallocUsed", 0),
        ("VmallocChunk", 0),
    ] {
        writeln!(s, "{:<16}{kb:>8} kB", format!("{name}:")).ok();
    }
    s.push_str("HugePages_Total:       0\nHugePages_Free:        0\nHugePages_Rsvd:        0\nHugePages_Surp:        0\nHugepagesize:       2048 kB\n");
    s
}

/// What the processor says of itself, by CPUID: it does not lie to programs, and needs no file of the host.
fn cpuinfo() -> Vec<u8> {
    let mut flags = String::new();
    for (name, on) in [
        ("fpu", true),
        ("sse", true),
        ("sse2", true),
        ("syscall", true),
        ("lm", true),
        ("sse3", std::arch::is_x86_feature_detected!("sse3")),
        ("ssse3", std::arch::is_x86_feature_detected!("ssse3")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("cx16", std::arch::is_x86_feature_detected!("cmpxchg16b")),
        ("sse4_1", std::arch::is_x86_feature_detected!("sse4.1")),
        ("sse4_2", std::arch::is_x86_feature_detected!("sse4.2")),
        ("popcnt", std::arch::is_x86_feature_detected!("popcnt")),
        ("aes", std::arch::is_x86_feature_detected!("aes")),
        ("avx", std::arch::is_x86_feature_detected!("avx")),
        ("rdrand", std::arch::is_x86_feature_detected!("rdrand")),
        ("bmi1", std::arch::is_x86_feature_detected!("bmi1")),
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("bmi2", std::arch::is_x86_feature_detected!("bmi2")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ("sha_ni", std::arch::is_x86_feature_detected!("sha")),
    ] {
        if on {
            flags.push_str(name);
            flags.push(' ');
        }
    }
    let leaf = std::arch::x86_64::__cpuid(0);
    let vendor: Vec<u8> = [leaf.ebx, leaf.edx, leaf.ecx].iter().flat_map(|r| r.to_le_bytes()).collect();
    let brand: Vec<u8> = (0x8000_0002u32..=0x8000_0004)
        .map(std::arch::x86_64::__cpuid)
        .flat_map(|l| [l.eax, l.ebx, l.ecx, l.edx])
        .flat_map(u32::to_le_bytes)
        .take_while(|b| *b != 0)
        .collect();
    let v = std::arch::x86_64::__cpuid(1).eax;
    let family = ((v >> 8) & 0xf) + ((v >> 20) & 0xff);
    let model = ((v >> 4) & 0xf) | ((v >> 12) & 0xf0);
    let (level, line) = (leaf.eax, ((std::arch::x86_64::__cpuid(1).ebx >> 8) & 0xff) * 8);
    let mut s = String::new();
    for n in 0..processors() {
        writeln!(
            s,
            "processor\t: {n}\nvendor_id\t: {}\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: {}\nstepping\t: {}\n\
             cpu MHz\t\t: 2000.000\ncache size\t: 8192 KB\nphysical id\t: 0\nsiblings\t: {c}\ncore id\t\t: {n}\n\
             cpu cores\t: {c}\napicid\t\t: {n}\ninitial apicid\t: {n}\nfpu\t\t: yes\nfpu_exception\t: yes\n\
             cpuid level\t: {level}\nwp\t\t: yes\nflags\t\t: {}\nbugs\t\t: \nbogomips\t: 4000.00\n\
             clflush size\t: {line}\ncache_alignment\t: {line}\n\
             address sizes\t: 46 bits physical, 48 bits virtual\npower management:\n",
            String::from_utf8_lossy(&vendor),
            String::from_utf8_lossy(&brand).trim(),
            v & 0xf,
            flags.trim(),
            c = processors(),
        )
        .ok();
    }
    s.into_bytes()
}

fn stat(kernel: &Kernel) -> Vec<u8> {
    let idle = uptime(kernel) / (NS / 100);
    let n = processors() as i64;
    let mut s = format!("cpu  0 0 0 {} 0 0 0 0 0 0\n", idle * n);
    for c in 0..n {
        writeln!(s, "cpu{c} 0 0 0 {idle} 0 0 0 0 0 0").ok();
    }
    let boot = (now(Clock::Realtime) - uptime(kernel)) / NS;
    let forks = kernel.forks.load(std::sync::atomic::Ordering::Relaxed);
    writeln!(s, "intr 0\nctxt 0\nbtime {boot}\nprocesses {forks}\nprocs_running 1\nprocs_blocked 0\nsoftirq 0").ok();
    s.into_bytes()
}

const FILESYSTEMS: &str = "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tcgroup2\nnodev\tdevtmpfs\nnodev\tpipefs\n\
                           nodev\tsockfs\nnodev\tdevpts\nnodev\toverlay\nnodev\tmqueue\nnodev\t9p\n";

/// A setting that root may change and that only tells what was set.
fn setting(fs: &PseudoFs, value: &str) -> InodeRef {
    let value = Arc::new(crate::sync::Mutex::new(format!("{value}\n").into_bytes()));
    let again = value.clone();
    let read = move |_: &Caller<'_>| Ok(value.lock().clone());
    let write = move |caller: &Caller<'_>, data: &[u8]| {
        if !caller.creds.capable(cap::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        let mut line = data.trim_ascii().to_vec();
        line.push(b'\n');
        *again.lock() = line;
        Ok(())
    };
    PseudoNode::new(fs, 0o644, Body::Text(Box::new(read), Some(Box::new(write))))
}

fn name(fs: &PseudoFs, kernel: &Arc<Kernel>, domain: bool) -> InodeRef {
    let (k, again) = (kernel.clone(), kernel.clone());
    let read = move |_: &Caller<'_>| {
        let names = k.names.read();
        let mut n = if domain { names.1.clone() } else { names.0.clone() };
        n.push(b'\n');
        Ok(n)
    };
    let write = move |caller: &Caller<'_>, data: &[u8]| {
        if !caller.creds.capable(cap::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        let n = data.split(|b| *b == b'\n').next().unwrap_or_default();
        let n = n.get(..n.len().min(64)).unwrap_or_default().to_vec();
        let mut names = again.names.write();
        *(if domain { &mut names.1 } else { &mut names.0 }) = n;
        Ok(())
    };
    PseudoNode::new(fs, 0o644, Body::Text(Box::new(read), Some(Box::new(write))))
}

fn uuid() -> Result<Vec<u8>, Errno> {
    let mut b = [0u8; 16];
    getrandom::fill(&mut b).map_err(|_| Errno::EIO)?;
    let n = (u128::from_be_bytes(b) & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let s = format!("{n:032x}");
    let part = |a: usize, z: usize| s.get(a..z).unwrap_or_default().to_string();
    Ok(format!("{}-{}-{}-{}-{}\n", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)).into_bytes())
}

/// A limit of inotify: a number that may be set.
fn limit(fs: &PseudoFs, of: &'static AtomicUsize) -> InodeRef {
    let take = |_: &Caller<'_>, new: &[u8]| {
        let text = std::str::from_utf8(new).map_err(|_| Errno::EINVAL)?;
        let number: usize = text.trim().parse().map_err(|_| Errno::EINVAL)?;
        if number > inotify::LIMIT {
            return Err(Errno::EINVAL);
        }
        of.store(number, Ordering::Relaxed);
        Ok(())
    };
    let show = |_: &Caller<'_>| Ok(format!("{}\n", of.load(Ordering::Relaxed)).into_bytes());
    PseudoNode::new(fs, 0o644, Body::Text(Box::new(show), Some(Box::new(take))))
}

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
    let kernel_dir = directory(
        fs,
        vec![
            ("hostname", name(fs, kernel, false)),
            ("domainname", name(fs, kernel, true)),
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
            ("shmmax", fixed(fs, format!("{}\n", sysv::shm::MAX))),
            ("shmall", fixed(fs, format!("{}\n", sysv::shm::MAX))),
            ("shmmni", fixed(fs, format!("{}\n", sysv::shm::MOST))),
            ("msgmax", fixed(fs, format!("{}\n", sysv::msg::MESSAGE_MAX))),
            ("msgmnb", fixed(fs, format!("{}\n", sysv::msg::QUEUE_BYTES))),
            ("msgmni", fixed(fs, format!("{}\n", sysv::msg::MOST))),
            ("sem", fixed(fs, format!("{}\t{}\t{}\t{}\n", sem::SET_MOST, sem::ALL_MOST, sem::OPS_MOST, sem::MOST))),
            ("sched_rr_timeslice_ms", set("100")),
            ("unprivileged_userns_clone", set("1")),
            ("yama", directory(fs, vec![("ptrace_scope", set("0"))])),
            ("random", random),
        ],
    );
    let vm = directory(
        fs,
        vec![
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
            ("max_user_watches", limit(fs, &inotify::WATCHES_MOST)),
            ("max_user_instances", limit(fs, &inotify::INSTANCES_MOST)),
            ("max_queued_events", limit(fs, &inotify::EVENTS_MOST)),
        ],
    );
    let mqueue = directory(fs, vec![("msg_max", set("10")), ("msgsize_max", set("8192")), ("queues_max", set("256"))]);
    let fs_dir = directory(
        fs,
        vec![
            ("file-max", set("9223372036854775807")),
            ("file-nr", fixed(fs, "0\t0\t9223372036854775807\n")),
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
    let core =
        directory(fs, vec![("somaxconn", set("4096")), ("rmem_max", set("212992")), ("wmem_max", set("212992"))]);
    let unix = directory(fs, vec![("max_dgram_qlen", set("512"))]);
    let net = directory(fs, vec![("core", core), ("unix", unix)]);
    directory(fs, vec![("kernel", kernel_dir), ("vm", vm), ("fs", fs_dir), ("net", net)])
}

/// `sysvipc`.
fn sysvipc(fs: &Arc<PseudoFs>, kernel: &Arc<Kernel>) -> InodeRef {
    let table = |table: fn(&Kernel) -> String| {
        let kernel = kernel.clone();
        text(fs, move |_| Ok(table(&kernel).into_bytes()))
    };
    directory(fs, vec![("shm", table(sysv::shm::table)), ("sem", table(sem::table)), ("msg", table(sysv::msg::table))])
}

/// The fixed names of a procfs root.
pub fn files(fs: &Arc<PseudoFs>, kernel: &Arc<Kernel>) -> Vec<(Vec<u8>, InodeRef)> {
    let k = || kernel.clone();
    let (a, b, c, d) = (k(), k(), k(), k());
    let version = format!(
        "Linux version {} (cofferdam@cofferdam) {}\n",
        crate::syscalls::system::RELEASE,
        crate::syscalls::system::VERSION
    );
    let names: Vec<(&str, InodeRef)> = vec![
        ("meminfo", text(fs, move |_| Ok(meminfo(&a).into_bytes()))),
        ("cpuinfo", text(fs, |_| Ok(cpuinfo()))),
        ("stat", text(fs, move |_| Ok(stat(&b)))),
        (
            "uptime",
            text(fs, move |_| {
                let t = uptime(&c) / (NS / 100);
                let idle = t * processors() as i64;
                Ok(format!("{}.{:02} {}.{:02}\n", t / 100, t % 100, idle / 100, idle % 100).into_bytes())
            }),
        ),
        (
            "loadavg",
            text(fs, move |_| {
                let tree = d.tree.lock();
                Ok(format!("0.00 0.00 0.00 1/{} {}\n", tree.count(), tree.last_id()).into_bytes())
            }),
        ),
        ("version", fixed(fs, version)),
        ("filesystems", fixed(fs, FILESYSTEMS)),
        ("cmdline", fixed(fs, "\n")),
        ("devices", fixed(fs, "Character devices:\n  1 mem\n  5 /dev/tty\n136 pts\n\nBlock devices:\n")),
        ("swaps", fixed(fs, "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")),
        ("modules", fixed(fs, "")),
        ("interrupts", fixed(fs, "           CPU0\n")),
        ("partitions", fixed(fs, "major minor  #blocks  name\n\n")),
        ("vmstat", fixed(fs, format!("nr_free_pages {}\npgpgin 0\npgpgout 0\npswpin 0\npswpout 0\n", MEMORY / PAGE))),
        ("cgroups", fixed(fs, "#subsys_name\thierarchy\tnum_cgroups\tenabled\n")),
        ("sys", sys(fs, kernel)),
        ("sysvipc", sysvipc(fs, kernel)),
    ];
    names.into_iter().map(|(n, i)| (n.as_bytes().to_vec(), i)).collect()
}
