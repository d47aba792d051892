//! PID namespaces, `pid_namespaces(7)`: numbers of processes and threads of their own.
//!
//! Inside the Sentry every id is one of the first PID namespace (as Linux's `struct pid` is one for all); a number of another is
//! translated where it comes in or goes out. A process has a number in its own namespace and in each around it. Owned here: the
//! numbers. Never here: the processes (`task::tree`, whose lock is held while numbers are given and taken back).

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use super::{Base, Kind};
use crate::errno::Errno;
use crate::sync::Mutex;
use crate::task::Creds;
use crate::task::tree::PID_MAX;

/// Namespaces within one another, the first not counted.
const LEVELS: u32 = 32;
/// Where numbers begin again.
const AGAIN: i32 = 300;
/// The id that no process has.
const NOBODY: i32 = i32::MAX;

#[derive(Default)]
struct Numbers {
    last: i32,
    /// By number, the id.
    ids: HashMap<i32, i32>,
    /// By id, the number.
    numbers: HashMap<i32, i32>,
    /// The id of the first process.
    init: i32,
    /// Its first process has ended: nothing comes in any more.
    dead: bool,
}

/// A PID namespace.
pub struct PidNamespace {
    /// Whose it is.
    pub base: Base,
    /// The one around it; `None` for the first.
    pub parent: Option<Arc<PidNamespace>>,
    level: u32,
    numbers: Mutex<Numbers>,
}

impl PidNamespace {
    /// The first, where numbers are the ids themselves.
    pub fn first() -> Arc<Self> {
        static FIRST: OnceLock<Arc<PidNamespace>> = OnceLock::new();
        let make = || {
            let numbers = Mutex::new(Numbers { init: 1, ..Numbers::default() });
            Arc::new(Self { base: Base::first(Kind::Pid), parent: None, level: 0, numbers })
        };
        FIRST.get_or_init(make).clone()
    }

    /// An empty one within this. ENOSPC for too many, EINVAL if it would not be within the owner's.
    pub fn within(self: &Arc<Self>, creds: &Creds) -> Result<Arc<Self>, Errno> {
        if !creds.user_ns.is_within(&self.base.owner) {
            return Err(Errno::EINVAL);
        }
        if self.level >= LEVELS {
            return Err(Errno::ENOSPC);
        }
        let base = Base::new(Kind::Pid, creds)?;
        Ok(Arc::new(Self { base, parent: Some(self.clone()), level: self.level + 1, numbers: Mutex::default() }))
    }

    /// How many are around it.
    pub fn level(&self) -> usize {
        self.level as usize
    }

    /// Whether it is the first.
    pub fn is_first(&self) -> bool {
        self.parent.is_none()
    }

    /// Whether it is `other` or lies within it.
    pub fn is_within(&self, other: &Self) -> bool {
        let mut at = Some(self);
        while let Some(ns) = at {
            if std::ptr::eq(ns, other) {
                return true;
            }
            at = ns.parent.as_deref();
        }
        false
    }

    /// The number of an id; 0 if it has none here. A process group's is negative, as its id.
    pub fn shown(&self, id: i32) -> i32 {
        if self.is_first() || id == 0 || id == i32::MIN {
            return id;
        }
        let number = self.numbers.lock().numbers.get(&id.abs()).copied().unwrap_or(0);
        if id < 0 { -number } else { number }
    }

    /// The id of a number; what is none stays so, and a number of nobody is the id of nobody.
    pub fn id(&self, number: i32) -> i32 {
        if self.is_first() || matches!(number, 0 | -1 | i32::MIN) {
            return number;
        }
        let id = self.numbers.lock().ids.get(&number.abs()).copied().unwrap_or(NOBODY);
        if number < 0 { -id } else { id }
    }

    /// The numbers of an id from this namespace inwards to that of the process, which is `innermost`.
    pub fn all_shown(&self, id: i32, innermost: &Arc<Self>) -> Vec<i32> {
        let mut all = Vec::new();
        let mut at = Some(innermost);
        while let Some(ns) = at {
            all.push(ns.shown(id));
            if std::ptr::eq(&**ns, self) {
                break;
            }
            at = ns.parent.as_ref();
        }
        all.reverse();
        all
    }

    /// The number given last.
    pub fn last(&self) -> i32 {
        self.numbers.lock().last
    }

    /// The id of its first process; 0 while there is none.
    pub fn init(&self) -> i32 {
        self.numbers.lock().init
    }

    /// Gives an id a number here and in all around this but the first. ENOMEM if nothing comes in any more.
    /// `wanted`: numbers that it shall have, here and in those around; EEXIST if one is taken.
    pub fn add(&self, id: i32, wanted: &[i32]) -> Result<(), Errno> {
        let Some(parent) = &self.parent else { return Ok(()) };
        parent.add(id, wanted.get(1..).unwrap_or_default())?;
        let mut n = self.numbers.lock();
        let taken = wanted.first().filter(|w| n.ids.contains_key(w)).copied();
        let number = (!n.dead && taken.is_none()).then(|| {
            if let Some(wanted) = wanted.first() {
                return *wanted;
            }
            let after = |last: i32| if last + 1 >= PID_MAX { AGAIN } else { last + 1 };
            let mut next = after(n.last);
            while n.ids.contains_key(&next) {
                next = after(next);
            }
            next
        });
        let Some(number) = number else {
            drop(n);
            parent.remove(id);
            return Err(if taken.is_some() { Errno::EEXIST } else { Errno::ENOMEM });
        };
        if wanted.is_empty() {
            n.last = number;
        }
        n.ids.insert(number, id);
        n.numbers.insert(id, number);
        if n.init == 0 {
            n.init = id;
        }
        Ok(())
    }

    /// Takes that back.
    pub fn remove(&self, id: i32) {
        let mut at = Some(self);
        while let Some(ns) = at {
            let mut n = ns.numbers.lock();
            if let Some(number) = n.numbers.remove(&id) {
                n.ids.remove(&number);
            }
            at = ns.parent.as_deref();
        }
    }

    /// Its first process ends: nothing comes in any more.
    pub fn close(&self) {
        self.numbers.lock().dead = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_of_each_namespace() {
        let root = Creds::root(crate::task::creds::ALL_CAPABILITIES);
        let first = PidNamespace::first();
        assert_eq!((first.shown(70), first.id(70)), (70, 70));
        let outer = first.within(&root).unwrap();
        let inner = outer.within(&root).unwrap();
        outer.add(70, &[]).unwrap();
        inner.add(71, &[]).unwrap();
        assert_eq!((outer.shown(70), outer.shown(71), inner.shown(70), inner.shown(71)), (1, 2, 0, 1));
        assert_eq!((outer.id(2), inner.id(2), inner.id(-1), outer.id(-2), outer.shown(-71)), (71, NOBODY, -1, -71, -2));
        assert_eq!(first.all_shown(71, &inner), [71, 2, 1]);
        assert_eq!((outer.init(), inner.init()), (70, 71));
        inner.close();
        assert_eq!(inner.add(72, &[]), Err(Errno::ENOMEM));
        assert_eq!(outer.shown(72), 0);
        inner.remove(71);
        assert_eq!((outer.shown(71), inner.shown(71)), (0, 0));
        assert!(inner.is_within(&outer) && !outer.is_within(&inner));
    }
}
