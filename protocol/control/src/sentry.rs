//! Supervisor <-> Sentry.

use serde::{Deserialize, Serialize};

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

/// The first message a Sentry receives. Descriptors with it: the files socket, the stdio socket, the cache memfd.
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
}

/// Every later message to the Sentry. Each is answered by one message: `Created`, `Started`, `Done` or `Failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToSentry {
    /// Make a container, with its init loaded and stopped before its first instruction.
    Create(Box<Container>),
    /// Let it run.
    Start {
        /// The container.
        id: String,
    },
    /// Signal its init, or everything in it.
    Kill {
        /// The container.
        id: String,
        /// The signal's number, 1 to 64.
        signal: i32,
        /// Every process of the container, not only init.
        all: bool,
    },
    /// Its terminal has a new size.
    Resize {
        /// The container.
        id: String,
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
    /// Forget a container that has ended.
    Delete {
        /// The container.
        id: String,
    },
    /// End the sandbox. No answer but the channel's end.
    Stop,
}

/// A container as the Sentry needs to know it; made by the supervisor from an OCI config.json.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its id.
    pub id: String,
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
    /// Whether stdio is a terminal (`stdio/ID/tty`), else `stdio/ID/0..2`.
    pub terminal: bool,
    /// Rows and columns of the terminal at the start.
    pub console_size: Option<(u16, u16)>,
    /// UTS host name, if not the sandbox's.
    pub hostname: Option<String>,
    /// UTS domain name.
    pub domainname: Option<String>,
    /// The root.
    pub root: Root,
    /// Mounts, in order.
    pub mounts: Vec<Mount>,
    /// RLIMIT_ number, soft and hard limit.
    pub rlimits: Vec<(u32, u64, u64)>,
    /// Capability sets.
    pub capabilities: CapabilitySets,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privileges: bool,
    /// oom_score_adj of init.
    pub oom_score_adj: Option<i32>,
    /// Signals that process 1 begins with ignored: bit 0 is signal 1.
    pub ignored: u64,
    /// Whether process 1 takes signals as any process does, and not as an init: a command that a person runs ends by what
    /// ends it natively.
    pub plain: bool,
}

/// The root of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The export it is.
    pub export: String,
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
    /// How.
    pub options: MountOptions,
}

/// Flags of a mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountOptions {
    /// MS_RDONLY.
    pub read_only: bool,
    /// MS_NOSUID.
    pub nosuid: bool,
    /// MS_NODEV.
    pub nodev: bool,
    /// MS_NOEXEC.
    pub noexec: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A Gofer export (a bind mount of the host).
    Export(String),
    /// Memory.
    Tmpfs {
        /// Limit in bytes.
        size: Option<u64>,
        /// Mode of its root.
        mode: Option<u32>,
    },
    /// procfs.
    Proc,
    /// sysfs.
    Sysfs,
    /// /dev with the standard nodes.
    Devtmpfs,
    /// Pseudo terminals.
    Devpts,
    /// POSIX message queues.
    Mqueue,
    /// The cgroup tree.
    Cgroup,
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
    /// A container is loaded.
    Created {
        /// The container.
        id: String,
        /// Its init's pid inside.
        pid: i32,
    },
    /// A container runs.
    Started {
        /// The container.
        id: String,
    },
    /// A container's init has ended (unasked).
    Exited {
        /// The container.
        id: String,
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
    /// Phases of the start with their ends, in nanoseconds of CLOCK_MONOTONIC (unasked).
    Trace(Vec<(String, u64)>),
    /// A line for the log (unasked).
    Log(LogLine),
}
