//! Open regular files of a tree in memory: their bytes are `content`'s, or those of the lower file as long as nobody changed it.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use super::Node;
use crate::errno::Errno;
use crate::filesystems::content::Mapped;
use crate::memory::object::Object;
use crate::uio::{Sink, Source};
use crate::vfs::file::{Cached, File, FileOps, Io, Whence};
use crate::vfs::inode::Inode;

/// An open regular file of the tree.
pub(super) struct NodeFile {
    pub(super) node: Arc<Node>,
    /// The lower file, while its bytes are the ones that count.
    pub(super) lower: OnceLock<Box<dyn FileOps>>,
}

impl FileOps for NodeFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, io: &Io<'_>, at: u64, to: &mut Sink<'_>) -> Result<usize, Errno> {
        match (self.node.content(), self.lower.get()) {
            (Some(content), _) => {
                let n = content.read(at, to)?;
                self.node.touch();
                Ok(n)
            }
            (None, Some(lower)) => lower.read(io, at, to),
            (None, None) => Err(Errno::EIO),
        }
    }

    fn write(&self, _io: &Io<'_>, at: u64, append: bool, from: &mut Source<'_>) -> Result<(usize, u64), Errno> {
        let content = self.node.own_content(u64::MAX)?;
        if let Some(seals) = &self.node.seals {
            let (size, len) = (content.size(), from.left());
            let may = seals.check_write(if append { size } else { at }, len as u64, size)?;
            from.limit(usize::try_from(may).unwrap_or(len));
        }
        let r = content.write(at, append, from)?;
        self.node.written()?;
        Ok(r)
    }

    fn seek(&self, file: &File, offset: u64, whence: Whence) -> Result<u64, Errno> {
        match (self.node.content(), whence) {
            (Some(c), Whence::End) => Ok(c.size()),
            (Some(c), _) => c.seek(offset, whence == Whence::Data),
            (None, Whence::End) => Ok(self.node.attr()?.size),
            (None, _) => match self.lower.get() {
                Some(l) => l.seek(file, offset, whence),
                None => Err(Errno::EIO),
            },
        }
    }

    fn memory_object(&self, file: &File, shared: bool, write: bool) -> Result<Object, Errno> {
        let content = match (self.node.content(), self.lower.get()) {
            (Some(c), _) => c,
            (None, Some(lower)) if !(shared && write) => return lower.memory_object(file, shared, write),
            _ => self.node.own_content(u64::MAX)?,
        };
        let identity = (self.node.tree.dev, self.node.ino);
        let writer = match &self.node.seals {
            // One that is only read now and sealed can never be written either: see `mmap`.
            Some(seals) if shared && file.writable() && (write || !seals.no_writing()) => Some(seals.map()?),
            _ => None,
        };
        Ok(Arc::new(Mapped { content, identity, path: Some(file.path_ref().clone()), _writer: writer }))
    }

    fn truncate(&self, _file: &File, size: u64) -> Result<(), Errno> {
        self.node.resize(size)
    }

    fn allocate(&self, _file: &File, how: i32, offset: u64, len: u64) -> Result<(), Errno> {
        const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
        const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
        const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
        let content = self.node.own_content(u64::MAX)?;
        if let Some(seals) = &self.node.seals {
            if how & (PUNCH & !KEEP | ZERO) != 0 && seals.no_writing() {
                return Err(Errno::EPERM);
            }
            if how & KEEP == 0 {
                seals.check_resize(content.size(), content.size().max(offset.saturating_add(len)))?;
            }
        }
        match how {
            0 | KEEP => content.allocate(offset, len, how == KEEP)?,
            PUNCH => content.punch(offset, len)?,
            _ if how & !KEEP == ZERO => {
                content.punch(offset, len)?;
                content.allocate(offset, len, how & KEEP != 0)?;
            }
            // As what an upper layer usually lies on; tmpfs has neither.
            libc::FALLOC_FL_COLLAPSE_RANGE if self.node.tree.overlay => content.collapse(offset, len)?,
            libc::FALLOC_FL_INSERT_RANGE if self.node.tree.overlay => content.insert(offset, len)?,
            _ => return Err(Errno::EOPNOTSUPP),
        }
        self.node.written()
    }

    fn sync(&self, _file: &File, _data_only: bool) -> Result<(), Errno> {
        Ok(())
    }

    fn cached(&self, first: u64, end: u64) -> Cached {
        match (self.node.content(), self.lower.get()) {
            (Some(content), _) => {
                let pages = content.pages_within(first, end);
                Cached { pages, dirty: pages }
            }
            (None, Some(lower)) => lower.cached(first, end),
            (None, None) => Cached::default(),
        }
    }
}
