//! The signal frame of a trapped thread, in its slot: `struct ucontext` and the XSAVE area it points to.
//!
//! The container can write to it at any time: each field is read once, sizes and pointers are checked.

use cofferdam_shm::Window;

use crate::layout::{SLOT, SLOTS, STACK, STACK_LEN, START_XSTATE};
use crate::slots::{address, start_context};
use crate::{Frame, Registers};

// Offsets in struct ucontext (arch/x86/include/uapi/asm/sigcontext.h).
const UC_FLAGS: u64 = 0;
const UC_STACK: u64 = 16;
const GREGS: u64 = 40;
const SEGMENTS: u64 = 184;
const ERROR: u64 = 192;
const TRAP: u64 = 200;
const FPSTATE: u64 = 224;
const SIGMASK: u64 = 296;
/// Bytes of a `struct ucontext` with a 64-bit signal mask.
pub(crate) const UC_LEN: u64 = 304;

/// Flags a program may set for itself: CF PF AF ZF SF TF DF OF, NT, AC, ID... less what the kernel keeps.
const USER_FLAGS: u64 = 0x1 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x800 | 0x4_0000;

/// `FP_XSTATE_MAGIC1`.
pub(crate) const MAGIC1: u32 = 0x4650_5853;
/// `FP_XSTATE_MAGIC2`.
pub(crate) const MAGIC2: u32 = 0x4650_5845;
/// AMX tiles: a program must ask the host for them before it has them, and stubs never ask.
pub(crate) const TILES: u64 = 3 << 17;
/// Most bytes of extended state that a slot holds.
pub(crate) const MAX_XSTATE: usize = 12 * 1024;

/// The frame of one stop.
pub(crate) struct SlotFrame<'a> {
    window: &'a Window,
    slot: u64,
    /// Offset of the `ucontext` in the window.
    uc: u64,
}

impl<'a> SlotFrame<'a> {
    /// A frame whose `ucontext` is at the address the stub reported; `None` unless it lies in the thread's own stack.
    pub(crate) fn at(window: &'a Window, slot: u64, uc_address: u64) -> Option<Self> {
        let uc = uc_address.checked_sub(SLOTS)?;
        let inside = uc >= slot + STACK && uc.checked_add(UC_LEN)? <= slot + SLOT && uc.is_multiple_of(8);
        inside.then_some(Self { window, slot, uc })
    }

    /// Prepares the frame that a new thread starts from.
    pub(crate) fn start(window: &'a Window, slot: u64, registers: &Registers) -> Self {
        let mut f = Self { window, slot, uc: start_context(slot) };
        f.put(UC_FLAGS, 0x7);
        f.put(UC_FLAGS + 8, 0);
        f.put(UC_STACK, address(slot + STACK));
        f.put(UC_STACK + 8, 0);
        f.put(UC_STACK + 16, STACK_LEN);
        // cs 0x33, gs 0, fs 0, ss 0x2b
        f.put(SEGMENTS, 0x002b_0000_0000_0033);
        f.put(FPSTATE, 0);
        f.put(SIGMASK, 0);
        f.set_registers(registers);
        f
    }

    /// Address of the `ucontext` in the stub.
    pub(crate) fn uc_address(&self) -> u64 {
        address(self.uc)
    }

    fn word(&self, at: u64) -> u64 {
        let mut b = [0; 8];
        // The constructor checked that the ucontext lies in the window.
        match self.window.read(self.uc + at, &mut b) {
            Ok(()) => u64::from_le_bytes(b),
            Err(_) => 0,
        }
    }

    fn put(&mut self, at: u64, value: u64) {
        let _ = self.window.write(self.uc + at, &value.to_le_bytes());
    }

    /// Processor's error code and trap number of a fault.
    pub(crate) fn fault(&self) -> (u64, u64) {
        (self.word(ERROR), self.word(TRAP))
    }

    /// Sets `%rax`.
    pub(crate) fn set_result(&mut self, value: i64) {
        self.put(144, value as u64);
    }

    /// Offset of the extended state and the bytes available to it in the slot.
    fn xstate_place(&self) -> Option<(u64, usize)> {
        let at = self.word(FPSTATE).checked_sub(SLOTS)?;
        if at < self.slot + STACK || at >= self.slot + SLOT || !at.is_multiple_of(64) {
            return None;
        }
        let room = usize::try_from(self.slot + SLOT - at).ok()?;
        (room >= 512).then_some((at, room.min(MAX_XSTATE)))
    }
}

impl Frame for SlotFrame<'_> {
    fn registers(&self) -> Registers {
        let mut b = [0u8; 18 * 8];
        let _ = self.window.read(self.uc + GREGS, &mut b);
        let mut w = b.chunks_exact(8).map(|c| c.try_into().map(u64::from_le_bytes).unwrap_or(0));
        let mut next = || w.next().unwrap_or(0);
        let (r8, r9, r10, r11, r12, r13, r14, r15) = (next(), next(), next(), next(), next(), next(), next(), next());
        let (rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, rflags) =
            (next(), next(), next(), next(), next(), next(), next(), next(), next(), next());
        Registers { rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags }
    }

    fn set_registers(&mut self, r: &Registers) {
        let words = [
            r.r8,
            r.r9,
            r.r10,
            r.r11,
            r.r12,
            r.r13,
            r.r14,
            r.r15,
            r.rdi,
            r.rsi,
            r.rbp,
            r.rbx,
            r.rdx,
            r.rax,
            r.rcx,
            r.rsp,
            r.rip,
            (r.rflags & USER_FLAGS) | 0x202,
        ];
        let mut b = [0u8; 18 * 8];
        for (to, word) in b.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let _ = self.window.write(self.uc + GREGS, &b);
    }

    fn extended_state(&self) -> Vec<u8> {
        let Some((at, room)) = self.xstate_place() else { return Vec::new() };
        let mut legacy = [0u8; 512];
        if self.window.read(at, &mut legacy).is_err() {
            return Vec::new();
        }
        let len = extended_len(&legacy).min(room);
        let mut state = vec![0; len];
        match self.window.read(at, &mut state) {
            Ok(()) => state,
            Err(_) => Vec::new(),
        }
    }

    fn set_extended_state(&mut self, state: Option<&[u8]>) {
        let Some(state) = state.filter(|s| s.len() >= 512 && s.len() <= MAX_XSTATE) else {
            self.put(FPSTATE, 0);
            return;
        };
        let place = self.xstate_place().filter(|(_, room)| *room >= state.len()).map(|(at, _)| at);
        let at = place.unwrap_or(self.slot + START_XSTATE);
        if self.window.write(at, state).is_ok() {
            self.put(FPSTATE, address(at));
        } else {
            self.put(FPSTATE, 0);
        }
    }
}

/// Bytes of an extended state, from its first 512 (`struct _fpx_sw_bytes`).
pub(crate) fn extended_len(legacy: &[u8]) -> usize {
    let word = |at: usize| legacy.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes).unwrap_or(0);
    if word(464) == MAGIC1 { (word(468) as usize).clamp(512, MAX_XSTATE) } else { 512 }
}

/// The extended state that a new program starts with, in the layout of a signal frame.
pub fn initial_extended_state() -> Vec<u8> {
    let mut features = 3;
    if std::arch::is_x86_feature_detected!("xsave") {
        // SAFETY: the processor has the instruction, and the host lets programs use it, as was just asked.
        features |= unsafe { xgetbv() } & !TILES;
    }
    let mut size = 576;
    for i in (2..63u32).filter(|i| features & (1 << i) != 0) {
        let leaf = std::arch::x86_64::__cpuid_count(0xd, i);
        size = size.max(leaf.ebx.saturating_add(leaf.eax) as usize);
    }
    let mut state = vec![0; size.min(MAX_XSTATE - 4)];
    let words: [(usize, &[u8]); 6] = [
        (0, &0x37f_u16.to_le_bytes()),
        (24, &0x1f80_u32.to_le_bytes()),
        (464, &MAGIC1.to_le_bytes()),
        (468, &(state.len() as u32 + 4).to_le_bytes()),
        (472, &features.to_le_bytes()),
        (480, &(state.len() as u32).to_le_bytes()),
    ];
    for (at, bytes) in words {
        if let Some(to) = state.get_mut(at..at + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    }
    state.extend_from_slice(&MAGIC2.to_le_bytes());
    state
}

#[target_feature(enable = "xsave")]
fn xgetbv() -> u64 {
    // SAFETY: register 0 is there wherever the instruction is.
    unsafe { std::arch::x86_64::_xgetbv(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_outside_the_threads_own_stack_is_refused() {
        let w = Window::create("t", 1 << 20).unwrap();
        let slot = 2 * SLOT;
        assert!(SlotFrame::at(&w, slot, SLOTS + slot + STACK).is_some());
        for bad in [0, u64::MAX, SLOTS, SLOTS + slot, SLOTS + slot + SLOT - UC_LEN + 8, SLOTS + slot + STACK + 1] {
            assert!(SlotFrame::at(&w, slot, bad).is_none(), "{bad:#x}");
        }
    }

    #[test]
    fn registers_survive_and_flags_are_reduced() {
        let w = Window::create("t", 1 << 20).unwrap();
        let r = Registers { rax: 1, rip: 2, rsp: 3, r15: 4, rflags: !0, ..Registers::default() };
        let f = SlotFrame::start(&w, 0, &r);
        let got = f.registers();
        assert_eq!((got.rax, got.rip, got.rsp, got.r15), (1, 2, 3, 4));
        assert_eq!(got.rflags & 0x3000, 0, "no I/O privilege level");
    }

    #[test]
    fn an_extended_state_pointer_outside_the_slot_reads_nothing() {
        let w = Window::create("t", 1 << 20).unwrap();
        let mut f = SlotFrame::start(&w, SLOT, &Registers::default());
        assert!(f.extended_state().is_empty());
        f.put(FPSTATE, 64);
        assert!(f.extended_state().is_empty());
        f.set_extended_state(Some(&[7; 832]));
        assert_eq!(f.extended_state(), vec![7; 512], "no magic: legacy state only");
    }
}
