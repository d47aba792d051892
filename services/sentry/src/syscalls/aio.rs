//! Asynchronous I/O: `io_setup`, `io_destroy`, `io_submit`, `io_getevents`, `io_pgetevents`, `io_cancel`.
//!
//! What is submitted is done there and then, but for polls. What cannot be done without waiting ends the submission, which says how
//! much it took, or waits if that is the first. Contexts and rings are `ipc::aio`'s.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::read_write::{Place, RWF_NOWAIT, RawVec, check_flags, single, vector, write_once};
use super::{Entry, Outcome, SysResult, UserPtr, value};
use crate::entry;
use crate::errno::Errno;
use crate::ipc::aio::{Context, Event};
use crate::ipc::eventfd::EventFd;
use crate::memory::space::MapRequest;
use crate::memory::vma::{READ, WRITE};
use crate::syscalls::blocking::until_ready;
use crate::task::{Special, Task};
use crate::time::{Deadline, Timespec};
use crate::uio::{IoVec, Sink};
use crate::vfs::control::ProcessControl;
use crate::vfs::file::File;
use crate::vfs::inode::FileType;
use crate::wait::{Cause, PollMask, Wait, WaitQueue};

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(206, "io_setup", Full, "", io_setup(u32, UserPtr<u64>)),
    entry!(207, "io_destroy", Full, "", io_destroy(u64)),
    entry!(208, "io_getevents", Full, "", io_getevents(u64, i64, i64, UserPtr<Event>, UserPtr<Timespec>)),
    entry!(209, "io_submit", Full, "", io_submit(u64, i64, UserPtr<u64>)),
    entry!(210, "io_cancel", Full, "", io_cancel(u64, UserPtr<Iocb>, UserPtr<Event>)),
    entry!(
        333,
        "io_pgetevents",
        Full,
        "",
        io_pgetevents(u64, i64, i64, UserPtr<Event>, UserPtr<Timespec>, UserPtr<[u64; 2]>)
    ),
];

/// `struct iocb`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: u16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    notify: u32,
}

mod op {
    pub const PREAD: u16 = 0;
    pub const PWRITE: u16 = 1;
    pub const FSYNC: u16 = 2;
    pub const FDSYNC: u16 = 3;
    pub const POLL: u16 = 5;
    pub const PREADV: u16 = 7;
    pub const PWRITEV: u16 = 8;
}

/// `IOCB_FLAG_RESFD`: an eventfd is told of the end.
const RESFD: u32 = 1;
/// `IOCB_FLAG_IOPRIO`.
const IOPRIO: u32 = 2;

fn io_setup(task: &Arc<Task>, events: u32, to: UserPtr<u64>) -> SysResult {
    if to.read(task)? != 0 || events == 0 {
        return Err(Errno::EINVAL);
    }
    let processors = u32::try_from(crate::filesystems::sys::processors()).unwrap_or(1);
    let context = Context::new(&task.kernel().memory, events, processors)?;
    let ring = context.ring();
    let len = crate::memory::object::MemoryObject::size(&*ring);
    let request = MapRequest {
        len,
        prot: READ | WRITE,
        max_prot: READ | WRITE,
        shared: true,
        object: Some((ring, 0)),
        ..MapRequest::default()
    };
    let mm = task.mm();
    let (at, orders) = mm.map(task.tid(), request, &task.bounds())?;
    if let Err(e) = to.write(task, &at) {
        mm.forget(at, len);
        return Err(e);
    }
    mm.aio.add(at, context);
    let undo = move || {
        mm.forget(at, len);
        mm.aio.remove(at).ok();
    };
    Ok(Outcome::Special(Special::Orders { orders, result: 0, undo: Some(Box::new(undo)) }))
}

fn io_destroy(task: &Arc<Task>, at: u64) -> SysResult {
    let mm = task.mm();
    let context = mm.aio.remove(at)?;
    context.kill();
    let len = crate::memory::object::MemoryObject::size(&*context.ring());
    mm.unmap(task.tid(), at, len)?;
    let orders = vec![cofferdam_platform::Order::Unmap { address: at, len }];
    Ok(Outcome::Special(Special::Orders { orders, result: 0, undo: None }))
}

/// What became of an operation that was submitted.
enum Submitted {
    Taken,
    /// It would have to wait there.
    Waits(WaitQueue, PollMask),
}

/// What a read or write moves.
fn buffers(task: &Arc<Task>, iocb: &Iocb) -> Result<Vec<IoVec>, Errno> {
    let len = usize::try_from(iocb.bytes).map_err(|_| Errno::EINVAL)?;
    match iocb.opcode {
        op::PREADV | op::PWRITEV => vector(task, UserPtr::<RawVec>::new(iocb.buffer), len),
        _ => single(iocb.buffer, len),
    }
}

/// Reads or writes: what it came to, told by an event. What is wrong with the request itself is an error of the submission.
fn transfer(task: &Arc<Task>, file: &Arc<File>, iocb: &Iocb) -> Result<Result<usize, Errno>, Errno> {
    let writes = matches!(iocb.opcode, op::PWRITE | op::PWRITEV);
    if iocb.flags & IOPRIO != 0 {
        super::sched::check_io_priority(task, iocb.priority.into())?;
    }
    check_flags(file, iocb.rw_flags)?;
    if !(if writes { file.writable() } else { file.readable() }) {
        return Err(Errno::EBADF);
    }
    if file.inode().kind() == FileType::Directory {
        return Err(Errno::EINVAL);
    }
    let vecs = buffers(task, iocb)?;
    let at = u64::try_from(iocb.offset).map_err(|_| Errno::EINVAL)?;
    let at = file.ops().seekable().then_some(at);
    if writes {
        return Ok(write_once(task, file, &vecs, Place::flagged(at, iocb.rw_flags)));
    }
    let mut sink = Sink::user(task, vecs);
    Ok(match at {
        Some(at) => file.pread(Some(task), at, &mut sink),
        None => file.read(Some(task), &mut sink),
    })
}

fn submit(task: &Arc<Task>, context: &Arc<Context>, at: UserPtr<Iocb>) -> Result<Submitted, Errno> {
    let iocb = at.read(task)?;
    if iocb.reserved != 0 || i64::try_from(iocb.bytes).is_err() {
        return Err(Errno::EINVAL);
    }
    context.room()?;
    let descriptor = |n: u32| task.files().get(i32::try_from(n).map_err(|_| Errno::EBADF)?);
    let file = descriptor(iocb.fd)?;
    let notify = if iocb.flags & RESFD != 0 { Some(descriptor(iocb.notify)?) } else { None };
    if notify.as_ref().is_some_and(|f| f.ops_as::<EventFd>().is_none()) {
        return Err(Errno::EINVAL);
    }
    // `KIOCB_KEY`.
    at.cast::<u32>().offset(8)?.write(task, &0)?;
    let plain = iocb.offset == 0 && iocb.bytes == 0 && iocb.rw_flags == 0;
    let result = match iocb.opcode {
        op::PREAD | op::PWRITE | op::PREADV | op::PWRITEV => {
            let result = transfer(task, &file, &iocb)?;
            let waits = !file.nonblocking() && iocb.rw_flags & RWF_NOWAIT == 0;
            if result == Err(Errno::EAGAIN)
                && waits
                && let Some(queue) = file.ops().queue()
            {
                let reads = matches!(iocb.opcode, op::PREAD | op::PREADV);
                let mask = if reads { PollMask::READ } else { PollMask::WRITE };
                return Ok(Submitted::Waits(queue.clone(), mask));
            }
            result
        }
        op::FSYNC | op::FDSYNC => {
            if iocb.buffer != 0 || !plain {
                return Err(Errno::EINVAL);
            }
            match file.ops().sync(&file, iocb.opcode == op::FDSYNC) {
                // Not for such a file.
                Err(Errno::EINVAL) => return Err(Errno::EINVAL),
                r => r.map(|()| 0),
            }
        }
        op::POLL => {
            let events = u16::try_from(iocb.buffer).map_err(|_| Errno::EINVAL)?;
            if !plain {
                return Err(Errno::EINVAL);
            }
            let events = PollMask::from_bits_truncate(events.into()) | PollMask::ERR | PollMask::HUP;
            context.poll(file, events, notify, (at.address(), iocb.data))?;
            return Ok(Submitted::Taken);
        }
        _ => return Err(Errno::EINVAL),
    };
    let result = result.map_or_else(|e| -i64::from(e.code()), |n| n as i64);
    let event = Event { data: iocb.data, object: at.address(), result, result2: 0 };
    context.complete(event, notify.as_ref());
    Ok(Submitted::Taken)
}

fn io_submit(task: &Arc<Task>, context: u64, count: i64, list: UserPtr<u64>) -> SysResult {
    let count = u64::try_from(count).map_err(|_| Errno::EINVAL)?;
    let context = task.mm().aio.get(context)?;
    let count = count.min(context.slots().into());
    for i in 0..count {
        let one = || {
            let at = UserPtr::<Iocb>::new(list.offset(i * 8)?.read(task)?);
            submit(task, &context, at).map(|s| (at, s))
        };
        match one() {
            Ok((_, Submitted::Taken)) => {}
            Ok(_) | Err(_) if i > 0 => return value(i),
            Err(e) => return Err(e),
            Ok((at, Submitted::Waits(queue, mask))) => {
                let step = move |task: &Arc<Task>| match submit(task, &context, at)? {
                    Submitted::Taken => Ok(1),
                    Submitted::Waits(..) => Err(Errno::EAGAIN),
                };
                return until_ready(task, &queue, mask, None, step);
            }
        }
    }
    value(count)
}

fn io_cancel(task: &Arc<Task>, context: u64, iocb: UserPtr<Iocb>, _event: UserPtr<Event>) -> SysResult {
    if iocb.cast::<u32>().offset(8)?.read(task)? != 0 {
        return Err(Errno::EINVAL);
    }
    Err(task.mm().aio.get(context)?.cancel(iocb.address()))
}

/// Waits for events. `interrupted`: what it comes to if a signal is there before any.
fn wait(
    task: &Arc<Task>,
    at: u64,
    (least, most): (i64, i64),
    to: UserPtr<Event>,
    timeout: Option<i64>,
    (interrupted, swapped): (Errno, Option<u64>),
) -> SysResult {
    let restore = move |task: &Arc<Task>, r: Result<i64, Errno>| {
        if let Some(old) = swapped {
            task.restore_signal_mask(old, r == Err(interrupted));
        }
        r
    };
    let context = match task.mm().aio.get(at) {
        Ok(c) if least <= most && least >= 0 => c,
        _ => return restore(task, Err(Errno::EINVAL)).map(Outcome::Value),
    };
    let (least, most) = (usize::try_from(least).unwrap_or(0), usize::try_from(most).unwrap_or(0));
    // One before now is none, as on Linux.
    let deadline = timeout.filter(|t| *t > 0).map(Deadline::after);
    let at_once = timeout == Some(0);
    let queue = context.queue.clone();
    let mut have = 0;
    let mut step = move |task: &Arc<Task>, cause: Cause| -> Option<Result<i64, Errno>> {
        loop {
            let dead = context.is_dead();
            let put = |events: &[Event]| to.offset(have as u64 * size_of::<Event>() as u64)?.write_array(task, events);
            let got = if dead { Err(Errno::EINVAL) } else { context.reap(most - have, put) };
            match got {
                Ok(n) if n > 0 => have += n,
                Err(e) if have == 0 => return Some(restore(task, Err(e))),
                r => {
                    let over = r.is_err() || have >= least || at_once || cause != Cause::Woken;
                    if !over {
                        return None;
                    }
                    let result =
                        if have == 0 && cause == Cause::Interrupted { Err(interrupted) } else { Ok(have as i64) };
                    return Some(restore(task, result));
                }
            }
            if have >= most {
                return Some(restore(task, Ok(have as i64)));
            }
        }
    };
    match step(task, Cause::Woken) {
        Some(r) => r.map(Outcome::Value),
        None => Ok(Outcome::Block(Wait::new(step).on(&queue, PollMask::empty()).until(deadline))),
    }
}

/// Nanoseconds of a timeout, which need not be normal.
fn nanoseconds(task: &Arc<Task>, timeout: UserPtr<Timespec>) -> Result<Option<i64>, Errno> {
    if timeout.is_null() {
        return Ok(None);
    }
    let t = timeout.read(task)?;
    Ok(Some(t.sec.saturating_mul(crate::time::NS).saturating_add(t.nsec)))
}

fn io_getevents(
    task: &Arc<Task>,
    context: u64,
    least: i64,
    most: i64,
    to: UserPtr<Event>,
    timeout: UserPtr<Timespec>,
) -> SysResult {
    let timeout = nanoseconds(task, timeout)?;
    wait(task, context, (least, most), to, timeout, (Errno::EINTR, None))
}

fn io_pgetevents(
    task: &Arc<Task>,
    context: u64,
    least: i64,
    most: i64,
    to: UserPtr<Event>,
    timeout: UserPtr<Timespec>,
    signals: UserPtr<[u64; 2]>,
) -> SysResult {
    let timeout = nanoseconds(task, timeout)?;
    let [mask, size] = if signals.is_null() { [0; 2] } else { signals.read(task)? };
    let mask = super::epoll::signals(task, UserPtr::new(mask), usize::try_from(size).unwrap_or(usize::MAX))?;
    let swapped = mask.map(|m| task.swap_signal_mask(m));
    wait(task, context, (least, most), to, timeout, (Errno::ERESTARTNOHAND, swapped))
}
