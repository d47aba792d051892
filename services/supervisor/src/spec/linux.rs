//! What `linux` says besides resources and seccomp: namespaces, ids, paths, settings, devices.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use cofferdam_control::oci;
use cofferdam_control::sentry::{Device, IdMaps};
use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType, LinuxIdMapping, LinuxNamespaceType, Spec};

use super::Refused;

/// Settings that belong to the IPC namespace.
const IPC: &[&str] = &[
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Devices that a sandbox has.
const DEVICES: &[(u32, u32)] = &[(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)];

/// A path below /proc/sys, and what is written there.
pub type Setting = (Vec<u8>, Vec<u8>);
/// The namespaces that are asked for.
pub type Namespaces = Vec<(String, Option<PathBuf>)>;

fn has(namespaces: &Namespaces, kind: &str) -> bool {
    namespaces.iter().any(|(k, _)| k == kind)
}

fn invalid<T>(message: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::invalid(message))
}

/// `linux.namespaces`.
pub fn namespaces(linux: &Linux, warnings: &mut Vec<String>) -> Result<Namespaces, Refused> {
    let mut all = Namespaces::new();
    for n in linux.namespaces().as_deref().unwrap_or_default() {
        let kind = match n.typ() {
            LinuxNamespaceType::Mount => "mount",
            LinuxNamespaceType::Cgroup => "cgroup",
            LinuxNamespaceType::Uts => "uts",
            LinuxNamespaceType::Ipc => "ipc",
            LinuxNamespaceType::User => "user",
            LinuxNamespaceType::Pid => "pid",
            LinuxNamespaceType::Network => "network",
            LinuxNamespaceType::Time => {
                return invalid("linux.namespaces: time is not supported: a sandbox has no time namespaces");
            }
        };
        if has(&all, kind) {
            return invalid(format!("malformed spec file: duplicated ns {kind:?}"));
        }
        let path = n.path().clone().filter(|p| !p.as_os_str().is_empty());
        if path.as_ref().is_some_and(|p| !p.is_absolute()) {
            return invalid(format!("linux.namespaces: the path of {kind} is not absolute"));
        }
        if kind == "user" && path.is_some() {
            return invalid("linux.namespaces: a user namespace of the host cannot be joined from a sandbox");
        }
        all.push((kind.to_owned(), path));
    }
    for kind in ["pid", "ipc", "mount"].iter().filter(|k| !has(&all, k)) {
        warnings
            .push(format!("linux.namespaces: no {kind} namespace is asked for; a sandbox has its own all the same"));
    }
    if linux.time_offsets().as_ref().is_some_and(|t| !t.is_empty()) {
        return invalid("linux.timeOffsets are not supported: a sandbox has no time namespaces");
    }
    Ok(all)
}

/// What only makes sense with a namespace of its own.
pub fn needs(spec: &Spec, linux: &Linux, namespaces: &Namespaces) -> Result<(), Refused> {
    let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|l| !l.is_empty());
    let named = |name: &Option<String>| name.as_deref().is_some_and(|n| !n.is_empty());
    if named(spec.hostname()) && !has(namespaces, "uts") {
        return invalid("unable to set hostname without a private UTS namespace");
    }
    if named(spec.domainname()) && !has(namespaces, "uts") {
        return invalid("unable to set domainname without a private UTS namespace");
    }
    if (some(linux.masked_paths()) || some(linux.readonly_paths())) && !has(namespaces, "mount") {
        return invalid("unable to restrict sys entries without a private MNT namespace");
    }
    Ok(())
}

/// `linux.uidMappings` and `linux.gidMappings`.
pub fn maps(linux: &Linux, namespaces: &Namespaces, warnings: &mut Vec<String>) -> Result<Option<IdMaps>, Refused> {
    let read = |list: &Option<Vec<LinuxIdMapping>>| -> Vec<(u32, u32, u32)> {
        let list = list.as_deref().unwrap_or_default();
        list.iter().map(|m| (m.container_id(), m.host_id(), m.size())).collect()
    };
    let maps = IdMaps { uids: read(linux.uid_mappings()), gids: read(linux.gid_mappings()) };
    if !has(namespaces, "user") {
        if !maps.uids.is_empty() || !maps.gids.is_empty() {
            warnings.push("linux.uidMappings, linux.gidMappings: they mean nothing without a user namespace".into());
        }
        return Ok(None);
    }
    for (map, what) in [(&maps.uids, "user"), (&maps.gids, "group")] {
        if map.is_empty() {
            return invalid(format!("User namespaces enabled, but no {what} mappings found."));
        }
        if map.len() > 340
            || map.iter().any(|(a, b, n)| *n == 0 || a.checked_add(*n).is_none() || b.checked_add(*n).is_none())
        {
            return invalid(format!("linux: mapping of {what}s: invalid argument"));
        }
        if !map.iter().any(|(a, ..)| *a == 0) {
            return invalid(format!("User namespaces enabled, but no mapping found for root {what}"));
        }
    }
    Ok(Some(maps))
}

/// `linux.rootfsPropagation`.
pub fn propagation(linux: &Linux) -> Result<u64, Refused> {
    let word = linux.rootfs_propagation().as_deref().unwrap_or_default();
    match (word, oci::mount_word(word)) {
        ("", _) => Ok(0),
        (_, Some(oci::MountWord::Propagation(how))) => Ok(how),
        _ => invalid(format!("rootfsPropagation={word} is not supported")),
    }
}

/// A variable with dots between, whichever of the two ways it is written in.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']).and_then(|at| name.get(at..=at)) {
        Some("/") => name
            .chars()
            .map(|c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

/// `linux.sysctl`: paths below /proc/sys and values.
pub fn sysctl(linux: &Linux, namespaces: &Namespaces, warnings: &mut Vec<String>) -> Result<Vec<Setting>, Refused> {
    let mut all: Vec<(&String, &String)> = linux.sysctl().iter().flatten().collect();
    all.sort();
    let mut settings = Vec::new();
    for (name, value) in all {
        let s = dotted(name);
        if IPC.contains(&s.as_str()) || s.starts_with("fs.mqueue.") {
            if !has(namespaces, "ipc") {
                return invalid(format!("sysctl {s:?} is not allowed in the hosts ipc namespace"));
            }
        } else if s.starts_with("net.") {
            if !has(namespaces, "network") {
                return invalid(format!("sysctl {s:?} not allowed in host network namespace"));
            }
            if !oci::NETWORK_SETTINGS.contains(&s.as_str()) {
                warnings.push(format!("linux.sysctl: {s}: a sandbox has no such setting: left as it is"));
                continue;
            }
        } else if s == "kernel.hostname" && has(namespaces, "uts") {
            return invalid(format!("sysctl {s:?} is not allowed as it conflicts with the OCI \"hostname\" field"));
        } else if s != "kernel.domainname" || !has(namespaces, "uts") {
            return invalid(format!("sysctl {s:?} is not in a separate kernel namespace"));
        }
        let path = s.replace('.', "/");
        if path.split('/').any(|p| matches!(p, "" | "." | "..")) || path.contains('\0') {
            return invalid(format!("sysctl {s:?}: no such file or directory"));
        }
        settings.push((path.into_bytes(), value.clone().into_bytes()));
    }
    Ok(settings)
}

/// `linux.devices`.
pub fn devices(linux: &Linux, warnings: &mut Vec<String>) -> Result<Vec<Device>, Refused> {
    linux.devices().as_deref().unwrap_or_default().iter().map(|d| device(d, warnings)).collect()
}

fn device(d: &LinuxDevice, warnings: &mut Vec<String>) -> Result<Device, Refused> {
    const CHAR: u32 = 0o020000;
    const BLOCK: u32 = 0o060000;
    const FIFO: u32 = 0o010000;
    let path = crate::paths::clean(d.path());
    let shown = path.display().to_string();
    if d.path().as_os_str().as_bytes().contains(&0) || d.path().as_os_str().len() >= 4096 {
        return invalid(format!("linux.devices: {shown}: invalid argument"));
    }
    let kind = match d.typ() {
        LinuxDeviceType::B => BLOCK,
        LinuxDeviceType::P => FIFO,
        _ => CHAR,
    };
    let number = |n: i64, most: u32| u32::try_from(n).ok().filter(|n| *n <= most);
    let (major, minor) = match (number(d.major(), 0xfff), number(d.minor(), 0xf_ffff)) {
        (Some(major), Some(minor)) => (major, minor),
        _ if kind == FIFO => (0, 0),
        _ => return invalid(format!("linux.devices: {shown}: {}:{} is no device number", d.major(), d.minor())),
    };
    if kind == BLOCK || kind == CHAR && !DEVICES.contains(&(major, minor)) && major != 136 {
        warnings.push(format!(
            "linux.devices: {shown}: a sandbox has no device {major}:{minor}; the node is made and opening it fails (ENXIO)"
        ));
    }
    Ok(Device {
        path: path.as_os_str().as_bytes().to_vec(),
        mode: kind | d.file_mode().unwrap_or(0o666) & 0o7777,
        major,
        minor,
        uid: d.uid().unwrap_or(0),
        gid: d.gid().unwrap_or(0),
    })
}

/// `linux.maskedPaths` or `linux.readonlyPaths`.
pub fn paths(list: &Option<Vec<String>>, what: &str) -> Result<Vec<Vec<u8>>, Refused> {
    let list = list.as_deref().unwrap_or_default();
    for path in list {
        if path.contains('\0') || path.len() >= 4096 {
            return invalid(format!("linux.{what}: {:.80}: invalid argument", path.escape_debug().to_string()));
        }
    }
    Ok(list.iter().filter(|p| !p.is_empty()).map(|p| p.clone().into_bytes()).collect())
}

/// `linux.personality`.
pub fn personality(linux: &Linux) -> Result<Option<i32>, Refused> {
    let Some(p) = linux.personality() else { return Ok(None) };
    if p.flags().as_ref().is_some_and(|f| !f.is_empty()) {
        return invalid("linux.personality: additional flags not supported by runc".replace("runc", "cofferdam"));
    }
    const PER_LINUX32: i32 = 8;
    Ok(Some(match p.domain() {
        oci_spec::runtime::LinuxPersonalityDomain::PerLinux => 0,
        oci_spec::runtime::LinuxPersonalityDomain::PerLinux32 => PER_LINUX32,
    }))
}

/// What cannot be had, or means nothing inside.
pub fn unheeded(linux: &Linux, warnings: &mut Vec<String>) -> Result<(), Refused> {
    if let Some(rdt) = linux.intel_rdt() {
        let id = rdt.clos_id().clone().unwrap_or_default();
        if matches!(id.as_str(), "." | "..") || id.contains('/') {
            return invalid(format!("invalid intelRdt.ClosID {id:?}"));
        }
        let given = |text: &Option<String>| text.as_deref().is_some_and(|t| !t.is_empty());
        if given(rdt.l3_cache_schema()) {
            return invalid("intelRdt.l3CacheSchema is specified in config, but Intel RDT/CAT is not enabled");
        }
        if given(rdt.mem_bw_schema()) {
            return invalid("intelRdt.memBwSchema is specified in config, but Intel RDT/MBA is not enabled");
        }
        warnings
            .push("linux.intelRdt: caches and bandwidth of the host's memory are not shared out to sandboxes".into());
    }
    if linux.mount_label().as_deref().is_some_and(|l| !l.is_empty()) {
        warnings.push("linux.mountLabel: there is no SELinux inside a sandbox; mounts have no label".into());
    }
    if linux.net_devices().as_ref().is_some_and(|d| !d.is_empty()) {
        return invalid("linux.netDevices: devices of the host's network cannot be moved into a sandbox");
    }
    let listener = linux.seccomp().as_ref().and_then(|s| s.listener_metadata().as_deref());
    if listener.is_some_and(|m| !m.is_empty()) {
        warnings.push("linux.seccomp.listenerMetadata: there is no listener to tell it to".into());
    }
    if linux.memory_policy().is_some() {
        warnings.push("linux.memoryPolicy: memory of a sandbox comes from wherever the host takes it".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_named_in_two_ways() {
        assert_eq!(dotted("net/ipv4/conf/eno2.100.rp_filter"), "net.ipv4.conf.eno2/100/rp_filter");
        assert_eq!(dotted("kernel.sem"), "kernel.sem");
        assert_eq!(dotted("plain"), "plain");
    }
}
