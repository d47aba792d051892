//! Confinement: what a service may still do once it has taken its orders.
//!
//! Owns the compiled policies ([`POLICIES`]), raising a service's walls ([`Walls`]), making a service in namespaces of
//! its own ([`spawn`]), and the few process-level calls that need `unsafe` on the host side ([`signals`],
//! [`inherited_channel`]). It must never leave a wall half up and go on: every step that fails is an error, and its
//! caller ends. Callers: every service on itself, and the supervisor's launcher.
//!
//! The order: the launcher clones the child into new namespaces, maps its ids, places its descriptors and executes the
//! service by descriptor while the host's root is still there (so that a dynamic binary loads). The service takes its
//! orders over descriptor 3, makes what it needs, and calls [`Walls::raise`], which empties the root, sweeps
//! descriptors, drops capabilities, raises Landlock and last the filter. No byte of a container is in reach before.
#![allow(unsafe_code)]

pub mod cgroup;
pub mod datagrams;
mod descriptors;
mod error;
mod identity;
pub mod ids;
mod landlocked;
mod mounts;
mod packet;
pub mod policy;
mod root;
pub mod signals;
pub mod spawn;
mod walls;

pub use descriptors::{close_inherited, inherited_channel, take_inherited};
pub use error::ConfineError;
pub use landlocked::Landlock;
pub use mounts::{mount_for_serving, mount_propagation, mount_read_only, root_here};
pub use packet::{lost_packets, packet_socket};
pub use policy::{POLICIES, Policy};
pub use root::tree_name;
pub use walls::{Raised, Walls, exit_now, narrow_this_thread, raise_filter};

/// Capabilities by name, for [`Walls::capabilities`].
pub use ::caps;
