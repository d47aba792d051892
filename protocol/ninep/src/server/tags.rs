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

/// The table: few entries, so a scan beats a map.
#[derive(Debug)]
pub(super) struct Tags {
    flying: Mutex<Vec<(u16, Vec<u16>)>>,
    max: usize,
}

impl Tags {
    pub fn new(max: usize) -> Self {
        Self { flying: Mutex::new(Vec::new()), max }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(u16, Vec<u16>)>> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn begin(&self, tag: u16) -> Result<(), Broken> {
        let mut flying = self.lock();
        if flying.iter().any(|(t, _)| *t == tag) {
            return Err(Broken::TagInUse(tag));
        }
        if flying.len() >= self.max {
            return Err(Broken::TooManyRequests(self.max));
        }
        flying.push((tag, Vec::new()));
        Ok(())
    }

    pub fn flush(&self, oldtag: u16, tag: u16) -> Result<Flush, Broken> {
        let mut flying = self.lock();
        match flying.iter_mut().find(|(t, _)| *t == oldtag) {
            None => Ok(Flush::Now),
            Some((_, waiting)) if waiting.len() >= self.max => Err(Broken::TooManyRequests(self.max)),
            Some((_, waiting)) => {
                waiting.push(tag);
                Ok(Flush::Waits)
            }
        }
    }

    /// The request is answered; gives the flushes that waited for it.
    pub fn end(&self, tag: u16) -> Vec<u16> {
        let mut flying = self.lock();
        match flying.iter().position(|(t, _)| *t == tag) {
            Some(at) => flying.swap_remove(at).1,
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
        tags.begin(1).unwrap();
        assert_eq!(tags.flush(9, 2).unwrap(), Flush::Now);
        assert_eq!(tags.flush(1, 3).unwrap(), Flush::Waits);
        assert!(matches!(tags.begin(1), Err(Broken::TagInUse(1))));
        tags.begin(5).unwrap();
        assert!(matches!(tags.begin(6), Err(Broken::TooManyRequests(2))));
        assert_eq!(tags.end(1), [3]);
        assert_eq!(tags.end(1), [0u16; 0]);
    }
}
