//! A ring of bytes.
//!
//! Owns what waits to be acknowledged, or to be read, of one connection. What comes out of order is written behind the end and counts once what
//! was missing has come. Must never write outside of its capacity. Called by `live`.

pub(crate) struct Ring {
    bytes: Box<[u8]>,
    begin: usize,
    length: usize,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} bytes", self.length, self.bytes.len())
    }
}

impl Ring {
    pub(crate) fn new(capacity: usize) -> Self {
        Ring { bytes: vec![0; capacity].into_boxed_slice(), begin: 0, length: 0 }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn room(&self) -> usize {
        self.capacity().saturating_sub(self.length)
    }

    /// Where the byte is that is `offset` behind the first.
    fn place(&self, offset: usize) -> usize {
        let at = self.begin.saturating_add(offset);
        if at >= self.capacity() { at.saturating_sub(self.capacity()) } else { at }
    }

    /// The bytes that lie `offset` behind the first, in their two parts. Fewer where the ring ends.
    fn parts(&self, offset: usize, length: usize) -> (&[u8], &[u8]) {
        let length = length.min(self.capacity().saturating_sub(offset));
        let at = self.place(offset);
        let first = length.min(self.capacity().saturating_sub(at));
        let second = length.saturating_sub(first);
        let one = self.bytes.get(at..at.saturating_add(first)).unwrap_or_default();
        (one, self.bytes.get(..second).unwrap_or_default())
    }

    /// Has some of the free place filled, in one piece; answers how much.
    pub(crate) fn put(&mut self, f: impl FnOnce(&mut [u8]) -> usize) -> usize {
        if self.length == 0 {
            self.begin = 0;
        }
        let at = self.place(self.length);
        let end = at.saturating_add(self.room()).min(self.capacity());
        let Some(free) = self.bytes.get_mut(at..end) else { return 0 };
        if free.is_empty() {
            return 0;
        }
        let put = f(free).min(free.len());
        self.length = self.length.saturating_add(put);
        put
    }

    /// Shows the first bytes, in one piece; takes as many away as the answer says.
    pub(crate) fn take(&mut self, f: impl FnOnce(&[u8]) -> usize) -> usize {
        let (first, _) = self.parts(0, self.length);
        if first.is_empty() {
            return 0;
        }
        let taken = f(first).min(first.len());
        self.drop_first(taken);
        taken
    }

    pub(crate) fn drop_first(&mut self, bytes: usize) {
        let bytes = bytes.min(self.length);
        self.begin = self.place(bytes);
        self.length = self.length.saturating_sub(bytes);
    }

    /// Appends to `to` what lies `offset` behind the first.
    pub(crate) fn copy(&self, offset: usize, length: usize, to: &mut Vec<u8>) {
        let (one, two) = self.parts(offset, length.min(self.length.saturating_sub(offset)));
        to.extend_from_slice(one);
        to.extend_from_slice(two);
    }

    /// Writes `bytes` so that they lie `gap` behind the end, if they fit there.
    pub(crate) fn write(&mut self, gap: usize, bytes: &[u8]) -> bool {
        if gap.saturating_add(bytes.len()) > self.room() {
            return false;
        }
        let at = self.place(self.length.saturating_add(gap));
        let first = bytes.len().min(self.capacity().saturating_sub(at));
        let Some((one, two)) = bytes.split_at_checked(first) else { return false };
        if let Some(place) = self.bytes.get_mut(at..at.saturating_add(first)) {
            place.copy_from_slice(one);
        }
        if let Some(place) = self.bytes.get_mut(..two.len()) {
            place.copy_from_slice(two);
        }
        true
    }

    /// So many bytes behind the end were written before: they count now.
    pub(crate) fn extend(&mut self, bytes: usize) {
        self.length = self.length.saturating_add(bytes).min(self.capacity());
    }

    /// Nothing is in it, nor behind its end: it begins where the processor's caches have been.
    pub(crate) fn rewind(&mut self) {
        if self.length == 0 {
            self.begin = 0;
        }
    }

    /// The same with more place, what lies behind the end included.
    pub(crate) fn grow(&mut self, capacity: usize) {
        if capacity <= self.capacity() {
            return;
        }
        let mut bytes = Vec::with_capacity(capacity);
        let (one, two) = self.parts(0, self.capacity());
        bytes.extend_from_slice(one);
        bytes.extend_from_slice(two);
        bytes.resize(capacity, 0);
        (self.bytes, self.begin) = (bytes.into_boxed_slice(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let mut ring = Ring::new(10);
        let (mut next, mut wanted) = (0u8, 0u8);
        for turn in 0..1000usize {
            ring.put(|room| {
                let n = room.len().min(turn % 7);
                room[..n].iter_mut().for_each(|b| {
                    *b = next;
                    next = next.wrapping_add(1);
                });
                n
            });
            let mut copy = Vec::new();
            ring.copy(1, 5, &mut copy);
            assert_eq!(copy.len(), ring.len().saturating_sub(1).min(5));
            assert!(copy.iter().zip(1..).all(|(b, n)| *b == wanted.wrapping_add(n)));
            ring.take(|bytes| {
                let n = bytes.len().min(turn % 5);
                assert!(bytes[..n].iter().zip(0..).all(|(b, n)| *b == wanted.wrapping_add(n)));
                wanted = wanted.wrapping_add(n as u8);
                n
            });
        }
    }

    #[test]
    fn what_lies_behind_the_end_moves_along() {
        let mut ring = Ring::new(8);
        ring.put(|room| {
            room[..6].fill(1);
            6
        });
        ring.drop_first(5);
        assert!(!ring.write(3, &[4; 5]) && ring.write(3, &[4, 5, 6, 7]));
        ring.grow(20);
        assert!(ring.write(0, &[1, 2, 3]));
        ring.extend(7);
        let mut all = Vec::new();
        ring.copy(0, 100, &mut all);
        assert_eq!(all, [1, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(ring.take(|b| b.len() + 100), 8);
    }
}
