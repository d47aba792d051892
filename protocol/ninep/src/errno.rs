//! Linux error numbers as 9P2000.L carries them (Rlerror).

use std::fmt;

/// An error number of Linux, positive.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub u32);

macro_rules! numbers {
    ($($name:ident = $value:literal),* $(,)?) => {
        impl Errno {
            $(#[doc = concat!("E", stringify!($name), ".")] pub const $name: Errno = Errno($value);)*
        }

        impl fmt::Debug for Errno {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {
                    $(Errno::$name => f.write_str(concat!("E", stringify!($name))),)*
                    Errno(other) => write!(f, "errno {other}"),
                }
            }
        }
    };
}

numbers! {
    PERM = 1, NOENT = 2, INTR = 4, IO = 5, NXIO = 6, BADF = 9, AGAIN = 11, NOMEM = 12, ACCES = 13, BUSY = 16,
    EXIST = 17, XDEV = 18, NODEV = 19, NOTDIR = 20, ISDIR = 21, INVAL = 22, NFILE = 23, MFILE = 24, NOTTY = 25,
    FBIG = 27, NOSPC = 28, SPIPE = 29, ROFS = 30, MLINK = 31, PIPE = 32, RANGE = 34, NAMETOOLONG = 36, NOSYS = 38,
    NOTEMPTY = 39, LOOP = 40, NODATA = 61, PROTO = 71, OVERFLOW = 75, OPNOTSUPP = 95, STALE = 116,
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for Errno {}

impl From<rustix::io::Errno> for Errno {
    fn from(e: rustix::io::Errno) -> Self {
        Errno(e.raw_os_error().unsigned_abs())
    }
}

impl From<Errno> for rustix::io::Errno {
    fn from(e: Errno) -> Self {
        rustix::io::Errno::from_raw_os_error(i32::try_from(e.0).unwrap_or(5))
    }
}
