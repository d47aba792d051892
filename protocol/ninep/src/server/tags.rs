//! Requests in flight, and who waits for them to end.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Broken;

/// What becomes of a flush.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flush {
    /// The request is not in flight: answer at once.
    Now,
    /// Whoever ends the request answers the flush too.
    Waits,
}

#[derive(Debug)]
struct Flying {
    tag: u16,
    id: u64,
    /// Its answer is being sent: the client may have it, and may have used the tag again, before we know.
    answered: bool,
    flushes: Vec<u16>,
}

#[derive(Debug, Default)]
struct Table {
    flying: Vec<Flying>,
    next: u64,
}

/// The table: few entries, so a scan beats a map.
#[derive(Debug)]
pub(super) struct Tags {
    table: Mutex<Table>,
    max: usize,
}

impl Tags {
    pub fn new(max: usize) -> Self {
        Self { table: Mutex::default(), max }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request; gives what to call it by from here on.
    pub fn begin(&self, tag: u16) -> Result<u64, Broken> {
        let mut table = self.lock();
        if table.flying.iter().any(|f| f.tag == tag && !f.answered) {
            return Err(Broken::TagInUse(tag));
        }
        if table.flying.len() >= self.max {
            return Err(Broken::TooManyRequests(self.max));
        }
        let id = table.next;
        table.next = id.wrapping_add(1);
        table.flying.push(Flying { tag, id, answered: false, flushes: Vec::new() });
        Ok(id)
    }

    pub fn flush(&self, oldtag: u16, tag: u16) -> Result<Flush, Broken> {
        let mut table = self.lock();
        // The newest use of the tag is the one that is meant.
        match table.flying.iter_mut().filter(|f| f.tag == oldtag).max_by_key(|f| f.id) {
            None => Ok(Flush::Now),
            Some(f) if f.flushes.len() >= self.max => Err(Broken::TooManyRequests(self.max)),
            Some(f) => {
                f.flushes.push(tag);
                Ok(Flush::Waits)
            }
        }
    }

    /// The answer is about to be sent.
    pub fn answering(&self, id: u64) {
        if let Some(f) = self.lock().flying.iter_mut().find(|f| f.id == id) {
            f.answered = true;
        }
    }

    /// The answer is sent; gives the flushes that waited for it.
    pub fn end(&self, id: u64) -> Vec<u16> {
        let mut table = self.lock();
        match table.flying.iter().position(|f| f.id == id) {
            Some(at) => table.flying.swap_remove(at).flushes,
            None => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_waits_for_its_request_and_no_other() {
        let tags = Tags::new(2);
        let one = tags.begin(1).unwrap();
        assert_eq!(tags.flush(9, 2).unwrap(), Flush::Now);
        assert_eq!(tags.flush(1, 3).unwrap(), Flush::Waits);
        assert!(matches!(tags.begin(1), Err(Broken::TagInUse(1))));
        let five = tags.begin(5).unwrap();
        assert!(matches!(tags.begin(6), Err(Broken::TooManyRequests(2))));
        tags.end(five);
        tags.answering(one);
        let again = tags.begin(1).unwrap();
        assert_eq!(tags.flush(1, 4).unwrap(), Flush::Waits);
        assert_eq!(tags.end(one), [3]);
        assert_eq!(tags.end(one), [0u16; 0]);
        assert_eq!(tags.end(again), [4]);
    }
}
