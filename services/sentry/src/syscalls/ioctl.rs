//! `ioctl`: the requests that every descriptor knows, and those of the file.

use std::sync::Arc;

use crate::entry;
use crate::errno::Errno;
use crate::syscalls::{Entry, Fd, SysResult, UserPtr, done};
use crate::task::Task;
use crate::vfs::file::{Whence, flags};
use crate::vfs::inode::FileType;

/// This family's part of the table.
pub const TABLE: &[Entry] =
    &[entry!(16, "ioctl", Partial, "requests of terminals, pipes and sockets", ioctl(Fd, u32, u64))];

const FIONBIO: u32 = 0x5421;
const FIOASYNC: u32 = 0x5452;
const FIOCLEX: u32 = 0x5451;
const FIONCLEX: u32 = 0x5450;

fn ioctl(task: &Arc<Task>, fd: Fd, request: u32, argument: u64) -> SysResult {
    let file = task.file(fd)?;
    match request {
        FIOCLEX | FIONCLEX => task.files().set_cloexec(fd.0, request == FIOCLEX)?,
        FIONBIO | FIOASYNC => {
            let on = UserPtr::<i32>::new(argument).read(task)? != 0;
            let bit = if request == FIONBIO { flags::NONBLOCK } else { flags::ASYNC };
            let old = file.flags();
            file.set_flags(if on { old | bit } else { old & !bit });
        }
        crate::ipc::FIONREAD if file.inode().kind() == FileType::Regular && file.ops().seekable() => {
            let end = file.ops().seek(&file, 0, Whence::End)?;
            let left = i32::try_from(end.saturating_sub(file.position())).map_err(|_| Errno::EOVERFLOW)?;
            UserPtr::<i32>::new(argument).write(task, &left)?;
        }
        _ => return file.ops().ioctl(task, &file, request, argument),
    }
    done()
}
