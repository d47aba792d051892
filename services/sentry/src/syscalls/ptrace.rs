//! `ptrace(2)`, and copies from and to another process's memory: the requests. What they do to a tracee is `task::ptrace`'s.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::read_write::RawVec;
use super::{Entry, Outcome, SysResult, UserPtr, done, value};
use crate::entry;
use crate::errno::Errno;
use crate::ipc::epoll::EpollFile;
use crate::signal::{SigInfo, SigSet, sig};
use crate::task::creds::may_look_into;
use crate::task::ptrace::memory::Written;
use crate::task::ptrace::registers::{self, View, WORDS};
use crate::task::ptrace::{CallStop, Mode, Stopped, attach, deliverable, option};
use crate::task::{Task, seccomp};
use crate::uio::IoVec;
use crate::wait::{PollMask, Wait, WaitQueue};

/// `PTRACE_*`.
mod request {
    pub const TRACEME: i64 = 0;
    pub const PEEKTEXT: i64 = 1;
    pub const PEEKDATA: i64 = 2;
    pub const PEEKUSR: i64 = 3;
    pub const POKETEXT: i64 = 4;
    pub const POKEDATA: i64 = 5;
    pub const POKEUSR: i64 = 6;
    pub const CONT: i64 = 7;
    pub const KILL: i64 = 8;
    pub const SINGLESTEP: i64 = 9;
    pub const GETREGS: i64 = 12;
    pub const SETREGS: i64 = 13;
    pub const GETFPREGS: i64 = 14;
    pub const SETFPREGS: i64 = 15;
    pub const ATTACH: i64 = 16;
    pub const DETACH: i64 = 17;
    pub const SYSCALL: i64 = 24;
    pub const ARCH_PRCTL: i64 = 30;
    pub const SYSEMU: i64 = 31;
    pub const SYSEMU_SINGLESTEP: i64 = 32;
    pub const SETOPTIONS: i64 = 0x4200;
    pub const GETEVENTMSG: i64 = 0x4201;
    pub const GETSIGINFO: i64 = 0x4202;
    pub const SETSIGINFO: i64 = 0x4203;
    pub const GETREGSET: i64 = 0x4204;
    pub const SETREGSET: i64 = 0x4205;
    pub const SEIZE: i64 = 0x4206;
    pub const INTERRUPT: i64 = 0x4207;
    pub const LISTEN: i64 = 0x4208;
    pub const PEEKSIGINFO: i64 = 0x4209;
    pub const GETSIGMASK: i64 = 0x420a;
    pub const SETSIGMASK: i64 = 0x420b;
    pub const GET_SYSCALL_INFO: i64 = 0x420e;
}

/// Bytes of `struct user` as the kernel has it, and where the debug registers lie in it.
const USER_LEN: u64 = 928;
const DEBUG: u64 = 848;
const DEBUG_END: u64 = DEBUG + 64;
const FPREGS: usize = 512;
const NT_PRSTATUS: u64 = 1;
const NT_PRFPREG: u64 = 2;
const NT_X86_XSTATE: u64 = 0x202;

/// `struct ptrace_peeksiginfo_args`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
struct PeekSigInfo {
    off: u64,
    flags: u32,
    nr: i32,
}

fn ptrace(task: &Arc<Task>, request: i64, pid: i32, address: u64, data: u64) -> SysResult {
    use request::*;
    if request == TRACEME {
        attach::trace_me(task)?;
        return done();
    }
    let tracee = task.kernel().tree.lock().task(task.id_of(pid)).ok_or(Errno::ESRCH)?;
    match request {
        ATTACH => {
            attach::attach(task, &tracee, None)?;
            return done();
        }
        SEIZE => {
            if address != 0 || data & !u64::from(option::MASK) != 0 {
                return Err(Errno::EIO);
            }
            attach::attach(task, &tracee, Some(options(data)?))?;
            return done();
        }
        INTERRUPT => {
            tracee.trace_interrupt(task)?;
            return done();
        }
        KILL => {
            if tracee.tracer() != task.tid() {
                return Err(Errno::ESRCH);
            }
            crate::signal::send::to_task(&tracee, SigInfo::new(sig::KILL, crate::signal::code::KERNEL));
            return done();
        }
        _ => {}
    }
    // All others want it stopped.
    tracee.with_stop(task, |_, _| Ok(()))?;
    match request {
        CONT => go(task, &tracee, Mode::Continue, data),
        SYSCALL => go(task, &tracee, Mode::Syscall, data),
        SINGLESTEP => go(task, &tracee, Mode::Step, data),
        SYSEMU => go(task, &tracee, Mode::Emulate, data),
        SYSEMU_SINGLESTEP => go(task, &tracee, Mode::EmulateStep, data),
        DETACH => {
            attach::detach(task, &tracee, deliverable(data)?)?;
            done()
        }
        LISTEN => {
            tracee.trace_listen(task)?;
            done()
        }
        SETOPTIONS => {
            let new = options(data)?;
            tracee.with_stop(task, |t, _| {
                t.options = new;
                Ok(())
            })?;
            done()
        }
        GETEVENTMSG => {
            let message = tracee.with_stop(task, |t, _| Ok(t.message))?;
            put(task, data, &message.to_le_bytes())
        }
        PEEKTEXT | PEEKDATA => {
            let mut word = [0; 8];
            match tracee.peek(address, &mut word) {
                Ok(8) => put(task, data, &word),
                _ => Err(Errno::EIO),
            }
        }
        POKETEXT | POKEDATA => poke(&tracee, address, data),
        PEEKUSR => {
            let word = peek_user(task, &tracee, address)?;
            put(task, data, &word.to_le_bytes())
        }
        POKEUSR => poke_user(task, &tracee, address, data),
        GETREGS => {
            let words = tracee.with_stop(task, |_, s| Ok(s.registers.words()))?;
            put(task, data, words.as_bytes())
        }
        SETREGS => {
            let words = UserPtr::<[u64; WORDS]>::new(data).read(task)?;
            set_registers(task, &tracee, &words)
        }
        GETFPREGS => {
            let area = tracee.with_stop(task, |_, s| Ok(registers::shown(&s.state)))?;
            put(task, data, area.get(..FPREGS).unwrap_or(&area))
        }
        SETFPREGS => {
            let mut new = [0; FPREGS];
            task.read_exact(data, &mut new)?;
            set_state(task, &tracee, &new, true)
        }
        GETREGSET => get_set(task, &tracee, address, UserPtr::new(data)),
        SETREGSET => set_set(task, &tracee, address, UserPtr::new(data)),
        GETSIGINFO => {
            let info = tracee.with_stop(task, |_, s| s.info.ok_or(Errno::EINVAL))?;
            put(task, data, &info.to_bytes())
        }
        SETSIGINFO => {
            let mut bytes = [0; 128];
            task.read_exact(data, &mut bytes)?;
            tracee.with_stop(task, |_, s| {
                *s.info.as_mut().ok_or(Errno::EINVAL)? = SigInfo::from_bytes(&bytes);
                Ok(())
            })?;
            done()
        }
        PEEKSIGINFO => peek_signals(task, &tracee, UserPtr::new(address), data),
        GETSIGMASK => {
            if address != 8 {
                return Err(Errno::EINVAL);
            }
            let mask = tracee.state.lock().saved_mask.unwrap_or(tracee.mask().0);
            put(task, data, &mask.to_le_bytes())
        }
        SETSIGMASK => {
            if address != 8 {
                return Err(Errno::EINVAL);
            }
            let mask = UserPtr::<u64>::new(data).read(task)?;
            tracee.state.lock().saved_mask = None;
            tracee.set_mask(SigSet(mask));
            done()
        }
        GET_SYSCALL_INFO => syscall_info(task, &tracee, address, data),
        ARCH_PRCTL => base(task, &tracee, address, data),
        _ => Err(Errno::EIO),
    }
}

/// Options of `PTRACE_SETOPTIONS` and `PTRACE_SEIZE`: no filter of a tracee can be suspended.
fn options(data: u64) -> Result<u32, Errno> {
    let options = u32::try_from(data).map_err(|_| Errno::EINVAL)?;
    if options & !option::MASK != 0 || options & option::SUSPEND_SECCOMP != 0 {
        Err(Errno::EINVAL)
    } else {
        Ok(options)
    }
}

fn go(task: &Arc<Task>, tracee: &Arc<Task>, mode: Mode, signal: u64) -> SysResult {
    let signal = deliverable(signal)?;
    tracee.let_go(task, mode, signal)?;
    done()
}

fn put(task: &Arc<Task>, at: u64, bytes: &[u8]) -> SysResult {
    task.write_exact(at, bytes)?;
    done()
}

fn poke(tracee: &Arc<Task>, address: u64, data: u64) -> SysResult {
    let queue = WaitQueue::new();
    match tracee.poke(address, data.to_le_bytes().to_vec(), &queue)? {
        Written::Done => done(),
        Written::Later(poke) => {
            let mut wait = Wait::new(move |_, _| poke.result().map(|r| r.map(|()| 0)));
            // It takes two stops of a thread that is stopped already: signals can wait.
            wait.uninterruptible = true;
            Ok(Outcome::Block(wait.on(&queue, PollMask::empty())))
        }
    }
}

/// Whether a debug register has an address in `struct user`, and which.
fn debug_register(address: u64) -> Option<usize> {
    let index = (DEBUG..DEBUG_END).contains(&address).then(|| (address - DEBUG) / 8)?;
    usize::try_from(index).ok()
}

fn peek_user(task: &Arc<Task>, tracee: &Arc<Task>, address: u64) -> Result<u64, Errno> {
    if !address.is_multiple_of(8) || address >= USER_LEN {
        return Err(Errno::EIO);
    }
    let index = usize::try_from(address / 8).map_err(|_| Errno::EIO)?;
    // All else reads as zero.
    tracee.with_stop(task, |t, s| match debug_register(address) {
        Some(n) => Ok(t.debug.get(n)),
        None => Ok(s.registers.words().get(index).copied().unwrap_or(0)),
    })
}

fn poke_user(task: &Arc<Task>, tracee: &Arc<Task>, address: u64, data: u64) -> SysResult {
    if !address.is_multiple_of(8) || address >= USER_LEN {
        return Err(Errno::EIO);
    }
    let index = usize::try_from(address / 8).map_err(|_| Errno::EIO)?;
    if index < WORDS {
        return change(task, tracee, |view| view.set(index, data));
    }
    let index = debug_register(address).ok_or(Errno::EIO)?;
    tracee.with_stop(task, |t, _| t.debug.set(index, data))?;
    done()
}

/// Changes registers, all or none.
fn change(task: &Arc<Task>, tracee: &Arc<Task>, f: impl FnOnce(&mut View) -> Result<(), Errno>) -> SysResult {
    let mm = tracee.mm();
    tracee.with_stop(task, |_, s| {
        let mut view = s.registers;
        f(&mut view)?;
        // Patched call sites find their thread by %gs.
        if view.gs_base != s.registers.gs_base && !mm.sites.turn_off() {
            return Err(Errno::EIO);
        }
        s.registers = view;
        Ok(())
    })?;
    done()
}

fn set_registers(task: &Arc<Task>, tracee: &Arc<Task>, words: &[u64]) -> SysResult {
    change(task, tracee, |view| words.iter().enumerate().try_for_each(|(i, w)| view.set(i, *w)))
}

fn set_state(task: &Arc<Task>, tracee: &Arc<Task>, new: &[u8], legacy_only: bool) -> SysResult {
    tracee.with_stop(task, |_, s| {
        registers::replace(&mut s.state, new, legacy_only)?;
        s.state_set = true;
        Ok(())
    })?;
    done()
}

fn get_set(task: &Arc<Task>, tracee: &Arc<Task>, kind: u64, at: UserPtr<RawVec>) -> SysResult {
    let mut to = at.read(task)?;
    let whole = tracee.with_stop(task, |_, s| {
        Ok(match kind {
            NT_PRSTATUS => s.registers.words().as_bytes().to_vec(),
            NT_PRFPREG => registers::shown(&s.state).get(..FPREGS).unwrap_or_default().to_vec(),
            NT_X86_XSTATE => registers::shown(&s.state),
            _ => return Err(Errno::EINVAL),
        })
    })?;
    if !to.len.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let len = usize::try_from(to.len).unwrap_or(usize::MAX).min(whole.len());
    task.write_exact(to.base, whole.get(..len).unwrap_or_default())?;
    to.len = len as u64;
    at.write(task, &to)?;
    done()
}

fn set_set(task: &Arc<Task>, tracee: &Arc<Task>, kind: u64, at: UserPtr<RawVec>) -> SysResult {
    let mut from = at.read(task)?;
    let size = match kind {
        NT_PRSTATUS => WORDS * 8,
        NT_PRFPREG => FPREGS,
        NT_X86_XSTATE => tracee.with_stop(task, |_, s| Ok(registers::shown(&s.state).len()))?,
        _ => return Err(Errno::EINVAL),
    };
    if !from.len.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let len = usize::try_from(from.len).unwrap_or(usize::MAX).min(size);
    let mut new = vec![0; len];
    task.read_exact(from.base, &mut new)?;
    match kind {
        NT_PRSTATUS => {
            let words: Vec<u64> =
                new.chunks_exact(8).filter_map(|c| c.try_into().ok().map(u64::from_le_bytes)).collect();
            set_registers(task, tracee, &words)?;
        }
        // Only as a whole.
        _ if len != size => return Err(if kind == NT_PRFPREG { Errno::EINVAL } else { Errno::EFAULT }),
        _ => {
            set_state(task, tracee, &new, kind == NT_PRFPREG)?;
        }
    }
    from.len = len as u64;
    at.write(task, &from)?;
    done()
}

fn peek_signals(task: &Arc<Task>, tracee: &Arc<Task>, at: UserPtr<PeekSigInfo>, to: u64) -> SysResult {
    const SHARED: u32 = 1;
    let wanted = at.read(task)?;
    if wanted.flags & !SHARED != 0 || wanted.nr < 0 {
        return Err(Errno::EINVAL);
    }
    let mut count = 0i64;
    while count < i64::from(wanted.nr) {
        let Some(index) = wanted.off.checked_add(count as u64).and_then(|i| usize::try_from(i).ok()) else { break };
        let group = tracee.group();
        let pending = if wanted.flags & SHARED != 0 { group.pending.lock() } else { tracee.pending.lock() };
        let Some(info) = pending.at(index) else { break };
        drop(pending);
        if let Err(e) = task.write_exact(to.wrapping_add(count as u64 * 128), &info.to_bytes()) {
            return if count > 0 { value(count) } else { Err(e) };
        }
        count += 1;
    }
    value(count)
}

/// `struct ptrace_syscall_info`, as long as what it tells.
fn syscall_info_of(s: &Stopped, good: bool) -> Vec<u8> {
    let r = &s.registers.general;
    // Without PTRACE_O_TRACESYSGOOD a stop at a call looks like any other.
    let op: u8 = match (s.call, good) {
        (CallStop::Entry, true) => 1,
        (CallStop::Exit, true) => 2,
        (CallStop::Filter(_), _) => 3,
        _ => 0,
    };
    let mut out = vec![op, 0, 0, 0];
    out.extend(seccomp::ARCH.to_le_bytes());
    out.extend(r.rip.to_le_bytes());
    out.extend(r.rsp.to_le_bytes());
    match op {
        1 | 3 => [s.registers.orig_rax, r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9]
            .iter()
            .for_each(|w| out.extend(w.to_le_bytes())),
        2 => {
            out.extend(r.rax.to_le_bytes());
            out.push(u8::from((-4095..0).contains(&r.rax.cast_signed())));
        }
        _ => {}
    }
    if let CallStop::Filter(said) = s.call {
        out.extend(said.to_le_bytes());
    }
    out
}

fn syscall_info(task: &Arc<Task>, tracee: &Arc<Task>, size: u64, to: u64) -> SysResult {
    let info = tracee.with_stop(task, |_, s| Ok(syscall_info_of(s, s.code & 0x80 != 0)))?;
    let len = usize::try_from(size).unwrap_or(usize::MAX).min(info.len());
    task.write_exact(to, info.get(..len).unwrap_or_default())?;
    value(info.len())
}

/// `PTRACE_ARCH_PRCTL`: what `arch_prctl(2)` would do; address and option come the other way round.
fn base(task: &Arc<Task>, tracee: &Arc<Task>, at: u64, option: u64) -> SysResult {
    const FS_BASE: usize = 21;
    const GS_BASE: usize = 22;
    match option {
        0x1002 => change(task, tracee, |v| v.set(FS_BASE, at).map_err(|_| Errno::EPERM)),
        0x1001 => change(task, tracee, |v| v.set(GS_BASE, at).map_err(|_| Errno::EPERM)),
        0x1003 | 0x1004 => {
            let view = tracee.with_stop(task, |_, s| Ok(s.registers))?;
            let base = if option == 0x1003 { view.fs_base } else { view.gs_base };
            put(task, at, &base.to_le_bytes())
        }
        _ => Err(Errno::EINVAL),
    }
}

/// The most elements of an I/O vector.
const VECTORS: usize = 1024;

fn vectors(task: &Arc<Task>, at: UserPtr<RawVec>, count: usize) -> Result<Vec<IoVec>, Errno> {
    let raw = at.read_array(task, count, VECTORS)?;
    let mut left = 0x7fff_f000u64;
    raw.iter()
        .map(|v| {
            if i64::try_from(v.len).is_err() {
                return Err(Errno::EINVAL);
            }
            let len = v.len.min(left);
            left -= len;
            Ok(IoVec { base: v.base, len: usize::try_from(len).map_err(|_| Errno::EINVAL)? })
        })
        .collect()
}

/// Bytes copied at a time.
const PIECE: usize = 64 << 10;

/// Copies between the caller's memory and another's; how much was copied before something could not be.
fn transfer(task: &Arc<Task>, other: &Arc<Task>, own: &[IoVec], remote: &[IoVec], writes: bool) -> SysResult {
    let mut own = own.iter().copied().filter(|v| v.len > 0);
    let mut here = own.next();
    let mut done = 0usize;
    let mut buffer = vec![0; PIECE];
    for r in remote {
        let (mut at, mut left) = (r.base, r.len);
        while left > 0 {
            let Some(h) = &mut here else { return value(done) };
            let len = left.min(h.len).min(PIECE);
            let piece = buffer.get_mut(..len).ok_or(Errno::EFAULT)?;
            let (from, from_at, to, to_at) = if writes { (task, h.base, other, at) } else { (other, at, task, h.base) };
            let got = from.read_memory(from_at, piece).unwrap_or(0);
            let put = to.write_memory(to_at, piece.get(..got).unwrap_or_default()).unwrap_or(0);
            done += put;
            if put < len {
                return if done > 0 { value(done) } else { Err(Errno::EFAULT) };
            }
            at = at.wrapping_add(len as u64);
            left -= len;
            h.base = h.base.wrapping_add(len as u64);
            h.len -= len;
            if h.len == 0 {
                here = own.next();
            }
        }
    }
    value(done)
}

/// A list of buffers: where it lies, and how many.
type Buffers = (UserPtr<RawVec>, usize);

fn process_vm(task: &Arc<Task>, pid: i32, own: Buffers, remote: Buffers, flags: u64, writes: bool) -> SysResult {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let (own, remote) = (vectors(task, own.0, own.1)?, vectors(task, remote.0, remote.1)?);
    if own.iter().all(|v| v.len == 0) || remote.iter().all(|v| v.len == 0) {
        return done();
    }
    let other = task.kernel().tree.lock().task(task.id_of(pid)).ok_or(Errno::ESRCH)?;
    if !may_look_into(task, &other) {
        return Err(Errno::EPERM);
    }
    if other.exited.load(Ordering::SeqCst) {
        return Err(Errno::ESRCH);
    }
    other.has_memory()?;
    transfer(task, &other, &own, &remote, writes)
}

fn process_vm_readv(
    task: &Arc<Task>,
    pid: i32,
    own: UserPtr<RawVec>,
    own_count: usize,
    remote: UserPtr<RawVec>,
    remote_count: usize,
    flags: u64,
) -> SysResult {
    process_vm(task, pid, (own, own_count), (remote, remote_count), flags, false)
}

fn process_vm_writev(
    task: &Arc<Task>,
    pid: i32,
    own: UserPtr<RawVec>,
    own_count: usize,
    remote: UserPtr<RawVec>,
    remote_count: usize,
    flags: u64,
) -> SysResult {
    process_vm(task, pid, (own, own_count), (remote, remote_count), flags, true)
}

/// `KCMP_*`.
mod kind {
    pub const FILE: i32 = 0;
    pub const VM: i32 = 1;
    pub const FILES: i32 = 2;
    pub const FS: i32 = 3;
    pub const SIGHAND: i32 = 4;
    pub const IO: i32 = 5;
    pub const SYSVSEM: i32 = 6;
    pub const EPOLL_TFD: i32 = 7;
}

fn kcmp(task: &Arc<Task>, a: i32, b: i32, what: i32, x: u64, y: u64) -> SysResult {
    let (a, b) = {
        let tree = task.kernel().tree.lock();
        (tree.task(task.id_of(a)).ok_or(Errno::ESRCH)?, tree.task(task.id_of(b)).ok_or(Errno::ESRCH)?)
    };
    if !may_look_into(task, &a) || !may_look_into(task, &b) {
        return Err(Errno::EPERM);
    }
    let file = |task: &Task, fd: u64| task.files().get_any(i32::try_from(fd).map_err(|_| Errno::EBADF)?);
    let same = match what {
        kind::FILE | kind::EPOLL_TFD => {
            let (x, y) = if what == kind::FILE {
                (file(&a, x)?.id, file(&b, y)?.id)
            } else {
                let [instance, fd, index] = UserPtr::<[u32; 3]>::new(y).read(task)?;
                let x = file(&a, x)?.id;
                let instance = file(&b, instance.into())?;
                let epoll = &instance.ops_as::<EpollFile>().ok_or(Errno::EINVAL)?.0;
                (x, epoll.target(fd.cast_signed(), index as usize).ok_or(Errno::ENOENT)?.id)
            };
            return value(match x.cmp(&y) {
                std::cmp::Ordering::Equal => 0,
                std::cmp::Ordering::Less => 1,
                std::cmp::Ordering::Greater => 2,
            });
        }
        kind::VM => Arc::ptr_eq(&a.mm(), &b.mm()),
        kind::FILES => Arc::ptr_eq(&a.files(), &b.files()),
        kind::FS => Arc::ptr_eq(&a.fs(), &b.fs()),
        kind::SIGHAND => Arc::ptr_eq(&a.actions(), &b.actions()),
        // No task has an I/O context or undo list that others could share but its threads.
        kind::IO | kind::SYSVSEM => Arc::ptr_eq(a.group(), b.group()),
        _ => return Err(Errno::EINVAL),
    };
    // Different, and in no order.
    value(if same { 0 } else { 3 })
}

/// The calls about other processes.
pub const TABLE: &[Entry] = &[
    entry!(
        101,
        "ptrace",
        Partial,
        "debug registers watch writes and places, by steps, and no reads (ENOSPC); no block steps",
        ptrace(i64, i32, u64, u64)
    ),
    entry!(312, "kcmp", Full, "", kcmp(i32, i32, i32, u64, u64)),
    entry!(
        310,
        "process_vm_readv",
        Full,
        "",
        process_vm_readv(i32, UserPtr<RawVec>, usize, UserPtr<RawVec>, usize, u64)
    ),
    entry!(
        311,
        "process_vm_writev",
        Full,
        "",
        process_vm_writev(i32, UserPtr<RawVec>, usize, UserPtr<RawVec>, usize, u64)
    ),
];
