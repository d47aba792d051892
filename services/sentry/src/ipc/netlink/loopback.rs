//! The loopback device of a network namespace: whether it is up, and its addresses, which are those that the namespace has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use cofferdam_control::netd::Interface;

use crate::errno::Errno;
use crate::namespaces::NetNamespace;
use crate::sync::Mutex;
use crate::syscalls::{SysResult, UserPtr, done};
use crate::task::Task;
use crate::task::creds::cap;

/// Its number, the first of a namespace.
pub const INDEX: u32 = 1;
/// Its name.
pub const NAME: &[u8] = b"lo";
/// Largest packet, bytes.
pub const MTU: u32 = 65536;
/// Addresses there may be: memory of the Sentry. ENOBUFS.
const ADDRESSES: usize = 1024;
/// `IFF_UP`.
pub const UP: u32 = 1;
/// `IFA_F_PERMANENT`.
pub const PERMANENT: u32 = 0x80;
const LOOPBACK: u32 = 8;
const RUNNING: u32 = 0x40;
const LOWER_UP: u32 = 0x1_0000;
/// `IFF_*` of an interface of netd's: up, as its link is, with broadcast and multicast.
pub const INTERFACE_FLAGS: u32 = UP | 2 | RUNNING | 0x1000 | LOWER_UP;

/// An address (`struct ifaddrmsg` and its attributes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Address {
    pub local: [u8; 4],
    pub address: [u8; 4],
    pub broadcast: Option<[u8; 4]>,
    pub prefix: u8,
    pub scope: u8,
    pub flags: u32,
    /// The name that older requests know it by: the device's, or one with a colon.
    pub label: Label,
}

/// A name of an address, up to its NUL.
pub type Label = [u8; 16];

/// A label, cut off where it is longer than any.
pub fn label(name: &[u8]) -> Label {
    let mut label = [0; 16];
    label.iter_mut().zip(name.iter().take(15)).for_each(|(to, b)| *to = *b);
    label
}

impl Address {
    /// Its label's text.
    pub fn name(&self) -> &[u8] {
        self.label.split(|b| *b == 0).next().unwrap_or_default()
    }

    fn subnet(&self) -> u32 {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        u32::from_be_bytes(self.address) & mask
    }

    fn covers(&self, ip: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        u32::from(ip) & mask == self.subnet()
    }

    fn beside(&self, other: &Self) -> bool {
        self.prefix == other.prefix && self.subnet() == other.subnet()
    }
}

#[derive(Debug, Default)]
struct State {
    up: bool,
    /// It was up before, and has kept its way of queueing.
    used: bool,
    /// Largest packet, if it was given another.
    mtu: Option<u32>,
    addresses: Vec<Address>,
}

/// The device.
#[derive(Debug, Default)]
pub struct Loopback(Mutex<State>, AtomicI64);

impl Loopback {
    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.0.lock().up
    }

    /// Whether it was up at any time: there is no table of addresses before.
    pub fn was_up(&self) -> bool {
        self.0.lock().used
    }

    /// `net.ipv6.conf.all.disable_ipv6`: it has no address of IPv6.
    pub fn without_ipv6(&self) -> &AtomicI64 {
        &self.1
    }

    /// Whether it has the address of IPv6.
    pub fn has_six(&self) -> bool {
        self.is_up() && self.1.load(Ordering::Relaxed) == 0
    }

    /// Bytes of its largest packet.
    pub fn mtu(&self) -> u32 {
        self.0.lock().mtu.unwrap_or(MTU)
    }

    /// Takes it up or down. The first that it gets, unless it was given another, is the address that all know.
    pub fn set_up(&self, up: bool) {
        const HOST: u8 = 254;
        let mut s = self.0.lock();
        if up && !s.up && s.addresses.is_empty() {
            let local = [127, 0, 0, 1];
            s.addresses.push(Address {
                local,
                address: local,
                broadcast: None,
                prefix: 8,
                scope: HOST,
                flags: PERMANENT,
                label: label(NAME),
            });
        }
        s.up = up;
        s.used |= up;
    }

    /// Its way of queueing.
    pub fn queueing(&self) -> &'static [u8] {
        if self.0.lock().used { b"noqueue\0" } else { b"noop\0" }
    }

    /// `IFF_*`, as links show them.
    pub fn flags(&self) -> u32 {
        LOOPBACK | if self.is_up() { UP | RUNNING | LOWER_UP } else { 0 }
    }

    /// Its addresses.
    pub fn addresses(&self) -> Vec<Address> {
        self.0.lock().addresses.clone()
    }

    /// Whether the namespace has the address: all of a loopback device's networks are its own.
    pub fn has(&self, ip: IpAddr) -> bool {
        self.source(ip).is_some()
    }

    /// Whether it is the last address of one of the networks.
    pub fn is_broadcast(&self, ip: Ipv4Addr) -> bool {
        let last = |a: &Address| u32::MAX.checked_shr(u32::from(a.prefix)).unwrap_or(0) | a.subnet();
        self.0.lock().addresses.iter().any(|a| a.prefix < 31 && u32::from(ip) == last(a))
    }

    /// The address that something for there, which must be the namespace's own, comes from. Those of IPv4 stay while it is down.
    pub fn source(&self, to: IpAddr) -> Option<IpAddr> {
        if to.is_ipv6() && !self.has_six() {
            return None;
        }
        let s = self.0.lock();
        if !s.used {
            return None;
        }
        match to {
            IpAddr::V4(ip) => {
                let local = |a: &Address| IpAddr::V4(Ipv4Addr::from(a.local));
                let exact = s.addresses.iter().find(|a| Ipv4Addr::from(a.local) == ip);
                exact.or_else(|| s.addresses.iter().find(|a| a.covers(ip))).map(local)
            }
            IpAddr::V6(ip) => (ip == Ipv6Addr::LOCALHOST).then_some(to),
        }
    }

    /// Adds one. EEXIST, ENOBUFS.
    pub fn add(&self, mut new: Address, replace: bool) -> Result<(), Errno> {
        const SECONDARY: u32 = 1;
        let mut s = self.0.lock();
        if let Some(old) = s.addresses.iter_mut().find(|a| a.local == new.local && a.beside(&new)) {
            if !replace {
                return Err(Errno::EEXIST);
            }
            old.flags = new.flags & !SECONDARY | old.flags & SECONDARY;
            return Ok(());
        }
        if s.addresses.len() >= ADDRESSES {
            return Err(Errno::ENOBUFS);
        }
        let second = s.addresses.iter().any(|a| a.beside(&new));
        new.flags = new.flags & !SECONDARY | if second { SECONDARY } else { 0 };
        // Those that are the first of their kind come before the others.
        let firsts = s.addresses.iter().take_while(|a| a.flags & SECONDARY == 0).count();
        let at = if second { s.addresses.len() } else { firsts };
        s.addresses.insert(at, new);
        Ok(())
    }

    /// `SIOCSIFADDR`: gives a label an address, `struct sockaddr_in`, of the network of its class. EINVAL, ENOBUFS.
    fn set(&self, label: Label, raw: &[u8]) -> Result<(), Errno> {
        const HOST: u8 = 254;
        const AF_INET: u16 = 2;
        let family = raw.first_chunk().map(|b| u16::from_ne_bytes(*b));
        let local = raw.get(4..).and_then(<[u8]>::first_chunk::<4>).copied().ok_or(Errno::EINVAL)?;
        let ip = Ipv4Addr::from(local);
        if family != Some(AF_INET) || ip.is_multicast() {
            return Err(Errno::EINVAL);
        }
        let prefix = match local[0] {
            0 => 0,
            1..128 => 8,
            128..192 => 16,
            192..224 => 24,
            _ => 32,
        };
        let labelled = |a: &Address| a.label == label;
        if self.addresses().iter().any(|a| labelled(a) && a.local == local) {
            return Ok(());
        }
        // There may be none yet.
        let _ = self.remove(labelled);
        if ip.is_unspecified() {
            return Ok(());
        }
        let scope = if ip.is_loopback() { HOST } else { 0 };
        self.add(Address { local, address: local, broadcast: None, prefix, scope, flags: PERMANENT, label }, false)
    }

    /// Takes the first away that `is` says so of. EADDRNOTAVAIL.
    pub fn remove(&self, is: impl Fn(&Address) -> bool) -> Result<(), Errno> {
        let mut s = self.0.lock();
        let at = s.addresses.iter().position(is).ok_or(Errno::EADDRNOTAVAIL)?;
        s.addresses.remove(at);
        Ok(())
    }
}

/// Requests of `netdevice(7)` that ask, and those that take the device up or down; which any socket takes but for those about
/// addresses, which are for IPv4's (`four`). ENOTTY for what is none of them.
pub fn ioctl(task: &Arc<Task>, request: u32, argument: u64, four: bool) -> SysResult {
    use request::{
        ADDR, BRDADDR, CONF, DSTADDR, FLAGS, HWADDR, IFINDEX, MAP, METRIC, MTU_OF, NAME_OF, NETMASK, SET_ADDR,
        SET_FLAGS, SET_MTU, TXQLEN,
    };
    const IFREQ: usize = 40;
    /// `ARPHRD_LOOPBACK`.
    const KIND: u16 = 772;
    let of_addresses = [ADDR, SET_ADDR, DSTADDR, BRDADDR, NETMASK].contains(&request);
    let known = [NAME_OF, FLAGS, SET_FLAGS, METRIC, MTU_OF, SET_MTU, HWADDR, IFINDEX, MAP, TXQLEN].contains(&request);
    let net = task.namespaces().net.clone();
    if request == CONF {
        return list(task, argument, &net);
    }
    if request == request::ETHTOOL {
        return ethtool(task, argument, &net);
    }
    if !(known || four && of_addresses) {
        return Err(Errno::ENOTTY);
    }
    let at = UserPtr::<u8>::new(argument);
    let mut ifreq = at.read_array(task, IFREQ, IFREQ)?;
    let (name, value) = ifreq.split_at_mut_checked(16).ok_or(Errno::EFAULT)?;
    let mut put = |bytes: &[u8]| value.iter_mut().zip(bytes).for_each(|(to, b)| *to = *b);
    if request == NAME_OF {
        let index = value.first_chunk().map_or(0, |b| u32::from_ne_bytes(*b));
        let found = match index {
            INDEX => NAME,
            index => net
                .outside()
                .and_then(|o| o.network.interface(index))
                .map(|i| i.name.as_bytes())
                .ok_or(Errno::ENODEV)?,
        };
        name.fill(0);
        name.iter_mut().zip(found).take(15).for_each(|(to, b)| *to = *b);
        at.write_array(task, &ifreq)?;
        return done();
    }
    let changes = [SET_FLAGS, SET_MTU, SET_ADDR].contains(&request);
    if changes && !task.creds().capable_in(&net.base.owner, cap::NET_ADMIN) {
        return Err(Errno::EPERM);
    }
    // Behind a colon stands which of its addresses is meant.
    let alias = name.split(|b| *b == 0).next().unwrap_or_default();
    if alias.split(|b| *b == b':').next() != Some(NAME) {
        let other = net.outside().and_then(|o| o.named(alias)).ok_or(Errno::ENODEV)?;
        put(&of_interface(other, request)?);
        at.write_array(task, &ifreq)?;
        return done();
    }
    let first = net.loopback.addresses().iter().find(|a| a.name() == alias).copied();
    let address = |ip: [u8; 4]| [&2u16.to_ne_bytes()[..], &[0; 2], &ip, &[0; 8]].concat();
    match request {
        // There are sixteen bits of them here.
        FLAGS => put(&(net.loopback.flags() as u16).to_ne_bytes()),
        SET_FLAGS => {
            let flags = value.first_chunk().map_or(0, |b| u16::from_ne_bytes(*b));
            if alias != NAME {
                let a = first.ok_or(Errno::EADDRNOTAVAIL)?;
                if u32::from(flags) & UP == 0 {
                    net.loopback.remove(|other| *other == a)?;
                }
                return done();
            }
            net.loopback.set_up(u32::from(flags) & UP != 0);
            return done();
        }
        SET_MTU => {
            let mtu = value.first_chunk().map_or(-1, |b| i32::from_ne_bytes(*b));
            net.loopback.0.lock().mtu = Some(u32::try_from(mtu).map_err(|_| Errno::EINVAL)?);
            return done();
        }
        SET_ADDR => {
            net.loopback.set(label(alias), value)?;
            return done();
        }
        METRIC => put(&[0; 4]),
        MAP => put(&[0; 24]),
        MTU_OF => put(&net.loopback.mtu().to_ne_bytes()),
        HWADDR => put(&[&KIND.to_ne_bytes()[..], &[0; 14]].concat()),
        TXQLEN => put(&1000u32.to_ne_bytes()),
        IFINDEX => put(&INDEX.to_ne_bytes()),
        _ => {
            let a = first.ok_or(Errno::EADDRNOTAVAIL)?;
            put(&address(match request {
                NETMASK => u32::MAX.checked_shl(32 - u32::from(a.prefix)).unwrap_or(0).to_be_bytes(),
                DSTADDR => a.address,
                BRDADDR => a.broadcast.unwrap_or_default(),
                _ => a.local,
            }));
        }
    }
    at.write_array(task, &ifreq)?;
    done()
}

/// `SIOCETHTOOL`: whether there is a link, and which times of packets are taken. ENODEV; EOPNOTSUPP for all else.
fn ethtool(task: &Arc<Task>, argument: u64, net: &NetNamespace) -> SysResult {
    const GLINK: u32 = 0xa;
    const GET_TS_INFO: u32 = 0x41;
    /// Taken by software, as what is sent leaves and what comes in comes.
    const SOFTWARE: u32 = 2 | 8 | 0x10;
    let ifreq = UserPtr::<u8>::new(argument).read_array(task, 24, 24)?;
    let (name, data) = ifreq.split_first_chunk::<16>().ok_or(Errno::EFAULT)?;
    let name = name.split(|b| *b == 0).next().unwrap_or_default();
    let up = match name {
        NAME => net.loopback.is_up(),
        name => net.outside().and_then(|o| o.named(name)).map(|_| true).ok_or(Errno::ENODEV)?,
    };
    let at = data.first_chunk().map_or(0, |b| u64::from_ne_bytes(*b));
    let what = UserPtr::<u32>::new(at).read(task)?;
    match what {
        GLINK => UserPtr::<[u32; 2]>::new(at).write(task, &[what, u32::from(up)])?,
        // `struct ethtool_ts_info`: no clock of hardware, and no filters.
        GET_TS_INFO => {
            UserPtr::<[u32; 11]>::new(at).write(task, &[what, SOFTWARE, u32::MAX, 0, 0, 0, 0, 0, 0, 0, 0])?
        }
        _ => return Err(Errno::EOPNOTSUPP),
    }
    done()
}

/// What a request asks of an interface of netd's. EOPNOTSUPP for what would change it, EADDRNOTAVAIL without an address of IPv4.
fn of_interface(i: &Interface, request: u32) -> Result<Vec<u8>, Errno> {
    use request::{
        ADDR, BRDADDR, DSTADDR, FLAGS, HWADDR, IFINDEX, MAP, METRIC, MTU_OF, NETMASK, SET_ADDR, SET_FLAGS, SET_MTU,
        TXQLEN,
    };
    const ETHER: u16 = 1;
    let address = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => [&2u16.to_ne_bytes()[..], &[0; 2], &ip.octets(), &[0; 8]].concat(),
        IpAddr::V6(_) => vec![0; 16],
    };
    let own = || i.addresses.iter().find(|a| a.ip.is_ipv4()).ok_or(Errno::EADDRNOTAVAIL);
    Ok(match request {
        SET_ADDR | SET_FLAGS | SET_MTU => return Err(Errno::EOPNOTSUPP),
        FLAGS => (INTERFACE_FLAGS as u16).to_ne_bytes().to_vec(),
        METRIC => vec![0; 4],
        MAP => vec![0; 24],
        MTU_OF => i.mtu.to_ne_bytes().to_vec(),
        HWADDR => [&ETHER.to_ne_bytes()[..], &i.mac, &[0; 8]].concat(),
        TXQLEN => 1000u32.to_ne_bytes().to_vec(),
        IFINDEX => i.index.to_ne_bytes().to_vec(),
        NETMASK => {
            let mask = u32::MAX.checked_shl(32u32.saturating_sub(own()?.prefix.into())).unwrap_or(0);
            address(Ipv4Addr::from(mask).into())
        }
        BRDADDR => address(own()?.broadcast().unwrap_or(Ipv4Addr::UNSPECIFIED.into())),
        ADDR | DSTADDR => address(own()?.ip),
        _ => return Err(Errno::ENOTTY),
    })
}

/// Numbers of requests (`SIOCGIFNAME` and its kin).
mod request {
    pub const NAME_OF: u32 = 0x8910;
    pub const CONF: u32 = 0x8912;
    pub const FLAGS: u32 = 0x8913;
    pub const SET_FLAGS: u32 = 0x8914;
    pub const ADDR: u32 = 0x8915;
    pub const SET_ADDR: u32 = 0x8916;
    pub const DSTADDR: u32 = 0x8917;
    pub const BRDADDR: u32 = 0x8919;
    pub const NETMASK: u32 = 0x891b;
    pub const METRIC: u32 = 0x891d;
    pub const MTU_OF: u32 = 0x8921;
    pub const SET_MTU: u32 = 0x8922;
    pub const HWADDR: u32 = 0x8927;
    pub const IFINDEX: u32 = 0x8933;
    pub const TXQLEN: u32 = 0x8942;
    pub const MAP: u32 = 0x8970;
    pub const ETHTOOL: u32 = 0x8946;
}

/// `SIOCGIFCONF`: the IPv4 addresses that devices have, as many as there is room for.
fn list(task: &Arc<Task>, argument: u64, net: &NetNamespace) -> SysResult {
    const IFREQ: usize = 40;
    let conf = UserPtr::<[u64; 2]>::new(argument);
    let [len, to] = conf.read(task)?;
    let room = i32::try_from(len & u64::from(u32::MAX)).map_err(|_| Errno::EINVAL)?;
    let own = net.loopback.addresses();
    let mut all: Vec<(&[u8], [u8; 4])> = own.iter().map(|a| (a.name(), a.local)).collect();
    for i in net.outside().into_iter().flat_map(|o| &o.network.interfaces) {
        let four = |ip| if let IpAddr::V4(ip) = ip { Some(ip.octets()) } else { None };
        all.extend(i.addresses.iter().filter_map(|a| Some((i.name.as_bytes(), four(a.ip)?))));
    }
    let fit = if to == 0 { all.len() } else { usize::try_from(room).unwrap_or(0) / IFREQ };
    let mut raw = Vec::new();
    for a in all.iter().take(fit) {
        let begin = raw.len();
        raw.extend(a.0.iter().take(15));
        raw.resize(begin + 16, 0);
        raw.extend_from_slice(&2u16.to_ne_bytes());
        raw.extend_from_slice(&[0; 2]);
        raw.extend_from_slice(&a.1);
        raw.resize(begin + IFREQ, 0);
    }
    if to != 0 {
        task.write_exact(to, &raw)?;
    }
    conf.cast::<i32>().write(task, &i32::try_from(raw.len()).unwrap_or(i32::MAX))?;
    done()
}
