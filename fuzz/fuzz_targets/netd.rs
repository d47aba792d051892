//! netd between a hostile Sentry and a hostile network: words of the window, slots, frames, time. Nothing but the end of the channel may follow.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cofferdam_netd::testing::hostile(bytes));
