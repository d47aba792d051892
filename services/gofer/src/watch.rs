//! Readiness of a descriptor in the runtime.

use std::io;
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches a descriptor that `inner` keeps open (every type of ours that is watched owns or borrows its descriptor, so
/// that the number cannot come to mean another file meanwhile).
#[allow(deprecated, reason = "its successor is `unsafe fn`, and this crate has no unsafe code")]
pub(crate) fn watch<T: AsRawFd>(inner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(inner, interest)
}
