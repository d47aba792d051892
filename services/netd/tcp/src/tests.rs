//! Two engines over a link that loses, delays, repeats and reorders, on a clock of the test's own.

#![allow(clippy::needless_range_loop, clippy::type_complexity)]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::segment::{ACK, Draft, FIN, Segment};
use crate::*;

/// What is sent, as single segments with whole checksums.
#[derive(Default)]
struct Wire {
    packets: Vec<Vec<u8>>,
    /// No packet of several segments is cut up.
    whole: bool,
    full: bool,
    /// (packets, segments)
    sent: (usize, usize),
}

impl Output for Wire {
    fn send(&mut self, packet: &[u8], header: usize, segment: u16) {
        self.sent.0 += 1;
        assert!(packet.len() <= 65_535 && header <= packet.len());
        if segment == 0 || self.whole {
            self.sent.1 += 1;
            let mut packet = packet.to_vec();
            complete_checksum(&mut packet);
            return self.packets.push(packet);
        }
        // As a device does it (GSO).
        let payload = &packet[header..];
        let start = if packet[0] >> 4 == 4 { 20 } else { 40 };
        let whole = Segment::parse(packet, true).unwrap();
        let count = payload.len().div_ceil(usize::from(segment));
        assert!(count > 1);
        for (n, part) in payload.chunks(usize::from(segment)).enumerate() {
            self.sent.1 += 1;
            let last = n + 1 == count;
            let flags = if last { whole.flags } else { whole.flags & !(FIN | 8) };
            let seq = whole.seq.wrapping_add((n * usize::from(segment)) as u32);
            let mut draft = Draft::new(whole.remote, whole.local, flags & !ACK, seq, Some(whole.ack));
            (draft.from, draft.to) = (whole.remote, whole.local);
            draft.window = whole.window;
            let (head, length) = draft.build(part.len());
            assert_eq!(length, start + 20, "segments with data have no options");
            let mut one = head[..length].to_vec();
            one.extend_from_slice(part);
            complete_checksum(&mut one);
            self.packets.push(one);
        }
    }

    fn has_room(&self) -> bool {
        !self.full
    }
}

/// xorshift
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below.max(1)
    }
}

/// Of a thousand packets so many.
#[derive(Clone, Copy, Default)]
struct Weather {
    lost: u64,
    twice: u64,
    late: u64,
    delay: u64,
}

struct World {
    engines: [Engine; 2],
    /// By arrival.
    link: BTreeMap<(u64, u64), (usize, Vec<u8>)>,
    count: u64,
    base: Instant,
    now: u64,
    dice: Dice,
    weather: Weather,
    mtu: usize,
    /// Passes packets as the engine gives them (as a device with GSO and GRO between two namespaces).
    whole: bool,
    /// What goes over the link, for tests that look.
    seen: Option<Box<dyn FnMut(usize, &[u8]) -> bool>>,
}

impl World {
    fn new(limits: Limits, seed: u64) -> Self {
        World {
            engines: [Engine::new(limits, seed), Engine::new(limits, seed + 1)],
            link: BTreeMap::new(),
            count: 0,
            base: Instant::now(),
            now: 0,
            dice: Dice(seed.wrapping_mul(77) | 1),
            weather: Weather { delay: 100, ..Weather::default() },
            mtu: 1500,
            whole: false,
            seen: None,
        }
    }

    fn time(&self) -> Instant {
        self.base + Duration::from_micros(self.now)
    }

    fn carry(&mut self, from: usize, wire: Wire) {
        for packet in wire.packets {
            if let Some(seen) = &mut self.seen
                && !seen(from, &packet)
            {
                continue;
            }
            if self.dice.roll(1000) < self.weather.lost {
                continue;
            }
            let copies = if self.dice.roll(1000) < self.weather.twice { 2 } else { 1 };
            for _ in 0..copies {
                let late = if self.dice.roll(1000) < self.weather.late {
                    self.weather.delay * (1 + self.dice.roll(3))
                } else {
                    0
                };
                self.count += 1;
                let at = self.now + self.weather.delay + late;
                self.link.insert((at, self.count), (1 - from, packet.clone()));
            }
        }
    }

    fn poll(&mut self, side: usize) {
        let mut wire = Wire { whole: self.whole, ..Wire::default() };
        let now = self.time();
        self.engines[side].poll(now, &mut wire);
        self.carry(side, wire);
    }

    fn inject(&mut self, to: usize, packet: &[u8]) {
        let mut wire = Wire { whole: self.whole, ..Wire::default() };
        let (now, mtu) = (self.time(), self.mtu);
        self.engines[to].receive(packet, self.whole, mtu, now, &mut wire);
        self.carry(to, wire);
    }

    /// Goes on until nothing happens at this time; answers when something will.
    fn settle(&mut self) -> Option<u64> {
        for turn in 0.. {
            assert!(turn < 100_000, "it does not come to rest");
            while let Some((&(at, count), _)) = self.link.first_key_value() {
                if at > self.now {
                    break;
                }
                let (to, packet) = self.link.remove(&(at, count)).unwrap();
                self.inject(to, &packet);
            }
            let due = |engine: &Engine| engine.next().is_some_and(|at| at <= self.time());
            let due = [due(&self.engines[0]), due(&self.engines[1])];
            if due == [false; 2] {
                break;
            }
            for side in 0..2 {
                if due[side] {
                    self.poll(side);
                }
            }
        }
        let link = self.link.keys().next().map(|k| k.0);
        let timers = self.engines.iter().filter_map(|e| e.next());
        timers.map(|at| at.duration_since(self.base).as_micros() as u64).chain(link).min()
    }

    /// Until then, with `each` after every moment in which something happened. It ends early if that answers true.
    fn run(&mut self, until: u64, mut each: impl FnMut(&mut World) -> bool) -> bool {
        loop {
            let next = self.settle();
            if each(self) {
                self.settle();
                return true;
            }
            let again = self.settle();
            match next.into_iter().chain(again).min() {
                Some(at) if at <= until => self.now = at.max(self.now + 1),
                _ => {
                    self.now = until;
                    return false;
                }
            }
        }
    }

    fn pass(&mut self, micros: u64) {
        let until = self.now + micros;
        self.run(until, |_| false);
    }

    fn connect(&mut self, flow: Flow, tuning: Tuning) -> Id {
        let (now, mtu) = (self.time(), self.mtu);
        self.engines[0].connect(flow, mtu, tuning, now).unwrap()
    }

    /// A connection from 0 to a new listener of 1.
    fn pair(&mut self, v6: bool, port: u16) -> (Id, Id, ListenerId) {
        let flow = flow(v6, 40_000, port);
        let listener = self.engines[1].listen(Bind::Both, port, 128, Tuning::default()).unwrap();
        let one = self.connect(flow, Tuning::default());
        let mut other = None;
        let until = self.now + 200_000_000;
        self.run(until, |world| {
            other = other.or_else(|| world.engines[1].accepted());
            other.is_some() && world.phase(0, one) == Phase::Established
        });
        let (of, id, there) = other.expect("accepted");
        assert_eq!((of, there.local, there.remote), (listener, flow.remote, flow.local));
        (one, id, listener)
    }

    fn look(&self, side: usize, id: Id) -> Look {
        self.engines[side].look(id).expect("a connection")
    }

    fn phase(&self, side: usize, id: Id) -> Phase {
        self.look(side, id).phase
    }

    fn write(&mut self, side: usize, id: Id, bytes: &[u8]) -> usize {
        let mut done = 0;
        loop {
            let put = self.engines[side].send(id, |room| {
                let n = room.len().min(bytes.len() - done);
                room[..n].copy_from_slice(&bytes[done..done + n]);
                n
            });
            done += put;
            if put == 0 || done == bytes.len() {
                return done;
            }
        }
    }

    fn read(&mut self, side: usize, id: Id) -> Vec<u8> {
        let mut all = Vec::new();
        while self.engines[side].recv(id, |bytes| {
            all.extend_from_slice(bytes);
            bytes.len()
        }) > 0
        {}
        all
    }
}

fn flow(v6: bool, from: u16, to: u16) -> Flow {
    let (a, b): (IpAddr, IpAddr) = if v6 {
        ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap())
    } else {
        ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap())
    };
    Flow { local: SocketAddr::new(a, from), remote: SocketAddr::new(b, to) }
}

fn pattern(length: usize, salt: u64) -> Vec<u8> {
    (0..length as u64).map(|n| (n.wrapping_mul(31).wrapping_add(n >> 8).wrapping_add(salt)) as u8).collect()
}

/// Sends both ways at once, with a half-close at the end of each, and compares.
fn transfer(world: &mut World, v6: bool, sizes: [usize; 2], limit: u64) -> u64 {
    let (one, other, _) = world.pair(v6, 80);
    let ids = [one, other];
    let data = [pattern(sizes[0], 1), pattern(sizes[1], 2)];
    let (mut sent, mut got, mut finished) = ([0; 2], [Vec::new(), Vec::new()], [false; 2]);
    let begin = world.now;
    let done = world.run(begin + limit, |world| {
        for side in 0..2 {
            loop {
                let part = data[side].len().min(sent[side] + 100_000);
                let put = world.write(side, ids[side], &data[side][sent[side]..part]);
                sent[side] += put;
                if put == 0 {
                    break;
                }
            }
            if sent[side] == data[side].len() && !std::mem::replace(&mut finished[side], sent[side] == data[side].len())
            {
                world.engines[side].finish(ids[side]);
            }
            let new = world.read(side, ids[side]);
            got[side].extend_from_slice(&new);
        }
        (0..2).all(|side| world.engines[side].look(ids[side]).is_none_or(|l| l.ended && l.unread == 0))
    });
    for side in 0..2 {
        let look = world.look(side, ids[side]);
        assert!(done, "side {side}: sent {} got {} {look:?}", sent[side], got[side].len());
        assert_eq!(look.end, None, "side {side}");
        assert!(got[side] == data[1 - side], "side {side} got what was not sent");
    }
    let took = world.now - begin;
    let until = world.now + 300_000_000;
    world.run(until, |world| (0..2).all(|side| world.phase(side, ids[side]) == Phase::Closed));
    for side in 0..2 {
        assert_eq!(world.phase(side, ids[side]), Phase::Closed);
        world.engines[side].detach(ids[side]);
        assert_eq!(world.engines[side].look(ids[side]), None);
    }
    world.pass(130_000_000);
    for engine in &world.engines {
        let counters = engine.counters();
        assert_eq!((counters.connections, counters.half_open, counters.time_wait, counters.live), (0, 0, 0, 0));
        assert_eq!(engine.next(), None);
    }
    took
}

#[test]
fn a_clear_link() {
    for v6 in [false, true] {
        for sizes in [[0, 0], [1, 0], [0, 1], [100, 100_000], [70_000, 3], [3_000_000, 0], [1_000_000, 2_000_000]] {
            for whole in [false, true] {
                let mut world = World::new(Limits::default(), 7);
                world.whole = whole;
                let took = transfer(&mut world, v6, sizes, 60_000_000);
                assert!(took < 1_000_000, "{sizes:?}: {took} us");
                for engine in &world.engines {
                    let counters = engine.counters();
                    assert_eq!(
                        (counters.retransmitted, counters.challenges, counters.malformed),
                        (0, 0, 0),
                        "{sizes:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_bad_link() {
    for seed in 1..25 {
        let mut world = World::new(Limits::default(), seed);
        world.weather = Weather {
            lost: [0, 10, 50, 150][seed as usize % 4],
            twice: [0, 30, 100][seed as usize % 3],
            late: [0, 50, 300][seed as usize / 4 % 3],
            delay: [100, 5_000, 50_000][seed as usize / 2 % 3],
        };
        let sizes = [[300_000, 200_000], [5, 400_000], [400_000, 0]][seed as usize % 3];
        transfer(&mut world, seed % 2 == 0, sizes, 900_000_000);
    }
}
