//! Calls on files that may have to wait: try, and if the file says EAGAIN, wait on its queue.

use std::sync::Arc;

use crate::errno::Errno;
use crate::syscalls::{Outcome, SysResult};
use crate::task::Task;
use crate::time::Deadline;
use crate::vfs::File;
use crate::wait::{Cause, PollMask, Wait, WaitQueue};

/// Tries `f`; while it answers EAGAIN, waits on `queue` and tries again. Interrupted, it restarts.
pub fn until_ready(
    task: &Arc<Task>,
    queue: &WaitQueue,
    mask: PollMask,
    deadline: Option<Deadline>,
    mut f: impl FnMut(&Arc<Task>) -> Result<i64, Errno> + Send + 'static,
) -> SysResult {
    match f(task) {
        Err(Errno::EAGAIN) => {}
        r => return r.map(Outcome::Value),
    }
    let timed = deadline.is_some();
    let retry = move |task: &Arc<Task>, cause: Cause| match f(task) {
        Err(Errno::EAGAIN) => match cause {
            Cause::Woken => None,
            Cause::TimedOut => Some(Err(Errno::EAGAIN)),
            // A socket with a timeout does not start over (signal(7)).
            Cause::Interrupted if timed => Some(Err(Errno::EINTR)),
            Cause::Interrupted => Some(Err(Errno::ERESTARTSYS)),
        },
        r => Some(r),
    };
    Ok(Outcome::Block(Wait::new(retry).on(queue, mask).until(deadline)))
}

/// As [`until_ready`] for an operation on an open file, which is not waited for if it is non-blocking.
pub fn on_file(
    task: &Arc<Task>,
    file: &Arc<File>,
    mask: PollMask,
    mut f: impl FnMut(&Arc<Task>, &Arc<File>) -> Result<i64, Errno> + Send + 'static,
) -> SysResult {
    let (Some(queue), false) = (file.ops().queue(), file.nonblocking()) else {
        return f(task, file).map(Outcome::Value);
    };
    let (queue, file) = (queue.clone(), file.clone());
    until_ready(task, &queue, mask, None, move |task| f(task, &file))
}
