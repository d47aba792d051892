//! Supervisor <-> Sentry.

use serde::{Deserialize, Serialize};

use crate::netd::Network;
use crate::{LogLine, LogSettings};

/// Which platform runs the container's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlatformChoice {
    /// Probe the host and take the best that works.
    Auto,
    /// Seccomp user notification.
    Notify,
    /// ptrace.
    Ptrace,
}

/// The first message a Sentry receives. Descriptor with it: the cache memfd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentryOrders {
    /// The sandbox's id, for the log.
    pub sandbox: String,
    /// The platform to use.
    pub platform: PlatformChoice,
    /// Whether call sites may be patched (see the platform's short way).
    pub patch: bool,
    /// Size of the cache memfd in bytes.
    pub cache_size: u64,
    /// How to log.
    pub log: LogSettings,
    /// Whether to send [`FromSentry::Trace`] once the first container runs.
    pub trace_startup: bool,
    /// The sandbox's host name.
    pub hostname: String,
    /// What the document asks for as its process's `oom_score_adj`: as far as it is more than the Sentry's own, the host takes it.
    pub oom_score_adj: Option<i32>,
    /// Whether the host limits memory: then it shall kill a process of the container before the Sentry.
    pub memory_limited: bool,
    /// `CLONE_NEW*`: the kinds of namespaces that the first container asks for. The sandbox's first ones, which it begins in, have numbers
    /// of their own then.
    pub own_namespaces: u64,
}

/// Every later message to the Sentry: an order with its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    /// Its answer has the same.
    pub number: u64,
    /// The order.
    pub order: ToSentry,
}

/// Every message of the Sentry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// The number of the order that it answers; `None` for news, and for the answer to the first message.
    pub answers: Option<u64>,
    /// What it says.
    pub what: FromSentry,
}

impl From<FromSentry> for Said {
    fn from(what: FromSentry) -> Self {
        Self { answers: None, what }
    }
}

/// The orders. Each is answered by one message: `Created`, `Started`, `Done` or `Failed`. One that waits for a Gofer is answered after
/// others that came later; those that wait for nobody are carried out one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToSentry {
    /// Make a container, with its init loaded and stopped before its first instruction. Descriptors with it: the files socket and the
    /// stdio socket of its Gofer. The first one is what the sandbox is for, and begins in the sandbox's namespaces: all end with it.
    Create(Box<Container>),
    /// Make a further process in a container that runs, loaded and stopped before its first instruction. Answered by `Created`.
    Exec {
        /// The container.
        id: String,
        /// Names it from then on; never 0, and never used twice.
        process: u32,
        /// The process; its standard streams are `stdio/ID/PROCESS/...`.
        spec: Box<Process>,
    },
    /// Let a process run.
    Start {
        /// The container.
        id: String,
        /// Which of its processes: 0 for its init, else one of `Exec`.
        process: u32,
    },
    /// Signal a process, or everything in the container.
    Kill {
        /// The container.
        id: String,
        /// Which of its processes.
        process: u32,
        /// The signal's number, 1 to 64.
        signal: i32,
        /// Every process of the container.
        all: bool,
    },
    /// A process's terminal has a new size.
    Resize {
        /// The container.
        id: String,
        /// Which of its processes.
        process: u32,
        /// Rows of characters.
        rows: u16,
        /// Columns of characters.
        cols: u16,
    },
    /// Its input is its own again, until it stops: see [`FromSentry::Stopped`].
    Front {
        /// The container.
        id: String,
        /// How many of its stops have been heard of: not if there was another one meanwhile.
        stops: u32,
    },
    /// Let none of its processes run until told otherwise, whatever signals come; or let them run on.
    Freeze {
        /// The container.
        id: String,
        /// Whether they shall be frozen.
        frozen: bool,
    },
    /// Tell its processes. Answered by `Processes`.
    Processes {
        /// The container.
        id: String,
    },
    /// Tell which system calls it made in vain. Answered by `InVain`.
    InVain {
        /// The container.
        id: String,
    },
    /// Its limits are these from now on. Answered by `Done`.
    Limits {
        /// The container.
        id: String,
        /// The limits.
        limits: Limits,
    },
    /// Tell what it uses. Answered by `Usage`.
    Usage {
        /// The container.
        id: String,
    },
    /// The sandbox has this network from now on. Descriptors with it: the socket to netd, the window that both share. Answered by `Done`.
    Network(Network),
    /// Forget a container, which is not to be any more: what is left of it ends. One that is being made is not made.
    Delete {
        /// The container.
        id: String,
    },
    /// End the sandbox. No answer but the channel's end.
    Stop,
}

/// A process of a container as the Sentry needs to know it: its first one, or one of `exec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The command line; the first word is looked up in PATH.
    pub args: Vec<Vec<u8>>,
    /// The environment, `K=V` each.
    pub env: Vec<Vec<u8>>,
    /// Absolute working directory.
    pub cwd: Vec<u8>,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// File mode creation mask, or the default 022.
    pub umask: Option<u32>,
    /// Whether stdio is a terminal (`stdio/NAME/tty`), else `stdio/NAME/0..2`.
    pub terminal: bool,
    /// Descriptors from 3 on that it has besides (`stdio/NAME/3...`).
    pub more_files: u32,
    /// Rows and columns of the terminal at the start.
    pub console_size: Option<(u16, u16)>,
    /// RLIMIT_ number, soft and hard limit.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// Capability sets.
    pub capabilities: CapabilitySets,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privileges: bool,
    /// Its oom_score_adj.
    pub oom_score_adj: Option<i32>,
    /// Signals that it begins with ignored: bit 0 is signal 1.
    pub ignored: u64,
    /// How it is scheduled, if not as usual.
    pub scheduler: Option<Scheduler>,
    /// `ioprio_set(2)`: class and level as that takes them.
    pub io_priority: Option<i32>,
}

/// `sched_setattr(2)`, as far as a sandbox can follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduler {
    /// `SCHED_*`.
    pub policy: i32,
    /// The nice value.
    pub nice: i32,
    /// `SCHED_FLAG_RESET_ON_FORK`.
    pub reset_on_fork: bool,
}

/// A container as the Sentry needs to know it; made by the supervisor from an OCI config.json.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its first process.
    pub process: Process,
    /// UTS host name, if not the sandbox's.
    pub hostname: Option<String>,
    /// UTS domain name.
    pub domainname: Option<String>,
    /// The root.
    pub root: Root,
    /// Mounts, in order.
    pub mounts: Vec<Mount>,
    /// Its limits.
    pub limits: Limits,
    /// Whether the usual devices and links are made in /dev: not if that is a directory of the host.
    pub dev: bool,
    /// Devices besides those.
    pub devices: Vec<Device>,
    /// Paths that are covered: files by /dev/null, directories by an empty one. What is not there is passed over.
    pub masked: Vec<Vec<u8>>,
    /// Paths that become read-only. What is not there is passed over.
    pub read_only_paths: Vec<Vec<u8>>,
    /// Settings: paths below /proc/sys, and what is written there.
    pub sysctl: Vec<(Vec<u8>, Vec<u8>)>,
    /// `MS_SHARED` and its like of the root, with `MS_REC`; 0 for none.
    pub propagation: u64,
    /// The user namespace that it begins in, if not the sandbox's.
    pub user_namespace: Option<IdMaps>,
    /// `personality(2)`.
    pub personality: Option<i32>,
    /// The filter of its calls.
    pub seccomp: Option<Seccomp>,
    /// Whether process 1 takes signals as any process does, and not as an init: a command that a person runs ends by what
    /// ends it natively.
    pub plain: bool,
    /// Of a further container: where it begins.
    pub namespaces: Shared,
    /// Where it says that it is ready: the path of a socket. See [`FromSentry::Notified`].
    pub notify: Option<Vec<u8>>,
}

/// The namespaces of a further container of a sandbox, `CLONE_NEW*`. Kinds that are not named are the sandbox's own; mounts are
/// always the container's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// Kinds that it has for itself. (Of the first container: kinds that its document names.)
    pub own: u64,
    /// Kinds that it shares with a container that there is.
    pub with: Vec<(u64, String)>,
}

/// What a container may use, as it is to see it. The host keeps to it, but for the number of tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of swap.
    pub swap: Option<u64>,
    /// Microseconds of processor time in a period.
    pub cpu_quota: Option<u64>,
    /// The period in microseconds, if not 100,000.
    pub cpu_period: Option<u64>,
    /// Weight of cgroup v2, if not 100.
    pub cpu_weight: Option<u64>,
    /// Number of tasks: kept to in the Sentry, as the host counts threads of the services and stubs, too.
    pub pids: Option<u64>,
}

/// What a container uses, as the Sentry counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Number of tasks.
    pub tasks: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Nanoseconds of processor time in programs.
    pub user: u64,
    /// And in calls.
    pub system: u64,
    /// Processes that the host killed as memory was short.
    pub killed: u64,
}

/// Who else may change the files of an export while a sandbox has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileAccess {
    /// Nobody: what was once fetched stays valid.
    Exclusive,
    /// The host: each use asks anew.
    Shared,
}

/// The root of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The export it is.
    pub export: String,
    /// Who else changes it.
    pub access: FileAccess,
    /// Whether `/` is mounted read-only.
    pub read_only: bool,
    /// Whether changes stay in memory in the Sentry (the export is then read-only).
    pub overlay: bool,
}

/// One mount of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container.
    pub destination: Vec<u8>,
    /// What is mounted.
    pub source: MountSource,
    /// What it is said to be from, for `/proc/mounts`.
    pub named: Vec<u8>,
    /// How.
    pub options: MountOptions,
}

/// How something is mounted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountOptions {
    /// `MS_*` of `mount(2)` (see [`crate::oci::ms`]).
    pub flags: u64,
    /// How it takes part in what is mounted elsewhere, in order: `MS_SHARED` and its like, with `MS_REC`.
    pub propagation: Vec<u64>,
    /// `MOUNT_ATTR_*` that are set, and that are taken away before, of the mount and of all below it.
    pub recursive: Option<(u64, u64)>,
    /// Begins with what was at its place.
    pub copy_up: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A Gofer export (a bind mount of the host).
    Export {
        /// Its name.
        name: String,
        /// Who else changes it.
        access: FileAccess,
    },
    /// A file system of the Sentry's own.
    System {
        /// Its type.
        kind: String,
        /// Its options as `mount(2)` takes them, with commas between.
        data: String,
    },
    /// An overlay of Gofer exports.
    Overlay {
        /// Its options as `mount(2)` takes them, layers among them.
        data: String,
        /// The exports of those layers.
        layers: Vec<Layer>,
        /// Who else changes the lower ones.
        access: FileAccess,
    },
    /// Nothing new: what is mounted there already is changed (`MS_REMOUNT`).
    Again,
}

/// A layer of an overlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Its path, as the options name it (without escapes).
    pub path: Vec<u8>,
    /// Its export.
    pub export: String,
    /// Whether it is one that is changed.
    pub changed: bool,
    /// Of a work directory: the export of the directory that takes the changes, which it is one file system with.
    pub beside: Option<String>,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute path in the container.
    pub path: Vec<u8>,
    /// Type and permissions.
    pub mode: u32,
    /// Numbers.
    pub major: u32,
    /// Numbers.
    pub minor: u32,
    /// Owner, as the container knows it.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Maps of a user namespace: the first id inside, the first outside, how many.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    /// Of users.
    pub uids: Vec<(u32, u32, u32)>,
    /// Of groups.
    pub gids: Vec<(u32, u32, u32)>,
}

/// A filter of calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seccomp {
    /// `struct sock_filter`: code, jump if true, jump if false, constant. The Sentry checks it as it does a container's.
    pub program: Vec<(u16, u8, u8, u32)>,
    /// `SECCOMP_FILTER_FLAG_LOG`.
    pub log: bool,
}

/// Capability sets as bitmaps, bit N for capability N.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilitySets {
    /// Bounding set.
    pub bounding: u64,
    /// Effective set.
    pub effective: u64,
    /// Permitted set.
    pub permitted: u64,
    /// Inheritable set.
    pub inheritable: u64,
    /// Ambient set.
    pub ambient: u64,
}

/// How a container's init ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// By exit, with this code.
    Code(u8),
    /// By this signal, with or without a core dump.
    Signal(i32, bool),
}

/// Why something failed, as far as an OCI client tells failures apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The program, or something it needs, does not exist (127).
    NotFound,
    /// It may not be run (126).
    Permission,
    /// The request or the document makes no sense.
    Invalid,
    /// There is no such container.
    NoSuchContainer,
    /// There is one already.
    Exists,
    /// The container is not in a state for that.
    WrongState,
    /// The host refused.
    Host,
    /// A part of Cofferdam failed.
    Internal,
}

/// A system call that was made in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InVain {
    /// Its number; `u32::MAX` stands for all that can be none.
    pub number: u32,
    /// How often.
    pub count: u64,
    /// Refused on purpose, not missing.
    pub refused: bool,
}

/// Everything a Sentry says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromSentry {
    /// The walls are up.
    Ready {
        /// The platform in use.
        platform: String,
        /// Why that one.
        why: String,
        /// Its pid in its own namespace.
        pid: i32,
    },
    /// A container, or a further process of it, is loaded.
    Created {
        /// The container.
        id: String,
        /// The process's pid inside.
        pid: i32,
        /// The host process that all of a further container's are copied from, in the Sentry's PID namespace: they will be where it is put.
        home: Option<i32>,
    },
    /// A container runs.
    Started {
        /// The container.
        id: String,
    },
    /// A process of a container has ended: its init, or one of `Exec` (unasked).
    Exited {
        /// The container.
        id: String,
        /// Which.
        process: u32,
        /// How.
        status: ExitStatus,
    },
    /// The command of `do` has stopped, its input is left alone until [`ToSentry::Front`] (unasked).
    Stopped {
        /// The container.
        id: String,
        /// By which signal.
        signal: i32,
    },
    /// A container has said that it is ready; told once (unasked).
    Notified {
        /// The container.
        id: String,
    },
    /// The last order failed; before `Ready`, the sandbox.
    Failed {
        /// The container, if it concerns one.
        id: Option<String>,
        /// Why, for a program.
        kind: FailureKind,
        /// Why, for a person.
        message: String,
    },
    /// The last order has been carried out.
    Done,
    /// A container's processes: ids of host processes in the Sentry's PID namespace.
    Processes(Vec<i32>),
    /// The system calls that were made in vain, by number.
    InVain(Vec<InVain>),
    /// What a container uses.
    Usage(Usage),
    /// Phases of the start with their ends, in nanoseconds of CLOCK_MONOTONIC (unasked).
    Trace(Vec<(String, u64)>),
    /// A line for the log (unasked).
    Log(LogLine),
}
