//! Descriptor tables: open files by number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::errno::Errno;
use crate::sync::RwLock;
use crate::vfs::file::File;

/// Highest table size that RLIMIT_NOFILE may allow (`fs.nr_open`).
pub const NR_OPEN: u64 = 1 << 20;

#[derive(Clone)]
struct Slot {
    file: Arc<File>,
    cloexec: bool,
}

#[derive(Clone, Default)]
struct Slots {
    list: Vec<Option<Slot>>,
    /// No number below this is free.
    first_free: usize,
}

static NEXT_TABLE: AtomicU64 = AtomicU64::new(1);

/// Open files by number. Shared by the tasks of `CLONE_FILES`.
pub struct FdTable {
    /// Unique in the kernel: the owner of POSIX record locks.
    pub id: u64,
    slots: RwLock<Slots>,
}

impl Default for FdTable {
    fn default() -> Self {
        Self { id: NEXT_TABLE.fetch_add(1, Ordering::Relaxed), slots: RwLock::default() }
    }
}

impl Drop for FdTable {
    fn drop(&mut self) {
        let slots = std::mem::take(&mut *self.slots.write());
        for slot in slots.list.into_iter().flatten() {
            self.closed(&slot.file).ok();
        }
    }
}

impl FdTable {
    /// A copy for a forked process.
    pub fn fork(&self) -> Arc<FdTable> {
        let slots = self.slots.read().clone();
        Arc::new(FdTable { slots: RwLock::new(slots), ..Self::default() })
    }

    /// Closes what is marked close-on-exec.
    pub fn close_on_exec(&self) {
        let mut gone = Vec::new();
        {
            let mut slots = self.slots.write();
            let mut first = None;
            for (n, s) in slots.list.iter_mut().enumerate() {
                if s.as_ref().is_some_and(|s| s.cloexec)
                    && let Some(s) = s.take()
                {
                    first = first.or(Some(n));
                    gone.push(s.file);
                }
            }
            if let Some(first) = first {
                slots.first_free = slots.first_free.min(first);
            }
        }
        for f in gone {
            self.closed(&f).ok();
        }
    }

    /// What happens when a descriptor goes: locks of the process on the file go with it.
    fn closed(&self, file: &Arc<File>) -> Result<(), Errno> {
        if let Some(met) = file.inode().met() {
            met.locks.release_owner(self.id);
        }
        file.ops().flush(file, self.id)
    }

    fn index(fd: i32) -> Result<usize, Errno> {
        usize::try_from(fd).map_err(|_| Errno::EBADF)
    }

    /// The open file of a number; EBADF.
    pub fn get_any(&self, fd: i32) -> Result<Arc<File>, Errno> {
        let slots = self.slots.read();
        match slots.list.get(Self::index(fd)?) {
            Some(Some(s)) => Ok(s.file.clone()),
            _ => Err(Errno::EBADF),
        }
    }

    /// As [`get_any`](Self::get_any), but EBADF for `O_PATH` files.
    pub fn get(&self, fd: i32) -> Result<Arc<File>, Errno> {
        let file = self.get_any(fd)?;
        if file.is_path_only() { Err(Errno::EBADF) } else { Ok(file) }
    }

    /// Enters a file at the lowest free number that is at least `from`. EMFILE at `limit` (RLIMIT_NOFILE).
    pub fn add_from(&self, file: Arc<File>, cloexec: bool, from: i32, limit: u64) -> Result<i32, Errno> {
        let limit = usize::try_from(limit.min(NR_OPEN)).map_err(|_| Errno::EMFILE)?;
        let from = Self::index(from)?;
        let mut slots = self.slots.write();
        let mut at = from.max(slots.first_free);
        while slots.list.get(at).is_some_and(Option::is_some) {
            at += 1;
        }
        if at >= limit {
            return Err(Errno::EMFILE);
        }
        if slots.list.len() <= at {
            slots.list.resize(at + 1, None);
        }
        if from <= slots.first_free {
            slots.first_free = at + 1;
        }
        if let Some(s) = slots.list.get_mut(at) {
            *s = Some(Slot { file, cloexec });
        }
        i32::try_from(at).map_err(|_| Errno::EMFILE)
    }

    /// EMFILE unless there is a number for one more file.
    pub fn check_room(&self, limit: u64) -> Result<(), Errno> {
        let slots = self.slots.read();
        let mut at = slots.first_free;
        while slots.list.get(at).is_some_and(Option::is_some) {
            at += 1;
        }
        if (at as u64) < limit.min(NR_OPEN) { Ok(()) } else { Err(Errno::EMFILE) }
    }

    /// Enters a file at the lowest free number.
    pub fn add(&self, file: Arc<File>, cloexec: bool, limit: u64) -> Result<i32, Errno> {
        self.add_from(file, cloexec, 0, limit)
    }

    /// Puts a file at a number, closing what was there (`dup2(2)`). EBADF at `limit` or below 0.
    pub fn put(&self, fd: i32, file: Arc<File>, cloexec: bool, limit: u64) -> Result<(), Errno> {
        let at = Self::index(fd)?;
        if at as u64 >= limit.min(NR_OPEN) {
            return Err(Errno::EBADF);
        }
        let old = {
            let mut slots = self.slots.write();
            if slots.list.len() <= at {
                slots.list.resize(at + 1, None);
            }
            if slots.first_free == at {
                slots.first_free = at + 1;
            }
            slots.list.get_mut(at).and_then(|s| s.replace(Slot { file, cloexec }))
        };
        if let Some(old) = old {
            self.closed(&old.file).ok();
        }
        Ok(())
    }

    /// Closes a number; EBADF. An error of the file's last writes is reported, and it is closed all the same.
    pub fn close(&self, fd: i32) -> Result<(), Errno> {
        let at = Self::index(fd)?;
        let old = {
            let mut slots = self.slots.write();
            let old = slots.list.get_mut(at).and_then(Option::take).ok_or(Errno::EBADF)?;
            slots.first_free = slots.first_free.min(at);
            old
        };
        self.closed(&old.file)
    }

    /// Closes, or marks close-on-exec, all numbers of a range (`close_range(2)`).
    pub fn close_range(&self, first: u32, last: u32, mark_only: bool) {
        let mut gone = Vec::new();
        {
            let mut slots = self.slots.write();
            let (first, last) = (first as usize, last as usize);
            let end = last.saturating_add(1).min(slots.list.len());
            for s in slots.list.get_mut(first..end).unwrap_or_default() {
                match s {
                    Some(s) if mark_only => s.cloexec = true,
                    _ => gone.extend(s.take().map(|s| s.file)),
                }
            }
            if !mark_only {
                slots.first_free = slots.first_free.min(first);
            }
        }
        for f in gone {
            self.closed(&f).ok();
        }
    }

    /// Whether a number is marked close-on-exec.
    pub fn cloexec(&self, fd: i32) -> Result<bool, Errno> {
        match self.slots.read().list.get(Self::index(fd)?) {
            Some(Some(s)) => Ok(s.cloexec),
            _ => Err(Errno::EBADF),
        }
    }

    /// Marks a number, or takes the mark away.
    pub fn set_cloexec(&self, fd: i32, on: bool) -> Result<(), Errno> {
        match self.slots.write().list.get_mut(Self::index(fd)?) {
            Some(Some(s)) => {
                s.cloexec = on;
                Ok(())
            }
            _ => Err(Errno::EBADF),
        }
    }

    /// All numbers in use, with their files, in order.
    pub fn all(&self) -> Vec<(i32, Arc<File>)> {
        let slots = self.slots.read();
        let numbered = slots.list.iter().enumerate();
        numbered.filter_map(|(n, s)| Some((i32::try_from(n).ok()?, s.as_ref()?.file.clone()))).collect()
    }

    /// How many numbers are in use.
    pub fn count(&self) -> usize {
        self.slots.read().list.iter().flatten().count()
    }

    /// Size of the table, for `FDSize` in `/proc/PID/status`.
    pub fn size(&self) -> usize {
        self.slots.read().list.len().next_power_of_two().max(64)
    }
}
