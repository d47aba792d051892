//! One connection, used by blocking threads.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Mutex;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketType,
};

/// Most descriptors that one message may carry (the kernel's own limit is 253).
pub const MAX_DESCRIPTORS: usize = 64;

/// Where one message ends and the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One message is one packet (SOCK_SEQPACKET).
    Packet,
    /// A message starts with its whole length as a little-endian 32-bit word (9P on streams).
    Stream,
}

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The peer closed its end.
    #[error("the peer closed the connection")]
    Closed,
    /// The peer announced or sent more than this side takes.
    #[error("a message of {got} bytes where at most {max} are taken")]
    TooLong {
        /// What the peer sent or announced, in bytes.
        got: usize,
        /// The cap, in bytes.
        max: usize,
    },
    /// The peer announced a message shorter than its own length word.
    #[error("a message that claims to be {0} bytes long")]
    TooShort(usize),
    /// More descriptors came than fit, and the kernel dropped some.
    #[error("a message with more than {MAX_DESCRIPTORS} descriptors")]
    TooManyDescriptors,
    /// The host refused the call.
    #[error("{what}: {source}")]
    Host {
        /// The call.
        what: &'static str,
        /// The host's answer.
        source: Errno,
    },
}

/// A connected socket. Any number of threads may send at once; on a packet socket any number may receive at once.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
    framing: Framing,
    /// Keeps the parts of two messages apart on a stream.
    sending: Mutex<()>,
    receiving: Mutex<()>,
}

fn host(what: &'static str) -> impl Fn(Errno) -> TransportError {
    move |source| match source {
        Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => TransportError::Closed,
        source => TransportError::Host { what, source },
    }
}

impl Channel {
    /// Wraps a connected socket; its type decides the framing.
    pub fn new(fd: OwnedFd) -> Result<Self, TransportError> {
        let kind = rustix::net::sockopt::socket_type(&fd).map_err(host("SO_TYPE"))?;
        let framing = if kind == SocketType::STREAM { Framing::Stream } else { Framing::Packet };
        Ok(Self { fd, framing, sending: Mutex::new(()), receiving: Mutex::new(()) })
    }

    /// Of a packet socket, as whoever sent it says: for who may not ask the host about sockets. With another kind every message is an error.
    pub fn of_packets(fd: OwnedFd) -> Self {
        Self { fd, framing: Framing::Packet, sending: Mutex::new(()), receiving: Mutex::new(()) }
    }

    /// A connected pair of packet sockets.
    pub fn pair() -> Result<(Self, Self), TransportError> {
        let (a, b) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .map_err(host("socketpair"))?;
        Ok((Self::new(a)?, Self::new(b)?))
    }

    /// How messages are told apart.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Gives the descriptor back.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Ends both directions: everyone who waits on either side wakes with [`TransportError::Closed`].
    pub fn shutdown(&self) {
        let _ = rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Both);
    }

    /// Sends one message. Blocks while the peer's queue is full.
    pub fn send(&self, message: &[u8]) -> Result<(), TransportError> {
        match self.framing {
            Framing::Packet => loop {
                match rustix::net::send(&self.fd, message, SendFlags::NOSIGNAL) {
                    Err(Errno::INTR) => {}
                    Err(e) => return Err(host("send")(e)),
                    Ok(_) => return Ok(()),
                }
            },
            Framing::Stream => {
                let _one = self.sending.lock();
                let mut rest = message;
                while !rest.is_empty() {
                    match rustix::net::send(&self.fd, rest, SendFlags::NOSIGNAL) {
                        Err(Errno::INTR) => {}
                        Err(e) => return Err(host("send")(e)),
                        Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                    }
                }
                Ok(())
            }
        }
    }

    /// Receives one message into `into` (cleared first), at most `max` bytes long. Blocks until there is one.
    pub fn recv(&self, into: &mut Vec<u8>, max: usize) -> Result<(), TransportError> {
        into.clear();
        match self.framing {
            Framing::Packet => {
                into.reserve(max);
                loop {
                    // Capacity may exceed max; the excess is of no harm, the check below is on what really came.
                    match rustix::net::recv(&self.fd, spare_capacity(into), RecvFlags::TRUNC) {
                        Err(Errno::INTR) => {}
                        Err(e) => return Err(host("recv")(e)),
                        Ok((_, 0)) => return Err(TransportError::Closed),
                        Ok((_, got)) if got > max => return Err(TransportError::TooLong { got, max }),
                        Ok(_) => return Ok(()),
                    }
                }
            }
            Framing::Stream => {
                let _one = self.receiving.lock();
                self.fill(into, 4, true)?;
                let word = into.first_chunk::<4>().copied().unwrap_or_default();
                let got = u32::from_le_bytes(word) as usize;
                if got > max {
                    return Err(TransportError::TooLong { got, max });
                }
                if got < 4 {
                    return Err(TransportError::TooShort(got));
                }
                self.fill(into, got, false)
            }
        }
    }

    /// As [`Channel::send`] on a packet socket, but gives false instead of blocking.
    pub fn try_send(&self, message: &[u8]) -> Result<bool, TransportError> {
        if self.framing != Framing::Packet {
            return Err(host("a try on a stream")(Errno::OPNOTSUPP));
        }
        match rustix::net::send(&self.fd, message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(e) => Err(host("send")(e)),
            Ok(_) => Ok(true),
        }
    }

    /// As [`Channel::recv`] on a packet socket, but gives false instead of blocking.
    pub fn try_recv(&self, into: &mut Vec<u8>, max: usize) -> Result<bool, TransportError> {
        if self.framing != Framing::Packet {
            return Err(host("a try on a stream")(Errno::OPNOTSUPP));
        }
        into.clear();
        into.reserve(max);
        match rustix::net::recv(&self.fd, spare_capacity(into), RecvFlags::TRUNC | RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(e) => Err(host("recv")(e)),
            Ok((_, 0)) => Err(TransportError::Closed),
            Ok((_, got)) if got > max => Err(TransportError::TooLong { got, max }),
            Ok(_) => Ok(true),
        }
    }

    /// Reads from a stream until `into` holds `len` bytes.
    fn fill(&self, into: &mut Vec<u8>, len: usize, may_end: bool) -> Result<(), TransportError> {
        let mut at = into.len();
        into.resize(len, 0);
        while at < len {
            let rest = into.get_mut(at..).unwrap_or_default();
            match rustix::net::recv(&self.fd, rest, RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                Err(e) => return Err(host("recv")(e)),
                Ok((_, 0)) if may_end && at == 0 => return Err(TransportError::Closed),
                Ok((_, 0)) => return Err(TransportError::TooShort(at)),
                Ok((_, n)) => at += n,
            }
        }
        Ok(())
    }

    /// Sends one message with descriptors. Packet sockets only: a stream would tear the two apart.
    pub fn send_with(&self, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), TransportError> {
        if self.framing != Framing::Packet {
            return Err(host("descriptors on a stream")(Errno::OPNOTSUPP));
        }
        if fds.len() > MAX_DESCRIPTORS {
            return Err(TransportError::TooManyDescriptors);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(TransportError::TooManyDescriptors);
        }
        loop {
            match rustix::net::sendmsg(&self.fd, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                Err(e) => return Err(host("sendmsg")(e)),
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Receives one message of at most `max` bytes with the descriptors that came with it (close-on-exec).
    pub fn recv_with(&self, into: &mut Vec<u8>, max: usize) -> Result<Vec<OwnedFd>, TransportError> {
        if self.framing != Framing::Packet {
            return Err(host("descriptors on a stream")(Errno::OPNOTSUPP));
        }
        into.clear();
        into.resize(max, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::TRUNC;
        let message = loop {
            match rustix::net::recvmsg(&self.fd, &mut [IoSliceMut::new(into)], &mut control, flags) {
                Err(Errno::INTR) => {}
                Err(e) => return Err(host("recvmsg")(e)),
                Ok(m) => break m,
            }
        };
        let mut fds = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(these) = part {
                fds.extend(these);
            }
        }
        if message.bytes == 0 && fds.is_empty() {
            return Err(TransportError::Closed);
        }
        if message.bytes > max {
            return Err(TransportError::TooLong { got: message.bytes, max });
        }
        if message.flags.contains(ReturnFlags::CTRUNC) {
            return Err(TransportError::TooManyDescriptors);
        }
        into.truncate(message.bytes);
        Ok(fds)
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn packets_keep_their_edges_and_carry_descriptors() {
        let (a, b) = Channel::pair().unwrap();
        a.send(b"one").unwrap();
        let (r, w) = std::io::pipe().unwrap();
        a.send_with(b"two", &[r.as_fd()]).unwrap();
        let mut m = Vec::new();
        b.recv(&mut m, 16).unwrap();
        assert_eq!(m, b"one");
        let fds = b.recv_with(&mut m, 16).unwrap();
        assert_eq!((m.as_slice(), fds.len()), (&b"two"[..], 1));
        (&w).write_all(b"x").unwrap();
        let mut x = [0; 1];
        rustix::io::read(&fds[0], &mut x).unwrap();
        assert_eq!(&x, b"x");
        drop(a);
        assert!(matches!(b.recv(&mut m, 16), Err(TransportError::Closed)));
    }

    #[test]
    fn an_oversize_packet_is_refused_not_cut() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&[7; 100_000]).unwrap();
        let mut m = Vec::new();
        assert!(matches!(b.recv(&mut m, 10), Err(TransportError::TooLong { got: 100_000, max: 10 })));
    }

    #[test]
    fn a_stream_is_framed_by_its_length_word_which_is_capped() {
        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        let b = Channel::new(b.into()).unwrap();
        (&a).write_all(&[6, 0, 0, 0, 1]).unwrap();
        let writer = std::thread::spawn(move || {
            (&a).write_all(&[2, 4, 0, 0, 0]).unwrap();
            (&a).write_all(&[3, 0, 0, 0]).unwrap();
            (&a).write_all(&[255; 4]).unwrap();
        });
        let mut m = Vec::new();
        b.recv(&mut m, 64).unwrap();
        assert_eq!(m, [6, 0, 0, 0, 1, 2]);
        b.recv(&mut m, 64).unwrap();
        assert_eq!(m, [4, 0, 0, 0]);
        assert!(matches!(b.recv(&mut m, 64), Err(TransportError::TooShort(3))));
        assert!(matches!(b.recv(&mut m, 64), Err(TransportError::TooLong { .. })));
        writer.join().unwrap();
        assert!(matches!(b.recv(&mut m, 64), Err(TransportError::Closed)));
    }
}
