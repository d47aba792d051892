//! Slots: the memory that a stub thread and the Sentry share, one slot a thread, mapped in one process only.
//!
//! A slot holds the orders for its thread and its signal stack. Slots come in groups, because a process maps a group at
//! a time; a group never moves to another process without having been emptied. Everything in a slot is the container's
//! to scribble on.

use std::sync::{Arc, Mutex, PoisonError};

use cofferdam_shm::{Window, WindowError};

use crate::layout::{GROUP, ORDER, SLOT, SLOTS, START_CONTEXT};

/// Bytes of slots there can be: 2 million threads.
const SIZE: u64 = 1 << 36;

/// All slots of a sandbox.
pub(crate) struct Slots {
    pub(crate) window: Window,
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    next: u64,
    groups: Vec<u64>,
}

impl Slots {
    pub(crate) fn new() -> Result<Arc<Self>, WindowError> {
        let window = Window::create("cofferdam-slots", SIZE)?;
        // Group 0 is the template's.
        Ok(Arc::new(Self { window, free: Mutex::new(Free { next: 1, groups: Vec::new() }) }))
    }

    /// A free group: the offset of its first slot.
    fn take(&self) -> Option<u64> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = free.groups.pop() {
            return Some(group);
        }
        let at = free.next.checked_mul(GROUP * SLOT)?;
        if at.checked_add(GROUP * SLOT)? > SIZE {
            return None;
        }
        free.next += 1;
        Some(at)
    }

    fn give(&self, group: u64) {
        if let Err(e) = self.window.punch(group, GROUP * SLOT) {
            // Kept out of use: what was in it must not reach another process.
            tracing::error!("slots not emptied: {e}");
            return;
        }
        self.free.lock().unwrap_or_else(PoisonError::into_inner).groups.push(group);
    }

    /// Writes order `index` of the thread that owns `slot`.
    pub(crate) fn put_order(&self, slot: u64, index: u64, words: &[u64; 8]) -> Result<(), WindowError> {
        let mut bytes = [0u8; ORDER as usize];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        self.window.write(slot + index * ORDER, &bytes)
    }

    pub(crate) fn word(&self, offset: u64) -> u64 {
        let mut b = [0; 8];
        match self.window.read(offset, &mut b) {
            Ok(()) => u64::from_le_bytes(b),
            Err(_) => 0,
        }
    }

    pub(crate) fn set_word(&self, offset: u64, value: u64) {
        // Only called with offsets of slots that were handed out, which lie within the window.
        let _ = self.window.write(offset, &value.to_le_bytes());
    }
}

/// The slots mapped in one host address space.
pub(crate) struct MmSlots {
    slots: Arc<Slots>,
    inner: Mutex<Inner>,
}

struct Inner {
    groups: Vec<u64>,
    free: Vec<u64>,
    /// Groups that may be mapped or not, so the stub says: for nobody while any process has this memory.
    doubtful: Vec<u64>,
    /// Whether the first group has been taken out of what a fork copies.
    hidden: bool,
}

/// A slot for a new thread.
pub(crate) struct NewSlot {
    pub(crate) slot: u64,
    /// The group that must be mapped first, if it is not yet.
    pub(crate) map: Option<u64>,
}

impl MmSlots {
    /// For a new address space; the first group is mapped by the new process itself.
    pub(crate) fn new(slots: &Arc<Slots>) -> Option<Arc<Self>> {
        let group = slots.take()?;
        Some(Self::with_group(slots, group))
    }

    pub(crate) fn with_group(slots: &Arc<Slots>, group: u64) -> Arc<Self> {
        let free = (1..GROUP).rev().map(|i| group + i * SLOT).collect();
        Arc::new(Self {
            slots: slots.clone(),
            inner: Mutex::new(Inner { groups: vec![group], free, doubtful: Vec::new(), hidden: false }),
        })
    }

    /// The slot of the thread the address space was made for.
    pub(crate) fn first(&self) -> u64 {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).groups.first().copied().unwrap_or(0)
    }

    /// The group that must be taken out of what a fork copies (MADV_DONTFORK) before the next fork: a child must see no slot
    /// of its parent, whose registers lie there. The other groups were when they were mapped.
    pub(crate) fn hide(&self) -> Option<u64> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let first = inner.groups.first().copied();
        if std::mem::replace(&mut inner.hidden, true) { None } else { first }
    }

    /// A slot for one more thread.
    pub(crate) fn take(&self) -> Option<NewSlot> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = inner.free.pop() {
            return Some(NewSlot { slot, map: None });
        }
        let group = self.slots.take()?;
        inner.groups.push(group);
        inner.free.extend((1..GROUP).rev().map(|i| group + i * SLOT));
        Some(NewSlot { slot: group, map: Some(group) })
    }

    /// A thread that is gone no longer needs its slot.
    pub(crate) fn give(&self, slot: u64) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).free.push(slot);
    }

    /// A group could not be mapped after all, so the stub says: nobody gets it while this address space lives.
    pub(crate) fn retire_group(&self, group: u64) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.groups.retain(|g| *g != group);
        inner.free.retain(|s| *s < group || *s >= group + GROUP * SLOT);
        inner.doubtful.push(group);
    }
}

impl Drop for MmSlots {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        for group in inner.groups.drain(..).chain(inner.doubtful.drain(..)) {
            self.slots.give(group);
        }
    }
}

/// Address of an offset of the slots window in a stub.
pub(crate) fn address(offset: u64) -> u64 {
    SLOTS + offset
}

/// Offset of the context that a new thread in `slot` starts from.
pub(crate) fn start_context(slot: u64) -> u64 {
    slot + START_CONTEXT
}
