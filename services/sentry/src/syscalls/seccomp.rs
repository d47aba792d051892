//! `seccomp(2)`, and `prctl(PR_SET_SECCOMP)`. What filters do is in `task::seccomp`.

use std::sync::Arc;

use super::{Entry, SysResult, UserPtr, done, value};
use crate::bpf;
use crate::entry;
use crate::errno::Errno;
use crate::task::Task;
use crate::task::creds::cap;
use crate::task::seccomp::notify::Listener;
use crate::task::seccomp::{self, Filter, action};

/// The call.
pub const TABLE: &[Entry] = &[entry!(317, "seccomp", Full, "", seccomp_call(u32, u32, UserPtr<u8>))];

const SET_MODE_STRICT: u32 = 0;
const SET_MODE_FILTER: u32 = 1;
const GET_ACTION_AVAIL: u32 = 2;
const GET_NOTIF_SIZES: u32 = 3;

const FLAG_TSYNC: u32 = 1;
const FLAG_LOG: u32 = 2;
const FLAG_SPEC_ALLOW: u32 = 4;
const FLAG_NEW_LISTENER: u32 = 8;
const FLAG_TSYNC_ESRCH: u32 = 16;
const FLAG_WAIT_KILLABLE_RECV: u32 = 32;
const FLAGS: u32 =
    FLAG_TSYNC | FLAG_LOG | FLAG_SPEC_ALLOW | FLAG_NEW_LISTENER | FLAG_TSYNC_ESRCH | FLAG_WAIT_KILLABLE_RECV;

fn seccomp_call(task: &Arc<Task>, operation: u32, flags: u32, args: UserPtr<u8>) -> SysResult {
    match operation {
        SET_MODE_STRICT if flags != 0 || !args.is_null() => Err(Errno::EINVAL),
        SET_MODE_STRICT => {
            task.seccomp.set_strict()?;
            done()
        }
        SET_MODE_FILTER => set_filter(task, flags, args),
        GET_ACTION_AVAIL if flags != 0 => Err(Errno::EINVAL),
        GET_ACTION_AVAIL => {
            let asked: u32 = args.cast().read(task)?;
            if action::ALL.iter().any(|(a, _)| *a == asked) { done() } else { Err(Errno::EOPNOTSUPP) }
        }
        GET_NOTIF_SIZES if flags != 0 => Err(Errno::EINVAL),
        // Of struct seccomp_notif, seccomp_notif_resp and seccomp_data.
        GET_NOTIF_SIZES => {
            args.cast().write_array(task, &[80u16, 24, 64])?;
            done()
        }
        _ => Err(Errno::EINVAL),
    }
}

/// `struct sock_fprog` as it lies in memory.
#[repr(C)]
#[derive(Clone, Copy, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
pub(super) struct Fprog {
    len: u16,
    pad: [u16; 3],
    filter: u64,
}

impl Fprog {
    /// How many instructions; EINVAL if there are none or too many.
    fn check(self) -> Result<usize, Errno> {
        Some(usize::from(self.len)).filter(|n| (1..=bpf::MAX_INSTRUCTIONS).contains(n)).ok_or(Errno::EINVAL)
    }

    /// Its instructions.
    pub(super) fn code(self, task: &Arc<Task>) -> Result<Vec<bpf::Instruction>, Errno> {
        let count = self.check()?;
        if self.filter == 0 {
            return Err(Errno::EINVAL);
        }
        UserPtr::<bpf::Instruction>::new(self.filter).read_array(task, count, bpf::MAX_INSTRUCTIONS)
    }
}

fn set_filter(task: &Arc<Task>, flags: u32, args: UserPtr<u8>) -> SysResult {
    let has = |flag: u32| flags & flag != 0;
    // What is returned is the listener's descriptor or a thread's number, and not both.
    let either = has(FLAG_NEW_LISTENER) && has(FLAG_TSYNC) && !has(FLAG_TSYNC_ESRCH);
    if flags & !FLAGS != 0 || either || (has(FLAG_WAIT_KILLABLE_RECV) && !has(FLAG_NEW_LISTENER)) {
        return Err(Errno::EINVAL);
    }
    let program: Fprog = args.cast().read(task)?;
    program.check()?;
    let creds = task.creds();
    if !creds.no_new_privileges && !creds.has(cap::SYS_ADMIN) {
        return Err(Errno::EACCES);
    }
    let code = program.code(task)?;
    let listener = has(FLAG_NEW_LISTENER).then(|| Listener::new(has(FLAG_WAIT_KILLABLE_RECV)));
    let filter = Filter::new(code, has(FLAG_LOG), listener.clone())?;
    let fd = listener.map(|l| task.add_file(l.file(), true)).transpose()?;
    let added = seccomp::add(task, filter, has(FLAG_TSYNC));
    if let (Err(_), Some(fd)) = (&added, fd) {
        task.files().close(fd).ok();
    }
    match added {
        Ok(()) => value(fd.unwrap_or(0)),
        Err(Ok(_)) if has(FLAG_TSYNC_ESRCH) => Err(Errno::ESRCH),
        Err(Ok(tid)) => value(tid),
        Err(Err(e)) => Err(e),
    }
}

/// `prctl(PR_SET_SECCOMP, mode, filter)`.
pub(super) fn prctl(task: &Arc<Task>, mode: u64, filter: UserPtr<u8>) -> SysResult {
    match mode {
        1 => seccomp_call(task, SET_MODE_STRICT, 0, UserPtr::new(0)),
        2 => seccomp_call(task, SET_MODE_FILTER, 0, filter),
        _ => Err(Errno::EINVAL),
    }
}
