//! Bytes as a program: `#!` lines and ELF headers, as the Sentry's loader reads them.
#![no_main]
#![allow(dead_code)]

#[path = "../../services/sentry/src/errno.rs"]
mod errno;
#[path = "../../services/sentry/src/loader/headers.rs"]
mod headers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let head = bytes.get(..headers::HEAD.min(bytes.len())).unwrap_or_default();
    if let Ok(Some((path, argument))) = headers::parse_script(head) {
        assert!(path.len() + argument.map_or(0, |a| a.len()) < headers::HEAD);
    }
    let mut asked = 0;
    let read = |at: u64, len: usize| {
        asked += len;
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        Ok(bytes.get(at..).unwrap_or_default().iter().copied().take(len).collect())
    };
    if let Ok(parsed) = headers::parse(read) {
        assert!(!parsed.segments.is_empty() && parsed.segments.len() <= 1024);
    }
    // Never more than a header and its table, whatever the file claims.
    assert!(asked <= 64 + 1024 * 56);
});
