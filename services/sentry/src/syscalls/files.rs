//! The families of calls about files.

use super::{
    Entry, attr, dir, epoll, event, fd, file_attr, inotify, ioctl, lock, mount, mount_api, open, pipe, poll,
    read_write, socket, sockopt, stat, statmount, sync, xattr,
};

/// Their tables.
pub fn families() -> Vec<(&'static str, &'static [Entry])> {
    vec![
        ("opening files", open::TABLE),
        ("reading and writing", read_write::TABLE),
        ("descriptors", fd::TABLE),
        ("file status", stat::TABLE),
        ("directories", dir::TABLE),
        ("attributes", attr::TABLE),
        ("locks", lock::TABLE),
        ("pipes", pipe::TABLE),
        ("waiting for files", poll::TABLE),
        ("epoll and eventfd", epoll::TABLE),
        ("timerfd and signalfd", event::TABLE),
        ("file change events", inotify::TABLE),
        ("sockets", socket::TABLE),
        ("socket options", sockopt::TABLE),
        ("device requests", ioctl::TABLE),
        ("extended attributes", xattr::TABLE),
        ("file attributes", file_attr::TABLE),
        ("writing back", sync::TABLE),
        ("mounts", mount::TABLE),
        ("mounts by descriptors", mount_api::TABLE),
        ("mounts by numbers", statmount::TABLE),
    ]
}
