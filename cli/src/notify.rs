//! Telling the caller's service manager that a container is ready (`sd_notify(3)`), as runc does.
//!
//! Owns what is said to the socket that the caller names (NOTIFY_SOCKET), with the caller's rights: that it is ready, who is to be watched
//! from now on, and nothing else. Of what the container wrote to its own socket nothing is here but that it has said so. Called by
//! `commands`, `foreground` and `standin`.

use std::ffi::OsStr;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// How long a service manager may take to have read all.
const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// Whether the caller has a socket for such news.
pub fn asked() -> bool {
    named().is_some()
}

fn named() -> Option<std::ffi::OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())
}

/// The one that is the document's to name: see `notify` in the supervisor's record.
pub fn recorded(root: &Path, id: &str) -> Option<std::io::Result<Manager>> {
    let text = std::fs::read(root.join(id).join("state.json")).ok()?;
    let state: serde_json::Value = serde_json::from_slice(&text).ok()?;
    state.get("notify")?.as_str().map(|path| Manager::at(OsStr::new(path)))
}

/// Who is told.
#[derive(Debug)]
pub struct Manager(UnixDatagram);

impl Manager {
    /// The caller's, if he has one.
    pub fn of_caller() -> Option<std::io::Result<Self>> {
        named().map(|name| Self::at(&name))
    }

    /// The one at a path, or, after an `@`, with an abstract name.
    pub fn at(name: &OsStr) -> std::io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        match name.as_bytes() {
            [b'@', name @ ..] => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
            // Its path may be longer than an address can be (conmon's are).
            _ => {
                let place = rustix::fs::openat(CWD, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
                socket.connect(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
            }
        }
        Ok(Self(socket))
    }

    /// Says that it is ready.
    pub fn ready(&self) -> std::io::Result<()> {
        self.0.send(b"READY=1\n").map(drop)
    }

    /// Says that it is ready and which process it is; comes back when that has been read, or after half a minute.
    pub fn ready_as(&self, pid: u32) -> std::io::Result<()> {
        self.ready()?;
        self.0.send(format!("MAINPID={pid}\n").as_bytes())?;
        let (ours, theirs) = std::io::pipe()?;
        self.send_with(b"BARRIER=1", theirs.as_fd())?;
        drop(theirs);
        // Whoever has read it closes the other end.
        let mut fds = [PollFd::new(&ours, PollFlags::empty())];
        poll(&mut fds, Some(&PATIENCE))?;
        Ok(())
    }

    fn send_with(&self, text: &[u8], right: BorrowedFd<'_>) -> std::io::Result<()> {
        let mut space = [std::mem::MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let rights = [right];
        control.push(SendAncillaryMessage::ScmRights(&rights));
        sendmsg(&self.0, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}
