//! The session on the stdio socket.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use cofferdam_ninep::Errno;
use cofferdam_ninep::codec::{
    Data, DecodeError, IO_HEADER, MAX_MSIZE, MIN_MSIZE, NOFID, Qids, Reply, Request, Steps, VERSION_EXTENDED,
    VERSION_PLAIN,
};
use cofferdam_transport::{Channel, TransportError};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::{StdioFile, Stdios};

/// Fids at one time.
const MAX_FIDS: usize = 16384;
/// Requests that wait at one time.
const MAX_WAITING: usize = 4096;
/// Bytes of answers that wait for the client to take them.
const MAX_UNSENT: usize = 8 << 20;

/// Why the session ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The socket failed or was closed.
    #[error("{0}")]
    Transport(#[from] TransportError),
    /// No message.
    #[error("protocol broken by the client: {0}")]
    Decode(#[from] DecodeError),
    /// Too much at once, or a tag twice.
    #[error("protocol broken by the client: {0}")]
    Excess(&'static str),
    /// The host refused.
    #[error("waiting for the stdio socket: {0}")]
    Wait(#[from] std::io::Error),
}

#[derive(Debug, Default)]
struct Answers {
    queue: RefCell<VecDeque<Vec<u8>>>,
    bytes: RefCell<usize>,
    more: Notify,
    fewer: Notify,
}

impl Answers {
    fn push(&self, tag: u16, reply: &Reply<'_>) {
        let mut packet = Vec::new();
        reply.encode(tag, &mut packet);
        *self.bytes.borrow_mut() += packet.len();
        self.queue.borrow_mut().push_back(packet);
        self.more.notify_one();
    }

    fn result(&self, tag: u16, result: Result<Reply<'_>, Errno>) {
        match result {
            Ok(reply) => self.push(tag, &reply),
            Err(errno) => self.push(tag, &Reply::Lerror { errno: errno.0 }),
        }
    }
}

struct Session {
    stdios: Stdios,
    fids: HashMap<u32, Rc<StdioFile>>,
    waiting: Rc<RefCell<HashMap<u16, AbortHandle>>>,
    answers: Rc<Answers>,
    msize: u32,
}

/// Serves the stdio socket until it ends. Inside a `LocalSet` of a current-thread runtime.
pub async fn serve(channel: Channel, stdios: Stdios) -> Result<(), SessionError> {
    let channel = crate::watch::watch(channel, Interest::READABLE | Interest::WRITABLE)?;
    let answers = Rc::<Answers>::default();
    let waiting = Rc::default();
    let session = Session { stdios, fids: HashMap::new(), waiting, answers: answers.clone(), msize: MAX_MSIZE };
    let waiting = session.waiting.clone();
    let ended = tokio::select! {
        ended = receive(&channel, session) => ended,
        ended = send(&channel, &answers) => ended,
    };
    waiting.borrow_mut().drain().for_each(|(_, task)| task.abort());
    match ended {
        Err(SessionError::Transport(TransportError::Closed)) => Ok(()),
        other => other,
    }
}

async fn send(channel: &AsyncFd<Channel>, answers: &Answers) -> Result<(), SessionError> {
    loop {
        let Some(packet) = answers.queue.borrow_mut().pop_front() else {
            answers.more.notified().await;
            continue;
        };
        loop {
            let mut ready = channel.writable().await?;
            if channel.get_ref().try_send(&packet)? {
                break;
            }
            ready.clear_ready();
        }
        *answers.bytes.borrow_mut() -= packet.len();
        answers.fewer.notify_one();
    }
}

async fn receive(channel: &AsyncFd<Channel>, mut session: Session) -> Result<(), SessionError> {
    let mut packet = Vec::new();
    loop {
        let mut ready = channel.readable().await?;
        if !channel.get_ref().try_recv(&mut packet, session.msize as usize)? {
            ready.clear_ready();
            continue;
        }
        session.take(&packet)?;
        // A client that asks without end and takes no answer waits, as on any full pipe.
        while *session.answers.bytes.borrow() > MAX_UNSENT {
            session.answers.fewer.notified().await;
        }
    }
}

impl Session {
    fn take(&mut self, packet: &[u8]) -> Result<(), SessionError> {
        let (tag, request) = match Request::decode(packet) {
            Ok(message) => message,
            Err(DecodeError::Unknown { code, tag }) if code % 2 == 0 => {
                self.answers.push(tag, &Reply::Lerror { errno: Errno::OPNOTSUPP.0 });
                return Ok(());
            }
            Err(e) => return Err(e.into()),
        };
        if self.waiting.borrow().contains_key(&tag) {
            return Err(SessionError::Excess("a tag that is in flight"));
        }
        match request {
            Request::Read { fid, offset, count } => {
                let count = count.min(self.msize.saturating_sub(IO_HEADER));
                match self.fid(fid) {
                    Err(e) => self.answers.result(tag, Err(e)),
                    Ok(file) => {
                        let answers = self.answers.clone();
                        self.wait(tag, async move {
                            match file.read(offset, count).await {
                                Ok(data) => answers.push(tag, &Reply::Read { data: Data(&data) }),
                                Err(e) => answers.result(tag, Err(e)),
                            }
                        })?;
                    }
                }
            }
            Request::Write { fid, offset, data } => match self.fid(fid) {
                Err(e) => self.answers.result(tag, Err(e)),
                Ok(file) => {
                    let (answers, data) = (self.answers.clone(), data.0.to_vec());
                    self.wait(tag, async move {
                        let written = file.write(offset, &data).await;
                        answers.result(tag, written.map(|count| Reply::Write { count }));
                    })?;
                }
            },
            Request::Flush { oldtag } => {
                // The task either has put its answer into the queue, which then goes first, or has done nothing yet.
                if let Some(task) = self.waiting.borrow_mut().remove(&oldtag) {
                    task.abort();
                }
                self.answers.push(tag, &Reply::Flush {});
            }
            request => {
                let result = self.answer(&request);
                self.answers.result(tag, result);
            }
        }
        Ok(())
    }

    /// Runs a request that may wait.
    fn wait(&self, tag: u16, work: impl Future<Output = ()> + 'static) -> Result<(), SessionError> {
        if self.waiting.borrow().len() >= MAX_WAITING {
            return Err(SessionError::Excess("too many requests wait"));
        }
        let waiting = self.waiting.clone();
        let task = tokio::task::spawn_local(async move {
            work.await;
            waiting.borrow_mut().remove(&tag);
        });
        self.waiting.borrow_mut().insert(tag, task.abort_handle());
        Ok(())
    }

    fn fid(&self, fid: u32) -> Result<Rc<StdioFile>, Errno> {
        self.fids.get(&fid).cloned().ok_or(Errno::BADF)
    }

    fn insert(&mut self, fid: u32, file: Rc<StdioFile>) -> Result<(), Errno> {
        if fid == NOFID || self.fids.contains_key(&fid) {
            return Err(Errno::BADF);
        }
        if self.fids.len() >= MAX_FIDS {
            return Err(Errno::NFILE);
        }
        self.fids.insert(fid, file);
        Ok(())
    }

    /// Answers what does not wait.
    fn answer(&mut self, request: &Request<'_>) -> Result<Reply<'static>, Errno> {
        Ok(match *request {
            Request::Version { msize, version } => {
                self.fids.clear();
                self.waiting.borrow_mut().drain().for_each(|(_, task)| task.abort());
                let msize = msize.min(MAX_MSIZE);
                let version = match version {
                    VERSION_EXTENDED => VERSION_EXTENDED,
                    v if v.starts_with(VERSION_PLAIN) => VERSION_PLAIN,
                    _ => b"unknown",
                };
                if msize < MIN_MSIZE {
                    return Ok(Reply::Version { msize: MIN_MSIZE, version: b"unknown" });
                }
                self.msize = msize;
                Reply::Version { msize, version }
            }
            Request::Attach { fid, aname, .. } => {
                let file = self.stdios.find(aname)?;
                let qid = file.attr()?.qid;
                self.insert(fid, file)?;
                Reply::Attach { qid }
            }
            Request::Walk { fid, newfid, ref names } if names.as_slice().is_empty() => {
                let file = self.fid(fid)?;
                if fid != newfid {
                    self.insert(newfid, file)?;
                }
                Reply::Walk { qids: Qids::default() }
            }
            Request::WalkGetattr { fid, newfid, ref names } if names.as_slice().is_empty() => {
                let file = self.fid(fid)?;
                let steps = Steps(vec![file.attr()?]);
                if fid != newfid {
                    self.insert(newfid, file)?;
                }
                Reply::WalkGetattr { errno: 0, steps }
            }
            Request::Walk { .. } | Request::WalkGetattr { .. } => return Err(Errno::NOTDIR),
            Request::Getattr { fid, .. } => Reply::Getattr { attr: self.fid(fid)?.attr()? },
            // The descriptor is open already, with the rights that the container's creator gave it.
            Request::Lopen { fid, flags } => {
                let file = self.fid(fid)?;
                file.may_open(flags)?;
                Reply::Lopen { qid: file.attr()?.qid, iounit: 0 }
            }
            Request::Fsync { fid, .. } => {
                self.fid(fid)?;
                Reply::Fsync {}
            }
            Request::TtySize { fid } => match self.fid(fid)?.tty_size() {
                Some((rows, columns)) => Reply::TtySize { terminal: 1, rows, columns },
                None => Reply::TtySize { terminal: 0, rows: 0, columns: 0 },
            },
            Request::Clunk { fid } => {
                let file = self.fids.remove(&fid).ok_or(Errno::BADF)?;
                self.stdios.given_back(file);
                Reply::Clunk {}
            }
            Request::ClunkBatch { ref fids } => {
                fids.0.iter().filter_map(|fid| self.fids.remove(fid)).for_each(|file| self.stdios.given_back(file));
                Reply::ClunkBatch {}
            }
            _ => return Err(Errno::OPNOTSUPP),
        })
    }
}
