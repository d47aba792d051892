//! Calls on files that may have to wait: try, and if the file says EAGAIN, wait on its queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    f: impl FnMut(&Arc<Task>) -> Result<i64, Errno> + Send + 'static,
) -> SysResult {
    until_done(task, queue, mask, deadline, &Progress::default(), f)
}

/// How much of a call is done while it still waits for the rest.
pub type Progress = Arc<AtomicUsize>;

/// As [`until_ready`], for a call that may have done a part by the time it gives up: then that part is its result.
pub fn until_done(
    task: &Arc<Task>,
    queue: &WaitQueue,
    mask: PollMask,
    deadline: Option<Deadline>,
    progress: &Progress,
    mut f: impl FnMut(&Arc<Task>) -> Result<i64, Errno> + Send + 'static,
) -> SysResult {
    match f(task) {
        Err(Errno::EAGAIN) => {}
        r => return r.map(Outcome::Value),
    }
    let timed = deadline.is_some();
    let progress = progress.clone();
    let retry = move |task: &Arc<Task>, cause: Cause| match f(task) {
        Err(Errno::EAGAIN) => match (cause, progress.load(Ordering::Relaxed)) {
            (Cause::Woken, _) => None,
            (_, done) if done > 0 => Some(Ok(done as i64)),
            // A socket with a timeout does not start over (signal(7)).
            (Cause::Interrupted, _) if timed => Some(Err(Errno::EINTR)),
            (Cause::Interrupted, _) => Some(Err(Errno::ERESTARTSYS)),
            (Cause::TimedOut, _) => Some(Err(Errno::EAGAIN)),
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
