//! Files that clients hold: handles, places, opening.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use cofferdam_ninep::Errno;
use cofferdam_ninep::codec::{Attr, Qid};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags};

use super::{Host, Open, Permit, Table};

/// Device and inode number.
pub(crate) type Key = (u64, u64);

/// File systems whose files are a door to the host's kernel: magic numbers (statfs(2), `linux/magic.h`).
const BARRED: [u64; 16] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0xcafe_4a11, // bpf
    0x6265_6570, // configfs
    0xde5e_81e4, // efivarfs
    0x6165_676c, // pstore
    0x4249_4e4d, // binfmt_misc
    0x6573_5543, // fusectl
    0x6e73_6673, // nsfs
    0xf97c_ff8c, // selinuxfs
    0x1cd1,      // devpts
];

/// How every step of ours is resolved.
pub(super) const STEP: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_SYMLINKS);

/// Directories above each other that are looked through for one with a handle; more of them are no file.
const DEPTH_MOST: usize = 4096;
/// Bytes of a path that is looked up at once.
const PATH_MOST: usize = 4000;

/// How a file is held.
#[derive(Debug)]
enum Hold {
    /// By a handle that keeps it from being another.
    Handle(OwnedFd),
    /// The root of an export, under that name of a directory: whatever is mounted there.
    Mounted(OwnedFd, Vec<u8>),
    /// By its place alone, so that its mount can go; another file may get its number then, which was made at another
    /// time.
    Place,
}

/// A handle for the moment.
pub(super) enum Handle<'a> {
    Held(BorrowedFd<'a>),
    Opened(Arc<OwnedFd>),
    Found(OwnedFd),
}

impl AsFd for Handle<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Held(fd) => *fd,
            Self::Opened(fd) => fd.as_fd(),
            Self::Found(fd) => fd.as_fd(),
        }
    }
}

/// A file.
#[derive(Debug)]
pub struct Inode {
    hold: Hold,
    /// The mount that the export is, where other mounts in it may come and go.
    home: Option<u64>,
    pub(super) key: Key,
    pub(super) kind: FileType,
    /// When it was made, where the file system tells.
    born: (i64, u32),
    /// A mount of a file system that is not served: appears as an empty directory.
    pub(super) barred: bool,
    /// Where it was last seen. None for the root of an export.
    pub(super) place: Mutex<Option<Place>>,
    /// A descriptor of some fid that has the file open, and whether it is for writing: an unlinked file can be had no
    /// other way.
    opened: Mutex<(Weak<OwnedFd>, bool)>,
    table: Arc<Table>,
    _permit: Permit,
}

/// A directory and a name in it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub dir: Arc<Inode>,
    pub name: Vec<u8>,
    /// [`Host::names`] when the name was last known to be that of the inode.
    pub seen: u64,
}

impl Inode {
    pub(super) fn place(&self) -> Option<Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_place(&self, place: Place) {
        let old = {
            let mut now = self.place.lock().unwrap_or_else(PoisonError::into_inner);
            // A root stays one, wherever else it can be reached; a file that is one has a name elsewhere all the same.
            if now.is_none() && self.kind != FileType::RegularFile { None } else { now.replace(place) }
        };
        drop(old);
    }

    /// A descriptor that has the file open already, for writing where `write` says so.
    pub(super) fn opened(&self, write: bool) -> Option<Arc<OwnedFd>> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if write && !opened.1 { None } else { opened.0.upgrade() }
    }

    pub(super) fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Whether it is on a mount that may go.
    pub(super) fn is_away(&self) -> bool {
        matches!(self.hold, Hold::Place)
    }

    /// A handle of it.
    pub(super) fn handle(&self) -> Result<Handle<'_>, Errno> {
        match &self.hold {
            Hold::Handle(fd) => Ok(Handle::Held(fd.as_fd())),
            Hold::Mounted(dir, name) => {
                let fd = openat2(dir, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
                // Something else may be mounted over it by now.
                if key_of(&statx_of(&fd, b"")?).0 != self.key.0 && is_barred(&fd)? {
                    return Err(Errno::ACCES);
                }
                Ok(Handle::Found(fd))
            }
            Hold::Place => match self.opened(false) {
                Some(open) => Ok(Handle::Opened(open)),
                None => self.find().map(Handle::Found),
            },
        }
    }

    /// Looks it up by its place.
    fn find(&self) -> Result<OwnedFd, Errno> {
        let place = self.place().ok_or(Errno::STALE)?;
        let (mut names, mut dir) = (vec![place.name], place.dir);
        while dir.is_away() {
            let place = dir.place().filter(|_| names.len() < DEPTH_MOST).ok_or(Errno::STALE)?;
            names.push(place.name);
            dir = place.dir;
        }
        let gone = |e| match e {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Errno::STALE,
            e => e,
        };
        let mut at: Option<OwnedFd> = None;
        while let Some(mut path) = names.pop() {
            while let Some(next) = names.pop_if(|next| path.len() + next.len() < PATH_MOST) {
                path.push(b'/');
                path.extend_from_slice(&next);
            }
            let kind = if names.is_empty() { OFlags::NOFOLLOW } else { OFlags::DIRECTORY };
            let flags = OFlags::PATH | OFlags::CLOEXEC | kind;
            let next = match &at {
                Some(fd) => openat2(fd, &path, flags, Mode::empty()),
                None => openat2(dir.handle()?, &path, flags, Mode::empty()),
            };
            at = Some(next.map_err(gone)?);
        }
        let found = at.ok_or(Errno::STALE)?;
        if self.is(&statx_of(&found, b"")?) { Ok(found) } else { Err(Errno::STALE) }
    }

    /// Whether these are the attributes of what has its number: a handle keeps that from being another file.
    fn is_this(&self, stat: &Statx) -> bool {
        !self.is_away() || self.is(stat)
    }

    /// Whether these are its attributes.
    fn is(&self, stat: &Statx) -> bool {
        key_of(stat) == self.key
            && FileType::from_raw_mode(u32::from(stat.stx_mode)) == self.kind
            && born(stat) == self.born
    }
}

impl Drop for Inode {
    fn drop(&mut self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        // A new one of the same number may have taken the entry meanwhile.
        if table.get(&self.key).is_some_and(|w| w.strong_count() == 0) {
            table.remove(&self.key);
        }
        drop(table);
        // A chain of directories as deep as a client likes: let go of in a loop, not by recursion.
        let mut next = take_place(self);
        while let Some(mut inode) = next.and_then(|place| Arc::into_inner(place.dir)) {
            next = take_place(&mut inode);
        }
    }
}

fn take_place(inode: &mut Inode) -> Option<Place> {
    inode.place.get_mut().unwrap_or_else(PoisonError::into_inner).take()
}

pub(super) fn statx_of(fd: impl AsFd, name: &[u8]) -> Result<Statx, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let flags = if name.is_empty() { flags | AtFlags::EMPTY_PATH } else { flags };
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID;
    rustix::fs::statx(fd, name, flags, wanted).map_err(Errno::from)
}

pub(super) fn key_of(stat: &Statx) -> Key {
    (rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino)
}

fn born(stat: &Statx) -> (i64, u32) {
    if stat.stx_mask & StatxFlags::BTIME.bits() == 0 {
        return (0, 0);
    }
    (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)
}

/// The mount that a file is on, or its device where the kernel does not tell.
fn mount_of(stat: &Statx) -> u64 {
    if stat.stx_mask & StatxFlags::MNT_ID.bits() != 0 { stat.stx_mnt_id } else { key_of(stat).0 }
}

impl Host {
    /// The root of an export that is mounted under a name of a directory.
    pub(super) fn mounted(&self, dir: OwnedFd, name: Vec<u8>) -> Result<Arc<Inode>, Errno> {
        let handle = openat2(&dir, &name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let stat = statx_of(&handle, b"")?;
        let key = key_of(&stat);
        // In no table: another export may show the same directory, and holds it otherwise.
        Ok(Arc::new(Inode {
            hold: Hold::Mounted(dir, name),
            home: Some(mount_of(&stat)),
            key,
            kind: FileType::Directory,
            born: born(&stat),
            barred: false,
            place: Mutex::new(None),
            opened: Mutex::new((Weak::new(), false)),
            table: self.table.clone(),
            _permit: self.permit()?,
        }))
    }

    /// The attributes of a file.
    pub(super) fn attr_of(&self, inode: &Inode) -> Result<Attr, Errno> {
        let stat = statx_of(inode.handle()?, b"")?;
        Ok(self.marked(inode, &stat))
    }

    /// Attributes that say whether the file is on a mount that may go (the root of an export: what is mounted over it).
    fn marked(&self, inode: &Inode, stat: &Statx) -> Attr {
        let attr = self.attr_in(inode, stat);
        if !inode.is_away() {
            return attr;
        }
        let qid = Qid { kind: attr.qid.kind.on_mount(), ..attr.qid };
        Attr { qid, ..attr }
    }

    /// The same of what is in a directory.
    pub(super) fn attr_in(&self, dir: &Inode, stat: &Statx) -> Attr {
        let mut attr = self.attr(stat);
        if dir.home.is_some_and(|home| home != mount_of(stat)) {
            attr.qid.kind = attr.qid.kind.on_mount();
        }
        attr
    }

    /// Makes an inode of a handle, or finds the one there is.
    pub(super) fn adopt(&self, handle: OwnedFd, place: Option<Place>) -> Result<(Arc<Inode>, Attr), Errno> {
        let stat = statx_of(&handle, b"")?;
        let key = key_of(&stat);
        if let Some(inode) = self.known(&stat) {
            if let Some(place) = place {
                inode.set_place(place);
            }
            let attr = self.marked(&inode, &stat);
            return Ok((inode, attr));
        }
        let home = place.as_ref().and_then(|p| p.dir.home);
        let away = home.is_some_and(|home| home != mount_of(&stat));
        // A mount point was crossed where the device differs from the directory's.
        let barred = match &place {
            Some(p) if p.dir.key.0 != key.0 => is_barred(&handle)?,
            _ => false,
        };
        let seen_at = place.clone();
        let inode = Arc::new(Inode {
            hold: if away { Hold::Place } else { Hold::Handle(handle) },
            home,
            key,
            kind: FileType::from_raw_mode(u32::from(stat.stx_mode)),
            born: born(&stat),
            barred,
            place: Mutex::new(place),
            opened: Mutex::new((Weak::new(), false)),
            table: self.table.clone(),
            _permit: self.permit()?,
        });
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        match table.get(&key).and_then(Weak::upgrade).filter(|other| other.is_this(&stat)) {
            Some(other) => {
                drop(table);
                if let Some(place) = seen_at {
                    other.set_place(place);
                }
                let attr = self.marked(&other, &stat);
                Ok((other, attr))
            }
            None => {
                table.insert(key, Arc::downgrade(&inode));
                let attr = self.marked(&inode, &stat);
                Ok((inode, attr))
            }
        }
    }

    fn known(&self, stat: &Statx) -> Option<Arc<Inode>> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let known = table.get(&key_of(stat)).and_then(Weak::upgrade);
        drop(table);
        known.filter(|inode| inode.is_this(stat))
    }

    /// The inode of a file, where a client holds it.
    pub(super) fn in_use(&self, stat: &Statx) -> Option<Arc<Inode>> {
        self.known(stat)
    }

    /// The count of renames and links that this client made. A place noted at this count still has its file, unless
    /// somebody outside the sandbox moved it.
    pub(super) fn settled(&self) -> u64 {
        *self.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// One step down.
    pub(super) fn step(&self, dir: &Arc<Inode>, name: &[u8]) -> Result<(Arc<Inode>, Attr), Errno> {
        if !dir.is_dir() {
            return Err(Errno::NOTDIR);
        }
        if dir.barred {
            return Err(Errno::NOENT);
        }
        let seen = self.settled();
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = openat2(dir.handle()?, name, flags, Mode::empty())?;
        self.adopt(handle, Some(Place { dir: dir.clone(), name: name.to_vec(), seen }))
    }

    /// Opens an inode's file: a regular file by its place, a directory through its handle.
    pub(super) fn reopen(&self, inode: &Inode, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        match inode.kind {
            FileType::Directory => openat2(inode.handle()?, b".", flags | OFlags::DIRECTORY, Mode::empty()),
            FileType::RegularFile => {
                let place = inode.place().ok_or(Errno::NXIO)?;
                // While this is held the client renames and links nothing.
                let now = self.names.read().unwrap_or_else(PoisonError::into_inner);
                let dir = place.dir.handle()?;
                if (place.seen != *now || inode.is_away()) && !inode.is(&statx_of(&dir, &place.name)?) {
                    return Err(Errno::STALE);
                }
                // Should somebody else have put a FIFO here, it shall not block; on a regular file it means nothing.
                let file = match openat2(&dir, &place.name, flags | OFlags::NONBLOCK, Mode::empty()) {
                    Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return Err(Errno::STALE),
                    other => other?,
                };
                if key_of(&statx_of(&file, b"")?) != inode.key {
                    return Err(Errno::STALE);
                }
                drop(dir);
                if place.seen != *now {
                    inode.set_place(Place { seen: *now, ..place });
                }
                Ok(file)
            }
            FileType::Symlink => Err(Errno::LOOP),
            _ => Err(Errno::NXIO),
        }
    }

    /// An open file's state, counted.
    pub(super) fn open_state(&self, inode: &Inode, fd: OwnedFd, read: bool, write: bool) -> Result<Open, Errno> {
        let open = Open { fd: Arc::new(fd), read, write, reading: Mutex::new(()), _permit: self.permit()? };
        let mut opened = inode.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if write || opened.0.strong_count() == 0 {
            *opened = (Arc::downgrade(&open.fd), write);
        }
        drop(opened);
        Ok(open)
    }
}

/// `openat2` the way every call of ours does it.
pub(super) fn openat2(dir: impl AsFd, name: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    // EAGAIN: a rename or mount raced with the kernel's own check of "beneath" (openat2(2)); bounded, for the client
    // may be the one who renames.
    for _ in 0..32 {
        match rustix::fs::openat2(&dir, name, flags, mode, STEP) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            other => return other.map_err(Errno::from),
        }
    }
    Err(Errno::AGAIN)
}

fn is_barred(handle: &OwnedFd) -> Result<bool, Errno> {
    let magic = rustix::fs::fstatfs(handle).map_err(Errno::from)?.f_type;
    Ok(BARRED.contains(&(magic as u64)))
}
