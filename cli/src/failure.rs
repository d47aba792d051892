//! Failures: how they are told (stderr, --log) and with which status the program ends.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{SystemTime, UNIX_EPOCH};

use cofferdam_control::sentry::FailureKind;
use cofferdam_control::{LogFormat, LogLevel};

use crate::arguments::{Format, Globals};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The supervisor, or a service, refused.
    #[error("{message}")]
    Refused {
        /// For a program.
        kind: FailureKind,
        /// For a person.
        message: String,
    },
    /// The host refused something to this program.
    #[error("{what}: {source}")]
    Host {
        /// What was tried.
        what: String,
        /// The answer.
        source: std::io::Error,
    },
    /// The arguments make no sense.
    #[error("{0}")]
    Usage(String),
    /// The conversation with the supervisor broke.
    #[error("the supervisor: {0}")]
    Supervisor(String),
    /// A failure of `do` or `run` before the program ran: told apart from the program's own status where it matters.
    #[error("{0}")]
    NotRun(#[source] Box<Failure>),
    /// A failure of `exec` before the process ran.
    #[error("exec failed: {0}")]
    Exec(#[source] Box<Failure>),
}

impl Failure {
    /// A refusal of the host.
    pub fn host(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Host { what: what.into(), source }
    }

    /// The kind, if somebody told one.
    pub fn kind(&self) -> Option<FailureKind> {
        match self {
            Failure::Refused { kind, .. } => Some(*kind),
            Failure::NotRun(inner) | Failure::Exec(inner) => inner.kind(),
            _ => None,
        }
    }

    /// Whether the supervisor went away, or nobody knows what it does.
    pub fn supervisor_lost(&self) -> bool {
        match self {
            Failure::Supervisor(_) => true,
            Failure::NotRun(inner) | Failure::Exec(inner) => inner.supervisor_lost(),
            _ => false,
        }
    }

    /// 127 and 126 where a program could not be run, as a shell says it; 1 for everything else, as runc.
    pub fn exit_code(&self) -> u8 {
        match (self, self.kind()) {
            (Failure::Exec(_), _) => 255,
            (Failure::NotRun(_), Some(FailureKind::NotFound)) => 127,
            (Failure::NotRun(_), Some(FailureKind::Permission)) => 126,
            _ => 1,
        }
    }
}

/// Tells the person. A stderr that is gone, as a terminal that hung up, is no reason to end in another way.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "cofferdam: {text}");
}

/// Where messages go.
#[derive(Debug)]
pub struct Report {
    log: Option<File>,
    format: Format,
    debug: bool,
}

impl Report {
    /// Opens the log file.
    pub fn open(globals: &Globals) -> Result<Self, String> {
        let log = match &globals.log {
            None => None,
            Some(path) => {
                let file = File::options().append(true).create(true).mode(0o644).open(path);
                Some(file.map_err(|e| format!("--log {}: {e}", path.display()))?)
            }
        };
        Ok(Self { log, format: globals.log_format, debug: globals.debug })
    }

    /// The log file for the services, with how to write it. Without --log, --debug sends theirs to our stderr.
    pub fn for_services<'a>(&'a self, stderr: Option<BorrowedFd<'a>>) -> Option<(BorrowedFd<'a>, LogFormat, LogLevel)> {
        let format = match self.format {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        };
        let level = if self.debug { LogLevel::Debug } else { LogLevel::Warn };
        match &self.log {
            Some(file) => Some((file.as_fd(), format, level)),
            None if self.debug => stderr.map(|fd| (fd, format, level)),
            None => None,
        }
    }

    /// Whether there is a log file.
    pub fn has_log(&self) -> bool {
        self.log.is_some()
    }

    /// Tells a failure.
    pub fn failure(&self, failure: &Failure) {
        say(&failure.to_string());
        self.line("error", &failure.to_string());
    }

    /// Tells what an operator should know.
    pub fn warning(&self, text: &str) {
        if self.log.is_none() {
            say(text);
        }
        self.line("warning", text);
    }

    /// Tells a decision, with --debug.
    pub fn debug(&self, text: &str) {
        if self.debug {
            if self.log.is_none() {
                say(text);
            }
            self.line("debug", text);
        }
    }

    fn line(&self, level: &str, text: &str) {
        let Some(mut file) = self.log.as_ref() else { return };
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let time = cofferdam_control::rfc3339(seconds);
        let quoted = serde_json::Value::from(text);
        let line = match self.format {
            Format::Text => format!("time=\"{time}\" level={level} msg={quoted}\n"),
            Format::Json => format!("{{\"level\":\"{level}\",\"msg\":{quoted},\"time\":\"{time}\"}}\n"),
        };
        let _ = file.write_all(line.as_bytes());
    }
}
