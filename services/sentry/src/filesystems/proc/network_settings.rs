//! `/proc/sys/net`: settings of the network namespace of who looks, `ip(7)`, `tcp(7)`, `socket(7)`.
//!
//! What acts on something is kept by the namespace (`namespaces::net`); the rest tells what a fresh Linux says and keeps what is set, for
//! all namespaces (`sysctl`). Called by `system`.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::sysctl;
use crate::errno::Errno;
use crate::filesystems::pseudo::{Body, PseudoFs, PseudoNode, directory};
use crate::namespaces::NetNamespace;
use crate::vfs::caller::Caller;
use crate::vfs::inode::InodeRef;

/// `core`.
const CORE: &[sysctl::Told] = &[
    ("busy_poll", "0", true),
    ("busy_read", "0", true),
    ("default_qdisc", "pfifo_fast", true),
    ("netdev_max_backlog", "1000", true),
    ("optmem_max", "131072", true),
    ("rmem_default", "212992", true),
    ("wmem_default", "212992", true),
];

/// `ipv4`.
const IPV4: &[sysctl::Told] = &[
    ("icmp_echo_ignore_broadcasts", "1", true),
    ("ip_dynaddr", "0", true),
    ("ip_forward", "0", true),
    ("tcp_abort_on_overflow", "0", true),
    ("tcp_allowed_congestion_control", "reno cubic", false),
    ("tcp_available_congestion_control", "reno cubic", false),
    ("tcp_congestion_control", "cubic", false),
    ("tcp_ecn", "2", true),
    ("tcp_fastopen", "0", false),
    ("tcp_fin_timeout", "60", true),
    ("tcp_max_orphans", "131072", true),
    ("tcp_max_syn_backlog", "1024", true),
    ("tcp_max_tw_buckets", "16384", false),
    ("tcp_mem", "188319\t251093\t376638", true),
    ("tcp_moderate_rcvbuf", "1", true),
    ("tcp_mtu_probing", "0", true),
    ("tcp_no_metrics_save", "0", true),
    ("tcp_orphan_retries", "0", true),
    ("tcp_retries1", "3", true),
    ("tcp_retries2", "15", true),
    ("tcp_sack", "1", true),
    ("tcp_slow_start_after_idle", "1", true),
    ("tcp_syn_retries", "6", true),
    ("tcp_synack_retries", "5", true),
    ("tcp_syncookies", "1", true),
    ("tcp_timestamps", "1", true),
    ("tcp_tw_reuse", "2", true),
    ("tcp_window_scaling", "1", true),
    ("udp_mem", "376638\t502187\t753276", true),
    ("udp_rmem_min", "4096", true),
    ("udp_wmem_min", "4096", true),
];

fn of(caller: &Caller<'_>) -> Result<Arc<NetNamespace>, Errno> {
    Ok(caller.task.ok_or(Errno::ESRCH)?.namespaces().net.clone())
}

/// Numbers of a namespace that something acts on, within bounds, in a line.
fn numbers<const N: usize>(
    fs: &PseudoFs,
    range: RangeInclusive<i64>,
    which: fn(&NetNamespace) -> [&AtomicI64; N],
) -> InodeRef {
    let read = move |caller: &Caller<'_>| {
        let net = of(caller)?;
        let all = which(&net).map(|n| n.load(Ordering::Relaxed).to_string());
        Ok(format!("{}\n", all.join("\t")).into_bytes())
    };
    let write = move |caller: &Caller<'_>, new: &[u8]| {
        let net = of(caller)?;
        let text = std::str::from_utf8(new).map_err(|_| Errno::EINVAL)?;
        let all: Result<Vec<i64>, _> = text.split_ascii_whitespace().map(str::parse).collect();
        let all: [i64; N] = all.ok().and_then(|a| a.try_into().ok()).ok_or(Errno::EINVAL)?;
        // Of two the first is the lower bound.
        if all.iter().any(|n| !range.contains(n)) || !all.is_sorted() {
            return Err(Errno::EINVAL);
        }
        which(&net).iter().zip(all).for_each(|(to, n)| to.store(n, Ordering::Relaxed));
        Ok(())
    };
    PseudoNode::new(fs, 0o644, Body::Text(Box::new(read), Some(Box::new(write))))
}

/// `ip_local_reserved_ports`: numbers and ranges, with commas between them.
fn reserved(fs: &PseudoFs) -> InodeRef {
    let read = |caller: &Caller<'_>| {
        let net = of(caller)?;
        let all = net.settings.reserved.lock();
        let shown = all.iter().map(|r| match (r.start(), r.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        });
        Ok(format!("{}\n", shown.collect::<Vec<_>>().join(",")).into_bytes())
    };
    let write = |caller: &Caller<'_>, new: &[u8]| {
        let net = of(caller)?;
        *net.settings.reserved.lock() = ranges(new).ok_or(Errno::EINVAL)?;
        Ok(())
    };
    PseudoNode::new(fs, 0o644, Body::Text(Box::new(read), Some(Box::new(write))))
}

/// Ranges of ports in a text, put in order, those that meet joined.
fn ranges(text: &[u8]) -> Option<Vec<RangeInclusive<u16>>> {
    let text = std::str::from_utf8(text).ok()?.trim_ascii();
    let mut all = Vec::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        if first > last {
            return None;
        }
        all.push(first..=last);
    }
    all.sort_by_key(|r| *r.start());
    let mut joined: Vec<RangeInclusive<u16>> = Vec::new();
    for r in all {
        match joined.last_mut() {
            Some(last) if u32::from(*r.start()) <= u32::from(*last.end()) + 1 => {
                *last = *last.start()..=*last.end().max(r.end());
            }
            _ => joined.push(r),
        }
    }
    Some(joined)
}

/// `ping_group_range`: groups as who looks or writes numbers them. A range that is none lets nobody.
fn pingers(fs: &PseudoFs) -> InodeRef {
    let read = |caller: &Caller<'_>| {
        let net = of(caller)?;
        let own = &caller.creds.user_ns;
        let shown = |n: &AtomicI64| own.shown_gid(u32::try_from(n.load(Ordering::Relaxed)).unwrap_or(u32::MAX));
        let [first, last] = &net.settings.pingers;
        Ok(format!("{}\t{}\n", shown(first), shown(last)).into_bytes())
    };
    let write = |caller: &Caller<'_>, new: &[u8]| {
        let net = of(caller)?;
        let text = std::str::from_utf8(new).map_err(|_| Errno::EINVAL)?;
        let all: Result<Vec<u32>, _> = text.split_ascii_whitespace().map(str::parse).collect();
        let all: [u32; 2] = all.ok().and_then(|a| a.try_into().ok()).ok_or(Errno::EINVAL)?;
        if all.iter().any(|n| *n > i32::MAX.cast_unsigned()) {
            return Err(Errno::EINVAL);
        }
        let of = |n: u32| caller.creds.user_ns.kernel_gid(n).map(i64::from).ok_or(Errno::EINVAL);
        let [first, last] = all;
        let (first, last) = (of(first)?, of(last)?);
        let range = if first <= last { [first, last] } else { [1, 0] };
        net.settings.pingers.iter().zip(range).for_each(|(to, n)| to.store(n, Ordering::Relaxed));
        Ok(())
    };
    PseudoNode::new(fs, 0o644, Body::Text(Box::new(read), Some(Box::new(write))))
}

/// The directory.
pub fn directory_of(fs: &PseudoFs) -> InodeRef {
    const MOST: i64 = i32::MAX as i64;
    let all = |list, mut acting: Vec<(&'static str, InodeRef)>| {
        acting.extend(sysctl::files(fs, list));
        directory(fs, acting)
    };
    let core = all(
        CORE,
        vec![
            ("somaxconn", numbers(fs, 0..=i64::from(i32::MAX), |n| [&n.settings.backlog])),
            ("rmem_max", numbers(fs, 2304..=i64::from(i32::MAX), |n| [&n.settings.buffers[0]])),
            ("wmem_max", numbers(fs, 4608..=i64::from(i32::MAX), |n| [&n.settings.buffers[1]])),
        ],
    );
    let ipv4 = all(
        IPV4,
        vec![
            ("ip_local_port_range", numbers(fs, 1..=65_535, |n| [&n.settings.first_port, &n.settings.last_port])),
            ("ip_unprivileged_port_start", numbers(fs, 0..=65_535, |n| [&n.settings.unprivileged])),
            ("ip_local_reserved_ports", reserved(fs)),
            ("ip_nonlocal_bind", numbers(fs, 0..=255, |n| [&n.settings.nonlocal])),
            ("ping_group_range", pingers(fs)),
            ("icmp_echo_ignore_all", numbers(fs, 0..=1, |n| [&n.settings.silent])),
            ("tcp_rmem", numbers(fs, 1..=MOST, |n| n.settings.tcp_buffers[0].each_ref())),
            ("tcp_wmem", numbers(fs, 1..=MOST, |n| n.settings.tcp_buffers[1].each_ref())),
            ("icmp_ratelimit", numbers(fs, 0..=MOST, |n| [&n.settings.icmp.each[0]])),
            ("icmp_ratemask", numbers(fs, 0..=MOST, |n| [&n.settings.icmp.mask])),
            ("icmp_msgs_per_sec", numbers(fs, 0..=MOST, |n| [&n.settings.icmp.all[0]])),
            ("icmp_msgs_burst", numbers(fs, 0..=MOST, |n| [&n.settings.icmp.all[1]])),
            ("ip_default_ttl", numbers(fs, 1..=255, |n| [&n.settings.ttl])),
            ("tcp_keepalive_time", numbers(fs, 0..=32_767, |n| [&n.settings.keepalive[0]])),
            ("tcp_keepalive_intvl", numbers(fs, 0..=32_767, |n| [&n.settings.keepalive[1]])),
            ("tcp_keepalive_probes", numbers(fs, 0..=255, |n| [&n.settings.keepalive[2]])),
        ],
    );
    let device = || directory(fs, vec![("disable_ipv6", numbers(fs, 0..=1, |n| [n.loopback.without_ipv6()]))]);
    // New devices take over what is the default, and there are none.
    let default = directory(fs, vec![("disable_ipv6", sysctl::setting(fs, "0"))]);
    let conf = directory(fs, vec![("all", device()), ("default", default), ("lo", device())]);
    let icmp = vec![
        ("ratelimit", numbers(fs, 0..=MOST, |n| [&n.settings.icmp.each[1]])),
        ("ratemask", sysctl::setting(fs, "0-1,3-127")),
    ];
    let ipv6 = directory(
        fs,
        vec![
            ("bindv6only", numbers(fs, 0..=1, |n| [&n.settings.only_v6])),
            ("conf", conf),
            ("icmp", directory(fs, icmp)),
        ],
    );
    let unix = directory(fs, vec![("max_dgram_qlen", sysctl::setting(fs, "512"))]);
    directory(fs, vec![("core", core), ("ipv4", ipv4), ("ipv6", ipv6), ("unix", unix)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_document_may_set_is_there() {
        let fs = PseudoFs::new("proc", 0, crate::filesystems::pseudo::Style::Kernel);
        let caller = Caller::nobody();
        for name in cofferdam_control::oci::NETWORK_SETTINGS {
            let mut at = directory_of(&fs);
            for part in name.split('.').skip(1) {
                at = at.lookup(&caller, part.as_bytes()).unwrap().unwrap_or_else(|| panic!("{name}"));
            }
            assert_eq!(at.attr().unwrap().mode & 0o777, 0o644, "{name}");
        }
    }

    #[test]
    fn ranges_of_ports_are_joined() {
        assert_eq!(ranges(b"8080,9000-9005, 9003-9010,8081\n"), Some(vec![8080..=8081, 9000..=9010]));
        assert_eq!(ranges(b"\n"), Some(Vec::new()));
        assert_eq!(ranges(b"65535,0"), Some(vec![0..=0, 65535..=65535]));
        for bad in ["x", "5-2", "65536", "1-2-3", "-1"] {
            assert_eq!(ranges(bad.as_bytes()), None, "{bad}");
        }
    }
}
