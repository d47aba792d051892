//! Bytes as each control message: no panic, and what decodes encodes to the same message.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cofferdam_control::testing::messages(bytes));
