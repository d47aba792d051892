//! Pods: which containers share a sandbox, and which of its namespaces each is in.
//!
//! Kubernetes' runtimes say by annotations what a container is: containerd (`io.kubernetes.cri.*`) and CRI-O (`io.kubernetes.cri-o.*`)
//! make a container that only holds a pod's namespaces first, and name it in those of the pod's other containers; podman does the latter,
//! with CRI-O's names. A document without them is a sandbox of its own. Namespaces to join are given as paths below `/proc/PID/ns`, where PID is what stands for a container on
//! the host: no namespace of the host is looked at. Called by `container`.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use cofferdam_control::oci::clone;
use cofferdam_control::sentry::{FailureKind, Shared};

use crate::container::Container;
use crate::house::House;
use crate::sandbox::Sandbox;
use crate::spec::{Plan, Refused};

/// What a container is to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pod {
    /// Nothing.
    None,
    /// What a pod begins with.
    Sandbox,
    /// In the pod with this first container.
    Member(String),
}

/// Annotations: what it is, and the id of the pod's first container.
const ANNOTATIONS: [(&str, &str); 2] = [
    ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"),
    ("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"),
];

/// What the annotations say.
fn read(annotations: &BTreeMap<String, String>) -> Pod {
    for (kind, sandbox) in ANNOTATIONS {
        match (annotations.get(kind).map(String::as_str), annotations.get(sandbox)) {
            (Some("sandbox"), _) => return Pod::Sandbox,
            (Some("container"), Some(id)) => return Pod::Member(id.clone()),
            _ => {}
        }
    }
    Pod::None
}

/// Finds out where a container of the user `owner` begins: what it is, and the sandbox if there is one already.
pub fn place(house: &House, plan: &mut Plan, owner: u32) -> Result<(Pod, Option<Rc<Sandbox>>), Refused> {
    let pod = read(&plan.annotations);
    let Pod::Member(id) = &pod else {
        copy(house, plan);
        return Ok((pod, None));
    };
    let first = house.containers.borrow().get(id).cloned();
    let Some(sandbox) = first.map(|c| c.sandbox.clone()).filter(|s| s.is_for(id) && s.owner == owner) else {
        // CRI-O makes no container for a pod that needs none.
        plan.warnings.push(format!("annotations: there is no sandbox {id}: the container has a sandbox of its own"));
        copy(house, plan);
        return Ok((Pod::None, None));
    };
    if sandbox.is_over() || sandbox.cache().is_none() {
        return Err(Refused::new(FailureKind::WrongState, format!("the pod's sandbox {id} is not running")));
    }
    // Rules that nobody heeds would be none: there is one network, and whoever made it has said what may pass.
    if plan.rules.as_ref().is_some_and(|rules| *rules != sandbox.rules) {
        let name = cofferdam_control::oci::ANNOTATION_RULES;
        let message = format!("config.json: annotation {name}: the pod's sandbox {id} has other rules");
        return Err(Refused::new(FailureKind::Invalid, message));
    }
    plan.container.namespaces = shared(house, &sandbox, id, plan);
    Ok((pod, Some(sandbox)))
}

/// The container that a process stands for, by a path below its `/proc`.
fn stood_for(house: &House, path: &Path) -> Option<Rc<Container>> {
    let pid: i32 = path.to_str()?.strip_prefix("/proc/")?.split('/').next()?.parse().ok()?;
    house.containers.borrow().values().find(|c| c.state().pid == pid).cloned()
}

/// The flag of a kind of namespaces, but for files and users: a tree of its own a container has always, and users of its own, if any.
fn flag(kind: &str) -> Option<u64> {
    Some(match kind {
        "cgroup" => clone::NEWCGROUP,
        "uts" => clone::NEWUTS,
        "ipc" => clone::NEWIPC,
        "pid" => clone::NEWPID,
        "network" => clone::NEWNET,
        _ => return None,
    })
}

/// The namespaces of a further container: its own where the document asks for new ones, another container's where that is named, else
/// those of the pod.
fn shared(house: &House, sandbox: &Rc<Sandbox>, first: &str, plan: &Plan) -> Shared {
    let mut shared = Shared::default();
    for (kind, path) in &plan.namespaces {
        let Some(kind) = flag(kind) else { continue };
        let Some(path) = path else {
            shared.own |= kind;
            continue;
        };
        let other = stood_for(house, path).filter(|c| Rc::ptr_eq(&c.sandbox, sandbox));
        shared.with.push((kind, other.map_or_else(|| first.to_owned(), |c| c.state().id)));
    }
    shared
}

/// Namespaces of containers in other sandboxes that this one is to be in. It has its own kernel, so of what is in them it can have a copy
/// at most: the host name. Whatever else it does not get is told.
///
/// Those that the document names are noted as its own: the sandbox's first ones are numbered accordingly. One that it does not name has the number
/// that Linux would show, of the system's first, though it is the sandbox's (there was a warning).
fn copy(house: &House, plan: &mut Plan) {
    plan.container.namespaces.own = plan.namespaces.iter().filter_map(|(kind, _)| flag(kind)).fold(0, |all, k| all | k);
    for (kind, path) in &plan.namespaces {
        let Some(path) = path else { continue };
        match kind.as_str() {
            "uts" => {
                let name = stood_for(house, path).and_then(|c| c.hostname.clone());
                plan.container.hostname = plan.container.hostname.take().or(name);
            }
            // netd's to enter.
            "network" => {}
            _ => plan.warnings.push(format!(
                "linux.namespaces: {kind} namespace {}: a sandbox has its own and shares it with no other sandbox",
                path.display()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_of_both_runtimes_are_known() {
        let with = |all: &[(&str, &str)]| read(&all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
        let (kind, id) = ANNOTATIONS[0];
        assert_eq!(with(&[(kind, "sandbox"), (id, "a")]), Pod::Sandbox);
        assert_eq!(with(&[(kind, "container"), (id, "a")]), Pod::Member("a".into()));
        assert_eq!(with(&[(kind, "container")]), Pod::None);
        let (kind, id) = ANNOTATIONS[1];
        assert_eq!(with(&[(kind, "container"), (id, "b")]), Pod::Member("b".into()));
        assert_eq!(with(&[(id, "b")]), Pod::None);
    }
}
