//! Operations on paths: what `open`, `mkdir`, `rename` and their like do, without a system call around them.
//!
//! Each takes a [`Caller`], checks permissions and mounts, calls the file system and keeps the dentries in step.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::errno::Errno;
use crate::task::creds::cap;
use crate::vfs::access::{self, EXEC, READ, WRITE};
use crate::vfs::caller::Caller;
use crate::vfs::dentry::Dentry;
use crate::vfs::file::{File, access_mode, flags};
use crate::vfs::inode::{
    Attr, FileType, InodeRef, NewNode, OpenHow, RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, SetAttr, file_time,
    mode,
};
use crate::vfs::landlock::{self, Side, right};
use crate::vfs::mount::{self, MountFlags, PathRef};
use crate::vfs::walk::{Last, Parent, Resolve, Walk, walk_parent};
use crate::vfs::watch::{self, event};

/// `UTIME_NOW` of `utimensat(2)`.
pub const UTIME_NOW: i64 = 0x3fff_ffff;
/// `UTIME_OMIT` of `utimensat(2)`.
pub const UTIME_OMIT: i64 = 0x3fff_fffe;

/// What a new inode of `bits` gets in this directory: umask, owner, and what setgid directories pass on.
fn new_node(caller: &Caller<'_>, dir: &Attr, bits: u32, rdev: u64) -> NewNode {
    let directory = FileType::of(bits) == FileType::Directory;
    let mut m = (bits & mode::TYPE) | (bits & mode::PERMISSIONS & !caller.fs.umask());
    let mut gid = caller.creds.fsgid;
    if dir.mode & mode::SETGID != 0 {
        gid = dir.gid;
        if directory {
            m |= mode::SETGID;
        } else if m & 0o010 != 0 && !caller.creds.in_group(gid) && !caller.creds.capable_over(dir.uid, gid, cap::FSETID)
        {
            m &= !mode::SETGID;
        }
    }
    NewNode { mode: m, uid: caller.creds.fsuid, gid, rdev }
}

/// Checks that names may be made in a directory, with this right to make them.
fn check_enter(caller: &Caller<'_>, dir: &PathRef, right: u64) -> Result<Attr, Errno> {
    if dir.dentry.inode().kind() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    // As Linux: a read-only mount says so before it is asked who may write (mnt_want_write).
    dir.mount.check_writable()?;
    caller.creds.check_domain(dir, right)?;
    let attr = dir.dentry.inode().attr()?;
    access::check_attr(&caller.creds, &attr, WRITE | EXEC)?;
    // What is made must be somebody's in the namespace that the file system is of.
    let (owner, creds) = (dir.mount.owner(), &caller.creds);
    if owner.uid(creds.fsuid).is_none() || owner.gid(creds.fsgid).is_none() {
        return Err(Errno::EOVERFLOW);
    }
    if dir.dentry.is_deleted() {
        return Err(Errno::ENOENT);
    }
    Ok(attr)
}

/// Makes a name with `make`, under the directory's lock. EEXIST if it is there.
fn enter(
    caller: &Caller<'_>,
    parent: &Parent,
    allow_slash: bool,
    right: u64,
    make: impl FnOnce(&InodeRef, &[u8], &Attr) -> Result<InodeRef, Errno>,
) -> Result<Arc<Dentry>, Errno> {
    let Last::Name(name) = &parent.last else { return Err(Errno::EEXIST) };
    let dir = &parent.dir.dentry;
    let _modify = dir.modify.lock();
    if dir.child(caller, name)?.is_some() {
        return Err(Errno::EEXIST);
    }
    // procfs knows no names that are not there yet.
    if (parent.slash && !allow_slash) || parent.dir.mount.fs.name() == "proc" {
        return Err(Errno::ENOENT);
    }
    let attr = check_enter(caller, &parent.dir, right)?;
    let inode = make(dir.inode(), name, &attr)?;
    let made = dir.insert(name, inode);
    watch::name(dir.inode(), name, made.inode(), event::CREATE);
    Ok(made)
}

/// Opens a path, `openat2(2)`.
pub fn open(
    caller: &Caller<'_>,
    base: PathRef,
    path: &[u8],
    open_flags: i32,
    bits: u32,
    resolve: Resolve,
) -> Result<Arc<File>, Errno> {
    let follow = open_flags & flags::NOFOLLOW == 0;
    let walk = Walk::new(caller, base, path, resolve)?;
    if open_flags & flags::PATH != 0 {
        let at = walk.target(follow)?;
        if open_flags & flags::DIRECTORY != 0 && at.dentry.inode().kind() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        return Ok(File::path_only(at, open_flags));
    }
    if open_flags & flags::TMPFILE == flags::TMPFILE {
        return open_unnamed(caller, walk.target(follow)?, open_flags, bits);
    }
    if open_flags & flags::CREAT == 0 {
        let at = walk.target(follow)?;
        return open_at(caller, at, open_flags, false);
    }
    let exclusive = open_flags & flags::EXCL != 0;
    match walk.target_or_parent(follow && !exclusive)? {
        Ok(_) if exclusive => Err(Errno::EEXIST),
        Ok(at) => match at.dentry.inode().kind() {
            FileType::Directory => Err(Errno::EISDIR),
            _ => open_at(caller, at, open_flags, false),
        },
        Err(parent) if parent.slash => Err(Errno::EISDIR),
        Err(parent) => {
            let made = enter(caller, &parent, false, right::MAKE_REG, |dir, name, attr| {
                let new = new_node(caller, attr, mode::REGULAR | (bits & mode::PERMISSIONS), 0);
                dir.create(name, &new)
            });
            match made {
                Ok(dentry) => open_at(caller, PathRef { mount: parent.dir.mount, dentry }, open_flags, true),
                // Somebody was faster.
                Err(Errno::EEXIST) if !exclusive => {
                    let Last::Name(name) = &parent.last else { return Err(Errno::EISDIR) };
                    let found = parent.dir.dentry.child(caller, name)?.ok_or(Errno::ENOENT)?;
                    open_at(caller, PathRef { mount: parent.dir.mount, dentry: found }, open_flags, false)
                }
                Err(e) => Err(e),
            }
        }
    }
}

/// Opens a name of a directory that no path leads to (`mq_open(2)`); `make` makes what is missing.
pub fn open_name(
    caller: &Caller<'_>,
    dir: PathRef,
    name: &[u8],
    open_flags: i32,
    bits: u32,
    make: impl FnOnce(&[u8], &NewNode) -> Result<InodeRef, Errno>,
) -> Result<Arc<File>, Errno> {
    let place = |dentry| PathRef { mount: dir.mount.clone(), dentry };
    if let Some(found) = dir.dentry.child(caller, name)? {
        if open_flags & (flags::CREAT | flags::EXCL) == flags::CREAT | flags::EXCL {
            return Err(Errno::EEXIST);
        }
        return open_at(caller, place(found), open_flags, false);
    }
    if open_flags & flags::CREAT == 0 {
        return Err(Errno::ENOENT);
    }
    let parent = Parent { dir: dir.clone(), last: Last::Name(name.to_vec()), slash: false };
    let made = enter(caller, &parent, false, 0, |_, name, attr| make(name, &new_node(caller, attr, bits, 0)));
    match made {
        Ok(dentry) => open_at(caller, place(dentry), open_flags, true),
        // Somebody was faster.
        Err(Errno::EEXIST) if open_flags & flags::EXCL == 0 => {
            let found = dir.dentry.child(caller, name)?.ok_or(Errno::ENOENT)?;
            open_at(caller, place(found), open_flags, false)
        }
        Err(e) => Err(e),
    }
}

fn open_unnamed(caller: &Caller<'_>, dir: PathRef, open_flags: i32, bits: u32) -> Result<Arc<File>, Errno> {
    let how = access_mode(open_flags);
    if !how.write {
        return Err(Errno::EINVAL);
    }
    let attr = check_enter(caller, &dir, to_open(FileType::Regular, how))?;
    let new = new_node(caller, &attr, mode::REGULAR | (bits & mode::PERMISSIONS), 0);
    let inode = dir.dentry.inode().create_unnamed(&new)?;
    let name = format!("#{}", inode.attr()?.ino);
    let dentry = Dentry::unnamed(inode.clone(), &dir.dentry, name.as_bytes());
    inode.common().linkable.store(open_flags & flags::EXCL == 0, Ordering::Relaxed);
    inode.writers().begin_write()?;
    let ops = inode.open(caller, how)?;
    let file = File::counted(PathRef { mount: dir.mount, dentry }, ops, open_flags);
    note_denied(caller, &file);
    Ok(file)
}

/// Opens an object. `fresh`: it was just made by this call, so its permissions do not matter.
pub fn open_at(caller: &Caller<'_>, at: PathRef, open_flags: i32, fresh: bool) -> Result<Arc<File>, Errno> {
    let file = open_object(caller, at, open_flags, fresh)?;
    note_denied(caller, &file);
    watch::file(&file.path_ref().dentry, event::OPEN);
    if open_flags & flags::TRUNC != 0 && !fresh && file.inode().kind() == FileType::Regular {
        watch::file(&file.path_ref().dentry, event::MODIFY);
    }
    Ok(file)
}

/// Keeps with an open file what its opener may not do with it later.
fn note_denied(caller: &Caller<'_>, file: &File) {
    if let Some(domain) = &caller.creds.domain {
        let denied = domain.denied(file.path_ref(), right::TRUNCATE | right::IOCTL_DEV);
        file.denied.store(denied, Ordering::Relaxed);
    }
}

/// The rights that an open takes.
fn to_open(kind: FileType, how: OpenHow) -> u64 {
    let read = if kind == FileType::Directory { right::READ_DIR } else { right::READ_FILE };
    (if how.read { read } else { 0 }) | if how.write { right::WRITE_FILE } else { 0 }
}

fn open_object(caller: &Caller<'_>, at: PathRef, open_flags: i32, fresh: bool) -> Result<Arc<File>, Errno> {
    let inode = at.dentry.inode().clone();
    let how = access_mode(open_flags);
    let kind = inode.kind();
    let truncate = open_flags & flags::TRUNC != 0;
    match kind {
        FileType::Link => return Err(Errno::ELOOP),
        FileType::Directory if how.write || truncate => return Err(Errno::EISDIR),
        k if k != FileType::Directory && open_flags & flags::DIRECTORY != 0 => return Err(Errno::ENOTDIR),
        _ => {}
    }
    let both = open_flags & flags::ACCMODE == flags::ACCMODE;
    if truncate && kind == FileType::Regular {
        at.mount.check_writable()?;
    }
    if !fresh {
        let mut want = 0;
        want |= if how.read || both { READ } else { 0 };
        want |= if how.write || both || truncate { WRITE } else { 0 };
        let attr = inode.attr()?;
        access::check_known(&caller.creds, &*inode, &attr, want)?;
        if open_flags & flags::NOATIME != 0 && !access::is_owner(&caller.creds, &attr) {
            return Err(Errno::EPERM);
        }
    }
    let mut rights = to_open(kind, how);
    if truncate && kind == FileType::Regular && !fresh {
        rights |= right::TRUNCATE;
    }
    caller.creds.check_domain(&at, rights)?;
    match kind {
        FileType::Char | FileType::Block if !at.mount.has_devices() => {
            return Err(Errno::EACCES);
        }
        FileType::Char | FileType::Block => {
            let ops = crate::filesystems::special::open_device(caller, &inode, how)?;
            return Ok(File::new(at, ops, open_flags));
        }
        FileType::Fifo => {
            let ops = crate::filesystems::special::open_fifo(&inode, how)?;
            return Ok(File::new(at, ops, open_flags));
        }
        FileType::Socket => return Err(Errno::ENXIO),
        _ => {}
    }
    if how.write || truncate {
        at.mount.check_writable()?;
    }
    let writes = kind == FileType::Regular && (how.write || truncate);
    if writes {
        inode.writers().begin_write()?;
    }
    let opened = if truncate && kind == FileType::Regular && !fresh {
        inode.set_attr(&SetAttr { size: Some(0), mtime: Some(file_time()), ..SetAttr::default() })
    } else {
        Ok(())
    }
    .and_then(|()| inode.clone().open(caller, how));
    match opened {
        Ok(ops) if writes && how.write => Ok(File::counted(at, ops, open_flags)),
        opened => {
            if writes {
                inode.writers().end_write();
            }
            opened.map(|ops| File::new(at, ops, open_flags))
        }
    }
}

/// Opens a program: see [`open_exec`](super::open_exec).
pub fn open_program(caller: &Caller<'_>, at: PathRef) -> Result<Arc<File>, Errno> {
    let inode = at.dentry.inode();
    if inode.kind() == FileType::Link {
        return Err(Errno::ELOOP);
    }
    if inode.kind() != FileType::Regular || at.mount.flags().contains(MountFlags::NO_EXEC) {
        return Err(Errno::EACCES);
    }
    access::check(&caller.creds, &**inode, EXEC)?;
    caller.creds.check_domain(&at, right::EXECUTE | right::READ_FILE)?;
    let ops = inode.clone().open(caller, access_mode(flags::RDONLY))?;
    inode.writers().deny_write()?;
    watch::file(&at.dentry, event::OPEN);
    Ok(File::program(at, ops))
}

/// Makes a directory.
pub fn mkdir(caller: &Caller<'_>, base: PathRef, path: &[u8], bits: u32) -> Result<(), Errno> {
    let parent = walk_parent(caller, base, path)?;
    enter(caller, &parent, true, right::MAKE_DIR, |dir, name, attr| {
        let bits = mode::DIRECTORY | (bits & (0o777 | mode::STICKY));
        dir.create(name, &new_node(caller, attr, bits, 0))
    })
    .map(|_| ())
}

/// Makes a file, device, FIFO or socket; the new name.
pub fn mknod(caller: &Caller<'_>, base: PathRef, path: &[u8], bits: u32, rdev: u64) -> Result<PathRef, Errno> {
    let bits = if bits & mode::TYPE == 0 { bits | mode::REGULAR } else { bits };
    match bits & mode::TYPE {
        mode::REGULAR | mode::FIFO | mode::SOCKET => {}
        mode::CHAR | mode::BLOCK => {
            // A whiteout is no device that anybody could open.
            let whiteout = bits & mode::TYPE == mode::CHAR && rdev == 0;
            if !whiteout && !caller.creds.capable(cap::MKNOD) {
                return Err(Errno::EPERM);
            }
        }
        mode::DIRECTORY => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    }
    let parent = walk_parent(caller, base, path)?;
    let dentry = enter(caller, &parent, false, landlock::to_make(FileType::of(bits)), |dir, name, attr| {
        dir.create(name, &new_node(caller, attr, bits & (mode::TYPE | mode::PERMISSIONS), rdev))
    })?;
    Ok(PathRef { mount: parent.dir.mount, dentry })
}

/// Makes a symbolic link.
pub fn symlink(caller: &Caller<'_>, target: &[u8], base: PathRef, path: &[u8]) -> Result<(), Errno> {
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    let parent = walk_parent(caller, base, path)?;
    enter(caller, &parent, false, right::MAKE_SYM, |dir, name, attr| {
        let new = NewNode { mode: mode::LINK | 0o777, ..new_node(caller, attr, mode::LINK, 0) };
        dir.symlink(name, target, &new)
    })
    .map(|_| ())
}

/// Gives `target` another name.
pub fn link(caller: &Caller<'_>, target: &PathRef, base: PathRef, path: &[u8]) -> Result<(), Errno> {
    let parent = walk_parent(caller, base, path)?;
    let inode = target.dentry.inode();
    enter(caller, &parent, false, 0, |dir, name, _| {
        if !Arc::ptr_eq(&target.mount, &parent.dir.mount) {
            return Err(Errno::EXDEV);
        }
        if let (Some(domain), Some(above)) = (&caller.creds.domain, target.dentry.parent()) {
            let above = PathRef { mount: target.mount.clone(), dentry: above };
            let from = Side { dir: &above, object: Some(inode) };
            domain.check_moved(&from, &Side { dir: &parent.dir, object: None }, false, false)?;
        }
        if inode.kind() == FileType::Directory {
            return Err(Errno::EPERM);
        }
        let attr = inode.attr()?;
        check_hard_link(caller, inode, &attr)?;
        let first = &inode.common().linkable;
        if attr.nlink == 0 && !first.load(Ordering::Relaxed) {
            return Err(Errno::ENOENT);
        }
        dir.link(name, inode)?;
        watch::inode(inode, event::ATTRIB);
        first.store(false, Ordering::Relaxed);
        Ok(inode.clone())
    })
    .map(|_| ())
}

/// `fs.protected_hardlinks`, which Linux has on: who does not own a file links to it only where it is a plain file, neither
/// set-user-ID nor executable set-group-ID, that they may read and write.
fn check_hard_link(caller: &Caller<'_>, inode: &InodeRef, attr: &Attr) -> Result<(), Errno> {
    let special = inode.kind() != FileType::Regular || attr.mode & 0o4000 != 0 || attr.mode & 0o2010 == 0o2010;
    if access::is_owner(&caller.creds, attr)
        || (!special && access::check_attr(&caller.creds, attr, access::READ | access::WRITE).is_ok())
    {
        return Ok(());
    }
    Err(Errno::EPERM)
}

/// Removes a name.
pub fn unlink(caller: &Caller<'_>, base: PathRef, path: &[u8], directory: bool) -> Result<(), Errno> {
    let parent = walk_parent(caller, base, path)?;
    let name = match &parent.last {
        Last::Name(n) => n,
        Last::Dot if !directory => return Err(Errno::EISDIR),
        Last::DotDot if !directory => return Err(Errno::EISDIR),
        Last::Dot if path.iter().all(|b| *b == b'/') => return Err(Errno::EBUSY),
        Last::Dot => return Err(Errno::EINVAL),
        Last::DotDot => return Err(Errno::ENOTEMPTY),
    };
    let dir = &parent.dir.dentry;
    let _modify = dir.modify.lock();
    let victim = dir.child(caller, name)?.ok_or(Errno::ENOENT)?;
    let is_dir = victim.inode().kind() == FileType::Directory;
    if parent.slash && !is_dir {
        return Err(Errno::ENOTDIR);
    }
    parent.dir.mount.check_writable()?;
    caller.creds.check_domain(&parent.dir, if directory { right::REMOVE_DIR } else { right::REMOVE_FILE })?;
    access::check_delete(&caller.creds, &**dir.inode(), &**victim.inode())?;
    match (directory, is_dir) {
        (true, false) => return Err(Errno::ENOTDIR),
        (false, true) => return Err(Errno::EISDIR),
        _ => {}
    }
    let at = PathRef { mount: parent.dir.mount.clone(), dentry: victim };
    if caller.fs.namespace().is_mount_point(&at) {
        return Err(Errno::EBUSY);
    }
    dir.inode().unlink(name, directory)?;
    dir.remove(name);
    mount::forget(&at.dentry);
    let inode = at.dentry.inode().clone();
    if !directory {
        watch::inode(&inode, event::ATTRIB);
    }
    // If it was the last to use it, the file is gone now, and that is told first.
    drop(at);
    watch::name(dir.inode(), name, &inode, event::DELETE);
    Ok(())
}

/// Moves a name, `renameat2(2)`.
pub fn rename(
    caller: &Caller<'_>,
    (old_base, old_path): (PathRef, &[u8]),
    (new_base, new_path): (PathRef, &[u8]),
    how: u32,
) -> Result<(), Errno> {
    let exchange = how & RENAME_EXCHANGE != 0;
    if how & !(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT) != 0
        || (exchange && how & (RENAME_NOREPLACE | RENAME_WHITEOUT) != 0)
    {
        return Err(Errno::EINVAL);
    }
    let from = walk_parent(caller, old_base, old_path)?;
    let to = walk_parent(caller, new_base, new_path)?;
    if !Arc::ptr_eq(&from.dir.mount, &to.dir.mount) {
        return Err(Errno::EXDEV);
    }
    let Last::Name(old_name) = &from.last else { return Err(Errno::EBUSY) };
    let Last::Name(new_name) = &to.last else {
        return Err(if how & RENAME_NOREPLACE != 0 { Errno::EEXIST } else { Errno::EBUSY });
    };
    let (a, b) = (&from.dir.dentry, &to.dir.dentry);
    let _renames = from.dir.mount.renames().lock();
    let same = Arc::ptr_eq(a, b);
    // By address, so that other holders of two directories (there are none but renames) take them alike.
    let (first, second) = if Arc::as_ptr(a).addr() < Arc::as_ptr(b).addr() { (a, b) } else { (b, a) };
    let _first = first.modify.lock();
    let _second = if same { None } else { Some(second.modify.lock()) };
    from.dir.mount.check_writable()?;
    let source = a.child(caller, old_name)?.ok_or(Errno::ENOENT)?;
    let target = b.child(caller, new_name)?;
    let is_dir = source.inode().kind() == FileType::Directory;
    if how & RENAME_NOREPLACE != 0 && target.is_some() {
        return Err(Errno::EEXIST);
    }
    if exchange && target.is_none() {
        return Err(Errno::ENOENT);
    }
    if !is_dir && (from.slash || (!exchange && to.slash)) {
        return Err(Errno::ENOTDIR);
    }
    if is_dir && b.is_below(&source) {
        return Err(Errno::EINVAL);
    }
    if let Some(t) = &target {
        if a.is_below(t) {
            return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
        }
        if Arc::ptr_eq(t, &source) || Arc::ptr_eq(t.inode(), source.inode()) {
            return Ok(());
        }
    }
    if let Some(domain) = &caller.creds.domain {
        let from = Side { dir: &from.dir, object: Some(source.inode()) };
        let to = Side { dir: &to.dir, object: target.as_ref().map(|t| t.inode()) };
        domain.check_moved(&from, &to, true, exchange)?;
    }
    access::check_delete(&caller.creds, &**a.inode(), &**source.inode())?;
    match &target {
        Some(t) => {
            access::check_delete(&caller.creds, &**b.inode(), &**t.inode())?;
            let t_dir = t.inode().kind() == FileType::Directory;
            match (is_dir, t_dir) {
                (true, false) if !exchange => return Err(Errno::ENOTDIR),
                (false, true) if !exchange => return Err(Errno::EISDIR),
                _ => {}
            }
            let at = PathRef { mount: to.dir.mount.clone(), dentry: t.clone() };
            if caller.fs.namespace().is_mount_point(&at) {
                return Err(Errno::EBUSY);
            }
        }
        None => {
            check_enter(caller, &to.dir, 0)?;
        }
    }
    // A directory that gets another parent is written itself (its `..`).
    if is_dir && !same {
        access::check(&caller.creds, &**source.inode(), WRITE)?;
    }
    let at = PathRef { mount: from.dir.mount.clone(), dentry: source };
    if caller.fs.namespace().is_mount_point(&at) {
        return Err(Errno::EBUSY);
    }
    a.inode().rename(old_name, b.inode(), new_name, how)?;
    a.moved(old_name, b, new_name, exchange);
    if how & RENAME_WHITEOUT != 0 {
        a.forget(old_name);
    }
    watch::moved(a.inode(), old_name, b.inode(), new_name, at.dentry.inode());
    if let Some(t) = &target {
        if exchange {
            watch::moved(b.inode(), new_name, a.inode(), old_name, t.inode());
            watch::inode(t.inode(), event::MOVE_SELF);
        } else {
            mount::forget(t);
            watch::inode(t.inode(), event::ATTRIB);
        }
    }
    watch::inode(at.dentry.inode(), event::MOVE_SELF);
    Ok(())
}

/// `chmod(2)`.
pub fn chmod(caller: &Caller<'_>, at: &PathRef, bits: u32) -> Result<(), Errno> {
    at.mount.check_writable()?;
    let inode = at.dentry.inode();
    if inode.kind() == FileType::Link {
        return Err(Errno::EOPNOTSUPP);
    }
    let attr = inode.attr()?;
    if !access::is_owner(&caller.creds, &attr) {
        return Err(Errno::EPERM);
    }
    let mut m = bits & mode::PERMISSIONS;
    if !caller.creds.in_group(attr.gid) && !caller.creds.capable_over(attr.uid, attr.gid, cap::FSETID) {
        m &= !mode::SETGID;
    }
    inode.set_attr(&SetAttr { mode: Some(m), ..SetAttr::default() })?;
    watch::file(&at.dentry, event::ATTRIB);
    Ok(())
}

/// `chown(2)`; `None` leaves the user or group as it is.
pub fn chown(caller: &Caller<'_>, at: &PathRef, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
    at.mount.check_writable()?;
    let inode = at.dentry.inode();
    let attr = inode.attr()?;
    let creds = &caller.creds;
    let owner = attr.uid == creds.fsuid;
    let may_user = uid.is_none_or(|u| owner && u == attr.uid);
    let may_group = gid.is_none_or(|g| owner && (g == attr.gid || creds.in_group(g)));
    let allowed = may_user && may_group;
    if !allowed && !creds.capable_over(attr.uid, attr.gid, cap::CHOWN) {
        return Err(Errno::EPERM);
    }
    let mut set = SetAttr { uid, gid, ..SetAttr::default() };
    if attr.kind() != FileType::Directory {
        inode.drop_capabilities();
        let m = access::drop_privileges(attr.mode & mode::PERMISSIONS);
        set.mode = (m != attr.mode & mode::PERMISSIONS).then_some(m);
    }
    inode.set_attr(&set)?;
    watch::file(&at.dentry, event::ATTRIB);
    Ok(())
}

/// `truncate(2)`.
pub fn truncate(caller: &Caller<'_>, at: &PathRef, size: u64) -> Result<(), Errno> {
    let inode = at.dentry.inode();
    match inode.kind() {
        FileType::Directory => return Err(Errno::EISDIR),
        FileType::Regular => {}
        _ => return Err(Errno::EINVAL),
    }
    access::check(&caller.creds, &**inode, WRITE)?;
    at.mount.check_writable()?;
    caller.creds.check_domain(at, right::TRUNCATE)?;
    inode.writers().begin_write()?;
    let done = inode.set_attr(&SetAttr { size: Some(size), mtime: Some(file_time()), ..SetAttr::default() });
    inode.writers().end_write();
    done?;
    watch::file(&at.dentry, event::MODIFY);
    strip_privileges(caller, inode)
}

/// Takes a file's capabilities away after a write; setuid and setgid, too, if the writer is without CAP_FSETID.
pub fn strip_privileges(caller: &Caller<'_>, inode: &InodeRef) -> Result<(), Errno> {
    inode.drop_capabilities();
    let attr = inode.attr()?;
    if caller.creds.capable_over(attr.uid, attr.gid, cap::FSETID) {
        return Ok(());
    }
    let m = attr.mode & mode::PERMISSIONS;
    let less = access::drop_privileges(m);
    if less == m { Ok(()) } else { inode.set_attr(&SetAttr { mode: Some(less), ..SetAttr::default() }) }
}

/// A time to set: `None` leaves it, `Some(None)` is now.
pub type NewTime = Option<Option<i64>>;

/// `utimensat(2)`.
pub fn set_times(caller: &Caller<'_>, at: &PathRef, atime: NewTime, mtime: NewTime) -> Result<(), Errno> {
    if atime.is_none() && mtime.is_none() {
        return Ok(());
    }
    at.mount.check_writable()?;
    let inode = at.dentry.inode();
    let attr = inode.attr()?;
    if !access::is_owner(&caller.creds, &attr) {
        if atime == Some(None) && mtime == Some(None) {
            access::check_attr(&caller.creds, &attr, WRITE)?;
        } else {
            return Err(Errno::EPERM);
        }
    }
    let now = file_time();
    let time = |t: NewTime| t.map(|t| t.unwrap_or(now));
    inode.set_attr(&SetAttr { atime: time(atime), mtime: time(mtime), ..SetAttr::default() })?;
    let what = match (atime, mtime) {
        (Some(_), Some(_)) => event::ATTRIB,
        (Some(_), None) => event::ACCESS,
        _ => event::MODIFY,
    };
    watch::file(&at.dentry, what);
    Ok(())
}
