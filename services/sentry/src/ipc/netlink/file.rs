//! The open file of a netlink socket.

use std::any::Any;
use std::sync::Arc;

use super::Netlink;
use crate::errno::Errno;
use crate::filesystems::anon::{AnonInode, Family};
use crate::syscalls::SysResult;
use crate::task::{Creds, Task};
use crate::uio::{Sink, Source};
use crate::vfs::file::{File, FileOps, Io, flags};
use crate::vfs::inode::mode;
use crate::wait::{PollMask, WaitQueue};

/// An open socket.
pub struct NetlinkFile(pub Arc<Netlink>);

impl NetlinkFile {
    /// The file of a new socket.
    pub fn open(socket: Arc<Netlink>, creds: &Creds, nonblocking: bool) -> Arc<File> {
        let inode = AnonInode::make(Family::Socket.dev(), mode::SOCKET | 0o777, creds.fsuid, creds.fsgid, None);
        let name = format!("socket:[{}]", inode.attr().map(|a| a.ino).unwrap_or(0));
        let f = flags::RDWR | if nonblocking { flags::NONBLOCK } else { 0 };
        File::new(Family::Socket.place(inode, name.as_bytes()), Box::new(Self(socket)), f)
    }
}

impl FileOps for NetlinkFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        false
    }

    fn read(&self, _io: &Io<'_>, _at: u64, to: &mut Sink<'_>) -> Result<usize, Errno> {
        self.0.receive(to, false).map(|r| r.count)
    }

    fn read_timeout(&self) -> Option<i64> {
        let [receive, _] = self.0.options(|o| o.timeouts);
        (receive > 0).then_some(receive)
    }

    fn read_timed_out(&self) -> Result<i64, Errno> {
        Err(Errno::EAGAIN)
    }

    fn write(&self, io: &Io<'_>, _at: u64, _append: bool, from: &mut Source<'_>) -> Result<(usize, u64), Errno> {
        let most = self.0.options(|o| o.send_buffer);
        if from.left() > most {
            return Err(Errno::EMSGSIZE);
        }
        let data = from.take_vec(most)?;
        Ok((self.0.send(io.task.ok_or(Errno::EINVAL)?, data, None)?, 0))
    }

    fn poll(&self, _file: &File) -> PollMask {
        self.0.events()
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.queue)
    }

    fn ioctl(&self, task: &Arc<Task>, _file: &Arc<File>, request: u32, argument: u64) -> SysResult {
        super::device_request(task, request, argument, false)
    }
}
