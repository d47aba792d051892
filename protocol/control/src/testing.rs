//! What the fuzz target does with an input. Part of no service: feature `testing` only.

#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::channel::{decode, encode};
use crate::{client, gofer, sentry};

/// Decodes as every message there is; what decodes must encode, and that decode to the same.
pub fn messages(bytes: &[u8]) {
    fn one<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
        if let Ok(message) = decode::<T>(bytes) {
            let again = encode(&message).expect("a message that was decoded");
            assert_eq!(decode::<T>(&again).expect("a message that was encoded"), message);
        }
    }
    // The first byte chooses, so that a corpus is of one kind.
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 8 {
        0 => one::<client::Request>(bytes),
        1 => one::<client::Response>(bytes),
        2 => one::<sentry::SentryOrders>(bytes),
        3 => one::<sentry::Numbered>(bytes),
        4 => one::<sentry::Said>(bytes),
        5 => one::<gofer::GoferOrders>(bytes),
        6 => one::<gofer::ToGofer>(bytes),
        _ => one::<gofer::FromGofer>(bytes),
    }
}
