//! `network_namespaces(7)`: a loopback device, addresses, ports, and settings of its own.
//!
//! Owns what of the network is one namespace's. Never here: what sockets do with it (`ipc::inet`, `ipc::netlink`). The
//! sandbox's first one has what the engine gave it, by netd (`net::Outside`); others have their loopback device alone.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use cofferdam_control::netd::NAMES;

use super::Base;
use crate::ipc::inet::groups::Groups;
use crate::ipc::inet::limit::{Limit, Rates};
use crate::ipc::inet::{Kind, ports};
use crate::ipc::netlink::{INDEX, Loopback, Ports};
use crate::ipc::packet::Taps;
use crate::net::Outside;
use crate::sync::Mutex;

/// A network namespace.
pub struct NetNamespace {
    /// Whose it is.
    pub base: Base,
    /// Its own device.
    pub loopback: Loopback,
    /// What it has beyond itself.
    outside: OnceLock<Arc<Outside>>,
    /// Its netlink sockets.
    pub ports: Ports,
    /// What `/proc/sys/net` says and sets.
    pub settings: Settings,
    tcp: Mutex<ports::Ports>,
    udp: Mutex<ports::Ports>,
    pings: Mutex<ports::Ports>,
    raws: Mutex<ports::Ports>,
    /// Raw sockets there are: while there is none, no copies are made for them.
    pub raw: AtomicUsize,
    /// Its packet sockets.
    pub taps: Taps,
    /// ICMP's errors that went elsewhere.
    pub icmp: Mutex<Limit>,
    /// What happened (`/proc/net/snmp`).
    pub counts: Counts,
    /// Groups that sockets joined.
    pub groups: Groups,
}

impl NetNamespace {
    /// One whose device is down.
    pub fn new(base: Base) -> Arc<Self> {
        Arc::new(Self {
            base,
            loopback: Loopback::default(),
            outside: OnceLock::new(),
            ports: Ports::default(),
            settings: Settings::default(),
            tcp: Mutex::default(),
            udp: Mutex::default(),
            pings: Mutex::default(),
            raws: Mutex::default(),
            raw: AtomicUsize::new(0),
            taps: Taps::default(),
            icmp: Mutex::default(),
            counts: Counts::default(),
            groups: Groups::default(),
        })
    }

    /// What it has beyond itself, if anything.
    pub fn outside(&self) -> Option<&Arc<Outside>> {
        self.outside.get()
    }

    /// Gives it something beyond itself, once.
    pub fn connect(&self, outside: Arc<Outside>) {
        // It is the supervisor's doing alone, and one order after the other.
        let _ = self.outside.set(outside);
    }

    /// Whether the address is one of its own.
    pub fn has(&self, ip: IpAddr) -> bool {
        let outside = self.outside();
        // Who answers for names is not the sandbox itself, though it seems so.
        let names = ip == NAMES && outside.as_ref().is_some_and(|o| o.network.names);
        !names && self.loopback.has(ip) || outside.is_some_and(|o| o.network.has(ip))
    }

    /// Whether all on one of its networks have the address.
    pub fn is_broadcast(&self, ip: IpAddr) -> bool {
        let own = |ip: Ipv4Addr| ip.is_broadcast() || self.loopback.is_broadcast(ip);
        matches!(ip, IpAddr::V4(ip) if own(ip)) || self.outside().is_some_and(|o| o.network.is_broadcast(ip))
    }

    /// The address that something for there comes from, by the device `by` or any (0). `None`: nothing leads there.
    pub fn source(&self, to: IpAddr, by: u32) -> Option<IpAddr> {
        if by <= INDEX
            && let Some(ip) = self.loopback.source(to)
        {
            return Some(ip);
        }
        let outside = self.outside()?;
        if outside.network.has(to) {
            return Some(to);
        }
        outside.route(to, Some(by).filter(|n| *n != 0)).map(|(_, source)| source)
    }

    /// Whether it has a device of that number.
    pub fn has_device(&self, index: u32) -> bool {
        index == INDEX || self.outside().is_some_and(|o| o.network.interface(index).is_some())
    }

    /// The ports of a protocol.
    pub fn ports(&self, of: Kind) -> &Mutex<ports::Ports> {
        match of {
            Kind::Tcp => &self.tcp,
            Kind::Udp => &self.udp,
            Kind::Ping(_) => &self.pings,
            Kind::Raw(_) => &self.raws,
        }
    }

    /// The device on which a group is joined where none is named. `None`: nothing leads there.
    pub fn device_for(&self, group: IpAddr) -> Option<u32> {
        let outside = self.outside()?;
        let by = outside.network.route(group, None).map(|r| r.interface);
        by.or_else(|| outside.network.interfaces.first().map(|i| i.index))
    }

    /// The device that has an address.
    pub fn device_of(&self, ip: IpAddr) -> u32 {
        let has = |outside: &Arc<Outside>| {
            let all = &outside.network.interfaces;
            all.iter().find(|i| i.addresses.iter().any(|a| a.ip == ip)).map(|i| i.index)
        };
        self.outside().and_then(has).unwrap_or(INDEX)
    }
}

/// What is counted of a namespace's sockets.
#[derive(Default)]
#[allow(missing_docs)]
pub struct Counts {
    pub active: AtomicU64,
    pub passive: AtomicU64,
    pub failed: AtomicU64,
    pub reset: AtomicU64,
    pub received: AtomicU64,
    pub sent: AtomicU64,
    pub no_port: AtomicU64,
    pub lost: AtomicU64,
}

/// One more.
pub fn count(of: &AtomicU64) {
    of.fetch_add(1, Ordering::Relaxed);
}

/// Settings of a namespace that something acts on.
pub struct Settings {
    /// `net.ipv4.ip_local_port_range`.
    pub first_port: AtomicI64,
    /// See `first_port`.
    pub last_port: AtomicI64,
    /// `net.ipv4.ip_unprivileged_port_start`.
    pub unprivileged: AtomicI64,
    /// `net.core.somaxconn`.
    pub backlog: AtomicI64,
    /// `net.ipv6.bindv6only`.
    pub only_v6: AtomicI64,
    /// `net.core.rmem_max`, `net.core.wmem_max`.
    pub buffers: [AtomicI64; 2],
    /// `net.ipv4.ping_group_range`, as the kernel's own numbers: groups that may have ping sockets.
    pub pingers: [AtomicI64; 2],
    /// `net.ipv4.icmp_echo_ignore_all`.
    pub silent: AtomicI64,
    /// `net.ipv4.ip_local_reserved_ports`: ranges, in order.
    pub reserved: Mutex<Vec<RangeInclusive<u16>>>,
    /// `net.ipv4.ip_nonlocal_bind`.
    pub nonlocal: AtomicI64,
    /// `net.ipv4.ip_default_ttl`.
    pub ttl: AtomicI64,
    /// `net.ipv4.tcp_keepalive_time`, `tcp_keepalive_intvl`, `tcp_keepalive_probes`.
    pub keepalive: [AtomicI64; 3],
    /// `net.ipv4.tcp_rmem`, `tcp_wmem`: least, first and most bytes of a buffer.
    pub tcp_buffers: [[AtomicI64; 3]; 2],
    /// How many errors ICMP sends.
    pub icmp: Rates,
}

impl Default for Settings {
    fn default() -> Self {
        let of = AtomicI64::new;
        Self {
            first_port: of(32_768),
            last_port: of(60_999),
            unprivileged: of(1024),
            backlog: of(4096),
            only_v6: of(0),
            buffers: [of(212_992), of(212_992)],
            pingers: [of(1), of(0)],
            silent: of(0),
            reserved: Mutex::default(),
            nonlocal: of(0),
            ttl: of(64),
            keepalive: [of(7200), of(75), of(9)],
            tcp_buffers: [[of(4096), of(131_072), of(6_291_456)], [of(4096), of(16_384), of(4_194_304)]],
            icmp: Rates::default(),
        }
    }
}

impl Settings {
    /// Ports that are given to who asks for none.
    pub fn port_range(&self) -> RangeInclusive<u16> {
        let of = |n: &AtomicI64| u16::try_from(n.load(Ordering::Relaxed)).unwrap_or(u16::MAX);
        of(&self.first_port)..=of(&self.last_port)
    }

    /// The most connections that may wait for a listener.
    pub fn somaxconn(&self) -> usize {
        usize::try_from(self.backlog.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Whether IPv6 sockets begin without IPv4.
    pub fn bindv6only(&self) -> bool {
        self.only_v6.load(Ordering::Relaxed) != 0
    }

    /// Whether a port may be had by everybody.
    pub fn is_for_all(&self, port: u16) -> bool {
        i64::from(port) >= self.unprivileged.load(Ordering::Relaxed)
    }

    /// Those of the host's own network are those within.
    pub fn adopt(&self, hosts: &cofferdam_control::netd::Settings) {
        let set = |to: &AtomicI64, n: i64| to.store(n, Ordering::Relaxed);
        if let Some(n) = hosts.unprivileged {
            set(&self.unprivileged, n);
        }
        if let Some([first, last]) = hosts.ports {
            set(&self.first_port, first);
            set(&self.last_port, last);
        }
        if let Some(groups) = hosts.pingers {
            self.pingers.iter().zip(groups).for_each(|(to, n)| set(to, n));
        }
    }

    /// Whether a port is given only to who asks for it.
    pub fn is_reserved(&self, port: u16) -> bool {
        self.reserved.lock().iter().any(|r| r.contains(&port))
    }

    /// Whether addresses may be bound that are none of the namespace's.
    pub fn may_bind_others(&self) -> bool {
        self.nonlocal.load(Ordering::Relaxed) != 0
    }

    /// What a connection's buffer begins with, and the most that it grows to.
    pub fn tcp_buffer(&self, send: bool) -> [usize; 2] {
        let [receive, sending] = &self.tcp_buffers;
        let [_, first, most] = if send { sending } else { receive };
        [first, most].map(|n| usize::try_from(n.load(Ordering::Relaxed)).unwrap_or(0))
    }

    /// Whether a group may have ping sockets.
    pub fn may_ping(&self, gid: u32) -> bool {
        let [first, last] = &self.pingers;
        (first.load(Ordering::Relaxed)..=last.load(Ordering::Relaxed)).contains(&i64::from(gid))
    }

    /// The largest buffer that may be asked for.
    pub fn largest(&self, send: bool) -> usize {
        let [receive, sending] = &self.buffers;
        let of = if send { sending } else { receive };
        usize::try_from(of.load(Ordering::Relaxed)).unwrap_or(0)
    }
}
