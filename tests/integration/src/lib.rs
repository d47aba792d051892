//! What the integration tests share: the attempts that the hostile program makes, a scratch installation, runs that are
//! compared, Debian's packages, and an emulated machine.

pub mod attempt;
pub mod compare;
pub mod debian;
pub mod install;
pub mod vm;
