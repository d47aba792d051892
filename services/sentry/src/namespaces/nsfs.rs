//! Files of namespaces: what `/proc/PID/ns/*` leads to, `namespaces(7)` and `ioctl_ns(2)`.
//!
//! Such a file is its namespace: it keeps it alive, and two of them are the same file if they are the same namespace.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use super::{Kind, Namespace, UserNamespace};
use crate::errno::Errno;
use crate::syscalls::{SysResult, UserPtr, done, value};
use crate::task::Task;
use crate::vfs::caller::Caller;
use crate::vfs::dentry::Dentry;
use crate::vfs::file::{File, FileOps, flags};
use crate::vfs::inode::{
    Attr, Common, FileSystem, FileType, Inode, InodeRef, OpenHow, StatFs, anonymous_dev, file_time, mode,
};
use crate::vfs::mount::{Mount, MountFlags, PathRef};

/// `NSFS_MAGIC`.
const MAGIC: u64 = 0x6e73_6673;

struct NsFs {
    dev: u64,
}

impl FileSystem for NsFs {
    fn name(&self) -> &'static str {
        "nsfs"
    }
    fn dev(&self) -> u64 {
        self.dev
    }
    fn statfs(&self) -> Result<StatFs, Errno> {
        Ok(StatFs { kind: MAGIC, block_size: 4096, ..StatFs::default() })
    }
}

/// The mount, in no tree, that all such files belong to.
fn mount() -> &'static (Arc<Mount>, u64) {
    static MOUNT: OnceLock<(Arc<Mount>, u64)> = OnceLock::new();
    MOUNT.get_or_init(|| {
        let fs = Arc::new(NsFs { dev: anonymous_dev() });
        let (dev, root) = (fs.dev, crate::filesystems::anon::Anonymous::empty().root());
        (Mount::new(fs, root, b"nsfs", MountFlags::empty()), dev)
    })
}

struct NsInode {
    common: Common,
    kind: FileType,
    namespace: Namespace,
    made: i64,
}

impl Inode for NsInode {
    crate::vfs::inode::fields!();

    fn attr(&self) -> Result<Attr, Errno> {
        Ok(Attr {
            dev: mount().1,
            ino: self.namespace.id(),
            mode: mode::REGULAR | 0o444,
            nlink: 1,
            block_size: 4096,
            atime: self.made,
            mtime: self.made,
            ctime: self.made,
            ..Attr::default()
        })
    }

    fn open(self: Arc<Self>, _caller: &Caller<'_>, how: OpenHow) -> Result<Box<dyn FileOps>, Errno> {
        if how.write {
            return Err(Errno::EPERM);
        }
        Ok(Box::new(NsFile { namespace: self.namespace.clone() }))
    }
}

/// An open namespace.
pub struct NsFile {
    namespace: Namespace,
}

/// Where a namespace lies in the tree of files: nowhere, but it can be opened and mounted elsewhere.
pub fn place(namespace: Namespace) -> PathRef {
    let label = namespace.label();
    let inode: InodeRef =
        Arc::new(NsInode { common: Common::default(), kind: FileType::Regular, namespace, made: file_time() });
    PathRef { mount: mount().0.clone(), dentry: Dentry::alone(inode, label.as_bytes()) }
}

/// The namespace that a name is of, wherever it is mounted.
pub fn of_dentry(dentry: &Dentry) -> Option<&Namespace> {
    dentry.inode().as_any().downcast_ref::<NsInode>().map(|i| &i.namespace)
}

/// The namespace behind an open file, if there is one.
pub fn of_file(file: &File) -> Option<&Namespace> {
    file.ops_as::<NsFile>().map(|f| &f.namespace)
}

/// A descriptor of a namespace.
pub fn open(task: &Arc<Task>, namespace: Namespace) -> SysResult {
    let ops = NsFile { namespace: namespace.clone() };
    value(task.add_file(File::new(place(namespace), Box::new(ops), flags::RDONLY), true)?)
}

const NS_GET_USERNS: u32 = 0xb701;
const NS_GET_PARENT: u32 = 0xb702;
const NS_GET_NSTYPE: u32 = 0xb703;
const NS_GET_OWNER_UID: u32 = 0xb704;

impl FileOps for NsFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn seekable(&self) -> bool {
        false
    }

    fn ioctl(&self, task: &Arc<Task>, _file: &Arc<File>, request: u32, argument: u64) -> SysResult {
        let creds = task.creds();
        // Only what lies within the caller's own namespace is told of.
        let within = |ns: Option<Arc<UserNamespace>>| ns.filter(|n| n.is_within(&creds.user_ns)).ok_or(Errno::EPERM);
        match request {
            NS_GET_USERNS => open(task, Namespace::User(within(self.namespace.owner())?)),
            NS_GET_PARENT => match &self.namespace {
                Namespace::User(n) => open(task, Namespace::User(within(n.parent.clone())?)),
                Namespace::Pid(n) => {
                    let own = &task.group().pid_ns;
                    let parent = n.parent.clone().filter(|p| p.is_within(own)).ok_or(Errno::EPERM)?;
                    open(task, Namespace::Pid(parent))
                }
                _ => Err(Errno::EINVAL),
            },
            NS_GET_NSTYPE => value(self.namespace.kind().flag()),
            NS_GET_OWNER_UID => match &self.namespace {
                Namespace::User(n) => {
                    UserPtr::<u32>::new(argument).write(task, &creds.shown_uid(n.owner))?;
                    done()
                }
                _ => Err(Errno::EINVAL),
            },
            _ => Err(Errno::ENOTTY),
        }
    }
}

/// The namespace of a kind that a task is in.
pub fn of_task(task: &Task, kind: Kind) -> Namespace {
    let all = task.namespaces();
    match kind {
        Kind::Cgroup => Namespace::Cgroup(all.cgroup.clone()),
        Kind::Ipc => Namespace::Ipc(all.ipc.clone()),
        Kind::Mount => Namespace::Mount(task.fs().namespace()),
        Kind::Net => Namespace::Net(all.net.clone()),
        Kind::Pid => Namespace::Pid(task.group().pid_ns.clone()),
        Kind::User => Namespace::User(task.creds().user_ns.clone()),
        Kind::Uts => Namespace::Uts(all.uts.clone()),
    }
}
