//! The TCP engine of netd: packets in, packets out.
//!
//! Owns every TCP connection of a sandbox with the world outside: handshakes, listeners, timers, congestion control, TIME_WAIT, and
//! the bytes of both directions. Has no descriptor, no clock, no thread; what it knows of the time its caller says.
//! Must never panic on what a packet or a caller says, take more than constant time for a packet, or more memory than `Limits` allow.
//! Called by netd.
//!
//! # Where things are
//! `engine` finds the connection that a packet, a timer or a call is for. A connection (`connection`) is a record of some hundred bytes; while
//! there is something to do it has buffers, too (`live`: two rings, `holes` of what came, a `board` of what is on its way). Handshakes
//! (`handshake`), TIME_WAIT (`waiting`) and silence need none. `congestion` has windows and times, `segment` every byte that comes or goes.
//!
//! # What it does, and as whom
//! - RFC 9293 with RFC 5961 and RFC 1337; initial sequence numbers as RFC 6528; windows are scaled, and never shrink.
//! - Timestamps and PAWS (RFC 7323), an offset for each connection; a SYN in TIME_WAIT as RFC 6191.
//! - SACK both ways (RFC 2018, RFC 6675's pipe), D-SACK both ways (RFC 2883): what came twice undoes a slowing down that was none. What is late is
//!   told from what is lost by time (RACK, RFC 8985, with its probe for the tail); peers without SACK have NewReno (RFC 6582) and limited transmit
//!   (RFC 3042, which follows from the pipe for all).
//! - CUBIC (RFC 9438) from 10 segments on, proportional rate reduction (RFC 6937), the retransmission timer in microseconds with Linux's 200 ms.
//! - What Linux does where RFCs leave it open; `tests/integration/tests/network_segments` plays scripts against both, and names the differences.
//!
//! No ECN, no Fast Open, no F-RTO; urgent data is a part of the stream.
//!
//! # Why not smoltcp's sockets
//! It was built on them. smoltcp 0.14 sends its first segment again or all, has one SACK block and no timestamps, believes a RST anywhere in the
//! window, and can be made to panic by data behind the window of its SYN|ACK; what made up for that was more than what was used.

#![deny(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod board;
mod congestion;
mod connection;
mod engine;
mod handshake;
mod holes;
mod keyed;
mod listeners;
mod live;
mod ring;
mod segment;
mod slab;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod waiting;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use engine::Engine;
pub use segment::complete_checksum;

/// The two ends of a connection. Scopes and flow labels of IPv6 addresses are not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Our end.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
}

/// A connection. One that was given back names nothing any more, also when its place is taken again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// A listener. As with `Id`, an old one names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// Where a listener listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bind {
    /// At this address only; it wins against the others.
    To(IpAddr),
    /// At every IPv4 address.
    V4,
    /// At every IPv6 address.
    V6,
    /// At every address.
    Both,
}

/// How much there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections, those included that ended and were not given back.
    pub connections: usize,
    /// Of these, those that nobody has any more.
    pub orphans: usize,
    /// Handshakes that a peer began, of all listeners.
    pub half_open: usize,
    /// Connections in TIME_WAIT.
    pub time_wait: usize,
    /// Listeners.
    pub listeners: usize,
    /// The most that waits to be read, and to be acknowledged, of one connection. Window scaling follows from the first.
    pub receive_buffer: usize,
    /// See `receive_buffer`.
    pub send_buffer: usize,
    /// The buffers of all connections. From half of it on buffers are small and given back early; what goes beyond it is 8 KiB a connection.
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 65_536,
            orphans: 4096,
            half_open: 4096,
            time_wait: 16_384,
            listeners: 4096,
            receive_buffer: 2 << 20,
            send_buffer: 2 << 20,
            memory: 256 << 20,
        }
    }
}

/// When a silent peer is asked whether it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// After so long a silence (TCP_KEEPIDLE).
    pub idle: Duration,
    /// Then in this interval (TCP_KEEPINTVL).
    pub interval: Duration,
    /// So often (TCP_KEEPCNT).
    pub probes: u8,
}

impl Keepalive {
    /// Linux's interval and count.
    pub fn after(idle: Duration) -> Self {
        Keepalive { idle, interval: Duration::from_secs(75), probes: 9 }
    }
}

/// What a program sets of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Small segments need not wait for an acknowledgement (TCP_NODELAY).
    pub nodelay: bool,
    /// SO_KEEPALIVE.
    pub keepalive: Option<Keepalive>,
    /// TCP_USER_TIMEOUT: how long sent data may stay unacknowledged.
    pub user_timeout: Option<Duration>,
    /// IP_TTL, IPV6_UNICAST_HOPS. 0 is taken for 1.
    pub hop_limit: u8,
    /// IP_TOS, IPV6_TCLASS.
    pub traffic_class: u8,
    /// TCP_MAXSEG: no larger segments are sent or asked for. Acts from the next handshake on.
    pub largest_segment: Option<u16>,
    /// SO_RCVBUF, or tcp_rmem's largest: to what the buffer may grow, if that is less than `Limits` have. Not less than 32 KiB.
    pub receive_buffer: Option<usize>,
    /// SO_SNDBUF, or tcp_wmem's largest. Not less than 4 KiB.
    pub send_buffer: Option<usize>,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            nodelay: false,
            keepalive: None,
            user_timeout: None,
            hop_limit: 64,
            traffic_class: 0,
            largest_segment: None,
            receive_buffer: None,
            send_buffer: None,
        }
    }
}

/// Where packets go.
pub trait Output {
    /// A whole IP packet: IPv4 or IPv6 header, TCP header, payload. The TCP checksum field holds the sum of the pseudo header only, not
    /// inverted (Linux's CHECKSUM_PARTIAL): the device or `complete_checksum` completes it. The checksum of an IPv4 header is complete.
    ///
    /// `segment` = 0: one segment. Else several of so many bytes of payload each (the last may have less) that follow each other, as one
    /// packet of at most 65,535 bytes (GSO). `header`: bytes of IP and TCP header. PSH and FIN belong to the last segment.
    ///
    /// It is taken or lost: what `has_room` said is kept to but for packets that answer one that came.
    fn send(&mut self, packet: &[u8], header: usize, segment: u16);
    /// Whether more can be sent now. If not, the engine keeps what it has; call `Engine::poll` when there is room again.
    fn has_room(&self) -> bool;
}

/// Why something cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Ports of 0, families that differ, addresses that are nobody's.
    #[error("no connection can be between these addresses")]
    Address,
    /// The four-tuple is taken.
    #[error("there is such a connection already")]
    InUse,
    /// One of `Limits`.
    #[error("there are as many as may be")]
    Full,
}

/// What the network said of a packet of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unreachable {
    /// An ICMP or ICMPv6 message with this type and code.
    Icmp {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
    },
    /// Fragmentation needed (type 3, code 4), or ICMPv6 Packet Too Big: the MTU that it names.
    TooBig(u32),
}

/// Why a connection ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// A RST to our SYN.
    Refused,
    /// A RST.
    Reset,
    /// No answer, for too long.
    TimedOut,
    /// The network said so while we were connecting.
    Unreachable(Unreachable),
}

/// Where a connection is, in RFC 9293's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// SYN_SENT, or SYN_RECEIVED after both have sent a SYN.
    Connecting,
    /// ESTABLISHED
    Established,
    /// FIN_WAIT_1
    FinWait1,
    /// FIN_WAIT_2
    FinWait2,
    /// CLOSE_WAIT
    CloseWait,
    /// CLOSING
    Closing,
    /// LAST_ACK
    LastAck,
    /// CLOSED, or TIME_WAIT: nothing goes or comes any more.
    Closed,
}

/// A connection, looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Its ends.
    pub flow: Flow,
    /// Where it is.
    pub phase: Phase,
    /// Bytes to be read.
    pub unread: usize,
    /// Bytes that `send` took and the peer has not acknowledged.
    pub unacknowledged: usize,
    /// How many bytes `send` takes now, perhaps in two parts.
    pub room: usize,
    /// The peer's FIN came, and all before it: after `unread` bytes there is the end.
    pub ended: bool,
    /// `finish` was called.
    pub finished: bool,
    /// Why it ended, if not in the usual way.
    pub end: Option<End>,
    /// What the network said last of it, without ending it.
    pub soft: Option<Unreachable>,
    /// The smoothed round-trip time, once it was measured, and its deviation.
    pub round_trip: Option<(Duration, Duration)>,
    /// The retransmission timeout.
    pub timeout: Duration,
    /// The largest segments that are sent.
    pub mss: u16,
    /// The largest segments that the peer takes.
    pub peer_mss: u16,
    /// The path's MTU as far as it is known.
    pub mtu: usize,
    /// Congestion window and slow start threshold in bytes.
    pub congestion: (u32, u32),
    /// What the peer takes, what it was told that we take (bytes).
    pub windows: (u32, u32),
    /// Both window scales, the peer's first; `None`: the peer has none.
    pub scales: Option<(u8, u8)>,
    /// Whether SACK was agreed on.
    pub sack: bool,
    /// Segments that were sent again.
    pub retransmissions: u32,
    /// Bytes that came in order; bytes of ours that were acknowledged.
    pub bytes: (u64, u64),
}

/// Counts since the engine was made (RFC 4022 and more).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that were begun here.
    pub active_opens: u64,
    /// Connections that a peer began, established.
    pub passive_opens: u64,
    /// Of both, those that did not come about.
    pub attempt_fails: u64,
    /// Connections that ended by a RST or a timeout.
    pub established_resets: u64,
    /// Segments that came; a packet of several counts once.
    pub segments_in: u64,
    /// Segments that went, those included that were sent again.
    pub segments_out: u64,
    /// Segments that were sent again.
    pub retransmitted: u64,
    /// Packets that were malformed.
    pub malformed: u64,
    /// Packets with a wrong checksum.
    pub checksum_errors: u64,
    /// RSTs that went.
    pub resets_out: u64,
    /// RSTs that came and were believed.
    pub resets_in: u64,
    /// SYNs dropped because a backlog was full.
    pub dropped_syns: u64,
    /// Handshakes dropped for newer ones, or for want of an answer.
    pub dropped_half_open: u64,
    /// SYNs that were answered without remembering them.
    pub cookies_sent: u64,
    /// Connections that came of such an answer.
    pub cookies_received: u64,
    /// TIME_WAIT records dropped for newer ones.
    pub dropped_time_wait: u64,
    /// RFC 5961's answers to what may be forged.
    pub challenges: u64,
    /// Connections now: all that have an `Id`.
    pub connections: u64,
    /// Handshakes now.
    pub half_open: u64,
    /// TIME_WAIT records now.
    pub time_wait: u64,
    /// Connections now that have buffers.
    pub live: u64,
    /// Bytes of these.
    pub memory: u64,
}
