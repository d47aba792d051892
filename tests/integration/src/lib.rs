//! What the integration tests share: the attempts that the hostile program makes, a scratch installation, commands to it, runs that are
//! compared, Debian's packages, a network, a systemd, and an emulated machine.

pub mod asked;
pub mod attempt;
pub mod chance;
pub mod compare;
pub mod debian;
pub mod install;
pub mod network;
pub mod shell;
pub mod systemd;
pub mod vm;
pub mod walls;
