//! Locks without poisoning: the Sentry is built with `panic = "abort"`, so a poisoned lock cannot be seen.
//!
//! Lock order across the kernel (take from left to right, never the other way):
//! task tree > thread group > task > address space > fd table > mount table > dentry > inode > file > wait queue.
//! No lock is held across a message to another service, and wait-queue wake-ups never run code of the woken task
//! inline: see `wait`. A thread that must wait for a lock lets another serve the container meanwhile.

pub use std::sync::RwLockWriteGuard;
use std::sync::{LockResult, MutexGuard, PoisonError, RwLockReadGuard, TryLockError, TryLockResult};

/// A lock that was tried; taken after the wait where it was held.
fn taken<G>(tried: TryLockResult<G>, wait: impl FnOnce() -> LockResult<G>) -> G {
    match tried {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(e)) => e.into_inner(),
        Err(TryLockError::WouldBlock) => {
            cofferdam_platform::about_to_block();
            wait().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

/// A mutual exclusion lock.
#[derive(Debug, Default)]
pub struct Mutex<T: ?Sized>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// A new, unlocked lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Takes the lock if nobody has it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }

    /// Takes the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        taken(self.0.try_lock(), || self.0.lock())
    }
}

/// A lock for many readers or one writer.
#[derive(Debug, Default)]
pub struct RwLock<T: ?Sized>(std::sync::RwLock<T>);

impl<T> RwLock<T> {
    /// A new, unlocked lock around `value`.
    pub const fn new(value: T) -> Self {
        Self(std::sync::RwLock::new(value))
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Takes the lock for reading.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        taken(self.0.try_read(), || self.0.read())
    }

    /// Takes the lock for writing if nobody has it.
    pub fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        self.0.try_write().ok()
    }

    /// Takes the lock for writing.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        taken(self.0.try_write(), || self.0.write())
    }
}
