//! The connection to the supervisor, and starting one.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use cofferdam_confine::cgroup;
use cofferdam_control::client::{Request, Response, Source};
use cofferdam_control::{Channel, ControlError};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::arguments::Globals;
use crate::failure::Failure;
use crate::sources;

/// A connection on which requests are asked one at a time.
#[derive(Debug)]
pub struct Connection {
    channel: Channel,
    /// Ends and stops of containers that were told between a request and its answer: a program that ends at once does
    /// so before the answer to its start.
    early: RefCell<VecDeque<Response>>,
    /// Answers to come that nobody waits for.
    owed: Cell<usize>,
    /// A file that this program has made for the container, by the name that the document has for it.
    made: RefCell<Option<(Vec<u8>, OwnedFd)>>,
}

/// Whether this is the host's root. Root of a user namespace is a user with a place of his own, as with runc, unless USER says root.
fn is_root() -> bool {
    let everybody = || cofferdam_confine::ids::Ids::own("uid_map").map_or(true, |ids| ids.are_all());
    let named = || std::env::var_os("USER").is_some_and(|user| user == "root");
    let nowhere = || std::env::var_os("XDG_RUNTIME_DIR").is_none_or(|dir| dir.is_empty());
    rustix::process::geteuid().is_root() && (everybody() || named() || nowhere())
}

/// The root directory: as asked, or the default of this user.
pub fn root(globals: &Globals) -> Result<PathBuf, Failure> {
    let root = match &globals.root {
        Some(root) => root.clone(),
        None if is_root() => PathBuf::from("/run/cofferdam"),
        None => match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(dir) if !dir.is_empty() => PathBuf::from(dir).join("cofferdam"),
            _ => PathBuf::from(format!("/tmp/cofferdam-{}", rustix::process::geteuid().as_raw())),
        },
    };
    std::path::absolute(&root).map_err(Failure::host(root.display().to_string()))
}

impl Connection {
    /// Connects, starting a supervisor if none runs.
    pub fn open(root: &Path) -> Result<Self, Failure> {
        for attempt in 0..50u32 {
            if let Some(connection) = Self::existing(root)? {
                return Ok(connection);
            }
            start_supervisor(root)?;
            if attempt > 0 {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Err(Failure::Supervisor(format!("cannot be reached at {}", root.display())))
    }

    /// Connects if a supervisor runs. One that is about to leave counts as none.
    pub fn existing(root: &Path) -> Result<Option<Self>, Failure> {
        use rustix::io::Errno;
        let path = root.join("supervisor.sock");
        let at = |e: Errno| Failure::Host { what: path.display().to_string(), source: e.into() };
        let address = SocketAddrUnix::new(&path).map_err(at)?;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(at)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::CONNREFUSED) => return Ok(None),
            Err(e) => return Err(at(e)),
        }
        let connection = Self {
            channel: Channel::new(socket),
            early: RefCell::default(),
            owed: Cell::new(0),
            made: RefCell::default(),
        };
        match connection.next() {
            Ok(Response::Done) => Ok(Some(connection)),
            Ok(_) => Err(Failure::Supervisor("greets strangely".into())),
            Err(ControlError::Closed) => Ok(None),
            Err(e) => Err(Failure::Supervisor(e.to_string())),
        }
    }

    /// Sends a request whose answer nobody waits for.
    pub fn tell(&self, request: &Request) -> Result<(), Failure> {
        self.send(request, &[])?;
        self.owed.set(self.owed.get() + 1);
        Ok(())
    }

    /// Whether it is the answer to something that was only told.
    fn is_owed(&self, response: &Response) -> bool {
        let answer = !response.unasked();
        let owed = self.owed.get();
        self.owed.set(if answer { owed.saturating_sub(1) } else { owed });
        answer && owed > 0
    }

    fn send(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(), Failure> {
        self.channel.send(request, descriptors).map_err(lost)
    }

    /// The next answer.
    pub fn next(&self) -> Result<Response, ControlError> {
        self.channel.receive::<Response>().map(|got| got.message)
    }

    /// What came unasked, if it is here already: an end, phases of a start.
    pub fn try_next(&self) -> Result<Option<Response>, Failure> {
        if let Some(ended) = self.early.borrow_mut().pop_front() {
            return Ok(Some(ended));
        }
        loop {
            match self.channel.try_receive::<Response>() {
                Ok(Some(got)) if self.is_owed(&got.message) => {}
                Ok(got) => return Ok(got.map(|got| got.message)),
                Err(e) => return Err(lost(e)),
            }
        }
    }

    /// Has a container take a file that is nowhere by a name of its document's.
    pub fn has_made(&self, name: &str, file: OwnedFd) {
        *self.made.borrow_mut() = Some((name.as_bytes().to_vec(), file));
    }

    /// Opens what a container is to have.
    fn hand_over(&self, sources: &[Source]) -> Result<(), Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, "/", flags, Mode::empty());
        let root = root.map_err(|e| Failure::Host { what: "/".into(), source: e.into() })?;
        let made = self.made.borrow();
        let made = made.as_ref().map(|(name, file)| (name.as_slice(), file.as_fd()));
        match sources::open(root.as_fd(), sources, made) {
            Ok(opened) => {
                let (files, what): (Vec<_>, Vec<_>) = opened.into_iter().unzip();
                let files: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
                self.send(&Request::Opened(Ok(what)), &files)
            }
            Err(refused) => self.send(&Request::Opened(Err(refused)), &[]),
        }
    }

    /// Asks and waits for the answer; a refusal is a failure. Phases of a start that come first go to `trace`.
    pub fn ask_traced(
        &self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
        trace: &mut Vec<(String, u64)>,
    ) -> Result<Response, Failure> {
        self.send(request, descriptors)?;
        loop {
            match self.next() {
                // An answer to a signal: one that came too late is nobody's concern.
                Ok(response) if self.is_owed(&response) => {}
                Ok(Response::Failed { kind, message }) => return Err(Failure::Refused { kind, message }),
                Ok(Response::Open(sources)) => self.hand_over(&sources)?,
                Ok(Response::Trace(phases)) => *trace = phases,
                Ok(unasked) if unasked.unasked() => self.early.borrow_mut().push_back(unasked),
                Ok(answer) => return Ok(answer),
                Err(e) => return Err(lost(e)),
            }
        }
    }

    /// Waits for the end of a container.
    pub fn await_end(&self, id: &str) -> Result<Response, Failure> {
        self.send(&Request::Wait { id: id.into() }, &[])?;
        loop {
            match self.next().map_err(lost)? {
                Response::Failed { kind, message } => return Err(Failure::Refused { kind, message }),
                ended @ Response::Exited { .. } => return Ok(ended),
                _ => {}
            }
        }
    }

    /// Asks to be told when a container says that it is ready ([`Response::Ready`]).
    pub fn watch_ready(&self, id: &str) -> Result<(), Failure> {
        self.send(&Request::AwaitReady { id: id.into() }, &[])
    }

    /// Waits until a container says that it is ready; whether it did.
    pub fn await_ready(&self, id: &str) -> Result<bool, Failure> {
        self.watch_ready(id)?;
        loop {
            match self.next().map_err(lost)? {
                Response::Failed { kind, message } => return Err(Failure::Refused { kind, message }),
                Response::Ready { is, .. } => return Ok(is),
                _ => {}
            }
        }
    }

    /// Asks and waits for the answer; a refusal is a failure.
    pub fn ask(&self, request: &Request) -> Result<Response, Failure> {
        self.ask_traced(request, &[], &mut Vec::new())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// The conversation is over.
fn lost(e: ControlError) -> Failure {
    match e {
        ControlError::Closed => Failure::Supervisor("is gone, and its sandboxes with it".into()),
        e => Failure::Supervisor(e.to_string()),
    }
}

/// Removes what a supervisor that was killed left of `id`, and its socket, unless another supervisor is there to do it.
pub fn sweep(root: &Path, id: &str) {
    if id.is_empty() || id.starts_with('.') || id.contains('/') {
        return;
    }
    let folder = root.join(id);
    if cgroup::remove_recorded(&folder) {
        let _ = stop_unit(&folder);
    }
    for file in ["state.json", "state.json.new", cgroup::RECORD] {
        let _ = std::fs::remove_file(folder.join(file));
    }
    let _ = std::fs::remove_dir(folder);
    let Ok(lock) = std::fs::File::open(root.join("supervisor.lock")) else { return };
    // The dying one may hold it a moment longer.
    for _ in 0..50 {
        if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = std::fs::remove_file(root.join("supervisor.sock"));
            return;
        }
        if Connection::existing(root).is_ok_and(|c| c.is_some()) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Stops the unit of systemd that is noted in the folder of a container whose supervisor is gone.
pub fn stop_unit(folder: &Path) -> Result<(), Failure> {
    let Some((unit, user)) = cgroup::recorded_unit(folder) else { return Ok(()) };
    ask_systemd(user, &["--stop-unit", &unit])
}

/// Moves this process to the unit that is noted in a container's folder, if it is one of the user's own systemd: that may ask the
/// system's to move it out of a session, which nobody but root may do by himself. `None` if there is no such unit.
pub fn join_unit(folder: &Path) -> Option<Result<(), Failure>> {
    let (unit, _) = cgroup::recorded_unit(folder).filter(|(_, user)| *user)?;
    Some(ask_systemd(true, &["--join-unit", &unit, "--process", &std::process::id().to_string()]))
}

/// Has the supervisor's program ask systemd, which the command line itself cannot.
fn ask_systemd(user: bool, words: &[&str]) -> Result<(), Failure> {
    let program = beside("cofferdam-supervisor")?;
    let mut command = Command::new(&program);
    command.args(words).current_dir("/").stdin(Stdio::null());
    if user {
        command.arg("--user");
    }
    let output = command.output().map_err(Failure::host(program.display().to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Failure::Supervisor(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// Starts a supervisor and waits until it listens, or has found that another one does.
fn start_supervisor(root: &Path) -> Result<(), Failure> {
    let program = beside("cofferdam-supervisor")?;
    let (mut hear, voice) = std::io::pipe().map_err(Failure::host("pipe"))?;
    let errors = voice.try_clone().map_err(Failure::host("dup"))?;
    let mut child = Command::new(&program)
        .arg("--root")
        .arg(root)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(voice)
        .stderr(errors)
        .spawn()
        .map_err(Failure::host(program.display().to_string()))?;
    let mut text = String::new();
    let _ = (&mut hear).take(4096).read_to_string(&mut text);
    match child.try_wait() {
        Ok(Some(status)) if !status.success() => Err(Failure::Supervisor(format!("{status} {}", text.trim()))),
        _ if !text.trim().is_empty() => Err(Failure::Supervisor(text.trim().to_owned())),
        _ => Ok(()),
    }
}

/// A program of Cofferdam: beside this one, or installed.
fn beside(name: &str) -> Result<PathBuf, Failure> {
    let exe = std::fs::read_link("/proc/self/exe").map_err(Failure::host("/proc/self/exe"))?;
    let near = exe.parent().map(|d| d.join(name));
    let installed = Path::new("/usr/libexec/cofferdam").join(name);
    near.into_iter().chain([installed]).find(|p| p.exists()).ok_or_else(|| {
        Failure::Usage(format!("{name} lies neither beside {} nor in /usr/libexec/cofferdam", exe.display()))
    })
}
