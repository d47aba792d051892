//! OCI documents that this program writes: the one behind `do`, and the template of `spec`.

use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use cofferdam_confine::caps;
use cofferdam_control::client::{NetworkFrom, Verbatim};
use cofferdam_control::oci;
use cofferdam_control::rules::Rules;
use serde_json::{Map, Value, json};

use crate::arguments::Do;
use crate::failure::Failure;
use crate::network::{NAMES, Network};

/// The largest document in bytes.
const MAX: u64 = 1 << 20;

/// All of a document of at most 1 MiB, which is called `name` where it is complained of.
pub fn read(source: impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    source.take(MAX + 1).read_to_end(&mut text).map_err(Failure::host(name))?;
    if text.len() as u64 > MAX { Err(Failure::Usage(format!("{name}: more than 1 MiB"))) } else { Ok(text) }
}

/// The JSON object in a file.
pub fn read_object(path: &Path) -> Result<Value, Failure> {
    let name = path.display().to_string();
    let text = read(std::fs::File::open(path).map_err(Failure::host(name.clone()))?, &name)?;
    let value: Value = serde_json::from_slice(&text).map_err(|e| Failure::Usage(format!("{name}: {e}")))?;
    if value.is_object() { Ok(value) } else { Err(Failure::Usage(format!("{name}: no object"))) }
}

/// What `spec` and Docker give a container by default.
const FEW: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
/// What `do` gives root inside: all that the caller's programs may ever hold. They count inside only, so none is worth withholding.
fn all() -> Result<Vec<String>, Failure> {
    let bounding = caps::read(None, caps::CapSet::Bounding);
    let bounding = bounding.map_err(|e| Failure::host("the capabilities of this process")(std::io::Error::other(e)))?;
    let mut names: Vec<String> = bounding.iter().map(ToString::to_string).collect();
    names.sort();
    Ok(names)
}

fn system_mounts() -> Vec<Value> {
    vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
               "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
               "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]}),
        json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
               "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]}),
        json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
               "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs",
               "options": ["nosuid", "noexec", "nodev", "ro"]}),
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
               "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}),
    ]
}

/// The template of `spec`.
pub fn template() -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": FEW, "effective": FEW, "permitted": FEW, "ambient": FEW},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "cofferdam",
        "mounts": system_mounts(),
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

/// The template of `spec --rootless`: root inside is the caller, in a user namespace with no other ids. As runc's.
pub fn rootless_template() -> Value {
    let mut document = template();
    let one = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
    let linux = &mut document["linux"];
    linux["resources"] = json!({});
    linux["uidMappings"] = one(rustix::process::geteuid().as_raw());
    linux["gidMappings"] = one(rustix::process::getegid().as_raw());
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|n| n["type"] != "network");
        namespaces.push(json!({"type": "user"}));
    }
    for mount in document["mounts"].as_array_mut().into_iter().flatten() {
        // Groups that are not mapped.
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|o| !o.as_str().is_some_and(|o| o.starts_with("gid=")));
        }
    }
    document
}

/// The signals that the command line was started with ignored (`nohup`, a shell's background): its command begins so, too, as it
/// would natively. SIGPIPE is left out: what runs before `main` ignores it itself. To be asked before handlers are set up.
fn ignored() -> u64 {
    const PIPE: u64 = 1 << 12;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|l| l.strip_prefix("SigIgn:")).unwrap_or_default();
    u64::from_str_radix(set.trim(), 16).unwrap_or(0) & !PIPE
}

/// The document of a `do`, and what of it JSON cannot say: arguments, environment and directory are bytes.
pub fn of_do(asked: &Do, network: &Network, terminal: bool) -> Result<(Value, Verbatim), Failure> {
    let rootfs = match &asked.rootfs {
        Some(dir) => absolute(dir)?,
        None => PathBuf::from("/"),
    };
    let (uid, gid, groups) = user(asked, &rootfs)?;
    let mut mounts = system_mounts();
    if network.names().is_some() {
        let options = ["bind", "ro"];
        mounts.push(json!({"destination": "/etc/resolv.conf", "type": "bind", "source": NAMES, "options": options}));
    }
    for bind in &asked.bind {
        mounts.push(one_bind(bind)?);
    }
    let mut env: Vec<Vec<u8>> = Vec::new();
    for (key, value) in std::env::vars_os() {
        set(&mut env, key.as_bytes(), value.as_bytes());
    }
    if !env.iter().any(|e| e.starts_with(b"PATH=")) {
        env.push(b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
    }
    for pair in &asked.env {
        let bytes = pair.as_bytes();
        let split = bytes
            .iter()
            .position(|b| *b == b'=')
            .filter(|at| *at > 0)
            .ok_or_else(|| Failure::Usage(format!("--env {}: want K=V", pair.display())))?;
        set(&mut env, bytes.get(..split).unwrap_or_default(), bytes.get(split + 1..).unwrap_or_default());
    }
    let cwd = match (&asked.cwd, &asked.rootfs) {
        (Some(cwd), _) if cwd.is_absolute() => cwd.clone(),
        (Some(cwd), _) => return Err(Failure::Usage(format!("--cwd {}: want an absolute path", cwd.display()))),
        (None, None) => std::env::current_dir().map_err(Failure::host("the working directory"))?,
        (None, Some(_)) => PathBuf::from("/"),
    };
    let args: Vec<Vec<u8>> = asked.command.iter().map(|a| a.as_bytes().to_vec()).collect();
    let lossy =
        |words: &[Vec<u8>]| -> Vec<String> { words.iter().map(|w| String::from_utf8_lossy(w).into_owned()).collect() };
    let bounding = all()?;
    let caps: &[String] = if uid == 0 { &bounding } else { &[] };
    let own = ["pid", "ipc", "uts", "mount", "cgroup"].into_iter();
    let own = own.chain(Some("network").filter(|_| network.from != NetworkFrom::Host));
    let namespaces: Vec<Value> = own.map(|kind| json!({"type": kind})).collect();
    // As Docker has it: anybody may ask whether somebody answers.
    let sysctl = match network.is_own() {
        true => json!({"net.ipv4.ping_group_range": "0 2147483647"}),
        false => json!({}),
    };
    let mut rules = Rules::default();
    for rule in &asked.net_rule {
        rules.add(rule).map_err(|e| Failure::Usage(format!("--net-rule {rule}: {e}")))?;
    }
    let mut annotations = Map::new();
    if !asked.net_rule.is_empty() {
        annotations.insert(oci::ANNOTATION_RULES.into(), asked.net_rule.join("\n").into());
    }
    let document = json!({
        "ociVersion": "1.0.2",
        "annotations": annotations,
        "process": {
            "terminal": terminal,
            "user": {"uid": uid, "gid": gid, "additionalGids": groups},
            "args": lossy(&args),
            "env": lossy(&env),
            "cwd": cwd.to_string_lossy(),
            "capabilities": {"bounding": bounding, "effective": caps, "permitted": caps},
        },
        "root": {"path": text(&rootfs)?, "readonly": asked.readonly},
        "hostname": "cofferdam",
        "mounts": mounts,
        "linux": {"namespaces": namespaces, "sysctl": sysctl}
    });
    Ok((document, Verbatim { args, env, cwd: cwd.into_os_string().into_vec(), ignored: ignored() }))
}

fn set(env: &mut Vec<Vec<u8>>, key: &[u8], value: &[u8]) {
    let start = [key, b"="].concat();
    env.retain(|e| !e.starts_with(&start));
    env.push([&start, value].concat());
}

fn text(path: &Path) -> Result<&str, Failure> {
    path.to_str().ok_or_else(|| Failure::Usage(format!("{}: paths must be UTF-8", path.display())))
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(Failure::host(path.display().to_string()))
}

/// `SRC:DST[:ro|:rw]`.
fn one_bind(bind: &str) -> Result<Value, Failure> {
    let bad = || Failure::Usage(format!("--bind {bind}: want SRC:DST[:ro]"));
    let mut parts = bind.split(':');
    let (source, destination, mode) = (parts.next(), parts.next(), parts.next());
    let (Some(source), Some(destination), None) = (source, destination, parts.next()) else { return Err(bad()) };
    if source.is_empty() || !destination.starts_with('/') {
        return Err(bad());
    }
    let mode = match mode {
        None | Some("rw") => "rw",
        Some("ro") => "ro",
        Some(_) => return Err(bad()),
    };
    let source = absolute(Path::new(source))?;
    Ok(json!({"destination": destination, "type": "bind", "source": text(&source)?, "options": ["rbind", mode]}))
}

/// Who the command runs as: the caller, or `--user`, whose names are those of the rootfs. Without a group it is the
/// account's, or 0 if the rootfs has no such account.
fn user(asked: &Do, rootfs: &Path) -> Result<(u32, u32, Vec<u32>), Failure> {
    let Some(user) = &asked.user else {
        let groups = rustix::process::getgroups().unwrap_or_default().into_iter().map(|g| g.as_raw()).collect();
        return Ok((rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw(), groups));
    };
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user.as_str(), None),
    };
    let number: Option<u32> = name.parse().ok();
    let (column, passwd) = (if number.is_some() { 2 } else { 0 }, rootfs.join("etc/passwd"));
    let account = lookup(&passwd, column, name);
    let uid = match (number, field(account.as_deref(), 2)) {
        (Some(uid), _) | (None, Some(uid)) => uid,
        (None, None) => return Err(Failure::Usage(format!("--user {user}: no user {name:?} in {}", rootfs.display()))),
    };
    let gid = match group {
        None => field(account.as_deref(), 3).unwrap_or(0),
        Some(group) => match (group.parse().ok(), field(lookup(&rootfs.join("etc/group"), 0, group).as_deref(), 2)) {
            (Some(gid), _) | (None, Some(gid)) => gid,
            (None, None) => {
                return Err(Failure::Usage(format!("--user {user}: no group {group:?} in {}", rootfs.display())));
            }
        },
    };
    Ok((uid, gid, Vec::new()))
}

/// The line of a colon-separated table with `name` in a column, of a file of at most a mebibyte.
fn lookup(table: &Path, column: usize, name: &str) -> Option<String> {
    let mut content = Vec::new();
    std::fs::File::open(table).ok()?.take(1 << 20).read_to_end(&mut content).ok()?;
    let line = content.split(|b| *b == b'\n').find(|l| l.split(|b| *b == b':').nth(column) == Some(name.as_bytes()))?;
    Some(std::ffi::OsStr::from_bytes(line).to_string_lossy().into_owned())
}

fn field(line: Option<&str>, n: usize) -> Option<u32> {
    line?.split(':').nth(n)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_are_parsed_and_nonsense_is_refused() {
        assert_eq!(one_bind("/a:/b:ro").unwrap()["options"][1], "ro");
        assert_eq!(one_bind("/a:/b").unwrap()["options"][1], "rw");
        for bad in ["", "/a", ":/b", "/a:b", "/a:/b:rx", "/a:/b:ro:x"] {
            assert!(one_bind(bad).is_err(), "{bad}");
        }
    }
}
