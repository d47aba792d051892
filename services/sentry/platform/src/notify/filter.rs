//! The stubs' filter: every call goes to the Sentry.
//!
//! Not compiled by seccompiler, which has no user notification. In order:
//! - `rt_sigreturn` from the stub's own text runs: it changes only the caller's own registers, signal mask and signal stack.
//! - Calls that change registers or the address space trap, unless the stub's own text makes them (an order): then they
//!   are notified, and the Sentry lets through only what it ordered. That the container can jump to the stub's `syscall`
//!   changes nothing: it arrives as an order that nobody gave.
//! - All else is notified.

use crate::layout::{STUB_BASE, STUB_SPAN};

const NR: u32 = 0;
const ARCH: u32 = 4;
const IP_LOW: u32 = 8;
const IP_HIGH: u32 = 12;

const LD: u16 = 0x20;
const JEQ: u16 = 0x15;
const JGE: u16 = 0x35;
const RET: u16 = 0x06;

const ALLOW: u32 = 0x7fff_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const TRAP: u32 = 0x0003_0000;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const RT_SIGRETURN: u32 = 15;

/// Calls that need registers or memory orders: mmap, brk, mremap, shmat, clone, fork, vfork, execve, shmdt, execveat, clone3.
pub(crate) const TRAPPED: [u32; 11] = [9, 12, 25, 30, 56, 57, 58, 59, 67, 322, 435];

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> u64 {
    u64::from(code) | u64::from(jt) << 16 | u64::from(jf) << 24 | u64::from(k) << 32
}

/// The filter, one `struct sock_filter` a word.
pub(crate) fn compile() -> Vec<u64> {
    // Tail: [t] load ip high; jne base -> trap; load ip low; jge span -> trap; ret notify; ret trap.
    let mut f = vec![
        instruction(LD, 0, 0, ARCH),
        instruction(JEQ, 1, 0, AUDIT_ARCH_X86_64),
        instruction(RET, 0, 0, NOTIFY),
        instruction(LD, 0, 0, NR),
    ];
    let rest = TRAPPED.len() as u8;
    // rt_sigreturn is decided behind the others.
    f.push(instruction(JEQ, rest + 1, 0, RT_SIGRETURN));
    for (i, nr) in TRAPPED.iter().enumerate() {
        // To the tail: past the remaining comparisons, the return and the sigreturn block (6).
        let remaining = rest - 1 - i as u8;
        f.push(instruction(JEQ, remaining + 1 + 6, 0, *nr));
    }
    f.push(instruction(RET, 0, 0, NOTIFY));
    let own_text = |f: &mut Vec<u64>, then: u32| {
        f.push(instruction(LD, 0, 0, IP_HIGH));
        f.push(instruction(JEQ, 0, 3, (STUB_BASE >> 32) as u32));
        f.push(instruction(LD, 0, 0, IP_LOW));
        f.push(instruction(JGE, 1, 0, STUB_SPAN as u32));
        f.push(instruction(RET, 0, 0, then));
        f.push(instruction(RET, 0, 0, TRAP));
    };
    own_text(&mut f, ALLOW);
    own_text(&mut f, NOTIFY);
    f
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the host kernel does.
    fn run(nr: u32, arch: u32, ip: u64) -> u32 {
        let f = compile();
        let (mut pc, mut a) = (0usize, 0u32);
        loop {
            let i = f[pc];
            let (code, jt, jf, k) = (i as u16, (i >> 16) as u8, (i >> 24) as u8, (i >> 32) as u32);
            pc += 1;
            match code {
                LD => {
                    a = match k {
                        NR => nr,
                        ARCH => arch,
                        IP_LOW => ip as u32,
                        IP_HIGH => (ip >> 32) as u32,
                        _ => panic!(),
                    }
                }
                JEQ => pc += usize::from(if a == k { jt } else { jf }),
                JGE => pc += usize::from(if a >= k { jt } else { jf }),
                RET => return k,
                _ => panic!("{code}"),
            }
        }
    }

    #[test]
    fn only_sigreturn_of_the_stubs_own_text_is_allowed() {
        let own = STUB_BASE + 0x1272;
        for nr in 0..600 {
            for ip in [0x40_0000, own, STUB_BASE - 1, STUB_BASE + STUB_SPAN, 0x7fff_0000_1272, 0x1_0000_1272] {
                let got = run(nr, AUDIT_ARCH_X86_64, ip);
                let want = match (nr == RT_SIGRETURN, TRAPPED.contains(&nr), ip == own) {
                    (true, _, true) => ALLOW,
                    (true, _, false) | (_, true, false) => TRAP,
                    _ => NOTIFY,
                };
                assert_eq!(got, want, "call {nr} at {ip:#x}");
            }
            assert_eq!(run(nr, 0x4000_0003, own), NOTIFY, "another architecture's call {nr}");
        }
        assert_eq!(run(0x4000_000f, AUDIT_ARCH_X86_64, own), NOTIFY, "x32");
    }
}
