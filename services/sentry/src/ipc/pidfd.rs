//! Descriptors of processes and threads, `pidfd_open(2)`.
//!
//! A pidfd holds the process itself, not its number: what comes later under the same number is another process.

use std::any::Any;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::errno::Errno;
use crate::filesystems::anon::{AnonInode, Family};
use crate::kernel::Kernel;
use crate::namespaces::{Kind, Namespace, nsfs};
use crate::syscalls::{SysResult, UserPtr, done};
use crate::task::creds::may_look_into;
use crate::task::group::Life;
use crate::task::{Group, Task};
use crate::vfs::file::{File, FileOps, flags};
use crate::wait::{PollMask, WaitQueue};

/// A process's descriptor, or a thread's.
pub struct PidFd {
    kernel: Arc<Kernel>,
    group: Arc<Group>,
    /// A thread that is no process by itself.
    thread: Option<(Weak<Task>, i32)>,
}

fn make(kernel: &Arc<Kernel>, group: &Arc<Group>, thread: Option<(Weak<Task>, i32)>, open: i32) -> Arc<File> {
    let inode = AnonInode::make(Family::Inode.dev(), 0o700, 0, 0, None);
    let ops = PidFd { kernel: kernel.clone(), group: group.clone(), thread };
    let file = File::new(Family::Inode.place(inode, b"anon_inode:[pidfd]"), Box::new(ops), flags::RDWR | open);
    file.mark(open & flags::EXCL);
    file
}

/// Opens a process; `nonblocking`: a `waitid(2)` on it does not wait.
pub fn pidfd(kernel: &Arc<Kernel>, group: &Arc<Group>, nonblocking: bool) -> Arc<File> {
    make(kernel, group, None, if nonblocking { flags::NONBLOCK } else { 0 })
}

/// Opens a thread (`PIDFD_THREAD`).
pub fn of_thread(task: &Arc<Task>, nonblocking: bool) -> Arc<File> {
    let (group, tid) = (task.group(), task.tid());
    let thread = (tid != group.pid).then(|| (Arc::downgrade(task), tid));
    make(task.kernel(), group, thread, flags::EXCL | if nonblocking { flags::NONBLOCK } else { 0 })
}

/// `struct pidfd_info`, as far as Linux 6.18 has it.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
struct Info {
    mask: u64,
    cgroup: u64,
    ids: [i32; 3],
    creds: [u32; 8],
    exit_code: i32,
    coredump: u32,
    pad: u32,
}

mod info {
    pub const PID: u64 = 1;
    pub const CREDS: u64 = 2;
    pub const CGROUP: u64 = 4;
    pub const EXIT: u64 = 8;
    pub const COREDUMP: u64 = 16;
    /// Bytes of its first version.
    pub const LEAST: usize = 64;
}

impl PidFd {
    /// The process; `None` once it has been waited for.
    pub fn group(&self) -> Option<&Arc<Group>> {
        let there = self.kernel.tree.lock().group(self.group.pid).is_some_and(|g| Arc::ptr_eq(&g, &self.group));
        (there && !self.thread_is_gone()).then_some(&self.group)
    }

    /// Whether it is of this process.
    pub fn is_of(&self, group: &Arc<Group>) -> bool {
        Arc::ptr_eq(&self.group, group)
    }

    /// Whether it is of a thread that is no process.
    pub fn is_of_thread(&self) -> bool {
        self.thread.is_some()
    }

    /// The id of what it is of.
    pub fn id(&self) -> i32 {
        self.thread.as_ref().map_or(self.group.pid, |(_, tid)| *tid)
    }

    fn thread_is_gone(&self) -> bool {
        self.thread.is_some() && self.thread().is_none()
    }

    /// The thread, if it is of one and it has not ended.
    fn thread(&self) -> Option<Arc<Task>> {
        self.thread.as_ref().and_then(|(t, _)| t.upgrade()).filter(|t| !t.exited.load(Ordering::SeqCst))
    }

    /// The task that speaks for it: the thread, or the first of the process.
    pub fn task(&self) -> Option<Arc<Task>> {
        if self.is_of_thread() { self.thread() } else { self.group()?.leader() }
    }

    fn info(&self, task: &Arc<Task>, to: UserPtr<u8>, size: usize) -> SysResult {
        if to.is_null() {
            return Err(Errno::EINVAL);
        }
        let asked: u64 = to.cast().read(task)?;
        // What lies outside of the caller's namespace is not told of.
        if task.shown(self.group.pid) == 0 && self.group().is_some() {
            return Err(Errno::ESRCH);
        }
        let mut out = Info { cgroup: 1, ..Info::default() };
        if asked & info::COREDUMP != 0 {
            out.mask |= info::COREDUMP;
        }
        match self.group() {
            None if asked & info::EXIT == 0 || self.is_of_thread() => return Err(Errno::ESRCH),
            None => {
                out.mask |= info::EXIT | info::CGROUP;
                if let Life::Zombie(status) = *self.group.life.lock() {
                    out.exit_code = status;
                }
            }
            Some(group) => {
                let it = self.task().map(|t| t.creds()).or_else(|| group.creds()).ok_or(Errno::ESRCH)?;
                let me = task.creds();
                let (u, g) = (|id| me.shown_uid(id), |id| me.shown_gid(id));
                out.mask |= info::PID | info::CREDS | info::CGROUP;
                let parent = self.kernel.tree.lock().node(group.pid).map_or(0, |n| n.parent);
                out.ids = [task.shown(self.id()), task.shown(group.pid), task.shown(parent)];
                out.creds =
                    [u(it.ruid), g(it.rgid), u(it.euid), g(it.egid), u(it.suid), g(it.sgid), u(it.fsuid), g(it.fsgid)];
                if asked & info::COREDUMP != 0 {
                    // What a dump would be: skipped, the user's or root's.
                    out.coredump = match group.dumpable.load(Ordering::Relaxed) {
                        0 => 2,
                        1 => 4,
                        _ => 8,
                    };
                }
            }
        }
        let mut raw = out.as_bytes().to_vec();
        raw.resize(size, 0);
        to.write_array(task, &raw)?;
        done()
    }

    fn namespace(&self, task: &Arc<Task>, which: u32, argument: u64) -> SysResult {
        let target = self.task().ok_or(Errno::ESRCH)?;
        if argument != 0 {
            return Err(Errno::EINVAL);
        }
        if !may_look_into(task, &target) {
            return Err(Errno::EACCES);
        }
        let kind = match which {
            1 => Kind::Cgroup,
            2 => Kind::Ipc,
            3 => Kind::Mount,
            4 => Kind::Net,
            5 => Kind::Pid,
            6 => return nsfs::open(task, Namespace::Pid(target.namespaces().pid_for_children.clone())),
            // Of time: as without CONFIG_TIME_NS.
            7 | 8 => return Err(Errno::EOPNOTSUPP),
            9 => Kind::User,
            _ => Kind::Uts,
        };
        nsfs::open(task, nsfs::of_task(&target, kind))
    }
}

impl FileOps for PidFd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        false
    }

    fn poll(&self, _file: &File) -> PollMask {
        let mut m = PollMask::empty();
        m.set(PollMask::IN | PollMask::RDNORM, self.group.is_zombie() || self.thread_is_gone());
        m.set(PollMask::HUP, self.group().is_none());
        m
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.group.ended)
    }

    fn ioctl(&self, task: &Arc<Task>, _file: &Arc<File>, request: u32, argument: u64) -> SysResult {
        /// Of `PIDFD_GET_INFO`, without its size.
        const GET_INFO: u32 = 0xc000_ff0b;
        const SIZE: u32 = 0x3fff_0000;
        let size = ((request & SIZE) >> 16) as usize;
        match request {
            _ if request & !SIZE == GET_INFO && size >= info::LEAST => self.info(task, UserPtr::new(argument), size),
            0xff01..=0xff0a => self.namespace(task, request & 0xff, argument),
            _ => Err(Errno::ENOTTY),
        }
    }
}
