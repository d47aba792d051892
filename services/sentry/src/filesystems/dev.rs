//! The devices of `/dev`: null, zero, full, random, urandom. Terminals are `devpts`'s.

use std::any::Any;
use std::sync::Arc;

use crate::errno::Errno;
use crate::filesystems::content::{Content, FILE_MAX, Mapped, Quota};
use crate::ipc::tty::PTS_MAJOR;
use crate::ipc::tty_file::TtyFile;
use crate::memory::object::Object;
use crate::memory::store::Store;
use crate::uio::{Sink, Source};
use crate::vfs::caller::Caller;
use crate::vfs::file::{File, FileOps, Io};
use crate::vfs::inode::{InodeRef, OpenHow, next_ino};

/// Major number of the memory devices.
pub const MEM_MAJOR: u32 = 1;

#[derive(Clone)]
enum Memory {
    Null,
    /// With the store that mappings of it take pages from.
    Zero(Option<Arc<Store>>),
    Full,
    Random,
}

/// Opens a character device.
pub fn open_char(
    caller: &Caller<'_>,
    _inode: &InodeRef,
    major: u32,
    minor: u32,
    _how: OpenHow,
) -> Result<Box<dyn FileOps>, Errno> {
    let device = match (major, minor) {
        (MEM_MAJOR, 3) => Memory::Null,
        (MEM_MAJOR, 5) => Memory::Zero(caller.task.map(|t| t.kernel().memory.clone())),
        (MEM_MAJOR, 7) => Memory::Full,
        (MEM_MAJOR, 8 | 9) => Memory::Random,
        (5, 0) => {
            let sid = caller.task.map_or(0, |t| crate::ipc::tty::place_of(t).0);
            return TtyFile::open_slave(crate::ipc::tty::of_session(sid).ok_or(Errno::ENXIO)?, caller);
        }
        (5, 2) => return crate::filesystems::devpts::open_master(caller),
        // A terminal is opened by its node in devpts alone.
        (PTS_MAJOR, _) => return Err(Errno::EIO),
        _ => return Err(Errno::ENXIO),
    };
    Ok(Box::new(device))
}

/// Bytes given out at once before a signal is looked at; Linux also answers short reads above this.
const CHUNK: usize = 4096;

impl FileOps for Memory {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _io: &Io<'_>, _at: u64, to: &mut Sink<'_>) -> Result<usize, Errno> {
        let mut done = 0;
        let mut chunk = [0u8; CHUNK];
        while to.room() > 0 {
            match self {
                Memory::Null => return Ok(0),
                Memory::Zero(_) | Memory::Full => {}
                Memory::Random => getrandom::fill(&mut chunk).map_err(|_| Errno::EIO)?,
            }
            let want = to.room().min(CHUNK);
            match to.put(chunk.get(..want).unwrap_or_default()) {
                Ok(n) => {
                    done += n;
                    if n < want {
                        break;
                    }
                }
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn write(&self, _io: &Io<'_>, at: u64, _append: bool, from: &mut Source<'_>) -> Result<(usize, u64), Errno> {
        match self {
            Memory::Full => Err(Errno::ENOSPC),
            _ => Ok((from.left(), at)),
        }
    }

    fn ignores_seeks(&self) -> bool {
        true
    }

    // pread(2) and pwrite(2) are fine.
    fn seekable(&self) -> bool {
        true
    }

    fn memory_object(&self, _file: &File, _shared: bool, _write: bool) -> Result<Object, Errno> {
        match self {
            Memory::Zero(Some(store)) => zero_object(store),
            _ => Err(Errno::ENODEV),
        }
    }
}

/// Fresh zeroed memory: what a mapping of `/dev/zero` shows. As large as a file may be; only touched pages cost.
fn zero_object(store: &Arc<Store>) -> Result<Object, Errno> {
    let content = Content::new(store.clone(), Quota::new(u64::MAX >> 1));
    content.truncate(FILE_MAX)?;
    let identity = (crate::filesystems::anon::Family::Memory.dev(), next_ino());
    Ok(Arc::new(Mapped { content, identity, path: None, _writer: None }))
}
