//! Rings of packet sockets (`PACKET_RX_RING`): frames in memory that the container has mapped, each in a place of its own, with a word that says whose
//! it is (TPACKET_V1 and TPACKET_V2).
//!
//! Of what the container writes there only that word is read: whatever it holds is somebody's turn, and no more. Positions are the Sentry's own.

use std::sync::Arc;

use super::{Along, MAC};
use crate::errno::Errno;
use crate::memory::object::{Extent, MemoryObject};
use crate::memory::shared::SharedMemory;
use crate::memory::store::{PAGE, Store};

/// Bytes of a ring, at most.
pub const MOST: u64 = 256 << 20;
/// Bytes of a frame's head with the address after it, and what all begins at multiples of.
const HEADERS: usize = 52;
const ALIGNMENT: usize = 16;
/// Where the address is.
const ADDRESS: usize = 32;

/// Whose a place is, and what is said with a frame.
mod status {
    pub const KERNEL: u32 = 0;
    pub const USER: u32 = 1;
    pub const LOSING: u32 = 4;
    pub const UNSUMMED: u32 = 8;
    pub const SOFTWARE_TIME: u32 = 1 << 29;
}

/// The memory of a ring.
pub struct Shared(Arc<SharedMemory>);

impl MemoryObject for Shared {
    fn populate(&self, offset: u64, len: u64, write: bool) -> Result<Vec<Extent>, Errno> {
        self.0.populate(offset, len, write)
    }

    fn size(&self) -> u64 {
        self.0.size()
    }

    fn identity(&self) -> (u64, u64) {
        self.0.identity()
    }

    fn path(&self) -> Vec<u8> {
        b"socket:[packet]".to_vec()
    }
}

/// What a ring is to be (`struct tpacket_req`), and of which version.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Shape {
    pub block_size: u32,
    pub blocks: u32,
    pub frame_size: u32,
    pub frames: u32,
    /// `TPACKET_V2` rather than `TPACKET_V1`.
    pub second: bool,
}

/// A ring.
pub(super) struct Ring {
    shared: Arc<Shared>,
    shape: Shape,
    per_block: u32,
    reserve: usize,
    next: u32,
}

impl Ring {
    /// A new one. EINVAL, ENOMEM.
    pub fn new(store: &Arc<Store>, shape: Shape, reserve: u32) -> Result<Self, Errno> {
        let least = (HEADERS as u32).checked_add(reserve).ok_or(Errno::EINVAL)?;
        let block = u64::from(shape.block_size);
        let aligned = block > 0 && i32::try_from(shape.block_size).is_ok() && block % PAGE == 0;
        if !aligned || shape.frame_size < least || !(shape.frame_size as usize).is_multiple_of(ALIGNMENT) {
            return Err(Errno::EINVAL);
        }
        let per_block = shape.block_size / shape.frame_size;
        if per_block == 0 || per_block.checked_mul(shape.blocks) != Some(shape.frames) {
            return Err(Errno::EINVAL);
        }
        let len = block.saturating_mul(shape.blocks.into());
        if len > MOST {
            return Err(Errno::ENOMEM);
        }
        let memory = SharedMemory::new(store, len)?;
        Ok(Self { shared: Arc::new(Shared(memory)), shape, per_block, reserve: reserve as usize, next: 0 })
    }

    /// Its memory, to be mapped.
    pub fn memory(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Whether somebody has it mapped.
    pub fn is_mapped(&self) -> bool {
        Arc::strong_count(&self.shared) > 1
    }

    fn place(&self, frame: u32) -> u64 {
        let (block, within) = (frame / self.per_block, frame % self.per_block);
        u64::from(block) * u64::from(self.shape.block_size) + u64::from(within) * u64::from(self.shape.frame_size)
    }

    fn status(&self, frame: u32) -> u32 {
        let mut raw = [0; 4];
        // It lies in the ring by construction.
        let _ = self.shared.0.read(self.place(frame), &mut raw);
        u32::from_ne_bytes(raw)
    }

    /// Whether there is something that the container has not given back: the last one.
    pub fn has_news(&self) -> bool {
        let last = self.next.checked_sub(1).unwrap_or(self.shape.frames.saturating_sub(1));
        self.status(last) != status::KERNEL
    }

    /// Puts a frame in, as much as there is room for; whether there was a place.
    pub fn put(&mut self, data: &[u8], along: &Along, losing: bool) -> bool {
        let at = self.next;
        if self.status(at) != status::KERNEL {
            return false;
        }
        // With its header the packet begins where it does without, or a little after it.
        let maclen = along.network;
        let network = match maclen {
            0 => HEADERS.next_multiple_of(ALIGNMENT) + 16,
            n => (HEADERS + n.max(16)).next_multiple_of(ALIGNMENT),
        };
        let network = network.saturating_add(self.reserve);
        let begin = network.saturating_sub(maclen);
        let room = (self.shape.frame_size as usize).saturating_sub(begin);
        let kept = data.get(..room.min(data.len())).unwrap_or_default();
        let mut said = status::USER | status::SOFTWARE_TIME;
        said |= if losing { status::LOSING } else { 0 };
        said |= if along.unsummed { status::UNSUMMED } else { 0 };
        let small = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        let words = |all: &[usize]| -> Vec<u8> {
            all.iter().flat_map(|n| u32::try_from(*n).unwrap_or(u32::MAX).to_ne_bytes()).collect()
        };
        let (seconds, rest) = (along.time.div_euclid(1_000_000_000), along.time.rem_euclid(1_000_000_000));
        let time = |n: i64| u32::try_from(n).unwrap_or(0).to_ne_bytes();
        // `struct tpacket_hdr`, `struct tpacket2_hdr`, without the word that says whose it is.
        let mut head = if self.shape.second { Vec::new() } else { vec![0; 4] };
        head.extend(words(&[along.length, kept.len()]));
        head.extend([small(begin), small(network)].iter().flat_map(|n| n.to_ne_bytes()));
        head.extend(time(seconds));
        head.extend(time(if self.shape.second { rest } else { rest / 1000 }));
        head.resize(ADDRESS - 4, 0);
        head.extend(address(along));
        let place = self.place(at);
        let memory = &self.shared.0;
        let whole = memory
            .write(place + 4, &head)
            .and_then(|()| memory.write(place + begin as u64, kept))
            // There first, then told of.
            .and_then(|()| memory.write(place, &said.to_ne_bytes()));
        self.next = (at + 1) % self.shape.frames.max(1);
        whole.is_ok()
    }
}

/// Where a frame came from (`struct sockaddr_ll`).
pub fn address(along: &Along) -> Vec<u8> {
    const AF_PACKET: u16 = 17;
    let mut raw = AF_PACKET.to_ne_bytes().to_vec();
    raw.extend_from_slice(&along.protocol.to_be_bytes());
    raw.extend_from_slice(&along.device.to_ne_bytes());
    raw.extend_from_slice(&along.hatype.to_ne_bytes());
    raw.extend_from_slice(&[along.kind, MAC as u8]);
    raw.extend_from_slice(&along.from);
    raw.extend_from_slice(&[0; 2]);
    raw
}
