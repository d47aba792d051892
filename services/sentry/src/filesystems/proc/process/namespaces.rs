//! Where a process lives: `attr`, `cgroup`, `cpuset`, `uid_map` and its like, `ns`, `net`.

use std::sync::Arc;

use super::{Subject, node, text};
use crate::errno::Errno;
use crate::filesystems::proc::entry;
use crate::filesystems::proc::net::FILES;
use crate::filesystems::pseudo::{Body, PseudoFs, Take};
use crate::namespaces::user::Which;
use crate::namespaces::{Kind, Namespace, UserNamespace, nsfs};
use crate::task::Task;
use crate::vfs::caller::Caller;
use crate::vfs::inode::{FileType, InodeRef, Link};

pub(super) fn cgroup(_: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    text(String::from("0::/\n"))
}

pub(super) fn cpuset(_: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    text(String::from("/\n"))
}

/// `attr`: what a security module says, of which there is none.
pub(super) fn attr(fs: &Arc<PseudoFs>, s: &Subject) -> InodeRef {
    let names = ["current", "exec", "fscreate", "keycreate", "prev", "sockcreate"].map(|name| {
        let bits = if name == "prev" { 0o444 } else { 0o666 };
        let none = |_: &Caller<'_>| Err(Errno::EINVAL);
        let take: Option<Take> =
            (name != "prev").then(|| Box::new(|_: &Caller<'_>, _: &[u8]| Err(Errno::EINVAL)) as Take);
        (name.as_bytes().to_vec(), node(fs, s, bits, Body::Text(Box::new(none), take)))
    });
    node(fs, s, 0o555, Body::Directory(names.into()))
}

/// The user namespace that a task is, or was, in.
pub(super) fn user_namespace(s: &Subject) -> Result<Arc<UserNamespace>, Errno> {
    match s.task() {
        Ok(t) => Ok(t.creds().user_ns.clone()),
        Err(_) => s.group.epitaph.lock().as_ref().map(|e| e.1.user_ns.clone()).ok_or(Errno::ESRCH),
    }
}

pub(super) fn uid_map(s: &Subject, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    text(user_namespace(s)?.show_map(Which::Users, &caller.creds.user_ns))
}

pub(super) fn gid_map(s: &Subject, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    text(user_namespace(s)?.show_map(Which::Groups, &caller.creds.user_ns))
}

pub(super) fn projid_map(s: &Subject, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    text(user_namespace(s)?.show_map(Which::Projects, &caller.creds.user_ns))
}

pub(super) fn setgroups(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    text(user_namespace(s)?.setgroups().to_owned())
}

/// The namespaces of a process, and the one that its children are made in.
pub(super) fn namespaces(fs: &Arc<PseudoFs>, s: &Subject) -> InodeRef {
    type Of = fn(&Task) -> Result<Namespace, Errno>;
    let all: [(&str, Of); 8] = [
        ("cgroup", |t| Ok(nsfs::of_task(t, Kind::Cgroup))),
        ("ipc", |t| Ok(nsfs::of_task(t, Kind::Ipc))),
        ("mnt", |t| Ok(nsfs::of_task(t, Kind::Mount))),
        ("net", |t| Ok(nsfs::of_task(t, Kind::Net))),
        ("pid", |t| Ok(nsfs::of_task(t, Kind::Pid))),
        ("pid_for_children", |t| {
            let space = t.namespaces().pid_for_children.clone();
            // There is none to see before its first process.
            if space.init() == 0 { Err(Errno::ENOENT) } else { Ok(Namespace::Pid(space)) }
        }),
        ("user", |t| Ok(nsfs::of_task(t, Kind::User))),
        ("uts", |t| Ok(nsfs::of_task(t, Kind::Uts))),
    ];
    let list = move |_: &Caller<'_>| Ok(all.iter().map(|(name, _)| entry(*name, 1, FileType::Link)).collect());
    let (s, f) = (s.clone(), fs.clone());
    let this = s.clone();
    let find = move |_: &Caller<'_>, name: &[u8]| {
        let Some((_, of)) = all.iter().find(|(n, _)| n.as_bytes() == name).copied() else { return Ok(None) };
        let get = move |s: &Subject, caller: &Caller<'_>| -> Result<Namespace, Errno> {
            of(&*s.check(caller).map_err(|e| if e == Errno::ESRCH { Errno::ENOENT } else { e })?)
        };
        let (a, b) = (s.clone(), s.clone());
        let text = move |caller: &Caller<'_>| Ok(get(&a, caller)?.label().into_bytes());
        let lead = move |caller: &Caller<'_>| Ok(Link::Jump(nsfs::place(get(&b, caller)?)));
        Ok(Some(node(&f, &s, 0o777, Body::Link(Box::new(text), Some(Box::new(lead))))))
    };
    node(fs, &this, 0o511, Body::Dynamic(Vec::new(), Box::new(list), Box::new(find)))
}

pub(super) fn net(fs: &Arc<PseudoFs>, s: &Subject) -> InodeRef {
    let names = FILES.iter().map(|(name, make)| {
        let of = s.clone();
        let read = move |caller: &Caller<'_>| {
            let net = of.task()?.namespaces().net.clone();
            Ok(make(&net, &caller.creds).into_bytes())
        };
        (name.as_bytes().to_vec(), node(fs, s, 0o444, Body::Text(Box::new(read), None)))
    });
    node(fs, s, 0o555, Body::Directory(names.collect()))
}
