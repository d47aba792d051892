//! Raw `ptrace(2)` on one stopped thread: registers, extended state, resuming. Every function answers a thread that is
//! gone with an error or a harmless value; that it is gone is learned from `wait4(2)` alone. Called by the tracer thread.

use libc::user_regs_struct as Regs;

use crate::frame::{MAGIC1, MAGIC2, MAX_XSTATE, TILES};
use crate::{Frame, Registers};

pub(super) const SYSEMU: i32 = 31;
const GET_SYSCALL_INFO: i32 = 0x420e;
const NT_X86_XSTATE: usize = 0x202;
/// Flags a program may set for itself (as in `frame.rs`).
const USER_FLAGS: u64 = 0x1 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x800 | 0x4_0000;

/// One request; the kernel's result, -1 on errors.
pub(super) fn request(request: i32, tid: i32, address: usize, data: usize) -> i64 {
    // SAFETY: callers pass data that the request reads or fills, alive for the call; the kernel checks the rest.
    unsafe { libc::ptrace(request as libc::c_uint, tid, address, data) }
}

/// General registers.
pub(super) fn registers(tid: i32) -> Option<Regs> {
    // SAFETY: an all-zero user_regs_struct is a value of it.
    let mut regs: Regs = unsafe { std::mem::zeroed() };
    (request(libc::PTRACE_GETREGS as i32, tid, 0, &raw mut regs as usize) == 0).then_some(regs)
}

/// Sets the general registers, and says that the thread is in no call that could be restarted.
pub(super) fn set_registers(tid: i32, regs: &Regs) {
    let regs = Regs { orig_rax: !0, ..*regs };
    request(libc::PTRACE_SETREGS as i32, tid, 0, &raw const regs as usize);
}

/// Whether the thread, stopped at a call, stands at its entry, and the call's architecture.
pub(super) fn call_info(tid: i32) -> (bool, u32) {
    let mut info = [0u8; 88];
    if request(GET_SYSCALL_INFO, tid, info.len(), info.as_mut_ptr() as usize) < 8 {
        return (false, 0);
    }
    let [op, _, _, _, a, b, c, d, ..] = info;
    (op == 1, u32::from_le_bytes([a, b, c, d]))
}

/// Signal number, code and address of the signal the thread is stopped for.
pub(super) fn signal_info(tid: i32) -> Option<(i32, i32, u64)> {
    // SAFETY: an all-zero siginfo_t is a value of it.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    if request(libc::PTRACE_GETSIGINFO as i32, tid, 0, &raw mut info as usize) != 0 {
        return None;
    }
    // SAFETY: the address is read only as a number; for other signals it is some other field.
    Some((info.si_signo, info.si_code, unsafe { info.si_addr() } as u64))
}

/// The id of the thread that the thread just made.
pub(super) fn event_message(tid: i32) -> i32 {
    let mut message: libc::c_ulong = 0;
    request(libc::PTRACE_GETEVENTMSG as i32, tid, 0, &raw mut message as usize);
    i32::try_from(message).unwrap_or(0)
}

/// A `$to` with the general registers of `$from`, which both name alike, and the rest as given.
macro_rules! with_general {
    ($to:ident, $from:ident, $($rest:tt)*) => {
        $to {
            rax: $from.rax,
            rbx: $from.rbx,
            rcx: $from.rcx,
            rdx: $from.rdx,
            rsi: $from.rsi,
            rdi: $from.rdi,
            rbp: $from.rbp,
            rsp: $from.rsp,
            r8: $from.r8,
            r9: $from.r9,
            r10: $from.r10,
            r11: $from.r11,
            r12: $from.r12,
            r13: $from.r13,
            r14: $from.r14,
            r15: $from.r15,
            rip: $from.rip,
            $($rest)*
        }
    };
}

/// The host's registers as the kernel behind [`crate::GuestThread`] sees them.
fn outward(r: &Regs) -> Registers {
    with_general!(Registers, r, rflags: r.eflags)
}

/// Puts registers into the host's; segments and bases stay.
pub(super) fn put(to: &mut Regs, r: &Registers) {
    *to = with_general!(Regs, r, eflags: (r.rflags & USER_FLAGS) | 0x202, ..*to);
}

/// The frame of a stopped thread: a copy of its registers, written back when it runs on.
pub(super) struct RegsFrame<'a> {
    pub(super) tid: i32,
    pub(super) regs: &'a mut Regs,
}

impl Frame for RegsFrame<'_> {
    fn registers(&self) -> Registers {
        outward(self.regs)
    }

    fn set_registers(&mut self, registers: &Registers) {
        put(self.regs, registers);
    }

    fn extended_state(&self) -> Vec<u8> {
        read_xstate(self.tid).map(to_signal_frame).unwrap_or_default()
    }

    fn set_extended_state(&mut self, state: Option<&[u8]>) {
        let Some(size) = read_xstate(self.tid).map(|s| s.len()) else { return };
        let mut area = from_signal_frame(state, size);
        if !write_xstate(self.tid, &mut area) {
            write_xstate(self.tid, &mut from_signal_frame(None, size));
        }
    }
}

fn read_xstate(tid: i32) -> Option<Vec<u8>> {
    // More than any processor has today.
    let mut area = vec![0u8; 32 << 10];
    let mut io = libc::iovec { iov_base: area.as_mut_ptr().cast(), iov_len: area.len() };
    let r = request(libc::PTRACE_GETREGSET as i32, tid, NT_X86_XSTATE, &raw mut io as usize);
    if r != 0 || io.iov_len < 576 {
        return None;
    }
    area.truncate(io.iov_len);
    Some(area)
}

fn write_xstate(tid: i32, area: &mut [u8]) -> bool {
    let mut io = libc::iovec { iov_base: area.as_mut_ptr().cast(), iov_len: area.len() };
    request(libc::PTRACE_SETREGSET as i32, tid, NT_X86_XSTATE, &raw mut io as usize) == 0
}

fn word(area: &[u8], at: usize) -> u64 {
    area.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn half(area: &[u8], at: usize) -> u32 {
    word(area, at) as u32
}

fn set(area: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(to) = area.get_mut(at..at + bytes.len()) {
        to.copy_from_slice(bytes);
    }
}

/// Bytes of an uncompacted area with these features.
fn area_size(features: u64) -> usize {
    let mut size = 576;
    for i in 2..63u32 {
        if features & (1 << i) != 0 {
            let leaf = std::arch::x86_64::__cpuid_count(0xd, i);
            size = size.max(leaf.ebx.saturating_add(leaf.eax) as usize);
        }
    }
    size
}

/// A register set as a signal frame has it: the kernel's words in bytes 464 to 512, and the second magic at the end.
fn to_signal_frame(mut area: Vec<u8>) -> Vec<u8> {
    let features = word(&area, 464) & !TILES;
    let size = area_size(features).min(area.len()).min(MAX_XSTATE - 4);
    area.truncate(size);
    let present = word(&area, 512) & features;
    set(&mut area, 512, &present.to_le_bytes());
    set(&mut area, 464, &[0; 48]);
    set(&mut area, 464, &MAGIC1.to_le_bytes());
    set(&mut area, 468, &(size as u32 + 4).to_le_bytes());
    set(&mut area, 472, &features.to_le_bytes());
    set(&mut area, 480, &(size as u32).to_le_bytes());
    area.extend_from_slice(&MAGIC2.to_le_bytes());
    area
}

/// A register set of `size` bytes from a signal frame's state, which may be the container's; `None`: the initial state.
fn from_signal_frame(state: Option<&[u8]>, size: usize) -> Vec<u8> {
    let mut area = vec![0u8; size];
    // Only x87 and SSE, unless the state holds more; both initial.
    set(&mut area, 0, &0x37f_u16.to_le_bytes());
    set(&mut area, 24, &0x1f80_u32.to_le_bytes());
    set(&mut area, 512, &3u64.to_le_bytes());
    let Some(legacy) = state.and_then(|s| s.get(..464)) else { return area };
    set(&mut area, 0, legacy);
    // Bits of MXCSR that no processor has would have the host refuse it all.
    let mxcsr = half(legacy, 24) & 0xffff;
    set(&mut area, 24, &mxcsr.to_le_bytes());
    let Some(state) = state else { return area };
    let end = half(state, 480) as usize;
    let whole = half(state, 464) == MAGIC1
        && (576..=size).contains(&end)
        && state.get(end..end.saturating_add(4)) == Some(&MAGIC2.to_le_bytes()[..]);
    if whole {
        let features = word(state, 472) & word(state, 512) & !TILES;
        if let Some(rest) = state.get(576..end) {
            set(&mut area, 576, rest);
        }
        set(&mut area, 512, &features.to_le_bytes());
    }
    area
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_survives_the_way_to_a_signal_frame_and_back() {
        let mut area = from_signal_frame(None, 1088);
        set(&mut area, 464, &7u64.to_le_bytes());
        set(&mut area, 512, &7u64.to_le_bytes());
        set(&mut area, 160, &[5; 16]);
        set(&mut area, 600, &[6; 16]);
        let frame = to_signal_frame(area.clone());
        assert_eq!(half(&frame, 464), MAGIC1);
        assert_eq!(half(&frame, 468) as usize, frame.len());
        let back = from_signal_frame(Some(&frame), 1088);
        assert_eq!((&back[160..176], word(&back, 512)), (&[5; 16][..], 7));
        if area_size(7) >= 616 {
            assert_eq!(back[600..616], [6; 16]);
        }
    }

    #[test]
    fn a_state_that_lies_about_its_size_gives_only_its_legacy_part() {
        for (at, value) in [(480usize, u32::MAX), (480, 0), (480, 1 << 20), (464, 1)] {
            let mut frame = to_signal_frame(from_signal_frame(None, 832));
            set(&mut frame, 512, &7u64.to_le_bytes());
            set(&mut frame, at, &value.to_le_bytes());
            let area = from_signal_frame(Some(&frame), 832);
            assert_eq!((area.len(), word(&area, 512)), (832, 3));
        }
        assert_eq!(from_signal_frame(Some(&[1; 10]), 832), from_signal_frame(None, 832));
    }
}
