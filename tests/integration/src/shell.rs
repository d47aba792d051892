//! A shell in a container that a test tells what to do, line by line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test helpers: they fail by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Its script: it does what each line says, and then tells the status.
pub const SHELL: &str = "while read -r line; do eval \"$line\" 2>&1; echo \"=== $?\"; done";

/// One.
#[derive(Debug)]
pub struct Shell {
    /// Its process.
    pub child: Child,
    /// Where it is told.
    pub input: Option<ChildStdin>,
    /// What it says.
    pub output: BufReader<ChildStdout>,
}

impl Shell {
    /// Of a command that runs [`SHELL`].
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    /// What a line says, and the line with its status.
    pub fn say(&mut self, line: &str) -> (String, String) {
        writeln!(self.input.as_ref().unwrap(), "{line}").unwrap();
        let mut said = String::new();
        loop {
            let mut got = String::new();
            assert!(self.output.read_line(&mut got).unwrap() > 0, "it ended at {line:?}: {said}");
            if let Some(status) = got.strip_prefix("=== ") {
                return (said, status.to_owned());
            }
            said.push_str(&got);
        }
    }

    /// Ends it, which must be well.
    pub fn end(mut self) {
        self.input = None;
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.input = None;
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
