//! What goes with a message on a Unix socket, `SCM_RIGHTS` and `SCM_CREDENTIALS` of `unix(7)`.
//!
//! Owns the count of the descriptors that are on their way. Never here: what sockets do, and which of them nobody can reach any more
//! (`garbage`). Called by `unix` and the calls of sockets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::errno::Errno;
use crate::ipc::garbage::{self, Passenger};
use crate::ipc::unix::Socket;
use crate::sync::Mutex;
use crate::task::{Group, Task};
use crate::vfs::file::File;

/// `struct ucred`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Ucred {
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
}

impl Ucred {
    /// Of a calling task.
    pub fn of(task: &Arc<Task>) -> Self {
        let c = task.creds();
        Self { pid: task.pid(), uid: c.euid, gid: c.egid }
    }

    /// As a task sees it.
    pub fn shown_to(&self, task: &Task) -> Vec<u8> {
        let c = task.creds();
        let ids = [
            task.shown(self.pid).to_le_bytes(),
            c.shown_uid(self.uid).to_le_bytes(),
            c.shown_gid(self.gid).to_le_bytes(),
        ];
        // What belongs to nobody stays so.
        if self.uid == u32::MAX { [[0; 4], [0xff; 4], [0xff; 4]].concat() } else { ids.concat() }
    }

    /// Of a peer that there is none of.
    pub const NOBODY: Self = Self { pid: 0, uid: u32::MAX, gid: u32::MAX };
}

/// Descriptors of each user on their way in messages. Below all other locks.
static IN_FLIGHT: Mutex<BTreeMap<u32, usize>> = Mutex::new(BTreeMap::new());
static NEXT_FLIGHT: AtomicU64 = AtomicU64::new(1);
/// A user with so many on their way has garbage looked for when it sends more (`UNIX_INFLIGHT_SANE_USER`).
const SANE: usize = 253 * 8;

/// Descriptors that a user sent and nobody has received yet, counted as long as this is there: they have no numbers, so nothing else
/// bounds them.
pub struct Flight {
    id: u64,
    user: u32,
    count: usize,
    /// Those that are sockets, which may lead to others.
    sockets: Vec<Passenger>,
}

impl Flight {
    /// Counts descriptors in. ETOOMANYREFS if those that the user has on their way are more than `limit` already.
    pub fn begin(user: u32, files: &[Arc<File>], limit: u64) -> Result<Arc<Self>, Errno> {
        let many = {
            let mut all = IN_FLIGHT.lock();
            let own = all.entry(user).or_insert(0);
            if *own as u64 > limit {
                return Err(Errno::ETOOMANYREFS);
            }
            *own += files.len();
            *own >= SANE
        };
        let sockets: Vec<_> = files.iter().filter_map(Passenger::of).collect();
        if many && !sockets.is_empty() {
            garbage::collect();
        }
        let id = NEXT_FLIGHT.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Self { id, user, count: files.len(), sockets }))
    }

    /// They go into a message that waits in `holder`. Called with its lock held.
    pub fn board(&self, holder: &Socket) {
        if !self.sockets.is_empty() {
            garbage::board(self.id, &self.sockets, holder);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.sockets.is_empty() {
            garbage::leave(self.id, &self.sockets);
        }
        let mut all = IN_FLIGHT.lock();
        if let Some(own) = all.get_mut(&self.user) {
            *own = own.saturating_sub(self.count);
            if *own == 0 {
                all.remove(&self.user);
            }
        }
    }
}

/// What goes with data.
#[derive(Clone, Default)]
pub struct Ancillary {
    /// Descriptors on their way.
    pub files: Vec<Arc<File>>,
    /// Counts them while they are.
    pub flight: Option<Arc<Flight>>,
    /// The sender's credentials, as it gave them.
    pub creds: Option<Ucred>,
    /// Who sends, told to who asks for credentials (`SO_PASSCRED`).
    pub sender: Ucred,
    /// The process of either (`SO_PASSPIDFD`).
    pub process: Option<Arc<Group>>,
}
