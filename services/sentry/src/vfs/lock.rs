//! Advisory locks: `flock(2)`, POSIX record locks and open-file-description locks (`fcntl_locking(2)`).

use std::sync::atomic::{AtomicU64, Ordering};

use crate::errno::Errno;
use crate::sync::Mutex;
use crate::wait::{PollMask, WaitQueue};

/// Whose a record lock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockOwner {
    /// A process, by its descriptor table.
    Process(u64),
    /// An open file description.
    File(u64),
}

/// A record lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose it is.
    pub owner: LockOwner,
    /// First byte.
    pub start: u64,
    /// Byte after the last; `u64::MAX` to the end of the file.
    pub end: u64,
    /// Exclusive, or shared.
    pub write: bool,
    /// Process that took it, for `F_GETLK` (-1 for open-file-description locks).
    pub pid: i32,
    /// Open file that it was taken through.
    pub file: u64,
}

/// A lock as `/proc` lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// A whole file's (`flock(2)`), of a range otherwise.
    pub whole: bool,
    /// The range and whose it is, of a whole file its open file.
    pub record: Record,
}

impl Listed {
    /// The line of it, after its number: kind, mode, process, file, range. `identity`: device and number of the file.
    pub fn line(&self, (dev, ino): (u64, u64)) -> String {
        let r = &self.record;
        let kind = match (self.whole, r.owner) {
            (true, _) => "FLOCK ",
            (_, LockOwner::File(_)) => "OFDLCK",
            _ => "POSIX ",
        };
        let mode = if r.write { "WRITE" } else { "READ " };
        let (major, minor) = crate::vfs::inode::split_dev(dev);
        let end = if r.end == u64::MAX { String::from("EOF") } else { r.end.saturating_sub(1).to_string() };
        format!("{kind} ADVISORY  {mode} {} {major:02x}:{minor:02x}:{ino} {} {end}", r.pid, r.start)
    }
}

#[derive(Default)]
struct Held {
    records: Vec<Record>,
    /// Open file, exclusive, the process that took it.
    whole: Vec<(u64, bool, i32)>,
}

/// The locks on one inode.
#[derive(Default)]
pub struct Locks {
    held: Mutex<Held>,
    /// Woken when a lock goes.
    pub queue: WaitQueue,
}

/// Processes that wait for record locks, and whom each waits for. Open file descriptions are not looked at, as on Linux.
static WAITS: Mutex<Vec<(u64, LockOwner, LockOwner)>> = Mutex::new(Vec::new());
static NEXT_WAIT: AtomicU64 = AtomicU64::new(1);

/// A wait for a record lock; dropped, it is over.
pub struct LockWait(u64);

impl LockWait {
    /// Not waiting for anybody yet.
    pub fn new() -> Self {
        Self(NEXT_WAIT.fetch_add(1, Ordering::Relaxed))
    }

    /// `owner` waits for `other`; EDEADLK if that one waits, by whatever way round, for `owner`.
    pub fn on(&self, owner: LockOwner, other: LockOwner) -> Result<(), Errno> {
        if !matches!(owner, LockOwner::Process(_)) {
            return Ok(());
        }
        let mut waits = WAITS.lock();
        waits.retain(|(id, ..)| *id != self.0);
        let mut seen = vec![other];
        let mut next = 0;
        while let Some(at) = seen.get(next).copied() {
            if at == owner {
                return Err(Errno::EDEADLK);
            }
            let further: Vec<_> = waits.iter().filter(|(_, o, _)| *o == at).map(|(.., b)| *b).collect();
            seen.extend(further.into_iter().filter(|b| !seen.contains(b)).collect::<Vec<_>>());
            next += 1;
        }
        waits.push((self.0, owner, other));
        Ok(())
    }
}

impl Drop for LockWait {
    fn drop(&mut self) {
        WAITS.lock().retain(|(id, ..)| *id != self.0);
    }
}

/// Locks one inode may carry.
const LOCKS_MAX: usize = 65_536;

impl Locks {
    /// The first record lock in the way of `want`.
    pub fn conflict(&self, want: &Record) -> Option<Record> {
        Self::in_the_way(&self.held.lock().records, want)
    }

    fn in_the_way(records: &[Record], want: &Record) -> Option<Record> {
        records
            .iter()
            .find(|r| r.owner != want.owner && r.start < want.end && want.start < r.end && (r.write || want.write))
            .copied()
    }

    /// Takes a record lock, replacing the owner's own in that range; EAGAIN if another's is in the way.
    pub fn lock(&self, want: Record) -> Result<(), Errno> {
        let mut held = self.held.lock();
        if Self::in_the_way(&held.records, &want).is_some() {
            return Err(Errno::EAGAIN);
        }
        Self::cut(&mut held.records, want.owner, want.start, want.end);
        if held.records.len() >= LOCKS_MAX {
            return Err(Errno::ENOLCK);
        }
        Self::join(&mut held.records, want);
        drop(held);
        // A lock may have been reduced from exclusive to shared.
        self.queue.wake(PollMask::empty());
        Ok(())
    }

    /// Gives up the owner's locks in a range.
    pub fn unlock(&self, owner: LockOwner, start: u64, end: u64) {
        Self::cut(&mut self.held.lock().records, owner, start, end);
        self.queue.wake(PollMask::empty());
    }

    /// Enters a lock whose range is free of its owner's others, joined with equal ones that it touches; by first byte.
    fn join(records: &mut Vec<Record>, mut want: Record) {
        records.retain(|r| {
            let touches =
                r.owner == want.owner && r.write == want.write && (r.end == want.start || want.end == r.start);
            if touches {
                (want.start, want.end) = (want.start.min(r.start), want.end.max(r.end));
            }
            !touches
        });
        let at = records.partition_point(|r| r.start < want.start);
        records.insert(at, want);
    }

    fn cut(records: &mut Vec<Record>, owner: LockOwner, start: u64, end: u64) {
        let mut pieces = Vec::new();
        records.retain(|r| {
            if r.owner != owner || r.end <= start || end <= r.start {
                return true;
            }
            if r.start < start {
                pieces.push(Record { end: start, ..*r });
            }
            if end < r.end {
                pieces.push(Record { start: end, ..*r });
            }
            false
        });
        for piece in pieces {
            let at = records.partition_point(|r| r.start < piece.start);
            records.insert(at, piece);
        }
    }

    /// `flock(2)` by an open file; EAGAIN if another open file's lock is in the way.
    pub fn flock(&self, file: u64, exclusive: bool, pid: i32) -> Result<(), Errno> {
        let mut held = self.held.lock();
        // A conversion gives the old lock up first, as on Linux.
        held.whole.retain(|(f, ..)| *f != file);
        if held.whole.iter().any(|(_, e, _)| *e || exclusive) {
            return Err(Errno::EAGAIN);
        }
        held.whole.push((file, exclusive, pid));
        drop(held);
        self.queue.wake(PollMask::empty());
        Ok(())
    }

    /// Gives up what an open file holds by `flock`.
    pub fn funlock(&self, file: u64) {
        self.held.lock().whole.retain(|(f, ..)| *f != file);
        self.queue.wake(PollMask::empty());
    }

    /// All locks.
    pub fn list(&self) -> Vec<Listed> {
        let held = self.held.lock();
        let whole = held.whole.iter().map(|(file, write, pid)| {
            let owner = LockOwner::File(*file);
            Listed {
                whole: true,
                record: Record { owner, start: 0, end: u64::MAX, write: *write, pid: *pid, file: *file },
            }
        });
        // Of each owner the locks are together.
        let mut owners: Vec<LockOwner> = Vec::new();
        held.records.iter().map(|r| r.owner).for_each(|o| {
            if !owners.contains(&o) {
                owners.push(o);
            }
        });
        let of = |o: LockOwner| held.records.iter().filter(move |r| r.owner == o);
        let records = owners.into_iter().flat_map(of).map(|r| Listed { whole: false, record: *r });
        whole.chain(records).collect()
    }

    /// An open file is gone.
    pub fn release_file(&self, file: u64) {
        self.funlock(file);
        self.unlock(LockOwner::File(file), 0, u64::MAX);
    }

    /// A process closed a descriptor of the file: all its record locks on it go (`fcntl_locking(2)`).
    pub fn release_owner(&self, table: u64) {
        self.unlock(LockOwner::Process(table), 0, u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rec(owner: u64, start: u64, end: u64, write: bool) -> Record {
        Record { owner: LockOwner::Process(owner), start, end, write, pid: 1, file: 1 }
    }

    #[test]
    fn record_locks_split_and_conflict() {
        let l = Locks::default();
        l.lock(rec(1, 0, 100, true)).unwrap();
        assert_eq!(l.lock(rec(2, 50, 60, false)), Err(Errno::EAGAIN));
        l.unlock(LockOwner::Process(1), 40, 70);
        l.lock(rec(2, 40, 70, true)).unwrap();
        assert_eq!(l.conflict(&rec(1, 0, 100, false)).unwrap().start, 40);
        assert!(l.conflict(&rec(3, 70, 71, false)).is_some());
    }

    #[test]
    fn flock_is_by_open_file() {
        let l = Locks::default();
        l.flock(1, false, 1).unwrap();
        l.flock(2, false, 1).unwrap();
        assert_eq!(l.flock(1, true, 1), Err(Errno::EAGAIN));
        l.release_file(2);
        l.flock(1, true, 1).unwrap();
    }
}
