//! devpts: the pseudo terminals of one instance by number, and `ptmx`, which makes one more; `pts(4)`, the kernel's `filesystems/devpts.rst`.
//!
//! Each mount is an instance of its own: who sees only his has no way to the terminals of others. Owned here: numbers, the options of an
//! instance, and how the nodes look. Never here: what a terminal does (`ipc::tty`). Called by mounts (`recipe`), by the opening of
//! `/dev/ptmx`, and for terminals whose other end is the host's (`stdio`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use crate::errno::Errno;
use crate::filesystems::anon::AnonInode;
use crate::filesystems::pseudo::{Body, PseudoFs, PseudoNode, Style};
use crate::filesystems::stdio::Stream;
use crate::ipc::tty::{PTS_MAJOR, Tty};
use crate::ipc::tty_file::TtyFile;
use crate::kernel::Kernel;
use crate::sync::Mutex;
use crate::task::Creds;
use crate::vfs::caller::Caller;
use crate::vfs::context::FsContext;
use crate::vfs::dentry::Dentry;
use crate::vfs::file::FileOps;
use crate::vfs::inode::{DirEntry, FileSystem, FileType, InodeRef, OpenHow, SetAttr, StatFs, makedev, mode};
use crate::vfs::mount::PathRef;
use crate::vfs::walk::walk;

/// `DEVPTS_SUPER_MAGIC`.
const DEVPTS_MAGIC: u64 = 0x1cd1;
/// Pseudo terminals there may be in all instances together (`kernel.pty.max`).
const PTYS_MAX: usize = 4096;
/// `NR_UNIX98_PTY_MAX`: more than that an instance cannot be given.
pub const MOST: u32 = 1 << 20;

/// Inode number of the directory.
const ROOT_INO: u64 = 1;
/// Inode number of `ptmx`.
const PTMX_INO: u64 = 2;

/// Inode number of a terminal.
fn ino(number: u32) -> u64 {
    u64::from(number) + 3
}

/// Terminals there are.
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// Instances by their device number. A leaf: no lock is taken while it is held.
static INSTANCES: Mutex<BTreeMap<u64, Weak<Devpts>>> = Mutex::new(BTreeMap::new());

/// How many terminals there are, in all instances (`kernel.pty.nr`).
pub fn count() -> usize {
    COUNT.load(Ordering::Relaxed)
}

/// What an instance is mounted with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Who owns terminals, if it is not who makes them.
    pub uid: Option<u32>,
    /// Their group, if it is not that of who makes them.
    pub gid: Option<u32>,
    /// Their permissions.
    pub mode: u32,
    /// Permissions of `ptmx`.
    pub ptmx_mode: u32,
    /// Terminals there may be; 0 for any number, as Linux has it.
    pub max: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { uid: None, gid: None, mode: 0o600, ptmx_mode: 0, max: MOST }
    }
}

/// A number that is taken.
struct Slot {
    tty: Weak<Tty>,
    /// Whether the master is still there: without it nobody finds the terminal, whose number is taken while somebody has it open.
    listed: bool,
}

/// An instance.
pub struct Devpts {
    pseudo: Arc<PseudoFs>,
    ptmx: InodeRef,
    options: Mutex<Options>,
    /// A leaf, too. What is upgraded under it must not be dropped under it: the end of a terminal takes it.
    slots: Mutex<BTreeMap<u32, Slot>>,
}

impl Devpts {
    /// An instance without a place, whose `ptmx` belongs to `creds`.
    pub fn new(options: Options, creds: &Creds) -> Arc<Self> {
        let pseudo = PseudoFs::new("devpts", DEVPTS_MAGIC, Style::Kernel);
        let dev = pseudo.dev();
        let fs = Arc::new_cyclic(|me: &Weak<Self>| {
            let me = me.clone();
            let reopen = Box::new(move |caller: &Caller<'_>, _: OpenHow| me.upgrade().ok_or(Errno::EIO)?.open(caller));
            let owner = (creds.fsuid, creds.fsgid);
            let ptmx =
                AnonInode::device((dev, PTMX_INO), mode::CHAR | options.ptmx_mode, owner, makedev(5, 2), Some(reopen));
            Self { pseudo, ptmx, options: Mutex::new(options), slots: Mutex::default() }
        });
        INSTANCES.lock().insert(dev, Arc::downgrade(&fs));
        fs
    }

    /// The instance that a file system is, if it is one.
    pub fn of(fs: &Arc<dyn FileSystem>) -> Option<Arc<Self>> {
        INSTANCES.lock().get(&fs.dev())?.upgrade()
    }

    /// The instance that somebody sees at `/dev/pts`. ENODEV if something else is there.
    pub fn seen_from(fs: &Arc<FsContext>, caller: &Caller<'_>) -> Result<(Arc<Self>, PathRef), Errno> {
        let at = walk(caller, fs.root(), b"/dev/pts", true)?;
        Ok((Self::of(&at.mount.fs).ok_or(Errno::ENODEV)?, at))
    }

    /// Its root directory.
    pub fn root(self: &Arc<Self>) -> Arc<Dentry> {
        let (of, at) = (self.clone(), self.clone());
        let list = move |_: &Caller<'_>| Ok(of.entries());
        let find = move |_: &Caller<'_>, name: &[u8]| {
            let number = std::str::from_utf8(name).ok().and_then(|n| n.parse().ok());
            Ok(number.and_then(|n| at.by_number(n)).and_then(|t| Some(t.node.get()?.clone() as InodeRef)))
        };
        let body = Body::Dynamic(vec![(b"ptmx".to_vec(), self.ptmx.clone())], Box::new(list), Box::new(find));
        Dentry::root(PseudoNode::numbered(&self.pseudo, ROOT_INO, 0o755, body))
    }

    /// It is mounted anew: with these options, and all others as by default.
    pub fn reconfigure(&self, options: Options) -> Result<(), Errno> {
        *self.options.lock() = options;
        self.ptmx.set_attr(&SetAttr { mode: Some(options.ptmx_mode), ..SetAttr::default() })
    }

    fn entries(&self) -> Vec<DirEntry> {
        let slots = self.slots.lock();
        let listed = slots.iter().filter(|(_, slot)| slot.listed && slot.tty.strong_count() > 0);
        let entry = |n: &u32| DirEntry { name: n.to_string().into(), ino: ino(*n), kind: FileType::Char };
        listed.map(|(n, _)| entry(n)).collect()
    }

    /// The terminal of a number, whose master is still there.
    pub fn by_number(&self, number: u32) -> Option<Arc<Tty>> {
        let slots = self.slots.lock();
        let slot = slots.get(&number)?;
        if slot.listed { slot.tty.upgrade() } else { None }
    }

    /// A terminal with the lowest free number, made by that owner; its other end is a master, or `remote`. ENOSPC if there are too many.
    pub fn make(
        self: &Arc<Self>,
        kernel: &Arc<Kernel>,
        remote: Option<Arc<Stream>>,
        (uid, gid): (u32, u32),
    ) -> Result<Arc<Tty>, Errno> {
        let options = *self.options.lock();
        let number = {
            let mut slots = self.slots.lock();
            let end = if options.max == 0 { MOST } else { options.max };
            let number = (0..end).find(|n| !slots.contains_key(n)).ok_or(Errno::ENOSPC)?;
            if COUNT.fetch_add(1, Ordering::Relaxed) >= PTYS_MAX {
                COUNT.fetch_sub(1, Ordering::Relaxed);
                return Err(Errno::ENOSPC);
            }
            slots.insert(number, Slot { tty: Weak::new(), listed: true });
            number
        };
        // From here on its end gives the number back.
        let tty = Tty::new(kernel, self.clone(), number, remote);
        let of = Arc::downgrade(&tty);
        let reopen = Box::new(move |caller: &Caller<'_>, _: OpenHow| -> Result<Box<dyn FileOps>, Errno> {
            TtyFile::open_slave(of.upgrade().ok_or(Errno::EIO)?, caller)
        });
        let owner = (options.uid.unwrap_or(uid), options.gid.unwrap_or(gid));
        let rdev = makedev(PTS_MAJOR, number);
        tty.node.get_or_init(|| {
            AnonInode::device((self.dev(), ino(number)), mode::CHAR | options.mode, owner, rdev, Some(reopen))
        });
        if let Some(slot) = self.slots.lock().get_mut(&number) {
            slot.tty = Arc::downgrade(&tty);
        }
        Ok(tty)
    }

    /// The master is gone: nobody finds the terminal any more.
    pub fn unlist(&self, number: u32) {
        if let Some(slot) = self.slots.lock().get_mut(&number) {
            slot.listed = false;
        }
    }

    /// The terminal is gone: its number is free.
    pub fn release(&self, number: u32) {
        if self.slots.lock().remove(&number).is_some() {
            COUNT.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Opens `ptmx`: a new pair, locked.
    fn open(self: &Arc<Self>, caller: &Caller<'_>) -> Result<Box<dyn FileOps>, Errno> {
        let task = caller.task.ok_or(Errno::ENXIO)?;
        TtyFile::open(self.make(task.kernel(), None, (caller.creds.fsuid, caller.creds.fsgid))?, true)
    }
}

impl Drop for Devpts {
    fn drop(&mut self) {
        INSTANCES.lock().remove(&self.pseudo.dev());
    }
}

impl FileSystem for Devpts {
    fn name(&self) -> &'static str {
        self.pseudo.name()
    }
    fn dev(&self) -> u64 {
        self.pseudo.dev()
    }
    fn statfs(&self) -> Result<StatFs, Errno> {
        self.pseudo.statfs()
    }
    fn options(&self) -> String {
        let o = *self.options.lock();
        let mut all: Vec<String> = o.uid.map(|n| format!("uid={n}")).into_iter().collect();
        all.extend(o.gid.map(|n| format!("gid={n}")));
        all.extend([format!("mode={:03o}", o.mode), format!("ptmxmode={:03o}", o.ptmx_mode)]);
        if o.max < MOST {
            all.push(format!("max={}", o.max));
        }
        all.join(",")
    }
}

/// Opens a device file with the number of `ptmx` that lies elsewhere: a new pair of the instance that the caller sees at `/dev/pts`
/// (Linux takes the one beside the file).
pub fn open_master(caller: &Caller<'_>) -> Result<Box<dyn FileOps>, Errno> {
    Devpts::seen_from(&caller.fs, caller)?.0.open(caller)
}
