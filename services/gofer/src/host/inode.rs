//! Files that clients hold: handles, places, opening.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use cofferdam_ninep::Errno;
use cofferdam_ninep::codec::Attr;
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

/// A file, by a handle that keeps it from being another.
#[derive(Debug)]
pub struct Inode {
    pub(super) handle: OwnedFd,
    pub(super) key: Key,
    pub(super) kind: FileType,
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
    rustix::fs::statx(fd, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME).map_err(Errno::from)
}

pub(super) fn key_of(stat: &Statx) -> Key {
    (rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino)
}

impl Host {
    /// Makes an inode of a handle, or finds the one there is.
    pub(super) fn adopt(&self, handle: OwnedFd, place: Option<Place>) -> Result<(Arc<Inode>, Attr), Errno> {
        let stat = statx_of(&handle, b"")?;
        let key = key_of(&stat);
        let attr = self.attr(&stat);
        if let Some(inode) = self.known(key) {
            if let Some(place) = place {
                inode.set_place(place);
            }
            return Ok((inode, attr));
        }
        // A mount point was crossed where the device differs from the directory's.
        let barred = match &place {
            Some(p) if p.dir.key.0 != key.0 => is_barred(&handle)?,
            _ => false,
        };
        let seen_at = place.clone();
        let inode = Arc::new(Inode {
            handle,
            key,
            kind: FileType::from_raw_mode(u32::from(stat.stx_mode)),
            barred,
            place: Mutex::new(place),
            opened: Mutex::new((Weak::new(), false)),
            table: self.table.clone(),
            _permit: self.permit()?,
        });
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        match table.get(&key).and_then(Weak::upgrade) {
            Some(other) => {
                drop(table);
                if let Some(place) = seen_at {
                    other.set_place(place);
                }
                Ok((other, attr))
            }
            None => {
                table.insert(key, Arc::downgrade(&inode));
                Ok((inode, attr))
            }
        }
    }

    fn known(&self, key: Key) -> Option<Arc<Inode>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).get(&key).and_then(Weak::upgrade)
    }

    /// The inode of a file, where a client holds it.
    pub(super) fn in_use(&self, stat: &Statx) -> Option<Arc<Inode>> {
        self.known(key_of(stat))
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
        let handle = openat2(&dir.handle, name, flags, Mode::empty())?;
        self.adopt(handle, Some(Place { dir: dir.clone(), name: name.to_vec(), seen }))
    }

    /// Opens an inode's file: a regular file by its place, a directory through its handle.
    pub(super) fn reopen(&self, inode: &Inode, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        match inode.kind {
            FileType::Directory => openat2(&inode.handle, b".", flags | OFlags::DIRECTORY, Mode::empty()),
            FileType::RegularFile => {
                let place = inode.place().ok_or(Errno::NXIO)?;
                // While this is held the client renames and links nothing.
                let now = self.names.read().unwrap_or_else(PoisonError::into_inner);
                if place.seen != *now && key_of(&statx_of(&place.dir.handle, &place.name)?) != inode.key {
                    return Err(Errno::STALE);
                }
                // Should somebody else have put a FIFO here, it shall not block; on a regular file it means nothing.
                let file = match openat2(&place.dir.handle, &place.name, flags | OFlags::NONBLOCK, Mode::empty()) {
                    Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return Err(Errno::STALE),
                    other => other?,
                };
                if key_of(&statx_of(&file, b"")?) != inode.key {
                    return Err(Errno::STALE);
                }
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
