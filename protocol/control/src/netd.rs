//! Supervisor <-> netd, and what both know of a network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::rules::Rules;
use crate::{LogLine, LogSettings};

/// The most interfaces of a sandbox.
pub const INTERFACES: usize = 32;
/// The most addresses of an interface, and routes of a network.
pub const ADDRESSES: usize = 256;

/// A network as it was found in the container's network namespace: it is the sandbox's now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its interfaces, but for the loopback one.
    pub interfaces: Vec<Interface>,
    /// Its routes, in the order in which they are looked at.
    pub routes: Vec<Route>,
    /// Who is asked for names at [`NAMES`] is there: with the packet sockets come [`ASKING`] sockets of UDP that are connected to it.
    pub names: bool,
    /// It is the host's own, and nothing stays within: the sandbox's loopback device is the host's.
    pub host: bool,
    /// Groups that are joined are told of: its interfaces lead to networks where somebody may listen for that.
    pub reports: bool,
    /// Of the host's own: what its settings are.
    pub settings: Settings,
}

/// Settings of the host's own network that count within, too. Each where it could be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// `net.ipv4.ip_unprivileged_port_start`.
    pub unprivileged: Option<i64>,
    /// `net.ipv4.ip_local_port_range`.
    pub ports: Option<[i64; 2]>,
    /// `net.ipv4.ping_group_range`.
    pub pingers: Option<[i64; 2]>,
}

/// Where Docker answers for names in a container's network namespace.
pub const NAMES: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));
/// The port where names are asked for.
pub const DOMAIN: u16 = 53;
/// See [`Network::names`].
pub const ASKING: usize = 8;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// The longest IP packet, bytes.
    pub mtu: u32,
    /// Its addresses.
    pub addresses: Vec<Address>,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// It.
    pub ip: IpAddr,
    /// Bits of it that are the network's.
    pub prefix: u8,
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where it leads: a network.
    pub to: Address,
    /// By which router; `None`: it is on the link.
    pub via: Option<IpAddr>,
    /// By which interface.
    pub interface: u32,
    /// From which address, unless that is asked for.
    pub source: Option<IpAddr>,
    /// Of several to one network the one with the least is taken.
    pub metric: u32,
}

impl Address {
    /// Whether another address is in its network.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let bits = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
            IpAddr::V6(ip) => ip.to_bits(),
        };
        let mask = u128::MAX.checked_shl(128u32.saturating_sub(u32::from(self.prefix))).unwrap_or(0);
        self.ip.is_ipv4() == ip.is_ipv4() && (bits(self.ip) ^ bits(ip)) & mask == 0
    }

    /// Its network.
    pub fn network(&self) -> Self {
        let bits = u32::from(self.prefix);
        let ip = match self.ip {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32u32.saturating_sub(bits)).unwrap_or(0);
                IpAddr::V4((ip.to_bits() & mask).into())
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128u32.saturating_sub(bits)).unwrap_or(0);
                IpAddr::V6((ip.to_bits() & mask).into())
            }
        };
        Self { ip, prefix: self.prefix }
    }

    /// Its network's broadcast address.
    pub fn broadcast(&self) -> Option<IpAddr> {
        let IpAddr::V4(ip) = self.ip else { return None };
        let host = u32::MAX.checked_shr(u32::from(self.prefix)).filter(|_| self.prefix < 31)?;
        Some(IpAddr::V4((ip.to_bits() | host).into()))
    }
}

impl Network {
    /// One behind sockets of the caller's, with IPv6 if that leads anywhere.
    pub fn user(six: bool) -> Self {
        let four = (INSIDE.into(), 24, IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(ROUTER));
        let other = (INSIDE6.into(), 64, IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(ROUTER6));
        let families: Vec<_> = [Some(four), Some(other).filter(|_| six)].into_iter().flatten().collect();
        let index = 2;
        let route = |to, via| Route { to, via, interface: index, source: None, metric: 0 };
        let interface = Interface {
            name: "eth0".into(),
            index,
            mac: [0x02, 0, 0, 0, 2, 100],
            mtu: 65_520,
            addresses: families.iter().map(|(ip, prefix, ..)| Address { ip: *ip, prefix: *prefix }).collect(),
        };
        let links = interface.addresses.iter().map(|a| route(a.network(), None));
        let routers = families.iter().map(|(_, _, all, via)| route(Address { ip: *all, prefix: 0 }, Some(*via)));
        let routes = links.chain(routers).collect();
        Self { interfaces: vec![interface], routes, names: false, ..Self::default() }
    }

    /// How many sockets go with one that was taken over.
    pub fn sockets(&self) -> usize {
        self.interfaces.len().saturating_add(if self.names { ASKING } else { 0 })
    }

    /// Whether an address is one of its own.
    pub fn has(&self, ip: IpAddr) -> bool {
        self.interfaces.iter().any(|i| i.addresses.iter().any(|a| a.ip == ip))
    }

    /// Whether an address is that of all on one of its links.
    pub fn is_broadcast(&self, ip: IpAddr) -> bool {
        self.interfaces.iter().any(|i| i.addresses.iter().any(|a| a.broadcast() == Some(ip)))
    }

    /// The interface with a number.
    pub fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|i| i.index == index)
    }

    /// The way to an address; by that interface only, if one is named: its link alone will do then.
    pub fn route(&self, to: IpAddr, by: Option<u32>) -> Option<Route> {
        let fits = |r: &&Route| r.to.contains(to) && by.is_none_or(|by| by == r.interface);
        let best = self.routes.iter().filter(fits).max_by_key(|r| (r.to.prefix, std::cmp::Reverse(r.metric)));
        let link = |by: u32| {
            let to = Address { ip: to, prefix: if to.is_ipv4() { 32 } else { 128 } };
            self.interface(by).map(|_| Route { to, via: None, interface: by, source: None, metric: 0 })
        };
        best.copied().or_else(|| by.and_then(link))
    }

    /// The address that something by a route comes from.
    pub fn source(&self, route: &Route, to: IpAddr) -> Option<IpAddr> {
        let own = || {
            let all = || self.interface(route.interface).into_iter().flat_map(|i| &i.addresses);
            let fits = |a: &&Address| a.ip.is_ipv4() == to.is_ipv4();
            let local = |ip: IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
            let next = route.via.unwrap_or(to);
            // One of the same network, else one that is good as far as the other.
            all()
                .filter(fits)
                .max_by_key(|a| (local(a.ip) == local(to), a.contains(next), a.contains(to)))
                .map(|a| a.ip)
        };
        route.source.or_else(own)
    }
}

/// What is behind the sandbox's sockets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Packet devices: with the orders comes a packet socket for each of the network's interfaces.
    Devices,
    /// Sockets of the caller's, which netd makes as they are needed: a network that nobody else sees. With the orders comes a socket for each
    /// published port.
    User(User),
    /// Sockets of the host's, which netd makes and binds as they are needed: the host's own network.
    Host,
}

/// A network behind sockets of the caller's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Where the host asks for names; `None`: nowhere. The sandbox asks [`RESOLVER`].
    pub resolver: Option<IpAddr>,
    /// IPv6 leads somewhere.
    pub six: bool,
    /// Ports of the caller's that lead into the sandbox.
    pub published: Vec<Published>,
}

/// A port of the caller's that leads into the sandbox: a socket that listens, or is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// UDP, or else TCP.
    pub udp: bool,
    /// The port inside.
    pub port: u16,
}

/// The most published ports.
pub const PUBLISHED: usize = 64;
/// Of a network behind the caller's sockets: what seems to be the router, where names are asked for, and the sandbox's own addresses.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// See [`ROUTER`].
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// See [`ROUTER`].
pub const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
/// See [`ROUTER`].
pub const ROUTER6: Ipv6Addr = Ipv6Addr::new(0xfd63, 0x6f66, 0x6600, 0, 0, 0, 0, 2);
/// See [`ROUTER`].
pub const INSIDE6: Ipv6Addr = Ipv6Addr::new(0xfd63, 0x6f66, 0x6600, 0, 0, 0, 0, 0x64);

/// The first message a netd receives. Descriptors with it, in this order: the socket to the Sentry, the window that both share, then those of
/// its mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetdOrders {
    /// The sandbox's id, for the log.
    pub sandbox: String,
    /// The network.
    pub network: Network,
    /// What is behind it.
    pub mode: Mode,
    /// What may pass.
    pub rules: Rules,
    /// How to log.
    pub log: LogSettings,
}

/// A place of the host's that only who has a right to may have: a port below 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Of streams, or else of datagrams.
    pub stream: bool,
    /// Where.
    pub at: SocketAddr,
    /// `SO_REUSEADDR`.
    pub reuse: bool,
    /// `SO_REUSEPORT`.
    pub reuseport: bool,
    /// `IPV6_V6ONLY`.
    pub only_v6: bool,
}

/// Every later message to netd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToNetd {
    /// Tell what was counted. Answered by [`FromNetd::Counters`].
    Count,
    /// What came of a [`FromNetd::Bind`]: with it comes the socket, unless there was an error. No answer.
    Bound {
        /// The number that was said.
        number: u32,
        /// A number of an error; 0: none.
        error: i32,
    },
    /// End. No answer but the channel's end.
    Stop,
}

/// What a netd has counted since it began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Names and numbers.
    pub counters: Vec<(String, u64)>,
    /// What each rule was found to fit, in their order; then both defaults.
    pub rules: Vec<(String, u64)>,
    /// What went through each interface.
    pub interfaces: Vec<InterfaceCounts>,
}

/// What went through an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct InterfaceCounts {
    pub name: String,
    pub received_packets: u64,
    pub received_bytes: u64,
    pub received_lost: u64,
    pub sent_packets: u64,
    pub sent_bytes: u64,
    pub sent_lost: u64,
}

/// Everything netd says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromNetd {
    /// The walls are up and packets are taken.
    Ready,
    /// It cannot go on.
    Failed {
        /// Why.
        message: String,
    },
    /// A socket in a place that it may not take itself is needed; or one that is connected to [`NAMES`], where there are packet devices. Answered by
    /// [`ToNetd::Bound`].
    Bind {
        /// For the answer.
        number: u32,
        /// The place.
        place: Place,
    },
    /// What was counted.
    Counters(Box<Counts>),
    /// A line for the log.
    Log(LogLine),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        let (ip, prefix) = text.split_once('/').unwrap();
        Address { ip: ip.parse().unwrap(), prefix: prefix.parse().unwrap() }
    }

    #[test]
    fn the_longest_prefix_leads_there() {
        let interface = |index, addresses: &[&str]| Interface {
            name: format!("eth{index}"),
            index,
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            addresses: addresses.iter().map(|a| address(a)).collect(),
        };
        let route = |to, via: Option<&str>, interface, metric| Route {
            to: address(to),
            via: via.map(|v| v.parse().unwrap()),
            interface,
            source: None,
            metric,
        };
        let network = Network {
            interfaces: vec![
                interface(2, &["10.0.0.5/24", "fe80::1/64", "fd00::5/64"]),
                interface(3, &["10.1.0.5/16"]),
            ],
            routes: vec![
                route("0.0.0.0/0", Some("10.1.0.1"), 3, 100),
                route("0.0.0.0/0", Some("10.0.0.1"), 2, 0),
                route("10.0.0.0/24", None, 2, 0),
                route("10.1.0.0/16", None, 3, 0),
                route("::/0", Some("fe80::99"), 2, 0),
            ],
            ..Network::default()
        };
        let way = |to: &str, by| {
            let to = to.parse().unwrap();
            let route = network.route(to, by)?;
            Some((route.interface, route.via, network.source(&route, to)))
        };
        let ip = |text: &str| Some(text.parse().unwrap());
        assert_eq!(way("10.0.0.9", None), Some((2, None, ip("10.0.0.5"))));
        assert_eq!(way("8.8.8.8", None), Some((2, ip("10.0.0.1"), ip("10.0.0.5"))));
        assert_eq!(way("8.8.8.8", Some(3)), Some((3, ip("10.1.0.1"), ip("10.1.0.5"))));
        assert_eq!(way("2001:db8::1", None), Some((2, ip("fe80::99"), ip("fd00::5"))));
        assert_eq!(way("fe80::2", Some(2)), Some((2, ip("fe80::99"), ip("fe80::1"))));
        assert_eq!(way("2001:db8::1", Some(3)).map(|w| w.2), Some(None));
        assert!(network.has("10.1.0.5".parse().unwrap()) && !network.has("10.1.0.6".parse().unwrap()));
        assert!(network.is_broadcast("10.1.255.255".parse().unwrap()));
        assert_eq!(address("10.0.0.1/32").broadcast(), None);
        assert!(address("0.0.0.0/0").contains("1.2.3.4".parse().unwrap()));
        assert_eq!(address("10.1.2.3/16").network(), address("10.1.0.0/16"));
        assert_eq!(address("fd00::1:2/64").network(), address("fd00::/64"));
        assert_eq!(address("10.1.2.3/0").network(), address("0.0.0.0/0"));
        let user = Network::user(true);
        let to = "93.184.216.34".parse().unwrap();
        let route = user.route(to, None).unwrap();
        assert_eq!((route.via, user.source(&route, to)), (Some(ROUTER.into()), Some(INSIDE.into())));
        assert!(Network::user(false).route(ROUTER6.into(), None).is_none());
    }
}
