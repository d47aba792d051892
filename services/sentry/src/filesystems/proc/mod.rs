//! `/proc`, `proc(5)`.
//!
//! `system` has the files about the whole kernel, `process` the directories of processes and threads.

mod process;
pub(super) mod system;

pub use system::MEMORY;

use std::sync::Arc;

use crate::errno::Errno;
use crate::filesystems::pseudo::{Body, PseudoFs, PseudoNode};
use crate::kernel::Kernel;
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

fn link_to_self(fs: &Arc<PseudoFs>, thread: bool) -> InodeRef {
    let text = move |caller: &Caller<'_>| {
        let task = caller.task.ok_or(Errno::ENOENT)?;
        Ok(match thread {
            false => format!("{}", task.pid()),
            true => format!("{}/task/{}", task.pid(), task.tid()),
        }
        .into_bytes())
    };
    PseudoNode::new(fs, 0o777, Body::Link(Box::new(text), None))
}

/// A new procfs.
pub fn mount(kernel: &Arc<Kernel>) -> (Arc<dyn FileSystem>, Arc<Dentry>) {
    let fs = PseudoFs::new("proc", PROC_MAGIC);
    let mut names = system::files(&fs, kernel);
    names.push((b"self".to_vec(), link_to_self(&fs, false)));
    names.push((b"thread-self".to_vec(), link_to_self(&fs, true)));
    let mounts = |_: &Caller<'_>| Ok(b"self/mounts".to_vec());
    names.push((b"mounts".to_vec(), PseudoNode::new(&fs, 0o777, Body::Link(Box::new(mounts), None))));
    let net = |_: &Caller<'_>| Ok(b"self/net".to_vec());
    names.push((b"net".to_vec(), PseudoNode::new(&fs, 0o777, Body::Link(Box::new(net), None))));
    let k = kernel.clone();
    let list = move |_: &Caller<'_>| {
        let mut pids = k.tree.lock().pids();
        pids.sort_unstable();
        Ok(pids.into_iter().map(|p| entry(p.to_string(), (p as u64) << 16, FileType::Directory)).collect())
    };
    let (k, f) = (kernel.clone(), fs.clone());
    let find = move |_: &Caller<'_>, name: &[u8]| {
        let Some(pid) = number(name) else { return Ok(None) };
        Ok(process::directory(&f, &k, pid, None))
    };
    let root = PseudoNode::new(&fs, 0o555, Body::Dynamic(names, Box::new(list), Box::new(find)));
    (fs, Dentry::root(root))
}
