//! A container's stdio: files that the Gofer holds, reached over the stdio socket.
//!
//! Requests on that socket may take for ever (a person types), so none is waited for: a read that finds nothing asks the
//! Gofer once and answers EAGAIN, and the answer wakes the file's queue. Writes are taken into a small buffer and sent one
//! after the other; [`StdioHub::after`] tells when all of a process's have arrived, before its end is told.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use cofferdam_ninep::client::{Client, Fid, Tag};
use cofferdam_ninep::codec::NONUNAME;

use crate::errno::Errno;
use crate::filesystems::anon::{AnonInode, Family};
use crate::kernel::Kernel;
use crate::sync::Mutex;
use crate::time::Deadline;
use crate::uio::{Sink, Source};
use crate::vfs::file::{File, FileOps, Io, flags};
use crate::vfs::inode::{FileType, InodeRef, OpenHow, SetAttr};
use crate::wait::{PollMask, WaitQueue, Wake, run_woken};

/// Offset that means "where the descriptor is": stdio has no position of ours.
const CURRENT: u64 = u64::MAX;
/// Bytes asked for at once.
const READ_CHUNK: u32 = 64 * 1024;
/// Bytes of output that may be under way.
const OUT_MAX: usize = 64 * 1024;

fn errno(e: cofferdam_ninep::Errno) -> Errno {
    Errno::from_host(i32::try_from(e.0).unwrap_or(0))
}

/// Stops of process 1, as told.
#[derive(Default)]
struct Stops {
    number: u32,
    /// Whether the last one has been told and nothing was heard since.
    told: bool,
}

/// Output that is under way of the streams of one name.
#[derive(Default)]
struct Output {
    bytes: usize,
    /// Called once there is none.
    then: Vec<Arc<Drained>>,
}

/// Something to do once: when output has arrived, or when that takes too long.
struct Drained(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Wake for Drained {
    fn wake(&self, _: PollMask) {
        let then = self.0.lock().take();
        if let Some(then) = then {
            then();
        }
    }
}

/// The connection to the Gofer's stdio.
pub struct StdioHub {
    client: Client,
    /// By name; what has none is not there.
    pending: std::sync::Mutex<HashMap<Arc<str>, Output>>,
    idle: Condvar,
    /// Whether input is left alone: whoever runs the sandbox has given the terminal to somebody else.
    held: AtomicBool,
    stops: Mutex<Stops>,
    /// The input of the command of `do`.
    input: OnceLock<Weak<Stream>>,
}

impl StdioHub {
    /// Takes a connected client and starts its reader thread.
    pub fn new(client: Client) -> std::io::Result<Arc<Self>> {
        client.start_reader("stdio")?;
        let (pending, idle) = (std::sync::Mutex::default(), Condvar::new());
        Ok(Arc::new(Self {
            client,
            pending,
            idle,
            held: AtomicBool::new(false),
            stops: Mutex::default(),
            input: OnceLock::new(),
        }))
    }

    /// Waits until all output of `stdio/NAME` has reached the Gofer's descriptors, at most so long.
    pub fn drain(&self, name: &str, at_most: Duration) {
        let end = Instant::now() + at_most;
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        while pending.contains_key(name) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            pending = self.idle.wait_timeout(pending, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Calls `then` once all output of `stdio/NAME` has reached the Gofer's descriptors, or after so long.
    pub fn after(&self, kernel: &Kernel, name: &str, at_most: Duration, then: impl FnOnce() + Send + 'static) {
        let drained = Arc::new(Drained(Mutex::new(Some(Box::new(then)))));
        {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(output) = pending.get_mut(name) {
                output.then.push(drained.clone());
                drop(pending);
                let target: Arc<dyn Wake> = drained;
                let wait = i64::try_from(at_most.as_nanos()).unwrap_or(i64::MAX);
                return kernel.timers.add(Deadline::after(wait), &target);
            }
        }
        drained.wake(PollMask::empty());
    }

    /// Leaves input alone until [`release`](Self::release). Before there is any.
    fn hold(&self) {
        self.held.store(true, Ordering::SeqCst);
    }

    /// Leaves input alone because process 1 has stopped: a read under way is taken back. `then` is called once that is so;
    /// not at all if a stop has been told and nothing was heard since.
    pub fn stop(&self, then: Box<dyn FnOnce() + Send>) {
        {
            let mut stops = self.stops.lock();
            if std::mem::replace(&mut stops.told, true) {
                return;
            }
            stops.number = stops.number.wrapping_add(1);
            self.held.store(true, Ordering::SeqCst);
        }
        let Some(stream) = self.input.get().and_then(Weak::upgrade) else { return then() };
        let tag = {
            let mut s = stream.state.lock();
            if !s.asked {
                drop(s);
                return then();
            }
            s.quiet = Some(then);
            s.tag
        };
        self.take_back(tag);
    }

    fn take_back(&self, tag: Option<Tag>) {
        if let Some(Err(e)) = tag.map(|t| self.client.flush(t)) {
            // The connection is over, and every callback has been told so.
            tracing::debug!(?e, "input cannot be taken back");
        }
    }

    /// Process 1 is continued from outside; its next stop is told again.
    pub fn go_on(&self) {
        self.stops.lock().told = false;
    }

    /// Reads input again, unless there was a stop that whoever says so has not heard of.
    pub fn release(&self, stops: u32) {
        {
            let mut mine = self.stops.lock();
            if mine.number != stops {
                return;
            }
            mine.told = false;
            self.held.store(false, Ordering::SeqCst);
        }
        let Some(stream) = self.input.get().and_then(Weak::upgrade) else { return };
        if stream.feed.get().is_some() {
            stream.ask();
        } else {
            stream.queue.wake(PollMask::READ);
            run_woken();
        }
    }

    fn add(&self, name: &Arc<str>, n: usize) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).entry(name.clone()).or_default().bytes += n;
    }

    fn sub(&self, name: &str, n: usize) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(output) = pending.get_mut(name) else { return };
        output.bytes = output.bytes.saturating_sub(n);
        if output.bytes == 0 {
            let output = pending.remove(name);
            drop(pending);
            self.idle.notify_all();
            output.into_iter().flat_map(|o| o.then).for_each(|t| t.wake(PollMask::empty()));
        }
    }

    /// Attaches `stdio/PROCESS/NAME`. `job`: it is of the command of `do`, whose input may be left alone.
    pub fn attach(self: &Arc<Self>, process: &str, name: &str, job: bool) -> Result<Arc<Stream>, Errno> {
        let aname = format!("stdio/{process}/{name}");
        let (fid, _) = self.client.attach(aname.as_bytes(), b"", NONUNAME).map_err(errno)?;
        let attr = self.client.getattr(&fid).map_err(errno)?;
        let ways: &[i32] = match name {
            "0" => &[libc::O_RDONLY],
            "tty" => &[libc::O_RDWR],
            "1" | "2" => &[libc::O_WRONLY],
            // Only as it is.
            _ => &[libc::O_RDWR, libc::O_RDONLY, libc::O_WRONLY],
        };
        let mut how = Err(Errno::EACCES);
        for way in ways {
            how = self.client.lopen(&fid, way.cast_unsigned()).map(|_| *way).map_err(errno);
            if how != Err(Errno::EACCES) {
                break;
            }
        }
        let how = how?;
        let stream = Arc::new(Stream {
            hub: self.clone(),
            process: process.into(),
            job,
            fid,
            _given: GiveBack(self.clone()),
            kind: FileType::of(attr.mode),
            how,
            state: Mutex::default(),
            queue: WaitQueue::new(),
            feed: OnceLock::new(),
        });
        if job && matches!(name, "0" | "tty") {
            if name == "tty" {
                // The user's own terminal, which is ours only while the command line is in front.
                self.hold();
            }
            self.input.set(Arc::downgrade(&stream)).ok();
        }
        Ok(stream)
    }
}

/// Takes input as it comes, nothing in it for an end that was typed, `None` at its end; answers whether it wants more.
pub type Feed = Box<dyn Fn(Option<Vec<u8>>) -> bool + Send + Sync>;

#[derive(Default)]
struct State {
    input: VecDeque<u8>,
    end: bool,
    asked: bool,
    /// The request for input that is under way, or was the last.
    tag: Option<Tag>,
    /// Called when it has been answered.
    quiet: Option<Box<dyn FnOnce() + Send>>,
    in_error: Option<Errno>,
    output: VecDeque<u8>,
    /// Bytes sent and not yet acknowledged.
    sent: usize,
    out_error: Option<Errno>,
}

/// Gives back the fid that was dropped before it at once: somebody at the other end may wait until nobody holds the file.
struct GiveBack(Arc<StdioHub>);

impl Drop for GiveBack {
    fn drop(&mut self) {
        self.0.client.clunk_batch();
    }
}

/// One of the Gofer's stdio files.
pub struct Stream {
    hub: Arc<StdioHub>,
    /// Whose it is.
    process: Arc<str>,
    /// Whether its input may be left alone.
    job: bool,
    fid: Fid,
    /// After the fid.
    _given: GiveBack,
    /// What it is on the host.
    pub kind: FileType,
    /// How it is open there: for reading, writing or both.
    pub how: i32,
    state: Mutex<State>,
    /// Woken when there is input or room.
    pub queue: WaitQueue,
    feed: OnceLock<Feed>,
}

impl Stream {
    /// Has all input given to `feed` as it comes, instead of waiting to be taken.
    pub fn feed(self: &Arc<Self>, feed: Feed) {
        self.feed.set(feed).ok();
        self.ask();
    }

    fn fed(self: &Arc<Self>) -> bool {
        let Some(feed) = self.feed.get() else { return false };
        let data = {
            let mut s = self.state.lock();
            let end = std::mem::take(&mut s.end);
            if s.in_error.is_some() && s.input.is_empty() {
                None
            } else if s.input.is_empty() && !end {
                // A request that was taken back.
                drop(s);
                self.ask();
                return true;
            } else {
                Some(s.input.drain(..).collect())
            }
        };
        if feed(data) {
            self.ask();
        }
        true
    }

    /// Asks the Gofer for input unless that was done, or there is some.
    pub fn ask(self: &Arc<Self>) {
        {
            let mut s = self.state.lock();
            let held = self.job && self.hub.held.load(Ordering::SeqCst);
            if s.asked || held || s.end || s.in_error.is_some() || !s.input.is_empty() {
                return;
            }
            s.asked = true;
        }
        // A read that waits keeps nothing open that nobody has open any more.
        let me = Arc::downgrade(self);
        let callback = Box::new(move |answer: Result<Vec<u8>, cofferdam_ninep::Errno>| {
            let Some(me) = me.upgrade() else { return };
            let mut s = me.state.lock();
            s.asked = false;
            let quiet = s.quiet.take();
            match answer {
                Ok(data) if data.is_empty() => s.end = true,
                Ok(data) => s.input.extend(data),
                // Taken back.
                Err(cofferdam_ninep::Errno::INTR) => {}
                // A terminal that hung up, which a program has without ours between.
                Err(cofferdam_ninep::Errno::IO) if me.kind == FileType::Char && me.feed.get().is_none() => s.end = true,
                Err(e) => s.in_error = Some(errno(e)),
            }
            drop(s);
            if !me.fed() {
                me.queue.wake(PollMask::READ);
            }
            if let Some(quiet) = quiet {
                quiet();
            }
            run_woken();
        });
        match self.hub.client.submit_read(&self.fid, CURRENT, READ_CHUNK, callback) {
            Ok(tag) => {
                let mut s = self.state.lock();
                s.tag = Some(tag);
                // Somebody may have wanted it back before there was a tag.
                let unwanted = s.quiet.is_some();
                drop(s);
                if unwanted {
                    self.hub.take_back(Some(tag));
                }
            }
            Err(e) => {
                let quiet = {
                    let mut s = self.state.lock();
                    s.asked = false;
                    s.in_error = Some(errno(e));
                    s.quiet.take()
                };
                if let Some(quiet) = quiet {
                    quiet();
                }
            }
        }
    }

    /// Takes up to `max` bytes of input; `None` if there is none yet, empty at the end.
    pub fn take(self: &Arc<Self>, max: usize) -> Result<Option<Vec<u8>>, Errno> {
        let mut s = self.state.lock();
        if s.input.is_empty() {
            if let Some(e) = s.in_error.take() {
                return Err(e);
            }
            if s.end {
                // A terminal may give more after an end (^D); a pipe does not and says so again.
                s.end = false;
                return Ok(Some(Vec::new()));
            }
            drop(s);
            self.ask();
            return Ok(None);
        }
        let n = max.min(s.input.len());
        Ok(Some(s.input.drain(..n).collect()))
    }

    /// Whether input (or an end, or an error) is there.
    pub fn has_input(&self) -> bool {
        let s = self.state.lock();
        !s.input.is_empty() || s.end || s.in_error.is_some()
    }

    /// Room for output.
    pub fn room(&self) -> usize {
        let s = self.state.lock();
        if s.out_error.is_some() { OUT_MAX } else { OUT_MAX.saturating_sub(s.output.len() + s.sent) }
    }

    /// Takes output. An error is one that an earlier write met.
    pub fn send(self: &Arc<Self>, data: &[u8]) -> Result<(), Errno> {
        {
            let mut s = self.state.lock();
            if let Some(e) = s.out_error {
                return Err(e);
            }
            s.output.extend(data);
        }
        self.hub.add(&self.process, data.len());
        self.pump();
        Ok(())
    }

    fn pump(self: &Arc<Self>) {
        let chunk: Vec<u8> = {
            let mut s = self.state.lock();
            if s.sent > 0 || s.output.is_empty() {
                return;
            }
            let max = (self.hub.client.msize() as usize).saturating_sub(64).min(OUT_MAX);
            let n = s.output.len().min(max);
            s.sent = n;
            s.output.drain(..n).collect()
        };
        let me = self.clone();
        let rest = chunk.clone();
        let callback = Box::new(move |answer: Result<Vec<u8>, cofferdam_ninep::Errno>| {
            me.acknowledged(&rest, answer.map_err(errno));
            run_woken();
        });
        if let Err(e) = self.hub.client.submit_write(&self.fid, CURRENT, &chunk, callback) {
            self.acknowledged(&chunk, Err(errno(e)));
        }
    }

    fn acknowledged(self: &Arc<Self>, chunk: &[u8], answer: Result<Vec<u8>, Errno>) {
        let count = answer.and_then(|n| {
            let n: [u8; 4] = n.try_into().map_err(|_| Errno::EIO)?;
            Ok((u32::from_le_bytes(n) as usize).min(chunk.len()))
        });
        let gone = {
            let mut s = self.state.lock();
            s.sent = 0;
            match count {
                Ok(n) if n > 0 => {
                    for b in chunk.get(n..).unwrap_or_default().iter().rev() {
                        s.output.push_front(*b);
                    }
                    n
                }
                other => {
                    s.out_error = Some(other.err().unwrap_or(Errno::EIO));
                    let n = chunk.len() + s.output.len();
                    s.output.clear();
                    n
                }
            }
        };
        self.hub.sub(&self.process, gone);
        self.queue.wake(PollMask::WRITE);
        self.pump();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let (tag, quiet) = {
            let mut s = self.state.lock();
            (if s.asked { s.tag } else { None }, s.quiet.take())
        };
        self.hub.take_back(tag);
        if let Some(quiet) = quiet {
            quiet();
        }
    }
}

/// An open stdio file that is no terminal.
struct StdioFile(Arc<Stream>);

impl FileOps for StdioFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        false
    }

    fn read(&self, _io: &Io<'_>, _at: u64, to: &mut Sink<'_>) -> Result<usize, Errno> {
        if to.room() == 0 {
            return Ok(0);
        }
        match self.0.take(to.room())? {
            Some(data) => to.put(&data),
            None => Err(Errno::EAGAIN),
        }
    }

    fn write(&self, _io: &Io<'_>, _at: u64, _append: bool, from: &mut Source<'_>) -> Result<(usize, u64), Errno> {
        let room = self.0.room();
        let want = from.left();
        if room == 0 || (room < want && want <= 4096) {
            return Err(Errno::EAGAIN);
        }
        let data = from.take_vec(room)?;
        self.0.send(&data)?;
        Ok((data.len(), 0))
    }

    fn poll(&self, file: &File) -> PollMask {
        let mut m = PollMask::empty();
        if file.readable() {
            self.0.ask();
            if self.0.has_input() {
                m |= PollMask::IN | PollMask::RDNORM;
            }
        }
        if file.writable() && self.0.room() >= 4096 {
            m |= PollMask::OUT | PollMask::WRNORM;
        }
        m
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.queue)
    }

    fn sync(&self, _file: &File, _data_only: bool) -> Result<(), Errno> {
        Err(Errno::EINVAL)
    }
}

/// Files of a process that are no terminal of it: the three of its stdio, or what it has besides.
pub fn stdio_files(
    hub: &Arc<StdioHub>,
    process: &str,
    job: bool,
    numbers: std::ops::Range<u32>,
    (uid, gid): (u32, u32),
) -> Result<Vec<Arc<File>>, Errno> {
    let open = |n: u32| -> Result<Arc<File>, Errno> {
        let stream = hub.attach(process, &n.to_string(), job)?;
        let open_flags = stream.how;
        let bits = match stream.kind {
            // A directory or link cannot be stdio; a host's regular file has no pages of ours.
            FileType::Directory | FileType::Link => return Err(Errno::EINVAL),
            k => k.bits() | 0o600,
        };
        let again = stream.clone();
        let reopen = Box::new(move |_: &crate::vfs::Caller<'_>, _: OpenHow| -> Result<Box<dyn FileOps>, Errno> {
            Ok(Box::new(StdioFile(again.clone())))
        });
        let inode = AnonInode::make(Family::Pipe.dev(), bits, uid, gid, Some(reopen));
        let ino = inode.attr()?.ino;
        let name = match stream.kind {
            FileType::Fifo => format!("pipe:[{ino}]"),
            FileType::Socket => format!("socket:[{ino}]"),
            _ => format!("host:[{ino}]"),
        };
        Ok(File::new(Family::Pipe.place(inode, name.as_bytes()), Box::new(StdioFile(stream)), open_flags))
    };
    numbers.map(open).collect()
}

/// A process's own terminal: the host's at the other end, our line discipline between. Its three files, and the
/// terminal for window sizes. `fs`: where `/dev/pts` may be mounted. Its owner is given; its group is as well, if the mount does not say
/// another one: as runc does, who makes it as root and then gives it to the user.
pub fn terminal_files(
    kernel: &Arc<Kernel>,
    hub: &Arc<StdioHub>,
    process: &str,
    job: bool,
    fs: &Arc<crate::vfs::FsContext>,
    (uid, gid): (u32, u32),
) -> Result<([Arc<File>; 3], Arc<crate::ipc::tty::Tty>), Errno> {
    use crate::filesystems::devpts::Devpts;
    let stream = hub.attach(process, "tty", job)?;
    let root = crate::task::Creds::root(crate::task::creds::ALL_CAPABILITIES);
    let caller = crate::vfs::Caller::kernel(fs.clone(), root);
    // Without a devpts it has a number all the same, and no name that anybody could open.
    let seen = Devpts::seen_from(fs, &caller).ok();
    let instance = seen.as_ref().map_or_else(|| Devpts::new(Default::default(), &caller.creds), |(i, _)| i.clone());
    let tty = instance.make(kernel, Some(stream), (uid, gid))?;
    let node: InodeRef = tty.node.get().ok_or(Errno::EIO)?.clone();
    node.set_attr(&SetAttr { uid: Some(uid), ..SetAttr::default() })?;
    let name = tty.number.to_string();
    let place = seen
        .and_then(|(_, at)| crate::vfs::walk::walk(&caller, at, name.as_bytes(), true).ok())
        .unwrap_or_else(|| Family::Inode.place(node, format!("/dev/pts/{name}").as_bytes()));
    let open = || -> Result<Arc<File>, Errno> {
        let ops = crate::ipc::tty_file::TtyFile::open(tty.clone(), false)?;
        Ok(File::new(place.clone(), ops, flags::RDWR))
    };
    Ok(([open()?, open()?, open()?], tty))
}
