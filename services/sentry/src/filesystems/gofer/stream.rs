//! Streams: large files that are read from front to end.
//!
//! New pages for what is read once cost several times the copy itself, and the host has it cached anyway. So an open file
//! that is read in order gets a few buffers in the cache window, which the Gofer refills ahead of the reader, on another core,
//! while the container copies out of the one before. Owned here: where an open file is being read, its buffers and what they
//! hold. Cached pages come first (a mapping may have changed them): `pages` sees to that, and is the only caller. A buffer
//! must never be refilled or given back while the Gofer or a stub may still be copying: both hold it. What it holds is good
//! as long as the file was not changed since it was asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cofferdam_ninep::client::{Client, Fid, Refilling};

use crate::errno::Errno;
use crate::filesystems::gofer::Held;
use crate::filesystems::gofer::held::Permit;
use crate::memory::store::Store;

/// Bytes of a buffer, and of a request.
pub const PIECE: u64 = 1 << 20;
/// Buffers that a stream has at most.
pub const BUFFERS: usize = 6;
/// Pieces that are asked for ahead of the one that is read.
const AHEAD: u64 = 2;
/// Bytes that are read in order before a stream begins.
const AFTER: u64 = 512 << 10;
/// Bytes of the smallest file that is streamed: smaller ones are worth keeping.
pub const SMALLEST: u64 = 8 << 20;

/// A piece of the cache window.
pub struct Buffer {
    store: Arc<Store>,
    at: u64,
}

impl Buffer {
    /// A new one.
    pub fn new(store: &Arc<Store>) -> Result<Self, Errno> {
        Ok(Self { store: store.clone(), at: store.allocate(PIECE)? })
    }

    /// Its place in the window.
    pub fn at(&self) -> u64 {
        self.at
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.store.release(self.at, PIECE);
    }
}

enum Content {
    /// The Gofer is at it.
    Asked(Refilling),
    /// That many bytes are there.
    Here(u64),
}

struct Piece {
    /// The bytes from `index * PIECE` on.
    index: u64,
    /// How often the file was changed when it was asked for.
    changes: u64,
    buffer: Arc<Buffer>,
    content: Content,
}

/// What is known of how an open file is read, and its buffers.
pub struct Stream {
    held: Arc<Held>,
    /// Where the last read ended.
    next: u64,
    /// Bytes that were read in order.
    run: u64,
    pieces: Vec<Piece>,
    /// Buffers without a piece; a stub may still be copying out of them.
    spare: Vec<Arc<Buffer>>,
    permit: Option<Permit>,
}

/// What a stream reads from.
pub struct From<'a> {
    /// The connection.
    pub client: &'a Client,
    /// The file, open for reading.
    pub fid: &'a Arc<Fid>,
    /// Where buffers are taken from.
    pub store: &'a Arc<Store>,
    /// Counts changes of the file.
    pub changes: &'a AtomicU64,
    /// Bytes of the file.
    pub size: u64,
}

impl Stream {
    /// Nothing was read yet.
    pub fn new(held: Arc<Held>) -> Self {
        Self { held, next: 0, run: 0, pieces: Vec::new(), spare: Vec::new(), permit: None }
    }

    /// A read at this offset begins.
    pub fn begin(&mut self, at: u64) {
        if at != self.next {
            if !self.pieces.iter().any(|p| p.index == at / PIECE) {
                self.end();
            }
            self.next = at;
        }
    }

    /// It came to this offset.
    pub fn went(&mut self, to: u64) {
        self.run = self.run.saturating_add(to.saturating_sub(self.next));
        self.next = to;
    }

    /// Whether a file of this size is being streamed.
    pub fn on(&self, size: u64) -> bool {
        size >= SMALLEST && self.run >= AFTER
    }

    /// No stream any more, until as much was read in order again. Gives everything up.
    pub fn end(&mut self) {
        self.run = 0;
        self.permit = None;
        let buffers = self.pieces.drain(..).map(|p| p.buffer).chain(self.spare.drain(..));
        buffers.for_each(|b| self.held.keep_buffer(b));
    }

    /// The place of byte `at` in the window, how many bytes there are from it on, and their buffer. None where the file is not
    /// to be had this way now.
    pub fn find(&mut self, from: &From<'_>, at: u64) -> Option<(u64, u64, Arc<Buffer>)> {
        let index = at / PIECE;
        let changes = from.changes.load(Ordering::Acquire);
        if self.pieces.iter().any(|p| p.changes != changes) {
            // Written while it is read: the cache is the better way.
            self.end();
            return None;
        }
        if self.permit.is_none() {
            self.permit = Some(self.held.stream()?);
        }
        let (pieces, spare) = (&mut self.pieces, &mut self.spare);
        spare.extend(pieces.extract_if(.., |p| !(index..=index + AHEAD).contains(&p.index)).map(|p| p.buffer));
        for wanted in index..=index + AHEAD {
            if wanted * PIECE < from.size && !self.pieces.iter().any(|p| p.index == wanted) {
                self.ask(from, wanted, changes);
            }
        }
        let piece = self.pieces.iter_mut().find(|p| p.index == index);
        let there = piece.and_then(|p| {
            let valid = match std::mem::replace(&mut p.content, Content::Here(0)) {
                Content::Asked(asked) => u64::from(asked.finish().ok()?),
                Content::Here(valid) => valid,
            };
            p.content = Content::Here(valid);
            let into = at - index * PIECE;
            (into < valid).then(|| (p.buffer.at + into, valid - into, p.buffer.clone()))
        });
        if there.is_none() || from.changes.load(Ordering::Acquire) != changes {
            self.end();
            return None;
        }
        there
    }

    fn ask(&mut self, from: &From<'_>, index: u64, changes: u64) {
        let Some(buffer) = self.buffer(from.store) else { return };
        let offset = index * PIECE;
        let Ok(count) = u32::try_from(PIECE.min(from.size - offset)) else { return };
        let keep = Arc::new((buffer.clone(), from.fid.clone()));
        match from.client.post_refill(from.fid, offset, count, buffer.at, keep) {
            Ok(asked) => self.pieces.push(Piece { index, changes, buffer, content: Content::Asked(asked) }),
            Err(_) => self.spare.push(buffer),
        }
    }

    /// A buffer that nobody else holds; the one used last, which the cores' caches know best.
    fn buffer(&mut self, store: &Arc<Store>) -> Option<Arc<Buffer>> {
        if let Some(free) = self.spare.iter().rposition(|b| Arc::strong_count(b) == 1) {
            return Some(self.spare.remove(free));
        }
        if self.pieces.len() + self.spare.len() >= BUFFERS {
            return None;
        }
        self.held.buffer(store).ok()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end();
    }
}
