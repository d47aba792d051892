//! Memory: address spaces, and the objects that can be mapped into them.

pub mod kept;
pub mod object;
pub mod policy;
pub mod resident;
pub mod shared;
pub mod sharers;
pub mod sites;
pub mod space;
pub mod store;
pub mod vma;

pub use space::AddressSpace;
