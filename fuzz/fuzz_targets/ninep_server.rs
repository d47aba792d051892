//! A client that says anything: our server engine over files in memory never panics or grows without bound.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cofferdam_ninep::testing::server(bytes));
