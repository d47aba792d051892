//! The trees and files of the host that a container is to have: opened here, with the caller's rights and from his root directory, for its
//! Gofer.
//!
//! They are only opened, never listed or written. A file system that hangs holds up this command, and nobody else's container. Called by
//! `connection` when the supervisor asks, who has read in the document which.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cofferdam_confine::{mount_for_serving, mount_propagation};
use cofferdam_control::client::{Opened, Private, Source, Tree};
use cofferdam_control::gofer::ExportKind;
use cofferdam_control::oci::ms;
use cofferdam_control::sentry::FailureKind;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

/// Why one cannot be had: for a program, and for a person.
type Refused = (FailureKind, String);

/// Opens them. The first must be a directory; the others may be files, which are opened for what they are to be used for: their server has
/// no name to open them by. One that may not be written is served read-only. A work directory that is on another mount than what takes an
/// overlay's changes is refused. `made`: a file that is nowhere, and what it is called; to be read.
pub fn open(
    root: BorrowedFd<'_>,
    sources: &[Source],
    made: Option<(&[u8], BorrowedFd<'_>)>,
) -> Result<Vec<(OwnedFd, Opened)>, Refused> {
    let mut opened: Vec<(OwnedFd, Opened)> = Vec::new();
    for (n, source) in sources.iter().enumerate() {
        let made = made.filter(|(name, _)| source.path == *name);
        let (fd, is) = match made.map(|(_, file)| file.try_clone_to_owned()) {
            Some(Ok(file)) => (file, Opened { kind: ExportKind::File, read_only: true, follows: false }),
            Some(Err(e)) => return Err((FailureKind::Host, format!("a file for the container: {e}"))),
            None => one(root, n == 0, source)?,
        };
        if let Some((other, _)) = source.beside.and_then(|at| opened.get(at))
            && !on_one_mount(&fd, other).unwrap_or(false)
        {
            // Names are moved between the two. As Linux has it.
            let path = Path::new(OsStr::from_bytes(&source.path));
            return Err((
                FailureKind::Invalid,
                format!("mount source ({}): {}", path.display(), std::io::Error::from(Errno::INVAL)),
            ));
        }
        opened.push((fd, is));
    }
    Ok(opened)
}

fn on_one_mount(a: &OwnedFd, b: &OwnedFd) -> rustix::io::Result<bool> {
    let mount = |fd| {
        let stat = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
        Ok::<_, Errno>((stat.stx_dev_major, stat.stx_dev_minor, stat.stx_mnt_id))
    };
    Ok(mount(a)? == mount(b)?)
}

/// A copy of what is mounted at a place, as a bind mount is one: it keeps no mount of the host busy, and what the host
/// mounts or takes away later comes to it or does not, as asked. Nobody mounts in it, so it gives nothing back.
fn copy(place: &OwnedFd, tree: Tree, read_only: bool) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let flags = if tree.below { flags | OpenTreeFlags::AT_RECURSIVE } else { flags };
    let copy = rustix::mount::open_tree(place, "", flags)?;
    mount_for_serving(copy.as_fd(), read_only)?;
    mount_propagation(copy.as_fd(), ms::SLAVE, true)?;
    match tree.private {
        Private::Nothing => {}
        Private::Top => mount_propagation(copy.as_fd(), ms::PRIVATE, false)?,
        Private::All => mount_propagation(copy.as_fd(), ms::PRIVATE, true)?,
    }
    Ok(copy)
}

fn one(root: BorrowedFd<'_>, is_root: bool, source: &Source) -> Result<(OwnedFd, Opened), Refused> {
    let path = Path::new(OsStr::from_bytes(&source.path));
    let what = format!("{} ({})", if is_root { "rootfs" } else { "mount source" }, path.display());
    let refused = |e: Errno| match e {
        Errno::NOENT => (FailureKind::Invalid, format!("{what}: no such file or directory")),
        Errno::ACCESS | Errno::PERM => (FailureKind::Permission, format!("{what}: permission denied")),
        e => (FailureKind::Invalid, format!("{what}: {}", std::io::Error::from(e))),
    };
    let open = |flags| rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT);
    let place = open(OFlags::PATH).map_err(refused)?;
    let mut read_only = source.read_only;
    let copied = source.tree.and_then(|tree| Some((copy(&place, tree, read_only).ok()?, tree.private < Private::All)));
    let (place, follows, own) = copied.map_or((place, false, false), |(copy, follows)| (copy, follows, true));
    let stat = rustix::fs::fstat(&place).map_err(refused)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok((place, Opened { kind: ExportKind::Directory, read_only, follows })),
        _ if is_root => Err((FailureKind::Invalid, format!("{what} is not a directory"))),
        FileType::RegularFile => {
            let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
            let path = format!("/proc/self/fd/{}", place.as_raw_fd());
            // By the copy: the host's own mount would be busy for as long as the file is open.
            let open = |how: OFlags| match own {
                true => rustix::fs::open(&path, how | OFlags::CLOEXEC, Mode::empty()).or_else(|e| match e {
                    Errno::NOENT => open(how),
                    e => Err(e),
                }),
                false => open(how),
            };
            let file = match if read_only { Err(Errno::ROFS) } else { open(flags | OFlags::RDWR) } {
                Err(Errno::ROFS | Errno::ACCESS | Errno::PERM | Errno::TXTBSY) => {
                    read_only = true;
                    open(flags | OFlags::RDONLY).map_err(refused)?
                }
                other => other.map_err(refused)?,
            };
            let again = rustix::fs::fstat(&file).map_err(refused)?;
            if (again.st_dev, again.st_ino) != (stat.st_dev, stat.st_ino) {
                return Err((FailureKind::Host, format!("{what}: replaced while it was opened")));
            }
            Ok((file, Opened { kind: ExportKind::File, read_only, follows: false }))
        }
        _ => Ok((place, Opened { kind: ExportKind::File, read_only, follows: false })),
    }
}
