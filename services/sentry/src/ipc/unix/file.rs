//! The open file of a Unix socket: what reads, writes, polls and requests of `ioctl` come to. Ends the socket when it is closed.

use std::any::Any;
use std::sync::Arc;

use super::{Kind, Socket};
use crate::errno::Errno;
use crate::ipc::scm::{Ancillary, Ucred};
use crate::syscalls::{SysResult, UserPtr, done};
use crate::task::Task;
use crate::uio::{Sink, Source};
use crate::vfs::file::{File, FileOps, Io};
use crate::wait::{PollMask, WaitQueue};

/// An open socket.
pub struct SocketFile(pub Arc<Socket>);

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl FileOps for SocketFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn fdinfo(&self) -> String {
        format!("scm_fds: {}\n", self.0.state.lock().messages.iter().map(|m| m.ancillary.files.len()).sum::<usize>())
    }

    fn seekable(&self) -> bool {
        false
    }

    fn read(&self, io: &Io<'_>, _at: u64, to: &mut Sink<'_>) -> Result<usize, Errno> {
        self.0.receive(to, false, false)?.unless_ended(&self.0, io.file.nonblocking()).map(|r| r.count)
    }

    fn write_timeout(&self) -> Option<i64> {
        let [_, sending] = self.0.timeouts();
        (sending > 0).then_some(sending)
    }

    fn read_timeout(&self) -> Option<i64> {
        let [receive, _] = self.0.timeouts();
        (receive > 0).then_some(receive)
    }

    fn read_timed_out(&self) -> Result<i64, Errno> {
        Err(Errno::EAGAIN)
    }

    fn write(&self, io: &Io<'_>, _at: u64, _append: bool, from: &mut Source<'_>) -> Result<(usize, u64), Errno> {
        let to = self.0.target()?;
        let process = io.task.map(|t| t.group().clone());
        let with = Ancillary { sender: io.task.map(Ucred::of).unwrap_or_default(), process, ..Ancillary::default() };
        Ok((self.0.send(&to, from, &with, false)?, 0))
    }

    fn breaks_with_signal(&self) -> bool {
        self.0.kind == Kind::Stream
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

    fn ioctl(&self, task: &Arc<Task>, _file: &Arc<File>, request: u32, argument: u64) -> SysResult {
        const SIOCOUTQ: u32 = 0x5411;
        const SIOCATMARK: u32 = 0x8905;
        let n = match request {
            crate::ipc::FIONREAD => {
                let s = self.0.state.lock();
                if s.backlog.is_some() {
                    return Err(Errno::EINVAL);
                }
                match self.0.kind {
                    Kind::Datagram => s.messages.front().map_or(0, |m| m.data.len()),
                    Kind::Packet => s.bytes,
                    Kind::Stream => s.told,
                }
            }
            // What the peer has not read yet.
            SIOCOUTQ => self.0.peer().map_or(0, |p| p.state.lock().bytes),
            SIOCATMARK if self.0.kind != Kind::Stream => return Err(Errno::EOPNOTSUPP),
            SIOCATMARK => usize::from(self.0.state.lock().at_mark()),
            _ => return crate::ipc::netlink::device_request(task, request, argument, false),
        };
        UserPtr::<i32>::new(argument).write(task, &i32::try_from(n).unwrap_or(i32::MAX))?;
        done()
    }
}
