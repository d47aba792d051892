//! The sandbox as the supervisor sees it: orders in, events out.
//!
//! Owns the life of containers in this Sentry: made (tree of files, first task), started, joined by further processes, signalled,
//! ended. Talks over the control channel only; nothing a container controls goes back over it but exit statuses. Most Sentries have one
//! container; a pod's has several, each with a Gofer, a tree of files and a cgroup of its own, and with namespaces as its document says.
//! The first one is what the sandbox is for: all end with it.
//!
//! Orders are served one after the other, by a crew: one that waits for a Gofer, which may hang, leaves the others to another thread. So no
//! lock of this module is held while an order is carried out that may wait.

mod process;
mod ready;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cofferdam_control::gofer::stdio_name;
use cofferdam_control::netd::Network;
use cofferdam_control::sentry::{
    Container, ExitStatus, FailureKind, FromSentry, Limits, Numbered, Process, Said, ToSentry, Usage,
};
use cofferdam_control::{Channel, ControlError};
use cofferdam_ninep::client::Client;
use cofferdam_platform::Crew;
use cofferdam_transport::Channel as Wire;

use crate::begin::Common;
use crate::filesystems::cgroup;
use crate::filesystems::gofer::Acts;
use crate::filesystems::proc::totals;
use crate::filesystems::root::build_root;
use crate::filesystems::stdio::StdioHub;
use crate::ipc::inet::Kind;
use crate::ipc::tty;
use crate::kernel::Kernel;
use crate::namespaces::Namespaces;
use crate::net::Outside;
use crate::signal::{send, sig};
use crate::sync::Mutex;
use crate::task::cgroup::Cgroup;
use crate::task::clone::flag;
use crate::task::exit::exit_group;
use crate::task::home::Home;
use crate::wait::run_woken;
use process::{Outer, Place};
use ready::Ready;

/// How long the output of a command that stops may hold up the stop.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How long output that nobody takes may hold up the news of the end.
const OUTPUT_LEFT: Duration = Duration::from_secs(5);
/// Kinds of namespaces that a container can have for itself, but for the mount namespace that each has.
const OWN: u64 = flag::NEWUTS | flag::NEWIPC | flag::NEWPID | flag::NEWCGROUP | flag::NEWNET;
/// Processes of `exec` in one container at a time.
const MAX_EXECS: usize = 4000;

/// The containers of this Sentry and their way to the supervisor.
pub struct Sandbox {
    kernel: Arc<Kernel>,
    channel: Arc<Channel>,
    containers: Mutex<Containers>,
}

/// The containers.
#[derive(Default)]
struct Containers {
    /// By id.
    all: BTreeMap<String, Arc<Made>>,
    /// Those that are being made.
    making: BTreeMap<String, Arc<Making>>,
    /// The id of the first.
    first: Option<String>,
}

impl Containers {
    fn find(&self, id: &str) -> Result<Arc<Made>, Failure> {
        self.all.get(id).cloned().ok_or_else(|| match self.making.contains_key(id) {
            true => Failure::new(FailureKind::WrongState, format!("container {id} is being made")),
            false => Failure::new(FailureKind::NoSuchContainer, format!("container {id} does not exist")),
        })
    }

    /// What all of them together may have. A pod's first one only holds the others together: its limit is none of theirs.
    fn memory_limit(&self) -> Option<u64> {
        let others = self.all.iter().filter(|(id, _)| self.all.len() == 1 || self.first.as_ref() != Some(*id));
        let limits = others.map(|(_, made)| made.cgroup.limits.get().memory);
        limits.reduce(|sum, limit| sum?.checked_add(limit?)).flatten()
    }
}

/// A container that is being made: its connections to its Gofer, to end them if it is not to be.
#[derive(Default)]
struct Making {
    clients: Mutex<(Vec<Client>, bool)>,
}

impl Making {
    /// Counts a connection in.
    fn add(&self, client: &Client) {
        let over = {
            let mut clients = self.clients.lock();
            clients.0.push(client.clone());
            clients.1
        };
        if over {
            client.close();
        }
    }

    /// It is not to be: who makes it waits for nothing any more.
    fn end(&self) {
        let clients = {
            let mut clients = self.clients.lock();
            clients.1 = true;
            std::mem::take(&mut clients.0)
        };
        clients.iter().for_each(Client::close);
    }
}

/// A container that has been made.
struct Made {
    id: String,
    plain: bool,
    /// Its streams, which its Gofer has.
    stdio: Arc<StdioHub>,
    cgroup: Arc<Cgroup>,
    /// What was known of its files before one of these is asked for again.
    acts: Acts,
    /// What its processes begin with.
    common: Arc<Common>,
    /// Listens where it says that it is ready.
    _ready: Option<Ready>,
    /// Its processes from outside by number; 0 is its init.
    processes: Mutex<BTreeMap<u32, Arc<Outer>>>,
}

impl Made {
    fn init(&self) -> Result<Arc<Outer>, Failure> {
        let init = self.processes.lock().get(&0).cloned();
        init.ok_or_else(|| Failure::new(FailureKind::WrongState, "container not running"))
    }

    fn process(&self, number: u32) -> Result<Arc<Outer>, Failure> {
        let process = self.processes.lock().get(&number).cloned();
        process.ok_or_else(|| Failure::new(FailureKind::WrongState, "process already finished"))
    }
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
    pub fn new(kernel: Arc<Kernel>, channel: Arc<Channel>) -> Arc<Self> {
        let weak = Arc::downgrade(&kernel);
        let hang_up = move |sid| {
            if let Some(kernel) = weak.upgrade() {
                tty::session_ended(&kernel, sid);
            }
        };
        kernel.session_end.set(Box::new(hang_up)).ok();
        Arc::new(Self { kernel, channel, containers: Mutex::default() })
    }

    fn tell(&self, event: FromSentry) {
        self.say(&Said::from(event));
    }

    fn say(&self, said: &Said) {
        if let Err(e) = self.channel.send(said, &[]) {
            tracing::error!("the supervisor is gone: {e}");
            std::process::exit(0);
        }
    }

    /// Serves the supervisor until it says stop or goes away, which ends this process.
    pub fn run(self: &Arc<Self>) -> ! {
        let me = self.clone();
        let crew = Crew::new(Box::new(move || me.serve()));
        // There may be a further order at any time.
        crew.runs();
        crew.join()
    }

    /// Serves one order.
    fn serve(self: &Arc<Self>) {
        let (Numbered { number, order }, descriptors) = match self.channel.receive::<Numbered>() {
            Ok(m) => (m.message, m.descriptors),
            Err(e) => {
                if !matches!(e, ControlError::Closed) {
                    tracing::error!("from the supervisor: {e}");
                }
                std::process::exit(0);
            }
        };
        let (id, result) = self.carry_out(order, descriptors);
        let answer = result.unwrap_or_else(|f| FromSentry::Failed { id, kind: f.kind, message: f.message });
        self.say(&Said { answers: Some(number), what: answer });
        run_woken();
    }

    /// Carries an order out; whom it concerns.
    fn carry_out(
        self: &Arc<Self>,
        order: ToSentry,
        descriptors: Vec<OwnedFd>,
    ) -> (Option<String>, Result<FromSentry, Failure>) {
        let id = match &order {
            ToSentry::Create(c) => Some(c.id.clone()),
            ToSentry::Exec { id, .. }
            | ToSentry::Start { id, .. }
            | ToSentry::Kill { id, .. }
            | ToSentry::Resize { id, .. }
            | ToSentry::Front { id, .. }
            | ToSentry::Freeze { id, .. }
            | ToSentry::Processes { id }
            | ToSentry::InVain { id }
            | ToSentry::Limits { id, .. }
            | ToSentry::Usage { id }
            | ToSentry::Delete { id } => Some(id.clone()),
            ToSentry::Network(_) | ToSentry::Stop => None,
        };
        let acts = match &order {
            // Whoever has this done may have changed files before, and wants them seen.
            ToSentry::Exec { .. } | ToSentry::Kill { .. } => true,
            // Between create and start engines and hooks may have put files there; what exec made, has looked already.
            ToSentry::Start { process, .. } => *process == 0,
            ToSentry::Freeze { frozen, .. } => !frozen,
            _ => false,
        };
        if acts && let Some(made) = id.as_ref().and_then(|id| self.containers.lock().find(id).ok()) {
            made.acts.add();
        }
        let result = match order {
            ToSentry::Create(spec) => self.create(*spec, descriptors),
            ToSentry::Exec { id, process, spec } => self.exec(&id, process, *spec),
            ToSentry::Start { id, process } => self.start(&id, process),
            ToSentry::Kill { id, process, signal, all } => self.kill(&id, process, signal, all),
            ToSentry::Resize { id, process, rows, cols } => self.resize(&id, process, rows, cols),
            ToSentry::Front { id, stops } => self.front(&id, stops),
            ToSentry::Freeze { id, frozen } => self.freeze(&id, frozen),
            ToSentry::Processes { id } => self.processes(&id),
            ToSentry::InVain { id } => self.in_vain(&id),
            ToSentry::Limits { id, limits } => self.limits(&id, limits),
            ToSentry::Usage { id } => self.usage(&id),
            ToSentry::Delete { id } => self.delete(&id),
            ToSentry::Network(network) => self.connect(network, descriptors),
            ToSentry::Stop => std::process::exit(0),
        };
        (id, result)
    }

    /// Gives the sandbox's own network namespace what it has beyond itself.
    fn connect(&self, network: Network, descriptors: Vec<OwnedFd>) -> Result<FromSentry, Failure> {
        let failed = |message: String| Failure { kind: FailureKind::Host, message };
        let [bell, window] =
            <[OwnedFd; 2]>::try_from(descriptors).map_err(|_| failed("a network comes with two descriptors".into()))?;
        let net = self.kernel.first.net.clone();
        // A second one: the first is gone.
        let made = if let Some(outside) = net.outside() {
            outside.renew(bell, window)
        } else {
            net.settings.adopt(&network.settings);
            Outside::new(network, bell, window).map(|(outside, listener)| {
                net.connect(outside);
                net.groups.begin(&net, &self.kernel.timers);
                listener
            })
        };
        let listener = made.map_err(|e| failed(format!("netd: {e}")))?;
        for socket in net.ports(Kind::Tcp).lock().all().0.iter().filter(|s| s.listens()) {
            socket.listen_outside(socket.tcp_backlog());
        }
        net.ports(Kind::Udp).lock().all().0.iter().for_each(|s| s.settle_anew());
        let hear = std::thread::Builder::new().name("netd".into()).stack_size(256 << 10);
        hear.spawn(move || listener.serve(&net)).map_err(|e| failed(format!("a thread for netd: {e}")))?;
        Ok(FromSentry::Done)
    }

    /// Makes a container. Its id is taken meanwhile, unless somebody says that it is not to be ([`Making::end`]).
    fn create(self: &Arc<Self>, spec: Container, descriptors: Vec<OwnedFd>) -> Result<FromSentry, Failure> {
        let id = spec.id.clone();
        let making = Arc::new(Making::default());
        let (around, own) = {
            let mut containers = self.containers.lock();
            if containers.all.contains_key(&id) || containers.making.contains_key(&id) {
                return Err(Failure::new(FailureKind::Exists, "this sandbox has such a container already"));
            }
            let ground = match &containers.first {
                None => (self.kernel.first.clone(), if spec.user_namespace.is_some() { OWN } else { 0 }),
                Some(_) => {
                    self.kernel.pod.store(true, Ordering::Relaxed);
                    (self.shared(&containers, &spec.namespaces.with)?, spec.namespaces.own & OWN)
                }
            };
            containers.first.get_or_insert_with(|| id.clone());
            containers.making.insert(id.clone(), making.clone());
            ground
        };
        let made = self.make(spec, descriptors, &making, (&around, own));
        let mut containers = self.containers.lock();
        let ours = containers.making.get(&id).is_some_and(|m| Arc::ptr_eq(m, &making));
        if ours {
            containers.making.remove(&id);
        }
        let made = made?;
        if !ours {
            drop(containers);
            self.kill_rest(&made.cgroup);
            return Err(Failure::new(FailureKind::WrongState, "the container was ended while it was being made"));
        }
        let init = made.init()?.task.clone();
        let home = made.cgroup.home.get().and_then(|home| home.tid());
        containers.all.insert(id.clone(), Arc::new(made));
        self.kernel.limit_memory(containers.memory_limit());
        Ok(FromSentry::Created { id, pid: init.pid(), home })
    }

    /// Makes what a container is: its tree of files and its init. Waits for its Gofer.
    fn make(
        self: &Arc<Self>,
        spec: Container,
        descriptors: Vec<OwnedFd>,
        making: &Making,
        (around, own): (&Namespaces, u64),
    ) -> Result<Made, Failure> {
        let invalid = |e: &dyn std::fmt::Display| Failure::new(FailureKind::Invalid, e.to_string());
        let [files, stdio]: [OwnedFd; 2] =
            descriptors.try_into().map_err(|_| invalid(&"a container needs a files socket and a stdio socket"))?;
        let cgroup = Arc::new(Cgroup::default());
        cgroup.limits.set(spec.limits.clone());
        let gofer = |e: &dyn std::fmt::Display| Failure::new(FailureKind::Host, format!("the Gofer: {e}"));
        // The walls are up: nothing is asked about sockets any more.
        let wire = |fd: OwnedFd| Wire::of_packets(fd);
        cofferdam_platform::about_to_block();
        let files = Client::connect(wire(files), Some(self.kernel.cache.window().clone())).map_err(|e| gofer(&e))?;
        let stdio = Client::connect(wire(stdio), None).map_err(|e| gofer(&e))?;
        for client in [&files, &stdio] {
            client.set_before_wait(cofferdam_platform::about_to_block);
            making.add(client);
        }
        let stdio = StdioHub::new(stdio).map_err(|e| gofer(&e))?;
        let acts = Acts::default();
        let ground =
            build_root(&self.kernel, &(files, acts.clone()), &spec, &cgroup, (around, own)).map_err(|e| invalid(&e))?;
        {
            let mut names = ground.namespaces.uts.names.write();
            if let Some(h) = &spec.hostname {
                names.0 = h.clone().into_bytes();
            }
            if let Some(d) = &spec.domainname {
                names.1 = d.clone().into_bytes();
            }
        }
        let Container { id, process, plain, personality, seccomp, .. } = spec;
        let common = Arc::new(Common { user_ns: ground.user_ns, personality, seccomp });
        let place = Place {
            fs: Arc::new(ground.fs),
            pid_ns: ground.namespaces.pid_for_children.clone(),
            namespaces: ground.namespaces,
            cgroup: cgroup.clone(),
            common: common.clone(),
            plain,
            console: true,
        };
        let init = Outer::make(&self.kernel, &stdio, &stdio_name(&id, 0), process, place)?;
        if self.kernel.pod.load(Ordering::Relaxed) {
            let home = self.kernel.platform.get().map(Home::start).and_then(Result::ok);
            let Some(home) = home else {
                self.kill_rest(&cgroup);
                return Err(Failure::new(FailureKind::Host, "the host makes no process for the container"));
            };
            let _ = cgroup.home.set(home);
        }
        let processes = Mutex::new(BTreeMap::from([(0, Arc::new(init))]));
        let ready = ground.notify.map(|socket| {
            let (me, id) = (Arc::downgrade(self), id.clone());
            let tell = move || {
                if let Some(me) = me.upgrade() {
                    me.tell(FromSentry::Notified { id });
                }
            };
            Ready::listen(socket, Box::new(tell))
        });
        Ok(Made { id, plain, stdio, cgroup, acts, common, _ready: ready, processes })
    }

    /// The sandbox's namespaces, with some of other containers in place of those.
    fn shared(&self, containers: &Containers, with: &[(u64, String)]) -> Result<Namespaces, Failure> {
        let mut around = self.kernel.first.clone();
        for (kind, id) in with {
            let init = containers.find(id)?.init()?.task.clone();
            if init.group().is_exiting() {
                return Err(Failure::new(FailureKind::WrongState, format!("container {id} is not running")));
            }
            let theirs = init.namespaces();
            match *kind {
                flag::NEWUTS => around.uts = theirs.uts.clone(),
                flag::NEWIPC => around.ipc = theirs.ipc.clone(),
                flag::NEWCGROUP => around.cgroup = theirs.cgroup.clone(),
                flag::NEWNET => around.net = theirs.net.clone(),
                flag::NEWPID => around.pid_for_children = init.group().pid_ns.clone(),
                _ => return Err(Failure::new(FailureKind::Invalid, "a kind of namespace that cannot be shared")),
            }
        }
        Ok(around)
    }

    /// A further process in a container: where its init began, whatever that has made of itself.
    fn exec(self: &Arc<Self>, id: &str, number: u32, spec: Process) -> Result<FromSentry, Failure> {
        let made = self.containers.lock().find(id)?;
        {
            let processes = made.processes.lock();
            if processes.contains_key(&number) {
                return Err(Failure::new(FailureKind::Exists, "there is such a process already"));
            }
            if processes.len() > MAX_EXECS {
                return Err(Failure::new(FailureKind::Host, "too many processes were made by exec"));
            }
        }
        let init = made.init()?.task.clone();
        if init.group().is_exiting() {
            return Err(Failure::new(FailureKind::WrongState, "container not running"));
        }
        let fs = init.fs().fork();
        fs.enter(fs.namespace());
        fs.set_umask(0o022);
        let place = Place {
            fs,
            namespaces: init.namespaces(),
            pid_ns: init.group().pid_ns.clone(),
            cgroup: init.group().cgroup.clone(),
            common: made.common.clone(),
            plain: false,
            console: false,
        };
        let process = Outer::make(&self.kernel, &made.stdio, &stdio_name(id, number), spec, place)?;
        let task = process.task.clone();
        made.processes.lock().insert(number, Arc::new(process));
        let known = self.containers.lock().all.get(id).is_some_and(|m| Arc::ptr_eq(m, &made));
        if !known || task.group().is_exiting() {
            // Maybe before it was known whose end that is.
            made.processes.lock().remove(&number);
            exit_group(&task, sig::KILL);
            return Err(Failure::new(FailureKind::WrongState, "the process was killed before it began"));
        }
        Ok(FromSentry::Created { id: id.to_owned(), pid: task.group().pid_ns.shown(task.pid()), home: None })
    }

    fn start(self: &Arc<Self>, id: &str, number: u32) -> Result<FromSentry, Failure> {
        self.process(id, number)?.start()?;
        Ok(FromSentry::Started { id: id.to_owned() })
    }

    /// A process of a container.
    fn process(&self, id: &str, number: u32) -> Result<Arc<Outer>, Failure> {
        let made = self.containers.lock().find(id)?;
        made.process(number)
    }

    fn kill(&self, id: &str, number: u32, signal: i32, all: bool) -> Result<FromSentry, Failure> {
        let made = self.containers.lock().find(id)?;
        let process = made.process(number)?;
        if !crate::signal::valid(signal) {
            return Err(Failure::new(FailureKind::Invalid, format!("signal {signal} does not exist")));
        }
        let group = process.task.group().clone();
        if group.is_exiting() || !process.started() {
            process.kill_early(signal)?;
        } else if all {
            for g in group.cgroup.members(&self.kernel) {
                send::to_group(&self.kernel, &g, Outer::from_outside(signal));
            }
        } else if number == 0 && signal == sig::CONT && made.plain {
            made.stdio.go_on();
            // The user's shell continues a job, which is a process group.
            let pgid = self.kernel.tree.lock().node(group.pid).map_or(group.pid, |n| n.pgid);
            send::to_process_group(&self.kernel, pgid, Outer::from_outside(signal));
        } else {
            send::to_group(&self.kernel, &group, Outer::from_outside(signal));
        }
        Ok(FromSentry::Done)
    }

    fn freeze(&self, id: &str, frozen: bool) -> Result<FromSentry, Failure> {
        let cgroup = self.containers.lock().find(id)?.cgroup.clone();
        if !frozen {
            cgroup.thaw(&self.kernel);
        } else if !cgroup.freeze(&self.kernel) {
            cgroup.thaw(&self.kernel);
            return Err(Failure::new(FailureKind::Internal, "unable to freeze: a process does not come to rest"));
        }
        Ok(FromSentry::Done)
    }

    /// The processes of a container: the host's ids of their leaders, in this process's PID namespace.
    fn processes(&self, id: &str) -> Result<FromSentry, Failure> {
        let cgroup = self.containers.lock().find(id)?.cgroup.clone();
        let members = cgroup.members(&self.kernel);
        let hosts = members.iter().filter_map(|g| g.leader()).filter_map(|t| t.host()).map(|h| h.tid());
        Ok(FromSentry::Processes(hosts.collect()))
    }

    fn resize(&self, id: &str, number: u32, rows: u16, cols: u16) -> Result<FromSentry, Failure> {
        self.process(id, number)?.resize(rows, cols);
        Ok(FromSentry::Done)
    }

    fn in_vain(&self, id: &str) -> Result<FromSentry, Failure> {
        self.containers.lock().find(id)?;
        Ok(FromSentry::InVain(crate::syscalls::in_vain()))
    }

    fn limits(&self, id: &str, limits: Limits) -> Result<FromSentry, Failure> {
        let containers = self.containers.lock();
        containers.find(id)?.cgroup.limits.set(limits);
        self.kernel.limit_memory(containers.memory_limit());
        Ok(FromSentry::Done)
    }

    fn usage(&self, id: &str) -> Result<FromSentry, Failure> {
        let cgroup = self.containers.lock().find(id)?.cgroup.clone();
        let used = cgroup.usage(&self.kernel);
        let tasks = self.kernel.tree.lock().charged(&cgroup);
        Ok(FromSentry::Usage(Usage {
            tasks,
            memory: cgroup::current(&totals::Memory::of(&self.kernel, &cgroup)),
            user: used.user.max(0).unsigned_abs(),
            system: used.system.max(0).unsigned_abs(),
            killed: cgroup.limits.killed(),
        }))
    }

    fn front(&self, id: &str, stops: u32) -> Result<FromSentry, Failure> {
        let stdio = self.containers.lock().find(id)?.stdio.clone();
        stdio.release(stops);
        Ok(FromSentry::Done)
    }

    /// Forgets a container, which has ended or shall. What is left of it ends; one that is being made is given up.
    fn delete(&self, id: &str) -> Result<FromSentry, Failure> {
        let (made, making) = {
            let mut containers = self.containers.lock();
            let (made, making) = (containers.all.remove(id), containers.making.remove(id));
            self.kernel.limit_memory(containers.memory_limit());
            (made, making)
        };
        made.iter().for_each(|m| self.kill_rest(&m.cgroup));
        making.iter().for_each(|m| m.end());
        Ok(FromSentry::Done)
    }

    /// Ends all processes of a container.
    fn kill_rest(&self, cgroup: &Arc<Cgroup>) {
        for task in cgroup.members(&self.kernel).iter().filter_map(|g| g.leader()) {
            exit_group(&task, sig::KILL);
        }
        if let Some(home) = cgroup.home.get() {
            home.end();
        }
    }

    /// A process from outside has stopped. For the command of `do` the user's shell takes over, to which its input belongs then.
    pub fn stopped(self: &Arc<Self>, pid: i32, signal: i32) {
        let plain = {
            let containers = self.containers.lock();
            let mut plain = containers.all.values().filter(|m| m.plain);
            plain.find_map(|m| {
                let init = m.init().ok().filter(|i| i.task.pid() == pid)?;
                Some((m.id.clone(), m.stdio.clone(), init.spec.terminal))
            })
        };
        let Some((id, stdio, terminal)) = plain else { return };
        if terminal {
            // What it wrote should come before the shell's prompt; a terminal that takes nothing does not hold it up.
            stdio.drain(&stdio_name(&id, 0), LAST_WORDS);
        }
        let me = Arc::downgrade(self);
        stdio.stop(Box::new(move || {
            if let Some(me) = me.upgrade() {
                me.tell(FromSentry::Stopped { id, signal });
            }
        }));
    }

    /// A process from outside ended with a wait status.
    pub fn ended(self: &Arc<Self>, pid: i32, status: i32) {
        let ended = {
            let containers = self.containers.lock();
            containers.all.values().find_map(|made| {
                let mut processes = made.processes.lock();
                let number = *processes.iter().find(|(_, p)| p.task.pid() == pid)?.0;
                if number != 0 {
                    processes.remove(&number);
                }
                Some((made.id.clone(), made.stdio.clone(), number, made.cgroup.clone()))
            })
        };
        let Some((id, stdio, process, cgroup)) = ended else { return };
        if process == 0 {
            // In a PID namespace of others it leaves some behind.
            self.kill_rest(&cgroup);
        }
        let status = match status & 0x7f {
            0 => ExitStatus::Code(((status >> 8) & 0xff) as u8),
            s => ExitStatus::Signal(s, status & 0x80 != 0),
        };
        // What it wrote must be out before its end is told.
        let me = Arc::downgrade(self);
        let name = stdio_name(&id, process);
        stdio.after(&self.kernel, &name, OUTPUT_LEFT, move || {
            if let Some(me) = me.upgrade() {
                me.tell(FromSentry::Exited { id, process, status });
            }
        });
    }
}
