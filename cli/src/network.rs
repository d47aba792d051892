//! The network of a `do`: `--network` and `--publish`.
//!
//! Behind the caller's own sockets by default. What takes the caller's rights is done here, with his rights: published ports are bound, it is
//! looked where names are asked for, a network of its own is made (`made`). The sockets behind it are made by netd, in the caller's network
//! namespace, which it is handed. Called by `commands` and `document`.

mod firewall;
mod made;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use cofferdam_control::client::NetworkFrom;
use cofferdam_control::netd::{ASKING, DOMAIN, PUBLISHED, Published, RESOLVER, User};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use self::made::Made;
use crate::arguments::Do;
use crate::failure::Failure;

/// The most of a resolv.conf that is read.
const MOST: u64 = 64 << 10;
/// What the document calls the file that is made in the place of the host's resolv.conf.
pub const NAMES: &str = "/nameless/resolv.conf";
/// Who may wait at a published port until the sandbox listens.
const WAITING: i32 = 1024;
/// Somewhere in the Internet: it is asked whether anything leads there, and nothing is sent.
const FAR: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0x4860, 0, 0, 0, 0, 0, 1)), 53);

/// What `--network` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Its loopback device alone.
    None,
    /// Behind the caller's sockets.
    User,
    /// The caller's own.
    Host,
    /// One that is made for it.
    Sandbox,
    /// What is in that network namespace is taken over.
    Namespace(PathBuf),
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            None if text == "user" => Ok(Self::User),
            None if text == "host" => Ok(Self::Host),
            None if text == "sandbox" => Ok(Self::Sandbox),
            Some(("ns", path)) if path.starts_with('/') => Ok(Self::Namespace(path.into())),
            _ => Err("want user, host, sandbox, none, or ns:PATH of a network namespace".into()),
        }
    }
}

/// A port to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish {
    /// Where; `None`: at any address.
    at: Option<IpAddr>,
    /// The port there.
    port: u16,
    to: Published,
}

impl std::str::FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "want [IP:]PORT:PORT_INSIDE[/tcp|/udp]".to_owned();
        let (ports, udp) = match text.rsplit_once('/') {
            None | Some((_, "tcp")) => (text.strip_suffix("/tcp").unwrap_or(text), false),
            Some((ports, "udp")) => (ports, true),
            Some(_) => return Err(wrong()),
        };
        let (outside, inside) = ports.rsplit_once(':').ok_or_else(wrong)?;
        let (at, outside) = match outside.rsplit_once(':') {
            Some((ip, port)) => {
                let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
                (Some(ip.parse().map_err(|_| wrong())?), port)
            }
            None => (None, outside),
        };
        let port = |text: &str| text.parse().ok().filter(|p| *p != 0).ok_or_else(wrong);
        Ok(Self { at, port: port(outside)?, to: Published { udp, port: port(inside)? } })
    }
}

impl Publish {
    /// A socket there, which listens or else keeps others from it.
    fn bound(&self, listens: bool) -> Result<OwnedFd, Failure> {
        let any = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
        let own = self.at.map(|ip| [ip; 1]);
        let places: &[IpAddr] = own.as_ref().map_or(&any, |own| own);
        let mut last = Errno::AFNOSUPPORT;
        for ip in places {
            match self.bind(SocketAddr::new(*ip, self.port), listens) {
                Ok(socket) => return Ok(socket),
                // A host without IPv6.
                Err(e @ (Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)) => last = e,
                Err(e) => {
                    last = e;
                    break;
                }
            }
        }
        let kind = if self.to.udp { "udp" } else { "tcp" };
        let place = self.at.map(|ip| format!("{ip} ")).unwrap_or_default();
        Err(Failure::Host { what: format!("--publish: {place}port {}/{kind}", self.port), source: last.into() })
    }

    /// One that does not wait. At any address of IPv6 it is at any of IPv4, too.
    fn bind(&self, at: SocketAddr, listens: bool) -> Result<OwnedFd, Errno> {
        let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let (kind, protocol) =
            if self.to.udp { (SocketType::DGRAM, ipproto::UDP) } else { (SocketType::STREAM, ipproto::TCP) };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, kind, flags, Some(protocol))?;
        if at.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, self.at.is_some())?;
        }
        if !self.to.udp {
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        rustix::net::bind(&socket, &at)?;
        if !self.to.udp && listens {
            rustix::net::listen(&socket, WAITING)?;
        }
        Ok(socket)
    }
}

/// The network of a `do`, as far as it is made here.
pub struct Network {
    /// What the first of the descriptors is for it.
    pub from: NetworkFrom,
    descriptors: Vec<OwnedFd>,
    /// What was made for it, and is there as long as this is.
    made: Option<Made>,
    /// What keeps others from published ports.
    _reserved: Vec<OwnedFd>,
    /// A resolv.conf to be shown in the place of the host's.
    names: Option<File>,
}

impl Network {
    /// What was asked for, with published ports bound.
    pub fn of(asked: &Do) -> Result<Self, Failure> {
        if !matches!(asked.network, Mode::User | Mode::Sandbox) && !asked.publish.is_empty() {
            return Err(Failure::Usage("--publish: only with --network user or sandbox".into()));
        }
        if asked.publish.len() > PUBLISHED {
            return Err(Failure::Usage(format!("--publish: more than {PUBLISHED} ports")));
        }
        let open = |path: &Path| {
            let what = format!("the network namespace {}", path.display());
            File::open(path).map(OwnedFd::from).map_err(Failure::host(what))
        };
        let own = || open(Path::new("/proc/thread-self/ns/net"));
        let none = Self {
            from: NetworkFrom::Namespace,
            descriptors: Vec::new(),
            made: None,
            _reserved: Vec::new(),
            names: None,
        };
        // There must be a place for it, unless one can be made.
        let root = asked.rootfs.as_deref().unwrap_or(Path::new("/"));
        let has_place = !asked.readonly || root.join("etc/resolv.conf").exists();
        let file = |text: Option<String>| text.filter(|_| has_place).map(|text| nameless(&text)).transpose();
        let another = asked.rootfs.is_some();
        match &asked.network {
            Mode::None => Ok(none),
            Mode::Namespace(path) => Ok(Self { descriptors: vec![open(path)?], ..none }),
            Mode::Host => Ok(Self { from: NetworkFrom::Host, descriptors: vec![own()?], ..none }),
            Mode::User => {
                let mut descriptors = vec![own()?];
                for publish in &asked.publish {
                    descriptors.push(publish.bound(true)?);
                }
                let names = names(&host_names(), another, RESOLVER.into());
                let published = asked.publish.iter().map(|p| p.to).collect();
                let user = User { resolver: Some(names.resolver), six: leads_far(), published };
                Ok(Self { from: NetworkFrom::User(user), descriptors, names: file(names.text)?, ..none })
            }
            Mode::Sandbox => {
                let reserved = asked.publish.iter().map(|p| p.bound(false)).collect::<Result<_, _>>()?;
                let names = names(&host_names(), another, cofferdam_control::netd::NAMES);
                let ports: Vec<_> = asked.publish.iter().map(|p| (p.at, p.port, p.to)).collect();
                let made = Made::new(&ports, &names.servers, leads_far())?;
                let namespace = made.namespace().try_clone_to_owned().map_err(Failure::host("its namespace"))?;
                let (mut descriptors, mut from) = (vec![namespace], NetworkFrom::Namespace);
                if names.near {
                    from = NetworkFrom::Named(SocketAddr::new(names.resolver, DOMAIN));
                    let asks = (0..ASKING).map(|_| asking(names.resolver)).collect::<Result<Vec<_>, _>>();
                    let what = format!("asking {} for names", names.resolver);
                    descriptors.extend(asks.map_err(|e| Failure::Host { what, source: e.into() })?);
                    descriptors.push(own()?);
                }
                let names = file(names.text)?;
                Ok(Self { from, descriptors, made: Some(made), _reserved: reserved, names })
            }
        }
    }

    /// What it lacks.
    pub fn warnings(&self) -> &[String] {
        self.made.as_ref().map_or(&[], |made| &made.warnings)
    }

    /// Whether it is one that was made for it alone.
    pub fn is_own(&self) -> bool {
        matches!(self.from, NetworkFrom::User(_)) || self.made.is_some()
    }

    /// What goes with the request for it; `None`: there is nothing to be asked for.
    pub fn descriptors(&self) -> Option<Vec<BorrowedFd<'_>>> {
        Some(self.descriptors.iter().map(AsFd::as_fd).collect()).filter(|all: &Vec<_>| !all.is_empty())
    }

    /// The resolv.conf that it is to have.
    pub fn names(&self) -> Option<BorrowedFd<'_>> {
        self.names.as_ref().map(AsFd::as_fd)
    }
}

fn host_names() -> String {
    let mut text = Vec::new();
    // A host without one asks itself (resolv.conf(5)).
    let _ = File::open("/etc/resolv.conf").and_then(|f| f.take(MOST).read_to_end(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}

/// Who answers for names.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    /// Whom netd is to ask.
    resolver: IpAddr,
    /// All that the host asks.
    servers: Vec<IpAddr>,
    /// One of them is not to be reached but from the host itself.
    near: bool,
    /// The text of the resolv.conf that the sandbox gets, if not the host's will do.
    text: Option<String>,
}

/// As a resolv.conf says. `another`: the root is not the host's. Who is asked at the host's loopback addresses is out of reach inside: there he
/// is `instead`.
fn names(host: &str, another: bool, instead: IpAddr) -> Names {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let name = (words.next() == Some("nameserver")).then(|| words.next()).flatten()?;
        name.split('%').next()?.parse::<IpAddr>().ok()
    };
    let servers: Vec<IpAddr> = host.lines().filter_map(server).collect();
    let first = servers.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let is_near = |ip: &IpAddr| match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local(),
    };
    let resolver = servers.iter().copied().find(is_near).unwrap_or(first);
    let near = servers.is_empty() || servers.iter().any(is_near);
    if !near {
        return Names { resolver, servers, near, text: another.then(|| host.to_owned()) };
    }
    let mut text = format!("nameserver {instead}\n");
    let others = host.lines().filter(|l| server(l).is_none_or(|ip| !is_near(&ip)));
    others.for_each(|line| text.push_str(&format!("{line}\n")));
    Names { resolver, servers, near, text: Some(text) }
}

/// A socket that asks there, and nowhere else.
fn asking(resolver: IpAddr) -> Result<OwnedFd, Errno> {
    let family = if resolver.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddr::new(resolver, DOMAIN))?;
    Ok(socket)
}

/// A file without a name, to be read. In a file system all the same: the Gofer's walls are told of files in such alone.
fn nameless(text: &str) -> Result<File, Failure> {
    let what = || Failure::host("a resolv.conf for the sandbox");
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let make = |folder: &str| rustix::fs::open(folder, flags, 0o600.into());
    let made = ["/run", "/dev/shm", "/tmp"].into_iter().map(make).reduce(|one, next| one.or(next));
    let made = made.unwrap_or(Err(Errno::NOENT));
    let mut file = File::from(made.map_err(|e| what()(e.into()))?);
    file.write_all(text.as_bytes()).map_err(what())?;
    // Whoever is somebody else inside reads it, too.
    rustix::fs::fchmod(&file, 0o644.into()).map_err(|e| what()(e.into()))?;
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(what())
}

/// Whether IPv6 leads anywhere.
fn leads_far() -> bool {
    let socket = rustix::net::socket_with(AddressFamily::INET6, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    socket.and_then(|socket| rustix::net::connect(&socket, &FAR)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_parsed_and_nonsense_is_refused() {
        let of = |text: &str| text.parse::<Publish>();
        let ip = |text: &str| Some(text.parse().unwrap());
        let is = |at, port, udp, inside| Publish { at, port, to: Published { udp, port: inside } };
        assert_eq!(of("8080:80"), Ok(is(None, 8080, false, 80)));
        assert_eq!(of("127.0.0.1:53:5353/udp"), Ok(is(ip("127.0.0.1"), 53, true, 5353)));
        assert_eq!(of("[::1]:8080:80/tcp"), Ok(is(ip("::1"), 8080, false, 80)));
        for bad in
            ["", "80", ":80", "80:", "0:80", "80:0", "80:70000", "x:80", "1.2.3:1:2", "80:80/sctp", "1:2:3:4/udp/"]
        {
            assert!(of(bad).is_err(), "{bad}");
        }
        let mode = |text: &str| text.parse::<Mode>();
        assert_eq!((mode("user"), mode("none"), mode("host")), (Ok(Mode::User), Ok(Mode::None), Ok(Mode::Host)));
        assert_eq!(mode("sandbox"), Ok(Mode::Sandbox));
        assert_eq!(mode("ns:/run/netns/a"), Ok(Mode::Namespace("/run/netns/a".into())));
        for bad in ["", "ns", "ns:", "ns:a", "bridge", "none:/a"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn who_is_asked_for_names_at_a_loopback_address_is_asked_by_another() {
        let of = |text: &str, another| {
            let names = names(text, another, RESOLVER.into());
            (names.resolver.to_string(), names.near, names.text)
        };
        let is = |ip: &str, near, text: Option<&str>| (ip.to_owned(), near, text.map(str::to_owned));
        assert_eq!(of("nameserver 9.9.9.9\nsearch a\n", false), is("9.9.9.9", false, None));
        assert_eq!(of("nameserver 9.9.9.9\n", true), is("9.9.9.9", false, Some("nameserver 9.9.9.9\n")));
        let text = "# stub\nnameserver 127.0.0.53\nnameserver 9.9.9.9\noptions edns0\n";
        let wanted = "nameserver 10.0.2.3\n# stub\nnameserver 9.9.9.9\noptions edns0\n";
        assert_eq!(of(text, false), is("127.0.0.53", true, Some(wanted)));
        assert_eq!(of("", false), is("127.0.0.1", true, Some("nameserver 10.0.2.3\n")));
    }
}
