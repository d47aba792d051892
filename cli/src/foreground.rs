//! Staying with a container until its end: signals in, exit status out. For `do`, `run` and the stand-in.

use std::os::fd::AsFd;

use cofferdam_confine::signals::{self, Signals};
use cofferdam_control::client::{Request, Response};
use cofferdam_control::sentry::ExitStatus;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::terminal::Raw;

/// How a container ended, as the supervisor told it.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// Whose fault, if not the program's.
    pub reason: Option<String>,
}

/// The terminal of stdin, as far as it is this program's business.
#[derive(Debug, Clone, Copy)]
pub enum Terminal<'a> {
    /// There is none.
    None,
    /// The user's, in raw mode.
    Raw(&'a Raw),
    /// The container's: only its size matters.
    Watched,
}

/// Waits for the end of `id`, which the connection has asked to be told. Every signal that `signals` takes is passed
/// on; with a terminal, its size too.
pub fn stay(
    connection: &Connection,
    id: &str,
    signals: &mut Signals,
    terminal: Terminal<'_>,
    trace: &mut Vec<(String, u64)>,
) -> Result<Ended, Failure> {
    loop {
        while let Some(response) = connection.try_next()? {
            match response {
                Response::Exited { id: ended, status, reason } if ended == id => return Ok(Ended { status, reason }),
                Response::Trace(phases) => *trace = phases,
                // Answers to signals: one that came too late is nobody's concern.
                _ => {}
            }
        }
        while let Some(signal) = signals.pending() {
            pass_on(connection, id, signal.number, terminal)?;
        }
        let mut fds =
            [PollFd::new(connection, PollFlags::IN), PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Failure::Host { what: "poll".into(), source: e.into() }),
        }
    }
}

fn pass_on(connection: &Connection, id: &str, number: i32, terminal: Terminal<'_>) -> Result<(), Failure> {
    let kill = |signal, all| connection.send(&Request::Kill { id: id.into(), signal, all }, &[]);
    if number == Signal::WINCH.as_raw() && !matches!(terminal, Terminal::None) {
        return match crate::terminal::size(std::io::stdin().as_fd()) {
            Some((rows, cols)) => connection.send(&Request::Resize { id: id.into(), rows, cols }, &[]),
            None => Ok(()),
        };
    }
    if number == Signal::TSTP.as_raw() {
        // The container stops, then we do, so that the shell that waits for us sees a stopped job.
        kill(Signal::STOP.as_raw(), true)?;
        if let Terminal::Raw(raw) = terminal {
            raw.restore();
        }
        signals::stop_self();
        if let Terminal::Raw(raw) = terminal {
            raw.again();
        }
        return kill(Signal::CONT.as_raw(), true);
    }
    kill(number, false)
}
