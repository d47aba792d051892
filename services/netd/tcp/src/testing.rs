//! What the fuzz target and the replay of its corpus do with an input. Part of no service: feature `testing` only.
//!
//! Owns a driver that takes any bytes for packets and calls and panics only where the engine is wrong.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::segment::{ACK, Draft, FIN, RST, SYN, Segment, seal};
use crate::{Bind, Engine, Flow, Id, Keepalive, Limits, Output, Tuning, Unreachable, complete_checksum};

/// Looks at every packet that goes.
struct Judge {
    room: usize,
    /// The last sequence numbers that each port of ours used.
    last: Vec<(u16, u16, u32, u32)>,
}

impl Output for Judge {
    fn send(&mut self, packet: &[u8], header: usize, segment: u16) {
        self.room = self.room.saturating_sub(1);
        assert!(packet.len() <= 65_535 && header <= packet.len());
        let mut whole = packet.to_vec();
        complete_checksum(&mut whole);
        let seen = Segment::parse(&whole, false).expect("what the engine sends is well-formed");
        assert_eq!(seen.packet.len(), packet.len());
        assert_eq!(packet.len() - seen.payload.len(), header);
        if segment > 0 {
            assert!(seen.payload.len() > usize::from(segment));
        }
        // As it went: the peer is the destination.
        let (peer, us) = (seen.local.port(), seen.remote.port());
        self.last.retain(|l| (l.0, l.1) != (peer, us));
        self.last.push((peer, us, seen.seq.wrapping_add(seen.length()), seen.ack));
        if self.last.len() > 64 {
            self.last.remove(0);
        }
    }

    fn has_room(&self) -> bool {
        self.room > 0
    }
}

/// Bytes, taken from the front.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn word(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }
}

fn address(port: u16, v6: bool, peer: bool) -> SocketAddr {
    match (v6, peer) {
        (false, false) => ([10, 0, 0, 1], port).into(),
        (false, true) => ([10, 0, 0, 2], port).into(),
        (true, false) => ([0xfd00, 0, 0, 0, 0, 0, 0, 1], port).into(),
        (true, true) => ([0xfd00, 0, 0, 0, 0, 0, 0, 2], port).into(),
    }
}

/// Packets, well-formed and not, calls and time, against an engine with a listener and connections.
pub fn engine(bytes: &[u8]) {
    let mut script = Script(bytes);
    let limits = Limits {
        connections: 8,
        orphans: 2,
        half_open: 4,
        time_wait: 3,
        listeners: 4,
        receive_buffer: 100_000,
        send_buffer: 70_000,
        memory: 600_000,
    };
    let mut engine = Engine::new(limits, 1);
    let listener = engine.listen(Bind::Both, 80, 3, Tuning::default()).unwrap();
    let base = Instant::now();
    let mut now = 0u64;
    let mut judge = Judge { room: 64, last: Vec::new() };
    let mut ids: Vec<Id> = Vec::new();
    drive(&mut script, &mut engine, &mut ids, &mut judge, &mut now, base, listener);
    // It comes to an end, whatever was.
    engine.unlisten(listener);
    for id in ids {
        engine.detach(id);
    }
    while let Some((_, id, _)) = engine.accepted() {
        engine.abort(id);
    }
    let end = now + 7_200_000_000;
    let mut turns = 0;
    while let Some(at) = engine.next() {
        now = now.max(at.saturating_duration_since(base).as_micros() as u64);
        judge.room = 64;
        engine.poll(base + Duration::from_micros(now), &mut judge);
        turns += 1;
        assert!(turns < 100_000 && now < end, "it does not come to an end: {:?}", engine.counters());
    }
    let counters = engine.counters();
    assert_eq!((counters.connections, counters.half_open, counters.time_wait, counters.memory), (0, 0, 0, 0));
}

fn drive(
    script: &mut Script<'_>,
    engine: &mut Engine,
    ids: &mut Vec<Id>,
    judge: &mut Judge,
    now: &mut u64,
    base: Instant,
    listener: crate::ListenerId,
) -> Option<()> {
    loop {
        let time = base + Duration::from_micros(*now);
        let what = script.byte()?;
        let chosen = ids.get(usize::from(what >> 4) % ids.len().max(1)).copied();
        match what & 15 {
            // A segment of a peer, mostly with numbers near those that it has.
            0..=5 => {
                let flags = script.byte()?;
                let (ports, delta) = (script.byte()?, script.word()? as i16);
                let length = usize::from(script.word()?) % 3000;
                let v6 = ports & 128 != 0;
                let (peer, us) =
                    (u16::from(ports & 7) + 1, if ports & 8 == 0 { 80 } else { 1000 + u16::from(ports & 7) });
                let known = judge.last.iter().find(|l| (l.0, l.1) == (peer, us)).copied();
                let (next, expected) = known.map_or((0, 0), |l| (l.2, l.3));
                let seq = if what & 1 == 0 { expected } else { expected.wrapping_add_signed(i32::from(delta)) };
                let ack = if what & 2 == 0 { next } else { next.wrapping_add_signed(i32::from(delta / 3)) };
                let flags = flags & (SYN | FIN | RST | ACK | 8 | 32);
                let mut draft = Draft::new(address(peer, v6, true), address(us, v6, false), flags & !ACK, seq, None);
                draft.ack = (flags & ACK != 0).then_some(ack);
                draft.window = script.word()?;
                if flags & SYN != 0 {
                    draft.mss = Some(delta as u16);
                    draft.scale = (what & 4 == 0).then_some(ports % 16);
                    draft.sack = true;
                }
                // Timestamps that go and come back, blocks around what was sent.
                if ports & 64 != 0 {
                    draft.stamps = Some((u32::from(ports).wrapping_add_signed(i32::from(delta) << 4), next));
                }
                if ports & 32 != 0 && flags & SYN == 0 {
                    let near = |by: i32| next.wrapping_add_signed(i32::from(delta).wrapping_mul(by));
                    let block = |by: i32| Some((near(by), near(by).wrapping_add(u32::from(draft.window) >> by)));
                    draft.blocks = [block(1), block(2), block(3), Some((near(4), next))];
                }
                let (head, size) = draft.build(length);
                let mut packet = head[..size].to_vec();
                packet.resize(size + length, 0x55);
                engine.receive(&packet, true, 1500, time, judge);
            }
            // Bytes for a packet, with or without a right sum.
            6 => {
                let length = usize::from(script.byte()?).min(script.0.len());
                let (packet, rest) = script.0.split_at(length);
                script.0 = rest;
                let mut packet = packet.to_vec();
                let start = if packet.first()? >> 4 == 6 { 40 } else { 20 };
                if what & 128 != 0 && packet.len() > start {
                    seal(&mut packet, start, length - start, 0);
                }
                engine.receive(&packet, what & 64 != 0, usize::from(what) << 5, time, judge);
            }
            7 => {
                let port = 1000 + u16::from(script.byte()? & 7);
                let flow = Flow {
                    local: address(port, what & 128 != 0, false),
                    remote: address(port - 999, what & 128 != 0, true),
                };
                if let Ok(id) = engine.connect(flow, 100 + (usize::from(what) << 6), Tuning::default(), time) {
                    ids.push(id);
                }
            }
            8 => {
                let id = chosen?;
                let length = usize::from(script.word()?);
                engine.send(id, |room| {
                    let length = length.min(room.len());
                    room[..length].fill(0xaa);
                    // An owner may lie.
                    if what & 128 == 0 { length } else { length + 1_000_000 }
                });
            }
            9 => {
                let id = chosen?;
                let length = usize::from(script.word()?);
                engine.recv(id, |_| length);
            }
            10 => {
                let id = chosen?;
                match script.byte()? {
                    0..=99 => engine.finish(id),
                    100..=149 => engine.abort(id),
                    150..=199 => engine.detach(id),
                    tuning => {
                        let time = Duration::from_secs(u64::from(tuning & 15));
                        let keepalive = Some(Keepalive { idle: time, interval: time, probes: 2 });
                        let user_timeout = (tuning & 16 != 0).then_some(time);
                        let nodelay = tuning & 32 != 0;
                        let largest = Some(u16::from(tuning));
                        let set = Tuning {
                            nodelay,
                            keepalive,
                            user_timeout,
                            hop_limit: 0,
                            traffic_class: 0,
                            largest_segment: largest,
                            receive_buffer: (tuning & 64 != 0).then_some(usize::from(tuning) << 8),
                            send_buffer: (tuning & 8 != 0).then_some(usize::from(tuning) << 6),
                        };
                        engine.tune(id, set);
                    }
                }
            }
            11 => {
                *now += u64::from(script.word()?).pow(1 + u32::from(what >> 7));
            }
            12 => {
                while let Some((_, id, _)) = engine.accepted() {
                    ids.push(id);
                }
                engine.set_pending(listener, usize::from(what >> 5));
            }
            13 => {
                let ports = script.byte()?;
                let v6 = ports & 128 != 0;
                let (peer, us) =
                    (u16::from(ports & 7) + 1, if ports & 8 == 0 { 80 } else { 1000 + u16::from(ports & 7) });
                let flow = Flow { local: address(us, v6, false), remote: address(peer, v6, true) };
                let next = judge.last.iter().find(|l| (l.0, l.1) == (peer, us)).map_or(0, |l| l.2);
                let why = match script.byte()? {
                    mtu if mtu & 1 == 0 => Unreachable::TooBig(u32::from(mtu) << 4),
                    code => Unreachable::Icmp { kind: 3, code },
                };
                engine.unreachable(flow, next.wrapping_sub(u32::from(what >> 4)), why);
            }
            _ => {
                judge.room = usize::from(what >> 4) * 4;
                engine.poll(time, judge);
                while let Some(id) = engine.changed() {
                    assert!(engine.look(id).is_some());
                }
                judge.room = 64;
            }
        }
        let counters = engine.counters();
        assert!(counters.connections <= 8 && counters.half_open <= 4 && counters.time_wait <= 3);
        assert!(counters.memory <= 600_000 + 8 * 8192 + 170_000, "{counters:?}");
        for &id in ids.iter() {
            if let Some(look) = engine.look(id) {
                assert!(look.unread <= 100_000 && look.unacknowledged <= 70_000);
            }
        }
    }
}
