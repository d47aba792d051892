//! The network of a sandbox: its netd, from the namespace that an engine has made.
//!
//! Engines put interfaces into a container's network namespace before it starts, by a hook or beforehand; so this is where that is looked at
//! (`takeover`), and a netd is started if there is any. A person's command uses its caller's network by sockets that a netd makes there: that is
//! started when it is first needed. One that dies takes its connections with it, and another one takes its place. Called by `container`.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use cofferdam_control::netd::{
    ASKING, Counts, FromNetd, INTERFACES, InterfaceCounts, Mode, NetdOrders, Network, Place, ToNetd, User,
};
use cofferdam_control::sentry::{FailureKind, FromSentry, ToSentry};
use cofferdam_control::{Channel, LogLevel, LogSettings, rung};
use cofferdam_socket::queue::Receiver;
use cofferdam_socket::{Side, WINDOW_BYTES, Window};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::house::House;
use crate::launcher::Service;
use crate::link::{Link, PATIENCE, internal};
use crate::sandbox::Sandbox;
use crate::spec::Refused;
use crate::takeover::{self, Answer, Order};

/// Ports below that are for who has CAP_NET_BIND_SERVICE (`ip_unprivileged_port_start`, unless the host has another).
const LOW: u16 = 1024;
/// How long a netd that asks for connections is made to wait for each.
const SELDOM: Duration = Duration::from_millis(10);
/// How long numbers are waited for.
const SOON: Duration = Duration::from_secs(2);

/// Where a sandbox's network comes from.
pub enum Way {
    /// What is in a network namespace is taken over.
    Take {
        /// It.
        namespace: OwnedFd,
        /// Who answers for names at `netd::NAMES`, if nobody does in the namespace itself.
        names: Option<Answerer>,
    },
    /// The host's own, by sockets in that namespace.
    Host(OwnedFd),
    /// Sockets of the caller's, in his own network namespace.
    User {
        /// It.
        namespace: OwnedFd,
        /// What the network is like.
        user: User,
        /// Sockets of published ports.
        doors: Vec<OwnedFd>,
    },
}

/// Who answers for names at `netd::NAMES`, and is in another network namespace.
pub struct Answerer {
    /// Where he is.
    pub at: SocketAddr,
    /// Sockets that are connected to him.
    pub sockets: Vec<OwnedFd>,
    /// His network namespace.
    pub namespace: OwnedFd,
}

/// A network that is a sandbox's.
pub struct Outside {
    /// It.
    pub network: Network,
    mode: Mode,
    namespace: OwnedFd,
    /// Packet sockets of its interfaces, or those of published ports.
    sockets: Vec<OwnedFd>,
    /// Who answers for names, where that is somewhere else: his place, and his namespace.
    answerer: Option<(SocketAddr, OwnedFd)>,
    /// What could not be taken over.
    pub warnings: Vec<String>,
}

impl Outside {
    /// The host's own, as it is now.
    pub async fn of_host(house: &House, namespace: OwnedFd) -> Result<Self, Refused> {
        let (Answer { network, warnings, .. }, _) = house.network(Order::Look, namespace.as_fd()).await?;
        Ok(Self { network, mode: Mode::Host, namespace, sockets: Vec::new(), answerer: None, warnings })
    }

    /// One behind sockets of the caller's.
    pub fn of_user(namespace: OwnedFd, user: User, sockets: Vec<OwnedFd>) -> Result<Self, Refused> {
        if sockets.len() != user.published.len() {
            return Err(Refused::new(FailureKind::Invalid, "published ports without their sockets"));
        }
        let network = Network::user(user.six);
        Ok(Self { network, mode: Mode::User(user), namespace, sockets, answerer: None, warnings: Vec::new() })
    }
}

fn host(why: impl std::fmt::Display) -> Refused {
    Refused::new(FailureKind::Host, format!("the container's network: {why}"))
}

/// Takes over what is in a network namespace, unless it is the host's own. `None`: there is nothing.
pub async fn take(house: &House, namespace: OwnedFd, names: Option<Answerer>) -> Result<Option<Outside>, Refused> {
    // The host's own is not for anybody to have for himself.
    if takeover::is_own(namespace.as_fd()).map_err(host)? {
        return Outside::of_host(house, namespace).await.map(Some);
    }
    let (answer, mut sockets) = house.network(Order::Take, namespace.as_fd()).await?;
    let Answer { mut network, warnings, .. } = answer;
    if network.sockets() != sockets.len() {
        return Err(host("a wrong number of packet sockets"));
    }
    let mut answerer = None;
    if let Some(names) = names.filter(|n| !network.names && n.sockets.len() == ASKING) {
        network.names = true;
        answerer = Some((names.at, names.namespace));
        sockets.extend(names.sockets);
    }
    let outside = Outside { network, mode: Mode::Devices, namespace, sockets, answerer, warnings };
    Ok((!outside.sockets.is_empty() || !outside.warnings.is_empty()).then_some(outside))
}

/// Gives it back to the host's kernel. What cannot be given back is told.
pub async fn give(house: &House, outside: &Outside) -> Vec<String> {
    if outside.mode != Mode::Devices {
        return Vec::new();
    }
    match house.network(Order::Give(outside.network.clone()), outside.namespace.as_fd()).await {
        Ok((answer, _)) => answer.warnings,
        Err(refused) => vec![refused.message],
    }
}

/// What a Sentry and its netd share: the two ends of the bell, and the window.
struct Between {
    sentrys: Channel,
    netds: Channel,
    window: OwnedFd,
}

impl Between {
    fn new() -> Result<Self, Refused> {
        let (sentrys, netds) = Channel::pair().map_err(internal)?;
        let window = Arc::new(Window::create("cofferdam-net", WINDOW_BYTES).map_err(host)?);
        // Who is not there yet has the bell rung for it as one that sleeps.
        Receiver::new(window.clone(), Side::Netd).sleep();
        let window = window.fd().try_clone_to_owned().map_err(host)?;
        Ok(Self { sentrys, netds, window })
    }
}

/// Brings the Sentry and a netd for a network together. Where nothing comes by itself that netd is started when the Sentry first rings: `None`.
pub async fn connect(
    house: &Rc<House>,
    sandbox: &Rc<Sandbox>,
    outside: &Rc<Outside>,
    log: LogSettings,
) -> Result<Option<Rc<Link<FromNetd>>>, Refused> {
    let between = Between::new()?;
    if outside.mode == Mode::Devices {
        let netd = begin(house, sandbox, outside, (&between.netds, &between.window), log).await?;
        introduce(sandbox, outside, &between).await?;
        return Ok(Some(netd));
    }
    introduce(sandbox, outside, &between).await?;
    tokio::task::spawn_local(attend(Rc::downgrade(house), sandbox.clone(), outside.clone(), between, log));
    Ok(None)
}

/// Starts a netd as soon as it is needed.
async fn attend(house: Weak<House>, sandbox: Rc<Sandbox>, outside: Rc<Outside>, between: Between, log: LogSettings) {
    let Between { sentrys, netds, window } = between;
    // From now on the Sentry's end is its own alone: the bell tells of its death, too.
    drop(sentrys);
    if outside.sockets.is_empty()
        && let Err(e) = rung(netds.as_fd()).await
    {
        sandbox.tell_log(LogLevel::Error, format!("waiting for the sandbox to use its network: {e}"));
        return;
    }
    let Some(house) = house.upgrade().filter(|_| !sandbox.is_over()) else { return };
    match begin(&house, &sandbox, &outside, (&netds, &window), log).await {
        Ok(netd) => sandbox.is_served(netd),
        Err(refused) => sandbox.tell_log(LogLevel::Error, refused.message),
    }
}

/// Starts a netd for a network, with its end of the bell and the window.
async fn begin(
    house: &Rc<House>,
    sandbox: &Rc<Sandbox>,
    outside: &Outside,
    (netds, window): (&Channel, &OwnedFd),
    log: LogSettings,
) -> Result<Rc<Link<FromNetd>>, Refused> {
    let inside = Some(outside.namespace.as_fd()).filter(|_| outside.mode != Mode::Devices);
    let netd = Rc::new(Link::with(house, Service::Netd, inside)?);
    if let Ok(Some(pid)) = timeout(PATIENCE, netd.launched.started()).await {
        sandbox.join(pid).await?;
    }
    let orders = NetdOrders {
        sandbox: sandbox.id().to_owned(),
        network: outside.network.clone(),
        mode: outside.mode.clone(),
        rules: sandbox.rules.clone(),
        log,
    };
    let mut rights: Vec<BorrowedFd<'_>> = vec![netds.as_fd(), window.as_fd()];
    rights.extend(outside.sockets.iter().map(AsFd::as_fd));
    let serves = match (&outside.mode, &outside.answerer) {
        (Mode::Host, _) => Some((Serves::Places, &outside.namespace)),
        (Mode::Devices, Some((at, namespace))) => Some((Serves::Names(Some(*at)), namespace)),
        (Mode::Devices, None) if outside.network.names => Some((Serves::Names(None), &outside.namespace)),
        _ => None,
    };
    let serves = serves.map(|(what, namespace)| Ok((what, namespace.try_clone()?))).transpose();
    let serves = serves.map_err(|e: std::io::Error| host(e))?;
    tokio::task::spawn_local(hear(netd.clone(), sandbox.clone(), serves));
    match netd.ask(&orders, &rights).await {
        Ok(FromNetd::Ready) => Ok(netd),
        Ok(FromNetd::Failed { message }) => Err(host(format!("netd: {message}"))),
        Ok(_) => Err(host("netd answered something else")),
        Err(_) => Err(host(netd.obituary("does not answer in time").await)),
    }
}

/// Gives the Sentry its end.
async fn introduce(sandbox: &Sandbox, outside: &Outside, between: &Between) -> Result<(), Refused> {
    let network = ToSentry::Network(outside.network.clone());
    match sandbox.ask(network, &[between.sentrys.as_fd(), between.window.as_fd()]).await {
        Ok(FromSentry::Done) => Ok(()),
        Ok(FromSentry::Failed { kind, message, .. }) => Err(Refused::new(kind, message)),
        _ => Err(host("the Sentry does not take it")),
    }
}

/// What sockets a netd may ask for.
#[derive(Clone, Copy)]
enum Serves {
    /// In the host's own network: at ports that need a right.
    Places,
    /// Connections to who answers for names: there, or in the container's own.
    Names(Option<SocketAddr>),
}

/// Hears what a netd says until it is gone. `serves`: what sockets it may ask for, and where.
async fn hear(netd: Rc<Link<FromNetd>>, sandbox: Rc<Sandbox>, serves: Option<(Serves, OwnedFd)>) {
    let why = loop {
        match netd.channel.receive::<FromNetd>().await {
            Ok(got) => match got.message {
                FromNetd::Log(line) => sandbox.log("netd", &line),
                FromNetd::Bind { number, place } => {
                    let made = match &serves {
                        Some((Serves::Places, namespace)) => bind(&sandbox, namespace, place).await,
                        Some((Serves::Names(at), namespace)) => ask(&sandbox, namespace, *at).await,
                        None => Err(libc::EACCES),
                    };
                    let bound = ToNetd::Bound { number, error: made.as_ref().err().copied().unwrap_or(0) };
                    let socket: Vec<_> = made.iter().map(AsFd::as_fd).collect();
                    // One that is gone needs none.
                    let _ = netd.channel.send(&bound, &socket);
                }
                message => {
                    if let Err(e) = netd.answer(None, message) {
                        break e.to_owned();
                    }
                }
            },
            Err(e) => break e.to_string(),
        }
    };
    netd.forget();
    if !sandbox.is_over() {
        let reason = netd.obituary(&why).await;
        sandbox.tell_log(LogLevel::Error, format!("{reason}: the sandbox's connections are reset"));
        sandbox.reconnect(&netd).await;
    }
}

/// A socket at a port that needs a right, for a sandbox whose root has that right natively, too. A number of an error.
async fn bind(sandbox: &Sandbox, namespace: &OwnedFd, place: Place) -> Result<OwnedFd, i32> {
    let low = (1..LOW).contains(&place.at.port());
    let house = sandbox.house().filter(|_| low && sandbox.low_ports).ok_or(libc::EACCES)?;
    match house.network(Order::Bind(place), namespace.as_fd()).await {
        Ok((answer, sockets)) => sockets.into_iter().next().ok_or(answer.error),
        Err(refused) => {
            sandbox.tell_log(LogLevel::Error, refused.message);
            Err(libc::EACCES)
        }
    }
}

/// A connection to who answers for names, whatever place was asked for: there is but that one. A number of an error.
async fn ask(sandbox: &Sandbox, namespace: &OwnedFd, at: Option<SocketAddr>) -> Result<OwnedFd, i32> {
    // Each is a process for a moment: a netd that asks and asks has few of them.
    tokio::time::sleep(SELDOM).await;
    let house = sandbox.house().ok_or(libc::ECONNREFUSED)?;
    match house.network(Order::Ask(at), namespace.as_fd()).await {
        Ok((answer, sockets)) => sockets.into_iter().next().ok_or(answer.error),
        Err(refused) => {
            sandbox.tell_log(LogLevel::Error, refused.message);
            Err(libc::ECONNREFUSED)
        }
    }
}

/// What one has counted, if it says so soon: nobody waits long for numbers.
pub async fn counts(netd: &Link<FromNetd>) -> Option<Counts> {
    match timeout(SOON, netd.ask(&ToNetd::Count, &[])).await {
        Ok(Ok(FromNetd::Counters(counts))) => Some(*counts),
        _ => None,
    }
}

/// Ends one.
pub async fn stop(house: &House, netd: &Link<FromNetd>) {
    let _ = netd.tell(&ToNetd::Stop);
    netd.farewell(house).await;
}

/// Adds what a netd has counted to what a container uses: traffic as runc has it, the rest by names of our own. A netd may be anybody's by now: it
/// chooses numbers and names, and no more than so many.
pub fn tell(stats: &mut Value, counts: Option<Counts>) {
    const MOST: usize = 2048;
    const LONG: usize = 128;
    let short = |name: String| name.chars().take(LONG).collect::<String>();
    let Some(Counts { counters, rules, interfaces }) = counts else { return };
    let Some(all) = stats.as_object_mut() else { return };
    let interface = |i: InterfaceCounts| {
        json!({
            "Name": short(i.name),
            "RxBytes": i.received_bytes,
            "RxPackets": i.received_packets,
            "RxErrors": 0,
            "RxDropped": i.received_lost,
            "TxBytes": i.sent_bytes,
            "TxPackets": i.sent_packets,
            "TxErrors": 0,
            "TxDropped": i.sent_lost,
        })
    };
    let interfaces: Vec<Value> = interfaces.into_iter().take(INTERFACES).map(interface).collect();
    all.insert("network_interfaces".into(), interfaces.into());
    let counters: Map<String, Value> =
        counters.into_iter().take(MOST).map(|(name, n)| (short(name), n.into())).collect();
    let rules: Vec<Value> =
        rules.into_iter().take(MOST).map(|(rule, n)| json!({"rule": short(rule), "count": n})).collect();
    all.insert("cofferdam".into(), json!({"network": {"counters": counters, "rules": rules}}));
}
