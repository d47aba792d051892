//! A container's stdio over 9P, on a socket of its own, because here requests wait: for a person to type.
//!
//! Owns: the descriptors 0, 1, 2 or the terminal of each container ([`Stdios`]) and the session that serves them
//! ([`serve`]): one current-thread tokio runtime, a task a waiting request. Must never block the runtime, so waiting is
//! waiting for readiness ([`file`]), and must never change a descriptor's flags: the open file description is the
//! caller's too (a shell's terminal with O_NONBLOCK set breaks the shell). Caller: [`crate::service`].
//!
//! Names: `stdio/CONTAINER/N` with N 0, 1, 2 or `tty`, or 3 and more. Offsets mean something on regular files only, and there
//! [`CURRENT`] is the description's own position, as a program without a seek uses it.

mod file;
mod session;
mod writers;

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use cofferdam_ninep::Errno;

pub use file::StdioFile;
pub use session::serve;
pub use writers::Writers;

/// The offset that stands for a regular file's own position.
pub const CURRENT: u64 = u64::MAX;
/// Containers and execs whose stdio is held at one time.
const MAX_CONTAINERS: usize = 4096;
/// Descriptors besides the usual ones.
const MAX_MORE: usize = 128;

/// What one process has.
#[derive(Debug)]
struct Held {
    /// Whether a terminal is all three of the usual files.
    tty: bool,
    /// Without those that were given back.
    files: Vec<Option<Rc<StdioFile>>>,
}

/// All stdio of a sandbox.
#[derive(Debug, Clone)]
pub struct Stdios {
    writers: Writers,
    all: Rc<RefCell<HashMap<String, Held>>>,
}

impl Stdios {
    /// None yet.
    pub fn new(writers: Writers) -> Self {
        Self { writers, all: Rc::default() }
    }

    /// Takes a container's stdio: three descriptors, or with `tty` the terminal's one, and what it has besides. Inside the runtime only.
    pub fn add(&self, container: &str, tty: bool, fds: Vec<OwnedFd>) -> Result<(), Errno> {
        let usual = if tty { 1 } else { 3 };
        if fds.len() < usual || fds.len() > usual + MAX_MORE {
            return Err(Errno::INVAL);
        }
        let mut all = self.all.borrow_mut();
        if all.contains_key(container) {
            return Err(Errno::EXIST);
        }
        if all.len() >= MAX_CONTAINERS {
            return Err(Errno::NFILE);
        }
        let files = fds
            .into_iter()
            .enumerate()
            .map(|(n, fd)| StdioFile::new(fd, self.writers.clone(), n >= usual).map(Rc::new).map(Some))
            .collect::<Result<Vec<_>, _>>()?;
        if tty && files.first().and_then(Option::as_ref).is_none_or(|f| f.tty_size().is_none()) {
            return Err(Errno::NOTTY);
        }
        all.insert(container.to_owned(), Held { tty, files });
        Ok(())
    }

    /// Forgets a container's stdio. Fids that are still held keep theirs.
    pub fn remove(&self, container: &str) -> Result<(), Errno> {
        self.all.borrow_mut().remove(container).map(drop).ok_or(Errno::NOENT)
    }

    /// A fid of this file is gone. With the last one goes the file, as the container has closed it: who reads at its other end may wait for
    /// that.
    fn given_back(&self, file: Rc<StdioFile>) {
        // The table's own, and the caller's.
        if Rc::strong_count(&file) > 2 {
            return;
        }
        let mut all = self.all.borrow_mut();
        let place =
            all.values_mut().flat_map(|h| &mut h.files).find(|f| f.as_ref().is_some_and(|f| Rc::ptr_eq(f, &file)));
        if let Some(place) = place {
            *place = None;
        }
    }

    /// The file that an attach name stands for.
    fn find(&self, aname: &[u8]) -> Result<Rc<StdioFile>, Errno> {
        let rest = std::str::from_utf8(aname).ok().and_then(|a| a.strip_prefix("stdio/")).ok_or(Errno::NOENT)?;
        let (container, which) = rest.rsplit_once('/').ok_or(Errno::NOENT)?;
        let all = self.all.borrow();
        let held = all.get(container).ok_or(Errno::NOENT)?;
        let index = match (which, which.parse::<usize>(), held.tty) {
            ("tty", _, true) | (_, Ok(0..3), true) => 0,
            (_, Ok(n), true) => n - 2,
            (_, Ok(n), false) => n,
            _ => return Err(Errno::NOENT),
        };
        held.files.get(index).cloned().flatten().ok_or(Errno::NOENT)
    }
}
