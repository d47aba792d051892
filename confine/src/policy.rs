//! The embedded policies: compiled filters, and the rules they were compiled from, for audit and tests.

/// A comparison of an argument with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less (unsigned).
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
    /// Equal under a mask.
    MaskedEq,
}

/// A condition on one argument.
#[derive(Debug, Clone, Copy)]
pub struct Arg {
    /// Which argument, from 0.
    pub index: u8,
    /// The comparison.
    pub op: Op,
    /// What it is compared with.
    pub value: u64,
    /// The mask of `MaskedEq`.
    pub mask: u64,
    /// Whether all 64 bits are compared, else the low 32.
    pub qword: bool,
    /// Why.
    pub comment: &'static str,
}

impl Arg {
    /// Whether `value` passes this condition.
    pub fn allows(&self, value: u64) -> bool {
        let v = if self.qword { value } else { value & 0xffff_ffff };
        match self.op {
            Op::Eq => v == self.value,
            Op::Ne => v != self.value,
            Op::Lt => v < self.value,
            Op::Le => v <= self.value,
            Op::Gt => v > self.value,
            Op::Ge => v >= self.value,
            Op::MaskedEq => v & self.mask == self.value,
        }
    }
}

/// One allowed use of one system call.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The call's name.
    pub call: &'static str,
    /// Its number on this architecture.
    pub number: i64,
    /// Why it is allowed.
    pub comment: &'static str,
    /// Conditions that must all hold.
    pub args: &'static [Arg],
}

/// One policy: whatever no rule allows kills the process.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Its file's name without `.json`.
    pub name: &'static str,
    /// Whose it is.
    pub comment: &'static str,
    /// Its rules, as written.
    pub rules: &'static [Rule],
    /// The compiled filter.
    pub program: &'static [libc::sock_filter],
}

impl Policy {
    /// How many different system calls it allows.
    pub fn calls(&self) -> usize {
        let mut numbers: Vec<i64> = self.rules.iter().map(|r| r.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.len()
    }

    /// Whether a call with these arguments passes (the rules' meaning, independent of the compiled filter).
    pub fn allows(&self, number: i64, arguments: [u64; 6]) -> bool {
        self.rules
            .iter()
            .filter(|r| r.number == number)
            .any(|r| r.args.iter().all(|a| arguments.get(usize::from(a.index)).is_some_and(|v| a.allows(*v))))
    }
}

const fn op(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// Every policy of policies/*.json.
pub static POLICIES: &[Policy] = include!(concat!(env!("OUT_DIR"), "/policies.rs"));

/// The policy of that name.
pub fn named(name: &str) -> Option<&'static Policy> {
    POLICIES.iter().find(|p| p.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_gives_its_reason() {
        assert!(named("supervisor").is_some());
        for policy in POLICIES {
            assert!(!policy.rules.is_empty() && !policy.program.is_empty(), "{}", policy.name);
            for rule in policy.rules {
                assert!(!rule.comment.trim().is_empty() && rule.args.iter().all(|a| !a.comment.trim().is_empty()));
            }
        }
    }

    #[test]
    fn no_policy_allows_what_reaches_outside() {
        let never = ["execve", "execveat", "mount", "bpf", "io_uring_setup", "keyctl", "userfaultfd", "init_module"];
        for policy in POLICIES.iter().filter(|p| !p.name.starts_with("stub")) {
            for call in never {
                assert!(policy.rules.iter().all(|r| r.call != call), "{} allows {call}", policy.name);
            }
        }
    }
}
