//! The frame that a handler finds on its stack: `struct rt_sigframe`, byte for byte as Linux lays it out, so that
//! unwinders, debuggers and runtimes that change the saved registers find what they expect.

use cofferdam_platform::Registers;

use super::{AltStack, SigInfo};

/// Bytes of return address, `ucontext` and `siginfo`.
pub const FRAME_LEN: u64 = 8 + UC_LEN + 128;
const UC_LEN: u64 = 304;
/// Largest extended state taken back from a frame.
pub const MAX_XSTATE: usize = 12 * 1024;

fn put(b: &mut [u8], at: usize, v: u64) {
    if let Some(to) = b.get_mut(at..at + 8) {
        to.copy_from_slice(&v.to_le_bytes());
    }
}

fn get(b: &[u8], at: usize) -> u64 {
    b.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// What a frame holds.
pub struct SignalFrame {
    /// Registers of the interrupted code.
    pub registers: Registers,
    /// Signal stack at that time.
    pub alt_stack: AltStack,
    /// Mask to restore.
    pub mask: u64,
    /// Address of the extended state, 0 for none.
    pub xstate: u64,
    /// Fault information for the handler: error code, trap number, address.
    pub fault: (u64, u64, u64),
}

/// The bytes of a frame that begins with the return address `restorer`.
pub fn build(f: &SignalFrame, restorer: u64, info: &SigInfo) -> Vec<u8> {
    let mut b = vec![0; FRAME_LEN as usize];
    put(&mut b, 0, restorer);
    let uc = 8;
    // UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS
    put(&mut b, uc, 7);
    put(&mut b, uc + 16, f.alt_stack.sp);
    put(&mut b, uc + 24, u64::from(f.alt_stack.flags as u32));
    put(&mut b, uc + 32, f.alt_stack.size);
    let r = &f.registers;
    let words = [
        r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rdi, r.rsi, r.rbp, r.rbx, r.rdx, r.rax, r.rcx, r.rsp,
        r.rip, r.rflags,
    ];
    for (i, w) in words.iter().enumerate() {
        put(&mut b, uc + 40 + 8 * i, *w);
    }
    put(&mut b, uc + 184, 0x002b_0000_0000_0033);
    put(&mut b, uc + 192, f.fault.0);
    put(&mut b, uc + 200, f.fault.1);
    put(&mut b, uc + 208, f.mask);
    put(&mut b, uc + 216, f.fault.2);
    put(&mut b, uc + 224, f.xstate);
    put(&mut b, uc + 296, f.mask);
    if let Some(to) = b.get_mut(8 + UC_LEN as usize..) {
        to.copy_from_slice(&info.to_bytes());
    }
    b
}

/// Reads a frame back; `b` begins at the `ucontext`.
pub fn parse(b: &[u8; UC_LEN as usize]) -> SignalFrame {
    let g = |i: usize| get(b, 40 + 8 * i);
    SignalFrame {
        registers: Registers {
            r8: g(0),
            r9: g(1),
            r10: g(2),
            r11: g(3),
            r12: g(4),
            r13: g(5),
            r14: g(6),
            r15: g(7),
            rdi: g(8),
            rsi: g(9),
            rbp: g(10),
            rbx: g(11),
            rdx: g(12),
            rax: g(13),
            rcx: g(14),
            rsp: g(15),
            rip: g(16),
            rflags: g(17),
        },
        alt_stack: AltStack { sp: get(b, 16), flags: get(b, 24) as u32 as i32, pad: 0, size: get(b, 32) },
        mask: get(b, 296),
        xstate: get(b, 224),
        fault: (0, 0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_parsed() {
        let f = SignalFrame {
            registers: Registers { rax: 1, r8: 2, rip: 3, rsp: 4, rflags: 0x246, ..Registers::default() },
            alt_stack: AltStack { sp: 5, flags: 1, pad: 0, size: 6 },
            mask: 7,
            xstate: 8,
            fault: (0, 0, 0),
        };
        let b = build(&f, 9, &SigInfo::new(11, 1));
        assert_eq!(get(&b, 0), 9);
        let back = parse(b[8..8 + 304].try_into().unwrap());
        assert_eq!(back.registers, f.registers);
        assert_eq!((back.alt_stack.sp, back.alt_stack.size, back.mask, back.xstate), (5, 6, 7, 8));
    }
}
