//! Requests that call back: for files that may block as long as they like (stdio, terminals).

use std::sync::Arc;

use super::rpc::Slot;
use super::{Client, Fid};
use crate::codec::{Data, IO_HEADER, Request};
use crate::errno::Errno;

/// Gets the data of a read (empty at the end of the file), or the count of a write (see [`Client::submit_write`]).
pub type Callback = Box<dyn FnOnce(Result<Vec<u8>, Errno>) + Send>;

/// A request under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    number: u16,
    generation: u64,
}

impl Client {
    /// Starts the thread that receives and runs callbacks. Once, before anything is submitted. A callback must not wait
    /// for this client (typed requests from it would wait for themselves); it may submit.
    pub fn start_reader(&self, name: &str) -> std::io::Result<()> {
        let rpc = Arc::clone(&self.rpc);
        // Here and not on the thread: a request made right after this returns must not begin to receive for itself.
        rpc.take_lead();
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(move || rpc.read_for_ever());
        if spawned.is_err() {
            self.rpc.lock().leading = false;
        }
        spawned.map(drop)
    }

    /// Asks for at most `count` bytes; the callback runs on the reader thread (or here, on failure to send).
    pub fn submit_read(&self, fid: &Fid, offset: u64, count: u32, callback: Callback) -> Result<Tag, Errno> {
        let count = count.min(self.rpc.msize.saturating_sub(IO_HEADER));
        let slot = Slot::Callback { callback: Some(callback), flushing: false };
        let (number, generation) = self.rpc.send(&Request::Read { fid: fid.number(), offset, count }, slot)?;
        Ok(Tag { number, generation })
    }

    /// Sends bytes, no more than [`Client::msize`] less 24 of them (EINVAL otherwise); the callback gets the count that
    /// was written as 4 little-endian bytes.
    pub fn submit_write(&self, fid: &Fid, offset: u64, data: &[u8], callback: Callback) -> Result<Tag, Errno> {
        if data.len() > self.rpc.msize.saturating_sub(IO_HEADER) as usize {
            return Err(Errno::INVAL);
        }
        let slot = Slot::Callback { callback: Some(callback), flushing: false };
        let request = Request::Write { fid: fid.number(), offset, data: Data(data) };
        let (number, generation) = self.rpc.send(&request, slot)?;
        Ok(Tag { number, generation })
    }

    /// Cancels a request: its callback gets EINTR unless the answer comes first. Does not wait.
    pub fn flush(&self, tag: Tag) -> Result<(), Errno> {
        if self.rpc.start_flush(tag.number, tag.generation) {
            self.rpc.send(&Request::Flush { oldtag: tag.number }, Slot::Flush(tag.number))?;
        }
        Ok(())
    }
}
