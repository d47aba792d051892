//! Credentials: who a task is, `credentials(7)` and `capabilities(7)`.
//!
//! Ids are those of the first user namespace; capabilities count in the namespace the credentials are of and in those within it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Task;
use crate::errno::Errno;
use crate::namespaces::UserNamespace;
use crate::vfs::landlock::{self, Domain};
use crate::vfs::mount::PathRef;

/// Capability numbers used by the kernel, from `linux/capability.h`.
#[allow(missing_docs, dead_code, reason = "the ABI's table, given whole")]
pub mod cap {
    pub const CHOWN: u32 = 0;
    pub const DAC_OVERRIDE: u32 = 1;
    pub const DAC_READ_SEARCH: u32 = 2;
    pub const FOWNER: u32 = 3;
    pub const FSETID: u32 = 4;
    pub const KILL: u32 = 5;
    pub const SETGID: u32 = 6;
    pub const SETUID: u32 = 7;
    pub const SETPCAP: u32 = 8;
    pub const LINUX_IMMUTABLE: u32 = 9;
    pub const NET_BIND_SERVICE: u32 = 10;
    pub const NET_ADMIN: u32 = 12;
    pub const NET_RAW: u32 = 13;
    pub const IPC_LOCK: u32 = 14;
    pub const IPC_OWNER: u32 = 15;
    pub const SYS_MODULE: u32 = 16;
    pub const SYS_RAWIO: u32 = 17;
    pub const SYS_CHROOT: u32 = 18;
    pub const SYS_PTRACE: u32 = 19;
    pub const SYS_ADMIN: u32 = 21;
    pub const SYS_BOOT: u32 = 22;
    pub const SYS_NICE: u32 = 23;
    pub const SYS_RESOURCE: u32 = 24;
    pub const SYS_TIME: u32 = 25;
    pub const SYS_TTY_CONFIG: u32 = 26;
    pub const MKNOD: u32 = 27;
    pub const AUDIT_CONTROL: u32 = 30;
    pub const SETFCAP: u32 = 31;
    pub const SYSLOG: u32 = 34;
    pub const WAKE_ALARM: u32 = 35;
    /// As a set, those over files (`CAP_FS_SET`): CHOWN to FSETID, LINUX_IMMUTABLE, MKNOD, MAC_OVERRIDE.
    pub const FILES: u64 = 0x1f | 1 << LINUX_IMMUTABLE | 1 << MKNOD | 1 << 32;
    /// The highest capability there is.
    pub const CHECKPOINT_RESTORE: u32 = 40;
    pub const LAST: u32 = 40;
}

/// Whether a task may look into another (`ptrace(2)`, PTRACE_MODE_READ): it is its own process, or all of its ids are the caller's
/// real ones and it has no capability that the caller has not; or the caller has the right.
pub fn may_look_into(task: &Task, other: &Task) -> bool {
    let (me, it) = (task.creds(), other.creds());
    let ids = [it.euid, it.ruid, it.suid].iter().all(|id| *id == me.ruid)
        && [it.egid, it.rgid, it.sgid].iter().all(|id| *id == me.rgid);
    let open = other.group().dumpable.load(Ordering::Relaxed) == 1;
    let fewer = me.user_ns == it.user_ns && it.permitted & !me.permitted == 0;
    let allowed = (ids && open && fewer) || me.capable_in(&it.user_ns, cap::SYS_PTRACE);
    task.pid() == other.pid() || (allowed && landlock::may_look_into(me.domain.as_deref(), it.domain.as_deref()))
}

/// All capabilities there are.
pub const ALL_CAPABILITIES: u64 = (1 << (cap::LAST + 1)) - 1;

/// Secure bits (`capabilities(7)`); the bit above each locks it.
pub mod secure {
    /// Root's programs get no capabilities for being root's.
    pub const NOROOT: u32 = 1;
    /// Changes of user ids change no capabilities.
    pub const NO_SETUID_FIXUP: u32 = 1 << 2;
    /// Capabilities stay when no user id is root's any more (`PR_SET_KEEPCAPS`).
    pub const KEEP_CAPS: u32 = 1 << 4;
    /// Nothing is added to the ambient set.
    pub const NO_CAP_AMBIENT_RAISE: u32 = 1 << 6;
    /// Those that bind only programs which ask for them, with their locks: anyone may set them.
    pub const UNPRIVILEGED: u32 = 0xf << 8;
    /// The locks.
    pub const LOCKS: u32 = 0xaaa;
    /// All there are.
    pub const ALL: u32 = 0xfff;
}

/// The credentials of a task. Never changed in place: a new set replaces the old one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Creds {
    pub ruid: u32,
    pub euid: u32,
    pub suid: u32,
    pub fsuid: u32,
    pub rgid: u32,
    pub egid: u32,
    pub sgid: u32,
    pub fsgid: u32,
    pub groups: Vec<u32>,
    pub permitted: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub ambient: u64,
    pub bounding: u64,
    /// `PR_SET_SECUREBITS`, see [`secure`].
    pub securebits: u32,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    pub user_ns: Arc<UserNamespace>,
    /// What it has forbidden itself (Landlock).
    pub domain: Option<Arc<Domain>>,
}

impl Creds {
    /// Root with these capabilities permitted and effective.
    pub fn root(capabilities: u64) -> Self {
        Self::user(0, 0, Vec::new(), capabilities)
    }

    /// A user with these capabilities in its bounding set; permitted and effective only for root.
    pub fn user(uid: u32, gid: u32, groups: Vec<u32>, capabilities: u64) -> Self {
        let held = if uid == 0 { capabilities } else { 0 };
        Self {
            ruid: uid,
            euid: uid,
            suid: uid,
            fsuid: uid,
            rgid: gid,
            egid: gid,
            sgid: gid,
            fsgid: gid,
            groups,
            permitted: held,
            effective: held,
            inheritable: 0,
            ambient: 0,
            bounding: capabilities,
            securebits: 0,
            no_new_privileges: false,
            user_ns: UserNamespace::initial(),
            domain: None,
        }
    }

    /// EACCES unless nothing that was forbidden stands in the way of these rights ([`landlock::right`]) to what is there.
    pub fn check_domain(&self, at: &PathRef, rights: u64) -> Result<(), Errno> {
        self.domain.as_ref().map_or(Ok(()), |domain| domain.check(at, rights))
    }

    /// Whether a capability is effective, in whatever user namespace these are of.
    pub fn has(&self, capability: u32) -> bool {
        capability <= cap::LAST && self.effective & (1 << capability) != 0
    }

    /// Whether a capability is effective over the whole system.
    pub fn capable(&self, capability: u32) -> bool {
        self.has(capability) && self.user_ns.is_initial()
    }

    /// Whether a capability is effective over what belongs to a user namespace: in that one, or around it, or as its owner.
    pub fn capable_in(&self, namespace: &UserNamespace, capability: u32) -> bool {
        let mut at = namespace;
        loop {
            if *at == *self.user_ns {
                return self.has(capability);
            }
            let Some(parent) = at.parent.as_deref() else { return false };
            if *parent == *self.user_ns && at.owner == self.euid {
                return true;
            }
            at = parent;
        }
    }

    /// Whether a capability is effective over a file of this owner and group: both must be someone here.
    pub fn capable_over(&self, uid: u32, gid: u32, capability: u32) -> bool {
        self.has(capability) && self.user_ns.uid(uid).is_some() && self.user_ns.gid(gid).is_some()
    }

    /// Whether this user is the root of the namespace.
    pub fn is_root(&self, uid: u32) -> bool {
        self.user_ns.uid(uid) == Some(0)
    }

    /// Goes on in another user namespace, with all capabilities there.
    pub fn enter(&mut self, namespace: Arc<UserNamespace>) {
        self.securebits = 0;
        (self.inheritable, self.ambient) = (0, 0);
        (self.permitted, self.effective, self.bounding) = (ALL_CAPABILITIES, ALL_CAPABILITIES, ALL_CAPABILITIES);
        self.user_ns = namespace;
    }

    /// A user as these credentials' holder sees it.
    pub fn shown_uid(&self, uid: u32) -> u32 {
        self.user_ns.shown_uid(uid)
    }

    /// A group as these credentials' holder sees it.
    pub fn shown_gid(&self, gid: u32) -> u32 {
        self.user_ns.shown_gid(gid)
    }

    /// Whether all the permitted capabilities of `other` are permitted here, too, or belong to a namespace of this user's own.
    pub fn covers(&self, other: &Creds) -> bool {
        if self.user_ns == other.user_ns {
            return other.permitted & !self.permitted == 0;
        }
        let mut at = &other.user_ns;
        while let Some(parent) = &at.parent {
            if *parent == self.user_ns && at.owner == self.euid {
                return true;
            }
            at = parent;
        }
        false
    }

    /// Whether `gid` is the filesystem group or a supplementary one.
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.contains(&gid)
    }
}
