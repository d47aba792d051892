//! The open file of a packet socket. Ends the socket when it is closed.

use std::any::Any;
use std::sync::Arc;

use super::PacketSocket;
use crate::errno::Errno;
use crate::memory::object::Object;
use crate::syscalls::{SysResult, UserPtr, done};
use crate::task::Task;
use crate::uio::{Sink, Source};
use crate::vfs::file::{File, FileOps, Io};
use crate::wait::{PollMask, WaitQueue};

/// An open socket.
pub struct PacketFile(pub Arc<PacketSocket>);

impl Drop for PacketFile {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl FileOps for PacketFile {
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
        self.0.receive(to, false).map(|got| got.count)
    }

    fn read_timeout(&self) -> Option<i64> {
        let [receive, _] = self.0.timeouts();
        (receive > 0).then_some(receive)
    }

    fn read_timed_out(&self) -> Result<i64, Errno> {
        Err(Errno::EAGAIN)
    }

    fn write(&self, _io: &Io<'_>, _at: u64, _append: bool, from: &mut Source<'_>) -> Result<(usize, u64), Errno> {
        Ok((self.0.send(from, None)?, 0))
    }

    fn poll(&self, _file: &File) -> PollMask {
        self.0.events()
    }

    fn fasync(&self) -> PollMask {
        PollMask::IN | PollMask::HUP
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.queue)
    }

    fn memory_object(&self, _file: &File, _shared: bool, _write: bool) -> Result<Object, Errno> {
        Ok(self.0.ring()?)
    }

    fn ioctl(&self, task: &Arc<Task>, _file: &Arc<File>, request: u32, argument: u64) -> SysResult {
        const SIOCOUTQ: u32 = 0x5411;
        let n = match request {
            crate::ipc::FIONREAD => self.0.waiting(),
            SIOCOUTQ => 0,
            _ => return crate::ipc::netlink::device_request(task, request, argument, true),
        };
        UserPtr::<i32>::new(argument).write(task, &i32::try_from(n).unwrap_or(i32::MAX))?;
        done()
    }
}
