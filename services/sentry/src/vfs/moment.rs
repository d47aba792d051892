//! Moments: what was asked of the host within one is not asked again.
//!
//! Files that the host changes, too, are asked for at each use. A call uses the same file several times (it walks there, checks
//! who may, and does what it is for): for all of that one answer will do, as if the whole call were one moment. Begun where
//! calls and traps of tasks arrive (`task/run.rs`), and once more where a call is made again. A thread that serves no task has
//! no moments and asks each time.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Moments of one thread, as a power of two: more than it will ever have.
const EACH: u32 = 44;

static THREADS: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(NONE) };
}

/// No moment.
pub const NONE: u64 = 0;

/// A moment begins on this thread.
pub fn begin() {
    NOW.with(|now| {
        let last = now.get();
        now.set(if last == NONE { THREADS.fetch_add(1, Ordering::Relaxed) << EACH } else { last.wrapping_add(1) });
    });
}

/// The moment that it is on this thread: another number than that of any other moment of any thread, or [`NONE`].
pub fn now() -> u64 {
    NOW.get()
}
