//! What the host's firewall does for a network that was made for one command: address translation, published ports, and what may not pass.
//!
//! Owns the rules, in a table of nftables that is its owner's (`NFT_TABLE_F_OWNER`, Linux 5.12): the host's kernel takes it away with the socket that
//! made it, however that is closed. So nothing has to be cleared up, and nothing is left by who is killed. Spoken to the kernel by `nfnetlink`, since
//! `nft` would close that socket. It must never touch a table that is another's. Called by `made`.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use cofferdam_control::netd::Published;
use cofferdam_netlink::Netlink;

/// What the rules are about.
#[derive(Debug)]
pub struct Rules<'a> {
    /// What the table is called.
    pub name: &'a str,
    /// The number of the host's end of the pair.
    pub device: u32,
    /// The sandbox's addresses, one of each family at most.
    pub inside: &'a [IpAddr],
    /// Ports: at which address of the host's (`None`: at each), which there, which inside.
    pub published: &'a [(Option<IpAddr>, u16, Published)],
}

/// What an `ip` or `ip6` header, TCP and UDP have where.
mod place {
    pub const NETWORK: u32 = 1;
    pub const TRANSPORT: u32 = 2;
    /// Sources in IPv4's and IPv6's header, destinations.
    pub const FROM: (u32, u32) = (12, 8);
    pub const TO: (u32, u32) = (16, 24);
    pub const PORT: u32 = 2;
}

/// Keys of `meta` and `ct`, and what they say.
mod key {
    pub const IIF: u32 = 4;
    pub const OIF: u32 = 5;
    pub const FAMILY: u32 = 15;
    pub const PROTOCOL: u32 = 16;
    pub const STATE: u32 = 0;
    pub const STATUS: u32 = 2;
    pub const NEW: u32 = 8;
    pub const DESTINATION_CHANGED: u32 = 1 << 5;
    pub const LOCAL: u32 = 2;
}

/// Where packets are looked at.
#[derive(Clone, Copy)]
enum Hook {
    Arriving = 0,
    Forwarded = 2,
    Made = 3,
    Leaving = 4,
}

const EQUAL: u32 = 0;
const OTHER: u32 = 1;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// The register that says what is to become of a packet, and two to count with.
const VERDICT: u32 = 0;
const ONE: u32 = 1;
const TWO: u32 = 2;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Both families, in one table.
const INET: u8 = 1;
/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const IP4: u8 = 2;
const IP6: u8 = 10;

/// Attributes of netlink's, one after the other.
#[derive(Default)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn put(mut self, kind: u16, value: &[u8]) -> Self {
        // All that comes here is short.
        let len = u16::try_from(value.len().saturating_add(4)).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn word(self, kind: u16, value: u32) -> Self {
        self.put(kind, &value.to_be_bytes())
    }

    fn text(self, kind: u16, value: &str) -> Self {
        self.put(kind, &[value.as_bytes(), &[0]].concat())
    }

    fn nest(self, kind: u16, inner: Self) -> Self {
        const NESTED: u16 = 1 << 15;
        self.put(kind | NESTED, &inner.0)
    }
}

/// A rule that is being written: what a packet must be, and what becomes of it.
#[derive(Default)]
struct Rule(Attributes);

impl Rule {
    fn step(self, name: &str, data: Attributes) -> Self {
        let step = Attributes::default().text(1, name).nest(2, data);
        Self(self.0.nest(1, step))
    }

    fn is(self, how: u32, value: &[u8]) -> Self {
        self.step("cmp", Attributes::default().word(1, ONE).word(2, how).nest(3, Attributes::default().put(1, value)))
    }

    fn meta(self, what: u32) -> Self {
        self.step("meta", Attributes::default().word(2, what).word(1, ONE))
    }

    fn device(self, which: u32, how: u32, index: u32) -> Self {
        self.meta(which).is(how, &index.to_ne_bytes())
    }

    /// Bytes of a header; of an address with so many bits alone.
    fn header(self, base: u32, at: u32, len: usize) -> Self {
        let len = u32::try_from(len).unwrap_or(0);
        self.step("payload", Attributes::default().word(1, ONE).word(2, base).word(3, at).word(4, len))
    }

    fn masked(self, mask: &[u8]) -> Self {
        let nothing = vec![0; mask.len()];
        let data = |value: &[u8]| Attributes::default().put(1, value);
        let len = u32::try_from(mask.len()).unwrap_or(0);
        let how = Attributes::default().word(1, ONE).word(2, ONE).word(3, len);
        self.step("bitwise", how.nest(4, data(mask)).nest(5, data(&nothing)))
    }

    fn family(self, ip: IpAddr) -> Self {
        self.meta(key::FAMILY).is(EQUAL, &[if ip.is_ipv4() { IP4 } else { IP6 }])
    }

    fn address(self, (four, six): (u32, u32), how: u32, ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => self.header(place::NETWORK, four, 4).is(how, &ip.octets()),
            IpAddr::V6(ip) => self.header(place::NETWORK, six, 16).is(how, &ip.octets()),
        }
    }

    /// Whether the host has the address that it is for.
    fn for_host(self) -> Self {
        const KIND: u32 = 3;
        const DESTINATION: u32 = 2;
        let fib = Attributes::default().word(1, ONE).word(2, KIND).word(3, DESTINATION);
        self.step("fib", fib).is(EQUAL, &key::LOCAL.to_ne_bytes())
    }

    /// A word that is known of the connection, and whether a bit of it is so.
    fn connection(self, what: u32, bit: u32, how: u32) -> Self {
        let ct = Attributes::default().word(2, what).word(1, ONE);
        self.step("ct", ct).masked(&bit.to_ne_bytes()).is(how, &0u32.to_ne_bytes())
    }

    fn then(self, verdict: u32) -> Self {
        let verdict = Attributes::default().nest(2, Attributes::default().word(1, verdict));
        self.step("immediate", Attributes::default().word(1, VERDICT).nest(2, verdict))
    }

    /// Hides who it comes from behind the address of the device that it leaves by.
    fn masquerade(self) -> Self {
        self.step("masq", Attributes::default())
    }

    /// Sends it to somewhere else.
    fn lead(self, to: IpAddr, port: u16) -> Self {
        const DESTINATION: u32 = 1;
        let (family, address) = match to {
            IpAddr::V4(ip) => (IP4, ip.octets().to_vec()),
            IpAddr::V6(ip) => (IP6, ip.octets().to_vec()),
        };
        let load = |register, value: &[u8]| {
            Attributes::default().word(1, register).nest(2, Attributes::default().put(1, value))
        };
        let how = Attributes::default().word(1, DESTINATION).word(2, family.into()).word(3, ONE).word(5, TWO);
        self.step("immediate", load(ONE, &address)).step("immediate", load(TWO, &port.to_be_bytes())).step("nat", how)
    }
}

/// The messages of a table, which are carried out all or not at all.
struct Batch<'a> {
    raw: Vec<u8>,
    table: &'a str,
}

impl<'a> Batch<'a> {
    const REQUEST: u16 = 1;
    const ACK: u16 = 4;
    const CREATE: u16 = 0x400;
    const EXCL: u16 = 0x200;
    const APPEND: u16 = 0x800;
    const NFTABLES: u16 = 10;

    fn new(table: &'a str) -> Self {
        let mut batch = Self { raw: Vec::new(), table };
        batch.message(0x10, Self::REQUEST, 0, Self::NFTABLES, Attributes::default());
        const OWNED: u32 = 2;
        let flags = Self::CREATE | Self::EXCL | Self::ACK;
        batch.change(0, flags, Attributes::default().text(1, table).word(2, OWNED));
        batch
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, subsystem: u16, attributes: Attributes) {
        let len = u32::try_from(attributes.0.len().saturating_add(20)).unwrap_or(u32::MAX);
        self.raw.extend_from_slice(&len.to_ne_bytes());
        self.raw.extend_from_slice(&kind.to_ne_bytes());
        self.raw.extend_from_slice(&flags.to_ne_bytes());
        self.raw.extend_from_slice(&[0; 8]);
        self.raw.extend_from_slice(&[family, 0]);
        self.raw.extend_from_slice(&subsystem.to_be_bytes());
        self.raw.extend_from_slice(&attributes.0);
    }

    fn change(&mut self, kind: u16, flags: u16, attributes: Attributes) {
        self.message(Self::NFTABLES << 8 | kind, Self::REQUEST | flags, INET, 0, attributes);
    }

    fn chain(&mut self, name: &str, kind: &str, hook: Hook, priority: i32) {
        let place = Attributes::default().word(1, hook as u32).word(2, priority.cast_unsigned());
        let chain = Attributes::default().text(1, self.table).text(3, name).nest(4, place).text(7, kind);
        self.change(3, Self::CREATE, chain.word(5, ACCEPT));
    }

    fn rule(&mut self, chain: &str, rule: Rule) {
        let rule = Attributes::default().text(1, self.table).text(2, chain).nest(4, rule.0);
        self.change(6, Self::CREATE | Self::APPEND, rule);
    }

    /// All of it.
    fn done(mut self) -> Vec<u8> {
        self.message(0x11, Self::REQUEST, 0, Self::NFTABLES, Attributes::default());
        self.raw
    }
}

/// Makes the table. It is there as long as what this returns.
pub fn raise(rules: &Rules<'_>) -> io::Result<Netlink> {
    let mut socket = Netlink::firewall()?;
    socket.batch(&batch(rules))?;
    Ok(socket)
}

fn batch(rules: &Rules<'_>) -> Vec<u8> {
    let mut batch = Batch::new(rules.name);
    let device = rules.device;
    let rule = Rule::default;

    // Before all else: nothing but what is the sandbox's comes from it, and nothing of it goes to the host's loopback addresses, to which its
    // device leads for the sake of published ports.
    batch.chain("arriving", "filter", Hook::Arriving, -300);
    batch.rule("arriving", rule().device(key::IIF, OTHER, device).then(ACCEPT));
    let near = rule().family(Ipv4Addr::LOCALHOST.into()).header(place::NETWORK, place::TO.0, 4).masked(&[255, 0, 0, 0]);
    batch.rule("arriving", near.is(EQUAL, &[127, 0, 0, 0]).then(DROP));
    for ip in rules.inside {
        batch.rule("arriving", rule().family(*ip).address(place::FROM, EQUAL, *ip).then(ACCEPT));
    }
    if let Some(six) = rules.inside.iter().find(|ip| ip.is_ipv6()) {
        // Neighbours look for each other so.
        let link = || rule().family(*six).header(place::NETWORK, place::FROM.1, 16);
        let mask: [u8; 16] = std::array::from_fn(|n| [0xff, 0xc0].get(n).copied().unwrap_or(0));
        let local: [u8; 16] = std::array::from_fn(|n| [0xfe, 0x80].get(n).copied().unwrap_or(0));
        batch.rule("arriving", link().masked(&mask).is(EQUAL, &local).then(ACCEPT));
        batch.rule("arriving", link().is(EQUAL, &[0; 16]).then(ACCEPT));
    }
    batch.rule("arriving", rule().then(DROP));

    // From beyond the host only what is published.
    batch.chain("forwarded", "filter", Hook::Forwarded, 0);
    let begins = rule().device(key::OIF, EQUAL, device).connection(key::STATE, key::NEW, OTHER);
    batch.rule("forwarded", begins.connection(key::STATUS, key::DESTINATION_CHANGED, EQUAL).then(DROP));

    for (chain, hook) in [("published", Hook::Arriving), ("own", Hook::Made)] {
        batch.chain(chain, "nat", hook, -100);
        for (at, port, to) in rules.published {
            for inside in rules.inside.iter().filter(|ip| at.is_none_or(|at| at.is_ipv4() == ip.is_ipv4())) {
                let mut fits = rule().family(*inside);
                fits = match at {
                    Some(at) => fits.address(place::TO, EQUAL, *at),
                    None => fits.for_host(),
                };
                if inside.is_ipv6() {
                    // What is ::1's never leaves the host: who asks there is refused, and asks 127.0.0.1.
                    fits = fits.address(place::TO, OTHER, std::net::Ipv6Addr::LOCALHOST.into());
                }
                fits = fits.meta(key::PROTOCOL).is(EQUAL, &[if to.udp { UDP } else { TCP }]);
                fits = fits.header(place::TRANSPORT, place::PORT, 2).is(EQUAL, &port.to_be_bytes());
                batch.rule(chain, fits.lead(*inside, to.port));
            }
        }
    }

    batch.chain("leaving", "nat", Hook::Leaving, 100);
    let into = || rule().device(key::OIF, EQUAL, device);
    // Who calls from the host's loopback address, or the sandbox itself by way of the host, must be answered by way of the host.
    let near = into().family(Ipv4Addr::LOCALHOST.into()).header(place::NETWORK, place::FROM.0, 4);
    batch.rule("leaving", near.masked(&[255, 0, 0, 0]).is(EQUAL, &[127, 0, 0, 0]).masquerade());
    for ip in rules.inside {
        batch.rule("leaving", rule().family(*ip).address(place::FROM, EQUAL, *ip).masquerade());
    }
    batch.done()
}
