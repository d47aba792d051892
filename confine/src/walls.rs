//! Raising a process's walls.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use caps::Capability;

use crate::error::{ConfineError, last};
use crate::landlocked::{self, Landlock};
use crate::{descriptors, identity, policy, root, spawn};

/// What a service keeps. Everything else goes.
#[derive(Debug)]
pub struct Walls<'a> {
    /// Name of its policy (file in policies/ without `.json`).
    pub policy: &'a str,
    /// Descriptors it keeps besides 0, 1 and 2, which its spawner tied to the supervisor (see [`spawn`]).
    pub keep: &'a [RawFd],
    /// Capabilities it keeps, in its own user namespace.
    pub capabilities: &'a [Capability],
    /// Files it may use, where the kernel has Landlock; `None` leaves that wall out (for services whose filter names
    /// no path).
    pub landlock: Option<Landlock<'a>>,
    /// Mount trees that are mounted nowhere yet, and whether they may be written: they go into the empty root
    /// ([`tree_name`](crate::tree_name)).
    pub trees: &'a [(BorrowedFd<'a>, bool)],
    /// Whether others of its uid may look into it (ptrace, /proc/PID/mem).
    pub dumpable: bool,
}

/// What went up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raised {
    /// Landlock's ABI, 0 where there is none or none was asked for.
    pub landlock: u32,
    /// Whether the root is an empty one.
    pub empty_root: bool,
    /// Which trees are in it.
    pub trees: Vec<bool>,
}

impl Walls<'_> {
    /// Raises them all on this process, which must have one thread still. After an error the process must end: some
    /// walls may be up and others not.
    pub fn raise(self) -> Result<Raised, ConfineError> {
        let policy = self.policy;
        let raised = self.raise_all_but_filter()?;
        raise_filter(policy)?;
        Ok(raised)
    }

    /// Raises all but the filter: for services that start their threads behind the other walls and then call
    /// [`raise_filter`], so that their policy need not allow the making of threads.
    pub fn raise_all_but_filter(self) -> Result<Raised, ConfineError> {
        policy::named(self.policy).ok_or_else(|| ConfineError::NoPolicy(self.policy.to_owned()))?;
        // SAFETY: with one thread this changes nothing, with more it answers EINVAL (unshare(2)).
        if unsafe { libc::unshare(libc::CLONE_THREAD) } != 0 {
            return Err(ConfineError::Threads);
        }
        // rustix asks the kernel for the auxiliary vector and the vDSO the first time it needs them: now, not behind the
        // filter.
        let _ = (rustix::param::page_size(), rustix::time::clock_gettime(rustix::time::ClockId::Monotonic));
        bound_arenas();
        let empty_root = spawn::born_in_namespaces();
        let roots: Vec<_> = self.trees.iter().map(|(tree, _)| *tree).collect();
        let around = if empty_root { root::empty(&roots)? } else { roots.iter().map(|_| None).collect() };
        let keep: Vec<_> = self.keep.iter().copied().chain(around.iter().flatten().map(AsRawFd::as_raw_fd)).collect();
        descriptors::sweep(&keep)?;
        let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
        rustix::process::setrlimit(rustix::process::Resource::Core, none).map_err(crate::error::host("RLIMIT_CORE"))?;
        identity::drop_capabilities(self.capabilities)?;
        // SAFETY: prctl with scalars only.
        if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
            return Err(last("PR_SET_NO_NEW_PRIVS"));
        }
        // SAFETY: prctl with scalars only.
        if unsafe { libc::prctl(libc::PR_SET_DUMPABLE, libc::c_ulong::from(self.dumpable), 0, 0, 0) } != 0 {
            return Err(last("PR_SET_DUMPABLE"));
        }
        let landlock = match &self.landlock {
            Some(landlock) => {
                let of = |written: bool| {
                    let all = around.iter().zip(self.trees).filter(move |(_, (_, w))| *w == written);
                    all.filter_map(|(place, _)| place.as_ref().map(AsFd::as_fd))
                };
                // By the directories that they are in, too: what the host mounts over a tree's root hides that from
                // Landlock.
                let read_write: Vec<_> = landlock.read_write.iter().copied().chain(of(true)).collect();
                let read_only: Vec<_> = landlock.read_only.iter().copied().chain(of(false)).collect();
                landlocked::raise(&Landlock { read_write: &read_write, read_only: &read_only })?
            }
            None => 0,
        };
        Ok(Raised { landlock, empty_root, trees: around.iter().map(Option::is_some).collect() })
    }
}

/// glibc's allocator opens files of its own accord: overcommit_memory before it shrinks an arena other than the first
/// (check_may_shrink_heap), cpu/online to find its limit of arenas (arena_get2). No policy has that openat; with one arena
/// it does neither.
fn bound_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt sets a parameter of the allocator and takes scalars.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Puts every thread of this process under a policy: what [`Walls::raise`] does last.
pub fn raise_filter(name: &str) -> Result<(), ConfineError> {
    let policy = policy::named(name).ok_or_else(|| ConfineError::NoPolicy(name.to_owned()))?;
    install(policy.program, libc::SECCOMP_FILTER_FLAG_TSYNC)
}

/// Ends the process at once (exit_group(2)): without the runtime's farewell, whose calls no policy needs otherwise.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes a scalar and does not return.
    unsafe { libc::_exit(code) }
}

/// Puts this thread under a second policy besides the process's: what both allow is allowed. For threads that do less
/// than their process; the process's policy must allow seccomp(2) for it.
pub fn narrow_this_thread(name: &str) -> Result<(), ConfineError> {
    let policy = policy::named(name).ok_or_else(|| ConfineError::NoPolicy(name.to_owned()))?;
    install(policy.program, 0)
}

/// seccomp(SECCOMP_SET_MODE_FILTER).
fn install(program: &[libc::sock_filter], flags: libc::c_ulong) -> Result<(), ConfineError> {
    let len = u16::try_from(program.len())
        .map_err(|_| ConfineError::Host { what: "filter length", source: std::io::ErrorKind::InvalidInput.into() })?;
    let filter = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies the program, whose length is as stated, during the call and writes nothing.
    match unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) } {
        0 => Ok(()),
        tid if tid > 0 => Err(ConfineError::ThreadSync(tid)),
        _ => Err(last("seccomp(SECCOMP_SET_MODE_FILTER)")),
    }
}
