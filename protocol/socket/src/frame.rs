//! Frames for packet sockets (`packet(7)`), in the rings of slot [`FRAMES`](crate::FRAMES): what interfaces carried, and what sockets send.
//!
//! netd hands over frames only while the Sentry says that it wants them ([`wanted`]: the word of the slot, looked at for each frame); what finds no room is
//! lost, and counted with the next that does. What sockets send leaves by the interface that is named, as it is.

use crate::ring::{Consumer, Producer};
use crate::slot::Slot;
use crate::{Broken, FRAMES, Window};

/// The longest: an Ethernet header, a tag and the longest packet with its own header.
pub const MOST: usize = 14 + 4 + 65_535 + 40;
/// Bytes of an Ethernet header, which each has.
pub const LEAST: usize = 14;

/// What is said with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Number of the interface.
    pub interface: u32,
    /// Frames that found no room since the last that did.
    pub lost: u32,
    /// See [`flags`].
    pub flags: u32,
}

/// What is said of a frame.
pub mod flags {
    /// It left by the interface: the others came by it.
    pub const LEFT: u32 = 1;
    /// Sums of what it carries are not complete: the device was to do that.
    pub const UNSUMMED: u32 = 2;
}

/// What is wanted: bits of the word that the Sentry says.
pub mod wanted {
    /// What comes.
    pub const COMING: u32 = 1;
    /// What leaves.
    pub const LEAVING: u32 = 2;
}

const HEAD: usize = 16;

/// The slot.
pub fn slot(w: &Window) -> Result<Slot, Broken> {
    Slot::new(w, FRAMES)
}

/// Puts a frame, in two parts, into a ring; whether it fitted.
pub fn put(ring: &mut Producer, head: Head, ethernet: &[u8], rest: &[u8]) -> Result<bool, Broken> {
    let Some(len) = ethernet.len().checked_add(rest.len()).filter(|n| (LEAST..=MOST).contains(n)) else {
        return Ok(false);
    };
    let mut raw = [0; HEAD];
    let words = [len as u32, head.interface, head.lost, head.flags];
    raw.iter_mut().zip(words.iter().flat_map(|w| w.to_le_bytes())).for_each(|(to, b)| *to = b);
    ring.put(&[&raw, ethernet, rest])
}

/// Takes the next one out; `None` where there is none.
pub fn take(ring: &mut Consumer) -> Result<Option<(Head, Vec<u8>)>, Broken> {
    let mut raw = [0; HEAD];
    match ring.peek(0, &mut raw)? {
        0 => return Ok(None),
        HEAD => {}
        _ => return Err(Broken("a frame without its head")),
    }
    let word = |at: usize| raw.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u32::from_le_bytes(*b));
    let len = word(0) as usize;
    if !(LEAST..=MOST).contains(&len) {
        return Err(Broken("a frame of a length that there is none of"));
    }
    ring.pass(HEAD as u32)?;
    let mut frame = vec![0; len];
    if ring.take(&mut frame)? < len {
        return Err(Broken("a frame that is not whole"));
    }
    Ok(Some((Head { interface: word(4), lost: word(8), flags: word(12) }, frame)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Side, WINDOW_BYTES};
    use std::sync::Arc;

    fn rings() -> (Producer, Consumer) {
        let w = Arc::new(Window::create("test", WINDOW_BYTES).unwrap());
        let slot = slot(&w).unwrap();
        (slot.rings(&w, Side::Netd).0, slot.rings(&w, Side::Sentry).1)
    }

    #[test]
    fn frames_come_out_as_they_went_in() {
        let (mut p, mut c) = rings();
        p.grow().unwrap();
        for len in [0, 1, MOST - LEAST] {
            let head = Head { interface: 7, lost: len as u32, flags: flags::LEFT };
            assert!(put(&mut p, head, &[1; LEAST], &vec![2; len]).unwrap());
            assert_eq!(take(&mut c).unwrap(), Some((head, [vec![1; LEAST], vec![2; len]].concat())));
        }
        let head = Head { interface: 7, lost: 0, flags: 0 };
        assert!(!put(&mut p, head, &[1; LEAST - 1], &[]).unwrap());
        assert!(!put(&mut p, head, &[1; LEAST], &[2; MOST]).unwrap());
        assert_eq!(take(&mut c).unwrap(), None);
    }

    #[test]
    fn what_is_broken_is_told() {
        for broken in [
            vec![0; HEAD - 1],
            vec![0; HEAD],
            [&[13, 0, 0, 0][..], &[0; 40]].concat(),
            [&[60, 0, 0, 0][..], &[0; 40]].concat(),
            vec![255; HEAD],
        ] {
            let (mut p, mut c) = rings();
            p.put(&[&broken]).unwrap();
            assert!(take(&mut c).is_err());
        }
    }
}
