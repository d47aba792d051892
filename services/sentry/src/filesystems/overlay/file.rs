//! Open files of an overlay: each is an open file of a layer, and of the upper one as soon as it has been copied there.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::node::Node;
use crate::errno::Errno;
use crate::memory::object::Object;
use crate::sync::Mutex;
use crate::uio::{Sink, Source};
use crate::vfs::file::{File, FileOps, Io, Whence, flags};
use crate::vfs::inode::OpenHow;
use crate::vfs::mount::PathRef;
use crate::vfs::ops;

/// An open regular file.
pub(super) struct OverlayFile {
    node: Arc<Node>,
    access: i32,
    real: Mutex<Arc<File>>,
}

fn open(node: &Node, at: PathRef, access: i32) -> Result<Arc<File>, Errno> {
    // Permissions were checked against what is shown.
    ops::open_at(&node.fs.caller(), at, access, true)
}

impl OverlayFile {
    pub(super) fn open(node: Arc<Node>, how: OpenHow) -> Result<Self, Errno> {
        let access = match (how.read, how.write) {
            (_, false) => flags::RDONLY,
            (false, true) => flags::WRONLY,
            (true, true) => flags::RDWR,
        };
        let real = Mutex::new(open(&node, node.real()?, access)?);
        Ok(Self { node, access, real })
    }

    /// The file of the layer that counts now.
    fn real(&self) -> Result<Arc<File>, Errno> {
        let file = self.real.lock().clone();
        let at = self.node.real()?;
        if Arc::ptr_eq(at.dentry.inode(), file.inode()) {
            return Ok(file);
        }
        let new = open(&self.node, at, self.access)?;
        let old = std::mem::replace(&mut *self.real.lock(), new.clone());
        drop(old);
        Ok(new)
    }
}

impl FileOps for OverlayFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, io: &Io<'_>, at: u64, to: &mut Sink<'_>) -> Result<usize, Errno> {
        let file = self.real()?;
        file.ops().read(&Io { file: &file, task: io.task }, at, to)
    }

    fn write(&self, io: &Io<'_>, at: u64, append: bool, from: &mut Source<'_>) -> Result<(usize, u64), Errno> {
        let file = self.real()?;
        file.ops().write(&Io { file: &file, task: io.task }, at, append, from)
    }

    fn seek(&self, _file: &File, offset: u64, whence: Whence) -> Result<u64, Errno> {
        let file = self.real()?;
        file.ops().seek(&file, offset, whence)
    }

    fn memory_object(&self, file: &File, shared: bool, write: bool) -> Result<Object, Errno> {
        let real = self.real()?;
        real.inode().common().mapped.store(true, Ordering::Release);
        // The path that is shown of the mapping is that in the overlay.
        real.ops().memory_object(file, shared, write)
    }

    fn truncate(&self, _file: &File, size: u64) -> Result<(), Errno> {
        let file = self.real()?;
        file.ops().truncate(&file, size)
    }

    fn allocate(&self, _file: &File, how: i32, offset: u64, len: u64) -> Result<(), Errno> {
        let file = self.real()?;
        file.ops().allocate(&file, how, offset, len)
    }

    fn sync(&self, _file: &File, data_only: bool) -> Result<(), Errno> {
        let file = self.real()?;
        file.ops().sync(&file, data_only)
    }
}
