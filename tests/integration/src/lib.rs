//! What the integration tests share: the attempts that the hostile program makes, and a scratch installation.

pub mod attempt;
pub mod install;
