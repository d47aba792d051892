//! Ranges of any kind in a shared window: what a plain array would hold, or a refusal.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cofferdam_shm::testing::window(bytes));
