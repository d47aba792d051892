//! What a process sees mounted: `mounts`, `mountinfo`, `mountstats`.

use std::fmt::Write;
use std::sync::Arc;

use super::{Subject, text};
use crate::errno::Errno;
use crate::vfs::caller::Caller;
use crate::vfs::inode::{FileSystem, split_dev};
use crate::vfs::mount::{Mount, MountFlags, PathRef};

fn escape(path: &[u8]) -> String {
    let mut s = String::new();
    for b in path {
        match b {
            b' ' | b'\t' | b'\n' | b'\\' => {
                write!(s, "\\{b:03o}").ok();
            }
            _ => s.push(char::from(*b)),
        }
    }
    s
}

fn options(m: &Mount, read_only: bool) -> String {
    let f = m.flags();
    let mut o = String::from(if read_only { "ro" } else { "rw" });
    for (flag, name) in [
        (MountFlags::NO_SUID, ",nosuid"),
        (MountFlags::NO_DEV, ",nodev"),
        (MountFlags::NO_EXEC, ",noexec"),
        (MountFlags::NO_ATIME, ",noatime"),
        (MountFlags::NO_DIRATIME, ",nodiratime"),
        (MountFlags::RELATIME, ",relatime"),
        (MountFlags::NO_SYMFOLLOW, ",nosymfollow"),
    ] {
        if f.contains(flag) {
            o.push_str(name);
        }
    }
    o
}

fn super_options(fs: &dyn FileSystem) -> String {
    let o = fs.options();
    if o.is_empty() { o } else { format!(",{o}") }
}

/// Each mount that can be seen from the process's root, with its path from there.
fn seen(s: &Subject) -> Result<Vec<(Arc<Mount>, String)>, Errno> {
    let fs = s.task()?.fs();
    let root = fs.root();
    let path = |m: Arc<Mount>| {
        let (p, reached) = PathRef::root_of(&m).path_from(&root);
        reached.then(|| (m, escape(&p)))
    };
    Ok(fs.namespace().mounts().into_iter().filter_map(path).collect())
}

pub(super) fn mounts(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let mut t = String::new();
    for (m, path) in seen(s)? {
        let more = super_options(&*m.fs);
        // Here, and not in mountinfo, a file system that is read-only itself is shown so.
        let read_only = m.flags().contains(MountFlags::READ_ONLY) || m.all_read_only();
        writeln!(t, "{} {path} {} {}{more} 0 0", escape(&m.source), m.fs.name(), options(&m, read_only)).ok();
    }
    text(t)
}

pub(super) fn mountstats(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let mut t = String::new();
    for (m, path) in seen(s)? {
        writeln!(t, "device {} mounted on {path} with fstype {}", escape(&m.source), m.fs.name()).ok();
    }
    text(t)
}

pub(super) fn mountinfo(s: &Subject, _: &Caller<'_>) -> Result<Vec<u8>, Errno> {
    let mut t = String::new();
    let fs = s.task()?.fs();
    let (namespace, root) = (fs.namespace(), fs.root());
    for (m, path) in seen(s)? {
        let (major, minor) = split_dev(m.fs.dev());
        let parent = m.parent().map_or(m.id, |p| p.mount.id);
        let source = escape(&m.source);
        let opts = options(&m, m.flags().contains(MountFlags::READ_ONLY));
        let (kind, more) = (m.fs.name(), super_options(&*m.fs));
        let way = if m.all_read_only() { "ro" } else { "rw" };
        let shown = escape(&m.shown());
        let how = m.optional_fields(&namespace, |m| PathRef::root_of(m).path_from(&root).1);
        writeln!(t, "{} {parent} {major}:{minor} {shown} {path} {opts}{how} - {kind} {source} {way}{more}", m.id).ok();
    }
    text(t)
}
