//! Command line <-> supervisor, over `DIR/supervisor.sock`.

use serde::{Deserialize, Serialize};

use crate::sentry::{ExitStatus, FailureKind, PlatformChoice};
use crate::{LogFormat, LogLevel};

/// Who keeps a sandbox alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owner {
    /// Nobody: it stays until it is deleted (`create`, `run --detach`).
    Itself,
    /// The connection it was created over: when that closes the sandbox ends and is deleted (`do`, `run`).
    Connection,
}

/// A request to make a container in a sandbox of its own. Descriptors with it, in this order: the stdio (one terminal
/// if `tty`, else three), then the log file if `log` is set.
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
    /// The platform to use.
    pub platform: PlatformChoice,
    /// Whether call sites of the container's programs may be patched.
    pub patch: bool,
    /// Whether its first process takes signals as any other: see [`crate::sentry::Container::plain`].
    pub plain: bool,
    /// Who keeps it alive.
    pub owner: Owner,
    /// Whether the stdio is one terminal.
    pub tty: bool,
    /// Rows and columns of that terminal.
    pub console_size: Option<(u16, u16)>,
    /// Where and how the services' log lines go, if anywhere.
    pub log: Option<(LogFormat, LogLevel)>,
    /// Whether to answer with the phases of the start.
    pub trace_startup: bool,
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

/// Everything the command line asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Make a container. Answered by `Created`.
    Create(Box<Create>),
    /// Let it run. Answered by `Done`, or for a traced start by `Trace` first.
    Start {
        /// The container.
        id: String,
    },
    /// Signal it. Answered by `Done`.
    Kill {
        /// The container.
        id: String,
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
    /// Wait for its end. Answered by `Exited`, when it comes; other requests may go on meanwhile.
    Wait {
        /// The container.
        id: String,
    },
    /// The sender (its pid comes from the socket) stands in for the container's init. Answered by `Done`, and by
    /// `Exited` at its end. If the sender goes away first the container is killed.
    StandIn {
        /// The container.
        id: String,
    },
    /// Its terminal has a new size. Answered by `Done`.
    Resize {
        /// The container.
        id: String,
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
    /// The container is made.
    Created {
        /// The platform in use.
        platform: String,
        /// Why that one.
        why: String,
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
    /// A container has ended.
    Exited {
        /// The container.
        id: String,
        /// How its init ended.
        status: ExitStatus,
        /// Set when it was not the program's doing: which service failed, and how.
        reason: Option<String>,
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
        matches!(self, Response::Exited { .. } | Response::Stopped { .. } | Response::Trace(_))
    }
}
