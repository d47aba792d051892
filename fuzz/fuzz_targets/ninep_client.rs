//! A server that says anything: our client answers EIO and never panics or hangs.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cofferdam_ninep::testing::client(bytes));
