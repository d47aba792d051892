//! Memory protection keys, `pkeys(7)`: as on a processor without them, which is how the container sees its own (a key would
//! live in a register that the Sentry neither saves nor checks).

use std::sync::Arc;

use super::memory::mprotect;
use super::{Entry, SysResult, UserPtr};
use crate::entry;
use crate::errno::Errno;
use crate::task::Task;

/// The calls.
pub const TABLE: &[Entry] = &[
    entry!(
        329,
        "pkey_mprotect",
        Partial,
        "key -1 only, as on a processor without keys",
        pkey_mprotect(UserPtr<u8>, u64, i32, i32)
    ),
    entry!(330, "pkey_alloc", Refused, "ENOSPC, as on a processor without keys", pkey_alloc(u64, u64)),
    entry!(331, "pkey_free", Refused, "EINVAL, as on a processor without keys", pkey_free(i32)),
];

fn pkey_mprotect(task: &Arc<Task>, address: UserPtr<u8>, len: u64, prot: i32, key: i32) -> SysResult {
    if key != -1 {
        return Err(Errno::EINVAL);
    }
    mprotect(task, address, len, prot)
}

fn pkey_alloc(_: &Arc<Task>, flags: u64, rights: u64) -> SysResult {
    Err(if flags != 0 || rights & !3 != 0 { Errno::EINVAL } else { Errno::ENOSPC })
}

fn pkey_free(_: &Arc<Task>, _key: i32) -> SysResult {
    Err(Errno::EINVAL)
}
