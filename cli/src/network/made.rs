//! A network that is made for one command (`do --network sandbox`): a namespace with an interface, whose other end is the host's, and a way out.
//!
//! Owns what it is made of, all of which the host's kernel takes away with descriptors of this process, however it ends: the pair of interfaces
//! goes with the namespace, the rules with the socket that made them (`firewall`). Settings of the host that are not of its own device it must
//! never touch: whether the host forwards is the operator's to say. Called by `network`.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use cofferdam_control::netd::{Address, Published, Route};
use cofferdam_netlink::route::address::AddressMessage;
use cofferdam_netlink::route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use cofferdam_netlink::route::route::RouteMessage;
use cofferdam_netlink::route::{AddressFamily, RouteNetlinkMessage};
use cofferdam_netlink::{Netlink, address_message, own_address, read_route, route_message};
use rustix::thread::UnshareFlags;

use super::firewall::{self, Rules};
use crate::failure::Failure;

/// Where networks of four addresses are taken from, one after the other.
const POOLS: [Address; 3] = [
    Address { ip: IpAddr::V4(Ipv4Addr::new(192, 168, 240, 0)), prefix: 20 },
    Address { ip: IpAddr::V4(Ipv4Addr::new(172, 30, 0, 0)), prefix: 16 },
    Address { ip: IpAddr::V4(Ipv4Addr::new(10, 240, 0, 0)), prefix: 12 },
];
/// Bits of such a network, in both families.
const BITS: u8 = 30;
const BITS6: u8 = 126;
/// How often another network is tried where somebody else took the same at the same time.
const TRIES: usize = 8;
/// What the sandbox calls its interface.
const INSIDE: &str = "eth0";

/// A published port: at which address of the host's (`None`: at each), which there, which inside.
pub type Port = (Option<IpAddr>, u16, Published);

/// The network.
#[derive(Debug)]
pub struct Made {
    namespace: OwnedFd,
    host: Netlink,
    /// The number of the host's end.
    device: u32,
    /// The rules are there as long as it is.
    _rules: Option<Netlink>,
    /// What it lacks.
    pub warnings: Vec<String>,
}

impl Drop for Made {
    /// At once, where it ends by itself: the namespace may take its time.
    fn drop(&mut self) {
        let _ = self.host.change(RouteNetlinkMessage::DelLink(numbered(self.device)));
    }
}

impl Made {
    /// Makes one. `avoid`: addresses that must not be its own; `six`: IPv6 leads somewhere.
    pub fn new(ports: &[Port], avoid: &[IpAddr], six: bool) -> Result<Self, Failure> {
        if !rustix::process::geteuid().is_root() {
            let why = "--network sandbox: only for root, who may make interfaces; --network user needs no right";
            return Err(Failure::Usage(why.into()));
        }
        let failed =
            |what: &'static str| move |e| Failure::Host { what: format!("--network sandbox: {what}"), source: e };
        let (namespace, mut inside) = namespace().map_err(failed("a network namespace"))?;
        let mut host = Netlink::open().map_err(failed("netlink"))?;
        // IPv6 is forwarded everywhere or nowhere.
        let six = six && says("/proc/sys/net/ipv6/conf/all/forwarding", "1");
        let mut taken = taken(&mut host).map_err(failed("what the host's networks are"))?;
        taken.extend(avoid.iter().map(|ip| whole(*ip)));
        let name = format!("cfd{:08x}", chance(0) as u32);
        let mtu = mtu(&mut host).map_err(failed("the host's interfaces"))?;
        let pair = pair(&name, mtu, namespace.as_fd());
        host.create(RouteNetlinkMessage::NewLink(pair)).map_err(failed("a pair of interfaces"))?;
        let device = number(&mut host, &name).map_err(failed("the host's end of the pair"))?;
        let mut made = Self { namespace, host, device, _rules: None, warnings: Vec::new() };

        settle(&name, six);
        let ends = made.join(&mut inside, taken, six).map_err(failed("addresses"))?;
        let addresses: Vec<IpAddr> = ends.iter().map(|(_, inside)| inside.ip).collect();
        let rules = Rules { name: &format!("cofferdam-{name}"), device, inside: &addresses, published: ports };
        let setting = |what: &str| format!("/proc/sys/net/ipv4/conf/{name}/{what}");
        match firewall::raise(&rules) {
            Ok(rules) => {
                made._rules = Some(rules);
                // What is published is so at the host's loopback addresses, too. What comes from the sandbox goes to none of them: the rules say so.
                std::fs::write(setting("route_localnet"), "1").map_err(failed("route_localnet of its device"))?;
                let _ = std::fs::write(setting("forwarding"), "1");
                if !says("/proc/sys/net/ipv4/ip_forward", "1") {
                    let how = "`sysctl net.ipv4.ip_forward=1` has it forward packets";
                    made.warnings.push(format!("--network sandbox: reaches this host only: {how}"));
                }
            }
            Err(e) if !ports.is_empty() => return Err(failed("--publish takes rules of nftables")(e)),
            Err(e) => {
                let _ = std::fs::write(setting("forwarding"), "0");
                made.warnings.push(format!(
                    "--network sandbox: reaches this host only: no rules of nftables can be made ({e}; Linux 5.12 has what they need)"
                ));
            }
        }
        Ok(made)
    }

    /// The namespace.
    pub fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// Gives both ends addresses that nobody has, and the inner one its routes. The addresses: of the host's end, and inside.
    fn join(
        &mut self,
        inside: &mut Netlink,
        mut taken: Vec<Address>,
        six: bool,
    ) -> io::Result<Vec<(Address, Address)>> {
        let four = self.settle_four(&mut taken)?;
        let own = six.then(|| {
            // Of those that are for everybody to choose from by chance (RFC 4193).
            let network = 0xfd << 120 | u128::from(chance(6) >> 8) << 64;
            let end = |n: u128| Address { ip: Ipv6Addr::from_bits(network | n).into(), prefix: BITS6 };
            (end(1), end(2))
        });
        let ends: Vec<_> = [Some(four), own].into_iter().flatten().collect();
        if let Some((host, _)) = own {
            self.host.create(RouteNetlinkMessage::NewAddress(address_message(self.device, &host)))?;
        }
        self.host.change(RouteNetlinkMessage::SetLink(up(self.device)))?;
        let device = number(inside, INSIDE)?;
        for (_, own) in &ends {
            inside.create(RouteNetlinkMessage::NewAddress(address_message(device, own)))?;
        }
        inside.change(RouteNetlinkMessage::SetLink(up(device)))?;
        for (host, _) in &ends {
            let any = if host.ip.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
            let to = Address { ip: any, prefix: 0 };
            let route = Route { to, via: Some(host.ip), interface: device, source: None, metric: 0 };
            inside.create(RouteNetlinkMessage::NewRoute(route_message(&route)))?;
        }
        Ok(ends)
    }

    /// The same of IPv4, for the host's end. Whoever chooses at the same moment sees the other, and both choose anew.
    fn settle_four(&mut self, taken: &mut Vec<Address>) -> io::Result<(Address, Address)> {
        for _ in 0..TRIES {
            let Some(network) = free(taken, chance(4)) else { break };
            let end = |n: u32| Address { ip: Ipv4Addr::from_bits(network.saturating_add(n)).into(), prefix: BITS };
            let (host, inside) = (end(1), end(2));
            let message = address_message(self.device, &host);
            self.host.create(RouteNetlinkMessage::NewAddress(message.clone()))?;
            let others = addresses(&mut self.host)?.into_iter().filter(|(index, _)| *index != self.device);
            let others: Vec<Address> = others.map(|(_, a)| a).collect();
            if !others.iter().any(|a| meets(a, &host)) {
                return Ok((host, inside));
            }
            self.host.change(RouteNetlinkMessage::DelAddress(message))?;
            taken.extend(others);
        }
        Err(io::Error::other("no private network is free (192.168.240.0/20, 172.30.0.0/16, 10.240.0.0/12)"))
    }
}

/// A number that nobody can foresee.
fn chance(n: u64) -> u64 {
    RandomState::new().hash_one(n)
}

fn says(path: &str, what: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.trim() == what)
}

/// A new network namespace, and a socket to the kernel of it.
fn namespace() -> io::Result<(OwnedFd, Netlink)> {
    let make = || {
        unshare()?;
        // What it calls itself within the link it has at once. A host without IPv6 has no such setting.
        let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0");
        Ok((File::open("/proc/thread-self/ns/net")?.into(), Netlink::open()?))
    };
    // A thread of its own goes there, and ends.
    std::thread::spawn(make).join().unwrap_or_else(|_| Err(io::Error::other("its thread ended")))
}

#[allow(deprecated, reason = "its successor is `unsafe fn`, and this crate has no unsafe code")]
fn unshare() -> io::Result<()> {
    Ok(rustix::thread::unshare(UnshareFlags::NEWNET)?)
}

/// Settings of the host's end: it believes nothing that comes from within of ways and addresses.
fn settle(name: &str, six: bool) {
    let set = |file: &str, value: &str| {
        // A host without IPv6 has none of them.
        let _ = std::fs::write(format!("/proc/sys/net/{}", file.replace('*', name)), value);
    };
    set("ipv6/conf/*/accept_ra", "0");
    set("ipv6/conf/*/accept_redirects", "0");
    set("ipv6/conf/*/disable_ipv6", if six { "0" } else { "1" });
    set("ipv4/conf/*/accept_redirects", "0");
}

fn numbered(device: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = device;
    message
}

fn up(device: u32) -> LinkMessage {
    let mut message = numbered(device);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

/// Two interfaces that are joined, the one of them in a namespace.
fn pair(name: &str, mtu: u32, namespace: BorrowedFd<'_>) -> LinkMessage {
    let mut inner = LinkMessage::default();
    inner.attributes.push(LinkAttribute::IfName(INSIDE.into()));
    inner.attributes.push(LinkAttribute::Mtu(mtu));
    inner.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.into()));
    message.attributes.push(LinkAttribute::Mtu(mtu));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(inner))),
    ]));
    message
}

fn links(netlink: &mut Netlink) -> io::Result<Vec<LinkMessage>> {
    let all = netlink.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    Ok(all.into_iter().filter_map(|m| if let RouteNetlinkMessage::NewLink(l) = m { Some(l) } else { None }).collect())
}

/// The number of an interface.
fn number(netlink: &mut Netlink, name: &str) -> io::Result<u32> {
    let is = |l: &&LinkMessage| l.attributes.iter().any(|a| matches!(a, LinkAttribute::IfName(n) if n == name));
    let found = links(netlink)?.iter().find(is).map(|l| l.header.index);
    found.ok_or_else(|| io::Error::other(format!("there is no {name}")))
}

/// Addresses of the host's, each with the number of its interface.
fn addresses(netlink: &mut Netlink) -> io::Result<Vec<(u32, Address)>> {
    let all = netlink.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let address = |m| {
        let RouteNetlinkMessage::NewAddress(a) = m else { return None };
        Some((a.header.index, Address { ip: own_address(&a)?, prefix: a.header.prefix_len }))
    };
    Ok(all.into_iter().filter_map(address).collect())
}

/// Routes of IPv4 that the host has, of all its tables.
fn routes(netlink: &mut Netlink) -> io::Result<Vec<Route>> {
    let mut ask = RouteMessage::default();
    ask.header.address_family = AddressFamily::Inet;
    let all = netlink.dump(RouteNetlinkMessage::GetRoute(ask))?;
    Ok(all.iter().filter_map(|m| if let RouteNetlinkMessage::NewRoute(r) = m { read_route(r) } else { None }).collect())
}

/// What is the host's already, or known to it.
fn taken(netlink: &mut Netlink) -> io::Result<Vec<Address>> {
    let mut all: Vec<Address> = addresses(netlink)?.into_iter().map(|(_, a)| a).collect();
    for route in routes(netlink)? {
        all.extend(route.via.map(whole));
        all.push(route.to);
    }
    // What leads everywhere leads to nothing in particular.
    all.retain(|a| a.prefix > 1);
    Ok(all)
}

/// The longest packet of the interface that leads out.
fn mtu(netlink: &mut Netlink) -> io::Result<u32> {
    let out = routes(netlink)?.into_iter().filter(|r| r.to.prefix == 0).min_by_key(|r| r.metric);
    let link = links(netlink)?.into_iter().find(|l| out.is_some_and(|r| r.interface == l.header.index));
    let mtu = link
        .and_then(|l| l.attributes.iter().find_map(|a| if let LinkAttribute::Mtu(n) = a { Some(*n) } else { None }));
    Ok(mtu.unwrap_or(1500).clamp(1280, 65_535))
}

fn whole(ip: IpAddr) -> Address {
    Address { ip, prefix: if ip.is_ipv4() { 32 } else { 128 } }
}

/// Whether two networks have an address in common.
fn meets(one: &Address, other: &Address) -> bool {
    one.contains(other.ip) || other.contains(one.ip)
}

/// A network of four addresses that meets none of those; the one that chance has, or the next.
fn free(taken: &[Address], chance: u64) -> Option<u32> {
    POOLS.iter().find_map(|pool| {
        let IpAddr::V4(first) = pool.ip else { return None };
        let size = 1u32.checked_shl(u32::from(BITS.checked_sub(pool.prefix)?))?;
        let start = u32::try_from(chance % u64::from(size)).ok()?;
        let near: Vec<&Address> = taken.iter().filter(|a| meets(a, pool)).collect();
        let network = |n: u32| first.to_bits() | ((start.wrapping_add(n) % size) << 2);
        let is_free = |bits: &u32| {
            let own = Address { ip: Ipv4Addr::from_bits(*bits).into(), prefix: BITS };
            !near.iter().any(|a| meets(a, &own))
        };
        (0..size).map(network).find(is_free)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        let (ip, prefix) = text.split_once('/').unwrap();
        Address { ip: ip.parse().unwrap(), prefix: prefix.parse().unwrap() }
    }

    #[test]
    fn a_network_that_meets_no_other_is_taken() {
        let at = |taken: &[&str], chance| {
            let taken: Vec<_> = taken.iter().map(|a| address(a)).collect();
            free(&taken, chance).map(|bits| Ipv4Addr::from_bits(bits).to_string())
        };
        let is = |text: &str| Some(text.to_owned());
        assert_eq!(at(&[], 0), is("192.168.240.0"));
        assert_eq!(at(&["127.0.0.1/8", "fd00::1/8"], 1025), is("192.168.240.4"));
        assert_eq!(at(&["192.168.240.5/32", "192.168.240.8/29"], 1), is("192.168.240.16"));
        assert_eq!(at(&["192.168.255.0/24"], 1023), is("192.168.240.0"));
        assert_eq!(at(&["192.168.0.1/16"], 3), is("172.30.0.12"));
        assert_eq!(at(&["192.168.0.1/16", "172.16.0.0/12"], 0), is("10.240.0.0"));
        assert_eq!(at(&["192.168.0.1/16", "172.16.0.0/12", "10.0.0.0/8"], 0), None);
    }
}
