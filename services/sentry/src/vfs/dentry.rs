//! Dentries: names that were looked up, found or missing.
//!
//! A dentry keeps its parent alive; a parent knows its children weakly. What keeps a warm dentry alive is the [`Cache`],
//! a bounded second-chance queue. Missing names are remembered in their parent. Owned here: the tree of names and its
//! coherence with file systems under concurrent lookups and changes. Never here: permission checks, mounts.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use crate::errno::Errno;
use crate::sync::{Mutex, RwLock};
use crate::vfs::caller::Caller;
use crate::vfs::inode::InodeRef;
use crate::vfs::watch;

/// Dentries kept alive by the cache alone.
const CACHED: usize = 65_536;
/// Missing names remembered over all directories.
const NEGATIVE: usize = 65_536;

static NEGATIVES: AtomicUsize = AtomicUsize::new(0);
static CACHE: Cache = Cache { queue: Mutex::new(VecDeque::new()) };

/// The bounded queue that keeps dentries warm.
struct Cache {
    queue: Mutex<VecDeque<Arc<Kept>>>,
}

/// A place in the cache. A dentry whose name is gone leaves its place at once, and the file goes with it: its memory, or
/// its space on the host's disk, is not to wait for the queue to turn.
#[derive(Default)]
struct Kept(Mutex<Option<Arc<Dentry>>>);

impl Cache {
    fn add(&self, dentry: &Arc<Dentry>) {
        let mut out = Vec::new();
        let mut queue = self.queue.lock();
        let kept = dentry.kept.get_or_init(Arc::default).clone();
        *kept.0.lock() = Some(dentry.clone());
        queue.push_back(kept);
        // Each turn either drops one or takes its second chance away, so this ends.
        let mut turns = queue.len();
        while queue.len() > CACHED && turns > 0 {
            turns -= 1;
            let Some(old) = queue.pop_front() else { break };
            let mut kept = old.0.lock();
            if kept.as_ref().is_some_and(|d| d.referenced.swap(false, Ordering::Relaxed)) {
                drop(kept);
                queue.push_back(old);
            } else {
                out.push(kept.take());
            }
        }
        drop(queue);
        // Dropped with no lock held: the last reference may tell another service to forget a file.
        drop(out);
    }
}

enum Child {
    Known(Weak<Dentry>),
    /// And when that was said ([`Inode::names_since`](crate::vfs::inode::Inode::names_since)).
    Missing(u64),
}

#[derive(Default)]
struct Children {
    map: HashMap<Box<[u8]>, Child>,
    missing: usize,
    /// Counts changes by unlink, rename and create, so that a lookup that raced with one is not believed.
    generation: u64,
}

impl Children {
    fn insert(&mut self, name: &[u8], child: Child) {
        self.remove(name);
        if matches!(child, Child::Missing(_)) {
            if NEGATIVES.load(Ordering::Relaxed) >= NEGATIVE {
                self.forget_missing();
                if NEGATIVES.load(Ordering::Relaxed) >= NEGATIVE {
                    return;
                }
            }
            self.missing += 1;
            NEGATIVES.fetch_add(1, Ordering::Relaxed);
        }
        self.map.insert(name.into(), child);
    }

    fn remove(&mut self, name: &[u8]) -> Option<Arc<Dentry>> {
        match self.map.remove(name)? {
            Child::Known(d) => d.upgrade(),
            Child::Missing(_) => {
                self.missing -= 1;
                NEGATIVES.fetch_sub(1, Ordering::Relaxed);
                None
            }
        }
    }

    fn forget_missing(&mut self) {
        self.map.retain(|_, c| matches!(c, Child::Known(_)));
        NEGATIVES.fetch_sub(self.missing, Ordering::Relaxed);
        self.missing = 0;
    }
}

/// Directory and name.
type Place = (Option<Arc<Dentry>>, Arc<[u8]>);

/// Names that are kept, and of those that are known to be missing.
static DENTRIES: AtomicUsize = AtomicUsize::new(0);

/// How many names are kept in memory, and how many of things that are not there (`fs.dentry-state`).
pub fn counts() -> (usize, usize) {
    (DENTRIES.load(Ordering::Relaxed), NEGATIVES.load(Ordering::Relaxed))
}

/// A name of an inode, in its place in the tree.
pub struct Dentry {
    inode: InodeRef,
    place: RwLock<Place>,
    children: RwLock<Children>,
    /// Held while names in this directory are changed, so that file system and dentries change together.
    pub modify: Mutex<()>,
    /// How many mounts sit on it, in all namespaces.
    pub mounted: AtomicU32,
    /// When its file system said that it is there.
    said: AtomicU64,
    referenced: AtomicBool,
    deleted: AtomicBool,
    kept: OnceLock<Arc<Kept>>,
}

impl Drop for Dentry {
    fn drop(&mut self) {
        DENTRIES.fetch_sub(1, Ordering::Relaxed);
        self.children.write().forget_missing();
        if *self.deleted.get_mut() {
            watch::gone(&self.inode);
        }
        let place = self.place.read();
        if let Some(parent) = &place.0 {
            let mut children = parent.children.write();
            // A newer dentry may have taken the name by now: only a dead one is removed.
            if matches!(children.map.get(&*place.1), Some(Child::Known(d)) if d.strong_count() == 0) {
                children.remove(&place.1);
            }
        }
    }
}

impl Dentry {
    fn make(inode: InodeRef, parent: Option<Arc<Dentry>>, name: &[u8], said: u64) -> Arc<Self> {
        DENTRIES.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            inode,
            place: RwLock::new((parent, name.into())),
            children: RwLock::default(),
            modify: Mutex::new(()),
            mounted: AtomicU32::new(0),
            said: AtomicU64::new(said),
            referenced: AtomicBool::new(false),
            deleted: AtomicBool::new(false),
            kept: OnceLock::new(),
        })
    }

    /// The root of a file system.
    pub fn root(inode: InodeRef) -> Arc<Self> {
        Self::make(inode, None, b"/", 0)
    }

    /// A dentry outside of any tree, shown as `name` (`pipe:[7]`, an unnamed file).
    pub fn alone(inode: InodeRef, name: &[u8]) -> Arc<Self> {
        Self::make(inode, None, name, 0)
    }

    /// As [`alone`](Self::alone), counted as deleted (a memfd).
    pub fn alone_deleted(inode: InodeRef, name: &[u8]) -> Arc<Self> {
        let d = Self::make(inode, None, name, 0);
        d.set_deleted();
        d
    }

    /// A name that is not entered in the tree (an `O_TMPFILE` file), counted as deleted.
    pub fn unnamed(inode: InodeRef, parent: &Arc<Dentry>, name: &[u8]) -> Arc<Self> {
        let d = Self::make(inode, Some(parent.clone()), name, 0);
        d.set_deleted();
        d
    }

    /// The inode.
    pub fn inode(&self) -> &InodeRef {
        &self.inode
    }

    /// The directory it is in; `None` for a root.
    pub fn parent(&self) -> Option<Arc<Dentry>> {
        self.place.read().0.clone()
    }

    /// Its name.
    pub fn name(&self) -> Arc<[u8]> {
        self.place.read().1.clone()
    }

    /// Whether the name was removed (the inode lives on while it is open).
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Relaxed)
    }

    /// The name is gone. The caller holds a reference, so that the last one is not dropped here.
    fn set_deleted(&self) {
        self.deleted.store(true, Ordering::Relaxed);
        if let Some(kept) = self.kept.get() {
            let out = kept.0.lock().take();
            drop(out);
        }
    }

    /// Whether `self` is `ancestor` or below it.
    pub fn is_below(self: &Arc<Self>, ancestor: &Arc<Dentry>) -> bool {
        let mut at = self.clone();
        loop {
            if Arc::ptr_eq(&at, ancestor) {
                return true;
            }
            match at.parent() {
                Some(p) => at = p,
                None => return false,
            }
        }
    }

    /// The child of that name as far as it is known without asking: itself, or that there is none.
    pub fn cached(&self, name: &[u8]) -> Option<Option<Arc<Dentry>>> {
        let since = self.inode.names_since();
        match self.children.read().map.get(name)? {
            Child::Missing(said) => since.is_some_and(|since| *said >= since).then_some(None),
            Child::Known(d) => {
                let d = d.upgrade().filter(|d| d.holds(since) && d.inode.valid())?;
                if !d.referenced.load(Ordering::Relaxed) {
                    d.referenced.store(true, Ordering::Relaxed);
                }
                Some(Some(d))
            }
        }
    }

    /// Whether it need not be asked for again in a directory whose names hold since then. What has a mount on it stays
    /// where it is, whatever becomes of what is beneath.
    fn holds(&self, since: Option<u64>) -> bool {
        since.is_some_and(|since| self.said.load(Ordering::Acquire) >= since)
            || self.mounted.load(Ordering::Acquire) > 0
    }

    /// Whether a name was asked for before, and is to be once more: what follows it in a path may have to be, too.
    pub fn asks_again(&self, name: &[u8], since: u64) -> bool {
        match self.children.read().map.get(name) {
            Some(Child::Known(d)) => d.upgrade().is_some_and(|d| !d.holds(Some(since))),
            Some(Child::Missing(said)) => *said < since,
            None => false,
        }
    }

    /// The child of that name: from the cache, or by asking the file system. `None` if there is none.
    pub fn child(self: &Arc<Self>, caller: &Caller<'_>, name: &[u8]) -> Result<Option<Arc<Dentry>>, Errno> {
        self.child_found(caller, name, None)
    }

    /// As [`child`](Self::child), where what the file system says was asked just before.
    pub fn child_found(
        self: &Arc<Self>,
        caller: &Caller<'_>,
        name: &[u8],
        mut asked: Option<Option<InodeRef>>,
    ) -> Result<Option<Arc<Dentry>>, Errno> {
        let since = self.inode.names_since();
        loop {
            let generation = {
                let children = self.children.read();
                match children.map.get(name) {
                    Some(Child::Missing(said)) if since.is_some_and(|since| *said >= since) => return Ok(None),
                    Some(Child::Known(d)) => {
                        if let Some(d) = d.upgrade()
                            && d.holds(since)
                        {
                            if d.inode.valid() {
                                if !d.referenced.load(Ordering::Relaxed) {
                                    d.referenced.store(true, Ordering::Relaxed);
                                }
                                return Ok(Some(d));
                            }
                            drop(children);
                            self.forget(name);
                            continue;
                        }
                    }
                    _ => {}
                }
                children.generation
            };
            if self.is_deleted() {
                return Ok(None);
            }
            let found = asked.take().map_or_else(|| self.inode.lookup(caller, name), Ok)?;
            let mut children = self.children.write();
            if children.generation != generation {
                continue;
            }
            let known = match children.map.get(name) {
                Some(Child::Known(d)) => d.upgrade(),
                _ => None,
            };
            match found {
                None => {
                    match since {
                        None => {
                            children.remove(name);
                            children.generation += 1;
                        }
                        Some(since) if self.inode.cacheable() => children.insert(name, Child::Missing(since)),
                        Some(_) => {}
                    }
                    drop(children);
                    known.iter().for_each(Self::lost);
                    return Ok(None);
                }
                Some(inode) => {
                    if let Some(d) = known {
                        let same = Arc::ptr_eq(&d.inode, &inode);
                        if same || since.is_some() && d.holds(since) {
                            if let Some(since) = since.filter(|_| same) {
                                d.said.fetch_max(since, Ordering::AcqRel);
                            }
                            d.referenced.store(true, Ordering::Relaxed);
                            return Ok(Some(d));
                        }
                        // The host put something else there.
                        children.remove(name);
                        children.generation += 1;
                        drop(children);
                        d.lost();
                        continue;
                    }
                    let d = Self::make(inode, Some(self.clone()), name, since.unwrap_or(0));
                    children.insert(name, Child::Known(Arc::downgrade(&d)));
                    drop(children);
                    if self.inode.cacheable() {
                        CACHE.add(&d);
                    }
                    return Ok(Some(d));
                }
            }
        }
    }

    /// The host took the name away, or gave it to something else.
    fn lost(self: &Arc<Self>) {
        if self.inode.attr().map_or(true, |a| a.nlink == 0) {
            return self.set_deleted();
        }
        // It was moved: whoever has it still has it, under the old name.
        self.leave_cache(|_| ());
    }

    /// Enters a name that was just made. The caller holds [`modify`](Self::modify).
    pub fn insert(self: &Arc<Self>, name: &[u8], inode: InodeRef) -> Arc<Dentry> {
        let d = Self::make(inode, Some(self.clone()), name, self.inode.names_since().unwrap_or(0));
        let mut children = self.children.write();
        children.generation += 1;
        let old = children.remove(name);
        children.insert(name, Child::Known(Arc::downgrade(&d)));
        drop(children);
        old.iter().for_each(|old| old.leave_cache(|_| ()));
        CACHE.add(&d);
        d
    }

    /// Removes a name that was just unlinked. The caller holds [`modify`](Self::modify).
    pub fn remove(&self, name: &[u8]) {
        let mut children = self.children.write();
        children.generation += 1;
        let old = children.remove(name);
        if self.inode.cacheable() {
            children.insert(name, Child::Missing(self.inode.names_since().unwrap_or(0)));
        }
        drop(children);
        if let Some(old) = old {
            old.set_deleted();
        }
    }

    /// The cache keeps nothing of this tree warm any more: its file system is mounted nowhere.
    pub fn cool(self: &Arc<Self>) {
        self.leave_cache(|d| watch::unmounted(&d.inode));
    }

    /// The cache keeps neither it nor what is below it. For what cannot be found from its parent any more, too: a name below it would
    /// keep it, and its file system, for as long as the cache has room.
    fn leave_cache(self: &Arc<Self>, each: impl Fn(&Dentry)) {
        let mut all = vec![self.clone()];
        while let Some(d) = all.pop() {
            let known = |c: &Child| match c {
                Child::Known(d) => d.upgrade(),
                Child::Missing(_) => None,
            };
            all.extend(d.children.read().map.values().filter_map(known));
            each(&d);
            let out = d.kept.get().and_then(|kept| kept.0.lock().take());
            drop(out);
        }
    }

    /// Forgets what is known about a name; the next lookup asks the file system.
    pub fn forget(&self, name: &[u8]) {
        let mut children = self.children.write();
        children.generation += 1;
        let old = children.remove(name);
        drop(children);
        old.iter().for_each(|old| old.leave_cache(|_| ()));
    }

    /// Moves the name that was just renamed. The caller holds both directories' [`modify`](Self::modify).
    pub fn moved(self: &Arc<Self>, name: &[u8], to: &Arc<Dentry>, new_name: &[u8], exchange: bool) {
        let take = |d: &Arc<Dentry>, n: &[u8]| {
            let mut children = d.children.write();
            children.generation += 1;
            children.remove(n)
        };
        let place = |child: Option<Arc<Dentry>>, d: &Arc<Dentry>, n: &[u8]| {
            let Some(child) = child else { return };
            *child.place.write() = (Some(d.clone()), n.into());
            d.children.write().insert(n, Child::Known(Arc::downgrade(&child)));
        };
        let a = take(self, name);
        let b = take(to, new_name);
        if exchange {
            place(b, self, name);
        } else {
            if let Some(b) = &b {
                b.set_deleted();
            }
            drop(b);
            if self.inode.cacheable() {
                let since = self.inode.names_since().unwrap_or(0);
                self.children.write().insert(name, Child::Missing(since));
            }
        }
        place(a, to, new_name);
    }
}
