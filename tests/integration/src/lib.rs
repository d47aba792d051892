//! What the integration tests share: the attempts that the hostile program makes, a scratch installation, runs that are
//! compared, and Debian's packages.

pub mod attempt;
pub mod compare;
pub mod debian;
pub mod install;
