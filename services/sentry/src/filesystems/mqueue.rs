//! The `mqueue` file system: the names of POSIX message queues, who owns them, and what each user's queues may hold.
//!
//! One for each IPC namespace; all mounts of it show the same. What is in a queue is `ipc::mqueue`'s.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use crate::errno::Errno;
use crate::filesystems::anon::DirectoryFile;
use crate::ipc::mqueue::{HARD_MESSAGES, HARD_SIZE, Limits, Queue, QueueFile};
use crate::sync::Mutex;
use crate::task::Task;
use crate::task::creds::cap;
use crate::task::group::rlimit;
use crate::vfs::caller::Caller;
use crate::vfs::dentry::Dentry;
use crate::vfs::file::FileOps;
use crate::vfs::inode::{
    Attr, Common, DirEntry, FileSystem, FileType, Inode, InodeRef, NewNode, OpenHow, SetAttr, StatFs, anonymous_dev,
    mode,
};
use crate::vfs::mount::{Mount, MountFlags, PathRef};

/// `MQUEUE_MAGIC`.
const MAGIC: u64 = 0x1980_0202;
/// `st_size` of a queue (`FILENT_SIZE`).
const QUEUE_SIZE: u64 = 80;
/// What a name adds to the size of the directory (`DIRENT_SIZE`).
const NAME_SIZE: u64 = 20;
/// What the kernel counts for a message beside its bytes (`struct msg_msg` and its pointer).
const MESSAGE_COST: u64 = 48;
/// And for a node of the tree of priorities.
const PRIORITY_COST: u64 = 48;

/// What a user's queues may hold unless told otherwise (`RLIMIT_MSGQUEUE`).
const LIMIT: u64 = 819_200;

/// The queues by name.
pub struct MqueueFs {
    me: Weak<MqueueFs>,
    dev: u64,
    names: Mutex<BTreeMap<Vec<u8>, Arc<Node>>>,
    /// Bytes that the queues of each user may come to hold (`RLIMIT_MSGQUEUE`).
    users: Mutex<HashMap<u32, u64>>,
    /// Who owns its root: who made the namespace.
    owner: (u32, u32),
    /// What may be made.
    pub limits: Limits,
    /// Its mount in no tree, where the calls find it; it holds this.
    root: Mutex<Option<Arc<Mount>>>,
}

/// Who makes a queue, and what that one may.
pub struct Maker {
    /// Real user.
    pub user: u32,
    /// Beyond the limits for everybody (CAP_SYS_RESOURCE).
    pub privileged: bool,
    /// `RLIMIT_MSGQUEUE`.
    pub limit: u64,
}

impl Maker {
    /// A task.
    pub fn of(task: &Task) -> Self {
        let creds = task.creds();
        let limit = task.group().limit(rlimit::MSGQUEUE).soft;
        Self { user: creds.ruid, privileged: creds.capable(cap::SYS_RESOURCE), limit }
    }
}

/// Its root, or a queue.
struct Node {
    fs: Weak<MqueueFs>,
    common: Common,
    kind: FileType,
    attr: Mutex<Attr>,
    queue: Option<Arc<Queue>>,
    /// Whose account it is on, with how much.
    account: (u32, u64),
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(fs) = self.fs.upgrade()
            && let Some(used) = fs.users.lock().get_mut(&self.account.0)
        {
            *used = used.saturating_sub(self.account.1);
        }
    }
}

impl FileSystem for MqueueFs {
    fn name(&self) -> &'static str {
        "mqueue"
    }
    fn dev(&self) -> u64 {
        self.dev
    }
    fn statfs(&self) -> Result<StatFs, Errno> {
        Ok(StatFs { kind: MAGIC, block_size: 4096, ..StatFs::default() })
    }
}

impl MqueueFs {
    /// Without queues; its root belongs to this user and group.
    pub fn new(owner: (u32, u32)) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            dev: anonymous_dev(),
            names: Mutex::default(),
            users: Mutex::default(),
            owner,
            limits: Limits::default(),
            root: Mutex::default(),
        })
    }

    /// Its namespace has ended: it stays as long as it is mounted.
    pub fn close(&self) {
        let root = self.root.lock().take();
        drop(root);
    }

    fn mount(&self) -> Arc<Mount> {
        let make = || {
            let new = NewNode { mode: mode::DIRECTORY | 0o1777, uid: self.owner.0, gid: self.owner.1, rdev: 0 };
            let root = self.node(&new, None, (0, 0));
            let fs: Arc<dyn FileSystem> = match self.me.upgrade() {
                Some(fs) => fs,
                None => crate::filesystems::anon::Anonymous::empty(),
            };
            Mount::new(fs, Dentry::root(root), b"mqueue", MountFlags::empty())
        };
        self.root.lock().get_or_insert_with(make).clone()
    }

    /// Its root directory, to be mounted.
    pub fn root(&self) -> Arc<Dentry> {
        self.mount().root.clone()
    }

    /// Where names begin for the calls.
    pub fn place(&self) -> PathRef {
        PathRef::root_of(&self.mount())
    }

    fn node(&self, new: &NewNode, queue: Option<Arc<Queue>>, account: (u32, u64)) -> Arc<Node> {
        let kind = FileType::of(new.mode);
        let size = if queue.is_some() { QUEUE_SIZE } else { 0 };
        let attr = Attr { size, ..Attr::fresh(self.dev, new) };
        let common = Common::default();
        Arc::new(Node { fs: self.me.clone(), common, kind, attr: Mutex::new(attr), queue, account })
    }

    /// Makes a queue: of most messages and most bytes of one, or as by default. EINVAL beyond the limits, ENOSPC with
    /// too many queues, EMFILE beyond what the user may hold.
    pub fn create(
        &self,
        maker: &Maker,
        name: &[u8],
        new: &NewNode,
        wanted: Option<(i64, i64)>,
    ) -> Result<InodeRef, Errno> {
        let limit = |of: &std::sync::atomic::AtomicUsize| of.load(Ordering::Relaxed);
        let (most, size) = match wanted {
            Some((most, size)) => {
                let (most_max, size_max) = if maker.privileged {
                    (HARD_MESSAGES, HARD_SIZE)
                } else {
                    (limit(&self.limits.messages), limit(&self.limits.size))
                };
                let within = |v: i64, max: usize| usize::try_from(v).ok().filter(|v| *v > 0 && *v <= max);
                (within(most, most_max).ok_or(Errno::EINVAL)?, within(size, size_max).ok_or(Errno::EINVAL)?)
            }
            None => (
                limit(&self.limits.messages_default).min(limit(&self.limits.messages)),
                limit(&self.limits.size_default).min(limit(&self.limits.size)),
            ),
        };
        let mut names = self.names.lock();
        if names.len() >= limit(&self.limits.queues) && !maker.privileged {
            return Err(Errno::ENOSPC);
        }
        let (most64, size64) = (most as u64, size as u64);
        let cost = most64 * size64 + most64 * (MESSAGE_COST + PRIORITY_COST);
        {
            let mut users = self.users.lock();
            let used = users.entry(maker.user).or_insert(0);
            let now = used.checked_add(cost).filter(|n| *n <= maker.limit);
            *used = now.ok_or(Errno::EMFILE)?;
        }
        let node = self.node(new, Some(Queue::new(most, size)), (maker.user, cost));
        names.insert(name.to_vec(), node.clone());
        Ok(node)
    }
}

impl Inode for Node {
    crate::vfs::inode::fields!();

    fn attr(&self) -> Result<Attr, Errno> {
        let mut attr = *self.attr.lock();
        if self.kind == FileType::Directory
            && let Some(fs) = self.fs.upgrade()
        {
            attr.size = fs.names.lock().len() as u64 * NAME_SIZE;
        }
        Ok(attr)
    }

    fn set_attr(&self, set: &SetAttr) -> Result<(), Errno> {
        set.apply(&mut self.attr.lock());
        Ok(())
    }

    fn lookup(&self, _caller: &Caller<'_>, name: &[u8]) -> Result<Option<InodeRef>, Errno> {
        if self.kind != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        let fs = self.fs.upgrade().ok_or(Errno::ENOENT)?;
        let found = fs.names.lock().get(name).cloned();
        Ok(found.map(|node| node as InodeRef))
    }

    fn entries(&self, _caller: &Caller<'_>) -> Result<Vec<DirEntry>, Errno> {
        if self.kind != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        let fs = self.fs.upgrade().ok_or(Errno::ENOENT)?;
        let entry = |(name, node): (&Vec<u8>, &Arc<Node>)| DirEntry {
            name: name.clone(),
            ino: node.attr.lock().ino,
            kind: FileType::Regular,
        };
        Ok(fs.names.lock().iter().map(entry).collect())
    }

    /// By `open(2)` or `mknod(2)` on a mounted file system.
    fn create(&self, name: &[u8], new: &NewNode) -> Result<InodeRef, Errno> {
        let fs = self.fs.upgrade().ok_or(Errno::ENOENT)?;
        if FileType::of(new.mode) != FileType::Regular {
            return Err(Errno::EPERM);
        }
        fs.create(&Maker { user: new.uid, privileged: false, limit: LIMIT }, name, new, None)
    }

    fn unlink(&self, name: &[u8], _directory: bool) -> Result<(), Errno> {
        let fs = self.fs.upgrade().ok_or(Errno::ENOENT)?;
        let gone = fs.names.lock().remove(name).ok_or(Errno::ENOENT)?;
        gone.attr.lock().nlink = 0;
        Ok(())
    }

    fn open(self: Arc<Self>, _caller: &Caller<'_>, _how: OpenHow) -> Result<Box<dyn FileOps>, Errno> {
        match &self.queue {
            Some(queue) => Ok(Box::new(QueueFile(queue.clone()))),
            None => Ok(Box::new(DirectoryFile)),
        }
    }
}
