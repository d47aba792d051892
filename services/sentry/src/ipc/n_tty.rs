//! The line discipline N_TTY, `termios(3)`: what typed and written bytes become on their way between a terminal's two ends.
//!
//! Owns a terminal's state, which [`tty`](super::tty) keeps under its lock. Never here: who is woken and who gets signals, which
//! it only names. Called by `tty`.

use std::collections::VecDeque;

use crate::ipc::termios::{Termios, WinSize, flag, special};
use crate::signal::sig;

/// Bytes of input that wait to be read (`N_TTY_BUF_SIZE`).
const INPUT_MAX: usize = 4096;
/// Bytes of output that wait for the master.
pub(super) const OUTPUT_MAX: usize = 64 * 1024;
/// Bytes of echo that wait while output is stopped.
const ECHO_MAX: usize = 4096;

/// What the master is told in packet mode (`TIOCPKT`).
pub(super) mod packet {
    pub const FLUSH_READ: u8 = 1;
    pub const FLUSH_WRITE: u8 = 2;
    pub const STOP: u8 = 4;
    pub const START: u8 = 8;
    pub const NO_STOP: u8 = 16;
    pub const DO_STOP: u8 = 32;
    pub const IOCTL: u8 = 64;
}

/// A terminal, but for its ends and who waits for it.
#[derive(Default)]
pub(super) struct State {
    pub(super) termios: Termios,
    pub(super) size: WinSize,
    /// Input that can be read.
    pub(super) input: VecDeque<u8>,
    /// In canonical mode: lengths of the lines in `input`; an end of file is a line of its own.
    pub(super) lines: VecDeque<usize>,
    /// The line being typed.
    pub(super) line: Vec<u8>,
    /// The next character is taken as it is.
    literal: bool,
    /// Output stopped, by ^S or by `TCXONC`; only the latter lets go on what it stopped.
    pub(super) stopped: bool,
    pub(super) stopped_by_call: bool,
    column: usize,
    /// Where the line being typed begins.
    line_column: usize,
    /// Erased characters are being shown, between `\` and `/` (`ECHOPRT`).
    erasing: bool,
    pub(super) output: VecDeque<u8>,
    /// Echo that waits for output to go on.
    held: VecDeque<u8>,
    /// In raw mode: nothing came for `VTIME` after the last byte.
    pub(super) paused: bool,
    /// `TIOCEXCL`.
    pub(super) exclusive: bool,
    pub(super) session: i32,
    pub(super) foreground: i32,
    pub(super) masters: u32,
    pub(super) slaves: u32,
    pub(super) slave_seen: bool,
    pub(super) locked: bool,
    pub(super) hung_up: bool,
    /// `TIOCPKT`: control bytes that wait for the master.
    pub(super) packet: bool,
    pub(super) packet_status: u8,
}

impl State {
    /// A terminal that nothing was done on; `locked` as `TIOCSPTLCK` sets it.
    pub(super) fn new(locked: bool) -> Self {
        Self { locked, ..Self::default() }
    }
}

/// Whether erasing a word goes on over it: letters and digits of ISO 8859-1, so first bytes of UTF-8 ones, too.
fn in_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || (b >= 0xc0 && b != 0xd7 && b != 0xf7)
}

impl State {
    pub(super) fn flush_input(&mut self) {
        self.input.clear();
        self.lines.clear();
        self.line.clear();
        self.literal = false;
        self.erasing = false;
        self.tell(packet::FLUSH_READ);
    }

    /// Tells a master in packet mode.
    pub(super) fn tell(&mut self, what: u8) {
        if self.packet {
            self.packet_status |= what;
        }
    }

    pub(super) fn stop(&mut self) {
        if !self.stopped {
            self.stopped = true;
            self.packet_status &= !packet::START;
            self.tell(packet::STOP);
        }
    }

    pub(super) fn start(&mut self) {
        if self.stopped && !self.stopped_by_call {
            self.stopped = false;
            self.packet_status &= !packet::STOP;
            self.tell(packet::START);
            let held = std::mem::take(&mut self.held);
            self.output.extend(held);
        }
    }

    /// Whether there is room for input. One line alone is never too long to go on: what is too much of it is lost.
    pub(super) fn room(&self) -> bool {
        let line = self.termios.local(flag::ICANON) && self.lines.is_empty();
        line || self.input.len() + self.line.len() + self.lines.len() < INPUT_MAX
    }

    /// How long a pause ends a raw read that has something, nanoseconds.
    pub(super) fn pause(&self) -> Option<i64> {
        let (least, time) = (self.termios.character(special::MIN), self.termios.character(special::TIME));
        (!self.termios.local(flag::ICANON) && least > 0 && time > 0).then(|| i64::from(time) * 100_000_000)
    }

    /// One character of input through the line discipline.
    pub(super) fn character(&mut self, b: u8, signals: &mut Vec<i32>) {
        let t = self.termios;
        let mut b = if t.input(flag::ISTRIP) { b & 0x7f } else { b };
        if t.input(flag::IUCLC) && t.local(flag::IEXTEN) {
            b = b.to_ascii_lowercase();
        }
        if self.literal {
            self.literal = false;
            self.typed(b);
            return;
        }
        if t.input(flag::IXON) {
            if t.is(special::START, b) {
                self.start();
                return;
            }
            if t.is(special::STOP, b) {
                self.stop();
                return;
            }
        }
        if t.local(flag::ISIG) {
            let signal = [(special::INTR, sig::INT), (special::QUIT, sig::QUIT), (special::SUSP, sig::TSTP)]
                .into_iter()
                .find(|(c, _)| t.is(*c, b));
            if let Some((_, signal)) = signal {
                if !t.local(flag::NOFLSH) {
                    // What was put out has reached the other end: only echo and what was not read of the input go.
                    self.held.clear();
                    self.tell(packet::FLUSH_WRITE);
                    self.flush_input();
                }
                if t.input(flag::IXON) {
                    self.start();
                }
                self.echo(b);
                signals.push(signal);
                return;
            }
        }
        if t.input(flag::IXON) && t.input(flag::IXANY) {
            self.start();
        }
        let raw = b;
        match b {
            b'\r' if t.input(flag::IGNCR) => return,
            b'\r' if t.input(flag::ICRNL) => b = b'\n',
            b'\n' if t.input(flag::INLCR) => b = b'\r',
            _ => {}
        }
        if !t.local(flag::ICANON) {
            // A newline by itself shows as ^J there, one that was a carriage return as itself.
            if b == b'\n' && raw != b && t.local(flag::ECHO) {
                self.put(b);
                self.take(b);
            } else {
                self.typed(b);
            }
            return;
        }
        let (echo, extended) = (t.local(flag::ECHO), t.local(flag::IEXTEN));
        if t.is(special::ERASE, b) {
            self.erase_one(t.local(flag::ECHOE));
            self.end_erasing_at_start();
        } else if t.is(special::KILL, b) {
            self.kill_line(b);
        } else if extended && t.is(special::WERASE, b) {
            let mut seen = false;
            while let Some(last) = self.last_character() {
                let word = in_word(last);
                if seen && !word {
                    break;
                }
                seen |= word;
                self.erase_one(true);
            }
            self.end_erasing_at_start();
        } else if extended && t.is(special::LNEXT, b) {
            self.literal = true;
            if echo {
                self.end_erasing();
                if t.local(flag::ECHOCTL) {
                    self.put(b'^');
                    self.put(8);
                }
            }
        } else if extended && echo && t.is(special::REPRINT, b) {
            self.end_erasing();
            self.echo(b);
            self.put(b'\n');
            for c in self.line.clone() {
                self.echo(c);
            }
        } else if t.is(special::EOF, b) {
            self.end_line();
        } else if b == b'\n' || t.is(special::EOL, b) || (extended && t.is(special::EOL2, b)) {
            if b == b'\n' {
                if echo || t.local(flag::ECHONL) {
                    self.put(b'\n');
                }
            } else {
                self.note_column();
                self.echo(b);
            }
            self.line.push(b);
            self.end_line();
        } else {
            self.typed(b);
        }
    }

    /// A character that is nothing special: echoed and taken.
    fn typed(&mut self, b: u8) {
        if self.termios.local(flag::ECHO) {
            self.end_erasing();
            self.note_column();
            self.echo(b);
        }
        if b == 0xff && self.termios.input(flag::PARMRK) {
            self.take(b);
        }
        self.take(b);
    }

    fn take(&mut self, b: u8) {
        if !self.termios.local(flag::ICANON) {
            self.input.push_back(b);
        } else if self.line.len() + self.input.len() < INPUT_MAX - 1 {
            self.line.push(b);
        } else if self.termios.input(flag::IMAXBEL) {
            self.emit(7);
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        self.lines.push_back(line.len());
        self.input.extend(line);
    }

    /// Notes where on the screen a line begins.
    fn note_column(&mut self) {
        if self.line.is_empty() {
            self.line_column = self.column;
        }
    }

    fn kill_line(&mut self, b: u8) {
        let t = self.termios;
        if self.line.is_empty() {
            return;
        }
        if !t.local(flag::ECHO) {
            self.line.clear();
        } else if t.local(flag::ECHOK) && t.local(flag::ECHOKE) && t.local(flag::ECHOE) {
            while self.last_character().is_some() {
                self.erase_one(true);
            }
            self.end_erasing_at_start();
        } else {
            self.line.clear();
            self.end_erasing();
            self.echo(b);
            if t.local(flag::ECHOK) {
                self.put(b'\n');
            }
        }
    }

    /// Where the last character of the line begins.
    fn last_start(&self) -> Option<usize> {
        self.line.iter().rposition(|b| !self.termios.continues(*b))
    }

    /// The first byte of the line's last character.
    fn last_character(&self) -> Option<u8> {
        self.line.get(self.last_start()?).copied()
    }

    /// Takes the last character of the line away, on the screen as well; `wipes`: not by showing what erases.
    fn erase_one(&mut self, wipes: bool) {
        let t = self.termios;
        let Some(start) = self.last_start() else { return };
        let gone = self.line.split_off(start);
        let (Some(first), true) = (gone.first().copied(), t.local(flag::ECHO)) else { return };
        let control = first.is_ascii_control();
        if t.local(flag::ECHOPRT) {
            if !self.erasing {
                self.erasing = true;
                self.put(b'\\');
            }
            self.echo(first);
            for b in gone.iter().skip(1) {
                self.put(*b);
            }
        } else if !wipes {
            self.echo(t.character(special::ERASE));
        } else if first == b'\t' {
            // Back to where the tab began: after another one, or counted from where the line does.
            let rest = self.line.iter().rposition(|b| *b == b'\t');
            let from = if rest.is_some() { 0 } else { self.line_column };
            let typed = self.line.get(rest.map_or(0, |r| r + 1)..).unwrap_or_default();
            let width = |b: &u8| match b {
                b if b.is_ascii_control() => usize::from(t.local(flag::ECHOCTL)) * 2,
                b => usize::from(!t.continues(*b)),
            };
            let columns = from + typed.iter().map(width).sum::<usize>();
            for _ in columns % 8..8 {
                self.emit(8);
                self.column = self.column.saturating_sub(1);
            }
        } else {
            let width = if control { usize::from(t.local(flag::ECHOCTL)) * 2 } else { 1 };
            for b in b"\x08 \x08".repeat(width) {
                self.put(b);
            }
        }
    }

    fn end_erasing(&mut self) {
        if std::mem::take(&mut self.erasing) {
            self.put(b'/');
        }
    }

    fn end_erasing_at_start(&mut self) {
        if self.line.is_empty() && self.termios.local(flag::ECHO) {
            self.end_erasing();
        }
    }

    /// Echoes a character, if that is wanted: control characters as `^X`.
    fn echo(&mut self, b: u8) {
        if !self.termios.local(flag::ECHO) {
            return;
        }
        if b.is_ascii_control() && b != b'\t' && self.termios.local(flag::ECHOCTL) {
            self.emit(b'^');
            self.emit(b ^ 0x40);
            self.column += 2;
        } else {
            self.put(b);
        }
    }

    /// One byte for the other end as it is. While output is stopped there is only echo, which waits; what there is no room
    /// for is lost (a write looks for room first).
    fn emit(&mut self, b: u8) {
        let (to, most) = if self.stopped { (&mut self.held, ECHO_MAX) } else { (&mut self.output, OUTPUT_MAX) };
        if to.len() < most {
            to.push_back(b);
        }
    }

    /// One character of output, processed.
    pub(super) fn put(&mut self, b: u8) {
        let t = self.termios;
        if !t.output(flag::OPOST) {
            self.emit(b);
            return;
        }
        match b {
            b'\n' => {
                if t.output(flag::ONLRET) || t.output(flag::ONLCR) {
                    self.column = 0;
                }
                self.line_column = self.column;
                if t.output(flag::ONLCR) {
                    self.emit(b'\r');
                }
                self.emit(b);
            }
            b'\r' if t.output(flag::ONOCR) && self.column == 0 => {}
            b'\r' => {
                let newline = t.output(flag::OCRNL);
                if !newline || t.output(flag::ONLRET) {
                    (self.column, self.line_column) = (0, 0);
                }
                self.emit(if newline { b'\n' } else { b });
            }
            b'\t' => {
                let n = 8 - self.column % 8;
                self.column += n;
                if t.output(flag::XTABS) {
                    (0..n).for_each(|_| self.emit(b' '));
                } else {
                    self.emit(b);
                }
            }
            8 => {
                self.column = self.column.saturating_sub(1);
                self.emit(b);
            }
            b if b.is_ascii_control() => self.emit(b),
            b => {
                self.column += usize::from(!t.continues(b));
                self.emit(if t.output(flag::OLCUC) { b.to_ascii_uppercase() } else { b });
            }
        }
    }
}
