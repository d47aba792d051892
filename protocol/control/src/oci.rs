//! The words of the OCI runtime specification that the supervisor acts on and `cofferdam features` tells of: one table each.
//!
//! Data only. Called by the supervisor (`spec`) and by the command line.

/// The version of the runtime specification whose properties are known here, and the oldest one taken.
pub const VERSIONS: (&str, &str) = ("1.0.0", "1.2.1");

/// `MS_*` of `mount(2)`, as a document's options name them.
pub mod ms {
    #![allow(missing_docs, reason = "the ABI's table")]
    pub const RDONLY: u64 = 1;
    pub const NOSUID: u64 = 1 << 1;
    pub const NODEV: u64 = 1 << 2;
    pub const NOEXEC: u64 = 1 << 3;
    pub const SYNCHRONOUS: u64 = 1 << 4;
    pub const REMOUNT: u64 = 1 << 5;
    pub const MANDLOCK: u64 = 1 << 6;
    pub const DIRSYNC: u64 = 1 << 7;
    pub const NOSYMFOLLOW: u64 = 1 << 8;
    pub const NOATIME: u64 = 1 << 10;
    pub const NODIRATIME: u64 = 1 << 11;
    pub const BIND: u64 = 1 << 12;
    pub const REC: u64 = 1 << 14;
    pub const SILENT: u64 = 1 << 15;
    pub const POSIXACL: u64 = 1 << 16;
    pub const UNBINDABLE: u64 = 1 << 17;
    pub const PRIVATE: u64 = 1 << 18;
    pub const SLAVE: u64 = 1 << 19;
    pub const SHARED: u64 = 1 << 20;
    pub const RELATIME: u64 = 1 << 21;
    pub const I_VERSION: u64 = 1 << 23;
    pub const STRICTATIME: u64 = 1 << 24;
    pub const LAZYTIME: u64 = 1 << 25;
}

/// `MOUNT_ATTR_*` of `mount_setattr(2)`.
pub mod attr {
    #![allow(missing_docs, reason = "the ABI's table")]
    pub const RDONLY: u64 = 1;
    pub const NOSUID: u64 = 2;
    pub const NODEV: u64 = 4;
    pub const NOEXEC: u64 = 8;
    /// The bits that say how access times are kept; 0 in them is RELATIME.
    pub const TIMES: u64 = 0x70;
    pub const RELATIME: u64 = 0;
    pub const NOATIME: u64 = 0x10;
    pub const STRICTATIME: u64 = 0x20;
    pub const NODIRATIME: u64 = 0x80;
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// `CLONE_NEW*` of `clone(2)`: kinds of namespaces.
pub mod clone {
    #![allow(missing_docs, reason = "the ABI's table")]
    pub const NEWCGROUP: u64 = 0x200_0000;
    pub const NEWUTS: u64 = 0x400_0000;
    pub const NEWIPC: u64 = 0x800_0000;
    pub const NEWPID: u64 = 0x2000_0000;
    pub const NEWNET: u64 = 0x4000_0000;
}

/// What an option of a mount means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountWord {
    /// Sets these flags of `mount(2)`.
    Set(u64),
    /// Takes them away.
    Clear(u64),
    /// How the mount takes part in what is mounted elsewhere.
    Propagation(u64),
    /// Sets an attribute of the mount and of all below it.
    SetAll(u64),
    /// Takes it away.
    ClearAll(u64),
    /// The tmpfs begins with what was at its place.
    CopyUp,
    /// Nothing.
    Nothing,
    /// Known and refused: there are no id-mapped mounts.
    Refused,
}

/// All options that are not the file system's own.
pub const MOUNT_WORDS: &[(&str, MountWord)] = {
    use MountWord::*;
    &[
        ("acl", Set(ms::POSIXACL)),
        ("async", Clear(ms::SYNCHRONOUS)),
        ("atime", Clear(ms::NOATIME)),
        ("bind", Set(ms::BIND)),
        ("defaults", Nothing),
        ("dev", Clear(ms::NODEV)),
        ("diratime", Clear(ms::NODIRATIME)),
        ("dirsync", Set(ms::DIRSYNC)),
        ("exec", Clear(ms::NOEXEC)),
        ("idmap", Refused),
        ("iversion", Set(ms::I_VERSION)),
        ("lazytime", Set(ms::LAZYTIME)),
        ("loud", Clear(ms::SILENT)),
        ("mand", Set(ms::MANDLOCK)),
        ("noacl", Clear(ms::POSIXACL)),
        ("noatime", Set(ms::NOATIME)),
        ("nodev", Set(ms::NODEV)),
        ("nodiratime", Set(ms::NODIRATIME)),
        ("noexec", Set(ms::NOEXEC)),
        ("noiversion", Clear(ms::I_VERSION)),
        ("nolazytime", Clear(ms::LAZYTIME)),
        ("nomand", Clear(ms::MANDLOCK)),
        ("norelatime", Clear(ms::RELATIME)),
        ("nostrictatime", Clear(ms::STRICTATIME)),
        ("nosuid", Set(ms::NOSUID)),
        ("nosymfollow", Set(ms::NOSYMFOLLOW)),
        ("private", Propagation(ms::PRIVATE)),
        ("ratime", ClearAll(attr::NOATIME)),
        ("rbind", Set(ms::BIND | ms::REC)),
        ("rdev", ClearAll(attr::NODEV)),
        ("rdiratime", ClearAll(attr::NODIRATIME)),
        ("relatime", Set(ms::RELATIME)),
        ("remount", Set(ms::REMOUNT)),
        ("rexec", ClearAll(attr::NOEXEC)),
        ("ridmap", Refused),
        ("rnoatime", SetAll(attr::NOATIME)),
        ("rnodev", SetAll(attr::NODEV)),
        ("rnodiratime", SetAll(attr::NODIRATIME)),
        ("rnoexec", SetAll(attr::NOEXEC)),
        ("rnorelatime", ClearAll(attr::RELATIME)),
        ("rnostrictatime", ClearAll(attr::STRICTATIME)),
        ("rnosuid", SetAll(attr::NOSUID)),
        ("rnosymfollow", SetAll(attr::NOSYMFOLLOW)),
        ("ro", Set(ms::RDONLY)),
        ("rprivate", Propagation(ms::PRIVATE | ms::REC)),
        ("rrelatime", SetAll(attr::RELATIME)),
        ("rro", SetAll(attr::RDONLY)),
        ("rrw", ClearAll(attr::RDONLY)),
        ("rshared", Propagation(ms::SHARED | ms::REC)),
        ("rslave", Propagation(ms::SLAVE | ms::REC)),
        ("rstrictatime", SetAll(attr::STRICTATIME)),
        ("rsuid", ClearAll(attr::NOSUID)),
        ("rsymfollow", ClearAll(attr::NOSYMFOLLOW)),
        ("runbindable", Propagation(ms::UNBINDABLE | ms::REC)),
        ("rw", Clear(ms::RDONLY)),
        ("shared", Propagation(ms::SHARED)),
        ("silent", Set(ms::SILENT)),
        ("slave", Propagation(ms::SLAVE)),
        ("strictatime", Set(ms::STRICTATIME)),
        ("suid", Clear(ms::NOSUID)),
        ("symfollow", Clear(ms::NOSYMFOLLOW)),
        ("sync", Set(ms::SYNCHRONOUS)),
        ("tmpcopyup", CopyUp),
        ("unbindable", Propagation(ms::UNBINDABLE)),
    ]
};

/// What an option means; `None` if it is the file system's own, or nobody's.
pub fn mount_word(word: &str) -> Option<MountWord> {
    MOUNT_WORDS.iter().find(|(name, _)| *name == word).map(|(_, means)| *means)
}

/// The kinds of namespaces of `linux.namespaces`.
pub const NAMESPACES: &[&str] = &["cgroup", "ipc", "mount", "network", "pid", "user", "uts"];

/// Resource limits, by their numbers on x86 (`setrlimit(2)`).
pub const RLIMITS: &[&str] = &[
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

/// Capabilities in the order of their numbers (`capabilities(7)`).
pub const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Hooks, in the order of their times.
pub const HOOKS: &[&str] = &["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Actions of `linux.seccomp`, with what a filter returns for them.
pub const SECCOMP_ACTIONS: &[(&str, u32)] = &[
    ("SCMP_ACT_ALLOW", 0x7fff_0000),
    ("SCMP_ACT_ERRNO", 0x0005_0000),
    ("SCMP_ACT_KILL", 0),
    ("SCMP_ACT_KILL_PROCESS", 0x8000_0000),
    ("SCMP_ACT_KILL_THREAD", 0),
    ("SCMP_ACT_LOG", 0x7ffc_0000),
    ("SCMP_ACT_TRACE", 0x7ff0_0000),
    ("SCMP_ACT_TRAP", 0x0003_0000),
];

/// The action that is known and refused: its listener would be a process of the host.
pub const SECCOMP_NOTIFY: &str = "SCMP_ACT_NOTIFY";

/// Comparisons of `linux.seccomp`.
pub const SECCOMP_OPERATORS: &[&str] =
    &["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"];

/// Architectures of `linux.seccomp` that programs could come by here. Others are passed over: nothing is ever one of theirs.
pub const SECCOMP_ARCHITECTURES: &[&str] = &["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"];

/// Architectures that are known by name only.
pub const SECCOMP_FOREIGN: &[&str] = &[
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
];

/// Flags of `linux.seccomp`, and whether they make a difference here.
pub const SECCOMP_FLAGS: &[(&str, bool)] = &[
    ("SECCOMP_FILTER_FLAG_LOG", true),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", false),
    ("SECCOMP_FILTER_FLAG_TSYNC", false),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", false),
];

/// Settings of a network namespace (`linux.sysctl`) that `/proc/sys/net` has in a sandbox.
pub const NETWORK_SETTINGS: &[&str] = &[
    "net.core.busy_poll",
    "net.core.busy_read",
    "net.core.default_qdisc",
    "net.core.netdev_max_backlog",
    "net.core.optmem_max",
    "net.core.rmem_default",
    "net.core.rmem_max",
    "net.core.somaxconn",
    "net.core.wmem_default",
    "net.core.wmem_max",
    "net.ipv4.icmp_echo_ignore_all",
    "net.ipv4.icmp_echo_ignore_broadcasts",
    "net.ipv4.ip_default_ttl",
    "net.ipv4.ip_dynaddr",
    "net.ipv4.ip_forward",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_nonlocal_bind",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_abort_on_overflow",
    "net.ipv4.tcp_ecn",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_moderate_rcvbuf",
    "net.ipv4.tcp_mtu_probing",
    "net.ipv4.tcp_no_metrics_save",
    "net.ipv4.tcp_orphan_retries",
    "net.ipv4.tcp_retries1",
    "net.ipv4.tcp_retries2",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_sack",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_syn_retries",
    "net.ipv4.tcp_synack_retries",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_timestamps",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_window_scaling",
    "net.ipv4.tcp_wmem",
    "net.ipv4.udp_mem",
    "net.ipv4.udp_rmem_min",
    "net.ipv4.udp_wmem_min",
    "net.ipv6.bindv6only",
    "net.ipv6.conf.all.disable_ipv6",
    "net.ipv6.conf.default.disable_ipv6",
    "net.ipv6.conf.lo.disable_ipv6",
    "net.unix.max_dgram_qlen",
];

/// Annotations that say who changes the files of one mount, `exclusive` or `shared`: this, and the mount's destination. (`/` is
/// the root.)
pub const ANNOTATION_ACCESS: &str = "dev.cofferdam.file-access";

/// The annotation that says whether changes to the root stay in memory, `on` or `off`.
pub const ANNOTATION_OVERLAY: &str = "dev.cofferdam.overlay";

/// The annotation that says what may pass between the sandbox and its network (`rules`).
pub const ANNOTATION_RULES: &str = "dev.cofferdam.network-rules";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_in_order_and_there_once() {
        assert!(MOUNT_WORDS.windows(2).all(|w| w[0].0 < w[1].0));
        assert_eq!(mount_word("ro"), Some(MountWord::Set(1)));
        assert_eq!(mount_word("size=5"), None);
    }
}
