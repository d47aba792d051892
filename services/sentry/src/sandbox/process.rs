//! A process that comes from outside: the first of a container, or one of `exec`.
//!
//! It has no parent in the sandbox; whoever asked for it learns of its end. Made in three steps, so that each failure is told before
//! anything runs: the task with its credentials and standard streams, the program found, and only when told so, started. Called by
//! the parent module.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cofferdam_control::sentry::{FailureKind, Process};

use super::Failure;
use crate::begin::{self, Common};
use crate::errno::Errno;
use crate::filesystems::devpts::Devpts;
use crate::filesystems::stdio::{StdioHub, stdio_files, terminal_files};
use crate::ipc::termios::WinSize;
use crate::ipc::tty::Tty;
use crate::kernel::Kernel;
use crate::memory::AddressSpace;
use crate::namespaces::{Namespaces, PidNamespace};
use crate::signal::{Actions, SigInfo, code, sig};
use crate::sync::Mutex;
use crate::syscalls::args::AT_FDCWD;
use crate::task::cgroup::Cgroup;
use crate::task::creds::ALL_CAPABILITIES;
use crate::task::group::{INFINITY, Limit, default_limits};
use crate::task::itimer;
use crate::task::{Begin, Creds, Group, Parts, Task, exec, exit};
use crate::vfs::inode::mode;
use crate::vfs::walk::walk;
use crate::vfs::{self, Caller, FdTable, File, FsContext, ops};
use crate::wait::push_work;

/// Where a process begins.
pub struct Place {
    /// Its root and working directory.
    pub fs: Arc<FsContext>,
    /// Its namespaces.
    pub namespaces: Arc<Namespaces>,
    /// Its PID namespace.
    pub pid_ns: Arc<PidNamespace>,
    /// Its container's cgroup.
    pub cgroup: Arc<Cgroup>,
    /// What all processes of its container begin with.
    pub common: Arc<Common>,
    /// Whether it takes signals as any process, though it be the first (`Container::plain`).
    pub plain: bool,
    /// Whether its terminal, if it has one, is the container's `/dev/console`.
    pub console: bool,
}

/// A process from outside.
pub struct Outer {
    /// Its first thread.
    pub task: Arc<Task>,
    /// As it was asked for.
    pub spec: Process,
    /// Its terminal.
    pub terminal: Option<Arc<Tty>>,
    /// The program and its path, until it is started; held by who starts it, however long that takes.
    program: Mutex<Option<(Vec<u8>, Arc<File>)>>,
    started: AtomicBool,
}

impl Outer {
    /// Makes one, with the streams `stdio/NAME`, loaded with nothing yet. What has been made of one that fails is taken back.
    pub fn make(
        kernel: &Arc<Kernel>,
        stdio: &Arc<StdioHub>,
        name: &str,
        spec: Process,
        place: Place,
    ) -> Result<Self, Failure> {
        let (plain, console) = (place.plain, place.console);
        let task = first_task(kernel, &spec, place).map_err(|e| match e {
            Errno::EINVAL => {
                Failure::new(FailureKind::Invalid, "a process: an id that its user namespace has not: invalid argument")
            }
            e => Failure::new(FailureKind::Host, format!("a process: {}", e.message())),
        })?;
        let made = give_stdio(kernel, stdio, name, &task, &spec, plain)
            .and_then(|terminal| {
                if console && terminal.is_some() { show_console(&task) } else { Ok(()) }.map(|()| terminal)
            })
            .and_then(|terminal| look_up(&task, &spec).map(|program| (terminal, program)));
        let mut spec = spec;
        if !plain && made.is_ok() {
            begin::complete(&mut spec.env, || begin::home(&task, spec.uid));
        }
        match made {
            Ok((terminal, program)) => {
                let program = Mutex::new(Some(program));
                Ok(Self { task, spec, terminal, program, started: AtomicBool::new(false) })
            }
            Err(e) => {
                end_later(&task, sig::KILL);
                Err(e)
            }
        }
    }

    /// Whether it was let go.
    pub fn started(&self) -> bool {
        self.started.load(Ordering::SeqCst)
    }

    /// Lets it run.
    pub fn start(&self) -> Result<(), Failure> {
        let over = || Failure::new(FailureKind::WrongState, "container not running");
        let mut program = self.program.lock();
        if self.started() {
            return Err(Failure::new(FailureKind::WrongState, "container is already running"));
        }
        if self.task.group().is_exiting() {
            return Err(over());
        }
        let (path, file) = match program.take() {
            Some(program) => program,
            None => look_up(&self.task, &self.spec)?,
        };
        exec::start_init(&self.task, file, path, self.spec.args.clone(), self.spec.env.clone()).map_err(|e| {
            let name = self.spec.args.first().cloned().unwrap_or_default();
            let shown = String::from_utf8_lossy(&name);
            match e {
                // Killed meanwhile, by who did not want to wait for its files.
                _ if self.task.group().is_exiting() => over(),
                Errno::ENOEXEC => Failure::new(FailureKind::Permission, format!("exec {shown}: exec format error")),
                Errno::ENOENT => Failure::new(
                    FailureKind::NotFound,
                    format!("exec {shown}: no such file or directory (its interpreter is missing)"),
                ),
                Errno::EACCES => Failure::new(FailureKind::Permission, format!("exec {shown}: permission denied")),
                e => Failure::new(FailureKind::Invalid, format!("exec {shown}: {e}")),
            }
        })?;
        self.started.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// What a signal from outside looks like to a process here.
    pub fn from_outside(signal: i32) -> SigInfo {
        // Code > 0 marks it as the kernel's, which process 1 cannot refuse.
        SigInfo::new(signal, if signal == sig::KILL { code::KERNEL } else { code::USER })
    }

    /// What a signal does to one that has ended, or was not let go yet: that ends at once by what would end it.
    pub fn kill_early(&self, signal: i32) -> Result<(), Failure> {
        if self.task.group().is_exiting() {
            return Err(Failure::new(FailureKind::WrongState, "container not running"));
        }
        if matches!(signal, sig::KILL | sig::TERM | sig::INT | sig::HUP | sig::QUIT) {
            end_later(&self.task, signal);
        }
        Ok(())
    }

    /// Gives its terminal a new size.
    pub fn resize(&self, rows: u16, cols: u16) {
        if let Some(tty) = &self.terminal {
            tty.set_size(WinSize { rows, cols, x: 0, y: 0 });
        }
    }
}

/// Ends a process that nothing runs in yet, once no lock is held: whoever is told of the end takes some.
fn end_later(task: &Arc<Task>, signal: i32) {
    let task = task.clone();
    push_work(Box::new(move || exit::exit_group(&task, signal)));
}

fn first_task(kernel: &Arc<Kernel>, spec: &Process, place: Place) -> Result<Arc<Task>, Errno> {
    let mut limits = default_limits();
    for (which, soft, hard) in &spec.rlimits {
        if let Some(l) = limits.get_mut(*which as usize) {
            *l = Limit { soft: *soft, hard: *hard };
        }
    }
    let creds = begin::credentials(spec, &place.common.user_ns)?;
    if let Some(umask) = spec.umask {
        place.fs.set_umask(umask);
    }
    let mut tree = kernel.tree.lock();
    let pid = tree.new_id().ok_or(Errno::EAGAIN)?;
    tree.number(pid, &place.pid_ns, &[])?;
    let first = place.pid_ns.init() == pid;
    let group = Group::new(pid, place.pid_ns, limits, place.cgroup);
    group.first.store(first, Ordering::Relaxed);
    group.plain.store(place.plain, Ordering::Relaxed);
    itimer::watch_limit(kernel, &group);
    if let Some(adj) = spec.oom_score_adj {
        group.oom_score_adj.store(adj, Ordering::Relaxed);
        group.oom_score_least.store(adj, Ordering::Relaxed);
    }
    let task = Task::new(Parts {
        kernel: kernel.clone(),
        tid: pid,
        group: group.clone(),
        files: Arc::new(FdTable::default()),
        fs: place.fs,
        creds: Arc::new(creds),
        namespaces: place.namespaces,
        mm: AddressSpace::new(0, 0),
        actions: Arc::new(Mutex::new(Actions::ignoring(spec.ignored))),
        comm: b"init".to_vec(),
        mask: 0,
        begin: Begin::Clone { set_tid: 0, number: 0 },
    });
    group.threads.lock().push(task.clone());
    tree.add_process(&group, 0, pid, pid, 0);
    tree.add_task(&task);
    drop(tree);
    match begin::settle(&task, spec, &place.common) {
        Ok(()) => Ok(task),
        Err(e) => {
            end_later(&task, sig::KILL);
            Err(e)
        }
    }
}

fn give_stdio(
    kernel: &Arc<Kernel>,
    stdio: &Arc<StdioHub>,
    name: &str,
    task: &Arc<Task>,
    spec: &Process,
    plain: bool,
) -> Result<Option<Arc<Tty>>, Failure> {
    let host = |e: Errno| Failure::new(FailureKind::Host, format!("standard streams: {e}"));
    let owner = (task.creds().ruid, task.creds().rgid);
    let (files, terminal) = if spec.terminal {
        // Made by root, as runc does, and the user's then.
        let gid = task.creds().user_ns.kernel_gid(0).unwrap_or(owner.1);
        let (files, tty) = terminal_files(kernel, stdio, name, plain, &task.fs(), (owner.0, gid)).map_err(host)?;
        tty.make_controlling(task, false).map_err(host)?;
        if let Some((rows, cols)) = spec.console_size {
            tty.set_size(WinSize { rows, cols, x: 0, y: 0 });
        }
        (files.to_vec(), Some(tty))
    } else {
        (stdio_files(stdio, name, plain, 0..3, owner).map_err(host)?, None)
    };
    let more = stdio_files(stdio, name, false, 3..spec.more_files.saturating_add(3), owner).map_err(host)?;
    let files = files.into_iter().chain(more);
    let table = task.files();
    for (fd, file) in files.enumerate() {
        let fd = i32::try_from(fd).unwrap_or(0);
        table.put(fd, file, false, INFINITY).map_err(host)?;
    }
    Ok(terminal)
}

/// Puts the terminal that is a process's standard input on `/dev/console`, as runc does for the first process of a container. Where that
/// is not there and cannot be made, there is none.
fn show_console(task: &Arc<Task>) -> Result<(), Failure> {
    let host = |e: Errno| Failure::new(FailureKind::Host, format!("/dev/console: {e}"));
    let slave = task.files().get(0).map_err(host)?.path_ref().clone();
    if Devpts::of(&slave.mount.fs).is_none() {
        return Ok(());
    }
    let kernel = Caller::kernel(task.fs(), Creds::root(ALL_CAPABILITIES));
    let (root, path) = (task.fs().root(), b"/dev/console");
    let at = match ops::mknod(&kernel, root.clone(), path, mode::REGULAR | 0o666, 0) {
        Ok(_) | Err(Errno::EEXIST) => walk(&kernel, root, path, true).map_err(host)?,
        Err(_) => return Ok(()),
    };
    task.fs().namespace().bind(&slave, at, false).map_err(host)
}

/// The working directory and the program, as runc looks for both when a container is made.
fn look_up(task: &Arc<Task>, spec: &Process) -> Result<(Vec<u8>, Arc<File>), Failure> {
    let shown = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    let mut there = vfs::chdir(task, &spec.cwd);
    if there == Err(Errno::EACCES) && !task.group().plain.load(Ordering::Relaxed) {
        // As runc, which goes there before it gives up its rights.
        let mut creds = Creds::clone(&task.creds());
        (creds.effective, creds.fsuid) = (ALL_CAPABILITIES, 0);
        there = vfs::chdir_as(&Caller { creds: Arc::new(creds), ..Caller::of(task) }, &spec.cwd);
    }
    if let Err(e) = there {
        let kind = if e == Errno::EACCES { FailureKind::Permission } else { FailureKind::Invalid };
        return Err(Failure::new(
            kind,
            format!("chdir to cwd ({:?}) set in config.json failed: {e}", shown(&spec.cwd)),
        ));
    }
    let name = spec.args.first().cloned().unwrap_or_default();
    find_program(task, &name, &spec.env).map_err(|e| {
        let shown = shown(&name);
        match e {
            Errno::ENOENT | Errno::ENOTDIR if !name.contains(&b'/') => {
                Failure::new(FailureKind::NotFound, format!("exec: {shown:?}: executable file not found in $PATH"))
            }
            Errno::ENOENT | Errno::ENOTDIR => {
                Failure::new(FailureKind::NotFound, format!("exec: {shown:?}: stat {shown}: no such file or directory"))
            }
            Errno::EACCES => Failure::new(FailureKind::Permission, format!("exec: {shown:?}: permission denied")),
            e => Failure::new(FailureKind::Invalid, format!("exec: {shown:?}: {e}")),
        }
    })
}

/// The program a name stands for: as it is if it has a slash, else looked for in the container's PATH.
fn find_program(task: &Arc<Task>, name: &[u8], env: &[Vec<u8>]) -> Result<(Vec<u8>, Arc<File>), Errno> {
    if name.is_empty() {
        return Err(Errno::ENOENT);
    }
    if name.contains(&b'/') {
        return vfs::open_exec(task, AT_FDCWD, name, 0).map(|f| (name.to_vec(), f));
    }
    let default: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let path = env.iter().find_map(|e| e.strip_prefix(b"PATH=")).unwrap_or(default);
    for dir in path.split(|b| *b == b':') {
        let mut full = if dir.is_empty() { b".".to_vec() } else { dir.to_vec() };
        full.push(b'/');
        full.extend_from_slice(name);
        // As runc: what may not be run, or looked at, is not found.
        if let Ok(f) = vfs::open_exec(task, AT_FDCWD, &full, 0) {
            return Ok((full, f));
        }
    }
    Err(Errno::ENOENT)
}
