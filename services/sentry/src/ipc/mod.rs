//! Inter-process communication.

pub mod futex;
