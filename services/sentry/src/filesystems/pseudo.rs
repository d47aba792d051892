//! Generated files: the nodes that `/proc` and `/sys` are made of.
//!
//! A node is a directory of nodes, a directory that is made up when looked at, a text, or a link. Owned here: how such
//! nodes behave as inodes and open files. Never here: what they say.

use std::any::Any;
use std::sync::{Arc, Weak};

use crate::errno::Errno;
use crate::filesystems::anon::DirectoryFile;
use crate::sync::Mutex;
use crate::task::Creds;
use crate::task::Group;
use crate::uio::{Sink, Source};
use crate::vfs::caller::Caller;
use crate::vfs::file::{File, FileOps, Io, Whence};
use crate::vfs::inode::{
    Attr, Common, DirEntry, FileSystem, FileType, Inode, InodeRef, Link, NewNode, OpenHow, SetAttr, StatFs,
    anonymous_dev, file_time, next_ino,
};

/// Largest text written to a generated file.
const WRITE_MAX: usize = 64 * 1024;

/// Which of Linux's ways files have: what may be opened, what a write comes to that nobody takes, and whether their end is
/// known before they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Of the kernel, in `/proc`: EIO; made as they are read.
    Kernel,
    /// Of a process: EINVAL; made as they are read.
    Process,
    /// Of a process, too: EINVAL; copied from what there is.
    ProcessCopied,
    /// A setting in `/proc/sys`: its permissions are the last word, whatever capabilities one has.
    Setting,
    /// An attribute in `/sys`, of one page: what nobody takes is not opened for writing.
    Attribute,
    /// The same of a cgroup, of no size.
    Control,
}

impl Style {
    /// Whether it is no longer than a seek to its end says: nothing.
    fn has_end(self) -> bool {
        !matches!(self, Self::Kernel | Self::Process)
    }
}

/// A file system of generated files.
#[derive(Clone)]
pub struct PseudoFs {
    name: &'static str,
    magic: u64,
    dev: u64,
    style: Style,
}

impl PseudoFs {
    /// A file system of type `name`.
    pub fn new(name: &'static str, magic: u64, style: Style) -> Arc<Self> {
        Arc::new(Self { name, magic, dev: anonymous_dev(), style })
    }

    /// The same, to make files of another style.
    pub fn styled(&self, style: Style) -> Arc<Self> {
        Arc::new(Self { style, ..self.clone() })
    }
}

impl FileSystem for PseudoFs {
    fn name(&self) -> &'static str {
        self.name
    }
    fn dev(&self) -> u64 {
        self.dev
    }
    fn statfs(&self) -> Result<StatFs, Errno> {
        Ok(StatFs { kind: self.magic, block_size: 4096, ..StatFs::default() })
    }
}

/// Makes a text.
pub type Text = Box<dyn Fn(&Caller<'_>) -> Result<Vec<u8>, Errno> + Send + Sync>;
/// Takes what is written.
pub type Take = Box<dyn Fn(&Caller<'_>, &[u8]) -> Result<(), Errno> + Send + Sync>;
/// Leads somewhere.
pub type Lead = Box<dyn Fn(&Caller<'_>) -> Result<Link, Errno> + Send + Sync>;
/// Names in a made-up directory.
pub type Names = Box<dyn Fn(&Caller<'_>) -> Result<Vec<DirEntry>, Errno> + Send + Sync>;
/// The node of a name in a made-up directory.
pub type Find = Box<dyn Fn(&Caller<'_>, &[u8]) -> Result<Option<InodeRef>, Errno> + Send + Sync>;

/// Opens a file.
pub type Opener = Box<dyn Fn(&Caller<'_>) -> Result<Box<dyn FileOps>, Errno> + Send + Sync>;

/// Says whether a caller may open it.
pub type Gate = Box<dyn Fn(&Caller<'_>) -> Result<(), Errno> + Send + Sync>;

/// What a node is.
pub enum Body {
    /// A directory with fixed names.
    Directory(Vec<(Vec<u8>, InodeRef)>),
    /// A directory that is made up when looked at, besides fixed names.
    Dynamic(Vec<(Vec<u8>, InodeRef)>, Names, Find),
    /// A text, and what becomes of writes.
    Text(Text, Option<Take>),
    /// A file that behaves in its own way: what opens it.
    Special(Opener),
    /// A link: what `readlink(2)` shows, and where it leads if that is not a path.
    Link(Text, Option<Lead>),
}

/// A generated inode.
pub struct PseudoNode {
    common: Common,
    attr: Mutex<Attr>,
    kind: FileType,
    body: Arc<Body>,
    style: Style,
    /// Whether the thing it tells of is still there.
    alive: Option<Box<dyn Fn() -> bool + Send + Sync>>,
    owner: Option<Box<dyn Fn() -> (u32, u32) + Send + Sync>>,
    gate: Option<Gate>,
    size: std::sync::OnceLock<Count>,
    links: std::sync::OnceLock<Count>,
    /// The process that it is the directory of: such a directory can stand for a pidfd.
    process: std::sync::OnceLock<Weak<Group>>,
    /// The permissions that a caller has, if they are not those that are shown.
    rule: Option<fn(&Creds) -> u32>,
}

/// Counts what a node is said to have: bytes or links.
type Count = Box<dyn Fn() -> u64 + Send + Sync>;

impl PseudoNode {
    /// A file that gives each caller permissions of his own.
    pub fn ruled(fs: &PseudoFs, permissions: u32, body: Body, rule: fn(&Creds) -> u32) -> Arc<Self> {
        let mut node = Self::make(fs, permissions, body);
        node.rule = Some(rule);
        Arc::new(node)
    }

    /// A node with these permissions and that inode number.
    pub fn numbered(fs: &PseudoFs, ino: u64, permissions: u32, body: Body) -> Arc<Self> {
        let node = Self::make(fs, permissions, body);
        node.attr.lock().ino = ino;
        Arc::new(node)
    }

    /// A node with these permissions.
    pub fn new(fs: &PseudoFs, permissions: u32, body: Body) -> Arc<Self> {
        Arc::new(Self::make(fs, permissions, body))
    }

    /// A node that goes away when `alive` says so, owned by whom `owner` says, opened by whom `gate` lets.
    #[allow(
        clippy::arc_with_non_send_sync,
        reason = "it is both, as the compiler finds where it becomes an InodeRef; clippy gives up on the way there"
    )]
    pub fn of_task(
        fs: &PseudoFs,
        permissions: u32,
        body: Body,
        alive: impl Fn() -> bool + Send + Sync + 'static,
        owner: impl Fn() -> (u32, u32) + Send + Sync + 'static,
        gate: Option<Gate>,
    ) -> Arc<Self> {
        let mut node = Self::make(fs, permissions, body);
        node.alive = Some(Box::new(alive));
        node.owner = Some(Box::new(owner));
        node.gate = gate;
        Arc::new(node)
    }

    /// The same, shown with a size.
    pub fn of_size(self: Arc<Self>, size: u64) -> Arc<Self> {
        self.attr.lock().size = size;
        self
    }

    /// The same, shown with the size that `count` says.
    pub fn sized(self: Arc<Self>, count: impl Fn() -> u64 + Send + Sync + 'static) -> Arc<Self> {
        self.size.set(Box::new(count)).ok();
        self
    }

    /// The same, shown with as many links as `count` says: a directory's own two, and one of each directory in it.
    pub fn linked(self: Arc<Self>, count: impl Fn() -> u64 + Send + Sync + 'static) -> Arc<Self> {
        self.links.set(Box::new(count)).ok();
        self
    }

    /// The same, as the directory of this process.
    pub fn of_process(self: Arc<Self>, group: &Arc<Group>) -> Arc<Self> {
        self.process.set(Arc::downgrade(group)).ok();
        self
    }

    /// The process that it is the directory of.
    pub fn process(&self) -> Option<Arc<Group>> {
        self.process.get()?.upgrade()
    }

    fn make(fs: &PseudoFs, permissions: u32, body: Body) -> Self {
        let (kind, nlink) = match &body {
            Body::Directory(names) | Body::Dynamic(names, ..) => {
                let dirs = names.iter().filter(|n| n.1.kind() == FileType::Directory).count();
                (FileType::Directory, 2 + u32::try_from(dirs).unwrap_or(0))
            }
            Body::Text(..) | Body::Special(_) => (FileType::Regular, 1),
            Body::Link(..) => (FileType::Link, 1),
        };
        let t = file_time();
        let attr = Attr {
            dev: fs.dev,
            ino: next_ino(),
            mode: kind.bits() | permissions,
            nlink,
            size: if kind == FileType::Regular && fs.style == Style::Attribute { 4096 } else { 0 },
            block_size: 1024,
            atime: t,
            mtime: t,
            ctime: t,
            ..Attr::default()
        };
        Self {
            common: Common::default(),
            attr: Mutex::new(attr),
            kind,
            body: Arc::new(body),
            style: fs.style,
            alive: None,
            owner: None,
            gate: None,
            size: std::sync::OnceLock::new(),
            links: std::sync::OnceLock::new(),
            process: std::sync::OnceLock::new(),
            rule: None,
        }
    }
}

/// A text file without writes.
pub fn text(fs: &PseudoFs, f: impl Fn(&Caller<'_>) -> Result<Vec<u8>, Errno> + Send + Sync + 'static) -> InodeRef {
    PseudoNode::new(fs, 0o444, Body::Text(Box::new(f), None))
}

/// A text that never changes.
pub fn fixed(fs: &PseudoFs, content: impl Into<Vec<u8>>) -> InodeRef {
    let content = content.into();
    text(fs, move |_| Ok(content.clone()))
}

/// A directory with fixed names.
pub fn directory(fs: &PseudoFs, names: Vec<(&str, InodeRef)>) -> InodeRef {
    let names = names.into_iter().map(|(n, i)| (n.as_bytes().to_vec(), i)).collect();
    let bits = if matches!(fs.style, Style::Attribute | Style::Control) { 0o755 } else { 0o555 };
    PseudoNode::new(fs, bits, Body::Directory(names))
}

impl Inode for PseudoNode {
    crate::vfs::inode::fields!();

    fn attr(&self) -> Result<Attr, Errno> {
        let mut a = *self.attr.lock();
        if let Some(owner) = &self.owner {
            (a.uid, a.gid) = owner();
        }
        if let Some(count) = self.size.get() {
            a.size = count();
        }
        if let Some(count) = self.links.get() {
            a.nlink = u32::try_from(count()).unwrap_or(u32::MAX);
        }
        Ok(a)
    }

    fn set_attr(&self, set: &SetAttr) -> Result<(), Errno> {
        // O_TRUNC on a file that takes writes.
        if set.size.is_some() {
            return Ok(());
        }
        if set.mode.is_some() && self.owner.is_some() {
            return Err(Errno::EPERM);
        }
        let mut a = self.attr.lock();
        set.apply_owner_and_mode(&mut a);
        Ok(())
    }

    fn permits(&self, creds: &Creds, want: u32) -> Option<bool> {
        if let Some(rule) = self.rule {
            return Some(want & !rule(creds) & 7 == 0);
        }
        let mode = self.attr.lock().mode;
        let shift = if creds.euid == 0 { 6 } else { 3 * u32::from(creds.egid == 0 || creds.groups.contains(&0)) };
        (self.style == Style::Setting).then_some(want & !(mode >> shift) & 7 == 0)
    }

    fn valid(&self) -> bool {
        self.alive.as_ref().is_none_or(|f| f())
    }

    fn cacheable(&self) -> bool {
        matches!(&*self.body, Body::Directory(_))
    }

    fn lookup(&self, caller: &Caller<'_>, name: &[u8]) -> Result<Option<InodeRef>, Errno> {
        let fixed = |names: &[(Vec<u8>, InodeRef)]| names.iter().find(|n| n.0 == name).map(|n| n.1.clone());
        match &*self.body {
            Body::Directory(names) => Ok(fixed(names)),
            Body::Dynamic(names, _, find) => match fixed(names) {
                Some(i) => Ok(Some(i)),
                None => find(caller, name),
            },
            _ => Err(Errno::ENOTDIR),
        }
    }

    // Who may not make files is told otherwise than who may make nothing else.
    fn create(&self, _name: &[u8], new: &NewNode) -> Result<InodeRef, Errno> {
        Err(if FileType::of(new.mode) == FileType::Regular { Errno::EACCES } else { Errno::EPERM })
    }

    fn entries(&self, caller: &Caller<'_>) -> Result<Vec<DirEntry>, Errno> {
        let fixed = |names: &[(Vec<u8>, InodeRef)]| -> Result<Vec<DirEntry>, Errno> {
            let entry =
                |n: &(Vec<u8>, InodeRef)| Ok(DirEntry { name: n.0.clone(), ino: n.1.attr()?.ino, kind: n.1.kind() });
            names.iter().map(entry).collect()
        };
        match &*self.body {
            Body::Directory(names) => fixed(names),
            Body::Dynamic(names, list, _) => {
                let mut all = fixed(names)?;
                all.append(&mut list(caller)?);
                Ok(all)
            }
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn readlink(&self, caller: &Caller<'_>) -> Result<Vec<u8>, Errno> {
        match &*self.body {
            Body::Link(text, _) => text(caller),
            _ => Err(Errno::EINVAL),
        }
    }

    fn follow(&self, caller: &Caller<'_>) -> Result<Link, Errno> {
        match &*self.body {
            Body::Link(_, Some(lead)) => lead(caller),
            _ => self.readlink(caller).map(Link::Text),
        }
    }

    fn open(self: Arc<Self>, caller: &Caller<'_>, how: OpenHow) -> Result<Box<dyn FileOps>, Errno> {
        if let Some(gate) = &self.gate {
            gate(caller)?;
        }
        match &*self.body {
            Body::Directory(_) | Body::Dynamic(..) => Ok(Box::new(DirectoryFile)),
            Body::Text(_, take) => {
                // Whoever passes their permissions opens the others, though they may take nothing.
                let lacks = match self.style {
                    Style::Attribute | Style::Control => how.write && take.is_none(),
                    _ => false,
                };
                if lacks {
                    return Err(Errno::EACCES);
                }
                let (body, opener) = (self.body.clone(), caller.creds.clone());
                Ok(Box::new(PseudoFile { body, style: self.style, text: Mutex::new(None), opener }))
            }
            Body::Special(open) => open(caller),
            Body::Link(..) => Err(Errno::ELOOP),
        }
    }
}

/// An open generated file. Its text is made when it is read from the start.
struct PseudoFile {
    body: Arc<Body>,
    style: Style,
    text: Mutex<Option<Arc<Vec<u8>>>>,
    opener: Arc<Creds>,
}

impl FileOps for PseudoFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, io: &Io<'_>, at: u64, to: &mut Sink<'_>) -> Result<usize, Errno> {
        let Body::Text(make, _) = &*self.body else { return Err(Errno::EINVAL) };
        let old = self.text.lock().clone();
        let text = match old {
            Some(t) if at > 0 => t,
            _ => {
                let caller = io.task.map_or_else(Caller::nobody, Caller::of);
                let t = Arc::new(make(&caller)?);
                *self.text.lock() = Some(t.clone());
                t
            }
        };
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(text.len());
        to.put(text.get(from..).unwrap_or_default())
    }

    fn write(&self, io: &Io<'_>, at: u64, _append: bool, from: &mut Source<'_>) -> Result<(usize, u64), Errno> {
        let Body::Text(_, Some(take)) = &*self.body else {
            let of_process = matches!(self.style, Style::Process | Style::ProcessCopied);
            return Err(if of_process { Errno::EINVAL } else { Errno::EIO });
        };
        let data = from.take_vec(WRITE_MAX)?;
        let mut caller = io.task.map_or_else(Caller::nobody, Caller::of);
        caller.opener = Some(self.opener.clone());
        take(&caller, &data)?;
        Ok((data.len(), at + data.len() as u64))
    }

    fn seek(&self, file: &File, offset: u64, whence: Whence) -> Result<u64, Errno> {
        match whence {
            Whence::End if self.style.has_end() => Ok(file.inode().attr()?.size),
            // Its end is not known before it is read.
            Whence::End | Whence::Data | Whence::Hole => Err(Errno::EINVAL),
            _ => Ok(offset),
        }
    }

    fn truncate(&self, _file: &File, _size: u64) -> Result<(), Errno> {
        Ok(())
    }
}
