//! `madvise(2)`.

use super::AddressSpace;
use crate::errno::Errno;
use crate::memory::vma::Backing;

impl AddressSpace {
    /// `madvise(2)` on a range: whether the host should carry it out as it was made.
    pub fn advise(&self, tid: i32, address: u64, len: u64, advice: i32) -> Result<bool, Errno> {
        let end = Self::range(address, len)?;
        let mut inner = self.inner.lock();
        Self::settled(&mut inner, tid);
        let mut at = address;
        let starts = inner.touching(address, end);
        let mut hole = false;
        for s in &starts {
            if let Some(v) = inner.areas.get(s) {
                hole |= v.start > at;
                at = v.end;
            }
        }
        hole |= at < end;
        let anonymous =
            starts.iter().filter_map(|s| inner.areas.get(s)).all(|v| matches!(v.backing, Backing::Anonymous));
        // DONTNEED, FREE, COLD, PAGEOUT
        let locked = starts.iter().filter_map(|s| inner.areas.get(s)).any(|v| v.locked);
        if locked && matches!(advice, 4 | 8 | 20 | 21) {
            return Err(Errno::EINVAL);
        }
        // DONTNEED, FREE, REMOVE, DONTFORK, WIPEONFORK, DONTNEED_LOCKED
        if matches!(advice, 4 | 8 | 9 | 10 | 18 | 24) {
            inner.discardable(address, end)?;
        }
        let pass = match advice {
            // DONTNEED: on objects the host drops private copies too.
            4 => true,
            // FREE, HUGEPAGE, NOHUGEPAGE, COLD, PAGEOUT, POPULATE_READ, POPULATE_WRITE
            8 if !anonymous => return Err(Errno::EINVAL),
            8 | 14 | 15 | 20 | 21 => anonymous,
            22 | 23 => {
                if !anonymous {
                    return Ok(false);
                }
                true
            }
            10 | 11 | 18 | 19 => {
                if matches!(advice, 18 | 19) && !anonymous {
                    return Err(Errno::EINVAL);
                }
                if hole {
                    return Err(Errno::ENOMEM);
                }
                for mut v in inner.take(address, end) {
                    match advice {
                        10 => v.dont_fork = true,
                        11 => v.dont_fork = false,
                        18 => v.wipe_on_fork = true,
                        _ => v.wipe_on_fork = false,
                    }
                    inner.put(v);
                }
                true
            }
            // NORMAL, RANDOM, SEQUENTIAL, WILLNEED, MERGEABLE, UNMERGEABLE, DONTDUMP, DODUMP: nothing to do.
            0..=3 | 12 | 13 | 16 | 17 => false,
            _ => return Err(Errno::EINVAL),
        };
        if hole {
            return Err(Errno::ENOMEM);
        }
        Ok(pass && address < end)
    }
}
