//! Mounts: `mount`, `umount2`, `pivot_root`.

use std::sync::Arc;

use crate::entry;
use crate::errno::Errno;
use crate::filesystems::tree::{Tmpfs, Tree};
use crate::filesystems::{devpts, proc, root, sys};
use crate::memory::store::PAGE;
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
const MS_UNBINDABLE: u64 = 1 << 17;
const MS_SILENT: u64 = 32768;
const MS_PROPAGATION: u64 = (1 << 17) | (1 << 18) | (1 << 19) | (1 << 20);
const MS_STRICTATIME: u64 = 1 << 24;
const MNT_DETACH: i32 = 2;
const UMOUNT_NOFOLLOW: i32 = 8;
fn flags(bits: u64) -> MountFlags {
    let f = MountFlags::from_bits_truncate(bits as u32);
    // Times of access are kept as `relatime` has it unless something else was said.
    if bits & (MS_STRICTATIME | u64::from(MountFlags::NO_ATIME.bits())) == 0 {
        f | MountFlags::RELATIME
    } else {
        f & !MountFlags::RELATIME
    }
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

/// A number with its unit: nothing, k, m, g; or a share of the memory told of, in percent, where that is allowed.
fn size(text: &str, percent: bool) -> Result<u64, Errno> {
    let (digits, unit) = match text.as_bytes().last().ok_or(Errno::EINVAL)? {
        b'k' | b'K' => (text.get(..text.len() - 1), 1 << 10),
        b'm' | b'M' => (text.get(..text.len() - 1), 1 << 20),
        b'g' | b'G' => (text.get(..text.len() - 1), 1 << 30),
        b'%' if percent => (text.get(..text.len() - 1), crate::filesystems::proc::MEMORY / 100),
        _ => (Some(text), 1),
    };
    let n: u64 = digits.and_then(|d| d.parse().ok()).ok_or(Errno::EINVAL)?;
    n.checked_mul(unit).ok_or(Errno::EINVAL)
}

fn tmpfs(task: &Arc<Task>, options: &[u8], source: &[u8], bits: u64) -> Result<Arc<Mount>, Errno> {
    let mut how = Tmpfs::default();
    let options = std::str::from_utf8(options).map_err(|_| Errno::EINVAL)?;
    let id = |v: &str| v.parse::<u32>().map_err(|_| Errno::EINVAL);
    // 0 is no limit there: the largest that there is.
    let limit = |n: u64| if n == 0 { None } else { Some(n) };
    for o in options.split(',').filter(|o| !o.is_empty()) {
        match o.split_once('=') {
            Some(("size", v)) => how.size = limit(size(v, true)?.next_multiple_of(PAGE)),
            Some(("nr_blocks", v)) => how.size = limit(size(v, false)?.checked_mul(PAGE).ok_or(Errno::EINVAL)?),
            Some(("nr_inodes", v)) => how.nodes = limit(size(v, false)?),
            Some(("mode", v)) => how.mode = u32::from_str_radix(v, 8).map_err(|_| Errno::EINVAL)? & 0o7777,
            Some(("uid", v)) => how.uid = id(v)?,
            Some(("gid", v)) => how.gid = id(v)?,
            // Nothing to choose: pages are what they are, numbers of inodes have 64 bits.
            Some(("huge", "never")) | None if o == "huge=never" || o == "inode64" => {}
            _ => return Err(Errno::EINVAL),
        }
    }
    let (fs, root) = Tree::tmpfs(task.kernel().memory.clone(), &how);
    Ok(Mount::new(fs, root, source, flags(bits)))
}

/// Only the mode of a ramfs counts; what else is said is passed over, as on Linux.
fn ramfs(task: &Arc<Task>, options: &[u8], source: &[u8], bits: u64) -> Result<Arc<Mount>, Errno> {
    let mode = options.split(|b| *b == b',').rfind(|o| o.starts_with(b"mode=")).unwrap_or(b"mode=755");
    tmpfs(task, mode, source, bits)
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
        if !is_root_of_mount(&at) {
            return Err(Errno::EINVAL);
        }
        at.mount.remount(flags(bits), bits & MS_BIND != 0)?;
        return done();
    }
    if bits & MS_PROPAGATION != 0 {
        let rest = bits & !(MS_PROPAGATION | MS_REC | MS_SILENT);
        if rest != 0 || (bits & MS_PROPAGATION).count_ones() != 1 {
            return Err(Errno::EINVAL);
        }
        if !is_root_of_mount(&at) {
            return Err(Errno::EINVAL);
        }
        // All mounts are private; some cannot be bound, either.
        let mut changed = vec![at.mount.clone()];
        if bits & MS_REC != 0 {
            changed.extend(below(&namespace.mounts(), &at));
        }
        changed.iter().for_each(|m| m.set_unbindable(bits & MS_UNBINDABLE != 0));
        return done();
    }
    let is_dir = at.dentry.inode().kind() == FileType::Directory;
    if bits & (MS_BIND | MS_MOVE) != 0 {
        if source_name.is_empty() {
            return Err(Errno::EINVAL);
        }
        let from = task.at(AT_FDCWD, source, 0)?;
        if bits & MS_MOVE != 0 && !is_root_of_mount(&from) {
            return Err(Errno::EINVAL);
        }
        if (from.dentry.inode().kind() == FileType::Directory) != is_dir {
            return Err(if bits & MS_MOVE != 0 { Errno::EINVAL } else { Errno::ENOTDIR });
        }
        if bits & MS_MOVE == 0 && from.mount.is_unbindable() {
            return Err(Errno::EINVAL);
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
        let made = from.mount.bind(from.dentry.clone());
        namespace.attach(at, &made)?;
        let mut copies = vec![(from.mount.id, made)];
        for m in inside {
            let Some(p) = m.parent() else { continue };
            let Some(parent) = copies.iter().find(|c| c.0 == p.mount.id).map(|c| c.1.clone()) else { continue };
            let copy = m.bind(m.root.clone());
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
        b"tmpfs" => tmpfs(task, &options, &source_name, bits)?,
        b"ramfs" => ramfs(task, &options, &source_name, bits)?,
        b"mqueue" => tmpfs(task, b"", &source_name, bits)?,
        b"proc" => named(proc::mount(task.kernel())),
        b"sysfs" => named(sys::mount(task.kernel())),
        b"cgroup2" => named(sys::mount_cgroup()),
        b"devpts" => named(devpts::mount()),
        b"devtmpfs" => {
            let (fs, root) = root::devtmpfs(task.kernel())?;
            Mount::new(fs, root, &source_name, flags(bits))
        }
        b"" if no_kind => return Err(Errno::EINVAL),
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
    if Arc::ptr_eq(&new.mount, &root.mount) || Arc::ptr_eq(&old.mount, &root.mount) {
        return Err(Errno::EBUSY);
    }
    let inside = is_inside(&old, &new);
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
