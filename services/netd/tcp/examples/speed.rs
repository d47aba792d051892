//! How fast the engine is: two of them joined in memory, on one thread. `cargo run --release -p cofferdam-tcp --example speed`.

#![allow(clippy::expect_used)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cofferdam_tcp::{Bind, Engine, Flow, Id, Keepalive, Limits, Output, Tuning};

/// A link: packets in buffers that are used again.
#[derive(Default)]
struct Link {
    packets: Vec<Vec<u8>>,
    free: Vec<Vec<u8>>,
    /// Packets of several segments are cut up, as by a device without offload.
    single: bool,
    packets_sent: u64,
}

impl Link {
    fn push(&mut self, parts: [&[u8]; 2]) -> &mut Vec<u8> {
        self.packets_sent += 1;
        let mut packet = self.free.pop().unwrap_or_default();
        packet.clear();
        parts.iter().for_each(|part| packet.extend_from_slice(part));
        self.packets.push(packet);
        self.packets.last_mut().expect("one was pushed")
    }
}

impl Output for Link {
    fn send(&mut self, packet: &[u8], header: usize, segment: u16) {
        if segment == 0 || !self.single {
            self.push([packet, &[]]);
            return;
        }
        let (head, payload) = packet.split_at(header);
        let seq = u32::from_be_bytes(head[24..28].try_into().expect("four bytes"));
        for (n, part) in payload.chunks(usize::from(segment)).enumerate() {
            let one = self.push([head, part]);
            // IPv4 only; checksums are not looked at but for the IP header's.
            let total = (head.len() + part.len()) as u16;
            one[2..4].copy_from_slice(&total.to_be_bytes());
            one[24..28].copy_from_slice(&seq.wrapping_add((n * usize::from(segment)) as u32).to_be_bytes());
            one[10..12].fill(0);
            let sum: u32 = one[..20].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
            let check = !(((sum & 0xffff) + (sum >> 16)) as u16);
            one[10..12].copy_from_slice(&check.to_be_bytes());
        }
    }

    fn has_room(&self) -> bool {
        self.packets.len() < 1024
    }
}

struct World {
    engines: [Engine; 2],
    links: [Link; 2],
}

impl World {
    fn new(single: bool) -> Self {
        let limits = Limits::default();
        let link = || Link { single, ..Link::default() };
        World { engines: [Engine::new(limits, 1), Engine::new(limits, 2)], links: [link(), link()] }
    }

    /// One turn of both; true if a packet went.
    fn turn(&mut self) -> bool {
        let mut went = false;
        for side in 0..2 {
            let now = Instant::now();
            let (one, two) = self.links.split_at_mut(1);
            let (own, other) = if side == 0 { (&mut one[0], &mut two[0]) } else { (&mut two[0], &mut one[0]) };
            let incoming = std::mem::take(&mut other.packets);
            went |= !incoming.is_empty();
            for packet in incoming {
                self.engines[side].receive(&packet, true, 1500, now, own);
                other.free.push(packet);
            }
            if self.engines[side].next().is_some_and(|at| at <= now) {
                self.engines[side].poll(now, own);
            }
        }
        went || self.links.iter().any(|link| !link.packets.is_empty())
    }

    fn rest(&mut self) {
        while self.turn() {}
    }

    fn pair(&mut self, n: usize) -> (Id, Id) {
        let local: SocketAddr = ([10, 0, (n >> 14) as u8, 1], 1024 + (n & 0x3fff) as u16).into();
        let flow = Flow { local, remote: ([10, 9, 0, 2], 80).into() };
        let one = self.engines[0].connect(flow, 1500, Tuning::default(), Instant::now()).expect("a connection");
        self.rest();
        let (_, other, _) = self.engines[1].accepted().expect("accepted");
        while self.engines[0].changed().is_some() {}
        (one, other)
    }
}

/// Bytes a second of one connection.
fn transfer(world: &mut World, (one, other): (Id, Id), bytes: usize) -> f64 {
    let start = Instant::now();
    let (mut sent, mut got) = (0, 0);
    let mut buffer = vec![0u8; 1 << 20];
    let mut patience = Instant::now();
    while got < bytes {
        while sent < bytes {
            let put = world.engines[0].send(one, |room| {
                let n = room.len().min(bytes - sent).min(buffer.len());
                room[..n].copy_from_slice(&buffer[..n]);
                n
            });
            if put == 0 {
                break;
            }
            sent += put;
        }
        world.turn();
        loop {
            let taken = world.engines[1].recv(other, |data| {
                let n = data.len().min(buffer.len());
                buffer[..n].copy_from_slice(&data[..n]);
                n
            });
            if taken == 0 {
                break;
            }
            got += taken;
            patience = Instant::now();
        }
        assert!(patience.elapsed() < Duration::from_secs(5), "stuck at {got}: {:?}", world.engines[0].look(one));
    }
    bytes as f64 / start.elapsed().as_secs_f64()
}

/// The best of five, in GB/s: others use the machine, too.
fn best(world: &mut World, ids: (Id, Id)) -> f64 {
    (0..5).map(|_| transfer(world, ids, 2 << 30) / 1e9).fold(0.0, f64::max)
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn main() {
    for single in [false, true] {
        let mut world = World::new(single);
        world.engines[1].listen(Bind::Both, 80, 128, Tuning::default()).expect("a listener");
        let ids = world.pair(0);
        transfer(&mut world, ids, 100 << 20);
        let before = world.links[0].packets_sent;
        let speed = best(&mut world, ids);
        let packets = world.links[0].packets_sent - before;
        println!(
            "{}: {speed:.2} GB/s, {} KB a packet",
            if single { "single segments" } else { "GSO" },
            (10 << 20) / packets
        );
    }

    let mut world = World::new(false);
    world.engines[1].listen(Bind::Both, 80, 128, Tuning::default()).expect("a listener");
    let (start, count) = (Instant::now(), 100_000);
    for n in 0..count {
        let (one, other) = world.pair(n % 60_000);
        for (engine, id) in [(0, one), (1, other)] {
            world.engines[engine].send(id, |room| {
                room[..100].fill(7);
                100
            });
        }
        world.rest();
        for (engine, id) in [(0, one), (1, other)] {
            assert_eq!(world.engines[engine].recv(id, <[u8]>::len), 100);
            world.engines[engine].detach(id);
            world.rest();
        }
    }
    let each = start.elapsed().as_secs_f64() / f64::from(count as u32);
    println!("connect, 100 bytes each way, close: {:.0} a second (both sides)", 1.0 / each);

    let mut world = World::new(false);
    world.engines[1].listen(Bind::Both, 80, 128, Tuning::default()).expect("a listener");
    let alone = world.pair(60_000);
    transfer(&mut world, alone, 100 << 20);
    println!("one transfer alone: {:.2} GB/s", best(&mut world, alone));
    let before = resident();
    let start = Instant::now();
    let idle: Vec<(Id, Id)> = (0..20_000).map(|n| world.pair(n)).collect();
    println!("20,000 connections in {:?}, {:.1} MB for both ends", start.elapsed(), (resident() - before) as f64 / 1e6);
    println!("one transfer beside them: {:.2} GB/s", best(&mut world, alone));
    for &(one, other) in &idle {
        world.engines[0].send(one, |room| {
            room[..1000].fill(1);
            1000
        });
        world.rest();
        world.engines[1].recv(other, <[u8]>::len);
        world.rest();
    }
    println!(
        "after 1000 bytes on each: {:.1} MB, {} live",
        (resident() - before) as f64 / 1e6,
        world.engines[1].counters().live
    );
    let wait = Instant::now();
    while wait.elapsed() < Duration::from_secs(3) {
        world.turn();
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("3 s later: {:.1} MB, {} live", (resident() - before) as f64 / 1e6, world.engines[1].counters().live);
    let keepalive = Tuning { keepalive: Some(Keepalive::after(Duration::from_secs(1))), ..Tuning::default() };
    for &(one, _) in &idle {
        world.engines[0].tune(one, keepalive);
    }
    println!("one transfer beside them, kept alive: {:.2} GB/s", best(&mut world, alone));
}
