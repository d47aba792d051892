//! A container's stdio over 9P, on a socket of its own, because here requests wait: for a person to type.
//!
//! Owns: the descriptors 0, 1, 2 or the terminal of each container ([`Stdios`]) and the session that serves them
//! ([`serve`]): one current-thread tokio runtime, a task a waiting request. Must never block the runtime, so waiting is
//! waiting for readiness ([`file`]), and must never change a descriptor's flags: the open file description is the
//! caller's too (a shell's terminal with O_NONBLOCK set breaks the shell). Caller: [`crate::service`].
//!
//! Names: `stdio/CONTAINER/N` with N 0, 1, 2 or `tty`. Offsets mean something on regular files only, and there
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

/// All stdio of a sandbox.
#[derive(Debug, Clone)]
pub struct Stdios {
    writers: Writers,
    all: Rc<RefCell<HashMap<String, Vec<Rc<StdioFile>>>>>,
}

impl Stdios {
    /// None yet.
    pub fn new(writers: Writers) -> Self {
        Self { writers, all: Rc::default() }
    }

    /// Takes a container's stdio: three descriptors, or with `tty` the terminal's one. Inside the runtime only.
    pub fn add(&self, container: &str, tty: bool, fds: Vec<OwnedFd>) -> Result<(), Errno> {
        if fds.len() != if tty { 1 } else { 3 } {
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
            .map(|fd| StdioFile::new(fd, self.writers.clone()).map(Rc::new))
            .collect::<Result<_, _>>()?;
        all.insert(container.to_owned(), files);
        Ok(())
    }

    /// Forgets a container's stdio. Fids that are still held keep theirs.
    pub fn remove(&self, container: &str) -> Result<(), Errno> {
        self.all.borrow_mut().remove(container).map(|_| ()).ok_or(Errno::NOENT)
    }

    /// The file that an attach name stands for.
    fn find(&self, aname: &[u8]) -> Result<Rc<StdioFile>, Errno> {
        let rest = std::str::from_utf8(aname).ok().and_then(|a| a.strip_prefix("stdio/")).ok_or(Errno::NOENT)?;
        let (container, which) = rest.rsplit_once('/').ok_or(Errno::NOENT)?;
        let all = self.all.borrow();
        let files = all.get(container).ok_or(Errno::NOENT)?;
        let index = match (which, files.len()) {
            ("0", _) | ("tty", 1) => 0,
            // A terminal is all three.
            ("1" | "2", 1) => 0,
            ("1", _) => 1,
            ("2", _) => 2,
            _ => return Err(Errno::NOENT),
        };
        files.get(index).cloned().ok_or(Errno::NOENT)
    }
}
