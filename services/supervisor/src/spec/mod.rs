//! From an OCI config.json to what the services need to know: the exports for the Gofer, the container for the Sentry.
//!
//! The document comes from whoever runs the command line, not from a container; it is bounded in size all the same. Whatever a
//! sandbox does not honour is refused by name here, or a warning in [`Plan::warnings`] (docs/OCI.md is the table).
//! This module opens nothing. Called by `sandbox`.

mod document;
mod linux;
mod mounts;
mod process;
mod seccomp;

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use cofferdam_control::client::{Create, Private, Tree, Verbatim};
use cofferdam_control::oci::{self, ms};
use cofferdam_control::rules::Rules;
use cofferdam_control::sentry::{
    Container, FailureKind, FileAccess, Limits, Mount, MountSource, Process, Root, Shared,
};
use oci_spec::runtime::{Linux, Spec};
use serde::Serialize;

use process::one_process;

/// The largest config.json in bytes.
pub const MAX_DOCUMENT: u64 = 1 << 20;
/// The most bind mounts of a container: each costs a descriptor in the Gofer.
const MAX_EXPORTS: usize = 200;
/// The most mounts, masked and read-only paths, devices and settings.
const MAX_MOUNTS: usize = 4096;
/// The longest host or domain name (`__NEW_UTS_LEN`).
const MAX_NAME: usize = 64;

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
    /// The name of one before it that it must be on one mount with: an overlay's work directory and what takes its changes.
    pub beside: Option<String>,
    /// What of the host's mounts there it is to be.
    pub tree: Option<Tree>,
    /// Whether what the host mounts there later is to be seen, once it is opened.
    pub follows: bool,
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
    /// The namespaces that are asked for, and the paths of those to join.
    pub namespaces: linux::Namespaces,
    /// Hooks, as they are written; the command line runs them.
    pub hooks: serde_json::Value,
    /// The host's socket that is told when it says that it is ready, if the document names it.
    pub notify: Option<PathBuf>,
    /// What may pass between the sandbox and its network, if the document says so.
    pub rules: Option<Rules>,
}

/// What a container has on the host, as it is recorded.
#[derive(Debug, Serialize)]
pub struct Outside {
    /// Its root directory.
    rootfs: String,
    #[serde(rename = "readOnly")]
    read_only: bool,
    mounts: Vec<Branch>,
    /// The path of its network namespace, empty for a new one; nothing for the host's.
    network: Option<String>,
    /// The socket that is told when it says that it is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    notify: Option<String>,
}

/// What is mounted somewhere below its root.
#[derive(Debug, Serialize)]
struct Branch {
    destination: String,
    /// Where it is on the host; nothing if it is the sandbox's own.
    source: Option<String>,
    #[serde(rename = "readOnly")]
    read_only: bool,
}

impl Plan {
    /// Whether its root could have ports below 1024 in the host's own network, were it no sandbox: only the root of the host's users can.
    pub fn may_have_low_ports(&self) -> bool {
        const NET_BIND_SERVICE: u32 = 10;
        let bounding = self.container.process.capabilities.bounding;
        self.container.user_namespace.is_none() && bounding >> NET_BIND_SERVICE & 1 != 0
    }

    /// What it has on the host. (A document's paths are text.)
    pub fn outside(&self) -> Outside {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let root = self.exports.first();
        let mounts = self.container.mounts.iter().filter_map(|mount| {
            let export = match &mount.source {
                MountSource::Export { name, .. } => Some(self.exports.iter().find(|e| e.name == *name)?),
                // Nobody can look at an overlay from outside: a second one over the same directories is none that Linux allows.
                MountSource::System { .. } | MountSource::Overlay { .. } => None,
                MountSource::Again => return None,
            };
            Some(Branch {
                destination: String::from_utf8_lossy(&mount.destination).into_owned(),
                source: export.map(|e| text(&e.path)),
                read_only: export.is_some_and(|e| e.read_only),
            })
        });
        let network = self.namespaces.iter().find(|(kind, _)| kind == "network");
        Outside {
            rootfs: root.map(|r| text(&r.path)).unwrap_or_default(),
            read_only: root.is_some_and(|r| r.read_only),
            mounts: mounts.collect(),
            network: network.map(|(_, path)| path.as_deref().map(text).unwrap_or_default()),
            notify: self.notify.as_deref().map(text),
        }
    }
}

/// Reads `document` for the container that `request` asks for.
pub fn plan(document: &[u8], request: &Create) -> Result<Plan, Refused> {
    let bundle = PathBuf::from(std::ffi::OsString::from_vec(request.bundle.clone()));
    let mut warnings = Vec::new();
    let (spec, written): (Spec, _) = document::read(document, "config.json", "/process", &mut warnings)?;
    let process =
        spec.process().as_ref().ok_or_else(|| Refused::invalid("config.json: process property must be set"))?;
    warnings.extend(process::unheeded(process));
    let mut process = one_process(process, request.verbatim.as_ref(), "config.json")?;
    process.terminal = request.tty;
    process.more_files = request.more_files;
    process.console_size = request.console_size.or(process.console_size);
    if request.listen_files > 0 {
        // Whatever number it has, as runc.
        let words = [format!("LISTEN_FDS={}", request.listen_files), "LISTEN_PID=1".into()];
        process.env.extend(words.map(String::into_bytes));
    }
    let root = spec.root().as_ref().ok_or_else(|| Refused::invalid("config.json: root property must be set"))?;
    if root.path().as_os_str().as_bytes().contains(&0) {
        return Err(Refused::invalid("invalid rootfs: invalid argument"));
    }
    let root_path = if root.path().is_absolute() { root.path().clone() } else { bundle.join(root.path()) };
    let read_only = root.readonly().unwrap_or(false);
    let overlay = match spec.annotations().as_ref().and_then(|a| a.get(oci::ANNOTATION_OVERLAY)).map(String::as_str) {
        None => request.overlay,
        Some("on") => true,
        Some("off") => false,
        Some(_) => {
            let name = oci::ANNOTATION_OVERLAY;
            return Err(Refused::invalid(format!("config.json: annotation {name}: want on or off")));
        }
    };
    let root_export = ExportPath {
        name: "root".into(),
        path: root_path,
        read_only: read_only || overlay,
        beside: None,
        tree: None,
        follows: false,
    };
    let mut exports = vec![root_export];
    let mut mounts = Vec::new();
    for mount in spec.mounts().as_deref().unwrap_or_default() {
        mounts.extend(mounts::one_mount(mount, &bundle, request.mounts_access, &mut exports, &mut warnings)?);
    }
    if exports.len() > MAX_EXPORTS {
        return Err(Refused::invalid(format!(
            "config.json: more than {MAX_EXPORTS} bind mounts and layers of overlays"
        )));
    }
    let mut root_access = request.root_access;
    for (key, value) in spec.annotations().iter().flatten() {
        let Some(destination) = key.strip_prefix(oci::ANNOTATION_ACCESS) else { continue };
        *access_of(destination, &mut root_access, &mut mounts).ok_or_else(|| {
            Refused::invalid(format!("config.json: annotation {key}: no bind mount or overlay there"))
        })? = match value.as_str() {
            "exclusive" => FileAccess::Exclusive,
            "shared" => FileAccess::Shared,
            _ => return Err(Refused::invalid(format!("config.json: annotation {key}: want exclusive or shared"))),
        };
    }
    let rules = match spec.annotations().as_ref().and_then(|a| a.get(oci::ANNOTATION_RULES)) {
        None => None,
        Some(text) => Some(Rules::parse(text).map_err(|e| {
            let name = oci::ANNOTATION_RULES;
            Refused::invalid(format!("config.json: annotation {name}: {e}"))
        })?),
    };
    let none: Linux = serde_json::from_str("{}").map_err(|e| Refused::invalid(e.to_string()))?;
    let (linux, without) = match spec.linux() {
        Some(linux) => (linux, false),
        None => (&none, true),
    };
    let mut namespaces = linux::Namespaces::new();
    if without {
        warnings
            .push("config.json: there is no linux section: the sandbox has namespaces of its own all the same".into());
    } else {
        namespaces = linux::namespaces(linux, &mut warnings)?;
    }
    linux::needs(&spec, linux, &namespaces)?;
    for (name, what) in [(spec.hostname(), "sethostname"), (spec.domainname(), "setdomainname")] {
        if name.as_ref().is_some_and(|n| n.len() > MAX_NAME || n.contains('\0')) {
            return Err(Refused::invalid(format!("{what}: invalid argument")));
        }
    }
    for (name, there) in [
        ("solaris", spec.solaris().is_some()),
        ("windows", spec.windows().is_some()),
        ("vm", spec.vm().is_some()),
        ("zos", spec.zos().is_some()),
    ] {
        if there {
            warnings.push(format!("config.json: {name}: means nothing to a sandbox of Linux programs"));
        }
    }
    let filter = match linux.seccomp() {
        Some(profile) if !without => Some(seccomp::compile(profile)?),
        _ => None,
    };
    let of_host = |m: &Mount| matches!(m.source, MountSource::Export { .. } | MountSource::Overlay { .. });
    let dev = !mounts.iter().any(|m| m.destination == b"/dev" && of_host(m));
    let mut container = Container {
        id: request.id.clone(),
        process,
        hostname: spec.hostname().clone().filter(|n| !n.is_empty()),
        domainname: spec.domainname().clone().filter(|n| !n.is_empty()),
        // A read-only root gets one too: missing mount points are made in it, not in what is served.
        root: Root { export: "root".into(), access: root_access, read_only, overlay: overlay || read_only },
        mounts,
        dev,
        devices: Vec::new(),
        masked: Vec::new(),
        read_only_paths: Vec::new(),
        sysctl: Vec::new(),
        propagation: 0,
        user_namespace: None,
        personality: None,
        seccomp: filter,
        limits: Limits::default(),
        plain: request.plain,
        namespaces: Shared::default(),
        notify: None,
    };
    let mut notify = None;
    if request.notify {
        mounts::notify(&mut container);
    } else {
        notify = mounts::notify_of_document(&mut container, &mut exports);
    }
    if !without {
        if !namespaces.iter().any(|(kind, _)| kind == "uts") {
            // It is to be in the host's: it has the host's name, though a copy of it.
            container.hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|n| n.trim().to_owned());
        }
        container.devices = linux::devices(linux, &mut warnings)?;
        container.masked = linux::paths(linux.masked_paths(), "maskedPaths")?;
        container.read_only_paths = linux::paths(linux.readonly_paths(), "readonlyPaths")?;
        container.sysctl = linux::sysctl(linux, &namespaces, &mut warnings)?;
        container.propagation = linux::propagation(linux)?;
        if container.propagation & ms::SHARED != 0 {
            warnings
                .push("config.json: linux.rootfsPropagation: shared: what is mounted inside stays inside".to_owned());
        }
        if container.propagation & (ms::PRIVATE | ms::UNBINDABLE) != 0 {
            // What is bound is bound from there.
            exports.iter_mut().filter_map(|e| e.tree.as_mut()).for_each(|tree| tree.private = Private::All);
        }
        container.user_namespace = linux::maps(linux, &namespaces, &mut warnings)?;
        container.personality = linux::personality(linux)?;
        linux::unheeded(linux, &mut warnings)?;
    }
    let many = [container.mounts.len(), container.devices.len(), container.masked.len()];
    let more = [container.read_only_paths.len(), container.sysctl.len()];
    if many.iter().chain(&more).any(|n| *n > MAX_MOUNTS) {
        return Err(Refused::invalid(format!("config.json: more than {MAX_MOUNTS} mounts, paths or devices")));
    }
    let hooks = written.get("hooks").cloned().unwrap_or_default();
    check_hooks(&spec)?;
    let annotations = spec.annotations().clone().unwrap_or_default().into_iter().collect();
    let oci_version = spec.version().clone();
    Ok(Plan { container, exports, oci_version, annotations, warnings, namespaces, hooks, notify, rules })
}

/// The process of an `exec`.
pub fn exec_process(document: &[u8], verbatim: Option<&Verbatim>) -> Result<Process, Refused> {
    // What it does not get it is not told of: the log is the container's.
    let (process, _): (oci_spec::runtime::Process, _) = document::read(document, "process", "", &mut Vec::new())?;
    one_process(&process, verbatim, "process")
}

/// Hooks that could not be run whoever ran them.
fn check_hooks(spec: &Spec) -> Result<(), Refused> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    #[allow(deprecated, reason = "prestart is still what some clients write")]
    let all = [
        hooks.prestart(),
        hooks.create_runtime(),
        hooks.create_container(),
        hooks.start_container(),
        hooks.poststart(),
        hooks.poststop(),
    ];
    for (list, name) in all.iter().zip(oci::HOOKS) {
        for hook in list.as_deref().unwrap_or_default() {
            if !hook.path().is_absolute() {
                return Err(Refused::invalid(format!(
                    "hooks.{name}: path {:?} is not absolute",
                    hook.path().display().to_string()
                )));
            }
            if hook.timeout().is_some_and(|t| t <= 0) {
                return Err(Refused::invalid(format!("hooks.{name}: timeout must be greater than zero")));
            }
        }
    }
    Ok(())
}

/// Where it is kept who changes the files that are seen at `destination`.
fn access_of<'a>(destination: &str, root: &'a mut FileAccess, mounts: &'a mut [Mount]) -> Option<&'a mut FileAccess> {
    if destination == "/" {
        return Some(root);
    }
    mounts.iter_mut().rev().find_map(|m| match &mut m.source {
        MountSource::Export { access, .. } | MountSource::Overlay { access, .. }
            if m.destination == destination.as_bytes() =>
        {
            Some(access)
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use cofferdam_control::client::{NOTIFY_SOCKET, Owner};
    use cofferdam_control::sentry::PlatformChoice;

    fn request() -> Create {
        Create {
            id: "c".into(),
            bundle: b"/bundle".to_vec(),
            config: None,
            overlay: true,
            root_access: FileAccess::Exclusive,
            mounts_access: FileAccess::Shared,
            platform: PlatformChoice::Auto,
            patch: true,
            plain: false,
            owner: Owner::Itself,
            systemd_cgroup: false,
            tty: false,
            more_files: 0,
            listen_files: 0,
            console_size: None,
            log: None,
            trace_startup: false,
            notify: false,
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
        let tmpfs = |data: &str| MountSource::System { kind: "tmpfs".into(), data: data.into() };
        assert_eq!(plan.container.mounts[1].source, tmpfs(""));
        assert_eq!(plan.container.mounts[2].source, tmpfs("size=64k,mode=1777"));
        assert_eq!(plan.container.process.capabilities.bounding, 1 | 1 << 40);
        assert_eq!(plan.container.process.rlimits, [(7, 10, 20)]);
        assert_eq!((plan.container.process.uid, plan.container.process.gid), (1, 2));
        assert_eq!(plan.warnings.len(), 1, "{:?}", plan.warnings);
        assert!(plan.warnings[0].contains("no linux section"));
    }

    #[test]
    fn the_layers_of_an_overlay_become_exports() {
        let with = |options: &str| {
            let overlay =
                format!(r#""mounts":[{{"destination":"/o","type":"overlay","source":"m","options":[{options}]}},"#);
            plan(MINIMAL.replacen(r#""mounts":["#, &overlay, 1).as_bytes(), &request())
        };
        let made = with(r#""lowerdir=low:/a\\:b","workdir=/w","ro","upperdir=/u","private","volatile""#).unwrap();
        let exports: Vec<_> =
            made.exports[1..5].iter().map(|e| (e.path.to_str().unwrap(), e.read_only, e.beside.as_deref())).collect();
        let wanted = [
            ("/bundle/low", true, None),
            ("/a:b", true, None),
            ("/u", false, None),
            ("/w", false, Some(made.exports[3].name.as_str())),
        ];
        assert_eq!(exports, wanted);
        let MountSource::Overlay { data, layers, .. } = &made.container.mounts[0].source else { panic!("no overlay") };
        assert_eq!(data, "lowerdir=low:/a\\:b,workdir=/w,upperdir=/u,volatile");
        let names: Vec<_> = layers.iter().map(|l| (l.path.as_slice(), l.changed)).collect();
        assert_eq!(names, [(&b"low"[..], false), (b"/a:b", false), (b"/u", true), (b"/w", true)]);
        // Nothing that a second overlay on the host would be made of.
        assert_eq!(serde_json::to_value(made.outside()).unwrap()["mounts"][0]["source"], serde_json::Value::Null);
        for (wrong, why) in [
            (r#""lowerdir=/a:/a/b""#, "too many levels"),
            (r#""lowerdir=/u/x","upperdir=/u","workdir=/w""#, "too many levels"),
            (r#""lowerdir=/a","upperdir=/u","workdir=/u/./w""#, "invalid argument"),
        ] {
            let refused = with(wrong).unwrap_err();
            assert!(refused.message.contains(why), "{wrong}: {}", refused.message);
        }
        assert!(with(r#""lowerdir=/u:/b","upperdir=/u/up","workdir=/u/work""#).is_ok());
    }

    #[test]
    fn what_a_container_has_on_the_host_is_recorded() {
        let plan = with_linux("").unwrap();
        let mount = |to: &str, from: Option<&str>, read_only: bool| serde_json::json!({"destination": to, "source": from, "readOnly": read_only});
        let mounts = [mount("/x", Some("/bundle/y"), true), mount("/dev", None, false), mount("/t", None, false)];
        let wanted = serde_json::json!({"rootfs": "/bundle/rootfs", "readOnly": true, "mounts": mounts, "network": ""});
        assert_eq!(serde_json::to_value(plan.outside()).unwrap(), wanted);
        let network = |plan: Plan| serde_json::to_value(plan.outside()).unwrap()["network"].take();
        assert_eq!(network(super::plan(MINIMAL.as_bytes(), &request()).unwrap()), serde_json::Value::Null);
        let joins = MINIMAL.replacen('{', r#"{"linux":{"namespaces":[{"type":"network","path":"/run/n"}]},"#, 1);
        assert_eq!(network(super::plan(joins.as_bytes(), &request()).unwrap()), "/run/n");
    }

    #[test]
    fn a_folder_where_a_manager_listens_is_the_sandboxes_own() {
        let with = |to: &str, socket: &str| {
            let text = MINIMAL.replacen(r#""/x","type":"bind""#, &format!(r#""{to}","type":"bind""#), 1);
            let env = format!(r#""env":["NOTIFY_SOCKET={socket}"],"args""#);
            let text = text.replacen(r#""args""#, &env, 1);
            assert!(text.contains(to) && text.contains(socket));
            plan(text.as_bytes(), &request()).unwrap()
        };
        let named = with("/run/notify", NOTIFY_SOCKET);
        assert_eq!(named.outside().notify.as_deref(), Some("/bundle/y/notify.sock"));
        assert_eq!(named.container.notify.as_deref(), Some(NOTIFY_SOCKET.as_bytes()));
        assert_eq!((named.exports.len(), named.container.mounts.len()), (1, 3));
        // Any other folder is what it is.
        for (to, socket) in [("/run/notify", "/run/other/notify.sock"), ("/run/other", NOTIFY_SOCKET)] {
            let other = with(to, socket);
            assert_eq!((other.notify, other.container.notify, other.exports.len()), (None, None, 2));
        }
        let asked = plan(MINIMAL.as_bytes(), &Create { notify: true, ..request() }).unwrap();
        assert_eq!((asked.notify, asked.container.notify.as_deref()), (None, Some(NOTIFY_SOCKET.as_bytes())));
        assert_eq!((asked.exports.len(), asked.container.mounts.len()), (2, 4));
    }

    #[test]
    fn a_hierarchy_of_the_hosts_cgroups_is_left_out() {
        let bound = |to: &str| {
            let text = MINIMAL.replacen(
                r#""/x","type":"bind","source":"y""#,
                &format!(r#""{to}","type":"bind","source":"/sys/fs/cgroup/systemd""#),
                1,
            );
            plan(text.as_bytes(), &request()).unwrap()
        };
        let left = bound("/sys/fs/cgroup/systemd");
        assert_eq!((left.exports.len(), left.container.mounts.len()), (1, 2));
        assert!(left.warnings.iter().any(|w| w.contains("/sys/fs/cgroup/systemd: left out")), "{:?}", left.warnings);
        assert_eq!(bound("/elsewhere").exports.len(), 2);
    }

    #[test]
    fn annotations_say_what_may_pass() {
        let with = |rules: &str| {
            let name = oci::ANNOTATION_RULES;
            plan(
                MINIMAL.replacen("{", &format!(r#"{{"annotations":{{"{name}":"{rules}"}},"#), 1).as_bytes(),
                &request(),
            )
        };
        assert_eq!(plan(MINIMAL.as_bytes(), &request()).unwrap().rules, None);
        assert_eq!(with("").unwrap().rules, Some(Rules::default()));
        let rules = with("out allow tcp 10.0.0.1:443; out default deny").unwrap().rules.unwrap();
        assert_eq!((rules.list.len(), rules.is_open(cofferdam_control::rules::Direction::Out)), (1, false));
        let refused = with("out deny all\\nout deny nonsense").unwrap_err();
        assert_eq!(refused.kind, FailureKind::Invalid);
        let said = "config.json: annotation dev.cofferdam.network-rules: rule \"out deny nonsense\": no address";
        assert!(refused.message.starts_with(said), "{refused}");
    }

    #[test]
    fn annotations_say_who_changes_the_files_of_a_mount() {
        let with = |key: &str, value: &str| {
            plan(MINIMAL.replacen("{", &format!(r#"{{"annotations":{{"{key}":"{value}"}},"#), 1).as_bytes(), &request())
        };
        let of = |plan: Plan| {
            let MountSource::Export { access, .. } = plan.container.mounts[0].source else { panic!("no bind mount") };
            (plan.container.root.access, access)
        };
        let (exclusive, shared) = (FileAccess::Exclusive, FileAccess::Shared);
        assert_eq!(of(with("other", "x").unwrap()), (exclusive, shared));
        assert_eq!(of(with("dev.cofferdam.file-access/", "shared").unwrap()), (shared, shared));
        assert_eq!(of(with("dev.cofferdam.file-access/x", "exclusive").unwrap()), (exclusive, exclusive));
        for (key, value, says) in [("/x", "private", "exclusive or shared"), ("/t", "shared", "no bind mount")] {
            let refused = with(&format!("dev.cofferdam.file-access{key}"), value).unwrap_err();
            assert!(refused.message.contains(says), "{}", refused.message);
        }
    }

    fn with_linux(linux: &str) -> Result<Plan, Refused> {
        let all = r#""namespaces":[{"type":"pid"},{"type":"network"},{"type":"ipc"},{"type":"uts"},{"type":"mount"}]"#;
        let text = MINIMAL.replacen("{", &format!("{{\"linux\":{{{all}{linux}}},"), 1);
        plan(text.as_bytes(), &request())
    }

    #[test]
    fn without_a_uts_namespace_it_has_the_hosts_name() {
        let name = |linux: &str| {
            let text = MINIMAL.replacen('{', &format!(r#"{{"linux":{{"namespaces":[{linux}]}},"#), 1);
            plan(text.as_bytes(), &request()).unwrap().container.hostname
        };
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(name(r#"{"type":"mount"}"#).as_deref(), Some(host.trim()));
        assert_eq!(name(r#"{"type":"uts"}"#), None);
    }

    #[test]
    fn what_linux_says_reaches_the_container() {
        let plan = with_linux(
            r#","maskedPaths":["/proc/kcore"],"readonlyPaths":["/proc/sys"],"sysctl":{"kernel.sem":"1 2 3 4","net.a":"1"},
            "rootfsPropagation":"slave","devices":[{"path":"/dev/x","type":"c","major":10,"minor":229,"fileMode":384,"uid":5}]"#,
        )
        .unwrap();
        let c = &plan.container;
        assert_eq!((c.masked[0].as_slice(), c.read_only_paths[0].as_slice()), (&b"/proc/kcore"[..], &b"/proc/sys"[..]));
        assert_eq!(c.sysctl, [(b"kernel/sem".to_vec(), b"1 2 3 4".to_vec())]);
        assert_eq!(c.propagation, 1 << 19);
        assert_eq!((c.devices[0].mode, c.devices[0].uid), (0o020600, 5));
        assert_eq!(plan.warnings.len(), 2, "{:?}", plan.warnings);
        assert_eq!(plan.namespaces.len(), 5);
        for (linux, says) in [
            (r#","sysctl":{"vm.swappiness":"1"}"#, "sysctl \"vm.swappiness\" is not in a separate kernel namespace"),
            (r#","rootfsPropagation":"slaves""#, "rootfsPropagation=slaves is not supported"),
            (r#","devices":[{"path":"/dev/x","type":"x"}]"#, "invalid device type \"x\""),
            (r#","seccomp":{"defaultAction":"SCMP_ACT_NOTIFY"}"#, "SCMP_ACT_NOTIFY"),
        ] {
            let refused = with_linux(linux).unwrap_err();
            assert!(refused.message.contains(says), "{}", refused.message);
        }
    }

    #[test]
    fn documents_that_make_no_sense_are_refused_with_a_reason() {
        for (from, to, says) in [
            (r#""args":["sh"],"#, r#""args":[],"#, "args must not be empty"),
            (r#""cwd":"/""#, r#""cwd":"x""#, "absolute"),
            (r#""root":{"path":"rootfs"},"#, "", "root property"),
            (r#""sh""#, r#""s\u0000h""#, "NUL"),
            (r#""/x""#, r#""/x\u0000""#, "null byte"),
            (r#""type":"tmpfs"}"#, r#""type":"nfs"}"#, "no such device"),
            ("RLIMIT_NOFILE", "RLIMIT_NONE", "invalid rlimit type: RLIMIT_NONE"),
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

    /// Every property of the specification's Linux and common parts (config.md, config-linux.md of 1.2), with a value, and whether it
    /// is honoured, or refused or warned about by a text.
    const PROPERTIES: &[(&str, &str, Option<&str>)] = &[
        ("/ociVersion", r#""1.2.0""#, None),
        ("/root/path", r#""rootfs""#, None),
        ("/root/readonly", "true", None),
        ("/mounts/0/destination", r#""/y""#, None),
        ("/mounts/0/source", r#""z""#, None),
        ("/mounts", r#"[{"destination":"/x","type":"tmpfs"}]"#, None),
        ("/mounts/0/options", r#"["bind","nodev"]"#, None),
        ("/mounts/0/uidMappings", r#"[{"containerID":0,"hostID":1,"size":1}]"#, Some("uidMappings")),
        ("/mounts/0/gidMappings", r#"[{"containerID":0,"hostID":1,"size":1}]"#, Some("gidMappings")),
        ("/process/terminal", "true", None),
        ("/process/consoleSize", r#"{"height":5,"width":6}"#, None),
        ("/process/cwd", r#""/tmp""#, None),
        ("/process/env", r#"["A=b"]"#, None),
        ("/process/args", r#"["a"]"#, None),
        ("/process/commandLine", r#""a""#, Some("commandLine")),
        ("/process/rlimits", r#"[{"type":"RLIMIT_CORE","soft":1,"hard":1}]"#, None),
        ("/process/apparmorProfile", r#""p""#, Some("apparmorProfile")),
        ("/process/capabilities/bounding", r#"["CAP_KILL"]"#, None),
        ("/process/capabilities/effective", r#"["CAP_KILL"]"#, None),
        ("/process/capabilities/permitted", r#"["CAP_KILL"]"#, None),
        ("/process/capabilities/inheritable", r#"["CAP_KILL"]"#, None),
        ("/process/capabilities/ambient", r#"["CAP_KILL"]"#, None),
        ("/process/noNewPrivileges", "true", None),
        ("/process/oomScoreAdj", "5", None),
        ("/process/scheduler", r#"{"policy":"SCHED_BATCH","nice":5,"flags":["SCHED_RESET_ON_FORK"]}"#, None),
        ("/process/scheduler", r#"{"policy":"SCHED_OTHER","runtime":5}"#, Some("process.scheduler")),
        ("/process/scheduler", r#"{"policy":"SCHED_DEADLINE"}"#, Some("process.scheduler")),
        ("/process/selinuxLabel", r#""l""#, Some("selinuxLabel")),
        ("/process/ioPriority", r#"{"class":"IOPRIO_CLASS_IDLE","priority":1}"#, None),
        ("/process/execCPUAffinity", r#"{"initial":"0","final":"1"}"#, Some("execCPUAffinity")),
        ("/process/user/uid", "5", None),
        ("/process/user/gid", "5", None),
        ("/process/user/umask", "18", None),
        ("/process/user/additionalGids", "[5]", None),
        ("/process/user/username", r#""u""#, Some("username")),
        ("/hostname", r#""h""#, None),
        ("/domainname", r#""d""#, None),
        ("/hooks/prestart", r#"[{"path":"/x"}]"#, None),
        ("/hooks/createRuntime", r#"[{"path":"/x","args":["x"],"env":["A=b"],"timeout":5}]"#, None),
        ("/hooks/createContainer", r#"[{"path":"/x"}]"#, None),
        ("/hooks/startContainer", r#"[{"path":"/x"}]"#, None),
        ("/hooks/poststart", r#"[{"path":"/x"}]"#, None),
        ("/hooks/poststop", r#"[{"path":"/x"}]"#, None),
        ("/annotations", r#"{"a":"b"}"#, None),
        ("/linux/namespaces", "[]", Some("linux.namespaces")),
        ("/linux/uidMappings", r#"[{"containerID":0,"hostID":1,"size":1}]"#, Some("uidMappings")),
        ("/linux/gidMappings", r#"[{"containerID":0,"hostID":1,"size":1}]"#, Some("gidMappings")),
        ("/linux/timeOffsets", r#"{"boottime":{"secs":5,"nanosecs":5}}"#, Some("linux.timeOffsets")),
        ("/linux/devices", r#"[{"path":"/dev/x","type":"c","major":1,"minor":3,"fileMode":6,"uid":5,"gid":5}]"#, None),
        ("/linux/devices", r#"[{"path":"/dev/x","type":"b","major":8,"minor":0}]"#, Some("linux.devices")),
        ("/linux/netDevices", r#"{"eth0":{}}"#, Some("linux.netDevices")),
        ("/linux/cgroupsPath", r#""/c""#, None),
        ("/linux/rootfsPropagation", r#""slave""#, None),
        ("/linux/rootfsPropagation", r#""shared""#, Some("rootfsPropagation")),
        ("/mounts/0/options", r#"["bind","rshared"]"#, Some("bind mount on /x: shared")),
        (
            "/linux/seccomp",
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":5,"architectures":["SCMP_ARCH_X86"],
            "flags":["SECCOMP_FILTER_FLAG_LOG"],"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}"#,
            None,
        ),
        ("/linux/seccomp", r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/l"}"#, Some("listenerPath")),
        ("/linux/seccomp", r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerMetadata":"m"}"#, Some("listenerMetadata")),
        ("/linux/sysctl", r#"{"kernel.domainname":"d"}"#, None),
        ("/linux/sysctl", r#"{"net.core.somaxconn":"5"}"#, None),
        ("/linux/sysctl", r#"{"net.ipv4.conf.all.rp_filter":"1"}"#, Some("linux.sysctl")),
        ("/linux/maskedPaths", r#"["/x"]"#, None),
        ("/linux/readonlyPaths", r#"["/x"]"#, None),
        ("/linux/mountLabel", r#""l""#, Some("linux.mountLabel")),
        ("/linux/personality", r#"{"domain":"LINUX32"}"#, None),
        ("/linux/intelRdt", r#"{"closID":"x"}"#, Some("linux.intelRdt")),
        ("/linux/memoryPolicy", r#"{"mode":"MPOL_BIND","nodes":"0"}"#, Some("linux.memoryPolicy")),
        ("/linux/resources", r#"{"memory":{"limit":5000000}}"#, None),
        ("/solaris", "{}", Some("solaris")),
        ("/windows", r#"{"layerFolders":["x"]}"#, Some("windows")),
        ("/vm", r#"{"kernel":{"path":"/k"}}"#, Some("vm")),
        ("/zos", "{}", Some("zos")),
        ("/nonsense", "1", Some("nonsense")),
        ("/process/nonsense", "1", Some("process.nonsense")),
        ("/linux/nonsense", "1", Some("linux.nonsense")),
    ];

    /// A document with what every property needs to stand in.
    fn whole() -> serde_json::Value {
        let kinds = ["pid", "network", "ipc", "uts", "mount"].map(|kind| serde_json::json!({"type": kind}));
        serde_json::json!({
            "ociVersion": "1.0.2", "process": {"user": {}, "args": ["sh"], "cwd": "/", "capabilities": {}},
            "root": {"path": "r"}, "mounts": [{"destination": "/x", "source": "/s", "options": ["bind"]}], "hooks": {},
            "linux": {"namespaces": kinds},
        })
    }

    #[test]
    fn every_property_is_honoured_or_refused_or_warned_about() {
        let come_to = |document: &serde_json::Value| plan(document.to_string().as_bytes(), &request());
        let before = come_to(&whole()).unwrap();
        assert_eq!(before.warnings, [""; 0]);
        for (at, value, told) in PROPERTIES {
            let mut document = whole();
            let (parent, key) = at.rsplit_once('/').unwrap();
            let value: serde_json::Value = serde_json::from_str(value).unwrap();
            document.pointer_mut(parent).unwrap()[key] = value;
            match (told, come_to(&document)) {
                (Some(word), Ok(plan)) => {
                    assert!(plan.warnings.iter().any(|w| w.contains(word)), "{at}: {:?}", plan.warnings);
                }
                (Some(word), Err(refused)) => assert!(refused.message.contains(word), "{at}: {}", refused.message),
                (None, Ok(plan)) => {
                    assert_eq!(plan.warnings, [""; 0], "{at}");
                    // Limits are read from the document by `cgroups`, with warnings of its own.
                    let by_others = ["/linux/cgroupsPath", "/linux/resources", "/process/terminal"].contains(at);
                    let changed = format!("{plan:?}") != format!("{before:?}");
                    assert!(changed || by_others, "{at}: nothing came of it");
                }
                (None, Err(refused)) => panic!("{at}: {}", refused.message),
            }
        }
    }
}
