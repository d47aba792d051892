//! A netd behind sockets between a hostile Sentry and hostile callers, for fuzz targets and the replay of their corpus. No service turns it on.
//!
//! It may make no socket of its own: those that called are given, as ends of pairs.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cofferdam_control::netd::{INSIDE, Network, RESOLVER, ROUTER, User};
use cofferdam_control::rules::Rules;
use cofferdam_socket::packet::Head;
use cofferdam_socket::queue::{Receiver, Sender};
use cofferdam_socket::slot::{Binding, Operation, Slot};
use cofferdam_socket::{Broken, PACKETS, Side, WINDOW_BYTES, Window, packet};
use rustix::event::epoll;

use super::{Hosted, SPARE, STREAMS};
use crate::behind::Behind;
use crate::testing::Bytes;

/// Words and slots that a hostile Sentry writes, data and ends of those who called, and time that passes. It ends by itself: by a rule that was broken,
/// or when nothing is left.
pub fn hostile(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let (Ok(window), Ok(epoll)) =
        (Window::create("fuzz", WINDOW_BYTES), epoll::create(epoll::CreateFlags::CLOEXEC).map(Arc::new))
    else {
        return;
    };
    let window = Arc::new(window);
    let user = User { resolver: Some(Ipv4Addr::LOCALHOST.into()), six: true, published: Vec::new() };
    // One behind its caller's sockets, or in the host's own network. Not one more socket than those that are given.
    let host = bytes.byte() & 1 != 0;
    let (network, user) = (Network { host, ..Network::user(true) }, Some(user).filter(|_| !host));
    let Ok(mut hosted) = Hosted::new(network, user, Rules::default(), Vec::new(), &window, epoll, SPARE) else {
        return;
    };
    let (mut queue, mut teller) = (Receiver::new(window.clone(), Side::Netd), Sender::new(window.clone(), Side::Netd));
    let mut callers: Vec<UnixStream> = Vec::new();
    let mut now = Instant::now();
    let address = |what: u8, port: u8| -> SocketAddr {
        let ips = [INSIDE, ROUTER, RESOLVER, Ipv4Addr::LOCALHOST, Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::BROADCAST];
        (ips.get(usize::from(what) % ips.len()).copied().unwrap_or(INSIDE), u16::from(port)).into()
    };
    let mut step = || -> Result<bool, Broken> {
        if bytes.0.is_empty() {
            return Ok(false);
        }
        let what = bytes.byte();
        match what & 7 {
            0 => {
                let slot = Slot::new(&window, u32::from(bytes.byte() & 7))?;
                let (local, remote) = (address(0, bytes.byte()), address(bytes.byte(), bytes.byte()));
                let all = [Operation::Connect, Operation::Listen, Operation::Bind, Operation::Datagrams];
                let operation = all.get(usize::from(what >> 3) & if host { 3 } else { 1 }).copied();
                let operation = operation.unwrap_or(Operation::Connect);
                if what & 32 == 0 {
                    slot.prepare(&window, operation, local, Some(remote), 3);
                }
                if host {
                    slot.ask(&window, operation, (local, Some(remote)), 3, Binding::default());
                }
                teller.tell(&slot)?;
            }
            // Any word of the first slots of either side, or of the queues.
            1 => {
                let slot = Slot::new(&window, u32::from(bytes.byte() & 7) | if what & 8 != 0 { 0x8000 } else { 0 })?;
                window.store(slot.word(u64::from(bytes.byte() & 63) * 4), bytes.word());
                teller.tell(&slot)?;
            }
            2 => window.store(u64::from(bytes.byte()) * 4, bytes.word()),
            3 => {
                let slot = Slot::new(&window, PACKETS)?;
                let (mut ring, _) = slot.rings(&window, Side::Sentry);
                let head = Head {
                    from: address(0, 0).ip(),
                    to: address(bytes.byte(), 0).ip(),
                    protocol: [17, 1, 58, 6].get(usize::from(what >> 6)).copied().unwrap_or(0),
                    hops: 64,
                    service: 0,
                    flags: bytes.byte(),
                    interface: 0,
                    mtu: 0,
                };
                if what & 8 != 0 {
                    ring.put(&[bytes.some(usize::from(what))])?;
                } else {
                    packet::put(&mut ring, &head, bytes.some(usize::from(what)))?;
                }
                teller.tell(&slot)?;
                // The same by a socket with a place.
                let slot = Slot::new(&window, 2 + u32::from(what >> 4 & 3))?;
                let (mut ring, _) = slot.rings(&window, Side::Sentry);
                if host && what & 8 == 0 {
                    packet::put(&mut ring, &head, bytes.some(usize::from(what)))?;
                    teller.tell(&slot)?;
                }
            }
            // Somebody calls; or says something; or goes.
            4 => {
                let (Ok((ours, theirs)), slot) = (UnixStream::pair(), u32::from(bytes.byte() & 7)) else {
                    return Ok(false);
                };
                if callers.len() > 8 || ours.set_nonblocking(true).and(theirs.set_nonblocking(true)).is_err() {
                    return Ok(true);
                }
                callers.push(theirs);
                let Hosted { streams, bound, around, .. } = &mut hosted;
                // Or a slot gets the place that it asked for.
                match what >> 6 {
                    1 if host && slot > 1 => streams.placed(Slot::new(&window, slot)?, ours.into(), around)?,
                    2 if host && slot > 1 => bound.placed(Slot::new(&window, slot)?, ours.into(), around)?,
                    _ => streams.give(slot, ours.into(), address(0, 80), address(what, 9), around)?,
                }
            }
            5 => {
                let n = usize::from(bytes.byte());
                if let Some(mut caller) = callers.get(n & 7) {
                    let _ = caller.write(bytes.some(n));
                    let _ = caller.read(&mut [0; 64]);
                    if what & 8 != 0 {
                        let _ = caller.shutdown(std::net::Shutdown::Both);
                    }
                }
            }
            6 => {
                now += Duration::from_millis(u64::from(bytes.byte()) * 100);
                hosted.set_now(now);
                hosted.tick()?;
                let which = STREAMS | u64::from(bytes.byte() & 7) | 0x8000;
                hosted.happened(which, epoll::EventFlags::from_bits_retain(u32::from(bytes.byte())), false)?;
            }
            _ => {
                while let Some(slot) = queue.pop()? {
                    if slot.number() == PACKETS {
                        hosted.send_packets()?;
                    } else {
                        hosted.asked(slot)?;
                    }
                }
            }
        }
        Ok(true)
    };
    while let Ok(true) = step() {}
}
