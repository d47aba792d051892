//! Copies by the Sentry that find nothing where a touch of the container's own would have made something be there: below a stack
//! that may grow, in a private page of a file that was never touched.
//!
//! Linux mends that within the copy. Here the host's mappings are changed by the stub itself, which waits in its call: so the call fails
//! first, unseen by the container, the stub is ordered to map what is missing, and the call is made again. Called by `run` as calls end,
//! and by signals whose frame finds no room.

use std::sync::atomic::Ordering;

use cofferdam_platform::Order;

use super::Task;
use crate::errno::Errno;

impl Task {
    /// Whether a call that ends so may have failed for something that can be mended.
    pub(super) fn may_mend(&self, result: Result<i64, Errno>) -> bool {
        result == Err(Errno::EFAULT) && self.missed.load(Ordering::Relaxed) != 0
    }

    /// Orders that mend what the last copy found missing, once.
    pub(crate) fn mend(&self) -> Option<Vec<Order>> {
        match self.missed.swap(0, Ordering::Relaxed) {
            0 => None,
            at => self.mm().mend(self.tid(), at, &self.bounds()),
        }
    }
}
