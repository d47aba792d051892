//! Landlock: the second wall around a service that handles files.

use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope,
};

use crate::error::ConfineError;

/// The trees a service may use files beneath; all else that names a file is refused by the kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Landlock<'a> {
    /// Roots (directories or files) with full use, execution excepted.
    pub read_write: &'a [BorrowedFd<'a>],
    /// Roots that may only be read.
    pub read_only: &'a [BorrowedFd<'a>],
}

/// Raises it on this thread and its children to come. Returns the ABI in force, 0 where the kernel has none.
pub(crate) fn raise(landlock: &Landlock<'_>) -> Result<u32, ConfineError> {
    let bad = |e: &dyn std::error::Error| ConfineError::Landlock(e.to_string());
    let abi = ABI::V6;
    let mut set = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|r| r.handle_access(AccessNet::from_all(abi)))
        .and_then(|r| r.scope(Scope::from_all(abi)))
        .and_then(|r| r.create())
        .map_err(|e| bad(&e))?;
    let write = AccessFs::from_all(abi) & !AccessFs::Execute & !AccessFs::IoctlDev;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    for (roots, access) in [(landlock.read_write, write), (landlock.read_only, read)] {
        for root in roots {
            let stat = rustix::fs::fstat(root).map_err(crate::error::host("fstat of a root"))?;
            let directory = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
            let access = if directory { access } else { access & AccessFs::from_file(abi) };
            set = set.add_rule(PathBeneath::new(root, access)).map_err(|e| bad(&e))?;
        }
    }
    let status = set.restrict_self().map_err(|e| bad(&e))?;
    Ok(match status.ruleset {
        RulesetStatus::NotEnforced => 0,
        RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => kernel_abi(),
    })
}

/// The kernel's Landlock ABI (landlock_create_ruleset(2) with LANDLOCK_CREATE_RULESET_VERSION).
fn kernel_abi() -> u32 {
    // SAFETY: asking for the version takes no pointer.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0usize, 0usize, 1u32) };
    u32::try_from(abi).unwrap_or(0)
}
