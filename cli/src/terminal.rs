//! Terminals on the host's side: raw mode for `do` and `run`, and the pty that goes to a console socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::termios::{OptionalActions, Termios, Winsize};

use crate::failure::Failure;

/// The user's terminal in raw mode; put back as it was when this goes, however the program ends.
#[derive(Debug)]
pub struct Raw {
    tty: OwnedFd,
    before: Termios,
}

impl Raw {
    /// Puts the terminal of stdin into raw mode.
    pub fn enter() -> Result<Self, Failure> {
        let host = |e: rustix::io::Errno| Failure::Host { what: "the terminal".into(), source: e.into() };
        let tty = std::io::stdin().as_fd().try_clone_to_owned().map_err(Failure::host("the terminal"))?;
        let before = rustix::termios::tcgetattr(&tty).map_err(host)?;
        let raw = Self { tty, before };
        raw.again();
        Ok(raw)
    }

    /// Raw mode again, after `restore`. Nothing while another process group is in front, whose terminal it is then.
    pub fn again(&self) {
        if !in_front() {
            return;
        }
        let mut raw = self.before.clone();
        raw.make_raw();
        let _ = rustix::termios::tcsetattr(&self.tty, OptionalActions::Drain, &raw);
    }

    /// As it was. Nothing while another process group is in front.
    pub fn restore(&self) {
        if in_front() {
            let _ = rustix::termios::tcsetattr(&self.tty, OptionalActions::Drain, &self.before);
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.restore();
    }
}

/// Whether stdin, stdout and stderr are all one kind of thing: a terminal.
pub fn interactive() -> bool {
    let (a, b, c) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    [a.as_fd(), b.as_fd(), c.as_fd()].iter().all(rustix::termios::isatty)
}

/// Whether stdin is read by nobody else: its terminal's foreground is our process group, or it is no terminal of ours.
pub fn in_front() -> bool {
    rustix::termios::tcgetpgrp(std::io::stdin()).map_or(true, |front| front == rustix::process::getpgrp())
}

/// What goes into a container: its terminal, or ours, or our three streams; then what it gets besides.
pub fn streams<'a>(slave: Option<BorrowedFd<'a>>, tty: bool, more: &'a [OwnedFd]) -> Vec<BorrowedFd<'a>> {
    use rustix::stdio::{stderr, stdin, stdout};
    let mut all = match (slave, tty) {
        (Some(slave), _) => vec![slave],
        (None, true) => vec![stdin()],
        (None, false) => vec![stdin(), stdout(), stderr()],
    };
    all.extend(more.iter().map(AsFd::as_fd));
    all
}

/// Rows and columns of the user's terminal, if one of the standard streams is one.
pub fn host_size() -> Option<(u16, u16)> {
    let (a, b, c) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    [a.as_fd(), b.as_fd(), c.as_fd()].into_iter().find_map(size)
}

/// Rows and columns.
pub fn size(tty: BorrowedFd<'_>) -> Option<(u16, u16)> {
    rustix::termios::tcgetwinsize(tty).ok().map(|w: Winsize| (w.ws_row, w.ws_col))
}

/// A pty: its master, and the slave, raw, as the Sentry has a line discipline of its own.
fn pty(size: Option<(u16, u16)>) -> Result<(OwnedFd, OwnedFd), Failure> {
    use rustix::pty::OpenptFlags;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags).map_err(host("a pty"))?;
    rustix::pty::grantpt(&master).map_err(host("grantpt"))?;
    rustix::pty::unlockpt(&master).map_err(host("unlockpt"))?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).map_err(host("TIOCGPTPEER"))?;
    if let Some((rows, cols)) = size {
        let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).map_err(host("TIOCSWINSZ"))?;
    }
    let mut mode = rustix::termios::tcgetattr(&slave).map_err(host("tcgetattr"))?;
    mode.make_raw();
    rustix::termios::tcsetattr(&slave, OptionalActions::Now, &mode).map_err(host("tcsetattr"))?;
    Ok((master, slave))
}

fn host(what: &'static str) -> impl Fn(rustix::io::Errno) -> Failure {
    move |e| Failure::Host { what: what.into(), source: e.into() }
}

/// A terminal of the container's own for a foreground command whose standard streams are not all the user's terminal: what comes in on
/// stdin goes to it, and what it shows goes to stdout. As runc, which wants a terminal to be there for it all the same.
#[derive(Debug)]
pub struct Relay {
    slave: Option<OwnedFd>,
    master: OwnedFd,
    /// Rows and columns of the user's terminal.
    pub size: Option<(u16, u16)>,
    going: Option<(OwnedFd, std::thread::JoinHandle<()>)>,
}

impl Relay {
    /// Makes the terminal.
    pub fn new() -> Result<Self, Failure> {
        let size = match host_size() {
            Some(size) => Some(size),
            None => size(std::fs::File::open("/dev/tty").map_err(Failure::host("open /dev/tty"))?.as_fd()),
        };
        let (master, slave) = pty(size)?;
        Ok(Self { slave: Some(slave), master, size, going: None })
    }

    /// The container's end, until it has been sent.
    pub fn slave(&self) -> Option<BorrowedFd<'_>> {
        self.slave.as_ref().map(AsFd::as_fd)
    }

    /// The container's end has been sent: bytes go to and fro from now on.
    pub fn go(&mut self) -> Result<(), Failure> {
        self.slave = None;
        let (stop, told) = std::io::pipe().map_err(Failure::host("pipe"))?;
        let copy = || self.master.try_clone().map_err(Failure::host("a pty"));
        let (to, from) = (copy()?, copy()?);
        // Ends with the process, at the latest.
        std::thread::spawn(move || std::io::copy(&mut std::io::stdin(), &mut std::fs::File::from(to)));
        let show = std::thread::spawn(move || show(from, &stop));
        self.going = Some((told.into(), show));
        Ok(())
    }

    /// All that was written to the terminal is shown when this returns: its process has ended.
    pub fn finish(&mut self) {
        if let Some((told, show)) = self.going.take() {
            drop(told);
            let _ = show.join();
        }
    }
}

/// The terminal of a command in the foreground, unless it has none or a console socket gets it: the user's own, or one that is relayed.
#[derive(Debug)]
pub struct Own {
    wanted: bool,
    relay: Option<Relay>,
    raw: Option<Raw>,
}

impl Own {
    /// Sees to one if it is `wanted`.
    pub fn new(wanted: bool) -> Result<Self, Failure> {
        let relay = if wanted && !interactive() { Some(Relay::new()?) } else { None };
        Ok(Self { wanted, relay, raw: None })
    }

    /// What is sent for it, if not our stdin.
    pub fn slave(&self) -> Option<BorrowedFd<'_>> {
        self.relay.as_ref().and_then(Relay::slave)
    }

    /// Rows and columns, if it is wanted.
    pub fn size(&self) -> Option<(u16, u16)> {
        if self.wanted { self.relay.as_ref().map_or_else(host_size, |r| r.size) } else { None }
    }

    /// The container has it: keys go there from now on.
    pub fn go(&mut self) -> Result<(), Failure> {
        self.relay.as_mut().map_or(Ok(()), Relay::go)?;
        if self.wanted && rustix::termios::isatty(rustix::stdio::stdin()) {
            self.raw = Some(Raw::enter()?);
        }
        Ok(())
    }

    /// The user's, while it is raw, and whether another is relayed.
    pub fn parts(&self) -> (Option<&Raw>, bool) {
        (self.raw.as_ref(), self.relay.is_some())
    }

    /// Its process has ended: all that was written is shown, and the user's is as it was.
    pub fn finish(mut self) {
        self.relay.iter_mut().for_each(Relay::finish);
    }
}

/// Copies the master's bytes to stdout until no slave is open, or `stop` is closed and nothing more comes.
fn show(master: OwnedFd, stop: &impl AsFd) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    // What others inside still hold the terminal for is no longer ours to show.
    const LAST: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    let mut bytes = [0; 4096];
    let mut ending = false;
    loop {
        let mut fds = [PollFd::new(&master, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        let asked = if ending { &mut fds[..1] } else { &mut fds[..] };
        match poll(asked, ending.then_some(&LAST)) {
            Ok(0) => return,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
        }
        let [readable, told] = fds.map(|f| !f.revents().is_empty());
        ending |= told;
        if readable {
            match rustix::io::read(&master, &mut bytes) {
                Ok(0) | Err(_) => return,
                // Whoever reads us may be gone: the container goes on all the same.
                Ok(n) => drop(std::io::Write::write_all(&mut std::io::stdout(), &bytes[..n])),
            }
            let _ = std::io::Write::flush(&mut std::io::stdout());
        }
    }
}

/// Makes a pty, sends its master over the console socket and gives the slave.
pub fn console(socket: &Path, size: Option<(u16, u16)>) -> Result<OwnedFd, Failure> {
    let (master, slave) = pty(size)?;
    let stream =
        UnixStream::connect(socket).map_err(Failure::host(format!("--console-socket {}", socket.display())))?;
    let rights = [master.as_fd()];
    let mut space = [std::mem::MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&rights));
    // runc sends the slave's name with it, which clients show at most.
    let name = rustix::pty::ptsname(&master, Vec::new()).map_err(host("ptsname"))?;
    let parts = [std::io::IoSlice::new(name.as_bytes())];
    rustix::net::sendmsg(&stream, &parts, &mut control, SendFlags::NOSIGNAL).map_err(host("--console-socket"))?;
    Ok(slave)
}
