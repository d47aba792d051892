//! Classic BPF as filters of calls and of sockets use it: what Linux accepts (`bpf_check_classic` and `seccomp_check_filter`), and
//! how it runs. A program comes from the container: it is checked once, and then runs to its end in a bounded number of steps
//! since every jump goes forward. Called by `task::seccomp` and by sockets (`SO_ATTACH_FILTER`).

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::errno::Errno;

/// `BPF_MAXINSNS`: instructions of one program.
pub const MAX_INSTRUCTIONS: usize = 4096;
/// Words of scratch memory.
const SCRATCH: usize = 16;
/// Words of `struct seccomp_data`.
const DATA_WORDS: usize = 16;

/// `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to jump over if true.
    pub jt: u8,
    /// And if false.
    pub jf: u8,
    /// Constant.
    pub k: u32,
}

/// `struct seccomp_data`: what a filter sees of a call.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
pub struct Data {
    /// Number.
    pub number: i32,
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// Address after the `syscall` instruction.
    pub ip: u64,
    /// Arguments.
    pub args: [u64; 6],
}

mod op {
    pub const LD_W_ABS: u16 = 0x20;
    pub const LD_W_LEN: u16 = 0x80;
    pub const LDX_W_LEN: u16 = 0x81;
    pub const LD_H_ABS: u16 = 0x28;
    pub const LD_B_ABS: u16 = 0x30;
    pub const LD_W_IND: u16 = 0x40;
    pub const LD_H_IND: u16 = 0x48;
    pub const LD_B_IND: u16 = 0x50;
    pub const LDX_B_MSH: u16 = 0xb1;
    pub const LD_IMM: u16 = 0x00;
    pub const LDX_IMM: u16 = 0x01;
    pub const LD_MEM: u16 = 0x60;
    pub const LDX_MEM: u16 = 0x61;
    pub const ST: u16 = 0x02;
    pub const STX: u16 = 0x03;
    pub const RET_K: u16 = 0x06;
    pub const RET_A: u16 = 0x16;
    pub const TAX: u16 = 0x07;
    pub const TXA: u16 = 0x87;
    pub const NEG: u16 = 0x84;
    pub const JA: u16 = 0x05;
    /// Class of arithmetic, and the bit that takes X for the constant.
    pub const ALU: u16 = 0x04;
    pub const JMP: u16 = 0x05;
    pub const X: u16 = 0x08;
    pub const ADD: u16 = 0x00;
    pub const SUB: u16 = 0x10;
    pub const MUL: u16 = 0x20;
    pub const DIV: u16 = 0x30;
    pub const OR: u16 = 0x40;
    pub const AND: u16 = 0x50;
    pub const LSH: u16 = 0x60;
    pub const RSH: u16 = 0x70;
    pub const MOD: u16 = 0x90;
    pub const XOR: u16 = 0xa0;
    pub const JEQ: u16 = 0x10;
    pub const JGT: u16 = 0x20;
    pub const JGE: u16 = 0x30;
    pub const JSET: u16 = 0x40;
    /// Operation within a class.
    pub const MASK: u16 = 0xf0;
    /// Class, and the bit for X.
    pub const FORM: u16 = 0x0f;
}

/// What a program looks at.
trait Input {
    /// Its length.
    fn len(&self) -> u32;
    /// So many bytes at an offset, as a number; `None` if they are not there.
    fn load(&self, at: u32, bytes: usize) -> Option<u32>;
    /// What else there is to know, by an offset beyond all lengths: what becomes of the accumulator.
    fn ancillary(&self, what: u32, a: u32, x: u32) -> Ancillary;
}

/// What an ancillary load comes to.
enum Ancillary {
    Is(u32),
    /// The program ends with this.
    Ends(u32),
}

impl Input for Data {
    fn len(&self) -> u32 {
        (DATA_WORDS * 4) as u32
    }

    fn load(&self, at: u32, _bytes: usize) -> Option<u32> {
        let word = self.as_bytes().get(at as usize..).and_then(|w| w.first_chunk().copied());
        Some(word.map_or(0, u32::from_le_bytes))
    }

    fn ancillary(&self, _what: u32, a: u32, _x: u32) -> Ancillary {
        Ancillary::Is(a)
    }
}

/// A message of a Unix socket, which comes from no device.
struct Packet<'a>(&'a [u8]);

/// `SKF_AD_OFF`: ancillary data begin here, a word each, up to `SKF_AD_MAX`.
const ANCILLARY: u32 = 0xffff_f000;
const ANCILLARY_MOST: u32 = 64;
const AD_IFINDEX: u32 = 8;
const AD_HATYPE: u32 = 28;
const AD_ALU_XOR_X: u32 = 40;
const AD_RANDOM: u32 = 56;

impl Input for Packet<'_> {
    fn len(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    fn load(&self, at: u32, bytes: usize) -> Option<u32> {
        let end = (at as usize).checked_add(bytes)?;
        // In the network's order.
        Some(self.0.get(at as usize..end)?.iter().fold(0, |n, b| n << 8 | u32::from(*b)))
    }

    fn ancillary(&self, what: u32, a: u32, x: u32) -> Ancillary {
        match what {
            // There is no device.
            AD_IFINDEX | AD_HATYPE => Ancillary::Ends(a),
            AD_ALU_XOR_X => Ancillary::Is(a ^ x),
            AD_RANDOM => {
                let mut raw = [0; 4];
                getrandom::fill(&mut raw).ok();
                Ancillary::Is(u32::from_le_bytes(raw))
            }
            _ => Ancillary::Is(0),
        }
    }
}

/// A frame, as filters of packet sockets see it.
pub struct Frame<'a> {
    /// All of it.
    pub frame: &'a [u8],
    /// Where what the socket gets begins.
    pub start: usize,
    /// Where the packet begins.
    pub network: usize,
    /// `ETH_P_*`.
    pub protocol: u16,
    /// What it is to the device (`PACKET_HOST` and its kin).
    pub kind: u8,
    /// The device's number and kind.
    pub device: u32,
    /// See `device`.
    pub hatype: u16,
}

/// Loads from here on are of the packet (`SKF_NET_OFF`), and from there on of the frame (`SKF_LL_OFF`).
const OF_PACKET: u32 = 0xfff0_0000;
const OF_FRAME: u32 = 0xffe0_0000;

impl Frame<'_> {
    fn seen(&self) -> &[u8] {
        self.frame.get(self.start..).unwrap_or_default()
    }
}

impl Input for Frame<'_> {
    fn len(&self) -> u32 {
        u32::try_from(self.seen().len()).unwrap_or(u32::MAX)
    }

    fn load(&self, at: u32, bytes: usize) -> Option<u32> {
        let (from, at) = match at {
            at if at >= OF_PACKET => (self.network, at - OF_PACKET),
            at if at >= OF_FRAME => (0, at - OF_FRAME),
            at => (self.start, at),
        };
        let at = from.checked_add(at as usize)?;
        Some(self.frame.get(at..at.checked_add(bytes)?)?.iter().fold(0, |n, b| n << 8 | u32::from(*b)))
    }

    fn ancillary(&self, what: u32, a: u32, x: u32) -> Ancillary {
        const AD_PROTOCOL: u32 = 0;
        const AD_PKTTYPE: u32 = 4;
        match what {
            AD_PROTOCOL => Ancillary::Is(self.protocol.into()),
            AD_PKTTYPE => Ancillary::Is(self.kind.into()),
            AD_IFINDEX => Ancillary::Is(self.device),
            AD_HATYPE => Ancillary::Is(self.hatype.into()),
            _ => Packet(self.seen()).ancillary(what, a, x),
        }
    }
}

/// What a program is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Calls,
    Packets,
}

/// A checked program.
pub struct Program(Vec<Instruction>);

impl Program {
    /// Takes a filter of calls that Linux would take; EINVAL for any other.
    pub fn new(code: Vec<Instruction>) -> Result<Self, Errno> {
        Self::checked(code, Sort::Calls)
    }

    /// Takes a filter of a socket that Linux would take; EINVAL for any other.
    pub fn of_socket(code: Vec<Instruction>) -> Result<Self, Errno> {
        Self::checked(code, Sort::Packets)
    }

    /// What it says of all calls of a number whatever their arguments, if it comes to that by the number and the architecture alone
    /// and in the plain ways that compilers of filters use (`seccomp_is_const_allow`).
    pub fn constant(&self, number: u32, arch: u32) -> Option<u32> {
        let (mut a, mut at) = (0, 0usize);
        // Every jump goes forward.
        while let Some(i) = self.0.get(at) {
            let (jt, jf) = (usize::from(i.jt), usize::from(i.jf));
            let jump = |is: bool| if is { jt } else { jf };
            at += 1;
            match i.code {
                op::LD_W_ABS if i.k == 0 => a = number,
                op::LD_W_ABS if i.k == 4 => a = arch,
                op::RET_K => return Some(i.k),
                op::JA => at = at.checked_add(i.k as usize)?,
                code if code & op::FORM == op::ALU && code & op::MASK == op::AND => a &= i.k,
                code if code & op::FORM == op::JMP => {
                    at += jump(match code & op::MASK {
                        op::JEQ => a == i.k,
                        op::JGT => a > i.k,
                        op::JGE => a >= i.k,
                        op::JSET => a & i.k != 0,
                        _ => return None,
                    });
                }
                _ => return None,
            }
        }
        None
    }

    /// Its instructions.
    pub fn code(&self) -> &[Instruction] {
        &self.0
    }

    fn checked(code: Vec<Instruction>, sort: Sort) -> Result<Self, Errno> {
        let last = code.len().checked_sub(1).filter(|l| *l < MAX_INSTRUCTIONS).ok_or(Errno::EINVAL)?;
        for (at, i) in code.iter().enumerate() {
            let within = |jump: usize| at.checked_add(1).and_then(|n| n.checked_add(jump)).is_some_and(|to| to <= last);
            let good = match i.code {
                op::LD_W_ABS if sort == Sort::Calls => i.k % 4 == 0 && (i.k as usize) < DATA_WORDS * 4,
                op::LD_W_ABS | op::LD_H_ABS | op::LD_B_ABS if sort == Sort::Packets => match i.k.checked_sub(ANCILLARY)
                {
                    Some(what) => what % 4 == 0 && what < ANCILLARY_MOST,
                    None => true,
                },
                op::LD_W_IND | op::LD_H_IND | op::LD_B_IND | op::LDX_B_MSH => sort == Sort::Packets,
                op::LD_MEM | op::LDX_MEM | op::ST | op::STX => (i.k as usize) < SCRATCH,
                op::LD_W_LEN | op::LDX_W_LEN | op::LD_IMM | op::LDX_IMM | op::RET_K | op::RET_A => true,
                op::TAX | op::TXA | op::NEG => true,
                op::JA => within(i.k as usize),
                code if matches!(code & op::FORM, op::ALU) || code & op::FORM == op::ALU | op::X => {
                    match code & op::MASK {
                        op::ADD | op::SUB | op::MUL | op::OR | op::AND | op::XOR => true,
                        op::DIV => code & op::X != 0 || i.k != 0,
                        op::MOD if sort == Sort::Packets => code & op::X != 0 || i.k != 0,
                        op::LSH | op::RSH => code & op::X != 0 || i.k < 32,
                        _ => false,
                    }
                }
                code if code & op::FORM == op::JMP || code & op::FORM == op::JMP | op::X => {
                    matches!(code & op::MASK, op::JEQ | op::JGT | op::JGE | op::JSET)
                        && within(i.jt.into())
                        && within(i.jf.into())
                }
                _ => false,
            };
            if !good || i.code > 0xff {
                return Err(Errno::EINVAL);
            }
        }
        if !matches!(code.get(last).map(|i| i.code), Some(op::RET_K | op::RET_A)) {
            return Err(Errno::EINVAL);
        }
        scratch_is_written_before_it_is_read(&code)?;
        Ok(Self(code))
    }

    /// Instructions after Linux's own translation (`bpf_convert_filter`): what it counts against its limit.
    pub fn cost(&self) -> usize {
        let each = |i: &Instruction| match i.code {
            op::RET_K => 2,
            code if code == op::ALU | op::X | op::DIV => 5,
            code if code & op::FORM & !op::X == op::JMP && code != op::JA => {
                1 + usize::from(i.jt != 0 && i.jf != 0) + usize::from(code & op::X == 0 && (i.k as i32) < 0)
            }
            _ => 1,
        };
        3 + self.0.iter().map(each).sum::<usize>()
    }

    /// What the program says of a call. One that divides by zero says 0, as Linux's does.
    pub fn run(&self, data: &Data) -> u32 {
        self.run_on(data)
    }

    /// How much of a message it lets through, 0 for nothing.
    pub fn run_packet(&self, packet: &[u8]) -> u32 {
        self.run_on(&Packet(packet))
    }

    /// The same of a frame.
    pub fn run_frame(&self, frame: &Frame<'_>) -> u32 {
        self.run_on(frame)
    }

    fn run_on(&self, input: &impl Input) -> u32 {
        let (mut a, mut x, mut scratch) = (0u32, 0u32, [0u32; SCRATCH]);
        let mut at = 0usize;
        // Each step goes forward: `new` has looked at the jumps.
        while let Some(i) = self.0.get(at) {
            at += 1;
            let k = i.k as usize;
            match i.code {
                op::LD_W_ABS | op::LD_H_ABS | op::LD_B_ABS if i.k >= ANCILLARY => {
                    match input.ancillary(i.k - ANCILLARY, a, x) {
                        Ancillary::Is(value) => a = value,
                        Ancillary::Ends(value) => return value,
                    }
                }
                op::LD_W_ABS | op::LD_H_ABS | op::LD_B_ABS | op::LD_W_IND | op::LD_H_IND | op::LD_B_IND => {
                    let from = if i.code & 0xe0 == op::LD_W_IND { i.k.wrapping_add(x) } else { i.k };
                    let bytes = match i.code & 0x18 {
                        0 => 4,
                        8 => 2,
                        _ => 1,
                    };
                    match input.load(from, bytes) {
                        Some(value) => a = value,
                        None => return 0,
                    }
                }
                op::LDX_B_MSH => match input.load(i.k, 1) {
                    Some(value) => x = (value & 0xf) * 4,
                    None => return 0,
                },
                op::LD_W_LEN => a = input.len(),
                op::LDX_W_LEN => x = input.len(),
                op::LD_IMM => a = i.k,
                op::LDX_IMM => x = i.k,
                op::LD_MEM => a = scratch.get(k).copied().unwrap_or(0),
                op::LDX_MEM => x = scratch.get(k).copied().unwrap_or(0),
                op::ST | op::STX => {
                    if let Some(word) = scratch.get_mut(k) {
                        *word = if i.code == op::ST { a } else { x };
                    }
                }
                op::RET_K => return i.k,
                op::RET_A => return a,
                op::TAX => x = a,
                op::TXA => a = x,
                op::NEG => a = a.wrapping_neg(),
                op::JA => at = at.saturating_add(k),
                code => {
                    let with = if code & op::X != 0 { x } else { i.k };
                    if code & op::FORM & !op::X == op::JMP {
                        let yes = match code & op::MASK {
                            op::JEQ => a == with,
                            op::JGT => a > with,
                            op::JGE => a >= with,
                            _ => a & with != 0,
                        };
                        at += usize::from(if yes { i.jt } else { i.jf });
                        continue;
                    }
                    a = match code & op::MASK {
                        op::ADD => a.wrapping_add(with),
                        op::SUB => a.wrapping_sub(with),
                        op::MUL => a.wrapping_mul(with),
                        op::DIV => match a.checked_div(with) {
                            Some(a) => a,
                            None => return 0,
                        },
                        op::MOD => match a.checked_rem(with) {
                            Some(a) => a,
                            None => return 0,
                        },
                        op::OR => a | with,
                        op::AND => a & with,
                        op::LSH => a.wrapping_shl(with),
                        op::RSH => a.wrapping_shr(with),
                        _ => a ^ with,
                    };
                }
            }
        }
        0
    }
}

/// Linux refuses a program that could read a scratch word which no way to it has written (`check_load_and_stores`).
fn scratch_is_written_before_it_is_read(code: &[Instruction]) -> Result<(), Errno> {
    // For each instruction the words that every way to it has written.
    let mut known = vec![u16::MAX; code.len()];
    let mut valid = 0u16;
    for (at, i) in code.iter().enumerate() {
        valid &= known.get(at).copied().unwrap_or(0);
        let bit = 1u16.checked_shl(i.k).unwrap_or(0);
        let mut reaches = |jump: usize| {
            if let Some(set) = known.get_mut(at + 1 + jump) {
                *set &= valid;
            }
        };
        match i.code {
            op::ST | op::STX => valid |= bit,
            op::LD_MEM | op::LDX_MEM if valid & bit == 0 => return Err(Errno::EINVAL),
            op::JA => {
                reaches(i.k as usize);
                valid = u16::MAX;
            }
            code if code & op::FORM & !op::X == op::JMP => {
                reaches(i.jt.into());
                reaches(i.jf.into());
                valid = u16::MAX;
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn i(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
        Instruction { code, jt, jf, k }
    }

    fn says(code: &[Instruction], number: i32) -> u32 {
        let data = Data { number, arch: 7, ip: 0x1_0000_0002, args: [1, 2, 3, 4, 5, 6 << 32] };
        Program::new(code.to_vec()).unwrap().run(&data)
    }

    #[test]
    fn programs_run() {
        let by_number = [i(op::LD_W_ABS, 0, 0, 0), i(0x15, 0, 1, 39), i(op::RET_K, 0, 0, 5), i(op::RET_K, 0, 0, 9)];
        assert_eq!((says(&by_number, 39), says(&by_number, 40)), (5, 9));
        let high_word = [i(op::LD_W_ABS, 0, 0, 60), i(op::RET_A, 0, 0, 0)];
        assert_eq!(says(&high_word, 0), 6);
        let scratch = [
            i(op::LD_IMM, 0, 0, 40),
            i(op::ST, 0, 0, 3),
            i(op::LDX_MEM, 0, 0, 3),
            i(op::ALU | op::X | op::ADD, 0, 0, 0),
            i(op::RET_A, 0, 0, 0),
        ];
        assert_eq!(says(&scratch, 0), 80);
        let by_zero = [i(op::LD_IMM, 0, 0, 40), i(op::ALU | op::X | op::DIV, 0, 0, 0), i(op::RET_K, 0, 0, 0x7fff_0000)];
        assert_eq!(says(&by_zero, 0), 0);
    }

    #[test]
    fn programs_that_linux_refuses_are_refused() {
        let ret = i(op::RET_K, 0, 0, 0);
        let refused = |code: &[Instruction]| Program::new(code.to_vec()).is_err();
        assert!(refused(&[]));
        assert!(refused(&[i(op::LD_IMM, 0, 0, 0)]));
        assert!(refused(&[i(op::LD_W_ABS, 0, 0, 2), ret]));
        assert!(refused(&[i(op::LD_W_ABS, 0, 0, 64), ret]));
        assert!(refused(&[i(op::JA, 0, 0, 1), ret]));
        assert!(refused(&[i(op::JA, 0, 0, u32::MAX), ret]));
        assert!(refused(&[i(0x15, 0, 1, 0), ret]));
        assert!(refused(&[i(op::ALU | op::DIV, 0, 0, 0), ret]));
        assert!(refused(&[i(op::ALU | op::LSH, 0, 0, 32), ret]));
        assert!(refused(&[i(0x94, 0, 0, 3), ret]), "a remainder");
        assert!(refused(&[i(0x28, 0, 0, 0), ret]), "a half word");
        assert!(refused(&[i(0x120, 0, 0, 0), ret]));
        assert!(refused(&[i(op::LD_MEM, 0, 0, 0), ret]), "never written");
        assert!(refused(&[i(0x15, 1, 0, 0), i(op::ST, 0, 0, 0), i(op::LD_MEM, 0, 0, 0), ret]), "not always written");
        assert!(!refused(&[i(op::ST, 0, 0, 0), i(0x15, 1, 0, 0), i(op::LD_MEM, 0, 0, 0), ret]));
        assert!(refused(&vec![ret; MAX_INSTRUCTIONS + 1]));
        assert!(!refused(&vec![ret; MAX_INSTRUCTIONS]));
    }
}
