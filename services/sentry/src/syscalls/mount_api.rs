//! Mounts by descriptors: `fsopen`, `fsconfig`, `fsmount`, `fspick`, `open_tree`, `move_mount`, `mount_setattr`.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::mount::{admin, capable};
use super::{Entry, Fd, SysResult, UserPtr, UserStr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::filesystems::context::{self, Context};
use crate::filesystems::recipe::{Value, visible};
use crate::namespaces::{Namespace, nsfs};
use crate::syscalls::args::AT_FDCWD;
use crate::task::Task;
use crate::task::creds::cap;
use crate::vfs::file::{File, flags};
use crate::vfs::mount::detached::Attributes;
use crate::vfs::mount::propagate::How;
use crate::vfs::mount::{MountFlags, MountNamespace, PathRef};
use crate::vfs::task_files::{AT_EMPTY_PATH, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW};

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(428, "open_tree", Full, "", open_tree(Fd, UserStr, u32)),
    entry!(429, "move_mount", Full, "", move_mount(Fd, UserStr, Fd, UserStr, u32)),
    entry!(430, "fsopen", Full, "for the file systems that mount(2) knows", fsopen(UserStr, u32)),
    entry!(
        431,
        "fsconfig",
        Full,
        "for the file systems and parameters that mount(2) knows",
        fsconfig(i32, u32, UserStr, UserPtr<u8>, i32)
    ),
    entry!(432, "fsmount", Full, "", fsmount(Fd, u32, u32)),
    entry!(433, "fspick", Full, "", fspick(Fd, UserStr, u32)),
    entry!(
        442,
        "mount_setattr",
        Partial,
        "no MOUNT_ATTR_IDMAP (EINVAL, as of a file system without it)",
        mount_setattr(Fd, UserStr, i32, UserPtr<MountAttr>, usize)
    ),
    entry!(
        467,
        "open_tree_attr",
        Partial,
        "as mount_setattr",
        open_tree_attr(Fd, UserStr, u32, UserPtr<MountAttr>, usize)
    ),
];

const FSOPEN_CLOEXEC: u32 = 1;

fn fsopen(task: &Arc<Task>, kind: UserStr, options: u32) -> SysResult {
    admin(task)?;
    if options & !FSOPEN_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    let kind = kind.read(task, 4096, Errno::EINVAL)?;
    value(task.add_file(context::for_new(&kind)?, options & FSOPEN_CLOEXEC != 0)?)
}

const FSPICK_CLOEXEC: u32 = 1;
const FSPICK_SYMLINK_NOFOLLOW: u32 = 2;
const FSPICK_NO_AUTOMOUNT: u32 = 4;
const FSPICK_EMPTY_PATH: u32 = 8;

fn fspick(task: &Arc<Task>, dirfd: Fd, path: UserStr, options: u32) -> SysResult {
    admin(task)?;
    if options & !(FSPICK_CLOEXEC | FSPICK_SYMLINK_NOFOLLOW | FSPICK_NO_AUTOMOUNT | FSPICK_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let mut how = 0;
    how |= if options & FSPICK_SYMLINK_NOFOLLOW != 0 { AT_SYMLINK_NOFOLLOW } else { 0 };
    how |= if options & FSPICK_EMPTY_PATH != 0 { AT_EMPTY_PATH } else { 0 };
    let at = task.at(dirfd, path, how)?;
    if !at.is_root_of_mount() {
        return Err(Errno::EINVAL);
    }
    value(task.add_file(context::for_mounted(&at.mount), options & FSPICK_CLOEXEC != 0)?)
}

const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_SET_BINARY: u32 = 2;
const FSCONFIG_SET_PATH: u32 = 3;
const FSCONFIG_SET_PATH_EMPTY: u32 = 4;
const FSCONFIG_SET_FD: u32 = 5;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;
const FSCONFIG_CMD_CREATE_EXCL: u32 = 8;
/// Bytes of a key or a text, with its NUL.
const PARAMETER_MAX: usize = 256;
const BINARY_MAX: i32 = 1 << 20;

fn context_of(file: &File) -> Result<&Context, Errno> {
    file.ops_as::<Context>().ok_or(Errno::EINVAL)
}

fn fsconfig(task: &Arc<Task>, fd: i32, command: u32, key: UserStr, data: UserPtr<u8>, aux: i32) -> SysResult {
    let (no_key, no_data) = (key.is_null(), data.is_null());
    let wrong = match command {
        FSCONFIG_SET_FLAG => no_key || !no_data || aux != 0,
        FSCONFIG_SET_STRING => no_key || no_data || aux != 0,
        FSCONFIG_SET_BINARY => no_key || no_data || aux <= 0 || aux > BINARY_MAX,
        FSCONFIG_SET_PATH | FSCONFIG_SET_PATH_EMPTY => no_key || no_data || (aux != AT_FDCWD.0 && aux < 0),
        FSCONFIG_SET_FD => no_key || !no_data || aux < 0,
        FSCONFIG_CMD_CREATE | FSCONFIG_CMD_RECONFIGURE | FSCONFIG_CMD_CREATE_EXCL => !no_key || !no_data || aux != 0,
        _ => return Err(if fd < 0 { Errno::EINVAL } else { Errno::EOPNOTSUPP }),
    };
    if wrong || fd < 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.file(Fd(fd))?;
    let context = context_of(&file)?;
    match command {
        FSCONFIG_CMD_RECONFIGURE => context.reconfigure(task)?,
        FSCONFIG_CMD_CREATE | FSCONFIG_CMD_CREATE_EXCL => context.create(task, command == FSCONFIG_CMD_CREATE_EXCL)?,
        _ => {
            let key = key.read(task, PARAMETER_MAX, Errno::EINVAL)?;
            let text = UserStr(data.address());
            let value = match command {
                FSCONFIG_SET_FLAG => Value::Flag,
                FSCONFIG_SET_STRING => Value::Text(text.read(task, PARAMETER_MAX, Errno::EINVAL)?),
                FSCONFIG_SET_BINARY => {
                    data.read_array(task, aux as usize, BINARY_MAX as usize)?;
                    Value::Other
                }
                FSCONFIG_SET_FD => {
                    task.files().get_any(aux)?;
                    Value::Other
                }
                _ => {
                    let name = text.read_path(task)?;
                    if name.is_empty() && command == FSCONFIG_SET_PATH {
                        return Err(Errno::ENOENT);
                    }
                    Value::Other
                }
            };
            context.set(task, &key, &value)?;
        }
    }
    done()
}

const FSMOUNT_CLOEXEC: u32 = 1;

const MOUNT_ATTR_ATIME: u64 = 0x70;
const MOUNT_ATTR_NOATIME: u64 = 0x10;
const MOUNT_ATTR_STRICTATIME: u64 = 0x20;
const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;
/// What they are as flags of a mount, but for times of access.
const MOUNT_ATTRS: [(u64, MountFlags); 6] = [
    (1, MountFlags::READ_ONLY),
    (2, MountFlags::NO_SUID),
    (4, MountFlags::NO_DEV),
    (8, MountFlags::NO_EXEC),
    (0x80, MountFlags::NO_DIRATIME),
    (0x20_0000, MountFlags::NO_SYMFOLLOW),
];
const MOUNT_ATTR_KNOWN: u64 = 0x20_00ff;

/// Flags of a mount; those of times of access are told of by [`times`].
fn attributes(bits: u64) -> MountFlags {
    MOUNT_ATTRS.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, flag)| *flag).collect()
}

/// Flags of a mount as these calls tell of them.
pub(super) fn shown(flags: MountFlags) -> u64 {
    let times = match flags {
        f if f.contains(MountFlags::NO_ATIME) => MOUNT_ATTR_NOATIME,
        f if f.contains(MountFlags::RELATIME) => 0,
        _ => MOUNT_ATTR_STRICTATIME,
    };
    MOUNT_ATTRS.iter().filter(|(_, flag)| flags.contains(*flag)).map(|(bit, _)| bit).sum::<u64>() | times
}

/// How times of access are to be kept; EINVAL for more than one way.
fn times(bits: u64) -> Result<MountFlags, Errno> {
    match bits & MOUNT_ATTR_ATIME {
        0 => Ok(MountFlags::RELATIME),
        MOUNT_ATTR_NOATIME => Ok(MountFlags::NO_ATIME),
        MOUNT_ATTR_STRICTATIME => Ok(MountFlags::empty()),
        _ => Err(Errno::EINVAL),
    }
}

fn fsmount(task: &Arc<Task>, fd: Fd, options: u32, attrs: u32) -> SysResult {
    admin(task)?;
    let attrs = u64::from(attrs);
    if options & !FSMOUNT_CLOEXEC != 0 || attrs & !MOUNT_ATTR_KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let flags = attributes(attrs) | times(attrs)?;
    let file = task.file(fd)?;
    let made = context_of(&file)?.mount(flags, |mount| visible(task, mount))?;
    let tree = MountNamespace::detached(made, &task.creds().user_ns);
    value(task.add_file(File::of_tree(tree), options & FSMOUNT_CLOEXEC != 0)?)
}

const OPEN_TREE_CLONE: u32 = 1;
const OPEN_TREE_CLOEXEC: u32 = flags::CLOEXEC.cast_unsigned();
const AT_RECURSIVE: i32 = 0x8000;

fn tree(task: &Arc<Task>, dirfd: Fd, path: UserStr, options: u32) -> Result<Arc<File>, Errno> {
    const AT: u32 = (AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_SYMLINK_NOFOLLOW).cast_unsigned();
    const ALL: u32 = AT_RECURSIVE.cast_unsigned();
    let clone = options & OPEN_TREE_CLONE != 0;
    if options & !(AT | ALL | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC) != 0 || !clone && options & ALL != 0 {
        return Err(Errno::EINVAL);
    }
    if clone {
        admin(task)?;
    }
    let at = task.at(dirfd, path, (options & AT).cast_signed())?;
    if !clone {
        return Ok(File::path_only(at, flags::PATH));
    }
    let owner = task.creds().user_ns.clone();
    Ok(File::of_tree(task.fs().namespace().copy_detached(&at, options & ALL != 0, &owner)?))
}

fn open_tree(task: &Arc<Task>, dirfd: Fd, path: UserStr, options: u32) -> SysResult {
    value(task.add_file(tree(task, dirfd, path, options)?, options & OPEN_TREE_CLOEXEC != 0)?)
}

const MOVE_MOUNT_F_SYMLINKS: u32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
const MOVE_MOUNT_T_SHIFT: u32 = 4;
const MOVE_MOUNT_SET_GROUP: u32 = 0x100;
const MOVE_MOUNT_BENEATH: u32 = 0x200;
const MOVE_MOUNT_KNOWN: u32 = 0x377;

/// One end of a move; `options` as they are for where it is from.
fn end(task: &Arc<Task>, dirfd: Fd, path: UserStr, options: u32) -> Result<PathRef, Errno> {
    let follow = if options & MOVE_MOUNT_F_SYMLINKS == 0 { AT_SYMLINK_NOFOLLOW } else { 0 };
    let empty = options & MOVE_MOUNT_F_EMPTY_PATH != 0;
    if empty && path.is_null() {
        return Ok(task.files().get_any(dirfd.0)?.path_ref().clone());
    }
    task.at(dirfd, path, follow | if empty { AT_EMPTY_PATH } else { 0 })
}

fn move_mount(
    task: &Arc<Task>,
    from_fd: Fd,
    from_path: UserStr,
    to_fd: Fd,
    to_path: UserStr,
    options: u32,
) -> SysResult {
    const BOTH: u32 = MOVE_MOUNT_BENEATH | MOVE_MOUNT_SET_GROUP;
    admin(task)?;
    if options & !MOVE_MOUNT_KNOWN != 0 || options & BOTH == BOTH {
        return Err(Errno::EINVAL);
    }
    let to = end(task, to_fd, to_path, options >> MOVE_MOUNT_T_SHIFT)?;
    let from = end(task, from_fd, from_path, options)?;
    let fs = task.fs();
    let namespace = fs.namespace();
    if options & MOVE_MOUNT_SET_GROUP != 0 {
        namespace.set_group(&from, &to, |owner| task.creds().capable_in(owner, cap::SYS_ADMIN))?;
    } else {
        let root = fs.root();
        namespace.relocate(&from, to, (options & MOVE_MOUNT_BENEATH != 0).then_some(&root))?;
    }
    done()
}

/// `struct mount_attr`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// What is to be changed; `None` if nothing.
fn wanted(task: &Arc<Task>, attr: UserPtr<MountAttr>, size: usize) -> Result<Option<Attributes>, Errno> {
    // What is wrong with its size comes before who may not.
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    if size < size_of::<MountAttr>() {
        return Err(Errno::EINVAL);
    }
    admin(task)?;
    let a = attr.read_sized(task, size)?;
    if (a.set, a.clear, a.propagation) == (0, 0, 0) {
        return Ok(None);
    }
    let how = match a.propagation {
        0 => None,
        0x2_0000 => Some(How::Unbindable),
        0x4_0000 => Some(How::Private),
        0x8_0000 => Some(How::Slave),
        0x10_0000 => Some(How::Shared),
        _ => return Err(Errno::EINVAL),
    };
    if (a.set | a.clear) & !(MOUNT_ATTR_KNOWN | MOUNT_ATTR_IDMAP) != 0 {
        return Err(Errno::EINVAL);
    }
    let (set, clear) = changes(a.set, a.clear)?;
    if (a.set | a.clear) & MOUNT_ATTR_IDMAP != 0 {
        refuse_map(task, &a)?;
    }
    Ok(Some(Attributes { set, clear, how }))
}

/// Flags to set, and to take away before, that attributes stand for. EINVAL.
pub(crate) fn changes(set: u64, clear: u64) -> Result<(MountFlags, MountFlags), Errno> {
    let (mut on, mut off) = (attributes(set), attributes(clear));
    // Times of access are one thing, that is taken away whole before it is set.
    match clear & MOUNT_ATTR_ATIME {
        0 if set & MOUNT_ATTR_ATIME == 0 => {}
        MOUNT_ATTR_ATIME => {
            off |= MountFlags::RELATIME | MountFlags::NO_ATIME;
            on |= times(set)?;
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok((on, off))
}

/// No file system here shows owners by other numbers: what Linux finds wrong before it says so, and that.
fn refuse_map(task: &Arc<Task>, a: &MountAttr) -> Result<(), Errno> {
    let fd = i32::try_from(a.userns).map_err(|_| Errno::EINVAL)?;
    if a.clear & MOUNT_ATTR_IDMAP != 0 {
        return Err(Errno::EINVAL);
    }
    match nsfs::of_file(&*task.file(Fd(fd))?) {
        Some(Namespace::User(ns)) if ns.is_initial() => Err(Errno::EPERM),
        Some(Namespace::User(ns)) => {
            capable(task, ns)?;
            Err(Errno::EINVAL)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn mount_setattr(
    task: &Arc<Task>,
    dirfd: Fd,
    path: UserStr,
    how: i32,
    attr: UserPtr<MountAttr>,
    size: usize,
) -> SysResult {
    if how & !(AT_EMPTY_PATH | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) != 0 {
        return Err(Errno::EINVAL);
    }
    if let Some(what) = wanted(task, attr, size)? {
        let at = task.at(dirfd, path, how & !AT_RECURSIVE)?;
        task.fs().namespace().set_attributes(&at, how & AT_RECURSIVE != 0, &what)?;
    }
    done()
}

fn open_tree_attr(
    task: &Arc<Task>,
    dirfd: Fd,
    path: UserStr,
    options: u32,
    attr: UserPtr<MountAttr>,
    size: usize,
) -> SysResult {
    if attr.is_null() && size != 0 {
        return Err(Errno::EINVAL);
    }
    let file = tree(task, dirfd, path, options)?;
    if !attr.is_null()
        && let Some(what) = wanted(task, attr, size)?
    {
        let all = options & AT_RECURSIVE.cast_unsigned() != 0;
        task.fs().namespace().set_attributes(file.path_ref(), all, &what)?;
    }
    value(task.add_file(file, options & OPEN_TREE_CLOEXEC != 0)?)
}
