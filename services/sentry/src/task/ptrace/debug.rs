//! Debug registers, `PTRACE_POKEUSER` of `u_debugreg`: breakpoints and watched memory.
//!
//! The processor's own belong to the host, and a Sentry has no right to them in its stubs. A tracee with something to watch runs
//! step by step instead, and what is watched is compared after each: writes and places are seen as by the hardware, if much
//! later in time; reads cannot be seen, and are refused as where no register is free.

use std::sync::Arc;

use cofferdam_platform::{Answer, Frame};

use super::Mode;
use crate::errno::Errno;
use crate::signal::{SigInfo, sig};
use crate::task::Task;

/// How many there are.
const SLOTS: usize = 4;
/// Bits of the status register that are always set.
const STATUS_FIXED: u64 = 0xffff_0ff0;
/// A single step, in the status register.
const STATUS_STEP: u64 = 0x4000;
/// First address that is not a program's.
const END: u64 = 0x7fff_ffff_f000;
/// `si_code` of what debug registers raise.
const TRAP_HWBKPT: i32 = 4;

/// What to stop at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watched {
    /// An instruction.
    Place(u64),
    /// Bytes that are written to.
    Memory(u64, usize),
}

/// A tracee's debug registers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DebugRegisters {
    address: [u64; SLOTS],
    /// Without the fixed bits.
    status: u64,
    control: u64,
    /// What was in the watched memory when the task was let run.
    before: [u64; SLOTS],
}

impl DebugRegisters {
    /// What a control register asks for; EINVAL for what no processor has.
    fn watched(address: &[u64; SLOTS], control: u64) -> Result<[Option<Watched>; SLOTS], Errno> {
        let mut out = [None; SLOTS];
        for (i, (to, at)) in out.iter_mut().zip(address).enumerate() {
            if control >> (2 * i) & 3 == 0 {
                continue;
            }
            let bits = control >> (16 + 4 * i);
            let len = [1usize, 2, 8, 4].get((bits >> 2 & 3) as usize).copied().unwrap_or(1);
            if !at.is_multiple_of(len as u64) {
                return Err(Errno::EINVAL);
            }
            *to = Some(match bits & 3 {
                0 if len == 1 => Watched::Place(*at),
                1 => Watched::Memory(*at, len),
                3 => return Err(Errno::ENOSPC),
                _ => return Err(Errno::EINVAL),
            });
        }
        Ok(out)
    }

    /// What is watched now.
    fn now(&self) -> [Option<Watched>; SLOTS] {
        Self::watched(&self.address, self.control).unwrap_or_default()
    }

    /// Whether anything is.
    pub(crate) fn any(&self) -> bool {
        self.control & 0xff != 0
    }

    /// `PTRACE_PEEKUSER`.
    pub(crate) fn get(&self, index: usize) -> u64 {
        match index {
            6 => self.status ^ STATUS_FIXED,
            7 => self.control,
            i => self.address.get(i).copied().unwrap_or(0),
        }
    }

    /// `PTRACE_POKEUSER`.
    pub(crate) fn set(&mut self, index: usize, value: u64) -> Result<(), Errno> {
        match index {
            6 => self.status = value ^ STATUS_FIXED,
            7 => {
                Self::watched(&self.address, value)?;
                self.control = value;
            }
            i => {
                let mut address = self.address;
                *address.get_mut(i).ok_or(Errno::EIO)? = value;
                if value >= END {
                    return Err(Errno::EPERM);
                }
                Self::watched(&address, self.control)?;
                self.address = address;
            }
        }
        Ok(())
    }
}

/// Bytes of watched memory as a number; what cannot be read counts as zero.
fn content(task: &Task, at: u64, len: usize) -> u64 {
    let mut bytes = [0; 8];
    if let Some(to) = bytes.get_mut(..len) {
        let _ = task.read_exact(at, to);
    }
    u64::from_le_bytes(bytes)
}

impl Task {
    /// Notes what the watched memory holds before the task runs. Whether there is something to watch.
    pub(crate) fn watch(&self) -> bool {
        let debug = {
            let t = self.trace.lock();
            if t.tracer.is_none() || !t.debug.any() {
                return false;
            }
            t.debug
        };
        let before = debug.now().map(|w| match w {
            Some(Watched::Memory(at, len)) => content(self, at, len),
            _ => 0,
        });
        self.trace.lock().debug.before = before;
        true
    }

    /// A step is done: the answer, unless the tracer is to be told of the step itself.
    pub(crate) fn watched_step(self: &Arc<Self>, frame: &mut dyn Frame) -> Option<Answer> {
        let (debug, mode) = {
            let t = self.trace.lock();
            (t.debug, t.mode)
        };
        if !debug.any() {
            return None;
        }
        let rip = frame.registers().rip;
        let mut hits = 0;
        for (i, (watched, before)) in debug.now().into_iter().zip(debug.before).enumerate() {
            let hit = match watched {
                Some(Watched::Place(at)) => at == rip,
                Some(Watched::Memory(at, len)) => content(self, at, len) != before,
                None => false,
            };
            hits |= u64::from(hit) << i;
        }
        let steps = mode == Mode::Step || mode == Mode::EmulateStep;
        if hits != 0 || steps {
            self.trace.lock().debug.status = hits | if steps { STATUS_STEP } else { 0 };
        }
        if steps {
            return None;
        }
        if hits != 0 {
            self.force_signal(SigInfo::fault(sig::TRAP, TRAP_HWBKPT, rip));
        }
        Some(self.to_user(frame, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_watched_is_taken() {
        let mut d = DebugRegisters::default();
        assert_eq!(d.get(6), STATUS_FIXED);
        d.set(0, 0x1004).unwrap();
        d.set(1, 0x2001).unwrap();
        // Four bytes at the first, written to; an instruction at the second.
        d.set(7, 0x000d_0005).unwrap();
        assert_eq!(d.now(), [Some(Watched::Memory(0x1004, 4)), Some(Watched::Place(0x2001)), None, None]);
        assert!(d.any());
        assert_eq!(d.set(0, 0x1006), Err(Errno::EINVAL), "not aligned");
        assert_eq!(d.set(0, u64::MAX), Err(Errno::EPERM));
        assert_eq!(d.set(7, 0x000f_0001), Err(Errno::ENOSPC), "reads");
        assert_eq!(d.set(7, 0x000e_0001), Err(Errno::EINVAL), "I/O");
        assert_eq!(d.set(4, 1), Err(Errno::EIO));
        assert_eq!(d.get(7), 0x000d_0005, "as it was");
        d.set(7, 0).unwrap();
        assert!(!d.any());
    }
}
