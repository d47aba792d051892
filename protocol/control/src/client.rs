//! Command line <-> supervisor, over `DIR/supervisor.sock`.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::gofer::ExportKind;
use crate::netd::User;
use crate::sentry::{ExitStatus, FailureKind, FileAccess, InVain, PlatformChoice};
use crate::{LogFormat, LogLevel};

/// Where a container finds the socket at which it says that it is ready, as with runc.
pub const NOTIFY_SOCKET: &str = "/run/notify/notify.sock";

/// Who keeps a sandbox alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owner {
    /// Nobody: it stays until it is deleted (`create`, `run --detach`).
    Itself,
    /// The connection it was created over: when that closes the sandbox ends and is deleted (`do`, `run`).
    Connection,
}

/// A request to make a container in a sandbox of its own. Descriptors with it, in this order: the stdio (one terminal
/// if `tty`, else three), as many more as `more_files` says, the sender's root directory, then the log file if `log` is set. Paths are looked up from that root: the
/// sender may be in a mount namespace of its own, as buildah's runtime is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Create {
    /// The container's id.
    pub id: String,
    /// Absolute path of the bundle; relative paths in the document start there.
    pub bundle: Vec<u8>,
    /// The OCI document, or `None` to read `config.json` from the bundle.
    pub config: Option<Vec<u8>>,
    /// Whether the root gets an in-memory upper layer.
    pub overlay: bool,
    /// Who else changes the root's files.
    pub root_access: FileAccess,
    /// Who else changes the files of bind mounts. The document may say otherwise for one of them.
    pub mounts_access: FileAccess,
    /// The platform to use.
    pub platform: PlatformChoice,
    /// Whether call sites of the container's programs may be patched.
    pub patch: bool,
    /// Whether its first process takes signals as any other: see [`crate::sentry::Container::plain`].
    pub plain: bool,
    /// Who keeps it alive.
    pub owner: Owner,
    /// Whether systemd makes its cgroups, and linux.cgroupsPath is `slice:prefix:name`.
    pub systemd_cgroup: bool,
    /// Whether the stdio is one terminal.
    pub tty: bool,
    /// How many descriptors its first process has besides, from 3 on.
    pub more_files: u32,
    /// The first so many of those are handed on from a service manager: its environment says so (LISTEN_FDS, LISTEN_PID).
    pub listen_files: u32,
    /// Rows and columns of that terminal.
    pub console_size: Option<(u16, u16)>,
    /// Where and how the services' log lines go, if anywhere.
    pub log: Option<(LogFormat, LogLevel)>,
    /// Whether to answer with the phases of the start.
    pub trace_startup: bool,
    /// Whether it is to have a socket where it says that it is ready ([`NOTIFY_SOCKET`]).
    pub notify: bool,
    /// What the document says of its process in other words: bytes, which JSON cannot say.
    pub verbatim: Option<Verbatim>,
}

/// Arguments, environment and directory of a process as bytes, in place of the document's, and what that has no word for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verbatim {
    /// The command line.
    pub args: Vec<Vec<u8>>,
    /// The environment, `K=V` each.
    pub env: Vec<Vec<u8>>,
    /// Absolute working directory.
    pub cwd: Vec<u8>,
    /// Signals that it begins with ignored: bit 0 is signal 1.
    pub ignored: u64,
}

/// A request to make a further process in a container that runs. Descriptors with it: its stdio (one terminal if `tty`, else
/// three), and as many more as `more_files` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// The container's id.
    pub id: String,
    /// The process as OCI's `process` describes it, in JSON.
    pub process: Vec<u8>,
    /// What JSON cannot say of it.
    pub verbatim: Option<Verbatim>,
    /// Whether the stdio is one terminal.
    pub tty: bool,
    /// How many descriptors it has besides, from 3 on.
    pub more_files: u32,
    /// Rows and columns of that terminal.
    pub console_size: Option<(u16, u16)>,
    /// Who keeps it alive: a connection, or nobody.
    pub owner: Owner,
    /// Whether it may be made in a frozen container, where it runs once that is thawed.
    pub in_frozen: bool,
}

/// A path that a container's Gofer is to serve. The sender of the request for the container opens it, as he would for himself: so a file
/// system that hangs holds up him and nobody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Absolute, from the root directory that came with the request.
    pub path: Vec<u8>,
    /// Whether nothing is written there.
    pub read_only: bool,
    /// Which of those before it must be on the same mount: what takes an overlay's changes and its work directory.
    pub beside: Option<usize>,
    /// What of the host's mounts there it is to be; `None` for the place as it is on the host. Who may not copy mounts
    /// opens that.
    pub tree: Option<Tree>,
}

/// A copy of what is mounted at a path, as a bind mount is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// With what is mounted below.
    pub below: bool,
    /// What of it is to receive nothing that the host mounts there later.
    pub private: Private,
}

/// How much of a tree of mounts is private.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Private {
    /// Nothing.
    Nothing,
    /// The mount at its root.
    Top,
    /// All of it.
    All,
}

/// One that was opened: a directory or a special file for nothing but its place, a regular file for what it is to be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// What it is.
    pub kind: ExportKind,
    /// Whether nothing can be written there.
    pub read_only: bool,
    /// Whether it is a copy of mounts that is to receive what the host mounts there.
    pub follows: bool,
}

/// What a network namespace is for a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkFrom {
    /// The one that stands for the container's on the host: what an engine puts there until the container starts is the container's.
    Namespace,
    /// The same, and who answers for names at `netd::NAMES` is at that place, in another namespace.
    Named(SocketAddr),
    /// The sender's own, whose sockets the container is to use for a network like that.
    User(User),
    /// The sender's own, which is the container's as well.
    Host,
}

/// Everything the command line asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Make a container. Answered by `Open`, and then by `Created`.
    Create(Box<Create>),
    /// What `Open` asked for, or why it cannot be had. Descriptors with it: those.
    Opened(Result<Vec<Opened>, (FailureKind, String)>),
    /// Make a further process in it, which does not run yet. Answered by `Executed`.
    Exec(Box<Exec>),
    /// Let a process of it run. Answered by `Done`, or for a traced start by `Trace` first.
    Start {
        /// The container.
        id: String,
        /// Which process: 0 for its init.
        process: u32,
    },
    /// Signal it. Answered by `Done`.
    Kill {
        /// The container.
        id: String,
        /// Which process.
        process: u32,
        /// Signal number.
        signal: i32,
        /// Every process, not only init.
        all: bool,
    },
    /// Forget it. Answered by `Done`.
    Delete {
        /// The container.
        id: String,
        /// Kill it first if it still runs.
        force: bool,
    },
    /// Its state. Answered by `State`.
    State {
        /// The container.
        id: String,
    },
    /// Every container's state. Answered by `List`.
    List,
    /// Let none of its processes run, or all run on. Answered by `Done`.
    Freeze {
        /// The container.
        id: String,
        /// Whether they shall be frozen.
        frozen: bool,
    },
    /// Its processes. Answered by `Processes`.
    Processes {
        /// The container.
        id: String,
    },
    /// Which system calls it made in vain. Answered by `InVain`.
    InVain {
        /// The container.
        id: String,
    },
    /// Wait for its end. Answered by `Exited`, when it comes; other requests may go on meanwhile.
    Wait {
        /// The container.
        id: String,
    },
    /// Tell when it has said that it is ready. Answered by `Ready`, when it comes; other requests may go on meanwhile.
    AwaitReady {
        /// The container.
        id: String,
    },
    /// The sender (its pid comes from the socket) stands in for a process of the container. Answered by `Done`, and by
    /// `Exited` at its end. If the sender goes away first the process is killed.
    StandIn {
        /// The container.
        id: String,
        /// Which process.
        process: u32,
    },
    /// What the container's network comes from. Descriptors with it: a network namespace, then a socket for each published port; or, of one
    /// with somebody who answers for names, as many as he is asked by (`netd::ASKING`), and his namespace. Answered by `Done`.
    Network {
        /// The container.
        id: String,
        /// How.
        from: NetworkFrom,
    },
    /// A process's terminal has a new size. Answered by `Done`.
    Resize {
        /// The container.
        id: String,
        /// Which process.
        process: u32,
        /// Rows.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// The sender has its terminal to itself: the container may read its input. Answered by `Done`.
    Front {
        /// The container.
        id: String,
        /// How many of its stops have been heard of: not if there was another one meanwhile.
        stops: u32,
    },
    /// Change its limits. Answered by `Done`.
    Update {
        /// The container.
        id: String,
        /// A `linux.resources` in JSON, of what is to change.
        resources: Vec<u8>,
    },
    /// What it uses. Answered by `Stats`.
    Stats {
        /// The container.
        id: String,
    },
    /// Tell every container's end from now on, as `Exited`.
    Events,
}

/// OCI's status of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Being made.
    Creating,
    /// Made, not started.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Ended.
    Stopped,
}

impl Status {
    /// The word in `state` and `list`.
    pub fn word(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// A container's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The container.
    pub id: String,
    /// Its status.
    pub status: Status,
    /// Host pid of its stand-in, 0 once it has ended.
    pub pid: i32,
    /// Its bundle.
    pub bundle: Vec<u8>,
    /// Seconds since 1970.
    pub created: u64,
    /// Uid of its owner.
    pub owner: u32,
}

/// Everything the supervisor answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Before it is made: these are needed, the first of which is its root. Answered by `Opened`.
    Open(Vec<Source>),
    /// The container is made.
    Created {
        /// The platform in use.
        platform: String,
        /// Why that one.
        why: String,
        /// What of the document is not honoured, and the like, where there is no log that was told.
        warnings: Vec<String>,
    },
    /// It is done.
    Done,
    /// It failed.
    Failed {
        /// For a program.
        kind: FailureKind,
        /// For a person.
        message: String,
    },
    /// A state.
    State(State),
    /// All states.
    List(Vec<State>),
    /// System calls that were made in vain.
    InVain(Vec<InVain>),
    /// A process was made.
    Executed {
        /// Its number.
        process: u32,
    },
    /// Host pids of the processes of a container.
    Processes(Vec<i32>),
    /// What a container uses.
    Stats {
        /// In JSON, of runc's shape.
        stats: Vec<u8>,
        /// Processes that the host killed as memory was short, so far.
        oom_kills: u64,
    },
    /// A process of a container has ended.
    Exited {
        /// The container.
        id: String,
        /// Which process: 0 for its init.
        process: u32,
        /// How it ended.
        status: ExitStatus,
        /// Set when it was not the program's doing: which service failed, and how.
        reason: Option<String>,
    },
    /// A container has said that it is ready, or never will: it has ended, or nowhere to say so.
    Ready {
        /// The container.
        id: String,
        /// Whether it is.
        is: bool,
    },
    /// The command of `do` has stopped; goes wherever its end will be told.
    Stopped {
        /// The container.
        id: String,
        /// By which signal.
        signal: i32,
    },
    /// Phases of the start with their ends, in nanoseconds of CLOCK_MONOTONIC.
    Trace(Vec<(String, u64)>),
}

impl Response {
    /// Whether it comes unasked, so that it is no answer to a request.
    pub fn unasked(&self) -> bool {
        matches!(self, Response::Exited { .. } | Response::Ready { .. } | Response::Stopped { .. } | Response::Trace(_))
    }
}
