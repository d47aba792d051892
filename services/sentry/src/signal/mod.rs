//! Signals: numbers, sets, actions, and what is pending. `signal(7)`.
//!
//! Sending is in `send`, delivery to a handler and return from it in `deliver`.

use std::collections::VecDeque;

use crate::task::Task;

pub mod deliver;
pub mod frame;
pub mod send;

/// Highest signal number.
pub const MAX: i32 = 64;
/// First real-time signal.
pub const RT_MIN: i32 = 32;

#[allow(missing_docs, dead_code, reason = "the ABI's table, given whole")]
pub mod sig {
    pub const HUP: i32 = 1;
    pub const INT: i32 = 2;
    pub const QUIT: i32 = 3;
    pub const ILL: i32 = 4;
    pub const TRAP: i32 = 5;
    pub const ABRT: i32 = 6;
    pub const BUS: i32 = 7;
    pub const FPE: i32 = 8;
    pub const KILL: i32 = 9;
    pub const USR1: i32 = 10;
    pub const SEGV: i32 = 11;
    pub const USR2: i32 = 12;
    pub const PIPE: i32 = 13;
    pub const ALRM: i32 = 14;
    pub const TERM: i32 = 15;
    pub const STKFLT: i32 = 16;
    pub const CHLD: i32 = 17;
    pub const CONT: i32 = 18;
    pub const STOP: i32 = 19;
    pub const TSTP: i32 = 20;
    pub const TTIN: i32 = 21;
    pub const TTOU: i32 = 22;
    pub const URG: i32 = 23;
    pub const XCPU: i32 = 24;
    pub const XFSZ: i32 = 25;
    pub const VTALRM: i32 = 26;
    pub const PROF: i32 = 27;
    pub const WINCH: i32 = 28;
    pub const IO: i32 = 29;
    pub const PWR: i32 = 30;
    pub const SYS: i32 = 31;
}

/// A set of signals: bit N-1 for signal N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SigSet(pub u64);

impl SigSet {
    /// The signals that can be neither caught nor blocked.
    pub const UNBLOCKABLE: SigSet = SigSet(1 << (sig::KILL - 1) | 1 << (sig::STOP - 1));
    /// Signals that stop by default.
    pub const STOPPING: SigSet =
        SigSet(1 << (sig::STOP - 1) | 1 << (sig::TSTP - 1) | 1 << (sig::TTIN - 1) | 1 << (sig::TTOU - 1));
    /// Signals that a processor exception raises.
    pub const SYNCHRONOUS: SigSet = SigSet(
        1 << (sig::SEGV - 1)
            | 1 << (sig::BUS - 1)
            | 1 << (sig::ILL - 1)
            | 1 << (sig::TRAP - 1)
            | 1 << (sig::FPE - 1)
            | 1 << (sig::SYS - 1),
    );

    /// Bit of one signal; 0 for no signal.
    pub fn bit(signal: i32) -> u64 {
        if (1..=MAX).contains(&signal) { 1 << (signal - 1) } else { 0 }
    }

    /// Whether the signal is in the set.
    pub fn has(self, signal: i32) -> bool {
        self.0 & Self::bit(signal) != 0
    }
}

/// Whether a number is a signal's.
pub fn valid(signal: i32) -> bool {
    (1..=MAX).contains(&signal)
}

/// `SIG_DFL`.
pub const SIG_DFL: u64 = 0;
/// `SIG_IGN`.
pub const SIG_IGN: u64 = 1;

#[allow(missing_docs, dead_code, reason = "the ABI's table, given whole")]
pub mod sa {
    pub const NOCLDSTOP: u64 = 1;
    pub const NOCLDWAIT: u64 = 2;
    pub const SIGINFO: u64 = 4;
    pub const RESTORER: u64 = 0x0400_0000;
    pub const ONSTACK: u64 = 0x0800_0000;
    pub const RESTART: u64 = 0x1000_0000;
    pub const NODEFER: u64 = 0x4000_0000;
    pub const RESETHAND: u64 = 0x8000_0000;
}

/// `struct kernel_sigaction`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
pub struct Action {
    /// Handler's address, `SIG_DFL` or `SIG_IGN`.
    pub handler: u64,
    /// `SA_*`.
    pub flags: u64,
    /// Where the handler returns to.
    pub restorer: u64,
    /// Signals blocked while the handler runs.
    pub mask: u64,
}

/// The actions of a process, by signal.
#[derive(Clone)]
pub struct Actions(Vec<Action>);

impl Default for Actions {
    fn default() -> Self {
        Self(vec![Action::default(); MAX as usize])
    }
}

impl Actions {
    /// The action for a signal.
    pub fn get(&self, signal: i32) -> Action {
        usize::try_from(signal - 1).ok().and_then(|i| self.0.get(i)).copied().unwrap_or_default()
    }

    /// Sets it.
    pub fn set(&mut self, signal: i32, action: Action) {
        if let Some(a) = usize::try_from(signal - 1).ok().and_then(|i| self.0.get_mut(i)) {
            *a = action;
        }
    }

    /// Those of a process that begins with these signals ignored (bit 0 is signal 1).
    pub fn ignoring(signals: u64) -> Self {
        let mut new = Self::default();
        for signal in (1..=64).filter(|s| signals & 1 << (s - 1) != 0 && ![sig::KILL, sig::STOP].contains(s)) {
            new.set(signal, Action { handler: SIG_IGN, ..Action::default() });
        }
        new
    }

    /// As `execve` leaves them: handlers to default, ignored stay ignored.
    pub fn exec(&mut self) {
        for a in &mut self.0 {
            let handler = if a.handler == SIG_IGN { SIG_IGN } else { SIG_DFL };
            *a = Action { handler, ..Action::default() };
        }
    }

    /// The ignored and the caught signals.
    pub fn sets(&self) -> (SigSet, SigSet) {
        let (mut ignored, mut caught) = (0, 0);
        for (i, a) in self.0.iter().enumerate() {
            match a.handler {
                SIG_DFL => {}
                SIG_IGN => ignored |= 1 << i,
                _ => caught |= 1 << i,
            }
        }
        (SigSet(ignored), SigSet(caught))
    }
}

/// What a signal does by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default_ {
    /// Ends the process.
    Terminate,
    /// Ends it with a core dump.
    Core,
    /// Nothing.
    Ignore,
    /// Stops it.
    Stop,
    /// Continues it.
    Continue,
}

/// The default of a signal.
pub fn default_of(signal: i32) -> Default_ {
    match signal {
        sig::CHLD | sig::URG | sig::WINCH => Default_::Ignore,
        sig::CONT => Default_::Continue,
        sig::STOP | sig::TSTP | sig::TTIN | sig::TTOU => Default_::Stop,
        sig::QUIT
        | sig::ILL
        | sig::TRAP
        | sig::ABRT
        | sig::BUS
        | sig::FPE
        | sig::SEGV
        | sig::XCPU
        | sig::XFSZ
        | sig::SYS => Default_::Core,
        _ => Default_::Terminate,
    }
}

#[allow(missing_docs, dead_code, reason = "the ABI's table, given whole")]
pub mod code {
    pub const USER: i32 = 0;
    pub const KERNEL: i32 = 0x80;
    pub const QUEUE: i32 = -1;
    pub const TIMER: i32 = -2;
    pub const MESGQ: i32 = -3;
    pub const TKILL: i32 = -6;
    pub const CLD_EXITED: i32 = 1;
    pub const CLD_KILLED: i32 = 2;
    pub const CLD_DUMPED: i32 = 3;
    pub const CLD_TRAPPED: i32 = 4;
    pub const CLD_STOPPED: i32 = 5;
    pub const CLD_CONTINUED: i32 = 6;
}

/// `siginfo_t`: signal, errno, code, and the 112 bytes that depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigInfo {
    /// The signal.
    pub signo: i32,
    /// `si_errno`.
    pub errno: i32,
    /// `si_code`.
    pub code: i32,
    /// The union, as in memory.
    pub fields: [u8; 112],
}

impl SigInfo {
    /// With an empty union.
    pub fn new(signo: i32, code: i32) -> Self {
        Self { signo, errno: 0, code, fields: [0; 112] }
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(to) = self.fields.get_mut(at..at + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    }

    /// Sent by a process: `si_pid`, `si_uid`.
    pub fn from_process(signo: i32, code: i32, pid: i32, uid: u32) -> Self {
        let mut s = Self::new(signo, code);
        s.put(0, &pid.to_le_bytes());
        s.put(4, &uid.to_le_bytes());
        s
    }

    /// With a value, as of `sigqueue`.
    #[must_use]
    pub fn with_value(mut self, value: u64) -> Self {
        self.put(8, &value.to_le_bytes());
        self
    }

    /// Whether it has `si_pid` and `si_uid`.
    fn has_sender(&self) -> bool {
        const SIGIO: i32 = -5;
        match self.code {
            code::TIMER | SIGIO => false,
            c if c <= 0 => true,
            c => self.signo == sig::CHLD && (code::CLD_EXITED..=code::CLD_CONTINUED).contains(&c),
        }
    }

    fn sender(&self) -> (i32, u32) {
        let word = |at: usize| self.fields.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
        (i32::from_le_bytes(word(0)), u32::from_le_bytes(word(4)))
    }

    /// As the process of `task` sees it; and whether it comes from the kernel or from someone whom that process does not see.
    pub fn seen_by(mut self, task: &Task) -> (Self, bool) {
        if self.code > 0 && self.signo != sig::CHLD || !self.has_sender() {
            return (self, self.code > 0);
        }
        let (pid, uid) = self.sender();
        let seen = task.shown(pid);
        self.put(0, &seen.to_le_bytes());
        self.put(4, &task.creds().shown_uid(uid).to_le_bytes());
        (self, self.code > 0 || seen == 0)
    }

    /// With the ids that `task` gave it as what they are to all.
    pub fn given_by(mut self, task: &Task) -> Self {
        if self.has_sender() {
            let (pid, uid) = self.sender();
            self.put(0, &task.id_of(pid).to_le_bytes());
            let uid = task.creds().user_ns.kernel_uid(uid).unwrap_or(u32::MAX);
            self.put(4, &uid.to_le_bytes());
        }
        self
    }

    /// Of an open file: why (`POLL_*`), `si_band` and `si_fd`.
    pub fn poll(signo: i32, why: i32, band: u32, fd: i32) -> Self {
        let mut s = Self::new(signo, why);
        s.put(0, &u64::from(band).to_le_bytes());
        s.put(8, &fd.to_le_bytes());
        s
    }

    /// Raised by a processor exception: `si_addr`.
    pub fn fault(signo: i32, code: i32, address: u64) -> Self {
        let mut s = Self::new(signo, code);
        s.put(0, &address.to_le_bytes());
        s
    }

    /// A call that a filter refuses (`SYS_SECCOMP`): `si_call_addr`, `si_syscall`, `si_arch`.
    pub fn bad_call(address: u64, number: i32, arch: u32, errno: i32) -> Self {
        let mut s = Self { errno, ..Self::fault(sig::SYS, 1, address) };
        s.put(8, &number.to_le_bytes());
        s.put(12, &arch.to_le_bytes());
        s
    }

    /// A child's change of state: `si_pid`, `si_uid`, `si_status`.
    pub fn child(code: i32, pid: i32, uid: u32, status: i32) -> Self {
        let mut s = Self::from_process(sig::CHLD, code, pid, uid);
        s.put(8, &status.to_le_bytes());
        s
    }

    /// Of a POSIX timer: `si_timerid`, `si_overrun` (for now 0), `si_value`.
    pub fn timer(signo: i32, id: i32, value: u64) -> Self {
        let mut s = Self::new(signo, code::TIMER);
        s.put(0, &id.to_le_bytes());
        s.put(8, &value.to_le_bytes());
        s
    }

    /// The timer it is of.
    pub fn timer_id(&self) -> Option<i32> {
        let id = self.fields.first_chunk().copied().map(i32::from_le_bytes);
        id.filter(|_| self.code == code::TIMER)
    }

    /// Sets `si_overrun`.
    pub fn set_overrun(&mut self, overrun: i32) {
        self.put(4, &overrun.to_le_bytes());
    }

    /// As in memory.
    pub fn to_bytes(self) -> [u8; 128] {
        let mut b = [0; 128];
        for (at, v) in [(0, self.signo), (4, self.errno), (8, self.code)] {
            if let Some(to) = b.get_mut(at..at + 4) {
                to.copy_from_slice(&v.to_le_bytes());
            }
        }
        if let Some(to) = b.get_mut(16..) {
            to.copy_from_slice(&self.fields);
        }
        b
    }

    /// From memory.
    pub fn from_bytes(b: &[u8; 128]) -> Self {
        let int = |at: usize| b.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_le_bytes);
        let mut fields = [0; 112];
        fields.copy_from_slice(b.get(16..).unwrap_or(&[0; 112]));
        Self { signo: int(0), errno: int(4), code: int(8), fields }
    }
}

/// Signals sent and not yet delivered.
#[derive(Default)]
pub struct Pending {
    queue: VecDeque<SigInfo>,
    set: u64,
}

impl Pending {
    /// Adds a signal; standard signals queue once. Whether it was added. `limit`: RLIMIT_SIGPENDING, for real-time ones.
    pub fn push(&mut self, info: SigInfo, limit: usize) -> bool {
        let bit = SigSet::bit(info.signo);
        if info.signo < RT_MIN && self.set & bit != 0 {
            return true;
        }
        if info.signo >= RT_MIN && self.queue.len() >= limit && info.code != code::USER {
            return false;
        }
        self.set |= bit;
        self.queue.push_back(info);
        true
    }

    /// The set of pending signals.
    pub fn set(&self) -> SigSet {
        SigSet(self.set)
    }

    /// How many wait.
    pub fn count(&self) -> usize {
        self.queue.len()
    }

    /// Whether a signal of this POSIX timer waits.
    pub fn has_timer(&self, id: i32) -> bool {
        self.queue.iter().any(|i| i.timer_id() == Some(id))
    }

    /// Takes the next one that is in `wanted`: synchronous ones first, then by number.
    pub fn take(&mut self, wanted: SigSet) -> Option<SigInfo> {
        let ready = self.set & wanted.0;
        if ready == 0 {
            return None;
        }
        let first = if ready & SigSet::SYNCHRONOUS.0 != 0 { ready & SigSet::SYNCHRONOUS.0 } else { ready };
        let signal = first.trailing_zeros() as i32 + 1;
        let at = self.queue.iter().position(|i| i.signo == signal)?;
        let info = self.queue.remove(at)?;
        if !self.queue.iter().any(|i| i.signo == signal) {
            self.set &= !SigSet::bit(signal);
        }
        Some(info)
    }

    /// The one at a place in the order in which they came.
    pub fn at(&self, index: usize) -> Option<SigInfo> {
        self.queue.get(index).copied()
    }

    /// Drops all that are in `which`.
    pub fn discard(&mut self, which: SigSet) {
        self.queue.retain(|i| !which.has(i.signo));
        self.set &= !which.0;
    }
}

/// A signal stack (`stack_t`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
pub struct AltStack {
    /// Lowest address.
    pub sp: u64,
    /// `SS_*`.
    pub flags: i32,
    /// Padding.
    pub pad: i32,
    /// Bytes.
    pub size: u64,
}

/// `SS_ONSTACK`.
pub const SS_ONSTACK: i32 = 1;
/// `SS_DISABLE`.
pub const SS_DISABLE: i32 = 2;
/// `SS_AUTODISARM`.
pub const SS_AUTODISARM: i32 = i32::MIN;

impl AltStack {
    /// Whether a stack pointer lies on it.
    pub fn contains(&self, sp: u64) -> bool {
        self.size != 0 && self.flags & SS_DISABLE == 0 && sp > self.sp && sp - self.sp <= self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_signals_queue_once_and_real_time_ones_in_order() {
        let mut p = Pending::default();
        for v in 0..3 {
            p.push(SigInfo::new(sig::USR1, code::USER), 100);
            p.push(SigInfo::from_process(40, code::QUEUE, 1, 0).with_value(v), 100);
        }
        let all = SigSet(!0);
        assert_eq!(p.take(all).unwrap().signo, sig::USR1);
        for v in 0..3u64 {
            let i = p.take(all).unwrap();
            assert_eq!((i.signo, i.fields[8]), (40, v as u8));
        }
        assert!(p.take(all).is_none());
        assert_eq!(p.set(), SigSet(0));
    }

    #[test]
    fn synchronous_signals_come_first() {
        let mut p = Pending::default();
        p.push(SigInfo::new(sig::HUP, 0), 1);
        p.push(SigInfo::new(sig::SEGV, 1), 1);
        assert_eq!(p.take(SigSet(!0)).unwrap().signo, sig::SEGV);
    }
}
