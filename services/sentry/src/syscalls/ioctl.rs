//! `ioctl`: the requests that every descriptor knows, and those of the file.

use std::sync::Arc;

use crate::entry;
use crate::errno::Errno;
use crate::syscalls::{Entry, Fd, SysResult, UserPtr, done, file_attr};
use crate::task::Task;
use crate::task::creds::cap;
use crate::vfs::File;
use crate::vfs::fasync;
use crate::vfs::file::{Whence, flags};
use crate::vfs::inode::FileType;
use crate::vfs::landlock::right;

/// This family's part of the table.
pub const TABLE: &[Entry] =
    &[entry!(16, "ioctl", Partial, "requests of files, terminals, pipes and sockets", ioctl(Fd, u32, u64))];

const FIONBIO: u32 = 0x5421;
const FIOASYNC: u32 = 0x5452;
const FIOCLEX: u32 = 0x5451;
const FIONCLEX: u32 = 0x5450;

const FIBMAP: u32 = 1;
const FIGETBSZ: u32 = 2;
const FIOQSIZE: u32 = 0x5460;
const FICLONE: u32 = 0x4004_9409;
const FICLONERANGE: u32 = 0x4020_940d;
const FIDEDUPERANGE: u32 = 0xc018_9436;
const FIEMAP: u32 = 0xc020_660b;

/// Shares blocks of one file with another, which none of the file systems here can.
fn clone(to: &File, from: &File) -> SysResult {
    if !Arc::ptr_eq(&to.mount().fs, &from.mount().fs) {
        return Err(Errno::EXDEV);
    }
    let kinds = [to, from].map(|f| f.inode().kind());
    if kinds.contains(&FileType::Directory) {
        return Err(Errno::EISDIR);
    }
    if kinds.iter().any(|k| *k != FileType::Regular) {
        return Err(Errno::EINVAL);
    }
    if !from.readable() || !to.writable() || to.appends() {
        return Err(Errno::EBADF);
    }
    Err(Errno::EOPNOTSUPP)
}

/// As [`clone`] where bytes are the same.
fn dedupe(task: &Arc<Task>, file: &File, argument: u64) -> SysResult {
    const ONE: usize = 32;
    let count = UserPtr::<u16>::new(argument.checked_add(16).ok_or(Errno::EFAULT)?).read(task)?;
    let len = 24 + usize::from(count) * ONE;
    if len > 4096 {
        return Err(Errno::ENOMEM);
    }
    let all = UserPtr::<u8>::new(argument).read_array(task, len, 4096)?;
    if !file.readable() || all.get(18..24).is_none_or(|reserved| reserved.iter().any(|b| *b != 0)) {
        return Err(Errno::EINVAL);
    }
    Err(match file.inode().kind() {
        FileType::Directory => Errno::EISDIR,
        FileType::Regular => Errno::EOPNOTSUPP,
        _ => Errno::EINVAL,
    })
}

fn ioctl(task: &Arc<Task>, fd: Fd, request: u32, argument: u64) -> SysResult {
    let file = task.file(fd)?;
    // What is no device's own business needs no right to it.
    const COMMON: [u32; 10] =
        [FIOCLEX, FIONCLEX, FIONBIO, FIOASYNC, FIOQSIZE, FIGETBSZ, FICLONE, FICLONERANGE, FIDEDUPERANGE, FIEMAP];
    if matches!(file.inode().kind(), FileType::Char | FileType::Block) && !COMMON.contains(&request) {
        file.check_denied(right::IOCTL_DEV)?;
    }
    match request {
        FIOCLEX | FIONCLEX => task.files().set_cloexec(fd.0, request == FIOCLEX)?,
        FIONBIO => {
            let on = UserPtr::<i32>::new(argument).read(task)? != 0;
            let old = file.flags();
            file.set_flags(if on { old | flags::NONBLOCK } else { old & !flags::NONBLOCK });
        }
        FIOASYNC => {
            let on = UserPtr::<i32>::new(argument).read(task)? != 0;
            if on != (file.flags() & flags::ASYNC != 0) && !fasync::set(task, &file, fd.0, on) {
                return Err(Errno::ENOTTY);
            }
        }
        FIOQSIZE if matches!(file.inode().kind(), FileType::Regular | FileType::Directory | FileType::Link) => {
            let bytes = file.inode().attr()?.blocks.saturating_mul(512);
            UserPtr::<u64>::new(argument).write(task, &bytes)?;
        }
        FIGETBSZ => {
            let size = file.inode().attr()?.block_size;
            UserPtr::<u32>::new(argument).write(task, &size)?;
        }
        FICLONE => return clone(&file, &*task.file(Fd(argument as i32))?),
        FICLONERANGE => {
            let [from, ..] = UserPtr::<[i64; 4]>::new(argument).read(task)?;
            return clone(&file, &*task.file(Fd(from as i32))?);
        }
        FIDEDUPERANGE => return dedupe(task, &file, argument),
        FIEMAP => return Err(Errno::EOPNOTSUPP),
        FIBMAP if file.inode().kind() == FileType::Regular => {
            // No file is made of blocks.
            return Err(if task.creds().capable(cap::SYS_RAWIO) { Errno::EINVAL } else { Errno::EPERM });
        }
        crate::ipc::FIONREAD if file.inode().kind() == FileType::Regular && file.ops().seekable() => {
            let end = file.ops().seek(&file, 0, Whence::End)?;
            let left = i32::try_from(end.saturating_sub(file.position())).map_err(|_| Errno::EOVERFLOW)?;
            UserPtr::<i32>::new(argument).write(task, &left)?;
        }
        _ => {
            let attributes = file_attr::request(task, &file, request, argument);
            return attributes.unwrap_or_else(|| file.ops().ioctl(task, &file, request, argument));
        }
    }
    done()
}
