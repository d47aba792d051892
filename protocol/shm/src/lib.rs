//! Memory shared between services: windows over memfds.
//!
//! This crate is the only place that touches memory a peer may write while we look at it. Nothing here hands out a
//! reference (`&[u8]`, `&mut [u8]`) into such memory: data is copied in and out through bounds-checked accessors, so
//! that what was checked is what is used. Callers: the Sentry (page cache, container memory), the Gofer (page cache),
//! the platforms (stub areas).
#![allow(unsafe_code)]

mod window;

pub use window::{Window, WindowError};

#[cfg(feature = "testing")]
pub mod testing;
