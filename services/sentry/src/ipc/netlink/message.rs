//! The form of netlink messages: headers, attributes, acknowledgements. Everything read here is the container's.

use crate::errno::Errno;

/// Bytes of `struct nlmsghdr`.
pub const HEADER: usize = 16;
/// Kinds below this are the protocol's own control messages (`NLMSG_MIN_TYPE`).
pub const FIRST: u16 = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NLM_F_REQUEST`.
pub const REQUEST: u16 = 1;
/// `NLM_F_MULTI`.
pub const MULTI: u16 = 2;
/// `NLM_F_ACK`.
pub const ACK: u16 = 4;
/// `NLM_F_ROOT | NLM_F_MATCH`.
pub const DUMP: u16 = 0x300;
/// `NLM_F_REPLACE`.
pub const REPLACE: u16 = 0x100;
/// `NLM_F_EXCL`.
pub const EXCL: u16 = 0x200;
/// `NLM_F_CREATE`.
pub const CREATE: u16 = 0x400;
/// `NLM_F_CAPPED`: an acknowledgement without the request's content.
const CAPPED: u16 = 0x100;

fn half(b: &[u8], at: usize) -> u16 {
    b.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_ne_bytes)
}

/// The word at a place, 0 where there is none.
pub fn word(b: &[u8], at: usize) -> u32 {
    b.get(at..at.saturating_add(4)).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// A request.
pub struct Request<'a> {
    /// Its kind (`nlmsg_type`).
    pub kind: u16,
    /// `NLM_F_*`.
    pub flags: u16,
    /// Its number.
    pub sequence: u32,
    /// All of it.
    whole: &'a [u8],
}

impl<'a> Request<'a> {
    /// What follows the header.
    pub fn payload(&self) -> &'a [u8] {
        self.whole.get(HEADER..).unwrap_or_default()
    }

    /// The protocol's own header of so many bytes, and the attributes behind it. EINVAL.
    pub fn split(&self, header: usize) -> Result<(&'a [u8], Attributes<'a>), Errno> {
        let payload = self.payload();
        let own = payload.get(..header).ok_or(Errno::EINVAL)?;
        Ok((own, Attributes(payload.get(header.next_multiple_of(4)..).unwrap_or_default())))
    }
}

/// The requests in a datagram, up to the first that is broken.
pub fn requests(mut data: &[u8]) -> impl Iterator<Item = Request<'_>> {
    std::iter::from_fn(move || {
        let len = word(data, 0) as usize;
        let whole = data.get(..len).filter(|_| len >= HEADER)?;
        data = data.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Request { kind: half(whole, 4), flags: half(whole, 6), sequence: word(whole, 8), whole })
    })
}

/// Attributes (`struct rtattr`).
#[derive(Clone, Copy)]
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        const KIND: u16 = 0x3fff;
        let len = usize::from(half(self.0, 0));
        let data = self.0.get(4..len)?;
        let kind = half(self.0, 2) & KIND;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, data))
    }
}

impl<'a> Attributes<'a> {
    /// The last of a kind.
    pub fn of(self, kind: u16) -> Option<&'a [u8]> {
        self.filter(|(k, _)| *k == kind).last().map(|(_, data)| data)
    }

    /// A name, up to its NUL.
    pub fn name(self, kind: u16) -> Option<&'a [u8]> {
        self.of(kind).map(|n| n.split(|b| *b == 0).next().unwrap_or_default())
    }
}

/// A message that is being put together.
pub struct Builder(Vec<u8>);

impl Builder {
    /// Begins one: kind, flags, number of the request, port of who asked.
    pub fn new(kind: u16, flags: u16, sequence: u32, port: u32) -> Self {
        let mut b = vec![0; 4];
        b.extend_from_slice(&kind.to_ne_bytes());
        b.extend_from_slice(&flags.to_ne_bytes());
        b.extend_from_slice(&sequence.to_ne_bytes());
        b.extend_from_slice(&port.to_ne_bytes());
        Self(b)
    }

    /// Adds bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds an attribute.
    pub fn attribute(mut self, kind: u16, data: &[u8]) -> Self {
        let len = u16::try_from(4 + data.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.raw(data)
    }

    /// Adds an attribute that is one word.
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// The message.
    pub fn end(mut self) -> Vec<u8> {
        let len = u32::try_from(self.0.len()).unwrap_or(u32::MAX).to_ne_bytes();
        if let Some(to) = self.0.get_mut(..4) {
            to.copy_from_slice(&len);
        }
        self.0
    }
}

/// The end of a list (`NLMSG_DONE`), which may be what is wrong with it.
pub fn done(request: &Request<'_>, port: u32, error: Option<Errno>) -> Vec<u8> {
    let code = error.map_or(0, |e| -e.code());
    Builder::new(DONE, MULTI, request.sequence, port).raw(&code.to_ne_bytes()).end()
}

/// What a request came to (`NLMSG_ERROR`). `short`: with the request's header only, in any case.
pub fn acknowledge(request: &Request<'_>, port: u32, error: Option<Errno>, short: bool) -> Vec<u8> {
    let short = short || error.is_none();
    let code = error.map_or(0, |e| -e.code());
    let content = if short { request.whole.get(..HEADER).unwrap_or_default() } else { request.whole };
    let flags = if short { CAPPED } else { 0 };
    Builder::new(ERROR, flags, request.sequence, port).raw(&code.to_ne_bytes()).raw(content).end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_messages_end_the_datagram() {
        let one = Builder::new(18, REQUEST, 7, 0).raw(&[1, 2, 3, 4]).attribute(3, b"lo\0").end();
        let mut all = one.clone();
        all.extend_from_slice(&one);
        assert_eq!(requests(&all).count(), 2);
        for len in [0u32, 15, 1000, u32::MAX] {
            let mut broken = all.clone();
            broken[one.len()..one.len() + 4].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(requests(&broken).count(), 1, "{len}");
        }
        let r = requests(&all).next().unwrap();
        let (own, attributes) = r.split(4).unwrap();
        assert_eq!((own, attributes.name(3)), (&[1, 2, 3, 4][..], Some(&b"lo"[..])));
        assert!(r.split(100).is_err());
        for len in [0u16, 3, 200] {
            let mut b = vec![0; 8];
            b[..2].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(Attributes(&b).count(), 0, "{len}");
        }
    }
}
