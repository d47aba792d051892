//! Inter-process communication that is used through descriptors (pipes, eventfd, epoll, Unix sockets, terminals), and futexes.

pub mod aio;
pub mod epoll;
pub mod eventfd;
pub mod futex;
pub mod garbage;
pub mod inet;
pub mod inotify;
pub mod mqueue;
mod n_tty;
pub mod netlink;
pub mod packet;
pub mod pi_futex;
pub mod pidfd;
pub mod pipe;
pub mod scm;
pub mod signalfd;
pub mod sysv;
pub mod termios;
pub mod timerfd;
pub mod tty;
pub mod tty_file;
pub mod unix;

/// `FIONREAD`: bytes that can be read.
pub const FIONREAD: u32 = 0x541b;

/// A file was opened: a terminal becomes the controlling one of a session leader without any, unless `O_NOCTTY`.
pub fn terminal_opened(
    task: &std::sync::Arc<crate::task::Task>,
    file: &std::sync::Arc<crate::vfs::File>,
    open_flags: i32,
) {
    if open_flags & crate::vfs::file::flags::NOCTTY != 0 {
        return;
    }
    if let Some(t) = file.ops_as::<tty_file::TtyFile>()
        && !t.master
        && file.readable()
    {
        // Whoever may not have it simply has not got it.
        t.tty.make_controlling(task, false).ok();
    }
}
