//! netd behind sockets between a hostile Sentry and hostile callers. Nothing but the end of the channel may follow.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cofferdam_netd::hosted::testing::hostile(bytes));
