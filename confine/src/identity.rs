//! Ids and capabilities of a service.

use caps::{CapSet, Capability, CapsHashSet};

use crate::error::{ConfineError, last};

/// Leaves this thread with exactly `keep`, in the permitted, effective and bounding sets; nothing is inheritable or
/// ambient, and root means nothing any more.
pub(crate) fn drop_capabilities(keep: &[Capability]) -> Result<(), ConfineError> {
    let bad = |e: caps::errors::CapsError| ConfineError::Capabilities(e.to_string());
    let keep: CapsHashSet = keep.iter().copied().collect();
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(bad)? {
        // NOROOT, NO_SETUID_FIXUP, NO_CAP_AMBIENT_RAISE, each with its lock.
        let bits = 0b1100_1111;
        // SAFETY: PR_SET_SECUREBITS takes one scalar.
        if unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits, 0, 0, 0) } != 0 {
            return Err(last("PR_SET_SECUREBITS"));
        }
        for cap in 0..64 {
            // SAFETY: both prctl calls take scalars only.
            match unsafe { libc::prctl(libc::PR_CAPBSET_READ, cap, 0, 0, 0) } {
                1 if keep.iter().any(|k| i32::from(k.index()) == cap) => {}
                // SAFETY: as above.
                1 if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, cap, 0, 0, 0) } != 0 => {
                    return Err(last("PR_CAPBSET_DROP"));
                }
                1 | 0 => {}
                _ => break,
            }
        }
    }
    caps::clear(None, CapSet::Ambient).map_err(bad)?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).map_err(bad)?;
    caps::set(None, CapSet::Effective, &keep).map_err(bad)?;
    caps::set(None, CapSet::Permitted, &keep).map_err(bad)
}

/// Makes every capability this thread has one that an exec does not take.
pub(crate) fn carry_capabilities() -> Result<(), ConfineError> {
    let bad = |e: caps::errors::CapsError| ConfineError::Capabilities(e.to_string());
    let all = caps::read(None, CapSet::Permitted).map_err(bad)?;
    caps::set(None, CapSet::Inheritable, &all).map_err(bad)?;
    caps::set(None, CapSet::Ambient, &all).map_err(bad)
}
