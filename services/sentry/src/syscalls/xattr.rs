//! Extended attributes, `xattr(7)`.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::entry;
use crate::errno::Errno;
use crate::syscalls::args::AT_FDCWD;
use crate::syscalls::{Entry, Fd, SysResult, UserPtr, UserStr, done, value};
use crate::task::Task;
use crate::task::creds::cap;
use crate::vfs::inode::FileType;
use crate::vfs::mount::PathRef;
use crate::vfs::task_files::{AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW};
use crate::vfs::watch::{self, event};
use crate::vfs::{Caller, access};

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(188, "setxattr", Full, "", setxattr(UserStr, UserStr, UserPtr<u8>, usize, i32)),
    entry!(189, "lsetxattr", Full, "", lsetxattr(UserStr, UserStr, UserPtr<u8>, usize, i32)),
    entry!(190, "fsetxattr", Full, "", fsetxattr(Fd, UserStr, UserPtr<u8>, usize, i32)),
    entry!(191, "getxattr", Full, "", getxattr(UserStr, UserStr, u64, usize)),
    entry!(192, "lgetxattr", Full, "", lgetxattr(UserStr, UserStr, u64, usize)),
    entry!(193, "fgetxattr", Full, "", fgetxattr(Fd, UserStr, u64, usize)),
    entry!(194, "listxattr", Full, "", listxattr(UserStr, u64, usize)),
    entry!(195, "llistxattr", Full, "", llistxattr(UserStr, u64, usize)),
    entry!(196, "flistxattr", Full, "", flistxattr(Fd, u64, usize)),
    entry!(197, "removexattr", Full, "", removexattr(UserStr, UserStr)),
    entry!(198, "lremovexattr", Full, "", lremovexattr(UserStr, UserStr)),
    entry!(199, "fremovexattr", Full, "", fremovexattr(Fd, UserStr)),
    entry!(463, "setxattrat", Full, "", setxattrat(Fd, UserStr, i32, UserStr, Args, usize)),
    entry!(464, "getxattrat", Full, "", getxattrat(Fd, UserStr, i32, UserStr, Args, usize)),
    entry!(465, "listxattrat", Full, "", listxattrat(Fd, UserStr, i32, u64, usize)),
    entry!(466, "removexattrat", Full, "", removexattrat(Fd, UserStr, i32, UserStr)),
];

const NAME_MAX: usize = 256;
const VALUE_MAX: usize = 65_536;

fn name_of(task: &Arc<Task>, name: UserStr) -> Result<Vec<u8>, Errno> {
    let name = name.read(task, NAME_MAX, Errno::ERANGE)?;
    if name.is_empty() { Err(Errno::ERANGE) } else { Ok(name) }
}

/// Who may use attributes of which name space.
fn check(caller: &Caller<'_>, at: &PathRef, name: &[u8], write: bool) -> Result<(), Errno> {
    let inode = at.dentry.inode();
    if write {
        at.mount.check_writable()?;
    }
    if name.starts_with(b"trusted.") {
        let refused = if write { Errno::EPERM } else { Errno::ENODATA };
        return if caller.creds.capable(cap::SYS_ADMIN) { Ok(()) } else { Err(refused) };
    }
    if matches!(name, b"user." | b"trusted." | b"security.") {
        return Err(Errno::EINVAL);
    }
    if name.starts_with(b"user.") {
        if !matches!(inode.kind(), FileType::Regular | FileType::Directory) {
            return Err(if write { Errno::EPERM } else { Errno::ENODATA });
        }
        return access::check(&caller.creds, &**inode, if write { access::WRITE } else { access::READ });
    }
    if name == access::CAPABILITIES && write {
        let attr = inode.attr()?;
        let may = caller.creds.capable_over(attr.uid, attr.gid, cap::SETFCAP);
        return if may { Ok(()) } else { Err(Errno::EPERM) };
    }
    if name.starts_with(b"security.") {
        return if !write || caller.creds.capable(cap::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) };
    }
    // ACLs and name spaces that there are none of.
    Err(Errno::EOPNOTSUPP)
}

/// A name and its value, with what is to be done if there is one already: read before it is looked whose they are to be.
struct Given {
    name: Vec<u8>,
    value: Vec<u8>,
    how: i32,
}

fn given(task: &Arc<Task>, name: UserStr, from: UserPtr<u8>, size: usize, how: i32) -> Result<Given, Errno> {
    if how & !3 != 0 || how == 3 {
        return Err(Errno::EINVAL);
    }
    let name = name_of(task, name)?;
    if size > VALUE_MAX {
        return Err(Errno::E2BIG);
    }
    let mut data = from.read_array(task, size, VALUE_MAX)?;
    if name == access::CAPABILITIES {
        data = access::FileCapabilities::given(data, &task.creds().user_ns).ok_or(Errno::EINVAL)?;
    }
    Ok(Given { name, value: data, how })
}

fn set(task: &Arc<Task>, at: &PathRef, given: &Given) -> SysResult {
    check(&Caller::of(task), at, &given.name, true)?;
    at.dentry.inode().set_xattr(&given.name, &given.value, given.how)?;
    watch::file(&at.dentry, event::ATTRIB);
    done()
}

fn put(task: &Arc<Task>, data: &[u8], to: u64, size: usize) -> SysResult {
    if size > 0 {
        if data.len() > size {
            return Err(Errno::ERANGE);
        }
        task.write_exact(to, data)?;
    }
    value(data.len())
}

fn get(task: &Arc<Task>, at: &PathRef, name: &[u8], to: u64, size: usize) -> SysResult {
    check(&Caller::of(task), at, name, false)?;
    put(task, &at.dentry.inode().xattr(name)?, to, size)
}

fn list(task: &Arc<Task>, at: &PathRef, to: u64, size: usize) -> SysResult {
    let trusted = task.creds().capable(cap::SYS_ADMIN);
    let mut all = Vec::new();
    for n in at.dentry.inode().xattrs()? {
        if trusted || !n.starts_with(b"trusted.") {
            all.extend_from_slice(&n);
            all.push(0);
        }
    }
    put(task, &all, to, size)
}

fn remove(task: &Arc<Task>, at: &PathRef, name: &[u8]) -> SysResult {
    check(&Caller::of(task), at, name, true)?;
    at.dentry.inode().remove_xattr(name)?;
    watch::file(&at.dentry, event::ATTRIB);
    done()
}

fn check_flags(at_flags: i32) -> Result<(), Errno> {
    if at_flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 { Err(Errno::EINVAL) } else { Ok(()) }
}

/// `struct xattr_args`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

type Args = UserPtr<XattrArgs>;

fn setxattrat(
    task: &Arc<Task>,
    dirfd: Fd,
    path: UserStr,
    at_flags: i32,
    name: UserStr,
    args: Args,
    size: usize,
) -> SysResult {
    let args = args.read_sized(task, size)?;
    check_flags(at_flags)?;
    let given = given(task, name, UserPtr::new(args.value), args.size as usize, args.flags.cast_signed())?;
    set(task, &task.at_or_open(dirfd, path, at_flags)?, &given)
}

fn getxattrat(
    task: &Arc<Task>,
    dirfd: Fd,
    path: UserStr,
    at_flags: i32,
    name: UserStr,
    args: Args,
    size: usize,
) -> SysResult {
    let args = args.read_sized(task, size)?;
    if args.flags != 0 {
        return Err(Errno::EINVAL);
    }
    check_flags(at_flags)?;
    let name = name_of(task, name)?;
    get(task, &task.at_or_open(dirfd, path, at_flags)?, &name, args.value, args.size as usize)
}

fn listxattrat(task: &Arc<Task>, dirfd: Fd, path: UserStr, at_flags: i32, to: u64, size: usize) -> SysResult {
    check_flags(at_flags)?;
    list(task, &task.at_or_open(dirfd, path, at_flags)?, to, size)
}

fn removexattrat(task: &Arc<Task>, dirfd: Fd, path: UserStr, at_flags: i32, name: UserStr) -> SysResult {
    check_flags(at_flags)?;
    let name = name_of(task, name)?;
    remove(task, &task.at_or_open(dirfd, path, at_flags)?, &name)
}

fn setxattr(task: &Arc<Task>, path: UserStr, name: UserStr, from: UserPtr<u8>, size: usize, how: i32) -> SysResult {
    let given = given(task, name, from, size, how)?;
    set(task, &task.at(AT_FDCWD, path, 0)?, &given)
}

fn lsetxattr(task: &Arc<Task>, path: UserStr, name: UserStr, from: UserPtr<u8>, size: usize, how: i32) -> SysResult {
    let given = given(task, name, from, size, how)?;
    set(task, &task.at(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW)?, &given)
}

fn fsetxattr(task: &Arc<Task>, fd: Fd, name: UserStr, from: UserPtr<u8>, size: usize, how: i32) -> SysResult {
    let given = given(task, name, from, size, how)?;
    set(task, task.file(fd)?.path_ref(), &given)
}

fn getxattr(task: &Arc<Task>, path: UserStr, name: UserStr, to: u64, size: usize) -> SysResult {
    let name = name_of(task, name)?;
    get(task, &task.at(AT_FDCWD, path, 0)?, &name, to, size)
}

fn lgetxattr(task: &Arc<Task>, path: UserStr, name: UserStr, to: u64, size: usize) -> SysResult {
    let name = name_of(task, name)?;
    get(task, &task.at(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW)?, &name, to, size)
}

fn fgetxattr(task: &Arc<Task>, fd: Fd, name: UserStr, to: u64, size: usize) -> SysResult {
    let name = name_of(task, name)?;
    get(task, task.file(fd)?.path_ref(), &name, to, size)
}

fn listxattr(task: &Arc<Task>, path: UserStr, to: u64, size: usize) -> SysResult {
    list(task, &task.at(AT_FDCWD, path, 0)?, to, size)
}

fn llistxattr(task: &Arc<Task>, path: UserStr, to: u64, size: usize) -> SysResult {
    list(task, &task.at(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW)?, to, size)
}

fn flistxattr(task: &Arc<Task>, fd: Fd, to: u64, size: usize) -> SysResult {
    list(task, task.file(fd)?.path_ref(), to, size)
}

fn removexattr(task: &Arc<Task>, path: UserStr, name: UserStr) -> SysResult {
    let name = name_of(task, name)?;
    remove(task, &task.at(AT_FDCWD, path, 0)?, &name)
}

fn lremovexattr(task: &Arc<Task>, path: UserStr, name: UserStr) -> SysResult {
    let name = name_of(task, name)?;
    remove(task, &task.at(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW)?, &name)
}

fn fremovexattr(task: &Arc<Task>, fd: Fd, name: UserStr) -> SysResult {
    let name = name_of(task, name)?;
    remove(task, task.file(fd)?.path_ref(), &name)
}
