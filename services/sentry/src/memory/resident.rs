//! How much of an address space is in memory.
//!
//! The host pages; whether a page is there only it knows, and it is asked page by page. Where that would be too many, pages
//! evenly apart stand for those between them. Called for `/proc`, `getrusage(2)` and `mincore(2)`; never with a lock held.

use cofferdam_platform::Page;

use super::store::PAGE;
use super::vma::{Backing, Vma};
use crate::task::Task;

/// Pages looked at for a text of `/proc`.
pub const IN_TEXT: u64 = 16 * 1024;
/// Pages looked at for `getrusage(2)`.
pub const SOME: u64 = 4096;
/// Pages looked at as a process ends: its last moment is not to take long (512 took a tenth of a fork and its end).
pub const FEW: u64 = 128;
/// Pages looked at of one range that nobody may touch: what was reserved is empty as a rule.
const RESERVED: u64 = 64;

/// Bytes that are resident.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resident {
    /// Private memory.
    pub anonymous: u64,
    /// Pages of files.
    pub file: u64,
    /// Shared memory.
    pub shared: u64,
}

impl Resident {
    /// All of it.
    pub fn in_all(&self) -> u64 {
        self.anonymous + self.file + self.shared
    }
}

/// Whether an area shows shared memory, and no file.
pub fn is_shared_memory(a: &Vma) -> bool {
    match &a.backing {
        Backing::Anonymous => false,
        Backing::Object { object, .. } => {
            let path = object.path();
            [&b"/dev/zero"[..], b"/memfd:", b"/SYSV", b"/dev/shm/"].iter().any(|p| path.starts_with(p))
        }
    }
}

/// Pages of a range that are looked at: from where, how many, how far apart.
fn places(from: u64, to: u64, apart: u64) -> (u64, u64, u64) {
    let pages = (to - from) / PAGE;
    let apart = apart.clamp(1, pages.max(1));
    (from, pages.div_ceil(apart), apart)
}

/// Bytes resident of each of these areas of a task's memory, looked at in about so many places. Nothing where the host
/// does not say, or is gone.
pub fn of_areas(task: &Task, areas: &[Vma], most: u64) -> Vec<u64> {
    let mut ranges: Vec<(usize, u64, u64)> = Vec::new();
    for (i, a) in areas.iter().enumerate() {
        ranges.extend(a.mapped_parts(a.start, a.end).into_iter().map(|(x, y)| (i, x, y)));
    }
    let reserved = |i: usize| areas.get(i).is_some_and(|a| a.prot == 0);
    let pages: u64 = ranges.iter().filter(|r| !reserved(r.0)).map(|(_, x, y)| (y - x) / PAGE).sum();
    // Odd, so as not to fall in step with what lies at round distances.
    let apart = pages.div_ceil(most.max(1)) | 1;
    let mut looks: Vec<(usize, u64, u64, u64)> = Vec::with_capacity(ranges.len());
    for (i, x, y) in ranges {
        let apart = if reserved(i) { ((y - x) / PAGE).div_ceil(RESERVED.min(most)) | 1 } else { apart };
        let (from, n, apart) = places(x, y, apart);
        looks.push((i, from, n, apart));
    }
    let mut found = vec![0u64; areas.len()];
    let Some(host) = task.host() else { return found };
    let addresses = looks.iter().flat_map(|(_, from, n, apart)| (0..*n).map(move |k| from + k * apart * PAGE));
    let mut at = looks.iter().flat_map(|(i, _, n, apart)| (0..*n).map(move |_| (*i, *apart)));
    let tell = |page| {
        if let Some((i, apart)) = at.next()
            && page == Page::Present
            && let Some(bytes) = found.get_mut(i)
        {
            *bytes = bytes.saturating_add(apart * PAGE);
        }
    };
    cofferdam_platform::resident(host.tid(), addresses, tell);
    for (bytes, a) in found.iter_mut().zip(areas) {
        *bytes = (*bytes).min(a.len());
    }
    found
}

/// What is resident of a task's memory, looked at in about so many places.
pub fn of(task: &Task, most: u64) -> Resident {
    let areas = task.mm().areas();
    let mut r = Resident::default();
    for (a, bytes) in areas.iter().zip(of_areas(task, &areas, most)) {
        match &a.backing {
            Backing::Anonymous => r.anonymous += bytes,
            Backing::Object { .. } if is_shared_memory(a) => r.shared += bytes,
            Backing::Object { .. } => r.file += bytes,
        }
    }
    r
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_pages_stand_for_many() {
        assert_eq!(places(0, 10 * PAGE, 1), (0, 10, 1));
        assert_eq!(places(0, 10 * PAGE, 3), (0, 4, 3));
        assert_eq!(places(0, PAGE, 99), (0, 1, 1));
    }
}
