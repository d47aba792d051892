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

/// Rows and columns.
pub fn size(tty: BorrowedFd<'_>) -> Option<(u16, u16)> {
    rustix::termios::tcgetwinsize(tty).ok().map(|w: Winsize| (w.ws_row, w.ws_col))
}

/// Makes a pty, sends its master over the console socket and gives the slave, raw: the Sentry has a line discipline of
/// its own.
pub fn console(socket: &Path, size: Option<(u16, u16)>) -> Result<OwnedFd, Failure> {
    use rustix::pty::OpenptFlags;
    let host = |what: &'static str| move |e: rustix::io::Errno| Failure::Host { what: what.into(), source: e.into() };
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
