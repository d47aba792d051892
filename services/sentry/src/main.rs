//! `cofferdam-sentry`: the application kernel of one sandbox.
//!
//! It answers the system calls of a container. It holds no host file and no host socket but the channels it was born
//! with; files come from the Gofer over 9P. Started by the supervisor only.

mod abi;
mod errno;
mod filesystems;
mod ipc;
mod kernel;
mod loader;
mod memory;
mod signal;
mod sync;
mod syscalls;
mod task;
mod time;
mod uio;
mod vfs;
mod wait;

fn main() {}
