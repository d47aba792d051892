//! Entries of a directory, packed into the data of Rreaddir and Rreaddirattr.

use super::types::{Attr, Qid};
use super::wire::{DecodeError, Field, Reader};

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// Identity (its `path` is not known without attributes where the entry is a mount point).
    pub qid: Qid,
    /// Where reading goes on after this entry.
    pub offset: u64,
    /// DT_*.
    pub kind: u8,
    /// Its name.
    pub name: &'a [u8],
    /// Its attributes, in Rreaddirattr; none where it vanished meanwhile or they could not be read.
    pub attr: Option<Attr>,
}

/// Packs entries up to a budget of bytes.
#[derive(Debug)]
pub struct DirWriter<'a> {
    to: &'a mut Vec<u8>,
    end: usize,
    with_attr: bool,
}

const ATTR_BYTES: usize = 153;

impl<'a> DirWriter<'a> {
    /// Appends to `to`, at most `budget` bytes.
    pub fn new(to: &'a mut Vec<u8>, budget: usize, with_attr: bool) -> Self {
        let end = to.len().saturating_add(budget);
        Self { to, end, with_attr }
    }

    /// Whether entries carry attributes.
    pub fn with_attr(&self) -> bool {
        self.with_attr
    }

    /// Whether an entry of this name has room.
    pub fn fits(&self, name: &[u8]) -> bool {
        let attr = if self.with_attr { 1 + ATTR_BYTES } else { 0 };
        let need = 13 + 8 + 1 + 2 + name.len() + attr;
        self.to.len().checked_add(need).is_some_and(|end| end <= self.end)
    }

    /// Appends an entry; false (and nothing appended) where it does not fit.
    pub fn push(&mut self, entry: &DirEntry<'_>) -> bool {
        if !self.fits(entry.name) {
            return false;
        }
        entry.qid.put(self.to);
        entry.offset.put(self.to);
        entry.kind.put(self.to);
        entry.name.put(self.to);
        if self.with_attr {
            match &entry.attr {
                None => 0u8.put(self.to),
                Some(attr) => {
                    1u8.put(self.to);
                    attr.put(self.to);
                }
            }
        }
        true
    }
}

/// Reads packed entries.
#[derive(Debug)]
pub struct DirEntries<'a> {
    reader: Reader<'a>,
    with_attr: bool,
    broken: bool,
}

impl<'a> DirEntries<'a> {
    /// Of the data of an Rreaddir, or of an Rreaddirattr.
    pub fn new(data: &'a [u8], with_attr: bool) -> Self {
        Self { reader: Reader::part(data, if with_attr { 203 } else { 41 }), with_attr, broken: false }
    }

    fn entry(&mut self) -> Result<DirEntry<'a>, DecodeError> {
        let r = &mut self.reader;
        let (qid, offset, kind, name) = (Qid::get(r)?, r.u64()?, r.u8()?, <&[u8]>::get(r)?);
        let attr = if self.with_attr && r.u8()? != 0 { Some(Attr::get(r)?) } else { None };
        Ok(DirEntry { qid, offset, kind, name, attr })
    }
}

impl<'a> Iterator for DirEntries<'a> {
    type Item = Result<DirEntry<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.broken || self.reader.left() == 0 {
            return None;
        }
        let entry = self.entry();
        self.broken = entry.is_err();
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_attributes_is_what_the_budget_assumes() {
        let mut bytes = Vec::new();
        Attr::default().put(&mut bytes);
        assert_eq!(bytes.len(), ATTR_BYTES);
    }

    #[test]
    fn entries_go_in_up_to_the_budget_and_come_out_again() {
        for with_attr in [false, true] {
            let mut bytes = vec![9, 9];
            let mut w = DirWriter::new(&mut bytes, 500, with_attr);
            let mut pushed = 0u64;
            let attr = Attr { size: 77, ..Attr::default() };
            loop {
                let attr = if pushed.is_multiple_of(2) { Some(attr) } else { None };
                let qid = Qid { path: pushed, ..Qid::default() };
                if !w.push(&DirEntry { qid, offset: pushed, kind: 4, name: b"\xff\n", attr }) {
                    break;
                }
                pushed += 1;
            }
            assert!(bytes.len() <= 502 && pushed >= 2);
            let all: Vec<_> = DirEntries::new(&bytes[2..], with_attr).collect::<Result<_, _>>().unwrap();
            assert_eq!(all.len() as u64, pushed);
            assert_eq!((all[1].name, all[1].qid.path), (&b"\xff\n"[..], 1));
            assert_eq!(all[0].attr.map(|a| a.size), with_attr.then_some(77));
            assert!(DirEntries::new(&bytes[2..bytes.len() - 1], with_attr).any(|e| e.is_err()));
        }
    }
}
