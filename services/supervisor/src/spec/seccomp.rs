//! `linux.seccomp` as a program of classic BPF, that says of each call what the profile says.
//!
//! As with libseccomp: a rule without conditions goes before those with, the first of several counts, names that there are not are
//! passed over, another architecture's calls end the thread. As with runc: two conditions on one argument are two rules, and calls
//! newer than all that the profile knows are ENOSYS, so that programs find their way. Numbers with one answer lie in ranges, to
//! keep the program short; the Sentry keeps in mind which numbers are always allowed.

use std::collections::BTreeMap;

use cofferdam_control::calls;
use cofferdam_control::sentry::Seccomp;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
};

use super::Refused;

/// `AUDIT_ARCH_*`.
const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
/// The bit of x32's numbers.
const X32: u32 = 1 << 30;

const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;
const TRACE: u32 = 0x7ff0_0000;
const ERRNO: u32 = 0x0005_0000;
const TRAP: u32 = 0x0003_0000;
const KILL_THREAD: u32 = 0;
const KILL_PROCESS: u32 = 0x8000_0000;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// `BPF_MAXINSNS`.
const LONGEST: usize = 4096;

const LD: u16 = 0x20;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const AND: u16 = 0x54;
const RET: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const AT_NUMBER: u32 = 0;
const AT_ARCH: u32 = 4;
const AT_ARGS: u32 = 16;

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    use LinuxSeccompAction as A;
    let data = errno.unwrap_or(EPERM) & 0xffff;
    match action {
        A::ScmpActAllow => ALLOW,
        A::ScmpActLog => LOG,
        A::ScmpActTrace => TRACE | data,
        A::ScmpActErrno => ERRNO | data,
        A::ScmpActTrap => TRAP,
        A::ScmpActKill | A::ScmpActKillThread => KILL_THREAD,
        // Notify is refused before.
        A::ScmpActKillProcess | A::ScmpActNotify => KILL_PROCESS,
    }
}

/// Conditions that must all hold, and what is done then.
type Rule = (Vec<LinuxSeccompArg>, u32);

#[derive(Default)]
struct Rules {
    always: Option<u32>,
    under: Vec<Rule>,
}

/// Where a jump goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    /// On.
    Next,
    /// To where the condition is known to hold.
    Pass,
    /// To where the rule is known not to.
    Fail,
}

/// A program whose conditional jumps are known once the rule they are in is.
#[derive(Default)]
struct Program {
    done: Vec<(u16, u8, u8, u32)>,
    /// Of the rule that is being written: the place in `done`, and where it goes if true and if not.
    open: Vec<(usize, To, To)>,
}

impl Program {
    fn put(&mut self, code: u16, k: u32) {
        self.done.push((code, 0, 0, k));
    }

    fn jump(&mut self, code: u16, k: u32, yes: u8, no: u8) {
        self.done.push((code, yes, no, k));
    }

    fn test(&mut self, code: u16, k: u32, yes: To, no: To) {
        self.open.push((self.done.len(), yes, no));
        self.put(code, k);
    }

    /// Jumps to `which` go to the next instruction.
    fn land(&mut self, which: To) {
        let here = self.done.len();
        for (at, yes, no) in &mut self.open {
            let distance = u8::try_from(here - *at - 1).unwrap_or(u8::MAX);
            if let Some(i) = self.done.get_mut(*at) {
                if *yes == which {
                    (i.1, *yes) = (distance, To::Next);
                }
                if *no == which {
                    (i.2, *no) = (distance, To::Next);
                }
            }
        }
        self.open.retain(|(_, yes, no)| *yes != To::Next || *no != To::Next);
    }

    fn condition(&mut self, arg: &LinuxSeccompArg) {
        use LinuxSeccompOperator as Op;
        let low = AT_ARGS + 8 * u32::try_from(arg.index()).unwrap_or(0);
        let halves = |n: u64| ((n >> 32) as u32, n as u32);
        let (high_value, low_value) = halves(arg.value());
        self.put(LD, low + 4);
        match arg.op() {
            Op::ScmpCmpEq => {
                self.test(JEQ, high_value, To::Next, To::Fail);
                self.put(LD, low);
                self.test(JEQ, low_value, To::Next, To::Fail);
            }
            Op::ScmpCmpNe => {
                self.test(JEQ, high_value, To::Next, To::Pass);
                self.put(LD, low);
                self.test(JEQ, low_value, To::Fail, To::Next);
            }
            Op::ScmpCmpGt | Op::ScmpCmpGe => {
                self.test(JGT, high_value, To::Pass, To::Next);
                self.test(JEQ, high_value, To::Next, To::Fail);
                self.put(LD, low);
                let code = if arg.op() == Op::ScmpCmpGt { JGT } else { JGE };
                self.test(code, low_value, To::Next, To::Fail);
            }
            Op::ScmpCmpLt | Op::ScmpCmpLe => {
                self.test(JGT, high_value, To::Fail, To::Next);
                self.test(JEQ, high_value, To::Next, To::Pass);
                self.put(LD, low);
                let code = if arg.op() == Op::ScmpCmpLt { JGE } else { JGT };
                self.test(code, low_value, To::Fail, To::Next);
            }
            Op::ScmpCmpMaskedEq => {
                let (high_datum, low_datum) = halves(arg.value_two().unwrap_or(0) & arg.value());
                self.put(AND, high_value);
                self.test(JEQ, high_datum, To::Next, To::Fail);
                self.put(LD, low);
                self.put(AND, low_value);
                self.test(JEQ, low_datum, To::Next, To::Fail);
            }
        }
        self.land(To::Pass);
    }
}

/// The filter of a profile.
pub fn compile(profile: &LinuxSeccomp) -> Result<Seccomp, Refused> {
    let invalid = |what: &str| Refused::invalid(format!("linux.seccomp: {what}"));
    if profile.listener_path().as_ref().is_some_and(|p| !p.as_os_str().is_empty()) {
        return Err(invalid("listenerPath is not supported: the listener would be a process of the host"));
    }
    let default = action(profile.default_action(), profile.default_errno_ret());
    let mut rules: BTreeMap<u32, Rules> = BTreeMap::new();
    let mut last = None;
    for entry in profile.syscalls().as_deref().unwrap_or_default() {
        let act = action(entry.action(), entry.errno_ret());
        let args = entry.args().as_deref().unwrap_or_default();
        if args.iter().any(|a| a.index() > 5) {
            return Err(invalid("syscalls only have up to 6 arguments"));
        }
        for name in entry.names() {
            if name.is_empty() {
                return Err(invalid("empty string is not a valid syscall"));
            }
            let Some(number) = calls::NAMES.iter().position(|n| n == name).and_then(|n| u32::try_from(n).ok()) else {
                continue;
            };
            last = last.max(Some(number));
            if act == default {
                continue;
            }
            let rules = rules.entry(number).or_default();
            let twice = args.iter().enumerate().any(|(n, a)| args.iter().skip(n + 1).any(|b| a.index() == b.index()));
            match args {
                [] => {
                    rules.always.get_or_insert(act);
                }
                args if twice => rules.under.extend(args.iter().map(|a| (vec![*a], act))),
                args => rules.under.push((args.to_vec(), act)),
            }
        }
    }
    let archs = profile.architectures().as_deref().unwrap_or_default();
    let mut p = Program::default();
    p.put(LD, AT_ARCH);
    p.jump(JEQ, X86_64, if archs.contains(&Arch::ScmpArchX86) { 3 } else { 1 }, 0);
    if archs.contains(&Arch::ScmpArchX86) {
        // No call of such a program is ever answered: no rule can say more of it.
        p.jump(JEQ, I386, 0, 1);
        p.put(RET, default);
    }
    p.put(RET, KILL_THREAD);
    p.put(LD, AT_NUMBER);
    if archs.contains(&Arch::ScmpArchX32) {
        p.put(AND, !X32);
    } else {
        p.jump(JGE, X32, 0, 1);
        p.put(RET, KILL_THREAD);
    }
    let permissive = matches!(default & 0xffff_0000, ALLOW | LOG | TRACE);
    if let Some(last) = last.filter(|_| !permissive && !archs.is_empty()) {
        p.jump(JGT, last, 0, 1);
        p.put(RET, ERRNO | ENOSYS);
    }
    for (number, rules) in rules.iter().filter(|(_, r)| r.always.is_none()) {
        p.jump(JEQ, *number, 1, 0);
        let over = p.done.len();
        p.put(JA, 0);
        for (args, act) in &rules.under {
            args.iter().for_each(|a| p.condition(a));
            p.put(RET, *act);
            p.land(To::Fail);
        }
        p.put(RET, default);
        let distance = u32::try_from(p.done.len() - over - 1).unwrap_or(0);
        if let Some(i) = p.done.get_mut(over) {
            i.3 = distance;
        }
    }
    let mut ranges: Vec<(u32, u32, u32)> = Vec::new();
    for (number, act) in rules.iter().filter_map(|(n, r)| Some((*n, r.always?))) {
        match ranges.last_mut() {
            Some((_, end, what)) if *what == act && *end + 1 == number => *end = number,
            _ => ranges.push((number, number, act)),
        }
    }
    for (first, end, act) in ranges {
        p.jump(JGE, first, 0, 2);
        p.jump(JGT, end, 1, 0);
        p.put(RET, act);
    }
    p.put(RET, default);
    if p.done.len() > LONGEST {
        return Err(invalid("the profile is too long for a filter"));
    }
    let log = profile.flags().iter().flatten().any(|f| *f == LinuxSeccompFilterFlag::SeccompFilterFlagLog);
    Ok(Seccomp { program: p.done, log })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program, as a kernel would.
    fn run(program: &[(u16, u8, u8, u32)], arch: u32, number: u32, args: [u64; 6]) -> u32 {
        let load = |at: u32| match at {
            AT_NUMBER => number,
            AT_ARCH => arch,
            n => {
                let n = n - AT_ARGS;
                (args[(n / 8) as usize] >> (8 * (n % 8))) as u32
            }
        };
        let (mut a, mut at) = (0, 0);
        loop {
            let (code, yes, no, k) = program[at];
            let mut jump = |is: bool| at += usize::from(if is { yes } else { no });
            match code {
                LD => a = load(k),
                AND => a &= k,
                JA => at += k as usize,
                JEQ => jump(a == k),
                JGT => jump(a > k),
                JGE => jump(a >= k),
                RET => return k,
                other => panic!("{other:#x}"),
            }
            at += 1;
        }
    }

    fn compiled(json: &str) -> Vec<(u16, u8, u8, u32)> {
        compile(&serde_json::from_str(json).unwrap()).unwrap().program
    }

    fn number(name: &str) -> u32 {
        calls::NAMES.iter().position(|n| *n == name).unwrap() as u32
    }

    #[test]
    fn rules_conditions_and_the_default() {
        let p = compiled(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[
            {"names":["read","write","close","no_such_call","openat"],"action":"SCMP_ACT_ALLOW"},
            {"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]},
            {"names":["personality"],"action":"SCMP_ACT_LOG","args":[{"index":0,"value":9,"op":"SCMP_CMP_EQ"}]},
            {"names":["kill"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}"#,
        );
        let on = |name: &str, first: u64| run(&p, X86_64, number(name), [first, 0, 0, 0, 0, 0]);
        assert_eq!(on("read", 0), ALLOW);
        assert_eq!(on("open", 0), ERRNO | EPERM);
        assert_eq!(on("kill", 0), ERRNO | 95);
        assert_eq!(
            [on("personality", 8), on("personality", 9), on("personality", 8 | 1 << 32)],
            [ALLOW, LOG, ERRNO | EPERM]
        );
        assert_eq!(on("openat", 0), ALLOW);
        assert_eq!(on("mkdirat", 0), ERRNO | ENOSYS, "newer than what the profile knows");
        assert_eq!(run(&p, I386, 3, [0; 6]), KILL_THREAD);
        assert_eq!(run(&p, X86_64, X32, [0; 6]), KILL_THREAD);
    }

    #[test]
    fn every_comparison_looks_at_all_64_bits() {
        let values = [0, 1, 5, u64::from(u32::MAX), 1 << 32, (1 << 32) + 5, (5 << 32) + 1, u64::MAX];
        for (op, holds) in [
            ("NE", (|a, v, _| a != v) as fn(u64, u64, u64) -> bool),
            ("LT", |a, v, _| a < v),
            ("LE", |a, v, _| a <= v),
            ("EQ", |a, v, _| a == v),
            ("GE", |a, v, _| a >= v),
            ("GT", |a, v, _| a > v),
            ("MASKED_EQ", |a, v, w| a & v == w & v),
        ] {
            for value in values {
                for two in values {
                    let p = compiled(&format!(
                        r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["read"],"action":"SCMP_ACT_KILL_PROCESS",
                        "args":[{{"index":2,"value":{value},"valueTwo":{two},"op":"SCMP_CMP_{op}"}}]}}]}}"#
                    ));
                    for a in values {
                        let says = run(&p, X86_64, 0, [7, 7, a, 7, 7, 7]);
                        let wanted = if holds(a, value, two) { KILL_PROCESS } else { ALLOW };
                        assert_eq!(says, wanted, "{a:#x} {op} {value:#x} {two:#x}");
                    }
                }
            }
        }
    }

    #[test]
    fn conditions_are_all_of_a_rule_or_any_of_one_argument() {
        let args = |second: u32| {
            format!(
                r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["read"],"action":"SCMP_ACT_ERRNO","args":[
                {{"index":0,"value":1,"op":"SCMP_CMP_EQ"}},{{"index":{second},"value":2,"op":"SCMP_CMP_EQ"}}]}}]}}"#
            )
        };
        let both = compiled(&args(1));
        let on = |p: &[(u16, u8, u8, u32)], a, b| run(p, X86_64, 0, [a, b, 0, 0, 0, 0]);
        assert_eq!([on(&both, 1, 2), on(&both, 1, 1), on(&both, 2, 2)], [ERRNO | EPERM, ALLOW, ALLOW]);
        let any = compiled(&args(0));
        assert_eq!([on(&any, 1, 0), on(&any, 2, 0), on(&any, 3, 0)], [ERRNO | EPERM, ERRNO | EPERM, ALLOW]);
    }
}
