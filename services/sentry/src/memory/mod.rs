//! Memory: address spaces, and the objects that can be mapped into them.

pub mod object;
pub mod store;
