//! The server engine: what a 9P server must do whatever its files are.
//!
//! Owns: the table of fids and its quota, the tags in flight and flush, negotiation, the checks of names, counts and
//! fids, extended attributes as 9P transports them. A [`Filesystem`] does the rest. Must never panic, block for ever or
//! grow without bound at a peer's wish; a broken message ends its session with [`Broken`], the reason for the log.
//! Callers: the Gofer's workers (any number of blocking threads per session, each receiving straight from the socket:
//! no hand-off, no wake-up of a second thread), tests, fuzz targets.
//!
//! A session on a packet socket with several workers answers out of order. One consequence is accepted: when a client
//! sends Tflush before another worker has so much as noted the flushed request, Rflush may overtake that request's
//! answer. File requests never wait for anything but the host's file system, and our client does not flush them; the
//! socket where requests do wait (stdio) has one receiver.

mod dispatch;
mod fids;
mod filesystem;
mod tags;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use cofferdam_transport::{Channel, TransportError};

use crate::codec::{DecodeError, MAX_MSIZE, MIN_MSIZE, Reply, Request};
use crate::errno::Errno;
use fids::Fids;
pub use filesystem::{Entry, Filesystem, check_name};
use tags::{Flush, Tags};

/// What one session may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Fids at one time.
    pub fids: usize,
    /// Largest message, in bytes.
    pub msize: u32,
    /// Requests being worked on at one time.
    pub requests: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { fids: 8192, msize: MAX_MSIZE, requests: 256 }
    }
}

/// Why a session ended before its peer closed it.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The peer sent what is no message.
    #[error("protocol broken by the peer: {0}")]
    Decode(#[from] DecodeError),
    /// The peer used the tag of a request that is still being worked on.
    #[error("protocol broken by the peer: tag {0} is already in flight")]
    TagInUse(u16),
    /// The peer has more requests in flight than one session may.
    #[error("protocol broken by the peer: more than {0} requests in flight")]
    TooManyRequests(usize),
    /// The connection failed.
    #[error("{0}")]
    Transport(#[from] TransportError),
}

/// One client's connection: fids, tags and what was negotiated, over a backend.
#[derive(Debug)]
pub struct Session<F: Filesystem> {
    fs: F,
    limits: Limits,
    fids: Fids<F::Node>,
    tags: Tags,
    msize: AtomicU32,
    extended: AtomicBool,
}

impl<F: Filesystem> Session<F> {
    /// A session that has not negotiated yet.
    pub fn new(fs: F, limits: Limits) -> Self {
        let msize = limits.msize.clamp(MIN_MSIZE, MAX_MSIZE.max(limits.msize));
        Self {
            fs,
            limits: Limits { msize, ..limits },
            fids: Fids::new(limits.fids),
            tags: Tags::new(limits.requests),
            msize: AtomicU32::new(msize),
            extended: AtomicBool::new(false),
        }
    }

    /// The backend.
    pub fn filesystem(&self) -> &F {
        &self.fs
    }

    /// How many fids are in use.
    pub fn fids_in_use(&self) -> usize {
        self.fids.len()
    }

    /// One worker: receives, answers, until the connection ends. Run it on as many threads as may be busy at once. The
    /// first that finds the protocol broken logs why and ends the connection for all.
    pub fn work(&self, channel: &Channel) {
        let (mut packet, mut reply) = (Vec::new(), Vec::new());
        loop {
            let outcome = channel
                .recv(&mut packet, self.msize.load(Ordering::Relaxed) as usize)
                .map_err(Broken::from)
                .and_then(|()| self.answer(&packet, &mut reply, |bytes| Ok(channel.send(bytes)?)));
            match outcome {
                Ok(()) => {}
                Err(Broken::Transport(TransportError::Closed)) => break,
                Err(why) => {
                    tracing::warn!(%why, "file session ended");
                    break;
                }
            }
        }
        channel.shutdown();
    }

    /// Answers one packet: `send` is called for the reply, and for replies to flushes that waited for it. `scratch` is
    /// room for the reply, kept between calls.
    pub fn answer(
        &self,
        packet: &[u8],
        scratch: &mut Vec<u8>,
        mut send: impl FnMut(&[u8]) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        let (tag, request) = match Request::decode(packet) {
            Ok(message) => message,
            // A well-formed request that we have no name for is refused, not punished: clients probe.
            Err(DecodeError::Unknown { code, tag }) if code % 2 == 0 => {
                tracing::debug!(code, "request of unknown type");
                Reply::Lerror { errno: Errno::OPNOTSUPP.0 }.encode(tag, scratch);
                return send(scratch);
            }
            Err(e) => return Err(e.into()),
        };
        if let Request::Flush { oldtag } = request {
            if self.tags.flush(oldtag, tag)? == Flush::Waits {
                return Ok(());
            }
            Reply::Flush {}.encode(tag, scratch);
            return send(scratch);
        }
        let id = self.tags.begin(tag)?;
        if let Err(errno) = self.dispatch(tag, &request, scratch) {
            Reply::Lerror { errno: errno.0 }.encode(tag, scratch);
        }
        self.tags.answering(id);
        let sent = send(scratch);
        for waiting in self.tags.end(id) {
            Reply::Flush {}.encode(waiting, scratch);
            send(scratch)?;
        }
        sent
    }
}
