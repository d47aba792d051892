//! Supervisor <-> Gofer.

use serde::{Deserialize, Serialize};

use crate::{LogLine, LogSettings};

/// What an export's root descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExportKind {
    /// A directory, with everything beneath it.
    Directory,
    /// One file (a file bind mount).
    File,
}

/// A tree (or a file) of the host that a sandbox may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// Its name in `Tattach aname="export/NAME"`.
    pub name: String,
    /// Whether every change is refused.
    pub read_only: bool,
    /// What the descriptor is.
    pub kind: ExportKind,
    /// An export before it in the list, both for writing, that names may be moved and linked from and to: the work directory of an
    /// overlay names the directory that takes the changes.
    pub beside: Option<String>,
    /// The descriptor is a copy of the host's mounts there that is mounted nowhere yet. What the host mounts below it,
    /// or takes away, is to be seen, and the Gofer is to keep no mount below it busy.
    pub follows: bool,
}

/// The first message a Gofer receives. Descriptors with it, in this order: the files socket, the stdio socket, the
/// cache memfd, then one O_PATH descriptor for each of `exports`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoferOrders {
    /// The sandbox's id, for the log.
    pub sandbox: String,
    /// Size of the cache memfd in bytes.
    pub cache_size: u64,
    /// What may be served.
    pub exports: Vec<Export>,
    /// How to log.
    pub log: LogSettings,
}

/// The name of the standard streams of a container's process: 0 is its init. Ids of containers have no slash.
pub fn stdio_name(id: &str, process: u32) -> String {
    if process == 0 { id.to_owned() } else { format!("{id}/{process}") }
}

/// Every later message to the Gofer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGofer {
    /// Serve these descriptors as `stdio/CONTAINER/N`: with `tty` one terminal, else three descriptors for 0, 1, 2;
    /// what comes after those is for 3 and on. Answered by
    /// [`FromGofer::Done`].
    AddStdio {
        /// The container whose stdio it is.
        container: String,
        /// Whether the one descriptor is a terminal.
        tty: bool,
    },
    /// Forget and close them. Answered by [`FromGofer::Done`].
    RemoveStdio {
        /// The container whose stdio it was.
        container: String,
    },
    /// End. No answer but the channel's end.
    Stop,
}

/// Everything a Gofer says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGofer {
    /// The walls are up and 9P is served.
    Ready {
        /// The Landlock ABI in force, 0 where the kernel has none.
        landlock: u32,
    },
    /// It cannot go on, or the last order cannot be carried out.
    Failed {
        /// Why.
        message: String,
    },
    /// The last order has been carried out.
    Done,
    /// A line for the log.
    Log(LogLine),
}
