//! Mounts: `mount`, `umount2`, `pivot_root`.

use std::sync::Arc;

use crate::entry;
use crate::errno::Errno;
use crate::filesystems::{devpts, proc, root, sys, tree::Tree};
use crate::syscalls::args::{AT_FDCWD, PATH_MAX};
use crate::syscalls::{Entry, SysResult, UserStr, done};
use crate::task::Task;
use crate::task::creds::cap;
use crate::vfs::inode::FileType;
use crate::vfs::mount::{Mount, MountFlags, PathRef};
use crate::vfs::task_files::AT_SYMLINK_NOFOLLOW;

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(
        165,
        "mount",
        Partial,
        "bind, move, remount, tmpfs, proc, sysfs, devpts, devtmpfs, mqueue; propagation is always private",
        mount(UserStr, UserStr, UserStr, u64, UserStr)
    ),
    entry!(166, "umount2", Partial, "no MNT_EXPIRE", umount2(UserStr, i32)),
    entry!(155, "pivot_root", Full, "", pivot_root(UserStr, UserStr)),
];

const MS_REMOUNT: u64 = 32;
const MS_BIND: u64 = 4096;
const MS_MOVE: u64 = 8192;
const MS_REC: u64 = 16384;
const MS_PROPAGATION: u64 = (1 << 17) | (1 << 18) | (1 << 19) | (1 << 20);
const MNT_DETACH: i32 = 2;
const UMOUNT_NOFOLLOW: i32 = 8;
/// Bytes of a tmpfs without a size.
const TMPFS_MAX: u64 = 8 << 30;

fn flags(bits: u64) -> MountFlags {
    MountFlags::from_bits_truncate(bits as u32) | MountFlags::RELATIME
}

fn admin(task: &Arc<Task>) -> Result<(), Errno> {
    if task.creds().capable(cap::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
}

fn is_root_of_mount(at: &PathRef) -> bool {
    Arc::ptr_eq(&at.dentry, &at.mount.root)
}

fn optional(task: &Arc<Task>, s: UserStr) -> Result<Vec<u8>, Errno> {
    if s.is_null() { Ok(Vec::new()) } else { s.read(task, PATH_MAX, Errno::EINVAL) }
}

/// A size with its unit: bytes, k, m, g.
fn size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().last()? {
        b'k' | b'K' => (text.get(..text.len() - 1)?, 10),
        b'm' | b'M' => (text.get(..text.len() - 1)?, 20),
        b'g' | b'G' => (text.get(..text.len() - 1)?, 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << unit)
}

fn tmpfs(task: &Arc<Task>, options: &[u8], source: &[u8], bits: u64) -> Result<Arc<Mount>, Errno> {
    let (mut limit, mut mode) = (TMPFS_MAX, 0o1777);
    let options = std::str::from_utf8(options).map_err(|_| Errno::EINVAL)?;
    for o in options.split(',').filter(|o| !o.is_empty()) {
        match o.split_once('=') {
            Some(("size", v)) => limit = size(v).filter(|s| *s > 0).unwrap_or(TMPFS_MAX),
            Some(("mode", v)) => mode = u32::from_str_radix(v, 8).map_err(|_| Errno::EINVAL)?,
            Some(("nr_inodes" | "uid" | "gid" | "nr_blocks" | "huge" | "mpol", _)) | None => {}
            Some(_) => return Err(Errno::EINVAL),
        }
    }
    let (fs, root) = Tree::tmpfs(task.kernel().memory.clone(), limit, mode);
    Ok(Mount::new(fs, root, source, flags(bits)))
}

fn mount(task: &Arc<Task>, source: UserStr, target: UserStr, kind: UserStr, bits: u64, data: UserStr) -> SysResult {
    let kind = optional(task, kind)?;
    let source_name = optional(task, source)?;
    let options = optional(task, data)?;
    let at = task.at(AT_FDCWD, target, 0)?;
    admin(task)?;
    let namespace = task.fs().namespace();
    if bits & MS_REMOUNT != 0 {
        if !is_root_of_mount(&at) {
            return Err(Errno::EINVAL);
        }
        at.mount.set_flags(flags(bits));
        return done();
    }
    if bits & MS_PROPAGATION != 0 {
        return if is_root_of_mount(&at) { done() } else { Err(Errno::EINVAL) };
    }
    let is_dir = at.dentry.inode().kind() == FileType::Directory;
    if bits & (MS_BIND | MS_MOVE) != 0 {
        let from = task.at(AT_FDCWD, source, 0)?;
        if (from.dentry.inode().kind() == FileType::Directory) != is_dir {
            return Err(Errno::ENOTDIR);
        }
        if bits & MS_MOVE != 0 {
            if !is_root_of_mount(&from) || from.mount.parent().is_none() {
                return Err(Errno::EINVAL);
            }
            let mut up = Some(at.clone());
            while let Some(p) = up {
                if Arc::ptr_eq(&p.mount, &from.mount) {
                    return Err(Errno::ELOOP);
                }
                up = p.mount.parent();
            }
            namespace.relocate(&from.mount, at)?;
            return done();
        }
        let inside = if bits & MS_REC != 0 { below(&namespace.mounts(), &from) } else { Vec::new() };
        let made = Mount::new(from.mount.fs.clone(), from.dentry.clone(), &from.mount.source, from.mount.flags());
        namespace.attach(at, &made)?;
        let mut copies = vec![(from.mount.id, made)];
        for m in inside {
            let Some(p) = m.parent() else { continue };
            let Some(parent) = copies.iter().find(|c| c.0 == p.mount.id).map(|c| c.1.clone()) else { continue };
            let copy = Mount::new(m.fs.clone(), m.root.clone(), &m.source, m.flags());
            namespace.attach(PathRef { mount: parent, dentry: p.dentry }, &copy)?;
            copies.push((m.id, copy));
        }
        return done();
    }
    if !is_dir {
        return Err(Errno::ENOTDIR);
    }
    let named = |(fs, root): root::Made| Mount::new(fs, root, &source_name, flags(bits));
    let made = match kind.as_slice() {
        b"tmpfs" | b"ramfs" => tmpfs(task, &options, &source_name, bits)?,
        b"mqueue" => tmpfs(task, b"", &source_name, bits)?,
        b"proc" => named(proc::mount(task.kernel())),
        b"sysfs" => named(sys::mount(task.kernel())),
        b"cgroup2" => named(sys::mount_cgroup()),
        b"devpts" => named(devpts::mount()),
        b"devtmpfs" => {
            let (fs, root) = root::devtmpfs(task.kernel())?;
            Mount::new(fs, root, &source_name, flags(bits))
        }
        b"" => return Err(Errno::EINVAL),
        _ => return Err(Errno::ENODEV),
    };
    namespace.attach(at, &made)?;
    done()
}

/// Mounts at or below a place, parents first.
fn below(mounts: &[Arc<Mount>], from: &PathRef) -> Vec<Arc<Mount>> {
    let mut found: Vec<Arc<Mount>> = Vec::new();
    for m in mounts {
        let Some(p) = m.parent() else { continue };
        let direct = Arc::ptr_eq(&p.mount, &from.mount) && p.dentry.is_below(&from.dentry);
        if direct || found.iter().any(|f| Arc::ptr_eq(f, &p.mount)) {
            found.push(m.clone());
        }
    }
    found
}

fn umount2(task: &Arc<Task>, target: UserStr, how: i32) -> SysResult {
    if how & !(1 | MNT_DETACH | UMOUNT_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    admin(task)?;
    let at = task.at(AT_FDCWD, target, if how & UMOUNT_NOFOLLOW != 0 { AT_SYMLINK_NOFOLLOW } else { 0 })?;
    if !is_root_of_mount(&at) {
        return Err(Errno::EINVAL);
    }
    task.fs().namespace().detach(&at.mount, how & MNT_DETACH != 0)?;
    done()
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
    if Arc::ptr_eq(&new.mount, &root.mount) || Arc::ptr_eq(&old.mount, &root.mount) {
        return Err(Errno::EBUSY);
    }
    let inside = Arc::ptr_eq(&old.mount, &new.mount) && old.dentry.is_below(&new.dentry);
    if !is_root_of_mount(&new) || !is_root_of_mount(&root) || !inside || new.mount.parent().is_none() {
        return Err(Errno::EINVAL);
    }
    fs.namespace().pivot(&new.mount, old)?;
    let to = PathRef::root_of(&new.mount);
    if fs.cwd() == root {
        fs.set_cwd(to.clone());
    }
    fs.set_root(to);
    done()
}
