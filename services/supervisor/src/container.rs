//! One container: from `create` to its end, with its Gofer, in a sandbox of its own or a pod's.
//!
//! Owns the order of its start (sockets, launch, orders, ready, stdio, container) and of its end, and turns the death of its Gofer into
//! its end with a reason. It reads nothing that a container writes: services' answers are decoded as bounded messages. Called by
//! `server` and `sandbox`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::time::Duration;

use cofferdam_control::client::{Create, NetworkFrom, Owner, State, Status};
use cofferdam_control::gofer::{Export, ExportKind, FromGofer, GoferOrders, ToGofer};
use cofferdam_control::netd::ASKING;
use cofferdam_control::sentry::{ExitStatus, FailureKind, FromSentry, InVain, ToSentry, Usage};
use cofferdam_control::{AsyncChannel, Channel};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::cgroups::bus::Order;
use crate::cgroups::{self, Cgroup, Wanted};
use crate::exec::{Running, expected};
use crate::house::House;
use crate::launcher::{Service, Who};
use crate::link::{FAREWELL, LATE, Link, Lost, PATIENCE, internal};
use crate::logbook::Logbook;
use crate::network::{self, Answerer, Way};
use crate::pods::{self, Pod};
use crate::record::Record;
use crate::sandbox::{Cache, Sandbox};
use crate::server::Peer;
use crate::spec::{self, ExportPath, Refused};
use crate::view::{View, open_exports, read_document};

/// How a container ended, and whose fault it was if not its own.
pub type End = (ExitStatus, Option<String>);

/// How long what services of a container said last is waited for once it has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Signals that end a container which does not run yet (HUP, INT, QUIT, KILL, TERM), as the Sentry has them.
const END_EARLY: [i32; 5] = [1, 2, 3, 9, 15];

/// One container.
pub struct Container {
    house: Weak<House>,
    state: RefCell<State>,
    record: RefCell<Option<Record>>,
    /// Where it is.
    pub sandbox: Rc<Sandbox>,
    /// Its Gofer.
    pub gofer: Link<FromGofer>,
    /// Processes of `exec`, by number.
    pub execs: RefCell<BTreeMap<u32, Rc<Running>>>,
    /// The number of the next.
    pub next_process: Cell<u32>,
    end: watch::Sender<Option<End>>,
    gone: watch::Sender<bool>,
    /// Whether somebody removes it already, and whether that is done.
    removing: Cell<bool>,
    removed: watch::Sender<bool>,
    /// The signal that stopped it last.
    stops: watch::Sender<i32>,
    /// Whether it has said that it is ready; `None` if it has nowhere to say so.
    ready: Option<watch::Sender<bool>>,
    /// Somebody did not want it any more while it was being made.
    given_up: Cell<bool>,
    /// Its host name, if it has one of its own.
    pub hostname: Option<String>,
    /// Its log.
    pub logbook: Logbook,
    /// Phases of its start.
    pub trace: RefCell<Vec<(String, u64)>>,
    /// Whether it was let run.
    started: Cell<bool>,
    /// Whether a stand-in (or an owning connection) has it, so that the death of its `create` does not matter.
    pub kept: Cell<bool>,
    /// Where its sandbox's network comes from, until it starts.
    network: RefCell<Option<Way>>,
    /// Where its services and stand-ins are, unless the host has no such place for it.
    cgroup: RefCell<Option<Cgroup>>,
    /// What the document asks of that.
    wanted: RefCell<Wanted>,
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

/// Has systemd make the unit that the container is to be, with its Gofer as the first process there: one without any is none.
async fn make_unit(
    house: &House,
    wanted: &mut Wanted,
    record: &Record,
    gofer: &Link<FromGofer>,
) -> Result<(), Refused> {
    let Some(order) = wanted.start()? else { return Ok(()) };
    if wanted.unit().is_some_and(|unit| unit.user) {
        house.leave_callers_session().await?;
    }
    record
        .note_cgroups(&[], wanted.unit())
        .map_err(|e| Refused::new(FailureKind::Host, format!("noting the unit of the cgroups: {e}")))?;
    if !matches!(timeout(PATIENCE, gofer.launched.started()).await, Ok(Some(_))) {
        return Err(Refused::new(FailureKind::Host, gofer.obituary("does not start in time").await));
    }
    let place = house.systemd(order, Who::Service(gofer.launched.key)).await?;
    wanted.settle(place);
    Ok(())
}

impl Container {
    /// Makes one, created; and what the caller shall be warned of, where it gave no log: a hundred lines at most. `descriptors` are
    /// those of the request, which came over `channel`.
    pub async fn create(
        house: &Rc<House>,
        channel: &AsyncChannel,
        request: &Create,
        mut descriptors: Vec<OwnedFd>,
        peer: Peer,
    ) -> Result<(Rc<Self>, Vec<String>), Refused> {
        check_id(&request.id)?;
        let is_free = || match house.containers.borrow().contains_key(&request.id) {
            true => Err(Refused::new(FailureKind::Exists, "container with given ID already exists")),
            false => Ok(()),
        };
        is_free()?;
        let expected = expected(request.tty, request.more_files);
        if descriptors.len() != expected.saturating_add(1 + usize::from(request.log.is_some())) {
            return Err(Refused::new(FailureKind::Invalid, "a create request with the wrong number of descriptors"));
        }
        let log = request.log.and_then(|_| descriptors.pop());
        let view = descriptors.pop().map(View);
        let view =
            view.ok_or_else(|| Refused::new(FailureKind::Invalid, "a create request without a root directory"))?;
        let document = read_document(&view, request)?;
        drop(view);
        let mut plan = spec::plan(&document, request)?;
        // A person's command has the limits that its caller has, and no cgroup to ask about.
        let systemd = (request.systemd_cgroup && !request.plain).then_some((request.id.as_str(), !house.privileged));
        let mut wanted = Wanted::read(&document, systemd)?;
        if systemd.is_some() {
            let properties = plan.annotations.keys().filter(|name| name.starts_with("org.systemd.property."));
            let left_out =
                properties.map(|name| format!("annotations: {name}: not set: units have our own properties alone"));
            plan.warnings.extend(left_out.collect::<Vec<_>>());
        }
        plan.container.limits = wanted.limits();
        let roots = open_exports(channel, &mut plan.exports).await?;
        is_free()?;
        let (pod, sandbox) = pods::place(house, &mut plan, peer.uid)?;
        if pod == Pod::Sandbox {
            // The engines give what holds a pod the least weight there is: here the kernel of all its containers is in that place.
            wanted.without_weight();
        }
        let low_ports = plan.may_have_low_ports();
        let outside = plan.outside();
        let mut record = Record::create(
            &house.root,
            &request.id,
            plan.oci_version,
            plan.annotations,
            plan.hooks,
            outside,
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
        let gofer = Link::new(house, Service::Gofer)?;
        let cgroup = match request.plain {
            true => None,
            false => {
                house.leave_callers_cgroups();
                make_unit(house, &mut wanted, &record, &gofer).await?;
                let unit = wanted.unit().cloned();
                let note = |folders: &[PathBuf]| record.note_cgroups(folders, unit.as_ref());
                match Cgroup::make(&wanted, &request.id, (peer.pid, house.privileged), note) {
                    Ok((cgroup, warnings)) => {
                        plan.warnings.extend(warnings);
                        cgroup
                    }
                    Err(refused) => {
                        if let Some(unit) = unit {
                            house.kill(gofer.launched.key);
                            let _ = house.systemd(Order::Stop { unit }, Who::Nobody).await;
                        }
                        return Err(refused);
                    }
                }
            }
        };
        let state = State {
            id: request.id.clone(),
            status: Status::Creating,
            pid: 0,
            bundle: request.bundle.clone(),
            created: std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs()),
            owner: peer.uid,
        };
        let sandbox = match sandbox {
            Some(sandbox) => sandbox,
            None => Sandbox::new(house, &request.id, peer.uid, plan.rules.unwrap_or_default(), low_ports)?,
        };
        let container = Rc::new(Self {
            house: Rc::downgrade(house),
            state: RefCell::new(state),
            record: RefCell::new(Some(record)),
            sandbox,
            gofer,
            execs: RefCell::default(),
            next_process: Cell::new(1),
            end: watch::channel(None).0,
            gone: watch::channel(false).0,
            removing: Cell::new(false),
            removed: watch::channel(false).0,
            stops: watch::channel(0).0,
            ready: plan.container.notify.is_some().then(|| watch::channel(false).0),
            given_up: Cell::new(false),
            hostname: plan.container.hostname.clone(),
            logbook: Logbook::new(log, request.log),
            trace: RefCell::default(),
            started: Cell::new(false),
            kept: Cell::new(false),
            network: RefCell::default(),
            cgroup: RefCell::new(cgroup),
            wanted: RefCell::new(wanted),
        });
        container.sandbox.add(&container);
        let mut warnings = plan.warnings;
        if request.log.is_some() {
            warnings.drain(..).for_each(|w| container.log(cofferdam_control::LogLevel::Warn, w));
        }
        warnings.truncate(100);
        warnings.iter_mut().for_each(|w| w.truncate(w.floor_char_boundary(4096)));
        container.mark("services launched");
        house.containers.borrow_mut().insert(request.id.clone(), container.clone());
        tokio::task::spawn_local(container.clone().hear_gofer());
        let mut end = container.end.subscribe();
        let done = {
            let bring_up = container.bring_up(request, pod, &descriptors, plan.container, &plan.exports, roots);
            let mut bring_up = std::pin::pin!(bring_up);
            // Its end may be told while a service that hangs is waited for; and before what a service said last is read, which says why.
            tokio::select! {
                biased;
                done = &mut bring_up => done,
                _ = end.wait_for(Option::is_some) => {
                    let ended = Err(Refused::new(FailureKind::Internal, "ended while it was being made"));
                    let last_words = if container.given_up.get() { Duration::ZERO } else { LAST_WORDS };
                    timeout(last_words, bring_up).await.unwrap_or(ended)
                }
            }
        };
        match done {
            Ok(()) => Ok((container, warnings)),
            Err(refused) => {
                let reason = container.end.borrow().as_ref().and_then(|(_, reason)| reason.clone());
                container.destroy().await;
                // That a service is gone is less than why.
                let reason = reason.filter(|_| container.given_up.get() || refused.kind == FailureKind::Internal);
                Err(reason.map_or(refused, |reason| Refused::new(FailureKind::Internal, reason)))
            }
        }
    }

    /// It is being made and shall not be, though a part of it may hang: nothing is waited for.
    pub fn give_up(self: &Rc<Self>, why: &str) {
        self.given_up.set(true);
        let id = self.state().id;
        if let Some(house) = self.house.upgrade() {
            house.kill(self.gofer.launched.key);
        }
        if self.is_first() {
            self.sandbox.kill();
        } else {
            self.sandbox.tell(ToSentry::Delete { id: id.clone() });
        }
        self.over(ExitStatus::Signal(9, false), Some(format!("container {id} {why} while it was being made")));
    }

    async fn bring_up(
        &self,
        request: &Create,
        pod: Pod,
        stdio: &[OwnedFd],
        container: cofferdam_control::sentry::Container,
        exports: &[ExportPath],
        roots: Vec<(OwnedFd, ExportKind)>,
    ) -> Result<(), Refused> {
        self.join_services().await?;
        let cache = match self.sandbox.cache() {
            Some(cache) => cache,
            None => Rc::new(Cache::new()?),
        };
        let pair = || Channel::pair().map_err(internal);
        let ((gofers_files, files), (gofers_stdio, streams)) = (pair()?, pair()?);
        let log = self.logbook.settings();
        let orders = GoferOrders {
            sandbox: request.id.clone(),
            cache_size: cache.size,
            exports: exports
                .iter()
                .zip(&roots)
                .map(|(e, (_, kind))| Export {
                    name: e.name.clone(),
                    read_only: e.read_only,
                    kind: *kind,
                    beside: e.beside.clone(),
                    follows: e.follows,
                })
                .collect(),
            log,
        };
        let mut rights = vec![gofers_files.as_fd(), gofers_stdio.as_fd(), cache.fd()];
        rights.extend(roots.iter().map(|(fd, _)| fd.as_fd()));
        let gofer = self.gofer.ask(&orders, &rights);
        let (gofer, sentry) = match self.is_first() {
            true => tokio::join!(gofer, self.sandbox.begin(request, &container, &cache, log, pod == Pod::Sandbox)),
            false => (gofer.await, Ok(())),
        };
        match gofer {
            Ok(FromGofer::Ready { .. }) => {}
            other => return Err(self.gofer_refused(other).await),
        }
        if let Err(other) = sentry {
            return Err(self.sentry_refused(other).await);
        }
        // The Gofer holds them now; ours must go, or the Sentry would not see its end.
        drop((gofers_files, gofers_stdio, cache, roots));
        self.mark("services ready");
        let add = ToGofer::AddStdio { container: request.id.clone(), tty: request.tty };
        let stdio: Vec<BorrowedFd<'_>> = stdio.iter().map(AsFd::as_fd).collect();
        match self.gofer.ask(&add, &stdio).await {
            Ok(FromGofer::Done) => {}
            other => return Err(self.gofer_refused(other).await),
        }
        let create = ToSentry::Create(Box::new(container));
        match self.sandbox.ask(create, &[files.as_fd(), streams.as_fd()]).await {
            Ok(FromSentry::Created { home, .. }) => self.settle(home)?,
            Err(Lost(LATE)) => {
                let message = "the container is not made in time: a file system of the host may hang, or its Gofer";
                return Err(Refused::new(FailureKind::Host, message));
            }
            other => return Err(self.sentry_refused(other).await),
        }
        drop((files, streams));
        self.mark("container created");
        // It may have been ended, or be removed, by others meanwhile: a stopped one stays so.
        if self.end.borrow().is_some() {
            return Err(self.lost("Sentry", "was ended while the container was made").await);
        }
        self.state.borrow_mut().status = Status::Created;
        // A container whose state nobody could read is none; a later state that cannot be written is only logged.
        self.save().map_err(|e| {
            let root = self.house.upgrade().map(|h| h.root.display().to_string()).unwrap_or_default();
            Refused::new(FailureKind::Host, format!("writing the container's state in {root}: {e}"))
        })
    }

    /// Moves the services to where their limits are, before they are told anything: what they start will be there, too.
    async fn join_services(&self) -> Result<(), Refused> {
        if self.cgroup.borrow().is_none() {
            return Ok(());
        }
        let sentry = self.is_first().then_some(self.sandbox.process());
        for launched in sentry.into_iter().chain([&self.gofer.launched]) {
            // One that could not be started says so itself, when it is asked.
            if let Ok(Some(pid)) = timeout(PATIENCE, launched.started()).await {
                self.join(pid)?;
            }
        }
        self.mark("services in their cgroup");
        Ok(())
    }

    /// Moves what a further container's processes come from to where its limits are, before there are any.
    fn settle(&self, home: Option<i32>) -> Result<(), Refused> {
        let Some(home) = home.filter(|_| self.cgroup.borrow().is_some()) else { return Ok(()) };
        match crate::pids::on_host(self.sandbox.process().pid(), &[home])[..] {
            [pid] => self.join(pid),
            _ => Err(Refused::new(FailureKind::Internal, "the container's first process cannot be found on the host")),
        }
    }

    /// Moves a service (its pid on the host) to where the limits are.
    pub fn join(&self, pid: i32) -> Result<(), Refused> {
        let Some(e) = self.cgroup.borrow().as_ref().and_then(|c| c.add(pid).err()) else { return Ok(()) };
        if self.house.upgrade().is_some_and(|h| h.privileged) {
            return Err(Refused::new(FailureKind::Host, e));
        }
        // Made, but not ours to move processes to: as if it could not be made.
        let lost = self.cgroup.borrow_mut().take();
        let _ = self.record.borrow().as_ref().map(|r| r.note_cgroups(&[], None));
        for name in lost.map(|c| c.names()).unwrap_or_default() {
            self.log(cofferdam_control::LogLevel::Warn, format!("{name}: not set, the container runs without: {e}"));
        }
        Ok(())
    }

    /// Removes its cgroups, as soon as the last process is gone from there.
    async fn leave(&self) {
        let Some(mut cgroup) = self.cgroup.borrow_mut().take() else { return };
        let stop = cgroup.stop();
        let mut gone = false;
        for _ in 0..200 {
            gone = cgroup.remove();
            if gone {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if let (Some(order), Some(house)) = (stop, self.house.upgrade()) {
            // It ends what is left in there.
            match house.systemd(order, Who::Nobody).await {
                Ok(_) => gone = cgroup.remove(),
                Err(refused) => self.log(cofferdam_control::LogLevel::Error, refused.message),
            }
        }
        if !gone {
            self.log(cofferdam_control::LogLevel::Error, "its cgroups stay: there are processes in them still".into());
        }
    }

    /// Changes its limits.
    pub async fn update(&self, resources: &[u8]) -> Result<(), Refused> {
        let Some(id) = self.running_id(false)? else { return Ok(()) };
        let change = self.cgroup.borrow().as_ref().map(|cgroup| cgroup.prepare(resources)).transpose()?;
        if let (Some(order), Some(house)) = (change.as_ref().and_then(|c| c.order.clone()), self.house.upgrade()) {
            house.systemd(order, Who::Nobody).await?;
        }
        let limits = match (&mut *self.cgroup.borrow_mut(), change) {
            (Some(cgroup), Some(change)) => cgroup.update(change)?,
            // It went while systemd was told.
            (None, Some(_)) => return Err(Refused::new(FailureKind::WrongState, "container not running")),
            (_, None) => cgroups::update_without(&mut self.wanted.borrow_mut(), resources)?,
        };
        self.order(ToSentry::Limits { id, limits }).await
    }

    /// What it uses, as JSON, and how many processes were killed as memory was short.
    pub async fn stats(&self) -> Result<(Vec<u8>, u64), Refused> {
        let Some(id) = self.running_id(false)? else { return Ok((Vec::new(), 0)) };
        let usage: Usage = match self.sandbox.ask(ToSentry::Usage { id }, &[]).await {
            Ok(FromSentry::Usage(usage)) => usage,
            other => return Err(self.sentry_refused(other).await),
        };
        // The network is the sandbox's, and counted once.
        let counts = if self.is_first() { self.sandbox.counts().await } else { None };
        let cgroup = self.cgroup.borrow();
        let limits = cgroup.as_ref().map_or_else(|| self.wanted.borrow().limits(), Cgroup::limits);
        let killed = cgroup.as_ref().and_then(Cgroup::oom_kills).unwrap_or(usage.killed);
        let mut stats = cgroups::stats(cgroup.as_ref(), &limits, &usage);
        network::tell(&mut stats, counts);
        Ok((stats.to_string().into_bytes(), killed))
    }

    /// What an answer of the Gofer that is no success means.
    pub async fn gofer_refused(&self, answer: Result<FromGofer, Lost>) -> Refused {
        match answer {
            Ok(FromGofer::Failed { message }) => Refused::new(FailureKind::Host, format!("the Gofer: {message}")),
            Ok(_) => Refused::new(FailureKind::Internal, "the Gofer answered something else"),
            Err(Lost(what)) => self.lost("Gofer", what).await,
        }
    }

    /// What an answer of the Sentry that is no success means.
    pub async fn sentry_refused(&self, answer: Result<FromSentry, Lost>) -> Refused {
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

    /// A process of it has ended. A container may end because its files are gone: then that is what is told, and a Gofer that was
    /// killed has closed its channel before the Sentry could notice.
    pub fn exited(self: &Rc<Self>, streams: &str, process: u32, status: ExitStatus) {
        let forgotten = self.gofer.tell(&ToGofer::RemoveStdio { container: streams.to_owned() });
        if process != 0 {
            self.process_ended(process, status, None);
        } else if forgotten.is_err() {
            let me = self.clone();
            tokio::task::spawn_local(async move { me.lost_gofer("closed its channel").await });
        } else {
            self.over(status, None);
        }
    }

    /// The command of `do` has stopped.
    pub fn stopped(&self, signal: i32) {
        self.stops.send_replace(signal);
    }

    /// It has said that it is ready.
    pub fn is_ready(&self) {
        if let Some(ready) = &self.ready {
            ready.send_replace(true);
        }
    }

    /// Waits until it says that it is ready; `false` once it never will.
    pub async fn await_ready(&self) -> bool {
        let Some(mut ready) = self.ready.as_ref().map(watch::Sender::subscribe) else { return false };
        let mut end = self.end.subscribe();
        tokio::select! {
            biased;
            said = ready.wait_for(|ready| *ready) => said.is_ok(),
            _ = end.wait_for(Option::is_some) => false,
        }
    }

    /// Whether its sandbox is for it.
    fn is_first(&self) -> bool {
        self.sandbox.is_for(&self.state.borrow().id)
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.end.borrow().is_some()
    }

    async fn hear_gofer(self: Rc<Self>) {
        let why = loop {
            match self.gofer.channel.receive::<FromGofer>().await {
                Ok(got) => match got.message {
                    FromGofer::Log(line) => self.logbook.write("gofer", &line),
                    message => {
                        if let Err(e) = self.gofer.answer(None, message) {
                            break e.to_owned();
                        }
                    }
                },
                Err(e) => break e.to_string(),
            }
        };
        self.lost_gofer(&why).await;
        self.gofer.forget();
    }

    async fn lost_gofer(self: &Rc<Self>, why: &str) {
        if !self.has_ended() {
            let reason = self.gofer.obituary(why).await;
            if !self.is_first() {
                self.sandbox.tell(self.kill_all());
            }
            self.over(ExitStatus::Signal(9, false), Some(self.with_memory(reason)));
        }
    }

    /// Why it ended, with what the host did about its memory.
    pub fn with_memory(&self, mut reason: String) -> String {
        if self.cgroup.borrow().as_ref().and_then(Cgroup::oom_kills).is_some_and(|n| n > 0) {
            reason.push_str("; the host killed processes of this container as its memory limit was reached");
        }
        reason
    }

    fn kill_all(&self) -> ToSentry {
        ToSentry::Kill { id: self.state.borrow().id.clone(), process: 0, signal: 9, all: true }
    }

    /// It has ended, and its services shall end, too.
    pub fn over(self: &Rc<Self>, status: ExitStatus, reason: Option<String>) {
        if !self.has_ended() {
            self.ended(status, reason);
            tokio::task::spawn_local(self.clone().stop());
        }
    }

    /// Notes the end, once.
    fn ended(&self, status: ExitStatus, reason: Option<String>) {
        if self.end.borrow().is_some() {
            return;
        }
        self.state.borrow_mut().pid = 0;
        self.set_status(Status::Stopped);
        self.processes_ended(reason.as_ref());
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

    /// Ends its services: asks, waits, kills.
    async fn stop(self: Rc<Self>) {
        let Some(house) = self.house.upgrade() else { return };
        if self.is_first() {
            self.sandbox.stop(&house).await;
        }
        let _ = self.gofer.channel.send(&ToGofer::Stop, &[]);
        self.gofer.farewell(&house).await;
        self.gone.send_replace(true);
    }

    /// Ends it whatever it does, and removes every trace of it, once: whoever comes later waits until that is done. Its name is free
    /// after that and may be another's, which is none of its business.
    pub async fn destroy(self: &Rc<Self>) {
        if !self.removing.replace(true) {
            // By a task of its own: it goes on when whoever asked is gone.
            tokio::task::spawn_local(self.clone().remove());
        }
        let mut removed = self.removed.subscribe();
        let _ = removed.wait_for(|done| *done).await;
    }

    async fn remove(self: Rc<Self>) {
        if !self.has_ended() {
            if self.is_first() {
                self.sandbox.kill();
            } else if self.state().status == Status::Creating {
                self.sandbox.tell(ToSentry::Delete { id: self.state().id });
            } else if let Ok(FromSentry::Done) = self.sandbox.ask(self.kill_all(), &[]).await {
                let mut end = self.end.subscribe();
                let _ = timeout(FAREWELL, end.wait_for(Option::is_some)).await;
            }
            self.over(ExitStatus::Signal(9, false), None);
        }
        let mut gone = self.gone.subscribe();
        let _ = timeout(4 * FAREWELL, gone.wait_for(|g| *g)).await;
        let id = self.state.borrow().id.clone();
        if !self.is_first() {
            self.sandbox.tell(ToSentry::Delete { id: id.clone() });
        }
        self.leave().await;
        drop(self.record.borrow_mut().take());
        self.sandbox.remove(&id);
        if let Some(house) = self.house.upgrade() {
            house.containers.borrow_mut().remove(&id);
            house.less.notify_one();
        }
        self.removed.send_replace(true);
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
            Status::Paused => return wrong("cannot start a container in the paused state"),
            Status::Stopped => return wrong("cannot start a container that has stopped"),
            Status::Creating => return wrong("cannot start a container in the creating state"),
        }
        self.connect().await?;
        match self.sandbox.ask(ToSentry::Start { id, process: 0 }, &[]).await {
            // A program may be over, and its Sentry told to stop, before the answer to its start came through.
            Err(Lost(_)) if matches!(&*self.end.borrow(), Some((_, None))) => Ok(()),
            Ok(FromSentry::Started { .. }) => {
                self.mark("container started");
                self.started.set(true);
                if self.state.borrow().status == Status::Created {
                    self.set_status(Status::Running);
                }
                Ok(())
            }
            other => Err(self.sentry_refused(other).await),
        }
    }

    /// Notes what its network comes from: a network namespace, with the sockets of published ports.
    pub fn has_network(&self, from: NetworkFrom, descriptors: Vec<OwnedFd>) -> Result<(), Refused> {
        let wrong = || Refused::new(FailureKind::Invalid, "a network without its namespace, or with too much");
        let mut descriptors = descriptors.into_iter();
        let namespace = descriptors.next().ok_or_else(wrong)?;
        let doors: Vec<_> = descriptors.collect();
        let way = match from {
            NetworkFrom::User(user) if user.published.len() == doors.len() => Way::User { namespace, user, doors },
            NetworkFrom::Namespace if doors.is_empty() => Way::Take { namespace, names: None },
            NetworkFrom::Named(at) if doors.len() == ASKING + 1 => {
                let mut sockets = doors;
                let names = sockets.pop().map(|namespace| Answerer { at, sockets, namespace });
                Way::Take { namespace, names }
            }
            NetworkFrom::Host if doors.is_empty() => Way::Host(namespace),
            _ => return Err(wrong()),
        };
        *self.network.borrow_mut() = Some(way);
        Ok(())
    }

    /// Gives its sandbox the network that its engine has made by now.
    async fn connect(&self) -> Result<(), Refused> {
        let Some(way) = self.network.borrow_mut().take().filter(|_| self.is_first()) else { return Ok(()) };
        let connected = self.sandbox.connect(way, self.logbook.settings()).await;
        self.mark("network connected");
        match connected {
            // Who has no right to the network has none.
            Err(refused) if self.house.upgrade().is_some_and(|h| !h.privileged) => {
                self.log(cofferdam_control::LogLevel::Warn, refused.message);
                Ok(())
            }
            other => other,
        }
    }

    /// Signals a process of it.
    pub async fn kill(self: &Rc<Self>, process: u32, signal: i32, all: bool) -> Result<(), Refused> {
        if self.state().status == Status::Creating && process == 0 && END_EARLY.contains(&signal) {
            self.give_up(&format!("was killed by signal {signal}"));
            return Ok(());
        }
        let id = self.running_id(all)?;
        let Some(id) = id.filter(|_| signal != 0) else { return Ok(()) };
        self.order(ToSentry::Kill { id, process, signal, all }).await
    }

    /// Freezes all of it, or lets it run on.
    pub async fn freeze(&self, frozen: bool) -> Result<(), Refused> {
        let (status, id) = (self.state().status, self.state().id);
        let wrong = |message: &str| Err(Refused::new(FailureKind::WrongState, message));
        match (status, frozen) {
            (Status::Running | Status::Created, true) | (Status::Paused, false) => {}
            (_, true) => return wrong("container not running"),
            (_, false) => return wrong("container not paused"),
        }
        self.order(ToSentry::Freeze { id, frozen }).await?;
        if self.end.borrow().is_none() {
            self.set_status(match frozen {
                true => Status::Paused,
                false if self.started.get() => Status::Running,
                false => Status::Created,
            });
        }
        Ok(())
    }

    /// Host pids of its processes.
    pub async fn processes(&self) -> Result<Vec<i32>, Refused> {
        let Some(id) = self.running_id(true)? else { return Ok(Vec::new()) };
        match self.sandbox.ask(ToSentry::Processes { id }, &[]).await {
            Ok(FromSentry::Processes(inside)) => Ok(crate::pids::on_host(self.sandbox.process().pid(), &inside)),
            other => Err(self.sentry_refused(other).await),
        }
    }

    /// Tells a process of it its terminal's size.
    pub async fn resize(&self, process: u32, rows: u16, cols: u16) -> Result<(), Refused> {
        match self.running_id(false)? {
            Some(id) => self.order(ToSentry::Resize { id, process, rows, cols }).await,
            None => Ok(()),
        }
    }

    /// Tells it that its input may be read.
    pub async fn front(&self, stops: u32) -> Result<(), Refused> {
        match self.running_id(false)? {
            Some(id) => self.order(ToSentry::Front { id, stops }).await,
            None => Ok(()),
        }
    }

    /// The system calls that it made in vain.
    pub async fn in_vain(&self) -> Result<Vec<InVain>, Refused> {
        let Some(id) = self.running_id(false)? else { return Ok(Vec::new()) };
        match self.sandbox.ask(ToSentry::InVain { id }, &[]).await {
            Ok(FromSentry::InVain(calls)) => Ok(calls),
            other => Err(self.sentry_refused(other).await),
        }
    }

    fn running_id(&self, all: bool) -> Result<Option<String>, Refused> {
        let state = self.state.borrow();
        match state.status {
            Status::Created | Status::Running | Status::Paused => Ok(Some(state.id.clone())),
            // Everything in a container that has ended is dead already.
            Status::Stopped if all => Ok(None),
            _ => Err(Refused::new(FailureKind::WrongState, "container not running")),
        }
    }

    async fn order(&self, order: ToSentry) -> Result<(), Refused> {
        match self.sandbox.ask(order, &[]).await {
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

    /// Notes the process that stands in for one of its processes.
    pub fn stand_in(&self, process: u32, pid: i32) -> Result<(), Refused> {
        if process != 0 {
            self.running(process)?.kept.set(true);
            return Ok(());
        }
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

    /// The end of one of its processes, to wait for.
    pub fn end_of(&self, process: u32) -> Result<watch::Receiver<Option<End>>, Refused> {
        Ok(if process == 0 { self.end.subscribe() } else { self.running(process)?.end.subscribe() })
    }

    /// Waits for an end.
    pub async fn wait(mut end: watch::Receiver<Option<End>>) -> End {
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
        self.sandbox.platform()
    }
}
