//! Open terminals: the slave side, the master side, and their requests (`ioctl_tty(2)`).

use std::any::Any;
use std::sync::Arc;

use crate::errno::Errno;
use crate::ipc::termios::{Termios, WinSize};
use crate::ipc::tty::{self, Tty};
use crate::signal::sig;
use crate::syscalls::{SysResult, UserPtr, done, value};
use crate::task::Task;
use crate::uio::{Sink, Source};
use crate::vfs::file::{File, FileOps, Io, flags};
use crate::wait::{PollMask, WaitQueue};

/// One side of a terminal.
pub struct TtyFile {
    /// The terminal.
    pub tty: Arc<Tty>,
    /// Whether it is the master side.
    pub master: bool,
}

impl TtyFile {
    /// Opens a side. EIO for a slave that is locked or hung up.
    pub fn open(tty: Arc<Tty>, master: bool) -> Result<Box<dyn FileOps>, Errno> {
        tty.opened(master)?;
        Ok(Box::new(Self { tty, master }))
    }
}

impl Drop for TtyFile {
    fn drop(&mut self) {
        self.tty.closed(self.master);
    }
}

impl FileOps for TtyFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        false
    }

    fn read(&self, io: &Io<'_>, _at: u64, to: &mut Sink<'_>) -> Result<usize, Errno> {
        if self.master {
            return to.put(&self.tty.master_read(to.room())?);
        }
        if let Some(task) = io.task {
            self.tty.check_foreground(task, sig::TTIN)?;
        }
        to.put(&self.tty.read(to.room())?)
    }

    fn write(&self, io: &Io<'_>, _at: u64, _append: bool, from: &mut Source<'_>) -> Result<(usize, u64), Errno> {
        // What is taken from the caller must be written: no more than there is room for.
        let data = from.take_vec(2048)?;
        if self.master {
            let n = self.tty.receive(&data);
            return if n == 0 && !data.is_empty() { Err(Errno::EAGAIN) } else { Ok((n, 0)) };
        }
        if let Some(task) = io.task {
            self.tty.check_foreground(task, sig::TTOU)?;
        }
        Ok((self.tty.write(&data)?, 0))
    }

    fn poll(&self, _file: &File) -> PollMask {
        self.tty.events(self.master)
    }

    fn queue(&self) -> Option<&WaitQueue> {
        Some(if self.master { &self.tty.master_queue } else { &self.tty.queue })
    }

    fn read_timeout(&self) -> Option<i64> {
        if self.master { None } else { self.tty.read_timeout() }
    }

    fn ioctl(&self, task: &Arc<Task>, file: &Arc<File>, request: u32, argument: u64) -> SysResult {
        let int = UserPtr::<i32>::new(argument);
        let tty = &self.tty;
        if !self.master && tty.is_hung_up() {
            // TIOCSPGRP alone says that it is no terminal any more.
            return Err(if request == 0x5410 { Errno::ENOTTY } else { Errno::EIO });
        }
        match request {
            0x5401 => UserPtr::<Termios>::new(argument).write(task, &tty.termios())?,
            0x5402..=0x5404 => {
                let new = UserPtr::<Termios>::new(argument).read(task)?;
                tty.check_change(task)?;
                tty.set_termios(new, request == 0x5404);
            }
            // TCSBRK, TCSBRKP: nothing to break or drain.
            0x5409 | 0x5425 => {}
            0x540a => match argument {
                0 | 1 => tty.set_stopped(argument == 0),
                2 | 3 => {}
                _ => return Err(Errno::EINVAL),
            },
            0x540b => tty.flush(argument)?,
            // TIOCSCTTY
            0x540e => tty.make_controlling(task, argument == 1)?,
            // TIOCGPGRP
            0x540f => {
                let (sid, _) = tty::place_of(task);
                let (session, foreground) = tty.owners();
                if !self.master && session != sid {
                    return Err(Errno::ENOTTY);
                }
                int.write(task, &foreground)?;
            }
            // TIOCSPGRP
            0x5410 => {
                let (sid, _) = tty::place_of(task);
                if tty.owners().0 != sid {
                    return Err(Errno::ENOTTY);
                }
                tty.check_change(task)?;
                let group = int.read(task)?;
                if group < 0 {
                    return Err(Errno::EINVAL);
                }
                match task.kernel().tree.lock().session_of(group) {
                    None => return Err(Errno::ESRCH),
                    Some(s) if s != sid => return Err(Errno::EPERM),
                    Some(_) => {}
                }
                tty.set_foreground(group);
            }
            // TIOCOUTQ: what is written is at the other end at once.
            0x5411 => int.write(task, &0)?,
            0x5413 => UserPtr::<WinSize>::new(argument).write(task, &tty.size())?,
            0x5414 => tty.set_size(UserPtr::<WinSize>::new(argument).read(task)?),
            super::FIONREAD => int.write(task, &i32::try_from(tty.available(self.master)).unwrap_or(0))?,
            0x5420 if self.master => tty.set_packet(int.read(task)? != 0),
            // TIOCNOTTY
            0x5422 => {
                let (sid, _) = tty::place_of(task);
                if tty.owners().0 != sid {
                    return Err(Errno::ENOTTY);
                }
                if sid == task.pid() {
                    tty::session_ended(task.kernel(), sid);
                }
            }
            // TIOCGSID
            0x5429 => match tty.owners().0 {
                0 => return Err(Errno::ENOTTY),
                s => int.write(task, &s)?,
            },
            // TIOCGETD
            0x5424 => int.write(task, &0)?,
            // TIOCEXCL, TIOCNXCL
            0x540c | 0x540d => {}
            0x8004_5430 if self.master => UserPtr::<u32>::new(argument).write(task, &tty.number)?,
            0x4004_5431 if self.master => {
                tty.lock(Some(int.read(task)? != 0));
            }
            0x8004_5439 if self.master => int.write(task, &i32::from(tty.lock(None)))?,
            // TIOCGPTPEER
            0x5441 if self.master => {
                let open = argument as i32;
                let node = tty.node.get().ok_or(Errno::EIO)?.clone();
                let mut place = file.path_ref().clone();
                let name = format!("/dev/pts/{}", tty.number);
                place.dentry = crate::vfs::dentry::Dentry::alone(node, name.as_bytes());
                let slave = File::new(place, TtyFile::open(tty.clone(), false)?, open);
                return value(task.add_file(slave, open & flags::CLOEXEC != 0)?);
            }
            _ => return Err(Errno::ENOTTY),
        }
        done()
    }
}
