//! One sandbox: a Sentry, a Gofer and one container, from `create` to its end.
//!
//! Owns the order of the start (sockets, cache, launch, orders, ready, stdio, container) and of the end (Stop, then
//! kill), and turns the death of either service into the end of the container with a reason. It reads nothing that a
//! container writes: services' answers are decoded as bounded messages. Called by `server`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use cofferdam_control::client::{Create, Owner, State, Status};
use cofferdam_control::gofer::{Export, ExportKind, FromGofer, GoferOrders, ToGofer};
use cofferdam_control::sentry::{ExitStatus, FailureKind, FromSentry, SentryOrders, ToSentry};
use cofferdam_control::{AsyncChannel, Channel, ControlError};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::house::{House, Launched};
use crate::launcher::Service;
use crate::logbook::Logbook;
use crate::record::Record;
use crate::spec::{self, ExportPath, Refused};

/// How long a service may take to come up, or to answer an order.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take to end by itself.
const FAREWELL: Duration = Duration::from_secs(2);
/// The most unanswered orders to one service.
const MAX_UNANSWERED: usize = 1024;

/// How a container ended, and whose fault it was if not its own.
pub type End = (ExitStatus, Option<String>);

/// A channel to a service whose answers come in the order of the questions.
struct Link<T> {
    channel: AsyncChannel,
    answers: RefCell<VecDeque<oneshot::Sender<T>>>,
    launched: Launched,
}

impl<T: DeserializeOwned> Link<T> {
    fn new(house: &House, service: Service) -> Result<Self, Refused> {
        let (ours, theirs) = Channel::pair().map_err(internal)?;
        let launched = house.launch(service, theirs)?;
        Ok(Self { channel: AsyncChannel::new(ours).map_err(internal)?, answers: RefCell::default(), launched })
    }

    async fn ask<M: Serialize>(&self, message: &M, descriptors: &[BorrowedFd<'_>]) -> Result<T, Lost> {
        let (to, answer) = oneshot::channel();
        {
            let mut answers = self.answers.borrow_mut();
            if answers.len() >= MAX_UNANSWERED {
                return Err(Lost("has too much to answer"));
            }
            answers.push_back(to);
        }
        self.channel.send(message, descriptors).map_err(|_| Lost("cannot be told anything"))?;
        let answer = timeout(PATIENCE, answer).await.map_err(|_| Lost("does not answer in time"))?;
        answer.map_err(|_| Lost("is gone"))
    }

    fn answer(&self, message: T) -> Result<(), &'static str> {
        let next = self.answers.borrow_mut().pop_front();
        // One that gave up waiting does not mind.
        next.map(|to| drop(to.send(message))).ok_or("it answered what nobody asked")
    }

    /// Why it is gone: how it ended, and its last words.
    async fn obituary(&self, why: &str) -> String {
        let mut ending = self.launched.ending.clone();
        let how = match timeout(Duration::from_millis(500), ending.wait_for(Option::is_some)).await {
            Ok(Ok(how)) => how.clone().unwrap_or_default(),
            _ => why.to_owned(),
        };
        let mut words = Vec::new();
        let _ = (&self.launched.voice).take(2048).read_to_end(&mut words);
        let words = String::from_utf8_lossy(&words).trim().escape_debug().to_string();
        let title = self.launched.service.title();
        if words.is_empty() { format!("the {title} {how}") } else { format!("the {title} {how}: {words}") }
    }
}

/// The service is gone or does not answer: which of them. If it ended, the reader task tells more.
struct Lost(&'static str);

/// One sandbox.
pub struct Sandbox {
    house: Weak<House>,
    state: RefCell<State>,
    record: RefCell<Option<Record>>,
    sentry: Link<FromSentry>,
    gofer: Link<FromGofer>,
    end: watch::Sender<Option<End>>,
    gone: watch::Sender<bool>,
    /// The signal that stopped it last.
    stops: watch::Sender<i32>,
    logbook: Logbook,
    trace: RefCell<Vec<(String, u64)>>,
    /// Whether a stand-in (or an owning connection) has it, so that the death of its `create` does not matter.
    pub kept: Cell<bool>,
    /// The platform in use, and why.
    platform: RefCell<(String, String)>,
}

fn internal(e: ControlError) -> Refused {
    Refused::new(FailureKind::Internal, e.to_string())
}

fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// Checks a container id as runc does: it names a folder.
pub fn check_id(id: &str) -> Result<(), Refused> {
    let fine = id.len() <= 255
        && !matches!(id, "" | "." | "..")
        && id.chars().all(|c| c.is_ascii_alphanumeric() || "_+-.".contains(c));
    if fine { Ok(()) } else { Err(Refused::new(FailureKind::Invalid, format!("invalid container ID format: {id:?}"))) }
}

impl Sandbox {
    /// Makes a sandbox with its container created. `descriptors` are those of the request.
    pub async fn create(
        house: &Rc<House>,
        request: &Create,
        mut descriptors: Vec<OwnedFd>,
        owner: u32,
    ) -> Result<Rc<Self>, Refused> {
        check_id(&request.id)?;
        if house.sandboxes.borrow().contains_key(&request.id) {
            return Err(Refused::new(FailureKind::Exists, "container with given ID already exists"));
        }
        let expected = if request.tty { 1 } else { 3 };
        if descriptors.len() != expected + usize::from(request.log.is_some()) {
            return Err(Refused::new(FailureKind::Invalid, "a create request with the wrong number of descriptors"));
        }
        let log = request.log.and_then(|_| descriptors.pop());
        let document = read_document(request)?;
        let mut plan = spec::plan(&document, request)?;
        let roots = open_exports(&mut plan.exports)?;
        let mut record = Record::create(
            &house.root,
            &request.id,
            plan.oci_version,
            plan.annotations,
            request.owner == Owner::Connection,
        );
        if record.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::AlreadyExists) {
            record = Err(std::io::Error::other("container with given ID already exists (delete --force removes it)"));
        }
        let record = record.map_err(|e| match e.raw_os_error() {
            None => Refused::new(FailureKind::Exists, e.to_string()),
            Some(_) => Refused::new(
                FailureKind::Host,
                format!("making a folder for the container's state in {}: {e}", house.root.display()),
            ),
        })?;
        let state = State {
            id: request.id.clone(),
            status: Status::Creating,
            pid: 0,
            bundle: request.bundle.clone(),
            created: std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            owner,
        };
        let sandbox = Rc::new(Self {
            house: Rc::downgrade(house),
            state: RefCell::new(state),
            record: RefCell::new(Some(record)),
            sentry: Link::new(house, Service::Sentry)?,
            gofer: Link::new(house, Service::Gofer)?,
            end: watch::channel(None).0,
            gone: watch::channel(false).0,
            stops: watch::channel(0).0,
            logbook: Logbook::new(log, request.log),
            trace: RefCell::default(),
            kept: Cell::new(false),
            platform: RefCell::default(),
        });
        plan.warnings.into_iter().for_each(|w| sandbox.log(cofferdam_control::LogLevel::Warn, w));
        sandbox.mark("services launched");
        house.sandboxes.borrow_mut().insert(request.id.clone(), sandbox.clone());
        tokio::task::spawn_local(sandbox.clone().hear_sentry());
        tokio::task::spawn_local(sandbox.clone().hear_gofer());
        let done = sandbox.bring_up(request, &descriptors, plan.container, &plan.exports, roots).await;
        match done {
            Ok(()) => Ok(sandbox),
            Err(refused) => {
                sandbox.destroy().await;
                Err(refused)
            }
        }
    }

    async fn bring_up(
        &self,
        request: &Create,
        stdio: &[OwnedFd],
        container: cofferdam_control::sentry::Container,
        exports: &[ExportPath],
        roots: Vec<(OwnedFd, ExportKind)>,
    ) -> Result<(), Refused> {
        let cache = cache()?;
        let pair = || Channel::pair().map_err(internal);
        let (files, stdios) = (pair()?, pair()?);
        let hostname = container.hostname.clone().unwrap_or_else(|| "cofferdam".into());
        let log = self.logbook.settings();
        let orders = GoferOrders {
            sandbox: request.id.clone(),
            cache_size: cache.size(),
            exports: exports
                .iter()
                .zip(&roots)
                .map(|(e, (_, kind))| Export { name: e.name.clone(), read_only: e.read_only, kind: *kind })
                .collect(),
            log,
        };
        let mut rights = vec![files.0.as_fd(), stdios.0.as_fd(), cache.fd()];
        rights.extend(roots.iter().map(|(fd, _)| fd.as_fd()));
        let gofer = self.gofer.ask(&orders, &rights);
        let orders = SentryOrders {
            sandbox: request.id.clone(),
            platform: request.platform,
            patch: request.patch,
            cache_size: cache.size(),
            log,
            trace_startup: request.trace_startup,
            hostname,
        };
        let rights = [files.1.as_fd(), stdios.1.as_fd(), cache.fd()];
        let sentry = self.sentry.ask(&orders, &rights);
        let (gofer, sentry) = tokio::join!(gofer, sentry);
        match gofer {
            Ok(FromGofer::Ready { .. }) => {}
            other => return Err(self.gofer_refused(other).await),
        }
        match sentry {
            Ok(FromSentry::Ready { platform, why, .. }) => *self.platform.borrow_mut() = (platform, why),
            other => return Err(self.sentry_refused(other).await),
        }
        // The services hold them now; ours must go, or neither would see the other's end.
        drop((files, stdios, cache, roots));
        self.mark("services ready");
        let add = ToGofer::AddStdio { container: request.id.clone(), tty: request.tty };
        let stdio: Vec<BorrowedFd<'_>> = stdio.iter().map(AsFd::as_fd).collect();
        match self.gofer.ask(&add, &stdio).await {
            Ok(FromGofer::Done) => {}
            other => return Err(self.gofer_refused(other).await),
        }
        match self.sentry.ask(&ToSentry::Create(Box::new(container)), &[]).await {
            Ok(FromSentry::Created { .. }) => {}
            other => return Err(self.sentry_refused(other).await),
        }
        self.mark("container created");
        self.state.borrow_mut().status = Status::Created;
        // A container whose state nobody could read is none; a later state that cannot be written is only logged.
        self.save().map_err(|e| {
            let root = self.house.upgrade().map(|h| h.root.display().to_string()).unwrap_or_default();
            Refused::new(FailureKind::Host, format!("writing the container's state in {root}: {e}"))
        })
    }

    async fn gofer_refused(&self, answer: Result<FromGofer, Lost>) -> Refused {
        match answer {
            Ok(FromGofer::Failed { message }) => Refused::new(FailureKind::Host, format!("the Gofer: {message}")),
            Ok(_) => Refused::new(FailureKind::Internal, "the Gofer answered something else"),
            Err(Lost(what)) => self.lost("Gofer", what).await,
        }
    }

    async fn sentry_refused(&self, answer: Result<FromSentry, Lost>) -> Refused {
        match answer {
            Ok(FromSentry::Failed { kind, message, .. }) => Refused::new(kind, message),
            Ok(_) => Refused::new(FailureKind::Internal, "the Sentry answered something else"),
            Err(Lost(what)) => self.lost("Sentry", what).await,
        }
    }

    /// The reason of a service's death, which its reader task finds out.
    async fn lost(&self, service: &str, what: &str) -> Refused {
        let mut end = self.end.subscribe();
        let reason = match timeout(Duration::from_secs(1), end.wait_for(Option::is_some)).await {
            Ok(Ok(end)) => end.as_ref().and_then(|(_, reason)| reason.clone()),
            _ => None,
        };
        Refused::new(FailureKind::Internal, reason.unwrap_or_else(|| format!("the {service} {what}")))
    }

    async fn hear_sentry(self: Rc<Self>) {
        let why = loop {
            match self.sentry.channel.receive::<FromSentry>().await {
                Ok(got) => match got.message {
                    FromSentry::Log(line) => self.logbook.write("sentry", &line),
                    FromSentry::Trace(phases) => self.trace.borrow_mut().extend(phases.into_iter().take(100)),
                    FromSentry::Stopped { id, signal } => {
                        if id == self.state.borrow().id {
                            self.stops.send_replace(signal);
                        }
                    }
                    FromSentry::Exited { id, status } => {
                        if id != self.state.borrow().id {
                            continue;
                        }
                        // A container may end because its files are gone: then that is what is told. Nobody waits for
                        // the answer: a Gofer that was killed has closed its channel before the Sentry could notice.
                        let forget = ToGofer::RemoveStdio { container: id };
                        let gofer_gone = tokio::select! {
                            biased;
                            answer = self.gofer.ask(&forget, &[]) => answer.is_err(),
                            () = std::future::ready(()) => false,
                        };
                        if gofer_gone {
                            self.lost_service(&self.gofer, "closed its channel").await;
                        } else {
                            self.ended(status, None);
                            tokio::task::spawn_local(self.clone().stop());
                        }
                    }
                    message => {
                        if let Err(e) = self.sentry.answer(message) {
                            break e.to_owned();
                        }
                    }
                },
                Err(e) => break e.to_string(),
            }
        };
        self.lost_service(&self.sentry, &why).await;
    }

    async fn hear_gofer(self: Rc<Self>) {
        let why = loop {
            match self.gofer.channel.receive::<FromGofer>().await {
                Ok(got) => match got.message {
                    FromGofer::Log(line) => self.logbook.write("gofer", &line),
                    message => {
                        if let Err(e) = self.gofer.answer(message) {
                            break e.to_owned();
                        }
                    }
                },
                Err(e) => break e.to_string(),
            }
        };
        self.lost_service(&self.gofer, &why).await;
    }

    async fn lost_service<T: DeserializeOwned>(self: &Rc<Self>, link: &Link<T>, why: &str) {
        if self.end.borrow().is_none() {
            let reason = link.obituary(why).await;
            self.ended(ExitStatus::Signal(9, false), Some(reason));
            tokio::task::spawn_local(self.clone().stop());
        }
        link.answers.borrow_mut().clear();
    }

    /// Notes the end, once.
    fn ended(&self, status: ExitStatus, reason: Option<String>) {
        if self.end.borrow().is_some() {
            return;
        }
        self.state.borrow_mut().pid = 0;
        self.set_status(Status::Stopped);
        self.end.send_replace(Some((status, reason)));
    }

    fn set_status(&self, status: Status) {
        self.state.borrow_mut().status = status;
        self.save_or_log();
    }

    fn save(&self) -> std::io::Result<()> {
        self.record.borrow().as_ref().map_or(Ok(()), |record| record.write(&self.state.borrow()))
    }

    fn save_or_log(&self) {
        if let Err(e) = self.save() {
            self.log(cofferdam_control::LogLevel::Error, format!("writing state.json: {e}"));
        }
    }

    fn log(&self, level: cofferdam_control::LogLevel, message: String) {
        let line = cofferdam_control::LogLine { level, target: "supervisor".into(), message };
        self.logbook.write("supervisor", &line);
    }

    fn mark(&self, phase: &str) {
        self.trace.borrow_mut().push((phase.into(), now_ns()));
    }

    /// Ends both services: asks, waits, kills.
    async fn stop(self: Rc<Self>) {
        let Some(house) = self.house.upgrade() else { return };
        let _ = self.sentry.channel.send(&ToSentry::Stop, &[]);
        farewell(&house, &self.sentry.launched).await;
        let _ = self.gofer.channel.send(&ToGofer::Stop, &[]);
        farewell(&house, &self.gofer.launched).await;
        self.gone.send_replace(true);
    }

    /// Ends it whatever it does, and removes every trace of it.
    pub async fn destroy(self: &Rc<Self>) {
        if self.end.borrow().is_none() {
            if let Some(house) = self.house.upgrade() {
                house.kill(self.sentry.launched.key);
            }
            self.ended(ExitStatus::Signal(9, false), None);
            tokio::task::spawn_local(self.clone().stop());
        }
        let mut gone = self.gone.subscribe();
        let _ = timeout(4 * FAREWELL, gone.wait_for(|g| *g)).await;
        drop(self.record.borrow_mut().take());
        if let Some(house) = self.house.upgrade() {
            house.sandboxes.borrow_mut().remove(&self.state.borrow().id);
            house.less.notify_one();
        }
    }

    /// Lets the container run.
    pub async fn start(&self) -> Result<(), Refused> {
        let (status, id) = {
            let state = self.state.borrow();
            (state.status, state.id.clone())
        };
        let wrong = |message: &str| Err(Refused::new(FailureKind::WrongState, message));
        match status {
            Status::Created => {}
            Status::Running => return wrong("cannot start an already running container"),
            Status::Stopped => return wrong("cannot start a container that has stopped"),
            Status::Creating => return wrong("cannot start a container in the creating state"),
        }
        match self.sentry.ask(&ToSentry::Start { id }, &[]).await {
            // A program may be over, and its Sentry told to stop, before the answer to its start came through.
            Err(Lost(_)) if matches!(&*self.end.borrow(), Some((_, None))) => Ok(()),
            Ok(FromSentry::Started { .. }) => {
                self.mark("container started");
                if self.state.borrow().status == Status::Created {
                    self.set_status(Status::Running);
                }
                Ok(())
            }
            other => Err(self.sentry_refused(other).await),
        }
    }

    /// Signals it.
    pub async fn kill(&self, signal: i32, all: bool) -> Result<(), Refused> {
        let id = self.running_id(all)?;
        let Some(id) = id else { return Ok(()) };
        self.order(&ToSentry::Kill { id, signal, all }).await
    }

    /// Tells it its terminal's size.
    pub async fn resize(&self, rows: u16, cols: u16) -> Result<(), Refused> {
        match self.running_id(false)? {
            Some(id) => self.order(&ToSentry::Resize { id, rows, cols }).await,
            None => Ok(()),
        }
    }

    /// Tells it that its input may be read.
    pub async fn front(&self, stops: u32) -> Result<(), Refused> {
        match self.running_id(false)? {
            Some(id) => self.order(&ToSentry::Front { id, stops }).await,
            None => Ok(()),
        }
    }

    fn running_id(&self, all: bool) -> Result<Option<String>, Refused> {
        let state = self.state.borrow();
        match state.status {
            Status::Created | Status::Running => Ok(Some(state.id.clone())),
            // Everything in a container that has ended is dead already.
            Status::Stopped if all => Ok(None),
            _ => Err(Refused::new(FailureKind::WrongState, "container not running")),
        }
    }

    async fn order(&self, order: &ToSentry) -> Result<(), Refused> {
        match self.sentry.ask(order, &[]).await {
            Ok(FromSentry::Done) => Ok(()),
            Err(Lost(_)) if self.end.borrow().is_some() => {
                Err(Refused::new(FailureKind::WrongState, "container not running"))
            }
            other => Err(self.sentry_refused(other).await),
        }
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Notes the process that stands in for its init.
    pub fn stand_in(&self, pid: i32) -> Result<(), Refused> {
        if self.state.borrow().status == Status::Stopped || self.state.borrow().pid != 0 {
            return Err(Refused::new(FailureKind::WrongState, "container has its stand-in or has stopped"));
        }
        self.kept.set(true);
        self.state.borrow_mut().pid = pid;
        self.save_or_log();
        Ok(())
    }

    /// Its stops from now on: by which signal.
    pub fn stops(&self) -> watch::Receiver<i32> {
        self.stops.subscribe()
    }

    /// Waits for its end.
    pub async fn wait(&self) -> End {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or((ExitStatus::Signal(9, false), None)),
            Err(_) => (ExitStatus::Signal(9, false), Some("the sandbox is gone".into())),
        }
    }

    /// The phases of its start so far.
    pub fn trace(&self) -> Vec<(String, u64)> {
        self.trace.borrow().clone()
    }

    /// The platform in use, and why.
    pub fn platform(&self) -> (String, String) {
        self.platform.borrow().clone()
    }
}

async fn farewell(house: &House, launched: &Launched) {
    let mut ending = launched.ending.clone();
    if timeout(FAREWELL, ending.wait_for(Option::is_some)).await.is_err() {
        house.kill(launched.key);
        let _ = timeout(FAREWELL, ending.wait_for(Option::is_some)).await;
    }
}

/// The page cache that both services share: as sparse and large as the host allows.
fn cache() -> Result<cofferdam_shm::Window, Refused> {
    let mut last = None;
    for bits in [44, 42, 40, 38, 36] {
        match cofferdam_shm::Window::create("cofferdam-cache", 1 << bits) {
            Ok(window) => return Ok(window),
            Err(e) => last = Some(e),
        }
    }
    let why = last.map(|e| e.to_string()).unwrap_or_default();
    Err(Refused::new(FailureKind::Host, format!("the page cache: {why}")))
}

fn read_document(request: &Create) -> Result<Vec<u8>, Refused> {
    if let Some(document) = &request.config {
        return Ok(document.clone());
    }
    use std::os::unix::ffi::OsStrExt;
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(&request.bundle)).join("config.json");
    let unreadable = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Refused::new(FailureKind::Invalid, "JSON specification file config.json not found")
        }
        _ => Refused::new(FailureKind::Invalid, format!("{}: {e}", path.display())),
    };
    // Non-blocking, so that a fifo of that name does not stop everyone else's sandboxes.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::openat(CWD, &path, flags, Mode::empty()).map_err(|e| unreadable(e.into()))?;
    let stat = rustix::fs::fstat(&file).map_err(|e| unreadable(e.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Refused::new(FailureKind::Invalid, format!("{}: not a regular file", path.display())));
    }
    let mut document = Vec::new();
    std::fs::File::from(file).take(spec::MAX_DOCUMENT + 1).read_to_end(&mut document).map_err(unreadable)?;
    if document.len() as u64 > spec::MAX_DOCUMENT {
        return Err(Refused::new(FailureKind::Invalid, "config.json: more than 1 MiB"));
    }
    Ok(document)
}

/// Opens what the Gofer will serve. The root must be a directory; a bind mount may be a file, which is opened for what it
/// is to be used for: its server has no name to open it by. One that its owner may not write is served read-only.
fn open_exports(exports: &mut [ExportPath]) -> Result<Vec<(OwnedFd, ExportKind)>, Refused> {
    let mut opened = Vec::new();
    for (n, export) in exports.iter_mut().enumerate() {
        let path = &export.path.clone();
        let what = if n == 0 { "rootfs" } else { "mount source" };
        let refused = |e: rustix::io::Errno| {
            let e = std::io::Error::from(e);
            let kind = match e.kind() {
                std::io::ErrorKind::PermissionDenied => FailureKind::Permission,
                _ => FailureKind::Invalid,
            };
            let text = match e.kind() {
                std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
                std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
                _ => e.to_string(),
            };
            Refused::new(kind, format!("{what} ({}): {text}", path.display()))
        };
        let fd = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(refused)?;
        let stat = rustix::fs::fstat(&fd).map_err(refused)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => ExportKind::Directory,
            _ if n == 0 => {
                return Err(Refused::new(
                    FailureKind::Invalid,
                    format!("rootfs ({}) is not a directory", path.display()),
                ));
            }
            _ => ExportKind::File,
        };
        let fd = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                use rustix::io::Errno;
                let flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
                let open = |access| rustix::fs::openat(CWD, path, flags | access, Mode::empty());
                let file = match if export.read_only { Err(Errno::ROFS) } else { open(OFlags::RDWR) } {
                    Err(Errno::ROFS | Errno::ACCESS | Errno::PERM | Errno::TXTBSY) => {
                        export.read_only = true;
                        open(OFlags::RDONLY).map_err(refused)?
                    }
                    other => other.map_err(refused)?,
                };
                let again = rustix::fs::fstat(&file).map_err(refused)?;
                if (again.st_dev, again.st_ino) != (stat.st_dev, stat.st_ino) {
                    return Err(Refused::new(
                        FailureKind::Host,
                        format!("{what} ({}): replaced while it was opened", path.display()),
                    ));
                }
                file
            }
            _ => fd,
        };
        opened.push((fd, kind));
    }
    Ok(opened)
}
