//! Making a process in namespaces of its own.
//!
//! Called by the supervisor's launcher, which has one thread: the child of a raw clone may then do what it likes up to
//! its exec. The child is PID 1 of a new pid namespace, so whatever it starts ends with it.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::error::{ConfineError, host, last};
use crate::ids::Ids;

/// In a service's environment: it was born in namespaces of its own and empties its root.
const MARK: &CStr = c"COFFERDAM_NAMESPACES=1";

/// Who the service is on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// Root of its user namespace, and this unprivileged id outside. Only for a privileged spawner; an unprivileged
    /// one can give nothing but its own id.
    Id(u32),
    /// Every id stands for itself, so that files of all owners can be served. Only for a privileged spawner; an
    /// unprivileged one gives its own id alone, which stands for itself too: its files are shown as its own, those of
    /// everybody else as nobody's.
    All,
}

/// What to make.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// The program, opened.
    pub program: BorrowedFd<'a>,
    /// Its argv: name and nothing else.
    pub name: &'a CStr,
    /// What it finds at descriptor 3.
    pub channel: BorrowedFd<'a>,
    /// What it finds at 1 and 2: a pipe, where its last words go. 0 is at its end.
    pub voice: BorrowedFd<'a>,
    /// Its ids.
    pub identity: Identity,
    /// It stays in the network namespace of the spawner, where it has no rights beyond everybody's; else it gets one of its own with nothing in it.
    pub networked: bool,
}

/// A process that was made.
#[derive(Debug)]
pub struct Spawned {
    /// Its pid here.
    pub pid: i32,
    /// A descriptor that becomes readable when it ends.
    pub pidfd: OwnedFd,
}

/// Whether this process was made by [`Spawn::start`].
pub(crate) fn born_in_namespaces() -> bool {
    std::env::var_os("COFFERDAM_NAMESPACES").is_some()
}

const NAMESPACES: i32 = libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

impl Spawn<'_> {
    /// Starts it. A child that cannot become what was asked exits with 125 and says why on `voice`.
    pub fn start(&self) -> Result<Spawned, ConfineError> {
        let own_id = self.identity == Identity::All && !rustix::process::geteuid().is_root();
        let (wait, go) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(host("pipe"))?;
        let mut pidfd: RawFd = -1;
        let network = if self.networked { 0 } else { libc::CLONE_NEWNET };
        let flags = NAMESPACES | network | libc::CLONE_NEWUSER | libc::CLONE_PIDFD | libc::SIGCHLD;
        // SAFETY: fork-like clone (no CLONE_VM, no new stack) in a process with one thread; pidfd is where the
        // parent's copy of the descriptor number is stored. The child runs child() and never returns.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, &raw mut pidfd, 0usize, 0usize) };
        match pid {
            -1 => return Err(last("clone into new namespaces (are user namespaces allowed on this host?)")),
            0 => self.child(&wait, own_id),
            _ => {}
        }
        let pid = i32::try_from(pid).map_err(|_| last("clone"))?;
        // SAFETY: the kernel stored a new descriptor that nothing else owns.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        drop(wait);
        self.map_ids(pid)?;
        rustix::io::write(&go, b"g").map_err(host("telling the child to go on"))?;
        Ok(Spawned { pid, pidfd })
    }

    fn map_ids(&self, pid: i32) -> Result<(), ConfineError> {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let (uids, gids) = match self.identity {
            Identity::Id(id) if uid == 0 => {
                let spare = |file| Ok::<_, ConfineError>(format!("0 {} 1", Ids::own(file)?.spare(id)));
                (spare("uid_map")?, spare("gid_map")?)
            }
            // As many as this namespace has, each to itself.
            Identity::All if uid == 0 => (Ids::own("uid_map")?.to_themselves(), Ids::own("gid_map")?.to_themselves()),
            Identity::All => {
                write(pid, "setgroups", "deny")?;
                (format!("{uid} {uid} 1"), format!("{gid} {gid} 1"))
            }
            Identity::Id(_) => {
                write(pid, "setgroups", "deny")?;
                (format!("0 {uid} 1"), format!("0 {gid} 1"))
            }
        };
        write(pid, "uid_map", &uids)?;
        write(pid, "gid_map", &gids)
    }

    fn child(&self, wait: &OwnedFd, own_id: bool) -> ! {
        let why = match self.become_service(wait, own_id) {
            Ok(never) => match never {},
            Err(e) => e,
        };
        let text = format!("cannot start: {why}\n");
        let _ = rustix::io::write(self.voice, text.as_bytes());
        // SAFETY: ends the child without running what the parent registered.
        unsafe { libc::_exit(125) }
    }

    fn become_service(&self, wait: &OwnedFd, own_id: bool) -> Result<std::convert::Infallible, ConfineError> {
        let mut byte = [0u8];
        let mut closer = [-1; 2];
        // SAFETY: plain system calls on our own descriptors and memory, in a process with one thread.
        unsafe {
            // Dies with the launcher. (The parent's death before this line shows in the wait below: end of file.)
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) != 0 {
                return Err(last("PR_SET_PDEATHSIG"));
            }
            // Our copy of the parent's end must go before the wait, or the parent's death would not end it.
            let keep = [wait.as_raw_fd(), self.program.as_raw_fd(), self.channel.as_raw_fd(), self.voice.as_raw_fd()];
            crate::descriptors::sweep(&keep)?;
            if libc::read(wait.as_raw_fd(), byte.as_mut_ptr().cast(), 1) != 1 {
                return Err(last("waiting for ids"));
            }
            let _ = libc::close(wait.as_raw_fd());
            libc::setgroups(0, std::ptr::null());
            if own_id {
                // No root here that would have its capabilities through the exec by being root: they go as ambient ones,
                // until the walls take them.
                crate::identity::carry_capabilities()?;
            } else if libc::setresgid(0, 0, 0) != 0 || libc::setresuid(0, 0, 0) != 0 {
                return Err(last("taking the ids of the user namespace"));
            }
            // A change of ids clears it.
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) != 0 {
                return Err(last("PR_SET_PDEATHSIG"));
            }
            libc::setsid();
            libc::umask(0);
            // High up first, so that no placement lands on a descriptor that is still to be placed.
            let up = |fd: RawFd| match libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 64) {
                -1 => Err(last("F_DUPFD_CLOEXEC")),
                new => Ok(new),
            };
            let (program, channel, voice) =
                (up(self.program.as_raw_fd())?, up(self.channel.as_raw_fd())?, up(self.voice.as_raw_fd())?);
            if libc::pipe(closer.as_mut_ptr()) != 0 {
                return Err(last("pipe"));
            }
            let ended = up(closer[0])?;
            libc::close(closer[0]);
            libc::close(closer[1]);
            for (from, to) in [(ended, 0), (voice, 1), (voice, 2), (channel, 3)] {
                if libc::dup2(from, to) != to {
                    return Err(last("dup2"));
                }
            }
            crate::signals::unblock_all();
            for n in 1..=64 {
                libc::signal(n, libc::SIG_DFL);
            }
            crate::descriptors::sweep(&[0, 1, 2, 3, program])?;
            let argv = [self.name.as_ptr(), std::ptr::null()];
            let environment = [MARK.as_ptr(), std::ptr::null()];
            libc::syscall(
                libc::SYS_execveat,
                program,
                c"".as_ptr(),
                argv.as_ptr(),
                environment.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
        }
        Err(last("execveat"))
    }
}

fn write(pid: i32, file: &'static str, text: &str) -> Result<(), ConfineError> {
    std::fs::write(format!("/proc/{pid}/{file}"), text)
        .map_err(|source| ConfineError::Host { what: "mapping the ids of a service", source })
}

/// Which side of [`fork`] this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The parent, with the child's pid.
    Parent(i32),
    /// The child.
    Child,
}

/// fork(2), for a process with one thread. With `die_with_parent` the child is killed when its parent ends.
pub fn fork(die_with_parent: bool) -> Result<Fork, ConfineError> {
    // SAFETY: with one thread only (checked: unshare(CLONE_THREAD) answers EINVAL otherwise) no lock can be left held
    // by a thread that does not exist in the child.
    let pid = unsafe {
        if libc::unshare(libc::CLONE_THREAD) != 0 {
            return Err(ConfineError::Threads);
        }
        let parent = libc::getpid();
        match libc::fork() {
            0 if die_with_parent => {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                if libc::getppid() != parent {
                    libc::_exit(125);
                }
                0
            }
            pid => pid,
        }
    };
    match pid {
        -1 => Err(last("fork")),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Sets the name that `ps` shows for this thread (15 bytes at most count).
pub fn set_name(name: &CStr) {
    // SAFETY: name is a NUL-terminated string for the duration of the call.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}
