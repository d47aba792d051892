//! Watches on inodes: who is told of what happens to files (`inotify(7)`).
//!
//! Operations tell of themselves here, with the dentry or inode they worked on; a watch on the inode, or on the directory that the
//! name is in, passes it on to its [`Watcher`]. Where nobody watches anything, that is one look at a counter. Must never block
//! or fail. Called by `ops`, by open files and by dentries that go.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use crate::sync::Mutex;
use crate::vfs::dentry::Dentry;
use crate::vfs::inode::{FileType, InodeRef};
use crate::vfs::meeting::Meeting;

/// Events and flags of `inotify(7)`.
#[allow(missing_docs)]
pub mod event {
    pub const ACCESS: u32 = 0x1;
    pub const MODIFY: u32 = 0x2;
    pub const ATTRIB: u32 = 0x4;
    pub const CLOSE_WRITE: u32 = 0x8;
    pub const CLOSE_NOWRITE: u32 = 0x10;
    pub const OPEN: u32 = 0x20;
    pub const MOVED_FROM: u32 = 0x40;
    pub const MOVED_TO: u32 = 0x80;
    pub const CREATE: u32 = 0x100;
    pub const DELETE: u32 = 0x200;
    pub const DELETE_SELF: u32 = 0x400;
    pub const MOVE_SELF: u32 = 0x800;
    /// All that can be asked for.
    pub const ALL: u32 = 0xfff;
    pub const UNMOUNT: u32 = 0x2000;
    pub const IGNORED: u32 = 0x8000;
    pub const EXCL_UNLINK: u32 = 0x400_0000;
    pub const ISDIR: u32 = 0x4000_0000;
}

/// Who is told.
pub trait Watcher: Send + Sync {
    /// `what` happened to the watched inode, or to the name in it.
    fn told(&self, watch: &Arc<Watch>, what: u32, cookie: u32, name: Option<&[u8]>);
}

/// A watch on an inode.
pub struct Watch {
    /// Its descriptor.
    pub wd: i32,
    /// The events it is for, and flags.
    pub mask: AtomicU32,
    watcher: Weak<dyn Watcher>,
    /// The inode that it was put on, of all that are the same file.
    on: usize,
}

/// All watches there are.
static WATCHES: AtomicUsize = AtomicUsize::new(0);
static COOKIES: AtomicU32 = AtomicU32::new(1);

/// The watches on a file.
pub type Watches = Mutex<Vec<Arc<Watch>>>;

/// What an inode is told from others by.
fn address(inode: &InodeRef) -> usize {
    Arc::as_ptr(inode).cast::<()>().addr()
}

/// Puts a watch on an inode. Whoever put it there keeps the inode as long.
pub fn add(inode: &InodeRef, wd: i32, mask: u32, watcher: Weak<dyn Watcher>) -> Arc<Watch> {
    let watch = Arc::new(Watch { wd, mask: AtomicU32::new(mask), watcher, on: address(inode) });
    inode.meeting().watches.lock().push(watch.clone());
    WATCHES.fetch_add(1, Ordering::Relaxed);
    watch
}

/// Takes a watch off an inode; false if it was not there any more.
pub fn remove(inode: &InodeRef, watch: &Arc<Watch>) -> bool {
    let mut watches = inode.meeting().watches.lock();
    let Some(at) = watches.iter().position(|w| Arc::ptr_eq(w, watch)) else { return false };
    watches.remove(at);
    WATCHES.fetch_sub(1, Ordering::Relaxed);
    true
}

fn watched(inode: &InodeRef) -> bool {
    WATCHES.load(Ordering::Relaxed) != 0 && inode.met().is_some_and(|m| !m.watches.lock().is_empty())
}

fn tell(inode: &InodeRef, what: u32, cookie: u32, name: Option<&[u8]>, unlinked: bool) {
    if WATCHES.load(Ordering::Relaxed) == 0 {
        return;
    }
    let Some(met) = inode.met() else { return };
    let skip = if unlinked { event::EXCL_UNLINK } else { 0 };
    let wanted = |w: &&Arc<Watch>| {
        let mask = w.mask.load(Ordering::Relaxed);
        mask & what & event::ALL != 0 && mask & skip == 0
    };
    let told: Vec<Arc<Watch>> = met.watches.lock().iter().filter(wanted).cloned().collect();
    for watch in told {
        if let Some(watcher) = watch.watcher.upgrade() {
            watcher.told(&watch, what, cookie, name);
        }
    }
}

fn kind(inode: &InodeRef) -> u32 {
    if inode.kind() == FileType::Directory { event::ISDIR } else { 0 }
}

/// Something happened to the file of a name: whoever watches its directory or the file itself is told.
pub fn file(dentry: &Dentry, what: u32) {
    if WATCHES.load(Ordering::Relaxed) == 0 {
        return;
    }
    let what = what | kind(dentry.inode());
    if let Some(parent) = dentry.parent() {
        tell(parent.inode(), what, 0, Some(&dentry.name()), dentry.is_deleted());
    }
    tell(dentry.inode(), what, 0, None, false);
}

/// Something happened to an inode, whatever its names.
pub fn inode(inode: &InodeRef, what: u32) {
    // Of these it is not told what they happened to.
    let kind = if what & (event::DELETE_SELF | event::MOVE_SELF) != 0 { 0 } else { kind(inode) };
    tell(inode, what | kind, 0, None, false);
}

/// A name came (`CREATE`) or went (`DELETE`).
pub fn name(dir: &InodeRef, name: &[u8], of: &InodeRef, what: u32) {
    tell(dir, what | kind(of), 0, Some(name), false);
}

/// A name moved.
pub fn moved(from: &InodeRef, old: &[u8], to: &InodeRef, new: &[u8], of: &InodeRef) {
    if WATCHES.load(Ordering::Relaxed) == 0 {
        return;
    }
    let cookie = COOKIES.fetch_add(1, Ordering::Relaxed);
    tell(from, event::MOVED_FROM | kind(of), cookie, Some(old), false);
    tell(to, event::MOVED_TO | kind(of), cookie, Some(new), false);
}

/// The last use of a removed name is over: a file without names and users is gone, and so are its watches. Where it is still open by
/// another inode that is the same file, its end is told by who closes that.
pub fn gone(dead: &InodeRef) {
    let open = |m: &Arc<Meeting>| m.opens.load(Ordering::Acquire) > 0;
    if watched(dead) && !dead.met().is_some_and(open) && dead.attr().is_ok_and(|a| a.nlink == 0 || kind(dead) != 0) {
        inode(dead, event::DELETE_SELF);
        end(dead, |_| true, &[event::IGNORED]);
    }
}

/// The file system of an inode is mounted nowhere any more: its watches are told, whatever they are for, and end.
pub fn unmounted(of: &InodeRef) {
    if watched(of) {
        // The same file may be watched where another file system shows it.
        let here = address(of);
        end(of, |watch| watch.on == here, &[event::UNMOUNT | kind(of), event::IGNORED]);
    }
}

fn end(of: &InodeRef, which: impl Fn(&Watch) -> bool, told: &[u32]) {
    let watches: Vec<_> = of.meeting().watches.lock().extract_if(.., |watch| which(watch)).collect();
    WATCHES.fetch_sub(watches.len(), Ordering::Relaxed);
    for watch in watches {
        if let Some(watcher) = watch.watcher.upgrade() {
            told.iter().for_each(|what| watcher.told(&watch, *what, 0, None));
        }
    }
}
