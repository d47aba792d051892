//! The open file of an internet socket: what reads, writes, polls and requests of `ioctl` come to. Ends the socket when it is closed.

use std::any::Any;
use std::sync::Arc;

use super::address::Domain;
use super::{Inet, Kind};
use crate::errno::Errno;
use crate::syscalls::{SysResult, UserPtr, done};
use crate::task::Task;
use crate::uio::{Sink, Source};
use crate::vfs::file::{File, FileOps, Io};
use crate::wait::{PollMask, WaitQueue};

/// An open socket.
pub struct InetFile(pub Arc<Inet>);

impl Drop for InetFile {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl FileOps for InetFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        false
    }

    fn read(&self, io: &Io<'_>, _at: u64, to: &mut Sink<'_>) -> Result<usize, Errno> {
        if to.room() == 0 {
            return Ok(0);
        }
        match self.0.kind {
            Kind::Tcp => self.0.tcp_receive(to, Default::default()).map(|got| got.count),
            _ => self.0.udp_receive(to, false)?.unless_ended(io.file.nonblocking()).map(|got| got.count),
        }
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

    fn write(&self, _io: &Io<'_>, _at: u64, _append: bool, from: &mut Source<'_>) -> Result<(usize, u64), Errno> {
        let n = match self.0.kind {
            Kind::Tcp => self.0.tcp_send(from, Default::default())?,
            Kind::Udp => self.0.udp_send(from, None, Default::default())?,
            Kind::Ping(_) | Kind::Raw(_) => self.0.raw_send(from, None, Default::default())?,
        };
        Ok((n, 0))
    }

    fn breaks_with_signal(&self) -> bool {
        self.0.kind == Kind::Tcp
    }

    fn poll(&self, _file: &File) -> PollMask {
        self.0.events()
    }

    fn fasync(&self) -> PollMask {
        PollMask::IN | PollMask::HUP
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(self.0.queue())
    }

    fn ioctl(&self, task: &Arc<Task>, _file: &Arc<File>, request: u32, argument: u64) -> SysResult {
        const SIOCOUTQ: u32 = 0x5411;
        const SIOCOUTQNSD: u32 = 0x894b;
        const SIOCATMARK: u32 = 0x8905;
        let n = match (request, self.0.kind) {
            (crate::ipc::FIONREAD, Kind::Tcp) => self.0.tcp_waiting()?,
            (crate::ipc::FIONREAD, Kind::Udp | Kind::Raw(_)) => self.0.udp_waiting(),
            (SIOCOUTQ | SIOCOUTQNSD, Kind::Tcp) => self.0.tcp_unsent()?,
            (SIOCOUTQ, Kind::Udp | Kind::Raw(_)) => 0,
            (SIOCATMARK, Kind::Tcp) => usize::from(self.0.tcp_at_mark()?),
            _ => return crate::ipc::netlink::device_request(task, request, argument, self.0.domain == Domain::V4),
        };
        UserPtr::<i32>::new(argument).write(task, &i32::try_from(n).unwrap_or(i32::MAX))?;
        done()
    }
}
