//! Terminal settings, `termios(3)`, in the layout of `asm-generic/termbits.h`.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Flags.
#[allow(missing_docs)]
pub mod flag {
    pub const PARMRK: u32 = 0o10;
    pub const ISTRIP: u32 = 0o40;
    pub const INLCR: u32 = 0o100;
    pub const IGNCR: u32 = 0o200;
    pub const ICRNL: u32 = 0o400;
    pub const IUCLC: u32 = 0o1000;
    pub const IXON: u32 = 0o2000;
    pub const IXANY: u32 = 0o4000;
    pub const IMAXBEL: u32 = 0o20000;
    pub const IUTF8: u32 = 0o40000;
    pub const OPOST: u32 = 0o1;
    pub const OLCUC: u32 = 0o2;
    pub const ONLCR: u32 = 0o4;
    pub const OCRNL: u32 = 0o10;
    pub const ONOCR: u32 = 0o20;
    pub const ONLRET: u32 = 0o40;
    pub const XTABS: u32 = 0o14000;
    pub const ISIG: u32 = 0o1;
    pub const ICANON: u32 = 0o2;
    pub const ECHO: u32 = 0o10;
    pub const ECHOE: u32 = 0o20;
    pub const ECHOK: u32 = 0o40;
    pub const ECHONL: u32 = 0o100;
    pub const NOFLSH: u32 = 0o200;
    pub const TOSTOP: u32 = 0o400;
    pub const ECHOCTL: u32 = 0o1000;
    pub const ECHOPRT: u32 = 0o2000;
    pub const ECHOKE: u32 = 0o4000;
    pub const IEXTEN: u32 = 0o100000;
    pub const EXTPROC: u32 = 0o200000;
}

/// Indices of special characters.
#[allow(missing_docs)]
pub mod special {
    pub const INTR: usize = 0;
    pub const QUIT: usize = 1;
    pub const ERASE: usize = 2;
    pub const KILL: usize = 3;
    pub const EOF: usize = 4;
    pub const TIME: usize = 5;
    pub const MIN: usize = 6;
    pub const START: usize = 8;
    pub const STOP: usize = 9;
    pub const SUSP: usize = 10;
    pub const EOL: usize = 11;
    pub const REPRINT: usize = 12;
    pub const WERASE: usize = 14;
    pub const LNEXT: usize = 15;
    pub const EOL2: usize = 16;
}

/// `struct termios` as the kernel has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
pub struct Termios {
    iflag: u32,
    oflag: u32,
    cflag: u32,
    lflag: u32,
    line: u8,
    chars: [u8; 19],
}

impl Default for Termios {
    /// As a fresh terminal of Linux has it: canonical, with echo, at 38400 baud.
    fn default() -> Self {
        let mut chars = [0; 19];
        let set = [3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0];
        for (to, from) in chars.iter_mut().zip(set) {
            *to = from;
        }
        Self { iflag: 0o2400, oflag: 0o5, cflag: 0o277, lflag: 0o105073, line: 0, chars }
    }
}

impl Termios {
    /// Whether an input flag is set.
    pub fn input(&self, f: u32) -> bool {
        self.iflag & f != 0
    }

    /// Whether an output flag is set.
    pub fn output(&self, f: u32) -> bool {
        self.oflag & f == f
    }

    /// Whether a local flag is set.
    pub fn local(&self, f: u32) -> bool {
        self.lflag & f != 0
    }

    /// A special character.
    pub fn character(&self, index: usize) -> u8 {
        self.chars.get(index).copied().unwrap_or(0)
    }

    /// Whether `b` is that special character (0 disables one).
    pub fn is(&self, index: usize, b: u8) -> bool {
        b != 0 && self.character(index) == b
    }

    /// As a pseudo terminal keeps it: eight bits without parity, and it can be read.
    pub fn of_pseudo_terminal(mut self) -> Self {
        const CSIZE: u32 = 0o60;
        const CREAD: u32 = 0o200;
        const PARENB: u32 = 0o400;
        self.cflag = self.cflag & !PARENB | CSIZE | CREAD;
        self
    }

    /// Whether ^S and ^Q stop output and let it go on, which is what the other end may do in its place.
    pub fn usual_flow_control(&self) -> bool {
        self.input(flag::IXON) && self.character(special::STOP) == 0o23 && self.character(special::START) == 0o21
    }

    /// Whether a byte goes on with a UTF-8 character that began before it.
    pub fn continues(&self, b: u8) -> bool {
        self.input(flag::IUTF8) && b & 0xc0 == 0x80
    }

    /// Without these local flags.
    #[cfg(test)]
    pub fn without_local(mut self, f: u32) -> Self {
        self.lflag &= !f;
        self
    }
}

/// `struct winsize`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[allow(missing_docs)]
pub struct WinSize {
    pub rows: u16,
    pub cols: u16,
    pub x: u16,
    pub y: u16,
}
