//! Permission checks on inodes, `path_resolution(7)` and `capabilities(7)`.

use crate::errno::Errno;
use crate::namespaces::UserNamespace;
use crate::task::creds::{ALL_CAPABILITIES, Creds, cap};
use crate::vfs::inode::{Attr, FileType, Inode, mode};

/// Read permission.
pub const READ: u32 = 4;
/// Write permission.
pub const WRITE: u32 = 2;
/// Execute or search permission.
pub const EXEC: u32 = 1;

/// Checks `want` ([`READ`], [`WRITE`], [`EXEC`]) against attributes; EACCES if refused.
pub fn check_attr(creds: &Creds, attr: &Attr, want: u32) -> Result<(), Errno> {
    let shift = if attr.uid == creds.fsuid {
        6
    } else if creds.in_group(attr.gid) {
        3
    } else {
        0
    };
    if (attr.mode >> shift) & want == want {
        return Ok(());
    }
    let directory = attr.kind() == FileType::Directory;
    if creds.capable_over(attr.uid, attr.gid, cap::DAC_OVERRIDE)
        && (directory || want & EXEC == 0 || attr.mode & 0o111 != 0)
    {
        return Ok(());
    }
    let reads = if directory { want & WRITE == 0 } else { want == READ };
    if reads && creds.capable_over(attr.uid, attr.gid, cap::DAC_READ_SEARCH) {
        return Ok(());
    }
    Err(Errno::EACCES)
}

/// Checks `want` on an inode.
pub fn check(creds: &Creds, inode: &dyn Inode, want: u32) -> Result<(), Errno> {
    check_known(creds, inode, &inode.attr()?, want)
}

/// The same, with its attributes at hand.
pub fn check_known(creds: &Creds, inode: &dyn Inode, attr: &Attr, want: u32) -> Result<(), Errno> {
    match inode.permits(creds, want) {
        Some(true) => Ok(()),
        Some(false) => Err(Errno::EACCES),
        None => check_attr(creds, attr, want),
    }
}

/// Checks search permission of a directory: the hot path of every walk.
pub fn check_search(creds: &Creds, directory: &dyn Inode) -> Result<(), Errno> {
    let passes = creds.has(cap::DAC_OVERRIDE) || creds.has(cap::DAC_READ_SEARCH);
    if passes && creds.user_ns.is_initial() {
        return Ok(());
    }
    check(creds, directory, EXEC)
}

/// Whether the caller owns the inode or may act as if.
pub fn is_owner(creds: &Creds, attr: &Attr) -> bool {
    attr.uid == creds.fsuid || creds.capable_over(attr.uid, attr.gid, cap::FOWNER)
}

/// Checks that a name may be removed from or replaced in a directory (write, search, sticky bit).
pub fn check_delete(creds: &Creds, directory: &dyn Inode, victim: &dyn Inode) -> Result<(), Errno> {
    let dir = directory.attr()?;
    check_attr(creds, &dir, WRITE | EXEC)?;
    if dir.mode & mode::STICKY == 0 || dir.uid == creds.fsuid || is_owner(creds, &victim.attr()?) {
        return Ok(());
    }
    Err(Errno::EPERM)
}

/// The mode after a write or change of owner by someone without CAP_FSETID: setuid and (if group-executable) setgid go.
pub fn drop_privileges(mode_bits: u32) -> u32 {
    let mut m = mode_bits & !mode::SETUID;
    if m & 0o010 != 0 {
        m &= !mode::SETGID;
    }
    m
}

/// The attribute that holds a file's capabilities.
pub const CAPABILITIES: &[u8] = b"security.capability";

/// Capabilities that a program's file gives (`capabilities(7)`, "File capabilities").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileCapabilities {
    /// Given, as far as the bounding set goes.
    pub permitted: u64,
    /// Given to who has them in its inheritable set.
    pub inheritable: u64,
    /// Whether what is given is effective at once.
    pub effective: bool,
}

impl FileCapabilities {
    /// Those of an inode; `None` if it has none, or none that count in the user namespace `of`.
    pub fn of(inode: &dyn Inode, of: &UserNamespace) -> Option<Self> {
        Self::parse(&inode.xattr(CAPABILITIES).ok()?, of)
    }

    /// The attribute as it is kept that someone in a user namespace gives a file: what he gives counts for his own root only.
    pub fn given(mut value: Vec<u8>, by: &UserNamespace) -> Option<Vec<u8>> {
        let version = value.get(..4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes)? & 0xff00_0000;
        match (value.len(), version) {
            (20, 0x0200_0000) if by.is_initial() => {}
            (20, 0x0200_0000) => {
                *value.get_mut(3)? = 3;
                value.extend_from_slice(&by.kernel_uid(0)?.to_le_bytes());
            }
            (24, 0x0300_0000) => {
                let root = value.get(20..24).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes)?;
                value.truncate(20);
                value.extend_from_slice(&by.kernel_uid(root)?.to_le_bytes());
            }
            _ => return None,
        }
        Some(value)
    }

    /// Takes a `struct vfs_cap_data` apart: version 2, or 3 of the root of the namespace or of one around it.
    pub fn parse(value: &[u8], of: &UserNamespace) -> Option<Self> {
        let word = |i: usize| value.get(i * 4..i * 4 + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        let wide = |low: u32, high: u32| (u64::from(low) | u64::from(high) << 32) & ALL_CAPABILITIES;
        let magic = word(0)?;
        match (value.len(), magic & 0xff00_0000) {
            (20, 0x0200_0000) => {}
            (24, 0x0300_0000) if word(5).is_some_and(|root| of.has_root(root)) => {}
            _ => return None,
        }
        Some(Self {
            permitted: wide(word(1)?, word(3)?),
            inheritable: wide(word(2)?, word(4)?),
            effective: magic & 1 != 0,
        })
    }
}
