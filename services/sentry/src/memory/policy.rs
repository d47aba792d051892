//! Memory policies: on which nodes memory is wanted (`set_mempolicy(2)`, `mbind(2)`).
//!
//! This machine has one node, node 0, so a policy changes nothing: it is checked as with one node, kept and told. Called by the calls of
//! `syscalls/mempolicy.rs` and by `/proc/PID/numa_maps`.

use std::fmt;

use crate::errno::Errno;

/// `MPOL_*`.
#[allow(missing_docs, reason = "the ABI's names")]
pub mod mode {
    pub const DEFAULT: i32 = 0;
    pub const PREFERRED: i32 = 1;
    pub const BIND: i32 = 2;
    pub const LOCAL: i32 = 4;
    pub const PREFERRED_MANY: i32 = 5;
    pub const WEIGHTED_INTERLEAVE: i32 = 6;
}

/// `MPOL_F_NUMA_BALANCING`, `MPOL_F_RELATIVE_NODES`, `MPOL_F_STATIC_NODES`.
const BALANCING: i32 = 1 << 13;
const RELATIVE: i32 = 1 << 14;
const STATIC: i32 = 1 << 15;
const FLAGS: i32 = BALANCING | RELATIVE | STATIC;

/// The nodes that there are.
pub const NODES: u64 = 1;

/// A policy that is not the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    mode: i32,
    flags: i32,
    /// The nodes as they are told: those that were asked for, or those of them that there are.
    nodes: u64,
}

impl Policy {
    /// Mode and flags of what is asked for; EINVAL for such as there are not, or not together.
    pub fn parse(asked: i32) -> Result<(i32, i32), Errno> {
        let (mode, flags) = (asked & !FLAGS, asked & FLAGS);
        if !(mode::DEFAULT..=mode::WEIGHTED_INTERLEAVE).contains(&mode) || flags & STATIC != 0 && flags & RELATIVE != 0
        {
            return Err(Errno::EINVAL);
        }
        if flags & BALANCING != 0 && !matches!(mode, mode::BIND | mode::PREFERRED_MANY) {
            return Err(Errno::EINVAL);
        }
        Ok((mode, flags))
    }

    /// A policy of a mode with its flags, for these nodes (one a bit); `None` for the default. EINVAL as Linux's `mpol_new`.
    pub fn new((mode, flags): (i32, i32), nodes: u64) -> Result<Option<Self>, Errno> {
        let own = flags & (STATIC | RELATIVE) != 0;
        match mode {
            mode::DEFAULT if nodes != 0 => Err(Errno::EINVAL),
            mode::DEFAULT => Ok(None),
            mode::LOCAL | mode::PREFERRED if nodes == 0 && !own => {
                Ok(Some(Self { mode: mode::LOCAL, flags, nodes: 0 }))
            }
            mode::LOCAL => Err(Errno::EINVAL),
            _ if nodes == 0 => Err(Errno::EINVAL),
            // Relative nodes are counted round among those that there are.
            _ if flags & RELATIVE == 0 && nodes & NODES == 0 => Err(Errno::EINVAL),
            _ => Ok(Some(Self { mode, flags, nodes: if flags != 0 { nodes } else { nodes & NODES } })),
        }
    }

    /// The mode with its flags, as `get_mempolicy(2)` tells it.
    pub fn mode(self) -> i32 {
        self.mode | self.flags
    }

    /// The nodes, as `get_mempolicy(2)` tells them.
    pub fn nodes(self) -> u64 {
        self.nodes
    }

    /// Whether a home node may be set for it.
    pub fn has_home(self) -> bool {
        matches!(self.mode, mode::BIND | mode::PREFERRED_MANY)
    }

    /// Whether the next page's node depends on those before.
    pub fn interleaves(self) -> bool {
        matches!(self.mode, 3 | mode::WEIGHTED_INTERLEAVE)
    }
}

/// As in `/proc/PID/numa_maps`.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.mode {
            mode::PREFERRED => "prefer",
            mode::BIND => "bind",
            3 => "interleave",
            mode::LOCAL => "local",
            mode::PREFERRED_MANY => "prefer (many)",
            _ => "weighted interleave",
        })?;
        let names = [(STATIC, "static"), (RELATIVE, "relative"), (BALANCING, "balancing")];
        let names: Vec<&str> = names.iter().filter(|(flag, _)| self.flags & flag != 0).map(|(_, name)| *name).collect();
        if !names.is_empty() {
            write!(f, "={}", names.join("|"))?;
        }
        if self.mode != mode::LOCAL { write!(f, ":0") } else { Ok(()) }
    }
}
