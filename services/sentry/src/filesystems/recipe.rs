//! File systems by name and parameters: what `mount(2)` and `fsconfig(2)` ask for, and its making.
//!
//! Owned here: which file systems can be mounted from inside, which parameters they take, who may make them. Never here: where they
//! are mounted.

use std::sync::Arc;

use crate::errno::Errno;
use crate::filesystems::overlay::{self, Bad, Overlay};
use crate::filesystems::tree::{Tmpfs, Tree};
use crate::filesystems::{cgroup, devpts, proc, root, sys};
use crate::memory::store::PAGE;
use crate::namespaces::UserNamespace;
use crate::task::Task;
use crate::task::creds::cap;
use crate::vfs::mount::{Mount, MountFlags, check_room};

/// What a parameter is set to.
pub enum Value {
    /// Nothing: that it is there says it all.
    Flag,
    /// A text.
    Text(Vec<u8>),
    /// Bytes, a path, an open file.
    Other,
}

/// What became of a parameter.
enum Taken {
    Yes,
    Unknown,
    /// It cannot be that.
    Bad,
    /// It takes no value.
    Unexpected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tmpfs,
    Ramfs,
    Proc,
    Sysfs,
    Cgroup2,
    Devpts,
    Devtmpfs,
    Mqueue,
    Overlay,
    /// Not to be made from inside.
    Other,
}

impl Kind {
    fn of(name: &[u8]) -> Self {
        match name {
            b"tmpfs" => Self::Tmpfs,
            b"ramfs" => Self::Ramfs,
            b"proc" => Self::Proc,
            b"sysfs" => Self::Sysfs,
            b"cgroup2" => Self::Cgroup2,
            b"devpts" => Self::Devpts,
            b"devtmpfs" => Self::Devtmpfs,
            b"mqueue" => Self::Mqueue,
            b"overlay" => Self::Overlay,
            _ => Self::Other,
        }
    }
}

/// A file system that is asked for.
pub struct Recipe {
    kind: Kind,
    name: Vec<u8>,
    source: Option<Vec<u8>>,
    /// Whether it is to be read-only, if that was said.
    pub read_only: Option<bool>,
    tmpfs: Tmpfs,
    /// Its size and inodes as they were said.
    limits: (Option<u64>, Option<u64>),
    owner: (Option<u32>, Option<u32>),
    overlay: overlay::Spec,
    devpts: devpts::Options,
    /// It is there already.
    changes: bool,
}

/// A number with its unit: nothing, k, m, g; or a share of the memory told of, in percent, where that is allowed.
fn size(text: &str, percent: bool) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().last()? {
        b'k' | b'K' => (text.get(..text.len() - 1), 1 << 10),
        b'm' | b'M' => (text.get(..text.len() - 1), 1 << 20),
        b'g' | b'G' => (text.get(..text.len() - 1), 1 << 30),
        b'%' if percent => (text.get(..text.len() - 1), crate::syscalls::system::memory().0 / 100),
        _ => (Some(text), 1),
    };
    digits?.parse::<u64>().ok()?.checked_mul(unit)
}

impl Recipe {
    /// A file system of that type; ENODEV if there is none.
    pub fn new(kind: &[u8]) -> Result<Self, Errno> {
        match Kind::of(kind) {
            Kind::Other => Err(Errno::ENODEV),
            _ => Ok(Self { changes: false, ..Self::of(kind) }),
        }
    }

    /// What one that is there already is to become.
    pub fn of(kind: &[u8]) -> Self {
        let tmpfs = match Kind::of(kind) {
            Kind::Ramfs => Tmpfs { mode: 0o755, ramfs: true, ..Tmpfs::default() },
            _ => Tmpfs::default(),
        };
        Self {
            kind: Kind::of(kind),
            name: kind.to_vec(),
            source: None,
            read_only: None,
            tmpfs,
            limits: (None, None),
            owner: (None, None),
            overlay: overlay::Spec::default(),
            devpts: devpts::Options::default(),
            changes: true,
        }
    }

    /// Says what it is to be called in `/proc/mounts`.
    pub fn name(&mut self, source: Vec<u8>) {
        self.source = Some(source);
    }

    /// Of an overlay: what its layers may be.
    pub fn give(&mut self, layers: Vec<overlay::Given>) {
        self.overlay.given = Some(layers);
    }

    /// Sets parameters as `mount(2)` has them, with commas between.
    pub fn set_all(&mut self, task: &Arc<Task>, options: &[u8]) -> Result<(), Errno> {
        for o in overlay::split(options, b',').iter().filter(|o| !o.is_empty()) {
            let (key, value) = match o.iter().position(|b| *b == b'=') {
                Some(0) => continue,
                Some(at) => (o.get(..at), Value::Text(o.get(at + 1..).unwrap_or_default().to_vec())),
                None => (Some(o.as_slice()), Value::Flag),
            };
            self.set(task, key.unwrap_or_default(), &value, &mut |_| ())?;
        }
        Ok(())
    }

    /// Sets a parameter. EINVAL for one that it has not or that cannot be so; `log` is told why.
    pub fn set(
        &mut self,
        task: &Arc<Task>,
        key: &[u8],
        value: &Value,
        log: &mut dyn FnMut(String),
    ) -> Result<(), Errno> {
        match key {
            b"ro" | b"rw" => {
                self.read_only = Some(key == b"ro");
                return Ok(());
            }
            // Nothing here is written later than at once, and locks are not mandatory.
            b"sync" | b"async" | b"dirsync" | b"lazytime" | b"nolazytime" | b"mand" | b"nomand" => return Ok(()),
            _ => {}
        }
        let shown = String::from_utf8_lossy(key);
        let taken = match (key, value) {
            (b"source", Value::Text(_)) if self.source.is_some() => {
                log(String::from("e Multiple sources"));
                return Err(Errno::EINVAL);
            }
            (b"source", Value::Text(text)) => {
                self.source = Some(text.clone());
                return Ok(());
            }
            (b"source", _) => {
                log(String::from("e Non-string source"));
                return Err(Errno::EINVAL);
            }
            _ => self.take(task, key, value, log)?,
        };
        let what = match taken {
            Taken::Yes => return Ok(()),
            Taken::Unknown => "Unknown parameter",
            Taken::Bad => "Bad value for",
            Taken::Unexpected => "Unexpected value for",
        };
        let message = format!("e {}: {what} '{shown}'", String::from_utf8_lossy(&self.name));
        // Of ids it is said by those that read them and by those that read parameters.
        if self.kind == Kind::Tmpfs && matches!(key, b"uid" | b"gid") {
            log(message.clone());
        }
        log(message);
        Err(Errno::EINVAL)
    }

    fn take(
        &mut self,
        task: &Arc<Task>,
        key: &[u8],
        value: &Value,
        log: &mut dyn FnMut(String),
    ) -> Result<Taken, Errno> {
        if self.kind == Kind::Overlay && self.changes {
            log(String::from("e overlay: No changes allowed in reconfigure"));
            return Err(Errno::EINVAL);
        }
        if self.kind == Kind::Overlay {
            let text = match value {
                Value::Text(t) => Some(t.as_slice()),
                Value::Flag => None,
                Value::Other => return Ok(Taken::Bad),
            };
            return match self.overlay.set(task, key, text, log) {
                None => Ok(Taken::Unknown),
                Some(Ok(())) => Ok(Taken::Yes),
                Some(Err(Bad::Value)) => Ok(Taken::Bad),
                Some(Err(Bad::Is(e))) => Err(e),
            };
        }
        let text = match value {
            Value::Text(t) if !t.is_empty() => std::str::from_utf8(t).ok(),
            _ => None,
        };
        let flag = if matches!(value, Value::Flag) { Taken::Yes } else { Taken::Unexpected };
        let checked = |ok: Option<()>| if ok.is_some() { Taken::Yes } else { Taken::Bad };
        let number = || text.and_then(|t| t.parse::<u32>().ok());
        let octal = || text.and_then(|t| u32::from_str_radix(t, 8).ok()).map(|m| m & 0o7777);
        let (uid, gid) = (|n| task.creds().user_ns.kernel_uid(n), |n| task.creds().user_ns.kernel_gid(n));
        Ok(match (self.kind, key) {
            (Kind::Tmpfs | Kind::Devtmpfs, _) => return Ok(self.take_tmpfs(task, key, text, flag)),
            (Kind::Ramfs, b"mode") => checked(octal().map(|m| self.tmpfs.mode = m)),
            // What else is said is passed over, as on Linux.
            (Kind::Ramfs, _) => Taken::Yes,
            // Everybody sees all processes; who is in a group sees no more.
            (Kind::Proc, b"hidepid") => checked(text.filter(|t| matches!(*t, "0" | "off")).map(|_| ())),
            (Kind::Proc, b"gid") => checked(number().map(|_| ())),
            // There is one cgroup, to which these make no difference.
            (Kind::Cgroup2, b"nsdelegate" | b"favordynmods" | b"memory_localevents" | b"memory_recursiveprot") => flag,
            // Each is one of its own.
            (Kind::Devpts, b"newinstance") => flag,
            (Kind::Devpts, b"ptmxmode") => checked(octal().map(|m| self.devpts.ptmx_mode = m)),
            (Kind::Devpts, b"mode") => checked(octal().map(|m| self.devpts.mode = m)),
            (Kind::Devpts, b"uid") => checked(number().and_then(uid).map(|n| self.devpts.uid = Some(n))),
            (Kind::Devpts, b"gid") => checked(number().and_then(gid).map(|n| self.devpts.gid = Some(n))),
            (Kind::Devpts, b"max") => checked(number().filter(|n| *n <= devpts::MOST).map(|n| self.devpts.max = n)),
            _ => Taken::Unknown,
        })
    }

    fn take_tmpfs(&mut self, task: &Arc<Task>, key: &[u8], text: Option<&str>, flag: Taken) -> Taken {
        let creds = task.creds();
        let id = || text.and_then(|t| t.parse::<u32>().ok());
        let octal = || text.and_then(|t| u32::from_str_radix(t, 8).ok());
        let size = |percent| text.and_then(|t| size(t, percent));
        let how = &mut self.tmpfs;
        let done = match key {
            b"size" => size(true).and_then(|n| n.checked_next_multiple_of(PAGE)).map(|n| self.limits.0 = Some(n)),
            b"nr_blocks" => size(false).and_then(|n| n.checked_mul(PAGE)).map(|n| self.limits.0 = Some(n)),
            b"nr_inodes" => size(false).map(|n| self.limits.1 = Some(n)),
            b"mode" => octal().map(|m| how.mode = m & 0o7777),
            b"uid" => id().and_then(|u| creds.user_ns.kernel_uid(u)).map(|u| self.owner.0 = Some(u)),
            b"gid" => id().and_then(|g| creds.user_ns.kernel_gid(g)).map(|g| self.owner.1 = Some(g)),
            // Nothing to choose: pages are what they are, numbers of inodes have 64 bits.
            b"huge" => text.filter(|t| *t == "never").map(|_| ()),
            b"inode64" => return flag,
            _ => return Taken::Unknown,
        };
        if done.is_some() { Taken::Yes } else { Taken::Bad }
    }

    /// Whether there is one of the kind already that all share, so that none can be made that is nobody else's.
    pub fn is_shared(&self) -> bool {
        matches!(self.kind, Kind::Sysfs | Kind::Cgroup2 | Kind::Devtmpfs | Kind::Mqueue)
    }

    /// Whether what `mount(2)` says with MS_REMOUNT is looked at.
    pub fn takes_changes(&self) -> bool {
        !matches!(self.kind, Kind::Overlay | Kind::Other)
    }

    /// Changes a file system that is there; `log` is told what is wrong.
    pub fn change(&self, mount: &Mount, log: &mut dyn FnMut(String)) -> Result<(), Errno> {
        let (size, nodes) = self.limits;
        if self.kind == Kind::Tmpfs && (size.is_some() || nodes.is_some()) {
            mount.fs.resize(size, nodes).map_err(|why| {
                log(format!("e tmpfs: {why}"));
                Errno::EINVAL
            })?;
        }
        if let Some(instance) = devpts::Devpts::of(&mount.fs) {
            instance.reconfigure(self.devpts)?;
        }
        self.read_only.map_or(Ok(()), |on| mount.reconfigure(on))
    }

    /// The file system, mounted nowhere yet. EPERM if the caller may not have it.
    pub fn make(&self, task: &Arc<Task>, flags: MountFlags, _log: &mut dyn FnMut(String)) -> Result<Arc<Mount>, Errno> {
        let all = task.namespaces();
        let (creds, pids) = (task.creds(), task.group().pid_ns.clone());
        let owner = match self.kind {
            Kind::Tmpfs | Kind::Ramfs | Kind::Devpts | Kind::Overlay => creds.user_ns.clone(),
            Kind::Proc => pids.base.owner.clone(),
            Kind::Sysfs => all.net.base.owner.clone(),
            Kind::Mqueue => all.ipc.base.owner.clone(),
            Kind::Cgroup2 => all.cgroup.base.owner.clone(),
            Kind::Devtmpfs | Kind::Other => UserNamespace::initial(),
        };
        if !creds.capable_in(&owner, cap::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        check_room(1)?;
        let mut read_only = self.read_only == Some(true);
        let (fs, root): root::Made = match self.kind {
            Kind::Overlay => {
                let (fs, root) = Overlay::mount(&self.overlay, &creds)?;
                read_only |= fs.is_read_only();
                (fs, root)
            }
            Kind::Tmpfs | Kind::Ramfs => {
                let (uid, gid) = (self.owner.0.unwrap_or(creds.fsuid), self.owner.1.unwrap_or(creds.fsgid));
                // 0 is no limit: the largest that there is.
                let limit = |n: Option<u64>| n.filter(|n| *n > 0);
                let (size, nodes) = (limit(self.limits.0), limit(self.limits.1));
                let how = Tmpfs { uid, gid, size, nodes, ..self.tmpfs.clone() };
                let (fs, root) = Tree::tmpfs(task.kernel().memory.clone(), &how);
                (fs, root)
            }
            Kind::Mqueue => (all.ipc.mqueues.clone(), all.ipc.mqueues.root()),
            Kind::Proc => proc::mount(task.kernel(), &pids),
            Kind::Sysfs => sys::mount(task.kernel(), &all.net),
            Kind::Cgroup2 => cgroup::mount(task.kernel(), &task.group().cgroup),
            Kind::Devpts => {
                let fs = devpts::Devpts::new(self.devpts, &creds);
                let root = fs.root();
                (fs, root)
            }
            Kind::Devtmpfs => {
                let (fs, root) = root::devtmpfs(task.kernel())?;
                (fs, root)
            }
            Kind::Other => return Err(Errno::ENODEV),
        };
        let source = self.source.as_deref().filter(|s| !s.is_empty()).unwrap_or(b"none");
        let made = Mount::of(fs, root, source, flags, owner);
        if read_only {
            made.reconfigure(true)?;
        }
        Ok(made)
    }
}

/// EPERM for a mount that would show in a namespace of fewer rights what is hidden there: there must be one of its type that can be
/// seen whole and is no stricter.
pub fn visible(task: &Arc<Task>, new: Arc<Mount>) -> Result<Arc<Mount>, Errno> {
    let namespace = task.fs().namespace();
    if namespace.base.owner.is_initial() || !matches!(new.fs.name(), "proc" | "sysfs") {
        return Ok(new);
    }
    let mounts = namespace.mounts();
    let whole = |m: &Arc<Mount>| {
        let locks = m.flag_locks();
        let read_only = m.all_read_only() || locks.contains(MountFlags::READ_ONLY);
        let covers = |c: &Arc<Mount>| c.is_locked() && c.parent().is_some_and(|p| Arc::ptr_eq(&p.mount, m));
        m.fs.name() == new.fs.name()
            && m.root.parent().is_none()
            && (!read_only || new.flags().contains(MountFlags::READ_ONLY))
            && (locks & MountFlags::TIMES == MountFlags::empty()
                || m.flags() & MountFlags::TIMES == new.flags() & MountFlags::TIMES)
            && !mounts.iter().any(covers)
    };
    if mounts.iter().any(whole) { Ok(new) } else { Err(Errno::EPERM) }
}
