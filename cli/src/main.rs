//! `cofferdam`: the command line of an OCI runtime, and `do` for one untrusted command.
//!
//! Reads arguments, asks the supervisor of its root directory (starting one if none runs), and for `do` and `run`
//! stays as the process that stands for the container. It never touches what is inside a container: stdio goes to the
//! Gofer as descriptors.

mod activation;
mod arguments;
mod commands;
mod connection;
mod document;
mod events;
mod exec;
mod failure;
mod features;
mod foreground;
mod hooks;
mod namespaces;
mod network;
mod notify;
mod sources;
mod standin;
mod terminal;
mod update;

use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ErrorKind};

use crate::arguments::Arguments;
use crate::failure::Report;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => {
            // In runc's words.
            if let (ErrorKind::InvalidSubcommand, Some(word)) = (e.kind(), e.get(ContextKind::InvalidSubcommand)) {
                failure::say(&format!("No help topic for '{word}'"));
                return ExitCode::FAILURE;
            }
            let _ = e.print();
            // As runc: 1 for wrong usage, 0 for help and version.
            return ExitCode::from(u8::from(e.use_stderr()));
        }
    };
    let count = arguments.command.preserved();
    let more = match cofferdam_confine::take_inherited(count) {
        Ok(more) => more,
        Err(e) => {
            failure::say(&format!("descriptors 3 to {} (LISTEN_FDS, --preserve-fds): {e}", count.saturating_add(2)));
            return ExitCode::FAILURE;
        }
    };
    let report = match Report::open(&arguments.globals) {
        Ok(report) => report,
        Err(e) => {
            failure::say(&e);
            return ExitCode::FAILURE;
        }
    };
    match commands::run(arguments, &more, &report) {
        Ok(code) => code,
        Err(e) => {
            report.failure(&e);
            ExitCode::from(e.exit_code())
        }
    }
}
