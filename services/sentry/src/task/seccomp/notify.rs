//! Calls that a filter leaves to another process: `SECCOMP_RET_USER_NOTIF`, `seccomp_unotify(2)`.
//!
//! A listener belongs to one filter and has the calls that it was told of, each as long as its caller waits for the answer. A caller
//! waits as in any blocked call, without a thread. Owns the listeners and their requests; what filters say is `seccomp`'s. Called by
//! the gate, and through the listener's descriptor by whoever answers.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::bpf::Data;
use crate::errno::Errno;
use crate::filesystems::anon;
use crate::signal::{Default_, SIG_DFL, default_of};
use crate::sync::Mutex;
use crate::syscalls::{Outcome, SysResult, UserPtr, done, value};
use crate::task::Task;
use crate::task::group::rlimit;
use crate::vfs::file::{File, FileOps, flags};
use crate::wait::{Cause, PollMask, Wait, WaitQueue};

/// The call is made after all.
const CONTINUE: u32 = 1;

/// How far a request is.
enum Stage {
    /// Nobody has seen it.
    New,
    /// It was received.
    Sent,
    /// A descriptor is put in, whose number will be the answer.
    Answering,
    /// It is answered: what the call comes to; `None`: it is made.
    Answered(Option<i64>),
}

struct Request {
    task: Weak<Task>,
    tid: i32,
    data: Data,
    stage: Stage,
    answered: WaitQueue,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// No task has the filter any more.
    deserted: bool,
    requests: BTreeMap<u64, Request>,
}

/// What a filter tells of calls.
pub struct Listener {
    state: Mutex<State>,
    /// Woken when there is something to receive, or to answer, or nobody left.
    queue: WaitQueue,
    /// Once a request was received only what kills its task breaks the wait.
    killable: bool,
}

/// Unique for each request. Where it begins means nothing.
static NEXT: AtomicU64 = AtomicU64::new(0x5ca1_ab1e_0000);

/// `struct seccomp_notif`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct Notification {
    id: u64,
    pid: i32,
    flags: u32,
    data: Data,
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// `struct seccomp_notif_addfd`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct AddFd {
    id: u64,
    flags: u32,
    source: u32,
    number: u32,
    number_flags: u32,
}

/// Takes the request back when its caller stops to wait, however that comes.
struct Waiting {
    listener: Arc<Listener>,
    id: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let gone = self.listener.state.lock().requests.remove(&self.id);
        drop(gone);
    }
}

impl Listener {
    /// A new one.
    pub fn new(killable: bool) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), queue: WaitQueue::new(), killable })
    }

    /// Its descriptor's file.
    pub fn file(self: &Arc<Self>) -> Arc<File> {
        anon::file(b"anon_inode:seccomp notify", Box::new(ListenerFile(self.clone())), flags::RDWR)
    }

    /// Whether its descriptor is closed.
    pub fn closed(&self) -> bool {
        self.state.lock().closed
    }

    /// No task has the filter any more.
    pub fn desert(&self) {
        self.state.lock().deserted = true;
        self.queue.wake_all();
    }

    /// A call that waits for what whoever listens says of it; ENOSYS if nobody does.
    pub fn ask(self: &Arc<Self>, task: &Arc<Task>, data: Data) -> SysResult {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let answered = WaitQueue::new();
        {
            let mut s = self.state.lock();
            if s.closed {
                return Err(Errno::ENOSYS);
            }
            let (task, tid) = (Arc::downgrade(task), task.tid());
            s.requests.insert(id, Request { task, tid, data, stage: Stage::New, answered: answered.clone() });
        }
        self.queue.wake(PollMask::IN | PollMask::RDNORM);
        let waiting = Waiting { listener: self.clone(), id };
        let retry = move |task: &Arc<Task>, cause: Cause| {
            let listener = &waiting.listener;
            let (said, received) = {
                let s = listener.state.lock();
                match s.requests.get(&id).map(|r| &r.stage) {
                    Some(Stage::Answered(said)) => (Some(*said), true),
                    Some(stage) => (None, matches!(stage, Stage::Sent)),
                    None => (Some(Some(-i64::from(Errno::ENOSYS.code()))), true),
                }
            };
            match (said, cause) {
                (Some(Some(result)), _) => Some(Ok(result)),
                (Some(None), _) => {
                    task.state.lock().noticed = Some(data.args);
                    Some(Ok(0))
                }
                (None, Cause::Interrupted) if !(listener.killable && received) || dies(task) => {
                    Some(Err(Errno::ERESTARTSYS))
                }
                (None, _) => None,
            }
        };
        Ok(Outcome::Block(Wait::new(retry).on(&answered, PollMask::empty())))
    }

    fn receive(&self, task: &Arc<Task>, to: UserPtr<Notification>) -> Result<i64, Errno> {
        let found = {
            let mut s = self.state.lock();
            let deserted = s.deserted;
            let next = s.requests.iter_mut().find(|(_, r)| matches!(r.stage, Stage::New));
            match next {
                Some((id, r)) => {
                    r.stage = Stage::Sent;
                    Notification { id: *id, pid: task.shown(r.tid), flags: 0, data: r.data }
                }
                None if deserted => return Err(Errno::ENOENT),
                None => return Err(Errno::EAGAIN),
            }
        };
        self.queue.wake(PollMask::OUT | PollMask::WRNORM);
        if let Err(e) = to.write(task, &found) {
            // It is there for the next one.
            if let Some(r) = self.state.lock().requests.get_mut(&found.id) {
                r.stage = Stage::New;
            }
            self.queue.wake(PollMask::IN | PollMask::RDNORM);
            return Err(e);
        }
        Ok(0)
    }

    /// Does something with a request that was received and not answered; ENOENT if it is none, EINPROGRESS at another stage.
    fn with<R>(&self, id: u64, f: impl FnOnce(&mut Request) -> R) -> Result<R, Errno> {
        let mut s = self.state.lock();
        let r = s.requests.get_mut(&id).ok_or(Errno::ENOENT)?;
        if matches!(r.stage, Stage::Sent) { Ok(f(r)) } else { Err(Errno::EINPROGRESS) }
    }

    fn answer(&self, id: u64, said: Option<i64>) -> Result<(), Errno> {
        let queue = self.with(id, |r| {
            r.stage = Stage::Answered(said);
            r.answered.clone()
        })?;
        queue.wake_all();
        Ok(())
    }

    /// Goes on to another stage, if the request is still there.
    fn set_stage(&self, id: u64, stage: Stage) {
        let queue = self.state.lock().requests.get_mut(&id).map(|r| {
            r.stage = stage;
            r.answered.clone()
        });
        if let Some(queue) = queue {
            queue.wake_all();
        }
    }

    /// Gives the caller of a request a descriptor of ours; `SEND` answers it with the number.
    fn add_fd(&self, task: &Arc<Task>, add: AddFd) -> Result<i64, Errno> {
        const SETFD: u32 = 1;
        const SEND: u32 = 2;
        let cloexec = flags::CLOEXEC.cast_unsigned();
        if add.number_flags & !cloexec != 0
            || add.flags & !(SETFD | SEND) != 0
            || (add.number != 0 && add.flags & SETFD == 0)
        {
            return Err(Errno::EINVAL);
        }
        let file = task.files().get(i32::try_from(add.source).map_err(|_| Errno::EBADF)?)?;
        let answers = add.flags & SEND != 0;
        let target = self.with(add.id, |r| {
            if answers {
                r.stage = Stage::Answering;
            }
            r.task.upgrade()
        });
        let target = target?.ok_or(Errno::ENOENT)?;
        let limit = target.group().limit(rlimit::NOFILE).soft;
        let (files, cloexec) = (target.files(), add.number_flags & cloexec != 0);
        let put = || {
            if add.flags & SETFD == 0 {
                return files.add(file, cloexec, limit);
            }
            let number = i32::try_from(add.number).map_err(|_| Errno::EBADF)?;
            files.put(number, file, cloexec, limit).map(|()| number)
        };
        let number = put();
        if answers {
            self.set_stage(add.id, number.map_or(Stage::Sent, |n| Stage::Answered(Some(n.into()))));
        }
        number.map(i64::from)
    }

    fn events(&self) -> PollMask {
        let s = self.state.lock();
        let any = |f: fn(&Stage) -> bool| s.requests.values().any(|r| f(&r.stage));
        let mut m = PollMask::empty();
        m.set(PollMask::IN | PollMask::RDNORM, any(|s| matches!(s, Stage::New)));
        m.set(PollMask::OUT | PollMask::WRNORM, any(|s| matches!(s, Stage::Sent)));
        m.set(PollMask::HUP, s.deserted);
        m
    }
}

/// Whether a signal that waits for the task ends it.
fn dies(task: &Arc<Task>) -> bool {
    let group = task.group();
    if group.is_exiting() || task.exited.load(Ordering::SeqCst) {
        return true;
    }
    let (pending, mask) = (task.pending_signals(), task.mask());
    let actions = task.actions();
    let actions = actions.lock();
    (1..=64).any(|s| {
        pending.has(s) && !mask.has(s) && actions.get(s).handler == SIG_DFL && default_of(s) == Default_::Terminate
    })
}

struct ListenerFile(Arc<Listener>);

impl Drop for ListenerFile {
    fn drop(&mut self) {
        let queues: Vec<WaitQueue> = {
            let mut s = self.0.state.lock();
            s.closed = true;
            let nobody = Some(-i64::from(Errno::ENOSYS.code()));
            let waiting = s.requests.values_mut().filter(|r| !matches!(r.stage, Stage::Answered(_)));
            waiting
                .map(|r| {
                    r.stage = Stage::Answered(nobody);
                    r.answered.clone()
                })
                .collect()
        };
        queues.iter().for_each(WaitQueue::wake_all);
    }
}

impl FileOps for ListenerFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        false
    }

    fn poll(&self, _file: &File) -> PollMask {
        self.0.events()
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.queue)
    }

    fn ioctl(&self, task: &Arc<Task>, _file: &Arc<File>, request: u32, argument: u64) -> SysResult {
        const RECV: u32 = 0xc050_2100;
        const SEND: u32 = 0xc018_2101;
        const ID_VALID: u32 = 0x4008_2102;
        /// With the wrong direction, as it was once.
        const ID_VALID_OLD: u32 = 0x8008_2102;
        const SET_FLAGS: u32 = 0x4008_2104;
        /// A structure that may grow: whatever its size.
        const ADDFD: u32 = 0x4000_2103;
        const SIZE: u32 = 0x3fff_0000;
        match request {
            RECV => {
                let to = UserPtr::<Notification>::new(argument);
                let blank = to.cast::<u8>().read_array(task, size_of::<Notification>(), size_of::<Notification>())?;
                if blank.iter().any(|b| *b != 0) {
                    return Err(Errno::EINVAL);
                }
                let listener = self.0.clone();
                let receive = move |task: &Arc<Task>| listener.receive(task, to);
                crate::syscalls::blocking::until_ready(task, &self.0.queue, PollMask::READ, None, receive)
            }
            SEND => {
                let r = UserPtr::<Response>::new(argument).read(task)?;
                if r.flags & !CONTINUE != 0 || (r.flags & CONTINUE != 0 && (r.error != 0 || r.value != 0)) {
                    return Err(Errno::EINVAL);
                }
                let result = if r.error == 0 { r.value } else { r.error.into() };
                self.0.answer(r.id, (r.flags & CONTINUE == 0).then_some(result))?;
                done()
            }
            ID_VALID | ID_VALID_OLD => {
                let id = UserPtr::<u64>::new(argument).read(task)?;
                self.0.with(id, |_| ()).map_err(|_| Errno::ENOENT)?;
                done()
            }
            // Wake-ups here are synchronous anyway.
            SET_FLAGS if argument & !1 == 0 => done(),
            SET_FLAGS => Err(Errno::EINVAL),
            _ if request & !SIZE == ADDFD => {
                let size = ((request & SIZE) >> 16) as usize;
                if size < size_of::<AddFd>() || size >= 4096 {
                    return Err(Errno::EINVAL);
                }
                let raw = UserPtr::<u8>::new(argument).read_array(task, size, size)?;
                let (known, rest) = AddFd::read_from_prefix(&raw).map_err(|_| Errno::EINVAL)?;
                if rest.iter().any(|b| *b != 0) {
                    return Err(Errno::E2BIG);
                }
                value(self.0.add_fd(task, known)?)
            }
            _ => Err(Errno::EINVAL),
        }
    }
}
