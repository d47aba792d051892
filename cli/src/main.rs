//! `cofferdam`: the command line of an OCI runtime, and `do` for one untrusted command.
//!
//! Reads arguments, asks the supervisor of its root directory (starting one if none runs), and for `do` and `run`
//! stays as the process that stands for the container. It never touches what is inside a container: stdio goes to the
//! Gofer as descriptors.

mod arguments;
mod commands;
mod connection;
mod document;
mod failure;
mod foreground;
mod standin;
mod terminal;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;
use crate::failure::Report;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(e) => {
            let _ = e.print();
            // As runc: 1 for wrong usage, 0 for help and version.
            return ExitCode::from(u8::from(e.use_stderr()));
        }
    };
    let report = match Report::open(&arguments.globals) {
        Ok(report) => report,
        Err(e) => {
            failure::say(&e);
            return ExitCode::FAILURE;
        }
    };
    match commands::run(arguments, &report) {
        Ok(code) => code,
        Err(e) => {
            report.failure(&e);
            ExitCode::from(e.exit_code())
        }
    }
}
