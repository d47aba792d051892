//! Framing: messages over a SOCK_SEQPACKET socket.
//!
//! A packet is one byte (0: the message ends here, 1: more follows) and up to 60 KiB of the message. A message of more
//! than one packet is put together by the receiver up to [`MAX_MESSAGE`]; its descriptors come in the first packets, at
//! most [`PER_PACKET`] each and [`MAX_DESCRIPTORS`] altogether. A peer that breaks a rule gets an error, which the
//! owner answers by closing the channel.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, send, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest message in bytes. A container's arguments and environment (2 MiB on Linux) fit.
pub const MAX_MESSAGE: usize = 4 << 20;
/// The most descriptors with one message.
pub const MAX_DESCRIPTORS: usize = 256;
/// The most descriptors with one packet.
const PER_PACKET: usize = 64;
/// The most bytes of a message in one packet.
const BODY: usize = 60 << 10;

const LAST: u8 = 0;
const MORE: u8 = 1;

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The peer closed the channel.
    #[error("the peer closed the channel")]
    Closed,
    /// The host refused.
    #[error("{0}: {1}")]
    Host(&'static str, Errno),
    /// A message is longer than [`MAX_MESSAGE`].
    #[error("a message of more than {MAX_MESSAGE} bytes")]
    TooLong,
    /// More descriptors than [`MAX_DESCRIPTORS`] with a message.
    #[error("more than {MAX_DESCRIPTORS} descriptors with a message")]
    TooManyDescriptors,
    /// A packet that is none of ours.
    #[error("a broken packet: {0}")]
    Broken(&'static str),
    /// The bytes are not the message that was expected.
    #[error("a broken message: {0}")]
    Decode(String),
    /// A message of ours cannot be written down (a programming error).
    #[error("a message that cannot be encoded: {0}")]
    Encode(String),
}

/// A message and the descriptors that came with it.
#[derive(Debug)]
pub struct Received<T> {
    /// The message.
    pub message: T,
    /// Its descriptors, close-on-exec, in the sender's order.
    pub descriptors: Vec<OwnedFd>,
}

/// A message that is still coming in.
#[derive(Debug, Default)]
struct Partial {
    body: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// One end of a control channel. Any thread may send; receiving threads take turns message by message.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    sending: Mutex<()>,
    receiving: Mutex<Partial>,
}

impl Channel {
    /// Takes one end of a SOCK_SEQPACKET connection.
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, sending: Mutex::new(()), receiving: Mutex::new(Partial::default()) }
    }

    /// The two ends of a new channel, both close-on-exec (socketpair(2)).
    pub fn pair() -> Result<(Self, Self), ControlError> {
        let (a, b) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|e| ControlError::Host("socketpair", e))?;
        Ok((Self::new(a), Self::new(b)))
    }

    /// Gives the socket back.
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Sends `message` with `descriptors`; blocks while the peer's queue is full.
    pub fn send<T: Serialize>(&self, message: &T, descriptors: &[BorrowedFd<'_>]) -> Result<(), ControlError> {
        let body = encode(message)?;
        if descriptors.len() > MAX_DESCRIPTORS {
            return Err(ControlError::TooManyDescriptors);
        }
        let _turn = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        for packet in packets(&body, descriptors) {
            self.send_packet(&packet)?;
        }
        Ok(())
    }

    /// Sends `message` by send(2) alone: for a service whose policy has no sendmsg(2).
    pub fn send_plain<T: Serialize>(&self, message: &T) -> Result<(), ControlError> {
        let body = encode(message)?;
        let _turn = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        for packet in packets(&body, &[]) {
            let mut bytes = Vec::with_capacity(packet.body.len().saturating_add(1));
            bytes.push(packet.kind);
            bytes.extend_from_slice(packet.body);
            self.until_taken("send", || send(&self.socket, &bytes, SendFlags::NOSIGNAL))?;
        }
        Ok(())
    }

    /// Receives the next message; blocks until it is whole.
    pub fn receive<T: DeserializeOwned>(&self) -> Result<Received<T>, ControlError> {
        let mut partial = self.receiving.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(message) = self.receive_packet(&mut partial, RecvFlags::empty())? {
                return Ok(message);
            }
        }
    }

    /// Receives the next message if it is already whole in the queue; `None` if it is not.
    pub fn try_receive<T: DeserializeOwned>(&self) -> Result<Option<Received<T>>, ControlError> {
        let mut partial = self.receiving.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match self.receive_packet(&mut partial, RecvFlags::DONTWAIT) {
                Ok(Some(message)) => return Ok(Some(message)),
                Ok(None) => {}
                Err(ControlError::Host(_, Errno::AGAIN)) => return Ok(None),
                Err(e) => return Err(e),
            }
        }
    }

    fn send_packet(&self, packet: &Packet<'_>) -> Result<(), ControlError> {
        let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(PER_PACKET))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !packet.descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(packet.descriptors)) {
            return Err(ControlError::TooManyDescriptors);
        }
        let kind = [packet.kind];
        let parts = [IoSlice::new(&kind), IoSlice::new(packet.body)];
        self.until_taken("sendmsg", || sendmsg(&self.socket, &parts, &mut control, SendFlags::NOSIGNAL))
    }

    /// Sends one packet by `send`, as often as it takes.
    fn until_taken(
        &self,
        what: &'static str,
        mut send: impl FnMut() -> rustix::io::Result<usize>,
    ) -> Result<(), ControlError> {
        loop {
            match send() {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait_writable()?,
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => return Err(ControlError::Closed),
                Err(e) => return Err(ControlError::Host(what, e)),
            }
        }
    }

    /// Only where the socket is non-blocking (the supervisor's side).
    fn wait_writable(&self) -> Result<(), ControlError> {
        let mut fds = [rustix::event::PollFd::new(&self.socket, rustix::event::PollFlags::OUT)];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(ControlError::Host("poll", e)),
        }
    }

    fn receive_packet<T: DeserializeOwned>(
        &self,
        partial: &mut Partial,
        flags: RecvFlags,
    ) -> Result<Option<Received<T>>, ControlError> {
        let mut kind = [0u8];
        let mut body = vec![0u8; BODY];
        let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(PER_PACKET))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = loop {
            let mut parts = [IoSliceMut::new(&mut kind), IoSliceMut::new(&mut body)];
            match recvmsg(&self.socket, &mut parts, &mut control, flags | RecvFlags::CMSG_CLOEXEC) {
                Ok(got) => break got,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Err(ControlError::Closed),
                Err(e) => return Err(ControlError::Host("recvmsg", e)),
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                partial.descriptors.extend(rights);
            }
        }
        let done = self.take_packet(partial, got.bytes, got.flags, kind, &body);
        if !matches!(done, Ok(false)) {
            let whole = std::mem::take(partial);
            done?;
            let message = decode(&whole.body)?;
            return Ok(Some(Received { message, descriptors: whole.descriptors }));
        }
        Ok(None)
    }

    /// Adds a packet to the message; true when that is whole.
    fn take_packet(
        &self,
        partial: &mut Partial,
        bytes: usize,
        flags: ReturnFlags,
        kind: [u8; 1],
        body: &[u8],
    ) -> Result<bool, ControlError> {
        if flags.contains(ReturnFlags::CTRUNC) {
            return Err(ControlError::TooManyDescriptors);
        }
        if flags.contains(ReturnFlags::TRUNC) {
            return Err(ControlError::Broken("longer than a packet may be"));
        }
        if partial.descriptors.len() > MAX_DESCRIPTORS {
            return Err(ControlError::TooManyDescriptors);
        }
        let Some(len) = bytes.checked_sub(1) else {
            return Err(ControlError::Closed);
        };
        let part = body.get(..len).ok_or(ControlError::Broken("length"))?;
        if partial.body.len().saturating_add(len) > MAX_MESSAGE {
            return Err(ControlError::TooLong);
        }
        partial.body.extend_from_slice(part);
        match kind {
            [LAST] => Ok(true),
            // An empty packet that promises more would let a peer keep us turning for nothing.
            [MORE] if len > 0 => Ok(false),
            _ => Err(ControlError::Broken("unknown kind")),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

struct Packet<'a> {
    kind: u8,
    body: &'a [u8],
    descriptors: &'a [BorrowedFd<'a>],
}

/// Cuts a message into packets: bodies and descriptors run out side by side. A packet that carries descriptors but is
/// not the last carries at least a byte too, since bodies are cut so that enough packets exist.
fn packets<'a>(body: &'a [u8], descriptors: &'a [BorrowedFd<'a>]) -> Vec<Packet<'a>> {
    let count = body.len().div_ceil(BODY).max(descriptors.len().div_ceil(PER_PACKET)).max(1);
    let size = body.len().div_ceil(count).max(1);
    let mut bodies = body.chunks(size);
    let mut rights = descriptors.chunks(PER_PACKET);
    (0..count)
        .map(|n| Packet {
            kind: if n + 1 == count { LAST } else { MORE },
            body: bodies.next().unwrap_or_default(),
            descriptors: rights.next().unwrap_or_default(),
        })
        .collect()
}

pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, ControlError> {
    let body = bincode::serde::encode_to_vec(message, bincode::config::standard())
        .map_err(|e| ControlError::Encode(e.to_string()))?;
    if body.len() > MAX_MESSAGE {
        return Err(ControlError::TooLong);
    }
    Ok(body)
}

/// Decodes a whole message: nothing may be left over, and no length inside it may claim more than [`MAX_MESSAGE`].
pub(crate) fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, ControlError> {
    let config = bincode::config::standard().with_limit::<MAX_MESSAGE>();
    let (message, used) =
        bincode::serde::decode_from_slice(body, config).map_err(|e| ControlError::Decode(e.to_string()))?;
    if used != body.len() {
        return Err(ControlError::Decode(format!("{} bytes too many", body.len() - used)));
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gofer::ToGofer;

    fn raw(channel: &Channel, bytes: &[u8]) {
        rustix::net::send(channel.as_fd(), bytes, SendFlags::empty()).unwrap();
    }

    #[test]
    fn a_message_and_its_descriptors_arrive_as_sent() {
        let (a, b) = Channel::pair().unwrap();
        let message = ToGofer::AddStdio { container: "c".into(), tty: false };
        let null = std::fs::File::open("/dev/null").unwrap();
        a.send(&message, &[null.as_fd(); 3]).unwrap();
        let got = b.receive::<ToGofer>().unwrap();
        assert_eq!(got.message, message);
        assert_eq!(got.descriptors.len(), 3);
        for fd in &got.descriptors {
            assert!(rustix::io::fcntl_getfd(fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        }
    }

    #[test]
    fn a_message_of_many_packets_with_200_descriptors_arrives_whole() {
        let (a, b) = Channel::pair().unwrap();
        let message = vec![7u8; 3 << 20];
        let null = std::fs::File::open("/dev/null").unwrap();
        let sent = message.clone();
        let sender = std::thread::spawn(move || a.send(&sent, &vec![null.as_fd(); 200]).unwrap());
        let got = b.receive::<Vec<u8>>().unwrap();
        sender.join().unwrap();
        assert_eq!(got.message, message);
        assert_eq!(got.descriptors.len(), 200);
    }

    #[test]
    fn small_message_with_200_descriptors_arrives() {
        let (a, b) = Channel::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        a.send(&vec![1u8; 40], &vec![null.as_fd(); 200]).unwrap();
        assert_eq!(b.receive::<Vec<u8>>().unwrap().descriptors.len(), 200);
    }

    #[test]
    fn a_message_over_the_limit_is_refused_by_the_sender_and_by_the_receiver() {
        let (a, b) = Channel::pair().unwrap();
        assert!(matches!(a.send(&vec![0u8; MAX_MESSAGE + 1], &[]), Err(ControlError::TooLong)));
        let packet = vec![MORE; BODY + 1];
        let sender = std::thread::spawn(move || {
            for _ in 0..=MAX_MESSAGE / BODY {
                if rustix::net::send(a.as_fd(), &packet, SendFlags::NOSIGNAL).is_err() {
                    break;
                }
            }
        });
        assert!(matches!(b.receive::<Vec<u8>>(), Err(ControlError::TooLong)));
        drop(b);
        sender.join().unwrap();
    }

    #[test]
    fn broken_packets_are_errors_not_messages() {
        for bytes in [&[2u8, 0][..], &[MORE][..], &[LAST][..], &[LAST, 0xff, 0xff][..], &[LAST, 2, 0][..]] {
            let (a, b) = Channel::pair().unwrap();
            raw(&a, bytes);
            assert!(b.receive::<ToGofer>().is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_length_that_claims_gigabytes_allocates_nothing() {
        let (a, b) = Channel::pair().unwrap();
        let mut bytes = vec![LAST, 253];
        bytes.extend((1u64 << 40).to_le_bytes());
        raw(&a, &bytes);
        assert!(matches!(b.receive::<Vec<u8>>(), Err(ControlError::Decode(_))));
        raw(&a, &bytes);
        assert!(matches!(b.receive::<Vec<String>>(), Err(ControlError::Decode(_))));
    }

    #[test]
    fn a_closed_peer_is_told_apart() {
        let (a, b) = Channel::pair().unwrap();
        drop(a);
        assert!(matches!(b.receive::<ToGofer>(), Err(ControlError::Closed)));
        assert!(matches!(b.send(&ToGofer::Stop, &[]), Err(ControlError::Closed)));
    }

    #[test]
    fn a_packet_with_too_many_descriptors_is_refused() {
        let (a, b) = Channel::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let fds = vec![null.as_fd(); 100];
        let mut space = vec![MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(100))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(a.as_fd(), &[IoSlice::new(&[LAST, 2])], &mut control, SendFlags::empty()).unwrap();
        assert!(matches!(b.receive::<ToGofer>(), Err(ControlError::TooManyDescriptors)));
    }
}
