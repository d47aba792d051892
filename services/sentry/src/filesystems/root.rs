//! The assembly of a container's tree of files.

use std::sync::Arc;

use cofferdam_control::sentry::{Container, MountOptions, MountSource};
use cofferdam_ninep::client::Client;

use crate::errno::Errno;
use crate::filesystems::gofer::GoferFs;
use crate::filesystems::tree::{Tmpfs, Tree};
use crate::kernel::Kernel;
use crate::task::Creds;
use crate::task::creds::ALL_CAPABILITIES;
use crate::vfs::dentry::Dentry;
use crate::vfs::inode::{FileSystem, FileType, InodeRef, NewNode, makedev, mode};
use crate::vfs::mount::{Mount, MountFlags, PathRef};
use crate::vfs::walk::walk;
use crate::vfs::{Caller, FsContext, ops};

/// Bytes of changes that a root overlay may hold.
const OVERLAY_MAX: u64 = 1 << 40;

/// Why a container's tree could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// An export could not be attached.
    #[error("export {name:?}: {error}")]
    Export {
        /// The export.
        name: String,
        /// Why.
        error: Errno,
    },
    /// A mount could not be made.
    #[error("mount on {destination:?}: {error}")]
    Mount {
        /// Where.
        destination: String,
        /// Why.
        error: Errno,
    },
    /// The root could not be used.
    #[error("root: {0}")]
    Root(Errno),
}

fn flags(o: &MountOptions) -> MountFlags {
    let mut f = MountFlags::RELATIME;
    f.set(MountFlags::READ_ONLY, o.read_only);
    f.set(MountFlags::NO_SUID, o.nosuid);
    f.set(MountFlags::NO_DEV, o.nodev);
    f.set(MountFlags::NO_EXEC, o.noexec);
    f
}

/// A tmpfs with the nodes and links of `/dev`.
pub fn devtmpfs(kernel: &Arc<Kernel>) -> Result<(Arc<Tree>, Arc<Dentry>), Errno> {
    let (fs, root) = Tree::tmpfs(kernel.memory.clone(), &Tmpfs::new(64 << 20, 0o755));
    let dir = root.inode();
    let node = |bits: u32, rdev: u64| NewNode { mode: bits, uid: 0, gid: 0, rdev };
    for (name, major, minor) in
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)]
    {
        dir.create(name.as_bytes(), &node(mode::CHAR | 0o666, makedev(major, minor)))?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        dir.symlink(name.as_bytes(), target.as_bytes(), &node(mode::LINK | 0o777, 0))?;
    }
    for (name, bits) in [("shm", 0o1777), ("pts", 0o755), ("mqueue", 0o1777)] {
        dir.create(name.as_bytes(), &node(mode::DIRECTORY | bits, 0))?;
    }
    Ok((fs, root))
}

/// A file system that was made, and its root.
pub type Made = (Arc<dyn FileSystem>, Arc<Dentry>);

fn make(kernel: &Arc<Kernel>, files: &Client, source: &MountSource) -> Result<Made, Errno> {
    Ok(match source {
        MountSource::Export(name) => {
            let (fs, root) = GoferFs::attach(files.clone(), kernel.cache.clone(), kernel.held.clone(), name)?;
            (fs, root)
        }
        MountSource::Tmpfs { size, mode } => {
            let (fs, root) = Tree::tmpfs(
                kernel.memory.clone(),
                &Tmpfs { size: *size, mode: mode.unwrap_or(0o1777), ..Tmpfs::default() },
            );
            (fs, root)
        }
        MountSource::Mqueue => {
            let (fs, root) = Tree::tmpfs(kernel.memory.clone(), &Tmpfs::new(1 << 20, 0o1777));
            (fs, root)
        }
        MountSource::Devtmpfs => {
            let (fs, root) = devtmpfs(kernel)?;
            (fs, root)
        }
        MountSource::Proc => crate::filesystems::proc::mount(kernel),
        MountSource::Sysfs => crate::filesystems::sys::mount(kernel),
        MountSource::Cgroup => crate::filesystems::sys::mount_cgroup(),
        MountSource::Devpts => crate::filesystems::devpts::mount(),
    })
}

/// Makes what is missing of a mount point, as container engines expect of a runtime.
fn mount_point(caller: &Caller<'_>, path: &[u8], kind: FileType) -> Result<PathRef, Errno> {
    let at = || caller.fs.root();
    match walk(caller, at(), path, true) {
        Err(Errno::ENOENT) => {}
        found => return found,
    }
    let mut end = 0;
    while let Some(n) = path.get(end + 1..).and_then(|p| p.iter().position(|b| *b == b'/')) {
        end += n + 1;
        match ops::mkdir(caller, at(), path.get(..end).unwrap_or_default(), 0o755) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(e),
        }
    }
    let made = match kind {
        FileType::Directory => ops::mkdir(caller, at(), path, 0o755),
        _ => ops::mknod(caller, at(), path, mode::REGULAR | 0o644, 0).map(|_| ()),
    };
    match made {
        Ok(()) | Err(Errno::EEXIST) => walk(caller, at(), path, true),
        Err(e) => Err(e),
    }
}

/// Puts a container's tree together: its root, an overlay over it if asked for, and its mounts in order.
pub fn build_root(kernel: &Arc<Kernel>, files: &Client, container: &Container) -> Result<FsContext, RootError> {
    let export = &container.root.export;
    let failed = |error| RootError::Export { name: export.clone(), error };
    let (lower_fs, lower) =
        GoferFs::attach(files.clone(), kernel.cache.clone(), kernel.held.clone(), export).map_err(failed)?;
    if lower.inode().kind() != FileType::Directory {
        return Err(RootError::Root(Errno::ENOTDIR));
    }
    // Mount points are made before the root becomes read-only.
    let mut top = MountFlags::RELATIME;
    let root = if container.root.overlay {
        let inode: InodeRef = lower.inode().clone();
        let (fs, root) = Tree::overlay(kernel.memory.clone(), OVERLAY_MAX, inode).map_err(RootError::Root)?;
        Mount::new(fs, root, b"overlay", top)
    } else {
        Mount::new(lower_fs, lower, b"root", top)
    };
    let fs = Arc::new(FsContext::new_root(root.clone()));
    let caller = Caller::kernel(fs.clone(), Creds::root(ALL_CAPABILITIES));
    for m in &container.mounts {
        let failed =
            |error| RootError::Mount { destination: String::from_utf8_lossy(&m.destination).into_owned(), error };
        let (made, dentry) = make(kernel, files, &m.source).map_err(failed)?;
        let kind = dentry.inode().kind();
        let at = mount_point(&caller, &m.destination, kind).map_err(failed)?;
        if (at.dentry.inode().kind() == FileType::Directory) != (kind == FileType::Directory) {
            return Err(failed(Errno::ENOTDIR));
        }
        let source: &[u8] = match &m.source {
            MountSource::Export(name) => name.as_bytes(),
            _ => made.name().as_bytes(),
        };
        let mount = Mount::new(made.clone(), dentry, source, flags(&m.options));
        fs.namespace().attach(at, &mount).map_err(failed)?;
    }
    top.set(MountFlags::READ_ONLY, container.root.read_only);
    root.set_flags(top);
    fs.set_root(PathRef::root_of(&root));
    drop(caller);
    let fs = Arc::try_unwrap(fs).unwrap_or_else(|shared| shared.duplicate());
    fs.set_umask(container.umask.unwrap_or(0o022));
    Ok(fs)
}
