//! The assembly of a container's tree of files: its root, its mounts in their order, devices, what is hidden and read-only, settings.
//!
//! It is done by a task that never runs and that nobody sees, root in the container's user namespace, in the order that runc has:
//! mounts, devices, the root read-only, settings, read-only and masked paths. A path is always one inside the container, so that no
//! link of its root leads out. Called by `sandbox`.

use std::sync::Arc;

use cofferdam_control::oci::ms;
use cofferdam_control::sentry::{Container, Device, FileAccess, IdMaps, Layer, Mount as Wanted, MountSource};
use cofferdam_ninep::client::Client;

use crate::errno::Errno;
use crate::filesystems::gofer::{Acts, GoferFs};
use crate::filesystems::overlay::Given;
use crate::filesystems::recipe::Recipe;
use crate::filesystems::tree::{Tmpfs, Tree};
use crate::ipc::scm::Ucred;
use crate::ipc::unix::{self, Socket};
use crate::kernel::Kernel;
use crate::memory::AddressSpace;
use crate::namespaces::user::Which;
use crate::namespaces::{Base, Kind, Namespaces, UserNamespace};
use crate::signal::Actions;
use crate::sync::Mutex;
use crate::syscalls::{mount as calls, mount_api};
use crate::task::cgroup::Cgroup;
use crate::task::creds::ALL_CAPABILITIES;
use crate::task::group::default_limits;
use crate::task::{Begin, Creds, Group, Parts, Task};
use crate::uio::Source;
use crate::vfs::dentry::Dentry;
use crate::vfs::fd::FdTable;
use crate::vfs::file::flags;
use crate::vfs::inode::{FileSystem, FileType, InodeRef, NewNode, makedev, mode};
use crate::vfs::mount::detached::Attributes;
use crate::vfs::mount::propagate::How;
use crate::vfs::mount::{Mount, MountFlags, PathRef};
use crate::vfs::walk::{Resolve, walk};
use crate::vfs::{Caller, FsContext, ops};

/// Bytes of changes that a root overlay may hold.
const OVERLAY_MAX: u64 = 1 << 40;

/// Why a container's tree could not be put together, as runc says it.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// An export could not be attached.
    #[error("export {name:?}: {}", error.message())]
    Export {
        /// The export.
        name: String,
        /// Why.
        error: Errno,
    },
    /// A mount could not be made.
    #[error("error mounting {from:?} to rootfs at {destination:?}: mount {from}:{destination}, flags: {flags:#x}, data: {data}: {}", error.message())]
    Mount {
        /// From where.
        from: String,
        /// Where.
        destination: String,
        /// `MS_*`.
        flags: u64,
        /// Options.
        data: String,
        /// Why.
        error: Errno,
    },
    /// There is something else at a place that must be a plain directory.
    #[error(
        "error mounting {kind:?} to rootfs at {destination:?}: filesystem {kind:?} must be mounted on ordinary directory"
    )]
    NoDirectory {
        /// The file system's type.
        kind: String,
        /// Where.
        destination: String,
    },
    /// Something else could not be done.
    #[error("{what}: {}", error.message())]
    Step {
        /// What.
        what: String,
        /// Why.
        error: Errno,
    },
}

/// Says what was tried.
fn step(what: impl Into<String>) -> impl FnOnce(Errno) -> RootError {
    move |error| RootError::Step { what: what.into(), error }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Nodes that every /dev has, all for everybody.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Links that every /dev has.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// A tmpfs with the nodes and links of `/dev`.
pub fn devtmpfs(kernel: &Arc<Kernel>) -> Result<(Arc<Tree>, Arc<Dentry>), Errno> {
    let (fs, root) = Tree::tmpfs(kernel.memory.clone(), &Tmpfs::new(64 << 20, 0o755));
    let dir = root.inode();
    let node = |bits: u32, rdev: u64| NewNode { mode: bits, uid: 0, gid: 0, rdev };
    for (name, major, minor) in NODES {
        dir.create(name.as_bytes(), &node(mode::CHAR | 0o666, makedev(major, minor)))?;
    }
    for (name, target) in LINKS {
        dir.symlink(name.as_bytes(), target.as_bytes(), &node(mode::LINK | 0o777, 0))?;
    }
    for (name, bits) in [("shm", 0o1777), ("pts", 0o755), ("mqueue", 0o1777)] {
        dir.create(name.as_bytes(), &node(mode::DIRECTORY | bits, 0))?;
    }
    Ok((fs, root))
}

/// A file system that was made, and its root.
pub type Made = (Arc<dyn FileSystem>, Arc<Dentry>);

/// What a container's Gofer serves, and who acts in it from outside.
pub type Files = (Client, Acts);

fn attach(
    kernel: &Arc<Kernel>,
    files: &Files,
    export: &str,
    access: FileAccess,
) -> Result<(Arc<GoferFs>, Arc<Dentry>), Errno> {
    GoferFs::attach(files.clone(), kernel.cache.clone(), kernel.held.clone(), export, access)
}

/// Where a container begins.
pub struct Ground {
    /// Its tree of files.
    pub fs: FsContext,
    /// Its namespaces.
    pub namespaces: Arc<Namespaces>,
    /// Its user namespace.
    pub user_ns: Arc<UserNamespace>,
    /// Where it says that it is ready.
    pub notify: Option<Arc<Socket>>,
}

/// The user namespace with these maps, and root in it.
fn user_namespace(maps: &IdMaps) -> Result<Creds, Errno> {
    let outer = Creds::root(ALL_CAPABILITIES);
    let mut creds = outer.clone();
    UserNamespace::enter_new(&mut creds)?;
    let text = |map: &[(u32, u32, u32)]| -> Vec<u8> {
        map.iter().flat_map(|(inside, outside, count)| format!("{inside} {outside} {count}\n").into_bytes()).collect()
    };
    let ns = creds.user_ns.clone();
    ns.write_map(Which::Users, &text(&maps.uids), &outer, &outer)?;
    ns.write_map(Which::Groups, &text(&maps.gids), &outer, &outer)?;
    let (uid, gid) = (ns.kernel_uid(0).ok_or(Errno::EINVAL)?, ns.kernel_gid(0).ok_or(Errno::EINVAL)?);
    (creds.ruid, creds.euid, creds.suid, creds.fsuid) = (uid, uid, uid, uid);
    (creds.rgid, creds.egid, creds.sgid, creds.fsgid) = (gid, gid, gid, gid);
    Ok(creds)
}

/// Who puts the tree together.
struct Builder<'a> {
    kernel: &'a Arc<Kernel>,
    files: &'a Files,
    task: Arc<Task>,
}

impl Builder<'_> {
    /// As root of the container.
    fn caller(&self) -> Caller<'_> {
        Caller::of(&self.task)
    }

    fn root(&self) -> PathRef {
        self.task.fs().root()
    }

    fn find(&self, path: &[u8]) -> Result<PathRef, Errno> {
        walk(&self.caller(), self.root(), path, true)
    }

    /// proc and sysfs go to a directory, never through a link.
    fn check_place(&self, wanted: &Wanted) -> Result<(), RootError> {
        match &wanted.source {
            MountSource::System { kind, .. } if matches!(kind.as_str(), "proc" | "sysfs") => {
                match walk(&self.caller(), self.root(), &wanted.destination, false) {
                    Ok(at) if at.dentry.inode().kind() != FileType::Directory => {
                        Err(RootError::NoDirectory { kind: kind.clone(), destination: shown(&wanted.destination) })
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Makes the directories above a path that are missing.
    fn directories(&self, path: &[u8]) -> Result<(), Errno> {
        let caller = self.caller();
        let mut end = 0;
        while let Some(n) = path.get(end + 1..).and_then(|p| p.iter().position(|b| *b == b'/')) {
            end += n + 1;
            match ops::mkdir(&caller, self.root(), path.get(..end).unwrap_or_default(), 0o755) {
                Ok(()) | Err(Errno::EEXIST) => {}
                // What is there already may lie where nothing can be made.
                Err(Errno::EROFS | Errno::EACCES | Errno::EPERM)
                    if self.find(path.get(..end).unwrap_or_default()).is_ok() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Makes what is missing of a mount point, as container engines expect of a runtime; whether it was there.
    fn mount_point(&self, path: &[u8], kind: FileType) -> Result<(PathRef, bool), Errno> {
        match self.find(path) {
            Err(Errno::ENOENT) => {}
            found => return found.map(|at| (at, true)),
        }
        self.directories(path)?;
        let caller = self.caller();
        let made = match kind {
            FileType::Directory => ops::mkdir(&caller, self.root(), path, 0o755),
            _ => ops::mknod(&caller, self.root(), path, mode::REGULAR | 0o644, 0).map(|_| ()),
        };
        match made {
            Ok(()) | Err(Errno::EEXIST) => self.find(path).map(|at| (at, false)),
            Err(e) => Err(e),
        }
    }

    /// The exports that are layers of an overlay. A work directory is on the mount of what takes the changes.
    fn layers(&self, layers: &[Layer], access: FileAccess) -> Result<Vec<Given>, Errno> {
        let mut given: Vec<Given> = Vec::new();
        let mut changed: Vec<(&str, Arc<GoferFs>, Arc<Mount>)> = Vec::new();
        for layer in layers {
            let beside = layer.beside.as_ref().and_then(|b| changed.iter().find(|(export, ..)| export == b));
            let place = match beside {
                Some((_, fs, mount)) => PathRef { mount: mount.clone(), dentry: fs.attach_beside(&layer.export)? },
                None => {
                    // Linux, too, has nobody else change what takes the changes.
                    let access = if layer.changed { FileAccess::Exclusive } else { access };
                    let (fs, root) = attach(self.kernel, self.files, &layer.export, access)?;
                    let mount = Mount::new(fs.clone(), root, b"layer", MountFlags::empty());
                    if layer.changed {
                        changed.push((&layer.export, fs, mount.clone()));
                    }
                    PathRef::root_of(&mount)
                }
            };
            given.push(Given { path: layer.path.clone(), changed: layer.changed, place });
        }
        Ok(given)
    }

    /// One mount of the document.
    fn mount(&self, wanted: &Wanted) -> Result<(), Errno> {
        let bits = wanted.options.flags;
        let path = wanted.destination.as_slice();
        if wanted.source == MountSource::Again {
            let at = self.find(path)?;
            if !at.is_root_of_mount() {
                return Err(Errno::EINVAL);
            }
            let flags = calls::flags(bits);
            let whole = (bits & ms::BIND == 0).then_some(flags.contains(MountFlags::READ_ONLY));
            at.mount.remount(flags, whole)?;
            return self.adjust(&at.mount, wanted);
        }
        let mut flags = calls::flags(bits);
        let mount = match &wanted.source {
            MountSource::Export { name, access } => {
                let (fs, root) = attach(self.kernel, self.files, name, *access)?;
                Mount::new(fs, root, &wanted.named, flags)
            }
            MountSource::System { kind, data } => {
                if is_late(wanted) {
                    flags &= !MountFlags::READ_ONLY;
                }
                let mut recipe = Recipe::new(kind.as_bytes())?;
                recipe.name(wanted.named.clone());
                recipe.set_all(&self.task, data.as_bytes())?;
                let made = recipe.make(&self.task, flags, &mut |_| ())?;
                // Devices count in what the sandbox has made, whoever is root in it.
                if path == b"/dev" {
                    Mount::new(made.fs.clone(), made.root.clone(), &wanted.named, flags)
                } else {
                    made
                }
            }
            MountSource::Overlay { data, layers, access } => {
                let mut recipe = Recipe::new(b"overlay")?;
                recipe.name(wanted.named.clone());
                recipe.give(self.layers(layers, *access)?);
                recipe.set_all(&self.task, data.as_bytes())?;
                recipe.make(&self.task, flags, &mut |_| ())?
            }
            MountSource::Again => return Err(Errno::EINVAL),
        };
        let kind = mount.root.inode().kind();
        let (at, old) = self.mount_point(path, kind)?;
        if (at.dentry.inode().kind() == FileType::Directory) != (kind == FileType::Directory) {
            return Err(Errno::ENOTDIR);
        }
        let system = match &wanted.source {
            MountSource::System { kind, data } => Some((kind.as_str(), data.as_str())),
            _ => None,
        };
        let mount = match system {
            Some(("tmpfs", _)) if wanted.options.copy_up => self.copied_up(&at, &mount, flags)?,
            _ => mount,
        };
        // A tmpfs has the permissions of the directory it is mounted on, if nothing else was said.
        let keeps = system.is_some_and(|(k, data)| k == "tmpfs" && !data.split(',').any(|o| o.starts_with("mode=")));
        let bits =
            if old && keeps && !wanted.options.copy_up { Some(at.dentry.inode().attr()?.mode & 0o7777) } else { None };
        self.task.fs().namespace().attach(at, &mount)?;
        if let Some(bits) = bits {
            let kernel = Caller::kernel(self.task.fs(), Creds::root(ALL_CAPABILITIES));
            ops::chmod(&kernel, &PathRef::root_of(&mount), bits)?;
        }
        self.adjust(&mount, wanted)
    }

    /// What a mount becomes once it is there: how it takes part in others, and attributes of all on it.
    fn adjust(&self, mount: &Arc<Mount>, wanted: &Wanted) -> Result<(), Errno> {
        for how in &wanted.options.propagation {
            self.propagate(mount, *how)?;
        }
        if let Some((set, clear)) = wanted.options.recursive {
            let (set, clear) = mount_api::changes(set, clear)?;
            let what = Attributes { set, clear, how: None };
            self.task.fs().namespace().set_attributes(&PathRef::root_of(mount), true, &what)?;
        }
        Ok(())
    }

    fn propagate(&self, mount: &Arc<Mount>, how: u64) -> Result<(), Errno> {
        let kind = match how & !ms::REC {
            ms::SHARED => How::Shared,
            ms::SLAVE => How::Slave,
            ms::PRIVATE => How::Private,
            ms::UNBINDABLE => How::Unbindable,
            _ => return Err(Errno::EINVAL),
        };
        let what = Attributes { set: MountFlags::empty(), clear: MountFlags::empty(), how: Some(kind) };
        self.task.fs().namespace().set_attributes(&PathRef::root_of(mount), how & ms::REC != 0, &what)
    }

    /// A tmpfs of the size that was asked for, that begins with what is at a place.
    fn copied_up(&self, at: &PathRef, tmpfs: &Arc<Mount>, flags: MountFlags) -> Result<Arc<Mount>, Errno> {
        if at.dentry.inode().kind() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        let numbers = tmpfs.fs.statfs()?;
        let size = numbers.blocks.saturating_mul(numbers.block_size).min(OVERLAY_MAX);
        let lower = at.dentry.inode().clone();
        let (fs, root) = Tree::begun_with(self.kernel.memory.clone(), size, tmpfs.fs.options(), lower)?;
        Ok(Mount::new(fs, root, &tmpfs.source, flags))
    }

    /// The nodes and links of /dev, where they are missing.
    fn devices(&self, container: &Container) -> Result<(), RootError> {
        let before = self.task.fs().set_umask(0);
        if container.dev {
            for (name, major, minor) in NODES {
                let path = format!("/dev/{name}").into_bytes();
                let given = container.devices.iter().any(|d| d.path == path);
                let node = Device { path, mode: mode::CHAR | 0o666, major, minor, uid: 0, gid: 0 };
                match if given { Ok(()) } else { self.device(&node) } {
                    // A directory of the host, where the Gofer makes no devices: what is there is there.
                    Ok(()) | Err(Errno::EPERM | Errno::EACCES | Errno::EROFS | Errno::EOPNOTSUPP) => {}
                    Err(e) => return Err(step(format!("device /dev/{name}"))(e)),
                }
            }
            for (name, target) in LINKS {
                let path = format!("/dev/{name}").into_bytes();
                match ops::symlink(&self.caller(), target.as_bytes(), self.root(), &path) {
                    Ok(()) | Err(Errno::EEXIST | Errno::EPERM | Errno::EACCES | Errno::EROFS) => {}
                    Err(e) => return Err(step(format!("link /dev/{name}"))(e)),
                }
            }
        }
        for d in container.devices.iter().filter(|d| d.path != b"/dev/ptmx") {
            self.device(d).map_err(step(format!("device {}", shown(&d.path))))?;
        }
        self.task.fs().set_umask(before);
        Ok(())
    }

    fn device(&self, d: &Device) -> Result<(), Errno> {
        self.directories(&d.path)?;
        // Nobody in a user namespace of his own makes devices: the sandbox does.
        let kernel = Caller::kernel(self.task.fs(), Creds::root(ALL_CAPABILITIES));
        match ops::mknod(&kernel, self.root(), &d.path, d.mode, makedev(d.major, d.minor)) {
            Ok(at) => {
                let ns = &self.task.creds().user_ns;
                let (uid, gid) = (ns.kernel_uid(d.uid).unwrap_or(0), ns.kernel_gid(d.gid).unwrap_or(0));
                ops::chown(&kernel, &at, Some(uid), Some(gid))?;
                ops::chmod(&kernel, &at, d.mode & 0o7777)
            }
            Err(Errno::EEXIST) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Makes a socket of the sandbox's own, which everybody may send to.
    fn socket(&self, path: &[u8]) -> Result<Arc<Socket>, Errno> {
        let kernel = Caller::kernel(self.task.fs(), Creds::root(ALL_CAPABILITIES));
        let at = ops::mknod(&kernel, self.root(), path, mode::SOCKET | 0o777, 0)?;
        ops::chmod(&kernel, &at, 0o777)?;
        let socket = Socket::new(unix::Kind::Datagram, Ucred::default());
        socket.bind_inode(path, at.dentry.inode().clone())?;
        Ok(socket)
    }

    /// Writes a setting.
    fn set(&self, path: &[u8], value: &[u8]) -> Result<(), Errno> {
        let full = [b"/proc/sys/", path].concat();
        let file = ops::open(&self.caller(), self.root(), &full, flags::WRONLY, 0, Resolve::default())?;
        file.write(Some(&self.task), &mut Source::kernel(value)).map(|_| ())
    }

    /// Makes a path read-only, with what is mounted below it left as it is.
    fn close(&self, path: &[u8]) -> Result<(), Errno> {
        let at = match self.find(path) {
            Err(Errno::ENOENT) => return Ok(()),
            found => found?,
        };
        self.task.fs().namespace().bind(&at, at.clone(), true)?;
        let mount = self.find(path)?.mount;
        let what = Attributes { set: MountFlags::READ_ONLY, clear: MountFlags::empty(), how: None };
        self.task.fs().namespace().set_attributes(&PathRef::root_of(&mount), false, &what)
    }

    /// Covers a path.
    fn mask(&self, path: &[u8]) -> Result<(), Errno> {
        let at = match self.find(path) {
            Err(Errno::ENOENT) => return Ok(()),
            found => found?,
        };
        let namespace = self.task.fs().namespace();
        if at.dentry.inode().kind() == FileType::Directory {
            let (fs, root) = Tree::tmpfs(self.kernel.memory.clone(), &Tmpfs::default());
            let owner = self.task.creds().user_ns.clone();
            return namespace
                .attach(at, &Mount::of(fs, root, b"tmpfs", MountFlags::READ_ONLY | MountFlags::RELATIME, owner));
        }
        match self.find(b"/dev/null") {
            // As with runc: without one, nothing is covered.
            Err(Errno::ENOENT) => Ok(()),
            null => namespace.bind(&null?, at, false),
        }
    }
}

/// Whether a mount becomes read-only only when all are there: things are made in it.
fn is_late(wanted: &Wanted) -> bool {
    let memory = matches!(&wanted.source, MountSource::System { kind, .. } if kind == "tmpfs");
    wanted.options.flags & ms::RDONLY != 0 && (memory || wanted.destination == b"/dev")
}

/// A task that never runs, in these namespaces.
fn nobody(
    kernel: &Arc<Kernel>,
    fs: Arc<FsContext>,
    creds: Creds,
    namespaces: &Arc<Namespaces>,
    cgroup: &Arc<Cgroup>,
) -> Arc<Task> {
    let group = Group::new(0, namespaces.pid_for_children.clone(), default_limits(), cgroup.clone());
    Task::new(Parts {
        kernel: kernel.clone(),
        tid: 0,
        group,
        files: Arc::new(FdTable::default()),
        fs,
        creds: Arc::new(creds),
        namespaces: namespaces.clone(),
        mm: AddressSpace::new(0, 0),
        actions: Arc::new(Mutex::new(Actions::ignoring(0))),
        comm: b"init".to_vec(),
        mask: 0,
        begin: Begin::Clone { set_tid: 0, number: 0 },
    })
}

/// Puts a container's tree together, and makes the namespaces it begins in. `around`: the namespaces that it is made in; of those it gets
/// `own` kinds (`CLONE_NEW*`) for itself.
pub fn build_root(
    kernel: &Arc<Kernel>,
    files: &Files,
    container: &Container,
    cgroup: &Arc<Cgroup>,
    (around, own): (&Namespaces, u64),
) -> Result<Ground, RootError> {
    let export = &container.root.export;
    let failed = |error| RootError::Export { name: export.clone(), error };
    let (lower_fs, lower) = attach(kernel, files, export, container.root.access).map_err(failed)?;
    if lower.inode().kind() != FileType::Directory {
        return Err(step("root")(Errno::ENOTDIR));
    }
    // Mount points are made before the root becomes read-only.
    let mut top = MountFlags::RELATIME;
    let root = if container.root.overlay {
        let inode: InodeRef = lower.inode().clone();
        let (fs, root) = Tree::overlay(kernel.memory.clone(), OVERLAY_MAX, inode).map_err(step("root"))?;
        Mount::new(fs, root, b"overlay", top)
    } else {
        Mount::new(lower_fs, lower, b"root", top)
    };
    let (fs, creds, namespaces) = match &container.user_namespace {
        None => {
            let creds = Creds::root(ALL_CAPABILITIES);
            let others = around.unshare(own, &creds, &around.pid_for_children);
            (FsContext::new_root(root.clone()), creds, others)
        }
        Some(maps) => {
            let creds = user_namespace(maps).map_err(step("user namespace"))?;
            let others = around.unshare(own, &creds, &around.pid_for_children);
            let base = Base::new(Kind::Mount, &creds).map_err(step("mount namespace"))?;
            (FsContext::new_root_in(root.clone(), base), creds, others)
        }
    };
    let namespaces = Arc::new(namespaces.map_err(step("namespaces"))?);
    let user_ns = creds.user_ns.clone();
    let builder = Builder { kernel, files, task: nobody(kernel, Arc::new(fs), creds, &namespaces, cgroup) };
    for m in &container.mounts {
        builder.check_place(m)?;
        builder.mount(m).map_err(|error| RootError::Mount {
            from: shown(&m.named),
            destination: shown(&m.destination),
            flags: m.options.flags,
            data: match &m.source {
                MountSource::System { data, .. } | MountSource::Overlay { data, .. } => data.clone(),
                _ => String::new(),
            },
            error,
        })?;
    }
    builder.devices(container)?;
    if !container.plain {
        // As runc: a working directory that is not there is made. Whether it can be entered is told later.
        let _ = builder.directories(&[&container.process.cwd, &b"/"[..]].concat());
    }
    let notify = container.notify.as_ref().map(|path| builder.socket(path).map_err(step(shown(path)))).transpose()?;
    for m in container.mounts.iter().filter(|m| is_late(m)) {
        let at = builder.find(&m.destination).map_err(step(format!("remount {}", shown(&m.destination))))?;
        at.mount.set_flags(at.mount.flags() | MountFlags::READ_ONLY);
    }
    top.set(MountFlags::READ_ONLY, container.root.read_only);
    root.set_flags(top);
    if container.propagation != 0 {
        builder.propagate(&root, container.propagation).map_err(step("rootfsPropagation"))?;
    }
    for (path, value) in &container.sysctl {
        builder.set(path, value).map_err(step(format!("open /proc/sys/{}", shown(path))))?;
    }
    for path in &container.read_only_paths {
        builder.close(path).map_err(step(format!("can't make {:?} read-only", shown(path))))?;
    }
    for path in &container.masked {
        builder.mask(path).map_err(step(format!("can't mask path {:?}", shown(path))))?;
    }
    let fs = builder.task.fs().duplicate();
    drop(builder);
    fs.set_root(PathRef::root_of(&root));
    fs.set_cwd(PathRef::root_of(&root));
    fs.set_umask(container.process.umask.unwrap_or(0o022));
    Ok(Ground { fs, namespaces, user_ns, notify })
}
