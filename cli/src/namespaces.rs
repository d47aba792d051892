//! The stand-in's namespaces on the host, which engines enter as the container's: they find what is the container's, and nothing of the
//! host's. `podman cp` to and from a running container takes the names it is given from the root directory there, `podman top` reads its
//! /proc; Docker's hook and buildah put interfaces into its network namespace.
//!
//! The network namespace is the one that the document names, or a new one with nothing in it. In the mount namespace the root is the
//! container's, with its bind mounts; where the document mounts something of the sandbox's own (/proc, a tmpfs) there is an empty
//! directory that cannot be written, as what is inside cannot be reached from the host. Names below the root are the container's
//! doing: they are looked up beneath it. Called by `standin`, with its caller's rights.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use cofferdam_confine::{mount_read_only, root_here};
use cofferdam_control::client::NetworkFrom;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use serde::Deserialize;

use crate::failure::Failure;

/// As the supervisor recorded it (state.json).
#[derive(Deserialize)]
struct Record {
    rootfs: PathBuf,
    #[serde(rename = "readOnly")]
    read_only: bool,
    mounts: Vec<Mount>,
    /// The path of a network namespace, empty for a new one; `None` for the host's.
    network: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Mount {
    destination: PathBuf,
    /// Where it is on the host; `None` if it is the sandbox's own.
    source: Option<PathBuf>,
    #[serde(rename = "readOnly")]
    read_only: bool,
}

fn failed(what: &str, source: std::io::Error) -> Failure {
    Failure::Host { what: format!("the container's namespaces on the host: {what}"), source }
}

fn recorded(root: &Path, id: &str) -> Result<Record, Failure> {
    let text = std::fs::read(root.join(id).join("state.json")).map_err(|e| failed("its state", e))?;
    serde_json::from_slice(&text).map_err(|e| failed("its state", e.into()))
}

/// A network namespace, and what it is for the container.
pub type Network = (OwnedFd, NetworkFrom);

fn open(path: &Path) -> Result<OwnedFd, Failure> {
    let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    opened.map_err(|e| failed(&path.display().to_string(), e.into()))
}

fn own() -> Result<OwnedFd, Failure> {
    open(Path::new("/proc/thread-self/ns/net"))
}

/// The network that the document names, for a container without anything that stands in for it there; `None` for a new one.
pub fn network(root: &Path, id: &str) -> Result<Option<Network>, Failure> {
    match recorded(root, id)?.network {
        Some(path) if path.as_os_str().is_empty() => Ok(None),
        Some(path) => Ok(Some((open(&path)?, NetworkFrom::Namespace))),
        None => Ok(Some((own()?, NetworkFrom::Host))),
    }
}

/// Enters them. The network, and where it is not the host's its namespace is entered. Where the caller has no right to that nobody like him
/// may enter them either, and nothing happens.
pub fn enter(root: &Path, id: &str) -> Result<Option<Network>, Failure> {
    let record = recorded(root, id)?;
    // Before the host's /proc is out of sight.
    let host = if record.network.is_none() { Some((own()?, NetworkFrom::Host)) } else { None };
    let network = match &record.network {
        None => Ok(()),
        Some(path) if path.as_os_str().is_empty() => unshare(UnshareFlags::NEWNET),
        Some(path) => join(path),
    };
    match network.and_then(|()| unshare(UnshareFlags::NEWNS)) {
        Err(Errno::PERM) => return Ok(host),
        other => other.map_err(|e| failed("unshare", e.into()))?,
    }
    let network = if host.is_some() { host } else { Some((own()?, NetworkFrom::Namespace)) };
    let tree = build(&record).map_err(|(what, e)| failed(&what, e.into()))?;
    rustix::process::fchdir(&tree).map_err(|e| failed("its root", e.into()))?;
    root_here().map_err(|e| failed("its root", std::io::Error::other(e)))?;
    Ok(network)
}

#[allow(deprecated, reason = "its successor is `unsafe fn`, and this crate has no unsafe code")]
fn unshare(what: UnshareFlags) -> rustix::io::Result<()> {
    rustix::thread::unshare(what)
}

fn join(path: &Path) -> rustix::io::Result<()> {
    let namespace = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
}

/// A copy of what is mounted at a path, with all below.
fn copy(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(CWD, path, flags)
}

/// An empty directory that nobody can write.
fn nothing() -> rustix::io::Result<OwnedFd> {
    let made = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&made, "size", "4k")?;
    rustix::mount::fsconfig_set_string(&made, "nr_inodes", "2")?;
    rustix::mount::fsconfig_set_string(&made, "mode", "0555")?;
    rustix::mount::fsconfig_create(&made)?;
    rustix::mount::fsmount(&made, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// Puts it together; the root is mounted on itself.
fn build(record: &Record) -> Result<OwnedFd, (String, Errno)> {
    let of = |path: &Path| {
        let path = path.display().to_string();
        move |e| (path, e)
    };
    let propagation = MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM;
    rustix::mount::mount_change("/", propagation).map_err(of(Path::new("/")))?;
    let root = || {
        let tree = copy(&record.rootfs)?;
        rustix::mount::move_mount(&tree, "", CWD, &record.rootfs, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        Ok(tree)
    };
    let tree = root().map_err(of(&record.rootfs))?;
    for mount in &record.mounts {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // What the sandbox has made in its own memory only is not there.
        let Ok(place) = rustix::fs::openat2(&tree, &mount.destination, flags, Mode::empty(), resolve) else { continue };
        let put = || {
            let what = match &mount.source {
                Some(source) => copy(source)?,
                None => nothing()?,
            };
            if mount.read_only {
                mount_read_only(what.as_fd(), true)?;
            }
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            rustix::mount::move_mount(&what, "", &place, "", flags)
        };
        put().map_err(of(&mount.destination))?;
    }
    if record.read_only {
        mount_read_only(tree.as_fd(), false).map_err(of(&record.rootfs))?;
    }
    Ok(tree)
}
