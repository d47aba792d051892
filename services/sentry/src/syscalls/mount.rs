//! Mounts: `mount`, `umount2`, `pivot_root`.

use std::sync::Arc;

use crate::entry;
use crate::errno::Errno;
use crate::filesystems::recipe::{Recipe, visible};
use crate::namespaces::UserNamespace;
use crate::syscalls::args::{AT_FDCWD, PATH_MAX};
use crate::syscalls::{Entry, SysResult, UserStr, done};
use crate::task::Task;
use crate::task::creds::cap;
use crate::vfs::inode::FileType;
use crate::vfs::mount::propagate::How;
use crate::vfs::mount::{MountFlags, PathRef, set_propagation};
use crate::vfs::task_files::AT_SYMLINK_NOFOLLOW;

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(
        165,
        "mount",
        Partial,
        "bind, move, remount, propagation; tmpfs, ramfs, proc, sysfs, cgroup2, devpts, devtmpfs, mqueue, overlay (no index, metacopy, redirect_dir)",
        mount(UserStr, UserStr, UserStr, u64, UserStr)
    ),
    entry!(166, "umount2", Partial, "no MNT_EXPIRE", umount2(UserStr, i32)),
    entry!(155, "pivot_root", Full, "", pivot_root(UserStr, UserStr)),
];

const MS_REMOUNT: u64 = 32;
const MS_BIND: u64 = 4096;
const MS_MOVE: u64 = 8192;
const MS_REC: u64 = 16384;
const MS_UNBINDABLE: u64 = 1 << 17;
const MS_PRIVATE: u64 = 1 << 18;
const MS_SLAVE: u64 = 1 << 19;
const MS_SHARED: u64 = 1 << 20;
const MS_SILENT: u64 = 32768;
const MS_PROPAGATION: u64 = MS_UNBINDABLE | MS_PRIVATE | MS_SLAVE | MS_SHARED;
const MS_STRICTATIME: u64 = 1 << 24;
const MNT_FORCE: i32 = 1;
const MNT_DETACH: i32 = 2;
const UMOUNT_NOFOLLOW: i32 = 8;
/// The flags of a mount that bits of `mount(2)` stand for.
pub(crate) fn flags(bits: u64) -> MountFlags {
    let f = MountFlags::from_bits_truncate(bits as u32);
    // Times of access are kept as `relatime` has it unless something else was said.
    if bits & (MS_STRICTATIME | u64::from(MountFlags::NO_ATIME.bits())) == 0 {
        f | MountFlags::RELATIME
    } else {
        f & !MountFlags::RELATIME
    }
}

/// EPERM unless the caller may change the mounts of its namespace.
pub(super) fn admin(task: &Arc<Task>) -> Result<(), Errno> {
    // Whoever forbade itself anything about files changes no tree of them any more.
    if task.creds().domain.as_ref().is_some_and(|d| d.restricts_files()) {
        return Err(Errno::EPERM);
    }
    capable(task, &task.fs().namespace().base.owner)
}

pub(super) fn capable(task: &Arc<Task>, owner: &UserNamespace) -> Result<(), Errno> {
    if task.creds().capable_in(owner, cap::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
}

fn optional(task: &Arc<Task>, s: UserStr) -> Result<Vec<u8>, Errno> {
    if s.is_null() { Ok(Vec::new()) } else { s.read(task, PATH_MAX, Errno::EINVAL) }
}

fn mount(task: &Arc<Task>, source: UserStr, target: UserStr, kind: UserStr, bits: u64, data: UserStr) -> SysResult {
    let no_kind = kind.is_null();
    let kind = optional(task, kind)?;
    let source_name = optional(task, source)?;
    let options = optional(task, data)?;
    let at = task.at(AT_FDCWD, target, 0)?;
    admin(task)?;
    let namespace = task.fs().namespace();
    if bits & MS_REMOUNT != 0 {
        if !at.is_root_of_mount() || !namespace.has(&at.mount) {
            return Err(Errno::EINVAL);
        }
        let mut flags = flags(bits);
        if bits & (MS_STRICTATIME | u64::from(MountFlags::TIMES.bits())) == 0 {
            // Nothing was said of access times: they stay as they are.
            flags = flags & !MountFlags::TIMES | at.mount.flags() & MountFlags::TIMES;
        }
        let alone = bits & MS_BIND != 0;
        let mut whole = (!alone).then_some(flags.contains(MountFlags::READ_ONLY));
        if !alone {
            capable(task, at.mount.owner())?;
            let mut recipe = Recipe::of(at.mount.fs.name().as_bytes());
            if recipe.takes_changes() {
                recipe.set_all(task, &options)?;
            }
            recipe.change(&at.mount, &mut |_| ())?;
            whole = recipe.read_only.or(whole);
        }
        at.mount.remount(flags, whole)?;
        return done();
    }
    let is_dir = at.dentry.inode().kind() == FileType::Directory;
    if bits & MS_BIND != 0 {
        if source_name.is_empty() {
            return Err(Errno::EINVAL);
        }
        let from = task.at(AT_FDCWD, source, 0)?;
        if (from.dentry.inode().kind() == FileType::Directory) != is_dir {
            return Err(Errno::ENOTDIR);
        }
        namespace.bind(&from, at, bits & MS_REC != 0)?;
        return done();
    }
    if bits & MS_PROPAGATION != 0 {
        let rest = bits & !(MS_PROPAGATION | MS_REC | MS_SILENT);
        let how = match bits & MS_PROPAGATION {
            _ if rest != 0 => return Err(Errno::EINVAL),
            MS_SHARED => How::Shared,
            MS_SLAVE => How::Slave,
            MS_PRIVATE => How::Private,
            MS_UNBINDABLE => How::Unbindable,
            _ => return Err(Errno::EINVAL),
        };
        let home = at.mount.namespace().filter(|_| at.is_root_of_mount()).ok_or(Errno::EINVAL)?;
        capable(task, &home.base.owner)?;
        let mut changed = vec![at.mount.clone()];
        if bits & MS_REC != 0 {
            changed.extend(home.below(&at));
        }
        set_propagation(&changed, how);
        return done();
    }
    if bits & MS_MOVE != 0 {
        if source_name.is_empty() {
            return Err(Errno::EINVAL);
        }
        let from = task.at(AT_FDCWD, source, 0)?;
        namespace.relocate(&from, at, None)?;
        return done();
    }
    if !is_dir {
        return Err(Errno::ENOTDIR);
    }
    if kind.is_empty() && no_kind {
        return Err(Errno::EINVAL);
    }
    let mut recipe = Recipe::new(&kind)?;
    recipe.name(source_name);
    recipe.set_all(task, &options)?;
    let made = recipe.make(task, flags(bits), &mut |_| ())?;
    namespace.attach(at, &visible(task, made)?)?;
    done()
}

fn umount2(task: &Arc<Task>, target: UserStr, how: i32) -> SysResult {
    if how & !(MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    admin(task)?;
    let at = task.at(AT_FDCWD, target, if how & UMOUNT_NOFOLLOW != 0 { AT_SYMLINK_NOFOLLOW } else { 0 })?;
    if !at.is_root_of_mount() {
        return Err(Errno::EINVAL);
    }
    if how & MNT_FORCE != 0 && !task.creds().capable(cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    task.fs().namespace().detach(&at.mount, how & MNT_DETACH != 0)?;
    done()
}

/// Whether a place lies at or below another, across mounts.
fn is_inside(place: &PathRef, top: &PathRef) -> bool {
    let mut at = place.clone();
    while !Arc::ptr_eq(&at.mount, &top.mount) {
        match at.mount.parent() {
            Some(up) => at = up,
            None => return false,
        }
    }
    at.dentry.is_below(&top.dentry)
}

fn pivot_root(task: &Arc<Task>, new: UserStr, old: UserStr) -> SysResult {
    admin(task)?;
    let (new, old) = (task.at(AT_FDCWD, new, 0)?, task.at(AT_FDCWD, old, 0)?);
    let fs = task.fs();
    let root = fs.root();
    for at in [&new, &old] {
        if at.dentry.inode().kind() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
    }
    let whole = new.is_root_of_mount() && root.is_root_of_mount() && is_inside(&old, &new);
    fs.namespace().pivot(&new.mount, &root.mount, old, whole)?;
    let to = PathRef::root_of(&new.mount);
    // Whoever was at the old root is at the new one.
    let tasks = task.kernel().tree.lock().tasks();
    for fs in tasks.iter().map(|t| t.fs()) {
        if fs.cwd() == root {
            fs.set_cwd(to.clone());
        }
        if fs.root() == root {
            fs.set_root(to.clone());
        }
    }
    done()
}
