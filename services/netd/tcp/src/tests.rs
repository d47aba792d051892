//! Two engines over a link that loses, delays, repeats and reorders, on a clock of the test's own.

#![allow(clippy::needless_range_loop, clippy::type_complexity, clippy::cloned_ref_to_slice_refs)]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::segment::{ACK, Draft, FIN, RST, SYN, Segment};
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
            // The header of all, options included, with what differs.
            let mut one = packet[..header].to_vec();
            one[start + 4..start + 8].copy_from_slice(&seq.to_be_bytes());
            one[start + 13] = flags;
            one.extend_from_slice(part);
            let length = one.len() - start;
            crate::segment::seal(&mut one, start, length, 0);
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
    /// Microseconds that a kilobyte takes, and how many kilobytes wait for their turn at most; more are lost.
    slow: u64,
    queue: u64,
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
    /// Until when each way is busy.
    busy: [u64; 2],
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
            busy: [0; 2],
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
            let waits = self.busy[from].saturating_sub(self.now);
            if self.weather.slow > 0 {
                if waits > self.weather.queue * self.weather.slow {
                    continue;
                }
                self.busy[from] = self.now + waits + packet.len() as u64 * self.weather.slow / 1000;
            }
            let copies = if self.dice.roll(1000) < self.weather.twice { 2 } else { 1 };
            for _ in 0..copies {
                let late = if self.dice.roll(1000) < self.weather.late {
                    self.weather.delay * (1 + self.dice.roll(3))
                } else {
                    0
                };
                self.count += 1;
                let at = self.now + waits + self.weather.delay + late;
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
        assert_eq!((counters.connections, counters.half_open, counters.time_wait, counters.memory), (0, 0, 0, 0));
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
            ..Weather::default()
        };
        let sizes = [[300_000, 200_000], [5, 400_000], [400_000, 0]][seed as usize % 3];
        transfer(&mut world, seed % 2 == 0, sizes, 900_000_000);
    }
}

/// A segment of the peer of `flow` (as it is here), by hand.
fn by_hand(flow: Flow, flags: u8, seq: u32, ack: Option<u32>, window: u16, payload: &[u8]) -> Vec<u8> {
    let mut draft = Draft::new(flow.remote, flow.local, flags, seq, ack);
    draft.window = window;
    if flags & SYN != 0 {
        (draft.mss, draft.scale, draft.sack) = (Some(1460), Some(7), true);
    }
    let (bytes, length) = draft.build(payload.len());
    let mut packet = bytes[..length].to_vec();
    packet.extend_from_slice(payload);
    complete_checksum(&mut packet);
    packet
}

/// What one engine says to packets made by hand.
struct Alone {
    engine: Engine,
    base: Instant,
    now: u64,
    flow: Flow,
    /// How long the peer takes for the third step of a handshake.
    delay: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Said {
    flags: u8,
    seq: u32,
    ack: u32,
    window: u16,
    payload: Vec<u8>,
    blocks: Vec<(u32, u32)>,
    stamps: Option<(u32, u32)>,
}

impl Alone {
    /// With a listener at port 80.
    fn new(limits: Limits, backlog: usize) -> (Self, ListenerId) {
        let mut engine = Engine::new(limits, 99);
        let listener = engine.listen(Bind::Both, 80, backlog, Tuning::default()).unwrap();
        (Alone { engine, base: Instant::now(), now: 0, flow: flow(false, 80, 5000), delay: 0 }, listener)
    }

    fn time(&self) -> Instant {
        self.base + Duration::from_micros(self.now)
    }

    fn said(wire: Wire) -> Vec<Said> {
        let said = |packet: &Vec<u8>| {
            let s = Segment::parse(packet, false).unwrap();
            let blocks = s.options.blocks.into_iter().flatten().collect();
            let (window, payload, stamps) = (s.window, s.payload.to_vec(), s.options.stamps);
            Said { flags: s.flags, seq: s.seq, ack: s.ack, window, payload, blocks, stamps }
        };
        wire.packets.iter().map(said).collect()
    }

    fn give(&mut self, packet: &[u8]) -> Vec<Said> {
        let mut wire = Wire::default();
        let now = self.time();
        self.engine.receive(packet, false, 1500, now, &mut wire);
        self.engine.poll(now, &mut wire);
        Self::said(wire)
    }

    fn peer(&mut self, flags: u8, seq: u32, ack: Option<u32>, payload: &[u8]) -> Vec<Said> {
        let packet = by_hand(self.flow, flags, seq, ack, 1000, payload);
        self.give(&packet)
    }

    /// An acknowledgement that says what came behind it.
    fn sack(&mut self, ack: u32, blocks: &[(u32, u32)]) -> Vec<Said> {
        let mut draft = Draft::new(self.flow.remote, self.flow.local, 0, 1001, Some(ack));
        draft.window = 1000;
        draft.blocks.iter_mut().zip(blocks).for_each(|(to, block)| *to = Some(*block));
        let (mut bytes, length) = draft.build(0);
        complete_checksum(&mut bytes[..length]);
        self.give(&bytes[..length])
    }

    fn send(&mut self, id: Id, bytes: usize) {
        let put = self.engine.send(id, |room| {
            room[..bytes].fill(1);
            bytes
        });
        assert_eq!(put, bytes);
    }

    fn poll(&mut self) -> Vec<Said> {
        let mut wire = Wire::default();
        self.engine.poll(self.time(), &mut wire);
        Self::said(wire)
    }

    /// Until then, as its timers want. What it says, with the time.
    fn pass(&mut self, micros: u64) -> Vec<(u64, Said)> {
        let until = self.now + micros;
        let mut all = Vec::new();
        loop {
            let next = self.engine.next().map(|at| at.saturating_duration_since(self.base).as_micros() as u64);
            match next {
                Some(at) if at <= until => self.now = self.now.max(at),
                _ => {
                    self.now = until;
                    return all;
                }
            }
            let said = self.poll();
            all.extend(said.into_iter().map(|s| (self.now, s)));
        }
    }

    /// A handshake from the peer, whose first sequence number is `seq`; answers ours.
    fn open(&mut self, seq: u32) -> (Id, u32) {
        let said = self.peer(SYN, seq, None, &[]);
        let [syn] = said.as_slice() else { panic!("{said:?}") };
        assert_eq!((syn.flags, syn.ack), (SYN | ACK, seq.wrapping_add(1)));
        let ours = syn.seq.wrapping_add(1);
        self.now += self.delay;
        assert_eq!(self.peer(0, seq.wrapping_add(1), Some(ours), &[]), []);
        let (_, id, flow) = self.engine.accepted().unwrap();
        assert_eq!(flow, self.flow);
        (id, ours)
    }
}

fn quiet() -> Vec<Said> {
    Vec::new()
}

#[test]
fn nobody_listens() {
    for v6 in [false, true] {
        let mut world = World::new(Limits::default(), 3);
        let id = world.connect(flow(v6, 1, 2), Tuning::default());
        assert_eq!(world.phase(0, id), Phase::Connecting);
        world.pass(1_000);
        assert_eq!(world.look(0, id).end, Some(End::Refused));
        assert_eq!(world.engines[0].changed(), Some(id));
        assert_eq!(world.engines[0].changed(), None);
        world.engines[0].detach(id);
        assert_eq!(world.engines[0].look(id), None);
        assert_eq!((world.engines[0].counters().attempt_fails, world.engines[1].counters().resets_out), (1, 1));
        assert_eq!(world.engines[0].next(), None);
    }
    // RFC 9293, 3.10.7.1.
    let (mut alone, _) = Alone::new(Limits::default(), 1);
    alone.flow.local.set_port(81);
    let rst =
        |seq, ack, flags| vec![Said { flags, seq, ack, window: 0, payload: vec![], blocks: vec![], stamps: None }];
    assert_eq!(alone.peer(SYN, 100, None, &[]), rst(0, 101, RST | ACK));
    assert_eq!(alone.peer(SYN, 100, None, b"abc"), rst(0, 104, RST | ACK));
    assert_eq!(alone.peer(FIN, 100, None, b"abc"), rst(0, 104, RST | ACK));
    assert_eq!(alone.peer(0, 100, Some(7), b"abc"), rst(7, 0, RST));
    assert_eq!(alone.peer(SYN, 100, Some(7), &[]), rst(7, 0, RST));
    assert_eq!(alone.peer(RST, 100, Some(7), &[]), quiet());
    assert_eq!(alone.peer(RST, 100, None, &[]), quiet());
}

#[test]
fn nobody_answers() {
    let (mut alone, _) = Alone::new(Limits::default(), 1);
    let now = alone.time();
    let id = alone.engine.connect(flow(false, 7, 8), 1500, Tuning::default(), now).unwrap();
    let syns: Vec<u64> =
        alone.pass(200_000_000).into_iter().map(|(at, said)| (said.flags == SYN).then_some(at).unwrap()).collect();
    assert_eq!(syns, [0, 1, 3, 7, 15, 31, 63].map(|s: u64| s * 1_000_000));
    assert_eq!(alone.engine.look(id).unwrap().end, Some(End::TimedOut));
    let tuning = Tuning { user_timeout: Some(Duration::from_secs(5)), ..Tuning::default() };
    let now = alone.time();
    let id = alone.engine.connect(flow(false, 7, 9), 1500, tuning, now).unwrap();
    assert_eq!(alone.pass(4_900_000).len(), 3);
    assert_eq!(alone.engine.look(id).unwrap().phase, Phase::Connecting);
    alone.pass(200_000);
    assert_eq!(alone.engine.look(id).unwrap().end, Some(End::TimedOut));
}

#[test]
fn addresses_and_ids_that_are_none() {
    let (mut alone, listener) = Alone::new(Limits { connections: 2, listeners: 2, ..Limits::default() }, 1);
    let now = alone.time();
    let mut connect = |local: &str, remote: &str| {
        let flow = Flow { local: local.parse().unwrap(), remote: remote.parse().unwrap() };
        alone.engine.connect(flow, 1500, Tuning::default(), now)
    };
    for (local, remote) in [
        ("10.0.0.1:0", "10.0.0.2:1"),
        ("10.0.0.1:1", "10.0.0.2:0"),
        ("0.0.0.0:1", "10.0.0.2:1"),
        ("10.0.0.1:1", "224.0.0.1:1"),
        ("10.0.0.1:1", "255.255.255.255:1"),
        ("10.0.0.1:1", "[fd00::1]:1"),
        ("[::]:1", "[fd00::1]:1"),
        ("[::ffff:10.0.0.1]:1", "[fd00::1]:1"),
    ] {
        assert_eq!(connect(local, remote), Err(Error::Address), "{local} {remote}");
    }
    let one = connect("10.0.0.1:1", "10.0.0.2:1").unwrap();
    assert_eq!(connect("10.0.0.1:1", "[::ffff:10.0.0.2]:1"), Err(Error::Address).or(Err(Error::InUse)));
    assert_eq!(connect("[::ffff:10.0.0.1]:1", "[::ffff:10.0.0.2]:1"), Err(Error::InUse));
    connect("10.0.0.1:1", "10.0.0.2:2").unwrap();
    assert_eq!(connect("10.0.0.1:1", "10.0.0.2:3"), Err(Error::Full));
    alone.engine.abort(one);
    let again = alone.engine.connect(flow(false, 1, 1), 1500, Tuning::default(), now).unwrap();
    // The place is the same, the connection is not.
    assert!(one.index == again.index && one != again);
    assert_eq!(alone.engine.look(one), None);
    assert_eq!(alone.engine.recv(one, |_| panic!("of an old id")), 0);
    assert_eq!(alone.engine.send(one, |_| panic!("of an old id")), 0);
    alone.engine.finish(one);
    alone.engine.tune(one, Tuning { hop_limit: 9, ..Tuning::default() });
    alone.engine.abort(one);
    alone.engine.detach(one);
    assert_eq!(alone.engine.look(again).map(|l| l.phase), Some(Phase::Connecting));
    let other = alone.engine.listen(Bind::V6, 80, 1, Tuning::default()).unwrap();
    assert_eq!(alone.engine.listen(Bind::V6, 80, 1, Tuning::default()), Err(Error::Full));
    alone.engine.unlisten(other);
    assert_eq!(alone.engine.listen(Bind::V4, 0, 1, Tuning::default()), Err(Error::Address));
    let newer = alone.engine.listen(Bind::V6, 80, 1, Tuning::default()).unwrap();
    alone.engine.unlisten(other);
    alone.engine.set_backlog(other, 5);
    alone.engine.set_pending(other, 5);
    assert_ne!(other, newer);
    alone.engine.unlisten(listener);
}

#[test]
fn the_nearer_address_wins_and_reuseport_shares() {
    let (mut alone, any) = Alone::new(Limits::default(), 100);
    let at = alone.engine.listen(Bind::To("10.0.0.1".parse().unwrap()), 80, 100, Tuning::default()).unwrap();
    let more: Vec<_> = (0..3)
        .map(|_| alone.engine.listen(Bind::To("10.0.0.9".parse().unwrap()), 80, 1000, Tuning::default()).unwrap())
        .collect();
    let mut who = |local: &str, port: u16| {
        alone.flow = Flow { local: local.parse().unwrap(), remote: SocketAddr::new("10.1.1.1".parse().unwrap(), port) };
        let said = alone.peer(SYN, 5, None, &[]);
        alone.peer(0, 6, Some(said[0].seq.wrapping_add(1)), &[]);
        alone.engine.accepted().unwrap().0
    };
    assert_eq!(who("10.0.0.1:80", 1), at);
    assert_eq!(who("10.0.0.2:80", 1), any);
    let mut counts = [0; 3];
    for port in 1..=300 {
        let listener = who("10.0.0.9:80", port);
        counts[more.iter().position(|&m| m == listener).unwrap()] += 1;
    }
    assert!(counts.iter().all(|&n| n > 50), "{counts:?}");
}

#[test]
fn resets() {
    let (mut alone, _) = Alone::new(Limits::default(), 10);
    let (id, ours) = alone.open(1000);
    assert_eq!(alone.peer(0, 1001, Some(ours), b"hello"), quiet());
    // RFC 5961: a RST within the window, but not where it should be, a SYN: both are asked about.
    let challenge =
        Said { flags: ACK, seq: ours, ack: 1006, window: 512, payload: vec![], blocks: vec![], stamps: None };
    assert_eq!(alone.peer(RST, 1100, None, &[]), [challenge.clone()]);
    assert_eq!(alone.peer(RST, 1100, None, &[]), quiet(), "twice a second");
    alone.pass(600_000);
    assert_eq!(alone.peer(SYN, 7, None, &[]), [challenge]);
    assert_eq!(alone.peer(RST, 1006 + 40_000, None, &[]), quiet());
    assert_eq!(alone.engine.look(id).unwrap().phase, Phase::Established);
    alone.peer(RST, 1006, None, &[]);
    let look = alone.engine.look(id).unwrap();
    assert_eq!((look.phase, look.end, look.unread), (Phase::Closed, Some(End::Reset), 5));
    // What had come can be read, as on Linux.
    assert_eq!(alone.engine.recv(id, |b| if b == b"hello" { 5 } else { 0 }), 5);
    assert_eq!(alone.engine.send(id, |_| 1), 0);
    alone.engine.detach(id);
    let counters = alone.engine.counters();
    assert_eq!((counters.connections, counters.memory, counters.established_resets), (0, 0, 1));
    // Ours.
    let (id, ours) = alone.open(50);
    alone.engine.abort(id);
    assert_eq!(
        alone.poll(),
        [Said { flags: RST | ACK, seq: ours, ack: 51, window: 0, payload: vec![], blocks: vec![], stamps: None }]
    );
    let (id, ours) = alone.open(50);
    alone.peer(0, 51, Some(ours), b"unread");
    alone.engine.detach(id);
    assert_eq!(
        alone.poll(),
        [Said { flags: RST | ACK, seq: ours, ack: 57, window: 0, payload: vec![], blocks: vec![], stamps: None }]
    );
    // Data for a connection that nobody has.
    let (id, ours) = alone.open(50);
    alone.engine.detach(id);
    assert_eq!(
        alone.poll(),
        [Said { flags: FIN | ACK, seq: ours, ack: 51, window: 512, payload: vec![], blocks: vec![], stamps: None }]
    );
    assert_eq!(
        alone.peer(0, 51, Some(ours + 1), b"more"),
        [Said { flags: RST, seq: ours + 1, ack: 0, window: 512, payload: vec![], blocks: vec![], stamps: None }]
    );
    assert_eq!((alone.engine.counters().connections, alone.engine.counters().time_wait), (0, 0));
}

#[test]
fn time_wait_and_a_new_life() {
    let (mut alone, _) = Alone::new(Limits { time_wait: 2, ..Limits::default() }, 10);
    let (id, ours) = alone.open(1000);
    alone.engine.finish(id);
    assert_eq!(alone.poll()[0].flags, FIN | ACK);
    assert_eq!(alone.peer(0, 1001, Some(ours + 1), &[]), quiet());
    assert_eq!(alone.engine.look(id).unwrap().phase, Phase::FinWait2);
    let last =
        Said { flags: ACK, seq: ours + 1, ack: 1002, window: 512, payload: vec![], blocks: vec![], stamps: None };
    assert_eq!(alone.peer(FIN, 1001, Some(ours + 1), &[]), [last.clone()]);
    let look = alone.engine.look(id).unwrap();
    assert_eq!((look.phase, look.end, look.ended), (Phase::Closed, None, true));
    let counters = alone.engine.counters();
    assert_eq!((counters.time_wait, counters.memory, counters.connections), (1, 0, 1));
    alone.engine.detach(id);
    // The FIN again, a RST, something old, an old SYN.
    assert_eq!(alone.peer(FIN, 1001, Some(ours + 1), &[]), [last.clone()]);
    assert_eq!(alone.peer(RST, 1002, None, &[]), quiet());
    assert_eq!(alone.peer(0, 1002, Some(ours + 1), &[]), quiet());
    assert_eq!(alone.peer(0, 1001, Some(ours), b"x"), [last.clone()]);
    assert_eq!(alone.peer(0, 1001, Some(ours), b"x"), quiet(), "not for each");
    alone.pass(1_000_000);
    assert_eq!(alone.peer(SYN, 900, None, &[]), [last]);
    alone.pass(58_000_000);
    assert_eq!(alone.engine.counters().time_wait, 1);
    // A new one.
    let (id, newer) = alone.open(3000);
    assert!(newer.wrapping_sub(ours) >= 65_537 && newer.wrapping_sub(ours) < 1 << 31, "{ours} {newer}");
    assert_eq!((alone.engine.counters().time_wait, alone.engine.counters().connections), (0, 1));
    alone.engine.abort(id);
    alone.poll();
    // They end by themselves, and there are no more than may be.
    for port in 1..=5 {
        alone.flow.remote.set_port(port);
        let (id, ours) = alone.open(1000);
        alone.engine.finish(id);
        alone.poll();
        alone.peer(FIN, 1001, Some(ours + 1), &[]);
        alone.engine.detach(id);
    }
    assert_eq!((alone.engine.counters().time_wait, alone.engine.counters().dropped_time_wait), (2, 3));
    alone.pass(61_000_000);
    assert_eq!((alone.engine.counters().time_wait, alone.engine.next()), (0, None));
    // From our side.
    let (id, ours) = alone.open(1000);
    alone.engine.finish(id);
    alone.poll();
    alone.peer(FIN, 1001, Some(ours + 1), &[]);
    alone.engine.detach(id);
    let now = alone.time();
    let id = alone.engine.connect(alone.flow, 1500, Tuning::default(), now).unwrap();
    let syn = alone.poll()[0].clone();
    assert_eq!(syn.flags, SYN);
    assert!((syn.seq.wrapping_sub(ours) as i32) > 65_535);
    alone.engine.abort(id);
}

#[test]
fn nobody_waits_for_the_end() {
    // FIN_WAIT_2 of a connection that nobody has is a record, for 60 s.
    let (mut alone, _) = Alone::new(Limits::default(), 10);
    let (id, ours) = alone.open(1000);
    alone.engine.detach(id);
    alone.poll();
    assert_eq!(alone.peer(0, 1001, Some(ours + 1), &[]), quiet());
    assert_eq!((alone.engine.counters().connections, alone.engine.counters().time_wait), (0, 1));
    assert_eq!(alone.peer(FIN, 1001, Some(ours + 1), &[]).len(), 1);
    alone.pass(61_000_000);
    assert_eq!(alone.engine.counters().time_wait, 0);
    // Nobody acknowledges: it gives up.
    let (id, _) = alone.open(1000);
    alone.engine.send(id, |room| {
        room[..10].fill(1);
        10
    });
    alone.engine.detach(id);
    assert!(alone.pass(119_000_000).len() > 5);
    assert_eq!(alone.engine.counters().connections, 1);
    alone.pass(2_000_000);
    assert_eq!(
        (alone.engine.counters().connections, alone.engine.counters().memory, alone.engine.next()),
        (0, 0, None)
    );
    // The one too many is reset.
    let (mut alone, _) = Alone::new(Limits { orphans: 1, ..Limits::default() }, 10);
    for (port, flags) in [(1, FIN | ACK), (2, RST | ACK)] {
        alone.flow.remote.set_port(port);
        let (id, _) = alone.open(1000);
        alone.engine.detach(id);
        assert_eq!(alone.poll()[0].flags, flags);
    }
}

#[test]
fn a_backlog_that_is_full() {
    let (mut alone, listener) = Alone::new(Limits::default(), 2);
    let syn = |alone: &mut Alone, port: u16| {
        alone.flow.remote.set_port(port);
        alone.peer(SYN, 10, None, &[])
    };
    // Three are handed over (Linux: more than the backlog), and not accepted.
    let mut ids = Vec::new();
    for port in 1..=3 {
        alone.flow.remote.set_port(port);
        ids.push(alone.open(10).0);
        alone.engine.set_pending(listener, ids.len());
    }
    assert_eq!(syn(&mut alone, 4), quiet());
    assert_eq!(alone.engine.counters().dropped_syns, 1);
    // A handshake that was begun before waits for a place.
    alone.engine.set_pending(listener, 2);
    let half = syn(&mut alone, 5);
    assert_eq!(half.len(), 1);
    alone.engine.set_pending(listener, 3);
    assert_eq!(alone.peer(0, 11, Some(half[0].seq.wrapping_add(1)), &[]), quiet());
    assert_eq!(alone.engine.accepted(), None);
    assert_eq!(alone.pass(1_500_000).len(), 1, "SYN|ACK again");
    alone.engine.set_pending(listener, 2);
    alone.peer(0, 11, Some(half[0].seq.wrapping_add(1)), &[]);
    assert_eq!(alone.engine.accepted().map(|a| a.0), Some(listener));
    // A crowd: as many as there is room for get an answer, the others come again.
    alone.engine.set_pending(listener, 0);
    let answered = (100..110).filter(|&port| !syn(&mut alone, port).is_empty()).count();
    assert_eq!(answered, 3);
    // Those who do not go on are no crowd.
    alone.pass(1_100_000);
    assert_eq!((syn(&mut alone, 200).len(), alone.engine.counters().cookies_sent), (1, 1));
    alone.pass(70_000_000);
    // The end of the listener ends what was not handed over, and handshakes.
    alone.engine.set_pending(listener, 0);
    let half = syn(&mut alone, 6);
    alone.peer(0, 11, Some(half[0].seq.wrapping_add(1)), &[]);
    let other = syn(&mut alone, 7);
    alone.engine.unlisten(listener);
    assert_eq!(alone.engine.accepted(), None);
    assert_eq!(alone.poll().len(), 1, "a RST");
    assert_eq!(alone.peer(0, 11, Some(other[0].seq.wrapping_add(1)), &[])[0].flags, RST);
    assert_eq!(syn(&mut alone, 8)[0].flags, RST | ACK);
    assert_eq!(alone.engine.counters().connections, 4);
    for id in ids {
        assert_eq!(alone.engine.look(id).unwrap().phase, Phase::Established);
    }
}

#[test]
fn a_flood_of_syns() {
    let (mut alone, listener) = Alone::new(Limits { half_open: 1000, ..Limits::default() }, 100_000);
    let mut last = Vec::new();
    for n in 0..20_000u32 {
        alone.flow.remote = SocketAddr::new(std::net::Ipv4Addr::from_bits(0x0b00_0000 + n).into(), 1000);
        last = alone.peer(SYN, n, None, &[]);
        assert_eq!(last.len(), 1);
    }
    let counters = alone.engine.counters();
    assert_eq!(
        (counters.half_open, counters.cookies_sent, counters.connections, counters.memory),
        (1000, 19_000, 0, 0)
    );
    // Who answers is let in nevertheless.
    assert_eq!(alone.peer(0, 20_000, Some(last[0].seq), &[])[0].flags, RST, "a wrong number");
    alone.peer(0, 20_000, Some(last[0].seq.wrapping_add(1)), b"hello");
    let (of, id, _) = alone.engine.accepted().unwrap();
    assert_eq!((of, alone.engine.look(id).unwrap().unread, alone.engine.look(id).unwrap().scales), (listener, 5, None));
    assert_eq!(alone.engine.counters().cookies_received, 1);
    // The others end by themselves.
    assert_eq!(alone.pass(70_000_000).iter().filter(|(_, s)| s.flags == SYN | ACK).count(), 5000);
    assert_eq!((alone.engine.counters().half_open, alone.engine.counters().dropped_half_open), (0, 1000));
    alone.pass(200_000_000);

    alone.flow.remote.set_port(9);
    assert_eq!(alone.peer(0, 20_000, Some(last[0].seq.wrapping_add(1)), &[])[0].flags, RST);
}

#[test]
fn both_begin() {
    let mut world = World::new(Limits::default(), 5);
    let one = world.connect(flow(false, 5, 6), Tuning::default());
    let now = world.time();
    let there = Flow { local: flow(false, 5, 6).remote, remote: flow(false, 5, 6).local };
    let other = world.engines[1].connect(there, 1500, Tuning::default(), now).unwrap();
    world.pass(5_000);
    assert_eq!((world.phase(0, one), world.phase(1, other)), (Phase::Established, Phase::Established));
    assert_eq!(world.write(0, one, b"ping"), 4);
    assert_eq!(world.write(1, other, b"pong"), 4);
    world.pass(50_000);
    assert_eq!((world.read(0, one), world.read(1, other)), (b"pong".to_vec(), b"ping".to_vec()));
}

#[test]
fn keepalive() {
    let (mut alone, _) = Alone::new(Limits::default(), 10);
    let (id, ours) = alone.open(1000);
    let second = 1_000_000;
    let keepalive = Keepalive { idle: Duration::from_secs(10), interval: Duration::from_secs(2), probes: 3 };
    alone.engine.tune(id, Tuning { keepalive: Some(keepalive), ..Tuning::default() });
    let probe =
        Said { flags: ACK, seq: ours - 1, ack: 1001, window: 512, payload: vec![], blocks: vec![], stamps: None };
    assert_eq!(alone.pass(11 * second), [(10 * second, probe.clone())]);
    assert_eq!(alone.peer(0, 1001, Some(ours), &[]), quiet());
    let reset =
        Said { flags: RST | ACK, seq: ours, ack: 1001, window: 0, payload: vec![], blocks: vec![], stamps: None };
    let at = [21, 23, 25, 27].map(|s| s * second);
    let said = alone.pass(60 * second);
    assert_eq!(said, [(at[0], probe.clone()), (at[1], probe.clone()), (at[2], probe), (at[3], reset)]);
    assert_eq!(alone.engine.look(id).unwrap().end, Some(End::TimedOut));
    // The peer's are answered.
    alone.engine.detach(id);
    let (id, ours) = alone.open(1000);
    let said = Said { flags: ACK, seq: ours, ack: 1001, window: 512, payload: vec![], blocks: vec![], stamps: None };
    let twice = Said { blocks: vec![(1000, 1001)], ..said.clone() };
    for _ in 0..3 {
        assert_eq!(alone.peer(0, 1000, Some(ours), &[]), [said.clone()]);
        alone.pass(20 * second);
        assert_eq!(alone.peer(0, 1000, Some(ours), b"\0"), [twice.clone()]);
    }
    assert_eq!((alone.engine.counters().live, alone.engine.look(id).unwrap().unread), (0, 0));
}

#[test]
fn what_is_not_acknowledged() {
    let second = 1_000_000;
    for (user, least, most) in [(None, 920, 930), (Some(5), 4, 6)] {
        let (mut alone, _) = Alone::new(Limits::default(), 10);
        let (id, ours) = alone.open(1000);
        alone.pass(5 * second);
        alone.engine.tune(id, Tuning { user_timeout: user.map(Duration::from_secs), ..Tuning::default() });
        alone.engine.send(id, |room| {
            room[..3].copy_from_slice(b"abc");
            3
        });
        let begin = alone.now;
        let said = alone.pass(least * second);
        assert!(said.iter().all(|(_, s)| s.payload == b"abc" && s.seq == ours), "{said:?}");
        // Doubled each time, to two minutes.
        // The first is a probe, at the time of the timer.
        let at: Vec<u64> = said.iter().skip(1).map(|(at, _)| at - begin).collect();
        let between: Vec<u64> = at.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(between.windows(2).all(|w| w[1] == (w[0] * 2).min(120 * second)), "{between:?}");
        assert_eq!(alone.engine.look(id).unwrap().phase, Phase::Established);
        alone.pass((most - least) * second);
        assert_eq!(alone.engine.look(id).unwrap().end, Some(End::TimedOut));
    }
}

#[test]
fn a_closed_window() {
    let (mut alone, _) = Alone::new(Limits::default(), 10);
    let (id, ours) = alone.open(1000);
    let closed = by_hand(alone.flow, 0, 1001, Some(ours), 0, &[]);
    assert_eq!(alone.give(&closed), quiet());
    alone.engine.send(id, |room| {
        room[..3].copy_from_slice(b"abc");
        3
    });
    // It is asked, and answers, for an hour.
    let mut asked = 0;
    for _ in 0..360 {
        let said = alone.pass(10_000_000);
        assert!(said.iter().all(|(_, s)| s.payload.is_empty() && s.seq == ours.wrapping_sub(1)), "{said:?}");
        asked += said.len();
        alone.give(&closed);
    }
    assert!((30..60).contains(&asked), "{asked}");
    assert_eq!(alone.engine.look(id).unwrap().phase, Phase::Established);
    let said = alone.peer(0, 1001, Some(ours), &[]);
    assert_eq!(said.iter().map(|s| s.payload.clone()).collect::<Vec<_>>(), [b"abc".to_vec()]);
    // Ours: what does not fit is not taken, and asked for again when there is room.
    assert_eq!(alone.peer(0, 1001, Some(ours + 3), &[]), quiet());
    let mut seq = 1001u32;
    loop {
        let said = alone.peer(0, seq, Some(ours + 3), &[7; 1000]);
        let ack = said.last().map_or(seq + 1000, |s| s.ack);
        if ack != seq + 1000 {
            assert_eq!(said.last().unwrap().window, 0);
            seq = ack;
            break;
        }
        seq += 1000;
    }
    let unread = alone.engine.look(id).unwrap().unread;
    assert_eq!(unread as u32, seq - 1001);
    assert_eq!(alone.peer(0, seq, Some(ours + 3), b"?").last().unwrap().ack, seq);
    let mut read = 0;
    while alone.engine.recv(id, |b| {
        read += b.len();
        b.len()
    }) > 0
    {}
    assert_eq!(read, unread);
    let update = alone.poll();
    assert!(update[0].ack == seq && update[0].window > 100, "{update:?}");
}

#[test]
fn more_than_there_is_room_for() {
    // The window of a SYN is not scaled: what lies behind the buffer's end is refused.
    let (mut alone, _) = Alone::new(Limits::default(), 10);
    let (id, ours) = alone.open(1000);
    alone.peer(0, 1001 + 40_000, Some(ours), &[1; 100]);
    alone.peer(0, 1001 + 32_700, Some(ours), &[2; 100]);
    alone.peer(FIN, 1001 + 32_768, Some(ours), &[2; 100]);
    let mut seq = 1001;
    while seq < 1001 + 40_000 {
        alone.peer(0, seq, Some(ours), &[3; 1000]);
        seq += 1000;
    }
    let look = alone.engine.look(id).unwrap();
    assert_eq!((look.unread, look.ended, look.windows.1), (32_768, false, 0));
    let mut all = Vec::new();
    while alone.engine.recv(id, |b| {
        all.extend_from_slice(b);
        b.len()
    }) > 0
    {}
    assert!(all[..32_700].iter().all(|&b| b == 3) && all.len() == 32_768);
}

#[test]
fn unreachable() {
    let (mut alone, _) = Alone::new(Limits::default(), 10);
    let now = alone.time();
    let there = flow(false, 7, 8);
    let id = alone.engine.connect(there, 1500, Tuning::default(), now).unwrap();
    let syn = alone.poll()[0].clone();
    let why = Unreachable::Icmp { kind: 3, code: 1 };
    alone.engine.unreachable(there, syn.seq.wrapping_add(1), why);
    alone.engine.unreachable(flow(false, 7, 9), syn.seq, why);
    assert_eq!(alone.engine.look(id).unwrap().phase, Phase::Connecting);
    alone.engine.unreachable(there, syn.seq, why);
    assert_eq!(alone.engine.look(id).unwrap().end, Some(End::Unreachable(why)));
    alone.engine.detach(id);
    // One that is established notes it.
    let (id, ours) = alone.open(1000);
    alone.engine.send(id, |room| {
        room[..10_000].fill(1);
        10_000
    });
    let sent = alone.poll();
    // The last part goes, too: it is the only small one (Nagle, as Minshall and Linux have it).
    assert_eq!((sent.len(), sent[0].payload.len(), sent[6].payload.len()), (7, 1460, 1240));
    alone.engine.unreachable(alone.flow, ours.wrapping_sub(1), why);
    assert_eq!(alone.engine.look(id).unwrap().soft, None);
    alone.engine.unreachable(alone.flow, ours, why);
    let look = alone.engine.look(id).unwrap();
    assert_eq!((look.soft, look.phase), (Some(why), Phase::Established));
    // A smaller MTU on the way: smaller segments, from the first on.
    assert!(!alone.engine.unreachable(alone.flow, ours.wrapping_sub(1_000_000), Unreachable::TooBig(600)));
    assert!(alone.engine.unreachable(alone.flow, ours, Unreachable::TooBig(1000)));
    let again = alone.poll();
    assert_eq!((again[0].seq, again[0].payload.len()), (ours, 960), "{again:?}");
    alone.engine.unreachable(alone.flow, ours, Unreachable::TooBig(20));
    assert_eq!(alone.engine.look(id).unwrap().mtu, 552);
}

#[test]
fn no_room_to_send() {
    let mut world = World::new(Limits::default(), 5);
    let (one, other, _) = world.pair(false, 80);
    let data = pattern(50_000, 3);
    assert_eq!(world.write(0, one, &data), 50_000);
    let mut wire = Wire { full: true, ..Wire::default() };
    let now = world.time();
    world.engines[0].poll(now, &mut wire);
    assert_eq!(wire.packets.len(), 0);
    assert!(world.engines[0].next().unwrap() > now, "it does not ask at once");
    let mut got = Vec::new();
    let until = world.now + 1_000_000;
    world.run(until, |world| {
        got.extend(world.read(1, other));
        got.len() == data.len()
    });
    assert!(got == data);
}

#[test]
fn buffers_grow_and_go() {
    let mut world = World::new(Limits::default(), 5);
    world.weather.delay = 1_000;
    let (one, other, _) = world.pair(false, 80);
    assert_eq!(
        (world.engines[0].counters().live, world.engines[1].counters().live),
        (0, 0),
        "not before there is data"
    );
    let (mut sent, mut got, mut most) = (0, 0, 0);
    let until = world.now + 5_000_000;
    world.run(until, |world| {
        sent += world.write(0, one, &vec![5; 1 << 20]);
        got += world.read(1, other).len();
        most = most.max(world.look(1, other).windows.1);
        got > 50 << 20
    });
    assert!(got > 50 << 20, "{got}");
    assert!(most > 1 << 20, "{most}");
    let until = world.now + 1_000_000;
    world.run(until, |world| {
        got += world.read(1, other).len();
        got == sent
    });
    assert_eq!(got, sent);
    assert!(world.engines[1].counters().memory > 1 << 20);
    world.pass(3_000_000);
    assert_eq!((world.engines[0].counters().memory, world.engines[1].counters().memory), (0, 0));
    // And it goes on.
    assert_eq!(world.write(1, other, b"back"), 4);
    world.pass(100_000);
    assert_eq!(world.read(0, one), b"back");
    assert_eq!(world.write(0, one, b"and forth"), 9);
    world.pass(100_000);
    assert_eq!(world.read(1, other), b"and forth");
}

#[test]
fn memory_is_bounded() {
    let mut world = World::new(Limits { memory: 4 << 20, ..Limits::default() }, 5);
    let listener = world.engines[1].listen(Bind::Both, 80, 10_000, Tuning::default()).unwrap();
    let count = 500u16;
    let mut ids = Vec::new();
    for n in 0..count {
        ids.push(world.connect(flow(n % 2 == 0, 1000 + n, 80), Tuning::default()));
    }
    world.pass(10_000);
    let mut others = std::collections::HashMap::new();
    while let Some((of, id, there)) = world.engines[1].accepted() {
        assert_eq!(of, listener);
        others.insert(there.remote, id);
    }
    assert_eq!(others.len(), usize::from(count));
    let data = pattern(20_000, 9);
    for &id in &ids {
        world.write(0, id, &data[..4000]);
    }
    world.pass(10_000);
    for engine in &world.engines {
        let memory = engine.counters().memory;
        assert!(memory <= (4 << 20) + u64::from(count) * 8192, "{memory}");
    }
    // All of it arrives nevertheless.
    let mut sent: Vec<usize> = ids.iter().map(|_| 4000).collect();
    let mut got = vec![Vec::new(); ids.len()];
    let until = world.now + 60_000_000;
    let flows: Vec<_> = ids.iter().map(|&id| world.look(0, id).flow.local).collect();
    let done = world.run(until, |world| {
        for (n, &id) in ids.iter().enumerate() {
            sent[n] += world.write(0, id, &data[sent[n]..]);
            let new = world.read(1, others[&flows[n]]);
            got[n].extend_from_slice(&new);
        }
        got.iter().all(|g| g.len() == data.len())
    });
    assert!(done && got.iter().all(|g| *g == data));
}

#[test]
fn packets_that_are_none() {
    let (mut alone, _) = Alone::new(Limits::default(), 10);
    let (id, ours) = alone.open(1000);
    for v6 in [false, true] {
        for (flags, ack) in [(0, Some(ours)), (SYN, None), (FIN, Some(ours)), (RST, None)] {
            let packet = by_hand(flow(v6, 80, 5000), flags, 1001, ack, 100, b"payload");
            for length in 0..packet.len() {
                assert_eq!(alone.give(&packet[..length]), quiet(), "{length} bytes");
            }
            for at in 0..packet.len() {
                for bit in 0..8 {
                    let mut bad = packet.clone();
                    bad[at] ^= 1 << bit;
                    if v6 && (at < 4 || at == 7) {
                        continue;
                    }
                    assert_eq!(alone.give(&bad), quiet(), "byte {at}");
                }
            }
        }
    }
    let look = alone.engine.look(id).unwrap();
    assert_eq!((look.unread, look.phase), (0, Phase::Established));
    let counters = alone.engine.counters();
    assert!(counters.malformed > 100 && counters.checksum_errors > 100);
    // Options that lie, offsets behind the end, impossible flags: with sums that are right.
    let good = by_hand(alone.flow, 0, 1001, Some(ours), 100, b"payload");
    let whole = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = good.clone();
        change(&mut packet);
        let length = packet.len();
        crate::segment::seal(&mut packet, 20, length - 20, 0);
        complete_checksum(&mut packet);
        packet
    };
    let bad = [
        whole(&|p| p[32] = 0x40),
        whole(&|p| p[32] = 0xf0),
        whole(&|p| p[33] = SYN | FIN | ACK),
        whole(&|p| p[33] = SYN | RST),
        whole(&|p| p[33] = 0),
        whole(&|p| p[20..22].fill(0)),
        whole(&|p| p[22..24].fill(0)),
        whole(&|p| {
            p[32] = 0x60;
            p[40..44].copy_from_slice(&[2, 40, 0, 0]);
        }),
        whole(&|p| {
            p[32] = 0x60;
            p[40..44].copy_from_slice(&[5, 4, 0, 0]);
        }),
        whole(&|p| p[12..16].copy_from_slice(&[224, 0, 0, 1])),
        whole(&|p| p[16..20].copy_from_slice(&[255; 4])),
        whole(&|p| p[6] = 0x20),
    ];
    for (n, packet) in bad.iter().enumerate() {
        assert_eq!(alone.give(packet), quiet(), "{n}");
    }
    assert_eq!(alone.engine.look(id).unwrap().unread, 0);
    alone.give(&whole(&|p| p[33] |= 0x20));
    assert_eq!(alone.engine.look(id).unwrap().unread, 7, "an urgent flag is nothing");
}
/// Ten mebibytes one way; the milliseconds that they took and the segments that were sent again.
fn ten(weather: Weather) -> (u64, u64) {
    let mut world = World::new(Limits::default(), 11);
    world.weather = weather;
    let took = transfer(&mut world, false, [10 << 20, 0], 900_000_000);
    (took / 1000, world.engines[0].counters().retransmitted)
}

#[test]
fn a_fast_link_is_used() {
    let (took, again) = ten(Weather { delay: 5_000, ..Weather::default() });
    assert!(took < 200 && again == 0, "{took} ms, {again}");
}

#[test]
fn lost_segments_are_sent_once_more() {
    // Of 7,200 segments 61 get lost; Reno's formula says 1.8 MB/s.
    let (took, again) = ten(Weather { delay: 5_000, lost: 10, ..Weather::default() });
    assert!(took < 7_000 && again < 100, "{took} ms, {again}");
}

#[test]
fn a_queue_that_overflows() {
    // 10 MB/s behind queues of 0.5 MB and 0.1 MB: the first is seen before it is full, the second overflows. It would take 1.1 s.
    for (queue, most, more) in [(500, 2_500, 10), (100, 8_000, 2_000)] {
        let (took, again) = ten(Weather { delay: 25_000, slow: 100, queue, ..Weather::default() });
        assert!(took < most && again < more, "{queue}: {took} ms, {again}");
    }
}

#[test]
fn an_echo_that_reads_only_what_it_can_write() {
    let mut world = World::new(Limits::default(), 5);
    let (one, other, _) = world.pair(false, 80);
    let data = pattern(5_000_000, 3);
    let (mut sent, mut back, mut finished) = (0, Vec::new(), false);
    let until = world.now + 60_000_000;
    let done = world.run(until, |world| {
        sent += world.write(0, one, &data[sent..]);
        if sent == data.len() && !std::mem::replace(&mut finished, true) {
            world.engines[0].finish(one);
        }
        // The owner looks only when it is told to.
        if world.engines[1].changed() == Some(other) {
            loop {
                let look = world.look(1, other);
                let mut part = Vec::new();
                world.engines[1].recv(other, |bytes| {
                    part.extend_from_slice(&bytes[..bytes.len().min(look.room)]);
                    part.len()
                });
                if part.is_empty() {
                    break;
                }
                assert_eq!(world.write(1, other, &part), part.len());
            }
            let look = world.look(1, other);
            if look.ended && look.unread == 0 {
                world.engines[1].finish(other);
            }
        }
        back.extend(world.read(0, one));
        world.look(0, one).ended
    });
    assert!(done && back == data, "{sent} {} {:?}", back.len(), world.look(1, other));
}

#[test]
fn the_last_segments_are_asked_for() {
    let (mut alone, _) = Alone::new(Limits::default(), 10);
    alone.delay = 4_000;
    let (id, ours) = alone.open(1000);
    alone.engine.tune(id, Tuning { nodelay: true, ..Tuning::default() });
    alone.engine.send(id, |room| {
        room[..3000].fill(1);
        3000
    });
    assert_eq!(alone.poll().len(), 3);
    let said = alone.pass(150_000);
    let told: Vec<_> = said.iter().map(|(at, s)| (*at, s.seq, s.payload.len())).collect();
    assert_eq!(told, [(14_000, ours + 2920, 80)], "the last one: its answer says what is missing before it");
    assert_eq!(alone.engine.look(id).unwrap().congestion.0, 14_600, "nothing is known to be lost");
    // The answer says what arrived: the first and the probe. What is missing between them goes at once.
    let said = alone.sack(ours + 1460, &[(ours + 2920, ours + 3000)]);
    assert_eq!(said.iter().map(|s| (s.seq, s.payload.len())).collect::<Vec<_>>(), [(ours + 1460, 1460)]);
    assert!(alone.engine.look(id).unwrap().congestion.1 < 5_000, "one was lost");
}

#[test]
fn the_first_tries_of_a_probe() {
    // One that was lost and filled by the probe is a loss; one that came twice is none.
    for (twice, window) in [(false, 4_380), (true, 14_600)] {
        let (mut alone, _) = Alone::new(Limits::default(), 10);
        let (id, ours) = alone.open(1000);
        alone.send(id, 3000);
        assert_eq!(alone.poll().len(), 3);
        assert_eq!(alone.pass(10_000).len(), 1);
        let block = if twice { vec![(ours + 2920, ours + 3000)] } else { vec![] };
        alone.sack(ours + 3000, &block);
        alone.send(id, 100);
        assert_eq!(alone.poll().len(), 1);
        alone.peer(0, 1001, Some(ours + 3100), &[]);
        let congestion = alone.engine.look(id).unwrap().congestion;
        assert!(congestion.0 <= window && congestion.0 > window / 2, "{twice}: {congestion:?}");
    }
}

#[test]
fn several_holes_are_filled_at_once() {
    let (mut alone, _) = Alone::new(Limits::default(), 10);
    alone.delay = 5_000;
    let (id, ours) = alone.open(1000);
    alone.send(id, 14_600);
    assert_eq!(alone.poll().len(), 10);
    let at = |n: u32| ours + n * 1460;
    alone.now += 5_000;
    // The first, the fourth and the sixth are missing.
    assert_eq!(alone.sack(ours, &[(at(1), at(2))]), quiet());
    assert_eq!(alone.sack(ours, &[(at(1), at(3))]), quiet());
    let mut said = alone.sack(ours, &[(at(4), at(5)), (at(1), at(3))]);
    said.extend(alone.sack(ours, &[(at(6), at(8)), (at(4), at(5)), (at(1), at(3))]));
    said.extend(alone.sack(ours, &[(at(6), at(10)), (at(4), at(5)), (at(1), at(3))]));
    let again: Vec<_> = said.iter().map(|s| (s.seq, s.payload.len())).collect();
    assert_eq!(again, [(at(0), 1460), (at(3), 1460), (at(5), 1460)]);
    let look = alone.engine.look(id).unwrap();
    assert_eq!((look.retransmissions, look.congestion.1), (3, 10_220));
    // One of them is lost once more: what was sent after it has come.
    alone.now += 5_000;
    let said = alone.sack(at(3), &[(at(4), at(10))]);
    assert_eq!(said.iter().map(|s| s.seq).collect::<Vec<_>>(), [at(3)], "without the timer");
    assert_eq!(alone.sack(at(10), &[]), quiet());
    assert_eq!(alone.engine.look(id).unwrap().unacknowledged, 0);
}

#[test]
fn what_came_twice_undoes_the_slowing_down() {
    let (mut alone, _) = Alone::new(Limits::default(), 10);
    let (id, ours) = alone.open(1000);
    alone.send(id, 14_600);
    alone.poll();
    let at = |n: u32| ours + n * 1460;
    let said = alone.sack(ours, &[(at(1), at(5))]);
    assert_eq!(said.iter().map(|s| s.seq).collect::<Vec<_>>(), [at(0)]);
    assert_eq!(alone.engine.look(id).unwrap().congestion.1, 10_220);
    alone.sack(at(5), &[]);
    alone.sack(at(5), &[(at(0), at(1))]);
    let look = alone.engine.look(id).unwrap();
    assert!(look.congestion.0 >= 14_600 && look.congestion.1 > 1 << 20, "{look:?}");
}

#[test]
fn a_peer_that_does_not_know_sack() {
    let (mut alone, _) = Alone::new(Limits::default(), 10);
    let flow = alone.flow;
    let syn = Draft { mss: Some(1460), window: 30_000, ..Draft::new(flow.remote, flow.local, SYN, 1000, None) };
    let give = |alone: &mut Alone, draft: Draft| {
        let (mut bytes, length) = draft.build(0);
        complete_checksum(&mut bytes[..length]);
        alone.give(&bytes[..length])
    };
    let ours = give(&mut alone, syn)[0].seq.wrapping_add(1);
    let ack = |n: u32| Draft { window: 30_000, ..Draft::new(flow.remote, flow.local, 0, 1001, Some(ours + n * 1460)) };
    give(&mut alone, ack(0));
    let (_, id, _) = alone.engine.accepted().unwrap();
    alone.send(id, 40_000);
    assert_eq!(alone.poll().len(), 10);
    // Each repeated one lets a new segment go (RFC 3042), the third has the first sent again.
    let seqs = |said: Vec<Said>| said.iter().map(|s| s.seq.wrapping_sub(ours) / 1460).collect::<Vec<_>>();
    assert_eq!(seqs(give(&mut alone, ack(0))), [10]);
    assert_eq!(seqs(give(&mut alone, ack(0))), [11]);
    assert_eq!(seqs(give(&mut alone, ack(0))), [0]);
    for _ in 0..4 {
        give(&mut alone, ack(0));
    }
    // A part: the next hole.
    assert_eq!(seqs(give(&mut alone, ack(4)))[0], 4);
    give(&mut alone, ack(12));
    assert!(alone.engine.look(id).unwrap().congestion.0 >= 2 * 1460);
}

#[test]
fn holes_are_told_newest_first_and_so_is_what_came_twice() {
    let (mut alone, _) = Alone::new(Limits::default(), 10);
    let (_, ours) = alone.open(1000);
    let mut blocks = Vec::new();
    for n in [2, 4, 6, 8, 10] {
        let said = alone.peer(0, 1001 + n * 100, Some(ours), &[1; 100]);
        assert_eq!((said.len(), said[0].ack), (1, 1001));
        blocks.insert(0, (1001 + n * 100, 1101 + n * 100));
        assert_eq!(said[0].blocks, blocks.iter().take(4).copied().collect::<Vec<_>>());
    }
    // It joins the two around it.
    let said = alone.peer(0, 1001 + 300, Some(ours), &[1; 100]);
    assert_eq!(said[0].blocks, [(1201, 1501), (2001, 2101), (1801, 1901), (1601, 1701)]);
    // Once more: what came twice is told first, with the range that it is in.
    let said = alone.peer(0, 1001 + 300, Some(ours), &[1; 100]);
    assert_eq!(said[0].blocks, [(1301, 1401), (1201, 1501), (2001, 2101), (1801, 1901)]);
    let said = alone.peer(0, 1001, Some(ours), &[1; 100]);
    assert_eq!((said[0].ack, said[0].blocks.len()), (1101, 4));
    let said = alone.peer(0, 1001, Some(ours), &[1; 100]);
    assert_eq!((said[0].ack, said[0].blocks[0]), (1101, (1001, 1101)));
    let said = alone.peer(0, 1101, Some(ours), &[1; 1100]);
    assert_eq!((said[0].ack, said[0].blocks.clone()), (2201, vec![(1201, 1501)]));
}

#[test]
fn timestamps_and_what_is_older() {
    let (mut alone, _) = Alone::new(Limits::default(), 10);
    let flow = alone.flow;
    let give = |alone: &mut Alone, flags, seq, ack, stamps, payload: &[u8]| {
        let mut draft = Draft { window: 1000, stamps, ..Draft::new(flow.remote, flow.local, flags, seq, ack) };
        if flags & SYN != 0 {
            (draft.mss, draft.sack, draft.scale) = (Some(1460), true, Some(7));
        }
        let (bytes, length) = draft.build(payload.len());
        let mut packet = bytes[..length].to_vec();
        packet.extend_from_slice(payload);
        complete_checksum(&mut packet);
        alone.give(&packet)
    };
    let said = give(&mut alone, SYN, 1000, None, Some((500, 0)), b"");
    let (ours, first) = (said[0].seq.wrapping_add(1), said[0].stamps.unwrap());
    assert_eq!(first.1, 500);
    give(&mut alone, 0, 1001, Some(ours), Some((501, first.0)), b"");
    let (_, id, _) = alone.engine.accepted().unwrap();
    assert_eq!(alone.engine.look(id).unwrap().mss, 1448);
    alone.now += 30_000;
    let said = give(&mut alone, 0, 1001, Some(ours), Some((510, first.0)), &[1; 2000]);
    assert_eq!(said[0].stamps, Some((first.0.wrapping_add(30), 510)));
    // Older than what came: answered, not taken. A RST is believed.
    let said = give(&mut alone, 0, 3001, Some(ours), Some((509, first.0)), b"old");
    assert_eq!((said[0].ack, said[0].stamps.unwrap().1), (3001, 510));
    assert_eq!(alone.engine.look(id).unwrap().unread, 2000);
    // What is out of order is not echoed.
    let said = give(&mut alone, 0, 4001, Some(ours), Some((600, first.0)), b"late");
    assert_eq!((said[0].stamps.unwrap().1, said[0].blocks.clone()), (510, vec![(4001, 4005)]));
    // What comes back early was no answer to what was sent again.
    alone.send(id, 3000);
    assert_eq!(alone.poll().len(), 3);
    let said = alone.pass(400_000);
    assert!(alone.engine.look(id).unwrap().congestion.0 < 1500, "{said:?}");
    let echo = first.0.wrapping_add(30);
    give(&mut alone, 0, 3001, Some(ours + 1448), Some((700, echo)), b"");
    assert_eq!(alone.engine.look(id).unwrap().congestion.0, 14_480, "it was only late");
    give(&mut alone, RST, 3001, None, Some((5, 0)), b"");
    assert_eq!(alone.engine.look(id).unwrap().end, Some(End::Reset));
}

#[test]
fn buffers_of_the_size_that_a_program_wants() {
    let mut world = World::new(Limits::default(), 5);
    world.weather.delay = 1_000;
    let (one, other, _) = world.pair(false, 80);
    world.engines[0].tune(one, Tuning { send_buffer: Some(10_000), ..Tuning::default() });
    world.engines[1].tune(other, Tuning { receive_buffer: Some(100_000), ..Tuning::default() });
    assert_eq!(world.look(0, one).room, 10_000);
    assert_eq!(world.write(0, one, &[1; 20_000]), 10_000);
    world.engines[0].tune(one, Tuning { send_buffer: Some(300_000), ..Tuning::default() });
    let (mut got, mut most) = (0, [0; 2]);
    let until = world.now + 5_000_000;
    world.run(until, |world| {
        world.write(0, one, &vec![5; 1 << 20]);
        got += world.read(1, other).len();
        most[0] = most[0].max(world.look(0, one).unacknowledged);
        most[1] = most[1].max(world.look(1, other).windows.1 as usize);
        got > 10 << 20
    });
    assert!(got > 10 << 20, "{got}");
    assert_eq!(most[0], 300_000);
    assert!((65_536..=100_000).contains(&most[1]), "{most:?}");
}

#[test]
fn a_window_that_closes_over_what_is_on_its_way() {
    let (mut alone, _) = Alone::new(Limits::default(), 10);
    let (id, ours) = alone.open(1000);
    alone.engine.send(id, |room| {
        room[..5000].fill(1);
        5000
    });
    assert!(alone.poll().len() > 1);
    let closed = by_hand(alone.flow, 0, 1001, Some(ours), 0, &[]);
    alone.give(&closed);
    let asked = alone.pass(60_000_000).len();
    assert!((3..40).contains(&asked), "{asked}");
    // All of it is there once the window is.
    let mut got = 0u32;
    alone.peer(0, 1001, Some(ours), &[]);
    for _ in 0..20 {
        for (_, said) in alone.pass(1_000_000) {
            if said.seq == ours + got {
                got += said.payload.len() as u32;
            }
        }
        alone.peer(0, 1001, Some(ours + got), &[]);
    }
    assert_eq!((got, alone.engine.look(id).unwrap().unacknowledged), (5000, 0));
}

#[test]
fn the_corpus_and_what_is_near_it() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../fuzz/corpus/tcp");
    let mut inputs: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    inputs.sort();
    assert!(inputs.len() > 10);
    let mut dice = Dice(4711);
    for input in &inputs {
        crate::testing::engine(input);
    }
    for _ in 0..3000 {
        // Two, one behind the other, with some bytes changed.
        let mut input = inputs[dice.roll(inputs.len() as u64) as usize].clone();
        input.extend_from_slice(&inputs[dice.roll(inputs.len() as u64) as usize]);
        for _ in 0..dice.roll(8) {
            let at = dice.roll(input.len() as u64) as usize;
            input[at] = dice.roll(256) as u8;
        }
        crate::testing::engine(&input);
    }
}
