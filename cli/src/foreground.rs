//! Staying with a container until its end: signals in, exit status out. For `do`, `run` and the stand-in.

use std::os::fd::AsFd;

use cofferdam_confine::signals::{self, Signals};
use cofferdam_control::client::{Request, Response};
use cofferdam_control::sentry::ExitStatus;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::notify::Manager;
use crate::terminal::{self, Own, Raw};

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
    /// The container's, or not ours to read: only its size matters.
    Watched,
}

impl<'a> Terminal<'a> {
    /// That of a command in the foreground.
    pub fn of(own: &'a Own) -> Self {
        match own.parts() {
            (Some(raw), _) => Self::Raw(raw),
            (None, true) => Self::Watched,
            (None, false) => Self::None,
        }
    }
}

/// A container that is stayed with.
pub struct Stay<'a> {
    /// The connection, which has asked to be told of its stops and its end.
    pub connection: &'a Connection,
    /// Its id.
    pub id: &'a str,
    /// Which of its processes: 0 for its init.
    pub process: u32,
    /// What of stdin's terminal is ours.
    pub terminal: Terminal<'a>,
    /// Whether this process stands for the container's first one as a job of a shell: it stops when that stops, and gives
    /// it its input only while it is in front.
    pub job: bool,
    /// Who is told when the container says that it is ready, and the pid that is told then. The connection has asked for that, too.
    pub manager: Option<(Manager, Option<u32>)>,
}

/// How often to look whether the shell has put us in front again, which no signal tells.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

impl Stay<'_> {
    /// Waits for the end. Every signal that `signals` takes is passed on; with a terminal, its size too.
    pub fn wait(mut self, signals: &mut Signals, trace: &mut Vec<(String, u64)>) -> Result<Ended, Failure> {
        let mut front = !(self.job && rustix::termios::isatty(std::io::stdin()));
        // Asked to stop by this signal, and waiting for the container to do so.
        let mut stopping = None;
        let mut stops = 0u32;
        loop {
            if !front && terminal::in_front() {
                front = true;
                self.come_to_front(stops)?;
            }
            while let Some(response) = self.connection.try_next()? {
                match response {
                    Response::Exited { id, process, status, reason } if id == self.id && process == self.process => {
                        return Ok(Ended { status, reason });
                    }
                    Response::Stopped { id, signal } if id == self.id && self.job => {
                        stops = stops.wrapping_add(1);
                        // Without a terminal no shell waits for a stop, and it may be continued from within.
                        if stopping.is_some() || matches!(self.terminal, Terminal::Raw(_)) {
                            front = self.stop((signal, stops), stopping.take(), signals)?;
                        } else {
                            self.come_to_front(stops)?;
                        }
                    }
                    Response::Ready { is: true, .. } => {
                        if let Some((manager, pid)) = self.manager.take() {
                            // It may take its time, and what it makes of it is its own affair.
                            std::thread::spawn(move || {
                                pid.map_or_else(|| manager.ready(), |pid| manager.ready_as(pid))
                            });
                        }
                    }
                    Response::Trace(phases) => *trace = phases,
                    _ => {}
                }
            }
            while let Some(signal) = signals.pending() {
                if signal.number == Signal::TSTP.as_raw() {
                    // The container stops, then we do, so that the shell that waits for us sees a stopped job.
                    self.kill(Signal::STOP.as_raw(), true)?;
                    stopping = Some(signal.number);
                    if !self.job {
                        self.stop((signal.number, stops), stopping.take(), signals)?;
                    }
                } else {
                    self.pass_on(signal.number)?;
                }
            }
            let mut fds =
                [PollFd::new(self.connection, PollFlags::IN), PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
            match poll(&mut fds, (!front).then_some(&LOOK)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Failure::Host { what: "poll".into(), source: e.into() }),
            }
        }
    }

    fn kill(&self, signal: i32, all: bool) -> Result<(), Failure> {
        self.connection.tell(&Request::Kill { id: self.id.into(), process: self.process, signal, all })
    }

    /// Tells what the terminal is like now, and that it is the container's.
    fn come_to_front(&self, stops: u32) -> Result<(), Failure> {
        if let Terminal::Raw(raw) = self.terminal {
            raw.again();
            self.resize()?;
        }
        self.connection.tell(&Request::Front { id: self.id.into(), stops })
    }

    /// Stops this process because the container has stopped by `signal`, for the `stops`th time, or because this process was `asked` to;
    /// continues the container once it is continued itself. Whether this process is in front then.
    fn stop(&self, (signal, stops): (i32, u32), asked: Option<i32>, signals: &mut Signals) -> Result<bool, Failure> {
        let mut group = false;
        if let Terminal::Raw(raw) = self.terminal {
            raw.restore();
            // Where the terminal sends a signal it does so to everybody in front, as a script that runs us.
            group = asked.is_none() && signal != Signal::STOP.as_raw();
        }
        signals::stop_by(asked.unwrap_or(signal), group);
        let mut later = Vec::new();
        while let Some(signal) = signals.pending() {
            if signal.number != Signal::CONT.as_raw() {
                later.push(signal.number);
            }
        }
        let front = terminal::in_front();
        if front {
            self.come_to_front(stops)?;
        }
        self.kill(Signal::CONT.as_raw(), asked.is_some())?;
        later.into_iter().try_for_each(|number| self.pass_on(number))?;
        Ok(front)
    }

    fn resize(&self) -> Result<(), Failure> {
        match terminal::host_size() {
            Some((rows, cols)) => {
                let (id, process) = (self.id.into(), self.process);
                self.connection.tell(&Request::Resize { id, process, rows, cols })
            }
            None => Ok(()),
        }
    }

    fn pass_on(&self, number: i32) -> Result<(), Failure> {
        if number == Signal::WINCH.as_raw() && !matches!(self.terminal, Terminal::None) {
            return self.resize();
        }
        self.kill(number, false)
    }
}
