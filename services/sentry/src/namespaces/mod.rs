//! Namespaces, `namespaces(7)`: what groups of tasks see as the whole system's.
//!
//! Owned here: the kinds but for the mount namespace (`vfs::mount`), which of them a task is in ([`Namespaces`]; its user namespace
//! is part of its credentials, its mount namespace of its [`FsContext`](crate::vfs::FsContext)), their files (`nsfs`), and how a
//! task comes into new ones. Never here: what the things in a namespace do. Called by `clone`, `unshare`, `setns`, `/proc` and by
//! whatever shows an id.

pub mod enter;
pub mod net;
pub mod nsfs;
pub mod pid;
pub mod user;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::errno::Errno;
use crate::filesystems::mqueue::MqueueFs;
use crate::ipc::sysv::SysV;
use crate::sync::RwLock;
use crate::task::Creds;
use crate::task::clone::flag;
use crate::vfs::mount::MountNamespace;
pub use net::NetNamespace;
pub use pid::PidNamespace;
pub use user::{Counted, UserNamespace};

/// The kinds of namespaces, in the order of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Cgroup,
    Ipc,
    Mount,
    Net,
    Pid,
    User,
    Uts,
}

impl Kind {
    /// How many there are.
    pub const COUNT: usize = 7;
    /// All.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Cgroup, Self::Ipc, Self::Mount, Self::Net, Self::Pid, Self::User, Self::Uts];

    /// Its flag of `clone(2)`.
    pub fn flag(self) -> u64 {
        match self {
            Self::Cgroup => flag::NEWCGROUP,
            Self::Ipc => flag::NEWIPC,
            Self::Mount => flag::NEWNS,
            Self::Net => flag::NEWNET,
            Self::Pid => flag::NEWPID,
            Self::User => flag::NEWUSER,
            Self::Uts => flag::NEWUTS,
        }
    }

    /// Its name, as in `/proc/PID/ns`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Ipc => "ipc",
            Self::Mount => "mnt",
            Self::Net => "net",
            Self::Pid => "pid",
            Self::User => "user",
            Self::Uts => "uts",
        }
    }

    /// The number of its first namespace. Every kernel's first has the same where that is fixed, the host's, too: only a namespace that
    /// Linux would have left the container in has it, not one that the container is to have for itself.
    pub fn first_id(self) -> u64 {
        let fixed = match self {
            Self::Ipc => 0xefff_ffff,
            Self::Uts => 0xefff_fffe,
            Self::User => 0xefff_fffd,
            Self::Pid => 0xefff_fffc,
            Self::Cgroup => 0xefff_fffb,
            Self::Mount | Self::Net => return next_id(),
        };
        if OWN.load(Ordering::Relaxed) & self.flag() == 0 { fixed } else { next_id() }
    }
}

/// Linux gives numbers from here upward, to `u32::MAX`, the lowest that is free first.
const DYNAMIC: u64 = 0xf000_0000;
/// How many it may have in use before they come near ours.
const HOSTS: u64 = 1 << 20;
/// How many a sandbox may use before its numbers have more bits than Linux's.
const OURS: u64 = 1 << 24;

static NEXT: AtomicU64 = AtomicU64::new(DYNAMIC);
/// Kinds of which the first namespace is not numbered as every kernel's first.
static OWN: AtomicU64 = AtomicU64::new(0);

/// Says which namespaces (`CLONE_NEW*`) the sandbox begins in as its own, and draws where its numbers begin, so that no two sandboxes' are the
/// same by all likelihood, and none is the host's. Called once, before any is made.
pub fn number(own: u64) -> Result<(), getrandom::Error> {
    let mut drawn = [0; 4];
    getrandom::fill(&mut drawn)?;
    let room = u64::from(u32::MAX) - DYNAMIC - HOSTS - OURS;
    let from = DYNAMIC + HOSTS + u64::from(u32::from_le_bytes(drawn)) % room;
    NEXT.store(from, Ordering::Relaxed);
    OWN.store(own, Ordering::Relaxed);
    Ok(())
}

/// A number that no other namespace has.
pub fn next_id() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What a namespace is besides what is in it.
#[derive(Debug)]
pub struct Base {
    /// Its number.
    pub id: u64,
    /// The user namespace that it belongs to: who is capable there is capable here.
    pub owner: Arc<UserNamespace>,
    _counted: Counted,
}

impl Base {
    /// Of the first of a kind.
    pub fn first(kind: Kind) -> Self {
        Self { id: kind.first_id(), owner: UserNamespace::initial(), _counted: Counted::default() }
    }

    /// Of one that cannot be entered: it counts for nobody.
    pub fn nameless(owner: &Arc<UserNamespace>) -> Self {
        Self { id: next_id(), owner: owner.clone(), _counted: Counted::default() }
    }

    /// Of one that someone makes, counted as his; ENOSPC.
    pub fn new(kind: Kind, creds: &Creds) -> Result<Self, Errno> {
        let counted = Counted::new(&creds.user_ns, creds.euid, kind)?;
        Ok(Self { id: next_id(), owner: creds.user_ns.clone(), _counted: counted })
    }
}

/// `uts_namespaces(7)`: host and domain name.
pub struct UtsNamespace {
    /// Whose it is.
    pub base: Base,
    /// Both names (`sethostname(2)`).
    pub names: RwLock<(Vec<u8>, Vec<u8>)>,
}

/// `ipc_namespaces(7)`: what is found by keys and names of its own. It ends with the last that holds it, and what is in it, too.
pub struct IpcNamespace {
    /// Whose it is.
    pub base: Base,
    /// System V IPC.
    pub sysv: SysV,
    /// POSIX message queues.
    pub mqueues: Arc<MqueueFs>,
}

impl Drop for IpcNamespace {
    fn drop(&mut self) {
        self.mqueues.close();
    }
}

/// `cgroup_namespaces(7)`. All of a sandbox is in one cgroup, which is the root of every such namespace: only that it is another can
/// be seen.
pub struct CgroupNamespace {
    /// Whose it is.
    pub base: Base,
}

/// The namespaces that a task is in, but for its user and mount namespace.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Namespaces {
    pub uts: Arc<UtsNamespace>,
    pub ipc: Arc<IpcNamespace>,
    pub cgroup: Arc<CgroupNamespace>,
    pub net: Arc<NetNamespace>,
    /// The one that its children are made in; its own is that of its process.
    pub pid_for_children: Arc<PidNamespace>,
}

impl Namespaces {
    /// Those that a sandbox begins in.
    pub fn first() -> Self {
        let names = RwLock::new((b"cofferdam".to_vec(), b"(none)".to_vec()));
        Self {
            uts: Arc::new(UtsNamespace { base: Base::first(Kind::Uts), names }),
            ipc: Arc::new(IpcNamespace {
                base: Base::first(Kind::Ipc),
                sysv: SysV::default(),
                mqueues: MqueueFs::new((0, 0)),
            }),
            cgroup: Arc::new(CgroupNamespace { base: Base::first(Kind::Cgroup) }),
            net: {
                // Runtimes take it up in the network namespaces that they make.
                let net = NetNamespace::new(Base::first(Kind::Net));
                net.loopback.set_up(true);
                net
            },
            pid_for_children: PidNamespace::first(),
        }
    }

    /// The same, but new ones of the kinds in `flags`, which belong to the user namespace of `creds`. `pid`: the PID namespace that
    /// the caller is in.
    pub fn unshare(&self, flags: u64, creds: &Creds, pid: &Arc<PidNamespace>) -> Result<Self, Errno> {
        let mut new = self.clone();
        let wanted = |kind: Kind| flags & kind.flag() != 0;
        if wanted(Kind::Uts) {
            let names = RwLock::new(self.uts.names.read().clone());
            new.uts = Arc::new(UtsNamespace { base: Base::new(Kind::Uts, creds)?, names });
        }
        if wanted(Kind::Ipc) {
            let mqueues = MqueueFs::new((creds.fsuid, creds.fsgid));
            let base = Base::new(Kind::Ipc, creds)?;
            new.ipc = Arc::new(IpcNamespace { base, sysv: self.ipc.sysv.another(), mqueues });
        }
        if wanted(Kind::Pid) {
            // One whose children are to be elsewhere already has no say over where.
            if !Arc::ptr_eq(pid, &self.pid_for_children) {
                return Err(Errno::EINVAL);
            }
            new.pid_for_children = pid.within(creds)?;
        }
        if wanted(Kind::Cgroup) {
            new.cgroup = Arc::new(CgroupNamespace { base: Base::new(Kind::Cgroup, creds)? });
        }
        if wanted(Kind::Net) {
            new.net = NetNamespace::new(Base::new(Kind::Net, creds)?);
        }
        Ok(new)
    }
}

/// A namespace of any kind.
#[derive(Clone)]
#[allow(missing_docs)]
pub enum Namespace {
    Cgroup(Arc<CgroupNamespace>),
    Ipc(Arc<IpcNamespace>),
    Mount(Arc<MountNamespace>),
    Net(Arc<NetNamespace>),
    Pid(Arc<PidNamespace>),
    User(Arc<UserNamespace>),
    Uts(Arc<UtsNamespace>),
}

impl Namespace {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Cgroup(_) => Kind::Cgroup,
            Self::Ipc(_) => Kind::Ipc,
            Self::Mount(_) => Kind::Mount,
            Self::Net(_) => Kind::Net,
            Self::Pid(_) => Kind::Pid,
            Self::User(_) => Kind::User,
            Self::Uts(_) => Kind::Uts,
        }
    }

    /// Its number.
    pub fn id(&self) -> u64 {
        match self {
            Self::Cgroup(n) => n.base.id,
            Self::Ipc(n) => n.base.id,
            Self::Mount(n) => n.base.id,
            Self::Net(n) => n.base.id,
            Self::Pid(n) => n.base.id,
            Self::User(n) => n.id,
            Self::Uts(n) => n.base.id,
        }
    }

    /// The user namespace that it belongs to: a user namespace's is its parent. `None` of the first user namespace.
    pub fn owner(&self) -> Option<Arc<UserNamespace>> {
        match self {
            Self::Cgroup(n) => Some(n.base.owner.clone()),
            Self::Ipc(n) => Some(n.base.owner.clone()),
            Self::Mount(n) => Some(n.base.owner.clone()),
            Self::Net(n) => Some(n.base.owner.clone()),
            Self::Pid(n) => Some(n.base.owner.clone()),
            Self::User(n) => n.parent.clone(),
            Self::Uts(n) => Some(n.base.owner.clone()),
        }
    }

    /// As a link to it shows it: `uts:[4026531838]`.
    pub fn label(&self) -> String {
        format!("{}:[{}]", self.kind().name(), self.id())
    }
}
