//! How tasks come into namespaces: new ones by `clone(2)` and `unshare(2)`, others' by `setns(2)`.
//!
//! Each is worked out before anything is changed, so that a call that fails changes nothing.

use std::sync::Arc;

use super::{Base, Kind, Namespace, Namespaces, UserNamespace};
use crate::errno::Errno;
use crate::task::clone::flag;
use crate::task::creds::cap;
use crate::task::{Creds, Task};
use crate::vfs::FsContext;
use crate::vfs::mount::MountNamespace;

/// The kinds that [`Namespaces`] and the mount tree are of.
const OTHERS: u64 = flag::NAMESPACES & !flag::NEWUSER;

/// Credentials and namespaces for who goes on with new ones of the kinds in `flags`. `fs` is his own already: it gets the new mount
/// namespace.
pub fn unshared(task: &Task, flags: u64, fs: &FsContext) -> Result<(Arc<Creds>, Arc<Namespaces>), Errno> {
    let mut creds = task.creds();
    if flags & flag::NEWUSER != 0 {
        // Else a way out: the new root could leave a directory that was its root before.
        if fs.is_chrooted() {
            return Err(Errno::EPERM);
        }
        let mut new = Creds::clone(&creds);
        UserNamespace::enter_new(&mut new)?;
        creds = Arc::new(new);
    }
    let old = task.namespaces();
    if flags & OTHERS == 0 {
        return Ok((creds, old));
    }
    if !creds.has(cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    // As a kernel without CONFIG_TIME_NS.
    if flags & flag::NEWTIME != 0 {
        return Err(Errno::EINVAL);
    }
    let mounts = if flags & flag::NEWNS != 0 { Some(Base::new(Kind::Mount, &creds)?) } else { None };
    let new = old.unshare(flags, &creds, &task.group().pid_ns)?;
    if let Some(base) = mounts {
        fs.unshare_mounts(base)?;
    }
    Ok((creds, Arc::new(new)))
}

/// What a `setns(2)` comes to.
pub struct Entry<'a> {
    task: &'a Arc<Task>,
    creds: Creds,
    namespaces: Namespaces,
    mounts: Option<Arc<MountNamespace>>,
    user: bool,
}

impl<'a> Entry<'a> {
    /// Of a task, into nothing yet.
    pub fn new(task: &'a Arc<Task>) -> Self {
        let (creds, namespaces) = (Creds::clone(&task.creds()), Namespaces::clone(&task.namespaces()));
        Self { task, creds, namespaces, mounts: None, user: false }
    }

    /// Adds a namespace. EPERM, or EINVAL for one that the task cannot go into as it is.
    pub fn add(&mut self, namespace: &Namespace) -> Result<(), Errno> {
        let admin = |creds: &Creds| match namespace.owner() {
            Some(owner) if creds.capable_in(&owner, cap::SYS_ADMIN) && creds.has(cap::SYS_ADMIN) => Ok(()),
            _ => Err(Errno::EPERM),
        };
        // The caller's own reference is the second.
        let shares_fs = || Arc::strong_count(&self.task.fs()) > 2;
        match namespace {
            Namespace::User(ns) => {
                if *ns == self.creds.user_ns || self.task.group().tasks().len() > 1 || shares_fs() {
                    return Err(Errno::EINVAL);
                }
                if !self.creds.capable_in(ns, cap::SYS_ADMIN) {
                    return Err(Errno::EPERM);
                }
                self.creds.enter(ns.clone());
                self.user = true;
            }
            Namespace::Mount(ns) => {
                admin(&self.creds)?;
                if !self.creds.has(cap::SYS_CHROOT) {
                    return Err(Errno::EPERM);
                }
                if shares_fs() {
                    return Err(Errno::EINVAL);
                }
                self.mounts = Some(ns.clone());
            }
            Namespace::Cgroup(ns) => {
                admin(&self.creds)?;
                self.namespaces.cgroup = ns.clone();
            }
            Namespace::Ipc(ns) => {
                admin(&self.creds)?;
                self.namespaces.ipc = ns.clone();
            }
            Namespace::Net(ns) => {
                admin(&self.creds)?;
                self.namespaces.net = ns.clone();
            }
            Namespace::Pid(ns) => {
                admin(&self.creds)?;
                if !ns.is_within(&self.task.group().pid_ns) {
                    return Err(Errno::EINVAL);
                }
                self.namespaces.pid_for_children = ns.clone();
            }
            Namespace::Uts(ns) => {
                admin(&self.creds)?;
                self.namespaces.uts = ns.clone();
            }
        }
        Ok(())
    }

    /// Goes in.
    pub fn commit(self) {
        let task = self.task;
        if !Arc::ptr_eq(&task.ipc(), &self.namespaces.ipc) {
            task.ipc().sysv.exit(task.pid());
            crate::ipc::sysv::shm::exit(&task.ipc(), task.pid());
        }
        task.set_namespaces(self.namespaces);
        if self.user {
            task.set_creds(self.creds);
        }
        if let Some(mounts) = self.mounts {
            task.fs().enter(mounts);
        }
    }
}
