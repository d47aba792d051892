//! File content through the shared window, or through messages where there is none.

use std::sync::Arc;

use super::rpc::{Keep, Rpc};
use super::{Client, Fid};
use crate::codec::{Attr, Data, IO_HEADER, Reply, Request};
use crate::errno::Errno;

/// What [`Client::open_fill`] found.
#[derive(Debug)]
pub struct OpenFilled {
    /// The file, open for reading where `open` is true.
    pub fid: Fid,
    /// Its attributes.
    pub attr: Attr,
    /// Whether it is a regular file and was opened.
    pub open: bool,
    /// Why it could not be opened or read, where it is a regular file.
    pub error: Option<Errno>,
    /// Bytes in the window.
    pub filled: u32,
}

/// A [`Client::post_refill`] under way. Dropping it leaves the answer to whoever receives next.
#[derive(Debug)]
pub struct Refilling {
    rpc: Arc<Rpc>,
    tag: u16,
    /// The request's number on the wire.
    code: u8,
    count: u32,
    /// None once the answer was asked for.
    keep: Option<Keep>,
}

impl Refilling {
    /// Waits for the answer: the count, short only at the end of the file or after an error further on.
    pub fn finish(mut self) -> Result<u32, Errno> {
        let _keep = self.keep.take();
        self.rpc.fetch_posted(self.tag, self.code, |r| match r {
            Reply::Refill { count } if count <= self.count => Some(count),
            _ => None,
        })
    }
}

impl Drop for Refilling {
    fn drop(&mut self) {
        if let Some(keep) = self.keep.take() {
            self.rpc.abandon(self.tag, keep);
        }
    }
}

const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;

impl Client {
    /// Reads the open file's bytes at `offset` into the window at `window`; gives the count, short only at the end of
    /// the file or after an error further on. ENXIO where this client has no window.
    pub fn fill(&self, fid: &Fid, offset: u64, count: u32, window: u64) -> Result<u32, Errno> {
        let memory = self.rpc.window.as_ref().ok_or(Errno::NXIO)?;
        if self.extended() {
            let request = Request::Fill { fid: fid.number(), offset, count, window };
            let filled = self.rpc.call(&request, |r| match r {
                Reply::Fill { count: n } if n <= count => Some(n),
                _ => None,
            });
            if !matches!(filled, Err(Errno::OPNOTSUPP)) {
                return filled;
            }
        }
        let mut done = 0u32;
        while done < count {
            let want = (count - done).min(self.rpc.msize.saturating_sub(IO_HEADER));
            let at = (offset.checked_add(u64::from(done)), window.checked_add(u64::from(done)));
            let (Some(from), Some(to)) = at else { return Err(Errno::INVAL) };
            let got = self.rpc.call(&Request::Read { fid: fid.number(), offset: from, count: want }, |r| match r {
                Reply::Read { data } if data.0.len() <= want as usize => {
                    Some(memory.write(to, data.0).map(|()| data.0.len() as u32).map_err(|_| Errno::INVAL))
                }
                _ => None,
            });
            match got.and_then(|inner| inner) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Asks for the open file's bytes at `offset` in the window at `window`, whose pages were filled before, and does not wait.
    /// `keep` is dropped once the server is done with the range, or with the connection. EOPNOTSUPP where the server does
    /// not speak the extension, EAGAIN where too many of these are under way.
    pub fn post_refill(
        &self,
        fid: &Fid,
        offset: u64,
        count: u32,
        window: u64,
        keep: Arc<dyn std::any::Any + Send + Sync>,
    ) -> Result<Refilling, Errno> {
        if !self.extended() || self.rpc.window.is_none() {
            return Err(Errno::OPNOTSUPP);
        }
        let request = Request::Refill { fid: fid.number(), offset, count, window };
        let tag = self.rpc.post(&request)?;
        Ok(Refilling { rpc: self.rpc.clone(), tag, code: request.code(), count, keep: Some(keep) })
    }

    /// Writes the window's bytes at `window` to the open file at `offset`; gives the count, short after an error.
    pub fn spill(&self, fid: &Fid, offset: u64, count: u32, window: u64) -> Result<u32, Errno> {
        let memory = self.rpc.window.as_ref().ok_or(Errno::NXIO)?;
        if self.extended() {
            let request = Request::Spill { fid: fid.number(), offset, count, window };
            let spilled = self.rpc.call(&request, |r| match r {
                Reply::Spill { count: n } if n <= count => Some(n),
                _ => None,
            });
            if !matches!(spilled, Err(Errno::OPNOTSUPP)) {
                return spilled;
            }
        }
        let mut buffer = vec![0; count.min(self.rpc.msize.saturating_sub(IO_HEADER)) as usize];
        let mut done = 0u32;
        while done < count {
            let want = buffer.len().min((count - done) as usize);
            let part = buffer.get_mut(..want).unwrap_or_default();
            let at = (offset.checked_add(u64::from(done)), window.checked_add(u64::from(done)));
            let (Some(to), Some(from)) = at else { return Err(Errno::INVAL) };
            memory.read(from, part).map_err(|_| Errno::INVAL)?;
            let request = Request::Write { fid: fid.number(), offset: to, data: Data(part) };
            let wrote = self.rpc.call(&request, |r| match r {
                Reply::Write { count: n } if n as usize <= want => Some(n),
                _ => None,
            });
            match wrote {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Walks one name and, where it is a regular file, opens it for reading and fills its first `count` bytes into the
    /// window: one message, where the server speaks the extension.
    pub fn open_fill(&self, dir: &Fid, name: &[u8], count: u32, window: u64) -> Result<OpenFilled, Errno> {
        if self.extended() {
            let ((attr, open, errno, filled), made) = self.making(|newfid| {
                let request = Request::OpenFill { fid: dir.number(), newfid, name, count, window };
                let answer = self.rpc.call(&request, |r| match r {
                    Reply::OpenFill { attr, opened, errno, count: n } if n <= count => {
                        Some((attr, opened != 0, errno, n))
                    }
                    _ => None,
                })?;
                Ok((answer, true))
            })?;
            let error = (errno != 0).then_some(Errno(errno));
            let mut found = OpenFilled { fid: made.ok_or(Errno::IO)?, attr, open, error, filled };
            if found.open && found.error == Some(Errno::OPNOTSUPP) && self.rpc.window.is_some() {
                self.fill_opened(&mut found, count, window);
            }
            return Ok(found);
        }
        let fid = self.walk(dir, &[name])?;
        let attr = self.getattr(&fid)?;
        let mut found = OpenFilled { fid, attr, open: false, error: None, filled: 0 };
        if attr.mode & S_IFMT == S_IFREG {
            match self.lopen(&found.fid, 0) {
                Ok(_) => {
                    found.open = true;
                    self.fill_opened(&mut found, count, window);
                }
                Err(e) => found.error = Some(e),
            }
        }
        Ok(found)
    }

    fn fill_opened(&self, found: &mut OpenFilled, count: u32, window: u64) {
        found.error = None;
        let want = u32::try_from(found.attr.size).unwrap_or(u32::MAX).min(count);
        if want > 0 {
            match self.fill(&found.fid, 0, want, window) {
                Ok(n) => found.filled = n,
                Err(e) => found.error = Some(e),
            }
        }
    }
}
