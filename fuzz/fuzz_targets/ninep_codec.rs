//! Bytes as a request and as a reply: no panic, and what decodes encodes to the same bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cofferdam_ninep::testing::codec(bytes));
