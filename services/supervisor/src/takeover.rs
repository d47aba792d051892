//! Takes a container's network over from the host's kernel, for its netd.
//!
//! An engine has put interfaces into the network namespace that the document names, with addresses and routes (CNI, netavark, libnetwork).
//! Here these are read, a packet socket is opened for each interface, and the addresses are taken away, so that the host's kernel answers for
//! none of them any more; when the sandbox is over they are given back. Of the host's own network they are only read, and sockets are bound there to ports that
//! need a right. Runs in a process of its own, which the launcher makes and which enters the namespace for good; it reads nothing but
//! what the host's kernel says. Called by `launcher`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cofferdam_control::Channel;
use cofferdam_control::netd::{
    ADDRESSES, ASKING, Address, INTERFACES, Interface, NAMES, Network, Place, Route, Settings,
};
use cofferdam_netlink::route::address::AddressMessage;
use cofferdam_netlink::route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use cofferdam_netlink::route::route::{RouteHeader, RouteMessage, RouteType};
use cofferdam_netlink::route::{AddressFamily as AddressFamilyOf, RouteNetlinkMessage};
use cofferdam_netlink::{Netlink, address_message, own_address, read_route, route_message};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::thread::LinkNameSpaceType;
use serde::{Deserialize, Serialize};

/// What is to be done.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Take over what there is.
    Take,
    /// Only tell what there is: it stays the host's.
    Look,
    /// A socket in a place that needs a right.
    Bind(Place),
    /// A connection to who answers for names: there, or at [`NAMES`].
    Ask(Option<SocketAddr>),
    /// Give it back: the addresses and routes are the host's again.
    Give(Network),
}

/// What came of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// Of `Take` and `Look`: the network. With the first comes a packet socket for each of its interfaces.
    pub network: Network,
    /// What could not be taken over, or given back: for the log.
    pub warnings: Vec<String>,
    /// Of `Bind`: a number of an error, or 0 where the socket comes along.
    pub error: i32,
}

/// Enters the namespace and answers with what came of it. A namespace without any interface but the loopback one stays as it is.
pub fn serve(order: &Order, namespace: &OwnedFd, answer: &Channel) {
    let enter = || {
        if !is_own(namespace.as_fd())? {
            rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|e| format!("entering it: {e}"))?;
        }
        Netlink::open().map_err(told)
    };
    let done = enter().and_then(|mut netlink| match order {
        Order::Take => take(&mut netlink),
        Order::Look => look(&mut netlink).map(|network| (Answer { network, ..Answer::default() }, Vec::new())),
        Order::Bind(place) => Ok(match bind(place) {
            Ok(socket) => (Answer::default(), vec![socket]),
            Err(e) => (Answer { error: e.raw_os_error(), ..Answer::default() }, Vec::new()),
        }),
        Order::Ask(at) => Ok(match ask(*at) {
            Ok(socket) => (Answer::default(), vec![socket]),
            Err(e) => (Answer { error: e.raw_os_error(), ..Answer::default() }, Vec::new()),
        }),
        Order::Give(network) => Ok((give(&mut netlink, network), Vec::new())),
    });
    let (result, sockets) = match done {
        Ok((answer, sockets)) => (Ok(answer), sockets),
        Err(e) => (Err(e), Vec::new()),
    };
    let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    // Who does not listen any more does not need it.
    let _ = answer.send(&result, &sockets);
}

fn told(why: std::io::Error) -> String {
    format!("netlink: {why}")
}

/// Whether a network namespace is the one that this process is in.
pub fn is_own(namespace: BorrowedFd<'_>) -> Result<bool, String> {
    let place = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|s| (s.st_dev, s.st_ino)).map_err(|e| e.to_string());
    let own = std::fs::File::open("/proc/thread-self/ns/net").map_err(|e| format!("/proc/thread-self/ns/net: {e}"))?;
    Ok(place(own.as_fd())? == place(namespace)?)
}

/// A socket that is bound as it is asked for.
fn bind(place: &Place) -> Result<OwnedFd, rustix::io::Errno> {
    let family = if place.at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = if place.stream { SocketType::STREAM } else { SocketType::DGRAM };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    if place.at.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, place.only_v6)?;
    }
    sockopt::set_socket_reuseaddr(&socket, place.reuse)?;
    sockopt::set_socket_reuseport(&socket, place.reuseport)?;
    if !place.stream {
        sockopt::set_socket_broadcast(&socket, true)?;
    }
    rustix::net::bind(&socket, &place.at)?;
    Ok(socket)
}

/// Reads what there is of the host's own network. What is no Ethernet is not told of.
fn look(netlink: &mut Netlink) -> Result<Network, String> {
    let mut interfaces = links(netlink, &mut Vec::new())?;
    fill(&mut interfaces, &addresses(netlink)?);
    let routes = routes(netlink, &interfaces)?;
    let interfaces = interfaces.into_values().collect();
    let one = |name| settings(name).map(|[n]| n);
    let settings = Settings {
        unprivileged: one("ip_unprivileged_port_start"),
        ports: settings("ip_local_port_range"),
        pingers: settings("ping_group_range"),
    };
    Ok(Network { interfaces, routes, names: false, host: true, reports: false, settings })
}

/// Numbers of a setting of IPv4's.
fn settings<const N: usize>(name: &str) -> Option<[i64; N]> {
    let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok()?;
    let all: Vec<i64> = text.split_whitespace().map_while(|word| word.parse().ok()).collect();
    all.try_into().ok()
}

/// Gives interfaces their addresses; those without any are left out.
fn fill(interfaces: &mut BTreeMap<u32, Interface>, found: &[AddressMessage]) {
    for message in found {
        let own = interfaces.get_mut(&message.header.index);
        let room = own.filter(|i| i.addresses.len() < ADDRESSES);
        if let (Some(interface), Some(ip)) = (room, own_address(message)) {
            interface.addresses.push(Address { ip, prefix: message.header.prefix_len });
        }
    }
    interfaces.retain(|_, i| !i.addresses.is_empty());
}

fn take(netlink: &mut Netlink) -> Result<(Answer, Vec<OwnedFd>), String> {
    let mut warnings = Vec::new();
    let mut interfaces = links(netlink, &mut warnings)?;
    let found = addresses(netlink)?;
    fill(&mut interfaces, &found);
    let routes = routes(netlink, &interfaces)?;
    let mut sockets = Vec::new();
    for interface in interfaces.values() {
        let opened = cofferdam_confine::packet_socket(interface.index);
        sockets.push(opened.map_err(|e| format!("{}: {e}", interface.name))?);
    }
    for message in found.into_iter().filter(|m| interfaces.contains_key(&m.header.index)) {
        netlink.change(RouteNetlinkMessage::DelAddress(message)).map_err(|e| format!("taking an address away: {e}"))?;
    }
    for interface in interfaces.values() {
        // Nor is it to make itself new ones. A host without IPv6 has no such file, and an unprivileged one may not write it: then it has no routers
        // that would tell it of any.
        let _ = without_ipv6(interface, true);
    }
    let names = names().unwrap_or_else(|e| {
        warnings.push(format!("names cannot be asked for at {NAMES}: {e}"));
        Vec::new()
    });
    let network = Network {
        interfaces: interfaces.into_values().collect(),
        routes,
        names: !names.is_empty(),
        reports: true,
        ..Network::default()
    };
    sockets.extend(names);
    Ok((Answer { network, warnings, error: 0 }, sockets))
}

/// Sockets that ask who answers for names here, as Docker does in the networks that it has names for: by a socket of its own in this namespace, to which
/// the host's rules lead what is sent to the usual port. None, if there is none such.
fn names() -> Result<Vec<OwnedFd>, String> {
    let Some(port) = answerer("udp").map_err(|e| format!("/proc/net/udp: {e}"))? else { return Ok(Vec::new()) };
    let ask = |_| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
        rustix::net::connect(&socket, &std::net::SocketAddr::new(NAMES, port))?;
        Ok(socket)
    };
    (0..ASKING).map(ask).collect::<Result<_, rustix::io::Errno>>().map_err(|e| e.to_string())
}

/// The port of [`NAMES`] that somebody has, by what the kernel tells of its sockets of a protocol; of several that are connected, where it listens.
fn answerer(protocol: &str) -> std::io::Result<Option<u16>> {
    const LISTENS: &str = "0A";
    let IpAddr::V4(ip) = NAMES else { return Ok(None) };
    let own = format!("{:08X}", u32::from_ne_bytes(ip.octets()));
    let table = std::fs::read_to_string(format!("/proc/thread-self/net/{protocol}"))?;
    let port = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (ip, port) = words.next()?.split_once(':')?;
        let there = ip == own && (protocol == "udp" || words.nth(1)? == LISTENS);
        u16::from_str_radix(port, 16).ok().filter(|_| there)
    };
    Ok(table.lines().find_map(port))
}

/// A connection to who answers for names. He is on the same host: either he is there at once or nobody is.
fn ask(at: Option<SocketAddr>) -> Result<OwnedFd, rustix::io::Errno> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::io::Errno;
    const PATIENCE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };
    let own = || answerer("tcp").ok().flatten().map(|port| SocketAddr::new(NAMES, port));
    let at = at.or_else(own).ok_or(Errno::CONNREFUSED)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &at) {
        Err(Errno::INPROGRESS) => {
            let waits = PollFd::new(&socket, PollFlags::OUT);
            if poll(&mut [waits], Some(&PATIENCE))? == 0 {
                return Err(Errno::TIMEDOUT);
            }
            sockopt::socket_error(&socket)??;
        }
        other => other?,
    }
    Ok(socket)
}

fn without_ipv6(interface: &Interface, is: bool) -> std::io::Result<()> {
    let path = format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", interface.name);
    std::fs::write(path, if is { "1" } else { "0" })
}

/// Puts addresses and routes back where they were. An interface that is gone by now needs none.
fn give(netlink: &mut Netlink, network: &Network) -> Answer {
    let mut warnings = Vec::new();
    let there: Vec<u32> = links(netlink, &mut Vec::new()).unwrap_or_default().into_keys().collect();
    for interface in network.interfaces.iter().filter(|i| there.contains(&i.index)) {
        let _ = without_ipv6(interface, false);
        for address in &interface.addresses {
            if let Err(e) = netlink.make(RouteNetlinkMessage::NewAddress(address_message(interface.index, address))) {
                warnings.push(format!("{}: {} cannot be given back: {e}", interface.name, address.ip));
            }
        }
    }
    // Those of the links are there with the addresses; the others lead over them.
    for route in network.routes.iter().filter(|r| r.via.is_some() && there.contains(&r.interface)) {
        if let Err(e) = netlink.make(RouteNetlinkMessage::NewRoute(route_message(route))) {
            warnings.push(format!("the route to {}/{} cannot be given back: {e}", route.to.ip, route.to.prefix));
        }
    }
    Answer { warnings, ..Answer::default() }
}

fn links(netlink: &mut Netlink, warnings: &mut Vec<String>) -> Result<BTreeMap<u32, Interface>, String> {
    let mut all = BTreeMap::new();
    for message in netlink.dump(RouteNetlinkMessage::GetLink(LinkMessage::default())).map_err(told)? {
        let RouteNetlinkMessage::NewLink(link) = message else { continue };
        let mut interface =
            Interface { name: String::new(), index: link.header.index, mac: [0; 6], mtu: 1500, addresses: Vec::new() };
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::IfName(name) => interface.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
                LinkAttribute::Address(mac) => interface.mac = mac.as_slice().try_into().unwrap_or_default(),
                _ => {}
            }
        }
        let (up, kind) = (link.header.flags.contains(LinkFlags::Up), link.header.link_layer_type);
        if !up || kind == LinkLayerType::Loopback {
            continue;
        }
        if kind != LinkLayerType::Ether || all.len() >= INTERFACES {
            warnings
                .push(format!("the interface {} ({kind:?}) is left out: no Ethernet, or one too many", interface.name));
            continue;
        }
        all.insert(interface.index, interface);
    }
    Ok(all)
}

fn addresses(netlink: &mut Netlink) -> Result<Vec<AddressMessage>, String> {
    let all = netlink.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default())).map_err(told)?;
    Ok(all
        .into_iter()
        .filter_map(|m| if let RouteNetlinkMessage::NewAddress(a) = m { Some(a) } else { None })
        .collect())
}

fn routes(netlink: &mut Netlink, interfaces: &BTreeMap<u32, Interface>) -> Result<Vec<Route>, String> {
    let mut all = Vec::new();
    for family in [AddressFamilyOf::Inet, AddressFamilyOf::Inet6] {
        let mut ask = RouteMessage::default();
        ask.header.address_family = family;
        for message in netlink.dump(RouteNetlinkMessage::GetRoute(ask)).map_err(told)? {
            let RouteNetlinkMessage::NewRoute(route) = message else { continue };
            let main = route.header.table == RouteHeader::RT_TABLE_MAIN && route.header.kind == RouteType::Unicast;
            let route = read_route(&route).filter(|r| main && interfaces.contains_key(&r.interface));
            all.extend(route.filter(|_| all.len() < ADDRESSES));
        }
    }
    Ok(all)
}
