//! Inter-process communication that is used through descriptors (pipes, eventfd, epoll, Unix sockets, terminals), and futexes.

pub mod epoll;
pub mod eventfd;
pub mod futex;
pub mod pipe;
pub mod tty;
pub mod unix;

/// `FIONREAD`: bytes that can be read.
pub const FIONREAD: u32 = 0x541b;

/// A file was opened without `O_NOCTTY`: a terminal may become the controlling one of a session leader without any.
pub fn terminal_opened(
    _task: &std::sync::Arc<crate::task::Task>,
    _file: &std::sync::Arc<crate::vfs::File>,
    _open_flags: i32,
) {
}
