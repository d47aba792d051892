//! Descriptors of processes, `pidfd_open(2)`.
//!
//! A pidfd holds the process itself, not its number: what comes later under the same number is another process.

use std::any::Any;
use std::sync::Arc;

use crate::filesystems::anon::{AnonInode, Family};
use crate::kernel::Kernel;
use crate::task::Group;
use crate::vfs::file::{File, FileOps, flags};
use crate::wait::{PollMask, WaitQueue};

/// A process's descriptor.
pub struct PidFd {
    kernel: Arc<Kernel>,
    group: Arc<Group>,
}

/// Opens a process; `nonblocking`: a `waitid(2)` on it does not wait.
pub fn pidfd(kernel: &Arc<Kernel>, group: &Arc<Group>, nonblocking: bool) -> Arc<File> {
    let inode = AnonInode::make(Family::Inode.dev(), 0o700, 0, 0, None);
    let open = flags::RDWR | if nonblocking { flags::NONBLOCK } else { 0 };
    let ops = PidFd { kernel: kernel.clone(), group: group.clone() };
    File::new(Family::Inode.place(inode, b"anon_inode:[pidfd]"), Box::new(ops), open)
}

impl PidFd {
    /// The process; `None` once it has been waited for.
    pub fn group(&self) -> Option<&Arc<Group>> {
        let there = self.kernel.tree.lock().group(self.group.pid).is_some_and(|g| Arc::ptr_eq(&g, &self.group));
        there.then_some(&self.group)
    }

    /// Whether it is of this process.
    pub fn is_of(&self, group: &Arc<Group>) -> bool {
        Arc::ptr_eq(&self.group, group)
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
        m.set(PollMask::IN | PollMask::RDNORM, self.group.is_zombie());
        m.set(PollMask::HUP, self.group().is_none());
        m
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.group.ended)
    }

    fn fdinfo(&self) -> String {
        let pid = self.group().map_or(-1, |g| g.pid);
        format!("Pid:\t{pid}\nNSpid:\t{pid}\n")
    }
}
