//! One sandbox: a Sentry and the containers in it.
//!
//! Most have one container; a pod's has several, each with a Gofer of its own. Owns the start and the end of the Sentry, and gives
//! what it tells to the container that is meant: the death of the Sentry is the end of all, and so is the end of the first container,
//! which the sandbox is for. It reads nothing that a container writes: the Sentry's messages are decoded bounded. Called by `container`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use cofferdam_control::client::Create;
use cofferdam_control::gofer::stdio_name;
use cofferdam_control::netd::{Counts, FromNetd};
use cofferdam_control::rules::Rules;
use cofferdam_control::sentry::{
    Container as Spec, ExitStatus, FailureKind, FromSentry, Numbered, Said, SentryOrders, ToSentry,
};
use cofferdam_control::{LogLevel, LogLine, LogSettings};

use crate::container::Container;
use crate::house::{House, Launched};
use crate::launcher::Service;
use crate::link::{Link, Lost};
use crate::network::{self, Outside, Way};
use crate::spec::Refused;

/// How long it takes until a netd that died is replaced: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A page cache, which the Sentry shares with every Gofer.
pub struct Cache {
    fd: OwnedFd,
    /// Bytes.
    pub size: u64,
}

impl Cache {
    /// An empty one: as sparse and large as the host allows.
    pub fn new() -> Result<Self, Refused> {
        let host = |why: String| Refused::new(FailureKind::Host, format!("the page cache: {why}"));
        let mut last = None;
        for bits in [44, 42, 40, 38, 36] {
            match cofferdam_shm::Window::create("cofferdam-cache", 1 << bits) {
                // Kept as a descriptor only: the addresses of a process are not enough for many.
                Ok(window) => {
                    let fd = window.fd().try_clone_to_owned().map_err(|e| host(e.to_string()))?;
                    return Ok(Self { fd, size: window.size() });
                }
                Err(e) => last = Some(e),
            }
        }
        Err(host(last.map(|e| e.to_string()).unwrap_or_default()))
    }

    /// To hand to a service.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// One sandbox.
pub struct Sandbox {
    house: Weak<House>,
    /// Its Sentry.
    sentry: Link<FromSentry>,
    /// The id of the container that it is for.
    first: String,
    /// Who made it.
    pub owner: u32,
    /// By id.
    containers: RefCell<BTreeMap<String, Weak<Container>>>,
    /// For the Gofers of further containers.
    cache: RefCell<Option<Rc<Cache>>>,
    /// The platform in use, and why.
    platform: RefCell<(String, String)>,
    over: Cell<bool>,
    /// Its network, if it has one beyond itself.
    network: RefCell<Option<Rc<Outside>>>,
    /// Who serves it, once it is needed.
    netd: RefCell<Option<Rc<Link<FromNetd>>>>,
    /// How long the next netd in the place of one that died is waited with.
    pause: Cell<Duration>,
    /// What may pass between it and its network.
    pub rules: Rules,
    /// In the host's own network its root may have ports below 1024.
    pub low_ports: bool,
}

impl Sandbox {
    /// Has a Sentry started, for a container with the id `first` of the user `owner`. `rules`, `low_ports`: what its network is to allow.
    pub fn new(house: &Rc<House>, first: &str, owner: u32, rules: Rules, low_ports: bool) -> Result<Rc<Self>, Refused> {
        let sandbox = Rc::new(Self {
            house: Rc::downgrade(house),
            sentry: Link::new(house, Service::Sentry)?,
            first: first.to_owned(),
            owner,
            containers: RefCell::default(),
            cache: RefCell::default(),
            platform: RefCell::default(),
            over: Cell::new(false),
            network: RefCell::default(),
            netd: RefCell::default(),
            pause: Cell::new(FIRST_PAUSE),
            rules,
            low_ports,
        });
        tokio::task::spawn_local(sandbox.clone().hear());
        Ok(sandbox)
    }

    /// Counts a container in.
    pub fn add(&self, container: &Rc<Container>) {
        self.containers.borrow_mut().insert(container.state().id, Rc::downgrade(container));
    }

    /// Counts one out.
    pub fn remove(&self, id: &str) {
        self.containers.borrow_mut().remove(id);
    }

    /// Whether it is for the container of that id: both end together.
    pub fn is_for(&self, id: &str) -> bool {
        self.first == id
    }

    /// What a further container needs of it; `None` if it takes none.
    pub fn cache(&self) -> Option<Rc<Cache>> {
        self.cache.borrow().clone()
    }

    /// Whether it has ended, or is about to.
    pub fn is_over(&self) -> bool {
        self.over.get()
    }

    /// The platform in use, and why.
    pub fn platform(&self) -> (String, String) {
        self.platform.borrow().clone()
    }

    /// Gives the Sentry its orders and waits until it is ready. `pod`: whether further containers will come.
    pub async fn begin(
        &self,
        request: &Create,
        spec: &Spec,
        cache: &Rc<Cache>,
        log: LogSettings,
        pod: bool,
    ) -> Result<(), Result<FromSentry, Lost>> {
        let orders = SentryOrders {
            sandbox: self.first.clone(),
            platform: request.platform,
            patch: request.patch,
            cache_size: cache.size,
            log,
            trace_startup: request.trace_startup,
            hostname: spec.hostname.clone().unwrap_or_else(|| "cofferdam".into()),
            oom_score_adj: spec.process.oom_score_adj,
            memory_limited: pod || spec.limits.memory.is_some(),
            own_namespaces: spec.namespaces.own,
        };
        match self.sentry.ask(&orders, &[cache.fd()]).await {
            Ok(FromSentry::Ready { platform, why, .. }) => *self.platform.borrow_mut() = (platform, why),
            other => return Err(other),
        }
        // podman's containers name one as their pod's that does not say so itself; a person's command is nobody's.
        if !request.plain {
            *self.cache.borrow_mut() = Some(cache.clone());
        }
        Ok(())
    }

    /// Gives the Sentry an order and waits for the answer.
    pub async fn ask(&self, order: ToSentry, descriptors: &[BorrowedFd<'_>]) -> Result<FromSentry, Lost> {
        self.sentry.ask_numbered(|number| Numbered { number, order }, descriptors).await
    }

    /// Gives it one whose answer nobody waits for.
    pub fn tell(&self, order: ToSentry) {
        // One that is gone needs no orders.
        let _ = self.sentry.tell_numbered(|number| Numbered { number, order });
    }

    /// Gives it a network.
    pub async fn connect(self: &Rc<Self>, way: Way, log: LogSettings) -> Result<(), Refused> {
        let Some(house) = self.house.upgrade() else { return Ok(()) };
        if self.network.borrow().is_some() {
            return Ok(());
        }
        let outside = match way {
            Way::Take { namespace, names } => network::take(&house, namespace, names).await?,
            Way::Host(namespace) => Some(Outside::of_host(&house, namespace).await?),
            Way::User { namespace, user, doors } => Some(Outside::of_user(namespace, user, doors)?),
        };
        let Some(outside) = outside else { return Ok(()) };
        for warning in &outside.warnings {
            self.tell_log(LogLevel::Warn, warning.clone());
        }
        if outside.network.interfaces.is_empty() && !outside.network.host {
            return Ok(());
        }
        let outside = Rc::new(outside);
        match network::connect(&house, self, &outside, log).await {
            Ok(netd) => {
                *self.network.borrow_mut() = Some(outside);
                netd.into_iter().for_each(|netd| self.is_served(netd));
                Ok(())
            }
            Err(refused) => {
                network::give(&house, &outside).await;
                Err(refused)
            }
        }
    }

    /// That netd serves it now.
    pub fn is_served(&self, netd: Rc<Link<FromNetd>>) {
        *self.netd.borrow_mut() = Some(netd);
    }

    /// Puts a process of it to where its limits are.
    pub async fn join(&self, pid: i32) -> Result<(), Refused> {
        self.member(&self.first).map_or(Ok(()), |c| c.join(pid))
    }

    /// Where it is, unless all ends.
    pub fn house(&self) -> Option<Rc<House>> {
        self.house.upgrade()
    }

    /// The id of the container that it is for.
    pub fn id(&self) -> &str {
        &self.first
    }

    /// A netd is gone: another one takes its place. One that dies again and again is waited with.
    pub async fn reconnect(self: &Rc<Self>, gone: &Rc<Link<FromNetd>>) {
        // One that never came to serve is nobody's loss: who started it knows.
        if self.netd.borrow_mut().take_if(|netd| Rc::ptr_eq(netd, gone)).is_none() {
            return;
        }
        let Some(outside) = self.network.borrow().clone() else { return };
        let log = self.member(&self.first).map(|c| c.logbook.settings()).unwrap_or_default();
        loop {
            let pause = self.pause.get();
            tokio::time::sleep(pause).await;
            self.pause.set((pause * 2).min(LONGEST_PAUSE));
            let Some(house) = self.house.upgrade().filter(|_| !self.is_over()) else { return };
            match network::connect(&house, self, &outside, log).await {
                Ok(netd) if !self.is_over() => {
                    netd.into_iter().for_each(|netd| self.is_served(netd));
                    self.tell_log(LogLevel::Warn, "the sandbox has a network again".into());
                    return;
                }
                Err(refused) => self.tell_log(LogLevel::Error, refused.message),
                // It ended meanwhile: what is no longer listened to ends by itself.
                Ok(_) => return,
            }
        }
    }

    /// What its netd has counted; `None` without one, or if it does not say.
    pub async fn counts(&self) -> Option<Counts> {
        let netd = self.netd.borrow().clone()?;
        network::counts(&netd).await
    }

    /// The Sentry's process.
    pub fn process(&self) -> &Launched {
        &self.sentry.launched
    }

    /// Ends it: asks, waits, kills. Every container in it has ended with that.
    pub async fn stop(&self, house: &House) {
        self.over.set(true);
        self.cache.borrow_mut().take();
        self.tell(ToSentry::Stop);
        self.members().iter().for_each(|c| c.over(ExitStatus::Signal(9, false), None));
        self.sentry.farewell(house).await;
        let (netd, network) = (self.netd.borrow_mut().take(), self.network.borrow_mut().take());
        if let Some(netd) = netd {
            network::stop(house, &netd).await;
        }
        if let Some(outside) = network {
            for warning in network::give(house, &outside).await {
                self.tell_log(LogLevel::Warn, warning);
            }
        }
    }

    /// Ends it by force.
    pub fn kill(&self) {
        if let Some(house) = self.house.upgrade() {
            house.kill(self.sentry.launched.key);
        }
    }

    fn members(&self) -> Vec<Rc<Container>> {
        self.containers.borrow().values().filter_map(Weak::upgrade).collect()
    }

    fn member(&self, id: &str) -> Option<Rc<Container>> {
        self.containers.borrow().get(id).and_then(Weak::upgrade)
    }

    /// A service's line for the log that is no single container's.
    pub fn log(&self, service: &str, line: &LogLine) {
        if let Some(first) = self.member(&self.first) {
            first.logbook.write(service, line);
        }
    }

    /// A line of our own.
    pub fn tell_log(&self, level: LogLevel, message: String) {
        self.log("supervisor", &LogLine { level, target: "supervisor".into(), message });
    }

    async fn hear(self: Rc<Self>) {
        let why = loop {
            match self.sentry.channel.receive::<Said>().await {
                Ok(got) => match got.message.what {
                    FromSentry::Log(line) => self.log("sentry", &line),
                    FromSentry::Trace(phases) => {
                        if let Some(first) = self.member(&self.first) {
                            first.trace.borrow_mut().extend(phases.into_iter().take(100));
                        }
                    }
                    FromSentry::Notified { id } => {
                        if let Some(container) = self.member(&id) {
                            container.is_ready();
                        }
                    }
                    FromSentry::Stopped { id, signal } => {
                        if let Some(container) = self.member(&id) {
                            container.stopped(signal);
                        }
                    }
                    FromSentry::Exited { id, process, status } => {
                        if let Some(container) = self.member(&id) {
                            container.exited(&stdio_name(&id, process), process, status);
                        }
                    }
                    message => {
                        if let Err(e) = self.sentry.answer(got.message.answers, message) {
                            break e.to_owned();
                        }
                    }
                },
                Err(e) => break e.to_string(),
            }
        };
        if self.members().iter().any(|c| !c.has_ended()) {
            let reason = self.sentry.obituary(&why).await;
            self.over.set(true);
            self.members()
                .iter()
                .for_each(|c| c.over(ExitStatus::Signal(9, false), Some(c.with_memory(reason.clone()))));
        }
        self.sentry.forget();
    }
}
