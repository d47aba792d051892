//! Kept objects: those that the tree of areas no longer knows and that the host may still have mapped.
//!
//! The tree changes when a call is served, the host when the thread carries its orders out: as late as it likes, if its stub is
//! the container's. Pages given back before that would be another's by then. So an object that leaves the tree is kept until
//! nobody can have it mapped: until the thread that removed it stops again, and every thread that has orders to map. What such
//! orders may still bring back later, or what a fork under way may copy, is kept for the life of the address space. That of a
//! process that ended lasts until the host has nothing left of it ([`Departed`]).
//!
//! Owns the references, and says who has orders; never changes the tree. Called by `space`, under its lock.

use std::sync::Arc;

use super::AddressSpace;
use super::object::Object;
use super::vma::{Backing, Vma};
use crate::sync::Mutex;

/// What a forked child's host process may have mapped beside what its tree says.
type Inherited = Arc<Mutex<Vec<Object>>>;

/// The kept objects of an address space.
#[derive(Default)]
pub(super) struct Kept {
    /// Threads with orders that make pages appear, and where.
    ordered: Vec<(i32, u64, u64)>,
    /// Objects, and the threads that must stop before each may go.
    waiting: Vec<(Vec<i32>, Object)>,
    for_ever: Vec<Object>,
    /// Forks under way: who makes them, and what becomes of what is mapped meanwhile.
    forks: Vec<(i32, Inherited)>,
    inherited: Inherited,
}

fn add(list: &mut Vec<Object>, object: &Object) {
    if !list.iter().any(|o| Arc::ptr_eq(o, object)) {
        list.push(object.clone());
    }
}

/// What the books of a process that ended leave behind: to be dropped when the host has nothing left of it.
pub struct Departed {
    /// Its memory.
    pub mm: Arc<AddressSpace>,
    /// Its threads: none of them will carry out its orders any more.
    pub tids: Vec<i32>,
}

impl Drop for Departed {
    fn drop(&mut self) {
        // Others may go on with this memory.
        self.tids.iter().for_each(|tid| self.mm.settle(*tid));
    }
}

impl Kept {
    /// Thread `tid` is given orders that make pages appear in `[from, to)`, of `object` if it is not in the tree yet.
    pub(super) fn ordered(&mut self, tid: i32, from: u64, to: u64, object: Option<&Object>) {
        self.ordered.push((tid, from, to));
        if let Some(object) = object {
            for (_, inherited) in &self.forks {
                add(&mut inherited.lock(), object);
            }
        }
    }

    /// Thread `tid` took areas out of the tree, and has yet to take them out of the host.
    pub(super) fn removed(&mut self, tid: i32, areas: &[Vma]) {
        for v in areas {
            let Backing::Object { object, .. } = &v.backing else { continue };
            for (_, inherited) in &self.forks {
                add(&mut inherited.lock(), object);
            }
            let mut others = self.ordered.iter().filter(|(t, _, _)| *t != tid);
            if others.any(|(_, a, b)| *a < v.end && v.start < *b) {
                add(&mut self.for_ever, object);
                continue;
            }
            let mut threads = vec![tid];
            for t in self.ordered.iter().map(|(t, _, _)| *t).chain(self.forks.iter().map(|(t, _)| *t)) {
                if !threads.contains(&t) {
                    threads.push(t);
                }
            }
            self.waiting.push((threads, object.clone()));
        }
    }

    /// Areas were taken out of the tree whose orders failed: some of it may be mapped all the same.
    pub(super) fn doubtful(&mut self, areas: &[Vma]) {
        for v in areas {
            if let Backing::Object { object, .. } = &v.backing {
                add(&mut self.for_ever, object);
            }
        }
    }

    /// Thread `tid` has stopped, with all its orders carried out. What may go now.
    pub(super) fn settle(&mut self, tid: i32) -> Vec<Object> {
        self.ordered.retain(|(t, _, _)| *t != tid);
        self.forks.retain(|(t, _)| *t != tid);
        let mut gone = Vec::new();
        let mut i = 0;
        while let Some((threads, _)) = self.waiting.get_mut(i) {
            threads.retain(|t| *t != tid);
            if threads.is_empty() {
                gone.push(self.waiting.swap_remove(i).1);
            } else {
                i += 1;
            }
        }
        gone
    }

    /// Whether [`settle`](Self::settle) has anything to do.
    pub(super) fn owes(&self) -> bool {
        !(self.ordered.is_empty() && self.waiting.is_empty() && self.forks.is_empty())
    }

    /// For the copy that thread `tid` is about to have the host make.
    pub(super) fn fork(&mut self, tid: i32) -> Self {
        let inherited: Inherited =
            Arc::new(Mutex::new(self.waiting.iter().map(|(_, o)| o).chain(&self.for_ever).cloned().collect()));
        inherited.lock().extend(self.inherited.lock().iter().cloned());
        self.forks.push((tid, inherited.clone()));
        Self { inherited, ..Self::default() }
    }
}
