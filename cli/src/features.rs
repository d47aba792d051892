//! The features document of the OCI runtime specification (features.md), made of the tables that the supervisor reads documents by.

use cofferdam_control::oci::{self, MountWord};
use serde_json::{Value, json};

/// What `cofferdam features` prints.
pub fn document() -> Value {
    let named = |list: &[(&'static str, u32)]| list.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    let options: Vec<&str> =
        oci::MOUNT_WORDS.iter().filter(|(_, means)| *means != MountWord::Refused).map(|(name, _)| *name).collect();
    let flags: Vec<&str> = oci::SECCOMP_FLAGS.iter().map(|(name, _)| *name).collect();
    let heeded: Vec<&str> = oci::SECCOMP_FLAGS.iter().filter(|(_, heeded)| *heeded).map(|(name, _)| *name).collect();
    json!({
        "ociVersionMin": oci::VERSIONS.0,
        "ociVersionMax": oci::VERSIONS.1,
        "hooks": oci::HOOKS,
        "mountOptions": options,
        "linux": {
            "namespaces": oci::NAMESPACES,
            "capabilities": oci::CAPABILITIES,
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": false},
            "seccomp": {
                "enabled": true,
                "actions": named(oci::SECCOMP_ACTIONS),
                "operators": oci::SECCOMP_OPERATORS,
                "archs": oci::SECCOMP_ARCHITECTURES,
                "knownFlags": flags,
                "supportedFlags": heeded,
            },
            "apparmor": {"enabled": false},
            "selinux": {"enabled": false},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": false}},
        },
        "annotations": {
            "dev.cofferdam.version": env!("CARGO_PKG_VERSION"),
        },
        "potentiallyUnsafeConfigAnnotations": [format!("{}/", oci::ANNOTATION_ACCESS), oci::ANNOTATION_OVERLAY],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_of_what_is_there_and_not_of_what_is_refused() {
        let d = document();
        let has = |at: &str, what: &str| d.pointer(at).and_then(Value::as_array).unwrap().contains(&what.into());
        assert!(has("/mountOptions", "rro") && !has("/mountOptions", "idmap"));
        assert!(has("/linux/seccomp/actions", "SCMP_ACT_LOG") && !has("/linux/seccomp/actions", oci::SECCOMP_NOTIFY));
        assert_eq!(d["linux"]["capabilities"].as_array().unwrap().len(), 41);
    }
}
