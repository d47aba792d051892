//! POSIX message queue calls, `mq_overview(7)`.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::time::moment;
use super::timer::{SIGEV_NONE, SIGEV_SIGNAL, SIGEV_THREAD, SigEvent};
use super::{Entry, Fd, Outcome, SysResult, UserPtr, UserStr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::filesystems::mqueue::Maker;
use crate::ipc::mqueue::{COOKIE, Notify, PRIORITIES, Queue, QueueFile};
use crate::ipc::netlink::NetlinkFile;
use crate::signal::valid;
use crate::task::Task;
use crate::time::{Clock, Deadline, Timespec};
use crate::vfs::caller::Caller;
use crate::vfs::file::flags;
use crate::vfs::ops;
use crate::vfs::{File, inode::mode};
use crate::wait::{Cause, PollMask, Wait, WaitQueue};

/// The calls.
pub const TABLE: &[Entry] = &[
    entry!(240, "mq_open", Full, "", mq_open(UserStr, i32, u32, UserPtr<MqAttr>)),
    entry!(241, "mq_unlink", Full, "", mq_unlink(UserStr)),
    entry!(242, "mq_timedsend", Full, "", mq_timedsend(Fd, UserPtr<u8>, usize, u32, UserPtr<Timespec>)),
    entry!(243, "mq_timedreceive", Full, "", mq_timedreceive(Fd, UserPtr<u8>, usize, UserPtr<u32>, UserPtr<Timespec>)),
    entry!(244, "mq_notify", Full, "", mq_notify(Fd, UserPtr<SigEvent>)),
    entry!(245, "mq_getsetattr", Full, "", mq_getsetattr(Fd, UserPtr<MqAttr>, UserPtr<MqAttr>)),
];

/// `struct mq_attr`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
struct MqAttr {
    flags: i64,
    max_count: i64,
    max_size: i64,
    count: i64,
    reserved: [i64; 4],
}

/// A name as the calls take it, without the slash that the library took off.
fn name_of(task: &Arc<Task>, name: UserStr) -> Result<Vec<u8>, Errno> {
    let name = name.read_path(task)?;
    match name.as_slice() {
        b"" => Err(Errno::ENOENT),
        b"." | b".." => Err(Errno::EACCES),
        n if n.contains(&b'/') => Err(Errno::EACCES),
        n if n.len() > 255 => Err(Errno::ENAMETOOLONG),
        _ => Ok(name),
    }
}

fn mq_open(task: &Arc<Task>, name: UserStr, open_flags: i32, bits: u32, attr: UserPtr<MqAttr>) -> SysResult {
    let attr = if attr.is_null() { None } else { Some(attr.read(task)?) };
    let name = name_of(task, name)?;
    let queues = task.ipc().mqueues.clone();
    let caller = Caller::of(task);
    if open_flags & flags::ACCMODE == flags::ACCMODE {
        let there = queues.place().dentry.child(&caller, &name)?.is_some();
        return Err(if there || open_flags & flags::CREAT != 0 { Errno::EINVAL } else { Errno::ENOENT });
    }
    let wanted = attr.map(|a| (a.max_count, a.max_size));
    let maker = Maker::of(task);
    let make = |name: &[u8], new: &_| queues.create(&maker, name, new, wanted);
    let kept = flags::ACCMODE | flags::CREAT | flags::EXCL | flags::NONBLOCK;
    let file = ops::open_name(&caller, queues.place(), &name, open_flags & kept, mode::REGULAR | bits, make)?;
    value(task.add_file(file, true)?)
}

fn mq_unlink(task: &Arc<Task>, name: UserStr) -> SysResult {
    let name = name_of(task, name)?;
    ops::unlink(&Caller::of(task), task.ipc().mqueues.place(), &name, false)?;
    done()
}

/// The queue behind a descriptor; EBADF for other files.
fn queue_of(task: &Arc<Task>, fd: Fd) -> Result<(Arc<File>, Arc<Queue>), Errno> {
    let file = task.file(fd)?;
    let queue = file.ops_as::<QueueFile>().ok_or(Errno::EBADF)?.0.clone();
    Ok((file, queue))
}

fn mq_timedsend(
    task: &Arc<Task>,
    fd: Fd,
    from: UserPtr<u8>,
    len: usize,
    priority: u32,
    until: UserPtr<Timespec>,
) -> SysResult {
    let until = moment(task, until, Clock::Realtime)?;
    if priority >= PRIORITIES {
        return Err(Errno::EINVAL);
    }
    let (file, queue) = queue_of(task, fd)?;
    if !file.writable() {
        return Err(Errno::EBADF);
    }
    if len > queue.max_size {
        return Err(Errno::EMSGSIZE);
    }
    let text = from.read_array(task, len, queue.max_size)?;
    let woken = queue.queue.clone();
    let send = move |task: &Arc<Task>| queue.send(task, &text, priority).map(|()| 0);
    transfer(task, &file, &woken, PollMask::OUT, until, send)
}

fn mq_timedreceive(
    task: &Arc<Task>,
    fd: Fd,
    to: UserPtr<u8>,
    len: usize,
    priority: UserPtr<u32>,
    until: UserPtr<Timespec>,
) -> SysResult {
    let until = moment(task, until, Clock::Realtime)?;
    let (file, queue) = queue_of(task, fd)?;
    if !file.readable() {
        return Err(Errno::EBADF);
    }
    if len < queue.max_size {
        return Err(Errno::EMSGSIZE);
    }
    let (woken, mut waiting) = (queue.queue.clone(), None);
    let receive = move |task: &Arc<Task>| {
        let (text, of) = match queue.receive() {
            Err(e) => {
                waiting.get_or_insert_with(|| queue.wait());
                return Err(e);
            }
            Ok(got) => got,
        };
        waiting = None;
        priority.write_if(task, &of)?;
        to.write_array(task, &text)?;
        i64::try_from(text.len()).map_err(|_| Errno::EOVERFLOW)
    };
    transfer(task, &file, &woken, PollMask::IN, until, receive)
}

/// Sends or receives, now or when it can be done.
fn transfer(
    task: &Arc<Task>,
    file: &File,
    woken: &WaitQueue,
    mask: PollMask,
    until: Option<Deadline>,
    mut transfer: impl FnMut(&Arc<Task>) -> Result<i64, Errno> + Send + 'static,
) -> SysResult {
    match transfer(task) {
        Err(Errno::EAGAIN) if !file.nonblocking() => {}
        done => return value(done?),
    }
    let wait = Wait::new(move |task, cause| match (transfer(task), cause) {
        (Err(Errno::EAGAIN), Cause::Woken) => None,
        (Err(Errno::EAGAIN), Cause::TimedOut) => Some(Err(Errno::ETIMEDOUT)),
        (Err(Errno::EAGAIN), Cause::Interrupted) => Some(Err(Errno::ERESTARTSYS)),
        (done, _) => Some(done),
    });
    Ok(Outcome::Block(wait.on(woken, mask).until(until)))
}

fn mq_notify(task: &Arc<Task>, fd: Fd, event: UserPtr<SigEvent>) -> SysResult {
    if event.is_null() {
        let (_, queue) = queue_of(task, fd)?;
        queue.unregister(task.pid());
        return done();
    }
    let event = event.read(task)?;
    let how = match event.notify {
        SIGEV_NONE => Notify::Nothing,
        SIGEV_SIGNAL if valid(event.signo) => Notify::Signal(event.signo, event.value),
        SIGEV_THREAD => {
            let cookie = UserPtr::<u8>::new(event.value).read_array(task, COOKIE, COOKIE)?;
            let file = task.file(Fd(event.signo))?;
            let is_socket = file.inode().kind() == crate::vfs::inode::FileType::Socket;
            let no_netlink = if is_socket { Errno::EINVAL } else { Errno::ENOTSOCK };
            let socket = file.ops_as::<NetlinkFile>().ok_or(no_netlink)?.0.clone();
            Notify::Thread(socket, cookie.try_into().map_err(|_| Errno::EFAULT)?)
        }
        _ => return Err(Errno::EINVAL),
    };
    let (_, queue) = queue_of(task, fd)?;
    queue.register(task, how)?;
    done()
}

fn mq_getsetattr(task: &Arc<Task>, fd: Fd, new: UserPtr<MqAttr>, old: UserPtr<MqAttr>) -> SysResult {
    let nonblock = i64::from(flags::NONBLOCK);
    let new = if new.is_null() { None } else { Some(new.read(task)?) };
    if new.is_some_and(|n| n.flags & !nonblock != 0) {
        return Err(Errno::EINVAL);
    }
    let (file, queue) = queue_of(task, fd)?;
    let now = MqAttr {
        flags: i64::from(file.flags()) & nonblock,
        max_count: queue.max_count as i64,
        max_size: queue.max_size as i64,
        count: queue.len() as i64,
        reserved: [0; 4],
    };
    if let Some(new) = new {
        let wanted = if new.flags & nonblock != 0 { flags::NONBLOCK } else { 0 };
        file.set_flags(file.flags() & !flags::NONBLOCK | wanted);
    }
    old.write_if(task, &now)?;
    done()
}
