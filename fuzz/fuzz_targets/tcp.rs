//! Packets of any peer, calls of any owner and any time for netd's TCP engine: no panic, nothing beyond its limits, what it sends is well-formed,
//! and everything ends.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cofferdam_tcp::testing::engine(bytes));
