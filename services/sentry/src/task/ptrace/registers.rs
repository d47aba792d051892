//! The registers of a stopped tracee as `struct user_regs_struct` and `NT_X86_XSTATE` show them. Never here: who may look.

use cofferdam_platform::Registers;

use crate::errno::Errno;

/// Words of `struct user_regs_struct`.
pub const WORDS: usize = 27;
/// `orig_rax` when the task is in no call.
pub const NO_CALL: u64 = u64::MAX;
/// The trap flag.
pub const TRAP_FLAG: u64 = 0x100;

const CS: u64 = 0x33;
const SS: u64 = 0x2b;
/// First address a base cannot have (`TASK_SIZE_MAX`).
const BASE_END: u64 = 0x7fff_ffff_f000;

// Places in the words.
const ORIG_RAX: usize = 15;
const FS_BASE: usize = 21;
const GS_BASE: usize = 22;

// Places in an extended state as a signal frame has it: FP_XSTATE_MAGIC1 and what follows it.
const SOFTWARE: usize = 464;
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;

/// A tracee's general registers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct View {
    /// Those that the processor has.
    pub(crate) general: Registers,
    /// Number of the call that it is in or that just ended; [`NO_CALL`].
    pub(crate) orig_rax: u64,
    /// Base of `%fs`.
    pub(crate) fs_base: u64,
    /// Base of `%gs`.
    pub(crate) gs_base: u64,
}

impl View {
    /// The number of the call that it is in; `None` if it is in none. As the kernel takes it: an `int`.
    pub(crate) fn call(&self) -> Option<u32> {
        let number = self.orig_rax as u32;
        (number.cast_signed() >= 0).then_some(number)
    }

    /// In the order of the structure.
    pub(crate) fn words(&self) -> [u64; WORDS] {
        let r = &self.general;
        [
            r.r15,
            r.r14,
            r.r13,
            r.r12,
            r.rbp,
            r.rbx,
            r.r11,
            r.r10,
            r.r9,
            r.r8,
            r.rax,
            r.rcx,
            r.rdx,
            r.rsi,
            r.rdi,
            self.orig_rax,
            r.rip,
            CS,
            r.rflags,
            r.rsp,
            SS,
            self.fs_base,
            self.gs_base,
            0,
            0,
            0,
            0,
        ]
    }

    /// Sets one of the words; EIO for a value that cannot be there.
    pub(crate) fn set(&mut self, index: usize, value: u64) -> Result<(), Errno> {
        let same = *self.words().get(index).ok_or(Errno::EIO)? == value;
        let r = &mut self.general;
        let to = match index {
            0 => &mut r.r15,
            1 => &mut r.r14,
            2 => &mut r.r13,
            3 => &mut r.r12,
            4 => &mut r.rbp,
            5 => &mut r.rbx,
            6 => &mut r.r11,
            7 => &mut r.r10,
            8 => &mut r.r9,
            9 => &mut r.r8,
            10 => &mut r.rax,
            11 => &mut r.rcx,
            12 => &mut r.rdx,
            13 => &mut r.rsi,
            14 => &mut r.rdi,
            ORIG_RAX => &mut self.orig_rax,
            16 => &mut r.rip,
            18 => {
                // The trap flag is how steps are made, and nobody else's.
                r.rflags = value & !TRAP_FLAG;
                return Ok(());
            }
            19 => &mut r.rsp,
            FS_BASE if value < BASE_END => &mut self.fs_base,
            GS_BASE if value < BASE_END => &mut self.gs_base,
            _ if same => return Ok(()),
            _ => return Err(Errno::EIO),
        };
        *to = value;
        Ok(())
    }
}

fn half(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn put(b: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(to) = b.get_mut(at..at + bytes.len()) {
        to.copy_from_slice(bytes);
    }
}

/// Bytes of the processor's own in a state from a signal frame.
fn size(state: &[u8]) -> usize {
    if half(state, SOFTWARE) == MAGIC1 { (half(state, SOFTWARE + 16) as usize).max(512).min(state.len()) } else { 512 }
}

/// As `NT_X86_XSTATE` shows it: the mask of features where the signal frame has its own words.
pub(crate) fn shown(state: &[u8]) -> Vec<u8> {
    let mut area = state.get(..size(state)).unwrap_or(state).to_vec();
    let features = if half(state, SOFTWARE) == MAGIC1 { state.get(SOFTWARE + 8..SOFTWARE + 16) } else { None };
    let features = features.unwrap_or(&[3, 0, 0, 0, 0, 0, 0, 0]).to_vec();
    put(&mut area, SOFTWARE, &[0; 48]);
    put(&mut area, SOFTWARE, &features);
    area
}

/// Replaces the first bytes of a state by what a tracer gave; EINVAL for one that the processor would refuse.
pub(crate) fn replace(state: &mut [u8], new: &[u8], legacy_only: bool) -> Result<(), Errno> {
    // Bits of MXCSR that no processor has.
    if half(new, 24) & !0xffff != 0 {
        return Err(Errno::EINVAL);
    }
    let end = size(state);
    if !legacy_only && end > 512 {
        let header = new.get(512..576).filter(|_| new.len() >= end).ok_or(Errno::EFAULT)?;
        let (used, rest) = header.split_at(8);
        let features = state.get(SOFTWARE + 8..SOFTWARE + 16).unwrap_or_default();
        if used.iter().zip(features).any(|(u, f)| u & !f != 0) || rest.iter().any(|b| *b != 0) {
            return Err(Errno::EINVAL);
        }
    }
    put(state, 0, new.get(..SOFTWARE.min(new.len())).unwrap_or_default());
    if legacy_only {
        // x87 and SSE are in use now.
        if let Some(b) = state.get_mut(512) {
            *b |= 3;
        }
    } else if end > 512 {
        put(state, 512, new.get(512..end).unwrap_or_default());
        put(state, end, &MAGIC2.to_le_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_where_they_are_set() {
        let mut v = View::default();
        for i in 0..WORDS {
            let value = 0x1000 + i as u64;
            match v.set(i, value) {
                Ok(()) => assert_eq!(v.words()[i], value & !TRAP_FLAG, "word {i}"),
                Err(e) => assert!(e == Errno::EIO && [17, 20, 23, 24, 25, 26].contains(&i), "word {i}"),
            }
        }
        assert_eq!(v.set(WORDS, 0), Err(Errno::EIO));
        assert_eq!(v.set(17, CS), Ok(()), "as it is");
        assert_eq!(v.set(FS_BASE, u64::MAX), Err(Errno::EIO), "not canonical");
    }

    #[test]
    fn flags_lose_the_trap_flag() {
        let mut v = View::default();
        v.set(18, 0x346).unwrap();
        assert_eq!(v.general.rflags, 0x246);
    }

    #[test]
    fn a_state_comes_back_as_it_was_shown() {
        let mut state = vec![0u8; 836];
        put(&mut state, SOFTWARE, &MAGIC1.to_le_bytes());
        put(&mut state, SOFTWARE + 8, &7u64.to_le_bytes());
        put(&mut state, SOFTWARE + 16, &832u32.to_le_bytes());
        put(&mut state, 512, &7u64.to_le_bytes());
        put(&mut state, 832, &MAGIC2.to_le_bytes());
        put(&mut state, 600, &[9; 8]);
        let mut seen = shown(&state);
        assert_eq!((seen.len(), seen[SOFTWARE], seen[SOFTWARE + 8]), (832, 7, 0));
        let before = state.clone();
        replace(&mut state, &seen, false).unwrap();
        assert_eq!(state, before);
        seen[512] = 8;
        assert_eq!(replace(&mut state, &seen, false), Err(Errno::EINVAL), "a feature that there is not");
        (seen[512], seen[520]) = (7, 1);
        assert_eq!(replace(&mut state, &seen, false), Err(Errno::EINVAL), "compacted");
        seen[520] = 0;
        put(&mut seen, 24, &u32::MAX.to_le_bytes());
        assert_eq!(replace(&mut state, &seen, false), Err(Errno::EINVAL));
    }
}
