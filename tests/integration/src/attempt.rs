//! One attempt of the hostile program: a system call under a policy, in a service's confinement.

use serde::{Deserialize, Serialize};

/// An argument of the call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Argument {
    /// A number.
    Number(u64),
    /// The address of these bytes, NUL-terminated.
    Bytes(Vec<u8>),
    /// The address of that many zero bytes.
    Zeros(u32),
    /// The address of an `iovec` that names that many bytes of the hostile program's own.
    Vector(u32),
}

/// What the hostile program is told over its descriptor 3.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attempt {
    /// The policy it raises its walls with.
    pub policy: String,
    /// Whether it takes the capabilities and Landlock of the Gofer.
    pub files: bool,
    /// The call.
    pub number: i64,
    /// Its arguments.
    pub arguments: Vec<Argument>,
}

/// Exit status: the call succeeded.
pub const SUCCEEDED: i32 = 70;
/// Exit status: the call came back with an error.
pub const REFUSED: i32 = 71;
/// Exit status: the walls did not go up, so nothing was tried.
pub const NO_WALLS: i32 = 72;
