//! The sandbox as the supervisor sees it: orders in, events out.
//!
//! Owns the life of containers in this Sentry: made (tree of files, first task), started, signalled, ended. Talks over
//! the control channel only; nothing a container controls goes back over it but exit statuses. One container a Sentry
//! for now; the messages name containers, so that pods can come.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cofferdam_control::sentry::{Container, ExitStatus, FailureKind, FromSentry, ToSentry};
use cofferdam_control::{Channel, ControlError};
use cofferdam_ninep::client::Client;

use crate::errno::Errno;
use crate::filesystems::root::build_root;
use crate::filesystems::stdio::{StdioHub, stdio_files, terminal_files};
use crate::ipc::termios::WinSize;
use crate::ipc::tty::{self, Tty};
use crate::kernel::Kernel;
use crate::memory::AddressSpace;
use crate::signal::{Actions, SigInfo, code, send, sig};
use crate::sync::Mutex;
use crate::syscalls::args::AT_FDCWD;
use crate::task::group::{INFINITY, Limit, default_limits};
use crate::task::{Begin, Creds, Group, Parts, Task, exec};
use crate::vfs::{self, FdTable, File, FsContext};
use crate::wait::run_woken;

/// How long the output of a command that stops may hold up the stop.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The containers of this Sentry and their way to the supervisor.
pub struct Sandbox {
    kernel: Arc<Kernel>,
    files: Client,
    stdio: Arc<StdioHub>,
    channel: Arc<Channel>,
    container: Mutex<Option<Made>>,
}

/// A container that has been made.
struct Made {
    id: String,
    task: Arc<Task>,
    spec: Container,
    terminal: Option<Arc<Tty>>,
    /// The program and its path, until it is started.
    program: Option<(Vec<u8>, Arc<File>)>,
    started: bool,
}

/// Why a container could not be made or started.
struct Failure {
    kind: FailureKind,
    message: String,
}

impl Failure {
    fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl Sandbox {
    /// A sandbox with no container yet.
    pub fn new(kernel: Arc<Kernel>, files: Client, stdio: Arc<StdioHub>, channel: Arc<Channel>) -> Arc<Self> {
        let weak = Arc::downgrade(&kernel);
        let hang_up = move |sid| {
            if let Some(kernel) = weak.upgrade() {
                tty::session_ended(&kernel, sid);
            }
        };
        kernel.session_end.set(Box::new(hang_up)).ok();
        Arc::new(Self { kernel, files, stdio, channel, container: Mutex::new(None) })
    }

    fn tell(&self, event: &FromSentry) {
        if let Err(e) = self.channel.send(event, &[]) {
            tracing::error!("the supervisor is gone: {e}");
            std::process::exit(0);
        }
    }

    /// Serves the supervisor until it says stop or goes away.
    pub fn run(self: &Arc<Self>) {
        loop {
            let message = match self.channel.receive::<ToSentry>() {
                Ok(m) => m.message,
                Err(ControlError::Closed) => return,
                Err(e) => {
                    tracing::error!("from the supervisor: {e}");
                    return;
                }
            };
            let id = match &message {
                ToSentry::Create(c) => Some(c.id.clone()),
                ToSentry::Start { id }
                | ToSentry::Kill { id, .. }
                | ToSentry::Resize { id, .. }
                | ToSentry::Front { id, .. }
                | ToSentry::Delete { id } => Some(id.clone()),
                ToSentry::Stop => return,
            };
            let result = match message {
                ToSentry::Create(spec) => self.create(*spec),
                ToSentry::Start { id } => self.start(&id),
                ToSentry::Kill { id, signal, all } => self.kill(&id, signal, all),
                ToSentry::Resize { id, rows, cols } => self.resize(&id, rows, cols),
                ToSentry::Front { id, stops } => self.front(&id, stops),
                ToSentry::Delete { id } => self.delete(&id),
                ToSentry::Stop => return,
            };
            let answer = match result {
                Ok(event) => event,
                Err(f) => FromSentry::Failed { id, kind: f.kind, message: f.message },
            };
            self.tell(&answer);
            run_woken();
        }
    }

    fn create(self: &Arc<Self>, spec: Container) -> Result<FromSentry, Failure> {
        let mut slot = self.container.lock();
        if slot.is_some() {
            return Err(Failure::new(FailureKind::Exists, "this sandbox has a container already"));
        }
        let invalid = |e: &dyn std::fmt::Display| Failure::new(FailureKind::Invalid, e.to_string());
        let fs = build_root(&self.kernel, &self.files, &spec).map_err(|e| invalid(&e))?;
        {
            let mut names = self.kernel.names.write();
            if let Some(h) = &spec.hostname {
                names.0 = h.clone().into_bytes();
            }
            if let Some(d) = &spec.domainname {
                names.1 = d.clone().into_bytes();
            }
        }
        let task = self.first_task(&spec, Arc::new(fs)).map_err(|e| Failure::new(FailureKind::Host, e.to_string()))?;
        let terminal = self.give_stdio(&task, &spec)?;
        let program = Some(Self::look_up(&task, &spec)?);
        let (id, pid) = (spec.id.clone(), task.pid());
        *slot = Some(Made { id: id.clone(), task, spec, terminal, program, started: false });
        Ok(FromSentry::Created { id, pid })
    }

    fn first_task(&self, spec: &Container, fs: Arc<FsContext>) -> Result<Arc<Task>, Errno> {
        let mut limits = default_limits();
        for (which, soft, hard) in &spec.rlimits {
            if let Some(l) = limits.get_mut(*which as usize) {
                *l = Limit { soft: *soft, hard: *hard };
            }
        }
        let c = &spec.capabilities;
        let mut creds = Creds::user(spec.uid, spec.gid, spec.groups.clone(), c.bounding);
        creds.permitted = c.permitted;
        creds.effective = c.effective;
        creds.inheritable = c.inheritable;
        creds.ambient = c.ambient;
        creds.no_new_privileges = spec.no_new_privileges;
        if let Some(umask) = spec.umask {
            fs.set_umask(umask);
        }
        let mut tree = self.kernel.tree.lock();
        let pid = tree.new_id().ok_or(Errno::EAGAIN)?;
        let group = Group::new(pid, limits);
        group.plain.store(spec.plain, Ordering::Relaxed);
        if let Some(adj) = spec.oom_score_adj {
            group.oom_score_adj.store(adj, Ordering::Relaxed);
        }
        let task = Task::new(Parts {
            kernel: self.kernel.clone(),
            tid: pid,
            group: group.clone(),
            files: Arc::new(FdTable::default()),
            fs,
            creds: Arc::new(creds),
            mm: AddressSpace::new(0, 0),
            actions: Arc::new(Mutex::new(Actions::ignoring(spec.ignored))),
            comm: b"init".to_vec(),
            mask: 0,
            begin: Begin::Clone { set_tid: 0 },
        });
        group.threads.lock().push(task.clone());
        tree.add_process(&group, 0, pid, pid, 0);
        tree.add_task(&task);
        Ok(task)
    }

    fn give_stdio(&self, task: &Arc<Task>, spec: &Container) -> Result<Option<Arc<Tty>>, Failure> {
        let host = |e: Errno| Failure::new(FailureKind::Host, format!("standard streams: {e}"));
        let (files, terminal) = if spec.terminal {
            if spec.plain {
                // The user's own terminal, which is ours only while the command line is in front.
                self.stdio.hold();
            }
            let owner = (spec.uid, spec.gid);
            let (files, tty) = terminal_files(&self.kernel, &self.stdio, &spec.id, &task.fs(), owner).map_err(host)?;
            tty.make_controlling(task, false).map_err(host)?;
            if let Some((rows, cols)) = spec.console_size {
                tty.set_size(WinSize { rows, cols, x: 0, y: 0 });
            }
            (files, Some(tty))
        } else {
            (stdio_files(&self.stdio, &spec.id, spec.uid, spec.gid).map_err(host)?, None)
        };
        let table = task.files();
        for (fd, file) in files.into_iter().enumerate() {
            let fd = i32::try_from(fd).unwrap_or(0);
            table.put(fd, file, false, INFINITY).map_err(host)?;
        }
        Ok(terminal)
    }

    /// The working directory and the program, as runc looks for both when a container is made.
    fn look_up(task: &Arc<Task>, spec: &Container) -> Result<(Vec<u8>, Arc<File>), Failure> {
        let shown = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        if let Err(e) = vfs::chdir(task, &spec.cwd) {
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
                Errno::ENOENT | Errno::ENOTDIR => Failure::new(
                    FailureKind::NotFound,
                    format!("exec: {shown:?}: stat {shown}: no such file or directory"),
                ),
                Errno::EACCES => Failure::new(FailureKind::Permission, format!("exec: {shown:?}: permission denied")),
                e => Failure::new(FailureKind::Invalid, format!("exec: {shown:?}: {e}")),
            }
        })
    }

    fn start(self: &Arc<Self>, id: &str) -> Result<FromSentry, Failure> {
        let mut slot = self.container.lock();
        let made = Self::find(&mut slot, id)?;
        if made.started {
            return Err(Failure::new(FailureKind::WrongState, "container is already running"));
        }
        let (task, spec) = (made.task.clone(), &made.spec);
        let name = spec.args.first().cloned().unwrap_or_default();
        let (path, file) = match made.program.take() {
            Some(program) => program,
            None => Self::look_up(&task, spec)?,
        };
        exec::start_init(&task, file, path, spec.args.clone(), spec.env.clone()).map_err(|e| {
            let shown = String::from_utf8_lossy(&name);
            match e {
                Errno::ENOEXEC => Failure::new(FailureKind::Permission, format!("exec {shown}: exec format error")),
                Errno::ENOENT => Failure::new(
                    FailureKind::NotFound,
                    format!("exec {shown}: no such file or directory (its interpreter is missing)"),
                ),
                Errno::EACCES => Failure::new(FailureKind::Permission, format!("exec {shown}: permission denied")),
                e => Failure::new(FailureKind::Invalid, format!("exec {shown}: {e}")),
            }
        })?;
        made.started = true;
        Ok(FromSentry::Started { id: id.to_owned() })
    }

    fn find<'a>(slot: &'a mut Option<Made>, id: &str) -> Result<&'a mut Made, Failure> {
        slot.as_mut()
            .filter(|m| m.id == id)
            .ok_or_else(|| Failure::new(FailureKind::NoSuchContainer, format!("container {id} does not exist")))
    }

    fn kill(&self, id: &str, signal: i32, all: bool) -> Result<FromSentry, Failure> {
        let mut slot = self.container.lock();
        let made = Self::find(&mut slot, id)?;
        if !crate::signal::valid(signal) {
            return Err(Failure::new(FailureKind::Invalid, format!("signal {signal} does not exist")));
        }
        let group = made.task.group().clone();
        if group.is_exiting() {
            return Err(Failure::new(FailureKind::WrongState, "container not running"));
        }
        if !made.started {
            // Nothing runs yet: the end comes at once, as for a process that was never let go.
            if matches!(signal, sig::KILL | sig::TERM | sig::INT | sig::HUP | sig::QUIT) {
                let task = made.task.clone();
                drop(slot);
                crate::task::exit::exit_group(&task, signal);
            }
            return Ok(FromSentry::Done);
        }
        drop(slot);
        // From outside: code > 0 marks it as the kernel's, which process 1 cannot refuse.
        let info = SigInfo::new(signal, if signal == sig::KILL { code::KERNEL } else { code::USER });
        if all {
            let groups: Vec<_> = {
                let tree = self.kernel.tree.lock();
                tree.pids().into_iter().filter_map(|p| tree.group(p)).collect()
            };
            for g in groups {
                send::to_group(&self.kernel, &g, info);
            }
        } else if signal == sig::CONT && group.plain.load(Ordering::Relaxed) {
            self.stdio.go_on();
            // The user's shell continues a job, which is a process group.
            let pgid = self.kernel.tree.lock().node(group.pid).map_or(group.pid, |n| n.pgid);
            send::to_process_group(&self.kernel, pgid, info);
        } else {
            send::to_group(&self.kernel, &group, info);
        }
        Ok(FromSentry::Done)
    }

    fn resize(&self, id: &str, rows: u16, cols: u16) -> Result<FromSentry, Failure> {
        let mut slot = self.container.lock();
        let made = Self::find(&mut slot, id)?;
        if let Some(tty) = &made.terminal {
            tty.set_size(WinSize { rows, cols, x: 0, y: 0 });
        }
        Ok(FromSentry::Done)
    }

    fn front(&self, id: &str, stops: u32) -> Result<FromSentry, Failure> {
        Self::find(&mut self.container.lock(), id)?;
        self.stdio.release(stops);
        Ok(FromSentry::Done)
    }

    fn delete(&self, id: &str) -> Result<FromSentry, Failure> {
        let mut slot = self.container.lock();
        let made = Self::find(&mut slot, id)?;
        if made.started && !made.task.group().is_exiting() {
            return Err(Failure::new(FailureKind::WrongState, "container is still running"));
        }
        Ok(FromSentry::Done)
    }

    /// Process 1 has stopped. For the command of `do` the user's shell takes over, to which its input belongs then.
    pub fn stopped(self: &Arc<Self>, signal: i32) {
        let plain = self.container.lock().as_ref().filter(|m| m.spec.plain).map(|m| (m.id.clone(), m.spec.terminal));
        let Some((id, terminal)) = plain else { return };
        if terminal {
            // What it wrote should come before the shell's prompt; a terminal that takes nothing does not hold it up.
            self.stdio.drain(LAST_WORDS);
        }
        let me = Arc::downgrade(self);
        self.stdio.stop(Box::new(move || {
            if let Some(me) = me.upgrade() {
                me.tell(&FromSentry::Stopped { id, signal });
            }
        }));
    }

    /// Process 1 ended with a wait status.
    pub fn ended(&self, status: i32) {
        let Some(id) = self.container.lock().as_ref().map(|m| m.id.clone()) else { return };
        // What the container wrote must be out before its end is told.
        self.stdio.drain(Duration::from_secs(5));
        let status = match status & 0x7f {
            0 => ExitStatus::Code(((status >> 8) & 0xff) as u8),
            s => ExitStatus::Signal(s, status & 0x80 != 0),
        };
        self.tell(&FromSentry::Exited { id, status });
    }
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
