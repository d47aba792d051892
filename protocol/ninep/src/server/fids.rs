//! The table of fids.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::codec::NOFID;
use crate::errno::Errno;

/// What a fid stands for.
#[derive(Debug)]
pub(super) enum Fid<N> {
    /// A file of the backend.
    File(N),
    /// The value of an extended attribute (or the list of names), to be read.
    XattrValue(Vec<u8>),
    /// An extended attribute that is being written; set when the fid is clunked.
    XattrTaking(Mutex<XattrTaking<N>>),
}

/// An extended attribute on its way in.
#[derive(Debug)]
pub(super) struct XattrTaking<N> {
    pub file: Arc<Fid<N>>,
    pub name: Vec<u8>,
    pub size: usize,
    pub flags: u32,
    pub value: Vec<u8>,
}

impl<N> Fid<N> {
    pub fn file(&self) -> Result<&N, Errno> {
        match self {
            Fid::File(node) => Ok(node),
            _ => Err(Errno::INVAL),
        }
    }
}

#[derive(Debug)]
pub(super) struct Fids<N> {
    table: Mutex<HashMap<u32, Arc<Fid<N>>>>,
    max: usize,
}

impl<N> Fids<N> {
    pub fn new(max: usize) -> Self {
        Self { table: Mutex::new(HashMap::new()), max }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Arc<Fid<N>>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }

    pub fn get(&self, fid: u32) -> Result<Arc<Fid<N>>, Errno> {
        self.lock().get(&fid).cloned().ok_or(Errno::BADF)
    }

    /// Whether a new fid of this number could be put in; saves the backend work that would be thrown away.
    pub fn free(&self, fid: u32) -> Result<(), Errno> {
        let table = self.lock();
        if fid == NOFID || table.contains_key(&fid) {
            Err(Errno::BADF)
        } else if table.len() >= self.max {
            Err(Errno::NFILE)
        } else {
            Ok(())
        }
    }

    pub fn insert(&self, fid: u32, what: Fid<N>) -> Result<(), Errno> {
        if fid == NOFID {
            return Err(Errno::BADF);
        }
        let mut table = self.lock();
        let full = table.len() >= self.max;
        match table.entry(fid) {
            Slot::Occupied(_) => Err(Errno::BADF),
            Slot::Vacant(_) if full => Err(Errno::NFILE),
            Slot::Vacant(slot) => {
                slot.insert(Arc::new(what));
                Ok(())
            }
        }
    }

    /// Puts something else in the place of a fid that exists and still is `old`.
    pub fn replace(&self, fid: u32, old: &Arc<Fid<N>>, what: Fid<N>) -> Result<(), Errno> {
        let dropped = {
            let mut table = self.lock();
            match table.get_mut(&fid) {
                Some(now) if Arc::ptr_eq(now, old) => std::mem::replace(now, Arc::new(what)),
                _ => return Err(Errno::BADF),
            }
        };
        drop(dropped);
        Ok(())
    }

    pub fn remove(&self, fid: u32) -> Option<Arc<Fid<N>>> {
        self.lock().remove(&fid)
    }

    pub fn clear(&self) {
        // Drained, not replaced: a new table would ask the host for randomness.
        let all: Vec<_> = self.lock().drain().collect();
        // Closing descriptors may take time: not under the lock.
        drop(all);
    }
}
