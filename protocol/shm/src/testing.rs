//! What the fuzz target does with an input. Part of no service: feature `testing` only.

#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

use crate::Window;

const SIZE: u64 = 3 * 4096;

/// Reads, writes and punches as the input says, 17 bytes a step, offsets and lengths of any kind; a plain array must hold
/// the same, and what does not lie within the window must be refused.
pub fn window(bytes: &[u8]) {
    let window = Window::create("fuzz", SIZE).expect("a memfd");
    let mut model = vec![0u8; SIZE as usize];
    for step in bytes.chunks_exact(17).take(256) {
        let word = |at: usize| u64::from_le_bytes(step[at..at + 8].try_into().unwrap());
        let (offset, len) = (word(1), word(9));
        let small = usize::try_from(len).unwrap_or(usize::MAX).min(2 * SIZE as usize);
        let fits = offset.checked_add(small as u64).is_some_and(|end| end <= SIZE);
        match step[0] % 4 {
            0 => {
                let data = vec![step[0]; small];
                assert_eq!(window.write(offset, &data).is_ok(), fits);
                if fits {
                    model[offset as usize..][..small].copy_from_slice(&data);
                }
            }
            1 => {
                let mut data = vec![0; small];
                assert_eq!(window.read(offset, &mut data).is_ok(), fits);
                assert!(!fits || data == model[offset as usize..][..small]);
            }
            2 => {
                let (offset, len) = (offset & !4095, len & !4095);
                if window.punch(offset, len).is_ok() {
                    let end = offset.saturating_add(len).min(SIZE);
                    if offset < end {
                        model[offset as usize..end as usize].fill(0);
                    }
                }
            }
            _ => assert_eq!(window.address(offset, small).is_ok(), fits),
        }
    }
    let mut all = vec![0; SIZE as usize];
    window.read(0, &mut all).unwrap();
    assert!(all == model);
}
