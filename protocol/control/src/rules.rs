//! Rules of a sandbox's network: which connections and packets may pass, as an operator writes them.
//!
//! Owns the syntax and the types. What they mean to a packet is netd's (`filter`). Called by the command line, the supervisor and netd.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::netd::Address;

/// The most rules of a sandbox.
pub const RULES: usize = 1024;

/// Who begins it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// Somebody beyond.
    In,
    /// The sandbox.
    Out,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// It passes, and its answers do.
    Allow,
    /// It does not: the sandbox is told so, others are not.
    Deny,
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// All there are.
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6.
    Icmp,
}

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Who begins.
    pub direction: Direction,
    /// What becomes of it.
    pub action: Action,
    /// Of which protocol.
    pub protocol: Protocol,
    /// Where the other end is; `None`: anywhere.
    pub other: Option<Address>,
    /// Of which ports, first and last: the other end's where the sandbox begins, else the sandbox's own. Only TCP and UDP have any.
    pub ports: Option<(u16, u16)>,
}

/// The rules of a sandbox: the first that fits counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// In their order.
    pub list: Vec<Rule>,
    /// What becomes of what comes in and no rule fits.
    pub by_default_in: Action,
    /// The same of what goes out.
    pub by_default_out: Action,
}

impl Default for Rules {
    /// Everything passes.
    fn default() -> Self {
        Self { list: Vec::new(), by_default_in: Action::Allow, by_default_out: Action::Allow }
    }
}

/// Why a text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRule {
    /// It has not the shape of one.
    #[error(
        "rule {0:?}: {1}: want in|out allow|deny all|[tcp|udp|icmp|any] [ADDRESS[/BITS]][:PORT[-PORT]], or in|out default allow|deny"
    )]
    Shape(String, &'static str),
    /// There are too many.
    #[error("more than {RULES} rules")]
    Many,
}

impl Rules {
    /// Of several lines, or parts with semicolons between.
    pub fn parse(text: &str) -> Result<Self, BadRule> {
        let mut rules = Self::default();
        for part in text.split(['\n', ';']).map(str::trim).filter(|p| !p.is_empty()) {
            rules.add(part)?;
        }
        Ok(rules)
    }

    /// One more.
    pub fn add(&mut self, text: &str) -> Result<(), BadRule> {
        let words: Vec<&str> = text.split_whitespace().collect();
        if let [direction, "default", action] = words[..] {
            let bad = |why| BadRule::Shape(text.to_owned(), why);
            let action = action_of(action).ok_or_else(|| bad("neither allow nor deny"))?;
            *match direction_of(direction).ok_or_else(|| bad("neither in nor out"))? {
                Direction::In => &mut self.by_default_in,
                Direction::Out => &mut self.by_default_out,
            } = action;
            return Ok(());
        }
        if self.list.len() >= RULES {
            return Err(BadRule::Many);
        }
        self.list.push(text.parse()?);
        Ok(())
    }

    /// What is done where no rule fits.
    pub fn by_default(&self, direction: Direction) -> Action {
        match direction {
            Direction::In => self.by_default_in,
            Direction::Out => self.by_default_out,
        }
    }

    /// Whether everything passes that way.
    pub fn is_open(&self, direction: Direction) -> bool {
        let denies = |r: &Rule| r.direction == direction && r.action == Action::Deny;
        self.by_default(direction) == Action::Allow && !self.list.iter().any(denies)
    }
}

fn direction_of(word: &str) -> Option<Direction> {
    match word {
        "in" => Some(Direction::In),
        "out" => Some(Direction::Out),
        _ => None,
    }
}

fn action_of(word: &str) -> Option<Action> {
    match word {
        "allow" => Some(Action::Allow),
        "deny" => Some(Action::Deny),
        _ => None,
    }
}

fn protocol_of(word: &str) -> Option<Protocol> {
    match word {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        "icmp" => Some(Protocol::Icmp),
        "any" | "all" => Some(Protocol::Any),
        _ => None,
    }
}

/// A number as it is written: digits alone.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

fn ports_of(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

fn network_of(text: &str) -> Option<Address> {
    let (ip, bits) = match text.split_once('/') {
        Some((ip, bits)) => (ip, Some(bits)),
        None => (text, None),
    };
    let ip: IpAddr = ip.parse().ok()?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = bits.map_or(Some(most), number)?;
    // One of version 4 in the clothes of version 6 would never fit: packets are looked at without.
    (prefix <= most && ip.to_canonical() == ip).then_some(Address { ip, prefix })
}

/// Splits the ports off: what is before and what is behind the colon. An address of version 6 is in brackets then.
fn with_ports(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (network, rest) = rest.split_once(']')?;
        return if rest.is_empty() { Some((network, None)) } else { Some((network, Some(rest.strip_prefix(':')?))) };
    }
    match text.split_once(':') {
        Some((network, ports)) if !ports.contains(':') => Some((network, Some(ports))),
        _ => Some((text, None)),
    }
}

impl FromStr for Rule {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Self, BadRule> {
        let bad = |why| BadRule::Shape(text.to_owned(), why);
        let mut words = text.split_whitespace();
        let direction = words.next().and_then(direction_of).ok_or_else(|| bad("neither in nor out"))?;
        let action = words.next().and_then(action_of).ok_or_else(|| bad("neither allow nor deny"))?;
        let mut place = words.next();
        let protocol = place.and_then(protocol_of);
        if protocol.is_some() {
            place = words.next();
        } else if place.is_none() {
            return Err(bad("of what?"));
        }
        if words.next().is_some() {
            return Err(bad("too many words"));
        }
        let protocol = protocol.unwrap_or(Protocol::Any);
        let (mut other, mut ports) = (None, None);
        if let Some(place) = place {
            let (network, range) = with_ports(place).ok_or_else(|| bad("no address"))?;
            if !network.is_empty() {
                other = Some(network_of(network).ok_or_else(|| bad("no address"))?);
            }
            if let Some(range) = range {
                ports = Some(ports_of(range).ok_or_else(|| bad("no ports"))?);
            }
        }
        if ports.is_some() && protocol == Protocol::Icmp {
            return Err(bad("icmp has no ports"));
        }
        Ok(Self { direction, action, protocol, other, ports })
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::In { "in" } else { "out" })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Allow { "allow" } else { "deny" })
    }
}

impl fmt::Display for Rule {
    /// In a form that is read again as the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Any => "any",
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
        };
        write!(f, "{} {} {protocol}", self.direction, self.action)?;
        match (self.other, self.ports) {
            (None, None) => {}
            (None, Some(_)) => write!(f, " ")?,
            (Some(a), Some(_)) if a.ip.is_ipv6() => write!(f, " [{}/{}]", a.ip, a.prefix)?,
            (Some(a), _) => write!(f, " {}/{}", a.ip, a.prefix)?,
        }
        match self.ports {
            Some((first, last)) if first == last => write!(f, ":{first}"),
            Some((first, last)) => write!(f, ":{first}-{last}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_they_are_written() {
        for (text, shown) in [
            ("out deny tcp 10.0.0.0/8:22", ""),
            ("out deny all", "out deny any"),
            ("in allow tcp :80-90", ""),
            ("in allow :80", "in allow any :80"),
            ("in  deny udp [fd00::/8]:53", "in deny udp [fd00::/8]:53"),
            ("out allow any fd00::1", "out allow any fd00::1/128"),
            ("out allow [fd00::1]", "out allow any fd00::1/128"),
            ("out allow icmp", ""),
            ("out allow 192.168.0.0/16", "out allow any 192.168.0.0/16"),
        ] {
            let rule: Rule = text.parse().unwrap();
            assert_eq!(rule.to_string(), if shown.is_empty() { text } else { shown });
            assert_eq!(rule.to_string().parse(), Ok(rule));
        }
    }

    #[test]
    fn what_is_no_rule_is_named() {
        for text in [
            "",
            "out",
            "out deny",
            "up deny all",
            "out refuse all",
            "out deny sctp",
            "out deny tcp 10.0.0.0/33",
            "out deny tcp 10.0.0.0/+8",
            "out deny tcp fd00::/129",
            "out deny tcp ::ffff:10.0.0.1",
            "out deny tcp 10.0.0.0:",
            "out deny tcp :9-3",
            "out deny tcp :65536",
            "out deny tcp [fd00::1",
            "out deny tcp [fd00::1]22",
            "out deny icmp :3",
            "out deny tcp 10.0.0.1 22",
            "out default",
            "out default maybe",
            "up default deny",
        ] {
            let e = Rules::default().add(text).unwrap_err().to_string();
            assert!(e.starts_with(&format!("rule {text:?}: ")), "{e}");
        }
    }

    #[test]
    fn rules_have_an_order_and_defaults() {
        let rules = Rules::parse("out allow tcp :443; out default deny\n in deny icmp;").unwrap();
        assert_eq!(rules.list.len(), 2);
        assert!(!rules.is_open(Direction::In) && !rules.is_open(Direction::Out));
        assert_eq!((rules.by_default_in, rules.by_default_out), (Action::Allow, Action::Deny));
        assert!(Rules::parse(" ").unwrap().is_open(Direction::Out));
        assert_eq!(Rules::parse(&"in deny all;".repeat(RULES + 1)), Err(BadRule::Many));
    }
}
