//! Descriptors that a service manager hands to whoever it starts (`sd_listen_fds(3)`), passed on to the container that is made, as runc does.
//!
//! Owns how many there are, and what of them cannot be used inside. The container has the descriptors from 3 on, as with `--preserve-fds`,
//! which come after these; its Gofer holds them. Called by `arguments` and `commands`.

use std::os::fd::OwnedFd;

/// How many there are: of a caller who means this very process.
pub fn handed() -> u32 {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == std::process::id() => count,
        _ => 0,
    }
}

/// What is to be told of descriptors, the first of which is 3 inside.
pub fn warnings(more: &[OwnedFd]) -> Vec<String> {
    let listens = |fd: &&OwnedFd| rustix::net::sockopt::socket_acceptconn(fd).unwrap_or(false);
    let all = more.iter().zip(3..).filter(|(fd, _)| listens(fd));
    all.map(|(_, n)| {
        format!("descriptor {n}: a listening socket of the host: inside, no connection to it can be accepted")
    })
    .collect()
}
