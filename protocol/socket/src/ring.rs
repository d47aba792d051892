//! A ring of bytes between one producer and one consumer.
//!
//! Positions count bytes for ever, modulo 2^32; a place in the ring is a position modulo its size. The producer writes the tail and the size,
//! the consumer the head. The size is changed only while the ring is empty, from [`RING_LEAST`] to [`RING_MOST`]: one that is hardly used
//! touches few pages.

use std::sync::Arc;

use crate::{Broken, RING_LEAST, RING_MOST, Window};

/// Where a ring is: offsets in the window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub tail: u64,
    pub size: u64,
    pub head: u64,
    pub data: u64,
}

const OUTSIDE: Broken = Broken("a ring outside of the window");

/// The side that puts bytes in.
#[derive(Debug)]
pub struct Producer {
    window: Arc<Window>,
    at: Place,
    tail: u32,
    size: u32,
}

impl Producer {
    pub(crate) fn new(window: Arc<Window>, at: Place) -> Self {
        window.store(at.size, RING_LEAST);
        window.store(at.tail, 0);
        Self { window, at, tail: 0, size: RING_LEAST }
    }

    /// Bytes that the consumer has not taken.
    pub fn used(&self) -> Result<u32, Broken> {
        let used = self.tail.wrapping_sub(self.window.load(self.at.head));
        if used <= self.size { Ok(used) } else { Err(Broken("a ring's head is beyond its tail")) }
    }

    /// Bytes that fit now.
    pub fn room(&self) -> Result<u32, Broken> {
        Ok(self.most_room()?.saturating_sub(self.used()?))
    }

    /// Bytes that would fit into it if it were empty; one that is empty can grow.
    fn most_room(&self) -> Result<u32, Broken> {
        Ok(if self.used()? == 0 { RING_MOST } else { self.size })
    }

    /// Makes it as large as it can be, if it is empty: for one that nobody wants to wait for.
    pub fn grow(&mut self) -> Result<(), Broken> {
        if self.size < RING_MOST && self.used()? == 0 {
            self.size = RING_MOST;
            self.window.store(self.at.size, self.size);
        }
        Ok(())
    }

    /// Puts all of `parts` in, one after the other, or nothing; whether it fitted.
    pub fn put(&mut self, parts: &[&[u8]]) -> Result<bool, Broken> {
        let bytes: usize = parts.iter().map(|p| p.len()).fold(0, usize::saturating_add);
        let Ok(bytes) = u32::try_from(bytes) else { return Ok(false) };
        let used = self.used()?;
        if used == 0 && bytes > self.size && bytes <= RING_MOST {
            self.size = RING_MOST;
            self.window.store(self.at.size, self.size);
        }
        if bytes > self.size.saturating_sub(used) {
            return Ok(false);
        }
        let mut to = self.tail;
        for part in parts {
            to = self.copy(to, part)?;
        }
        self.tail = to;
        self.window.store(self.at.tail, to);
        Ok(true)
    }

    /// Puts in what fits; how many bytes it was.
    pub fn put_some(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let n = bytes.len().min(self.room()? as usize);
        let fits = bytes.get(..n).unwrap_or_default();
        Ok(if self.put(&[fits])? { n } else { 0 })
    }

    fn copy(&self, from: u32, bytes: &[u8]) -> Result<u32, Broken> {
        let place = from % self.size;
        let first = bytes.len().min((self.size - place) as usize);
        let (first, rest) = bytes.split_at_checked(first).unwrap_or((bytes, &[]));
        self.window.write(self.at.data + u64::from(place), first).map_err(|_| OUTSIDE)?;
        self.window.write(self.at.data, rest).map_err(|_| OUTSIDE)?;
        Ok(from.wrapping_add(u32::try_from(bytes.len()).unwrap_or(0)))
    }
}

/// The side that takes bytes out.
#[derive(Debug)]
pub struct Consumer {
    window: Arc<Window>,
    at: Place,
    head: u32,
}

impl Consumer {
    pub(crate) fn new(window: Arc<Window>, at: Place) -> Self {
        window.store(at.head, 0);
        Self { window, at, head: 0 }
    }

    /// Bytes that are in it.
    pub fn available(&self) -> Result<u32, Broken> {
        let n = self.window.load(self.at.tail).wrapping_sub(self.head);
        if n <= RING_MOST { Ok(n) } else { Err(Broken("a ring's tail is further than it is long")) }
    }

    fn size(&self) -> Result<u32, Broken> {
        match self.window.load(self.at.size) {
            size @ (RING_LEAST | RING_MOST) => Ok(size),
            _ => Err(Broken("a ring of a size that there is none of")),
        }
    }

    /// Copies what lies `skip` bytes further on; they stay. How many bytes it was.
    pub fn peek(&self, skip: u32, to: &mut [u8]) -> Result<usize, Broken> {
        let available = self.available()?;
        // The size is said with the first byte at the latest.
        if available == 0 {
            return Ok(0);
        }
        let size = self.size()?;
        if available > size {
            return Err(Broken("a ring has more than it is long"));
        }
        let n = to.len().min(available.saturating_sub(skip) as usize);
        let place = self.head.wrapping_add(skip) % size;
        let first = n.min((size - place) as usize);
        let (first, rest) = to.get_mut(..n).unwrap_or_default().split_at_mut_checked(first).unwrap_or_default();
        self.window.read(self.at.data + u64::from(place), first).map_err(|_| OUTSIDE)?;
        self.window.read(self.at.data, rest).map_err(|_| OUTSIDE)?;
        Ok(n)
    }

    /// Takes bytes out; how many.
    pub fn take(&mut self, to: &mut [u8]) -> Result<usize, Broken> {
        let n = self.peek(0, to)?;
        self.pass(u32::try_from(n).unwrap_or(0))?;
        Ok(n)
    }

    /// Goes on by so many bytes, which are there.
    pub fn pass(&mut self, n: u32) -> Result<(), Broken> {
        let n = n.min(self.available()?);
        self.head = self.head.wrapping_add(n);
        self.window.store(self.at.head, self.head);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::Slot;
    use crate::{Side, WINDOW_BYTES};

    fn pair() -> (Arc<Window>, Producer, Consumer) {
        let w = Arc::new(Window::create("test", WINDOW_BYTES).unwrap());
        let slot = Slot::new(&w, 7).unwrap();
        let (p, _) = slot.rings(&w, Side::Sentry);
        let (_, c) = slot.rings(&w, Side::Netd);
        (w, p, c)
    }

    #[test]
    fn what_goes_in_comes_out_however_it_is_cut() {
        let (_w, mut p, mut c) = pair();
        let (mut sent, mut got) = (0u32, 0u32);
        let mut n = 1usize;
        while got < 3_000_000 {
            n = n * 7 % 50_021;
            let data: Vec<u8> = (0..n).map(|i| (sent.wrapping_add(i as u32) % 251) as u8).collect();
            sent += p.put_some(&data).unwrap() as u32;
            let mut to = vec![0; n * 3 % 60_013];
            let m = c.take(&mut to).unwrap();
            assert!(to[..m].iter().enumerate().all(|(i, b)| *b == (got.wrapping_add(i as u32) % 251) as u8));
            got += m as u32;
        }
    }

    #[test]
    fn an_empty_one_grows_and_a_full_one_takes_no_more() {
        let (_w, mut p, mut c) = pair();
        let big = vec![1; RING_MOST as usize];
        assert!(p.put(&[b"x"]).unwrap());
        assert!(!p.put(&[&big[..RING_LEAST as usize]]).unwrap());
        assert_eq!(c.take(&mut [0; 9]).unwrap(), 1);
        assert!(p.put(&[&big[1..], b"y"]).unwrap());
        assert_eq!((p.room().unwrap(), p.put_some(b"z").unwrap()), (0, 0));
        let mut to = vec![0; RING_MOST as usize + 1];
        assert_eq!((c.take(&mut to).unwrap(), to[RING_MOST as usize - 1]), (RING_MOST as usize, b'y'));
    }

    #[test]
    fn positions_that_lie_are_told() {
        let (w, p, c) = pair();
        for bad in [1, RING_LEAST] {
            w.store(p.at.head, bad);
            assert!(p.room().is_err(), "{bad}");
        }
        w.store(p.at.tail, RING_MOST + 1);
        assert!(c.available().is_err());
        w.store(p.at.tail, RING_LEAST + 1);
        assert!(c.peek(0, &mut [0; 1]).is_err());
        w.store(p.at.tail, 5);
        for bad in [0, 1, RING_LEAST - 1, RING_MOST * 2] {
            w.store(p.at.size, bad);
            assert!(c.peek(0, &mut [0; 1]).is_err(), "{bad}");
        }
    }
}
