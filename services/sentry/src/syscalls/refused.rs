//! Calls that are refused on purpose: what they would change is the host's, or they are parts of a kernel that this one, as
//! many, is built without. Each has the errno that such a kernel gives.

use std::sync::Arc;

use super::{Entry, SysResult};
use crate::entry;
use crate::errno::Errno;
use crate::task::Task;

/// Only an administrator of the host may.
fn not_permitted(_: &Arc<Task>) -> SysResult {
    Err(Errno::EPERM)
}

/// Not for those without rights (`kernel.perf_event_paranoid`).
fn no_access(_: &Arc<Task>) -> SysResult {
    Err(Errno::EACCES)
}

/// There, and switched off.
fn switched_off(_: &Arc<Task>) -> SysResult {
    Err(Errno::EOPNOTSUPP)
}

/// A kernel without it.
fn not_built(_: &Arc<Task>) -> SysResult {
    Err(Errno::ENOSYS)
}

/// The refusals.
pub const TABLE: &[Entry] = &[
    entry!(172, "iopl", Refused, "ENOSYS, as without CONFIG_X86_IOPL_IOPERM", not_built()),
    entry!(173, "ioperm", Refused, "ENOSYS, as without CONFIG_X86_IOPL_IOPERM", not_built()),
    entry!(175, "init_module", Refused, "ENOSYS, as without CONFIG_MODULES", not_built()),
    entry!(176, "delete_module", Refused, "ENOSYS, as without CONFIG_MODULES", not_built()),
    entry!(313, "finit_module", Refused, "ENOSYS, as without CONFIG_MODULES", not_built()),
    entry!(246, "kexec_load", Refused, "ENOSYS, as without CONFIG_KEXEC", not_built()),
    entry!(320, "kexec_file_load", Refused, "ENOSYS, as without CONFIG_KEXEC", not_built()),
    entry!(321, "bpf", Refused, "EPERM, as with kernel.unprivileged_bpf_disabled", not_permitted()),
    entry!(323, "userfaultfd", Refused, "EPERM, as with vm.unprivileged_userfaultfd=0", not_permitted()),
    entry!(425, "io_uring_setup", Refused, "EPERM, as with kernel.io_uring_disabled=2", not_permitted()),
    entry!(426, "io_uring_enter", Refused, "EPERM, as with kernel.io_uring_disabled=2", not_permitted()),
    entry!(427, "io_uring_register", Refused, "EPERM, as with kernel.io_uring_disabled=2", not_permitted()),
    entry!(304, "open_by_handle_at", Refused, "EPERM: no file system gives handles out", not_permitted()),
    entry!(303, "name_to_handle_at", Refused, "EOPNOTSUPP: no file system gives handles out", switched_off()),
    entry!(298, "perf_event_open", Refused, "EACCES, as with kernel.perf_event_paranoid=3", no_access()),
    entry!(154, "modify_ldt", Refused, "ENOSYS, as without CONFIG_MODIFY_LDT_SYSCALL", not_built()),
    entry!(134, "uselib", Refused, "ENOSYS, as without CONFIG_USELIB", not_built()),
    entry!(139, "sysfs", Refused, "ENOSYS, as without CONFIG_SYSFS_SYSCALL", not_built()),
    entry!(179, "quotactl", Refused, "ENOSYS, as without CONFIG_QUOTA", not_built()),
    entry!(443, "quotactl_fd", Refused, "ENOSYS, as without CONFIG_QUOTA", not_built()),
    entry!(248, "add_key", Refused, "ENOSYS, as without CONFIG_KEYS", not_built()),
    entry!(249, "request_key", Refused, "ENOSYS, as without CONFIG_KEYS", not_built()),
    entry!(250, "keyctl", Refused, "ENOSYS, as without CONFIG_KEYS", not_built()),
    entry!(300, "fanotify_init", Refused, "ENOSYS, as without CONFIG_FANOTIFY", not_built()),
    entry!(301, "fanotify_mark", Refused, "ENOSYS, as without CONFIG_FANOTIFY", not_built()),
    entry!(447, "memfd_secret", Refused, "ENOSYS, as without CONFIG_SECRETMEM", not_built()),
];

#[cfg(test)]
mod tests {
    use crate::syscalls::Support;

    #[test]
    fn each_refusal_names_its_errno() {
        for e in super::TABLE {
            assert_eq!(e.support, Support::Refused, "{}", e.name);
            assert!(e.note.starts_with('E'), "{}: {}", e.name, e.note);
        }
    }
}
