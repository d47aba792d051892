//! Landlock: `landlock_create_ruleset`, `landlock_add_rule`, `landlock_restrict_self`. What rules mean is `vfs::landlock`'s.

use std::any::Any;
use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes, Unaligned};

use crate::entry;
use crate::errno::Errno;
use crate::filesystems::anon;
use crate::sync::Mutex;
use crate::syscalls::{Entry, Fd, SysResult, UserPtr, done, value};
use crate::task::creds::cap;
use crate::task::{Creds, Task};
use crate::vfs::file::{File, FileOps, flags};
use crate::vfs::inode::FileType;
use crate::vfs::landlock::{Domain, Ruleset, is_internal, right};

/// This family's part of the table.
pub const TABLE: &[Entry] = &[
    entry!(
        444,
        "landlock_create_ruleset",
        Partial,
        "ABI 5: no scopes, no control of the log",
        landlock_create_ruleset(UserPtr<RulesetAttr>, usize, u32)
    ),
    entry!(445, "landlock_add_rule", Full, "", landlock_add_rule(Fd, u32, u64, u32)),
    entry!(446, "landlock_restrict_self", Full, "as of ABI 5", landlock_restrict_self(Fd, u32)),
];

/// The version of the interface: files with all rights, TCP ports.
const ABI: i64 = 5;
/// `LANDLOCK_CREATE_RULESET_VERSION`.
const VERSION: u32 = 1;
/// `struct landlock_ruleset_attr` as it was at first: its first member.
const ATTR_LEAST: usize = 8;

/// `struct landlock_ruleset_attr`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable)]
struct RulesetAttr {
    files: u64,
    ports: u64,
}

/// `struct landlock_path_beneath_attr`, which is packed.
#[repr(C, packed)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, Unaligned)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// A ruleset behind a descriptor.
struct Handle(Mutex<Ruleset>);

impl FileOps for Handle {
    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn landlock_create_ruleset(task: &Arc<Task>, attr: UserPtr<RulesetAttr>, size: usize, how: u32) -> SysResult {
    if how != 0 {
        return if how == VERSION && attr.is_null() && size == 0 { value(ABI) } else { Err(Errno::EINVAL) };
    }
    if attr.is_null() {
        return Err(Errno::EFAULT);
    }
    let asked = if (ATTR_LEAST..size_of::<RulesetAttr>()).contains(&size) {
        // The rest of what is known is 0, and a part of a member that is none counts as nothing known.
        RulesetAttr { files: attr.cast::<u64>().read(task)?, ports: 0 }
    } else {
        attr.read_sized(task, size)?
    };
    if asked.files & !right::ALL != 0 || asked.ports & !right::NET != 0 {
        return Err(Errno::EINVAL);
    }
    if asked.files == 0 && asked.ports == 0 {
        return Err(Errno::ENOMSG);
    }
    let rules = Ruleset::new(asked.files, asked.ports);
    let handle = Box::new(Handle(Mutex::new(rules)));
    value(task.add_file(anon::file(b"anon_inode:[landlock-ruleset]", handle, flags::RDWR), true)?)
}

fn ruleset(file: &File) -> Result<&Mutex<Ruleset>, Errno> {
    file.ops_as::<Handle>().map(|h| &h.0).ok_or(Errno::EBADFD)
}

fn landlock_add_rule(task: &Arc<Task>, fd: Fd, kind: u32, attr: u64, how: u32) -> SysResult {
    const PATH_BENEATH: u32 = 1;
    const NET_PORT: u32 = 2;
    if how != 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.file(fd)?;
    let rules = ruleset(&file)?;
    match kind {
        PATH_BENEATH => {
            let PathBeneath { allowed, parent } = UserPtr::new(attr).read(task)?;
            check_rights(allowed, rules.lock().files)?;
            let parent = task.files().get_any(parent)?;
            let at = parent.path_ref();
            if is_internal(at) {
                return Err(Errno::EBADFD);
            }
            let inode = at.dentry.inode();
            if inode.kind() != FileType::Directory && allowed & !right::FILE != 0 {
                return Err(Errno::EINVAL);
            }
            rules.lock().grant(inode, allowed)?;
        }
        NET_PORT => {
            let [allowed, port] = UserPtr::<[u64; 2]>::new(attr).read(task)?;
            let mut rules = rules.lock();
            check_rights(allowed, rules.ports)?;
            rules.grant_port(u16::try_from(port).map_err(|_| Errno::EINVAL)?, allowed);
        }
        _ => return Err(Errno::EINVAL),
    }
    done()
}

/// A rule grants something, and nothing that its ruleset does not handle.
fn check_rights(allowed: u64, handled: u64) -> Result<(), Errno> {
    if allowed == 0 {
        return Err(Errno::ENOMSG);
    }
    if allowed & !handled != 0 { Err(Errno::EINVAL) } else { Ok(()) }
}

fn landlock_restrict_self(task: &Arc<Task>, fd: Fd, how: u32) -> SysResult {
    let creds = task.creds();
    if !creds.no_new_privileges && !creds.capable_in(&creds.user_ns, cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    if how != 0 {
        return Err(Errno::EINVAL);
    }
    let file = task.file(fd)?;
    let rules = ruleset(&file)?.lock().clone();
    let domain = creds.domain.as_deref().unwrap_or(&Domain::default()).with(rules)?;
    task.set_creds(Creds { domain: Some(Arc::new(domain)), ..(*creds).clone() });
    done()
}
