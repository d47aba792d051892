//! From an OCI config.json to what the services need to know: the exports for the Gofer, the container for the Sentry.
//!
//! The document comes from whoever runs the command line, not from a container; it is bounded in size all the same.
//! This module opens nothing. Called by `sandbox`.

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use cofferdam_control::client::Create;
use cofferdam_control::sentry::{CapabilitySets, Container, FailureKind, Mount, MountOptions, MountSource, Root};
use oci_spec::runtime::{Capabilities, PosixRlimitType, Spec};

/// The largest config.json in bytes.
pub const MAX_DOCUMENT: u64 = 1 << 20;
/// The most bind mounts of a container: each costs a descriptor in the Gofer.
const MAX_EXPORTS: usize = 200;

/// A refusal, with its kind for the command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// For a program.
    pub kind: FailureKind,
    /// For a person.
    pub message: String,
}

impl Refused {
    /// A refusal of that kind.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Invalid, message)
    }
}

/// A host path that the Gofer will serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportPath {
    /// Name in `export/NAME`.
    pub name: String,
    /// Absolute host path.
    pub path: PathBuf,
    /// Whether it is never written.
    pub read_only: bool,
}

/// What a document means.
#[derive(Debug, Clone)]
pub struct Plan {
    /// For the Sentry.
    pub container: Container,
    /// For the Gofer; the first is the root.
    pub exports: Vec<ExportPath>,
    /// The document's ociVersion and annotations, for `state`.
    pub oci_version: String,
    /// Annotations.
    pub annotations: std::collections::BTreeMap<String, String>,
    /// What it asks for and does not get, for the log.
    pub warnings: Vec<String>,
}

/// Reads `document` for the container that `request` asks for.
pub fn plan(document: &[u8], request: &Create) -> Result<Plan, Refused> {
    let bundle = PathBuf::from(std::ffi::OsString::from_vec(request.bundle.clone()));
    let spec: Spec = serde_json::from_slice(document).map_err(|e| Refused::invalid(format!("config.json: {e}")))?;
    let process =
        spec.process().as_ref().ok_or_else(|| Refused::invalid("config.json: process property must be set"))?;
    let (args, env, cwd) = match &request.verbatim {
        Some(v) => (v.args.clone(), v.env.clone(), v.cwd.clone()),
        None => (
            bytes(process.args().as_deref().unwrap_or_default()),
            bytes(process.env().as_deref().unwrap_or_default()),
            process.cwd().as_os_str().as_bytes().to_vec(),
        ),
    };
    without_nul(&args, "process.args")?;
    without_nul(&env, "process.env")?;
    if args.first().is_none_or(Vec::is_empty) {
        return Err(Refused::invalid("config.json: process args cannot be empty"));
    }
    if cwd.first() != Some(&b'/') || cwd.contains(&0) {
        return Err(Refused::invalid("config.json: cwd is not an absolute path"));
    }
    let root = spec.root().as_ref().ok_or_else(|| Refused::invalid("config.json: root property must be set"))?;
    let root_path = if root.path().is_absolute() { root.path().clone() } else { bundle.join(root.path()) };
    let read_only = root.readonly().unwrap_or(false);
    let mut exports =
        vec![ExportPath { name: "root".into(), path: root_path, read_only: read_only || request.overlay }];
    let mut mounts = Vec::new();
    for mount in spec.mounts().as_deref().unwrap_or_default() {
        mounts.push(one_mount(mount, &bundle, &mut exports)?);
    }
    if exports.len() > MAX_EXPORTS {
        return Err(Refused::invalid(format!("config.json: more than {MAX_EXPORTS} bind mounts")));
    }
    let user = process.user();
    let caps = process.capabilities().as_ref();
    let capabilities = CapabilitySets {
        bounding: bitmap(caps.and_then(|c| c.bounding().as_ref())),
        effective: bitmap(caps.and_then(|c| c.effective().as_ref())),
        permitted: bitmap(caps.and_then(|c| c.permitted().as_ref())),
        inheritable: bitmap(caps.and_then(|c| c.inheritable().as_ref())),
        ambient: bitmap(caps.and_then(|c| c.ambient().as_ref())),
    };
    let mut rlimits = Vec::new();
    for limit in process.rlimits().as_deref().unwrap_or_default() {
        if limit.soft() > limit.hard() {
            return Err(Refused::invalid("config.json: a soft rlimit above its hard limit"));
        }
        rlimits.push((rlimit(limit.typ()), limit.soft(), limit.hard()));
    }
    let container = Container {
        id: request.id.clone(),
        args,
        env,
        cwd,
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask(),
        terminal: request.tty,
        console_size: request.console_size.or_else(|| console(process.console_size())),
        hostname: spec.hostname().clone(),
        domainname: spec.domainname().clone(),
        // A read-only root gets one too: missing mount points are made in it, not in what is served.
        root: Root { export: "root".into(), read_only, overlay: request.overlay },
        mounts,
        rlimits,
        capabilities,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        oom_score_adj: process.oom_score_adj(),
        ignored: request.verbatim.as_ref().map_or(0, |v| v.ignored),
        plain: request.plain,
    };
    let resources = spec.linux().as_ref().and_then(|l| l.resources().as_ref());
    let mut warnings = Vec::new();
    if resources.is_some_and(limited) {
        warnings.push("config.json: linux.resources: limits are not set yet, the container runs without".into());
    }
    let annotations = spec.annotations().clone().unwrap_or_default().into_iter().collect();
    Ok(Plan { container, exports, oci_version: spec.version().clone(), annotations, warnings })
}

/// Whether limits are asked for (rules for devices are not: a container sees the Sentry's).
fn limited(r: &oci_spec::runtime::LinuxResources) -> bool {
    r.memory().is_some()
        || r.cpu().is_some()
        || r.pids().is_some()
        || r.block_io().is_some()
        || r.hugepage_limits().is_some()
        || r.unified().is_some()
}

fn console(size: Option<oci_spec::runtime::Box>) -> Option<(u16, u16)> {
    let size = size?;
    Some((u16::try_from(size.height()).ok()?, u16::try_from(size.width()).ok()?))
}

fn bytes(words: &[String]) -> Vec<Vec<u8>> {
    words.iter().map(|w| w.as_bytes().to_vec()).collect()
}

fn without_nul(words: &[Vec<u8>], what: &str) -> Result<(), Refused> {
    if words.iter().any(|w| w.contains(&0)) {
        return Err(Refused::invalid(format!("config.json: {what} contains a NUL byte")));
    }
    Ok(())
}

fn one_mount(mount: &oci_spec::runtime::Mount, bundle: &Path, exports: &mut Vec<ExportPath>) -> Result<Mount, Refused> {
    let destination = mount.destination();
    if destination.components().any(|c| c == Component::ParentDir) {
        return Err(Refused::invalid(format!("config.json: mount destination {} has ..", destination.display())));
    }
    // runc takes a relative destination as relative to the root.
    let destination = Path::new("/").join(destination);
    let none = Vec::new();
    let words = mount.options().as_ref().unwrap_or(&none);
    let mut options = MountOptions::default();
    let mut bind = mount.typ().as_deref() == Some("bind");
    let (mut size, mut mode) = (None, None);
    for word in words {
        match word.as_str() {
            "ro" => options.read_only = true,
            "rw" => options.read_only = false,
            "nosuid" => options.nosuid = true,
            "nodev" => options.nodev = true,
            "noexec" => options.noexec = true,
            "bind" | "rbind" => bind = true,
            other => {
                if let Some(text) = other.strip_prefix("size=") {
                    size = Some(parse_size(text)?);
                } else if let Some(text) = other.strip_prefix("mode=") {
                    let bad = |_| Refused::invalid(format!("config.json: mount option mode={text}"));
                    mode = Some(u32::from_str_radix(text, 8).map_err(bad)? & 0o7777);
                }
            }
        }
    }
    let source = if bind {
        let path = mount.source().as_ref().ok_or_else(|| {
            Refused::invalid(format!("config.json: bind mount on {} without a source", destination.display()))
        })?;
        let name = format!("mount{}", exports.len());
        exports.push(ExportPath {
            name: name.clone(),
            path: if path.is_absolute() { path.clone() } else { bundle.join(path) },
            read_only: options.read_only,
        });
        MountSource::Export(name)
    } else {
        match mount.typ().as_deref().unwrap_or_default() {
            "proc" => MountSource::Proc,
            "sysfs" => MountSource::Sysfs,
            "tmpfs" if destination == Path::new("/dev") => MountSource::Devtmpfs,
            "devtmpfs" => MountSource::Devtmpfs,
            "tmpfs" => MountSource::Tmpfs { size, mode },
            "devpts" => MountSource::Devpts,
            "mqueue" => MountSource::Mqueue,
            "cgroup" | "cgroup2" => MountSource::Cgroup,
            other => {
                return Err(Refused::invalid(format!(
                    "config.json: mount of type {other:?} on {} is not supported",
                    destination.display()
                )));
            }
        }
    };
    Ok(Mount { destination: destination.into_os_string().into_vec(), source, options })
}

/// `N`, `Nk`, `Nm` or `Ng`, as tmpfs takes it.
fn parse_size(text: &str) -> Result<u64, Refused> {
    let bad = || Refused::invalid(format!("config.json: mount option size={text}"));
    let shift = match text.chars().last().ok_or_else(bad)? {
        'k' | 'K' => 10,
        'm' | 'M' => 20,
        'g' | 'G' => 30,
        _ => 0,
    };
    let digits = if shift == 0 { text } else { text.get(..text.len() - 1).ok_or_else(bad)? };
    let number: u64 = digits.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).ok_or_else(bad)
}

/// RLIMIT_ numbers of x86 (setrlimit(2)).
fn rlimit(kind: PosixRlimitType) -> u32 {
    use PosixRlimitType as R;
    match kind {
        R::RlimitCpu => 0,
        R::RlimitFsize => 1,
        R::RlimitData => 2,
        R::RlimitStack => 3,
        R::RlimitCore => 4,
        R::RlimitRss => 5,
        R::RlimitNproc => 6,
        R::RlimitNofile => 7,
        R::RlimitMemlock => 8,
        R::RlimitAs => 9,
        R::RlimitLocks => 10,
        R::RlimitSigpending => 11,
        R::RlimitMsgqueue => 12,
        R::RlimitNice => 13,
        R::RlimitRtprio => 14,
        R::RlimitRttime => 15,
    }
}

/// Capabilities in the order of their numbers (capabilities(7)).
const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

fn bitmap(set: Option<&Capabilities>) -> u64 {
    let mut bits = 0;
    for capability in set.into_iter().flatten() {
        let name = serde_json::to_value(capability).ok();
        let name = name.as_ref().and_then(serde_json::Value::as_str);
        if let Some(number) = CAPABILITIES.iter().position(|c| Some(*c) == name) {
            bits |= 1 << number;
        }
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;
    use cofferdam_control::client::Owner;
    use cofferdam_control::sentry::PlatformChoice;

    fn request() -> Create {
        Create {
            id: "c".into(),
            bundle: b"/bundle".to_vec(),
            config: None,
            overlay: true,
            platform: PlatformChoice::Auto,
            patch: true,
            plain: false,
            owner: Owner::Itself,
            tty: false,
            console_size: None,
            log: None,
            trace_startup: false,
            verbatim: None,
        }
    }

    const MINIMAL: &str = r#"{"ociVersion":"1.0.2","process":{"user":{"uid":1,"gid":2},"args":["sh"],"cwd":"/",
        "rlimits":[{"type":"RLIMIT_NOFILE","soft":10,"hard":20}],
        "capabilities":{"bounding":["CAP_CHOWN","CAP_CHECKPOINT_RESTORE"]}},
        "root":{"path":"rootfs"},"mounts":[{"destination":"/x","type":"bind","source":"y","options":["rbind","ro"]},
        {"destination":"/dev","type":"tmpfs"},{"destination":"/t","type":"tmpfs","options":["size=64k","mode=1777"]}]}"#;

    #[test]
    fn a_document_becomes_exports_and_a_container() {
        let plan = plan(MINIMAL.as_bytes(), &request()).unwrap();
        assert_eq!(plan.exports[0].path, Path::new("/bundle/rootfs"));
        assert!(plan.exports[0].read_only && plan.container.root.overlay);
        assert_eq!((plan.exports[1].path.as_path(), plan.exports[1].read_only), (Path::new("/bundle/y"), true));
        assert_eq!(plan.container.mounts[1].source, MountSource::Devtmpfs);
        assert_eq!(plan.container.mounts[2].source, MountSource::Tmpfs { size: Some(65536), mode: Some(0o1777) });
        assert_eq!(plan.container.capabilities.bounding, 1 | 1 << 40);
        assert_eq!(plan.container.rlimits, [(7, 10, 20)]);
        assert_eq!((plan.container.uid, plan.container.gid), (1, 2));
        assert!(plan.warnings.is_empty());
    }

    #[test]
    fn limits_that_are_not_set_are_told_and_rules_for_devices_are_not() {
        for (resources, told) in [
            (r#"{"devices":[{"allow":false,"access":"rwm"}]}"#, 0),
            (r#"{"memory":{"limit":1000000}}"#, 1),
            (r#"{"pids":{"limit":10},"cpu":{"shares":5}}"#, 1),
        ] {
            let text = MINIMAL.replacen("{", &format!("{{\"linux\":{{\"resources\":{resources}}},"), 1);
            assert_eq!(plan(text.as_bytes(), &request()).unwrap().warnings.len(), told, "{resources}");
        }
    }

    #[test]
    fn documents_that_make_no_sense_are_refused_with_a_reason() {
        for (from, to, says) in [
            (r#""args":["sh"],"#, r#""args":[],"#, "args cannot be empty"),
            (r#""cwd":"/""#, r#""cwd":"x""#, "absolute"),
            (r#""root":{"path":"rootfs"},"#, "", "root property"),
            (r#""sh""#, r#""s\u0000h""#, "NUL"),
            (r#""/x""#, r#""/../x""#, ".."),
            ("size=64k", "size=18446744073709551615g", "size="),
            ("mode=1777", "mode=9", "mode="),
            (r#""type":"tmpfs"}"#, r#""type":"nfs"}"#, "not supported"),
            (r#""soft":10"#, r#""soft":30"#, "rlimit"),
            ("{\"ociVersion\"", "{\"ociVersion", "config.json"),
        ] {
            let text = MINIMAL.replacen(from, to, 1);
            assert_ne!(text, MINIMAL);
            let refused = plan(text.as_bytes(), &request()).unwrap_err();
            assert_eq!(refused.kind, FailureKind::Invalid);
            assert!(refused.message.contains(says), "{}", refused.message);
        }
    }
}
