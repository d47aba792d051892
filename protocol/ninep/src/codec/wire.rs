//! The reader of a packet and the fields that can be read from one.

/// Bytes before a message's body: size[4] type[1] tag[2].
pub const HEADER: usize = 7;

/// Why a packet is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends inside a field.
    #[error("message type {code} ends inside a field")]
    Truncated {
        /// Its type byte (0 where even that is missing).
        code: u8,
    },
    /// Bytes are left over after the last field.
    #[error("message type {code} has {left} bytes too many")]
    Trailing {
        /// Its type byte.
        code: u8,
        /// How many bytes.
        left: usize,
    },
    /// Its length word disagrees with the packet.
    #[error("a packet of {packet} bytes says it is {said} bytes long")]
    Length {
        /// What came.
        packet: usize,
        /// What it says.
        said: usize,
    },
    /// A count is above what the protocol allows.
    #[error("message type {code} counts {count} of something where {max} are allowed")]
    Count {
        /// Its type byte.
        code: u8,
        /// The count.
        count: usize,
        /// The cap.
        max: usize,
    },
    /// The type byte is of no message that may come this way.
    #[error("unknown message type {code}, tag {tag}")]
    Unknown {
        /// The type byte.
        code: u8,
        /// The tag, to answer to.
        tag: u16,
    },
}

/// A cursor over a packet that someone else wrote.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    code: u8,
}

impl<'a> Reader<'a> {
    /// Checks the header of `packet` and gives type, tag and a reader of the body.
    pub fn message(packet: &'a [u8]) -> Result<(u8, u16, Self), DecodeError> {
        let mut r = Reader { rest: packet, code: 0 };
        let said = r.u32()? as usize;
        if said != packet.len() {
            return Err(DecodeError::Length { packet: packet.len(), said });
        }
        r.code = r.u8()?;
        let tag = r.u16()?;
        Ok((r.code, tag, r))
    }

    /// A reader of bytes that are part of a message of type `code`.
    pub fn part(bytes: &'a [u8], code: u8) -> Self {
        Reader { rest: bytes, code }
    }

    /// Bytes not read yet.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated { code: self.code })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated { code: self.code })?;
        self.rest = rest;
        Ok(*taken)
    }

    /// A byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// A 16-bit word.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// A 32-bit word.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A 64-bit word.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A count of things, at most `max`.
    pub fn count(&mut self, max: usize) -> Result<usize, DecodeError> {
        let count = usize::from(self.u16()?);
        if count > max { Err(DecodeError::Count { code: self.code, count, max }) } else { Ok(count) }
    }

    /// That nothing is left.
    pub fn end(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing { code: self.code, left }),
        }
    }
}

/// Starts a message in `to` (cleared): [`finish`] writes its length.
pub fn begin(to: &mut Vec<u8>, code: u8, tag: u16) {
    to.clear();
    to.extend_from_slice(&[0; 4]);
    to.push(code);
    to.extend_from_slice(&tag.to_le_bytes());
}

/// Writes the length word of the message that fills `of`.
pub fn finish(of: &mut [u8]) {
    let len = u32::try_from(of.len()).unwrap_or(u32::MAX);
    if let Some(word) = of.first_chunk_mut::<4>() {
        *word = len.to_le_bytes();
    }
}

/// A part of a message's body.
pub trait Field<'a>: Sized {
    /// Reads it.
    fn get(r: &mut Reader<'a>) -> Result<Self, DecodeError>;
    /// Writes it.
    fn put(&self, w: &mut Vec<u8>);
}

macro_rules! words {
    ($($ty:ident),*) => {$(
        impl Field<'_> for $ty {
            fn get(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                r.$ty()
            }
            fn put(&self, w: &mut Vec<u8>) {
                w.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

words!(u8, u16, u32, u64);

/// A 9P string: 16-bit length and bytes. Longer values are cut by the writer's own checks, never here by surprise:
/// everything we send is checked against [`super::MAX_NAME`], [`super::MAX_TARGET`] first.
impl<'a> Field<'a> for &'a [u8] {
    fn get(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let len = usize::from(r.u16()?);
        r.take(len)
    }
    fn put(&self, w: &mut Vec<u8>) {
        let len = u16::try_from(self.len()).unwrap_or(u16::MAX);
        w.extend_from_slice(&len.to_le_bytes());
        w.extend_from_slice(self.get(..usize::from(len)).unwrap_or_default());
    }
}

/// Bytes of a file: 32-bit length and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data<'a>(pub &'a [u8]);

impl<'a> Field<'a> for Data<'a> {
    fn get(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let len = r.u32()? as usize;
        Ok(Data(r.take(len)?))
    }
    fn put(&self, w: &mut Vec<u8>) {
        let len = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        w.extend_from_slice(&len.to_le_bytes());
        w.extend_from_slice(self.0);
    }
}

/// Tfsync's second field, which some clients leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataSync(pub u32);

impl Field<'_> for DataSync {
    fn get(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if r.left() == 0 { Ok(DataSync(0)) } else { Ok(DataSync(r.u32()?)) }
    }
    fn put(&self, w: &mut Vec<u8>) {
        self.0.put(w);
    }
}
