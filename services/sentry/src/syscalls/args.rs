//! Typed arguments: what the six registers mean. Handlers never see a raw `u64`.

use std::marker::PhantomData;
use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::errno::Errno;
use crate::task::Task;

/// Makes a typed argument from a register.
pub trait FromArg: Sized {
    /// The argument, or the errno that Linux gives for a value that cannot be one.
    fn from_arg(raw: u64) -> Result<Self, Errno>;
}

macro_rules! integer_args {
    ($($ty:ty),*) => {$(
        impl FromArg for $ty {
            // Registers are cut to the width of the C type, as the kernel's own entry wrappers do.
            #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
            fn from_arg(raw: u64) -> Result<Self, Errno> {
                Ok(raw as $ty)
            }
        }
    )*};
}
integer_args!(u8, u16, u32, u64, i32, i64, usize);

/// A file descriptor number as the container gave it; may be negative or not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fd(pub i32);

/// `AT_FDCWD`: relative to the working directory.
pub const AT_FDCWD: Fd = Fd(-100);

impl FromArg for Fd {
    fn from_arg(raw: u64) -> Result<Self, Errno> {
        i32::from_arg(raw).map(Fd)
    }
}

/// The address of a `T` (or of several) in the container's memory. Not checked until used; only ever copied.
pub struct UserPtr<T> {
    address: u64,
    marker: PhantomData<fn() -> T>,
}

impl<T> Clone for UserPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for UserPtr<T> {}

impl<T> std::fmt::Debug for UserPtr<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.address)
    }
}

impl<T> FromArg for UserPtr<T> {
    fn from_arg(raw: u64) -> Result<Self, Errno> {
        Ok(Self::new(raw))
    }
}

impl<T> UserPtr<T> {
    /// A pointer to `address`.
    pub const fn new(address: u64) -> Self {
        Self { address, marker: PhantomData }
    }

    /// Whether it is NULL.
    pub const fn is_null(self) -> bool {
        self.address == 0
    }

    /// The address.
    pub const fn address(self) -> u64 {
        self.address
    }

    /// The same address seen as another type.
    pub const fn cast<U>(self) -> UserPtr<U> {
        UserPtr::new(self.address)
    }

    /// The address `bytes` further on; EFAULT on overflow.
    pub fn offset(self, bytes: u64) -> Result<Self, Errno> {
        self.address.checked_add(bytes).map(Self::new).ok_or(Errno::EFAULT)
    }
}

impl<T: FromBytes + IntoBytes + Immutable> UserPtr<T> {
    /// Copies the value in.
    pub fn read(self, task: &Arc<Task>) -> Result<T, Errno> {
        let mut value = T::new_zeroed();
        task.read_exact(self.address, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies the value out.
    pub fn write(self, task: &Arc<Task>, value: &T) -> Result<(), Errno> {
        task.write_exact(self.address, value.as_bytes())
    }

    /// Copies the value out unless the pointer is NULL.
    pub fn write_if(self, task: &Arc<Task>, value: &T) -> Result<(), Errno> {
        if self.is_null() { Ok(()) } else { self.write(task, value) }
    }

    /// Copies a structure in that may grow in later kernels (`copy_struct_from_user`), of which the caller knows `size` bytes: EINVAL if
    /// that is less than there ever was, E2BIG if it is more than a page, or if what is not known here is not zero.
    pub fn read_sized(self, task: &Arc<Task>, size: usize) -> Result<T, Errno> {
        self.read_grown(task, size, size_of::<T>())
    }

    /// As [`read_sized`](Self::read_sized), for one that had only `least` bytes at first: what the caller does not know is 0.
    pub fn read_grown(self, task: &Arc<Task>, size: usize, least: usize) -> Result<T, Errno> {
        if size < least {
            return Err(Errno::EINVAL);
        }
        if size > 4096 {
            return Err(Errno::E2BIG);
        }
        let known = size.min(size_of::<T>());
        let rest = self.cast::<u8>().offset(known as u64)?.read_array(task, size - known, 4096)?;
        if rest.iter().any(|b| *b != 0) {
            return Err(Errno::E2BIG);
        }
        let mut value = T::new_zeroed();
        task.read_exact(self.address, value.as_mut_bytes().get_mut(..known).unwrap_or_default())?;
        Ok(value)
    }

    /// Copies `count` values in; EINVAL above `max`.
    pub fn read_array(self, task: &Arc<Task>, count: usize, max: usize) -> Result<Vec<T>, Errno> {
        if count > max {
            return Err(Errno::EINVAL);
        }
        let mut values = T::new_vec_zeroed(count).map_err(|_| Errno::ENOMEM)?;
        task.read_exact(self.address, values.as_mut_slice().as_mut_bytes())?;
        Ok(values)
    }

    /// Copies values out, one after the other.
    pub fn write_array(self, task: &Arc<Task>, values: &[T]) -> Result<(), Errno> {
        task.write_exact(self.address, values.as_bytes())
    }
}

/// The address of a NUL-terminated string in the container's memory.
#[derive(Clone, Copy, Debug)]
pub struct UserStr(pub u64);

impl FromArg for UserStr {
    fn from_arg(raw: u64) -> Result<Self, Errno> {
        Ok(Self(raw))
    }
}

/// `PATH_MAX`: bytes of a path with its NUL.
pub const PATH_MAX: usize = 4096;

impl UserStr {
    /// Copies a path in, without its NUL. ENAMETOOLONG if it has no NUL in its first `PATH_MAX` bytes. May be empty.
    pub fn read_path(self, task: &Arc<Task>) -> Result<Vec<u8>, Errno> {
        task.read_cstr(self.0, PATH_MAX, Errno::ENAMETOOLONG)
    }

    /// Copies a string of at most `max` bytes with its NUL in, without it; `too_long` if there is no NUL.
    pub fn read(self, task: &Arc<Task>, max: usize, too_long: Errno) -> Result<Vec<u8>, Errno> {
        task.read_cstr(self.0, max, too_long)
    }

    /// Whether it is NULL.
    pub fn is_null(self) -> bool {
        self.0 == 0
    }
}
