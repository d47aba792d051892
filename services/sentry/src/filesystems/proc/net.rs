//! `/proc/PID/net`: sockets, devices and addresses of a process's network namespace, `proc(5)`.
//!
//! Tables are made as they are read, of what `ipc::inet` tells. Never here: what a socket does. Called by `process`.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::ipc::inet::address::{Domain, Endpoint, six};
use crate::ipc::inet::groups::Shown;
use crate::ipc::inet::tcp::Phase;
use crate::ipc::inet::{Inet, Kind};
use crate::namespaces::NetNamespace;
use crate::task::Creds;

/// Makes a file's text, as someone sees it.
pub type Make = fn(&NetNamespace, &Creds) -> String;

/// The files, and what makes each.
pub const FILES: &[(&str, Make)] = &[
    ("arp", |_, _| "IP address       HW type     Flags       HW address            Mask     Device\n".into()),
    ("dev", devices),
    ("icmp", |net, creds| raw(net, PINGS, Domain::V4, creds)),
    ("icmp6", |net, creds| raw(net, PINGS, Domain::V6, creds)),
    ("if_inet6", if_inet6),
    ("netlink", |_, _| {
        "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n".into()
    }),
    ("packet", packets),
    ("raw", |net, creds| raw(net, RAWS, Domain::V4, creds)),
    ("raw6", |net, creds| raw(net, RAWS, Domain::V6, creds)),
    ("route", |net, _| {
        // There is no table before there is an address.
        if !net.loopback.was_up() {
            return String::new();
        }
        routes(net)
    }),
    ("igmp", |net, _| groups(net)),
    ("ipv6_route", |net, _| routes6(net)),
    ("snmp", snmp),
    ("sockstat", sockstat),
    ("sockstat6", sockstat6),
    ("tcp", |net, creds| tcp(net, Domain::V4, creds)),
    ("tcp6", |net, creds| tcp(net, Domain::V6, creds)),
    ("udp", |net, creds| udp(net, Domain::V4, creds)),
    ("udp6", |net, creds| udp(net, Domain::V6, creds)),
    ("unix", |_, _| "Num       RefCount Protocol Flags    Type St Inode Path\n".into()),
];

/// Packet sockets.
fn packets(net: &NetNamespace, creds: &Creds) -> String {
    let mut text = String::from("sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n");
    for socket in net.taps.list() {
        let ((protocol, device, hears, waits, ino), kind) = (socket.shown(), if socket.raw { 3 } else { 2 });
        let user = creds.shown_uid(socket.uid);
        let _ = writeln!(
            text,
            "0000000000000000 3      {kind:<4} {protocol:04x}   {device:<5} {} {waits:<6} {user:<6} {ino:<6}",
            i32::from(hears)
        );
    }
    text
}

/// The loopback device counts no packets, as there are none.
const DEVICES: &str = "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop \
    fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    lo:       0       \
    0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n";

/// The loopback device, and those that netd has.
fn devices(net: &NetNamespace, _: &Creds) -> String {
    let mut text: String = DEVICES.into();
    for (interface, t) in net.outside().into_iter().flat_map(|o| o.interfaces()) {
        let _ = writeln!(
            text,
            "{:>6}: {:>7} {:>7} {:>4} {:>4} {:>4} {:>5} {:>10} {:>9} {:>8} {:>7} {:>4} {:>4} {:>4} {:>5} {:>7} {:>10}",
            interface.name,
            t.received_bytes,
            t.received_packets,
            0,
            t.received_lost,
            0,
            0,
            0,
            0,
            t.sent_bytes,
            t.sent_packets,
            0,
            t.sent_lost,
            0,
            0,
            0,
            0
        );
    }
    text
}

/// Groups of IPv4 that there are members of.
fn groups(net: &NetNamespace) -> String {
    let mut text = String::from("Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n");
    let outside = net.outside().into_iter().flat_map(|o| &o.network.interfaces).map(|i| (i.index, i.name.as_str()));
    let own = net.loopback.was_up().then_some((crate::ipc::netlink::INDEX, "lo"));
    for (index, name) in own.into_iter().chain(outside) {
        let (version, mut members) = net.groups.list(index, false);
        let all = std::net::Ipv4Addr::new(224, 0, 0, 1).into();
        members.push(Shown { group: all, times: 1, due: None, told: false });
        let _ = writeln!(text, "{index}\t{name:<10}: {:>5} {:>7}", members.len(), format!("V{version}"));
        for Shown { group, times, due, told } in members {
            let IpAddr::V4(group) = group else { continue };
            let group = u32::from_ne_bytes(group.octets());
            // In hundredths of a second.
            let ticks = due.unwrap_or(0) / (crate::time::NS / 100);
            let _ = writeln!(
                text,
                "\t\t\t\t{group:08X} {times:>5} {}:{ticks:08X}\t\t{}",
                u8::from(due.is_some()),
                u8::from(told)
            );
        }
    }
    text
}

/// Routes of IPv4.
fn routes(net: &NetNamespace) -> String {
    const UP: u32 = 1;
    const GATEWAY: u32 = 2;
    let heads = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT";
    let mut text = format!("{heads:<127}\n");
    let Some(outside) = net.outside() else { return text };
    for r in &outside.network.routes {
        let (IpAddr::V4(to), Some(by)) = (r.to.ip, outside.network.interface(r.interface)) else { continue };
        let word = |ip: std::net::Ipv4Addr| format!("{:08X}", u32::from_ne_bytes(ip.octets()));
        let via = if let Some(IpAddr::V4(via)) = r.via { via } else { std::net::Ipv4Addr::UNSPECIFIED };
        let flags = UP | if r.via.is_some() { GATEWAY } else { 0 };
        let mask = u32::MAX.checked_shl(32u32.saturating_sub(r.to.prefix.into())).unwrap_or(0).into();
        let line = format!(
            "{}\t{}\t{}\t{flags:04X}\t0\t0\t{}\t{}\t0\t0\t0",
            by.name,
            word(to),
            word(via),
            r.metric,
            word(mask)
        );
        let _ = writeln!(text, "{line:<127}");
    }
    text
}

/// Routes of IPv6.
fn routes6(net: &NetNamespace) -> String {
    let mut text = String::new();
    let Some(outside) = net.outside() else { return text };
    for r in &outside.network.routes {
        let (IpAddr::V6(to), Some(by)) = (r.to.ip, outside.network.interface(r.interface)) else { continue };
        let via = if let Some(IpAddr::V6(via)) = r.via { via } else { std::net::Ipv6Addr::UNSPECIFIED };
        let flags = 1 | if r.via.is_some() { 2 } else { 0 };
        let _ = writeln!(
            text,
            "{:032x} {:02x} {:032x} 00 {:032x} {:08x} 00000001 00000000 {flags:08x} {:>8}",
            to.to_bits(),
            r.to.prefix,
            0,
            via.to_bits(),
            r.metric,
            by.name
        );
    }
    text
}

/// An address as a table shows it.
fn shown(at: Endpoint, domain: Domain) -> String {
    let word = |b: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(b));
    let ip = match (domain, at.ip) {
        (Domain::V4, IpAddr::V4(ip)) => word(ip.octets()),
        (Domain::V4, IpAddr::V6(_)) => word([0; 4]),
        // No address in particular is all zeros, not a mapped one.
        (Domain::V6, ip) => {
            let raw = if ip.is_unspecified() { [0; 16] } else { six(ip).octets() };
            raw.as_chunks::<4>().0.iter().map(|b| word(*b)).collect()
        }
    };
    format!("{ip}:{:04X}", at.port)
}

/// Sockets of a kind and family, in the order in which they were made.
fn sockets(net: &NetNamespace, kind: Kind, domain: Domain) -> Vec<Arc<Inet>> {
    let mut all = net.ports(kind).lock().all().0;
    all.retain(|s| s.domain == domain);
    all.sort_by_key(|s| s.id);
    all
}

fn ends(socket: &Inet) -> (Endpoint, Endpoint) {
    let none = Endpoint { ip: socket.domain.any(), port: 0 };
    let known = if socket.kind == Kind::Tcp { socket.tcp_peer() } else { socket.peer().ok() };
    (socket.name(), known.unwrap_or(none))
}

fn tcp(net: &NetNamespace, domain: Domain, creds: &Creds) -> String {
    let mut text = match domain {
        Domain::V4 => {
            let heads =
                "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
            format!("{heads:<149}\n")
        }
        Domain::V6 => {
            "  sl  local_address                         remote_address                        st tx_queue rx_queue \
             tr tm->when retrnsmt   uid  timeout inode\n"
                .into()
        }
    };
    let mut all = sockets(net, Kind::Tcp, domain);
    all.sort_by_key(|s| !s.listens());
    let mut number = 0;
    for s in all {
        let (phase, _, pending) = s.tcp_look();
        if phase == Phase::Close {
            continue;
        }
        let (own, other) = ends(&s);
        let unsent = s.tcp_unsent().unwrap_or(0);
        let (uid, tail) = match phase {
            Phase::Listen => (s.shown_uid(creds), "100 0 0 10 0"),
            _ => (s.shown_uid(creds), "20 0 0 10 -1"),
        };
        let line = format!(
            "{number:>4}: {} {} {:02X} {unsent:08X}:{:08X} 00:00000000 00000000 {uid:>5}        0 {} {} 0000000000000000 {tail}",
            shown(own, domain),
            shown(other, domain),
            phase.number(),
            if phase == Phase::Listen { pending } else { s.tcp_unread() },
            s.ino(),
            if s.ino() == 0 { 1 } else { 2 },
        );
        let _ = writeln!(text, "{line:<width$}", width = if domain == Domain::V4 { 149 } else { 0 });
        number += 1;
    }
    let left = net.ports(Kind::Tcp).lock().all().1;
    for ((own, other), ns) in left {
        if own.ip.is_ipv4() != (domain == Domain::V4) {
            continue;
        }
        let ticks = ns / 10_000_000;
        let line = format!(
            "{number:>4}: {} {} 06 00000000:00000000 03:{ticks:08X} 00000000     0        0 0 3 0000000000000000",
            shown(own, domain),
            shown(other, domain)
        );
        let _ = writeln!(text, "{line:<width$}", width = if domain == Domain::V4 { 149 } else { 0 });
        number += 1;
    }
    text
}

fn udp(net: &NetNamespace, domain: Domain, creds: &Creds) -> String {
    const UNCONNECTED: u8 = 7;
    let mut text = match domain {
        Domain::V4 => {
            let heads = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref \
                         pointer drops";
            format!("{heads:<127}\n")
        }
        Domain::V6 => {
            "  sl  local_address                         remote_address                        st tx_queue rx_queue \
             tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"
                .into()
        }
    };
    for s in sockets(net, Kind::Udp, domain) {
        let (own, other) = ends(&s);
        let state = if s.peer().is_ok() { 1 } else { UNCONNECTED };
        let line = format!(
            "{:>5}: {} {} {state:02X} 00000000:{:08X} 00:00000000 00000000 {:>5}        0 {} 2 0000000000000000 0",
            own.port,
            shown(own, domain),
            shown(other, domain),
            s.udp_queued(),
            s.shown_uid(creds),
            s.ino(),
        );
        let _ = writeln!(text, "{line:<width$}", width = if domain == Domain::V4 { 127 } else { 0 });
    }
    text
}

/// What the tables of raw and of ping sockets are of; the number of a protocol, or of one that asked, stands for a port.
const RAWS: Kind = Kind::Raw(0);
const PINGS: Kind = Kind::Ping(0);

fn raw(net: &NetNamespace, kind: Kind, domain: Domain, creds: &Creds) -> String {
    const UNCONNECTED: u8 = 7;
    let ping = kind == PINGS;
    let heads = match domain {
        Domain::V4 if ping => {
            "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops"
        }
        Domain::V4 => {
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops"
        }
        Domain::V6 => {
            "  sl  local_address                         remote_address                        st tx_queue rx_queue \
             tr tm->when retrnsmt   uid  timeout inode ref pointer drops"
        }
    };
    // Only the table of ping sockets of IPv4 has lines of one length.
    let width = if ping && domain == Domain::V4 { 127 } else { 0 };
    let mut text = format!("{heads:<width$}\n");
    for s in sockets(net, kind, domain) {
        let (own, other) = ends(&s);
        let state = if s.peer().is_ok() { 1 } else { UNCONNECTED };
        let line = format!(
            "{:>4}: {} {} {state:02X} 00000000:{:08X} 00:00000000 00000000 {:>5}        0 {} 2 0000000000000000 0",
            own.port,
            shown(own, domain),
            shown(other, domain),
            s.udp_queued(),
            s.shown_uid(creds),
            s.ino(),
        );
        let _ = writeln!(text, "{line:<width$}");
    }
    text
}

fn if_inet6(net: &NetNamespace, _: &Creds) -> String {
    let mut text = String::new();
    if net.loopback.has_six() {
        text.push_str("00000000000000000000000000000001 01 80 10 80       lo\n");
    }
    for i in net.outside().into_iter().flat_map(|o| &o.network.interfaces) {
        for a in &i.addresses {
            if let IpAddr::V6(ip) = a.ip {
                let scope = if ip.is_unicast_link_local() { 0x20 } else { 0 };
                let _ = writeln!(
                    text,
                    "{:032x} {:02x} {:02x} {scope:02x} 80 {:>8}",
                    ip.to_bits(),
                    i.index,
                    a.prefix,
                    i.name
                );
            }
        }
    }
    text
}

fn sockstat(net: &NetNamespace, _: &Creds) -> String {
    let used = |kind| sockets(net, kind, Domain::V4).len();
    let tcp = net.ports(Kind::Tcp).lock().all();
    let inuse = sockets(net, Kind::Tcp, Domain::V4).iter().filter(|s| s.tcp_look().0 != Phase::Close).count();
    format!(
        "sockets: used {}\nTCP: inuse {inuse} orphan 0 tw {} alloc {} mem 0\nUDP: inuse {} mem 0\nUDPLITE: inuse 0\nRAW: inuse {}\n\
         FRAG: inuse 0 memory 0\n",
        tcp.0.len() + used(Kind::Udp) + used(Kind::Raw(0)),
        tcp.1.len(),
        tcp.0.len(),
        used(Kind::Udp),
        used(Kind::Raw(0)),
    )
}

fn sockstat6(net: &NetNamespace, _: &Creds) -> String {
    let used = |kind| sockets(net, kind, Domain::V6).len();
    format!(
        "TCP6: inuse {}\nUDP6: inuse {}\nUDPLITE6: inuse 0\nRAW6: inuse {}\nFRAG6: inuse 0 memory 0\n",
        used(Kind::Tcp),
        used(Kind::Udp),
        used(Kind::Raw(0)),
    )
}

/// What is counted. There are no packets: what counts those is 0.
fn snmp(net: &NetNamespace, _: &Creds) -> String {
    let of = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
    let connected = |s: &Arc<Inet>| matches!(s.tcp_look().0, Phase::Established | Phase::CloseWait);
    let current = net.ports(Kind::Tcp).lock().all().0.iter().filter(|s| connected(s)).count();
    let c = &net.counts;
    format!(
        "Ip: Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams InUnknownProtos InDiscards InDelivers \
         OutRequests OutDiscards OutNoRoutes ReasmTimeout ReasmReqds ReasmOKs ReasmFails FragOKs FragFails FragCreates\n\
         Ip: 2 {} 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n\
         Icmp: InMsgs InErrors InCsumErrors InDestUnreachs InTimeExcds InParmProbs InSrcQuenchs InRedirects InEchos InEchoReps \
         InTimestamps InTimestampReps InAddrMasks InAddrMaskReps OutMsgs OutErrors OutDestUnreachs OutTimeExcds OutParmProbs \
         OutSrcQuenchs OutRedirects OutEchos OutEchoReps OutTimestamps OutTimestampReps OutAddrMasks OutAddrMaskReps\n\
         Icmp: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n\
         Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs \
         RetransSegs InErrs OutRsts InCsumErrors\n\
         Tcp: 1 200 120000 -1 {} {} {} {} {current} 0 0 0 0 0 0\n\
         Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors\n\
         Udp: {} {} {} {} {} 0 0 0 0\n\
         UdpLite: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors\n\
         UdpLite: 0 0 0 0 0 0 0 0 0\n",
        net.settings.ttl.load(Ordering::Relaxed),
        of(&c.active),
        of(&c.passive),
        of(&c.failed),
        of(&c.reset),
        of(&c.received),
        of(&c.no_port),
        of(&c.lost),
        of(&c.sent),
        of(&c.lost),
    )
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn addresses_are_shown_in_the_hosts_order() {
        let at = Endpoint { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 8080 };
        assert_eq!(shown(at, Domain::V4), "0100007F:1F90");
        assert_eq!(shown(at, Domain::V6), "0000000000000000FFFF00000100007F:1F90");
        let any = Endpoint { ip: Domain::V6.any(), port: 99 };
        assert_eq!(shown(any, Domain::V6), "00000000000000000000000000000000:0063");
    }
}
