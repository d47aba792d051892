//! The mounts of a document: what is mounted where, with which flags. The words are those of [`oci::MOUNT_WORDS`].

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use cofferdam_control::client::{NOTIFY_SOCKET, Private, Tree};
use cofferdam_control::oci::{self, MountWord, attr, ms};
use cofferdam_control::overlay::{self, Role};
use cofferdam_control::sentry::{Container, FileAccess, Layer, Mount, MountOptions, MountSource};

use super::{ExportPath, Refused};
use crate::paths::clean;

/// File systems that the Sentry can make.
const KINDS: &[&str] = &["tmpfs", "ramfs", "proc", "sysfs", "devtmpfs", "devpts", "mqueue", "cgroup", "cgroup2"];

/// What of the host's system a bind mount may name that is the sandbox's own instead: the host's is none of its business.
const OWN: &[(&str, &str)] = &[
    ("/proc", "proc"),
    ("/sys", "sysfs"),
    ("/sys/fs/cgroup", "cgroup2"),
    ("/dev/pts", "devpts"),
    ("/dev/mqueue", "mqueue"),
];

/// Places in /proc that something may be mounted on, as runc has it (lxcfs).
const IN_PROC: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
];

/// What `words` come to, and what is left for the file system.
fn options(words: &[String]) -> Result<(MountOptions, Vec<&str>), String> {
    let (mut options, mut data) = (MountOptions::default(), Vec::new());
    let (mut set, mut clear, mut all) = (0, 0, false);
    for word in words {
        match oci::mount_word(word) {
            None => data.push(word.as_str()),
            Some(MountWord::Set(bits)) => options.flags |= bits,
            Some(MountWord::Clear(bits)) => options.flags &= !bits,
            Some(MountWord::Propagation(how)) => options.propagation.push(how),
            Some(MountWord::SetAll(bits)) => {
                all = true;
                set |= bits;
                if bits & !attr::TIMES == 0 {
                    clear |= attr::TIMES;
                }
            }
            Some(MountWord::ClearAll(bits)) => {
                all = true;
                // Of access times one way of keeping them is taken away by clearing all bits of it.
                clear |= if bits & attr::TIMES != 0 { bits | attr::TIMES } else { bits };
            }
            Some(MountWord::CopyUp) => options.copy_up = true,
            Some(MountWord::Nothing) => {}
            Some(MountWord::Refused) => {
                return Err(format!("mount option {word} is not supported: there are no id-mapped mounts"));
            }
        }
    }
    options.recursive = all.then_some((set, clear));
    Ok((options, data))
}

/// What of a bind mount receives nothing from the host. It is made of one that does (runc has the host's whole tree
/// receive first); what is private once, no later word has receive again.
fn private(words: &[u64]) -> Private {
    let of = |how: &u64| match (how & (ms::PRIVATE | ms::UNBINDABLE) != 0, how & ms::REC != 0) {
        (false, _) => Private::Nothing,
        (true, false) => Private::Top,
        (true, true) => Private::All,
    };
    words.iter().map(of).max().unwrap_or(Private::Nothing)
}

fn check_proc(destination: &Path, kind: &str) -> Result<(), String> {
    let shown = destination.display();
    match destination.strip_prefix("/proc") {
        Err(_) => Ok(()),
        Ok(rest) if rest.as_os_str().is_empty() && kind == "proc" => Ok(()),
        Ok(rest) if rest.as_os_str().is_empty() => {
            Err(format!("{shown:?} cannot be mounted because it is not of type proc"))
        }
        Ok(_) if IN_PROC.iter().any(|p| Path::new(p) == destination) => Ok(()),
        Ok(_) => Err(format!("{shown:?} cannot be mounted because it is inside /proc")),
    }
}

/// The layers of an overlay, which the Gofer will serve. As mount(2) says it, what is wrong with where they are.
fn layers(data: &str, bundle: &Path, exports: &mut Vec<ExportPath>) -> Result<Vec<Layer>, &'static str> {
    let named = overlay::layers(data.as_bytes());
    let paths: Vec<_> = named
        .iter()
        .map(|(role, name)| {
            let path = Path::new(std::ffi::OsStr::from_bytes(name));
            (*role, if path.is_absolute() { path.to_path_buf() } else { bundle.join(path) })
        })
        .collect();
    let inside = |a: usize, b: usize| match (paths.get(a), paths.get(b)) {
        (Some((_, a)), Some((_, b))) => clean(a).starts_with(clean(b)),
        _ => false,
    };
    for (a, (role, _)) in paths.iter().enumerate() {
        for (b, (other, _)) in paths.iter().enumerate().filter(|(b, _)| *b != a) {
            match (role, other) {
                // A lower layer may hold what takes the changes; it may lie in no other layer.
                (Role::Lower, _) if inside(a, b) => return Err("too many levels of symbolic links"),
                (Role::Upper, Role::Work) | (Role::Work, Role::Upper) if inside(a, b) => {
                    return Err("invalid argument");
                }
                _ => {}
            }
        }
    }
    // What takes the changes comes first, as the other names it.
    let mut order: Vec<_> = named.iter().zip(paths).collect();
    order.sort_by_key(|(_, (role, _))| *role == Role::Work);
    let mut upper = None;
    let mut made = Vec::new();
    for ((_, name), (role, path)) in order {
        let export = format!("mount{}", exports.len());
        let beside = if role == Role::Work { upper.clone() } else { None };
        if role == Role::Upper {
            upper = Some(export.clone());
        }
        let changed = role != Role::Lower;
        exports.push(ExportPath {
            name: export.clone(),
            path,
            read_only: !changed,
            beside: beside.clone(),
            tree: None,
            follows: false,
        });
        made.push(Layer { path: name.clone(), export, changed, beside });
    }
    Ok(made)
}

/// Gives a container a socket at which it says that it is ready, and tells it where, as runc does: the last mount, and the last word of
/// the environment.
pub fn notify(container: &mut Container) {
    let folder = Path::new(NOTIFY_SOCKET).parent().unwrap_or(Path::new("/"));
    let flags = ms::RDONLY | ms::NOSUID | ms::NODEV | ms::NOEXEC;
    container.mounts.push(Mount {
        destination: folder.as_os_str().as_bytes().to_vec(),
        source: MountSource::System { kind: "tmpfs".into(), data: "mode=755,size=4k".into() },
        named: b"tmpfs".to_vec(),
        options: MountOptions { flags, ..MountOptions::default() },
    });
    container.process.env.push(format!("NOTIFY_SOCKET={NOTIFY_SOCKET}").into_bytes());
    container.notify = Some(NOTIFY_SOCKET.as_bytes().to_vec());
}

/// The same where the document shows a folder of the host there, in which somebody listens at a socket (podman and conmon): whoever is in the
/// sandbox reaches no socket of the host. Where that is.
pub fn notify_of_document(container: &mut Container, exports: &mut Vec<ExportPath>) -> Option<PathBuf> {
    let here = Path::new(NOTIFY_SOCKET);
    let told = container.process.env.iter().rev().find_map(|word| word.strip_prefix(b"NOTIFY_SOCKET="))?;
    let folder = here.parent().filter(|_| told == NOTIFY_SOCKET.as_bytes())?;
    let at = container.mounts.iter().rposition(|mount| mount.destination == folder.as_os_str().as_bytes())?;
    let MountSource::Export { name, .. } = &container.mounts.get(at)?.source else { return None };
    let export = exports.iter().position(|export| export.name == *name)?;
    let there = exports.get(export)?.path.join(here.file_name()?);
    exports.remove(export);
    container.mounts.remove(at);
    notify(container);
    Some(there)
}

/// One mount, unless there is none inside; what the Gofer must serve for it is added to `exports`.
pub fn one_mount(
    mount: &oci_spec::runtime::Mount,
    bundle: &Path,
    access: FileAccess,
    exports: &mut Vec<ExportPath>,
    warnings: &mut Vec<String>,
) -> Result<Option<Mount>, Refused> {
    let shown = mount.destination().display().to_string();
    let source = mount.source().clone().unwrap_or_default();
    let refused = |what: String| Refused::invalid(format!("invalid mount on {shown:?}: {what}"));
    let kind = mount.typ().as_deref().unwrap_or_default();
    for text in [mount.destination().as_os_str(), source.as_os_str(), kind.as_ref()] {
        if text.as_bytes().contains(&0) {
            return Err(refused("mount field contains null byte".into()));
        }
        if text.len() >= 4096 {
            return Err(refused("file name too long".into()));
        }
    }
    if mount.destination().as_os_str().is_empty() {
        return Err(refused("it has no destination".into()));
    }
    if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
        return Err(refused("uidMappings and gidMappings are not supported: there are no id-mapped mounts".into()));
    }
    if mount.destination().is_relative() {
        warnings.push(format!("mount destination {shown} is not absolute: it is taken from the root"));
    }
    let destination = clean(mount.destination());
    let (mut options, data) = options(mount.options().as_deref().unwrap_or_default()).map_err(&refused)?;
    // As mount(2) says it.
    let failed = |what: &str| {
        let (from, flags) = (source.display(), options.flags);
        let said = format!("mount {from}:{shown}, flags: {flags:#x}, data: {}", data.join(","));
        Refused::invalid(format!(
            "error mounting {:?} to rootfs at {shown:?}: {said}: {what}",
            source.display().to_string()
        ))
    };
    let bind = options.flags & ms::BIND != 0;
    let again = options.flags & ms::REMOUNT != 0;
    // One of version 1 (`podman --systemd`, on hosts that have them).
    let hierarchies = Path::new("/sys/fs/cgroup");
    let hierarchy = |path: &Path| path.starts_with(hierarchies) && path != hierarchies;
    if bind && !again && source.is_absolute() && hierarchy(&clean(&source)) && hierarchy(&destination) {
        warnings
            .push(format!("bind mount on {shown}: left out, as cgroups inside are the sandbox's own, of version 2"));
        return Ok(None);
    }
    let own = OWN.iter().find(|(path, _)| bind && !again && clean(&source) == Path::new(path) && source.is_absolute());
    let kind = match own {
        Some((_, kind)) => kind,
        None if bind => "bind",
        None => kind,
    };
    if options.copy_up && kind != "tmpfs" {
        warnings.push(format!("mount on {shown}: tmpcopyup means something for tmpfs only"));
    }
    if !again && !matches!(kind, "mqueue" | "tmpfs" | "sysfs" | "cgroup") {
        check_proc(&destination, kind).map_err(|e| failed(&e))?;
    }
    let mut named = source.as_os_str().as_bytes().to_vec();
    let made = if again {
        MountSource::Again
    } else if let Some((path, kind)) = own {
        warnings.push(format!("bind mount of {path} on {shown}: the sandbox's own {kind} is mounted, not the host's"));
        options.flags &= !(ms::BIND | ms::REC);
        named = kind.as_bytes().to_vec();
        MountSource::System { kind: (*kind).to_owned(), data: String::new() }
    } else if bind {
        if source.as_os_str().is_empty() {
            return Err(failed("no such file or directory"));
        }
        if !data.is_empty() {
            warnings.push(format!("bind mount on {shown}: options {:?} mean nothing to it", data.join(",")));
        }
        let name = format!("mount{}", exports.len());
        let read_only =
            options.flags & ms::RDONLY != 0 || options.recursive.is_some_and(|(set, _)| set & attr::RDONLY != 0);
        // Read-only for good only if nothing can make it writable again.
        let path = if source.is_absolute() { source.clone() } else { bundle.join(&source) };
        let tree = Some(Tree { below: options.flags & ms::REC != 0, private: private(&options.propagation) });
        exports.push(ExportPath { name: name.clone(), path, read_only, beside: None, tree, follows: false });
        if options.propagation.iter().any(|how| how & ms::SHARED != 0) {
            warnings.push(format!(
                "bind mount on {shown}: shared: what the host mounts there is seen, but what is mounted inside stays inside"
            ));
        }
        MountSource::Export { name, access }
    } else if kind == "overlay" {
        let data = data.join(",");
        let layers = layers(&data, bundle, exports).map_err(&failed)?;
        MountSource::Overlay { data, layers, access }
    } else if KINDS.contains(&kind) {
        let (kind, data) = match kind {
            // There is one kind of cgroups inside; what version 1 is mounted with has no meaning for it.
            "cgroup" => {
                if !data.is_empty() {
                    warnings
                        .push(format!("mount of cgroup on {shown}: options {:?} mean nothing here", data.join(",")));
                }
                ("cgroup2", String::new())
            }
            kind => (kind, data.join(",")),
        };
        MountSource::System { kind: kind.into(), data }
    } else {
        return Err(failed("no such device"));
    };
    Ok(Some(Mount { destination: destination.into_os_string().into_vec(), source: made, named, options }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_flags_and_what_is_left_is_the_file_systems() {
        let words: Vec<String> =
            ["nosuid", "ro", "rw", "strictatime", "rslave", "rro", "rnoatime", "tmpcopyup", "size=5%", "defaults"]
                .map(String::from)
                .into();
        let (options, data) = options(&words).unwrap();
        assert_eq!(options.flags, ms::NOSUID | ms::STRICTATIME);
        assert_eq!(options.propagation, [ms::SLAVE | ms::REC]);
        assert_eq!(options.recursive, Some((attr::RDONLY | attr::NOATIME, attr::TIMES)));
        assert!(options.copy_up);
        assert_eq!(data, ["size=5%"]);
        assert!(super::options(&["idmap".into()]).is_err());
    }

    #[test]
    fn destinations_are_cleaned_and_kept_out_of_proc() {
        assert_eq!(clean(Path::new("a/../../b//./c")), Path::new("/b/c"));
        assert!(check_proc(Path::new("/proc"), "proc").is_ok());
        assert!(check_proc(Path::new("/proc"), "bind").is_err());
        assert!(check_proc(Path::new("/proc/uptime"), "bind").is_ok());
        assert!(check_proc(Path::new("/proc/sys"), "bind").is_err());
        assert!(check_proc(Path::new("/process"), "bind").is_ok());
    }
}
