//! Packet sockets, `packet(7)`: frames of a namespace's devices as they are.
//!
//! The loopback device has no wire, so its frames are made for who looks at them, of what UDP, ICMP and raw sockets send (there are none of TCP). Those of
//! netd's interfaces come from netd, which is told to hand them over as long as a socket is there for them ([`Taps`]), and go to it.
//!
//! Owns sockets, their queues and rings (`ring`), and which sockets a namespace has. Memory is bounded by each socket's receive buffer, and by
//! [`ring::MOST`]. What is in a frame is anybody's. Called by the calls of sockets (`syscalls::packet`), by what sends within (`ipc::inet`) and by what hears netd
//! (`net`). Who may have such a socket is asked where it is made.
//!
//! Locks: a namespace's list before a socket's state.

mod file;
mod ring;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use cofferdam_socket::frame::{self, wanted};

pub use file::PacketFile;
pub use ring::{Shape, Shared, address};

use crate::bpf::{Frame as Filtered, Program};
use crate::errno::Errno;
use crate::filesystems::anon::{AnonInode, Family};
use crate::ipc::inet::raw::{self, Packet};
use crate::ipc::netlink::INDEX;
use crate::ipc::unix::Options;
use crate::memory::store::Store;
use crate::namespaces::NetNamespace;
use crate::sync::Mutex;
use crate::task::Creds;
use crate::time::{Clock, now};
use crate::uio::{Sink, Source};
use crate::vfs::file::{File, flags};
use crate::vfs::inode::mode;
use crate::wait::{PollMask, WaitQueue};
use ring::Ring;

/// Bytes of an Ethernet header, and of an address in it.
pub const HEADER: usize = frame::LEAST;
/// See [`HEADER`].
pub const MAC: usize = 6;
/// `ETH_P_ALL`: of every protocol.
pub const ALL: u16 = 3;
const ETH_P_802_2: u16 = 4;
const ETH_P_802_3: u16 = 1;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const ETH_P_8021Q: u16 = 0x8100;
/// Kinds of devices (`ARPHRD_*`).
const ETHER: u16 = 1;
const LOOPBACK: u16 = 772;
/// What a frame in a queue costs beside its bytes.
const COST: usize = 768;
/// How much may wait (`net.core.rmem_default`).
const BUFFER: usize = 212_992;
/// Memberships of one socket, which each cost memory.
const MEMBERSHIPS: usize = 64;

/// What a frame is to its device (`PACKET_HOST` and its kin).
#[allow(missing_docs)]
pub mod kind {
    pub const HOST: u8 = 0;
    pub const BROADCAST: u8 = 1;
    pub const MULTICAST: u8 = 2;
    pub const OTHERHOST: u8 = 3;
    pub const OUTGOING: u8 = 4;
}

/// A device as packet sockets know it.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// Its number.
    pub index: u32,
    /// `ARPHRD_*`.
    pub hatype: u16,
    /// Its address.
    pub mac: [u8; MAC],
    /// The longest packet.
    pub mtu: usize,
    /// It works.
    pub up: bool,
}

impl Device {
    /// The one with a number.
    pub fn of(net: &NetNamespace, index: u32) -> Option<Self> {
        if index == INDEX {
            let (mtu, up) = (net.loopback.mtu() as usize, net.loopback.is_up());
            return Some(Self { index, hatype: LOOPBACK, mac: [0; MAC], mtu, up });
        }
        let i = net.outside()?.network.interface(index)?;
        Some(Self { index, hatype: ETHER, mac: i.mac, mtu: i.mtu as usize, up: true })
    }
}

/// What is told with a frame.
#[derive(Clone, Copy, Debug)]
pub struct Along {
    /// The device's number.
    pub device: u32,
    /// What kind of device it is.
    pub hatype: u16,
    /// See [`kind`].
    pub kind: u8,
    /// `ETH_P_*`.
    pub protocol: u16,
    /// Who sent it.
    pub from: [u8; MAC],
    /// Sums in it are not complete.
    pub unsummed: bool,
    /// When it came, `CLOCK_REALTIME` nanoseconds.
    pub time: i64,
    /// Bytes there were before a filter cut it.
    pub length: usize,
    /// Where the packet begins in what a program gets.
    pub network: usize,
}

struct Frame {
    data: Vec<u8>,
    along: Along,
}

/// A membership of a device's (`PACKET_ADD_MEMBERSHIP`), and how often it was asked for.
struct Membership {
    what: (u32, u16, Vec<u8>),
    times: u32,
}

/// Options of `SOL_PACKET` that are kept.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Kept {
    pub auxdata: bool,
    pub origdev: bool,
    pub loss: bool,
    pub has_off: bool,
    pub bypass: bool,
    pub ignore_outgoing: bool,
    pub timestamp: i32,
    pub copy_thresh: i32,
    pub version: i32,
    pub reserve: u32,
    /// `SO_BINDTODEVICE`, which has no effect on packet sockets.
    pub bound: u32,
}

struct State {
    /// In the order of this machine; 0: it hears nothing.
    protocol: u16,
    /// The device it is bound to; 0: all.
    device: u32,
    frames: VecDeque<Frame>,
    bytes: usize,
    ring: Option<Ring>,
    /// Frames that came, and frames that found no room, since that was last asked.
    counted: [u32; 2],
    kept: Kept,
    members: Vec<Membership>,
    options: Options,
    filter: Option<Arc<Program>>,
    error: Option<Errno>,
    timeouts: [i64; 2],
    send_buffer: usize,
    receive_buffer: usize,
}

/// A socket.
pub struct PacketSocket {
    /// `SOCK_RAW`: with the header. Else `SOCK_DGRAM`.
    pub raw: bool,
    /// Unique.
    pub id: u64,
    /// Whose it is.
    pub uid: u32,
    /// Where it is.
    pub net: Arc<NetNamespace>,
    ino: OnceLock<u64>,
    state: Mutex<State>,
    /// Woken when a frame came.
    pub queue: WaitQueue,
}

static NEXT: AtomicU64 = AtomicU64::new(1);

/// The packet sockets of a namespace.
#[derive(Default)]
pub struct Taps {
    all: Mutex<Vec<Weak<PacketSocket>>>,
    /// How many hear something: while none does, no frames are made for them.
    hearing: AtomicUsize,
}

impl Taps {
    /// Whether somebody looks.
    pub fn any(&self) -> bool {
        self.hearing.load(Ordering::Relaxed) > 0
    }

    /// Those there are.
    pub fn list(&self) -> Vec<Arc<PacketSocket>> {
        self.all.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

/// Where a frame is to go, or a socket to be bound (`struct sockaddr_ll`).
#[derive(Clone, Debug)]
pub struct Place {
    /// In the order of this machine.
    pub protocol: u16,
    /// The device's number.
    pub device: u32,
    /// The address.
    pub mac: [u8; MAC],
}

/// What was received.
#[derive(Clone, Copy, Debug)]
pub struct Got {
    /// Bytes put.
    pub count: usize,
    /// Bytes there were, after the filter.
    pub length: usize,
    /// What is told with it.
    pub along: Along,
}

impl PacketSocket {
    /// A new one, which hears of a protocol unless that is 0.
    pub fn new(net: &Arc<NetNamespace>, raw: bool, protocol: u16, uid: u32) -> Arc<Self> {
        let state = State {
            protocol,
            device: 0,
            frames: VecDeque::new(),
            bytes: 0,
            ring: None,
            counted: [0; 2],
            kept: Kept::default(),
            members: Vec::new(),
            options: Options::default(),
            filter: None,
            error: None,
            timeouts: [0; 2],
            send_buffer: BUFFER,
            receive_buffer: BUFFER,
        };
        let socket = Arc::new(Self {
            raw,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            uid,
            net: net.clone(),
            ino: OnceLock::new(),
            state: Mutex::new(state),
            queue: WaitQueue::new(),
        });
        net.taps.all.lock().push(Arc::downgrade(&socket));
        settle(net);
        socket
    }

    /// An open file for it.
    pub fn file(self: &Arc<Self>, creds: &Creds, nonblocking: bool) -> Arc<File> {
        let inode = AnonInode::make(Family::Socket.dev(), mode::SOCKET | 0o777, creds.fsuid, creds.fsgid, None);
        let ino = inode.attr().map(|a| a.ino).unwrap_or(0);
        let _ = self.ino.set(ino);
        let name = format!("socket:[{ino}]");
        let f = flags::RDWR | if nonblocking { flags::NONBLOCK } else { 0 };
        File::new(Family::Socket.place(inode, name.as_bytes()), Box::new(PacketFile(self.clone())), f)
    }

    fn close(&self) {
        {
            let mut s = self.state.lock();
            s.protocol = 0;
            s.frames.clear();
            s.ring = None;
        }
        self.net.taps.all.lock().retain(|t| t.strong_count() > 0 && !std::ptr::eq(t.as_ptr(), self));
        settle(&self.net);
    }

    /// `bind(2)` to a device (0: all) and a protocol (0: as before). ENODEV.
    pub fn bind(&self, device: u32, protocol: u16) -> Result<(), Errno> {
        let there = if device == 0 { None } else { Some(Device::of(&self.net, device).ok_or(Errno::ENODEV)?) };
        {
            let mut s = self.state.lock();
            s.device = device;
            if protocol != 0 {
                s.protocol = protocol;
            }
            if s.protocol != 0 && there.is_some_and(|d| !d.up) {
                s.error = Some(Errno::ENETDOWN);
            }
        }
        settle(&self.net);
        Ok(())
    }

    /// Its protocol and device, as it is bound.
    pub fn bound(&self) -> (u16, Option<Device>, u32) {
        let (protocol, device) = {
            let s = self.state.lock();
            (s.protocol, s.device)
        };
        (protocol, Device::of(&self.net, device), device)
    }

    /// Options of `SOL_PACKET` that are kept.
    pub fn kept<R>(&self, f: impl FnOnce(&mut Kept) -> R) -> R {
        f(&mut self.state.lock().kept)
    }

    /// Whether it has a ring.
    pub fn has_ring(&self) -> bool {
        self.state.lock().ring.is_some()
    }

    /// Gives it a ring, or takes it away. EBUSY, EINVAL, ENOMEM.
    pub fn set_ring(&self, store: &Arc<Store>, shape: Option<Shape>) -> Result<(), Errno> {
        let mut s = self.state.lock();
        if s.ring.as_ref().is_some_and(Ring::is_mapped) {
            return Err(Errno::EBUSY);
        }
        match shape {
            Some(_) if s.ring.is_some() => return Err(Errno::EBUSY),
            Some(shape) => s.ring = Some(Ring::new(store, shape, s.kept.reserve)?),
            None => s.ring = None,
        }
        s.frames.clear();
        s.bytes = 0;
        Ok(())
    }

    /// The memory of its ring. EINVAL.
    pub fn ring(&self) -> Result<Arc<Shared>, Errno> {
        self.state.lock().ring.as_ref().map(Ring::memory).ok_or(Errno::EINVAL)
    }

    /// One membership more. ENODEV, EINVAL, ENOBUFS. No device has to do anything for it: what comes is for all.
    pub fn join(&self, device: u32, what: u16, address: Vec<u8>) -> Result<(), Errno> {
        const OF_AN_ADDRESS: [u16; 2] = [0, 3];
        Device::of(&self.net, device).ok_or(Errno::ENODEV)?;
        if address.len() > MAC {
            return Err(Errno::EINVAL);
        }
        let mut s = self.state.lock();
        let what = (device, what, address);
        if let Some(m) = s.members.iter_mut().find(|m| m.what == what) {
            m.times = m.times.saturating_add(1);
            return Ok(());
        }
        if OF_AN_ADDRESS.contains(&what.1) && what.2.len() != MAC {
            return Err(Errno::EINVAL);
        }
        if s.members.len() >= MEMBERSHIPS {
            return Err(Errno::ENOBUFS);
        }
        s.members.push(Membership { what, times: 1 });
        Ok(())
    }

    /// One less; of one that there is none of nothing is said.
    pub fn leave(&self, device: u32, what: u16, address: Vec<u8>) {
        let mut s = self.state.lock();
        let what = (device, what, address);
        if let Some(m) = s.members.iter_mut().find(|m| m.what == what) {
            m.times = m.times.saturating_sub(1);
        }
        s.members.retain(|m| m.times > 0);
    }

    /// Frames that came, those that were lost too, and those that were lost, since that was last asked.
    pub fn statistics(&self) -> [u32; 2] {
        let [came, lost] = std::mem::take(&mut self.state.lock().counted);
        [came.wrapping_add(lost), lost]
    }

    /// Whether it hears a frame of a device.
    fn hears(&self, s: &State, along: &Along) -> bool {
        let own = match s.protocol {
            0 => false,
            ALL => along.kind != kind::OUTGOING || !s.kept.ignore_outgoing,
            protocol => along.kind != kind::OUTGOING && protocol == along.protocol,
        };
        own && (s.device == 0 || s.device == along.device)
    }

    /// Takes a frame, if it is for it; what has no room is lost. Whether there is something to read now.
    fn take(&self, frame: &[u8], along: &Along) -> bool {
        let mut s = self.state.lock();
        if !self.hears(&s, along) {
            return false;
        }
        let start = if self.raw { 0 } else { HEADER };
        let data = frame.get(start..).unwrap_or_default();
        let mut along = Along { length: data.len(), network: HEADER - start, ..*along };
        let mut len = data.len();
        if let Some(filter) = &s.filter {
            let seen = Filtered {
                frame,
                start,
                network: HEADER,
                protocol: along.protocol,
                kind: along.kind,
                device: along.device,
                hatype: along.hatype,
            };
            len = len.min(filter.run_frame(&seen) as usize);
        }
        // A packet of nothing is none.
        if len == 0 {
            return false;
        }
        let data = data.get(..len).unwrap_or_default();
        let [came, lost] = s.counted;
        let s = &mut *s;
        let taken = match &mut s.ring {
            Some(ring) => ring.put(data, &along, lost > 0),
            None if s.bytes >= s.receive_buffer => false,
            None => {
                along.length = along.length.max(len);
                s.bytes = s.bytes.saturating_add(len + COST);
                s.frames.push_back(Frame { data: data.to_vec(), along });
                true
            }
        };
        s.counted = if taken { [came.wrapping_add(1), lost] } else { [came, lost.wrapping_add(1)] };
        taken
    }

    /// Receives a frame. EAGAIN, or an error that waits.
    pub fn receive(&self, to: &mut Sink<'_>, peek: bool) -> Result<Got, Errno> {
        let mut s = self.state.lock();
        if let Some(e) = s.error.take() {
            return Err(e);
        }
        let Some(first) = s.frames.front() else { return Err(Errno::EAGAIN) };
        let (length, along) = (first.data.len(), first.along);
        if peek {
            let count = to.put(&first.data)?;
            return Ok(Got { count, length, along });
        }
        let taken = s.frames.pop_front();
        s.bytes = s.bytes.saturating_sub(length + COST);
        drop(s);
        let data = taken.map(|t| t.data).unwrap_or_default();
        let count = if data.is_empty() { 0 } else { to.put(&data)? };
        Ok(Got { count, length, along })
    }

    /// Sends a frame, or what becomes one. ENXIO, ENETDOWN, EMSGSIZE, EINVAL, ENOBUFS.
    pub fn send(&self, from: &mut Source<'_>, to: Option<&Place>) -> Result<usize, Errno> {
        let (protocol, index) = match to {
            Some(to) => (to.protocol, to.device),
            None => {
                let s = self.state.lock();
                (s.protocol, s.device)
            }
        };
        let device = Device::of(&self.net, index).ok_or(Errno::ENXIO)?;
        if !device.up {
            return Err(Errno::ENETDOWN);
        }
        const TAG: usize = 4;
        let count = from.left();
        let own = if self.raw { HEADER } else { 0 };
        let most = device.mtu.saturating_add(own);
        if count > most.saturating_add(TAG) {
            return Err(Errno::EMSGSIZE);
        }
        let mut frame = Vec::new();
        if !self.raw {
            frame.extend_from_slice(&match to {
                Some(to) => to.mac,
                None if index == INDEX => [0; MAC],
                None => return Err(Errno::EINVAL),
            });
            frame.extend_from_slice(&device.mac);
            let length = u16::try_from(count).unwrap_or(u16::MAX);
            let kind = if [ETH_P_802_3, ETH_P_802_2].contains(&protocol) { length } else { protocol };
            frame.extend_from_slice(&kind.to_be_bytes());
        }
        if count > 0 {
            frame.extend(from.take_vec(count)?);
        }
        let (Some(header), true) = (frame.first_chunk::<HEADER>(), frame.len() >= HEADER) else {
            return Err(Errno::EINVAL);
        };
        let tagged = u16::from_be_bytes([header[12], header[13]]) == ETH_P_8021Q;
        if count > most && !tagged {
            return Err(Errno::EMSGSIZE);
        }
        leave(&self.net, &device, &frame, self.id)?;
        Ok(count)
    }

    /// Options of the socket's own level.
    pub fn options<R>(&self, f: impl FnOnce(&mut Options) -> R) -> R {
        f(&mut self.state.lock().options)
    }

    /// Sizes of the buffers: send, receive.
    pub fn buffers(&self) -> (usize, usize) {
        let s = self.state.lock();
        (s.send_buffer, s.receive_buffer)
    }

    /// Sets a size as `SO_SNDBUF` and `SO_RCVBUF` do.
    pub fn set_buffer(&self, send: bool, size: usize, most: usize) {
        let least = if send { 4608 } else { 2304 };
        let size = size.min(most).saturating_mul(2).max(least);
        let mut s = self.state.lock();
        *(if send { &mut s.send_buffer } else { &mut s.receive_buffer }) = size;
    }

    /// Timeouts for receiving and sending, nanoseconds, 0 for none.
    pub fn timeouts(&self) -> [i64; 2] {
        self.state.lock().timeouts
    }

    /// Sets one of them.
    pub fn set_timeout(&self, send: bool, ns: i64) {
        let [receive, sending] = &mut self.state.lock().timeouts;
        *(if send { sending } else { receive }) = ns;
    }

    /// The filter of what comes in.
    pub fn filter(&self) -> Option<Arc<Program>> {
        self.state.lock().filter.clone()
    }

    /// Sets it; the one before.
    pub fn set_filter(&self, filter: Option<Arc<Program>>) -> Option<Arc<Program>> {
        std::mem::replace(&mut self.state.lock().filter, filter)
    }

    /// Takes a pending error (`SO_ERROR`).
    pub fn take_error(&self) -> Option<Errno> {
        self.state.lock().error.take()
    }

    /// It never does.
    pub fn listens(&self) -> bool {
        false
    }

    /// Bytes of the next frame.
    pub fn waiting(&self) -> usize {
        self.state.lock().frames.front().map_or(0, |f| f.data.len())
    }

    /// What `/proc/net/packet` tells of it: device, whether it hears, bytes that wait, number of its inode.
    pub fn shown(&self) -> (u16, u32, bool, usize, u64) {
        let s = self.state.lock();
        (s.protocol, s.device, s.protocol != 0, s.bytes, self.ino.get().copied().unwrap_or(0))
    }

    /// What `poll(2)` says.
    pub fn events(&self) -> PollMask {
        let s = self.state.lock();
        let mut m = PollMask::OUT | PollMask::WRNORM | PollMask::WRBAND;
        let there = !s.frames.is_empty() || s.ring.as_ref().is_some_and(Ring::has_news);
        m.set(PollMask::IN | PollMask::RDNORM, there);
        m.set(PollMask::ERR, s.error.is_some());
        m
    }
}

/// Notes who hears something, and tells netd what is wanted.
fn settle(net: &NetNamespace) {
    let all = net.taps.all.lock();
    let (mut hearing, mut wants) = (0, 0);
    for socket in all.iter().filter_map(Weak::upgrade) {
        let s = socket.state.lock();
        hearing += usize::from(s.protocol != 0);
        if s.protocol != 0 && s.device != INDEX {
            wants |= wanted::COMING | if s.protocol == ALL { wanted::LEAVING } else { 0 };
        }
    }
    net.taps.hearing.store(hearing, Ordering::Relaxed);
    // With the list held: the last to change it is the last to say so.
    if let Some(outside) = net.outside() {
        outside.want_frames(wants);
    }
}

/// The protocol of a frame (`eth_type_trans`).
fn protocol_of(frame: &[u8]) -> u16 {
    /// Less is a length.
    const TYPES: u16 = 0x0600;
    let word = |at: usize| frame.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u16::from_be_bytes(*b));
    match word(12) {
        kind if kind >= TYPES => kind,
        // Old packets of Novell's.
        _ if word(HEADER) == 0xffff => ETH_P_802_3,
        _ => ETH_P_802_2,
    }
}

/// What a frame that comes by a device is to it.
fn kind_of(frame: &[u8], device: &Device) -> u8 {
    match frame.first_chunk::<MAC>() {
        // The loopback device knows no address of all.
        Some([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) if device.hatype == ETHER => kind::BROADCAST,
        Some([first, ..]) if first & 1 != 0 => kind::MULTICAST,
        Some(to) if *to == device.mac => kind::HOST,
        _ => kind::OTHERHOST,
    }
}

/// A frame has come by a device, or is leaving: who looks gets a copy, but for who sent it.
fn see(net: &NetNamespace, device: &Device, frame: &[u8], kind: u8, unsummed: bool, by: u64) {
    let from = frame.get(MAC..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
    let along = Along {
        device: device.index,
        hatype: device.hatype,
        kind,
        protocol: protocol_of(frame),
        from,
        unsummed,
        time: now(Clock::Realtime),
        length: frame.len(),
        network: HEADER,
    };
    for socket in net.taps.list() {
        if (by != socket.id || kind != kind::OUTGOING) && socket.take(frame, &along) {
            socket.queue.wake(PollMask::IN | PollMask::RDNORM);
        }
    }
}

/// A packet goes over the loopback device.
pub fn see_within(net: &NetNamespace, p: &Packet, unsummed: bool) {
    if !net.taps.any() {
        return;
    }
    let Some(device) = Device::of(net, INDEX).filter(|d| d.up) else { return };
    let ether = if p.to.is_ipv4() { ETH_P_IP } else { ETH_P_IPV6 };
    let frame = [&[0; 2 * MAC][..], &ether.to_be_bytes(), &p.bytes()].concat();
    see(net, &device, &frame, kind::OUTGOING, unsummed, 0);
    see(net, &device, &frame, kind::HOST, unsummed, 0);
}

/// netd hands a frame over.
pub fn come_in(net: &NetNamespace, head: frame::Head, frame: &[u8]) {
    let Some(device) = Device::of(net, head.interface).filter(|d| d.index != INDEX && net.taps.any()) else { return };
    if head.lost > 0 {
        for socket in net.taps.list() {
            let mut s = socket.state.lock();
            if s.protocol != 0 && s.device != INDEX {
                let [_, lost] = &mut s.counted;
                *lost = lost.wrapping_add(head.lost);
            }
        }
    }
    let left = head.flags & frame::flags::LEFT != 0;
    let kind = if left { kind::OUTGOING } else { kind_of(frame, &device) };
    see(net, &device, frame, kind, head.flags & frame::flags::UNSUMMED != 0, 0);
}

/// A socket's frame leaves by a device. ENOBUFS.
fn leave(net: &Arc<NetNamespace>, device: &Device, frame: &[u8], by: u64) -> Result<(), Errno> {
    see(net, device, frame, kind::OUTGOING, false, by);
    if device.index != INDEX {
        let sent = net.outside().is_some_and(|o| o.send_frame(device.index, frame));
        return if sent { Ok(()) } else { Err(Errno::ENOBUFS) };
    }
    // What the loopback device sends it receives.
    let kind = kind_of(frame, device);
    see(net, device, frame, kind, false, by);
    let is_ip = [ETH_P_IP, ETH_P_IPV6].contains(&protocol_of(frame));
    if let Some(packet) = frame.get(HEADER..).filter(|_| is_ip && kind != kind::OTHERHOST) {
        raw::looped(net, packet);
    }
    Ok(())
}
