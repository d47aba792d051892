//! Open terminals: the slave side, the master side, and their requests (`ioctl_tty(2)`).

use std::any::Any;
use std::sync::Arc;

use crate::errno::Errno;
use crate::ipc::termios::{Termios, WinSize};
use crate::ipc::tty::{self, Tty};
use crate::signal::sig;
use crate::syscalls::{SysResult, UserPtr, done, value};
use crate::task::Task;
use crate::task::creds::cap;
use crate::uio::{Sink, Source};
use crate::vfs::caller::Caller;
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

    /// Opens the slave side once more, by its name; EBUSY if somebody has the terminal alone.
    pub fn open_slave(tty: Arc<Tty>, caller: &Caller<'_>) -> Result<Box<dyn FileOps>, Errno> {
        tty.check_exclusive(&caller.creds)?;
        Self::open(tty, false)
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
        to.put(&self.tty.read(to.room(), !io.file.nonblocking())?)
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

    fn fasync(&self) -> PollMask {
        PollMask::IN
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
            0x5409 | 0x5425 => {
                if !self.master {
                    tty.check_change(task)?;
                }
            }
            // TCXONC, TCFLSH
            0x540a | 0x540b => {
                if !self.master {
                    tty.check_change(task)?;
                }
                if request == 0x540a { tty.control_flow(argument)? } else { tty.flush(self.master, argument)? }
            }
            // TIOCSCTTY
            0x540e => {
                if !file.readable() && !task.creds().capable(cap::SYS_ADMIN) {
                    return Err(Errno::EPERM);
                }
                tty.make_controlling(task, argument == 1)?;
            }
            // TIOCGPGRP
            0x540f => {
                let (sid, _) = tty::place_of(task);
                let (session, foreground) = tty.owners();
                if !self.master && session != sid {
                    return Err(Errno::ENOTTY);
                }
                int.write(task, &task.shown(foreground))?;
            }
            // TIOCSPGRP
            0x5410 => {
                let (sid, _) = tty::place_of(task);
                tty.check_change(task).map_err(|e| if e == Errno::EIO { Errno::ENOTTY } else { e })?;
                if tty.owners().0 != sid {
                    return Err(Errno::ENOTTY);
                }
                let group = int.read(task)?;
                if group < 0 {
                    return Err(Errno::EINVAL);
                }
                let group = task.id_of(group);
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
            // TIOCPKT, TIOCGPKT
            0x5420 if self.master => {
                tty.packet(Some(int.read(task)? != 0));
            }
            0x8004_5438 if self.master => int.write(task, &i32::from(tty.packet(None)))?,
            // TIOCSTI
            0x5412 => {
                let own = tty::of_session(tty::place_of(task).0).is_some_and(|t| Arc::ptr_eq(&t, tty));
                if (!own || self.master) && !task.creds().capable(cap::SYS_ADMIN) {
                    return Err(Errno::EPERM);
                }
                let byte = UserPtr::<u8>::new(argument).read(task)?;
                if self.master {
                    tty.write(&[byte])?
                } else {
                    tty.receive(&[byte])
                };
            }
            // TIOCNOTTY
            0x5422 => {
                let (sid, _) = tty::place_of(task);
                if tty.owners().0 != sid {
                    return Err(Errno::ENOTTY);
                }
                if sid == task.pid() {
                    tty::session_left(task.kernel(), sid, &[sig::HUP, sig::CONT]);
                }
            }
            // TIOCGSID
            0x5429 => match tty.owners().0 {
                0 => return Err(Errno::ENOTTY),
                s if !self.master && s != tty::place_of(task).0 => return Err(Errno::ENOTTY),
                s => int.write(task, &task.shown(s))?,
            },
            // TIOCGETD
            0x5424 => int.write(task, &0)?,
            // TIOCEXCL, TIOCNXCL, TIOCGEXCL
            0x540c | 0x540d => {
                tty.exclusive(Some(request == 0x540c));
            }
            0x8004_5440 => int.write(task, &i32::from(tty.exclusive(None)))?,
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
                let slave = File::new(place, TtyFile::open_slave(tty.clone(), &Caller::of(task))?, open);
                return value(task.add_file(slave, open & flags::CLOEXEC != 0)?);
            }
            0x5441 => return Err(Errno::EIO),
            _ => return Err(Errno::ENOTTY),
        }
        done()
    }
}
