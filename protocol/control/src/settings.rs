//! How a service logs. Services hold no log file: their lines travel over the control channel to the supervisor,
//! which bounds them, escapes them and writes them where the command line asked.

use serde::{Deserialize, Serialize};

/// How much a service reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LogLevel {
    /// Only what ends a sandbox or a request.
    Error,
    /// And what an operator should look at.
    Warn,
    /// And the milestones of a sandbox's life.
    Info,
    /// And each decision (`--debug`).
    Debug,
    /// And each system call.
    Trace,
}

/// The shape of a line in the log file (`--log-format`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFormat {
    /// `time="..." level=... msg="..."`, as runc writes it.
    Text,
    /// One JSON object a line with `level`, `msg` and `time`.
    Json,
}

/// What a service is told about logging. A service sends a [`LogLine`] for everything at or above `level` in
/// severity, over its control channel, and never writes to the container's stdio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSettings {
    /// The least severe level to report.
    pub level: LogLevel,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: LogLevel::Warn }
    }
}

/// One line of a service's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Its severity.
    pub level: LogLevel,
    /// The module it comes from.
    pub target: String,
    /// The text. The receiver cuts it at 4 KiB and escapes control characters.
    pub message: String,
}
