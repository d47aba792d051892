//! Virtual memory areas: one range of an address space with one protection and one backing.

use super::object::Object;
use super::policy::Policy;
use super::store::PAGE;

/// `PROT_READ`.
pub const READ: i32 = 1;
/// `PROT_WRITE`.
pub const WRITE: i32 = 2;
/// `PROT_EXEC`.
pub const EXEC: i32 = 4;

/// What lies behind an area.
#[derive(Clone)]
pub enum Backing {
    /// Private zeroed memory of the process; the host has all of it mapped.
    Anonymous,
    /// A memory object from an offset (bytes, page-aligned) on.
    Object {
        /// The object.
        object: Object,
        /// Offset in the object of the area's first byte.
        offset: u64,
        /// Ranges of addresses that the host has mapped, ascending and disjoint. The rest is mapped when touched.
        mapped: Vec<(u64, u64)>,
    },
}

/// One area.
#[derive(Clone)]
pub struct Vma {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// `PROT_*`.
    pub prot: i32,
    /// What `mprotect` may raise `prot` to.
    pub max_prot: i32,
    /// `MAP_SHARED`.
    pub shared: bool,
    /// Grows downwards when touched below (`MAP_GROWSDOWN`, the stack).
    pub grows_down: bool,
    /// `MADV_DONTFORK`.
    pub dont_fork: bool,
    /// `MADV_WIPEONFORK`.
    pub wipe_on_fork: bool,
    /// Locked by `mlock`.
    pub locked: bool,
    /// Cannot be taken away or protected otherwise (`mseal`).
    pub sealed: bool,
    /// On which nodes it is wanted (`mbind`).
    pub policy: Option<Policy>,
    /// How far `mremap` has moved it, bytes, wrapping: private memory that came from elsewhere is no one area with what is beside it
    /// on the host either.
    pub moved: u64,
    /// What `/proc/PID/maps` calls it when there is no path: `[heap]`, `[stack]`, `[vdso]`.
    pub name: &'static str,
    /// What is behind it.
    pub backing: Backing,
}

impl Vma {
    /// An anonymous private area.
    pub fn anonymous(start: u64, end: u64, prot: i32) -> Self {
        Self {
            start,
            end,
            prot,
            max_prot: READ | WRITE | EXEC,
            shared: false,
            grows_down: false,
            dont_fork: false,
            wipe_on_fork: false,
            locked: false,
            sealed: false,
            policy: None,
            moved: 0,
            name: "",
            backing: Backing::Anonymous,
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether an access of the kind that the fault's error code says is allowed.
    pub fn allows(&self, write: bool, exec: bool) -> bool {
        if write {
            self.prot & WRITE != 0
        } else if exec {
            self.prot & EXEC != 0
        } else {
            self.prot & (READ | WRITE | EXEC) != 0
        }
    }

    /// Whether the host has all of `[from, to)` mapped.
    pub fn mapped_whole(&self, from: u64, to: u64) -> bool {
        match &self.backing {
            Backing::Anonymous => true,
            Backing::Object { mapped, .. } => mapped.iter().any(|(a, b)| *a <= from && to <= *b),
        }
    }

    /// The parts of `[from, to)` that the host has mapped.
    pub fn mapped_parts(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let (from, to) = (from.max(self.start), to.min(self.end));
        match &self.backing {
            Backing::Anonymous if from < to => vec![(from, to)],
            Backing::Anonymous => Vec::new(),
            Backing::Object { mapped, .. } => {
                mapped.iter().map(|(a, b)| (*a.max(&from), *b.min(&to))).filter(|(a, b)| a < b).collect()
            }
        }
    }

    /// Notes that the host has `[from, to)` mapped now.
    pub fn add_mapped(&mut self, from: u64, to: u64) {
        let Backing::Object { mapped, .. } = &mut self.backing else { return };
        let (mut a, mut b) = (from.max(self.start), to.min(self.end));
        if a >= b {
            return;
        }
        mapped.retain(|(x, y)| {
            let touches = *x <= b && a <= *y;
            if touches {
                a = a.min(*x);
                b = b.max(*y);
            }
            !touches
        });
        let at = mapped.partition_point(|(x, _)| *x < a);
        mapped.insert(at, (a, b));
    }

    /// Notes that the host has nothing mapped from `from` on any more; what it had.
    pub fn drop_mapped(&mut self, from: u64) -> Vec<(u64, u64)> {
        let gone = self.mapped_parts(from, self.end);
        if let Backing::Object { mapped, .. } = &mut self.backing {
            mapped.retain_mut(|(a, b)| {
                *b = (*b).min(from);
                a < b
            });
        }
        gone
    }

    /// Cuts the area at `at`: keeps what is below, returns what is from there on.
    pub fn split(&mut self, at: u64) -> Vma {
        let mut high = self.clone();
        high.start = at;
        self.end = at;
        if let Backing::Object { mapped, .. } = &mut self.backing {
            mapped.retain_mut(|(a, b)| {
                *b = (*b).min(at);
                a < b
            });
        }
        if let Backing::Object { offset, mapped, .. } = &mut high.backing {
            *offset = offset.saturating_add(at - self.start);
            mapped.retain_mut(|(a, b)| {
                *a = (*a).max(at);
                a < b
            });
        }
        high
    }

    /// Whether `next`, which begins where this one ends, can be one area with it.
    pub fn joins(&self, next: &Vma) -> bool {
        self.end == next.start
            && self.prot == next.prot
            && self.max_prot == next.max_prot
            && self.shared == next.shared
            && !self.grows_down
            && !next.grows_down
            && self.dont_fork == next.dont_fork
            && self.wipe_on_fork == next.wipe_on_fork
            && self.locked == next.locked
            && self.sealed == next.sealed
            && self.policy == next.policy
            && self.moved == next.moved
            && self.name == next.name
            && match (&self.backing, &next.backing) {
                (Backing::Anonymous, Backing::Anonymous) => true,
                (Backing::Object { object: a, offset, .. }, Backing::Object { object: b, offset: o, .. }) => {
                    std::sync::Arc::ptr_eq(a, b) && offset.checked_add(self.len()) == Some(*o)
                }
                _ => false,
            }
    }

    /// Takes `next` in; `joins` must hold.
    pub fn join(&mut self, next: Vma) {
        self.end = next.end;
        if let Backing::Object { mapped, .. } = next.backing {
            for (a, b) in mapped {
                self.add_mapped(a, b);
            }
        }
    }

    /// Offset in the object behind the area of an address within it.
    pub fn offset_of(&self, address: u64) -> Option<u64> {
        match &self.backing {
            Backing::Object { offset, .. } => offset.checked_add(address.checked_sub(self.start)?),
            Backing::Anonymous => None,
        }
    }
}

/// The page an address lies in.
pub fn page_of(address: u64) -> u64 {
    address & !(PAGE - 1)
}
