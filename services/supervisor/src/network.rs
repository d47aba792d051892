//! The network of a sandbox: its netd, from the namespace that an engine has made.
//!
//! Engines put interfaces into a container's network namespace before it starts, by a hook or beforehand; so this is where that is looked at
//! (`takeover`), and a netd is started if there is any. One that dies takes its connections with it, and another one takes its place. Called by
//! `container`.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use cofferdam_control::netd::{FromNetd, NetdOrders, Network, ToNetd};
use cofferdam_control::sentry::{FailureKind, FromSentry, ToSentry};
use cofferdam_control::{Channel, LogLevel, LogSettings};
use cofferdam_socket::{WINDOW_BYTES, Window};
use tokio::time::timeout;

use crate::house::House;
use crate::launcher::Service;
use crate::link::{Link, PATIENCE, internal};
use crate::sandbox::Sandbox;
use crate::spec::Refused;
use crate::takeover::{Answer, Order};

/// A network that was taken over, with a packet socket for each of its interfaces.
pub struct Outside {
    /// It.
    pub network: Network,
    namespace: OwnedFd,
    sockets: Vec<OwnedFd>,
    /// What could not be taken over.
    pub warnings: Vec<String>,
}

fn host(why: impl std::fmt::Display) -> Refused {
    Refused::new(FailureKind::Host, format!("the container's network: {why}"))
}

/// Takes over what is in a network namespace. `None`: there is nothing.
pub async fn take(house: &House, namespace: OwnedFd) -> Result<Option<Outside>, Refused> {
    let place = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|s| (s.st_dev, s.st_ino)).map_err(host);
    // The host's own is not for anybody to have.
    let own = File::open("/proc/self/ns/net").map_err(|e| host(format!("/proc/self/ns/net: {e}")))?;
    if place(own.as_fd())? == place(namespace.as_fd())? {
        return Ok(None);
    }
    let (answer, sockets) = house.network(Order::Take, namespace.as_fd()).await?;
    let Answer { network, warnings } = answer;
    if network.interfaces.len() != sockets.len() {
        return Err(host("a wrong number of packet sockets"));
    }
    let outside = Outside { network, namespace, sockets, warnings };
    Ok((!outside.sockets.is_empty() || !outside.warnings.is_empty()).then_some(outside))
}

/// Gives it back to the host's kernel. What cannot be given back is told.
pub async fn give(house: &House, outside: Outside) -> Vec<String> {
    let Outside { network, namespace, sockets, .. } = outside;
    drop(sockets);
    match house.network(Order::Give(network), namespace.as_fd()).await {
        Ok((answer, _)) => answer.warnings,
        Err(refused) => vec![refused.message],
    }
}

/// Starts a netd for a network and brings the Sentry and it together.
pub async fn connect(
    house: &Rc<House>,
    sandbox: &Rc<Sandbox>,
    id: &str,
    outside: &Outside,
    log: LogSettings,
    join: impl AsyncFnOnce(i32) -> Result<(), Refused>,
) -> Result<Rc<Link<FromNetd>>, Refused> {
    let netd = Rc::new(Link::new(house, Service::Netd)?);
    if let Ok(Some(pid)) = timeout(PATIENCE, netd.launched.started()).await {
        join(pid).await?;
    }
    let (sentrys, netds) = Channel::pair().map_err(internal)?;
    let window = Window::create("cofferdam-net", WINDOW_BYTES).map_err(host)?;
    let window = window.fd().try_clone_to_owned().map_err(host)?;
    let orders = NetdOrders { sandbox: id.to_owned(), network: outside.network.clone(), log };
    let mut rights: Vec<BorrowedFd<'_>> = vec![netds.as_fd(), window.as_fd()];
    rights.extend(outside.sockets.iter().map(AsFd::as_fd));
    tokio::task::spawn_local(hear(netd.clone(), sandbox.clone()));
    match netd.ask(&orders, &rights).await {
        Ok(FromNetd::Ready) => {}
        Ok(FromNetd::Failed { message }) => return Err(host(format!("netd: {message}"))),
        Ok(_) => return Err(host("netd answered something else")),
        Err(_) => return Err(host(netd.obituary("does not answer in time").await)),
    }
    drop(netds);
    let network = outside.network.clone();
    match sandbox.ask(ToSentry::Network(network), &[sentrys.as_fd(), window.as_fd()]).await {
        Ok(FromSentry::Done) => Ok(netd),
        Ok(FromSentry::Failed { kind, message, .. }) => Err(Refused::new(kind, message)),
        _ => Err(host("the Sentry does not take it")),
    }
}

/// Hears what a netd says until it is gone.
async fn hear(netd: Rc<Link<FromNetd>>, sandbox: Rc<Sandbox>) {
    let why = loop {
        match netd.channel.receive::<FromNetd>().await {
            Ok(got) => match got.message {
                FromNetd::Log(line) => sandbox.log("netd", &line),
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

/// Ends one.
pub async fn stop(house: &House, netd: &Link<FromNetd>) {
    let _ = netd.tell(&ToNetd::Stop);
    netd.farewell(house).await;
}
