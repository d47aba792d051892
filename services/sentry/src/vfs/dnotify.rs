//! Notification of directories, `F_NOTIFY` of `fcntl(2)`: the older sibling of inotify, which tells by a signal that something happened in a
//! directory, and not what.
//!
//! Owned here: what an open directory is to tell of. It ends with the open file, after the first event (without `DN_MULTISHOT`), or
//! when it is asked for nothing. Whose signal it is is the file's (`F_SETOWN`, `F_SETSIG`). Called by `fcntl` and by watches.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::task::Task;
use crate::vfs::fasync;
use crate::vfs::file::File;
use crate::vfs::inode::{FileType, InodeRef};
use crate::vfs::watch::{self, Watch, Watcher, event};
use crate::wait::push_work;

/// `DN_MULTISHOT`.
const MULTISHOT: u32 = 0x8000_0000;
/// `DN_*` and the events that each stands for.
const KINDS: [(u32, u32); 6] = [
    (0x01, event::ACCESS),
    (0x02, event::MODIFY),
    (0x04, event::CREATE | event::MOVED_TO),
    (0x08, event::DELETE | event::MOVED_FROM),
    (0x10, event::MOVED_FROM),
    (0x20, event::ATTRIB),
];
/// `si_code` `POLL_MSG`, and `si_band`.
const POLL_MSG: (i32, u32) = (3, 0x441);

/// What an open directory tells of.
pub struct Notifier {
    file: Weak<File>,
    kernel: Weak<Kernel>,
    me: Weak<Self>,
    inode: InodeRef,
    watch: Arc<Watch>,
    fd: AtomicI32,
    asked: AtomicU32,
    over: AtomicBool,
}

impl Watcher for Notifier {
    fn told(&self, _: &Arc<Watch>, what: u32, _: u32, _: Option<&[u8]>) {
        if what & (event::IGNORED | event::UNMOUNT) != 0 || self.over.load(Ordering::Relaxed) {
            return;
        }
        if self.asked.load(Ordering::Relaxed) & MULTISHOT == 0 && self.over.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(me) = self.me.upgrade() {
            // Locks may be held here.
            push_work(Box::new(move || me.tell()));
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        watch::remove(&self.inode, &self.watch);
    }
}

impl Notifier {
    fn tell(&self) {
        let (Some(file), Some(kernel)) = (self.file.upgrade(), self.kernel.upgrade()) else { return };
        fasync::tell_owner(&kernel, &file, POLL_MSG, self.fd.load(Ordering::Relaxed));
        if self.over.load(Ordering::Relaxed) {
            let gone = file.notifier.lock().take_if(|n| std::ptr::eq(Arc::as_ptr(n), self));
            drop(gone);
        }
    }
}

/// `F_NOTIFY`: what is asked for comes to what was asked for before; nothing ends it. ENOTDIR.
pub fn set(task: &Task, file: &Arc<File>, fd: i32, asked: u32) -> Result<(), Errno> {
    if asked & !MULTISHOT == 0 {
        let old = file.notifier.lock().take();
        drop(old);
        return Ok(());
    }
    if file.inode().kind() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    {
        let mut owner = file.owner.lock();
        if owner.pid == 0 {
            let c = task.creds();
            (owner.pid, owner.uid, owner.euid) = (task.pid(), c.ruid, c.euid);
        }
    }
    let mut slot = file.notifier.lock();
    let old = slot.take_if(|n| n.over.load(Ordering::Relaxed));
    let notifier = slot.get_or_insert_with(|| {
        Arc::new_cyclic(|me: &Weak<Notifier>| {
            let watcher: Weak<dyn Watcher> = me.clone();
            let inode = file.inode().clone();
            Notifier {
                file: Arc::downgrade(file),
                kernel: Arc::downgrade(task.kernel()),
                me: me.clone(),
                watch: watch::add(&inode, 0, 0, watcher),
                inode,
                fd: AtomicI32::new(fd),
                asked: AtomicU32::new(0),
                over: AtomicBool::new(false),
            }
        })
    });
    let all = notifier.asked.fetch_or(asked, Ordering::Relaxed) | asked;
    notifier.fd.store(fd, Ordering::Relaxed);
    let events = KINDS.iter().filter(|(kind, _)| all & kind != 0).fold(0, |events, (_, e)| events | e);
    notifier.watch.mask.store(events, Ordering::Relaxed);
    drop(slot);
    drop(old);
    Ok(())
}
