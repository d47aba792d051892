//! What the interfaces of a network have counted: written by netd now and then, and shown by the Sentry. Nothing follows from it.

use crate::{TRAFFIC_AT, Window};

/// Interfaces that there is room for.
pub const INTERFACES: usize = 64;
const BYTES: usize = 64;

/// Of one interface, since it was taken over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Traffic {
    pub received_packets: u64,
    pub received_bytes: u64,
    pub received_lost: u64,
    pub sent_packets: u64,
    pub sent_bytes: u64,
    pub sent_lost: u64,
}

fn place(interface: usize) -> Option<u64> {
    (interface < INTERFACES).then(|| TRAFFIC_AT + (interface * BYTES) as u64)
}

/// Writes what the interface at a place in the network's list has counted.
pub fn put(w: &Window, interface: usize, t: &Traffic) {
    let Some(at) = place(interface) else { return };
    let all = [t.received_packets, t.received_bytes, t.received_lost, t.sent_packets, t.sent_bytes, t.sent_lost];
    let raw: Vec<u8> = all.iter().flat_map(|n| n.to_le_bytes()).collect();
    // It lies in the window by construction.
    let _ = w.write(at, &raw);
}

/// Reads it.
pub fn get(w: &Window, interface: usize) -> Traffic {
    let mut raw = [0; 48];
    let Some(at) = place(interface) else { return Traffic::default() };
    if w.read(at, &mut raw).is_err() {
        return Traffic::default();
    }
    let (words, _) = raw.as_chunks::<8>();
    let of = |n: usize| words.get(n).map_or(0, |b| u64::from_le_bytes(*b));
    Traffic {
        received_packets: of(0),
        received_bytes: of(1),
        received_lost: of(2),
        sent_packets: of(3),
        sent_bytes: of(4),
        sent_lost: of(5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_got() {
        let w = Window::create("test", crate::WINDOW_BYTES).unwrap();
        let t = Traffic { received_packets: 1, received_bytes: 1 << 40, sent_lost: 6, ..Traffic::default() };
        put(&w, INTERFACES - 1, &t);
        put(&w, INTERFACES, &t);
        assert_eq!(
            (get(&w, INTERFACES - 1), get(&w, 0), get(&w, INTERFACES)),
            (t, Traffic::default(), Traffic::default())
        );
    }
}
