//! Permission checks on inodes, `path_resolution(7)` and `capabilities(7)`.

use crate::errno::Errno;
use crate::task::creds::{Creds, cap};
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
    if creds.capable(cap::DAC_OVERRIDE) && (directory || want & EXEC == 0 || attr.mode & 0o111 != 0) {
        return Ok(());
    }
    let reads = if directory { want & WRITE == 0 } else { want == READ };
    if reads && creds.capable(cap::DAC_READ_SEARCH) {
        return Ok(());
    }
    Err(Errno::EACCES)
}

/// Checks `want` on an inode.
pub fn check(creds: &Creds, inode: &dyn Inode, want: u32) -> Result<(), Errno> {
    check_attr(creds, &inode.attr()?, want)
}

/// Checks search permission of a directory: the hot path of every walk.
pub fn check_search(creds: &Creds, directory: &dyn Inode) -> Result<(), Errno> {
    if creds.capable(cap::DAC_OVERRIDE) || creds.capable(cap::DAC_READ_SEARCH) {
        return Ok(());
    }
    check(creds, directory, EXEC)
}

/// Whether the caller owns the inode or may act as if.
pub fn is_owner(creds: &Creds, attr: &Attr) -> bool {
    attr.uid == creds.fsuid || creds.capable(cap::FOWNER)
}

/// Checks that a name may be removed from or replaced in a directory (write, search, sticky bit).
pub fn check_delete(creds: &Creds, directory: &dyn Inode, victim: &dyn Inode) -> Result<(), Errno> {
    let dir = directory.attr()?;
    check_attr(creds, &dir, WRITE | EXEC)?;
    if dir.mode & mode::STICKY != 0
        && dir.uid != creds.fsuid
        && victim.attr()?.uid != creds.fsuid
        && !creds.capable(cap::FOWNER)
    {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// The mode after a write or change of owner by someone without CAP_FSETID: setuid and (if group-executable) setgid go.
pub fn drop_privileges(mode_bits: u32) -> u32 {
    let mut m = mode_bits & !mode::SETUID;
    if m & 0o010 != 0 {
        m &= !mode::SETGID;
    }
    m
}
