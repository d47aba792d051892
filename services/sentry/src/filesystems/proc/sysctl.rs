//! Settings below `/proc/sys` that this kernel has no use for: they tell what a fresh Linux says, and keep what is set where
//! Linux does. What acts on something is in `system`.

use std::sync::Arc;

use crate::errno::Errno;
use crate::filesystems::pseudo::{Body, PseudoFs, PseudoNode, fixed};
use crate::sync::Mutex;
use crate::vfs::caller::Caller;
use crate::vfs::inode::InodeRef;

/// Longest value of a setting, bytes.
const LONGEST: usize = 4096;

/// A name, what it says, and whether it may be set.
pub type Told = (&'static str, &'static str, bool);

/// `kernel`.
pub const KERNEL: &[Told] = &[
    ("arch", "x86_64", false),
    ("auto_msgmni", "0", true),
    ("cad_pid", "1", true),
    ("core_pipe_limit", "0", true),
    ("ctrl-alt-del", "1", true),
    ("dmesg_restrict", "0", true),
    ("kptr_restrict", "0", true),
    ("max_lock_depth", "1024", true),
    ("msg_next_id", "-1", false),
    ("panic", "0", true),
    ("panic_on_oops", "0", true),
    ("panic_on_warn", "0", true),
    ("poweroff_cmd", "/sbin/poweroff", true),
    ("printk_delay", "0", true),
    ("printk_ratelimit", "5", true),
    ("printk_ratelimit_burst", "10", true),
    ("sched_rt_period_us", "1000000", true),
    ("sched_rt_runtime_us", "950000", true),
    ("sem_next_id", "-1", false),
    ("shm_next_id", "-1", false),
    ("sysctl_writes_strict", "1", true),
    ("timer_migration", "1", true),
    ("unprivileged_bpf_disabled", "2", true),
    ("watchdog", "0", true),
];

/// `vm`.
pub const VM: &[Told] = &[
    ("admin_reserve_kbytes", "8192", true),
    ("dirty_background_bytes", "0", true),
    ("dirty_bytes", "0", true),
    ("dirty_expire_centisecs", "3000", true),
    ("dirty_writeback_centisecs", "500", true),
    ("dirtytime_expire_seconds", "43200", true),
    ("extfrag_threshold", "500", true),
    ("laptop_mode", "0", true),
    ("legacy_va_layout", "0", true),
    ("min_free_kbytes", "67584", true),
    ("nr_overcommit_hugepages", "0", true),
    ("oom_dump_tasks", "1", true),
    ("oom_kill_allocating_task", "0", true),
    ("overcommit_kbytes", "0", true),
    ("page-cluster", "3", true),
    ("page_lock_unfairness", "5", true),
    ("panic_on_oom", "0", true),
    ("stat_interval", "1", true),
    ("unprivileged_userfaultfd", "0", true),
    ("user_reserve_kbytes", "131072", true),
    ("vfs_cache_pressure", "100", true),
    ("watermark_boost_factor", "15000", true),
    ("watermark_scale_factor", "10", true),
    ("zone_reclaim_mode", "0", true),
];

/// `fs`. There are no leases and no F_NOTIFY.
pub const FS: &[Told] = &[
    ("dir-notify-enable", "0", false),
    ("lease-break-time", "45", true),
    ("leases-enable", "0", false),
    ("overflowgid", "65534", true),
    ("overflowuid", "65534", true),
    ("pipe-user-pages-hard", "0", true),
    ("pipe-user-pages-soft", "16384", true),
    ("protected_fifos", "0", true),
    ("protected_regular", "0", true),
];

/// The files of such a list.
pub fn files(fs: &PseudoFs, list: &[Told]) -> Vec<(&'static str, InodeRef)> {
    let file = |(name, value, set): &Told| match set {
        true => (*name, setting(fs, value)),
        false => (*name, fixed(fs, format!("{value}\n"))),
    };
    list.iter().map(file).collect()
}

fn numbers(words: &[u8]) -> Option<usize> {
    let t = std::str::from_utf8(words).ok()?;
    t.split_ascii_whitespace().map(str::parse::<i64>).collect::<Result<Vec<_>, _>>().ok().map(|n| n.len())
}

/// A setting that root may change and that only tells what was set. One that is a number, or several, stays that.
pub fn setting(fs: &PseudoFs, value: &str) -> InodeRef {
    let most = numbers(value.as_bytes());
    let value = Arc::new(Mutex::new(format!("{value}\n").into_bytes()));
    let again = value.clone();
    let read = move |_: &Caller<'_>| Ok(value.lock().clone());
    let write = move |_: &Caller<'_>, data: &[u8]| {
        let line = data.trim_ascii();
        let fits = match most {
            Some(most) => numbers(line).is_some_and(|n| n == most),
            None => line.len() <= LONGEST,
        };
        if !fits {
            return Err(Errno::EINVAL);
        }
        let mut line = line.to_vec();
        line.push(b'\n');
        *again.lock() = line;
        Ok(())
    };
    PseudoNode::new(fs, 0o644, Body::Text(Box::new(read), Some(Box::new(write))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_from_words() {
        assert_eq!(numbers(b"4\t4\t1\t7"), Some(4));
        assert_eq!(numbers(b"core"), None);
    }
}
