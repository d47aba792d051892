//! A netd between a hostile Sentry and a hostile network, for fuzz targets and the replay of their corpus. No service turns it on.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cofferdam_control::netd::{Address, Interface, Network, Route};
use cofferdam_control::rules::Rules;
use cofferdam_socket::queue::Sender;
use cofferdam_socket::slot::{Operation, Slot};
use cofferdam_socket::{Broken, FRAMES, PACKETS, Side, WINDOW_BYTES, Window, frame};
use cofferdam_tcp::Limits;

use crate::connections::Connections;
use crate::device::{Arrived, Device, OFFLOAD};
use crate::ip;
use crate::names::Names;
use crate::stack::{Stack, Wire};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn network() -> Network {
    let address = |ip: &str, prefix| ip.parse().ok().map(|ip| Address { ip, prefix });
    let addresses = [address("10.0.0.2", 24), address("fd00::2", 64)].into_iter().flatten().collect();
    let interface = Interface { name: "eth0".into(), index: 2, mac: MAC, mtu: 1500, addresses };
    let route = |to: Option<Address>| to.map(|to| Route { to, via: None, interface: 2, source: None, metric: 0 });
    let routes = [route(address("0.0.0.0", 0)), route(address("::", 0))].into_iter().flatten().collect();
    Network { interfaces: vec![interface], routes, ..Network::default() }
}

pub(crate) struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn byte(&mut self) -> u8 {
        let [first, rest @ ..] = self.0 else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn word(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    pub fn some(&mut self, n: usize) -> &'a [u8] {
        let (some, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        some
    }
}

/// A frame to the interface: of the bytes alone, or a sound packet around them.
fn frame(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let kind = bytes.byte();
    let len = usize::from(bytes.byte()) * 2;
    let data = bytes.some(len).to_vec();
    let six = kind & 1 != 0;
    let ips = if six { ["fd00::1", "fd00::2"] } else { ["10.0.0.1", "10.0.0.2"] };
    let [Ok(from), Ok(to)] = ips.map(str::parse) else { return data };
    let protocol = match kind >> 1 & 7 {
        0 => ip::TCP,
        1 => ip::UDP,
        2 if six => ip::ICMP6,
        2 => ip::ICMP,
        3 => 44,
        other => other,
    };
    let head = ip::Head { from, to, protocol, hops: 255, service: 0, piece: None };
    let packet = match kind >> 5 {
        0 => data,
        1 => ip::cut(&head, 7, &data, 576).and_then(|mut all| all.pop()).unwrap_or_default(),
        _ => ip::build(&head, 7, false, &data).unwrap_or_default(),
    };
    let ethernet = match kind >> 5 {
        0 => [0x08, 0x06],
        _ if six => [0x86, 0xdd],
        _ => [0x08, 0],
    };
    [&MAC[..], &[2, 0, 0, 0, 0, 1], &ethernet, &packet].concat()
}

/// Words and slots that a hostile Sentry writes, frames that a hostile network sends, and time that passes. It ends by itself: by a rule that was
/// broken, or when nothing is left.
pub fn hostile(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let (Ok(window), Ok((ours, _theirs))) = (Window::create("fuzz", WINDOW_BYTES), UnixDatagram::pair()) else {
        return;
    };
    let window = Arc::new(window);
    if ours.set_nonblocking(true).is_err() {
        return;
    }
    let mut now = Instant::now();
    // Where it begins so: with rules that let all pass, or with such that do not. (As a step the byte means little.)
    let rules = match bytes.0.first() {
        Some(0xf7) => "out allow all; in allow all",
        Some(0xff) => {
            "out allow udp :0-99; out deny any 10.0.0.1:100-300; out deny icmp; in allow tcp :0-50; in allow udp :7; in default deny"
        }
        _ => "",
    };
    let Ok(rules) = Rules::parse(rules) else { return };
    let wire = Wire::new(network(), rules, vec![Device::new(OwnedFd::from(ours))], Names::default(), 1, now);
    let limits = Limits { connections: 64, half_open: 16, time_wait: 16, listeners: 16, ..Limits::default() };
    let Ok(connections) = Connections::new(window.clone(), limits, 7) else { return };
    let mut stack = Stack::new(wire, connections);
    let mut queue = Connections::queue(&window);
    let mut teller = Sender::new(window.clone(), Side::Netd);
    let mut step = || -> Result<bool, Broken> {
        if bytes.0.is_empty() {
            return Ok(false);
        }
        let what = bytes.byte();
        match what & 7 {
            0 => {
                let slot = Slot::new(&window, u32::from(bytes.byte() & 7))?;
                let port = u16::from(bytes.byte());
                let local: SocketAddr = ([10, 0, 0, 2], port).into();
                let remote: SocketAddr = ([10, 0, 0, 1], u16::from(bytes.byte())).into();
                let operation = if what & 8 != 0 { Operation::Listen } else { Operation::Connect };
                slot.prepare(&window, operation, local, Some(remote), 3);
                teller.tell(&slot)?;
            }
            // Any word of the first slots of either side, or of the queues.
            1 => {
                let slot = Slot::new(&window, u32::from(bytes.byte() & 7) | if what & 8 != 0 { 0x8000 } else { 0 })?;
                let at = slot.word(u64::from(bytes.byte() & 63) * 4);
                window.store(at, bytes.word());
                teller.tell(&slot)?;
            }
            2 => window.store(u64::from(bytes.byte()) * 4, bytes.word()),
            // Frames of packet sockets: what is wanted, and bytes that may be some to send.
            3 if what & 0x80 != 0 => {
                let slot = Slot::new(&window, FRAMES)?;
                slot.say(&window, u32::from(what >> 5 & 3));
                let (mut ring, _) = slot.rings(&window, Side::Sentry);
                let word = bytes.word();
                let head = frame::Head { interface: word & 3, lost: 0, flags: word };
                let rest = bytes.some(usize::from(what));
                if what & 8 != 0 {
                    frame::put(&mut ring, head, &[0; frame::LEAST], rest)?;
                } else {
                    ring.put(&[rest])?;
                }
                teller.tell(&slot)?;
            }
            3 => {
                let slot = Slot::new(&window, PACKETS)?;
                let (mut ring, _) = slot.rings(&window, Side::Sentry);
                ring.put(&[bytes.some(usize::from(what))])?;
                teller.tell(&slot)?;
            }
            4 | 5 => {
                let frame = frame(&mut bytes);
                let len = frame.len();
                let buffer = [vec![0; OFFLOAD], frame].concat();
                stack.frame(0, &buffer, Arrived { len, trusted: what & 8 != 0 })?;
            }
            6 => {
                now += Duration::from_millis(u64::from(bytes.byte()) * 100);
                stack.wire.set_now(now);
                stack.tick()?;
            }
            _ => {
                while let Some(slot) = queue.pop()? {
                    let Stack { connections, wire, .. } = &mut stack;
                    match slot.number() {
                        PACKETS => connections.send_packets(wire).map(drop)?,
                        FRAMES => wire.send_frames().map(drop)?,
                        _ => connections.asked(slot, now, wire)?,
                    }
                }
            }
        }
        Ok(true)
    };
    while let Ok(true) = step() {}
}
