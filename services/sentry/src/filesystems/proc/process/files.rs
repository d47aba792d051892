//! A process's open files, `fd` and `fdinfo`, and its links `exe`, `cwd` and `root`.

use std::sync::Arc;

use super::{Subject, named, node};
use crate::errno::Errno;
use crate::filesystems::proc::{entry, number};
use crate::filesystems::pseudo::{Body, PseudoFs};
use crate::ipc::pidfd::PidFd;
use crate::vfs::caller::Caller;
use crate::vfs::file::flags;
use crate::vfs::inode::{FileType, InodeRef, Link};
use crate::vfs::lock::{Listed, LockOwner};
use crate::vfs::mount::PathRef;

pub(super) fn link(fs: &Arc<PseudoFs>, s: &Subject, which: &'static str) -> InodeRef {
    let place = move |s: &Subject, caller: &Caller<'_>| -> Result<PathRef, Errno> {
        let task = s.open_to(caller)?.ok_or(Errno::ENOENT)?;
        match which {
            "cwd" => Ok(task.fs().cwd()),
            "root" => Ok(task.fs().root()),
            _ => task.group().exe.read().as_ref().map(|f| f.path_ref().clone()).ok_or(Errno::ENOENT),
        }
    };
    let (a, b) = (s.clone(), s.clone());
    let text = move |caller: &Caller<'_>| Ok(place(&a, caller)?.display(&caller.fs.root()));
    let lead = move |caller: &Caller<'_>| Ok(Link::Jump(place(&b, caller)?));
    node(fs, s, 0o777, Body::Link(Box::new(text), Some(Box::new(lead))))
}

pub(super) fn descriptors(fs: &Arc<PseudoFs>, s: &Subject, info: bool) -> InodeRef {
    let (a, b, f) = (s.clone(), s.clone(), fs.clone());
    let kind = if info { FileType::Regular } else { FileType::Link };
    let list = move |caller: &Caller<'_>| {
        let task = a.check(caller)?;
        Ok(task.files().all().into_iter().map(|(n, file)| entry(n.to_string(), file.id, kind)).collect())
    };
    let find = move |caller: &Caller<'_>, name: &[u8]| {
        let task = b.check(caller)?;
        let fd = if name == b"0" { Some(0) } else { number(name) };
        let Some(fd) = fd else { return Ok(None) };
        let Ok(file) = task.files().get_any(fd) else { return Ok(None) };
        let of = b.clone();
        let get = move || of.task()?.files().get_any(fd).map_err(|_| Errno::ENOENT);
        if info {
            let closing = b.clone();
            let make = move |_: &Caller<'_>| {
                let f = get()?;
                let table = closing.task()?.files();
                let closes = table.cloexec(fd).unwrap_or(false);
                let attr = f.inode().attr()?;
                let held = f.inode().met().map(|m| m.locks.list()).unwrap_or_default();
                let own = |l: &Listed| match l.record.owner {
                    LockOwner::Process(id) => id == table.id,
                    LockOwner::File(_) => true,
                };
                let held = held.iter().filter(|l| l.record.file == f.id && own(l)).enumerate();
                let locks = held.map(|(i, l)| format!("lock:\t{}: {}\n", i + 1, l.line((attr.dev, attr.ino))));
                let locks: String = locks.collect();
                let t = format!(
                    "pos:\t{}\nflags:\t0{:o}\nmnt_id:\t{}\nino:\t{}\n{locks}{}",
                    f.position(),
                    f.flags() | if closes { flags::CLOEXEC } else { 0 },
                    f.mount().id,
                    attr.ino,
                    match f.ops_as::<PidFd>().map(|p| p.group()) {
                        // Its numbers are those of this procfs.
                        Some(Some(g)) => {
                            let all = closing.pids.all_shown(g.pid, &g.pid_ns);
                            let all = all.iter().map(i32::to_string).collect::<Vec<_>>().join("\t");
                            format!("Pid:\t{}\nNSpid:\t{all}\n", closing.pids.shown(g.pid))
                        }
                        Some(None) => String::from("Pid:\t-1\nNSpid:\t-1\n"),
                        None => f.ops().fdinfo(),
                    }
                );
                Ok(t.into_bytes())
            };
            return Ok(Some(node(&f, &b, 0o444, Body::Text(Box::new(make), None))));
        }
        let again = get.clone();
        let text = move |caller: &Caller<'_>| Ok(get()?.path_ref().display(&caller.fs.root()));
        let lead = move |_: &Caller<'_>| Ok(Link::Jump(again()?.path_ref().clone()));
        let bits = if file.readable() { 0o500 } else { 0 } | if file.writable() { 0o300 } else { 0 };
        // As Linux shows links of descriptors, whatever they are to.
        Ok(Some(named(&f, &b, "", bits, Body::Link(Box::new(text), Some(Box::new(lead)))).of_size(64)))
    };
    let of = s.clone();
    // A directory of descriptors is as long as there are some (Linux 6.2).
    let count = move || if info { 0 } else { of.task().map_or(0, |t| t.files().count() as u64) };
    let bits = if info { 0o555 } else { 0o500 };
    named(fs, s, "", bits, Body::Dynamic(Vec::new(), Box::new(list), Box::new(find))).sized(count)
}
