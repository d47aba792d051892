//! A document as it is written: read as leniently as Go's decoder reads it, and what is spelled wrong told as runc tells it.
//!
//! Called by `spec` and for the process documents of `exec`. Opens nothing.

use cofferdam_control::oci;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Refused;

/// Objects and lists within one another.
const DEEPEST: usize = 64;

/// Properties of the specification (1.2), by the object they are of. What is none of them is told.
const KNOWN: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "ociVersion",
            "root",
            "mounts",
            "process",
            "hostname",
            "domainname",
            "hooks",
            "annotations",
            "linux",
            "solaris",
            "windows",
            "vm",
            "zos",
            "uidMappings",
            "gidMappings",
        ],
    ),
    ("/root", &["path", "readonly"]),
    ("/hooks", oci::HOOKS),
    (
        "/linux",
        &[
            "namespaces",
            "uidMappings",
            "gidMappings",
            "timeOffsets",
            "devices",
            "netDevices",
            "cgroupsPath",
            "rootfsPropagation",
            "seccomp",
            "sysctl",
            "maskedPaths",
            "readonlyPaths",
            "mountLabel",
            "personality",
            "intelRdt",
            "memoryPolicy",
            "resources",
        ],
    ),
    (
        "/linux/seccomp",
        &["defaultAction", "defaultErrnoRet", "architectures", "flags", "listenerPath", "listenerMetadata", "syscalls"],
    ),
];
/// Those of a process, wherever it is.
const KNOWN_PROCESS: &[&str] = &[
    "terminal",
    "consoleSize",
    "cwd",
    "env",
    "args",
    "commandLine",
    "rlimits",
    "apparmorProfile",
    "capabilities",
    "noNewPrivileges",
    "oomScoreAdj",
    "scheduler",
    "selinuxLabel",
    "ioPriority",
    "execCPUAffinity",
    "user",
];

/// Tells of properties that there are not.
fn strangers(value: &Value, process: &str, warnings: &mut Vec<String>) {
    let one = |at: &str, known: &[&str], warnings: &mut Vec<String>| {
        for key in value.pointer(at).and_then(Value::as_object).into_iter().flat_map(|o| o.keys()) {
            if !known.contains(&key.as_str()) {
                let at = at.trim_start_matches('/').replace('/', ".");
                let dot = if at.is_empty() { "" } else { "." };
                warnings
                    .push(format!("{at}{dot}{key:.100}: no property of the runtime specification; it has no effect"));
            }
        }
    };
    one(process, KNOWN_PROCESS, warnings);
    if !process.is_empty() {
        KNOWN.iter().for_each(|(at, known)| one(at, known, warnings));
    }
}

/// Reads a document, or a part of one. `process`: where a process is in it. Warnings are of what is passed over.
pub fn read<T: DeserializeOwned>(
    text: &[u8],
    name: &str,
    process: &str,
    warnings: &mut Vec<String>,
) -> Result<(T, Value), Refused> {
    let invalid = |e: serde_json::Error| Refused::invalid(format!("{name}: {e}"));
    // What comes after the first value is not looked at.
    let mut value = Value::deserialize(&mut serde_json::Deserializer::from_slice(text)).map_err(invalid)?;
    if !value.is_object() {
        return Err(Refused::invalid(format!("{name}: not a JSON object")));
    }
    without_nulls(&mut value, DEEPEST).map_err(|()| Refused::invalid(format!("{name}: nested too deeply")))?;
    strangers(&value, process, warnings);
    if let Some(process) = value.pointer_mut(process) {
        known_capabilities(process, warnings);
        spelled(process, "/rlimits", "type", oci::RLIMITS, |word| format!("invalid rlimit type: {word}"))?;
    }
    spelled(&value, "/linux/namespaces", "type", &[oci::NAMESPACES, &["time"]].concat(), |word| {
        format!("namespace {word:?} does not exist")
    })?;
    spelled(&value, "/linux/devices", "type", &["c", "u", "b", "p"], |word| format!("invalid device type {word:?}"))?;
    spelled(&value, "/linux/resources/devices", "type", &["a", "b", "c", ""], |word| {
        format!("invalid cgroup device type {word:?}")
    })?;
    // A profile that says nothing is none.
    if let Some(linux) = value.get_mut("linux").and_then(Value::as_object_mut)
        && linux.get("seccomp").is_some_and(|s| {
            let empty =
                |v: Option<&Value>| v.is_none_or(|v| v.as_str() == Some("") || v.as_array().is_some_and(Vec::is_empty));
            s.is_object() && empty(s.get("defaultAction")) && empty(s.get("syscalls"))
        })
    {
        linux.remove("seccomp");
    }
    if let Some(seccomp) = value.pointer("/linux/seccomp") {
        seccomp_words(seccomp)?;
    }
    // An empty type of a device rule is any; it has a word of its own in the specification.
    if let Some(rules) = value.pointer_mut("/linux/resources/devices").and_then(Value::as_array_mut) {
        for rule in rules.iter_mut().filter_map(Value::as_object_mut) {
            if rule.get("type").and_then(Value::as_str) == Some("") {
                rule.insert("type".into(), "a".into());
            }
        }
    }
    let read = T::deserialize(&value).map_err(|e| Refused::invalid(format!("{name}: {e}")))?;
    Ok((read, value))
}

/// Takes properties away that are null, which Go's decoder takes for not being there.
fn without_nulls(value: &mut Value, deepest: usize) -> Result<(), ()> {
    let deepest = deepest.checked_sub(1).ok_or(())?;
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().try_for_each(|v| without_nulls(v, deepest))
        }
        Value::Array(list) => list.iter_mut().try_for_each(|v| without_nulls(v, deepest)),
        _ => Ok(()),
    }
}

/// Takes capabilities away that there are not, with a warning.
fn known_capabilities(process: &mut Value, warnings: &mut Vec<String>) {
    let mut unknown = Vec::new();
    let sets = process.get_mut("capabilities").and_then(Value::as_object_mut);
    for list in sets.into_iter().flat_map(|s| s.values_mut()).filter_map(Value::as_array_mut) {
        list.retain(|word| match word.as_str() {
            Some(word) if !oci::CAPABILITIES.contains(&word) => {
                unknown.push(word.to_owned());
                false
            }
            _ => true,
        });
    }
    if !unknown.is_empty() {
        unknown.sort();
        unknown.dedup();
        warnings.push(format!("ignoring unknown or unavailable capabilities: [{}]", unknown.join(" ")));
    }
}

/// Refuses a word in `key` of the objects in a list that is none of `known`.
fn spelled(
    value: &Value,
    list: &str,
    key: &str,
    known: &[&str],
    message: impl Fn(&str) -> String,
) -> Result<(), Refused> {
    let items = value.pointer(list).and_then(Value::as_array).into_iter().flatten();
    match items.filter_map(|i| i.get(key)?.as_str()).find(|w| !known.contains(w)) {
        Some(word) => Err(Refused::invalid(message(word))),
        None => Ok(()),
    }
}

fn seccomp_words(seccomp: &Value) -> Result<(), Refused> {
    let none = Vec::new();
    let list = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).unwrap_or(&none).clone();
    let check_action = |word: Option<&str>| match word {
        Some(oci::SECCOMP_NOTIFY) => Err(Refused::invalid(
            "config.json: linux.seccomp: SCMP_ACT_NOTIFY is not supported: its listener would be a process of the host",
        )),
        Some(word) if !oci::SECCOMP_ACTIONS.iter().any(|(name, _)| *name == word) => {
            Err(Refused::invalid(format!("string {word} is not a valid action for seccomp")))
        }
        _ => Ok(()),
    };
    check_action(seccomp.get("defaultAction").and_then(Value::as_str))?;
    for arch in list(seccomp, "architectures").iter().filter_map(Value::as_str) {
        let known = oci::SECCOMP_ARCHITECTURES.contains(&arch) || oci::SECCOMP_FOREIGN.contains(&arch);
        if !known && arch != "SCMP_ARCH_NATIVE" {
            return Err(Refused::invalid(format!("string {arch} is not a valid arch for seccomp")));
        }
    }
    for flag in list(seccomp, "flags").iter().filter_map(Value::as_str) {
        if !oci::SECCOMP_FLAGS.iter().any(|(name, _)| *name == flag) {
            return Err(Refused::invalid(
                format!("seccomp flag {flag:?} not known to runc").replace("runc", "cofferdam"),
            ));
        }
    }
    for rule in &list(seccomp, "syscalls") {
        check_action(rule.get("action").and_then(Value::as_str))?;
        for arg in &list(rule, "args") {
            let op = arg.get("op").and_then(Value::as_str).unwrap_or_default();
            if !oci::SECCOMP_OPERATORS.contains(&op) {
                return Err(Refused::invalid(format!("string {op} is not a valid operator for seccomp")));
            }
        }
    }
    Ok(())
}
