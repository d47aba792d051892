//! Terminals.

/// Device number of a session's controlling terminal; 0 for none.
pub fn number_of_session(_sid: i32) -> u64 {
    0
}

/// Foreground process group of a session's controlling terminal; -1 for none.
pub fn foreground_of_session(_sid: i32) -> i32 {
    -1
}
