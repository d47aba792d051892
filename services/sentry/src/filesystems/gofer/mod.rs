//! The 9P client file system: exports of the Gofer.
//!
//! An export that is used by this Sentry alone (exclusive access) is cached: attributes, links, listings and pages that
//! were fetched once stay valid until somebody outside has something done in the container ([`Acts`]): he may have
//! changed files before. One that the host changes, too (shared access), is asked for at each use: names and attributes
//! once in each moment (`vfs::moment`), bytes by each read (`shared`). What is written goes through to the host at
//! once, either way. Pages lie in the cache window that the Gofer fills; files that several exports show with shared
//! access have them in common (`vfs::meeting`), and each its own fids for them. Owned here: inodes by qid, their fids,
//! names and attributes. `pages` owns the bytes. Must never trust an answer more than the 9P client did: sizes and
//! kinds are the peer's word, and only ever bound our own work.

mod held;
mod pages;
mod shared;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use cofferdam_control::sentry::FileAccess;
use cofferdam_ninep::client::{Client, Fid};
use cofferdam_ninep::codec;

use crate::errno::Errno;
use crate::filesystems::anon::DirectoryFile;
use crate::memory::store::Store;
use crate::sync::{Mutex, RwLock};
use crate::time::NS;
use crate::vfs::caller::Caller;
use crate::vfs::dentry::Dentry;
use crate::vfs::file::FileOps;
use crate::vfs::inode::{
    Attr, Common, DirEntry, FileSystem, FileType, Inode, InodeRef, NewNode, OpenHow, SetAttr, StatFs, anonymous_dev,
    mode, split_dev,
};
use crate::vfs::meeting::HostFile;
use crate::vfs::moment;

pub use held::Held;
use held::Place;
use pages::{GoferFile, Pages};
use shared::Stamp;
pub use shared::cut_by_host;

/// `V9FS_MAGIC`.
const V9FS_MAGIC: u64 = 0x0102_1997;
/// Entries of one directory that are listed.
const ENTRIES_MAX: usize = 4 << 20;
/// How often attributes are asked for that others keep changing.
const ASK_MOST: usize = 4;

/// Whether a walk that came back with this error had room for its descriptor: an error within an answer is no failed request.
fn room(error: Option<cofferdam_ninep::Errno>) -> Result<(), cofferdam_ninep::Errno> {
    match error {
        Some(e @ cofferdam_ninep::Errno::NFILE) => Err(e),
        _ => Ok(()),
    }
}

fn errno(e: cofferdam_ninep::Errno) -> Errno {
    Errno::from_host(i32::try_from(e.0).unwrap_or(0))
}

/// How often somebody outside had something done in a container: a process made or started there, a signal sent. What
/// was known of its exclusive files before is asked for once more, when it is next used.
#[derive(Clone, Default)]
pub struct Acts(Arc<AtomicU64>);

impl Acts {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// An export.
pub struct GoferFs {
    client: Client,
    acts: Acts,
    /// Counts what was learnt or done by which attributes are others, where they are kept.
    told: AtomicU64,
    cache: Arc<Store>,
    held: Arc<Held>,
    dev: u64,
    name: String,
    /// Whether the host changes its files, too.
    shared: bool,
    inodes: Mutex<HashMap<u64, Weak<GoferInode>>>,
}

impl FileSystem for GoferFs {
    fn name(&self) -> &'static str {
        "9p"
    }
    fn dev(&self) -> u64 {
        self.dev
    }
    fn statfs(&self) -> Result<StatFs, Errno> {
        let (root, _) = self.client.attach(self.name.as_bytes(), b"root", codec::NONUNAME).map_err(errno)?;
        let s = self.client.statfs(&root).map_err(errno)?;
        Ok(StatFs {
            kind: V9FS_MAGIC,
            block_size: u64::from(s.bsize),
            blocks: s.blocks,
            free: s.bavail,
            files: s.files,
            files_free: s.ffree,
        })
    }
    fn options(&self) -> String {
        String::from(if self.shared { "trans=fd,cache=none" } else { "trans=fd,cache=exclusive" })
    }
}

impl GoferFs {
    /// Attaches an export; its root dentry (a directory, or a file for a file export).
    pub fn attach(
        (client, acts): (Client, Acts),
        cache: Arc<Store>,
        held: Arc<Held>,
        export: &str,
        access: FileAccess,
    ) -> Result<(Arc<Self>, Arc<Dentry>), Errno> {
        let name = format!("export/{export}");
        let (fid, _) = client.attach(name.as_bytes(), b"root", codec::NONUNAME).map_err(errno)?;
        let attr = client.getattr(&fid).map_err(errno)?;
        let (dev, shared) = (anonymous_dev(), access == FileAccess::Shared);
        let told = AtomicU64::new(0);
        let fs = Arc::new(Self { client, acts, told, cache, held, dev, name, shared, inodes: Mutex::default() });
        let root = fs.inode(&attr, Some(fid), None, fs.asking());
        Ok((fs, Dentry::root(root)))
    }

    /// Another export as a part of this file system, where the Gofer lets names be moved between the two; its root dentry.
    pub fn attach_beside(self: &Arc<Self>, export: &str) -> Result<Arc<Dentry>, Errno> {
        let name = format!("export/{export}");
        let (fid, _) = self.client.attach(name.as_bytes(), b"root", codec::NONUNAME).map_err(errno)?;
        let asked = self.asking();
        let attr = self.client.getattr(&fid).map_err(errno)?;
        Ok(Dentry::root(self.inode(&attr, Some(fid), None, asked)))
    }

    fn convert(&self, a: &codec::Attr) -> Attr {
        let time = |t: codec::Time| {
            let sec = t.sec.cast_signed().saturating_mul(NS);
            sec.saturating_add(i64::try_from(t.nsec).unwrap_or(0).min(NS - 1))
        };
        Attr {
            dev: self.dev,
            ino: a.qid.path,
            mode: a.mode & (mode::TYPE | mode::PERMISSIONS),
            nlink: u32::try_from(a.nlink).unwrap_or(u32::MAX),
            uid: a.uid,
            gid: a.gid,
            rdev: a.rdev,
            size: a.size.min(i64::MAX.cast_unsigned()),
            blocks: a.blocks,
            block_size: 4096,
            atime: time(a.atime),
            mtime: time(a.mtime),
            ctime: time(a.ctime),
            btime: time(a.btime),
        }
    }

    /// Asks for what takes a descriptor in the Gofer.
    fn with_room<T>(&self, ask: impl Fn() -> Result<T, cofferdam_ninep::Errno>) -> Result<T, Errno> {
        self.held.with_room(&|| self.client.clunk_batch(), || ask().map_err(errno))
    }

    /// When it is, for what is known of the host's files: the moment, or how often somebody outside acted.
    fn now(&self) -> u64 {
        if self.shared { moment::now() } else { self.acts.0.load(Ordering::Acquire) }
    }

    /// Something is about to be asked of the host.
    fn asking(&self) -> Asked {
        Asked { at: self.now(), told: self.told.load(Ordering::Acquire) }
    }

    /// The inode of a qid: the one there is, or a new one.
    fn inode(self: &Arc<Self>, a: &codec::Attr, fid: Option<Fid>, from: Option<Name>, asked: Asked) -> Arc<GoferInode> {
        let mut inodes = self.inodes.lock();
        let known = inodes.get(&a.qid.path).and_then(Weak::upgrade);
        // Where nobody acted since, nobody else has changed anything.
        let again = |old: &GoferInode| self.shared || old.asked.load(Ordering::Acquire) < asked.at;
        if let Some(old) = known.as_ref().filter(|old| !again(old) || old.is_still(a)) {
            let old = old.clone();
            drop(inodes);
            if again(&old) {
                old.found_again(a, fid, from, asked);
            }
            return old;
        }
        let holds = fid.is_some();
        let inode = Arc::new_cyclic(|me| GoferInode {
            me: me.clone(),
            fs: self.clone(),
            qid: a.qid.path,
            kind: FileType::of(a.mode),
            host: (a.generation, a.data_version),
            common: Common::default(),
            attr: RwLock::new(self.convert(a)),
            asked: AtomicU64::new(asked.at),
            told: AtomicU64::new(0),
            fid: Mutex::new(fid.map(Arc::new)),
            from: Mutex::new(from),
            listing: Mutex::new(None),
            target: OnceLock::new(),
            open: Mutex::default(),
            pages: OnceLock::new(),
            mapped: AtomicUsize::new(0),
            opens: AtomicUsize::new(0),
            on_mount: AtomicBool::new(a.qid.kind.is_on_mount()),
            fids_place: Place::default(),
            pages_place: Place::default(),
            deleted: GiveBack { client: self.client.clone(), wanted: AtomicBool::new(false) },
        });
        inodes.insert(a.qid.path, Arc::downgrade(&inode));
        drop(inodes);
        drop(known);
        if holds {
            self.held.fids(&inode);
        }
        inode
    }
}

/// When something was asked of the host.
#[derive(Clone, Copy)]
struct Asked {
    /// See [`GoferFs::now`].
    at: u64,
    /// [`GoferFs::told`] then.
    told: u64,
}

/// A directory as it was listed, by name.
struct Listing {
    /// When it was asked for.
    at: u64,
    entries: Vec<(Vec<u8>, DirEntry, Option<codec::Attr>)>,
}

/// A file of an export.
pub struct GoferInode {
    me: Weak<GoferInode>,
    fs: Arc<GoferFs>,
    qid: u64,
    kind: FileType,
    /// Device and number on the host; no number where the server does not tell.
    host: (u64, u64),
    common: Common,
    attr: RwLock<Attr>,
    /// When the attributes were asked for ([`GoferFs::now`]).
    asked: AtomicU64,
    /// Counts changes of the attributes: what was asked before one and is answered after it may be of before.
    told: AtomicU64,
    /// A fid that is not open; walked to when first needed.
    fid: Mutex<Option<Arc<Fid>>>,
    /// The directory and name it was found at.
    from: Mutex<Option<Name>>,
    listing: Mutex<Option<Arc<Listing>>>,
    target: OnceLock<Vec<u8>>,
    open: Mutex<Open>,
    /// Its pages, once it was opened: see [`GoferInode::pages`].
    pages: OnceLock<Arc<Pages>>,
    /// Memory objects of it: its pages may be mapped.
    mapped: AtomicUsize,
    /// Open files of it.
    opens: AtomicUsize,
    /// It is on a mount of the host that may go: nothing of it stays open here that is not in use.
    on_mount: AtomicBool,
    /// Its places in the queues of [`Held`].
    fids_place: Place,
    pages_place: Place,
    /// Last, so that every fid above is dropped before it.
    deleted: GiveBack,
}

/// Fids that are open.
#[derive(Default)]
struct Open {
    reader: Option<Arc<Fid>>,
    writer: Option<Arc<Fid>>,
    /// To write at the end of the file, wherever that is on the host then. Of shared files only.
    appender: Option<Arc<Fid>>,
}

impl Open {
    /// A fid to read with.
    fn any(&self) -> Option<Arc<Fid>> {
        self.reader.as_ref().or(self.writer.as_ref()).cloned()
    }
}

/// A directory and a name in it.
type Name = (Arc<GoferInode>, Vec<u8>);

/// Gives dropped fids back to the server at once, if the file has no name left: its space on the host's disk is free then,
/// not when enough fids have come together.
struct GiveBack {
    client: Client,
    wanted: AtomicBool,
}

impl Drop for GiveBack {
    fn drop(&mut self) {
        if *self.wanted.get_mut() {
            self.client.clunk_batch();
        }
    }
}

impl Drop for GoferInode {
    fn drop(&mut self) {
        let mut inodes = self.fs.inodes.lock();
        if inodes.get(&self.qid).is_some_and(|w| w.strong_count() == 0) {
            inodes.remove(&self.qid);
        }
    }
}

impl GoferInode {
    fn client(&self) -> &Client {
        &self.fs.client
    }

    fn me(&self) -> Result<Arc<GoferInode>, Errno> {
        self.me.upgrade().ok_or(Errno::ESTALE)
    }

    /// A fid for it that is not open.
    fn fid(&self) -> Result<Arc<Fid>, Errno> {
        if let Some(fid) = &*self.fid.lock() {
            return Ok(fid.clone());
        }
        let from = self.from.lock().clone();
        let (dir, name) = from.ok_or(Errno::ESTALE)?;
        let dir = dir.fid()?;
        let got = self.fs.with_room(|| {
            let got = self.client().walk_getattr(&dir, &[&name])?;
            got.error.map_or(Ok((got.fid, got.steps)), Err)
        })?;
        let (Some(fid), [attr]) = (got.0, got.1.as_slice()) else { return Err(Errno::ESTALE) };
        if attr.qid.path != self.qid {
            return Err(Errno::ESTALE);
        }
        let fid = self.fid.lock().get_or_insert(Arc::new(fid)).clone();
        self.fs.held.fids(&self.me()?);
        Ok(fid)
    }

    /// Its pages. Inodes that are the same file of the host, by whichever exports, have the same ones.
    fn pages(&self) -> &Arc<Pages> {
        let known = if self.fs.shared {
            (None, 0)
        } else {
            (Some(Stamp::of(&self.attr.read())), self.asked.load(Ordering::Acquire))
        };
        let new = |identity| Arc::new(Pages::new(self.fs.cache.clone(), self.fs.held.clone(), identity, known));
        self.pages.get_or_init(|| {
            let own = || new((self.fs.dev, self.qid));
            if !self.fs.shared || self.host_file().is_none() {
                return own();
            }
            let met = self.meeting().pages.get_or_init(|| new(pages::met_identity()));
            met.clone().downcast().unwrap_or_else(|_| own())
        })
    }

    /// Whether other inodes have the same pages. Each has them, and where they meet.
    fn has_others(&self) -> bool {
        Arc::strong_count(self.pages()) > 2
    }

    /// The same, if there are any.
    fn known_pages(&self) -> Option<&Arc<Pages>> {
        self.pages.get().or_else(|| self.met()?.pages.get().map(|_| self.pages()))
    }

    /// Whether it is open or mapped.
    fn in_use(&self) -> bool {
        self.opens.load(Ordering::Acquire) + self.mapped.load(Ordering::Acquire) > 0
    }

    /// Whether these attributes are of this file, and not of one that the host gave its number to: which it does not
    /// while a fid has the file. (One that an overlay of the host copied up was made anew, and is the same.)
    fn is_still(&self, a: &codec::Attr) -> bool {
        FileType::of(a.mode) == self.kind
            && (self.fs.convert(a).btime == self.attr.read().btime || (!self.fs.shared && self.is_held()))
    }

    /// Whether a fid keeps the file from being another.
    fn is_held(&self) -> bool {
        !self.on_mount.load(Ordering::Relaxed) && (self.fid.lock().is_some() || self.open.lock().any().is_some())
    }

    /// The host has just said what it is like, and under which name it found it.
    fn found_again(self: &Arc<Self>, a: &codec::Attr, fid: Option<Fid>, from: Option<Name>, asked: Asked) {
        // Kept ones only if nothing was done here meanwhile: else it may be of before.
        self.heard(a, asked.at, (!self.fs.shared).then_some((&self.fs.told, asked.told)));
        // As good as its own, where that was given back.
        if let Some(fid) = fid {
            let mut own = self.fid.lock();
            if own.is_none() {
                *own = Some(Arc::new(fid));
                drop(own);
                self.fs.held.fids(self);
            }
        }
        let mut now = self.from.lock();
        // One whose name was taken away here keeps its fid and needs none.
        if now.is_some() && from.is_some() {
            let old = std::mem::replace(&mut *now, from);
            drop(now);
            drop(old);
        }
    }

    /// The host has just said what it is like; false if that may be of before what has become known meanwhile: then the
    /// counter (its own or the export's) is no longer what it was then.
    fn heard(&self, a: &codec::Attr, at: u64, since: Option<(&AtomicU64, u64)>) -> bool {
        self.on_mount.store(a.qid.kind.is_on_mount(), Ordering::Relaxed);
        // Changes count with this lock held: none comes between the look and what follows.
        let mut known = self.attr.write();
        if since.is_some_and(|(told, was)| told.load(Ordering::Acquire) != was) {
            return false;
        }
        *known = self.fs.convert(a);
        self.changes();
        drop(known);
        self.asked.store(at, Ordering::Release);
        true
    }

    /// Changes what is known of the attributes.
    fn change<T>(&self, how: impl FnOnce(&mut Attr) -> T) -> T {
        let mut known = self.attr.write();
        let done = how(&mut known);
        self.changes();
        done
    }

    /// What is known of the attributes changes, by whoever has them locked.
    fn changes(&self) {
        self.told.fetch_add(1, Ordering::AcqRel);
        self.fs.told.fetch_add(1, Ordering::AcqRel);
    }

    /// What is known of it is of before something that it was changed by.
    fn outdated(&self) {
        self.asked.store(moment::NONE, Ordering::Release);
    }

    /// Gives back the fids that it can do without for now (see [`Held`]); false if it keeps some.
    fn give_back_fids(&self) -> bool {
        // Without a name it would not be found again; with it, no rename or unlink is under way (they take it first).
        let from = self.from.lock();
        if from.is_none() {
            return false;
        }
        // The host may give the name to another file: one that is in use would not be found again.
        if self.fs.shared && self.in_use() {
            return false;
        }
        *self.fid.lock() = None;
        // What is open stays so (its permissions may have changed since), and what is mapped may have to be written back.
        if self.in_use() {
            return false;
        }
        *self.open.lock() = Open::default();
        true
    }

    /// It is in use no longer, by one of its users.
    fn let_go(&self) {
        if !self.on_mount.load(Ordering::Relaxed) || self.in_use() {
            return;
        }
        let open = std::mem::take(&mut *self.open.lock());
        drop(open);
        self.client().clunk_batch();
    }

    /// Gives back its pages (see [`Held`]); false if they are in use.
    fn give_back_pages(&self) -> bool {
        self.pages.get().is_none_or(|pages| pages.give_back())
    }

    /// Makes sure that it holds a fid, and takes its name away, so that it keeps it: what the name was.
    fn pin(&self) -> Result<Option<Name>, Errno> {
        loop {
            self.fid()?;
            let mut from = self.from.lock();
            if self.fid.lock().is_some() {
                return Ok(from.take());
            }
        }
    }

    /// A new fid for it, open with these flags.
    fn open_fid(&self, open_flags: u32) -> Result<Fid, Errno> {
        let own = self.fid()?;
        self.fs.with_room(|| {
            let fid = self.client().walk(&own, &[])?;
            self.client().lopen(&fid, open_flags)?;
            Ok(fid)
        })
    }

    fn list(&self) -> Result<Arc<Listing>, Errno> {
        let at = self.fs.now();
        if let Some(l) = self.listing.lock().as_ref().filter(|l| !self.fs.shared && l.at >= at) {
            return Ok(l.clone());
        }
        let fid = self.open_fid(libc::O_DIRECTORY.cast_unsigned())?;
        let mut entries = Vec::new();
        let mut offset = 0;
        loop {
            // Of shared files each use asks anew: attributes would be for nothing.
            let ask = if self.fs.shared { Client::readdir } else { Client::readdir_attr };
            let some = ask(self.client(), &fid, offset).map_err(errno)?;
            let Some(last) = some.last() else { break };
            if last.offset == offset || entries.len() > ENTRIES_MAX {
                return Err(Errno::EIO);
            }
            offset = last.offset;
            for e in some {
                if e.name == b"." || e.name == b".." {
                    continue;
                }
                let kind = match e.attr {
                    Some(a) => FileType::of(a.mode),
                    None => FileType::of(u32::from(e.kind) << 12),
                };
                let entry = DirEntry { name: e.name.clone(), ino: e.qid.path, kind };
                entries.push((e.name, entry, e.attr));
            }
        }
        drop(fid);
        if self.on_mount.load(Ordering::Relaxed) {
            self.client().clunk_batch();
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        let listing = Arc::new(Listing { at, entries });
        if !self.fs.shared {
            *self.listing.lock() = Some(listing.clone());
        }
        Ok(listing)
    }

    /// Names in it have changed.
    fn changed(&self) {
        *self.listing.lock() = None;
        self.refresh().ok();
    }

    fn refresh(&self) -> Result<(), Errno> {
        for _ in 0..ASK_MOST {
            let (at, told) = (self.fs.now(), self.told.load(Ordering::Acquire));
            // The host may have given its name away: what is open is it still.
            let open = if self.fs.shared { None } else { self.open.lock().any() };
            let fid = open.map_or_else(|| self.fid(), Ok)?;
            let a = self.client().getattr(&fid).map_err(errno)?;
            if self.heard(&a, at, (!self.fs.shared).then_some((&self.told, told))) {
                break;
            }
        }
        Ok(())
    }

    fn find(&self, name: &[u8]) -> Result<Option<Arc<GoferInode>>, Errno> {
        let asked = self.fs.asking();
        let listing = self.listing.lock().clone();
        if let Some(l) = listing.filter(|l| l.at >= asked.at) {
            match l.entries.binary_search_by(|e| e.0.as_slice().cmp(name)) {
                Err(_) => return Ok(None),
                Ok(at) => {
                    if let Some((_, _, Some(attr))) = l.entries.get(at) {
                        return Ok(Some(self.fs.inode(attr, None, Some((self.me()?, name.to_vec())), asked)));
                    }
                }
            }
        }
        let own = self.fid()?;
        let got = self.fs.with_room(|| {
            let got = self.client().walk_getattr(&own, &[name])?;
            room(got.error).map(|()| got)
        })?;
        match (got.steps.first(), got.error.map(errno)) {
            (Some(attr), _) => Ok(Some(self.fs.inode(attr, got.fid, Some((self.me()?, name.to_vec())), asked))),
            (None, Some(Errno::ENOENT) | None) => Ok(None),
            (None, Some(e)) => Err(e),
        }
    }

    fn made(&self, name: &[u8], new: &NewNode) -> Result<InodeRef, Errno> {
        self.changed();
        // Where the host has taken it away again, the call is made once more.
        let inode = self.find(name)?.ok_or(if self.fs.shared { Errno::ESTALE } else { Errno::EIO })?;
        let a = inode.attr()?;
        if (a.uid, a.gid) != (new.uid, new.gid) {
            // A Gofer without the right to give files away leaves them its own.
            inode.set_attr(&SetAttr { uid: Some(new.uid), gid: Some(new.gid), ..SetAttr::default() }).ok();
        }
        inode.let_go();
        Ok(inode)
    }
}

fn inode_of(inode: &InodeRef) -> Result<Arc<GoferInode>, Errno> {
    inode.as_any().downcast_ref::<GoferInode>().ok_or(Errno::EXDEV)?.me()
}

impl Inode for GoferInode {
    crate::vfs::inode::fields!();

    fn host_file(&self) -> Option<HostFile> {
        // What an export has to itself nobody comes to by another; but whoever opens a FIFO looks for others there.
        let meets = self.fs.shared || matches!(self.kind, FileType::Fifo | FileType::Socket);
        (meets && self.host.1 != 0).then(|| (self.host.0, self.host.1, self.attr.read().btime))
    }

    fn attr(&self) -> Result<Attr, Errno> {
        if self.fs.shared {
            let now = moment::now();
            if now == moment::NONE || self.asked.load(Ordering::Acquire) != now {
                self.refresh()?;
            }
        } else if self.asked.load(Ordering::Acquire) < self.fs.now() {
            match self.refresh() {
                // The host has nothing more to say of one whose name and place it took away: what is known of it stays.
                Err(Errno::ESTALE | Errno::ENOENT) => self.asked.store(self.fs.now(), Ordering::Release),
                other => other?,
            }
        }
        Ok(*self.attr.read())
    }

    fn number(&self) -> Result<(u64, u64), Errno> {
        Ok((self.fs.dev, self.qid))
    }

    fn mapped_as(&self) -> Option<(u64, u64)> {
        let pages = self.known_pages()?;
        pages.is_mapped().then_some(pages.identity)
    }

    fn names_since(&self) -> Option<u64> {
        match self.kind {
            FileType::Directory if self.fs.shared => None,
            FileType::Directory => Some(self.fs.now()),
            _ => Some(0),
        }
    }

    fn set_attr(&self, set: &SetAttr) -> Result<(), Errno> {
        use codec::SetAttrMask as M;
        let time =
            |t: i64| codec::Time { sec: t.div_euclid(NS).cast_unsigned(), nsec: t.rem_euclid(NS).cast_unsigned() };
        let mut s = codec::SetAttr::default();
        let mut put = |on: bool, bits: u32| {
            if on {
                s.valid |= bits
            }
        };
        put(set.mode.is_some(), M::MODE);
        put(set.uid.is_some(), M::UID);
        put(set.gid.is_some(), M::GID);
        put(set.size.is_some(), M::SIZE);
        put(set.atime.is_some(), M::ATIME | M::ATIME_SET);
        put(set.mtime.is_some(), M::MTIME | M::MTIME_SET);
        s.mode = set.mode.unwrap_or(0);
        s.uid = set.uid.unwrap_or(0);
        s.gid = set.gid.unwrap_or(0);
        s.size = set.size.unwrap_or(0);
        s.atime = time(set.atime.unwrap_or(0));
        s.mtime = time(set.mtime.unwrap_or(0));
        self.client().setattr(&*self.fid()?, &s).map_err(errno)?;
        if let Some(size) = set.size {
            self.known_pages().inspect(|pages| pages.truncated(size));
        }
        self.refresh()
    }

    fn lookup(&self, _caller: &Caller<'_>, name: &[u8]) -> Result<Option<InodeRef>, Errno> {
        if self.kind != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        Ok(self.find(name)?.map(|i| i as InodeRef))
    }

    fn lookup_path(&self, names: &[&[u8]]) -> Vec<Option<InodeRef>> {
        let walked = || {
            let asked = self.fs.asking();
            let own = self.fid()?;
            let got = self.fs.with_room(|| {
                let got = self.client().walk_getattr(&own, names)?;
                room(got.error).map(|()| got)
            })?;
            let mut found: Vec<Option<InodeRef>> = Vec::new();
            let (mut dir, mut fid) = (self.me()?, got.fid);
            for (i, (attr, name)) in got.steps.iter().zip(names).enumerate() {
                let own = if i + 1 == names.len() { fid.take() } else { None };
                let next = self.fs.inode(attr, own, Some((dir, name.to_vec())), asked);
                found.push(Some(next.clone()));
                dir = next;
            }
            if got.error.map(errno) == Some(Errno::ENOENT) {
                found.push(None);
            }
            Ok::<_, Errno>(found)
        };
        // What went wrong is found once more by who looks the names up one by one.
        walked().unwrap_or_default()
    }

    fn entries(&self, _caller: &Caller<'_>) -> Result<Vec<DirEntry>, Errno> {
        Ok(self.list()?.entries.iter().map(|e| e.1.clone()).collect())
    }

    fn create(&self, name: &[u8], new: &NewNode) -> Result<InodeRef, Errno> {
        let dir = self.fid()?;
        let bits = new.mode & mode::PERMISSIONS;
        match FileType::of(new.mode) {
            FileType::Regular => {
                let how = (libc::O_CREAT | libc::O_EXCL | libc::O_RDWR).cast_unsigned();
                self.fs.with_room(|| {
                    let fid = self.client().walk(&dir, &[])?;
                    self.client().lcreate(&fid, name, how, bits, new.gid)
                })?;
            }
            FileType::Directory => {
                self.client().mkdir(&dir, name, bits, new.gid).map_err(errno)?;
            }
            _ => {
                self.client().mknod(&dir, name, new.mode, split_dev(new.rdev), new.gid).map_err(errno)?;
            }
        }
        self.made(name, new)
    }

    fn symlink(&self, name: &[u8], target: &[u8], new: &NewNode) -> Result<InodeRef, Errno> {
        self.client().symlink(&*self.fid()?, name, target, new.gid).map_err(errno)?;
        self.made(name, new)
    }

    fn link(&self, name: &[u8], target: &InodeRef) -> Result<(), Errno> {
        let target = inode_of(target)?;
        if !Arc::ptr_eq(&target.fs, &self.fs) {
            return Err(Errno::EXDEV);
        }
        self.client().link(&*self.fid()?, &*target.fid()?, name).map_err(errno)?;
        self.changed();
        target.refresh()
    }

    fn unlink(&self, name: &[u8], directory: bool) -> Result<(), Errno> {
        let victim = self.find(name)?.ok_or(Errno::ENOENT)?;
        // Its fid must be there before its name is gone (it may be open), and stay.
        let kept = victim.pin()?;
        let how = if directory { libc::AT_REMOVEDIR.cast_unsigned() } else { 0 };
        if let Err(e) = self.client().unlinkat(&*self.fid()?, name, how) {
            *victim.from.lock() = kept;
            return Err(errno(e));
        }
        let left = victim.change(|a| {
            a.nlink = if directory { 0 } else { a.nlink.saturating_sub(1) };
            a.nlink
        });
        if left == 0 {
            victim.deleted.wanted.store(true, Ordering::Relaxed);
        }
        self.changed();
        Ok(())
    }

    fn rename(&self, name: &[u8], to: &InodeRef, new_name: &[u8], flags: u32) -> Result<(), Errno> {
        let to = inode_of(to)?;
        if !Arc::ptr_eq(&to.fs, &self.fs) {
            return Err(Errno::EXDEV);
        }
        let moved = self.find(name)?.ok_or(Errno::ENOENT)?;
        let replaced = to.find(new_name)?;
        let kept = moved.pin()?;
        let replaced_kept = replaced.as_ref().map_or(Ok(None), |r| r.pin());
        let renamed = replaced_kept
            .clone()
            .and_then(|_| self.client().renameat(&*self.fid()?, name, &*to.fid()?, new_name, flags).map_err(errno));
        if let Err(e) = renamed {
            *moved.from.lock() = kept;
            if let (Some(replaced), Ok(kept)) = (&replaced, replaced_kept) {
                *replaced.from.lock() = kept;
            }
            return Err(e);
        }
        *moved.from.lock() = Some((to.clone(), new_name.to_vec()));
        if let Some(replaced) = &replaced
            && flags & libc::RENAME_EXCHANGE != 0
        {
            *replaced.from.lock() = Some((self.me()?, name.to_vec()));
        }
        for i in std::iter::once(&moved).chain(&replaced) {
            i.refresh().ok();
        }
        if let Some(replaced) = &replaced
            && replaced.attr.read().nlink == 0
        {
            replaced.deleted.wanted.store(true, Ordering::Relaxed);
        }
        self.changed();
        to.changed();
        Ok(())
    }

    fn readlink(&self, _caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
        if self.kind != FileType::Link {
            return Err(Errno::EINVAL);
        }
        if let Some(t) = self.target.get().filter(|_| !self.fs.shared) {
            return Ok(t.clone());
        }
        let target = self.client().readlink(&*self.fid()?).map_err(errno)?;
        if self.fs.shared {
            return Ok(target);
        }
        Ok(self.target.get_or_init(|| target).clone())
    }

    fn open(self: Arc<Self>, _caller: &Caller<'_>, how: OpenHow) -> Result<Box<dyn FileOps>, Errno> {
        match self.kind {
            FileType::Directory => Ok(Box::new(DirectoryFile)),
            FileType::Regular => {
                // Counted before, so that what is got ready is not given back again at once.
                let file = GoferFile::new(self);
                file.inode.pages().prepare(&file.inode, how)?;
                Ok(Box::new(file))
            }
            _ => Err(Errno::ENXIO),
        }
    }

    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        self.client().get_xattr(&*self.fid()?, name).map_err(errno)
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: i32) -> Result<(), Errno> {
        self.client().set_xattr(&*self.fid()?, name, value, flags.cast_unsigned()).map_err(errno)
    }

    fn xattrs(&self) -> Result<Vec<Vec<u8>>, Errno> {
        let all = self.client().get_xattr(&*self.fid()?, b"").map_err(errno)?;
        Ok(all.split(|b| *b == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect())
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<(), Errno> {
        self.client().remove_xattr(&*self.fid()?, name).map_err(errno)
    }
}
