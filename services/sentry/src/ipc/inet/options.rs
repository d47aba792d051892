//! Options of the protocols' levels (`IPPROTO_IP`, `IPPROTO_IPV6`, `IPPROTO_TCP`, `IPPROTO_UDP`) that are numbers, and those of the socket's
//! own level that only internet sockets have: `ip(7)`, `ipv6(7)`, `tcp(7)`, `udp(7)`, `socket(7)`.
//!
//! The table is data: what may be set, in how many bytes, and what is told before it is. What an option does is where its value is asked for. Called by
//! `syscalls::inet_options`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::errno::Errno;

/// Levels.
#[allow(missing_docs)]
mod level {
    pub const IP: i32 = 0;
    pub const SOCKET: i32 = 1;
    pub const TCP: i32 = 6;
    pub const UDP: i32 = 17;
    pub const IPV6: i32 = 41;
}
pub use level::{IP, IPV6, SOCKET, TCP, UDP};

/// Numbers of options that something asks for.
#[allow(missing_docs)]
mod number {
    pub const REUSEADDR: i32 = 2;
    pub const BROADCAST: i32 = 6;
    pub const REUSEPORT: i32 = 15;
    pub const BUSY_POLL: i32 = 46;
    pub const BINDTOIFINDEX: i32 = 62;
    pub const PREFER_BUSY_POLL: i32 = 69;
    pub const BUSY_POLL_BUDGET: i32 = 70;
    pub const TOS: i32 = 1;
    pub const TTL: i32 = 2;
    pub const HDRINCL: i32 = 3;
    pub const PKTINFO: i32 = 8;
    pub const DISCOVER: i32 = 10;
    pub const DISCOVER6: i32 = 23;
    pub const MTU6: i32 = 24;
    pub const DONTFRAG6: i32 = 62;
    pub const RECVERR: i32 = 11;
    pub const RECVTTL: i32 = 12;
    pub const RECVTOS: i32 = 13;
    pub const FREEBIND: i32 = 15;
    pub const TRANSPARENT: i32 = 19;
    pub const ORIGDSTADDR: i32 = 20;
    pub const BIND_ADDRESS_NO_PORT: i32 = 24;
    pub const MULTICAST_TTL: i32 = 33;
    pub const MULTICAST_LOOP: i32 = 34;
    pub const MULTICAST_ALL: i32 = 49;
    pub const LOCAL_PORT_RANGE: i32 = 51;
    pub const UNICAST_HOPS: i32 = 16;
    pub const MULTICAST_HOPS: i32 = 18;
    pub const MULTICAST_LOOP6: i32 = 19;
    pub const RECVERR6: i32 = 25;
    pub const V6ONLY: i32 = 26;
    pub const MULTICAST_ALL6: i32 = 29;
    pub const RECVPKTINFO6: i32 = 49;
    pub const RECVHOPLIMIT: i32 = 51;
    pub const RECVTCLASS: i32 = 66;
    pub const TCLASS: i32 = 67;
    pub const CORK: i32 = 1;
    pub const NODELAY: i32 = 1;
    pub const CORK3: i32 = 3;
    pub const DEFER_ACCEPT: i32 = 9;
    pub const FASTOPEN_CONNECT: i32 = 30;
    pub const INQ: i32 = 36;
}
pub use number::*;

/// Values of `IP_MTU_DISCOVER`; from `INTERFACE` on no router is listened to.
#[allow(missing_docs)]
pub mod discover {
    pub const DONT: i32 = 0;
    pub const WANT: i32 = 1;
    pub const DO: i32 = 2;
    pub const PROBE: i32 = 3;
    pub const INTERFACE: i32 = 4;
}

/// Which sockets have an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Of {
    All,
    /// Others are told what it is by default.
    Datagrams,
    /// Others are not told of it either.
    Streams,
}

/// What is set.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// On or off, by any number.
    Switch,
    /// A number from there to there; EINVAL.
    Number(i32, i32),
    /// The same, and -1 means the default.
    Default(i32, i32),
    /// None, or so much at least: less is made so much.
    AtLeast(i32),
    /// As `Number`, and not kept: what it asked for is no more.
    Passed(i32, i32),
    /// A device's number in the order of the network, or none; EADDRNOTAVAIL.
    Device,
    /// Two ports, the first in the lower half; EINVAL if they are none of a range.
    Ports,
    /// For raw sockets; others are told so when they set it.
    Raw(Errno),
}

/// How many bytes it is set with; EINVAL. Those of IP's level may be one byte instead of four, or none.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    /// So many at least.
    Least(usize),
    /// So many.
    Just(usize),
}

impl Length {
    /// Whether so many will do.
    pub fn fits(self, len: usize) -> bool {
        match self {
            Self::Least(n) => len >= n,
            Self::Just(n) => len == n,
        }
    }
}

/// An option.
pub struct Row {
    /// Its level and number.
    pub at: (i32, i32),
    /// Which sockets have it.
    pub of: Of,
    /// In how many bytes.
    pub length: Length,
    /// What may be set.
    pub form: Form,
    /// What is told before something is.
    pub default: i32,
}

const fn row(level: i32, option: i32, form: Form, default: i32) -> Row {
    let length = Length::Least(if level == IP { 0 } else { 4 });
    Row { at: (level, option), of: Of::All, length, form, default }
}

impl Row {
    const fn of(self, of: Of) -> Self {
        Self { of, ..self }
    }

    const fn least(self, bytes: usize) -> Self {
        Self { length: Length::Least(bytes), ..self }
    }

    const fn just(self, bytes: usize) -> Self {
        Self { length: Length::Just(bytes), ..self }
    }
}

use Form::{AtLeast, Default as Or, Device, Number, Passed, Raw, Switch};

/// The options.
pub const TABLE: &[Row] = &[
    // What of the socket's own level is kept as a number and has no other effect: nothing is polled, hashed or moved to a processor.
    row(SOCKET, BUSY_POLL, Number(0, i32::MAX), 0),
    // SO_INCOMING_CPU.
    row(SOCKET, 49, Number(i32::MIN, i32::MAX), -1),
    row(SOCKET, BINDTOIFINDEX, Number(0, i32::MAX), 0),
    row(SOCKET, PREFER_BUSY_POLL, Switch, 0),
    row(SOCKET, BUSY_POLL_BUDGET, Number(0, 65_535), 8),
    // SO_TXREHASH.
    row(SOCKET, 74, Or(0, 1), 1).of(Of::Streams),
    // IP_TOS to IP_LOCAL_PORT_RANGE.
    row(IP, TOS, Number(i32::MIN, i32::MAX), 0),
    row(IP, TTL, Or(1, 255), 64).least(1),
    // IP_HDRINCL, IP_ROUTER_ALERT.
    row(IP, 3, Raw(Errno::ENOPROTOOPT), 0),
    row(IP, 5, Raw(Errno::EINVAL), 0),
    row(IP, 6, Switch, 0),
    row(IP, 7, Switch, 0),
    row(IP, PKTINFO, Switch, 0),
    row(IP, DISCOVER, Number(0, 5), 1),
    row(IP, RECVERR, Switch, 0),
    row(IP, RECVTTL, Switch, 0),
    row(IP, RECVTOS, Switch, 0),
    row(IP, FREEBIND, Switch, 0).least(1),
    row(IP, 18, Switch, 0),
    row(IP, TRANSPARENT, Switch, 0).least(1),
    row(IP, ORIGDSTADDR, Switch, 0),
    // IP_MINTTL, IP_NODEFRAG.
    row(IP, 21, Number(0, 255), 0).least(1),
    row(IP, 22, Raw(Errno::ENOPROTOOPT), 0),
    row(IP, 23, Switch, 0),
    row(IP, BIND_ADDRESS_NO_PORT, Switch, 0),
    // IP_RECVFRAGSIZE, IP_RECVERR_RFC4884.
    row(IP, 25, Switch, 0).of(Of::Datagrams),
    row(IP, 26, Number(0, 1), 0),
    row(IP, MULTICAST_TTL, Or(0, 255), 1).of(Of::Datagrams).least(1),
    row(IP, MULTICAST_LOOP, Switch, 1).least(1),
    row(IP, MULTICAST_ALL, Number(0, 1), 1).least(1),
    // IP_UNICAST_IF.
    row(IP, 50, Device, 0).just(4),
    row(IP, LOCAL_PORT_RANGE, Form::Ports, 0).just(4),
    // IPV6_UNICAST_HOPS and on.
    row(IPV6, UNICAST_HOPS, Or(0, 255), 64),
    row(IPV6, MULTICAST_HOPS, Or(0, 255), 1).of(Of::Datagrams),
    row(IPV6, MULTICAST_LOOP6, Number(0, 1), 1),
    // IPV6_ROUTER_ALERT.
    row(IPV6, 22, Raw(Errno::ENOPROTOOPT), 0),
    row(IPV6, DISCOVER6, Number(0, 5), 1),
    row(IPV6, RECVERR6, Switch, 0),
    row(IPV6, V6ONLY, Switch, 0),
    row(IPV6, MULTICAST_ALL6, Switch, 1),
    row(IPV6, 33, Switch, 0),
    row(IPV6, RECVPKTINFO6, Switch, 0),
    row(IPV6, RECVHOPLIMIT, Switch, 0),
    row(IPV6, 53, Switch, 0),
    row(IPV6, 56, Switch, 0),
    row(IPV6, 58, Switch, 0),
    row(IPV6, 60, Switch, 0),
    row(IPV6, DONTFRAG6, Switch, 0).least(0),
    row(IPV6, RECVTCLASS, Switch, 0),
    row(IPV6, TCLASS, Or(0, 255), 0),
    row(IPV6, 70, Switch, 0),
    row(IPV6, 72, Number(0, 7), 0),
    row(IPV6, 73, Number(0, 255), 0),
    row(IPV6, 74, Switch, 0),
    row(IPV6, 75, Switch, 0),
    // IPV6_UNICAST_IF.
    row(IPV6, 76, Device, 0).just(4),
    row(IPV6, 78, Switch, 0),
    // TCP_NODELAY and on.
    row(TCP, NODELAY, Switch, 0),
    row(TCP, CORK3, Switch, 0),
    row(TCP, 4, Number(1, 32_767), 7200),
    row(TCP, 5, Number(1, 32_767), 75),
    row(TCP, 6, Number(1, 127), 9),
    row(TCP, 7, Number(1, 127), 6),
    // TCP_WINDOW_CLAMP: half of the smallest buffer. TCP_QUICKACK.
    row(TCP, 10, AtLeast(1152), 0),
    row(TCP, 12, Switch, 1),
    row(TCP, 16, Number(0, 1), 0),
    // TCP_THIN_DUPACK.
    row(TCP, 17, Passed(0, 1), 0),
    row(TCP, 18, Number(0, i32::MAX), 0),
    row(TCP, 25, Number(i32::MIN, i32::MAX), 0),
    // TCP_SAVE_SYN.
    row(TCP, 27, Number(0, 2), 0),
    row(TCP, FASTOPEN_CONNECT, Number(0, 1), 0),
    row(TCP, 34, Number(0, 1), 0),
    row(TCP, INQ, Number(0, 1), 0),
    // UDP_CORK and on.
    row(UDP, CORK, Switch, 0),
    row(UDP, 101, Switch, 0),
    row(UDP, 102, Switch, 0),
    row(UDP, 103, Number(0, 65_535), 0),
    row(UDP, 104, Switch, 0),
];

/// The option of a level and number.
pub fn find(level: i32, option: i32) -> Option<&'static Row> {
    TABLE.iter().find(|r| r.at == (level, option))
}

/// The ports of an option's value (`IP_LOCAL_PORT_RANGE`): first and last.
pub fn ports(value: i32) -> (u16, u16) {
    let [a, b, c, d] = value.to_le_bytes();
    (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]))
}

/// Longest wait for an answer, seconds (`TCP_RTO_MAX`).
const WAIT_MOST: i32 = 120;

/// Tries that so many seconds are (`TCP_DEFER_ACCEPT`), each waiting twice as long as the one before; 255 at most.
pub fn tries_of(seconds: i32) -> i32 {
    if seconds <= 0 {
        return 0;
    }
    let (mut tries, mut wait, mut waited) = (1, 1, 1);
    while seconds > waited && tries < 255 {
        tries += 1;
        wait = (wait * 2).min(WAIT_MOST);
        waited += wait;
    }
    tries
}

/// Seconds that so many tries are.
pub fn seconds_of(tries: i32) -> i32 {
    (0..tries.min(255)).fold((0, 1), |(waited, wait), _| (waited + wait, (wait * 2).min(WAIT_MOST))).0
}

/// What was set.
#[derive(Clone, Debug, Default)]
pub struct Values {
    set: BTreeMap<(i32, i32), i32>,
    /// Addresses of the devices that multicast leaves by (`IP_MULTICAST_IF`, `IPV6_MULTICAST_IF`).
    out: [Option<IpAddr>; 2],
    /// `TCP_CONGESTION`.
    pub congestion: Option<&'static str>,
    /// `SO_MAX_PACING_RATE`: bytes in a second. What is sent is there at once, whatever it is.
    pub pace: Option<u64>,
    /// `IP_OPTIONS`: forty bytes at most.
    pub ip: Vec<u8>,
}

impl Values {
    /// An option's value.
    pub fn get(&self, level: i32, option: i32) -> i32 {
        let default = || find(level, option).map_or(0, |r| r.default);
        self.set.get(&(level, option)).copied().unwrap_or_else(default)
    }

    /// What was set, if anything was.
    pub fn kept(&self, level: i32, option: i32) -> Option<i32> {
        self.set.get(&(level, option)).copied()
    }

    /// Sets it.
    pub fn set(&mut self, level: i32, option: i32, value: i32) {
        self.set.insert((level, option), value);
    }

    /// The address of the device that multicast leaves by.
    pub fn interface(&self, four: bool) -> Option<IpAddr> {
        let [of4, of6] = self.out;
        if four { of4 } else { of6 }
    }

    /// Sets it.
    pub fn set_interface(&mut self, four: bool, ip: Option<IpAddr>) {
        let [of4, of6] = &mut self.out;
        *(if four { of4 } else { of6 }) = ip;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_stands_in_the_table_once() {
        for (n, r) in TABLE.iter().enumerate() {
            assert!(TABLE.iter().skip(n + 1).all(|other| other.at != r.at), "{:?}", r.at);
        }
    }

    #[test]
    fn seconds_are_kept_as_tries() {
        assert_eq!([-1, 0, 1, 2, 3, 4, 5, 100_000].map(tries_of), [0, 0, 1, 2, 2, 3, 3, 255]);
        assert_eq!([0, 1, 3, 255].map(seconds_of), [0, 1, 7, 29_887]);
    }

    #[test]
    fn ports_are_two_halves() {
        assert_eq!((ports(0), ports(0x0005_0004)), ((0, 0), (4, 5)));
    }

    #[test]
    fn what_was_not_set_is_told_as_it_is_by_default() {
        let mut v = Values::default();
        assert_eq!((v.get(IP, TTL), v.get(TCP, 4), v.get(99, 99)), (64, 7200, 0));
        v.set(IP, TTL, 9);
        assert_eq!(v.get(IP, TTL), 9);
    }
}
