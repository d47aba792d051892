//! Options of the protocols' levels (`IPPROTO_IP`, `IPPROTO_IPV6`, `IPPROTO_TCP`, `IPPROTO_UDP`) that are numbers: `ip(7)`, `ipv6(7)`,
//! `tcp(7)`, `udp(7)`.
//!
//! The table is data: what may be set, and what is told before it is. What an option does is where its value is asked for. Called by
//! `syscalls::inet_options`.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Levels.
#[allow(missing_docs)]
mod level {
    pub const IP: i32 = 0;
    pub const TCP: i32 = 6;
    pub const UDP: i32 = 17;
    pub const IPV6: i32 = 41;
}
pub use level::{IP, IPV6, TCP, UDP};

/// Numbers of options that something asks for.
#[allow(missing_docs)]
mod number {
    pub const REUSEADDR: i32 = 2;
    pub const BROADCAST: i32 = 6;
    pub const REUSEPORT: i32 = 15;
    pub const TOS: i32 = 1;
    pub const TTL: i32 = 2;
    pub const PKTINFO: i32 = 8;
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
    pub const UNICAST_HOPS: i32 = 16;
    pub const MULTICAST_HOPS: i32 = 18;
    pub const MULTICAST_LOOP6: i32 = 19;
    pub const RECVERR6: i32 = 25;
    pub const V6ONLY: i32 = 26;
    pub const RECVPKTINFO6: i32 = 49;
    pub const RECVHOPLIMIT: i32 = 51;
    pub const RECVTCLASS: i32 = 66;
    pub const TCLASS: i32 = 67;
    pub const CORK: i32 = 1;
    pub const NODELAY: i32 = 1;
    pub const CORK3: i32 = 3;
}
pub use number::*;

/// Which sockets have an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Of {
    All,
    Datagrams,
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
}

/// An option.
pub struct Row {
    /// Its level and number.
    pub at: (i32, i32),
    /// Which sockets have it; others: ENOPROTOOPT.
    pub of: Of,
    /// What may be set.
    pub form: Form,
    /// What is told before something is.
    pub default: i32,
}

const fn row(level: i32, option: i32, form: Form, default: i32) -> Row {
    Row { at: (level, option), of: Of::All, form, default }
}

use Form::{Default as Or, Number, Switch};

/// The options.
pub const TABLE: &[Row] = &[
    // IP_TOS to IP_LOCAL_PORT_RANGE.
    row(IP, TOS, Number(i32::MIN, i32::MAX), 0),
    row(IP, TTL, Or(1, 255), 64),
    row(IP, 6, Switch, 0),
    row(IP, 7, Switch, 0),
    row(IP, PKTINFO, Switch, 0),
    row(IP, 10, Number(0, 5), 1),
    row(IP, RECVERR, Switch, 0),
    row(IP, RECVTTL, Switch, 0),
    row(IP, RECVTOS, Switch, 0),
    row(IP, FREEBIND, Switch, 0),
    row(IP, 18, Switch, 0),
    row(IP, TRANSPARENT, Switch, 0),
    row(IP, ORIGDSTADDR, Switch, 0),
    row(IP, 21, Number(0, 255), 0),
    row(IP, 23, Switch, 0),
    row(IP, BIND_ADDRESS_NO_PORT, Switch, 0),
    row(IP, 25, Switch, 0),
    row(IP, 26, Switch, 0),
    Row { at: (IP, MULTICAST_TTL), of: Of::Datagrams, form: Or(0, 255), default: 1 },
    row(IP, MULTICAST_LOOP, Switch, 1),
    row(IP, MULTICAST_ALL, Switch, 1),
    // IPV6_UNICAST_HOPS and on.
    row(IPV6, UNICAST_HOPS, Or(0, 255), 64),
    Row { at: (IPV6, MULTICAST_HOPS), of: Of::Datagrams, form: Or(0, 255), default: 1 },
    row(IPV6, MULTICAST_LOOP6, Number(0, 1), 1),
    row(IPV6, 23, Number(0, 5), 1),
    row(IPV6, RECVERR6, Switch, 0),
    row(IPV6, 29, Switch, 1),
    row(IPV6, 33, Switch, 0),
    row(IPV6, RECVPKTINFO6, Switch, 0),
    row(IPV6, RECVHOPLIMIT, Switch, 0),
    row(IPV6, 53, Switch, 0),
    row(IPV6, 56, Switch, 0),
    row(IPV6, 58, Switch, 0),
    row(IPV6, 60, Switch, 0),
    row(IPV6, 62, Switch, 0),
    row(IPV6, RECVTCLASS, Switch, 0),
    row(IPV6, TCLASS, Or(0, 255), 0),
    row(IPV6, 70, Switch, 0),
    row(IPV6, 72, Number(0, 7), 0),
    row(IPV6, 73, Number(0, 255), 0),
    row(IPV6, 74, Switch, 0),
    row(IPV6, 75, Switch, 0),
    row(IPV6, 76, Switch, 0),
    row(IPV6, 78, Switch, 0),
    // TCP_NODELAY and on.
    row(TCP, NODELAY, Switch, 0),
    row(TCP, CORK3, Switch, 0),
    row(TCP, 4, Number(1, 32_767), 7200),
    row(TCP, 5, Number(1, 32_767), 75),
    row(TCP, 6, Number(1, 127), 9),
    row(TCP, 7, Number(1, 127), 6),
    row(TCP, 10, Number(0, i32::MAX), 0),
    row(TCP, 12, Number(i32::MIN, i32::MAX), 1),
    row(TCP, 16, Number(0, 1), 0),
    row(TCP, 17, Number(0, 1), 0),
    row(TCP, 18, Number(0, i32::MAX), 0),
    row(TCP, 25, Number(i32::MIN, i32::MAX), 0),
    row(TCP, 27, Number(0, 1), 0),
    row(TCP, 30, Number(0, 1), 0),
    row(TCP, 34, Number(0, 1), 0),
    row(TCP, 36, Number(0, 1), 0),
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

/// What was set.
#[derive(Clone, Debug, Default)]
pub struct Values {
    set: BTreeMap<(i32, i32), i32>,
    /// Addresses of the devices that multicast leaves by (`IP_MULTICAST_IF`, `IPV6_MULTICAST_IF`).
    out: [Option<IpAddr>; 2],
    /// `TCP_CONGESTION`.
    pub congestion: Option<&'static str>,
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
    fn what_was_not_set_is_told_as_it_is_by_default() {
        let mut v = Values::default();
        assert_eq!((v.get(IP, TTL), v.get(TCP, 4), v.get(99, 99)), (64, 7200, 0));
        v.set(IP, TTL, 9);
        assert_eq!(v.get(IP, TTL), 9);
    }
}
