//! `/proc`, `proc(5)`.
//!
//! `system` has the files about the whole kernel, `sysctl` settings that only tell, `totals` those that add up what processes use, `process` the directories
//! of processes and threads.

mod mem;
mod net;
mod network_settings;
mod process;
mod sysctl;
mod system;
pub mod totals;

use std::sync::Arc;

use crate::errno::Errno;
use crate::filesystems::pseudo::{Body, PseudoFs, PseudoNode, Style};
use crate::kernel::Kernel;
use crate::namespaces::PidNamespace;
use crate::vfs::caller::Caller;
use crate::vfs::dentry::Dentry;
use crate::vfs::inode::{DirEntry, FileSystem, FileType, InodeRef};

/// `PROC_SUPER_MAGIC`.
const PROC_MAGIC: u64 = 0x9fa0;

/// A number as a directory name: no sign, no leading zero.
fn number(name: &[u8]) -> Option<i32> {
    if name.first() == Some(&b'0') || !name.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(name).ok()?.parse().ok()
}

fn entry(name: impl Into<Vec<u8>>, ino: u64, kind: FileType) -> DirEntry {
    DirEntry { name: name.into(), ino, kind }
}

fn link_to_self(fs: &Arc<PseudoFs>, pids: &Arc<PidNamespace>, thread: bool) -> InodeRef {
    let pids = pids.clone();
    let text = move |caller: &Caller<'_>| {
        let task = caller.task.ok_or(Errno::ENOENT)?;
        let (pid, tid) = (pids.shown(task.pid()), pids.shown(task.tid()));
        if pid == 0 {
            return Err(Errno::ENOENT);
        }
        Ok(match thread {
            false => format!("{pid}"),
            true => format!("{pid}/task/{tid}"),
        }
        .into_bytes())
    };
    PseudoNode::new(fs, 0o777, Body::Link(Box::new(text), None))
}

/// A new procfs, with the processes of a PID namespace.
pub fn mount(kernel: &Arc<Kernel>, pids: &Arc<PidNamespace>) -> (Arc<dyn FileSystem>, Arc<Dentry>) {
    let fs = PseudoFs::new("proc", PROC_MAGIC, Style::Kernel);
    let mut names = system::files(&fs, kernel);
    names.push((b"self".to_vec(), link_to_self(&fs, pids, false)));
    names.push((b"thread-self".to_vec(), link_to_self(&fs, pids, true)));
    let mounts = |_: &Caller<'_>| Ok(b"self/mounts".to_vec());
    names.push((b"mounts".to_vec(), PseudoNode::new(&fs, 0o777, Body::Link(Box::new(mounts), None)).of_size(11)));
    let net = |_: &Caller<'_>| Ok(b"self/net".to_vec());
    names.push((b"net".to_vec(), PseudoNode::new(&fs, 0o777, Body::Link(Box::new(net), None)).of_size(8)));
    let (k, space) = (kernel.clone(), pids.clone());
    let list = move |_: &Caller<'_>| {
        let all = k.tree.lock().pids();
        let mut pids: Vec<i32> = all.into_iter().map(|p| space.shown(p)).filter(|p| *p != 0).collect();
        pids.sort_unstable();
        Ok(pids.into_iter().map(|p| entry(p.to_string(), (p as u64) << 16, FileType::Directory)).collect())
    };
    let (k, f, space) = (kernel.clone(), fs.clone(), pids.clone());
    let find = move |_: &Caller<'_>, name: &[u8]| {
        let Some(pid) = number(name) else { return Ok(None) };
        Ok(process::directory(&f, &k, &space, space.id(pid), None))
    };
    let root = PseudoNode::new(&fs, 0o555, Body::Dynamic(names, Box::new(list), Box::new(find)));
    (fs, Dentry::root(root))
}
