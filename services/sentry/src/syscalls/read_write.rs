//! Reading and writing: `read`, `write` and their vector and position forms, `lseek`, `sendfile`, `splice`, `tee`,
//! `copy_file_range`, `readahead`, `fadvise`, `cachestat`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::entry;
use crate::errno::Errno;
use crate::filesystems::content::FILE_MAX;
use crate::ipc::pipe::PipeEnd;
use crate::memory::store::PAGE;
use crate::syscalls::blocking::{Progress, on_file, until_done};
use crate::syscalls::{Entry, Fd, Outcome, SysResult, UserPtr, done, value};
use crate::task::{Special, Task};
use crate::uio::{IoVec, LARGE, Sink, Source, total};
use crate::vfs::control::{ProcessControl, check_file_size};
use crate::vfs::file::{File, Whence, flags};
use crate::vfs::inode::FileType;
use crate::vfs::{Caller, access, ops};
use crate::wait::{Cause, PollMask, Wait};

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(0, "read", Full, "", read(Fd, u64, usize)),
    entry!(1, "write", Full, "", write(Fd, u64, usize)),
    entry!(8, "lseek", Full, "", lseek(Fd, i64, i32)),
    entry!(17, "pread64", Full, "", pread(Fd, u64, usize, i64)),
    entry!(18, "pwrite64", Full, "", pwrite(Fd, u64, usize, i64)),
    entry!(19, "readv", Full, "", readv(Fd, UserPtr<RawVec>, usize)),
    entry!(20, "writev", Full, "", writev(Fd, UserPtr<RawVec>, usize)),
    entry!(295, "preadv", Full, "", preadv(Fd, UserPtr<RawVec>, usize, i64)),
    entry!(296, "pwritev", Full, "", pwritev(Fd, UserPtr<RawVec>, usize, i64)),
    entry!(
        327,
        "preadv2",
        Full,
        "RWF_HIPRI and RWF_DONTCACHE have no effect",
        preadv2(Fd, UserPtr<RawVec>, usize, i64, i64, i32)
    ),
    entry!(
        328,
        "pwritev2",
        Full,
        "RWF_HIPRI and RWF_DONTCACHE have no effect; no atomic writes, as on most file systems",
        pwritev2(Fd, UserPtr<RawVec>, usize, i64, i64, i32)
    ),
    entry!(40, "sendfile", Full, "", sendfile(Fd, Fd, UserPtr<i64>, usize)),
    entry!(275, "splice", Full, "", splice(Fd, UserPtr<i64>, Fd, UserPtr<i64>, usize, u32)),
    entry!(276, "tee", Full, "", tee(Fd, Fd, usize, u32)),
    entry!(278, "vmsplice", Partial, "pages are copied", vmsplice(Fd, UserPtr<RawVec>, usize, u32)),
    entry!(326, "copy_file_range", Full, "", copy_file_range(Fd, UserPtr<i64>, Fd, UserPtr<i64>, usize, u32)),
    entry!(187, "readahead", Full, "", readahead(Fd, i64, usize)),
    entry!(221, "fadvise64", Full, "", fadvise(Fd, i64, i64, i32)),
    entry!(
        451,
        "cachestat",
        Partial,
        "pages that were evicted are not counted",
        cachestat(Fd, UserPtr<[u64; 2]>, UserPtr<[u64; 5]>, u32)
    ),
];

/// `struct iovec`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[allow(missing_docs)]
pub struct RawVec {
    pub base: u64,
    pub len: u64,
}

/// `IOV_MAX`.
const IOV_MAX: usize = 1024;
/// Bytes moved between files in one step.
const CHUNK: usize = 256 * 1024;
/// First address no task may name.
const USER_TOP: u64 = 1 << 47;

/// One buffer as a vector; EFAULT if it cannot be in the container's memory.
pub(super) fn single(base: u64, len: usize) -> Result<Vec<IoVec>, Errno> {
    if base.checked_add(len as u64).is_none_or(|end| end > USER_TOP) {
        return Err(Errno::EFAULT);
    }
    Ok(vec![IoVec { base, len }])
}

/// Copies an I/O vector in; EINVAL if too long or its lengths do not add up.
pub fn vector(task: &Arc<Task>, vecs: UserPtr<RawVec>, count: usize) -> Result<Vec<IoVec>, Errno> {
    let raw = vecs.read_array(task, count, IOV_MAX)?;
    let mut total = 0u64;
    let mut out = Vec::with_capacity(raw.len());
    for v in raw {
        total = total.checked_add(v.len).filter(|t| i64::try_from(*t).is_ok()).ok_or(Errno::EINVAL)?;
        out.extend(single(v.base, usize::try_from(v.len).map_err(|_| Errno::EINVAL)?)?);
    }
    Ok(out)
}

fn do_read(task: &Arc<Task>, file: &Arc<File>, vecs: Vec<IoVec>, at: Option<u64>) -> SysResult {
    if let (Some(ns), Some(queue), false) = (file.ops().read_timeout(), file.ops().queue(), file.nonblocking()) {
        let (queue, file) = (queue.clone(), file.clone());
        let deadline = crate::time::Deadline::after(ns);
        let step = move |task: &Arc<Task>| match file.read(Some(task), &mut Sink::user(task, vecs.clone())) {
            Err(Errno::EAGAIN) if deadline.passed() => file.ops().read_timed_out(),
            r => r.map(|n| n as i64),
        };
        return crate::syscalls::blocking::until_ready(task, &queue, PollMask::READ, Some(deadline), step);
    }
    let read = move |task: &Arc<Task>, file: &Arc<File>, sink: &mut Sink<'_>| match at {
        None => file.read(Some(task), sink),
        Some(at) => file.pread(Some(task), at, sink),
    };
    if total(&vecs) >= LARGE && file.inode().kind() == FileType::Regular {
        let mut sink = Sink::user_later(task, vecs);
        let n = read(task, file, &mut sink)?;
        let later = sink.into_later();
        if later.orders.is_empty() {
            return value(n);
        }
        let held = later.held;
        let undo: Box<dyn FnOnce() + Send> = Box::new(move || drop(held));
        return Ok(Outcome::Special(Special::Orders { orders: later.orders, result: n as i64, undo: Some(undo) }));
    }
    on_file(task, file, PollMask::READ, move |task, file| {
        Ok(read(task, file, &mut Sink::user(task, vecs.clone()))? as i64)
    })
}

/// Cuts `n` bytes off the front of a vector.
fn advance(vecs: &mut Vec<IoVec>, mut n: usize) {
    vecs.retain_mut(|v| {
        let cut = n.min(v.len);
        n -= cut;
        v.base = v.base.wrapping_add(cut as u64);
        v.len -= cut;
        v.len > 0
    });
}

/// Where a write goes, and how.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// A position; `None`: the file's own.
    at: Option<u64>,
    /// To the end or not because the call says so; `None`: as the file's flags say.
    append: Option<bool>,
    /// To the disk before it is over: the data, and whatever else there is.
    sync: Option<Durable>,
    /// No SIGPIPE.
    quiet: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Durable {
    Data,
    All,
}

impl Place {
    /// As the file's flags say.
    fn plain(at: Option<u64>) -> Self {
        Self { at, append: None, sync: None, quiet: false }
    }

    /// As `RWF_*` flags say.
    pub(super) fn flagged(at: Option<u64>, rwf: i32) -> Self {
        let append = match rwf & (RWF_APPEND | RWF_NOAPPEND) {
            0 => None,
            bits => Some(bits & RWF_APPEND != 0),
        };
        let sync = match rwf & (RWF_DSYNC | RWF_SYNC) {
            0 => None,
            bits => Some(if bits & RWF_SYNC != 0 { Durable::All } else { Durable::Data }),
        };
        Self { at, append, sync, quiet: rwf & RWF_NOSIGNAL != 0 }
    }
}

/// What an open file's flags say of writes to the disk.
fn sync_of(open_flags: i32) -> Option<Durable> {
    match open_flags & flags::SYNC {
        flags::SYNC => Some(Durable::All),
        bits if bits & flags::DSYNC != 0 => Some(Durable::Data),
        _ => None,
    }
}

pub(super) fn write_once(task: &Arc<Task>, file: &Arc<File>, vecs: &[IoVec], place: Place) -> Result<usize, Errno> {
    let mut vecs = vecs.to_vec();
    let append = place.append.unwrap_or_else(|| file.appends());
    if file.inode().kind() == FileType::Regular {
        let start = match place.at {
            _ if append => file.inode().attr()?.size,
            Some(at) => at,
            None => file.position(),
        };
        let room = check_file_size(task, start)?;
        let over = (crate::uio::total(&vecs) as u64).saturating_sub(room);
        for v in vecs.iter_mut().rev().scan(over, |over, v| {
            let cut = (*over).min(v.len as u64);
            *over -= cut;
            Some((v, cut))
        }) {
            v.0.len -= v.1 as usize;
        }
    }
    let mut source = Source::user(task, vecs);
    let n = match place.at {
        None => file.write_with(Some(task), &mut source, append),
        Some(at) => file.pwrite_with(Some(task), at, &mut source, append),
    };
    match n {
        Err(Errno::EPIPE) => {
            if file.ops().breaks_with_signal() && !place.quiet {
                task.post_signal(libc::SIGPIPE);
            }
            Err(Errno::EPIPE)
        }
        Ok(n) => {
            if n > 0 && file.inode().kind() == FileType::Regular {
                ops::strip_privileges(&Caller::of(task), file.inode())?;
                if let Some(sync) = place.sync.or_else(|| sync_of(file.flags())) {
                    file.ops().sync(file, sync == Durable::Data)?;
                }
            }
            Ok(n)
        }
        e => e,
    }
}

fn write_at(task: &Arc<Task>, file: &Arc<File>, vecs: Vec<IoVec>, place: Place) -> SysResult {
    let first = write_once(task, file, &vecs, place);
    let total = crate::uio::total(&vecs);
    let waits = file.ops().queue().filter(|_| !file.nonblocking()).cloned();
    let mut sent = match (first, &waits) {
        (Err(Errno::EAGAIN), Some(_)) => 0,
        (Err(e), _) => return Err(e),
        (Ok(n), Some(_)) if n < total && n > 0 => n,
        (Ok(n), _) => return value(n),
    };
    let Some(queue) = waits else { return value(sent) };
    let mut vecs = vecs;
    advance(&mut vecs, sent);
    let file = file.clone();
    let deadline = file.ops().write_timeout().map(crate::time::Deadline::after);
    // A blocking write to a stream goes on until all is written.
    let retry = move |task: &Arc<Task>, cause: Cause| loop {
        match write_once(task, &file, &vecs, place) {
            Ok(n) => {
                sent += n;
                advance(&mut vecs, n);
                if vecs.is_empty() || n == 0 {
                    return Some(Ok(sent as i64));
                }
            }
            Err(Errno::EAGAIN) => {
                return match cause {
                    Cause::Woken => None,
                    _ if sent > 0 => Some(Ok(sent as i64)),
                    Cause::TimedOut => Some(Err(Errno::EAGAIN)),
                    // A socket with a timeout does not start over (signal(7)).
                    Cause::Interrupted if deadline.is_some() => Some(Err(Errno::EINTR)),
                    Cause::Interrupted => Some(Err(Errno::ERESTARTSYS)),
                };
            }
            Err(_) if sent > 0 => return Some(Ok(sent as i64)),
            Err(e) => return Some(Err(e)),
        }
    };
    Ok(Outcome::Block(Wait::new(retry).on(&queue, PollMask::WRITE).until(deadline)))
}

fn position(at: i64) -> Result<u64, Errno> {
    u64::try_from(at).map_err(|_| Errno::EINVAL)
}

/// The memory that a call names.
enum Buffers {
    One(u64, usize),
    Vector(UserPtr<RawVec>, usize),
}

impl Buffers {
    fn get(self, task: &Arc<Task>) -> Result<Vec<IoVec>, Errno> {
        match self {
            Buffers::One(base, len) => single(base, len),
            Buffers::Vector(vecs, count) => vector(task, vecs, count),
        }
    }
}

fn read_to(task: &Arc<Task>, fd: Fd, to: Buffers, at: Option<u64>) -> SysResult {
    let file = task.file(fd)?;
    do_read(task, &file, to.get(task)?, at)
}

fn write_from(task: &Arc<Task>, fd: Fd, from: Buffers, at: Option<u64>) -> SysResult {
    let file = task.file(fd)?;
    write_at(task, &file, from.get(task)?, Place::plain(at))
}

fn read(task: &Arc<Task>, fd: Fd, base: u64, len: usize) -> SysResult {
    read_to(task, fd, Buffers::One(base, len), None)
}

fn write(task: &Arc<Task>, fd: Fd, base: u64, len: usize) -> SysResult {
    write_from(task, fd, Buffers::One(base, len), None)
}

fn pread(task: &Arc<Task>, fd: Fd, base: u64, len: usize, at: i64) -> SysResult {
    read_to(task, fd, Buffers::One(base, len), Some(position(at)?))
}

fn pwrite(task: &Arc<Task>, fd: Fd, base: u64, len: usize, at: i64) -> SysResult {
    write_from(task, fd, Buffers::One(base, len), Some(position(at)?))
}

fn readv(task: &Arc<Task>, fd: Fd, vecs: UserPtr<RawVec>, count: usize) -> SysResult {
    read_to(task, fd, Buffers::Vector(vecs, count), None)
}

fn writev(task: &Arc<Task>, fd: Fd, vecs: UserPtr<RawVec>, count: usize) -> SysResult {
    write_from(task, fd, Buffers::Vector(vecs, count), None)
}

fn preadv(task: &Arc<Task>, fd: Fd, vecs: UserPtr<RawVec>, count: usize, at: i64) -> SysResult {
    read_to(task, fd, Buffers::Vector(vecs, count), Some(position(at)?))
}

fn pwritev(task: &Arc<Task>, fd: Fd, vecs: UserPtr<RawVec>, count: usize, at: i64) -> SysResult {
    write_from(task, fd, Buffers::Vector(vecs, count), Some(position(at)?))
}

const RWF_DSYNC: i32 = 2;
const RWF_SYNC: i32 = 4;
pub(super) const RWF_NOWAIT: i32 = 8;
const RWF_APPEND: i32 = 0x10;
const RWF_NOAPPEND: i32 = 0x20;
const RWF_ATOMIC: i32 = 0x40;
const RWF_DONTCACHE: i32 = 0x80;
const RWF_NOSIGNAL: i32 = 0x100;
const RWF_KNOWN: i32 = 0x1ff;

/// Position of a call with flags: -1 means the file's own.
fn flagged_position(at: i64) -> Result<Option<u64>, Errno> {
    if at == -1 { Ok(None) } else { position(at).map(Some) }
}

/// Refuses what a file cannot do of `RWF_*` flags. Atomic writes it never can.
pub(super) fn check_flags(file: &File, rwf: i32) -> Result<(), Errno> {
    if rwf & !RWF_KNOWN != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if rwf & RWF_APPEND != 0 && rwf & RWF_NOAPPEND != 0 {
        return Err(Errno::EINVAL);
    }
    let uncached = file.inode().kind() == FileType::Regular && file.mount().fs.name() != "tmpfs";
    if rwf & RWF_ATOMIC != 0 || (rwf & RWF_DONTCACHE != 0 && !uncached) {
        return Err(Errno::EOPNOTSUPP);
    }
    Ok(())
}

fn preadv2(task: &Arc<Task>, fd: Fd, vecs: UserPtr<RawVec>, count: usize, at: i64, _high: i64, rwf: i32) -> SysResult {
    let at = flagged_position(at)?;
    let file = task.file(fd)?;
    let vecs = vector(task, vecs, count)?;
    if total(&vecs) > 0 && file.readable() {
        check_flags(&file, rwf)?;
    }
    if rwf & RWF_NOWAIT != 0 {
        let mut sink = Sink::user(task, vecs);
        return value(match at {
            None => file.read(Some(task), &mut sink)?,
            Some(at) => file.pread(Some(task), at, &mut sink)?,
        });
    }
    do_read(task, &file, vecs, at)
}

fn pwritev2(task: &Arc<Task>, fd: Fd, vecs: UserPtr<RawVec>, count: usize, at: i64, _high: i64, rwf: i32) -> SysResult {
    let at = flagged_position(at)?;
    let file = task.file(fd)?;
    let vecs = vector(task, vecs, count)?;
    if total(&vecs) > 0 && file.writable() {
        check_flags(&file, rwf)?;
    }
    let place = Place::flagged(at, rwf);
    if rwf & RWF_NOWAIT != 0 {
        return value(write_once(task, &file, &vecs, place)?);
    }
    write_at(task, &file, vecs, place)
}

/// What of a file is in memory. Who can neither write it nor owns it is not told.
fn cachestat(task: &Arc<Task>, fd: Fd, range: UserPtr<[u64; 2]>, to: UserPtr<[u64; 5]>, how: u32) -> SysResult {
    let file = task.file(fd)?;
    let [offset, len] = range.read(task)?;
    let creds = task.creds();
    let may = file.writable()
        || access::is_owner(&creds, &file.inode().attr()?)
        || access::check(&creds, &**file.inode(), access::WRITE).is_ok();
    if !may {
        return Err(Errno::EPERM);
    }
    if how != 0 {
        return Err(Errno::EINVAL);
    }
    let end = if len == 0 { u64::MAX } else { offset.saturating_add(len) };
    let found = file.ops().cached(offset / PAGE, end.div_ceil(PAGE));
    to.write(task, &[found.pages, found.dirty, 0, 0, 0])?;
    done()
}

fn lseek(task: &Arc<Task>, fd: Fd, offset: i64, whence: i32) -> SysResult {
    let whence = match whence {
        0 => Whence::Set,
        1 => Whence::Current,
        2 => Whence::End,
        3 => Whence::Data,
        4 => Whence::Hole,
        _ => return Err(Errno::EINVAL),
    };
    value(task.file(fd)?.seek(offset, whence)?)
}

/// Where one side of a copy is: a position given by the caller (written back after), or the file's own.
struct Side {
    file: Arc<File>,
    at: Option<u64>,
}

/// A place that a caller gave, not yet looked at; `None` for none.
fn given(task: &Arc<Task>, pointer: UserPtr<i64>) -> Result<Option<i64>, Errno> {
    if pointer.is_null() { Ok(None) } else { pointer.read(task).map(Some) }
}

impl Side {
    /// EINVAL for a negative place or length, and for a place that the length leads beyond all.
    fn new(file: Arc<File>, at: Option<i64>, len: usize) -> Result<Self, Errno> {
        let at = at.map(position).transpose()?;
        let len = i64::try_from(len).map_err(|_| Errno::EINVAL)?;
        if at.is_some_and(|at| at > (i64::MAX - len) as u64) {
            return Err(Errno::EINVAL);
        }
        Ok(Self { file, at })
    }

    fn read(&mut self, task: &Arc<Task>, max: usize) -> Result<Vec<u8>, Errno> {
        let mut data = Vec::new();
        let mut sink = Sink::kernel(&mut data, max);
        match &mut self.at {
            None => self.file.read(Some(task), &mut sink)?,
            Some(at) => {
                let n = self.file.pread(Some(task), *at, &mut sink)?;
                *at += n as u64;
                n
            }
        };
        Ok(data)
    }

    fn write(&mut self, task: &Arc<Task>, data: &[u8]) -> Result<usize, Errno> {
        let mut data = data;
        if self.file.inode().kind() == FileType::Regular && self.file.ops().seekable() {
            let room = check_file_size(task, self.at.unwrap_or_else(|| self.file.position()))?;
            // As on Linux the rest is tried, too, and fails with the signal.
            if room < data.len() as u64 {
                task.post_signal(libc::SIGXFSZ);
                data = data.get(..room as usize).unwrap_or_default();
            }
        }
        let mut source = Source::kernel(data);
        let n = match &mut self.at {
            None => self.file.write(Some(task), &mut source),
            Some(at) => {
                let n = self.file.pwrite(Some(task), *at, &mut source);
                *at += *n.as_ref().unwrap_or(&0) as u64;
                n
            }
        };
        if n == Err(Errno::EPIPE) && self.file.ops().breaks_with_signal() {
            task.post_signal(libc::SIGPIPE);
        }
        n
    }

    /// Gives back what was read and could not be written.
    fn back(&mut self, n: usize) -> Result<(), Errno> {
        match &mut self.at {
            Some(at) => *at -= n as u64,
            None if n > 0 => {
                self.file.seek(-(n as i64), Whence::Current)?;
            }
            None => {}
        }
        Ok(())
    }

    fn save(&self, task: &Arc<Task>, pointer: UserPtr<i64>) -> Result<(), Errno> {
        match self.at {
            Some(at) => pointer.write(task, &(at as i64)),
            None => Ok(()),
        }
    }
}

/// Copies from a seekable file; waits for room in the destination. As on Linux a blocking call goes on until all is
/// copied, but into a pipe only until something is.
fn copy(
    task: &Arc<Task>,
    mut from: Side,
    mut to: Side,
    pointers: (UserPtr<i64>, UserPtr<i64>),
    len: usize,
    nonblocking: bool,
) -> SysResult {
    let queue = to.file.ops().queue().filter(|_| !nonblocking).cloned();
    let deadline = to.file.ops().write_timeout().map(crate::time::Deadline::after);
    let once = nonblocking || is_pipe(&to.file);
    let progress = Progress::default();
    let copied = progress.clone();
    let mut step = move |task: &Arc<Task>| -> Result<i64, Errno> {
        let mut done = copied.load(Ordering::Relaxed);
        let mut end = Ok(());
        while done < len {
            let data = from.read(task, (len - done).min(CHUNK))?;
            if data.is_empty() {
                break;
            }
            let written = to.write(task, &data);
            let n = *written.as_ref().unwrap_or(&0);
            from.back(data.len() - n)?;
            done += n;
            // What is there is there, whatever the rest of the call comes to.
            copied.store(done, Ordering::Relaxed);
            end = written.map(drop);
            if end.is_err() || n == 0 || (n < data.len() && once) {
                break;
            }
        }
        if done > 0 {
            from.save(task, pointers.0)?;
            to.save(task, pointers.1)?;
        }
        match end {
            Err(Errno::EAGAIN) if done == 0 || !once => Err(Errno::EAGAIN),
            Err(e) if done == 0 => Err(e),
            _ => Ok(done as i64),
        }
    };
    match queue {
        None => step(task).map(Outcome::Value),
        Some(q) => until_done(task, &q, PollMask::WRITE, deadline, &progress, step),
    }
}

fn is_pipe(file: &File) -> bool {
    file.ops_as::<PipeEnd>().is_some()
}

fn sendfile(task: &Arc<Task>, to: Fd, from: Fd, offset: UserPtr<i64>, len: usize) -> SysResult {
    let at = given(task, offset)?;
    let from = task.file(from)?;
    if !from.readable() {
        return Err(Errno::EBADF);
    }
    if at.is_some() && !from.ops().seekable() {
        return Err(Errno::ESPIPE);
    }
    let from = Side::new(from, at, len)?;
    let len = len.min(0x7fff_f000);
    let to = task.file(to)?;
    if !to.writable() {
        return Err(Errno::EBADF);
    }
    if from.file.inode().kind() == FileType::Directory {
        return Err(Errno::EINVAL);
    }
    if is_pipe(&to) && !is_pipe(&from.file) && !from.file.ops().seekable() {
        let nonblocking = to.nonblocking();
        return to_pipe(task, from, to, offset, len, nonblocking);
    }
    if !from.file.ops().seekable() || to.flags() & flags::APPEND != 0 {
        return Err(Errno::EINVAL);
    }
    let nonblocking = to.nonblocking();
    copy(task, from, Side { file: to, at: None }, (offset, UserPtr::new(0)), len, nonblocking)
}

fn copy_file_range(
    task: &Arc<Task>,
    from: Fd,
    from_at: UserPtr<i64>,
    to: Fd,
    to_at: UserPtr<i64>,
    len: usize,
    options: u32,
) -> SysResult {
    let (from, to) = (task.file(from)?, task.file(to)?);
    let (a, b) = (given(task, from_at)?, given(task, to_at)?);
    if options != 0 {
        return Err(Errno::EINVAL);
    }
    let kinds = [from.inode().kind(), to.inode().kind()];
    if kinds.contains(&FileType::Directory) {
        return Err(Errno::EISDIR);
    }
    if kinds != [FileType::Regular; 2] || !from.ops().seekable() || !to.ops().seekable() {
        return Err(Errno::EINVAL);
    }
    if !from.readable() || !to.writable() || to.flags() & flags::APPEND != 0 {
        return Err(Errno::EBADF);
    }
    if from.mount().fs.dev() != to.mount().fs.dev() {
        return Err(Errno::EXDEV);
    }
    // Places are counted as unsigned until all else is looked at, as on Linux.
    let a = a.map_or_else(|| from.position(), i64::cast_unsigned);
    let b = b.map_or_else(|| to.position(), i64::cast_unsigned);
    let len = u64::try_from(len).unwrap_or(u64::MAX);
    a.checked_add(len).and(b.checked_add(len)).ok_or(Errno::EOVERFLOW)?;
    let len = len.min(from.inode().attr()?.size.saturating_sub(a));
    let len = len.min(check_file_size(task, b)?).min(FILE_MAX.checked_sub(b).filter(|n| *n > 0).ok_or(Errno::EFBIG)?);
    if Arc::ptr_eq(from.inode(), to.inode()) && b + len > a && b < a + len {
        return Err(Errno::EINVAL);
    }
    let side = |file, at: u64, pointer: UserPtr<i64>| {
        Side::new(file, if pointer.is_null() { None } else { Some(at.cast_signed()) }, 0)
    };
    let (from, to) = (side(from, a, from_at)?, side(to, b, to_at)?);
    copy(task, from, to, (from_at, to_at), len.min(0x7fff_f000) as usize, true)
}

const SPLICE_F_NONBLOCK: u32 = 2;

fn splice(
    task: &Arc<Task>,
    from: Fd,
    from_at: UserPtr<i64>,
    to: Fd,
    to_at: UserPtr<i64>,
    len: usize,
    options: u32,
) -> SysResult {
    if len == 0 {
        return done();
    }
    if options & !0xf != 0 {
        return Err(Errno::EINVAL);
    }
    let (from, to) = (task.file(from)?, task.file(to)?);
    let pipes = (is_pipe(&from), is_pipe(&to));
    if (pipes.0 && !from_at.is_null()) || (pipes.1 && !to_at.is_null()) {
        return Err(Errno::ESPIPE);
    }
    let (a, b) = (given(task, from_at)?, given(task, to_at)?);
    if !from.readable() || !to.writable() {
        return Err(Errno::EBADF);
    }
    let nonblocking = options & SPLICE_F_NONBLOCK != 0;
    match pipes {
        (true, true) => {
            let nonblocking = nonblocking || from.nonblocking() || to.nonblocking();
            between_pipes(task, from, to, len, true, nonblocking)
        }
        (true, false) => {
            if (b.is_some() && !to.ops().seekable()) || to.flags() & flags::APPEND != 0 {
                return Err(Errno::EINVAL);
            }
            from_pipe(task, from, Side::new(to, b, len)?, to_at, len.min(0x7fff_f000), nonblocking)
        }
        (false, true) => {
            let directory = from.inode().kind() == FileType::Directory;
            if (a.is_some() && !from.ops().seekable()) || directory {
                return Err(Errno::EINVAL);
            }
            to_pipe(task, Side::new(from, a, len)?, to, from_at, len, nonblocking)
        }
        (false, false) => Err(Errno::EINVAL),
    }
}

/// From a file or a stream to a pipe, at most what the pipe holds.
fn to_pipe(
    task: &Arc<Task>,
    mut from: Side,
    to: Arc<File>,
    from_at: UserPtr<i64>,
    len: usize,
    nonblocking: bool,
) -> SysResult {
    let Some(pipe) = to.ops_as::<PipeEnd>() else { return Err(Errno::EINVAL) };
    let len = len.min(pipe.capacity());
    let source = from.file.clone();
    let mut to = Side { file: to, at: None };
    if source.ops().seekable() {
        let nonblocking = nonblocking || to.file.nonblocking();
        return copy(task, from, to, (from_at, UserPtr::new(0)), len, nonblocking);
    }
    let target = source.clone();
    let step = move |task: &Arc<Task>| -> Result<i64, Errno> {
        let room = to.file.ops_as::<PipeEnd>().map_or(0, PipeEnd::room);
        if room == 0 {
            return Err(Errno::EAGAIN);
        }
        let data = from.read(task, len.min(room))?;
        to.write(task, &data).map(|n| n as i64)
    };
    wait_both(task, &source, &target, nonblocking || source.nonblocking(), step)
}

/// From a pipe to a file or a stream.
fn from_pipe(
    task: &Arc<Task>,
    from: Arc<File>,
    mut to: Side,
    to_at: UserPtr<i64>,
    len: usize,
    nonblocking: bool,
) -> SysResult {
    let (source, target) = (from.clone(), to.file.clone());
    let step = move |task: &Arc<Task>| -> Result<i64, Errno> {
        let Some(pipe) = from.ops_as::<PipeEnd>() else { return Err(Errno::EINVAL) };
        let data = pipe.peek(len.min(CHUNK));
        if data.is_empty() {
            return if pipe.has_writers() { Err(Errno::EAGAIN) } else { Ok(0) };
        }
        let n = to.write(task, &data)?;
        pipe.consume(n);
        to.save(task, to_at)?;
        Ok(n as i64)
    };
    wait_both(task, &source, &target, nonblocking, step)
}

/// Moves or copies between two pipes.
fn between_pipes(
    task: &Arc<Task>,
    from: Arc<File>,
    to: Arc<File>,
    len: usize,
    take: bool,
    nonblocking: bool,
) -> SysResult {
    let (source, target) = (from.clone(), to.clone());
    let step = move |task: &Arc<Task>| match (from.ops_as::<PipeEnd>(), to.ops_as::<PipeEnd>()) {
        (Some(a), Some(b)) if !a.same_pipe(b) => {
            let n = a.transfer(b, len, take);
            if n == Err(Errno::EPIPE) {
                task.post_signal(libc::SIGPIPE);
            }
            n.map(|n| n as i64)
        }
        _ => Err(Errno::EINVAL),
    };
    wait_both(task, &source, &target, nonblocking, step)
}

/// Waits until the reading side has something or the writing side room.
fn wait_both(
    task: &Arc<Task>,
    from: &Arc<File>,
    to: &Arc<File>,
    nonblocking: bool,
    mut step: impl FnMut(&Arc<Task>) -> Result<i64, Errno> + Send + 'static,
) -> SysResult {
    match step(task) {
        Err(Errno::EAGAIN) if !nonblocking => {}
        r => return r.map(Outcome::Value),
    }
    let mut wait = Wait::new(move |task, cause| match step(task) {
        Err(Errno::EAGAIN) if cause == Cause::Woken => None,
        Err(Errno::EAGAIN) => Some(Err(Errno::ERESTARTSYS)),
        r => Some(r),
    });
    for (f, m) in [(from, PollMask::READ), (to, PollMask::WRITE)] {
        if let Some(q) = f.ops().queue() {
            wait = wait.on(q, m);
        }
    }
    Ok(Outcome::Block(wait))
}

fn tee(task: &Arc<Task>, from: Fd, to: Fd, len: usize, options: u32) -> SysResult {
    if options & !0xf != 0 {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return done();
    }
    let (from, to) = (task.file(from)?, task.file(to)?);
    if !from.readable() || !to.writable() {
        return Err(Errno::EBADF);
    }
    between_pipes(task, from, to, len, false, options & SPLICE_F_NONBLOCK != 0)
}

fn vmsplice(task: &Arc<Task>, fd: Fd, vecs: UserPtr<RawVec>, count: usize, options: u32) -> SysResult {
    if options & !0xf != 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.file(fd)?;
    if file.ops_as::<PipeEnd>().is_none() {
        return Err(Errno::EBADF);
    }
    let mut vecs = vector(task, vecs, count)?;
    let total = crate::uio::total(&vecs);
    if total == 0 {
        return done();
    }
    let nonblocking = options & SPLICE_F_NONBLOCK != 0;
    if !file.writable() {
        // The other way round: what is in the pipe goes to the caller's memory.
        let source = file.clone();
        let step = move |task: &Arc<Task>| file.read(Some(task), &mut Sink::user(task, vecs.clone())).map(|n| n as i64);
        return wait_both(task, &source, &source, nonblocking, step);
    }
    let target = file.clone();
    let step = move |task: &Arc<Task>| -> Result<i64, Errno> {
        let mut sent = 0;
        while let Some(first) = vecs.first().copied() {
            // A slot for each page of the caller's that the buffer touches.
            let len = first.len.min(4096 - (first.base % 4096) as usize);
            let one = vec![IoVec { base: first.base, len }];
            let Some(pipe) = file.ops_as::<PipeEnd>() else { return Err(Errno::EBADF) };
            match pipe.add_page(&mut Source::user(task, one), len) {
                Ok(n) => {
                    sent += n as i64;
                    advance(&mut vecs, n);
                }
                Err(_) if sent > 0 => break,
                Err(Errno::EPIPE) => {
                    task.post_signal(libc::SIGPIPE);
                    return Err(Errno::EPIPE);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(sent)
    };
    wait_both(task, &target, &target, nonblocking, step)
}

fn readahead(task: &Arc<Task>, fd: Fd, _at: i64, _len: usize) -> SysResult {
    let file = task.file(fd)?;
    if !file.readable() {
        return Err(Errno::EBADF);
    }
    if file.inode().kind() == FileType::Regular { done() } else { Err(Errno::EINVAL) }
}

fn fadvise(task: &Arc<Task>, fd: Fd, _at: i64, len: i64, advice: i32) -> SysResult {
    let file = task.file(fd)?;
    if file.inode().kind() == FileType::Fifo {
        return Err(Errno::ESPIPE);
    }
    if len < 0 || !(0..=5).contains(&advice) { Err(Errno::EINVAL) } else { done() }
}
