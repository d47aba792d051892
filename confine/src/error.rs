//! What can go wrong while walls go up.

/// Why a service could not be made or confined.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// The host refused a call.
    #[error("{what}: {source}")]
    Host {
        /// The call and its purpose.
        what: &'static str,
        /// The host's answer.
        source: std::io::Error,
    },
    /// No policy of that name is embedded.
    #[error("no policy named {0:?}")]
    NoPolicy(String),
    /// Walls must go up while there is one thread: capabilities and Landlock are a thread's own.
    #[error("the walls of a process must be raised before it has a second thread")]
    Threads,
    /// A thread could not be brought under the filter.
    #[error("thread {0} could not be brought under the filter")]
    ThreadSync(i64),
    /// Capabilities could not be read or changed.
    #[error("capabilities: {0}")]
    Capabilities(String),
    /// Landlock refused.
    #[error("landlock: {0}")]
    Landlock(String),
    /// Descriptor 3 is not the channel that a service is born with.
    #[error("descriptor 3 is no socket: services are started by the supervisor")]
    NoChannel,
}

/// The error of a libc call that has just failed.
pub(crate) fn last(what: &'static str) -> ConfineError {
    ConfineError::Host { what, source: std::io::Error::last_os_error() }
}

/// The error of a rustix call.
pub(crate) fn host(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> ConfineError {
    move |e| ConfineError::Host { what, source: e.into() }
}
